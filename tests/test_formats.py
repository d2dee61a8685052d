import bz2
import errno
import gzip
import io
import lzma
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import reference
from firth import Vectors, _core, files, formats, load_vectors

WORDS = ["the", "of", "naïve", "日本", "a\u00a0b", "\u2028", "1", "nan", "😀"]
SUFFIXES = {"word2vec-text": ".txt", "word2vec-binary": ".bin", "glove": ".glove", "safetensors": ".safetensors"}


def some_rows(rows=9, columns=6, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def write(folder, data, name="file"):
    path = folder / name
    path.write_bytes(data)
    return path


def assert_same(table, words, matrix):
    """The same words, and numbers of the same bits (but for what NaNs carry)."""
    assert table[0] == words
    assert table[1].dtype == np.float32
    assert table[1].shape == matrix.shape
    np.testing.assert_array_equal(table[1], matrix)
    np.testing.assert_array_equal(np.signbit(table[1]), np.signbit(matrix))


# ---- round trips


floats = st.floats(width=32, allow_nan=False) | st.sampled_from(
    [0.0, -0.0, 1e-45, -1e-45, 1.1754942e-38, 1.1754944e-38, 3.4028235e38, -3.4028235e38, 0.1, 1 / 3, 16777216.0]
).map(lambda x: float(np.float32(x)))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" \t\n\r\v\f"), min_size=1)


@given(st.data())
@settings(deadline=None, max_examples=40)  # each syncs seven files to disk
def test_every_format_gives_back_words_and_bits(data):
    words = data.draw(st.lists(texts, unique=True, min_size=1, max_size=8))
    matrix = data.draw(hnp.arrays(np.float32, (len(words), data.draw(st.integers(1, 5))), elements=floats))
    with tempfile.TemporaryDirectory() as folder:
        for name, suffix in SUFFIXES.items():
            for packed in ("", ".gz") if name != "safetensors" else ("",):
                path = Path(folder) / f"v{suffix}{packed}"
                formats.write(path, words, matrix)
                assert_same(formats.read(path, format=name), words, matrix)


