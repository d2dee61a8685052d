"""Subwords, CBOW, hierarchical softmax and determinism, compared with gensim and fastText.

    python benchmarks/subwords.py --quick                 a slice of the text, once
    python benchmarks/subwords.py                         everything, three times
    python benchmarks/subwords.py --only subwords,cbow
    python benchmarks/subwords.py --show results.json     the tables of an earlier run

README.md in this folder says what is measured and how. A file called fasttext.py would be imported in place of the
package `fasttext`.
"""

from __future__ import annotations

from typing import Any

import common
import comparison
from comparison import Run, plural, rotated, spread_of, thousands, total, training
from peers import train_fasttext, train_firth, train_gensim

PACKAGES = ("gensim", "fasttext", "numpy", "scipy")
SHARED = {"vector_size": 100, "window": 5, "epochs": 5, "min_count": comparison.MIN_COUNT}
NEGATIVES = {"loss": "ns", "negative": 5}
WORD2VEC = {"sample": 1e-3, "learning_rate": 0.025, "min_learning_rate": 1e-4}
# fastText's learning rate always falls to 0, and it always draws negative samples by count ** 0.5. In the sections with
# fastText, all learning rates fall to 0. Only the section on subwords, fastText's own model, has its exponent.
VARIANTS: dict[str, dict[str, Any]] = {
    "subwords": {
        "architecture": "skipgram",
        **NEGATIVES,
        "ns_exponent": 0.5,
        "sample": 1e-4,
        "learning_rate": 0.05,
        "min_learning_rate": 0.0,
        "min_n": 3,
        "max_n": 6,
        "bucket": 2_000_000,
    },
    "cbow": {
        "architecture": "cbow",
        "cbow_mean": True,
        **NEGATIVES,
        "ns_exponent": 0.75,
        "sample": 1e-3,
        "learning_rate": 0.05,
        "min_learning_rate": 0.0,
    },
    "hierarchical_softmax": {"architecture": "skipgram", "loss": "hs", **WORD2VEC},
    "deterministic": {"architecture": "skipgram", **NEGATIVES, "ns_exponent": 0.75, **WORD2VEC},
}
THREADS = (1, 2, 3, 8)  # of the section that compares bytes, with --threads

WORK = (train_firth, train_gensim, train_fasttext)

# --- The sections ----------------------------------------------------------------------------------------------------

# Contender: the function that trains it, and the package it needs.
FIRTH, GENSIM, FASTTEXT = "firth", "gensim, corpus_file", "fastText"
PEERS = {FIRTH: (train_firth, "firth"), GENSIM: (train_gensim, "gensim"), FASTTEXT: (train_fasttext, "fasttext")}


def train(
    bench: comparison.Bench, section: str, contender: str, seed: int, threads: int, peer: str, **others: Any
) -> Run:
    """Train a contender from the text to vectors on disk, and check the vectors before the time counts."""
    work, package = PEERS[peer]
    out = bench.scratch / "vectors.bin"
    out.unlink(missing_ok=True)
    arguments = {
        "text": bench.path,
        "source": "file",
        "threads": threads,
        "seed": seed,
        "options": {**SHARED, **VARIANTS[section], **others},
        "out": str(out),
    }
    run = bench.run(section, contender, seed, work, arguments, comparison.unless_installed(package))
    bench.evaluate(run, out)
    return run


def run_peers(bench: comparison.Bench, section: str, peers: tuple[str, ...]) -> None:
    for seed in bench.seeds:
        for name in rotated(peers, seed - 1):
            bench.keep(train(bench, section, name, seed, bench.settings.threads, name))


def run_subwords(bench: comparison.Bench) -> None:
    run_peers(bench, "subwords", (FIRTH, FASTTEXT, GENSIM))


def run_cbow(bench: comparison.Bench) -> None:
    run_peers(bench, "cbow", (FIRTH, GENSIM, FASTTEXT))


def run_hierarchical_softmax(bench: comparison.Bench) -> None:
    run_peers(bench, "hierarchical_softmax", (FIRTH, GENSIM))


def run_deterministic(bench: comparison.Bench) -> None:
    # Contender: its threads, and whether it is deterministic.
    asked = bench.settings.threads
    modes = {f"Hogwild, {plural(asked)}": (asked, False)}
    modes |= {f"deterministic, {plural(threads)}": (threads, True) for threads in sorted({*THREADS, asked})}
    for seed in bench.seeds:
        earlier: list[Run] = []
        for name in rotated(modes, seed - 1):
            threads, deterministic = modes[name]
            run = train(bench, "deterministic", name, seed, threads, FIRTH, deterministic=deterministic)
            if deterministic:
                if wrong := comparison.unlike(earlier, run, "digest"):
                    run["problems"].append(wrong)
                earlier.append(run)
            bench.keep(run)


SECTIONS = {
    "subwords": run_subwords,
    "cbow": run_cbow,
    "hierarchical_softmax": run_hierarchical_softmax,
    "deterministic": run_deterministic,
}

# --- The tables ------------------------------------------------------------------------------------------------------


class Report(comparison.Report):
    """The tables of one result file."""

    def subwords(self) -> str:
        return self.peers("subwords", "Skip-gram with subwords", FASTTEXT)

    def cbow(self) -> str:
        return self.peers("cbow", "CBOW", GENSIM)

    def hierarchical_softmax(self) -> str:
        return self.peers("hierarchical_softmax", "Skip-gram with hierarchical softmax", GENSIM)

    def peers(self, section: str, title: str, other: str) -> str:
        return (
            f"### {title}, from a file to vectors on disk\n\n"
            + self.training_table(section, FIRTH)
            + "\n\nQuality, times 100:\n\n"
            + self.quality_table(section, FIRTH, other)
        )

    def deterministic(self) -> str:
        section = "deterministic"
        hogwild = self.contenders(section)[0]
        alike = hogwild.replace("Hogwild", "deterministic")
        headings = ["firth", "file to vectors, s", "training, s", "words/s", "training, relative to Hogwild", "peak MB"]
        headings += ["sha256 of the vectors, seed 1"]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            return [
                spread_of(runs, total, 1),
                spread_of(runs, training, 1),
                thousands(self.words * self.options["epochs"] / common.median(map(training, runs.values()))),
                self.times(section, name, hogwild, training, 2),
                spread_of(runs, lambda run: run["peak_mb"], 0, wide=False),
                f"{runs[1]['digest'][:16]}..." if 1 in runs else "-",
            ]

        return (
            "### Deterministic training\n\n"
            + common.table(headings, self.rows(section, len(headings), cells))
            + "\n\nQuality, times 100:\n\n"
            + self.quality_table(section, alike, hogwild)
        )


if __name__ == "__main__":
    script = comparison.Script(__file__, __doc__, {**SHARED, **VARIANTS}, PACKAGES, WORK, SECTIONS, Report)
    comparison.main(script)
