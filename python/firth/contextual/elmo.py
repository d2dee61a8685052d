"""ELMo: a language model of LSTMs in both directions over words spelt in characters, and mixtures of its layers.

Read from top to bottom as data flows: words to symbols, symbols to a vector for each word, vectors to states in both
directions, states to the next word; then `ELMo`, which trains and uses them.

Tensors are named by their axes: D directions (0 reads forward, 1 backward), B sentences, T places in them, U distinct
words, P numbers of the projection, H of the memory cell. The backward direction is computed on sentences turned round
within their own lengths, so that both directions read from place 0 on, both predict place t + 1 from place t, and one
loop over time serves them both.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from firth import corpus as corpora
from firth import files
from firth.checks import column, functions, real_number, whole_number
from firth.contextual.base import TrainedModel, checked_sentences, chosen_layers, read_description
from firth.contextual.data import paths_of
from firth.contextual.loop import Evaluation, train
from firth.contextual.processes import is_first_process
from firth.corpus import Corpus
from firth.models.base import fingerprint, one_at_a_time, option, records
from firth.vectors import Vectors

if TYPE_CHECKING:
    from typing_extensions import Self

# Symbols that words are spelt in: 0 is no symbol, 1 to 256 are the bytes of UTF-8.
_WORD_BEGINS, _WORD_ENDS, _TEXT_BEGINS, _TEXT_ENDS = 257, 258, 259, 260
_SYMBOLS = 261
# Words that are predicted, before those of the vocabulary: begin and end of a text, and whatever is too rare to have
# an id of its own.
_BEGIN, _END, _RARE = 0, 1, 2
_SPECIAL = 3
_CUTOFFS = (2_000, 10_000, 50_000)  # where the adaptive softmax's clusters end
_POOL = 50  # batches whose texts are sorted by length together: little padding, and still random company


# ---- Words to symbols ------------------------------------------------------------------------------------------------


class Speller:
    """Words as symbols: begin of word, the bytes of UTF-8, end of word.

    Parameters
    ----------
    words
        Rows 2 and up of the table; row 0 is the begin of a text, row 1 its end, as if they were words of one character
        that no word holds.
    max_characters
        Symbols in a word, its begin and end included; what a longer word has beyond is cut.
    """

    def __init__(self, words: Sequence[str], max_characters: int) -> None:
        # Lone surrogates are no text; they are spelt all the same.
        spelt = [word.encode(errors="surrogatepass")[: max_characters - 2] for word in words]
        self.lengths = np.array([3, 3, *(len(word) + 2 for word in spelt)], np.int64)
        self._starts = np.zeros(len(self.lengths), np.int64)
        np.cumsum(self.lengths[:-1], out=self._starts[1:])
        self._symbols = np.empty(self.lengths.sum(), np.int16)
        self._symbols[:6] = [_WORD_BEGINS, _TEXT_BEGINS, _WORD_ENDS, _WORD_BEGINS, _TEXT_ENDS, _WORD_ENDS]
        inside = np.ones(len(self._symbols), bool)
        inside[self._starts] = inside[self._starts + self.lengths - 1] = inside[:6] = False
        self._symbols[inside] = np.frombuffer(b"".join(spelt), np.uint8).astype(np.int16) + 1
        self._symbols[self._starts[2:]] = _WORD_BEGINS
        self._symbols[self._starts[2:] + self.lengths[2:] - 1] = _WORD_ENDS

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Symbols of these rows, (len(rows), the longest's), int64, 0 where a word has ended."""
        lengths = self.lengths[rows]
        places = np.arange(lengths.max())
        at = np.minimum(self._starts[rows][:, None] + places, len(self._symbols) - 1)
        return torch.from_numpy(np.where(places < lengths[:, None], self._symbols[at], 0).astype(np.int64))


# ---- Symbols to a vector for each word -------------------------------------------------------------------------------


