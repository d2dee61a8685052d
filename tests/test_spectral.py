"""PMI, the truncated singular value decomposition, PPMI and LSA against their definitions and planted structure."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from scipy.sparse.linalg import svds

import firth
import reference
from firth import files
from firth.models.spectral import truncated_svd


def counts_of(dense):
    words = [f"w{i}" for i in range(len(dense))]
    return firth.Cooccurrences(sparse.csr_array(np.asarray(dense, np.float32)), firth.Vocabulary(words))


def topics(n=400, length=12, seed=3):
    """Documents that each draw from one of two halves of forty words."""
    rng = np.random.default_rng(seed)
    return [[f"{'ab'[i % 2]}{word}" for word in rng.integers(0, 20, length)] for i in range(n)]


@pytest.fixture(scope="module")
def corpus():
    return firth.Corpus.from_iterable(topics(), min_count=1)


def zipf(n=3000, seed=0):
    """Counts as language has them: few pairs often, most never."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, n + 1)
    share /= share.sum()
    draws = rng.choice(n, (2, 400_000), p=share)
    # Words of one of thirty topics keep each other's company.
    draws[1] = np.where(rng.random(400_000) < 0.6, draws[1] // 30 * 30 + draws[0] % 30, draws[1]) % n
    matrix = sparse.coo_array((np.ones(400_000, np.float32), tuple(draws)), shape=(n, n)).tocsr()
    return firth.Cooccurrences(matrix, firth.Vocabulary([f"w{i}" for i in range(n)]))


# --- PMI --------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    dense=arrays(np.float32, st.integers(1, 9).map(lambda n: (n, n)), elements=st.integers(0, 50)),
    shift=st.floats(0.1, 20),
    smoothing=st.floats(0, 2),
    positive=st.booleans(),
)
def test_pmi_equals_the_formula(dense, shift, smoothing, positive):
    found = counts_of(dense).pmi(shift=shift, context_smoothing=smoothing, positive=positive)
    exact = reference.pmi(dense, shift, smoothing, positive)
    np.testing.assert_allclose(found.toarray(), exact, rtol=1e-6, atol=1e-12)
    assert found.dtype == np.float32
    assert (found.data != 0).all()
    found.check_format()


def test_pmi_defaults():
    """Smoothed by 0.75, not shifted, positive."""
    dense = np.random.default_rng(0).poisson(1.0, (30, 30))
    np.testing.assert_allclose(
        counts_of(dense).pmi().toarray(), reference.pmi(dense, 1, 0.75, True), rtol=1e-6, atol=1e-12
    )


def test_stored_zeros_are_pairs_unseen():
    dense = np.array([[8, 0, 1], [0, 5, 0], [1, 0, 0]], np.float32)
    stored = sparse.csr_array((dense.ravel(), np.tile([0, 1, 2], 3), [0, 3, 6, 9]), shape=(3, 3))
    counts = firth.Cooccurrences(stored, firth.Vocabulary(["a", "b", "c"]))
    for positive in (True, False):
        found = counts.pmi(positive=positive, shift=0.01)
        np.testing.assert_allclose(found.toarray(), reference.pmi(dense, 0.01, 0.75, positive), rtol=1e-6)
        assert found.nnz == 4


def test_pmi_in_pieces_equals_pmi_at_once(monkeypatch):
    counts = zipf(300)
    whole = [counts.pmi(positive=positive) for positive in (True, False)]
    monkeypatch.setattr(firth.counts, "_ENTRIES", 100)
    for one, positive in zip(whole, (True, False), strict=True):
        pieces = counts.pmi(positive=positive)
        np.testing.assert_allclose(pieces.data, one.data, rtol=1e-6)
        np.testing.assert_array_equal(pieces.indices, one.indices)
        np.testing.assert_array_equal(pieces.indptr, one.indptr)


def test_signed_pmi_tells_pairs_seen_from_pairs_unseen():
    counts = counts_of([[8, 1, 0], [1, 8, 0], [0, 0, 0]])
    signed = counts.pmi(positive=False).toarray()
    assert signed[0, 1] < 0 < signed[0, 0]
    assert signed[2].tolist() == [0, 0, 0]
    stored = sparse.csr_array((np.array([1, 0], np.float32), [0, 1], [0, 2, 2]), shape=(2, 2))
    seen = firth.Cooccurrences(stored, firth.Vocabulary(["a", "b"])).pmi(positive=False, shift=2)
    assert seen.toarray() == pytest.approx(np.array([[-np.log(2), 0], [0, 0]]))


