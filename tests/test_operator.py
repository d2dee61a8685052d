from __future__ import annotations

import math

import numpy as np
import pytest

import firth

torch = pytest.importorskip("torch")

from torch.utils.checkpoint import checkpoint  # noqa: E402

from firth.contextual import Architecture, ELMo, Transformer, operator  # noqa: E402


def softmax_formula(q, k, v, seen, added, scale):
    """Vaswani et al. 2017, equation 1, with q, k and v of as many heads, in float64."""
    scores = scale * (q @ k.transpose(-1, -2)) + added
    scores = scores.masked_fill(~seen, -math.inf)
    weights = torch.softmax(scores, -1).nan_to_num(0.0)
    return weights @ v


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


CASES = {
    "plain": {},
    "causal": {"causal": True},
    "window": {"causal": True, "window": 5},
    "padded": {"lengths": torch.tensor([19, 0, 7])},
    "masked": {"mask": random(3, 1, 19, 19, seed=9) > -0.5},
    "added": {"mask": random(1, 4, 19, 19, seed=9)},
    "bias": {"bias": random(1, 4, 19, 19, seed=8), "causal": True},
    "bias of rows": {"bias": random(19, seed=8)},
    "alibi": {"alibi": torch.tensor([1.0, 0.5, 0.25, 0.125]), "causal": True},
    "scale": {"scale": 0.3},
}


def textbook(q, k, v, *, causal=False, window=None, lengths=None, mask=None, bias=None, alibi=None, scale=None):
    n_queries, n_keys = q.shape[2], k.shape[2]
    position = torch.arange(n_queries)[:, None] + n_keys - n_queries
    key = torch.arange(n_keys)
    seen = torch.ones(q.shape[0], q.shape[1], n_queries, n_keys, dtype=torch.bool)
    added = torch.zeros(1, dtype=torch.float64)
    if causal:
        seen &= key <= position
    if window is not None:
        seen &= (position - key).abs() <= window
    if lengths is not None:
        seen &= key < lengths[:, None, None, None]
    if mask is not None and mask.dtype == torch.bool:
        seen &= mask
    elif mask is not None:
        added = added + mask
    if bias is not None:
        added = added + bias
    if alibi is not None:
        added = added - alibi.double()[:, None, None] * (position - key).abs()
    return softmax_formula(q, k, v, seen, added, scale or q.shape[3] ** -0.5)


