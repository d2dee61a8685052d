"""Fused attention against the textbook's, in float64, which keeps the square matrix and takes a query at a time."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import reference
from conftest import in_use
from firth import _core
from firth.fused_attention import attention, attention_backward, attention_entropies, attention_weights

KINDS = {"float32": np.float32, "bfloat16": reference.bfloat16}
EPS = {"float32": 2.0**-23, "bfloat16": 2.0**-8, "float16": 2.0**-11}
# For tests where one number of threads is enough.
one_thread = pytest.mark.parametrize("threads", [1])
several_threads = pytest.mark.parametrize("threads", [3])
NO_WEIGHTS = ("dropout", "seed")  # options that weights and entropies do not have


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """Each instruction set that runs here, in use during the test; also those that differ in bf16 only."""
    with in_use(request.param):
        yield request.param


def inputs(seed, batches, heads, key_heads, n_queries, n_keys, width, value_width, spread=1.0):
    """q, k, v and a gradient of the output."""
    random = np.random.default_rng(seed)
    shapes = (
        (batches, heads, n_queries, width),
        (batches, key_heads, n_keys, width),
        (batches, key_heads, n_keys, value_width),
        (batches, heads, n_queries, value_width),
    )
    q, k, v, g = (random.standard_normal(shape).astype(np.float32) for shape in shapes)
    return q * np.float32(spread), k, v, g


def magnitudes(q, k, v, g, options):
    """How large the sums are of which out, lse, and the gradients of q, k, v and bias are what is left."""
    _, _, weights = reference.attention(q, k, v, **options)
    kept = reference.attention_kept(weights.shape, options.get("dropout", 0.0), options.get("seed", 0))
    group = q.shape[1] // max(k.shape[1], 1)
    q, k, v, g = (np.abs(x).astype(np.float64) for x in (q, k, v, g))
    wide_k, wide_v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scale = abs(options.get("scale", q.shape[3] ** -0.5))
    scores = scale * np.einsum("bhid,bhjd->bhij", q, wide_k)
    for name in ("mask", "bias"):
        term = options.get(name)
        if term is not None and term.dtype != bool:
            scores = scores + np.abs(np.where(np.isfinite(term), term, 0))
    if options.get("alibi") is not None:
        scores = scores + np.max(np.abs(options["alibi"]), initial=0) * sum(scores.shape[2:])
    of_weights = np.einsum("bhid,bhjd->bhij", g, wide_v) * kept
    slopes = weights * (of_weights + (weights * of_weights).sum(-1, keepdims=True))

    def grouped(x):
        return x.reshape(x.shape[0], x.shape[1] // max(group, 1), group, *x.shape[2:]).sum(axis=2)

    largest = 1 + np.max(scores, initial=0)
    found = (
        np.einsum("bhij,bhjd->bhid", weights * kept, wide_v),
        np.ones(1),
        scale * np.einsum("bhij,bhjd->bhid", slopes, wide_k),
        grouped(scale * np.einsum("bhij,bhid->bhjd", slopes, q)),
        grouped(np.einsum("bhij,bhid->bhjd", weights * kept, g)),
        slopes.sum(axis=(0, 1, 2)),
    )
    return [largest * np.max(x, initial=0) for x in found]


def assert_close(name, got, exact, naive, size, eps):
    assert got.shape == exact.shape, name
    got = got.astype(np.float64)
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(exact), err_msg=name)
    there = ~np.isneginf(exact)
    error = np.max(np.abs(got[there] - exact[there]), initial=0)
    lost = np.max(np.abs(naive[there] - exact[there]), initial=0)
    assert error <= 3 * lost + 4 * eps * size, f"{name}: {error} off, the textbook's {lost}"


def check(q, k, v, g, options, *, threads=1, kind="float32", backward=True, ways=None):
    """Compare all results with the oracle's. `ways`: converts an array for firth, and a result for NumPy."""
    number, eps, oracle = KINDS.get(kind, np.float16), EPS[kind], reference.attention
    take, give = ways or ways_of(kind)
    q, k, v, g = map(number, (q, k, v, g))
    out, lse = attention(*map(take, (q, k, v)), return_lse=True, threads=threads, **options)
    exact, naive = oracle(q, k, v, **options), oracle(q, k, v, number=number, **options)
    sizes = magnitudes(q, k, v, g, options)
    for name, *found in zip(("out", "lse"), map(give, (out, lse)), exact, naive, sizes, strict=False):
        assert_close(name, *found, eps)
    viewed = {name: value for name, value in options.items() if name not in NO_WEIGHTS}
    weights = give(attention_weights(take(q), take(k), lse, threads=threads, **viewed))
    assert_close("weights", weights, exact[2], naive[2], sizes[1], eps)
    assert not weights[~reference.attention_seen(weights.shape, **without_terms(options))].any()
    entropies = give(attention_entropies(take(q), take(k), lse, threads=threads, **viewed))
    true_entropies, naive_entropies = (reference.attention_entropies(x[2]) for x in (exact, naive))
    assert_close("entropies", entropies, true_entropies, naive_entropies, sizes[1] * 10, eps)
    if not backward:
        return
    gradients = attention_backward(*map(take, (g, q, k, v)), out, lse, threads=threads, **options)
    exact = reference.attention_backward(g, q, k, v, **options)
    naive = reference.attention_backward(g, q, k, v, number=number, **options)
    for name, got, *found in zip(gradients._fields, gradients, exact, naive, sizes[2:], strict=True):
        assert (got is None) == (found[0] is None), name
        if got is not None:
            assert_close(f"gradient of {name}", give(got), *found, eps)


def without_terms(options):
    return {name: options[name] for name in ("causal", "window", "lengths", "mask", "bias") if name in options}


def same_bits(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            np.testing.assert_array_equal(x.view(np.uint32), y.view(np.uint32))


def everything(q, k, v, g, *, threads=1, kind="float32", **options):
    """All there is to compute."""
    take, give = ways_of(kind)
    q, k, v, g = map(take, (q, k, v, g))
    out, lse = attention(q, k, v, return_lse=True, threads=threads, **options)
    gradients = attention_backward(g, q, k, v, out, lse, threads=threads, **options)
    viewed = {name: value for name, value in options.items() if name not in NO_WEIGHTS}
    weights = attention_weights(q, k, lse, threads=threads, **viewed)
    found = out, lse, *gradients, weights, attention_entropies(q, k, lse, threads=threads, **viewed)
    return [x if x is None else give(x) for x in found]


def ways_of(kind):
    """Functions that convert an array of float32 to a kind, and back."""
    number = pytest.importorskip("ml_dtypes").bfloat16 if kind == "bfloat16" else np.dtype(kind)
    return (lambda x: x.astype(number)), (lambda x: x.astype(np.float32))


# ---- the oracle


@pytest.mark.parametrize("bias_shape", [(2, 4, 3, 5), (1, 4, 1, 5), (3, 5), (2, 1, 3, 1), ()])
def test_the_oracles_gradients_are_finite_differences(bias_shape):
    random = np.random.default_rng(3)
    q, k, v, g = (x.astype(np.float64) for x in inputs(1, 2, 4, 2, 3, 5, 3, 2))
    bias = random.standard_normal(bias_shape)
    options = {"causal": True, "window": 2, "alibi": np.linspace(0.1, 0.4, 4), "dropout": 0.3, "scale": 0.7}
    options |= {"mask": random.random((2, 1, 3, 5)) < 0.8, "lengths": [5, 3]}

    def loss(q, k, v, bias):
        return float((reference.attention(q, k, v, bias=bias, **options)[0] * g).sum())

    given = [q, k, v, bias]
    for which, gradient in enumerate(reference.attention_backward(g, q, k, v, bias=bias, **options)):
        direction = random.standard_normal(gradient.shape)
        step = 1e-5
        ends = [loss(*given[:which], given[which] + s * direction, *given[which + 1 :]) for s in (step, -step)]
        assert (gradient * direction).sum() == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-7, abs=1e-9)
        assert bias_shape == () or np.abs(gradient).max() > 0


