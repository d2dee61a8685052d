"""What a classifier has learnt, and its files: firth's own, and fastText's .bin and .ftz."""

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

ZERO, ABSENT = -1, -2  # in place of a row: one of zeros, which counts in the mean; none
_BLOCK = 1 << 16  # rows looked at or written at once


@dataclasses.dataclass(eq=False, kw_only=True)
class Learnt:
    """What a classifier has learnt.

    A feature is the place of a word, or len(words) + the bucket of an n-gram.

    Attributes
    ----------
    words, labels
        The most frequent first.
    counts
        int64, of the words and then of the labels.
    n_tokens
        Tokens of the training text, labels and rare words included.
    buckets
        How many there are.
    features
        int64, the feature of each row. Every word has a row.
    rows
        float32 (features, vector_size), padded.
    outputs
        float32 (labels, vector_size), padded: a row for each label; along a tree, the last one is not used.
    missing
        What stands for an n-gram that has no row.
    of_fasttext
        Whether a file of fastText's held it, so that texts are to be read as fastText does.
    quantized
        The matrices in codes, of which `rows` and `outputs` are then decoded; the second is None if it is as it was.
    """

    words: list[str]
    labels: list[Any]
    counts: NDArray[np.int64]
    n_tokens: int
    buckets: int
    features: NDArray[np.int64]
    rows: Matrix
    outputs: Matrix
    missing: int = ZERO
    of_fasttext: bool = False
    quantized: tuple[QuantizedMatrix, QuantizedMatrix | None] | None = None

    @cached_property
    def index(self) -> dict[str, int]:
        """The place of each word."""
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
        """The places of the labels, sorted."""
        return np.argsort(self.label_array, kind="stable")

    @property
    def label_counts(self) -> NDArray[np.int64]:
        """How often each label occurs."""
        return self.counts[len(self.words) :]

    @cached_property
    def paths(self) -> Any:
        """The way to each label along a tree."""
        return _core.huffman(self.label_counts)

    def __getstate__(self) -> dict[str, Any]:
        # What is derived is derived again.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Arrays come back without what pads their rows.
        self.__dict__.update({**state, "rows": padded(state["rows"]), "outputs": padded(state["outputs"])})


def padded(matrix: Matrix) -> Matrix:
    """The matrix with rows as the kernels want them."""
    if matrix.dtype != np.float32 or matrix.ndim != 2:
        raise TypeError(f"a matrix must be float32 of two dimensions, not {matrix.dtype} {matrix.shape}")
    copy = padded_rows(*matrix.shape)
    copy[:] = matrix
    return copy


# ---- firth's own


