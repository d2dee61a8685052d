"""Options of classes: declared once, with default, range and help; checked when set, and fixed from then on."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import operator
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from firth.checks import as_float, one_of

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_REQUIRED: Any = dataclasses.MISSING
_type_hints: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)  # it is slow
_SAID = ("help", "unset")  # which an option has of the one that it overrides, unless it says otherwise


def option(
    default: T = _REQUIRED,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    help: str = "",
    unset: str = "",
    checked: bool = True,
) -> T:
    """Declare an option of a class that derives from `Options`.

    Parameters
    ----------
    default
        Without a default the caller must pass a value.
    low, high, above
        The range of values: at least `low`, at most `high`, greater than `above`.
    help
        What the option means, in one sentence, with the names of other options in backquotes, for the command line.
        Without it, an option that overrides another has that one's.
    unset
        What None stands for, for the command line.
    checked
        False if the class checks the value itself, because its type is not a number, string, bool or choice.
    """
    metadata = {"low": low, "high": high, "above": above, "help": help, "unset": unset, "checked": checked}
    return dataclasses.field(default=default, metadata=metadata)


def seed_option(where: str = "") -> int:
    """The seed of a class; `where` says under which further condition the result is the same."""
    said = f"Seed of the random numbers. The same seed and instruction set give the same result{where}."
    return option(1, low=0, high=2**63 - 1, help=said)


def threads_option() -> int | None:
    """The number of threads of a class."""
    return option(cast("int | None", None), low=1, high=4096, help="Threads to use.", unset="all processors")


@dataclasses.dataclass(frozen=True)
class Option:
    """One declared option."""

    name: str
    type: Any  # of a value that is not None
    choices: tuple[str, ...]  # the strings that a value can be; none if it is not a choice
    default: Any  # None also stands for "decided by the class"
    help: str
    unset: str  # what None stands for; empty if None is not a value


@dataclasses.dataclass(kw_only=True, eq=False)
class Options:
    """A class whose dataclass fields are its options.

    They are keyword arguments, checked when the object is made, and fixed from then on: `set_params` or
    ``dataclasses.replace(model, window=8)`` sets others. `get_params` and `set_params` are those of scikit-learn, and
    `sklearn.base.clone` copies such an object, without what it was fitted to. scikit-learn need not be installed.
    """

    def __init_subclass__(cls) -> None:
        """Add the options and their help to a docstring without a section "Parameters"."""
        super().__init_subclass__()
        if cls.__doc__ is None or "Parameters\n" in cls.__doc__:
            return
        said: dict[str, str] = {}
        for kind in reversed(cls.__mro__):
            for name, field in {**vars(kind), **vars(kind).get("__dataclass_fields__", {})}.items():
                if isinstance(field, dataclasses.Field) and field.metadata:
                    unset = f" None: {field.metadata['unset']}." if field.metadata["unset"] else ""
                    said[name] = field.metadata["help"] + unset or said.get(name, "")
        text, *sections = re.split(r"\n(?=\w+\n-+\n)", inspect.cleandoc(cls.__doc__), maxsplit=1)
        listed = "".join(f"\n{name}\n    {help}" for name, help in said.items())
        cls.__doc__ = "\n\n".join([text.rstrip(), f"Parameters\n----------{listed}", *sections])

    def __post_init__(self) -> None:
        declared = _type_hints(type(self))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.metadata.get("checked", True):
                value = checked(f"{type(self).__name__}({field.name}=...)", value, declared[field.name])
                if value is not None:
                    _check_range(field.name, value, field.metadata)
            self.__dict__[field.name] = value

    def _some(self, *names: str) -> dict[str, Any]:
        """Options by name, to call what has parameters of the same names."""
        return {name: getattr(self, name) for name in names}

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__ and name in _names(type(self)):
            raise dataclasses.FrozenInstanceError(
                f"{name} cannot be changed by assignment; set_params({name}={value!r}) makes the "
                f"{type(self).__name__} an unfitted one with this option"
            )
        super().__setattr__(name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the options by name. `deep` changes nothing: it is there because scikit-learn passes it."""
        return {name: getattr(self, name) for name in _names(type(self))}

    def set_params(self, **params: Any) -> Self:
        """Set options by name and return self, which is then unfitted.

        TypeError or ValueError if an option does not exist or cannot have this value. Then nothing is changed.
        """
        options = self.get_params()
        if unknown := sorted(params.keys() - options.keys()):
            raise ValueError(f"{type(self).__name__} has no option {unknown[0]!r}; it has {', '.join(options)}")
        if params:
            new = type(self)(**{**options, **params})
            self.__dict__.clear()
            self.__dict__.update(new.__dict__)
        return self

    def __sklearn_clone__(self) -> Self:
        # Options are fixed and never trained, so that copies can share them: scikit-learn would copy a whole encoder.
        return type(self)(**self.get_params())


