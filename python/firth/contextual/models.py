"""GPT and BERT: one transformer, causal or bidirectional."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import torch
from torch import Tensor

from firth.checks import real_number, whole_number
from firth.contextual import data, generation, huggingface
from firth.contextual.encoding import Sentence, checked_sentences
from firth.contextual.sentences import transformer_folder
from firth.contextual.tokenizer import Tokenizer
from firth.contextual.tokenizer_training import Kind
from firth.contextual.transformer import IGNORED
from firth.contextual.transformer_model import ContextualModel
from firth.options import option

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Sampling(TypedDict, total=False):
    """Options of `GPT.generate` and `GPT.stream`, which describes them."""

    max_new: int
    temperature: float
    top_k: int | None
    top_p: float | None
    stop: str | Sequence[str]
    template: str
    seed: int | None
    cache: bool


@dataclasses.dataclass(frozen=True)
class Score:
    """How well a model predicts texts.

    `nats` is the mean loss of a token and `perplexity` its exponential. `bits_per_byte`, all bits divided by the bytes
    of the texts in UTF-8, compares models with different tokenizers.
    """

    nats: float
    tokens: int
    perplexity: float
    bits_per_byte: float


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class GPT(ContextualModel):
    r"""An autoregressive language model: predicts the next token (Radford et al. 2019).

    The architecture is GPT-2's: norms before each part and at the end, trained positions, GELU by the hyperbolic
    tangent. `Schedule` describes the steps.

    Notes
    -----
    A training sequence has `length` tokens. `tokenizer` is the name of a kind that `fit` trains, see `Tokenizer.train`;
    or a `Tokenizer`, a `tokenizers.Tokenizer`, or a fast tokenizer of `transformers`. It is saved with the model.

    Rows of the embedding without one of `pretrained_vectors`, `firth.Vectors`, start at random, see
    `static_start.static_rows`; the attribute `static_start` counts both. If the rows keep word2vec's lengths
    (`embedding_std` None) and the model is `tied`, the first loss is several nats above that of random rows.

    Examples
    --------
    >>> gpt = GPT(layers=4, heads=4, dim=256, epochs=3).fit("mine.txt")
    >>> continuation = gpt.generate("The bank", max_new=20, temperature=0.8, stop="\n")
    """

    causal: ClassVar[bool] = True
    special: ClassVar[bool] = False

    def _arithmetic(self, tokenizer: Tokenizer) -> dict[str, Any]:
        return {"norm": "pre", "activation": "gelu_tanh", "epsilon": 1e-5}

    def _batches(self, ids: data.TokenIds, tokenizer: Tokenizer) -> data.Batches:
        return data.NextTokenBatches(ids, length=self.length, seed=self.seed)

    def score(self, texts: Sequence[Sentence], *, stride: int | None = None) -> Score:
        """Measure how well the model predicts texts, their ends included; ValueError if they have no token.

        The texts are one stream with the end-of-text token after each. A window of `length` tokens advances by `stride`
        tokens, by default half of `length`: each token is predicted once, from at least `length - stride` tokens where
        so many precede it.
        """
        tokenizer, length = self.tokenizer_, self.transformer.architecture.length
        stride = max(length // 2, 1) if stride is None else whole_number("stride", stride, low=1, high=length)
        given = checked_sentences(texts, "texts")
        ends = [] if tokenizer.end is None else [tokenizer.end]
        stream = [*ends]
        for ids in tokenizer.encode_ids(given):
            stream += [*ids.tolist(), *ends]
        if len(stream) <= len(ends) * (1 + len(given)):
            raise ValueError("the texts hold no token: there is nothing to predict")
        transformer, device = self.transformer, self.place()
        nats, done = 0.0, 1  # tokens that are predicted, or begin the stream
        while done < len(stream):
            end = min(max(done, length - stride) + stride, len(stream) - 1, done - 1 + length)
            begin = max(0, end - length)
            inputs = torch.tensor([stream[begin:end]], device=device)
            targets = torch.tensor([stream[begin + 1 : end + 1]], device=device)
            targets[:, : done - 1 - begin] = IGNORED
            with self._running():
                nats += float(transformer.loss(transformer(inputs), targets)) * (end + 1 - done)
            done = end + 1
        mean = nats / (len(stream) - 1)
        size = sum(map(data.n_bytes, given))
        return Score(mean, len(stream) - 1, math.exp(min(mean, 700)), nats / math.log(2) / max(size, 1))

    def next_tokens(self, text: str, topn: int = 10) -> list[tuple[str, float]]:
        """The `topn` most likely next tokens of a text and their probabilities, the most likely first.

        A token includes the space before it where that is part of it. "" asks for the first token of a text. ValueError
        if the text has more tokens than the model has positions.
        """
        whole_number("topn", topn, low=1)
        ids = torch.tensor([self._prompt(text)], device=self.place())
        transformer = self.transformer
        with self._running():
            scores = transformer.logits(transformer(ids)[:, -1:])[0, -1].float().cpu()
        return self._likeliest(scores, topn)

    def generate(self, prompt: str | Sequence[Mapping[str, str]] = "", **options: Unpack[Sampling]) -> str:
        """Continue a text: the parts of `stream`, joined. `prompt` and options are those of `stream`."""
        text = "".join(self.stream(prompt, **options))
        return text if isinstance(prompt, str) else text.strip()

    def stream(
        self,
        prompt: str | Sequence[Mapping[str, str]] = "",
        *,
        max_new: int = 100,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: str | Sequence[str] = (),
        template: str = "{role}: {content}\n",
        seed: int | None = None,
        cache: bool = True,
    ) -> Iterator[str]:
        """Continue a text, part by part, up to a stop string, the end-of-text token, or `max_new` tokens.

        When all positions are taken, the latter half of the tokens becomes the context of what follows.

        Parameters
        ----------
        prompt
            The text; or a conversation, a list of dicts of "role" and "content", written in `template`, which the role
            "assistant" continues.
        temperature
            Divides the scores: below 1, likely tokens become likelier. 0 takes the most likely token each time.
        top_k, top_p
            Sample from this many most likely tokens; from the fewest tokens whose probabilities add up to at least
            `top_p` (Holtzman et al. 2020).
        stop
            Strings that end the text, and are not part of it. The beginning of another turn also ends an answer.
        template
            The format of a turn; it should be that of the training texts.
        seed
            The same seed gives the same text; None: another text each time.
        cache
            Whether to keep keys and values of the tokens read. Without, the text is the same, and slower.

        Raises
        ------
        ValueError
            If the prompt has more tokens than the model has positions, or an option is out of range.
        """
        whole_number("max_new", max_new)
        real_number("temperature", temperature, low=0)
        if top_k is not None:
            whole_number("top_k", top_k, low=1)
        if top_p is not None and real_number("top_p", top_p, above=0) > 1:
            raise ValueError(f"top_p must be at most 1, not {top_p}")
        if not isinstance(stop, Iterable):
            raise TypeError(f"stop must be a string or a list of strings, not {type(stop).__name__}")
        stops: list[Any] = [stop] if isinstance(stop, str) else list(stop)
        for one in stops:
            if not isinstance(one, str) or not one:
                raise ValueError(f"stop must hold non-empty strings, not {one!r}")
        if not isinstance(prompt, str):
            prompt, turns = generation.roles_prompt(prompt, template=template)
            stops += [turn for turn in turns if turn.strip()]
        given = self._prompt(prompt)
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(whole_number("seed", seed, high=2**63 - 1))
        tokenizer, n = self.tokenizer_, len(self.tokenizer_)

        def choose(scores: Tensor) -> int:
            kept = generation.cut_distribution(scores[:n], temperature=temperature, top_k=top_k, top_p=top_p)
            return generation.draw(*kept, generator)

        ids = generation.sampled_ids(
            self.transformer, given, choose, max_new=max_new, end=tokenizer.end, use_cache=cache
        )
        return self._parts(ids, stops, given)

    def _parts(self, ids: Iterator[int], stops: list[str], given: list[int]) -> Iterator[str]:
        parts = generation.text_until(ids, self.tokenizer_.decode, stops, given)
        while True:
            with self._running():
                part = next(parts, None)
            if part is None:
                return
            yield part

    def _prompt(self, text: str) -> list[int]:
        """The tokens to continue; for a text without tokens, the end-of-text token."""
        if not isinstance(text, str):
            raise TypeError(f"the text must be a str, not {type(text).__name__}")
        tokenizer, positions = self.tokenizer_, self.transformer.architecture.length
        ids = tokenizer.encode(text, special=False).ids
        if not ids:
            if tokenizer.end is None:
                raise ValueError("the text has no token, and this tokenizer no end-of-text token to begin after")
            return [tokenizer.end]
        if len(ids) > positions:
            raise ValueError(f"the text has {len(ids)} tokens and the model {positions} positions: give only its end")
        return ids


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class BERT(ContextualModel):
    """A bidirectional transformer: predicts masked tokens from all others (Devlin, Chang, Lee & Toutanova 2019).

    The architecture is BERT's: norms after each part and after the embeddings, trained positions, GELU, one more layer
    before the unembedding. Of the selected tokens, 80 % are replaced by the mask token, 10 % by a random token,
    and 10 % are left unchanged. There is no next-sentence task.

    Examples
    --------
    >>> bert = BERT.from_pretrained("bert-base-uncased")
    >>> [candidates] = bert.fill_mask("she disputed the [MASK] .", topn=3)
    >>> len(candidates)
    3
    >>> [states] = bert.encode(["the bank of the river"], word_pooling="mean")
    >>> len(states)
    5
    """

    causal: ClassVar[bool] = False
    special: ClassVar[bool] = True

    tokenizer: Tokenizer | Kind = option(
        "wordpiece",
        checked=False,
        help="Train such a tokenizer on the text, or use the given one, which has a mask token.",
    )
    masked: float = option(0.15, above=0, high=0.9, help="Masking probability.")
    whole_word: bool = option(True, help="Mask all subwords of a word together, or each by itself.")
    learning_rate: float = option(5e-4, above=0, high=1e3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.tokenizer, Tokenizer) and self.tokenizer.mask is None:
            raise ValueError(
                "this tokenizer has no [MASK] token, which BERT needs: name its token, Tokenizer(tokenizer, "
                "mask=...), or set tokenizer='wordpiece'"
            )
        if self.tokenizer == "bpe":
            raise ValueError("tokenizer='bpe' has no [MASK] token, which BERT needs: choose 'wordpiece' or 'wordlevel'")

    def _arithmetic(self, tokenizer: Tokenizer) -> dict[str, Any]:
        shape = {"norm": "post", "activation": "gelu", "epsilon": 1e-12}
        return {**shape, "token_types": 2, "masked_head": True, "padding": tokenizer.padding}

    def _check_pretrained(self) -> None:
        super()._check_pretrained()
        self._mask()

    def _mask(self) -> int:
        """The mask token; ValueError if the model cannot predict masked tokens."""
        if self.transformer.masked_head is None:
            raise ValueError(
                "this model has no masked-token head, the layers that predict masked tokens: read a model that has "
                "them, such as bert-base-uncased, or train one, BERT().fit(texts)"
            )
        if self.tokenizer_.mask is None:
            raise ValueError("this model's tokenizer has no mask token")
        return self.tokenizer_.mask

    def _batches(self, ids: data.TokenIds, tokenizer: Tokenizer) -> data.Batches:
        return data.MaskedBatches(
            ids, tokenizer, length=self.length, probability=self.masked, whole_words=self.whole_word, seed=self.seed
        )

    def fill_mask(self, text: str, topn: int = 5) -> list[list[tuple[str, float]]]:
        """For each mask token of a text, the `topn` most likely tokens and their probabilities, the most likely first.

        ValueError if the text has no mask, or more tokens than the model has positions; if the model has no
        masked-token head.
        """
        whole_number("topn", topn, low=1)
        if not isinstance(text, str):
            raise TypeError(f"the text must be a str, not {type(text).__name__}")
        mask = self._mask()
        (encoding,) = self.encoded([text], None)
        places = [i for i, one in enumerate(encoding.ids) if one == mask]
        if not places:
            raise ValueError(f"the text has no {self.tokenizer_.tokens[mask]}: {text!r}")
        transformer = self.transformer
        ids = torch.tensor([encoding.ids], device=self.place())
        with self._running():
            scores = transformer.logits(transformer(ids)[:, places])[0].float().cpu()
        return [self._likeliest(one, topn) for one in scores]


def load_transformer(folder: Path, *, device: str = "cpu") -> ContextualModel:
    """Read a folder of the Hugging Face layout as a `GPT` or a `BERT`; raises as `GPT.from_pretrained` does."""
    config = read_config(folder)
    kind = GPT if config.get("model_type") == "gpt2" or config.get("is_decoder") is True else BERT
    return kind.from_pretrained(folder, device=device)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder; OSError if it is missing, ValueError if it is damaged."""
    return huggingface.read_json(transformer_folder(folder) / huggingface.CONFIG)
