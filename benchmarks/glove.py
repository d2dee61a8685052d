"""firth's GloVe compared with the original programs: the same text and options, time, cost and quality.

    python benchmarks/glove.py --glove GloVe/build --quick     a slice of the text, once
    python benchmarks/glove.py --glove GloVe/build             everything, three times; hours, mostly for the programs
    python benchmarks/glove.py --only threads                  sections without the programs
    python benchmarks/glove.py --show results.json             the tables of an earlier run

README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import comparison
from comparison import Run, plural, rotated, spread_of, stage, total

PACKAGES = ("numpy", "scipy")
OPTIONS: dict[str, Any] = {
    "vector_size": 100,
    "window": 10,
    "x_max": 10.0,
    "alpha": 0.75,
    "learning_rate": 0.05,
    "epochs": 15,
    "min_count": comparison.MIN_COUNT,
}
PROGRAMS = ("vocab_count", "cooccur", "shuffle", "glove")
EPOCHS = 3  # of the section that times a single one
THREADS = (1, 2, 3)  # of the section that compares bytes
GIGABYTES = "8.0"  # that `cooccur` and `shuffle` may take; with more room they write fewer temporary files


class Programs:
    """GloVe's four programs in a folder of their own: seconds and peak memory of each, costs and seconds of epochs."""

    def __init__(self, binaries: str, folder: str) -> None:
        self.binaries = Path(binaries)
        self.folder = Path(folder)
        self.vocabulary = self.folder / "vocabulary.txt"
        self.counts = self.folder / "cooccurrences.bin"
        self.shuffled = self.folder / "shuffled.bin"
        self.seconds: dict[str, float] = {}
        self.peak_mb: dict[str, float] = {}
        self.costs: list[float] = []
        self.epoch_seconds: list[float] = []

    def count_words(self, text: str) -> None:
        with self._running("vocabulary", "vocab_count", text, self.vocabulary, min_count=OPTIONS["min_count"]):
            pass

    def count_pairs(self, text: str) -> None:
        options = {"window_size": OPTIONS["window"], "symmetric": 1, "memory": GIGABYTES}
        options |= {"vocab_file": self.vocabulary.name, "overflow_file": "overflow"}
        with self._running("counting", "cooccur", text, self.counts, **options):
            pass

    def shuffle(self, seed: int) -> None:
        options = {"memory": GIGABYTES, "temp_file": "shuffle", "seed": seed}
        with self._running("ordering", "shuffle", self.counts, self.shuffled, **options):
            pass

    def train(self, threads: int, seed: int, epochs: int) -> Path:
        """Train. Returns the file of vectors, without the row for unknown words, which other tools do not have."""
        options = {name: OPTIONS[name] for name in ("vector_size", "x_max", "alpha")}
        options |= {"eta": OPTIONS["learning_rate"], "iter": epochs, "threads": threads, "seed": seed, "verbose": 1}
        options |= {"binary": 0, "model": 2, "write_header": 0}
        options |= {"input_file": self.shuffled.name, "vocab_file": self.vocabulary.name, "save_file": "vectors"}
        start = before = time.perf_counter()
        with self._running("saving", "glove", os.devnull, Path(os.devnull), **options) as lines:
            for line in lines:
                now = time.perf_counter()
                if found := re.search(r"iter: \d+, cost: (\S+)", line):
                    self.costs.append(float(found[1]))
                    self.epoch_seconds.append(now - before)
                before = now  # the line before the first epoch's is written as its threads start
        self.seconds["training"] = before - start  # with reading the vocabulary and initializing
        self.seconds["saving"] -= self.seconds["training"]
        if len(self.costs) != epochs:
            raise RuntimeError(f"glove reported {len(self.costs)} epochs, not {epochs}")
        path = self.folder / "vectors.glove"
        with Path(self.folder, "vectors.txt").open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            start_of_tail = file.seek(max(0, size - (1 << 16)))
            tail = file.read()
            unknown = tail.rindex(b"\n", 0, -1) + 1
            if not tail.startswith(b"<unk> ", unknown):
                raise RuntimeError("glove's last row is not <unk>")
            file.truncate(start_of_tail + unknown)
        return Path(self.folder, "vectors.txt").rename(path)

    @contextlib.contextmanager
    def _running(self, name: str, program: str, source: Any, target: Path, **options: Any) -> Iterator[Iterator[str]]:
        """Run a program to its end. The context is its messages on stderr, line by line as they come."""
        words = [word for key, value in options.items() for word in ("-" + key.replace("_", "-"), str(value))]
        verbose = [] if "verbose" in options else ["-verbose", "0"]
        messages = ["nothing"]

        def lines(stream: Any) -> Iterator[str]:
            for line in stream:
                messages.append(line.strip())
                yield line

        start = time.perf_counter()
        with open(source, "rb") as given, target.open("wb") as taken:
            process = subprocess.Popen(
                [self.binaries / program, *words, *verbose],
                stdin=given,
                stdout=taken,
                stderr=subprocess.PIPE,
                cwd=self.folder,  # they keep the names of their files in arrays of a few hundred characters
                text=True,
                errors="replace",
            )
            try:
                stream = lines(process.stderr)
                yield stream
                for _ in stream:
                    pass
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                if process.returncode is None:
                    process.kill()
                    process.wait()
                process.stderr.close()
        self.seconds[name] = time.perf_counter() - start
        self.peak_mb[program] = common.megabytes(usage.ru_maxrss)
        if process.returncode != 0:
            raise RuntimeError(f"{program} ended with {process.returncode}: {[line for line in messages if line][-1]}")