def doubled(options):
    """Options with a bias in float64, of which a gradient is asked for."""
    bias = options.get("bias")
    return options if bias is None else {**options, "bias": bias.double().requires_grad_()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("way", ["fused", "float64", "packed"])
def test_values_and_gradients_are_the_formula_s(name, way):
    options = dict(CASES[name])
    qkv = random(3, 19, 3, 4, 12, seed=1)
    wanted = qkv.double().requires_grad_()
    exact_options = doubled(options)
    exact = textbook(*wanted.permute(2, 0, 3, 1, 4), **exact_options)
    weight = random(*exact.shape, seed=2, dtype=torch.float64)
    (exact * weight).sum().backward()

    given = qkv.to(torch.float64 if way == "float64" else torch.float32).requires_grad_()
    if "bias" in options:
        options["bias"] = options["bias"].clone().requires_grad_()
    if way == "packed":
        out = operator.self_attention(given, **options)
    else:
        out = operator.attention(*given.permute(2, 0, 3, 1, 4), **options)
    (out * weight.to(out.dtype)).sum().backward()
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=2e-6)
    torch.testing.assert_close(given.grad.double(), wanted.grad, rtol=0, atol=2e-5)
    if "bias" in options:
        expected = exact_options["bias"].grad
        torch.testing.assert_close(options["bias"].grad.double(), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shared", [1, 2])
def test_few_queries_shared_keys_and_wide_values(shared):
    q, k, v = random(2, 4, 3, 8), random(2, 4 // shared, 9, 8, seed=1), random(2, 4 // shared, 9, 5, seed=2)
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    wide = [exact[0], *(x.repeat_interleave(shared, 1) for x in exact[1:])]
    textbook(*wide, causal=True).sin().sum().backward()
    given = [x.requires_grad_() for x in (q, k, v)]
    operator.attention(*given, causal=True).sin().sum().backward()
    for ours, wanted in zip(given, exact, strict=True):
        torch.testing.assert_close(ours.grad.double(), wanted.grad, rtol=0, atol=1e-5)


def test_finite_differences():
    q, k, v = (random(1, 2, 5, 4, seed=i).requires_grad_() for i in range(3))
    operator.attention(q, k, v, causal=True).pow(2).sum().backward()
    for given in (q, k, v):
        moved, step = given.detach().clone(), 1e-2
        for place in ((0, 0, 0, 0), (0, 1, 3, 2)):
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    given[place] = moved[place] + sign * step
                    sides.append(operator.attention(q, k, v, causal=True).pow(2).sum().item())
                    given[place] = moved[place]
            assert (sides[0] - sides[1]) / (2 * step) == pytest.approx(given.grad[place].item(), abs=5e-3)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, of dual numbers
def test_other_derivatives_are_refused():
    """Taken forward torch would call them zero."""
    q, k, v = (random(1, 2, 5, 4, seed=i) for i in range(3))
    with pytest.raises(NotImplementedError, match="jvp"):
        torch.func.jvp(lambda q: operator.attention(q, k, v), (q,), (torch.ones_like(q),))
    given = [x.requires_grad_() for x in (q, k, v)]
    (first,) = torch.autograd.grad(operator.attention(*given).sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="no second ones"):
        first.sum().backward()


@pytest.mark.parametrize("packed", [True, False])
def test_autocast_casts_as_for_torch_s_own(packed):
    qkv = random(2, 6, 3, 4, 8)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    low = [x.bfloat16() for x in (q, k, v)]
    with torch.autocast("cpu", torch.bfloat16):
        ours = operator.self_attention(qkv) if packed else operator.attention(q, low[1], v)
        double = operator.attention(*(x.double() for x in (q, k, v)))
    torch.testing.assert_close(ours, operator.attention(*low), rtol=0, atol=0)
    assert double.dtype == torch.float64


def test_bf16():
    qkv = random(2, 70, 3, 4, 32).to(torch.bfloat16).requires_grad_()
    out = operator.self_attention(qkv, causal=True)
    out.float().pow(2).sum().backward()
    exact = qkv.detach().double().requires_grad_()
    wanted = textbook(*exact.permute(2, 0, 3, 1, 4), causal=True)
    wanted.pow(2).sum().backward()
    assert out.dtype == qkv.grad.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=2e-2)
    assert (qkv.grad - exact.grad).norm() < 1e-2 * exact.grad.norm()


def test_the_operator_keeps_torch_s_contract():
    """Schema, fake tensors, autograd's registration, and ahead-of-time tracing with sizes unknown."""
    qkv = random(2, 11, 3, 2, 8).requires_grad_()
    q, k, v = (x.detach().requires_grad_() for x in qkv.permute(2, 0, 3, 1, 4))
    lengths, bias = torch.tensor([11, 4]), random(1, 2, 11, 11).requires_grad_()
    seed = torch.tensor(5)
    for given in ([qkv], [q, k, v]):
        for rest in (
            (True, None, None, None, None, None, 0.3, 0.0, None),
            (False, 3, lengths, None, bias, None, 0.3, 0.2, seed),
            (False, None, None, torch.ones(11, 11, dtype=torch.bool), None, torch.ones(2), 0.3, 0.0, None),
        ):
            torch.library.opcheck(torch.ops.firth.attention.default, (given, *rest))


def test_compiling_does_not_break_the_graph():
    def step(qkv):
        seed = torch.randint(2**62, ())
        out = operator.self_attention(qkv * 2, causal=True, dropout=0.1, seed=seed)
        return out.transpose(1, 2).reshape(2, 11, 16).sum(-1)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    qkv = random(2, 11, 3, 2, 8)
    ours, wanted = qkv.clone().requires_grad_(), qkv.clone().requires_grad_()
    torch.manual_seed(3)
    left = compiled(ours)
    torch.manual_seed(3)
    right = step(wanted)
    torch.testing.assert_close(left, right)
    left.pow(2).sum().backward()
    right.pow(2).sum().backward()
    torch.testing.assert_close(ours.grad, wanted.grad)


def test_dropout_is_its_seed_s():
    q, k, v = (random(1, 2, 40, 8, seed=i) for i in range(3))
    once = operator.attention(q, k, v, dropout=0.5, seed=1)
    assert torch.equal(once, operator.attention(q, k, v, dropout=0.5, seed=torch.tensor(1)))
    assert not torch.equal(once, operator.attention(q, k, v, dropout=0.5, seed=2))
    many = torch.stack([operator.attention(q, k, v, dropout=0.5, seed=seed) for seed in range(400)])
    plain = operator.attention(q, k, v)
    error = many.std(0) / math.sqrt(400)
    assert ((many.mean(0) - plain).abs() < 5 * error).all()


def test_dropout_s_gradient_is_that_of_what_was_kept():
    """The weights that were kept show in the output when the values are unit vectors."""
    q, k = (random(1, 2, 12, 8, seed=i).requires_grad_() for i in range(2))
    v = torch.eye(12).expand(1, 2, 12, 12).contiguous().requires_grad_()
    kept = operator.attention(q, k, v, dropout=0.4, seed=7)
    kept.sin().sum().backward()
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    weights = torch.softmax(exact[0] @ exact[1].transpose(-1, -2) * 8**-0.5, -1)
    ((weights * (kept.detach() > 0) / 0.6) @ exact[2]).sin().sum().backward()
    for ours, wanted in zip((q, k, v), exact, strict=True):
        torch.testing.assert_close(ours.grad.double(), wanted.grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("bf16", [False, True])
def test_activation_checkpointing_changes_no_gradient(reentrant, bf16):
    """What is computed a second time in the backward pass is the same, dropout included."""
    options = {"dropout": 0.2, "attention_dropout": 0.2}
    architecture = Architecture(vocabulary_size=20, layers=2, heads=2, dim=16, length=12, causal=True, **options)
    torch.manual_seed(1)
    transformer = Transformer(architecture).train()
    x, lengths = random(3, 12, 16, seed=2), torch.tensor([12, 5, 1])
    targets = torch.arange(36).view(3, 12) % 20

    def gradients(again):
        transformer.zero_grad()
        begun = x.clone().requires_grad_()
        torch.manual_seed(7)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            states = begun
            for block in transformer.blocks:
                states = (
                    checkpoint(block, states, lengths, use_reentrant=reentrant) if again else block(states, lengths)
                )
            loss = transformer.loss
            nats = checkpoint(loss, states, targets, use_reentrant=reentrant) if again else loss(states, targets)
        nats.backward()
        found = {name: one.grad for name, one in transformer.named_parameters() if one.grad is not None}
        return {**found, "x": begun.grad}

    plain, checkpointed = gradients(False), gradients(True)
    assert plain.keys() == checkpointed.keys()
    assert len(plain) > 20
    for name, gradient in plain.items():
        assert torch.equal(gradient, checkpointed[name]), name


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_of_attention_with_a_learnt_bias(reentrant):
    q, k, v = (random(2, 4, 9, 8, seed=i).requires_grad_() for i in range(3))
    bias = random(4, 9, 9, seed=4).requires_grad_()

    def attend(q, k, v, bias):
        return operator.attention(q, k, v, bias=bias, causal=True, dropout=0.3, seed=5)

    plain = torch.autograd.grad(attend(q, k, v, bias).sin().sum(), (q, k, v, bias))
    checkpoint(attend, q, k, v, bias, use_reentrant=reentrant).sin().sum().backward()
    for one, gradient in zip((q, k, v, bias), plain, strict=True):
        assert torch.equal(one.grad, gradient)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_of_elmo(reentrant):
    elmo = ELMo(hidden=6, projection=4, character_dim=3, filters=((1, 4), (2, 4)), steps=1, dropout=0.3, threads=1)
    network = elmo.fit(["the bank of the river", "a bank"] * 4).network.train()
    batch = elmo.batch(["the bank", "of a river"])

    def gradients(again):
        network.zero_grad()
        torch.manual_seed(3)
        symbols = network.encoder(batch.symbols)[batch.words]
        run = lambda vectors: list(network._run(vectors, batch.lengths))[-1]  # noqa: E731
        top = checkpoint(run, symbols, use_reentrant=reentrant) if again else run(symbols)
        top.sin().sum().backward()
        return [one.grad for one in network.parameters() if one.grad is not None]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=1e-6)


def test_memory_order_follows_the_queries():
    qkv = random(2, 6, 3, 4, 8)
    out = operator.self_attention(qkv)
    assert out.transpose(1, 2).is_contiguous()
    assert out.transpose(1, 2).reshape(2, 6, 32).data_ptr() == out.data_ptr()
    assert operator.attention(*(x.contiguous() for x in qkv.permute(2, 0, 3, 1, 4))).is_contiguous()


def test_grad_of_any_strides():
    """What an expanded gradient, as a sum has, adds up to."""
    qkv = random(2, 6, 3, 4, 8).requires_grad_()
    operator.self_attention(qkv).sum().backward()
    again = qkv.detach().clone().requires_grad_()
    (operator.self_attention(again) * torch.ones(2, 4, 6, 8)).sum().backward()
    torch.testing.assert_close(qkv.grad, again.grad)


def test_threads_are_torch_s(monkeypatch):
    seen = []
    attend = operator._core.attend

    def watched(*arrays, options, threads):
        seen.append(threads)
        attend(*arrays, options=options, threads=threads)

    monkeypatch.setattr(operator._core, "attend", watched)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            operator.self_attention(random(1, 4, 3, 1, 4))
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 1.0},
        {"dropout": -0.5},
        {"dropout": "much"},
        {"lengths": torch.tensor([7, 1])},
        {"lengths": torch.tensor([-1, 1])},
        {"lengths": torch.tensor([1.0, 2.0])},
        {"lengths": torch.tensor([1, 2, 3])},
        {"window": -1},
        {"window": -2},
        {"window": 2.5},
        {"mask": torch.ones(5, 5, dtype=torch.bool)},
        {"mask": torch.ones(6, 6, dtype=torch.int64)},
        {"mask": torch.zeros(6, 6, requires_grad=True)},
        {"bias": torch.zeros(5, 6)},
        {"bias": torch.ones(6, 6, dtype=torch.bool)},
        {"alibi": torch.ones(3)},
        {"alibi": torch.tensor([1.0, math.inf, 1.0, 1.0])},
        {"alibi": torch.ones(4, requires_grad=True)},
        {"scale": math.nan},
        {"scale": "small"},
        {"seed": -1, "dropout": 0.5},
        {"seed": 2**64, "dropout": 0.5},
        {"v": random(2, 4, 5, 8)},
        {"k": random(2, 4, 6, 9)},
        {"k": random(2, 3, 6, 8), "v": random(2, 3, 6, 8)},
        {"q": random(4, 6, 8)},
    ],
)
@pytest.mark.parametrize("learning", [True, False, None])  # None: no way back is recorded
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_faces_refuse_alike(options, learning, dtype):
    given = {**{name: random(2, 4, 6, 8) for name in "qkv"}, **options}
    with pytest.raises((TypeError, ValueError)) as wanted:
        firth.attention(**given)
    # Numbers in tensors, and seeds, are looked at for the kernels alone.
    of_numbers = ("lengths must be 0", "alibi must be finite", "seed")
    described = dtype == torch.float32 or not str(wanted.value).startswith(of_numbers)
    given |= {name: given[name].to(dtype, copy=True).requires_grad_(bool(learning)) for name in "qkv"}
    if described:
        with torch.set_grad_enabled(learning is not None), pytest.raises(wanted.type) as found:
            operator.attention(**given)
        assert str(found.value) == str(wanted.value)


