"""Slow and plain versions of what the kernels do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

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


# ---- top-k


def cosines(matrix, queries):
    """Cosines (q, n) in float64; 0 with a vector of length 0, NaN with one that is not finite."""

    def unit(rows):
        rows = np.asarray(rows, np.float64)
        norms = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
        return rows / np.where(norms == 0, 1, norms)

    with np.errstate(invalid="ignore"):
        return unit(queries) @ unit(matrix).T


def topk(matrix, queries, k):
    """Rows (q, k) by falling cosine, equal ones by rising row, and their cosines; NaN last."""
    scores = cosines(matrix, queries)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


def analogy_answer(matrix, a, b, c, n, method):
    """Row that best completes "a is to b as c is to ..." (Levy & Goldberg 2014, equations 3 and 5), row by row."""
    table = cosines(matrix[:n], matrix[[a, b, c]])
    best, answer = -np.inf, -1
    for row in range(n):
        cos_a, cos_b, cos_c = table[:, row]
        if method == "3cosadd":
            score = cos_b - cos_a + cos_c
        else:
            score = ((cos_b + 1) / 2) * ((cos_c + 1) / 2) / ((cos_a + 1) / 2 + 0.001)
        if row not in (a, b, c) and score > best:
            best, answer = score, row
    return answer


# ---- rows of numbers


def parse_rows(text, columns):
    """Words and float32 rows of lines "word number number ...", blanks in words allowed."""
    words, rows = [], []
    for line in text.decode().split("\n"):
        if not line.strip(" \t\r"):
            continue
        fields = line.strip(" \t\r").rsplit(" ", columns)
        words.append(fields[0])
        rows.append([np.float32(number) for number in fields[1:]])
    return words, np.array(rows, np.float32).reshape(len(words), columns)