# ---- against the oracle


@st.composite
def cases(draw):
    """Shapes and options."""
    few = st.integers(0, 2)
    batches, group, key_heads = draw(few), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    heads = group * key_heads
    n_queries = draw(st.one_of(st.integers(0, 4), st.integers(5, 140)))
    n_keys = draw(st.one_of(st.integers(0, 4), st.integers(5, 140)))
    if batches * heads * n_queries > 300:
        batches = 1
    widths = st.one_of(st.sampled_from([1, 16, 32, 64, 128]), st.integers(1, 130))
    width, value_width = draw(widths), draw(widths)
    seed = draw(st.integers(0, 2**32))
    random = np.random.default_rng(seed)
    shape = (batches, heads, n_queries, n_keys)

    def broadcast_shape():
        whole = tuple(size if draw(st.booleans()) else 1 for size in shape)
        return whole[draw(st.integers(0, 4)) :] if draw(st.booleans()) else whole

    options = {}
    if draw(st.booleans()):
        options["causal"] = True
    if draw(st.booleans()):
        options["window"] = draw(st.one_of(st.integers(0, 3), st.integers(0, 200)))
    if draw(st.booleans()):
        options["lengths"] = random.integers(0, n_keys + 1, batches)
    which = draw(st.sampled_from(["none", "boolean", "floats"]))
    if which != "none":
        mask = random.random(broadcast_shape()) < draw(st.sampled_from([0.0, 0.5, 0.95]))
        added = random.standard_normal(mask.shape)
        options["mask"] = mask if which == "boolean" else np.where(mask, added, -np.inf).astype(np.float32)
    if draw(st.booleans()):
        bias = random.standard_normal(broadcast_shape())
        hidden = random.random(bias.shape) < draw(st.sampled_from([0.0, 0.2]))
        options["bias"] = np.where(hidden, -np.inf, bias).astype(np.float32)
    if draw(st.booleans()):
        options["alibi"] = random.uniform(-0.1, 0.5, heads).astype(np.float32)
    if draw(st.booleans()):
        options["scale"] = draw(st.sampled_from([0.0, 1.0, -0.3, 0.05]))
    if draw(st.booleans()):
        options["dropout"] = draw(st.sampled_from([0.1, 0.5, 0.97]))
        options["seed"] = draw(st.sampled_from([0, 1, 2**64 - 1]))
    made = inputs(seed, batches, heads, key_heads, n_queries, n_keys, width, value_width)
    return made, options


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_everything_combines(route, kind, case):
    made, options = case
    check(*made, options, threads=route.threads, kind=kind)


SHAPES = {
    "one head": (1, 1, 1, 200, 200, 64, 64),
    "odd": (2, 2, 2, 131, 77, 33, 20),
    "grouped": (1, 6, 2, 70, 150, 16, 48),
    "multi-query": (1, 4, 1, 70, 130, 5, 130),
    "wide": (1, 2, 2, 70, 65, 128, 128),
    "one query": (2, 6, 2, 1, 300, 64, 64),
    "few queries": (1, 4, 2, 7, 90, 40, 24),
    "one key": (1, 3, 3, 80, 1, 8, 8),
    "queries of which some stand before all keys": (1, 1, 1, 150, 40, 16, 16),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_instruction_set_equals_oracle(route, shape, causal, kind):
    check(*inputs(1, *shape, spread=2), {"causal": causal}, threads=route.threads, kind=kind)


def biases(batches, heads, n_queries, n_keys):
    """Biases of every shape that broadcasts."""
    shape = (batches, heads, n_queries, n_keys)
    random = np.random.default_rng(5)
    for kept in np.ndindex(2, 2, 2, 2):
        yield random.standard_normal([s if keep else 1 for s, keep in zip(shape, kept, strict=True)]).astype(np.float32)


@pytest.mark.parametrize("bias", list(biases(2, 4, 70, 140)), ids=lambda bias: "x".join(map(str, bias.shape)))
def test_a_biass_gradient_is_summed_where_it_was_broadcast(route, bias):
    q, k, v, g = inputs(2, 2, 4, 2, 70, 140, 24, 16)
    expected = reference.attention_backward(g, q, k, v, bias=bias, causal=True)[3]
    out, lse = attention(q, k, v, bias=bias, causal=True, return_lse=True)
    once, found = (
        attention_backward(g, q, k, v, out, lse, bias=bias, causal=True, threads=threads)
        for threads in (1, route.threads)
    )
    same_bits(once, found)
    assert found.bias.shape == bias.shape
    np.testing.assert_allclose(found.bias, expected, atol=1e-5 * max(1, np.abs(expected).max()))
    if bias.shape[3] > 1:
        assert np.abs(found.bias).max() > 1e-2


@pytest.mark.parametrize("shape", [(), (1,), (140,), (70, 140), (4, 1, 140)])
def test_a_bias_of_fewer_axes_has_a_gradient_of_as_many(shape):
    q, k, v, g = inputs(2, 2, 4, 2, 70, 140, 8, 8)
    bias = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    check(q, k, v, g, {"bias": bias})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"causal": True, "dropout": 0.2, "seed": 4},
        {"bias": np.linspace(-1, 1, 4 * 150 * 210, dtype=np.float32).reshape(1, 4, 150, 210), "window": 60},
        {"bias": np.linspace(-1, 1, 210, dtype=np.float32), "lengths": [190, 3]},
        {"mask": np.tri(150, 210, 40, bool), "alibi": [0.5, 0.25, 0.1, 0.0]},
    ],
    ids=["plain", "causal and dropout", "bias and window", "bias of keys and lengths", "mask and alibi"],
)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [(150, 33, 20), (150, 64, 64), (5, 64, 32), (1, 64, 64)])
@pytest.mark.parametrize("threads", [2, 3, 8, 64])
def test_bits_do_not_depend_on_threads(route, options, dims, kind):
    n_queries, width, value_width = dims
    options = {  # of the last queries, where there are fewer
        name: value[..., -n_queries:, :] if name in ("mask", "bias") and value.ndim > 1 else value
        for name, value in options.items()
    }
    made = inputs(7, 2, 4, 2, n_queries, 210, width, value_width)
    once = everything(*made, threads=1, kind=kind, **options)
    same_bits(once, everything(*made, threads=route.threads, kind=kind, **options))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"causal": True}, {"window": 90}, {"causal": True, "dropout": 0.1}], ids=str)
@several_threads
def test_bits_do_not_depend_on_threads_beside_numbers_that_are_not_finite(route, options, kind):
    # Queries are cut into blocks of another size for other threads: what a block reads decides nothing for one query.
    made = inputs(7, 1, 1, 1, 1000, 1011, 8, 8)
    made[2][0, 0, [333, 610], 3] = np.nan, np.inf
    take, give = ways_of(kind)
    found = (
        attention(*map(take, made[:3]), threads=threads, return_lse=True, **options) for threads in (1, route.threads)
    )
    same_bits(*([give(x) for x in one] for one in found))


def rms(x):
    return np.sqrt(np.mean(np.square(x, dtype=np.float64)))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dims", [(230, 230, 64), (6, 700, 64), (260, 100, 24)])
def test_as_exact_as_float32_can_be(isa, causal, dims):
    n_queries, n_keys, width = dims
    q, k, v, g = inputs(11, 1, 2, 2, n_queries, n_keys, width, width)
    options = {"causal": causal}
    out, lse = attention(q, k, v, return_lse=True, **options)
    gradients = attention_backward(g, q, k, v, out, lse, **options)[:3]
    exact, naive = (
        (
            *reference.attention(q, k, v, number=number, **options)[:1],
            *reference.attention_backward(g, q, k, v, number=number, **options)[:3],
        )
        for number in (np.float64, np.float32)
    )
    for got, want, lossy, factor in zip((out, *gradients), exact, naive, (3, 5, 5, 5), strict=True):
        assert rms(got - want) <= factor * rms(lossy - want) + 1e-8 * rms(want)


