"""How good vectors are: by people's judgements of similarity, and by analogies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firth import files
from firth.vectors import Method, Vectors, check_method, unit_rows

_BATCH = 1 << 24  # cosines held at once by 3CosMul

Triple = tuple[str, str, float]
Question = tuple[str, str, str, str]


@dataclass(frozen=True)
class Similarity:
    """Agreement with people on how similar words are.

    Attributes
    ----------
    spearman
        Rank correlation of cosines and scores, over the pairs found; equal values share their mean rank. NaN if
        fewer than two pairs were found, or all cosines or all scores are equal.
    pairs
        Pairs asked for.
    found
        Pairs of which both words are known.
    """

    spearman: float
    pairs: int
    found: int

    @property
    def coverage(self) -> float:
        """Share of the pairs that were found."""
        return self.found / self.pairs if self.pairs else 0.0


@dataclass(frozen=True)
class Section:
    """Analogies of one kind.

    Attributes
    ----------
    name
        Of the section.
    correct
        Questions answered with the word expected.
    found
        Questions of which all four words are known.
    asked
        All questions.
    """

    name: str
    correct: int
    found: int
    asked: int

    @property
    def accuracy(self) -> float:
        """Share of the questions found that were answered right; NaN if none was found."""
        return self.correct / self.found if self.found else float("nan")

    @property
    def coverage(self) -> float:
        """Share of the questions that were found."""
        return self.found / self.asked if self.asked else 0.0


@dataclass(frozen=True)
class Analogies(Section):
    """Analogies of all sections together, and each section's.

    Attributes
    ----------
    name, correct, found, asked
        As a section's; the name is "total".
    sections
        Each section, in the order asked.
    """

    sections: tuple[Section, ...]


def similarity(vectors: Vectors, pairs: files.PathLike | Iterable[Triple], *, lower: bool = True) -> Similarity:
    """Compare cosines of word pairs with people's scores (Finkelstein et al. 2002; Bruni et al. 2014; ...).

    Parameters
    ----------
    vectors
        What to judge.
    pairs
        A file of lines "word word score", apart by tabs, semicolons, commas or blanks (the first of these that the
        line contains), with lines that begin with # and a header left out; or (word, word, score) triples.
    lower
        Look for a word's lower-cased spelling if its own is unknown.

    Returns
    -------
    Similarity

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        Naming file and line, if a line is not two words and a number.
    """
    triples = list(_read_pairs(Path(pairs)) if isinstance(pairs, (str, os.PathLike)) else pairs)
    cosines, scores = [], []
    for a, b, score in triples:
        row_a, row_b = _row(vectors, a, lower), _row(vectors, b, lower)
        if row_a is not None and row_b is not None:
            cosines.append(vectors.similarity(vectors.words[row_a], vectors.words[row_b]))
            scores.append(float(score))
    return Similarity(_spearman(cosines, scores), len(triples), len(cosines))


def analogies(
    vectors: Vectors,
    questions: files.PathLike | Mapping[str, Sequence[Question]],
    *,
    restrict_vocab: int | None = 300_000,
    method: Method = "3cosadd",
    lower: bool = True,
) -> Analogies:
    """Ask "a is to b as c is to ...", and count the answers that are d (Mikolov et al. 2013a).

    Parameters
    ----------
    vectors
        What to judge.
    questions
        A file of lines "a b c d" under section lines ": name" (questions-words.txt), or quadruples by section name.
    restrict_vocab
        Use the first so many words alone, for the questions as for the answers.
    method
        "3cosadd" or "3cosmul"; see `Vectors.most_similar`.
    lower
        Look for a word's lower-cased spelling if its own is unknown.

    Returns
    -------
    Analogies

    Raises
    ------
    OSError
        If the file cannot be read.
    TypeError
        If restrict_vocab is not a whole number.
    ValueError
        Naming file and line, if a line is not four words; or if restrict_vocab is negative, or there is no such method.

    Notes
    -----
    a, b and c are never answers. A question with an unknown word counts as asked, not as found.
    """
    check_method(method)
    known = vectors._restricted(restrict_vocab)
    asked = questions if isinstance(questions, Mapping) else _read_questions(Path(questions))
    names: list[str] = []
    rows: list[list[int]] = []
    section_of: list[int] = []
    for section, (name, quadruples) in enumerate(asked.items()):
        names.append(name)
        for question in quadruples:
            if len(question) != 4:
                raise ValueError(f"section {name!r}: a question has four words, not {question!r}")
            found = [_row(vectors, word, lower, known) for word in question]
            if None not in found:
                rows.append([row for row in found if row is not None])
                section_of.append(section)
    quads = np.array(rows, np.int64).reshape(-1, 4)
    right = _answers(vectors, quads[:, :3], known, method) == quads[:, 3]
    belongs = np.array(section_of, np.int64)
    found_in = np.bincount(belongs, minlength=len(names))
    right_in = np.bincount(belongs[right], minlength=len(names))
    sections = tuple(
        Section(name, int(right_in[i]), int(found_in[i]), len(asked[name])) for i, name in enumerate(names)
    )
    total = sum(section.asked for section in sections)
    return Analogies("total", int(right.sum()), len(quads), total, sections)


def _answers(vectors: Vectors, triples: NDArray[np.int64], known: int, method: Method) -> NDArray[np.int64]:
    """Best row for each question (q, 3), -1 where there is none."""
    answers = np.full(len(triples), -1, np.int64)
    size = max(1, (_BATCH // max(1, known)) if method == "3cosmul" else 4096)
    for begin in range(0, len(triples), size):
        batch = triples[begin : begin + size]
        a, b, c = (unit_rows(vectors.matrix[batch[:, i]]) for i in range(3))
        if method == "3cosadd":
            # Of the four best, at most three are the question's own words.
            rows, _ = vectors.search(b - a + c, 4, restrict_vocab=known)
            own = (rows[:, :, None] == batch[:, None, :]).any(axis=2)
            first = np.argmin(own, axis=1)
            each = np.arange(len(batch))
            answers[begin : begin + size] = np.where(own[each, first], -1, rows[each, first])
        else:
            scores = vectors._multiplied(np.stack([b, c], axis=1), a[:, None], restrict_vocab=known)
            np.put_along_axis(scores, batch, -np.inf, axis=1)
            best = np.argmax(scores, axis=1)
            some = scores[np.arange(len(batch)), best] > -np.inf
            answers[begin : begin + size] = np.where(some, best, -1)
    return answers


def _row(vectors: Vectors, word: str, lower: bool, known: int | None = None) -> int | None:
    """Row of a word among the first `known`, as it is spelled or else lower-cased."""
    for spelling in (word, word.lower()) if lower else (word,):
        row = vectors.index.get(spelling)
        if row is not None and (known is None or row < known):
            return row
    return None


def _spearman(x: list[float], y: list[float]) -> float:
    if len(x) < 2 or min(x) == max(x) or min(y) == max(y):
        return float("nan")
    from scipy.stats import rankdata  # half a second that `import firth` need not wait

    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, blank ones left out."""
    with files.open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise ValueError(f"{path}, line {number} is not UTF-8: {line!r}") from None
            if text:
                yield number, text


def _read_pairs(path: Path) -> Iterator[Triple]:
    first = True
    for number, line in _lines(path):
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
        raise ValueError(f"{path}, line {number} should be two words and a score: {line!r}")


def _read_questions(path: Path) -> dict[str, list[Question]]:
    sections: dict[str, list[Question]] = {}
    section: list[Question] | None = None
    for number, line in _lines(path):
        if line.startswith(":"):
            section = sections.setdefault(line[1:].strip(), [])
            continue
        words = line.split()
        if len(words) != 4:
            raise ValueError(f"{path}, line {number} should be four words, or ': section': {line!r}")
        if section is None:
            raise ValueError(f"{path}, line {number} comes before the first ': section': {line!r}")
        section.append((words[0], words[1], words[2], words[3]))
    return sections
