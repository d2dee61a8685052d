"""Texts of a few words: every model learns from them or says what to set, and NaN is never saved."""

from __future__ import annotations

import dataclasses
import re
import warnings

import numpy as np
import pytest
from click.testing import CliRunner

import firth
from firth import cli, files

NINE = """the king rules the land
a queen rules with the king
dogs chase cats in the yard
cats sleep on the warm roof
the land has a river
a river runs to the sea
boats sail on the sea
the yard is near the river
dogs sleep in the warm yard"""
LETTERS = "the quick brown fox jumps over the lazy dog again".replace(" ", "")[:37]


def walks() -> list[str]:
    """Random walks on a small graph."""
    random = np.random.default_rng(1)
    graph = {"a": "bc", "b": "ac", "c": "dab", "d": "ce", "e": "d"}
    found = []
    for start in list(graph) * 6:
        walk = [start]
        for _ in range(9):
            walk.append(str(random.choice(list(graph[walk[-1]]))))
        found.append(" ".join(walk))
    return found


TEXTS = {
    "nine short sentences": NINE.split("\n"),
    "one sentence again and again": ["the cat sat on the mat"] * 30,
    "one word": ["word word word word"] * 8,
    "documents of one token": ["the", "king", "rules", "the", "land", "with", "a", "queen"] * 4,
    "documents of one letter": list(LETTERS),
    "letters in a line": [" ".join(LETTERS)],
    "random walks on a graph": walks(),
    "two words": ["a b"],
    "one token": ["word"],
}
MODELS = {
    "skipgram": firth.Word2Vec(threads=1),
    "skipgram hs": firth.Word2Vec(threads=1, loss="hs"),
    "skipgram deterministic": firth.Word2Vec(threads=2, deterministic=True),
    "cbow": firth.Word2Vec(threads=1, architecture="cbow"),
    "cbow hs": firth.Word2Vec(threads=1, architecture="cbow", loss="hs"),
    "fasttext": firth.FastText(threads=1, bucket=1000),
    "fasttext sample": firth.FastText(threads=1, bucket=1000, sample=0.0),
    "glove": firth.GloVe(threads=1, epochs=3),
    "ppmi": firth.PPMI(threads=1),
    "ppmi 2": firth.PPMI(threads=1, vector_size=2),
    "ppmi signed": firth.PPMI(threads=1, vector_size=1, positive=False),
    "lsa": firth.LSA(threads=1),
    "lsa 1": firth.LSA(threads=1, vector_size=1),
    "lsa tf-idf": firth.LSA(threads=1, vector_size=1, weighting="tf-idf"),
}
# What an error names: an option and a value for it, or what the text should have.
SETS = r"(sample=0 keeps|set vector_size=\d+ or less|Make documents longer|Give (more text|documents|a text)\b)"


def assert_sound(model):
    assert all(np.isfinite(epoch.loss) for epoch in model.history)
    assert np.isfinite(model.vectors.matrix).all()
    assert model.vectors.matrix.any()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_model_learns_or_says_what_to_set(text, name, tmp_path):
    corpus = firth.Corpus.from_iterable([line.split() for line in TEXTS[text]], min_count=1)
    model = dataclasses.replace(MODELS[name])
    options = {"checkpoint": tmp_path} if "epochs" in model.get_params() else {}
    said = ""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            model.fit(corpus, **options)
        except ValueError as error:
            said = str(error)
    if said:
        assert re.search(SETS, said), said
        assert not warned  # more epochs would not help
        assert not model._tensors
        assert not model.history
    else:
        assert_sound(model)
        if warned:
            (warning,) = warned
            assert re.search(r"Set epochs=\d+ or more", str(warning.message))
            assert warning.filename == __file__
        elif len(model.history) > 1:
            assert model.history[-1].loss < model.history[0].loss
        model.save(tmp_path / "model")
        assert_sound(firth.load(tmp_path / "model"))
    for path in tmp_path.iterdir():
        tensors, _ = files.read_tensors(path)
        assert all(np.isfinite(tensor).all() for tensor in tensors.values()), path


@pytest.mark.parametrize("name", ["skipgram", "skipgram hs", "skipgram deterministic", "cbow", "cbow hs", "fasttext"])
def test_as_many_epochs_as_the_warning_names_are_enough(name):
    corpus = firth.Corpus.from_iterable([line.split() for line in NINE.split("\n")], min_count=1)
    with pytest.warns(UserWarning, match="the text is short") as warned:
        MODELS[name].fit(corpus)
    (epochs,) = re.findall(r"Set epochs=(\d+)", str(warned[0].message))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = dataclasses.replace(MODELS[name], epochs=int(epochs)).fit(corpus).history
    tenth = len(history) // 10
    first, last = (np.mean([epoch.loss for epoch in some]) for some in (history[:tenth], history[-tenth:]))
    assert last < 0.98 * first


COMMANDS = {
    "skipgram": [],
    "cbow": [],
    "fasttext": ["--bucket", "1000"],
    "glove": ["--epochs", "3"],
    "ppmi": [],
    "lsa": ["--vector-size", "1"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_command_learns_or_says_what_to_set(text, name, tmp_path):
    (tmp_path / "text").write_text("\n".join(TEXTS[text]) + "\n")
    out, kept = tmp_path / "vectors.txt", tmp_path / "model"
    given = [tmp_path / "text", "-o", out, "--save-model", kept, "--min-count", 1, "--threads", 1, *COMMANDS[name]]
    result = CliRunner().invoke(cli.main, ["train", name, *map(str, given)])
    if result.exit_code == 0:
        assert_sound(firth.load(kept))
        assert np.isfinite(firth.load_vectors(out).matrix).all()
        assert "nan" not in result.output
    else:
        assert isinstance(result.exception, SystemExit), result.exception
        assert re.search(SETS, result.output), result.output
        assert not out.exists()
        assert not kept.exists()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("loss", ["softmax", "ns", "hs", "ova"])
def test_a_classifier_learns_from_any_text(text, loss, tmp_path):
    lines = TEXTS[text]
    model = firth.FastTextClassifier(threads=1, loss=loss, vector_size=8)
    model.fit(lines, [i % 2 for i in range(len(lines))])
    model.save(tmp_path / "model")
    for one in (model, firth.load(tmp_path / "model")):
        assert all(np.isfinite(epoch.loss) for epoch in one.history)
        assert np.isfinite(one._trained.rows).all()
        assert np.isfinite(one._trained.outputs).all()


def test_a_classifier_whose_texts_hold_nothing_says_so():
    model = firth.FastTextClassifier(threads=1, min_count=5)
    with pytest.raises(ValueError, match=r"no text has both a label and a word .* min_count=5"):
        model.fit(["one text", "another one"], ["p", "n"])
    with pytest.raises(AttributeError, match="not been fitted"):
        model.predict(["one"])
