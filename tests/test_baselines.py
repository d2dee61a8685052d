"""One-hot and random vectors: what they are, and what the first cost."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

import firth
from firth.models import baselines


def corpus_of(n_words):
    """Words of which each is as frequent as the next, in the order of their numbers."""
    words = [f"w{i:05}" for i in range(n_words)]
    return firth.Corpus(firth.Vocabulary(words), np.arange(n_words, dtype=np.int32), np.array([0, n_words]))


@pytest.mark.parametrize("n_words", [1, 2, 16, 17, 1000])
def test_one_hot_is_the_identity(n_words):
    model = firth.OneHot().fit(corpus_of(n_words))
    np.testing.assert_array_equal(model.vectors.matrix, np.eye(n_words, dtype=np.float32))
    assert model.vectors.matrix.ctypes.data % 64 == 0
    assert model.vectors.matrix.strides[0] % 64 == 0 or n_words == 1


def test_one_hot_words_have_nothing_in_common():
    vectors = firth.OneHot().fit(corpus_of(50)).vectors
    assert [vectors.similarity("w00003", other) for other in ("w00003", "w00004")] == [1, 0]
    assert [score for _, score in vectors.most_similar("w00003", topn=49)] == [0] * 49


def test_one_hot_is_loaded_as_it_was_saved(tmp_path):
    model = firth.OneHot().fit(corpus_of(100))
    model.save(tmp_path / "a.model")
    for read in (firth.load(tmp_path / "a.model").vectors, firth.load_vectors(tmp_path / "a.model")):
        assert read.words == model.vectors.words
        np.testing.assert_array_equal(read.matrix, np.eye(100))


def test_a_damaged_one_hot_model_is_refused(tmp_path):
    model = firth.OneHot().fit(corpus_of(100))
    model._tensors["vectors"] = model._tensors["vectors"][:, :99]
    model.save(tmp_path / "a.model")
    with pytest.raises(ValueError, match=r"a.model is a damaged model.*\(100, 99\) for 100 words"):
        firth.load(tmp_path / "a.model")


@pytest.mark.skipif(
    not hasattr(mmap, "MADV_NOHUGEPAGE") or mmap.PAGESIZE > 4096 or not Path("/proc/self/statm").exists(),
    reason="Linux, with small pages",
)
def test_one_hot_of_many_words_takes_a_page_a_row(tmp_path):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    n = 20_000
    before = resident()
    model = firth.OneHot().fit(corpus_of(n))
    assert [score for _, score in model.vectors.most_similar("w00007", topn=3)] == [0, 0, 0]
    assert firth.evaluate.similarity(model.vectors, [("w00001", "w00002", 1.0), ("w00001", "w00001", 9.0)]).found == 2
    assert model.vectors.similarity("w19999", "w19999") == 1
    assert resident() - before < n * mmap.PAGESIZE + 150e6, "of 1.6 GB"


def test_one_hot_without_that_advice(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_NOHUGEPAGE", raising=False)
    np.testing.assert_array_equal(firth.OneHot().fit(corpus_of(20)).vectors.matrix, np.eye(20))


@pytest.mark.parametrize(
    "error", [MemoryError("of NumPy"), OSError(12, "Cannot allocate memory"), OverflowError("big")]
)
def test_one_hot_of_too_many_words_says_how_many_bytes_and_what_to_do(monkeypatch, error):
    def refuse(*_):
        raise error

    model = firth.OneHot().fit(corpus_of(10))
    monkeypatch.setattr(baselines, "_zeros", refuse)
    with pytest.raises(MemoryError, match=r"100 words \(44800 bytes\).*max_size="):
        model.fit(corpus_of(100))
    assert len(model.vectors) == 10, "an earlier fit stays as it was"


def test_random_vectors_have_length_one_and_no_direction(isa):
    vectors = firth.RandomVectors(vector_size=50, seed=3).fit(corpus_of(4000)).vectors
    matrix = vectors.matrix.astype(np.float64)
    bound = np.sqrt(3 / 50)
    assert 0.999 * bound < np.abs(matrix).max() <= bound * (1 + 1e-6)
    # Standard errors: of the mean squared length, sqrt(4 / (5 * 50 * 4000)) = 0.002; of a column's mean, 0.0022.
    assert (matrix**2).sum(1).mean() == pytest.approx(1, abs=0.01)
    assert np.abs(matrix.mean(0)).max() < 0.012
    units = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    cosines = (units[:2000] * units[2000:]).sum(1)
    assert cosines.mean() == pytest.approx(0, abs=0.016)
    assert cosines.std() == pytest.approx(50**-0.5, rel=0.1)


def test_random_vectors_of_another_size_are_scaled_so_too():
    for size in (1, 3, 300):
        matrix = firth.RandomVectors(vector_size=size).fit(corpus_of(3000)).vectors.matrix
        assert (matrix.astype(np.float64) ** 2).sum(1).mean() == pytest.approx(1, abs=0.09)