def chunked(q, k, v, size=1000):
    """Full attention of (queries, D) on (keys, D) in float64, a few queries at a time."""
    out = np.empty((len(q), v.shape[1]))
    for begin in range(0, len(q), size):
        scores = q[begin : begin + size].astype(np.float64) @ k.T.astype(np.float64) * q.shape[1] ** -0.5
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[begin : begin + size] = weights @ v / weights.sum(1, keepdims=True)
    return out


def test_a_long_sequence_equals_a_chunked_reference():
    q, k, v, _ = inputs(1, 1, 1, 1, 3000, 5000, 32, 32, spread=3)
    out = attention(q, k, v, threads=2)
    np.testing.assert_allclose(out[0, 0], chunked(q[0, 0], k[0, 0], v[0, 0]), atol=1e-5)


def test_gradients_of_a_long_sequence_are_those_of_its_parts():
    # Within a window and between fences, parts of a sequence are independent of each other.
    parts, size = 12, 160
    q, k, v, g = inputs(3, 1, 2, 1, parts * size, parts * size, 16, 16)
    part = np.arange(parts * size) // size
    options = {"mask": part[:, None] == part, "causal": True}
    out, lse = attention(q, k, v, return_lse=True, **options)
    gradients = attention_backward(g, q, k, v, out, lse, threads=2, **options)

    def cut(x):
        return np.ascontiguousarray(x.reshape(*x.shape[:2], parts, size, -1)[0].swapaxes(0, 1))

    alone, alone_lse = attention(*map(cut, (q, k, v)), causal=True, return_lse=True)
    np.testing.assert_allclose(cut(out), alone, atol=2e-6)
    for whole, part in zip(gradients[:3], attention_backward(*map(cut, (g, q, k, v)), alone, alone_lse, causal=True)):  # noqa: B905
        np.testing.assert_allclose(cut(whole), part, atol=1e-5)


# ---- few queries against a cache


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lengths": [20_000, 4097]},
        {"window": 5003},  # begins amid a vector, and amid a part
        {"window": 4000, "causal": True},
        {"alibi": [0.001, 0.1], "dropout": 0.3, "seed": 9},
        {"mask": np.arange(20_000) % 3 == 0},
        {"mask": np.where(np.arange(20_000) < 9000, -np.inf, 0).astype(np.float32)},
    ],
    ids=["all", "lengths", "window", "causal window", "alibi and dropout", "mask", "parts that are all hidden"],
)
@pytest.mark.parametrize("n_queries", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value_width", [12, 32])  # copied and padded; in place
def test_a_long_cache(route, options, n_queries, kind, value_width):
    q, k, v, g = inputs(4, 2, 2, 1, n_queries, 20_000, 32, value_width, spread=3)
    check(q, k, v, g, options, threads=route.threads, kind=kind, backward=False)
    take, give = ways_of(kind)
    same_bits(*([give(attention(*map(take, (q, k, v)), threads=threads, **options))] for threads in (1, route.threads)))


@pytest.mark.parametrize("n_queries", range(1, 27))
@one_thread
def test_as_many_queries_as_there_are_ways(route, n_queries):
    check(*inputs(5, 1, 2, 1, n_queries, 90, 20, 18), {"causal": True}, threads=route.threads)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [1, 2, 3, 5, 6, 7, 8, 24, 25])
@pytest.mark.parametrize("width", [32, 192])
@one_thread
def test_one_query_of_heads_that_share_keys(route, heads, width, kind):
    options = {"lengths": [100, 37]}
    check(*inputs(5, 2, 2 * heads, 2, 1, 100, width, width), options, threads=route.threads, kind=kind)


def test_a_text_written_word_by_word_equals_the_text():
    q, k, v, _ = inputs(6, 1, 4, 2, 150, 150, 32, 32)
    whole = attention(q, k, v, causal=True)
    for n in (1, 2, 65, 150):
        step = attention(q[:, :, n - 1 : n], k[:, :, :n], v[:, :, :n])
        np.testing.assert_allclose(step, whole[:, :, n - 1 : n], atol=1e-6)


# ---- where arrays lie


def in_order(*axes):
    """Axes lie in another order in memory."""
    return lambda x: np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes))


def stepped(x):
    room = np.full([3 * n for n in x.shape], np.nan, np.float32)
    room[1::3, 2::3, ::3, 1::3] = x
    return room[1::3, 2::3, ::3, 1::3]


def reversed_axes(x):
    return x[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1]


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def rows_apart(x):
    room = np.full((*x.shape[:3], x.shape[3] + 3), np.nan, np.float32)
    room[..., 2:-1] = x
    return room[..., 2:-1]


LAYOUTS = {
    "time before heads": in_order(0, 2, 1, 3),
    "batch last but one": in_order(1, 2, 0, 3),
    "width before time": in_order(0, 1, 3, 2),
    "Fortran": in_order(3, 2, 1, 0),
    "every third": stepped,
    "reversed": reversed_axes,
    "read only": read_only,
    "rows apart": rows_apart,
}


@pytest.mark.parametrize("n_queries", [3, 70])
@pytest.mark.parametrize("width", [16, 21])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@one_thread
def test_arrays_may_lie_as_they_like(route, layout, width, n_queries):
    made = inputs(8, 2, 4, 2, n_queries, 75, width, width)
    options = {"causal": True, "lengths": [75, 50]}
    bias = np.random.default_rng(1).standard_normal((2, 4, n_queries, 75)).astype(np.float32)
    mask = np.random.default_rng(2).random(bias.shape) < 0.9
    plain = everything(*made, threads=route.threads, bias=bias, mask=mask, **options)
    moved = everything(
        *map(layout, made),
        threads=route.threads,
        bias=layout(bias),
        mask=layout(mask.astype(np.float32)) > 0,
        **options,
    )
    for x, y in zip(plain, moved, strict=True):
        assert x.shape == y.shape
        np.testing.assert_array_equal(x, y)


def test_a_mask_may_lie_as_it_likes(isa):
    q, k, v, _ = inputs(8, 2, 4, 2, 70, 75, 8, 8)
    random = np.random.default_rng(2)
    for made in (random.random((2, 4, 70, 75)) < 0.7, random.standard_normal((2, 4, 70, 75)).astype(np.float32)):
        plain = attention(q, k, v, mask=made)
        for layout in (in_order(3, 2, 1, 0), in_order(0, 2, 1, 3), reversed_axes):
            np.testing.assert_array_equal(attention(q, k, v, mask=layout(made)), plain)
        np.testing.assert_array_equal(attention(q, k, v, mask=np.repeat(made, 2, 3)[..., ::2]), plain)


