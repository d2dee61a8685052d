"""Co-occurrence counts against counting by hand, at any number of threads and within any memory."""

from __future__ import annotations

import errno
import gzip
import itertools
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import firth
import reference
from firth import _core, counts, files

WEIGHTS = {
    "flat": lambda distance, window: 1.0,
    "harmonic": lambda distance, window: 1 / distance,
    "dynamic": lambda distance, window: (window - distance + 1) / window,
}


def corpus_of(documents, n_words=None):
    n_words = n_words or 1 + max((word for document in documents for word in document), default=0)
    ids = np.array([word for document in documents for word in document], np.int32)
    offsets = np.cumsum([0, *map(len, documents)]).astype(np.int64)
    return firth.Corpus(firth.Vocabulary([f"w{i}" for i in range(n_words)]), ids, offsets)


def random_corpus(lengths, n_words=50, seed=1):
    rng = np.random.default_rng(seed)
    zipf = 1 / np.arange(1, n_words + 1)
    documents = [rng.choice(n_words, n, p=zipf / zipf.sum()).tolist() for n in lengths]
    return documents, corpus_of(documents, n_words)


def same(a, b):
    return (
        all(np.array_equal(getattr(a.csr, part), getattr(b.csr, part)) for part in ("data", "indices", "indptr"))
        and a.csr.data.tobytes() == b.csr.data.tobytes()
    )


@given(
    documents=st.lists(st.lists(st.integers(0, 6), max_size=20), min_size=1, max_size=12).filter(any),
    window=st.integers(1, 25),
    side=st.sampled_from(["both", "left", "right"]),
    weighting=st.sampled_from(sorted(WEIGHTS)),
    threads=st.sampled_from([1, 2, 3]),
)
@settings(max_examples=150, deadline=None)
def test_equals_counting_by_hand(documents, window, side, weighting, threads):
    found = firth.count_cooccurrences(
        corpus_of(documents, 7), window=window, side=side, weighting=weighting, threads=threads
    )
    exact = reference.cooccurrences(documents, 7, window, side, lambda d: WEIGHTS[weighting](d, window))
    np.testing.assert_allclose(found.csr.toarray(), exact, rtol=2**-23, atol=20 * 2**-29)
    assert found.csr.nnz == np.count_nonzero(exact)
    for row in range(7):
        columns = found.csr.indices[found.csr.indptr[row] : found.csr.indptr[row + 1]]
        assert (np.diff(columns) > 0).all()


@pytest.mark.parametrize("length", [1, 63, 64, 65, 127, 128, 129, 1000])
def test_windows_stop_at_documents_wherever_they_lie(length):
    """Document starts are kept as bits: windows of more than a machine word, and documents that end at one."""
    documents, corpus = random_corpus([length, 1, 0, 0, length, 3, 200])
    for window in (1, 62, 64, 65, 150):
        exact = reference.cooccurrences(documents, 50, window, "both", lambda d: 1 / d)
        found = firth.count_cooccurrences(corpus, window=window).csr.toarray()
        np.testing.assert_allclose(found, exact, rtol=2**-23, atol=1e-5)


