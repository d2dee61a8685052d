"""firth's counts and the models of them, compared with GloVe's programs and scikit-learn: checked, then timed.

    python benchmarks/counts.py --glove GloVe/build --quick     a few minutes, a slice of the text
    python benchmarks/counts.py --glove GloVe/build             everything, three times
    python benchmarks/counts.py --only svd,quality              sections without the programs
    python benchmarks/counts.py --show results.json             the tables of an earlier run

README.md in this folder says what is measured and how.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

import common
import comparison
import glove
from comparison import Run, plural, rotated, spread_of, stage, total

PACKAGES = ("scikit-learn", "numpy", "scipy")
VECTOR_SIZE = 100
# A row of the table of quality: the class, and its options besides seed and threads.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "RandomVectors": ("RandomVectors", {}),
    "LSA": ("LSA", {}),
    "PPMI-SVD": ("PPMI", {}),
    "GloVe": ("GloVe", {name: glove.OPTIONS[name] for name in ("window", "x_max", "epochs")}),
    "Word2Vec": ("Word2Vec", {"window": 5, "negative": 5, "sample": 1e-3, "epochs": 5}),
}
OPTIONS: dict[str, Any] = {
    "vector_size": VECTOR_SIZE,
    "window": glove.OPTIONS["window"],
    "svd_window": glove.OPTIONS["window"],
    "min_count": comparison.MIN_COUNT,
    "models": MODELS,
}
CHECKED_WORDS = 3000  # of the slice that the reference counts
RECORD = 16  # bytes of a non-zero in GloVe's files

# --- What runs in a process of its own -------------------------------------------------------------------------------


def check_counts(text: str, threads: int) -> Run:
    """A slice of the text counted by firth and, pair by pair, by the tests' reference."""
    import numpy as np

    import firth

    sys.path.insert(0, str(common.REPOSITORY / "tests"))
    import reference

    documents: list[list[str]] = []
    with open(text) as file:
        while sum(map(len, documents)) < CHECKED_WORDS and (line := file.readline()):
            documents.append(line.split())
    corpus = firth.Corpus.from_iterable(documents, min_count=1)
    mine = firth.count_cooccurrences(corpus, window=OPTIONS["window"], threads=threads).csr.toarray()
    row = {word: i for i, word in enumerate(corpus.vocabulary.words)}
    ids = [[row[word] for word in document] for document in documents]
    right = reference.cooccurrences(ids, len(row), OPTIONS["window"], "both", lambda distance: 1 / distance)
    return {
        "wrong": int((np.abs(mine - right) > 1e-6 * np.maximum(right, 1)).sum() + ((mine > 0) != (right > 0)).sum())
    }


def count_firth(text: str, threads: int, seed: int, memory: int | None, folder: str) -> Run:
    """Count words and pairs, order them for GloVe, and write the matrix in firth's format and in GloVe's."""
    import numpy as np

    import firth.models  # outside of what is timed: firth imports its parts when they are used first
    from firth import _core

    clock = common.Clock()
    corpus = firth.Corpus.from_file(text, min_count=OPTIONS["min_count"], threads=threads)
    clock.stage("vocabulary")
    before = common.peak_so_far()
    clock.stage("")
    counts = firth.count_cooccurrences(corpus, window=OPTIONS["window"], memory=memory, threads=threads)
    clock.stage("counting")
    after = common.peak_so_far()
    clock.stage("")
    counts.save(Path(folder, "counts.safetensors"))
    clock.stage("saving")
    counts.to_glove(Path(folder, "counts.bin"))
    clock.stage("GloVe's format")
    csr = counts.csr
    _core.GloveTiles(csr.indptr.astype(np.int64), csr.indices, csr.data, seed=seed, threads=threads)
    clock.stage("ordering")
    digest = hashlib.sha256()
    for array in (counts.csr.indptr, counts.csr.indices, counts.csr.data):
        digest.update(np.ascontiguousarray(array).data.cast("B"))
    return {
        "seconds": {name: seconds for name, seconds in clock.seconds.items() if name},
        "before_mb": before,
        "counting_mb": after,
        "vocabulary": len(corpus.vocabulary),
        "non_zeros": int(counts.csr.nnz),
        "sum": float(counts.csr.data.sum(dtype=np.float64)),
        "digest": digest.hexdigest(),
    }