@pytest.mark.parametrize("n_queries", [2, 70])
@one_thread
def test_one_row_may_stand_for_many(route, n_queries):
    q, k, v, g = inputs(9, 1, 1, 1, 1, 1, 20, 20)
    shape = (2, 4, n_queries, 20), (2, 2, 70, 20), (2, 2, 70, 20), (2, 4, n_queries, 20)
    broadcast = [np.broadcast_to(x, s) for x, s in zip((q, k, v, g), shape, strict=True)]
    same = everything(*broadcast, threads=route.threads)
    for x, y in zip(same, everything(*(x.copy() for x in broadcast), threads=route.threads), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_allclose(same[0], broadcast[3] * 0 + v[0, 0, 0], rtol=1e-6)


def test_views_of_outputs_go_in_again():
    q, k, v, _ = inputs(9, 1, 4, 4, 40, 40, 16, 16)
    first = attention(q, k, v)
    again = attention(first[:, ::-1], first[:, :2], first[:, 2:, ::-1])
    np.testing.assert_array_equal(
        again, attention(*(x.copy() for x in (first[:, ::-1], first[:, :2], first[:, 2:, ::-1])))
    )


def test_the_result_lies_as_the_queries_do():
    q, k, v, g = inputs(9, 2, 4, 4, 10, 10, 16, 16)
    by_time = in_order(0, 2, 1, 3)
    out, lse = attention(by_time(q), k, v, return_lse=True)
    assert out.transpose(0, 2, 1, 3).flags.c_contiguous
    assert attention(q, k, v).flags.c_contiguous
    gradients = attention_backward(g, by_time(q), by_time(k), v, out, lse)
    assert [x.transpose(0, 2, 1, 3).flags.c_contiguous for x in gradients[:3]] == [True, True, False]


# ---- what is hidden


HIDING = {
    "causal": {"causal": True},
    "window": {"window": 7},
    "lengths": {"lengths": [40, 0]},
    "mask": {"mask": (np.arange(70) % 3 == 0)[None, None, None]},
    "mask of queries": {"mask": (np.arange(80) % 3 == 0)[None, None, :, None]},
    "floats": {"mask": np.where(np.arange(70) % 3 == 0, 0.5, -np.inf).astype(np.float32)},
    "bias": {"bias": np.where(np.arange(70) % 5 == 0, 0.5, -np.inf).astype(np.float32)},
    "bias of some": {"bias": np.where(np.arange(80 * 70).reshape(80, 70) % 7, 0.5, -np.inf).astype(np.float32)},
    "all of it": {"mask": np.zeros((1, 1, 1, 1), bool)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("n_queries", [3, 80])
@pytest.mark.parametrize("width", [20, 32])  # copied and padded; in place
@pytest.mark.parametrize("hiding", HIDING.values(), ids=HIDING)
@several_threads
def test_what_is_hidden_is_not_felt(route, hiding, width, n_queries, bad, kind):
    options = {
        name: value[..., -n_queries:, :]
        if name in ("mask", "bias") and value.ndim > 1 and value.shape[-2] > 1
        else value
        for name, value in hiding.items()
    }
    q, k, v, g = inputs(10, 2, 4, 2, n_queries, 70, width, 32)
    shape = (2, 4, n_queries, 70)
    seen = reference.attention_seen(shape, **without_terms(options))
    by_query = seen.any(axis=3)
    by_key = seen.any(axis=2).reshape(2, 2, 2, 70).any(axis=2)
    clean = everything(q, k, v, g, threads=route.threads, kind=kind, **options)
    for x, there in ((q, by_query), (k, by_key), (v, by_key), (g, by_query)):
        x[~there] = bad
    for x, y in zip(clean, everything(q, k, v, g, threads=route.threads, kind=kind, **options), strict=True):
        if x is not None:
            # Where a zero would be multiplied with NaN, bf16 is computed in float32.
            largest = np.max(np.abs(x), where=np.isfinite(x), initial=0)
            np.testing.assert_allclose(x, y, atol=5e-6 if kind == "float32" else 2 * EPS[kind] * largest)


@pytest.mark.parametrize("n_queries", [3, 80])
@one_thread
def test_terms_that_are_hidden_are_not_felt(route, n_queries):
    q, k, v, g = inputs(10, 1, 2, 2, n_queries, 70, 8, 8)
    random = np.random.default_rng(1)
    shown = random.random((1, 2, n_queries, 70)) < 0.6
    floats = np.where(shown, 0, -np.inf).astype(np.float32)
    bias = random.standard_normal(shown.shape).astype(np.float32)
    clean = everything(q, k, v, g, threads=route.threads, bias=bias, mask=shown)
    for bad in (np.nan, np.inf):
        bad_bias = np.where(shown, bias, bad).astype(np.float32)
        for mask in (shown, floats):
            for x, y in zip(
                clean, everything(q, k, v, g, threads=route.threads, bias=bad_bias, mask=mask), strict=True
            ):
                np.testing.assert_allclose(x, y, atol=5e-6)
        # The other way round.
        bad_mask = np.where(shown, bias, bad).astype(np.float32)
        for x, y in zip(
            clean[:5], everything(q, k, v, g, threads=route.threads, bias=floats, mask=bad_mask)[:5], strict=True
        ):
            np.testing.assert_allclose(x, y, atol=5e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_queries", [3, 80])
@pytest.mark.parametrize("which", range(4))
@several_threads
def test_what_is_seen_is_felt(route, which, n_queries, kind):
    """A NaN shows in all that depends on it, and in nothing else."""
    made = list(inputs(10, 1, 4, 2, n_queries, n_queries, 20, 16))
    made[which][0, 1, 1, 3] = np.nan
    results = everything(*made, causal=True, threads=route.threads, kind=kind)
    with np.errstate(invalid="ignore"):
        exact = reference.attention(*made[:3], causal=True)
        gradients = reference.attention_backward(made[3], *made[:3], causal=True)
    for name, got, want in zip(("out", "lse"), results, exact, strict=False):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want), err_msg=name)
    assert np.isnan(results[0]).any() == (which < 3)
    for name, got, want in zip("qkv", results[2:], gradients, strict=False):
        # The oracle has no blocks; NaN where it has one, and in no other query, key or head.
        np.testing.assert_array_equal(np.isnan(got).any(-1), np.isnan(want).any(-1), err_msg=f"gradient of {name}")
        assert np.isnan(got)[np.isnan(want)].all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_queries", [2, 100])
@pytest.mark.parametrize(
    "options",
    [
        {"lengths": [0, 0]},
        {"mask": np.zeros((1,), bool)},
        {"mask": np.full((), -np.inf, np.float32)},
        {"bias": np.full((1, 4, 1, 90), -np.inf, np.float32)},
        {"lengths": [3, 5], "window": 0, "mask": np.arange(90) > 10},
    ],
)
@one_thread
def test_queries_that_see_nothing_get_zeros(route, options, n_queries, kind):
    made = inputs(12, 2, 4, 2, n_queries, 90, 16, 16)
    out, lse, *others = everything(*made, threads=route.threads, kind=kind, **options)
    assert np.isneginf(lse).all()
    for x in (out, *others):
        assert x is None or not x.any()


@pytest.mark.parametrize("kind", KINDS)
@one_thread
def test_an_empty_row_among_others(route, kind):
    q, k, v, g = inputs(12, 1, 2, 2, 30, 40, 16, 16)
    mask = np.ones((30, 40), bool)
    mask[[0, 7, 29]] = False
    check(q, k, v, g, {"mask": mask, "causal": True}, threads=route.threads, kind=kind)
    found = everything(q, k, v, g, threads=route.threads, mask=mask, kind=kind)
    assert not found[-1][:, :, [0, 7, 29]].any()  # entropies
    assert np.isfinite(found[-1]).all()


EMPTY = [(0, 2, 2, 3, 4), (0, 2, 2, 100, 4), (2, 0, 2, 3, 4), (2, 0, 0, 3, 4), (2, 0, 0, 100, 100), (2, 2, 1, 0, 4)]
EMPTY += [(2, 2, 1, 3, 0), (2, 2, 1, 100, 0), (0, 0, 0, 0, 0), (1, 2, 2, 0, 0)]


@pytest.mark.parametrize("sizes", EMPTY)
@pytest.mark.parametrize("with_bias", [False, True])
def test_axes_of_no_length(route, sizes, with_bias):
    batches, heads, key_heads, n_queries, n_keys = sizes
    made = inputs(1, batches, heads, key_heads, n_queries, n_keys, 8, 6)
    check(*made, {"causal": True}, threads=route.threads)
    if with_bias:
        for shape in ((batches, heads, n_queries, n_keys), (1, 1, 1, 1), (n_keys,), ()):
            check(*made, {"bias": np.zeros(shape, np.float32)}, threads=route.threads)


# ---- extremes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_queries", [2, 60])
@pytest.mark.parametrize("size", [1e4, 1e9, 1e30, 1e37])
@one_thread
def test_huge_scores(route, size, n_queries, kind):
    q, k, v, g = inputs(13, 1, 2, 2, n_queries, 50, 8, 8)
    q *= np.float32(np.sqrt(size))
    k *= np.float32(np.sqrt(size))
    q, k, v = map(KINDS[kind], (q, k, v))
    out, _, *others = everything(q, k, v, g, threads=route.threads, kind=kind)
    scores = q.astype(np.float64) @ k.astype(np.float64).swapaxes(2, 3)
    ordered = np.sort(scores, axis=3)
    clear = ordered[..., -1] - ordered[..., -2] > 1e-4 * np.abs(scores).max()  # which key is the best
    best = np.take_along_axis(v, scores.argmax(axis=3)[..., None], axis=2)
    assert clear.mean() > 0.5
    np.testing.assert_allclose(out[clear], best[clear], rtol=1e-6)
    for x in others:
        assert x is None or np.isfinite(x).all()


@pytest.mark.parametrize("n_queries", [2, 60])
@pytest.mark.parametrize("added", [-1e4, -1e9, -1e30, float(np.finfo(np.float32).min)])
@one_thread
def test_a_mask_of_very_negative_floats_hides(route, added, n_queries):
    """As others write masks."""
    q, k, v, g = inputs(13, 2, 2, 2, n_queries, 50, 8, 8)
    shown = np.arange(50) % 3 > 0
    plain = everything(q, k, v, g, threads=route.threads, mask=shown)
    found = everything(q, k, v, g, threads=route.threads, mask=np.where(shown, 0, added).astype(np.float32))
    for x, y in zip(plain, found, strict=True):
        if x is not None:
            np.testing.assert_allclose(x, y, atol=5e-6)
    # Where all is so hidden nothing is: the mask says nothing about which.
    out, *others = everything(q, k, v, g * 0, threads=route.threads, mask=np.full(50, added, np.float32))
    assert np.isfinite(out).all()
    if added < -1e20:
        np.testing.assert_allclose(out, np.broadcast_to(v.mean(2, keepdims=True), out.shape), atol=1e-5)
    for x in others:
        assert x is None or np.isfinite(x).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("scale", "size"), [(0.0, 1), (1e-42, 1), (-1.0, 1), (0.3, 1), (1e30, 1e-15), (1e-38, 1e15), (-1e-38, 1e18)]
)
@one_thread
def test_scales_of_all_kinds(route, scale, size, kind):
    q, k, v, g = inputs(13, 1, 2, 2, 60, 50, 8, 8)
    check(q * np.float32(size), k * np.float32(size), v, g, {"scale": scale}, threads=route.threads, kind=kind)


@one_thread
def test_denormal_numbers(route):
    q, k, v, g = inputs(13, 1, 2, 2, 60, 50, 8, 8)
    q, small = q * np.float32(1e-40), v * np.float32(1e-40)
    out = attention(q, k, small)
    np.testing.assert_allclose(out, np.broadcast_to(small.mean(2, keepdims=True), out.shape), atol=1e-43)
    check(q, k, v, g, {}, threads=route.threads)


def test_a_window_of_zero_sees_itself(isa):
    q, k, v, _ = inputs(13, 1, 2, 2, 60, 100, 8, 8)
    np.testing.assert_allclose(attention(q, k, v, window=0), v[:, :, 40:], rtol=1e-6)
    np.testing.assert_array_equal(attention(q, k, v, window=10**30), attention(q, k, v))


def test_the_last_query_stands_at_the_last_key(isa):
    q, k, v, _ = inputs(13, 1, 1, 1, 100, 30, 8, 8)
    out, lse = attention(q, k, v, causal=True, return_lse=True)
    assert not out[:, :, :70].any()
    assert np.isneginf(lse[:, :, :70]).all()
    np.testing.assert_allclose(out[0, 0, 70], v[0, 0, 0], rtol=1e-6)  # the first that sees a key
    np.testing.assert_allclose(out[0, 0, -1], attention(q[:, :, -1:], k, v)[0, 0, 0], atol=1e-6)


# ---- what must come out


@pytest.mark.parametrize("n_queries", [2, 90])
def test_a_key_that_fits_takes_all_the_weight(isa, n_queries):
    random = np.random.default_rng(1)
    k = random.standard_normal((1, 2, 90, 64)).astype(np.float32)
    v = random.standard_normal((1, 2, 90, 8)).astype(np.float32)
    order = np.stack([random.permutation(90) for _ in range(2)])[:, :n_queries]
    q = np.take_along_axis(k, order[None, :, :, None], axis=2)
    out, lse = attention(q, k, v, scale=8.0, return_lse=True)
    np.testing.assert_allclose(out, np.take_along_axis(v, order[None, :, :, None], axis=2), rtol=1e-6)
    weights = attention_weights(q, k, lse, scale=8.0)
    np.testing.assert_allclose(weights, order[None, :, :, None] == np.arange(90), atol=1e-3)
    np.testing.assert_allclose(attention_entropies(q, k, lse, scale=8.0), 0, atol=1e-2)


def test_equal_keys_share_alike(isa):
    q, k, v, _ = inputs(1, 1, 2, 2, 30, 100, 16, 16)
    out, lse = attention(q, k * 0, v, return_lse=True, causal=True)
    seen = np.arange(71, 101)
    np.testing.assert_allclose(attention_entropies(q, k * 0, lse, causal=True)[0, 0], np.log(seen), rtol=1e-5)
    np.testing.assert_allclose(lse[0, 1], np.log(seen), rtol=1e-6)
    np.testing.assert_allclose(out[0, 0, -1], v[0, 0].mean(0), atol=1e-6)


def test_weights_of_some_heads_and_rows(route):
    q, k, v, _ = inputs(1, 2, 6, 2, 30, 100, 16, 16)
    options = {"causal": True, "lengths": [100, 80], "alibi": np.linspace(0, 1, 6)}
    _, lse = attention(q, k, v, return_lse=True, **options)
    every = attention_weights(q, k, lse, **options)
    np.testing.assert_allclose(every.sum(-1), 1, atol=1e-5)
    some = attention_weights(q, k, lse, heads=[5, 0, -1], rows=[-1, 3, 3, 0], threads=route.threads, **options)
    assert some.shape == (2, 3, 4, 100)
    np.testing.assert_array_equal(some, every[:, [5, 0, 5]][:, :, [29, 3, 3, 0]])
    np.testing.assert_array_equal(attention_weights(q, k, lse, heads=np.array([2]), **options), every[:, [2]])
    assert attention_weights(q, k, lse, heads=[], rows=[1], **options).shape == (2, 0, 1, 100)
    assert attention_weights(q, k, lse, rows=[], **options).shape == (2, 6, 0, 100)


# ---- dropout


def test_dropout_drops_as_many_as_it_says():
    q, k, v, _ = inputs(1, 2, 4, 4, 200, 200, 8, 200)
    v = np.broadcast_to(np.eye(200, dtype=np.float32), v.shape)  # the output is the weights
    found = {}
    for seed in (0, 1):
        found[seed] = attention(q, k, v, dropout=0.3, seed=seed) == 0
        assert found[seed].mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / found[seed].size))
        same = found[seed].reshape(-1, 200)
        assert (same[1:] & same[:-1]).mean() == pytest.approx(0.09, abs=0.003)  # rows know nothing of each other
        assert (same[:, 1:] & same[:, :-1]).mean() == pytest.approx(0.09, abs=0.003)
    assert (found[0] & found[1]).mean() == pytest.approx(0.09, abs=0.003)
    np.testing.assert_array_equal(attention(q, k, v, dropout=0.3, seed=1) == 0, found[1])
    np.testing.assert_array_equal(attention(q, k, v, dropout=0.0, seed=1), attention(q, k, v))


