"""Loops over Python strings, lists and dicts."""

from collections.abc import Iterator
from typing import Any

def replace_surrogates(text: str) -> tuple[str, int]: ...

class _Blocks:
    documents: int
    invalid: int
    def __init__(self, iterator: Iterator[Any], *, strict: bool, name: str = "documents") -> None: ...
    def block(self, size: int) -> Any: ...  # see Texts and Tokens; None at the end

class Texts(_Blocks): ...
class Tokens(_Blocks): ...
