"""The command line: firth demo | train | neighbors | analogy | evaluate | convert."""

# ruff: noqa: D301 - click looks for the control character that \b stands for, before lines it shall not fill

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import itertools
import lzma
import math
import sys
import tempfile
import typing
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
import numpy as np

from firth import files, formats
from firth.corpus import Corpus
from firth.models import Word2Vec
from firth.models.base import CHECKPOINT, GradientModel
from firth.vectors import Method, Vectors, load_vectors

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
_BATCH = 256  # lines of a pipe that are looked up at once


class _Interrupted(click.ClickException):
    """Ctrl-C, with what was kept."""

    exit_code = 130


class _Commands(click.Group):
    """Commands whose errors are one line on stderr: exit code 1 for data and files, 2 for usage, 130 for Ctrl-C."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
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
                _fail(f"Error: {error.format_message().rstrip('.')}. Try: {name} --help", error.exit_code)
            except click.ClickException as error:
                _fail(f"Error: {error.format_message()}", error.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # whoever read our output has seen enough: click leaves without a word
            raise
        except _ERRORS as error:
            raise click.ClickException(_describe(error)) from error


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
    import importlib.metadata

    from firth.runtime import cpu_info

    try:
        version = importlib.metadata.version("firth")
    except importlib.metadata.PackageNotFoundError:
        version = "(not installed, run from its source)"
    click.echo(f"firth {version}, kernels for {cpu_info()['isa']}, {cpu_info()['threads']} threads")
    ctx.exit()


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show it.")
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
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), default="firth-demo.txt", help="Where vectors go.")
@click.option(
    "--epochs",
    type=click.IntRange(1),
    metavar="N",
    help="Passes over the text.  [default: as many as take a few seconds, at most 30]",
)
def demo(file: Path | None, output: Path, epochs: int | None) -> None:
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
    demo.run(file, output, epochs)


# ---------------------------------------------------------------------------------------------------- train

# What each option of a model means. The names are the fields of the models' dataclasses, which also give the defaults.
_HELP = {
    "vector_size": "Numbers in a vector.",
    "window": "The most words on either side of a word that count as its company.",
    "negative": "Random words that each word is told apart from.",
    "sample": "Skip part of the words that make up more than this share of the text; 0 keeps all.",
    "ns_exponent": "Draw random words in proportion to count to this power.",
    "learning_rate": "Step size at the first word.",
    "min_learning_rate": "Step size at the last word.",
    "epochs": "Passes over the text.",
    "seed": "Where random numbers start. The same seed on one thread gives the same vectors.",
    "threads": "Threads to run on.  [default: all processors]",
}


@main.group(cls=_Commands, invoke_without_command=True)
@click.pass_context
def train(ctx: click.Context) -> None:
    """Learn vectors from text: one command for each model."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _training_options(kind: type[GradientModel]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The arguments of a command that trains a model: text, outputs, and the model's own options."""
    reading = inspect.signature(Corpus.from_file).parameters
    path = click.Path(path_type=Path)
    parameters = [
        click.argument("inputs", metavar="INPUT...", nargs=-1, required=True),
        click.option("-o", "--output", type=path, required=True, help="Vectors; the suffix says the format."),
        click.option("--save-model", type=path, metavar="FILE", help="Also keep the whole model, for firth.load."),
        click.option(
            "--min-count", type=int, default=reading["min_count"].default, help="Leave out words that are rarer."
        ),
        click.option("--max-size", type=int, help="Keep at most so many words, the most frequent.  [default: all]"),
        click.option(
            "--tokenizer",
            type=click.Choice(["whitespace", "words"]),
            default=reading["tokenizer"].default,
            help="Split at white space alone; or lower-case, and split at whatever is no letter or digit.",
        ),
    ]
    types = typing.get_type_hints(kind)
    for field in sorted(dataclasses.fields(kind), key=lambda field: list(_HELP).index(field.name)):
        declared = types[field.name]
        value_type = next((t for t in typing.get_args(declared) if t is not type(None)), declared)
        parameters.append(
            click.option(
                "--" + field.name.replace("_", "-"), type=value_type, default=field.default, help=_HELP[field.name]
            )
        )
    parameters += [
        click.option("--checkpoint", type=path, metavar="FOLDER", help="Keep the state of the training here."),
        click.option("--resume", is_flag=True, help="Go on from the checkpoint, if there is one."),
        click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    ]

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for parameter in reversed(parameters):
            command = parameter(command)
        return command

    return add


