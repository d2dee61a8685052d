"""Training: ids, batches, the loop, checkpoints, several processes."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

import firth  # noqa: E402
from firth import files, run  # noqa: E402
from firth.contextual import data  # noqa: E402
from firth.contextual.data import MaskedBatches, NextTokenBatches, TokenIds  # noqa: E402
from firth.contextual.loop import Schedule, train  # noqa: E402
from firth.contextual.processes import pays_bf16  # noqa: E402
from firth.contextual.tokenizer import Tokenizer  # noqa: E402
from firth.text import read_texts  # noqa: E402

N_WORDS = 12
CHAIN = np.random.default_rng(7).dirichlet(np.full(N_WORDS, 0.3), N_WORDS)  # of which word follows which


def chain_texts(n=200, length=40, seed=3):
    """Texts of a Markov chain: the best loss there can be is known."""
    rng = np.random.default_rng(seed)
    texts = []
    for _ in range(n):
        words = [int(rng.integers(N_WORDS))]
        while len(words) < length:
            words.append(int(rng.choice(N_WORDS, p=CHAIN[words[-1]])))
        texts.append(" ".join(f"w{word}" for word in words))
    return texts


@pytest.fixture(scope="module")
def tokenizer():
    return words_tokenizer()


def words_tokenizer():
    return Tokenizer.train(chain_texts(20), tokenizer="wordlevel", vocabulary_size=100)


@pytest.fixture(scope="module")
def ids(tokenizer):
    return TokenIds.build(chain_texts(), tokenizer, validation=0.1)


class Bigrams(torch.nn.Module):
    """The smallest language model that has an embedding, a norm, biases, a matrix, and dropout on request."""

    def __init__(self, vocabulary_size, dim=16, dropout=0.0):
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary_size, dim)
        self.norm = torch.nn.LayerNorm(dim)
        self.dropout = torch.nn.Dropout(dropout)
        self.out = torch.nn.Linear(dim, vocabulary_size)
        self.unused = torch.nn.Linear(2, 2)  # as BERT's pooler is by masked training

    def forward(self, ids):
        return self.out(self.dropout(self.norm(self.embedding(ids))))


def loss(module, batch):
    inputs, targets = batch
    total = torch.nn.functional.cross_entropy(
        module(inputs).flatten(0, 1).float(), targets.flatten(), reduction="sum", ignore_index=-100
    )
    return total, (targets != -100).sum()


def bigrams(dropout=0.0, seed=1):
    torch.manual_seed(seed)
    return Bigrams(N_WORDS + 5, dropout=dropout)


SCHEDULE = Schedule(
    steps=40, batch_size=4, length=16, learning_rate=0.02, evaluate_every=5, evaluate_batches=3, warmup=0.1, bf16=False
)


def curve(history):
    """All of the evaluations that no clock has part in."""
    return [(one.step, one.epoch, one.loss, one.validation_loss, one.learning_rate) for one in history]


def weights(module):
    return {name: tensor.numpy().tobytes() for name, tensor in module.state_dict().items()}


# ---------------------------------------------------------------------------------------------------------------- ids


def test_texts_are_split_whole(tokenizer):
    texts = chain_texts(100, length=7)
    ids = TokenIds.build(texts, tokenizer, validation=0.2)
    assert len(ids) == 100
    assert 0 < ids.n_train < 100
    assert ids.ids.dtype == np.uint16
    assert isinstance(ids.ids, np.memmap)
    assert not ids.ids.flags.writeable
    assert np.diff(ids.offsets).tolist() == [8] * 100
    assert len(ids.train) == 8 * ids.n_train
    assert len(ids.validation) == 8 * (100 - ids.n_train)
    found = [tokenizer.decode(ids.ids[begin:end]) for begin, end in zip(ids.offsets, ids.offsets[1:], strict=False)]
    # Each text is there once, and each part has its texts in their order.
    assert sorted(found) == sorted(texts)
    for part in (found[: ids.n_train], found[ids.n_train :]):
        assert part == [text for text in texts if text in part]
    assert (ids.ids[ids.offsets[1:] - 1] == tokenizer.end).all()
    assert ids.n_bytes == tuple(
        sum(len(text.encode()) for text in part) for part in (found[: ids.n_train], found[ids.n_train :])
    )


def test_share_of_the_validation_split(tokenizer):
    texts = ["w1 w2"] * 2000
    for share in (0.0, 0.05, 0.5):
        ids = TokenIds.build(texts, tokenizer, validation=share)
        assert abs((2000 - ids.n_train) / 2000 - share) < 4 * math.sqrt(share * (1 - share) / 2000) + 1e-9
    one = TokenIds.build(chain_texts(50), tokenizer, validation=0.3, seed=1)
    assert one.fingerprint == TokenIds.build(chain_texts(50), tokenizer, validation=0.3, seed=1).fingerprint
    assert one.fingerprint != TokenIds.build(chain_texts(50), tokenizer, validation=0.3, seed=2).fingerprint


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_neither_part_is_empty(tokenizer, share):
    texts = ["w1", "w2 é", "w3"]
    ids = TokenIds.build(texts, tokenizer, validation=share)
    assert ids.n_train == (2 if share < 0.5 else 1)
    assert sum(ids.n_bytes) == sum(len(text.encode()) for text in texts)
    assert ids.n_bytes[0] == sum(len(text.encode()) for text in texts[: ids.n_train])
    alone = TokenIds.build(["w1 w2"], tokenizer, validation=share)
    assert (alone.n_train, len(alone.validation)) == (1, 0)


def test_how_texts_come_does_not_show(tokenizer, tmp_path, monkeypatch):
    texts = chain_texts(30)
    wanted = TokenIds.build(texts, tokenizer, validation=0.2)
    plain, packed, second = tmp_path / "a.txt", tmp_path / "a.txt.gz", tmp_path / "b.txt"
    plain.write_text("\n\n".join(texts) + "\n")
    packed.write_bytes(gzip.compress("\r\n".join(texts[:10]).encode()))
    second.write_text("\n".join(texts[10:]))
    corpus = firth.Corpus.from_iterable([text.split() for text in texts], min_count=1)
    sources = [iter(texts), [text.split() for text in texts], corpus, plain, str(plain), [packed, second]]
    for source in sources:
        assert TokenIds.build(source, tokenizer, validation=0.2).fingerprint == wanted.fingerprint
    monkeypatch.setattr(data, "_TEXTS", 7)
    assert TokenIds.build(texts, tokenizer, validation=0.2).fingerprint == wanted.fingerprint


def test_documents_end_at_blank_lines(tmp_path):
    path = tmp_path / "articles.txt"
    path.write_text("one\ntwo\n\n  \nthree\n\nfour\nfive")
    assert list(read_texts(path, documents="blank_lines")) == ["one\ntwo", "three", "four\nfive"]
    assert list(read_texts(path)) == ["one", "two", "three", "four", "five"]
    with pytest.raises(ValueError, match="documents must be 'lines' or 'blank_lines'"):
        read_texts(path, documents="pages")
    with pytest.raises(FileNotFoundError):
        read_texts(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match=r"no file 'a text .*given in a list: \[text\]"):
        read_texts("a text " * 100)


def test_ids_on_disk(tokenizer, tmp_path):
    path = tmp_path / "texts.ids"
    built = TokenIds.build(chain_texts(30), tokenizer, path=path, validation=0.2)
    opened = TokenIds.open(path)
    assert isinstance(built.ids, np.memmap)
    assert isinstance(opened.ids, np.memmap)
    assert opened.fingerprint == built.fingerprint
    assert opened.ids.tolist() == built.ids.tolist()
    assert opened.n_bytes == built.n_bytes
    assert list(tmp_path.iterdir()) == [path]
    files.write_own(path, "token ids", {"ids": np.zeros(3, np.uint16), "offsets": np.arange(3)}, {"n_train": 1})
    with pytest.raises(ValueError, match="is a damaged file of token ids"):
        TokenIds.open(path)


def test_large_vocabularies_take_four_bytes():
    texts = [" ".join(f"x{i}" for i in range(begin, begin + 1000)) for begin in range(0, 70_000, 1000)]
    tokenizer = Tokenizer.train(texts, tokenizer="wordlevel", vocabulary_size=100_000, min_count=1)
    ids = TokenIds.build(texts, tokenizer, validation=0.0)
    assert ids.ids.dtype == np.int32
    assert ids.ids.max() == len(tokenizer) - 1 == 70_004


def test_ids_refuse(tokenizer):
    with pytest.raises(ValueError, match="no text to train on"):
        TokenIds.build(["", ""], tokenizer)
    with pytest.raises(ValueError, match="validation must be below 1"):
        TokenIds.build(["w1"], tokenizer, validation=1.0)
    with pytest.raises(TypeError, match=r"texts\[1\] is of type int"):
        TokenIds.build(["w1", 3], tokenizer)


# ------------------------------------------------------------------------------------------------------------ batches


@pytest.fixture(params=["next", "masked", "whole words"])
def make_batches(request, ids, tokenizer):
    if request.param == "next":
        return lambda seed=1: NextTokenBatches(ids, length=16, seed=seed)
    whole = request.param == "whole words"
    return lambda seed=1: MaskedBatches(ids, tokenizer, length=16, whole_words=whole, seed=seed)


def test_an_example_is_a_function_of_seed_and_number(make_batches):
    one = make_batches()(5, 900)  # more than an epoch
    assert one.inputs.shape == one.targets.shape == (900, 16)
    assert one.inputs.dtype == one.targets.dtype == torch.int64
    other = make_batches()
    for first, count in ((800, 100), (5, 3), (100, 700), (8, 92)):  # in any order and any cut
        part = other(first, count)
        assert torch.equal(part.inputs, one.inputs[first - 5 : first - 5 + count])
        assert torch.equal(part.targets, one.targets[first - 5 : first - 5 + count])
    assert not torch.equal(make_batches(seed=2)(5, 900).inputs, one.inputs)
    held = make_batches().validation(3, 4)
    assert all(torch.equal(a, b) for a, b in zip(held, make_batches().validation(3, 4), strict=True))


def test_fingerprints_tell_batches_apart(make_batches, ids, tokenizer):
    assert make_batches().fingerprint == make_batches().fingerprint
    assert make_batches().fingerprint != make_batches(seed=2).fingerprint
    kinds = [
        NextTokenBatches(ids, length=16),
        NextTokenBatches(ids, length=15),
        MaskedBatches(ids, tokenizer, length=16),
        MaskedBatches(ids, tokenizer, length=16, whole_words=True),
        MaskedBatches(ids, tokenizer, length=16, probability=0.2),
    ]
    assert len({str(kind.fingerprint) for kind in kinds}) == len(kinds)


def test_next_tokens_are_next_in_the_texts():
    ids = TokenIds(np.arange(1000, dtype=np.int32), np.array([0, 1000]), 1, 1000)
    batches = NextTokenBatches(ids, length=16)
    inputs, targets = batches(0, 200)
    assert torch.equal((inputs + 1) % 1000, targets)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


@pytest.mark.parametrize("n", [1000, 1008, 17, 16, 3])
def test_an_epoch_covers_the_texts(n):
    ids = TokenIds(np.arange(n, dtype=np.int32), np.array([0, n]), 1, n)
    batches = NextTokenBatches(ids, length=16)
    examples = -(-n // 16)
    epochs = [batches(epoch * examples, examples).inputs for epoch in range(3)]
    for epoch in epochs:
        counts = np.bincount(epoch.flatten().numpy(), minlength=n)
        assert counts.min() >= 1
        assert counts.sum() == examples * 16
    if n > 100:
        assert not torch.equal(epochs[0].sort(0).values, epochs[1].sort(0).values)  # cut elsewhere
        assert not torch.equal(epochs[0], epochs[0].sort(0).values)  # and in an order of chance


def test_parts_never_meet(tokenizer):
    """Texts to learn from hold even words only; no text, and no row, holds both kinds."""
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{2 * w}" for w in rng.integers(0, 6, 9)) for _ in range(40)]
    ids = TokenIds.build(texts, tokenizer, validation=0.3)
    changed = np.array(ids.ids)
    changed[ids.offsets[ids.n_train] :] = tokenizer.get("w1")
    ids = TokenIds(changed, ids.offsets, ids.n_train, ids.vocabulary_size)
    learned, held = NextTokenBatches(ids, length=11), MaskedBatches(ids, tokenizer, length=13)
    for batches in (learned, held):
        for tensor in batches(0, 300):
            assert tokenizer.get("w1") not in (tensor[tensor >= 0]).tolist() or batches is held
        assert (batches(0, 300).targets != tokenizer.get("w1")).all()
        i, seen = 0, 0
        while (batch := batches.validation(i, 2)) is not None:
            targets = batch.targets[batch.targets >= 0]
            assert (targets == tokenizer.get("w1")).all()
            i += 2
            seen += len(batch.targets)
        stream = len(ids.validation)
        assert seen == ((stream - 1) // 11 if batches is learned else stream // 11)


def test_validation_windows_do_not_overlap():
    ids = TokenIds(np.arange(500, dtype=np.int32), np.array([0, 100, 500]), 1, 500)
    batches = NextTokenBatches(ids, length=16)
    rows = torch.cat([batches.validation(i, 4).inputs for i in range(0, 24, 4)])
    assert len(rows) == 399 // 16
    assert sorted(rows.flatten().tolist()) == list(range(100, 100 + 16 * len(rows)))
    assert batches.validation(24, 4) is None
    short = TokenIds(np.arange(110, dtype=np.int32), np.array([0, 100, 110]), 1, 110)
    assert NextTokenBatches(short, length=16).validation(0, 4).inputs.tolist() == [list(range(100, 109))]
    none = TokenIds(np.arange(101, dtype=np.int32), np.array([0, 100, 101]), 1, 101)
    assert NextTokenBatches(none, length=16).validation(0, 4) is None


@pytest.mark.parametrize("whole_words", [False, True])
def test_masks_are_80_10_10(whole_words):
    texts = ["reading readers read", "walkers walking walks"] * 30
    tokenizer = Tokenizer.train(texts, tokenizer="wordpiece", vocabulary_size=60, min_count=80)  # read ##in ##g
    ids = TokenIds.build(texts, tokenizer, validation=0.0)
    batches = MaskedBatches(ids, tokenizer, length=130, whole_words=whole_words)
    inputs, targets = (tensor.numpy() for tensor in batches(0, 1000))
    assert (inputs[:, 0] == tokenizer.start).all()
    assert (inputs[:, -1] == tokenizer.end).all()
    assert (targets[:, [0, -1]] == -100).all()
    chosen = targets != -100
    text = np.where(chosen, targets, inputs)  # what the rows were
    assert not chosen[tokenizer.special[text]].any()
    n = (~tokenizer.special[text]).sum()
    # Words are chosen whole: their tokens are not independent, and a word has up to some ten of them.
    sigma = math.sqrt(0.15 * 0.85 / n) * (math.sqrt(10) if whole_words else 1)
    assert abs(chosen.sum() / n - 0.15) < 5 * sigma
    masked, kept = inputs == tokenizer.mask, inputs == targets
    ordinary = len(tokenizer) - 5
    wanted = {"masked": 0.8, "kept": 0.1 + 0.1 / ordinary, "random": 0.1 - 0.1 / ordinary}
    found = {"masked": masked[chosen].mean(), "kept": kept[chosen].mean()}
    found["random"] = 1 - found["masked"] - found["kept"]
    for name, share in wanted.items():
        assert abs(found[name] - share) < 5 * math.sqrt(share * (1 - share) / chosen.sum()), name
    others = inputs[chosen & ~masked & ~kept]
    assert set(others.tolist()) == set(np.flatnonzero(~tokenizer.special).tolist())
    again = batches(len(ids.train), 200)  # other ids are hidden in another epoch
    assert not np.array_equal(again.targets.numpy(), targets[:200])
    # Pairs of a token and the one that goes on with its word: both or neither.
    assert tokenizer.continues.sum() > 10
    together = tokenizer.continues[text[:, 2:-1]] & ~tokenizer.special[text[:, 1:-2]]
    agree = (chosen[:, 1:-2] == chosen[:, 2:-1])[together]
    assert agree.all() if whole_words else not agree.all()


@pytest.mark.parametrize("whole_words", [False, True])
def test_every_row_has_something_to_predict(whole_words):
    """A training of a few short rows would else have steps, and losses, of nothing."""
    texts = ["reading readers", "walkers walking"] * 30
    tokenizer = Tokenizer.train(texts, tokenizer="wordpiece", vocabulary_size=60, min_count=80)
    ids = TokenIds.build(texts, tokenizer, validation=0.1)
    batches = MaskedBatches(ids, tokenizer, length=9, whole_words=whole_words, probability=0.01)
    for inputs, targets in (batches(0, 500), batches.validation(0, 500)):
        chosen = targets != -100
        assert chosen.any(1).all()
        counts = chosen.sum(1)
        assert (counts == 1).float().mean() > 0.9 or whole_words
        assert not tokenizer.special[torch.where(chosen, targets, inputs)][chosen].any()
    blank = MaskedBatches(
        TokenIds(np.full(40, tokenizer.end), np.array([0, 40]), 1, len(tokenizer)), tokenizer, length=9
    )
    assert (blank(0, 3).targets == -100).all()


def test_whole_words_begin_behind_the_end_of_a_text():
    """Byte-level tokens hold the space before a word: at a text's beginning there is none, and it is no word's rest."""
    bpe = Tokenizer.train(["read on"] * 9, tokenizer="bpe", vocabulary_size=270)
    plain = bpe._tokenizer
    plain.add_special_tokens(["<mask>"])
    tokenizer = Tokenizer(plain)
    ids = TokenIds.build(["read", "on"] * 20, tokenizer, validation=0.0)
    assert tokenizer.continues[ids.ids[ids.ids != tokenizer.end]].all()
    inputs, targets = MaskedBatches(ids, tokenizer, length=41, whole_words=True, probability=0.5)(0, 50)
    chosen, text = targets != -100, torch.where(targets != -100, targets, inputs) != tokenizer.end
    assert any(0 < chosen[i].sum() < text[i].sum() for i in range(50))  # one text of a row hidden, another one not


def test_masks_refuse(ids, tokenizer):
    bpe = Tokenizer.train(chain_texts(5), tokenizer="bpe", vocabulary_size=260)
    with pytest.raises(ValueError, match="no mask"):
        MaskedBatches(ids, bpe, length=16)
    other = Tokenizer.train(chain_texts(5), tokenizer="wordlevel", vocabulary_size=7)
    with pytest.raises(ValueError, match="vocabulary of 17 tokens, the tokenizer has 7"):
        MaskedBatches(ids, other, length=16)
    with pytest.raises(ValueError, match="length must be at least 3"):
        MaskedBatches(ids, tokenizer, length=2)
    with pytest.raises(ValueError, match="probability must be"):
        MaskedBatches(ids, tokenizer, length=16, probability=1.5)


# ----------------------------------------------------------------------------------------------------------- schedule


def test_learning_rate():
    schedule = Schedule(steps=100, warmup=0.1, learning_rate=1.0, min_learning_rate=0.2)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[54] == pytest.approx(0.6)
    assert rates[99] == pytest.approx(0.2)
    assert (np.diff(rates[9:]) < 0).all()
    assert Schedule(steps=100, learning_rate=1.0).rate(99) == pytest.approx(0.1)
    assert Schedule(steps=100, learning_rate=1.0).rate(0) == pytest.approx(0.2)
    assert Schedule(steps=1, warmup=1, learning_rate=1.0).rate(0) == 1.0


def test_devices_that_are_not_there_are_refused(ids):
    batches = NextTokenBatches(ids, length=16)
    for device, said in (("banana", "one of torch's"), ("cuda:99", "no such device"), ("meta", "no such device")):
        with pytest.raises(ValueError, match=said):
            train(bigrams(), batches, loss, SCHEDULE, device=device)


def test_schedule_refuses():
    for wrong, said in (
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 2.5}, "batch_size=.* must be int, not float"),
        ({"learning_rate": math.nan}, "learning_rate must be"),
        ({"learning_rate": 0.1, "min_learning_rate": 0.2}, "must not be above learning_rate"),
        ({"warmup": 1.1}, "warmup must be at least 0 and at most 1"),
        ({"betas": (0.9, 1.0)}, "betas must be below 1"),
        ({"clip": 0.0}, "clip must be above"),
        ({"evaluate_every": 0}, "evaluate_every must be at least 1"),
    ):
        with pytest.raises((ValueError, TypeError), match=said):
            Schedule(**{"steps": 10, **wrong})
    kept = Schedule(steps=np.int64(3), learning_rate=np.float32(0.5))
    assert json.loads(json.dumps(dataclasses.asdict(kept)))["steps"] == 3


# --------------------------------------------------------------------------------------------------------------- loop


def test_learns_what_there_is_to_learn(ids, tokenizer):
    """The validation loss decreases to the chain's own entropy, that of its texts' ends included."""
    module = bigrams()
    schedule = Schedule(steps=400, batch_size=16, length=32, learning_rate=0.03, evaluate_batches=100)
    history = train(module, NextTokenBatches(ids, length=32), loss, schedule)
    # The best there can be: each pair's true probability, over the same validation pairs.
    held = np.array(ids.validation)
    table = np.zeros((len(tokenizer), len(tokenizer)))
    numbers = [tokenizer.get(f"w{i}") for i in range(N_WORDS)]
    table[np.ix_(numbers, numbers)] = CHAIN
    inside = (held[:-1] != tokenizer.end) & (held[1:] != tokenizer.end)
    p_end = 1 / 40
    best = -(np.log(table[held[:-1], held[1:]][inside] * (1 - p_end))).sum()
    ends, begins = held[1:] == tokenizer.end, held[:-1] == tokenizer.end
    best += -(math.log(p_end) * ends.sum() + math.log(1 / N_WORDS) * begins.sum())
    best /= len(held) - 1
    assert len(history) == 20
    assert history[0].validation_loss > best + 0.1
    assert best - 0.02 < history[-1].validation_loss < best + 0.05
    assert history[-1].perplexity == pytest.approx(math.exp(history[-1].validation_loss))


def test_what_history_says(ids):
    schedule = dataclasses.replace(SCHEDULE, steps=12)
    seen, steps = [], []
    module = bigrams()
    kept = [None]
    history = train(
        module,
        NextTokenBatches(ids, length=16),
        loss,
        schedule,
        callbacks=[seen.append],
        before_step=steps.append,
        history=kept,
    )
    assert history is kept
    assert seen == history
    assert steps == list(range(12))
    assert [one.step for one in history] == [5, 10, 12]
    assert [one.epoch for one in history] == [5 / 12, 10 / 12, 1]
    assert [one.learning_rate for one in history] == [schedule.rate(step) for step in (4, 9, 11)]
    assert all(one.units_per_second > 0 for one in history)
    assert history[0].seconds < history[1].seconds < history[2].seconds
    stop = train(bigrams(), NextTokenBatches(ids, length=16), loss, schedule, callbacks=[lambda one: one.step == 10])
    assert curve(stop) == curve(history)[:2]


def test_a_step_is_adamw(ids):
    """Against the formula: two steps, with decay for the matrix alone, clipping, and the mean over all targets."""
    module, twin = bigrams(), bigrams()
    schedule = Schedule(
        steps=2, batch_size=3, length=16, accumulate=2, learning_rate=0.1, warmup=0, clip=0.05, weight_decay=0.3,
        bf16=False,
    )  # fmt: skip
    batches = NextTokenBatches(ids, length=16)
    train(module, batches, loss, schedule)
    mean = {name: 0.0 for name, _ in twin.named_parameters()}
    square = dict(mean)
    for step in range(2):
        twin.zero_grad()
        total, count = loss(twin, batches(step * 6, 6))
        (total / count).backward()
        named = [(name, one) for name, one in twin.named_parameters() if one.grad is not None]
        norm = math.sqrt(sum(float((one.grad**2).sum()) for _, one in named))
        assert norm > 0.05
        rate = schedule.rate(step)
        with torch.no_grad():
            for name, one in named:
                gradient = one.grad * 0.05 / norm
                mean[name] = 0.9 * mean[name] + 0.1 * gradient
                square[name] = 0.95 * square[name] + 0.05 * gradient**2
                one *= 1 - rate * (0.3 if name == "out.weight" else 0)
                one -= (
                    rate
                    * (mean[name] / (1 - 0.9 ** (step + 1)))
                    / ((square[name] / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)
                )
    for (name, one), two in zip(module.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=2e-5, msg=name)


def test_accumulation_is_a_larger_batch(ids, tokenizer):
    """Also where batches have unlike numbers of targets."""
    batches = MaskedBatches(ids, tokenizer, length=16)
    large = train(bigrams(), batches, loss, dataclasses.replace(SCHEDULE, batch_size=8))
    small = train(bigrams(), batches, loss, dataclasses.replace(SCHEDULE, batch_size=2, accumulate=4))
    assert [one.loss for one in small] == pytest.approx([one.loss for one in large], rel=1e-4)


def test_state_of_the_caller_is_kept(ids):
    module = bigrams(dropout=0.2).eval()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    train(module, NextTokenBatches(ids, length=16), loss, SCHEDULE)
    assert torch.equal(torch.get_rng_state(), state)
    assert not module.training
    assert all(one.grad is None for one in module.parameters())


def test_the_seed_decides(ids):
    batches = NextTokenBatches(ids, length=16)
    modules = [bigrams(dropout=0.2) for _ in range(3)]
    curves = [
        curve(train(module, batches, loss, dataclasses.replace(SCHEDULE, seed=seed)))
        for module, seed in zip(modules, (1, 1, 2), strict=True)
    ]
    assert curves[0] == curves[1] != curves[2]
    assert weights(modules[0]) == weights(modules[1])


def test_validation_loss_is_without_dropout(ids):
    batches = NextTokenBatches(ids, length=16)
    module = bigrams(dropout=0.5)
    history = train(module, batches, loss, dataclasses.replace(SCHEDULE, steps=5))
    module.eval()
    found = [loss(module, batches.validation(i * 4, 4)) for i in range(3)]
    wanted = sum(float(total.detach()) for total, _ in found) / sum(int(count) for _, count in found)
    assert history[-1].validation_loss == pytest.approx(wanted, rel=1e-6)


def test_no_validation_texts(tokenizer):
    ids = TokenIds.build(chain_texts(20), tokenizer, validation=0.0)
    history = train(bigrams(), NextTokenBatches(ids, length=16), loss, SCHEDULE)
    assert all(one.validation_loss is None and one.perplexity is None for one in history)
    assert history[-1].loss < history[0].loss


def test_frozen_for_the_first_steps(ids):
    module = bigrams()
    before = module.embedding.weight.detach().clone()

    def freeze(step):
        module.embedding.weight.requires_grad_(step >= 20)

    def look(one):
        assert torch.equal(module.embedding.weight, before) == (one.step <= 20)

    train(module, NextTokenBatches(ids, length=16), loss, SCHEDULE, before_step=freeze, callbacks=[look])


def test_bf16(ids):
    """Off here unless it pays; when asked for, products are of bf16 and weights stay float32."""
    types = set()

    def watched(module, batch):
        inputs, targets = batch
        logits = module(inputs)
        types.add(logits.dtype)
        return torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), reduction="sum"
        ), targets.numel()

    batches = NextTokenBatches(ids, length=16)
    module = bigrams()
    rounded = train(module, batches, watched, dataclasses.replace(SCHEDULE, bf16=True))
    assert types == {torch.bfloat16}
    assert module.out.weight.dtype == torch.float32
    types.clear()
    exact = train(bigrams(), batches, watched, dataclasses.replace(SCHEDULE, bf16=False))
    assert types == {torch.float32}
    assert rounded[-1].loss == pytest.approx(exact[-1].loss, rel=0.02)
    assert curve(rounded) != curve(exact)
    types.clear()
    train(bigrams(), batches, watched, dataclasses.replace(SCHEDULE, bf16=None))
    assert types == {torch.bfloat16 if pays_bf16(torch.device("cpu")) else torch.float32}


def test_refusals(ids, tmp_path):
    batches = NextTokenBatches(ids, length=16)
    with pytest.raises(TypeError, match=r"callbacks\[0\] must be a function"):
        train(bigrams(), batches, loss, SCHEDULE, callbacks=[3])
    with pytest.raises(ValueError, match="resume=True needs checkpoint="):
        train(bigrams(), batches, loss, SCHEDULE, resume=True)
    with pytest.raises(ValueError, match="nothing to train"):
        train(bigrams().requires_grad_(False), batches, loss, SCHEDULE)


def test_progress(ids, capsys):
    train(bigrams(), NextTokenBatches(ids, length=16), loss, SCHEDULE, progress=True)
    shown = capsys.readouterr().err
    assert "Bigrams" in shown
    assert "40/40" in shown
    assert "validation_loss=" in shown
    train(bigrams(), NextTokenBatches(ids, length=16), loss, SCHEDULE)
    assert capsys.readouterr().err == ""


# --------------------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize(("bad", "kept_step"), [(3, 0), (9, 0), (10, 8), (20, 16)])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_divergence_keeps_good_weights(ids, what, bad, kept_step, tmp_path):
    """The step before the bad one is undone, too: what it made of the weights gave the bad number."""
    batches = NextTokenBatches(ids, length=16)
    calls = []

    def breaking(module, batch):
        total, count = loss(module, batch)
        if module.training:
            calls.append(weights(module))
            if len(calls) == bad:
                total = total * math.nan if what == "loss" else total + (module.norm.bias.sum() * 0).sqrt()
        return total, count

    module = bigrams()
    history = []
    said = f"in step {bad}: the {what} is not finite.* after step {kept_step}.*learning_rate"
    with pytest.raises(FloatingPointError, match=said):
        train(module, batches, breaking, SCHEDULE, history=history, checkpoint=tmp_path)
    assert weights(module) == calls[kept_step]
    assert [one.step for one in history] == list(range(5, bad, 5))
    assert all(one.grad is None for one in module.parameters())
    path = tmp_path / "checkpoint.safetensors"
    assert path.exists() == (bad > 5)
    if path.exists():
        assert files.read_tensors(path)[1]["progress"][0] == (bad - 1) // 5 * 5


def test_divergence_by_a_huge_learning_rate(ids):
    module = bigrams()
    start = weights(module)
    wild = dataclasses.replace(SCHEDULE, learning_rate=1e38, warmup=0, clip=None)
    with pytest.raises(FloatingPointError, match="step 2"):
        train(module, NextTokenBatches(ids, length=16), loss, wild)
    assert weights(module) == start
    # Seen by the evaluation, if it comes first.
    with pytest.raises(FloatingPointError, match="in step 1: a number in the weights is not finite"):
        train(module, NextTokenBatches(ids, length=16), loss, dataclasses.replace(wild, evaluate_every=1))
    assert weights(module) == start


# -------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("step", [5, 7, 8, 38])
def test_resumed_from_any_step(ids, step, tmp_path, monkeypatch):
    """Checkpoints between evaluations included: the sums since the last one are part of them."""
    monkeypatch.setattr(run, "_CHECKPOINT_SECONDS", 0)
    batches = NextTokenBatches(ids, length=16)
    whole = bigrams(dropout=0.2)
    wanted = train(whole, batches, loss, SCHEDULE)

    class Stop(Exception):
        pass

    def stop(now):
        if now == step:
            raise Stop

    with pytest.raises(Stop):
        train(bigrams(dropout=0.2), batches, loss, SCHEDULE, checkpoint=tmp_path, before_step=stop)
    module = bigrams(dropout=0.2, seed=9)  # its own start does not matter any more
    steps = []
    torch.manual_seed(77)
    found = train(module, batches, loss, SCHEDULE, checkpoint=tmp_path, resume=True, before_step=steps.append)
    assert steps == list(range(step, 40))
    assert curve(found) == curve(wanted)
    assert weights(module) == weights(whole)
    assert found[-1].seconds > found[0].seconds
    # What is finished is read, and no step is added.
    module = bigrams(seed=9)
    assert curve(train(module, batches, loss, SCHEDULE, checkpoint=tmp_path, resume=True)) == curve(wanted)
    assert weights(module) == weights(whole)


def test_resume_where_nothing_is(ids, tmp_path):
    batches = NextTokenBatches(ids, length=16)
    found = train(bigrams(), batches, loss, SCHEDULE, checkpoint=tmp_path / "new", resume=True)
    assert curve(found) == curve(train(bigrams(), batches, loss, SCHEDULE))


def test_every_kind_of_tensor_is_kept(ids, tmp_path):
    """Tied, of no dimension, of bf16, of booleans, frozen."""

    def make(seed):
        module = bigrams(seed=seed)
        module.out.weight = module.embedding.weight
        module.unused = module.unused.bfloat16()
        module.norm.bias.requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        module.register_buffer("scalar", torch.rand((), generator=generator))
        module.register_buffer("flags", torch.rand(5, generator=generator) > 0.5)
        return module

    batches = NextTokenBatches(ids, length=16)
    one = make(1)
    train(one, batches, loss, SCHEDULE, checkpoint=tmp_path)
    two = make(2)
    train(two, batches, loss, SCHEDULE, checkpoint=tmp_path, resume=True)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    names, _ = files.read_tensors(tmp_path / "checkpoint.safetensors")
    assert "module.embedding.weight" in names
    assert "module.out.weight" not in names


def test_checkpoints_are_not_mixed_up(ids, tokenizer, tmp_path):
    batches = NextTokenBatches(ids, length=16)
    train(bigrams(), batches, loss, SCHEDULE, checkpoint=tmp_path)

    def again(module=None, batches=batches, **changes):
        schedule = dataclasses.replace(SCHEDULE, **changes)
        train(module or bigrams(), batches, loss, schedule, checkpoint=tmp_path, resume=True)

    with pytest.raises(ValueError, match="pass resume=True"):
        train(bigrams(), batches, loss, SCHEDULE, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"learning_rate was 0\.02, is 0\.1"):
        again(learning_rate=0.1)
    with pytest.raises(ValueError, match="examples of a step was 4, is 8"):
        again(accumulate=2)
    with pytest.raises(ValueError, match="bf16 was False, is True"):
        again(bf16=True)
    with pytest.raises(ValueError, match="the data differ"):
        again(batches=NextTokenBatches(ids, length=16, seed=2))
    with pytest.raises(ValueError, match=r"out\.weight was \[17, 16\], is \[17, 8\]"):
        again(module=Bigrams(17, 8))
    with pytest.raises(ValueError, match="a Bigrams, not of a Linear"):
        again(module=torch.nn.Linear(2, 2))
    again(batch_size=2, accumulate=2)  # however a step is cut
    path = tmp_path / "checkpoint.safetensors"
    tensors, metadata = files.read_tensors(path)
    del tensors["mean.out.weight"]
    files.write_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"damaged.*'mean\.out\.weight'"):
        again()
    files.write_tensors(path, tensors, {k: v for k, v in metadata.items() if k != "history"})
    with pytest.raises(ValueError, match=r"damaged checkpoint.*it lacks history"):
        again()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="cut short"):
        again()


@pytest.mark.parametrize(
    ("key", "change", "said"),
    [
        ("progress", lambda p: [10**6, *p[1:]], "progress .* is not that of a training of"),
        ("progress", lambda p: [-1, *p[1:]], "progress .* is not that of a training of"),
        ("progress", lambda p: [1, *p[1:]], "progress .* is not that of a training of"),  # before its last evaluation
        ("progress", lambda p: [p[0], [float("nan"), *p[1][1:]]], "progress .* is not that of a training of"),
        ("progress", lambda p: p[:1], "progress .* is not that of a training of"),
        ("history", lambda history: [{**history[0], "loss": float("nan")}], r"loss in history\[0\] must be a finite"),
        ("history", lambda history: [1], r"history\[0\] must have exactly the fields"),
        ("identity", list, "its options have no names"),
        ("steps", list, "its steps have no names"),
        ("mean.out.weight", lambda tensor: tensor.astype(np.float64), "must be float32 .*, not float64"),
        ("mean.out.weight", lambda tensor: tensor.T, "must be float32 of shape"),
        ("module.out.weight", lambda tensor: tensor.astype(np.float64), "must be float32 .*, not float64"),
        ("module.out.weight", lambda tensor: tensor * np.float32("nan"), "not finite"),
    ],
)
def test_a_damaged_checkpoint_is_refused(ids, tmp_path, key, change, said):
    def again(**options):
        return train(bigrams(), NextTokenBatches(ids, length=16), loss, SCHEDULE, checkpoint=tmp_path, **options)

    again(callbacks=[lambda _: True])
    path = tmp_path / "checkpoint.safetensors"
    tensors, metadata = files.read_tensors(path)
    for held in (tensors, metadata):
        if key in held:
            held[key] = change(held[key])
    files.write_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=said) as raised:
        again(resume=True)
    assert str(tmp_path) in str(raised.value)


LONG = dataclasses.replace(SCHEDULE, steps=3000, evaluate_every=10, evaluate_batches=1)

KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
import torch, test_training as here
torch.set_num_threads(1)
here.run._CHECKPOINT_SECONDS = 0
ids = here.TokenIds.build(here.chain_texts(), here.words_tokenizer(), validation=0.1)
batches = here.NextTokenBatches(ids, length=16)
here.train(here.bigrams(dropout=0.2), batches, here.loss, here.LONG, checkpoint={folder!r}, resume=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_killed_and_resumed(ids, tmp_path):
    folder = tmp_path / "state"
    path = folder / "checkpoint.safetensors"
    script = KILLED.format(tests=os.path.dirname(__file__), folder=str(folder))
    reached = -1
    for _ in range(2):  # killed twice, the second time in a run that was resumed
        process = subprocess.Popen([sys.executable, "-c", script])
        deadline = time.monotonic() + 120
        step = -1
        while step <= reached and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
            step = files.read_tensors(path, mmap=True)[1]["progress"][0] if path.exists() else -1
        time.sleep(0.1)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, metadata = files.read_tensors(path)  # whole, at whatever moment the process died
        assert metadata["progress"][0] > reached
        reached = metadata["progress"][0]
    end = reached // 10 * 10 + 30
    stop = [lambda one: one.step >= end]
    batches = NextTokenBatches(ids, length=16)
    one, two = bigrams(dropout=0.2), bigrams(dropout=0.2)
    found = train(one, batches, loss, LONG, checkpoint=folder, resume=True, callbacks=stop)
    wanted = train(two, batches, loss, LONG, callbacks=stop)
    assert len(found) == end // 10
    # Matrix products of another process may round otherwise; within one the other tests compare bits.
    for mine, theirs in zip(curve(found), curve(wanted), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------- interruption


@pytest.fixture
def default_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="raises a POSIX signal")
@pytest.mark.parametrize("where", ["forward", "evaluation", "callback", "the very end"])
def test_ctrl_c(ids, where, tmp_path, default_ctrl_c):
    batches = NextTokenBatches(ids, length=16)
    whole = bigrams(dropout=0.2)
    wanted = train(whole, batches, loss, SCHEDULE)
    calls = [0]

    def pressing(module, batch):
        if module.training:
            calls[0] += 1
        if where == "forward" and calls[0] == 17:
            signal.raise_signal(signal.SIGINT)
        if where == "evaluation" and not module.training and calls[0] == 15:
            signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT))
            if not pressed:
                pressed.append(True)
                signal.raise_signal(signal.SIGINT)
        return loss(module, batch)

    def callback(one):
        if one.step == {"callback": 20, "the very end": 40}.get(where):
            signal.raise_signal(signal.SIGINT)

    pressed = []
    module, history = bigrams(dropout=0.2), []
    with pytest.raises(KeyboardInterrupt):
        train(module, batches, pressing, SCHEDULE, checkpoint=tmp_path, history=history, callbacks=[callback])
    assert module(torch.zeros(1, 2, dtype=torch.int64)).isfinite().all()
    step = {"forward": 17, "evaluation": 15, "callback": 20, "the very end": 40}[where]
    tensors, metadata = files.read_tensors(tmp_path / "checkpoint.safetensors")
    assert metadata["progress"][0] == step
    assert tensors["module.out.weight"].tobytes() == weights(module)["out.weight"]
    assert curve(history) == curve(wanted)[: step // 5]
    found = train(module, batches, loss, SCHEDULE, checkpoint=tmp_path, resume=True)
    assert curve(found) == curve(wanted)
    assert weights(module) == weights(whole)


@pytest.mark.skipif(sys.platform == "win32", reason="raises a POSIX signal")
def test_a_handler_of_one_s_own(ids, tmp_path, default_ctrl_c):
    class Quit(Exception):
        pass

    def handler(number, frame):
        raise Quit

    signal.signal(signal.SIGINT, handler)

    def press(step):
        if step == 3:
            signal.raise_signal(signal.SIGINT)

    try:
        with pytest.raises(Quit):
            train(
                bigrams(),
                NextTokenBatches(ids, length=16),
                loss,
                SCHEDULE,
                checkpoint=tmp_path,
                before_step=press,
            )
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert files.read_tensors(tmp_path / "checkpoint.safetensors")[1]["progress"][0] == 4


@pytest.mark.skipif(sys.platform == "win32", reason="raises a POSIX signal")
def test_second_ctrl_c_does_not_wait(ids, default_ctrl_c):
    calls = []

    def pressing(module, batch):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            raise AssertionError("it went on")
        return loss(module, batch)

    with pytest.raises(KeyboardInterrupt):
        train(bigrams(), NextTokenBatches(ids, length=16), pressing, SCHEDULE)
    assert len(calls) == 3


# -------------------------------------------------------------------------------------------------- several processes

# The steps of one process with batches of 8, shared by two: gloo, as torchrun begins them.
TOGETHER = dataclasses.replace(SCHEDULE, batch_size=4)

SHARED = """
import atexit, contextlib, json, os, sys, signal, warnings
def threads():  # called when all that is registered later has been
    names = []
    for one in os.listdir("/proc/self/task") if sys.platform == "linux" else []:
        with contextlib.suppress(OSError), open("/proc/self/task/" + one + "/comm") as file:  # it may end by itself
            names.append(file.read().strip())
    with open(f"{{folder}}/{{how}}.{{rank}}.threads", "w") as file:
        json.dump(names, file)
