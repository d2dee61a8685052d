"""Fine-tuning: labels of sentences and of words, validation, checkpoints, folders, scikit-learn, what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import firth

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from firth.contextual import BERT, GPT, SentenceClassifier, TokenClassifier, examples, finetuning  # noqa: E402
from planted import SMALL, planted, topics  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:these texts make .* of training")


@pytest.fixture(scope="module")
def gpt() -> GPT:
    return GPT(**SMALL, tokenizer="wordlevel", steps=120).fit(planted(300, 1))


@pytest.fixture(scope="module")
def bert() -> BERT:
    return BERT(**{**SMALL, "layers": 1}, tokenizer="wordlevel", steps=150).fit(topics(200, 1))


@pytest.fixture(scope="module")
def spelling() -> GPT:
    """One with byte-level tokens, hardly trained: words are of several tokens."""
    words = ["the bank of the river", "née à Zürich", "a 🙂 and a ☕", "money in the bank"] * 20
    return GPT(**SMALL, vocabulary_size=280, steps=3).fit(words)


def last_keys() -> tuple[list[str], list[str], tuple[list[str], list[str]]]:
    """Sentences of two keys with a label that the second one decides: some to train on, and others."""
    pairs = list(itertools.product(range(8), repeat=2))
    random.Random(1).shuffle(pairs)
    texts = [f"k{i} v{i} . k{j} v{j}" for i, j in pairs]
    labels = ["odd" if j % 2 else "even" for _, j in pairs]
    return texts[16:], labels[16:], (texts[:16], labels[:16])


@pytest.mark.parametrize("options", [{"head_only": True, "penalty": 0.1}, {"epochs": 12, "learning_rate": 3e-3}])
def test_sentences_are_classified_by_their_last_key(gpt: GPT, options: dict[str, Any], tmp_path: Path) -> None:
    """The last state of a sentence knows its last key, also in sentences that training has not seen."""
    given, labels, others = last_keys()
    before = gpt.vectors.matrix.copy()
    model = SentenceClassifier(encoder=gpt, pooling="last", **options).fit(given, labels, validation=others)
    assert model.validation_score == 1
    assert model.history[-1].score == 1
    assert len(model.history) == (1 if options.get("head_only") else 12)
    assert model.classes_.tolist() == ["even", "odd"]
    assert model.predict(["k2 v2", "k3 v3"]).tolist() == ["even", "odd"]
    chances = model.predict_proba(["k2 v2", "k3 v3"])
    np.testing.assert_allclose(chances.sum(1), 1)
    assert model.score(*others) == 1
    assert (gpt.vectors.matrix == before).all()  # the encoder stays as it is
    assert (model.transformer is gpt.transformer) == bool(options.get("head_only"))
    model.save(tmp_path / "tuned")
    for again in (SentenceClassifier.load(tmp_path / "tuned"), firth.load(tmp_path / "tuned")):
        np.testing.assert_allclose(again.predict_proba(["k2 v2", "k3 v3"]), chances, rtol=1e-5)
        assert again.history == model.history
        assert again.classes_.tolist() == ["even", "odd"]


def test_tuning_teaches_what_states_do_not_hold(bert: BERT) -> None:
    """Which of a topic's four words comes first is nothing that predicting masked words depends on."""
    given = [text[:29] for text in topics(300, 4)]
    assert len(set(given)) == 300  # none of the validation split is seen in training
    labels = [int(text[1]) % 2 for text in given]
    alone = SentenceClassifier(encoder=bert, head_only=True, pooling="first").fit(given, labels)
    tuned = SentenceClassifier(encoder=bert, pooling="first", epochs=14, learning_rate=3e-3).fit(given, labels)
    assert alone.validation_score < 0.9 < tuned.validation_score
    losses = [epoch.loss for epoch in tuned.history]
    assert losses[-1] < losses[0] / 2


def test_poolings_are_those_of_encode(bert: BERT, gpt: GPT, spelling: GPT) -> None:
    """The head sees what `encode` gives, whichever of its names is asked for."""
    given, labels = ["a1 a2 a3", "b1", "b2 b0", "a0"], ["a", "b", "b", "a"]
    for pooling in ("mean", "max", "cls", "first", "last"):
        model = SentenceClassifier(encoder=bert, head_only=True, pooling=pooling).fit(given, labels)
        scores = model.head(torch.from_numpy(bert.encode(given, pooling=pooling))).double().softmax(1)
        np.testing.assert_allclose(model.predict_proba(given), scores.detach().numpy(), atol=1e-5)
    with pytest.raises(ValueError, match="pooling='first' takes the first token"):
        SentenceClassifier(encoder=gpt, pooling="cls")
    words, of_words = [["Zürich", "bank"], ["in", "née"]], [["name", "noun"], ["other", "other"]]
    for pooling in ("mean", "max", "first", "last"):
        model = TokenClassifier(encoder=spelling, head_only=True, pooling=pooling).fit(words, of_words)
        states = np.concatenate(spelling.encode(words, word_pooling=pooling))
        best = model.head(torch.from_numpy(states)).argmax(1)
        assert model.classes_[best.numpy()].tolist() == [label for row in model.predict(words) for label in row]
    with pytest.raises(ValueError, match="'first' takes a word's first token"):
        TokenClassifier(encoder=bert, pooling="cls")


