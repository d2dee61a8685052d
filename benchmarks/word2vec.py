"""firth's word2vec beside gensim's and fastText's: the same text, the same options, quality beside time.

    python benchmarks/word2vec.py --quick                 a few minutes, a slice of the text
    python benchmarks/word2vec.py                         everything, three times
    python benchmarks/word2vec.py --only kernel,threads
    python benchmarks/word2vec.py --show results.json     the tables of an earlier run

README.md beside this says what is measured and how.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import common

SECTIONS = ("peers", "counting", "kernel", "threads", "lines")
PACKAGES = ("gensim", "fasttext", "numpy", "scipy")
OPTIONS = {
    "vector_size": 100,
    "window": 5,
    "negative": 5,
    "sample": 1e-3,
    "epochs": 5,
    "min_count": 5,
    "learning_rate": 0.025,
    "min_learning_rate": 1e-4,
}
SIMILARITY_FILES = {
    "WordSim-353": "similarity/WS-353-ALL.txt",
    "MEN": "similarity/MEN-TR-3k.txt",
    "RG-65": "similarity/RG-65.txt",
}
ANALOGIES = {"analogies, 30,000 words": 30_000, "analogies, all words": None}
MEASURES = (*SIMILARITY_FILES, *ANALOGIES)
LINES = (5, 5000)  # words in a line of the two variants of the text

# --- What runs in a process of its own -------------------------------------------------------------------------------


def prepare(source: str, folder: str, limit: int | None) -> dict[str, Any]:
    """Cut a text to lower-case [a-z]+ and [0-9]+, a paragraph a line, and write the variants of LINES beside it."""
    import collections
    import re

    from firth.files import open_binary

    token = re.compile(r"[a-z]+|[0-9]+")
    counts: collections.Counter[str] = collections.Counter()
    everything: list[str] = []
    lines = read = 0
    with open_binary(source) as raw, Path(folder, "text.txt").open("w") as text:
        for line in raw:
            if limit is not None and read >= limit:
                break
            read += len(line)
            words = token.findall(line.decode().lower())
            if words:
                text.write(" ".join(words) + "\n")
                counts.update(words)
                everything += words
                lines += 1
    for length in LINES:
        with Path(folder, f"lines-{length}.txt").open("w") as text:
            for start in range(0, len(everything), length):
                text.write(" ".join(everything[start : start + length]) + "\n")
    return {
        "words": len(everything),
        "lines": lines,
        "bytes": Path(folder, "text.txt").stat().st_size,
        "vocabulary": sum(count >= OPTIONS["min_count"] for count in counts.values()),
    }


def cpu() -> dict[str, Any]:
    """The kernels in use."""
    import firth

    return firth.cpu_info()


def train_firth(text: str, source: str, threads: int, seed: int, epochs: int, out: str | None) -> dict[str, Any]:
    """From `source` ("file", "lists", "strings") to vectors on disk."""
    start = time.perf_counter()
    import firth

    imports = {"import_seconds": time.perf_counter() - start, "import_mb": common.peak_so_far()}
    model = firth.Word2Vec(**_firth_options(epochs, seed, threads))
    given = _sentences(text, source)
    clock = common.Clock()
    corpus = _firth_corpus(text, given, threads)
    clock.stage("counting")
    model.fit(corpus)
    clock.stage("training")
    if out is not None:
        model.vectors.save(out)
        clock.stage("saving")
    return {
        "seconds": clock.seconds,
        **imports,
        "vocabulary": len(corpus.vocabulary),
        "examples": _examples_in_an_epoch(corpus, seed, threads) if out is None else None,
    }


def train_gensim(text: str, source: str, threads: int, seed: int, epochs: int, out: str | None) -> dict[str, Any]:
    """From `source` ("file": corpus_file, "stream": LineSentence, "lists") to vectors on disk."""
    start = time.perf_counter()
    from gensim.models.word2vec import LineSentence, Word2Vec

    imports = {"import_seconds": time.perf_counter() - start, "import_mb": common.peak_so_far()}
    given = None if source == "file" else LineSentence(text) if source == "stream" else _sentences(text, source)
    where = {"corpus_file": text} if given is None else {"corpus_iterable": given}
    clock = common.Clock()
    model = Word2Vec(
        sg=1,
        hs=0,
        vector_size=OPTIONS["vector_size"],
        window=OPTIONS["window"],
        negative=OPTIONS["negative"],
        sample=OPTIONS["sample"],
        min_count=OPTIONS["min_count"],
        alpha=OPTIONS["learning_rate"],
        min_alpha=OPTIONS["min_learning_rate"],
        workers=threads,
        seed=seed,
    )
    model.build_vocab(**where)
    clock.stage("counting")
    model.train(**where, total_examples=model.corpus_count, total_words=model.corpus_total_words, epochs=epochs)
    clock.stage("training")
    if out is not None:
        model.wv.save_word2vec_format(out, binary=True)
        clock.stage("saving")
    return {
        "seconds": clock.seconds,
        **imports,
        "vocabulary": len(model.wv),
    }


def train_fasttext(text: str, source: str, threads: int, seed: int, epochs: int, out: str) -> dict[str, Any]:
    """From a file to vectors on disk, without subwords."""
    start = time.perf_counter()
    import fasttext
    import numpy as np

    imports = {"import_seconds": time.perf_counter() - start, "import_mb": common.peak_so_far()}
    # fastText 0.9.3 cuts its matrix into ten parts and each thread initialises one: below ten threads the rest is what
    # the memory held before, zeros at best (which costs points), rubbish and a stop at a NaN at worst. So it gets ten
    # threads, on as many processors as the others' threads; its speed is the same.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    clock = common.Clock()
    model = fasttext.train_unsupervised(
        text,
        model="skipgram",
        loss="ns",
        minn=0,
        maxn=0,
        dim=OPTIONS["vector_size"],
        ws=OPTIONS["window"],
        neg=OPTIONS["negative"],
        t=OPTIONS["sample"],
        lr=OPTIONS["learning_rate"],
        minCount=OPTIONS["min_count"],
        epoch=epochs,
        thread=max(10, threads),
        verbose=0,  # and no seed: its Python module does not take one
    )
    clock.stage("counting and training")
    # save_model would write its own .bin, both matrices and all; what the others write is the words' vectors.
    words, matrix = model.get_words(), np.ascontiguousarray(model.get_input_matrix(), np.float32)
    with open(out, "wb") as file:
        file.write(f"{len(words)} {matrix.shape[1]}\n".encode())
        file.write(b"".join(word.encode() + b" " + row.tobytes() for word, row in zip(words, matrix, strict=True)))
    clock.stage("saving")
    return {
        "seconds": clock.seconds,
        **imports,
        "vocabulary": len(words) - ("</s>" in words),
    }


def count_firth(text: str, threads: int) -> dict[str, Any]:
    """Count and encode."""
    import firth

    clock = common.Clock()
    corpus = firth.Corpus.from_file(text, min_count=OPTIONS["min_count"], threads=threads)
    clock.stage("counting")
    return {
        "seconds": clock.seconds,
        "vocabulary": len(corpus.vocabulary),
        "tokens": corpus.n_tokens,
    }


def count_gensim(text: str, threads: int) -> dict[str, Any]:
    """Count; gensim does not encode beforehand, and has one thread for this."""
    from gensim.models.word2vec import Word2Vec

    # Vectors of one number, so that allocating the matrices is no part of the time.
    model = Word2Vec(sg=1, vector_size=1, min_count=OPTIONS["min_count"], workers=threads)
    clock = common.Clock()
    model.build_vocab(corpus_file=text)
    clock.stage("counting")
    return {
        "seconds": clock.seconds,
        "vocabulary": len(model.wv),
        "tokens": int(model.wv.expandos["count"].sum()),
    }


def kernel(text: str, threads: int, seed: int, epochs: int) -> dict[str, Any]:
    """The training kernel alone, over the whole corpus, between two measurements of a matrix product."""
    import firth

    corpus = _firth_corpus(text, None, threads)
    model = firth.Word2Vec(**_firth_options(epochs, seed, threads))
    tokens, train = model._begin(corpus, corpus.vocabulary.counts)
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


def quality(vectors: str, data: str) -> dict[str, Any]:
    """What the saved vectors are worth, through one and the same code for everybody's."""
    import numpy as np

    import firth

    read = firth.load_vectors(vectors)
    similar = {name: firth.evaluate.similarity(read, Path(data, file)) for name, file in SIMILARITY_FILES.items()}
    scores = {name: result.spearman for name, result in similar.items()}
    for name, restrict in ANALOGIES.items():
        result = firth.evaluate.analogies(read, Path(data, "questions-words.txt"), restrict_vocab=restrict)
        scores[name] = result.accuracy
    return {
        "finite": bool(np.isfinite(read.matrix).all()),
        "shape": list(read.matrix.shape),
        "pairs": similar["MEN"].found,
        "scores": scores,
    }


