"""GPT and BERT: one transformer, read from the left or from both sides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from firth.checks import real_number, whole_number
from firth.contextual import data, generation, huggingface
from firth.contextual.encoding import Sentence, checked_sentences
from firth.contextual.sentences import transformer_folder
from firth.contextual.tokenizer import Tokenizer
from firth.contextual.tokenizer_training import Kind
from firth.contextual.transformer import IGNORED, Architecture
from firth.contextual.transformer_model import ContextualModel
from firth.options import option

_NO_MASKED_HEAD = (
    "this model has no head for masks, the layers that predict masked tokens: read a model that has them, such as "
    "bert-base-uncased, or train one, BERT().fit(texts)"
)


@dataclasses.dataclass(frozen=True)
class Score:
    """How well texts are predicted.

    Attributes
    ----------
    nats
        Mean loss of a piece, in nats.
    pieces
        How many were predicted.
    perplexity
        exp(nats).
    bits_per_byte
        All bits over all bytes of the texts as UTF-8: what models of other tokenizers can be compared by.
    """

    nats: float
    pieces: int
    perplexity: float
    bits_per_byte: float


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class GPT(ContextualModel):
    r"""A causal transformer: each piece of text told from those before it (Radford et al. 2019).

    The architecture is GPT-2's: norms before each part and at the end, learnt positions, GELU by the hyperbolic
    tangent. It learns the next piece at every position at once.

    Parameters
    ----------
    layers, heads, dim
        Blocks; attention heads in each; numbers in a state, a multiple of `heads`.
    length
        Positions: the most pieces that are read at once, and those of a sequence that is learnt from.
    mlp_dim
        Numbers in the middle of a block's MLP; None: 4 times `dim`.
    dropout, attention_dropout
        Shares of states and of attention weights that are dropped in training.
    attention
        "firth": the fused kernels; "torch": torch's own attention, for comparison.
    tied
        Whether the unembedding is the embedding's matrix.
    tokenizer
        "bpe", "wordpiece" or "wordlevel": `fit` trains such a tokenizer on the texts (see `Tokenizer.train`). Or a
        `Tokenizer`, a `tokenizers.Tokenizer`, or a fast tokenizer of `transformers`. The one in use is `tokenizer_`; it
        is saved with the model. `Tokenizer(...)` takes the names of special tokens where they are not the usual ones.
    vocabulary_size, min_count, lowercase
        Of the tokenizer that `fit` trains, see `Tokenizer.train`.
    pretrained_vectors
        `firth.Vectors` from which the rows of W_E start: a piece that is a word takes its row; other pieces
        are composed of n-grams of characters where the vectors can do that (`FastText`), or start at random.
        `static_start` then tells how many are which.
    embedding_mode
        "tuned": these rows are trained as all other weights. "frozen": they stay as they are. "frozen_first": they stay
        for the first `embedding_steps` steps.
    embedding_steps
        See there.
    embedding_project
        Whether vectors of another size are mapped to `dim` linearly, see `static_start.static_rows`; an error, if not.
    embedding_std
        Scale the rows by one number to this standard deviation, which is that of the other weights at the start; None:
        as they are, which begins several nats worse than at random where word2vec's rows are also the unembedding.
    epochs, steps
        Passes over the texts; or, if given, steps.
    batch_size, accumulate
        Sequences in a batch, and batches whose gradients make one step.
    learning_rate, min_learning_rate, warmup, weight_decay, clip, bf16, evaluate_every, evaluate_batches
        See `Schedule`.
    documents
        Where texts of a file end: at the end of each "lines", or at "blank_lines".
    validation
        Share of the texts set apart as the validation split, for the `validation_loss` in `history`.
    device
        "cpu", "cuda", ...
    seed
        Same seed, same number of threads: the same model.
    threads
        Of torch; None: as many as torch uses. Cutting texts into pieces takes all processors, or as many as
        RAYON_NUM_THREADS of the environment says.

    Attributes
    ----------
    history : History
        With the validation loss and perplexity.
    tokenizer_ : Tokenizer
    static_start : StaticStart or None
    transformer : Transformer
        The torch module.

    Examples
    --------
    >>> gpt = GPT(layers=4, heads=4, dim=256, epochs=3).fit("mine.txt")
    >>> continuation = gpt.generate("The bank", max_new=20, temperature=0.8, stop="\n")
    """

    causal: ClassVar[bool] = True
    _special: ClassVar[bool] = False

    def _architecture(self, tokenizer: Tokenizer) -> Architecture:
        return Architecture(
            vocabulary_size=len(tokenizer),
            layers=self.layers,
            heads=self.heads,
            dim=self.dim,
            length=self.length,
            mlp_dim=self.mlp_dim or 4 * self.dim,
            causal=True,
            norm="pre",
            activation="gelu_tanh",
            epsilon=1e-5,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            tied=self.tied,
        )

    def _batches(self, ids: data.TokenIds, tokenizer: Tokenizer) -> data.Batches:
        return data.NextTokenBatches(ids, length=self.length, seed=self.seed)

    def score(self, texts: Sequence[Sentence], *, stride: int | None = None) -> Score:
        """How well texts are foretold, their ends included.

        Parameters
        ----------
        texts
            Strings, or lists of words. They are read as one stream, each closed by the end-of-text piece.
        stride
            Pieces by which the window of `length` pieces moves on; each piece is foretold once, from `length - stride`
            pieces at least. None: half of `length`.

        Raises
        ------
        ValueError
            If there is no text.
        """
        tokenizer, length = self.tokenizer_, self.transformer.architecture.length
        stride = max(length // 2, 1) if stride is None else whole_number("stride", stride, low=1, high=length)
        given = checked_sentences(texts, "texts")
        ends = [] if tokenizer.end is None else [tokenizer.end]
        stream = [*ends]
        for pieces in tokenizer.encode_ids(given):
            stream += [*pieces.tolist(), *ends]
        if len(stream) <= len(ends) + (len(ends) * len(given)):
            raise ValueError("the texts hold no piece: there is nothing to foretell")
        transformer, device = self.transformer, self._place()
        nats, done = 0.0, 1  # pieces that are foretold, or begin the stream
        while done < len(stream):
            end = min(max(done, length - stride) + stride, len(stream) - 1, done - 1 + length)
            begin = max(0, end - length)
            ids = torch.tensor([stream[begin:end]], device=device)
            targets = torch.tensor([stream[begin + 1 : end + 1]], device=device)
            targets[:, : done - 1 - begin] = IGNORED
            with self._running():
                nats += float(transformer.loss(transformer(ids), targets)) * (end + 1 - done)
            done = end + 1
        pieces_told = len(stream) - 1
        size = sum(len((one if isinstance(one, str) else " ".join(one)).encode(errors="replace")) for one in given)
        mean = nats / pieces_told
        return Score(mean, pieces_told, math.exp(min(mean, 700)), nats / math.log(2) / max(size, 1))

    def next_tokens(self, text: str, topn: int = 10) -> list[tuple[str, float]]:
        """What may come next, the likeliest first.

        Parameters
        ----------
        text
            What comes before; "" asks for the beginning of a text.
        topn
            How many pieces.

        Returns
        -------
        list of (str, float)
            Pieces, with the blank before them where it is part of them, and their probabilities.

        Raises
        ------
        ValueError
            If the text has more pieces than the model has positions.
        """
        whole_number("topn", topn, low=1)
        ids = torch.tensor([self._prompt(text)], device=self._place())
        transformer = self.transformer
        with self._running():
            scores = transformer.logits(transformer(ids)[:, -1:])[0, -1].float().cpu()
        return self._likeliest(scores, topn)

    def generate(
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
    ) -> str:
        """Go on with a text.

        Parameters
        ----------
        prompt
            The text; or a conversation, a list of dicts of "role" and "content", which is written as `template` says
            and ends where the role "assistant" begins to speak.
        max_new
            Pieces at the most.
        temperature
            What scores are divided by: below 1 for likelier texts; 0 takes the likeliest piece each time.
        top_k
            Draw among so many pieces alone.
        top_p
            Draw among the fewest pieces that have this probability together (Holtzman et al. 2020).
        stop
            Strings that end the text, and are not part of it. In a conversation, the beginning of another turn does so
            too.
        template
            Of a turn in a conversation. It should be that of the texts that the model learnt from.
        seed
            The same one gives the same text; None: another text each time.
        cache
            Keep keys and values of what was read. Without, every piece reads everything anew: the same text, slower.

        Returns
        -------
        str
            What follows the prompt, without it: up to a stop string, the end-of-text piece, or `max_new`.

        Raises
        ------
        ValueError
            If the prompt has more pieces than the model has positions, or an option is out of range.

        Notes
        -----
        When all positions are taken, the latter half of them is read again as the beginning of what follows.
        """
        text = "".join(
            self.stream(
                prompt,
                max_new=max_new,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                stop=stop,
                template=template,
                seed=seed,
                cache=cache,
            )
        )
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
        """`generate` part by part, as the text comes: an iterator of strings. Parameters are those of `generate`."""
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
                raise ValueError(f"stop must be strings that are not empty, not {one!r}")
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
        return self._spoken(ids, stops, given)

    def _spoken(self, ids: Iterator[int], stops: list[str], given: list[int]) -> Iterator[str]:
        words = generation.text_until(ids, self.tokenizer_.decode, stops, given)
        while True:
            with self._running():
                said = next(words, None)
            if said is None:
                return
            yield said

    def _prompt(self, text: str) -> list[int]:
        """Pieces of a text to go on with; that of the end of the text before it, if there are none."""
        if not isinstance(text, str):
            raise TypeError(f"the text must be a str, not {type(text).__name__}")
        tokenizer, positions = self.tokenizer_, self.transformer.architecture.length
        ids = tokenizer.encode(text, special=False).ids
        if not ids:
            if tokenizer.end is None:
                raise ValueError("the text has no piece, and this tokenizer no end-of-text piece to begin after")
            return [tokenizer.end]
        if len(ids) > positions:
            raise ValueError(f"the text has {len(ids)} pieces and the model {positions} positions: give its end alone")
        return ids


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class BERT(ContextualModel):
    """A transformer that sees both sides: masked pieces told from all others (Devlin, Chang, Lee & Toutanova 2019).

    The architecture is BERT's: norms after each part and after the embeddings, learnt positions, GELU, one more layer
    before the unembedding. Of the pieces that are to be told, 80 % are masked, 10 % are others, 10 % stay. There is no
    next-sentence task.

    Parameters
    ----------
    masked
        Share of the pieces that are to be told.
    whole_word
        Whether all pieces of a word are, or none.
    tokenizer
        "wordpiece", "wordlevel", or a tokenizer with a mask token.

    Notes
    -----
    All other options are those of `GPT`.

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
    _special: ClassVar[bool] = True

    tokenizer: Tokenizer | Kind = option("wordpiece", checked=False)
    masked: float = option(0.15, above=0, high=0.9)
    whole_word: bool = True
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

    def _architecture(self, tokenizer: Tokenizer) -> Architecture:
        return Architecture(
            vocabulary_size=len(tokenizer),
            layers=self.layers,
            heads=self.heads,
            dim=self.dim,
            length=self.length,
            mlp_dim=self.mlp_dim or 4 * self.dim,
            causal=False,
            norm="post",
            activation="gelu",
            epsilon=1e-12,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            token_types=2,
            tied=self.tied,
            masked_head=True,
            padding=tokenizer.padding,
        )

    def _check_pretrained(self) -> None:
        super()._check_pretrained()
        if self.transformer.masked_head is None:
            raise ValueError(_NO_MASKED_HEAD)
        if self.tokenizer_.mask is None:
            raise ValueError("this model's tokenizer has no mask token, which training BERT needs")

    def _batches(self, ids: data.TokenIds, tokenizer: Tokenizer) -> data.Batches:
        return data.MaskedBatches(
            ids, tokenizer, length=self.length, probability=self.masked, whole_words=self.whole_word, seed=self.seed
        )

    def fill_mask(self, text: str, topn: int = 5) -> list[list[tuple[str, float]]]:
        """What may stand where a text has [MASK].

        Parameters
        ----------
        text
            With one or several [MASK] (or what else the tokenizer calls its mask).
        topn
            How many pieces for each.

        Returns
        -------
        list of list of (str, float)
            For each mask, pieces and their probabilities, the likeliest first.

        Raises
        ------
        ValueError
            If the text has no mask, or more pieces than the model has positions; if the model has no head for masks.
        """
        whole_number("topn", topn, low=1)
        if not isinstance(text, str):
            raise TypeError(f"the text must be a str, not {type(text).__name__}")
        tokenizer = self.tokenizer_
        if tokenizer.mask is None:
            raise ValueError("this model's tokenizer has no mask")
        if self.transformer.masked_head is None:
            raise ValueError(_NO_MASKED_HEAD)
        (encoding,) = self._encoded([text], None)
        places = [i for i, one in enumerate(encoding.ids) if one == tokenizer.mask]
        if not places:
            raise ValueError(f"the text has no {tokenizer.pieces[tokenizer.mask]}: {text!r}")
        transformer = self.transformer
        ids = torch.tensor([encoding.ids], device=self._place())
        with self._running():
            scores = transformer.logits(transformer(ids)[:, places])[0].float().cpu()
        return [self._likeliest(one, topn) for one in scores]


def load_transformer(folder: Path, *, device: str = "cpu") -> ContextualModel:
    """Read a folder of the Hugging Face layout as the model that it holds, a `GPT` or a `BERT`.

    Raises
    ------
    OSError, ValueError
        As from `GPT.from_pretrained`.
    """
    config = read_config(folder)
    kind = GPT if config.get("model_type") == "gpt2" or config.get("is_decoder") is True else BERT
    return kind.from_pretrained(folder, device=device)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model's folder.

    Raises
    ------
    OSError
        If it is not there.
    ValueError
        If it is not what it should be.
    """
    return huggingface.read_json(transformer_folder(folder) / huggingface.CONFIG)
