"""Product quantization: the nearest centroids exactly, and how much of a matrix survives."""

from __future__ import annotations

import numpy as np
import pytest

import reference
from firth import _core, quantization
from firth.quantization import CENTROIDS, ProductQuantizer, QuantizedMatrix


def random_rows(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def error(matrix, decoded):
    return float(((matrix.astype(np.float64) - decoded) ** 2).mean())


# ---- the kernel


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 17])
@pytest.mark.parametrize("n", [1, 15, 64, 65, 1000])
def test_nearest_centroids_equal_oracle(isa, n, size):
    points, centroids = random_rows(n, size), random_rows(CENTROIDS, size, 1)
    codes = _core.nearest_centroids(points, centroids=centroids)
    distances = reference.squared_distances(points, centroids)
    assert codes.dtype == np.uint8
    found = np.take_along_axis(distances, codes[:, None].astype(int), 1)[:, 0]
    np.testing.assert_allclose(found, distances.min(axis=1), rtol=1e-5)


@pytest.mark.parametrize("k", [1, 3, 255, 256])
def test_of_equally_near_centroids_the_first_is_taken(isa, k):
    random = np.random.default_rng(k)
    points, centroids = (random.integers(-4, 5, (n, 2)).astype(np.float32) for n in (500, k))  # distances are exact
    codes = _core.nearest_centroids(points, centroids=centroids)
    np.testing.assert_array_equal(codes, reference.squared_distances(points, centroids).argmin(axis=1))


def test_points_may_be_columns_of_a_matrix(isa):
    matrix, centroids = random_rows(300, 10), random_rows(CENTROIDS, 3, 1)
    codes = _core.nearest_centroids(matrix[:, 4:7], centroids=centroids)
    np.testing.assert_array_equal(codes, _core.nearest_centroids(matrix[:, 4:7].copy(), centroids=centroids))


