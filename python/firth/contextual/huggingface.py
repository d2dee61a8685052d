"""Folders in the Hugging Face layout: config.json, model.safetensors, tokenizer.json.

It reads the families of BERT (with RoBERTa and DistilBERT, which name the same parts differently) and GPT-2, and writes
BERT and GPT-2, for `transformers` to open. One table for each family lists the names of its parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from firth import files
from firth.checks import whole_number
from firth.contextual.transformer import Architecture, Transformer
from firth.run import CHECKPOINT

if TYPE_CHECKING:
    from firth.contextual.tokenizer import Tokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"

_ACTIVATIONS = {  # theirs: ours; the first of several names is written
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True, kw_only=True)
class _Family:
    """A family's names: firth's on the left, the family's on the right.

    Several names stand for the matrices that are one matrix here, in order.
    """

    options: dict[str, str]  # fields of Architecture: keys of config.json
    fixed: dict[str, Any]  # fields with one value for the whole family
    prefix: str  # of the names in a model with a head, but not of the head's parts
    parts: dict[str, str]
    blocks: str
    block: dict[str, tuple[str, ...]]
    head: dict[str, str]
    unembedding: str
    transposed: bool = False  # GPT-2's matrices of blocks are (in, out)
    buffers: tuple[str, ...] = ()  # ends of names in blocks that are not parameters
    unlike: dict[str, Any] = field(default_factory=dict)  # options of which only this value is known


_OPTIONS = {"vocabulary_size": "vocab_size", "tied": "tie_word_embeddings", "padding": "pad_token_id"}
_BERT = _Family(
    options={
        **_OPTIONS,
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "dim": "hidden_size",
        "mlp_dim": "intermediate_size",
        "length": "max_position_embeddings",
        "token_types": "type_vocab_size",
        "activation": "hidden_act",
        "epsilon": "layer_norm_eps",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "causal": "is_decoder",
        "cross": "add_cross_attention",
    },
    fixed={"norm": "post"},
    prefix="bert.",
    parts={
        "embedding": "embeddings.word_embeddings",
        "positions": "embeddings.position_embeddings",
        "token_types": "embeddings.token_type_embeddings",
        "embedding_norm": "embeddings.LayerNorm",
        "pooler": "pooler.dense",
    },
    blocks="encoder.layer.",
    block={
        "attention.qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.out": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "cross.q": ("crossattention.self.query",),
        "cross.kv": ("crossattention.self.key", "crossattention.self.value"),
        "cross.out": ("crossattention.output.dense",),
        "cross_norm": ("crossattention.output.LayerNorm",),
        "up": ("intermediate.dense",),
        "down": ("output.dense",),
        "mlp_norm": ("output.LayerNorm",),
    },
    head={
        "masked_head.dense": "cls.predictions.transform.dense",
        "masked_head.norm": "cls.predictions.transform.LayerNorm",
        "masked_head": "cls.predictions",  # its own parameter is the bias
    },
    unembedding="cls.predictions.decoder",
    unlike={"position_embedding_type": "absolute"},
)

_GPT2 = _Family(
    options={
        **_OPTIONS,
        "layers": "n_layer",
        "heads": "n_head",
        "dim": "n_embd",
        "mlp_dim": "n_inner",
        "length": "n_positions",
        "activation": "activation_function",
        "epsilon": "layer_norm_epsilon",
        "dropout": "resid_pdrop",
        "attention_dropout": "attn_pdrop",
        "cross": "add_cross_attention",
    },
    fixed={"norm": "pre", "causal": True},
    prefix="transformer.",
    parts={"embedding": "wte", "positions": "wpe", "final_norm": "ln_f"},
    blocks="h.",
    block={
        "attention.qkv": ("attn.c_attn",),
        "attention.out": ("attn.c_proj",),
        "attention_norm": ("ln_1",),
        "cross.q": ("crossattention.q_attn",),
        "cross.kv": ("crossattention.c_attn",),
        "cross.out": ("crossattention.c_proj",),
        "cross_norm": ("ln_cross_attn",),
        "up": ("mlp.c_fc",),
        "down": ("mlp.c_proj",),
        "mlp_norm": ("ln_2",),
    },
    head={},
    unembedding="lm_head",
    transposed=True,
    buffers=("attn.bias", "attn.masked_bias", "crossattention.bias", "crossattention.masked_bias"),
    unlike={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False},
)

_ROBERTA = replace(
    _BERT,
    prefix="roberta.",
    head={"masked_head.dense": "lm_head.dense", "masked_head.norm": "lm_head.layer_norm", "masked_head": "lm_head"},
    unembedding="lm_head.decoder",
)

_DISTILBERT = _Family(
    options={
        **_OPTIONS,
        "layers": "n_layers",
        "heads": "n_heads",
        "dim": "dim",
        "mlp_dim": "hidden_dim",
        "length": "max_position_embeddings",
        "activation": "activation",
        "dropout": "dropout",
        "attention_dropout": "attention_dropout",
    },
    fixed={"norm": "post", "causal": False, "epsilon": 1e-12},
    prefix="distilbert.",
    parts={name: _BERT.parts[name] for name in ("embedding", "positions", "embedding_norm")},
    blocks="transformer.layer.",
    block={
        "attention.qkv": ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out": ("attention.out_lin",),
        "attention_norm": ("sa_layer_norm",),
        "up": ("ffn.lin1",),
        "down": ("ffn.lin2",),
        "mlp_norm": ("output_layer_norm",),
    },
    head={
        "masked_head.dense": "vocab_transform",
        "masked_head.norm": "vocab_layer_norm",
        "masked_head": "vocab_projector",
    },
    unembedding="vocab_projector",
)

_FAMILIES = {
    "bert": _BERT,
    "gpt2": _GPT2,
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "distilbert": _DISTILBERT,
}


class FamilyHead(NamedTuple):
    """A classifier's head in a family's layout: the family, its tensors, and further entries of config.json."""

    kind: str
    tensors: dict[str, NDArray[Any]]
    config: dict[str, Any]


def read(folder: files.PathLike) -> tuple[Transformer, dict[str, Any]]:
    """Read a model, in float32 and evaluation mode, without task heads; and its config.json.

    OSError or ValueError if a file is missing or cannot be read; if the model is of another family, or the tensors are
    not those of config.json, naming the tensor.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    kind = config.get("model_type")
    family = _FAMILIES.get(str(kind))
    if config.get("model") == "ELMo":
        raise ValueError(f"{folder} holds an ELMo: firth.contextual.load, or ELMo.load, reads it")
    if config.get("is_encoder_decoder") is True or kind == "encoder-decoder":
        raise ValueError(
            f"{folder / CONFIG} describes an encoder-decoder, a {kind!r}; firth reads only encoders or decoders: "
            f"{', '.join(_FAMILIES)}"
        )
    if family is None:
        raise ValueError(f"{folder / CONFIG} describes a {kind!r} model; firth reads {', '.join(_FAMILIES)}")
    tensors = read_weights(folder)
    # Old files call a norm's weight gamma and its bias beta.
    tensors = {name.replace(".gamma", ".weight").replace(".beta", ".bias"): t for name, t in tensors.items()}
    prefix = family.prefix if any(name.startswith(family.prefix) for name in tensors) else ""
    blocks = prefix + family.blocks
    skipped = 0
    try:
        if family is _ROBERTA:  # its positions begin after the padding token's
            padding = config.get("pad_token_id")
            skipped = (1 if padding is None else whole_number("pad_token_id", padding)) + 1
        architecture = _architecture(folder, config, family, tensors, skipped)
    except TypeError as error:
        raise ValueError(f"{folder / CONFIG} is damaged: {error}") from None
    last = f"{blocks}{architecture.layers - 1}."
    if not any(name.startswith(last) for name in tensors):
        raise ValueError(f"{folder} has no tensor '{last}...', which config.json says there is")
    with torch.device("meta"):  # these weights are replaced at once: no memory, no random numbers
        try:
            transformer = Transformer(architecture)
        except (RuntimeError, TypeError, OverflowError):
            raise ValueError(f"{folder / CONFIG} is damaged: no tensor can have the sizes that it says") from None
    state, used = {}, set()
    for name, parameter in transformer.state_dict().items():
        theirs, transposed = _their_names(family, prefix, name)
        # `transformers` 5 adds the decoder's bias, which is another one if the embeddings are not tied.
        if name == "masked_head.bias" and f"{family.unembedding}.bias" in tensors:
            theirs = [f"{family.unembedding}.bias"]
        parts = []
        for their in theirs:
            if their not in tensors:
                raise ValueError(f"{folder} has no tensor {their!r}, which config.json says there is")
            part = torch.from_numpy(tensors[their])
            wanted = [parameter.shape[0] // len(theirs), *parameter.shape[1:]]
            wanted[0] += skipped if name == "positions.weight" else 0
            wanted = wanted[::-1] if transposed else wanted
            if list(part.shape) != wanted:
                raise ValueError(
                    f"{folder}: tensor {their!r} of shape {tuple(part.shape)} should make shape {tuple(wanted)}"
                )
            if not part.is_floating_point() or not bool(torch.isfinite(part.sum(dtype=torch.float64))):
                raise ValueError(f"{folder}: tensor {their!r} must hold finite floats")
            parts.append(part.T if transposed else part)
            used.add(their)
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        if name == "positions.weight":
            whole = whole[skipped:]
        # A copy in torch's own memory, which is aligned for its matrix products.
        state[name] = torch.empty(whole.shape).copy_(whole)
    for name in tensors:
        if name.startswith(blocks) and name not in used and not name.endswith(family.buffers or ("?",)):
            raise ValueError(f"{folder}: config.json does not account for the tensor {name!r}")
    transformer.load_state_dict(state, assign=True)
    return transformer.eval(), config


def write(
    folder: files.PathLike, transformer: Transformer, tokenizer: Tokenizer | None, *, head: FamilyHead | None = None
) -> None:
    """Write a model in float32 for `read` and for `transformers`: BERT if norms are after each part, GPT-2 if before.

    The folder is created if missing; each file is written whole or not at all. With a classifier's `head`, the folder
    is for `transformers` a classifier's of the head's family. ValueError if neither family can express the
    architecture.
    """
    architecture = transformer.architecture
    kind = head.kind if head is not None else "gpt2" if architecture.norm == "pre" else "bert"
    extra_parts = architecture.token_types or architecture.masked_head or architecture.pooler
    if kind == "gpt2" and (extra_parts or not architecture.causal):
        raise ValueError(
            "with norms before each part only a causal model, without token types, masked head and pooler, is a GPT-2"
        )
    if kind == "bert" and architecture.cross and not architecture.causal:
        raise ValueError("a BERT that attends to a memory must be causal")
    if kind == "bert" and not architecture.masked_head and not architecture.tied:
        raise ValueError("a BERT without a masked head must be tied: it has no unembedding of its own")
    family = _FAMILIES[kind]
    headed = kind == "gpt2" or architecture.masked_head or head is not None
    prefix = family.prefix if headed else ""
    tensors: dict[str, NDArray[Any]] = {}
    for name, parameter in transformer.state_dict().items():
        theirs, transposed = _their_names(family, prefix, name)
        for their, part in zip(theirs, parameter.detach().float().cpu().chunk(len(theirs)), strict=True):
            tensors[their] = (part.T if transposed else part).contiguous().numpy()
    if kind == "bert" and not architecture.token_types:  # one type, which adds nothing
        tensors[f"{prefix}embeddings.token_type_embeddings.weight"] = np.zeros((1, architecture.dim), np.float32)
    if "cls.predictions.bias" in tensors:  # newer readers expect the decoder's name
        tensors["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(architecture, kind, headed, tokenizer)
    if head is not None:
        tensors |= head.tensors
        config |= head.config
    files.write_tensors(folder / WEIGHTS, tensors, {}, plain={"format": "pt"})
    write_json(folder / CONFIG, config)
    if tokenizer is not None:
        # A causal model was trained on texts without special tokens around them.
        tokenizer.save(folder, special=not architecture.causal)
        extra: dict[str, Any] = {"model_max_length": architecture.length}  # or truncation=True truncates nothing
        if kind == "bert" and architecture.token_types > 1:  # or `transformers` leaves out the types of a pair
            extra["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        if head is not None and config["pad_token_id"] is not None:  # or it cannot pad a batch
            extra["pad_token"] = tokenizer.tokens[config["pad_token_id"]]
        place = folder / "tokenizer_config.json"
        write_json(place, {**read_json(place), **extra})


def check_tokenizer(folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer, rows: int) -> None:
    """ValueError for a tokenizer that is not the model's.

    It has more tokens than the embedding has rows, or far fewer; or config.json gives the number of an ordinary token
    as that of a special one.
    """
    n = len(tokenizer)
    if not rows - _MOST_UNUSED <= n <= rows:
        raise ValueError(
            f"the tokenizer in {folder} has {n} tokens and the model rows for {rows}: they are not of one model"
        )
    roles = {"pad": tokenizer.padding, "cls": tokenizer.start, "mask": tokenizer.mask, "unk": tokenizer.unknown}
    roles["sep"] = tokenizer.end
    if config.get("model_type") not in ("bert", "distilbert"):  # their configurations may have these without a meaning
        roles |= {"bos": tokenizer.end if tokenizer.start is None else tokenizer.start, "eos": tokenizer.end}
    for role, own in roles.items():
        number = config.get(f"{role}_token_id")
        if own is None or type(number) is not int or number in (own, _DEFAULT_END) or not 0 <= number < n:
            continue
        if not tokenizer.special[number]:
            raise ValueError(
                f"{folder / CONFIG} says {role}_token_id = {number}, which in its tokenizer is the ordinary token "
                f"{tokenizer.tokens[number]!r}: they are not of one model"
            )


# Rows without a token: embeddings are padded to a multiple of 64, 128 or 1,024 rows.
_MOST_UNUSED = 1024
_DEFAULT_END = 50256  # of GPT-2: configurations of models with another vocabulary often keep it


def read_json(place: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError naming the file if it holds anything else."""
    found = parse_json(place)
    if not isinstance(found, dict):
        raise ValueError(f"{place} is damaged: it is not a JSON object")
    return found


def parse_json(place: Path) -> Any:
    """The content of a JSON file; FileNotFoundError if it is not there, ValueError if it is not JSON, naming it."""
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        state = ": it holds the state of a training, which fit(..., checkpoint=folder, resume=True) continues"
        raise FileNotFoundError(
            f"{place.parent} holds no {place.name}{state if place.with_name(CHECKPOINT).exists() else ''}"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        files.refuse_pointer(place)
        raise ValueError(f"{place} is damaged: it is not JSON, {error}") from None


def write_json(place: Path, content: Any) -> None:
    """Write a JSON file, whole or not at all."""
    with files.replacing(place) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def read_weights(folder: Path, *, mmap: bool = False) -> dict[str, NDArray[Any]]:
    """All tensors of a folder by name; mapped, they are read from disk when they are used."""
    if (folder / WEIGHTS).exists():
        return files.read_tensors(folder / WEIGHTS, mmap=mmap)[0]
    if (folder / _INDEX).exists():
        parts = read_json(folder / _INDEX).get("weight_map")
        if not isinstance(parts, dict) or not all(isinstance(name, str) for name in parts.values()):
            raise ValueError(f"{folder / _INDEX} is damaged: its weight_map does not name the files of the tensors")
        tensors: dict[str, NDArray[Any]] = {}
        for name in sorted(set(parts.values())):
            if name != PurePath(name).name or name in ("", ".."):
                raise ValueError(f"{folder / _INDEX} names {name!r}, which is not a file in its folder")
            if not (folder / name).exists():
                raise FileNotFoundError(f"{folder / _INDEX} names {name!r}, which is missing: the folder is incomplete")
            tensors |= files.read_tensors(folder / name, mmap=mmap)[0]
        return tensors
    pickled = (folder / "pytorch_model.bin").exists()
    advice = ": pytorch_model.bin is pickled, which firth does not open; save it as safetensors" if pickled else ""
    raise FileNotFoundError(f"{folder} has no {WEIGHTS}{advice}")


def _architecture(
    folder: Path, config: Mapping[str, Any], family: _Family, tensors: Mapping[str, NDArray[Any]], skipped: int
) -> Architecture:
    for name, value in family.unlike.items():
        if config.get(name, value) != value:
            raise ValueError(f"{folder / CONFIG}: firth does not know {name} = {config[name]!r}, only {value!r}")
    given: dict[str, Any] = dict(family.fixed)
    for ours, theirs in family.options.items():
        if config.get(theirs) is not None:
            given[ours] = config[theirs]
    for name in ("vocabulary_size", "layers", "heads", "dim", "length", "mlp_dim"):
        if name not in given and name != "mlp_dim":
            raise ValueError(f"{folder / CONFIG} does not say {family.options[name]!r}")
        try:
            whole_number(family.options[name], given.get(name, 1), low=1)
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG} is damaged: {error}") from None
    defaults = {"activation": "gelu_new", "epsilon": 1e-5} if family is _GPT2 else {"activation": "gelu"}
    given = {"epsilon": 1e-12, "causal": False, **defaults, **given}
    if str(given["activation"]) not in _ACTIVATIONS:
        raise ValueError(
            f"{folder / CONFIG}: firth does not know the activation {given['activation']!r}, "
            f"only {', '.join(_ACTIVATIONS)}"
        )
    given["activation"] = _ACTIVATIONS[given["activation"]]
    for name in ("causal", "cross", "tied"):
        if not isinstance(given.get(name, True), bool):
            raise TypeError(f"{family.options[name]} must be true or false, not {given[name]!r}")
    given["length"] -= skipped
    names = {name.removeprefix(family.prefix): name for name in tensors}
    embedding = names.get(f"{family.parts['embedding']}.weight", "")
    kinds = tensors.get(names.get("embeddings.token_type_embeddings.weight", ""))
    if kinds is not None and len(kinds) == 1 and not np.any(kinds):  # as `write` expresses that there are none
        given["token_types"] = 0
    elif kinds is not None and not given.setdefault("token_types", len(kinds)):
        raise ValueError(f"{folder} has embeddings of {len(kinds)} token types, and {CONFIG} says that there are none")
    given["pooler"] = "pooler" in family.parts and f"{family.parts['pooler']}.weight" in names
    if family.head:
        given["masked_head"] = f"{family.head['masked_head.dense']}.weight" in names
    unembedding = tensors.get(f"{family.unembedding}.weight")
    if unembedding is None and not given.get("masked_head"):
        given["tied"] = True  # a model without its head
    elif unembedding is not None and given.get("tied", True):
        # Two different matrices are not tied, whatever config.json says: `transformers` 5 reads them so too.
        given["tied"] = np.array_equal(unembedding, tensors.get(embedding, unembedding))
    if family is _ROBERTA and given["masked_head"] and given["activation"] != "gelu":
        raise ValueError(
            f"{folder / CONFIG}: the head of a RoBERTa computes gelu, its blocks {config.get('hidden_act')!r}; firth "
            "knows no model with two activations"
        )
    try:
        return Architecture(**given)
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from None


def _their_names(family: _Family, prefix: str, name: str) -> tuple[list[str], bool]:
    """The family's tensors of one of firth's parameters, and whether they are transposed."""
    part, _, kind = name.rpartition(".")
    alone = {"unembedding": family.unembedding, **family.head}
    alone |= {ours: prefix + theirs for ours, theirs in family.parts.items()}
    if part in alone:
        return [f"{alone[part]}.{kind}"], False
    _, layer, inner = part.split(".", 2)
    names = [f"{prefix}{family.blocks}{layer}.{their}.{kind}" for their in family.block[inner]]
    return names, family.transposed and kind == "weight" and not inner.endswith("norm")


def _config(architecture: Architecture, kind: str, headed: bool, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """config.json of an architecture."""
    config: dict[str, Any] = {"model_type": kind, "initializer_range": 0.02}
    for ours, theirs in _FAMILIES[kind].options.items():
        config[theirs] = getattr(architecture, ours)
    config[_FAMILIES[kind].options["activation"]] = next(
        theirs for theirs, ours in _ACTIVATIONS.items() if ours == architecture.activation
    )
    if kind == "bert":
        config["architectures"] = ["BertForMaskedLM" if headed else "BertModel"]
        config["type_vocab_size"] = max(1, architecture.token_types)
        config["position_embedding_type"] = "absolute"
    elif kind == "gpt2":
        config["architectures"] = ["GPT2LMHeadModel"]
        config["embd_pdrop"] = architecture.dropout
        end = None if tokenizer is None else tokenizer.end
        config["bos_token_id"] = config["eos_token_id"] = end
    return config
