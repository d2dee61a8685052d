"""ELMo: the spelling of words, both language models, what they learn, and what one does with their states."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

import firth

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch.nn import functional as F  # noqa: E402

from firth.contextual import elmo_network as network  # noqa: E402
from firth.contextual.elmo import ELMo  # noqa: E402

SMALL = {"hidden": 12, "projection": 6, "character_dim": 5, "filters": ((1, 4), (2, 5), (4, 6)), "dropout": 0.0}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def untrained(texts, **options):
    """A model of these texts that has its weights and no training."""
    model = ELMo(**{**SMALL, "min_count": 1, **options})
    corpus = model._read(texts, progress=False)
    model._words, model._counts, _ = model._targets(corpus)
    torch.manual_seed(3)
    model._network = model._new_network(model._counts).eval()
    return model


def chain(n=400, words=12, seed=0):
    """Texts in which each word is followed by one of two, and preceded by one of two: ln 2 nats a word either way."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(n):
        at = int(rng.integers(words))
        text = []
        for _ in range(int(rng.integers(10, 20))):
            text.append(f"w{at:02d}")
            at = (5 * at + 3 + int(rng.integers(2)) * (words // 2)) % words
        texts.append(text)
    return texts


# ---- spelling


def test_words_are_spelt_between_begin_and_end():
    spell = network.Speller(["ab", "", "é"], 50)
    found = spell(np.arange(5)).tolist()
    b, e = network._WORD_BEGINS, network._WORD_ENDS
    assert found == [
        [b, network._TEXT_BEGINS, e, 0],
        [b, network._TEXT_ENDS, e, 0],
        [b, ord("a") + 1, ord("b") + 1, e],
        [b, e, 0, 0],
        [b, 0xC3 + 1, 0xA9 + 1, e],
    ]


def test_spelling_is_cut_at_the_longest():
    spell = network.Speller(["a" * 100, "a" * 8], 10)
    assert spell.lengths[2:].tolist() == [10, 10]
    assert spell(np.array([2])).tolist() == spell(np.array([3])).tolist()


def test_spelling_of_every_byte_differs():
    words = [chr(i) for i in (0, 1, 127, 128, 255, 256, 0x4E2D, 0x1F600, 0xD800)]
    symbols = network.Speller(words, 50)(np.arange(2, len(words) + 2))
    assert len(np.unique(symbols.numpy(), axis=0)) == len(words)
    assert symbols.max() < network._SYMBOLS


# ---- words' vectors


def encode_slowly(encoder, symbols):
    """One word's vector, as Kim et al. write it."""
    symbols = [symbol for symbol in symbols.tolist() if symbol]
    table = encoder.characters.weight.detach().numpy()
    x = [table[symbol] for symbol in symbols]
    pooled = []
    for convolution in encoder.convolutions:
        weight, bias = (one.detach().numpy() for one in (convolution.weight, convolution.bias))
        width = weight.shape[2]
        padded = x + [np.zeros_like(x[0])] * max(0, width - len(x))
        windows = [np.stack(padded[i : i + width], 1) for i in range(len(padded) - width + 1)]
        pooled += [max(float((window * w).sum() + b) for window in windows) for w, b in zip(weight, bias, strict=True)]
    h = np.maximum(np.array(pooled), 0)
    for layer in encoder.highway:
        weight, bias = (one.detach().numpy() for one in (layer.weight, layer.bias))
        changed, gate = np.split(weight @ h + bias, 2)
        gate = 1 / (1 + np.exp(-gate))
        h = gate * np.maximum(changed, 0) + (1 - gate) * h
    return encoder.projection.weight.detach().numpy() @ h + encoder.projection.bias.detach().numpy()


def test_character_encoder_is_the_textbook_s():
    torch.manual_seed(0)
    encoder = network.CharacterEncoder(5, [(1, 3), (3, 4), (7, 6)], 2, 8).double()
    symbols = network.Speller(["a", "word", "internationalization", ""], 50)(np.arange(6))
    found = encoder(symbols).detach().numpy()
    for row, one in zip(found, symbols, strict=True):
        np.testing.assert_allclose(row, encode_slowly(encoder, one), rtol=1e-10, atol=1e-12)


def test_a_word_s_vector_is_the_same_beside_longer_words():
    torch.manual_seed(0)
    encoder = network.CharacterEncoder(5, [(1, 3), (7, 6)], 1, 8)
    spell = network.Speller(["a", "cat", "extraordinarily"], 50)
    alone, together = encoder(spell(np.array([3]))), encoder(spell(np.array([2, 3, 4])))
    torch.testing.assert_close(alone[0], together[1], rtol=1e-6, atol=1e-7)


# ---- LSTMs


def lstm_slowly(layer, x, direction):
    """One direction's outputs of one text (T, inputs), step by step."""
    weight, recurrent, project, bias = (
        one.detach().numpy()[direction] for one in (layer.input, layer.recurrent, layer.project, layer.bias)
    )
    h, c, outputs = np.zeros(project.shape[1]), np.zeros(project.shape[0]), []
    for row in x:
        i, f, o, g = np.split(row @ weight + h @ recurrent + bias, 4)
        i, f, o, g = 1 / (1 + np.exp(-i)), 1 / (1 + np.exp(-f)), 1 / (1 + np.exp(-o)), np.tanh(g)
        c = np.clip(f * c + i * g, -layer.cell_clip, layer.cell_clip)
        h = np.clip((o * np.tanh(c)) @ project, -layer.projection_clip, layer.projection_clip)
        outputs.append(h)
    return np.array(outputs)


@pytest.mark.parametrize("clips", [(1e9, 1e9), (0.2, 1e9), (1e9, 0.1), (0.25, 0.12)])
def test_lstm_is_the_textbook_s(clips):
    torch.manual_seed(1)
    layer = network.BidirectionalLayer(5, 7, 3, cell_clip=clips[0], projection_clip=clips[1]).double()
    x = torch.randn(2, 70, 4, 5, dtype=torch.double)
    y = layer(x)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), y.detach())  # the way that keeps nothing
    for direction in (0, 1):
        for text in range(4):
            slow = lstm_slowly(layer, x[direction, :, text].numpy(), direction)
            np.testing.assert_allclose(y[direction, :, text].detach().numpy(), slow, rtol=1e-10, atol=1e-12)
    if clips[1] < 1:
        assert (y.abs() == clips[1]).any()


