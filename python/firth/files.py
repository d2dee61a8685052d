"""Files: opened compressed or not, written whole or not at all, and the tensor container of firth's own formats."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import itertools
import json
import lzma
import math
import mmap as memory_map
import operator
import os
import secrets
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

PathLike = str | os.PathLike[str]
F = TypeVar("F", bound=Callable[..., Any])

VERSION = 1  # of firth's own files; the next one must read this one

# safetensors' names of the element types that firth stores.
_CODES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U32": "<u4", "U16": "<u2", "U8": "u1"}
_DTYPES = {name: np.dtype(code) for name, code in _CODES.items()}


# ---- opening


def name_of(source: PathLike | IO[Any]) -> str:
    """The name of a file in errors: its path, "standard input" for "-", or the name of an open file."""
    if isinstance(source, str | os.PathLike):
        return "standard input" if source == "-" else os.fspath(source)
    return str(getattr(source, "name", "the file object"))


def standard_input() -> BinaryIO:
    """The bytes of standard input; OSError if it is closed."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, "it is closed", "standard input")
    return cast(BinaryIO, sys.stdin.buffer)


def open_binary(source: PathLike | IO[bytes]) -> BinaryIO:
    """Open a file for reading bytes: a path, "-" for standard input, or an open file, which stays open.

    It is decompressed if its first bytes are those of gzip, bzip2, xz or Zstandard, whatever its name. Bytes are read
    ahead only while they may be the start of a compressed file, so that a typed line is available at once. OSError
    naming the file, if it cannot be opened, is damaged or cut short, or is not compressed as its name says.
    """
    name = name_of(source)
    owned = False
    if not isinstance(source, str | os.PathLike):
        file = cast(BinaryIO, source)
    elif source == "-":
        file = standard_input()
    else:
        if Path(source).is_dir():
            raise IsADirectoryError(f"{name} is a directory; give the files in it, one by one")
        file, owned = Path(source).open("rb"), True  # noqa: SIM115
    try:
        head = _read_head(file)
        kind = compression_of(head)
        if kind is None and owned and head and named_compressed(name):
            raise OSError(
                f"{name} is damaged, or not what its name says: it is not compressed with gzip, bzip2, xz or "
                "Zstandard. If it is text, rename it"
            )
        if kind is None and owned and file.seekable():
            file.seek(0)
            return file
        rest = io.BufferedReader(_Rest(head, file, owned), _BUFFER)
        return rest if kind is None else io.BufferedReader(_Decompressed(kind, rest, name), _BUFFER)
    except BaseException:
        if owned:
            file.close()
        raise


def contents(source: PathLike | IO[bytes]) -> bytes | memory_map.mmap:
    """All bytes of a file: mapped if it is uncompressed on disk, otherwise read into memory and decompressed."""
    with open_binary(source) as file:
        if isinstance(source, str | os.PathLike) and isinstance(getattr(file, "raw", None), io.FileIO):
            size = os.fstat(file.fileno()).st_size
            return memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ) if size else b""
        return file.read()


# How compressed files begin: gzip, with the only method there is; bzip2, with its level and the mark of a block or of
# the end; xz; Zstandard, whose files may begin with a frame that readers skip.
_MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    **{b"BZh%d%s" % (level, mark): "bz2" for level in range(1, 10) for mark in (b"1AY&SY", b"\x17rE8P\x90")},
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    **{b"%c\x2a\x4d\x18" % first: "zstd" for first in range(0x50, 0x60)},
}
_BUFFER = 1 << 18  # bytes decompressed at once
_ZSTD_STEP = 1 << 13  # compressed bytes taken at once: they may stand for at most 256 MB


