"""Every file format of word vectors, as one table: how it is recognized, read and written."""

from __future__ import annotations

import contextlib
import functools
import gzip
import mmap
import re
import struct
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from firth import _core, fasttext_format, files
from firth.checks import whole_number
from firth.runtime import default_threads
from firth.text import not_text

Matrix = NDArray[np.float32]
Table = tuple[list[str], Matrix]
Errors = Literal["strict", "skip"]

_HEAD = 1 << 20  # bytes by which a format is recognized
_LARGEST = 1 << 28  # dimensions
_LISTED = 5  # bad lines that a message spells out
_CHUNK = 1 << 18  # numbers formatted at once: a megabyte
_MARK = b"\xef\xbb\xbf"  # a byte order mark, which some editors put before UTF-8
_HEADER = re.compile(rb"(?:\xef\xbb\xbf)?[ \t]*(\d{1,18})[ \t]+(\d{1,9})[ \t\r]*(?:\n|\Z)")
_WHITE = re.compile(rb"[ \t\n\r\v\f]")


@dataclass(frozen=True)
class Request:
    """What to read, and how."""

    source: files.PathLike
    path: str  # as messages name it
    data: bytes | mmap.mmap  # all of the file, decompressed
    limit: int | None
    errors: Errors
    mmap: bool
    warnings: list[str] = field(default_factory=list)  # for the user


@dataclass(frozen=True)
class Format:
    """One way of storing words and their vectors in a file."""

    name: str  # in ``load_vectors(path, format=...)``
    text: bool  # whether it may go to standard output
    suffixes: tuple[str, ...]  # of file names, before any ".gz": they choose it for writing
    sniff: Callable[[bytes], bool]  # recognizes the first bytes
    read: Callable[[Request], Table]
    write: Callable[[files.PathLike, list[str], Matrix], None]


def read(
    path: files.PathLike,
    *,
    format: str | None = None,
    limit: int | None = None,
    errors: Errors = "strict",
    mmap: bool = False,
) -> Table:
    """Read words and matrix; see `firth.load_vectors` for the parameters."""
    if errors not in ("strict", "skip"):
        raise ValueError(f"errors must be 'strict' or 'skip', not {errors!r}")
    if limit is not None:
        limit = whole_number("limit", limit)
    wanted = None if format is None else named(format)
    data = files.contents(path)
    shown = files.name_of(path)
    chosen = _recognized(data[:_HEAD]) if wanted is None else wanted
    if chosen is None:
        raise ValueError(f"{shown} is in none of the formats that firth knows: {_names()}{_guess(data[:_HEAD])}")
    if mmap and (chosen.name != "safetensors" or path == "-"):
        raise ValueError(f"{shown}: mmap=True needs a safetensors file; {chosen.name} has to be read")
    request = Request(path, shown, data, limit, errors, mmap)
    table = chosen.read(request)
    for text in request.warnings:
        warnings.warn(text, stacklevel=3)  # where load_vectors is called
    return table


def write(path: files.PathLike, words: list[str], matrix: Matrix, *, format: str | None = None) -> None:
    """Write words and matrix; see `Vectors.save` for the parameters."""
    chosen = by_suffix(path) if format is None else named(format)
    check_stream(path, chosen)
    chosen.write(path, words, matrix)


def check_stream(path: files.PathLike, chosen: Format) -> None:
    """Raise ValueError if this format cannot be written to standard output."""
    if path == "-" and not chosen.text:
        allowed = " and ".join(one.name for one in FORMATS if one.text)
        raise ValueError(f"standard output takes only text, {allowed}, not {chosen.name}; give a file name")


def by_suffix(path: files.PathLike) -> Format:
    """Format in which a file of this name is written, text for standard output; ValueError for an unknown suffix."""
    if path == "-":
        return named("word2vec-text")
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if files.named_compressed(path):
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    chosen = next((one for one in FORMATS if suffix in one.suffixes), None)
    if chosen is None:
        known = ", ".join(suffix for one in FORMATS for suffix in one.suffixes)
        raise ValueError(f"{path}: which format? End the name in one of {known}, or name the format: {_names()}")
    return chosen


