"""Product quantization: each sub-vector is stored as one byte."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firth import _core
from firth.checks import refuse_masked, whole_number
from firth.runtime import thread_count

Matrix = NDArray[np.float32]
Codes = NDArray[np.uint8]

CENTROIDS = 256  # values of a byte
_POINTS = 256 * CENTROIDS  # training points of a part, at most
_ITERATIONS = 25
_APART = np.float32(1e-7)  # distance between the halves of a split cluster
_BLOCK = 1 << 22  # numbers encoded or decoded at once


@dataclass(frozen=True, eq=False)
class ProductQuantizer:
    """Vectors cut into sub-vectors, with 256 centroids for each; the number of the nearest one is stored, in a byte.

    Parameters
    ----------
    vector_size, part_size
        Dimensions of a vector and of a sub-vector; the last one has the remaining dimensions.
    centroids
        float32 (256 * vector_size,): part by part, the numbers of each centroid together, as in fastText's files.

    References
    ----------
    Jégou, Douze & Schmid (2011): "Product quantization for nearest neighbor search", section 2.2.
    Joulin et al. (2016): "FastText.zip: compressing text classification models", section 3.1.
    """

    vector_size: int
    part_size: int
    centroids: Matrix

    def __post_init__(self) -> None:
        size = whole_number("vector_size", self.vector_size, low=1)
        whole_number("part_size", self.part_size, low=1)
        if self.centroids.dtype != np.float32 or self.centroids.shape != (CENTROIDS * size,):
            raise ValueError(
                f"centroids must be {CENTROIDS * size} float32, 256 for each of {size} coordinates, "
                f"not {self.centroids.dtype} of shape {self.centroids.shape}"
            )

    @property
    def n_parts(self) -> int:
        """Sub-vectors of a vector: the bytes that it takes."""
        return -(-self.vector_size // self.part_size)

    def part(self, i: int) -> tuple[slice, Matrix]:
        """Coordinates of part i, and a view of its centroids (256, dimensions of the part)."""
        begin = i * self.part_size
        end = min(begin + self.part_size, self.vector_size)
        return slice(begin, end), self.centroids[CENTROIDS * begin : CENTROIDS * end].reshape(CENTROIDS, end - begin)

    @classmethod
    def fit(cls, matrix: Matrix, part_size: int = 2, *, seed: int = 1, threads: int | None = None) -> ProductQuantizer:
        """Train centroids by k-means, part by part, on a matrix of float32 (rows, vector_size).

        At most 65,536 rows are drawn for each part. 25 rounds of Lloyd's algorithm start from distinct rows, as in
        fastText. A centroid without points takes half of another cluster, drawn in proportion to its size. With fewer
        than 256 rows, which fastText refuses, each is a centroid. The result does not depend on `threads`. ValueError
        if a row is not finite.
        """
        size = whole_number("part_size", part_size, low=1)
        refuse_masked("matrix", matrix)
        if matrix.ndim != 2 or matrix.dtype != np.float32 or 0 in matrix.shape:
            raise ValueError(
                f"matrix must be float32 with a row and a column or more, not {matrix.dtype} {matrix.shape}"
            )
        _check_finite(matrix)
        rows, columns = matrix.shape
        workers = thread_count(threads)
        self = cls(columns, size, np.empty(CENTROIDS * columns, np.float32))
        seed = whole_number("seed", seed)

        def train(i: int) -> None:
            rng = np.random.default_rng((seed, i))
            span, centroids = self.part(i)
            drawn = rng.choice(rows, _POINTS, replace=False) if rows > _POINTS else rng.permutation(rows)
            centroids[:] = _k_means(np.ascontiguousarray(matrix[drawn, span]), rng)

        # A round takes about a millisecond, too little to divide: each thread takes whole parts.
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(train, range(self.n_parts)))
        return self

    def encode(self, matrix: Matrix, *, threads: int | None = None) -> Codes:
        """Codes of vectors (rows, vector_size): the numbers of the nearest centroids, uint8 (rows, n_parts)."""
        refuse_masked("matrix", matrix)
        if matrix.ndim != 2 or matrix.dtype != np.float32 or matrix.shape[1] != self.vector_size:
            raise ValueError(f"matrix must be float32 of {self.vector_size} columns, not {matrix.dtype} {matrix.shape}")
        _check_finite(matrix)
        workers = thread_count(threads)
        codes = np.empty((len(matrix), self.n_parts), np.uint8)

        def encode_part(i: int) -> None:
            span, centroids = self.part(i)
            for begin, end in _blocks(*matrix.shape):
                points = np.require(matrix[begin:end, span], requirements=["C", "A"])
                codes[begin:end, i] = _core.nearest_centroids(points, centroids=centroids)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(encode_part, range(self.n_parts)))
        return codes

    def check_codes(self, codes: Codes) -> None:
        """ValueError if codes have another type or shape."""
        refuse_masked("codes", codes)
        if codes.ndim != 2 or codes.dtype != np.uint8 or codes.shape[1] != self.n_parts:
            raise ValueError(f"codes must be uint8 of {self.n_parts} columns, not {codes.dtype} {codes.shape}")

    def decode(self, codes: Codes) -> Matrix:
        """Vectors composed of the centroids of codes (rows, n_parts): float32 (rows, vector_size)."""
        self.check_codes(codes)
        matrix = np.empty((len(codes), self.vector_size), np.float32)
        for begin, end in _blocks(*matrix.shape):
            for i in range(self.n_parts):
                span, centroids = self.part(i)
                matrix[begin:end, span] = centroids[codes[begin:end, i]]
        return matrix


@dataclass(frozen=True, eq=False)
class QuantizedMatrix:
    """A matrix stored as codes: of its rows, or of their directions and norms separately."""

    codes: Codes  # (rows, parts)
    quantizer: ProductQuantizer
    norm_codes: Codes | None = None  # (rows,), of the norms by which decoded rows are multiplied
    norm_quantizer: ProductQuantizer | None = None  # of one dimension

    def __post_init__(self) -> None:
        self.quantizer.check_codes(self.codes)
        if (self.norm_codes is None) != (self.norm_quantizer is None):
            raise ValueError("norm_codes need norm_quantizer, and the reverse: give both or neither")
        if self.norm_codes is not None and self.norm_quantizer is not None:
            if self.norm_quantizer.vector_size != 1:
                raise ValueError(f"norms have one dimension, not {self.norm_quantizer.vector_size}")
            if self.norm_codes.dtype != np.uint8 or self.norm_codes.shape != self.codes.shape[:1]:
                raise ValueError(
                    f"norm_codes must be {len(self.codes)} uint8, not {self.norm_codes.dtype} {self.norm_codes.shape}"
                )

    @classmethod
    def of(
        cls, matrix: Matrix, part_size: int = 2, *, norms: bool = False, seed: int = 1, threads: int | None = None
    ) -> QuantizedMatrix:
        """Quantize a matrix of float32 (rows, vector_size), `part_size` dimensions in each byte.

        With `norms`, norms are stored separately, in one more byte for each row. See `ProductQuantizer.fit`.
        """
        if not norms:
            quantizer = ProductQuantizer.fit(matrix, part_size, seed=seed, threads=threads)
            return cls(quantizer.encode(matrix, threads=threads), quantizer)
        lengths: Matrix = np.linalg.norm(matrix, axis=1, keepdims=True).astype(np.float32)
        length_quantizer = ProductQuantizer.fit(lengths, 1, seed=seed, threads=threads)
        directions: Matrix = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
        quantizer = ProductQuantizer.fit(directions, part_size, seed=seed, threads=threads)
        return cls(
            quantizer.encode(directions, threads=threads),
            quantizer,
            length_quantizer.encode(lengths, threads=threads)[:, 0],
            length_quantizer,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return len(self.codes), self.quantizer.vector_size

    def rows(self, rows: NDArray[np.int64] | slice) -> Matrix:
        """Some rows, decoded: float32 (n, vector_size)."""
        decoded = self.quantizer.decode(self.codes[rows])
        if self.norm_codes is not None and self.norm_quantizer is not None:
            with np.errstate(over="ignore", invalid="ignore"):  # codes of a file may decode to anything
                decoded *= self.norm_quantizer.centroids[self.norm_codes[rows], None]
        return decoded

    def first(self, n: int) -> QuantizedMatrix:
        """The matrix of the first n rows."""
        norms = None if self.norm_codes is None else self.norm_codes[:n]
        return QuantizedMatrix(self.codes[:n], self.quantizer, norms, self.norm_quantizer)


def _k_means(points: Matrix, rng: np.random.Generator) -> Matrix:
    """256 centroids (256, d) of points (n, d) in random order."""
    n = len(points)
    if n <= CENTROIDS:
        return points[np.arange(CENTROIDS) % n]
    centroids = points[:CENTROIDS].copy()
    for _ in range(_ITERATIONS):
        codes = _core.nearest_centroids(points, centroids=centroids)
        sizes = np.bincount(codes, minlength=CENTROIDS)
        full = sizes > 0
        for d in range(points.shape[1]):
            sums = np.bincount(codes, points[:, d], CENTROIDS)
            centroids[full, d] = sums[full] / sizes[full]
        for empty in np.flatnonzero(~full).tolist():
            _split(centroids, sizes, empty, rng)
    return centroids


def _split(centroids: Matrix, sizes: NDArray[np.int64], empty: int, rng: np.random.Generator) -> None:
    """Give an empty cluster half of another one of at least two points, drawn in proportion to its size."""
    chances = np.cumsum(np.maximum(sizes - 1, 0))
    other = int(np.searchsorted(chances, rng.integers(chances[-1]), side="right"))
    # Opposite shifts in neighboring coordinates: the next round separates the points on either side.
    shift = _APART * np.where(np.arange(centroids.shape[1]) % 2, 1, -1).astype(np.float32)
    centroids[empty] = centroids[other] + shift
    centroids[other] -= shift
    sizes[empty] = sizes[other] // 2
    sizes[other] -= sizes[empty]


def _blocks(rows: int, columns: int) -> list[tuple[int, int]]:
    step = max(1, _BLOCK // columns)
    return [(begin, min(begin + step, rows)) for begin in range(0, rows, step)]


def _check_finite(matrix: Matrix) -> None:
    for begin, end in _blocks(*matrix.shape):
        bad = np.flatnonzero(~np.isfinite(matrix[begin:end]).all(axis=1))
        if len(bad):
            raise ValueError(f"row {begin + int(bad[0])} is not finite: it cannot be quantized")
