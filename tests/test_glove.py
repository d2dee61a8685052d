"""GloVe against the published program's arithmetic, step by step, on every instruction set, on several threads."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import sparse

import firth
import reference
from firth import _core
from firth.run import LOSS_UNITS


def random_counts(words=30, density=0.3, seed=0, most=300.0):
    random = np.random.default_rng(seed)
    matrix = sparse.random_array((words, words), density=density, rng=random, dtype=np.float32)
    matrix.data = np.exp(random.uniform(-2, np.log(most), matrix.nnz)).astype(np.float32)
    csr = sparse.csr_array(matrix)
    csr.sort_indices()
    return firth.Cooccurrences(csr, firth.Vocabulary([f"w{i}" for i in range(words)]))


def state(model):
    """The model's word and context sides as the oracle has them, in float64."""
    return [
        tuple(np.array(model._tensors[side + part], np.float64) for part in ("", "_bias", "_squares", "_bias_squares"))
        for side in ("word", "context")
    ]


def begin(counts, **options):
    model = firth.GloVe(**{"vector_size": 8, "x_max": 10.0, "threads": 1, **options})
    units, train = model._begin(counts, progress=False)
    assert units == counts.csr.nnz
    return model, train


def oracle(model, counts, word, context, epoch=0):
    options = {name: getattr(model, name) for name in ("x_max", "alpha", "learning_rate", "clip_value")}
    order = reference.glove_order(counts.csr, model.seed, epoch)
    return sum(reference.glove_step(word, context, *entry, **options) for entry in order)


@pytest.mark.parametrize("size", [1, 8, 14, 15, 30, 100, 131])
def test_kernel_equals_oracle(route, size):
    counts = random_counts()
    model, train = begin(counts, vector_size=size, threads=route.threads)
    word, context = state(model)
    for epoch in range(2):
        tally = train(0, counts.csr.nnz, epoch)
        assert tally.examples == counts.csr.nnz
        assert tally.loss / LOSS_UNITS == pytest.approx(oracle(model, counts, word, context, epoch), rel=1e-4)
    for found, exact in zip(state(model), (word, context), strict=True):
        for a, b in zip(found, exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "options", [{"clip_value": 0.01}, {"alpha": 0.0}, {"x_max": 1e4}, {"x_max": 1e-3, "learning_rate": 0.2}]
)
def test_options_reach_the_kernel(isa, options):
    counts = random_counts()
    model, train = begin(counts, **options)
    word, context = state(model)
    tally = train(0, counts.csr.nnz, 0)
    assert tally.loss / LOSS_UNITS == pytest.approx(oracle(model, counts, word, context), rel=1e-4)
    np.testing.assert_allclose(model._tensors["word"], word[0], rtol=1e-3, atol=1e-5)
    plain, train = begin(counts)
    train(0, counts.csr.nnz, 0)
    assert not np.allclose(plain._tensors["word"], word[0], rtol=1e-3, atol=1e-5)


def test_the_step_goes_down_the_gradient_of_the_cost():
    """By finite differences, in float64, of the oracle that the kernel is held against."""
    random = np.random.default_rng(1)
    word, context = [(random.normal(size=(1, 5)), random.normal(size=1), np.ones((1, 5)), np.ones(1)) for _ in range(2)]
    options = {"x_max": 10.0, "alpha": 0.75, "learning_rate": 1.0, "clip_value": np.inf}

    def cost(w):
        word_there = (w, *(part.copy() for part in word[1:]))
        return reference.glove_step(word_there, tuple(part.copy() for part in context), 0, 0, 3.0, **options)

    epsilon = 1e-6
    slope = [
        (cost(word[0] + epsilon * unit) - cost(word[0] - epsilon * unit)) / (2 * epsilon) for unit in np.eye(5)[:, None]
    ]
    before = word[0].copy()
    reference.glove_step(word, context, 0, 0, 3.0, **options)
    np.testing.assert_allclose(before[0] - word[0][0], slope, rtol=1e-6)


