"""Phrases: planted ones are found, scores are those of the papers and of gensim, and texts are merged as by hand."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import firth
import reference
from firth import _core, files

WORDS = "abcdef"
documents_of_few_words = st.lists(
    st.lists(st.sampled_from(WORDS), max_size=25).map(tuple), min_size=1, max_size=12
).filter(any)


def corpus_of(documents):
    return firth.Corpus.from_iterable([list(document) for document in documents], min_count=1)


def same(a, b):
    return (
        a.vocabulary.words == b.vocabulary.words
        and a.vocabulary.counts.tolist() == b.vocabulary.counts.tolist()
        and a.ids.tolist() == b.ids.tolist()
        and a.offsets.tolist() == b.offsets.tolist()
    )


def planted(seed=1):
    """Random words, with phrases of two, three and four words among them, and one with connectors."""
    draw = random.Random(seed)
    phrases = ["new york", "new york times", "los angeles", "bank of america", "house of the dead", "a b c d"]
    documents = []
    for _ in range(1500):
        document = []
        for _ in range(draw.randrange(12)):
            document += draw.choice(phrases).split() if draw.random() < 0.2 else [f"w{draw.randrange(60)}"]
            if draw.random() < 0.3:
                document.append(draw.choice(["of", "the"]))
        documents.append(document)
    return documents


# ---- what is found


def test_planted_phrases_are_found():
    corpus = corpus_of(planted())
    found = firth.Phrases(connectors={"of", "the"}, threshold=0.6).fit(corpus)
    pairs = {one.phrase for one in found}
    names = {"new_york", "york_times", "los_angeles", "bank_of_america", "house_of_the_dead", "a_b", "b_c", "c_d"}
    assert pairs == names
    longer = firth.Phrases(connectors={"of", "the"}, threshold=0.6, passes=2).fit(corpus)
    assert {one.phrase for one in longer} - pairs == {"new_york_times", "a_b_c_d"}
    merged = longer.apply(corpus)
    assert {"new_york", "new_york_times", "a_b_c_d", "house_of_the_dead"} <= set(merged.vocabulary)
    assert not {"new", "york", "angeles", "a", "b", "c", "d", "a_b", "c_d", "dead"} & set(merged.vocabulary)


def test_scores_by_hand():
    # new 4, york 3, the pair 3, of 10 tokens.
    corpus = corpus_of([["new", "york", "is", "new"], ["new", "york"], [], ["in", "new", "york", "now"]])
    found = firth.Phrases(min_count=2, threshold=0.1).fit(corpus)
    (one,) = found
    assert (one.phrase, one.words, one.count) == ("new_york", ("new", "york"), 3)
    assert one.score == pytest.approx(math.log(0.3 / (0.4 * 0.3)) / -math.log(0.3), rel=1e-14)
    assert found.scores == {"new_york": one.score}
    assert len(found) == 1
    (one,) = firth.Phrases(min_count=2, threshold=0.1, scoring="word2phrase").fit(corpus)
    assert one.score == pytest.approx((3 - 2) * 10 / (4 * 3), rel=1e-14)
    assert not list(firth.Phrases(min_count=3, threshold=0, scoring="word2phrase").fit(corpus))
    assert [one.count for one in firth.Phrases(min_count=3, threshold=-1).fit(corpus)] == [3]
    assert not list(firth.Phrases(min_count=4, threshold=-1).fit(corpus))


def test_a_score_must_be_above_the_threshold():
    corpus = corpus_of([["a", "b"]] * 4 + [["c"]] * 8)  # p(ab) = p(a) = p(b) = 1/4: the score is 1
    assert firth.Phrases(min_count=4, threshold=0.999).fit(corpus).scores == {"a_b": 1.0}
    assert firth.Phrases(min_count=4, threshold=1).fit(corpus).scores == {}


def test_documents_are_never_crossed():
    documents = [["x", "a"], ["b", "y"]] * 20 + [["a"], ["b"]] * 20
    phrases = firth.Phrases(min_count=1, threshold=-1).fit(corpus_of(documents))
    assert sorted(phrases.scores) == ["b_y", "x_a"]
    one_document = firth.Phrases(min_count=1, threshold=-1).fit(corpus_of([["a", "b"]]))
    merged = one_document.apply(corpus_of([["a"], ["b"], [], ["a", "b"], ["a"], [], ["b", "a"]]))
    assert list(merged) == [["a"], ["b"], [], ["a_b"], ["a"], [], ["b", "a"]]


@given(
    documents=documents_of_few_words,
    min_count=st.integers(1, 4),
    scoring=st.sampled_from(["npmi", "word2phrase"]),
    # No score is one of these, where the last bit of a logarithm would decide.
    threshold=st.sampled_from([0.0123, 0.1234, 0.4321, 0.9876]),
    connectors=st.sets(st.sampled_from(WORDS), max_size=3),
    passes=st.integers(1, 3),
    threads=st.sampled_from([1, 2, 3]),
    delimiter=st.sampled_from(["_", "", "++"]),
)
@settings(max_examples=300, deadline=None)
def test_equals_the_oracle(documents, min_count, scoring, threshold, connectors, passes, threads, delimiter):
    corpus = corpus_of(documents)
    phrases = firth.Phrases(
        min_count=min_count,
        scoring=scoring,
        threshold=threshold,
        connectors=connectors,
        passes=passes,
        delimiter=delimiter,
    ).fit(corpus, threads=threads)
    text, scores = documents, []
    for _ in range(passes):
        found = reference.phrases(text, min_count, threshold, scoring, connectors)
        scores.append(found)
        text = reference.merge_phrases(text, found, connectors, delimiter)
        if not found:
            break
    expected = {(i, words): value for i, one in enumerate(scores) for words, value in one.items()}
    mine = {(i, one.words): (one.score, one.count) for i, each in enumerate(phrases._found) for one in each}
    assert mine.keys() == expected.keys()
    for key, (score, count) in expected.items():
        assert mine[key] == (pytest.approx(score, rel=1e-9, abs=1e-12), count)
    assert list(phrases.apply(corpus, threads=threads)) == [list(document) for document in text]
    assert same(phrases.apply(corpus, threads=threads), corpus_of(text))
    assert [phrases.merge(document) for document in documents] == [list(document) for document in text]
    for each in phrases._found:
        assert [one.score for one in each] == sorted((one.score for one in each), reverse=True)


def by_tokens(worda_count, wordb_count, bigram_count, len_vocab, min_count, corpus_word_count):
    """word2phrase.c's score; gensim's own takes the size of its vocabulary for the number of tokens."""
    return (bigram_count - min_count) / worda_count / wordb_count * corpus_word_count


@pytest.mark.parametrize("connectors", [frozenset(), frozenset({"of", "the"})])
@pytest.mark.parametrize("scoring", ["npmi", "word2phrase"])
def test_equals_gensim(connectors, scoring):
    models = pytest.importorskip("gensim.models.phrases")

    documents = planted(2)
    threshold = {"npmi": 0.3, "word2phrase": 2.0}[scoring]
    theirs = models.Phrases(
        documents,
        min_count=5,
        threshold=threshold,
        scoring="npmi" if scoring == "npmi" else by_tokens,
        connector_words=connectors,
    )
    corpus = corpus_of(documents)
    mine = firth.Phrases(threshold=threshold, scoring=scoring, connectors=connectors).fit(corpus)
    frozen = theirs.freeze()
    assert len(mine) > 5
    assert mine.scores == pytest.approx(frozen.phrasegrams, rel=1e-12)
    merged = [frozen[document] if document else [] for document in documents]
    assert list(mine.apply(corpus)) == merged
    assert [mine.merge(document) for document in documents] == merged


def test_many_connectors_in_a_row():
    """Runs of connectors longer than a machine word, one of them too rare for a phrase."""
    often, seldom = ["a", *["of", "the"] * 40, "b"], ["a", *["of", "the"] * 40, "of", "b"]
    corpus = corpus_of([often] * 6 + [seldom] * 4 + [["x"]] * 50 + [["a", "of"], ["of", "b"]] * 5)
    phrases = firth.Phrases(connectors={"of", "the"}, threshold=0).fit(corpus)
    assert [one.words for one in phrases] == [tuple(often)]
    assert next(iter(phrases)).count == 6
    assert phrases.merge(["b", *often, "of", "a"]) == ["b", "_".join(often), "of", "a"]
    assert phrases.merge(often[:-1]) == often[:-1]
    assert phrases.merge(seldom) == seldom


# ---- a corpus with its phrases


def phrases_of(*pairs, **options):
    """Phrases of these pairs, whatever they score."""
    documents = [words for pair in pairs for words in [pair.split()] * 3]
    return firth.Phrases(min_count=1, threshold=-1, **options).fit(corpus_of(documents))


def test_from_left_to_right_and_each_word_once():
    phrases = phrases_of("a b", "b c", "c c")
    assert phrases.merge(["a", "b", "c"]) == ["a_b", "c"]
    assert phrases.merge(["x", "b", "c", "c", "c", "c", "a"]) == ["x", "b_c", "c_c", "c", "a"]
    assert phrases.merge([]) == []
    assert phrases.merge(("a", "b")) == ["a_b"]


def test_words_are_counted_again():
    phrases = phrases_of("new york")
    corpus = corpus_of([["new", "york", "new", "york", "new"], ["york", "z"], []])
    merged = phrases.apply(corpus)
    assert merged.vocabulary.words == ["new_york", "new", "york", "z"]
    assert merged.vocabulary.counts.tolist() == [2, 1, 1, 1]
    assert list(merged) == [["new_york", "new_york", "new"], ["york", "z"], []]
    assert merged.report == firth.Corpus.from_iterable(list(merged), min_count=1).report
    # The corpus itself is as it was.
    assert corpus[0] == ["new", "york", "new", "york", "new"]


def test_rare_words_are_left_out_after_merging():
    phrases = phrases_of("new york")
    corpus = corpus_of([["new", "york", "new", "york", "new"], ["york", "z"], [], ["z"]])
    merged = phrases.apply(corpus, min_count=2)
    assert merged.vocabulary.words == ["new_york", "z"]
    assert list(merged) == [["new_york", "new_york"], ["z"], [], ["z"]]
    assert merged.report == firth.Corpus.from_iterable(list(phrases.apply(corpus)), min_count=2).report
    assert merged.report.tokens_out_of_vocabulary == 2
    assert phrases.apply(corpus, max_size=1).vocabulary.words == ["new_york"]
    with pytest.raises(ValueError, match="min_count=3 times: the most frequent one of 4 occurs 2 times"):
        phrases.apply(corpus, min_count=3)


def test_what_the_corpus_left_out_stays_in_the_report():
    texts = ["new york q", "new york", "new \ud800"]
    with pytest.warns(UserWarning, match="surrogate"):
        corpus = firth.Corpus.from_iterable(texts, min_count=2)
    before = corpus.report
    assert (before.tokens_read, before.tokens_kept, before.distinct_words_read) == (7, 5, 4)
    after = phrases_of("new york").apply(corpus).report
    # new_york twice, new once, and the two that were left out; york is gone, new_york is new.
    assert (after.documents, after.tokens_read, after.tokens_kept, after.tokens_out_of_vocabulary) == (3, 5, 3, 2)
    assert (after.distinct_words_read, after.invalid_sequences) == (4, 1)


def test_tokens_spelt_alike_are_one_word():
    phrases = phrases_of("new york", "a_b c", "a b_c")
    merged = phrases.apply(corpus_of([["new_york", "new", "york"], ["a_b", "c", "a", "b_c"]]))
    assert list(merged) == [["new_york", "new_york"], ["a_b_c", "a_b_c"]]
    assert sorted(merged.vocabulary.words) == ["a_b_c", "new_york"]


def test_another_corpus_with_other_words():
    phrases = phrases_of("new york", "los angeles")
    corpus = corpus_of([["in", "los", "angeles", "not", "york"]])
    assert list(phrases.apply(corpus)) == [["in", "los_angeles", "not", "york"]]


def test_a_corpus_saved_before_and_after(tmp_path):
    documents = planted()
    corpus = corpus_of(documents)
    corpus.save(tmp_path / "corpus")
    phrases = firth.Phrases(passes=2)
    opened = firth.load(tmp_path / "corpus")
    merged = phrases.fit(opened).apply(opened)
    assert same(merged, firth.Phrases(passes=2).fit(corpus).apply(corpus))
    assert merged.ids.flags.owndata
    merged.save(tmp_path / "merged")
    again = firth.load(tmp_path / "merged")
    assert same(again, merged)
    assert again.report == merged.report
    firth.Word2Vec(vector_size=4, epochs=1, threads=1).fit(again)


def test_same_for_any_number_of_threads_and_any_memory():
    corpus = corpus_of(planted(3))
    options = {"passes": 2, "connectors": ["of", "the"], "threshold": 0.2}
    once = firth.Phrases(**options).fit(corpus, threads=1)
    assert len(once) > 10
    for threads in (2, 3, 7):
        again = firth.Phrases(**options).fit(corpus, threads=threads, memory=60_000 * threads)
        assert list(again) == list(once)
        assert same(again.apply(corpus, threads=threads), once.apply(corpus, threads=1))
    with pytest.raises(MemoryError, match="too little"):
        firth.Phrases(**options).fit(corpus, memory=100)
    # More threads than documents, and than tokens.
    few = corpus_of([["new", "york"]])
    assert list(phrases_of("new york").apply(few, threads=9)) == [["new_york"]]


@pytest.mark.parametrize("room", [1, 7, 100])
def test_pairs_looked_at_a_few_at_a_time(monkeypatch, room):
    corpus = corpus_of(planted(4))
    options = {"connectors": ["of"], "threshold": 0.0}
    whole = list(firth.Phrases(**options).fit(corpus))
    monkeypatch.setattr(firth.phrases, "_PAIRS", room)
    assert list(firth.Phrases(**options).fit(corpus)) == whole


def test_no_phrases_at_all(tmp_path):
    corpus = corpus_of([["a", "b"], ["c"]])
    phrases = firth.Phrases(passes=3).fit(corpus)
    assert list(phrases) == []
    assert same(phrases.apply(corpus), corpus)
    assert phrases.merge(["a", "b"]) == ["a", "b"]
    phrases.save(tmp_path / "none")
    assert list(firth.load(tmp_path / "none")) == []


# ---- files


def test_save_and_open(tmp_path):
    corpus = corpus_of(planted())
    phrases = firth.Phrases(passes=2, connectors={"of", "the"}, threshold=0.4, delimiter="·", min_count=4).fit(corpus)
    phrases.save(tmp_path / "phrases")
    opened = firth.load(tmp_path / "phrases")
    options = ("min_count", "threshold", "scoring", "delimiter", "connectors", "passes")
    assert [getattr(opened, name) for name in options] == [getattr(phrases, name) for name in options]
    assert opened._found == phrases._found
    assert same(opened.apply(corpus), phrases.apply(corpus))
    text = ["the", "house", "of", "the", "dead", "in", "new", "york", "times"]
    assert opened.merge(text) == phrases.merge(text) == ["the", "house·of·the·dead", "in", "new·york·times"]
    with pytest.raises(FileNotFoundError):
        firth.load(tmp_path / "missing")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("scores", lambda a: a[:-1]),
        ("counts", lambda a: a[:-1]),
        ("phrase_offsets", lambda a: a[:-1]),
        ("phrase_offsets", lambda a: a[::-1]),
        ("phrase_offsets", lambda a: a[:0]),
        ("pass_offsets", lambda a: a + 1),
        ("pass_offsets", lambda a: a[-1:]),
        ("words", lambda a: a[:-1]),
        ("scores", None),
    ],
)
def test_damaged_files(tmp_path, name, change):
    path = tmp_path / "phrases"
    phrases_of("a b", "c d").save(path)
    tensors, metadata = files.read_tensors(path)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = np.ascontiguousarray(change(tensors[name]))
    files.write_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match="damaged"):
        firth.load(path)


def test_a_file_without_a_pass(tmp_path):
    path = tmp_path / "phrases"
    firth.Phrases().fit(corpus_of([["a"]])).save(path)
    tensors, metadata = files.read_tensors(path)
    files.write_tensors(path, tensors | {"pass_offsets": np.zeros(1, np.int64)}, metadata)
    with pytest.raises(ValueError, match="it lacks passes"):
        firth.load(path)


@pytest.mark.parametrize(
    "options", [{"min_count": 0}, {"nonsense": 1}, {"connectors": ["b"]}, {"connectors": "b"}, {"threshold": "high"}]
)
def test_damaged_options(tmp_path, options):
    path = tmp_path / "phrases"
    phrases_of("a b", "c d").save(path)
    tensors, metadata = files.read_tensors(path)
    metadata["options"] |= options
    assert json.dumps(metadata["options"])
    files.write_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match="damaged"):
        firth.load(path)


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"min_count": 0}, ValueError, "min_count must be at least 1"),
        ({"min_count": 2.0}, TypeError, "min_count"),
        ({"passes": 0}, ValueError, "passes must be at least 1"),
        ({"scoring": "pmi"}, ValueError, "'npmi' or 'word2phrase', not 'pmi'"),
        ({"threshold": "high"}, TypeError, r"threshold=\.\.\.\) must be float"),
        ({"threshold": True}, TypeError, r"threshold=\.\.\.\) must be float"),
        ({"threshold": 1.5}, ValueError, r"-1 \.\. 1 for scoring='npmi', not 1\.5"),
        ({"threshold": float("nan")}, ValueError, "threshold"),
        ({"threshold": -1, "scoring": "word2phrase"}, ValueError, "not negative"),
        ({"threshold": float("inf"), "scoring": "word2phrase"}, ValueError, "finite"),
        ({"delimiter": None}, TypeError, "delimiter"),
        ({"delimiter": "\udc80"}, ValueError, "surrogates"),
        ({"connectors": "of"}, TypeError, "set of strings, not 'of'"),
        ({"connectors": [1]}, TypeError, "set of strings"),
        ({"connectors": 5}, TypeError, "set of strings"),
    ],
)
def test_bad_options(options, error, said):
    with pytest.raises(error, match=said):
        firth.Phrases(**options)


def test_options_are_those_of_scikit_learn():
    phrases = firth.Phrases(threshold=np.float32(0.25), connectors=["of"])
    expected = {
        "min_count": 5,
        "threshold": 0.25,
        "scoring": "npmi",
        "delimiter": "_",
        "connectors": {"of"},
        "passes": 1,
    }
    assert phrases.get_params() == expected
    phrases.set_params(threshold=None, scoring="word2phrase", passes=2)
    assert phrases.get_params() == {**expected, "threshold": None, "scoring": "word2phrase", "passes": 2}
    with pytest.raises(AttributeError):
        phrases.threshold = 1
    phrases = firth.Phrases(min_count=1).fit(corpus_of([["a", "b"]] * 3))
    copy = pytest.importorskip("sklearn.base").clone(phrases)
    assert copy.get_params() == phrases.get_params()
    with pytest.raises(AttributeError, match="have not been fitted"):
        len(copy)


def test_bad_input():
    phrases = firth.Phrases()
    corpus = corpus_of([["a", "b"]])
    for use in (list, len, lambda p: p.scores, lambda p: p.merge(["a"]), lambda p: p.apply(corpus)):
        with pytest.raises(AttributeError, match="have not been fitted"):
            use(phrases)
    with pytest.raises(AttributeError, match="have not been fitted"):
        phrases.save("nowhere")
    for use in (phrases.fit, phrases.apply):
        with pytest.raises(TypeError, match=r"must be a firth\.Corpus, not list"):
            use(["a", "b"])
        with pytest.raises(ValueError, match="threads must be at least 1"):
            use(corpus, threads=0)
    with pytest.raises(ValueError, match="no token"):
        phrases.fit(firth.Corpus.from_iterable([["x"]], vocabulary=firth.Vocabulary(["a"])))
    phrases.fit(corpus)
    with pytest.raises(TypeError, match="not one string"):
        phrases.merge("new york")
    with pytest.raises(ValueError, match="min_count"):
        phrases.apply(corpus, min_count=0)
    with pytest.raises(ValueError, match="max_size"):
        phrases.apply(corpus, max_size=0)


def test_a_damaged_corpus_is_refused_and_changes_nothing(tmp_path):
    corpus = corpus_of(planted())
    phrases = firth.Phrases().fit(corpus)
    before = list(phrases)
    corpus.save(tmp_path / "corpus")
    tensors, metadata = files.read_tensors(tmp_path / "corpus")
    tensors["ids"][7] = 10_000
    files.write_tensors(tmp_path / "corpus", tensors, metadata)
    damaged = firth.load(tmp_path / "corpus")
    for use in (phrases.fit, phrases.apply):
        with pytest.raises(ValueError, match="10000 is not"):
            use(damaged)
    assert list(phrases) == before


def test_the_kernels_look_at_what_they_get():
    ids, offsets = np.array([0, 1, 0], np.int32), np.array([0, 2, 3])
    out, out_offsets = np.empty(3, np.int32), np.empty(3, np.int64)

    def merge(**changed):
        given = {"states": [0], "words": [1], "targets": [2]} | changed
        arrays = {key: np.array(given[key], np.int32) for key in ("states", "words", "targets")}
        names = ("ids", "offsets", "out", "out_offsets")
        where = [given.get(name, default) for name, default in zip(names, plain, strict=True)]
        return _core.merge_phrases(*where, **arrays, n_words=given.get("n_words", 2), threads=given.get("threads", 1))

    plain = [ids, offsets, out, out_offsets]
    assert merge() == 2
    assert (out[:2].tolist(), out_offsets.tolist()) == ([2, 0], [0, 1, 2])
    for changed in (
        {"n_words": 1, "words": [0]},
        {"n_words": -1},
        {"threads": 0},
        {"states": [-1]},
        {"words": [-1]},
        {"states": [2**31 - 1]},
        {"targets": [-(2**31)]},
        {"words": [1, 1]},
        {"offsets": np.array([0, 3, 2])},
        {"offsets": np.array([0, 2, 4])},
        {"offsets": np.array([], np.int64)},
        {"out": np.empty(2, np.int32)},
        {"out_offsets": np.empty(2, np.int64)},
        {"out_offsets": offsets},
    ):
        with pytest.raises(ValueError, match=r"."):
            merge(**changed)
    frozen = out.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writeable"):
        merge(out=frozen)
    # In place, and with words left out.
    again = ids.copy()
    assert merge(ids=again, out=again) == 2
    assert again[:2].tolist() == [2, 0]
    for new_ids, kept in (([5, -1], [5, 5]), ([-1, 5], [5]), ([-1, -1], [])):
        n = _core.renumber(ids, offsets, out, out_offsets, new_ids=np.array(new_ids, np.int32), threads=2)
        assert out[:n].tolist() == kept
        assert out_offsets[-1] == n
    with pytest.raises(ValueError, match="id 1 is not one of 1 words"):
        _core.renumber(ids, offsets, out, out_offsets, new_ids=np.array([0], np.int32), threads=1)


def test_progress_on_request(capfd):
    corpus = corpus_of(planted())
    firth.Phrases().fit(corpus)
    assert capfd.readouterr() == ("", "")
    firth.Phrases().fit(corpus, progress=True)
    assert "counting" in capfd.readouterr().err
