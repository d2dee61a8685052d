"""Word and token embeddings: training, queries, evaluation, files."""

from importlib.metadata import version

from firth import evaluate
from firth.attention import attention, attention_backward, attention_entropies, attention_weights
from firth.corpus import Corpus, Vocabulary
from firth.counts import Cooccurrences, count_cooccurrences
from firth.loading import load, load_vectors
from firth.models import LSA, PPMI, FastText, FastTextClassifier, GloVe, OneHot, RandomVectors, Word2Vec
from firth.phrases import Phrases
from firth.runtime import cpu_info, select_isa
from firth.vectors import Vectors

select_isa()

__version__ = version("firth")


__all__ = [
    "LSA",
    "PPMI",
    "Cooccurrences",
    "Corpus",
    "FastText",
    "FastTextClassifier",
    "GloVe",
    "OneHot",
    "Phrases",
    "RandomVectors",
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
