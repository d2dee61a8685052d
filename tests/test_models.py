"""The contract that every model keeps; a new model joins MODELS and is tested."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import typing
from typing import Literal

import numpy as np
import pytest

import firth
from firth import files, run
from firth.models import base
from firth.options import checked, choices, not_none

# Small, quick makers of each model.
MODELS = {
    "FastText": lambda **options: firth.FastText(
        **{"vector_size": 8, "epochs": 3, "threads": 1, "bucket": 10_000, **options}
    ),
    "GloVe": lambda **options: firth.GloVe(**{"vector_size": 8, "epochs": 3, "threads": 1, **options}),
    "LSA": lambda **options: firth.LSA(**{"vector_size": 8, "threads": 1, **options}),
    "OneHot": firth.OneHot,
    "PPMI": lambda **options: firth.PPMI(**{"vector_size": 8, "threads": 1, **options}),
    "RandomVectors": lambda **options: firth.RandomVectors(**{"vector_size": 8, "threads": 1, **options}),
    "Word2Vec": lambda **options: firth.Word2Vec(**{"vector_size": 8, "epochs": 3, "threads": 1, **options}),
}
RACING = ("FastText", "Word2Vec")  # those whose threads race on purpose: their bytes depend on the number of threads
GRADIENT = [name for name, make in MODELS.items() if isinstance(make(), base.GradientModel)]
COUNTING = [name for name, make in MODELS.items() if firth.Cooccurrences in make().learns_from]


def having(*fields):
    """The models that have these options."""
    return [name for name, make in MODELS.items() if make().get_params().keys() >= set(fields)]


def documents(n=300, n_words=40):
    rng = np.random.default_rng(11)
    words = np.array([f"w{i}" for i in range(n_words)])
    return [rng.choice(words, rng.integers(1, 30)).tolist() for _ in range(n)]


@pytest.fixture(scope="module")
def corpus():
    return firth.Corpus.from_iterable(documents(), min_count=1)


@pytest.fixture(scope="module")
def many_words():
    """More words than what is small enough to be done at once, some of them far more frequent than others."""
    words = np.random.default_rng(3).zipf(1.3, (400, 30)) % 900
    return firth.Corpus.from_iterable([[f"w{i}" for i in line] for line in words], min_count=1)


@pytest.fixture(params=MODELS)
def make(request):
    return MODELS[request.param]


@pytest.fixture(params=having("vector_size"))
def make_sized(request):
    return MODELS[request.param]


@pytest.fixture(params=having("seed"))
def make_seeded(request):
    return MODELS[request.param]


@pytest.fixture(params=COUNTING)
def make_counting(request):
    return MODELS[request.param]


@pytest.fixture(params=GRADIENT)
def make_gradient(request):
    return MODELS[request.param]


def declared(model):
    """Each option's name and type, without the None that it may take."""
    return {
        name: not_none(kind) for name, kind in typing.get_type_hints(type(model)).items() if name in model.get_params()
    }


def same(a, b):
    return a._tensors.keys() == b._tensors.keys() and all(
        a._tensors[name].tobytes() == b._tensors[name].tobytes() for name in a._tensors
    )


def test_every_model_is_here():
    concrete = {
        name
        for name, kind in base.Model.registry.items()
        if issubclass(kind, base.Model) and not kind.__abstractmethods__
    }
    assert concrete == set(MODELS)


@pytest.mark.parametrize(
    ("value", "kind", "kept"),
    [
        (3, int, 3),
        (np.int32(3), int | None, 3),
        (None, int | None, None),
        (3, float, 3.0),
        (True, bool, True),
        ("a", str, "a"),
        (np.str_("b"), Literal["a", "b"], "b"),
        (None, Literal["a", "b"] | None, None),
        ("a", Literal["a", "b"] | None, "a"),
    ],
)
def test_a_value_of_the_declared_type_is_kept(value, kind, kept):
    found = checked("x", value, kind)
    assert (type(found), found) == (type(kept), kept)


@pytest.mark.parametrize(
    ("value", "kind", "error", "said"),
    [
        (3.0, int, TypeError, "x must be int, not float"),
        (True, int | None, TypeError, "x must be int, not bool"),
        (None, int, TypeError, "x must be int, not NoneType"),
        (1, bool, TypeError, "x must be bool, not int"),
        (1, str, TypeError, "x must be str, not int"),
        ("d", Literal["a", "b", "c"], ValueError, "x must be 'a', 'b' or 'c', not 'd'"),
        ("", Literal["a", "b"] | None, ValueError, "x must be 'a' or 'b', not ''"),
        (1, Literal["a", "b"], TypeError, "x must be str, not int"),
        (None, Literal["a", "b"], TypeError, "x must be str, not NoneType"),
    ],
)
def test_a_value_of_another_type_is_refused(value, kind, error, said):
    with pytest.raises(error) as raised:
        checked("x", value, kind)
    assert str(raised.value) == said