def compression_of(head: bytes) -> str | None:
    """The compression of a file with these first bytes; None if it is not compressed."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def _read_head(file: BinaryIO) -> bytes:
    """Bytes from the start of a file, as long as they may be those of a compressed one."""
    head = b""
    while any(len(head) < len(magic) and magic.startswith(head) for magic in _MAGIC):
        byte = file.read(1)
        if not byte:
            break
        head += byte
    return head


def is_compressed(path: PathLike) -> bool:
    """Whether this is an ordinary file with compressed contents."""
    if not Path(path).is_file():  # a pipe would lose the bytes that are looked at
        return False
    with Path(path).open("rb") as file:
        return compression_of(_read_head(file)) is not None


def named_compressed(path: PathLike) -> bool:
    """Whether the name of a file is that of a compressed one."""
    return Path(path).suffix.lower() in (".gz", ".bz2", ".xz", ".zst")


class _Stream(io.RawIOBase):
    """A file whose bytes `take` returns."""

    def readable(self) -> bool:
        return True

    def take(self, most: int) -> bytes | memoryview | None:
        """The next bytes; none at the end, None if there are none yet."""
        raise NotImplementedError

    def readinto(self, buffer: Any) -> int | None:
        data = self.take(len(buffer))
        if data is None:
            return None
        buffer[: len(data)] = data
        return len(data)


class _Rest(_Stream):
    """A file from its beginning, of which some bytes were read already."""

    def __init__(self, head: bytes, file: BinaryIO, owned: bool) -> None:
        self._head, self._file, self._owned = head, file, owned

    def fileno(self) -> int:
        return self._file.fileno()

    def take(self, most: int) -> bytes | None:
        head, self._head = self._head[:most], self._head[most:]
        if len(head) == most or head.endswith(b"\n"):  # a typed line does not wait for a second one
            return head
        data: bytes | None = getattr(self._file, "read1", self._file.read)(most - len(head))
        if data is None:
            return head or None
        return head + data

    def close(self) -> None:
        if self._owned:
            self._file.close()
        super().close()


class _Decompressed(_Stream):
    """A compressed file, decompressed; each error of a decompressor becomes an OSError with the name of the file."""

    def __init__(self, kind: str, file: BinaryIO, name: str) -> None:
        openers: dict[str, Callable[[BinaryIO, str], Any]] = {
            "gzip": lambda file, _: gzip.GzipFile(fileobj=file, mode="rb"),
            "bz2": lambda file, _: bz2.BZ2File(file, "rb"),
            "xz": lambda file, _: lzma.LZMAFile(file, "rb"),  # noqa: SIM115
            "zstd": _open_zstd,
        }
        self._file, self._name = file, name
        self._stream = openers[kind](file, name)

    def take(self, most: int) -> bytes:
        try:
            return cast(bytes, self._stream.read(most))
        except Exception as error:
            known = isinstance(error, EOFError | zlib.error | lzma.LZMAError)
            # bz2's own is an OSError without a number. That of zstd is known by name: its library is optional.
            bare = isinstance(error, OSError) and error.errno is None and not isinstance(error, BlockingIOError)
            if not (known or bare or type(error).__name__ == "ZstdError"):
                raise
            raise OSError(f"{self._name} is damaged or cut short: {error}") from None

    def close(self) -> None:
        self._stream.close()
        self._file.close()
        super().close()


def _open_zstd(file: BinaryIO, name: str) -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # Python 3.14 and newer
    except ImportError:
        try:
            import zstandard
        except ImportError:
            raise ImportError(f"reading {name} needs zstandard: pip install 'firth[zstd]'") from None
        return io.BufferedReader(_ZstdFrames(file, zstandard.ZstdDecompressor()))
    return zstd.ZstdFile(file, "rb")


class _ZstdFrames(_Stream):
    """All frames of a Zstandard file, whose end must be the end of a frame: zstandard's reader does not check it."""

    def __init__(self, file: BinaryIO, decompressor: Any) -> None:
        self._file, self._decompressor = file, decompressor
        self._frame: Any = None  # the one that is being read
        self._rest = b""  # compressed bytes behind the last frame
        self._ready = memoryview(b"")

    def take(self, most: int) -> memoryview:
        while not self._ready:
            data = self._rest or self._file.read(_ZSTD_STEP)
            if not data:
                if self._frame is not None:
                    raise EOFError("the file ends within a frame")
                break
            self._frame = self._frame or self._decompressor.decompressobj()
            self._ready = memoryview(self._frame.decompress(data))
            self._rest = b""
            if self._frame.eof:
                self._rest, self._frame = self._frame.unused_data, None
        ready, self._ready = self._ready[:most], self._ready[most:]
        return ready


# ---- writing


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """Write a file beside its place and rename it at the end, so that the old or the new one is always complete.

    On any error, a full disk or Ctrl-C included, the unfinished file is removed and the old one stays. A replaced file
    keeps its mode; a symbolic link keeps pointing to the file. Anything else, such as a pipe or a terminal, is written
    directly; "-" is standard output.
    """
    if path == "-":
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed", "standard output")
        with _naming("standard output"):
            sys.stdout.flush()
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    place = Path(path)
    if place.is_dir():
        raise IsADirectoryError(f"{place} is a directory; give a file name")
    if place.exists() and not place.is_file():  # before links are followed: /dev/stdout's leads to no path of a pipe
        with _naming(path), place.open("wb") as file:
            yield file
        return
    place = place.resolve()
    if not place.parent.is_dir():
        raise FileNotFoundError(f"cannot write {place}: the folder {place.parent} does not exist")
    mode = place.stat().st_mode & 0o777 if place.exists() else None
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
    try:
        with _naming(path):
            # "x": never into a file that is there already.
            with temporary.open("xb") as file:
                if mode is not None:
                    os.chmod(temporary, mode)
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


