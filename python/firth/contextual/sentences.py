"""Folders of sentence-transformers: from the hidden states of a text's tokens to one vector for the text.

modules.json lists a transformer, a pooling, and further modules. Pooling in every mode, Dense and Normalize are
computed as in that library; other modules are refused by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from firth import files
from firth.checks import whole_number
from firth.contextual.encoding import pooled_texts
from firth.contextual.huggingface import CONFIG, WEIGHTS, parse_json, read_json, write_json
from firth.contextual.tokenizer import Tokenizer, lowercased

MODULES = "modules.json"
_PIPELINE = "config_sentence_transformers.json"
_TRANSFORMER = "sentence_bert_config.json"
# Old versions named the file after the model.
_TRANSFORMERS = (
    _TRANSFORMER,
    *(f"sentence_{kind}_config.json" for kind in ("roberta", "distilbert", "camembert", "xlm-roberta")),
)
# In the order in which old configurations, with a flag for each mode, concatenate them.
_MODES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {  # of Dense
    "torch.nn.modules.activation.Tanh": torch.tanh,
    "torch.nn.modules.activation.ReLU": F.relu,
    "torch.nn.modules.activation.GELU": F.gelu,
    "torch.nn.modules.activation.SiLU": F.silu,
    "torch.nn.modules.activation.Sigmoid": torch.sigmoid,
    "torch.nn.modules.linear.Identity": lambda x: x,
}
# Keys of the transformer's configuration that change no vector of `encode`.
_HARMLESS = {"model_args", "model_kwargs", "unpad_inputs", "query_length", "document_length", "query_expansion"}


@dataclass(frozen=True)
class Dense:
    """A linear layer and an activation; if it is residual, its input is added to the result."""

    weight: Tensor
    bias: Tensor | None
    activation: str
    residual: bool
    projection: Tensor | None  # of the input, if its width differs

    def __call__(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        weight, bias, projection = (
            None if part is None else part.to(x.device) for part in (self.weight, self.bias, self.projection)
        )
        assert weight is not None
        found = _ACTIVATIONS[self.activation](F.linear(x, weight, bias))
        if not self.residual:
            return found
        return found + (x if projection is None else F.linear(x, projection))


@dataclass(frozen=True)
class SentenceModules:
    """The modules of a folder of sentence-transformers, without the transformer."""

    pooling: tuple[str, ...]  # modes, whose vectors are concatenated
    include_prompt: bool  # whether the prompt's tokens are pooled too
    steps: tuple[Callable[[Tensor], Tensor], ...]  # applied to the pooled vectors, in order
    width: int  # dimensions of the result
    length: int  # texts are truncated to this many tokens
    prompt: str  # prepended to every text
    written: Mapping[str, Any]  # JSON files by their paths in the folder, and the tensors of Dense modules

    def prompted(self, texts: Sequence[str | list[str]]) -> list[str | list[str]]:
        """The texts, or lists of words, with the prompt before each."""
        if not self.prompt:
            return list(texts)
        return [self.prompt + one if isinstance(one, str) else [*self.prompt.split(), *one] for one in texts]

    def skipped(self, tokenizer: Tokenizer) -> int:
        """How many tokens at the beginning of each text, those of the prompt, are not pooled."""
        if self.include_prompt or not self.prompt:
            return 0
        ids = tokenizer.encode(self.prompt, length=self.length).ids
        return len(ids) - bool(ids and tokenizer.special[ids[-1]])

    def vectors(self, states: Tensor, lengths: Tensor, skip: int) -> Tensor:
        """The vectors of texts, (B, ..., width), from the hidden states of their tokens, (B, T, ..., dim)."""
        found = torch.cat([pooled_texts(states, lengths, mode, skip) for mode in self.pooling], -1)
        for step in self.steps:
            found = step(found)
        return found[..., : self.width]

    def write(self, folder: Path) -> None:
        """Write the modules' files beside a transformer's, for `sentence_modules` and for sentence-transformers."""
        for name, content in self.written.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.suffix == ".json":
                write_json(place, content)
            else:
                files.write_tensors(place, content, {}, plain={"format": "pt"})


def transformer_folder(folder: Path) -> Path:
    """The transformer's folder: the folder itself, unless modules.json names another one inside."""
    modules = _modules(folder)
    return folder if modules is None else folder / modules[0]["path"]


