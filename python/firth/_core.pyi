"""The compiled kernels: the table of contents of csrc."""

import mmap

import numpy as np
from numpy.typing import NDArray

OPENMP: bool
COMPILER: str

# runtime
def current_isa() -> str: ...
def built_isas() -> list[str]: ...
def available_isas() -> list[str]: ...
def use_isa(name: str) -> None: ...
def alias_table(weights: NDArray[np.float64]) -> NDArray[np.uint32]: ...
def check_corpus(ids: NDArray[np.int32], offsets: NDArray[np.int64], n_words: int) -> None: ...
def fill_uniform(out: NDArray[np.float32], *, scale: float, seed: int, threads: int) -> None: ...

# word2vec
def train_skipgram(
    vectors: NDArray[np.float32],
    context: NDArray[np.float32],
    *,
    ids: NDArray[np.int32],
    offsets: NDArray[np.int64],
    keep: NDArray[np.uint32],
    noise: NDArray[np.uint32],
    begin: int,
    end: int,
    epoch: int,
    epochs: int,
    window: int,
    negative: int,
    learning_rate: float,
    min_learning_rate: float,
    seed: int,
    threads: int,
) -> tuple[float, int, int, int]: ...

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