def test_options_are_keywords_fixed_and_checked(make):
    model = make()
    kind = type(model)
    with pytest.raises(TypeError):
        kind(100)
    with pytest.raises(TypeError):
        kind(no_such_option=1)
    for field in dataclasses.fields(model):
        with pytest.raises(dataclasses.FrozenInstanceError, match=field.name):
            setattr(model, field.name, getattr(model, field.name))
        with pytest.raises(TypeError, match=field.name):
            make(**{field.name: object()})
        for limit, step in (("low", -1), ("above", 0), ("high", 1)):
            if field.metadata.get(limit) is not None:
                with pytest.raises(ValueError, match=field.name):
                    make(**{field.name: type(field.default or 1)(field.metadata[limit] * (1 + step * 1e-6) + step)})


def test_replace_makes_another_model(make_sized):
    model = make_sized()
    other = dataclasses.replace(model, vector_size=9)
    assert other.vector_size == 9
    assert model.vector_size == 8


def test_options_take_numpy_numbers_and_refuse_booleans_and_nan(make):
    for name, kind in declared(make()).items():
        if kind is int:
            assert type(getattr(make(**{name: np.int64(5)}), name)) is int
        if kind in (int, float):
            with pytest.raises(TypeError, match=name):
                make(**{name: True})
        if kind is float:
            with pytest.raises(ValueError, match=name):
                make(**{name: float("nan")})


def test_options_that_are_choices_say_which_there_are(make):
    for name, kind in declared(make()).items():
        assert kind in (int, float, bool) or choices(kind), f"{name}: declare its choices, as a typing.Literal"
        for choice in choices(kind):
            assert make(**{name: choice}).get_params()[name] == choice
        if choices(kind):
            with pytest.raises(ValueError, match=f"{name}.* must be '{choices(kind)[0]}'.*, not 'nonesuch'"):
                make(**{name: "nonesuch"})


def test_fit_returns_self_and_is_quiet(make, corpus, capfd):
    model = make()
    assert model.fit(corpus) is model
    assert model.vectors.words == corpus.vocabulary.words
    words = len(corpus.vocabulary)
    assert model.vectors.matrix.shape == (words, model.get_params().get("vector_size", words))
    assert model.vectors.matrix.dtype == np.float32
    assert np.isfinite(model.vectors.matrix).all()
    assert np.shares_memory(model.vectors.matrix, model._tensors["vectors"])
    assert capfd.readouterr() == ("", "")


def test_before_fit_there_are_no_vectors(make, tmp_path):
    model = make()
    with pytest.raises(AttributeError, match="fit"):
        _ = model.vectors
    with pytest.raises(AttributeError, match="fit"):
        model.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (None, TypeError, r"firth\.Corpus"),
        (3, TypeError, r"firth\.Corpus"),
        ([1, 2], TypeError, r"\[0\]"),
        ("no such file", FileNotFoundError, "no such file"),
    ],
)
def test_fit_refuses_other_data_and_changes_nothing(make, wrong, error, said, corpus):
    model = make()
    with pytest.raises(error, match=said):
        model.fit(wrong)
    assert "vectors" not in model._tensors
    before = model.fit(corpus).vectors
    with pytest.raises(error):
        model.fit(wrong)
    assert model.vectors is before


def test_fit_takes_files_and_texts(make, corpus, tmp_path):
    texts = [" ".join(document) for document in documents()]
    (tmp_path / "text").write_text("\n".join(texts))
    expected = make().fit(firth.Corpus.from_file(tmp_path / "text"))
    for data in (tmp_path / "text", str(tmp_path / "text"), texts, documents(), iter(texts)):
        assert same(make().fit(data), expected)


def test_fit_asks_for_what_it_learns_from(make, corpus):
    assert firth.Corpus in make().learns_from
    if firth.Cooccurrences not in make().learns_from:
        with pytest.raises(TypeError, match="not on Cooccurrences"):
            make().fit(firth.count_cooccurrences(corpus))


def test_no_token(make):
    vocabulary = firth.Vocabulary(["elsewhere"])
    with pytest.raises(ValueError, match="no token"):
        make().fit(firth.Corpus.from_iterable([["here"]], vocabulary=vocabulary))


def test_no_pair(make_counting):
    counts = firth.count_cooccurrences(firth.Corpus.from_iterable([["alone"], ["alone"]], min_count=1))
    with pytest.raises(ValueError, match="no pair"):
        make_counting().fit(counts)


