"""fastText's model files: what fastText writes read back to the bit, what firth writes read by fastText and gensim."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import random
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from firth import Vectors, fasttext_format, load_vectors
from firth.fasttext_format import FastTextFile, RowBlocks
from firth.quantization import QuantizedMatrix

WORDS = ["naïve", "日本語", "the", "a", "😀x", "<x>", "antidisestablishment", *(f"w{i}" for i in range(300))]
UNKNOWN = ["unseen", "ünséen", "w3xy", "日本", "q", ""]

# ten threads, because each fills a tenth of fastText's matrix, and ten columns, because it forgets what is left over.
COMMON = {"dim": 10, "epoch": 2, "minCount": 1, "thread": 10, "verbose": 0}
KINDS = {
    "skipgram": {"model": "skipgram", "minn": 2, "maxn": 5, "bucket": 1000, "t": 0.01, "ws": 3, "neg": 4},
    "cbow": {"model": "cbow", "loss": "hs", "minn": 1, "maxn": 3, "bucket": 500},
    "no subwords": {"model": "skipgram", "minn": 0, "maxn": 0},
    "softmax": {"loss": "softmax", "wordNgrams": 2, "bucket": 500},
    "hs": {"loss": "hs", "minn": 2, "maxn": 4, "bucket": 700},
    "ova": {"loss": "ova"},
    "quantized": {"minn": 2, "maxn": 4, "bucket": 700, "wordNgrams": 2, "quantize": {}},
    "quantized lengths": {"minn": 2, "maxn": 4, "bucket": 700, "quantize": {"qnorm": True, "dsub": 4}},
    "quantized output": {"bucket": 700, "wordNgrams": 3, "quantize": {"qout": True, "qnorm": True, "dsub": 3}},
    "pruned": {"minn": 2, "maxn": 4, "bucket": 700, "quantize": {"cutoff": 400}},
    "pruned to words": {"wordNgrams": 1, "quantize": {"cutoff": 280, "qnorm": True}},
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A text whose lines have labels, of which there are enough to be quantized."""
    draw = random.Random(1)
    lines = [f"__label__{i % 290} {' '.join(draw.choices(WORDS, k=8))} {WORDS[i % 300]}\n" for i in range(900)]
    path = tmp_path_factory.mktemp("fasttext") / "text"
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=KINDS)
def trained(request, fasttext, text, tmp_path_factory):
    """A model of the package's, and the file it wrote."""
    options = {**COMMON, **KINDS[request.param]}
    quantize = options.pop("quantize", None)
    train = fasttext.train_unsupervised if "model" in options else fasttext.train_supervised
    model = train(str(text), **options)
    if quantize is not None:
        model.quantize(**quantize)
    path = tmp_path_factory.mktemp("model") / "model.bin"
    model.save_model(str(path))
    return model, path


def vectors_of(model, words):
    """By the package, which this way needs no NumPy of the age of its own."""
    return np.stack([model.get_word_vector(word) for word in words])


def predictions_of(model, text):
    return [(label, round(share, 6)) for share, label in model.f.predict(text + "\n", 5, 0.0, "strict")]


def same_matrices(a, b):
    if isinstance(a, QuantizedMatrix):
        return a.shape == b.shape and (a.rows(slice(None)) == b.rows(slice(None))).all()
    return (a == b).all()


# ---- what fastText writes


def test_vectors_are_fasttext_s(trained):
    model, path = trained
    found = fasttext_format.read(path)
    words = [word.decode() for word in found.words]
    assert words == model.words
    assert "</s>" in words
    exact = vectors_of(model, words)
    np.testing.assert_allclose(found.word_vectors(), exact, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.word_vectors(7), exact[:7], rtol=0, atol=1e-6)
    asked = [*UNKNOWN, "the", "</s>"]
    found_vectors = found.vectors_of([word.encode() for word in asked])
    np.testing.assert_allclose(found_vectors, vectors_of(model, asked), rtol=0, atol=1e-6)
    loaded = load_vectors(path)
    assert loaded.words == words
    np.testing.assert_array_equal(loaded.matrix, found.word_vectors())


