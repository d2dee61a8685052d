"""One transformer (Vaswani et al. 2017): GPT with a causal mask, BERT without one and with the masked-token head.

In this order: the architecture, attention, the block, the model. Letters: B texts, T tokens, H heads, D dimensions of a
head, V tokens of the vocabulary.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from firth.checks import one_of, real_number, whole_number
from firth.contextual import operator
from firth.fused_attention import attention as fused_attention
from firth.fused_attention import attention_weights

Norm = Literal["pre", "post"]
Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
Way = Literal["firth", "torch"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": functools.partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}
IGNORED = -100  # a target that `Transformer.loss` leaves out


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A transformer's shape and arithmetic.

    Parameters
    ----------
    dim, length, mlp_dim
        Width of the hidden states, a multiple of `heads`; positions, the longest text; width inside the feed-forward
        part, 0 for 4 `dim`.
    norm
        Where the norms are: "pre", before each part and once at the end (GPT-2); "post", after each part and after the
        embeddings (BERT).
    activation
        Of the feed-forward part: "gelu" by the error function, "gelu_tanh" by the hyperbolic tangent.
    dropout
        Of the embeddings and of each part's result.
    token_types
        How many types of text an embedding distinguishes; 0: none.
    tied
        Whether the unembedding is the embedding's matrix.
    masked_head
        Whether a layer with a norm stands before the unembedding, which then has a bias (Devlin et al. 2019).
    pooler
        Whether there is a layer for the first token's hidden state.
    cross
        Whether blocks attend to a memory too.
    padding
        The token that pads short texts, if there is one. Makers of batches use it: the model uses lengths.
    """

    vocabulary_size: int
    layers: int
    heads: int
    dim: int
    length: int
    mlp_dim: int = 0
    causal: bool
    norm: Norm = "pre"
    activation: Activation = "gelu"
    epsilon: float = 1e-5
    dropout: float = 0.0
    attention_dropout: float = 0.0
    token_types: int = 0
    tied: bool = True
    masked_head: bool = False
    pooler: bool = False
    cross: bool = False
    padding: int | None = None

    def __post_init__(self) -> None:
        for name in ("vocabulary_size", "layers", "heads", "dim", "length"):
            whole_number(name, getattr(self, name), low=1)
        whole_number("mlp_dim", self.mlp_dim)
        whole_number("token_types", self.token_types)
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads, {self.heads}, not {self.dim}")
        one_of("norm", self.norm, get_args(Norm))
        one_of("activation", self.activation, get_args(Activation))
        real_number("epsilon", self.epsilon, above=0)
        for name in ("dropout", "attention_dropout"):
            if not 0 <= real_number(name, getattr(self, name), low=0) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)}")
        if self.padding is not None:
            whole_number("padding", self.padding, high=self.vocabulary_size - 1)
        if not self.mlp_dim:
            object.__setattr__(self, "mlp_dim", 4 * self.dim)


