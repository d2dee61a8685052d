"""The static half's vectors as the beginning of a transformer's embeddings."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from firth.contextual.tokenizer import Tokenizer
from firth.models.fasttext import SubwordVectors
from firth.vectors import Vectors


@dataclasses.dataclass(frozen=True, eq=False)
class StaticStart:
    """Rows of W_E made of static vectors.

    Attributes
    ----------
    rows : ndarray
        float32 (pieces, dim); zeros where there is none.
    found : ndarray
        bool (pieces,): which pieces have a row.
    words : int
        Pieces that are words of the vectors.
    composed : int
        Pieces that are no words, or unknown ones, and were composed of their n-grams of characters.
    """

    rows: NDArray[np.float32]
    found: NDArray[np.bool_]
    words: int
    composed: int

    def __repr__(self) -> str:
        others = len(self.found) - self.words - self.composed
        return f"<StaticStart: {self.words} pieces are words, {self.composed} composed, {others} without a vector>"


def static_rows(
    vectors: Vectors, tokenizer: Tokenizer, dim: int, *, project: bool = False, std: float | None = None, seed: int = 1
) -> StaticStart:
    """A row for each piece that vectors have something for.

    A piece that begins a word takes the row of the word it spells, or of that word in lower case; where the vectors
    compose words of n-grams (fastText's), words unknown to them, and pieces within words, take what their characters
    give.

    Parameters
    ----------
    vectors
        The static vectors.
    tokenizer
        Its pieces are the rows.
    dim
        Numbers in a row.
    project
        Whether vectors of another size are mapped to `dim` linearly: by their principal axes, as many as there are or
        fit, and from there by a random isometry. No map of that rank keeps more of their inner products.
    std
        Scale all rows by one number, so that this is the standard deviation of theirs; None: as they are.
    seed
        Of the isometry.

    Raises
    ------
    ValueError
        If sizes differ and `project` is False; if no piece has a vector, or one is not finite.
    """
    found = np.zeros(len(tokenizer), np.bool_)
    rows = np.zeros((len(tokenizer), vectors.vector_size), np.float32)
    if vectors.vector_size != dim and not project:
        raise ValueError(
            f"pretrained_vectors have {vectors.vector_size} dimensions and dim is {dim}: set "
            f"dim={vectors.vector_size}, or embedding_project=True to map them linearly"
        )
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
            f"none of the {len(tokenizer)} pieces is among the {len(vectors)} pretrained vectors: are they of another "
            "language, or of words in another spelling?"
        )
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise ValueError(f"pretrained_vectors hold a vector that is not finite, that of {tokenizer.pieces[wrong[0]]!r}")
    composed = int(found.sum()) - words
    if vectors.vector_size != dim:
        rows = _mapped(rows, found, dim, seed)
    if std is not None:
        rows *= np.float32(std / max(float(rows[found].astype(np.float64).std()), 1e-30))
    return StaticStart(rows, found, words, composed)


def _mapped(rows: NDArray[np.float32], found: NDArray[np.bool_], dim: int, seed: int) -> NDArray[np.float32]:
    given = rows[found].astype(np.float64)
    rank = min(given.shape[1], dim)
    axes = np.linalg.eigh(given.T @ given)[1][:, ::-1][:, :rank]
    isometry = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, rank)))[0].T
    mapped = np.zeros((len(rows), dim), np.float32)
    mapped[found] = given @ axes @ isometry
    return mapped
