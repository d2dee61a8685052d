import bz2
import errno
import gzip
import io
import json
import lzma
import os
import pickle
import stat
import struct
import tarfile
import threading
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firth import files
from firth.text import not_text, open_text, text_start

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


def zstd(data):
    return pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(data)


COMPRESSED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}
LINES = b"".join(b"line %d of a text\n" % i for i in range(5000))


class OnlyRead:
    """An open file that can do nothing but read, and never gives more than it likes to."""

    def __init__(self, data):
        self.file = io.BytesIO(data)

    def read(self, size):
        return self.file.read(min(size, 1000))


@pytest.mark.parametrize("kind", COMPRESSED)
def test_contents_tell_the_compression(tmp_path, kind):
    packed = COMPRESSED[kind](LINES)
    for name in (f"text.{kind}", "text.txt", "text"):
        path = tmp_path / name
        path.write_bytes(packed)
        with files.open_binary(path) as file:
            assert file.readline() == b"line 0 of a text\n"
            assert file.read() == LINES[17:]
        assert files.is_compressed(path)
        assert files.contents(path) == LINES
    for source in (io.BytesIO(packed), OnlyRead(packed)):
        with files.open_binary(source) as file:
            assert file.read() == LINES
    # Several streams end to end are one, as the programs of all four have it.
    assert files.contents(io.BytesIO(packed + COMPRESSED[kind](b"more"))) == LINES + b"more"
    empty = COMPRESSED[kind](b"")
    assert files.contents(io.BytesIO(empty)) == b""
    assert files.contents(io.BytesIO(empty + packed)) == LINES


@pytest.mark.parametrize("kind", COMPRESSED)
def test_damage_of_compressed_files_is_told_with_their_name(tmp_path, kind):
    packed = COMPRESSED[kind](np.random.default_rng(1).bytes(3000))
    path = tmp_path / "some.txt"
    for size in range(12, len(packed), 97):
        path.write_bytes(packed[:size])
        with pytest.raises(OSError, match=r"some\.txt is damaged or cut short"):
            files.contents(path)
    for at in range(12, len(packed), 97):
        path.write_bytes(packed[:at] + bytes([packed[at] ^ 0x5A]) + packed[at + 1 :])
        with pytest.raises(OSError, match=r"some\.txt is damaged or cut short"):
            files.contents(path)


def test_a_name_that_promises_compression_in_vain(tmp_path):
    for suffix in COMPRESSED:
        path = tmp_path / f"plain.txt.{suffix}"
        path.write_bytes(b"plain\n")
        with pytest.raises(OSError, match=rf"plain\.txt\.{suffix} is damaged, or not what its name says: .*rename it"):
            files.open_binary(path)
        path.write_bytes(b"")
        assert files.contents(path) == b""


def test_what_only_begins_like_a_compressed_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "text"
    for data in (b"", b"B", b"BZh", b"BZh9 is a word", b"BZh91AY&S", b"\x1f\x8b", b"P*M and so on", b"\n"):
        path.write_bytes(data)
        with files.open_binary(path) as file:
            assert file.read() == data
            file.seek(0)  # a file on disk is itself
        for source in (io.BytesIO(data), OnlyRead(data)):
            assert files.contents(source) == data


def test_open_files_stay_open_and_are_read_from_where_they_stand():
    file = io.BytesIO(b"head" + gzip.compress(b"body"))
    file.seek(4)
    with files.open_binary(file) as opened:
        assert opened.read() == b"body"
    assert not file.closed


def test_a_line_that_is_typed_is_there_at_once():
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb", buffering=0) as typed:
        typed.write(b"one\n")
        opened = files.open_binary(pipe)
        assert opened.read1(100) == b"one\n"
        typed.write(b"\n")
        assert opened.read1(100) == b"\n"
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb", buffering=0) as typed:
        typed.write(b"\n")
        assert files.open_binary(pipe).read1(100) == b"\n"


# ---- what is text