@contextlib.contextmanager
def _naming(path: PathLike) -> Iterator[None]:
    """Name the file in errors of the system while it is written."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from error


def write_tensors(
    path: PathLike,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    *,
    plain: Mapping[str, str] | None = None,
) -> None:
    """Write arrays and metadata as one safetensors file, row by row, without a second copy in memory.

    Arrays have the types in `_DTYPES` and any strides. Each value of `metadata` is stored as a JSON string under its
    key; `plain` is stored unchanged, for other readers.
    """
    names = {dtype: name for name, dtype in _DTYPES.items()}
    described = {key: json.dumps(value) for key, value in metadata.items()}
    header: dict[str, Any] = {"__metadata__": {**described, **(plain or {})}}
    # Wide elements first keeps every array aligned to its element size.
    ordered = sorted(tensors, key=lambda key: -tensors[key].dtype.itemsize)
    position = 0
    for key in ordered:
        array = tensors[key]
        header[key] = {
            "dtype": names[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [position, position + array.nbytes],
        }
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for key in ordered:
            array = tensors[key]
            step = max(1, (1 << 24) // max(1, array[:1].nbytes))
            for start in range(0, len(array), step):
                file.write(np.ascontiguousarray(array[start : start + step]).data.cast("B"))


def read_tensors(
    path: PathLike, *, mmap: bool = False, data: bytes | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read a safetensors file: arrays by name (bf16 as float32), and metadata, decoded where they are JSON.

    With `mmap`, arrays are mapped read-only. `data` are the file's bytes if they were read from a pipe; `path` then
    only names it. ValueError if the file is damaged, cut short, or has types that firth does not know.
    """
    shown = name_of(path)
    # From here on the open file, because another one may appear under its name.
    with Path(path).open("rb") if data is None else io.BytesIO(data) as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        start = file.read(8)
        if compression_of(start):
            raise ValueError(f"{shown} is compressed; decompress it first: a safetensors file is read in place")
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            if data is None:
                refuse_pointer(path)
            raise ValueError(f"{shown} is not a safetensors file, or it is cut short")
        malformed = ValueError(f"{shown} is not a safetensors file: its header is not the expected JSON")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):  # not JSON, a number of thousands of digits, or brackets thousands deep
            raise malformed from None
        try:
            raw = header.pop("__metadata__", {})
            if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
                raise TypeError("its metadata are not strings by name")
            tensors = {
                name: _read_tensor(shown, file, 8 + length, size, name, entry, mmap) for name, entry in header.items()
            }
        except KeyError as error:
            raise ValueError(f"{shown} contains something that firth does not read: {error}") from None
        except (AttributeError, TypeError, OverflowError):
            raise malformed from None
    return tensors, {key: _decoded(value) for key, value in raw.items()}


def refuse_pointer(path: PathLike) -> None:
    """ValueError with the remedy, if a file is a pointer of Git LFS to a file that was not downloaded."""
    with Path(path).open("rb") as file:
        if file.read(64).startswith(b"version https://git-lfs"):
            raise ValueError(
                f"{path} is a pointer of Git LFS, not the file itself: run git lfs pull in its folder, or download it"
            )


