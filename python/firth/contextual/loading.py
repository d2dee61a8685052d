"""Folders of all kinds of contextual models."""

from __future__ import annotations

from typing import Any

from firth import files
from firth.contextual import heads
from firth.contextual.classifiers import SentenceClassifier, TokenClassifier
from firth.contextual.elmo import ELMo
from firth.contextual.hub import local_folder
from firth.contextual.models import load_transformer, read_config


def load(path: files.PathLike, *, revision: str | None = None, device: str = "cpu") -> Any:
    """Read the model that a folder holds; parameters and errors are those of `GPT.from_pretrained`.

    It can be a folder that `save` of a `GPT`, a `BERT`, an `ELMo`, a `SentenceClassifier` or a `TokenClassifier` wrote,
    a published model of GPT-2's or BERT's family, a classifier of `transformers` of these families, or the name of a
    repository.
    """
    folder = local_folder(path, revision)
    config = read_config(folder)
    if config.get("model") == ELMo.__name__:
        return ELMo.load(folder, device=device)
    name = heads.kind_of(folder, config)
    for kind in (SentenceClassifier, TokenClassifier):
        if name == kind.__name__:
            return kind.load(folder, device=device)
    return load_transformer(folder, device=device)