def count_glove(binaries: str, folder: str, text: str, seed: int) -> Run:
    """Count and order with the first three of GloVe's programs."""
    programs = glove.Programs(binaries, folder)
    programs.count_words(text)
    programs.count_pairs(text)
    programs.shuffle(seed)
    import numpy as np  # not before: the programs' peak memory begins with that of the process that starts them

    records = np.memmap(programs.counts, np.dtype([("row", "<i4"), ("column", "<i4"), ("value", "<f8")]), "r")
    size = programs.counts.stat().st_size
    if size != programs.shuffled.stat().st_size or size % RECORD:
        raise RuntimeError(f"cooccur wrote {size} bytes, shuffle {programs.shuffled.stat().st_size}")
    with programs.vocabulary.open("rb") as file:
        words = sum(1 for _ in file)
    return {
        "seconds": programs.seconds,
        "counting_mb": programs.peak_mb["cooccur"],
        "vocabulary": words,
        "non_zeros": size // RECORD,
        "sum": float(records["value"].sum()),
    }


def make_ppmi(text: str, threads: int, out: str) -> Run:
    """The matrix that all contenders of `svd` factorize."""
    import numpy as np
    import scipy.sparse

    import firth

    corpus = firth.Corpus.from_file(text, min_count=OPTIONS["min_count"], threads=threads)
    matrix = firth.count_cooccurrences(corpus, window=OPTIONS["svd_window"], threads=threads).pmi()
    scipy.sparse.save_npz(out, matrix.astype(np.float32), compressed=False)
    return {"non_zeros": int(matrix.nnz)}


def svd_firth(matrix: str, threads: int, seed: int) -> Run:
    """firth's truncated singular value decomposition."""
    import scipy.sparse

    from firth.models import spectral

    given = scipy.sparse.load_npz(matrix)
    before = common.peak_so_far()
    clock = common.Clock()
    left, values, right = spectral.truncated_svd(given, VECTOR_SIZE, seed=seed, threads=threads)
    clock.stage("factorizing")
    return _factors(given, left * values, values, right.T, before, clock)


def svd_sklearn(matrix: str, threads: int, seed: int, algorithm: str) -> Run:
    """scikit-learn's truncated singular value decomposition, with its defaults."""
    import scipy.sparse
    from sklearn.decomposition import TruncatedSVD

    given = scipy.sparse.load_npz(matrix)
    before = common.peak_so_far()
    model = TruncatedSVD(VECTOR_SIZE, algorithm=algorithm, random_state=seed)
    clock = common.Clock()
    scaled = model.fit_transform(given)
    clock.stage("factorizing")
    return _factors(given, scaled, model.singular_values_, model.components_, before, clock)


def _factors(matrix: Any, scaled: Any, values: Any, right: Any, before: float, clock: common.Clock) -> Run:
    """The share of the matrix that its factors explain: `scaled` (rows, k) is U times s, `right` (k, columns)."""
    import numpy as np

    peak = common.peak_so_far()
    whole = float((matrix.data.astype(np.float64) ** 2).sum())
    scaled, right = np.asarray(scaled, np.float64), np.asarray(right, np.float64)
    # |M - A B|^2 = |M|^2 - 2 <A, M B'> + <A'A, B B'>
    missed = (
        whole - 2 * float((scaled * (matrix @ right.T)).sum()) + float(((scaled.T @ scaled) * (right @ right.T)).sum())
    )
    return {
        "seconds": clock.seconds,
        "loaded_mb": before,
        "factorizing_mb": peak,
        "by_values": float((np.asarray(values, np.float64) ** 2).sum() / whole),
        "by_factors": 1 - missed / whole,
        "non_zeros": int(matrix.nnz),
    }


def train_model(text: str, model: str, threads: int, seed: int, out: str) -> Run:
    """One of firth's models, from the text to vectors on disk."""
    import firth

    kind, options = MODELS[model]
    chosen = getattr(firth, kind)
    takes = {field.name for field in dataclasses.fields(chosen)}
    common_options = {"vector_size": VECTOR_SIZE, "seed": seed, "threads": threads}
    options = {**{name: value for name, value in common_options.items() if name in takes}, **options}
    clock = common.Clock()
    corpus = firth.Corpus.from_file(text, min_count=OPTIONS["min_count"], threads=threads)
    clock.stage("vocabulary")
    fitted = chosen(**options).fit(corpus)
    clock.stage("training")
    fitted.vectors.save(out)
    clock.stage("saving")
    return {"seconds": clock.seconds, "vocabulary": len(corpus.vocabulary)}