@pytest.mark.parametrize("wrong", [-1, np.nan, np.inf])
def test_pmi_of_what_are_no_counts(wrong):
    with pytest.raises(ValueError, match="row 1, column 2"):
        counts_of([[0, 1, 1], [1, 1, wrong], [1, 1, 1]]).pmi()


@pytest.mark.parametrize("column", [-1, 3, 2**20])
def test_pmi_of_columns_that_are_none(column):
    counts = counts_of([[0, 1, 1], [1, 1, 2], [1, 1, 1]])
    counts.csr.indices[4] = column
    with pytest.raises(ValueError, match=f"row 1, column {column} lies outside of a matrix of 3 words"):
        counts.pmi()


def test_pmi_smoothed_beyond_what_a_number_holds():
    """10 ** 900 is no float64; the share that it stands for is 1."""
    found = counts_of([[0, 10], [10, 1]]).pmi(context_smoothing=900, positive=False).toarray()
    share = 900 * np.log(10 / 11)  # of the rarer column, as a logarithm
    np.testing.assert_allclose(found, [[0, 0], [np.log(10 / 11) - share, np.log(1 / 11)]], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"shift": 0}, ValueError),
        ({"shift": np.nan}, ValueError),
        ({"shift": "1"}, TypeError),
        ({"context_smoothing": -1}, ValueError),
        ({"context_smoothing": True}, TypeError),
    ],
)
def test_pmi_refuses(options, error):
    with pytest.raises(error, match=next(iter(options))):
        counts_of([[1]]).pmi(**options)


# --- truncated SVD ----------------------------------------------------------------------------------------------------


def planted(rows, columns, values, seed=0):
    """A sparse matrix of known singular values: products of sparse orthonormal columns, each with rows of its own."""
    rng = np.random.default_rng(seed)

    def sides(n):
        owner = rng.integers(0, len(values), n)
        side = sparse.csr_array((rng.standard_normal(n), (np.arange(n), owner)), shape=(n, len(values)))
        return side / np.sqrt(side.multiply(side).sum(axis=0))

    u, v = sides(rows), sides(columns)
    return sparse.csr_array(sparse.csr_array(u * np.asarray(values)) @ sparse.csr_array(v).T).astype(np.float32)


def orthonormal(u):
    return abs(u.T @ u - np.eye(u.shape[1])).max() < 1e-5


@pytest.mark.parametrize("shape", [(900, 700), (700, 900)])
def test_svd_finds_planted_values(isa, shape):
    values = 100 * 0.8 ** np.arange(20)
    matrix = planted(*shape, values)
    u, s, v = truncated_svd(matrix, 10, threads=2)
    np.testing.assert_allclose(s, values[:10], rtol=1e-5)
    np.testing.assert_allclose(s, svds(matrix.astype(np.float64), 10)[1][::-1], rtol=1e-5)
    assert u.shape == (shape[0], 10)
    assert v.shape == (shape[1], 10)
    assert orthonormal(u)
    assert orthonormal(v)
    np.testing.assert_allclose(matrix @ v, u * s, atol=1e-3)
    assert (u[abs(u).argmax(axis=0), np.arange(10)] > 0).all()


def test_svd_beyond_the_rank():
    """Of rank twenty, forty asked for; rows repeat, so that nothing but random numbers can fill the rest."""
    values = 100 * 0.8 ** np.arange(20)
    small = planted(300, 300, values)
    matrix = sparse.csr_array(sparse.vstack([small, small, small]))
    u, s, v = truncated_svd(matrix, 40)
    np.testing.assert_allclose(s[:20], np.sqrt(3) * values, rtol=1e-4)
    assert (s[20:] < 1e-4).all()
    assert orthonormal(u)
    assert orthonormal(v)


def test_svd_of_two_blocks():
    blocks = sparse.block_diag([np.full((500, 400), 2.0), np.ones((300, 400))], format="csr")
    u, s, _ = truncated_svd(sparse.csr_array(blocks), 3)
    np.testing.assert_allclose(s, [2 * np.sqrt(500 * 400), np.sqrt(300 * 400), 0], atol=1e-3)
    np.testing.assert_allclose(u[:500, 0], 500**-0.5, rtol=1e-4)
    np.testing.assert_allclose(u[500:, 1], 300**-0.5, rtol=1e-4)
    np.testing.assert_allclose(u[500:, 0], 0, atol=1e-6)


def test_svd_of_zeros():
    u, s, v = truncated_svd(sparse.csr_array((600, 500), dtype=np.float32), 3)
    assert (s == 0).all()
    assert orthonormal(u)
    assert orthonormal(v)


