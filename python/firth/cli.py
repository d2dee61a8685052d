"""The command line: firth demo | train | count | predict | phrases | neighbors | generate | encode | ..."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import itertools
import lzma
import math
import os
import re
import select
import shutil
import stat
import sys
import tempfile
import time
import typing
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar, cast

import click
import numpy as np

import firth.corpus
import firth.evaluate
from firth import fasttext_format, files, formats
from firth.corpus import Corpus, CorpusOptions
from firth.counts import Cooccurrences, Side, Weighting, check_glove_words, check_options, count_cooccurrences
from firth.demo import OUTPUT, counted
from firth.loading import load_vectors
from firth.models import LSA, PPMI, FastText, FastTextClassifier, GloVe, Word2Vec
from firth.models.base import CHECKPOINT, GradientModel, Model, choices, not_none
from firth.phrases import Phrases, Scoring
from firth.text import checked_sources, read_lines, read_texts
from firth.vectors import Method, Vectors

T = TypeVar("T")

# What files, data and a machine too small raise; anything else is a mistake in firth and shows as one.
_ERRORS = (
    ArithmeticError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    ValueError,
    lzma.LZMAError,
    zlib.error,
)

_FORMAT = click.Choice([one.name for one in formats.FORMATS])
_METHOD = click.Choice(typing.get_args(Method))


class _FileOrStream(click.Path):
    """A path, or "-", which stays a string: standard input, or standard output where text is written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "-" else super().convert(value, param, ctx)


