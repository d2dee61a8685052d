"""The classifier: kernels against the oracle, bags against fastText's features, the estimator, files, fastText."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

import firth
import reference
from firth import _core, corpus, fasttext_format, files, run
from firth.quantization import QuantizedMatrix
from firth.runtime import padded_rows

LOSSES = ["softmax", "ns", "hs", "ova"]


# --- the kernel ------------------------------------------------------------------------------------------------------


class Case:
    """Texts drawn at random as bags of rows, with labels, and the ways to train on them."""

    def __init__(self, loss, size=20, n_labels=7, n=60, several=False, weighted=False, seed=1):
        rng = np.random.default_rng(seed)
        self.loss, self.n_labels = loss, n_labels
        self.bags = [rng.integers(0, 40, rng.integers(0, 12)).tolist() for _ in range(n)]
        most = 3 if several else 1
        self.labels = [
            rng.choice(n_labels, min(n_labels, rng.integers(1, most + 1)), replace=False).tolist() for _ in range(n)
        ]
        self.labels[n // 2] = []
        self.rows = rng.normal(size=(40, size)).astype(np.float32)
        self.outputs = rng.normal(size=(n_labels, size)).astype(np.float32)
        counts = np.sort(rng.integers(1, 50, n_labels))[::-1].astype(np.int64)
        self.paths = _core.huffman(np.ascontiguousarray(counts)) if loss == "hs" else None
        self.noise = _core.alias_table(counts**0.5) if loss == "ns" else None
        self.weights = rng.uniform(0, 3, n).astype(np.float32) if weighted else None
        self.label_weights = rng.uniform(0, 2, n_labels).astype(np.float32) if weighted else None
        self.options = {"loss": loss, "epoch": 1, "epochs": 3, "learning_rate": 0.4, "seed": 5, "negative": 4}

    @staticmethod
    def packed(lists):
        begins = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(one) for one in lists], out=begins[1:])
        return begins, np.array([item for one in lists for item in one], np.int32)

    def train(self, threads=1, cuts=()):
        rows, outputs = padded_rows(*self.rows.shape), padded_rows(*self.outputs.shape)
        rows[:], outputs[:] = self.rows, self.outputs
        total = np.zeros(2)
        for begin, end in itertools.pairwise([0, *cuts, len(self.bags)]):
            *tally, diverged = _core.train_classifier(
                rows,
                outputs,
                bags=self.packed(self.bags),
                labels=self.packed(self.labels),
                weights=self.weights,
                label_weights=self.label_weights,
                noise=self.noise,
                paths=self.paths,
                begin=begin,
                end=end,
                threads=threads,
                **self.options,
            )
            assert diverged == -1
            total += tally
        for matrix in (rows, outputs):
            whole = np.lib.stride_tricks.as_strided(matrix, (len(matrix), matrix.strides[0] // 4))
            assert not whole[:, matrix.shape[1] :].any(), "the padding was written to"
        return rows, outputs, total

    def path_lists(self):
        if self.paths is None:
            return None
        begins, nodes, turns = self.paths
        return [(nodes[a:b].tolist(), turns[a:b].tolist()) for a, b in itertools.pairwise(begins)]

    def oracle(self, dtype=np.float64):
        rows, outputs = self.rows.astype(dtype), self.outputs.astype(dtype)
        tally = reference.classifier(
            rows,
            outputs,
            self.bags,
            self.labels,
            weights=self.weights,
            label_weights=self.label_weights,
            noise=self.noise,
            paths=self.path_lists(),
            **self.options,
        )
        return rows, outputs, np.array(tally)


def assert_close(case, result):
    exact, naive = case.oracle(), case.oracle(np.float32)
    assert result[2][1] == exact[2][1]
    assert result[2][0] == pytest.approx(exact[2][0], rel=1e-5, abs=1e-5)
    for got, true, rough in zip(result[:2], exact[:2], naive[:2], strict=True):
        assert np.abs(got - true).max() <= 4 * np.abs(rough - true).max() + 2e-6


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1, 16, 33, 100])
def test_kernel_equals_oracle(isa, loss, size):
    case = Case(loss, size)
    assert_close(case, case.train())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_labels", [1, 2, 3, 4, 5, 6, 8, 12, 13, 33, 100])
def test_kernel_equals_oracle_for_any_number_of_labels(isa, loss, n_labels):
    case = Case(loss, n_labels=n_labels)
    assert_close(case, case.train())


@pytest.mark.parametrize("loss", LOSSES)
def test_kernel_equals_oracle_with_several_labels_and_weights(isa, loss):
    case = Case(loss, several=True, weighted=True, n_labels=9)
    assert_close(case, case.train())


@pytest.mark.parametrize("loss", LOSSES)
def test_how_work_is_cut_does_not_show(loss):
    whole, cut = Case(loss).train(), Case(loss).train(cuts=(1, 2, 31))
    for a, b in zip(whole[:2], cut[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert whole[2] == pytest.approx(cut[2])


def test_threads_train_every_text_once(route):
    # Texts that share no row and no label do not race.
    case = Case("ova", n_labels=1, n=50)
    case.bags = [[i] for i in range(50)]
    case.rows = np.zeros((50, 20), np.float32)
    case.labels = [[0]] * 50
    one, several = case.train(), case.train(route.threads)
    assert several[2][1] == 50
    assert np.abs(several[1] - one[1]).max() <= 1e-4
    assert (several[0] != 0).any(axis=1).all() == (one[0] != 0).any(axis=1).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_is_the_gradient(loss):
    """A step of a tiny rate, from one text, against differences of the loss."""
    case = Case(loss, size=5, n_labels=8, n=1)
    case.bags, case.labels = [[3, 4, 4, 9]], [[2]]
    case.options |= {"learning_rate": 1.0, "epoch": 0, "epochs": 1}
    rows, outputs, _ = case.oracle()
    targets = None
    if loss in ("ns", "hs"):
        targets = reference.classifier_targets(
            2, 0, 8, loss=loss, seed=5, noise=case.noise, negative=4, paths=case.path_lists()
        )

    def at(rows, outputs):
        return reference.classifier_loss(rows[case.bags[0]].mean(axis=0), outputs, [2], loss=loss, targets=targets)

    for which, matrix, moved in ((0, case.rows, rows), (1, case.outputs, outputs)):
        both = [case.rows.astype(float), case.outputs.astype(float)]
        numeric = np.zeros(matrix.shape)
        for place in np.ndindex(matrix.shape):
            values = []
            for h in (1e-5, -1e-5):
                both[which] = matrix.astype(float)
                both[which][place] += h
                values.append(at(*both))
            numeric[place] = (values[0] - values[1]) / 2e-5
        both[which] = matrix
        np.testing.assert_allclose(moved - matrix.astype(float), -numeric, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_labels", [1, 2, 7, 40])
def test_probabilities_equal_oracle(route, loss, n_labels):
    case = Case(loss, n_labels=n_labels)
    case.bags[3] = [2, -1, 5, -1]
    case.bags[4] = [-2, 7, -2]
    case.bags[5] = [-1]
    rows, outputs = padded_rows(*case.rows.shape), padded_rows(*case.outputs.shape)
    rows[:], outputs[:] = case.rows, case.outputs
    expected = reference.classifier_probabilities(
        case.rows.astype(float), case.outputs.astype(float), case.bags, loss=loss, paths=case.path_lists()
    )
    out = np.full((len(case.bags), n_labels), np.nan, np.float32)
    _core.predict_classifier(
        out, rows, outputs, bags=case.packed(case.bags), paths=case.paths, loss=loss, threads=route.threads
    )
    np.testing.assert_allclose(out, expected, rtol=3e-5, atol=1e-7)


def test_an_epoch_has_every_text_once_in_an_order_of_its_own():
    for n in (1, 2, 3, 4, 5, 16, 17, 100, 1000):
        orders = [[reference.permuted_at(reference.random_key(1, 16 + e), i, n) for i in range(n)] for e in range(3)]
        assert all(sorted(order) == list(range(n)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert abs(np.corrcoef(orders[0], range(n))[0, 1]) < 0.1


def test_kernel_refuses_what_does_not_fit():
    case = Case("softmax")
    case.bags[0] = [40]
    with pytest.raises(ValueError, match=r"bag rows\[0\] = 40 must lie in 0 \.\. 39"):
        case.train()
    case = Case("softmax")
    case.labels[0] = [7]
    with pytest.raises(ValueError, match=r"labels\[0\] = 7 must lie in 0 \.\. 6"):
        case.train()
    case = Case("ns")
    case.noise = None
    with pytest.raises(ValueError, match="noise must be given"):
        case.train()


# --- features --------------------------------------------------------------------------------------------------------

LINES = ["the cat sat on the mat", "naïve café 日本語 the", "", "a", "x y z x y z </s> q", "mat the unknown word"]


@pytest.mark.parametrize(
    ("word_ngrams", "min_n", "max_n"), [(1, 0, 0), (2, 0, 0), (3, 0, 0), (1, 2, 4), (2, 1, 3), (5, 0, 2)]
)
def test_features_are_fasttexts(word_ngrams, min_n, max_n, threads):
    model = firth.FastTextClassifier(
        word_ngrams=word_ngrams, min_n=min_n, max_n=max_n, bucket=1009, epochs=1, min_count=2, threads=threads
    ).fit(LINES[:4] * 2, ["a", "b"] * 4)
    words = [word for word in model.words if word not in ("cat", "a")]
    begins, found = model._features_of(model._reader.texts(LINES), {word: i for i, word in enumerate(words)}, None)
    for i, line in enumerate(LINES):
        expected = reference.features_of(
            line.split(), words, min_n=min_n, max_n=max_n, bucket=1009, word_ngrams=word_ngrams
        )
        assert sorted(found[begins[i] : begins[i + 1]].tolist()) == sorted(expected)


@pytest.mark.parametrize("bucket", [1, 2, 3, 7, 2**16, 2**16 + 1, 999_999_937, 2**31 - 4])
def test_any_number_of_buckets(bucket):
    words = [f"w{i}" for i in range(300)]
    packed = files.pack_words(words)
    hashes = _core.hash_words(packed["words"], packed["word_offsets"])
    _, found = _core.bags_of_features(
        np.arange(300, dtype=np.int32),
        np.array([0, 300]),
        hashes=hashes,
        features=np.full(300, -1, np.int32),
        subwords=None,
        end_hash=5,
        end_feature=-1,
        n_words=3,
        buckets=bucket,
        word_ngrams=3,
        rows=None,
        threads=1,
    )
    signed = [*hashes.astype(np.int32).tolist(), 5]
    expected = []
    for i, h in enumerate(signed):
        for other in signed[i + 1 : i + 3]:
            h = (h * 116049371 + other) % 2**64
            expected.append(3 + h % bucket)
    assert found.tolist() == expected


# --- learning --------------------------------------------------------------------------------------------------------


def planted(n=600, n_labels=4, seed=0, shared=30, length=12):
    """Texts in which some words belong to a label, and most do not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_labels, n)
    texts = []
    for label in labels:
        own = [f"w{label}-{i}" for i in rng.integers(0, 10, 3)]
        others = [f"o{i}" for i in rng.integers(0, shared, length - 3)]
        words = own + others
        rng.shuffle(words)
        texts.append(" ".join(words))
    return texts, [f"label {label}" for label in labels]


