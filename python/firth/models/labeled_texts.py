"""Texts and their labels as numbers, from memory or from files."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firth import _core, corpus, files
from firth.checks import column
from firth.runtime import thread_count
from firth.text import TextFiles

# fastText splits words at these characters only; str.split also splits at other white space, but not at NUL.
_split_as_fasttext = re.compile("[^ \t\n\v\f\r\0]+").findall
_OTHER_WHITE = re.compile("[\0\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")

_TEXTS_PER_THREAD = 256  # below which another thread costs more than it helps


def threads_for(texts: int, threads: int | None) -> int:
    """At most `threads`, and few enough for this number of texts."""
    return max(1, min(thread_count(threads), texts // _TEXTS_PER_THREAD))


@dataclasses.dataclass(frozen=True, eq=False)
class Texts:
    """Texts as ids of their different words, the most frequent first."""

    packed: NDArray[np.uint8]
    word_offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, counter: _core.TextCounter) -> Texts:
        """The texts in a counter."""
        counter.merge()
        packed, word_offsets, counts = counter.select(1, -1)
        ids = np.empty(counter.kept_tokens, np.int32)
        offsets = np.empty(counter.documents + 1, np.int64)
        counter.write(ids, offsets)
        return cls(packed, word_offsets, counts, ids, offsets)

    @cached_property
    def words(self) -> list[str]:
        """The different words."""
        return files.unpack_words({"words": self.packed, "word_offsets": self.word_offsets})

    def some(self, chosen: NDArray[np.int64]) -> Texts:
        """Some of the texts."""
        offsets, ids = _lists(self.offsets, self.ids, chosen)
        return dataclasses.replace(self, ids=ids, offsets=offsets)

    def tokens(self, kept: NDArray[np.bool_]) -> Texts:
        """Without tokens that are not kept."""
        before = np.concatenate([[0], np.cumsum(kept)])
        return dataclasses.replace(self, ids=self.ids[kept], offsets=before[self.offsets])

    def frequent(self, min_count: int, end: str) -> tuple[list[str], NDArray[np.int64]]:
        """The words with this count, the most frequent first, and their counts; every text also has the word `end`."""
        words = self.words
        counts = np.append(np.bincount(self.ids, minlength=len(words)), 0)
        counts[words.index(end) if end in words else len(words)] += len(self)
        chosen = np.flatnonzero(counts >= min_count)
        chosen = chosen[np.argsort(-counts[chosen], kind="stable")]
        return [words[i] if i < len(words) else end for i in chosen.tolist()], counts[chosen]

    def until(self, word: str) -> Texts:
        """Each text up to the first occurrence of this word."""
        if word not in self.words:
            return self
        seen = np.concatenate([[0], np.cumsum(self.ids == self.words.index(word))])
        return self.tokens(seen[1:] == np.repeat(seen[self.offsets[:-1]], np.diff(self.offsets)))

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Labels:
    """Labels of texts, end to end, as numbers of the labels in a list."""

    begins: NDArray[np.int64]
    numbers: NDArray[np.int32]
    names: list[Any]
    of_file: bool = False
    several: bool = False  # whether each text was given a list of labels

    def renumbered(self, to: NDArray[np.int32], names: list[Any]) -> Labels:
        """Under new numbers; those with negative numbers are left out."""
        numbers = to[self.numbers] if len(to) else self.numbers
        kept = numbers >= 0
        before = np.concatenate([[0], np.cumsum(kept)])
        return dataclasses.replace(self, begins=before[self.begins], numbers=numbers[kept], names=names)

    def frequent(self, min_count: int) -> tuple[Labels, NDArray[np.int64]]:
        """With only the labels of this count, renumbered from the most frequent one on, and their counts."""
        counts = np.bincount(self.numbers, minlength=len(self.names))
        order = np.argsort(-counts, kind="stable")
        order = order[counts[order] >= max(min_count, 1)]
        if len(order) == 0:
            raise ValueError(
                f"no label occurs min_count_label={min_count} times" if len(self.numbers) else "no text has a label"
            )
        to = np.full(len(self.names), -1, np.int32)
        to[order] = np.arange(len(order), dtype=np.int32)
        return self.renumbered(to, [self.names[i] for i in order.tolist()]), counts[order]

    def some(self, chosen: NDArray[np.int64]) -> Labels:
        """Those of some of the texts."""
        begins, numbers = _lists(self.begins, self.numbers, chosen)
        return dataclasses.replace(self, begins=begins, numbers=numbers)

    def known(self, names: list[Any]) -> Labels:
        """As numbers of these names; other labels are left out.

        A file's labels are strings, whatever they were before they were written: there "1" stands for 1 as well.
        TypeError if only the names or only the labels are strings.
        """
        if not self.of_file:
            check_comparable(self.names, names)
        index = {str(name) if self.of_file else name: i for i, name in enumerate(names)}
        return self.renumbered(np.array([index.get(name, -1) for name in self.names], np.int32), names)


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads texts under the options of a classifier."""

    tokenizer: str | Callable[[str], Sequence[str]] | Any
    label_prefix: str
    threads: int | None
    as_fasttext: bool = False  # split at white space as fastText does

    def texts(self, texts: Any, *, progress: bool = False) -> Texts:
        """Texts in memory."""
        column("texts", texts)
        tokenizer: Any = self.tokenizer
        if self.as_fasttext:
            texts = list(texts) if hasattr(texts, "__next__") else texts
            if any(map(_split_differently, texts)):
                tokenizer = _split_as_fasttext
        threads = threads_for(len(texts), self.threads) if hasattr(texts, "__len__") else self.threads
        options = corpus.CorpusOptions(min_count=1, tokenizer=tokenizer, threads=threads)
        return Texts.of(corpus.count_documents(texts, options, name="texts", progress=progress)[0])

    def labeled(self, texts: Any, labels: Any, *, progress: bool = False) -> tuple[Texts, Labels]:
        """Texts and labels, whether in memory or in files."""
        if labels is None:
            return self._files(texts, progress=progress)
        if isinstance(texts, str | os.PathLike):
            raise TypeError("texts is one text or path, and labels are given; give a list of texts, or a path alone")
        numbered = self.texts(texts, progress=progress)
        gold = labels_of(labels)
        if len(gold.begins) != len(numbered.offsets):
            raise ValueError(f"{len(numbered)} texts and {len(gold.begins) - 1} labels: there must be one for each")
        return numbered, gold

    def _files(self, source: Any, *, progress: bool) -> tuple[Texts, Labels]:
        sources = [source] if isinstance(source, str | os.PathLike) or hasattr(source, "read") else source
        if not isinstance(sources, list | tuple) or not all(
            isinstance(one, str | os.PathLike) or hasattr(one, "read") for one in sources
        ):
            raise TypeError(
                "without labels, texts must be the path of a file with labels in it, or a list of paths, "
                f"not {type(source).__name__}"
            )
        for one in sources:
            if isinstance(one, str) and one != "-" and not os.path.exists(one):
                hint = "; for texts in memory, give labels" if " " in one or len(sources) > 1 else ""
                raise FileNotFoundError(2, f"there is no such file{hint}", one[:200])
        if self.tokenizer != "whitespace" or self.as_fasttext:
            split = _split_as_fasttext if self.as_fasttext else str.split
            reader = TextFiles(list(sources), progress=progress)
            texts: list[str] = []
            marked: list[list[str]] = []
            for line in reader.lines():
                words = split(line)
                marked.append([word for word in words if word.startswith(self.label_prefix)])
                texts.append(" ".join(word for word in words if not word.startswith(self.label_prefix)))
            gold = labels_of([[word[len(self.label_prefix) :] for word in words] for words in marked])
            gold = dataclasses.replace(gold, of_file=True)
            numbered = self.texts(texts)
        else:
            options = corpus.CorpusOptions(min_count=1, threads=self.threads)
            counter, reader = corpus.count_files(list(sources), options, progress=progress)
            everything = Texts.of(counter)
            names: list[Any] = []
            label_of = np.full(len(everything.counts), -1, np.int32)
            for i, word in enumerate(everything.words):
                if word.startswith(self.label_prefix):
                    label_of[i] = len(names)
                    names.append(word[len(self.label_prefix) :])
            marks = label_of[everything.ids] >= 0
            marked_tokens = everything.tokens(marks)
            gold = Labels(marked_tokens.offsets, label_of[marked_tokens.ids], names, of_file=True)
            numbered = everything.tokens(~marks)
        reader.warn()
        if not len(gold.numbers):
            raise ValueError(
                f"no line of {', '.join(str(getattr(one, 'name', one)) for one in sources[:3])} has a label: "
                f"no word begins with {self.label_prefix!r}"
            )
        return numbered, gold