class Cache:
    """Keys and values of the tokens read so far, layer by layer, so that the next token costs one step.

    Give the same cache to each call of `Transformer.forward`, with the tokens that follow. It is for use without
    gradients, with one causal model, with texts of one length, and always with the same memory.
    """

    def __init__(self) -> None:
        self._length = 0
        self._pairs: dict[int, tuple[Tensor, Tensor]] = {}  # (B, H, room, D) each
        self._memory: Tensor | None = None  # the memory, and its keys and values
        self._memories: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        """Tokens read."""
        return self._length

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ones."""
        self._length = whole_number("length", length, high=self._length)

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values (B, H, T, D); return all, as views."""
        if torch.is_grad_enabled() and (k.requires_grad or v.requires_grad):
            raise ValueError("a cache is for use under torch.no_grad()")
        begin, end = self._length, self._length + k.shape[2]
        pair = self._pairs.get(layer)
        if pair is None:
            if begin:
                raise ValueError("the cache is of a model with fewer layers")
        elif pair[0].shape[0] != k.shape[0]:
            raise ValueError(f"the cache is of {pair[0].shape[0]} texts, not {k.shape[0]}")
        elif (pair[0].shape[1::2], pair[0].dtype, pair[0].device) != (k.shape[1::2], k.dtype, k.device):
            raise ValueError("the cache is of another model, type or device: its keys differ from these")
        if pair is None or pair[0].shape[2] < end:
            pair = (self._grown(k, pair and pair[0], end), self._grown(v, pair and pair[1], end))
            self._pairs[layer] = pair
        for kept, new in zip(pair, (k, v), strict=True):
            kept[:, :, begin:end] = new
        return pair[0][:, :, :end], pair[1][:, :, :end]

    def _grown(self, new: Tensor, old: Tensor | None, length: int) -> Tensor:
        """A tensor with room for more than `length`, with the content of the old one."""
        grown = new.new_empty((*new.shape[:2], max(64, length + length // 2), new.shape[3]))
        if old is not None:
            grown[:, :, : self._length] = old[:, :, : self._length]
        return grown

    def memory(
        self, layer: int, memory: Tensor, project: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Keys and values that `project` computes from a memory, once."""
        if self._memory is None:
            self._memory = memory
        elif self._memory is not memory:
            raise ValueError("the cache holds the keys and values of another memory: begin a new cache")
        if layer not in self._memories:
            self._memories[layer] = project(memory)
        return self._memories[layer]

    def advance(self, tokens: int) -> None:
        """Count the tokens that all layers have appended."""
        self._length += tokens


class Linear(nn.Linear):
    """torch's linear layer, with the library of matrix products that is faster here."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return operator.linear(x, self.weight, self.bias)


_LINEARS: dict[str, type[nn.Linear]] = {"firth": Linear, "torch": nn.Linear}


class Attention(nn.Module):
    """Multi-head attention of hidden states to themselves, or to a memory."""

    def __init__(self, architecture: Architecture, way: Way, *, cross: bool = False) -> None:
        super().__init__()
        dim = architecture.dim
        self.heads = architecture.heads
        self.way = way
        self.cross = cross
        self.causal = architecture.causal and not cross
        self.dropout = architecture.attention_dropout
        linear = _LINEARS[way]
        if cross:
            self.q = linear(dim, dim)
            self.kv = linear(dim, 2 * dim)
        else:
            self.qkv = linear(dim, 3 * dim)
        self.out = linear(dim, dim)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        memory: Tensor | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Attention's result for the tokens of x (B, T, dim). Lengths are those of the keys."""
        rest: dict[str, Any] = {"causal": self.causal, "lengths": lengths}
        if self.dropout and self.training:
            rest["dropout"] = self.dropout
            if self.way == "firth":  # drawn as a tensor: asking for the number would break a compiled graph
                rest["seed"] = torch.randint(2**62, (), dtype=torch.int64)
        if not self.cross and cache is None and self.way == "firth":
            attended = operator.self_attention(self._split(self.qkv(x), 3), **rest)
        else:
            attend = operator.attention if self.way == "firth" else operator.torch_attention
            attended = attend(*self.project(x, memory, cache, layer), **rest)
        return cast(Tensor, self.out(attended.transpose(1, 2).reshape(x.shape)))

    def project(
        self, x: Tensor, memory: Tensor | None = None, cache: Cache | None = None, layer: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, H, T, D) each."""
        if not self.cross:
            q, k, v = self._split(self.qkv(x), 3).permute(2, 0, 3, 1, 4).unbind(0)
            return (q, k, v) if cache is None else (q, *cache.append(layer, k, v))

        def remember(states: Tensor) -> tuple[Tensor, Tensor]:
            k, v = self._split(self.kv(states), 2).permute(2, 0, 3, 1, 4).unbind(0)
            return k, v

        assert memory is not None
        q = self._split(self.q(x), 1).squeeze(2).transpose(1, 2)
        return (q, *(remember(memory) if cache is None else cache.memory(layer, memory, remember)))

    def weights(
        self, x: Tensor, lengths: Tensor | None, heads: Sequence[int] | None, rows: Sequence[int] | None
    ) -> NDArray[np.float32]:
        """Weights of some heads and rows, (B, heads, rows, T), recomputed from the fused pass."""
        q, k, v = (part.detach().float().cpu() for part in self.project(x))
        rest: dict[str, Any] = {"causal": self.causal, "lengths": lengths, "threads": torch.get_num_threads()}
        _, lse = fused_attention(q, k, v, return_lse=True, **rest)
        weights: NDArray[np.float32] = attention_weights(q, k, lse, heads=heads, rows=rows, **rest).numpy()
        return weights

    def _split(self, projected: Tensor, parts: int) -> Tensor:
        """(B, T, parts, H, D)."""
        return projected.view(*projected.shape[:2], parts, self.heads, projected.shape[2] // (parts * self.heads))


class Block(nn.Module):
    """Attention, attention to a memory if there is one, and the feed-forward part, each added to its input."""

    def __init__(self, architecture: Architecture, way: Way) -> None:
        super().__init__()
        dim, epsilon = architecture.dim, architecture.epsilon
        self.pre = architecture.norm == "pre"
        self.attention_norm = nn.LayerNorm(dim, epsilon)
        self.attention = Attention(architecture, way)
        self.cross_norm = nn.LayerNorm(dim, epsilon) if architecture.cross else None
        self.cross = Attention(architecture, way, cross=True) if architecture.cross else None
        self.mlp_norm = nn.LayerNorm(dim, epsilon)
        self.up = _LINEARS[way](dim, architecture.mlp_dim)
        self.down = _LINEARS[way](architecture.mlp_dim, dim)
        self.activation = _ACTIVATIONS[architecture.activation]
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        memory: Tensor | None = None,
        memory_lengths: Tensor | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Hidden states (B, T, dim) after the block."""
        x = self._add(x, self.attention_norm, lambda y: self.attention(y, lengths, cache=cache, layer=layer))
        cross = self.cross
        if cross is not None and self.cross_norm is not None and memory is not None:
            x = self._add(
                x, self.cross_norm, lambda y: cross(y, memory_lengths, memory=memory, cache=cache, layer=layer)
            )
        return self._add(x, self.mlp_norm, lambda y: self.down(self.activation(self.up(y))))

    def _add(self, x: Tensor, norm: nn.LayerNorm, part: Callable[[Tensor], Tensor]) -> Tensor:
        added: Tensor = x + self.dropout(part(norm(x))) if self.pre else norm(x + self.dropout(part(x)))
        return added


class MaskedHead(nn.Module):
    """BERT's last layer before the unembedding, and the unembedding's bias."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.dense = nn.Linear(architecture.dim, architecture.dim)
        self.norm = nn.LayerNorm(architecture.dim, architecture.epsilon)
        self.bias = nn.Parameter(torch.zeros(architecture.vocabulary_size))
        self.activation = _ACTIVATIONS[architecture.activation]

    def forward(self, hidden: Tensor) -> Tensor:
        """The unembedding's input, (..., dim)."""
        return cast(Tensor, self.norm(self.activation(self.dense(hidden))))


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, also during training."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


class Transformer(nn.Module):
    """From tokens to hidden states, and from hidden states to scores of tokens.

    `attention` "firth" computes attention, loss and matrix products by firth's operators, "torch" all by torch, for
    comparison. Matrices begin normal with standard deviation 0.02, biases at zero. With norms before each part, the
    deviation of the matrices whose result is added to the hidden states is divided by the root of their number (Radford
    et al. 2019).
    """

    def __init__(self, architecture: Architecture, attention: Way = "firth") -> None:
        super().__init__()
        one_of("attention", attention, get_args(Way))
        self.architecture = architecture
        self.way = attention
        dim = architecture.dim
        self.embedding = nn.Embedding(architecture.vocabulary_size, dim)
        self.positions = nn.Embedding(architecture.length, dim)
        self.token_types = nn.Embedding(architecture.token_types, dim) if architecture.token_types else None
        self.embedding_norm = nn.LayerNorm(dim, architecture.epsilon) if architecture.norm == "post" else None
        self.dropout = nn.Dropout(architecture.dropout)
        self.blocks = nn.ModuleList(Block(architecture, attention) for _ in range(architecture.layers))
        self.final_norm = nn.LayerNorm(dim, architecture.epsilon) if architecture.norm == "pre" else None
        self.pooler = nn.Linear(dim, dim) if architecture.pooler else None
        self.masked_head = MaskedHead(architecture) if architecture.masked_head else None
        self.unembedding = None if architecture.tied else nn.Linear(dim, architecture.vocabulary_size, bias=False)
        self._initialize()

    def _initialize(self) -> None:
        parts = (3 if self.architecture.cross else 2) * self.architecture.layers
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                added = self.architecture.norm == "pre" and name.endswith((".out", ".down"))
                nn.init.normal_(module.weight, std=0.02 / math.sqrt(parts) if added else 0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self,
        ids: Tensor,
        *,
        lengths: Tensor | None = None,
        token_types: Tensor | None = None,
        cache: Cache | None = None,
        all_layers: bool = False,
        memory: Tensor | None = None,
        memory_lengths: Tensor | None = None,
    ) -> Any:
        """Hidden states of the tokens, (B, T, dim); with `all_layers` a list of them, from the embeddings on.

        Parameters
        ----------
        ids
            Tokens, (B, T); short texts are padded at their end with any token.
        lengths
            How many tokens each text has, (B,); None: T.
        token_types
            The type of text that each token belongs to, (B, T); None: type 0.
        cache
            The tokens before `ids`, which are added to it.
        memory, memory_lengths
            Hidden states that blocks with `Architecture.cross` attend to, (B, Tm, dim), and how many each text has.

        Raises
        ------
        ValueError
            If a text has more tokens than the architecture has positions, or the arguments do not go together.
        """
        x = self._embed(ids, token_types, 0 if cache is None else len(cache))
        if cache is not None and lengths is not None:
            raise ValueError("texts that share a cache are of one length: give no lengths")
        if cache is not None and not self.architecture.causal:
            raise ValueError("a cache is for causal models: in others, earlier hidden states change with later tokens")
        if self.architecture.cross != (memory is not None):
            raise ValueError(
                "blocks that attend to a memory need one" if memory is None else "no block attends to a memory"
            )
        states = [x]
        for layer, block in enumerate(self.blocks):
            x = block(x, lengths, memory, memory_lengths, cache, layer)
            if all_layers:
                states.append(x)
        if cache is not None:
            cache.advance(ids.shape[1])
        if self.final_norm is not None:
            x = self.final_norm(x)
            states[-1] = x
        return states if all_layers else x

    def _embed(self, ids: Tensor, token_types: Tensor | None, begin: int) -> Tensor:
        if ids.dim() != 2:
            raise ValueError(f"ids must have shape (texts, tokens), not {tuple(ids.shape)}")
        end = begin + ids.shape[1]
        if end > self.architecture.length:
            raise ValueError(f"a text of {end} tokens is longer than the model's {self.architecture.length} positions")
        x = self.embedding(ids) + self.positions.weight[begin:end]
        if self.token_types is not None:
            x = x + (self.token_types.weight[0] if token_types is None else self.token_types(token_types))
        elif token_types is not None:
            raise ValueError("the architecture has no token types")
        return cast(Tensor, self.dropout(x if self.embedding_norm is None else self.embedding_norm(x)))

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all tokens, (..., V), from hidden states (..., dim)."""
        return (operator.linear if self.way == "firth" else F.linear)(*self._unembed(hidden))

    def _unembed(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Input, matrix and bias of the last product."""
        weight = self.embedding.weight if self.unembedding is None else self.unembedding.weight
        if self.masked_head is None:
            return hidden, weight, None
        return self.masked_head(hidden), weight, self.masked_head.bias

    def pooled(self, hidden: Tensor) -> Tensor:
        """The first token's hidden state after the pooler, (B, dim), as BERT's next-sentence task trained it."""
        if self.pooler is None:
            raise ValueError("the architecture has no pooler")
        return torch.tanh(self.pooler(hidden[:, 0]))

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood of tokens, in nats; all logits are never in memory at once.

        `targets` (B, T) are the tokens to predict from the hidden states (B, T, dim), or `IGNORED`, -100; if all are
        ignored, the loss is 0. ValueError if there is not one target for each hidden state.
        """
        if hidden.shape[:-1] != targets.shape:
            raise ValueError(
                f"targets must have shape {tuple(hidden.shape[:-1])}, as hidden has, not {tuple(targets.shape)}"
            )
        hidden, targets = hidden.flatten(0, -2), targets.flatten()
        kept = targets != IGNORED
        if not bool(kept.all()):
            hidden, targets = hidden[kept], targets[kept]
        if self.way == "torch":
            return F.cross_entropy(self.logits(hidden).float(), targets, reduction="sum") / max(1, len(targets))
        # Inside, torch knows which tensors require gradients, but not whether gradients are enabled.
        given = (*self._unembed(hidden), targets, torch.is_grad_enabled())
        loss: Tensor = _LinearCrossEntropy.apply(*given)  # type: ignore[no-untyped-call]
        return loss

    @torch.no_grad()
    def maps(
        self,
        ids: Tensor,
        *,
        lengths: Tensor | None = None,
        token_types: Tensor | None = None,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
    ) -> dict[int, NDArray[np.float32]]:
        """Attention weights, without dropout, by layer: float32 (B, heads, rows, T), from each row's token to all.

        `layers`, `heads` and `rows` are numbers from 0, or from the end if negative; None: all. Only the chosen ones
        take memory. The other arguments are those of `forward`.
        """
        n_layers = self.architecture.layers
        chosen = range(n_layers) if layers is None else layers
        numbers = {whole_number("layers", layer, low=-n_layers, high=n_layers - 1) % n_layers for layer in chosen}
        found: dict[int, NDArray[np.float32]] = {}
        with evaluating(self):
            x = self._embed(ids, token_types, 0)
            for layer, block in enumerate(self.blocks[: max(numbers, default=-1) + 1]):
                assert isinstance(block, Block)
                if layer in numbers:
                    found[layer] = block.attention.weights(
                        block.attention_norm(x) if block.pre else x, lengths, heads, rows
                    )
                if layer < max(numbers):
                    x = block(x, lengths)
        return found


_CHUNK = 1 << 21  # logits in memory at a time: 8 MB


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of a linear layer's outputs, in chunks of rows, whose gradients are computed with the loss.

    The logits of a batch, their log-softmax and their gradients are the largest arrays of a small model's training
    step; here two arrays of 8 MB are reused for all chunks.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, enabled: bool
    ) -> Tensor:
        kind = hidden.device.type
        low = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        needed = [enabled and one for one in ctx.needs_input_grad[:3]]
        with torch.autocast(kind, enabled=False):
            h, w, b = hidden.to(low), weight.to(low), None if bias is None else bias.to(low)
            dh = torch.empty_like(h) if needed[0] else None
            dw = torch.zeros(weight.shape[::-1], dtype=torch.float32, device=weight.device) if needed[1] else None
            db = torch.zeros_like(bias, dtype=torch.float32) if needed[2] and bias is not None else None
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            rows = max(1, _CHUNK // len(weight))
            for begin in range(0, len(hidden), rows):
                part, wanted = h[begin : begin + rows], targets[begin : begin + rows, None]
                logits = operator.product(part, w, b).float()
                chances = torch.softmax(logits, -1)
                chosen = chances.gather(1, wanted)
                if bool((chosen > 1e-30).all()):
                    total -= chosen.log().sum()
                else:  # too small to take the logarithm of
                    total -= torch.log_softmax(logits, -1).gather(1, wanted).sum()
                if not any(needed):
                    continue
                # The gradient of the logits is the probabilities, less one at the target.
                moved = chances.scatter_(1, wanted, chosen - 1)
                if db is not None:
                    db += moved.sum(0)
                moved = moved.to(low)
                if dh is not None:
                    dh[begin : begin + rows] = operator.product(moved, w.T)
                if dw is not None:
                    dw += operator.product(part.T, moved.T)
        ctx.save_for_backward(dh, dw, db, hidden.new_empty(0), weight.new_empty(0))
        ctx.scale = 1 / max(1, len(hidden))
        mean: Tensor = total * ctx.scale
        return mean

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dh, dw, db, hidden, weight = ctx.saved_tensors
        scale = gradients[0] * ctx.scale
        if dh is not None:
            dh = (dh * scale).to(hidden.dtype)
        if dw is not None:
            dw = torch.mul(dw.T, scale, out=dw.new_empty(dw.shape[::-1])).to(weight.dtype)
        if db is not None:
            db = (db * scale).to(weight.dtype)
        return dh, dw, db, None, None
