"""The machine: which instruction sets run here, how many threads, and matrices laid out for the kernels."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from firth import _core
from firth.checks import whole_number


def cpu_info() -> dict[str, Any]:
    """Describe the kernels in use.

    Returns
    -------
    dict
        ``isa``: the instruction set in use; ``available``: those that this processor runs, oldest first; ``built``:
        those of this build; ``threads``: processors that this process may use; ``openmp``: whether threads are
        OpenMP's; ``compiler``: the compiler's version.

    Notes
    -----
    The environment variable ``FIRTH_ISA``, read at import, forces one of the available instruction sets.

    ``x86-64-v4+amx`` differs from ``x86-64-v4`` in bf16 attention only, whose first call asks Linux for AMX. If Linux
    refuses, ``x86-64-v4`` is used and reported from then on.

    On ARM, ``aarch64+bf16`` differs from ``aarch64`` in bf16 attention only.
    """
    return {
        "isa": _core.current_isa(),
        "available": _core.available_isas(),
        "built": _core.built_isas(),
        "threads": default_threads(),
        "openmp": _core.OPENMP,
        "compiler": _core.COMPILER,
    }


def default_threads() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None) -> int:
    """The threads to use: `threads`, checked; for None all processors that this process may use."""
    return default_threads() if threads is None else whole_number("threads", threads, low=1, high=4096)


class Threaded:
    """Has the option `threads`."""

    threads: int | None

    @property
    def n_threads(self) -> int:
        """The threads that are used."""
        return thread_count(self.threads)


def padded_size(columns: int) -> int:
    """Floats from one row of `padded_rows` to the next."""
    return -(-columns // _core.ROW_FLOATS) * _core.ROW_FLOATS


def padded_rows(rows: int, columns: int) -> NDArray[np.float32]:
    """A zeroed float32 matrix (rows, columns), with rows aligned to 64 bytes and padded to a multiple of 16 floats."""
    stride = padded_size(columns)
    try:
        memory = np.zeros(rows * stride + _core.ROW_FLOATS, np.float32)
    except MemoryError:
        raise MemoryError(f"no memory for {rows} rows of {columns} numbers ({4 * rows * stride} bytes)") from None
    start = (-memory.ctypes.data % (4 * _core.ROW_FLOATS)) // 4
    return memory[start : start + rows * stride].reshape(rows, stride)[:, :columns]
