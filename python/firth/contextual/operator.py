"""The fused attention of `firth.attention` as an operator of PyTorch, `torch.ops.firth.attention`; matrix products.

Autograd, ``torch.compile`` and ``torch.export`` handle it like torch's own operators. It reaches the kernels through
NumPy's views of the tensors' memory, so that one build works with every torch. It has first derivatives, backward only,
and no rules for ``torch.func``'s transformations.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from firth import _core
from firth.checks import real_number, whole_number
from firth.fused_attention import NO_DROPOUT, Call, Options, small_array

_FUSED_TYPES = (torch.float32, torch.bfloat16)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: Tensor | None = None,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    alibi: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    seed: int | Tensor = 0,
) -> Tensor:
    """Compute attention as `firth.attention` does, with gradients of q, k, v and bias.

    On the CPU, in float32 and bf16, the fused kernels run, with as many threads as torch uses. On other devices and in
    other types torch's own `scaled_dot_product_attention` computes the same; there dropout is drawn from torch's
    generator rather than from `seed`, and masked keys and values must be finite.

    Parameters
    ----------
    q, k, v, causal, window, lengths, mask, bias, alibi, scale, dropout
        As in `firth.attention`, with tensors for arrays; neither `mask` nor `alibi` has a gradient.
    seed
        A number, or a tensor of one int64, which torch's generator can draw inside a compiled graph.

    Returns
    -------
    Tensor
        (batch, heads, Tq, Dv), of q's type. If q is a view of (batch, Tq, heads, D), the result is such a view too:
        transposed back, it is contiguous.

    Raises
    ------
    TypeError, ValueError
        If tensors have other types, or shapes that do not go together; if `mask` or `alibi` requires a gradient.
    NotImplementedError
        For forward-mode and second derivatives.
    """
    return _attend([q, k, v], Options(causal, window, lengths, mask, bias, alibi, scale, dropout, seed))


def self_attention(qkv: Tensor, **options: Any) -> Tensor:
    """`attention` on the result of one projection (batch, T, 3, heads, D), without a copy forward or backward.

    Returns (batch, heads, T, D), a view of (batch, T, heads, D). `options` are those of `attention`.
    """
    if qkv.dim() != 5 or qkv.shape[2] != 3:
        raise ValueError(f"qkv must have shape (batch, time, 3, heads, width), not {tuple(qkv.shape)}")
    return _attend([qkv], Options(**options))


def _attend(given: list[Tensor], options: Options) -> Tensor:
    causal, window, *terms, scale, dropout, seed, _ = options
    for one in given:
        if not isinstance(one, Tensor):
            raise TypeError(f"q, k and v must be tensors, not {type(one).__name__}; firth.attention takes arrays")
    for name, term in zip(("lengths", "mask", "bias", "alibi"), terms, strict=True):
        if term is not None and not isinstance(term, Tensor):
            raise TypeError(f"{name} must be a tensor, not {type(term).__name__}")
        if term is not None and term.requires_grad and name != "bias":
            small_array(name, term)  # raises an error with the remedy
    first = given[0]
    if first.device.type != "meta" and torch.is_autocast_enabled(first.device.type):
        low = torch.get_autocast_dtype(first.device.type)
        given = [one if one.dtype == torch.float64 else one.to(low) for one in given]
        first = given[0]
    if any(one.dtype != first.dtype for one in given):
        raise TypeError(f"q, k and v must have one type, not {', '.join(str(one.dtype) for one in given)}")
    fused = first.device.type in ("cpu", "meta") and first.dtype in _FUSED_TYPES
    # Without autograd, torch's dispatcher would cost more than one step against a cache.
    plain = fused and type(first) is Tensor and first.device.type == "cpu"
    plain = plain and not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if not plain:  # as torch wants them; `Call` checks their ranges and the shapes
        window = None if window is None else whole_number("window", window)
        scale = 1 / math.sqrt(max(first.shape[-1], 1)) if scale is None else real_number("scale", scale)
        dropout = real_number("dropout", dropout, low=0)
    if not fused:
        if not torch.compiler.is_compiling():
            q, k, v = map(_stand_in, _parts(given))
            lengths, mask, bias, alibi = (None if one is None else _stand_in(one) for one in terms)
            Call(q, k, v, Options(causal, window, lengths, mask, bias, alibi, scale, dropout))
        return torch_attention(*_parts(given), causal, window, *terms, scale, dropout)
    chance = None
    if dropout:
        chance = seed if isinstance(seed, Tensor) else torch.tensor(_signed(seed), dtype=torch.int64)
    rest = (causal, window, *terms, scale, dropout, chance)
    if plain:
        return _forward(given, *rest)[0]
    unpack: Any = forward_ad.unpack_dual
    if not torch.compiler.is_compiling() and any(unpack(one).tangent is not None for one in given):
        # torch would continue, with a derivative of zero.
        raise NotImplementedError("the fused attention has no forward-mode derivatives (jvp), only backward ones")
    return cast(Tensor, torch.ops.firth.attention(given, *rest)[0])


def _parts(given: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (batch, heads, time, width), as views of three tensors or of one."""
    q, k, v = given[0].permute(2, 0, 3, 1, 4).unbind(0) if len(given) == 1 else given
    return q, k, v


