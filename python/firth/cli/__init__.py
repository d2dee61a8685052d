"""The command `firth`: its commands by name, each in a module that is imported when the command is called."""

from __future__ import annotations

import importlib
import inspect
import lzma
import os
import sys
import warnings
import zlib
from collections import UserDict
from typing import Any, NoReturn, cast

import click

import firth

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


class Interrupted(click.ClickException):
    """Ctrl-C, with what was kept."""

    exit_code = 130


class _Commands(UserDict[str, Any]):
    """Commands by name: the module, in this package, and the summary; the command once somebody has asked for it.

    The summary, which a list of commands shows, becomes the first sentence of the command's help.
    """

    def __getitem__(self, name: str) -> click.Command:
        found = self.data[name]
        if isinstance(found, tuple):
            module, summary = found
            found = getattr(importlib.import_module(__name__ + module), name.replace("-", "_"))
            found.help = f"{summary}\n\n{inspect.cleandoc(found.help or '')}"
            self.data[name] = found
        return cast("click.Command", found)


class _Group(click.Group):
    """Commands whose errors are one line on stderr: exit code 1 for data and files, 2 for usage, 130 for Ctrl-C."""

    def __init__(self, found: dict[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(invoke_without_command=True, **settings)
        self._found = found
        self.commands = cast("Any", _Commands(found))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._found.items()])

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
            except Interrupted as error:
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
        except BrokenPipeError:  # the reader of our output has seen enough: click ends without a message
            raise
        except _ERRORS as error:
            raise click.ClickException(describe(error)) from error


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
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # Python would try again at its end, and end with a message and a status of its own
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def describe(error: BaseException) -> str:
    """The message of an error, with the file that it is about."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    # str() of a KeyError puts its message in quotation marks.
    return str(error.args[0] if isinstance(error, KeyError) and error.args else error) or type(error).__name__


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        machine = firth.cpu_info()
        threads = machine["threads"]
        said = f"kernels for {machine['isa']}, {threads} {'thread' if threads == 1 else 'threads'}"
        click.echo(f"firth {firth.__version__}, {said}")
        ctx.exit()


def _show_help(ctx: click.Context) -> None:
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


train = _Group(
    {
        "skipgram": (".static", "Train word vectors that predict context words (word2vec skip-gram)."),
        "cbow": (".static", "Train word vectors that predict a word from its context (word2vec CBOW)."),
        "fasttext": (".static", "Train vectors of words and character n-grams (fastText)."),
        "glove": (".static", "Train word vectors on co-occurrence counts (GloVe)."),
        "ppmi": (".static", "Compute word vectors from co-occurrence counts (PPMI and SVD)."),
        "lsa": (".static", "Compute word vectors from counts of words in documents (LSA)."),
        "classifier": (".classify", "Train a classifier of texts (fastText)."),
        "gpt": (".train_contextual", "Train a language model that predicts the next token (GPT)."),
        "bert": (".train_contextual", "Train a language model that predicts masked tokens (BERT)."),
        "elmo": (".train_contextual", "Train a language model of LSTMs in both directions (ELMo)."),
    },
    name="train",
    callback=click.pass_context(_show_help),
)


main = _Group(
    {
        "demo": (".demo", "Show what firth does, in under a minute."),
        "train": ("", "Train a model on text: one command for each model."),
        "phrases": (".text", "Join words that belong together: new_york."),
        "count": (".text", "Count how often words occur near each other."),
        "neighbors": (".vectors", "Show the words whose vectors are most similar to a word's."),
        "analogy": (".vectors", "Find the word D such that A is to B as C is to D."),
        "evaluate": (".vectors", "Compare vectors with human judgments of similarity, or with known analogies."),
        "convert": (".vectors", "Write vectors in another file format."),
        "predict": (".classify", "Predict labels for texts, line by line."),
        "test": (".classify", "Compare predicted labels with known ones."),
        "quantize": (".classify", "Make a classifier smaller."),
        "generate": (".contextual", "Continue a text with a GPT."),
        "fill-mask": (".contextual", "Show the most probable tokens in place of [MASK]."),
        "encode": (".contextual", "Write a vector for each line of text."),
        "attention-map": (".contextual", "Draw the attention weights between the words of a sentence."),
    },
    name="firth",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True},
    callback=click.pass_context(_show_help),
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_show_version,
            help="Show the version, the instruction set in use and the number of threads.",
        )
    ],
    help="""Train and query word and token embeddings.

    \b
    Start here:
      firth demo                                    see it work on Python's own documentation
      firth train skipgram my.txt -o vectors.txt    train vectors on your own text
      firth neighbors vectors.txt coffee            show which words are similar
    """,
)