@pytest.mark.parametrize("dropout", [1e-12, 1e-3, 0.999, 0.9999999])
@one_thread
def test_dropout_at_its_ends(route, dropout):
    check(*inputs(1, 1, 2, 2, 60, 70, 8, 8), {"dropout": dropout, "seed": 3}, threads=route.threads)


@pytest.mark.parametrize("kind", KINDS)
@one_thread
def test_what_is_dropped_is_not_felt(route, kind):
    q, k, v, g = inputs(1, 1, 1, 1, 60, 70, 8, 8)
    kept = reference.attention_kept((1, 1, 60, 70), 0.6, 5) > 0
    v[0, 0, 4] = np.nan
    out, *_ = everything(q, k, v, g, threads=route.threads, dropout=0.6, seed=5, kind=kind)
    np.testing.assert_array_equal(np.isnan(out).all(-1), kept[..., 4])
    np.testing.assert_array_equal(np.isnan(out).any(-1), kept[..., 4])


# ---- threads of the caller's


def test_several_threads_at_once():
    made = [inputs(i, 1, 2, 2, 100, 100, 16, 16) for i in range(6)]
    alone = [everything(*x, causal=True) for x in made]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            for x, y in zip(alone, pool.map(lambda x: everything(*x, causal=True, threads=2), made), strict=True):
                same_bits(x, y)