@pytest.mark.parametrize("side", ["both", "left", "right"])
def test_same_bits_for_any_threads_and_memory(side, threads):
    _, corpus = random_corpus([3000, 1, 500, 0, 4000], n_words=300)
    whole = firth.count_cooccurrences(corpus, side=side, threads=1)
    assert same(firth.count_cooccurrences(corpus, side=side, threads=threads), whole)
    need = 8 * whole.csr.nnz
    with pytest.raises(MemoryError, match="needs up to"):
        firth.count_cooccurrences(corpus, memory=100)
    bounded = firth.count_cooccurrences(corpus, side=side, threads=threads, memory=need // 2)
    assert isinstance(bounded.csr.data, np.memmap)
    assert same(bounded, whole)


@pytest.mark.parametrize("weighting", sorted(WEIGHTS))
def test_same_bits_with_rows_that_threads_share(weighting):
    """The places of a frequent word are split into parts; any thread completes its row."""
    documents, corpus = random_corpus([100] * 200, n_words=100)
    alone = firth.count_cooccurrences(corpus, weighting=weighting, threads=1)
    for threads in (2, 3, 8, 64):
        assert same(firth.count_cooccurrences(corpus, weighting=weighting, threads=threads), alone)
    exact = reference.cooccurrences(documents, 100, 10, "both", lambda d: WEIGHTS[weighting](d, 10))
    np.testing.assert_allclose(alone.csr.toarray(), exact, rtol=2**-22)


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_work_items_cover_all_places_once_for_any_threads(threads):
    _, corpus = random_corpus([20_000, 30_000], n_words=300)
    counts = np.bincount(corpus.ids, minlength=300)
    counter = _core.CooccurrenceCounter(corpus.ids, corpus.offsets, counts, window=10, left=np.ones(10), right=None)
    counter.find_places(0, 300, threads=threads)
    split, next_row = 0, 0
    items = iter(counter.items(0, 300, threads=threads).tolist())
    for row, end_row, begin, end, parts in items:
        assert row == next_row
        next_row = end_row
        if parts == 1:
            assert end_row > row
            continue
        split += 1
        ranges = [(begin, end), *(item[2:4] for item in itertools.islice(items, parts - 1))]
        assert end_row == row + 1
        assert len(ranges) == parts
        assert [first for first, _ in ranges] == [0, *(last for _, last in ranges[:-1])]
        assert ranges[-1][1] == counts[row]
    assert next_row == 300
    assert (split > 0) == (threads > 1)


def test_rare_words_among_very_many():
    """Rows that touch few of many columns are put in order another way; some here are, some are not."""
    documents, _ = random_corpus([500, 40, 400], n_words=1000, seed=2)
    apart = [[40 * word for word in document] for document in documents]  # at most two words to 64 bits
    for side in ("both", "left"):
        found = firth.count_cooccurrences(corpus_of(apart, 40_000), window=3, side=side).csr
        exact = reference.cooccurrences(documents, 1000, 3, side, lambda d: 1 / d)
        assert found.nnz == np.count_nonzero(exact)
        assert (np.diff(found.indices)[np.diff(np.repeat(np.arange(40_000), np.diff(found.indptr))) == 0] > 0).all()
        np.testing.assert_allclose(found[::40, ::40].toarray(), exact, rtol=2**-23, atol=1e-6)


def test_no_memory_names_the_bytes():
    with pytest.raises(MemoryError, match=r"no memory for \d+ bytes$"):
        _core.CooccurrenceRows(2**47)


def test_symmetric_and_its_halves():
    _, corpus = random_corpus([500, 40, 3])
    both, left, right = (
        firth.count_cooccurrences(corpus, side=side, weighting="flat").csr for side in ("both", "left", "right")
    )
    np.testing.assert_array_equal(both.toarray(), both.toarray().T)
    np.testing.assert_array_equal(left.toarray(), right.toarray().T)
    np.testing.assert_array_equal((left + right).toarray(), both.toarray())


def test_counts_beyond_two_to_the_24th_are_exact():
    """In float32 a sum of ones would stop there."""
    n = 2**24 + 3
    corpus = firth.Corpus(firth.Vocabulary(["a"]), np.zeros(n, np.int32), np.array([0, n]))
    found = firth.count_cooccurrences(corpus, window=1, side="left", weighting="flat")
    assert found.csr.data[0] == np.float32(n - 1)


def test_wikipedia_equals_glove_s_program(data):
    """The number of non-zeros that GloVe's cooccur finds in the same nine million words, at its defaults."""
    import lzma
    import re

    with lzma.open(data / "enwiki.raw.txt.xz", "rt", encoding="utf-8") as file:
        corpus = firth.Corpus.from_iterable(" ".join(re.findall("[a-z]+|[0-9]+", line.lower())) for line in file)
    found = firth.count_cooccurrences(corpus, window=10)
    assert found.csr.nnz == 28_910_348


def test_save_open_and_glove_s_files(tmp_path):
    _, corpus = random_corpus([300, 20])
    found = firth.count_cooccurrences(corpus, window=4, side="left", weighting="dynamic")
    found.save(tmp_path / "counts")
    opened = firth.load(tmp_path / "counts")
    assert same(opened, found)
    assert isinstance(opened.csr.data, np.memmap)
    assert (opened.window, opened.side, opened.weighting) == (4, "left", "dynamic")
    assert opened.vocabulary.words == corpus.vocabulary.words

    found.to_glove(tmp_path / "records")
    records = np.fromfile(tmp_path / "records", [("row", "<i4"), ("column", "<i4"), ("value", "<f8")])
    matrix = np.zeros((50, 50))
    matrix[records["row"] - 1, records["column"] - 1] = records["value"]
    np.testing.assert_array_equal(matrix, found.csr.toarray())
    records[np.random.default_rng(0).permutation(len(records))].tofile(tmp_path / "shuffled")
    assert same(counts.Cooccurrences.from_glove(tmp_path / "shuffled", corpus.vocabulary), found)
    packed = gzip.compress((tmp_path / "records").read_bytes())
    (tmp_path / "packed").write_bytes(packed)
    assert same(counts.Cooccurrences.from_glove(tmp_path / "packed", corpus.vocabulary), found)
    (tmp_path / "packed").write_bytes(packed[:-20])
    with pytest.raises(OSError, match="packed is damaged or cut short"):
        counts.Cooccurrences.from_glove(tmp_path / "packed", corpus.vocabulary)


def test_glove_s_vocabulary(tmp_path):
    corpus = firth.Corpus.from_iterable([["c", "é", "c"], ["c", "d", "d"]], min_count=1)
    found = firth.count_cooccurrences(corpus)
    found.to_glove(tmp_path / "records", vocabulary=tmp_path / "vocabulary")
    assert (tmp_path / "vocabulary").read_text(encoding="utf-8") == "c 3\nd 2\né 1\n"
    assert (tmp_path / "records").stat().st_size == 16 * found.csr.nnz


@pytest.mark.parametrize("word", ["New York", "", "a\tb", "a\n", "<unk>"])
def test_words_that_glove_s_vocabulary_cannot_hold(tmp_path, word):
    found = firth.count_cooccurrences(firth.Corpus.from_iterable([["a", word, "b"]], min_count=1))
    with pytest.raises(ValueError, match=f"white space.*it is {word!r}".replace("\\", "\\\\")):
        found.to_glove(tmp_path / "records", vocabulary=tmp_path / "vocabulary")
    assert not list(tmp_path.iterdir())
    found.to_glove(tmp_path / "records")


def test_words_that_glove_s_programs_would_cut(tmp_path):
    """They read at most 1,000 bytes of a word."""
    long = "é" * 500
    firth.count_cooccurrences(firth.Corpus.from_iterable([["a", long]], min_count=1)).to_glove(
        tmp_path / "records", vocabulary=tmp_path / "vocabulary"
    )
    found = firth.count_cooccurrences(firth.Corpus.from_iterable([["a", long + "x"]], min_count=1))
    with pytest.raises(ValueError, match=r"1,000 bytes.*é{9}") as raised:
        found.to_glove(tmp_path / "records", vocabulary=tmp_path / "vocabulary")
    assert len(str(raised.value)) < 200


def test_glove_s_records_from_a_pipe(tmp_path):
    """A pipe has no size; it was taken for a file without records."""
    _, corpus = random_corpus([30])
    found = firth.count_cooccurrences(corpus)
    found.to_glove(tmp_path / "records")
    os.mkfifo(tmp_path / "pipe")
    records = (tmp_path / "records").read_bytes()
    threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[records], daemon=True).start()
    assert same(counts.Cooccurrences.from_glove(tmp_path / "pipe", corpus.vocabulary), found)


