import itertools
import warnings

import numpy as np
import pytest
from scipy.stats import spearmanr

import firth
import reference
from firth import Vectors, evaluate


def random_vectors(n=300, size=8, seed=0, prefix="w"):
    matrix = np.random.default_rng(seed).standard_normal((n, size)).astype(np.float32)
    return Vectors([f"{prefix}{i}" for i in range(n)], matrix)


def lattice():
    """Words "a-b" of 6 by 7 kinds, each the sum of its kinds' vectors: every analogy is an exact parallelogram."""
    # Kinds are orthogonal, so that all words have one length and no other word lies as near.
    matrix = [np.concatenate([np.eye(6)[a], np.eye(7)[b]]) for a in range(6) for b in range(7)]
    vectors = Vectors([f"{a}-{b}" for a in range(6) for b in range(7)], matrix)
    questions = {
        f"{a}:{b}": [(f"{a}-{c}", f"{b}-{c}", f"{a}-{d}", f"{b}-{d}") for c, d in itertools.permutations(range(7), 2)]
        for a, b in itertools.permutations(range(6), 2)
    }
    return vectors, questions


def write(folder, text, name="file.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ---- similarity


def test_spearman_is_that_of_the_cosines():
    vectors = random_vectors()
    rng = np.random.default_rng(1)
    triples = [(f"w{a}", f"w{b}", float(s)) for (a, b), s in zip(rng.integers(0, 300, (200, 2)), rng.integers(0, 9, 200))]  # fmt: skip  # noqa: B905, E501
    cosines = [reference.cosines(vectors[[a]], vectors[[b]])[0, 0] for a, b, _ in triples]
    result = evaluate.similarity(vectors, [*triples, ("w0", "unknown", 3.0)])
    assert result.spearman == pytest.approx(spearmanr(cosines, [score for *_, score in triples]).statistic)
    assert (result.pairs, result.found) == (201, 200)
    assert result.coverage == 200 / 201


def test_similarity_of_a_planted_order():
    angles = np.linspace(0, 3, 20)
    vectors = Vectors([f"w{i}" for i in range(20)], np.stack([np.cos(angles), np.sin(angles)], axis=1))
    pairs = [("w0", f"w{i}", -float(i)) for i in range(20)]
    assert evaluate.similarity(vectors, pairs).spearman == pytest.approx(1)
    assert evaluate.similarity(vectors, [(a, b, -s) for a, b, s in pairs]).spearman == pytest.approx(-1)


@pytest.mark.parametrize(
    "text",
    [
        "w0\tw1\t3\nw2\tw3\t1\nW4\tw5\t2\n",
        "# a comment\n\nw0 w1 3\nw2  w3 1.0\nW4 w5 2e0",
        "Word 1,Word 2,Human (mean)\r\nw0,w1,3\r\nw2,w3,1\r\nW4,w5,2\r\n",
        "w0;w1;3\nw2;w3;1\n#x\nW4;w5;2\n",
        "\ufeffw0\tw1\t3\nw2\tw3\t1\nW4\tw5\t2\n",
    ],
)
def test_files_of_pairs_in_many_layouts(tmp_path, text):
    vectors = random_vectors()
    expected = evaluate.similarity(vectors, [("w0", "w1", 3.0), ("w2", "w3", 1.0), ("w4", "w5", 2.0)])
    assert evaluate.similarity(vectors, write(tmp_path, text)) == expected
    assert expected.found == 3
    assert evaluate.similarity(vectors, str(write(tmp_path, text)), lower=False).found == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("w0 w1 3\nw2 w3\n", 2),
        ("w0 w1 3\n\n# x\nw2 w3 much\n", 4),
        ("a b c d\n", 1),
        ("w0\tw1\t3\tmore\n", 1),
        ("w0 w1 nan\n", 1),
        (b"w0 w1 3\nw\xff w1 3\n", 2),
    ],
)
def test_bad_lines_of_pairs_are_named(tmp_path, text, line):
    with pytest.raises(ValueError, match=rf"file.txt, line {line} "):
        evaluate.similarity(random_vectors(), write(tmp_path, text))


