"""Fine-tuning: labels of sentences and of words, what is set apart, folders, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import firth

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from firth.contextual import BERT, GPT, SentenceClassifier, TokenClassifier, finetuning  # noqa: E402
from planted import SMALL, planted, topics  # noqa: E402


@pytest.fixture(scope="module")
def gpt() -> GPT:
    return GPT(**SMALL, kind="words", steps=120).fit(planted(300, 1))


@pytest.fixture(scope="module")
def bert() -> BERT:
    return BERT(**{**SMALL, "layers": 1}, kind="words", steps=150).fit(topics(200, 1))


@pytest.fixture(scope="module")
def spelling() -> GPT:
    """One with byte-level pieces, hardly trained: words are of several pieces."""
    words = ["the bank of the river", "née à Zürich", "a 🙂 and a ☕", "money in the bank"] * 20
    return GPT(**SMALL, vocabulary_size=280, steps=3).fit(words)


@pytest.mark.parametrize("options", [{"head_only": True, "penalty": 0.1}, {"epochs": 3, "learning_rate": 2e-3}])
def test_sentences_are_told_by_their_first_key(gpt: GPT, options: dict[str, float], tmp_path: Path) -> None:
    """The last state of a short sentence knows its key."""
    given = [text[:5] for text in planted(200, 3)]
    labels = ["even" if int(text[1]) % 2 == 0 else "odd" for text in given]
    before = gpt.vectors.matrix.copy()
    model = SentenceClassifier(encoder=gpt, pooling="last", **options).fit(given, labels)
    assert model.held_out_score == 1
    assert model.history[-1].held_out_score == 1
    assert len(model.history) == (1 if options.get("head_only") else 3)
    assert model.classes_.tolist() == ["even", "odd"]
    assert model.predict(["k2 v2", "k3 v3"]).tolist() == ["even", "odd"]
    chances = model.predict_proba(["k2 v2", "k3 v3"])
    np.testing.assert_allclose(chances.sum(1), 1)
    assert model.score(given, labels) == 1
    assert (gpt.vectors.matrix == before).all()  # the encoder stays as it is
    assert (model.transformer is gpt.transformer) == bool(options.get("head_only"))
    model.save(tmp_path / "tuned")
    for again in (SentenceClassifier.load(tmp_path / "tuned"), firth.load(tmp_path / "tuned")):
        np.testing.assert_allclose(again.predict_proba(["k2 v2", "k3 v3"]), chances, rtol=1e-5)
        assert again.history == model.history
        assert again.classes_.tolist() == ["even", "odd"]


def test_tuning_teaches_what_states_do_not_hold(bert: BERT) -> None:
    """Which of a topic's four words comes first is nothing that a masked word told."""
    given = [text[:29] for text in topics(300, 4)]
    labels = [int(text[1]) % 2 for text in given]
    alone = SentenceClassifier(encoder=bert, head_only=True, pooling="first").fit(given, labels)
    tuned = SentenceClassifier(encoder=bert, pooling="first", epochs=14, learning_rate=3e-3).fit(given, labels)
    assert alone.held_out_score < 0.9 < tuned.held_out_score
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
        states = np.concatenate(spelling.encode(words, words=pooling))
        best = model.head(torch.from_numpy(states)).argmax(1)
        assert model.classes_[best.numpy()].tolist() == [label for row in model.predict(words) for label in row]
    with pytest.raises(ValueError, match="'first' takes a word's first token"):
        TokenClassifier(encoder=bert, pooling="cls")


def test_the_bar_names_the_class_and_what_there_is(gpt: GPT, capsys: pytest.CaptureFixture[str]) -> None:
    """Held-out loss there is none of here: the score of each epoch is in `history`."""
    given, labels = ["k1 v1", "k2 v2"] * 4, ["a", "b"] * 4
    SentenceClassifier(encoder=gpt, epochs=1).fit(given, labels, progress=True)
    shown = capsys.readouterr().err
    assert "SentenceClassifier: 100%" in shown
    assert "loss=" in shown
    assert "_Tuned" not in shown
    assert "nan" not in shown
    GPT(**SMALL, kind="words", steps=1).fit(planted(9, 1), progress=True)
    shown = capsys.readouterr().err
    assert "GPT: 100%" in shown
    assert "held_out=" in shown