def sentence_modules(
    folder: Path, tokenizer: Tokenizer, *, dim: int, positions: int
) -> tuple[SentenceModules | None, Tokenizer]:
    """The modules of a folder, None without modules.json; and its tokenizer, which lowercases if the folder says so.

    `tokenizer`, `dim` and `positions` are those of its transformer. OSError or ValueError if a file is missing or
    damaged; if firth does not know a module or an option, naming it.
    """
    modules = _modules(folder)
    if modules is None:
        return None, tokenizer
    try:
        return _read(folder, modules, tokenizer, dim, positions)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / MODULES}, or a file of its modules, is damaged: {error!r}") from None


def _read(
    folder: Path, modules: list[dict[str, Any]], tokenizer: Tokenizer, dim: int, positions: int
) -> tuple[SentenceModules, Tokenizer]:
    written: dict[str, Any] = {MODULES: [{**modules[0], "path": ""}, *modules[1:]]}
    place = folder / modules[1]["path"] / CONFIG
    config = read_json(place)
    written[f"{modules[1]['path']}/{CONFIG}"] = config
    modes = _modes_of(place, config)
    include_prompt = _flag(place, config, "include_prompt", True)
    own = config.get("embedding_dimension", config.get("word_embedding_dimension", dim))
    if own != dim:
        raise ValueError(f"{place} pools hidden states of {own} dimensions, and the transformer's have {dim}")
    width = len(modes) * dim
    steps: list[Callable[[Tensor], Tensor]] = []
    for module in modules[2:]:
        kind = _kind(folder, module)
        place = folder / module["path"] / CONFIG
        config = read_json(place) if place.exists() or kind == "Dense" else {}
        for key in ("module_input_name", "module_output_name"):
            if (config.get(key) or "sentence_embedding") != "sentence_embedding":
                raise ValueError(f"{place}: firth does not know the {key} {config[key]!r}, only 'sentence_embedding'")
        if config:
            written[f"{module['path']}/{CONFIG}"] = config
        if kind == "Dense":
            dense, tensors = _dense(place, config, width)
            written[f"{module['path']}/{WEIGHTS}"] = tensors
            steps.append(dense)
            width = len(dense.weight)
        elif kind == "Normalize":
            steps.append(functools.partial(F.normalize, dim=-1))
        else:
            raise ValueError(
                f"{folder / MODULES}: firth does not know the module {kind}, only Transformer, Pooling, Dense and "
                f"Normalize; without {MODULES} only the transformer is read"
            )
    pipeline = read_json(folder / _PIPELINE) if (folder / _PIPELINE).exists() else {}
    written[_PIPELINE] = pipeline
    prompt = _prompt(folder / _PIPELINE, pipeline)
    if pipeline.get("truncate_dim") is not None:
        width = min(width, _count(folder / _PIPELINE, pipeline, "truncate_dim"))
    home = folder / modules[0]["path"]
    length, lower, options = _of_transformer(home, positions)
    written[_TRANSFORMER] = {**options, "max_seq_length": length, "do_lower_case": lower}
    if lower:
        tokenizer = lowercased(tokenizer)
    found = SentenceModules(modes, include_prompt, tuple(steps), width, length, prompt, written)
    if prompt and len(tokenizer.encode(prompt)) >= length:
        raise ValueError(
            f"{folder / _PIPELINE}: the default prompt fills all {length} tokens to which texts are truncated"
        )
    return found, tokenizer


def _modules(folder: Path) -> list[dict[str, Any]] | None:
    """What modules.json lists, a Transformer and a Pooling first; None without one."""
    place = folder / MODULES
    if not place.exists():
        return None
    modules = parse_json(place)
    if not isinstance(modules, list) or not modules or not all(isinstance(one, dict) for one in modules):
        raise ValueError(f"{place} is damaged: it is not a list of modules")
    for i, one in enumerate(modules):
        path = one.get("path")
        parts = PurePosixPath(path).parts if isinstance(path, str) else ("..",)
        # Only the transformer may lie in the folder itself: the others have a config.json of their own.
        if (i and not parts) or ".." in parts or parts[:1] == ("/",):
            raise ValueError(
                f"{place}: the module {one.get('name')!r} must have a path inside the folder, not {path!r}"
            )
    for i, wanted in enumerate(("Transformer", "Pooling")):
        kind = _kind(folder, modules[i]) if i < len(modules) else "none"
        if kind != wanted:
            raise ValueError(
                f"{place}: firth knows folders whose {('first', 'second')[i]} module is a {wanted}, not {kind}: "
                f"without {MODULES} only the transformer is read"
            )
    return modules


def _kind(folder: Path, module: Mapping[str, Any]) -> str:
    """The class of a module; ValueError if it is not of sentence-transformers."""
    library, _, kind = str(module.get("type")).rpartition(".")
    if library.split(".")[0] != "sentence_transformers":
        raise ValueError(
            f"{folder / MODULES}: the module {module.get('type')!r} is code of its own, which firth does not run: "
            f"without {MODULES} only the transformer is read"
        )
    return kind


