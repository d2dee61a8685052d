import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from conftest import in_use
from firth import Vectors, _core, load_vectors

WORDS = ["man", "king", "woman", "queen", "cat", "cats", "dog", "dogs", "Paris"]


def random_rows(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def small_vectors():
    # man, king, woman, queen: a parallelogram; cat(s), dog(s): another along the fourth axis.
    return Vectors(
        WORDS,
        np.array(
            [
                [1, 0, 0, 0, 0],
                [1, 1, 0, 0, 0],
                [1, 0, 1, 0, 0],
                [1, 1, 1, 0, 0],
                [0, 0, 0, 0, 1],
                [0, 0, 0, 1, 1],
                [0, 0, 0.1, 0, 1],
                [0, 0, 0.1, 1, 1],
                [0, -1, -1, 0, 0],
            ]
        ),
    )


def search(matrix, queries, k, threads=1):
    norms = _core.inverse_norms(matrix, threads=threads)
    return _core.topk(matrix, inverse_norms=norms, queries=queries, k=k, threads=threads)


# ---- the kernel


def assert_topk(matrix, queries, k, threads=1):
    """What is found is what the oracle finds, up to the rounding of scores."""
    rows, scores = search(matrix, queries, k, threads)
    table = reference.cosines(matrix, queries)
    _, expected = reference.topk(matrix, queries, k)
    tolerance = 2e-7 * max(4, matrix.shape[1]) ** 0.5
    assert rows.shape == scores.shape == (len(queries), k)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(scores, np.take_along_axis(table, rows, axis=1), rtol=0, atol=tolerance)
    assert all(len(set(found)) == k for found in rows.tolist())
    falling = np.diff(scores) < 0
    assert np.all(falling | ((np.diff(scores) == 0) & (np.diff(rows) > 0)))


@pytest.mark.parametrize(
    ("n", "dim", "q", "k"),
    [
        (1, 1, 1, 1),
        (5, 3, 2, 5),
        (24, 17, 1, 3),
        (25, 16, 5, 25),
        (100, 7, 17, 100),
        (300, 300, 64, 10),
        (1000, 33, 70, 1),
        (2000, 100, 3, 2000),
        (3000, 12, 1100, 5),
        (7, 40000, 2, 3),
    ],
)
def test_topk_against_a_sort(route, n, dim, q, k):
    assert_topk(random_rows(n, dim), random_rows(q, dim, 1), k, route.threads)


@given(
    n=st.integers(1, 70), dim=st.integers(1, 40), q=st.integers(1, 40), part=st.floats(0, 1), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=60)
def test_topk_against_a_sort_of_any_shape(n, dim, q, part, seed):
    for name in _core.available_isas():
        with in_use(name):
            assert_topk(random_rows(n, dim, seed), random_rows(q, dim, seed + 1), round(part * n), 1 + seed % 3)


def test_topk_gives_the_same_bits_whatever_the_batch_and_the_threads(route):
    matrix, queries = random_rows(3001, 50), random_rows(1100, 50, 1)
    rows, scores = search(matrix, queries, 20)
    again = search(matrix, queries, 20, route.threads)
    np.testing.assert_array_equal(rows, again[0])
    np.testing.assert_array_equal(scores, again[1])
    for size in (1, 3, 16, 33, 64):
        for first in (0, 500, 1024):
            some = search(matrix, queries[first : first + size], 20, route.threads)
            np.testing.assert_array_equal(rows[first : first + size], some[0])
            np.testing.assert_array_equal(scores[first : first + size], some[1])
    # Nor does a score depend on where the row lies.
    moved = search(np.ascontiguousarray(matrix[5:2000]), queries[:3], 1995)
    whole = search(matrix, queries[:3], 3001)
    for q in range(3):
        expected = {row - 5: score for row, score in zip(whole[0][q], whole[1][q], strict=True)}
        assert all(expected[row] == score for row, score in zip(moved[0][q], moved[1][q], strict=True))


def test_topk_breaks_ties_by_the_lower_row(route):
    # Lengths are powers of two, so that equal directions give equal bits.
    directions = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    which = np.random.default_rng(0).integers(0, 3, 90000)
    matrix = directions[which] * np.float32(2) ** np.random.default_rng(1).integers(-3, 3, (90000, 1))
    matrix = matrix.astype(np.float32)
    # So many queries that several threads work, which take rows in any order.
    rows, scores = search(matrix, directions[[0] * 8], 40000, route.threads)
    expected = np.concatenate([np.flatnonzero(which == 0), np.flatnonzero(which == 1)])[:40000]
    np.testing.assert_array_equal(rows, np.tile(expected, (8, 1)))
    assert set(scores.ravel().tolist()) == {0.0, 1.0}


def test_topk_never_returns_rows_that_are_not_finite(isa):
    matrix = random_rows(50, 8)
    matrix[3, 2], matrix[7, 0], matrix[11, 5] = np.nan, np.inf, -np.inf
    matrix[13] = 3e38  # finite, but its length is not
    bad = {3, 7, 11, 13}
    rows, scores = search(matrix, random_rows(4, 8, 1), 50)
    for found, score in zip(rows.tolist(), scores, strict=True):
        assert set(found[:46]) == set(range(50)) - bad
        assert found[46:] == [-1] * 4
        assert np.isfinite(score[:46]).all()
        assert np.isnan(score[46:]).all()


def test_topk_of_zero_tiny_and_huge_rows(isa):
    matrix = np.array([[0, 0], [1e-20, 0], [1e38, 1e38], [-1e-38, 0], [1e-45, 0]], np.float32)
    _, scores = search(matrix, np.array([[1e-30, 0], [0, 0], [1e38, 1e38]], np.float32), 5)
    assert np.isfinite(scores).all()
    rows, scores = search(matrix[:4], np.array([[2e30, 0]], np.float32), 4)
    assert rows.tolist() == [[1, 2, 0, 3]]
    np.testing.assert_allclose(scores, [[1, 0.5**0.5, 0, -1]], atol=1e-6)
    assert search(matrix, np.zeros((1, 2), np.float32), 2)[1].tolist() == [[0, 0]]


def test_topk_takes_padded_rows_and_does_not_read_the_padding(isa):
    wide = np.full((100, 24), np.nan, np.float32)
    wide[:, :19] = random_rows(100, 19)
    queries = random_rows(5, 19, 1)
    for mine, plain in zip(search(wide[:, :19], queries, 9), search(wide[:, :19].copy(), queries, 9), strict=True):
        np.testing.assert_array_equal(mine, plain)


def test_topk_of_no_columns_is_refused():
    nothing = np.zeros((3, 0), np.float32)
    with pytest.raises(ValueError, match="matrix must have at least 1 column"):
        _core.topk(nothing, inverse_norms=np.ones(3, np.float32), queries=nothing, k=1, threads=1)


def test_topk_checks_its_arguments():
    matrix, norms = random_rows(4, 3), np.ones(4, np.float32)
    good = {"inverse_norms": norms, "queries": matrix, "k": 2, "threads": 1}
    for change, message in [
        ({"k": 5}, "k must lie in 0 .. 4, not 5"),
        ({"k": -1}, "k must lie"),
        ({"queries": random_rows(1, 2)}, "queries must have 3 columns, not 2"),
        ({"inverse_norms": norms[:3]}, "inverse_norms must have 4 elements, not 3"),
        ({"threads": 0}, "threads must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            _core.topk(matrix, **{**good, **change})
    with pytest.raises(TypeError):
        _core.topk(matrix.astype(np.float64), **good)


def test_topk_lets_go_of_the_gil():
    matrix, queries = random_rows(20000, 100), random_rows(500, 100, 1)
    norms = _core.inverse_norms(matrix, threads=1)

    def seen_meanwhile():
        begun, ended = threading.Event(), threading.Event()
        seen = []
        watcher = threading.Thread(target=lambda: seen.append(begun.wait() and not ended.is_set()))
        watcher.start()
        begun.set()
        _core.topk(matrix, inverse_norms=norms, queries=queries, k=10, threads=1)
        ended.set()
        watcher.join()
        return seen[0]

    # With an interval this long nobody is made to let go of the interpreter: the watcher runs before the end only if
    # the search lets it. Tried again because a busy machine may let it run late.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        assert any(seen_meanwhile() for _ in range(5))
    finally:
        sys.setswitchinterval(interval)


# ---- Vectors


def test_the_matrix_is_kept_without_a_copy():
    for matrix in (random_rows(9, 5), np.zeros((9, 16), np.float32)[:, :5]):
        vectors = Vectors(WORDS, matrix)
        assert np.shares_memory(vectors.matrix, matrix)
        assert not vectors.matrix.flags.writeable
        assert matrix.flags.writeable
    unaligned = np.frombuffer(b"-" + random_rows(9, 5).tobytes(), np.float32, offset=1).reshape(9, 5)
    others = random_rows(9, 10)[:, ::2], random_rows(5, 9).T, random_rows(9, 5)[::-1], np.ones((9, 5)), unaligned
    for matrix in others:
        vectors = Vectors(WORDS, matrix)
        np.testing.assert_array_equal(vectors.matrix, matrix)
        assert vectors.matrix.dtype == np.float32
        assert vectors.matrix.flags.aligned
        assert len(vectors.most_similar("king")) == 8


def test_words_must_be_different_strings_and_fit_the_matrix():
    with pytest.raises(ValueError, match=r"'a' is words\[0\] and words\[2\]"):
        Vectors(["a", "b", "a"], np.ones((3, 2)))
    with pytest.raises(TypeError, match=r"words\[1\] is of type int"):
        Vectors(["a", 2], np.ones((2, 2)))
    with pytest.raises(TypeError, match="not one string"):
        Vectors("ab", np.ones((2, 2)))
    for shape in [(2, 2), (3,), (3, 0), (3, 1, 1)]:
        with pytest.raises(ValueError, match="matrix must have the shape"):
            Vectors(["a", "b", "c"], np.ones(shape))
    with pytest.raises(TypeError, match="real numbers"):
        Vectors(["a"], np.array([["1"]]))


def test_look_up():
    vectors = small_vectors()
    assert len(vectors) == 9
    assert vectors.vector_size == 5
    assert "king" in vectors
    assert "King" not in vectors
    assert vectors.index["woman"] == 2
    assert vectors["king"].tolist() == [1, 1, 0, 0, 0]
    assert vectors[["king", "man"]].tolist() == [[1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert vectors[[]].shape == (0, 5)
    assert vectors.get("queen").tolist() == [1, 1, 1, 0, 0]
    assert vectors.get("duke") is None
    assert vectors.get("duke", 7) == 7


def test_an_unknown_word_is_an_error_that_helps():
    vectors = small_vectors()
    with pytest.raises(KeyError, match=r"'duke' is not one of the 9 words\"$"):
        vectors["duke"]
    with pytest.raises(KeyError, match="'King' is not one of the 9 words; 'king' is one"):
        vectors[["man", "King"]]
    with pytest.raises(KeyError, match="'Paris' is one"):
        vectors.most_similar("paris")
    with pytest.raises(TypeError, match="a word must be a str, not 3"):
        vectors[[3]]


def test_similarity_and_distance():
    vectors = small_vectors()
    assert vectors.similarity("man", "king") == pytest.approx(0.5**0.5)
    assert vectors.similarity("man", np.array([-2, 0, 0, 0, 0])) == -1
    assert vectors.similarity("queen", "queen") == 1
    assert vectors.distance("man", "king") == pytest.approx(1 - 0.5**0.5)
    with pytest.raises(ValueError, match=r"shape \(5,\), not \(2,\)"):
        vectors.similarity("man", np.ones(2))


def test_a_zero_vector_has_similarity_0_with_everything():
    vectors = Vectors(["zero", "one", "two"], [[0, 0], [1, 0], [1, 1]])
    assert vectors.similarity("zero", "one") == vectors.similarity("zero", "zero") == 0
    assert vectors.most_similar("zero") == [("one", 0.0), ("two", 0.0)]
    assert vectors.most_similar("one")[-1] == ("zero", 0.0)
    assert vectors.most_similar("zero", method="3cosmul") == [("one", 0.5), ("two", 0.5)]


def test_analogies_of_a_parallelogram():
    vectors = small_vectors()
    for method in ("3cosadd", "3cosmul"):
        assert vectors.analogy("man", "king", "woman", method=method)[0][0] == "queen"
        assert vectors.analogy("cat", "cats", "dog", 1, method=method)[0][0] == "dogs"
        answers = vectors.most_similar(["king", "woman"], "man", topn=99, method=method)
        assert len(answers) == 6
        assert not {"king", "woman", "man"} & {word for word, _ in answers}
        scores = [score for _, score in answers]
        assert scores == sorted(scores, reverse=True)


def test_most_similar_takes_words_vectors_and_both():
    vectors = small_vectors()
    assert vectors.most_similar("king", topn=3) == vectors.most_similar(["king"], topn=3)
    by_vector = vectors.most_similar(vectors["king"])
    assert by_vector[0] == ("king", pytest.approx(1))
    assert by_vector[1:] == vectors.most_similar("king")
    assert vectors.most_similar(np.stack([vectors["king"], vectors["man"]]))[0][0] in ("king", "man")
    assert vectors.most_similar(["king", vectors["man"]])[0][0] == "man"
    assert vectors.most_similar(negative="king")[0][0] == "Paris"
    assert vectors.most_similar("king", topn=0) == []
    assert {word for word, _ in vectors.most_similar("dog", restrict_vocab=3)} == {"man", "king", "woman"}
    assert {w for w, _ in vectors.most_similar("dog", restrict_vocab=3, method="3cosmul")} == {"man", "king", "woman"}
    for wrong, message in [
        ({}, "at least one"),
        ({"positive": "king", "method": "cos"}, "'3cosadd' or '3cosmul', not 'cos'"),
        ({"positive": "king", "topn": -2}, "topn must not be negative"),
        ({"positive": "king", "restrict_vocab": -1}, "restrict_vocab must not be negative"),
        ({"positive": np.full(5, np.nan)}, "a vector is not finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            vectors.most_similar(**wrong)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (2.5, TypeError, r"must be a whole number, not 2\.5"),
        (True, TypeError, "must be a whole number, not True"),
        ("3", TypeError, "must be a whole number, not '3'"),
        (-1, ValueError, "must not be negative, not -1"),
    ],
)
@pytest.mark.parametrize("name", ["topn", "restrict_vocab"])
def test_numbers_of_words_are_whole_and_not_negative(value, error, message, name):
    vectors = small_vectors()
    wrong = {name: value}
    for ask in [
        lambda: vectors.search(np.ones((1, 5)), **wrong),
        lambda: vectors.neighbors(["king"], **wrong),
        lambda: vectors.neighbors(np.ones((1, 5)), **wrong),
        lambda: vectors.most_similar("king", **wrong),
        lambda: vectors.most_similar("king", method="3cosmul", **wrong),
        lambda: vectors.analogy("man", "king", "woman", **wrong),
    ]:
        with pytest.raises(error, match=f"{name} {message}"):
            ask()


def test_topn_may_be_any_integer_and_none_for_the_scores_of_all_words():
    matrix = random_rows(9, 5)
    matrix[4, 1] = np.nan
    vectors = Vectors(WORDS, matrix)
    assert len(vectors.most_similar("king", topn=np.int32(2))) == 2
    for question in ({"positive": "king"}, {"positive": ["king", "dog"], "negative": ["man"]}):
        for method in ("3cosadd", "3cosmul"):
            scores = vectors.most_similar(**question, topn=None, method=method)
            assert scores.dtype == np.float32
            assert np.flatnonzero(np.isnan(scores)).tolist() == [4]
            for word, score in vectors.most_similar(**question, topn=99, method=method):
                assert scores[vectors.index[word]] == np.float32(score)
            some = vectors.most_similar(**question, topn=None, method=method, restrict_vocab=3)
            np.testing.assert_allclose(some, scores[:3], rtol=1e-6)
    for ask in (lambda: vectors.search(np.ones((1, 5)), None), lambda: vectors.neighbors(["king"], None)):
        with pytest.raises(TypeError, match="topn must be a whole number, not None"):
            ask()


def test_words_may_have_weights():
    vectors = small_vectors()
    assert vectors.most_similar([("king", 1.0)], [("man", -1.0)]) == vectors.most_similar("king", "man")
    assert vectors.most_similar(("king", 2)) == vectors.most_similar("king")
    assert vectors.most_similar(("king", "man")) == vectors.most_similar(["king", "man"])
    assert vectors.most_similar([("king", -1)])[0][0] == "Paris"
    king, cats = (vectors[word] / np.linalg.norm(vectors[word]) for word in ("king", "cats"))
    found = dict(vectors.most_similar([("king", 3.0), ("cats", np.float32(0.5)), (vectors["man"], 0.25)], topn=99))
    wanted = 3 * king + 0.5 * cats + 0.25 * vectors["man"]
    assert found["queen"] == pytest.approx(vectors.similarity(wanted, "queen"))
    assert not {"king", "cats"} & found.keys()
    assert "man" in found  # given as a vector
    for wrong, error, message in [
        ([("king", "cats", 2)], ValueError, "must be a pair"),
        ([("king", "cats")], TypeError, "the weight of 'king' must be a number, not 'cats'"),
        ([("king", float("nan"))], ValueError, "the weight of 'king' must be finite, not nan"),
        ([("duke", 0.5)], KeyError, "'duke' is not one of"),
        ([("king", 10**400)], ValueError, "the weight of 'king' must be finite, not inf"),
    ]:
        with pytest.raises(error, match=message):
            vectors.most_similar(wrong)
    with pytest.raises(ValueError, match="weights of words need method='3cosadd'"):
        vectors.most_similar([("king", 0.5)], method="3cosmul")


@pytest.mark.parametrize("scale", [1e308, 1e150, 1e-150, 1e-320])
def test_weights_of_any_size_are_relative(scale):
    vectors = small_vectors()
    wanted = vectors.most_similar([("king", 1.0), ("cats", -1.0)])
    found = vectors.most_similar([("king", scale), ("cats", -scale)])
    assert [word for word, _ in found] == [word for word, _ in wanted]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in wanted], atol=1e-6)


@pytest.mark.parametrize("wrong", [None, 3, 0.5])
def test_what_is_neither_words_nor_vectors_is_named(wrong):
    with pytest.raises(TypeError, match=f"give a word, a vector or a list of them, not {wrong}"):
        small_vectors().most_similar(wrong)
    with pytest.raises(TypeError, match=r"give a word \(a str\) or a vector of numbers, not \['king', 'man'\]"):
        small_vectors().most_similar([["king", "man"]])


def test_vectors_are_looked_up_by_word_alone():
    vectors = small_vectors()
    assert list(vectors) == WORDS
    assert dict(zip(vectors, vectors.matrix, strict=True)).keys() == vectors.index.keys()
    assert vectors[iter(["king", "man"])].tolist() == vectors[["king", "man"]].tolist()
    assert 0 not in vectors
    assert ["king"] not in vectors
    for wrong in (0, -1, np.int64(2), slice(5), slice(None), None, 2.5, True):
        with pytest.raises(TypeError, match=r"looked up by a word or a list of words, not by .*vectors\.matrix"):
            vectors[wrong]
    for several in ([0, 1], np.arange(3), [slice(5)]):
        with pytest.raises(TypeError, match="a word must be a str"):
            vectors[several]


def test_counts_stay_with_their_words():
    assert small_vectors().counts is None
    counts = Vectors(["a", "b"], np.ones((2, 3)), [5, 2]).counts
    assert counts.dtype == np.int64
    assert counts.tolist() == [5, 2]
    with pytest.raises(ValueError, match="counts must be 2 numbers"):
        Vectors(["a", "b"], np.ones((2, 3)), [5])
    with pytest.raises(ValueError, match="cannot be negative"):
        Vectors(["a", "b"], np.ones((2, 3)), [5, -1])


def test_gensim_takes_the_counts_and_gives_them_back():
    models = pytest.importorskip("gensim.models")
    counts = np.arange(9)[::-1] * 10
    keyed = Vectors(WORDS, random_rows(9, 5), counts).to_gensim()
    assert [keyed.get_vecattr(word, "count") for word in WORDS] == counts.tolist()
    assert Vectors.from_gensim(keyed).counts.tolist() == counts.tolist()
    assert Vectors.from_gensim(small_vectors().to_gensim()).counts is None
    theirs = models.Word2Vec([["x", "y", "y"], ["z", "y"]] * 3, vector_size=4, min_count=1, workers=1)
    assert dict(zip(theirs.wv.index_to_key, Vectors.from_gensim(theirs.wv).counts.tolist(), strict=True)) == {
        "y": 9, "x": 3, "z": 3,
    }  # fmt: skip


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_analogies_against_the_oracle(method):
    matrix = random_rows(60, 6)
    vectors = Vectors([f"w{i}" for i in range(60)], matrix)
    for a, b, c in np.random.default_rng(1).integers(0, 60, (50, 3)).tolist():
        expected = reference.analogy_answer(matrix, a, b, c, 40, method)
        found = vectors.analogy(f"w{a}", f"w{b}", f"w{c}", 1, restrict_vocab=40, method=method)
        assert found[0][0] == f"w{expected}"


def test_3cosmul_is_equation_5():
    vectors = small_vectors()
    (word, score), *_ = vectors.analogy("man", "king", "woman", method="3cosmul")
    cos = [(1 + vectors.similarity(word, other)) / 2 for other in ("man", "king", "woman")]
    assert score == pytest.approx(cos[1] * cos[2] / (cos[0] + 0.001), rel=1e-5)


def test_neighbors_of_many():
    vectors = small_vectors()
    together = vectors.neighbors(["king", "cat", "Paris"], 4)
    assert together == [vectors.most_similar(word, topn=4) for word in ("king", "cat", "Paris")]
    by_vector = vectors.neighbors(vectors[["king", "cat"]], 2)
    assert [found[0] for found in by_vector] == [("king", pytest.approx(1)), ("cat", pytest.approx(1))]
    assert [len(found) for found in vectors.neighbors(["king", "dog"], 99, restrict_vocab=3)] == [2, 3]
    assert vectors.neighbors([]) == []
    with pytest.raises(TypeError, match=r"write \['king'\]"):
        vectors.neighbors("king")


def test_search():
    vectors = small_vectors()
    rows, scores = vectors.search([[1, 0, 0, 0, 0], [0, 0, 0, 1, 1]], 2)
    assert rows.tolist() == [[0, 1], [5, 7]]
    np.testing.assert_allclose(scores[:, 0], 1, atol=1e-6)
    assert vectors.search(np.ones((2, 5)), 100)[0].shape == (2, 9)
    assert vectors.search(np.ones((0, 5)))[0].shape == (0, 9)
    with pytest.raises(ValueError, match=r"shape \(q, 5\), not \(5,\)"):
        vectors.search(np.ones(5))
    with pytest.raises(ValueError, match=r"queries\[1\] is not finite"):
        vectors.search([[0, 0, 0, 0, 0], [0, np.inf, 0, 0, 0]])


def test_rows_that_are_not_finite_are_never_found():
    matrix = random_rows(9, 5)
    matrix[4, 1] = np.nan
    vectors = Vectors(WORDS, matrix)
    for method in ("3cosadd", "3cosmul"):
        found = [word for word, _ in vectors.most_similar("king", topn=99, method=method)]
        assert sorted(found) == sorted(set(WORDS) - {"king", "cat"})
    assert "cat" not in [word for word, _ in vectors.neighbors(["king"], 99)[0]]
    assert 1 <= vectors.rank("king", "queen") <= 7
    with pytest.raises(ValueError, match="'cat' is not finite"):
        vectors.similarity("cat", "king")


def test_rank_is_the_place_among_the_neighbors():
    vectors = Vectors([f"w{i}" for i in range(50)], random_rows(50, 8))
    for place, (word, _) in enumerate(vectors.most_similar("w7", topn=49), 1):
        assert vectors.rank("w7", word) == place
    with pytest.raises(ValueError, match="two different words"):
        vectors.rank("w7", "w7")


def test_doesnt_match():
    vectors = small_vectors()
    assert vectors.doesnt_match(["king", "queen", "woman", "cats"]) == "cats"
    assert vectors.doesnt_match(["cats", "cat", "king", "dogs"]) == "king"
    with pytest.raises(ValueError, match="three words or more"):
        vectors.doesnt_match(["king", "man"])


def test_a_direction_orders_words_along_it():
    vectors = small_vectors()
    number = vectors.direction([("cat", "cats")])
    assert number.vector.dtype == np.float32
    assert np.linalg.norm(number.vector) == pytest.approx(1)
    singular, plural, other = number.project(["dog", "dogs", "man"]).tolist()
    assert singular < 0 < plural
    assert other == 0
    unit = vectors["cats"] / np.linalg.norm(vectors["cats"]) - vectors["cat"] / np.linalg.norm(vectors["cat"])
    np.testing.assert_allclose(number.vector, unit / np.linalg.norm(unit), atol=1e-6)
    with pytest.raises(AttributeError):
        number.vector = unit
    with pytest.raises(ValueError, match="no common direction"):
        vectors.direction([("cat", "cats"), ("cats", "cat")])
    with pytest.raises(ValueError, match="at least one pair"):
        vectors.direction([])
    with pytest.raises(ValueError, match=r"direction needs pairs of words, not \('cat',\)"):
        vectors.direction([("cat",)])


def test_save_and_load(tmp_path):
    vectors = small_vectors()
    for name in ("v.txt", "v.vec", "v.bin", "v.glove", "v.safetensors", "v.txt.gz"):
        vectors.save(tmp_path / name)
        again = load_vectors(tmp_path / name)
        assert again.words == vectors.words
        np.testing.assert_array_equal(again.matrix, vectors.matrix)


def test_gensim_gives_the_same_answers_both_ways():
    pytest.importorskip("gensim")
    vectors = Vectors([f"w{i}" for i in range(200)], random_rows(200, 10))
    keyed = vectors.to_gensim()
    back = Vectors.from_gensim(keyed)
    assert back.words == vectors.words
    np.testing.assert_array_equal(back.matrix, vectors.matrix)
    for question in (
        {"positive": "w1"},
        {"positive": ["w1", "w2"], "negative": ["w3"]},
        {"positive": ["w1"], "negative": ["w2"], "restrict_vocab": 50, "topn": 7},
        {"positive": [("w1", 0.5), "w4"], "negative": [("w2", -0.25), ("w3", 0.5), "w5"]},
    ):
        mine, theirs = vectors.most_similar(**question), keyed.most_similar(**question)
        assert [word for word, _ in mine] == [word for word, _ in theirs]
        np.testing.assert_allclose([score for _, score in mine], [score for _, score in theirs], atol=1e-6)
    for restrict in (None, 50):
        every = {"positive": ["w1"], "negative": ["w2"], "topn": None, "restrict_vocab": restrict}
        np.testing.assert_allclose(vectors.most_similar(**every), keyed.most_similar(**every), atol=1e-6)
    mine = [word for word, _ in vectors.most_similar(["w1", "w2"], ["w3"], method="3cosmul", topn=3)]
    with pytest.warns(DeprecationWarning, match="init_sims"):  # gensim calls what it has deprecated
        theirs = keyed.most_similar_cosmul(["w1", "w2"], ["w3"], topn=3)
    assert mine == [word for word, _ in theirs]
    assert vectors.similarity("w1", "w2") == pytest.approx(float(keyed.similarity("w1", "w2")), abs=1e-6)
    assert vectors.rank("w1", "w2") == keyed.rank("w1", "w2")
    some = ["w1", "w2", "w5", "w9"]
    assert vectors.doesnt_match(some) == keyed.doesnt_match(some)
    with pytest.raises(TypeError, match="KeyedVectors"):
        Vectors.from_gensim(vectors)


def test_without_gensim_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(ImportError, match="pip install gensim"):
        small_vectors().to_gensim()


def test_a_table_for_notebooks():
    vectors = Vectors(["<b>", *(f"w{i}" for i in range(20))], np.arange(21 * 12).reshape(21, 12), range(5000, 5021))
    table = vectors._repr_html_()
    assert "<caption>Vectors(21 words, vector_size=12)</caption>" in table
    assert "<td>&lt;b&gt;</td><td>5,000</td><td>0.000</td><td>1.000</td>" in table
    assert table.count("<tr>") == 11
    assert "9.000" in table
    assert ">10.000" not in table
    assert "<th>word</th><th>0</th>" in Vectors(["a"], [[1.0]])._repr_html_()