def test_seeds_are_of_64_bits():
    q = random(1, 2, 12, 8)
    one, other = (operator.attention(q, q, q, dropout=0.5, seed=seed) for seed in (2**64 - 1, 2**63))
    assert torch.equal(one, firth.attention(q, q, q, dropout=0.5, seed=2**64 - 1))
    assert not torch.equal(one, other)


def test_errors_of_shape_and_type():
    with pytest.raises(ValueError, match="time, 3, heads"):
        operator.self_attention(random(2, 6, 2, 4, 8))
    q = random(2, 4, 6, 8)
    with pytest.raises(TypeError, match="one type"):
        operator.attention(q, q.to(torch.bfloat16), q)
    with pytest.raises(TypeError, match="must be tensors, not ndarray"):
        operator.attention(q.numpy(), q.numpy(), q.numpy())
    with pytest.raises(TypeError, match="lengths must be a tensor, not list"):
        operator.attention(q, q, q, lengths=[1, 2])


def test_blind_queries_are_zero_in_both_ways():
    q = random(2, 2, 5, 8)
    for dtype in (torch.float32, torch.float64):
        out = operator.attention(*(q.to(dtype),) * 3, lengths=torch.tensor([5, 0]))
        assert (out[1] == 0).all()
        assert np.isfinite(out.numpy()).all()


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("sizes", [(6, 40), (40, 6), (1, 1)])
@pytest.mark.parametrize("rows", [3, 30])
def test_products_and_their_gradients(onednn, sizes, rows, monkeypatch):
    """By both libraries, with weights and gradients of any strides."""
    monkeypatch.setattr(operator, "_PREFERS_ONEDNN", onednn)
    taken, made = sizes
    x, bias = random(2, rows, taken), random(made, seed=2)
    weight = random(taken, made, seed=1).T
    exact = [given.double().requires_grad_() for given in (x, weight, bias)]
    wanted = exact[0] @ exact[1].T + exact[2]
    wanted.sin().sum().backward()
    given = [one.clone().requires_grad_() for one in (x, weight, bias)]
    ours = operator.linear(*given)
    torch.testing.assert_close(ours.double(), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(operator.product(x, weight).double(), wanted - exact[2], rtol=0, atol=1e-5)
    ours.sin().sum().backward()
    for mine, theirs in zip(given, exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=0, atol=2e-5)
    again = given[1].detach().requires_grad_()
    operator.linear(x, again).sum().backward()  # a gradient that is one number for all
    torch.testing.assert_close(again.grad.double(), x.double().sum((0, 1)).expand(made, taken), rtol=0, atol=1e-4)


def test_products_under_autocast_are_bf16():
    with torch.autocast("cpu", torch.bfloat16):
        assert operator.linear(random(30, 8), random(5, 8)).dtype == torch.bfloat16
