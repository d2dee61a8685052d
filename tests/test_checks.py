"""What callers may give, and that every entry point asks the same check."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import firth
from firth import Corpus, FastTextClassifier, GloVe, Vectors, Vocabulary, Word2Vec, checks
from firth.quantization import ProductQuantizer, QuantizedMatrix


class Dataset:
    """As Hugging Face's: iterating gives rows, and `column_names` says what is in them."""

    column_names = ("text", "label")

    def __len__(self):
        return 3

    def __getitem__(self, key):
        return ["a b", "b c", "c d"] if key == "text" else {"text": "a b", "label": "x"}

    def __iter__(self):
        return iter([{"text": "a b", "label": "x"}] * 3)


class Frame:
    """As a table of pandas or polars: iterating gives the names of its columns."""

    columns = ("label", "text")
    ndim = 2

    def __len__(self):
        return 3

    def __iter__(self):
        return iter(self.columns)


ROWS = [{"text": "a b", "label": "x"}, {"text": "b c", "label": "y"}]
WRONG = {
    "string": ("a text", r"is one text; give a list of texts: \[text\]"),
    "bytes": (b"a text", "is one text; give a list of texts"),
    "dict": (
        {"label": ["x"], "text": ["a b"]},
        r"is a dict; give the list under one of its keys \('label', 'text'\), such as \w+\['text'\], or list\(\w+.val",
    ),
    "frame": (Frame(), r"is a Frame; give one of its columns \('label', 'text'\), such as \w+\['text'\]"),
    "dataset": (Dataset(), r"is a Dataset; give one of its columns \('text', 'label'\), such as \w+\['text'\]"),
    "rows": (ROWS, r"\[0\] is a dict; give what is under one of its keys .*, such as \[row\['text'\] for row in \w+\]"),
    "matrix": (np.array([["a b", "x"], ["b c", "y"]]), r"is an array with 2 dimensions; give one column of it, \w+\[:"),
    "set": ({"a b", "b c"}, r"is a set, whose order changes from run to run; give sorted"),
    "number": (3, "must be an iterable of texts|fit takes"),
}


def static_entries():
    classifier = firth.FastTextClassifier(vector_size=2, epochs=1, threads=1)
    fitted = firth.FastTextClassifier(vector_size=2, epochs=1, threads=1).fit(["a b", "c d"] * 3, ["x", "y"] * 3)
    return {
        "Corpus.from_iterable": lambda given: firth.Corpus.from_iterable(given, min_count=1),
        "FastTextClassifier.fit": lambda given: classifier.fit(given, ["x", "y"]),
        "FastTextClassifier.predict": fitted.predict,
        "FastTextClassifier.score": lambda given: fitted.score(given, ["x", "y"]),
    }


def contextual_entries():
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    from firth.contextual import BERT, GPT, ELMo, SentenceClassifier, TokenIds, Tokenizer
    from planted import SMALL

    texts = ["a b", "b c", "c d"] * 3
    gpt = GPT(**SMALL, tokenizer="wordlevel", steps=1).fit(texts)
    elmo = ELMo(hidden=2, projection=2, character_dim=2, filters=((1, 2),), steps=1, threads=1).fit(texts)
    tokenizer = gpt.tokenizer_
    return {
        "GPT.fit": GPT(**SMALL).fit,
        "GPT.fit with a tokenizer": GPT(**SMALL, tokenizer=tokenizer).fit,
        "BERT.fit": BERT(**SMALL).fit,
        "ELMo.fit": ELMo().fit,
        "GPT.encode": gpt.encode,
        "GPT.score": gpt.score,
        "ELMo.encode": elmo.encode,
        "ELMo.batch": elmo.batch,
        "ELMo.perplexity": elmo.perplexity,
        "SentenceClassifier.fit": lambda given: SentenceClassifier(encoder=gpt).fit(given, ["x", "y"]),
        "TokenIds.build": lambda given: TokenIds.build(given, tokenizer),
        "Tokenizer.train": lambda given: Tokenizer.train(given, tokenizer="wordlevel"),
        "Tokenizer.encode_batch": tokenizer.encode_batch,
        "Tokenizer.encode_ids": tokenizer.encode_ids,
    }


@pytest.mark.parametrize("entries", [static_entries, contextual_entries])
def test_every_entry_refuses_what_is_no_column_of_texts(entries):
    """A table or a dict would silently have its columns' names used as words."""
    for entry, take in entries().items():
        for what, (given, said) in WRONG.items():
            if what == "string" and entry.endswith((".fit", "tokenizer", "build", "perplexity", "Classifier.score")):
                continue  # a path: that there is no such file is said there
            with pytest.raises(TypeError) as raised:
                take(given)
            assert raised.match(said), (entry, what)