def add_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--glove", type=_binaries, metavar="FOLDER", help="of the compiled " + ", ".join(PROGRAMS))


def _binaries(text: str) -> Path:
    folder = Path(text).resolve()
    if missing := [name for name in PROGRAMS if not (folder / name).exists()]:
        raise argparse.ArgumentTypeError(f"{folder} lacks {', '.join(missing)}")
    return folder


def unless_given(bench: comparison.Bench) -> str | None:
    """Why the programs are absent; None if they are given."""
    return comparison.NO_GLOVE if bench.settings.glove is None else None


# --- What runs in a process of its own -------------------------------------------------------------------------------


def train_firth(text: str, threads: int, seed: int, epochs: int, out: str) -> Run:
    """From a file to vectors on disk, in the programs' format."""
    imports = common.import_cost("firth.models")
    import firth

    clock = common.Clock()
    corpus = firth.Corpus.from_file(text, min_count=OPTIONS["min_count"], threads=threads)
    clock.stage("vocabulary")
    model = _model(seed, threads, epochs).fit(corpus)
    clock.stage("fit")
    model.vectors.save(out)
    clock.stage("saving")
    each = common.epoch_seconds(model.history)
    fit = clock.seconds.pop("fit")
    return {
        "seconds": {
            **clock.seconds,
            "counting and ordering": fit - sum(each),
            "training": sum(each),
        },
        "epoch_seconds": each,
        "costs": [epoch.loss for epoch in model.history],
        **imports,
        "vocabulary": len(corpus.vocabulary),
        "digest": common.sha256(out),
    }


def train_glove(binaries: str, folder: str, text: str, threads: int, seed: int, epochs: int) -> Run:
    """The four programs, one after another."""
    programs = Programs(binaries, folder)
    programs.count_words(text)
    programs.count_pairs(text)
    programs.shuffle(seed)
    vectors = programs.train(threads, seed, epochs)
    with vectors.open("rb") as file:
        words = sum(1 for _ in file)
    return {
        "seconds": programs.seconds,
        "epoch_seconds": programs.epoch_seconds,
        "costs": programs.costs,
        "program_mb": programs.peak_mb,
        "vocabulary": words,
    }


