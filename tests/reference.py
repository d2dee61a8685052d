"""Slow oracles: each kernel's mathematics as the textbook has it, in plain Python and float64 NumPy."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from firth._core import (
    BLOCK_TOKENS,
    CURVATURE,
    GLOVE_LEAST_BLOCKS,
    GLOVE_MOST_BLOCKS,
    GLOVE_SLICE_ENTRIES,
    GLOVE_TILE_ENTRIES,
    GROUP,
    NEIGHBORS,
    POOL,
    ROUND_TOKENS,
    STRETCH_TOKENS,
    TARGETS,
)

_MASK = 2**64 - 1


# --- text -----------------------------------------------------------------------------------------------------------


def lines_of(data: bytes) -> list[str]:
    """The documents of a file: its lines, a last line end ending the last one."""
    lines = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").split("\n")
    return lines if lines[-1] else lines[:-1]


def lower_words(text: str) -> list[str]:
    """Words of word characters in lower case, character by character: no final sigma, no dotted i of two characters."""
    return re.findall(r"\w+", text.replace("\u0130", "i").replace("\u03a3", "\u03c3").lower())


def vocabulary_of(
    documents: Sequence[Sequence[str]], min_count: int = 1, max_size: int | None = None
) -> list[tuple[str, int]]:
    """Words and counts, the most frequent first, equally frequent ones by their UTF-8 bytes."""
    counts = Counter(word for document in documents for word in document)
    kept = [(word, n) for word, n in counts.items() if n >= min_count]
    return sorted(kept, key=lambda item: (-item[1], item[0].encode()))[:max_size]


# --- subwords -------------------------------------------------------------------------------------------------------


def subwords(word: bytes, min_n: int, max_n: int) -> list[bytes]:
    """The n-grams of "<word>" but the marks alone: those of the first character first, the shorter first."""
    characters = re.findall(rb"(?s).[\x80-\xbf]*", b"<" + word + b">")
    if word == b"</s>":
        return []
    return [
        b"".join(characters[i : i + n])
        for i in range(len(characters))
        for n in range(max(min_n, 1), max_n + 1)
        if i + n <= len(characters) and (n > 1 or 0 < i < len(characters) - 1)
    ]


def subword_hash(text: bytes) -> int:
    """FNV-1a of 32 bits, over bytes as signed chars."""
    h = 2166136261
    for byte in text:
        h = (h ^ (byte if byte < 128 else byte - 256) % 2**32) * 16777619 % 2**32
    return h


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


def logistic_gradient(hidden, targets, labels, learning_rate):
    """What each pair moves its rows by, along the other one, (n, m); and the loss."""
    gradient = hidden.dtype.type(learning_rate) * (labels[:, None] - expit(targets @ hidden.T))
    return gradient, logistic_loss(hidden, targets, labels)


def move_rows(vectors, context, hidden, targets, gradient):
    """Move the rows `hidden` of vectors and `targets` of context, in place.

    Rows may be named more than once: then they move by the sum of their moves, a hidden row with each of its.
    """
    before = context[targets].copy()
    moves = np.zeros_like(before)
    for i, row in enumerate(hidden):
        moves += np.outer(gradient[:, i], vectors[row])
        vectors[row] += gradient[:, i] @ before
    for j, row in enumerate(targets):
        context[row] += moves[j]


def logistic_step(vectors, context, hidden, targets, labels, learning_rate):
    """One step, in place, for the rows `hidden` of vectors and `targets` of context; returns the loss before."""
    gradient, loss = logistic_gradient(vectors[hidden], context[targets], labels, learning_rate)
    move_rows(vectors, context, hidden, targets, gradient)
    return loss


def word2vec(
    vectors,
    context,
    *,
    documents,
    keep,
    noise,
    bags,
    paths,
    cbow,
    cbow_mean,
    begin,
    end,
    epoch,
    epochs,
    window,
    negative,
    learning_rate,
    min_learning_rate,
    seed,
    deterministic=False,
):
    """The word2vec family over the centers in [begin, end) of the documents' tokens, in place.

    `noise` gives negatives, or `paths`, a (nodes, turns) for each word, the way through a tree; `bags`, if any, the
    rows that each word is made of. Returns loss, examples, centers. As the kernel has it, a step of plain skip-gram
    takes at most NEIGHBORS neighbors, each step with a draw of its own, and every step at most TARGETS targets. GROUP
    bags of rows, of neighboring centers in one stretch of tokens, predict a word each, with negatives that they share.
    `deterministic`: [begin, end) is one block, whose negatives come from a pool.
    """
    n_tokens = sum(map(len, documents))
    sampling, drawing = random_key(seed, 2 * epoch), random_key(seed, 2 * epoch + 1)

    pool = noise_pool(noise, drawing, begin) if deterministic and noise is not None else []

    def negatives(draw):
        numbers = [draw * negative + k for k in range(negative)]
        if deterministic:
            return [pool[(random_at(drawing, number & _MASK) >> 32) * POOL >> 32] for number in numbers]
        return [noise_word(noise, drawing, number) for number in numbers]

    def chosen_own(word):
        if paths is None:
            return [word], np.ones(1)
        nodes, turns = paths[word]
        return list(nodes), (np.array(turns) > 0).astype(vectors.dtype)

    def chosen(word, draw):
        targets, labels = chosen_own(word)
        others = [other for other in negatives(draw) if other != word] if paths is None else []
        return targets + others, np.append(labels, np.zeros(len(others)))

    def steps(targets, labels):
        groups = [slice(first, first + TARGETS) for first in range(0, len(targets), TARGETS)]
        return [(targets[group], labels[group]) for group in groups]

    def train_bags(group):
        """`group`: of each center the rows of its bag, whether their mean is taken, its (word, draw)s, its rate."""
        loss, rate = 0.0, group[0][3] if group else 0.0
        hidden = [vectors[rows].sum(axis=0) / vectors.dtype.type(len(rows) if mean else 1) for rows, mean, *_ in group]
        moved = [one.copy()[None] for one in hidden]
        for turn in range(max((len(predicted) for _, _, predicted, _ in group), default=0)):
            active = [(i, *predicted[turn]) for i, (_, _, predicted, _) in enumerate(group) if turn < len(predicted)]
            own = [chosen_own(word) for _, word, _ in active]
            shared = negatives(active[0][2]) if paths is None else []
            at = 0
            while any(own_targets for own_targets, _ in own) or at < len(shared):
                room = TARGETS - min(TARGETS, max(len(targets) for targets, _ in own))
                now, at = shared[at : at + room], at + room
                found = []
                for (i, word, _), (targets, labels) in zip(active, own, strict=True):
                    of_pairs = [
                        logistic_gradient(moved[i], context[rows], signs, rate)
                        for rows, signs in ((now, np.zeros(len(now))), (targets[:TARGETS], labels[:TARGETS]))
                    ]
                    of_pairs[0][0][[other == word for other in now]] = 0  # a word is not its own negative
                    apart = [other for other in now if other != word]
                    loss += logistic_loss(moved[i], context[apart], np.zeros(len(apart))) + of_pairs[1][1]
                    found.append((moved[i].copy(), *(gradient for gradient, _ in of_pairs)))
                before = context[now].copy()
                for (i, *_), (h, gradient, _) in zip(active, found, strict=True):
                    moved[i] += gradient.T @ before
                    for j, row in enumerate(now):
                        context[row] += gradient[j] * h[0]
                for (i, *_), (targets, _), (h, _, gradient) in zip(active, own, found, strict=True):
                    before = context[targets[:TARGETS]].copy()
                    moved[i] += gradient.T @ before
                    for j, row in enumerate(targets[:TARGETS]):
                        context[row] += gradient[j] * h[0]
                own = [(targets[TARGETS:], labels[TARGETS:]) for targets, labels in own]
        for (rows, mean, *_), before, after in zip(group, hidden, moved, strict=True):
            for row in rows:
                vectors[row] += (after[0] - before) / vectors.dtype.type(1 if mean else len(rows))
        return loss

    loss, examples, centers, start = 0.0, 0, 0, 0
    group, stretch = [], None
    for document in documents:
        positions = range(start, start + len(document))
        kept = [p for p in positions if random_at(sampling, p) % 2**32 <= keep[document[p - start]]]
        for i, p in enumerate(kept):
            if not begin <= p < end:
                continue
            centers += 1
            if len(group) == GROUP or p // STRETCH_TOKENS != stretch:
                loss += train_bags(group)
                group, stretch = [], p // STRETCH_TOKENS
            reach = 1 + ((random_at(sampling, p) >> 32) * window >> 32)
            before, behind = kept[max(0, i - reach) : i], kept[i + 1 : i + 1 + reach]
            near = [document[q - start] for q in before + behind]
            if not near:
                continue
            center = document[p - start]
            rate = learning_rate - (learning_rate - min_learning_rate) * (epoch * n_tokens + p) / (epochs * n_tokens)
            if not cbow and bags is None:
                for first in range(0, len(near), NEIGHBORS):
                    hidden, draw = near[first : first + NEIGHBORS], first // NEIGHBORS * n_tokens + p
                    for targets, labels in steps(*chosen(center, draw)):
                        loss += logistic_step(vectors, context, hidden, targets, labels, rate)
                examples += len(near)
                continue
            rows = [row for word in (near if cbow else [center]) for row in (bags[word] if bags else [word])]
            places = [j if j < len(before) else j + 1 for j in range(len(near))]  # in the window, the center included
            draws = [p] if cbow else [p * 2 * window + place for place in places]
            predicted = [center] if cbow else near
            group.append((rows, not cbow or cbow_mean, list(zip(predicted, draws, strict=True)), rate))
            examples += len(predicted)
        start += len(document)
    return loss + train_bags(group), examples, centers


def noise_word(noise, key, number):
    """Number `number` of the draws from an alias table."""
    bits = random_at(key, number & _MASK)
    cell = (bits >> 32) * len(noise) >> 32
    return cell if bits % 2**32 <= noise[cell][0] else int(noise[cell][1])


def noise_pool(noise, drawing, begin):
    """The negatives from which the block that begins at this token draws."""
    return [noise_word(noise, mix(drawing), begin * POOL + i) for i in range(POOL)]


def word2vec_rounds(vectors, context, *, begin, end, documents, **options):
    """The deterministic way: rounds of blocks of tokens, each from the round's start.

    A row moves by a share of the sum of the blocks' moves: where they pull it by x in all, (1 + x / blocks) / (1 + x).
    """
    n_tokens = sum(map(len, documents))
    tally = np.zeros(3)
    for start in range(-(-begin // ROUND_TOKENS) * ROUND_TOKENS, end, ROUND_TOKENS):
        before = vectors.copy(), context.copy()
        moves = np.zeros_like(vectors), np.zeros_like(context)
        pulls, blocks = [np.zeros(len(m)) for m in moves], [np.zeros(len(m)) for m in moves]
        for block in range(start, min(start + ROUND_TOKENS, n_tokens), BLOCK_TOKENS):
            own = before[0].copy(), before[1].copy()
            stop = min(block + BLOCK_TOKENS, n_tokens)
            tally += word2vec(*own, begin=block, end=stop, documents=documents, **{**options, "deterministic": True})
            for side, pulled in enumerate(block_pulls(len(vectors), len(context), block, stop, documents, **options)):
                moves[side][:] += own[side] - before[side]
                pulls[side] += pulled
                blocks[side] += pulled > 0
        for matrix, moved, pull, n in zip((vectors, context), moves, pulls, blocks, strict=True):
            share = (1 + pull / np.maximum(n, 1)) / (1 + pull)
            matrix += (share[:, None] * moved).astype(matrix.dtype)
    return tuple(tally)


def block_pulls(
    rows_in,
    rows_out,
    begin,
    end,
    documents,
    *,
    epoch,
    window,
    negative,
    learning_rate,
    seed,
    keep,
    noise,
    bags,
    paths,
    cbow,
    **_,
):
    """How much the block pulls each row of both matrices: CURVATURE times the learning rate for each expected pair.

    It counts the tokens that the block keeps and those that its windows can reach beside it.
    """
    sampling, drawing = random_key(seed, 2 * epoch), random_key(seed, 2 * epoch + 1)
    words, start = [], 0
    for document in documents:
        last = start + len(document)
        if start < end and begin < last:
            kept = [p for p in range(start, last) if random_at(sampling, p) % 2**32 <= keep[document[p - start]]]
            near = [p for p in kept if p < begin][-window:]
            near += [p for p in kept if begin <= p < end] + [p for p in kept if p >= end][:window]
            words += [document[p - start] for p in near]
        start = last
    targets = [1 + negative if paths is None else len(paths[word][0]) for word in words]
    inward, outward = np.zeros(rows_in), np.zeros(rows_out)
    for word in words:
        for row in bags[word] if bags else [word]:
            inward[row] += CURVATURE * learning_rate * (window + 1) * np.mean(targets)
        for row in paths[word][0] if paths is not None else [word]:
            outward[row] += CURVATURE * learning_rate * (1 if cbow else window + 1)
    if paths is None:
        for row in noise_pool(noise, drawing, begin):
            outward[row] += CURVATURE * learning_rate * (1 if cbow else window + 1) * negative * len(words) / POOL
    return inward, outward


def huffman(counts: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Each word's (nodes, turns) from its leaf to the root; inner nodes are numbered as they are made."""
    n = len(counts)
    # The lightest first; of equally light ones inner nodes before leaves, and later leaves before earlier ones.
    heap = [(count, 1, -i, i) for i, count in enumerate(counts)]
    parent, turn = {}, {}
    for node in range(n, 2 * n - 1):
        first, second = (heap.pop(heap.index(min(heap))) for _ in range(2))
        parent[first[3]] = parent[second[3]] = node
        turn[first[3]], turn[second[3]] = -1, 1
        heap.append((first[0] + second[0], 0, node, node))
    paths = []
    for leaf in range(n):
        at, nodes, turns = leaf, [], []
        while at in parent:
            nodes.append(parent[at] - n)
            turns.append(turn[at])
            at = parent[at]
        paths.append((nodes, turns))
    return paths