OPTIONS = {"vector_size": 16, "learning_rate": 0.5, "epochs": 10, "bucket": 20_000, "threads": 1}


def make(**options):
    return firth.FastTextClassifier(**{**OPTIONS, **options})


@pytest.fixture(scope="module")
def texts():
    return planted()


@pytest.mark.parametrize("loss", LOSSES)
def test_finds_planted_labels(loss, threads, texts):
    model = make(loss=loss, threads=threads).fit(*texts)
    others = planted(seed=1)
    assert not {*texts[0]} & {*others[0]}
    assert model.score(*others) > 0.97
    assert model.history[-1].loss < model.history[0].loss / 2
    assert len(model.history) == 10


def test_word_order_is_found_by_ngrams_alone():
    rng = np.random.default_rng(0)
    labels_of = {}
    while len(labels_of) < 400:  # all different
        first, second = rng.permutation(["yes", "no"])
        labels_of[" ".join([*rng.choice(list("abcdef"), 3), first, second, *rng.choice(list("abcdef"), 3)])] = first
    texts, labels = list(labels_of), list(labels_of.values())
    assert make(word_ngrams=2).fit(texts[:300], labels[:300]).score(texts[300:], labels[300:]) > 0.99
    assert make(word_ngrams=1, epochs=3).fit(texts[:200], labels[:200]).score(texts[200:], labels[200:]) < 0.7


def test_spelling_is_found_by_ngrams_of_characters():
    rng = np.random.default_rng(0)
    stems = ["".join(rng.choice(list("abcdefghij"), 5)) for _ in range(400)]
    assert not {*stems[:300]} & {*stems[300:]}
    texts = [stem + ("ing" if i % 2 else "ful") for i, stem in enumerate(stems)]
    labels = ["verb" if i % 2 else "adjective" for i in range(400)]
    model = make(min_n=3, max_n=4).fit(texts[:300], labels[:300])
    assert model.score(texts[300:], labels[300:]) > 0.95