class CharacterEncoder(nn.Module):
    """A word's vector from its spelling: convolutions, the maximum over places, highway layers, a projection.

    Kim, Jernite, Sontag & Rush (2016), section 2.2 and equation 8; with the projection of Józefowicz, Vinyals,
    Schuster, Shazeer & Wu (2016), section 3.2.

    Parameters
    ----------
    character_dim
        Numbers for each symbol.
    filters
        Pairs of a width in symbols and the number of filters of this width.
    highway
        Highway layers.
    projection
        P, numbers for each word.
    """

    def __init__(self, character_dim: int, filters: Sequence[tuple[int, int]], highway: int, projection: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(_SYMBOLS, character_dim, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(character_dim, n, width) for width, n in filters)
        size = sum(n for _, n in filters)
        self.highway = nn.ModuleList(nn.Linear(size, 2 * size) for _ in range(highway))
        self.projection = nn.Linear(size, projection)
        with torch.no_grad():
            for layer in self.highway:
                # At first a word goes through as it is (Srivastava, Greff & Schmidhuber 2015, section 2.2).
                cast(nn.Linear, layer).bias[size:] = -2.0

    def forward(self, symbols: Tensor) -> Tensor:
        """Vectors of words.

        Parameters
        ----------
        symbols
            (U, longest word), int64; 0 after a word's end.

        Returns
        -------
        Tensor
            (U, P). A word's vector does not depend on how far the words beside it are padded.
        """
        lengths = (symbols != 0).sum(1)
        widest = max(cast(nn.Conv1d, one).kernel_size[0] for one in self.convolutions)
        if symbols.shape[1] < widest:
            symbols = F.pad(symbols, (0, widest - symbols.shape[1]))
        x = self.characters(symbols).transpose(1, 2)
        pooled = []
        for convolution in self.convolutions:
            width = cast(nn.Conv1d, convolution).kernel_size[0]
            y = convolution(x)
            # Windows that lie within the word; in a word shorter than the filter, the one at its begin.
            windows = (lengths - width + 1).clamp(min=1)
            outside = torch.arange(y.shape[2], device=y.device) >= windows[:, None]
            pooled.append(y.masked_fill(outside[:, None], -torch.inf).amax(2))
        h = torch.relu(torch.cat(pooled, 1))
        for layer in self.highway:
            changed, gate = layer(h).chunk(2, 1)
            h = torch.lerp(h, torch.relu(changed), torch.sigmoid(gate))
        return cast(Tensor, self.projection(h))


# ---- Vectors to states in both directions ----------------------------------------------------------------------------


def _step(
    gates: Tensor, c: Tensor, recurrent: Tensor, project: Tensor, clips: tuple[float, float], h: Tensor
) -> Tensor:
    """One step of both directions in place; `gates` (D, B, 4H), `c` (D, B, H) the cells, `h` (D, B, P) the outputs.

    On entry `gates` holds the inputs' share, in the order input, forget, output, candidate.
    """
    size = c.shape[2]
    gates.baddbmm_(h, recurrent)
    i, f, o = gates[..., : 3 * size].sigmoid_().chunk(3, 2)
    candidate = gates[..., 3 * size :].tanh_()
    c.mul_(f).addcmul_(i, candidate).clamp_(-clips[0], clips[0])
    return torch.bmm(c.tanh().mul_(o), project).clamp_(-clips[1], clips[1])


class _Recurrence(torch.autograd.Function):
    """An LSTM with projection and clipping, both directions at once.

    torch's own LSTM has the projection but not the clipping. Here the two directions share each step's products, gates
    are made in the place of the inputs, and the weights' gradients are one product over all of time.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, recurrent: Tensor, project: Tensor, *clips: float
    ) -> Tensor:
        """Take x (D, T, B, inputs), weights (D, inputs or P, 4H) and (D, H, P), and give outputs (D, T, B, P)."""
        directions, steps, batch, _ = x.shape
        gates = torch.baddbmm(bias[:, None], x.flatten(1, 2), weight).view(directions, steps, batch, -1)
        cells = x.new_empty(directions, steps, batch, project.shape[1])
        outputs = x.new_empty(directions, steps, batch, project.shape[2])
        c, h = torch.zeros_like(cells[:, 0]), torch.zeros_like(outputs[:, 0])
        for t in range(steps):
            h = _step(gates[:, t], c, recurrent, project, cast("tuple[float, float]", clips), h)
            cells[:, t], outputs[:, t] = c, h
        ctx.save_for_backward(x, weight, recurrent, project, gates, cells, outputs)
        ctx.clips = clips
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Walk back through time; a number that was clipped passes no gradient."""
        x, weight, recurrent, project, gates, cells, outputs = ctx.saved_tensors
        cell_clip, projection_clip = ctx.clips
        steps, size = x.shape[1], project.shape[1]
        d_gates = torch.empty_like(gates)
        d_outputs = gradient.masked_fill(outputs.abs() >= projection_clip, 0)  # and later steps' shares, below
        exposed = torch.empty_like(cells)
        recurrent_t, project_t = recurrent.transpose(1, 2), project.transpose(1, 2)
        d_cell = torch.zeros_like(cells[:, 0])
        for t in range(steps - 1, -1, -1):
            d_h = d_outputs[:, t]
            if t + 1 < steps:
                later = torch.bmm(d_gates[:, t + 1], recurrent_t)
                d_h += later.masked_fill_(outputs[:, t].abs() >= projection_clip, 0)
            d_exposed = torch.bmm(d_h, project_t)
            sigmoids, candidate = gates[:, t, :, : 3 * size], gates[:, t, :, 3 * size :]
            i, f, o = sigmoids.chunk(3, 2)
            bent = cells[:, t].tanh()
            torch.mul(o, bent, out=exposed[:, t])
            d_cell.addcmul_(d_exposed * o, 1 - bent * bent)
            d_cell.masked_fill_(cells[:, t].abs() >= cell_clip, 0)
            d_sigmoids, d_candidate = d_gates[:, t, :, : 3 * size], d_gates[:, t, :, 3 * size :]
            torch.mul(d_cell, candidate, out=d_sigmoids[..., :size])
            if t:
                torch.mul(d_cell, cells[:, t - 1], out=d_sigmoids[..., size : 2 * size])
            else:
                d_sigmoids[..., size : 2 * size] = 0  # before the first step the cells are zero
            torch.mul(d_exposed, bent, out=d_sigmoids[..., 2 * size :])
            d_sigmoids.mul_(sigmoids).mul_(1 - sigmoids)
            torch.mul(d_cell * i, 1 - candidate * candidate, out=d_candidate)
            d_cell.mul_(f)
        flat = d_gates.flatten(1, 2)
        before = outputs[:, :-1].flatten(1, 2)
        return (
            torch.bmm(flat, weight.transpose(1, 2)).view_as(x),
            torch.bmm(x.flatten(1, 2).transpose(1, 2), flat),
            flat.sum(1),
            torch.bmm(before.transpose(1, 2), d_gates[:, 1:].flatten(1, 2)),
            torch.bmm(exposed.flatten(1, 2).transpose(1, 2), d_outputs.flatten(1, 2)),
            None,
            None,
        )


class BidirectionalLayer(nn.Module):
    """One LSTM for each direction, with projection (Sak, Senior & Beaufays 2014) and clipping.

    Parameters
    ----------
    inputs, hidden, projection
        Numbers of the input, of the memory cell (H), and of the output (P).
    cell_clip, projection_clip
        Cells and outputs are kept within these bounds, at every step.
    """

    def __init__(self, inputs: int, hidden: int, projection: int, *, cell_clip: float, projection_clip: float) -> None:
        super().__init__()
        self.cell_clip, self.projection_clip = cell_clip, projection_clip
        self.input = nn.Parameter(torch.randn(2, inputs, 4 * hidden) * inputs**-0.5)
        self.recurrent = nn.Parameter(torch.randn(2, projection, 4 * hidden) * projection**-0.5)
        self.project = nn.Parameter(torch.randn(2, hidden, projection) * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(2, 4 * hidden))
        with torch.no_grad():
            # At first memory is kept (Józefowicz, Zaremba & Sutskever 2015).
            self.bias[:, hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (D, T, B, P) of inputs (D, T, B, inputs), both in the order in which each direction reads."""
        clips = self.cell_clip, self.projection_clip
        # In the weights' own precision also under autocast: what is added up over a long sentence would be lost.
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.input.dtype)
            weights = self.input, self.bias, self.recurrent, self.project
            if torch.is_grad_enabled():
                return cast(Tensor, _Recurrence.apply(x, *weights, *clips))  # type: ignore[no-untyped-call]
            # Nothing is kept for a way back: a sentence of any length takes the memory of its outputs.
            outputs = x.new_empty(*x.shape[:3], self.project.shape[2])
            c, h = x.new_zeros(2, x.shape[2], self.project.shape[1]), torch.zeros_like(outputs[:, 0])
            for part, into in zip(torch.split(x, 64, 1), torch.split(outputs, 64, 1), strict=True):
                gates = torch.baddbmm(self.bias[:, None], part.flatten(1, 2), self.input).view(*part.shape[:3], -1)
                for t in range(part.shape[1]):
                    into[:, t] = h = _step(gates[:, t], c, self.recurrent, self.project, clips, h)
            return outputs


# ---- States to the next word -----------------------------------------------------------------------------------------


class WordSoftmax(nn.Module):
    """The probability of each word, given a state; words are ordered by count, the most frequent first.

    Parameters
    ----------
    words
        How many there are.
    dim
        Numbers of a state.
    kind
        "adaptive": rare words in clusters with shorter vectors (Grave, Joulin, Cissé, Grangier & Jégou 2017), exact
        in training too. "sampled": in training the word is told from `negatives` others drawn from the words'
        frequencies, the same for the whole batch (Józefowicz et al. 2016, section 3.1, equation 4); exact otherwise.
    negatives
        Of "sampled": with as many words or fewer nothing is drawn.
    counts
        Of "sampled": the words' frequencies, (words,).
    """

    def __init__(
        self, words: int, dim: int, *, kind: Literal["adaptive", "sampled"], negatives: int, counts: NDArray[Any]
    ) -> None:
        super().__init__()
        self.negatives = negatives
        # A cluster's vectors have a quarter of the numbers of those before: no cluster, where none would be left.
        cutoffs = [cutoff for i, cutoff in enumerate(_CUTOFFS, 1) if cutoff < words and dim >= 4**i]
        self.adaptive: nn.AdaptiveLogSoftmaxWithLoss | None = None
        if kind == "adaptive" and cutoffs:
            self.adaptive = nn.AdaptiveLogSoftmaxWithLoss(dim, words, cutoffs)
            return
        self.weight = nn.Parameter(torch.randn(words, dim) * dim**-0.5)
        self.bias = nn.Parameter(torch.zeros(words))
        if kind == "sampled" and negatives < words:
            share = torch.from_numpy(np.maximum(counts, 1.0) / np.maximum(counts, 1.0).sum())
            self.register_buffer("log_expected", (share * negatives).log().float(), persistent=False)
            self.register_buffer("cumulative", share.cumsum(0), persistent=False)

    def forward(self, states: Tensor, words: Tensor) -> Tensor:
        """Nats by which each word (n,) surprises, given the state (n, dim) before it: (n,)."""
        if self.adaptive is not None:
            return -cast(Tensor, self.adaptive(states, words).output)
        if self.training and hasattr(self, "cumulative"):
            return self._sampled(states, words)
        # 4,096 states at a time: a table of states by words is never larger than it must be.
        parts = [
            F.cross_entropy(F.linear(some, self.weight, self.bias).float(), targets, reduction="none")
            for some, targets in zip(torch.split(states, 4096), torch.split(words, 4096), strict=True)
        ]
        return torch.cat(parts)

    def _sampled(self, states: Tensor, words: Tensor) -> Tensor:
        cumulative, log_expected = cast(Tensor, self.cumulative), cast(Tensor, self.log_expected)
        uniform = torch.rand(self.negatives, dtype=cumulative.dtype, device=cumulative.device)
        drawn = torch.searchsorted(cumulative, uniform).clamp_(max=len(cumulative) - 1)
        # How often a word is expected among those drawn is taken off its score: otherwise scores would learn what a
        # word's chance is beyond its frequency.
        true = (states * self.weight[words]).sum(1) + self.bias[words] - log_expected[words]
        others = F.linear(states, self.weight[drawn], self.bias[drawn] - log_expected[drawn])
        others = others.masked_fill(drawn == words[:, None], -torch.inf)
        return torch.logaddexp(true, others.logsumexp(1)).float() - true.float()


# ---- The language model ----------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Texts of one step: which words they hold, by how the distinct ones are spelt.

    Attributes
    ----------
    symbols : (U, longest word) int64
        The distinct words' spelling.
    words : (B, T) int64
        Rows of `symbols`, begin and end of text included; any row after a text's end.
    lengths : (B,) int64
    targets : (B, T) int64 or None
        The words' ids among those that are predicted; None where nothing is.
    """

    symbols: Tensor
    words: Tensor
    lengths: Tensor
    targets: Tensor | None = None

    def to(self, device: str | torch.device) -> Batch:
        """The same on another device."""
        return Batch(*(None if one is None else one.to(device) for one in self))  # type: ignore[arg-type]


class BidirectionalLanguageModel(nn.Module):
    """The model of Peters et al. (2018), section 3.1: both directions share the words' vectors and the softmax.

    Its layers' states are (x; x), the words' vectors twice, and for each LSTM layer (forward; backward), 2P numbers.
    The second LSTM's input is added to its output.
    """

    def __init__(
        self,
        *,
        words: int,
        counts: NDArray[Any],
        character_dim: int,
        filters: Sequence[tuple[int, int]],
        highway: int,
        layers: int,
        hidden: int,
        projection: int,
        cell_clip: float,
        projection_clip: float,
        dropout: float,
        softmax: Literal["adaptive", "sampled"],
        negatives: int,
    ) -> None:
        super().__init__()
        self.encoder = CharacterEncoder(character_dim, filters, highway, projection)
        self.lstms = nn.ModuleList(
            BidirectionalLayer(projection, hidden, projection, cell_clip=cell_clip, projection_clip=projection_clip)
            for _ in range(layers)
        )
        self.softmax = WordSoftmax(words, projection, kind=softmax, negatives=negatives, counts=counts)
        self.dropout = dropout

    def _run(self, vectors: Tensor, lengths: Tensor) -> Iterator[Tensor]:
        """Each LSTM's states (D, T, B, P), in the order of reading, from the words' vectors (B, T, P)."""
        x = vectors.transpose(0, 1)
        x = torch.stack([x, _turned(x, lengths)])
        for i, lstm in enumerate(self.lstms):
            y = lstm(F.dropout(x, self.dropout, self.training))
            x = y + x if i else y
            yield x

    def forward(self, batch: Batch) -> list[Tensor]:
        """States of every layer, each (B, T, 2P), from the words' vectors up; what lies after a text's end is zero."""
        vectors = self.encoder(batch.symbols)[batch.words]
        states = [torch.cat([vectors, vectors], 2)]
        for x in self._run(vectors, batch.lengths):
            both = torch.cat([x[0], _turned(x[1], batch.lengths)], 2)
            states.append(both.transpose(0, 1))
        ended = torch.arange(batch.words.shape[1], device=batch.words.device) >= batch.lengths[:, None]
        return [state.masked_fill(ended[:, :, None], 0) for state in states]

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """The sum of the nats by which words surprise, in both directions, and how many of them are predicted.

        The objective of section 3.1, turned round in sign.
        """
        assert batch.targets is not None
        vectors = self.encoder(batch.symbols)[batch.words]
        *_, top = self._run(vectors, batch.lengths)
        targets = batch.targets.transpose(0, 1)
        targets = torch.stack([targets, _turned(targets, batch.lengths)])
        steps = torch.arange(1, targets.shape[1], device=targets.device)
        there = (steps[:, None] < batch.lengths).expand(2, -1, -1)
        states = F.dropout(top[:, :-1][there], self.dropout, self.training)
        return self.softmax(states, targets[:, 1:][there]).sum(), len(states)


def _turned(x: Tensor, lengths: Tensor) -> Tensor:
    """`x` (T, B, ...) with every text turned round within its own length; what lies after its end stays there."""
    places = torch.arange(len(x), device=x.device)[:, None]
    places = torch.where(places < lengths, lengths - 1 - places, places)
    return x[places, torch.arange(x.shape[1], device=x.device)]


class Mixture(nn.Module):
    """Layers mixed for a task: gamma times their mean by the softmax of learnt weights.

    Peters et al. (2018), equation 1 of section 3.2.

    Parameters
    ----------
    layers
        How many, the words' vectors among them.
    layer_norm
        Bring every layer to mean 0 and variance 1 over its numbers before it is weighed.
    """

    def __init__(self, layers: int, *, layer_norm: bool = False) -> None:
        super().__init__()
        self.layer_norm = layer_norm
        self.scores = nn.Parameter(torch.zeros(layers))
        self.gamma = nn.Parameter(torch.ones(1))

    @property
    def weights(self) -> Tensor:
        """s, (layers,): positive, of sum 1."""
        return torch.softmax(self.scores, 0)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """The mixture of as many states as there are layers, all of one shape (..., dim)."""
        if self.layer_norm:
            states = [F.layer_norm(state, state.shape[-1:]) for state in states]
        mixed = sum(weight * state for weight, state in zip(self.weights, states, strict=True))
        return cast(Tensor, self.gamma * mixed)


# ---- Texts to batches ------------------------------------------------------------------------------------------------


class TextBatches:
    """A corpus as an endless sequence of texts, of which those side by side have like lengths.

    A text stands between its begin and its end. One of more than `length` words is cut into pieces of which each
    begins with the last word of the one before, so that every word is predicted once in each direction and epoch.
    Which text comes when is a function of the seed, as `loop.train` requires.

    Parameters
    ----------
    corpus
        Its words are spelt; documents without words are left out.
    speller
        Of the corpus's words.
    targets
        What each of the corpus's words is predicted as, (words,).
    documents
        Rows of the corpus to learn from.
    held
        Rows of the corpus that are held out.
    batch_size, length
        Texts in a batch, and the most words in one.
    seed
        Of their order.
    """

    def __init__(
        self,
        corpus: Corpus,
        speller: Speller,
        targets: NDArray[np.int64],
        documents: NDArray[np.int64],
        held: NDArray[np.int64] | None = None,
        *,
        batch_size: int,
        length: int,
        seed: int,
    ) -> None:
        self.corpus, self.speller = corpus, speller
        self.targets = np.concatenate([[_BEGIN, _END], targets])
        self.batch_size, self.length, self.seed = batch_size, length, seed
        sizes = np.diff(corpus.offsets)[documents]
        documents, sizes = documents[sizes > 0], sizes[sizes > 0]
        pieces = -(-(sizes + 1) // length)
        self._document = np.repeat(documents, pieces)
        first = np.cumsum(pieces) - pieces
        self._start = (np.arange(len(self._document)) - np.repeat(first, pieces)) * length
        self._size = np.minimum(np.repeat(sizes, pieces) + 2 - self._start, length + 1)
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._held: TextBatches | None = None
        if held is not None and len(held):
            self._held = TextBatches(corpus, speller, targets, held, batch_size=batch_size, length=length, seed=seed)

    def __len__(self) -> int:
        """Texts, or pieces of texts, in an epoch."""
        return len(self._document)

    @property
    def words_per_text(self) -> int:
        """How many are predicted in each direction, on average."""
        return max(1, round(float(self._size.mean()) - 1))

    @property
    def fingerprint(self) -> list[int]:
        """What tells these texts from others. Reads the corpus once."""
        held = 0 if self._held is None else len(self._held)
        own = [len(self), held, self.batch_size, self.length, self.seed]
        return [*fingerprint(self.corpus), *own]

    def __call__(self, first: int, count: int) -> Batch:
        """Texts `first` to `first + count - 1` of all epochs."""
        epochs, places = np.divmod(np.arange(first, first + count), len(self))
        return self.batch(
            np.concatenate([self._order(epoch)[places[epochs == epoch]] for epoch in np.unique(epochs).tolist()])
        )

    def held_out(self, first: int, count: int) -> Batch | None:
        """Held-out texts from number `first` on; None if there are no more."""
        if self._held is None or first >= len(self._held):
            return None
        return self._held(first, min(count, len(self._held) - first))

    def in_order(self) -> Iterator[Batch]:
        """All texts once, by length."""
        order = np.argsort(self._size, kind="stable")
        for begin in range(0, len(order), self.batch_size):
            yield self.batch(order[begin : begin + self.batch_size])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Texts shuffled, sorted by length within pools of batches, and the batches shuffled."""
        if epoch not in self._orders:
            while len(self._orders) > 1:  # a batch may lie on the limit of two epochs
                self._orders.pop(next(iter(self._orders)))
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(len(self))
            pool = self.batch_size * _POOL
            for begin in range(0, len(order), pool):
                some = order[begin : begin + pool]
                order[begin : begin + pool] = some[np.argsort(self._size[some], kind="stable")]
            # Batches are counted through all epochs, so that the first one here may have begun in the one before. It
            # and the last one stay where they are: between them, what is shuffled is whole batches.
            head = min(-epoch * len(self) % self.batch_size, len(order))
            tail = head + (len(order) - head) // self.batch_size * self.batch_size
            whole = order[head:tail].reshape(-1, self.batch_size)
            order[head:tail] = whole[rng.permutation(len(whole))].reshape(-1)
            self._orders[epoch] = order
        return self._orders[epoch]

    def batch(self, texts: NDArray[np.int64]) -> Batch:
        """These texts, rows of the pieces, as a batch with targets."""
        sizes = self._size[texts]
        rows = np.zeros((len(texts), sizes.max()), np.int64)
        for i, text in enumerate(texts):
            begin, end = self.corpus.offsets[self._document[text] : self._document[text] + 2]
            start, stop = self._start[text], self._start[text] + sizes[i]
            # Of the document with its begin and end around it, places start to stop.
            words = self.corpus.ids[begin + max(start - 1, 0) : min(begin + stop - 1, end)]
            at = 1 if start == 0 else 0
            rows[i, at : at + len(words)] = words + 2
            if begin + stop - 1 > end:
                rows[i, sizes[i] - 1] = 1
        return _batch(self.speller, rows, sizes, self.targets)


def _batch(
    speller: Speller, rows: NDArray[np.int64], sizes: NDArray[np.int64], targets: NDArray[np.int64] | None = None
) -> Batch:
    """A batch of texts as rows of a speller (B, T): each distinct word is spelt, and later encoded, once."""
    distinct, words = np.unique(rows, return_inverse=True)
    return Batch(
        speller(distinct),
        torch.from_numpy(words.reshape(rows.shape)),
        torch.from_numpy(sizes),
        None if targets is None else torch.from_numpy(targets[rows]),
    )


# ---- The model -------------------------------------------------------------------------------------------------------

_BATCH_WORDS = 4096  # of a batch of sentences, padding included, when nothing is learnt
CONFIG, TENSORS = "config.json", "model.safetensors"  # the files of a folder
_CLASSES_SEED = 7919  # so that what is held out of labels is not what is held out of texts


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class ELMo(TrainedModel):
    """A state for each occurrence of a word, from language models of LSTMs that read from both ends.

    Peters, Neumann, Iyyer, Gardner, Clark, Lee & Zettlemoyer (2018). A word's vector comes from its characters, so that
    words never seen have one; two layers of LSTMs with projections read these forward, two backward; each direction
    predicts the next word in its order. The vectors and the layers' states, mixed with weights learnt for a task, are
    what the task is given.

    Parameters
    ----------
    vocabulary_size
        The most words that are predicted by themselves, the most frequent ones; all others are predicted as one rare
        word, and spelt like any.
    min_count
        Words that occur less often are rare.
    split
        How strings become words: "whitespace" splits at white space; "words" takes lower-cased runs of letters, digits
        and underscores. Lists of words are taken as they are.
    max_characters
        Bytes of a word that are seen, and two for its begin and end.
    character_dim, filters, highway
        Numbers for each character, pairs of a width in characters and the number of its filters, highway layers. The
        paper's: 16, 2,048 filters, 2.
    layers, hidden, projection
        LSTM layers in each direction, numbers of the memory cell, and P, numbers of a direction's states. The paper's:
        2, 4,096, 512.
    cell_clip, projection_clip
        Bounds of the memory cells and of the states.
    dropout
        Share of numbers dropped before each LSTM and before the softmax in training.
    softmax, negatives
        "adaptive" (Grave et al. 2017) or "sampled" with so many negatives for each batch; one or two thousand words are
        always predicted as a whole.
    epochs, steps
        Passes over the texts; or, if given, steps.
    batch_size, length
        Texts in a step, and the most words of one: longer ones are cut in training (never in `encode`).
    accumulate
        Batches whose gradients make one step.
    learning_rate, min_learning_rate, warmup, weight_decay, clip
        Of AdamW: the highest rate and the last (None: a tenth of it), steps until the highest (None: a twentieth of
        all), and the longest gradient (None: any).
    held_out
        Share of the texts that is not learnt from, for the perplexities in `history`.
    evaluate_every, evaluate_batches
        Steps between two evaluations (None: a twentieth of all), and batches of held-out texts that each looks at.
    device
        "cpu", "cuda", ...
    seed
        Same seed, same threads: the same model to the bit.
    threads
        None: as many as torch uses.

    Examples
    --------
    >>> elmo = ELMo(epochs=3).fit("mine.txt")
    >>> river, loan = elmo.encode(["the bank of the river", "a bank lends"], layer=2)
    >>> river.shape, loan.shape
    ((5, 256), (3, 256))
    """

    vocabulary_size: int = option(50_000, low=1, high=10_000_000)
    min_count: int = option(2, low=1, high=2**62)
    split: Literal["whitespace", "words"] = "whitespace"
    max_characters: int = option(50, low=3, high=10_000)
    character_dim: int = option(16, low=1, high=100_000)
    filters: tuple[tuple[int, int], ...] = dataclasses.field(
        default=((1, 16), (2, 16), (3, 32), (4, 64), (5, 64), (6, 64), (7, 64)), metadata={"checked_by_class": True}
    )
    highway: int = option(2, low=0, high=100)
    layers: int = option(2, low=1, high=100)
    hidden: int = option(512, low=1, high=1_000_000)
    projection: int = option(128, low=1, high=1_000_000)
    cell_clip: float = option(3.0, above=0, high=3e38)
    projection_clip: float = option(3.0, above=0, high=3e38)
    dropout: float = option(0.1, low=0, high=0.99)
    softmax: Literal["adaptive", "sampled"] = "adaptive"
    negatives: int = option(4096, low=1, high=10_000_000)
    epochs: float = option(5.0, above=0, high=1_000_000)
    length: int = option(64, low=1, high=1_000_000)
    learning_rate: float = option(2e-3, above=0, high=1e3)
    weight_decay: float = option(0.0, low=0, high=1e3)
    held_out: float = option(0.02, low=0, high=0.99)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.__dict__["filters"] = _filters(self.filters)
        self._network: BidirectionalLanguageModel | None = None
        self._words: list[str] = []
        self._counts = np.zeros(0, np.int64)
        self.mixture = Mixture(self.layers + 1)
        self.labels: list[str] = []
        self.classifier: nn.Linear | None = None
        self.score: float | None = None

    # ---- what was learnt

    @property
    def network(self) -> BidirectionalLanguageModel:
        """The torch module; ``elmo.network(elmo.batch(sentences))`` are the states of its layers, with gradients.

        Raises
        ------
        AttributeError
            Before `fit`.
        """
        if self._network is None:
            raise AttributeError("this ELMo has not been fitted: call fit(texts) first, or ELMo.load(folder)")
        return self._network

    def _module(self) -> BidirectionalLanguageModel:
        return self.network

    @property
    def vectors(self) -> Vectors:
        """Layer 0 of the words that are predicted: what a word's characters tell, the same in every sentence.

        Raises
        ------
        AttributeError
            Before `fit`.
        """
        network, speller = self.network, Speller(self._words, self.max_characters)
        rows = np.arange(2, len(self._words) + 2)
        with self._running():
            parts = [
                network.encoder(speller(rows[begin : begin + 1024]).to(self.device)).cpu().numpy()
                for begin in range(0, len(rows), 1024)
            ]
        return Vectors(self._words, np.concatenate([np.zeros((0, self.projection), np.float32), *parts]))

    def __repr__(self) -> str:
        shape = f"layers={self.layers}, hidden={self.hidden}, projection={self.projection}"
        return f"<ELMo {shape}, {f'{len(self._words):,} words' if self._network else 'not fitted'}>"

    # ---- learning

    @one_at_a_time
    def fit(
        self,
        data: Corpus | files.PathLike | Sequence[os.PathLike[str]] | Iterable[str] | Iterable[Sequence[str]],
        *,
        progress: bool = False,
        callbacks: Iterable[Callable[[Any], object]] = (),
        checkpoint: files.PathLike | None = None,
        resume: bool = False,
        pretrained: bool = False,
    ) -> Self:
        """Learn both language models: from the beginning, or from the weights that there are.

        Parameters
        ----------
        data
            Texts: strings, lists of words, the path of a file with one text in each line or a list of `Path`, or a
            `Corpus`. One made with ``min_count=1`` leaves no word out; which are too rare to be predicted by themselves
            is decided here.
        progress
            Show a bar on stderr.
        callbacks
            Functions called with the model after every evaluation; one that returns True ends the training there.
        checkpoint
            A folder for the state of the training, made if it is not there.
        resume
            Continue from the checkpoint where there is one, as if the training had not been interrupted.
        pretrained
            Begin with the weights that were read from a folder, or that an earlier `fit` has left, and predict the
            words that they do; ``ELMo.load(folder, learning_rate=1e-4, epochs=1)`` sets other options of training than
            the folder's.

        Returns
        -------
        Self
            The model, fitted; its mixture is the layers' mean again.

        Raises
        ------
        KeyboardInterrupt
            At Ctrl-C; the model is then as far as the training had come.
        TypeError
            If the data are none of these.
        ValueError
            If there is no word in them, or the checkpoint belongs to another training.
        FloatingPointError
            If the loss stops being finite, naming the step; the weights are then the last good ones.
        """
        progress = progress and is_first_process()
        self._begins_anew(pretrained)
        if pretrained and self._network is None:
            raise ValueError("pretrained=True, and this ELMo has no weights yet: ELMo.load(folder) reads some")
        called = functions("callbacks", callbacks)
        corpus = self._corpus(data, progress=progress)
        if corpus.n_tokens == 0:
            raise ValueError("there is no word in these texts")
        if pretrained:
            words, counts, targets = self._words, self._counts, self._own_targets(corpus)
        else:
            words, counts, targets = self._targets(corpus)
        learnt, held = self._split(corpus)
        speller = Speller(corpus.vocabulary.words, self.max_characters)

        batches = TextBatches(
            corpus,
            speller,
            targets,
            learnt,
            held,
            batch_size=self.batch_size,
            length=self.length,
            seed=self.seed,
        )
        schedule = self._schedule(len(batches), length=batches.words_per_text, betas=(0.9, 0.99), bf16=False)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = copy.deepcopy(self.network) if pretrained else self._new_network(counts)
            mixture = Mixture(self.layers + 1).to(self.device)
        before = self.__dict__.copy()
        self._network, self._words, self._counts = network, words, counts
        self.mixture, self.classifier, self.labels, self.score = mixture, None, [], None
        self.history = []

        try:
            with self._threaded():
                train(
                    network,
                    batches,
                    BidirectionalLanguageModel.loss,
                    schedule,
                    device=self.device,
                    progress=progress,
                    callbacks=[lambda _, one=one: one(self) for one in called],  # type: ignore[misc]
                    checkpoint=checkpoint,
                    resume=resume,
                    history=self.history,
                    options={**self.options, "device": None, "threads": None, "pretrained": pretrained},
                    name=type(self).__name__,
                )
        except (KeyboardInterrupt, FloatingPointError):
            raise  # what was learnt is kept
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)  # an earlier fit stays as it was
            raise
        finally:
            network.eval()
        return self

    def _corpus(self, data: Any, *, progress: bool) -> Corpus:
        if isinstance(data, Corpus):
            return data
        options: dict[str, Any] = {"min_count": 1, "tokenizer": self.split, "threads": self.threads}
        paths = paths_of(data)
        if paths is not None:
            return Corpus.from_file(paths, progress=progress, **options)
        if not isinstance(data, Iterable):
            raise TypeError(f"fit takes strings, lists of words, a path or a firth.Corpus, not {type(data).__name__}")
        # Lists of words need no splitting.
        texts = iter(column("texts", data))
        first = list(itertools.islice(texts, 1))
        if first and not isinstance(first[0], str):
            options["tokenizer"] = "whitespace"
        return Corpus.from_iterable(itertools.chain(first, texts), progress=progress, **options)

    def _targets(self, corpus: Corpus) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
        """Words that are predicted by themselves, counts of all that is predicted, and the target of each word."""
        counts = np.bincount(corpus.ids, minlength=len(corpus.vocabulary)).astype(np.int64)
        order = np.argsort(-counts, kind="stable")
        n = min(self.vocabulary_size, int((counts >= self.min_count).sum()))
        if n == 0:
            raise ValueError(
                f"no word occurs min_count={self.min_count} times, so all would be predicted as one rare word: give "
                "more text, or a lower min_count"
            )
        targets = np.full(len(counts), _RARE, np.int64)
        targets[order[:n]] = np.arange(_SPECIAL, _SPECIAL + n)
        texts = int((np.diff(corpus.offsets) > 0).sum())
        predicted = np.concatenate([[texts, texts, counts[order[n:]].sum()], counts[order[:n]]])
        return [corpus.vocabulary.words[i] for i in order[:n].tolist()], predicted, targets

    def _own_targets(self, corpus: Corpus) -> NDArray[np.int64]:
        """What each word of any corpus is predicted as by the model as it is."""
        ids = {word: i for i, word in enumerate(self._words, _SPECIAL)}
        return np.array([ids.get(word, _RARE) for word in corpus.vocabulary.words], np.int64)

    def _split(self, corpus: Corpus) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Documents to learn from, and those held out."""
        there = np.flatnonzero(np.diff(corpus.offsets) > 0)
        n = round(self.held_out * len(there))
        if self.held_out and len(there) > 1:
            n = min(max(n, 1), len(there) - 1)
        order = np.random.default_rng((self.seed, len(there))).permutation(len(there))
        return there[np.sort(order[n:])], there[np.sort(order[:n])]

    def _new_network(self, counts: NDArray[np.int64]) -> BidirectionalLanguageModel:
        return BidirectionalLanguageModel(
            words=len(counts),
            counts=counts,
            character_dim=self.character_dim,
            filters=self.filters,
            highway=self.highway,
            layers=self.layers,
            hidden=self.hidden,
            projection=self.projection,
            cell_clip=self.cell_clip,
            projection_clip=self.projection_clip,
            dropout=self.dropout,
            softmax=self.softmax,
            negatives=self.negatives,
        )

    def perplexity(self, texts: Corpus | files.PathLike | Iterable[str] | Iterable[Sequence[str]]) -> float:
        """Perplexity of texts, of both directions together: the exponential of the mean nats of a word.

        All their words count, a text's end (or begin) among them; rare words count as one word.

        Raises
        ------
        ValueError
            If there is no word in them.
        """
        corpus = self._corpus(texts, progress=False)
        if corpus.n_tokens == 0:
            raise ValueError("there is no word in these texts")
        batches = TextBatches(
            corpus,
            Speller(corpus.vocabulary.words, self.max_characters),
            self._own_targets(corpus),
            np.arange(len(corpus)),
            batch_size=self.batch_size,
            length=self.length,
            seed=0,
        )
        network, nats, predicted = self.network, 0.0, 0
        with self._running():
            for batch in batches.in_order():
                total, n = network.loss(batch.to(self.device))
                nats, predicted = nats + float(total), predicted + n
        return float(np.exp(nats / predicted))

    # ---- use

    def batch(self, sentences: Sequence[str | Sequence[str]]) -> Batch:
        """Sentences, strings or lists of words, as a batch for `network`: each with its begin and its end around it."""
        words = self._split_all(sentences)
        if not words:
            raise ValueError("a batch must hold a sentence at least")
        distinct = list(dict.fromkeys(word for sentence in words for word in sentence))
        rows_of = {word: row for row, word in enumerate(distinct, 2)}
        sizes = np.array([len(sentence) + 2 for sentence in words], np.int64)
        rows = np.zeros((len(words), sizes.max(initial=0)), np.int64)
        for i, sentence in enumerate(words):
            rows[i, 1 : sizes[i]] = [*map(rows_of.__getitem__, sentence), 1]
        return _batch(Speller(distinct, self.max_characters), rows, sizes).to(self.device)

    def encode(
        self,
        sentences: Sequence[str | Sequence[str]],
        *,
        layer: int | Literal["mixture", "all"] | Sequence[int | Literal["mixture"]] = "mixture",
        normalize: bool = False,
        progress: bool = False,
    ) -> list[NDArray[np.float32]]:
        """States of the words of sentences.

        Parameters
        ----------
        sentences
            Strings, split as the option says, or lists of words; of any length, also empty.
        layer
            0: the words' vectors, which do not depend on the sentence, twice; 1 to `layers`, or -1 for the last: an
            LSTM layer's states, forward then backward; "mixture": all of them, weighed as `fit_mixture` has learnt,
            before that their mean. A list of these, or "all" layers from 0 on, are computed in one pass.
        normalize
            Scale every state to length 1.
        progress
            Show a bar.

        Returns
        -------
        list of ndarray
            For each sentence float32 (words, 2 * projection); with a list of layers (layers, words, 2 * projection).

        Notes
        -----
        Sentences are run in the order of their lengths, so that little of a batch is padding; a state does not depend
        on what else is in its batch, but for rounding.
        """
        layers, single = chosen_layers(layer, self.layers, ("mixture",))
        words = self._split_all(sentences)
        nothing = np.zeros((len(layers), 0, 2 * self.projection), np.float32)
        found: list[NDArray[np.float32]] = [nothing[0] if single else nothing] * len(words)
        for rows, states in self._states(words, progress=progress):
            with self._running():
                chosen = torch.stack([self.mixture(states) if one == "mixture" else states[one] for one in layers], 1)
                if normalize:
                    chosen = F.normalize(chosen, dim=3)
            whole = chosen.cpu().numpy()
            for i, row in enumerate(rows):
                own = whole[i, :, 1 : len(words[row]) + 1]
                found[row] = (own[0] if single else own).copy()
        return found

    @one_at_a_time
    def fit_mixture(
        self,
        sentences: Sequence[str | Sequence[str]],
        labels: Sequence[Sequence[str | None]],
        *,
        layer_norm: bool = False,
        penalty: float = 1e-3,
        steps: int = 500,
        held_out: float = 0.1,
    ) -> Self:
        """Learn to weigh the layers for a task: labels of words, by one linear layer over the mixture.

        The language models stay as they are. `mixture` then holds the weights, `classifier` the linear layer, `labels`
        the names of its classes, `score` the share of held-out words labeled right.

        Parameters
        ----------
        sentences
            As for `encode`.
        labels
            For each sentence one label a word, None where a word has none.
        layer_norm
            Bring every layer to mean 0 and variance 1 before it is weighed.
        penalty
            Of the squares of the linear layer's weights.
        steps
            Of Adam, on all words at once.
        held_out
            Share of the sentences that is not learnt from; 0: none, and no `score`.

        Returns
        -------
        Self

        Raises
        ------
        TypeError
            If a label is neither a string nor None.
        ValueError
            If labels and words differ in number, naming the sentence, or fewer than two labels are different.
        """
        words = self._split_all(sentences)
        labels = [list(column(f"labels[{i}]", own)) for i, own in enumerate(column("labels", labels))]
        if len(labels) != len(words):
            raise ValueError(f"{len(words)} sentences and labels for {len(labels)}")
        for i, (sentence, own) in enumerate(zip(words, labels, strict=True)):
            if len(sentence) != len(own):
                raise ValueError(f"sentences[{i}] has {len(sentence)} words and {len(own)} labels")
            for label in own:
                if label is not None and not isinstance(label, str):
                    raise TypeError(f"labels[{i}] holds {label!r}: a label must be a str, or None")
        names = sorted({label for own in labels for label in own if label is not None})
        if len(names) < 2:
            raise ValueError(f"there must be two different labels at least, not {len(names)}")
        whole_number("steps", steps, low=1)
        real_number("penalty", penalty, low=0)
        if real_number("held_out", held_out, low=0) >= 1:
            raise ValueError(f"held_out must be below 1, not {held_out}")
        ids = {name: i for i, name in enumerate(names)}
        order = np.random.default_rng((self.seed, _CLASSES_SEED)).permutation(len(words))
        held = set(order[: round(held_out * len(words))].tolist())
        collected: list[list[Tensor]] = [[] for _ in range(self.layers + 1)]
        classes: list[int] = []
        testing: list[bool] = []
        for rows, states in self._states(words):
            for i, row in enumerate(rows):
                places = [place for place, label in enumerate(labels[row]) if label is not None]
                classes += [ids[cast(str, labels[row][place])] for place in places]
                testing += [row in held] * len(places)
                at = torch.tensor(places, dtype=torch.int64, device=states[0].device) + 1
                for layer, state in zip(collected, states, strict=True):
                    layer.append(state[i, at])
        x = [torch.cat(layer) for layer in collected]
        y, test = torch.tensor(classes, device=x[0].device), torch.tensor(testing, device=x[0].device)
        if len(set(y[~test].tolist())) < 2:
            raise ValueError(f"held_out={held_out} leaves sentences of a single label, or of none, to learn from")
        mixture = Mixture(self.layers + 1, layer_norm=layer_norm).to(x[0].device)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(self.seed)
            classifier = nn.Linear(2 * self.projection, len(names), device=x[0].device)
            optimizer = torch.optim.Adam([*mixture.parameters(), *classifier.parameters()], lr=0.02)
            kept = [layer[~test] for layer in x]
            for _ in range(steps):
                optimizer.zero_grad()
                loss = F.cross_entropy(classifier(mixture(kept)), y[~test])
                torch.autograd.backward(loss + penalty * classifier.weight.square().sum())
                optimizer.step()
        self.mixture, self.classifier, self.labels = mixture, classifier, names
        with torch.no_grad():
            right = classifier(mixture([layer[test] for layer in x])).argmax(1) == y[test]
        self.score = float(right.float().mean()) if len(right) else None
        return self

    def predict(self, sentences: Sequence[str | Sequence[str]]) -> list[list[str]]:
        """The likeliest label of every word, after `fit_mixture`.

        Raises
        ------
        AttributeError
            Before `fit_mixture`.
        """
        if self.classifier is None:
            raise AttributeError("this ELMo has learnt no labels: call fit_mixture(sentences, labels) first")
        weight, bias = (one.detach().cpu().numpy() for one in (self.classifier.weight, self.classifier.bias))
        return [[self.labels[i] for i in (state @ weight.T + bias).argmax(1)] for state in self.encode(sentences)]

    def _split_all(self, sentences: Sequence[str | Sequence[str]]) -> list[list[str]]:
        split = _runs_of_letters if self.split == "words" else str.split
        return [split(one) if isinstance(one, str) else one for one in checked_sentences(sentences)]

    def _states(
        self, words: Sequence[Sequence[str]], *, progress: bool = False
    ) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Sentences of like length at a time: which ones, and the states of each layer with begin and end."""
        network = self.network
        order = [row for row in sorted(range(len(words)), key=lambda row: len(words[row])) if words[row]]
        with tqdm(total=len(order), desc="encode", unit=" sentences", disable=not progress) as bar:
            while order:
                # The longest first: what does not fit memory is found out at once.
                n = max(1, _BATCH_WORDS // (len(words[order[-1]]) + 2))
                rows, order = order[-n:], order[:-n]
                with self._running():
                    states = network(self.batch([words[row] for row in rows]))
                yield rows, states
                bar.update(len(rows))

    # ---- files

    def save(self, path: files.PathLike) -> None:
        """Write a folder, which `ELMo.load` reads: config.json and model.safetensors, whole or not at all.

        Parameters
        ----------
        path
            The folder; made, if it is not there.

        Raises
        ------
        AttributeError
            Before `fit`.
        OSError
            If it cannot be written.
        """
        modules = {"network": self.network, "mixture": self.mixture}
        if self.classifier is not None:
            modules["classifier"] = self.classifier
        self._check_finite(*modules.values())
        tensors = {
            f"{name}.{key}": tensor.detach().cpu().numpy()
            for name, module in modules.items()
            for key, tensor in module.state_dict().items()
        }
        tensors |= {**files.pack_words(self._words), "counts": self._counts}
        with self._saving(path) as folder:
            files.write_tensors(folder / TENSORS, tensors, {"format": "pt"})
            (folder / CONFIG).write_text(json.dumps(self._description(), indent=1) + "\n", encoding="utf-8")

    def _description(self) -> dict[str, Any]:
        return {
            "format": "firth contextual",
            "version": files.VERSION,
            **super()._description(),
            "labels": self.labels,
            "score": self.score,
            "layer_norm": self.mixture.layer_norm,
        }

    @classmethod
    def load(cls, path: files.PathLike, *, device: str = "cpu", **options: Any) -> Self:
        """Read a folder that `save` wrote.

        Parameters
        ----------
        path
            The folder.
        device
            Where the model shall run.
        options
            Options of training for ``fit(..., pretrained=True)``, such as `learning_rate` or `epochs`, instead of those
            that the folder was saved with.

        Raises
        ------
        OSError
            If a file is not there.
        TypeError
            If an option is none of training.
        ValueError
            If the folder holds something else, is damaged, or was written by a newer version.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is no folder with {CONFIG} and {TENSORS} in it")
        training = {field.name for field in dataclasses.fields(TrainedModel)} | {"length"}
        for name in options:
            if name not in training:
                raise TypeError(f"{name} is no option of training: the folder says what a model is")
        described = read_description(folder / CONFIG, cls.__name__)
        tensors, _ = files.read_tensors(folder / TENSORS)
        try:
            cls(**described["options"])  # what is wrong here is the folder's fault, what is wrong below the caller's
            model = cls(**{**described["options"], "device": device, **options})
            model._restore(tensors, described)
        except (KeyError, TypeError, RuntimeError, UnicodeDecodeError) as error:
            raise ValueError(f"{folder} is damaged, or of another version of firth: {error}") from None
        return model

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        def own(name: str) -> dict[str, Tensor]:
            return {
                key.removeprefix(f"{name}."): torch.from_numpy(tensor)
                for key, tensor in tensors.items()
                if key.startswith(f"{name}.")
            }

        self._words, self._counts = files.unpack_words(tensors), tensors["counts"]
        if len(self._counts) != len(self._words) + _SPECIAL:
            raise TypeError(f"{len(self._counts)} counts for {len(self._words)} words")
        self.history = records(metadata["history"], Evaluation, may_be_nan=("held_out", "perplexity", "score"))
        network = self._new_network(self._counts)
        network.load_state_dict(own("network"))
        self._network = network.to(self.device).eval()
        self._from_folder = True
        self.mixture = Mixture(self.layers + 1, layer_norm=metadata["layer_norm"])
        self.mixture.load_state_dict(own("mixture"))
        self.mixture.to(self.device)
        self.labels, self.score = metadata["labels"], metadata["score"]
        if self.labels:
            self.classifier = nn.Linear(2 * self.projection, len(self.labels), device=self.device)
            self.classifier.load_state_dict(own("classifier"))


def _runs_of_letters(text: str) -> list[str]:
    """The words of a string as `Corpus` finds them for tokenizer="words"."""
    table = corpora._lower_table()
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    lower = np.where(codes < len(table), table[np.minimum(codes, len(table) - 1)], 0)
    return np.where(lower > 0, lower, ord(" ")).astype("<u4").tobytes().decode("utf-32-le").split()


def _filters(given: Any) -> tuple[tuple[int, int], ...]:
    """Pairs of a width and a number, looked at."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"filters must be pairs of a width and a number, such as ((1, 16), (2, 32)), not {given!r}")
    found = []
    for i, pair in enumerate(given):
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise TypeError(f"filters[{i}] must be a pair of a width and a number, not {pair!r}")
        found.append(
            (whole_number(f"filters[{i}][0]", pair[0], low=1), whole_number(f"filters[{i}][1]", pair[1], low=1))
        )
    if not found:
        raise ValueError("filters must hold a pair of a width and a number at least")
    return tuple(found)
