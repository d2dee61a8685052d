"""Labels of sentences and of words: a linear head on a transformer's hidden states, trained with it or alone."""

from __future__ import annotations

import collections
import contextlib
import copy
import dataclasses
import math
import time
import typing
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from firth import files
from firth.checks import column, functions, real_number, whole_number
from firth.contextual import heads, loop
from firth.contextual.base import FEW_STEPS
from firth.contextual.elmo import ELMo
from firth.contextual.encoding import BATCH_TOKENS, Sentence, by_length, checked_sentences, pooled
from firth.contextual.heads import Head
from firth.contextual.hub import local_folder
from firth.contextual.models import load_transformer, read_config
from firth.contextual.processes import process_count
from firth.contextual.sentences import MODULES
from firth.contextual.transformer import Transformer
from firth.contextual.transformer_model import HEAD, ContextualModel
from firth.models.base import one_at_a_time, option, records
from firth.models.estimator import Classifier, label_limit, likeliest, text_weights
from firth.models.labelled_texts import check_comparable, check_one_type, checked_label, labels_of

if typing.TYPE_CHECKING:
    from typing_extensions import Self

Pooling = Literal["mean", "max", "cls", "first", "last", "pooler"]
TextOrPair = Sentence | tuple[Sentence, Sentence]

_HEAD_STEPS = 200  # of L-BFGS at most
_UNKNOWN = -1  # a label that training has not seen: every prediction for it is wrong


@dataclasses.dataclass(frozen=True)
class TuningEpoch:
    """What one pass over the sentences gave.

    Attributes
    ----------
    epoch
        Its number, from 1. The head alone is found in one go.
    loss
        Mean cross-entropy of a label in nats, weights and dropout included.
    held_out_loss, held_out_score
        The loss and the accuracy on the validation split, without weights. NaN if it is empty.
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

    @classmethod
    def of(cls, epoch: int, seen: loop.Evaluation) -> TuningEpoch:
        """What the training loop saw of an epoch."""
        score = math.nan if seen.score is None else seen.score
        return cls(epoch, seen.loss, seen.held_out, score, seen.learning_rate, seen.seconds)


@dataclasses.dataclass(frozen=True)
class _Example:
    """A sentence, the tokens that make each of its units (itself, or its words), and the units' labels as numbers.

    A target is a class or _UNKNOWN, or a tuple of these where a text may have several labels.
    """

    ids: list[int]
    places: list[int]
    units: list[int]  # which unit each of the places belongs to
    targets: list[Any]
    missed: int = 0  # words with a label of which no token is there
    types: list[int] = dataclasses.field(default_factory=list)  # of the tokens; empty: all 0
    weights: list[float] = dataclasses.field(default_factory=list)  # of the units; empty: all 1

    @property
    def labels(self) -> list[int]:
        """All classes of all units."""
        return [label for one in self.targets for label in (one if isinstance(one, tuple) else (one,))]


class _Batch(NamedTuple):
    """Examples as tensors; places count through the padded tokens of all sentences, units through all units."""

    ids: Tensor
    lengths: Tensor | None
    places: Tensor
    units: Tensor
    targets: Tensor
    types: Tensor | None
    weights: Tensor

    @classmethod
    def of(cls, examples: Sequence[_Example], padding: int, classes: int | None = None) -> _Batch:
        """The examples; `classes` is how many there are, where a text may have several of them."""
        time = max(1, *(len(one.ids) for one in examples))  # of an empty text alone, one that is padded
        ids = torch.full((len(examples), time), padding)
        types = torch.zeros_like(ids)
        places: list[int] = []
        units: list[int] = []
        n_units = 0
        for i, one in enumerate(examples):
            ids[i, : len(one.ids)] = torch.tensor(one.ids)
            types[i, : len(one.types)] = torch.tensor(one.types, dtype=torch.int64)
            places += [i * time + place for place in one.places]
            units += [n_units + unit for unit in one.units]
            n_units += len(one.targets)
        lengths = torch.tensor([len(one.ids) for one in examples])
        return cls(
            ids,
            None if int(lengths.min()) == time else lengths,
            torch.tensor(places, dtype=torch.int64),
            torch.tensor(units, dtype=torch.int64),
            _targets(examples, classes),
            types if bool(types.any()) else None,
            _weights(examples),
        )

    def to(self, device: torch.device) -> _Batch:
        """The same on a device."""
        return _Batch(*(None if one is None else one.to(device) for one in self))  # type: ignore[arg-type]

    def features(self, transformer: Transformer, pooling: Pooling) -> Tensor:
        """One hidden state for each unit, (units, dim)."""
        states = transformer(self.ids, lengths=self.lengths, token_types=self.types).float().flatten(0, 1)[self.places]
        return pooled(states, self.units, len(self.targets), "first" if pooling == "pooler" else pooling)


def _weights(examples: Iterable[_Example]) -> Tensor:
    """The units' weights, (units,)."""
    return torch.tensor([weight for one in examples for weight in one.weights or [1.0] * len(one.targets)])


def _targets(examples: Iterable[_Example], classes: int | None) -> Tensor:
    """The units' classes, (units,); where a unit may have several, 1 for each that it has, (units, classes)."""
    flat = [target for one in examples for target in one.targets]
    if classes is None:
        return torch.tensor(flat, dtype=torch.int64)
    several = torch.zeros(len(flat), classes)
    for i, own in enumerate(flat):
        several[i, [label for label in own if label != _UNKNOWN]] = 1
    return several


