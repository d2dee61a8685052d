"""firth learns word vectors from the company that words keep."""

from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

from firth import evaluate
from firth.attention import attention, attention_backward, attention_entropies, attention_weights
from firth.corpus import Corpus, Vocabulary
from firth.counts import Cooccurrences, count_cooccurrences
from firth.models import LSA, PPMI, FastText, FastTextClassifier, GloVe, OneHot, RandomVectors, Word2Vec
from firth.models import load as _load_file
from firth.phrases import Phrases
from firth.runtime import cpu_info, select_isa
from firth.vectors import Vectors, load_vectors

select_isa()

__version__ = version("firth")


def load(path: str | PathLike[str]) -> Any:
    """Read a model, or a classifier, that its `save` wrote.

    Parameters
    ----------
    path
        The file; or the folder, of a contextual model, as `firth.contextual.load` reads it. For vectors alone, of
        firth's or others', there is `firth.load_vectors`.

    Returns
    -------
    Model, FastTextClassifier, GPT, BERT, ELMo, SentenceClassifier or TokenClassifier
        Of the class that was saved, with its options, `history` and all that it learnt.

    Raises
    ------
    OSError
        If it is not there or cannot be read.
    ValueError
        If it is not a model of firth's, is damaged, or was written by a newer version.
    ImportError
        For a contextual model without torch.
    """
    if Path(path).is_dir():
        from firth import contextual

        return contextual.load(path)
    return _load_file(path)


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
