"""Checks of arguments, of trained numbers and of the contents of files."""

from __future__ import annotations

import itertools
import math
import numbers
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray


def whole_number(name: str, value: object, *, low: int = 0, high: int | None = None) -> int:
    """`value` as an int (Python's or NumPy's, not bool); TypeError or ValueError if it is not one in this range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < low:
        raise ValueError(f"{name} must {'not be negative' if low == 0 else f'be at least {low}'}, not {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, not {value}")
    return int(value)


def real_number(name: str, value: object, *, low: float | None = None, above: float | None = None) -> float:
    """`value` as a finite float (not bool); TypeError or ValueError if it is not one in this range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    number = as_float(value)
    if not math.isfinite(number) or (low is not None and number < low) or (above is not None and number <= above):
        bound = f"at least {low}" if low is not None else f"above {above}" if above is not None else "finite"
        raise ValueError(f"{name} must be {bound}, not {number}")
    return number


def as_float(value: Any) -> float:
    """A real number as a float: infinite if it is too large for one, so that a check of its range refuses it."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def refuse_masked(name: str, value: object) -> None:
    """TypeError if `value` is a masked array of NumPy, because its mask would be ignored."""
    # Most arrays are of the plain type; only others load numpy.ma.
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array, because its mask would be ignored: pass {name}.filled(value), which "
            f"puts a value where the mask is set, or {name}.data"
        )


def stacklevel_of_caller() -> int:
    """The `stacklevel` with which a warning points at the code that called firth; for the call of `warnings.warn`."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "firth":
        level, frame = level + 1, frame.f_back
    return level


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """ValueError with the choices, if `value` is not one of them."""
    if value not in choices:
        *most, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(most)} or {last}, not {value!r}")


def finite(array: NDArray[Any]) -> bool:
    """Whether all numbers of an array are finite."""
    # A finite sum has no NaN and no infinity in it. float64 takes three times as long, and is needed where float32 is
    # not wide enough.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.add.reduce(array, axis=None)):
            return True
    return bool(np.isfinite(np.add.reduce(array, axis=None, dtype=np.float64)))


def expect(name: str, tensor: NDArray[Any], dtype: Any, shape: tuple[int | None, ...]) -> None:
    """TypeError if a tensor has another type or shape (None: a side of any length), or is not finite."""
    fits = len(shape) == tensor.ndim and all(
        n is None or n == found for n, found in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        sides = ", ".join("any" if n is None else str(n) for n in shape)
        raise TypeError(
            f"{name} must be {np.dtype(dtype)} of shape ({sides}), not {tensor.dtype} of shape {tensor.shape}"
        )
    if not finite(tensor):
        raise TypeError(f"{name} holds a number that is not finite")


def column(name: str, given: Any, *, advice: str = "", rows: bool = False) -> Iterable[Any]:
    """`given`, if iterating over it yields one item after another; otherwise TypeError with the remedy.

    Iterating over a string yields its characters, over a table or a mapping the names of its columns, over a matrix its
    rows: without this check a model would be trained on these. The error names it `name`, a plural such as "texts", and
    adds `advice` about a single string: what else to call with it. `rows` allows an array with several dimensions.
    """
    one = "label" if name.startswith("labels") else "text"
    if isinstance(given, str | bytes | bytearray):
        raise TypeError(f"{name} is one {one}; give a list of {one}s: [{one}]{advice}")
    kind = type(given).__name__
    for columns in (getattr(given, "column_names", None), getattr(given, "columns", None)):
        if isinstance(columns, Iterable) and not isinstance(columns, str):
            shown, likely = _keys(columns, one)
            raise TypeError(f"{name} is a {kind}; give one of its columns ({shown}), such as {name}[{likely}]")
    if isinstance(given, Mapping):
        shown, likely = _keys(given, one)
        raise TypeError(
            f"{name} is a {kind}; give the list under one of its keys ({shown}), such as {name}[{likely}], or "
            f"list({name}.values())"
        )
    if isinstance(given, set | frozenset):
        raise TypeError(f"{name} is a {kind}, whose order changes from run to run; give sorted({name})")
    if not isinstance(given, Iterable):
        raise TypeError(f"{name} must be an iterable of {one}s, such as a list, not {kind}")
    dimensions = getattr(given, "ndim", 1)
    if dimensions != 1 and not rows:
        raise TypeError(f"{name} is an array with {dimensions} dimensions; give one column of it, {name}[:, 0]")
    if isinstance(given, list | tuple) and given and isinstance(given[0], Mapping):
        raise _not_a_row(f"{name}[0]", given[0])
    return given.to_pylist() if hasattr(given, "to_pylist") else given  # an array of Arrow, whose items are scalars


def text_or_words(name: str, given: Any) -> str | list[str]:
    """`given`, if it is a text or a list of words; otherwise TypeError with the remedy."""
    if isinstance(given, str):
        return given
    if isinstance(given, Mapping):
        raise _not_a_row(name, given)
    kind = type(given).__name__
    if given is None or kind in ("NAType", "NaTType") or (isinstance(given, float) and math.isnan(given)):
        raise TypeError(f"{name} is {given}, neither a text nor a list of words; drop missing texts, or make them ''")
    if isinstance(given, bytes | bytearray | Set) or not isinstance(given, Iterable):
        hint = "; decode it first" if isinstance(given, bytes | bytearray) else ""
        raise TypeError(f"{name} is of type {kind}, neither a text nor a list of words{hint}")
    return strings(name, given)


def strings(name: str, given: Iterable[Any]) -> list[str]:
    """`given` as a list of strings; TypeError if an item is not one."""
    words = list(given)
    for i, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"{name}[{i}] is of type {type(word).__name__}, not a string")
    return words


def functions(name: str, given: Any) -> list[Callable[..., object]]:
    """`given` as a list of functions; TypeError if it is not a list, or an item is not a function."""
    if not isinstance(given, Iterable):
        example = getattr(given, "__name__", "")
        remedy = f": give [{example if example.isidentifier() else 'function'}]" if callable(given) else ""
        raise TypeError(f"{name} must be a list of functions, not {type(given).__name__}{remedy}")
    found = list(given)
    for i, one in enumerate(found):
        if not callable(one):
            raise TypeError(f"{name}[{i}] must be a function, not {type(one).__name__}")
    return found


def _keys(keys: Iterable[Any], one: str) -> tuple[str, str]:
    """The first keys as an error shows them, and the one whose name is that of texts or labels."""
    first = list(itertools.islice(keys, 5))
    likely = next((key for key in first if key in (one, f"{one}s")), first[0] if first else one)
    return ", ".join(map(repr, first[:4])) + (", ..." if len(first) > 4 else ""), repr(likely)


def _not_a_row(name: str, row: Mapping[Any, Any]) -> TypeError:
    listed = name.partition("[")[0]
    shown, likely = _keys(row, "label" if listed == "labels" else "text")
    return TypeError(
        f"{name} is a {type(row).__name__}; give what is under one of its keys ({shown}), such as "
        f"[row[{likely}] for row in {listed}]"
    )