class _Batches:
    """Examples in a random order, another one in each epoch; each step's are shared out over the processes."""

    def __init__(
        self,
        examples: list[_Example],
        padding: int,
        seed: int,
        processes: int = 1,
        classes: int | None = None,
        validation: Sequence[_Example] = (),
    ) -> None:
        self.examples = examples
        self.processes = processes
        self.padding = padding
        self.seed = seed
        self.classes = classes
        self.validation = validation
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    @property
    def fingerprint(self) -> list[int]:
        """What distinguishes these examples from others, the validation split included."""
        checksum = 0
        for one in (*self.examples, *self.validation):
            checksum = zlib.crc32(repr(dataclasses.astuple(one)).encode(), checksum)
        return [len(self.examples), len(self.validation), self.seed, checksum]

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
        return _Batch.of([self.examples[i] for i in own], self.padding, self.classes)

    def held_out(self, first: int, count: int) -> None:
        """None: `_FineTuned._measure` looks at the validation split, and counts right predictions too."""


class _Tuned(nn.Module):
    """What is trained: a transformer and the head on it."""

    def __init__(self, transformer: Transformer, head: Head) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = head


@dataclasses.dataclass(kw_only=True, eq=False)
class _FineTuned(Classifier):
    """What both kinds of labels share."""

    task: ClassVar[heads.Task]

    encoder: ContextualModel = dataclasses.field(metadata={"checked_by_class": True})
    head_only: bool = False
    pooling: Pooling | None = None
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
        if self.pooling == "cls":
            self.encoder._check_cls()
        self._transformer: Transformer | None = None  # its own, where the encoder's is not good for it
        self._head: Head | None = None
        self._classes: list[Any] = []
        self._several = False  # whether a text may have several labels
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
        """The tuned torch module; the encoder's own, if the head alone was trained."""
        self._fitted()
        return self._transformer or self.encoder.transformer

    @property
    def head(self) -> Head:
        """The module from pooled hidden states to scores of `classes_`."""
        return self._fitted()

    @property
    def held_out_score(self) -> float:
        """Accuracy on the validation split after the last epoch, as `score` computes it; NaN if the split is empty."""
        self._fitted()
        return self.history[-1].held_out_score if self.history else math.nan

    def _is_fitted(self) -> bool:
        return self._head is not None

    def _fitted(self) -> Head:
        if self._head is None:
            raise AttributeError(f"this {type(self).__name__} has not been fitted: call fit first")
        return self._head

    @property
    def _pooling(self) -> Pooling:
        """The one that was chosen, or the default."""
        raise NotImplementedError

    # ---- training

    def _train(
        self,
        sentences: Any,
        labels: Any,
        *,
        sample_weight: Any,
        validation: Any,
        callbacks: Iterable[Callable[[Any], object]],
        progress: bool,
        checkpoint: files.PathLike | None,
        resume: bool,
    ) -> None:
        callbacks = functions("callbacks", callbacks)
        if resume and checkpoint is None:
            raise ValueError("resume=True needs checkpoint=, the folder to continue from")
        if self.head_only and checkpoint is not None:
            raise ValueError("head_only=True trains in one go, without states to continue from: leave out checkpoint")
        given, rows, several = self._read(sentences, labels)
        weights = text_weights("sample_weight", sample_weight, len(given))
        classes = sorted({name for row in rows for name in _names(row)})
        if len(classes) < (1 if several else 2):
            raise ValueError(f"there must be at least {'one label' if several else 'two different labels'}: {classes}")
        examples = self._examples(given, _numbered(rows, classes))
        if weights is not None:
            examples = [
                dataclasses.replace(one, weights=[weight] * len(one.targets))
                for one, weight in zip(examples, weights.tolist(), strict=True)
            ]
        examples = [one for one in examples if one.targets]
        if not several and len({label for one in examples for label in one.labels}) < 2:
            raise ValueError("the words that have a token, and that truncate leaves, have fewer than two labels")
        if validation is None:
            examples, held_out = _parted(examples, self.validation, self.seed)
        elif isinstance(validation, tuple) and len(validation) == 2:
            others, known, _ = self._read(*validation, several)
            check_comparable([name for row in known for name in _names(row)], classes)
            held_out = self._examples(others, _numbered(known, classes))
        elif isinstance(validation, int | float | np.number):
            share = real_number("validation", validation, low=0)
            if share >= 1:
                raise ValueError(f"validation must be below 1, a share of the sentences, not {share}")
            examples, held_out = _parted(examples, share, self.seed)
            if share and not held_out:
                raise ValueError(
                    f"validation={share} of {len(examples)} sentences leaves {len(examples)} for training and 0 for "
                    "validation: give a greater share, a pair of sentences and labels, or 0"
                )
        else:
            raise TypeError("validation must be a share, or a pair of sentences and labels")
        examples = self._weighted(examples, classes)
        before = self.__dict__.copy()
        with torch.random.fork_rng(devices=[]), self.encoder._threaded():
            torch.manual_seed(self.seed)
            head = self._new_head(len(classes)).to(self.encoder._place())
            transformer = None if self.head_only else copy.deepcopy(self.encoder.transformer)
            self.__dict__.update(_transformer=transformer, _head=head, _classes=classes, _several=several, history=[])
            try:
                if transformer is None:
                    self._solve(examples, held_out, progress)
                else:
                    self._tune(transformer, examples, held_out, callbacks, progress, checkpoint, resume)
            except KeyboardInterrupt:  # what had been trained by then is kept
                raise
            except BaseException:
                self.__dict__.update(before)
                raise
            finally:
                if transformer is not None:
                    transformer.eval()

    def _new_head(self, classes: int) -> Head:
        # The head of a GPT has no bias where it takes the last state, as in `transformers`.
        pooler = self._pooling == "pooler"
        bias = not (self.encoder.causal and self._pooling == "last" and self.task == "SentenceClassifier")
        head = Head(self.encoder.dim, classes, dense=pooler, bias=bias)
        nn.init.normal_(head.out.weight, std=0.02)
        if head.out.bias is not None:
            nn.init.zeros_(head.out.bias)
        if head.dense is not None:
            nn.init.zeros_(head.dense.bias)
            trained = self.encoder.transformer.pooler
            if trained is not None:
                head.dense.load_state_dict(trained.state_dict())
            elif self.head_only:
                raise ValueError("head_only=True with pooling='pooler' needs an encoder with a trained pooler")
        return head

    def _weighted(self, examples: list[_Example], classes: list[Any]) -> list[_Example]:
        """Examples with the weights of their labels; of a text with several labels, the mean of theirs."""
        counts = np.bincount([label for one in examples for label in one.labels], minlength=len(classes))
        found = self._label_weights(classes, counts)
        if found is not None:
            each = found.tolist()

            def weight(target: Any) -> float:
                own = [each[label] for label in (target if isinstance(target, tuple) else (target,))]
                return sum(own) / len(own) if own else 1.0

            examples = [
                dataclasses.replace(
                    one,
                    weights=[
                        old * weight(target)
                        for old, target in zip(one.weights or [1.0] * len(one.targets), one.targets, strict=True)
                    ],
                )
                for one in examples
            ]
        if all(one.weights and not any(one.weights) for one in examples):
            raise ValueError("all sentences to train on have weight 0")
        return examples

    def _losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each unit in nats; of one with several labels, the mean over the classes."""
        if self._several:
            return F.binary_cross_entropy_with_logits(scores.float(), targets, reduction="none").mean(1)
        return F.cross_entropy(scores.float(), targets, reduction="none")

    def _solve(self, examples: list[_Example], held_out: list[_Example], progress: bool) -> None:
        """The best head on hidden states as they are: logistic regression, whose loss has one minimum."""
        start = time.perf_counter()
        head = self._fitted()
        with torch.no_grad():
            features = head.hidden(self._features(examples, progress=progress))
        targets = _targets(examples, self._classes_in_batch()).to(features.device)
        weights = _weights(examples).to(features.device)
        optimizer = torch.optim.LBFGS(head.out.parameters(), max_iter=_HEAD_STEPS, line_search_fn="strong_wolfe")
        total = weights.sum()
        penalty = self.penalty / (len(self._classes) if self._several else 1)  # the losses are means over the classes

        def mean() -> Tensor:
            return (self._losses(head.out(features), targets) * weights).sum() / total

        def loss() -> Tensor:
            optimizer.zero_grad()
            penalized = mean() + penalty / (2 * total) * head.out.weight.square().sum()
            penalized.backward()  # type: ignore[no-untyped-call]
            return penalized

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            final = float(mean())
        if not math.isfinite(final):
            raise FloatingPointError("the hidden states are not finite: the encoder is damaged")
        seconds = time.perf_counter() - start
        loss_sum, n, score = self._measure(held_out)
        self.history.append(TuningEpoch(1, final, loss_sum / n if n else math.nan, score, 0.0, seconds))

    def _classes_in_batch(self) -> int | None:
        return len(self._classes) if self._several else None

    def _tune(
        self,
        transformer: Transformer,
        examples: list[_Example],
        held_out: list[_Example],
        callbacks: Sequence[Callable[[Any], object]],
        progress: bool,
        checkpoint: files.PathLike | None,
        resume: bool,
    ) -> None:
        processes = process_count()
        batches = _Batches(
            examples, self.encoder._padding(), self.seed, processes, self._classes_in_batch(), validation=held_out
        )
        each = -(-len(examples) // (self.batch_size * processes))
        steps = each * self.epochs
        if steps < FEW_STEPS:
            warnings.warn(
                f"these texts make {steps} step{'' if steps == 1 else 's'} of training, too few for a head to learn "
                f"from: set more epochs than {self.epochs}, a smaller batch_size than {self.batch_size}, or "
                "head_only=True, which is solved without steps",
                stacklevel=5,  # past `_train`, `fit` and `one_at_a_time`
            )
        schedule = loop.Schedule(
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

        mean_weight = float(_weights(examples).double().mean())

        def loss(tuned: _Tuned, batch: _Batch) -> tuple[Tensor, int]:
            hidden = tuned.head.hidden(batch.features(tuned.transformer, self._pooling))
            scores = tuned.head.out(F.dropout(hidden, self.dropout, tuned.training))
            return (self._losses(scores, batch.targets) * batch.weights).sum() / mean_weight, len(batch.targets)

        seen: list[loop.Evaluation] = []

        def take_history() -> None:
            self.history[:] = [TuningEpoch.of(i + 1, one) for i, one in enumerate(seen)]

        def note(_: loop.Evaluation) -> bool:
            take_history()
            with _evaluating(transformer):
                answers = [callback(self) for callback in callbacks]
            return any(answer is True for answer in answers)

        try:
            loop.train(
                _Tuned(transformer, self._fitted()),
                batches,
                loss,
                schedule,
                device=self.encoder._place(),
                progress=progress,
                callbacks=[note],
                checkpoint=checkpoint,
                resume=resume,
                history=seen,
                options={} if checkpoint is None else self._shared(),
                measure=lambda: self._measure(held_out),
                name=type(self).__name__,
            )
        finally:
            take_history()  # a training that is resumed and has no epoch left to note has one, too

    def _shared(self) -> dict[str, Any]:
        """What a training that is resumed must share, beside its schedule and its data."""
        checksum = 0
        for tensor in self.encoder.transformer.state_dict().values():
            checksum = zlib.crc32(np.ascontiguousarray(tensor.detach().float().cpu().numpy()).data, checksum)
        return {
            "model": type(self).__name__,
            "classes": self._classes,
            "several labels": self._several,
            "pooling": self._pooling,
            "dropout of the head": self.dropout,
            "checksum of the encoder": checksum,
        }

    def _measure(self, examples: list[_Example]) -> tuple[float, int, float]:
        """The summed loss of the units whose label training has seen, their number, and the accuracy on all units."""
        n = sum(len(one.targets) + one.missed for one in examples)
        if not n:
            return 0.0, 0, math.nan
        with torch.no_grad():
            scores = self._fitted()(self._features(examples))
            targets = _targets(examples, self._classes_in_batch()).to(scores.device)
            best = scores.argmax(1)
            if self._several:
                right = targets.gather(1, best[:, None]) > 0
                return float(self._losses(scores, targets).sum()), len(targets), int(right.sum()) / n
            known = targets != _UNKNOWN
            loss = float(self._losses(scores[known], targets[known]).sum())
            return loss, int(known.sum()), int((best == targets).sum()) / n

    def _features(self, examples: list[_Example], *, progress: bool = False) -> Tensor:
        """Pooled hidden states of all units, in the order of the examples."""
        transformer = self.transformer
        device, padding = self.encoder._place(), self.encoder._padding()
        sizes = [len(one.targets) for one in examples]
        begins = np.concatenate([[0], np.cumsum(sizes)])
        features = torch.zeros(int(begins[-1]), self.encoder.dim, device=device)
        lengths = [len(one.ids) if one.targets else 0 for one in examples]
        batches = list(by_length(lengths, BATCH_TOKENS))
        for rows in tqdm(batches, desc="encode", unit=" batches", disable=not progress):
            chosen = [dataclasses.replace(examples[row], targets=[0] * sizes[row], weights=[]) for row in rows]
            with torch.no_grad():
                found = _Batch.of(chosen, padding).to(device).features(transformer, self._pooling)
            at = np.concatenate([np.arange(begins[row], begins[row + 1]) for row in rows])
            features[torch.from_numpy(at).to(device)] = found
        return features

    def _scores(self, examples: list[_Example], *, progress: bool = False) -> NDArray[np.float64]:
        """Probabilities of the classes, (units, classes)."""
        head = self._fitted()
        with self.encoder._threaded():
            features = self._features(examples, progress=progress)
            with torch.no_grad():
                scores = head(features).double()
                chances = (torch.sigmoid(scores) if self._several else torch.softmax(scores, 1)).cpu().numpy()
        return typing.cast("NDArray[np.float64]", chances)

    def _read(
        self, sentences: Any, labels: Any, several: bool | None = None
    ) -> tuple[list[Any], list[list[Any]], bool]:
        """Sentences; labels for the units of each: None, a name, or a tuple of names; whether these are tuples.

        `several` says whether they must be.
        """
        raise NotImplementedError

    def _examples(self, sentences: Sequence[Any], targets: Sequence[Sequence[Any]] | None) -> list[_Example]:
        raise NotImplementedError

    # ---- files

    def save(self, path: files.PathLike) -> None:
        """Write a folder: the tuned transformer as `GPT.save` or `BERT.save` writes it, the head, and the options.

        `firth.load` reads the folder. `AutoModelForSequenceClassification` or `AutoModelForTokenClassification` of
        `transformers` opens it with the trained head, if its head can be expressed there: that of a `TokenClassifier`
        always (it gives scores for every token; `pooling` says which of them make a word's), that of a
        `SentenceClassifier` with the pooling "pooler" of a BERT and "last" of a GPT, the defaults. With another
        pooling, `transformers` opens the transformer without its head. A GPT reads a pair of texts with its end-of-text
        token between them, and tokenizers of `transformers` join the two: there, put this token into the text.

        Raises
        ------
        AttributeError
            Before `fit`.
        OSError
            If it cannot be written.
        """
        head = self._fitted()
        self.encoder._check_finite(head)
        holder = copy.copy(self.encoder)
        holder.__dict__["_transformer"] = self.transformer
        theirs = None
        if self._is_in_transformers():
            theirs = heads.in_transformers(
                head,
                self.task,
                self._classes,
                causal=self.encoder.causal,
                several=self._several,
                dropout=self.dropout,
                padding=self._padding(),
            )
        description = {**self._description(), "classes": self._classes, "several": self._several}
        tensors = head.arrays() if theirs is None else {}
        holder._save(path, lambda place: files.write_own(place, "head", tensors, description), theirs)

    def _padding(self) -> int | None:
        """What `transformers` fills up short texts with: a GPT without a token for that takes its end of a text."""
        tokenizer = self.encoder._pieces()
        own = (self.transformer.architecture.padding, tokenizer.padding, tokenizer.end)
        return next((token for token in own if token is not None), None)

    def _is_in_transformers(self) -> bool:
        """Whether `transformers` has such a head."""
        return self.task == "TokenClassifier" or self._pooling == ("last" if self.encoder.causal else "pooler")

    def _description(self) -> dict[str, Any]:
        described = super()._description()
        return {**described, "options": {**described["options"], "encoder": None}}

    @classmethod
    def load(cls, path: files.PathLike, *, revision: str | None = None, device: str = "cpu", **options: Any) -> Self:
        """Read a folder that `save` wrote, or one of a classifier of `transformers`.

        Such a classifier is of the family of BERT, RoBERTa, DistilBERT or GPT-2, and was saved with its tokenizer. Its
        labels are those in config.json; the options are the defaults, and a word's label is that of its first token.

        Parameters
        ----------
        path
            The folder; or the name of a repository, which `huggingface_hub` (the extra `hub`) downloads into its cache.
        revision
            A branch, a tag or a commit of the repository; None: its main branch.
        device
            Where the model shall run.
        options
            Options instead of those that the folder was saved with, such as `truncate`, or those of another `fit`. Only
            `encoder`, `head_only` and `pooling`, for which the head was trained, cannot be changed.

        Raises
        ------
        OSError
            If a file or a repository is not there, or cannot be reached.
        TypeError
            If there is no such option, or it cannot be changed.
        ValueError
            If a file is damaged, or the folder holds something else.
        """
        free = {field.name for field in dataclasses.fields(cls)} - {"encoder", "head_only", "pooling"}
        for name in options:
            if name not in free:
                raise TypeError(f"{name} is not one of the options that can be changed: {', '.join(sorted(free))}")
        folder = local_folder(path, revision)
        config = read_config(folder)
        found = holds_head(folder)
        if found is None and not (heads.task_of(config) == cls.task and heads.is_regression(config)):
            kind = config.get("model_type", "model")
            if config.get("model") == ELMo.__name__:
                raise ValueError(
                    f"{folder} holds an ELMo: ELMo.load reads it, and a {cls.__name__} takes a BERT or a GPT as encoder"
                )
            raise FileNotFoundError(
                f"{folder} holds a {kind} without the head of a {cls.__name__}, {HEAD}: read the model by "
                f"firth.contextual.load(folder), and fit a {cls.__name__}(encoder=...) on it"
            )
        if found is not None and found != cls.__name__:
            raise ValueError(f"{folder} holds a {found}, not a {cls.__name__}")
        own = (folder / HEAD).exists()
        tensors, metadata = files.read_own(folder / HEAD, "head") if own else ({}, {})
        labels: list[str] | None = None
        if tensors:
            head = None
        else:
            head, labels, several = heads.read(folder, cls.task)
            metadata.setdefault("several", several)
        encoder = load_transformer(folder, device=device)
        try:
            saved = metadata["options"] if own else {"pooling": "first" if cls.task == "TokenClassifier" else None}
            model = cls._from_options({**saved, "encoder": encoder})
            model._restore(tensors, metadata)
        except (KeyError, TypeError, RuntimeError, IndexError) as error:
            raise ValueError(f"{folder / HEAD} is damaged, or of another version of firth: {error}") from None
        if head is not None and labels is not None:
            model._head = head.to(encoder._place())
            if [str(name) for name in model._classes] != labels:  # somebody has trained it on in `transformers`
                model._classes = labels
        if options:
            changed = cls(**{**model.options, **options})
            model.__dict__.update({name: changed.options[name] for name in options})
        return model

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        self._classes = metadata.get("classes", [])
        self._several = metadata["several"]
        self.history = records(metadata.get("history", []), TuningEpoch, may_be_nan=("held_out_loss", "held_out_score"))
        if tensors:
            head = Head.of(tensors)
            if (head.out.in_features, head.out.out_features) != (self.encoder.dim, len(self._classes)):
                raise TypeError("the head does not fit the transformer and the labels")
            self._head = head.to(self.encoder._place())


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class SentenceClassifier(_FineTuned):
    """Predict labels for texts, or for pairs of texts, from a transformer's hidden states.

    A linear layer on a text's pooled hidden states scores its labels. The transformer is trained with it (Devlin,
    Chang, Lee & Toutanova 2019), or stays as it is. This is an estimator of scikit-learn: `cross_val_score`,
    `GridSearchCV` and a `Pipeline` take it; clones share the encoder.

    Parameters
    ----------
    encoder
        A GPT or a BERT that has been fitted or read. It stays as it is: a copy of it is tuned.
    head_only
        Train the head alone, on the encoder's hidden states as they are: logistic regression, with `penalty`, solved by
        L-BFGS. The options of training from `epochs` to `dropout` then have no effect.
    pooling
        How to pool the hidden states of a text's tokens, special ones included, into one vector: "mean", "max", "cls",
        "first" or "last", as in `GPT.encode`, or BERT's "pooler", a layer with tanh on the first. None: "mean" with
        `head_only`, otherwise "pooler" for a BERT and "last" for a GPT, as `transformers` classifies with them.
    epochs
        Passes over the texts.
    batch_size
        Texts in a step; under ``torchrun`` in that of each process.
    learning_rate
        The highest step size (AdamW); it rises to it linearly and falls to 0 along half a cosine.
    warmup
        The share of the steps on which it rises.
    weight_decay
        What matrices lose in a step, times the step size.
    clip
        Upper bound of the gradient's norm.
    bf16
        Whether matrices are multiplied in bf16; None: where that is faster.
    dropout
        Dropout of what the last layer takes.
    penalty
        Half of this times the squared norm of the head's matrix is added to the summed loss, if the head is trained
        alone.
    class_weight
        None; "balanced", which weighs a label by the inverse of its share; or a dict from labels to weights, 1 for
        those that it lacks. A text with several labels has the mean of their weights. Only ratios of weights matter if
        the transformer is trained; for the head alone, a weight of 3 is as if the text were there three times.
    validation
        The share of the texts that `fit` holds out, to compute the accuracy after each epoch. The only text with a
        label is not held out. If the share makes less than one text, none is.
    truncate
        Cut texts to at most this many tokens. None: a text longer than the encoder's positions is an error.
    seed
        Of the head's initial weights, the order of texts, the validation split, and dropout.

    Attributes
    ----------
    classes_ : ndarray
        The labels, sorted.
    history : list of TuningEpoch
        With the accuracy on the validation split after each epoch.

    Examples
    --------
    >>> bert = BERT.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    >>> texts = ["a film to see twice", "two hours lost", "what a cast", "a bore"]
    >>> labels = ["good", "bad", "good", "bad"]
    >>> model = SentenceClassifier(encoder=bert, head_only=True).fit(texts, labels)
    >>> model.predict(["a great cast"])
    array(['good'], dtype='<U4')
    """

    task: ClassVar[heads.Task] = "SentenceClassifier"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling == "pooler" and self.encoder.causal:
            raise ValueError("pooling='pooler' is BERT's, whose first token sees all others: a GPT has 'last'")

    @property
    def _pooling(self) -> Pooling:
        if self.pooling is not None:
            return self.pooling
        return "mean" if self.head_only else "last" if self.encoder.causal else "pooler"

    @one_at_a_time
    def fit(
        self,
        texts: Sequence[TextOrPair],
        labels: Sequence[Any],
        *,
        sample_weight: Any = None,
        validation: float | tuple[Any, Any] | None = None,
        callbacks: Iterable[Callable[[Any], object]] = (),
        progress: bool = False,
        checkpoint: files.PathLike | None = None,
        resume: bool = False,
    ) -> Self:
        """Train on texts with labels.

        Parameters
        ----------
        texts
            Strings, or lists of words. Or pairs: each a tuple of two texts, between which the separator of the family
            stands, with its token types.
        labels
            One for each, all of one type: strings or numbers. Or a list of them for each, which may be empty: then
            every label is a yes-or-no question of its own, answered by a sigmoid.
        sample_weight
            The weight of each text, (texts,); see `class_weight`.
        validation
            In place of the option: a share, or ``(texts, labels)``. Every prediction for a label that is not among
            those of training counts as wrong.
        callbacks
            Functions called with the classifier after every epoch; one that returns True ends the training there.
        progress
            Show a bar.
        checkpoint
            A folder for the state of the training, made if it is not there. Written after every epoch, every ten
            minutes, and at Ctrl-C.
        resume
            Continue from the checkpoint where there is one. The result is that of an uninterrupted training.

        Returns
        -------
        Self
            The classifier, fitted.

        Raises
        ------
        TypeError, ValueError
            If texts and labels are not what they should be, or do not go together; if the checkpoint is of another
            training, or is there and `resume` was not asked for.
        FloatingPointError
            If a number stops being finite; then nothing is changed.
        RuntimeError
            If another `fit` of this object is running.
        KeyboardInterrupt
            At Ctrl-C; what had been trained by then is kept.
        """
        self._train(
            texts,
            labels,
            sample_weight=sample_weight,
            validation=validation,
            callbacks=callbacks,
            progress=progress,
            checkpoint=checkpoint,
            resume=resume,
        )
        return self

    def predict_proba(self, texts: Sequence[TextOrPair], *, progress: bool = False) -> NDArray[np.float64]:
        """The probability of each label, (texts, classes), in the order of `classes_`.

        A row's sum is 1, unless texts may have several labels, each of which then has a probability of its own.
        """
        self._fitted()
        return self._scores(self._examples(self._inputs(texts), None), progress=progress)

    def predict(
        self, texts: Sequence[TextOrPair], k: int = 1, threshold: float = 0.0, *, progress: bool = False
    ) -> Any:
        """Predict labels for texts.

        Parameters
        ----------
        texts
            As for `fit`.
        k
            At most so many labels for each text; -1: all.
        threshold
            Leave out labels less likely than this. With several labels a text, ``k=-1, threshold=0.5`` predicts those
            that are more likely than not.
        progress
            Show a bar.

        Returns
        -------
        ndarray or list
            The likeliest label of each text, (texts,). With another `k`, or a threshold: for each text a list of
            (label, probability), the likeliest first.
        """
        k, threshold = label_limit(k), real_number("threshold", threshold)
        chances = self.predict_proba(texts, progress=progress)
        if k == 1 and threshold <= 0:
            return self.classes_[chances.argmax(1)]
        return [
            [(self._classes[label], float(chance)) for label, chance in zip(labels, best, strict=True)]
            for labels, best in likeliest(chances, k, threshold)
        ]

    def score(self, texts: Sequence[TextOrPair], labels: Sequence[Any], sample_weight: Any = None) -> float:
        """The accuracy: the share of texts whose likeliest label is theirs, or one of theirs; NaN for no texts.

        `sample_weight` is the weight of each text, (texts,).
        """
        self._fitted()
        given, rows, _ = self._read(texts, labels, self._several)
        check_comparable([name for row in rows for name in _names(row)], self._classes)
        weights = text_weights("sample_weight", sample_weight, len(given))
        return _average(
            [best in _names(row) for best, row in zip(self.predict(given).tolist(), rows, strict=True)], weights
        )

    def _inputs(self, texts: Any) -> list[Any]:
        """Texts, or pairs of them, checked."""
        given = _list("texts", texts)
        pairs = [isinstance(one, tuple) for one in given]
        if not any(pairs):
            return list(checked_sentences(given, "texts"))
        for i, one in enumerate(given):
            if not isinstance(one, tuple) or len(one) != 2:
                what = f"a tuple of {len(one)}" if isinstance(one, tuple) else f"a {type(one).__name__}"
                raise TypeError(
                    f"texts[{i}] is {what}, and texts[{pairs.index(True)}] is a tuple, which stands for a pair of "
                    "texts: give pairs alone; words of a text are given as a list"
                )
        return [tuple(checked_sentences(pair, f"texts[{i}]")) for i, pair in enumerate(given)]

    def _read(
        self, sentences: Any, labels: Any, several: bool | None = None
    ) -> tuple[list[Any], list[list[Any]], bool]:
        given = self._inputs(sentences)
        gold = labels_of(labels)
        n = len(gold.begins) - 1
        if len(given) != n:
            raise ValueError(f"there are {len(given)} texts and {n} labels: there must be one for each")
        if gold.several and several is False:
            raise TypeError("labels are lists, and training had one label for each text")
        names = [gold.names[i] for i in gold.numbers.tolist()]
        if several is None:
            several = gold.several
        if not several:
            return given, [[name] for name in names], False
        ends = gold.begins.tolist()
        return given, [[tuple(names[ends[i] : ends[i + 1]])] for i in range(n)], True

    def _examples(self, sentences: Sequence[Any], targets: Sequence[Sequence[Any]] | None) -> list[_Example]:
        examples = []
        for i, (ids, types) in enumerate(self._encoded(sentences)):
            own = [0] if targets is None else list(targets[i])
            examples.append(_Example(ids, list(range(len(ids))), [0] * len(ids), own, types=types))
        return examples

    def _encoded(self, texts: Sequence[Any]) -> list[tuple[list[int], list[int]]]:
        """Tokens of texts or of pairs, and their types, where they are not all 0."""
        if not texts or not isinstance(texts[0], tuple):
            return [(one.ids, []) for one in self.encoder._encoded(texts, self.truncate, "texts")]
        encoder, architecture = self.encoder, self.encoder.transformer.architecture
        if self.truncate is not None:
            whole_number("truncate", self.truncate, high=architecture.length)
        found = encoder._pieces().encode_pairs(texts, special=encoder._special, length=self.truncate)
        for i, (ids, _) in enumerate(found):
            if len(ids) > architecture.length:
                raise ValueError(
                    f"texts[{i}] has {len(ids)} tokens and the model {architecture.length} positions: "
                    f"split it, or give truncate={architecture.length}"
                )
        return [(ids, types if 0 < max(types, default=0) < architecture.token_types else []) for ids, types in found]


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class TokenClassifier(_FineTuned):
    """Predict labels for words, such as parts of speech or names, from a transformer's hidden states.

    A linear layer on a word's hidden states scores its labels. The transformer is trained with it, or stays as it is.
    Options are those of `SentenceClassifier`; `pooling` is of a word's tokens: "mean" (None), "max", "first" or "last".
    `cross_val_score`, `GridSearchCV` and a `Pipeline` of scikit-learn take it, with its own `score`: theirs know no
    lists of labels. Folds are not stratified.

    Examples
    --------
    >>> bert = BERT.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    >>> sentences = [["Anna", "sings"], ["she", "writes"], ["Peter", "reads", "books"]]
    >>> labels = [["name", "verb"], [None, "verb"], ["name", "verb", "noun"]]
    >>> model = TokenClassifier(encoder=bert, head_only=True).fit(sentences, labels)
    >>> model.predict([["Otto", "sings"]])
    [['name', 'verb']]
    """

    task: ClassVar[heads.Task] = "TokenClassifier"
    estimator_type: ClassVar[str | None] = None  # scikit-learn's classifiers have one label a sample

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pooling in ("cls", "pooler"):
            raise ValueError(f"pooling={self.pooling!r} is of whole sentences; 'first' takes a word's first token")

    @property
    def _pooling(self) -> Pooling:
        return self.pooling or "mean"

    @one_at_a_time
    def fit(
        self,
        sentences: Sequence[Sequence[str]],
        labels: Sequence[Sequence[Any]],
        *,
        sample_weight: Any = None,
        validation: float | tuple[Any, Any] | None = None,
        callbacks: Iterable[Callable[[Any], object]] = (),
        progress: bool = False,
        checkpoint: files.PathLike | None = None,
        resume: bool = False,
    ) -> Self:
        """Train on sentences whose words have labels.

        Parameters
        ----------
        sentences
            Lists of words.
        labels
            For each sentence a list, with one label for each word, all of one type: strings or numbers; None for a word
            to leave out of the training.
        sample_weight
            The weight of each sentence, (sentences,), for all its words.
        validation
            In place of the option: a share, or ``(sentences, labels)``. Every prediction for a label that is not among
            those of training counts as wrong.
        callbacks
            Functions called with the tagger after every epoch; one that returns True ends the training there.
        progress
            Show a bar.
        checkpoint, resume
            As for `SentenceClassifier.fit`.

        Returns
        -------
        Self
            The tagger, fitted.

        Raises
        ------
        TypeError, ValueError
            If sentences and labels are not what they should be, or do not go together; if the checkpoint is of another
            training, or is there and `resume` was not asked for.
        FloatingPointError
            If a number stops being finite; then nothing is changed.
        RuntimeError
            If another `fit` of this object is running.
        KeyboardInterrupt
            At Ctrl-C; what had been trained by then is kept.
        """
        self._train(
            sentences,
            labels,
            sample_weight=sample_weight,
            validation=validation,
            callbacks=callbacks,
            progress=progress,
            checkpoint=checkpoint,
            resume=resume,
        )
        return self

    def predict(self, sentences: Sequence[Sequence[str]], *, progress: bool = False) -> list[list[Any]]:
        """The likeliest label of each word; None for words that `truncate` cut off, or that have no token."""
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

    def score(
        self, sentences: Sequence[Sequence[str]], labels: Sequence[Sequence[Any]], sample_weight: Any = None
    ) -> float:
        """The accuracy: the share of the words with a label whose label is predicted; NaN for none.

        `sample_weight` is the weight of each sentence, (sentences,), for all its words.
        """
        self._fitted()
        given, rows, _ = self._read(sentences, labels)
        check_comparable([name for row in rows for name in _names(row)], self._classes)
        weights = text_weights("sample_weight", sample_weight, len(given))
        right: list[bool] = []
        each: list[float] = []
        for i, (found, row) in enumerate(zip(self.predict(given), rows, strict=True)):
            own = [one == label for one, label in zip(found, row, strict=True) if label is not None]
            right += own
            each += [1.0 if weights is None else float(weights[i])] * len(own)
        return _average(right, each)

    def _read(
        self, sentences: Any, labels: Any, several: bool | None = None
    ) -> tuple[list[Any], list[list[Any]], bool]:
        given = _word_lists(sentences)
        rows = _list("labels", labels)
        if len(given) != len(rows):
            raise ValueError(f"there are {len(given)} sentences and {len(rows)} lists of labels")
        names = []
        for i, (words, row) in enumerate(zip(given, rows, strict=True)):
            own = _list(f"labels[{i}]", row)
            if len(words) != len(own):
                raise ValueError(f"sentences[{i}] has {len(words)} words and {len(own)} labels")
            names.append([None if name is None else _label(i, j, name) for j, name in enumerate(own)])
        check_one_type(type(name) for row in names for name in row if name is not None)
        return given, names, False

    def _examples(self, sentences: Sequence[Any], targets: Sequence[Sequence[Any]] | None) -> list[_Example]:
        examples = []
        for i, encoding in enumerate(self.encoder._encoded(sentences, self.truncate)):
            places = [(at, word) for at, word in enumerate(encoding.words) if word is not None]
            own = [0] * len(sentences[i]) if targets is None else targets[i]
            # Only words with a label are units; in use, where nothing is known of labels, all words.
            seen = range(len(own)) if targets is None else sorted({word for _, word in places})
            labeled = {word: label for word in seen if (label := own[word]) is not None}
            unit = {word: number for number, word in enumerate(labeled)}
            kept = [(at, unit[word]) for at, word in places if word in unit]
            missed = sum(label is not None for label in own) - len(labeled)
            examples.append(
                _Example(encoding.ids, [at for at, _ in kept], [one for _, one in kept], list(labeled.values()), missed)
            )
        return examples


def holds_head(folder: Path) -> str | None:
    """The class of firth that reads a folder, if it holds a classifier, of firth's or of `transformers`."""
    place = folder / HEAD
    if place.exists():
        return files.read_own(place, "head", mmap=True)[1].get("model")
    config = read_config(folder)
    if (folder / MODULES).exists():  # its transformer may still be called the classifier that it was made from
        return None
    return None if heads.is_regression(config) else heads.task_of(config)


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout, also in the midst of training."""
    learning = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(learning)


def _parted(examples: list[_Example], share: float, seed: int) -> tuple[list[_Example], list[_Example]]:
    """Sentences to train on, and a random share of them for validation: none that alone has a label."""
    left = collections.Counter(target for one in examples for target in set(one.labels))
    aside: set[int] = set()
    for i in np.random.default_rng(seed).permutation(len(examples)).tolist():
        own = set(examples[i].labels)
        if len(aside) < round(share * len(examples)) and all(left[target] > 1 for target in own):
            aside.add(i)
            left.subtract(own)
    kept = [one for i, one in enumerate(examples) if i not in aside]
    return kept, [examples[i] for i in sorted(aside)]


def _names(row: Iterable[Any]) -> list[Any]:
    """The labels of a sentence's units: of words, of the text, or the several that the text has."""
    return [name for one in row if one is not None for name in (one if isinstance(one, tuple) else (one,))]


