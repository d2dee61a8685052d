"""Files: opened compressed or not, written whole or not at all, and the tensor container of firth's own formats."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import itertools
import json
import lzma
import math
import operator
import os
import secrets
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

PathLike = str | os.PathLike[str]

VERSION = 1  # of firth's own files; the next one must read this one

# safetensors' names of the element types that firth stores.
_DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
}


def open_binary(path: PathLike) -> BinaryIO:
    """Open a file for reading bytes, unpacked if its name ends in .gz, .bz2, .xz or .zst."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the files in it, one by one")
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if suffix == ".bz2":
        return cast(BinaryIO, bz2.open(path, "rb"))
    if suffix == ".xz":
        return cast(BinaryIO, lzma.open(path, "rb"))
    if suffix == ".zst":
        return _open_zstd(path)
    return path.open("rb")


_PACKED = {".gz", ".bz2", ".xz", ".zst"}


def is_compressed(path: PathLike) -> bool:
    """Whether `open_binary` unpacks this file."""
    return Path(path).suffix.lower() in _PACKED


def _open_zstd(path: Path) -> BinaryIO:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # Python 3.14 and newer
    except ImportError:
        try:
            import zstandard as zstd
        except ImportError:
            raise ImportError(f"reading {path} needs zstandard: pip install 'firth[zstd]'") from None
    return cast(BinaryIO, zstd.open(path, "rb"))


@contextlib.contextmanager
def unpacking(path: PathLike) -> Iterator[None]:
    """Turn what the unpackers raise at damaged data, each an error of its own kind, into an OSError with the name."""
    try:
        yield
    except Exception as error:
        known = isinstance(error, EOFError | zlib.error | lzma.LZMAError)
        # bz2's own is an OSError that no system call gave; zstd's library need not be there to be named here.
        bare = isinstance(error, OSError) and error.errno is None and not isinstance(error, BlockingIOError)
        if not (known or bare or type(error).__name__ == "ZstdError"):
            raise
        raise OSError(f"{path} is damaged, or not what its name says: {error}") from None


@contextlib.contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """Write a file beside its place and rename it there at the end, so that a crash leaves the old one or the new.

    On any error, a full disk or Ctrl-C included, the unfinished file is removed and the old one stays as it was. A file
    that is replaced keeps its mode; a symbolic link keeps pointing to the file. What is no ordinary file, such as a
    pipe or a terminal, is written to as it is.
    """
    place = Path(path)
    if place.is_dir():
        raise IsADirectoryError(f"{place} is a directory; give a file name")
    if place.exists() and not place.is_file():  # before links are followed: /dev/stdout's leads to no path of a pipe
        with place.open("wb") as file:
            yield file
        return
    place = place.resolve()
    if not place.parent.is_dir():
        raise FileNotFoundError(f"cannot write {place}: the folder {place.parent} does not exist")
    mode = place.stat().st_mode & 0o777 if place.exists() else None
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")
    try:
        # "x": never into a file that is there already.
        with temporary.open("xb") as file:
            if mode is not None:
                os.chmod(temporary, mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from error
        raise


def write_tensors(
    path: PathLike,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, Any],
    *,
    plain: Mapping[str, str] | None = None,
) -> None:
    """Write arrays and metadata as one safetensors file, row by row, without a second copy in memory.

    Parameters
    ----------
    path
        Where to write; the file appears whole or not at all.
    tensors
        Arrays of the types in `_DTYPES`, of any strides.
    metadata
        Anything JSON can hold; each value is stored as a JSON string under its key.
    plain
        More metadata, stored as they are, for other readers.

    Notes
    -----
    The safetensors library wants every array as one more `bytes` object; here they go out as they lie. The file is
    an ordinary safetensors file: an 8-byte length, a JSON header padded to 8 bytes, then the arrays.
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


def read_tensors(path: PathLike, *, mmap: bool = False) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `write_tensors`, or any writer of safetensors, wrote.

    Parameters
    ----------
    path
        A safetensors file.
    mmap
        Map the arrays read-only instead of reading them: nothing is loaded until it is looked at.

    Returns
    -------
    tensors, metadata
        Arrays by name, bf16 as float32, and the metadata with values decoded from JSON where they are JSON.

    Raises
    ------
    ValueError
        If the file is not a whole safetensors file of types that firth knows.
    """
    path = Path(path)
    with path.open("rb") as file:  # and from here on the file itself: under its name another may appear meanwhile
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            refuse_pointer(path)
            raise ValueError(f"{path} is not a safetensors file, or it is cut short")
        try:
            header = json.loads(file.read(length))
            raw = header.pop("__metadata__", {})
            if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
                raise TypeError("its metadata are not strings by name")
            tensors = {
                name: _read_tensor(path, file, 8 + length, size, name, entry, mmap) for name, entry in header.items()
            }
        except KeyError as error:
            raise ValueError(f"{path} holds something that firth does not read: {error}") from None
        except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, TypeError, OverflowError, RecursionError):
            raise ValueError(f"{path} is not a safetensors file: its header is not the JSON it should be") from None
    return tensors, {key: _decoded(value) for key, value in raw.items()}


