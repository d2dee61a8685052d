"""The trained state of a classifier, and its files: firth's own, and fastText's .bin and .ftz."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firth import _core, fasttext_format, files
from firth.checks import finite, whole_number
from firth.quantization import CENTROIDS, ProductQuantizer, QuantizedMatrix
from firth.runtime import padded_rows

Matrix = NDArray[np.float32]

ZERO, ABSENT = -1, -2  # instead of a row number: a row of zeros, which counts in the mean; no row
_BLOCK = 1 << 16  # rows read or written at once


@dataclasses.dataclass(eq=False, kw_only=True)
class Trained:
    """The result of training a classifier.

    A feature is the position of a word, or len(words) + the bucket of an n-gram. Every word has a row. A matrix of a
    quantized classifier is decoded; the second of `quantized` is None if the vectors of labels are not quantized.
    """

    words: list[str]  # the most frequent first, as labels are
    labels: list[Any]
    counts: NDArray[np.int64]  # of the words and then of the labels
    n_tokens: int  # of the training text, labels and rare words included
    buckets: int
    features: NDArray[np.int64]  # of each row
    rows: Matrix  # (features, vector_size), padded
    outputs: Matrix  # (labels, vector_size), padded; with a tree, the last row is not used
    missing: int = ZERO  # the row number of n-grams without a row: `ZERO` or `ABSENT`
    of_fasttext: bool = False  # whether texts are read as fastText does
    quantized: tuple[QuantizedMatrix, QuantizedMatrix | None] | None = None

    @cached_property
    def index(self) -> dict[str, int]:
        """The position of each word."""
        return {word: i for i, word in enumerate(self.words)}

    @cached_property
    def row_of(self) -> NDArray[np.int32]:
        """The row of each feature."""
        places = np.full(len(self.words) + self.buckets, self.missing, np.int32)
        places[self.features] = np.arange(len(self.features), dtype=np.int32)
        return places

    @cached_property
    def label_array(self) -> NDArray[Any]:
        """The labels by their counts."""
        return np.array(self.labels)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The positions of the labels, sorted."""
        return np.argsort(self.label_array, kind="stable")

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """How often each label occurs."""
        return self.counts[len(self.words) :]

    @cached_property
    def paths(self) -> Any:
        """The path to each label in a Huffman tree."""
        return _core.huffman(self.label_counts)

    def __getstate__(self) -> dict[str, Any]:
        # Without cached properties.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Pickled arrays lose the padding of their rows.
        self.__dict__.update({**state, "rows": padded(state["rows"]), "outputs": padded(state["outputs"])})


def padded(matrix: Matrix) -> Matrix:
    """The matrix with rows padded for the kernels."""
    if matrix.dtype != np.float32 or matrix.ndim != 2:
        raise TypeError(f"a matrix must be float32 of two dimensions, not {matrix.dtype} {matrix.shape}")
    copy = padded_rows(*matrix.shape)
    copy[:] = matrix
    return copy


def pruned(trained: Trained, cutoff: int | None, end: str) -> Trained:
    """A copy with only the `cutoff` rows of the largest norm, and that of the word `end`; None: with all rows."""
    n_words = len(trained.words)
    kept = np.arange(len(trained.rows))
    if cutoff is not None:
        cutoff = whole_number("cutoff", cutoff, low=1)
        lengths = np.linalg.norm(trained.rows, axis=1)
        if end in trained.index:  # it is in every text
            lengths[trained.row_of[trained.index[end]]] = np.inf
        kept = np.argsort(-lengths, kind="stable")[:cutoff]
    # In a file words come first, and rows follow the order of features.
    kept = kept[np.argsort(trained.features[kept], kind="stable")]
    features = trained.features[kept]
    own = features[features < n_words]
    return dataclasses.replace(
        trained,
        words=[trained.words[i] for i in own.tolist()],
        counts=np.append(trained.counts[own], trained.label_counts),
        features=np.concatenate([np.arange(len(own)), features[len(own) :] - n_words + len(own)]),
        rows=padded(trained.rows[kept]),
        outputs=padded(trained.outputs),
        missing=ABSENT,
    )


def quantize(trained: Trained, part_size: int, norms: bool, output: bool, *, seed: int, threads: int) -> None:
    """Quantize the rows and, with `output`, the vectors of labels; see `FastTextClassifier.quantize`."""
    options: dict[str, Any] = {"norms": norms, "seed": seed, "threads": threads}
    coded = QuantizedMatrix.of(np.ascontiguousarray(trained.rows), part_size, **options)
    coded_outputs = None
    if output:
        # fastText cuts the vectors of labels into sub-vectors of 2 dimensions, whatever `part_size` is.
        coded_outputs = QuantizedMatrix.of(np.ascontiguousarray(trained.outputs), 2, **options)
        trained.outputs = padded(coded_outputs.rows(slice(None)))
    trained.quantized = coded, coded_outputs
    trained.rows = padded(coded.rows(slice(None)))


# ---- firth's own