def recognized(path: files.PathLike) -> Format | None:
    """The format of a file by its first bytes; None if it has none of them."""
    with files.open_binary(path) as file:
        return _recognized(file.read(_HEAD))


def _recognized(head: bytes) -> Format | None:
    return next((one for one in FORMATS if one.sniff(head)), None)


def _names() -> str:
    return ", ".join(repr(one.name) for one in FORMATS)


def named(name: str) -> Format:
    """Format of this name; ValueError for an unknown name."""
    for one in FORMATS:
        if one.name == name:
            return one
    raise ValueError(f"there is no format {name!r}; the formats are {_names()}")


def _guess(head: bytes) -> str:
    if not head:
        return "; it is empty"
    if head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5":
        return "; it looks like a pickle, which firth never opens: save it with its own library as word2vec text"
    problem = not_text(head)
    return f"; it is {problem}" if problem else "; it looks like text, which firth.Corpus.from_file reads"


# ---- recognizing formats


def _sniff_safetensors(head: bytes) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and 2 <= struct.unpack("<Q", head[:8])[0] < 1 << 32


def _sniff_fasttext(head: bytes) -> bool:
    return head[:4] == fasttext_format.MAGIC


def _is_number(text: bytes) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return b"_" not in text  # which Python allows


def _looks_like_rows(body: bytes, least: int) -> bool:
    """Whether most of the first lines have at least `least` fields after the first, the last of them a number."""
    lines = [line for line in body.split(b"\n", 20)[:20] if line.strip()]
    rows = 0
    for line in lines:
        fields = line.split()
        rows += len(fields) > least and _is_number(fields[-1])
    return 2 * rows > len(lines)


def _sniff_text(head: bytes) -> bool:
    header = _HEADER.match(head)
    if not header:
        return False
    body = head[header.end() :]
    lines = [line.split() for line in body.split(b"\n", 2) if line.strip()]
    if len(lines) == 1 and len(lines[0]) == 2 and int(header[2]) > 1 and _is_number(lines[0][1]):
        return True  # cut short within its first row, after the first number
    # Rows with fewer numbers than the header promises are an error to report, not another format. Only if they have a
    # single number may the "header" be the first row of a file without a header.
    return _looks_like_rows(body, min(2, int(header[2]))) or (int(header[1]) == 0 and not body.strip())


def _sniff_binary(head: bytes) -> bool:
    header = _HEADER.match(head)
    return header is not None and not _looks_like_rows(head[header.end() :], 1)


def _sniff_glove(head: bytes) -> bool:
    return _looks_like_rows(head, 1)


# ---- text


def _read_text(request: Request) -> Table:
    hint = ". Without a header the format is 'glove'"
    promised, expected, size, start = _header(request, "text", 2, hint)  # at least a digit and a blank for each number
    rows = _parse_rows(request, start, size)
    found = len(rows.spans)
    if found != expected and (request.limit is None or found < expected):
        rows.wrong = f"the header promises {_count(promised, 'word')} and is followed by {_count(found, 'line')}"
    return _assemble(request, request.data, rows)


def _header(request: Request, format: str, least: int, hint: str = "") -> tuple[int, int, int, int]:
    """Words that a header promises and that are wanted, their dimensions (see `_check_size`), where the rows begin."""
    header = _HEADER.match(request.data)
    if not header:
        raise ValueError(
            f"{request.path} does not begin with the header of word2vec's {format} format: line 1 should be the header "
            f"of two whole numbers, not {_shown(request.data[:80])}{hint}"
        )
    promised, size = int(header[1]), int(header[2])
    _check_size(request, promised, size, least)
    return promised, promised if request.limit is None else min(promised, request.limit), size, header.end()


def _check_size(request: Request, rows: int, size: int, least: int) -> None:
    """Check the size of vectors before allocating memory; a number takes at least `least` bytes of the file."""
    if size < 1:
        raise ValueError(f"{request.path}: vectors must have at least 1 dimension, not {size}")
    if (least * size > len(request.data) and rows > 0) or size > _LARGEST:
        raise ValueError(
            f"{request.path}: the header promises vectors of {size} dimensions, more than the file can hold: it is "
            "damaged or cut short"
        )


