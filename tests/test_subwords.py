"""Character n-grams and their hashes: against the definition, and against fastText."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import reference
from firth import _core, files

WORDS = ["naïve", "日本語", "the", "a", "", "<", "></s>", "e\u0301", "😀", "antidisestablishment"]


def pack(words):
    """As files.pack_words does, of bytes, which need not be UTF-8."""
    offsets = np.zeros(len(words) + 1, np.int64)
    np.cumsum([len(word) for word in words], out=offsets[1:])
    return np.frombuffer(b"".join(words), np.uint8), offsets


def buckets_of(words, min_n, max_n, buckets=2_000_000, threads=1):
    offsets, found = _core.subword_buckets(*pack(words), min_n=min_n, max_n=max_n, buckets=buckets, threads=threads)
    assert offsets.dtype == np.int64
    assert found.dtype == np.uint32
    assert len(offsets) == len(words) + 1
    assert offsets[0] == 0
    assert offsets[-1] == len(found)
    return [found[offsets[i] : offsets[i + 1]].tolist() for i in range(len(words))]


@given(
    st.lists(st.text().map(lambda text: text.encode("utf-8", "replace")) | st.binary(), max_size=8),
    st.integers(0, 5),
    st.integers(0, 7),
    st.sampled_from([1, 7, 1000, 2_000_000, 2**31 - 1]),
    st.integers(1, 3),
)
@example([b"\x80\x80", b"a\xbf\x80", b"\xff", b"</s>", b"/s"], 1, 4, 1000, 2)
@settings(deadline=None)
def test_buckets_equal_oracle(words, min_n, max_n, buckets, threads):
    expected = [[reference.subword_hash(p) % buckets for p in reference.subwords(w, min_n, max_n)] for w in words]
    assert buckets_of(words, min_n, max_n, buckets, threads) == expected


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 5), st.integers(0, 7))
@example("</s>", 1, 4)
@settings(deadline=None)
def test_pieces_equal_oracle(word, min_n, max_n):
    expected = [subword.decode() for subword in reference.subwords(word.encode(), min_n, max_n)]
    assert _core.split_subwords(word, min_n=min_n, max_n=max_n) == expected


def test_pieces_of_a_word():
    assert _core.split_subwords("où", min_n=1, max_n=3) == ["<o", "<où", "o", "où", "où>", "ù", "ù>"]
    assert _core.split_subwords("where", min_n=3, max_n=3) == ["<wh", "whe", "her", "ere", "re>"]  # the paper's example
    assert _core.split_subwords("where", min_n=0, max_n=0) == []
    assert _core.split_subwords("where", min_n=3, max_n=2) == []
    assert _core.split_subwords("", min_n=1, max_n=3) == ["<>"]
    assert _core.split_subwords("</s>", min_n=1, max_n=3) == []


def test_hash_is_fnv_1a_of_signed_bytes():
    words = [b"", b"a", b"foobar", "ü".encode()]
    # The first three as its authors publish them.
    expected = [0x811C9DC5, 0xE40C292C, 0xBF9CF968, reference.subword_hash("ü".encode())]
    hashes = _core.hash_words(*pack(words))
    assert hashes.dtype == np.uint32
    assert hashes.tolist() == expected
    assert _core.hash_words(*pack([])).tolist() == []


def test_equal_fasttext(fasttext, tmp_path):
    text = tmp_path / "text"
    text.write_text("".join(f"{word} x\n" for word in WORDS), encoding="utf-8")
    for min_n, max_n in ((1, 4), (3, 6)):
        # Ten threads: each fills a tenth of fastText's matrix.
        options = {"minn": min_n, "maxn": max_n, "bucket": 50_000, "dim": 10, "thread": 10, "minCount": 1, "verbose": 0}
        model = fasttext.train_unsupervised(str(text), epoch=1, **options)
        n_words = len(model.words)
        for word in [*WORDS, "</s>", "unseen", "ünséen"]:
            found, rows = model.f.getSubwords(word, "strict")
            known = model.get_word_id(word) >= 0
            assert _core.split_subwords(word, min_n=min_n, max_n=max_n) == found[known:]
            found = buckets_of([word.encode()], min_n, max_n, 50_000)[0]
            assert [n_words + bucket for bucket in found] == list(rows)[known:]


def test_bad_arguments_are_refused():
    words = files.pack_words(["the", "of"])
    good = {**words, "min_n": 3, "max_n": 6, "buckets": 10, "threads": 1}
    _core.subword_buckets(**good)
    for wrong, message in (
        ({"buckets": 0}, "buckets must be at least 1 where max_n is not 0"),
        ({"buckets": 2**31}, r"buckets must lie in 0 .. 2\^31 - 1"),
        ({"buckets": -1}, r"buckets must lie in 0 .. 2\^31 - 1"),
        ({"min_n": -1}, "min_n and max_n must not be negative"),
        ({"max_n": -1}, "min_n and max_n must not be negative"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"word_offsets": np.array([0, 2])}, "word_offsets must run from 0"),
        ({"word_offsets": np.array([0, 4, 3, 5])}, r"word_offsets\[2\] is below the one before it"),
    ):
        with pytest.raises(ValueError, match=message):
            _core.subword_buckets(**{**good, **wrong})
    assert [len(one) for one in _core.subword_buckets(**{**good, "max_n": 0, "buckets": 0})] == [3, 0]
    with pytest.raises(ValueError, match="must not be negative"):
        _core.split_subwords("the", min_n=-1, max_n=3)
