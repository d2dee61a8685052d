"""FastText: vectors of words and subwords, and models to and from fastText's own programs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import firth
import reference
from firth import _core, fasttext_format, files
from firth.models.fasttext import Subwords

STEMS = ["ship", "berg", "land", "wort", "haus", "wald"]


def documents(seed=0, n=600):
    """Each document uses the forms of one stem, so that a stem's subwords carry what its forms mean."""
    rng = np.random.default_rng(seed)
    forms = {stem: [stem, f"{stem}s", f"{stem}ing", f"{stem}ed", f"un{stem}"] for stem in STEMS}
    return [rng.choice(forms[STEMS[i % len(STEMS)]], 20).tolist() for i in range(n)]


@pytest.fixture(scope="module")
def corpus():
    return firth.Corpus.from_iterable(documents(), min_count=1)


def make(**options):
    return firth.FastText(
        **{"vector_size": 12, "epochs": 3, "bucket": 5000, "sample": 0, "threads": 1, "learning_rate": 0.1, **options}
    )


@pytest.fixture(scope="module")
def model(corpus):
    return make().fit(corpus)


def row_of(model, bucket):
    """A bucket's row, trained or not, by the definition."""
    buckets = model._tensors["buckets"].tolist()
    words = len(model.vectors.words)
    if bucket in buckets:
        return model._tensors["rows"][words + buckets.index(bucket)]
    size = model.vector_size
    key = reference.random_key(model.seed, 0)
    number = (words + bucket) * size
    uniform = [(reference.random_at(key, number + i) >> 40) * 2.0**-23 - 1 for i in range(size)]
    return np.array(uniform) / size


def brute_force(model, word):
    _, buckets = Subwords.hashed([word], model.min_n, model.max_n, model.bucket, 1)
    rows = [row_of(model, bucket) for bucket in buckets.tolist()]
    if word in model.vectors.index:
        rows.append(model._tensors["rows"][model.vectors.index[word]])
    return np.mean(rows, axis=0)


@pytest.mark.parametrize("word", ["ship", "unwald", "reshipped", "Schiff", "x", "日本語", "ships"])
def test_vectors_are_the_means_of_their_pieces(model, word):
    np.testing.assert_allclose(model.vectors[word], brute_force(model, word), rtol=1e-5, atol=1e-7)


def test_after_a_divergence_there_is_no_whole_model_to_write(corpus, tmp_path):
    model = make(learning_rate=1e30)
    with pytest.raises(FloatingPointError):
        model.fit(corpus)
    with pytest.raises(AttributeError, match="call fit"):
        model.to_fasttext(tmp_path / "m.bin")
    model.save(tmp_path / "m")
    assert np.isfinite(firth.load(tmp_path / "m").vectors.matrix).all()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rows", lambda rows: rows[:-1]),
        ("buckets", lambda buckets: buckets[::-1].copy()),
        ("buckets", lambda buckets: buckets + 5000),
        ("buckets", lambda buckets: buckets - 5000),
        ("buckets", lambda buckets: buckets.astype(np.int32)),
        ("counts", lambda counts: counts[1:]),
    ],
)
def test_damaged_rows_of_ngrams_are_refused(model, tmp_path, name, change):
    model.save(tmp_path / "m")
    tensors, metadata = files.read_tensors(tmp_path / "m")
    assert len(firth.load(tmp_path / "m").vectors) == len(model.vectors)
    files.write_tensors(tmp_path / "m", {**tensors, name: change(tensors[name])}, metadata)
    with pytest.raises(ValueError, match="m is a damaged model"):
        firth.load(tmp_path / "m")


def test_only_reached_buckets_are_stored(model, corpus):
    _, buckets = Subwords.hashed(corpus.vocabulary.words, 3, 6, 5000, 1)
    np.testing.assert_array_equal(model._tensors["buckets"], np.unique(buckets))
    assert len(model._tensors["rows"]) == len(corpus.vocabulary) + len(np.unique(buckets))


def test_subwords_tell_the_pieces(model):
    assert model.subwords("ship") == ["ship", *_core.split_subwords("ship", min_n=3, max_n=6)]
    assert set(model.subwords("zip")) == {"<zi", "zip", "ip>", "<zip", "zip>", "<zip>"}
    assert make(max_n=0).fit(firth.Corpus.from_iterable([["a", "b"]], min_count=1)).subwords("a") == ["a"]


def test_unseen_words_are_words_like_others(model):
    vectors = model.vectors
    assert "reshipping" in vectors
    assert "reshipping" not in vectors.index
    assert "reshipping" not in list(vectors)
    assert list(vectors) == vectors.words
    longer = make(min_n=5).fit(firth.Corpus.from_iterable(documents(n=6), min_count=1)).vectors
    for without in ("zz", "", "a \ud800 surrogate"):
        assert without not in longer
        assert longer.get(without) is None
        with pytest.raises(KeyError):
            longer[without]
    assert 3 not in vectors
    assert ["ship"] not in vectors
    assert vectors.rank("reshipping", vectors.most_similar("reshipping", topn=4)[3][0]) == 4
    unseen = vectors["reshipping"]
    np.testing.assert_array_equal(vectors.get("reshipping"), unseen)
    np.testing.assert_array_equal(vectors[["ship", "reshipping"]], [vectors["ship"], unseen])
    assert vectors.similarity("reshipping", "shipping") == vectors.similarity(unseen, "shipping")
    nearest = [word for word, _ in vectors.most_similar("reshipping", topn=3)]
    assert [word for word, _ in vectors.neighbors(["reshipping"], topn=3)[0]] == nearest
    assert all("ship" in word for word in nearest), nearest


