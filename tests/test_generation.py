"""Drawing the next token: numbers at their limits."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from firth.contextual import generation  # noqa: E402


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
def test_the_smallest_temperatures_take_the_likeliest(temperature: float) -> None:
    ids, chances = generation.cut_distribution(torch.tensor([1.0, 30.0, -30.0, 29.0]), temperature=temperature)
    assert int(ids[0]) == 1
    assert chances.tolist() == [1.0, 0.0, 0.0, 0.0]