def epochs_firth(text: str, threads: int, seed: int) -> Run:
    """A few epochs, between two measurements of the bandwidth of memory and cache."""
    import firth

    corpus = firth.Corpus.from_file(text, min_count=OPTIONS["min_count"], threads=threads)
    counts = firth.count_cooccurrences(corpus, window=OPTIONS["window"], threads=threads)
    before = bandwidth(threads)
    model = _model(seed, threads, EPOCHS).fit(counts)
    # The row and its bias and padding in float32, the sums of its squared gradients, and the same for the other word.
    row = 4 * -(-(OPTIONS["vector_size"] + 2) // 16) * 16
    return {
        "epoch_seconds": common.epoch_seconds(model.history),
        "non_zeros": int(counts.csr.nnz),
        "bytes_each": 4 * row * 2,
        "bandwidth": [before, bandwidth(threads)],
        "vocabulary": len(corpus.vocabulary),
    }


def shuffle_once(binaries: str, folder: str, text: str, seed: int) -> Run:
    """Write the file that `epochs_glove` trains on."""
    programs = Programs(binaries, folder)
    programs.count_words(text)
    programs.count_pairs(text)
    programs.shuffle(seed)
    return {"seconds": programs.seconds}


def epochs_glove(binaries: str, folder: str, threads: int, seed: int) -> Run:
    """A few epochs of the program, between two measurements of the bandwidth of memory and cache."""
    programs = Programs(binaries, folder)
    before = bandwidth(threads)
    programs.train(threads, seed, EPOCHS)
    return {
        "epoch_seconds": programs.epoch_seconds,
        "non_zeros": programs.shuffled.stat().st_size // 16,
        "bytes_each": 4 * 8 * (OPTIONS["vector_size"] + 1) * 2,  # in float64, not padded
        "bandwidth": [before, bandwidth(threads)],
    }


def bandwidth(threads: int) -> dict[str, float]:
    """Bytes per second that all threads read and write while each adds two float32 arrays into a third.

    "memory": arrays of 128 MiB. "cache": of 64 KiB, all three of a thread in the second level of most processors.
    """
    import concurrent.futures

    import numpy as np

    def rate(elements: int, times: int) -> float:
        arrays = [[np.ones(elements, np.float32) for _ in range(3)] for _ in range(threads)]

        def add(given: list[Any]) -> None:
            a, b, c = given
            for _ in range(times):
                np.add(a, b, out=c)

        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            list(pool.map(add, arrays))
            start = time.perf_counter()
            list(pool.map(add, arrays))
            seconds = time.perf_counter() - start
        return threads * times * 3 * 4 * elements / seconds

    return {"memory": rate(1 << 25, 4), "cache": rate(1 << 14, 50_000)}


def _model(seed: int, threads: int, epochs: int) -> Any:
    import firth

    others = {name: value for name, value in OPTIONS.items() if name not in ("epochs", "min_count")}
    return firth.GloVe(**others, epochs=epochs, seed=seed, threads=threads)


WORK = (train_firth, train_glove, epochs_firth, shuffle_once, epochs_glove)

# --- The sections ----------------------------------------------------------------------------------------------------

CONTENDERS = ("firth", "GloVe's programs")


def train(bench: comparison.Bench, section: str, contender: str, seed: int, threads: int) -> Run:
    """Train a contender from the text to vectors on disk, and check the vectors before the time counts."""
    folder = bench.scratch / "glove"
    folder.mkdir(exist_ok=True)
    out = folder / "vectors.glove"
    out.unlink(missing_ok=True)
    arguments = {"text": bench.path, "threads": threads, "seed": seed, "epochs": OPTIONS["epochs"]}
    if contender == CONTENDERS[1]:
        arguments |= {"binaries": str(bench.settings.glove), "folder": str(folder)}
        run = bench.run(section, contender, seed, train_glove, arguments, unless_given(bench))
    else:
        run = bench.run(section, contender, seed, train_firth, {**arguments, "out": str(out)})
    if "failed" not in run and not run["costs"][-1] < run["costs"][0]:
        run["problems"].append(f"the cost does not fall: {run['costs']}")
    bench.evaluate(run, out)
    return run


def run_peers(bench: comparison.Bench) -> None:
    for seed in bench.seeds:
        for name in rotated(CONTENDERS, seed - 1):
            bench.keep(train(bench, "peers", name, seed, bench.settings.threads))


def run_epoch(bench: comparison.Bench) -> None:
    folder = bench.scratch / "epoch"
    folder.mkdir()
    binaries = {"binaries": str(bench.settings.glove), "folder": str(folder)}
    absent = unless_given(bench)
    if absent is None:
        made = bench.fresh(shuffle_once, {**binaries, "text": bench.path, "seed": 1})
        if "failed" in made:
            raise SystemExit(f"the programs could not count: {made['failed']}")
    for seed in bench.seeds:
        for name in rotated(CONTENDERS, seed - 1):
            arguments = {"threads": bench.settings.threads, "seed": seed}
            if name == CONTENDERS[0]:
                run = bench.run("epoch", name, seed, epochs_firth, {**arguments, "text": bench.path})
            else:
                run = bench.run("epoch", name, seed, epochs_glove, {**arguments, **binaries}, absent)
            if wrong := comparison.unlike(bench.runs, run, "non_zeros"):
                run["problems"].append(wrong)
            bench.keep(run)


def run_threads(bench: comparison.Bench) -> None:
    for seed in bench.seeds:
        for threads in THREADS if seed % 2 else THREADS[::-1]:
            run = train(bench, "threads", plural(threads), seed, threads)
            if wrong := comparison.unlike([other for other in bench.runs if other["seed"] == seed], run, "digest"):
                run["problems"].append(wrong)
            bench.keep(run)


SECTIONS = {"peers": run_peers, "epoch": run_epoch, "threads": run_threads}

# --- The tables ------------------------------------------------------------------------------------------------------


class Report(comparison.Report):
    """The tables of one result file."""

    def peers(self) -> str:
        headings = ["", "file to vectors, s", "relative to firth", "vocabulary, s", "counting and ordering, s"]
        headings += ["relative to firth", "training, s", "relative to firth", "saving, s", "peak MB"]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            return [
                spread_of(runs, total, 1),
                self.times("peers", name, CONTENDERS[0], total),
                spread_of(runs, stage("vocabulary"), 2),
                spread_of(runs, settling, 1),
                self.times("peers", name, CONTENDERS[0], settling),
                spread_of(runs, stage("training"), 1),
                self.times("peers", name, CONTENDERS[0], stage("training")),
                spread_of(runs, stage("saving"), 1),
                spread_of(runs, lambda run: run["peak_mb"], 0, wide=False),
            ]

        epochs = self.options["epochs"]
        shown = sorted({1, 2, 5, 10, epochs} & set(range(1, epochs + 1)))

        def costs(name: str, runs: dict[int, Run]) -> list[str]:
            return [spread_of(runs, lambda run, epoch=epoch: run["costs"][epoch - 1], 4) for epoch in shown]

        return (
            "### From a file to vectors on disk\n\n"
            + common.table(headings, self.rows("peers", len(headings), cells))
            + "\n\nCost after epoch:\n\n"
            + common.table(["", *map(str, shown)], self.rows("peers", len(shown) + 1, costs))
            + "\n\nQuality, times 100:\n\n"
            + self.quality_table("peers", *CONTENDERS)
        )

    def epoch(self) -> str:
        headings = ["", "one epoch, s", "relative to firth", "non-zeros/s", "bytes per non-zero", "GB/s"]
        headings += ["% of memory", "% of cache", "memory, GB/s", "cache, GB/s"]

        def seconds(run: Run) -> float:
            return common.median(run["epoch_seconds"])

        def moved(run: Run) -> float:
            return float(run["bytes_each"] * run["non_zeros"] / seconds(run))

        def measured(run: Run, where: str) -> float:
            return statistics.mean(rates[where] for rates in run["bandwidth"])

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            return [
                spread_of(runs, seconds, 2),
                self.times("epoch", name, CONTENDERS[0], seconds),
                comparison.thousands(common.median(run["non_zeros"] / seconds(run) for run in runs.values())),
                f"{next(iter(runs.values()))['bytes_each']:,}",
                spread_of(runs, lambda run: moved(run) / 1e9, 1),
                spread_of(runs, lambda run: 100 * moved(run) / measured(run, "memory"), 0),
                spread_of(runs, lambda run: 100 * moved(run) / measured(run, "cache"), 0),
                spread_of(runs, lambda run: measured(run, "memory") / 1e9, 1),
                spread_of(runs, lambda run: measured(run, "cache") / 1e9, 1),
            ]

        return "### One epoch and its memory traffic\n\n" + common.table(
            headings, self.rows("epoch", len(headings), cells)
        )

    def threads(self) -> str:
        names = self.contenders("threads")
        headings = ["firth", "training, s", f"speed, relative to {names[0]}", "saved vectors"]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            first = self.of("threads", names[0])
            same = all(run["digest"] == first[seed]["digest"] for seed, run in runs.items() if seed in first)
            return [
                spread_of(runs, stage("training"), 1),
                self.times("threads", names[0], name, stage("training"), 2),
                "the same bytes" if same else "different bytes",
            ]

        return (
            "### One thread and several\n\n"
            + common.table(headings, self.rows("threads", len(headings), cells))
            + "\n\nQuality, times 100:\n\n"
            + self.quality_table("threads")
        )


def settling(run: Run) -> float | None:
    """Seconds of counting the non-zeros and bringing them into the order of training."""
    return stage("counting and ordering")(run) or stage("counting", "ordering")(run)


if __name__ == "__main__":
    script = comparison.Script(__file__, __doc__, OPTIONS, PACKAGES, WORK, SECTIONS, Report, arguments=add_argument)
    comparison.main(script)
