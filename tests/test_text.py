"""Texts from files, pipes, open files, lists and columns of tables."""

from __future__ import annotations

import gzip
import io
import warnings
from pathlib import Path

import pytest

from firth import Corpus, text
from firth.corpus import as_corpus


def test_lines_and_documents(tmp_path: Path) -> None:
    path = tmp_path / "articles.txt"
    path.write_text("one\r\ntwo\n\n  \nthree\n\nfour\nfive")
    assert list(text.read_texts(path)) == ["one", "two", "three", "four", "five"]
    assert list(text.read_texts(path, documents="blank_lines")) == ["one\ntwo", "three", "four\nfive"]
    assert list(text.read_lines(path)) == ["one", "two", "", "  ", "three", "", "four", "five"]
    with pytest.raises(ValueError, match="documents must be 'lines' or 'blank_lines'"):
        text.read_texts(path, documents="pages")


def test_every_kind_of_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, packed = tmp_path / "a.txt", tmp_path / "b.gz"
    path.write_text("a b\nc\n")
    packed.write_bytes(gzip.compress(b"d\n"))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a b\nc\n")))
    for source in (
        path,
        str(path),
        "-",
        io.BytesIO(b"a b\nc\n"),
        io.StringIO("a b\nc\n"),
        ["a b", "c"],
        iter(["a b", "c"]),
    ):
        assert list(text.read_texts(source)) == ["a b", "c"]
    assert list(text.read_texts([path, packed])) == ["a b", "c", "d"]
    assert list(text.read_texts([io.StringIO("a b"), packed])) == ["a b", "d"]
    assert list(text.read_texts([["a", "b"], ["c"]])) == [["a", "b"], ["c"]]


class ArrowColumn:
    """As an array of Arrow: iterating gives scalars of its own, `to_pylist` strings."""

    def __iter__(self):
        return iter([object(), object()])

    def to_pylist(self):
        return ["a b", "c"]


def test_columns_of_tables() -> None:
    pandas = pytest.importorskip("pandas")
    for column in (pandas.Series(["a b", "c"]), ArrowColumn()):
        assert list(text.read_texts(column)) == ["a b", "c"]
        assert list(as_corpus(column, min_count=1)) == [["a", "b"], ["c"]]


@pytest.mark.parametrize("read", [text.read_texts, as_corpus])
def test_what_is_no_source(tmp_path: Path, read) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a")
    with pytest.raises(FileNotFoundError, match=r"no file 'a text .*given in a list: \[text\]"):
        read("a text " * 100)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError, match="one by one"):
        read(tmp_path)
    with pytest.raises(ValueError, match=r"these name files: give \[Path\("):
        read([str(path)])
    with pytest.raises(TypeError, match="a dict; give the list under one of its keys"):
        read({"text": ["a"]})
    with pytest.raises(TypeError, match=r"strings or lists of words|an iterable of texts"):
        read(7)


def test_invalid_utf_8_is_reported_once_with_its_line_where_firth_is_called(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"ok\nna\xefve\nand \xff\xfe\n" + b"plain text\n" * 9)
    said = "latin.txt: 3 invalid UTF-8 sequences were read as U+FFFD, the first in line 2"
    for read in (
        lambda: list(text.read_texts(path)),
        lambda: Corpus.from_file(path, min_count=1),
        lambda: Corpus.from_file(path, min_count=1, tokenizer=str.split),
        lambda: as_corpus(path, min_count=1),
    ):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read()
        assert [(str(one.message).endswith(said), one.filename) for one in caught] == [(True, __file__)]


def test_as_corpus(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("The cat\nsat\n")
    corpus = as_corpus(path, min_count=1, tokenizer="words")
    assert list(corpus) == [["the", "cat"], ["sat"]]
    assert as_corpus(corpus) is corpus
    for texts in (["The cat", "sat"], iter(["The cat", "sat"]), io.StringIO("The cat\nsat"), [path]):
        assert list(as_corpus(texts, min_count=1, tokenizer="words")) == [["the", "cat"], ["sat"]]
    # Lists of words are split already.
    assert list(as_corpus([["The", "cat"], ["sat"]], min_count=1, tokenizer="words")) == [["The", "cat"], ["sat"]]


def test_a_corpus_is_a_table_in_notebooks() -> None:
    shown = Corpus.from_iterable(["<b> a a a", "a <b>", *(f"w{i:02}" for i in range(20))], min_count=1)._repr_html_()
    assert "<caption>22 documents, 26 tokens, 22 words</caption>" in shown
    assert "<tr><td>a</td><td>4</td></tr><tr><td>&lt;b&gt;</td><td>2</td></tr><tr><td>w00</td><td>1</td></tr>" in shown
    assert shown.count("<tr>") == 11  # the names of the columns and ten words