def test_several_labels():
    rng = np.random.default_rng(0)
    sets = [sorted(rng.choice(5, rng.integers(1, 4), replace=False).tolist()) for _ in range(700)]
    texts = [" ".join([*(f"word{i}" for i in own), *(f"o{i}" for i in rng.integers(0, 40, 3))]) for own in sets]
    assert len(set(texts)) == 700
    training, (texts, sets) = (texts[:500], sets[:500]), (texts[500:], sets[500:])
    model = make(loss="ova", epochs=30).fit(*training)
    found, _ = model.predict_top(texts, k=-1, threshold=0.5)
    assert np.mean([sorted(labels) == own for labels, own in zip(found, sets, strict=True)]) > 0.97
    result = model.test(texts, sets, k=-1, threshold=0.5)
    assert result.precision > 0.97
    assert result.recall > 0.97
    assert [score.label for score in result.labels] == [0, 1, 2, 3, 4]
    assert model.classes_.tolist() == [0, 1, 2, 3, 4]
    softmax = make(epochs=30).fit(*training)
    assert softmax.test(texts, sets).precision > 0.97


def test_one_thread_gives_the_same_bits(texts):
    a, b = make(word_ngrams=2).fit(*texts), make(word_ngrams=2).fit(*texts)
    assert a._trained.rows.tobytes() == b._trained.rows.tobytes()
    assert a._trained.outputs.tobytes() == b._trained.outputs.tobytes()
    assert a._trained.rows.tobytes() != make(word_ngrams=2, seed=2).fit(*texts)._trained.rows.tobytes()


@pytest.mark.parametrize("loss", LOSSES)
def test_no_cut_of_an_epoch_shows_in_the_history(loss, monkeypatch):
    """Not in a single bit of the losses."""
    lines = [f"w{i % 97} w{i % 89} w{i % 83}" if i % 1024 else "" for i in range(5000)]
    histories = []
    for seconds in (0.0, 1e9):  # stretches of the least length; as long as the epoch
        monkeypatch.setattr(run, "_CHUNK_SECONDS", seconds)
        model = make(loss=loss, epochs=3, min_count=2).fit(lines, [f"label {i % 7}" for i in range(5000)])
        histories.append([epoch.loss for epoch in model.history])
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rows", lambda rows: rows[:1]),
        ("rows", lambda rows: rows.astype(np.float64)),
        ("outputs", lambda outputs: outputs * np.float32("nan")),
        ("options", list),
        ("history", lambda history: [{**history[0], "loss": float("nan")}]),
        ("history", lambda history: [{**history[0], "score": "all"}]),
        ("history", lambda history: [{**history[0], "epoch": 2}]),
        ("history", lambda history: [1]),
        ("history", dict),
    ],
)
def test_a_damaged_classifier_is_refused(name, change, texts, tmp_path):
    make(epochs=1, validation=0.2).fit(*texts).save(tmp_path / "m.firth")
    tensors, metadata = files.read_tensors(tmp_path / "m.firth")
    assert firth.load(tmp_path / "m.firth").history[0].score > 0
    held = tensors if name in tensors else metadata
    held[name] = {} if change is dict else change(held[name])
    files.write_tensors(tmp_path / "m.firth", tensors, metadata)
    with pytest.raises(ValueError, match=r"m\.firth is a damaged model"):
        firth.load(tmp_path / "m.firth")


def test_a_file_gives_what_lists_give(tmp_path, texts):
    lines, labels = texts
    labels = [label.replace(" ", "-") for label in labels]
    path = tmp_path / "train.txt"
    path.write_text("".join(f"__label__{y} {x}\n" for x, y in zip(lines, labels, strict=True)))
    a, b = make(word_ngrams=2).fit(path), make(word_ngrams=2).fit(lines, labels)
    assert a.classes_.tolist() == b.classes_.tolist()
    assert a.words == b.words
    np.testing.assert_array_equal(a.predict_proba(lines), b.predict_proba(lines))
    halves = [tmp_path / "1.txt", tmp_path / "2.txt"]
    whole = path.read_text().splitlines(keepends=True)
    for half, part in zip(halves, (whole[:300], whole[300:]), strict=True):
        half.write_text("".join(part))
    c = make(word_ngrams=2).fit(halves)
    np.testing.assert_array_equal(a.predict_proba(lines), c.predict_proba(lines))
    assert a.score(path, None) == a.score(lines, labels)
    other = make(tokenizer=str.split).fit(path)
    assert other.score(path, None) > 0.97


def test_labels_anywhere_in_a_line_and_lines_without(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("red __label__a apple\n\nnothing said\n__label__a __label__b both\nblue sky __label__b\r\n")
    model = make(epochs=200).fit(path)
    assert model.classes_.tolist() == ["a", "b"]
    assert model.predict(["red apple", "blue sky"]).tolist() == ["a", "b"]
    assert "nothing" in model.words
    assert not any(word.startswith("__label__") for word in model.words)


def test_lists_of_tokens(texts):
    lines, labels = texts
    a, b = make().fit(lines, labels), make().fit([line.split() for line in lines], labels)
    np.testing.assert_array_equal(a.predict_proba(lines), b.predict_proba([line.split() for line in lines]))


def test_a_tokenizer(texts):
    lines, labels = texts
    model = make(tokenizer="words").fit([line.upper() for line in lines], labels)
    assert model.score(lines, labels) > 0.97
    assert "o1" in model.words


@pytest.mark.parametrize("kind", [str, int, bool, float])
def test_labels_keep_their_type(kind, texts):
    labels = [kind(i % 2) for i in range(len(texts[0]))]
    model = make(epochs=1).fit(texts[0], labels)
    assert model.classes_.tolist() == sorted(set(labels))
    found = model.predict(texts[0])
    assert type(found.tolist()[0]) is kind
    assert model.fit(texts[0], np.array(labels)).classes_.tolist() == sorted(set(labels))


def test_rare_labels_and_words_are_left_out():
    texts, labels = ["a b", "a b", "a c", "d"], ["x", "x", "y", "z"]
    model = make(min_count=2, min_count_label=2, epochs=1).fit(texts, labels)
    assert model.classes_.tolist() == ["x"]
    assert model.words == ["</s>", "a", "b"]


def test_class_weight():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(2000) < 0.05, "rare", "usual")
    # A hint that is right four times out of five.
    hint = np.where(rng.random(2000) < 0.8, labels == "rare", labels != "rare")
    texts = [f"{'yes' if h else 'no'} w{i % 50}" for i, h in enumerate(hint)]
    plain, balanced = make().fit(texts, labels), make(class_weight="balanced").fit(texts, labels)
    given = make(class_weight={"rare": 10.0, "usual": 0.5}).fit(texts, labels)
    share = [(model.predict(texts) == "rare").mean() for model in (plain, balanced, given)]
    assert share[0] < 0.1
    assert share[1] > 0.15
    assert share[2] > 0.15