def test_same_seed_same_bytes(make_seeded, many_words):
    assert same(make_seeded(seed=4).fit(many_words), make_seeded(seed=4).fit(many_words))
    assert not same(make_seeded(seed=4).fit(many_words), make_seeded(seed=5).fit(many_words))


@pytest.mark.parametrize("name", having("threads"))
def test_same_bytes_at_any_number_of_threads(name, many_words):
    options = {"deterministic": True} if name in RACING else {}
    one = MODELS[name](threads=1, **options).fit(many_words)
    for threads in (2, 3):
        many = MODELS[name](threads=threads, **options).fit(many_words)
        assert same(one, many)
        assert [epoch.loss for epoch in many.history] == [epoch.loss for epoch in one.history]


def test_counts_teach_what_their_corpus_does(make_counting, corpus):
    """A model counts with its own options; counts that somebody else made with the same ones are the same data."""
    kinds = declared(make_counting())
    others = [{}] + [{"window": 3}] * ("window" in kinds)
    others += [{name: choice} for name in ("side", "weighting") for choice in choices(kinds.get(name))]
    for options in others:
        model = make_counting(**options).fit(corpus)
        how = {name: model.get_params()[name] for name in ("window", "side", "weighting") if name in kinds}
        counts = firth.count_cooccurrences(corpus, **how)
        from_counts = make_counting(**options).fit(counts)
        assert same(model, from_counts), options
        assert from_counts.vectors.words == corpus.vocabulary.words


def test_fit_again_starts_again(make, corpus):
    model = make().fit(corpus)
    assert same(model.fit(corpus), make().fit(corpus))
    assert len(model.history) == model.get_params().get("epochs", 0)
    other = firth.Corpus.from_iterable([[f"x{word}" for word in document] for document in documents(90)], min_count=1)
    held = model.vectors
    assert model.fit(other).vectors.words == other.vocabulary.words
    assert held.words == corpus.vocabulary.words


def test_a_bar_may_be_asked_for(make, corpus, capfd):
    assert same(make().fit(corpus, progress=True), make().fit(corpus))
    assert capfd.readouterr().out == ""


def test_save_and_load(make, corpus, tmp_path):
    model = make().fit(corpus)
    path = tmp_path / "a.model"
    model.save(path)
    loaded = firth.load(path)
    assert type(loaded) is type(model)
    assert loaded.get_params() == model.get_params()
    assert loaded.history == model.history
    assert loaded.vectors.words == model.vectors.words
    assert same(loaded, model)
    assert firth.load_vectors(path).matrix.tobytes() == model.vectors.matrix.tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a.model"]


def test_load_refuses_other_files(make, corpus, tmp_path):
    (tmp_path / "text").write_text("no model\n" * 9)
    with pytest.raises(ValueError, match="text"):
        firth.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        firth.load(tmp_path / "missing")
    make().fit(corpus).save(tmp_path / "m")
    tensors, metadata = files.read_tensors(tmp_path / "m")
    files.write_tensors(tmp_path / "m", tensors, {**metadata, "model": "Nonesuch"})
    with pytest.raises(ValueError, match="Nonesuch"):
        firth.load(tmp_path / "m")
    for options in ([1], None, {**metadata["options"], "vector_size": -1}, {**metadata["options"], "nonesuch": 1}):
        files.write_tensors(tmp_path / "m", tensors, {**metadata, "options": options})
        with pytest.raises(ValueError, match="m is a damaged model"):
            firth.load(tmp_path / "m")


# --- models trained in epochs -------------------------------------------------------------------------------------


def test_history(make_gradient, corpus):
    model = make_gradient(epochs=4).fit(corpus)
    assert [epoch.epoch for epoch in model.history] == [1, 2, 3, 4]
    assert all(epoch.units_per_second > 0 and epoch.seconds > 0 for epoch in model.history)
    assert model.history[-1].loss < model.history[0].loss


