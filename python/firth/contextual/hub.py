"""Pretrained models by name: from a folder, or downloaded through `huggingface_hub` into its cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tqdm import tqdm

from firth import files

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
# The files that firth reads. Others hold the same weights again: pytorch_model.bin, onnx/, tf_model.h5, ...
_NEEDED = [
    *("config.json", "firth.json", "head.safetensors"),
    *("model.safetensors", "model.safetensors.index.json", "model-[0-9]*-of-[0-9]*.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt"),
    # sentence-transformers: its own files, and a folder for each module
    *("modules.json", "sentence_*_config.json", "config_sentence_transformers.json"),
    *("[0-9]_*/*.json", "[0-9]_*/vocab.txt", "[0-9]_*/merges.txt", "[0-9]_*/model.safetensors"),
]


class _Silent(tqdm):  # type: ignore[misc]
    """No bar: `huggingface_hub` would show bars even for files that are in its cache."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "disable": True})


def local_folder(path: files.PathLike, revision: str | None = None) -> Path:
    """The folder of a model: the one at `path`, or the repository of this name, such as "gpt2", in the cache.

    A folder is preferred. `revision` is a branch, a tag or a commit of the repository, None its main branch. OSError if
    there is neither, or the repository cannot be reached and is not in the cache; ValueError for the `revision` of a
    folder; ImportError if `huggingface_hub` is not installed.
    """
    folder = Path(path)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for repositories, and {folder} is a folder: leave out revision")
        return folder
    if not isinstance(path, str) or folder.exists() or not _NAME.fullmatch(path):
        raise NotADirectoryError(f"{folder} is not a folder with config.json and model.safetensors in it")
    return _downloaded(path, revision)


def _downloaded(name: str, revision: str | None) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise ImportError(
            f"there is no folder {name!r} here. To download the repository of that name, run pip install 'firth[hub]'; "
            "or put its config.json, model.safetensors and tokenizer.json into a folder, and give its path"
        ) from None
    at = f"{name!r}" if revision is None else f"{name!r}, revision {revision!r},"
    nowhere = f"there is no folder {name!r} here"
    try:
        found = huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=_NEEDED, tqdm_class=_Silent)
        folder = Path(found)
    except errors.RevisionNotFoundError:
        raise FileNotFoundError(f"{nowhere}, and the repository of that name has no revision {revision!r}") from None
    except errors.GatedRepoError:
        raise PermissionError(
            f"{nowhere}, and the repository of that name is gated: ask its owner for access, log in (hf auth login)"
        ) from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(
            f"{nowhere}, and no repository of that name (or it is private: log in with hf auth login)"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        raise FileNotFoundError(
            f"{nowhere}, the repository {at} is not whole in the cache, and it cannot be downloaded "
            f"(no network, or HF_HUB_OFFLINE is set): {str(error).splitlines()[0]}"
        ) from error
    except errors.HFValidationError as error:
        raise NotADirectoryError(f"{nowhere}, and it is not the name of a repository: {error}") from None
    if not ((folder / "config.json").exists() or (folder / "modules.json").exists()):
        raise FileNotFoundError(f"the repository {at} holds no config.json: it is not a model that firth reads")
    if next(folder.rglob("model*.safetensors"), None) is None:
        raise FileNotFoundError(
            f"the repository {at} holds no model.safetensors, and firth opens no pickled weights such as "
            "pytorch_model.bin: convert them by save_pretrained of transformers, and give that folder"
        )
    return folder
