"""GPT, BERT and ELMo."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import re
import shutil
import tempfile
import typing
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from firth import files
from firth.cli.common import (
    INPUTS,
    OUTPUT,
    PATH,
    QUIET,
    STREAM,
    aligned,
    check_state,
    counted,
    interrupted,
    tried,
    voice,
)
from firth.cli.options import Parameters, as_flags, model_options, taking
from firth.loading import load_vectors
from firth.text import checked_sources, open_text, read_lines, read_texts

# Options that are made of more than a number, a choice or a flag, or that compare implementations.
_LEFT_OUT = (
    "attention",
    "cell_clip",
    "filters",
    "highway",
    "pretrained_vectors",
    "projection_clip",
    "tied",
    "tokenizer",
)


class _TrainContextual(click.Command):
    """`firth train gpt` and its like: the options are the model's, and torch is imported when they are asked for."""

    def __init__(self, kind: str, help: str) -> None:
        self.kind = kind
        self._parameters: list[click.Parameter] | None = None
        super().__init__(kind.lower(), callback=self._run, help=inspect.cleandoc(help))

    @property
    def params(self) -> list[click.Parameter]:
        if self._parameters is None:
            self._parameters = self._made()
        return self._parameters

    @params.setter
    def params(self, _: list[click.Parameter]) -> None:
        """Click sets the parameters that a command is made with: none."""

    def _made(self) -> list[click.Parameter]:
        kind = getattr(_contextual(), self.kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        decorators: Parameters = [
            INPUTS,
            click.option("-o", "--output", "path", type=OUTPUT, metavar="FOLDER", required=True, help="The model."),
        ]
        if "tokenizer" in fields:
            decorators.append(
                click.option(
                    "--tokenizer",
                    metavar="|".join(typing.get_args(_contextual().tokenizer_training.Kind)) + "|FILE",
                    default=fields["tokenizer"].default,
                    show_default=True,
                    help="Train such a tokenizer on the text; or use that of a tokenizer.json or of its folder.",
                )
            )
        if "pretrained_vectors" in fields:
            decorators.append(
                click.option("--pretrained-vectors", type=STREAM, metavar="VECTORS", help="Initial word vectors.")
            )
        decorators += model_options(kind, _LEFT_OUT)
        decorators += [
            click.option("--checkpoint", type=OUTPUT, metavar="FOLDER", help="Save the training state here."),
            click.option("--resume", is_flag=True, help="Continue from the checkpoint, if there is one."),
            QUIET,
        ]

        @click.command()
        @taking(decorators)
        def command(**_: Any) -> None: ...

        return list(command.params)

    def _run(
        self,
        inputs: tuple[str, ...],
        path: Path,
        quiet: bool,
        checkpoint: Path | None,
        resume: bool,
        tokenizer: str | None = None,
        pretrained_vectors: Path | None = None,
        **options: Any,
    ) -> None:
        contextual = _contextual()
        if resume and checkpoint is None:
            raise click.UsageError("--resume needs --checkpoint, the folder to continue from")
        if tokenizer is not None:
            kinds = typing.get_args(contextual.tokenizer_training.Kind)
            if tokenizer not in kinds and not Path(tokenizer).exists():
                raise click.UsageError(f"--tokenizer must be {', '.join(kinds)}, or an existing file, not {tokenizer}")
            options["tokenizer"] = tokenizer if tokenizer in kinds else contextual.Tokenizer.load(tokenizer)
        if pretrained_vectors is not None:
            options["pretrained_vectors"] = load_vectors(pretrained_vectors)
        _check_device(options["device"])
        with as_flags(options):
            model = getattr(contextual, self.kind)(**options)
        _check_folder(path)
        checked_sources(list(inputs))
        check_state(checkpoint, resume)
        say, bars = voice(quiet)

        def report(model: Any) -> None:
            if not bars:
                say(_evaluated(model.history[-1], "words" if self.kind == "ELMo" else "tokens"))

        with contextlib.ExitStack() as stack:
            data = []
            for one in inputs:
                path_of_one = Path(one)
                if one == "-" or not path_of_one.is_file():  # text is read twice: for the tokenizer, and to train
                    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="firth-"))
                    path_of_one = Path(folder, "standard input" if one == "-" else path_of_one.name)
                    with open_text(one) as source, path_of_one.open("wb") as file:
                        shutil.copyfileobj(source, file)
                data.append(path_of_one)
            if next(read_texts(data), None) is None:
                names = ", ".join("standard input" if one == "-" else one for one in inputs)
                raise click.ClickException(f"there is no text in {names}")
            try:
                model.fit(data, progress=bars, callbacks=[report], checkpoint=checkpoint, resume=resume)
            except KeyboardInterrupt:
                raise interrupted("Interrupted. No model was written.", checkpoint) from None
        model.save(path)
        say(f"Saved {model!r} in {path}")


