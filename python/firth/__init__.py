"""firth learns word vectors from the company that words keep."""

from firth.runtime import cpu_info, select_isa

select_isa()

__all__ = ["cpu_info"]