@pytest.mark.parametrize("clips", [(1e9, 1e9), (0.25, 0.12)])
def test_lstm_s_gradients_are_those_of_finite_differences(clips):
    torch.manual_seed(2)
    layer = network.BidirectionalLayer(3, 4, 2, cell_clip=clips[0], projection_clip=clips[1]).double()
    names = [name for name, _ in layer.named_parameters()]
    x = torch.randn(2, 5, 2, 3, dtype=torch.double, requires_grad=True)

    def run(x, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *layer.parameters()))


def test_texts_are_turned_round_within_their_lengths():
    x = torch.arange(8).reshape(4, 2)  # two texts of four places
    turned = network._turned(x, torch.tensor([4, 2]))
    assert turned.T.tolist() == [[6, 4, 2, 0], [3, 1, 5, 7]]


# ---- the language model

TEXTS = [["the", "cat", "sat", "on", "the", "mat"], ["a", "dog"], ["birds", "sing", "in", "the", "tree", "tops", "."]]


def test_forward_states_know_nothing_of_later_words_nor_backward_of_earlier():
    model = untrained(TEXTS)
    words = ["the", "cats", "sat", "upon", "a", "mat", "today"]
    before = [model.encode([words], layer=layer)[0] for layer in (0, 1, 2)]
    for place in range(len(words)):
        changed = words[:]
        changed[place] = words[place].upper()  # as long as before: all else is computed in the same order, to the bit
        for layer in (1, 2):
            moved = np.abs(model.encode([changed], layer=layer)[0] - before[layer])
            forward, backward = moved[:, :6].max(1) > 0, moved[:, 6:].max(1) > 0
            assert forward.tolist() == [i >= place for i in range(len(words))]
            assert backward.tolist() == [i <= place for i in range(len(words))]
        moved = np.abs(model.encode([changed], layer=0)[0] - before[0]).max(1) > 0
        assert moved.tolist() == [i == place for i in range(len(words))]


