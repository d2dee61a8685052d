"""Exact top-k search compared with faiss's flat index on the processor.

    python benchmarks/topk.py --quick                         a few seconds of 200,000 rows
    python benchmarks/topk.py                                 everything; two minutes
    python benchmarks/topk.py --show results.json             the tables of an earlier run

Both sides take turns in one process on the same rows until the time is over. Each search is timed, and figures are
medians. What both find is first compared with float64. README.md in this folder describes the sections.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import common
from attention import alternate

Run = dict[str, Any]

VECTOR_SIZE, QUERIES, TOPN = 100, 1000, 10
SECTIONS = {"small": 200_000, "large": 1_000_000}  # rows
CHECKED = 50  # queries that are compared with float64


def measure(n: int, threads: int, seconds: float) -> Run:
    """Searches of both sides in n random rows."""
    import faiss
    import numpy as np

    import firth
    from firth.vectors import unit_rows

    faiss.omp_set_num_threads(threads)
    # By default faiss 1.15 multiplies up to 128,000 queries row by row, which takes several times as long.
    faiss.cvar.distance_compute_blas_threshold = 20
    faiss.cvar.distance_compute_blas_database_bs = 16384
    random = np.random.default_rng(0)
    matrix = random.standard_normal((n, VECTOR_SIZE), np.float32)
    queries = random.standard_normal((QUERIES, VECTOR_SIZE), np.float32)
    vectors = firth.Vectors(map(str, range(n)), matrix)
    # faiss multiplies rows as they are: for cosines, all must have length 1.
    units, unit_queries = unit_rows(matrix), unit_rows(queries)
    index, asked = faiss.IndexFlatIP(VECTOR_SIZE), unit_queries.astype(np.float32)
    index.add(units.astype(np.float32))

    exact = unit_queries[:CHECKED] @ units.T
    best = np.argpartition(-exact, TOPN, axis=1)[:, :TOPN]
    best_scores = -np.sort(-np.take_along_axis(exact, best, axis=1), axis=1)

    def errors(rows: Any, scores: Any) -> Run:
        """Of the first queries: the largest error of a score, and how many rows are not among the true ones."""
        wrong = sum(len(set(a) - set(b)) for a, b in zip(rows[:CHECKED].tolist(), best.tolist(), strict=True))
        return {"error": float(np.abs(scores[:CHECKED] - best_scores).max()), "wrong_rows": wrong}

    start = time.perf_counter()
    rows, scores = vectors.search(queries, TOPN)
    first = time.perf_counter() - start
    their_scores, their_rows = index.search(asked, TOPN)
    run: Run = {
        "rows": n,
        "flops": 2 * n * QUERIES * VECTOR_SIZE,
        "different_rows": int((rows != their_rows).sum()),
        "ours": errors(rows, scores),
        "theirs": errors(their_rows, their_scores),
        "first": first,
        "matmul_gflops": common.matmul_gflops(),
    }
    run["search"], run["their_search"] = alternate(
        lambda: vectors.search(queries, TOPN), lambda: index.search(asked, TOPN), seconds
    )
    return run


def report(results: Run) -> str:
    """The table of a result file."""
    rows = [
        [
            f"{run['rows']:,}",
            f"{run['search']:.3f}",
            f"{run['flops'] / run['search'] / 1e9:.0f}",
            f"{run['their_search']:.3f}",
            f"{run['flops'] / run['their_search'] / 1e9:.0f}",
            f"{run['their_search'] / run['search']:.2f}",
            f"{run['matmul_gflops']:.0f}",
            f"{run['first']:.3f}",
            f"{run['ours']['error']:.1e} / {run['theirs']['error']:.1e}",
            f"{run['ours']['wrong_rows']} / {run['theirs']['wrong_rows']}",
            str(run["different_rows"]),
        ]
        for run in results["sections"].values()
    ]
    headings = ["rows", "firth, s", "GFLOP/s", "faiss, s", "GFLOP/s", "faiss / firth"]
    headings += ["a matrix product with NumPy, GFLOP/s", "firth, first search, s"]
    headings += ["largest error, firth / faiss", "wrong rows", f"different rows of {QUERIES * TOPN:,}"]
    return (
        f"{common.machine_line(results['machine'])}, kernels {results['isa']}. {results['threads']} threads. "
        f"{QUERIES:,} queries, the best {TOPN} rows of {VECTOR_SIZE} dimensions.\n\n{common.table(headings, rows)}"
    )


def main() -> None:
    parser: argparse.ArgumentParser = common.arguments(__doc__ or "", SECTIONS, "200,000 rows, a few seconds")
    parser.add_argument("--seconds", type=float, default=40.0, help="for each figure")
    settings = common.parsed(parser, __file__, SECTIONS, report)
    for name in common.THREAD_VARIABLES:  # before the libraries are loaded, which read them
        os.environ[name] = str(settings.threads)
    if hasattr(os, "sched_setaffinity"):  # a search uses all processors of its process
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings.threads])
    machine = common.describe_machine(("faiss-cpu", "numpy"))
    import firth

    results: Run = {
        "machine": machine,
        "threads": settings.threads,
        "isa": firth.cpu_info()["isa"],
        "sections": {},
    }
    for name in ["small"] if settings.quick else settings.only:
        run = measure(SECTIONS[name], settings.threads, 5.0 if settings.quick else settings.seconds)
        print(f"{name} {run['their_search'] / run['search']:.2f}", file=sys.stderr, flush=True)
        results["sections"][name] = run
        common.write_json(settings.json, results)
    common.finish(report(results), settings.json)


if __name__ == "__main__":
    main()