@train.command()
@_training_options(Word2Vec)
def skipgram(**arguments: Any) -> None:
    """word2vec's skip-gram: each word learns to tell the words around it from random ones.

    INPUT is text, one sentence or paragraph a line; plain, .gz, .bz2, .xz or .zst; several files are read as one;
    - is standard input. A corpus that Corpus.save wrote will do as well.

    \b
    Examples:
      firth train skipgram my.txt -o vectors.txt --tokenizer words
      xzcat wiki.xz | firth train skipgram - -o wiki.bin --vector-size 300 --checkpoint wiki.state
    """
    _train(Word2Vec, **arguments)


def _train(
    kind: type[GradientModel],
    *,
    inputs: tuple[str, ...],
    output: Path,
    save_model: Path | None,
    checkpoint: Path | None,
    resume: bool,
    quiet: bool,
    min_count: int,
    max_size: int | None,
    tokenizer: str,
    **options: Any,
) -> None:
    # Everything that can go wrong at the end is looked at now: training takes hours.
    try:
        model = kind(**options)
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    _check_output(output, inputs=inputs)
    if save_model is not None:
        with _tried(save_model, inputs) as probe:
            probe.touch()
    if resume and checkpoint is None:
        raise click.UsageError("--resume needs --checkpoint, the folder to go on from")
    state = None if checkpoint is None else checkpoint / CHECKPOINT
    if state is not None and state.exists() and not resume:
        raise click.ClickException(f"{state} is left from an earlier run: add --resume to go on from it, or remove it")

    say: Callable[[str], None] = (lambda _: None) if quiet else (lambda text: click.echo(text, err=True))
    bars = not quiet and sys.stderr.isatty()
    corpus = _read_corpus(
        inputs,
        {"min_count": min_count, "max_size": max_size, "tokenizer": tokenizer},
        threads=options.get("threads"),
        progress=bars,
    )
    read = corpus.report
    say(
        f"{read.tokens_read:,} words of text, {read.distinct_words_read:,} different ones; "
        f"{read.tokens_kept:,} kept, {len(corpus.vocabulary):,} different ones"
    )

    def report(model: GradientModel) -> None:
        epoch = model.history[-1]
        if not bars:
            say(f"epoch {epoch.epoch} of {model.epochs}: loss {epoch.loss:.4f}, {epoch.words_per_second:,.0f} words/s")

    try:
        model.fit(corpus, progress=bars, callbacks=[report], checkpoint=checkpoint, resume=resume)
    except KeyboardInterrupt:
        kept = "No vectors were written."
        if state is not None and state.exists():
            kept += f" {state} holds the state: the same command with --resume goes on from there."
        elif checkpoint is None:
            kept += " With --checkpoint FOLDER a run can be resumed."
        raise _Interrupted(f"Interrupted in epoch {len(model.history) + 1} of {model.epochs}. {kept}") from None
    model.vectors.save(output)
    if save_model is not None:
        model.save(save_model)
    say(f"Saved {len(model.vectors.words):,} vectors of {model.vectors.matrix.shape[1]} numbers in {output}")


def _read_corpus(inputs: tuple[str, ...], how: dict[str, Any], threads: int | None, progress: bool) -> Corpus:
    if saved := [path for path in inputs if _is_saved_corpus(path)]:
        if len(inputs) > 1:
            raise click.UsageError(f"{saved[0]} is a saved corpus, which stands alone")
        context = click.get_current_context()
        for name in how:
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                option = "--" + name.replace("_", "-")
                raise click.UsageError(f"{option} was settled when the corpus {saved[0]} was made")
        return Corpus.open(saved[0])
    return Corpus.from_file(list(inputs), threads=threads, progress=progress, **how)


def _is_saved_corpus(path: str) -> bool:
    """Whether this is a safetensors file: eight bytes of length, then JSON. Text holds no zero bytes."""
    if not Path(path).is_file():  # a pipe would lose what is looked at
        return False
    with open(path, "rb") as file:
        start = file.read(9)
    return start[4:] == b"\0\0\0\0{"


# ------------------------------------------------------------------------------------------------- queries


