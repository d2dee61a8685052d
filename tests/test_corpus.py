"""Text to ids: every token once, whatever the blocks, threads and bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import re
import subprocess
import sys
import unicodedata
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import firth
import reference
from firth import Corpus, Vocabulary, _core, corpus, files

BOM = b"\xef\xbb\xbf"
UTF_16 = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")

# Bytes near everything that matters: white space, line ends, parts of sequences, valid ones, words of 15 to 17 bytes.
PIECES = [
    *[
        bytes([c])
        for c in (0, 9, 10, 10, 13, 28, 31, 32, 32, 65, 90, 95, 97, 122, 127, 128, 0xC2, 0xE0, 0xED, 0xF0, 0xFF)
    ],
    *[
        text.encode()
        for text in ("é", "\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u200b", "\u3000", "ǅ", "İ", "Σ", "ΑΣ", "K")
    ],
    *[
        "\U0001f600".encode(),
        "𝔸ⓐ".encode(),
        "水水水".encode(),
        "Ⱥ".encode(),
        b"\xf0\x9f\x98",
        b"\xe2\x82",
        b"\xed\xa0\x80",
    ],
    *[b"abcdefghijklmnopqrstuvwxyz"[:n] for n in (7, 8, 9, 15, 16, 17, 26)],
    *[b"\xe0\x80\x80", b"\xf0\x80\x80\x80", b"\xf4\x90\x80\x80"],
    *[b"The", b"the", b"a\x00", b"naive", "naïve".encode(), b"x" * 70],
]
texts = st.one_of(st.binary(max_size=150), st.lists(st.sampled_from(PIECES), max_size=60).map(b"".join)).filter(
    lambda data: not data.startswith(UTF_16) and files.compression_of(data) is None
)


def read(data, tokenizer="whitespace", *, threads=1, block=None, min_share=1, min_count=1, **options):
    """The corpus of a file with these bytes, read in small blocks and shares: any bytes, as if they were text."""
    with (
        mock.patch("firth.text.not_text", return_value=""),
        mock.patch.multiple(corpus.CorpusOptions, block=block, min_share=min_share),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)
        options = {"tokenizer": tokenizer, "threads": threads, "min_count": min_count, **options}
        return Corpus.from_file(io.BytesIO(data), **options)


def assert_holds(result: Corpus, documents: list[list[str]], invalid: int | None = None) -> None:
    """The corpus holds exactly these documents."""
    assert list(result) == documents
    assert len(result) == len(documents)
    vocabulary = reference.vocabulary_of(documents)
    assert list(zip(result.vocabulary.words, result.vocabulary.counts.tolist(), strict=True)) == vocabulary
    assert (result.ids.dtype, result.offsets.dtype) == (np.int32, np.int64)
    report = result.report
    assert report.documents == len(documents)
    assert report.tokens_read == report.tokens_kept == result.n_tokens == sum(map(len, documents))
    assert report.tokens_out_of_vocabulary == 0
    assert report.distinct_words_read == len(vocabulary)
    if invalid is not None:
        assert report.invalid_sequences == invalid


# ---- every token once ------------------------------------------------------------------------------------------------


@settings(max_examples=400, deadline=None)
@given(texts, st.integers(1, 3), st.one_of(st.integers(1, 64), st.none()), st.sampled_from(["whitespace", "words"]))
@example(b"a b\n\nc", 2, 1, "whitespace")
@example(b"\xe2\x82", 1, 1, "whitespace")
@example("\ufeffa b".encode(), 1, 2, "whitespace")
def test_any_bytes_blocks_and_threads(data, threads, block, tokenizer):
    lines = reference.lines_of(data)
    documents = [line.split() if tokenizer == "whitespace" else reference.lower_words(line) for line in lines]
    if not any(documents):
        with pytest.raises(ValueError, match=r"have no word|is empty"):
            read(data, tokenizer, threads=threads, block=block)
        return
    invalid = sum(line.count("\ufffd") for line in lines) - data.count(b"\xef\xbf\xbd")
    assert_holds(read(data, tokenizer, threads=threads, block=block), documents, invalid)
    assert_holds(Corpus.from_iterable(lines, min_count=1, tokenizer=tokenizer, threads=threads), documents, 0)
    assert_holds(Corpus.from_iterable(documents, min_count=1, threads=threads), documents, 0)
    if tokenizer == "whitespace":
        assert_holds(read(data, str.split, block=block), documents, invalid)


@settings(max_examples=100, deadline=None)
@given(
    texts, st.integers(1, 3), st.integers(1, 40), st.sampled_from(["whitespace", "words"]), st.sampled_from([b"", BOM])
)
@example(b"a\nbc \xff", 1, 3, "whitespace", BOM)
def test_strict_names_the_first_invalid_byte(data, threads, block, tokenizer, mark):
    data = mark + data
    try:
        data.decode()
    except UnicodeDecodeError as error:
        place = f"line {data.count(10, 0, error.start) + 1}, byte {error.start}:"
        for how in (tokenizer, str.split):
            with pytest.raises(ValueError, match=place):
                read(data, how, threads=threads, block=block, errors="strict")


def test_one_huge_line_and_one_huge_token():
    words = [f"w{i % 977}" for i in range(200_000)]
    line = " ".join(words).encode()
    assert_holds(read(line, threads=3, block=4096), [words])
    token = b"x" * 3_000_001
    for tokenizer in ("whitespace", "words"):
        result = read(b"a " + token + b" a\n" + token, tokenizer, threads=2, block=1 << 16)
        assert_holds(result, [["a", token.decode(), "a"], [token.decode()]])
    wide = ["é" * 20, "é" * 100_000, "é" * 21]
    for tokenizer in ("whitespace", "words"):
        assert_holds(read(" ".join(wide).encode(), tokenizer), [wide])
    with_invalid = b"".join(b"\xff" * n + b" " for n in (20, 100_000, 21))
    assert_holds(read(with_invalid), [["\ufffd" * 20, "\ufffd" * 100_000, "\ufffd" * 21]])


def test_many_words_of_every_length_in_every_table():
    """The tables grow, and words long and short, equal only in their first or last bytes, stay apart."""
    rng = np.random.default_rng(1)
    words = [
        f"{'p' * (i % 40)}{i % 5000}{'é' if i % 7 == 0 else ''}{'s' * (i % 23)}"
        for i in rng.integers(0, 60_000, 300_000)
    ]
    documents = [words[i : i + 7] for i in range(0, len(words), 7)]
    data = "\n".join(map(" ".join, documents)).encode()
    for threads in (1, 2, 3):
        assert_holds(read(data, threads=threads, block=100_000), documents, 0)
    assert_holds(Corpus.from_iterable(documents, min_count=1), documents, 0)


@pytest.mark.parametrize("threads", [2, 3, 8, 64])
def test_same_corpus_with_threads(threads):
    """Tables of several threads are merged part by part; equally frequent words are in the order of their bytes."""
    numbers = np.random.default_rng(2).zipf(1.2, 60_000) % 30_000
    data = b"\n".join(b"%d %s" % (i, b"a word as long as 40 bytes"[: i % 27].replace(b" ", b"_") * 2) for i in numbers)
    alone = read(data)
    kept = alone.vocabulary.words[::3]
    given = firth.Vocabulary([*kept, "absent"])
    for options in ({}, {"min_count": 3}, {"max_size": 1000}, {"vocabulary": given}):
        expected, found = read(data, **options), read(data, threads=threads, **options)
        assert found.vocabulary.words == expected.vocabulary.words
        for name in ("ids", "offsets"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_array_equal(found.vocabulary.counts, expected.vocabulary.counts)


def test_words_that_differ_in_zeros_behind():
    """So many and so different that dozens of them have one slot."""
    starts = np.random.default_rng(1).integers(ord("a"), ord("z") + 1, (5_000, 6)).astype(np.uint8)
    words = [bytes(start).decode() + "\0" * zeros for start in np.unique(starts, axis=0) for zeros in range(11)]
    assert_holds(Corpus.from_iterable([words], min_count=1), [words])


def test_words_of_one_hash():
    """The hash multiplies two halves of 16 bytes, so that exchanging them, masked, gives the same one."""
    length = 32
    mask = (0xFBD3C1A5F7E9FF8D ^ 0xF5A1E3FF9BC7D3E1 ^ length ^ length << 32).to_bytes(8, "little")
    letters = range(ord("0"), ord("z") + 1)
    halves = [bytes([next(c for c in order if c ^ m in letters) for m in mask]) for order in (letters, letters[::-1])]
    exchanged = [bytes(c ^ m for c, m in zip(half, mask, strict=True)) for half in halves[::-1]]
    words = [(b"".join(pair) + b"-" * 16).decode() for pair in (halves, exchanged)]
    assert words[0] != words[1]
    assert_holds(Corpus.from_iterable([" ".join(words)], min_count=1), [words])


def test_the_result_does_not_depend_on_threads():
    data = b"".join(b"%d %d\n" % (i % 100, i % 7) for i in range(50_000))
    one, three = (Corpus.from_file(io.BytesIO(data), threads=n) for n in (1, 3))
    assert one.vocabulary.words == three.vocabulary.words
    np.testing.assert_array_equal(one.ids, three.ids)
    np.testing.assert_array_equal(one.offsets, three.offsets)


def test_white_space_and_word_characters_are_those_of_python():
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)])).replace("\n", " ")
    assert_holds(Corpus.from_iterable([everything], min_count=1), [everything.split()])
    spaced = " ".join(everything)
    expected = [[word for c in everything for word in reference.lower_words(c)]]
    assert_holds(Corpus.from_iterable([spaced], min_count=1, tokenizer="words"), expected)


def test_lower_casing_departs_from_python_in_two_characters_only():
    for character in map(chr, [*range(0xD800), *range(0xE000, 0x110000)]):
        if reference.lower_words(character) != re.findall(r"\w+", character.lower()):
            assert unicodedata.name(character) == "LATIN CAPITAL LETTER I WITH DOT ABOVE"
    assert reference.lower_words("ΟΔΟΣ") == ["οδοσ"]


def test_lines_are_documents():
    def documents(data):
        return list(read(data))

    assert documents(b"a b\nc\n") == [["a", "b"], ["c"]]
    assert documents(b"a b\nc") == [["a", "b"], ["c"]]
    assert documents(b"\n\na\n\n") == [[], [], ["a"], []]
    assert documents(b"a\r\nb\r\n") == [["a"], ["b"]]
    assert documents(b"a\rb\x0bc\x0cd\x1ee") == [["a", "b", "c", "d", "e"]]
    assert documents(b"a\n ") == [["a"], []]


def test_several_files_end_their_last_lines(tmp_path):
    paths = [tmp_path / name for name in ("a.txt", "empty.txt", "b.txt")]
    for path, data in zip(paths, (b"\xef\xbb\xbfa b", b"", b"\xef\xbb\xbfb\n\n"), strict=True):
        path.write_bytes(data)
    for tokenizer in ("whitespace", "words", str.split):
        result = Corpus.from_file(paths, min_count=1, tokenizer=tokenizer)
        assert_holds(result, [["a", "b"], ["b"], []])


# ---- sources ---------------------------------------------------------------------------------------------------------


TEXT = "the bank of the river\n\nthe bank lends möney\n"
DOCUMENTS = [line.split() for line in TEXT.split("\n")[:-1]]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        ("", bytes),
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", lambda data: pytest.importorskip("zstandard").ZstdCompressor().compress(data)),
    ],
)
def test_compressed_files(tmp_path, suffix, pack):
    path = tmp_path / f"text.txt{suffix}"
    path.write_bytes(pack(TEXT.encode()))
    assert_holds(Corpus.from_file(path, min_count=1), DOCUMENTS)
    assert_holds(Corpus.from_file(str(path), min_count=1, tokenizer=str.split), DOCUMENTS)


def test_compression_is_told_by_contents_wherever_text_comes_from(tmp_path):
    packed = gzip.compress(TEXT.encode())
    path = tmp_path / "text.txt"
    path.write_bytes(packed)
    for source in (
        path,
        io.BytesIO(packed),
        [io.BytesIO(TEXT.encode()[:22]), io.BytesIO(gzip.compress(TEXT.encode()[22:]))],
    ):
        assert_holds(Corpus.from_file(source, min_count=1), DOCUMENTS)
    program = "import firth; print(firth.Corpus.from_file('-', min_count=1)[2][2])"
    result = subprocess.run([sys.executable, "-c", program], input=packed, capture_output=True, check=True)
    assert result.stdout.decode().strip() == "lends"


def test_standard_input_that_is_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(OSError, match="it is closed: 'standard input'"):
        Corpus.from_file("-")


def test_open_files_and_standard_input(tmp_path):
    class OnlyRead:
        def __init__(self):
            self.read = io.BytesIO(TEXT.encode()).read

    class OneByteAtATime(io.RawIOBase):
        def __init__(self):
            self.file = io.BytesIO(TEXT.encode())

        def readable(self):
            return True

        def readinto(self, buffer):
            return self.file.readinto(memoryview(buffer)[:1])

    for source in (io.BytesIO(TEXT.encode()), io.StringIO(TEXT), OnlyRead(), OneByteAtATime()):
        assert_holds(Corpus.from_file(source, min_count=1), DOCUMENTS)
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        assert_holds(Corpus.from_file(file, min_count=1), DOCUMENTS)
    program = "import firth; print(firth.Corpus.from_file('-', min_count=1)[2][2])"
    result = subprocess.run([sys.executable, "-c", program], input=TEXT.encode(), capture_output=True, check=True)
    assert result.stdout.decode().strip() == "lends"


def test_progress_shows_a_bar(tmp_path, capsys):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    Corpus.from_file(path, min_count=1, progress=True)
    assert "100%" in capsys.readouterr().err
    Corpus.from_iterable(DOCUMENTS, min_count=1, progress=True)
    assert "3.00/3.00" in capsys.readouterr().err
    Corpus.from_iterable(DOCUMENTS, min_count=1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        iter,
        lambda items: (item for item in items),
        lambda items: pytest.importorskip("pandas").Series(items),
        lambda items: pytest.importorskip("pandas").Series(items, index=range(7, 7 + len(items))),
        lambda items: np.fromiter(items, dtype=object),
    ],
)
def test_iterables_of_strings_and_of_tokens(make):
    lines = TEXT.split("\n")[:-1]
    assert_holds(Corpus.from_iterable(make(lines), min_count=1), DOCUMENTS)
    assert_holds(Corpus.from_iterable(make(lines), min_count=1, tokenizer=str.split), DOCUMENTS)
    assert_holds(Corpus.from_iterable(make(DOCUMENTS), min_count=1), DOCUMENTS)


def test_tokens_are_taken_as_they_are():
    documents = [["new york", "", "a\nb"], (), np.array(["", "x"])]
    expected = [list(map(str, document)) for document in documents]
    assert_holds(Corpus.from_iterable(documents, min_count=1), expected)


def test_columns_of_a_table_are_tokens_or_texts():
    pandas = pytest.importorskip("pandas")
    assert_holds(Corpus.from_iterable([pandas.Series(["x", "new york"])], min_count=1), [["x", "new york"]])
    with pytest.raises(TypeError, match="one of its columns"):
        Corpus.from_iterable(pandas.DataFrame({"text": ["a"]}))
    with pytest.raises(TypeError, match=r"documents\[1\] is of type NAType, .* drop missing"):
        Corpus.from_iterable(["a", pandas.NA])


def test_line_ends_inside_a_text_do_not_end_its_document():
    assert_holds(Corpus.from_iterable(["a\nb\r\nc\n", "", "\n"], min_count=1), [["a", "b", "c"], [], []])


def test_more_than_one_block_of_texts_and_tokens():
    documents = [[f"w{i % 1000}", "é" * (i % 3)][: 1 + (i % 3 > 0)] for i in range(700)]
    texts_ = [" ".join(document) for document in documents]
    for items in (documents, texts_, [text + " " * 300 for text in texts_]):
        with mock.patch.multiple(corpus.CorpusOptions, block=50, min_share=1):
            assert_holds(Corpus.from_iterable(items, min_count=1, threads=2), documents)


# ---- tokenizers ------------------------------------------------------------------------------------------------------


def test_hugging_face_tokenizer_is_not_allowed_to_cut_or_fill(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "[PAD]", "[CLS]", "the", "bank", "##s", "river"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", 2)]
    )
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    expected = [["the", "bank", "##s", "the", "bank", "##s"], [], ["[UNK]", "river"]]
    lines = ["the banks the banks", "", "a river"]
    assert_holds(Corpus.from_iterable(lines, min_count=1, tokenizer=tokenizer), expected)
    path = tmp_path / "text.txt"
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    assert_holds(Corpus.from_file(path, min_count=1, tokenizer=tokenizer), expected)
    assert tokenizer.truncation["max_length"] == 3


@pytest.mark.parametrize("kind", ["tokenizers", "transformers, fast", "transformers, slow", "firth.contextual"])
def test_tokenizers_of_several_libraries_give_their_tokens(kind, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "the", "bank", "##s", "river"]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece(dict(zip(vocabulary, range(9), strict=True)), unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[CLS]"])
    if kind == "firth.contextual":
        pytest.importorskip("torch")
        tokenizer = pytest.importorskip("firth.contextual").Tokenizer(tokenizer)
    elif kind.startswith("transformers"):
        transformers = pytest.importorskip("transformers")
        if kind == "transformers, fast":
            tokenizer = transformers.PreTrainedTokenizerFast(
                tokenizer_object=tokenizer, model_max_length=3, unk_token="[UNK]"
            )
        else:
            tokenizer = slow_tokenizer(transformers)
    lines = ["the banks the banks", "", "a river"]
    expected = [["the", "bank", "##s", "the", "bank", "##s"], [], ["[UNK]", "river"]]
    path = tmp_path / "text.txt"
    path.write_text("\r\n".join(lines), encoding="utf-8", newline="")
    assert_holds(Corpus.from_iterable(lines, min_count=1, tokenizer=tokenizer), expected)
    assert_holds(Corpus.from_file(path, min_count=1, tokenizer=tokenizer), expected)
    if kind == "transformers, slow":
        return
    with pytest.warns(UserWarning, match="documents: 1 lone surrogate was read"):
        assert len(Corpus.from_iterable(["the bank \ud800"], min_count=1, tokenizer=tokenizer)[0]) == 3
    with pytest.raises(ValueError, match=r"documents\[1\] holds a lone surrogate"):
        Corpus.from_iterable(["the", "bank \ud800"], min_count=1, tokenizer=tokenizer, errors="strict")


def slow_tokenizer(transformers):
    """One of transformers that is written in Python."""

    class Slow(transformers.PreTrainedTokenizer):
        def __init__(self):
            super().__init__(unk_token="[UNK]")

        vocab_size = 0

        def get_vocab(self):
            return {}

        def _tokenize(self, text):
            words = {"the": ["the"], "banks": ["bank", "##s"], "river": ["river"]}
            return [token for word in text.split() for token in words.get(word, ["[UNK]"])]

        def _convert_token_to_id(self, token):
            return 0

    return Slow()


def test_a_function_sees_one_line_at_a_time():
    seen = []

    def tokenize(text):
        seen.append(text)
        return text.split(",")

    assert list(read(b"a,b\r\n\nc", tokenize, block=2)) == [["a", "b"], [""], ["c"]]
    assert seen == ["a,b", "", "c"]


# ---- choosing words --------------------------------------------------------------------------------------------------


WORDS = [["b", "b", "b", "a", "a", "é", "é", "c"], ["c", "d"], ["d", "rare"]]


def test_min_count_and_max_size():
    for min_count in (1, 2, 3):
        for max_size in (None, 1, 3, 100):
            result = Corpus.from_iterable(WORDS, min_count=min_count, max_size=max_size)
            expected = reference.vocabulary_of(WORDS, min_count, max_size)
            assert list(zip(result.vocabulary.words, result.vocabulary.counts.tolist(), strict=True)) == expected
            kept = dict(expected)
            assert list(result) == [[word for word in document if word in kept] for document in WORDS]
            report = result.report
            assert (report.tokens_read, report.tokens_kept) == (12, sum(kept.values()))
            assert report.tokens_kept + report.tokens_out_of_vocabulary == report.tokens_read
            assert report.distinct_words_read == 6


@pytest.mark.parametrize("threads", [1, 3])
def test_a_given_vocabulary_keeps_its_order(threads):
    vocabulary = Vocabulary(["never", "d", "longer than sixteen bytes", "b"], [9, 9, 9, 9])
    text = "\n".join(map(" ".join, WORDS))
    for result in (
        Corpus.from_iterable(WORDS, vocabulary=vocabulary, threads=threads),
        read(text.encode(), threads=threads, block=5, vocabulary=vocabulary),
    ):
        assert result.vocabulary.words == vocabulary.words
        assert result.vocabulary.counts.tolist() == [0, 2, 0, 3]
        assert list(result) == [["b", "b", "b"], ["d"], ["d"]]
        assert result.report.tokens_out_of_vocabulary == 7
    assert vocabulary.counts.tolist() == [9, 9, 9, 9]
    assert Corpus.from_iterable(["x y"], vocabulary=vocabulary).n_tokens == 0


def test_words_that_min_count_leaves():
    with pytest.raises(ValueError, match=r"of 6 different words the most frequent occurs 3 times; give min_count=3 or"):
        Corpus.from_iterable(WORDS)
    with pytest.raises(ValueError, match=r"\(min_count=1 keeps every word\)$"):
        Corpus.from_iterable(WORDS)


def test_a_vocabulary_with_a_lone_surrogate_is_refused_by_its_word():
    with pytest.raises(ValueError, match=r"^the word 'a\\ud800' holds a lone surrogate, .* replace it$"):
        Corpus.from_iterable(["a b"], vocabulary=Vocabulary(["b", "a\ud800"]))


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_empty_text(tmp_path):
    path = tmp_path / "empty.txt"
    for data in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"empty\.txt is empty"):
            Corpus.from_file(path)
    with pytest.raises(ValueError, match="documents is empty"):
        Corpus.from_iterable(iter([]))
    path.write_bytes(b"\n \n")
    with pytest.raises(ValueError, match=r"the 2 documents of .*empty\.txt have no word"):
        Corpus.from_file(path)
    with pytest.raises(ValueError, match="list of files is empty"):
        Corpus.from_file([])


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"):
        Corpus.from_file([io.BytesIO(b"a"), tmp_path / "missing"])
    with pytest.raises(IsADirectoryError, match="is a directory"):
        Corpus.from_file(tmp_path)
    with pytest.raises(TypeError, match="must be a path"):
        Corpus.from_file(3)
    for encoding in ("utf-16", "utf-32", "utf-16-be"):
        path = tmp_path / "wide.txt"
        path.write_bytes(("\ufeff" if encoding.endswith("be") else "").encode(encoding) + "the bank".encode(encoding))
        with pytest.raises(ValueError, match=rf"wide\.txt is {encoding[:6].upper()}; convert"):
            Corpus.from_file(path)


def test_safetensors_files_are_no_texts(tmp_path):
    path = tmp_path / "saved"
    saved = Corpus.from_iterable(WORDS, min_count=1)
    saved.save(path)
    packed = tmp_path / "saved.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for tokenizer in ("whitespace", str.split):
        for source in (path, packed, io.BytesIO(path.read_bytes())):
            with pytest.raises(ValueError, match=r"safetensors file, not a text.*firth\.load .*firth\.load_vectors"):
                Corpus.from_file(source, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="safetensors file"):
        Corpus.estimate_memory(path)
    assert_holds(read(b"abcdefg {", block=1), [["abcdefg", "{"]])


@pytest.mark.parametrize("tokenizer", ["whitespace", str.split])
def test_what_is_not_text_is_refused_with_its_name(tmp_path, tokenizer):
    path = tmp_path / "noise.txt"
    path.write_bytes(np.random.default_rng(1).bytes(5000))
    with path.open("rb") as file:
        for source in (path, file):
            with pytest.raises(ValueError, match=r"noise\.txt is not text in UTF-8: .*iconv"):
                Corpus.from_file(source, tokenizer=tokenizer)
    with pytest.raises(ValueError, match=r"noise\.txt is not text"):
        Corpus.estimate_memory(path)
    path.write_bytes("the bank\n".encode("utf-16-le"))
    with pytest.raises(
        ValueError, match=r"noise\.txt is UTF-16LE without a byte order mark; convert it: iconv -f UTF-16LE"
    ):
        Corpus.from_file([io.BytesIO(b"good text"), path], tokenizer=tokenizer)


def test_invalid_text_is_counted_and_told(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("caf\xe9 b\n\xe9 \xef\xbf\xbd".encode("latin-1"))
    for tokenizer in ("whitespace", str.split):
        with pytest.warns(UserWarning, match=r"latin\.txt: 2 invalid UTF-8 sequences were read as U\+FFFD"):
            result = Corpus.from_file([path, io.BytesIO(b"fine")], min_count=1, tokenizer=tokenizer)
        assert list(result) == [["caf\ufffd", "b"], ["\ufffd", "\ufffd"], ["fine"]]
        assert result.report.invalid_sequences == 2
        with pytest.raises(ValueError, match=r"latin\.txt, line 1, byte 3: invalid UTF-8"):
            Corpus.from_file(path, errors="strict", tokenizer=tokenizer)


def test_lone_surrogates():
    for documents in (["a", "x\ud800\udfffy z"], [["a"], ["x\ud800\udfffy", "z"]]):
        for tokenizer in ("whitespace", str.split) if isinstance(documents[0], str) else ("whitespace",):
            with pytest.warns(UserWarning, match="documents: 2 lone surrogates were read"):
                result = Corpus.from_iterable(documents, min_count=1, tokenizer=tokenizer)
            assert list(result) == [["a"], ["x\ufffd\ufffdy", "z"]]
            assert result.report.invalid_sequences == 2
            with pytest.raises(ValueError, match=r"documents\[1\].* holds a lone surrogate"):
                Corpus.from_iterable(documents, errors="strict", tokenizer=tokenizer)
    with pytest.warns(UserWarning, match="1 invalid UTF-8 sequence was"):
        assert list(Corpus.from_file(io.StringIO("a \udcff"), min_count=1)) == [["a", "\ufffd"]]
    with pytest.raises(ValueError, match="line 2, byte 4"):
        Corpus.from_file(io.StringIO("a\nb \udcff"), errors="strict")
    twice = [["\ud800", "\udbff", "\ufffd"]]
    with pytest.warns(UserWarning, match="2 lone"):
        assert Corpus.from_iterable(twice, min_count=1).vocabulary.counts.tolist() == [3]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ("one text", "give a list of texts"),
        (b"one text", "give a list of texts"),
        (Path("x"), "from_file"),
        ({"a": "b"}, r"values\(\)"),
        (3, "must be an iterable"),
        (["a", b"b"], r"documents\[1\] is of type bytes, not a string; decode"),
        ([b"b"], r"documents\[0\] is of type bytes"),
        (["a", None], r"documents\[1\] is None, not a string; drop missing"),
        (["a", "b", float("nan")], r"documents\[2\] is NaN"),
        ([None, "a"], r"documents\[0\] is None"),
        (["a", ["b"]], r"documents\[1\] is of type list, not a string; give all strings"),
        ([["b"], "a"], r"documents\[1\] is of type str, not a list of tokens; give all"),
        ([["b"], None], r"documents\[1\] is None, not a list of tokens"),
        ([["b"], {"a"}], r"documents\[1\] is of type set"),
        ([["b"], iter("a")], r"documents\[1\] is of type str_\w*iterator"),
        ([["b"], ["a", 3]], r"documents\[1\]\[1\] is of type int, not a string: 3"),
        ([["b", None]], r"documents\[0\]\[1\] is None"),
        ([3], r"documents\[0\] is of type int"),
    ],
)
def test_documents_that_are_none(documents, message):
    with pytest.raises(TypeError, match=message):
        Corpus.from_iterable(documents)


def test_tokenizers_that_are_none():
    with pytest.raises(TypeError, match=r"must return lists of str, not str, as for documents\[0\]"):
        Corpus.from_iterable(["a"], tokenizer=str.upper)
    with pytest.raises(TypeError, match=r"documents\[0\]\[0\] is of type int"):
        Corpus.from_iterable(["a"], tokenizer=lambda text: [len(text)])
    with pytest.raises(TypeError, match=r"documents\[1\] is of type list"):
        Corpus.from_iterable(["a", ["b"]], tokenizer=str.split)
    with pytest.raises(TypeError, match="a tokenizer takes strings"):
        Corpus.from_iterable([["a"]], tokenizer="words")
    with pytest.raises(ZeroDivisionError):
        Corpus.from_iterable(["a"], tokenizer=lambda text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Corpus.from_iterable(str(1 // i) for i in (1, 0))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"min_count": 0}, ValueError, "min_count must be at least 1"),
        ({"min_count": 1.5}, TypeError, "min_count.* must be int"),
        ({"min_count": None}, TypeError, "min_count.* must be int"),
        ({"max_size": 0}, ValueError, "max_size must be at least 1"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
        ({"threads": True}, TypeError, "threads.* must be int"),
        ({"errors": "ignore"}, ValueError, "'replace' or 'strict'"),
        ({"tokenizer": "letters"}, ValueError, "tokenizer must be 'whitespace'"),
        ({"tokenizer": 3}, TypeError, "tokenizer must be a function"),
        # Such as tiktoken's, which give numbers.
        ({"tokenizer": SimpleNamespace(encode_batch=len)}, TypeError, "tokenizer must be a function"),
        ({"vocabulary": ["a"]}, TypeError, "must be a Vocabulary"),
        ({"vocabulary": Vocabulary(["a"]), "max_size": 3}, ValueError, "exclude each other"),
    ],
)
def test_options_that_are_none(options, error, message):
    with pytest.raises(error, match=message):
        Corpus.from_iterable(["a"], **options)


# ---- Vocabulary and Corpus -------------------------------------------------------------------------------------------


def test_vocabulary():
    vocabulary = Vocabulary(["b", "a"], [2, 1])
    assert (len(vocabulary), vocabulary["a"], vocabulary.get("a"), vocabulary.get("x"), vocabulary.get("x", 7)) == (
        2,
        1,
        1,
        None,
        7,
    )
    assert "a" in vocabulary
    assert "x" not in vocabulary
    assert list(vocabulary) == ["b", "a"]
    assert vocabulary.counts.dtype == np.int64
    assert Vocabulary(["x"]).counts.tolist() == [0]
    with pytest.raises(KeyError, match="'x' is not in the vocabulary of 2 words"):
        vocabulary["x"]
    with pytest.raises(ValueError, match=r"'a' is words\[1\] and words\[2\]"):
        Vocabulary(["b", "a", "a"])
    with pytest.raises(TypeError, match=r"words\[1\] is of type int"):
        Vocabulary(["b", 3])
    with pytest.raises(TypeError, match="not one string"):
        Vocabulary("words")
    with pytest.raises(ValueError, match="counts must be 1 numbers"):
        Vocabulary(["b"], [1, 2])
    with pytest.raises(ValueError, match=r"counts\[0\] is -1"):
        Vocabulary(["b"], [-1])
    with pytest.raises(TypeError, match="counts must be integers"):
        Vocabulary(["b"], [1.5])


def test_a_corpus_of_ids():
    result = Corpus(Vocabulary(["b", "a"]), np.array([0, 1, 0], np.int32), np.array([0, 2, 2, 3]))
    assert list(result) == [["b", "a"], [], ["b"]]
    assert result[-1] == ["b"]
    assert result.report.tokens_kept == 3
    assert result[np.int64(0)] == ["b", "a"]
    for part in (slice(2), slice(None), slice(-1, None), slice(None, None, -1), slice(5, 9)):
        assert result[part] == list(result)[part]
    for i in (3, -4):
        with pytest.raises(IndexError, match="of a corpus of 3"):
            result[i]
    for wrong in ("b", 1.0, None, True, [0, 1]):
        with pytest.raises(TypeError, match="a corpus is indexed by the number of a document"):
            result[wrong]
    with pytest.raises(ValueError, match=r"ids\[0\] = 5"):
        Corpus(Vocabulary(["b"]), np.array([5], np.int32), np.array([0, 1]))


@pytest.mark.parametrize("documents", [WORDS, [[], ["é"], []]])
def test_save_and_open(tmp_path, documents):
    path = tmp_path / "a.corpus"
    saved = Corpus.from_iterable(documents, min_count=1)
    saved.save(path)
    opened = firth.load(path)
    assert isinstance(opened.ids, np.memmap)
    assert not opened.ids.flags.writeable
    assert opened.vocabulary.words == saved.vocabulary.words
    for name in ("ids", "offsets"):
        a, b = getattr(opened, name), getattr(saved, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(opened.vocabulary.counts, saved.vocabulary.counts)
    assert opened.report == saved.report
    again = tmp_path / "again.corpus"
    opened.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_save_and_open_without_a_token(tmp_path):
    saved = Corpus.from_iterable(["x"], vocabulary=Vocabulary(["a"]))
    saved.save(tmp_path / "a.corpus")
    assert list(firth.load(tmp_path / "a.corpus")) == [[]]


def test_open_what_is_no_corpus(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError):
        firth.load(path)
    one = np.zeros(1, np.int64)
    firth.files.write_tensors(path, {"a": one}, {"format": "firth corpus", "version": 99})
    with pytest.raises(ValueError, match="version 99"):
        firth.load(path)
    firth.files.write_tensors(path, {"a": one}, {"format": "firth corpus", "version": 1})
    with pytest.raises(ValueError, match="damaged"):
        firth.load(path)
    Corpus.from_iterable(WORDS, min_count=1).save(path)
    tensors, metadata = firth.files.read_tensors(path)
    firth.files.write_tensors(path, {**tensors, "offsets": tensors["offsets"][:-1]}, metadata)
    with pytest.raises(ValueError, match="do not fit together"):
        firth.load(path)


def damaged_is_refused_or_harmless(path, data: bytes) -> bool:
    """Open a file with these bytes; whether it opens. If so, its documents hold words, or an error says otherwise."""
    path.write_bytes(data)
    try:
        opened = firth.load(path)
    except ValueError:
        return False
    try:
        Corpus(opened.vocabulary, opened.ids, opened.offsets)  # looks at every number
    except ValueError:
        with pytest.raises(ValueError, match="the corpus is damaged: document"):
            list(opened)
        with pytest.raises(ValueError, match=r"ids\[|offsets\["):
            firth.Word2Vec(vector_size=4, epochs=1, threads=1).fit(opened)
    else:
        words = set(opened.vocabulary.words)
        assert all(word in words for document in opened for word in document)
    return True


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "a.corpus"
    Corpus.from_iterable([["b", "é", "b"], [], ["a longer word than most", "b"]], min_count=1).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    opened = 0
    for n in range(len(whole)):
        assert not damaged_is_refused_or_harmless(path, whole[:n])
        for flip in {1, 0x80, int(rng.integers(1, 256))}:
            opened += damaged_is_refused_or_harmless(path, whole[:n] + bytes([whole[n] ^ flip]) + whole[n + 1 :])
    assert opened > 100


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ids", [0, 1, -1], "document 1 contains an id without a word"),
        ("ids", [0, 2, 1], "document 0 contains an id without a word"),
        ("offsets", [0, 3, 2, 3], "document 1 lies at 3:2"),
        ("offsets", [0, -1, 2, 3], "document 0 lies at 0:-1"),
        ("offsets", [0, 4, 4, 3], "document 0 lies at 0:4"),
    ],
)
def test_damage_among_ids_and_offsets_is_told_where_it_is_met(tmp_path, name, value, message):
    path = tmp_path / "a.corpus"
    Corpus(Vocabulary(["a", "b"]), np.array([0, 1, 0], np.int32), np.array([0, 2, 3, 3])).save(path)
    tensors, metadata = firth.files.read_tensors(path)
    firth.files.write_tensors(path, {**tensors, name: np.array(value, tensors[name].dtype)}, metadata)
    opened = firth.load(path)
    with pytest.raises(ValueError, match=message):
        list(opened)
    with pytest.raises(ValueError, match=rf"{name}\["):
        firth.Word2Vec(vector_size=4, epochs=1, threads=1).fit(opened)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("words", b"aa"),
        ("words", b"\xffa"),
        ("word_offsets", [1, 1, 2]),
        ("word_offsets", [0, 3, 2]),
        ("word_offsets", [0, 1, 1]),
        ("word_offsets", []),
        ("counts", [1, -1]),
        ("counts", [1, 1, 1]),
        ("ids", [0, 1]),
        ("offsets", [0, 2, 2]),
        ("offsets", []),
    ],
)
def test_damage_among_words_is_told_at_once(tmp_path, name, value):
    path = tmp_path / "a.corpus"
    Corpus(Vocabulary(["a", "b"]), np.array([0, 1, 0], np.int32), np.array([0, 3])).save(path)
    tensors, metadata = firth.files.read_tensors(path)
    value = list(value)  # bytes are numbers
    firth.files.write_tensors(path, {**tensors, name: np.array(value, tensors[name].dtype)}, metadata)
    with pytest.raises(ValueError, match=r"a\.corpus is a damaged corpus"):
        firth.load(path)


@pytest.mark.parametrize(("documents", "tokens", "offsets"), [(2, 3, [0, 3]), (1, 4, [0, 3]), (-1, 3, [])])
def test_damage_in_the_report_is_told_at_once(tmp_path, documents, tokens, offsets):
    path = tmp_path / "a.corpus"
    Corpus(Vocabulary(["a"]), np.zeros(3, np.int32), np.array([0, 3])).save(path)
    tensors, metadata = firth.files.read_tensors(path)
    metadata["report"].update(documents=documents, tokens_kept=tokens)
    firth.files.write_tensors(path, {**tensors, "offsets": np.array(offsets, np.int64)}, metadata)
    with pytest.raises(ValueError, match="do not fit together"):
        firth.load(path)


# ---- the counter -----------------------------------------------------------------------------------------------------


def new_counter(data=b""):
    counter = _core.TextCounter(threads=1, min_share=1)
    counter.begin_file(0)
    counter.feed(data)
    return counter


def test_the_counter_is_called_in_turn():
    ids, offsets = np.empty(3, np.int32), np.empty(2, np.int64)
    none = np.empty(0, np.int32)
    counter = new_counter(b"a b a")
    with pytest.raises(RuntimeError, match="no words are selected"):
        counter.write(none, np.empty(1, np.int64))
    assert counter.merge() == 2  # the open file, and its last word, is ended
    assert (counter.merge(), counter.tokens, counter.documents) == (2, 3, 1)
    no_words = (np.empty(0, np.uint8), np.zeros(1, np.int64), none, np.zeros(1, np.int64))
    for feed, arguments in (
        (counter.begin_file, [0]),
        (counter.feed, [b"c"]),
        (counter.end_file, []),
        (counter.feed_tokens, no_words),
    ):
        with pytest.raises(RuntimeError, match="nothing more can be fed"):
            feed(*arguments)
    with pytest.raises(RuntimeError, match="no words are selected"):
        counter.write(none, offsets)
    counter.select(1, -1)
    assert counter.kept_tokens == 3
    for select, arguments in ((counter.select, (1, -1)), (counter.select_given, no_words[:2])):
        with pytest.raises(RuntimeError, match="selected already"):
            select(*arguments)
    assert counter.kept_tokens == 3
    counter.write(ids, offsets)
    assert (ids.tolist(), offsets.tolist()) == ([0, 1, 0], [0, 3])
    with pytest.raises(RuntimeError, match="written already"):
        counter.write(ids, offsets)
    with pytest.raises(RuntimeError, match="selected already"):
        counter.select(1, -1)


def test_the_counter_takes_contiguous_bytes():
    counter = new_counter()
    data = memoryview(b"a-b-c-")
    for wrong in (data[::2], data[::-1], np.zeros(3, np.int32), data.cast("B", (2, 3))):
        with pytest.raises(ValueError, match="contiguous bytes"):
            counter.feed(wrong)
    for right in (data[:1][::2], data[:0][::2], bytearray(b"b"), data[2:3].cast("c")):
        counter.feed(right)
    assert (counter.merge(), counter.tokens) == (1, 1)  # abb


def test_the_counter_looks_at_tokens(tmp_path):
    counter = _core.TextCounter(threads=1, min_share=1)
    words, word_offsets = np.frombuffer(b"ab", np.uint8), np.array([0, 1, 2])
    ids = np.array([0, 1, 0], np.int32)
    for ends in ([2, 1], [4], [-1]):
        with pytest.raises(ValueError, match="ends must be sorted"):
            counter.feed_tokens(words, word_offsets, ids, np.array(ends))
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 34)  # takes no room
    many = np.memmap(path, np.int32, "r")
    with pytest.raises(ValueError, match=r"more than 2\^32 - 1 tokens"):
        counter.feed_tokens(words, word_offsets, many, np.array([len(many)]))
    counter.feed_tokens(words, word_offsets, ids, np.array([1, 3]))
    assert (counter.merge(), counter.tokens, counter.documents) == (2, 3, 2)


# ---- real text -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wikipedia(data, tmp_path_factory):
    """Fifty-five megabytes of Wikipedia, unpacked."""
    path = tmp_path_factory.mktemp("text") / "enwiki.txt"
    with lzma.open(data / "enwiki.raw.txt.xz") as file:
        path.write_bytes(file.read())
    return path


def test_wikipedia(wikipedia):
    result = Corpus.from_file(wikipedia)
    text = wikipedia.read_bytes().decode()
    counts = Counter(text.split())
    assert result.report.tokens_read == sum(counts.values())
    assert result.report.distinct_words_read == len(counts)
    assert dict(zip(result.vocabulary.words, result.vocabulary.counts.tolist(), strict=True)) == {
        word: n for word, n in counts.items() if n >= 5
    }
    lines = text.split("\n")
    assert len(result) == len(lines) - (not lines[-1])
    for i in range(0, len(result), 97):
        assert result[i] == [word for word in lines[i].split() if counts[word] >= 5]


def test_estimate_memory(wikipedia):
    """Half to twice what is measured: allocators and page sizes differ between systems."""
    program = (
        "import sys, firth\n"
        "def peak():\n"
        "    return int(next(x for x in open('/proc/self/status') if x.startswith('VmHWM')).split()[1]) * 1024\n"
        "before = peak()\n"
        "c = firth.Corpus.from_file(sys.argv[1], min_count=1, threads=int(sys.argv[2]))\n"
        "print(peak() - before)"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc to read the peak of memory from")
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("a sanitizer takes memory of its own")
    for threads in (1, 2):
        run = subprocess.run(
            [sys.executable, "-c", program, wikipedia, str(threads)], capture_output=True, check=True, text=True
        )
        estimate = Corpus.estimate_memory(wikipedia, threads=threads)
        assert 0.5 < estimate["peak"] / int(run.stdout) < 2
    result = Corpus.from_file(wikipedia, min_count=1)
    words = sum(map(sys.getsizeof, result.vocabulary.words)) + sys.getsizeof(result.vocabulary.words)
    taken = result.ids.nbytes + result.offsets.nbytes + result.vocabulary.counts.nbytes + words
    assert 0.5 < estimate["result"] / taken < 2


def test_estimate_memory_of_what_it_cannot_tell(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"a b c\n")
    assert Corpus.estimate_memory(path, threads=1)["result"] < 1000
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        Corpus.estimate_memory(path)
    packed = tmp_path / "b.txt"
    packed.write_bytes(gzip.compress(b"a b c\n"))
    with pytest.raises(ValueError, match=r"b\.txt is compressed"):
        Corpus.estimate_memory(packed)
    with pytest.raises(ValueError, match="tokenizer='whitespace' or 'words'"):
        Corpus.estimate_memory(path, tokenizer=str.split)


def test_no_warning_for_good_text():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Corpus.from_file(io.BytesIO("a \ufffd é".encode()), min_count=1)


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_damaged_compressed_files_are_named(tmp_path, suffix):
    if suffix == ".zst":
        pytest.importorskip("zstandard")
    packed = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(suffix, lambda data: data)
    path = tmp_path / f"text{suffix}"
    for damaged in (packed(b"some words of a text\n" * 1000)[:-20], b"no archive at all"):
        path.write_bytes(damaged)
        with pytest.raises(OSError, match="text"):
            Corpus.from_file(path, min_count=1)


def test_a_pipe_that_does_not_wait_is_no_end():
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.write(write, b"a b c\n")
    with open(read, "rb", buffering=0) as file, pytest.raises(BlockingIOError, match="blocking"):
        Corpus.from_file(file, min_count=1)
    os.close(write)


@pytest.mark.parametrize(
    ("ids", "offsets", "error"),
    [
        ([2**32, 1], [0, 2], ValueError),
        ([0.0, 1.0], [0, 2], TypeError),
        ([0, 1], [0.0, 2.0], TypeError),
        ([True, False], [0, 2], TypeError),
        (["0", "1"], [0, 2], TypeError),
        ([0, 2], [0, 2], ValueError),
    ],
)
def test_ids_at_hand_are_not_bent_into_shape(ids, offsets, error):
    with pytest.raises(error):
        Corpus(Vocabulary(["a", "b"]), np.array(ids), np.array(offsets))
    with pytest.raises(TypeError, match="Vocabulary"):
        Corpus(["a", "b"], np.array([0], np.int32), np.array([0, 1]))


@pytest.mark.parametrize("options", [{"threads": 100_000}, {"min_count": 2**63}, {"max_size": 2**63}])
def test_options_have_bounds(options):
    with pytest.raises(ValueError, match="at most"):
        Corpus.from_iterable(["a b"], **options)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match=r"from_iterable has no option 'tokeniser'; it has min_count, .*tokenizer"):
        Corpus.from_iterable(["a b"], tokeniser="words")
