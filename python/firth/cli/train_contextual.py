"""`firth train gpt`, `bert` and `elmo`. This module imports PyTorch."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from firth import files
from firth.cli.common import CHECKPOINTS, INPUTS, OUTPUT, QUIET, VECTORS, Voice, check_state, check_writable, fit
from firth.cli.contextual import check_device
from firth.cli.options import Parameters, as_flags, model_options, taking
from firth.contextual import BERT, GPT, ELMo, Tokenizer
from firth.contextual.tokenizer_training import Kind
from firth.loading import load_vectors
from firth.options import declared_options
from firth.text import checked_sources, read_texts, rereadable

# They compare implementations, or belong to `filters`, which is not a number.
_LEFT_OUT = ("attention", "tied", "highway", "cell_clip", "projection_clip")


def _training_options(kind: type[GPT | BERT | ELMo]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The arguments of a command that trains a model: text, folder, and the model's own options but some."""
    defaults = {one.name: one.default for one in declared_options(kind)}
    of_transformer: Parameters = [
        click.option(
            "--tokenizer",
            metavar="|".join(typing.get_args(Kind)) + "|FILE",
            default=defaults.get("tokenizer"),
            help="Train such a tokenizer on the text; or use that of a tokenizer.json or of its folder.",
        ),
        VECTORS,
    ]
    return taking(
        [
            INPUTS,
            click.option("-o", "--output", "path", type=OUTPUT, metavar="FOLDER", required=True, help="The model."),
            *(of_transformer if "tokenizer" in defaults else []),
            *model_options(kind, _LEFT_OUT),
            *CHECKPOINTS,
            QUIET,
        ]
    )


@click.command()
@_training_options(GPT)
def gpt(**arguments: Any) -> None:
    """The model is a transformer decoder: an autoregressive language model. INPUT is text, one document a line unless
    --documents says otherwise; plain or compressed; several files are read as one; - is standard input.

    \b
    Examples:
      firth train gpt my.txt -o my.gpt --layers 4 --dim 256 --epochs 3
      firth generate my.gpt "The bank"
    """
    _train(GPT, "tokens", **arguments)


@click.command()
@_training_options(BERT)
def bert(**arguments: Any) -> None:
    """The model is a transformer encoder: a masked language model. INPUT is as for firth train gpt.

    \b
    Examples:
      firth train bert my.txt -o my.bert --lowercase
      firth fill-mask my.bert "dispute the [MASK]"
    """
    _train(BERT, "tokens", **arguments)


@click.command()
@_training_options(ELMo)
def elmo(**arguments: Any) -> None:
    """The model is two language models of LSTMs, one for each direction, over words that are read as characters. INPUT
    is text, one sentence or paragraph a line; plain or compressed; several files are read as one; - is standard input.

    \b
    Examples:
      firth train elmo my.txt -o my.elmo
      firth encode my.elmo new.txt -o states.npy
    """
    _train(ELMo, "words", **arguments)


def _train(
    kind: type[GPT | BERT | ELMo],
    unit: str,
    *,
    inputs: tuple[str, ...],
    path: Path,
    voice: Voice,
    checkpoint: Path | None,
    resume: bool,
    tokenizer: str | None = None,
    pretrained_vectors: files.PathLike | None = None,
    **options: Any,
) -> None:
    if tokenizer is not None:
        kinds = typing.get_args(Kind)
        if tokenizer not in kinds and not Path(tokenizer).exists():
            raise click.UsageError(f"--tokenizer must be {', '.join(kinds)}, or an existing file, not {tokenizer}")
        options["tokenizer"] = tokenizer if tokenizer in kinds else Tokenizer.load(tokenizer)
    if pretrained_vectors is not None:
        options["pretrained_vectors"] = load_vectors(pretrained_vectors)
    check_device(options["device"])
    with as_flags(options):
        model = kind(**options)
    if path.exists() and not path.is_dir():
        raise click.ClickException(f"{path} is a file; a model is a folder")
    check_writable(path / "config.json" if path.is_dir() else path)
    checked_sources(list(inputs))
    check_state(checkpoint, resume)
    with rereadable(inputs) as data:  # for the tokenizer, and to train
        if next(read_texts(data), None) is None:
            raise click.ClickException(f"there is no text in {', '.join(map(files.name_of, inputs))}")
        fit(model, data, voice, checkpoint, resume, unit=unit, line=_step_line, lost="model was")
    model.save(path)
    voice.say(f"Saved {model!r} in {path}")


def _step_line(model: Any, unit: str) -> str:
    one = model.history[-1]
    loss = one.validation_loss
    said = "" if loss is None else f"validation {loss:.4f} (perplexity {one.perplexity:,.1f}), "
    return f"step {one.step:,}: loss {one.loss:.4f}, {said}{one.units_per_second:,.0f} {unit}/s"
