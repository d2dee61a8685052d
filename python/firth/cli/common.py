"""What commands share: parameters, files to read and to write, lines on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import stat
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import numpy as np

import firth.corpus
import firth.evaluate
from firth import files, formats
from firth.cli import Interrupted, describe
from firth.cli.options import flag, model_option, model_options
from firth.corpus import Corpus, CorpusOptions
from firth.counts import Cooccurrences
from firth.options import declared_options
from firth.run import CHECKPOINT
from firth.vectors import Vectors

T = TypeVar("T")


class FileOrStream(click.Path):
    """A path, or "-", which stays a string: standard input, or standard output where text is written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: D102
        return value if value == "-" else super().convert(value, param, ctx)


class Output(click.Path):
    """A path to write to that cannot be standard output."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: D102
        if value == "-":
            self.fail("- means standard output, which takes only text; give a name (./- is a file named -)", param, ctx)
        return super().convert(value, param, ctx)


PATH = click.Path(path_type=Path)
STREAM = FileOrStream(path_type=Path)
OUTPUT = Output(path_type=Path)


# `tokenizer` takes more than a name.
TOKENIZER = model_option(
    dataclasses.replace(
        next(one for one in declared_options(CorpusOptions) if one.name == "tokenizer"), choices=("whitespace", "words")
    )
)
READING = [*model_options(CorpusOptions, only=["min_count", "max_size"]), TOKENIZER]  # how text is read
READ = ("min_count", "max_size", "tokenizer")
COUNTED = ("window", "side", "weighting")
VECTORS = click.option("--pretrained-vectors", type=STREAM, metavar="VECTORS", help="Initial word vectors.")
INPUTS = click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
FASTTEXT = click.option(
    "--fasttext",
    is_flag=True,
    help="Write the model in fastText's format (.bin, .ftz), which stores every bucket of n-grams.",
)


def _resumed(context: click.Context, _: click.Parameter, value: bool) -> bool:
    if value and context.params["checkpoint"] is None:
        raise click.UsageError("--resume needs --checkpoint, the folder to continue from")
    return value


CHECKPOINTS = [
    click.option("--checkpoint", type=OUTPUT, metavar="FOLDER", is_eager=True, help="Save the training state here."),
    click.option("--resume", is_flag=True, callback=_resumed, help="Continue from the checkpoint, if there is one."),
]


@dataclasses.dataclass(frozen=True)
class Voice:
    """What a command shows on stderr."""

    quiet: bool

    @property
    def bars(self) -> bool:
        """Whether to show progress bars: on a terminal."""
        return not self.quiet and typed(sys.stderr)

    def say(self, text: str) -> None:
        """Show a line."""
        if not self.quiet:
            click.echo(text, err=True)


def _voice(_: click.Context, __: click.Parameter, quiet: bool) -> Voice:
    return Voice(quiet)


QUIET = click.option("-q", "--quiet", "voice", is_flag=True, callback=_voice, help="Show only warnings and errors.")


def typed(stream: Any) -> bool:
    """Whether a standard stream is a terminal; None stands for one that is closed."""
    return stream is not None and stream.isatty()


def check_distinct(places: Mapping[str, files.PathLike | None]) -> None:
    """Refuse two outputs, by their flags, that are one file."""
    given = [(name, path) for name, path in places.items() if path is not None and path != "-"]
    for (one, path), (other, same) in itertools.combinations(given, 2):
        if Path(path).resolve() == Path(same).resolve():
            raise click.UsageError(f"{one} and {other} name the same file")


def read(saved: Corpus | None, inputs: tuple[str, ...], reading: dict[str, Any], voice: Voice) -> Corpus:
    """The corpus of the inputs, and a line about its size."""
    corpus = Corpus.from_file(list(inputs), **reading, progress=voice.bars) if saved is None else saved
    read = corpus.report
    voice.say(
        f"{counted(read.tokens_read, 'word')} of text, {read.distinct_words_read:,} different; "
        f"{read.tokens_kept:,} kept, {len(corpus.vocabulary):,} different"
    )
    return corpus


def epoch_line(model: Any, unit: str) -> str:
    """The line about the last epoch."""
    epoch = model.history[-1]
    score = "" if epoch.score is None else f", accuracy on the validation split {epoch.score:.1%}"
    rate = f"{epoch.units_per_second:,.0f} {unit}/s"
    return f"epoch {len(model.history)} of {model.epochs}: loss {epoch.loss:.4f}, {rate}{score}"


def fit(
    model: Any,
    data: Any,
    voice: Voice,
    checkpoint: Path | None,
    resume: bool,
    *,
    unit: str,
    lost: str,
    line: Callable[[Any, str], str] = epoch_line,
    **more: Any,
) -> None:
    """Train a model; say a line about each record of its history, and at Ctrl-C how to continue."""

    def report(model: Any) -> None:
        if not voice.bars:
            voice.say(line(model, unit))

    try:
        model.fit(data, progress=voice.bars, callbacks=[report], checkpoint=checkpoint, resume=resume, **more)
    except KeyboardInterrupt:
        # A contextual model, whose epochs need not be whole, counts steps.
        where = f" in epoch {len(model.history) + 1} of {model.epochs}" if isinstance(model.epochs, int) else ""
        said = f"Interrupted{where}. No {lost} written."
        if checkpoint is None:
            said += " With --checkpoint FOLDER a run can be resumed."
        elif (checkpoint / CHECKPOINT).exists():
            said += f" {checkpoint / CHECKPOINT} holds the state: the same command with --resume continues from it."
        raise Interrupted(said) from None


def check_state(checkpoint: Path | None, resume: bool) -> None:
    """Find out before the work whether a training's state can be kept here, and whether another one's is."""
    if checkpoint is None:
        return
    state = checkpoint / CHECKPOINT
    if state.exists() and not resume:
        raise click.ClickException(
            f"{state} is left from an earlier run: add --resume to continue from it, or remove it"
        )
    checkpoint.mkdir(parents=True, exist_ok=True)
    check_writable(state)


def saved_line(vectors: Vectors, path: files.PathLike) -> str:
    """The line that says what was written."""
    where = f"in {path}" if path != "-" else "on standard output"
    return f"Saved {counted(len(vectors), 'vector')} of {counted(vectors.vector_size, 'dimension')} {where}"


def saved_input(inputs: tuple[str, ...], taken: tuple[type[T], ...], read: Sequence[str] = READ) -> T | None:
    """The corpus or counts that were saved as the input; None for text.

    ClickException for vectors, UsageError if an option of `read`, which says how to read text, is given.
    """
    found = [(path, kind) for path in inputs if (kind := _saved_kind(path))]
    if not found:
        return None
    path, kind = found[0]
    context = click.get_current_context()
    if kind is Cooccurrences and kind not in taken:
        raise click.ClickException(f"{path} holds counts, not text: {context.command_path} takes the text itself")
    if len(inputs) > 1:
        what = "is a saved corpus, which stands" if kind is Corpus else "holds saved counts, which stand"
        raise click.UsageError(f"{path} {what} alone")
    for name in read if kind is Corpus else (*read, *COUNTED):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            made = f"the corpus {path} was made" if kind is Corpus else f"the counts in {path} were made"
            raise click.UsageError(f"{flag(name)} was settled when {made}")
    return cast("T", firth.load(path))


def _saved_kind(path: str) -> type[Corpus] | type[Cooccurrences] | None:
    if path == "-" or not Path(path).is_file():  # a pipe would lose what is looked at
        return None
    format = formats.recognized(path)
    if format is None:
        return None
    ours = format.name == "safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _, matrix = formats.read(path, format=format.name, limit=20, mmap=ours)
        except (MemoryError, ValueError):
            if not ours:
                return None
            counts = files.read_tensors(path, mmap=True)[1].get("format") == "firth counts"
            return Cooccurrences if counts else Corpus
        # Text may look like vectors: tables have few columns, walks over numbered nodes whole numbers, and letters
        # taken for the bytes of numbers give huge ones.
        if ours or (matrix.shape[1] >= 10 and (matrix % 1).any() and np.abs(matrix).max() < 1e6):
            raise click.ClickException(
                f"{path} holds vectors ({format.name}), not text: give the text that they were trained on, or "
                "query them with firth neighbors"
            )
    return None


def _bytes(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """A number of bytes, which K, M, G or T may follow."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", value, re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{value!r} is not a number of bytes, such as 500M or 4G")
    return int(float(found[1]) * 1024.0 ** " KMGT".index(found[2].upper() or " "))


