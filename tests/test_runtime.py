"""The choice of instruction sets, aligned matrices and random fills."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import firth
from firth import _core
from firth.runtime import padded_rows


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_cpu_info():
    info = firth.cpu_info()
    assert info["isa"] in info["available"]
    assert set(info["available"]) <= set(info["built"])
    assert info["threads"] >= 1


def test_the_best_instruction_set_is_chosen():
    result = python("import firth; print(firth.cpu_info()['isa'])", FIRTH_ISA="")
    assert result.stdout.strip() == _core.available_isas()[-1]


@pytest.mark.parametrize("isa", _core.available_isas())
def test_firth_isa_forces_one(isa):
    assert python("import firth; print(firth.cpu_info()['isa'])", FIRTH_ISA=isa).stdout.strip() == isa


@pytest.mark.skipif("x86-64-v4+amx" not in _core.available_isas(), reason="no AMX here")
def test_without_leave_to_use_tiles_there_are_none():
    # Linux refuses where a thread's stack for signals has no room for what tiles hold.
    script = """
import ctypes
class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
room = ctypes.create_string_buffer(4096)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(ctypes.addressof(room), 0, 4096)), None) == 0
import firth
print(firth.cpu_info()["isa"])"""
    assert python(script, FIRTH_ISA="").stdout.strip() == "x86-64-v4"


def test_an_unavailable_instruction_set_is_an_error_that_lists_the_available():
    result = python("import firth", FIRTH_ISA="sse9")
    assert result.returncode != 0
    message = result.stderr.splitlines()[-1]
    assert "sse9" in message
    for isa in _core.available_isas():
        assert isa in message


@pytest.mark.parametrize("shape", [(1, 1), (7, 16), (3, 100), (0, 5)])
def test_padded_rows(shape):
    matrix = padded_rows(*shape)
    assert matrix.shape == shape
    assert not matrix.any()
    assert matrix.strides[0] % 64 == 0 or shape[0] == 0
    assert matrix.ctypes.data % 64 == 0 or shape[0] == 0


def test_padded_rows_beyond_memory():
    with pytest.raises(MemoryError, match="4503599627370496000 bytes"):
        padded_rows(2**40, 2**10 * 1000)


def test_fill_uniform():
    a, b, c = (padded_rows(1000, 37) for _ in range(3))
    _core.fill_uniform(a, scale=0.25, seed=3, threads=1)
    _core.fill_uniform(b, scale=0.25, seed=3, threads=3)
    _core.fill_uniform(c, scale=0.25, seed=4, threads=1)
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    assert a.min() >= -0.25
    assert a.max() < 0.25
    assert abs(a.mean()) < 0.005
    assert a.std() == pytest.approx(0.25 / np.sqrt(3), rel=0.02)
    rows = np.lib.stride_tricks.as_strided(a, (1000, a.strides[0] // 4))
    assert not rows[:, 37:].any()
