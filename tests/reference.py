"""Slow oracles: each kernel's mathematics as the textbook has it, in plain Python and float64 NumPy."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

_MASK = 2**64 - 1


# --- random numbers -------------------------------------------------------------------------------------------------


def mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def random_at(key: int, index: int) -> int:
    return mix((key + (index + 1) * 0x9E3779B97F4A7C15) & _MASK)


def random_key(seed: int, stream: int) -> int:
    return random_at(mix(seed ^ 0xD1B54A32D192ED03), stream)


# --- word2vec -------------------------------------------------------------------------------------------------------


def logistic_loss(hidden, targets, labels):
    """Sum over all pairs of -log sigma(+-h.t): hidden (m, D), targets (n, D), labels (n) of 0 or 1."""
    return float(np.logaddexp(0, -(2 * labels - 1)[:, None] * (targets @ hidden.T)).sum())


def logistic_step(vectors, context, hidden, targets, labels, learning_rate):
    """One gradient step, in place, for the rows `hidden` of vectors and `targets` of context; returns the loss before.

    Rows may be named more than once: then they move by the sum of their moves, a hidden row with each of its.
    """
    dots = context[targets] @ vectors[hidden].T
    gradient = vectors.dtype.type(learning_rate) * (labels[:, None] - expit(dots))  # (n, m)
    before = context[targets].copy()
    moves = np.zeros_like(before)
    loss = logistic_loss(vectors[hidden], before, labels)
    for i, row in enumerate(hidden):
        moves += np.outer(gradient[:, i], vectors[row])
        vectors[row] += gradient[:, i] @ before
    for j, row in enumerate(targets):
        context[row] += moves[j]
    return loss


def skipgram(
    vectors,
    context,
    *,
    documents,
    keep,
    noise,
    begin,
    end,
    epoch,
    epochs,
    window,
    negative,
    learning_rate,
    min_learning_rate,
    seed,
):
    """Skip-gram with negative sampling over the centres in [begin, end) of the documents' tokens, in place.

    Returns loss, examples, centres. Negatives come in groups of at most six targets with the centre, each group one
    step, as the kernel has it.
    """
    n_tokens = sum(map(len, documents))
    sampling, drawing = random_key(seed, 2 * epoch), random_key(seed, 2 * epoch + 1)
    loss, examples, centres, start = 0.0, 0, 0, 0
    for document in documents:
        positions = range(start, start + len(document))
        kept = [p for p in positions if random_at(sampling, p) % 2**32 <= keep[document[p - start]]]
        for i, p in enumerate(kept):
            if not begin <= p < end:
                continue
            centres += 1
            reach = 1 + ((random_at(sampling, p) >> 32) * window >> 32)
            near = [document[q - start] for q in kept[max(0, i - reach) : i] + kept[i + 1 : i + 1 + reach]]
            if not near:
                continue
            centre = document[p - start]
            targets = [centre]
            for k in range(negative):
                bits = random_at(drawing, p * negative + k)
                cell = (bits >> 32) * len(noise) >> 32
                word = cell if bits % 2**32 <= noise[cell][0] else int(noise[cell][1])
                if word != centre:
                    targets.append(word)
            rate = learning_rate - (learning_rate - min_learning_rate) * (epoch * n_tokens + p) / (epochs * n_tokens)
            labels = np.array([1.0] + [0.0] * (len(targets) - 1), vectors.dtype)
            for first in range(0, len(targets), 6):
                group = slice(first, first + 6)
                loss += logistic_step(vectors, context, near, targets[group], labels[group], rate)
            examples += len(near)
        start += len(document)
    return loss, examples, centres