def _contextual() -> Any:
    import firth.contextual

    return firth.contextual


def _evaluated(one: Any, unit: str) -> str:
    loss = one.validation_loss
    told = "" if loss is None else f"validation {loss:.4f} (perplexity {one.perplexity:,.1f}), "
    return f"step {one.step:,}: loss {one.loss:.4f}, {told}{one.units_per_second:,.0f} {unit}/s"


def _check_folder(path: Path) -> None:
    """Find out before the work whether a model's folder can be written here at its end."""
    if path.exists() and not path.is_dir():
        raise click.ClickException(f"{path} is a file; a model is a folder")
    if not path.exists() and not path.absolute().parent.is_dir():
        raise click.ClickException(f"cannot write {path}: there is no folder {path.absolute().parent}")
    with tried(path / "config.json" if path.is_dir() else path) as probe:
        probe.touch()


gpt = _TrainContextual(
    "GPT",
    """The model is a transformer decoder: an autoregressive language model. INPUT is text, one document a line unless
    --documents says otherwise; plain or compressed; several files are read as one; - is standard input.

    \b
    Examples:
      firth train gpt my.txt -o my.gpt --layers 4 --dim 256 --epochs 3
      firth generate my.gpt "The bank"
    """,
)
bert = _TrainContextual(
    "BERT",
    """The model is a transformer encoder: a masked language model. INPUT is text, one document a line unless
    --documents says otherwise; plain or compressed; several files are read as one; - is standard input.

    \b
    Examples:
      firth train bert my.txt -o my.bert --lowercase
      firth fill-mask my.bert "dispute the [MASK]"
    """,
)
elmo = _TrainContextual(
    "ELMo",
    """The model is two language models of LSTMs, one for each direction, over words that are read as characters. INPUT
    is text, one sentence or paragraph a line; plain or compressed; several files are read as one; - is standard input.

    \b
    Examples:
      firth train elmo my.txt -o my.elmo
      firth encode my.elmo new.txt -o states.npy
    """,
)


_MODEL_FOLDER = click.argument("path", metavar="MODEL", type=PATH)
_DEVICE = click.option("--device", default="cpu", help="Where to compute, as torch names it: cpu, cuda.")


def _load_contextual(path: Path, device: str, able: str | None = None) -> Any:
    """A model's folder, of a classifier the transformer; `able` names what the model must be able to do."""
    _check_device(device)
    model = _contextual().load(str(path), device=device)  # as a string, which may name a repository
    model = getattr(model, "encoder", model)
    if able is not None and not hasattr(model, able):
        kinds = {"generate": "a GPT", "fill_mask": "a BERT", "attention_maps": "a GPT or a BERT"}
        kind = type(model).__name__
        raise click.ClickException(f"{path} holds {'an' if kind == 'ELMo' else 'a'} {kind}: this takes {kinds[able]}")
    return model


def _check_device(device: str) -> None:
    """For all models alike, and before their files are read."""
    from firth.contextual.processes import device_of

    try:
        device_of(device)
    except ValueError as error:
        raise click.UsageError(f"--{error}") from None


