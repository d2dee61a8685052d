"""Phrases: words that belong together become one token, before a model sees the corpus."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from firth import _core, files
from firth.checks import whole_number
from firth.corpus import Corpus, CorpusReport, Vocabulary
from firth.counts import count_cooccurrences, range_borders
from firth.options import Options, option
from firth.runtime import thread_count

if TYPE_CHECKING:
    from typing_extensions import Self

Scoring = Literal["npmi", "word2phrase"]

_THRESHOLD: dict[str, float] = {"npmi": 0.5, "word2phrase": 100.0}
_PAIRS = 1 << 22  # pairs of words looked at together

_Pairs = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]  # left words, right words, counts
_Count = Callable[[int, NDArray[np.int32], NDArray[np.int64]], sparse.csr_array]  # pairs of words in ids and offsets
_Transitions = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]  # states, words, targets


@dataclasses.dataclass(frozen=True)
class Phrase:
    """A phrase that `Phrases` found.

    `phrase` is the token that it becomes; `words`, the tokens that it is made of, may be phrases of an earlier pass.
    `score` is that of its first and last word, `count` how often its words occurred side by side in this order.
    """

    phrase: str
    words: tuple[str, ...]
    score: float
    count: int


@dataclasses.dataclass(kw_only=True, eq=False)
class Phrases(Options):
    r"""Finds pairs of words that occur side by side more often than by chance, and joins them to one token: new_york.

    Fitted to one corpus, applied to it or to others: a step between text and model. Each pass reads the result of the
    previous one, so that two passes find new_york_times, and phrases of four words.

    Notes
    -----
    With :math:`n` for counts and :math:`N` for the tokens of the corpus, words :math:`a, b` side by side score

    - "npmi": :math:`\ln \frac{p(ab)}{p(a)\,p(b)} / -\ln p(ab)`, where :math:`p = n / N`: 1 for words that only
      occur together, 0 for chance (Bouma 2009, "Normalized (pointwise) mutual information in collocation
      extraction"; gensim's ``npmi_scorer``).
    - "word2phrase": :math:`(n(ab) - \mathrm{min\_count}) \, N / (n(a) \, n(b))` (Mikolov et al. 2013,
      "Distributed representations of words and phrases", equation 6, times N, as in word2phrase.c; gensim's
      ``original_scorer`` has the size of its vocabulary, pairs included, instead of N, so that its thresholds
      differ). It rises with N, and is not bounded for rare words; a phrase must occur more often than `min_count`.

    Any number of `connectors` in a row may be inside a phrase, as in bank_of_america. The whole run is counted; the
    score is that of its first and last word (as for gensim's ``connector_words``).

    Words that a corpus leaves out (`min_count`, `max_size`) are not among its ids, and those to their left and right
    become neighbors there. So fit to a corpus made with ``min_count=1``, and leave out rare words afterwards, by
    ``apply(corpus, min_count=5)``.

    Phrases are made from left to right, and a word is part of at most one: of a_b and b_c, "a b c" becomes "a_b c".
    No phrase crosses the border of two documents. All this is as in gensim's ``Phrases`` and in word2phrase.c, except
    that the latter counts across the ends of lines.

    Examples
    --------
    >>> corpus = firth.Corpus.from_file("enwiki.txt", min_count=1)
    >>> phrases = firth.Phrases(passes=2).fit(corpus)
    >>> corpus = phrases.apply(corpus, min_count=5)
    >>> phrases.merge("he left new york".split())
    ['he', 'left', 'new_york']
    """

    min_count: int = option(5, low=1, high=2**62, help="Leave out phrases that are rarer.")
    threshold: float | None = option(
        None, help="Join pairs whose score is above this.", unset="0.5 for npmi, 100 for word2phrase"
    )
    scoring: Scoring = option(
        "npmi", help="Score of a pair: normalized pointwise mutual information, or the score of word2phrase."
    )
    delimiter: str = option("_", help="Joins the words of a phrase.")
    connectors: Collection[str] = option(
        frozenset(), checked=False, help="Words that are allowed inside a phrase but not at its ends."
    )
    passes: int = option(
        1, low=1, high=100, help="Passes over the corpus: two passes find phrases of up to four words."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given: Any = self.connectors
        if isinstance(given, str) or not isinstance(given, Collection) or not all(isinstance(w, str) for w in given):
            raise TypeError(f"connectors must be a set of strings, not {given!r:.60}")
        self.__dict__["connectors"] = frozenset(given)
        if any("\ud800" <= character <= "\udfff" for character in self.delimiter):
            raise ValueError(f"delimiter must be text, without lone surrogates, not {self.delimiter!r}")
        low, high = (-1, 1) if self.scoring == "npmi" else (0, math.inf)
        if not low <= self._least_score <= high or math.isinf(self._least_score):
            bounds = "lie in -1 .. 1" if self.scoring == "npmi" else "be finite and not negative"
            raise ValueError(f"threshold must {bounds} for scoring={self.scoring!r}, not {self._least_score}")
        self._found: list[list[Phrase]] | None = None  # by pass, the best first
        self._tables: list[dict[tuple[str, ...], str | None]] = []  # the same, for lists of tokens

    @property
    def _least_score(self) -> float:
        return _THRESHOLD[self.scoring] if self.threshold is None else self.threshold

    @property
    def _passes(self) -> list[list[Phrase]]:
        if self._found is None:
            raise AttributeError("these Phrases have not been fitted: call fit(corpus) first")
        return self._found

    def __iter__(self) -> Iterator[Phrase]:
        """The phrases, pass by pass, the best ones of a pass first."""
        return itertools.chain.from_iterable(self._passes)

    def __len__(self) -> int:
        return sum(map(len, self._passes))

    @property
    def scores(self) -> dict[str, float]:
        """The score of each phrase, by its token, in the order of iteration."""
        scores: dict[str, float] = {}
        for one in self:
            scores.setdefault(one.phrase, one.score)
        return scores

    def fit(
        self, corpus: Corpus, *, memory: int | None = None, threads: int | None = None, progress: bool = False
    ) -> Self:
        """Find the phrases of a corpus, best made with ``min_count=1``: see the notes of the class.

        `memory` is that of `count_cooccurrences`, whose errors may occur. The result does not depend on `threads`. It
        may be without phrases, if none scores above the threshold.

        Counts of pairs are float32: exact up to 2^24, beyond that with a relative error of at most 2^-24.
        """
        workers = _check(corpus, threads)
        if corpus.n_tokens == 0:
            raise ValueError("the corpus has no token: none of its text is in its vocabulary")

        def count(n_words: int, ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> sparse.csr_array:
            # Only the number of words matters.
            words = Vocabulary.unchecked([""] * n_words, np.zeros(n_words, np.int64))
            text = Corpus.unchecked(words, ids, offsets, corpus.report)
            return count_cooccurrences(
                text, window=1, side="right", weighting="flat", memory=memory, threads=workers, progress=progress
            ).csr

        text = _Text.of(corpus)
        found: list[list[Phrase]] = []
        for i in range(self.passes):
            found.append(self._one_pass(text, count, workers))
            if not found[-1]:
                break
            if i + 1 < self.passes:
                text.merge(found[-1], workers)
        self._found, self._tables = found, list(map(_table, found))
        return self

    def _one_pass(self, text: _Text, count: _Count, threads: int) -> list[Phrase]:
        n_words, n_tokens = len(text.words), len(text.ids)
        connector = np.zeros(n_words, np.bool_)
        connector[[id for word in self.connectors if (id := text.known.get(word)) is not None]] = True
        counts = _core.count_words(text.ids, text.offsets, n_words)
        # A word and the connectors behind it become one symbol, as long as that is frequent enough for a phrase to
        # begin so; then phrases with connectors are pairs of symbols like all others. What a symbol stands for: a word
        # (`first`), which may begin or end a phrase (`outer`) or not, and the connectors behind it (`inside`).
        ids, offsets = text.ids, text.offsets
        first, inside = np.arange(n_words), [()] * n_words
        newest = outer = ~connector & (counts >= self.min_count)
        while True:
            csr = count(len(first), ids, offsets)
            left, right, n = _frequent(csr, newest, connector, self.min_count)
            if len(n) == 0:
                break
            symbols = np.arange(len(first), len(first) + len(n))
            ids, offsets = _merged(ids, offsets, (left, right, symbols), len(first), threads)
            first = np.concatenate([first, first[left]])
            inside += [(*inside[a], b) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
            newest, outer, connector = (
                np.concatenate([mask, np.full(len(n), new)])
                for mask, new in ((np.zeros_like(newest), True), (outer, True), (connector, False))
            )
        # A word that connectors follow is still that word to the one on its left.
        left, right, n = _frequent(csr, outer, outer, self.min_count, None if len(first) == n_words else first)
        n_left, n_right = counts[first[left]].astype(np.float64), counts[right].astype(np.float64)
        if self.scoring == "npmi":
            p = n / n_tokens
            scores = np.log(p / (n_left / n_tokens * (n_right / n_tokens))) / -np.log(p)
        else:
            scores = (n - self.min_count) / n_left / n_right * n_tokens
        above = np.flatnonzero(scores > self._least_score)
        best = above[np.argsort(-scores[above], kind="stable")]
        found = []
        for a, b, score, times in zip(*(part[best].tolist() for part in (left, right, scores, n)), strict=True):
            words = tuple(text.words[id] for id in (first[a], *inside[a], b))
            found.append(Phrase(self.delimiter.join(words), words, score, int(times)))
        return found

    def apply(
        self, corpus: Corpus, *, min_count: int = 1, max_size: int | None = None, threads: int | None = None
    ) -> Corpus:
        """Make the phrases of any corpus single tokens.

        Words and phrases that then occur less often than `min_count`, and all but the `max_size` most frequent ones,
        are left out. The result does not depend on `threads`.

        Returns
        -------
        Corpus
            A new one, in memory, as if read from a text with the phrases written into it: words counted again, ordered
            by count, without words that only occur in phrases. Its `report` counts a phrase as one token.

        Raises
        ------
        AttributeError
            Before `fit`.
        TypeError, ValueError
            If an argument is out of range, the corpus is damaged, or no word is left.
        """
        workers = _check(corpus, threads)
        whole_number("min_count", min_count, low=1, high=2**62)
        if max_size is not None:
            whole_number("max_size", max_size, low=1, high=2**31 - 1)
        passes = self._passes
        text = _Text.of(corpus)
        known_before = int(np.count_nonzero(_core.count_words(text.ids, text.offsets, len(text.words))))
        for found in passes:
            text.merge(found, workers)
        counts = _core.count_words(text.ids, text.offsets, len(text.words))
        # By count, then by UTF-8 bytes, whose order is that of code points, by which Python compares strings.
        kept = np.array(sorted(np.flatnonzero(counts >= min_count).tolist(), key=text.words.__getitem__), np.int64)
        if len(kept) == 0:
            raise ValueError(
                f"no word of the corpus occurs min_count={min_count} times: the most frequent one of "
                f"{len(text.words)} occurs {counts.max(initial=0)} times"
            )
        kept = kept[np.argsort(-counts[kept], kind="stable")][:max_size]
        new_ids = np.full(len(counts), -1, np.int32)
        new_ids[kept] = np.arange(len(kept), dtype=np.int32)
        before = corpus.report
        read = before.tokens_out_of_vocabulary + len(text.ids)
        # In place: there was a pass, so these ids are not those of the corpus.
        ids, offsets = text.ids, np.empty(len(text.offsets), np.int64)
        n = _core.renumber(ids, text.offsets, ids, offsets, new_ids=new_ids, threads=workers)
        ids.resize(n, refcheck=False)
        distinct = before.distinct_words_read - known_before + int(np.count_nonzero(counts))
        report = CorpusReport(before.documents, read, n, read - n, distinct, before.invalid_sequences)
        words = text.words
        vocabulary = Vocabulary.unchecked([words[i] for i in kept.tolist()], counts[kept])
        return Corpus.unchecked(vocabulary, ids, offsets, report)

    def merge(self, tokens: Sequence[str]) -> list[str]:
        """Make the phrases of one document, a list of strings, single tokens, as `apply` does.

        Examples
        --------
        >>> corpus = firth.Corpus.from_file("enwiki.txt", min_count=1)
        >>> phrases = firth.Phrases().fit(corpus)
        >>> corpus = phrases.apply(corpus, min_count=5)
        >>> documents = (phrases.merge(text.split()) for text in ["he left new york", "new york grew"])
        >>> others = firth.Corpus.from_iterable(documents, vocabulary=corpus.vocabulary)
        """
        if isinstance(tokens, str):
            raise TypeError("tokens must be a list of strings, not one string: split it first")
        merged = list(tokens)
        for _, table in zip(self._passes, self._tables, strict=True):
            merged = _merge_tokens(merged, table)
        return merged

    def save(self, path: files.PathLike) -> None:
        """Write the phrases as one safetensors file, which `firth.load` opens; it appears whole or not at all."""
        found = list(self)
        tensors = {
            **files.pack_words([word for one in found for word in one.words]),
            "phrase_offsets": np.cumsum([0, *(len(one.words) for one in found)], dtype=np.int64),
            "pass_offsets": np.cumsum([0, *map(len, self._passes)], dtype=np.int64),
            "scores": np.array([one.score for one in found], np.float64),
            "counts": np.array([one.count for one in found], np.int64),
        }
        options = {**self.get_params(), "connectors": sorted(self.connectors)}
        files.write_own(path, "phrases", tensors, {"options": options})


@files.reader("phrases")
def _opened(tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> Phrases:
    phrases = Phrases(**metadata["options"])
    words = files.unpack_words(tensors)
    ends, pass_ends = tensors["phrase_offsets"].tolist(), tensors["pass_offsets"].tolist()
    scores, counts = tensors["scores"].tolist(), tensors["counts"].tolist()
    for one, n in ((ends, len(words)), (pass_ends, len(scores))):
        if (one[0], one[-1]) != (0, n) or one != sorted(one):
            raise ValueError("its arrays do not fit together")
    found = []
    for (a, b), score, count in zip(itertools.pairwise(ends), scores, counts, strict=True):
        parts = tuple(words[a:b])
        # Otherwise a phrase might begin with another one, which would hide it.
        if [word in phrases.connectors for word in parts] != [False, *[True] * (len(parts) - 2), False]:
            raise ValueError(f"{parts} is not a phrase with these connectors")
        found.append(Phrase(phrases.delimiter.join(parts), parts, score, count))
    by_pass = [found[a:b] for a, b in itertools.pairwise(pass_ends)]
    if not by_pass:
        raise ValueError("it lacks passes")
    phrases._found, phrases._tables = by_pass, list(map(_table, by_pass))
    return phrases


def _check(corpus: Corpus, threads: int | None) -> int:
    if not isinstance(corpus, Corpus):
        raise TypeError(f"corpus must be a firth.Corpus, not {type(corpus).__name__}; for a list of tokens take merge")
    return thread_count(threads)


@dataclasses.dataclass
class _Text:
    """A corpus during the passes; phrases become words after the others, in any order."""

    words: list[str]
    known: dict[str, int]
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, corpus: Corpus) -> _Text:
        vocabulary = corpus.vocabulary
        return cls(list(vocabulary.words), dict(vocabulary.index), corpus.ids, corpus.offsets)

    def merge(self, found: list[Phrase], threads: int) -> None:
        n_words = len(self.words)
        table: dict[tuple[int, int], int] = {}
        new_state = n_words + len(found)
        for one in found:
            parts = [self.known.get(word, -1) for word in one.words]
            if -1 in parts:
                continue
            # Two phrases, or a phrase and a word of the text, may have the same spelling: then they are the same word.
            phrase = self.known.setdefault(one.phrase, len(self.words))
            if phrase == len(self.words):
                self.words.append(one.phrase)
            state = parts[0]
            for connector in parts[1:-1]:
                target = table.setdefault((state, connector), ~new_state)
                new_state += target == ~new_state
                state = ~target
            table[state, parts[-1]] = phrase
        keys = np.array(list(table), np.int64).reshape(-1, 2)
        targets = np.array(list(table.values()), np.int64)
        transitions = (keys[:, 0], keys[:, 1], targets)
        self.ids, self.offsets = _merged(self.ids, self.offsets, transitions, n_words, threads)


def _merged(
    ids: NDArray[np.int32], offsets: NDArray[np.int64], transitions: _Transitions, n_words: int, threads: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The text in which transitions are replaced by their targets."""
    out, out_offsets = np.empty(len(ids), np.int32), np.empty(len(offsets), np.int64)
    states, words, targets = (one.astype(np.int32) for one in transitions)
    n = _core.merge_phrases(
        ids, offsets, out, out_offsets, states=states, words=words, targets=targets, n_words=n_words, threads=threads
    )
    out.resize(n, refcheck=False)
    return out, out_offsets


def _frequent(
    csr: sparse.csr_array,
    left_wanted: NDArray[np.bool_],
    right_wanted: NDArray[np.bool_],
    min_count: int,
    names: NDArray[np.int64] | None = None,
) -> _Pairs:
    """Rows, columns and values of at least `min_count` where both are wanted; columns of one name count together."""
    parts: list[_Pairs] = []
    for begin, end in itertools.pairwise(range_borders(np.diff(csr.indptr).astype(np.int64), _PAIRS)):
        span = slice(csr.indptr[begin], csr.indptr[end])
        rows = np.repeat(np.arange(begin, end), np.diff(csr.indptr[begin : end + 1]))
        wanted = left_wanted[rows] & right_wanted[csr.indices[span]]
        left, right = rows[wanted], csr.indices[span][wanted].astype(np.int64)
        n = csr.data[span][wanted].astype(np.float64)
        if names is not None:
            keys, places = np.unique(left * len(names) + names[right], return_inverse=True)
            left, right = np.divmod(keys, len(names))
            n = np.bincount(places, n, len(keys)).astype(np.float64)
        frequent = n >= min_count
        parts.append((left[frequent], right[frequent], n[frequent]))
    lefts, rights, counts = zip(*parts, strict=True)
    return np.concatenate(lefts), np.concatenate(rights), np.concatenate(counts)


def _table(found: list[Phrase]) -> dict[tuple[str, ...], str | None]:
    """The phrase for the words of each, and None for the beginnings of phrases."""
    table: dict[tuple[str, ...], str | None] = {}
    for one in found:
        table[one.words] = one.phrase
        for n in range(1, len(one.words)):
            table[one.words[:n]] = None
    return table


def _merge_tokens(tokens: list[str], table: dict[tuple[str, ...], str | None]) -> list[str]:
    merged = []
    at = 0
    while at < len(tokens):
        token, words = tokens[at], tokens[at : at + 1]
        at += 1
        end = at
        while (key := tuple(words)) in table:
            phrase = table[key]
            if phrase is not None:
                token, at = phrase, end
                break
            if end == len(tokens):
                break
            words.append(tokens[end])
            end += 1
        merged.append(token)
    return merged
