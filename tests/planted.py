"""Small contextual models and the little languages that they learn."""

import random

SMALL = {
    "layers": 2,
    "heads": 2,
    "dim": 32,
    "length": 32,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "evaluate_batches": 4,
    "threads": 1,
}


def planted(n: int, seed: int) -> list[str]:
    """Sentences in which every key k is followed by its value v, whatever came before."""
    draw = random.Random(seed)
    return [" ".join(f"k{i} v{i} ." for i in draw.choices(range(8), k=6)) for _ in range(n)]


def topics(n: int, seed: int) -> list[str]:
    """Texts that hold words of one topic alone, a or b or c."""
    draw = random.Random(seed)
    return [" ".join(f"{letter}{i}" for i in draw.choices(range(4), k=60)) for letter in draw.choices("abc", k=n)]
