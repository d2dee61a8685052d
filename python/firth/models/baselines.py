"""Untrained vectors: the baselines of a comparison of models."""

from __future__ import annotations

import dataclasses
import math
import mmap
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from firth import _core, files
from firth.corpus import Corpus
from firth.counts import Cooccurrences
from firth.models.base import DirectModel, Tensors
from firth.options import option, seed_option, threads_option
from firth.runtime import Threaded, padded_rows, padded_size


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class OneHot(DirectModel):
    """One dimension for each word: the vectors are the identity matrix.

    Any two words have the cosine 0, so a result with these vectors depends on which words occur, not on their meaning.
    A baseline for small vocabularies: `fit` reads only the vocabulary of its data, and vectors are as long as the
    vocabulary. On Linux the zeros share one page and take hardly any memory; elsewhere, and in a file, the matrix takes
    4 bytes for each pair of words.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", tokenizer="words")
    >>> model = firth.OneHot().fit(corpus)
    >>> model.vectors.similarity("bank", "river")
    0.0
    """

    learns_from: ClassVar[tuple[type, ...]] = (Corpus, Cooccurrences)

    def _compute(self, data: Corpus | Cooccurrences, *, progress: bool) -> Tensors:
        return {"vectors": _identity(len(data.vocabulary))}

    def _restore(self, tensors: Tensors, metadata: dict[str, Any]) -> None:
        words = files.unpack_words(tensors)
        if tensors["vectors"].shape != (len(words), len(words)):
            raise TypeError(f"vectors of shape {tensors['vectors'].shape} for {len(words)} words")
        # The matrix is known without reading it, and reading its zeros would take memory.
        self._tensors = {"vectors": _identity(len(words))}
        self._words = words
        self._view = self._vectors_of(self._tensors["vectors"])  # now, so that an error names the file


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class RandomVectors(Threaded, DirectModel):
    r"""Random vectors: D dimensions, every number drawn uniformly from :math:`\pm\sqrt{3/D}`.

    A baseline for trained vectors of the same size: the expected squared length is 1, the expected cosine of two words
    0, and its standard deviation :math:`1/\sqrt{D}`. Random projections of this kind preserve distances (Achlioptas
    2003). `fit` reads only the vocabulary of its data. The number of threads does not change the vectors.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", tokenizer="words")
    >>> model = firth.RandomVectors(vector_size=100, seed=1).fit(corpus)
    >>> model.vectors["bank"].shape
    (100,)
    """

    learns_from: ClassVar[tuple[type, ...]] = (Corpus, Cooccurrences)

    vector_size: int = option(100, low=1, high=1_000_000, help="Dimensions of a vector.")
    seed: int = seed_option()
    threads: int | None = threads_option()

    def _compute(self, data: Corpus | Cooccurrences, *, progress: bool) -> Tensors:
        vectors = padded_rows(len(data.vocabulary), self.vector_size)
        scale = math.sqrt(3 / self.vector_size)
        _core.fill_uniform(vectors, scale=scale, seed=self.seed, threads=self.n_threads)
        return {"vectors": vectors}


def _identity(n: int) -> NDArray[np.float32]:
    """The identity matrix (n, n), with rows as those of `padded_rows`."""
    stride = padded_size(n)
    size = 4 * n * stride
    try:
        matrix = _zeros(n, stride)[:, :n]
    except (MemoryError, OSError, OverflowError):
        raise MemoryError(
            f"no memory for one-hot vectors of {n} words ({size} bytes); a smaller vocabulary helps: "
            "max_size= of the corpus"
        ) from None
    np.einsum("ii->i", matrix)[:] = 1
    return matrix


def _zeros(rows: int, stride: int) -> NDArray[np.float32]:
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return padded_rows(rows, stride)
    # NumPy asks for huge pages: the one number in a row would allocate two megabytes. Unwritten pages of 4 KiB share
    # the system's page of zeros, in a private mapping only.
    memory = mmap.mmap(-1, 4 * rows * stride, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(rows, stride)