WORK = (prepare, cpu, train_firth, train_gensim, train_fasttext, count_firth, count_gensim, kernel, quality)


def _firth_options(epochs: int, seed: int, threads: int) -> dict[str, Any]:
    others = {name: value for name, value in OPTIONS.items() if name not in ("epochs", "min_count")}
    return {**others, "epochs": epochs, "seed": seed, "threads": threads}


def _firth_corpus(text: str, given: list[Any] | None, threads: int) -> Any:
    import firth

    if given is None:
        return firth.Corpus.from_file(text, min_count=OPTIONS["min_count"], threads=threads)
    return firth.Corpus.from_iterable(given, min_count=OPTIONS["min_count"], threads=threads)


def _sentences(text: str, source: str) -> list[Any] | None:
    """The text as Python objects, which are somebody else's to make: not timed."""
    if source == "file":
        return None
    with open(text) as file:
        return [line.split() for line in file] if source == "lists" else file.read().splitlines()


def _examples_in_an_epoch(corpus: Any, seed: int, threads: int) -> int:
    import firth

    tokens, train = firth.Word2Vec(**_firth_options(1, seed, threads))._begin(corpus, corpus.vocabulary.counts)
    return int(train(0, tokens, 0).examples)


def _flops(examples: int) -> float:
    """Two operations (multiply, add) each for the dot product and for the move of either row, for each target."""
    return examples * (1 + OPTIONS["negative"]) * 6.0 * OPTIONS["vector_size"]


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