def _names(kind: type[Options]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def shown(model: Options, size: str) -> str:
    """The `repr` of a model: the options that are not the default, and `size`, which is empty before `fit`."""
    defaults = {field.name: field.default for field in dataclasses.fields(model)}
    options = (
        f"{name}={value!r:.60}"
        for name, value in model.get_params().items()
        if value is not defaults[name] and value != defaults[name]
    )
    return f"<{type(model).__name__}({', '.join(options)}): {size or 'not fitted'}>"


def declared_options(kind: type[Options]) -> Iterator[Option]:
    """The options of a class, in the order of their declaration."""
    declared = _type_hints(kind)
    for field in dataclasses.fields(kind):
        value_type = not_none(declared[field.name])
        known = [one.__dict__.get("__dataclass_fields__", {}).get(field.name) for one in kind.__mro__]
        said = {name: [one.metadata[name] for one in known if one and one.metadata.get(name)] for name in _SAID}
        texts = [next(iter(said[name]), "") for name in _SAID]
        yield Option(field.name, value_type, choices(value_type), field.default, *texts)


def choices(declared: Any) -> tuple[str, ...]:
    """The strings that a field of type `Literal["a", "b"]` allows; none for a field of another type."""
    return typing.get_args(declared) if typing.get_origin(declared) is typing.Literal else ()


def not_none(declared: Any) -> Any:
    """The type T that a field of type `T | None` declares; other types as they are."""
    if typing.get_origin(declared) not in (typing.Union, types.UnionType):
        return declared
    kinds = [kind for kind in typing.get_args(declared) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 else declared


def checked(name: str, value: Any, declared: Any) -> Any:
    """`value` as the Python type that is declared; TypeError or ValueError if it is of another type or not a choice.

    NumPy's numbers are converted; a bool is not a number.
    """
    expected = not_none(declared)
    if value is None and expected is not declared:
        return None
    allowed = choices(expected)
    if allowed:
        expected = str
    if expected is bool or isinstance(value, bool):
        if expected is bool and isinstance(value, bool):
            return value
    elif expected is int and isinstance(value, numbers.Integral):
        return int(value)
    elif expected is float and isinstance(value, numbers.Real):
        return as_float(value)
    elif expected is str and isinstance(value, str):
        if allowed:
            one_of(name, value, allowed)
        return str(value)
    raise TypeError(f"{name} must be {expected.__name__}, not {type(value).__name__}")


def _check_range(name: str, value: Any, limits: typing.Mapping[str, Any]) -> None:
    tests = (("low", "at least", operator.ge), ("above", "above", operator.gt), ("high", "at most", operator.le))
    given = [(words, limits[key], fits) for key, words, fits in tests if limits.get(key) is not None]
    if not all(fits(value, limit) for _, limit, fits in given):
        bounds = " and ".join(f"{words} {limit}" for words, limit, _ in given)
        raise ValueError(f"{name} must be {bounds}, not {value}")
