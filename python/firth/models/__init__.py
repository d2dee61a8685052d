"""Ways of learning static vectors, one file for each."""

from firth.models.base import load
from firth.models.spectral import LSA, PPMI
from firth.models.word2vec import Word2Vec

__all__ = ["LSA", "PPMI", "Word2Vec", "load"]
