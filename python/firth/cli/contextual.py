"""`firth generate`, `fill-mask`, `encode` and `attention-map`. PyTorch is imported when a command runs."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import click
import numpy as np
from numpy.typing import NDArray

from firth import files
from firth.cli import common
from firth.cli.common import OUTPUT, QUIET, Voice, counted
from firth.cli.options import as_flags, taking
from firth.text import read_lines

_MODEL_FOLDER = click.argument("path", metavar="MODEL", type=common.PATH)
_DEVICE = click.option("--device", default="cpu", help="Where to compute, as torch names it: cpu, cuda.")


def _load(path: Path, device: str, able: str | None = None) -> Any:
    """The model in a folder; of a classifier its transformer. `able` names what the model must be able to do."""
    check_device(device)
    from firth import contextual

    model = contextual.load(str(path), device=device)  # as a string, which may name a repository
    model = getattr(model, "encoder", model)
    if able is not None and not hasattr(model, able):
        kinds = {"generate": "a GPT", "fill_mask": "a BERT", "attention_maps": "a GPT or a BERT"}
        kind = type(model).__name__
        raise click.ClickException(f"{path} holds {'an' if kind == 'ELMo' else 'a'} {kind}: this takes {kinds[able]}")
    return model


def check_device(device: str) -> None:
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
    model = _load(path, device, "generate")
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
        click.option(
            "-n", "--topn", type=click.IntRange(1), metavar="N", default=5, help="Tokens to show for each mask."
        ),
        _DEVICE,
    ]
)
def fill_mask(path: Path, texts: tuple[str, ...], topn: int, device: str) -> None:
    """MODEL is a folder that firth train bert wrote, or a published model of BERT's family: its folder, or its name.
    Without a TEXT, texts are read from standard input, one a line.

    \b
    Example:
      firth fill-mask my.bert "she went to the [MASK] ." -n 3
    """
    model = _load(path, device, "fill_mask")
    for text in texts or [line for line in read_lines("-") if line.strip()]:
        masks = model.fill_mask(text, topn)
        click.echo(text)
        for i, answers in enumerate(masks):
            if i:
                click.echo()
            common.show([(f"  {token}", f"{chance:7.4f}") for token, chance in answers])


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
    voice: Voice,
    **options: Any,
) -> None:
    """The vectors are a GPT's, a BERT's or an ELMo's. MODEL is a folder that firth train wrote, or that of a classifier
    or a published model, or a published model's name. FILE has a text per line; without it, or for -, texts are read
    from standard input.

    \b
    Example:
      firth encode my.bert new.txt -o new.npy --normalize
    """
    if output.suffix != ".npy":
        raise click.UsageError(f"{output} must end in .npy")
    common.check_writable(output, inputs=[] if texts == "-" else [texts])
    model = _load(path, device)
    lines = list(read_lines(texts))
    elmo = type(model).__name__ == "ELMo"
    if layer == "mixture" and not elmo:
        raise click.UsageError(f"--layer mixture is for an ELMo, and this is a {type(model).__name__}")
    if layer is None:
        layer = "mixture" if elmo else -1
    if pooling is None and (elmo or model.sentence_modules is None):
        pooling = "mean"
    try:
        with as_flags(["layer", "pooling", *options]):
            if elmo:
                rows = _encoded_by_elmo(model, lines, pooling or "mean", voice.bars, layer=layer, **options)
            else:
                rows = model.encode(lines, pooling=pooling, layer=layer, progress=voice.bars, **options)
    except click.UsageError as error:
        name = "standard input" if texts == "-" else texts
        said = re.sub(r"\bsentences\[(\d+)\]", lambda at: f"{name}, line {int(at[1]) + 1}", error.message)
        raise click.UsageError(said) from None
    with files.replacing(output) as file:
        np.save(file, rows)
    layers = f" for each of {counted(rows.shape[1], 'layer')}" if rows.ndim == 3 else ""
    voice.say(f"Saved {counted(len(rows), 'vector')} of {counted(rows.shape[-1], 'dimension')}{layers} in {output}")


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
) -> NDArray[np.float32]:
    """An ELMo has hidden states of words, and no token that stands for a whole text."""
    import torch

    from firth.contextual.encoding import pooled, unit_rows

    if pooling == "cls" or truncate is not None or bf16:
        raise click.UsageError("--pooling cls, --truncate and --bf16 are for transformers, and this is an ELMo")
    states = [np.moveaxis(one, -2, 0) for one in model.encode(lines, layer=layer, progress=bars)]
    if not states:
        return np.zeros((0, 2 * model.projection), np.float32)
    texts = np.repeat(np.arange(len(states)), list(map(len, states)))
    found = torch.from_numpy(np.concatenate(states)), torch.from_numpy(texts)
    rows = pooled(*found, len(states), cast("Any", pooling)).numpy()
    return unit_rows(rows) if normalize else rows


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
    path: Path, sentence: str, output: Path, layer: int | None, head: int | None, kind: str, device: str, voice: Voice
) -> None:
    """The figure shows the attention weights of each layer and head of a GPT or a BERT. MODEL is a folder that firth
    train wrote, or a published model.

    \b
    Example:
      firth attention-map my.bert "she disputed the charge" -o map.png --layer 2
    """
    pictures = (".png", ".svg", ".pdf")
    if output.suffix not in (*pictures, ".npz"):
        raise click.UsageError(f"{output} must end in {', '.join(pictures)} or .npz")
    common.check_writable(output)
    model = _load(path, device, "attention_maps")
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
    voice.say(f"Saved {counted(len(maps.weights), 'layer')} of {counted(len(maps.heads), 'head')} in {output}")