class Bench:
    """One evening: the text, the settings, and every run so far."""

    def __init__(self, settings: argparse.Namespace, scratch: Path) -> None:
        self.settings = settings
        self.scratch = scratch
        self.machine = common.describe_machine(PACKAGES)
        self.machine["firth"] = common.run_fresh(__file__, "cpu", settings.threads, {})
        if "failed" in self.machine["firth"]:
            raise SystemExit(f"firth does not run here: {self.machine['firth']['failed']}")
        self.folder, self.text = prepared(settings)
        self.runs: list[dict[str, Any]] = []

    @property
    def seeds(self) -> range:
        """A seed for each repeat."""
        return range(1, self.settings.repeats + 1)

    def run(
        self, section: str, contender: str, seed: int, work: Any, package: str, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        """Run one contender once, or note why not; `keep` the figures when they have been checked."""
        run: dict[str, Any] = {"section": section, "contender": contender, "seed": seed, "problems": []}
        if importlib.util.find_spec(package) is None:
            run["failed"] = "not installed"
        else:
            print(f"{section}: {contender}, seed {seed} ...", file=sys.stderr, flush=True)
            run.update(common.run_fresh(__file__, work.__name__, arguments["threads"], arguments))
        if "failed" not in run and run["vocabulary"] != self.text["vocabulary"]:
            run["problems"].append(f"{run['vocabulary']} words, not {self.text['vocabulary']}")
        return run

    def train(self, section: str, contender: str, seed: int, threads: int, how: tuple[Any, str, str]) -> None:
        """Train a contender from the text to vectors on disk, and look at what came out before its time counts."""
        work, source, package = how
        out = self.scratch / "vectors.bin"
        arguments = {
            "text": str(self.folder / "text.txt"),
            "source": source,
            "threads": threads,
            "seed": seed,
            "epochs": OPTIONS["epochs"],
            "out": str(out),
        }
        run = self.run(section, contender, seed, work, package, arguments)
        if "failed" not in run:
            arguments = {"vectors": str(out), "data": str(self.settings.data)}
            self.judge(run, common.run_fresh(__file__, "quality", threads, arguments))
        self.keep(run)

    def judge(self, run: dict[str, Any], found: dict[str, Any]) -> None:
        """Enter what `quality` found, and what is wrong with it."""
        if "failed" in found:
            run["problems"].append(f"its vectors could not be read or judged: {found['failed']}")
        else:
            run["quality"] = found
            if found["shape"][1] != OPTIONS["vector_size"]:
                run["problems"].append(f"vectors of {found['shape'][1]} numbers")
            if not found["finite"]:
                run["problems"].append("numbers that are not finite")
            # Ranks of unrelated numbers correlate by less than two standard errors, 1 / sqrt(pairs - 1), as a rule.
            if not found["scores"]["MEN"] > 2 / math.sqrt(max(2, found["pairs"]) - 1):
                run["problems"].append(f"similarity no better than chance (MEN {100 * found['scores']['MEN']:.1f})")

    def keep(self, run: dict[str, Any]) -> None:
        """Add a run to the results, and write them all."""
        self.runs.append(run)
        settings = {name: getattr(self.settings, name) for name in ("threads", "repeats", "slice", "only")}
        common.write_json(
            self.settings.json,
            {
                "machine": self.machine,
                "options": OPTIONS,
                "settings": settings,
                "text": self.text,
                "runs": self.runs,
            },
        )


def prepared(settings: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """The folder with the text and its variants, made once for a source and a slice of it, and read into memory."""
    source = settings.text
    if not source.exists():
        raise SystemExit(f"there is no text at {source}: give one with --text, or its folder in FIRTH_DATA")
    stat = source.stat()
    part = "whole" if settings.slice is None else f"first-{settings.slice}"
    folder = settings.work / f"{source.name}-{stat.st_size}-{int(stat.st_mtime)}-{part}"
    description = folder / "text.json"
    if not description.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"preparing the text in {folder} ...", file=sys.stderr, flush=True)
        arguments = {"source": str(source), "folder": str(folder), "limit": settings.slice}
        text = common.run_fresh(__file__, "prepare", 1, arguments)
        if "failed" in text:
            raise SystemExit(f"the text could not be prepared: {text['failed']}")
        common.write_json(description, {**text, "source": source.name, "part": part})
    for path in folder.glob("*.txt"):
        with path.open("rb") as file:
            while file.read(1 << 24):
                pass  # so that the first contender does not pay for the disk
    return folder, json.loads(description.read_text())


def rotated(names: Iterable[str], by: int) -> list[str]:
    """The names in turn, another one first each time, so that nobody always runs on a machine another has warmed."""
    names = list(names)
    by %= len(names)
    return names[by:] + names[:by]


def run_peers(bench: Bench) -> None:
    for seed in bench.seeds:
        for name in rotated(PEERS, seed - 1):
            bench.train("peers", name, seed, bench.settings.threads, PEERS[name])


def run_counting(bench: Bench) -> None:
    text = str(bench.folder / "text.txt")
    for seed in bench.seeds:
        for name in rotated(COUNTERS, seed - 1):
            work, package = COUNTERS[name]
            arguments = {"text": text, "threads": bench.settings.threads}
            bench.keep(bench.run("counting", name, seed, work, package, arguments))


def run_kernel(bench: Bench) -> None:
    text = str(bench.folder / "text.txt")
    for seed in bench.seeds:
        for threads in sorted({1, bench.settings.threads}):
            arguments = {"text": text, "threads": threads, "seed": seed, "epochs": OPTIONS["epochs"]}
            run = bench.run("kernel", plural(threads), seed, kernel, "firth", arguments)
            if "failed" not in run and not run["loss"][-1] < run["loss"][0]:
                run["problems"].append(f"the loss does not fall: {run['loss']}")
            bench.keep(run)


def run_threads(bench: Bench) -> None:
    counts = sorted({1, bench.settings.threads})
    for seed in bench.seeds:
        for threads in counts if seed % 2 else counts[::-1]:
            bench.train("threads", plural(threads), seed, threads, PEERS["firth"])


def run_lines(bench: Bench) -> None:
    for seed in bench.seeds:
        for name in rotated(READERS, seed - 1):
            work, source, package = READERS[name]
            for length in LINES if seed % 2 else LINES[::-1]:
                arguments = {
                    "text": str(bench.folder / f"lines-{length}.txt"),
                    "source": source,
                    "threads": bench.settings.threads,
                    "seed": seed,
                    "epochs": 1,
                    "out": None,
                }
                bench.keep(bench.run("lines", f"{name}, {length:,} a line", seed, work, package, arguments))


def plural(threads: int) -> str:
    return f"{threads} thread" + ("s" if threads > 1 else "")


# --- The tables ------------------------------------------------------------------------------------------------------


class Report:
    """The tables of one result file."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.words: int = content["text"]["words"]
        self.megabytes: float = content["text"]["bytes"] / 1e6

    def contenders(self, section: str) -> list[str]:
        """In the order of the tables above, whatever order they ran in."""
        order = [*PEERS, *(f"{name}, {length:,} a line" for name in READERS for length in LINES)]
        order += [plural(threads) for threads in sorted({1, self.content["settings"]["threads"]})]
        present = {run["contender"] for run in self.content["runs"] if run["section"] == section}
        return [name for name in order if name in present]

    def of(self, section: str, contender: str) -> dict[int, dict[str, Any]]:
        """The runs that can be believed, by seed."""
        return {
            run["seed"]: run for run in self.all_of(section, contender) if "failed" not in run and not run["problems"]
        }

    def all_of(self, section: str, contender: str) -> list[dict[str, Any]]:
        """The runs of a contender in a section."""
        return [run for run in self.content["runs"] if (run["section"], run["contender"]) == (section, contender)]

    def rows(self, section: str, columns: int, cells: Any) -> list[list[str]]:
        """A row for each contender: `cells(name, runs by seed)`, or why there are none."""
        rows = []
        for name in self.contenders(section):
            runs = self.of(section, name)
            if runs:
                rows.append([name, *cells(name, runs)])
            else:
                whys = {run.get("failed", "") for run in self.all_of(section, name)}
                rows.append(
                    [name, "not installed" if whys == {"not installed"} else "see below", *[""] * (columns - 2)]
                )
        return rows

    def times(self, section: str, slow: str, fast: str, seconds: Any, digits: int = 1) -> str:
        """How many times as long one took as the other, pair by pair of the runs with one seed."""
        if slow == fast:
            return "1"
        slower, faster = self.of(section, slow), self.of(section, fast)
        both = sorted(slower.keys() & faster.keys())
        return common.spread([seconds(slower[seed]) / seconds(faster[seed]) for seed in both], digits)

    def peers(self) -> str:
        headings = ["", "file to vectors, s", "times firth's", "counting, s", "training, s", "saving, s"]
        headings += ["training, times firth's", "words/s", "peak MB", "of it imports", "import, s"]

        def cells(name: str, runs: dict[int, dict[str, Any]]) -> list[str]:
            def stage(stage: str, digits: int = 1) -> str:
                return spread_of(runs, lambda run: run["seconds"].get(stage), digits)

            separate = "training" in next(iter(runs.values()))["seconds"]
            return [
                spread_of(runs, total, 1),
                self.times("peers", name, "firth", total),
                stage("counting", 2) if separate else "in training",
                stage("training") if separate else stage("counting and training"),
                stage("saving", 2),
                self.times("peers", name, "firth", training) if separate else "-",
                thousands(self.words * OPTIONS["epochs"] / common.median(map(training, runs.values())), separate),
                spread_of(runs, lambda run: run["peak_mb"], 0, wide=False),
                spread_of(runs, lambda run: run["import_mb"], 0, wide=False),
                spread_of(runs, lambda run: run["import_seconds"], 1, wide=False),
            ]

        return (
            "### From a file to vectors on disk\n\n"
            + common.table(headings, self.rows("peers", len(headings), cells))
            + "\n\nIts quality, in points:\n\n"
            + self.quality("peers", "firth", "gensim, corpus_file")
        )

    def quality(self, section: str, ours: str, theirs: str) -> str:
        def scores(runs: dict[int, dict[str, Any]], measure: str) -> list[float]:
            return [100 * run["quality"]["scores"][measure] for run in runs.values()]

        def cells(name: str, runs: dict[int, dict[str, Any]]) -> list[str]:
            found = [scores(runs, measure) for measure in MEASURES]
            return [
                f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
                for values in found
            ]

        rows = self.rows(section, len(MEASURES) + 1, cells)
        mine, other = self.of(section, ours), self.of(section, theirs)
        if mine and other and ours != theirs:
            differences = [statistics.mean(scores(mine, m)) - statistics.mean(scores(other, m)) for m in MEASURES]
            rows.append([f"{ours} less {theirs}", *(f"{difference:+.1f}" for difference in differences)])
        return common.table(["", *MEASURES], rows)

    def counting(self) -> str:
        headings = ["", "s", "times firth's", "MB/s", "words/s", "peak MB"]

        def cells(name: str, runs: dict[int, dict[str, Any]]) -> list[str]:
            seconds = common.median(map(total, runs.values()))
            return [
                spread_of(runs, total, 2),
                self.times("counting", name, "firth", total),
                f"{self.megabytes / seconds:.0f}",
                thousands(self.words / seconds),
                spread_of(runs, lambda run: run["peak_mb"], 0, wide=False),
            ]

        return "### Counting the words, and (firth alone) encoding them\n\n" + common.table(
            headings, self.rows("counting", len(headings), cells)
        )

    def kernel(self) -> str:
        headings = ["", "examples/s", "words/s", "GFLOP/s", "matrix product, GFLOP/s", "share, %"]

        def cells(name: str, runs: dict[int, dict[str, Any]]) -> list[str]:
            return [
                thousands(common.median(run["examples"] / total(run) for run in runs.values())),
                thousands(self.words * OPTIONS["epochs"] / common.median(map(total, runs.values()))),
                spread_of(runs, lambda run: run["gflops"], 1),
                spread_of(runs, lambda run: statistics.mean(run["matmul_gflops"]), 0),
                spread_of(runs, lambda run: 100 * run["gflops"] / statistics.mean(run["matmul_gflops"]), 1),
            ]

        return (
            "### The training kernel against a float32 product of two 4096 x 4096 matrices, in one process\n\n"
            + common.table(headings, self.rows("kernel", len(headings), cells))
        )

    def threads(self) -> str:
        names = self.contenders("threads")
        headings = ["firth", "training, s", "words/s", f"speed, times {names[0]}'s"]

        def cells(name: str, runs: dict[int, dict[str, Any]]) -> list[str]:
            return [
                spread_of(runs, training, 1),
                thousands(self.words * OPTIONS["epochs"] / common.median(map(training, runs.values()))),
                self.times("threads", names[0], name, training, 2),
            ]

        return (
            "### One thread and several\n\n"
            + common.table(headings, self.rows("threads", len(headings), cells))
            + "\n\nIts quality, in points:\n\n"
            + self.quality("threads", names[-1], names[0])
        )

    def lines(self) -> str:
        headings = ["", "counting, words/s", "training, words/s", "examples a word", "both, words/s", "times firth's"]

        def cells(name: str, runs: dict[int, dict[str, Any]]) -> list[str]:
            length = next(length for length in LINES if name.endswith(f"{length:,} a line"))
            alike = next(reader for reader in READERS if name.startswith(f"{reader},"))
            ours = alike.replace("gensim, corpus_file", "firth, file").replace("gensim", "firth")
            examples = [run["examples"] / self.words for run in runs.values() if run.get("examples")]
            return [
                thousands(self.words / common.median(run["seconds"]["counting"] for run in runs.values())),
                thousands(self.words / common.median(map(training, runs.values()))),
                common.spread([common.median(examples)], 1) if examples else "-",
                thousands(self.words / common.median(map(total, runs.values()))),
                self.times("lines", name, f"{ours}, {length:,} a line", total),
            ]

        return "### Short lines and long ones, from a file and from Python objects; one epoch\n\n" + common.table(
            headings, self.rows("lines", len(headings), cells)
        )

    def text(self) -> str:
        """All tables that have runs."""
        machine, text, settings = self.content["machine"], self.content["text"], self.content["settings"]
        firth = machine["firth"]
        versions = ", ".join(f"{name} {version or 'not installed'}" for name, version in machine["versions"].items())
        parts = [
            f"{machine['date'][:10]}; {machine['cpu']}, {machine['cpus']} processors, {machine['memory_gb']:.0f} GB; "
            f"load before {machine['load']:.2f}; {machine['system']}, Python {machine['python']}; {versions}; "
            f"firth {machine['commit'] or ''}, kernels {firth['isa']} of {', '.join(firth['available'])}.\n"
            f"{text['source']}, {text['part']}: {text['words']:,} words in {text['lines']:,} lines, "
            f"{text['vocabulary']:,} types seen {OPTIONS['min_count']} times or more. "
            f"{plural(settings['threads'])}; seeds 1 to {settings['repeats']}; medians, lowest to highest in brackets; "
            f"ratios are medians over pairs of runs with one seed."
        ]
        done = {run["section"] for run in self.content["runs"]}
        parts += [getattr(self, section)() for section in SECTIONS if section in done]
        left_out = [
            f"- {run['section']}, {run['contender']}, seed {run['seed']}: {why}"
            for run in self.content["runs"]
            for why in [*run["problems"], run.get("failed", "not installed")]
            if why != "not installed"
        ]
        if left_out:
            parts.append("### Runs that failed, or whose result is not what it should be\n\n" + "\n".join(left_out))
        return "\n\n".join(parts)


def training(run: dict[str, Any]) -> float:
    """Seconds of training; of counting as well where a peer does not separate them."""
    seconds = run["seconds"]
    return float(seconds.get("training", seconds.get("counting and training")))


def total(run: dict[str, Any]) -> float:
    return float(sum(run["seconds"].values()))


def spread_of(runs: dict[int, dict[str, Any]], value: Any, digits: int, wide: bool = True) -> str:
    values = [found for found in map(value, runs.values()) if found is not None]
    return common.spread(values if wide or not values else [common.median(values)], digits)


def thousands(rate: float, exact: bool = True) -> str:
    return f"{'' if exact else 'over '}{rate / 1e3:,.0f} k"


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] == "--worker":
        common.serve(sys.argv[2], WORK)
        return
    data = Path(os.environ.get("FIRTH_DATA", common.REPOSITORY.parent / "shared" / "data"))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="raw text, plain, .gz or .xz (default: enwiki.raw.txt.xz in --data)")
    parser.add_argument("--data", type=Path, default=data, help="similarity/ and questions-words.txt (FIRTH_DATA)")
    parser.add_argument("--work", type=Path, default=cache / "firth-bench", help="where the prepared text is kept")
    parser.add_argument("--json", type=Path, default=common.REPOSITORY / "benchmarks" / "results" / "word2vec.json")
    parser.add_argument("--only", default=",".join(SECTIONS), help="some of " + ",".join(SECTIONS))
    parser.add_argument("--repeats", type=common.positive, help="with seeds 1, 2, ... (default 3)")
    parser.add_argument("--threads", type=common.positive, default=2)
    parser.add_argument("--slice", type=common.positive, help="bytes of the raw text to use, from its start")
    parser.add_argument("--quick", action="store_true", help="the first 8 MB, once")
    parser.add_argument("--show", type=Path, metavar="JSON", help="print the tables of an earlier run, and end")
    settings = parser.parse_args()
    if settings.show is not None:
        print(Report(json.loads(settings.show.read_text())).text())
        return
    sections = settings.only.split(",")
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"--only takes some of {','.join(SECTIONS)}, not {','.join(sorted(unknown))}")
    settings.text = settings.text or settings.data / "enwiki.raw.txt.xz"
    settings.slice = settings.slice or (8_000_000 if settings.quick else None)
    settings.repeats = settings.repeats or (1 if settings.quick else 3)
    settings.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.work) as scratch:
        bench = Bench(settings, Path(scratch))
        try:
            for section in SECTIONS:
                if section in sections:
                    globals()[f"run_{section}"](bench)
        except KeyboardInterrupt:
            print("stopped; the tables are of what was finished", file=sys.stderr)
    if bench.runs:
        print(Report(json.loads(settings.json.read_text())).text())
        print(f"\nEvery figure: {settings.json}", file=sys.stderr)


if __name__ == "__main__":
    main()