def test_similarity_without_enough_to_go_by_is_nan():
    vectors = random_vectors()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pairs in ([], [("w0", "w1", 1.0)], [("w0", "w1", 1.0), ("w2", "w3", 1.0)], [("x", "y", 1.0)] * 3):
            assert np.isnan(evaluate.similarity(vectors, pairs).spearman)
    assert evaluate.similarity(vectors, []).coverage == 0


def test_a_word_is_looked_up_as_it_is_before_it_is_lowered():
    vectors = Vectors(["us", "US", "x"], [[1, 0], [0, 1], [0, 1]])
    pairs = [("US", "x", 2.0), ("us", "x", 1.0), ("Us", "x", 1.0)]
    result = evaluate.similarity(vectors, pairs)
    assert result.found == 3
    assert result.spearman == pytest.approx(1)


def test_a_word_known_in_another_case_alone_is_found():
    vectors = Vectors(["Paris", "NATO", "PARIS", "paRIS", "straße", "x"], np.eye(6) + np.arange(6)[:, None] / 9)
    pairs = [("paris", "x", 1.0), ("nato", "x", 2.0), ("STRASSE", "x", 3.0), ("PaRiS", "nato", 4.0), ("nat", "x", 5.0)]
    found = evaluate.similarity(vectors, pairs)
    assert (found.found, found.composed) == (4, 0)
    same = [("Paris", "x", 1.0), ("NATO", "x", 2.0), ("straße", "x", 3.0), ("Paris", "NATO", 4.0)]
    assert found.spearman == evaluate.similarity(vectors, same).spearman
    assert evaluate.similarity(vectors, pairs, lower=False).found == 0
    asked = {"s": [("paris", "nato", "straße", "x")]}
    assert evaluate.analogies(vectors, asked).found == 1
    assert evaluate.analogies(vectors, asked, restrict_vocab=4).found == 0
    assert evaluate.analogies(vectors, asked, lower=False).found == 0


def test_similarity_in_any_case_is_gensims(tmp_path):
    pytest.importorskip("gensim")
    rng = np.random.default_rng(0)
    words = [f"w{i}" if i % 3 else f"W{i}" if i % 2 else f"wORD{i}" for i in range(100)]
    vectors = Vectors(words, rng.standard_normal((100, 8)))
    names = [*(word.lower() for word in words), "none", "such"]
    lines = [f"{rng.choice(names)}\t{rng.choice(names)}\t{rng.random():.2f}" for _ in range(200)]
    path = write(tmp_path, "\n".join(lines))
    _, spearman, unknown = vectors.to_gensim().evaluate_word_pairs(path)
    result = evaluate.similarity(vectors, path)
    assert 0 < unknown < 10
    assert 100 * (1 - result.coverage) == pytest.approx(unknown)
    assert result.spearman == pytest.approx(spearman[0], abs=1e-6)


@pytest.mark.parametrize("capital", [False, True])
def test_what_a_subword_model_composes_is_found(capital):
    documents = [["ships", "sail"], ["Ships" if capital else "ships", "sank"]] * 9
    corpus = firth.Corpus.from_iterable(documents, min_count=1)
    vectors = firth.FastText(vector_size=8, sample=0, bucket=1000, threads=1, epochs=1).fit(corpus).vectors
    pairs = [("ships", "sail", 3.0), ("Sailing", "ships", 2.0), ("sanking", "Sinking", 1.0)]
    result = evaluate.similarity(vectors, pairs)
    assert (result.pairs, result.found, result.composed, result.coverage) == (3, 3, 2, 1)
    # Composed of small letters where the vocabulary has no others.
    same = [(a, b, s) if capital else (a.lower(), b.lower(), s) for a, b, s in pairs]
    cosines = [vectors.similarity(a, b) for a, b, _ in same]
    assert result.spearman == pytest.approx(spearmanr(cosines, [score for *_, score in same]).statistic)
    plain = evaluate.similarity(Vectors(vectors.words, vectors.matrix), pairs)
    assert (plain.found, plain.composed) == (1, 0)


def test_similarity_is_gensims(tmp_path):
    pytest.importorskip("gensim")
    vectors = random_vectors()
    rng = np.random.default_rng(1)
    lines = [f"w{a}\tw{b}\t{s:.2f}" for (a, b), s in zip(rng.integers(0, 320, (200, 2)), rng.random(200), strict=True)]
    path = write(tmp_path, "\n".join(lines))
    _, spearman, unknown = vectors.to_gensim().evaluate_word_pairs(path)
    result = evaluate.similarity(vectors, path)
    assert result.spearman == pytest.approx(spearman[0], abs=1e-6)
    assert 100 * (1 - result.coverage) == pytest.approx(unknown)