def to_tensors(learnt: Learnt) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and metadata that `from_tensors` takes."""
    tensors: dict[str, NDArray[Any]] = {
        "features": learnt.features,
        "counts": learnt.counts,
        **files.pack_words(learnt.words),
    }
    if learnt.quantized is None:
        tensors |= {"rows": learnt.rows, "outputs": learnt.outputs}
    else:
        small, small_outputs = learnt.quantized
        tensors |= _codes("rows", small)
        tensors |= {"outputs": learnt.outputs} if small_outputs is None else _codes("outputs", small_outputs)
    return tensors, {name: getattr(learnt, name) for name in ("labels", "missing", "n_tokens", "of_fasttext")}


def from_tensors(
    tensors: dict[str, NDArray[Any]], metadata: dict[str, Any], *, loss: str, buckets: int, vector_size: int
) -> Learnt:
    """What `to_tensors` took apart.

    Raises
    ------
    KeyError, TypeError, UnicodeDecodeError
        If it is damaged.
    """
    quantized = None
    if "rows" in tensors:
        rows: Matrix = tensors["rows"]
    else:
        quantized = _decoded("rows", tensors), _decoded("outputs", tensors) if "outputs" not in tensors else None
        rows = quantized[0].rows(slice(None))
    outputs = tensors["outputs"] if "outputs" in tensors else _decoded("outputs", tensors).rows(slice(None))
    if rows.shape[1:] != (vector_size,):
        raise TypeError(f"vectors of shape {rows.shape} are not of {vector_size} numbers each")
    learnt = Learnt(
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
    _check(learnt, loss)
    return learnt


def _check(learnt: Learnt, loss: str) -> None:
    """Raise ValueError if no training can have left this."""
    n_words, features = len(learnt.words), learnt.features
    if not learnt.labels:
        raise ValueError("there is no label")
    kinds = {type(label) for label in learnt.labels}
    if len(kinds) > 1 or not kinds <= {str, int, float, bool}:
        raise ValueError("its labels are neither all strings nor all numbers")
    for what, names in (("word", learnt.words), ("label", learnt.labels)):
        if len(set(names)) < len(names):
            raise ValueError(f"the {what} {Counter(names).most_common(1)[0][0]!r} stands there twice")
    if (
        features.dtype != np.int64
        or features.shape != (len(learnt.rows),)
        or learnt.counts.dtype != np.int64
        or learnt.counts.shape != (n_words + len(learnt.labels),)
        or learnt.outputs.shape != (len(learnt.labels), learnt.rows.shape[1])
        or learnt.missing not in (ZERO, ABSENT)
    ):
        raise ValueError("its arrays do not fit together")
    if learnt.counts.min() < 0:
        raise ValueError("words or labels are counted less than 0 times")
    if loss == "hs" and (np.diff(learnt.label_counts) > 0).any():
        raise ValueError("its labels do not stand in the order of their counts, from which their tree is made")
    ordered = np.sort(features)
    if (
        (ordered[:n_words] != np.arange(n_words)).any()
        or (np.diff(ordered) == 0).any()
        or (len(ordered) and ordered[-1] >= n_words + learnt.buckets)
    ):
        raise ValueError(f"its rows are not one for each of {n_words} words and some of {learnt.buckets} buckets")
    for what, matrix in (("words and n-grams", learnt.rows), ("labels", learnt.outputs)):
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
    """The matrix that `_codes` took apart."""
    codes, centroids = np.array(tensors[f"{name}.codes"]), np.array(tensors[f"{name}.centroids"])
    part_size = int(tensors[f"{name}.part_size"].item())
    quantizer = ProductQuantizer(len(centroids) // CENTROIDS, part_size, centroids)
    if f"{name}.norm_codes" not in tensors:
        return QuantizedMatrix(codes, quantizer)
    lengths = ProductQuantizer(1, 1, np.array(tensors[f"{name}.norm_centroids"]))
    return QuantizedMatrix(codes, quantizer, np.array(tensors[f"{name}.norm_codes"]), lengths)


# ---- fastText's


def write_fasttext(path: files.PathLike, learnt: Learnt, options: Mapping[str, Any]) -> None:
    """Write a .bin or, if the matrices are in codes, a .ftz; see `FastTextClassifier.to_fasttext`."""
    n_words, size = len(learnt.words), options["vector_size"]
    try:
        labels = [f"{options['label_prefix']}{label}".encode() for label in learnt.labels]
    except UnicodeEncodeError as error:
        raise ValueError(f"cannot write {path}: the label {error.object!r} is not valid Unicode") from None
    pruned = None
    matrix: Any
    output: Any = learnt.outputs
    if learnt.quantized is not None:
        matrix = learnt.quantized[0]
        output = learnt.outputs if learnt.quantized[1] is None else learnt.quantized[1]
        if learnt.missing == ABSENT:
            places = np.arange(len(learnt.features) - n_words)
            pruned = np.stack([learnt.features[n_words:] - n_words, places], axis=1).astype(np.int32)
    else:
        if learnt.missing == ABSENT:
            raise ValueError("n-grams were pruned, which fastText reads in quantized models alone: quantize() it")
        matrix = fasttext_format.RowBlocks((n_words + learnt.buckets, size), _full_blocks(learnt))
    fasttext_format.write(
        path,
        fasttext_format.FastTextFile(
            model="supervised",
            loss=options["loss"],
            vector_size=size,
            epochs=options["epochs"],
            min_count=min(options["min_count"], 2**31 - 1),
            negative=options["negative"],
            word_ngrams=options["word_ngrams"],
            bucket=learnt.buckets,
            min_n=options["min_n"] if options["max_n"] else 0,
            max_n=options["max_n"],
            words=[word.encode() for word in learnt.words],
            labels=labels,
            counts=learnt.counts,
            n_tokens=learnt.n_tokens,
            pruned=pruned,
            input=matrix,
            output=output,
        ),
    )


def _full_blocks(learnt: Learnt) -> Iterator[Matrix]:
    """A row for every word and bucket, zeros for those that were not trained."""
    places = learnt.row_of
    for begin in range(0, len(places), _BLOCK):
        some = places[begin : begin + _BLOCK]
        block = learnt.rows[np.maximum(some, 0)]
        block[some < 0] = 0
        yield block


def read_fasttext(path: files.PathLike, label_prefix: str) -> tuple[dict[str, Any], Learnt]:
    """A file's options, and what was learnt; see `FastTextClassifier.from_fasttext`."""
    stored = fasttext_format.read(path)
    if stored.model != "supervised":
        raise ValueError(f"{path} holds word vectors, not a classifier: firth.load opens it")
    options: dict[str, Any] = {
        "loss": stored.loss,
        "vector_size": stored.vector_size,
        "epochs": max(stored.epochs, 1),
        "word_ngrams": max(stored.word_ngrams, 1),
        "min_count": max(stored.min_count, 1),
        "negative": max(stored.negative, 1),
        "bucket": max(stored.bucket, 1),
        "min_n": stored.min_n if stored.max_n > 0 else 0,
        "max_n": max(stored.max_n, 0),
        "label_prefix": label_prefix,
    }
    words, labels = fasttext_format.decoded(path, stored, stacklevel=4)
    n_words = len(words)
    # Old files have rows for n-grams that no text has.
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
        # A row of zeros among the buckets is one that was never trained: write_fasttext's.
        trained = [
            begin + np.flatnonzero(stored.input[begin : begin + _BLOCK].any(axis=1))
            for begin in range(n_words, n_words + n_buckets, _BLOCK)
        ]
        features = np.concatenate([np.arange(n_words), *trained])
        rows = padded_rows(len(features), stored.vector_size)
        for begin in range(0, len(features), _BLOCK):
            some = slice(begin, begin + _BLOCK)
            rows[some] = stored.input[features[some]]
    output = stored.output.rows(slice(None)) if isinstance(stored.output, QuantizedMatrix) else stored.output
    assert isinstance(output, np.ndarray)
    learnt = Learnt(
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
        _check(learnt, stored.loss)
    return options, learnt
