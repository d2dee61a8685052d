"""Ways of training static vectors, one file for each."""

from firth.models.baselines import OneHot, RandomVectors
from firth.models.classifier import FastTextClassifier
from firth.models.fasttext import FastText
from firth.models.glove import GloVe
from firth.models.spectral import LSA, PPMI
from firth.models.word2vec import Word2Vec

__all__ = ["LSA", "PPMI", "FastText", "FastTextClassifier", "GloVe", "OneHot", "RandomVectors", "Word2Vec"]
