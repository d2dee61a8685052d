"""One function opens whatever firth has written, and says what anything else looks like."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import firth
from firth import files

TEXTS = [f"w{i % 7} w{i % 5} w{i % 3}" for i in range(60)]
CORPUS = firth.Corpus.from_iterable(TEXTS, min_count=1)
SMALL = {"vector_size": 4, "epochs": 1, "threads": 1}


def fitted_classifier() -> firth.FastTextClassifier:
    return firth.FastTextClassifier(**SMALL).fit(TEXTS, ["even", "odd"] * 30)


def some_vectors() -> firth.Vectors:
    return firth.Vectors(["a", "b", "c"], np.arange(12, dtype=np.float32).reshape(3, 4) + 0.5)


WRITERS: dict[str, Any] = {
    "Word2Vec": lambda path: firth.Word2Vec(sample=0, **SMALL).fit(CORPUS).save(path),
    "FastText": lambda path: firth.FastText(sample=0, bucket=20, **SMALL).fit(CORPUS).to_fasttext(path),
    "GloVe": lambda path: firth.GloVe(**SMALL).fit(CORPUS).save(path),
    "FastTextClassifier": lambda path: fitted_classifier().save(path),
    "FastTextClassifier, fastText's": lambda path: fitted_classifier().to_fasttext(path),
    "Vectors": lambda path: some_vectors().save(path, format="safetensors"),
    "Vectors, text": lambda path: some_vectors().save(path, format="word2vec-text"),
    "Vectors, binary": lambda path: some_vectors().save(path, format="word2vec-binary"),
    "Vectors, GloVe's text": lambda path: some_vectors().save(path, format="glove"),
    "Corpus": CORPUS.save,
    "Cooccurrences": lambda path: firth.count_cooccurrences(CORPUS).save(path),
    "Phrases": lambda path: firth.Phrases().fit(CORPUS).save(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_is_opened_as_what_was_saved(name: str, tmp_path: Path) -> None:
    """By its contents: the name of the file says nothing."""
    WRITERS[name](tmp_path / "file")
    assert type(firth.load(tmp_path / "file")).__name__ == name.split(",")[0]
    if name.startswith("Vectors"):
        assert firth.load(tmp_path / "file").words == ["a", "b", "c"]


def test_a_bin_is_read_by_its_contents(tmp_path: Path) -> None:
    path = tmp_path / "v.bin"
    some_vectors().save(path)
    assert type(firth.load(path)) is firth.Vectors
    WRITERS["FastText"](path)
    assert type(firth.load(path)) is firth.FastText
    assert isinstance(firth.load_vectors(path), firth.Vectors)
    WRITERS["FastTextClassifier, fastText's"](path)
    assert type(firth.load(path)) is firth.FastTextClassifier


def test_the_format_may_be_named(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("1 1\na 2\n")
    assert firth.load(tmp_path / "v").words == ["a"]
    assert firth.load(tmp_path / "v", format="glove").words == ["1", "a"]


def test_vectors_may_come_through_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text("1 2\na 2 3\n"))
    writer.start()
    assert firth.load(pipe).words == ["a"]
    writer.join()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"some lines\nof a text\n" * 9, r"looks like text, which firth\.Corpus\.from_file reads"),
        (b"\x80\4\x95abc", "a pickle, which firth never opens"),
        (b"PK\x03\x04abc", "a zip archive"),
        (b"%PDF-1.7 abc", "a PDF document"),
        (gzip.compress(b"some lines\nof a text\n" * 9, mtime=0), "looks like text"),
    ],
)
def test_anything_else_is_called_what_it_looks_like(data: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(ValueError, match=rf"file is in none of the formats.*{said}"):
        firth.load(tmp_path / "file")


def test_what_is_not_there_and_what_cannot_be_opened_alone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"):
        firth.load(tmp_path / "missing")
    firth.GloVe(**SMALL).fit(CORPUS, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"a firth checkpoint, which cannot be opened by itself"):
        firth.load(tmp_path / "checkpoint.safetensors")
    files.write_tensors(tmp_path / "other", {"weight": np.zeros(3, np.float32)}, {})
    with pytest.raises(ValueError, match="other holds no word vectors"):
        firth.load(tmp_path / "other")
    CORPUS.save(tmp_path / "corpus")
    tensors, metadata = files.read_tensors(tmp_path / "corpus")
    files.write_tensors(tmp_path / "corpus", tensors, {**metadata, "version": 99})
    with pytest.raises(ValueError, match="corpus has version 99 of the firth corpus format"):
        firth.load(tmp_path / "corpus")


def test_what_contextual_models_need(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    from firth import contextual

    tokenizer = contextual.Tokenizer.train(TEXTS, tokenizer="bpe", vocabulary_size=300)
    tokenizer.save(tmp_path / "t.json")
    tokenizer.save(tmp_path / "folder")
    ids = contextual.TokenIds.build(TEXTS, tokenizer)
    ids.save(tmp_path / "ids")
    assert len(firth.load(tmp_path / "t.json")) == len(firth.load(tmp_path / "folder")) == len(tokenizer)
    np.testing.assert_array_equal(firth.load(tmp_path / "ids").ids, ids.ids)


def test_torch_is_imported_for_contextual_models_only(tmp_path: Path) -> None:
    for i, name in enumerate(WRITERS):
        WRITERS[name](tmp_path / str(i))
    program = (
        "import sys, firth\n"
        f"for i in range({len(WRITERS)}): firth.load(f'{tmp_path}/{{i}}')\n"
        "assert 'torch' not in sys.modules and 'firth.contextual' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
