"""The compiled kernels: the table of contents of csrc."""

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