def _split_differently(text: Any) -> bool:
    """Whether fastText may split a text at other places than `str.split`."""
    # A printable text has none of these, and that check is twice as fast.
    return isinstance(text, str) and not text.isprintable() and _OTHER_WHITE.search(text) is not None


def labels_of(labels: Any) -> Labels:
    """Labels in memory: one for each text, or a list for each."""
    column("labels", labels, rows=True)
    if getattr(labels, "ndim", 1) > 1 and getattr(labels, "dtype", np.dtype(object)).kind in "biuf":
        raise TypeError(
            "labels are a matrix of indicators: give a list of labels for each text, "
            "[[name for name, has in zip(names, row) if has] for row in labels]"
        )
    items = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    several = (list, tuple, set, frozenset, np.ndarray)
    if in_lists := any(isinstance(item, several) for item in items):
        for i, item in enumerate(items):
            if not isinstance(item, several):
                raise TypeError(f"labels[{i}] is a {type(item).__name__}, and others are lists of labels")
        lists = [item.tolist() if isinstance(item, np.ndarray) else list(item) for item in items]
        lengths = np.array([len(item) for item in lists], np.int64)
        flat = [label for item in lists for label in item]
    else:
        flat = items
        lengths = np.ones(len(items), np.int64)
    numbers = np.empty(len(flat), np.int32)
    index: dict[Any, int] = {}
    kinds: set[type] = set()

    def place() -> str:
        return f"the label of texts[{int(np.searchsorted(np.cumsum(lengths), i, side='right'))}]"

    for i, label in enumerate(flat):
        label = checked_label(label, place)
        kinds.add(type(label))
        numbers[i] = index.setdefault(label, len(index))
    check_one_type(kinds)
    names = sorted(index)
    to = np.empty(len(names), np.int32)
    to[[index[name] for name in names]] = np.arange(len(names), dtype=np.int32)
    begins = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=begins[1:])
    return Labels(begins, to[numbers] if len(names) else numbers, names, several=in_lists)


