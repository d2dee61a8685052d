"""Evaluation of vectors: human judgments of similarity, and analogies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, get_args

import numpy as np
from numpy.typing import NDArray

from firth import files
from firth.checks import one_of
from firth.text import open_text
from firth.vectors import Method, Vectors, unit_rows

_BATCH = 1 << 24  # cosines in memory at once for 3CosMul

Triple = tuple[str, str, float]
Question = tuple[str, str, str, str]


@dataclass(frozen=True)
class Similarity:
    """Agreement with human judgments of how similar words are, over the `pairs` of words that were both `found`.

    `spearman` is the rank correlation of cosines and scores; equal values share their mean rank. It is NaN with fewer
    than two found pairs, or if all cosines or all scores are equal. `composed` counts the found pairs with an
    out-of-vocabulary word, whose vector a subword model composes from its character n-grams.
    """

    spearman: float
    pairs: int
    found: int
    composed: int = 0

    @property
    def coverage(self) -> float:
        """Share of the pairs that were found."""
        return self.found / self.pairs if self.pairs else 0.0


@dataclass(frozen=True)
class Section:
    """Analogies of one kind: questions `asked`, `found` (all four words in the vocabulary) and answered `correct`ly."""

    name: str
    correct: int
    found: int
    asked: int

    @property
    def accuracy(self) -> float:
        """Share of the found questions that were answered correctly; NaN if none was found."""
        return self.correct / self.found if self.found else float("nan")

    @property
    def coverage(self) -> float:
        """Share of the questions that were found."""
        return self.found / self.asked if self.asked else 0.0


@dataclass(frozen=True)
class Analogies(Section):
    """Analogies of all sections together, with the name "total", and each section's in the order of the questions."""

    sections: tuple[Section, ...]


def similarity(vectors: Vectors, pairs: files.PathLike | Iterable[Triple], *, lower: bool = True) -> Similarity:
    """Compare cosines of word pairs with human scores (Finkelstein et al. 2002; Bruni et al. 2014; ...).

    Parameters
    ----------
    pairs
        A file of lines "word word score", separated by tabs, semicolons, commas or blanks (the first of these that the
        line contains), where a header and lines that begin with # are ignored; or (word, word, score) triples.
    lower
        For a word that is not in the vocabulary, take its lower-cased spelling, else the first word (usually the most
        frequent one) that differs only in case.

    Raises
    ------
    ValueError
        Naming file and line, or the place in `pairs`, of anything else than two words and a number.

    Notes
    -----
    Words whose vectors a subword model composes count as found. To evaluate its vocabulary only, as gensim does, pass
    ``Vectors(v.words, v.matrix)``.
    """
    triples = list(_pairs(_gold_lines(Path(pairs))) if isinstance(pairs, (str, os.PathLike)) else pairs)
    spellings = _Spellings(vectors, lower)
    cosines, scores, composed = [], [], 0
    for i, triple in enumerate(triples):
        try:
            a, b, score = triple
            score = float(score)
        except (TypeError, ValueError):
            raise ValueError(f"pairs[{i}] should be two words and a score, not {triple!r:.80}") from None
        known_a, known_b = spellings.of(a), spellings.of(b)
        if known_a is not None and known_b is not None:
            cosines.append(vectors.similarity(known_a, known_b))
            scores.append(score)
            composed += known_a not in vectors.index or known_b not in vectors.index
    return Similarity(_spearman(cosines, scores), len(triples), len(cosines), composed)