def test_files_that_are_no_counts(tmp_path):
    _, corpus = random_corpus([30])
    (tmp_path / "odd").write_bytes(b"0" * 17)
    with pytest.raises(ValueError, match="whole records"):
        counts.Cooccurrences.from_glove(tmp_path / "odd", corpus.vocabulary)
    np.array([(1, 51, 1.0)], "<i4,<i4,<f8").tofile(tmp_path / "beyond")
    with pytest.raises(ValueError, match="record 1 names word 51 of a vocabulary of 50"):
        counts.Cooccurrences.from_glove(tmp_path / "beyond", corpus.vocabulary)
    firth.count_cooccurrences(corpus).save(tmp_path / "counts")
    tensors, metadata = files.read_tensors(tmp_path / "counts")
    for name in tensors:
        files.write_tensors(tmp_path / "cut", {k: v for k, v in tensors.items() if k != name}, metadata)
        with pytest.raises(ValueError, match="cut"):
            firth.load(tmp_path / "cut")
    falling = tensors["indptr"].copy()
    falling[5] = falling[-1]
    for change in (
        {"indptr": falling},
        {"indptr": tensors["indptr"] + 1},
        {"indices": tensors["indices"].astype(np.float32)},
        {"indices": tensors["indices"][None]},
        {"data": tensors["data"][1:]},
    ):
        files.write_tensors(tmp_path / "wrong", {**tensors, **change}, metadata)
        with pytest.raises(ValueError, match=r"wrong is a damaged .* do not fit together"):
            firth.load(tmp_path / "wrong")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"window": 0}, ValueError),
        ({"window": 2.0}, TypeError),
        ({"side": "up"}, ValueError),
        ({"weighting": "heavy"}, ValueError),
        ({"threads": 0}, ValueError),
        ({"threads": 5000}, ValueError),
        ({"memory": "1 GB"}, TypeError),
    ],
)
def test_wrong_options(options, error):
    with pytest.raises(error, match=next(iter(options))):
        firth.count_cooccurrences(corpus_of([[0, 1]]), **options)