@pytest.mark.parametrize("pooling", ["mean", "max", "first", "last"])
def test_words_are_told(spelling: GPT, pooling: str) -> None:
    given = [["money", "in", "Zürich"], ["the", "river", "née"], ["a", "bank"]] * 20
    labels = [["noun", None, "name"], ["article", "noun", "verb"], ["article", "noun"]] * 20
    model = TokenClassifier(encoder=spelling, head_only=True, penalty=0.01, pooling=pooling).fit(given, labels)
    assert model.held_out_score == 1
    assert model.score(given, labels) == 1
    found = model.predict(given[:3])
    assert [len(row) for row in found] == [3, 3, 2]
    assert found[0][0] == "noun"
    assert found[0][2] == "name"
    assert found[1] == ["article", "noun", "verb"]
    tuned = TokenClassifier(encoder=spelling, pooling=pooling, epochs=6, learning_rate=3e-3).fit(given, labels)
    assert tuned.held_out_score == 1


def test_validation_may_be_given(gpt: GPT) -> None:
    given, labels = ["k1 v1", "k2 v2"] * 10, ["a", "b"] * 10
    model = SentenceClassifier(encoder=gpt, head_only=True, pooling="last")
    assert model.fit(given, labels, validation=(["k1 v1", "k2 v2"], ["a", "a"])).held_out_score == 0.5
    assert math.isnan(model.fit(given, labels, validation=0).held_out_score)
    # A label that nothing was learnt of is told wrong.
    assert model.fit(given, labels, validation=(["k1 v1", "k2 v2"], ["a", "c"])).held_out_score == 0.5


def test_what_fine_tuning_refuses(gpt: GPT) -> None:
    sentences, words_of = SentenceClassifier(encoder=gpt), TokenClassifier(encoder=gpt)
    for call, kind, said in (
        (lambda: SentenceClassifier(encoder="gpt"), TypeError, "encoder must be a GPT or a BERT"),
        (lambda: SentenceClassifier(encoder=gpt, epochs=0), ValueError, "epochs"),
        (lambda: sentences.predict(["a"]), AttributeError, "not been fitted"),
        (lambda: sentences.fit(["k1"], ["a", "b"]), ValueError, "1 texts and 2 labels"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "a"]), ValueError, "two different labels"),
        (lambda: sentences.fit("k1", ["a"]), TypeError, "texts is one text; give a list"),
        (lambda: sentences.fit(["k1", "k2"], ["a", 1.5]), TypeError, r"labels\[1\] is 1.5"),
        (lambda: sentences.fit(["k1", 5], ["a", "b"], validation=0), TypeError, r"sentences\[1\]"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], validation=0.1), ValueError, "leaves 2 to learn from and 0"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], validation=2), ValueError, "must be below 1"),
        (lambda: sentences.fit(["k1", "k2"], ["a", 1]), TypeError, "of one type, not int and str"),
        (lambda: sentences.fit(["k1", "k2"], [True, 1]), TypeError, "of one type, not bool and int"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], validation=["k1"]), TypeError, "validation must be"),
        (lambda: sentences.fit(["k1", "k2"], ["a", "b"], callbacks=[3]), TypeError, r"callbacks\[0\]"),
        (lambda: words_of.fit(["k1"], [["a"]]), TypeError, r"sentences\[0\] is a string"),
        (lambda: words_of.fit([["k1"]], [["a", "b"]]), ValueError, r"sentences\[0\] has 1 words and 2 labels"),
        (lambda: words_of.fit([["k1", ""]], [["a", "b"]]), ValueError, "fewer than two labels"),
    ):
        with pytest.raises(kind, match=said):
            call()
        assert sentences.history == []


