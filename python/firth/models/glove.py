"""GloVe: vectors whose dot products approximate the logarithms of co-occurrence counts."""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from firth import _core
from firth.corpus import Corpus
from firth.counts import Cooccurrences
from firth.models.base import GradientModel, Layout
from firth.models.counted import CountsModel, known_counts
from firth.options import option
from firth.run import Tally, Train, loss_units
from firth.runtime import padded_rows, padded_size


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class GloVe(CountsModel, GradientModel):
    r"""Global vectors: a weighted least-squares fit of the logarithms of co-occurrence counts.

    For each word i and context word j that occur together :math:`x_{ij}` times, the cost is

    .. math::
        \tfrac12 f(x_{ij}) (w_i \cdot c_j + b_i + b'_j - \log x_{ij})^2, \quad
        f(x) = \min(1, (x / x_{max})^\alpha)

    (Pennington, Socher & Manning 2014, equations 8 and 9). The loss in `history` is its mean over the non-zeros, as in
    the published program.

    Notes
    -----
    `window`, `side` and `weighting` say how a corpus is counted (`firth.count_cooccurrences`); counts have their own.
    The paper uses `x_max` = 100 for billions of words; with a few million, 10 is better. `output` "sum", w + c, is what
    the paper recommends (section 4.2). The components of the gradient are clipped before the learning rate. AdaGrad
    multiplies the step by the rate before its square is added to the sums, as in the published program: they grow
    slower, and steps stay larger, than in its usual form. The vectors are the same, to the bit, for any number of
    threads.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", tokenizer="words")
    >>> model = firth.GloVe(vector_size=100, x_max=10).fit(corpus)
    >>> counts = firth.count_cooccurrences(corpus, window=10)
    >>> model = firth.GloVe(vector_size=300).fit(counts)
    """

    unit = "non-zeros"
    scratch = ("word_squares", "word_bias_squares", "context_squares", "context_bias_squares")

    vector_size: int = option(100, low=1, high=1_000_000, help="Dimensions of a vector.")
    x_max: float = option(100.0, low=1e-30, high=3e38, help="Pairs that occur at least this often weigh the same.")
    alpha: float = option(
        0.75, low=0, high=10, help="Pairs that occur less often than `x_max` weigh as their count to this power."
    )
    learning_rate: float = option(
        0.05, above=0, high=3e38, help="Step size at the start; it falls as squared gradients add up (AdaGrad)."
    )
    clip_value: float = option(100.0, above=0, high=3e38, help="Largest absolute value of a gradient's component.")
    output: Literal["sum", "word"] = option(
        "sum", help="Write the sum of a word's vector and its context vector, or the word's vector alone."
    )
    epochs: int = option(25, low=1, high=1_000_000, help="Passes over the counts.")

    @property
    def context(self) -> NDArray[np.float32]:
        """The vectors c of context words (words, D); AttributeError before `fit`."""
        return self._fitted_tensor("context")

    def estimate_memory(self, data: Corpus | Cooccurrences) -> dict[str, int]:
        """Estimate the bytes that `fit` needs, and their ``total``; an upper bound if the data are a corpus.

        ``counts``: the matrix (on disk, if it was opened from a file); ``entries``: its copy in the order of training;
        ``matrices``: vectors, context vectors and AdaGrad's sums; ``output``: the resulting vectors and those of the
        last whole epoch.
        """
        words = len(data.vocabulary)
        if isinstance(data, Corpus):
            counts = _core.count_words(data.ids, data.offsets, words)
            reach = 2 * self.window if self.side == "both" else self.window
            nonzeros = int(np.minimum(counts * reach, words).sum())
        else:
            nonzeros = data.csr.nnz
        sizes = {
            "counts": 8 * nonzeros + 8 * words,
            "entries": 8 * nonzeros,
            "matrices": 4 * 4 * words * padded_size(self.vector_size + 2),
            "output": 4 * words * (self.vector_size + padded_size(self.vector_size)),
        }
        return {**sizes, "total": sum(sizes.values())}

    def _begin(self, data: Corpus | Cooccurrences, *, progress: bool) -> tuple[int, Train]:
        counts = self._counted(data, progress)
        csr, words, size = counts.csr, len(counts.vocabulary), self.vector_size
        if csr.nnz == 0:
            raise ValueError(
                "no two words of the corpus are near each other: every document has a single token. Make documents "
                "longer: each line of a file, or each list of words, is a document"
            )
        tiles = _core.GloveTiles(
            csr.indptr.astype(np.int64), csr.indices, csr.data, seed=self.seed, threads=self.n_threads
        )
        nonzeros, vocabulary = csr.nnz, counts.vocabulary
        del counts, csr, data
        # A row has a vector and sums of squares, each with two more columns: the bias, and the 1 that multiplies it.
        stride = padded_size(size + 2)
        both = padded_rows(2 * words, 2 * stride)
        _core.fill_uniform(both[:, : size + 1], scale=0.5 / (size + 1), seed=self.seed, threads=self.n_threads)
        both[:, stride:] = 1
        word, context = both[:words], both[words:]
        word[:, size + 1] = 1
        context[:, size + 1] = context[:, size]
        context[:, size] = 1
        self._tensors = {"vectors": padded_rows(words, size) if self.output == "sum" else word[:, :size]}
        for name, side, bias in (("word", word, size), ("context", context, size + 1)):
            self._tensors |= {
                name: side[:, :size],
                f"{name}_bias": side[:, bias],
                f"{name}_squares": side[:, stride : stride + size],
                f"{name}_bias_squares": side[:, stride + bias],
            }
        self._tensors |= known_counts(vocabulary)
        self._settle()

        def train(begin: int, end: int, epoch: int) -> Tally:
            whole, part, entries, row = tiles.train(
                word,
                context,
                begin=begin,
                end=end,
                epoch=epoch,
                threads=self.n_threads,
                **self._some("vector_size", "x_max", "alpha", "learning_rate", "clip_value"),
            )
            if row >= 0:
                return Tally(0, entries, f"the words from {self._words[row]!r} on")
            return Tally(loss_units(whole) + loss_units(part), entries)

        return nonzeros, train

    def _settle(self) -> None:
        if self.output == "sum" and "word" in self._tensors:
            np.add(self._tensors["word"], self._tensors["context"], out=self._tensors["vectors"])

    def _learning_rate(self, progress: float) -> float:
        return self.learning_rate

    def _no_example(self, data: Corpus | Cooccurrences) -> str:
        return "the counts have no pair of words"

    def _layout(self, n_words: int) -> Layout:
        matrix, vector = (np.float32, (n_words, self.vector_size)), (np.float32, (n_words,))
        own = {"word": matrix, "word_bias": vector, "context": matrix, "context_bias": vector}
        return {**super()._layout(n_words), **own}