def test_the_bar_names_the_class_and_what_there_is(gpt: GPT, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no validation loss here: `history` has the score of each epoch."""
    given, labels = ["k1 v1", "k2 v2"] * 4, ["a", "b"] * 4
    SentenceClassifier(encoder=gpt, epochs=1).fit(given, labels, progress=True)
    shown = capsys.readouterr().err
    assert "SentenceClassifier: 100%" in shown
    assert "loss=" in shown
    assert "_Tuned" not in shown
    assert "nan" not in shown
    GPT(**SMALL, tokenizer="wordlevel", steps=1).fit(planted(9, 1), progress=True)
    shown = capsys.readouterr().err
    assert "GPT: 100%" in shown
    assert "validation_loss=" in shown


def tagged() -> tuple[list[list[str]], list[list[str | None]], tuple[list[list[str]], list[list[str | None]]]]:
    """Sentences of words whose labels they always have, some of them without: to train on, and others."""
    label_of = {"money": "noun", "river": "noun", "bank": "noun", "Zürich": "name", "née": "verb", "the": "article"}
    every = [list(words) for words in itertools.permutations([*label_of, "in"], 3)]
    random.Random(1).shuffle(every)
    labels = [[label_of.get(word) for word in words] for words in every]
    return every[40:100], labels[40:100], (every[:40], labels[:40])


@pytest.mark.parametrize("pooling", [None, "max", "first", "last"])
def test_words_are_classified(spelling: GPT, pooling: Any) -> None:
    given, labels, others = tagged()
    model = TokenClassifier(encoder=spelling, head_only=True, penalty=0.01, pooling=pooling)
    model.fit(given, labels, validation=others)
    assert model.validation_score == model.score(*others) > 0.98
    found = model.predict([["money", "in", "Zürich"], ["the"], []])
    assert [len(row) for row in found] == [3, 1, 0]
    assert (found[0][0], found[0][2], found[1]) == ("noun", "name", ["article"])
    tuned = TokenClassifier(encoder=spelling, pooling=pooling, epochs=10, learning_rate=5e-3)
    assert tuned.fit(given, labels, validation=others).validation_score > 0.95


def test_validation_may_be_given(gpt: GPT) -> None:
    given, labels = ["k1 v1", "k2 v2"] * 10, ["a", "b"] * 10
    others = ["k3 v3 . k1 v1", "k3 v3 . k2 v2"]
    model = SentenceClassifier(encoder=gpt, head_only=True, pooling="last", penalty=0.01)
    assert model.fit(given, labels, validation=(others, ["a", "b"])).validation_score == 1
    assert model.fit(given, labels, validation=(others, ["a", "a"])).validation_score == 0.5
    assert model.fit(given, labels, validation=0).validation_score is None
    # Every prediction for a label that training has not seen is wrong.
    assert model.fit(given, labels, validation=(others, ["a", "c"])).validation_score == 0.5


def test_what_fine_tuning_refuses(gpt: GPT) -> None:
    sentences, words_of = SentenceClassifier(encoder=gpt), TokenClassifier(encoder=gpt)
    for call, kind, said in (
        (lambda: SentenceClassifier(encoder="gpt"), TypeError, "encoder must be a GPT or a BERT"),
        (lambda: SentenceClassifier(encoder=gpt, epochs=0), ValueError, "epochs"),
        (lambda: sentences.predict(["a"]), AttributeError, "not been fitted"),
        (lambda: sentences.fit(["k1"], ["a", "b"]), ValueError, "1 texts and 2 labels"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "a"]), ValueError, "two different labels"),
        (lambda: sentences.fit("k1", ["a"]), TypeError, "texts is one text; give a list"),
        (lambda: sentences.fit(["k1", "k2"], ["a", None]), TypeError, r"the label of texts\[1\] is None"),
        (lambda: sentences.fit(["k1", "k2"], ["a", math.nan]), TypeError, r"texts\[1\] is nan, a NaN"),
        (lambda: sentences.fit(["k1", 5], ["a", "b"], validation=0), TypeError, r"texts\[1\]"),
        (lambda: sentences.fit(["k1 " * 33, "k2"], ["a", "b"]), ValueError, r"texts\[0\] has 33 .* truncate=32"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], validation=0.1), ValueError, "leaves 2 for training and 0"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], validation=2), ValueError, "must be below 1"),
        (lambda: sentences.fit(["k1", "k2"], ["a", 1]), TypeError, "of one type, not int and str"),
        (lambda: sentences.fit(["k1", "k2"], [True, 1]), TypeError, "of one type, not bool and int"),
        (lambda: sentences.fit(["k1", "k2"], [["a"], "b"]), TypeError, r"labels\[1\] is a str"),
        (lambda: sentences.fit(["k1", "k2"], [[], []]), ValueError, "at least one label"),
        (lambda: sentences.fit(["k1", "k2"], np.eye(2)), TypeError, "a matrix of indicators"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], sample_weight=[1, -1]), ValueError, r"sample_weight\[1\]"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], sample_weight=[0, 0]), ValueError, "are all 0"),
        (
            lambda: SentenceClassifier(encoder=gpt, epochs=20).fit(["k1", "k2"], ["a", "b"], resume=True),
            ValueError,
            "needs checkpoint=",
        ),
        (
            lambda: SentenceClassifier(encoder=gpt, head_only=True).fit(["k1", "k2"], ["a", "b"], resume=True),
            ValueError,
            "leave out checkpoint and resume",
        ),
        (lambda: sentences.fit([("k1", "k2"), "k2"], ["a", "b"]), TypeError, r"texts\[1\] is a str.* texts\[0\] is a"),
        (lambda: sentences.fit([("k1", "k2", "k3")], ["a"]), TypeError, r"texts\[0\] is a tuple of 3.*as a list"),
        (lambda: sentences.fit([("k1", 5)], ["a"]), TypeError, r"texts\[0\]\[1\]"),
        (lambda: SentenceClassifier(encoder=gpt, pooling="pooler"), ValueError, "a GPT has 'last'"),
        (lambda: SentenceClassifier(encoder=gpt, class_weight="even"), ValueError, "class_weight must be"),
        (lambda: TokenClassifier(encoder=gpt, pooling="pooler"), ValueError, "of whole sentences; 'first'"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], validation=["k1"]), TypeError, "validation must be"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], callbacks=[3]), TypeError, r"callbacks\[0\]"),
        (lambda: words_of.fit(["k1"], [["a"]]), TypeError, r"texts\[0\] is a string"),
        (lambda: words_of.fit([["k1"]], [["a", "b"]]), ValueError, r"texts\[0\] has 1 words and 2 labels"),
        (lambda: words_of.fit([["k1", ""]], [["a", "b"]]), ValueError, "fewer than two labels"),
        (lambda: words_of.fit([["k1", "k2"]], [["a", b"b"]]), TypeError, r"labels\[0\]\[1\] is b'b', a bytes"),
        (lambda: words_of.fit([["k1", "k2"]], [["a", 1]]), TypeError, "of one type, not int and str"),
    ):
        with pytest.raises(kind, match=said):
            call()
        assert sentences.history == []


def test_the_score_of_what_is_set_apart_is_score_s(spelling: GPT, gpt: GPT) -> None:
    """Labels outside the training set and words without a token count as errors in both."""
    given, labels = [["money", "in"], ["river", "of"]] * 10, [["noun", "other"], ["noun", "other"]] * 10
    words = TokenClassifier(encoder=spelling, head_only=True, penalty=0.01)
    others = [["money", "in"], ["river", "Zürich", "", "née"]], [["noun", "other"], ["noun", "name", "noun", None]]
    words.fit(given, labels, validation=others)
    assert words.validation_score == words.score(*others) == 3 / 5
    unknown = [["money"]], [["name"]]
    words.fit(given, labels, validation=unknown)
    assert words.validation_score == words.score(*unknown) == 0
    assert words.history[-1].validation_loss is None
    sentences = SentenceClassifier(encoder=gpt, head_only=True, pooling="last")
    other = ["k1", "k2", "k3"], ["a", "c", "d"]
    sentences.fit(["k1", "k2"] * 5, ["a", "b"] * 5, validation=other)
    assert sentences.validation_score == sentences.score(*other) == 1 / 3
    assert math.isnan(sentences.score([], []))


def test_a_few_sentences_are_all_learnt_from(gpt: GPT) -> None:
    """A share that makes less than one sentence sets none apart, and the only one with a label stays."""
    model = SentenceClassifier(encoder=gpt, head_only=True, pooling="last", penalty=0.01)
    model.fit(["k1 v1", "k2 v2"], ["a", "b"])
    assert model.predict(["k1 v1", "k2 v2"]).tolist() == ["a", "b"]
    assert model.validation_score is None
    given, labels = ["k1 v1"] * 9 + ["k2 v2"], ["a"] * 9 + ["b"]
    for seed in range(10):
        model = SentenceClassifier(encoder=gpt, head_only=True, pooling="last", seed=seed, penalty=0.01)
        assert model.fit(given, labels, validation=0.3).predict(["k2 v2"]).tolist() == ["b"]
        assert model.validation_score == 1


def test_labels_keep_their_type_and_order(gpt: GPT, tmp_path: Path) -> None:
    keys = [f"k{i}" for i in range(4)]
    model = SentenceClassifier(encoder=gpt, head_only=True, pooling="last", penalty=1e-4)
    model.fit(keys, [9, 100, 10, 2])
    assert model.classes_.tolist() == [2, 9, 10, 100]
    assert model.predict(keys).tolist() == [9, 100, 10, 2]
    assert model.fit(keys, np.array([True, False, False, True])).predict(keys).tolist() == [True, False, False, True]
    model.save(tmp_path)
    assert firth.load(tmp_path).predict(keys).tolist() == [True, False, False, True]


def test_a_model_saved_over_a_classifier_is_a_model(gpt: GPT, tmp_path: Path) -> None:
    model = SentenceClassifier(encoder=gpt, head_only=True, pooling="last").fit(["k1", "k2"], ["a", "b"])
    model.save(tmp_path)
    assert type(firth.load(tmp_path)) is SentenceClassifier
    gpt.save(tmp_path)
    assert type(firth.load(tmp_path)) is GPT


def test_an_epoch_is_one_permutation(gpt: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each example once an epoch, in an order drawn once, which depends on the seed and the epoch alone."""
    drawn = []
    generator = np.random.default_rng
    monkeypatch.setattr(examples.np.random, "default_rng", lambda seed: drawn.append(seed) or generator(seed))
    given = [examples.Example([i], [0], [0], [i]) for i in range(10)]
    batches = examples.Batches(given, 0, seed=1)
    steps = [batches(4 * step, 4).targets.tolist() for step in range(6)]
    assert drawn == [[1, 0], [1, 1]]
    epochs = [[one for step in part for one in step] for part in (steps[:3], steps[3:])]
    assert [sorted(one) for one in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    again = examples.Batches(given, 0, seed=1)
    assert again(16, 4).targets.tolist() == steps[4]


@pytest.mark.parametrize("n", [10, 13])
def test_processes_share_the_steps_of_one(n: int) -> None:
    """Three with batches of 2 see in each step what one with batches of 6 sees, and none sees nothing."""
    given = [examples.Example([i], [0], [0], [i]) for i in range(n)]
    one, three = examples.Batches(given, 0, seed=1), examples.Batches(given, 0, seed=1, processes=3)
    for step in range(2 * -(-n // 6)):
        own = [three(2 * (3 * step + process), 2).targets.tolist() for process in range(3)]
        assert all(own)
        assert {i for part in own for i in part} == set(one(6 * step, 6).targets.tolist())


def test_steps_are_counted_for_all_processes(gpt: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(finetuning.loop, "train", lambda module, batches, loss, schedule, **_: steps.append(schedule))
    SentenceClassifier(encoder=gpt, epochs=3, batch_size=4, validation=0).fit(["k1", "k2"] * 10, ["a", "b"] * 10)
    assert [(one.steps, one.evaluate_every) for one in steps] == [(9, 3)]


def test_a_model_without_a_head_is_named(gpt: GPT, tmp_path: Path) -> None:
    gpt.save(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds a gpt2 without the head of a SentenceClassifier.*fit a"):
        SentenceClassifier.load(tmp_path)


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_a_training_of_one_step_learns(gpt: GPT, warmup: float) -> None:
    model = SentenceClassifier(encoder=gpt, epochs=1, warmup=warmup).fit(["k1", "k2"], ["a", "b"])
    assert not torch.equal(model.transformer.embedding.weight, gpt.transformer.embedding.weight)


def test_nothing_to_tell(gpt: GPT, spelling: GPT) -> None:
    sentences = SentenceClassifier(encoder=gpt, epochs=1, batch_size=1).fit(["k1", "", "k2"], ["a", "a", "b"])
    assert sentences.predict([]).tolist() == []
    assert sentences.predict_proba([""]).shape == (1, 2)
    words = TokenClassifier(encoder=spelling, head_only=True).fit([["bank", "of"]], [["a", "b"]])
    assert words.predict([]) == []
    assert words.predict([[], ["bank", "", "of"]]) == [[], ["a", None, "b"]]


# --- validation that means something ---------------------------------------------------------------------------------


def unlike(n: int) -> list[str]:
    """So many different texts."""
    draw = random.Random(7)
    found = dict.fromkeys(" ".join(f"{letter}{draw.randrange(4)}" for letter in "abcabca") for _ in range(2 * n))
    return list(found)[:n]


def bound(n: int) -> float:
    """How far from a half the share of right guesses of a coin may lie: once in a thousand it lies further."""
    return 3.3 * math.sqrt(0.25 / n)


@pytest.mark.parametrize("options", [{"head_only": True, "penalty": 0.001}, {"epochs": 20, "learning_rate": 1e-2}])
def test_random_labels_of_texts_stay_at_chance(bert: BERT, options: dict[str, Any]) -> None:
    """On texts that training has not seen; a higher accuracy would mean that their labels had leaked."""
    texts = unlike(340)
    labels = np.random.default_rng(2).integers(0, 2, 340).tolist()
    model = SentenceClassifier(encoder=bert, pooling="mean", dropout=0.0, **options)
    model.fit(texts[:40], labels[:40], validation=(texts[40:], labels[40:]))
    assert model.score(texts[:40], labels[:40]) > 0.75
    assert abs(model.validation_score - 0.5) < bound(300)
    assert model.validation_score == model.score(texts[40:], labels[40:])
    assert abs(model.fit(texts, labels, validation=0.88).validation_score - 0.5) < bound(299)


def test_random_labels_of_words_stay_at_chance(bert: BERT) -> None:
    sentences = [text.split() for text in unlike(140)]
    draw = np.random.default_rng(3)
    labels = [draw.integers(0, 2, len(words)).tolist() for words in sentences]
    model = TokenClassifier(encoder=bert, epochs=20, learning_rate=1e-2, dropout=0.0)
    model.fit(sentences[:40], labels[:40], validation=(sentences[40:], labels[40:]))
    assert model.score(sentences[:40], labels[:40]) > 0.7
    assert abs(model.validation_score - 0.5) < bound(700)


# --- weights ---------------------------------------------------------------------------------------------------------


def outputs(model: Any, texts: Any) -> Any:
    """The scores of the classes, before they are made probabilities."""
    with torch.no_grad():
        return model.head(model._features(model._examples(model._inputs(texts), None))).numpy()


def test_a_weight_counts_as_repetition(bert: BERT) -> None:
    """The minimum of the head's loss is unique, so that both ways must find it; the same for texts of weight 0."""
    texts, labels = unlike(40), np.random.default_rng(4).integers(0, 3, 40).tolist()
    weights = [3.0 if label == 2 else 1.0 for label in labels]
    repeated = [i for i, weight in enumerate(weights) for _ in range(int(weight))]
    often = [texts[i] for i in repeated], [labels[i] for i in repeated]
    head = {"encoder": bert, "head_only": True, "validation": 0.0}
    expected = outputs(SentenceClassifier(**head).fit(*often), texts)
    assert not np.allclose(outputs(SentenceClassifier(**head).fit(texts, labels), texts), expected, atol=1e-2)
    for model in (
        SentenceClassifier(**head).fit(texts, labels, sample_weight=weights),
        SentenceClassifier(**head, class_weight={2: 3}).fit(texts, labels),
        SentenceClassifier(**head).fit([*texts, *texts], [*labels, *labels[::-1]], sample_weight=weights + [0] * 40),
    ):
        np.testing.assert_allclose(outputs(model, texts), expected, atol=2e-3)
    sizes = np.bincount(labels)
    balanced = [40 / (3 * sizes[label]) for label in labels]
    np.testing.assert_allclose(
        outputs(SentenceClassifier(**head, class_weight="balanced").fit(texts, labels), texts),
        outputs(SentenceClassifier(**head).fit(texts, labels, sample_weight=balanced), texts),
        atol=2e-3,
    )
    with pytest.raises(ValueError, match="class_weight names 9"):
        SentenceClassifier(**head, class_weight={9: 1}).fit(texts, labels)


@pytest.mark.parametrize("kind", [SentenceClassifier, TokenClassifier])
def test_weights_when_all_is_tuned(gpt: GPT, kind: Any) -> None:
    """Texts of weight 0 teach nothing, class weights do what weights of texts do, and a common factor does nothing."""

    def fitted(*given: Any, **options: Any) -> Any:
        sample_weight = options.pop("sample_weight", None)
        model = kind(encoder=gpt, epochs=1, learning_rate=5e-3, batch_size=4, validation=0, dropout=0, **options)
        return model.fit(*given, sample_weight=sample_weight).head.out.weight.detach().numpy()

    names = ["a", "b", "a", "a", "b", "a", "a", "b"]
    texts: list[Any] = [f"k{i} v{i}" for i in range(8)]
    labels: list[Any] = names
    if kind is TokenClassifier:
        texts, labels = [text.split() for text in texts], [[name, name] for name in names]
    weights = [2.0 if name == "b" else 0.5 for name in names]
    expected = fitted(texts, labels, sample_weight=weights)
    assert not np.allclose(expected, fitted(texts, labels), atol=1e-5)
    for given in ({"sample_weight": [4 * one for one in weights]}, {"class_weight": {"a": 0.5, "b": 2}}):
        np.testing.assert_allclose(fitted(texts, labels, **given), expected, atol=1e-6)
    swapped = labels[:-1] + ([["a", "a"]] if kind is TokenClassifier else ["a"])
    alone = [1.0] * 7 + [0.0]
    np.testing.assert_array_equal(
        fitted(texts, labels, sample_weight=alone), fitted(texts, swapped, sample_weight=alone)
    )
    model = kind(encoder=gpt, head_only=True).fit(texts, labels)
    assert model.score(texts, labels, sample_weight=weights) == pytest.approx(
        np.average([model.score([one], [label]) for one, label in zip(texts, labels, strict=True)], weights=weights)
    )


# --- several labels, pairs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"head_only": True, "penalty": 0.01}, {"epochs": 15, "learning_rate": 1e-2}])
def test_several_labels(bert: BERT, options: dict[str, Any], tmp_path: Path) -> None:
    """A text has the labels of the letters that it begins and ends with."""
    texts = [" ".join(words) for words in itertools.product(("a1 a2", "b1 b2", "c2 c1"), repeat=2)]
    texts = [f"{text} {more}{i}" for text in texts for more in "abc" for i in range(4)]
    random.Random(1).shuffle(texts)
    labels = [sorted({text[0], text.split()[-1][0]} - {"c"}) for text in texts]
    assert [] in labels
    model = SentenceClassifier(encoder=bert, pooling="mean" if options.get("head_only") else None, **options)
    model.fit(texts[30:], labels[30:], validation=(texts[:30], labels[:30]))
    assert model.classes_.tolist() == ["a", "b"]
    chances = model.predict_proba(texts[:30])
    assert chances.sum(1).max() > 1.3  # each label by itself
    found, _ = model.predict_top(texts[:30], k=-1, threshold=0.5)
    right = [sorted(one) == own for one, own in zip(found, labels, strict=False)]
    assert np.mean(right) > 0.6
    np.testing.assert_array_equal(model.predict(texts[:30]), model.classes_[chances.argmax(1)])
    assert model.validation_score == model.score(texts[:30], labels[:30])
    assert model.score(["a1"], [["z"]]) == 0
    names, ranked = model.predict_top(texts[:2], k=2)
    assert [len(one) for one in names] == [2, 2]
    assert ranked[0] == pytest.approx(sorted(chances[0].tolist(), reverse=True))
    assert [one[0] for one in names] == model.predict(texts[:2]).tolist()
    assert [one[:1] for one in names] == model.predict_top(texts[:2])[0]
    assert model.predict_top([], k=2) == ([], [])
    model.save(tmp_path)
    again = firth.load(tmp_path)
    np.testing.assert_allclose(again.predict_proba(texts[:30]), chances, atol=1e-6)
    one = SentenceClassifier(encoder=bert, head_only=True).fit(["a1", "b1"], ["a", "b"])
    with pytest.raises(TypeError, match="labels are lists, and training had one"):
        one.score(["a1"], [["a"]])


def test_the_loss_of_several_labels(bert: BERT) -> None:
    """The mean of the labels' binary cross-entropies, as transformers computes it."""
    texts, labels = unlike(12), [["x"], ["x", "y"], [], ["z"]] * 3
    model = SentenceClassifier(encoder=bert, head_only=True, validation=0).fit(texts, labels)
    wanted = np.array([[name in own for name in "xyz"] for own in labels], float)
    expected = torch.nn.BCEWithLogitsLoss()(torch.tensor(outputs(model, texts)), torch.tensor(wanted))
    assert model.history[-1].loss == pytest.approx(float(expected), rel=1e-5)
    # Each label for itself is a logistic regression, whose minimum is the same.
    alone = SentenceClassifier(encoder=bert, head_only=True, validation=0).fit(texts, ["x" in own for own in labels])
    both = alone.predict_proba(texts)[:, 1]
    assert np.corrcoef(both, model.predict_proba(texts)[:, 0])[0, 1] > 0.99


def test_pairs_are_seen_together(bert: BERT) -> None:
    """Whether two texts are of one topic is seen in neither of them alone."""
    draw = random.Random(5)
    sides = [[" ".join(f"{x}{draw.randrange(4)}" for _ in "12") for x in draw.choices("ab", k=2)] for _ in range(300)]
    pairs = list(dict.fromkeys((first, second) for first, second in sides))
    labels = ["same" if first[0] == second[0] else "other" for first, second in pairs]
    model = SentenceClassifier(encoder=bert, pooling="mean", epochs=4, learning_rate=5e-3).fit(pairs, labels)
    assert model.validation_score > 0.9
    assert model.score([([*first.split()], second) for first, second in pairs[:50]], labels[:50]) > 0.9


def test_tokens_of_pairs(bert: BERT, gpt: GPT, spelling: GPT) -> None:
    model = SentenceClassifier(encoder=bert, head_only=True)
    tokenizer = bert.tokenizer_
    assert tokenizer is not None
    (ids, types), other = model._encoded([("a1 b2", "c3"), (["a1"], "b2 c3 a1")])
    assert [tokenizer.tokens[i] for i in ids] == ["[CLS]", "a1", "b2", "[SEP]", "c3", "[SEP]"]
    assert types == [0, 0, 0, 0, 1, 1]
    assert other[1] == [0, 0, 0, 1, 1, 1, 1]
    short = dataclasses.replace(model, truncate=5)._encoded([("a1 b2", "c3"), ("a1", "b2 c3 a1")])
    assert [[tokenizer.tokens[i] for i in ids][1:-1] for ids, _ in short] == [
        ["a1", "[SEP]", "c3"],
        ["a1", "[SEP]", "b2"],
    ]
    with pytest.raises(ValueError, match=r"texts\[1\] has 43 tokens and the model 32 positions"):
        model._encoded([("a1", "b1"), ("a1 " * 20, "b1 " * 20)])
    # What is cut off is what the tokenizers library cuts off.
    texts = ["", "a1", "a1 b2 c3", "a1 b2 c3 a1 a2 a3 c1"]
    for pair, length in itertools.product(itertools.product(texts, repeat=2), (3, 4, 5, 6, 9, 30)):
        library = type(tokenizer._tokenizer).from_str(tokenizer._tokenizer.to_str())
        library.enable_truncation(length)
        whole = library.encode(*pair)
        assert tokenizer.encode_pairs([pair], length=length) == [(whole.ids, whole.type_ids)]
    with pytest.raises(ValueError, match="takes 3 special tokens, and only 2"):
        tokenizer.encode_pairs([("a1", "b1")], length=2)
    # A GPT's tokenizer puts nothing around texts: what ends a text stands between them.
    for encoder, texts in ((gpt, ("k1 v1", "k2")), (spelling, ("née", "money in"))):
        tokenizer = encoder.tokenizer_
        assert tokenizer is not None
        ((found, types),) = SentenceClassifier(encoder=encoder, head_only=True)._encoded([texts])
        first, second = (tokenizer.encode(text, special=False).ids for text in texts)
        assert (found, types) == ([*first, tokenizer.end, *second], [])
    fitted = SentenceClassifier(encoder=gpt, head_only=True, pooling="last", penalty=0.01)
    assert fitted.fit([("k1", "k2"), ("k2", "k1")], ["a", "b"]).predict([("k3", "k2")]).tolist() == ["a"]


# --- training that stops and goes on ---------------------------------------------------------------------------------


def bits(model: Any) -> list[bytes]:
    state = {**model.transformer.state_dict(), **model.head.state_dict()}
    return [tensor.numpy().tobytes() for tensor in state.values()]


def timeless(history: list[Any]) -> list[Any]:
    return [dataclasses.replace(one, seconds=0, units_per_second=0) for one in history]


@pytest.mark.parametrize("where", ["callback", "after an epoch", "within an epoch"])
def test_a_resumed_training_is_the_uninterrupted_one(
    bert: BERT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    texts, labels = unlike(50), ["x", "y"] * 25
    model = SentenceClassifier(encoder=bert, epochs=4, learning_rate=1e-3, dropout=0.3, validation=0.2, batch_size=8)
    whole = dataclasses.replace(model).fit(texts, labels)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press(of: Any) -> None:
        if len(of.history) == 2:
            if where == "callback":
                raise KeyboardInterrupt
            signal.raise_signal(signal.SIGINT)

    try:
        if where == "within an epoch":
            draw = examples.Batches.__call__
            steps = iter(range(100))
            monkeypatch.setattr(
                examples.Batches,
                "__call__",
                lambda self, *given: (next(steps) == 11 and signal.raise_signal(signal.SIGINT)) or draw(self, *given),
            )
        with pytest.raises(KeyboardInterrupt):
            model.fit(texts, labels, checkpoint=tmp_path, callbacks=[] if where == "within an epoch" else [press])
        monkeypatch.undo()
        assert len(model.history) == 2
        assert timeless(model.history) == timeless(whole.history[:2])
        assert model.predict(texts).shape == (50,)
        with pytest.raises(ValueError, match="pass resume=True"):
            model.fit(texts, labels, checkpoint=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    noted: list[int] = []
    resumed = dataclasses.replace(model)
    resumed.fit(texts, labels, checkpoint=tmp_path, resume=True, callbacks=[lambda of: noted.append(len(of.history))])
    assert noted == [3, 4]
    assert timeless(resumed.history) == timeless(whole.history)
    assert whole.validation_score is not None
    assert bits(resumed) == bits(whole)
    again = dataclasses.replace(model).fit(texts, labels, checkpoint=tmp_path, resume=True)  # which had ended
    assert again.history == resumed.history
    assert bits(again) == bits(whole)


def test_a_checkpoint_of_another_training_is_refused(bert: BERT, gpt: GPT, tmp_path: Path) -> None:
    texts, labels = unlike(20), ["x", "y"] * 10
    options: dict[str, Any] = {"epochs": 1, "validation": 0}
    SentenceClassifier(encoder=bert, **options).fit(texts, labels, checkpoint=tmp_path)
    other = BERT(**{**SMALL, "layers": 1}, tokenizer="wordlevel", steps=1, seed=2).fit(topics(200, 1))
    for model, given, said in (
        (SentenceClassifier(encoder=bert, pooling="first", **options), (texts, labels), "pooling was 'pooler'"),
        (SentenceClassifier(encoder=bert, dropout=0.2, **options), (texts, labels), "dropout of the head was 0.1"),
        (SentenceClassifier(encoder=bert, class_weight={"x": 2}, **options), (texts, labels), "the data differ"),
        (SentenceClassifier(encoder=bert, **options), (texts, ["z", "y"] * 10), "classes was"),
        (SentenceClassifier(encoder=bert, **options), (texts, labels[::-1]), "the data differ"),
        (SentenceClassifier(encoder=bert, **options), (texts, [[one] for one in labels]), "several labels was False"),
        (SentenceClassifier(encoder=other, **options), (texts, labels), "checksum of the encoder was"),
        (SentenceClassifier(encoder=bert, epochs=2), (texts, labels), "steps was 2, is 4"),
        (
            TokenClassifier(encoder=bert, **options),
            ([[one] for one in texts], [[one] for one in labels]),
            "is a checkpoint of a",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            model.fit(*given, checkpoint=tmp_path, resume=True)
        assert model.history == []
    with pytest.raises(ValueError, match="trains in one go"):
        SentenceClassifier(encoder=bert, head_only=True).fit(texts, labels, checkpoint=tmp_path)


@pytest.mark.parametrize("kind", [SentenceClassifier, TokenClassifier])
def test_two_fits_of_one_object_at_once_are_refused(gpt: GPT, kind: Any) -> None:
    texts: list[Any] = ["k1 v1", "k2 v2"] * 4
    labels: list[Any] = ["a", "b"] * 4
    if kind is TokenClassifier:
        texts, labels = [text.split() for text in texts], [[name, None] for name in labels]

    def again(model: Any) -> None:
        with pytest.raises(RuntimeError, match=f"this {kind.__name__} is being fitted already"):
            model.fit(texts, labels)
        refused.append(model)

    refused: list[Any] = []
    model = kind(encoder=gpt, epochs=1).fit(texts, labels, callbacks=[again])
    assert refused == [model]
    assert len(model.fit(texts, labels).history) == 1  # the end of the first one sets it free, and so does an error
    with pytest.raises(ValueError, match="labels"):
        model.fit(texts, labels[:-1])
    assert len(model.fit(texts, labels).history) == 1


def test_thirty_sentences_have_a_finite_loss(bert: BERT) -> None:
    texts, labels = unlike(30), ["x", "y", "z"] * 10
    words = [text.split() for text in texts]
    for options in ({}, {"head_only": True}):
        for model in (
            SentenceClassifier(encoder=bert, **options).fit(texts, labels),
            TokenClassifier(encoder=bert, **options).fit(words, [[one] * 7 for one in labels]),
        ):
            for epoch in model.history:
                assert all(math.isfinite(value) for value in dataclasses.astuple(epoch) if value is not None)


@pytest.mark.parametrize("share", [0, 0.2])
def test_what_diverges_is_neither_kept_nor_saved(bert: BERT, tmp_path: Path, share: float) -> None:
    texts, labels = unlike(20), ["x", "y"] * 10
    model = SentenceClassifier(encoder=bert, epochs=1, validation=share, batch_size=20).fit(texts, labels)
    before = bits(model), model.history
    wild = dataclasses.replace(model, learning_rate=1e3, clip=None, weight_decay=1e3, epochs=60)
    wild.__dict__.update(_transformer=model.transformer, _head=model.head, _classes=["x", "y"], history=model.history)
    with pytest.raises(FloatingPointError, match="training diverged"):
        wild.fit(texts, labels, checkpoint=tmp_path / "state")
    assert (bits(wild), wild.history) == before
    held = firth.files.read_own(tmp_path / "state" / "checkpoint.safetensors", "checkpoint")[0]
    assert all(np.isfinite(tensor).all() for tensor in held.values())
    # An update of the last step, of which no loss is computed any more, without validation.
    step = torch.optim.AdamW.step

    def spoil(self: Any, *given: Any) -> Any:
        found = step(self, *given)
        with torch.no_grad():
            self.param_groups[0]["params"][0].view(-1)[0] = math.nan
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spoil)
        with pytest.raises(FloatingPointError, match=r"diverged in step 1: a number in the weights"):
            SentenceClassifier(encoder=bert, epochs=1, validation=0, batch_size=20).fit(
                texts, labels, checkpoint=tmp_path / "other"
            )
    assert not list((tmp_path / "other").iterdir())


# --- transformers ----------------------------------------------------------------------------------------------------

TEXTS = ["a1 b2 c3", "b0", "c1 c1 a2 b3 b3", "a0 a3"]
PAIRS = [("a1 b2", "c3"), ("b0", "a1 a2 a3"), ("c1", "c1")]


@pytest.fixture(scope="module")
def transformers() -> Any:
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def auto(transformers: Any) -> dict[str, Any]:
    return {
        "SentenceClassifier": transformers.AutoModelForSequenceClassification,
        "TokenClassifier": transformers.AutoModelForTokenClassification,
    }


def opened(kind: Any, folder: Path) -> Any:
    """A folder as transformers opens it, with nothing of it missing."""
    model, loading = kind.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"], loading
    return model.eval()


def theirs(model: Any, encoder: Any, texts: Any) -> Any:
    """The scores of transformers for padded texts or pairs, and the mask of their tokens."""
    if isinstance(texts[0], tuple):
        found = encoder.tokenizer_.encode_pairs(texts, special=encoder.special)
    else:
        found = [(one.ids, []) for one in encoder.encoded(texts, None)]
    time = max(len(ids) for ids, _ in found)
    padding = model.config.pad_token_id
    ids = torch.tensor([[*one, *[padding] * (time - len(one))] for one, _ in found])
    given = {"attention_mask": torch.tensor([[1] * len(one) + [0] * (time - len(one)) for one, _ in found])}
    if model.config.model_type == "bert":
        given["token_type_ids"] = torch.tensor(
            [[*(types or [0] * len(one)), *[0] * (time - len(one))] for one, types in found]
        )
    with torch.no_grad():
        return model(ids, **given).logits.numpy(), given["attention_mask"].numpy() > 0


def of_tokens(model: Any, texts: list[str]) -> Any:
    """The scores for each token of a text, by the head alone."""
    with torch.no_grad():
        every = [torch.tensor([one.ids]) for one in model.encoder.encoded(texts, None)]
        return [model.head(model.transformer(ids)[0]).numpy() for ids in every]


def assert_same_scores(model: Any, other: Any, texts: Any = TEXTS) -> None:
    scores, mask = theirs(other, model.encoder, texts)
    if isinstance(model, SentenceClassifier):
        np.testing.assert_allclose(outputs(model, texts), scores, atol=1e-4)
        chances = chances_of(scores, other.config.problem_type)
        np.testing.assert_allclose(model.predict_proba(texts), chances, atol=1e-4)
    else:
        for own, found, inside in zip(of_tokens(model, texts), scores, mask, strict=True):
            np.testing.assert_allclose(own, found[inside], atol=1e-4)


def chances_of(scores: Any, problem: str | None) -> Any:
    tensor = torch.from_numpy(scores)
    return (tensor.sigmoid() if problem == "multi_label_classification" else tensor.softmax(1)).numpy()


SIZES = {
    "bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24},
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
}


@pytest.mark.parametrize("task", ["SentenceClassifier", "TokenClassifier"])
@pytest.mark.parametrize("family", ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "gpt2"])
def test_a_classifier_of_transformers_is_opened_and_given_back(
    transformers: Any, auto: dict[str, Any], bert: BERT, tmp_path: Path, family: str, task: str
) -> None:
    """With its trained head and its labels, and so is what firth saves of it, and of what it makes of that."""
    tokenizer = bert.tokenizer_
    assert tokenizer is not None
    config = transformers.AutoConfig.for_model(
        family,
        **SIZES.get(family, SIZES["bert"]),
        vocab_size=len(tokenizer),
        max_position_embeddings=32,
        pad_token_id=tokenizer.padding,
        type_vocab_size=2 if family == "bert" else 1,
        id2label={0: "good", 1: "bad", 2: "so-so"},
        label2id={"good": 0, "bad": 1, "so-so": 2},
        problem_type="multi_label_classification" if family == "roberta" else None,
    )
    torch.manual_seed(1)
    made = auto[task].from_config(config).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    made.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    model = firth.load(tmp_path / "theirs")
    assert type(model).__name__ == task
    assert model.classes_.tolist() == ["good", "bad", "so-so"]
    assert_same_scores(model, made)
    if task == "SentenceClassifier":
        if family != "gpt2":
            assert_same_scores(model, made, PAIRS)
    else:
        states = of_tokens(model, ["a1 b2"])[0]
        first = states[0 if family == "gpt2" else 1 :]
        assert model.predict([["a1", "b2"]]) == [[["good", "bad", "so-so"][i] for i in first[:2].argmax(1)]]
    model.save(tmp_path / "ours")
    given_back = opened(auto[task], tmp_path / "ours")
    assert given_back.config.id2label == {0: "good", 1: "bad", 2: "so-so"}
    assert_same_scores(model, given_back)
    again = firth.load(tmp_path / "ours")
    assert_same_scores(again, made)
    assert again.get_params()["pooling"] == model.get_params()["pooling"]
    # What transformers writes over firth's folder is what is read next.
    with torch.no_grad():
        next(given_back.parameters()).mul_(1.5)
    given_back.config.id2label = {0: "x", 1: "y", 2: "z"}
    given_back.save_pretrained(tmp_path / "ours")
    again = firth.load(tmp_path / "ours")
    assert again.classes_.tolist() == ["x", "y", "z"]
    assert_same_scores(again, given_back)
    # It can be trained on.
    tuned = type(model)(encoder=model.encoder, epochs=1)
    texts = [text.split() for text in TEXTS] if task == "TokenClassifier" else TEXTS
    tuned.fit(
        texts, [["m", "n", "m", "n", "n"][: len(one)] for one in texts] if task == "TokenClassifier" else list("mnmn")
    )
    tuned.save(tmp_path / "tuned")
    assert_same_scores(firth.load(tmp_path / "tuned"), opened(auto[task], tmp_path / "tuned"))


@pytest.mark.parametrize("name", ["bert", "gpt", "spelling"])
@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (["x", "y", "z", "x"], "single_label_classification"),
        ([3, 10, 3, 7], "single_label_classification"),
        ([True, False, True, False], "single_label_classification"),
        ([["x", "y"], [], ["y"], ["z"]], "multi_label_classification"),
    ],
    ids=["str", "int", "bool", "several"],
)
def test_transformers_opens_what_firth_has_trained(
    transformers: Any,
    auto: dict[str, Any],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    name: str,
    labels: Any,
    problem: str,
) -> None:
    encoder = request.getfixturevalue(name)
    texts = TEXTS if name == "bert" else ["k1 v1 bank", "k2 river", "k3", "k4 v4 k1 of the"]
    model = SentenceClassifier(encoder=encoder, epochs=2, learning_rate=1e-2).fit(texts, labels)
    model.save(tmp_path)
    other = opened(auto["SentenceClassifier"], tmp_path)
    assert other.config.problem_type == problem
    assert [other.config.id2label[i] for i in range(len(model.classes_))] == list(map(str, model.classes_.tolist()))
    assert_same_scores(model, other, texts)
    again = firth.load(tmp_path)
    assert type(again.classes_.tolist()[0]) is type(model.classes_.tolist()[0])
    assert again.get_params()["class_weight"] == model.get_params()["class_weight"]
    assert_same_scores(again, other, texts)
    # With its tokenizer, which fills up a batch, truncates long texts, and adds what the model was trained with.
    pairs: list[Any] = PAIRS if name == "bert" else []
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for given, parts in ((texts, [texts]), (pairs, list(map(list, zip(*pairs, strict=True))))):
        if given:
            with torch.no_grad():
                scores = other(**tokenizer(*parts, padding=True, return_tensors="pt")).logits
            np.testing.assert_allclose(outputs(model, given), scores, atol=1e-4)
    long = " ".join(texts * 20)
    short = SentenceClassifier.load(tmp_path, truncate=encoder.length)
    with torch.no_grad():
        scores = other(**tokenizer([long], truncation=True, return_tensors="pt")).logits
    np.testing.assert_allclose(outputs(short, [long]), scores, atol=1e-4)


def test_options_of_a_folder_can_be_changed(bert: BERT, tmp_path: Path) -> None:
    """A classifier that others have trained needs to know where to truncate long texts."""
    model = SentenceClassifier(encoder=bert, head_only=True, pooling="last").fit(TEXTS, list("xyxy"))
    model.save(tmp_path)
    long = " ".join(TEXTS * 20)
    with pytest.raises(ValueError, match=rf"texts\[0\] .* give truncate={bert.length}"):
        firth.load(tmp_path).predict([long])
    again = SentenceClassifier.load(tmp_path, truncate=bert.length, penalty=2.0)
    assert again.get_params()["penalty"] == again.penalty == 2
    assert again.predict_proba([long]).shape == (1, 2)
    assert [one.loss for one in again.history] == [one.loss for one in model.history]
    np.testing.assert_array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))
    for name in ("pooling", "head_only", "encoder", "layers"):
        with pytest.raises(TypeError, match=f"^{name} is not one of the options that can be changed: batch_size"):
            SentenceClassifier.load(tmp_path, **{name: None})
    with pytest.raises(ValueError, match="truncate must be at least 3"):
        SentenceClassifier.load(tmp_path, truncate=1)


@pytest.mark.parametrize("name", ["bert", "gpt", "spelling"])
def test_transformers_opens_a_tagger(
    auto: dict[str, Any], request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    """It scores tokens; the mean of a word's scores is the score of the mean of its states."""
    encoder = request.getfixturevalue(name)
    model = TokenClassifier(encoder=encoder, epochs=3, learning_rate=1e-2, class_weight={3: 2.0})
    model.fit([["a1", "k1", "Zürich"], ["b2", "the"]], [[1, 2, 3], [2, None]])
    model.save(tmp_path)
    other = opened(auto["TokenClassifier"], tmp_path)
    assert other.config.id2label == {0: "1", 1: "2", 2: "3"}
    texts = ["a1 k1 née money", "the"]
    assert_same_scores(model, other, texts)
    again = firth.load(tmp_path)
    assert again.classes_.tolist() == [1, 2, 3]
    assert again.get_params()["class_weight"] == {3: 2.0}
    words = [text.split() for text in texts]
    assert again.predict(words) == model.predict(words)
    scores, _ = theirs(other, encoder, texts)
    encoding = encoder.encoded(words[:1], None)[0]
    best = [scores[0][[i for i, own in enumerate(encoding.words) if own == word]].mean(0).argmax() for word in range(4)]
    assert model.predict(words)[0] == [[1, 2, 3][i] for i in best]


@pytest.mark.parametrize("pooling", ["mean", "max", "cls", "last"])
def test_what_transformers_cannot_express_is_firth_s_alone(
    transformers: Any, bert: BERT, tmp_path: Path, pooling: Any
) -> None:
    model = SentenceClassifier(encoder=bert, pooling=pooling, epochs=1, learning_rate=1e-2).fit(TEXTS, list("xyxy"))
    model.save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    again = firth.load(tmp_path)
    assert type(again) is SentenceClassifier
    np.testing.assert_allclose(again.predict_proba(TEXTS), model.predict_proba(TEXTS), atol=1e-6)
    with torch.no_grad():
        hidden = transformers.AutoModel.from_pretrained(tmp_path)(torch.tensor([[2, 5, 6, 3]])).last_hidden_state
        np.testing.assert_allclose(model.transformer(torch.tensor([[2, 5, 6, 3]])), hidden, atol=1e-4)


def test_a_head_alone_on_a_trained_pooler(auto: dict[str, Any], bert: BERT, tmp_path: Path) -> None:
    alone = SentenceClassifier(encoder=bert, pooling="pooler", head_only=True)
    with pytest.raises(ValueError, match="needs an encoder with a trained pooler"):
        alone.fit(TEXTS, list("xyxy"))
    SentenceClassifier(encoder=bert, epochs=2, learning_rate=1e-2).fit(TEXTS, list("xyxy")).save(tmp_path / "first")
    encoder = firth.load(tmp_path / "first").encoder
    dense = encoder.transformer.pooler.weight.clone()
    model = dataclasses.replace(alone, encoder=encoder, penalty=0.1).fit(TEXTS, list("xxyy"))
    assert torch.equal(model.head.dense.weight, dense)
    model.save(tmp_path / "second")
    assert_same_scores(model, opened(auto["SentenceClassifier"], tmp_path / "second"))


def test_damaged_classifiers_of_transformers_are_refused_by_name(
    transformers: Any, auto: dict[str, Any], bert: BERT, tmp_path: Path
) -> None:
    SentenceClassifier(encoder=bert, epochs=1).fit(TEXTS, list("xyxy")).save(tmp_path)
    (tmp_path / "head.safetensors").unlink()
    whole = firth.files.read_tensors(tmp_path / "model.safetensors")[0]
    config = json.loads((tmp_path / "config.json").read_text())
    assert type(firth.load(tmp_path)) is SentenceClassifier

    def read(changes: dict[str, Any], tensors: dict[str, Any], kind: Any = SentenceClassifier) -> Any:
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        kept = {name: value for name, value in {**whole, **tensors}.items() if value is not None}
        firth.files.write_tensors(tmp_path / "model.safetensors", kept, {})
        return kind.load(tmp_path)

    for changes, tensors, said in (
        ({}, {"classifier.weight": None}, r"no tensor 'classifier\.weight'"),
        ({}, {"classifier.weight": np.full((2, 32), np.nan, np.float32)}, "must hold finite floats"),
        ({}, {"classifier.bias": np.zeros(3, np.float32)}, "do not fit together"),
        ({"id2label": {"0": "x"}, "problem_type": "single_label_classification"}, {}, "must name the classes 0 to 1"),
        ({"id2label": {"0": "x", "1": "x"}}, {}, "one name to several classes"),
        ({"problem_type": "regression"}, {}, "describes a regression"),
        ({"id2label": {"0": "LABEL_0"}, "problem_type": None}, {}, "describes a regression"),
    ):
        with pytest.raises(ValueError, match=said):
            read(changes, tensors)
    assert type(firth.load(tmp_path)) is BERT  # a regression's transformer can be used
    assert read({"id2label": None}, {}).classes_.tolist() == ["LABEL_0", "LABEL_1"]
    with pytest.raises(ValueError, match="holds a SentenceClassifier, not a TokenClassifier"):
        read({}, {}, TokenClassifier)
    for key in ("architectures", "id2label", "label2id", "model_type", "problem_type"):
        for value in (-1, 1.5, "2", [], [[]], {}, 10**30):
            (tmp_path / "config.json").write_text(json.dumps({**config, "problem_type": None, key: value}))
            try:
                firth.load(tmp_path)
            except ValueError as error:
                said = str(error)
                assert str(tmp_path) in said, (key, value)


# --- scikit-learn ----------------------------------------------------------------------------------------------------


def lowered(texts: list[Any]) -> list[Any]:
    return [text.lower() if isinstance(text, str) else [word.lower() for word in text] for text in texts]


@pytest.mark.parametrize("kind", [SentenceClassifier, TokenClassifier])
def test_scikit_learn(gpt: GPT, kind: Any) -> None:
    pytest.importorskip("sklearn")
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.utils.validation import check_is_fitted

    given, names, others = last_keys()
    texts: list[Any] = [*given, *others[0]]
    labels: list[Any] = [*names, *others[1]]
    if kind is TokenClassifier:  # of which it labels the last key
        texts = [text.split() for text in texts]
        labels = [[None] * 3 + [name, None] for name in labels]
    model = kind(encoder=gpt, head_only=True, pooling="last", penalty=0.1)
    assert is_classifier(model) == (kind is SentenceClassifier)
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert copied.encoder is gpt  # which is never trained here
    assert not model.__sklearn_is_fitted__()
    assert (cross_val_score(model, texts, labels, cv=3) > 0.9).all()
    search = GridSearchCV(model, {"penalty": np.array([1e5, 0.1]), "class_weight": [None, "balanced"]}, cv=2)
    search.fit(texts, labels)
    assert search.best_params_["penalty"] == 0.1
    check_is_fitted(search.best_estimator_)
    pipeline = Pipeline([("lower", FunctionTransformer(lowered)), ("classify", model)])
    assert pipeline.fit(texts, labels).score(texts, labels) > 0.9
    assert model.__sklearn_is_fitted__()  # a pipeline fits its own steps
    assert model.set_params(penalty=2) is model
    assert (model.penalty, model.__sklearn_is_fitted__()) == (2.0, False)
    with pytest.raises(ValueError, match="no option 'depth'"):
        model.set_params(depth=3)
    if kind is SentenceClassifier:
        model.set_params(penalty=0.1)
        assert cross_val_score(model, texts, labels, cv=2, scoring="neg_log_loss").mean() > -0.5
        assert (
            cross_val_score(model, np.array(texts), np.array(labels), cv=2, params={"sample_weight": np.ones(64)})[0]
            > 0.9
        )
        assert (cross_val_score(model, texts, [[name] for name in labels], cv=KFold(2)) > 0.8).all()
