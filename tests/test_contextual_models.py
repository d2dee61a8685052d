"""The contract that every contextual model keeps; a new one joins MODELS and is tested."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import random
import re
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import firth
from firth import files, run
from firth.models import base
from firth.options import not_none

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from firth.contextual import BERT, GPT, ELMo, SentenceClassifier, TokenClassifier  # noqa: E402
from firth.contextual.base import TrainedModel  # noqa: E402
from firth.contextual.finetuning import FineTuned  # noqa: E402
from firth.contextual.transformer_model import ContextualModel  # noqa: E402

TINY = {"batch_size": 4, "evaluate_batches": 2, "validation": 0.1, "threads": 1, "learning_rate": 1e-2}
TRANSFORMER = {**TINY, "layers": 1, "heads": 2, "dim": 8, "length": 12, "steps": 6, "evaluate_every": 2}
LSTM = {**TINY, "hidden": 4, "projection": 3, "character_dim": 2, "filters": ((1, 3), (2, 3)), "length": 12, "steps": 6}
TUNED = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-2}

WORDS = ["the", "bank", "of", "a", "river", "takes", "money", "gives", "mud", "to", "an", "old", "town", "by", "sea"]


def sentences(n: int = 30, seed: int = 1) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 9))) for _ in range(n)]


def encoder() -> BERT:
    if "encoder" not in FITTED:
        FITTED["encoder"] = make("BERT", dropout=0.0).fit(sentences())
    return FITTED["encoder"]


FITTED: dict[str, Any] = {}

# Small, quick makers of each model.
MODELS: dict[str, Callable[..., Any]] = {
    "GPT": lambda **options: GPT(**{**TRANSFORMER, "tokenizer": "wordlevel", **options}),
    "BERT": lambda **options: BERT(**{**TRANSFORMER, "tokenizer": "wordlevel", "min_count": 1, **options}),
    "ELMo": lambda **options: ELMo(**{**LSTM, "min_count": 1, "evaluate_every": 2, **options}),
    "SentenceClassifier": lambda **options: SentenceClassifier(**{**TUNED, "encoder": encoder(), **options}),
    "TokenClassifier": lambda **options: TokenClassifier(**{**TUNED, "encoder": encoder(), **options}),
}
CLASSIFIERS = ["SentenceClassifier", "TokenClassifier"]
ENCODERS = [name for name in MODELS if name not in CLASSIFIERS]
RESUMABLE = ENCODERS


def make(name: str, **options: Any) -> Any:
    return MODELS[name](**options)


def labeled(name: str, texts: list[str]) -> tuple[Any, ...]:
    """What `fit` takes of texts: for classifiers with labels."""
    if name == "SentenceClassifier":
        return texts, ["long" if len(text) > 25 else "short" for text in texts]
    if name == "TokenClassifier":
        words = [text.split() for text in texts]
        return words, [["long" if len(word) > 3 else "short" for word in row] for row in words]
    return (texts,)


def fit(name: str, model: Any, texts: list[str] | None = None, **rest: Any) -> Any:
    return model.fit(*labeled(name, sentences() if texts is None else texts), **rest)


def outputs(name: str, model: Any, texts: list[str]) -> list[Any]:
    """What the model makes of each text."""
    if name == "SentenceClassifier":
        return list(model.predict_proba(texts))
    if name == "TokenClassifier":
        return [np.array(row) for row in model.predict([text.split() for text in texts])]
    return list(model.encode(texts))


def trained(model: Any) -> Any:
    """The torch module that is trained."""
    return model.network if isinstance(model, ELMo) else model.transformer


def module(model: Any) -> Any:
    """And all that is trained, in one."""
    return torch.nn.ModuleList([trained(model), model.head]) if isinstance(model, FineTuned) else trained(model)


def state(model: Any) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in module(model).state_dict().items()}


def noted(model: Any) -> list[dict[str, float]]:
    """The history without times."""
    return [
        {name: value for name, value in dataclasses.asdict(one).items() if "second" not in name}
        for one in model.history
    ]


def same(a: list[Any], b: list[Any]) -> bool:
    return len(a) == len(b) and all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def fitted(name: str) -> Any:
    """A model trained once for all tests, which they do not change."""
    if name not in FITTED:
        FITTED[name] = fit(name, make(name))
    return FITTED[name]


def test_every_model_is_here() -> None:
    kinds = [kind for kind in base.Learner.registry.values() if issubclass(kind, TrainedModel | FineTuned)]
    assert {kind.__name__ for kind in kinds if not kind.__name__.startswith("_")} - {
        TrainedModel.__name__,
        ContextualModel.__name__,
        FineTuned.__name__,
    } == set(MODELS)


# ---- options


def test_options_are_keywords_fixed_and_checked(name: str) -> None:
    model = make(name)
    with pytest.raises(TypeError):
        type(model)(2)
    with pytest.raises(TypeError):
        make(name, no_such_option=1)
    for field in dataclasses.fields(model):
        with pytest.raises(dataclasses.FrozenInstanceError, match=field.name):
            setattr(model, field.name, getattr(model, field.name))
        with pytest.raises(TypeError, match=field.name):
            make(name, **{field.name: object()})
        for limit, step in (("low", -1), ("above", 0), ("high", 1)):
            bound = field.metadata.get(limit)
            if bound is not None:
                beyond = type(field.default or 1)(bound * (1 + step * 1e-6) + step)
                with pytest.raises(ValueError, match=field.name):
                    make(name, **{field.name: beyond})


def test_options_take_numpy_numbers_and_refuse_booleans_and_nan(name: str) -> None:
    model = make(name)
    for option, declared in typing.get_type_hints(type(model)).items():
        kind = not_none(declared)
        if option not in model.get_params() or kind not in (int, float):
            continue
        value = getattr(model, option)
        if value is not None:
            kept = getattr(make(name, **{option: np.float64(value) if kind is float else np.int64(value)}), option)
            assert (type(kept), kept) == (kind, value)
        with pytest.raises(TypeError, match=option):
            make(name, **{option: True})
        if kind is float:
            with pytest.raises(ValueError, match=option):
                make(name, **{option: float("nan")})


def test_replace_makes_a_model_that_is_not_fitted(name: str, fitted: Any) -> None:
    other = dataclasses.replace(fitted, seed=fitted.seed + 1)
    assert (other.seed, other.history) == (fitted.seed + 1, [])
    with pytest.raises(AttributeError, match="fit"):
        module(other)


# ---- fit


def test_fit_returns_self_and_is_quiet(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    model = make(name)
    assert fit(name, model) is model
    assert capfd.readouterr() == ("", "")
    assert len(model.history) == 3
    assert all(np.isfinite(one.loss) and one.seconds > 0 for one in model.history)
    assert all(np.isfinite(one).all() for one in outputs(name, model, sentences(3)) if one.dtype.kind == "f")
    assert not trained(model).training


def test_before_fit_there_is_nothing(name: str, tmp_path: Path) -> None:
    model = make(name)
    for use in (lambda: outputs(name, model, ["a"]), lambda: module(model), lambda: model.save(tmp_path / "new")):
        with pytest.raises(AttributeError, match="fit"):
            use()
    assert not list(tmp_path.iterdir())
    assert re.fullmatch(rf"<{type(model).__name__}\(.+\): not fitted>", repr(model))


def test_a_fitted_model_shows_its_size(name: str, fitted: Any) -> None:
    assert re.fullmatch(rf"<{type(fitted).__name__}\(.+\): [\d,]+ \w+.*>", repr(fitted))


def test_the_seed_decides_and_nothing_else(name: str, fitted: Any) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(2)
    torch.manual_seed(5)
    again = fit(name, make(name))
    assert torch.equal(torch.rand(2), wanted)  # the caller's generator goes on as if nothing had happened
    assert state(again) == state(fitted)
    assert noted(again) == noted(fitted)
    other = fit(name, make(name, seed=fitted.seed + 1))
    assert state(other) != state(fitted)


def test_fit_again_starts_again(name: str, fitted: Any) -> None:
    model = fit(name, make(name), sentences(seed=5))
    assert state(model) != state(fitted)
    fit(name, model)
    assert state(model) == state(fitted)
    assert noted(model) == noted(fitted)


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (3, TypeError),
        (None, TypeError),
        ([], ValueError),
        ([3] * 9, TypeError),
        (["a", None], TypeError),
        ([["a"], ["b", 3]], TypeError),
        ({"text": ["a b", "b c"]}, TypeError),
        (b"a b", TypeError),
    ],
)
def test_bad_input_changes_nothing(name: str, fitted: Any, wrong: Any, kind: type[Exception]) -> None:
    before, history, options = state(fitted), list(fitted.history), dict(fitted.get_params())
    given = (wrong, [["x", "y"][i % 2] for i in range(9)]) if name in CLASSIFIERS else (wrong,)
    with pytest.raises((TypeError, ValueError) if name in CLASSIFIERS else kind):
        fitted.fit(*given)
    for callbacks in (5, print, [5]):
        with pytest.raises(TypeError, match="callbacks"):
            fit(name, fitted, callbacks=callbacks)
    assert state(fitted) == before
    assert fitted.history == history
    assert fitted.get_params() == options


def test_callbacks_see_the_model_and_may_end_the_training(name: str, fitted: Any) -> None:
    seen = []

    def look(model: Any) -> bool:
        outputs(name, model, ["the bank"])
        seen.append((len(model.history), state(model)))
        return len(model.history) == 2

    model = fit(name, make(name), callbacks=[look, lambda _: None])
    assert [n for n, _ in seen] == [1, 2]
    assert seen[0][1] != seen[1][1] == state(model)
    assert noted(model) == noted(fitted)[:2]  # looking has changed nothing


def test_ctrl_c_leaves_a_model_that_can_be_used(name: str, tmp_path: Path) -> None:
    def press(model: Any) -> None:
        raise KeyboardInterrupt

    model = make(name)
    with pytest.raises(KeyboardInterrupt):
        fit(name, model, callbacks=[press])
    assert len(model.history) == 1
    assert not trained(model).training
    shown = outputs(name, model, ["the bank"])
    model.save(tmp_path / "model")
    assert same(outputs(name, firth.load(tmp_path / "model"), ["the bank"]), shown)
    fit(name, model)
    assert len(model.history) == 3


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_resumed_training_is_an_uninterrupted_one(name: str, tmp_path: Path) -> None:
    folder, options = tmp_path / "state", {"dropout": 0.2}
    whole = fit(name, make(name, **options))
    ended = fit(name, make(name, **options), checkpoint=folder, callbacks=[lambda model: model.history[-1].step == 4])
    assert state(ended) != state(whole)
    for _ in range(2):  # a finished training resumes to its end
        resumed = fit(name, make(name, **options), checkpoint=folder, resume=True)
        assert state(resumed) == state(whole)
        assert noted(resumed) == noted(whole)
    before = state(resumed)
    for wrong, said in (
        (lambda: fit(name, resumed, checkpoint=folder), "resume=True"),
        (lambda: fit(name, resumed, resume=True), "checkpoint="),
        (
            lambda: fit(name, resumed, sentences(29), checkpoint=folder, resume=True),
            "the data differ|vocabulary",
        ),
    ):
        with pytest.raises(ValueError, match=said):
            wrong()
    with pytest.raises(ValueError, match="seed was 1, is 2"):
        fit(name, make(name, **options, seed=2), checkpoint=folder, resume=True)
    assert state(resumed) == before


def test_the_bar_has_the_class_s_name(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    fit(name, make(name), progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert f"{name}: 100%" in err
    assert "nan" not in err


# ---- files and copies


def test_a_saved_folder_is_the_model(name: str, fitted: Any, tmp_path: Path) -> None:
    given = [*sentences(5, seed=3), "bank"]
    wanted = outputs(name, fitted, given)
    for _ in range(2):  # and over itself
        fitted.save(tmp_path / "model")
        for read in (type(fitted).load, firth.load):
            again = read(tmp_path / "model")
            assert type(again) is type(fitted)
            assert same(outputs(name, again, given), wanted)
            # The folder of a BERT's classifier has the head's first layer as the transformer's pooler, too.
            own = {name: value for name, value in state(again).items() if not name.startswith("0.pooler.")}
            assert own == state(fitted)
            assert again.history == fitted.history
            kept = set(fitted.get_params()) - {"tokenizer", "encoder", "mlp_dim"}
            assert {key: again.get_params()[key] for key in kept} == {key: fitted.get_params()[key] for key in kept}


def test_nan_is_never_saved(name: str, fitted: Any, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    broken = copy.deepcopy(fitted)
    with torch.no_grad():
        list(module(broken).parameters())[-1].view(-1)[0] = torch.nan
    with pytest.raises(ValueError, match=r"cannot save this \w+: .*not finite"):
        broken.save(tmp_path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", RESUMABLE)
def test_a_training_that_diverges_leaves_finite_weights(name: str, tmp_path: Path) -> None:
    def poison(model: Any) -> None:
        if len(model.history) == 2:
            with torch.no_grad():
                next(trained(model).parameters()).fill_(torch.nan)

    model = make(name)
    with pytest.raises(FloatingPointError, match="step 5"):
        fit(name, model, checkpoint=tmp_path / "state", callbacks=[poison])
    assert all(bool(one.isfinite().all()) for one in module(model).state_dict().values())
    tensors, _ = files.read_tensors(tmp_path / "state" / run.CHECKPOINT)
    assert all(np.isfinite(one).all() for one in tensors.values() if one.dtype.kind == "f")
    model.save(tmp_path / "model")
    assert state(firth.load(tmp_path / "model")) == state(model)


def test_copies(name: str, fitted: Any) -> None:
    given = sentences(3, seed=4)
    wanted = outputs(name, fitted, given)
    before = state(fitted)
    for again in (pickle.loads(pickle.dumps(fitted)), copy.deepcopy(fitted), copy.copy(fitted)):
        assert same(outputs(name, again, given), wanted)
        assert again.history == fitted.history
        fit(name, again, sentences(seed=6))  # by itself
        assert state(fitted) == before
    assert pickle.loads(pickle.dumps(make(name))).history == []


# ---- use


def test_what_else_is_in_a_batch_does_not_matter(name: str, fitted: Any) -> None:
    given = [*sentences(12, seed=7), "bank", "mud " * 9]
    wanted = outputs(name, fitted, given)
    assert same(outputs(name, fitted, given), wanted)
    order = random.Random(1).sample(range(len(given)), len(given))
    shuffled = outputs(name, fitted, [given[i] for i in order])
    alone = [outputs(name, fitted, [text])[0] for text in given]
    for i, one in enumerate(order):
        for other in (shuffled[i], alone[one]):
            if other.dtype.kind == "f":
                np.testing.assert_allclose(other, wanted[one], atol=1e-5)
            else:
                assert other.tolist() == wanted[one].tolist()
    assert len(outputs(name, fitted, [])) == 0


def test_texts_of_any_length(name: str, fitted: Any) -> None:
    found = outputs(name, fitted, ["", "bank", "unseen"])
    assert len(found) == 3
    long = "the bank " * 200
    if name == "ELMo":
        assert outputs(name, fitted, [long])[0].shape == (400, 6)
        return
    with pytest.raises(ValueError, match=r"\[1\] has 402 tokens.*truncate=12|\[1\] has 400 tokens.*truncate=12"):
        outputs(name, fitted, ["bank", long])
    if name in CLASSIFIERS:
        cut = fit(name, make(name, truncate=12), [*sentences(), long])
        assert len(outputs(name, cut, [long])[0]) == (2 if name == "SentenceClassifier" else 400)
    else:
        assert fitted.encode([long], truncate=12)[0].shape == (12, 8)


@pytest.mark.parametrize("name", ENCODERS)
def test_texts_of_any_length_are_learnt_from(name: str) -> None:
    model = fit(name, make(name), ["", "bank", "the bank " * 500, "the"])
    assert all(np.isfinite(one.loss) for one in model.history)


def kinds_of_text() -> Iterator[tuple[str, Any]]:
    draw = random.Random(3)
    for name, alphabet in {
        "letters": "abcdefgh",
        "han": "漢字日本語銀行",
        "emoji": "😀☕🙂🎉",
        "punctuation": "!?.,;-",
        "digits": "0123456789",
        "control": "\x00\x01\x02",
        "surrogates": "\ud800\udfff",
        "combining": "e\u0301\u0308",
        "hebrew": "שלום עולם",
        "blanks": " \t\n\u3000",
    }.items():
        yield name, ["".join(draw.choices(alphabet, k=12)) for _ in range(30)]
    yield "words", sentences()
    yield "one word each", [draw.choice(WORDS) for _ in range(30)]
    yield "all the same", ["the bank of the river"] * 30
    yield "all different", [f"w{i}a x{i}b" for i in range(30)]
    yield "lists of words", [text.split() for text in sentences()]
    yield "one of thirty", [""] * 29 + ["the bank of the river"]
    yield "empty", [""] * 30
    yield "lists of nothing", [["", ""]] * 30


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GPT", {"tokenizer": "wordlevel"}),
        ("GPT", {"tokenizer": "bpe", "vocabulary_size": 300}),
        ("BERT", {"tokenizer": "wordlevel"}),
        ("BERT", {"tokenizer": "wordpiece", "vocabulary_size": 300}),
        ("ELMo", {}),
    ],
)
def test_thirty_sentences_of_any_kind(name: str, options: dict[str, Any]) -> None:
    """A finite loss that falls, or an error that says what to set."""
    steps = 20 if name == "BERT" else 12  # chance chooses what is masked: the loss falls less evenly
    options = {"steps": steps, "evaluate_every": steps // 2, "learning_rate": 3e-2, "min_count": 2, **options}
    trained, refused = 0, {}
    for what, texts in kinds_of_text():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*lone surrogate")
            try:
                model = make(name, **options).fit(texts)
            except ValueError as error:
                refused[what] = str(error)
                continue
            states = model.encode([text[:4] for text in texts[:2]])
        trained += 1
        first, last = model.history
        assert np.isfinite([first.loss, last.loss]).all(), what
        assert last.loss < first.loss, what
        assert all(np.isfinite(one).all() for one in states), what
        assert np.isfinite(model.vectors.matrix).all(), what
    assert trained >= 6
    assert all(re.search("no text|no word|min_count", said) for said in refused.values()), refused
    assert "empty" in refused


@pytest.mark.parametrize("name", ENCODERS)
def test_warnings_name_the_caller_s_line(name: str, tmp_path: Path) -> None:
    few = rf"make 1 step of training, too few for {name} .*more epochs than 1, .*batch_size than 32"
    with pytest.warns(UserWarning, match=few) as warned:
        make(name, steps=None, epochs=1.0, batch_size=32).fit(sentences())
    assert [one.filename for one in warned] == [__file__]
    fit(name, make(name)).save(tmp_path)
    with pytest.warns(UserWarning, match="starts from random weights") as warned:
        firth.load(tmp_path).fit(sentences())
    assert [one.filename for one in warned] == [__file__]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classifiers_of_a_few_texts_say_what_to_set(name: str) -> None:
    few = "make 2 steps of training, too few for a head .*more epochs than 2, .*batch_size than 32, or head_only=True"
    with pytest.warns(UserWarning, match=few) as warned:
        make(name, epochs=2, batch_size=32).fit(*labeled(name, sentences()))
    assert [one.filename for one in warned] == [__file__]
    make(name, head_only=True).fit(*labeled(name, sentences()))


# ---- folders and arguments that are not what they should be


def test_a_folder_of_a_checkpoint_alone_says_how_to_continue(name: str, tmp_path: Path) -> None:
    fit(name, make(name), checkpoint=tmp_path)
    for read in (type(make(name)).load, firth.load):
        with pytest.raises(
            FileNotFoundError, match=r"holds no config\.json: it holds the state of a training, .*resume"
        ):
            read(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty holds no config\.json$"):
        type(make(name)).load(tmp_path / "empty")


@pytest.mark.parametrize("kind", [SentenceClassifier, TokenClassifier])
def test_an_elmo_is_not_offered_as_an_encoder(kind: Any, tmp_path: Path) -> None:
    fit("ELMo", make("ELMo")).save(tmp_path)
    with pytest.raises(ValueError, match=r"holds an ELMo: ELMo\.load reads it, and a .* takes a BERT or a GPT"):
        kind.load(tmp_path)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_layer_by_an_unknown_name(name: str, fitted: Any) -> None:
    strings = "'mixture' or 'all'" if name == "ELMo" else "'all'"
    for layer in ("last", [0, "last"]):
        with pytest.raises(TypeError, match=rf"layer must be a whole number, a list of them, or {strings}, not "):
            fitted.encode(["the bank"], layer=layer)


def test_one_sentence_for_a_tagger() -> None:
    with pytest.raises(TypeError, match=r"give a list of texts: \[text\], each a list of words$"):
        fit("TokenClassifier", make("TokenClassifier")).predict("the bank")