def test_counts_of_one_s_own_are_looked_at():
    vocabulary = firth.Vocabulary(["a", "b"])
    good = sparse.csr_array(np.ones((2, 2), np.float32))
    assert firth.Cooccurrences(good, vocabulary).csr is good
    for wrong in (good.toarray(), good.astype(np.float64), good.tocsc()):
        with pytest.raises(TypeError, match="csr_array of float32"):
            firth.Cooccurrences(wrong, vocabulary)
    with pytest.raises(ValueError, match="2 by 2"):
        firth.Cooccurrences(good[:, :1], vocabulary)
    for columns in ([0, 0, 1], [1, 0, 1]):  # twice, not ascending: PMI and GloVe would take each entry for a pair
        wrong = sparse.csr_array((np.ones(3, np.float32), columns, [0, 2, 3]), shape=(2, 2))
        with pytest.raises(ValueError, match=r"ascending .*sum_duplicates"):
            firth.Cooccurrences(wrong, vocabulary)
        wrong.sum_duplicates()
        firth.Cooccurrences(wrong, vocabulary)


def test_wrong_corpora():
    with pytest.raises(TypeError, match=r"firth\.Corpus"):
        firth.count_cooccurrences([["a", "b"]])
    with pytest.raises(ValueError, match="no token"):
        firth.count_cooccurrences(firth.Corpus.from_iterable([["x"]], vocabulary=firth.Vocabulary(["a"])))


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    _, corpus = random_corpus([3000, 4000], n_words=300)
    need = 8 * firth.count_cooccurrences(corpus).csr.nnz
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = Path.open

    def full(path, mode="r", *arguments):
        file = opened(path, mode, *arguments)
        if mode == "wb":
            written = []

            class Full:
                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def write(self, piece):
                    written.append(len(piece))
                    if len(written) > 2:
                        raise OSError(errno.ENOSPC, "No space left on device")
                    return file.write(piece)

            return Full()
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="no room for the counts"):
        firth.count_cooccurrences(corpus, memory=need // 2, threads=1)
    assert not list(tmp_path.iterdir())


def test_progress_on_request(capfd):
    _, corpus = random_corpus([300])
    firth.count_cooccurrences(corpus)
    assert capfd.readouterr() == ("", "")
    firth.count_cooccurrences(corpus, progress=True)
    assert "counting" in capfd.readouterr().err
