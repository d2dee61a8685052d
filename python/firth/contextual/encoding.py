"""From sentences to hidden states: checks, length batching and pooling, shared by BERT, GPT, ELMo and fine-tuning."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from firth.checks import column, one_of, text_or_words, whole_number
from firth.contextual.tokenizer import Encoding
from firth.fused_attention import numbers

Sentence = str | Sequence[str]
Pooling = Literal["mean", "max", "cls", "first", "last"]  # one vector for a sentence
WordPooling = Literal["mean", "max", "first", "last"]  # one vector for a word

BATCH_TOKENS = 4096  # of a batch when nothing is trained, padding included


def checked_sentences(sentences: Any, name: str = "sentences") -> list[str | list[str]]:
    """Sentences, each a string or a list of words; TypeError naming another one."""
    return [text_or_words(f"{name}[{i}]", one) for i, one in enumerate(column(name, sentences))]


def chosen_layers(layer: Any, layers: int, names: Sequence[str] = ()) -> tuple[list[Any], bool]:
    """The layers of `encode`, as numbers from 0 to `layers` or `names`; and whether the caller gave a single one."""
    if isinstance(layer, str) and layer == "all":
        return list(range(layers + 1)), False
    single = isinstance(layer, str) or not isinstance(layer, Iterable)
    chosen: list[Any] = [layer] if single else list(layer)
    if not chosen:
        raise ValueError("layer must name at least one layer")
    found = []
    for one in chosen:
        if isinstance(one, str) and one not in names:
            strings = " or ".join(map(repr, (*names, "all")))
            raise TypeError(f"layer must be a whole number, a list of them, or {strings}, not {layer!r}")
        known = isinstance(one, str)
        found.append(one if known else whole_number("layer", one, low=-layers - 1, high=layers) % (layers + 1))
    return found, single


def numbers_below(name: str, given: Sequence[int] | None, n: int) -> list[int]:
    """`numbers` as a list without repetitions; ValueError if it is empty."""
    chosen = numbers(name, given, n).tolist()
    if not chosen:
        raise ValueError(f"{name} must name at least one")
    return list(dict.fromkeys(chosen))


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Batches of sentences of similar length with at most this many tokens, padding included; empty ones are left out.

    A longer sentence is a batch by itself.
    """
    order = sorted((i for i, n in enumerate(lengths) if n), key=lambda i: lengths[i])
    batch: list[int] = []
    for i in order:
        # The longest comes last; the others are padded to its length.
        if batch and lengths[i] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def unit_rows(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors scaled to length 1; zeros stay."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return typing.cast("NDArray[np.float32]", rows / np.maximum(lengths, np.float32(1e-30)))


def word_means(states: Any, encoding: Encoding, how: WordPooling = "mean") -> Any:
    """Pool the hidden states of each word's tokens: (words, dim), like `states`; zeros for a word without a token.

    Parameters
    ----------
    states
        (tokens, dim), a tensor or an array of floats: the hidden states of the tokens of `encoding`, or ValueError.
    encoding
        The tokens and their words.
    how
        The "mean" of the hidden states of a word's tokens, their "max", the "first" or the "last" one.
    """
    one_of("how", how, typing.get_args(WordPooling))
    if len(states) != len(encoding):
        raise ValueError(f"{len(states)} hidden states for {len(encoding)} tokens")
    rows = torch.as_tensor(states)
    places = [(i, word) for i, word in enumerate(encoding.words) if word is not None]
    at = torch.tensor([i for i, _ in places], dtype=torch.int64, device=rows.device)
    words = torch.tensor([word for _, word in places], dtype=torch.int64, device=rows.device)
    means = pooled(rows[at], words, encoding.n_words, how)
    return means if isinstance(states, Tensor) else means.numpy()


def pooled(states: Tensor, units: Tensor, n: int, how: Pooling) -> Tensor:
    """One vector for each of `n` units, sentences or words, (n, ...), from the hidden states of tokens, (tokens, ...).

    `units` (tokens,) int64 has the unit of each token. `how` is as in `word_means`; "cls" is another name for "first".
    A unit without a token has zeros.
    """
    zeros, ones = states.new_zeros(n, *states.shape[1:]), [1] * (states.ndim - 1)
    if how == "mean":
        counts = torch.bincount(units, minlength=n).clamp(min=1)
        return zeros.index_add(0, units, states) / counts.to(states.dtype).reshape(-1, *ones)
    if how == "max":
        index = units.reshape(-1, *ones).expand_as(states)
        return zeros.scatter_reduce(0, index, states, "amax", include_self=False)
    places = torch.arange(len(units), device=units.device)
    nothing = places.new_full((n,), len(units))  # the row of zeros behind all tokens
    chosen = nothing.scatter_reduce(0, units, places, "amax" if how == "last" else "amin", include_self=False)
    return torch.cat([states, states.new_zeros(1, *states.shape[1:])])[chosen]


def pooled_texts(states: Tensor, lengths: Tensor, mode: str, skip: int = 0) -> Tensor:
    """One vector for each text, (B, ..., dim), from the hidden states of its tokens, (B, T, ..., dim).

    `lengths` (B,) are the tokens of each text, the first `skip` of which, a prompt's, are left out. `mode` is a pooling
    of `encode` or of sentence-transformers. A text without other tokens has zeros.
    """
    n, places = len(lengths), torch.arange(states.shape[1], device=states.device)
    inside = (places >= skip) & (places < lengths[:, None])
    own, texts = states[inside], inside.nonzero()[:, 0]
    ones = [1] * (states.ndim - 2)
    if mode == "weightedmean":
        weights = (places + 1).expand_as(inside)[inside].to(states.dtype).reshape(-1, *ones)
        return pooled(own * weights, texts, n, "mean") / pooled(weights, texts, n, "mean").clamp(min=1)
    if mode == "mean_sqrt_len_tokens":
        return pooled(own, texts, n, "mean") * inside.sum(1).sqrt().reshape(-1, *ones)
    return pooled(own, texts, n, "last" if mode == "lasttoken" else typing.cast("Pooling", mode))