SENTENCES = {
    "English": "The bank of the river, where nobody had been before. ",
    "French": "Été à l'école: les élèves étaient très énervés. Où êtes-vous né? ",
    "Czech": "Byl pozdní večer, první máj, večerní máj, byl lásky čas. ",
    "Russian": "Я помню чудное мгновенье: передо мной явилась ты. ",
    "Arabic": "كان يا ما كان في قديم الزمان ",
    "Chinese": "北京大学的学生在图书馆里读书。今天天气很好。我们去公园吧。\n",
}


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("repeats", [1, 5000])
def test_utf_8_is_text_and_wide_encodings_are_told_with_the_remedy(language, repeats):
    text = SENTENCES[language] * repeats
    assert text_start(text.encode(), "it") == 0
    assert text_start(b"\xef\xbb\xbf" + text.encode(), "it") == 3
    for encoding in ("utf-16", "utf-32", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        marked = encoding.count("-") == 1
        name = encoding.upper() if marked else encoding.upper().replace("-LE", "LE").replace("-BE", "BE")
        if language == "Chinese" and encoding.startswith("utf-16-"):
            message = "it is not text in UTF-8: .* convert it: iconv -f ENCODING -t UTF-8"
        else:
            message = f"it is {name}.*; convert it: iconv -f {name} -t UTF-8"
        with pytest.raises(ValueError, match=message):
            text_start(text.encode(encoding), "it")


@pytest.mark.parametrize(
    ("language", "encoding", "good"),
    [
        ("English", "ascii", True),
        ("French", "latin-1", True),
        ("French", "cp1252", True),
        ("Czech", "iso-8859-2", True),
        ("Russian", "koi8-r", False),
        ("Russian", "cp1251", False),
        ("Arabic", "iso-8859-6", False),
        ("Chinese", "gb18030", False),
    ],
)
def test_latin_letters_in_encodings_of_their_own_are_text_with_flaws(language, encoding, good):
    data = (SENTENCES[language] * 50).encode(encoding)
    assert (not_text(data) == "") == good


def binary_files():
    noise = np.random.default_rng(1).bytes(5000)
    text = SENTENCES["English"].encode() * 200
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("text", text)
    bundle = io.BytesIO()
    with tarfile.open(fileobj=bundle, mode="w") as file:
        entry = tarfile.TarInfo("text")
        entry.size = len(text)
        file.addfile(entry, io.BytesIO(text))
    picture = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s2I5BI", 13, b"IHDR", 50, 50, 8, 2, 0, 0, 0, 0) + zlib.compress(noise)
    )
    columns = b"".join(struct.pack("<I", len(line)) + line for line in [text[:60]] * 50)
    array = io.BytesIO()
    np.save(array, np.ones(10))
    return {
        "random": (noise, "control characters or NUL"),
        "few random": (noise[:80], "not text in UTF-8"),
        "zip": (archive.getvalue(), "a zip archive"),
        "tar": (bundle.getvalue(), "a tar archive"),
        "PNG": (picture, "control characters or NUL"),
        "Parquet": (b"PAR1" + columns + b"PAR1", "a Parquet file"),
        "strings with their lengths": (columns, "control characters or NUL"),
        "pickle": (pickle.dumps(["text"] * 3), "a pickle"),
        "NumPy": (array.getvalue(), "an array of NumPy"),
        "PDF": (b"%PDF-1.4\n" + text, "a PDF document"),
        "safetensors": (struct.pack("<Q", 2) + b"{}", "a safetensors file"),
        "floats": (np.linspace(-1, 1, 300, dtype=np.float32).tobytes(), "not text in UTF-8"),
    }


@pytest.mark.parametrize("kind", binary_files())
def test_binary_files_are_no_text(kind):
    data, message = binary_files()[kind]
    with pytest.raises(ValueError, match=f"it is .*{message}"):
        text_start(data, "it")


def test_flaws_of_real_texts_are_no_reason_to_refuse_them():
    text = SENTENCES["English"].encode() * 100
    for flaw in (
        b"\0",
        b"\xff\xfe",
        b"caf\xe9 " * 20,
        b"\x1b[1mbold\x1b[0m " * 50,
        b"\x1e\x1f" * 500,
        b"\f",
        b"\x08\x7f",
    ):
        assert not_text(text + flaw + text) == ""
    for short in (b"", b"a", b"\0", b"caf\xe9", b"\xe9\xe8 \xe0", b"a\0b"):
        assert not_text(short) == ""


def test_open_binary_names_a_directory(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a directory"):
        files.open_binary(tmp_path)


@pytest.mark.parametrize("suffix", COMPRESSED)
def test_text_that_is_compressed_twice_is_refused_with_the_remedy(tmp_path, suffix):
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(COMPRESSED[suffix](b"a b c\n" * 100)))
    with pytest.raises(ValueError, match=r"text\.gz is compressed twice; decompress it once"):
        open_text(path)


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


def test_a_full_device_is_named():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")

    def write():
        with files.replacing("/dev/full") as file:
            file.write(b"x" * 100_000)

    with pytest.raises(OSError, match="cannot write /dev/full: "):
        write()


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
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}',
        '{"a": {"dtype": "F32", "shape": [1%s], "data_offsets": [0, 4]}}' % (", 1" * 70),
        '{"a": {"dtype": "F32", "shape": [0, 99999999999999999999], "data_offsets": [0, 0]}}',
        '{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}',
        '{"__metadata__": ["x"]}',
        '{"__metadata__": {"x": 1}}',
        "[" * 100_000,
        '{"a": %s}' % ("9" * 10_000),
        '{"a": []}',
    ],
)
def test_damaged_headers(tmp_path, header):
    path = tmp_path / "damaged"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"1234")
    for mmap in (False, True):
        with pytest.raises(ValueError, match="damaged"):
            files.read_tensors(path, mmap=mmap)


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 10_000, "not JSON"])
def test_metadata_that_are_not_json_stay_strings(tmp_path, value):
    files.write_tensors(tmp_path / "its", ARRAYS, {}, plain={"format": value})
    assert files.read_tensors(tmp_path / "its")[1] == {"format": value}
    with pytest.raises(ValueError, match="its is not a firth model: firth did not write this file"):
        files.read_own(tmp_path / "its", "model")


def test_a_compressed_container_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "some.model"
    files.write_tensors(path, ARRAYS, METADATA)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"some\.model is compressed; decompress it"):
        files.read_tensors(path)