def test_the_score_of_what_is_set_apart_is_score_s(spelling: GPT, gpt: GPT) -> None:
    """Labels never learnt and words without a piece are told wrong in both."""
    given, labels = [["money", "in"], ["river", "of"]] * 10, [["noun", "other"], ["noun", "other"]] * 10
    words = TokenClassifier(encoder=spelling, head_only=True, penalty=0.01)
    others = [["money", "in"], ["river", "Zürich", "", "née"]], [["noun", "other"], ["noun", "name", "noun", None]]
    words.fit(given, labels, validation=others)
    assert words.held_out_score == words.score(*others) == 3 / 5
    unknown = [["money"]], [["name"]]
    words.fit(given, labels, validation=unknown)
    assert words.held_out_score == words.score(*unknown) == 0
    assert math.isnan(words.history[-1].held_out_loss)
    sentences = SentenceClassifier(encoder=gpt, head_only=True, pooling="last")
    other = ["k1", "k2", "k3"], ["a", "c", "d"]
    sentences.fit(["k1", "k2"] * 5, ["a", "b"] * 5, validation=other)
    assert sentences.held_out_score == sentences.score(*other) == 1 / 3
    assert math.isnan(sentences.score([], []))


def test_a_few_sentences_are_all_learnt_from(gpt: GPT) -> None:
    """A share that makes less than one sentence sets none apart, and the only one with a label stays."""
    model = SentenceClassifier(encoder=gpt, head_only=True, pooling="last", penalty=0.01)
    model.fit(["k1 v1", "k2 v2"], ["a", "b"])
    assert model.predict(["k1 v1", "k2 v2"]).tolist() == ["a", "b"]
    assert math.isnan(model.held_out_score)
    given, labels = ["k1 v1"] * 9 + ["k2 v2"], ["a"] * 9 + ["b"]
    for seed in range(10):
        model = SentenceClassifier(encoder=gpt, head_only=True, pooling="last", seed=seed, penalty=0.01)
        assert model.fit(given, labels, validation=0.3).predict(["k2 v2"]).tolist() == ["b"]
        assert model.held_out_score == 1


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
    """Each example once an epoch, in an order drawn once, which hangs on seed and epoch alone."""
    drawn = []
    generator = np.random.default_rng
    monkeypatch.setattr(finetuning.np.random, "default_rng", lambda seed: drawn.append(seed) or generator(seed))
    examples = [finetuning._Example([i], [0], [0], [i]) for i in range(10)]
    batches = finetuning._Batches(examples, 0, seed=1)
    steps = [batches(4 * step, 4).targets.tolist() for step in range(6)]
    assert drawn == [[1, 0], [1, 1]]
    epochs = [[one for step in part for one in step] for part in (steps[:3], steps[3:])]
    assert [sorted(one) for one in epochs] == [list(range(10))] * 2
    assert epochs[0] != epochs[1]
    again = finetuning._Batches(examples, 0, seed=1)
    assert again(16, 4).targets.tolist() == steps[4]


@pytest.mark.parametrize("n", [10, 13])
def test_processes_share_the_steps_of_one(n: int) -> None:
    """Three with batches of 2 see in each step what one with batches of 6 sees, and none sees nothing."""
    examples = [finetuning._Example([i], [0], [0], [i]) for i in range(n)]
    one, three = finetuning._Batches(examples, 0, seed=1), finetuning._Batches(examples, 0, seed=1, processes=3)
    for step in range(2 * -(-n // 6)):
        own = [three(2 * (3 * step + process), 2).targets.tolist() for process in range(3)]
        assert all(own)
        assert {i for part in own for i in part} == set(one(6 * step, 6).targets.tolist())


def test_steps_are_counted_for_all_processes(gpt: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(
        finetuning.training, "train", lambda module, batches, loss, schedule, **_: steps.append(schedule)
    )
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