def test_a_text_of_weight_0_teaches_nothing(texts):
    lines, labels = texts
    wrong = [f"label {(int(label[-1]) + 1) % 4}" for label in labels]
    weights = [1.0] * len(lines) + [0.0] * len(lines)
    model = make().fit(lines + lines, labels + wrong, sample_weight=weights)
    assert model.score(lines, labels) > 0.97
    assert model.score(lines + lines, labels + wrong, sample_weight=weights) > 0.97


def test_weights_stay_with_their_texts_when_some_are_set_apart(texts):
    lines, labels = texts
    wrong = [f"label {(int(label[-1]) + 1) % 4}" for label in labels]
    both = [line for line in lines for _ in range(2)]
    mixed = [label for pair in zip(labels, wrong, strict=True) for label in pair]
    model = make().fit(both, mixed, sample_weight=[1.0, 0.0] * len(lines), validation=0.3)
    assert model.score(lines, labels) > 0.97


def test_patience_keeps_the_best_epoch():
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{i}" for i in rng.integers(0, 300, 8)) for _ in range(400)]
    labels = rng.integers(0, 2, 400).tolist()  # nothing to learn: scores go up and down
    validation = texts[200:], labels[200:]
    model = make(epochs=40, patience=4).fit(texts[:200], labels[:200], validation=validation)
    scores = [epoch.score for epoch in model.history]
    assert scores[-1] < max(scores)
    assert model.score(*validation) == pytest.approx(max(scores))


def test_test_leaves_out_texts_without_labels(texts):
    lines, labels = texts
    model = make().fit(lines, labels)
    one, more = model.test(lines, labels), model.test([*lines, "o1 o2"], [*([label] for label in labels), []])
    assert (one.texts, one.precision, one.recall) == (more.texts, more.precision, more.recall)
    unknown = model.test([*lines, "o1 o2"], [*labels, "a label of no text"])
    assert unknown.texts == 601
    assert unknown.recall < one.recall


def test_validation_and_patience(texts):
    assert len({*texts[0]}) == 600  # what is set apart is not seen in training
    model = make(validation=0.25).fit(*texts)
    assert [epoch.score is not None for epoch in model.history] == [True] * 10
    assert model.history[-1].score > 0.9
    validation = planted(seed=2)
    stopped = make(epochs=60, patience=2).fit(*texts, validation=validation)
    assert len(stopped.history) < 60
    best = max(epoch.score for epoch in stopped.history)
    assert stopped.score(*validation) == pytest.approx(best)
    assert make().fit(*texts, validation=0.1).history[0].score is not None
    with pytest.raises(ValueError, match="patience needs validation"):
        make(patience=1).fit(*texts)
    with pytest.raises(ValueError, match="validation must be below 1"):
        make().fit(*texts, validation=1.5)
    with pytest.raises(ValueError, match="leaves 600 for training and 0"):
        make().fit(*texts, validation=0.0001)
    with pytest.raises(ValueError, match="validation must contain texts"):
        make().fit(*texts, validation=([], []))


def test_pretrained_vectors(texts):
    rng = np.random.default_rng(0)
    words = ["w0-0", "elsewhere"]
    vectors = firth.Vectors(words, rng.normal(size=(2, 16)).astype(np.float32))
    with pytest.raises(ValueError, match="the vector of 'elsewhere' is not finite"):
        make(pretrained_vectors=firth.Vectors(words, [[0] * 16, [np.inf] * 16]))
    model = make(pretrained_vectors=vectors, epochs=1, learning_rate=1e-30).fit(*texts)
    rows = model._trained.row_of
    for word in words:
        np.testing.assert_array_equal(model._trained.rows[rows[model.words.index(word)]], vectors[word])
    with pytest.raises(ValueError, match="pretrained_vectors have 16 dimensions and vector_size is 8"):
        make(pretrained_vectors=vectors, vector_size=8)
    # A word that no text has is known by its vector.
    near = np.stack([vectors["w0-0"], vectors["w0-0"]])
    model = make(pretrained_vectors=firth.Vectors(["good", "great"], near)).fit(
        ["good day", "bad day"] * 50, ["+", "-"] * 50
    )
    assert model.predict(["great"]).tolist() == ["+"]


# --- prediction ------------------------------------------------------------------------------------------------------


def test_predict(texts):
    lines, labels = texts
    model = make().fit(lines, labels)
    chances = model.predict_proba(lines)
    assert chances.shape == (600, 4)
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(lines), model.classes_[chances.argmax(axis=1)])
    for names, values, row in zip(*model.predict_top(lines[:5], k=3), chances[:5], strict=True):
        order = np.argsort(-row)[:3]
        assert names == model.classes_[order].tolist()
        assert values == pytest.approx(row[order].tolist())
    assert [names for names, *_ in model.predict_top(lines)[0]] == model.predict(lines).tolist()
    for k in (-1, 9):
        assert all(len(one) == 4 for part in model.predict_top(lines[:5], k=k) for one in part)
    assert all(p >= 0.9 for one in model.predict_top(lines, threshold=0.9)[1] for p in one)
    assert {len(one) for one in model.predict_top(lines, threshold=1.1)[0]} == {0}


def test_line_ends_and_other_white_space_change_nothing(texts):
    model = make(word_ngrams=2).fit(*texts)
    line = texts[0][0]
    same = [line, line + "\n", "\n" + line, line.replace(" ", "\n"), line.replace(" ", " \t ")]
    chances = model.predict_proba(same)
    assert (chances == chances[0]).all()


def test_threads_and_blocks_do_not_show(texts, monkeypatch):
    model = make(word_ngrams=2).fit(*texts)
    lines = texts[0] * 3
    expected, ranked = model.predict_proba(lines), model.predict_top(lines, k=2)
    monkeypatch.setattr("firth.models.classifier._PROBABILITIES", 60)
    assert model.predict_top(lines, k=2) == ranked
    np.testing.assert_array_equal(model.predict(lines), model.classes_[expected.argmax(axis=1)])
    model.__dict__["threads"] = 3
    np.testing.assert_array_equal(model.predict_proba(lines), expected)


def test_texts_of_nothing_known(texts):
    for loss in LOSSES:
        model = make(loss=loss, word_ngrams=2, min_count=1000).fit(*texts)
        assert "</s>" not in model.words
        chances = model.predict_proba(["", "zz qq", " \n"])
        assert np.isfinite(chances).all()
        assert model.predict_proba([]).shape == (0, 4)
        assert model.predict([]).shape == (0,)
        assert model.predict_top([], k=2) == ([], [])