# --- quantization ---------------------------------------------------------------------------------------------------


def squared_distances(points, centroids):
    """(n, k) of points (n, d) and centroids (k, d)."""
    return ((points[:, None].astype(np.float64) - centroids[None].astype(np.float64)) ** 2).sum(axis=2)


# --- vectors --------------------------------------------------------------------------------------------------------


def cosines(matrix, queries):
    """Cosines (q, n) in float64; 0 with a vector of length 0, NaN with one that is not finite."""

    def unit(rows):
        rows = np.asarray(rows, np.float64)
        norms = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
        return rows / np.where(norms == 0, 1, norms)

    with np.errstate(invalid="ignore"):
        return unit(queries) @ unit(matrix).T


def topk(matrix, queries, k):
    """Rows (q, k) by falling cosine, equal ones by rising row, and their cosines; NaN last."""
    scores = cosines(matrix, queries)
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


def analogy_answer(matrix, a, b, c, n, method):
    """Row that best completes "a is to b as c is to ..." (Levy & Goldberg 2014, equations 3 and 5), row by row."""
    table = cosines(matrix[:n], matrix[[a, b, c]])
    best, answer = -np.inf, -1
    for row in range(n):
        cos_a, cos_b, cos_c = table[:, row]
        if method == "3cosadd":
            score = cos_b - cos_a + cos_c
        else:
            score = ((cos_b + 1) / 2) * ((cos_c + 1) / 2) / ((cos_a + 1) / 2 + 0.001)
        if row not in (a, b, c) and score > best:
            best, answer = score, row
    return answer