class _Output(click.Path):
    """A path to write to that cannot be standard output."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "-":
            self.fail(
                "- means standard output, which takes text alone; give a name (./- is a file named -)", param, ctx
            )
        return super().convert(value, param, ctx)


_PATH = click.Path(path_type=Path)
_STREAM = _FileOrStream(path_type=Path)
_OUTPUT = _Output(path_type=Path)
_BATCH = 256  # lines of a pipe that are looked up at once
_TEXTS = 10_000  # that are classified at once


class _Interrupted(click.ClickException):
    """Ctrl-C, with what was kept."""

    exit_code = 130


class _Commands(click.Group):
    """Commands whose errors are one line on stderr: exit code 1 for data and files, 2 for usage, 130 for Ctrl-C."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        _fill_closed()
        kwargs["prog_name"] = "firth"
        kwargs["standalone_mode"] = False
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: click.echo(f"Warning: {message}", err=True)
            try:
                sys.exit(super().main(*args, **kwargs) or 0)
            except click.Abort:
                _fail("Interrupted.", 130)
            except _Interrupted as error:
                _fail(error.format_message(), error.exit_code)
            except click.UsageError as error:
                name = error.ctx.command_path if error.ctx else "firth"
                message = error.format_message().rstrip(".")
                end = "" if message.endswith(("?", "?)")) else "."
                _fail(f"Error: {message}{end} Try: {name} --help", error.exit_code)
            except click.ClickException as error:
                _fail(f"Error: {error.format_message()}", error.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            # click's parser of options does not say which command they are of.
            name = ctx.invoked_subcommand
            if error.ctx is None and name is not None and name in self.commands:
                error.ctx = click.Context(self.commands[name], parent=ctx, info_name=name)
            raise
        except BrokenPipeError:  # whoever read our output has seen enough: click leaves without a word
            raise
        except _ERRORS as error:
            raise click.ClickException(_describe(error)) from error


def _fill_closed() -> None:
    """Let the null device stand for closed standard streams.

    Else the next file that is opened has their number, and what a library says on stderr is written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # noqa: PERF203
            found = os.open(os.devnull, os.O_RDWR)
            if found != number:
                os.dup2(found, number)
                os.close(found)


def _fail(message: str, code: int) -> NoReturn:
    click.echo(" ".join(message.split()), err=True)
    sys.exit(code)


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    # str() of a KeyError puts its message in quotation marks.
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error) or type(error).__name__


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    machine = firth.cpu_info()
    click.echo(f"firth {firth.__version__}, kernels for {machine['isa']}, {counted(machine['threads'], 'thread')}")
    ctx.exit()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version, the instruction set in use and the number of threads.",
)
@click.pass_context
def main(ctx: click.Context) -> None:
    """Learn what words mean from the company they keep.

    \b
    Start here:
      firth demo                                    see it work, on text that Python carries
      firth train skipgram my.txt -o vectors.txt    learn vectors from a text of yours
      firth neighbors vectors.txt coffee            ask them which words are alike
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


# ---------------------------------------------------------------------------------------------------- demo


@main.command()
@click.argument("file", required=False, type=_STREAM)
@click.option("-o", "--output", type=_OUTPUT, default=OUTPUT, help="Where vectors go.")
@click.option(
    "--epochs",
    type=click.IntRange(1),
    metavar="N",
    show_default="as many as take a few seconds, at most 30",
    help="Passes over the text.",
)
def demo(file: files.PathLike | None, output: Path, epochs: int | None) -> None:
    """Show in under a minute what firth does.

    Reads the documentation that comes with Python (nothing is downloaded), or FILE, a text in any language that
    puts spaces between words; learns a vector for each word; and asks the vectors questions.

    \b
    Examples:
      firth demo
      firth demo my.txt
    """
    from firth import demo

    _check_output(output, inputs=[] if file is None else [file])
    if output.exists() and output != OUTPUT:
        raise click.ClickException(
            f"{output} is there already, and the demo replaces {OUTPUT} alone; give another name"
        )
    demo.run(file, output, epochs)


# ---------------------------------------------------------------------------------------------------- train

# What each option of a model means. The names are the fields of the models' dataclasses, which also give the defaults.
_HELP = {
    "architecture": "Predict the words around a word, or the word from those around it.",
    "loss": "Tell words from random ones (negative sampling), or find them along a tree (hierarchical softmax).",
    "cbow_mean": "Predict from the mean of the words around, or from their sum.",
    "min_n": "Characters in the shortest pieces of words.",
    "max_n": "Characters in the longest; 0 takes words alone.",
    "bucket": "Numbers that pieces of words are hashed to.",
    "vector_size": "Numbers in a vector.",
    "window": "The most words on either side of a word that count as its company.",
    "side": "Which words count: those on both sides, or those before (left) or behind (right) alone.",
    "weighting": "What a word at distance d counts: 1; or 1/d; or (window - d + 1) / window.",
    "shift": "Take its logarithm from each value: the number of negatives that word2vec would draw.",
    "context_smoothing": "Take the counts of context words to this power.",
    "positive": "Keep values above zero alone, or all.",
    "eigenvalue_weighting": "Scale dimensions by their singular values to this power.",
    "x_max": "The count from which on pairs of words weigh the same.",
    "alpha": "Pairs that are seen less weigh as their count to this power.",
    "negative": "Random words that each word is told apart from.",
    "sample": "Skip part of the words that make up more than this share of the text; 0 keeps all.",
    "ns_exponent": "Draw random words in proportion to count to this power.",
    "learning_rate": "Step size at the first word.",
    "min_learning_rate": "Step size at the last word.",
    "clip_value": "Let no number's gradient exceed this.",
    "output": "What is written for a word: the sum of its vector and its context vector, or its vector alone.",
    "deterministic": "Give the same vectors however many threads there are.",
    "epochs": "Passes over the text.",
    "seed": "Where random numbers start. The same seed on one instruction set gives the same vectors.",
    "threads": "Threads to run on.",
}
# Where a model means something else by an option's name.
_HELP_OF = {
    ("GloVe", "learning_rate"): "Step size at the start; it falls for each number as its gradients add up (AdaGrad).",
    ("GloVe", "epochs"): "Passes over the counts.",
    **{
        (kind, "seed"): "Where random numbers start. The same seed on one thread and one instruction set gives the "
        "same vectors."
        for kind in ("Word2Vec", "FastText")
    },
    ("LSA", "weighting"): "How a word's count in a document weighs.",
}
# Where a flag is not the option's name: one that is yes or no has a word for each.
_FLAGS = {"output": "--vectors", "positive": "--positive/--signed", "cbow_mean": "--cbow-mean/--cbow-sum"}


@main.group(cls=_Commands, invoke_without_command=True)
@click.pass_context
def train(ctx: click.Context) -> None:
    """Learn vectors from text: one command for each model."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


_Parameters = list[Callable[[Callable[..., None]], Callable[..., None]]]


def _taking(parameters: _Parameters) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command these parameters, in this order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for parameter in reversed(parameters):
            command = parameter(command)
        return command

    return add


_READ = ("min_count", "max_size", "tokenizer")


def _reading_options() -> _Parameters:
    """How text is read."""
    reading = inspect.signature(Corpus.from_file).parameters
    return [
        click.option(
            "--min-count", type=int, default=reading["min_count"].default, help="Leave out words that are rarer."
        ),
        click.option("--max-size", type=int, show_default="all", help="Keep at most so many words, the most frequent."),
        click.option(
            "--tokenizer",
            type=click.Choice(["whitespace", "words"]),
            default=reading["tokenizer"].default,
            help="Split at white space alone; or lower-case, and split at whatever is no letter or digit.",
        ),
    ]


_INPUTS = click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
_QUIET = click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")


def _training_options(
    kind: type[Model], without: tuple[str, ...] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The arguments of a command that trains a model: text, outputs, and the model's own options but some."""
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if unexplained := sorted(fields.keys() - _HELP.keys()):
        raise LookupError(f"say in _HELP what these options of {kind.__name__} mean: {', '.join(unexplained)}")
    declared = typing.get_type_hints(kind)
    kept = "Also keep the whole model, for firth.load"
    if kind is FastText:
        kept += "; a .bin is in fastText's format, which has every bucket: 4 * --bucket * --vector-size bytes"
    parameters = [
        _INPUTS,
        click.option(
            "-o",
            "--output",
            "path",
            type=_STREAM,
            required=True,
            help="Vectors; the suffix says the format. - is standard output, as word2vec's text.",
        ),
        click.option("--save-model", type=_OUTPUT, metavar="FILE", help=f"{kept}."),
        *_reading_options(),
        *(
            _option(kind, name, declared[name], fields[name].default)
            for name in _HELP
            if name in fields.keys() - without
        ),
    ]
    if issubclass(kind, GradientModel):
        parameters += [
            click.option("--checkpoint", type=_OUTPUT, metavar="FOLDER", help="Keep the state of the training here."),
            click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one."),
        ]
    return _taking([*parameters, _QUIET])


def _option(kind: type[Model] | None, name: str, declared: Any, default: object) -> Any:
    """An option of a model, or of what takes the same ones, of the type that its field declares."""
    value_type = not_none(declared)
    return click.option(
        _FLAGS.get(name, _flag(name)),
        name,
        type=click.Choice(choices(value_type)) if choices(value_type) else value_type,
        default=default,
        show_default="all processors" if name == "threads" else True,
        help=_HELP_OF.get((kind.__name__ if kind else "", name), _HELP[name]),
    )


def _flag(name: str) -> str:
    return _FLAGS.get(name, "--" + name.replace("_", "-")).split("/")[0]


@contextlib.contextmanager
def _as_flags(names: Iterable[str]) -> Iterator[None]:
    """Turn a ValueError about parameters into one about the options of the command line."""
    try:
        yield
    except ValueError as error:
        said = re.sub(rf"\b({'|'.join(names)})\b", lambda found: _flag(found[0]), str(error))
        raise click.UsageError(said) from None


@train.command()
@_training_options(Word2Vec, without=("architecture", "cbow_mean"))
def skipgram(**arguments: Any) -> None:
    """Tell the words around a word from random ones (word2vec).

    The model is word2vec's skip-gram. INPUT is text, one sentence or paragraph a line; plain or compressed;
    several files are read as one; - is standard input. A corpus that Corpus.save wrote will do as well.

    \b
    Examples:
      firth train skipgram my.txt -o vectors.txt --tokenizer words
      xzcat wiki.xz | firth train skipgram - -o wiki.bin --vector-size 300 --checkpoint wiki.state
    """
    _train(Word2Vec, **arguments)


@train.command()
@_training_options(Word2Vec, without=("architecture",))
def cbow(**arguments: Any) -> None:
    """Tell a word from random ones by the words around it (word2vec).

    The model is word2vec's continuous bag of words. INPUT is text, one sentence or paragraph a line; plain or
    compressed; several files are read as one; - is standard input. A corpus that Corpus.save wrote will do as well.

    \b
    Example:
      firth train cbow my.txt -o vectors.txt --tokenizer words --learning-rate 0.05
    """
    _train(Word2Vec, architecture="cbow", **arguments)


@train.command()
@_training_options(FastText)
def fasttext(**arguments: Any) -> None:
    """Learn words and their pieces, for unseen words too (fastText).

    The model is fastText's. INPUT is text, one sentence or paragraph a line; plain or compressed; several
    files are read as one; - is standard input. A corpus that Corpus.save wrote will do as well. The pieces are kept by
    --save-model alone: -o writes the words' vectors, and its .bin is word2vec's format.

    \b
    Examples:
      firth train fasttext my.txt -o vectors.txt --tokenizer words --save-model my.model
      firth neighbors my.model reshipped
      firth train fasttext my.txt -o vectors.txt --save-model for-fasttext.bin
    """
    _train(FastText, **arguments)


@train.command()
@_training_options(GloVe)
def glove(**arguments: Any) -> None:
    """Fit the logarithms of co-occurrence counts (GloVe).

    The model is GloVe's. INPUT is text, one sentence or paragraph a line; plain or compressed; several files
    are read as one; - is standard input. A corpus that Corpus.save wrote will do as well, and so will counts that firth
    count wrote, which bring their own window, side and weighting.

    \b
    Examples:
      firth train glove my.txt -o vectors.txt --tokenizer words --x-max 10
      firth train glove my.counts -o vectors.txt --x-max 10
    """
    _train(GloVe, **arguments)


@train.command()
@_training_options(PPMI)
def ppmi(**arguments: Any) -> None:
    """Compare counts with what chance would give (PPMI).

    The matrix is that of positive pointwise mutual information; its greatest singular values and their vectors make it
    dense. INPUT is text, one sentence or paragraph a line; plain or compressed; several files are read as
    one; - is standard input. A corpus that Corpus.save wrote will do as well, and so will counts that firth count
    wrote, which bring their own window, side and weighting.

    \b
    Examples:
      firth train ppmi my.txt -o vectors.txt --tokenizer words
      firth train ppmi my.counts -o vectors.txt --vector-size 300
    """
    _train(PPMI, **arguments)


@train.command()
@_training_options(LSA)
def lsa(**arguments: Any) -> None:
    """Find words that stand in the same documents (LSA).

    The model is latent semantic analysis. INPUT is text, and each of its lines a document; plain or compressed; several
    files are read as one; - is standard input. A corpus that Corpus.save wrote will do as well.

    \b
    Example:
      firth train lsa articles.txt -o vectors.txt --tokenizer words --vector-size 200
    """
    _train(LSA, **arguments)


def _train(
    kind: type[Model],
    *,
    inputs: tuple[str, ...],
    path: files.PathLike,
    save_model: Path | None,
    quiet: bool,
    min_count: int,
    max_size: int | None,
    tokenizer: str,
    checkpoint: Path | None = None,
    resume: bool = False,
    **options: Any,
) -> None:
    # Everything that can go wrong at the end is looked at now: training takes hours.
    reading = {"min_count": min_count, "max_size": max_size, "tokenizer": tokenizer, "threads": options["threads"]}
    with _as_flags([*options, *reading]):
        model = kind(**options)
        CorpusOptions(**reading)
    if resume and checkpoint is None:
        raise click.UsageError("--resume needs --checkpoint, the folder to go on from")
    _check_output(path, inputs=inputs)
    if save_model is not None and _same(save_model, path):
        raise click.UsageError("--output and --save-model name the same file; the model holds the vectors too")
    if checkpoint is not None and _same(checkpoint / CHECKPOINT, path):
        raise click.UsageError(f"{path} is the file of the checkpoint; write to another one")
    if save_model is not None:
        with _tried(save_model, inputs) as probe:
            probe.touch()
    checked_sources(list(inputs))
    saved: Corpus | Cooccurrences | None = _saved_input(inputs, kind.learns_from)
    _check_state(checkpoint, resume)
    say, bars = _voice(quiet)
    data: Corpus | Cooccurrences
    if isinstance(saved, Cooccurrences):
        data = saved
        # The model tells how its counts were made.
        known = {name: getattr(saved, name) for name in _COUNTED if name in options}
        with _as_flags(options):
            model = dataclasses.replace(model, **{name: value for name, value in known.items() if value is not None})
        say(f"{counted(saved.csr.nnz, 'pair')} of {counted(len(saved.vocabulary), 'word')}")
    else:
        data = _read(saved, inputs, reading, say, bars)
    if not isinstance(model, GradientModel):
        model.fit(data, progress=bars)
    else:
        _fit_in_epochs(model, data, say, bars, checkpoint, resume)
    model.vectors.save(path)
    if save_model is not None and isinstance(model, FastText) and save_model.suffix.lower() == ".bin":
        model.to_fasttext(save_model)
    elif save_model is not None:
        model.save(save_model)
    say(_saved(model.vectors, path))


def _voice(quiet: bool) -> tuple[Callable[[str], None], bool]:
    """What says a line on stderr, and whether bars shall be there."""
    say: Callable[[str], None] = (lambda _: None) if quiet else (lambda text: click.echo(text, err=True))
    return say, not quiet and _typed(sys.stderr)


def _typed(stream: Any) -> bool:
    """Whether a standard stream is a terminal; None stands for one that is closed."""
    return stream is not None and stream.isatty()


def _same(a: files.PathLike, b: files.PathLike) -> bool:
    """Whether two outputs are one file."""
    return "-" not in (a, b) and Path(a).resolve() == Path(b).resolve()


def _read(
    saved: Corpus | None, inputs: tuple[str, ...], reading: dict[str, Any], say: Callable[[str], None], bars: bool
) -> Corpus:
    corpus = Corpus.from_file(list(inputs), **reading, progress=bars) if saved is None else saved
    read = corpus.report
    say(
        f"{counted(read.tokens_read, 'word')} of text, {read.distinct_words_read:,} different; "
        f"{read.tokens_kept:,} kept, {len(corpus.vocabulary):,} different"
    )
    return corpus


def _fit_in_epochs(
    model: GradientModel,
    data: Corpus | Cooccurrences,
    say: Callable[[str], None],
    bars: bool,
    checkpoint: Path | None,
    resume: bool,
) -> None:
    def report(model: GradientModel) -> None:
        epoch = model.history[-1]
        if not bars:
            rate = f"{epoch.units_per_second:,.0f} {model.unit}/s"
            say(f"epoch {epoch.epoch} of {model.epochs}: loss {epoch.loss:.4f}, {rate}")

    try:
        model.fit(data, progress=bars, callbacks=[report], checkpoint=checkpoint, resume=resume)
    except KeyboardInterrupt:
        where = f"Interrupted in epoch {len(model.history) + 1} of {model.epochs}."
        raise _interrupted(f"{where} No vectors were written.", checkpoint) from None


def _interrupted(said: str, checkpoint: Path | None) -> _Interrupted:
    """Ctrl-C in a training, and how to go on."""
    if checkpoint is None:
        said += " With --checkpoint FOLDER a run can be resumed."
    elif (checkpoint / CHECKPOINT).exists():
        said += f" {checkpoint / CHECKPOINT} holds the state: the same command with --resume goes on from there."
    return _Interrupted(said)


def _check_state(checkpoint: Path | None, resume: bool) -> None:
    """Find out before the work whether a training's state can be kept here, and whether another one's is."""
    if checkpoint is None:
        return
    state = checkpoint / CHECKPOINT
    if state.exists() and not resume:
        raise click.ClickException(f"{state} is left from an earlier run: add --resume to go on from it, or remove it")
    checkpoint.mkdir(parents=True, exist_ok=True)
    with _tried(state) as probe:
        probe.touch()


def _saved(vectors: Vectors, path: files.PathLike) -> str:
    where = f"in {path}" if path != "-" else "on standard output"
    return f"Saved {counted(len(vectors), 'vector')} of {counted(vectors.vector_size, 'dimension')} {where}"


def _saved_input(inputs: tuple[str, ...], taken: tuple[type[T], ...], read: Sequence[str] = _READ) -> T | None:
    """What Corpus.save or Cooccurrences.save wrote, if that is the input; vectors, which are no text, are refused.

    So are the options `read`, that say how text is read.
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
    for name in read if kind is Corpus else (*read, *_COUNTED):
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            made = f"the corpus {path} was made" if kind is Corpus else f"the counts in {path} were made"
            raise click.UsageError(f"{_flag(name)} was settled when {made}")
    return cast("T", firth.load(path))


def _saved_kind(path: str) -> type[Corpus] | type[Cooccurrences] | None:
    if path == "-" or not Path(path).is_file():  # a pipe would lose what is looked at
        return None
    format = formats.tell(path)
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
                f"{path} holds vectors ({format.name}), not text: train with the text that they are learnt from, or "
                "ask them with firth neighbors"
            )
    return None


# --------------------------------------------------------------------------------------------------- count


def _bytes(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """A number of bytes, which K, M, G or T may follow."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", value, re.IGNORECASE)
    if not found:
        raise click.BadParameter(f"{value!r} is no number of bytes, such as 500M or 4G")
    return int(float(found[1]) * 1024.0 ** " KMGT".index(found[2].upper() or " "))