@given(texts, st.integers(0, 2**32 - 1))
@example("nan", 0x7F800000)
@example("inf", 0xFFC00000)
@example("\0", 0)
@settings(deadline=None)
def test_any_bits_survive_text(word, bits):
    matrix = np.array([[bits, 0x3F800000]], np.uint32).view(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.txt"
        formats.write(path, [word], matrix)
        assert_same(formats.read(path), [word], matrix)


@pytest.mark.parametrize("name", SUFFIXES)
def test_formats_are_told_by_their_contents(tmp_path, name):
    for rows, columns in [(9, 6), (1, 2), (5, 1), (300, 50), (40, 2000)]:
        words = WORDS if rows == 9 else [f"w{i}" for i in range(rows)]
        matrix = some_rows(rows, columns)
        formats.write(tmp_path / "nameless", words, matrix, format=name)
        assert_same(formats.read(tmp_path / "nameless"), words, matrix)


def test_binary_files_of_many_kinds_of_numbers_are_told_from_text(tmp_path):
    # Among their bytes are newlines, blanks and digits.
    for seed in range(200):
        matrix = some_rows(30, 1 + seed % 40, seed) * np.float32(10.0 ** (seed % 13 - 9))
        words = [str(i) for i in range(30)]
        formats.write(tmp_path / "v.bin", words, matrix)
        assert_same(formats.read(tmp_path / "v.bin"), words, matrix)


def test_no_words_at_all(tmp_path):
    for name, suffix in SUFFIXES.items():
        path = tmp_path / f"v{suffix}"
        formats.write(path, [], np.zeros((0, 3), np.float32))
        if name == "glove":  # which then has nothing to say how long vectors are
            with pytest.raises(ValueError, match="is empty"):
                formats.read(path)
        else:
            assert formats.read(path)[1].shape == (0, 3)


def test_padded_rows_and_many_chunks(tmp_path, monkeypatch):
    wide = some_rows(1000, 16)
    words = [f"w{i}" for i in range(1000)]
    monkeypatch.setattr(formats, "_CHUNK", 100)
    for suffix in SUFFIXES.values():
        formats.write(tmp_path / f"v{suffix}", words, wide[:, :7])
        assert_same(formats.read(tmp_path / f"v{suffix}"), words, wide[:, :7])


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
def test_packed_files_are_read(tmp_path, opener):
    matrix = some_rows()
    suffix = {gzip.open: ".gz", bz2.open: ".bz2", lzma.open: ".xz"}[opener]
    for name in ("word2vec-text", "word2vec-binary", "glove"):
        formats.write(tmp_path / "plain", WORDS, matrix, format=name)
        with opener(tmp_path / f"v{suffix}", "wb") as file:
            file.write((tmp_path / "plain").read_bytes())
        assert_same(formats.read(tmp_path / f"v{suffix}"), WORDS, matrix)


def test_compression_is_told_by_contents(tmp_path):
    formats.write(tmp_path / "plain.bin", WORDS, some_rows())
    for name in ("v.bin", "v", "v.txt"):
        (tmp_path / name).write_bytes(lzma.compress((tmp_path / "plain.bin").read_bytes()))
        assert_same(formats.read(tmp_path / name), WORDS, some_rows())


@pytest.mark.parametrize("opener", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["word2vec-text", "word2vec-binary"])
def test_damaged_compressed_files_are_named(tmp_path, opener, name):
    path = tmp_path / "v"
    formats.write(path, [f"w{i}" for i in range(100)], some_rows(100, 20), format=name)
    packed = opener(path.read_bytes())
    for damaged in (packed[:-300], packed[:300], packed[:500] + b"xyz" + packed[503:]):
        path.write_bytes(damaged)
        for read in (formats.read, formats.recognized):
            with pytest.raises(OSError, match=r"/v is damaged or cut short: "):
                read(path)


@pytest.mark.parametrize("name", [*SUFFIXES, "fasttext"])
def test_pipes_and_standard_input_are_read(tmp_path, name, monkeypatch):
    path, pipe = tmp_path / "v", tmp_path / "pipe"
    formats.write(path, WORDS, some_rows(), format=name)
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(path.read_bytes()))
    writer.start()
    assert_same(formats.read(pipe), WORDS, some_rows())
    writer.join()
    with path.open("rb") as file:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(file))
        assert_same(formats.read("-"), WORDS, some_rows())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"3 2\na 1 2\n")))
    with pytest.raises(ValueError, match="standard input: the header promises 3 words"):
        formats.read("-")


def test_text_formats_can_go_to_standard_output(capsysbinary):
    formats.write("-", ["a", "b"], np.ones((2, 2), np.float32))
    formats.write("-", ["a"], np.ones((1, 1), np.float32), format="glove")
    assert capsysbinary.readouterr().out == b"2 2\na 1 1\nb 1 1\na 1\n"
    for name in ("word2vec-binary", "safetensors", "fasttext"):
        with pytest.raises(ValueError, match=f"standard output takes only text, .* not {name}"):
            formats.write("-", ["a"], np.ones((1, 1), np.float32), format=name)


def test_gz_is_packed_and_the_same_every_time(tmp_path):
    for name in ("a.txt.gz", "b.vec.gz"):
        formats.write(tmp_path / name, WORDS, some_rows())
    first, second = (tmp_path / name for name in ("a.txt.gz", "b.vec.gz"))
    assert first.read_bytes() == second.read_bytes()
    assert gzip.decompress(first.read_bytes()).startswith(b"9 6\nthe ")


# ---- the text parser against the oracle


