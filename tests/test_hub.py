"""Models by name: a server on this machine answers as the hub does."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from firth import files  # noqa: E402
from firth.contextual import BERT, GPT, SentenceClassifier, TokenClassifier, load  # noqa: E402
from planted import SMALL, planted, topics  # noqa: E402

COMMITS = {"main": "a" * 40, "old": "b" * 40}


class Hub:
    """Repositories, revisions of which are folders; and what was asked of it."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, Path]] = {}  # by name, then by revision
        self.asked: list[str] = []
        self.gated: set[str] = set()

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body."""
        info = re.fullmatch(r"/api/models/(.+?)/(revision|tree)/([^/]+)", path)
        file = re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path)
        name, revision = (info[1], info[3]) if info else (file[1], file[2]) if file else ("", "")
        if name in self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        found = self.repositories.get(name)
        if found is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        commit = COMMITS.get(revision, revision)
        folder = next((one for key, one in found.items() if COMMITS[key] == commit), None)
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if info:
            paths = sorted(one for one in folder.rglob("*") if one.is_file())
            tree = [
                {
                    "type": "file",
                    "path": one.relative_to(folder).as_posix(),
                    "size": one.stat().st_size,
                    "oid": "c" * 40,
                }
                for one in paths
            ]
            siblings = [{"rfilename": one["path"]} for one in tree]
            body: Any = tree if info[2] == "tree" else {"id": name, "sha": commit, "siblings": siblings}
            return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()
        assert file is not None
        place = folder / file[3]
        if not place.is_file():
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        if method == "GET":
            self.asked.append(file[3])
        body = place.read_bytes()
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}, body


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants

    served = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = served.answer(self.command, unquote(urlsplit(self.path).path))
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02})
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.chdir(tmp_path)
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def gpt() -> GPT:
    return GPT(**SMALL, tokenizer="wordlevel", steps=1).fit(planted(20, 1))


@pytest.fixture(scope="module")
def bert() -> BERT:
    return BERT(**{**SMALL, "layers": 1}, tokenizer="wordlevel", steps=1).fit(topics(20, 1))


def test_a_model_is_downloaded_by_its_name(
    hub: Hub, gpt: GPT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Once, and only the files that are read; later from the cache, also without a network; and nothing is printed."""
    folder = tmp_path / "served"
    gpt.save(folder)
    needed = {one.name for one in folder.iterdir()}
    (folder / "onnx").mkdir()
    for other in ("pytorch_model.bin", "onnx/model.onnx", "README.md", "tf_model.h5", "onnx/config.json"):
        (folder / other).write_bytes(b"the same again")
    hub.repositories["gpt2"] = {"main": folder}
    wanted = gpt.encode(["k1 a1"])[0]
    np.testing.assert_array_equal(GPT.from_pretrained("gpt2").encode(["k1 a1"])[0], wanted)
    assert sorted(hub.asked) == sorted(needed)
    again = load("gpt2")
    assert type(again) is GPT
    assert len(hub.asked) == len(needed)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(GPT.load("gpt2").encode(["k1 a1"])[0], wanted)
    with pytest.raises(FileNotFoundError, match=r"'org/other' is not whole in the cache.*HF_HUB_OFFLINE"):
        GPT.from_pretrained("org/other")
    assert capfd.readouterr() == ("", "")


def test_shards_and_revisions_are_downloaded(hub: Hub, bert: BERT, tmp_path: Path) -> None:
    folders = {"main": tmp_path / "new", "old": tmp_path / "before"}
    bert.save(folders["main"])
    bert.save(folders["old"])
    tensors, _ = files.read_tensors(folders["old"] / "model.safetensors")
    (folders["old"] / "model.safetensors").unlink()
    tensors = {name: 2 * one if name.endswith("word_embeddings.weight") else one for name, one in tensors.items()}
    names = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for file in set(names.values()):
        files.write_tensors(folders["old"] / file, {key: tensors[key] for key in names if names[key] == file}, {})
    (folders["old"] / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    hub.repositories["people/little-bert"] = folders
    new = load("people/little-bert")
    old = BERT.from_pretrained("people/little-bert", revision="old")
    assert type(new) is BERT
    np.testing.assert_array_equal(new.vectors.matrix, bert.vectors.matrix)
    np.testing.assert_array_equal(old.vectors.matrix, 2 * bert.vectors.matrix)
    np.testing.assert_array_equal(
        load("people/little-bert", revision=COMMITS["old"]).vectors.matrix, old.vectors.matrix
    )
    with pytest.raises(FileNotFoundError, match="no revision 'older'"):
        BERT.from_pretrained("people/little-bert", revision="older")


def test_folders_of_sentence_transformers_are_downloaded(hub: Hub, bert: BERT, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    bert.save(folder)
    (folder / "firth.json").unlink()
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"name": path, "path": path, "type": f"sentence_transformers.models.{kinds[path]}"} for path in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 4}')
    needed = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())
    (folder / "1_Pooling" / "pytorch_model.bin").touch()
    hub.repositories["people/sentences"] = {"main": folder}
    found = load("people/sentences").encode(["a1 b2 c1"])
    assert sorted(hub.asked) == needed
    np.testing.assert_array_equal(found, bert.encode(["a1 b2"], pooling="cls"))