WORK = (check_counts, count_firth, count_glove, make_ppmi, svd_firth, svd_sklearn, train_model)

# --- The sections ----------------------------------------------------------------------------------------------------

PROGRAMS, BOUNDED = "GloVe's programs", "firth, a tenth of the memory"


def run_counting(bench: comparison.Bench) -> None:
    checked = bench.fresh(check_counts, {"text": bench.path, "threads": bench.settings.threads})
    wrong = checked.get("failed") or (
        f"{checked['wrong']} of a slice's entries are wrong" if checked["wrong"] else None
    )
    threads = {f"firth, {plural(count)}": count for count in (bench.settings.threads, 1)}
    folder = bench.scratch / "counting"
    folder.mkdir()
    for seed in bench.seeds:
        for name in rotated([*threads, BOUNDED, PROGRAMS], seed - 1):
            if name == PROGRAMS:
                arguments: Run = {"binaries": str(bench.settings.glove), "folder": str(folder), "text": bench.path}
                absent = glove.unless_given(bench)
                run = bench.run("counting", name, seed, count_glove, {**arguments, "seed": seed}, absent)
            else:
                arguments = {"text": bench.path, "seed": seed, "memory": None, "folder": str(folder)}
                arguments["threads"] = threads.get(name, bench.settings.threads)
                if name == BOUNDED:  # in the first repeat the others have run before it
                    found = [run["non_zeros"] for run in bench.runs if "digest" in run]
                    arguments["memory"] = max(found, default=0) * 8 // 10
                run = bench.run("counting", name, seed, count_firth, arguments)
                if wrong is not None:
                    run["problems"].append(wrong)
            found = [comparison.unlike(bench.runs, run, figure) for figure in ("non_zeros", "digest")]
            found.append(comparison.unlike(bench.runs, run, "sum", 1e-6))
            run["problems"] += [problem for problem in found if problem is not None]
            bench.keep(run)


# Contender: the function, its further arguments, and the package it needs.
FACTORIZERS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "firth": (svd_firth, {}, "firth"),
    "scikit-learn, randomized": (svd_sklearn, {"algorithm": "randomized"}, "sklearn"),
    "scikit-learn, arpack": (svd_sklearn, {"algorithm": "arpack"}, "sklearn"),
}
ONCE = "scikit-learn, arpack"  # exact, and slow


def run_svd(bench: comparison.Bench) -> None:
    matrix = bench.scratch / "ppmi.npz"
    made = bench.fresh(make_ppmi, {"text": bench.path, "threads": bench.settings.threads, "out": str(matrix)})
    for seed in bench.seeds:
        for name in rotated([name for name in FACTORIZERS if seed == 1 or name != ONCE], seed - 1):
            work, more, package = FACTORIZERS[name]
            arguments = {"matrix": str(matrix), "threads": bench.settings.threads, "seed": seed, **more}
            absent = comparison.unless_installed(package)
            if "failed" in made:
                run = bench.run(
                    "svd", name, seed, work, arguments, f"there is no matrix to factorize: {made['failed']}"
                )
            else:
                run = bench.run("svd", name, seed, work, arguments, absent)
            # With exact singular values and vectors, both shares are equal.
            if "by_values" in run and not abs(run["by_values"] - run["by_factors"]) < 0.01:
                run["problems"].append(
                    f"its values explain {100 * run['by_values']:.2f} % of the matrix, its factors "
                    f"{100 * run['by_factors']:.2f} %"
                )
            bench.keep(run)
    matrix.unlink(missing_ok=True)


def run_quality(bench: comparison.Bench) -> None:
    out = bench.scratch / "vectors.bin"
    for seed in bench.seeds:
        for name in rotated(MODELS, seed - 1):
            out.unlink(missing_ok=True)
            arguments = {"text": bench.path, "model": name, "threads": bench.settings.threads, "seed": seed}
            run = bench.run("quality", name, seed, train_model, {**arguments, "out": str(out)})
            bench.evaluate(run, out, chance=name == "RandomVectors")
            bench.keep(run)