def analogies(
    vectors: Vectors,
    questions: files.PathLike | Mapping[str, Sequence[Question]],
    *,
    restrict_vocab: int | None = 300_000,
    method: Method = "3cosadd",
    lower: bool = True,
) -> Analogies:
    """Accuracy on questions "a is to b as c is to d" (Mikolov et al. 2013a).

    Parameters
    ----------
    questions
        A file of lines "a b c d" under section lines ": name" (questions-words.txt), or quadruples by section name.
    restrict_vocab
        Use only the first so many words, for questions and answers.
    method
        See `Vectors.most_similar`.
    lower
        As for `similarity`. An answer that differs from the expected word only in case is then correct. A word that
        differs from one of the question's words only in case is never an answer.

    Raises
    ------
    TypeError, ValueError
        Naming file and line, if a line is not four words; or if an argument has the wrong type or is out of range.

    Notes
    -----
    a, b and c are never answers. A question with an out-of-vocabulary word counts as asked, not as found.
    """
    one_of("method", method, get_args(Method))
    known = vectors.restricted(restrict_vocab)
    spellings = _Spellings(vectors, lower, known)
    if not isinstance(questions, Mapping | str | os.PathLike):
        raise TypeError(
            "questions must be a file, or lists of quadruples by section name, such as {'capitals': [...]}, not "
            f"{type(questions).__name__}"
        )
    asked = questions if isinstance(questions, Mapping) else _questions(_gold_lines(Path(questions)))
    rows: list[list[int]] = []
    section_of: list[int] = []
    for section, (name, quadruples) in enumerate(asked.items()):
        for question in quadruples:
            if len(question) != 4:
                raise ValueError(f"section {name!r}: a question has four words, not {question!r}")
            found = [spellings.row(word) for word in question]
            if None not in found:
                rows.append([row for row in found if row is not None])
                section_of.append(section)
    quads = np.array(rows, np.int64).reshape(-1, 4)
    same = spellings.same()
    answers = _answers(vectors, quads[:, :3], known, method, same)
    right = np.zeros(len(quads), np.bool_)
    some = answers >= 0
    right[some] = same[answers[some]] == same[quads[some, 3]]
    belongs = np.array(section_of, np.int64)
    found_in = np.bincount(belongs, minlength=len(asked)).tolist()
    right_in = np.bincount(belongs[right], minlength=len(asked)).tolist()
    n_asked = map(len, asked.values())
    sections = tuple(map(Section, asked, right_in, found_in, n_asked))
    total = sum(section.asked for section in sections)
    return Analogies("total", int(right.sum()), len(quads), total, sections)


