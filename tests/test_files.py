import bz2
import errno
import gzip
import json
import lzma
import os
import stat
import struct
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firth import files

ARRAYS = {
    "bytes": np.arange(7, dtype=np.uint8),
    "doubles": np.linspace(0, 1, 6).reshape(2, 3),
    "floats": np.arange(12, dtype=np.float32).reshape(3, 4),
    "padded": np.arange(32, dtype=np.float32).reshape(4, 8)[:, :5],
    "halves": np.ones((2, 2), np.float16),
    "longs": np.arange(3),
    "ints": np.arange(5, dtype=np.int32),
    "unsigned": np.arange(4, dtype=np.uint32),
    "empty": np.zeros((0, 3), np.float32),
}
METADATA = {"format": "test", "options": {"a": 1, "b": [1.5, None]}, "text": "ä"}


def assert_equal_tensors(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


# ---- open_binary


@pytest.mark.parametrize(
    ("suffix", "opener"), [(".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open), (".zst", None), ("", open)]
)
def test_open_binary_unpacks(tmp_path, suffix, opener):
    path = tmp_path / f"text.txt{suffix}"
    opener = opener or pytest.importorskip("zstandard").open
    with opener(path, "wb") as file:
        file.write(b"one\ntwo\n")
    with files.open_binary(path) as file:
        assert file.read() == b"one\ntwo\n"
    assert files.is_compressed(path) == (suffix != "")


def test_open_binary_names_a_directory(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a directory"):
        files.open_binary(tmp_path)


# ---- replacing


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt(), ValueError("bug")]
)
@pytest.mark.parametrize("existed", [True, False])
def test_replacing_leaves_the_old_file_on_any_error(tmp_path, error, existed):
    path = tmp_path / "data.bin"
    if existed:
        path.write_bytes(b"old")

    def write():
        with files.replacing(path) as file:
            file.write(b"half of the new")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert [one.name for one in tmp_path.iterdir()] == (["data.bin"] if existed else [])
    if existed:
        assert path.read_bytes() == b"old"
    if isinstance(error, OSError):
        assert caught.value.errno == errno.ENOSPC
        assert str(path) in str(caught.value)


def test_replacing_shows_the_new_file_only_when_it_is_whole(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")
    with files.replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert len(list(tmp_path.iterdir())) == 1


def test_replacing_gives_the_mode_of_an_ordinary_file(tmp_path):
    with files.replacing(tmp_path / "ours") as file:
        file.write(b"x")
    (tmp_path / "ordinary").write_bytes(b"x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "ordinary")]
    assert modes[0] == modes[1]


def test_replacing_says_what_is_wrong_with_the_place(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"),
        files.replacing(tmp_path / "no" / "x"),
    ):
        pass
    with pytest.raises(IsADirectoryError, match="give a file name"), files.replacing(tmp_path):
        pass


# ---- tensors


@pytest.mark.parametrize("mmap", [False, True])
def test_tensors_come_back(tmp_path, mmap):
    path = tmp_path / "some.safetensors"
    files.write_tensors(path, ARRAYS, METADATA)
    tensors, metadata = files.read_tensors(path, mmap=mmap)
    assert_equal_tensors(tensors, ARRAYS)
    assert metadata == METADATA
    if mmap:
        assert isinstance(tensors["floats"], np.memmap)
        assert not tensors["floats"].flags.writeable


@pytest.mark.parametrize("mmap", [False, True])
def test_a_file_that_is_replaced_meanwhile_is_read_whole(tmp_path, mmap):
    path, stop = tmp_path / "a", threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            size = number % 5 * 100 + 1
            files.write_tensors(path, {str(i): np.full(size, number) for i in range(5)}, {"pad": "x" * size})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not path.exists():
            pass
        for _ in range(200):
            tensors, metadata = files.read_tensors(path, mmap=mmap)
            numbers = {int(one) for tensor in tensors.values() for one in tensor}
            assert len(numbers) == 1
            assert len(metadata["pad"]) == len(tensors["0"])
    finally:
        stop.set()
        writer.join()


def test_the_safetensors_library_reads_ours_and_we_read_its(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    files.write_tensors(tmp_path / "ours", ARRAYS, METADATA)
    assert_equal_tensors(library.load_file(tmp_path / "ours"), ARRAYS)
    library.save_file(
        {name: np.ascontiguousarray(a) for name, a in ARRAYS.items()}, tmp_path / "its", {"plain": "text"}
    )
    tensors, metadata = files.read_tensors(tmp_path / "its")
    assert_equal_tensors(tensors, ARRAYS)
    assert metadata == {"plain": "text"}


def test_a_file_cut_anywhere_is_an_error(tmp_path):
    path = tmp_path / "whole"
    files.write_tensors(path, {"a": ARRAYS["floats"]}, {})
    whole = path.read_bytes()
    for length in range(len(whole)):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut"):
            files.read_tensors(tmp_path / "cut")


@pytest.mark.parametrize("header", [b"[]      ", b"{       ", b'{"a": 1}', b"\xff\xff\xff\xff\xff\xff\xff\xff"])
def test_a_header_that_is_not_what_it_should_be_is_an_error(tmp_path, header):
    path = tmp_path / "odd"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="odd"):
        files.read_tensors(path)


def test_an_unknown_element_type_is_named(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path = tmp_path / "odd"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    with pytest.raises(ValueError, match="F8_E4M3"):
        files.read_tensors(path)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
@settings(deadline=None)
def test_words_come_back(words):
    assert files.unpack_words(files.pack_words(words)) == words


def test_replacing_follows_links_and_keeps_modes(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    target.chmod(0o600)
    link.symlink_to(target)
    with files.replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "target"]


def test_replacing_writes_into_what_is_no_ordinary_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with files.replacing(pipe) as file:
        file.write(b"through")
    reader.join()
    assert read == [b"through"]
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    "header",
    [
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-8, -4]}}',
        '{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}',
        '{"__metadata__": ["x"]}',
        '{"__metadata__": {"x": 1}}',
        "[" * 100_000,
        '{"a": []}',
    ],
)
def test_damaged_headers(tmp_path, header):
    path = tmp_path / "damaged"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"1234")
    for mmap in (False, True):
        with pytest.raises(ValueError, match="damaged"):
            files.read_tensors(path, mmap=mmap)