@click.command()
@taking(
    [
        _MODEL_FOLDER,
        click.argument("prompt", metavar="[PROMPT]", default="-"),
        click.option("-n", "--max-new", type=click.IntRange(0), metavar="N", default=100, help="Tokens, at most."),
        click.option(
            "--temperature",
            type=float,
            default=1.0,
            help="Below 1 for more probable texts; 0: always the most probable token.",
        ),
        click.option(
            "--top-k", type=int, metavar="N", show_default="all", help="Sample among so many tokens, the most probable."
        ),
        click.option(
            "--top-p",
            type=float,
            metavar="SHARE",
            show_default="all",
            help="Sample among the most probable tokens that have this probability together.",
        ),
        click.option("--stop", multiple=True, metavar="TEXT", help="Stop before this text. May be repeated."),
        click.option("--seed", type=int, show_default="another each time", help="The same seed gives the same text."),
        _DEVICE,
    ]
)
def generate(path: Path, prompt: str, device: str, stop: tuple[str, ...], **options: Any) -> None:
    """MODEL is a folder that firth train gpt wrote, or a published model of GPT-2's family: its folder, or its name,
    such as gpt2. Without a PROMPT, or for -, it is read from standard input. What is printed begins with the prompt.

    \b
    Example:
      firth generate my.gpt "The bank" --temperature 0.8 --top-p 0.95
    """
    model = _load_contextual(path, device, "generate")
    text = "\n".join(read_lines("-")) if prompt == "-" else prompt
    with as_flags(["stop", *options]):
        parts = model.stream(text, stop=stop, **options)
    click.echo(text, nl=False)
    for part in parts:
        click.echo(part, nl=False)
    click.echo()


@click.command("fill-mask")
@taking(
    [
        _MODEL_FOLDER,
        click.argument("texts", metavar="[TEXT]...", nargs=-1),
        click.option("-k", type=click.IntRange(1), metavar="N", default=5, help="Tokens to show for each mask."),
        _DEVICE,
    ]
)
def fill_mask(path: Path, texts: tuple[str, ...], k: int, device: str) -> None:
    """MODEL is a folder that firth train bert wrote, or a published model of BERT's family: its folder, or its name.
    Without a TEXT, texts are read from standard input, one a line.

    \b
    Example:
      firth fill-mask my.bert "she went to the [MASK] ." -k 3
    """
    model = _load_contextual(path, device, "fill_mask")
    for text in texts or [line for line in read_lines("-") if line.strip()]:
        masks = model.fill_mask(text, k)
        click.echo(text)
        for i, answers in enumerate(masks):
            if i:
                click.echo()
            for line in aligned([(f"  {piece}", f"{chance:7.4f}") for piece, chance in answers]):
                click.echo(line)


def _layer(_: click.Context, __: click.Parameter, value: str | None) -> int | str | list[int] | None:
    if value is None or value in ("all", "mixture"):
        return value
    try:
        numbers = [int(one) for one in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither whole numbers nor all nor mixture") from None
    return numbers if "," in value else numbers[0]


@click.command()
@taking(
    [
        _MODEL_FOLDER,
        click.argument("texts", metavar="[FILE]", default="-"),
        click.option("-o", "--output", type=OUTPUT, required=True, help="A NumPy array (.npy) with one row per line."),
        click.option(
            "--pooling",
            type=click.Choice(["mean", "max", "cls", "first", "last"]),
            show_default="that of a folder of sentence-transformers; else mean",
            help="How to pool the hidden states into one vector.",
        ),
        click.option(
            "--layer",
            metavar="N[,N...]|all|mixture",
            callback=_layer,
            show_default="-1; an ELMo's mixture",
            help="0: the embeddings; -1: the last; several: an axis of layers in the array; mixture: an ELMo's layers, "
            "with their trained weights.",
        ),
        click.option("--normalize", is_flag=True, help="Scale vectors to length 1."),
        click.option("--truncate", type=int, metavar="N", show_default="never", help="Cut texts to so many tokens."),
        click.option("--bf16", is_flag=True, help="Multiply matrices in bf16."),
        _DEVICE,
        QUIET,
    ]
)
def encode(
    path: Path,
    texts: str,
    output: Path,
    pooling: str | None,
    layer: int | str | list[int] | None,
    device: str,
    quiet: bool,
    **options: Any,
) -> None:
    """The vectors are a GPT's, a BERT's or an ELMo's. MODEL is a folder that firth train wrote, or that of a classifier
    or a published model, or a published model's name. FILE has a text per line; without it, or for -, texts are read
    from standard input.

    \b
    Example:
      firth encode my.bert new.txt -o new.npy --normalize
    """
    say, bars = voice(quiet)
    if output.suffix != ".npy":
        raise click.UsageError(f"{output} must end in .npy")
    with tried(output, [] if texts == "-" else [texts]) as probe:
        probe.touch()
    model = _load_contextual(path, device)
    lines = list(read_lines(texts))
    elmo = isinstance(model, _contextual().ELMo)
    if layer == "mixture" and not elmo:
        raise click.UsageError(f"--layer mixture is for an ELMo, and this is a {type(model).__name__}")
    if layer is None:
        layer = "mixture" if elmo else -1
    if pooling is None and (elmo or model.sentence_modules is None):
        pooling = "mean"
    try:
        with as_flags(["layer", "pooling", *options]):
            if elmo:
                rows = _encoded_by_elmo(model, lines, pooling or "mean", bars, layer=layer, **options)
            else:
                rows = model.encode(lines, pooling=pooling, layer=layer, progress=bars, **options)
    except click.UsageError as error:
        name = "standard input" if texts == "-" else texts
        said = re.sub(r"\bsentences\[(\d+)\]", lambda at: f"{name}, line {int(at[1]) + 1}", error.message)
        raise click.UsageError(said) from None
    with files.replacing(output) as file:
        np.save(file, rows)
    layers = f" for each of {counted(rows.shape[1], 'layer')}" if rows.ndim == 3 else ""
    say(f"Saved {counted(len(rows), 'vector')} of {counted(rows.shape[-1], 'dimension')}{layers} in {output}")


def _encoded_by_elmo(
    model: Any,
    lines: list[str],
    pooling: str,
    bars: bool,
    *,
    layer: int | str | list[int],
    normalize: bool,
    truncate: int | None,
    bf16: bool,
) -> Any:
    """An ELMo has states of words, and no piece that stands for a whole text."""
    if pooling == "cls" or truncate is not None or bf16:
        raise click.UsageError("--pooling cls, --truncate and --bf16 are for transformers, and this is an ELMo")
    states = model.encode(lines, layer=layer, progress=bars)
    layers = states[0].shape[:-2] if states else ()
    rows = np.zeros((len(states), *layers, 2 * model.projection), np.float32)
    for i, one in enumerate(states):
        if one.shape[-2] == 0:  # no word
            continue
        if pooling in ("mean", "max"):
            rows[i] = one.mean(-2) if pooling == "mean" else one.max(-2)
        else:
            rows[i] = one[..., 0 if pooling == "first" else -1, :]
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-30) if normalize else rows


