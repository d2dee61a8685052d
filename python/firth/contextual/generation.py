"""Text from a causal transformer: sampling from a distribution, stop strings, and prompts of several turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from firth.contextual.transformer import Cache, Transformer

_UNFINISHED = "\ufffd"  # shows the first bytes of a character whose other bytes have not come yet
_LONGEST_CHARACTER = 4  # bytes of UTF-8


def cut_distribution(
    logits: Tensor, *, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> tuple[Tensor, Tensor]:
    """The tokens that may be drawn, the most likely first, int64 (kept,), and float64 probabilities with sum 1.

    `logits` (vocabulary,) are divided by the temperature; `top_k` applies next, then `top_p` to the remaining tokens.
    Of equally likely tokens the lower ids are kept. Temperature 0 leaves only the most likely token.
    """
    scores, ids = torch.sort(logits.double(), descending=True, stable=True)
    if temperature == 0:
        return ids[:1], torch.ones(1, dtype=torch.float64, device=logits.device)
    if top_k is not None:
        scores, ids = scores[:top_k], ids[:top_k]
    probabilities = torch.softmax((scores - scores[0]) / temperature, 0)  # finite for the smallest temperature, too
    if top_p is not None and top_p < 1:
        # A token stays if those before it do not reach top_p: the first one always stays.
        kept = int((probabilities.cumsum(0) - probabilities < top_p).sum())
        ids, probabilities = ids[:kept], probabilities[:kept] / probabilities[:kept].sum()
    return ids, probabilities


def draw(ids: Tensor, probabilities: Tensor, generator: torch.Generator) -> int:
    """Draw one of the ids with a single uniform random number."""
    number = torch.rand((), dtype=torch.float64, generator=generator)
    at = int(torch.searchsorted(probabilities.cumsum(0).cpu(), number, right=True))
    return int(ids[min(at, len(ids) - 1)])


def sampled_ids(
    transformer: Transformer,
    prompt: Sequence[int],
    choose: Callable[[Tensor], int],
    *,
    max_new: int,
    end: int | None,
    use_cache: bool,
) -> Iterator[int]:
    """Ids that follow a prompt, one by one, until `end`, which is left out, or `max_new`.

    When all positions are taken, the latter half of the tokens becomes the context, with a cache and without alike.
    """
    positions = transformer.architecture.length
    device = next(transformer.parameters()).device
    context, begin = list(prompt), 0
    cache: Cache | None = Cache() if use_cache else None
    fresh = 0  # ids from here on are not in the cache
    for _ in range(max_new):
        if len(context) - begin > positions:
            begin = len(context) - max(positions // 2, 1)
            cache, fresh = (Cache() if use_cache else None), begin
        ids = torch.tensor([context[fresh if use_cache else begin :]], device=device)
        with torch.inference_mode():
            logits = transformer.logits(transformer(ids, cache=cache)[:, -1:])[0, -1]
        fresh = len(context)
        chosen = choose(logits.float())
        if chosen == end:
            return
        context.append(chosen)
        yield chosen


def text_until(
    ids: Iterable[int], decode: Callable[[list[int]], str], stop: Sequence[str], prompt: Sequence[int] = ()
) -> Iterator[str]:
    """The text of ids as they come, up to the first stop string, which is left out; no id is taken after it.

    Text waits while its last bytes are an incomplete character, or while it may be the beginning of a stop string. The
    text of `prompt`, the ids before, is not repeated; the space between both depends on them.
    """
    before = len(decode(list(prompt)))
    seen = list(prompt)
    done = 0  # characters that were returned
    text = ""
    for one in ids:
        seen.append(one)
        text = decode(seen)[before:]
        whole = text.rstrip(_UNFINISHED) if len(text) - len(text.rstrip(_UNFINISHED)) < _LONGEST_CHARACTER else text
        found = [at for at in (whole.find(end) for end in stop) if at >= 0]
        if found:
            if min(found) > done:
                yield whole[done : min(found)]
            return
        known = len(whole) - max((_beginning(whole, end) for end in stop), default=0)
        if known > done:
            yield text[done:known]
            done = known
    if len(text) > done:
        yield text[done:]


def _beginning(text: str, stop: str) -> int:
    """How many characters at the end of a text are the beginning of a stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)


def roles_prompt(
    messages: Iterable[Mapping[str, str]], *, template: str = "{role}: {content}\n", answer: str = "assistant"
) -> tuple[str, list[str]]:
    """A conversation as text that ends where the next answer begins, and the strings that would begin another turn.

    `messages` have a "role" and a "content" each; `answer` is the role of the next turn. The prompt does not end in
    spaces, which are part of the answer's first token. TypeError or ValueError if a message has another form, naming
    its place, or the template lacks a part.
    """
    if isinstance(messages, Mapping) or not isinstance(messages, Iterable):
        raise TypeError(f"prompt must be a str or a list of dicts, not {type(messages).__name__}")
    if not isinstance(template, str):
        raise TypeError(f"template must be a str, not {type(template).__name__}")
    for name in ("{role}", "{content}"):
        if template.count(name) != 1:
            raise ValueError(f"template must hold {name} once, not {template.count(name)} times: {template!r}")
    if template.index("{role}") > template.index("{content}"):
        raise ValueError(f"template must hold {{role}} before {{content}}: {template!r}")
    given: list[Any] = list(messages)
    if not given:
        raise ValueError("the prompt holds no message")
    head, tail = template.split("{content}")
    for i, message in enumerate(given):
        if not isinstance(message, Mapping) or message.keys() != {"role", "content"}:
            raise TypeError(f"prompt[{i}] must be a dict of 'role' and 'content', not {message!r}")
        for key, value in message.items():
            if not isinstance(value, str):
                raise TypeError(f"prompt[{i}][{key!r}] must be a str, not {type(value).__name__}")
    turns = [head.replace("{role}", one["role"]) + one["content"] + tail for one in given]
    prompt = "".join([*turns, head.replace("{role}", answer)]).rstrip(" ")
    roles = dict.fromkeys([*(one["role"] for one in given), answer])
    return prompt, [(tail + head.replace("{role}", role)).rstrip(" ") for role in roles]
