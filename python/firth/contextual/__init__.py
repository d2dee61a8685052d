"""A state for each occurrence of a word: GPT, BERT and ELMo as modules of PyTorch over the fused attention."""

try:
    import tokenizers  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(f"firth.contextual needs {error.name}: pip install 'firth[contextual]'") from None

from firth.contextual.classifiers import SentenceClassifier, TokenClassifier
from firth.contextual.data import TokenIds
from firth.contextual.elmo import ELMo
from firth.contextual.encoding import word_means
from firth.contextual.figures import AttentionMaps
from firth.contextual.interface import register_attention
from firth.contextual.loading import load
from firth.contextual.loop import Schedule
from firth.contextual.models import BERT, GPT
from firth.contextual.operator import attention
from firth.contextual.tokenizer import Encoding, Tokenizer
from firth.contextual.transformer import Architecture, Cache, Transformer

__all__ = [
    "BERT",
    "GPT",
    "Architecture",
    "AttentionMaps",
    "Cache",
    "ELMo",
    "Encoding",
    "Schedule",
    "SentenceClassifier",
    "TokenClassifier",
    "TokenIds",
    "Tokenizer",
    "Transformer",
    "attention",
    "load",
    "register_attention",
    "word_means",
]