def _query_options(command: Callable[..., None]) -> Callable[..., None]:
    for parameter in (
        click.option(
            "--limit",
            type=click.IntRange(1),
            metavar="N",
            help="Read only so many vectors of the file.  [default: all]",
        ),
        click.option("-n", "--topn", type=click.IntRange(1), metavar="N", default=10, help="How many words to show."),
        click.argument("path", metavar="VECTORS", type=click.Path(path_type=Path)),
    ):
        command = parameter(command)
    return command


@main.command()
@_query_options
@click.argument("words", metavar="[WORD]...", nargs=-1)
@click.option("--plus", multiple=True, metavar="WORD", help="Add its vector to each WORD's. May be repeated.")
@click.option("--minus", multiple=True, metavar="WORD", help="Take its vector from each WORD's. May be repeated.")
def neighbors(
    path: Path, words: tuple[str, ...], topn: int, limit: int | None, plus: tuple[str, ...], minus: tuple[str, ...]
) -> None:
    """Show the words whose vectors lie nearest, with the cosine of the angle between (1: the same direction).

    VECTORS is a file of vectors in any format that firth reads. Without a WORD, or for -, words are read from standard
    input (typed by hand: end with Ctrl-D).

    \b
    Examples:
      firth neighbors vectors.txt coffee tea
      firth neighbors vectors.txt king --minus man --plus woman
      firth neighbors vectors.txt < words.txt
    """
    vectors = load_vectors(path, limit=limit)
    _require_words(vectors, [*plus, *minus], path)
    unknown: list[str] = []
    from_stdin = words in ((), ("-",))
    typed = from_stdin and sys.stdin.isatty()
    for batch in _batches(typed) if from_stdin else [list(words)]:
        known = [word for word in batch if word in vectors]
        if plus or minus:
            found = [vectors.most_similar(positive=[word, *plus], negative=list(minus), topn=topn) for word in known]
        else:
            found = vectors.neighbors(known, topn=topn) if known else []
        for word, near in zip(known, found, strict=True):
            click.echo("".join([word, *(f" + {w}" for w in plus), *(f" - {w}" for w in minus)]))
            _show_scores(near)
        missing = [word for word in batch if word not in vectors]
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
def analogy(path: Path, a: str, b: str, c: str, topn: int, limit: int | None, method: Method) -> None:
    """Find D such that A is to B as C is to D.

    \b
    Example:
      firth analogy vectors.txt man king woman
    """
    vectors = load_vectors(path, limit=limit)
    _require_words(vectors, [a, b, c], path)
    click.echo(f"{a} is to {b} as {c} is to")
    _show_scores(vectors.analogy(a, b, c, topn=topn, method=method))


def _batches(typed: bool) -> Iterator[list[str]]:
    """Words of standard input: line by line with a prompt if somebody types them, else many at once."""
    while True:
        if typed:
            click.echo("Word: ", nl=False, err=True)
        lines = list(itertools.islice(iter(sys.stdin.readline, ""), 1 if typed else _BATCH))
        if not lines:
            if typed:
                click.echo(err=True)
            return
        yield [word for line in lines for word in line.split()]


def _require_words(vectors: Vectors, words: Iterable[str], path: Path) -> None:
    missing = [word for word in words if word not in vectors]
    if missing:
        raise click.ClickException(_unknown(vectors, missing, path))


def _unknown(vectors: Vectors, words: Iterable[str], path: Path) -> str:
    named = []
    for word in dict.fromkeys(words):
        other = next((form for form in (word.lower(), word.capitalize(), word.upper()) if form in vectors), None)
        named.append(f"{word!r} ({other!r} is)" if other else repr(word))
    return f"not among the {len(vectors):,} words of {path}: {', '.join(named)}"


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
@click.argument("path", metavar="VECTORS", type=click.Path(path_type=Path))
@click.argument("gold", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Read only so many vectors of the file.  [default: all]"
)
@click.option(
    "--restrict-vocab",
    type=click.IntRange(1),
    metavar="N",
    default=300_000,
    help="Answer with the first so many words.",
)
@click.option("--method", type=_METHOD, default="3cosadd", help="How answers are scored.")
def evaluate(path: Path, gold: tuple[Path, ...], limit: int | None, restrict_vocab: int, method: Method) -> None:
    """Compare vectors with what people said.

    Each FILE is one of two kinds, and firth sees which. Similarity: two words and a score a line; shown is Spearman's
    rank correlation between scores and cosines. Analogies: four words a line, ": name" before a section; shown is the
    share of questions whose fourth word comes first.

    \b
    Example:
      firth evaluate vectors.txt WS-353-ALL.txt questions-words.txt
    """
    from firth import evaluate

    kinds = [_kind_of_gold(file) for file in gold]
    vectors = load_vectors(path, limit=limit)
    rows: list[tuple[str, ...]] = [("", "measure", "asked", "known", "coverage", "score")]
    for file, kind in zip(gold, kinds, strict=True):
        if kind == "similarity":
            similar = evaluate.similarity(vectors, file)
            rows.append(
                _score_row(file.name, "rank correlation", similar.pairs, similar.found, similar.spearman, ".3f")
            )
        else:
            answers = evaluate.analogies(vectors, file, restrict_vocab=restrict_vocab, method=method)
            rows.append(_score_row(file.name, "right answers", answers.asked, answers.found, answers.accuracy, ".1%"))
            rows += [
                _score_row(f"  {one.name}", "", one.asked, one.found, one.accuracy, ".1%") for one in answers.sections
            ]
    for line in _aligned(rows, left=2):
        click.echo(line)


