"""The compiled kernels: the table of contents of csrc."""

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | bytearray | memoryview
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Bytes = NDArray[np.int8]
Words = NDArray[np.uint32]
Codes = NDArray[np.uint8]
Paths = tuple[Longs, Ints, Bytes]  # begins, nodes, turns
Bags = tuple[Longs, Ints]  # begins, and what they contain

OPENMP: bool
COMPILER: str

# constants of the algorithms: see csrc/tasks/
ROW_FLOATS: int
TARGETS: int
NEIGHBORS: int
STRETCH_TOKENS: int
GROUP: int
BLOCK_TOKENS: int
ROUND_TOKENS: int
POOL: int
CURVATURE: float
GLOVE_LEAST_BLOCKS: int
GLOVE_MOST_BLOCKS: int
GLOVE_TILE_ENTRIES: int
GLOVE_SLICE_ENTRIES: int
CLASSIFIER_CELL: int

# runtime
def current_isa() -> str: ...
def built_isas() -> list[str]: ...
def available_isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def alias_table(weights: Doubles) -> Words: ...
def count_words(ids: Ints, offsets: Longs, n_words: int, *, threads: int = 1) -> Longs: ...
def start_trace() -> None: ...
def stop_trace() -> list[tuple[str, int, int, int, int, int]]: ...
def fill_uniform(out: Floats, *, scale: float, seed: int, threads: int, numbers: Longs | None = None) -> None: ...

# text
class TextCounter:
    def __init__(self, *, lower: Words | None = None, threads: int, min_share: int) -> None: ...
    def begin_file(self, offset: int) -> None: ...
    def feed(self, data: Buffer) -> None: ...
    def end_file(self) -> None: ...
    def feed_tokens(self, words: Codes, word_offsets: Longs, ids: Ints, ends: Longs) -> None: ...
    def merge(self) -> int: ...
    def select(self, min_count: int, most: int) -> tuple[Codes, Longs, Longs]: ...
    def select_given(self, words: Codes, word_offsets: Longs) -> tuple[Codes, Longs, Longs]: ...
    def write(self, ids: Ints, offsets: Longs) -> None: ...
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
    words: Codes, word_offsets: Longs, *, min_n: int, max_n: int, buckets: int, threads: int
) -> tuple[Longs, Words]: ...
def split_subwords(word: str, *, min_n: int, max_n: int) -> list[str]: ...
def hash_words(words: Codes, word_offsets: Longs) -> Words: ...

# phrases
def merge_phrases(
    ids: Ints,
    offsets: Longs,
    out: Ints,
    out_offsets: Longs,
    *,
    states: Ints,
    words: Ints,
    targets: Ints,
    n_words: int,
    threads: int,
) -> int: ...
def renumber(ids: Ints, offsets: Longs, out: Ints, out_offsets: Longs, *, new_ids: Ints, threads: int) -> int: ...

# word2vec
def huffman(counts: Longs) -> Paths: ...
def train_word2vec(
    vectors: Floats,
    context: Floats,
    *,
    ids: Ints,
    offsets: Longs,
    keep: Words,
    noise: Words | None,
    bags: Bags | None,
    paths: Paths | None,
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
    ids: Ints,
    offsets: Longs,
    *,
    hashes: Words,
    features: Ints,
    subwords: tuple[Longs, Words] | None,
    end_hash: int,
    end_feature: int,
    n_words: int,
    buckets: int,
    word_ngrams: int,
    rows: Ints | None,
    threads: int,
) -> Bags: ...
def train_classifier(
    rows: Floats,
    outputs: Floats,
    *,
    bags: Bags,
    labels: Bags,
    weights: Floats | None,
    label_weights: Floats | None,
    noise: Words | None,
    paths: Paths | None,
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
    probabilities: Floats, rows: Floats, outputs: Floats, *, bags: Bags, paths: Paths | None, loss: str, threads: int
) -> None: ...

# sparse
def sparse_times_dense(
    out: Floats, *, indptr: Longs, indices: Ints, data: Floats, dense: Floats, threads: int
) -> None: ...
def sparse_transposed_times_dense(
    out: Floats, *, indptr: Longs, indices: Ints, data: Floats, dense: Floats, threads: int
) -> None: ...

# topk
def inverse_norms(matrix: Floats, *, threads: int) -> Floats: ...
def topk(matrix: Floats, *, inverse_norms: Floats, queries: Floats, k: int, threads: int) -> tuple[Longs, Floats]: ...

# rows
def parse_text(
    data: bytes | mmap.mmap, *, start: int, vector_size: int, limit: int, threads: int
) -> tuple[Floats, Longs, Codes]: ...
def parse_binary(data: bytes | mmap.mmap, *, start: int, vector_size: int, count: int) -> tuple[Floats, Longs, int]: ...
def decode_words(data: bytes | mmap.mmap, spans: Longs) -> tuple[list[str], list[int]]: ...
def format_text(words: bytes, offsets: Longs, matrix: Floats, *, threads: int) -> bytes: ...

# quantization
def nearest_centroids(points: Floats, *, centroids: Floats) -> Codes: ...

# counts
class CooccurrenceRows:
    def __init__(self, most: int) -> None: ...
    @property
    def columns(self) -> Ints: ...
    @property
    def values(self) -> Floats: ...
    def trim(self) -> None: ...

class CooccurrenceCounter:
    def __init__(
        self, ids: Ints, offsets: Longs, counts: Longs, *, window: int, left: Doubles | None, right: Doubles | None
    ) -> None: ...
    def find_places(self, first: int, n: int, *, threads: int) -> None: ...
    def rows(self, first: int, n: int, *, out: CooccurrenceRows, threads: int) -> Longs: ...
    def items(self, first: int, n: int, *, threads: int) -> Longs: ...

# glove
class GloveTiles:
    def __init__(self, indptr: Longs, indices: Ints | Longs, data: Floats, *, seed: int, threads: int) -> None: ...
    def slices(self, epoch: int) -> Longs: ...
    def train(
        self,
        words: Floats,
        contexts: Floats,
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
    q: object, k: object, v: object, out: object, lse: Floats, *, options: dict[str, Any], threads: int
) -> None: ...
def attend_plain(q: object, k: object, v: object, *, causal: bool, threads: int) -> object: ...
def attend_backward(
    out_gradient: object,
    q: object,
    k: object,
    v: object,
    out: object,
    lse: Floats,
    q_gradient: object,
    k_gradient: object,
    v_gradient: object,
    bias_gradient: Floats | None,
    *,
    options: dict[str, Any],
    threads: int,
) -> None: ...
def attention_weights(
    q: object, k: object, lse: Floats, heads: Longs, rows: Longs, out: Floats, *, options: dict[str, Any], threads: int
) -> None: ...
def attention_entropies(
    q: object, k: object, lse: Floats, out: Floats, *, options: dict[str, Any], threads: int
) -> None: ...
