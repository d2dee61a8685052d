"""word2vec: skip-gram and CBOW, with negative sampling or hierarchical softmax."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from firth import _core
from firth.corpus import Corpus, Vocabulary
from firth.models.base import GradientModel, Layout
from firth.options import option, seed_option
from firth.run import Tally, Train, loss_units
from firth.runtime import padded_rows, padded_size

# Training tokens, per word of a short text or in all, after which vectors of the default size have left their random
# start. Measured on texts of some tens of words.
_STEPS_PER_WORD = 200
_ENOUGH_STEPS = 10_000

# Tokens from which deterministic training works in rounds. In a shorter text a round of 2,048 tokens is so large a part
# of an epoch that the first epochs lag behind, and one thread trains it in seconds.
_ROUNDS_FROM = 1 << 20

Bags = tuple[NDArray[np.int64], NDArray[Any]]  # where each word's begin, and what they hold


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class Word2Vec(GradientModel):
    r"""Word vectors that predict context words from the center word (skip-gram), or the reverse (CBOW).

    Skip-gram predicts each word near a word w from the vector of w; CBOW predicts w from the mean, or sum, of the
    vectors of the words near it. With h the input vector and c the target word, negative sampling has the loss

    .. math:: -\log\sigma(h \cdot u_c) - \sum_{k=1}^{K} \log\sigma(-h \cdot u_{n_k})

    for K negative samples from the noise distribution (Mikolov, Sutskever, Chen, Corrado & Dean 2013, equation 4), and
    hierarchical softmax

    .. math:: -\sum_{n \in path(c)} \log\sigma(\pm h \cdot u_n)

    over the inner nodes on the path to c in a Huffman tree, with the sign of the turn at each (section 2.1). The
    architectures are those of Mikolov, Chen, Corrado & Dean 2013. One prediction is one example in `history`.

    Notes
    -----
    Each position draws its own distance of context words, uniformly from 1 to `window`: nearer words have a larger
    weight. In skip-gram the window shares its K = `negative` negative samples (Ji, Satish, Li & Dubey 2016). In CBOW
    each vector moves so that the mean, or the sum, moves by its gradient. The learning rate falls linearly.

    A token of a word with the share f of the text is kept with probability sqrt(`sample` / f) + `sample` / f. In a text
    of fewer than 1 / `sample` distinct words, `sample` is replaced by 1 / (number of distinct words): words of average
    frequency are always kept, so short texts, letters and graphs keep most of their tokens.

    One thread gives the same bits with the same seed. With more threads updates race on purpose (Recht, Ré, Wright &
    Niu 2011), and runs differ by noise. With `deterministic`, blocks of 512 tokens are trained four at a time. If
    several of them train the same row, each trains a copy of it. Then the row moves by the sum of their moves if each
    moved it a few times, and by less, down to the mean of their moves, if they moved it often. Negative samples come
    from a pool of 512 drawn for each block. One thread trains a text of fewer than 2^20 tokens.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", tokenizer="words")
    >>> model = firth.Word2Vec(vector_size=100, epochs=5).fit(corpus)
    >>> neighbors = model.vectors.most_similar("bank")
    """

    architecture: Literal["skipgram", "cbow"] = option(
        "skipgram", help="Predict the context words from the center word, or the center word from the context words."
    )
    loss: Literal["ns", "hs"] = option("ns", help="Negative sampling (ns) or hierarchical softmax (hs).")
    cbow_mean: bool = option(True, help="Predict from the mean of the context vectors, or from their sum.")
    vector_size: int = option(100, low=1, high=1_000_000, help="Dimensions of a vector.")
    window: int = option(5, low=1, high=10_000, help="Context words on either side of a word, at most.")
    negative: int = option(5, low=1, high=10_000, help="Negative samples for each position.")
    sample: float = option(
        1e-3, low=0, help="Drop some tokens of words that make up more than this share of the text; 0 keeps all."
    )
    ns_exponent: float = option(
        0.75, low=-10, high=10, help="Draw negative samples in proportion to count to this power."
    )
    learning_rate: float = option(0.025, above=0, high=3e38, help="Step size at the first word.")
    min_learning_rate: float = option(1e-4, low=0, high=3e38, help="Step size at the end.")
    deterministic: bool = option(False, help="Train the same vectors at any number of threads.")
    seed: int = seed_option(" with one thread")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate ({self.min_learning_rate}) must not be above learning_rate ({self.learning_rate})"
            )

    def estimate_memory(self, corpus: Corpus) -> dict[str, int]:
        """Estimate the bytes that `fit` needs, and their ``total``.

        ``corpus``: ids and offsets (on disk, if the corpus was opened from a file); ``matrices``: the vectors and the
        context vectors, and the rows of n-grams if there are any; ``backup``: the vectors of the last whole epoch.
        """
        words = len(corpus.vocabulary)
        rows, tables = self._extra_rows(corpus.vocabulary)
        sizes = {
            "corpus": corpus.ids.nbytes + corpus.offsets.nbytes,
            "matrices": 4 * (2 * words + rows) * padded_size(self.vector_size),
            "backup": 4 * words * self.vector_size,
            # A path in the tree is about as long as the word's information in bits: 20 nodes are ample.
            "tables": (20 if self.loss == "ns" else 20 + 5 * 20) * words + tables,
        }
        return {**sizes, "total": sum(sizes.values())}

    def _extra_rows(self, vocabulary: Vocabulary) -> tuple[int, int]:
        """Rows besides two for each word, and the bytes of the tables that name them."""
        return 0, 0

    def _begin(self, data: Corpus, *, progress: bool) -> tuple[int, Train]:
        corpus, words = data, len(data.vocabulary)
        counts = _core.count_words(corpus.ids, corpus.offsets, words, threads=self.n_threads)
        self._warn_of_few_steps(corpus, counts)
        keep = keep_thresholds(counts, self.sample)
        noise = paths = None
        if self.loss == "ns":
            # A word of a given vocabulary that does not occur in the text is never drawn.
            noise = _core.alias_table(np.where(counts > 0, np.maximum(counts, 1.0) ** self.ns_exponent, 0.0))
        else:
            paths = huffman_paths(counts)
        bags, vectors = self._rows_in(corpus.vocabulary)
        context = padded_rows(words if self.loss == "ns" else max(words - 1, 1), self.vector_size)
        self._tensors |= {"context": context, "counts": counts}
        in_rounds = self.deterministic and corpus.n_tokens >= _ROUNDS_FROM

        def train(begin: int, end: int, epoch: int) -> Tally:
            loss, examples, _, diverged_at = _core.train_word2vec(
                vectors,
                context,
                ids=corpus.ids,
                offsets=corpus.offsets,
                keep=keep,
                noise=noise,
                bags=bags,
                paths=paths,
                cbow=self.architecture == "cbow",
                begin=begin,
                end=end,
                epoch=epoch,
                deterministic=in_rounds,
                threads=1 if self.deterministic and not in_rounds else self.n_threads,
                **self._some("cbow_mean", "epochs", "window", "negative", "seed"),
                **self._some("learning_rate", "min_learning_rate"),
            )
            if diverged_at < 0:
                return Tally(loss_units(loss), examples)
            word = corpus.vocabulary.words[corpus.ids[diverged_at]]
            return Tally(0, examples, f"token {diverged_at}, the word {word!r}")

        return corpus.n_tokens, train

    def _warn_of_few_steps(self, corpus: Corpus, counts: NDArray[np.int64]) -> None:
        """Warn if a short text has so few epochs that the vectors stay close to their random start."""
        tokens, words = corpus.n_tokens, int(np.count_nonzero(counts))
        enough = min(_STEPS_PER_WORD * words, _ENOUGH_STEPS)
        # More epochs do not help if none has an example; `_no_example` says what does.
        trains = np.diff(corpus.offsets).max() > 1 and (words > 1 or self.loss == "ns")
        if tokens * self.epochs < enough and trains:
            warnings.warn(
                f"the text is short: {tokens} tokens, {words} of them different. With epochs={self.epochs} training "
                f"hardly moves the vectors from their random start. Set epochs={-(-enough // tokens)} or more, or give "
                "more text",
                stacklevel=5,  # where fit is called
            )

    def _rows_in(self, vocabulary: Vocabulary) -> tuple[Bags | None, NDArray[np.float32]]:
        """Set `_tensors` to their initial values; return the rows of each word, None for its own, and all rows."""
        vectors = padded_rows(len(vocabulary), self.vector_size)
        _core.fill_uniform(vectors, scale=0.5 / self.vector_size, seed=self.seed, threads=self.n_threads)
        self._tensors = {"vectors": vectors}
        return None, vectors

    def _learning_rate(self, progress: float) -> float:
        return self.learning_rate - (self.learning_rate - self.min_learning_rate) * progress

    def _no_example(self, data: Corpus) -> str:
        if np.diff(data.offsets).max() < 2:
            return (
                "every document has a single token, and so no word has a neighbor. Make documents longer: each line "
                "of a file, or each list of words, is a document"
            )
        if len(data.vocabulary) == 1:
            return (
                "the vocabulary has a single word, so there is nothing to distinguish it from. Give a text of several "
                "words; min_count=1 keeps rare ones"
            )
        return f"sample={self.sample} drops the neighbors of every token. sample=0 keeps every token"

    def _layout(self, n_words: int) -> Layout:
        # A tree has a node less than words; files of fastText's programs have a row more.
        rows = n_words if self.loss == "ns" else None
        return {**super()._layout(n_words), "context": (np.float32, (rows, self.vector_size))}


def keep_thresholds(counts: NDArray[np.int64], sample: float) -> NDArray[np.uint32]:
    """For each word, given the counts (words,), the largest value of 32 random bits at which a token of it is kept.

    Words below the average share are never dropped: otherwise a text of few words would lose nearly all tokens.
    """
    if sample == 0:
        return np.full(len(counts), 2**32 - 1, np.uint32)
    threshold = max(sample, 1 / np.count_nonzero(counts))
    share: NDArray[Any] = np.maximum(counts, 1) / counts.sum()
    probability = np.minimum(1.0, np.sqrt(threshold / share) + threshold / share)
    return np.minimum(probability * 2.0**32, 2.0**32 - 1).astype(np.uint32)


def huffman_paths(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]]:
    """Each word's path in the Huffman tree over the counts (words,), which need not descend: begins, nodes, turns.

    The path of word w: inner nodes ``nodes[begins[w]:begins[w + 1]]`` from the leaf up, and +1 or -1 at each.
    """
    order = np.argsort(-counts, kind="stable")
    begins, nodes, turns = _core.huffman(counts[order])
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    lengths = np.diff(begins)[rank]
    ends = np.cumsum(lengths)
    at = np.repeat(begins[:-1][rank] - (ends - lengths), lengths) + np.arange(len(nodes))
    return np.concatenate([[0], ends]), nodes[at], turns[at]
