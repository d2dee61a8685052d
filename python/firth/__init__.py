"""Word and token embeddings: training, queries, evaluation, files.

The names below are imported when they are used first, so that `import firth` and the command `firth` start at once.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

from firth import _core

if TYPE_CHECKING:
    from firth import evaluate
    from firth.corpus import Corpus, Vocabulary
    from firth.counts import Cooccurrences, count_cooccurrences
    from firth.fused_attention import attention, attention_backward, attention_entropies, attention_weights
    from firth.loading import load, load_vectors
    from firth.models import LSA, PPMI, FastText, FastTextClassifier, GloVe, OneHot, RandomVectors, Word2Vec
    from firth.phrases import Phrases
    from firth.run import History, Record
    from firth.runtime import cpu_info
    from firth.vectors import Vectors

    __version__: str

_MODULES = {
    "corpus": ("Corpus", "Vocabulary"),
    "counts": ("Cooccurrences", "count_cooccurrences"),
    "fused_attention": ("attention", "attention_backward", "attention_entropies", "attention_weights"),
    "loading": ("load", "load_vectors"),
    "models": ("LSA", "PPMI", "FastText", "FastTextClassifier", "GloVe", "OneHot", "RandomVectors", "Word2Vec"),
    "phrases": ("Phrases",),
    "run": ("History", "Record"),
    "runtime": ("cpu_info",),
    "vectors": ("Vectors",),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is used first."""
    value: Any
    if name == "__version__":
        from importlib.metadata import version

        value = version("firth")
    elif name == "evaluate":
        value = importlib.import_module("firth.evaluate")
    else:
        module = next((module for module, names in _MODULES.items() if name in names), None)
        if module is None:
            raise AttributeError(f"module 'firth' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"firth.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if os.environ.get("FIRTH_ISA"):
    try:
        _core.use_isa(os.environ["FIRTH_ISA"])
    except ValueError as error:
        raise ImportError(f"FIRTH_ISA: {error}") from None

__all__ = [
    "LSA",
    "PPMI",
    "Cooccurrences",
    "Corpus",
    "FastText",
    "FastTextClassifier",
    "GloVe",
    "History",
    "OneHot",
    "Phrases",
    "RandomVectors",
    "Record",
    "Vectors",
    "Vocabulary",
    "Word2Vec",
    "attention",
    "attention_backward",
    "attention_entropies",
    "attention_weights",
    "count_cooccurrences",
    "cpu_info",
    "evaluate",
    "load",
    "load_vectors",
]