def test_svd_of_equal_values():
    """More equal ones than a block has columns."""
    u, s, _ = truncated_svd(sparse.eye_array(900, format="csr", dtype=np.float32), 50)
    np.testing.assert_allclose(s, 1, rtol=1e-5)
    assert orthonormal(u)


@pytest.mark.parametrize("shape", [(1, 1), (5, 400), (400, 5), (40, 40)])
def test_svd_of_small_matrices_is_exact(shape):
    dense = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    k = min(shape)
    u, s, v = truncated_svd(sparse.csr_array(dense), k)
    np.testing.assert_allclose(s, np.linalg.svd(dense.astype(np.float64))[1], rtol=1e-12)
    np.testing.assert_allclose(u * s @ v.T, dense, atol=1e-5)


def test_svd_explains_what_can_be_explained():
    """A slowly falling spectrum: more of the variance than five power iterations, and nearly all that is possible."""
    matrix = zipf(1200).pmi()
    dense = matrix.toarray()
    exact = np.linalg.svd(dense, compute_uv=False)[:60].astype(np.float64)
    u, s, v = truncated_svd(matrix, 60)
    assert (s <= exact * (1 + 1e-6)).all()
    assert (s**2).sum() > 0.998 * (exact**2).sum()
    assert (s**2).sum() > (reference.power_iteration_values(dense, 60, n_iter=5, oversampling=10) ** 2).sum()
    np.testing.assert_allclose((u * (matrix @ v)).sum(axis=0), s, rtol=1e-5)
    np.testing.assert_allclose(s[:10], exact[:10], rtol=1e-5)


def test_svd_same_bits_for_any_threads_and_seeds_differ():
    matrix = zipf().pmi()
    one = truncated_svd(matrix, 8, threads=1)
    for threads in (2, 3):
        assert [part.tobytes() for part in truncated_svd(matrix, 8, threads=threads)] == [p.tobytes() for p in one]
    other = truncated_svd(matrix, 8, seed=2)
    assert other[0].tobytes() != one[0].tobytes()
    np.testing.assert_allclose(other[1], one[1], rtol=1e-3)


def test_svd_takes_columns_in_any_order():
    matrix = zipf(900).pmi()
    s = truncated_svd(matrix, 5)[1]
    turned = sparse.csr_array(matrix[:, ::-1])
    turned.indices = turned.indices.copy()
    assert not turned.has_sorted_indices
    np.testing.assert_allclose(truncated_svd(turned, 5)[1], s, rtol=1e-4)


def test_svd_refuses():
    matrix = sparse.csr_array(np.ones((4, 3), np.float32))
    with pytest.raises(ValueError, match="k must be at most 3, not 4"):
        truncated_svd(matrix, 4)
    with pytest.raises(ValueError, match="k must be at least 1"):
        truncated_svd(matrix, 0)
    with pytest.raises(TypeError, match="k must be a whole number"):
        truncated_svd(matrix, 1.0)
    matrix.data[0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        truncated_svd(matrix, 1)


# --- PPMI -------------------------------------------------------------------------------------------------------------


def halves(vectors):
    """Mean cosine within the topics of `topics`, and between them."""
    words = np.array([word[0] for word in vectors.words])
    unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)
    cosines, same = unit @ unit.T, words[:, None] == words
    return cosines[same & ~np.eye(len(words), dtype=bool)].mean(), cosines[~same].mean()


@pytest.mark.parametrize("model", [firth.PPMI(vector_size=2), firth.LSA(vector_size=2)])
def test_two_topics_are_two_directions(model, corpus):
    within, between = halves(model.fit(corpus).vectors)
    assert within > 0.9
    assert between < 0.5
    assert within - between > 0.7


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_ppmi_is_the_decomposition_of_the_matrix(corpus, power):
    options = {"window": 3, "weighting": "flat", "side": "left"}
    model = firth.PPMI(
        vector_size=7, shift=1.2, context_smoothing=0.5, eigenvalue_weighting=power, seed=5, **options
    ).fit(corpus)
    matrix = firth.count_cooccurrences(corpus, **options).pmi(shift=1.2, context_smoothing=0.5)
    u, s, v = np.linalg.svd(matrix.toarray())
    np.testing.assert_allclose(model.singular_values, s[:7], rtol=1e-5)
    signs = np.sign((model.vectors.matrix * u[:, :7]).sum(axis=0))
    np.testing.assert_allclose(model.vectors.matrix, u[:, :7] * signs * s[:7] ** power, atol=1e-4)
    np.testing.assert_allclose(model._tensors["context"], v[:7].T * signs * s[:7] ** power, atol=1e-4)
    assert model.history == []