def test_more_cases_of_bad_input(texts):
    lines, labels = texts
    model = make(epochs=1)
    for call in (lambda: model.predict(lines), lambda: model.predict_proba(lines), lambda: model.classes_):
        with pytest.raises(AttributeError, match="has not been fitted"):
            call()
    for bad, error, said in [
        ((lines, labels[:-1]), ValueError, "600 texts and 599 labels"),
        ((lines, "abc"), TypeError, "labels is one label; give a list"),
        ((lines, [None] * 600), TypeError, r"the label of texts\[0\] is None"),
        ((lines, [float("nan")] * 600), TypeError, r"texts\[0\] is nan, a NaN"),
        ((lines, [*labels[:-1], 3]), TypeError, "labels must be of one type, not int and str"),
        ((lines, [*labels[:-1], ["a"]]), TypeError, r"labels\[0\] is a str"),
        ((lines, [[]] * 600), ValueError, "no text has a label"),
        (([], []), ValueError, "no text has a label"),
        (([1, 2], ["a", "b"]), TypeError, r"texts\[0\]"),
        ((["a", None], ["a", "b"]), TypeError, r"texts\[1\] is None"),
        (("one text", ["a"]), TypeError, "texts is one text or path"),
        ((["a b", "c"], None), OSError, "for texts in memory, give labels"),
        ((3, None), TypeError, "must be the path of a file"),
    ]:
        with pytest.raises(error, match=said):
            model.fit(*bad)
    for weights, said in [
        ([1.0], "600 numbers"),
        ([-1.0] * 600, r"sample_weight\[0\] is -1"),
        ([np.nan] * 600, r"0 \.\. 1,000,000"),
        ([0] * 600, "all 0"),
    ]:
        with pytest.raises(ValueError, match=said):
            model.fit(lines, labels, sample_weight=weights)
    model.fit(lines, labels)
    with pytest.raises(TypeError, match="give a list of texts"):
        model.predict("one text")
    with pytest.raises(ValueError, match="k must be at least 1"):
        model.predict_top(lines, k=0)
    with pytest.raises(ValueError, match="no label occurs min_count_label=900 times"):
        make(min_count_label=900).fit(lines, labels)
    with pytest.raises(ValueError, match="class_weight names 'x'"):
        make(class_weight={"x": 1}).fit(lines, labels)


def test_a_file_without_labels(tmp_path):
    path = tmp_path / "plain.txt"
    path.write_text("just words\n")
    with pytest.raises(ValueError, match=r"no line of .*plain\.txt has a label: no word begins with '__label__'"):
        make().fit(path)


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"loss": "hinge"}, ValueError, "must be 'softmax', 'ns', 'hs' or 'ova'"),
        ({"vector_size": 0}, ValueError, "vector_size must be at least 1"),
        ({"learning_rate": 0}, ValueError, "learning_rate must be above 0"),
        ({"min_n": 4, "max_n": 3}, ValueError, "must not be above"),
        ({"label_prefix": ""}, ValueError, "must not be empty"),
        ({"class_weight": "even"}, ValueError, "class_weight must be"),
        ({"class_weight": {"a": -1}}, ValueError, r"class_weight\['a'\]"),
        ({"tokenizer": "nltk"}, ValueError, "tokenizer must be"),
        ({"pretrained_vectors": np.ones((2, 3))}, TypeError, "vectors must be firth.Vectors"),
        ({"validation": 1.0}, ValueError, "at most 0.99"),
        ({"patience": 0}, ValueError, "patience must be at least 1"),
        ({"epochs": True}, TypeError, "must be int"),
    ],
)
def test_options_are_checked(options, error, said):
    with pytest.raises(error, match=said):
        make(**options)


@pytest.mark.parametrize("callbacks", [[], [lambda _: None]])
def test_what_the_last_step_leaves_is_checked(texts, monkeypatch, callbacks):
    """No later product has looked at it."""
    train = _core.train_classifier

    def broken(rows, *arguments, **options):
        found = train(rows, *arguments, **options)
        if options["epoch"] == options["epochs"] - 1:
            rows[0, 0] = np.nan
        return found

    model = make(epochs=2).fit(*texts)
    before = model.predict_proba(texts[0])
    monkeypatch.setattr(_core, "train_classifier", broken)
    with pytest.raises(FloatingPointError, match="in epoch 2: a number in rows is not finite"):
        model.fit(*texts, callbacks=callbacks)
    np.testing.assert_array_equal(model.predict_proba(texts[0]), before)