def _numbered(rows: Sequence[Sequence[Any]], classes: Sequence[Any]) -> list[list[Any]]:
    """Labels as numbers of the classes."""
    numbers: dict[Any, int | None] = {None: None, **{name: i for i, name in enumerate(classes)}}

    def number(name: Any) -> Any:
        return tuple(map(number, name)) if isinstance(name, tuple) else numbers.get(name, _UNKNOWN)

    return [list(map(number, row)) for row in rows]


def _average(right: Sequence[bool], weights: Any) -> float:
    """The weighted share of what is right; NaN of nothing."""
    if not len(right) or (weights is not None and not np.any(weights)):
        return math.nan
    return float(np.average(right, weights=weights))


def _list(name: str, given: Any) -> list[Any]:
    return list(column(name, given))


def _word_lists(sentences: Any) -> list[Sequence[str]]:
    given = list(column("sentences", sentences, advice=", each a list of words"))
    for i, one in enumerate(given):
        if isinstance(one, str):
            raise TypeError(f"sentences[{i}] is a string: labels belong to words, so give lists of words")
    return [_list(f"sentences[{i}]", one) for i, one in enumerate(given)]


def _label(sentence: int, word: int, label: Any) -> Any:
    return checked_label(label, lambda: f"labels[{sentence}][{word}]")