def to_tensors(trained: Trained) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and metadata that `from_tensors` takes."""
    tensors: dict[str, NDArray[Any]] = {
        "features": trained.features,
        "counts": trained.counts,
        **files.pack_words(trained.words),
    }
    if trained.quantized is None:
        tensors |= {"rows": trained.rows, "outputs": trained.outputs}
    else:
        small, small_outputs = trained.quantized
        tensors |= _codes("rows", small)
        tensors |= {"outputs": trained.outputs} if small_outputs is None else _codes("outputs", small_outputs)
    return tensors, {name: getattr(trained, name) for name in ("labels", "missing", "n_tokens", "of_fasttext")}


def from_tensors(
    tensors: dict[str, NDArray[Any]], metadata: dict[str, Any], *, loss: str, buckets: int, vector_size: int
) -> Trained:
    """The inverse of `to_tensors`; errors are those of `files.reading`."""
    quantized = None
    if "rows" in tensors:
        rows: Matrix = tensors["rows"]
    else:
        quantized = _decoded("rows", tensors), _decoded("outputs", tensors) if "outputs" not in tensors else None
        rows = quantized[0].rows(slice(None))
    outputs = tensors["outputs"] if "outputs" in tensors else _decoded("outputs", tensors).rows(slice(None))
    if rows.shape[1:] != (vector_size,):
        raise TypeError(f"vectors of shape {rows.shape} are not of {vector_size} numbers each")
    trained = Trained(
        words=files.unpack_words(tensors),
        labels=list(metadata["labels"]),
        counts=np.array(tensors["counts"]),
        n_tokens=whole_number("n_tokens", metadata["n_tokens"]),
        buckets=buckets,
        features=np.array(tensors["features"]),
        rows=padded(rows),
        outputs=padded(outputs),
        missing=metadata["missing"],
        of_fasttext=metadata.get("of_fasttext", False),
        quantized=quantized,
    )
    _check(trained, loss)
    return trained


def _check(trained: Trained, loss: str) -> None:
    """Raise ValueError if training cannot give this result."""
    n_words, features = len(trained.words), trained.features
    if not trained.labels:
        raise ValueError("it lacks labels")
    kinds = {type(label) for label in trained.labels}
    if len(kinds) > 1 or not kinds <= {str, int, float, bool}:
        raise ValueError("its labels are neither all strings nor all numbers")
    for what, names in (("word", trained.words), ("label", trained.labels)):
        if len(set(names)) < len(names):
            raise ValueError(f"the {what} {Counter(names).most_common(1)[0][0]!r} occurs twice")
    if (
        features.dtype != np.int64
        or features.shape != (len(trained.rows),)
        or trained.counts.dtype != np.int64
        or trained.counts.shape != (n_words + len(trained.labels),)
        or trained.outputs.shape != (len(trained.labels), trained.rows.shape[1])
        or trained.missing not in (ZERO, ABSENT)
    ):
        raise ValueError("its arrays do not fit together")
    if trained.counts.min() < 0:
        raise ValueError("a count of a word or label is negative")
    if loss == "hs" and (np.diff(trained.label_counts) > 0).any():
        raise ValueError("its labels are not in the order of their counts, which their tree needs")
    ordered = np.sort(features)
    if (
        (ordered[:n_words] != np.arange(n_words)).any()
        or (np.diff(ordered) == 0).any()
        or (len(ordered) and ordered[-1] >= n_words + trained.buckets)
    ):
        raise ValueError(f"its rows must be one for each of {n_words} words and for some of {trained.buckets} buckets")
    for what, matrix in (("words and n-grams", trained.rows), ("labels", trained.outputs)):
        if not finite(matrix):
            raise ValueError(f"the vectors of {what} contain a number that is not finite")


def _codes(name: str, matrix: QuantizedMatrix) -> dict[str, NDArray[Any]]:
    tensors: dict[str, NDArray[Any]] = {
        f"{name}.codes": matrix.codes,
        f"{name}.centroids": matrix.quantizer.centroids,
        f"{name}.part_size": np.array([matrix.quantizer.part_size]),
    }
    if matrix.norm_codes is not None and matrix.norm_quantizer is not None:
        tensors |= {f"{name}.norm_codes": matrix.norm_codes, f"{name}.norm_centroids": matrix.norm_quantizer.centroids}
    return tensors


def _decoded(name: str, tensors: dict[str, NDArray[Any]]) -> QuantizedMatrix:
    """The inverse of `_codes`."""
    codes, centroids = np.array(tensors[f"{name}.codes"]), np.array(tensors[f"{name}.centroids"])
    part_size = int(tensors[f"{name}.part_size"].item())
    quantizer = ProductQuantizer(len(centroids) // CENTROIDS, part_size, centroids)
    if f"{name}.norm_codes" not in tensors:
        return QuantizedMatrix(codes, quantizer)
    lengths = ProductQuantizer(1, 1, np.array(tensors[f"{name}.norm_centroids"]))
    return QuantizedMatrix(codes, quantizer, np.array(tensors[f"{name}.norm_codes"]), lengths)


# ---- fastText's


def write_fasttext(path: files.PathLike, trained: Trained, options: Mapping[str, Any]) -> None:
    """Write a .bin or, if the matrices are quantized, a .ftz; see `FastTextClassifier.to_fasttext`."""
    n_words = len(trained.words)
    try:
        labels = [f"{options['label_prefix']}{label}".encode() for label in trained.labels]
    except UnicodeEncodeError as error:
        raise ValueError(f"cannot write {path}: the label {error.object!r} is not valid Unicode") from None
    pruned = None
    matrix: Any
    output: Any = trained.outputs
    if trained.quantized is not None:
        matrix = trained.quantized[0]
        output = trained.outputs if trained.quantized[1] is None else trained.quantized[1]
        if trained.missing == ABSENT:
            places = np.arange(len(trained.features) - n_words)
            pruned = np.stack([trained.features[n_words:] - n_words, places], axis=1).astype(np.int32)
    else:
        if trained.missing == ABSENT:
            raise ValueError("fastText reads pruned n-grams only in quantized models: quantize() it")
        matrix = fasttext_format.RowBlocks((n_words + trained.buckets, options["vector_size"]), _full_blocks(trained))
    fasttext_format.write(
        path,
        fasttext_format.FastTextFile(
            model="supervised",
            min_count=min(options["min_count"], 2**31 - 1),
            bucket=trained.buckets,
            min_n=options["min_n"] if options["max_n"] else 0,
            **{name: options[name] for name in ("loss", "vector_size", "epochs", "negative", "word_ngrams", "max_n")},
            words=[word.encode() for word in trained.words],
            labels=labels,
            counts=trained.counts,
            n_tokens=trained.n_tokens,
            pruned=pruned,
            input=matrix,
            output=output,
        ),
    )


def _full_blocks(trained: Trained) -> Iterator[Matrix]:
    """A row for every word and bucket, zeros for those that were not trained."""
    places = trained.row_of
    for begin in range(0, len(places), _BLOCK):
        some = places[begin : begin + _BLOCK]
        block = trained.rows[np.maximum(some, 0)]
        block[some < 0] = 0
        yield block


def read_fasttext(path: files.PathLike, label_prefix: str) -> tuple[dict[str, Any], Trained]:
    """The options and the result of training in a file; see `FastTextClassifier.from_fasttext`."""
    stored = fasttext_format.read(path)
    if stored.model != "supervised":
        raise ValueError(f"{path} holds word vectors, not a classifier: firth.load opens it")
    names = ("loss", "vector_size", "epochs", "word_ngrams", "min_count", "negative", "bucket", "min_n", "max_n")
    options = {**stored.options(*names), "label_prefix": label_prefix}
    if stored.max_n == 0:
        options["min_n"] = 0
    words, labels = fasttext_format.decoded(path, stored, stacklevel=4)
    n_words = len(words)
    # Old files have rows for n-grams even if the model does not use them.
    n_buckets = stored.bucket if options["word_ngrams"] > 1 or options["max_n"] else 0
    missing, quantized = ZERO, None
    if isinstance(stored.input, QuantizedMatrix):
        coded = stored.input if n_buckets else stored.input.first(n_words)
        quantized = coded, stored.output if isinstance(stored.output, QuantizedMatrix) else None
        rows = padded(coded.rows(slice(None)))
        features = np.arange(len(rows))
        missing = ZERO if stored.pruned is None else ABSENT
        if stored.pruned is not None and n_buckets:
            buckets = np.zeros(len(stored.pruned), np.int64)
            buckets[stored.pruned[:, 1]] = stored.pruned[:, 0]
            features[n_words:] = n_words + buckets
    else:
        assert isinstance(stored.input, np.ndarray)
        # write_fasttext writes zeros for buckets that were never trained.
        filled = [
            begin + np.flatnonzero(stored.input[begin : begin + _BLOCK].any(axis=1))
            for begin in range(n_words, n_words + n_buckets, _BLOCK)
        ]
        features = np.concatenate([np.arange(n_words), *filled])
        rows = padded_rows(len(features), stored.vector_size)
        for begin in range(0, len(features), _BLOCK):
            some = slice(begin, begin + _BLOCK)
            rows[some] = stored.input[features[some]]
    output = stored.output.rows(slice(None)) if isinstance(stored.output, QuantizedMatrix) else stored.output
    assert isinstance(output, np.ndarray)
    trained = Trained(
        words=words,
        labels=[label.removeprefix(label_prefix) for label in labels],
        counts=np.array(stored.counts),
        n_tokens=stored.n_tokens,
        buckets=n_buckets,
        features=features,
        rows=rows,
        outputs=padded(output),
        missing=missing,
        of_fasttext=True,
        quantized=quantized,
    )
    with files.reading(path, "fastText model", own=False):
        _check(trained, stored.loss)
    return options, trained