def _read_glove(request: Request) -> Table:
    data = request.data
    # Words may contain blanks, so the most frequent number of fields decides.
    counts = Counter(len(line.split()) for line in data[:_HEAD].split(b"\n")[:1000] if line.strip())
    if not counts:
        raise ValueError(f"{request.path} has no vectors: it is empty")
    start = len(_MARK) if data[: len(_MARK)] == _MARK else 0
    size = max(counts, key=lambda n: (counts[n], -n)) - 1
    _check_size(request, 1, size, 2)
    return _assemble(request, data, _parse_rows(request, start, size))


@dataclass
class _Rows:
    """The rows of a file, and what is wrong with them."""

    matrix: Matrix
    spans: NDArray[np.int64]  # (n, 2): places of the words in the data
    unit: str  # the format's word for a row, for messages
    first: int  # number of the first
    problems: dict[int, str] = field(default_factory=dict)  # of single rows
    wrong: str = ""  # with the whole file


def _parse_rows(request: Request, start: int, size: int) -> _Rows:
    data, limit = request.data, -1 if request.limit is None else request.limit
    matrix, spans, status = _core.parse_text(
        data, start=start, vector_size=size, limit=limit, threads=default_threads()
    )
    rows = _Rows(matrix, spans, "line", 1 if start == 0 else 2)
    for row in np.flatnonzero(status).tolist():
        begin, end = spans[row].tolist()
        rows.problems[row] = _line_problem(data[begin : min(end, begin + (1 << 20))], int(status[row]), size)
    return rows


def _line_problem(line: bytes, status: int, size: int) -> str:
    fields = line.split()
    if not fields:
        return "is empty"
    if status == 3:
        return f"has {_count(size, 'number')} but no word"
    if status == 1:
        return f"has {_count(len(fields) - 1, 'number')} after {_shown(fields[0])} instead of {size}"
    bad = next((text for text in reversed(fields) if not _is_number(text)), fields[-1])
    return f"({_shown(fields[0])} ...): {_shown(bad)} is not a number"


def _count(n: int, what: str) -> str:
    several = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{n} {what if n == 1 else several}"


def _shown(data: bytes) -> str:
    text = data[:40].decode("utf-8", "replace")
    return repr(text + "..." if len(data) > 40 else text)


def _assemble(request: Request, data: bytes | mmap.mmap, rows: _Rows) -> Table:
    """Decode the words, find duplicates, and report or leave out unusable rows."""
    words, replaced = _core.decode_words(data, rows.spans)
    dropped = set(rows.problems)
    broken = set(replaced) - dropped
    if broken:
        # A spelling that was valid from the start comes before one that became the same by losing bytes.
        seen = {word for row, word in enumerate(words) if row not in broken and row not in dropped}
        for row in sorted(broken):
            if words[row] in seen:
                dropped.add(row)
            seen.add(words[row])
        repeated = len(dropped & broken)
        text = f"{request.path}: bytes that are not UTF-8 became U+FFFD in {_count(len(broken), 'word')}"
        if repeated:
            text += f" ({repeated} left out, now equal to another word)"
        request.warnings.append(text)
    if len(set(words)) < len(words):
        first_row: dict[str, int] = {}
        for row, word in enumerate(words):
            if row not in dropped and first_row.setdefault(word, row) != row:
                rows.problems[row] = f"repeats the word {word!r} of {rows.unit} {first_row[word] + rows.first}"
        dropped |= set(rows.problems)
    problem = _problem(rows)
    if problem and request.errors == "strict":
        raise ValueError(f"{request.path}: {problem}. With errors='skip' the rest is loaded")
    if problem:
        request.warnings.append(f"{request.path}: {problem}. The rest was loaded")
    if not dropped:
        return words, rows.matrix
    kept = [row for row in range(len(words)) if row not in dropped]
    return [words[row] for row in kept], rows.matrix[kept]


