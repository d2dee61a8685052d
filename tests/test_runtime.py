"""The choice of instruction sets, aligned matrices and random fills."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

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


needs_amx = pytest.mark.skipif("x86-64-v4+amx" not in _core.available_isas(), reason="no AMX here")

# A signal stack that has no room for the contents of tiles. Linux refuses tiles while there is one, and refuses one as
# soon as it has granted tiles.
SMALL_STACK = """
import ctypes, os, sys
import numpy as np
import firth
class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
room = ctypes.create_string_buffer(4096)
def small_stack():
    return ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(ctypes.addressof(room), 0, 4096)), None) == 0
def attend(dtype):
    q = np.full((1, 1, 64, 32), 0x3F80 if dtype == np.uint16 else 1, dtype)  # ones; whole numbers of 16 bits are bf16
    options = dict.fromkeys(("window", "lengths", "visible", "added", "bias", "slopes"))
    options |= {"causal": False, "scale": 1.0, "dropout": 0.0, "seed": 0}
    out, lse = np.empty_like(q), np.empty((1, 1, 64), np.float32)
    firth._core.attend(q, q, q, out, lse, options=options, threads=1)
    assert (out == q).all()
"""


@needs_amx
def test_tiles_are_requested_at_the_first_attention_in_bf16():
    script = """
assert firth.cpu_info()["isa"] == "x86-64-v4+amx"
attend(np.float32)
assert small_stack()
no_stack = Stack(None, 2, 0)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(no_stack), None) == 0
attend(np.uint16)
assert firth.cpu_info()["isa"] == "x86-64-v4+amx"
assert not small_stack()
child = os.fork()
if child == 0:
    attend(np.uint16)
    os._exit(firth.cpu_info()["isa"] != "x86-64-v4+amx")
assert os.waitpid(child, 0)[1] == 0
print("done")"""
    result = python(SMALL_STACK + script, FIRTH_ISA="")
    assert result.stdout == "done\n", result.stderr


@needs_amx
@pytest.mark.parametrize("forced", ["", "x86-64-v4+amx"])
def test_without_tiles_bf16_is_computed_by_the_next_best_instruction_set(forced):
    script = """
assert small_stack()
attend(np.uint16)
info = firth.cpu_info()
assert "x86-64-v4+amx" not in info["available"]
attend(np.uint16)
print(info["isa"])"""
    result = python(SMALL_STACK + script, FIRTH_ISA=forced)
    assert result.stdout == "x86-64-v4\n", result.stderr


def is_refused(isa):
    try:
        _core.use_isa(isa)
    except RuntimeError as error:
        return f"'{isa}' cannot be selected while kernels are running" in str(error)
    return False


@pytest.mark.skipif(len(_core.available_isas()) == 1, reason="one instruction set")
def test_the_instruction_set_cannot_change_during_work():
    before = _core.current_isa()
    other = next(name for name in _core.available_isas() if name != before)
    q = np.ones((1, 2, 1500, 64), np.float32)
    worker = threading.Thread(target=firth.attention, args=(q, q, q), kwargs={"threads": 1})
    worker.start()
    refused = False
    while worker.is_alive():
        refused |= is_refused(other)
    assert refused
    _core.use_isa(before)
    assert _core.current_isa() == before


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_may_change_the_instruction_set():
    before = _core.current_isa()
    q = np.ones((1, 2, 3000, 64), np.float32)
    worker = threading.Thread(target=firth.attention, args=(q, q, q), kwargs={"threads": 1})
    worker.start()
    while worker.is_alive() and not is_refused(before):
        pass
    child = os.fork()
    if child == 0:
        os._exit(is_refused(before))
    worker.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


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