MEMORY = click.option(
    "--memory",
    metavar="SIZE",
    callback=_bytes,
    show_default="no limit",
    help="Memory for counting, such as 500M or 4G. Counts beyond it go to temporary files.",
)


def show(rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print rows: the first columns flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        click.echo("  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(cells)).rstrip())


def check_model_file(path: Path, inputs: Sequence[files.PathLike], fasttext: bool) -> None:
    """Find out before the work whether a model can be written here at its end, and in this format."""
    if not fasttext and path.suffix.lower() in (".bin", ".ftz"):
        raise click.UsageError(
            f"{path} is a name of fastText's models: add --fasttext where the command has it, or write to a .model"
        )
    check_writable(path, inputs=inputs)


def write_model(model: Any, path: Path, fasttext: bool) -> None:
    """Save a model in firth's format or in fastText's."""
    if fasttext:
        model.to_fasttext(path)
    else:
        model.save(path)


def check_writable(*places: files.PathLike | None, inputs: Sequence[files.PathLike] = ()) -> None:
    """Find out before the work whether files can be written here at its end."""
    for place in places:
        if place is not None:
            with tried(place, inputs) as probe:
                probe.touch()


def check_output(path: files.PathLike, format: str | None = None, inputs: Sequence[files.PathLike] = ()) -> None:
    """Find out before the work whether vectors can be written here at its end: format, folder and all."""
    try:
        chosen = formats.by_suffix(path) if format is None else formats.named(format)
        formats.check_stream(path, chosen)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with tried(path, inputs) as probe:
        Vectors(["word"], np.ones((1, 1), np.float32)).save(probe, format=chosen.name)


@contextlib.contextmanager
def tried(path: files.PathLike, inputs: Sequence[files.PathLike] = ()) -> Iterator[Path]:
    """A path of the same name in a folder beside it, to write to and forget; errors speak of the path itself.

    Nothing can be tried beside a pipe, a terminal or standard output, which is written to as it is: then the folder
    lies elsewhere.
    """
    stream = path == "-"
    if stream and sys.stdout is None:
        raise click.ClickException("standard output is closed")
    place = Path("standard output" if stream else path)
    if not stream:
        if any(_is_file(one, place) for one in inputs):
            raise click.UsageError(f"{place} is an input of this command; write to another file")
        if place.is_dir():
            raise click.ClickException(f"{place} is a folder; give a file name")
        if not place.parent.is_dir():
            raise click.ClickException(f"cannot write {place}: there is no folder {place.parent}")
    try:
        beside = place.parent if not stream and (place.is_file() or not place.exists()) else None
        folder = tempfile.TemporaryDirectory(prefix=".firth-", dir=beside)
    except OSError as error:
        raise click.ClickException(f"cannot write {place}: {error.strerror}") from None
    with folder:
        probe = Path(folder.name, place.name)
        try:
            yield probe
        except (OSError, ValueError) as error:
            raise click.ClickException(describe(error).replace(str(probe), str(place))) from None


def _is_file(source: files.PathLike, place: Path) -> bool:
    """Whether an input, be it standard input, is the file at this place."""
    try:
        found = os.fstat(files.standard_input().fileno()) if source == "-" else os.stat(source)
        # A terminal, or /dev/null, may well be both.
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.stat(place))
    except (OSError, ValueError):  # one of the two does not exist
        return False


def counted(n: int, one: str, several: str = "") -> str:
    """A number and its noun, whose plural has an s unless another is given."""
    return f"{n:,} {one if n == 1 else several or one + 's'}"
