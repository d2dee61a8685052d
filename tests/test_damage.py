"""Damaged files of every format: each is either read and can be used, or is an error that names the file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import firth
from firth import Corpus, FastText, FastTextClassifier, Phrases, Vocabulary, evaluate, files, load_vectors

# How many damages each file gets; more of them, and others, with FIRTH_DAMAGES=2000.
DAMAGES = int(os.environ.get("FIRTH_DAMAGES", "32"))

DOCUMENTS = [[f"w{i % 7}", f"word{i % 5}", "naïve", f"w{i % 3}"] for i in range(40)]
TEXTS = [" ".join(document) for document in DOCUMENTS]
LABELS = ["even" if i % 2 else "odd" for i in range(40)]


def damaged(data: bytes, n: int) -> list[bytes]:
    """Some of the ways in which a file may be damaged: cut, bytes changed, lost, inserted, or overwritten."""
    draw = np.random.default_rng(len(data))
    found = [data[:-1], data[1:], data[: len(data) // 2], b"", data + b"x", data + data]
    while len(found) < n:
        # Half of them near the start, where headers are.
        at = int(draw.integers(0, len(data) if len(found) % 2 else min(len(data), 400)))
        kind = int(draw.integers(0, 6))
        if kind == 0:
            found.append(data[:at])
        elif kind == 1:
            found.append(data[:at] + bytes([data[at] ^ (1 << int(draw.integers(0, 8)))]) + data[at + 1 :])
        elif kind == 2:
            found.append(data[:at] + draw.bytes(1) + data[at + 1 :])
        elif kind == 3:
            found.append(data[:at] + draw.bytes(int(draw.integers(1, 9))) + data[at:])
        elif kind == 4:
            found.append(data[:at] + data[at + int(draw.integers(1, 9)) :])
        else:
            size = int(draw.choice([1, 2, 4, 8]))
            extreme = [b"\0", b"\xff", b"\x7f", b"\x80", b"9"][int(draw.integers(0, 5))]
            found.append(data[:at] + extreme * size + data[at + size :])
    return found


def query(vectors: firth.Vectors) -> None:
    assert vectors.matrix.shape == (len(vectors), vectors.vector_size)
    for word in vectors.words[:2]:
        assert vectors[word].shape == (vectors.vector_size,)
        if np.isfinite(vectors[word]).all():
            vectors.most_similar(word, topn=2)
    if isinstance(vectors, firth.models.fasttext.SubwordVectors):
        assert "unseenish" not in vectors.index
        assert vectors["unseenish"].shape == (vectors.vector_size,)


def use_vectors(path: Path) -> None:
    query(load_vectors(path))


def use_mapped_vectors(path: Path) -> None:
    query(load_vectors(path, mmap=True))


def use_model(path: Path) -> None:
    model = firth.load(path)
    if isinstance(model, firth.Vectors):  # without the mark of a model, a file of vectors like any other
        query(model)
        return
    query(model.vectors)
    if isinstance(model, FastText):
        model.subwords("unseenish")
        if not any("\0" in word for word in model.vectors.words):  # which that format cannot hold
            model.to_fasttext(path.with_name("out.bin"))
    model.save(path.with_name("out"))


def use_sparse(path: Path) -> None:
    model = firth.load(path)
    assert model.matrix.shape[0] == model.matrix.shape[1]
    model.save(path.with_name("out"))


def use_fasttext(path: Path) -> None:
    model = FastText.from_fasttext(path)
    query(model.vectors)
    model.to_fasttext(path.with_name("out.bin"))


def classify(model: FastTextClassifier) -> None:
    assert len(model.predict([*TEXTS[:3], "unseenish"])) == 4
    model.test(TEXTS, LABELS)


def use_classifier(path: Path) -> None:
    classify(firth.load(path))


def use_fasttext_classifier(path: Path) -> None:
    classify(FastTextClassifier.from_fasttext(path))


def use_corpus(path: Path) -> None:
    corpus = firth.load(path)
    try:
        assert sum(map(len, corpus)) <= corpus.n_tokens
    except ValueError as error:  # numbers are looked at where they are met
        assert str(error).startswith("the corpus is damaged")  # noqa: PT017


def use_counts(path: Path) -> None:
    counts = firth.load(path)
    try:
        counts.pmi()
    except ValueError as error:  # as above
        assert "row" in str(error)  # noqa: PT017


def use_phrases(path: Path) -> None:
    firth.load(path).merge(DOCUMENTS[0])


def use_records(path: Path) -> None:
    assert firth.Cooccurrences.from_glove(path, Vocabulary([f"w{i}" for i in range(30)])).csr.shape == (30, 30)


def use_text(path: Path) -> None:
    assert Corpus.from_file(path, min_count=1).n_tokens > 0


def use_labeled_text(path: Path) -> None:
    model = FastTextClassifier(vector_size=4, epochs=1, bucket=10, threads=1).fit(path)
    assert len(model.classes_) > 0


def use_pairs(path: Path) -> None:
    evaluate.similarity(VECTORS, path)


def use_questions(path: Path) -> None:
    evaluate.analogies(VECTORS, path)


VECTORS = firth.Vectors(["w0", "w1", "word1", "naïve"], np.eye(4, 3, dtype=np.float32))


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes most of the time of so many small files."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.from_iterable(DOCUMENTS, min_count=1)


def table(suffix: str, **options: Any) -> Callable[[Path, Corpus], None]:
    rows = np.random.default_rng(1).standard_normal((14, 5)).astype(np.float32)
    return lambda path, corpus: firth.Vectors([*(f"w{i}" for i in range(13)), "naïve"], rows).save(path, **options)


def fitted(kind: type[Any], **options: Any) -> Callable[[Path, Corpus], None]:
    return lambda path, corpus: kind(vector_size=4, threads=1, **options).fit(corpus).save(path)


def fasttext(**options: Any) -> Callable[[Path, Corpus], None]:
    return lambda path, corpus: (
        FastText(vector_size=4, threads=1, epochs=1, bucket=30, sample=0, **options).fit(corpus).to_fasttext(path)
    )


def classifier(quantize: dict[str, Any] | None, fasttext: bool, **options: Any) -> Callable[[Path, Corpus], None]:
    def write(path: Path, corpus: Corpus) -> None:
        texts = [f"{text} v{i}" for i, text in enumerate(TEXTS * 8)]  # enough of them to be quantized
        model = FastTextClassifier(vector_size=4, threads=1, epochs=1, bucket=300, **options).fit(texts, LABELS * 8)
        if quantize is not None:
            model = model.quantize(**quantize)
        if fasttext:
            model.to_fasttext(path)
        else:
            model.save(path)

    return write


def text(pack: Callable[[bytes], bytes] = bytes, template: str = "{text}") -> Callable[[Path, Corpus], None]:
    lines = [template.format(text=text, label=label) for text, label in zip(TEXTS, LABELS, strict=True)]
    return lambda path, corpus: path.write_bytes(pack("\n".join(lines).encode())) and None


def packed_table(pack: Callable[[bytes], bytes], format: str) -> Callable[[Path, Corpus], None]:
    def write(path: Path, corpus: Corpus) -> None:
        table("", format=format)(path, corpus)
        path.write_bytes(pack(path.read_bytes()))

    return write


def zstd(data: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").compress(data))


FORMATS: dict[str, tuple[Callable[[Path, Corpus], None], Callable[[Path], None]]] = {
    "word2vec text": (table("", format="word2vec-text"), use_vectors),
    "word2vec text, gzip": (packed_table(gzip.compress, "word2vec-text"), use_vectors),
    "word2vec text, xz": (packed_table(lzma.compress, "word2vec-text"), use_vectors),
    "word2vec binary": (table("", format="word2vec-binary"), use_vectors),
    "word2vec binary, bzip2": (packed_table(bz2.compress, "word2vec-binary"), use_vectors),
    "word2vec binary, zstd": (packed_table(zstd, "word2vec-binary"), use_vectors),
    "GloVe": (table("", format="glove"), use_vectors),
    "safetensors": (table("", format="safetensors"), use_vectors),
    "safetensors, mapped": (table("", format="safetensors"), use_mapped_vectors),
    "fastText's vectors": (fasttext(), use_vectors),
    "fastText": (fasttext(), use_fasttext),
    "fastText, hs": (fasttext(loss="hs", architecture="cbow"), use_fasttext),
    "fastText's classifier": (classifier(None, True, min_n=2, max_n=3), use_fasttext_classifier),
    "fastText's classifier, hs": (classifier(None, True, loss="hs", word_ngrams=2), use_fasttext_classifier),
    "fastText, quantized": (classifier({"norms": True}, True, word_ngrams=2), use_fasttext_classifier),
    "fastText, pruned": (classifier({"cutoff": 280}, True, min_n=2, max_n=3), use_fasttext_classifier),
    "Word2Vec": (fitted(firth.Word2Vec, epochs=1, sample=0), use_model),
    "FastText": (fitted(FastText, epochs=1, bucket=30, sample=0), use_model),
    "GloVe's model": (fitted(firth.GloVe, epochs=1), use_model),
    "PPMI": (fitted(firth.PPMI), use_model),
    "LSA": (fitted(firth.LSA), use_model),
    "PPMI, sparse": (lambda path, corpus: firth.PPMI(vector_size=None).fit(corpus).save(path), use_sparse),
    "OneHot": (lambda path, corpus: firth.OneHot().fit(corpus).save(path), use_model),
    "RandomVectors": (lambda path, corpus: firth.RandomVectors(vector_size=4).fit(corpus).save(path), use_model),
    "classifier": (classifier(None, False, min_n=2, max_n=3), use_classifier),
    "classifier, quantized": (classifier({"cutoff": 280, "norms": True}, False, max_n=3, min_n=2), use_classifier),
    "corpus": (lambda path, corpus: corpus.save(path), use_corpus),
    "counts": (lambda path, corpus: firth.count_cooccurrences(corpus).save(path), use_counts),
    "phrases": (lambda path, corpus: Phrases(threshold=0.01).fit(corpus).save(path), use_phrases),
    "GloVe's records": (lambda path, corpus: firth.count_cooccurrences(corpus).to_glove(path), use_records),
    "text": (text(), use_text),
    "text, gzip": (text(gzip.compress), use_text),
    "text, zstd": (text(zstd), use_text),
    "labeled text": (text(template="__label__{label} {text}"), use_labeled_text),
    "labeled text, xz": (text(lzma.compress, "__label__{label} {text}"), use_labeled_text),
    "word pairs": (lambda path, corpus: path.write_text("w0 w1 0.5\nw1 word1 7\n" * 3) and None, use_pairs),
    "analogies": (lambda path, corpus: path.write_text(": one\nw0 w1 word1 naïve\n" * 3) and None, use_questions),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_can_be_used_or_is_refused_by_name(name: str, corpus: Corpus, tmp_path: Path) -> None:
    write, use = FORMATS[name]
    path = tmp_path / "whole"
    write(path, corpus)
    use(path)
    target = tmp_path / "damaged.file"
    refused = 0
    for data in damaged(path.read_bytes(), DAMAGES):
        target.write_bytes(data)
        try:
            use(target)
        except (ValueError, OSError) as error:
            refused += 1
            assert "damaged.file" in str(error), repr(error)  # noqa: PT017
            assert not isinstance(error, UnicodeError)  # noqa: PT017
    assert refused > 0


def altered(value: Any) -> list[Any]:
    """A value of a header with each of its parts, or it itself, put in place by another one, or left out."""
    found: list[Any] = [None, "x", -1, 0, 2**70, 1.5, True, [], {}]
    if isinstance(value, dict):
        for name, part in value.items():
            found += [{**value, name: one} for one in altered(part)]
            found.append({other: one for other, one in value.items() if other != name})
        found.append({**value, "more": 1})
    elif isinstance(value, list) and value:
        found += [[one, *value[1:]] for one in altered(value[0])]
        found += [value[1:], value + value]
    return found


def altered_arrays(array: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """An array of another size, shape, type or contents."""
    flat = np.ascontiguousarray(array).reshape(-1)
    found = [flat[:0], flat[:-1].copy(), flat[::-1].copy().reshape(array.shape), np.concatenate([flat, flat])]
    found += [flat, array[None], array[1:], array.T.copy(), np.full_like(array, -1 if array.dtype.kind != "u" else 255)]
    found += [np.zeros_like(array), np.full_like(array, 127)]
    if array.dtype.kind == "i":
        found += [np.full_like(array, np.iinfo(array.dtype).max), np.full_like(array, np.iinfo(array.dtype).min)]
    return found + [array.astype(kind) for kind in ("f4", "f8", "f2", "i4", "i8", "u1") if array.dtype != kind]


@pytest.mark.parametrize(
    "name", ["safetensors", "FastText", "PPMI, sparse", "classifier, quantized", "corpus", "counts", "phrases"]
)
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_firth_s_with_other_contents_can_be_used_or_is_refused_by_name(
    name: str, corpus: Corpus, tmp_path: Path
) -> None:
    write, use = FORMATS[name]
    path, target = tmp_path / "whole", tmp_path / "damaged.file"
    write(path, corpus)
    tensors, metadata = files.read_tensors(path)
    kinds = [(tensors, one) for one in altered(metadata) if isinstance(one, dict)]
    for tensor in tensors:
        kinds += [({**tensors, tensor: one}, metadata) for one in altered_arrays(tensors[tensor])]
        kinds.append(({other: one for other, one in tensors.items() if other != tensor}, metadata))
    refused = 0
    for arrays, described in kinds:
        files.write_tensors(target, arrays, described)
        try:
            use(target)
        except (ValueError, OSError) as error:
            refused += 1
            assert "damaged.file" in str(error), repr(error)  # noqa: PT017
    assert refused > 10
