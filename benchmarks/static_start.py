"""A GPT whose embeddings start from static vectors, beside one whose embeddings start at random: when does it help?

    python benchmarks/static_start.py --quick                   one seed, few steps; a minute or two
    python benchmarks/static_start.py --figure curve.png        three seeds
    python benchmarks/static_start.py --show results.json

Of a part of the Wikipedia text of --data, a byte-level tokenizer and fastText vectors (skip-gram with subwords) of its
words are learnt once, from the texts that the GPT learns from. Then the same GPT is trained from each seed in each way:
all embeddings at random ("random"); started from the vectors as they are ("raw"), or scaled to the deviation that the
other weights start with ("scaled"), and tuned; scaled and frozen; scaled and frozen for the first quarter of the steps.
Told is the held-out loss at every evaluation, the mean over the seeds of the difference from "random" of the same seed,
and its standard error: seeds are paired, so that what the seed does to both does not count.

Vectors cost time too: their seconds are stated. The figure needs matplotlib.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import common

Run = dict[str, Any]

WAYS: dict[str, dict[str, Any]] = {
    "random": {},
    "raw": {"embedding_mode": "tuned"},
    "scaled": {"embedding_mode": "tuned", "embedding_std": 0.02},
    "frozen": {"embedding_mode": "frozen", "embedding_std": 0.02},
    "frozen first": {"embedding_mode": "frozen_first", "embedding_std": 0.02},
}
DIM = 128


def texts_of(source: Path, n: int) -> list[str]:
    """The first paragraphs of some length."""
    from firth.files import open_binary

    with open_binary(source) as file:
        lines = (line.decode().strip() for line in file)
        return list(itertools.islice((line for line in lines if len(line) > 100), n))


def train(options: argparse.Namespace) -> Run:
    """All ways from all seeds."""
    import firth
    from firth.contextual import GPT, TokenIds, Tokenizer

    texts = texts_of(options.data / "enwiki.raw.txt.xz", options.texts)
    tokenizer = Tokenizer.train(texts, kind="bpe", vocabulary_size=options.vocabulary)
    ids = TokenIds.build(texts, tokenizer, held_out=0.05, seed=1)
    # The vectors see what the GPT learns from, as its pieces' words are spelt: nothing of what is held out.
    learnt = tokenizer.decode(ids.train.tolist(), special=True).split("<|endoftext|>")
    start = time.perf_counter()
    words = firth.Corpus.from_iterable(learnt, tokenizer=_words)
    vectors = firth.FastText(vector_size=DIM, epochs=5, threads=options.threads).fit(words).vectors
    seconds = time.perf_counter() - start
    shared = {
        "layers": 4,
        "heads": 4,
        "dim": DIM,
        "length": 128,
        "tokenizer": tokenizer,
        "steps": options.steps,
        "batch_size": 16,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "evaluate_every": max(1, options.steps // 20),
        "evaluate_batches": 32,
        "threads": options.threads,
    }
    curves: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    found = None
    for seed in range(1, options.seeds + 1):
        for way, chosen in WAYS.items():
            given = {} if way == "random" else {"embedding": vectors, "embedding_steps": max(1, options.steps // 4)}
            model = GPT(**shared, **given, **chosen, seed=seed).fit(ids)
            found = model.static_start or found
            curves[way].append([one.held_out for one in model.history])
            print(f"seed {seed}, {way}: {model.history[-1].held_out:.4f}", file=sys.stderr)
    return {
        "machine": common.describe_machine(["torch", "tokenizers"]),
        "texts": len(texts),
        "tokens": len(ids.train),
        "pieces": len(tokenizer),
        "start": repr(found),
        "seconds of the vectors": seconds,
        "threads": options.threads,
        "steps": [one.step for one in model.history],
        "curves": curves,
    }


def _words(text: str) -> list[str]:
    """Runs of letters and digits, as they are written, and each other character by itself."""
    import re

    return re.findall(r"\w+|[^\w\s]", text)


def show(run: Run) -> None:
    """Differences from "random", seed by seed, where the curves begin, in the midst, and where they end."""
    steps, curves = run["steps"], run["curves"]
    print(f"{run['tokens']:,} tokens of {run['texts']:,} texts, {run['pieces']:,} pieces; {run['start']}")
    print(f"vectors: {run['seconds of the vectors']:.0f} s on {run['threads']} threads\n")
    places = sorted({0, len(steps) // 4, len(steps) // 2, len(steps) - 1})
    rows = []
    for way, seeds in curves.items():
        cells = []
        for place in places:
            if way == "random":
                cells.append(f"{statistics.mean(seed[place] for seed in seeds):.3f}")
                continue
            gaps = [seed[place] - other[place] for seed, other in zip(seeds, curves["random"], strict=True)]
            error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else float("nan")
            cells.append(f"{statistics.mean(gaps):+.3f} ± {error:.3f}")
        rows.append([way, *cells])
    print(common.table(["held-out loss, nats", *(f"step {steps[place]:,}" for place in places)], rows))


def draw(run: Run, path: Path) -> None:
    """Held-out loss against steps, a line for each way: the mean of its seeds, and each seed faintly."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for i, (way, seeds) in enumerate(run["curves"].items()):
        for seed in seeds:
            axes.plot(run["steps"], seed, color=f"C{i}", alpha=0.25, linewidth=0.8)
        axes.plot(run["steps"], [statistics.mean(values) for values in zip(*seeds, strict=True)], f"C{i}", label=way)
    axes.set_xlabel("steps")
    axes.set_ylabel("held-out loss, nats a piece")
    axes.legend(title="embeddings start")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Train, or show what was trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--texts", type=common.positive, default=40_000)
    parser.add_argument("--vocabulary", type=common.positive, default=8_000)
    parser.add_argument("--steps", type=common.positive, default=1_000)
    parser.add_argument("--seeds", type=common.positive, default=3)
    parser.add_argument("--threads", type=common.positive, default=2)
    parser.add_argument("--quick", action="store_true", help="one seed, 100 steps, 5,000 texts")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--show", type=Path, metavar="FILE", help="show what --output wrote")
    options = parser.parse_args()
    if options.quick:
        options.texts, options.steps, options.seeds = 5_000, 100, 1
    run = json.loads(options.show.read_text()) if options.show else train(options)
    show(run)
    if options.output:
        common.write_json(options.output, run)
    if options.figure:
        draw(run, options.figure)


if __name__ == "__main__":
    main()