def test_divergence_is_told_and_changes_nothing(texts):
    model = make(epochs=1).fit(*texts)
    before = model.predict_proba(texts[0])
    other = make(learning_rate=3e38)
    other.__dict__.update({**model.__dict__, **other.get_params()})
    with pytest.raises(FloatingPointError, match=r"diverged in epoch 1.*lower learning_rate"):
        other.fit(*texts)
    np.testing.assert_array_equal(other.predict_proba(texts[0]), before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGINT")
def test_ctrl_c_leaves_it_usable():
    code = """
import os, signal, threading, firth
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
texts = [f"w{i % 97} w{i % 89} w{i % 83}" for i in range(20000)]
model = firth.FastTextClassifier(epochs=100000, vector_size=16, threads=1)
threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    model.fit(texts, [i % 2 for i in range(20000)])
except KeyboardInterrupt:
    print(len(model.predict(texts[:3])), len(model.history) > 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env={**os.environ})
    assert done.stdout.split() == ["3", "True"], done.stderr


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_save_and_load(tmp_path, loss, texts):
    model = make(loss=loss, word_ngrams=2, min_n=2, max_n=3, class_weight={"label 1": 2.0}).fit(*texts)
    model.save(tmp_path / "m.firth")
    loaded = firth.load(tmp_path / "m.firth")
    assert isinstance(loaded, firth.FastTextClassifier)
    assert loaded.get_params() == model.get_params()
    assert loaded.history == model.history
    np.testing.assert_array_equal(loaded.predict_proba(texts[0]), model.predict_proba(texts[0]))
    model = make(loss=loss, vector_size=10).fit(*texts)  # rows that are padded
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(texts[0]), model.predict_proba(texts[0]))


def test_what_cannot_be_saved(tmp_path, texts):
    with pytest.raises(AttributeError, match="has not been fitted"):
        make().save(tmp_path / "m")
    with pytest.raises(ValueError, match="tokenizer is a function"):
        make(tokenizer=str.split, epochs=1).fit(*texts).save(tmp_path / "m")


@pytest.mark.parametrize("loss", LOSSES)
def test_fasttext_file_round_trip(tmp_path, loss, texts):
    lines, labels = texts
    model = make(loss=loss, word_ngrams=2, max_n=3).fit(lines, [label.replace(" ", "-") for label in labels])
    path = tmp_path / "m.bin"
    model.to_fasttext(path)
    again = firth.FastTextClassifier.from_fasttext(path)
    unseen = [*planted(seed=3)[0], "never seen before", ""]
    np.testing.assert_array_equal(again.predict_proba(unseen), model.predict_proba(unseen))
    assert len(again._trained.rows) <= len(model._trained.rows)  # not all buckets
    assert (again.loss, again.word_ngrams, again.max_n) == (loss, 2, 3)


@pytest.mark.parametrize("norms", [False, True])
@pytest.mark.parametrize("output", [False, True])
def test_quantize(tmp_path, norms, output, texts):
    lines, labels = texts
    model = make(word_ngrams=2).fit(lines, [label.replace(" ", "-") for label in labels])
    other = planted(seed=4)[0]
    small = model.quantize(cutoff=100, norms=norms, output=output)
    assert len(small._trained.rows) == 100
    assert "</s>" in small.words
    assert (small.predict(other) == model.predict(other)).mean() > 0.95
    small.to_fasttext(tmp_path / "m.ftz")
    small.save(tmp_path / "m.firth")
    for again in (firth.FastTextClassifier.from_fasttext(tmp_path / "m.ftz"), firth.load(tmp_path / "m.firth")):
        np.testing.assert_array_equal(again.predict_proba(other), small.predict_proba(other))
        again.to_fasttext(tmp_path / "again.ftz")
        assert (tmp_path / "again.ftz").stat().st_size == (tmp_path / "m.ftz").stat().st_size
    assert (tmp_path / "m.ftz").stat().st_size < 100_000
    with pytest.raises(ValueError, match="quantized already"):
        small.quantize()


def test_what_is_left_after_pruning_can_be_trained_again(texts):
    lines, labels = texts
    model = make(epochs=2, learning_rate=0.05).fit(lines, labels)
    plain, again = model.quantize(cutoff=60), model.quantize(lines, labels, cutoff=60)
    assert len(again.history) == 4
    assert again.history[-1].loss < model.history[-1].loss
    assert again.score(lines, labels) >= plain.score(lines, labels)


def small_file(**changes):
    """What a file of a classifier of three words, two labels and five buckets holds."""
    matrices = {name: np.ones((n, 4), np.float32) for name, n in (("input", 8), ("output", 2))}
    fields = {
        "model": "supervised",
        "loss": "softmax",
        "vector_size": 4,
        "window": 5,
        "epochs": 1,
        "min_count": 1,
        "negative": 5,
        "word_ngrams": 2,
        "bucket": 5,
        "min_n": 0,
        "max_n": 0,
        "update_rate": 100,
        "sample": 1e-4,
        "words": [b"a", b"b", b"</s>"],
        "labels": [b"__label__x", b"__label__y"],
        "n_tokens": 9,
        "counts": np.array([3, 2, 1, 3, 2]),
        **matrices,
    }
    return fasttext_format.FastTextFile(**{**fields, **changes})


def not_finite(matrix, value):
    matrix[-1, -1] = value
    return matrix


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": not_finite(np.ones((8, 4), np.float32), np.nan)}, "words and n-grams contain a number"),
        ({"output": not_finite(np.ones((2, 4), np.float32), np.inf)}, "labels contain a number"),
        ({"min_n": 5, "max_n": 3}, r"min_n \(5\) must not be above max_n \(3\)"),
        ({"word_ngrams": 2000}, "word_ngrams must be"),
        ({"labels": [b"__label__x"] * 2}, "the label 'x' occurs twice"),
        ({"words": [b"a", b"b", b"a"]}, "the word 'a' occurs twice"),
        ({"labels": [], "counts": np.arange(3), "output": np.ones((0, 4), np.float32)}, "it lacks labels"),
        ({"loss": "hs", "counts": np.arange(5)}, "are not in the order of their counts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(tmp_path, changes, said):
    fasttext_format.write(tmp_path / "m.bin", small_file(**changes))
    with pytest.raises(ValueError, match=rf"m\.bin .*{said}"):
        firth.FastTextClassifier.from_fasttext(tmp_path / "m.bin")


def test_rows_of_ngrams_that_no_text_has_are_left_out(tmp_path):
    """fastText once wrote them."""
    plain = small_file(word_ngrams=1)
    for stored in (plain, dataclasses.replace(plain, input=QuantizedMatrix.of(plain.input, norms=True))):
        fasttext_format.write(tmp_path / "m.bin", stored)
        model = firth.FastTextClassifier.from_fasttext(tmp_path / "m.bin")
        expected = model.predict_top(["a b c"], k=-1)
        model.save(tmp_path / "m.model")
        model.to_fasttext(tmp_path / "again.bin")
        assert firth.load(tmp_path / "m.model").predict_top(["a b c"], k=-1) == expected
        assert firth.FastTextClassifier.from_fasttext(tmp_path / "again.bin").predict_top(["a b c"], k=-1) == expected


def test_words_that_are_not_utf_8_do_not_keep_a_classifier_from_being_read(tmp_path):
    fasttext_format.write(tmp_path / "m.bin", small_file(words=[b"a", b"\xff", b"</s>"]))
    with pytest.warns(UserWarning, match=r"m\.bin has 1 words that are not UTF-8") as caught:
        model = firth.FastTextClassifier.from_fasttext(tmp_path / "m.bin")
    assert caught[0].filename == __file__
    assert model.words[1] == "\\xff"


@pytest.mark.parametrize(
    ("tensors", "metadata", "said"),
    [
        ({"rows": np.full((9, 16), np.nan, np.float32)}, {}, "words and n-grams contain a number"),
        ({"features": np.array([0, 1, 2, 3, 4, 5, 6, 7, -1])}, {}, "rows must be one for each of 5 words"),
        ({"features": np.array([0, 1, 2, 3, 4, 5, 6, 7, 7])}, {}, "rows must be one for each of 5 words"),
        ({"features": np.arange(9.0)}, {}, "do not fit together"),
        ({"counts": np.ones(7)}, {}, "do not fit together"),
        ({}, {"missing": 5}, "do not fit together"),
        ({}, {"labels": ["a", 1]}, "neither all strings nor all numbers"),
        ({}, {"labels": [None, None]}, "neither all strings nor all numbers"),
        ({}, {"n_tokens": "many"}, "n_tokens must be a whole number"),
    ],
)
def test_a_damaged_model_is_refused_by_name(tmp_path, tensors, metadata, said):
    path = tmp_path / "m.model"
    make(word_ngrams=2, bucket=50).fit(["a b", "c d"] * 4, ["x", "y"] * 4).save(path)
    held, own = files.read_own(path, "model")
    assert len(held["rows"]) == 9
    files.write_tensors(path, {**held, **tensors}, {**own, **metadata})
    with pytest.raises(ValueError, match=rf"m\.model is a damaged model.*{said}"):
        firth.load(path)


def test_damaged_codes_are_refused_by_name(tmp_path):
    path = tmp_path / "m.model"
    make().fit(["a b", "c d"] * 4, ["x", "y"] * 4).quantize().save(path)
    held, own = files.read_own(path, "model")
    for wrong in ({"rows.part_size": np.array([0])}, {"rows.part_size": np.zeros(0, np.int64)}):
        files.write_tensors(path, {**held, **wrong}, own)
        with pytest.raises(ValueError, match=r"m\.model is a damaged model"):
            firth.load(path)


def test_from_fasttext_refuses_other_models(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"nothing of the kind, and long enough")
    with pytest.raises(ValueError, match="is not a fastText model"):
        firth.FastTextClassifier.from_fasttext(path)


# --- fastText itself -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fasttext():
    module = pytest.importorskip("fasttext")
    module.FastText.eprint = lambda *args, **kwargs: None
    return module


def ask(theirs, lines, labels, k=-1):
    """What the fastText package says, as a matrix; its own wrapper does not run on NumPy 2."""
    out = np.zeros((len(lines), len(labels)))
    for i, line in enumerate(lines):
        for chance, label in theirs.f.predict(line + "\n", k, 0.0, "strict"):
            out[i, labels.index(label.removeprefix("__label__"))] = chance
    return out


TOLERANCE = {"softmax": 2e-5, "hs": 3e-5, "ova": 1e-2, "ns": 1e-2}  # theirs: a table of sigmoids, log(p + 1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("word_ngrams", "max_n"), [(1, 0), (3, 0), (2, 3)])
def test_fasttext_reads_ours(fasttext, tmp_path, loss, word_ngrams, max_n, texts):
    lines, labels = texts
    model = make(loss=loss, word_ngrams=word_ngrams, min_n=2 if max_n else 0, max_n=max_n, min_count=2).fit(
        lines, [label.replace(" ", "-") for label in labels]
    )
    model.to_fasttext(tmp_path / "m.bin")
    theirs = fasttext.load_model(str(tmp_path / "m.bin"))
    other = [*planted(seed=3)[0], "never seen before", "naïve 日本語 o1", "o1 __label__x o2", "__label__"]
    expected = model.predict_proba(other)
    np.testing.assert_allclose(ask(theirs, other, model.classes_.tolist()), expected, atol=TOLERANCE[loss])
    small = model.quantize(cutoff=150)
    small.to_fasttext(tmp_path / "m.ftz")
    theirs = fasttext.load_model(str(tmp_path / "m.ftz"))
    np.testing.assert_allclose(
        ask(theirs, other, model.classes_.tolist()), small.predict_proba(other), atol=TOLERANCE[loss]
    )


HOSTILE = [
    *("o1 __label__x o2", "o1 __label__unheard o2", "__label__", "o1 </s> o2 o3 o4", "</s> o1", " </s>o1", "o1 </s>"),
    *("o1\0o2 o3", "o1\u0085o2", "o1\u00a0o2 o3", "o1\u3000o2", "o1\x1co2", "\x1fo1", "o1\u2028o2", "o1\vo2", "o1\r"),
    "",
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("word_ngrams", "max_n"), [(1, 0), (2, 3)])
def test_we_read_fasttexts(fasttext, tmp_path, loss, word_ngrams, max_n, texts):
    lines, labels = texts
    path = tmp_path / "train.txt"
    path.write_text(
        "".join(f"__label__{y.replace(' ', '-')} {x}\n" for x, y in zip(lines, labels, strict=True)), encoding="utf-8"
    )
    theirs = fasttext.train_supervised(
        str(path),
        loss=loss,
        dim=20,  # and of what no ten parts hold, the last numbers
        lr=0.5,
        epoch=10,
        wordNgrams=word_ngrams,
        minn=2 if max_n else 0,
        maxn=max_n,
        bucket=3000,
        thread=10,  # each initializes a tenth of the rows; with fewer, the rest are what memory happens to hold
        verbose=0,
    )
    theirs.save_model(str(tmp_path / "m.bin"))
    other = [*planted(seed=3)[0], "never seen before", "naïve 日本語 o1", *HOSTILE]
    ours = firth.FastTextClassifier.from_fasttext(tmp_path / "m.bin")
    ours.save(tmp_path / "m.model")
    assert (firth.load(tmp_path / "m.model").predict_proba(iter(other)) == ours.predict_proba(other)).all()
    with (tmp_path / "new.txt").open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"__label__{label} {line}\n" for label, line in zip(ours.predict(other), other, strict=True))
    assert ours.score(tmp_path / "new.txt") == 1
    np.testing.assert_allclose(
        ask(theirs, other, ours.classes_.tolist()), ours.predict_proba(other), atol=TOLERANCE[loss]
    )
    if not max_n:
        return  # it quantizes 256 rows or more
    theirs.quantize(cutoff=300, retrain=False, qnorm=True)
    theirs.save_model(str(tmp_path / "m.ftz"))
    ours = firth.FastTextClassifier.from_fasttext(tmp_path / "m.ftz")
    np.testing.assert_allclose(
        ask(theirs, other, ours.classes_.tolist()), ours.predict_proba(other), atol=TOLERANCE[loss]
    )


# --- scikit-learn ----------------------------------------------------------------------------------------------------


def test_scikit_learn(texts):
    pytest.importorskip("sklearn")
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import GridSearchCV, cross_val_score
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    lines, labels = texts
    model = make(epochs=5)
    assert is_classifier(model)
    assert clone(model).get_params() == model.get_params()
    assert (cross_val_score(model, lines, labels, cv=3) > 0.9).all()
    search = GridSearchCV(model, {"epochs": [1, 10], "class_weight": [None, "balanced"]}, cv=2, scoring="accuracy")
    search.fit(np.array(lines), np.array(labels))
    assert search.best_params_["epochs"] == 10
    pipeline = Pipeline([("lower", FunctionTransformer(lambda x: [t.lower() for t in x])), ("classify", model)])
    assert pipeline.fit(lines, labels).score(lines, labels) > 0.9
    assert (pipeline.predict_proba(lines[:2]).argmax(axis=1) >= 0).all()
    assert cross_val_score(model, lines, labels, cv=2, scoring="neg_log_loss").mean() > -0.5


def test_set_params():
    model = make()
    assert model.set_params(epochs=7, loss="ova") is model
    assert (model.epochs, model.loss) == (7, "ova")
    with pytest.raises(ValueError, match="no option 'depth'"):
        model.set_params(depth=3)
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        model.set_params(epochs=0)
    assert model.epochs == 7


def test_labels_of_another_type_are_told(texts, tmp_path):
    lines, labels = texts
    numbers = [sorted(set(labels)).index(label) for label in labels]
    path = tmp_path / "t.txt"
    path.write_text("".join(f"__label__{y} {x}\n" for x, y in zip(lines, numbers, strict=True)), encoding="utf-8")
    counted = make().fit(lines, numbers)
    # A file holds numbers as text, and cannot mean anything else by them.
    assert counted.score(path) == counted.score(lines, numbers) > 0.97
    assert counted.test(path).recall > 0.97
    assert make(validation=0.2).fit(lines, numbers, validation=path).history[-1].score > 0.97
    counted.to_fasttext(tmp_path / "m.bin")
    named = firth.FastTextClassifier.from_fasttext(tmp_path / "m.bin")
    assert named.score(path) == named.score(lines, list(map(str, numbers))) == counted.score(path)
    for model, given, said in (
        (named, numbers, "labels are of type int, such as 0, .* type str, such as '.': .* Give them as str"),
        (counted, list(map(str, numbers)), "labels are of type str, .* type int, .* Give them as int"),
    ):
        for ask in (model.score, model.test, model.quantize):
            with pytest.raises(TypeError, match=said):
                ask(lines, given)
        with pytest.raises(TypeError, match=said):
            make().fit(lines, model.predict(lines), validation=(lines, given))
    assert make().fit(lines, [label == labels[0] for label in labels]).score(lines, [0] * len(lines)) < 1  # 0 is False


def test_a_label_that_no_file_can_hold(tmp_path):
    for label, said in (("a\0b", "holds a NUL"), ("\ud800", "the label .* is not valid Unicode")):
        with pytest.raises(ValueError, match=rf"cannot write .*m\.bin.*{said}"):
            make().fit(["a b", "c d"] * 4, [label, "x"] * 4).to_fasttext(tmp_path / "m.bin")
    assert not list(tmp_path.iterdir())


def test_few_texts_take_one_thread(monkeypatch, texts):
    """Waking others costs more than reading a text."""
    model, taken = make(threads=4).fit(*texts), []
    count = corpus.count_documents
    monkeypatch.setattr(
        corpus, "count_documents", lambda texts, options, **_: taken.append(options.threads) or count(texts, options)
    )
    model.predict(texts[0][:1])
    model.predict(texts[0])
    assert taken == [1, len(texts[0]) // 256]


def test_words_that_are_labels_are_no_words(texts):
    lines, labels = texts
    model = make(word_ngrams=2, max_n=3, min_n=1).fit(lines, labels)
    few = lines[:20]
    marked = [line.replace(" ", " __label__x __label__ ", 1) for line in few]
    np.testing.assert_array_equal(model.predict_proba(marked), model.predict_proba(few))
    given = make(word_ngrams=2).fit(marked * 5, labels[:20] * 5)  # unless they were among the words
    assert "__label__x" in given.words
    assert (given.predict_proba(marked) != given.predict_proba(few)).any()


def test_a_matrix_of_indicators_is_no_list_of_labels(texts):
    lines, _ = texts
    indicators = np.tile(np.array([[1, 0], [0, 1]]), (len(lines), 1))[: len(lines)]
    with pytest.raises(TypeError, match="a matrix of indicators: give a list of labels"):
        make().fit(lines, indicators)


def test_a_tokenizer_that_a_file_cannot_name(texts, tmp_path):
    model = make(tokenizer="words", epochs=1).fit(*texts)
    with pytest.warns(UserWarning, match="cannot store the tokenizer"):
        model.to_fasttext(tmp_path / "m.bin")


# --- the estimator ---------------------------------------------------------------------------------------------------


def test_clones_share_what_is_never_trained():
    pytest.importorskip("sklearn")
    from sklearn.base import clone

    vectors = firth.Vectors(["a"], np.ones((1, 16), np.float32))
    model = make(pretrained_vectors=vectors, class_weight={"x": 2.0}).fit(["a b", "c d"] * 4, ["x", "y"] * 4)
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.pretrained_vectors is vectors
    assert copy.history == []
    assert make().set_params(learning_rate=np.float64(0.3)).learning_rate == 0.3


@pytest.mark.parametrize("stop", [1, 4])
def test_resumed_equals_uninterrupted(texts, tmp_path, stop):
    options = {"threads": 1, "validation": 0.2, "patience": 3, "epochs": 9}
    whole = make(**options).fit(*texts)
    make(**options).fit(*texts, checkpoint=tmp_path, callbacks=[lambda model: len(model.history) == stop])
    with pytest.raises(ValueError, match="resume=True"):
        make(**options).fit(*texts, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="learning_rate was"):
        make(**options, learning_rate=0.3).fit(*texts, checkpoint=tmp_path, resume=True)
    with pytest.raises(ValueError, match="the data differ"):
        make(**options).fit(texts[0][:-1], texts[1][:-1], checkpoint=tmp_path, resume=True)
    resumed = make(**options).fit(*texts, checkpoint=tmp_path, resume=True)
    assert [(one.loss, one.score) for one in resumed.history] == [(one.loss, one.score) for one in whole.history]
    np.testing.assert_array_equal(resumed.predict_proba(texts[0]), whole.predict_proba(texts[0]))


def test_two_fits_of_one_object_at_once_are_refused(texts):
    """The second comes from the tokenizer, in the midst of the first."""
    refused = []

    def split(text):
        if not refused:
            with pytest.raises(RuntimeError, match="FastTextClassifier is being fitted already") as caught:
                model.fit(*texts)
            refused.append(caught)
        return text.split()

    model = make(epochs=1, tokenizer=split)
    model.fit(*texts)
    assert len(refused) == 1
    model.fit(*texts)  # and the first one's end sets it free
    with pytest.raises(ValueError, match="labels"):
        model.fit(texts[0], texts[1][:-1])
    assert model.fit(*texts).score(*texts) > 0.5


def test_random_labels_stay_at_chance():
    """Of texts that training has not seen; a higher score would mean that their labels had leaked."""
    lines, _ = planted(900, seed=5)
    assert len(set(lines)) == 900
    labels = np.random.default_rng(6).integers(0, 2, 900).tolist()
    model = make(epochs=20, word_ngrams=2).fit(lines[:400], labels[:400])
    assert model.score(lines[:400], labels[:400]) > 0.9
    assert abs(model.score(lines[400:], labels[400:]) - 0.5) < 3.3 * (0.25 / 500) ** 0.5
    apart = make(epochs=20, word_ngrams=2, validation=0.5).fit(lines, labels)
    assert abs(apart.history[-1].score - 0.5) < 3.3 * (0.25 / 450) ** 0.5


def test_the_score_of_no_text_is_an_error():
    model = make(epochs=1).fit(["a b", "c d"], ["p", "n"])
    with pytest.raises(ValueError, match="there is no text to score"):
        model.score([], [])