def test_stems_come_together(model):
    """It is the documents that make the forms of a stem alike, and the subwords that carry it to an unseen form."""
    own, other = [], []
    for stem in STEMS:
        for word in model.vectors.words:
            (own if stem in word else other).append(model.vectors.similarity(f"{stem}er", word))
    assert np.mean(own) > np.mean(other) + 0.5


@pytest.mark.parametrize("architecture", ["skipgram", "cbow"])
@pytest.mark.parametrize("loss", ["ns", "hs"])
def test_training_lowers_the_loss(corpus, architecture, loss):
    model = make(epochs=5, architecture=architecture, loss=loss).fit(corpus)
    assert model.history[-1].loss < 0.98 * model.history[0].loss


def test_callbacks_see_unseen_words_of_the_moment(corpus):
    seen = []
    make(epochs=3).fit(corpus, callbacks=[lambda model: seen.append(model.vectors)])
    first = seen[0]["reshipping"].copy()
    assert not np.array_equal(seen[1]["reshipping"], first)
    np.testing.assert_array_equal(seen[0]["reshipping"], first)


def test_saved_models_know_unseen_words(model, tmp_path):
    model.save(tmp_path / "m")
    loaded = firth.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.vectors["reshipping"], model.vectors["reshipping"])
    assert loaded.subwords("ship") == model.subwords("ship")


def test_options():
    with pytest.raises(ValueError, match=r"min_n \(4\) must not be above max_n \(3\)"):
        firth.FastText(min_n=4, max_n=3)
    assert firth.FastText(min_n=4, max_n=0).max_n == 0


@pytest.mark.parametrize("options", [{}, {"architecture": "cbow"}, {"loss": "hs"}, {"max_n": 0}])
def test_to_and_from_fasttext_s_format(corpus, options, tmp_path):
    model = make(**options).fit(corpus)
    model.to_fasttext(tmp_path / "m.bin")
    stored = fasttext_format.read(tmp_path / "m.bin")
    assert stored.input.shape == (len(model.vectors) + (5000 if model.max_n else 0), 12)
    again = firth.FastText.from_fasttext(tmp_path / "m.bin")
    assert (again.architecture, again.loss, again.max_n) == (model.architecture, model.loss, model.max_n)
    np.testing.assert_allclose(again.vectors.matrix, model.vectors.matrix, atol=1e-6)
    if model.max_n:
        np.testing.assert_allclose(again.vectors["reshipping"], model.vectors["reshipping"], atol=1e-6)
    np.testing.assert_allclose(firth.load_vectors(tmp_path / "m.bin").matrix, model.vectors.matrix, atol=1e-6)
    again.to_fasttext(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "m.bin").read_bytes()


@pytest.mark.parametrize("options", [{}, {"architecture": "cbow"}, {"loss": "hs"}, {"max_n": 0}])
def test_fasttext_reads_our_models(corpus, options, tmp_path):
    fasttext = pytest.importorskip("fasttext")
    model = make(**options).fit(corpus)
    model.to_fasttext(tmp_path / "m.bin")
    theirs = fasttext.load_model(str(tmp_path / "m.bin"))
    assert theirs.get_words() == model.vectors.words
    words = ["ship", "unwald", "ships"] + (["reshipped", "日本語"] if model.max_n else [])
    for word in words:
        np.testing.assert_allclose(theirs.get_word_vector(word), model.vectors[word], atol=1e-6)


@pytest.mark.parametrize("kind", ["skipgram", "cbow"])
@pytest.mark.parametrize("loss", ["ns", "hs"])
def test_we_read_fasttext_s_models(kind, loss, tmp_path):
    fasttext = pytest.importorskip("fasttext")
    (tmp_path / "text").write_text("\n".join(" ".join(document) for document in documents()))
    theirs = fasttext.train_unsupervised(
        str(tmp_path / "text"), model=kind, loss=loss, dim=20, epoch=1, bucket=3000, minCount=1, thread=10, verbose=0
    )
    theirs.save_model(str(tmp_path / "m.bin"))
    ours = firth.FastText.from_fasttext(tmp_path / "m.bin")
    assert (ours.architecture, ours.loss, ours.bucket) == (kind, loss, 3000)
    for word in ("ship", "unwald", "reshipped", "</s>"):
        np.testing.assert_allclose(ours.vectors[word], theirs.get_word_vector(word), atol=1e-6)
    ours.to_fasttext(tmp_path / "again.bin")
    assert (
        fasttext_format.read(tmp_path / "again.bin").counts.tolist()
        == fasttext_format.read(tmp_path / "m.bin").counts.tolist()
    )


