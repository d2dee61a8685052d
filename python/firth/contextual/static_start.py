"""Static vectors as the initial embeddings of a transformer."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from firth.contextual.tokenizer import Tokenizer
from firth.models.fasttext import SubwordVectors
from firth.vectors import Vectors


@dataclasses.dataclass(frozen=True, eq=False)
class StaticStart:
    """Rows of the embedding made of static vectors, float32 (tokens, dim); zeros where `found` (tokens,) is False.

    `words` tokens are words of the vectors; the rows of `composed` tokens were composed of character n-grams.
    """

    rows: NDArray[np.float32]
    found: NDArray[np.bool_]
    words: int
    composed: int

    def __repr__(self) -> str:
        others = len(self.found) - self.words - self.composed
        return f"<StaticStart: {self.words} tokens are words, {self.composed} composed, {others} without a vector>"


def static_rows(
    vectors: Vectors, tokenizer: Tokenizer, dim: int, *, project: bool = False, std: float | None = None, seed: int = 1
) -> StaticStart:
    """Rows for the tokens that have a static vector.

    A token that begins a word takes the row of the word that it spells, or of that word in lower case. With subword
    vectors (fastText's), other tokens take the vector composed of their character n-grams.

    With `project`, vectors of another size are mapped to `dim` linearly: to their principal axes, as many as fit, and
    from there by a random isometry of the seed. No map of that rank preserves their inner products better. One factor
    scales all rows to the standard deviation `std`, if given. ValueError if sizes differ and `project` is False; if no
    token has a vector, or one is not finite.
    """
    found = np.zeros(len(tokenizer), np.bool_)
    rows = np.zeros((len(tokenizer), vectors.vector_size), np.float32)
    check_size(vectors, dim, project)
    subwords = vectors.subwords if isinstance(vectors, SubwordVectors) else None
    words = 0
    for i, (text, continues) in enumerate(zip(tokenizer.spellings, tokenizer.continues, strict=True)):
        if text is None:
            continue
        name = None if continues else next((word for word in (text, text.lower()) if word in vectors.index), None)
        if name is not None:
            rows[i], found[i] = vectors[name], True
            words += 1
        elif subwords is not None and (row := subwords.compose(text)) is not None:
            rows[i], found[i] = row, True
    if not found.any():
        raise ValueError(
            f"none of the {len(tokenizer)} tokens is among the {len(vectors)} pretrained vectors: check their language "
            "and spelling"
        )
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise ValueError(f"pretrained_vectors hold a vector that is not finite, that of {tokenizer.tokens[wrong[0]]!r}")
    composed = int(found.sum()) - words
    if vectors.vector_size != dim:
        rows = _mapped(rows, found, dim, seed)
    if std is not None:
        rows *= np.float32(std / max(float(rows[found].astype(np.float64).std()), 1e-30))
    return StaticStart(rows, found, words, composed)


def check_size(vectors: Vectors, dim: int, project: bool) -> None:
    """ValueError if vectors have another size than the embedding, and are not to be mapped."""
    size = vectors.vector_size
    if size != dim and not project:
        raise ValueError(
            f"pretrained_vectors have {size} dimensions and dim is {dim}: set dim={size}, or "
            "embedding_project=True to map them linearly"
        )


def _mapped(rows: NDArray[np.float32], found: NDArray[np.bool_], dim: int, seed: int) -> NDArray[np.float32]:
    given = rows[found].astype(np.float64)
    rank = min(given.shape[1], dim)
    axes = np.linalg.eigh(given.T @ given)[1][:, ::-1][:, :rank]
    isometry = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, rank)))[0].T
    mapped = np.zeros((len(rows), dim), np.float32)
    mapped[found] = given @ axes @ isometry
    return mapped