atexit.register(threads)
warnings.simplefilter("error")
sys.path.insert(0, {tests!r})
import torch, test_training as here
torch.set_num_threads(1)
folder, how = sys.argv[1], sys.argv[2]
rank = int(os.environ["RANK"])
tokenizer = here.words_tokenizer()
ids = here.TokenIds.build(here.chain_texts(), tokenizer, validation=0.1)
batches = here.MaskedBatches(ids, tokenizer, length=16)
schedule = here.TOGETHER
if how == "accumulated":
    schedule = here.dataclasses.replace(schedule, batch_size=2, accumulate=2)
module = here.bigrams(seed=1 + rank)  # the first one's start is everybody's
def before_step(step):
    if how == "frozen":
        module.embedding.weight.requires_grad_(step >= 20)
    if how == "pressed" and step == 12 and rank == 1:
        signal.raise_signal(signal.SIGINT)
calls = []
def loss(module, batch):
    total, count = here.loss(module, batch)
    if how == "diverged" and rank == 1 and module.training:
        calls.append(1)
        if len(calls) == 9:
            total = total * float("nan")
    return total, count
signal.signal(signal.SIGINT, signal.default_int_handler)
history, ended = [], "whole"
try:
    if how == "plain":  # an earlier training in the same processes
        here.train(here.bigrams(seed=7), batches, here.loss, schedule)
    here.train(module, batches, loss, schedule, before_step=before_step, checkpoint=folder + "/state", resume=True,
               history=history)
