"""Heads of classifiers, and the names of their parts in each family of `transformers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from firth import files
from firth.contextual import huggingface
from firth.contextual.sentences import MODULES
from firth.contextual.transformer_model import HEAD

Task = Literal["SentenceClassifier", "TokenClassifier"]

_MULTI_LABEL = "multi_label_classification"
_ENDINGS: dict[str, Task] = {
    "ForSequenceClassification": "SentenceClassifier",
    "ForTokenClassification": "TokenClassifier",
}


class Head(nn.Module):
    """Scores of classes from hidden states: a linear layer, after an optional one with an activation.

    BERT calls the optional one its pooler. In BERT and RoBERTa the activation is the hyperbolic tangent, in DistilBERT
    max(x, 0).
    """

    def __init__(self, dim: int, classes: int, *, dense: bool = False, bias: bool = True, relu: bool = False) -> None:
        super().__init__()
        self.dense = nn.Linear(dim, dim) if dense else None
        self.out = nn.Linear(dim, classes, bias=bias)
        self.relu = relu

    def hidden(self, states: Tensor) -> Tensor:
        """The last layer's input, (..., dim)."""
        if self.dense is None:
            return states
        return torch.relu(self.dense(states)) if self.relu else torch.tanh(self.dense(states))

    def forward(self, states: Tensor) -> Tensor:
        """Scores (..., classes) from hidden states (..., dim)."""
        return cast(Tensor, self.out(self.hidden(states)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The parameters in float32 by their names here."""
        return {name: value.detach().float().cpu().numpy() for name, value in self.state_dict().items()}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], *, relu: bool = False) -> Head:
        """The head with these parameters; KeyError or ValueError if they are not those of a head."""
        classes, dim = arrays["out.weight"].shape
        head = cls(dim, classes, dense="dense.weight" in arrays, bias="out.bias" in arrays, relu=relu)
        state = {name: torch.from_numpy(np.array(value, np.float32)) for name, value in arrays.items()}
        try:
            head.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"the tensors of the head do not fit together: {error}") from None
        return head


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """A family's names for the parts of the head for texts; the head for tokens is one layer, "classifier"."""

    family: str  # as the names of its classes begin
    dense: str | None
    out: str
    bias: bool = True
    relu: bool = False

    def names(self, task: Task) -> dict[str, str]:
        """From the parts of `Head` to the family's."""
        if task == "TokenClassifier":
            return {"out": "classifier"}
        return {"out": self.out, **({} if self.dense is None else {"dense": self.dense})}


_ROBERTA = _Layout(family="Roberta", dense="classifier.dense", out="classifier.out_proj")
_LAYOUTS = {
    "bert": _Layout(family="Bert", dense="bert.pooler.dense", out="classifier"),
    "roberta": _ROBERTA,
    "xlm-roberta": replace(_ROBERTA, family="XLMRoberta"),
    "camembert": replace(_ROBERTA, family="Camembert"),
    "distilbert": _Layout(family="DistilBert", dense="pre_classifier", out="classifier", relu=True),
    "gpt2": _Layout(family="GPT2", dense=None, out="score", bias=False),
}


def task_of(config: Mapping[str, Any]) -> Task | None:
    """The classifier of firth that a folder of `transformers` holds, by its config.json; None for other models."""
    architectures = config.get("architectures")
    if str(config.get("model_type")) not in _LAYOUTS or not isinstance(architectures, list) or not architectures:
        return None
    return next((task for ending, task in _ENDINGS.items() if str(architectures[0]).endswith(ending)), None)


def kind_of(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The class of firth that reads a folder, if it holds a classifier, of firth or of `transformers`."""
    place = folder / HEAD
    if place.exists():
        return files.read_own(place, "head", mmap=True)[1].get("model")
    if (folder / MODULES).exists():  # its transformer may still be called the classifier that it was made from
        return None
    return None if is_regression(config) else task_of(config)


def is_regression(config: Mapping[str, Any]) -> bool:
    """Whether a head predicts a number, as `transformers` decides it."""
    kind, labels = config.get("problem_type"), config.get("id2label")
    return kind == "regression" or (kind is None and isinstance(labels, dict) and len(labels) == 1)


def read(folder: Path, task: Task) -> tuple[Head, list[str], bool]:
    """Read the head of a classifier of `transformers`, its labels, and whether a text may have several of them.

    OSError or ValueError if a file is missing, holds something else, or a regression.
    """
    config = huggingface.read_json(folder / huggingface.CONFIG)
    layout = _LAYOUTS[str(config["model_type"])]
    if is_regression(config):
        raise ValueError(
            f"{folder / huggingface.CONFIG} describes a regression, which predicts a number; a {task} predicts labels"
        )
    tensors = huggingface.read_weights(folder, mmap=True)
    arrays = {}
    for ours, theirs in layout.names(task).items():
        for kind in ("weight", "bias") if ours == "dense" or task == "TokenClassifier" or layout.bias else ("weight",):
            if f"{theirs}.{kind}" not in tensors:
                raise ValueError(f"{folder} has no tensor '{theirs}.{kind}', a part of the head of a {task}")
            value = arrays[f"{ours}.{kind}"] = tensors[f"{theirs}.{kind}"]
            if value.dtype.kind != "f" or not bool(np.isfinite(value).all()):
                raise ValueError(f"{folder}: tensor '{theirs}.{kind}' must hold finite floats")
    try:
        head = Head.of(arrays, relu=layout.relu)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return head, _labels(folder, config, head.out.out_features), config.get("problem_type") == _MULTI_LABEL


def _labels(folder: Path, config: Mapping[str, Any], n: int) -> list[str]:
    given = config.get("id2label")
    if given is None:  # `transformers` leaves its default names out of the file
        return [f"LABEL_{i}" for i in range(n)]
    if not isinstance(given, dict) or sorted(given) != sorted(str(i) for i in range(n)):
        raise ValueError(f"{folder / huggingface.CONFIG}: id2label must name the classes 0 to {n - 1} of the head")
    labels = [str(given[str(i)]) for i in range(n)]
    if len(set(labels)) < n:
        raise ValueError(f"{folder / huggingface.CONFIG}: id2label gives one name to several classes")
    return labels


def in_transformers(
    head: Head, task: Task, labels: Sequence[Any], *, causal: bool, several: bool, dropout: float, padding: int | None
) -> huggingface.FamilyHead:
    """A head as `huggingface.write` adds it to a model.

    `labels` are the names of the classes, `dropout` that of the last layer's input, and `padding` the token that pads
    short texts: GPT-2 finds the end of a text by it.
    """
    kind = "gpt2" if causal else "distilbert" if head.relu else "bert"
    layout = _LAYOUTS[kind]
    arrays = head.arrays()
    names = layout.names(task)
    tensors = {f"{names[part]}.{last}": arrays[f"{part}.{last}"] for part, last in (n.split(".") for n in arrays)}
    ending = next(ending for ending, own in _ENDINGS.items() if own == task)
    config: dict[str, Any] = {
        "architectures": [f"{layout.family}{ending}"],
        "id2label": {str(i): str(label) for i, label in enumerate(labels)},
        "label2id": {str(label): i for i, label in enumerate(labels)},
        "seq_classif_dropout" if kind == "distilbert" else "classifier_dropout": dropout,
    }
    if task == "SentenceClassifier":
        config["problem_type"] = _MULTI_LABEL if several else "single_label_classification"
    if kind == "gpt2" and padding is not None:
        config["pad_token_id"] = padding
    return huggingface.FamilyHead(kind, tensors, config)
