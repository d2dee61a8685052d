"""What callers may give."""

from __future__ import annotations

import numpy as np


def whole_number(name: str, value: object, *, low: int = 0, high: int | None = None) -> int:
    """`value` as an int, Python's or NumPy's but no bool; TypeError or ValueError naming it if it is none in range."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < low:
        raise ValueError(f"{name} must {'not be negative' if low == 0 else f'be at least {low}'}, not {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, not {value}")
    return int(value)
