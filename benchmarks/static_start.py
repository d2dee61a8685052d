"""Does GPT train faster from static vectors? Validation loss by step, over several seeds.

    python benchmarks/static_start.py --quick         a smoke run, a minute or two; no figures
    python benchmarks/static_start.py                 4 ways, 3 seeds; hours
    python benchmarks/static_start.py --slice 5       on the first 5 MB of the text, with vectors of the same part
    python benchmarks/static_start.py --rich          on a slice, with vectors of the whole text
    python benchmarks/static_start.py --show benchmarks/results/static_start.json

README.md in this folder says what is compared. The plot needs matplotlib; it is written next to the JSON.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
from contextual import TEXT, articles, split, token_ids

Run = dict[str, Any]

WAYS = ("random", "frozen", "tuned", "frozen_first")
GPT = {"layers": 4, "heads": 4, "dim": 256, "length": 128, "batch_size": 16, "learning_rate": 1e-3, "dropout": 0.1}
GPT |= {"evaluate_batches": 8}
WORD2VEC: Run = {"window": 5, "negative": 5, "epochs": 5}
MARKS = (0.05, 0.1, 0.25, 0.5, 1.0)  # shares of all steps that the table shows
TOKEN = re.compile(r"[^\W\d_]+|[0-9]+|[^\w\s]")


def word_vectors(texts: Sequence[str], dim: int, seed: int, threads: int) -> Any:
    """word2vec vectors of training texts; case and punctuation are kept, as in the tokens of GPT."""
    import firth

    lines = [TOKEN.findall(line) for text in texts for line in text.split("\n")]
    corpus = firth.Corpus.from_iterable(lines, min_count=5)
    return firth.Word2Vec(**WORD2VEC, vector_size=dim, seed=seed, threads=threads).fit(corpus).vectors


def train(ids: Any, tokenizer: Any, vectors: Any, way: str, seed: int, settings: argparse.Namespace) -> Run:
    """One training and its learning curve."""
    from firth import contextual

    more: Run = {}
    if way != "random":
        more = {
            "pretrained_vectors": vectors,
            "embedding_mode": "tuned" if way == "tuned" else way,
            "embedding_std": settings.std,
        }
    if way == "frozen_first":
        more["embedding_steps"] = max(1, settings.steps // 4)
    gpt = contextual.GPT(
        **settings.options, **more, tokenizer=tokenizer, steps=settings.steps, tied=not settings.untied, seed=seed,
        evaluate_every=max(1, settings.steps // 40), threads=settings.threads,
    )  # fmt: skip
    start = time.perf_counter()
    gpt.fit(ids, callbacks=[lambda one: progress(way, seed, one.history[-1], settings.steps)])
    found = gpt.static_start
    return {
        "way": way,
        "seed": seed,
        "wall": time.perf_counter() - start,
        "history": [vars(one) for one in gpt.history],
        "start": None if found is None else {"words": found.words, "composed": found.composed, "of": len(found.found)},
    }


def progress(way: str, seed: int, last: Any, steps: int) -> None:
    print(
        f"{way}, seed {seed}: step {last.step} of {steps}, validation loss {last.validation_loss:.4f}",
        file=sys.stderr,
        flush=True,
    )


def run(settings: argparse.Namespace) -> Run:
    from firth.contextual import Tokenizer

    limit = None if settings.slice is None else int(1e6 * settings.slice)
    train_texts, validation = split(articles(settings.data / TEXT, limit), 0.02)
    tokenizer = Tokenizer.train(train_texts, tokenizer="bpe", vocabulary_size=settings.vocabulary)
    ids = token_ids(tokenizer, train_texts, validation)
    vector_texts: Sequence[str] = train_texts
    if settings.rich:
        # Vectors may come from more text than GPT is trained on, but never from the validation texts.
        excluded = set(validation)
        vector_texts = [text for text in articles(settings.data / TEXT) if text not in excluded]
    results: Run = {
        "machine": common.describe_machine(("torch", "tokenizers", "numpy")),
        "quick": settings.quick,
        "threads": settings.threads,
        "options": {**settings.options, "tied": not settings.untied},
        "word2vec": WORD2VEC,
        "std": settings.std,
        "steps": settings.steps,
        "text": {
            "train_tokens": len(ids.train),
            "validation_tokens": len(ids.validation),
            "vocabulary": len(tokenizer),
            "bytes": sum(len(text.encode()) for text in train_texts),
            "vectors_bytes": sum(len(text.encode()) for text in vector_texts),
        },
        "runs": [],
    }
    for seed in range(1, settings.repeats + 1):
        vectors = word_vectors(vector_texts, settings.options["dim"], seed, settings.threads)
        ways = settings.only
        for way in ways[seed % len(ways) :] + ways[: seed % len(ways)]:
            results["runs"].append(train(ids, tokenizer, vectors, way, seed, settings))
            common.write_json(settings.json, results)
    return results


# --- Table and plot --------------------------------------------------------------------------------------------------


def curves(results: Run) -> dict[str, dict[int, list[tuple[int, float]]]]:
    """By way and seed: steps and validation losses."""
    found: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for one in sorted(results["runs"], key=lambda one: (WAYS.index(one["way"]), one["seed"])):
        curve = [(point["step"], point["validation_loss"]) for point in one["history"]]
        found.setdefault(one["way"], {})[one["seed"]] = curve
    return found


def mean(values: Sequence[float], digits: int = 3, sign: str = "") -> str:
    """With the standard deviation, if there are several."""
    text = f"{statistics.mean(values):{sign}.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def at(curve: Sequence[tuple[int, float]], step: float) -> float:
    """The loss at the evaluation nearest to a step."""
    return min(curve, key=lambda point: abs(point[0] - step))[1]


def reached(curve: Sequence[tuple[int, float]], loss: float) -> int | None:
    """The step of the first evaluation with at most this loss, or None."""
    return next((step for step, found in curve if found <= loss), None)


def report(results: Run) -> str:
    machine, text, steps = results["machine"], results["text"], results["steps"]
    read, seen = (f"{text[name] / 1e6:.1f} MB" for name in ("bytes", "vectors_bytes"))
    found = curves(results)
    base = found.get("random", {})
    rows, differences = [], []
    for way, seeds in found.items():
        rows.append([way, *(mean([at(curve, mark * steps) for curve in seeds.values()]) for mark in MARKS)])
        both = sorted(seeds.keys() & base.keys())
        if way == "random" or not both:
            continue
        row = [way]
        row += [mean([at(seeds[s], mark * steps) - at(base[s], mark * steps) for s in both], 3, "+") for mark in MARKS]
        ends = [reached(seeds[seed], base[seed][-1][1]) for seed in both]
        row.append("-" if None in ends else mean([100 * end / steps for end in ends if end is not None], 0))
        differences.append(row)
    headings = [f"{100 * mark:.0f} % of steps" for mark in MARKS]
    options = ", ".join(f"{name}={value}" for name, value in results["options"].items())
    started = next((one["start"] for one in results["runs"] if one["start"]), None)
    parts = [
        f"{common.machine_line(machine, packages=['torch'])}; {results['threads']} threads. {options}; "
        f"{steps} steps over {text['train_tokens']:,} tokens ({read}), vocabulary {text['vocabulary']:,}; "
        f"vectors of {seen}, scaled to a standard deviation of {results['std']}."
        + (f" {started['words']:,} of {started['of']:,} tokens have a vector." if started else "")
        + (" A QUICK RUN: nothing here is a measurement." if results["quick"] else ""),
        "### Validation loss, nats per token: mean and standard deviation over seeds\n\n"
        + common.table(["", *headings], rows),
    ]
    if differences:
        last = "% of steps to the last loss of random"
        parts.append(
            "### Difference from random with the same seed\n\n" + common.table(["", *headings, last], differences)
        )
    return "\n\n".join(parts)


def plot(results: Run, path: Path) -> bool:
    """Plot the means over seeds, and the range from the lowest to the highest. False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for way, seeds in curves(results).items():
        steps = [step for step, _ in next(iter(seeds.values()))]
        losses = [[loss for _, loss in curve] for curve in seeds.values()]
        columns = list(zip(*losses, strict=True))
        (line,) = axes.plot(steps, [statistics.mean(column) for column in columns], label=way.replace("_", " "))
        axes.fill_between(steps, [*map(min, columns)], [*map(max, columns)], color=line.get_color(), alpha=0.2, lw=0)
    axes.set(xlabel="steps", ylabel="validation loss, nats per token")
    axes.legend(title="initial token embedding")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return True


