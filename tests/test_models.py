"""The contract that every model keeps; a new model joins MODELS and is tested."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import firth
from firth import files
from firth.models import base

# Small, quick makers of each model. GRADIENT: those trained in epochs, which checkpoint and resume.
MODELS = {
    "LSA": lambda **options: firth.LSA(**{"vector_size": 8, "threads": 1, **options}),
    "PPMI": lambda **options: firth.PPMI(**{"vector_size": 8, "threads": 1, **options}),
    "Word2Vec": lambda **options: firth.Word2Vec(**{"vector_size": 8, "epochs": 3, "threads": 1, **options}),
}
GRADIENT = ["Word2Vec"]


def documents(n=300):
    rng = np.random.default_rng(11)
    words = np.array([f"w{i}" for i in range(40)])
    return [rng.choice(words, rng.integers(1, 30)).tolist() for _ in range(n)]


@pytest.fixture(scope="module")
def corpus():
    return firth.Corpus.from_iterable(documents(), min_count=1)


@pytest.fixture(params=MODELS)
def make(request):
    return MODELS[request.param]


@pytest.fixture(params=GRADIENT)
def make_gradient(request):
    return MODELS[request.param]


def same(a, b):
    return a._tensors.keys() == b._tensors.keys() and all(
        a._tensors[name].tobytes() == b._tensors[name].tobytes() for name in a._tensors
    )


def test_every_model_is_here():
    concrete = {name for name, kind in base.Model.registry.items() if not kind.__abstractmethods__}
    assert concrete == set(MODELS)


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
    other = dataclasses.replace(model, vector_size=9)
    assert other.vector_size == 9
    assert model.vector_size == 8


def test_options_take_numpy_numbers_and_refuse_booleans_and_nan(make):
    assert type(make(vector_size=np.int64(5)).vector_size) is int
    with pytest.raises(TypeError, match="vector_size"):
        make(vector_size=True)
    for field in dataclasses.fields(make()):
        if isinstance(field.default, float):
            with pytest.raises(ValueError, match=field.name):
                make(**{field.name: float("nan")})


def test_fit_returns_self_and_is_quiet(make, corpus, capfd):
    model = make()
    assert model.fit(corpus) is model
    assert model.vectors.words == corpus.vocabulary.words
    assert model.vectors.matrix.shape == (len(corpus.vocabulary), 8)
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


@pytest.mark.parametrize("wrong", [None, "text", [["a", "b"]], 3])
def test_fit_asks_for_a_corpus(make, wrong):
    model = make()
    with pytest.raises(TypeError, match=r"firth\.Corpus"):
        model.fit(wrong)
    assert "vectors" not in model._tensors


def test_same_seed_same_bytes(make, corpus):
    assert same(make(seed=4).fit(corpus), make(seed=4).fit(corpus))


def test_another_seed_other_bytes(make_gradient, corpus):
    assert not same(make_gradient(seed=4).fit(corpus), make_gradient(seed=5).fit(corpus))


def test_fit_again_starts_again(make, corpus):
    model = make().fit(corpus)
    assert same(model.fit(corpus), make().fit(corpus))
    assert len(model.history) == model.options.get("epochs", 0)


def test_save_and_load(make, corpus, tmp_path):
    model = make().fit(corpus)
    path = tmp_path / "a.model"
    model.save(path)
    loaded = firth.load(path)
    assert type(loaded) is type(model)
    assert loaded.options == model.options
    assert loaded.history == model.history
    assert loaded.vectors.words == model.vectors.words
    assert same(loaded, model)
    assert firth.load_vectors(path).matrix.tobytes() == model.vectors.matrix.tobytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a.model"]


def test_load_refuses_other_files(make, corpus, tmp_path):
    (tmp_path / "text").write_text("no model\n" * 9)
    with pytest.raises(ValueError, match="text"):
        firth.load(tmp_path / "text")
    corpus.save(tmp_path / "c")
    with pytest.raises(ValueError, match="is a firth corpus, not a firth model"):
        firth.load(tmp_path / "c")
    with pytest.raises(FileNotFoundError):
        firth.load(tmp_path / "missing")
    make().fit(corpus).save(tmp_path / "m")
    tensors, metadata = files.read_tensors(tmp_path / "m")
    files.write_tensors(tmp_path / "m", tensors, {**metadata, "model": "Nonesuch"})
    with pytest.raises(ValueError, match="Nonesuch"):
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

        class Bar(base.tqdm):
            def update(self, n=1):
                super().update(n)
                outer.left -= 1
                if outer.left == 0:
                    raise KeyboardInterrupt

        monkeypatch.setattr(base, "tqdm", Bar)


@pytest.fixture
def long_corpus():
    return firth.Corpus.from_iterable(documents(12_000), min_count=1)


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
    assert [epoch.loss for epoch in resumed.history] == pytest.approx([epoch.loss for epoch in whole.history], rel=1e-8)
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
    """The epoch is counted and the position set back in one piece: nothing is skipped after resuming."""
    whole = make_gradient().fit(corpus)

    class History(list):
        def append(self, record):
            super().append(record)
            if len(self) == 2:
                signal.raise_signal(signal.SIGINT)

    model = make_gradient()
    seen = property(lambda self: self.__dict__.setdefault("seen", History()), lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "history", seen, raising=False)
        with pytest.raises(KeyboardInterrupt):
            model.fit(corpus, checkpoint=tmp_path)
    resumed = make_gradient().fit(corpus, checkpoint=tmp_path, resume=True)
    assert [epoch.epoch for epoch in resumed.history] == [1, 2, 3]
    assert same(resumed, whole)


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import firth, test_models
from firth.models import base
base._CHECKPOINT_SECONDS = 0
corpus = firth.Corpus.from_iterable(test_models.documents(12_000), min_count=1)
test_models.MODELS[{name!r}](epochs=2000).fit(corpus, checkpoint={folder!r}, resume=True)
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


def test_no_token_and_no_example(make_gradient):
    vocabulary = firth.Vocabulary(["elsewhere"])
    with pytest.raises(ValueError, match="no token"):
        make_gradient().fit(firth.Corpus.from_iterable([["here"]], vocabulary=vocabulary))
    model = make_gradient().fit(firth.Corpus.from_iterable([["alone"], ["alone"]], min_count=1))
    assert np.isnan(model.history[0].loss)


def test_damaged_checkpoints_and_models(make_gradient, corpus, tmp_path):
    model = make_gradient()
    model.fit(corpus, checkpoint=tmp_path)
    model.save(tmp_path / "model")
    for path, what in ((tmp_path / base.CHECKPOINT, "checkpoint"), (tmp_path / "model", "model")):
        tensors, metadata = files.read_tensors(path)
        for name in metadata:
            files.write_tensors(path, tensors, {key: value for key, value in metadata.items() if key != name})
            with pytest.raises(ValueError, match=str(tmp_path)):
                firth.load(path) if what == "model" else make_gradient().fit(corpus, checkpoint=tmp_path, resume=True)
        for name in tensors:
            if what == "model" and name == "context":
                continue
            files.write_tensors(path, {key: value for key, value in tensors.items() if key != name}, metadata)
            if what == "checkpoint" and name.startswith("word"):
                continue  # they are there for people; the corpus has them
            with pytest.raises(ValueError, match=str(tmp_path)):
                firth.load(path) if what == "model" else make_gradient().fit(corpus, checkpoint=tmp_path, resume=True)


def test_a_damaged_checkpoint_leaves_an_earlier_fit_alone(make_gradient, corpus, tmp_path):
    make_gradient().fit(corpus, checkpoint=tmp_path)
    model = make_gradient().fit(firth.Corpus.from_iterable(documents(100), min_count=1))
    before, history = model.vectors.matrix.copy(), list(model.history)
    tensors, metadata = files.read_tensors(tmp_path / base.CHECKPOINT)
    files.write_tensors(tmp_path / base.CHECKPOINT, tensors, {**metadata, "progress": [1]})
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
    with pytest.raises(ValueError, match="the data are other ones"):
        make_gradient().fit(other, checkpoint=tmp_path, resume=True)
    renamed = [[f"x{word}" for word in document] for document in documents()]
    with pytest.raises(ValueError, match="the data are other ones"):
        make_gradient().fit(firth.Corpus.from_iterable(renamed, min_count=1), checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match="checkpoint="):
        make_gradient().fit(corpus, resume=True)
    make_gradient(threads=2).fit(corpus, checkpoint=tmp_path, resume=True)


def test_a_checkpoint_that_cannot_be_written_says_so(make_gradient, corpus, tmp_path):
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(FileExistsError, match="state"):
        make_gradient().fit(corpus, checkpoint=tmp_path / "state")


def test_estimate_memory(make_gradient, corpus):
    estimate = make_gradient(vector_size=100).estimate_memory(corpus)
    model = make_gradient(vector_size=100).fit(corpus)
    stored = sum(matrix.strides[0] * len(matrix) for matrix in model._tensors.values())
    assert stored <= estimate["total"] <= 3 * stored + corpus.ids.nbytes + corpus.offsets.nbytes
