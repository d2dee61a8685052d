"""What GPT and BERT share: a transformer over a tokenizer, its folders, `encode` and attention maps."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import os
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from firth import files
from firth.checks import one_of, whole_number
from firth.contextual import huggingface
from firth.contextual.base import FIRST_MODEL, Setup, TrainedModel, read_description
from firth.contextual.data import Batch, Batches, TokenIds
from firth.contextual.encoding import (
    BATCH_TOKENS,
    Pooling,
    Sentence,
    WordPooling,
    by_length,
    checked_sentences,
    chosen_layers,
    numbers_below,
    pooled_texts,
    unit_rows,
    word_means,
)
from firth.contextual.figures import AttentionMaps
from firth.contextual.hub import local_folder
from firth.contextual.processes import device_of, is_first_process
from firth.contextual.sentences import MODULES, SentenceModules, sentence_modules, transformer_folder
from firth.contextual.static_start import StaticStart, check_size, static_rows
from firth.contextual.tokenizer import FILE as TOKENIZER
from firth.contextual.tokenizer import Encoding, Tokenizer
from firth.contextual.tokenizer_training import Kind
from firth.contextual.transformer import IGNORED, Architecture, Transformer
from firth.options import option, shown
from firth.run import CHECKPOINT, records
from firth.text import Documents, read_texts
from firth.vectors import Vectors

if typing.TYPE_CHECKING:
    from typing_extensions import Self

DESCRIPTION = "firth.json"  # beside the checkpoint's own files: options and history
HEAD = "head.safetensors"  # where there is one, the folder is a classifier's
_OF_ARCHITECTURE = ("layers", "heads", "dim", "length", "mlp_dim", "tied", "dropout", "attention_dropout")
_OF_TOKENIZER = ("tokenizer", "vocabulary_size", "min_count", "lowercase")
_OF_EMBEDDING = ("pretrained_vectors", "embedding_mode", "embedding_steps", "embedding_project", "embedding_std")
_OF_FOLDER = {"attention", *_OF_ARCHITECTURE, *_OF_TOKENIZER, *_OF_EMBEDDING}  # what no option of training decides


@dataclasses.dataclass(kw_only=True, eq=False)
class ContextualModel(TrainedModel):
    """A transformer over a tokenizer's tokens: what GPT and BERT share."""

    causal: ClassVar[bool]  # a token sees only itself and those before it
    special: ClassVar[bool]  # puts special tokens around a text

    layers: int = option(4, low=1, high=1000, help="Blocks of the transformer.")
    heads: int = option(4, low=1, high=1000, help="Attention heads in a block.")
    dim: int = option(256, low=1, high=100_000, help="Dimensions of a hidden state.")
    length: int = option(256, low=2, high=1_000_000, help="Longest sequence, in tokens.")
    mlp_dim: int | None = option(
        None, low=1, high=1_000_000, help="Hidden dimensions of a block's MLP.", unset="4 times `dim`"
    )
    dropout: float = option(0.1, low=0, high=0.99, help="Share of hidden values that are dropped in training.")
    attention_dropout: float = option(
        0.1, low=0, high=0.99, help="Share of attention weights that are dropped in training."
    )
    attention: Literal["firth", "torch"] = option(
        "firth", help="Compute attention by the fused kernels, or by torch, for comparison."
    )
    tied: bool = option(True, help="Use the embedding's matrix as the unembedding too.")
    tokenizer: Tokenizer | Kind = option(
        "bpe", checked=False, help="Train such a tokenizer on the text, or use the given one."
    )
    vocabulary_size: int = option(8000, low=1, high=10_000_000, help="Tokens in the vocabulary, at most.")
    min_count: int = option(2, low=1, high=2**62, help="Leave out words and subwords that are rarer.")
    lowercase: bool = option(False, help="Convert text to lower case.")
    pretrained_vectors: Vectors | None = option(None, checked=False, help="Initial word vectors.")
    embedding_mode: Literal["tuned", "frozen", "frozen_first"] = option(
        "tuned", help="With `pretrained_vectors`: continue to train the vectors, freeze them, or freeze them at first."
    )
    embedding_steps: int = option(
        1000, low=1, high=2**62, help='With `embedding_mode` "frozen_first": freeze them for so many steps.'
    )
    embedding_project: bool = option(
        False, help="With `pretrained_vectors`: map vectors of another size to `dim` by a linear layer."
    )
    embedding_std: float | None = option(
        0.02, above=0, high=1e6, help="With `pretrained_vectors`: scale the vectors to this standard deviation."
    )
    bf16: bool | None = option(None, help="Multiply matrices in bf16, or in float32.", unset="where it is faster")
    documents: Documents = option(
        "lines", help="A document of a file ends at the end of its line, or at the next blank line."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        given: Any = self.tokenizer
        if isinstance(given, str):
            if given not in typing.get_args(Kind):
                raise ValueError(
                    f"tokenizer must be 'bpe', 'wordpiece' or 'wordlevel', or a Tokenizer, not {given!r}; "
                    "Tokenizer.load(path) opens one"
                )
        elif not isinstance(given, Tokenizer):
            self.__dict__["tokenizer"] = Tokenizer(given)
        if self.pretrained_vectors is not None:
            if not isinstance(self.pretrained_vectors, Vectors):
                raise TypeError(
                    f"pretrained_vectors must be firth.Vectors, not {type(self.pretrained_vectors).__name__}"
                )
            check_size(self.pretrained_vectors, self.dim, self.embedding_project)
        elif self.embedding_mode != "tuned":
            raise ValueError(f"embedding_mode={self.embedding_mode!r} needs pretrained_vectors")
        self.static_start: StaticStart | None = None
        self.sentence_modules: SentenceModules | None = None  # of a folder of sentence-transformers
        self._transformer: Transformer | None = None
        self._tokenizer = None if isinstance(self.tokenizer, str) else self.tokenizer

    # ---- what was trained

    @property
    def transformer(self) -> Transformer:
        """The torch module; AttributeError before `fit`."""
        if self._transformer is None:
            raise AttributeError(f"this {type(self).__name__} has not been fitted: {FIRST_MODEL}")
        return self._transformer

    def _module(self) -> Transformer:
        return self.transformer

    @property
    def vectors(self) -> Vectors:
        """The rows of the embedding, a static vector for each token (a copy); AttributeError before `fit`."""
        weights = self.transformer.embedding.weight.detach().float().cpu().numpy()
        # The model may have rows beyond the tokenizer's tokens, and the tokenizer ids without a token.
        rows = {token: row for row, token in enumerate(self.tokenizer_.tokens) if token}
        return Vectors(list(rows), weights[list(rows.values())])

    @property
    def tokenizer_(self) -> Tokenizer:
        """The tokenizer in use: given, read from a folder, or trained by `fit`; AttributeError if there is none yet."""
        if self._tokenizer is None:
            raise AttributeError(f"this {type(self).__name__} has no tokenizer: {FIRST_MODEL}")
        return self._tokenizer

    def __repr__(self) -> str:
        if self._transformer is None:
            return shown(self, "")
        shape = f"layers={self.layers}, heads={self.heads}, dim={self.dim}, length={self.length}"
        return shown(self, f"{len(self.tokenizer_):,} tokens, {shape}")

    # ---- training

    def _prepare(self, data: Any, folder: Path | None, *, resume: bool, pretrained: bool, progress: bool) -> Setup:
        tokenizer = self._tokenizer_for(data, folder if resume else None, pretrained, progress=progress)
        ids = self._ids_of(data, tokenizer, progress=progress)
        torch.manual_seed(self.seed)
        if pretrained:
            transformer, start = copy.deepcopy(self.transformer), self.static_start
        else:
            transformer = Transformer(self._architecture(tokenizer), self.attention)
            start = self._start_from_vectors(transformer, tokenizer)
        batches = self._batches(ids, tokenizer)
        decisive = ["embedding_mode", "embedding_steps"]
        if isinstance(self.tokenizer, str) and not pretrained:
            decisive += _OF_TOKENIZER
            # `resume` needs a tokenizer that is trained here; the caller gives all others again.
            if folder is not None and not (folder / CHECKPOINT).exists():
                if (folder / huggingface.CONFIG).exists():
                    raise ValueError(f"{folder} holds a saved model: give checkpoint= a folder of its own")
                if is_first_process():
                    folder.mkdir(parents=True, exist_ok=True)
                    tokenizer.save(folder / TOKENIZER)
        return Setup(
            module=transformer,
            batches=batches,
            loss=_loss,
            examples=len(ids.train) / self.length,
            state={
                "_tokenizer": tokenizer,
                "_transformer": transformer,
                "static_start": start,
                "sentence_modules": self.sentence_modules if pretrained else None,
            },
            shared=self._some(*decisive),
            before_step=self._freezing(transformer, start),
        )

    def _architecture(self, tokenizer: Tokenizer) -> Architecture:
        options = {**self._some(*_OF_ARCHITECTURE), **self._arithmetic(tokenizer), "mlp_dim": self.mlp_dim or 0}
        return Architecture(vocabulary_size=len(tokenizer), causal=self.causal, **options)

    def _arithmetic(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """Fields of the architecture that are the same for all models of this kind."""
        raise NotImplementedError

    def _batches(self, ids: TokenIds, tokenizer: Tokenizer) -> Batches:
        raise NotImplementedError

    def _tokenizer_for(self, data: Any, kept: Path | None, pretrained: bool, *, progress: bool) -> Tokenizer:
        """The tokenizer that was given, that a resumed training began with, or one trained on the texts."""
        kind = self.tokenizer
        if not isinstance(kind, str):
            return kind
        if self._tokenizer is not None and (pretrained or isinstance(data, TokenIds)):
            return self._tokenizer
        if isinstance(data, TokenIds):
            raise ValueError("TokenIds need the tokenizer that made them: give tokenizer=")
        if kept is not None and (kept / CHECKPOINT).exists() and (kept / TOKENIZER).exists():
            return Tokenizer.load(kept / TOKENIZER)
        if isinstance(data, Iterator):
            raise TypeError(
                "fit reads the texts twice, the first time for its tokenizer, and this iterator can be read once: "
                "give a list, a file, or tokenizer="
            )
        return Tokenizer.train(
            _texts(data, self.documents, progress=progress),
            **self._some(*_OF_TOKENIZER),
            progress=progress,
        )

    def _ids_of(self, data: Any, tokenizer: Tokenizer, *, progress: bool) -> TokenIds:
        if isinstance(data, TokenIds):
            if data.vocabulary_size != len(tokenizer):
                raise ValueError(
                    f"the ids are of a vocabulary of {data.vocabulary_size} tokens and the tokenizer has "
                    f"{len(tokenizer)}: it did not make them"
                )
            ids = data
        else:
            _texts(data, self.documents)
            ids = TokenIds.build(
                data, tokenizer, validation=self.validation, seed=self.seed, documents=self.documents, progress=progress
            )
        if not ids.knows(tokenizer.special):
            raise ValueError(
                "the tokenizer knows no word of these texts, so all would be one unknown token: give other texts, or "
                "tokenizer='bpe' to train one"
            )
        return ids

    def _start_from_vectors(self, transformer: Transformer, tokenizer: Tokenizer) -> StaticStart | None:
        """Copy the rows of `pretrained_vectors` into the embedding."""
        if self.pretrained_vectors is None:
            return None
        start = static_rows(
            self.pretrained_vectors,
            tokenizer,
            self.dim,
            project=self.embedding_project,
            std=self.embedding_std,
            seed=self.seed,
        )
        found = torch.from_numpy(start.found)
        with torch.no_grad():
            transformer.embedding.weight[found] = torch.from_numpy(start.rows)[found]
        return start

    @contextlib.contextmanager
    def _freezing(
        self, transformer: Transformer, start: StaticStart | None
    ) -> Iterator[Callable[[int], object] | None]:
        """The function, called before each step, that keeps the rows of `pretrained_vectors` fixed."""
        if start is None or self.embedding_mode == "tuned":
            yield None
            return
        still = torch.from_numpy(start.found)[:, None]
        until = math.inf if self.embedding_mode == "frozen" else self.embedding_steps
        frozen = True

        def hold(gradient: Tensor) -> Tensor:
            # AdamW changes nothing whose gradients were all zero, and embeddings do not decay.
            return gradient.masked_fill(still.to(gradient.device), 0) if frozen else gradient

        def note(step: int) -> None:
            nonlocal frozen
            frozen = step < until

        handle = transformer.embedding.weight.register_hook(hold)  # type: ignore[no-untyped-call]
        try:
            yield note
        finally:
            handle.remove()  # other ways to train the module must not see it

    # ---- files

    def save(self, path: files.PathLike) -> None:
        """Write a folder in the layout of Hugging Face, which `firth.load` reads and `transformers` opens.

        It holds config.json, model.safetensors and tokenizer.json, and firth.json with the options and the history. An
        older model there is replaced when all files are written; an error leaves it as it was. `pretrained_vectors` are
        not saved. AttributeError before `fit`; OSError if the folder cannot be written.
        """
        self.save_with_head(path)

    def save_with_head(
        self,
        path: files.PathLike,
        write_head: Callable[[Path], object] | None = None,
        head: huggingface.FamilyHead | None = None,
    ) -> None:
        """`save`, with a classifier's head."""
        transformer, tokenizer = self.transformer, self.tokenizer_
        self.check_finite(transformer)
        with self._saving(path, stale=(HEAD, MODULES)) as folder:
            huggingface.write(folder, transformer, tokenizer, head=head)
            if self.sentence_modules is not None:
                self.sentence_modules.write(folder)
            (folder / DESCRIPTION).write_text(json.dumps(self._description(), indent=1) + "\n", encoding="utf-8")
            if write_head is not None:
                write_head(folder / HEAD)

    def _description(self) -> dict[str, Any]:
        # The initial weights are not part of the trained model.
        options = {
            name: value
            for name, value in self.get_params().items()
            if name not in ("tokenizer", "pretrained_vectors", "embedding_mode")
        }
        return {**super()._description(), "options": options}

    @classmethod
    def from_pretrained(
        cls, path: files.PathLike, *, revision: str | None = None, device: str = "cpu", **options: Any
    ) -> Self:
        """Read a pretrained model: config.json, model.safetensors and tokenizer.json, in the Hugging Face layout.

        Parameters
        ----------
        path
            The folder of a model that `save` wrote, or of a published one of this family; or the name of a repository,
            such as "gpt2", which `huggingface_hub` (the extra `hub`) downloads into its cache.
        revision
            A branch, a tag or a commit of the repository; None: its main branch.
        device
            Where the model runs.
        options
            Training options for ``fit(..., pretrained=True)``, such as `learning_rate` or `epochs`, instead of those in
            the folder. Options that the weights or the tokenizer decide cannot be changed.

        Raises
        ------
        OSError, TypeError, ValueError
            If a file or a repository is missing, or cannot be reached; if an option does not exist, or cannot be
            changed; if the folder holds a model of another family, a tensor is missing, or the tokenizer is not the
            model's own.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in options:
            if name not in known or name in _OF_FOLDER:
                raise TypeError(f"{name} is not a training option: the folder decides everything else")
        device_of(device)
        folder = local_folder(path, revision)
        home = transformer_folder(folder)
        transformer, config = huggingface.read(home)
        architecture = transformer.architecture
        if architecture.causal != cls.causal:
            other = "GPT" if architecture.causal else "BERT"
            raise ValueError(f"{folder} holds a {config.get('model_type')}: {other}.from_pretrained reads it")
        if architecture.cross:
            raise ValueError(
                f"{home / huggingface.CONFIG} describes the decoder of an encoder-decoder (add_cross_attention), whose "
                "blocks attend to an encoder's hidden states, which are missing"
            )
        tokenizer = Tokenizer.load(home)
        huggingface.check_tokenizer(home, config, tokenizer, architecture.vocabulary_size)
        modules, tokenizer = sentence_modules(folder, tokenizer, dim=architecture.dim, positions=architecture.length)
        place = folder / DESCRIPTION
        described = read_description(place, cls.__name__) if place.exists() else {}  # missing in published models
        saved = described.get("options", {})
        if not isinstance(saved, dict):
            raise ValueError(f"{place} is damaged: its options are not a JSON object")
        saved = {name: value for name, value in saved.items() if name in known}
        saved |= {name: getattr(architecture, name) for name in _OF_ARCHITECTURE}
        saved |= {"attention": "firth", "device": device}
        try:
            model = cls(**saved)
            model._restore({}, described)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{place} is damaged, or of another version of firth: {error}") from None
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from None
        if options:
            history, model = model.history, dataclasses.replace(model, **options)
            model.history = history
        # Not through the constructor: a model that is only used needs no mask token.
        model.__dict__["tokenizer"] = model._tokenizer = tokenizer
        model.sentence_modules = modules
        model._transformer = transformer.to(model.place()).eval()
        model._from_folder = True
        return model

    load = from_pretrained

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        """Restore the history of a folder; `from_pretrained` reads the weights."""
        self.history = records(metadata.get("history", []))

    # ---- use

    def encode(
        self,
        sentences: Sequence[Sentence],
        *,
        layer: int | Sequence[int] | Literal["all"] = -1,
        pooling: Pooling | Literal["tokens"] | None = None,
        word_pooling: WordPooling | None = None,
        normalize: bool = False,
        truncate: int | None = None,
        bf16: bool = False,
        progress: bool = False,
    ) -> Any:
        """Hidden states of sentences: one for each token, for each word, or for the whole.

        Parameters
        ----------
        sentences
            Strings, or lists of words.
        layer
            Which hidden states: 0 are the embeddings, `layers` or -1 the last. A list of layers, or "all" of them from
            0 on, are computed in one pass.
        pooling
            How to pool the hidden states of all tokens, special ones included, into one vector: their "mean", their
            "max", the "first" or the "last" one. "cls" is the first one where it is a special token, as BERT's [CLS].
            "tokens": one vector for each token. None: if the model was read from a folder of sentence-transformers, the
            vectors that this library returns, with the folder's pooling, prompt and modules; otherwise "tokens".
        word_pooling
            Pool the hidden states of each word's tokens in one of these ways, except "cls". The tokenizer decides what
            the words of a string are.
        normalize
            Scale every vector to length 1.
        truncate
            Truncate sentences to at most this many tokens, but with `word_pooling` cut no word. None: all tokens; with
            the pooling of a folder of sentence-transformers, its max_seq_length.
        bf16
            Multiply matrices in bf16, which is faster where the processor has instructions for it (AMX, AVX512-BF16).
        progress
            Show a bar.

        Returns
        -------
        list of ndarray, or ndarray
            For each sentence float32 (tokens, dim), special tokens included, or (words, dim); with `pooling` one array
            (sentences, dim), zeros for a sentence without a token. Modules of sentence-transformers may change dim. A
            list of layers adds an axis: (layers, tokens, dim), (layers, words, dim) and (sentences, layers, dim).

        Raises
        ------
        ValueError
            If a sentence has more tokens than the model has positions, or `truncate` cuts a word, naming both.
        """
        layers, single = chosen_layers(layer, self.layers)
        if pooling is not None:
            one_of("pooling", pooling, (*typing.get_args(Pooling), "tokens"))
            if pooling == "cls":
                self.check_cls()
        if word_pooling is not None:
            one_of("word_pooling", word_pooling, typing.get_args(WordPooling))
            if pooling is not None:
                raise ValueError(
                    "pooling and word_pooling exclude each other: one vector for a sentence, or one for a word"
                )
        modules = self.sentence_modules if pooling is None and word_pooling is None else None
        pooling = None if pooling == "tokens" else pooling
        width, skip, special = self.dim, 0, self.special
        given = checked_sentences(sentences)
        if modules is not None:
            given = modules.prompted(given)
            truncate = modules.length if truncate is None else truncate
            width, skip, special = modules.width, modules.skipped(self.tokenizer_), True
        encodings = self.encoded(given, truncate, special=special)
        if word_pooling is not None:
            self._check_words(given, encodings)
        # For a sentence without a token nothing is computed; its words, if it has any, are zeros.
        found = [
            np.zeros((0 if word_pooling is None else one.n_words, len(layers), self.dim), np.float32)
            for one in encodings
        ]
        whole = np.zeros((len(encodings), len(layers), width), np.float32)
        for rows, states, lengths in self._states(encodings, layers, bf16=bf16, progress=progress):
            if modules is not None:
                with self._running():
                    whole[rows] = modules.vectors(states, lengths, skip).cpu().numpy()
                continue
            if pooling is not None:
                whole[rows] = pooled_texts(states, lengths, pooling).cpu().numpy()
                continue
            batch = states.cpu().numpy()
            for i, row in enumerate(rows):
                own = batch[i, : len(encodings[row].ids)].copy()
                found[row] = own if word_pooling is None else np.asarray(word_means(own, encodings[row], word_pooling))
        if normalize:
            whole, found = unit_rows(whole), [unit_rows(one) for one in found]
        if pooling is not None or modules is not None:
            return whole[:, 0] if single else whole
        return [one[:, 0] if single else np.ascontiguousarray(one.swapaxes(0, 1)) for one in found]

    def logits(self, texts: str | Sequence[Sentence], *, truncate: int | None = None) -> NDArray[np.float32]:
        """Scores of every token at every position of one text or several, float32 (texts, time, vocabulary).

        At position t, GPT scores the token at t + 1 and BERT the one at t. Beyond the end of a text they are NaN.
        """
        encodings = self.encoded([texts] if isinstance(texts, str) else texts, truncate)
        time = max((len(one.ids) for one in encodings), default=0)
        scores = np.full((len(encodings), time, len(self.tokenizer_)), np.nan, np.float32)
        for rows, states, _ in self._states(encodings, [self.layers]):
            with self._running():
                batch = self.transformer.logits(states[:, :, 0]).float().cpu().numpy()
            for i, row in enumerate(rows):
                n = len(encodings[row].ids)
                scores[row, :n] = batch[i, :n, : scores.shape[2]]
        return scores

    def attention_maps(
        self, sentence: Sentence, *, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None
    ) -> AttentionMaps:
        """Attention weights of a sentence, a string or a list of words, for the chosen layers and heads.

        `layers` and `heads` are numbers from 0, or from the end if negative; None: all. ValueError if one does not
        exist, or the sentence has no token, or more than the model has positions.
        """
        (encoding,) = self.encoded([sentence], None)
        if not encoding.ids:
            raise ValueError("the sentence has no token, so there are no attention weights")
        chosen = numbers_below("layers", layers, self.layers)
        some = numbers_below("heads", heads, self.heads)
        transformer = self.transformer
        ids = torch.tensor([encoding.ids], device=self.place())
        with self._running():
            maps = transformer.maps(ids, layers=chosen, heads=some)
        weights = {layer: np.asarray(maps[layer])[0] for layer in chosen}
        return AttentionMaps([self._shown(one) for one in encoding.ids], weights, some)

    def encoded(
        self,
        sentences: Sequence[Sentence],
        truncate: int | None,
        name: str = "sentences",
        *,
        special: bool | None = None,
    ) -> list[Encoding]:
        """The tokens of sentences, checked before anything is computed."""
        special = self.special if special is None else special
        tokenizer, positions = self.tokenizer_, self.transformer.architecture.length
        given = checked_sentences(sentences, name)
        if truncate is not None:
            whole_number("truncate", truncate, low=3 if special else 1, high=positions)
        encodings = tokenizer.encode_batch(given, special=special, length=truncate)
        self.check_lengths(name, [len(one.ids) for one in encodings])
        return encodings

    def check_lengths(self, name: str, lengths: Iterable[int]) -> None:
        """ValueError for a text with more tokens than the model has positions."""
        positions = self.transformer.architecture.length
        for i, length in enumerate(lengths):
            if length > positions:
                raise ValueError(
                    f"{name}[{i}] has {length} tokens and the model {positions} positions: "
                    f"split it, or give truncate={positions}"
                )

    def _states(
        self, encodings: Sequence[Encoding], layers: Sequence[int], *, bf16: bool = False, progress: bool = False
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Sentences of similar length at a time: which ones, float32 states (n, time, layers, dim), lengths (n,)."""
        transformer = self.transformer
        device, padding = self.place(), self.padding
        batches = list(by_length([len(one.ids) for one in encodings], BATCH_TOKENS))
        for rows in tqdm(batches, desc="encode", unit=" batches", disable=not progress):
            lengths = torch.tensor([len(encodings[row].ids) for row in rows])
            ids = torch.full((len(rows), int(lengths.max())), padding)
            for i, row in enumerate(rows):
                ids[i, : lengths[i]] = torch.tensor(encodings[row].ids)
            ids, lengths = ids.to(device), lengths.to(device)
            masked = None if int(lengths.min()) == ids.shape[1] else lengths  # without padding, no mask
            with self._running(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                if list(layers) == [self.layers]:
                    states = [transformer(ids, lengths=masked)]
                else:
                    every = transformer(ids, lengths=masked, all_layers=True)
                    states = [every[layer] for layer in layers]
            yield rows, torch.stack([one.float() for one in states], 2), lengths

    @property
    def padding(self) -> int:
        """The token that pads short texts in a batch; lengths mask it."""
        return self.tokenizer_.padding or 0

    def check_cls(self) -> None:
        """Refuse pooling="cls" for a model without a special first token."""
        if not self.special or self.tokenizer_.start is None:
            raise ValueError(
                "pooling='cls' needs a model that puts a special token before each sentence, as BERT does; "
                "pooling='first' takes the first token of any kind"
            )

    def _check_words(self, sentences: Sequence[Sentence], encodings: Sequence[Encoding]) -> None:
        """Refuse words of which `truncate` has cut tokens: their vectors would be those of a part."""
        for i, (sentence, one) in enumerate(zip(sentences, encodings, strict=True)):
            if one.cut is None:
                continue
            whole = self.tokenizer_.encode(sentence, special=False)
            spans = [span for span, word in zip(whole.offsets, whole.words, strict=True) if word == one.cut]
            word = sentence[spans[0][0] : spans[-1][1]] if isinstance(sentence, str) else sentence[one.cut]
            raise ValueError(
                f"sentences[{i}]: truncate={len(one.ids)} cuts {word!r}, word {one.cut} counted from 0, and all words "
                f"after it: split the sentence, or raise truncate"
            )

    def _shown(self, token: int) -> str:
        """A token as text, with the space before it if that is part of it."""
        return self.tokenizer_.decode([token], special=True) or self.tokenizer_.tokens[token]

    def _likeliest(self, scores: Tensor, topn: int) -> list[tuple[str, float]]:
        chances = torch.softmax(scores[: len(self.tokenizer_)].double(), 0)
        best = torch.topk(chances, min(topn, len(chances)))
        return [(self._shown(int(i)), float(p)) for i, p in zip(best.indices, best.values, strict=True)]


def _loss(transformer: Transformer, batch: Batch) -> tuple[Tensor, Tensor]:
    """The summed loss of a batch's targets in nats, and their number."""
    targets = (batch.targets != IGNORED).sum()
    return transformer.loss(transformer(batch.inputs), batch.targets) * targets, targets


def _texts(data: Any, documents: Documents, *, progress: bool = False) -> Iterator[Any]:
    """The texts that `fit` is given; whether the first one, or the files, can be read is checked now."""
    if not isinstance(data, str | os.PathLike | Iterable):
        raise TypeError(f"fit takes texts, the path of a file, a firth.Corpus or TokenIds, not {type(data).__name__}")
    return read_texts(data, documents=documents, progress=progress)
