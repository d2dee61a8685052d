"""firth's word2vec compared with gensim's and fastText's: the same text and options, time and quality.

    python benchmarks/word2vec.py --quick                 a few minutes, a slice of the text
    python benchmarks/word2vec.py                         everything, three times
    python benchmarks/word2vec.py --only kernel,threads
    python benchmarks/word2vec.py --show results.json     the tables of an earlier run

README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import common
import comparison
from comparison import Run, plural, rotated, spread_of, thousands, total, training
from peers import firth_corpus, firth_model, train_fasttext, train_firth, train_gensim

PACKAGES = ("gensim", "fasttext", "numpy", "scipy")
OPTIONS: dict[str, Any] = {
    "vector_size": 100,
    "window": 5,
    "negative": 5,
    "sample": 1e-3,
    "epochs": 5,
    "min_count": comparison.MIN_COUNT,
    "learning_rate": 0.025,
    "min_learning_rate": 1e-4,
}
LINES = (5, 5000)  # words per line of the two variants of the text

# --- What runs in a process of its own -------------------------------------------------------------------------------


def cut_lines(text: str, length: int, out: str) -> Run:
    """The same words in lines of another length."""
    words = Path(text).read_text().split()
    part = Path(out).with_suffix(".part")
    with part.open("w") as file:
        for start in range(0, len(words), length):
            file.write(" ".join(words[start : start + length]) + "\n")
    part.replace(out)
    return {}


def count_firth(text: str, threads: int) -> Run:
    """Count and encode."""
    import firth.models  # outside of what is timed: firth imports its parts when they are used first

    clock = common.Clock()
    corpus = firth.Corpus.from_file(text, min_count=OPTIONS["min_count"], threads=threads)
    clock.stage("counting")
    return {
        "seconds": clock.seconds,
        "vocabulary": len(corpus.vocabulary),
        "tokens": corpus.n_tokens,
    }


def count_gensim(text: str, threads: int) -> Run:
    """Count. gensim does not encode the text in advance, and counts on one thread."""
    from gensim.models.word2vec import Word2Vec

    # One dimension, so that allocating the matrices takes no time.
    model = Word2Vec(sg=1, vector_size=1, min_count=OPTIONS["min_count"], workers=threads)
    clock = common.Clock()
    model.build_vocab(corpus_file=text)
    clock.stage("counting")
    return {
        "seconds": clock.seconds,
        "vocabulary": len(model.wv),
        "tokens": int(model.wv.expandos["count"].sum()),
    }


def kernel(text: str, threads: int, seed: int, epochs: int) -> Run:
    """The training kernel alone, over the whole corpus, between two timings of a matrix product."""
    corpus = firth_corpus(text, None, OPTIONS, threads)
    tokens, train = firth_model({**OPTIONS, "epochs": epochs}, threads, seed)._begin(corpus, progress=False)
    before = common.matmul_gflops()
    seconds, examples, losses = [], [], []
    for epoch in range(epochs):
        start = time.perf_counter()
        tally = train(0, tokens, epoch)
        seconds.append(time.perf_counter() - start)
        examples.append(tally.examples)
        losses.append(tally.loss / max(1, tally.examples))
    after = common.matmul_gflops()
    return {
        "seconds": {"training": sum(seconds)},
        "seconds_by_epoch": seconds,
        "examples": sum(examples),
        "loss": losses,
        "tokens": tokens,
        "gflops": _flops(sum(examples)) / sum(seconds) / 1e9,
        "matmul_gflops": [before, after],
        "vocabulary": len(corpus.vocabulary),
    }


WORK = (cut_lines, train_firth, train_gensim, train_fasttext, count_firth, count_gensim, kernel)


def _flops(examples: int) -> float:
    """A multiply and an add per dimension for the dot product and for the update of either row, for each target."""
    return float(examples * (1 + OPTIONS["negative"]) * 6 * OPTIONS["vector_size"])


# --- The sections ----------------------------------------------------------------------------------------------------

# Contender: the function that trains it, where it reads from, and the package it needs.
PEERS = {
    "firth": (train_firth, "file", "firth"),
    "gensim, corpus_file": (train_gensim, "file", "gensim"),
    "gensim, iterable": (train_gensim, "stream", "gensim"),
    "fastText": (train_fasttext, "file", "fasttext"),
}
COUNTERS = {"firth": (count_firth, "firth"), "gensim, corpus_file": (count_gensim, "gensim")}
READERS = {
    "firth, file": (train_firth, "file", "firth"),
    "firth, lists of words": (train_firth, "lists", "firth"),
    "firth, strings": (train_firth, "strings", "firth"),
    "gensim, corpus_file": (train_gensim, "file", "gensim"),
    "gensim, lists of words": (train_gensim, "lists", "gensim"),
}


def train(
    bench: comparison.Bench, section: str, contender: str, seed: int, threads: int, how: tuple[Any, str, str]
) -> None:
    """Train a contender from the text to vectors on disk, and check the vectors before the time counts."""
    work, source, package = how
    out = bench.scratch / "vectors.bin"
    arguments = {
        "text": bench.path,
        "source": source,
        "threads": threads,
        "seed": seed,
        "options": OPTIONS,
        "out": str(out),
    }
    run = bench.run(section, contender, seed, work, arguments, comparison.unless_installed(package))
    bench.evaluate(run, out)
    bench.keep(run)


def run_peers(bench: comparison.Bench) -> None:
    for seed in bench.seeds:
        for name in rotated(PEERS, seed - 1):
            train(bench, "peers", name, seed, bench.settings.threads, PEERS[name])


def run_counting(bench: comparison.Bench) -> None:
    for seed in bench.seeds:
        for name in rotated(COUNTERS, seed - 1):
            work, package = COUNTERS[name]
            arguments = {"text": bench.path, "threads": bench.settings.threads}
            absent = comparison.unless_installed(package)
            bench.keep(bench.run("counting", name, seed, work, arguments, absent))


def run_kernel(bench: comparison.Bench) -> None:
    for seed in bench.seeds:
        for threads in sorted({1, bench.settings.threads}):
            arguments = {"text": bench.path, "threads": threads, "seed": seed, "epochs": OPTIONS["epochs"]}
            run = bench.run("kernel", plural(threads), seed, kernel, arguments)
            if "failed" not in run and not run["loss"][-1] < run["loss"][0]:
                run["problems"].append(f"the loss does not fall: {run['loss']}")
            bench.keep(run)


def run_threads(bench: comparison.Bench) -> None:
    counts = sorted({1, bench.settings.threads})
    for seed in bench.seeds:
        for threads in counts if seed % 2 else counts[::-1]:
            train(bench, "threads", plural(threads), seed, threads, PEERS["firth"])


def run_lines(bench: comparison.Bench) -> None:
    texts = {length: bench.folder / f"lines-{length}.txt" for length in LINES}
    for length, path in texts.items():
        if not path.exists():
            made = bench.fresh(cut_lines, {"text": bench.path, "length": length, "out": str(path)})
            if "failed" in made:
                raise SystemExit(f"lines of {length} words could not be made: {made['failed']}")
        comparison.warm(path)
    for seed in bench.seeds:
        for name in rotated(READERS, seed - 1):
            work, source, package = READERS[name]
            for length in LINES if seed % 2 else LINES[::-1]:
                arguments = {
                    "text": str(texts[length]),
                    "source": source,
                    "threads": bench.settings.threads,
                    "seed": seed,
                    "options": {**OPTIONS, "epochs": 1},
                    "out": None,
                }
                absent = comparison.unless_installed(package)
                bench.keep(bench.run("lines", f"{name}, {length:,} per line", seed, work, arguments, absent))


# --- The tables ------------------------------------------------------------------------------------------------------


class Report(comparison.Report):
    """The tables of one result file."""

    def peers(self) -> str:
        return (
            "### From a file to vectors on disk\n\n"
            + self.training_table("peers", "firth")
            + "\n\nQuality, times 100:\n\n"
            + self.quality_table("peers", "firth", "gensim, corpus_file")
        )

    def counting(self) -> str:
        headings = ["", "s", "relative to firth", "MB/s", "words/s", "peak MB"]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            seconds = common.median(map(total, runs.values()))
            return [
                spread_of(runs, total, 2),
                self.times("counting", name, "firth", total),
                f"{self.megabytes / seconds:.0f}",
                thousands(self.words / seconds),
                spread_of(runs, lambda run: run["peak_mb"], 0, wide=False),
            ]

        return "### Counting words; firth also encodes the text\n\n" + common.table(
            headings, self.rows("counting", len(headings), cells)
        )

    def kernel(self) -> str:
        headings = ["", "examples/s", "words/s", "GFLOP/s", "matrix product, GFLOP/s", "% of the product"]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            return [
                thousands(common.median(run["examples"] / total(run) for run in runs.values())),
                thousands(self.words * OPTIONS["epochs"] / common.median(map(total, runs.values()))),
                spread_of(runs, lambda run: run["gflops"], 1),
                spread_of(runs, lambda run: statistics.mean(run["matmul_gflops"]), 0),
                spread_of(runs, lambda run: 100 * run["gflops"] / statistics.mean(run["matmul_gflops"]), 1),
            ]

        return (
            "### The training kernel, and a float32 product of two 4096 x 4096 matrices in the same process\n\n"
            + common.table(headings, self.rows("kernel", len(headings), cells))
        )

    def threads(self) -> str:
        names = self.contenders("threads")
        headings = ["firth", "training, s", "words/s", f"speed, relative to {names[0]}"]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            return [
                spread_of(runs, training, 1),
                thousands(self.words * OPTIONS["epochs"] / common.median(map(training, runs.values()))),
                self.times("threads", names[0], name, training, 2),
            ]

        return (
            "### One thread and several\n\n"
            + common.table(headings, self.rows("threads", len(headings), cells))
            + "\n\nQuality, times 100:\n\n"
            + self.quality_table("threads", names[-1], names[0])
        )

    def lines(self) -> str:
        headings = ["", "counting, words/s", "training, words/s", "examples per word"]
        headings += ["both, words/s", "relative to firth"]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            length = next(length for length in LINES if name.endswith(f"{length:,} per line"))
            alike = next(reader for reader in READERS if name.startswith(f"{reader},"))
            ours = alike.replace("gensim, corpus_file", "firth, file").replace("gensim", "firth")
            examples = [run["examples"] / self.words for run in runs.values() if run.get("examples")]
            return [
                thousands(self.words / common.median(run["seconds"]["counting"] for run in runs.values())),
                thousands(self.words / common.median(map(training, runs.values()))),
                common.spread([common.median(examples)], 1) if examples else "-",
                thousands(self.words / common.median(map(total, runs.values()))),
                self.times("lines", name, f"{ours}, {length:,} per line", total),
            ]

        return "### Short and long lines, from a file and from Python objects; one epoch\n\n" + common.table(
            headings, self.rows("lines", len(headings), cells)
        )


SECTIONS = {
    "peers": run_peers,
    "counting": run_counting,
    "kernel": run_kernel,
    "threads": run_threads,
    "lines": run_lines,
}


if __name__ == "__main__":
    script = comparison.Script(__file__, __doc__, OPTIONS, PACKAGES, WORK, SECTIONS, Report)
    comparison.main(script)