@pytest.mark.parametrize("kind", [SentenceClassifier, TokenClassifier])
def test_classifiers_are_downloaded(hub: Hub, bert: BERT, tmp_path: Path, kind: Any) -> None:
    """Those of firth and of transformers, with what names their special tokens."""
    texts: list[Any] = [["a1", "a2"], ["b1", "b2"]]
    labels: list[Any] = [["a", "a"], ["b", "b"]] if kind is TokenClassifier else ["a", "b"]
    model = kind(encoder=bert, epochs=10).fit(texts, labels)
    model.save(tmp_path)
    (tmp_path / "special_tokens_map.json").write_text("{}")
    needed = sorted(one.name for one in tmp_path.iterdir())
    hub.repositories["people/labels"] = {"old": tmp_path}
    again = kind.load("people/labels", revision="old")
    assert type(again) is kind
    np.testing.assert_array_equal(again.predict(texts), model.predict(texts))
    assert sorted(hub.asked) == needed
    (tmp_path / "head.safetensors").unlink()
    (tmp_path / "firth.json").unlink()
    hub.repositories["people/theirs"] = {"main": tmp_path}
    for other in (load("people/theirs"), kind.load("people/theirs")):
        assert type(other) is kind
        np.testing.assert_array_equal(other.head.out.weight.detach(), model.head.out.weight.detach())
    with pytest.raises(FileNotFoundError, match="no repository of that name"):
        kind.load("people/others")


def test_a_folder_of_the_name_is_preferred(hub: Hub, gpt: GPT, tmp_path: Path) -> None:
    gpt.save(tmp_path / "gpt2")
    assert type(load("gpt2")) is GPT
    assert type(GPT.from_pretrained("gpt2")) is GPT
    assert not hub.asked
    with pytest.raises(ValueError, match="revision='old' is for repositories, and gpt2 is a folder"):
        GPT.from_pretrained("gpt2", revision="old")


def test_what_cannot_be_downloaded(hub: Hub, gpt: GPT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="no folder 'gpt3' here, and no repository of that name"):
        GPT.from_pretrained("gpt3")
    hub.gated.add("people/gated")
    with pytest.raises(PermissionError, match=r"'people/gated' here, and the repository of that name is gated"):
        GPT.from_pretrained("people/gated")
    gpt.save(tmp_path / "served")
    hub.repositories["people/old"] = {"main": tmp_path / "served"}
    (tmp_path / "served" / "model.safetensors").rename(tmp_path / "served" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"'people/old' holds no model\.safetensors, .* pickled"):
        load("people/old")
    (tmp_path / "served" / "config.json").unlink()
    hub.repositories["people/data"] = {"main": tmp_path / "served"}
    with pytest.raises(FileNotFoundError, match=r"'people/data' holds no config\.json"):
        load("people/data")
    (tmp_path / "a-file").touch()
    # Neither is the name of a repository: nothing is asked.
    for path in (tmp_path / "gpt3", Path("gpt3"), "a-file", "./gpt3", "a/b/c", "~/gpt2", "", ".."):
        with pytest.raises((NotADirectoryError, FileNotFoundError)):
            GPT.from_pretrained(path)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
    with pytest.raises(FileNotFoundError, match="'gpt3' is not whole in the cache, and it cannot be downloaded"):
        GPT.from_pretrained("gpt3")


def test_without_the_library_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.chdir(tmp_path)
    for read in (GPT.from_pretrained, load):
        with pytest.raises(ImportError, match=r"no folder 'gpt2' here.*pip install 'firth\[hub\]'.*into a folder"):
            read("gpt2")