def _problem(rows: _Rows) -> str:
    """The problems of a file, with the first few bad rows; empty if it has none."""
    parts = [rows.wrong] if rows.wrong else []
    if rows.problems:
        few = sorted(rows.problems)[:_LISTED]
        listed = "; ".join(f"{rows.unit} {row + rows.first} {rows.problems[row]}" for row in few)
        more = "; ..." if len(rows.problems) > len(few) else ""
        plural = "lines" if rows.unit == "line" else "entries"
        parts.append(f"{len(rows.problems)} of {len(rows.spans)} {plural} cannot be used: {listed}{more}")
    return ". ".join(parts)


# ---- word2vec's binary format


def _read_binary(request: Request) -> Table:
    data = request.data
    promised, count, size, start = _header(request, "binary", 4)
    matrix, spans, whole = _core.parse_binary(data, start=start, vector_size=size, count=count)
    rows = _Rows(matrix[:whole], spans[:whole].copy(), "entry", 1)
    if whole < count:
        begin, end = spans[whole].tolist()
        word = f" ({_shown(data[begin:end])})" if begin < end else ""
        rows.wrong = f"it is cut short: the file ends within entry {whole + 1}{word} of {promised}"
    elif whole == promised:
        end = int(spans[-1, 1]) + 1 + 4 * size if whole else start
        if left := len(data[end:].strip(b"\r\n")):
            follow = "1 byte follows" if left == 1 else f"{left} bytes follow"
            rows.wrong = f"{follow} the last of the {_count(promised, 'entry')} that the header promises"
    return _assemble(request, data, rows)


# ---- writing


@contextlib.contextmanager
def _packed(path: files.PathLike) -> Iterator[IO[bytes]]:
    """The file to write to, compressed if its name ends in .gz."""
    pack = files.named_compressed(path)
    if pack and Path(path).suffix.lower() != ".gz":
        raise ValueError(f"cannot write {path}: the only compression that firth writes is .gz")
    with files.replacing(path) as file:
        if pack:
            # Without name and time, so that the same vectors are the same bytes.
            with gzip.GzipFile("", "wb", 6, file, 0) as packed:
                yield cast(IO[bytes], packed)
        else:
            yield file


def _encoded(path: files.PathLike, words: list[str], forbidden: Callable[[bytes], object], what: str) -> list[bytes]:
    encoded = [_encode(path, row, word) for row, word in enumerate(words)]
    for row, data in enumerate(encoded):
        if not data or forbidden(data):
            problem = f"has {what} in it" if data else "is empty"
            raise ValueError(
                f"cannot write {path}: word {row}, {words[row]!r}, {problem}, which this format cannot store. Replace "
                "it (by '_', as is usual), or save as .safetensors, which stores any word"
            )
    return encoded


def _encode(path: files.PathLike, row: int, word: str) -> bytes:
    try:
        return word.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"cannot write {path}: word {row}, {word!r}, is not valid Unicode: {error.reason}") from None