def test_the_rest_is_fasttext_s(trained):
    model, path = trained
    found = fasttext_format.read(path)
    arguments = model.f.getArgs()
    for ours, theirs in (
        ("vector_size", "dim"),
        ("window", "ws"),
        ("epochs", "epoch"),
        ("min_count", "minCount"),
        ("negative", "neg"),
        ("word_ngrams", "wordNgrams"),
        ("bucket", "bucket"),
        ("min_n", "minn"),
        ("max_n", "maxn"),
        ("update_rate", "lrUpdateRate"),
        ("sample", "t"),
    ):
        assert getattr(found, ours) == getattr(arguments, theirs), ours
    assert found.loss == arguments.loss.name
    assert found.model == {"sg": "skipgram", "sup": "supervised"}.get(arguments.model.name, arguments.model.name)
    words, counts = model.get_words(include_freq=True)
    assert found.counts[: len(words)].tolist() == list(counts)
    if found.model == "supervised":
        labels, counts = model.get_labels(include_freq=True)
        assert [label.decode() for label in found.labels] == labels
        assert found.counts[len(words) :].tolist() == list(counts)
    assert found.n_tokens == 900 * 11  # the ends of the lines are tokens
    assert isinstance(found.input, QuantizedMatrix) == model.is_quantized()
    if not model.is_quantized():
        np.testing.assert_array_equal(found.input, model.get_input_matrix())
        assert not found.input.flags.owndata
        np.testing.assert_array_equal(found.output, model.get_output_matrix())


def test_written_again_the_bytes_are_the_same(trained, tmp_path):
    _, path = trained
    fasttext_format.write(tmp_path / "again", fasttext_format.read(path))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_quantized_as_well_as_by_fasttext(fasttext, text, tmp_path):
    model = fasttext.train_supervised(str(text), minn=2, maxn=5, bucket=3000, **COMMON)
    matrix = model.get_input_matrix()
    for norms, part_size in ((False, 2), (True, 2), (False, 4)):
        model.save_model(str(tmp_path / "plain"))
        theirs = fasttext.load_model(str(tmp_path / "plain"))
        theirs.quantize(qnorm=norms, dsub=part_size)
        theirs.save_model(str(tmp_path / "quantized"))
        ours = QuantizedMatrix.of(matrix, part_size, norms=norms)
        errors = [
            float(((one.rows(slice(None)) - matrix) ** 2).mean())
            for one in (ours, fasttext_format.read(tmp_path / "quantized").input)
        ]
        assert errors[0] < 1.05 * errors[1]


# ---- what firth writes