def test_rows_of_a_table_are_refused_from_iterators_too():
    pytest.importorskip("torch")
    pytest.importorskip("tokenizers")
    from firth.contextual.tokenizer import Tokenizer

    tokenizer = Tokenizer.train(["a b"] * 3, tokenizer="wordlevel")
    for take in (tokenizer.encode_ids, tokenizer.encode_batch):
        with pytest.raises(TypeError, match=r"such as \[row\['text'\] for row in texts\]"):
            take(iter(ROWS))
    with pytest.raises(TypeError, match=r"documents\[1\] is of type dict, .* row\['text'\]"):
        firth.Corpus.from_iterable(iter([["a"], ROWS[0]]), min_count=1)


def test_labels_are_a_column_too():
    texts, classifier = ["a b", "c d"], firth.FastTextClassifier(vector_size=2, epochs=1, threads=1)
    for labels, said in (
        (Frame(), r"labels is a Frame; give one of its columns \('label', 'text'\), such as labels\['label'\]"),
        ({"label": ["x", "y"]}, "labels is a dict"),
        ({"x", "y"}, "labels is a set"),
        (ROWS, r"\[row\['label'\] for row in labels\]"),
    ):
        with pytest.raises(TypeError, match=said):
            classifier.fit(texts, labels)


def test_what_a_table_really_is():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a b", "b c"], "stars": [1, 2]})
    with pytest.raises(TypeError, match=r"columns \('text', 'stars'\), such as texts\['text'\]"):
        checks.column("texts", frame)
    with pytest.raises(TypeError, match="2 dimensions"):
        checks.column("texts", frame[["text"]].to_numpy())
    for fine in (frame["text"], frame["text"].to_numpy(), frame["text"].tolist(), iter(["a"]), {"a": 1}.keys()):
        assert checks.column("texts", fine) is fine


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, " is None, neither a text nor a list of words; drop missing"),
        (float("nan"), " is nan, neither a text nor a list of words; drop missing"),
        (b"a", " is of type bytes, .*; decode it first"),
        ({"a"}, " is of type set"),
        (3, " is of type int"),
        (["a", 3], r"\[1\] is of type int, not a string"),
    ],
)
def test_items_that_are_neither_texts_nor_lists_of_words(given, said):
    with pytest.raises(TypeError, match=rf"^x{said}"):
        checks.text_or_words("x", given)


def test_lists_of_words():
    assert checks.text_or_words("x", "a b") == "a b"
    for given in (["a", "b"], ("a", "b"), np.array(["a", "b"]), iter(["a", "b"])):
        assert checks.text_or_words("x", given) == ["a", "b"]


def test_functions_come_in_a_list():
    def report(_):
        """Nothing."""

    assert checks.functions("callbacks", (report,)) == [report]
    for given, said in (
        (report, r"callbacks must be a list of functions, not function: give \[report\]"),
        (lambda _: None, r"not function: give \[function\]"),
        (3, "callbacks must be a list of functions, not int$"),
        ([report, 3], r"callbacks\[1\] must be a function, not int"),
    ):
        with pytest.raises(TypeError, match=said):
            checks.functions("callbacks", given)


VECTORS = Vectors(["a", "b"], np.eye(2, 4))
MATRIX = np.ones((300, 4), np.float32)
TEXTS = ["red apple", "green pear"]


@pytest.mark.parametrize("number", [10**400, -(10**400), Fraction(10**400)])
def test_numbers_too_large_for_a_float_are_out_of_range(number):
    for make in (
        lambda: Word2Vec(learning_rate=number),
        lambda: Word2Vec(sample=-abs(number)),
        lambda: GloVe(x_max=number),
        lambda: VECTORS.most_similar([("a", number)]),
    ):
        with pytest.raises(ValueError, match=r"must be .*, not -?inf"):
            make()


def masked(values):
    return np.ma.array(values, mask=np.zeros(np.shape(values), bool))


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("matrix", lambda: Vectors(["a", "b"], masked(np.eye(2)))),
        ("queries", lambda: VECTORS.search(masked(np.ones((1, 4))))),
        ("vector", lambda: VECTORS.most_similar(masked(np.ones(4)))),
        ("vector", lambda: VECTORS.most_similar(["a", masked(np.ones(4))])),
        ("counts", lambda: Vocabulary(["a"], masked([1]))),
        ("ids", lambda: Corpus(Vocabulary(["a"]), masked([0]), [0, 1])),
        ("offsets", lambda: Corpus(Vocabulary(["a"]), [0], masked([0, 1]))),
        ("sample_weight", lambda: FastTextClassifier().fit(TEXTS, ["a", "b"], sample_weight=masked([1.0, 1.0]))),
        ("matrix", lambda: ProductQuantizer.fit(masked(MATRIX))),
        ("matrix", lambda: ProductQuantizer.fit(MATRIX).encode(masked(MATRIX))),
        ("matrix", lambda: QuantizedMatrix.of(masked(MATRIX))),
        ("codes", lambda: ProductQuantizer.fit(MATRIX).decode(masked(np.zeros((3, 2), np.uint8)))),
    ],
)
def test_masked_arrays_are_refused(name, call):
    with pytest.raises(TypeError, match=rf"{name} must not be a masked array, .* pass {name}\.filled\(value\)"):
        call()
