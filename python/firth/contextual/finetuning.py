"""Labels of sentences and of words, told by a linear head on a transformer's states: all tuned, or the head alone."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import math
import time
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from firth import files
from firth.checks import real_number
from firth.contextual import training
from firth.contextual.base import HEAD, ContextualModel, Sentence, by_length
from firth.contextual.models import load_transformer, read_config
from firth.contextual.tokenizer import Encoding
from firth.contextual.transformer import Transformer
from firth.models.base import Learner, one_at_a_time, option, records

if typing.TYPE_CHECKING:
    from typing_extensions import Self

_BATCH_PIECES = 4096  # of a batch when nothing is learnt, padding included
_HEAD_STEPS = 200  # of L-BFGS at the most
_UNKNOWN = -1  # a label that nothing was learnt of: always told wrong


@dataclasses.dataclass(frozen=True)
class TuningEpoch:
    """What one pass over the sentences gave.

    Attributes
    ----------
    epoch
        Its number, from 1. The head alone is found in one go.
    loss
        Mean cross-entropy of a label in nats, dropout included.
    held_out_loss, held_out_score
        Of the sentences set apart: the loss, and the share of labels that are told right. NaN if there are none.
    learning_rate
        At the end of the epoch.
    seconds
        Of training.
    """

    epoch: int
    loss: float
    held_out_loss: float
    held_out_score: float
    learning_rate: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class _Example:
    """A sentence, the pieces that make each of its units (itself, or its words), and the units' labels as numbers."""

    ids: list[int]
    places: list[int]
    units: list[int]  # which unit each of the places belongs to
    targets: list[int]  # _UNKNOWN for a label that is none of the classes
    missed: int = 0  # words with a label of which no piece is there


class _Batch(NamedTuple):
    """Examples as tensors; places count through the padded pieces of all sentences, units through all units."""

    ids: Tensor
    lengths: Tensor | None
    places: Tensor
    units: Tensor
    targets: Tensor

    @classmethod
    def of(cls, examples: Sequence[_Example], padding: int) -> _Batch:
        time = max(1, *(len(one.ids) for one in examples))  # of an empty text alone, one that is padded
        ids = torch.full((len(examples), time), padding)
        places: list[int] = []
        units: list[int] = []
        targets: list[int] = []
        for i, one in enumerate(examples):
            ids[i, : len(one.ids)] = torch.tensor(one.ids)
            places += [i * time + place for place in one.places]
            units += [len(targets) + unit for unit in one.units]
            targets += one.targets
        lengths = torch.tensor([len(one.ids) for one in examples])
        told = None if int(lengths.min()) == time else lengths
        return cls(ids, told, *(torch.tensor(values, dtype=torch.int64) for values in (places, units, targets)))

    def to(self, device: torch.device) -> _Batch:
        """The same on a device."""
        return _Batch(*(None if one is None else one.to(device) for one in self))  # type: ignore[arg-type]

    def features(self, transformer: Transformer) -> Tensor:
        """The mean state of each unit's pieces, (units, dim)."""
        states = transformer(self.ids, lengths=self.lengths).float().flatten(0, 1)[self.places]
        sums = states.new_zeros(len(self.targets), states.shape[1]).index_add(0, self.units, states)
        means: Tensor = sums / torch.bincount(self.units, minlength=len(self.targets)).clamp(min=1)[:, None]
        return means


