"""The compiled kernels: the table of contents of csrc."""

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | bytearray | memoryview

OPENMP: bool
COMPILER: str

# constants of the algorithms: see csrc/tasks/
ROW_FLOATS: int
TARGETS: int
NEIGHBORS: int
BLOCK_TOKENS: int
ROUND_TOKENS: int
POOL: int
CURVATURE: float
GLOVE_BLOCKS: int
GLOVE_SLICE_ENTRIES: int
CLASSIFIER_CELL: int

# runtime
def current_isa() -> str: ...
def built_isas() -> list[str]: ...
def available_isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def alias_table(weights: NDArray[np.float64]) -> NDArray[np.uint32]: ...
def count_words(ids: NDArray[np.int32], offsets: NDArray[np.int64], n_words: int) -> NDArray[np.int64]: ...
def fill_uniform(
    out: NDArray[np.float32], *, scale: float, seed: int, threads: int, numbers: NDArray[np.int64] | None = None
) -> None: ...

# text
class TextCounter:
    def __init__(self, *, lower: NDArray[np.uint32] | None = None, threads: int, min_share: int) -> None: ...
    def begin_file(self, offset: int) -> None: ...
    def feed(self, data: Buffer) -> None: ...
    def end_file(self) -> None: ...
    def feed_tokens(
        self,
        words: NDArray[np.uint8],
        word_offsets: NDArray[np.int64],
        ids: NDArray[np.int32],
        ends: NDArray[np.int64],
    ) -> None: ...
    def merge(self) -> int: ...
    def select(self, min_count: int, most: int) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]: ...
    def select_given(
        self, words: NDArray[np.uint8], word_offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]: ...
    def write(self, ids: NDArray[np.int32], offsets: NDArray[np.int64]) -> None: ...
    @property
    def documents(self) -> int: ...
    @property
    def tokens(self) -> int: ...
    @property
    def invalid(self) -> int: ...
    @property
    def first_invalid(self) -> tuple[int, int] | None: ...
    @property
    def largest_count(self) -> int: ...
    @property
    def kept_tokens(self) -> int: ...

# subwords
def subword_buckets(
    words: NDArray[np.uint8],
    word_offsets: NDArray[np.int64],
    *,
    min_n: int,
    max_n: int,
    buckets: int,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.uint32]]: ...
def split_subwords(word: str, *, min_n: int, max_n: int) -> list[str]: ...
def hash_words(words: NDArray[np.uint8], word_offsets: NDArray[np.int64]) -> NDArray[np.uint32]: ...

# phrases
def merge_phrases(
    ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    out: NDArray[np.int32],
    out_offsets: NDArray[np.int64],
    *,
    states: NDArray[np.int32],
    words: NDArray[np.int32],
    targets: NDArray[np.int32],
    n_words: int,
    threads: int,
) -> int: ...
def renumber(
    ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    out: NDArray[np.int32],
    out_offsets: NDArray[np.int64],
    *,
    new_ids: NDArray[np.int32],
    threads: int,
) -> int: ...

# word2vec
def huffman(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]]: ...
def train_word2vec(
    vectors: NDArray[np.float32],
    context: NDArray[np.float32],
    *,
    ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    keep: NDArray[np.uint32],
    noise: NDArray[np.uint32] | None,
    bags: tuple[NDArray[np.int64], NDArray[np.int32]] | None,
    paths: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]] | None,
    cbow: bool,
    cbow_mean: bool,
    begin: int,
    end: int,
    epoch: int,
    epochs: int,
    window: int,
    negative: int,
    learning_rate: float,
    min_learning_rate: float,
    seed: int,
    deterministic: bool,
    threads: int,
) -> tuple[float, int, int, int]: ...

# classifier
def bags_of_features(
    ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    *,
    hashes: NDArray[np.uint32],
    features: NDArray[np.int32],
    pieces: tuple[NDArray[np.int64], NDArray[np.uint32]] | None,
    end_hash: int,
    end_feature: int,
    n_words: int,
    buckets: int,
    word_ngrams: int,
    rows: NDArray[np.int32] | None,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]: ...