SECTIONS = {"counting": run_counting, "svd": run_svd, "quality": run_quality}

# --- The tables ------------------------------------------------------------------------------------------------------


class Report(comparison.Report):
    """The tables of one result file."""

    def counting(self) -> str:
        ours = self.contenders("counting")[0]
        headings = ["", "vocabulary, s", "counting, s", "relative to firth", "ordering, s", "counting and ordering, s"]
        headings += ["relative to firth", "non-zeros/s", "peak MB of counting", "before it"]
        both = stage("counting", "ordering")

        def rate(run: Run) -> float:
            return float(run["non_zeros"] / run["seconds"]["counting"])

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            return [
                spread_of(runs, stage("vocabulary"), 2),
                spread_of(runs, stage("counting"), 2),
                self.times("counting", name, ours, stage("counting")),
                spread_of(runs, stage("ordering"), 2),
                spread_of(runs, both, 2),
                self.times("counting", name, ours, both),
                comparison.thousands(common.median(map(rate, runs.values()))),
                spread_of(runs, lambda run: run["counting_mb"], 0, wide=False),
                spread_of(runs, lambda run: run.get("before_mb"), 0, wide=False),
            ]

        written = ["", "matrix in a file, s", "in GloVe's format, s"]
        written += ["counting and GloVe's format, s", "relative to firth"]

        def to_records(run: Run) -> float | None:
            """Seconds until there is a file of records; `cooccur` writes it as it counts."""
            return stage("counting", "GloVe's format")(run) if "digest" in run else stage("counting")(run)

        def written_cells(name: str, runs: dict[int, Run]) -> list[str]:
            return [
                spread_of(runs, stage("saving"), 2),
                spread_of(runs, stage("GloVe's format"), 2),
                spread_of(runs, to_records, 2),
                self.times("counting", name, ours, to_records),
            ]

        every = [run for name in self.contenders("counting") for run in self.of("counting", name).values()]
        found = f"{every[0]['non_zeros']:,} non-zeros, the same in all runs below.\n\n" if every else ""
        return (
            f"### Counting pairs, window {self.options['window']}\n\n{found}"
            + common.table(headings, self.rows("counting", len(headings), cells))
            + "\n\nWritten to disk:\n\n"
            + common.table(written, self.rows("counting", len(written), written_cells))
        )

    def svd(self) -> str:
        headings = [
            "",
            "s",
            "relative to firth",
            "explained by the singular values, %",
            "by the factors, %",
            "peak MB",
            "before it",
        ]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            return [
                spread_of(runs, total, 1),
                self.times("svd", name, "firth", total),
                spread_of(runs, lambda run: 100 * run["by_values"], 3),
                spread_of(runs, lambda run: 100 * run["by_factors"], 3),
                spread_of(runs, lambda run: run["factorizing_mb"], 0, wide=False),
                spread_of(runs, lambda run: run["loaded_mb"], 0, wide=False),
            ]

        every = [run for name in self.contenders("svd") for run in self.of("svd", name).values()]
        found = f"{every[0]['non_zeros']:,} non-zeros.\n\n" if every else ""
        return (
            f"### {self.options['vector_size']} singular values and vectors of the PPMI matrix, "
            f"window {self.options['svd_window']}\n\n{found}"
            + common.table(headings, self.rows("svd", len(headings), cells))
        )

    def quality(self) -> str:
        headings = ["", "file to vectors, s", "training, s", "peak MB"]

        def cells(name: str, runs: dict[int, Run]) -> list[str]:
            return [
                spread_of(runs, total, 1),
                spread_of(runs, stage("training"), 1),
                spread_of(runs, lambda run: run["peak_mb"], 0, wide=False),
            ]

        return (
            f"### All static models, {self.options['vector_size']} dimensions; quality times 100\n\n"
            + self.quality_table("quality")
            + "\n\nTime and memory:\n\n"
            + common.table(headings, self.rows("quality", len(headings), cells))
        )


if __name__ == "__main__":
    script = comparison.Script(
        __file__, __doc__, OPTIONS, PACKAGES, WORK, SECTIONS, Report, arguments=glove.add_argument
    )
    comparison.main(script)
