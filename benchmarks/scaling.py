"""How much faster firth is on more threads: every trainer, counting and attention, at 1, 2, 4 ... all threads.

    python benchmarks/scaling.py                      minutes on two processors
    python benchmarks/scaling.py --quick
    python benchmarks/scaling.py --only counting,GloVe --threads 16
    python benchmarks/scaling.py --show benchmarks/results/scaling.json

Numbers of threads take turns. Of a trainer, only the seconds of training count, as its history has them. Figures are
medians of the repeats. `schedule.py` predicts what the division of work allows on more threads than this machine has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common

QUICK_TOKENS = 500_000
REPEATS = 3


def trained(model: Callable[..., Any], **options: Any) -> Callable[[Any, int], float]:
    """Seconds of one epoch."""

    def run(corpus: Any, threads: int) -> float:
        return float(model(epochs=1, threads=threads, **options).fit(corpus).history[-1].seconds)

    return run


def classifier(corpus: Any, threads: int) -> float:
    """Seconds of an epoch of a classifier that tells which quarter of the text a document is from."""
    import firth

    documents = [" ".join(document) for document in corpus[: min(len(corpus), 50_000)]]
    labels = [str(4 * i // len(documents)) for i in range(len(documents))]
    return float(firth.FastTextClassifier(epochs=1, threads=threads).fit(documents, labels).history[-1].seconds)


def counting(corpus: Any, threads: int) -> float:
    import firth

    start = time.perf_counter()
    firth.count_cooccurrences(corpus, threads=threads)
    return time.perf_counter() - start


def glove(corpus: Any, threads: int) -> float:
    import firth

    counts = firth.count_cooccurrences(corpus)
    return trained(firth.GloVe)(counts, threads)


def attention(corpus: Any, threads: int) -> float:
    """Seconds of the forward and backward pass of 8 heads of 2,048 queries."""
    import numpy as np

    import firth

    q = np.random.default_rng(0).normal(size=(1, 8, 2048, 64)).astype(np.float32)
    start = time.perf_counter()
    out, lse = firth.attention(q, q, q, causal=True, return_lse=True, threads=threads)
    firth.attention_backward(q, q, q, q, out, lse, causal=True, threads=threads)
    return time.perf_counter() - start


def word2vec(**options: Any) -> Callable[[Any, int], float]:
    def run(corpus: Any, threads: int) -> float:
        import firth

        return trained(firth.Word2Vec, **options)(corpus, threads)

    return run


def fasttext(corpus: Any, threads: int) -> float:
    import firth

    return trained(firth.FastText)(corpus, threads)


# What is timed: functions of a corpus and the number of threads, which return seconds.
WORK: dict[str, Callable[[Any, int], float]] = {
    "word2vec": word2vec(),
    "hierarchical softmax": word2vec(loss="hs"),
    "CBOW": word2vec(architecture="cbow"),
    "sample=0": word2vec(sample=0.0),
    "deterministic": word2vec(deterministic=True),
    "fastText": fasttext,
    "classifier": classifier,
    "GloVe": glove,
    "counting": counting,
    "attention": attention,
}


def thread_numbers(most: int) -> list[int]:
    """1, 2, 4 ... and the largest."""
    return sorted({*(2**i for i in range(most.bit_length())), most})


def seconds_of(row: dict[str, Any]) -> dict[int, float]:
    """The median seconds by the number of threads, which JSON has as text."""
    return {int(threads): common.median(seconds) for threads, seconds in row["seconds"].items()}


def show(result: dict[str, Any]) -> str:
    rows, numbers = [], []
    for row in result["rows"]:
        seconds = seconds_of(row)
        numbers = list(seconds)
        rows.append([row["work"], f"{seconds[1]:.2f}", *(f"{seconds[1] / seconds[n]:.2f}" for n in numbers[1:])])
    machine = common.machine_line(result["machine"])
    headings = ["speed-up", "one thread, s", *(f"{n} threads" for n in numbers[1:])]
    return f"{machine}\n{result['tokens']:,} tokens\n\n{common.table(headings, rows)}"


def draw(curves: dict[str, dict[int, float]], title: str, path: Path) -> None:
    """Draw speed-ups by the number of threads, if matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    numbers = sorted({n for curve in curves.values() for n in curve})
    axes.plot(numbers, numbers, ":", color="gray", label="number of threads")
    for name, curve in curves.items():
        axes.plot(list(curve), list(curve.values()), marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="threads", ylabel="speed-up", title=title)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks([], minor=True)
        axis.set_ticks(numbers, [str(n) for n in numbers])
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def speed_ups(seconds: dict[int, float]) -> dict[int, float]:
    return {threads: seconds[1] / value for threads, value in seconds.items()}


def main() -> None:
    parser = common.arguments(__doc__, WORK, f"{QUICK_TOKENS:,} tokens, once")
    parser.set_defaults(threads=None)
    settings = common.parsed(parser, __file__, WORK, show)
    import deterministic
    import firth

    text = deterministic.wikipedia(settings.data, QUICK_TOKENS if settings.quick else None)
    corpus = firth.Corpus.from_iterable(text, min_count=5)
    numbers = thread_numbers(settings.threads or firth.cpu_info()["threads"])
    result: dict[str, Any] = {
        "machine": common.describe_machine(("numpy",)),
        "tokens": corpus.n_tokens,
        "rows": [],
    }
    for name, work in WORK.items():
        if name not in settings.only:
            continue
        seconds: dict[int, list[float]] = {threads: [] for threads in numbers}
        for _ in range(1 if settings.quick else REPEATS):
            for threads in numbers:
                seconds[threads].append(work(corpus, threads))
        result["rows"].append({"work": name, "seconds": seconds})
        common.write_json(settings.json, result)
    curves = {row["work"]: speed_ups(seconds_of(row)) for row in result["rows"]}
    draw(curves, f"Measured on {result['machine']['cpu']}", settings.json.with_suffix(".png"))
    common.finish(show(result), settings.json)


if __name__ == "__main__":
    main()
