"""firth's classifier compared with fastText's: the same files and options; training, accuracy, prediction.

    python benchmarks/classifier.py --quick        one seed
    python benchmarks/classifier.py                five seeds; minutes
    python benchmarks/classifier.py --show results.json

Two datasets. "polarity": positive and negative film reviews (Pang & Lee), polarity.txt of --data; each seed has another
tenth as its test split. "articles": paragraphs of Wikipedia articles, labeled with the kind of their subject (a film, a
place, a species, ...). The first sentence of an article names the kind, so its first paragraph is not used. Each seed
has the paragraphs of another tenth of the articles as its test split.

Needs the fasttext package for the other side. Its command line does the same work as its Python functions.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import peers

Run = dict[str, Any]

OPTIONS: dict[str, dict[str, Any]] = {
    "polarity": {"vector_size": 100, "word_ngrams": 2, "learning_rate": 0.2, "epochs": 10},
    "articles": {"vector_size": 100, "word_ngrams": 2, "learning_rate": 0.2, "epochs": 5},
}
CONTENDERS = ("firth", "fastText")
LINES = 100_000  # texts to predict
# Words for the subject of an article in its first sentence.
KINDS = {
    "film": r"film|movie",
    "album": r"album|song|single|EP",
    "place": r"town|city|village|municipality|district|county|commune|suburb|community",
    "nature": r"river|mountain|lake|island|bay|valley",
    "species": r"species|genus|family of|plant|tree|fish|bird|insect",
    "sport": r"footballer|player|cricketer|boxer|athlete|cyclist|swimmer|coach|club|team",
    "politics": r"politician|lawyer|president|minister|senator|party|governor|diplomat",
    "arts": r"actor|actress|singer|musician|writer|poet|painter|author|novelist|composer|band",
    "company": r"company|corporation|manufacturer|brand|airline|bank",
    "school": r"school|university|college",
    "war": r"battle|war|regiment|ship|officer|general|aircraft",
    "science": r"scientist|physicist|chemist|mathematician|theorem|theory|disease|compound|protein|gene",
}


# --- What runs in a process of its own -------------------------------------------------------------------------------


def split_polarity(source: str, folder: str, seed: int) -> Run:
    """Shuffle; a tenth is the test split."""
    import random

    lines = Path(source).read_text(encoding="utf-8").splitlines()
    random.Random(seed).shuffle(lines)
    return _write(folder, lines[len(lines) // 10 :], lines[: len(lines) // 10])


def split_articles(source: str, folder: str, seed: int) -> Run:
    """Paragraphs with the kind of their article, all but the first; a tenth of the articles is the test split."""
    import random
    import re

    first = re.compile(
        r"\b(?:is|was|are|were) (?:a|an|the|one of the)\b(?: [\w-]+){0,6}? (" + "|".join(KINDS.values()) + r")\b"
    )
    word = re.compile(r"\w+")
    articles = []
    for article in common.articles(Path(source)):
        found = first.search(article[0][:400])
        if found is None:
            continue
        kind = next(kind for kind, words in KINDS.items() if re.fullmatch(words, found[1]))
        articles.append([f"__label__{kind} {' '.join(word.findall(p.lower()))}" for p in article[1:]])
    random.Random(seed).shuffle(articles)
    n_test = len(articles) // 10
    train = [line for article in articles[n_test:] for line in article]
    random.Random(seed).shuffle(train)
    return _write(folder, train, [line for article in articles[:n_test] for line in article])


def _write(folder: str, train: list[str], test: list[str]) -> Run:
    for name, lines in (("train", train), ("test", test)):
        Path(folder, f"{name}.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    labels = [line.split(maxsplit=1)[0] for line in test]
    words = sum(len(line.split()) - 1 for line in train)
    return {
        "train": len(train),
        "test": len(test),
        "words": words,
        "labels": len(set(labels)),
        "majority": max(map(labels.count, set(labels))) / len(labels),
    }


def _test_split(folder: str) -> tuple[list[str], list[str], list[str]]:
    """Texts and labels of the test split, and the texts whose prediction is timed."""
    labels, texts = [], []
    for line in Path(folder, "test.txt").read_text(encoding="utf-8").splitlines():
        label, _, text = line.partition(" ")
        labels.append(label.removeprefix("__label__"))
        texts.append(text)
    return texts, labels, (texts * (LINES // len(texts) + 1))[:LINES]


def train_firth(folder: str, threads: int, seed: int, options: dict[str, Any]) -> Run:
    import firth.models  # outside of what is timed: firth imports its parts when they are used first

    texts, labels, many = _test_split(folder)
    clock = common.Clock()
    model = firth.FastTextClassifier(**options, threads=threads, seed=seed).fit(str(Path(folder, "train.txt")))
    clock.stage("training")
    peak = common.peak_so_far()
    accuracy = (model.predict(texts) == labels).mean()
    clock.stage("test")
    model.predict(many)
    clock.stage("prediction")
    return {
        "seconds": {name: clock.seconds[name] for name in ("training", "prediction")},
        "epoch_seconds": common.epoch_seconds(model.history),
        "accuracy": float(accuracy),
        "training_mb": peak,
    }


def train_fasttext(folder: str, threads: int, seed: int, options: dict[str, Any]) -> Run:
    import fasttext

    texts, labels, many = _test_split(folder)
    given = peers.renamed(options, peers.FASTTEXT)
    clock = common.Clock()
    model = fasttext.train_supervised(str(Path(folder, "train.txt")), **given, thread=threads, seed=seed, verbose=0)
    clock.stage("training")
    peak = common.peak_so_far()
    found = model.predict(texts)[0]
    clock.stage("test")
    model.predict(many)
    clock.stage("prediction")
    right = [one[0] == f"__label__{label}" for one, label in zip(found, labels, strict=True)]
    return {
        "seconds": {name: clock.seconds[name] for name in ("training", "prediction")},
        "accuracy": statistics.mean(right),
        "training_mb": peak,
    }


WORK = (split_polarity, split_articles, train_firth, train_fasttext)

# --- Running ---------------------------------------------------------------------------------------------------------


def run(settings: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    sources = {"polarity": settings.data / "polarity.txt", "articles": settings.data / "enwiki.raw.txt.xz"}
    results: dict[str, Any] = {
        "machine": common.describe_machine(("numpy", "fasttext")),
        "threads": settings.threads,
        "options": OPTIONS,
        "sets": {},
        "runs": [],
    }

    def fresh(work: Any, **arguments: Any) -> Run:
        return common.run_fresh(__file__, work.__name__, settings.threads, arguments)

    for name in settings.only:
        split = split_polarity if name == "polarity" else split_articles
        for seed in range(1, settings.repeats + 1):
            folder = scratch / f"{name}-{seed}"
            folder.mkdir()
            made = fresh(split, source=str(sources[name]), folder=str(folder), seed=seed)
            if "failed" in made:
                raise SystemExit(f"{name}: {made['failed']}")
            results["sets"].setdefault(name, made)
            for contender in CONTENDERS if seed % 2 else CONTENDERS[::-1]:
                print(f"{name}: {contender}, seed {seed} ...", file=sys.stderr, flush=True)
                work = train_firth if contender == "firth" else train_fasttext
                found = fresh(work, folder=str(folder), threads=settings.threads, seed=seed, options=OPTIONS[name])
                results["runs"].append({"set": name, "contender": contender, "seed": seed, **found})
                common.write_json(settings.json, results)
    return results


def report(results: dict[str, Any]) -> str:
    """The tables."""
    machine = results["machine"]
    parts = [
        f"{common.machine_line(machine, packages=['fasttext'])}. "
        f"{results['threads']} threads; medians over seeds (lowest to highest)."
    ]
    for name, made in results["sets"].items():
        runs = [one for one in results["runs"] if one["set"] == name and "failed" not in one]
        by = {who: {one["seed"]: one for one in runs if one["contender"] == who} for who in CONTENDERS}

        def times(who: str, what: str, by: dict[str, dict[int, Run]] = by) -> str:
            seeds = sorted(by["firth"].keys() & by[who].keys())
            pairs = [by[who][s]["seconds"][what] / by["firth"][s]["seconds"][what] for s in seeds]
            return "1" if who == "firth" else common.spread(pairs, 1)

        rows = []
        for who, found in by.items():
            if not found:
                rows.append([who, "did not run", "", "", "", "", ""])
                continue
            accuracy = [100 * one["accuracy"] for one in found.values()]
            rows.append(
                [
                    who,
                    common.spread([one["seconds"]["training"] for one in found.values()], 2),
                    times(who, "training"),
                    f"{statistics.mean(accuracy):.2f} ({min(accuracy):.1f} to {max(accuracy):.1f})",
                    common.spread([one["seconds"]["prediction"] for one in found.values()], 3),
                    times(who, "prediction"),
                    f"{common.median(one['training_mb'] for one in found.values()):,.0f}",
                ]
            )
        headings = ["", "file to model, s", "relative to firth", "accuracy, %"]
        headings += [f"{LINES:,} texts, s", "relative to firth", "MB"]
        options = ", ".join(f"{key}={value}" for key, value in results["options"][name].items())
        parts.append(
            f"### {name}\n\n{made['train']:,} texts of {made['words']:,} words, {made['test']:,} in the test split, "
            f"{made['labels']} labels (the most frequent {made['majority']:.1%}); {options}.\n\n"
            + common.table(headings, rows)
        )
    failed = [one for one in results["runs"] if "failed" in one]
    parts += [f"- {one['set']}, {one['contender']}, seed {one['seed']}: {one['failed']}" for one in failed]
    return "\n\n".join(parts)


def main() -> None:
    if common.served(WORK):
        return
    parser = common.arguments(__doc__, OPTIONS, "one seed")
    parser.add_argument("--repeats", type=common.positive, help="with seeds 1, 2, ... (default 5)")
    settings = common.parsed(parser, __file__, OPTIONS, report)
    settings.repeats = settings.repeats or (1 if settings.quick else 5)
    with tempfile.TemporaryDirectory() as scratch:
        common.finish(report(run(settings, Path(scratch))), settings.json)


if __name__ == "__main__":
    main()
