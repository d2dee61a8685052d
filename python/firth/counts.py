"""Co-occurrence counts: how often words occur near each other."""

from __future__ import annotations

import dataclasses
import itertools
import reprlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tqdm import tqdm

from firth import _core, files
from firth.checks import one_of, real_number, whole_number
from firth.corpus import Corpus, Vocabulary
from firth.runtime import thread_count

Side = Literal["both", "left", "right"]
Weighting = Literal["flat", "harmonic", "dynamic"]

# A record of GloVe's programs: rows and columns from 1.
_GLOVE = np.dtype([("row", "<i4"), ("column", "<i4"), ("value", "<f8")])
_FEW = 1 << 22  # tokens of a corpus so small that the memory for counting does not matter
_STEPS = 4  # ranges of rows, at least: the bar moves after each, and the copies of its rows are freed; all threads wait
_RECORDS = 1 << 20  # GloVe records handled at once
_ENTRIES = 1 << 18  # of a matrix, handled at once in float64: they stay in cache


@dataclasses.dataclass(frozen=True, eq=False)
class Cooccurrences:
    """A co-occurrence matrix, the words of its rows and columns, and how it was counted.

    Attributes
    ----------
    csr
        ``scipy.sparse.csr_array`` of float32, (words, words), columns ascending in each row. Row i, column j: the sum
        of the weights of all places where word j occurs near word i.
    window, side, weighting
        As passed to `count_cooccurrences`; None if not known.
    """

    csr: sparse.csr_array
    vocabulary: Vocabulary
    window: int | None = None
    side: Side | None = None
    weighting: Weighting | None = None

    def __post_init__(self) -> None:
        n = len(self.vocabulary)
        kind = f"{type(self.csr).__name__} of {getattr(self.csr, 'dtype', 'no numbers')}"
        if kind != "csr_array of float32":
            raise TypeError(f"csr must be a scipy.sparse.csr_array of float32, not a {kind}")
        if self.csr.shape != (n, n):
            raise ValueError(f"csr must be {n} by {n}, as the vocabulary has {n} words, not {self.csr.shape}")
        if not self.csr.has_canonical_format:
            raise ValueError(
                "csr must have ascending columns without repetition in each row: call csr.sum_duplicates()"
            )

    def __repr__(self) -> str:
        return f"<Cooccurrences of {len(self.vocabulary)} words, {self.csr.nnz} non-zeros>"

    def pmi(
        self, *, shift: float = 1.0, context_smoothing: float = 0.75, positive: bool = True
    ) -> sparse.csr_array[np.float32]:
        r"""Pointwise mutual information of words and contexts: float32 (words, words), without stored zeros.

        With :math:`x_{ij}` the counts, :math:`r_i` the sums of their rows and :math:`c_j` of their columns, an entry is

        .. math:: \max\Bigl(0, \log\frac{x_{ij}\,\sum_k c_k^\alpha}{r_i\,c_j^\alpha} - \log s\Bigr)

        (Levy, Goldberg & Dagan 2015, equation 3 with the smoothed contexts of section 3.2): how much more often word i
        occurs with context j than by chance, in nats.

        Parameters
        ----------
        shift
            s, above 0: its logarithm is subtracted from all entries, as k negative samples do in word2vec (Levy &
            Goldberg 2014).
        context_smoothing
            :math:`\alpha`. Below 1, rare contexts count as more frequent than they are, and their PMI is lower.
        positive
            Whether negative entries become 0. Pairs that never occur, whose PMI is minus infinity, are always 0.

        Raises
        ------
        TypeError, ValueError
            If an option is out of range, a count is negative or not finite, or a column lies outside of the matrix.
        """
        shift = real_number("shift", shift, above=0)
        alpha = real_number("context_smoothing", context_smoothing, low=0)
        data, indices, indptr = self.csr.data, self.csr.indices, self.csr.indptr
        n_rows, n_columns = self.csr.shape
        cuts = range_borders(np.diff(indptr), _ENTRIES)
        ranges = [(first, end, slice(indptr[first], indptr[end])) for first, end in itertools.pairwise(cuts)]

        row_sums, column_sums = np.zeros(n_rows), np.zeros(n_columns)
        for first, end, part in ranges:
            values, columns = data[part], indices[part]
            if len(values) and not (
                values.min() >= 0 and values.max() < np.inf and columns.min() >= 0 and columns.max() < n_columns
            ):
                outside = (columns < 0) | (columns >= n_columns)
                wrong = int(np.flatnonzero(outside | ~((values >= 0) & (values < np.inf)))[0])
                row = int(np.searchsorted(indptr, part.start + wrong, side="right")) - 1
                place = f"row {row}, column {columns[wrong]}"
                if outside[wrong]:
                    raise ValueError(f"{place} lies outside of a matrix of {n_columns} words")
                raise ValueError(f"the count in {place} is {values[wrong]}: not 0 or more")
            column_sums += np.bincount(columns, values, n_columns)
            filled = np.flatnonzero(np.diff(indptr[first : end + 1])) + first  # reduceat needs rows that are not empty
            if len(filled):
                row_sums[filled] = np.add.reduceat(values, indptr[filled] - indptr[first], dtype=np.float64)

        # A word that never occurs has no entry: its logarithm is not used.
        row_logs = np.log(row_sums, out=np.zeros(n_rows), where=row_sums > 0)
        met = column_sums > 0
        column_logs = alpha * np.log(column_sums, out=np.zeros(n_columns), where=met)
        column_logs -= column_logs.max(where=met, initial=-np.inf) if met.any() else 0.0  # cancels; no overflow
        total = np.log(np.exp(column_logs[met]).sum()) - np.log(shift) if met.any() else 0.0

        lengths, kept_columns, kept = [], [], []
        for first, end, part in ranges:
            seen = data[part] > 0
            pmi = np.log(data[part], dtype=np.float64, where=seen, out=np.zeros(len(seen)))
            pmi -= column_logs[indices[part]]
            pmi += np.repeat(total - row_logs[first:end], np.diff(indptr[first : end + 1]))
            found = pmi.astype(np.float32)
            keep = seen & ((found > 0) if positive else (found != 0))  # a stored 0 is a pair that never occurs
            kept.append(found[keep])
            kept_columns.append(indices[part][keep])
            before = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep)])
            lengths.append(np.diff(before[indptr[first : end + 1] - indptr[first]]))
        whole = _indptr(lengths)
        return _csr(_joined(kept, np.float32), _joined(kept_columns, indices.dtype), whole)

    def save(self, path: files.PathLike) -> None:
        """Write matrix and words as one safetensors file, which `firth.load` maps; it appears whole or not at all."""
        tensors = {
            **files.pack_words(self.vocabulary.words),
            "counts": self.vocabulary.counts,
            "data": self.csr.data,
            "indices": self.csr.indices,
            "indptr": self.csr.indptr,
        }
        options = {"window": self.window, "side": self.side, "weighting": self.weighting}
        files.write_own(path, "counts", tensors, {"options": options})

    def to_glove(self, path: files.PathLike, vocabulary: files.PathLike | None = None) -> None:
        """Write the matrix in the format of GloVe's programs: records of two int32, counted from 1, and a float64.

        The records are in order; GloVe's ``shuffle`` mixes them, as its ``glove`` expects. `vocabulary` is a file for
        the words, as of ``vocab_count``: a word and its count per line, in the order of the rows. ValueError if GloVe's
        programs cannot read a word (see `check_glove_words`). Then nothing is written.
        """
        if vocabulary is not None:
            check_glove_words(self.vocabulary.words)
            with files.replacing(vocabulary) as file:
                for word, count in zip(self.vocabulary.words, self.vocabulary.counts.tolist(), strict=True):
                    file.write(f"{word} {count}\n".encode())
        indptr = self.csr.indptr
        with files.replacing(path) as file:
            for start in range(0, self.csr.nnz, _RECORDS):
                end = min(start + _RECORDS, self.csr.nnz)
                records = np.empty(end - start, _GLOVE)
                first, last = np.searchsorted(indptr, start, side="right"), np.searchsorted(indptr, end, side="left")
                borders = np.clip(indptr[first - 1 : last + 1], start, end)
                records["row"] = np.repeat(np.arange(first, last + 1), np.diff(borders))
                records["column"] = self.csr.indices[start:end] + 1
                records["value"] = self.csr.data[start:end]
                file.write(records.data.cast("B"))

    @staticmethod
    def from_glove(path: files.PathLike, vocabulary: Vocabulary) -> Cooccurrences:
        """Read the records of GloVe's ``cooccur`` or ``shuffle``, in any order, plain or compressed.

        `vocabulary` has the words in the order of the file of ``vocab_count``. ValueError if the file does not consist
        of whole records, or a record names a word outside of the vocabulary.
        """
        raw = np.frombuffer(files.contents(path), np.uint8)
        path = files.name_of(path)
        if len(raw) % _GLOVE.itemsize:
            raise ValueError(f"{path} does not hold whole records of {_GLOVE.itemsize} bytes: it has {len(raw)}")
        records = raw.view(_GLOVE)
        n = len(vocabulary)
        for name in ("row", "column"):
            for start in range(0, len(records), _RECORDS):
                numbers = records[name][start : start + _RECORDS]
                wrong = np.flatnonzero((numbers < 1) | (numbers > n))
                if len(wrong):
                    at = start + int(wrong[0])
                    raise ValueError(f"{path}: record {at + 1} names word {records[name][at]} of a vocabulary of {n}")
        pairs = (records["row"] - np.int32(1), records["column"] - np.int32(1))
        csr = sparse.csr_array(sparse.coo_array((records["value"].astype(np.float32), pairs), shape=(n, n)))
        csr.sort_indices()
        return Cooccurrences(csr, vocabulary)


