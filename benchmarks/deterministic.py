"""Deterministic training of word2vec and FastText compared with one thread: the loss of each epoch on several texts.

    python benchmarks/deterministic.py                     a quarter of an hour
    python benchmarks/deterministic.py --quick
    python benchmarks/deterministic.py --show benchmarks/results/deterministic.json

A row is a text and a model. One thread without `deterministic=True` is the reference: every update is visible at once.
The script also checks that the bytes are the same at 1, 2, 3 and 8 threads.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
import lzma
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import common

THREADS = (1, 2, 3, 8)
WORDS = 1000  # the vocabulary of the text "few words"


def wikipedia(data: Path, tokens: int | None) -> list[list[str]]:
    """Paragraphs, lower-cased and cut to [a-z]+ and [0-9]+, up to about `tokens` tokens."""
    found, n = [], 0
    with lzma.open(data / "enwiki.raw.txt.xz", "rt", encoding="utf-8") as lines:
        for line in lines:
            words = common.WORD.findall(line.lower())
            if words:
                found.append(words)
                n += len(words)
            if tokens is not None and n >= tokens:
                break
    return found


def letters(data: Path, tokens: int) -> Iterator[list[str]]:
    """Letters, digits and spaces of Wikipedia: 37 symbols."""
    for words in wikipedia(data, tokens):
        yield list(" ".join(words))


def few_words(data: Path, tokens: int) -> list[list[str]]:
    """Wikipedia reduced to its most frequent words."""
    text = wikipedia(data, tokens)
    frequent = {word for word, _ in collections.Counter(itertools.chain(*text)).most_common(WORDS)}
    return [[word for word in line if word in frequent] for line in text]


def walks(tokens: int) -> Iterator[list[str]]:
    """Random walks of 40 steps on a graph of 34 nodes; a few nodes have most of the edges."""
    chance = random.Random(1)
    edges: list[list[int]] = [[] for _ in range(34)]
    for node in range(1, 34):
        for other in {int(node * chance.random() ** 3) for _ in range(3)}:
            edges[node].append(other)
            edges[other].append(node)
    for start in range(tokens // 40):
        walk = [start % 34]
        while len(walk) < 40:
            walk.append(chance.choice(edges[walk[-1]]))
        yield [str(node) for node in walk]


def dna(tokens: int) -> Iterator[list[str]]:
    """One long document: overlapping triples of a sequence of four letters, drawn from a chain of order three."""
    chance = random.Random(2)
    weights = {key: [chance.expovariate(1) ** 2 for _ in "ACGT"] for key in itertools.product("ACGT", repeat=3)}
    text = list("ACG")
    while len(text) < tokens + 2:
        text.append(chance.choices("ACGT", weights[tuple(text[-3:])])[0])
    yield ["".join(text[i : i + 3]) for i in range(tokens)]


KINDS: dict[str, dict[str, Any]] = {
    "skip-gram": {},
    "CBOW": {"architecture": "cbow"},
    "skip-gram, hierarchical softmax": {"loss": "hs"},
    "CBOW, hierarchical softmax": {"architecture": "cbow", "loss": "hs"},
    "FastText": {"subwords": True},
    "FastText CBOW": {"subwords": True, "architecture": "cbow"},
}
ALL = {"sample": 0.0}


def texts(data: Path) -> dict[str, tuple[Any, int, dict[str, Any], Iterable[str]]]:
    """By name: a function that returns the documents, min_count, options, and kinds of models."""
    return {
        "Wikipedia (54 k tokens)": (lambda: wikipedia(data, 54_000), 5, ALL, KINDS),
        "Wikipedia (1.9 M tokens)": (lambda: wikipedia(data, 1_900_000), 5, ALL | {"vector_size": 50}, KINDS),
        "letters (0.3 M)": (lambda: letters(data, 54_000), 1, {}, KINDS),
        "letters (2.3 M)": (lambda: letters(data, 400_000), 1, {"vector_size": 50}, KINDS),
        "1000 words and 100 buckets (0.25 M)": (lambda: few_words(data, 400_000), 1, {"bucket": 100}, KINDS),
        "1000 words and 100 buckets (1.6 M)": (
            lambda: few_words(data, 2_500_000),
            1,
            {"bucket": 100, "vector_size": 50},
            KINDS,
        ),
        "walks on 34 nodes (54 k)": (lambda: walks(54_000), 1, {}, KINDS),
        "walks on 34 nodes (1.2 M)": (lambda: walks(1_200_000), 1, {"vector_size": 50}, KINDS),
        "DNA (one document of 1.2 M)": (lambda: dna(1_200_000), 1, ALL | {"vector_size": 50}, KINDS),
        "all of Wikipedia": (lambda: wikipedia(data, None), 5, {"epochs": 5}, ("skip-gram", "FastText")),
    }


def measure(corpus: Any, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Losses of one thread, and of deterministic training, whose bytes are compared at several threads."""
    import firth

    given = {"epochs": 3, **options, **KINDS[kind]}
    bucket = given.pop("bucket", None)
    model = firth.Word2Vec
    if given.pop("subwords", False):
        model = firth.FastText
        given |= {} if bucket is None else {"bucket": bucket}

    def losses(**how: Any) -> tuple[list[float], str]:
        fitted = model(**given, **how).fit(corpus)
        digest = hashlib.sha256(fitted.vectors.matrix.tobytes()).hexdigest()
        return [epoch.loss for epoch in fitted.history], digest

    alone, _ = losses(threads=1)
    runs = [losses(threads=threads, deterministic=True) for threads in THREADS[: 4 if given["epochs"] < 5 else 2]]
    return {
        "one thread": alone,
        "deterministic": runs[0][0],
        "same bytes": all(run == runs[0] for run in runs),
    }


def difference(row: dict[str, Any]) -> str:
    """How far the loss is from that of one thread, lowest to highest of the epochs after the first."""
    ratios = [b / a for a, b in zip(row["one thread"][1:], row["deterministic"][1:], strict=True)]
    return f"{100 * (min(ratios) - 1):+.1f} to {100 * (max(ratios) - 1):+.1f} %"


def show(result: dict[str, Any]) -> str:
    rows = [
        [
            row["text"],
            row["model"],
            " / ".join(f"{loss:.3f}" for loss in row["one thread"]),
            " / ".join(f"{loss:.3f}" for loss in row["deterministic"]),
            difference(row),
            "yes" if row["same bytes"] else "NO",
        ]
        for row in result["rows"]
    ]
    headings = ["text", "model", "one thread", "deterministic", "relative to one thread", "same bytes"]
    return f"{result['machine']['cpu']}\n\n" + common.table(headings, rows)


def main() -> None:
    parser = common.arguments(__doc__, names := texts(Path()), "the first text alone")
    settings = common.parsed(parser, __file__, names, show)
    wanted = settings.only[:1] if settings.quick else settings.only
    import firth

    result: dict[str, Any] = {"machine": common.describe_machine(("numpy",)), "rows": []}
    for name, (make, min_count, options, kinds) in texts(settings.data).items():
        if name not in wanted:
            continue
        corpus = firth.Corpus.from_iterable(make(), min_count=min_count)
        for kind in kinds:
            row = {"text": name, "tokens": corpus.n_tokens, "model": kind, **measure(corpus, kind, options)}
            result["rows"].append(row)
            print(f"{name}, {kind}: {difference(row)}", flush=True)
            common.write_json(settings.json, result)
    common.finish(show(result), settings.json)


if __name__ == "__main__":
    main()