@pytest.mark.parametrize("threads", [1, 2, 3, 50])
@pytest.mark.parametrize("end", [b"\n", b"", b" \n", b"\r\n", b"\n\n \n"])
def test_lines_are_shared_out_without_losing_any(threads, end):
    words = [f"w{'x' * (i % 17)}{i}" for i in range(101)]
    matrix = some_rows(101, 3)
    offsets = np.cumsum([0] + [len(word) for word in words])
    text = _core.format_text("".join(words).encode(), offsets, matrix, threads=threads)
    text = text.rstrip(b"\n").replace(b"\n", end if len(end) == 2 else b"\n") + end
    parsed, spans, status = _core.parse_text(text, start=0, vector_size=3, limit=-1, threads=threads)
    assert not status.any()
    expected_words, expected = reference.parse_rows(text, 3)
    assert _core.decode_words(text, spans) == (expected_words, [])
    assert expected_words == words
    np.testing.assert_array_equal(parsed, expected)
    np.testing.assert_array_equal(parsed, matrix)


def parse_number(text):
    parsed, _, status = _core.parse_text(b"w " + text, start=0, vector_size=1, limit=-1, threads=1)
    return None if status[0] else parsed[0, 0]


@given(st.from_regex(rb"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?", fullmatch=True))
@example(b"1e-46")
@example(b"1e39")
@example(b"-1e999")
@example(b"1e-999")
def test_numbers_are_rounded_as_they_should_be(text):
    with np.errstate(over="ignore"):
        expected = np.float32(text.decode())
        # NumPy and the slow road round by way of a double, which once in a billion is one unit too far.
        if abs(expected) < 1e-37 or np.isinf(expected):
            assert parse_number(text) == pytest.approx(expected, abs=2e-45)
        else:
            assert parse_number(text) == pytest.approx(expected, rel=1.2e-7)


@pytest.mark.parametrize(
    "text", [b"x", b"1x", b"1,5", b"0x1p3", b"+-1", b"--1", b"+", b"-", b".", b"1e", b"1_0", b"e5", b"1e+400x", b"\x00"]
)
def test_what_is_not_a_number_is_not_taken_for_one(text):
    assert parse_number(text) is None


def test_infinity_and_nan_are_numbers():
    assert [parse_number(text) for text in (b"inf", b"-inf", b"Infinity")] == [np.inf, -np.inf, np.inf]
    assert np.isnan(parse_number(b"nan"))
    assert np.isnan(parse_number(b"-nan"))