def train_classifier(
    rows: NDArray[np.float32],
    outputs: NDArray[np.float32],
    *,
    bags: tuple[NDArray[np.int64], NDArray[np.int32]],
    labels: tuple[NDArray[np.int64], NDArray[np.int32]],
    weights: NDArray[np.float32] | None,
    label_weights: NDArray[np.float32] | None,
    noise: NDArray[np.uint32] | None,
    paths: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]] | None,
    loss: str,
    begin: int,
    end: int,
    epoch: int,
    epochs: int,
    negative: int,
    learning_rate: float,
    seed: int,
    threads: int,
) -> tuple[float, int, int]: ...
def predict_classifier(
    probabilities: NDArray[np.float32],
    rows: NDArray[np.float32],
    outputs: NDArray[np.float32],
    *,
    bags: tuple[NDArray[np.int64], NDArray[np.int32]],
    paths: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int8]] | None,
    loss: str,
    threads: int,
) -> None: ...

# sparse
def sparse_times_dense(
    out: NDArray[np.float32],
    *,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    dense: NDArray[np.float32],
    threads: int,
) -> None: ...
def sparse_transposed_times_dense(
    out: NDArray[np.float32],
    *,
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    dense: NDArray[np.float32],
    threads: int,
) -> None: ...

# topk
def inverse_norms(matrix: NDArray[np.float32], *, threads: int) -> NDArray[np.float32]: ...
def topk(
    matrix: NDArray[np.float32],
    *,
    inverse_norms: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    threads: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]: ...

# rows
def parse_text(
    data: bytes | mmap.mmap, *, start: int, vector_size: int, limit: int, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.uint8]]: ...
def parse_binary(
    data: bytes | mmap.mmap, *, start: int, vector_size: int, count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]: ...
def decode_words(data: bytes | mmap.mmap, spans: NDArray[np.int64]) -> tuple[list[str], list[int]]: ...
def format_text(words: bytes, offsets: NDArray[np.int64], matrix: NDArray[np.float32], *, threads: int) -> bytes: ...

# quantization
def nearest_centroids(points: NDArray[np.float32], *, centroids: NDArray[np.float32]) -> NDArray[np.uint8]: ...

# counts
class CooccurrenceRows:
    def __init__(self, most: int) -> None: ...
    @property
    def columns(self) -> NDArray[np.int32]: ...
    @property
    def values(self) -> NDArray[np.float32]: ...
    def trim(self) -> None: ...

class CooccurrenceCounter:
    def __init__(
        self,
        ids: NDArray[np.int32],
        offsets: NDArray[np.int64],
        counts: NDArray[np.int64],
        *,
        window: int,
        left: NDArray[np.float64] | None,
        right: NDArray[np.float64] | None,
    ) -> None: ...
    def find_places(self, first: int, n: int, *, threads: int) -> None: ...
    def rows(self, first: int, n: int, *, out: CooccurrenceRows, threads: int) -> NDArray[np.int64]: ...

# glove
class GloveTiles:
    def __init__(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.int32] | NDArray[np.int64],
        data: NDArray[np.float32],
        *,
        seed: int,
        threads: int,
    ) -> None: ...
    def train(
        self,
        words: NDArray[np.float32],
        contexts: NDArray[np.float32],
        *,
        vector_size: int,
        x_max: float,
        alpha: float,
        learning_rate: float,
        clip_value: float,
        begin: int,
        end: int,
        epoch: int,
        threads: int,
    ) -> tuple[float, float, int, int]: ...

# attention: arrays of NumPy's, uint16 for bf16, or DLPack capsules; options as firth.attention makes them
def attend(
    q: object,
    k: object,
    v: object,
    out: object,
    lse: NDArray[np.float32],
    *,
    options: dict[str, Any],
    threads: int,
) -> None: ...
def attend_plain(q: object, k: object, v: object, *, causal: bool, threads: int) -> object: ...
def attend_backward(
    out_gradient: object,
    q: object,
    k: object,
    v: object,
    out: object,
    lse: NDArray[np.float32],
    q_gradient: object,
    k_gradient: object,
    v_gradient: object,
    bias_gradient: NDArray[np.float32] | None,
    *,
    options: dict[str, Any],
    threads: int,
) -> None: ...
def attention_weights(
    q: object,
    k: object,
    lse: NDArray[np.float32],
    heads: NDArray[np.int64],
    rows: NDArray[np.int64],
    out: NDArray[np.float32],
    *,
    options: dict[str, Any],
    threads: int,
) -> None: ...
def attention_entropies(
    q: object,
    k: object,
    lse: NDArray[np.float32],
    out: NDArray[np.float32],
    *,
    options: dict[str, Any],
    threads: int,
) -> None: ...