def test_others_run_meanwhile():
    q, k, v, _ = inputs(1, 1, 4, 4, 2000, 2000, 32, 32)
    worker = threading.Thread(target=attention, args=(q, k, v), kwargs={"threads": 1})
    turns = 0
    worker.start()
    while worker.is_alive():
        time.sleep(0.0005)
        turns += 1
    assert turns > 8


# ---- tensors


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def bits_of(tensor):
    """A tensor's numbers as float32."""
    return tensor.float().numpy()


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("dims", [(2, 2, 1, 70, 90, 33, 20), (1, 4, 1, 3, 90, 64, 64), (1, 1, 1, 130, 130, 64, 64)])
@pytest.mark.parametrize("options", [{}, {"causal": True, "dropout": 0.2, "window": 40, "alibi": [0.1, 0.5, 0.2, 0]}])
def test_tensors(route, torch, kind, dims, options):
    options = {name: value[: dims[1]] if name == "alibi" else value for name, value in options.items()}

    def take(x):
        return torch.from_numpy(x.copy()).to(getattr(torch, kind))

    def give(x):
        assert isinstance(x, torch.Tensor)
        return bits_of(x)

    check(*inputs(1, *dims), options, kind=kind, ways=(take, give), threads=route.threads)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_tensors_come_back_as_they_went(torch, kind):
    dtype = getattr(torch, kind)
    q, k, v, g = (torch.from_numpy(x).to(dtype) for x in inputs(1, 2, 4, 2, 30, 40, 16, 8))
    bias = torch.zeros(4, 30, 1)
    out, lse = attention(q, k, v, return_lse=True, bias=bias)
    gradients = attention_backward(g, q, k, v, out, lse, bias=bias)
    assert (out.dtype, lse.dtype) == (dtype, torch.float32)
    assert [x.dtype for x in gradients] == [dtype] * 3 + [torch.float32]
    assert [x.shape for x in gradients] == [x.shape for x in (q, k, v, bias)]
    assert attention_weights(q, k, lse, bias=bias).shape == (2, 4, 30, 40)
    assert isinstance(attention_entropies(q, k, lse, bias=bias), torch.Tensor)
    out += 1  # they are the caller's to write to
    by_time = attention(q.transpose(1, 2).contiguous().transpose(1, 2), k, v)
    assert by_time.transpose(1, 2).is_contiguous()


# Views of a (B, H, T, D) tensor, each with a reason of its own why its rows are not plain ones: no column stride,
# columns that are not neighbors, rows an odd number of numbers apart, rows that begin amid four bytes.
LAYOUTS = {
    "expanded": lambda torch, x: x[..., :1].contiguous().expand(x.shape),
    "transposed": lambda torch, x: x.mT.contiguous().mT,
    "odd rows": lambda torch, x: torch.nn.functional.pad(x, (0, 1))[..., :-1],
    "offset": lambda torch, x: torch.nn.functional.pad(x, (1, 1))[..., 1:-1],
}


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("which", range(4), ids=["q", "k", "v", "grad_out"])
def test_every_array_in_every_layout(isa, torch, kind, layout, which):
    arrays = [torch.from_numpy(x).to(getattr(torch, kind)) for x in inputs(1, 1, 2, 1, 70, 90, 32, 16)]
    arrays[which] = LAYOUTS[layout](torch, arrays[which])

    def run(q, k, v, g):
        out, lse = attention(q, k, v, causal=True, return_lse=True)
        gradients = attention_backward(g, q, k, v, out, lse, causal=True)
        return [out, *gradients[:3]]

    for found, wanted in zip(run(*arrays), run(*(x.contiguous() for x in arrays)), strict=True):
        largest = float(wanted.float().abs().max())
        error = float((found.float() - wanted.float()).abs().max())
        assert error <= 4 * EPS[kind] * largest, (error, largest)


def test_tensors_of_any_strides(torch):
    q, k, v, _ = map(torch.from_numpy, inputs(1, 2, 4, 2, 30, 40, 16, 8))
    mask = torch.rand(2, 1, 30, 40) < 0.7
    out = attention(q, k, v, mask=mask, lengths=torch.tensor([40, 20]), alibi=torch.ones(4))
    strange = [x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0) for x in (q, k, v)]
    np.testing.assert_array_equal(
        out, attention(*strange, mask=mask.mT.contiguous().mT, lengths=[40, 20], alibi=[1.0] * 4)
    )
    one = k[:, :1].expand(-1, 2, -1, -1), v[:, :1].expand(-1, 2, -1, -1)
    np.testing.assert_array_equal(attention(q, *one), attention(q, k[:, :1], v[:, :1]))
    offset = torch.cat([q, q])[2:]  # begins amid its memory
    np.testing.assert_array_equal(attention(offset, k, v), attention(q, k, v))