def refuse_pointer(path: PathLike) -> None:
    """ValueError with the remedy, if a file is what Git LFS leaves in place of one that it has not fetched."""
    with Path(path).open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(
                f"{path} is a pointer of Git LFS, not the file itself: run git lfs pull in its folder, or download it"
            )


_POINTER = b"version https://git-lfs"


def write_own(
    path: PathLike, kind: str, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write one of firth's own files: `kind` is what it holds, such as "corpus", "counts" or "model"."""
    write_tensors(path, tensors, {"format": f"firth {kind}", "version": VERSION, **(metadata or {})})


def read_own(path: PathLike, kind: str, *, mmap: bool = False) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what `write_own` wrote.

    Raises
    ------
    ValueError
        If the file is damaged, is of another kind, or was written by a newer firth.
    """
    tensors, metadata = read_tensors(path, mmap=mmap)
    found = metadata.get("format")
    if found != f"firth {kind}":
        holds = f"a {found}" if isinstance(found, str) and found.startswith("firth ") else "no file that firth wrote"
        raise ValueError(f"{path} is {holds}, not a firth {kind}")
    if metadata.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {metadata.get('version')} of the firth {kind} format; this firth reads {VERSION}"
        )
    return tensors, metadata


def _read_tensor(
    path: Path, file: IO[bytes], start: int, size: int, name: str, entry: dict[str, Any], mmap: bool
) -> NDArray[Any]:
    """One tensor, whose header is `entry`, of a file of `size` bytes with the tensors from byte `start` on."""
    if entry["dtype"] == "BF16":  # the upper half of a float32, which NumPy has no name for
        halves = _read_tensor(path, file, start, size, name, {**entry, "dtype": "U16"}, mmap)
        return (halves.astype("<u4") << 16).view("<f4")
    dtype, shape = _DTYPES[entry["dtype"]], tuple(map(operator.index, entry["shape"]))
    begin, end = map(operator.index, entry["data_offsets"])
    if not 0 <= begin <= end <= size - start or min(shape, default=0) < 0:
        raise ValueError(f"{path} is cut short: tensor {name!r} does not lie inside it")
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{path} is damaged: tensor {name!r} has {end - begin} bytes, not those of shape {shape}")
    if begin == end:
        return np.empty(shape, dtype)
    if mmap:
        return np.memmap(file, dtype, "r", start + begin, shape)
    file.seek(start + begin)
    return np.fromfile(file, dtype, math.prod(shape)).reshape(shape)


def _decoded(value: str) -> Any:
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


PACKED_WORDS = ("words", "word_offsets")  # the tensors of `pack_words`


def pack_words(words: list[str]) -> dict[str, NDArray[Any]]:
    """Words as two arrays for `write_tensors`: their UTF-8 bytes end to end, and where each begins."""
    encoded = [word.encode() for word in words]
    offsets = np.zeros(len(words) + 1, np.int64)
    np.cumsum([len(word) for word in encoded], out=offsets[1:])
    return {"words": np.frombuffer(b"".join(encoded), np.uint8), "word_offsets": offsets}


def unpack_words(tensors: Mapping[str, NDArray[Any]]) -> list[str]:
    """The words that `pack_words` packed.

    Raises
    ------
    KeyError, TypeError, UnicodeDecodeError
        If the tensors are not what it packed.
    """
    packed, ends = tensors["words"], tensors["word_offsets"]
    if packed.dtype != np.uint8 or ends.dtype != np.int64 or ends.ndim != 1 or packed.ndim != 1:
        raise TypeError("words are not packed as bytes and offsets")
    if len(ends) == 0 or ends[0] != 0 or ends[-1] != len(packed) or (np.diff(ends) < 0).any():
        raise TypeError("the words' offsets do not run through their bytes")
    data, offsets = packed.tobytes(), ends.tolist()
    return [data[begin:end].decode() for begin, end in itertools.pairwise(offsets)]
