"""Vectors from a matrix of counts and its singular values: PPMI and latent semantic analysis."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tqdm import tqdm

from firth import _core, files
from firth.checks import expect, whole_number
from firth.corpus import Corpus, Vocabulary
from firth.counts import Cooccurrences, Weighting
from firth.models.base import DirectModel, Layout, Tensors
from firth.models.counted import CountsModel, known_counts
from firth.options import option, seed_option, threads_option
from firth.run import records
from firth.runtime import Threaded, padded_rows, thread_count
from firth.vectors import Vectors

_BLOCK = 32  # columns multiplied at once: two registers of AVX-512, and rows of two cache lines
_SPARE = 128  # dimensions beyond twice those asked for
_ENTRIES = 1 << 20  # of a matrix, handled at once
_ROUNDS = 8  # of orthonormalization; two suffice unless the matrix has low rank


def truncated_svd(
    matrix: sparse.csr_array[Any], k: int, *, seed: int = 1, threads: int | None = None, progress: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
    r"""The k greatest singular values of a sparse matrix and their singular vectors: A ≈ U diag(s) Vᵀ.

    U (rows, k) and V (columns, k) are float32 with orthonormal columns, s (k,) float64 and descending. In each column
    of U the component of greatest magnitude is positive. The bits depend on the `seed`, not on `threads`; the small
    dense steps run on NumPy's own threads.

    Randomized block Krylov iteration (Musco & Musco 2015, algorithm 2): the singular vectors are approximated in the
    space of :math:`\Omega, A^T A \Omega, (A^T A)^2 \Omega, \dots`, of 2 k + 128 dimensions in steps of 32. Block
    Golub-Kahan bidiagonalization computes its basis; every new block is orthogonalized against all earlier ones. On a
    PPMI matrix of sixty thousand words this explains more of the variance than five power iterations (Halko, Martinsson
    & Tropp 2011, algorithm 4.4) with half the products. It needs 4 (rows + columns) (2 k + 128) bytes besides A. A
    matrix with a side of at most so many dimensions is made dense and decomposed exactly.
    """
    matrix = sparse.csr_array(matrix).astype(np.float32, copy=False)
    rows, columns = matrix.shape
    k = whole_number("k", k, low=1, high=min(rows, columns))
    workers = thread_count(threads)
    if not np.isfinite(matrix.data).all():
        raise ValueError("the matrix contains numbers that are not finite")
    n_blocks = -(-(2 * k + _SPARE) // _BLOCK)
    if min(rows, columns) <= n_blocks * _BLOCK:
        left, values, right = np.linalg.svd(matrix.toarray().astype(np.float64), full_matrices=False)
        u, s, v = left[:, :k].astype(np.float32), values[:k], right[:k].T.astype(np.float32)
    else:
        u, s, v = _block_krylov(matrix, k, n_blocks, seed, workers, progress)
    signs = np.where(u[np.abs(u).argmax(axis=0), np.arange(k)] < 0, np.float32(-1), np.float32(1))
    return u * signs, s, v * signs


def _block_krylov(
    matrix: sparse.csr_array[Any], k: int, n_blocks: int, seed: int, threads: int, progress: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
    rows, columns = matrix.shape
    if not matrix.has_sorted_indices:
        matrix = matrix.sorted_indices()
    size = n_blocks * _BLOCK
    left, right = padded_rows(rows, size), padded_rows(columns, size)
    small = np.zeros((size, size))  # leftᵀ A right
    block = padded_rows(columns, _BLOCK)
    _core.fill_uniform(block, scale=1.0, seed=seed, threads=threads)
    with tqdm(total=2 * n_blocks - 1, desc="svd", unit="product", disable=not progress) as bar:
        for j in range(n_blocks):
            begin, end = j * _BLOCK, (j + 1) * _BLOCK
            block = right[:, begin:end] = _orthonormal(block, right[:, :begin], seed, threads)
            product = _times(_core.sparse_times_dense, matrix, block, padded_rows(rows, _BLOCK), threads)
            bar.update()
            block = left[:, begin:end] = _orthonormal(product, left[:, :begin], seed, threads)
            small[:end, begin:end] = left[:, :end].T @ product
            if j + 1 < n_blocks:
                block = _times(
                    _core.sparse_transposed_times_dense, matrix, block, padded_rows(columns, _BLOCK), threads
                )
                bar.update()
    u, s, v = np.linalg.svd(small)
    return left @ u[:, :k].astype(np.float32), s[:k], right @ v[:k].T.astype(np.float32)


def _times(
    kernel: Callable[..., None],
    matrix: sparse.csr_array[Any],
    dense: NDArray[np.float32],
    out: NDArray[np.float32],
    threads: int,
) -> NDArray[np.float32]:
    """Fill `out` with the product of the matrix, or of its transpose, with a dense one."""
    kernel(
        out,
        indptr=matrix.indptr.astype(np.int64, copy=False),
        indices=matrix.indices.astype(np.int32, copy=False),
        data=matrix.data,
        dense=dense,
        threads=threads,
    )
    return out


def _orthonormal(
    block: NDArray[np.float32], basis: NDArray[np.float32], seed: int, threads: int
) -> NDArray[np.float32]:
    """Orthonormal columns that span the block's columns, orthogonal to those of the basis.

    By the eigenvectors of the block's Gram matrix (Stathopoulos & Wu 2002), which takes matrix products only: several
    times as fast as Householder's QR. The next round corrects the rounding errors of this one. Directions in which the
    block is 0, as with a matrix of low rank, become random ones.
    """
    for attempt in range(_ROUNDS):
        overlap = basis.T @ block
        block = block - basis @ overlap
        gram = (block.T @ block).astype(np.float64)
        before = float((gram.diagonal() + np.square(overlap, dtype=np.float64).sum(axis=0)).max())
        values, rotation = np.linalg.eigh(gram)
        floor = max(1e-6 * float(values[-1]), 1e-30)  # below it, a float32 Gram matrix is rounding error
        turned = padded_rows(*block.shape)
        np.matmul(block, (rotation / np.sqrt(np.maximum(values, floor))).astype(np.float32), out=turned)
        block = turned
        missing = values < floor
        if attempt >= 2 and missing.any():
            fresh = padded_rows(*block.shape)
            _core.fill_uniform(fresh, scale=block.shape[0] ** -0.5, seed=seed ^ (basis.shape[1] + 1), threads=threads)
            block[:, missing] = fresh[:, missing]
        elif values[0] > 0.1 * before:  # the projection removed little, so rounding lost little
            break
    return block


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class _Spectral(Threaded, DirectModel):
    """PPMI and LSA: vectors are singular vectors times a power of the singular values."""

    seed: int = seed_option()
    threads: int | None = threads_option()

    @property
    def singular_values(self) -> NDArray[np.float64]:
        """The singular values of the matrix, (vector_size,), descending; AttributeError without a decomposition."""
        if "singular_values" not in self._tensors:
            raise AttributeError(f"this {type(self).__name__} has no singular values: it has not been fitted with them")
        return self._tensors["singular_values"]

    def _decompose(
        self, matrix: sparse.csr_array[Any], vector_size: int, power: float, progress: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
        """U S^p, S and V S^p; rows and columns without an entry are zeros, as are dimensions beyond the rank."""
        if vector_size > min(matrix.shape):
            raise ValueError(
                f"vector_size={vector_size} is more than the smaller side of a matrix of {matrix.shape[0]} rows and "
                f"{matrix.shape[1]} columns; set vector_size={min(matrix.shape)} or less, or give more text"
            )
        u, s, v = truncated_svd(matrix, vector_size, seed=self.seed, threads=self.n_threads, progress=progress)
        known = s > 1e-6 * s[0]  # the others are rounding errors of 0, and 0 ** 0 would be 1
        scale = np.where(known, np.where(known, s, 1.0) ** power, 0.0).astype(np.float32)
        scaled = padded_rows(*u.shape), padded_rows(*v.shape)
        np.multiply(u, scale, out=scaled[0])
        np.multiply(v, scale, out=scaled[1])
        empty = np.ones(matrix.shape[1], np.bool_)
        for start in range(0, matrix.nnz, _ENTRIES):  # an index array is copied as int64
            empty[matrix.indices[start : start + _ENTRIES]] = False
        scaled[0][np.diff(matrix.indptr) == 0] = 0
        scaled[1][empty] = 0
        return scaled[0], s, scaled[1]

    def _layout(self, n_words: int) -> Layout:
        return {**super()._layout(n_words), "singular_values": (np.float64, (self.get_params()["vector_size"],))}

    def _restore(self, tensors: Tensors, metadata: dict[str, Any]) -> None:
        super()._restore(tensors, metadata)
        if missing := self._layout(len(self._words)).keys() - {"counts"} - self._tensors.keys():
            raise TypeError(f"it lacks {', '.join(sorted(missing))}")


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class PPMI(CountsModel, _Spectral):
    r"""Positive pointwise mutual information of words and their contexts, made dense by its singular values.

    The matrix is that of `Cooccurrences.pmi`; of its decomposition :math:`U \Sigma V^T`, cut to `vector_size`, the
    words' vectors are :math:`U \Sigma^p` (Levy, Goldberg & Dagan 2015, sections 2.3 and 3.3).

    Notes
    -----
    With `vector_size` None there is no decomposition: `matrix` is the sparse PPMI matrix, and there are no `vectors`.
    `window`, `side` and `weighting` say how a corpus is counted (`firth.count_cooccurrences`); counts have their own.
    log `shift` is subtracted from every entry, as `shift` negative samples do in word2vec (Levy & Goldberg 2014). p is
    `eigenvalue_weighting`. 0 drops the singular values, which is best for similarity (nine million words of Wikipedia,
    100 dimensions: WordSim-353 62.0 with 0, 58.7 with 0.5, 50.0 with 1); 1 keeps them unchanged. The bits of the
    vectors do not depend on `threads`, as long as the number of NumPy's own threads (``OPENBLAS_NUM_THREADS``) stays
    the same.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", tokenizer="words")
    >>> model = firth.PPMI(vector_size=100, window=10).fit(corpus)
    >>> neighbors = model.vectors.most_similar("bank")
    """

    vector_size: int | None = option(100, low=1, high=1_000_000, help="Dimensions of a vector.")
    weighting: Weighting = option(
        "dynamic", help="Weight of a context word at distance d: 1; or 1/d; or (window - d + 1) / window."
    )
    shift: float = option(
        1.0,
        above=0,
        high=1e30,
        help="Subtract the logarithm of this from each value: the number of negative samples in word2vec.",
    )
    context_smoothing: float = option(0.75, low=0, high=10, help="Raise the counts of context words to this power.")
    positive: bool = option(True, help="Keep only values above zero, or all values.")
    eigenvalue_weighting: float = option(
        0.0, low=0, high=10, help="Scale dimensions by their singular values to this power."
    )

    def _compute(self, data: Corpus | Cooccurrences, *, progress: bool) -> Tensors:
        counts = self._counted(data, progress)
        matrix = counts.pmi(shift=self.shift, context_smoothing=self.context_smoothing, positive=self.positive)
        if not matrix.data.any():
            raise ValueError(
                f"no two words occur together more often than by chance, with shift={self.shift} and "
                f"positive={self.positive}: there is nothing to train on. Give more text, in documents of several "
                "different words"
            )
        if self.vector_size is None:
            tensors: Tensors = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
        else:
            vectors, s, context = self._decompose(matrix, self.vector_size, self.eigenvalue_weighting, progress)
            tensors = {"vectors": vectors, "context": context, "singular_values": s}
        return {**tensors, **known_counts(data.vocabulary)}

    @property
    def matrix(self) -> sparse.csr_array[np.float32]:
        """The sparse PPMI matrix (words, words); AttributeError with a `vector_size`, or before `fit`."""
        if self.vector_size is not None:
            raise AttributeError("only PPMI(vector_size=None) keeps its matrix; Cooccurrences.pmi() computes it")
        data, indices, indptr = (self._fitted_tensor(name) for name in ("data", "indices", "indptr"))
        n = len(self._words)
        return sparse.csr_array((data, indices, indptr), shape=(n, n))

    @property
    def vectors(self) -> Vectors:
        """The words' vectors; AttributeError before `fit`, or with ``vector_size=None``."""
        if self.vector_size is None and "data" in self._tensors:
            raise AttributeError("PPMI(vector_size=None) has no dense vectors; the rows of `matrix` are sparse ones")
        return super().vectors

    def save(self, path: files.PathLike) -> None:
        """Write the whole model as one safetensors file, which `firth.load` opens."""
        self._fitted_tensor("data" if self.vector_size is None else "vectors")
        self._write(path)

    def _layout(self, n_words: int) -> Layout:
        return {**super()._layout(n_words), "context": (np.float32, (n_words, self.vector_size))}

    def _restore(self, tensors: Tensors, metadata: dict[str, Any]) -> None:
        if self.vector_size is not None:
            super()._restore(tensors, metadata)
            return
        words = Vocabulary(files.unpack_words(tensors), tensors.get("counts"))
        parts = {name: np.array(tensors[name]) for name in ("data", "indices", "indptr")}
        expect("data", parts["data"], np.float32, (None,))
        try:
            sparse.csr_array(tuple(parts.values()), shape=(len(words), len(words))).check_format()
        except ValueError as error:
            raise TypeError(f"the parts of its matrix do not fit together: {error}") from None
        self._words, self._tensors = words.words, {**parts, **known_counts(words)}
        self.history = records(metadata["history"])


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class LSA(_Spectral):
    r"""Latent semantic analysis: words by the documents in which they occur (Deerwester et al. 1990).

    With the weighted matrix of words and documents :math:`U \Sigma V^T`, truncated to `vector_size`, the words' vectors
    are :math:`U \Sigma^p`, and the documents' :math:`V \Sigma^p`. The vectors depend on what a document is: a line, a
    paragraph or an article.

    Notes
    -----
    The weight of a word that occurs :math:`f_{ij}` times in document j, of n documents, is with "log-entropy"
    :math:`\log(1 + f_{ij}) (1 + \sum_j p_{ij} \log p_{ij} / \log n)`, where :math:`p_{ij} = f_{ij} / \sum_k f_{ik}`
    (Dumais 1991); with "tf-idf" :math:`f_{ij} \log(n / n_i)`, where :math:`n_i` documents contain the word. p is
    `eigenvalue_weighting`; Deerwester et al. keep the singular values unchanged, p = 1.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", tokenizer="words")
    >>> model = firth.LSA(vector_size=20).fit(corpus)
    >>> model.document_vectors[0].shape
    (20,)
    """

    vector_size: int = option(100, low=1, high=1_000_000, help="Dimensions of a vector.")
    weighting: Literal["tf-idf", "log-entropy"] = option("log-entropy", help="Weight of a word's count in a document.")
    eigenvalue_weighting: float = option(
        0.5, low=0, high=10, help="Scale dimensions by their singular values to this power."
    )

    def _compute(self, data: Corpus, *, progress: bool) -> Tensors:
        matrix = _weighted_documents(data, self.weighting)
        if not matrix.data.any():
            raise ValueError(
                f"no word distinguishes the documents, so weighting={self.weighting!r} makes all weights 0. "
                "Give documents of different words"
            )
        documents, s, vectors = self._decompose(matrix, self.vector_size, self.eigenvalue_weighting, progress)
        tensors: Tensors = {"vectors": vectors, "documents": documents, "singular_values": s}
        return {**tensors, **known_counts(data.vocabulary)}

    def _layout(self, n_words: int) -> Layout:
        return {**super()._layout(n_words), "documents": (np.float32, (None, self.vector_size))}

    @property
    def document_vectors(self) -> NDArray[np.float32]:
        """The vectors of the corpus' documents, (documents, vector_size); AttributeError before `fit`."""
        return self._fitted_tensor("documents")


def _weighted_documents(corpus: Corpus, weighting: str) -> sparse.csr_array[np.float32]:
    """The weight of each word in each document: (documents, words)."""
    n_documents, n_words = len(corpus), len(corpus.vocabulary)
    _core.count_words(corpus.ids, corpus.offsets, n_words)  # refuses ids without a word
    ones = np.ones(corpus.n_tokens, np.float32)
    matrix = sparse.csr_array((ones, corpus.ids, corpus.offsets), shape=(n_documents, n_words), copy=True)
    matrix.sum_duplicates()
    frequency, words = matrix.data, matrix.indices
    if weighting == "tf-idf":
        documents = np.bincount(words, minlength=n_words)
        idf = np.log(n_documents / np.maximum(documents, 1)).astype(np.float32)
        matrix.data = frequency * idf[words]
    else:
        total = np.maximum(np.bincount(words, frequency, n_words), 1)
        # The sum of p log p with p = f / total.
        information = np.bincount(words, frequency * np.log(frequency), n_words) / total - np.log(total)
        entropy = 1 + information / np.log(max(n_documents, 2))
        matrix.data = np.log1p(frequency) * entropy.astype(np.float32)[words]
    return matrix
