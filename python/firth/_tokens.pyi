"""Loops over Python strings, lists and dicts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

def replace_surrogates(text: str) -> tuple[str, int]: ...

class Texts:
    documents: int
    invalid: int
    def __init__(self, iterator: Iterator[Any], *, strict: bool) -> None: ...
    def block(self, size: int) -> memoryview | None: ...

class Tokens:
    documents: int
    invalid: int
    def __init__(self, iterator: Iterator[Any], *, strict: bool) -> None: ...
    def block(
        self, size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]] | None: ...