# ---- analogies


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_a_lattice_of_parallelograms_is_solved_whole(method):
    vectors, questions = lattice()
    result = evaluate.analogies(vectors, questions, method=method)
    assert (result.correct, result.found, result.asked) == (1260, 1260, 1260)
    assert result.accuracy == result.coverage == 1
    assert len(result.sections) == 30
    assert result.sections[0] == evaluate.Section("0:1", 42, 42, 42)


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_analogies_against_the_oracle(method, monkeypatch):
    monkeypatch.setattr(evaluate, "_BATCH", 1000)
    vectors = random_vectors(60, 5)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, 60, (80, 3)).tolist()
    answers = [reference.analogy_answer(vectors.matrix, *row, 50, method) for row in rows]
    # Every other question expects the wrong word.
    expected = [answer if i % 2 else (answer + 1) % 50 for i, answer in enumerate(answers)]
    questions = {"all": [tuple(f"w{r}" for r in (*row, d)) for row, d in zip(rows, expected, strict=True)]}
    result = evaluate.analogies(vectors, questions, restrict_vocab=50, method=method)
    known = [max(row) < 50 for row in rows]
    assert result.asked == 80
    assert result.found == sum(known)
    assert result.correct == sum(known[1::2])
    assert result.accuracy == sum(known[1::2]) / sum(known)


def test_analogies_are_gensims(tmp_path):
    pytest.importorskip("gensim")
    rng = np.random.default_rng(0)
    # A noisy lattice: some questions come out right and some wrong.
    left, right = rng.standard_normal((8, 12)), rng.standard_normal((8, 12))
    matrix = [left[a] + right[b] + 0.6 * rng.standard_normal(12) for a in range(8) for b in range(8)]
    vectors = Vectors([f"k{a}x{b}" for a in range(8) for b in range(8)], matrix)
    lines = []
    for a, b in itertools.permutations(range(4), 2):
        lines.append(f": kind {a}{b}")
        lines += [f"K{a}x{c} k{b}x{c} k{a}x{d} k{b}x{d}" for c, d in itertools.permutations(range(9), 2)]
    path = write(tmp_path, "\n".join(lines))
    for restrict in (300_000, 20):
        score, sections = vectors.to_gensim().evaluate_word_analogies(path, restrict_vocab=restrict)
        result = evaluate.analogies(vectors, path, restrict_vocab=restrict)
        assert result.accuracy == pytest.approx(score)
        assert 0.1 < result.accuracy < 0.9
        for mine, theirs in zip(result.sections, sections[:-1], strict=True):
            assert mine.name == theirs["section"]
            assert (mine.correct, mine.found) == (len(theirs["correct"]), len(theirs["correct"] + theirs["incorrect"]))


@pytest.mark.parametrize("method", ["3cosadd", "3cosmul"])
def test_analogies_in_any_case(tmp_path, method):
    """A second spelling of a word lies beside it: as an answer it counts as the word, as gensim has it."""
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal((6, 12)), rng.standard_normal((6, 12))
    names, rows = [], []
    for a, b in itertools.product(range(6), range(6)):
        row = left[a] + right[b] + 0.4 * rng.standard_normal(12)
        for spelling in (f"k{a}x{b}", f"K{a}x{b}", f"K{a}X{b}")[: 1 + (a + b) % 3]:
            names.append(spelling)
            rows.append(row + 0.1 * rng.standard_normal(12))
    order = rng.permutation(len(names))
    vectors = Vectors([names[i] for i in order], np.array(rows)[order])
    # In the first spelling of each, which is the one that gensim takes.
    first = {}
    for word in vectors.words:
        first.setdefault(word.lower(), word)
    lines = [": all"]
    for a, b in itertools.permutations(range(6), 2):
        asked = [[f"k{a}x{c}", f"k{b}x{c}", f"k{a}x{d}", f"k{b}x{d}"] for c, d in itertools.permutations(range(6), 2)]
        lines += [" ".join(first[word] for word in question) for question in asked]
    path = write(tmp_path, "\n".join(lines))
    result = evaluate.analogies(vectors, path, method=method)
    assert result.found == result.asked == 900
    exact = evaluate.analogies(vectors, path, method=method, lower=False)
    assert exact.correct < 0.7 * result.correct
    if method == "3cosadd":
        pytest.importorskip("gensim")
        score, _ = vectors.to_gensim().evaluate_word_analogies(path)
        assert result.accuracy == pytest.approx(score)


