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
    """Read the model that a folder holds.

    Parameters
    ----------
    path
        A folder that `save` of a `GPT`, a `BERT`, an `ELMo`, a `SentenceClassifier` or a `TokenClassifier` wrote, or a
        published model of GPT-2's or BERT's family, or a classifier of `transformers` of these families; or the name of
        a repository, such as "gpt2", which `huggingface_hub` (the extra `hub`) downloads into its cache.
    revision
        A branch, a tag or a commit of the repository; None: its main branch.
    device
        Where it runs.

    Raises
    ------
    OSError
        If a file or a repository is not there, or cannot be reached.
    ValueError
        If the folder holds something else, or is damaged.
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