_MEMORY = click.option(
    "--memory",
    metavar="SIZE",
    callback=_bytes,
    show_default="no bound",
    help="What counting may take, such as 500M or 4G; beyond it counts wait in the folder for temporary files.",
)
_COUNTED = ("window", "side", "weighting")


def _counting_options() -> _Parameters:
    """How words are counted."""
    declared = {"window": int, "side": Side, "weighting": Weighting, "threads": int}
    known = inspect.signature(count_cooccurrences).parameters
    counting = [_option(None, name, declared[name], known[name].default) for name in declared]
    return [*counting[:-1], _MEMORY, counting[-1]]


@main.command()
@_taking(
    [
        _INPUTS,
        click.option("-o", "--output", type=_OUTPUT, help="Counts, for firth train and firth.load."),
        click.option("--glove", type=_OUTPUT, metavar="FILE", help="Counts as records of GloVe's programs."),
        click.option(
            "--glove-vocab",
            type=_STREAM,
            metavar="FILE",
            help="The vocabulary that goes with --glove; - for stdout.",
        ),
        *_reading_options(),
        *_counting_options(),
        _QUIET,
    ]
)
def count(
    inputs: tuple[str, ...],
    output: Path | None,
    glove: Path | None,
    glove_vocab: files.PathLike | None,
    quiet: bool,
    min_count: int,
    max_size: int | None,
    tokenizer: str,
    **counting: Any,
) -> None:
    """Count how often words stand near each other.

    Writes the co-occurrence matrix, to train several models on it without counting again. INPUT is text as for firth
    train; a corpus that Corpus.save wrote will do as well. With --glove it is written as GloVe's cooccur does; then -o
    may be left out.

    \b
    Examples:
      firth count my.txt -o my.counts --tokenizer words
      firth count wiki.txt --glove cooccurrence.bin --glove-vocab vocab.txt --memory 4G
    """
    reading = {"min_count": min_count, "max_size": max_size, "tokenizer": tokenizer, "threads": counting["threads"]}
    with _as_flags([*counting, *reading]):
        check_options(**counting)
        CorpusOptions(**reading)
    targets: dict[str, files.PathLike | None] = {"--output": output, "--glove": glove, "--glove-vocab": glove_vocab}
    if output is None and glove is None:
        raise click.UsageError("where do the counts go? Give --output, --glove or both")
    if glove_vocab is not None and glove is None:
        raise click.UsageError("--glove-vocab needs --glove, the counts that it goes with")
    places = {flag: path for flag, path in targets.items() if path is not None}
    for (flag, path), (other, same) in itertools.combinations(places.items(), 2):
        if _same(path, same):
            raise click.UsageError(f"{flag} and {other} name the same file")
    for path in places.values():
        with _tried(path, inputs) as probe:
            probe.touch()
    checked_sources(list(inputs))
    saved = _saved_input(inputs, (Corpus,))

    say, bars = _voice(quiet)
    corpus = _read(saved, inputs, reading, say, bars)
    if glove_vocab is not None:
        check_glove_words(corpus.vocabulary.words)
    counts = count_cooccurrences(corpus, **counting, progress=bars)
    if output is not None:
        counts.save(output)
    if glove is not None:
        counts.to_glove(glove, vocabulary=glove_vocab)
    pairs = f"{counted(counts.csr.nnz, 'pair')} of {counted(len(counts.vocabulary), 'word')}"
    say(f"Saved {pairs} in {' and '.join(str(path) for path in (output, glove) if path is not None)}")