def test_tensors_agree_with_torchs_own(torch):
    q, k, v, g = map(torch.from_numpy, inputs(1, 2, 4, 4, 50, 50, 16, 16))
    bias = torch.randn(1, 4, 50, 50)
    for x in (q, k, v, bias):
        x.requires_grad_()
    own = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    own.backward(g)
    plain = [x.detach() for x in (q, k, v)]
    out, lse = attention(*plain, bias=bias.detach(), return_lse=True)
    np.testing.assert_allclose(out, own.detach(), atol=1e-5)
    gradients = attention_backward(g, *plain, out, lse, bias=bias.detach())
    for x, y in zip(gradients, (q, k, v, bias), strict=True):
        np.testing.assert_allclose(x, y.grad, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", [(1, 2, 2, 300, 300, 64, 64), (2, 2, 2, 128, 128, 32, 32), (1, 2, 2, 4, 900, 64, 64)])
def test_as_exact_as_torchs_own(isa, torch, shape, causal):
    made = inputs(11, *shape)
    own, exact = ([torch.from_numpy(x).to(dtype) for x in made] for dtype in (torch.float32, torch.float64))
    results = []
    for *inner, g in (own, exact):
        for x in inner:
            x.requires_grad_()
        seen = torch.ones(shape[3:5], dtype=torch.bool).tril(shape[4] - shape[3]) if causal else None
        out = torch.nn.functional.scaled_dot_product_attention(*inner, attn_mask=seen)
        out.backward(g)
        results.append([out.detach().numpy(), *(x.grad.numpy() for x in inner)])
    q, k, v, g = (x.copy() for x in made)
    out, lse = attention(q, k, v, causal=causal, return_lse=True)
    found = out, *attention_backward(g, q, k, v, out, lse, causal=causal)[:3]
    for x, lossy, want in zip(found, *results, strict=True):
        assert rms(x - want) <= 1.5 * rms(lossy - want) + 2e-8 * rms(want)


def test_tensors_that_ask_for_gradients(torch):
    q, k, v, _ = map(torch.from_numpy, inputs(1, 1, 2, 2, 5, 5, 4, 4))
    with pytest.raises(TypeError, match=r"k is a tensor that requires a gradient: .*k\.detach"):
        attention(q, k.clone().requires_grad_(), v)
    with pytest.raises(TypeError, match="bias requires a gradient"):
        attention(q, k, v, bias=torch.zeros(5, 5, requires_grad=True))
    with pytest.raises(TypeError, match="mask requires a gradient, which only bias has"):
        attention(q, k, v, mask=torch.zeros(5, 5, requires_grad=True))


def test_tensors_of_wrong_kinds(torch):
    q, k, v, _ = map(torch.from_numpy, inputs(1, 1, 2, 2, 5, 5, 4, 4))
    with pytest.raises(TypeError, match="q must be float32, bf16 or float16, not float64"):
        attention(q.double(), k, v)
    with pytest.raises(TypeError, match="k must be float32 as q is, not bf16"):
        attention(q, k.bfloat16(), v.bfloat16())
    with pytest.raises(TypeError, match="k must be bf16 as q is, not float16"):
        attention(q.bfloat16(), k.half(), v.half())
    with pytest.raises(TypeError, match="bias must be float32, not bfloat16"):
        attention(q, k, v, bias=torch.zeros(5, 5, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="q lies on another device"):
        attention(torch.empty(1, 2, 5, 4, device="meta"), k, v)
    with pytest.raises(ValueError, match="seed must not be negative"):
        attention(q, k, v, seed=-1)


def test_tensors_whose_numbers_are_not_in_memory(torch):
    q, k, v, _ = map(torch.from_numpy, inputs(1, 1, 2, 2, 5, 5, 4, 4))
    negative = torch.complex(k, k).conj().imag  # its sign is a note on the tensor
    assert negative.is_neg()
    with pytest.raises((RuntimeError, BufferError), match="negative bit"):
        attention(q, negative, v)
    with torch._subclasses.fake_tensor.FakeTensorMode() as mode, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fake = [mode.from_tensor(x) for x in (q, k, v)]
        for options in ({}, {"window": 3}):
            with pytest.raises(Exception, match=r"memory|subclass"):
                attention(*fake, **options)


def test_bf16_of_numpys():
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16

    def give(x):
        assert isinstance(x, np.ndarray)
        return x.astype(np.float32)

    made = inputs(1, 2, 4, 2, 30, 40, 16, 8)
    check(*made, {"causal": True}, kind="bfloat16", ways=(lambda x: x.astype(bfloat16), give))
    assert attention(*(x.astype(bfloat16) for x in made[:3])).dtype == bfloat16


class Exporter:
    """Some library's array, which speaks DLPack and no more."""

    def __init__(self, array, device=1):
        self.array, self.shape, self.device = array, array.shape, device
        self.dtype = f"somebody.{array.dtype}"

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device, 0

    def __array_namespace__(self):
        return np


def test_arrays_of_other_libraries():
    q, k, v, _ = inputs(1, 1, 2, 2, 5, 5, 4, 4)
    np.testing.assert_array_equal(attention(*map(Exporter, (q, k, v))), attention(q, k, v))
    before = sys.getrefcount(q)
    attention(Exporter(q), k, v)
    assert sys.getrefcount(q) == before
    with pytest.raises(ValueError, match="k lies on another device: move it"):
        attention(q, Exporter(k, device=2), v)


@pytest.mark.parametrize("library", ["NumPy", "PyTorch", "DLPack"])
def test_float16_is_float32_rounded_at_the_end(isa, library):
    if library == "PyTorch":
        torch = pytest.importorskip("torch")
        take, give = torch.from_numpy, lambda x: x.numpy()
    else:
        take, give = (np.asarray if library == "NumPy" else Exporter), lambda x: x
    q, k, v, g = (x.astype(np.float16) for x in inputs(4, 2, 4, 2, 30, 45, 20, 12))
    q = in_order(0, 2, 1, 3)(q)
    bias = np.random.default_rng(1).standard_normal((30, 45)).astype(np.float32)
    options = {"causal": True, "bias": bias, "alibi": [0.1, 0.2, 0.3, 0.4]}

    def run(g, q, k, v, take, give, number):
        out, lse = attention(take(q), take(k), take(v), return_lse=True, **options)
        # Rounded outputs go in again, as users have them.
        given = take(give(out).astype(np.float16).astype(number))
        gradients = attention_backward(take(g), take(q), take(k), take(v), given, lse, **options)
        weights = attention_weights(take(q), take(k), lse, heads=[2], rows=[-1], **options)
        entropies = attention_entropies(take(q), take(k), lse, **options)
        return [give(x) for x in (out, *gradients[:3], gradients.bias, lse, weights, entropies)]

    half = run(g, q, k, v, take, give, np.float16)
    whole = run(*(x.astype(np.float32) for x in (g, q, k, v)), lambda x: x, lambda x: x, np.float32)
    assert [x.dtype for x in half] == [np.float16] * 4 + [np.float32] * 4
    for x, y in zip(half, whole, strict=True):
        np.testing.assert_array_equal(x, y.astype(x.dtype))
    if library != "DLPack":
        assert half[0].transpose(0, 2, 1, 3).flags.c_contiguous  # axes lie in memory as q's do


@one_thread
def test_float16_equals_oracle(route):
    made = inputs(5, 1, 4, 2, 40, 50, 16, 16)
    dropped = {"causal": True, "dropout": 0.2, "seed": 3}
    check(
        *made,
        dropped,
        threads=route.threads,
        kind="float16",
        ways=(lambda x: x.astype(np.float16), lambda x: x.astype(np.float32)),
    )


def test_gradients_that_float16_cannot_hold_are_infinite():
    q, k, v, g = (x.astype(np.float16) for x in inputs(5, 1, 1, 1, 4, 4, 8, 8))
    out, lse = attention(q, k, v, return_lse=True, scale=1.0)
    gradients = attention_backward(g * np.float16(1e4), q * np.float16(1e3), k, v, out, lse, scale=1.0)
    assert np.isinf(gradients.k).any()


# ---- errors


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"q": np.zeros((2, 4, 5, 8))}, TypeError, "q must be float32, bf16 or float16, not float64"),
        ({"q": np.zeros((2, 4, 5, 8), ">f4")}, TypeError, "q must be float32, bf16 or float16, not >f4"),
        ({"q": np.zeros((2, 4, 5, 8), ">f2")}, TypeError, "q must be float32, bf16 or float16, not >f2"),
        ({"q": np.zeros((2, 4, 5, 8), np.float16)}, TypeError, "k must be float16 as q is, not float32"),
        ({"k": np.zeros((2, 2, 7, 8), np.float16)}, TypeError, "k must be float32 as q is, not float16"),
        ({"v": np.zeros((2, 2, 7, 3), np.float16)}, TypeError, "v must be float32 as q is, not float16"),
        ({"q": np.ma.zeros((2, 4, 5, 8), np.float32)}, TypeError, r"q must not be a masked array.*q\.filled"),
        ({"k": np.ma.zeros((2, 2, 7, 8), np.float32)}, TypeError, "k must not be a masked array"),
        ({"v": np.ma.zeros((2, 2, 7, 3), np.float32)}, TypeError, "v must not be a masked array"),
        ({"mask": np.ma.ones((5, 7), bool)}, TypeError, "mask must not be a masked array"),
        ({"bias": np.ma.ones((5, 7), np.float32)}, TypeError, "bias must not be a masked array"),
        ({"lengths": np.ma.array([1, 2])}, TypeError, "lengths must not be a masked array"),
        ({"alibi": np.ma.ones(4)}, TypeError, "alibi must not be a masked array"),
        ({"k": [[[[1.0]]]]}, TypeError, "k must be an array or a tensor, not list"),
        ({"q": np.zeros((4, 5, 8), np.float32)}, ValueError, r"q must have four axes .* not shape \(4, 5, 8\)"),
        ({"k": np.zeros((2, 2, 7, 9), np.float32)}, ValueError, r"k must have shape \(2, 2, 7, 8\), not \(2, 2, 7, 9"),
        ({"k": np.zeros((1, 2, 7, 8), np.float32)}, ValueError, r"k must have shape \(2, 2, 7, 8\), not \(1, "),
        ({"v": np.zeros((2, 2, 6, 3), np.float32)}, ValueError, r"v must have shape \(2, 2, 7, 3\), not \(2, 2, 6"),
        ({"v": np.zeros((2, 4, 7, 3), np.float32)}, ValueError, r"v must have shape \(2, 2, 7, 3\), not \(2, 4, 7"),
        ({"v": np.zeros((2, 2, 7, 0), np.float32)}, ValueError, "must have at least one dimension"),
        ({"q": np.zeros((2, 3, 5, 8), np.float32)}, ValueError, "q's 3 heads must be a multiple of k's 2"),
        ({"window": -1}, ValueError, "window must not be negative"),
        ({"window": 1.5}, TypeError, "window must be a whole number"),
        ({"lengths": [7, 8]}, ValueError, "lengths must be 0 to 7, the number of keys"),
        ({"lengths": [7, -1]}, ValueError, "lengths must be 0 to 7"),
        ({"lengths": [7]}, ValueError, "lengths must be 2 numbers, one for each text"),
        ({"lengths": [7.0, 7.0]}, TypeError, "lengths must be whole numbers, not float64"),
        ({"mask": np.zeros((5, 6), bool)}, ValueError, r"mask of shape \(5, 6\) does not broadcast to \(2, 4, 5, 7\)"),
        ({"mask": np.zeros((1, 2, 4, 5, 7), bool)}, ValueError, "mask of shape .* does not broadcast"),
        ({"mask": np.ones((5, 7), int)}, TypeError, "mask must be boolean .* or of floats, not int64"),
        ({"mask": np.zeros((5, 7), complex)}, TypeError, "mask must be boolean .* or of floats, not complex128"),
        ({"bias": np.zeros((3, 7), np.float32)}, ValueError, r"bias of shape \(3, 7\) does not broadcast"),
        ({"bias": np.zeros((5, 7), bool)}, TypeError, "bias must hold numbers, not bool"),
        ({"alibi": [0.5, 0.5]}, ValueError, r"alibi must have one slope for each of 4 heads, not shape \(2,\)"),
        ({"alibi": [0.5, 0.5, 0.5, np.inf]}, ValueError, "alibi must be finite"),
        ({"scale": np.inf}, ValueError, "scale must be finite, not inf"),
        ({"scale": 1e300}, ValueError, r"scale must be a finite number in float32, not 1e\+300"),
        ({"scale": "1"}, TypeError, "scale must be a number"),
        ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and, in float32, below 1, not 1.0"),
        ({"dropout": 1 - 1e-12}, ValueError, "dropout must be at least 0 and, in float32, below 1"),
        ({"dropout": -0.1}, ValueError, "dropout must be at least 0"),
        ({"dropout": np.nan}, ValueError, "dropout must be at least 0"),
        ({"dropout": "0"}, TypeError, "dropout must be a number"),
        ({"seed": -1}, ValueError, "seed must not be negative"),
        ({"seed": 2**64}, ValueError, "seed must be at most"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
    ],
)  # fmt: skip
def test_errors_say_what_was_wrong(changes, error, message):
    q, k, v, g = inputs(1, 2, 4, 2, 5, 7, 8, 3)
    out, lse = attention(q, k, v, return_lse=True)
    given = {"q": q, "k": k, "v": v} | changes
    with pytest.raises(error, match=message):
        attention(**given)
    with pytest.raises(error, match=message):
        attention_backward(g, out=out, lse=lse, **given)
    if not changes.keys() & {"v", "dropout", "seed"}:
        for function in (attention_weights, attention_entropies):
            with pytest.raises(error, match=message):
                function(lse=lse, **{name: value for name, value in given.items() if name != "v"})


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("grad_out", np.zeros((2, 4, 5, 4), np.float32), ValueError, r"grad_out must have shape \(2, 4, 5, 3\)"),
        ("grad_out", np.zeros((2, 4, 5, 3)), TypeError, "grad_out must be float32, bf16 or float16"),
        ("grad_out", np.zeros((2, 4, 5, 3), np.float16), TypeError, "grad_out must be float32 as q is, not float16"),
        ("out", np.zeros((2, 4, 5, 4), np.float32), ValueError, r"out must have shape \(2, 4, 5, 3\)"),
        ("out", np.ma.zeros((2, 4, 5, 3), np.float32), TypeError, "out must not be a masked array"),
        ("lse", np.ma.zeros((2, 4, 5), np.float32), TypeError, "lse must not be a masked array"),
        ("lse", np.zeros((2, 4, 4), np.float32), ValueError, r"lse must have shape \(2, 4, 5\), not \(2, 4, 4\)"),
        ("lse", None, TypeError, "lse must hold numbers"),
    ],
)
def test_errors_of_the_way_back(name, value, error, message):
    q, k, v, g = inputs(1, 2, 4, 2, 5, 7, 8, 3)
    out, lse = attention(q, k, v, return_lse=True)
    with pytest.raises(error, match=message):
        attention_backward(**({"grad_out": g, "q": q, "k": k, "v": v, "out": out, "lse": lse} | {name: value}))


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ({"heads": [4]}, ValueError, "heads must be at most 3, not 4"),
        ({"heads": [-5]}, ValueError, "heads must be at least -4"),
        ({"rows": [5]}, ValueError, "rows must be at most 4, not 5"),
        ({"rows": [1.0]}, TypeError, "rows must be a whole number"),
        ({"rows": 1}, TypeError, "rows must be a list of whole numbers"),
    ],
)
def test_errors_of_weights(chosen, error, message):
    q, k, v, _ = inputs(1, 2, 4, 2, 5, 7, 8, 3)
    _, lse = attention(q, k, v, return_lse=True)
    with pytest.raises(error, match=message):
        attention_weights(q, k, lse, **chosen)


