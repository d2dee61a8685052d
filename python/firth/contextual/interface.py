"""firth's attention for the models of `transformers`: ``attn_implementation="firth"``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from firth.contextual import operator

NAME = "firth"
# What some models add to attention and no kernel here computes.
_REFUSED = {
    "softcap": "scores through a hyperbolic tangent (softcap)",
    "s_aux": "attention sinks (s_aux)",
    "sinks": "attention sinks (sinks)",
    "indices": "sparse attention (indices)",
    "block_indices": "sparse attention (block_indices)",
    "output_attentions": "attention weights (output_attentions=True)",
}


def register_attention() -> str:
    """Register firth's attention with `transformers`, as the implementation "firth".

    Any model of `transformers` that takes its attention from `transformers.AttentionInterface` then runs on the
    operator `firth.contextual.attention`, in training and in generation: padded batches, causal models, grouped-query
    attention, sliding windows, dropout, and caches of keys and values. On the CPU, in float32 and bf16, it uses the
    fused kernels; on other devices and in other types, torch's own operator. Calling it again changes nothing.

    Returns "firth", for ``AutoModel.from_pretrained(..., attn_implementation=...)``; ImportError if `transformers` 5 is
    not installed.

    A query that sees no key, such as one in the padding, has an output of zeros. Models whose attention needs more than
    this raise a ValueError when they run: those that cap their scores, have attention sinks or choose keys sparsely.
    Weights are not returned: `output_attentions=True` is refused too. Such models run with
    ``attn_implementation="eager"``.

    Examples
    --------
    >>> import torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=99, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    ...                      num_attention_heads=4, num_key_value_heads=2)
    >>> model = LlamaForCausalLM._from_config(config, attn_implementation=register_attention())
    >>> model(torch.tensor([[1, 2, 3]])).logits.shape
    torch.Size([1, 3, 99])
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask
    except ImportError:
        raise ImportError("register_attention needs transformers: pip install 'transformers>=5'") from None
    AttentionInterface.register(NAME, _attend)
    # The masks of sdpa are boolean, and None where `is_causal` says all, which is also what `_attend` takes.
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend as `transformers` asks for it; returns the output (B, Tq, heads, Dv), and None for the weights.

    `query`, `key` and `value` are those of `firth.attention`. `attention_mask` is a mask or a bias there, and holds all
    that is masked; without it `is_causal` decides, the argument or else the attribute of the layer `module`.
    `sliding_window` is the number of keys that a query of a causal model sees, its own included; masks hold it already.
    `position_bias`, (1 or B, heads, Tq, Tk), is added to the scores and has a gradient.
    """
    for name, what in _REFUSED.items():
        if others.get(name) is not None and others[name] is not False:
            raise ValueError(
                f"firth's attention does not compute {what}, which {type(module).__name__} asks for: "
                'load the model with attn_implementation="eager"'
            )
    n_queries, n_keys = query.shape[2], key.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and attention_mask is None and n_queries > 1
    if causal and n_keys > n_queries:
        # The first tokens of a static cache, whose other places are empty: the queries stand at its beginning.
        key, value, n_keys = key[:, :, :n_queries], value[:, :, :n_queries], n_queries
        position_bias = None if position_bias is None else position_bias[..., :n_queries]
    window = None
    if attention_mask is None and sliding_window is not None and n_keys > sliding_window:
        if not causal and n_queries > 1:
            raise ValueError(
                f"{type(module).__name__} has a sliding window and no mask, and is not causal: firth's attention "
                'cannot compute it; load the model with attn_implementation="eager"'
            )
        window = sliding_window - 1  # firth counts the keys on one side, without the query's own
    options: dict[str, Any] = {"causal": causal, "window": window, "scale": scaling, "dropout": dropout}
    if dropout:  # drawn as a tensor from torch's generator: asking for the number would break a compiled graph
        options["seed"] = torch.randint(2**62, (), dtype=torch.int64)
    attended = operator.attention(query, key, value, mask=attention_mask, bias=position_bias, **options)
    return attended.transpose(1, 2).contiguous(), None