# --------------------------------------------------------------------------------------------- classifiers

# The options of FastTextClassifier that are numbers or choices, and what they mean.
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


def _classifier_options() -> _Parameters:
    declared = typing.get_type_hints(FastTextClassifier)
    fields = {field.name: field.default for field in dataclasses.fields(FastTextClassifier)}
    parameters: _Parameters = []
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


@train.command()
@_taking(
    [
        _INPUTS,
        click.option(
            "-o",
            "--output",
            "path",
            type=_OUTPUT,
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
        click.option("--pretrained", type=_STREAM, metavar="VECTORS", help="Vectors of words to begin with."),
        click.option(
            "--validation",
            metavar="SHARE|FILE",
            callback=_share_or_file,
            help="A share of the texts, or a file of others, to see after each epoch how well they are told.",
        ),
        _QUIET,
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
    """Tell the labels of texts (fastText's classifier).

    In INPUT every line is a text and its labels, each the word that follows the prefix; plain or compressed.
    firth predict, test and quantize read a .model as they read a .bin; firth quantize writes a small .ftz for fastText.

    \b
    Examples:
      firth train classifier reviews.txt -o reviews.model --word-ngrams 2 --tokenizer words
      firth predict reviews.model new.txt
    """
    say, bars = _voice(quiet)
    others = [one for one in (pretrained, validation) if isinstance(one, str | Path)]
    _check_model_output(path, [*inputs, *others])
    with _as_flags(options):
        FastTextClassifier(**options)
        vectors = None if pretrained is None else load_vectors(pretrained)
        if vectors is not None:
            options["vector_size"] = vectors.vector_size
        model = FastTextClassifier(**options, vectors=vectors)
    try:
        model.fit(list(inputs), validation=validation, progress=bars)
    except KeyboardInterrupt:
        raise _Interrupted("Interrupted. No classifier was written.") from None
    if not bars:
        for epoch in model.history:
            score = "" if epoch.validation is None else f", right on validation {epoch.validation:.1%}"
            rate = f"{epoch.units_per_second:,.0f} texts/s"
            say(f"epoch {epoch.epoch} of {model.epochs}: loss {epoch.loss:.4f}, {rate}{score}")
    _write_classifier(model, path, say)


def _check_model_output(path: Path, inputs: Sequence[str | Path]) -> None:
    with _tried(path, inputs) as probe:
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


_CLASSIFIER_FILE = click.argument("path", metavar="CLASSIFIER", type=_PATH)
_K = click.option("-k", type=click.IntRange(-1), metavar="N", default=1, help="Labels of a text at the most; -1: all.")
_THRESHOLD = click.option("--threshold", type=float, default=0.0, help="Leave out labels that are less likely.")


@main.command()
@_taking(
    [
        _CLASSIFIER_FILE,
        click.argument("texts", metavar="[FILE]", default="-"),
        _K,
        _THRESHOLD,
        click.option("-p", "--probabilities", is_flag=True, help="Show how likely each label is."),
    ]
)
def predict(path: Path, texts: str, k: int, threshold: float, probabilities: bool) -> None:
    """Show the labels of texts, line by line.

    CLASSIFIER is one that firth train classifier wrote, or fastText's (.bin, .ftz). FILE has a text a line; without it,
    or for -, texts are read from standard input, and answered as they come. Labels stand behind one another, the
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
        file = stack.enter_context(files.open_text(texts))
        if texts == "-":
            batches = _arriving(file, _TEXTS)
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


def _arriving(source: Any, most: int) -> Iterator[list[bytes]]:
    """Lines of a pipe or a terminal: those that are there, up to `most`, so that whoever waits for an answer has it."""
    lines: list[bytes] = []
    begun: list[bytes] = []  # of a line whose end has not come
    since = 0.0
    while data := source.read1(1 << 20):
        *ended, rest = data.split(b"\n")
        if ended:
            ended[0] = b"".join([*begun, ended[0]])
            begun.clear()
        begun.append(rest)
        since = since if lines else time.monotonic()
        lines += ended
        while lines and (len(lines) >= most or time.monotonic() - since > 0.1 or _waits(source)):
            yield lines[:most]
            lines = lines[most:]
    if last := b"".join(begun):
        lines.append(last)
    if lines:
        yield lines


def _waits(source: Any) -> bool:
    """Whether nothing can be read for the moment in which a program that writes steadily fills a pipe again."""
    try:
        return not select.select([source], [], [], 0.01)[0]
    except (OSError, ValueError):  # not a pipe, or not of a system that can tell
        return True


@main.command()
@_taking(
    [
        _CLASSIFIER_FILE,
        _INPUTS,
        _K,
        _THRESHOLD,
        click.option("--by-label", is_flag=True, help="Show every label's precision, recall and F1 too."),
    ]
)
def test(path: Path, inputs: tuple[str, ...], k: int, threshold: float, by_label: bool) -> None:
    """Compare a classifier's labels with known ones.

    INPUT is text with labels, as for firth train classifier.

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
    for line in _aligned(rows):
        click.echo(line)


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


@main.command()
@_taking(
    [
        _CLASSIFIER_FILE,
        click.option("-o", "--output", "target", type=_OUTPUT, required=True, help=".ftz is fastText's format."),
        click.option("--cutoff", type=int, metavar="N", show_default="all", help="Keep so many words and n-grams."),
        click.option("--part-size", type=int, metavar="N", default=2, help="Numbers of a vector to a byte."),
        click.option("--norms", is_flag=True, help="Keep vectors' lengths apart, in a byte more for each."),
        click.option("--labels", is_flag=True, help="Quantize the labels' vectors too."),
        click.option("--retrain", multiple=True, metavar="FILE", help="Train what is kept on it. May be repeated."),
        _QUIET,
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
    """Make a classifier smaller.

    Numbers are told by a byte for every few of them, and of words and n-grams those that matter most are kept.

    \b
    Example:
      firth quantize reviews.model -o reviews.ftz --cutoff 100000
    """
    say, bars = _voice(quiet)
    _check_model_output(target, [path, *retrain])
    with _as_flags(["cutoff", "part_size"]):
        small = _load_classifier(path).quantize(
            list(retrain) or None, cutoff=cutoff, part_size=part_size, norms=norms, output=labels, progress=bars
        )
    _write_classifier(small, target, say)


# ------------------------------------------------------------------------------------------------- phrases


@main.command()
@_taking(
    [
        _INPUTS,
        click.option(
            "-o", "--output", type=_OUTPUT, required=True, help="The corpus with its phrases, for firth train."
        ),
        click.option("--save-phrases", type=_OUTPUT, metavar="FILE", help="Also keep them for firth.load."),
        *_reading_options(),
        click.option("--min-phrase-count", type=click.IntRange(1), default=5, help="Make no phrases that are rarer."),
        click.option(
            "--scoring",
            type=click.Choice(typing.get_args(Scoring)),
            default="npmi",
            help="How closely words belong together: normalized pointwise mutual information, or word2phrase's score.",
        ),
        click.option(
            "--threshold",
            type=float,
            show_default="0.5 for npmi, 100 for word2phrase",
            help="Make phrases that score above this.",
        ),
        click.option("--delimiter", default="_", help="What stands between the words of a phrase."),
        click.option(
            "--connectors",
            metavar="WORDS",
            default="",
            show_default="none",
            help="Words that may stand inside a phrase but not at its ends, with blanks between: 'of the'.",
        ),
        click.option("--passes", type=int, default=1, help="How often pairs become one: in 2, up to 4 words."),
        click.option("-n", "--topn", type=click.IntRange(0), metavar="N", default=10, help="How many phrases to show."),
        _MEMORY,
        _option(None, "threads", int, None),
        _QUIET,
    ]
)
def phrases(
    inputs: tuple[str, ...],
    output: Path,
    save_phrases: Path | None,
    min_count: int,
    max_size: int | None,
    tokenizer: str,
    min_phrase_count: int,
    connectors: str,
    topn: int,
    memory: int | None,
    threads: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Make words that belong together one: new_york.

    Writes a corpus whose phrases are single words, and shows the most frequent phrases, each with its score and how
    often its words stand together. INPUT is text as for firth train; a corpus that Corpus.save wrote will do as well,
    best one made with min_count=1. Rare words are left out at the end, once phrases are made.

    \b
    Examples:
      firth phrases my.txt -o my.corpus --tokenizer words --passes 2
      firth train skipgram my.corpus -o vectors.txt
    """
    reading: dict[str, Any] = {"tokenizer": tokenizer, "threads": threads}
    with _as_flags([*options, *reading, "min_count", "max_size"]):
        CorpusOptions(**reading, min_count=min_count, max_size=max_size)
        learner = Phrases(min_count=min_phrase_count, connectors=frozenset(connectors.split()), **options)
    if save_phrases is not None and save_phrases.resolve() == output.resolve():
        raise click.UsageError("--output and --save-phrases name the same file")
    for path in (output, save_phrases):
        if path is not None:
            with _tried(path, inputs) as probe:
                probe.touch()
    checked_sources(list(inputs))
    saved = _saved_input(inputs, (Corpus,), ("tokenizer",))

    say, bars = _voice(quiet)
    corpus = _read(saved, inputs, {**reading, "min_count": 1}, say, bars)
    learner.fit(corpus, memory=memory, threads=threads, progress=bars)
    corpus = learner.apply(corpus, min_count=min_count, max_size=max_size, threads=threads)
    corpus.save(output)
    if save_phrases is not None:
        learner.save(save_phrases)
    if len(learner) and topn and not quiet:
        shown = sorted(learner, key=lambda one: -one.count)[:topn]
        for line in _aligned([(f"  {one.phrase}", f"{one.score:.3f}", f"{one.count:,}") for one in shown]):
            click.echo(line)
    say(
        f"Saved {counted(corpus.n_tokens, 'word')}, {len(corpus.vocabulary):,} different, in {output}, "
        f"with {counted(len(learner), 'phrase')}"
    )


# ------------------------------------------------------------------------------------------------- queries


def _query_options(command: Callable[..., None]) -> Callable[..., None]:
    for parameter in (
        click.option(
            "--limit",
            type=click.IntRange(1),
            metavar="N",
            show_default="all",
            help="Read only so many vectors of the file.",
        ),
        click.option("-n", "--topn", type=click.IntRange(1), metavar="N", default=10, help="How many words to show."),
        click.argument("path", metavar="VECTORS", type=_STREAM),
    ):
        command = parameter(command)
    return command


@main.command()
@_query_options
@click.argument("words", metavar="[WORD]...", nargs=-1)
@click.option("--plus", multiple=True, metavar="WORD", help="Add its vector to each WORD's. May be repeated.")
@click.option("--minus", multiple=True, metavar="WORD", help="Take its vector from each WORD's. May be repeated.")
def neighbors(
    path: files.PathLike,
    words: tuple[str, ...],
    topn: int,
    limit: int | None,
    plus: tuple[str, ...],
    minus: tuple[str, ...],
) -> None:
    """Show the words whose vectors lie nearest to a word's.

    Beside each stands the cosine of the angle between; 1 is the same direction. VECTORS is a file of vectors in any
    format that firth reads. A whole model of fastText's kind (train fasttext --save-model, or a .bin of fastText's)
    also has a vector for unseen words, unless --limit cuts it. Without a WORD, or for -, words are read from standard
    input (typed by hand: end with Ctrl-D).

    \b
    Examples:
      firth neighbors vectors.txt coffee tea
      firth neighbors vectors.txt king --minus man --plus woman
      firth neighbors vectors.txt < words.txt
    """
    from_stdin = words in ((), ("-",))
    if from_stdin and path == "-":
        raise click.UsageError("standard input cannot hold both the vectors and the words; name the words")
    vectors = _queried(path, limit)
    _require_words(vectors, [*plus, *minus], path)
    unknown: list[str] = []
    typed = from_stdin and _typed(sys.stdin)
    for batch in _batches(typed) if from_stdin else [list(words)]:
        known = [word for word in batch if vectors.get(word) is not None]
        if plus or minus:
            found = [vectors.most_similar(positive=[word, *plus], negative=list(minus), topn=topn) for word in known]
        else:
            found = vectors.neighbors(known, topn=topn) if known else []
        for word, near in zip(known, found, strict=True):
            if word not in vectors.index:
                click.echo(
                    f"{word!r} is out of vocabulary; using the vector composed of its character n-grams", err=True
                )
            click.echo("".join([word, *(f" + {w}" for w in plus), *(f" - {w}" for w in minus)]))
            _show_scores(near)
        missing = [word for word in batch if vectors.get(word) is None]
        if typed and missing:
            click.echo(_unknown(vectors, missing, path), err=True)
        else:
            unknown += missing
    _require_words(vectors, unknown, path)


@main.command()
@_query_options
@click.argument("a")
@click.argument("b")
@click.argument("c")
@click.option("--method", type=_METHOD, default="3cosadd", help="How answers are scored.")
def analogy(path: files.PathLike, a: str, b: str, c: str, topn: int, limit: int | None, method: Method) -> None:
    """Find D such that A is to B as C is to D.

    \b
    Example:
      firth analogy vectors.txt man king woman
    """
    vectors = _queried(path, limit)
    _require_words(vectors, [a, b, c], path)
    click.echo(f"{a} is to {b} as {c} is to")
    _show_scores(vectors.analogy(a, b, c, topn=topn, method=method))


def _queried(path: files.PathLike, limit: int | None) -> Vectors:
    """A file's vectors; if it is a whole model of words and their pieces, with those of unseen words."""
    whole = limit is None and path != "-" and Path(path).is_file()  # a pipe would lose what is looked at
    format = formats.tell(path) if whole else None
    if format is not None and format.name == "safetensors":
        if files.read_tensors(path, mmap=True)[1].get("model") == FastText.__name__:
            return cast("Vectors", firth.load(path).vectors)
    elif format is not None and format.name == "fasttext":
        with contextlib.suppress(ValueError):  # one without pieces, or a quantized one
            return FastText.from_fasttext(path).vectors
    return load_vectors(path, limit=limit)


def _batches(typed: bool) -> Iterator[list[str]]:
    """Words of standard input: with a prompt if somebody types them."""
    batches: Iterator[list[bytes]] | None = None
    while True:
        if typed:
            click.echo("Word: ", nl=False, err=True)
        batches = batches or _arriving(files.open_text("-"), _BATCH)  # which waits for the first word
        lines = next(batches, None)
        if lines is None:
            if typed:
                click.echo(err=True)
            return
        yield [word for line in lines for word in line.decode(errors="replace").split()]


def _require_words(vectors: Vectors, words: Iterable[str], path: files.PathLike) -> None:
    missing = [word for word in words if vectors.get(word) is None]
    if missing:
        raise click.ClickException(_unknown(vectors, missing, path))


def _unknown(vectors: Vectors, words: Iterable[str], path: files.PathLike) -> str:
    named = []
    for word in dict.fromkeys(words):
        other = next((form for form in (word.lower(), word.capitalize(), word.upper()) if form in vectors.index), None)
        named.append(f"{word!r} ({other!r} is)" if other else repr(word))
    return f"not among the {counted(len(vectors), 'word')} of {files.name_of(path)}: {', '.join(named)}"


def _show_scores(near: Sequence[tuple[str, float]]) -> None:
    for line in _aligned([(f"  {word}", f"{score:6.3f}") for word, score in near]):
        click.echo(line)


def _aligned(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Rows as lines: the first columns flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(cells)).rstrip()


# ------------------------------------------------------------------------------------------------ evaluate


@main.command()
@click.argument("path", metavar="VECTORS", type=_STREAM)
@click.argument("gold", metavar="FILE...", nargs=-1, required=True, type=_STREAM)
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", show_default="all", help="Read only so many vectors of the file."
)
@click.option(
    "--restrict-vocab",
    type=click.IntRange(1),
    metavar="N",
    default=300_000,
    help="Answer with the first so many words.",
)
@click.option("--method", type=_METHOD, default="3cosadd", help="How answers are scored.")
def evaluate(
    path: files.PathLike, gold: tuple[files.PathLike, ...], limit: int | None, restrict_vocab: int, method: Method
) -> None:
    """Compare vectors with what people said.

    Each FILE is one of two kinds, and firth sees which. Similarity: two words and a score a line; shown is Spearman's
    rank correlation between scores and cosines. Analogies: four words a line, ": name" before a section; shown is the
    share of questions whose fourth word comes first.

    \b
    Example:
      firth evaluate vectors.txt EN-WS-353-ALL.txt questions-words.txt
    """
    if [path, *gold].count("-") > 1:
        raise click.UsageError("standard input can be only one of the files")
    read = [_read_gold(file) for file in gold]
    vectors = _queried(path, limit)
    rows: list[tuple[str, ...]] = [("", "measure", "asked", "known", "coverage", "score")]
    for file, asked in zip(gold, read, strict=True):
        if isinstance(asked, list):
            similar = firth.evaluate.similarity(vectors, asked)
            if similar.composed:
                click.echo(
                    f"{Path(files.name_of(file)).name}: {similar.composed:,} of the {similar.found:,} known pairs have "
                    "an out-of-vocabulary word; using the vector composed of its character n-grams",
                    err=True,
                )
            rows.append(
                _score_row(
                    Path(files.name_of(file)).name,
                    "rank correlation",
                    similar.pairs,
                    similar.found,
                    similar.spearman,
                    ".3f",
                )
            )
        else:
            answers = firth.evaluate.analogies(vectors, asked, restrict_vocab=restrict_vocab, method=method)
            rows.append(
                _score_row(
                    Path(files.name_of(file)).name,
                    "right answers",
                    answers.asked,
                    answers.found,
                    answers.accuracy,
                    ".1%",
                )
            )
            rows += [
                _score_row(f"  {one.name}", "", one.asked, one.found, one.accuracy, ".1%") for one in answers.sections
            ]
    for line in _aligned(rows, left=2):
        click.echo(line)


def _score_row(name: str, measure: str, asked: int, known: int, score: float, style: str) -> tuple[str, ...]:
    coverage = f"{known / asked:.1%}" if asked else "-"
    return name, measure, f"{asked:,}", f"{known:,}", coverage, "-" if math.isnan(score) else format(score, style)


def _read_gold(path: files.PathLike) -> list[firth.evaluate.Triple] | dict[str, list[firth.evaluate.Question]]:
    """Word pairs with scores; or analogies, if the first line is that of a section."""
    with files.open_text(path) as file:
        data = file.read()  # once, for it may be a pipe

    def again() -> IO[bytes]:
        copy = io.BytesIO(data)
        copy.name = files.name_of(path)
        return copy

    _, first = next(firth.evaluate._lines(again()), (0, ""))
    if first.startswith(":"):
        return firth.evaluate._read_questions(again())
    try:
        pairs = list(firth.evaluate._read_pairs(again()))
    except ValueError as error:
        hint = "; analogies begin with a line ': section'" if len(first.split()) == 4 else ""
        raise click.ClickException(f"{error}{hint}") from None
    if not pairs:
        raise click.ClickException(f"{path} holds neither pairs of words with scores nor analogies")
    return pairs


# ---------------------------------------------------------------------------------------------- contextual

# The options of GPT, BERT and ELMo that are numbers, choices or flags, and what they mean; each model has some of them.
_CONTEXTUAL = {
    "layers": "Blocks of the transformer.",
    "heads": "Attention heads in a block.",
    "dim": "Numbers in a state.",
    "hidden": "Numbers in the memory cell of an LSTM.",
    "projection": "Numbers in a state of one direction.",
    "length": "Positions: pieces that are read at once.",
    "mlp_dim": "Numbers in the middle of a block's MLP.",
    "character_dim": "Numbers for a character.",
    "max_characters": "Bytes of a word that are seen, and two for its begin and end.",
    "dropout": "Share of numbers dropped in training.",
    "attention_dropout": "Share of attention weights dropped in training.",
    "documents": "A document of a file ends with its line, or at the next blank line.",
    "split": "Split at white space alone; or lower-case, and split at whatever is no letter or digit.",
    "kind": "Pieces: byte-level BPE, WordPiece, or whole words.",
    "vocabulary_size": "Pieces, at the most.",
    "min_count": "Make no piece of what is rarer.",
    "lowercase": "Fold case.",
    "masked": "Share of pieces to be told from the others.",
    "whole_word": "Mask all pieces of a word, or each by itself.",
    "softmax": "Predict exactly, rare words in clusters; or tell words from random ones in training.",
    "negatives": "With --softmax sampled: so many random words.",
    "embedding_mode": "With --embedding: learn on from the vectors, keep them, or keep them for the first steps.",
    "embedding_steps": "With --embedding-mode frozen_first: so many steps.",
    "embedding_project": "With --embedding: map vectors of another size to --dim linearly.",
    "embedding_std": "With --embedding: scale the vectors' numbers to this standard deviation.",
    "epochs": "Passes over the text, where --steps does not say otherwise.",
    "steps": "Steps of training.",
    "batch_size": "Sequences in a batch.",
    "accumulate": "Batches whose gradients make one step.",
    "learning_rate": "Step size after the warm-up.",
    "min_learning_rate": "Step size at the last step.",
    "warmup": "Steps in which the step size grows.",
    "weight_decay": "What matrices lose in a step, times the step size.",
    "clip": "Let the gradient's length not exceed this.",
    "bf16": "Multiply matrices in bf16, or in float32.",
    "held_out": "Share of the documents that is not learnt from, to see how well they are told.",
    "evaluate_every": "Steps between two looks at what is held out.",
    "evaluate_batches": "Batches in such a look, at the most.",
    "device": "Where to compute, as torch names it: cpu, cuda.",
    "seed": "Where random numbers start.",
    "threads": "Threads to run on.",
}
# Where an ELMo means something else by an option's name.
_CONTEXTUAL_OF = {
    ("ELMo", "layers"): "LSTM layers in each direction.",
    ("ELMo", "length"): "Words that are read at once in training: longer texts are cut.",
    ("ELMo", "vocabulary_size"): "Words that are predicted each by itself, at the most; all words are read.",
    ("ELMo", "min_count"): "Predict words that are rarer as if they were one.",
    ("ELMo", "batch_size"): "Texts in a batch.",
    ("ELMo", "held_out"): "Share of the texts that is not learnt from, to see how well they are told.",
}
_UNSET = {
    "mlp_dim": "4 times --dim",
    "steps": "as --epochs say",
    "min_learning_rate": "a tenth of --learning-rate",
    "warmup": "a twentieth of the steps",
    "evaluate_every": "a twentieth of the steps",
    "bf16": "where it pays",
    "threads": "as many as torch takes",
}


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
        declared = typing.get_type_hints(kind)
        decorators: _Parameters = [
            _INPUTS,
            click.option("-o", "--output", "path", type=_OUTPUT, metavar="FOLDER", required=True, help="The model."),
        ]
        if "tokenizer" in fields:
            decorators.append(
                click.option(
                    "--tokenizer",
                    type=_PATH,
                    metavar="FILE",
                    help="A tokenizer.json to take, or its folder; without it one is learnt from the text, as --kind, "
                    "--vocabulary-size, --min-count and --lowercase say.",
                )
            )
        if "embedding" in fields:
            decorators.append(
                click.option("--embedding", type=_STREAM, metavar="VECTORS", help="Static vectors to begin with.")
            )
        for name, meaning in _CONTEXTUAL.items():
            if name not in fields:
                continue
            value = not_none(declared[name])
            flag = "--" + name.replace("_", "-")
            if value is bool:
                flag += f"/--no-{name.replace('_', '-')}"
            decorators.append(
                click.option(
                    flag,
                    name,
                    type=click.Choice(choices(value)) if choices(value) else value,
                    default=fields[name].default,
                    show_default=_UNSET.get(name, True) if fields[name].default is None else True,
                    help=_CONTEXTUAL_OF.get((self.kind, name), meaning),
                )
            )
        decorators += [
            click.option("--checkpoint", type=_OUTPUT, metavar="FOLDER", help="Keep the state of the training here."),
            click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one."),
            _QUIET,
        ]

        @click.command()
        @_taking(decorators)
        def command(**_: Any) -> None: ...

        return list(command.params)

    def _run(
        self,
        inputs: tuple[str, ...],
        path: Path,
        quiet: bool,
        checkpoint: Path | None,
        resume: bool,
        tokenizer: Path | None = None,
        embedding: Path | None = None,
        **options: Any,
    ) -> None:
        contextual = _contextual()
        if resume and checkpoint is None:
            raise click.UsageError("--resume needs --checkpoint, the folder to go on from")
        if tokenizer is not None:
            options["tokenizer"] = contextual.Tokenizer.load(tokenizer)
        if embedding is not None:
            options["embedding"] = load_vectors(embedding)
        _check_device(options["device"])
        with _as_flags(options):
            model = getattr(contextual, self.kind)(**options)
        _check_folder(path)
        checked_sources(list(inputs))
        _check_state(checkpoint, resume)
        say, bars = _voice(quiet)

        def report(model: Any) -> None:
            if not bars:
                say(_evaluated(model.history[-1], "words" if self.kind == "ELMo" else "pieces"))

        with contextlib.ExitStack() as stack:
            data = []
            for one in inputs:
                path_of_one = Path(one)
                if one == "-" or not path_of_one.is_file():  # text is read twice: for the tokenizer, and to train
                    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="firth-"))
                    path_of_one = Path(folder, "standard input" if one == "-" else path_of_one.name)
                    with files.open_text(one) as source, path_of_one.open("wb") as file:
                        shutil.copyfileobj(source, file)
                data.append(path_of_one)
            if next(read_texts(data), None) is None:
                names = ", ".join("standard input" if one == "-" else one for one in inputs)
                raise click.ClickException(f"there is no text in {names}")
            try:
                model.fit(data, progress=bars, callbacks=[report], checkpoint=checkpoint, resume=resume)
            except KeyboardInterrupt:
                raise _interrupted("Interrupted. No model was written.", checkpoint) from None
        model.save(path)
        say(f"Saved {model!r} in {path}")


def _contextual() -> Any:
    import firth.contextual

    return firth.contextual


def _evaluated(one: Any, unit: str) -> str:
    told = "" if math.isnan(one.held_out) else f"held out {one.held_out:.4f} (perplexity {one.perplexity:,.1f}), "
    return f"step {one.step:,}: loss {one.loss:.4f}, {told}{one.tokens_per_second:,.0f} {unit}/s"


def _check_folder(path: Path) -> None:
    """Find out before the work whether a model's folder can be written here at its end."""
    if path.exists() and not path.is_dir():
        raise click.ClickException(f"{path} is a file; a model is a folder")
    if not path.exists() and not path.absolute().parent.is_dir():
        raise click.ClickException(f"cannot write {path}: there is no folder {path.absolute().parent}")
    with _tried(path / "config.json" if path.is_dir() else path) as probe:
        probe.touch()


train.add_command(
    _TrainContextual(
        "GPT",
        """Learn to tell the next piece of text from those before (GPT).

        The model is a transformer that reads from the left. INPUT is text, one document a line unless --documents says
        otherwise; plain or compressed; several files are read as one; - is standard input.

        \b
        Examples:
          firth train gpt my.txt -o my.gpt --layers 4 --dim 256 --epochs 3
          firth generate my.gpt "The bank"
        """,
    )
)
train.add_command(
    _TrainContextual(
        "BERT",
        """Learn to tell masked pieces of text from those around (BERT).

        The model is a transformer that reads from both sides. INPUT is text, one document a line unless --documents
        says otherwise; plain or compressed; several files are read as one; - is standard input.

        \b
        Examples:
          firth train bert my.txt -o my.bert --lowercase
          firth fill-mask my.bert "dispute the [MASK]"
        """,
    )
)
train.add_command(
    _TrainContextual(
        "ELMo",
        """Learn to tell the next word from either side (ELMo).

        The model is two language models of LSTMs, one for each direction, over words spelt in characters. INPUT is
        text, one sentence or paragraph a line; plain or compressed; several files are read as one; - is
        standard input.

        \b
        Examples:
          firth train elmo my.txt -o my.elmo
          firth encode my.elmo new.txt -o states.npy
        """,
    )
)


_MODEL_FOLDER = click.argument("path", metavar="MODEL", type=_PATH)
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


@main.command()
@_taking(
    [
        _MODEL_FOLDER,
        click.argument("prompt", metavar="[PROMPT]", default="-"),
        click.option("-n", "--max-new", type=click.IntRange(0), metavar="N", default=100, help="Pieces at the most."),
        click.option("--temperature", type=float, default=1.0, help="Below 1 for likelier texts; 0: the likeliest."),
        click.option("--top-k", type=int, metavar="N", show_default="all", help="Draw among so many pieces."),
        click.option(
            "--top-p", type=float, metavar="SHARE", show_default="all", help="Draw among those likely together."
        ),
        click.option("--stop", multiple=True, metavar="TEXT", help="End before this text. May be repeated."),
        click.option("--seed", type=int, show_default="another each time", help="The same one gives the same text."),
        _DEVICE,
    ]
)
def generate(path: Path, prompt: str, device: str, stop: tuple[str, ...], **options: Any) -> None:
    """Go on with a text.

    MODEL is a folder that firth train gpt wrote, or a published model of GPT-2's family: its folder, or its name, such
    as gpt2. Without a PROMPT, or for -, it is read from standard input. What is printed begins with the prompt.

    \b
    Example:
      firth generate my.gpt "The bank" --temperature 0.8 --top-p 0.95
    """
    model = _load_contextual(path, device, "generate")
    text = "\n".join(read_lines("-")) if prompt == "-" else prompt
    with _as_flags(["stop", *options]):
        parts = model.stream(text, stop=stop, **options)
    click.echo(text, nl=False)
    for part in parts:
        click.echo(part, nl=False)
    click.echo()


@main.command("fill-mask")
@_taking(
    [
        _MODEL_FOLDER,
        click.argument("texts", metavar="[TEXT]...", nargs=-1),
        click.option("-k", type=click.IntRange(1), metavar="N", default=5, help="Answers for each mask."),
        _DEVICE,
    ]
)
def fill_mask(path: Path, texts: tuple[str, ...], k: int, device: str) -> None:
    """Show what may stand where a text has [MASK].

    MODEL is a folder that firth train bert wrote, or a published model of BERT's family: its folder, or its name.
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
            for line in _aligned([(f"  {piece}", f"{chance:7.4f}") for piece, chance in answers]):
                click.echo(line)


def _layer(_: click.Context, __: click.Parameter, value: str | None) -> int | str | list[int] | None:
    if value is None or value in ("all", "mixture"):
        return value
    try:
        numbers = [int(one) for one in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither whole numbers nor all nor mixture") from None
    return numbers if "," in value else numbers[0]


@main.command()
@_taking(
    [
        _MODEL_FOLDER,
        click.argument("texts", metavar="[FILE]", default="-"),
        click.option("-o", "--output", type=_OUTPUT, required=True, help="An array of NumPy's (.npy), a row a line."),
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
            "weighted as it has learned.",
        ),
        click.option("--normalize", is_flag=True, help="Scale vectors to length 1."),
        click.option("--truncate", type=int, metavar="N", show_default="never", help="Cut texts to so many pieces."),
        click.option("--bf16", is_flag=True, help="Multiply matrices in bf16."),
        _DEVICE,
        _QUIET,
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
    """Write a vector for each line of text.

    The vectors are a GPT's, a BERT's or an ELMo's. MODEL is a folder that firth train wrote, or that of a classifier
    or a published model, or a published model's name. FILE has a text a line; without it, or for -, texts are read
    from standard input.

    \b
    Example:
      firth encode my.bert new.txt -o new.npy --normalize
    """
    say, bars = _voice(quiet)
    if output.suffix != ".npy":
        raise click.UsageError(f"{output} must end in .npy")
    with _tried(output, [] if texts == "-" else [texts]) as probe:
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
        with _as_flags(["layer", "pooling", *options]):
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


@main.command("attention-map")
@_taking(
    [
        _MODEL_FOLDER,
        click.argument("sentence"),
        click.option(
            "-o", "--output", type=_OUTPUT, required=True, help="A picture (.png, .svg, .pdf), or arrays (.npz)."
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
        _QUIET,
    ]
)
def attention_map(
    path: Path, sentence: str, output: Path, layer: int | None, head: int | None, kind: str, device: str, quiet: bool
) -> None:
    """Draw which words look at which.

    Shown are the attention weights of each layer and head of a GPT or a BERT. MODEL is a folder that firth train wrote,
    or a published model.

    \b
    Example:
      firth attention-map my.bert "she disputed the charge" -o map.png --layer 2
    """
    say, _ = _voice(quiet)
    pictures = (".png", ".svg", ".pdf")
    if output.suffix not in (*pictures, ".npz"):
        raise click.UsageError(f"{output} must end in {', '.join(pictures)} or .npz")
    with _tried(output) as probe:
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


# ------------------------------------------------------------------------------------------------- convert


@main.command()
@click.argument("source", metavar="IN", type=_STREAM)
@click.argument("target", metavar="OUT", type=_STREAM)
@click.option("--from", "source_format", type=_FORMAT, show_default="told by its contents", help="Format of IN.")
@click.option("--to", "target_format", type=_FORMAT, show_default="by its suffix", help="Format of OUT.")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", show_default="all", help="Keep only the first so many vectors."
)
def convert(
    source: files.PathLike,
    target: files.PathLike,
    source_format: str | None,
    target_format: str | None,
    limit: int | None,
) -> None:
    """Write vectors in another format.

    For IN, - is standard input. For OUT, - is standard output, which takes word2vec's and GloVe's text.

    \b
    Examples:
      firth convert vectors.txt vectors.bin
      xzcat vectors.txt.xz | firth convert - vectors.bin
    """
    _check_output(target, target_format, [source])
    vectors = load_vectors(source, format=source_format, limit=limit)
    vectors.save(target, format=target_format)
    click.echo(_saved(vectors, target), err=True)


def _check_output(path: files.PathLike, format: str | None = None, inputs: Sequence[files.PathLike] = ()) -> None:
    """Find out before the work whether vectors can be written here at its end: format, folder and all."""
    try:
        chosen = formats.by_suffix(path) if format is None else formats.named(format)
        formats.check_stream(path, chosen)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with _tried(path, inputs) as probe:
        Vectors(["word"], np.ones((1, 1), np.float32)).save(probe, format=chosen.name)


@contextlib.contextmanager
def _tried(path: files.PathLike, inputs: Sequence[files.PathLike] = ()) -> Iterator[Path]:
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
            raise click.ClickException(_describe(error).replace(str(probe), str(place))) from None


def _is_file(source: files.PathLike, place: Path) -> bool:
    """Whether an input, be it standard input, is the file at this place."""
    try:
        found = os.fstat(files.standard_input().fileno()) if source == "-" else os.stat(source)
        # A terminal, or /dev/null, may well be both.
        return stat.S_ISREG(found.st_mode) and os.path.samestat(found, os.stat(place))
    except (OSError, ValueError):  # one of the two does not exist
        return False