LOCALE = """
comment_char %
escape_char /
LC_NUMERIC
decimal_point ","
thousands_sep "."
grouping 3;3
END LC_NUMERIC
"""
LOCALE_SCRIPT = """
import locale, sys
import numpy as np
from firth import _core
locale.setlocale(locale.LC_ALL, sys.argv[1])
assert locale.localeconv()["decimal_point"] == ","
for text in (b"0.5", b"1.5e-60", b"-1.5e60"):
    parsed, _, status = _core.parse_text(b"w " + text, start=0, vector_size=1, limit=-1, threads=1)
    assert status[0] == 0 and parsed[0, 0] == np.array(float(text)).astype(np.float32), text
assert _core.parse_text(b"w 1,5e-60", start=0, vector_size=1, limit=-1, threads=1)[2][0] != 0
text = _core.format_text(b"w", np.array([0, 1]), np.array([[0.5, 1e-40]], np.float32), threads=1)
assert b"," not in text, text
assert locale.format_string("%g", 0.5) == "0,5"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="names of locales are those of POSIX")
def test_numbers_have_a_point_in_every_locale(tmp_path):
    name = "de_DE.UTF-8"  # macOS has it; on Linux nobody promises that it is there, but one can be made
    if shutil.which("localedef") and sys.platform == "linux":
        name = "comma"
        (tmp_path / "source").write_text(LOCALE)
        # It warns of the categories that are not there, and its exit code says so.
        subprocess.run(
            ["localedef", "-c", "-i", tmp_path / "source", tmp_path / name], check=False, capture_output=True
        )
    environment = {**os.environ, "LOCPATH": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, "-c", LOCALE_SCRIPT, name], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


# ---- what real files are like


def test_words_may_contain_blanks(tmp_path):
    # As in the GloVe vectors of Common Crawl.
    text = b". . . 0.1 0.2\nat name@domain.com 1 2\nNew York 3 4\nroute 66 5 6\nplain 7 8\nother 9 10\nthird 1 1\n"
    words = [". . .", "at name@domain.com", "New York", "route 66", "plain", "other", "third"]
    numbers = np.array([[0.1, 0.2], [1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [1, 1]], np.float32)
    assert_same(formats.read(write(tmp_path, text)), words, numbers)
    assert_same(formats.read(write(tmp_path, b"7 2\n" + text)), words, numbers)
    entries = b"".join(b"%s %s\n" % (word.replace(" ", "_").encode(), row.tobytes()) for word, row in zip(words, numbers, strict=True))  # fmt: skip  # noqa: E501
    assert formats.read(write(tmp_path, b"7 2\n" + entries))[0][2] == "New_York"


def test_layouts_of_other_programs(tmp_path):
    expected = (["a", "b"], np.array([[1, 2], [3, 4]], np.float32))
    for text in [
        b"2 2\na 1 2\nb 3 4\n",
        b"2 2\na 1 2 \nb 3 4 \n",  # word2vec.c and fastText end lines with a blank
        b"2 2\r\na 1 2\r\nb 3 4\r\n",
        b"2\t2\na\t1\t2\nb\t3\t4",
        b"2 2\na  1 2\n b +3 4.0e0\n\n",
        b"a 1 2\nb 3 4\n",
        b"2 2\na " + struct.pack("<2f", 1, 2) + b"\nb " + struct.pack("<2f", 3, 4) + b"\n",
        b"2 2\na " + struct.pack("<2f", 1, 2) + b"b " + struct.pack("<2f", 3, 4),
    ]:
        assert_same(formats.read(write(tmp_path, text)), *expected)


def test_limit_reads_the_first_words_alone(tmp_path):
    matrix = some_rows()
    for suffix in SUFFIXES.values():
        path = tmp_path / f"v{suffix}"
        formats.write(path, WORDS, matrix)
        for limit in (1, 4, 9, 100):
            assert_same(formats.read(path, limit=limit), WORDS[:limit], matrix[:limit])
        with pytest.raises(TypeError, match=r"limit must be a whole number, not 2\.5"):
            formats.read(path, limit=2.5)
        with pytest.raises(ValueError, match="limit must not be negative"):
            formats.read(path, limit=-1)
    # What is bad behind the limit is not looked at.
    assert formats.read(write(tmp_path, b"3 2\na 1 2\nb 3 4\nc 5\n"), limit=2)[0] == ["a", "b"]


# ---- what is wrong, and where


@pytest.mark.parametrize(
    ("text", "message", "rest"),
    [
        (b"3 2\na 1 2\nb 1\nc 5 6\n", "1 of 3 lines cannot be used: line 3 has 1 number after 'b' instead of 2", "ac"),
        (b"a 1 2\nb 1.5 2.5 3.5\nc 5 6\n", "line 2 has 3 numbers after 'b' instead of 2", "ac"),
        (b"3 2\na 1 2\nb 1 x2\nc 5 6\n", r"line 3 \('b' ...\): 'x2' is not a number", "ac"),
        (b"3 2\na 1 2\n\nc 5 6\n", "line 3 is empty", "ac"),
        (b"3 2\na 1 2\n 1 2\nc 5 6\n", "line 3 has 1 number after '1' instead of 2|2 numbers but no word", "ac"),
        (b"a 1 2\nb 1 2\na 5 6\nc 5 6", "1 of 4 lines cannot be used: line 3 repeats the word 'a' of line 1", "abc"),
        (b"3 2\na 1 2\nc 5 6\n", "the header promises 3 words and is followed by 2 lines", "ac"),
        (b"1 2\na 1 2\nc 5 6\n", "the header promises 1 word and is followed by 2 lines", "ac"),
        (b"2 2\na 1 2\n", r"the header promises 2 words and is followed by 1 line\.", "a"),
        (b"a 1\nb 2\n 3\nc 4\n", "line 3 has 1 number but no word", "abc"),
        (b"29 2\na 1 2\n" + b"b 1 2\n" * 20 + b"x\n" * 8, "27 of 29 lines .* line 8 repeats .*; [.][.][.]", "ab"),
        (b"2 3\na 1 2\nb 3 4\n", "line 2 has 2 numbers after 'a' instead of 3", ""),
        (
            b"2 1\na " + struct.pack("<f", 1) + b"\nbcd " + b"\0\0\0",
            r"cut short: the file ends within entry 2 \('bcd'\) of 2",
            "a",
        ),
        (b"3 1\na " + struct.pack("<f", 1), "cut short: the file ends within entry 2 of 3", "a"),
        (b"99999999999999 1\na " + struct.pack("<f", 1), "the file ends within entry 2 of 99999999999999", "a"),
        (
            b"1 1\na " + struct.pack("<f", 1) + b"\nb " + struct.pack("<f", 2),
            "6 bytes follow the last of the 1 entry that the header promises",
            "a",
        ),
        (b"2 1\na " + struct.pack("<f", 1) + b"b " + struct.pack("<f", 1) + b"\n!", "1 byte follows", "ab"),
        (
            b"2 1\na " + struct.pack("<f", 1) + b"a " + struct.pack("<f", 2),
            "entry 2 repeats the word 'a' of entry 1",
            "a",
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_rows_are_named_or_skipped(tmp_path, text, message, rest, packed):
    path = write(tmp_path, gzip.compress(text) if packed else text, "f.gz" if packed else "f")
    with pytest.raises(ValueError, match=message) as caught:
        formats.read(path)
    assert str(path) in str(caught.value)
    assert "errors='skip'" in str(caught.value)
    with pytest.warns(UserWarning, match=message) as said:
        words, matrix = formats.read(path, errors="skip")
    assert len(said) == 1
    assert words == list(rest)
    assert len(matrix) == len(rest)
    if text.startswith(b"3 2\na") and rest == "ac":
        assert matrix.tolist() == [[1, 2], [5, 6]]


def test_bytes_that_are_not_utf8_are_replaced_and_counted(tmp_path):
    # The second and third are equal once their bad bytes are replaced; the last is a word that really is U+FFFD.
    rows = [b"ok 1 1", b"\xff 2 2", b"\xfe 3 3", b"caf\xe9 4 4", "\ufffd 5 5".encode()]
    path = write(tmp_path, b"\n".join(rows) + b"\n")
    with pytest.warns(UserWarning, match=r"became U\+FFFD in 3 words \(2 left out, now equal to another word\)$"):
        words, matrix = formats.read(path)
    assert words == ["ok", "caf\ufffd", "\ufffd"]
    assert matrix[:, 0].tolist() == [1, 4, 5]
    path = write(tmp_path, b"caf\xe9 4 4\n\xff 2 2\n\xfe 3 3\n")
    with pytest.warns(UserWarning, match=r"in 3 words \(1 left out"):
        assert formats.read(path)[0] == ["caf\ufffd", "\ufffd"]
    path = write(tmp_path, b"2 1\nx\xe9 " + struct.pack("<f", 1) + b"\ny " + struct.pack("<f", 2))
    with pytest.warns(UserWarning, match=r"bytes that are not UTF-8 became U\+FFFD in 1 word$"):
        assert formats.read(path)[0] == ["x\ufffd", "y"]


def test_warnings_point_at_the_caller(tmp_path):
    entries = b"2 1\nx\xe9 " + struct.pack("<f", 1) + b"\nz "
    for data in (b"2 1\nx\xe9 1\ny\n", b"x\xe9 1 2\ny 1 2\nz 1\n", entries):
        with pytest.warns(UserWarning, match=r"U\+FFFD|The rest was loaded") as said:
            load_vectors(write(tmp_path, data), errors="skip")
        assert [warning.filename for warning in said] == [__file__] * 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (
            b"hello world\nthis is text\n",
            "none of the formats that firth knows: 'safetensors', 'fasttext', 'word2vec-text'",
        ),
        (b"\x80\x04\x95\x00", "a pickle"),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        formats.read(write(tmp_path, data))


def test_a_format_that_is_named_must_be_the_files(tmp_path):
    path = write(tmp_path, b"a 1 2\nb 3 4\n")
    with pytest.raises(ValueError, match=r"line 1 should be the header .* 'a 1 2"):
        formats.read(path, format="word2vec-text")
    with pytest.raises(ValueError, match="does not begin with the header of word2vec's binary format"):
        formats.read(path, format="word2vec-binary")
    with pytest.raises(ValueError, match="not a safetensors file"):
        formats.read(path, format="safetensors")
    with pytest.raises(ValueError, match="no format 'csv'; the formats are 'safetensors', 'fasttext', 'word2vec-text'"):
        formats.read(path, format="csv")
    with pytest.raises(ValueError, match="'strict' or 'skip', not 'ignore'"):
        formats.read(path, errors="ignore")
    with pytest.raises(ValueError, match="at least 1 dimension, not 0"):
        formats.read(write(tmp_path, b"0 0\n"))
    with pytest.raises(FileNotFoundError):
        formats.read(tmp_path / "nowhere")


# ---- writing


@pytest.mark.parametrize("word", ["a b", "a\tb", "\n", "a\r", "\v", "a\f", ""])
def test_text_cannot_hold_white_space(tmp_path, word):
    for name in ("v.txt", "v.glove"):
        with pytest.raises(ValueError, match=r"word 1, .*which this format cannot store. .* save as .safetensors"):
            formats.write(tmp_path / name, ["ok", word], some_rows(2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["a b", "\nb", ""])
def test_binary_cannot_hold_blanks(tmp_path, word):
    with pytest.raises(ValueError, match="which this format cannot store"):
        formats.write(tmp_path / "v.bin", ["ok", word], some_rows(2))
    formats.write(tmp_path / "v.bin", ["a\tb", "b\r"], some_rows(2))
    assert formats.read(tmp_path / "v.bin")[0] == ["a\tb", "b\r"]
    formats.write(tmp_path / "v.safetensors", ["ok", word], some_rows(2))
    assert formats.read(tmp_path / "v.safetensors")[0] == ["ok", word]


def test_words_that_are_not_unicode_are_named(tmp_path):
    for suffix in SUFFIXES.values():
        with pytest.raises(ValueError, match=r"word 1, .* is not valid Unicode"):
            formats.write(tmp_path / f"v{suffix}", ["ok", "\ud800"], some_rows(2))
    assert list(tmp_path.iterdir()) == []


def test_the_format_follows_from_the_name(tmp_path):
    with pytest.raises(ValueError, match=r"which format\? End the name in one of .safetensors, .txt"):
        formats.write(tmp_path / "v.dat", WORDS, some_rows())
    with pytest.raises(ValueError, match=r"the only compression that firth writes is .gz"):
        formats.write(tmp_path / "v.txt.xz", WORDS, some_rows())
    with pytest.raises(ValueError, match="never compressed"):
        formats.write(tmp_path / "v.safetensors.gz", WORDS, some_rows())
    formats.write(tmp_path / "v.txt", WORDS, some_rows(), format="glove")
    assert (tmp_path / "v.txt").read_bytes().startswith(b"the 0.")
    formats.write(tmp_path / "v.VEC", WORDS, some_rows())
    assert (tmp_path / "v.VEC").read_bytes().startswith(b"9 6\n")


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
@pytest.mark.parametrize("name", ["v.txt", "v.txt.gz"])
def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch, error, name):
    path = tmp_path / name
    formats.write(path, WORDS, some_rows())
    old = path.read_bytes()
    monkeypatch.setattr(formats, "_CHUNK", 12)
    calls = []

    def format_text(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return real(*args, **options)

    real = _core.format_text
    monkeypatch.setattr(_core, "format_text", format_text)
    with pytest.raises(type(error)):
        formats.write(path, WORDS, some_rows(seed=1))
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


# ---- safetensors, and trained models


def test_a_trained_model_gives_its_vectors(tmp_path):
    vectors, context = some_rows(), some_rows(seed=1)
    path = tmp_path / "bank.model"
    tensors = {"vectors": vectors, "context": context, **files.pack_words(WORDS)}
    files.write_tensors(path, tensors, {"format": "firth model", "model": "Word2Vec"})
    assert_same(formats.read(path), WORDS, vectors)
    loaded = load_vectors(path, mmap=True)
    assert isinstance(loaded, Vectors)
    owner = loaded.matrix
    while isinstance(owner, np.ndarray):
        owner = owner.base
    assert isinstance(owner, mmap.mmap)
    np.testing.assert_array_equal(loaded["the"], vectors[0])
    assert loaded.most_similar("the") == Vectors(WORDS, vectors).most_similar("the")


def test_the_safetensors_library_reads_ours(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    formats.write(tmp_path / "v.safetensors", WORDS, some_rows())
    tensors = library.load_file(tmp_path / "v.safetensors")
    np.testing.assert_array_equal(tensors["matrix"], some_rows())
    assert files.unpack_words(tensors) == WORDS
    tensors["matrix"] = tensors["matrix"].astype(np.float16)
    library.save_file(tensors, tmp_path / "half.safetensors")
    assert_same(formats.read(tmp_path / "half.safetensors"), WORDS, some_rows().astype(np.float16).astype(np.float32))


def test_safetensors_files_that_hold_something_else(tmp_path):
    path = tmp_path / "v.safetensors"
    for tensors, message in [
        ({"weight": some_rows()}, "holds no word vectors: .* and holds weight"),
        ({"matrix": some_rows(8), **files.pack_words(WORDS)}, r"matrix of shape \(8, 6\) does not fit 9 words"),
        (
            {"matrix": some_rows(), "words": np.zeros(3, np.uint8), "word_offsets": np.array([0, 4])},
            "word_offsets must rise from 0 to 3",
        ),
        (
            {"matrix": some_rows(1), "words": np.array([255], np.uint8), "word_offsets": np.array([0, 1])},
            "codec can.t decode",
        ),
    ]:
        files.write_tensors(path, tensors, {})
        with pytest.raises(ValueError, match=message):
            formats.read(path)
    for kind, metadata, said in [("counts", {}, "a firth counts"), ("model", {"model": "LSA"}, "a saved LSA")]:
        files.write_own(path, kind, {"weight": some_rows()}, metadata)
        with pytest.raises(ValueError, match=f"holds no word vectors: it is {said}, and holds weight"):
            formats.read(path)
    formats.write(path, WORDS, some_rows())
    (tmp_path / "v.gz").write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match="decompress a safetensors file"):
        formats.read(tmp_path / "v.gz")
    formats.write(tmp_path / "v.txt", WORDS, some_rows())
    with pytest.raises(ValueError, match="mmap=True needs a safetensors file"):
        formats.read(tmp_path / "v.txt", mmap=True)


# ---- gensim


def test_gensim_reads_ours_and_we_read_gensims(tmp_path):
    models = pytest.importorskip("gensim.models")
    matrix = some_rows()
    for binary, name in [(False, "v.txt"), (True, "v.bin"), (False, "v.txt.gz"), (True, "v.bin.gz")]:
        formats.write(tmp_path / name, WORDS, matrix)
        keyed = models.KeyedVectors.load_word2vec_format(tmp_path / name, binary=binary)
        assert keyed.index_to_key == WORDS
        np.testing.assert_array_equal(keyed.vectors, matrix)
        keyed.save_word2vec_format(tmp_path / f"g{name}", binary=binary)
        assert_same(formats.read(tmp_path / f"g{name}"), WORDS, matrix)


# gensim leaves the file open here.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_gensim_reads_our_glove_text(tmp_path):
    models = pytest.importorskip("gensim.models")
    matrix = some_rows()
    formats.write(tmp_path / "v.glove", WORDS, matrix)
    keyed = models.KeyedVectors.load_word2vec_format(tmp_path / "v.glove", no_header=True)
    np.testing.assert_array_equal(keyed.vectors, matrix)


# ---- bindings


def test_bindings_check_their_arguments():
    with pytest.raises(ValueError, match="start must lie"):
        _core.parse_text(b"a 1", start=4, vector_size=1, limit=-1, threads=1)
    with pytest.raises(ValueError, match="vector_size must lie in"):
        _core.parse_text(b"a 1", start=0, vector_size=0, limit=-1, threads=1)
    with pytest.raises(ValueError, match="vector_size must lie in"):
        _core.parse_binary(b"a 1", start=0, vector_size=1 << 60, count=1)
    with pytest.raises(ValueError, match=r"spans\[0\] does not lie in the data"):
        _core.decode_words(b"abc", np.array([[2, 4]]))
    with pytest.raises(ValueError, match="offsets must rise"):
        _core.format_text(b"abc", np.array([0, 4]), np.ones((1, 1), np.float32), threads=1)


def test_reading_warns_of_nothing_else(tmp_path):
    formats.write(tmp_path / "v.txt", WORDS, some_rows())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        formats.read(tmp_path / "v.txt")


@pytest.mark.parametrize("format", ["word2vec-text", "glove"])
def test_a_byte_order_mark_is_no_part_of_a_word(tmp_path, format):
    path = tmp_path / "marked.txt"
    Vectors(["one", "two"], np.ones((2, 3), np.float32)).save(path, format=format)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_vectors(path).words == ["one", "two"]


@pytest.mark.parametrize("cut", ["9 6\n", "9 6\nthe", "9 6\nthe ", "9 6\nthe 0.", "9 6\nthe -", "9 6\nthe 0.1 0.2 0.3"])
def test_a_text_cut_within_its_first_row_is_no_table_of_another_format(tmp_path, cut):
    with pytest.raises(ValueError, match=r"/file: the header promises (9 words|.* cut short)"):
        formats.read(write(tmp_path, cut.encode()))


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n\n"])
def test_line_ends_may_follow_a_binary_file(tmp_path, end):
    data = b"2 1\na " + struct.pack("<f", 1) + b"\nb " + struct.pack("<f", 2) + end
    for packed in (data, gzip.compress(data)):
        path = write(tmp_path, packed)
        assert formats.read(path)[0] == ["a", "b"]
        assert formats.read(path, limit=1)[0] == ["a"]  # what is behind it is not looked at


def test_vectors_in_another_encoding_are_refused_with_the_remedy(tmp_path):
    path = write(tmp_path, "1 2\nthe 1 2\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"in none of the formats .*; it is UTF-16; convert it: iconv -f UTF-16"):
        formats.read(path)


def test_a_header_that_promises_more_than_the_file_holds(tmp_path):
    path = tmp_path / "liar.txt"
    path.write_text("500000 268435456\n" + "word 1 2\n" * 1000)
    with pytest.raises(ValueError, match=r"liar.txt: the header promises"):
        load_vectors(path, format="word2vec-text")
