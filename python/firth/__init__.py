"""firth learns word vectors from the company that words keep."""

from firth import evaluate
from firth.runtime import cpu_info, select_isa
from firth.vectors import Vectors, load_vectors

select_isa()

__all__ = ["Vectors", "cpu_info", "evaluate", "load_vectors"]