def checked_label(label: Any, where: Callable[[], str]) -> Any:
    """A label as a Python value; TypeError with its place if it is neither a string nor a number."""
    if isinstance(label, np.generic):
        label = label.item()
    if type(label) not in (str, int, bool, float) or label != label:
        kind = "NaN" if isinstance(label, float) else type(label).__name__
        raise TypeError(f"{where()} is {label!r}, a {kind}; labels are strings or whole numbers")
    return label


def check_one_type(kinds: Iterable[type]) -> None:
    """TypeError if labels are of several types."""
    found = sorted({kind.__name__ for kind in kinds})
    if len(found) > 1:
        raise TypeError(f"labels must be of one type, not {' and '.join(found)}")


def check_comparable(given: Sequence[Any], classes: Sequence[Any]) -> None:
    """TypeError if only the given labels or only the classes are strings, so that none can be equal."""
    if len(given) and len(classes) and isinstance(given[0], str) != isinstance(classes[0], str):
        theirs, own = (type(some[0]).__name__ for some in (given, classes))
        raise TypeError(
            f"labels are of type {theirs}, such as {given[0]!r}, and this classifier's classes_ of type {own}, "
            f"such as {classes[0]!r}: no prediction could be right. Give them as {own}"
        )


def _lists(begins: NDArray[np.int64], items: NDArray[Any], chosen: NDArray[np.int64]) -> tuple[Any, Any]:
    """Some of the lists that lie end to end."""
    lengths = np.diff(begins)[chosen]
    ends = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(ends[-1]) - np.repeat(ends[:-1] - begins[:-1][chosen], lengths)
    return ends, items[places]
