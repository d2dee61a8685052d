"""`firth train classifier`, `predict`, `test` and `quantize`."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

import firth.corpus
import firth.evaluate
from firth import fasttext_format, files
from firth.cli import Interrupted
from firth.cli.common import (
    INPUTS,
    OUTPUT,
    PATH,
    QUIET,
    STREAM,
    Parameters,
    aligned,
    arriving,
    as_flags,
    counted,
    taking,
    tried,
    voice,
)
from firth.loading import load_vectors
from firth.models import FastTextClassifier
from firth.options import choices, not_none
from firth.text import open_text

_TEXTS = 10_000  # that are classified at once

_CLASSIFIER = {
    "loss": "softmax over all labels; ova, a question for each label; hs, a tree, for thousands; ns, random labels.",
    "vector_size": "Numbers in a vector.",
    "word_ngrams": "Words in the longest n-gram of words.",
    "min_n": "Characters in the shortest n-gram of a word.",
    "max_n": "Characters in the longest n-gram of a word; 0: none.",
    "bucket": "Numbers that n-grams are hashed to.",
    "min_count": "Leave out words that are rarer.",
    "min_count_label": "Leave out labels that are rarer.",
    "negative": "Random labels for each text, with --loss ns.",
    "learning_rate": "Step size at the first text; it falls to 0 at the last.",
    "epochs": "Passes over the texts.",
    "patience": "Stop when so many epochs in a row have not raised the score on --validation.",
    "label_prefix": "What marks a label in a text.",
    "seed": "Where random numbers start. The same seed on one thread and one instruction set gives the same model.",
    "threads": "Threads to run on.",
}


def _classifier_options() -> Parameters:
    declared = typing.get_type_hints(FastTextClassifier)
    fields = {field.name: field.default for field in dataclasses.fields(FastTextClassifier)}
    parameters: Parameters = []
    for name, meaning in _CLASSIFIER.items():
        kind = not_none(declared[name])
        shown: bool | str = {"threads": "all processors", "patience": "never"}.get(name, True)
        parameters.append(
            click.option(
                "--" + name.replace("_", "-"),
                type=click.Choice(choices(kind)) if choices(kind) else kind,
                default=fields[name],
                show_default=shown,
                help=meaning,
            )
        )
    return parameters


def _share_or_file(_: click.Context, __: click.Parameter, value: str | None) -> float | str | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return value


@click.command()
@taking(
    [
        INPUTS,
        click.option(
            "-o",
            "--output",
            "path",
            type=OUTPUT,
            required=True,
            help="The classifier, best as a .model, which holds what was learnt alone. A .bin is for fastText's "
            "programs: with n-grams it has every bucket, 800 MB of them by default.",
        ),
        click.option(
            "--tokenizer",
            type=click.Choice(["whitespace", "words"]),
            default="whitespace",
            help="Split at white space alone; or lower-case, and split at whatever is no letter or digit.",
        ),
        *_classifier_options(),
        click.option("--class-weight", type=click.Choice(["balanced"]), help="Weigh rare labels as much as others."),
        click.option("--pretrained", type=STREAM, metavar="VECTORS", help="Vectors of words to begin with."),
        click.option(
            "--validation",
            metavar="SHARE|FILE",
            callback=_share_or_file,
            help="A share of the texts, or a file of others, to see after each epoch how well they are told.",
        ),
        QUIET,
    ]
)
def classifier(
    inputs: tuple[str, ...],
    path: Path,
    pretrained: files.PathLike | None,
    validation: float | str | None,
    quiet: bool,
    **options: Any,
) -> None:
    """In INPUT every line is a text and its labels, each the word that follows the prefix; plain or compressed.
    firth predict, test and quantize read a .model as they read a .bin; firth quantize writes a small .ftz for fastText.

    \b
    Examples:
      firth train classifier reviews.txt -o reviews.model --word-ngrams 2 --tokenizer words
      firth predict reviews.model new.txt
    """
    say, bars = voice(quiet)
    others = [one for one in (pretrained, validation) if isinstance(one, str | Path)]
    _check_model_output(path, [*inputs, *others])
    with as_flags(options):
        FastTextClassifier(**options)
        vectors = None if pretrained is None else load_vectors(pretrained)
        if vectors is not None:
            options["vector_size"] = vectors.vector_size
        model = FastTextClassifier(**options, vectors=vectors)
    try:
        model.fit(list(inputs), validation=validation, progress=bars)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted. No classifier was written.") from None
    if not bars:
        for epoch in model.history:
            score = "" if epoch.validation is None else f", right on validation {epoch.validation:.1%}"
            rate = f"{epoch.units_per_second:,.0f} texts/s"
            say(f"epoch {epoch.epoch} of {model.epochs}: loss {epoch.loss:.4f}, {rate}{score}")
    _write_classifier(model, path, say)


def _check_model_output(path: Path, inputs: Sequence[str | Path]) -> None:
    with tried(path, inputs) as probe:
        probe.touch()


def _write_classifier(model: FastTextClassifier, path: Path, say: Callable[[str], None]) -> None:
    if path.suffix.lower() in (".bin", ".ftz"):
        model.to_fasttext(path)
    else:
        model.save(path)
    say(f"Saved a classifier of {counted(len(model.classes_), 'label')} in {path}")


def _load_classifier(path: Path) -> FastTextClassifier:
    """One of ours or of fastText's."""
    with files.open_binary(path) as file:
        theirs = file.read(len(fasttext_format.MAGIC)) == fasttext_format.MAGIC
    model = FastTextClassifier.from_fasttext(path) if theirs else firth.load(path)
    if not isinstance(model, FastTextClassifier):
        raise click.ClickException(f"{path} holds a {type(model).__name__}, not a classifier")
    return model


