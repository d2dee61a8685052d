"""Fused attention on the processor: forward, backward, one step against a cache, and the weights on request.

Every function takes NumPy arrays, or arrays of any library that supports DLPack, such as PyTorch's tensors, in float32,
bf16 or float16, and returns arrays of the same library and type. float16 is computed in float32: inputs are converted
first, and results are rounded to float16 at the end. In bf16, denormal numbers may count as zero.

The documentation of `attention` defines which keys a query sees and how they are weighted, for all functions here. No
square matrix is ever stored (Dao et al. 2022). Results are the same bits for any number of threads.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from firth import _core
from firth.checks import real_number, refuse_masked, whole_number
from firth.runtime import thread_count

if TYPE_CHECKING:
    from typing_extensions import Unpack

NO_DROPOUT = 0.0  # the default, known by identity: it needs no check


class ScoreOptions(TypedDict, total=False):
    """Options of all functions here; `attention` describes them."""

    causal: bool
    window: int | None
    lengths: ArrayLike | None
    mask: Any
    bias: Any
    alibi: ArrayLike | None
    scale: float | None
    threads: int | None


class AttentionOptions(ScoreOptions, total=False):
    """Options of `attention` and `attention_backward`."""

    dropout: float
    seed: int


class Options(NamedTuple):
    """The options of `attention`, in its order, but for `return_lse`."""

    causal: bool = False
    window: int | None = None
    lengths: Any = None
    mask: Any = None
    bias: Any = None
    alibi: Any = None
    scale: float | None = None
    dropout: float = NO_DROPOUT
    seed: Any = 0
    threads: int | None = None


class AttentionGradients(NamedTuple):
    """Gradients like q, k, v and bias; the last is None without a bias."""

    q: Any
    k: Any
    v: Any
    bias: Any


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: ArrayLike | None = None,
    mask: Any = None,
    bias: Any = None,
    alibi: ArrayLike | None = None,
    scale: float | None = None,
    dropout: float = NO_DROPOUT,
    seed: int = 0,
    return_lse: bool = False,
    threads: int | None = None,
) -> Any:
    """Compute attention: for each query the weighted mean of the values whose keys it sees.

    **Which keys a query sees.** Query ``i`` of ``Tq`` stands at position ``i + Tk - Tq`` among the ``Tk`` keys, so that
    the last query stands at the last key (the matrix is aligned at the bottom right). It sees key ``j`` if *all* of the
    given conditions hold:

    - ``causal``: ``j <= position``;
    - ``window``: ``|position - j| <= window``;
    - ``lengths``: ``j < lengths[batch]``;
    - ``mask``, if boolean: it is true; if of floats, as ``bias``: it is not minus infinity.

    A query that sees no key has an output of zeros, a log-sum-exp of minus infinity, and gradients of zeros. Masked
    keys never affect the output, even if they contain NaN.

    **Its score** is ``scale * q . k + mask + bias - alibi[head] * |position - j|``, and its output the mean of the
    values it sees, weighted by the exponentials of the scores (Vaswani et al. 2017, equation 1). With ``dropout`` each
    weight is zero with that probability and the others are divided by ``1 - dropout``.

    Parameters
    ----------
    q
        Queries, (batch, heads, Tq, D), in float32, bf16 or float16, with any strides.
    k, v
        Keys, (batch, key heads, Tk, D), and values, (batch, key heads, Tk, Dv), of the same type. The number of q's
        heads must be a multiple of theirs; that many consecutive heads of q share one key head.
    causal, window, lengths, mask
        Which keys are seen; `lengths` one for each text, `mask` of a shape that broadcasts to (batch, heads, Tq, Tk),
        boolean (true: seen) or float32 (added to the scores).
    bias
        Float32, broadcast like `mask` and added to the scores; `attention_backward` returns its gradient.
    alibi
        One slope for each head of q (Press, Smith & Lewis 2022).
    scale
        Factor of the products of queries and keys; None: 1 / sqrt(D).
    dropout, seed
        The probability that a weight is dropped; the same seed drops the same weights.
    return_lse
        Also return the log-sum-exp, which `attention_backward` needs.
    threads
        None: as many as the processors that this process may use.

    Returns
    -------
    out, or (out, lse)
        Outputs (batch, heads, Tq, Dv), of q's library, type and order of axes in memory; and the logarithm of the sum
        of the exponentials of each query's scores, float32 (batch, heads, Tq).

    Raises
    ------
    TypeError, ValueError
        If arrays have other types, or shapes that do not go together.
    """
    plain = window is lengths is mask is bias is alibi is scale is None and dropout is NO_DROPOUT and seed == 0
    if plain and not return_lse and _free(q) and _free(k) and _free(v):
        result = _core.attend_plain(q, k, v, causal=bool(causal), threads=thread_count(threads))
        if result is not None:
            return result
    call = Call(q, k, v, Options(causal, window, lengths, mask, bias, alibi, scale, dropout, seed, threads))
    out = call.q.empty_like((*call.q.shape[:3], call.v.shape[3]))
    lse = np.empty(call.q.shape[:3], np.float32)
    _core.attend(call.q.array, call.k.array, call.v.array, out, lse, options=call.options, threads=call.threads)
    result = call.q.as_given(out)
    return (result, call.q.give_back(lse)) if return_lse else result


def attention_backward(
    grad_out: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, **options: Unpack[AttentionOptions]
) -> AttentionGradients:
    """Gradients of q, k, v and bias from that of the output (Dao et al. 2022, algorithm 4).

    Scores are recomputed from the log-sum-exp. Blocks of keys add to the gradients of queries in a fixed order, so the
    result has the same bits for any number of threads.

    Parameters
    ----------
    grad_out
        Gradient of the output, of its shape and type.
    out, lse
        What `attention` returned with ``return_lse=True``.
    q, k, v, options
        The arguments of `attention`.
    """
    call = Call(q, k, v, Options(**options))
    gradient, forward = _Array("grad_out", grad_out), _Array("out", out)
    for one in (gradient, forward):
        one.require_like(call.q, (*call.q.shape[:3], call.v.shape[3]))
    dq, dk, dv = (one.empty_like(one.shape) for one in (call.q, call.k, call.v))
    bias_gradient = None if call.bias is None else np.zeros(call.bias.shape, np.float32)
    # A bias that is the same for all keys of a row changes no weight: its gradient is zero.
    varies = bias_gradient is not None and bias_gradient.shape[3] == call.k.shape[2]
    _core.attend_backward(
        gradient.array,
        *(call.q.array, call.k.array, call.v.array),
        forward.array,
        call.check_lse(lse),
        *(dq, dk, dv),
        bias_gradient if varies else None,
        options=call.options,
        threads=call.threads,
    )
    shaped = None if bias_gradient is None else call.q.give_back(bias_gradient.reshape(np.shape(options["bias"])))
    return AttentionGradients(call.q.as_given(dq), call.k.as_given(dk), call.v.as_given(dv), shaped)


def attention_weights(
    q: Any,
    k: Any,
    lse: Any,
    *,
    heads: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    **options: Unpack[ScoreOptions],
) -> Any:
    """Weights of some heads and some queries, recomputed from the log-sum-exp: only these rows take memory.

    They are float32, (batch, chosen heads, chosen rows, Tk). The sum of a row is one, or zero if its query sees no key.

    Parameters
    ----------
    q, k, options
        The arguments of `attention`, without dropout.
    lse
        What `attention` returned with ``return_lse=True``.
    heads, rows
        Which ones, each counted from 0, or from the end if negative; None: all.

    """
    call = Call(q, k, None, Options(**options))
    chosen = numbers("heads", heads, call.q.shape[1]), numbers("rows", rows, call.q.shape[2])
    shape = (call.q.shape[0], len(chosen[0]), len(chosen[1]), call.k.shape[2])
    weights = np.empty(shape, np.float32)
    _core.attention_weights(
        call.q.array, call.k.array, call.check_lse(lse), *chosen, weights, options=call.options, threads=call.threads
    )
    return call.q.give_back(weights)


def attention_entropies(q: Any, k: Any, lse: Any, **options: Unpack[ScoreOptions]) -> Any:
    """Entropies of all rows of weights, in nats, without keeping the weights.

    Parameters are those of `attention_weights`. The result is float32, (batch, heads, Tq): 0 where one key has all the
    weight, log(n) where n keys have equal weights.
    """
    call = Call(q, k, None, Options(**options))
    entropies = np.empty(call.q.shape[:3], np.float32)
    _core.attention_entropies(
        call.q.array, call.k.array, call.check_lse(lse), entropies, options=call.options, threads=call.threads
    )
    return call.q.give_back(entropies)


class _Array:
    """An array of some library: as the kernels take it, and how to make more of its kind.

    Kernels take float32, and bf16 as whole numbers of 16 bits. float16 is converted to float32 here, and results back.
    """

    __slots__ = ("array", "given", "kind", "name", "shape", "torch")

    def __init__(self, name: str, given: Any) -> None:
        refuse_masked(name, given)
        torch = sys.modules.get("torch")
        self.torch = torch if torch is not None and isinstance(given, torch.Tensor) else None
        if self.torch is None and not hasattr(given, "__dlpack__"):
            raise TypeError(f"{name} must be an array or a tensor, not {type(given).__name__}")
        if self.torch is not None and given.requires_grad:
            raise TypeError(
                f"{name} is a tensor that requires a gradient: use firth.contextual.attention, or {name}.detach()"
            )
        self.name = name
        self.given = given
        self.kind = _kind(name, given.dtype)
        self.shape = tuple(given.shape)
        if isinstance(given, np.ndarray):
            self.array = given.view(np.uint16) if self.kind == "bf16" else given
        elif not _in_memory(given):
            raise ValueError(f"{name} lies on another device: move it to the processor's memory first")
        elif self.torch is not None:
            self.array = (given.view(self.torch.uint16) if self.kind == "bf16" else given.float()).numpy()
        else:
            self.array = np.from_dlpack(given) if self.kind == "float16" else given.__dlpack__()
        if self.kind == "float16":
            self.array = self.array.astype(np.float32, copy=False)
        if len(self.shape) != 4:
            raise ValueError(f"{name} must have four axes (batch, heads, time, width), not shape {self.shape}")

    def require_like(self, other: _Array, shape: tuple[int, ...]) -> None:
        """Raise unless this array has the shape, and the other's type."""
        if self.shape != shape:
            raise ValueError(f"{self.name} must have shape {shape}, not {self.shape}")
        if self.kind != other.kind:
            raise TypeError(f"{self.name} must be {other.kind} as {other.name} is, not {self.kind}")

    def empty_like(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """A new array, as the kernels take it, with the axes in the same order in memory."""
        storage = np.uint16 if self.kind == "bf16" else np.float32
        strides = getattr(self.array, "strides", None)
        if strides is not None and self.shape[1] > 1 and self.shape[2] > 1 and strides[1] < strides[2]:
            batch, heads, time, width = shape
            return np.empty((batch, time, heads, width), storage).transpose(0, 2, 1, 3)
        return np.empty(shape, storage)

    def as_given(self, made: NDArray[Any]) -> Any:
        """An array of `empty_like` that kernels have filled, in this array's library and type."""
        if self.kind == "float16":
            with np.errstate(over="ignore"):  # infinite, as in any arithmetic of float16
                made = made.astype(np.float16)
        return self.give_back(made)

    def give_back(self, made: NDArray[Any]) -> Any:
        """An array of NumPy in this array's library; whole numbers of 16 bits as bf16."""
        bf16 = made.dtype == np.uint16
        if self.torch is not None:
            tensor = self.torch.from_numpy(made)
            return tensor.view(self.torch.bfloat16) if bf16 else tensor
        if isinstance(self.given, np.ndarray):
            return made.view(self.given.dtype) if bf16 else made
        namespace = self.given.__array_namespace__()
        return namespace.asarray(made.view(namespace.bfloat16)) if bf16 else namespace.from_dlpack(made)


class Call:
    """The checked arguments of all functions."""

    def __init__(self, q: Any, k: Any, v: Any, given: Options) -> None:
        causal, window, lengths, mask, bias, alibi, scale, dropout, seed, threads = given
        self.q, self.k = _Array("q", q), _Array("k", k)
        self.v = self.k if v is None else _Array("v", v)
        batch, heads, n_queries, width = self.q.shape
        key_heads, n_keys = self.k.shape[1:3]
        self.k.require_like(self.q, (batch, key_heads, n_keys, width))
        self.v.require_like(self.q, (batch, key_heads, n_keys, self.v.shape[3]))
        if width == 0 or self.v.shape[3] == 0:
            raise ValueError("queries, keys and values must have at least one dimension")
        if heads % max(key_heads, 1) or (heads > 0 and key_heads == 0):
            raise ValueError(f"q's {heads} heads must be a multiple of k's {key_heads}")
        self.scores = (batch, heads, n_queries, n_keys)
        visible = added = None
        if mask is not None:
            mask = small_array("mask", mask)
            if mask.dtype == np.bool_:
                visible = self._broadcast("mask", mask).view(np.uint8)
            elif mask.dtype.kind == "f":
                added = self._broadcast("mask", _float32("mask", mask))
            else:
                raise TypeError(f"mask must be boolean (true: seen) or of floats, not {mask.dtype}")
        self.bias = None
        if bias is not None:
            bias = _float32("bias", small_array("bias", bias))
            self.bias = bias.reshape((1,) * (4 - bias.ndim) + bias.shape)
            bias = self._broadcast("bias", bias)
        if scale is None:
            scale = 1 / math.sqrt(width)
        elif abs(scale := real_number("scale", scale)) > float(np.finfo(np.float32).max):
            raise ValueError(f"scale must be a finite number in float32, not {scale}")
        if dropout is not NO_DROPOUT:
            dropout = real_number("dropout", dropout, low=0)
            if np.float32(dropout) >= 1:
                raise ValueError(f"dropout must be at least 0 and, in float32, below 1, not {dropout}")
        self.options = {
            "causal": bool(causal),
            # No two positions are further apart than this bound.
            "window": None if window is None else min(whole_number("window", window), 2**60),
            "lengths": None if lengths is None else self._lengths(lengths),
            "visible": visible,
            "added": added,
            "bias": bias,
            "slopes": None if alibi is None else self._slopes(alibi),
            "scale": scale,
            "dropout": dropout,
            "seed": whole_number("seed", seed, low=0, high=2**64 - 1),
        }
        self.threads = thread_count(threads)

    def _broadcast(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        try:
            return np.broadcast_to(array, self.scores)
        except ValueError:
            raise ValueError(
                f"{name} of shape {array.shape} does not broadcast to {self.scores}, (batch, heads, Tq, Tk)"
            ) from None

    def _lengths(self, lengths: ArrayLike) -> NDArray[np.int64]:
        given = small_array("lengths", lengths)
        if given.dtype.kind not in "iu":
            raise TypeError(f"lengths must be whole numbers, not {given.dtype}")
        if given.shape != self.scores[:1]:
            raise ValueError(f"lengths must be {self.scores[0]} numbers, one for each text, not of shape {given.shape}")
        if given.size and not (given.min() >= 0 and given.max() <= self.scores[3]):
            raise ValueError(f"lengths must be 0 to {self.scores[3]}, the number of keys")
        return np.ascontiguousarray(given, np.int64)

    def _slopes(self, alibi: ArrayLike) -> NDArray[np.float32]:
        given = _float32("alibi", small_array("alibi", alibi))
        if given.shape != self.scores[1:2]:
            raise ValueError(f"alibi must have one slope for each of {self.scores[1]} heads, not shape {given.shape}")
        if not np.isfinite(given).all():
            raise ValueError("alibi must be finite")
        return np.ascontiguousarray(given)

    def check_lse(self, lse: Any) -> NDArray[np.float32]:
        """A log-sum-exp as the kernels take it."""
        given = _float32("lse", small_array("lse", lse))
        if given.shape != self.scores[:3]:
            raise ValueError(f"lse must have shape {self.scores[:3]}, not {given.shape}")
        return np.ascontiguousarray(given)


@functools.cache
def _kind(name: str, dtype: Any) -> str:
    kind = str(dtype).rpartition(".")[2]
    if kind not in ("float32", "bfloat16", "float16"):
        raise TypeError(f"{name} must be float32, bf16 or float16, not {kind}")
    return "bf16" if kind == "bfloat16" else kind


def _in_memory(given: Any) -> bool:
    """Whether an array is in the processor's memory."""
    try:
        return int(given.__dlpack_device__()[0]) == 1
    except (BufferError, ValueError):  # DLPack has no number for its device
        return False


def _free(given: Any) -> bool:
    """Whether this array requires no gradient, and its numbers are those in memory, not their negatives."""
    return not (getattr(given, "requires_grad", False) or getattr(given, "is_neg", bool)())


def small_array(name: str, given: Any) -> NDArray[Any]:
    """A small or broadcast argument as an array of NumPy's."""
    refuse_masked(name, given)
    if getattr(given, "requires_grad", False):
        if name != "bias":
            raise TypeError(f"{name} requires a gradient, which only bias has: give {name}.detach(), or bias")
        raise TypeError("bias requires a gradient: use firth.contextual.attention, or bias.detach()")
    if not isinstance(given, np.ndarray) and hasattr(given, "__dlpack__"):
        if str(getattr(given, "dtype", "")).endswith("bfloat16"):
            raise TypeError(f"{name} must be float32, not bfloat16")
        if not _in_memory(given):
            raise ValueError(f"{name} lies on another device: move it to the processor's memory first")
        return cast(NDArray[Any], np.from_dlpack(given))
    return np.asarray(given)


def _float32(name: str, given: NDArray[Any]) -> NDArray[np.float32]:
    if given.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold numbers, not {given.dtype}")
    return given.astype(np.float32, copy=False)


def numbers(name: str, given: Sequence[int] | None, n: int) -> NDArray[np.int64]:
    """Some of the numbers 0 .. n - 1, None for all; negative ones count from the end."""
    if given is None:
        return np.arange(n)
    if not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a list of whole numbers, not {given!r}")
    chosen = np.array([whole_number(name, number, low=-n, high=n - 1) for number in given], np.int64)
    return np.where(chosen < 0, chosen + n, chosen)