@pytest.mark.parametrize("layer", [0, 1, 2, "mixture"])
def test_a_batch_is_its_sentences_one_by_one(layer):
    model = untrained(TEXTS)
    sentences = ["the cat", "", [], ["x"] * 150, "a much longer sentence that has many words in it", "ünï ҈ 中文 😀"]
    together = model.encode(sentences, layer=layer)
    lengths = [2, 0, 0, 150, 10, 4]
    assert [states.shape for states in together] == [(n, 12) for n in lengths]
    assert all(states.dtype == np.float32 for states in together)
    for sentence, states in zip(sentences, together, strict=True):
        np.testing.assert_allclose(model.encode([sentence], layer=layer)[0], states, rtol=1e-5, atol=1e-6)


def test_states_beyond_a_text_s_end_are_zero():
    model = untrained(TEXTS)
    with torch.no_grad():
        states = model.network(model.batch(TEXTS))
    assert len(states) == 3
    for layer in states:
        assert layer.shape == (3, 9, 12)
        assert (layer[1, 4:] == 0).all()
        assert (layer[1, :4] != 0).any(1).all()


def test_the_layers_are_what_the_paper_says():
    """Layer 0 is the word's vector twice; the second LSTM's input is added to its output."""
    model = untrained(TEXTS)
    network = model.network
    batch = model.batch([TEXTS[0]])
    with torch.no_grad():
        zero, one, two = (layer[0] for layer in network(batch))
        vectors = network.encoder(batch.symbols)[batch.words][0]
    np.testing.assert_array_equal(zero, np.concatenate([vectors, vectors], 1))
    x = vectors.double().numpy()
    first, second = network.lstms
    forward = lstm_slowly(first, x, 0)
    backward = lstm_slowly(first, x[::-1], 1)[::-1]
    np.testing.assert_allclose(one, np.concatenate([forward, backward], 1), rtol=1e-4, atol=1e-6)
    forward = lstm_slowly(second, forward, 0) + forward
    backward = lstm_slowly(second, backward[::-1], 1)[::-1] + backward
    np.testing.assert_allclose(two, np.concatenate([forward, backward], 1), rtol=1e-4, atol=1e-6)


def all_batches(model, texts):
    corpus = model._read(texts, progress=False)
    _, _, targets = model._targets(corpus)
    speller = network.Speller(corpus.vocabulary.words, model.max_characters)
    return network.TextBatches(
        corpus, speller, targets, np.arange(len(corpus)), batch_size=model.batch_size, length=model.length, seed=5
    )


def test_the_loss_is_the_next_word_s_forward_and_the_previous_one_s_backward():
    model = untrained(TEXTS)
    (batch,) = all_batches(model, TEXTS).in_order()
    with torch.no_grad():
        loss, predicted = model.network.loss(batch)
        top = model.network(batch)[-1]
        scores = model.network.softmax
        nats = []
        for states, targets, n in zip(top, batch.targets, batch.lengths.tolist(), strict=True):
            for place in range(n):
                for half, other in ((states[place, :6], place + 1), (states[place, 6:], place - 1)):
                    if 0 <= other < n:
                        log = torch.log_softmax(half @ scores.weight.T + scores.bias, 0)
                        nats.append(-float(log[targets[other]]))
    assert predicted == 2 * sum(len(text) + 1 for text in TEXTS) == len(nats)
    assert float(loss) == pytest.approx(np.sum(nats), rel=1e-5)


@pytest.mark.parametrize(
    ("softmax", "words"), [("adaptive", 20), ("adaptive", 2500), ("sampled", 20), ("sampled", 200)]
)
def test_gradients_reach_every_parameter(softmax, words):
    # All words, so that no cluster of the adaptive softmax is left out.
    texts = [[f"w{i}" for i in range(begin, begin + 20)] for begin in range(0, words, 20)]
    model = untrained(texts, softmax=softmax, negatives=100, batch_size=1000, highway=1)
    (batch,) = all_batches(model, texts).in_order()
    torch.manual_seed(0)
    network = model.network.train()
    loss, _ = network.loss(batch)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert (parameter.grad != 0).any(), name
    # Both directions of each LSTM have their own.
    for lstm in network.lstms:
        for parameter in lstm.parameters():
            assert (parameter.grad.abs().flatten(1).amax(1) > 0).all()
            assert not torch.equal(parameter.grad[0], parameter.grad[1])