class _Batches:
    """Examples in an order of chance, another one in each epoch; each step's are shared out over the processes."""

    def __init__(self, examples: list[_Example], padding: int, seed: int, processes: int = 1) -> None:
        self.examples = examples
        self.processes = processes
        self.padding = padding
        self.seed = seed
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    @property
    def fingerprint(self) -> list[int]:
        """What tells these examples from others."""
        text = repr([(one.ids, one.places, one.units, one.targets) for one in self.examples])
        return [len(self.examples), self.seed, zlib.crc32(text.encode())]

    def __call__(self, first: int, count: int) -> _Batch:
        """A step's examples. Those of an epoch end with it: its last step has fewer."""
        n, together = len(self.examples), count * self.processes
        step, process = divmod(first // count, self.processes)
        epoch, step = divmod(step, -(-n // together))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(n)
        chosen = self._order[step * together : (step + 1) * together]
        # Where fewer are left than there are processes, some see one that another sees, too: none may have nothing.
        own = chosen[process :: self.processes] if process < len(chosen) else chosen[:1]
        return _Batch.of([self.examples[i] for i in own], self.padding)

    def held_out(self, first: int, count: int) -> None:
        """Those held out are looked at by `_FineTuned`, which counts right answers too."""


class _Tuned(nn.Module):
    """What is trained: a transformer and the head on it."""

    def __init__(self, transformer: Transformer, head: nn.Linear) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = head


@dataclasses.dataclass(kw_only=True, eq=False)
class _FineTuned(Learner):
    """What both kinds of labels share."""

    encoder: ContextualModel = dataclasses.field(metadata={"checked_by_class": True})
    head_only: bool = False
    pooling: Literal["mean", "first", "last"] = "mean"
    epochs: int = option(3, low=1, high=1_000_000)
    batch_size: int = option(16, low=1, high=1_000_000)
    learning_rate: float = option(5e-5, above=0, high=1e3)
    warmup: float = option(0.1, low=0, high=1)
    weight_decay: float = option(0.01, low=0, high=1e3)
    clip: float | None = option(1.0, above=0, high=3e38)
    bf16: bool | None = None
    dropout: float = option(0.1, low=0, high=0.99)
    penalty: float = option(1.0, low=0, high=1e9)
    validation: float = option(0.1, low=0, high=0.99)
    truncate: int | None = option(None, low=3, high=1_000_000)
    seed: int = option(1, low=0, high=2**63 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.encoder, ContextualModel):
            raise TypeError(f"encoder must be a GPT or a BERT, not {type(self.encoder).__name__}")
        self._transformer: Transformer | None = None  # its own, where the encoder's is not good for it
        self._head: nn.Linear | None = None
        self._classes: list[Any] = []
        self.history: list[TuningEpoch] = []  # type: ignore[assignment]

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, sorted.

        Raises
        ------
        AttributeError
            Before `fit`.
        """
        self._fitted()
        return np.array(self._classes)

    @property
    def transformer(self) -> Transformer:
        """The tuned torch module; the encoder's own, if the head alone was learnt."""
        self._fitted()
        return self._transformer or self.encoder.transformer

    @property
    def head(self) -> nn.Linear:
        """The linear layer from states to scores of `classes_`."""
        return self._fitted()

    @property
    def held_out_score(self) -> float:
        """Share of the labels set apart that are told right, as `score` counts; NaN if none were set apart."""
        self._fitted()
        return self.history[-1].held_out_score if self.history else math.nan

    def _fitted(self) -> nn.Linear:
        if self._head is None:
            raise AttributeError(f"this {type(self).__name__} has not been fitted: call fit first")
        return self._head

    # ---- learning

    def _learn(
        self,
        sentences: Any,
        labels: Any,
        validation: Any,
        callbacks: Iterable[Callable[[Any], object]],
        progress: bool,
    ) -> None:
        callbacks = list(callbacks)
        for i, callback in enumerate(callbacks):
            if not callable(callback):
                raise TypeError(f"callbacks[{i}] must be a function of the model, not a {type(callback).__name__}")
        given, names = self._read(sentences, labels)
        found = [name for row in names for name in row if name is not None]
        if len(kinds := {type(name) for name in found}) > 1:
            raise TypeError(f"labels must be of one type, not {' and '.join(sorted(kind.__name__ for kind in kinds))}")
        classes = sorted(set(found))
        if len(classes) < 2:
            raise ValueError(f"there must be at least two different labels, not {classes}")
        numbers = {None: None, **{name: i for i, name in enumerate(classes)}}
        examples = [one for one in self._examples(given, _numbered(names, numbers)) if one.targets]
        if len({target for one in examples for target in one.targets}) < 2:
            raise ValueError("the words that have a piece, and that truncate leaves, have fewer than two labels")
        if validation is None:
            examples, held_out = _parted(examples, self.validation, self.seed)
        elif isinstance(validation, tuple) and len(validation) == 2:
            others, known = self._read(*validation)
            held_out = self._examples(others, _numbered(known, numbers))
        elif isinstance(validation, int | float | np.number):
            share = real_number("validation", validation, low=0)
            if share >= 1:
                raise ValueError(f"validation must be below 1, a share of the sentences, not {share}")
            examples, held_out = _parted(examples, share, self.seed)
            if share and not held_out:
                raise ValueError(
                    f"validation={share} of {len(examples)} sentences leaves {len(examples)} to learn from and 0 to "
                    "look at: give a greater share, a pair of sentences and labels, or 0"
                )
        else:
            raise TypeError("validation must be a share, or a pair of sentences and labels")
        before = self.__dict__.copy()
        with torch.random.fork_rng(devices=[]), self.encoder._threaded():
            torch.manual_seed(self.seed)
            head = nn.Linear(self.encoder.dim, len(classes)).to(self.encoder._place())
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
            transformer = None if self.head_only else copy.deepcopy(self.encoder.transformer)
            self.__dict__.update(_transformer=transformer, _head=head, _classes=classes, history=[])
            try:
                if transformer is None:
                    self._solve(examples, held_out, progress)
                else:
                    self._tune(transformer, head, examples, held_out, callbacks, progress)
            except KeyboardInterrupt:  # what had been learnt by then is kept
                raise
            except BaseException:
                self.__dict__.update(before)
                raise
            finally:
                if transformer is not None:
                    transformer.eval()

    def _solve(self, examples: list[_Example], held_out: list[_Example], progress: bool) -> None:
        """The head that is best on states as they are: logistic regression, whose loss has one minimum."""
        start = time.perf_counter()
        head = self._fitted()
        features, targets = self._features(examples, progress=progress)
        optimizer = torch.optim.LBFGS(head.parameters(), max_iter=_HEAD_STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            penalty = self.penalty / (2 * len(targets)) * head.weight.square().sum()
            total = F.cross_entropy(head(features), targets) + penalty
            total.backward()  # type: ignore[no-untyped-call]
            return total

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            final = float(F.cross_entropy(head(features), targets))
        if not math.isfinite(final):
            raise FloatingPointError("the states are not finite: the encoder is damaged")
        seconds = time.perf_counter() - start
        self.history.append(TuningEpoch(1, final, *self._measure(held_out), 0.0, seconds))

    def _tune(
        self,
        transformer: Transformer,
        head: nn.Linear,
        examples: list[_Example],
        held_out: list[_Example],
        callbacks: Sequence[Callable[[Any], object]],
        progress: bool,
    ) -> None:
        processes = training.process_count()
        batches = _Batches(examples, self.encoder._padding(), self.seed, processes)
        each = -(-len(examples) // (self.batch_size * processes))
        steps = each * self.epochs
        schedule = training.Schedule(
            steps=steps,
            batch_size=self.batch_size,
            length=max(len(one.ids) for one in examples),
            learning_rate=self.learning_rate,
            min_learning_rate=0.0,
            warmup=max(1, round(self.warmup * steps)),  # or a training of one step would be over, its rate 0
            weight_decay=self.weight_decay,
            betas=(0.9, 0.999),
            clip=self.clip,
            bf16=self.bf16,
            evaluate_every=each,
            evaluate_batches=0,
            seed=self.seed,
        )

        def loss(tuned: _Tuned, batch: _Batch) -> tuple[Tensor, int]:
            features = F.dropout(batch.features(tuned.transformer), self.dropout, tuned.training)
            return F.cross_entropy(tuned.head(features), batch.targets, reduction="sum"), len(batch.targets)

        def note(seen: training.Evaluation) -> bool:
            with _evaluating(transformer):
                measured = self._measure(held_out)
            record = TuningEpoch(len(self.history) + 1, seen.loss, *measured, seen.learning_rate, seen.seconds)
            self.history.append(record)
            with _evaluating(transformer):
                answers = [callback(self) for callback in callbacks]
            return any(answer is True for answer in answers)

        training.train(
            _Tuned(transformer, head),
            batches,
            loss,
            schedule,
            device=self.encoder._place(),
            progress=progress,
            callbacks=[note],
        )

    def _measure(self, examples: list[_Example]) -> tuple[float, float]:
        """Loss and share of right labels."""
        n = sum(len(one.targets) + one.missed for one in examples)
        if not n:
            return math.nan, math.nan
        features, targets = self._features(examples)
        with torch.no_grad():
            scores = self._fitted()(features)
        known = targets != _UNKNOWN  # the others have no loss
        loss = float(F.cross_entropy(scores[known], targets[known])) if bool(known.any()) else math.nan
        return loss, int((scores.argmax(1) == targets).sum()) / n

    def _features(self, examples: list[_Example], *, progress: bool = False) -> tuple[Tensor, Tensor]:
        """States of all units, in the order of the examples, and their labels."""
        transformer = self.transformer
        device, padding = self.encoder._place(), self.encoder._padding()
        sizes = [len(one.targets) for one in examples]
        begins = np.concatenate([[0], np.cumsum(sizes)])
        features = torch.zeros(int(begins[-1]), self.encoder.dim, device=device)
        targets = torch.tensor([target for one in examples for target in one.targets], device=device, dtype=torch.int64)
        lengths = [len(one.ids) if one.targets else 0 for one in examples]
        batches = list(by_length(lengths, _BATCH_PIECES))
        for rows in tqdm(batches, desc="encode", unit=" batches", disable=not progress):
            with torch.no_grad():
                found = _Batch.of([examples[row] for row in rows], padding).to(device).features(transformer)
            at = np.concatenate([np.arange(begins[row], begins[row + 1]) for row in rows])
            features[torch.from_numpy(at).to(device)] = found
        return features, targets

    def _scores(self, examples: list[_Example], *, progress: bool = False) -> NDArray[np.float64]:
        """Probabilities of the classes, (units, classes)."""
        head = self._fitted()
        with self.encoder._threaded():
            features, _ = self._features(examples, progress=progress)
            with torch.no_grad():
                chances = torch.softmax(head(features).double(), 1).cpu().numpy()
        return typing.cast("NDArray[np.float64]", chances)

    def _read(self, sentences: Any, labels: Any) -> tuple[list[Sentence], list[list[Any]]]:
        """Sentences, and a list of labels for the units of each."""
        raise NotImplementedError

    def _examples(
        self, sentences: Sequence[Sentence], targets: Sequence[Sequence[int | None]] | None
    ) -> list[_Example]:
        raise NotImplementedError

    # ---- files

    def save(self, path: files.PathLike) -> None:
        """Write a folder: the transformer as `GPT.save` or `BERT.save` does, and head.safetensors beside it.

        Raises
        ------
        AttributeError
            Before `fit`.
        """
        head = self._fitted()
        holder = copy.copy(self.encoder)
        holder.__dict__["_transformer"] = self.transformer
        tensors = {name: value.detach().float().cpu().numpy() for name, value in head.state_dict().items()}
        description = {**self._description(), "classes": self._classes}
        holder._save(path, lambda place: files.write_own(place, "head", tensors, description))

    def _description(self) -> dict[str, Any]:
        return {**super()._description(), "options": {**self.options, "encoder": None}}

    @classmethod
    def load(cls, path: files.PathLike, *, device: str = "cpu") -> Self:
        """Read a folder that `save` wrote.

        Raises
        ------
        OSError
            If a file is not there.
        ValueError
            If one is damaged, or the folder holds something else.
        """
        folder = Path(path)
        if not (folder / HEAD).exists():
            kind = read_config(folder).get("model_type", "model")
            raise FileNotFoundError(
                f"{folder} holds a {kind} without the head of a {cls.__name__}, {HEAD}: read the model by "
                f"firth.contextual.load(folder), and fit a {cls.__name__}(encoder=...) on it"
            )
        tensors, metadata = files.read_own(folder / HEAD, "head")
        if metadata.get("model") != cls.__name__:
            raise ValueError(f"{folder} holds a {metadata.get('model')}, not a {cls.__name__}")
        try:
            model = cls(**{**metadata["options"], "encoder": load_transformer(folder, device=device)})
            model._restore(tensors, metadata)
        except (KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{folder / HEAD} is damaged, or of another version of firth: {error}") from None
        return model

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        self._classes = metadata["classes"]
        self.history = records(metadata["history"], TuningEpoch, may_be_nan=("held_out_loss", "held_out_score"))
        head = nn.Linear(self.encoder.dim, len(self._classes))
        head.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
        self._head = head.to(self.encoder._place())


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class SentenceClassifier(_FineTuned):
    """Tell the labels of sentences by a transformer's states.

    A linear layer on a sentence's pooled states tells its label; the transformer is tuned with it (Devlin, Chang, Lee &
    Toutanova 2019), or stays as it is.

    Parameters
    ----------
    encoder
        A GPT or a BERT that has been fitted or read. It stays as it is: what is tuned is a copy.
    head_only
        Learn the head alone, on the encoder's states as they are: logistic regression, with `penalty`, solved by
        L-BFGS; the options of training from `epochs` to `dropout` then mean nothing.
    pooling
        Of the states of a sentence's pieces, special ones included: their "mean", the "first" or the "last".
    epochs
        Passes over the sentences.
    batch_size
        Sentences in a step; under ``torchrun`` in that of each process.
    learning_rate
        The highest step size (AdamW); it rises to it linearly and falls to 0 along half a cosine.
    warmup
        Share of the steps on which it rises.
    weight_decay
        What matrices lose in a step, times the step size.
    clip
        Bound of the gradient's length.
    bf16
        Whether products are of bf16; None: where it pays.
    dropout
        Share of the numbers that the head sees which are dropped in training.
    penalty
        Half of this times the squared length of the head's matrix is added to the summed loss, where the head is learnt
        alone.
    validation
        Share of the sentences that `fit` sets apart, to see after each epoch how well they are told. A sentence that
        alone has a label is learnt from; where the share makes less than one sentence, all are.
    truncate
        Cut sentences to so many pieces. None: a longer one than the encoder has positions is an error.
    seed
        Of the head's beginning, the order of sentences, those set apart, and dropout.

    Attributes
    ----------
    history : list of TuningEpoch
        With the held-out score of each epoch.

    Examples
    --------
    >>> bert = BERT.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    >>> texts = ["a film to see twice", "two hours lost", "what a cast", "a bore"]
    >>> labels = ["good", "bad", "good", "bad"]
    >>> model = SentenceClassifier(encoder=bert, head_only=True).fit(texts, labels)
    >>> model.predict(["a great cast"])
    array(['good'], dtype='<U4')
    """

    @one_at_a_time
    def fit(
        self,
        texts: Sequence[Sentence],
        labels: Sequence[Any],
        *,
        validation: float | tuple[Any, Any] | None = None,
        callbacks: Iterable[Callable[[Any], object]] = (),
        progress: bool = False,
    ) -> Self:
        """Learn from sentences with labels.

        Parameters
        ----------
        texts
            Strings, or lists of words.
        labels
            One for each, all of one type: strings, whole numbers or booleans.
        validation
            In place of the option: a share, or ``(texts, labels)``, whose labels may be others: these are told wrong.
        callbacks
            Functions called with the classifier after every epoch; one that returns True ends the training there.
        progress
            Show a bar.

        Returns
        -------
        Self
            The classifier, fitted.

        Raises
        ------
        TypeError, ValueError
            If texts and labels are not what they should be, or do not go together.
        FloatingPointError
            If a number stops being finite; then nothing is changed.
        KeyboardInterrupt
            At Ctrl-C; what had been learnt by then is kept.
        """
        self._learn(texts, labels, validation, callbacks, progress)
        return self

    def predict_proba(self, texts: Sequence[Sentence], *, progress: bool = False) -> NDArray[np.float64]:
        """How likely each label is, (texts, classes), in the order of `classes_`."""
        self._fitted()
        return self._scores(self._examples(texts, None), progress=progress)

    def predict(self, texts: Sequence[Sentence], *, progress: bool = False) -> NDArray[Any]:
        """The likeliest label of each text."""
        return np.asarray(self.classes_[self.predict_proba(texts, progress=progress).argmax(1)])

    def score(self, texts: Sequence[Sentence], labels: Sequence[Any]) -> float:
        """Share of texts whose label is told right; NaN for none."""
        given, names = self._read(texts, labels)
        return _share(name == row[0] for name, row in zip(self.predict(given).tolist(), names, strict=True))

    def _read(self, sentences: Any, labels: Any) -> tuple[list[Sentence], list[list[Any]]]:
        given = _list("texts", sentences)
        names = _list("labels", labels)
        if len(given) != len(names):
            raise ValueError(f"there are {len(given)} texts and {len(names)} labels")
        return given, [[_label(f"labels[{i}]", name)] for i, name in enumerate(names)]

    def _examples(
        self, sentences: Sequence[Sentence], targets: Sequence[Sequence[int | None]] | None
    ) -> list[_Example]:
        examples = []
        for i, encoding in enumerate(self.encoder._encoded(sentences, self.truncate)):
            n = len(encoding.ids)
            chosen = {"mean": range(n), "first": range(min(n, 1)), "last": range(n)[-1:]}[self.pooling]
            label = None if targets is None else targets[i][0]
            examples.append(_Example(encoding.ids, list(chosen), [0] * len(chosen), [label or 0]))
        return examples


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class TokenClassifier(_FineTuned):
    """Tell the labels of words, such as parts of speech or names, by a transformer's states.

    A linear layer on a word's states tells its label; the transformer is tuned with it, or stays as it is. Options are
    those of `SentenceClassifier`; `pooling` is of a word's pieces.

    Examples
    --------
    >>> bert = BERT.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    >>> sentences = [["Anna", "sings"], ["she", "writes"], ["Peter", "reads", "books"]]
    >>> labels = [["name", "verb"], [None, "verb"], ["name", "verb", "noun"]]
    >>> model = TokenClassifier(encoder=bert, head_only=True).fit(sentences, labels)
    >>> model.predict([["Otto", "sings"]])
    [['name', 'verb']]
    """

    @one_at_a_time
    def fit(
        self,
        sentences: Sequence[Sequence[str]],
        labels: Sequence[Sequence[Any]],
        *,
        validation: float | tuple[Any, Any] | None = None,
        callbacks: Iterable[Callable[[Any], object]] = (),
        progress: bool = False,
    ) -> Self:
        """Learn from sentences whose words have labels.

        Parameters
        ----------
        sentences
            Lists of words.
        labels
            For each sentence a list, with one label for each word, all of one type: strings, whole numbers or
            booleans; None for a word that nothing is to be learnt of.
        validation
            In place of the option: a share, or ``(sentences, labels)``, whose labels may be others: these are told
            wrong.
        callbacks
            Functions called with the tagger after every epoch; one that returns True ends the training there.
        progress
            Show a bar.

        Returns
        -------
        Self
            The tagger, fitted.

        Raises
        ------
        TypeError, ValueError
            If sentences and labels are not what they should be, or do not go together.
        FloatingPointError
            If a number stops being finite; then nothing is changed.
        KeyboardInterrupt
            At Ctrl-C; what had been learnt by then is kept.
        """
        self._learn(sentences, labels, validation, callbacks, progress)
        return self

    def predict(self, sentences: Sequence[Sequence[str]], *, progress: bool = False) -> list[list[Any]]:
        """The likeliest label of each word; None for words that `truncate` cut off, or that have no piece."""
        given = _word_lists(sentences)
        examples = self._examples(given, None)
        names = self.classes_[self._scores(examples, progress=progress).argmax(1)].tolist()
        found, begin = [], 0
        for words, one in zip(given, examples, strict=True):
            own = dict(enumerate(names[begin : begin + len(one.targets)]))
            begin += len(one.targets)
            seen = set(one.units)
            found.append([own[i] if i in seen else None for i in range(len(words))])
        return found

    def score(self, sentences: Sequence[Sequence[str]], labels: Sequence[Sequence[Any]]) -> float:
        """Share of the words with a label whose label is told right; NaN for none."""
        given, names = self._read(sentences, labels)
        told = self.predict(given)
        pairs = (pair for row, own in zip(told, names, strict=True) for pair in zip(row, own, strict=True))
        return _share(one == label for one, label in pairs if label is not None)

    def _read(self, sentences: Any, labels: Any) -> tuple[list[Sentence], list[list[Any]]]:
        given = _word_lists(sentences)
        rows = _list("labels", labels)
        if len(given) != len(rows):
            raise ValueError(f"there are {len(given)} sentences and {len(rows)} lists of labels")
        names = []
        for i, (words, row) in enumerate(zip(given, rows, strict=True)):
            own = _list(f"labels[{i}]", row)
            if len(words) != len(own):
                raise ValueError(f"sentences[{i}] has {len(words)} words and {len(own)} labels")
            names.append([None if name is None else _label(f"labels[{i}][{j}]", name) for j, name in enumerate(own)])
        return list(given), names

    def _examples(
        self, sentences: Sequence[Sentence], targets: Sequence[Sequence[int | None]] | None
    ) -> list[_Example]:
        examples = []
        for i, encoding in enumerate(self.encoder._encoded(sentences, self.truncate)):
            places = _pieces_of_words(encoding, self.pooling)
            own = [0] * len(sentences[i]) if targets is None else targets[i]
            # Only words with a label are units; in use, where nothing is known of labels, all words.
            seen = range(len(own)) if targets is None else sorted({word for _, word in places})
            labelled = {word: label for word in seen if (label := own[word]) is not None}
            unit = {word: number for number, word in enumerate(labelled)}
            kept = [(at, unit[word]) for at, word in places if word in unit]
            missed = sum(label is not None for label in own) - len(labelled)
            examples.append(
                _Example(
                    encoding.ids, [at for at, _ in kept], [one for _, one in kept], list(labelled.values()), missed
                )
            )
        return examples


def holds_head(path: files.PathLike) -> str | None:
    """The class of what is saved in a folder, if that is a head's."""
    place = Path(path) / HEAD
    return files.read_own(place, "head", mmap=True)[1].get("model") if place.exists() else None


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout, also in the midst of training."""
    learning = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(learning)


def _pieces_of_words(encoding: Encoding, pooling: str) -> list[tuple[int, int]]:
    """Which pieces make each word: places and words."""
    places = [(at, word) for at, word in enumerate(encoding.words) if word is not None]
    if pooling == "mean":
        return places
    ordered = reversed(places) if pooling == "first" else places  # of several, a dict keeps the last
    return sorted((at, word) for word, at in {word: at for at, word in ordered}.items())


def _parted(examples: list[_Example], share: float, seed: int) -> tuple[list[_Example], list[_Example]]:
    """Sentences to learn from, and a random share of them to look at: none that alone has a label."""
    left = collections.Counter(target for one in examples for target in set(one.targets))
    aside: set[int] = set()
    for i in np.random.default_rng(seed).permutation(len(examples)).tolist():
        own = set(examples[i].targets)
        if len(aside) < round(share * len(examples)) and all(left[target] > 1 for target in own):
            aside.add(i)
            left.subtract(own)
    kept = [one for i, one in enumerate(examples) if i not in aside]
    return kept, [examples[i] for i in sorted(aside)]


def _numbered(rows: Sequence[Sequence[Any]], numbers: dict[Any, int | None]) -> list[list[int | None]]:
    return [[numbers.get(name, _UNKNOWN) for name in row] for row in rows]


def _share(right: Iterable[bool]) -> float:
    found = list(right)
    return sum(found) / len(found) if found else math.nan


def _list(name: str, given: Any) -> list[Any]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(f"{name} must be a list, not {type(given).__name__}")
    return list(given)


def _word_lists(sentences: Any) -> list[Sequence[str]]:
    given = _list("sentences", sentences)
    for i, one in enumerate(given):
        if isinstance(one, str):
            raise TypeError(f"sentences[{i}] is a string: labels belong to words, so give lists of words")
    return [_list(f"sentences[{i}]", one) for i, one in enumerate(given)]


def _label(name: str, label: Any) -> Any:
    value = label.item() if isinstance(label, np.generic) else label
    if not isinstance(value, str | int):
        raise TypeError(f"{name} is {value!r}: labels are strings, whole numbers or booleans")
    return value