def _write_rows(
    path: files.PathLike, words: list[bytes], matrix: Matrix, header: bool, pack: Callable[[list[bytes], Matrix], bytes]
) -> None:
    step = max(1, _CHUNK // matrix.shape[1])
    with _packed(path) as file:
        if header:
            file.write(f"{len(words)} {matrix.shape[1]}\n".encode())
        for begin in range(0, len(words), step):
            file.write(pack(words[begin : begin + step], matrix[begin : begin + step]))


def _write_text(path: files.PathLike, words: list[str], matrix: Matrix, *, header: bool = True) -> None:
    _write_rows(path, _encoded(path, words, _WHITE.search, "white space"), matrix, header, _text_rows)


def _text_rows(words: list[bytes], matrix: Matrix) -> bytes:
    offsets = np.cumsum([0, *map(len, words)], dtype=np.int64)
    return _core.format_text(b"".join(words), offsets, matrix, threads=default_threads())


def _write_binary(path: files.PathLike, words: list[str], matrix: Matrix) -> None:
    encoded = _encoded(path, words, lambda word: b" " in word or b"\n" in word, "a blank or a newline")
    _write_rows(path, encoded, matrix, True, _binary_rows)


def _binary_rows(words: list[bytes], matrix: Matrix) -> bytes:
    # Each with a newline, as from the C program; readers skip it.
    return b"".join(b"%b %b\n" % (word, row.tobytes()) for word, row in zip(words, matrix, strict=True))


# ---- safetensors


def _read_safetensors(request: Request) -> Table:
    path = request.path
    on_disk = isinstance(request.data, mmap.mmap)
    if not on_disk and request.source != "-" and files.is_compressed(request.source):
        raise ValueError(f"{path}: decompress a safetensors file before reading it; it is read in place")
    tensors, metadata = files.read_tensors(
        request.source, mmap=request.mmap and on_disk, data=None if on_disk else bytes(request.data)
    )
    # A file of vectors holds "matrix"; a trained model's holds "vectors" (and "context" and more).
    name = next((name for name in ("matrix", "vectors") if name in tensors), None)
    if name is None or "words" not in tensors or "word_offsets" not in tensors:
        held = ", ".join(sorted(tensors)) or "nothing"
        kind = files.own_kind(metadata)
        if kind not in ("", "vectors"):
            what = f"a saved {metadata['model']}" if "model" in metadata else f"a firth {kind}"
            raise ValueError(f"{path} holds no word vectors: it is {what}, and holds {held}. firth.load opens it")
        raise ValueError(f"{path} holds no word vectors: it should hold matrix (or vectors), words and word_offsets, "
                         f"and holds {held}")  # fmt: skip
    matrix: NDArray[Any] = tensors[name]
    with files.reading(path, "file of vectors"):
        words = files.unpack_words(tensors)
        if matrix.ndim != 2 or len(matrix) != len(words):
            raise ValueError(f"{name} of shape {matrix.shape} does not fit {len(words)} words")
        if len(set(words)) < len(words):
            word, n = Counter(words).most_common(1)[0]
            raise ValueError(f"it holds the word {word!r} {n} times")
    if request.limit is not None:
        words, matrix = words[: request.limit], matrix[: request.limit]
    return words, matrix if matrix.dtype == np.float32 else matrix.astype(np.float32)


def _write_safetensors(path: files.PathLike, words: list[str], matrix: Matrix) -> None:
    if files.named_compressed(path):
        raise ValueError(f"cannot write {path}: safetensors files are read in place and never compressed")
    for row, word in enumerate(words):
        _encode(path, row, word)
    tensors = {"matrix": matrix, **files.pack_words(words)}
    files.write_own(path, "vectors", tensors)


# ---- fastText's models


def _read_fasttext(request: Request) -> Table:
    model = fasttext_format.parse(request.data, request.path)
    words = model.words[: request.limit]
    ends = np.cumsum([0, *map(len, words)])
    rows = _Rows(model.word_vectors(request.limit), np.stack([ends[:-1], ends[1:]], axis=1), "entry", 1)
    return _assemble(request, b"".join(words), rows)


def _write_fasttext(path: files.PathLike, words: list[str], matrix: Matrix) -> None:
    """A skip-gram model without n-grams that has these word vectors; its output matrix is 0."""
    if len(words) == 0:
        raise ValueError(f"cannot write {path}: fastText's programs do not open a model without words")
    model = fasttext_format.FastTextFile(
        model="skipgram",
        loss="ns",
        vector_size=matrix.shape[1],
        words=_encoded(path, words, lambda word: b"\0" in word, "a NUL"),
        counts=np.ones(len(words), np.int64),
        n_tokens=len(words),
        input=matrix,
        output=np.broadcast_to(np.float32(0), matrix.shape),
    )
    with _packed(path) as file:
        fasttext_format.write_to(file, model, str(path))


# In the order in which they are tried on a file: the most specific first.
FORMATS: tuple[Format, ...] = (
    Format("safetensors", False, (".safetensors",), _sniff_safetensors, _read_safetensors, _write_safetensors),
    Format("fasttext", False, (), _sniff_fasttext, _read_fasttext, _write_fasttext),
    Format("word2vec-text", True, (".txt", ".vec"), _sniff_text, _read_text, _write_text),
    Format("word2vec-binary", False, (".bin",), _sniff_binary, _read_binary, _write_binary),
    Format("glove", True, (".glove",), _sniff_glove, _read_glove, functools.partial(_write_text, header=False)),
)