def test_ppmi_takes_counts(corpus):
    counts = firth.count_cooccurrences(corpus, window=10, weighting="dynamic")
    a, b = firth.PPMI(vector_size=5).fit(corpus), firth.PPMI(vector_size=5, window=2).fit(counts)
    assert a.vectors.matrix.tobytes() == b.vectors.matrix.tobytes()
    assert a.vectors.words == b.vectors.words == corpus.vocabulary.words


def test_words_without_counts_are_zeros():
    documents = [["b", "a"], ["a", "c", "b"]]
    corpus = firth.Corpus.from_iterable(documents, vocabulary=firth.Vocabulary(["a", "b", "never", "c"]))
    for model in (firth.PPMI(vector_size=3, eigenvalue_weighting=0.0, context_smoothing=0.0), firth.LSA(vector_size=2)):
        matrix = model.fit(corpus).vectors.matrix
        assert np.isfinite(matrix).all()
        assert not matrix[2].any()
        assert matrix[3].any()
    assert firth.PPMI(vector_size=None).fit(corpus).matrix[[2]].nnz == 0


def test_words_without_counts_are_zeros_on_both_sides_of_a_large_matrix(monkeypatch):
    """The random start gives the columns of unknown words numbers; nothing of them may be left."""
    monkeypatch.setattr(firth.models.spectral, "_ENTRIES", 1000)
    counts = zipf(900)
    matrix = counts.csr.tolil()
    matrix[7] = 0
    matrix[:, 9] = 0
    lacking = firth.Cooccurrences(sparse.csr_array(matrix.tocsr()), counts.vocabulary)
    tensors = firth.PPMI(vector_size=4).fit(lacking)._tensors
    assert not tensors["vectors"][7].any()
    assert not tensors["context"][9].any()
    assert tensors["context"][7].any()


def test_words_without_counts_are_zeros_where_the_rank_is_low():
    """Random directions fill what a matrix of rank two leaves; nothing of them may be left either."""
    blocks = sparse.block_diag([np.full((300, 300), 3.0), np.ones((300, 300)), np.zeros((9, 9))], format="csr")
    counts = firth.Cooccurrences(
        sparse.csr_array(blocks).astype(np.float32), firth.Vocabulary([f"w{i}" for i in range(609)])
    )
    vectors = firth.PPMI(vector_size=4).fit(counts).vectors.matrix
    assert vectors[:600].any(axis=1).all()
    assert not vectors[600:].any()


def test_dimensions_beyond_the_rank_are_zeros():
    """Not what is left of rounding, to the power of 0."""
    counts = counts_of(np.kron(np.eye(2), np.ones((5, 5))))
    vectors = firth.PPMI(vector_size=4, eigenvalue_weighting=0.0).fit(counts).vectors.matrix
    assert not vectors[:, 2:].any()
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 5**-0.5, rtol=1e-5)


def test_sparse_ppmi(corpus, tmp_path):
    model = firth.PPMI(vector_size=None, shift=2.0)
    with pytest.raises(AttributeError, match="fit"):
        _ = model.matrix
    with pytest.raises(AttributeError, match="fit"):
        model.save(tmp_path / "m")
    model.fit(corpus)
    exact = firth.count_cooccurrences(corpus, window=10, weighting="dynamic").pmi(shift=2.0)
    model.save(tmp_path / "m")
    for one in (model, firth.load(tmp_path / "m")):
        assert one.get_params() == model.get_params()
        assert one.matrix.toarray().tobytes() == exact.toarray().tobytes()
        with pytest.raises(AttributeError, match="no dense vectors"):
            _ = one.vectors
        with pytest.raises(AttributeError, match="no singular values"):
            _ = one.singular_values
        assert one._words == corpus.vocabulary.words
    with pytest.raises(AttributeError, match="vector_size=None"):
        _ = firth.PPMI(vector_size=3).fit(corpus).matrix
    tensors, metadata = files.read_tensors(tmp_path / "m")
    for name in tensors.keys() - {"counts"}:
        files.write_tensors(tmp_path / "cut", {k: v for k, v in tensors.items() if k != name}, metadata)
        with pytest.raises(ValueError, match="damaged"):
            firth.load(tmp_path / "cut")
    for wrong in (tensors["data"].astype(np.float64), tensors["data"] * np.float32("nan")):
        files.write_tensors(tmp_path / "cut", {**tensors, "data": wrong}, metadata)
        with pytest.raises(ValueError, match=r"damaged.*data"):
            firth.load(tmp_path / "cut")
    files.write_tensors(tmp_path / "cut", {**tensors, "data": tensors["data"][1:]}, metadata)
    with pytest.raises(ValueError, match="do not fit together"):
        firth.load(tmp_path / "cut")
    for name, value in (("indices", len(one._words)), ("indices", -1), ("indptr", -1)):  # what scipy would reach for
        wrong = tensors[name].copy()
        wrong[1] = value
        files.write_tensors(tmp_path / "cut", {**tensors, name: wrong}, metadata)
        with pytest.raises(ValueError, match=r"damaged .* do not fit together"):
            firth.load(tmp_path / "cut")