# ---- the softmax


def softmax_of(kind, words=3000, negatives=1000, dim=8):
    torch.manual_seed(4)
    counts = (1e6 / np.arange(1, words + 1)).astype(np.int64)
    return network.WordSoftmax(words, dim, kind=kind, negatives=negatives, counts=counts)


@pytest.mark.parametrize(("kind", "words"), [("adaptive", 3000), ("adaptive", 50), ("sampled", 50)])
def test_chances_add_up_to_one(kind, words):
    softmax = softmax_of(kind, words).eval()
    states = torch.randn(1, 8).expand(words, 8)
    with torch.no_grad():
        assert float(torch.exp(-softmax(states, torch.arange(words))).sum()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("dim", [2, 8])
def test_no_cluster_of_rare_words_has_vectors_of_no_number(dim):
    softmax = softmax_of("adaptive", 12_000, dim=dim).eval()
    assert all(parameter.numel() for parameter in softmax.parameters())
    nats = softmax(torch.randn(4, dim), torch.tensor([1, 5_000, 11_000, 11_999]))
    assert nats.shape == (4,)


def test_the_sampled_softmax_is_the_formula_s(monkeypatch):
    """Jean, Cho, Memisevic & Bengio (2015), equation 8: scores less the logarithm of how often each is drawn."""
    counts, drawn = np.array([8.0, 4.0, 2.0, 1.0, 1.0]), [3, 0, 1]
    torch.manual_seed(1)
    softmax = network.WordSoftmax(5, 2, kind="sampled", negatives=3, counts=counts).train()
    states, words = torch.randn(2, 2), torch.tensor([0, 4])
    share = counts / counts.sum()
    before = np.cumsum(share) - share
    uniform = torch.from_numpy(before[drawn] + share[drawn] / 2)
    monkeypatch.setattr(torch, "rand", lambda *_, **__: uniform)
    found = softmax(states, words).tolist()
    softmax.requires_grad_(False)
    for state, word, nats in zip(states, words.tolist(), found, strict=True):
        kept = [word, *(other for other in drawn if other != word)]
        scores = [float(state @ softmax.weight[one] + softmax.bias[one]) - math.log(3 * share[one]) for one in kept]
        assert nats == pytest.approx(math.log(sum(map(math.exp, scores))) - scores[0], rel=1e-5)


def test_sampled_softmax_learns_what_the_whole_one_would():
    """What is drawn often is seen often: unless that is taken off, scores would be chances over frequencies."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(20, 0.5), size=2)  # of the next word, in two situations
    torch.manual_seed(0)
    counts = np.round(1e6 * chances.mean(0)).astype(np.int64)
    softmax = network.WordSoftmax(20, 2, kind="sampled", negatives=8, counts=counts)
    optimizer = torch.optim.Adam(softmax.parameters(), lr=0.05)
    states = torch.eye(2).repeat_interleave(64, 0)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
        words = torch.from_numpy(np.concatenate([rng.choice(20, 64, p=p) for p in chances]))
        optimizer.zero_grad()
        softmax(states, words).mean().backward()
        optimizer.step()
    found = F.linear(torch.eye(2), softmax.weight, softmax.bias).softmax(1).detach().numpy()
    divergence = (chances * np.log(np.maximum(chances, 1e-30) / found)).sum(1)
    assert (divergence < 0.05).all()


# ---- learning


def test_both_directions_learn_a_chain_of_words():
    """Each word has two successors and two predecessors: ln 2 nats are left, where words by themselves leave ln 12."""
    model = ELMo(
        **{**SMALL, "hidden": 32, "projection": 16}, min_count=1, batch_size=16, epochs=6, learning_rate=2e-2, seed=3
    ).fit(chain())
    assert [one.step for one in model.history] == sorted(one.step for one in model.history)
    assert model.history[0].loss > 1.5
    held = chain(50, seed=9)
    # A text's last word is known from its length alone, its first one not at all: a bit more than two.
    assert model.perplexity(held) < 3.2
    assert model.history[-1].validation_loss == pytest.approx(math.log(model.perplexity(held)), abs=0.1)
    batch = model.batch(held)
    ids = {word: i for i, word in enumerate(model.vectors.words, network.SPECIAL)}
    targets = torch.zeros_like(batch.words)
    for row, text in zip(targets, held, strict=True):
        row[1 : len(text) + 1] = torch.tensor([ids[word] for word in text])
    with torch.no_grad():
        top = model.network(batch)[-1]
        scores = model.network.softmax
        inner = torch.arange(batch.words.shape[1]) < batch.lengths[:, None] - 2
        forward = F.linear(top[:, 1:-1, :16], scores.weight, scores.bias)[inner[:, 1:-1]].log_softmax(1)
        after = targets[:, 2:][inner[:, 1:-1]]
        backward = F.linear(top[:, 2:, 16:], scores.weight, scores.bias)[inner[:, 1:-1]].log_softmax(1)
        before = targets[:, 1:-1][inner[:, 1:-1]]
    assert 0.65 < -float(forward[torch.arange(len(after)), after].mean()) < 0.95
    assert 0.65 < -float(backward[torch.arange(len(before)), before].mean()) < 0.95


QUICK = {**SMALL, "min_count": 1, "batch_size": 8, "steps": 12, "evaluate_every": 4, "dropout": 0.2}


def same(a, b):
    one, other = a.network.state_dict(), b.network.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_draws_the_same_negatives():
    options = {**QUICK, "softmax": "sampled", "negatives": 5}
    first = ELMo(**options).fit(chain(60))
    torch.rand(7)  # what else draws numbers does not matter
    assert same(first, ELMo(**options).fit(chain(60)))
    assert not same(first, ELMo(**options, seed=2).fit(chain(60)))


def test_texts_lists_files_and_corpora_are_the_same_data(tmp_path):
    texts = chain(60)
    wanted = ELMo(**QUICK).fit(texts)
    assert same(wanted, ELMo(**QUICK).fit([" ".join(text) for text in texts]))
    assert same(wanted, ELMo(**QUICK).fit(iter(texts)))
    assert same(wanted, ELMo(**QUICK).fit(firth.Corpus.from_iterable(texts, min_count=1)))
    (tmp_path / "texts.txt").write_text("\n".join(" ".join(text) for text in texts))
    assert same(wanted, ELMo(**QUICK).fit(tmp_path / "texts.txt"))
    assert same(wanted, ELMo(**QUICK).fit([tmp_path / "texts.txt"]))


def test_one_text_is_enough():
    model = ELMo(**{**QUICK, "steps": 2}).fit([["a", "b", "a"]])
    assert model.history[-1].validation_loss is None
    assert math.isfinite(model.perplexity(["a b"]))


# ---- batches


@pytest.mark.parametrize("length", [1, 3, 64])
def test_every_word_is_predicted_once_in_an_epoch(length):
    texts = [["a"], [], ["b", "c", "d"], ["e", "f", "g", "h", "i", "j", "k"], []]
    model = ELMo(**SMALL, length=length, batch_size=2, min_count=1)
    batches = all_batches(model, texts)
    ids = {word: i for i, word in enumerate(model._targets(batches.corpus)[0], network.SPECIAL)}
    wanted = sorted(
        pair for text in texts if text for pair in zip([0, *map(ids.get, text)], [*map(ids.get, text), 1], strict=True)
    )
    n = len(batches)
    found = []
    for first in range(0, 2 * n, 2):  # two epochs; with an odd number of tokens one batch holds the end of the first
        batch = batches(first, 2)
        assert batch.words.shape[1] <= length + 1
        for row, size in zip(batch.targets.tolist(), batch.lengths.tolist(), strict=True):
            found += list(itertools.pairwise(row[:size]))
    assert sorted(found) == sorted(2 * wanted)


def test_a_text_is_a_function_of_seed_and_number():
    model = ELMo(**SMALL, batch_size=8, min_count=1)
    ahead, behind = all_batches(model, chain(101)), all_batches(model, chain(101))
    first = {number: ahead(number, 8) for number in range(0, 310, 8)}
    for number in reversed(first):
        assert torch.equal(behind(number, 8).targets, first[number].targets)
        some = behind(number, 4).targets
        assert torch.equal(some, first[number].targets[:4, : some.shape[1]])
    assert not torch.equal(first[0].lengths, ahead(101 * 8, 8).lengths) or not torch.equal(
        first[0].targets, ahead(101 * 8, 8).targets
    )
    model = ELMo(**SMALL, batch_size=8, min_count=1)
    other = all_batches(model, chain(101))
    other.seed = 6
    assert any(not torch.equal(other(number, 8).lengths, first[number].lengths) for number in (0, 8, 16, 24, 32))


def test_batches_have_little_padding():
    rng = np.random.default_rng(0)
    texts = [["w"] * int(n) for n in rng.integers(1, 60, 805)]
    batches = all_batches(ELMo(**SMALL, batch_size=16), texts)
    for epoch in range(3):
        held = [batches(epoch * 805 // 16 * 16 + first, 16) for first in range(0, 800, 16)]
        assert sum(int(batch.lengths.sum()) for batch in held) > 0.9 * sum(batch.words.numel() for batch in held)


def test_rare_words_are_spelt_and_predicted_as_one():
    model = ELMo(min_count=2, vocabulary_size=2)
    corpus = model._read(["a a a a b b b c c d"], progress=False)
    words, counts, targets = model._targets(corpus)
    assert words == ["a", "b"]
    assert counts.tolist() == [1, 1, 3, 4, 3]
    assert dict(zip(corpus.vocabulary.words, targets.tolist(), strict=True)) == {"a": 3, "b": 4, "c": 2, "d": 2}


# ---- the mixture


def test_mixture_is_the_paper_s_formula():
    mixture = network.Mixture(3)
    states = [torch.randn(2, 4, 6) for _ in range(3)]
    torch.testing.assert_close(mixture(states), (states[0] + states[1] + states[2]) / 3)
    with torch.no_grad():
        mixture.scores[:] = torch.tensor([0.0, math.log(2), math.log(5)])
        mixture.gamma[:] = 4.0
    torch.testing.assert_close(mixture.weights, torch.tensor([1 / 8, 2 / 8, 5 / 8]))
    torch.testing.assert_close(mixture(states), (states[0] + 2 * states[1] + 5 * states[2]) / 2)
    mixture.layer_norm = True
    same = mixture([100 * states[0] + 7, states[1], states[2]])
    torch.testing.assert_close(same, mixture(states), rtol=1e-3, atol=1e-3)


def test_mixture_and_network_can_be_trained_together():
    model = untrained(TEXTS)
    states = model.network(model.batch(TEXTS))
    model.mixture(states).square().sum().backward()
    assert (model.mixture.scores.grad != 0).all()
    assert model.mixture.gamma.grad != 0
    assert all((one.grad != 0).any() for one in model.network.encoder.parameters())


def test_the_mixture_learns_which_layers_a_task_needs():
    rng = np.random.default_rng(0)
    texts = [[f"w{rng.integers(4)}", "it"] for _ in range(200)]
    model = untrained(texts)
    # Which word comes before "it": layer 0 cannot know.
    previous = [[None, text[0]] for text in texts]
    model.fit_mixture(texts, previous, layer_norm=True, steps=200)
    needed = model.mixture.weights.tolist()
    assert needed[0] < 0.5 * min(needed[1:])
    assert model.labels == ["w0", "w1", "w2", "w3"]
    assert model.validation_score > 0.95
    assert [labels[1] for labels in model.predict(texts)] == [text[0] for text in texts]
    before = model.encode(texts[:1])[0]
    model.fit_mixture(texts, texts, layer_norm=True, steps=200, validation=0)
    assert model.validation_score is None
    assert model.labels == ["it", "w0", "w1", "w2", "w3"]
    assert not np.allclose(model.encode(texts[:1])[0], before)
    generator = torch.random.get_rng_state()
    model.fit_mixture(texts, texts, steps=1)
    assert torch.equal(torch.random.get_rng_state(), generator)


def test_mixture_is_refused_what_does_not_fit():
    model = untrained(TEXTS)
    with pytest.raises(ValueError, match=r"3 sentences and labels for 1"):
        model.fit_mixture(TEXTS, [["x"]])
    with pytest.raises(ValueError, match=r"sentences\[1\] has 2 words and 1 labels"):
        model.fit_mixture(TEXTS, [["x"] * 6, ["x"], ["x"] * 7])
    with pytest.raises(ValueError, match="two different labels"):
        model.fit_mixture(TEXTS, [["x"] * 6, ["x"] * 2, ["x"] * 7])
    for label in (7, np.int64(7)):  # a folder could not hold it
        with pytest.raises(TypeError, match=r"labels\[1\] holds .*7.*: a label must be a str"):
            model.fit_mixture(TEXTS, [["x"] * 6, ["x", label], ["x"] * 7])
    labels = [[word[0] for word in text] for text in TEXTS]
    for wrong, said in (
        ({"validation": 0.99}, "validation=0.99 leaves fewer than two different labels"),
        ({"validation": 1.0}, "validation must be below 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"penalty": -1.0}, "penalty must be at least 0"),
    ):
        with pytest.raises(ValueError, match=said):
            model.fit_mixture(TEXTS, labels, **wrong)
    with pytest.raises(AttributeError, match="fit_mixture"):
        model.predict(TEXTS)
    assert model.validation_score is None


# ---- files


def test_fit_goes_on_with_the_weights_of_a_folder(tmp_path):
    model = ELMo(**QUICK).fit(chain(60))
    model.save(tmp_path / "elmo")
    read = ELMo.load(tmp_path / "elmo", learning_rate=1e-5, steps=2)
    assert (read.learning_rate, read.steps, read.batch_size) == (1e-5, 2, model.batch_size)
    texts = [*chain(60, seed=1), ["never", "seen"]]
    before = read.perplexity(texts)
    read.fit(texts, pretrained=True)
    assert read.vectors.words == model.vectors.words
    assert read.perplexity(texts) == pytest.approx(before, rel=1e-2)
    assert not same(read, model)
    with pytest.warns(UserWarning, match=r"pretrained=True\) continues from them"):
        read.fit(texts)
    assert "never" in read.vectors.words
    with pytest.raises(ValueError, match="has no weights yet"):
        ELMo(**QUICK).fit(texts, pretrained=True)
    with pytest.raises(TypeError, match="hidden is not a training option"):
        ELMo.load(tmp_path / "elmo", hidden=3)


def test_a_saved_folder_is_the_model(tmp_path):
    model = untrained(TEXTS)
    model.fit_mixture(TEXTS, [[word[0] for word in text] for text in TEXTS], layer_norm=True, steps=5)
    model.save(tmp_path / "elmo")
    loaded = ELMo.load(tmp_path / "elmo")
    assert loaded.get_params() == model.get_params()
    assert loaded.labels == model.labels
    assert loaded.validation_score == model.validation_score
    assert loaded.predict(TEXTS) == model.predict(TEXTS)
    for layer in (0, 1, 2, "mixture"):
        for a, b in zip(loaded.encode(TEXTS, layer=layer), model.encode(TEXTS, layer=layer), strict=True):
            np.testing.assert_array_equal(a, b)
    assert loaded.perplexity(TEXTS) == model.perplexity(TEXTS)
    assert sorted(path.name for path in (tmp_path / "elmo").iterdir()) == ["config.json", "model.safetensors"]


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    model = untrained(TEXTS)
    model.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model.fit_mixture(TEXTS, [[word[0] for word in text] for text in TEXTS], steps=5)

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ELMo, "_description", full)  # written last
        with pytest.raises(OSError, match="No space left"):
            model.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_folders_that_are_none_are_named(tmp_path):
    model = untrained(TEXTS)
    with pytest.raises(NotADirectoryError, match="not a folder"):
        ELMo.load(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="saved as a folder"):
        model.save(tmp_path / "file")
    model.save(tmp_path / "elmo")
    config = tmp_path / "elmo" / "config.json"
    described = json.loads(config.read_text())
    config.write_text("{")
    with pytest.raises(ValueError, match="it is not JSON"):
        ELMo.load(tmp_path / "elmo")
    config.write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="describes a model 'bert', not the ELMo of firth"):
        ELMo.load(tmp_path / "elmo")
    config.write_text(json.dumps({**described, "version": 99}))
    with pytest.raises(ValueError, match="version 99"):
        ELMo.load(tmp_path / "elmo")
    described["options"]["hidden"] = 13
    config.write_text(json.dumps(described))
    with pytest.raises(ValueError, match="damaged"):
        ELMo.load(tmp_path / "elmo")


# ---- options and arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection": 0}, "projection must be at least 1"),
        ({"softmax": "full"}, "adaptive"),
        ({"filters": ()}, "filters"),
        ({"filters": ((1, 0),)}, r"filters\[0\]\[1\] must be at least 1"),
        ({"learning_rate": 1e-4, "min_learning_rate": 1e-3}, "must not be above"),
        ({"max_characters": 2}, "max_characters must be at least 3"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        ELMo(**options)


@pytest.mark.parametrize("filters", [5, "ab", ((1, 2, 3),), (1, 2), ((1.5, 2),)])
def test_filters_are_pairs(filters):
    with pytest.raises(TypeError, match="filters"):
        ELMo(filters=filters)


def test_filters_become_tuples():
    assert ELMo(filters=[[1, 4], [2, 8]]).filters == ((1, 4), (2, 8))


def test_encode_is_refused_what_it_does_not_take():
    model = untrained(TEXTS)
    with pytest.raises(TypeError, match="give a list of texts"):
        model.encode("the cat")
    with pytest.raises(TypeError, match=r"sentences\[1\]\[0\] is of type int"):
        model.encode([["a"], [1]])
    with pytest.raises(ValueError, match="layer must be at most 2"):
        model.encode(["a"], layer=3)
    assert model.encode([]) == []
    some = ["the cat", "", "a"]
    every = model.encode(some, layer="all")
    assert [one.shape[:2] for one in every] == [(3, 2), (3, 0), (3, 1)]
    mixed = model.encode(some, layer=["mixture", 1])
    for i in range(3):
        for layer in range(3):
            np.testing.assert_array_equal(every[i][layer], model.encode(some, layer=layer)[i])
        np.testing.assert_array_equal(mixed[i], [model.encode(some)[i], every[i][1]])
    np.testing.assert_array_equal(model.encode(["a b"], layer=-1)[0], model.encode(["a b"], layer=2)[0])
    lengths = np.linalg.norm(model.encode(["a b"], normalize=True)[0], axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)


def test_strings_are_split_as_the_option_says():
    assert ELMo()._split_all(["The cat's tail."]) == [["The", "cat's", "tail."]]
    assert ELMo(split="words")._split_all(["The cat's tail."]) == [["the", "cat", "s", "tail"]]
    strange = "İstanbul ΌΣΟΣ Straẞe ǅ_9 \U0003abcd \ud800x"  # lower cases of two characters, or that depend on others
    fitted = ELMo(split="words")._read([strange.replace("\ud800", " ")], progress=False).vocabulary.words
    assert sorted(ELMo(split="words")._split_all([strange])[0]) == sorted(fitted)
    strings, lists = ["The cat's", "A cat"], [["The", "cat's"], ["A", "cat"]]
    assert ELMo(split="words")._read(strings, progress=False).vocabulary.words == ["cat", "a", "s", "the"]
    assert set(ELMo(split="words")._read(lists, progress=False).vocabulary.words) == {"The", "cat's", "A", "cat"}


def test_vectors_are_layer_0():
    model = untrained(TEXTS)
    vectors = model.vectors
    assert isinstance(vectors, firth.Vectors)
    assert set(vectors.words) == {word for text in TEXTS for word in text}
    np.testing.assert_allclose(vectors["tree"], model.encode(["tree"], layer=0)[0][0, :6], rtol=1e-5, atol=1e-6)