def rows(n, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((n, columns)).astype(np.float32)


def small_model(kind="supervised", *, pruned=False, quantized=(), size=4, bucket=20, **options):
    words = ["the", "naïve", "日本", "</s>"]
    labels = ["__label__a", "__label__b", "__label__c"] if kind == "supervised" else []
    left = None
    if pruned:
        left = np.array([[13, 1], [2, 0], [7, 3], [19, 2], [0, 4]], np.int32)
    matrices = {
        "input": rows(len(words) + (bucket if left is None else len(left)), size),
        "output": rows(len(labels or words), size, 1),
    }
    for i, name in enumerate(quantized):
        matrices[name] = QuantizedMatrix.of(matrices[name], 3, norms=i == 0)
    fields = {
        "model": kind,
        "loss": "softmax" if labels else "ns",
        "vector_size": size,
        "window": 5,
        "epochs": 3,
        "min_count": 1,
        "negative": 5,
        "word_ngrams": 1,
        "bucket": bucket,
        "min_n": 2,
        "max_n": 3,
        "update_rate": 100,
        "sample": 1e-4,
        "words": [word.encode() for word in words],
        "labels": [label.encode() for label in labels],
        "counts": np.arange(len(words) + len(labels), 0, -1),
        "n_tokens": 100,
        "pruned": left,
    }
    return FastTextFile(**{**fields, **matrices, **options})


SMALL = {
    "skipgram": {"kind": "skipgram"},
    "cbow": {"kind": "cbow"},
    "supervised": {},
    "no subwords": {"kind": "skipgram", "bucket": 0, "min_n": 0, "max_n": 0},
    "quantized": {"quantized": ("input",)},
    "quantized output": {"quantized": ("input", "output")},
    "pruned": {"quantized": ("input",), "pruned": True},
}


def dense(matrix):
    return matrix.rows(slice(None)) if isinstance(matrix, QuantizedMatrix) else matrix


def oracle(model, word):
    """The mean of a word's rows, in float64."""
    matrix = dense(model.input).astype(np.float64)
    places = {word: row for row, word in enumerate(model.words)}
    found = [places[word]] if word in places else []
    left = None if model.pruned is None else dict(model.pruned.tolist())
    for subword in reference.subwords(word, model.min_n, model.max_n):
        bucket = reference.subword_hash(subword) % model.bucket
        if left is None or bucket in left:
            found.append(len(model.words) + (bucket if left is None else left[bucket]))
    return matrix[found].mean(axis=0) if found else np.zeros(model.vector_size)


@pytest.mark.parametrize("name", SMALL)
def test_vectors_equal_oracle(name, monkeypatch):
    monkeypatch.setattr(fasttext_format, "_WORDS", 3)
    model = small_model(**SMALL[name])
    asked = [word.encode() for word in [*UNKNOWN, "the", "日本", "</s>", "the"]]
    for threads in (1, 2, 3):
        expected = np.stack([oracle(model, word) for word in model.words])
        np.testing.assert_allclose(model.word_vectors(threads=threads), expected, rtol=1e-5, atol=1e-6)
        expected = np.stack([oracle(model, word) for word in asked])
        np.testing.assert_allclose(model.vectors_of(asked, threads=threads), expected, rtol=1e-5, atol=1e-6)
    assert model.vectors_of([]).shape == (0, 4)
    assert model.word_vectors(0).shape == (0, 4)


@pytest.mark.parametrize("name", SMALL)
def test_everything_comes_back(name, tmp_path):
    model = small_model(**SMALL[name])
    fasttext_format.write(tmp_path / "model", model)
    found = fasttext_format.read(tmp_path / "model")
    for one in dataclasses.fields(FastTextFile):
        a, b = getattr(model, one.name), getattr(found, one.name)
        if one.name in ("input", "output"):
            assert same_matrices(a, b)
        elif isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b
            assert type(a) is type(b)
    packed = tmp_path / "model.bin.gz"
    packed.write_bytes(gzip.compress((tmp_path / "model").read_bytes()))
    np.testing.assert_array_equal(fasttext_format.read(packed).word_vectors(), model.word_vectors())


@pytest.mark.parametrize("name", SMALL)
def test_fasttext_reads_what_firth_writes(fasttext, name, tmp_path):
    model = small_model(**SMALL[name])
    fasttext_format.write(tmp_path / "model.bin", model)
    theirs = fasttext.load_model(str(tmp_path / "model.bin"))
    words = [word.decode() for word in model.words]
    assert theirs.words == words
    assert theirs.is_quantized() == isinstance(model.input, QuantizedMatrix)
    np.testing.assert_allclose(model.word_vectors(), vectors_of(theirs, words), rtol=0, atol=1e-6)
    found = model.vectors_of([word.encode() for word in UNKNOWN])
    np.testing.assert_allclose(found, vectors_of(theirs, UNKNOWN), rtol=0, atol=1e-6)
    if model.model != "supervised":
        return
    # One known word and the end of the line: the mean over the rows of both.
    lines = [row for word in ("naïve", "</s>") for row in used_rows(model, word.encode())]
    hidden = dense(model.input)[lines].mean(axis=0)
    shares = np.exp(dense(model.output) @ hidden)
    shares /= shares.sum()
    predicted = dict(predictions_of(theirs, "naïve"))
    for label, share in zip(model.labels, shares, strict=True):
        assert predicted[label.decode()] == pytest.approx(share, abs=1e-4)  # its logarithm is that of share + 1e-5


def used_rows(model, word):
    offsets, found = model._rows_of([word], np.array([model.words.index(word)]), 1)
    assert offsets.tolist() == [0, len(found)]
    return found


def in_fives(matrix):
    for i in range(0, len(matrix), 5):
        yield matrix[i : i + 5]


def test_blocks_of_rows_are_written_as_the_matrix_is(tmp_path):
    model = small_model("skipgram")
    fasttext_format.write(tmp_path / "whole", model)
    parts = {
        name: RowBlocks(one.shape, in_fives(one)) for name, one in (("input", model.input), ("output", model.output))
    }
    blocks = dataclasses.replace(model, **parts)
    fasttext_format.write(tmp_path / "blocks", blocks)
    assert (tmp_path / "blocks").read_bytes() == (tmp_path / "whole").read_bytes()
    with pytest.raises(TypeError, match="can only be written"):
        blocks.word_vectors()
    for wrong, message in (
        ([model.input[:5]], "input must have 24 rows, and its blocks have 5"),
        ([model.input[:, :3]], "blocks of float32 and 4 columns, not float32 \\(24, 3\\)"),
        ([model.input.astype(np.float64)], "blocks of float32 and 4 columns, not float64"),
    ):
        with pytest.raises(ValueError, match=message):
            fasttext_format.write(
                tmp_path / "blocks", dataclasses.replace(model, input=RowBlocks(model.input.shape, wrong))
            )
    assert (tmp_path / "blocks").read_bytes() == (tmp_path / "whole").read_bytes()


def test_large_matrices_are_written_in_pieces(tmp_path, monkeypatch):
    model = small_model()
    fasttext_format.write(tmp_path / "whole", model)
    monkeypatch.setattr(fasttext_format, "_BLOCK", 9)
    fasttext_format.write(tmp_path / "parts", model)
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_old_supervised_models_have_no_subwords(fasttext, tmp_path):
    path = tmp_path / "model.bin"
    fasttext_format.write(path, small_model())
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack("<i", 11) + data[8:])
    found = fasttext_format.read(path)
    assert found.max_n == 0
    np.testing.assert_array_equal(found.word_vectors(), found.input[:4])
    np.testing.assert_array_equal(
        found.word_vectors(), vectors_of(fasttext.load_model(str(path)), ["the", "naïve", "日本", "</s>"])
    )
    fasttext_format.write(path, small_model("skipgram"))
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack("<i", 11) + data[8:])
    assert fasttext_format.read(path).max_n == 3


