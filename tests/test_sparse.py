"""The product of a sparse matrix with a dense one, against float64."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from firth import _core
from firth.runtime import padded_rows


def random_csr(rows, columns, density=0.1, seed=0):
    """Rows of very different lengths, some of them empty."""
    rng = np.random.default_rng(seed)
    share = np.minimum(density * rng.exponential(size=(rows, 1)), 1) * (rng.random((rows, 1)) < 0.8)
    dense = np.where(rng.random((rows, columns)) < share, rng.standard_normal((rows, columns)), 0)
    return sparse.csr_array(dense.astype(np.float32))


def times(matrix, dense, out, threads=1, kernel=_core.sparse_times_dense):
    kernel(
        out,
        indptr=matrix.indptr.astype(np.int64),
        indices=matrix.indices,
        data=matrix.data,
        dense=dense,
        threads=threads,
    )
    return out


def agrees(matrix, dense, out):
    """Whether it errs by no more than naive float32 sums may."""
    exact = matrix.astype(np.float64) @ dense.astype(np.float64)
    magnitude = abs(matrix).astype(np.float64) @ abs(dense).astype(np.float64)
    terms = np.diff(matrix.indptr)[:, None] + 1
    return (abs(out - exact) <= terms * 2**-24 * magnitude).all()


@pytest.mark.parametrize("width", [*range(1, 36), 47, 64, 96, 112, 127, 128, 129, 144, 160, 240, 256, 272, 300])
def test_every_width(isa, width):
    matrix = random_csr(60, 80)
    rng = np.random.default_rng(width)
    dense, out = padded_rows(80, width), padded_rows(60, width)
    dense[:] = rng.standard_normal(dense.shape)
    out[:] = np.nan
    assert agrees(matrix, dense, times(matrix, dense, out))
    transposed = times(matrix.T.tocsr(), dense, padded_rows(60, width), kernel=_core.sparse_transposed_times_dense)
    assert transposed.tobytes() == out.tobytes()


@pytest.mark.parametrize("stride", [37, 41, 48])
def test_nothing_is_read_or_written_between_rows(isa, stride):
    matrix = random_csr(50, 30)
    dense = np.full((30, stride), np.nan, np.float32)[:, :37]
    dense[:] = np.random.default_rng(1).standard_normal(dense.shape)
    for kernel, factor in ((_core.sparse_times_dense, matrix), (_core.sparse_transposed_times_dense, matrix.T.tocsr())):
        whole = np.full((50, stride + 5), 7, np.float32)
        assert agrees(matrix, dense, times(factor, dense, whole[:, 2:39], kernel=kernel))
        assert (whole[:, :2] == 7).all()
        assert (whole[:, 39:] == 7).all()


def test_same_bits_for_any_threads(route):
    """Enough work for every thread to be started, most of it in few rows."""
    matrix = random_csr(3000, 500, density=0.2)
    dense = np.random.default_rng(2).standard_normal((500, 45)).astype(np.float32)
    one = times(matrix, dense, padded_rows(3000, 45))
    assert agrees(matrix, dense, one)
    out = padded_rows(3000, 45)
    out[:] = np.nan
    assert times(matrix, dense, out, route.threads).tobytes() == one.tobytes()
    out[:] = np.nan
    times(matrix.T.tocsr(), dense, out, route.threads, _core.sparse_transposed_times_dense)
    assert out.tobytes() == one.tobytes()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (5, 7)])
def test_empty_matrices(isa, shape):
    out = np.full((shape[0], 20), 7, np.float32)
    dense = np.ones((shape[1], 20), np.float32)
    assert not times(sparse.csr_array(shape, dtype=np.float32), dense, out, threads=2).any()
    out[:] = 7
    empty = sparse.csr_array(shape[::-1], dtype=np.float32)
    assert not times(empty, dense, out, threads=2, kernel=_core.sparse_transposed_times_dense).any()


def test_non_finite_numbers_stay_in_their_rows(isa):
    matrix = sparse.csr_array(np.array([[0, 1, 0], [2, 0, 0], [1, 1, 1]], np.float32))
    dense = np.ones((3, 21), np.float32)
    dense[1] = np.inf
    dense[2] = np.nan
    out = times(matrix, dense, padded_rows(3, 21))
    assert np.isposinf(out[0]).all()
    assert (out[1] == 2).all()
    assert np.isnan(out[2]).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"indices": np.array([0, 1, 4], np.int32)}, r"indices\[2\] = 4 must lie in 0 .. 3"),
        ({"indices": np.array([0, -1, 1], np.int32)}, r"indices\[1\] = -1"),
        ({"indptr": np.array([0, 2, 1, 3])}, r"indptr\[2\] is below"),
        ({"indptr": np.array([1, 1, 2, 3])}, "run from 0"),
        ({"indptr": np.array([0, 1, 2, 2])}, "run from 0"),
        ({"indptr": np.array([0, 1, 3])}, "indptr must have 4 elements"),
        ({"data": np.ones(2, np.float32)}, "data must have 3 elements"),
        ({"dense": np.ones((4, 6), np.float32)}, "equally many columns, not 5 and 6"),
        ({"threads": 0}, "threads"),
    ],
)
def test_refusals(change, says):
    right = {
        "indptr": np.array([0, 1, 2, 3]),
        "indices": np.array([0, 1, 3], np.int32),
        "data": np.ones(3, np.float32),
        "dense": np.ones((4, 5), np.float32),
        "threads": 1,
    }
    out = np.zeros((3, 5), np.float32)
    with pytest.raises(ValueError, match=says):
        _core.sparse_times_dense(out, **{**right, **change})
    assert not out.any()
    _core.sparse_times_dense(out, **right)
    assert out.all()


def test_transposed_wants_ascending_columns():
    rng = np.random.default_rng(4)
    matrix = random_csr(40, 30, density=0.3)
    out, dense = padded_rows(30, 5), padded_rows(40, 5)
    times(matrix, dense, out, kernel=_core.sparse_transposed_times_dense)
    row = int(np.diff(matrix.indptr).argmax())
    at = matrix.indptr[row] + int(rng.integers(1, matrix.indptr[row + 1] - matrix.indptr[row]))
    matrix.indices[[at - 1, at]] = matrix.indices[[at, at - 1]]
    for threads in (1, 2, 3, 50):
        with pytest.raises(ValueError, match=rf"indices\[{at}\] is below the one before it in its row"):
            times(matrix, dense, out, threads, _core.sparse_transposed_times_dense)
    times(matrix, padded_rows(30, 5), padded_rows(40, 5))  # the other does not mind


def test_overlap_and_other_types_are_refused():
    whole = np.zeros((7, 5), np.float32)
    rest = {"indptr": np.array([0, 0, 0]), "indices": np.empty(0, np.int32), "data": np.empty(0, np.float32)}
    with pytest.raises(ValueError, match="overlap"):
        _core.sparse_times_dense(whole[:2], dense=whole[1:], threads=1, **rest)
    _core.sparse_times_dense(whole[:2], dense=whole[2:], threads=1, **rest)
    with pytest.raises(TypeError):
        _core.sparse_times_dense(whole[:2], dense=np.ones((4, 5)), threads=1, **rest)