def test_the_core_does_not_trust_its_caller():
    q, k, v, g = inputs(1, 2, 4, 2, 5, 7, 8, 3)
    options = dict.fromkeys(("window", "lengths", "visible", "added", "bias", "slopes"))
    options |= {"causal": False, "scale": 1.0, "dropout": 0.0, "seed": 0}
    out, lse = np.empty_like(g), np.empty((2, 4, 5), np.float32)
    for changes, message in (
        ({"k": k[:, :, :, :4]}, "k must have shape"),
        ({"v": v[:, :1]}, "v must have shape"),
        ({"out": out[..., :2]}, "out must have shape"),
        ({"out": read_only(out)}, "out must be writeable"),
        ({"lse": lse[:1]}, "lse must have one number"),
        ({"k": k.astype(np.uint16)}, "k must be of q's dtype"),
        ({"q": q.astype(np.float64)}, "q must be float32 or bf16"),
        ({"q": np.zeros(2 * 4 * 5 * 8 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(q.shape)}, "q must be aligned"),
        ({"options": options | {"lengths": np.array([7, 8])}}, "lengths must be 0 to"),
        ({"options": options | {"lengths": np.array([7])}}, "lengths must have 2"),
        ({"options": options | {"slopes": np.zeros(3, np.float32)}}, "slopes must have 4"),
        ({"options": options | {"bias": np.zeros((1, 4, 5, 7), np.float32)}}, "bias must have shape"),
        ({"options": options | {"added": np.zeros((2, 4, 5, 7))}}, "added must have another dtype"),
        ({"options": options | {"dropout": 1.0}}, "dropout must be"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.attend(
                **({"q": q, "k": k, "v": v, "out": out, "lse": lse, "options": options, "threads": 1} | changes)
            )


@pytest.mark.parametrize("order", ["heads first", "time first"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_without_terms_take_a_shorter_way_to_the_same_bits(dtype, order):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    q = torch.randn(2, 33, 4, 20).transpose(1, 2) if order == "time first" else torch.randn(2, 4, 33, 20)
    k, v = torch.randn(2, 2, 50, 20), torch.randn(2, 2, 50, 24)
    q, k, v = (x.to(getattr(torch, dtype)) for x in (q, k, v))
    for causal in (False, True):
        short = attention(q, k, v, causal=causal)
        long, _ = attention(q, k, v, causal=causal, return_lse=True)
        assert short.dtype == q.dtype
        assert short.stride() == long.stride()
        assert torch.equal(short, long)
