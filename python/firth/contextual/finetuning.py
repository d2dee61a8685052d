"""Fine-tuning: a linear head on a transformer's hidden states, trained with the transformer or alone."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import typing
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from firth import files
from firth.checks import functions
from firth.contextual import heads, loop
from firth.contextual.base import undone_on_error, warn_of_few_steps
from firth.contextual.elmo import ELMo
from firth.contextual.encoding import BATCH_TOKENS, by_length
from firth.contextual.examples import (
    UNKNOWN,
    Batch,
    Batches,
    Example,
    Pooling,
    names_of,
    numbered,
    targets_of,
    weights_of,
)
from firth.contextual.heads import Head
from firth.contextual.hub import local_folder
from firth.contextual.models import load_transformer, read_config
from firth.contextual.processes import moved, process_count
from firth.contextual.transformer import Transformer, evaluating
from firth.contextual.transformer_model import HEAD, ContextualModel
from firth.models.base import one_at_a_time
from firth.models.estimator import Classifier, split, text_weights
from firth.models.labeled_texts import check_comparable
from firth.options import option, seed_option, shown
from firth.run import History, Record, records

if typing.TYPE_CHECKING:
    from typing_extensions import Self

_HEAD_STEPS = 200  # of L-BFGS at most


class _Tuned(nn.Module):
    """What is trained: a transformer and the head on it."""

    def __init__(self, transformer: Transformer, head: Head) -> None:
        super().__init__()
        self.transformer = transformer
        self.head = head


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class FineTuned(Classifier):
    """`SentenceClassifier` and `TokenClassifier` share this."""

    task: ClassVar[heads.Task]

    encoder: ContextualModel = option(checked=False, help="A fitted or pretrained GPT or BERT; it is not changed.")
    head_only: bool = option(False, help="Train only the head, by logistic regression.")
    pooling: Pooling | None = option(None, help="How to pool the hidden states of a unit's tokens into one vector.")
    epochs: int = option(3, low=1, high=1_000_000, help="Passes over the texts.")
    batch_size: int = option(16, low=1, high=1_000_000, help="Texts in a step of each process.")
    learning_rate: float = option(5e-5, above=0, high=1e3, help="Largest step size.")
    warmup: float = option(0.1, low=0, high=1, help="Share of the steps over which the learning rate rises.")
    weight_decay: float = option(0.01, low=0, high=1e3, help="Weight decay of matrices, times the step size.")
    clip: float | None = option(1.0, above=0, high=3e38, help="Largest norm of the gradient.")
    bf16: bool | None = option(None, help="Multiply matrices in bf16, or in float32.", unset="where it is faster")
    dropout: float = option(0.1, low=0, high=0.99, help="Dropout of the last layer's input.")
    penalty: float = option(1.0, low=0, high=1e9, help="Weight of the head's squared norm, with `head_only`.")
    validation: float = option(0.1, low=0, high=0.99, help="Share of the texts in the validation split.")
    truncate: int | None = option(
        None, low=3, high=1_000_000, help="Truncate texts to at most this many tokens.", unset="never"
    )
    seed: int = seed_option(" with the same number of threads")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.encoder, ContextualModel):
            raise TypeError(f"encoder must be a GPT or a BERT, not {type(self.encoder).__name__}")
        if self.pooling == "cls":
            self.encoder.check_cls()
        self._transformer: Transformer | None = None  # a tuned copy; None: the encoder's own
        self._head: Head | None = None
        self._classes: list[Any] = []
        self._several = False  # whether a text may have several labels

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, sorted; AttributeError before `fit`."""
        self._fitted()
        return np.array(self._classes)

    @property
    def transformer(self) -> Transformer:
        """The tuned torch module; the encoder's own if only the head was trained."""
        self._fitted()
        return self._transformer or self.encoder.transformer

    @property
    def head(self) -> Head:
        """The module from pooled hidden states to scores of `classes_`."""
        return self._fitted()

    @property
    def validation_score(self) -> float | None:
        """Accuracy on the validation split after the last epoch, as `score` computes it; None without a split."""
        self._fitted()
        return self.history[-1].score if self.history else None

    def _is_fitted(self) -> bool:
        return self._head is not None

    def _fitted(self) -> Head:
        if self._head is None:
            raise AttributeError(f"this {type(self).__name__} has not been fitted: call fit first")
        return self._head

    def __repr__(self) -> str:
        return shown(self, f"{len(self._classes)} labels" if self._is_fitted() else "")

    # ---- what a subclass adds

    @property
    def _pooling(self) -> Pooling:
        """The chosen pooling, or the default."""
        raise NotImplementedError

    def _read(self, texts: Any, labels: Any, several: bool | None = None) -> tuple[list[Any], list[list[Any]], bool]:
        """Texts; the labels of each text's units: None, a name, or a tuple of names; whether these are tuples."""
        raise NotImplementedError

    def _examples(self, texts: Sequence[Any], targets: Sequence[Sequence[Any]] | None) -> list[Example]:
        raise NotImplementedError

    def _answers(self, texts: Sequence[Any]) -> list[list[Any]]:
        """The label of each unit of each text."""
        raise NotImplementedError

    # ---- training

    @one_at_a_time
    def fit(
        self,
        texts: Any,
        labels: Any,
        *,
        sample_weight: Any = None,
        validation: float | tuple[Any, Any] | None = None,
        callbacks: Iterable[Callable[[Any], object]] = (),
        progress: bool = False,
        checkpoint: files.PathLike | None = None,
        resume: bool = False,
    ) -> Self:
        """Train the head on texts with labels, and the transformer too, unless `head_only`.

        Parameters
        ----------
        texts
            For a `SentenceClassifier` strings, lists of words, or pairs: tuples of two texts, which the separator of
            the model's family joins, with its token types. For a `TokenClassifier` lists of words.
        labels
            For a `SentenceClassifier` one for each text; or a list of them for each, which may be empty: then every
            label is a yes-or-no question of its own, answered by a sigmoid. For a `TokenClassifier` a list for each
            text, with one label for each word, or None for a word to leave out of the training. All are of one type:
            strings or numbers.
        sample_weight
            The weight of each text, (texts,), for all its words; see `class_weight`.
        validation
            Replaces the option: a share of the texts, or ``(texts, labels)``. Every prediction for a label that is not
            among those of training counts as wrong.
        callbacks, progress, checkpoint, resume
            As for `GPT.fit`; an evaluation follows every epoch.

        Raises
        ------
        TypeError, ValueError, FloatingPointError
            If texts and labels have wrong types or do not go together; as `GPT.fit`. Then nothing is changed.
        """
        callbacks = functions("callbacks", callbacks)
        if self.head_only and (resume or checkpoint is not None):
            raise ValueError(
                "head_only=True trains in one go, without a state to continue from: leave out checkpoint and resume"
            )
        given, rows, several = self._read(texts, labels)
        weights = text_weights("sample_weight", sample_weight, len(given))
        classes = sorted({name for row in rows for name in names_of(row)})
        if len(classes) < (1 if several else 2):
            raise ValueError(f"there must be at least {'one label' if several else 'two different labels'}: {classes}")
        examples = self._examples(given, numbered(rows, classes))
        if weights is not None:
            each = zip(examples, weights.tolist(), strict=True)
            examples = [one.weighted([weight] * len(one.targets)) for one, weight in each]
        examples = [one for one in examples if one.targets]
        if not several and len({label for one in examples for label in one.labels}) < 2:
            raise ValueError("the words that have a token, and that truncate leaves, have fewer than two labels")
        if isinstance(validation, tuple) and len(validation) == 2:
            others, known, _ = self._read(*validation, several)
            check_comparable([name for row in known for name in names_of(row)], classes)
            apart = self._examples(others, numbered(known, classes))
        elif validation is None or isinstance(validation, int | float | np.number):
            share, required = (self.validation, False) if validation is None else (validation, True)
            here, there = split(len(examples), share, self.seed, [one.labels for one in examples], required=required)
            examples, apart = [examples[i] for i in here], [examples[i] for i in there]
        else:
            raise TypeError("validation must be a share, or a pair of texts and labels")
        examples = self._weighted(examples, classes)
        with torch.random.fork_rng(devices=[]), self.encoder.threaded(), undone_on_error(self):
            torch.manual_seed(self.seed)
            head = self._new_head(len(classes)).to(self.encoder.place())
            transformer = None if self.head_only else copy.deepcopy(self.encoder.transformer)
            self.__dict__.update(
                _transformer=transformer, _head=head, _classes=classes, _several=several, history=History()
            )
            try:
                if transformer is None:
                    self._solve(examples, apart, progress)
                else:
                    run: dict[str, Any] = {"progress": progress, "checkpoint": checkpoint, "resume": resume}
                    self._tune(transformer, examples, apart, callbacks, **run)
            finally:
                if transformer is not None:
                    transformer.eval()
        return self

    def _new_head(self, classes: int) -> Head:
        # The head of a GPT has no bias on the last hidden state, as in `transformers`.
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

    def _weighted(self, examples: list[Example], classes: list[Any]) -> list[Example]:
        """Examples with the weights of their labels; of a text with several labels, the mean of theirs."""
        counts = np.bincount([label for one in examples for label in one.labels], minlength=len(classes))
        found = self._label_weights(classes, counts)
        if found is not None:
            each = found.tolist()

            def weight(target: Any) -> float:
                own = [each[label] for label in (target if isinstance(target, tuple) else (target,))]
                return sum(own) / len(own) if own else 1.0

            examples = [one.weighted([weight(target) for target in one.targets]) for one in examples]
        if all(one.weights and not any(one.weights) for one in examples):
            raise ValueError("all sentences to train on have weight 0")
        return examples

    def _losses(self, scores: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each unit in nats; with several labels, the mean over the classes."""
        if self._several:
            return F.binary_cross_entropy_with_logits(scores.float(), targets, reduction="none").mean(1)
        return F.cross_entropy(scores.float(), targets, reduction="none")

    def _solve(self, examples: list[Example], apart: list[Example], progress: bool) -> None:
        """Solve for the best head on fixed hidden states: logistic regression, whose loss has one minimum."""
        start = time.perf_counter()
        head = self._fitted()
        with torch.no_grad():
            features = head.hidden(self._features(examples, progress=progress))
        targets = targets_of(examples, self._classes_in_batch()).to(features.device)
        weights = weights_of(examples).to(features.device)
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
        loss_sum, n, score = self._measure(apart)
        self.history.append(
            Record(
                epoch=1.0,
                loss=final,
                learning_rate=0.0,
                units_per_second=len(targets) / max(seconds, 1e-9),
                seconds=seconds,
                validation_loss=loss_sum / n if n else None,
                score=None if math.isnan(score) else score,
            )
        )

    def _classes_in_batch(self) -> int | None:
        return len(self._classes) if self._several else None

    def _tune(
        self,
        transformer: Transformer,
        examples: list[Example],
        apart: list[Example],
        callbacks: Sequence[Callable[[Any], object]],
        *,
        checkpoint: files.PathLike | None,
        **others: Any,
    ) -> None:
        processes = process_count()
        batches = Batches(examples, self.encoder.padding, self.seed, processes, self._classes_in_batch(), apart)
        each = -(-len(examples) // (self.batch_size * processes))
        steps = each * self.epochs
        warn_of_few_steps(self, steps, "a head", "head_only=True, which is solved without steps")
        schedule = loop.Schedule.of(
            self,
            steps=steps,
            length=max(len(one.ids) for one in examples),
            min_learning_rate=0.0,
            warmup=max(1, round(self.warmup * steps)) / steps,  # or a training of one step would be over, its rate 0
            betas=(0.9, 0.999),
            evaluate_every=each,
            evaluate_batches=0,
        )
        mean_weight = float(weights_of(examples).double().mean())

        def loss(tuned: _Tuned, batch: Batch) -> tuple[Tensor, int]:
            hidden = tuned.head.hidden(batch.features(tuned.transformer, self._pooling))
            scores = tuned.head.out(F.dropout(hidden, self.dropout, tuned.training))
            return (self._losses(scores, batch.targets) * batch.weights).sum() / mean_weight, len(batch.targets)

        def note(_: Record) -> bool:
            with evaluating(transformer):
                answers = [callback(self) for callback in callbacks]
            return any(answer is True for answer in answers)

        loop.train(
            _Tuned(transformer, self._fitted()),
            batches,
            loss,
            schedule,
            device=self.encoder.place(),
            callbacks=[note],
            checkpoint=checkpoint,
            history=self.history,
            options={} if checkpoint is None else self._shared(),
            measure=lambda: self._measure(apart),
            name=type(self).__name__,
            epoch_steps=each,
            **others,
        )

    def _shared(self) -> dict[str, Any]:
        """Values that a resumed training must share with the first one, besides schedule and data."""
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

    @torch.no_grad()
    def _measure(self, examples: list[Example]) -> tuple[float, int, float]:
        """The summed loss of the units whose label training has seen, their number, and the accuracy on all units."""
        n = sum(len(one.targets) + one.missed for one in examples)
        if not n:
            return 0.0, 0, math.nan
        scores = self._fitted()(self._features(examples))
        targets = targets_of(examples, self._classes_in_batch()).to(scores.device)
        best = scores.argmax(1)
        if self._several:
            right = targets.gather(1, best[:, None]) > 0
            return float(self._losses(scores, targets).sum()), len(targets), int(right.sum()) / n
        known = targets != UNKNOWN
        loss = float(self._losses(scores[known], targets[known]).sum())
        return loss, int(known.sum()), int((best == targets).sum()) / n

    @torch.no_grad()
    def _features(self, examples: list[Example], *, progress: bool = False) -> Tensor:
        """Pooled hidden states of all units, in the order of the examples."""
        transformer = self.transformer
        device, padding = self.encoder.place(), self.encoder.padding
        sizes = [len(one.targets) for one in examples]
        begins = np.concatenate([[0], np.cumsum(sizes)])
        features = torch.zeros(int(begins[-1]), self.encoder.dim, device=device)
        lengths = [len(one.ids) if one.targets else 0 for one in examples]
        batches = list(by_length(lengths, BATCH_TOKENS))
        for rows in tqdm(batches, desc="encode", unit=" batches", disable=not progress):
            chosen = [dataclasses.replace(examples[row], targets=[0] * sizes[row], weights=[]) for row in rows]
            found = moved(Batch.of(chosen, padding), device).features(transformer, self._pooling)
            at = np.concatenate([np.arange(begins[row], begins[row + 1]) for row in rows])
            features[torch.from_numpy(at).to(device)] = found
        return features

    @torch.no_grad()
    def _scores(self, examples: list[Example], *, progress: bool = False) -> NDArray[np.float64]:
        """Probabilities of the classes, (units, classes)."""
        head = self._fitted()
        with self.encoder.threaded():
            scores = head(self._features(examples, progress=progress)).double()
            chances = torch.sigmoid(scores) if self._several else torch.softmax(scores, 1)
        return typing.cast("NDArray[np.float64]", chances.cpu().numpy())

    def score(self, texts: Any, labels: Any, sample_weight: Any = None) -> float:
        """The accuracy: the share of texts, or of words with a label, whose predicted label is right; NaN for none.

        Where a text has several labels, each of them is right. `sample_weight` is the weight of each text, (texts,).
        """
        self._fitted()
        given, rows, _ = self._read(texts, labels, self._several)
        check_comparable([name for row in rows for name in names_of(row)], self._classes)
        weights = text_weights("sample_weight", sample_weight, len(given))
        right: list[bool] = []
        each: list[float] = []
        for i, (found, row) in enumerate(zip(self._answers(given), rows, strict=True)):
            own = [one in names_of([label]) for one, label in zip(found, row, strict=True) if label is not None]
            right += own
            each += [1.0 if weights is None else float(weights[i])] * len(own)
        return float(np.average(right, weights=each)) if any(each) else math.nan

    # ---- files

    def save(self, path: files.PathLike) -> None:
        """Write a folder, which `firth.load` reads: the tuned transformer as `GPT.save` writes it, head and options.

        `AutoModelForSequenceClassification` or `AutoModelForTokenClassification` of `transformers` opens it with the
        trained head, if its head can be expressed there: that of a `TokenClassifier` always (it gives scores for every
        token; `pooling` says which of them make a word's), that of a `SentenceClassifier` with the pooling "pooler" of
        a BERT and "last" of a GPT, the defaults. With another pooling, `transformers` opens the transformer without its
        head. A GPT reads a pair of texts with its end-of-text token between them, and tokenizers of `transformers` join
        the two: there, put this token into the text.
        """
        head = self._fitted()
        self.encoder.check_finite(head)
        holder = copy.copy(self.encoder)
        holder.__dict__["_transformer"] = self.transformer
        theirs = None
        # Whether `transformers` has such a head.
        if self.task == "TokenClassifier" or self._pooling == ("last" if self.encoder.causal else "pooler"):
            tokenizer = self.encoder.tokenizer_
            # A GPT without a token for padding uses its end-of-text token.
            padding = (self.transformer.architecture.padding, tokenizer.padding, tokenizer.end)
            theirs = heads.in_transformers(
                head,
                self.task,
                self._classes,
                causal=self.encoder.causal,
                several=self._several,
                dropout=self.dropout,
                padding=next((token for token in padding if token is not None), None),
            )
        description = {**self._description(), "classes": self._classes, "several": self._several}
        tensors = head.arrays() if theirs is None else {}
        holder.save_with_head(path, lambda place: files.write_own(place, "head", tensors, description), theirs)

    def _description(self) -> dict[str, Any]:
        described = super()._description()
        return {**described, "options": {**described["options"], "encoder": None}}

    @classmethod
    def load(cls, path: files.PathLike, *, revision: str | None = None, device: str = "cpu", **options: Any) -> Self:
        """Read a folder that `save` wrote, or one of a classifier of `transformers`.

        Such a classifier is of the family of BERT, RoBERTa, DistilBERT or GPT-2, and was saved with its tokenizer. Its
        labels are those in config.json; the options are the defaults, and a word's label is that of its first token.

        `options` replace those of the folder, such as `truncate`, or those of another `fit`; all but `encoder`,
        `head_only` and `pooling`, for which the head was trained. The rest is as for `GPT.from_pretrained`.
        """
        free = {field.name for field in dataclasses.fields(cls)} - {"encoder", "head_only", "pooling"}
        for name in options:
            if name not in free:
                raise TypeError(f"{name} is not one of the options that can be changed: {', '.join(sorted(free))}")
        folder = local_folder(path, revision)
        config = read_config(folder)
        found = heads.kind_of(folder, config)
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
        theirs = None if tensors else heads.read(folder, cls.task)
        if theirs is not None:
            metadata.setdefault("several", theirs[2])
        encoder = load_transformer(folder, device=device)
        with files.reading(folder / HEAD, "head"):
            saved = metadata["options"] if own else {"pooling": "first" if cls.task == "TokenClassifier" else None}
            model = cls._from_options({**saved, "encoder": encoder})
            model._restore(tensors, metadata)
        if theirs is not None:
            model._head, labels = theirs[0].to(encoder.place()), theirs[1]
            if [str(name) for name in model._classes] != labels:  # its training continued in `transformers`
                model._classes = labels
        if options:
            changed = cls(**{**model.get_params(), **options})
            model.__dict__.update({name: changed.get_params()[name] for name in options})
        return model

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        self._classes = metadata.get("classes", [])
        self._several = metadata["several"]
        self.history = records(metadata.get("history", []))
        if tensors:
            head = Head.of(tensors)
            if (head.out.in_features, head.out.out_features) != (self.encoder.dim, len(self._classes)):
                raise TypeError("the head does not fit the transformer and the labels")
            self._head = head.to(self.encoder.place())