def test_tiles_of_several_slices():
    """A tile of more than 4,096 non-zeros is dealt out; every one is used once."""
    counts = random_counts(words=700, density=0.9, seed=2)
    model, train = begin(counts, vector_size=2)
    word, context = state(model)
    assert train(0, counts.csr.nnz, 0).examples == counts.csr.nnz
    few = reference.glove_order(counts.csr, model.seed, 0)
    assert len(few) == len(set(few)) == counts.csr.nnz
    oracle(model, counts, word, context)
    np.testing.assert_allclose(model._tensors["word"], word[0], rtol=1e-3, atol=1e-4)


def test_same_bits_at_any_number_of_threads_and_any_cut(route):
    counts = random_counts(words=2000, density=0.1, seed=3)
    whole, train = begin(counts, vector_size=20)
    tally = train(0, counts.csr.nnz, 0)
    cut, train = begin(counts, vector_size=20, threads=route.threads)
    loss = 0
    borders = [0, 1, 5000, 5001, 100_000, counts.csr.nnz]
    for start, end in itertools.pairwise(borders):
        loss += train(start, end, 0).loss
    assert loss == tally.loss
    for name, tensor in whole._tensors.items():
        assert tensor.tobytes() == cut._tensors[name].tobytes()


def test_same_bits_with_more_threads_than_processors():
    counts = random_counts(words=1500, density=0.1, seed=3)
    alone, train = begin(counts, vector_size=20, threads=1)
    tally = train(0, counts.csr.nnz, 0)
    for threads in (2, 3, 8, 64):
        model, train = begin(counts, vector_size=20, threads=threads)
        assert train(0, counts.csr.nnz, 0) == tally
        for name, tensor in alone._tensors.items():
            assert tensor.tobytes() == model._tensors[name].tobytes()


def test_threads_keep_the_order_of_slices_that_share_a_block():
    counts = random_counts(words=1500, density=0.2, seed=3)
    csr, size = counts.csr, 20
    tiles = _core.GloveTiles(csr.indptr.astype(np.int64), csr.indices, csr.data, seed=1, threads=2)
    slices = tiles.slices(0)
    assert slices[:, 2].sum() == csr.nnz
    words, contexts = np.ones((2, 1500, 64), np.float32)
    _core.start_trace()
    options = {"vector_size": size, "x_max": 10.0, "alpha": 0.75, "learning_rate": 0.01, "clip_value": 1.0}
    tiles.train(words, contexts, **options, begin=0, end=csr.nnz, epoch=0, threads=2)
    trace = sorted(_core.stop_trace(), key=lambda one: one[1])
    assert [item for _, item, *_ in trace] == list(range(len(slices)))
    starts, ends = np.array([one[3:5] for one in trace]).T
    for side in (0, 1):
        for block in range(slices[:, side].max() + 1):
            own = np.flatnonzero(slices[:, side] == block)
            assert (starts[own][1:] >= ends[own][:-1]).all()


def test_a_large_matrix_has_slices_for_more_threads():
    csr = random_counts(words=3000, density=0.95, seed=6).csr
    assert csr.nnz > _core.GLOVE_LEAST_BLOCKS**2 * _core.GLOVE_TILE_ENTRIES
    slices = _core.GloveTiles(csr.indptr.astype(np.int64), csr.indices, csr.data, seed=1, threads=1).slices(0)
    blocks = 1 + max(reference.glove_blocks(np.diff(csr.indptr).tolist()))
    assert slices[:, 0].max() + 1 == blocks > _core.GLOVE_LEAST_BLOCKS


def test_no_cut_shows_in_a_great_loss():
    """Beyond 2^23 nats a sum of multiples of 2^-30 is no float64 any more."""
    counts = random_counts(words=700, density=0.9, seed=2, most=1e30)
    losses = []
    for borders in ([0, counts.csr.nnz], [0, 100_000, 200_000, 201_000, counts.csr.nnz]):
        _, train = begin(counts, vector_size=2, learning_rate=1e-4)
        losses.append(sum(train(start, end, 0).loss for start, end in itertools.pairwise(borders)))
    assert losses[0] == losses[1] > LOSS_UNITS * 2**24
    assert losses[0] % LOSS_UNITS


