"""firth's attention in models of `transformers`, against their own "eager" and "sdpa"."""

from __future__ import annotations

import builtins
import types
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

from firth.contextual import operator, register_attention  # noqa: E402
from firth.contextual.interface import _attend  # noqa: E402

SMALL = {"vocab_size": 99, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
OF_GPT2 = {"vocab_size": 99, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}
OF_T5 = {"vocab_size": 99, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}


def made(kind: str, **options: Any) -> tuple[Any, Any]:
    """A class of models and a configuration of random weights."""
    model, config, given = {
        "bert": ("BertForMaskedLM", "BertConfig", SMALL),
        "gpt2": ("GPT2LMHeadModel", "GPT2Config", {**OF_GPT2, "eos_token_id": None, "pad_token_id": 0}),
        "llama": ("LlamaForCausalLM", "LlamaConfig", GROUPED),
        "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
        "mistral": ("MistralForCausalLM", "MistralConfig", {**GROUPED, "sliding_window": 5}),
        "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", {**GROUPED, "head_dim": 16}),
        "gpt_oss": ("GptOssForCausalLM", "GptOssConfig", {**GROUPED, "head_dim": 16, "num_local_experts": 2}),
    }[kind]
    return getattr(transformers, model), getattr(transformers, config)(**{**given, **options})


def models(kind: str, *ways: str, **options: Any) -> list[Any]:
    """The same model with several implementations of attention."""
    cls, config = made(kind, **options)
    torch.manual_seed(1)
    first = cls._from_config(config, attn_implementation=ways[0])
    found = [first]
    for way in ways[1:]:
        other = cls._from_config(made(kind, **options)[1], attn_implementation=way)
        other.load_state_dict(first.state_dict())
        found.append(other)
    return [one.eval() for one in found]


def padded(left: bool) -> tuple[Any, Any]:
    """Texts of 12, 7 and 1 tokens, and which tokens are theirs."""
    torch.manual_seed(2)
    ids = torch.randint(3, 99, (3, 12))
    place = torch.arange(12).expand(3, 12)
    lengths = torch.tensor([12, 7, 1])[:, None]
    return ids, place >= 12 - lengths if left else place < lengths


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    assert register_attention() == register_attention() == "firth"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What firth's operator was called with."""
    seen: list[dict[str, Any]] = []
    attention = operator.attention

    def noted(*tensors: Any, **options: Any) -> Any:
        seen.append(options)
        return attention(*tensors, **options)

    monkeypatch.setattr(operator, "attention", noted)
    return seen


@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "qwen2", "mistral"])
def test_logits_and_gradients_are_those_of_eager_and_sdpa(kind: str, padding: str | None, calls: list[Any]) -> None:
    ids, seen = padded(padding == "left")
    if padding is None:
        seen = torch.ones_like(seen)
    results = []
    for model in models(kind, "firth", "eager", "sdpa"):
        logits = model(ids, attention_mask=seen.long()).logits
        torch.nn.functional.cross_entropy(logits[seen], ids[seen]).backward()
        results.append((logits[seen].detach(), {name: one.grad for name, one in model.named_parameters()}))
    assert len(calls) == 2  # layers of the first model
    assert (calls[0]["mask"] is None) == (padding is None and kind != "mistral")
    ours = results[0]
    for logits, gradients in results[1:]:
        torch.testing.assert_close(ours[0], logits, rtol=1e-4, atol=1e-5)
        for name, gradient in gradients.items():
            if gradient is not None:
                torch.testing.assert_close(ours[1][name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "mistral"])
def test_generation_with_a_cache_writes_what_eager_writes(kind: str, padding: bool, cache: str | None) -> None:
    ids, seen = padded(left=True)
    if not padding:
        seen = torch.ones_like(seen)
    options = {"max_new_tokens": 10, "do_sample": False, "cache_implementation": cache, "disable_compile": True}
    ours, theirs = (
        model.generate(ids, attention_mask=seen.long(), pad_token_id=0, **options)
        for model in models(kind, "firth", "eager")
    )
    assert ours.shape == (3, 22)
    assert torch.equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:.past_key_values:FutureWarning")  # older versions know no other name