except (KeyboardInterrupt, FloatingPointError) as error:
    ended = f"{{type(error).__name__}}: {{error}}"
with open(f"{{folder}}/{{how}}.{{rank}}", "w") as file:
    json.dump([here.curve(history), here.weights_list(module), ended], file)
"""


def weights_list(module):
    return {name: tensor.flatten().tolist() for name, tensor in module.state_dict().items()}


def run_together(folder, how, *, torchrun):
    """Two processes, begun by torchrun or by hand; what each one has seen."""
    script = folder / "script.py"
    script.write_text(SHARED.format(tests=os.path.dirname(__file__)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    if torchrun:
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
        subprocess.run([*command, str(script), str(folder), how], env=environment, check=True, timeout=240)
    else:
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
        processes = [
            subprocess.Popen(
                [sys.executable, str(script), str(folder), how],
                env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]
        for process in processes:
            assert process.wait(240) == 0
    for rank in range(2):
        # One that is left when Python ends can abort the process.
        left = json.loads((folder / f"{how}.{rank}.threads").read_text())
        assert not any("gloo" in name for name in left)
    return [json.loads((folder / f"{how}.{rank}").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone(ids, tokenizer):
    def run(freeze=False):
        module = bigrams()

        def before_step(step):
            module.embedding.weight.requires_grad_(not freeze or step >= 20)

        batches = MaskedBatches(ids, tokenizer, length=16)
        schedule = dataclasses.replace(TOGETHER, batch_size=8, evaluate_batches=2)
        # Validation examples are cut by the batch, too: three of four in the processes are one and a half here.
        history = train(module, batches, loss, schedule, before_step=before_step)
        return [one.loss for one in history], weights_list(module)

    return run


def assert_like(found, wanted):
    (first, first_weights, ended), (second, second_weights, _) = found
    losses, whole_weights = wanted
    assert ended == "whole"
    assert first == second
    assert first_weights == second_weights
    assert [row[2] for row in first] == pytest.approx(losses, rel=1e-4)
    assert first[-1][1] == 1.0
    for name, values in whole_weights.items():
        np.testing.assert_allclose(first_weights[name], values, rtol=1e-2, atol=1e-3, err_msg=name)


needs_gloo = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="torch without gloo"
)


@needs_gloo
def test_torchrun_is_one_process_with_twice_the_batch(alone, tmp_path):
    assert_like(run_together(tmp_path, "plain", torchrun=True), alone())


@needs_gloo
@pytest.mark.parametrize("how", ["accumulated", "frozen"])
def test_two_processes(alone, how, tmp_path):
    assert_like(run_together(tmp_path, how, torchrun=False), alone(freeze=how == "frozen"))


@needs_gloo
@pytest.mark.skipif(sys.platform == "win32", reason="raises a POSIX signal")
def test_ctrl_c_in_one_of_two_processes(alone, tmp_path):
    """Both stop after the same step; resumed, here by one process, the curve is the same."""
    found = run_together(tmp_path, "pressed", torchrun=False)
    assert [one[2] for one in found] == ["KeyboardInterrupt: "] * 2
    assert found[0][:2] == found[1][:2]
    _, metadata = files.read_tensors(tmp_path / "state" / "checkpoint.safetensors")
    assert metadata["progress"][0] == 13
    assert_like(run_together(tmp_path, "resumed", torchrun=False), alone())


@needs_gloo
def test_divergence_in_one_of_two_processes(tmp_path):
    found = run_together(tmp_path, "diverged", torchrun=False)
    assert all("in step 9: the loss is not finite" in one[2] for one in found)
    assert found[0][:2] == found[1][:2]