@files.reader("counts")
def _opened(tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> Cooccurrences:
    vocabulary = Vocabulary(files.unpack_words(tensors), np.array(tensors["counts"]))
    data, indices, indptr = tensors["data"], tensors["indices"], tensors["indptr"]
    if not (
        data.ndim == indices.ndim == indptr.ndim == 1
        and indices.dtype in (np.int32, np.int64)
        and len(indptr) == len(vocabulary) + 1
        and indptr[0] == 0
        and (np.diff(indptr) >= 0).all()
        and indptr[-1] == len(data) == len(indices)
    ):
        raise ValueError("its arrays do not fit together")
    return Cooccurrences(_csr(data, indices, indptr), vocabulary, **metadata["options"])


def check_glove_words(words: list[str]) -> None:
    """ValueError if GloVe's programs cannot read a word.

    They end a word at white space or after 1,000 bytes, and ``glove`` stops at ``<unk>``, which it writes itself.
    """
    for word in words:
        if not 0 < len(word.encode()) <= 1000 or word == "<unk>" or any(letter in word for letter in " \t\n\v\f\r"):
            raise ValueError(
                "a word in GloVe's vocabulary must have 1 to 1,000 bytes without white space and must not be <unk>; it "
                f"is {reprlib.repr(word)}"
            )


def count_cooccurrences(
    corpus: Corpus,
    *,
    window: int = 10,
    side: Side = "both",
    weighting: Weighting = "harmonic",
    memory: int | None = None,
    threads: int | None = None,
    progress: bool = False,
) -> Cooccurrences:
    r"""Count how often words occur near each other.

    Parameters
    ----------
    corpus
        The documents; a window never crosses the border between two.
    window
        The largest distance between words that co-occur.
    side
        "both": words before and after count, and the matrix is symmetric. "left" or "right": only one side counts.
    weighting
        Weight of a word at distance d: "flat", 1; "harmonic", 1/d (GloVe's); "dynamic", (window - d + 1) / window, the
        mean of word2vec's random windows (Levy, Goldberg & Dagan 2015, section 3.1).
    memory
        Bytes that counting may take; a larger matrix grows in a temporary folder and is mapped from there.

    Raises
    ------
    TypeError, ValueError
        If an option is out of range, or the corpus has no token.
    MemoryError
        If the matrix does not fit, or `memory` is too little for a single row, naming the bytes that are enough.
    OSError
        If the temporary folder has no room; nothing remains there.

    Notes
    -----
    The bits of the result depend neither on `memory` nor on `threads`.

    Weights are rounded to multiples of :math:`2^{-28}` and added as integers: exactly, in any order. A sum is rounded
    once, to float32. So the error of an entry is at most :math:`2^{-24}` of it plus :math:`2^{-29}` for each counted
    place.
    """
    if not isinstance(corpus, Corpus):
        raise TypeError(f"corpus must be a firth.Corpus, not {type(corpus).__name__}")
    check_options(window=window, side=side, weighting=weighting, memory=memory, threads=threads)
    if corpus.n_tokens == 0:
        raise ValueError("the corpus has no token: none of its text is in its vocabulary")
    window, memory = int(window), None if memory is None else int(memory)
    workers = thread_count(threads)
    weights = _weights(weighting, window)
    counts = _core.count_words(corpus.ids, corpus.offsets, len(corpus.vocabulary), threads=workers)
    left, right = None if side == "right" else weights, None if side == "left" else weights
    counter = _core.CooccurrenceCounter(corpus.ids, corpus.offsets, counts, window=window, left=left, right=right)
    most = np.minimum(counts * (2 * window if side == "both" else window), len(counts))  # non-zeros a row can have
    # A thread adds up rows in 9 bytes a word: at most so many threads that the places of all tokens take more memory.
    # Several threads need up to twice that, for sums that wait to be added up.
    workers = max(1, min(workers, max(corpus.n_tokens, _FEW) // max(1, len(counts))))
    # Memory of rows: places of 8 bytes, and non-zeros of 8, which are copied once.
    places, rows = 8 * counts, 8 * most
    fixed = corpus.n_tokens // 8 + 9 * (2 * workers - 1) * len(counts) + 40 * len(counts)
    least = fixed + int(places.max() + 2 * rows.max())
    if memory is not None and memory < least:
        raise MemoryError(f"memory={memory} is too little: one row needs up to {least} bytes")
    in_memory = memory is None or fixed + int(places.sum() + 2 * rows.sum()) <= memory
    step = rows.sum() / _STEPS
    if in_memory or memory is None:
        blocks = [0, len(counts)]
    else:  # half of the memory for the places of a block of words, the other half for its rows and their copy
        room = memory - fixed
        half = max(room / 2, places.max())
        blocks = range_borders(places, half)
        step = min(step, (room - half) / 2)

    with tqdm(total=corpus.n_tokens, desc="counting", unit="w", unit_scale=True, disable=not progress) as bar:

        def ranges() -> Iterator[tuple[int, int]]:
            """Ranges of rows whose places are known."""
            for first, end in itertools.pairwise(blocks):
                counter.find_places(first, end - first, threads=workers)
                for row, stop in itertools.pairwise(range_borders(rows[first:end], step)):
                    yield first + row, first + stop
                    bar.update(int(counts[first + row : first + stop].sum()))

        csr = (_in_memory if in_memory else _on_disk)(counter, most, ranges(), workers)
    return Cooccurrences(csr, corpus.vocabulary, window, side, weighting)


def check_options(*, window: int, side: str, weighting: str, memory: int | None, threads: int | None) -> None:
    """Raise TypeError or ValueError if `count_cooccurrences` does not accept these."""
    whole_number("window", window, low=1, high=2**20)
    one_of("side", side, get_args(Side))
    one_of("weighting", weighting, get_args(Weighting))
    if memory is not None:
        whole_number("memory", memory)
    thread_count(threads)


def _weights(weighting: Weighting, window: int) -> NDArray[np.float64]:
    distance = np.arange(1, window + 1)
    if weighting == "flat":
        return np.ones(window)
    if weighting == "harmonic":
        return np.asarray(1.0 / distance)
    return np.asarray((window - distance + 1) / window)


def range_borders(needs: NDArray[np.int64], room: float) -> list[int]:
    """Borders of ranges of rows that each need at most `room`, or are a single row."""
    total = np.concatenate([[0], np.cumsum(needs)])
    cuts = [0]
    while cuts[-1] < len(needs):
        end = int(np.searchsorted(total, total[cuts[-1]] + room, side="right")) - 1
        cuts.append(max(end, cuts[-1] + 1))
    return cuts


def _csr(data: NDArray[Any], indices: NDArray[Any], indptr: NDArray[Any]) -> sparse.csr_array:
    """A matrix without a copy; scipy's constructor would read mapped arrays to check them."""
    n = len(indptr) - 1
    csr = sparse.csr_array((n, n), dtype=data.dtype)
    # scipy needs index arrays of one type.
    csr.data, csr.indices, csr.indptr = data, indices, indptr.astype(indices.dtype, copy=False)
    csr.has_sorted_indices = csr.has_canonical_format = True
    return csr


def _indptr(lengths: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()


def _joined(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    """The parts end to end; each is released as soon as it is copied."""
    whole = np.empty(sum(map(len, parts)), dtype)
    at = 0
    for i, part in enumerate(parts):
        whole[at : at + len(part)] = part
        at += len(part)
        parts[i] = part[:0].copy()
    return whole


def _in_memory(
    counter: _core.CooccurrenceCounter, most: NDArray[np.int64], ranges: Iterator[tuple[int, int]], threads: int
) -> sparse.csr_array:
    out = _core.CooccurrenceRows(int(most.sum()))
    lengths = [counter.rows(row, stop - row, out=out, threads=threads) for row, stop in ranges]
    out.trim()
    indptr = _indptr(lengths)
    return _csr(out.values, out.columns if indptr[-1] < 2**31 else out.columns.astype(np.int64), indptr)


def _on_disk(
    counter: _core.CooccurrenceCounter, most: NDArray[np.int64], ranges: Iterator[tuple[int, int]], threads: int
) -> sparse.csr_array:
    with tempfile.TemporaryDirectory(prefix="firth-counts-") as folder:
        values_path, columns_path = Path(folder, "values"), Path(folder, "columns")
        try:
            with values_path.open("wb") as values_file, columns_path.open("wb") as columns_file:
                lengths = []
                for row, stop in ranges:
                    out = _core.CooccurrenceRows(int(most[row:stop].sum()))
                    lengths.append(counter.rows(row, stop - row, out=out, threads=threads))
                    columns_file.write(out.columns.data.cast("B"))
                    values_file.write(out.values.data.cast("B"))
            indptr = _indptr(lengths)
            n = int(indptr[-1])
            if n >= 2**31:
                columns_path = _widened(columns_path)
        except OSError as error:
            raise OSError(error.errno, f"no room for the counts in {folder}: {error.strerror}") from error
        # The files are unlinked with the folder; mappings stay until the arrays are deleted.
        data = np.memmap(values_path, np.float32, "r") if n else np.empty(0, np.float32)
        kind = np.int64 if n >= 2**31 else np.int32
        indices = np.memmap(columns_path, kind, "r") if n else np.empty(0, np.int32)
        return _csr(data, indices, indptr)


def _widened(path: Path) -> Path:
    """Replace a file of int32 by one of int64."""
    wide = path.with_suffix(".wide")
    with path.open("rb") as source, wide.open("wb") as target:
        while block := source.read(4 * _RECORDS):
            target.write(np.frombuffer(block, np.int32).astype(np.int64).data.cast("B"))
    path.unlink()
    return wide
