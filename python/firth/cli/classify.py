"""`firth train classifier`, `predict`, `test` and `quantize`."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

import firth
from firth import files
from firth.cli import common
from firth.cli.common import INPUTS, OUTPUT, QUIET, Voice, counted
from firth.cli.options import as_flags, model_options, taking
from firth.loading import load_vectors
from firth.models import FastTextClassifier
from firth.run import CHECKPOINT
from firth.text import arriving_lines, checked_sources, open_text

_TEXTS = 10_000  # that are classified at once


def _share_or_file(_: click.Context, __: click.Parameter, value: str | None) -> float | str | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return value


@click.command()
@taking(
    [
        INPUTS,
        click.option("-o", "--output", "path", type=OUTPUT, required=True, help="File of the classifier."),
        common.TOKENIZER,
        *model_options(FastTextClassifier, without=["validation"]),
        click.option("--class-weight", type=click.Choice(["balanced"]), help="Give all labels the same weight."),
        common.VECTORS,
        click.option(
            "--validation",
            metavar="SHARE|FILE",
            callback=_share_or_file,
            help="Share of the texts in the validation split, or a file of other texts. The accuracy on it is shown "
            "after each epoch.",
        ),
        common.FASTTEXT,
        *common.CHECKPOINTS,
        QUIET,
    ]
)
def classifier(
    inputs: tuple[str, ...],
    path: Path,
    pretrained_vectors: files.PathLike | None,
    validation: float | str | None,
    fasttext: bool,
    checkpoint: Path | None,
    resume: bool,
    voice: Voice,
    **options: Any,
) -> None:
    """Each line of INPUT is a text with its labels: words that begin with --label-prefix. INPUT is plain or compressed.
    firth predict, test and quantize take the classifier, and so does firth.load in Python.

    \b
    Examples:
      firth train classifier reviews.txt -o reviews.model --word-ngrams 2 --tokenizer words
      firth predict reviews.model new.txt
    """
    others = [one for one in (pretrained_vectors, validation) if isinstance(one, str | Path)]
    common.check_model_file(path, [*inputs, *others], fasttext)
    common.check_distinct({"--output": path, "--checkpoint": None if checkpoint is None else checkpoint / CHECKPOINT})
    with as_flags(options):
        FastTextClassifier(**options)
        vectors = None if pretrained_vectors is None else load_vectors(pretrained_vectors)
        if vectors is not None:
            options["vector_size"] = vectors.vector_size
        model = FastTextClassifier(**options, pretrained_vectors=vectors)
    checked_sources(list(inputs))
    common.check_state(checkpoint, resume)
    common.fit(
        model, list(inputs), voice, checkpoint, resume, unit="texts", lost="classifier was", validation=validation
    )
    _write_classifier(model, path, fasttext, voice)


def _write_classifier(model: FastTextClassifier, path: Path, fasttext: bool, voice: Voice) -> None:
    common.write_model(model, path, fasttext)
    voice.say(f"Saved a classifier of {counted(len(model.classes_), 'label')} in {path}")


def _load_classifier(path: Path) -> FastTextClassifier:
    """A classifier of firth's or of fastText's."""
    model = firth.load(path)
    if not isinstance(model, FastTextClassifier):
        raise click.ClickException(f"{path} holds a {type(model).__name__}, not a classifier")
    return model


_CLASSIFIER_FILE = click.argument("path", metavar="CLASSIFIER", type=common.PATH)
_K = click.option("-k", type=click.IntRange(-1), metavar="N", default=1, help="Labels of a text, at most; -1: all.")
_THRESHOLD = click.option("--threshold", type=float, default=0.0, help="Leave out labels that are less probable.")


@click.command()
@taking(
    [
        _CLASSIFIER_FILE,
        click.argument("texts", metavar="[FILE]", default="-"),
        _K,
        _THRESHOLD,
        click.option("-p", "--probabilities", is_flag=True, help="Show the probability of each label."),
    ]
)
def predict(path: Path, texts: str, k: int, threshold: float, probabilities: bool) -> None:
    """CLASSIFIER is a file that firth train classifier wrote, or a classifier of fastText's (.bin, .ftz). FILE has a
    text per line; without it, or for -, texts are read from standard input, and answered as they arrive. Labels are
    separated by tabs, the most probable one first.

    \b
    Example:
      firth predict reviews.model new.txt -k 3 -p
    """
    if k == 0:
        raise click.UsageError("-k must be at least 1, or -1 for all labels")
    model = _load_classifier(path)
    prefix = model.label_prefix
    with open_text(texts) as file:
        for lines in arriving_lines(file, _TEXTS):
            read = [line.decode(errors="replace") for line in lines]
            if model.tokenizer != "whitespace":  # others might not leave of a label what it is known by
                read = [
                    " ".join(word for word in line.split() if not word.startswith(prefix)) if prefix in line else line
                    for line in read
                ]
            shown = [
                "\t".join(f"{label} {chance:.4f}" if probabilities else str(label) for label, chance in found)
                for found in map(zip, *model.predict_top(read, k=k, threshold=max(threshold, 1e-30)))
            ]
            click.echo("\n".join(shown))


@click.command()
@taking(
    [
        _CLASSIFIER_FILE,
        INPUTS,
        _K,
        _THRESHOLD,
        click.option("--by-label", is_flag=True, help="Also show the precision, recall and F1 of each label."),
    ]
)
def test(path: Path, inputs: tuple[str, ...], k: int, threshold: float, by_label: bool) -> None:
    """INPUT is text with labels, as for firth train classifier.

    \b
    Example:
      firth test reviews.model test.txt --by-label
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
    common.show(rows)


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


@click.command()
@taking(
    [
        _CLASSIFIER_FILE,
        click.option("-o", "--output", "target", type=OUTPUT, required=True, help="File of the smaller classifier."),
        click.option(
            "--cutoff",
            type=int,
            metavar="N",
            show_default="all",
            help="Words and n-grams to keep: those with the largest vectors.",
        ),
        click.option(
            "--part-size",
            type=int,
            metavar="N",
            default=2,
            help="Dimensions of a sub-vector, which is stored as one byte.",
        ),
        click.option("--norms", is_flag=True, help="Store the norms of vectors apart, in one more byte for each."),
        click.option("--labels", is_flag=True, help="Quantize the labels' vectors too."),
        click.option(
            "--retrain",
            multiple=True,
            metavar="FILE",
            help="Text with labels to train the kept vectors on again. May be repeated.",
        ),
        common.FASTTEXT,
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
    fasttext: bool,
    voice: Voice,
) -> None:
    """Product quantization: each sub-vector is stored as one byte. With --cutoff, only the most important words and
    n-grams are kept.

    \b
    Example:
      firth quantize reviews.model -o reviews.ftz --fasttext --cutoff 100000
    """
    common.check_model_file(target, [path, *retrain], fasttext)
    with as_flags(["cutoff", "part_size"]):
        small = _load_classifier(path).quantize(
            list(retrain) or None, cutoff=cutoff, part_size=part_size, norms=norms, output=labels, progress=voice.bars
        )
    _write_classifier(small, target, fasttext, voice)
