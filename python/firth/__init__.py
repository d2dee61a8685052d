"""firth learns word vectors from the company that words keep."""

from firth.corpus import Corpus, Vocabulary
from firth.runtime import cpu_info, select_isa

select_isa()

__all__ = ["Corpus", "Vocabulary", "cpu_info"]