def test_progress_on_request(make_gradient, corpus, capfd):
    make_gradient().fit(corpus, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert type(make_gradient()).__name__ in err


def test_callbacks(make_gradient, corpus):
    seen = []

    def look(model):
        seen.append((len(model.history), model.vectors.matrix.copy()))
        return len(model.history) == 2

    model = make_gradient(epochs=5).fit(corpus, callbacks=[look, lambda _: None])
    assert [n for n, _ in seen] == [1, 2]
    assert not np.array_equal(seen[0][1], seen[1][1])
    assert len(model.history) == 2


def test_callbacks_never_see_stale_vectors(make_gradient, corpus):
    """What `vectors` caches of the matrix is dropped when training goes on."""
    answers = []
    make_gradient().fit(
        corpus, callbacks=[lambda model: answers.append(model.vectors.most_similar("w1", topn=3)) and 0]
    )
    assert answers[0] != answers[-1]


class Interruption:
    """A progress bar at which Ctrl-C is pressed after some updates."""

    def __init__(self, monkeypatch, after):
        outer = self
        self.left = after

        class Bar(run.tqdm):
            def update(self, n=1):
                super().update(n)
                outer.left -= 1
                if outer.left == 0:
                    raise KeyboardInterrupt

        monkeypatch.setattr(run, "tqdm", Bar)


def many_units():
    """Tokens, and pairs of words, for several stretches of training in an epoch."""
    return firth.Corpus.from_iterable(documents(12_000, 700), min_count=1)


@pytest.fixture(scope="module")
def long_corpus():
    return many_units()


@pytest.mark.parametrize("after", [1, 2, 4])
def test_interrupted_and_resumed_equals_uninterrupted(make_gradient, long_corpus, tmp_path, monkeypatch, after):
    whole = make_gradient().fit(long_corpus)
    Interruption(monkeypatch, after)
    model = make_gradient()
    with pytest.raises(KeyboardInterrupt):
        model.fit(long_corpus, checkpoint=tmp_path / "state")
    assert np.isfinite(model.vectors.matrix).all()
    assert len(model.vectors.most_similar("w1", topn=3)) == 3
    assert not same(model, whole)

    resumed = make_gradient().fit(long_corpus, checkpoint=tmp_path / "state", resume=True)
    assert same(resumed, whole)
    assert [epoch.loss for epoch in resumed.history] == [epoch.loss for epoch in whole.history]
    again = make_gradient().fit(long_corpus, checkpoint=tmp_path / "state", resume=True)
    assert same(again, whole), "a finished training resumes to its end"
    assert again.history == resumed.history


@pytest.mark.skipif(sys.platform == "win32", reason="raises a POSIX signal")
@pytest.mark.parametrize("own", [False, True])
def test_ctrl_c_in_the_kernel(make_gradient, long_corpus, tmp_path, monkeypatch, own):
    """A signal that comes while a stretch is trained does not come between it and the note that it was trained."""

    def raise_it(*_):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    handler = raise_it if own else signal.default_int_handler
    signal.signal(signal.SIGINT, handler)
    whole = make_gradient().fit(long_corpus)
    begin = type(make_gradient())._begin

    def begin_and_press(model, *arguments, **options):
        units, train = begin(model, *arguments, **options)

        def pressed(*stretch):
            tally = train(*stretch)
            if stretch[0] > 0:
                signal.raise_signal(signal.SIGINT)
            return tally

        return units, pressed

    with monkeypatch.context() as patch:
        patch.setattr(type(make_gradient()), "_begin", begin_and_press)
        with pytest.raises(KeyboardInterrupt):
            make_gradient().fit(long_corpus, checkpoint=tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    signal.signal(signal.SIGINT, before)
    assert same(make_gradient().fit(long_corpus, checkpoint=tmp_path, resume=True), whole)


@pytest.mark.skipif(sys.platform == "win32", reason="raises a POSIX signal")
def test_ctrl_c_between_two_epochs(make_gradient, corpus, tmp_path, monkeypatch):
    """The epoch is counted and the position set back together: nothing is skipped after resuming."""
    whole = make_gradient().fit(corpus)

    def append(history, record):
        list.append(history, record)
        if len(history) == 2:
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    model = make_gradient()
    with monkeypatch.context() as patch:
        patch.setattr(run.History, "append", append)
        with pytest.raises(KeyboardInterrupt):
            model.fit(corpus, checkpoint=tmp_path)
    signal.signal(signal.SIGINT, before)
    resumed = make_gradient().fit(corpus, checkpoint=tmp_path, resume=True)
    assert [epoch.epoch for epoch in resumed.history] == [1, 2, 3]
    assert same(resumed, whole)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import firth, test_models
from firth import run
run._CHECKPOINT_SECONDS = 0
test_models.MODELS[{name!r}](epochs=2000).fit(test_models.many_units(), checkpoint={folder!r}, resume=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
@pytest.mark.parametrize("name", GRADIENT)
def test_killed_and_resumed(name, long_corpus, tmp_path, monkeypatch):
    folder = tmp_path / "state"
    script = SCRIPT.format(tests=os.path.dirname(__file__), name=name, folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", script])
    path = folder / "checkpoint.safetensors"
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, metadata = files.read_tensors(path)  # whole, at whatever moment the process died
    epochs = metadata["progress"][0] + 2
    stop = [lambda model: len(model.history) >= epochs]
    resumed = MODELS[name](epochs=2000).fit(long_corpus, checkpoint=folder, resume=True, callbacks=stop)
    assert same(resumed, MODELS[name](epochs=2000).fit(long_corpus, callbacks=stop))


@pytest.mark.skipif(sys.platform == "win32", reason="ends with a POSIX signal")
def test_sigterm_writes_the_checkpoint(long_corpus, tmp_path):
    """Schedulers of clusters send it before they kill: training resumes where it was, in the midst of an epoch."""
    script = SCRIPT.format(tests=os.path.dirname(__file__), name="Word2Vec", folder=str(tmp_path))
    script = script.replace("_SECONDS = 0", "_SECONDS = 1e9")  # no other checkpoint within an epoch
    process = subprocess.Popen([sys.executable, "-c", script])
    path = tmp_path / run.CHECKPOINT
    deadline = time.monotonic() + 60
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    epochs = files.read_tensors(path)[1]["progress"][0] + 1
    stop = [lambda model: len(model.history) >= epochs]
    resumed = MODELS["Word2Vec"](epochs=2000).fit(long_corpus, checkpoint=tmp_path, resume=True, callbacks=stop)
    assert same(resumed, MODELS["Word2Vec"](epochs=2000).fit(long_corpus, callbacks=stop))


@pytest.mark.skipif(sys.platform == "win32", reason="raises a POSIX signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_that_returns_lets_training_continue(number, make_gradient, corpus, monkeypatch):
    """Such as one that sets a flag for a callback."""
    received = []
    begin = type(make_gradient())._begin

    def begin_and_raise(model, *arguments, **options):
        units, train = begin(model, *arguments, **options)

        def raising(first, end, epoch):
            if (first, epoch) == (0, 1):
                signal.raise_signal(number)
            return train(first, end, epoch)

        return units, raising

    monkeypatch.setattr(type(make_gradient()), "_begin", begin_and_raise)
    before = signal.signal(number, lambda *_: received.append(number))
    try:
        model = make_gradient().fit(corpus)
    finally:
        signal.signal(number, before)
    assert received == [number]
    assert len(model.history) == 3


def test_callbacks_see_copies(make_gradient, corpus):
    held = []
    model = make_gradient().fit(corpus, callbacks=[lambda model: held.append(model.vectors)])
    assert [np.array_equal(held[0].matrix, v.matrix) for v in held] == [True, False, False]
    assert held[0].similarity("w1", "w2") == pytest.approx(dict(held[0].most_similar("w1", topn=39))["w2"], abs=1e-5)
    np.testing.assert_array_equal(held[-1].matrix, model.vectors.matrix)


@pytest.mark.parametrize("wrong", [5, [5]])
def test_wrong_callbacks_change_nothing(make_gradient, corpus, wrong):
    model = make_gradient().fit(corpus)
    before = model.vectors.matrix.copy()
    with pytest.raises(TypeError):
        model.fit(corpus, callbacks=wrong)
    np.testing.assert_array_equal(model.vectors.matrix, before)
    assert len(model.history) == 3


@pytest.mark.parametrize("name", [name for name in GRADIENT if name not in COUNTING])
def test_an_epoch_without_an_example_says_why_and_changes_nothing(name, corpus):
    alone = firth.Corpus.from_iterable([["alone"], ["alone"]], min_count=1)
    model = MODELS[name]()
    with pytest.raises(ValueError, match="epoch 1 had no example to learn from: every document has a single token"):
        model.fit(alone)
    assert not model._tensors
    assert not hasattr(model, "_bags") or model._bags is None
    before = model.fit(corpus).vectors
    history = model.history
    with pytest.raises(ValueError, match="no example"):
        model.fit(alone)
    assert model.vectors is before
    assert model.history is history
    assert len(history) == 3


class Elsewhere:
    """Fits a model once more, in another thread, while the first call is under way."""

    def __init__(self, model, data):
        self.model, self.data, self.error = model, data, None

    def __call__(self, *_):
        def fit():
            try:
                self.model.fit(*self.data)
            except BaseException as error:
                self.error = error

        if self.error is None:
            thread = threading.Thread(target=fit)
            thread.start()
            thread.join()


def test_a_second_fit_of_a_model_is_refused(make, corpus, monkeypatch):
    model = make()
    other = Elsewhere(model, [corpus])
    checked = type(model)._training_data

    def checked_and_elsewhere(self, data, *, progress):
        other()
        return checked(self, data, progress=progress)

    monkeypatch.setattr(type(model), "_training_data", checked_and_elsewhere)
    model.fit(corpus)
    assert isinstance(other.error, RuntimeError)
    assert "is being fitted already" in str(other.error)
    monkeypatch.undo()
    assert same(model, make().fit(corpus))
    assert same(model.fit(corpus), make().fit(corpus))


def test_a_callback_cannot_fit_the_model_again(make_gradient, corpus):
    with pytest.raises(RuntimeError, match="is being fitted already"):
        make_gradient().fit(corpus, callbacks=[lambda model: model.fit(corpus)])


def test_a_second_fit_of_a_classifier_is_refused():
    texts, labels = ["good film", "bad film"] * 5, ["p", "n"] * 5
    model = firth.FastTextClassifier(tokenizer=lambda text: other() or text.split(), vector_size=4, threads=1)
    other = Elsewhere(model, [texts, labels])
    model.fit(texts, labels)
    assert "is being fitted already" in str(other.error)
    assert len(model.history) == 5


def test_every_fit_refuses_a_second_one():
    pytest.importorskip("torch")
    import firth.contextual  # noqa: F401  whose models join the registry

    trainings = {
        f"{name}.{way}": getattr(kind, way)
        for name, kind in base.Learner.registry.items()
        for way in ("fit", "fit_mixture")
        if hasattr(kind, way) and not kind.__abstractmethods__
    }
    assert len(trainings) > 12
    alone = base.one_at_a_time(lambda model: None).__code__
    assert [name for name, fit in trainings.items() if fit.__code__ is not alone] == []


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {"deterministic": True, "threads": 2} if name in RACING else {"threads": 2}) for name in GRADIENT]
    + [(name, options) for name in RACING for options in ({}, {"architecture": "cbow"}, {"loss": "hs"})],
)
def test_no_cut_of_an_epoch_shows_in_the_history(name, options, long_corpus, monkeypatch):
    """Not in a single bit of the losses, wherever the same seed gives the same vectors."""
    histories = []
    for seconds in (0.0, 1e9):  # stretches of the least length; as long as the epoch, soon
        monkeypatch.setattr(run, "_CHUNK_SECONDS", seconds)
        histories.append([epoch.loss for epoch in MODELS[name](**options).fit(long_corpus).history])
    assert histories[0] == histories[1]


def test_sums_of_losses_are_exact():
    """Of numbers that a float64 sum would round."""
    parts = [2.0**40, 2.0**-30, -(2.0**40), 3.0]
    assert sum(map(run.loss_units, parts)) == 3 * run.LOSS_UNITS + 1


def damage_tensors(change):
    return lambda tensors, metadata: ({**tensors, "vectors": change(tensors["vectors"])}, metadata)


def damage_metadata(name, change):
    return lambda tensors, metadata: (tensors, {**metadata, name: change(metadata[name])})


def damage_record(**changed):
    return damage_metadata("history", lambda history: [history[0], {**history[1], **changed}])


NAN = float("nan")
DAMAGE = {  # of a checkpoint after two of three epochs, and what is said of it
    "one row": (damage_tensors(lambda v: v[:1]), r"vectors must be float32 of shape \(40, 8\), not .* \(1, 8\)"),
    "one column": (damage_tensors(lambda v: v[:, :1]), r"vectors must be float32 of shape \(40, 8\)"),
    "a vector": (damage_tensors(lambda v: v[0]), r"vectors must be float32 of shape \(40, 8\)"),
    "float64": (damage_tensors(lambda v: v.astype(np.float64)), "vectors must be float32 .*, not float64"),
    "NaN": (damage_tensors(lambda v: v * NAN), "vectors holds a number that is not finite"),
    "options in a list": (damage_metadata("identity", list), "options have no names"),
    "history of numbers": (damage_metadata("history", lambda _: [1, 2]), r"history\[0\] must have exactly the fields"),
    "history named": (damage_metadata("history", lambda _: {}), "the history must be a list, not dict"),
    "history too short": (damage_metadata("history", lambda history: history[:1]), "has 1 epochs and its progress 2"),
    "loss NaN": (damage_record(loss=NAN), r"loss in history\[1\] must be a finite number, not nan"),
    "loss a string": (damage_record(loss="3"), r"loss in history\[1\] must be float, not str"),
    "epoch twice": (damage_record(epoch=1), r"history\[1\] must be epoch 2, not 1"),
    "epoch a word": (damage_record(epoch="2"), r"epoch in history\[1\] must be float, not str"),
    "another field": (damage_record(more=1), "exactly the fields"),
    "progress short": (damage_metadata("progress", lambda p: p[:4]), "must be four whole numbers and the seconds"),
    "progress named": (damage_metadata("progress", lambda p: {}), "must be four whole numbers and the seconds"),
    "epoch beyond": (damage_metadata("progress", lambda p: [4, *p[1:]]), "not that of a training of 3 epochs"),
    "epoch below": (damage_metadata("progress", lambda p: [-1, *p[1:]]), "not that of a training of 3 epochs"),
    "position beyond": (damage_metadata("progress", lambda p: [2, 1 << 40, 5, 5, 0.1]), "not that of a training"),
    "position between": (damage_metadata("progress", lambda p: [2, 77, 5, 5, 0.1]), "not that of a training"),
    "position after the end": (damage_metadata("progress", lambda p: [3, 4096, 5, 5, 0.1]), "not that of a training"),
    "examples of nothing": (damage_metadata("progress", lambda p: [2, 0, 0, 5, 0.0]), "not that of a training"),
    "loss a float": (damage_metadata("progress", lambda p: [2, 0, 0.5, 0, 0.0]), "must be four whole numbers"),
    "seconds NaN": (damage_metadata("progress", lambda p: [*p[:4], NAN]), "not that of a training"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused(make_gradient, corpus, tmp_path, damage):
    change, said = DAMAGE[damage]
    path = tmp_path / run.CHECKPOINT
    make_gradient().fit(corpus, checkpoint=tmp_path, callbacks=[lambda model: len(model.history) == 2])
    assert files.read_tensors(path)[0]["vectors"].shape == (40, 8)
    files.write_tensors(path, *change(*files.read_tensors(path)))
    model = make_gradient()
    with pytest.raises(ValueError, match=said) as raised:
        model.fit(corpus, checkpoint=tmp_path, resume=True)
    assert str(raised.value).startswith(str(path))
    assert "Remove the file to start again" in str(raised.value)
    assert not model._tensors


def test_a_damaged_model_is_refused(make_sized, corpus, tmp_path):
    path = tmp_path / "model"
    make_sized().fit(corpus).save(path)
    tensors, metadata = files.read_tensors(path)
    assert len(firth.load(path).vectors) == 40
    changes = {name: lambda tensor: tensor[:1] for name in tensors.keys() - {"documents", *files.PACKED_WORDS}}
    for name, change in [*changes.items(), ("vectors", lambda v: v * NAN), ("vectors", lambda v: v.astype(np.float64))]:
        files.write_tensors(path, {**tensors, name: change(tensors[name])}, metadata)
        with pytest.raises(ValueError, match="model is a damaged model"):
            firth.load(path)
    for damaged in ({**tensors, "more": tensors["vectors"]}, {**tensors, **files.pack_words(["w1"] * 40)}):
        files.write_tensors(path, damaged, metadata)
        with pytest.raises(ValueError, match="model is a damaged model"):
            firth.load(path)
    for history in ([{}], [1], {}, "none", [{"epoch": 1}]):
        files.write_tensors(path, tensors, {**metadata, "history": history})
        with pytest.raises(ValueError, match=r"model is a damaged model.*history"):
            firth.load(path)


def test_what_is_not_finite_is_never_saved(make, corpus, tmp_path):
    model = make().fit(corpus)
    tensor = next(tensor for tensor in model._tensors.values() if tensor.dtype.kind == "f")
    tensor[(0,) * tensor.ndim] = NAN
    with pytest.raises(ValueError, match="not finite"):
        model.save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_an_interruption_never_leaves_what_is_not_finite(make_gradient, corpus, tmp_path, monkeypatch):
    """The last steps before a Ctrl-C: no product has looked at what they left."""
    begin = type(make_gradient())._begin

    def begin_and_break(model, *arguments, **options):
        units, train = begin(model, *arguments, **options)

        def broken(*stretch):
            tally = train(*stretch)
            if stretch[2] == 1:
                model._tensors["context"][0, 0] = NAN
                raise KeyboardInterrupt
            return tally

        return units, broken

    monkeypatch.setattr(type(make_gradient()), "_begin", begin_and_break)
    model = make_gradient()
    with pytest.raises(FloatingPointError, match="in epoch 2: a number in context is not finite"):
        model.fit(corpus, checkpoint=tmp_path)
    assert np.isfinite(model.vectors.matrix).all()
    assert files.read_tensors(tmp_path / run.CHECKPOINT)[1]["progress"][0] == 1


def test_damaged_checkpoints_and_models(make_gradient, corpus, tmp_path):
    model = make_gradient()
    model.fit(corpus, checkpoint=tmp_path)
    model.save(tmp_path / "model")
    for path, what in ((tmp_path / run.CHECKPOINT, "checkpoint"), (tmp_path / "model", "model")):
        tensors, metadata = files.read_tensors(path)
        for name in metadata:
            if (what, name) == ("model", "format"):
                continue  # then it is a file of vectors that another program may have written
            files.write_tensors(path, tensors, {key: value for key, value in metadata.items() if key != name})
            with pytest.raises(ValueError, match=str(tmp_path)):
                firth.load(path) if what == "model" else make_gradient().fit(corpus, checkpoint=tmp_path, resume=True)
        for name in tensors:
            if what == "model" and name not in ("vectors", *files.PACKED_WORDS):
                continue
            files.write_tensors(path, {key: value for key, value in tensors.items() if key != name}, metadata)
            if what == "checkpoint" and name in files.PACKED_WORDS:
                continue  # they are there for people; the corpus has them
            with pytest.raises(ValueError, match=str(tmp_path)):
                firth.load(path) if what == "model" else make_gradient().fit(corpus, checkpoint=tmp_path, resume=True)


def test_a_damaged_checkpoint_leaves_an_earlier_fit_alone(make_gradient, corpus, tmp_path):
    make_gradient().fit(corpus, checkpoint=tmp_path)
    model = make_gradient().fit(firth.Corpus.from_iterable(documents(100), min_count=1))
    before, history = model.vectors.matrix.copy(), list(model.history)
    tensors, metadata = files.read_tensors(tmp_path / run.CHECKPOINT)
    files.write_tensors(tmp_path / run.CHECKPOINT, tensors, {**metadata, "progress": [1]})
    with pytest.raises(ValueError, match="damaged"):
        model.fit(corpus, checkpoint=tmp_path, resume=True)
    np.testing.assert_array_equal(model.vectors.matrix, before)
    assert model.history == history


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_use_threads(make_gradient, corpus):
    """OpenMP's threads do not come along in a fork, and its runtime would wait for them for ever."""
    model = make_gradient(threads=2).fit(corpus)
    child = os.fork()
    if child == 0:
        make_gradient(threads=2).fit(corpus)
        model.vectors.neighbors(corpus.vocabulary.words)
        os._exit(0)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)


def test_checkpoints_are_not_mixed_up(make_gradient, corpus, tmp_path):
    make_gradient().fit(corpus, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="resume=True"):
        make_gradient().fit(corpus, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="seed was 1, is 2"):
        make_gradient(seed=2).fit(corpus, checkpoint=tmp_path, resume=True)
    other = firth.Corpus.from_iterable(documents(299), min_count=1)
    with pytest.raises(ValueError, match="the data differ"):
        make_gradient().fit(other, checkpoint=tmp_path, resume=True)
    renamed = [[f"x{word}" for word in document] for document in documents()]
    with pytest.raises(ValueError, match="the data differ"):
        make_gradient().fit(firth.Corpus.from_iterable(renamed, min_count=1), checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match="checkpoint="):
        make_gradient().fit(corpus, resume=True)
    make_gradient(threads=2).fit(corpus, checkpoint=tmp_path, resume=True)


def test_a_checkpoint_that_cannot_be_written_says_so(make_gradient, corpus, tmp_path):
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(FileExistsError, match=r"^checkpoint must be a folder: .*state is a file$"):
        make_gradient().fit(corpus, checkpoint=tmp_path / "state")


def test_estimate_memory(make_gradient, corpus):
    model = make_gradient(vector_size=100).fit(corpus)
    if firth.Cooccurrences in model.learns_from:
        data = firth.count_cooccurrences(corpus)
        given = 2 * sum(part.nbytes for part in (data.csr.data, data.csr.indices, data.csr.indptr))
    else:
        data, given = corpus, corpus.ids.nbytes + corpus.offsets.nbytes
    stored = sum(tensor.nbytes for tensor in model._tensors.values())
    assert stored <= model.estimate_memory(data)["total"] <= 3 * stored + given


def test_repr_shows_options_and_size():
    corpus = firth.Corpus.from_iterable([["a", "b", "c"]] * 40, min_count=1)
    model = firth.Word2Vec(epochs=400, vector_size=8)
    assert repr(model) == "<Word2Vec(epochs=400, vector_size=8): not fitted>"
    assert repr(model.fit(corpus)) == "<Word2Vec(epochs=400, vector_size=8): 3 words, vector_size=8>"
    assert repr(firth.PPMI(vector_size=None).fit(corpus)) == "<PPMI(vector_size=None): 3 words>"
    classifier = firth.FastTextClassifier(epochs=2)
    assert repr(classifier) == "<FastTextClassifier(epochs=2): not fitted>"
    fitted = classifier.fit(["a b", "c d"] * 20, ["x", "y"] * 20)
    assert repr(fitted) == "<FastTextClassifier(epochs=2): 5 words, 2 labels, vector_size=100>"