@click.command("attention-map")
@taking(
    [
        _MODEL_FOLDER,
        click.argument("sentence"),
        click.option(
            "-o", "--output", type=OUTPUT, required=True, help="A figure (.png, .svg, .pdf), or arrays (.npz)."
        ),
        click.option("--layer", type=int, metavar="N", show_default="all", help="Which layer, from 0."),
        click.option("--head", type=int, metavar="N", show_default="all", help="Which head, from 0."),
        click.option(
            "--kind",
            type=click.Choice(["grid", "lines"]),
            default="grid",
            help="A square for each pair of tokens, or lines between them.",
        ),
        _DEVICE,
        QUIET,
    ]
)
def attention_map(
    path: Path, sentence: str, output: Path, layer: int | None, head: int | None, kind: str, device: str, quiet: bool
) -> None:
    """The figure shows the attention weights of each layer and head of a GPT or a BERT. MODEL is a folder that firth
    train wrote, or a published model.

    \b
    Example:
      firth attention-map my.bert "she disputed the charge" -o map.png --layer 2
    """
    say, _ = voice(quiet)
    pictures = (".png", ".svg", ".pdf")
    if output.suffix not in (*pictures, ".npz"):
        raise click.UsageError(f"{output} must end in {', '.join(pictures)} or .npz")
    with tried(output) as probe:
        probe.touch()
    model = _load_contextual(path, device, "attention_maps")
    chosen = {"layers": None if layer is None else [layer], "heads": None if head is None else [head]}
    try:
        maps = model.attention_maps(sentence, **chosen)
    except ValueError as error:
        raise click.ClickException(str(error).replace("layers", "--layer").replace("heads", "--head")) from None
    with files.replacing(output) as file:
        if output.suffix == ".npz":
            arrays = {f"layer{number}": weights for number, weights in maps.weights.items()}
            np.savez(file, tokens=np.array(maps.tokens), heads=np.array(maps.heads), **arrays)
        else:
            maps.figure(kind=cast("Any", kind)).savefig(file, format=output.suffix[1:])
    say(f"Saved {counted(len(maps.weights), 'layer')} of {counted(len(maps.heads), 'head')} in {output}")