def write_own(
    path: PathLike, kind: str, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write one of firth's own files: `kind` is its content, such as "corpus", "counts" or "model"."""
    write_tensors(path, tensors, {"format": f"firth {kind}", "version": VERSION, **(metadata or {})})


def read_own(path: PathLike, kind: str, *, mmap: bool = False) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `write_own` wrote; ValueError if the file is damaged, of another kind or of another version."""
    tensors, metadata = read_tensors(path, mmap=mmap)
    found = own_kind(metadata)
    if found != kind:
        if found:
            raise ValueError(f"{path} is a firth {found}, not a firth {kind}")
        raise ValueError(f"{path} is not a firth {kind}: firth did not write this file")
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {metadata.get('version')} of the firth {kind} format; this firth reads {VERSION}"
        )
    return tensors, metadata


def own_kind(metadata: Mapping[str, Any]) -> str:
    """The kind of one of firth's own files with these metadata; empty if firth did not write it."""
    found = metadata.get("format")
    return found.removeprefix("firth ") if isinstance(found, str) and found.startswith("firth ") else ""


# By the kind of file: makes the object that was saved from the file's tensors, which are mapped, and its metadata.
_READERS: dict[str, Callable[[dict[str, NDArray[Any]], dict[str, Any]], Any]] = {}


def reader(kind: str) -> Callable[[F], F]:
    """Declare the function that makes an object from a file of this kind; `load_own` calls it."""

    def register(function: F) -> F:
        _READERS[kind] = function
        return function

    return register


def load_own(path: PathLike) -> Any:
    """Open one of firth's own files as the object that was saved; ValueError as from `read_own`."""
    kind = own_kind(read_tensors(path, mmap=True)[1])
    if kind not in _READERS:
        raise ValueError(f"{path} is a firth {kind}, which cannot be opened by itself")
    tensors, metadata = read_own(path, kind, mmap=True)
    with reading(path, f"{kind} file"):
        return _READERS[kind](tensors, metadata)


@contextlib.contextmanager
def reading(path: PathLike, what: str, *, own: bool = True) -> Iterator[None]:
    """Turn every error about the contents of a file into a ValueError that names the file and `what` it should be.

    Readers take parts by name, check their shapes and pass options to constructors, each of which raises its own
    errors. `own` is whether firth defines the format, so that another version of firth may have written the file.
    """
    version = ", or one of another version of firth" if own else ""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        problem = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is a damaged {what}{version}: {problem}") from None


def _read_tensor(
    path: str, file: IO[bytes], start: int, size: int, name: str, entry: dict[str, Any], mmap: bool
) -> NDArray[Any]:
    """One tensor of a file of `size` bytes, whose tensors begin at byte `start`; `entry` is its header."""
    if entry["dtype"] == "BF16":  # the upper half of a float32, which NumPy has no name for
        halves = _read_tensor(path, file, start, size, name, {**entry, "dtype": "U16"}, mmap)
        return (halves.astype("<u4") << 16).view("<f4")
    dtype, shape = _DTYPES[entry["dtype"]], tuple(map(operator.index, entry["shape"]))
    offsets = [operator.index(offset) for offset in entry["data_offsets"]]
    if len(offsets) != 2 or len(shape) > 32:  # NumPy of any version has so many dimensions
        raise ValueError(f"{path} is damaged: tensor {name!r} has {len(offsets)} offsets and {len(shape)} dimensions")
    begin, end = offsets
    if not 0 <= begin <= end <= size - start or min(shape, default=0) < 0:
        raise ValueError(f"{path} is cut short: tensor {name!r} does not lie inside it")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path} is damaged: tensor {name!r} has {end - begin} bytes, not those of shape {shape}")
    if begin == end:
        if max(shape) > np.iinfo(np.intp).max // dtype.itemsize:
            raise ValueError(f"{path} is damaged: tensor {name!r} has the shape {shape}")
        return np.empty(shape, dtype)
    if mmap:
        return np.memmap(file, dtype, "r", start + begin, shape)
    file.seek(start + begin)
    array = np.empty(math.prod(shape), dtype)
    if file.readinto(array.data.cast("B")) != array.nbytes:  # type: ignore[attr-defined]
        raise ValueError(f"{path} was cut short while it was read")
    return array.reshape(shape)


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):  # as above
        return value


PACKED_WORDS = ("words", "word_offsets")  # the tensors of `pack_words`


def pack_words(words: list[str]) -> dict[str, NDArray[Any]]:
    """Words as two arrays for `write_tensors`: their UTF-8 bytes end to end, and where each word begins."""
    try:
        encoded = [word.encode() for word in words]
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the word {error.object!r} holds a lone surrogate, which is not valid Unicode; replace it"
        ) from None
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    return {"words": np.frombuffer(b"".join(encoded), np.uint8), "word_offsets": offsets}


def unpack_words(tensors: Mapping[str, NDArray[Any]]) -> list[str]:
    """The words that `pack_words` packed; KeyError, TypeError or UnicodeDecodeError for other tensors."""
    packed, ends = tensors["words"], tensors["word_offsets"]
    if packed.dtype != np.uint8 or ends.dtype != np.int64 or ends.ndim != 1 or packed.ndim != 1:
        raise TypeError("words are not packed as bytes and offsets")
    if len(ends) == 0 or ends[0] != 0 or ends[-1] != len(packed) or (ends[1:] < ends[:-1]).any():
        raise TypeError(f"word_offsets must rise from 0 to {len(packed)}, the bytes of words")
    data, offsets = packed.tobytes(), ends.tolist()
    return [data[begin:end].decode() for begin, end in itertools.pairwise(offsets)]