def _score_row(name: str, measure: str, asked: int, known: int, score: float, style: str) -> tuple[str, ...]:
    coverage = f"{known / asked:.1%}" if asked else "-"
    return name, measure, f"{asked:,}", f"{known:,}", coverage, "-" if math.isnan(score) else format(score, style)


def _kind_of_gold(path: Path) -> str:
    """Whether a file holds word pairs with scores or analogies, told by its first line that says something."""
    with files.open_binary(path) as file:
        for raw in file:
            line = raw.decode("utf-8-sig", "replace").strip()
            if not line or line.startswith("#"):
                continue
            fields = len(line.split(next((one for one in "\t;," if one in line), None)))
            if line.startswith(":") or fields == 4:
                return "analogies"
            if fields == 3:
                return "similarity"
            break
    raise click.ClickException(
        f"{path} is neither a similarity file (two words and a score a line) nor an analogy file (four words a line)"
    )


# ------------------------------------------------------------------------------------------------- convert


@main.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--from", "source_format", type=_FORMAT, help="Format of IN.  [default: told by its contents]")
@click.option("--to", "target_format", type=_FORMAT, help="Format of OUT.  [default: by its suffix]")
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Keep only the first so many vectors.  [default: all]"
)
def convert(
    source: Path, target: Path, source_format: str | None, target_format: str | None, limit: int | None
) -> None:
    """Write vectors in another format.

    \b
    Example:
      firth convert vectors.txt vectors.bin
    """
    _check_output(target, target_format)
    vectors = load_vectors(source, format=source_format, limit=limit)
    vectors.save(target, format=target_format)
    click.echo(f"Saved {len(vectors):,} vectors of {vectors.matrix.shape[1]} numbers in {target}", err=True)


def _check_output(path: Path, format: str | None = None, inputs: Sequence[str | Path] = ()) -> None:
    """Find out before the work whether vectors can be written here at its end: format, folder and all."""
    known = [suffix for one in formats.FORMATS for suffix in one.suffixes]
    name = path.stem if files.is_compressed(path) else path.name
    if format is None and not name.lower().endswith(tuple(known)):
        raise click.UsageError(f"which format shall {path} have? End its name in one of {', '.join(known)}")
    with _tried(path, inputs) as probe:
        Vectors(["word"], np.ones((1, 1), np.float32)).save(probe, format=format)


@contextlib.contextmanager
def _tried(path: Path, inputs: Sequence[str | Path] = ()) -> Iterator[Path]:
    """A path of the same name in a folder beside it, to write to and forget; errors speak of the path itself."""
    if path.exists() and any(Path(one).exists() and path.samefile(one) for one in inputs):
        raise click.UsageError(f"{path} is what shall be read; write to another file")
    if path.is_dir():
        raise click.ClickException(f"{path} is a folder; give a file name")
    if not path.parent.is_dir():
        raise click.ClickException(f"cannot write {path}: there is no folder {path.parent}")
    try:
        folder = tempfile.TemporaryDirectory(prefix=".firth-", dir=path.parent)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
    with folder:
        probe = Path(folder.name, path.name)
        try:
            yield probe
        except (OSError, ValueError) as error:
            raise click.ClickException(_describe(error).replace(str(probe), str(path))) from None


if __name__ == "__main__":
    main()