# ---- rows of numbers


def parse_rows(text, columns):
    """Words and float32 rows of lines "word number number ...", blanks in words allowed."""
    words, rows = [], []
    for line in text.decode().split("\n"):
        if not line.strip(" \t\r"):
            continue
        fields = line.strip(" \t\r").rsplit(" ", columns)
        words.append(fields[0])
        rows.append([np.float32(number) for number in fields[1:]])
    return words, np.array(rows, np.float32).reshape(len(words), columns)


# --- counts -----------------------------------------------------------------------------------------------------------


def cooccurrences(documents, n_words, window, side, weight):
    """The matrix (n_words, n_words) in float64: every pair of places by hand."""
    matrix = np.zeros((n_words, n_words))
    for document in documents:
        for i, word in enumerate(document):
            for j, near in enumerate(document):
                distance = abs(i - j)
                if 1 <= distance <= window and (side == "both" or (j < i) == (side == "left")):
                    matrix[word, near] += weight(distance)
    return matrix


# --- phrases ----------------------------------------------------------------------------------------------------------


def phrases(documents, min_count, threshold, scoring, connectors):
    """Score and count of each phrase, by its words: a word, connectors behind it, and the next word that is none."""
    n_tokens = sum(map(len, documents))
    words = Counter(word for document in documents for word in document)
    runs = Counter()
    for document in documents:
        for i, word in enumerate(document):
            end = next((j for j in range(i + 1, len(document)) if document[j] not in connectors), None)
            if word not in connectors and end is not None:
                runs[tuple(document[i : end + 1])] += 1
    found = {}
    for run, n in runs.items():
        a, b = words[run[0]], words[run[-1]]
        if scoring == "npmi":
            score = math.log((n / n_tokens) / ((a / n_tokens) * (b / n_tokens))) / -math.log(n / n_tokens)
        else:
            score = (n - min_count) / a / b * n_tokens
        if n >= min_count and score > threshold:
            found[run] = (score, n)
    return found