def test_the_kernel_refuses_what_does_not_fit():
    points = random_rows(5, 2)
    for centroids, message in (
        (random_rows(3, 4), "as many columns, at least 1: not 2 and 4"),
        (random_rows(257, 2), "1 to 256 centroids, not 257"),
        (random_rows(0, 2), "1 to 256 centroids, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.nearest_centroids(points, centroids=centroids)


# ---- learning


def test_uniform_numbers_are_quantized_nearly_as_well_as_can_be():
    """256 equal steps are best and leave a step's square / 12; from random starts, 25 rounds leave less than twice."""
    matrix = np.random.default_rng(0).uniform(size=(20_000, 2)).astype(np.float32)
    quantizer = ProductQuantizer.fit(matrix, 1)
    assert 1 / CENTROIDS**2 / 12 < error(matrix, quantizer.decode(quantizer.encode(matrix))) < 2 / CENTROIDS**2 / 12


@pytest.mark.parametrize(("columns", "part_size"), [(6, 1), (6, 2), (7, 3), (5, 8)])
def test_few_rows_come_back_whole(columns, part_size):
    for rows in (1, 100, CENTROIDS):
        matrix = random_rows(rows, columns)
        quantizer = ProductQuantizer.fit(matrix, part_size)
        codes = quantizer.encode(matrix)
        assert codes.shape == (rows, -(-columns // part_size))
        np.testing.assert_array_equal(quantizer.decode(codes), matrix)


def test_parts_are_quantized_apart():
    """Shuffling the rows of one part leaves its codes as they were."""
    matrix = random_rows(2000, 6)
    quantizer = ProductQuantizer.fit(matrix, 4)
    codes = quantizer.encode(matrix)
    assert quantizer.part(0)[0] == slice(0, 4)
    assert quantizer.part(1)[0] == slice(4, 6)
    for i in range(2):
        span, centroids = quantizer.part(i)
        nearest = reference.squared_distances(matrix[:, span], centroids).min(axis=1)
        found = ((matrix[:, span].astype(np.float64) - centroids[codes[:, i]]) ** 2).sum(axis=1)
        np.testing.assert_allclose(found, nearest, rtol=1e-5, atol=1e-12)
    np.testing.assert_array_equal(quantizer.centroids[: 4 * CENTROIDS], quantizer.part(0)[1].ravel())


def test_rounds_bring_the_error_down():
    matrix = random_rows(5000, 2)
    fitted = ProductQuantizer.fit(matrix, 2)
    drawn = ProductQuantizer(2, 2, matrix[:CENTROIDS].ravel())
    assert error(matrix, fitted.decode(fitted.encode(matrix))) < 0.8 * error(matrix, drawn.decode(drawn.encode(matrix)))


def test_centroids_without_points_are_put_to_use():
    """A hundred different rows: whatever is drawn first, each comes to have a centroid."""
    matrix = np.repeat(random_rows(100, 2), 10, axis=0)
    quantizer = ProductQuantizer.fit(matrix, 2)
    assert error(matrix, quantizer.decode(quantizer.encode(matrix))) < 1e-12


def test_an_empty_cluster_takes_half_of_another():
    centroids, sizes = np.zeros((4, 3), np.float32), np.array([0, 5, 1, 0])
    quantization._split(centroids, sizes, 0, np.random.default_rng(0))
    assert sizes.tolist() == [2, 3, 1, 0]  # of a single point there is nothing to take
    np.testing.assert_array_equal(centroids[0], -centroids[1])
    assert (centroids[0] != 0).all()
    quantization._split(centroids, sizes, 3, np.random.default_rng(0))
    assert sizes.sum() == 6
    assert sizes.min() == 1
    assert len(np.unique(centroids[[0, 1, 3]], axis=0)) == 3


def test_of_many_rows_some_are_drawn(monkeypatch):
    monkeypatch.setattr("firth.quantization._POINTS", 500)
    matrix = random_rows(3000, 4)
    some = ProductQuantizer.fit(matrix)
    monkeypatch.undo()
    every = ProductQuantizer.fit(matrix)
    errors = [error(matrix, one.decode(one.encode(matrix))) for one in (every, some)]
    assert errors[0] < errors[1] < 4 * errors[0]


def test_the_seed_alone_decides():
    matrix = random_rows(3000, 4)
    first = ProductQuantizer.fit(matrix, threads=1)
    np.testing.assert_array_equal(ProductQuantizer.fit(matrix, threads=3).centroids, first.centroids)
    assert (ProductQuantizer.fit(matrix, seed=2).centroids != first.centroids).any()
    np.testing.assert_array_equal(first.encode(matrix, threads=3), first.encode(matrix, threads=1))


def test_blocks_do_not_show(monkeypatch):
    matrix = random_rows(1000, 6)
    quantizer = ProductQuantizer.fit(matrix, 4)
    codes = quantizer.encode(matrix)
    decoded = quantizer.decode(codes)
    monkeypatch.setattr("firth.quantization._BLOCK", 100)
    np.testing.assert_array_equal(quantizer.encode(matrix), codes)
    np.testing.assert_array_equal(quantizer.decode(codes), decoded)
    unaligned = np.frombuffer(b"x" + matrix.tobytes(), np.float32, matrix.size, 1).reshape(matrix.shape)
    assert not unaligned.flags.aligned
    np.testing.assert_array_equal(quantizer.encode(unaligned), codes)
    whole = ProductQuantizer.fit(unaligned, 6)  # a single part, of which no copy is made by the way
    np.testing.assert_array_equal(whole.encode(unaligned), whole.encode(matrix))


# ---- matrices


def test_lengths_are_kept_apart():
    matrix = random_rows(200, 6) * np.arange(200, dtype=np.float32)[:, None]  # the first row is 0
    quantized = QuantizedMatrix.of(matrix, norms=True)
    assert quantized.shape == (200, 6)
    np.testing.assert_allclose(quantized.rows(slice(None)), matrix, rtol=1e-5)
    np.testing.assert_allclose(quantized.rows(np.array([7, 0, 7])), matrix[[7, 0, 7]], rtol=1e-5)
    many = random_rows(3000, 6) * np.exp(random_rows(3000, 1, 1))
    errors = [error(many, QuantizedMatrix.of(many, norms=norms).rows(slice(None))) for norms in (False, True)]
    assert errors[1] < errors[0]
    assert QuantizedMatrix.of(many).norm_codes is None


def test_what_does_not_fit_is_refused():
    matrix = random_rows(300, 4)
    bad = matrix.copy()
    bad[7, 2] = np.nan
    quantizer = ProductQuantizer.fit(matrix)
    for call, message in (
        (lambda: ProductQuantizer.fit(bad), "row 7 is not finite"),
        (lambda: quantizer.encode(bad), "row 7 is not finite"),
        (lambda: QuantizedMatrix.of(bad, norms=True), "row 7 is not finite"),
        (lambda: ProductQuantizer.fit(matrix[:0]), "a row and a column or more"),
        (lambda: ProductQuantizer.fit(matrix.astype(np.float64)), "must be float32"),
        (lambda: ProductQuantizer.fit(matrix, 0), "part_size must be at least 1"),
        (lambda: ProductQuantizer.fit(matrix, threads=0), "threads must be at least 1"),
        (lambda: quantizer.encode(matrix[:, :3]), "must be float32 of 4 columns"),
        (lambda: quantizer.decode(np.zeros((3, 3), np.uint8)), "must be uint8 of 2 columns"),
        (lambda: ProductQuantizer(4, 2, np.zeros(10, np.float32)), "centroids must be 1024 float32"),
        (lambda: QuantizedMatrix(np.zeros((3, 3), np.uint8), quantizer), "codes must be uint8 of 2 columns"),
        (lambda: QuantizedMatrix(np.zeros((3, 2), np.uint8), quantizer, np.zeros(3, np.uint8)), "need norm_quantizer"),
        (
            lambda: QuantizedMatrix(np.zeros((3, 2), np.uint8), quantizer, np.zeros(3, np.uint8), quantizer),
            "norms have one dimension, not 4",
        ),
        (
            lambda: QuantizedMatrix(
                np.zeros((3, 2), np.uint8), quantizer, np.zeros(2, np.uint8), ProductQuantizer.fit(matrix[:, :1], 1)
            ),
            "norm_codes must be 3 uint8",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