def test_one_sided_counts_and_wide_indices():
    random = np.random.default_rng(5)
    corpus = firth.Corpus.from_iterable([[f"w{i}" for i in random.zipf(1.4, 500) % 90] for _ in range(20)], min_count=1)
    counts = firth.count_cooccurrences(corpus, side="left")
    model = firth.GloVe(vector_size=6, side="left", epochs=2).fit(corpus)
    csr = counts.csr
    wide = sparse.csr_array(csr.shape, dtype=np.float32)
    wide.data, wide.indices, wide.indptr = csr.data, csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
    same = firth.GloVe(vector_size=6, epochs=2).fit(dataclasses.replace(counts, csr=wide))
    assert model.vectors.matrix.tobytes() == same.vectors.matrix.tobytes()


def test_a_planted_model_is_found():
    """Counts drawn from vectors and biases: the cost falls near zero, and the logarithms are met."""
    random = np.random.default_rng(4)
    w, c = random.normal(size=(2, 60, 4)) * 0.7
    b, d = random.normal(size=(2, 60, 1)) * 0.5
    x = np.exp(w @ c.T + b + d.T).astype(np.float32)
    counts = firth.Cooccurrences(sparse.csr_array(x), firth.Vocabulary([f"w{i}" for i in range(60)]))
    model = firth.GloVe(vector_size=4, x_max=1.0, epochs=200).fit(counts)
    found = model._tensors["word"] @ model._tensors["context"].T
    found = found + model._tensors["word_bias"][:, None] + model._tensors["context_bias"]
    assert model.history[-1].loss < 1e-3 * model.history[0].loss
    assert np.abs(found - np.log(x)).mean() < 0.05


def test_sum_or_word_vectors():
    counts = random_counts()
    both = firth.GloVe(vector_size=5, epochs=2).fit(counts)
    word = firth.GloVe(vector_size=5, epochs=2, output="word").fit(counts)
    np.testing.assert_array_equal(both.vectors.matrix, word.vectors.matrix + word.context)
    np.testing.assert_array_equal(both.context, word.context)
    with pytest.raises(AttributeError, match="fit"):
        _ = firth.GloVe().context


def test_divergence_names_the_epoch_and_keeps_the_vectors():
    counts = random_counts()
    model = firth.GloVe(vector_size=5, epochs=3, learning_rate=1e30, clip_value=3e38, x_max=1.0)
    with pytest.raises(FloatingPointError, match=r"epoch 1.* The vectors are those at the start"):
        model.fit(counts)
    assert np.isfinite(model.vectors.matrix).all()


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.inf, np.nan, 1e-40])
def test_counts_without_a_logarithm(wrong):
    counts = random_counts()
    at = counts.csr.indptr[7]
    counts.csr.data[at] = wrong
    shown = f"{np.float32(wrong):g}"
    with pytest.raises(ValueError, match=f"row 7, column {counts.csr.indices[at]} is {shown}; only a positive number"):
        firth.GloVe(vector_size=4).fit(counts)


def test_damaged_matrices():
    counts = random_counts()
    counts.csr.indices[3] = 30
    with pytest.raises(ValueError, match="column 30 lies outside of a matrix of 30 words"):
        firth.GloVe(vector_size=4).fit(counts)
    good = random_counts().csr
    indptr = good.indptr.astype(np.int64)
    for at, value in ((0, 1), (-1, good.nnz - 1), (5, good.nnz)):
        bad = indptr.copy()
        bad[at] = value
        with pytest.raises(ValueError, match=r"indptr|before it begins"):
            _core.GloveTiles(bad, good.indices, good.data, seed=1, threads=1)


def test_nothing_stands_near_anything():
    with pytest.raises(ValueError, match="near each other"):
        firth.GloVe().fit(firth.Corpus.from_iterable([["a"], ["b"]], min_count=1))


def test_estimate_memory():
    counts = random_counts()
    sizes = firth.GloVe(vector_size=100).estimate_memory(counts)
    assert sizes["counts"] == counts.csr.data.nbytes + counts.csr.indices.nbytes + 8 * 30
    assert sizes["matrices"] == 30 * 4 * 112 * 4
    assert sizes["entries"] == 8 * counts.csr.nnz
    assert sizes["total"] == sum(size for name, size in sizes.items() if name != "total")