def _like(q: Tensor, width: int) -> Tensor:
    """A new tensor (batch, heads, time, width) with the axes in the same order in memory as q's."""
    batch, heads, time = q.shape[:3]
    if heads > 1 and q.stride(1) < q.stride(2):
        return q.new_empty((batch, time, heads, width)).transpose(1, 2)
    return q.new_empty((batch, heads, time, width))


def _array(tensor: Tensor) -> NDArray[Any]:
    """A tensor's memory as the kernels take it: bf16 as 16-bit integers."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _call(given: list[Tensor], causal: bool, window: int | None, *rest: Any) -> Call:
    """The arguments of the kernels, checked as in `firth.attention`."""
    q, k, v = (part.detach() if part.requires_grad else part for part in _parts(given))
    *terms, scale, dropout, seed = rest
    lengths, mask, bias, alibi = (None if one is None else _small(one) for one in terms)
    chance, seed, threads = dropout or NO_DROPOUT, 0 if seed is None else int(seed) % 2**64, torch.get_num_threads()
    return Call(q, k, v, Options(causal, window, lengths, mask, bias, alibi, scale, chance, seed, threads))


def _small(tensor: Tensor) -> NDArray[Any]:
    """A small tensor as an array; floats as float32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _stand_in(tensor: Tensor) -> Tensor:
    """A tensor of the same shape without memory, to be checked; floats as float32."""
    kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.zeros((), dtype=kind, device="cpu").expand(tensor.shape)


def _signed(seed: int) -> int:
    """A 64-bit seed as torch's int64 holds it."""
    seed = whole_number("seed", seed, high=2**64 - 1)
    return seed - 2**64 if seed >= 2**63 else seed


def _forward(given: list[Tensor], *rest: Any) -> tuple[Tensor, Tensor]:
    call = _call(given, *rest)
    q, _, v = _parts(given)
    out = _like(q, v.shape[3])
    lse = np.empty(q.shape[:3], np.float32)
    _core.attend(call.q.array, call.k.array, call.v.array, _array(out), lse, options=call.options, threads=call.threads)
    return out, torch.from_numpy(lse)


_REST = """bool causal, int? window, Tensor? lengths, Tensor? mask, Tensor? bias, Tensor? alibi, float scale,
    float dropout, Tensor? seed"""

_on_cpu = functools.partial(torch.library.custom_op, mutates_args=(), device_types="cpu")
_attention = _on_cpu("firth::attention", schema=f"(Tensor[] given, {_REST}) -> (Tensor, Tensor)")(_forward)


@_attention.register_fake
def _fake_forward(given: list[Tensor], *rest: Any) -> tuple[Tensor, Tensor]:
    q, _, v = _parts(given)
    return _like(q, v.shape[3]), q.new_empty(q.shape[:3], dtype=torch.float32)


def _gradients(given: list[Tensor], bias: Tensor | None) -> list[Tensor]:
    """New tensors for the gradients of the given tensors and, if there is one, of bias."""
    packed = len(given) == 1
    moved = [one.new_empty(one.shape) if packed else _like(one, one.shape[3]) for one in given]
    return moved if bias is None else [*moved, bias.new_empty(bias.shape, dtype=torch.float32)]


def _backward(grad: Tensor, given: list[Tensor], out: Tensor, lse: Tensor, *rest: Any) -> list[Tensor]:
    call = _call(given, *rest)
    moved = _gradients(given, rest[4])
    dq, dk, dv = map(_array, _parts(moved[: len(given)]))
    bias_gradient = None
    if rest[4] is not None:
        gradient = moved[-1].zero_()
        if gradient.shape[-1] == call.k.shape[2]:  # a bias that is the same for all keys changes no weight
            bias_gradient = gradient.view((1,) * (4 - gradient.dim()) + gradient.shape).numpy()
    _core.attend_backward(
        _array(grad),
        *(call.q.array, call.k.array, call.v.array),
        _array(out),
        lse.numpy(),
        *(dq, dk, dv),
        bias_gradient,
        options=call.options,
        threads=call.threads,
    )
    return moved


_BACKWARD = f"(Tensor grad, Tensor[] given, Tensor out, Tensor lse, {_REST}) -> Tensor[]"
_attention_backward = _on_cpu("firth::attention_backward", schema=_BACKWARD)(_backward)


