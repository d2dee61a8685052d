"""Slow and plain versions of what the kernels do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

# ---- text ------------------------------------------------------------------------------------------------------------


def lines_of(data: bytes) -> list[str]:
    """The documents of a file: its lines, a last line end ending the last one."""
    lines = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split("\n")
    return lines if lines[-1] else lines[:-1]


def lower_words(text: str) -> list[str]:
    """Words of word characters in lower case, character by character: no final sigma, no dotted i of two characters."""
    return re.findall(r"\w+", text.replace("\u0130", "i").replace("\u03a3", "\u03c3").lower())


def vocabulary_of(
    documents: Sequence[Sequence[str]], min_count: int = 1, max_size: int | None = None
) -> list[tuple[str, int]]:
    """Words and counts, the most frequent first, equally frequent ones by their UTF-8 bytes."""
    counts = Counter(word for document in documents for word in document)
    kept = [(word, n) for word, n in counts.items() if n >= min_count]
    return sorted(kept, key=lambda item: (-item[1], item[0].encode()))[:max_size]
