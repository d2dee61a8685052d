"""fastText's subword vectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from firth import _core, fasttext_format, files
from firth.corpus import Vocabulary
from firth.models.base import Layout, Tensors
from firth.models.word2vec import Bags, Word2Vec
from firth.options import option
from firth.runtime import default_threads, padded_rows
from firth.vectors import Vectors

_MOST_ROWS = 1 << 20  # of one word, at most: a limit of the kernel
_BLOCK = 1 << 16  # rows of buckets written at once


@dataclasses.dataclass(frozen=True, eq=False)
class Subwords:
    """Character n-grams of words, and their rows.

    The n-grams of min_n to max_n characters of the word between ``<`` and ``>`` are hashed to `bucket` numbers as in
    fastText (Bojanowski, Grave, Joulin & Mikolov 2017, section 3.2). Only trained buckets have a row; that of any other
    is its initial one, a function of the seed and the bucket. `rows`, float32 (n_words + len(buckets), vector_size),
    has the rows of words, then those of `buckets`, int64, ascending.
    """

    min_n: int
    max_n: int
    bucket: int
    seed: int
    n_words: int
    rows: NDArray[np.float32]
    buckets: NDArray[np.int64]

    @staticmethod
    def hashed(words: list[str], min_n: int, max_n: int, bucket: int, threads: int) -> Bags:
        """Buckets of each word's n-grams: where each word's begin, and the buckets."""
        packed = files.pack_words(words)
        begins, buckets = _core.subword_buckets(
            packed["words"], packed["word_offsets"], min_n=min_n, max_n=max_n, buckets=bucket, threads=threads
        )
        return begins, buckets.astype(np.int64)

    def initial(self, buckets: NDArray[np.int64]) -> NDArray[np.float32]:
        """Initial rows of training, (buckets, vector_size)."""
        rows = padded_rows(len(buckets), self.rows.shape[1])
        fill_initial(rows, self.n_words + buckets, self.seed, default_threads())
        return rows

    def buckets_of(self, word: str) -> NDArray[np.int64]:
        """Buckets of a word's n-grams; none for a word that is not valid Unicode."""
        try:
            word.encode()
        except UnicodeEncodeError:
            return np.zeros(0, np.int64)
        return self.hashed([word], self.min_n, self.max_n, self.bucket, 1)[1]

    def compose(self, word: str) -> NDArray[np.float32] | None:
        """Vector of an out-of-vocabulary word: the mean of the rows of its n-grams; None if it has no n-gram."""
        buckets = self.buckets_of(word)
        if len(buckets) == 0:
            return None
        rows = self.initial(buckets)
        at = np.searchsorted(self.buckets, buckets)
        known = at < len(self.buckets)
        known[known] = self.buckets[at[known]] == buckets[known]
        rows[known] = self.rows[self.n_words + at[known]]
        return cast("NDArray[np.float32]", rows.mean(axis=0, dtype=np.float64).astype(np.float32))