def test_other_models_are_refused_with_a_remedy(tmp_path):
    options = dict.fromkeys(
        ("window", "epochs", "min_count", "negative", "word_ngrams", "bucket", "min_n", "max_n", "update_rate"), 1
    )
    stored = fasttext_format.FastTextFile(
        **options,
        model="supervised",
        loss="softmax",
        vector_size=3,
        sample=0.0,
        words=[b"a"],
        labels=[b"__label__x"],
        counts=np.array([1, 1]),
        n_tokens=2,
        input=np.zeros((2, 3), np.float32),
        output=np.zeros((1, 3), np.float32),
    )
    fasttext_format.write(tmp_path / "m.bin", stored)
    with pytest.raises(ValueError, match="classifier"):
        firth.FastText.from_fasttext(tmp_path / "m.bin")


def test_a_word_that_is_not_utf_8_is_read_with_its_bytes_written_out(tmp_path):
    corpus = firth.Corpus.from_iterable([["ship", "shop", "ship", "shop"]] * 20, min_count=1)
    model = firth.FastText(vector_size=4, epochs=1, bucket=10, sample=0, threads=1).fit(corpus)
    model.to_fasttext(tmp_path / "m.bin")
    data = (tmp_path / "m.bin").read_bytes()
    (tmp_path / "m.bin").write_bytes(data.replace(b"ship\0", b"sh\xe9p\0"))
    with pytest.warns(UserWarning, match="1 words that are not UTF-8"):
        model = firth.FastText.from_fasttext(tmp_path / "m.bin")
    assert set(model.vectors.words) == {"sh\\xe9p", "shop"}


def test_options_that_cannot_be_are_told_with_the_file(corpus, tmp_path):
    model = make(max_n=3, min_n=2, epochs=1).fit(corpus)
    model.to_fasttext(tmp_path / "m.bin")
    stored = fasttext_format.read(tmp_path / "m.bin")
    fasttext_format.write(tmp_path / "wrong.bin", dataclasses.replace(stored, min_n=4))
    with pytest.raises(ValueError, match=r"wrong\.bin .* min_n \(4\) must not be above max_n \(3\)"):
        firth.FastText.from_fasttext(tmp_path / "wrong.bin")


@pytest.mark.parametrize(
    "change",
    [
        {"rows": lambda rows: rows[:-1]},
        {"rows": lambda rows: rows[:, :-1]},
        {"rows": lambda rows: rows.astype(np.float64)},
        {"buckets": lambda buckets: buckets[:-1]},
        {"buckets": lambda buckets: buckets[::-1].copy()},
        {"buckets": lambda buckets: buckets + 2**40},
        {"buckets": lambda buckets: buckets - 2**40},
        {"buckets": lambda buckets: buckets.astype(np.int32)},
        {"context": lambda context: context[:, :3].copy()},
        {"counts": lambda counts: counts[1:]},
        {"vectors": lambda vectors: vectors[:, :3].copy()},
        {"vectors": lambda vectors: vectors[1:], "counts": lambda counts: counts[1:]},
        {"words": lambda words: np.full_like(words, ord("a"))},
    ],
)
def test_a_damaged_model_is_refused_by_name(model, tmp_path, change):
    model.save(tmp_path / "whole")
    tensors, metadata = files.read_tensors(tmp_path / "whole")
    tensors |= {name: changed(tensors[name]) for name, changed in change.items()}
    files.write_tensors(tmp_path / "damaged.model", tensors, metadata)
    with pytest.raises(ValueError, match=r"damaged\.model is a damaged model"):
        firth.load(tmp_path / "damaged.model")


def test_a_model_with_a_word_twice_is_refused_by_name(corpus, tmp_path):
    model = make(epochs=1).fit(corpus)
    model.to_fasttext(tmp_path / "m.bin")
    stored = fasttext_format.read(tmp_path / "m.bin")
    for changes, message in (
        ({"words": [stored.words[0]] * len(stored.words)}, "words must differ"),
        ({"counts": -stored.counts}, "counts must not be negative"),
    ):
        for name, value in changes.items():
            object.__setattr__(stored, name, value)
        fasttext_format.write(tmp_path / "wrong.bin", stored)
        with pytest.raises(ValueError, match=rf"wrong\.bin is a damaged fastText model: {message}"):
            firth.FastText.from_fasttext(tmp_path / "wrong.bin")


def test_a_word_of_too_many_ngrams_is_named():
    long = "x" * 200_000
    corpus = firth.Corpus.from_iterable([["short", long]] * 3, min_count=1)
    with pytest.raises(
        ValueError, match=r"the word 'xxxxxxxxxxxxxxxxxxxx'\.\.\., of 200,000 characters, has 1,\d+,\d+ n-"
    ):
        firth.FastText(min_n=1, max_n=8, vector_size=2, bucket=10).fit(corpus)
