"""Each kernel on each instruction set that runs here, and a large float32 matrix product for comparison.

    pytest benchmarks/test_kernels.py                    all threads
    taskset -c 0 pytest benchmarks/test_kernels.py       one

Every kernel is compared with a slow oracle on a small case before it is timed. No test fails because it is slow.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import firth
import reference
from firth import _core
from firth.models.word2vec import keep_thresholds
from firth.runtime import default_threads, padded_rows

THREADS = default_threads()
NEGATIVE, WINDOW, VECTOR_SIZE = 5, 5, 100


@pytest.fixture(params=[name for name in _core.available_isas() if "+" not in name])
def isa(request):
    before = _core.current_isa()
    _core.use_isa(request.param)
    yield request.param
    _core.use_isa(before)


@pytest.fixture
def timed(benchmark, capsys):
    """Time `work`, and record `amount` (of its result) per second, in units of `scale`."""

    def run(work, amount, scale, unit):
        given = benchmark.pedantic(work, rounds=5, warmup_rounds=1)
        if benchmark.stats is not None:  # None under --benchmark-disable
            rate = amount(given) / benchmark.stats.stats.median / scale
            benchmark.extra_info.update({unit: rate, "threads": THREADS})
            with capsys.disabled():
                print(f"\n{benchmark.name}: {rate:,.1f} {unit}", end=" ")
        return given

    return run


def zipf_ids(tokens, words, seed=1):
    """Ids of a text in which the word of rank r has a share of about 1 / (r + 2.7)."""
    share = 1 / (np.arange(words) + 2.7)
    return np.random.default_rng(seed).choice(words, tokens, p=share / share.sum()).astype(np.int32)


class SkipGram:
    """A random text and all arguments of the kernel."""

    def __init__(self, tokens, words, vector_size, document):
        self.ids = zipf_ids(tokens, words)
        self.offsets = np.append(np.arange(0, tokens, document), tokens)
        counts = np.bincount(self.ids, minlength=words).astype(np.float64)
        self.keep, self.noise = keep_thresholds(counts, 1e-3), _core.alias_table(counts**0.75)
        self.vectors, self.context = padded_rows(words, vector_size), padded_rows(words, vector_size)
        for matrix, seed in (self.vectors, 1), (self.context, 2):
            _core.fill_uniform(matrix, scale=0.5 / vector_size, seed=seed, threads=1)
        self.options = {
            "begin": 0, "end": tokens, "epoch": 0, "epochs": 5, "window": WINDOW, "negative": NEGATIVE,
            "learning_rate": 0.025, "min_learning_rate": 1e-4, "seed": 1, "keep": self.keep, "noise": self.noise,
            "bags": None, "paths": None, "cbow": False, "cbow_mean": True, "deterministic": False,
        }  # fmt: skip

    def train(self, threads):
        return _core.train_word2vec(
            self.vectors, self.context, ids=self.ids, offsets=self.offsets, threads=threads, **self.options
        )


def test_matrix_product(timed):
    random = np.random.default_rng(0)
    a, b = random.random((4096, 4096), np.float32), random.random((4096, 4096), np.float32)
    product = timed(lambda: a @ b, lambda _: 2 * 4096**3, 1e9, "GFLOP/s")
    np.testing.assert_allclose(product[:3, :3], a[:3].astype(float) @ b[:, :3], rtol=1e-4)


def test_skipgram(timed, isa):
    small = SkipGram(tokens=600, words=40, vector_size=20, document=37)
    vectors, context = small.vectors.astype(float), small.context.astype(float)
    documents = [small.ids[begin:end].tolist() for begin, end in itertools.pairwise(small.offsets)]
    tally = reference.word2vec(vectors, context, documents=documents, **small.options)
    assert small.train(threads=1)[:3] == (pytest.approx(tally[0], rel=1e-5), *tally[1:])
    np.testing.assert_allclose(small.vectors, vectors, atol=1e-5)
    np.testing.assert_allclose(small.context, context, atol=1e-5)

    large = SkipGram(tokens=2_000_000, words=60_000, vector_size=VECTOR_SIZE, document=500)
    # A multiply and an add for the dot product of a pair, and for the update of either of its rows.
    flops = 6 * VECTOR_SIZE * (1 + NEGATIVE)
    timed(lambda: large.train(THREADS), lambda tally: flops * tally[1], 1e9, "GFLOP/s")


def test_topk(timed, isa):
    random = np.random.default_rng(3)

    def case(rows, queries):
        matrix = padded_rows(rows, VECTOR_SIZE)
        matrix[:] = random.standard_normal((rows, VECTOR_SIZE))
        asked = random.standard_normal((queries, VECTOR_SIZE)).astype(np.float32)
        norms = _core.inverse_norms(matrix, threads=THREADS)
        return matrix, asked, lambda: _core.topk(matrix, inverse_norms=norms, queries=asked, k=10, threads=THREADS)

    matrix, asked, find = case(3000, 7)
    cosines = (asked @ matrix.T) / np.linalg.norm(asked, axis=1)[:, None] / np.linalg.norm(matrix, axis=1)
    best = np.argsort(-cosines, axis=1)[:, :10]
    rows, scores = find()
    np.testing.assert_array_equal(rows, best)
    np.testing.assert_allclose(scores, np.take_along_axis(cosines, best, axis=1), atol=1e-6)

    _, _, find = case(100_000, 256)
    timed(find, lambda _: 2 * 100_000 * 256 * VECTOR_SIZE, 1e9, "GFLOP/s")


@pytest.fixture(scope="module")
def words():
    """A text as words, two to twelve letters long."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstvz", "aeiou")]
    names = ["".join(parts) for n in (1, 2, 3) for parts in itertools.product(syllables, repeat=n)][:60_000]
    return [names[i] for i in zipf_ids(2_000_000, 60_000)]


def assert_same_text(corpus, words):
    """The corpus has every word, in its place, and the counts."""
    names, counts = np.unique(words, return_counts=True)
    assert dict(zip(corpus.vocabulary.words, corpus.vocabulary.counts.tolist(), strict=True)) == dict(
        zip(names.tolist(), counts.tolist(), strict=True)
    )
    assert [corpus.vocabulary.words[i] for i in corpus.ids] == words


def lines_of(words):
    return [words[start : start + 20] for start in range(0, len(words), 20)]


def test_counting_a_file(timed, words, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(" ".join(line) + "\n" for line in lines_of(words)))
    size = path.stat().st_size
    corpus = timed(
        lambda: firth.Corpus.from_file(path, min_count=1, threads=THREADS), lambda _: size, 1e6, "MB/s"
    )  # fmt: skip
    assert_same_text(corpus, words)


@pytest.mark.parametrize("kind", ["lists", "strings"])
def test_counting_objects(timed, words, kind):
    lines = lines_of(words)
    given = lines if kind == "lists" else [" ".join(line) for line in lines]
    corpus = timed(
        lambda: firth.Corpus.from_iterable(given, min_count=1), lambda _: len(words), 1e6, "million words/s"
    )  # fmt: skip
    assert_same_text(corpus, words)