def main() -> None:
    parser = common.arguments(__doc__, WAYS, "a smoke run")
    parser.add_argument("--repeats", type=common.positive, help="with seeds 1, 2, ... (default 3)")
    parser.add_argument("--steps", type=common.positive, help="default 1,500")
    parser.add_argument("--vocabulary", type=common.positive, help="tokens in the vocabulary (default 8,000)")
    parser.add_argument("--std", type=float, default=0.02, help="standard deviation that the vectors are scaled to")
    parser.add_argument("--untied", action="store_true", help="a separate unembedding, which starts at random")
    parser.add_argument("--bf16", action="store_true", default=None, help="also without AMX")
    parser.add_argument("--slice", type=float, metavar="MB", help="only the first megabytes of the text")
    parser.add_argument("--rich", action="store_true", help="vectors of the whole text, whatever the slice")

    def show(results: Run) -> str:
        plot(results, parser.parse_args().show.with_suffix(".png"))
        return report(results)

    settings = common.parsed(parser, __file__, WAYS, show)
    settings.options = {**GPT, "bf16": settings.bf16}
    if settings.quick:
        settings.options |= {"layers": 2, "heads": 2, "dim": 32, "length": 32, "batch_size": 8, "evaluate_batches": 2}
        settings.slice = settings.slice or 1.0
    settings.repeats = settings.repeats or (2 if settings.quick else 3)
    settings.steps = settings.steps or (40 if settings.quick else 1500)
    settings.vocabulary = settings.vocabulary or (1000 if settings.quick else 8000)
    results = run(settings)
    print(report(results))
    drawn = plot(results, settings.json.with_suffix(".png"))
    without = "" if drawn else "; no plot: matplotlib is not installed"
    print(f"\nAll figures: {settings.json}{without}", file=sys.stderr)


if __name__ == "__main__":
    main()
