"""Checks of what callers give, and of what training and files give."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def whole_number(name: str, value: object, *, low: int = 0, high: int | None = None) -> int:
    """`value` as an int, Python's or NumPy's but no bool; TypeError or ValueError naming it if it is none in range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < low:
        raise ValueError(f"{name} must {'not be negative' if low == 0 else f'be at least {low}'}, not {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, not {value}")
    return int(value)


def real_number(name: str, value: object, *, low: float | None = None, above: float | None = None) -> float:
    """`value` as a finite float, no bool; TypeError or ValueError naming it if it is none in range."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or (low is not None and value < low) or (above is not None and value <= above):
        bound = f"at least {low}" if low is not None else f"above {above}" if above is not None else "finite"
        raise ValueError(f"{name} must be {bound}, not {value}")
    return float(value)


def refuse_masked(name: str, value: object) -> None:
    """TypeError if `value` is a masked array of NumPy, because nothing here would obey its mask."""
    # Most arrays are of the plain type; only others load numpy.ma.
    if isinstance(value, np.ndarray) and type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must not be a masked array, because its mask would be ignored: pass {name}.filled(value), which "
            f"puts a value where the mask is set, or {name}.data"
        )


def one_of(name: str, value: object, choices: Sequence[str]) -> None:
    """ValueError naming the choices, if `value` is none of them."""
    if value not in choices:
        *most, last = map(repr, choices)
        raise ValueError(f"{name} must be {', '.join(most)} or {last}, not {value!r}")


def finite(array: NDArray[Any]) -> bool:
    """Whether no number of an array is NaN or infinite."""
    # A finite sum has no NaN and no infinity in it. float64 takes three times as long, and is needed where float32 is
    # not wide enough.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.add.reduce(array, axis=None)):
            return True
    return bool(np.isfinite(np.add.reduce(array, axis=None, dtype=np.float64)))