def merge_phrases(documents, found, connectors, delimiter):
    """Documents with the phrases that are found from left to right as single words."""
    merged = []
    for document in documents:
        text, i = [], 0
        while i < len(document):
            end = next((j for j in range(i + 1, len(document)) if document[j] not in connectors), i)
            run = tuple(document[i : end + 1])
            if len(run) < 2 or run not in found:
                run = run[:1]
            text.append(delimiter.join(run))
            i += len(run)
        merged.append(text)
    return merged


# --- GloVe ----------------------------------------------------------------------------------------------------------


def glove_blocks(nonzeros: Sequence[int]) -> list[int]:
    """Block of each row, or column: blocks of about equal non-zeros, of at most 2^16 rows.

    There are so many blocks that a tile has GLOVE_TILE_ENTRIES or less on average, within limits.
    """
    total, before, blocks, start = sum(nonzeros), 0, [0], 0
    wanted = math.ceil(math.sqrt(total / GLOVE_TILE_ENTRIES))
    wanted = min(max(wanted, GLOVE_LEAST_BLOCKS), GLOVE_MOST_BLOCKS)
    for row in range(1, len(nonzeros)):
        before += nonzeros[row - 1]
        new = before * wanted >= total * (blocks[-1] + 1) or row - start > 0xFFFF
        start = row if new else start
        blocks.append(blocks[-1] + new)
    return blocks