def _answers(
    vectors: Vectors, triples: NDArray[np.int64], known: int, method: Method, same: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The best row for each question (q, 3) except those of its words by `same` (known,); -1 without one."""
    # Of the four best, at most three are the question's own words; of other spellings there may be more.
    most = 4 if (same == np.arange(known)).all() else 8
    answers = np.full(len(triples), -1, np.int64)
    size = max(1, (_BATCH // max(1, known)) if method == "3cosmul" else 4096)
    for begin in range(0, len(triples), size):
        batch = triples[begin : begin + size]
        each = np.arange(len(batch))
        a, b, c = (unit_rows(vectors.matrix[batch[:, i]]) for i in range(3))
        if method == "3cosadd":
            rows, _ = vectors.search(b - a + c, most, restrict_vocab=known)
            own = (rows < 0) | (same[rows][:, :, None] == same[batch][:, None, :]).any(axis=2)
            first = np.argmin(own, axis=1)
            answers[begin : begin + size] = np.where(own[each, first], -1, rows[each, first])
        else:
            scores = vectors.multiplied(np.stack([b, c], axis=1), a[:, None], restrict_vocab=known)
            np.put_along_axis(scores, batch, -np.inf, axis=1)
            while True:
                best = np.argmax(scores, axis=1)
                some = scores[each, best] > -np.inf
                own = some & (same[best][:, None] == same[batch]).any(axis=1)
                if not own.any():
                    break
                scores[each[own], best[own]] = -np.inf
            answers[begin : begin + size] = np.where(some, best, -1)
    return answers


class _Spellings:
    """The spellings of words in the vocabulary, among its first `known` words."""

    def __init__(self, vectors: Vectors, lower: bool, known: int | None = None) -> None:
        self.vectors = vectors
        self.lower = lower
        self.known = len(vectors) if known is None else known

    def row(self, word: str) -> int | None:
        """Row of a word: as spelled, else lower-cased, else in any case; TypeError if it is not a str."""
        if not isinstance(word, str):
            raise TypeError(f"a word must be a str, not {word!r:.60}")
        for spelling in (word, word.lower()) if self.lower else (word,):
            row = self.vectors.index.get(spelling)
            if row is not None and row < self.known:
                return row
        return self.in_any_case.get(word.casefold()) if self.lower else None

    def of(self, word: str) -> str | None:
        """The spelling of a word that has a vector, its own or one composed of n-grams; None if there is none."""
        row = self.row(word)
        if row is not None:
            return self.vectors.words[row]
        # N-grams of capitals are untrained if the vocabulary has none.
        spelling = word if self.has_capitals or not self.lower else word.lower()
        return spelling if spelling in self.vectors else None

    def same(self) -> NDArray[np.int64]:
        """For each row the first one with the same word: in any case if `lower`."""
        if not self.lower:
            return np.arange(self.known)
        words = self.vectors.words
        return np.array([self.in_any_case[words[row].casefold()] for row in range(self.known)], np.int64)

    @cached_property
    def in_any_case(self) -> dict[str, int]:
        words = self.vectors.words
        return {words[row].casefold(): row for row in reversed(range(self.known))}

    @cached_property
    def has_capitals(self) -> bool:
        return any(word != word.lower() for word in self.vectors.words)


def _spearman(x: list[float], y: list[float]) -> float:
    if len(x) < 2 or min(x) == max(x) or min(y) == max(y):
        return float("nan")
    from scipy.stats import rankdata  # takes half a second, which `import firth` saves

    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def read_gold(path: files.PathLike | IO[bytes]) -> list[Triple] | dict[str, list[Question]]:
    """Read human judgments of similarity, or analogies by section: a file's first line decides which of them it holds.

    ValueError if it holds neither, naming the first wrong line.
    """
    lines = list(_gold_lines(path))  # once, because it may be a pipe
    first = lines[0][1] if lines else ""
    if first.startswith(":"):
        return _questions(lines)
    try:
        pairs = list(_pairs(lines))
    except ValueError as error:
        hint = "; analogies begin with a line ': section'" if len(first.split()) == 4 else ""
        raise ValueError(f"{error}{hint}") from None
    if not pairs:
        raise ValueError(f"{files.name_of(path)} holds neither pairs of words with scores nor analogies")
    return pairs


def _gold_lines(path: files.PathLike | IO[bytes]) -> Iterator[tuple[str, str]]:
    """The lines of a test set that are not blank, each after its place."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            place = f"{files.name_of(path)}, line {number}"
            try:
                text = line.decode().strip()
            except UnicodeDecodeError:
                raise ValueError(f"{place} is not UTF-8: {line!r}") from None
            if text:
                yield place, text


def _pairs(lines: Iterable[tuple[str, str]]) -> Iterator[Triple]:
    first = True
    for place, line in lines:
        if line.startswith("#"):
            continue
        separator = next((one for one in "\t;," if one in line), None)
        parts = [part.strip() for part in line.split(separator)]
        header, first = first, False
        if len(parts) == 3 and parts[0] and parts[1]:
            try:
                score = float(parts[2])
            except ValueError:
                if header:
                    continue
            else:
                if np.isfinite(score):
                    yield parts[0], parts[1], score
                    continue
        raise ValueError(f"{place} should be two words and a score: {line!r}")


def _questions(lines: Iterable[tuple[str, str]]) -> dict[str, list[Question]]:
    sections: dict[str, list[Question]] = {}
    section: list[Question] | None = None
    for place, line in lines:
        if line.startswith(":"):
            section = sections.setdefault(line[1:].strip(), [])
            continue
        words = line.split()
        if len(words) != 4:
            raise ValueError(f"{place} should be four words, or ': section': {line!r}")
        if section is None:
            raise ValueError(f"{place} comes before the first ': section': {line!r}")
        section.append((words[0], words[1], words[2], words[3]))
    return sections