@pytest.mark.parametrize(
    ("model", "says"),
    [(firth.PPMI(vector_size=41), "vector_size=41"), (firth.LSA(vector_size=41), "vector_size=41")],
)
def test_more_dimensions_than_words(model, says, corpus):
    with pytest.raises(ValueError, match=says):
        model.fit(corpus)
    assert not model._tensors


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (firth.PPMI, {"side": "up"}),
        (firth.PPMI, {"weighting": "heavy"}),
        (firth.PPMI, {"shift": 0.0}),
        (firth.LSA, {"weighting": "heavy"}),
    ],
)
def test_wrong_options(kind, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        kind(**options)


def test_lsa_takes_no_counts(corpus):
    with pytest.raises(TypeError, match="LSA trains on text, not on Cooccurrences"):
        firth.LSA().fit(firth.count_cooccurrences(corpus))


@pytest.mark.parametrize("model", [firth.PPMI(vector_size=2), firth.LSA(vector_size=2)])
def test_progress_on_request(model, corpus, capfd, monkeypatch):
    monkeypatch.setattr(firth.models.spectral, "_SPARE", 0)  # forty words are no small matrix now
    model.fit(corpus)
    assert capfd.readouterr() == ("", "")
    model.fit(corpus, progress=True)
    assert "svd" in capfd.readouterr().err


# --- LSA --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["tf-idf", "log-entropy"])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_lsa_is_the_decomposition_of_the_weighted_documents(weighting, power):
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 12, n).tolist() for n in (9, 0, 30, 4, 17, 8, 25, 3, 40, 11)]
    words = firth.Vocabulary([f"w{i}" for i in range(13)])  # the last never occurs
    corpus = firth.Corpus.from_iterable([[f"w{i}" for i in document] for document in documents], vocabulary=words)
    model = firth.LSA(vector_size=5, weighting=weighting, eigenvalue_weighting=power).fit(corpus)
    u, s, v = np.linalg.svd(reference.document_weights(documents, 13, weighting))
    np.testing.assert_allclose(model.singular_values, s[:5], rtol=1e-5)
    signs = np.sign((model.vectors.matrix * u[:, :5]).sum(axis=0))
    np.testing.assert_allclose(model.vectors.matrix, u[:, :5] * signs * s[:5] ** power, atol=1e-5)
    np.testing.assert_allclose(model.document_vectors, v[:5].T * signs * s[:5] ** power, atol=1e-5)
    assert not model.document_vectors[1].any()


@pytest.mark.parametrize("weighting", ["tf-idf", "log-entropy"])
def test_lsa_of_one_document(weighting):
    corpus = firth.Corpus.from_iterable([["a", "b", "a"]], min_count=1)
    model = firth.LSA(vector_size=1, weighting=weighting)
    if weighting == "tf-idf":
        with pytest.raises(ValueError, match=r"weighting='tf-idf' makes all weights 0\. Give documents of different"):
            model.fit(corpus)
        return
    model.fit(corpus)
    assert np.isfinite(model.vectors.matrix).all()
    assert np.isfinite(model.document_vectors).all()


def test_lsa_leaves_the_corpus_as_it_was(corpus):
    before = corpus.ids.tobytes()
    firth.LSA(vector_size=2).fit(corpus)
    assert corpus.ids.tobytes() == before


def test_document_vectors_are_saved(corpus, tmp_path):
    model = firth.LSA(vector_size=3)
    with pytest.raises(AttributeError, match="fit"):
        _ = model.document_vectors
    model.fit(corpus)
    assert model.document_vectors.shape == (400, 3)
    topic = np.arange(400) % 2
    cosines = model.document_vectors @ model.document_vectors.T
    assert cosines[topic[:, None] == topic].mean() > 3 * cosines[topic[:, None] != topic].mean()
    model.save(tmp_path / "m")
    loaded = firth.load(tmp_path / "m")
    assert loaded.document_vectors.tobytes() == model.document_vectors.tobytes()
    assert loaded.singular_values.tobytes() == model.singular_values.tobytes()