def test_analogies_of_few_or_odd_words():
    vectors = Vectors(["a", "b", "c", "nan", "zero"], [[1, 0], [0, 1], [1, 1], [np.nan, 0], [0, 0]])
    assert evaluate.analogies(vectors, {}).asked == 0
    assert np.isnan(evaluate.analogies(vectors, {}).accuracy)
    assert evaluate.analogies(vectors, {"s": []}).sections == (evaluate.Section("s", 0, 0, 0),)
    for method in ("3cosadd", "3cosmul"):
        result = evaluate.analogies(vectors, {"s": [("a", "b", "c", "a")]}, restrict_vocab=3, method=method)
        assert (result.correct, result.found) == (0, 1)
        result = evaluate.analogies(vectors, {"s": [("a", "nan", "zero", "b"), ("a", "b", "c", "nan")]}, method=method)
        assert result.found == 2
    with pytest.raises(ValueError, match="'3cosadd' or '3cosmul'"):
        evaluate.analogies(vectors, {}, method="mul")
    with pytest.raises(ValueError, match="restrict_vocab must not be negative, not -1"):
        evaluate.analogies(vectors, {}, restrict_vocab=-1)
    with pytest.raises(TypeError, match=r"restrict_vocab must be a whole number, not 2\.5"):
        evaluate.analogies(vectors, {}, restrict_vocab=2.5)
    with pytest.raises(TypeError, match=r"must be a file, or lists of quadruples by section name, .* not list"):
        evaluate.analogies(vectors, [("a", "b", "c", "d")])
    with pytest.raises(TypeError, match="a word must be a str, not 1"):
        evaluate.analogies(vectors, {"s": [(1, 2, 3, 4)]})
    with pytest.raises(ValueError, match="section 's': a question has four words"):
        evaluate.analogies(vectors, {"s": [("a", "b", "c")]})


@pytest.mark.parametrize(
    ("text", "message"),
    [(": s\na b c\n", "line 2 should be four words"), ("\na b c d\n", "line 2 comes before the first")],
)
def test_bad_lines_of_questions_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"file.txt, {message}"):
        evaluate.analogies(random_vectors(), write(tmp_path, text))


# ---- the gold standards


def test_the_gold_standards_are_read_whole(data):
    words = {word.lower() for path in (data / "similarity").glob("*.txt") for word in path.read_text().split()}
    words |= {word.lower() for word in (data / "questions-words.txt").read_text().split()}
    names = sorted(words)
    vectors = Vectors(names, np.random.default_rng(0).standard_normal((len(names), 10)))
    for name, pairs in [
        ("WS-353-ALL", 353),
        ("WS-353-SIM", 203),
        ("WS-353-REL", 252),
        ("MEN-TR-3k", 3000),
        ("RG-65", 65),
    ]:
        result = evaluate.similarity(vectors, data / "similarity" / f"{name}.txt")
        assert (result.pairs, result.coverage) == (pairs, 1)
        assert abs(result.spearman) < 0.3
    result = evaluate.analogies(vectors, data / "questions-words.txt")
    assert (result.asked, result.found, len(result.sections)) == (19544, 19544, 14)
    assert sum(section.asked for section in result.sections) == 19544
    assert result.accuracy < 0.05


@pytest.mark.parametrize("wrong", [("a", "b"), ("a", "b", "near"), ("a", "b", None), 3])
def test_a_pair_without_a_score_is_named(wrong):
    with pytest.raises(ValueError, match=r"^pairs\[1\] should be two words and a score, not "):
        evaluate.similarity(Vectors(["a", "b"], np.eye(2)), [("a", "b", 1), wrong])
    with pytest.raises(TypeError, match="a word must be a str, not 1"):
        evaluate.similarity(Vectors(["a", "b"], np.eye(2)), [(1, "b", 1)])
