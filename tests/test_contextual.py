"""GPT and BERT: planted languages, generation, states, folders, static start, and what they refuse."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import firth
from firth import files

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from firth.contextual import (  # noqa: E402
    BERT,
    GPT,
    ELMo,
    TokenIds,
    Tokenizer,
    generation,
    huggingface,
    load,
    static_start,
)
from firth.contextual.encoding import by_length  # noqa: E402
from firth.contextual.transformer import Transformer  # noqa: E402
from planted import SMALL, planted, topics  # noqa: E402


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return planted(300, 1)


@pytest.fixture(scope="module")
def gpt(texts: list[str]) -> GPT:
    return GPT(**SMALL, tokenizer="wordlevel", steps=120).fit(texts)


@pytest.fixture(scope="module")
def bert() -> BERT:
    return BERT(**{**SMALL, "layers": 1}, tokenizer="wordlevel", steps=150).fit(topics(200, 1))


@pytest.fixture(scope="module")
def spelling(texts: list[str]) -> GPT:
    """One with byte-level tokens, hardly trained: what it says is noise, as fits tests of the machinery."""
    words = ["the bank of the river", "née à Zürich", "a 🙂 and a ☕", "money in the bank"] * 20
    return GPT(**SMALL, vocabulary_size=280, steps=3).fit(words)


# ---- learning


def test_gpt_learns_the_planted_language(gpt: GPT) -> None:
    """A sentence begins with a key of eight; each value is certain, and the rest is as certain as chance lets it be."""
    for i in range(8):
        (best, chance), *_ = gpt.next_tokens(f"k1 v1 . k{i}", 3)
        assert best == f"v{i}"
        assert chance > 0.9
    # Of 19 tokens of a sentence 6 are keys, each worth log(8). After a full stop the sentence may end: who does not
    # count finds this in one of six cases.
    least = 6 * math.log(8) / 19
    most = least - 6 * (math.log(1 / 6) / 6 + 5 * math.log(5 / 6) / 6) / 19
    scored = gpt.score(planted(50, 2))
    assert least < scored.nats < most + 0.05
    assert scored.tokens == 50 * 19
    assert scored.perplexity == pytest.approx(math.exp(scored.nats))
    bits = scored.nats * scored.tokens / math.log(2)
    assert scored.bits_per_byte == pytest.approx(bits / sum(len(text) for text in planted(50, 2)))
    assert least < gpt.history[-1].validation_loss < most + 0.05
    assert gpt.history[-1].step == 120


def test_score_is_the_mean_of_all_logits_and_the_stride_does_not_change_what_is_counted(gpt: GPT) -> None:
    text = " ".join(planted(3, 5))[:150]
    scores = torch.log_softmax(torch.tensor(gpt.logits([f"[SEP] {text}"], truncate=32)[0]), 1)
    ids = gpt.tokenizer_.encode(text, special=False).ids
    assert len(ids) > 32  # more than the model's positions
    mean = -scores[torch.arange(31), torch.tensor(ids[:31])].mean()
    short = gpt.tokenizer_.decode(ids[:31])
    # All but the last token, which is the end of the text.
    ended = gpt.score([short])
    last = float(torch.log_softmax(torch.tensor(gpt.logits([f"[SEP] {short}"])[0, -1]), 0)[gpt.tokenizer_.end])
    assert ended.nats * 32 == pytest.approx(float(mean) * 31 - last, rel=1e-4)
    strides = {stride: gpt.score([text], stride=stride) for stride in (1, 7, 32)}
    assert {one.tokens for one in strides.values()} == {len(ids) + 1}
    assert strides[1].nats == pytest.approx(strides[32].nats, abs=0.1)


def test_bert_learns_the_planted_topics(bert: BERT) -> None:
    for letter in "abc":
        text = " ".join(f"{letter}{i % 4}" for i in range(20))
        for masks in bert.fill_mask(f"[MASK] {text} [MASK] {text[:20]}", 4):
            assert {token for token, _ in masks} == {f"{letter}{i}" for i in range(4)}
            assert sum(chance for _, chance in masks) > 0.9
    validation = bert.history[-1].validation_loss
    assert math.log(4) - 0.05 < validation < math.log(4) + 0.25  # a window may hold two topics
    assert sum(chance for _, chance in bert.fill_mask("[MASK]", 1000)[0]) == pytest.approx(1)


def test_texts_files_corpora_and_ids_are_one(texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(texts))
    tokenizer = Tokenizer.train(texts, tokenizer="wordlevel", vocabulary_size=100)
    options = {**SMALL, "steps": 2, "tokenizer": tokenizer}
    corpus = firth.Corpus.from_iterable(texts, min_count=1)
    ids = TokenIds.build(texts, tokenizer, validation=0.05, seed=1)
    losses = [GPT(**options).fit(data).history[-1].loss for data in (texts, path, [path], corpus, ids, iter(texts))]
    assert len(set(losses)) == 1


def test_what_is_resumed_has_the_options_of_its_beginning(texts: list[str], tmp_path: Path) -> None:
    options = {**SMALL, "steps": 4, "vocabulary_size": 300, "tokenizer": "wordpiece"}
    folder = tmp_path / "state"
    BERT(**options).fit(texts, checkpoint=folder, callbacks=[lambda _: True])
    for name, value in {"vocabulary_size": 200, "lowercase": True, "min_count": 3, "tokenizer": "wordlevel"}.items():
        with pytest.raises(ValueError, match=f"{name} was {options.get(name, getattr(BERT(), name))!r}, is {value!r}"):
            BERT(**{**options, name: value}).fit(texts, checkpoint=folder, resume=True)
    resumed = BERT(**options).fit(texts, checkpoint=folder, resume=True)
    with pytest.raises(ValueError, match="pretrained was False, is True"):
        resumed.fit(texts, checkpoint=folder, resume=True, pretrained=True)


@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_fit_goes_on_with_the_weights_of_a_folder(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    model.save(tmp_path / "model")
    more = planted(100, 9) if name == "gpt" else topics(100, 9)
    last = model.history[-1].validation_loss
    read = type(model).from_pretrained(tmp_path / "model", learning_rate=1e-5, steps=2, threads=1)
    assert (read.learning_rate, read.steps, read.batch_size) == (1e-5, 2, model.batch_size)
    assert read.history == model.history
    tokens = read.tokenizer_.tokens
    read.fit([*more, "words that nobody has seen"], pretrained=True)
    assert read.tokenizer_.tokens == tokens
    assert [one.step for one in read.history] == [1, 2]
    assert read.history[0].validation_loss < last + 0.2
    np.testing.assert_allclose(read.vectors.matrix, model.vectors.matrix, atol=1e-4)
    assert (read.vectors.matrix != model.vectors.matrix).any()
    before = read.vectors.matrix
    read.fit(more, pretrained=True)  # and on from there
    np.testing.assert_allclose(read.vectors.matrix, before, atol=1e-4)
    with pytest.raises(TypeError):
        read.fit([7], pretrained=True)
    with pytest.warns(UserWarning, match=r"pretrained=True\) continues from them"):
        read.fit(more)
    assert np.abs(read.vectors.matrix - model.vectors.matrix).max() > 0.1


def test_what_going_on_refuses(gpt: GPT, bert: BERT, texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no weights yet"):
        GPT(**SMALL, tokenizer="wordlevel").fit(texts, pretrained=True)
    gpt.save(tmp_path / "gpt")
    for name in ("dim", "vocabulary_size", "tokenizer", "attention", "color"):
        with pytest.raises(TypeError, match=f"{name} is not a training option"):
            GPT.from_pretrained(tmp_path / "gpt", **{name: 3})
    with pytest.raises(ValueError, match="learning_rate must be above 0"):
        GPT.load(tmp_path / "gpt", learning_rate=0.0)
    bert.save(tmp_path / "bert")
    encoder = BERT.load(tmp_path / "bert")
    encoder.transformer.masked_head = None
    with pytest.raises(ValueError, match="no masked-token head"):
        encoder.fit(texts, pretrained=True)


def test_numbers_of_the_tokenizer_that_was_learnt(texts: list[str]) -> None:
    model = GPT(**SMALL, tokenizer="wordlevel", steps=2).fit(texts)
    before = model.vectors.matrix
    model.fit(TokenIds.build(texts, model.tokenizer_, validation=0.05, seed=1))
    assert (model.vectors.matrix == before).all()
    with pytest.raises(ValueError, match="give tokenizer="):
        GPT(**SMALL).fit(TokenIds.build(texts, model.tokenizer_))


@pytest.mark.parametrize("kind", ["tokenizers", "transformers"])
def test_a_tokenizer_of_another_library_trains_and_is_saved(kind: str, texts: list[str], tmp_path: Path) -> None:
    """Its special tokens have names of their own."""
    library = pytest.importorskip("tokenizers")
    vocabulary = {
        word: i for i, word in enumerate(["?", "___", "(", ")", ".", *(f"{a}{i}" for a in "kv" for i in range(8))])
    }
    given = library.Tokenizer(library.models.WordLevel(vocabulary, unk_token="?"))
    given.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    if kind == "transformers":
        names = {"unk_token": "?", "mask_token": "___", "cls_token": "(", "sep_token": ")"}
        given = pytest.importorskip("transformers").PreTrainedTokenizerFast(tokenizer_object=given, **names)
    else:
        given = Tokenizer(given, unknown="?", mask="___", start="(", end=")")
    for model in (GPT(**SMALL, tokenizer=given, steps=2), BERT(**SMALL, tokenizer=given, steps=2)):
        assert type(model.tokenizer_) is Tokenizer
        model.fit(texts)
        assert dataclasses.replace(model).tokenizer is model.tokenizer_
        model.save(tmp_path)
        again = load(tmp_path)
        np.testing.assert_array_equal(again.encode(["k1 v1"])[0], model.encode(["k1 v1"])[0])
        for role in ("padding", "mask", "start", "end", "unknown"):
            assert getattr(again.tokenizer_, role) == getattr(model.tokenizer_, role)
        again.fit(texts[:20], pretrained=True)
    assert len(model.fill_mask("k1 ___ .")[0]) == 5
    assert len(model.encode(["k1 v1"])[0]) == 4  # ( and ) stand around it


def test_names_of_files_are_no_texts(texts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(texts))
    for model in (GPT(**SMALL), BERT(**SMALL), ELMo()):
        with pytest.raises(ValueError, match=r"these name files: give \[Path\("):
            model.fit([str(path)])


def test_a_model_may_have_more_rows_than_its_tokenizer_tokens(gpt: GPT, tmp_path: Path) -> None:
    gpt.save(tmp_path / "model")
    n = len(gpt.tokenizer_)
    few = Tokenizer.train(["k1 v1 k2 v2"] * 5, tokenizer="wordlevel", vocabulary_size=8)
    few.save(tmp_path / "model")
    padded = GPT.load(tmp_path / "model", steps=1, threads=1)
    assert padded.vectors.words == few.tokens
    assert padded.vectors.matrix.shape == (8, 32)
    assert padded.logits(["k1 v1"]).shape == (1, 2, 8)
    assert len(padded.next_tokens("k1", 100)) == 8
    padded.fit(planted(20, 1), pretrained=True)
    assert padded.transformer.architecture.vocabulary_size == n
    words = " ".join(f"x{i}" for i in range(n))
    Tokenizer.train([words] * 5, tokenizer="wordlevel", vocabulary_size=500).save(tmp_path / "model")
    with pytest.raises(ValueError, match=f"has {n + 5} tokens and the model rows for {n}"):
        GPT.load(tmp_path / "model")


def test_only_the_first_process_shows_bars(
    texts: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elmo = ELMo(hidden=4, projection=2, character_dim=2, filters=((1, 2),), steps=1, threads=1)
    for rank, shown in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        for model in (GPT(**SMALL, vocabulary_size=300, steps=1), elmo):
            model.fit(texts[:20], progress=True)
            assert bool(capsys.readouterr().err) == shown


# ---- generation


def test_generate_goes_on_with_the_text(gpt: GPT) -> None:
    assert gpt.generate("k3 v3 . k5", max_new=2, temperature=0) == " v5 ."
    assert gpt.generate("k3", max_new=0) == ""
    assert gpt.generate("", max_new=1, temperature=0).startswith("k")  # after the end of a text begins another


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 1}, {"seed": 2, "top_k": 5, "top_p": 0.9}])
def test_the_cache_changes_nothing(gpt: GPT, spelling: GPT, options: dict[str, float]) -> None:
    """Also where the text grows longer than the positions: then the latter half is read anew."""
    for model, prompt in ((gpt, "k1 v1 ."), (spelling, "the bank")):
        with_end = dataclasses.replace(model)  # texts that never end: the end token is taken away
        with_end._transformer, with_end._tokenizer = model.transformer, model.tokenizer_
        with_end.tokenizer_.end, kept = None, with_end.tokenizer_.end
        try:
            output = with_end.generate(prompt, max_new=90, **options)
            assert output == with_end.generate(prompt, max_new=90, cache=False, **options)
        finally:
            with_end.tokenizer_.end = kept
        assert len(with_end.tokenizer_.encode(output, special=False).ids) > 50


def test_the_stream_is_what_generate_gives(spelling: GPT) -> None:
    parts = list(spelling.stream("the", max_new=60, seed=3))
    assert len(parts) > 5
    assert "".join(parts) == spelling.generate("the", max_new=60, seed=3)
    assert spelling.generate("the", seed=3) != spelling.generate("the", seed=4)


def test_top_k_and_top_p_keep_exactly_what_they_should() -> None:
    logits = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.2, 0.1]))

    def kept(**options: float) -> dict[int, float]:
        ids, chances = generation.cut_distribution(logits, **options)
        return {int(i): pytest.approx(float(p), abs=1e-6) for i, p in zip(ids, chances, strict=True)}

    assert kept() == {1: 0.4, 2: 0.2, 3: 0.2, 0: 0.1, 4: 0.1}
    assert kept(temperature=0) == {1: 1.0}
    assert kept(top_k=2) == {1: 2 / 3, 2: 1 / 3}  # of equals, the first
    assert kept(top_k=9) == kept()
    assert kept(top_p=0.3) == {1: 1.0}  # the likeliest always stays
    assert kept(top_p=0.5) == {1: 2 / 3, 2: 1 / 3}
    assert kept(top_p=0.75) == {1: 0.5, 2: 0.25, 3: 0.25}
    assert kept(top_k=3, top_p=0.6) == {1: 2 / 3, 2: 1 / 3}  # top_p of what top_k has left: 0.5, 0.25, 0.25
    assert kept(temperature=0.5) == {1: 0.16 / 0.26, 2: 0.04 / 0.26, 3: 0.04 / 0.26, 0: 0.01 / 0.26, 4: 0.01 / 0.26}


def test_draws_follow_the_probabilities() -> None:
    ids, chances = torch.tensor([7, 3, 5]), torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    drawn = [generation.draw(ids, chances, generator) for _ in range(3000)]
    for one, chance in zip((7, 3, 5), (0.5, 0.3, 0.2), strict=True):
        assert abs(drawn.count(one) / 3000 - chance) < 4 * math.sqrt(chance * (1 - chance) / 3000)


@pytest.mark.parametrize(
    ("tokens", "stop", "parts", "asked"),
    [
        (["ab", "cd", "ef"], [], ["ab", "cd", "ef"], 3),
        (["ab", "cd", "ef"], ["d"], ["ab", "c"], 2),
        (["ab", "cd", "ef"], ["bc"], ["a"], 2),  # across tokens: b waits
        (["ab", "xd", "ef"], ["bc"], ["a", "bxd", "ef"], 3),  # it was none after all
        (["aab", "c"], ["aabd"], ["aabc"], 2),
        (["ab"], ["bc"], ["a", "b"], 1),  # what waited comes at the end
        (["abcd"], ["d", "b"], ["a"], 1),  # the first to come
        (["ab", "cd"], ["a"], [], 1),
    ],
)
def test_stop_strings(tokens: list[str], stop: list[str], parts: list[str], asked: int) -> None:
    given = []

    def ids() -> object:
        for i in range(len(tokens)):
            given.append(i)
            yield i

    assert list(generation.text_until(ids(), lambda seen: "".join(tokens[i] for i in seen), stop)) == parts
    assert len(given) == asked


def test_characters_of_several_tokens_come_whole() -> None:
    raw = ["née 🙂".encode()[i : i + 1] for i in range(len("née 🙂".encode()))]
    decode = lambda seen: b"".join(raw[i] for i in seen).decode(errors="replace")  # noqa: E731
    assert list(generation.text_until(iter(range(len(raw))), decode, [])) == ["n", "é", "e", " ", "🙂"]


def test_stop_strings_end_what_gpt_says(gpt: GPT) -> None:
    assert gpt.generate("k3", max_new=20, temperature=0, stop=" .") == " v3"
    assert gpt.generate("k3", max_new=20, temperature=0, stop=["zzz", " v3"]) == ""


def test_a_conversation_becomes_a_prompt() -> None:
    said = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    prompt, stop = generation.roles_prompt(said)
    assert prompt == "system: Be brief.\nuser: Hello\nassistant:"
    assert stop == ["\nsystem:", "\nuser:", "\nassistant:"]
    prompt, stop = generation.roles_prompt(said[1:], template="<{role}>{content}</s>", answer="bot")
    assert prompt == "<user>Hello</s><bot>"
    assert stop == ["</s><user>", "</s><bot>"]


def test_gpt_answers_in_a_conversation() -> None:
    """After the answer the user would speak again, and that is not said."""
    lines = [f"user w{i % 6}\nassistant of course\nuser w{i % 5}\n" for i in range(300)]
    model = GPT(**SMALL, vocabulary_size=300, steps=60).fit(lines)
    template = "{role} {content}\n"
    assert "\nuser" in model.generate("user w3\nassistant", temperature=0, max_new=30)
    for i in range(6):
        said = [{"role": "user", "content": f"w{i}"}]
        assert model.generate(said, template=template, temperature=0) == "of course"


# ---- states


def test_batches_hold_what_is_alike() -> None:
    lengths = [5, 1, 9, 0, 5, 30, 2]
    batches = list(by_length(lengths, 10))
    assert batches == [[1, 6], [0, 4], [2], [5]]


def test_layers_and_poolings(bert: BERT) -> None:
    text = "a1 b1 c2 a2"
    (last,) = bert.encode([text])
    for layer in (0, 1):
        (states,) = bert.encode([text], layer=layer)
        assert (states == bert.encode([text], layer=layer - 2)[0]).all()
        assert (states == last).all() == (layer == 1)
    pooled = {how: bert.encode([text, "a3"], pooling=how)[0] for how in ("mean", "max", "cls", "first", "last")}
    np.testing.assert_allclose(pooled["mean"], last.mean(0), atol=1e-6)
    np.testing.assert_allclose(pooled["max"], last.max(0), atol=1e-6)
    np.testing.assert_allclose(pooled["cls"], last[0], atol=1e-6)
    np.testing.assert_allclose(pooled["last"], last[-1], atol=1e-6)
    assert (pooled["first"] == pooled["cls"]).all()
    np.testing.assert_allclose(np.linalg.norm(bert.encode([text], normalize=True)[0], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(bert.encode([text], pooling="max", normalize=True), axis=1), 1, rtol=1e-5)
    # Layer 0 of one token is the same wherever it stands but for its position; the last knows its company.
    near, far = (bert.encode([f"a1 {value} a1 a2"])[0][1] for value in ("a1", "b2"))
    assert np.abs(near - far).max() > 1e-3


def test_several_layers_come_from_one_pass(gpt: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    some = ["k1 v1 . k2", "", "k3"]
    single = [gpt.encode(some, layer=layer) for layer in range(3)]
    passes = []
    forward = type(gpt.transformer).forward
    monkeypatch.setattr(
        type(gpt.transformer), "forward", lambda *args, **rest: passes.append(1) or forward(*args, **rest)
    )
    every = gpt.encode(some, layer="all")
    assert len(passes) == 1
    assert [one.shape for one in every] == [(3, 4, 32), (3, 0, 32), (3, 1, 32)]
    for i, states in enumerate(every):
        for layer in range(3):
            np.testing.assert_allclose(states[layer], single[layer][i], atol=1e-6)
    (some_layers, _, _) = gpt.encode(some, layer=[-1, 0, -1])
    np.testing.assert_array_equal(some_layers, every[0][[2, 0, 2]])
    pooled = gpt.encode(some, layer=(0, 2), pooling="max", normalize=True)
    assert pooled.shape == (3, 2, 32)
    assert (pooled[1] == 0).all()
    for at, layer in enumerate((0, 2)):
        expected = gpt.encode(some, layer=layer, pooling="max", normalize=True)
        np.testing.assert_allclose(pooled[:, at], expected, atol=1e-6)
    (words,) = gpt.encode(["k1 v1"], layer=[1, 2], word_pooling="mean")
    assert words.shape == (2, 2, 32)
    assert gpt.encode([], layer="all") == []


def test_a_state_is_never_that_of_a_word_that_was_cut(spelling: GPT, bert: BERT) -> None:
    """Neither zeros for what was cut off, nor the state of a part."""
    words = ["money", "in", "the", "bank"]
    sizes = [len(spelling.tokenizer_.encode(words[: n + 1], special=False)) for n in range(4)]
    assert spelling.encode([words], word_pooling="mean", truncate=sizes[3])[0].shape == (4, 32)
    for truncate, word in ((sizes[1], 2), (sizes[1] - 1, 1), (1, 0)):
        for given in (words, " ".join(words)):
            said = rf"^sentences\[1\]: truncate={truncate} cuts '\s?{words[word]}', word {word} counted from 0"
            with pytest.raises(ValueError, match=said):
                spelling.encode(["in", given], word_pooling="mean", truncate=truncate)
    with pytest.raises(ValueError, match=r"sentences\[0\]: truncate=4 cuts 'c2', word 2"):
        bert.encode(["a1 b1 c2 a2"], word_pooling="first", truncate=4)  # [CLS] and [SEP] take two
    assert bert.encode([["a1", "b1", ""]], word_pooling="first", truncate=4)[0].shape == (
        3,
        32,
    )  # "" has no token to lose


def test_words_get_the_states_of_their_tokens(spelling: GPT) -> None:
    words = ["money", "in", "Zürich"]
    encoding = spelling.tokenizer_.encode(words)
    (states,) = spelling.encode([words])
    for how in ("mean", "max", "first", "last"):
        (found,) = spelling.encode([words], word_pooling=how)
        for word, row in enumerate(found):
            own = states[[i for i, one in enumerate(encoding.words) if one == word]]
            expected = {"mean": own.mean(0), "max": own.max(0), "first": own[0], "last": own[-1]}[how]
            np.testing.assert_allclose(row, expected, atol=1e-6)


def test_a_gpt_s_state_knows_nothing_of_what_comes(gpt: GPT, bert: BERT) -> None:
    for model, text, ends, blind in ((gpt, "k1 v1 .", ("k2", "v7"), True), (bert, "a1 a1 a1", ("a2", "b2"), False)):
        a, b = (model.encode([f"{text} {end}"])[0][:3] for end in ends)
        assert np.allclose(a, b, atol=1e-5) == blind


def test_empty_sentences_and_long_ones(gpt: GPT, bert: BERT) -> None:
    assert gpt.encode([""])[0].shape == (0, 32)
    assert GPT.encode(gpt, ["", "k1"], pooling="max")[0].tolist() == [0.0] * 32
    assert (gpt.encode(["", "k1"], pooling="mean")[0] == 0).all()
    assert gpt.encode([]) == []
    for model in (gpt, bert):
        for given in ([[""]], [["", ""], ["k1", "", "k2"], []]):
            found = model.encode(given, word_pooling="mean")
            assert [len(one) for one in found] == [len(words) for words in given]
            assert (found[0] == 0).all()
    assert bert.encode([""])[0].shape == (2, 32)  # what stands around every sentence
    long = "k1 v1 a1 " * 20
    for model in (gpt, bert):
        with pytest.raises(ValueError, match=r"sentences\[1\] has 6\d tokens and the model 32 positions"):
            model.encode(["k1", long])
        (cut,) = model.encode([long], truncate=10)
        assert len(cut) == 10
    ids = bert.encoded([long], 10)[0].ids
    assert (ids[0], ids[-1]) == (bert.tokenizer_.start, bert.tokenizer_.end)


def test_logits_are_those_of_the_next_tokens(gpt: GPT, bert: BERT) -> None:
    scores = gpt.logits(["k1 v1 .", "k2"])
    assert scores.shape == (2, 3, len(gpt.tokenizer_))
    assert np.isnan(scores[1, 1:]).all()
    assert np.isfinite(scores[0]).all()
    assert gpt.tokenizer_.tokens[scores[1, 0].argmax()] == "v2"
    chances = np.exp(scores[1, 0] - scores[1, 0].max())
    best, chance = gpt.next_tokens("k2", 1)[0]
    assert (best, chance) == ("v2", pytest.approx(chances.max() / chances.sum(), rel=1e-5))
    assert bert.logits("a1").shape == (1, 3, len(bert.tokenizer_))


def test_bf16_is_near(bert: BERT) -> None:
    some = topics(20, 3)
    exact, near = (bert.encode(some, truncate=32, pooling="mean", normalize=True, bf16=bf16) for bf16 in (False, True))
    assert exact.dtype == near.dtype == np.float32
    assert (exact * near).sum(1).min() > 0.99
    assert (exact != near).any()


# ---- attention maps


def test_attention_maps(gpt: GPT, bert: BERT) -> None:
    maps = gpt.attention_maps("k1 v1 . k2")
    assert maps.tokens == ["k1", "v1", ".", "k2"]
    assert sorted(maps.weights) == [0, 1]
    assert maps.heads == [0, 1]
    for weights in maps.weights.values():
        np.testing.assert_allclose(weights.sum(2), 1, atol=1e-5)
        assert (np.triu(weights[0], 1) == 0).all()  # nobody looks ahead
    some = bert.attention_maps("a1 b1", heads=[-1], layers=[-1])
    assert (sorted(some.weights), some.heads) == ([0], [1])
    assert some.tokens == ["[CLS]", "a1", "b1", "[SEP]"]
    assert (some[0, 1] == bert.attention_maps("a1 b1")[0, 1]).all()
    assert (some[0, 1] > 0).all()
    for wrong in ((1, 1), (0, 0)):
        with pytest.raises(KeyError):
            some[wrong]
    for unclear in (0, (0, 1, 0), "01", (0, slice(None))):
        with pytest.raises(TypeError, match=r"maps\[layer, head\] takes two whole numbers"):
            some[unclear]
    with pytest.raises(ValueError, match="no token"):
        gpt.attention_maps("")
    with pytest.raises(ValueError, match="layers"):
        gpt.attention_maps("k1", layers=[2])


def test_figures_have_tokens_on_both_sides(gpt: GPT, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    maps = gpt.attention_maps("k1 v1 . k2")
    maps = dataclasses.replace(maps, tokens=["k1", "$v1$", ".", "k2"])  # no formula
    figure = maps.figure()
    assert len(figure.axes) == 4
    for axes, left, above in zip(figure.axes, (True, False) * 2, (True, True, False, False), strict=True):
        (image,) = axes.images
        assert image.get_array().shape == (4, 4)
        for shown, labels in ((left, axes.get_yticklabels()), (above, axes.get_xticklabels())):
            assert [one.get_text() for one in labels] == (["k1", r"\$v1\$", ".", "k2"] if shown else [""] * 4)
    assert (figure.axes[1].images[0].get_array() == maps[0, 1]).all()
    assert figure.axes[3].get_xlabel() == "layer 1, head 1"
    lines = maps.figure(1, 0, kind="lines")
    left, right = lines.axes
    assert [one.get_text() for one in left.get_yticklabels()] == [one.get_text() for one in right.get_yticklabels()]
    drawn = left.collections[0].get_segments()
    assert len(drawn) == (maps[1, 0] >= 0.01).sum()
    for i, one in enumerate((figure, lines)):
        one.savefig(tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").read_bytes()[1:4] == b"PNG"
    with pytest.raises(ValueError, match="kind"):
        maps.figure(kind="circle")
    with pytest.raises(KeyError):
        maps.figure(7)


# ---- static start


def words(n: int, size: int) -> firth.Vectors:
    return firth.Vectors([f"k{i}" for i in range(n)], np.random.default_rng(1).standard_normal((n, size)))


def test_static_start_takes_the_very_rows(texts: list[str]) -> None:
    vectors = words(5, 32)
    given = {"tokenizer": "wordlevel", "pretrained_vectors": vectors, "embedding_std": None}
    frozen = GPT(**SMALL, **given, steps=10, embedding_mode="frozen").fit(texts)
    assert frozen.static_start is not None
    assert (frozen.static_start.words, frozen.static_start.composed) == (5, 0)
    assert "5 tokens are words" in repr(frozen.static_start)
    for word in vectors.words:
        assert (frozen.vectors[word] == vectors[word]).all()
    begun = GPT(**{**SMALL, "learning_rate": 1e-30}, tokenizer="wordlevel", steps=1).fit(texts).vectors
    for word in ("k6", "v1"):  # without a vector they learn
        assert np.abs(frozen.vectors[word] - begun[word]).max() > 1e-3
    tuned = GPT(**SMALL, **given, steps=10).fit(texts)
    assert (tuned.vectors["k1"] != vectors["k1"]).any()
    assert np.abs(tuned.vectors["k1"] - vectors["k1"]).max() < 0.3
    # What held them is gone with the training: whoever trains the module by other means can move them.
    weight = frozen.transformer.embedding.weight
    (weight * 2).sum().backward()
    assert bool((weight.grad == 2).all())
    frozen.transformer.zero_grad()
    scaled = GPT(**SMALL, tokenizer="wordlevel", pretrained_vectors=vectors, steps=1, embedding_mode="frozen").fit(
        texts
    )
    rows = np.stack([scaled.vectors[word] for word in vectors.words])
    assert rows.std() == pytest.approx(0.02)
    np.testing.assert_allclose(rows / rows.std(), vectors.matrix / vectors.matrix.std(), rtol=1e-5)


def test_frozen_first_thaws(texts: list[str]) -> None:
    vectors = words(5, 32)
    still = {}

    def look(model: GPT) -> None:
        still[model.history[-1].step] = bool((model.vectors["k1"] == vectors["k1"]).all())

    options = {
        **SMALL,
        "tokenizer": "wordlevel",
        "steps": 6,
        "evaluate_every": 1,
        "pretrained_vectors": vectors,
        "embedding_std": None,
    }
    GPT(**options, embedding_mode="frozen_first", embedding_steps=4).fit(texts, callbacks=[look])
    assert still == {1: True, 2: True, 3: True, 4: True, 5: False, 6: False}


def test_tokens_that_are_no_words_are_composed() -> None:
    lines = ["walking talking walked talked walks talks bank banks", "the bank walks"] * 50
    fasttext = firth.FastText(vector_size=16, epochs=1, sample=0, min_n=2, max_n=4, threads=1).fit(
        firth.Corpus.from_iterable(lines, min_count=1)
    )
    tokenizer = Tokenizer.train(
        ["bank walk talk ing ed s", "walking talked"] * 20, tokenizer="wordpiece", vocabulary_size=60
    )
    start = static_start.static_rows(fasttext.vectors, tokenizer, 16)
    number = tokenizer.get("bank")
    assert (start.rows[number] == fasttext.vectors["bank"]).all()
    assert (start.rows[tokenizer.get("walk")] == fasttext.vectors["walk"]).all()  # no word of theirs
    inside = next(token for token in tokenizer.tokens if token.startswith("##"))
    expected = fasttext.vectors.subwords.compose(inside[2:])
    assert (start.rows[tokenizer.get(inside)] == (0 if expected is None else expected)).all()
    assert not start.found[tokenizer.mask]
    assert start.words + start.composed == start.found.sum()
    plain = static_start.static_rows(firth.Vectors(["bank", "ing"], np.ones((2, 4))), tokenizer, 4)
    # Within a word "##ing" is not the word "ing".
    assert {tokenizer.tokens[i] for i in np.flatnonzero(plain.found)} == {"bank", "ing"}
    assert "##ing" in tokenizer.tokens


def test_byte_level_tokens_are_words_behind_a_blank() -> None:
    tokenizer = Tokenizer.train(["the Bank of the bank"] * 10, tokenizer="bpe", vocabulary_size=300)
    start = static_start.static_rows(firth.Vectors(["bank", "the"], [[1.0, 2.0], [3.0, 4.0]]), tokenizer, 2)
    assert start.rows[tokenizer.get("Ġbank")].tolist() == [1, 2]
    assert start.rows[tokenizer.get("ĠBank")].tolist() == [1, 2]  # in lower case it is known
    assert tokenizer.get("the") is None or not start.found[tokenizer.get("the")]


@pytest.mark.parametrize("size", [8, 32, 50])
def test_projection_keeps_inner_products(size: int) -> None:
    """With as many dimensions as there are axes; with fewer, no map of that rank keeps more."""
    tokenizer = Tokenizer.train([" ".join(f"k{i}" for i in range(20))] * 3, tokenizer="wordlevel")
    vectors = words(20, size)
    start = static_start.static_rows(vectors, tokenizer, 32, project=True)
    rows = start.rows[[tokenizer.get(word) for word in vectors.words]]
    given, kept = vectors.matrix @ vectors.matrix.T, rows @ rows.T
    spectrum = np.sort(np.linalg.eigvalsh(given.astype(np.float64)))[::-1]
    lost = np.linalg.norm(spectrum[32:])
    assert abs(np.linalg.norm(given - kept) - lost) < 1e-4 * np.linalg.norm(given)
    scaled = static_start.static_rows(vectors, tokenizer, 32, project=True, std=0.02)
    assert scaled.rows[scaled.found].std() == pytest.approx(0.02, rel=1e-4)
    np.testing.assert_allclose(scaled.rows / scaled.rows.std(), start.rows / start.rows.std(), atol=1e-4)


def test_what_static_start_refuses(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="pretrained_vectors have 16 dimensions and dim is 32"):
        GPT(**SMALL, pretrained_vectors=words(5, 16))
    with pytest.raises(TypeError, match=r"pretrained_vectors must be firth\.Vectors"):
        GPT(**SMALL, pretrained_vectors=np.ones((3, 32)))
    with pytest.raises(ValueError, match="needs pretrained_vectors"):
        GPT(**SMALL, embedding_mode="frozen")
    with pytest.raises(ValueError, match="none of the"):
        GPT(
            **SMALL, tokenizer="wordlevel", pretrained_vectors=firth.Vectors(["Donaudampfschiff"], np.ones((1, 32)))
        ).fit(texts)
    with pytest.raises(ValueError, match="not finite, that of 'k1'"):
        GPT(**SMALL, tokenizer="wordlevel", pretrained_vectors=firth.Vectors(["k1"], np.full((1, 32), np.nan))).fit(
            texts
        )


# ---- folders


@pytest.mark.parametrize("name", ["gpt", "bert", "spelling"])
def test_folders_keep_everything(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(name)
    model.save(tmp_path / "model")
    for read in (type(model).load, type(model).from_pretrained, load, firth.load):
        again = read(tmp_path / "model")
        assert type(again) is type(model)
        np.testing.assert_array_equal(again.encode(["k1 a1 ."])[0], model.encode(["k1 a1 ."])[0])
        assert again.history == model.history
        for option, value in model.get_params().items():
            if option not in ("tokenizer", "mlp_dim"):
                assert getattr(again, option) == value
        assert again.tokenizer_.tokens == model.tokenizer_.tokens
    dataclasses.replace(again, steps=2).fit([*topics(20, 1), *planted(20, 1)])  # and on it goes, with its own tokenizer
    model.save(tmp_path / "model")  # over the old one


def test_folders_of_the_other_kind(gpt: GPT, bert: BERT, tmp_path: Path) -> None:
    gpt.save(tmp_path / "gpt")
    bert.save(tmp_path / "bert")
    with pytest.raises(ValueError, match=r"GPT\.from_pretrained reads it"):
        BERT.load(tmp_path / "gpt")
    with pytest.raises(ValueError, match=r"BERT\.from_pretrained reads it"):
        GPT.load(tmp_path / "bert")
    with pytest.raises(OSError, match="not a folder"):
        GPT.load(tmp_path / "nothing")
    with pytest.raises(NotADirectoryError):
        gpt.save(tmp_path / "gpt" / "config.json")
    with pytest.raises(AttributeError, match="has not been fitted"):
        GPT().save(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "gpt" / "firth.json").write_text("{")
    with pytest.raises(ValueError, match=r"firth\.json is damaged"):
        GPT.load(tmp_path / "gpt")
    (tmp_path / "gpt" / "firth.json").unlink()  # as a published one
    assert GPT.load(tmp_path / "gpt").generate("k3", temperature=0, max_new=1) == " v3"
    (tmp_path / "bert" / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="JSON"):
        firth.load(tmp_path / "bert")


# ---- what they refuse


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"layers": 0}, ValueError, "layers must be at least 1"),
        ({"heads": 3, "dim": 32}, ValueError, r"dim \(32\) must be a multiple of heads \(3\)"),
        ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and at most 0.99"),
        ({"layers": 2.5}, TypeError, "layers"),
        ({"kind": "syllables"}, ValueError, "kind"),
        ({"attention": "flash"}, ValueError, "'firth' or 'torch'"),
        ({"device": "abacus"}, ValueError, "device"),
        ({"tokenizer": "bert-base"}, ValueError, "tokenizer must be .bpe., .wordpiece. or .wordlevel., or a Tokenizer"),
        ({"device": "cuda:99"}, ValueError, "torch sees no such device"),
        ({"device": "meta"}, ValueError, "torch sees no such device"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate must be above 0"),
        ({"warmup": 6}, ValueError, "warmup must be .*at most 1"),
        ({"learning_rate": 1e-3, "min_learning_rate": 1.0}, ValueError, "must not be above learning_rate"),
    ],
)
def test_options_are_checked(options: dict[str, object], kind: type[Exception], said: str) -> None:
    for model in (GPT, BERT, ELMo):
        if options.keys() <= {field.name for field in dataclasses.fields(model)}:
            with pytest.raises(kind, match=said):
                model(**options)


def test_what_use_refuses(gpt: GPT, bert: BERT) -> None:
    long = "k1 " * 40
    for call, kind, said in (
        (lambda: GPT().generate("a"), AttributeError, "fit"),
        (lambda: GPT().encode(["a"]), AttributeError, "fit"),
        (lambda: gpt.encode("one"), TypeError, "give a list of texts"),
        (lambda: gpt.encode([3]), TypeError, r"sentences\[0\]"),
        (lambda: gpt.encode([["a", 3]]), TypeError, r"sentences\[0\]\[1\]"),
        (lambda: gpt.encode(["a"], layer=3), ValueError, "layer"),
        (lambda: gpt.encode(["a"], pooling="median"), ValueError, "'mean', 'max', 'cls', 'first', 'last' or 'tokens'"),
        (lambda: gpt.encode(["a"], pooling="cls"), ValueError, "pooling='first' takes the first token"),
        (lambda: gpt.encode(["a"], layer=[]), ValueError, "layer must name at least one"),
        (lambda: gpt.encode(["a"], layer="last"), TypeError, "a whole number, a list of them, or 'all', not 'last'"),
        (lambda: gpt.encode(["a"], layer=[0, 3]), ValueError, "layer must be at most 2"),
        (lambda: gpt.fit(["k1"], callbacks=print), TypeError, r"give \[print\]"),
        (lambda: gpt.encode(["a"], pooling="mean", word_pooling="mean"), ValueError, "exclude"),
        (lambda: gpt.encode(["a"], truncate=33), ValueError, "truncate must be at most 32"),
        (lambda: gpt.generate(long), ValueError, "40 tokens and the model 32 positions"),
        (lambda: gpt.generate(5), TypeError, "int"),
        (lambda: gpt.generate("k1", temperature=-1), ValueError, "temperature"),
        (lambda: gpt.generate("k1", temperature=math.nan), ValueError, "temperature"),
        (lambda: gpt.generate("k1", top_k=0), ValueError, "top_k"),
        (lambda: gpt.generate("k1", top_p=0), ValueError, "top_p"),
        (lambda: gpt.generate("k1", top_p=1.5), ValueError, "top_p"),
        (lambda: gpt.generate("k1", max_new=-1), ValueError, "max_new"),
        (lambda: gpt.generate("k1", stop=""), ValueError, "stop"),
        (lambda: gpt.generate([{"role": "user"}]), TypeError, r"prompt\[0\]"),
        (lambda: gpt.generate([]), ValueError, "no message"),
        (lambda: gpt.generate({"role": "a", "content": "b"}), TypeError, "prompt must be a str or a list of dicts"),
        (lambda: gpt.generate("k1", stop=None), TypeError, "stop must be"),
        (lambda: gpt.encode(None), TypeError, "sentences must be an iterable of texts.*, not NoneType"),
        (lambda: gpt.encode({"k1"}), TypeError, "give sorted"),
        (lambda: gpt.score([3]), TypeError, r"texts\[0\]"),
        (lambda: gpt.attention_maps("k1", layers=0), TypeError, "layers must be a list of whole numbers"),
        (lambda: gpt.generate([{"role": "a", "content": "b"}], template="{role}"), ValueError, "template"),
        (lambda: gpt.next_tokens("k1", 0), ValueError, "topn must be at least 1"),
        (lambda: gpt.score("k1"), TypeError, "list"),
        (lambda: gpt.score([""]), ValueError, "no token"),
        (lambda: bert.fill_mask("k1"), ValueError, r"no \[MASK\]"),
        (lambda: bert.fill_mask(["k1"]), TypeError, "str"),
        (lambda: BERT(tokenizer="bpe"), ValueError, "no .MASK. token"),
        (
            lambda: BERT(tokenizer=Tokenizer.train(["a b"] * 3, tokenizer="bpe", vocabulary_size=257)),
            ValueError,
            "MASK",
        ),
        (
            lambda: GPT(**SMALL, tokenizer=gpt.tokenizer_).fit(["w x", "y z"]),
            ValueError,
            "knows no word of these texts",
        ),
        (lambda: BERT(**SMALL, tokenizer=bert.tokenizer_).fit(["w x"] * 9), ValueError, "knows no word of these texts"),
        (
            lambda: GPT(**SMALL, tokenizer="wordlevel").fit(["a b", "c d"]),
            ValueError,
            "no word occurs min_count=2 times",
        ),
        (lambda: ELMo().fit(["a b", "c d"]), ValueError, "no word occurs min_count=2 times"),
        (lambda: GPT(**SMALL).fit(iter(["k1"])), TypeError, "this iterator can be read once"),
        (lambda: gpt.fit(["k1 v1"] * 9, resume=True), ValueError, "needs checkpoint"),
        (lambda: gpt.fit(["k1"], callbacks=[3]), TypeError, r"callbacks\[0\]"),
    ):
        with pytest.raises(kind, match=said):
            call()


def test_a_failed_save_leaves_what_was_there(gpt: GPT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it fails late, at the tokenizer: no file of the new model beside those of the old one."""
    gpt.save(tmp_path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    (tmp_path / "head.safetensors").write_bytes(b"of a classifier")
    other = GPT(**{**SMALL, "steps": 1, "vocabulary_size": 300}).fit(planted(20, 3))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "save", full)
        with pytest.raises(OSError, match="No space left"):
            other.save(tmp_path)
    assert (tmp_path / "head.safetensors").read_bytes() == b"of a classifier"
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir() if one.name != "head.safetensors"} == before
    other.save(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == set(before)
    assert len(GPT.from_pretrained(tmp_path).tokenizer_) == len(other.tokenizer_)


def test_a_folder_of_a_model_is_no_checkpoint(gpt: GPT, tmp_path: Path) -> None:
    gpt.save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()
    new = GPT(**{**SMALL, "steps": 1, "vocabulary_size": 300})
    with pytest.raises(ValueError, match="holds a saved model: give checkpoint= a folder of its own"):
        new.fit(planted(20, 3), checkpoint=tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    GPT.from_pretrained(tmp_path, steps=1).fit(planted(20, 3), pretrained=True, checkpoint=tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before


def edited(folder: Path, name: str, **changes: object) -> None:
    held = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**held, **changes}))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "n_layer", 10**12),  # which would be built, one by one
        ("config.json", "n_layer", "2"),
        ("config.json", "n_embd", -1),
        ("config.json", "n_positions", [1]),
        ("config.json", "activation_function", ["gelu"]),
        ("config.json", "resid_pdrop", "x"),
        ("config.json", "tie_word_embeddings", "yes"),
        ("firth.json", "options", None),
        ("firth.json", "options", ["epochs"]),
        ("firth.json", "options", {"batch_size": 0}),
    ],
)
def test_a_damaged_description_is_named(gpt: GPT, name: str, key: str, value: object, tmp_path: Path) -> None:
    gpt.save(tmp_path)
    edited(tmp_path, name, **{key: value})
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["gpt", "bert"])
def test_no_value_of_a_config_does_harm(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The folder is refused by its name, or the states are right; there is no error of another kind."""
    model = request.getfixturevalue(name)
    model.save(tmp_path)
    (tmp_path / "firth.json").unlink()
    whole = json.loads((tmp_path / "config.json").read_text())
    wanted = model.encode(["k1 a1"])[0]
    for key in whole:
        for value in (-1, 0, 1.5, "2", [], 10**30):
            (tmp_path / "config.json").write_text(json.dumps({**whole, key: value}))
            try:
                again = load(tmp_path)
            except ValueError as error:
                refused = str(error)
                assert str(tmp_path) in refused, (key, value)
            else:
                if key != "is_decoder" and "eps" not in key:
                    np.testing.assert_array_equal(again.encode(["k1 a1"])[0], wanted, err_msg=f"{key} = {value!r}")


def test_a_tokenizer_must_be_the_model_s(gpt: GPT, bert: BERT, tmp_path: Path) -> None:
    for model in (gpt, bert):
        own = len(model.tokenizer_)
        for rows, said in (
            (own - 1, "tokens and the model rows for"),
            (own + 1025, "are not of one"),
            (own + 1024, ""),
        ):
            model.save(tmp_path)
            tensors, _ = files.read_tensors(tmp_path / "model.safetensors")
            for key, one in tensors.items():
                if len(one) == own and key.endswith(("wte.weight", "word_embeddings.weight", "s.bias", "decoder.bias")):
                    tensors[key] = np.resize(one, (rows, *one.shape[1:]))
            files.write_tensors(tmp_path / "model.safetensors", tensors, {})
            edited(tmp_path, "config.json", vocab_size=rows)
            if not said:
                assert load(tmp_path).transformer.architecture.vocabulary_size == rows
            else:
                with pytest.raises(ValueError, match=said):
                    load(tmp_path)
    model.save(tmp_path)
    (word,) = model.tokenizer_.encode("a1", special=False).ids
    for role in ("pad", "cls", "sep", "mask", "unk"):
        edited(tmp_path, "config.json", **{f"{role}_token_id": word})
        with pytest.raises(ValueError, match=f"config.json says {role}_token_id = {word}, .* the ordinary token 'a1'"):
            load(tmp_path)
        edited(tmp_path, "config.json", **{f"{role}_token_id": model.tokenizer_.padding})
    edited(tmp_path, "config.json", eos_token_id=word)  # which means nothing in a BERT
    load(tmp_path)
    gpt.save(tmp_path)
    (word,) = gpt.tokenizer_.encode("k1", special=False).ids
    edited(tmp_path, "config.json", eos_token_id=word)
    with pytest.raises(ValueError, match=f"config.json says eos_token_id = {word}, .* the ordinary token 'k1'"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "firth.json"])
def test_a_pointer_of_git_lfs_is_told_of(gpt: GPT, name: str, tmp_path: Path) -> None:
    gpt.save(tmp_path)
    (tmp_path / name).write_text(f"version https://git-lfs.example/spec/v1\noid sha256:{'0' * 64}\nsize 90868376\n")
    with pytest.raises(ValueError, match=rf"{re.escape(name)} is a pointer of Git LFS.*git lfs pull"):
        load(tmp_path)


def test_a_folder_without_a_tokenizer(gpt: GPT, tmp_path: Path) -> None:
    gpt.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "sentencepiece.bpe.model").touch()
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json, no vocab\.txt.*save_pretrained"):
        GPT.load(tmp_path)
    for name in ("vocab.txt", "vocab.json", "merges.txt"):
        (tmp_path / name).write_text("version https://git-lfs.example/spec/v1\n")
        with pytest.raises((ValueError, FileNotFoundError), match=r"pointer of Git LFS|no tokenizer\.json"):
            GPT.load(tmp_path)
        if name == "vocab.txt":
            (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=r"vocab\.json is a pointer of Git LFS"):
        GPT.load(tmp_path)


def test_folders_of_other_models_are_named(gpt: GPT, bert: BERT, tmp_path: Path) -> None:
    ELMo(hidden=8, projection=4, character_dim=4, steps=1).fit(planted(20, 1)).save(tmp_path / "elmo")
    for model in (GPT, BERT):
        with pytest.raises(ValueError, match=r"elmo holds an ELMo: firth\.contextual\.load, or ELMo\.load, reads it"):
            model.from_pretrained(tmp_path / "elmo")
    bert.save(tmp_path / "bert")
    for changes, said in (
        ({"model_type": "t5", "is_encoder_decoder": True}, "an encoder-decoder, a 't5'"),
        ({"model_type": "encoder-decoder"}, "an encoder-decoder"),
        ({"model_type": "llama"}, "a 'llama' model; firth reads bert, gpt2"),
        ({"model_type": None}, "a None model"),
    ):
        held = (tmp_path / "bert" / "config.json").read_text()
        edited(tmp_path / "bert", "config.json", **changes)
        with pytest.raises(ValueError, match=said):
            load(tmp_path / "bert")
        (tmp_path / "bert" / "config.json").write_text(held)
    huggingface.write(
        tmp_path / "decoder",
        Transformer(dataclasses.replace(gpt.transformer.architecture, cross=True)),
        gpt.tokenizer_,
    )
    with pytest.raises(ValueError, match="decoder of an encoder-decoder"):
        load(tmp_path / "decoder")


def test_a_bert_without_a_mask_token_encodes_but_does_not_train(bert: BERT, tmp_path: Path) -> None:
    bert.save(tmp_path)
    held = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(held.replace("[MASK]", "[MARK]"))
    model = load(tmp_path)
    np.testing.assert_array_equal(model.encode(["a1"])[0], bert.encode(["a1"])[0])
    assert model.tokenizer_.mask is None
    with pytest.raises(ValueError, match="tokenizer has no mask"):
        model.fit(topics(10, 1), pretrained=True)
    with pytest.raises(ValueError, match="tokenizer has no mask"):
        model.fill_mask("a1 [MASK]")


def test_a_causal_bert_is_a_gpt(bert: BERT, tmp_path: Path) -> None:
    bert.save(tmp_path)
    (tmp_path / "firth.json").unlink()
    edited(tmp_path, "config.json", is_decoder=True)
    model = load(tmp_path)
    assert type(model) is GPT
    model.generate("a1", max_new=2)
    model.save(tmp_path / "again")
    np.testing.assert_array_equal(load(tmp_path / "again").encode(["a1 a2"])[0], model.encode(["a1 a2"])[0])


def test_damaged_tensors_are_named(gpt: GPT, bert: BERT, tmp_path: Path) -> None:
    bert.save(tmp_path)
    tensors, _ = files.read_tensors(tmp_path / "model.safetensors")
    name = "bert.encoder.layer.0.attention.self.query.weight"
    whole = tensors[name]
    broken = whole.copy()
    broken[3, 5] = np.nan
    for wrong, said in (
        (whole[:, :7], r"of shape \(32, 7\) should make shape \(32, 32\)"),
        (whole.ravel(), r"of shape \(1024,\) should"),
        (whole.astype(np.int64), "must hold finite floats"),
        (broken, "must hold finite floats"),
    ):
        files.write_tensors(tmp_path / "model.safetensors", {**tensors, name: wrong}, {})
        with pytest.raises(ValueError, match=f"{name}.*{said}"):
            BERT.from_pretrained(tmp_path)


def test_invalid_text_in_a_file_is_told_of(texts: list[str], tmp_path: Path) -> None:
    place = tmp_path / "texts.txt"
    place.write_bytes("\n".join(texts).encode() + b"\nk1 \xff v1\nv2 \xff\xff\n")
    said = rf"texts.txt: 3 invalid UTF-8 sequences were read as U\+FFFD, the first in line {len(texts) + 1}$"
    with pytest.warns(UserWarning, match=said):
        GPT(**{**SMALL, "steps": 1, "vocabulary_size": 300}).fit(place)


def test_what_was_begun_anew_is_no_folder_s_any_more(gpt: GPT, texts: list[str], tmp_path: Path) -> None:
    gpt.save(tmp_path)
    model = GPT.from_pretrained(tmp_path, steps=1)
    with pytest.warns(UserWarning, match="starts from random weights"):
        model.fit(texts)
    model.fit(texts)  # warnings are errors here


def test_firth_does_not_import_torch() -> None:
    program = "import sys, firth; from firth import cli; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run(
        [sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(Path(firth.__file__).parents[1])}
    )


def test_without_torch_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\ntry:\n import firth.contextual\nexcept ImportError as e: print(e)"
    )
    environment = {"PYTHONPATH": str(Path(firth.__file__).parents[1])}
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, env=environment, capture_output=True, text=True
    )
    assert "pip install 'firth[contextual]'" in output.stdout