def test_what_does_not_fit_is_refused(tmp_path):
    model = small_model()
    quantized = QuantizedMatrix.of(model.input)
    places = np.arange(20, dtype=np.int32)
    for wrong, message in (
        ({"model": "sg"}, "model must be one of .*'skipgram'.*, not 'sg'"),
        ({"loss": "nce"}, "loss must be one of .*, not 'nce'"),
        ({"window": 2**31}, "window must be at most"),
        ({"bucket": -1}, "bucket must not be negative"),
        ({"n_tokens": -1}, "n_tokens must not be negative"),
        ({"bucket": 0}, "max_n is 3, so bucket must be at least 1"),
        ({"bucket": 19}, r"input must have the shape \(23, 4\), not \(24, 4\)"),
        ({"vector_size": 5}, r"input must have the shape \(24, 5\)"),
        ({"output": model.output[:2]}, r"output must have the shape \(3, 4\), not \(2, 4\)"),
        ({"model": "cbow"}, r"output must have the shape \(4, 4\)"),
        ({"counts": np.arange(6)}, "counts must be int64 of 4 words and 3 labels"),
        ({"counts": np.arange(7.0)}, "counts must be int64 .* not float64"),
        ({"output": QuantizedMatrix.of(model.output)}, "the output matrix is quantized and the input matrix is not"),
        ({"pruned": np.zeros((20, 2), np.int32)}, "which needs a quantized input matrix"),
        ({"input": quantized, "pruned": np.zeros((20, 3), np.int32)}, "pruned must be int32 of 2 columns"),
        ({"input": quantized, "pruned": np.full((20, 2), 20, np.int32)}, r"pruned names rows .* 0 \.\. 19"),
        ({"input": quantized, "pruned": np.stack([places + 1, places], 1)}, r"pruned names buckets .* 0 \.\. 19"),
        ({"input": quantized, "pruned": np.stack([places - 1, places], 1)}, r"pruned names buckets .* 0 \.\. 19"),
        ({"input": quantized, "pruned": np.stack([places // 2, places], 1)}, "pruned names buckets twice"),
        ({"input": quantized, "pruned": np.stack([places, places // 2], 1)}, "pruned names rows of n-grams twice"),
        ({"bucket": 0, "min_n": 0, "max_n": 0, "word_ngrams": 2}, "word_ngrams is 2, so bucket must be at least"),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(model, **wrong)
    for wrong, message in (
        ({"input": model.input.astype(np.float64)}, "input must be float32, not float64"),
        ({"window": 2.5}, "window must be a whole number"),
    ):
        with pytest.raises(TypeError, match=message):
            dataclasses.replace(model, **wrong)
    words = [b"the", b"a\0b", *model.words[2:]]
    with pytest.raises(ValueError, match=r"cannot write .*model: word 2 \(b'a\\x00b'\) holds a NUL"):
        fasttext_format.write(tmp_path / "model", dataclasses.replace(model, words=words))
    assert not (tmp_path / "model").exists()


# ---- damaged files


def bytes_of(model, folder):
    path = folder / "some.bin"
    fasttext_format.write(path, model)
    return path.read_bytes()


@pytest.mark.parametrize("name", SMALL)
def test_a_file_cut_short_is_refused_wherever_it_ends(name, tmp_path):
    data = bytes_of(small_model(**SMALL[name]), tmp_path)
    path = tmp_path / "cut.bin"
    for size in {*range(min(len(data), 400)), *range(400, len(data), 97), len(data) - 1}:
        message = r"cut\.bin is not a fastText model" if size < 4 else r"cut\.bin, byte \d+: .*cut short"
        with pytest.raises(ValueError, match=message):
            fasttext_format.parse(data[:size], str(path))
    for size in (4, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        for read in (fasttext_format.read, load_vectors):
            with pytest.raises(ValueError, match=r"cut\.bin, byte \d+: .*cut short"):
                read(path)


def test_damage_is_told_with_its_place(tmp_path):
    data = bytes_of(small_model(), tmp_path)
    dictionary = 8 + 12 * 4 + 8
    second = dictionary + 28 + len(b"the\0") + 9
    input = data.index(struct.pack("<2q", 24, 4)) - 1
    path = tmp_path / "damaged.bin"
    for at, bytes_there, message in (
        (0, b"x", "is not a fastText model: it does not begin with the bytes ba 16 4f 2f"),
        (4, b"\x0d", "byte 4: this is version 13 of fastText's format; 11 and 12 are known"),
        (8 + 6 * 4, b"\x05", "byte 32: loss must be 1 to 4, not 5"),
        (8 + 7 * 4, b"\x00", "byte 36: model must be 1 to 3, not 0"),
        (8, b"\x05", r"is a damaged fastText model: input must have the shape \(24, 5\), not \(24, 4\)"),
        (dictionary, b"\x08", f"byte {dictionary}: 8 entries are not 4 words and 3 labels"),
        (dictionary, struct.pack("<3i", 2**30, 2**30, 0), f"byte {dictionary}: {2**30} entries are more than the rest"),
        (
            second + len("naïve".encode()) + 9,
            b"\x01",
            rf"byte {second}: entry 2 \(b'na.*ve'\) has type 1: first come 4",
        ),
        (input, b"\x02", f"byte {input}: whether the input matrix is quantized must be 0 or 1, not 2"),
        (input + 1, struct.pack("<q", -1), rf"byte {input + 1}: the input matrix cannot have the shape \(-1, 4\)"),
        (input + 1, struct.pack("<q", 2**61), f"byte {input + 17}: the input matrix should take {2**65} bytes"),
        (len(data), b"more", f"byte {len(data)}: the model ends here and 4 bytes follow"),
    ):
        path.write_bytes(data[:at] + bytes_there + data[at + len(bytes_there) :])
        with pytest.raises(ValueError, match=rf"damaged\.bin.*{message}"):
            fasttext_format.read(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"damaged\.bin is not a fastText model: it is empty"):
        fasttext_format.read(path)
    with pytest.raises(FileNotFoundError):
        fasttext_format.read(tmp_path / "nowhere.bin")
    packed = tmp_path / "damaged.bin.gz"
    packed.write_bytes(gzip.compress(data)[:-20])
    with pytest.raises(OSError, match=r"damaged\.bin\.gz is damaged"):
        fasttext_format.read(packed)


def test_damage_in_codes_is_told_with_its_place(tmp_path):
    model = small_model(quantized=("input",))
    data = bytes_of(model, tmp_path)
    shape = data.index(struct.pack("<2q", 24, 4))
    quantizer = shape + 20 + model.input.codes.size
    path = tmp_path / "damaged.bin"
    for at, bytes_there, message in (
        (
            shape - 1,
            b"\x03",
            f"byte {shape - 1}: whether the input matrix keeps its rows' lengths apart must be 0 or 1",
        ),
        (shape + 16, b"\x2f", f"byte {shape}: the input matrix has 24 rows and 47 codes, not as many for each row"),
        (quantizer, b"\x05", f"byte {quantizer}: the centroids of the input matrix are for 5 numbers in 2 parts"),
        (quantizer + 12, b"\x02", f"byte {quantizer}: .* in 2 parts of 3, the last of 2; it has 4 columns in 2 codes"),
    ):
        path.write_bytes(data[:at] + bytes_there + data[at + len(bytes_there) :])
        with pytest.raises(ValueError, match=rf"damaged\.bin, {message}"):
            fasttext_format.read(path)


@given(st.sampled_from(sorted(SMALL)), st.integers(0, 400), st.binary(min_size=1, max_size=8))
@settings(deadline=None, max_examples=300)
def test_any_damage_is_a_value_error_or_none(tmp_path_factory, name, at, bytes_there):
    key = f"_{name}"
    if key not in BYTES:
        BYTES[key] = bytes_of(small_model(**SMALL[name]), tmp_path_factory.mktemp("small"))
    data = BYTES[key]
    damaged = data[:at] + bytes_there + data[at + len(bytes_there) :]
    with contextlib.suppress(ValueError):
        fasttext_format.parse(damaged, "damaged.bin").word_vectors()


BYTES: dict[str, bytes] = {}


# ---- as a format of vectors


def test_vectors_are_loaded_by_what_the_file_holds(tmp_path):
    model = small_model()
    path = tmp_path / "model.whatever"
    fasttext_format.write(path, model)
    for options in ({}, {"format": "fasttext"}):
        found = load_vectors(path, **options)
        assert found.words == ["the", "naïve", "日本", "</s>"]
        np.testing.assert_array_equal(found.matrix, model.word_vectors())
    found = load_vectors(path, limit=2)
    assert found.words == ["the", "naïve"]
    np.testing.assert_array_equal(found.matrix, model.word_vectors()[:2])
    assert len(load_vectors(path, limit=0)) == 0
    with pytest.raises(ValueError, match="mmap=True needs a safetensors file; fasttext has to be read"):
        load_vectors(path, mmap=True)


def test_words_that_are_not_utf_8_are_told(tmp_path):
    path = tmp_path / "model.bin"
    words = [b"the", b"caf\xe9", "日本".encode(), b"</s>"]
    model = small_model(words=words)
    fasttext_format.write(path, model)
    with pytest.warns(UserWarning, match=r"bytes that are not UTF-8 became U\+FFFD in 1 word"):
        found = load_vectors(path)
    assert found.words == ["the", "caf\ufffd", "日本", "</s>"]
    # Its n-grams are those of the bytes as they were.
    np.testing.assert_allclose(found["caf\ufffd"], oracle(model, b"caf\xe9"), rtol=1e-5, atol=1e-6)
    fasttext_format.write(path, small_model(words=[b"the", b"of", b"the", b"</s>"]))
    with pytest.raises(ValueError, match="entry 3 repeats the word 'the' of entry 1"):
        load_vectors(path)
    with pytest.warns(UserWarning, match="The rest was loaded"):
        assert load_vectors(path, errors="skip").words == ["the", "of", "</s>"]


def test_vectors_are_saved_as_a_model_without_subwords(fasttext, tmp_path):
    words = ["the", "naïve", "日本", "a b", "<x>"]
    vectors = Vectors(words, rows(5, 7))
    for name in ("model.bin", "model.bin.gz"):
        vectors.save(tmp_path / name, format="fasttext")
        found = load_vectors(tmp_path / name)
        assert found.words == words
        np.testing.assert_array_equal(found.matrix, vectors.matrix)
    theirs = fasttext.load_model(str(tmp_path / "model.bin"))
    np.testing.assert_array_equal(vectors_of(theirs, words), vectors.matrix)
    with pytest.raises(ValueError, match="word 1, 'b\\\\x00', has a NUL in it"):
        Vectors(["a", "b\0"], rows(2, 3)).save(tmp_path / "x", format="fasttext")
    with pytest.raises(ValueError, match="a model without words"):
        Vectors([], rows(0, 3)).save(tmp_path / "x", format="fasttext")


def test_gensim_reads_and_writes_the_same(tmp_path):
    gensim = pytest.importorskip("gensim.models.fasttext")
    path = tmp_path / "model.bin"
    model = small_model("skipgram", size=16)
    fasttext_format.write(path, model)
    theirs = gensim.load_facebook_vectors(str(path))
    words = [word.decode() for word in model.words[:3]]  # gensim takes n-grams of "</s>" too
    np.testing.assert_allclose(theirs[words], model.word_vectors()[:3], rtol=1e-5, atol=1e-6)
    known = [word for word in UNKNOWN if word]
    found = model.vectors_of([word.encode() for word in known])
    np.testing.assert_allclose(np.stack([theirs[word] for word in known]), found, rtol=1e-5, atol=1e-6)

    draw = random.Random(0)
    sentences = [draw.choices(WORDS, k=10) for _ in range(100)]
    trained = gensim.FastText(sentences, vector_size=8, min_count=1, epochs=1, bucket=500, workers=1)
    gensim.save_facebook_model(trained, str(path))
    found = load_vectors(path)
    assert found.words == trained.wv.index_to_key
    np.testing.assert_allclose(found.matrix, trained.wv[found.words], rtol=1e-5, atol=1e-6)