@_attention_backward.register_fake
def _fake_backward(grad: Tensor, given: list[Tensor], out: Tensor, lse: Tensor, *rest: Any) -> list[Tensor]:
    return _gradients(given, rest[4])


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    given, causal, window, *terms, scale, dropout, seed = inputs
    ctx.save_for_backward(*given, *output, *terms, seed)
    ctx.given, ctx.numbers = len(given), (causal, window, scale, dropout)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    saved = ctx.saved_tensors  # read once: activation checkpointing allows no second time
    given, (out, lse, *terms, seed) = list(saved[: ctx.given]), saved[ctx.given :]
    if grad is None:
        return (None,) * 10
    causal, window, scale, dropout = ctx.numbers
    moved = torch.ops.firth.attention_backward(grad, given, out, lse, causal, window, *terms, scale, dropout, seed)
    bias = terms[2]
    bias_gradient = None if bias is None else moved[-1].to(bias.dtype)
    return moved[: ctx.given], None, None, None, None, bias_gradient, None, None, None, None


_attention.register_autograd(_differentiate, setup_context=_remember)


def _second(*_: Any) -> Any:
    raise NotImplementedError("the fused attention has first derivatives only, no second ones")


_attention_backward.register_autograd(_second)


def torch_attention(q: Tensor, k: Tensor, v: Tensor, *given: Any, **named: Any) -> Tensor:
    """`attention` by torch's own operator, with its generator for dropout: for other devices, types, and comparison."""
    causal, window, lengths, mask, bias, alibi, scale, dropout, *_ = Options(*given, **named)
    n_queries, n_keys = q.shape[2], k.shape[2]
    rest: dict[str, Any] = {"dropout_p": dropout, "scale": scale, "enable_gqa": k.shape[1] != q.shape[1]}
    causal = causal and n_queries > 1  # the last query sees all keys
    if all(term is None for term in (window, lengths, mask, bias, alibi)) and (not causal or n_queries == n_keys):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, **rest)
    key = torch.arange(n_keys, device=q.device)
    distance = torch.arange(n_keys - n_queries, n_keys, device=q.device)[:, None] - key
    seen = torch.ones((1, 1, n_queries, n_keys), dtype=torch.bool, device=q.device)
    added: Tensor | None = None
    if causal:
        seen = seen & (distance >= 0)
    if window is not None:
        seen = seen & (distance.abs() <= window)
    if lengths is not None:
        seen = seen & (key < lengths.to(q.device)[:, None, None, None])
    for term in (mask, bias):
        if term is not None and term.dtype == torch.bool:
            seen = seen & term
        elif term is not None:
            seen = seen & (term != -math.inf)
            finite = term.to(q.dtype).masked_fill(term == -math.inf, 0)
            added = finite if added is None else added + finite
    if alibi is not None:
        slope = -alibi.to(q)[:, None, None] * distance.abs()
        added = slope if added is None else added + slope
    # A row that sees no key would be NaN in some of torch's kernels: it sees all keys here, and is set to zero.
    blind = ~seen.any(-1, keepdim=True)
    seen = seen | blind
    allowed = seen if added is None else torch.where(seen, added, -math.inf)
    out = F.scaled_dot_product_attention(q, k, v, allowed.expand(*q.shape[:3], n_keys), **rest)
    return out.masked_fill(blind, 0)


def _prefers_onednn() -> bool:
    """Whether oneDNN is the faster library of matrix products here.

    In float32 torch calls MKL, which uses half of the registers' width on processors that are not Intel's (on a Zen 5:
    92 GFLOP/s of a core; oneDNN, which every torch contains too: 190).
    """
    try:
        foreign = "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    carried = bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]
    return foreign and carried and hasattr(torch.ops.mkldnn, "_linear_pointwise")


_PREFERS_ONEDNN = _prefers_onednn()
_FEW_ROWS = 8  # with fewer rows, calling oneDNN costs more than it saves


def _by_onednn(x: Tensor) -> bool:
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return _PREFERS_ONEDNN and plain and x.numel() >= _FEW_ROWS * x.shape[-1]


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x W^T + b, outside autograd, with the library that is faster here; `weight` (out, in) of any strides."""
    if not _by_onednn(x):
        return F.linear(x, weight, bias)
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(x.contiguous(), weight, bias, "none", [], ""))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`product` with gradients, as `torch.nn.functional.linear` computes it."""
    if torch.compiler.is_compiling() or not _by_onednn(x):  # compilers choose by themselves
        return F.linear(x, weight, bias)
    return cast(Tensor, _Linear.apply(x, weight, bias))  # type: ignore[no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        moved: list[Tensor | None] = [None, None, None]
        gradient = gradients[0].contiguous()
        if ctx.needs_input_grad[0]:
            moved[0] = product(gradient, weight.T)
        rows, before = gradient.flatten(0, -2), x.flatten(0, -2)
        if ctx.needs_input_grad[1]:
            # The smaller of the two is copied, transposed.
            if rows.shape[1] > before.shape[1]:
                moved[1] = product(before.T, rows.T).T.contiguous()
            else:
                moved[1] = product(rows.T, before.T)
        if ctx.needs_input_grad[2]:
            moved[2] = rows.sum(0)
        return tuple(moved)
