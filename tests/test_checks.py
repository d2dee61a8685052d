"""What callers may give: checks that several parts of firth share."""

from __future__ import annotations

import numpy as np
import pytest

from firth import Corpus, FastTextClassifier, Vectors, Vocabulary
from firth.quantization import ProductQuantizer, QuantizedMatrix

VECTORS = Vectors(["a", "b"], np.eye(2, 4))
MATRIX = np.ones((300, 4), np.float32)
TEXTS = ["red apple", "green pear"]


def masked(values):
    return np.ma.array(values, mask=np.zeros(np.shape(values), bool))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("matrix", lambda: Vectors(["a", "b"], masked(np.eye(2)))),
        ("queries", lambda: VECTORS.search(masked(np.ones((1, 4))))),
        ("vector", lambda: VECTORS.most_similar(masked(np.ones(4)))),
        ("vector", lambda: VECTORS.most_similar(["a", masked(np.ones(4))])),
        ("counts", lambda: Vocabulary(["a"], masked([1]))),
        ("ids", lambda: Corpus(Vocabulary(["a"]), masked([0]), [0, 1])),
        ("offsets", lambda: Corpus(Vocabulary(["a"]), [0], masked([0, 1]))),
        ("sample_weight", lambda: FastTextClassifier().fit(TEXTS, ["a", "b"], sample_weight=masked([1.0, 1.0]))),
        ("matrix", lambda: ProductQuantizer.fit(masked(MATRIX))),
        ("matrix", lambda: ProductQuantizer.fit(MATRIX).encode(masked(MATRIX))),
        ("matrix", lambda: QuantizedMatrix.of(masked(MATRIX))),
        ("codes", lambda: ProductQuantizer.fit(MATRIX).decode(masked(np.zeros((3, 2), np.uint8)))),
    ],
)
def test_masked_arrays_are_refused(name, call):
    with pytest.raises(TypeError, match=rf"{name} must not be a masked array, .* pass {name}\.filled\(value\)"):
        call()
