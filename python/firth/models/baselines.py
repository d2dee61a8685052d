"""Vectors that nothing was learnt for: the floor that a comparison of models stands on."""

from __future__ import annotations

import dataclasses
import math
import mmap
import typing
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from firth import _core, files
from firth.corpus import Corpus
from firth.counts import Cooccurrences
from firth.models.base import Model, one_at_a_time, option
from firth.runtime import default_threads, padded_rows, padded_size

if typing.TYPE_CHECKING:
    from typing_extensions import Self


@dataclasses.dataclass(kw_only=True, eq=False)
class OneHot(Model):
    """One dimension for each word: the vectors are the identity matrix.

    Every two words have the cosine 0, so that whatever is measured with these vectors comes from which words there are,
    not from what they mean. Of use for small vocabularies, as the floor in a comparison: vectors are as long as the
    vocabulary. On Linux the zeros, the same page over and over, take hardly any memory until they are written to a
    file; elsewhere, and in a file, the matrix takes 4 bytes for each pair of words.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", tokenizer="words")
    >>> model = firth.OneHot().fit(corpus)
    >>> model.vectors.similarity("bank", "river")
    0.0
    """

    learns_from: ClassVar[tuple[type, ...]] = (Corpus, Cooccurrences)

    @one_at_a_time
    def fit(self, data: Corpus | Cooccurrences, *, progress: bool = False) -> Self:
        """Give each word of the vocabulary its dimension.

        Parameters
        ----------
        data
            A `Corpus` or `Cooccurrences`; of it only the vocabulary counts.
        progress
            For the sake of the other models: there is nothing to wait for.

        Returns
        -------
        Self
            The model; `vectors` has the shape (words, words).

        Raises
        ------
        MemoryError
            If the matrix cannot be had, naming the bytes.
        """
        self._check_data(data)
        self._tensors = {"vectors": _identity(len(data.vocabulary))}
        self._words = data.vocabulary.words
        self._view = None
        return self

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        words = files.unpack_words(tensors)
        if tensors["vectors"].shape != (len(words), len(words)):
            raise TypeError(f"vectors of shape {tensors['vectors'].shape} for {len(words)} words")
        # What the file holds is known, and its zeros would be read into memory of their own.
        self._tensors = {"vectors": _identity(len(words))}
        self._words = words
        self._view = self._vectors_of(self._tensors["vectors"])  # now, so that an error is one about the file


@dataclasses.dataclass(kw_only=True, eq=False)
class RandomVectors(Model):
    r"""Random vectors: every number drawn uniformly from :math:`\pm\sqrt{3/D}`.

    The floor in a comparison with learnt vectors of the same size: the expected squared length is 1, the expected
    cosine of two words 0, and its standard deviation :math:`1/\sqrt{D}`. Random projections of this kind keep distances
    (Achlioptas 2003).

    Parameters
    ----------
    vector_size
        D, numbers in a vector.
    seed
        Same seed: the same vectors to the bit, at any number of threads.
    threads
        None: every processor this process may use.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", tokenizer="words")
    >>> model = firth.RandomVectors(vector_size=100, seed=1).fit(corpus)
    >>> model.vectors["bank"].shape
    (100,)
    """

    learns_from: ClassVar[tuple[type, ...]] = (Corpus, Cooccurrences)

    vector_size: int = option(100, low=1, high=1_000_000)
    seed: int = option(1, low=0, high=2**63 - 1)
    threads: int | None = option(None, low=1, high=4096)

    @one_at_a_time
    def fit(self, data: Corpus | Cooccurrences, *, progress: bool = False) -> Self:
        """Draw a vector for each word of the vocabulary.

        Parameters
        ----------
        data
            A `Corpus` or `Cooccurrences`; of it only the vocabulary counts.
        progress
            For the sake of the other models: there is nothing to wait for.

        Returns
        -------
        Self
            The model, fitted.

        Raises
        ------
        MemoryError
            If the matrix does not fit, naming the bytes.
        """
        self._check_data(data)
        vectors = padded_rows(len(data.vocabulary), self.vector_size)
        threads = self.threads or default_threads()
        _core.fill_uniform(vectors, scale=math.sqrt(3 / self.vector_size), seed=self.seed, threads=threads)
        self._tensors = {"vectors": vectors}
        self._words = data.vocabulary.words
        self._view = None
        return self


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
    # NumPy asks for huge pages, and the one number in a row would make two megabytes real. Pages of 4 KiB that nobody
    # writes to are all the system's one page of zeros; it has to be a private mapping, as shared ones have their own.
    memory = mmap.mmap(-1, 4 * rows * stride, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, np.float32).reshape(rows, stride)