def test_a_cache_may_be_continued_by_several_tokens() -> None:
    """The last query stands at the last key."""
    ids, _ = padded(left=False)
    (model,) = models("llama", "firth")
    whole = model(ids).logits
    first = model(ids[:, :5], use_cache=True)
    rest = model(ids[:, 5:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(torch.cat([first.logits, rest], 1), whole, rtol=1e-4, atol=1e-5)


def test_packed_texts_do_not_see_each_other() -> None:
    ids, _ = padded(left=False)
    (model,) = models("llama", "firth")
    apart = [model(ids[:1, :5]).logits, model(ids[:1, 5:]).logits]
    places = torch.cat([torch.arange(5), torch.arange(7)])[None]
    packed = model(ids[:1], position_ids=places, use_cache=False).logits
    torch.testing.assert_close(packed, torch.cat(apart, 1), rtol=1e-4, atol=1e-5)


def test_bias_of_positions_is_added_and_trained() -> None:
    """T5: a trained bias in the self-attention of encoder and decoder, none in the attention to the encoder."""
    ids, seen = padded(left=False)
    options = {**OF_T5, "dropout_rate": 0.0, "decoder_start_token_id": 0}
    found = []
    for way in ("firth", "eager"):
        torch.manual_seed(1)
        config = transformers.T5Config(**options)
        model = transformers.T5ForConditionalGeneration._from_config(config, attn_implementation=way).eval()
        out = model(ids, attention_mask=seen.long(), labels=ids)
        out.loss.backward()
        table = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad
        found.append((out.logits.detach(), table))
    assert float(found[0][1].abs().max()) > 0
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_dropout_follows_torchs_generator_and_keeps_the_mean() -> None:
    ids, _ = padded(left=False)
    (model,) = models("gpt2", "firth", **{**NO_DROPOUT, "attn_pdrop": 0.5})
    exact = model(ids).logits
    model.train()
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(model(ids).logits.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    layer = types.SimpleNamespace(is_causal=False)
    q, k, v = torch.randn(3, 1, 4, 16, 8).unbind(0)
    mean = torch.stack([_attend(layer, q, k, v, None, dropout=0.3)[0] for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean, _attend(layer, q, k, v, None)[0], atol=0.05, rtol=0)
    assert not torch.equal(found[0], exact)


def test_bf16_and_types_without_a_kernel() -> None:
    ids, seen = padded(left=True)
    for kind, dtype in (("llama", torch.bfloat16), ("llama", torch.float64), ("bert", torch.float16)):
        ours, theirs = (
            model.to(dtype)(ids, attention_mask=seen.long()).logits[seen].float()
            for model in models(kind, "firth", "sdpa")
        )
        tolerance = 1e-6 if dtype == torch.float64 else 2e-2
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_a_sliding_window_holds_without_a_mask() -> None:
    """Of a causal layer, and of one query against a cache; elsewhere nobody says which keys are meant."""
    q, k, v = torch.randn(3, 1, 2, 9, 8).unbind(0)
    place = torch.arange(9)
    near = (place[:, None] - place < 3) & (place[:, None] >= place)
    causal = types.SimpleNamespace(is_causal=True)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, near).transpose(1, 2)
    torch.testing.assert_close(_attend(causal, q, k, v, None, sliding_window=3)[0], wanted)
    last = _attend(causal, q[:, :, -1:], k, v, None, sliding_window=3)[0]
    torch.testing.assert_close(last, wanted[:, -1:])
    with pytest.raises(ValueError, match=r"sliding window and no mask.*eager"):
        _attend(causal, q, k, v, None, sliding_window=3, is_causal=False)


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("gemma2", {}, 'softcap.*Gemma2Attention asks for.*attn_implementation="eager"'),
        ("gpt_oss", {}, "sinks.*GptOssAttention.*eager"),
        ("bert", {"output_attentions": True}, "attention weights.*BertSelfAttention.*eager"),
        ("llama", {"output_attentions": True}, "attention weights.*LlamaAttention.*eager"),
    ],
)
def test_what_firth_does_not_compute_is_refused(kind: str, options: dict[str, Any], said: str) -> None:
    ids, _ = padded(left=False)
    (model,) = models(kind, "firth")
    with pytest.raises(ValueError, match=said):
        model(ids, **options)


def test_without_transformers_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match="pip install 'transformers>=5'"):
        register_attention()