def _flag(place: Path, config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{place}: {key} must be true or false, not {value!r}")
    return value


def _count(place: Path, config: Mapping[str, Any], key: str, low: int = 1) -> int:
    try:
        return whole_number(key, config.get(key), low=low)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place} is damaged: {error}") from None


def _modes_of(place: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Pooling modes; older configurations have a flag for each."""
    given = config.get("pooling_mode")
    if given is None:
        given = [mode for mode, flag in _MODES.items() if _flag(place, config, flag, False)] or "mean"
    modes = (given,) if isinstance(given, str) else tuple(given)
    for mode in modes or (given,):
        if mode not in [*_MODES]:  # a list: what the file holds may not be hashable
            raise ValueError(f"{place}: firth does not know the pooling mode {mode!r}, only {', '.join(_MODES)}")
    return modes


def _dense(place: Path, config: Mapping[str, Any], width: int) -> tuple[Dense, dict[str, NDArray[Any]]]:
    """A Dense module that takes vectors of `width` dimensions, and its tensors."""
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS:
        raise ValueError(
            f"{place}: firth does not know the activation_function {activation!r}, only {', '.join(_ACTIVATIONS)}"
        )
    weights = place.with_name(WEIGHTS)
    if not weights.exists():
        raise FileNotFoundError(f"{weights} is missing: firth reads no pickled weights, such as pytorch_model.bin")
    tensors = files.read_tensors(weights)[0]
    out, residual = _count(place, config, "out_features"), _flag(place, config, "use_residual", False)
    wanted: dict[str, tuple[int, ...]] = {"linear.weight": (out, width)}
    if _flag(place, config, "bias", True):
        wanted["linear.bias"] = (out,)
    if residual and out != width:
        wanted["residual.weight"] = (out, width)
    for name, shape in wanted.items():
        found = tensors.get(name)
        if found is None or found.shape != shape:
            has = "is missing" if found is None else f"has shape {found.shape}"
            raise ValueError(f"{weights}: tensor {name!r} of shape {shape} {has}")
    linear, bias, projection = (
        torch.from_numpy(np.array(tensors[name], np.float32)) if name in wanted else None
        for name in ("linear.weight", "linear.bias", "residual.weight")
    )
    assert linear is not None
    return Dense(linear, bias, activation, residual, projection), tensors


def _prompt(place: Path, pipeline: Mapping[str, Any]) -> str:
    """The default prompt; "" if there is none."""
    kind = pipeline.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise ValueError(f"{place} describes a {kind}; firth knows only a SentenceTransformer")
    prompts, name = pipeline.get("prompts") or {}, pipeline.get("default_prompt_name")
    if name is None:
        return ""
    prompt = prompts.get(name, "" if name in ("query", "document") else None)
    if not isinstance(prompt, str):
        raise ValueError(f"{place}: default_prompt_name is {name!r}, and prompts has no text of that name")
    return prompt


def _of_transformer(home: Path, positions: int) -> tuple[int, bool, dict[str, Any]]:
    """To how many tokens texts are truncated, whether they are lowercased, and the whole configuration."""
    place = next((home / name for name in _TRANSFORMERS if (home / name).exists()), home / _TRANSFORMER)
    options = read_json(place) if place.exists() else {}
    if options.get("modality_config") is not None:  # the first module must return the last hidden states
        text = options["modality_config"].get("text", {})
        if (text.get("method"), text.get("method_output_name")) != ("forward", "last_hidden_state"):
            raise ValueError(f"{place}: firth does not know the modality_config {options['modality_config']!r}")
    for key, known in (("transformer_task", "feature-extraction"), ("module_output_name", "token_embeddings")):
        if options.get(key, known) != known:
            raise ValueError(f"{place}: firth does not know the {key} {options[key]!r}, only {known!r}")
    for key, value in options.items():
        known_keys = {"modality_config", "transformer_task", "module_output_name", "max_seq_length", "do_lower_case"}
        if value and key not in known_keys | _HARMLESS:
            raise ValueError(f"{place}: firth does not know the option {key} = {value!r}")
    longest = positions
    if options.get("max_seq_length") is not None:
        longest = _count(place, options, "max_seq_length", 3)
    elif (home / "tokenizer_config.json").exists():
        limit = read_json(home / "tokenizer_config.json").get("model_max_length")
        if isinstance(limit, int | float) and limit < positions:
            longest = max(3, int(limit))
    return min(longest, positions), _flag(place, options, "do_lower_case", False), options