_CLASSIFIER_FILE = click.argument("path", metavar="CLASSIFIER", type=PATH)
_K = click.option("-k", type=click.IntRange(-1), metavar="N", default=1, help="Labels of a text at the most; -1: all.")
_THRESHOLD = click.option("--threshold", type=float, default=0.0, help="Leave out labels that are less likely.")


@click.command()
@taking(
    [
        _CLASSIFIER_FILE,
        click.argument("texts", metavar="[FILE]", default="-"),
        _K,
        _THRESHOLD,
        click.option("-p", "--probabilities", is_flag=True, help="Show how likely each label is."),
    ]
)
def predict(path: Path, texts: str, k: int, threshold: float, probabilities: bool) -> None:
    """CLASSIFIER is one that firth train classifier wrote, or fastText's (.bin, .ftz). FILE has a text a line; without
    it, or for -, texts are read from standard input, and answered as they come. Labels stand behind one another, the
    likeliest first, with tabs between.

    \b
    Example:
      firth predict reviews.model new.txt -k 3 -p
    """
    if k == 0:
        raise click.UsageError("-k must be at least 1, or -1 for all labels")
    model = _load_classifier(path)
    prefix = model.label_prefix
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_text(texts))
        if texts == "-":
            batches = arriving(file, _TEXTS)
        else:
            every = iter(file.readline, b"")
            batches = iter(lambda: list(itertools.islice(every, _TEXTS)), [])
        for lines in batches:
            read = [line.decode(errors="replace") for line in lines]
            if model.tokenizer != "whitespace":  # others might not leave of a label what it is known by
                read = [
                    " ".join(word for word in line.split() if not word.startswith(prefix)) if prefix in line else line
                    for line in read
                ]
            shown = [
                "\t".join(f"{label} {chance:.4f}" if probabilities else str(label) for label, chance in found)
                for found in model.predict(read, k=k, threshold=max(threshold, 1e-30))
            ]
            click.echo("\n".join(shown))


@click.command()
@taking(
    [
        _CLASSIFIER_FILE,
        INPUTS,
        _K,
        _THRESHOLD,
        click.option("--by-label", is_flag=True, help="Show every label's precision, recall and F1 too."),
    ]
)
def test(path: Path, inputs: tuple[str, ...], k: int, threshold: float, by_label: bool) -> None:
    """INPUT is text with labels, as for firth train classifier.

    \b
    Example:
      firth test reviews.model held-out.txt --by-label
    """
    if k == 0:
        raise click.UsageError("-k must be at least 1, or -1 for all labels")
    result = _load_classifier(path).test(list(inputs), k=k, threshold=threshold)
    rows: list[tuple[str, ...]] = [("", "texts", "precision", "recall", "F1")]
    f1 = 2 * result.precision * result.recall / max(result.precision + result.recall, 1e-30)
    everything = (result.precision, result.recall, f1)
    rows.append(("all", f"{result.texts:,}", *map(_percent, everything)))
    if by_label:
        rows += [
            (str(one.label), f"{one.texts:,}", *map(_percent, (one.precision, one.recall, one.f1)))
            for one in result.labels
        ]
    for line in aligned(rows):
        click.echo(line)


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


@click.command()
@taking(
    [
        _CLASSIFIER_FILE,
        click.option("-o", "--output", "target", type=OUTPUT, required=True, help=".ftz is fastText's format."),
        click.option("--cutoff", type=int, metavar="N", show_default="all", help="Keep so many words and n-grams."),
        click.option("--part-size", type=int, metavar="N", default=2, help="Numbers of a vector to a byte."),
        click.option("--norms", is_flag=True, help="Keep vectors' lengths apart, in a byte more for each."),
        click.option("--labels", is_flag=True, help="Quantize the labels' vectors too."),
        click.option("--retrain", multiple=True, metavar="FILE", help="Train what is kept on it. May be repeated."),
        QUIET,
    ]
)
def quantize(
    path: Path,
    target: Path,
    cutoff: int | None,
    part_size: int,
    norms: bool,
    labels: bool,
    retrain: tuple[str, ...],
    quiet: bool,
) -> None:
    """Numbers are told by a byte for every few of them, and of words and n-grams those that matter most are kept.

    \b
    Example:
      firth quantize reviews.model -o reviews.ftz --cutoff 100000
    """
    say, bars = voice(quiet)
    _check_model_output(target, [path, *retrain])
    with as_flags(["cutoff", "part_size"]):
        small = _load_classifier(path).quantize(
            list(retrain) or None, cutoff=cutoff, part_size=part_size, norms=norms, output=labels, progress=bars
        )
    _write_classifier(small, target, say)
