"""The torch modules of ELMo, and their batches.

In the order of the data: words to symbols, symbols to a vector for each word, vectors to hidden states in both
directions, hidden states to the next word; then corpora as batches.

Tensors are named by their axes: D directions (0 reads forward, 1 backward), B sentences, T places in them, U distinct
words, P dimensions of the projection, H of the memory cell. The backward direction reads sentences reversed within
their own lengths. Thus both directions start at place 0, both predict place t + 1 from place t, and one loop over time
serves both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from firth.corpus import Corpus
from firth.run import fingerprint

# Symbols of a word: 0 is padding, 1 to 256 are the bytes of UTF-8.
_WORD_BEGINS, _WORD_ENDS, _TEXT_BEGINS, _TEXT_ENDS = 257, 258, 259, 260
_SYMBOLS = 261
# Targets before those of the vocabulary: begin and end of a text, and all words too rare for an id of their own.
_BEGIN, _END, RARE = 0, 1, 2
SPECIAL = 3
_CUTOFFS = (2_000, 10_000, 50_000)  # where the adaptive softmax's clusters end
_POOL = 50  # batches whose texts are sorted by length together: little padding, and still random batches


# ---- Words to symbols ------------------------------------------------------------------------------------------------


class Speller:
    """Words as symbols: begin of word, at most `max_characters` - 2 bytes of UTF-8, end of word.

    Rows 0 and 1 are the begin and the end of a text, as words of one symbol that no word holds; `words` follow.
    """

    def __init__(self, words: Sequence[str], max_characters: int) -> None:
        # Lone surrogates are kept as bytes too.
        spelled = [word.encode(errors="surrogatepass")[: max_characters - 2] for word in words]
        self.lengths = np.array([3, 3, *(len(word) + 2 for word in spelled)], np.int64)
        self._starts = np.zeros(len(self.lengths), np.int64)
        np.cumsum(self.lengths[:-1], out=self._starts[1:])
        self._symbols = np.empty(self.lengths.sum(), np.int16)
        self._symbols[:6] = [_WORD_BEGINS, _TEXT_BEGINS, _WORD_ENDS, _WORD_BEGINS, _TEXT_ENDS, _WORD_ENDS]
        inside = np.ones(len(self._symbols), bool)
        inside[self._starts] = inside[self._starts + self.lengths - 1] = inside[:6] = False
        self._symbols[inside] = np.frombuffer(b"".join(spelled), np.uint8).astype(np.int16) + 1
        self._symbols[self._starts[2:]] = _WORD_BEGINS
        self._symbols[self._starts[2:] + self.lengths[2:] - 1] = _WORD_ENDS

    def __call__(self, rows: NDArray[np.int64]) -> Tensor:
        """Symbols of these rows, (len(rows), length of the longest), int64, 0 after the end of a word."""
        lengths = self.lengths[rows]
        places = np.arange(lengths.max())
        at = np.minimum(self._starts[rows][:, None] + places, len(self._symbols) - 1)
        return torch.from_numpy(np.where(places < lengths[:, None], self._symbols[at], 0).astype(np.int64))


# ---- Symbols to a vector for each word -------------------------------------------------------------------------------


class CharacterEncoder(nn.Module):
    """A word's vector from its characters: convolutions, the maximum over places, highway layers, a projection.

    Kim, Jernite, Sontag & Rush (2016), section 2.2 and equation 8; with the projection of Józefowicz, Vinyals,
    Schuster, Shazeer & Wu (2016), section 3.2. Parameters are those of `ELMo`, in symbols.
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
                # Initially the layer copies its input (Srivastava, Greff & Schmidhuber 2015, section 2.2).
                cast(nn.Linear, layer).bias[size:] = -2.0

    def forward(self, symbols: Tensor) -> Tensor:
        """Vectors of words, (U, P), from their symbols, (U, longest word) int64, with 0 after a word's end.

        A word's vector does not depend on the padding.
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
            # Windows within the word; in a word shorter than the filter, the first one.
            windows = (lengths - width + 1).clamp(min=1)
            outside = torch.arange(y.shape[2], device=y.device) >= windows[:, None]
            pooled.append(y.masked_fill(outside[:, None], -torch.inf).amax(2))
        h = torch.relu(torch.cat(pooled, 1))
        for layer in self.highway:
            changed, gate = layer(h).chunk(2, 1)
            h = torch.lerp(h, torch.relu(changed), torch.sigmoid(gate))
        return cast(Tensor, self.projection(h))


# ---- Vectors to hidden states in both directions ---------------------------------------------------------------------


def _step(
    gates: Tensor, c: Tensor, recurrent: Tensor, project: Tensor, clips: tuple[float, float], h: Tensor
) -> Tensor:
    """One step of both directions in place; `gates` (D, B, 4H), `c` (D, B, H) the cells, `h` (D, B, P) the outputs.

    On entry `gates` holds the contribution of the inputs, in the order input, forget, output, candidate.
    """
    size = c.shape[2]
    gates.baddbmm_(h, recurrent)
    i, f, o = gates[..., : 3 * size].sigmoid_().chunk(3, 2)
    candidate = gates[..., 3 * size :].tanh_()
    c.mul_(f).addcmul_(i, candidate).clamp_(-clips[0], clips[0])
    return torch.bmm(c.tanh().mul_(o), project).clamp_(-clips[1], clips[1])


class _Recurrence(torch.autograd.Function):
    """An LSTM with projection and clipping, both directions at once.

    torch's own LSTM has the projection but not the clipping. Here both directions share each step's products, the gates
    overwrite the inputs' contributions, and each weight's gradient is one product over all of time.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, recurrent: Tensor, project: Tensor, *clips: float
    ) -> Tensor:
        """Outputs (D, T, B, P) of x (D, T, B, inputs), with weights (D, inputs or P, 4H) and (D, H, P)."""
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
        """Gradients, backward through time; clipped numbers have none."""
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
    """One LSTM for each direction, with projection (Sak, Senior & Beaufays 2014) and clipping of cells and outputs."""

    def __init__(self, inputs: int, hidden: int, projection: int, *, cell_clip: float, projection_clip: float) -> None:
        super().__init__()
        self.cell_clip, self.projection_clip = cell_clip, projection_clip
        self.input = nn.Parameter(torch.randn(2, inputs, 4 * hidden) * inputs**-0.5)
        self.recurrent = nn.Parameter(torch.randn(2, projection, 4 * hidden) * projection**-0.5)
        self.project = nn.Parameter(torch.randn(2, hidden, projection) * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(2, 4 * hidden))
        with torch.no_grad():
            # Initially the cells keep their content (Józefowicz, Zaremba & Sutskever 2015).
            self.bias[:, hidden : 2 * hidden] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (D, T, B, P) of inputs (D, T, B, inputs), both in the reading order of each direction."""
        clips = self.cell_clip, self.projection_clip
        # In the weights' own precision also under autocast: sums over a long sentence would lose too much.
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.input.dtype)
            weights = self.input, self.bias, self.recurrent, self.project
            if torch.is_grad_enabled():
                return cast(Tensor, _Recurrence.apply(x, *weights, *clips))  # type: ignore[no-untyped-call]
            # Nothing is kept for a backward pass: a sentence of any length takes the memory of its outputs.
            outputs = x.new_empty(*x.shape[:3], self.project.shape[2])
            c, h = x.new_zeros(2, x.shape[2], self.project.shape[1]), torch.zeros_like(outputs[:, 0])
            for part, into in zip(torch.split(x, 64, 1), torch.split(outputs, 64, 1), strict=True):
                gates = torch.baddbmm(self.bias[:, None], part.flatten(1, 2), self.input).view(*part.shape[:3], -1)
                for t in range(part.shape[1]):
                    into[:, t] = h = _step(gates[:, t], c, self.recurrent, self.project, clips, h)
            return outputs


# ---- Hidden states to the next word ----------------------------------------------------------------------------------


class WordSoftmax(nn.Module):
    """The loss of each word, given a hidden state of `dim` dimensions; words are ordered by count, the most frequent
    first.

    "adaptive" puts rare words in clusters with shorter vectors (Grave, Joulin, Cissé, Grangier & Jégou 2017) and is
    exact in training too. "sampled" distinguishes a word in training from `negatives` samples of the words'
    frequencies, `counts`, the same for the whole batch (Józefowicz et al. 2016, section 3.1, equation 4); with at most
    as many words, and outside training, it is exact.
    """

    def __init__(
        self, words: int, dim: int, *, kind: Literal["adaptive", "sampled"], negatives: int, counts: NDArray[Any]
    ) -> None:
        super().__init__()
        self.negatives = negatives
        # A cluster's vectors have a quarter of the dimensions of the previous one's: no cluster where none remain.
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
        """The loss of each word (n,) in nats, (n,), given the hidden state (n, dim) before it."""
        if self.adaptive is not None:
            return -cast(Tensor, self.adaptive(states, words).output)
        if self.training and hasattr(self, "cumulative"):
            return self._sampled(states, words)
        # 4,096 states at a time bound the memory of the logits.
        parts = [
            F.cross_entropy(F.linear(some, self.weight, self.bias).float(), targets, reduction="none")
            for some, targets in zip(torch.split(states, 4096), torch.split(words, 4096), strict=True)
        ]
        return torch.cat(parts)

    def _sampled(self, states: Tensor, words: Tensor) -> Tensor:
        cumulative, log_expected = cast(Tensor, self.cumulative), cast(Tensor, self.log_expected)
        uniform = torch.rand(self.negatives, dtype=cumulative.dtype, device=cumulative.device)
        drawn = torch.searchsorted(cumulative, uniform).clamp_(max=len(cumulative) - 1)
        # The score less the log of the word's expected number of samples: scores then estimate log-probabilities,
        # not their ratio to the frequency.
        true = (states * self.weight[words]).sum(1) + self.bias[words] - log_expected[words]
        others = F.linear(states, self.weight[drawn], self.bias[drawn] - log_expected[drawn])
        others = others.masked_fill(drawn == words[:, None], -torch.inf)
        return torch.logaddexp(true, others.logsumexp(1)).float() - true.float()


# ---- The language model ----------------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """Texts of one step, as rows of their distinct words.

    `symbols` are those of the distinct words, (U, longest word) int64; `words` (B, T) int64 rows of `symbols`, begin
    and end of text included, any row after a text's end; `lengths` (B,) int64; `targets`, in training, (B, T) int64.
    """

    symbols: Tensor
    words: Tensor
    lengths: Tensor
    targets: Tensor | None = None


class BidirectionalLanguageModel(nn.Module):
    """The model of Peters et al. (2018), section 3.1: both directions share the words' vectors and the softmax.

    Its layers' hidden states are (x; x), the words' vectors twice, and for each LSTM layer (forward; backward), 2P
    dimensions. The second LSTM's input is added to its output.
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
        """Each LSTM's hidden states (D, T, B, P), in reading order, from the words' vectors (B, T, P)."""
        x = vectors.transpose(0, 1)
        x = torch.stack([x, _turned(x, lengths)])
        for i, lstm in enumerate(self.lstms):
            y = lstm(F.dropout(x, self.dropout, self.training))
            x = y + x if i else y
            yield x

    def forward(self, batch: Batch) -> list[Tensor]:
        """Hidden states of every layer, each (B, T, 2P), from the words' vectors up; zero after a text's end."""
        vectors = self.encoder(batch.symbols)[batch.words]
        states = [torch.cat([vectors, vectors], 2)]
        for x in self._run(vectors, batch.lengths):
            both = torch.cat([x[0], _turned(x[1], batch.lengths)], 2)
            states.append(both.transpose(0, 1))
        ended = torch.arange(batch.words.shape[1], device=batch.words.device) >= batch.lengths[:, None]
        return [state.masked_fill(ended[:, :, None], 0) for state in states]

    def loss(self, batch: Batch) -> tuple[Tensor, int]:
        """The summed loss of the words in nats, in both directions, and their number (section 3.1)."""
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
    """`x` (T, B, ...) with every text reversed within its own length; what lies after its end stays there."""
    places = torch.arange(len(x), device=x.device)[:, None]
    places = torch.where(places < lengths, lengths - 1 - places, places)
    return x[places, torch.arange(x.shape[1], device=x.device)]


