"""fastText's model files, plain (.bin) and quantized (.ftz): read in place, written row by row."""

from __future__ import annotations

import mmap
import struct
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from firth import _core, files
from firth.checks import whole_number
from firth.quantization import CENTROIDS, ProductQuantizer, QuantizedMatrix
from firth.runtime import thread_count

Matrix = NDArray[np.float32]
Kind = Literal["cbow", "skipgram", "supervised"]
Loss = Literal["hs", "ns", "softmax", "ova"]

MAGIC = struct.pack("<i", 793712314)
_VERSION = 12  # written; 11 is read as well
_ARGUMENTS = struct.Struct("<12id")
_SIZES = struct.Struct("<3i2q")
_ENTRY = struct.Struct("<qb")  # behind a word and its NUL: count, and 0 for a word or 1 for a label
_BLOCK = 1 << 22  # numbers written at once
_WORDS = 8192  # whose vectors are computed at once


@dataclass(frozen=True, eq=False)
class RowBlocks:
    """A matrix to write, block by block: its shape, and float32 arrays (any number of rows, columns), iterated once."""

    shape: tuple[int, int]
    blocks: Iterable[Matrix]


@dataclass(frozen=True, eq=False, kw_only=True)
class FastTextFile:
    """The contents of a fastText model file; TypeError or ValueError if they do not fit together.

    A word's row of the input matrix is its position in `words`; bucket b of n-grams, of characters or words, has row
    len(words) + b (in a pruned model: len(words) + its position in `pruned`). A row of the output matrix belongs to a
    word (in a supervised model: to a label); with the loss "hs" to an inner node of the Huffman tree over their counts,
    and the last row is unused.

    The numbers are fastText's dim, ws, epoch, minCount, neg, wordNgrams, bucket, minn, maxn, lrUpdateRate and t, with
    fastText's defaults. max_n = 0: no character n-grams.
    """

    model: Kind
    loss: Loss
    vector_size: int
    window: int = 5
    epochs: int = 5
    min_count: int = 1
    negative: int = 5
    word_ngrams: int = 1
    bucket: int = 0
    min_n: int = 0
    max_n: int = 0
    update_rate: int = 100
    sample: float = 1e-4
    words: list[bytes]  # usually UTF-8
    labels: list[bytes] = field(default_factory=list)  # with their prefix
    counts: NDArray[np.int64]  # of the words and then of the labels
    n_tokens: int  # of the training text, labels and rare words included
    pruned: NDArray[np.int32] | None = None  # (n, 2): bucket, and its position among the remaining n-gram rows
    input: Matrix | QuantizedMatrix | RowBlocks
    output: Matrix | QuantizedMatrix | RowBlocks  # quantized only if the input is

    def __post_init__(self) -> None:
        for name, choices in (("model", Kind), ("loss", Loss)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} must be one of {get_args(choices)}, not {getattr(self, name)!r}")
        most = 2**31 - 1
        for name in _NUMBERS:
            whole_number(name, getattr(self, name), low=-most - 1, high=most)
        for name, low in (("vector_size", 1), ("bucket", 0), ("min_n", 0), ("max_n", 0)):
            whole_number(name, getattr(self, name), low=low)
        whole_number("n_tokens", self.n_tokens, high=2**63 - 1)
        if self.max_n > 0 and self.bucket == 0:
            raise ValueError(f"max_n is {self.max_n}, so bucket must be at least 1, not 0")
        if self.word_ngrams > 1 and self.bucket == 0 and self.model == "supervised":
            raise ValueError(f"word_ngrams is {self.word_ngrams}, so bucket must be at least 1, not 0")
        if self.counts.dtype != np.int64 or self.counts.shape != (len(self.words) + len(self.labels),):
            raise ValueError(
                f"counts must be int64 of {len(self.words)} words and {len(self.labels)} labels, "
                f"not {self.counts.dtype} of shape {self.counts.shape}"
            )
        if self.counts.min(initial=0) < 0:
            raise ValueError(f"counts must not be negative: that of entry {int(self.counts.argmin()) + 1} is "
                             f"{self.counts.min()}")  # fmt: skip
        n_ngrams = self.bucket
        if self.pruned is not None:
            if self.pruned.dtype != np.int32 or self.pruned.ndim != 2 or self.pruned.shape[1] != 2:
                raise ValueError(f"pruned must be int32 of 2 columns, not {self.pruned.dtype} {self.pruned.shape}")
            n_ngrams = len(self.pruned)
            if not isinstance(self.input, QuantizedMatrix):
                raise ValueError("the buckets are pruned, which needs a quantized input matrix")
            places = ("rows of n-grams", self.pruned[:, 1], n_ngrams), ("buckets", self.pruned[:, 0], self.bucket)
            for what, names, n in places if n_ngrams else ():
                if not 0 <= names.min() <= names.max() < n:
                    raise ValueError(f"pruned names {what} that are not in 0 .. {n - 1}")
                if len(np.unique(names)) < n_ngrams:
                    raise ValueError(f"pruned names {what} twice")
        if isinstance(self.output, QuantizedMatrix) and not isinstance(self.input, QuantizedMatrix):
            raise ValueError("the output matrix is quantized and the input matrix is not")
        for matrix in (self.input, self.output):
            if isinstance(matrix, QuantizedMatrix) and matrix.codes.size > most:
                raise ValueError(f"a quantized matrix of {matrix.codes.size} codes: the format counts to 2^31 - 1")
        outputs = self.labels if self.model == "supervised" else self.words
        for name, rows in (("input", len(self.words) + n_ngrams), ("output", len(outputs))):
            matrix = getattr(self, name)
            if isinstance(matrix, np.ndarray) and matrix.dtype != np.float32:
                raise TypeError(f"{name} must be float32, not {matrix.dtype}")
            if tuple(matrix.shape) != (rows, self.vector_size):
                raise ValueError(f"{name} must have the shape {(rows, self.vector_size)}, not {tuple(matrix.shape)}")

    def options(self, *names: str) -> dict[str, Any]:
        """Options of firth's models by name. fastText's may be 0 where firth's must be at least 1."""
        as_they_are = ("loss", "min_n", "max_n")
        return {name: getattr(self, name) if name in as_they_are else max(getattr(self, name), 1) for name in names}

    @cached_property
    def _places(self) -> dict[bytes, int]:
        return {word: row for row, word in enumerate(self.words)}

    def vectors_of(self, words: list[bytes], *, threads: int | None = None) -> Matrix:
        """Vectors of words in UTF-8, float32 (words, vector_size): means of the rows of the word and of its n-grams.

        The vector is 0 for an out-of-vocabulary word whose n-grams have no row.
        """
        known = np.array([self._places.get(word, -1) for word in words], np.int64)
        return self._means(words, known, threads)

    def word_vectors(self, limit: int | None = None, *, threads: int | None = None) -> Matrix:
        """Vectors of the model's own words, float32 (words, vector_size), or of the first `limit` of them."""
        words = self.words[:limit]
        if self.max_n == 0 and isinstance(self.input, np.ndarray):
            return np.array(self.input[: len(words)])
        return self._means(words, np.arange(len(words)), threads)

    def _means(self, words: list[bytes], known: NDArray[np.int64], threads: int | None) -> Matrix:
        if isinstance(self.input, RowBlocks):
            raise TypeError("RowBlocks can only be written: read the file to get vectors")
        threads = thread_count(threads)
        means = np.empty((len(words), self.vector_size), np.float32)
        for begin in range(0, len(words), _WORDS):
            some = slice(begin, begin + _WORDS)
            offsets, rows = self._rows_of(words[some], known[some], threads)
            # Each row is read once, from a matrix that may be on disk and not aligned.
            used, places = np.unique(rows, return_inverse=True)
            table = self.input.rows(used) if isinstance(self.input, QuantizedMatrix) else self.input[used]
            ones = np.ones(len(rows), np.float32)
            sums = sparse.csr_array((ones, places.ravel(), offsets), shape=(len(offsets) - 1, len(used)))
            lengths = np.maximum(np.diff(offsets), 1).astype(np.float32)
            with np.errstate(invalid="ignore"):  # infinite rows give infinite means
                means[some] = (sums @ table) * (np.float32(1) / lengths)[:, None]
        return means

    def _rows_of(
        self, words: list[bytes], known: NDArray[np.int64], threads: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each word's rows of the input matrix begin, and these rows: its own if known, then its n-grams'."""
        packed = np.frombuffer(b"".join(words), np.uint8)
        ends = np.cumsum([0, *map(len, words)], dtype=np.int64)
        offsets, buckets = _core.subword_buckets(
            packed, ends, min_n=self.min_n, max_n=self.max_n, buckets=self.bucket, threads=threads
        )
        owners = np.repeat(np.arange(len(words)), np.diff(offsets))
        rows = buckets.astype(np.int64)
        if self.pruned is not None:
            left, places = self.pruned[np.argsort(self.pruned[:, 0])].astype(np.int64).T
            kept = np.isin(rows, left)
            owners, rows = owners[kept], places[np.searchsorted(left, rows[kept])]
        own = np.flatnonzero(known >= 0)
        owners, rows = np.concatenate([own, owners]), np.concatenate([known[own], rows + len(self.words)])
        order = np.argsort(owners, kind="stable")
        return np.concatenate([[0], np.cumsum(np.bincount(owners, minlength=len(words)))]), rows[order]


# In the file's order.
_FIELDS = (
    *("vector_size", "window", "epochs", "min_count", "negative", "word_ngrams", "loss", "model"),
    *("bucket", "min_n", "max_n", "update_rate", "sample"),
)
_NUMBERS = tuple(name for name in _FIELDS if name not in ("loss", "model", "sample"))


# ---- reading


class _Source:
    """A file's bytes, read part by part."""

    def __init__(self, path: str, data: bytes | mmap.mmap) -> None:
        self.path = path
        self.data = data
        self.at = 0

    def wrong(self, text: str, at: int | None = None) -> ValueError:
        return ValueError(f"{self.path}, byte {self.at if at is None else at}: {text}")

    def skip(self, size: int, what: str) -> int:
        """Where the next `size` bytes begin."""
        begin, left = self.at, len(self.data) - self.at
        if size > left:
            raise self.wrong(f"{what} should take {size} bytes and the file ends after {left}: it is cut short")
        self.at += size
        return begin

    def numbers(self, layout: struct.Struct, what: str) -> tuple[Any, ...]:
        return layout.unpack_from(self.data, self.skip(layout.size, what))

    def array(self, dtype: str, count: int, what: str) -> NDArray[Any]:
        """An array within the file, at any address."""
        begin = self.skip(np.dtype(dtype).itemsize * count, what)
        return np.frombuffer(self.data, dtype, count, begin) if count else np.empty(0, dtype)

    def flag(self, what: str) -> bool:
        at = self.at
        (value,) = self.numbers(struct.Struct("<B"), what)
        if value > 1:
            raise self.wrong(f"{what} must be 0 or 1, not {value}", at)
        return bool(value)


def read(path: files.PathLike) -> FastTextFile:
    """Read a fastText model: a .bin or .ftz file of version 11 or 12, compressed or not.

    Matrices of float32 are mapped, read-only. ValueError naming the file and the byte, if it is damaged, cut short, or
    not a fastText model.
    """
    return parse(files.contents(path), files.name_of(path))


def parse(data: bytes | mmap.mmap, name: str) -> FastTextFile:
    """`read` for the bytes of a file; `name` is its name in errors."""
    source = _Source(name, data)
    if not data:
        raise ValueError(f"{name} is not a fastText model: it is empty")
    if data[:4] != MAGIC:
        raise ValueError(f"{name} is not a fastText model: it does not begin with the bytes {MAGIC.hex(' ')}")
    source.skip(4, "the signature")
    (version,) = source.numbers(struct.Struct("<i"), "the version")
    if version not in (11, _VERSION):
        raise source.wrong(f"this is version {version} of fastText's format; 11 and 12 are known", 4)
    options = dict(zip(_FIELDS, source.numbers(_ARGUMENTS, "the options"), strict=True))
    options["model"] = _choice(source, "model", options["model"], get_args(Kind))
    options["loss"] = _choice(source, "loss", options["loss"], get_args(Loss))
    if version == 11 and options["model"] == "supervised":
        options["max_n"] = 0  # classifiers of version 11 have no character n-grams, whatever the file says
    dictionary = _read_dictionary(source)
    quantized = source.flag("whether the input matrix is quantized")
    input = (_read_quantized if quantized else _read_dense)(source, "the input matrix")
    both = source.flag("whether the output matrix is quantized") and quantized
    output = (_read_quantized if both else _read_dense)(source, "the output matrix")
    if source.at < len(data):
        raise source.wrong(f"the model ends here and {len(data) - source.at} bytes follow")
    with files.reading(name, "fastText model", own=False):
        return FastTextFile(**options, **dictionary, input=input, output=output)


def is_classifier(path: files.PathLike) -> bool:
    """Whether a file with fastText's magic number contains a classifier."""
    with files.open_binary(path) as file:
        head = file.read(8 + _ARGUMENTS.size)
    number = head[8 + 4 * _FIELDS.index("model") :][:4]
    return number == struct.pack("<i", 1 + get_args(Kind).index("supervised"))


def decoded(path: files.PathLike, model: FastTextFile, *, stacklevel: int) -> tuple[list[str], list[str]]:
    """The words and labels of a file as text. Bytes that are not UTF-8 are written as escapes, with a warning."""
    raw = model.words + model.labels
    words = [word.decode(errors="backslashreplace") for word in raw]
    if broken := [word for word, its in zip(words, raw, strict=True) if word.encode() != its]:
        warnings.warn(
            f"{path} has {len(broken)} words that are not UTF-8, such as {broken[0]!r}: their bytes are written so",
            stacklevel=stacklevel,
        )
    return words[: len(model.words)], words[len(model.words) :]


def _choice(source: _Source, name: str, number: int, choices: tuple[str, ...]) -> str:
    if not 1 <= number <= len(choices):
        raise source.wrong(f"{name} must be 1 to {len(choices)}, not {number}", 8 + 4 * _FIELDS.index(name))
    return choices[number - 1]


def _read_dictionary(source: _Source) -> dict[str, Any]:
    at = source.at
    size, n_words, n_labels, n_tokens, n_pruned = source.numbers(_SIZES, "the dictionary's sizes")
    if min(n_words, n_labels, n_tokens) < 0 or n_words + n_labels != size or n_pruned < -1:
        raise source.wrong(
            f"{size} entries are not {n_words} words and {n_labels} labels (of {n_tokens} tokens; {n_pruned} pruned)",
            at,
        )
    if size * (_ENTRY.size + 1) > len(source.data) - source.at:
        raise source.wrong(
            f"{size} entries are more than the rest of the file can hold: it is damaged or cut short", at
        )
    words: list[bytes] = []
    counts = np.empty(size, np.int64)
    data = source.data
    for i in range(size):
        at = source.at
        end = data.find(b"\0", at)
        if end < 0 or end + 1 + _ENTRY.size > len(data):
            raise source.wrong(f"the file ends within entry {i + 1} of {size} of the dictionary: it is cut short")
        words.append(data[at:end])
        counts[i], kind = _ENTRY.unpack_from(data, end + 1)
        source.at = end + 1 + _ENTRY.size
        if kind != (i >= n_words):
            raise source.wrong(f"entry {i + 1} ({words[-1][:40]!r}) has type {kind}: first come {n_words} words (0), "
                               f"then {n_labels} labels (1)", at)  # fmt: skip
    pruned = None
    if n_pruned >= 0:
        pruned = np.array(source.array("<i4", 2 * n_pruned, "the pruned buckets"), np.int32).reshape(n_pruned, 2)
    names = {"words": words[:n_words], "labels": words[n_words:]}
    return {**names, "counts": counts, "n_tokens": n_tokens, "pruned": pruned}


def _read_shape(source: _Source, what: str) -> tuple[int, int]:
    at = source.at
    rows, columns = source.numbers(struct.Struct("<2q"), f"the shape of {what}")
    if rows < 0 or columns < 0:
        raise source.wrong(f"{what} cannot have the shape {(rows, columns)}", at)
    return rows, columns


def _read_dense(source: _Source, what: str) -> Matrix:
    rows, columns = _read_shape(source, what)
    return source.array("<f4", rows * columns, what).reshape(rows, columns)


def _read_quantized(source: _Source, what: str) -> QuantizedMatrix:
    norms = source.flag(f"whether {what} keeps its rows' lengths apart")
    at = source.at
    rows, columns = _read_shape(source, what)
    (size,) = source.numbers(struct.Struct("<i"), f"the size of {what}")
    if size < 0 or (size % rows if rows else size):
        raise source.wrong(f"{what} has {rows} rows and {size} codes, not as many for each row", at)
    codes = source.array("u1", size, what).reshape(rows, size // rows if rows else 0)
    quantizer = _read_quantizer(source, f"the centroids of {what}", columns, codes.shape[1])
    if not norms:
        return QuantizedMatrix(codes, quantizer)
    norm_codes = source.array("u1", rows, f"the lengths of {what}")
    return QuantizedMatrix(
        codes, quantizer, norm_codes, _read_quantizer(source, f"the centroids of the lengths of {what}", 1, 1)
    )


def _read_quantizer(source: _Source, what: str, columns: int, n_parts: int) -> ProductQuantizer:
    at = source.at
    size, parts, part_size, last = source.numbers(struct.Struct("<4i"), what)
    fits = size == columns and parts == n_parts and parts > 0 and 0 < last <= part_size
    if not (fits and (parts - 1) * part_size + last == size):
        raise source.wrong(
            f"{what} are for {size} numbers in {parts} parts of {part_size}, the last of {last}; "
            f"it has {columns} columns in {n_parts} codes",
            at,
        )
    return ProductQuantizer(size, part_size, source.array("<f4", CENTROIDS * size, what).astype(np.float32))


# ---- writing


def write(path: files.PathLike, model: FastTextFile) -> None:
    """Write a fastText model of version 12; the file appears whole or not at all.

    ValueError if a word contains a NUL, or the blocks do not have the rows of their matrix.
    """
    with files.replacing(path) as file:
        write_to(file, model, str(path))


def write_to(file: IO[bytes], model: FastTextFile, name: str) -> None:
    """Write a fastText model to an open file; `name` is its name in errors."""
    values = {"model": get_args(Kind).index(model.model) + 1, "loss": get_args(Loss).index(model.loss) + 1}
    file.write(MAGIC + struct.pack("<i", _VERSION))
    file.write(_ARGUMENTS.pack(*(values.get(field, getattr(model, field)) for field in _FIELDS)))
    n_words, n_labels = len(model.words), len(model.labels)
    n_pruned = -1 if model.pruned is None else len(model.pruned)
    file.write(_SIZES.pack(n_words + n_labels, n_words, n_labels, model.n_tokens, n_pruned))
    for i, (word, count) in enumerate(zip(model.words + model.labels, model.counts.tolist(), strict=True)):
        if b"\0" in word:
            raise ValueError(f"cannot write {name}: word {i + 1} ({word[:40]!r}) holds a NUL, which ends words there")
        file.write(word + b"\0" + _ENTRY.pack(count, i >= n_words))
    if model.pruned is not None:
        file.write(model.pruned.astype("<i4").tobytes())
    for what in ("input", "output"):
        matrix: Matrix | QuantizedMatrix | RowBlocks = getattr(model, what)
        file.write(struct.pack("<B", isinstance(matrix, QuantizedMatrix)))
        if isinstance(matrix, QuantizedMatrix):
            _write_quantized(file, matrix)
            continue
        rows, columns = matrix.shape
        file.write(struct.pack("<2q", rows, columns))
        written = 0
        for block in matrix.blocks if isinstance(matrix, RowBlocks) else _blocks(matrix):
            if block.dtype != np.float32 or block.ndim != 2 or block.shape[1] != columns:
                raise ValueError(f"cannot write {name}: {what} must have blocks of float32 and {columns} columns, "
                                 f"not {block.dtype} {block.shape}")  # fmt: skip
            file.write(np.ascontiguousarray(block, "<f4").data)
            written += len(block)
        if written != rows:
            raise ValueError(f"cannot write {name}: {what} must have {rows} rows, and its blocks have {written}")


def _blocks(matrix: Matrix) -> Iterator[Matrix]:
    step = max(1, _BLOCK // max(1, matrix.shape[1]))
    for begin in range(0, len(matrix), step):
        yield matrix[begin : begin + step]


def _write_quantized(file: IO[bytes], matrix: QuantizedMatrix) -> None:
    rows, columns = matrix.shape
    file.write(struct.pack("<B2qi", matrix.norm_codes is not None, rows, columns, matrix.codes.size))
    file.write(np.ascontiguousarray(matrix.codes).data)
    _write_quantizer(file, matrix.quantizer)
    if matrix.norm_codes is not None and matrix.norm_quantizer is not None:
        file.write(matrix.norm_codes.tobytes())
        _write_quantizer(file, matrix.norm_quantizer)


def _write_quantizer(file: IO[bytes], quantizer: ProductQuantizer) -> None:
    parts, size = quantizer.n_parts, quantizer.part_size
    last = quantizer.vector_size - (parts - 1) * size
    file.write(struct.pack("<4i", quantizer.vector_size, parts, size, last))
    file.write(quantizer.centroids.astype("<f4").tobytes())