def glove_shuffled(things: Sequence, seed: int, stream: int) -> list:
    """The things in a random order."""
    order, key = list(things), random_key(seed, stream)
    for i in range(len(order), 1, -1):
        j = (random_at(key, i) >> 32) * i >> 32
        order[i - 1], order[j] = order[j], order[i - 1]
    return order


def glove_order(matrix, seed: int, epoch: int) -> list[tuple[int, int, float]]:
    """The non-zeros (row, column, x) of a CSR matrix in the order in which an epoch trains on them.

    Those of a tile, a block of rows by a block of columns, are dealt out at random to slices of about
    GLOVE_SLICE_ENTRIES. Slices are shuffled and put into rounds: each into the first that has no slice of the same
    block of rows or of columns. Rounds are shuffled.
    """
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    row_blocks = glove_blocks(np.diff(matrix.indptr).tolist())
    column_blocks = glove_blocks(np.bincount(matrix.indices, minlength=matrix.shape[1]).tolist())
    tiles = [(row_blocks[row], column_blocks[column]) for row, column in zip(rows, matrix.indices, strict=True)]
    sizes = Counter(tiles)
    slices: dict[tuple[int, int, int], list[tuple[int, int, float]]] = {
        (*tile, i): [] for tile in sorted(sizes) for i in range(-(-sizes[tile] // GLOVE_SLICE_ENTRIES))
    }
    dealing = random_key(seed, 1)
    for at, tile in enumerate(tiles):
        which = (random_at(dealing, at) >> 32) * -(-sizes[tile] // GLOVE_SLICE_ENTRIES) >> 32
        slices[(*tile, which)].append((int(rows[at]), int(matrix.indices[at]), float(matrix.data[at])))
    rounds: list[list[tuple[int, int, int]]] = []
    for name in glove_shuffled(slices, seed, 2):
        free = (one for one in rounds if all(name[0] != row and name[1] != column for row, column, _ in one))
        chosen = next(free, None)
        if chosen is None:
            rounds.append(chosen := [])
        chosen.append(name)
    return [entry for one in glove_shuffled(rounds, seed, 3 + epoch) for name in one for entry in slices[name]]


def glove_step(word, context, row, column, x, *, x_max, alpha, learning_rate, clip_value):
    """One step of the published program, in place; returns the cost before.

    `word` and `context` are (vectors (V, D), biases (V), sums of squares of both, from 1).
    """
    (w, b, w_squares, b_squares), (c, d, c_squares, d_squares) = word, context
    difference = w[row] @ c[column] + b[row] + d[column] - np.log(x)
    weighted = min(1.0, (x / x_max) ** alpha) * difference
    w_step = learning_rate * np.clip(weighted * c[column], -clip_value, clip_value)
    c_step = learning_rate * np.clip(weighted * w[row], -clip_value, clip_value)
    for vectors, squares, at, step in (
        (w, w_squares, row, w_step),
        (c, c_squares, column, c_step),
        (b, b_squares, row, weighted),  # biases learn at the rate 1, unclipped
        (d, d_squares, column, weighted),
    ):
        vectors[at] -= step / np.sqrt(squares[at])
        squares[at] += step**2
    return 0.5 * weighted * difference


# --- spectral ---------------------------------------------------------------------------------------------------------


def pmi(counts, shift, context_smoothing, positive):
    """PMI entry by entry (Levy, Goldberg & Dagan 2015, equation 3 and section 3.2); 0 for pairs that never met."""
    counts = np.asarray(counts, np.float64)
    smoothed = counts.sum(axis=0) ** context_smoothing * (counts.sum(axis=0) > 0)
    found = np.zeros(counts.shape)
    for i, j in zip(*np.nonzero(counts), strict=True):
        together = counts[i, j] / counts.sum()
        chance = counts[i].sum() / counts.sum() * smoothed[j] / smoothed.sum()
        found[i, j] = np.log(together / chance) - np.log(shift)
    return np.maximum(found, 0) if positive else found


def document_weights(documents, n_words, weighting):
    """What each word weighs in each document, (words, documents): tf-idf, or log-entropy (Dumais 1991)."""
    frequency = np.zeros((n_words, len(documents)))
    for j, document in enumerate(documents):
        for word in document:
            frequency[word, j] += 1
    found = np.zeros(frequency.shape)
    n = len(documents)
    for i, row in enumerate(frequency):
        if weighting == "tf-idf":
            found[i] = row * np.log(n / max((row > 0).sum(), 1))
        else:
            p = row[row > 0] / row.sum()
            found[i] = np.log(1 + row) * (1 + (p * np.log(p)).sum() / np.log(max(n, 2)))
    return found


def power_iteration_values(matrix, k, n_iter, oversampling):
    """Singular values by randomized subspace iteration (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1)."""
    basis = np.random.default_rng(0).standard_normal((matrix.shape[1], k + oversampling)).astype(matrix.dtype)
    for _ in range(n_iter):
        basis = np.linalg.qr(matrix.T @ np.linalg.qr(matrix @ basis)[0])[0]
    return np.linalg.svd(np.linalg.qr(matrix @ basis)[0].T @ matrix, compute_uv=False)[:k]


# --- classifier -----------------------------------------------------------------------------------------------------


def permuted_at(key: int, index: int, n: int) -> int:
    """Element `index` of a permutation of n: a Feistel network over an even number of bits that hold n - 1."""
    half = max(1, -(-(n - 1).bit_length() // 2))
    mask = 2**half - 1
    while True:
        for i in range(4):
            left, right = index >> half, index & mask
            index = right << half | (left ^ (random_at(key, 4 * right + i) & mask))
        if index < n:
            return index


def hash_word(word: bytes) -> int:
    """fastText's FNV-1a, which adds bytes as signed characters; the result as a signed 32-bit number."""
    h = 2166136261
    for byte in word:
        h = ((h ^ (byte - 256 if byte > 127 else byte) % 2**32) * 16777619) % 2**32
    return h - 2**32 if h >= 2**31 else h


def features_of(tokens, words, *, min_n, max_n, bucket, word_ngrams):
    """What a classifier looks at in a text: places of known words, and len(words) + the bucket of each n-gram."""
    found = []
    tokens = [*tokens, "</s>"]
    for token in tokens:
        if token in words:
            found.append(words.index(token))
        if token == "</s>" or max_n == 0:
            continue
        marked = f"<{token}>"
        for begin in range(len(marked)):
            for end in range(begin + min_n, min(begin + max_n, len(marked)) + 1):
                subword = marked[begin:end]
                found += [len(words) + hash_word(subword.encode()) % 2**32 % bucket] if subword not in "<>" else []
    hashes = [hash_word(token.encode()) for token in tokens]
    for i, h in enumerate(hashes):
        for other in hashes[i + 1 : i + word_ngrams]:
            h = (h * 116049371 + other) % 2**64
            found.append(len(words) + h % bucket)
    return found


def classifier_targets(label, position, n_labels, *, loss, seed, noise, negative, paths):
    """Rows of the outputs and their signs, for losses that look at some of the labels."""
    if loss == "hs":
        return paths[label]
    rows, signs = [label], [1]
    for k in range(negative):
        bits = random_at(random_key(seed, 4), position * negative + k)
        cell = (bits >> 32) * n_labels >> 32
        threshold, alias = noise[cell].tolist()
        other = cell if bits % 2**32 <= threshold else alias
        if other != label:
            rows.append(other)
            signs.append(-1)
    return rows, signs


def classifier_loss(hidden, outputs, labels, *, loss, targets=None):
    """The loss of one text, of which `labels` are the ones to be predicted: one of them, or all with "ova"."""
    if loss == "softmax":
        scores = outputs @ hidden
        return float(np.logaddexp.reduce(scores) - scores[labels[0]])
    if loss == "ova":
        rows, signs = np.arange(len(outputs)), np.where(np.isin(np.arange(len(outputs)), labels), 1, -1)
    else:
        rows, signs = map(np.array, targets)
    return float(np.logaddexp(0, -signs * (outputs[rows.astype(int)] @ hidden)).sum())


def classifier_step(rows, outputs, bag, own, rate, *, loss, targets):
    """A step along the gradient of `classifier_loss`, in place; the mean's goes to each row divided by their number."""
    hidden = rows[bag].mean(axis=0)
    at = np.arange(len(outputs))
    if loss == "softmax":
        scores = outputs @ hidden
        gradient = -np.exp(scores - np.logaddexp.reduce(scores))
        gradient[own] += 1
    else:
        at, signs = (at, np.where(np.isin(at, own), 1, -1)) if loss == "ova" else (np.array(x, int) for x in targets)
        gradient = signs * expit(-signs * (outputs[at] @ hidden))
    gradient = (rate * gradient).astype(rows.dtype)
    move = gradient @ outputs[at]
    np.add.at(outputs, at, np.outer(gradient, hidden))
    np.add.at(rows, bag, move / rows.dtype.type(len(bag)))


def classifier(
    rows, outputs, bags, labels, *, loss, epoch, epochs, learning_rate, seed,
    weights=None, label_weights=None, noise=None, negative=5, paths=None,
):  # fmt: skip
    """One epoch, in place; the loss summed and the texts trained.

    A text's hidden vector is the mean of its rows. A weight above 1 makes several steps of a text's, each of them of a
    weight of at most 1.
    """
    n, total, trained = len(bags), 0.0, 0
    for place in range(n):
        text = permuted_at(random_key(seed, 16 + epoch), place, n)
        position = epoch * n + place
        bag, own = bags[text], labels[text]
        if not bag or not own:
            continue
        if loss != "ova" and len(own) > 1:
            own = [own[(random_at(random_key(seed, 3), position) >> 32) * len(own) >> 32]]
        weight = 1 if weights is None else weights[text]
        if label_weights is not None:
            weight *= np.mean([label_weights[label] for label in own])
        targets = None
        if loss in ("ns", "hs"):
            targets = classifier_targets(
                own[0], position, len(outputs), loss=loss, seed=seed, noise=noise, negative=negative, paths=paths
            )
        total += classifier_loss(rows[bag].mean(axis=0), outputs, own, loss=loss, targets=targets)
        trained += 1
        steps = max(1, int(np.ceil(weight)))
        rate = learning_rate * (1 - position / (epochs * n)) * weight / steps
        for _ in range(steps):
            classifier_step(rows, outputs, bag, own, rate, loss=loss, targets=targets)
    return total, trained


def classifier_probabilities(rows, outputs, bags, *, loss, paths=None):
    """Probabilities (texts, labels); in a bag, -1 is a row of zeros and -2 nothing."""
    out = np.zeros((len(bags), len(outputs)))
    for i, bag in enumerate(bags):
        present = [row for row in bag if row >= 0]
        hidden = rows[present].sum(axis=0) / max(1, sum(row != -2 for row in bag))
        scores = outputs @ hidden
        if loss == "softmax":
            out[i] = np.exp(scores - np.logaddexp.reduce(scores))
        elif loss == "hs":
            out[i] = [np.prod([expit(t * scores[n]) for n, t in zip(*path, strict=True)]) for path in paths]
        else:
            out[i] = expit(scores)
    return out


# --- attention ------------------------------------------------------------------------------------------------------


def bfloat16(x):
    """Float32 numbers rounded to bf16, ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def attention_seen(shape, *, causal=False, window=None, lengths=None, mask=None, bias=None):
    """Which keys (B, H, Tq, Tk) are seen."""
    batches, _, n_queries, n_keys = shape
    position = np.arange(n_queries)[:, None] + n_keys - n_queries
    key = np.arange(n_keys)
    seen = np.ones(shape, bool)
    if causal:
        seen &= key <= position
    if window is not None:
        seen &= abs(position - key) <= window
    if lengths is not None:
        seen &= key < np.reshape(lengths, (batches, 1, 1, 1))
    if mask is not None:
        seen &= mask if mask.dtype == bool else mask != -np.inf
    if bias is not None:
        seen &= bias != -np.inf
    return seen


def attention_kept(shape, dropout=0.0, seed=0):
    """What dropout multiplies each weight by: 0 or 1 / (1 - dropout)."""
    if dropout == 0:
        return np.ones(shape)
    rows = np.prod(shape[:3], dtype=int)
    row = np.array([random_at(random_key(seed, 0), i) & 0xFFFFFFFF for i in range(rows)], np.uint32)
    x = np.arange(shape[3], dtype=np.uint32) * np.uint32(0x9E3779B1) + row[:, None]
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
    x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
    x ^= x >> np.uint32(16)
    stays = x.astype(np.uint64) >= int(float(np.float32(dropout)) * 2**32)
    return (stays / (1 - float(np.float32(dropout)))).reshape(shape)


def attention(
    q, k, v, *, bias=None, mask=None, alibi=None, scale=None, dropout=0.0, seed=0, number=np.float64, **seen
):  # fmt: skip
    """Output, log-sum-exp and weights (before dropout), a query at a time and of the keys it sees alone.

    `number` rounds whatever is computed: np.float32, or bfloat16, is what the textbook loses in it.
    """
    shape, n_keys = (*q.shape[:3], k.shape[2]), k.shape[2]
    group = q.shape[1] // max(k.shape[1], 1)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    seen, kept = attention_seen(shape, bias=bias, mask=mask, **seen), attention_kept(shape, dropout, seed)
    added = None if mask is None or mask.dtype == bool else np.broadcast_to(mask, shape)
    bias = None if bias is None else np.broadcast_to(bias, shape)
    q, k, v = number(q), number(k), number(v)
    out, lse, weights = np.zeros((*q.shape[:3], v.shape[3])), np.full(shape[:3], -np.inf), np.zeros(shape)
    for b, h, i in np.ndindex(*shape[:3]):
        keys = np.flatnonzero(seen[b, h, i])
        if not len(keys):
            continue
        scores = number((k[b, h // group, keys] * q[b, h, i]).sum(axis=1)) * number(scale)
        for term in (added, bias):
            if term is not None:
                scores = number(scores + number(term[b, h, i, keys]))
        if alibi is not None:
            scores = number(scores - number(alibi[h]) * abs(i + n_keys - shape[2] - keys))
        scores = number(scores)
        exponentials = number(np.exp(scores - scores.max()))
        weights[b, h, i, keys] = number(exponentials / exponentials.sum())
        lse[b, h, i] = scores.max() + np.log(exponentials.sum())
        stays = keys[kept[b, h, i, keys] > 0]  # what is dropped is not felt
        shares = number(weights[b, h, i, stays] * kept[b, h, i, stays])
        out[b, h, i] = number((shares[:, None] * v[b, h // group, stays]).sum(axis=0))
    return out, lse, weights


def attention_backward(
    grad_out, q, k, v, *, bias=None, mask=None, scale=None, dropout=0.0, seed=0, number=np.float64, **terms
):  # fmt: skip
    """Gradients of q, k, v and bias, from the weights."""
    out, _, weights = attention(
        q, k, v, bias=bias, mask=mask, scale=scale, dropout=dropout, seed=seed, number=number, **terms
    )  # fmt: skip
    terms.pop("alibi", None)
    seen = attention_seen(weights.shape, bias=bias, mask=mask, **terms)
    kept = attention_kept(weights.shape, dropout, seed)
    group = q.shape[1] // max(k.shape[1], 1)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    grad_out, q, k, v = number(grad_out), number(q), number(k), number(v)
    gq, gk, gv, slopes = (np.zeros(x.shape) for x in (q, k, v, weights))
    for b, h, i in np.ndindex(*weights.shape[:3]):
        keys, g = np.flatnonzero(seen[b, h, i]), h // group
        if not len(keys):
            continue
        p, stays = number(weights[b, h, i, keys]), number(kept[b, h, i, keys])
        gv[b, g, keys[stays > 0]] += number(np.outer((p * stays)[stays > 0], grad_out[b, h, i]))
        of_weights = number(np.where(stays > 0, (v[b, g, keys] * grad_out[b, h, i]).sum(axis=1) * stays, 0))
        slope = number(p * number(of_weights - number((number(out[b, h, i]) * grad_out[b, h, i]).sum())))
        slopes[b, h, i, keys] = slope
        gq[b, h, i] = number(number(scale) * (slope[:, None] * k[b, g, keys]).sum(axis=0))
        gk[b, g, keys] += number(number(scale) * np.outer(slope, q[b, h, i]))
    if bias is None:
        return gq, gk, gv, None
    wide = np.reshape(bias, (1,) * (4 - np.ndim(bias)) + np.shape(bias)).shape
    axes = tuple(axis for axis in range(4) if wide[axis] == 1 and slopes.shape[axis] != 1)
    return gq, gk, gv, slopes.sum(axis=axes, keepdims=True).reshape(np.shape(bias))


def attention_entropies(weights):
    """In nats, of the weights of each query."""
    return -np.sum(weights * np.log(np.where(weights > 0, weights, 1)), axis=-1)
