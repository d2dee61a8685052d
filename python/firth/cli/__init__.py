"""The command `firth`: its commands by name, each in a module that is imported when the command is called."""

from __future__ import annotations

import importlib
import inspect
import lzma
import os
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping
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


class _Commands(Mapping[str, click.Command]):
    """Commands by name; each is imported when somebody asks for it.

    The summary, which a list of commands shows, becomes the first sentence of the command's help.
    """

    def __init__(self, found: dict[str, tuple[str, str]]) -> None:
        self._found = found  # the module, in this package, and the summary
        self._imported: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._imported:
            module, summary = self._found[name]
            command: click.Command = getattr(importlib.import_module(__name__ + module), name.replace("-", "_"))
            command.help = f"{summary}\n\n{inspect.cleandoc(command.help or '')}"
            self._imported[name] = command
        return self._imported[name]

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


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
        except BrokenPipeError:  # whoever read our output has seen enough: click leaves without a word
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
        "skipgram": (".static", "Tell the words around a word from random ones (word2vec)."),
        "cbow": (".static", "Tell a word from random ones by the words around it (word2vec)."),
        "fasttext": (".static", "Learn words and their pieces, for unseen words too (fastText)."),
        "glove": (".static", "Fit the logarithms of co-occurrence counts (GloVe)."),
        "ppmi": (".static", "Compare counts with what chance would give (PPMI)."),
        "lsa": (".static", "Find words that stand in the same documents (LSA)."),
        "classifier": (".classify", "Tell the labels of texts (fastText's classifier)."),
        "gpt": (".contextual", "Learn to tell the next piece of text from those before (GPT)."),
        "bert": (".contextual", "Learn to tell masked pieces of text from those around (BERT)."),
        "elmo": (".contextual", "Learn to tell the next word from either side (ELMo)."),
    },
    name="train",
    callback=click.pass_context(_show_help),
)


main = _Group(
    {
        "demo": (".demo", "Show in under a minute what firth does."),
        "train": ("", "Learn vectors from text: one command for each model."),
        "phrases": (".text", "Make words that belong together one: new_york."),
        "count": (".text", "Count how often words stand near each other."),
        "neighbors": (".vectors", "Show the words whose vectors lie nearest to a word's."),
        "analogy": (".vectors", "Find D such that A is to B as C is to D."),
        "evaluate": (".vectors", "Compare vectors with what people said."),
        "convert": (".vectors", "Write vectors in another format."),
        "predict": (".classify", "Show the labels of texts, line by line."),
        "test": (".classify", "Compare a classifier's labels with known ones."),
        "quantize": (".classify", "Make a classifier smaller."),
        "generate": (".contextual", "Go on with a text."),
        "fill-mask": (".contextual", "Show what may stand where a text has [MASK]."),
        "encode": (".contextual", "Write a vector for each line of text."),
        "attention-map": (".contextual", "Draw which words look at which."),
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
    help="""Learn what words mean from the company they keep.

    \b
    Start here:
      firth demo                                    see it work, on text that Python carries
      firth train skipgram my.txt -o vectors.txt    learn vectors from a text of yours
      firth neighbors vectors.txt coffee            ask them which words are alike
    """,
)
