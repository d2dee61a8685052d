"""The options of models as options of the command line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator

import click

from firth.options import Option, Options, declared_options

Parameters = list[Callable[[Callable[..., None]], Callable[..., None]]]

# Where a flag is not the option's name.
_FLAGS = {"output": "--vectors", "positive": "--positive/--signed", "cbow_mean": "--cbow-mean/--cbow-sum"}


def model_options(kind: type[Options], without: Iterable[str] = (), only: Iterable[str] = ()) -> Parameters:
    """The options of a class that are a number, a string, a choice or a flag; those that all models have come last."""
    found = [one for one in declared_options(kind) if one.choices or one.type in (int, float, str, bool)]
    found = [one for one in found if one.name not in without and (not only or one.name in only)]
    found.sort(key=lambda one: one.name in ("epochs", "seed", "threads"))
    return [model_option(one) for one in found]


def model_option(one: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option of a class, of the type that its field declares."""
    long = _FLAGS.get(one.name, "--" + one.name.replace("_", "-"))
    return click.option(
        f"{long}/--no-{long[2:]}" if one.type is bool and "/" not in long else long,
        one.name,
        type=click.Choice(one.choices) if one.choices else one.type,
        default=one.default,
        show_default=_with_flags(one.unset) or True if one.default is None else True,
        help=_with_flags(one.help),
    )


def taking(parameters: Parameters) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command these parameters, in this order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for parameter in reversed(parameters):
            command = parameter(command)
        return command

    return add


def flag(name: str) -> str:
    """The flag of an option, as users write it."""
    return _FLAGS.get(name, "--" + name.replace("_", "-")).split("/")[0]


def _with_flags(said: str) -> str:
    return re.sub(r"`(\w+)`", lambda found: flag(found[1]), said)


@contextlib.contextmanager
def as_flags(names: Iterable[str]) -> Iterator[None]:
    """Turn a ValueError about parameters into one about the options of the command line."""
    try:
        yield
    except ValueError as error:
        said = re.sub(rf"\b({'|'.join(names)})\b", lambda found: flag(found[0]), str(error))
        raise click.UsageError(said) from None