class SubwordVectors(Vectors):
    """Vectors that include those of out-of-vocabulary words, composed of the vectors of their character n-grams.

    Everything that takes a word (``vectors["reshipped"]``, `similarity`, `most_similar`, ...) takes any word that has a
    character n-gram, and ``word in vectors`` is true for all these. ``word in vectors.index`` is true for words in the
    vocabulary, to which ``for word in vectors``, `words` and ``len(vectors)`` refer. Files of vectors do not store the
    n-grams; `FastText.save` and `FastText.to_fasttext` do.
    """

    def __init__(
        self,
        words: Sequence[str],
        matrix: NDArray[np.float32],
        subwords: Subwords,
        counts: NDArray[np.int64] | None = None,
    ) -> None:
        super().__init__(words, matrix, counts)
        self.subwords = subwords

    def __contains__(self, word: object) -> bool:
        return super().__contains__(word) or (isinstance(word, str) and len(self.subwords.buckets_of(word)) > 0)

    def _vector(self, word: str) -> NDArray[np.float32]:
        try:
            return super()._vector(word)
        except KeyError:
            vector = self.subwords.compose(word)
            if vector is None:
                raise
            return vector


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class FastText(Word2Vec):
    """Word2vec with subword vectors, so that rare and out-of-vocabulary words have vectors too.

    A word's vector is the mean of its own row and the rows of its character n-grams (Bojanowski, Grave, Joulin &
    Mikolov 2017; the authors' fastText takes the mean where the paper has the sum). Architectures and losses are those
    of `Word2Vec`; here the input vector is such a mean, and every target word has K negative samples of its own.
    Defaults are fastText's.

    Notes
    -----
    N-grams are of code points, with ``<`` and ``>`` at a word's ends. Only those of the vocabulary take memory. With
    CBOW the mean or sum is over all rows of all words of the window. Otherwise `Word2Vec` explains the options.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", tokenizer="words")
    >>> model = firth.FastText(min_n=3, max_n=4).fit(corpus)
    >>> "ships" in model.vectors.index
    False
    >>> model.vectors["ships"].shape
    (100,)
    >>> model.subwords("ships")
    ['<sh', '<shi', 'shi', 'ship', 'hip', 'hips', 'ips', 'ips>', 'ps>']
    """

    min_n: int = option(3, low=0, high=1000, help="Characters in the shortest n-gram of a word.")
    max_n: int = option(6, low=0, high=1000, help="Characters in the longest n-gram of a word; 0: no n-grams.")
    bucket: int = option(2_000_000, low=1, high=2**31 - 1, help="Rows of the table that n-grams are hashed to.")
    sample: float = option(1e-4, low=0)
    ns_exponent: float = option(0.5, low=-10, high=10)
    learning_rate: float = option(0.05, above=0, high=3e38)
    min_learning_rate: float = option(0.0, low=0, high=3e38)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_n > 0 and self.min_n > self.max_n:
            raise ValueError(f"min_n ({self.min_n}) must not be above max_n ({self.max_n})")
        self._bags: Bags | None = None

    def subwords(self, word: str) -> list[str]:
        """The subwords of any word, of which its vector is the mean.

        These are the word itself, if it is in the vocabulary, and its n-grams, with ``<`` and ``>`` at its ends.
        """
        known = [word] if word in self.vectors.index else []
        return known + (_core.split_subwords(word, min_n=self.min_n, max_n=self.max_n) if self.max_n else [])

    def to_fasttext(self, path: files.PathLike) -> None:
        """Write a model in fastText's own format (version 12), by convention a .bin, with a row for every bucket.

        The file has more than 4 * (words + bucket) * vector_size bytes, and appears whole or not at all. AttributeError
        before `fit`; OSError if it cannot be written.
        """
        words, subwords = self.vectors.words, self._subwords()
        context = self._fitted_tensor("context")
        # A tree has a node less than words; fastText has a row for each word all the same.
        output = np.zeros((len(words), self.vector_size), np.float32)
        output[: len(context)] = context[: len(words)]
        counts = self._tensors["counts"]
        bucket = self.bucket if self.max_n else 0
        fasttext_format.write(
            path,
            fasttext_format.FastTextFile(
                model=self.architecture,
                min_count=int(counts.min(initial=1)),
                bucket=bucket,
                min_n=self.min_n if self.max_n else 0,
                **self._some("loss", "vector_size", "window", "epochs", "negative", "max_n", "sample"),
                words=[word.encode() for word in words],
                counts=counts,
                n_tokens=int(counts.sum()),
                input=fasttext_format.RowBlocks((len(words) + bucket, self.vector_size), _blocks(subwords, bucket)),
                output=output,
            ),
        )

    @classmethod
    def from_fasttext(cls, path: files.PathLike) -> FastText:
        """Read a model in fastText's own format (.bin, skip-gram or CBOW), as `firth.load` does.

        The model has the options of the file. Its matrices stay in the file and are mapped. ValueError if the file is a
        classifier, quantized or damaged.
        """
        stored = fasttext_format.read(path)
        if stored.model == "supervised":
            raise ValueError(f"{path} is a classifier, not a model of word vectors: firth.load opens it")
        if stored.loss not in ("ns", "hs"):
            raise ValueError(
                f"{path} was trained with the loss {stored.loss}, which firth has only for classifiers: "
                "firth.load_vectors(path) gives its words' vectors"
            )
        if not isinstance(stored.input, np.ndarray) or not isinstance(stored.output, np.ndarray):
            raise ValueError(f"{path} is quantized: firth.load_vectors(path) gives its words' vectors")
        words, _ = fasttext_format.decoded(path, stored, stacklevel=3)
        with files.reading(path, "fastText model", own=False):
            model = cls(
                architecture=cast("Any", stored.model),
                sample=stored.sample,
                **stored.options("loss", "vector_size", "window", "negative", "epochs", "min_n", "max_n", "bucket"),
            )
        vectors = padded_rows(len(words), stored.vector_size)
        vectors[:] = stored.word_vectors()
        model._words = words
        model._tensors = {
            "vectors": vectors,
            "rows": stored.input,
            "buckets": np.arange(stored.bucket if stored.max_n else 0),
            "context": stored.output,
            "counts": stored.counts,
        }
        with files.reading(path, "fastText model", own=False):
            model._view = model._vectors_of(vectors)
        return model

    def _rows_in(self, vocabulary: Vocabulary) -> tuple[Bags, NDArray[np.float32]]:
        words = vocabulary.words
        if self.max_n:
            begins, hashed = Subwords.hashed(words, self.min_n, self.max_n, self.bucket, self.n_threads)
        else:
            begins, hashed = np.zeros(len(words) + 1, np.int64), np.zeros(0, np.int64)
        lengths = np.diff(begins)
        if len(lengths) and lengths.max() >= _MOST_ROWS:
            word = words[int(lengths.argmax())]
            raise ValueError(
                f"the word {word[:20]!r}..., of {len(word):,} characters, has {lengths.max():,} n-grams, and FastText "
                f"takes fewer than {_MOST_ROWS:,}: leave it out of the corpus, or lower max_n"
            )
        buckets, places = np.unique(hashed, return_inverse=True)
        # The word's own row comes first in its bag.
        bag_begins = begins + np.arange(len(words) + 1)
        bag_rows = np.empty(bag_begins[-1], np.int32)
        own = bag_begins[:-1]
        bag_rows[own] = np.arange(len(words))
        others = np.ones(len(bag_rows), bool)
        others[own] = False
        bag_rows[others] = len(words) + places.ravel()
        self._bags = bag_begins, bag_rows
        rows = padded_rows(len(words) + len(buckets), self.vector_size)
        numbers = np.concatenate([np.arange(len(words)), len(words) + buckets])
        fill_initial(rows, numbers, self.seed, self.n_threads)
        self._tensors = {"vectors": padded_rows(len(words), self.vector_size), "rows": rows, "buckets": buckets}
        self._settle()
        return self._bags, rows

    def _extra_rows(self, vocabulary: Vocabulary) -> tuple[int, int]:
        if self.max_n == 0:
            return len(vocabulary), 12 * len(vocabulary)
        _, hashed = Subwords.hashed(vocabulary.words, self.min_n, self.max_n, self.bucket, self.n_threads)
        buckets = len(np.unique(hashed))
        return len(vocabulary) + buckets, 8 * buckets + 4 * len(hashed) + 12 * len(vocabulary)

    def _settle(self) -> None:
        if self._bags is None or "rows" not in self._tensors:
            return
        begins, rows = self._bags
        shares = np.repeat((1 / np.diff(begins)).astype(np.float32), np.diff(begins))
        _core.sparse_times_dense(
            self._tensors["vectors"],
            indptr=begins,
            indices=rows,
            data=shares,
            dense=self._tensors["rows"],
            threads=self.n_threads,
        )

    def _layout(self, n_words: int) -> Layout:
        own: Layout = {"rows": (np.float32, (None, self.vector_size)), "buckets": (np.int64, (None,))}
        return {**super()._layout(n_words), **own}

    def _restore(self, tensors: Tensors, metadata: dict[str, Any]) -> None:
        # After a training that diverged, a model has only the words' vectors.
        whole = {"rows", "buckets", "context"}
        if whole & tensors.keys() and (missing := (whole | {"counts"}) - tensors.keys()):
            raise TypeError(f"it lacks {', '.join(sorted(missing))}")
        super()._restore(tensors, metadata)
        if "rows" not in self._tensors:
            return
        buckets = self._tensors["buckets"]
        if len(self._tensors["rows"]) != len(self._words) + len(buckets):
            raise TypeError(
                f"rows must be {len(self._words)} for the words and {len(buckets)} for the buckets, not "
                f"{len(self._tensors['rows'])}"
            )
        if len(buckets) and (buckets[0] < 0 or buckets[-1] >= self.bucket or (np.diff(buckets) <= 0).any()):
            raise ValueError(f"buckets must ascend within 0 .. {self.bucket - 1}")

    def _subwords(self) -> Subwords:
        return Subwords(
            **self._some("min_n", "max_n", "bucket", "seed"),
            n_words=len(self._words),
            rows=self._fitted_tensor("rows"),
            buckets=self._fitted_tensor("buckets"),
        )

    def _vectors_of(self, matrix: NDArray[np.float32]) -> Vectors:
        if self.max_n == 0 or "rows" not in self._tensors:
            return super()._vectors_of(matrix)
        subwords = self._subwords()
        if self._training:
            subwords = dataclasses.replace(subwords, rows=np.array(subwords.rows))
        return SubwordVectors(self._words, matrix, subwords, self._tensors.get("counts"))


def fill_initial(rows: NDArray[np.float32], numbers: NDArray[np.int64], seed: int, threads: int) -> None:
    """Fill rows as in fastText, uniformly within 1 / vector_size of 0: each is a function of seed and number."""
    _core.fill_uniform(rows, scale=1 / rows.shape[1], seed=seed, numbers=numbers, threads=threads)


def _blocks(subwords: Subwords, bucket: int) -> Iterator[NDArray[Any]]:
    """All rows of a model's input matrix: of words, then of all buckets."""
    yield subwords.rows[: subwords.n_words]
    for begin in range(0, bucket, _BLOCK):
        block = subwords.initial(np.arange(begin, min(begin + _BLOCK, bucket)))
        first, last = np.searchsorted(subwords.buckets, [begin, begin + len(block)])
        block[subwords.buckets[first:last] - begin] = subwords.rows[subwords.n_words + first : subwords.n_words + last]
        yield block