class Mixture(nn.Module):
    """Layers mixed for a task: gamma times their weighted mean (Peters et al. 2018, section 3.2, equation 1).

    With `layer_norm` every layer first gets mean 0 and variance 1 over its dimensions.
    """

    def __init__(self, layers: int, *, layer_norm: bool = False) -> None:
        super().__init__()
        self.layer_norm = layer_norm
        self.scores = nn.Parameter(torch.zeros(layers))
        self.gamma = nn.Parameter(torch.ones(1))

    @property
    def weights(self) -> Tensor:
        """s, (layers,): positive, with sum 1."""
        return torch.softmax(self.scores, 0)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """The mixture of the layers' hidden states, all of one shape (..., dim)."""
        if self.layer_norm:
            states = [F.layer_norm(state, state.shape[-1:]) for state in states]
        mixed = sum(weight * state for weight, state in zip(self.weights, states, strict=True))
        return cast(Tensor, self.gamma * mixed)


# ---- Texts to batches ------------------------------------------------------------------------------------------------


class TextBatches:
    """A corpus as an endless sequence of texts, in batches of similar lengths.

    A text stands between its begin and its end. One of more than `length` words is split; each part begins with the
    last word of the one before, so that every word is predicted once in each direction and epoch. The order is a
    function of the seed, as `loop.train` requires.

    `targets` has the target of each of the corpus's words, (words,); `documents` and `validation` are the corpus's rows
    for training and validation. Documents without words are left out.
    """

    def __init__(
        self,
        corpus: Corpus,
        speller: Speller,
        targets: NDArray[np.int64],
        documents: NDArray[np.int64],
        validation: NDArray[np.int64] | None = None,
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
        parts = -(-(sizes + 1) // length)
        self._document = np.repeat(documents, parts)
        first = np.cumsum(parts) - parts
        self._start = (np.arange(len(self._document)) - np.repeat(first, parts)) * length
        self._size = np.minimum(np.repeat(sizes, parts) + 2 - self._start, length + 1)
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._apart: TextBatches | None = None
        if validation is not None and len(validation):
            self._apart = TextBatches(
                corpus, speller, targets, validation, batch_size=batch_size, length=length, seed=seed
            )

    def __len__(self) -> int:
        """Texts, or parts of texts, in an epoch."""
        return len(self._document)

    @property
    def words_per_text(self) -> int:
        """How many words of a text are predicted in each direction, on average."""
        return max(1, round(float(self._size.mean()) - 1))

    @property
    def fingerprint(self) -> list[int]:
        """Identifies these texts; reads the corpus once."""
        apart = 0 if self._apart is None else len(self._apart)
        own = [len(self), apart, self.batch_size, self.length, self.seed]
        return [*fingerprint([self.corpus.ids, self.corpus.offsets], self.corpus.vocabulary.words), *own]

    def __call__(self, first: int, count: int) -> Batch:
        """Texts `first` to `first + count - 1` of all epochs."""
        epochs, places = np.divmod(np.arange(first, first + count), len(self))
        return self.batch(
            np.concatenate([self._order(epoch)[places[epochs == epoch]] for epoch in np.unique(epochs).tolist()])
        )

    def validation(self, first: int, count: int) -> Batch | None:
        """Texts of the validation split from number `first` on; None if there are no more."""
        if self._apart is None or first >= len(self._apart):
            return None
        return self._apart(first, min(count, len(self._apart) - first))

    def in_order(self) -> Iterator[Batch]:
        """All texts once, by length."""
        order = np.argsort(self._size, kind="stable")
        for begin in range(0, len(order), self.batch_size):
            yield self.batch(order[begin : begin + self.batch_size])

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Texts shuffled, sorted by length within pools of batches, and the batches shuffled."""
        if epoch not in self._orders:
            while len(self._orders) > 1:  # a batch may hold texts of two epochs
                self._orders.pop(next(iter(self._orders)))
            rng = np.random.default_rng((self.seed, epoch))
            order = rng.permutation(len(self))
            pool = self.batch_size * _POOL
            for begin in range(0, len(order), pool):
                some = order[begin : begin + pool]
                order[begin : begin + pool] = some[np.argsort(self._size[some], kind="stable")]
            # Batches are counted through all epochs: the first one here may have begun in the previous epoch. It and
            # the last one keep their places; the whole batches between them are shuffled.
            head = min(-epoch * len(self) % self.batch_size, len(order))
            tail = head + (len(order) - head) // self.batch_size * self.batch_size
            whole = order[head:tail].reshape(-1, self.batch_size)
            order[head:tail] = whole[rng.permutation(len(whole))].reshape(-1)
            self._orders[epoch] = order
        return self._orders[epoch]

    def batch(self, texts: NDArray[np.int64]) -> Batch:
        """These texts, or parts of texts, as a batch with targets."""
        sizes = self._size[texts]
        rows = np.zeros((len(texts), sizes.max()), np.int64)
        for i, text in enumerate(texts):
            begin, end = self.corpus.offsets[self._document[text] : self._document[text] + 2]
            start, stop = self._start[text], self._start[text] + sizes[i]
            # Places start to stop of the document, whose begin and end are places too.
            words = self.corpus.ids[begin + max(start - 1, 0) : min(begin + stop - 1, end)]
            at = 1 if start == 0 else 0
            rows[i, at : at + len(words)] = words + 2
            if begin + stop - 1 > end:
                rows[i, sizes[i] - 1] = 1
        return batch_of(self.speller, rows, sizes, self.targets)


def batch_of(
    speller: Speller, rows: NDArray[np.int64], sizes: NDArray[np.int64], targets: NDArray[np.int64] | None = None
) -> Batch:
    """A batch of texts as rows of a speller (B, T): each distinct word is encoded only once."""
    distinct, words = np.unique(rows, return_inverse=True)
    return Batch(
        speller(distinct),
        torch.from_numpy(words.reshape(rows.shape)),
        torch.from_numpy(sizes),
        None if targets is None else torch.from_numpy(targets[rows]),
    )
