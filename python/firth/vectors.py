"""Words and their vectors: look-up, similarity, neighbors, analogies, directions."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firth import _core, files, formats
from firth.checks import one_of, real_number, refuse_masked, whole_number
from firth.corpus import Vocabulary
from firth.runtime import default_threads
from firth.tables import html_table

Method = Literal["3cosadd", "3cosmul"]
WordOrVector = str | NDArray[Any]
Weighted = WordOrVector | tuple[WordOrVector, float]  # with its weight

_EPSILON = 0.001  # Levy & Goldberg (2014), equation 5
_SHOWN = 10  # rows, and numbers of a row, in a notebook


class Vectors:
    """Words, and a vector for each.

    Vectors are looked up by word, as in a dict: ``vectors["king"]``, ``vectors[["king", "man"]]``, ``"king" in
    vectors``, ``for word in vectors``. Row numbers are for `words`, `matrix` and `index`, which has the row of each
    word.

    Parameters
    ----------
    words
        Strings, all different, usually the most frequent first.
    matrix
        float32 (words, vector_size), read-only because lengths are computed once. Not copied if it is float32 with
        contiguous rows (which may be padded). To change vectors, make new ones:
        ``Vectors(v.words, v.matrix - v.matrix.mean(0))``.
    counts
        How often each word occurs in the training text, int64 (words,); None if not known. Saved models store them,
        files of vectors do not.

    Raises
    ------
    TypeError, ValueError
        If a word is not a str or occurs twice, the matrix does not hold real numbers, the shapes do not fit, or a count
        is negative or not a whole number.

    Notes
    -----
    A vector of length 0 has similarity 0 with everything. A search never returns a row that is not finite.
    """

    def __init__(self, words: Iterable[str], matrix: ArrayLike, counts: ArrayLike | None = None) -> None:
        vocabulary = Vocabulary(words, counts)
        self.words, self.index = vocabulary.words, vocabulary.index
        self.counts: NDArray[np.int64] | None = None if counts is None else vocabulary.counts
        refuse_masked("matrix", matrix)
        rows = np.asarray(matrix)
        if rows.dtype.kind not in "fiub":
            raise TypeError(f"matrix must hold real numbers, not {rows.dtype}")
        if rows.ndim != 2 or len(rows) != len(self.words) or rows.shape[1] < 1:
            raise ValueError(f"matrix must have the shape ({len(self.words)} words, vector_size), not {rows.shape}")
        rows = rows.astype(np.float32, copy=False)
        step = rows.strides[0]
        contiguous = rows.shape[1] == 1 or rows.strides[1] == 4
        apart = len(rows) <= 1 or (step >= 4 * rows.shape[1] and step % 4 == 0)
        if not (contiguous and apart and rows.flags.aligned):
            rows = rows.copy()
        self.matrix: NDArray[np.float32] = rows.view()
        self.matrix.flags.writeable = False
        self._norms: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and word in self.index

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} words, vector_size={self.vector_size})"

    def _repr_html_(self) -> str:
        """A table of the first words and the first numbers of their vectors, for notebooks."""
        size = min(self.vector_size, _SHOWN)
        cells = [[f"{number:.3f}" for number in row] for row in self.matrix[:_SHOWN, :size].tolist()]
        counts = [[]] * len(cells) if self.counts is None else [[f"{n:,}"] for n in self.counts[:_SHOWN].tolist()]
        rows = ([word, *count, *numbers] for word, count, numbers in zip(self.words, counts, cells, strict=False))
        return html_table(repr(self), ["word", *["count"] * (self.counts is not None), *map(str, range(size))], rows)

    @property
    def vector_size(self) -> int:
        """Dimensions of a vector."""
        return int(self.matrix.shape[1])

    def __getitem__(self, words: str | Sequence[str]) -> NDArray[np.float32]:
        """Vector of a word, or vectors (n, vector_size) of several. KeyError for an unknown word."""
        if isinstance(words, str):
            return self._vector(words)
        if not isinstance(words, Iterable):
            raise TypeError(
                f"vectors are looked up by a word or a list of words, not by {words!r}: vectors.words lists the words, "
                "and row i of vectors.matrix is the vector of words[i]"
            )
        given: list[Any] = list(words)
        rows = np.array([self.index.get(word, -1) if isinstance(word, str) else -1 for word in given], np.int64)
        found = np.empty((len(rows), self.vector_size), np.float32)
        found[rows >= 0] = self.matrix[rows[rows >= 0]]
        for i in np.flatnonzero(rows < 0):
            found[i] = self._vector(given[i])
        return found

    @overload
    def get(self, word: str) -> NDArray[np.float32] | None: ...
    @overload
    def get(self, word: str, default: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def get(self, word: str, default: NDArray[np.float32] | None = None) -> NDArray[np.float32] | None:
        """Vector of a word, or `default` for an unknown word."""
        try:
            return self._vector(word)
        except KeyError:
            return default

    def similarity(self, a: WordOrVector, b: WordOrVector) -> float:
        """Cosine of two words or vectors (vector_size,), between -1 and 1; 0 if either vector has length 0.

        KeyError for an unknown word; ValueError for a vector of another shape, or one that is not finite.
        """
        return float(np.clip(self._unit(a) @ self._unit(b), -1, 1))

    def distance(self, a: WordOrVector, b: WordOrVector) -> float:
        """Cosine distance of two words or vectors, 1 - `similarity`: between 0 and 2. Its errors are the same."""
        return 1 - self.similarity(a, b)

    def search(
        self, queries: ArrayLike, topn: int = 10, *, restrict_vocab: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows nearest to finite vectors (q, vector_size) by cosine: an exact search.

        `restrict_vocab` searches only the first so many words.

        Returns
        -------
        rows, scores
            Each (q, topn), or all words if there are fewer, the nearest first, the lower row first among equals. The
            bits of a score depend neither on the other queries nor on the number of threads. If fewer than topn rows
            are finite, the rest is -1 and NaN.
        """
        refuse_masked("queries", queries)
        vectors = np.ascontiguousarray(queries, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.vector_size:
            raise ValueError(f"queries must have the shape (q, {self.vector_size}), not {vectors.shape}")
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise ValueError(f"queries[{bad[0]}] is not finite")
        topn = whole_number("topn", topn)
        n = self.restricted(restrict_vocab)
        rows, scores = _core.topk(
            self.matrix[:n],
            inverse_norms=self._inverse_norms()[:n],
            queries=vectors,
            k=min(topn, n),
            threads=default_threads(),
        )
        return rows, np.clip(scores, -1, 1, out=scores)

    def neighbors(
        self, queries: Sequence[str] | NDArray[Any], topn: int = 10, *, restrict_vocab: int | None = None
    ) -> list[list[tuple[str, float]]]:
        """Nearest (word, cosine) pairs of many words, or of vectors (q, vector_size): a list for each query.

        A word is not its own neighbor. KeyError for an unknown word; other parameters and errors as for `search`.
        """
        topn = whole_number("topn", topn)
        if isinstance(queries, str):
            raise TypeError(f"queries must be words or an array, not one string; write [{queries!r}]")
        if isinstance(queries, np.ndarray) and queries.dtype.kind in "fiub":
            rows, scores = self.search(queries, topn, restrict_vocab=restrict_vocab)
            own: list[int] = [-1] * len(rows)
        else:
            rows, scores = self.search(self[list(queries)], topn + 1, restrict_vocab=restrict_vocab)
            own = [self.index.get(word, -1) for word in queries]
        return [
            self._named(found, score, {row}, topn)
            for found, score, row in zip(rows.tolist(), scores.tolist(), own, strict=True)
        ]

    @overload
    def most_similar(
        self,
        positive: Weighted | Sequence[Weighted] = (),
        negative: Weighted | Sequence[Weighted] = (),
        topn: int = 10,
        *,
        restrict_vocab: int | None = None,
        method: Method = "3cosadd",
    ) -> list[tuple[str, float]]: ...
    @overload
    def most_similar(
        self,
        positive: Weighted | Sequence[Weighted] = (),
        negative: Weighted | Sequence[Weighted] = (),
        *,
        topn: None,
        restrict_vocab: int | None = None,
        method: Method = "3cosadd",
    ) -> NDArray[np.float32]: ...
    def most_similar(
        self,
        positive: Weighted | Sequence[Weighted] = (),
        negative: Weighted | Sequence[Weighted] = (),
        topn: int | None = 10,
        *,
        restrict_vocab: int | None = None,
        method: Method = "3cosadd",
    ) -> list[tuple[str, float]] | NDArray[np.float32]:
        """Words nearest to the positive words and farthest from the negative ones.

        Parameters
        ----------
        positive, negative
            A word, a vector, or several. Given words are not among the answers. Each may be a pair with its weight in
            the mean of "3cosadd", such as ``[("war", 0.5), "peace"]``. The default weight is 1 for positive words and
            -1 for negative ones. An explicit weight is used unchanged in both arguments, as in gensim.
        topn
            How many words. None: the scores of all words, also the given ones, in the order of `words`.
        restrict_vocab
            Search only the first so many words.
        method
            "3cosadd": the cosine with the mean of the unit vectors, negative ones subtracted (Mikolov et al. 2013c).
            "3cosmul": the product of the positive cosines over that of the negative ones, cosines shifted to [0, 1]
            (Levy & Goldberg 2014, equation 5, epsilon 0.001).

        Returns
        -------
        list or ndarray
            (word, score) pairs, the best first. With ``topn=None`` float32 (words,), or (restrict_vocab,); NaN for a
            word whose vector is not finite.

        Raises
        ------
        KeyError
            For an unknown word.
        TypeError, ValueError
            If no word is given, a vector has another shape or is not finite, an argument is out of range, or there are
            weights with "3cosmul".
        """
        if topn is not None:
            topn = whole_number("topn", topn)
        one_of("method", method, get_args(Method))
        items = [(one, 1.0) for one in _several(positive)] + [(one, -1.0) for one in _several(negative)]
        if not items:
            raise ValueError("most_similar needs at least one positive or negative word or vector")
        if method == "3cosmul" and any(isinstance(one, tuple) for one, _ in items):
            raise ValueError("weights of words need method='3cosadd': the product of '3cosmul' does not use them")
        pairs = [_weighted(one, weight) for one, weight in items]
        units = np.stack([self._unit(one) for one, _ in pairs])
        weights = np.array([weight for _, weight in pairs])
        given = {self.index[one] for one, _ in pairs if isinstance(one, str) and one in self.index}
        if method == "3cosadd":
            # The length of the mean does not matter, so weights of any size are scaled to at most 1.
            weights /= np.abs(weights).max() or 1.0
            mean = (units * weights[:, None]).mean(0)[None]
            most = self.restricted(restrict_vocab) if topn is None else topn + len(given)
            rows, scores = self.search(mean, most, restrict_vocab=restrict_vocab)
            if topn is not None:
                return self._named(rows[0].tolist(), scores[0].tolist(), given, topn)
            everywhere = np.full(rows.shape[1], np.nan, np.float32)
            everywhere[rows[0][rows[0] >= 0]] = scores[0][rows[0] >= 0]
            return everywhere
        product = self.multiplied(units[None, weights > 0], units[None, weights < 0], restrict_vocab=restrict_vocab)[0]
        if topn is None:
            return np.where(np.isfinite(product), product, np.float32(np.nan))
        product[[row for row in given if row < len(product)]] = -np.inf
        order = np.argsort(-product, kind="stable")[:topn]
        return [(self.words[row], float(product[row])) for row in order.tolist() if product[row] > -np.inf]

    def multiplied(
        self, positive: NDArray[Any], negative: NDArray[Any], *, restrict_vocab: int | None = None
    ) -> NDArray[np.float32]:
        """Scores (q, words) of q questions by 3CosMul, from unit vectors (q, n, vector_size), of any n.

        -inf for words whose vectors are not finite.
        """
        n = self.restricted(restrict_vocab)
        product = np.ones((len(positive), n), np.float32)
        for j in range(positive.shape[1]):
            product *= self._shifted_cosines(positive[:, j], n)
        for j in range(negative.shape[1]):
            product /= self._shifted_cosines(negative[:, j], n) + np.float32(_EPSILON)
        product[np.isnan(product)] = -np.inf
        return product

    def analogy(
        self, a: str, b: str, c: str, topn: int = 10, *, restrict_vocab: int | None = None, method: Method = "3cosadd"
    ) -> list[tuple[str, float]]:
        """Answer "a is to b as c is to ...", such as ``analogy("man", "king", "woman")``; see `most_similar`."""
        return self.most_similar([b, c], [a], topn, restrict_vocab=restrict_vocab, method=method)

    def doesnt_match(self, words: Sequence[str]) -> str:
        """The word least similar to the mean of the unit vectors of three or more words.

        KeyError for an unknown word; ValueError for fewer than three, or a word whose vector is not finite.
        """
        if isinstance(words, str) or len(words) < 3:
            raise ValueError("doesnt_match needs three words or more, as a list")
        units = np.stack([self._unit(word) for word in words])
        return words[int(np.argmin(units @ units.mean(0)))]

    def rank(self, a: str, b: str) -> int:
        """Rank of b among the neighbors of a, two different words: 1 if b is the nearest.

        KeyError for an unknown word; ValueError if both are the same word, or a's vector is not finite.
        """
        row_b = self._row(b)
        if a == b:
            raise ValueError(f"rank needs two different words, not {a!r} twice")
        with np.errstate(invalid="ignore"):  # infinite rows are not neighbors
            cosines = self._cosines(self._unit(a)[None], len(self))[0]
            nearer = cosines > cosines[row_b]
        if a in self.index:
            nearer[self.index[a]] = False
        return 1 + int(np.count_nonzero(nearer))

    def direction(self, pairs: Iterable[tuple[str, str]]) -> Direction:
        """Direction from the first to the second words of pairs: the mean difference of their unit vectors.

        KeyError for an unknown word; ValueError if there are no pairs, the differences cancel, or a word's vector is
        not finite.

        Examples
        --------
        >>> words = ["cat", "cats", "dog", "dogs", "puppy", "puppies"]
        >>> vectors = firth.Vectors(words, [[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1], [1, 1, 0], [1, 1, 1]])
        >>> number = vectors.direction([("cat", "cats"), ("dog", "dogs")])
        >>> one, many = number.project(["puppy", "puppies"])
        >>> bool(one < many)
        True
        """
        listed = [tuple(pair) for pair in pairs]
        for pair in listed:
            if len(pair) != 2:
                raise ValueError(f"direction needs pairs of words, not {pair!r:.60}")
        differences = [self._unit(b) - self._unit(a) for a, b in listed]
        if not differences:
            raise ValueError("direction needs at least one pair of words")
        mean = np.mean(differences, axis=0)
        norm = float(np.linalg.norm(mean))
        if not norm > 1e-12:
            raise ValueError("the pairs have no common direction: their mean difference is 0")
        return Direction((mean / norm).astype(np.float32), self)

    def save(self, path: files.PathLike, format: str | None = None) -> None:
        """Write words and vectors to a file, which appears whole or not at all.

        Parameters
        ----------
        path
            Its suffix decides the format: .safetensors, .bin (word2vec's binary), .txt or .vec (word2vec's text),
            .glove; a further .gz compresses. "-" is standard output, as text.
        format
            One of `load_vectors`; "fasttext" is a fastText model without subwords, which its programs open.

        Raises
        ------
        ValueError
            If no format is named, or the format cannot store a word (white space in text, a blank in binary).

        Notes
        -----
        Text has the fewest digits that read back as the same float32.
        """
        formats.write(path, self.words, self.matrix, format=format)

    def to_gensim(self) -> Any:
        """Copy to a ``gensim.models.KeyedVectors``, with the counts if they are known.

        ImportError if gensim is not installed.
        """
        keyed = _keyed_vectors()(self.vector_size, dtype=np.float32)
        keyed.add_vectors(self.words, self.matrix)
        if self.counts is not None:
            keyed.allocate_vecattrs(["count"], [np.int64])
            keyed.expandos["count"][:] = self.counts
        return keyed

    @classmethod
    def from_gensim(cls, keyed: Any) -> Vectors:
        """Words, vectors and counts of gensim's ``KeyedVectors``: a model's ``.wv``.

        The matrix is shared if it is float32; gensim must not change it any more. (For files without counts, gensim
        invents counts that descend by 1.)
        """
        if not isinstance(keyed, _keyed_vectors()):
            raise TypeError(f"from_gensim needs KeyedVectors (a model's .wv), not {type(keyed).__name__}")
        return cls(keyed.index_to_key, keyed.vectors, keyed.expandos.get("count"))

    def _vector(self, word: str) -> NDArray[np.float32]:
        """Vector of a word; KeyError for an unknown one. Every method that takes a word calls this."""
        return cast("NDArray[np.float32]", self.matrix[self._row(word)])

    def _row(self, word: str) -> int:
        if not isinstance(word, str):
            raise TypeError(f"a word must be a str, not {word!r}")
        row = self.index.get(word)
        if row is not None:
            return row
        others = [other for other in (word.lower(), word.upper(), word.capitalize()) if other in self.index]
        hint = f"; {others[0]!r} is one" if others else ""
        raise KeyError(f"{word!r} is not one of the {len(self)} words{hint}")

    def restricted(self, restrict_vocab: int | None) -> int:
        """How many words a search with this `restrict_vocab` covers."""
        if restrict_vocab is None:
            return len(self)
        return min(whole_number("restrict_vocab", restrict_vocab), len(self))

    def _inverse_norms(self) -> NDArray[np.float32]:
        """1 / length of each row, 0 for a length of 0, NaN for a row that is not finite. Computed once."""
        if self._norms is None:
            self._norms = _core.inverse_norms(self.matrix, threads=default_threads())
        return self._norms

    def _unit(self, one: WordOrVector) -> NDArray[np.float64]:
        """Unit vector of a word or vector, in float64; 0 if its length is 0."""
        if isinstance(one, str):
            vector, name = self._vector(one).astype(np.float64), repr(one)
        else:
            refuse_masked("vector", one)
            try:
                vector, name = np.asarray(one, np.float64), "a vector"
            except (TypeError, ValueError):
                raise TypeError(f"give a word (a str) or a vector of numbers, not {one!r:.60}") from None
            if vector.shape != (self.vector_size,):
                raise ValueError(f"a vector must have the shape ({self.vector_size},), not {vector.shape}")
        if not np.isfinite(vector).all():
            raise ValueError(f"{name} is not finite")
        return cast("NDArray[np.float64]", unit_rows(vector[None])[0])

    def _cosines(self, units: NDArray[Any], n: int) -> NDArray[np.float32]:
        """Cosines (q, n) of unit vectors (q, vector_size) with the first n words."""
        cosines = units.astype(np.float32) @ self.matrix[:n].T
        cosines *= self._inverse_norms()[:n]
        return cast("NDArray[np.float32]", cosines)

    def _shifted_cosines(self, units: NDArray[Any], n: int) -> NDArray[np.float32]:
        with np.errstate(invalid="ignore"):  # NaN for rows that are not finite
            cosines = self._cosines(units, n)
            np.clip(cosines, -1, 1, out=cosines)
        cosines += 1
        cosines /= 2
        return cosines

    def _named(
        self, rows: Iterable[int], scores: Iterable[float], without: set[int], topn: int
    ) -> list[tuple[str, float]]:
        pairs = zip(rows, scores, strict=True)
        return [(self.words[row], score) for row, score in pairs if row >= 0 and row not in without][:topn]


@dataclass(frozen=True)
class Direction:
    """A direction among vectors, such as singular to plural; `Vectors.direction` computes one."""

    vector: NDArray[np.float32]  # (vector_size,), of length 1
    _vectors: Vectors = field(repr=False)

    def project(self, words: Sequence[str]) -> NDArray[np.float32]:
        """How far the unit vectors of n words point this way: dot products between -1 and 1, float32 (n,).

        KeyError for an unknown word; ValueError for a word whose vector is not finite.
        """
        if isinstance(words, str):
            raise TypeError(f"project takes a list of words; write [{words!r}]")
        units = [self._vectors._unit(word) for word in words]
        return np.array([unit @ self.vector for unit in units], np.float32)


def _several(given: Weighted | Sequence[Weighted]) -> list[Weighted]:
    one = isinstance(given, str) or (isinstance(given, np.ndarray) and given.ndim == 1)
    if one or (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], numbers.Real)):
        return [cast("Weighted", given)]
    if not isinstance(given, Iterable):
        raise TypeError(f"give a word, a vector or a list of them, not {given!r:.60}")
    return list(cast("Sequence[Weighted]", given))


def _weighted(one: Weighted, weight: float) -> tuple[WordOrVector, float]:
    """A word or vector and its weight: `weight`, unless it is a pair with its own."""
    if not isinstance(one, tuple):
        return one, weight
    if len(one) != 2:
        raise ValueError(f"a word or vector with a weight must be a pair, not {one!r}")
    return one[0], real_number(f"the weight of {one[0]!r}", one[1])


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Rows (n, vector_size) scaled to length 1; 0 for those of length 0 or not finite."""
    units = rows.astype(np.float64)
    units[~np.isfinite(units).all(axis=1)] = 0
    norms = np.linalg.norm(units, axis=1, keepdims=True)
    norms[norms == 0] = 1
    units /= norms
    return units


def _keyed_vectors() -> Any:
    try:
        from gensim.models import KeyedVectors
    except ImportError:
        raise ImportError("this needs gensim: pip install gensim") from None
    return KeyedVectors
