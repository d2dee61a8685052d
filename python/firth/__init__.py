"""firth learns word vectors from the company that words keep."""

from firth import evaluate
from firth.corpus import Corpus, Vocabulary
from firth.models import Word2Vec, load
from firth.runtime import cpu_info, select_isa
from firth.vectors import Vectors, load_vectors

select_isa()

__all__ = ["Corpus", "Vectors", "Vocabulary", "Word2Vec", "cpu_info", "evaluate", "load", "load_vectors"]
