"""The contract that every model keeps: options fixed and checked, `fit`, `history`, `vectors`, `save` and `load`."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
import numbers
import signal
import tempfile
import threading
import time
import types
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from firth import files
from firth.checks import one_of
from firth.corpus import Corpus
from firth.counts import Cooccurrences
from firth.runtime import default_threads, padded_rows
from firth.vectors import Vectors

if typing.TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

_CHUNK_SECONDS = 0.3  # of training between two looks at Ctrl-C and the progress bar
_CHECKPOINT_SECONDS = 600.0  # between two checkpoints within an epoch


def option(default: T, *, low: float | None = None, above: float | None = None, high: float | None = None) -> T:
    """Declare an option of a model: its default, and the range it must lie in (`above` itself excluded)."""
    return dataclasses.field(default=default, metadata={"low": low, "above": above, "high": high})


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one pass over the data gave.

    Attributes
    ----------
    epoch
        Its number, from 1.
    loss
        Mean per example, in nats, summed in float64; the model says what an example is. NaN if there was none.
    learning_rate
        At the end of the epoch.
    units_per_second
        Units of the data: tokens of a corpus, those that subsampling drops included, or non-zeros of a matrix.
    seconds
        Of training.
    """

    epoch: int
    loss: float
    learning_rate: float
    units_per_second: float
    seconds: float


@dataclasses.dataclass(kw_only=True, eq=False)
class Learner(abc.ABC):
    """What is learnt from data under options, and can be saved.

    A subclass is a dataclass whose fields are its options: keyword-only, checked when set, fixed from then on;
    ``dataclasses.replace(model, window=8)`` makes an unfitted model with other ones.
    """

    registry: ClassVar[dict[str, type[Learner]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Learner.registry[cls.__name__] = cls

    def __post_init__(self) -> None:
        declared = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            if field.metadata.get("checked_by_class"):
                self.__dict__[field.name] = getattr(self, field.name)
                continue
            value = _checked(
                f"{type(self).__name__}({field.name}=...)", getattr(self, field.name), declared[field.name]
            )
            limits = field.metadata
            if value is not None and limits:
                low, above, high = limits["low"], limits["above"], limits["high"]
                if (
                    (low is not None and not value >= low)
                    or (above is not None and not value > above)
                    or (high is not None and not value <= high)
                ):
                    bounds = [
                        f"at least {low}" if low is not None else "",
                        f"above {above}" if above is not None else "",
                        f"at most {high}" if high is not None else "",
                    ]
                    raise ValueError(f"{field.name} must be {' and '.join(filter(None, bounds))}, not {value}")
            self.__dict__[field.name] = value
        self.history: list[Epoch] = []

    def __setattr__(self, name: str, value: object) -> None:
        if name in self.__dict__ and name in {field.name for field in dataclasses.fields(self)}:
            raise dataclasses.FrozenInstanceError(
                f"{name} is fixed; dataclasses.replace(model, {name}={value!r}) makes a new model"
            )
        super().__setattr__(name, value)

    @property
    def options(self) -> dict[str, Any]:
        """The options by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @abc.abstractmethod
    def save(self, path: files.PathLike) -> None:
        """Write what was learnt as one safetensors file, which `firth.load` reads; it appears whole or not at all."""

    def _description(self) -> dict[str, Any]:
        return {
            "model": type(self).__name__,
            "options": self.options,
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
        }

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Learner:
        """One that is not fitted, of options as `_description` gave them."""
        return cls(**options)

    @abc.abstractmethod
    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        """Take on what a file holds."""


@dataclasses.dataclass(kw_only=True, eq=False)
class Model(Learner):
    """A way of learning vectors."""

    learns_from: ClassVar[tuple[type, ...]] = (Corpus,)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tensors: dict[str, NDArray[Any]] = {}  # matrices of float32, or vectors of any type
        self._words: list[str] = []
        self._view: Vectors | None = None
        self._training = False

    @property
    def vectors(self) -> Vectors:
        """The words' vectors; also in a callback (a copy of the moment), and after an interruption.

        Raises
        ------
        AttributeError
            Before `fit`.
        """
        matrix = self._fitted_tensor("vectors")
        if self._training:
            # The rows go on changing; what `Vectors` remembers of them, their lengths, would not fit them any more.
            return self._vectors_of(np.array(matrix))
        if self._view is None:
            self._view = self._vectors_of(matrix)
        return self._view

    def _fitted_tensor(self, name: str) -> NDArray[Any]:
        """What `fit` has left under this name; AttributeError before."""
        if name not in self._tensors:
            raise AttributeError(f"this {type(self).__name__} has not been fitted: call fit(corpus) first")
        return self._tensors[name]

    def _vectors_of(self, matrix: NDArray[np.float32]) -> Vectors:
        return Vectors(self._words, matrix)

    @abc.abstractmethod
    def fit(self, data: Any, *, progress: bool = False) -> Self:
        """Learn vectors from a corpus, or from what else `learns_from` names, and return self.

        `progress` shows a bar on stderr, where there is anything to wait for.
        """

    def _check_data(self, data: object) -> None:
        """Refuse what `fit` cannot learn from."""
        if not isinstance(data, self.learns_from):
            kinds = " or ".join(f"a firth.{kind.__name__}" for kind in self.learns_from)
            raise TypeError(
                f"fit takes {kinds}, not {type(data).__name__}; "
                "make a corpus with Corpus.from_file(path) or Corpus.from_iterable(sentences)"
            )
        if isinstance(data, Corpus) and data.n_tokens == 0:
            raise ValueError("the corpus holds no token: none of its text is in its vocabulary")
        if isinstance(data, Cooccurrences) and data.csr.nnz == 0:
            raise ValueError("the counts hold no pair of words")

    def save(self, path: files.PathLike) -> None:
        """Write the whole model (options, words, all matrices, history) as one safetensors file.

        The file appears whole or not at all. `firth.load` reads it; `firth.load_vectors` reads its vectors alone.
        """
        vectors = self.vectors
        files.write_own(
            path, "model", {**self._tensors, **files.pack_words(vectors.words)}, metadata=self._description()
        )

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        self._words = files.unpack_words(tensors)
        if len(tensors["vectors"]) != len(self._words):
            raise TypeError(f"{len(tensors['vectors'])} vectors for {len(self._words)} words")
        for name in tensors.keys() - set(files.PACKED_WORDS):
            stored = tensors[name]
            kept = padded_rows(*stored.shape) if stored.ndim == 2 else np.empty(stored.shape, stored.dtype)
            kept[...] = stored
            self._tensors[name] = kept
        self.history = [Epoch(**epoch) for epoch in metadata["history"]]
        self._view = None


def choices(declared: Any) -> tuple[str, ...]:
    """The strings that a field of type `Literal["a", "b"]` takes; none for one of another type."""
    return typing.get_args(declared) if typing.get_origin(declared) is typing.Literal else ()


def not_none(declared: Any) -> Any:
    """The type T that a field of type `T | None` declares; other types as they are."""
    if typing.get_origin(declared) not in (typing.Union, types.UnionType):
        return declared
    (kind,) = (kind for kind in typing.get_args(declared) if kind is not type(None))
    return kind


def _checked(name: str, value: Any, declared: Any) -> Any:
    """`value` as the Python type that the field declares; NumPy's numbers are taken, booleans are not numbers."""
    expected = not_none(declared)
    if value is None and expected is not declared:
        return None
    allowed = choices(expected)
    if allowed:
        expected = str
    if expected is bool or isinstance(value, bool):
        if expected is bool and isinstance(value, bool):
            return value
    elif expected is int and isinstance(value, numbers.Integral):
        return int(value)
    elif expected is float and isinstance(value, numbers.Real):
        return float(value)
    elif expected is str and isinstance(value, str):
        if allowed:
            one_of(name, value, allowed)
        return str(value)
    raise TypeError(f"{name} must be {expected.__name__}, not {type(value).__name__}")


def load(path: files.PathLike) -> Any:
    """Read a model, or a classifier, that its `save` wrote.

    Parameters
    ----------
    path
        The file. For vectors alone, of firth's or others', there is `firth.load_vectors`.

    Returns
    -------
    Model or FastTextClassifier
        Of the class that was saved, with its options, `history` and all that it learnt.

    Raises
    ------
    OSError
        If the file is not there or cannot be read.
    ValueError
        If it is not a model of firth's, is damaged, or was written by a newer version.
    """
    tensors, metadata = files.read_own(path, "model", mmap=True)
    name = metadata.get("model")
    if isinstance(name, str) and name not in Learner.registry:
        raise ValueError(f"{path} holds a {name}, which this version of firth does not know")
    try:
        model = Learner.registry[metadata["model"]]._from_options(metadata["options"])
        model._restore(tensors, metadata)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is a damaged model, or one of another version of firth: {error}") from None
    return model


@dataclasses.dataclass(frozen=True)
class Tally:
    """What training on a stretch of the data gave."""

    loss: float  # summed over the examples
    examples: int
    diverged: str = ""  # where, if a number stopped being finite


# Trains on the units [begin, end) of an epoch, counted from 0: train(begin, end, epoch).
Train = Callable[[int, int, int], Tally]
Callback = Callable[["GradientModel"], object]


@dataclasses.dataclass(kw_only=True, eq=False)
class GradientModel(Model):
    """A model trained in epochs over units of data, tokens or pairs, by stochastic gradient descent.

    A subclass allocates its matrices and trains a stretch of units; here are the epochs, the history, the progress bar,
    callbacks, interruption, checkpoints and divergence.
    """

    unit: ClassVar[str] = "words"  # what data is counted in
    scratch: ClassVar[tuple[str, ...]] = ()  # tensors that only training needs: part of checkpoints alone

    epochs: int = option(5, low=1, high=1_000_000)  # passes over the data
    seed: int = option(1, low=0, high=2**63 - 1)
    threads: int | None = option(None, low=1, high=4096)  # None: all processors this process may use

    @property
    def n_threads(self) -> int:
        """The threads `fit` runs on."""
        return self.threads or default_threads()

    @abc.abstractmethod
    def _begin(self, data: Any, *, progress: bool) -> tuple[int, Train]:
        """Allocate and initialise `_tensors`; return the units in an epoch and what trains on a stretch of them."""

    def _settle(self) -> None:
        """Bring `_tensors["vectors"]` up to date, where it is not what is trained itself.

        Called when somebody may look: after every epoch and when training stops.
        """

    @abc.abstractmethod
    def _learning_rate(self, progress: float) -> float:
        """The learning rate when this share of all epochs is done."""

    def fit(
        self,
        data: Any,
        *,
        progress: bool = False,
        callbacks: Iterable[Callback] = (),
        checkpoint: files.PathLike | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn vectors.

        Parameters
        ----------
        data
            What to train on: a `Corpus`, or what else the model's `learns_from` names. Every unit of it, a token or a
            non-zero, is used once in each epoch.
        progress
            Show a progress bar on stderr.
        callbacks
            Functions called with the model after every epoch; one that returns True ends the training there.
        checkpoint
            A folder for the state of the training, made if it is not there. Written after every epoch, every ten
            minutes, and at Ctrl-C.
        resume
            Continue from the checkpoint where there is one. The result is the same, to the byte, as that of an
            uninterrupted run, wherever the same seed gives the same bytes at all.

        Returns
        -------
        Self
            The model, fitted.

        Raises
        ------
        KeyboardInterrupt
            At Ctrl-C; `vectors` and `history` are then as far as the training had come.
        FloatingPointError
            If a number stops being finite, naming epoch and place; `vectors` are those of the last whole epoch.
        ValueError
            If the checkpoint belongs to other options or other data, or is there and `resume` was not asked for.
        MemoryError
            If the matrices do not fit, naming the bytes.
        """
        self._check_data(data)
        callbacks = list(callbacks)
        for i, callback in enumerate(callbacks):
            if not callable(callback):
                raise TypeError(f"callbacks[{i}] must be a function of the model, not a {type(callback).__name__}")
        folder = None if checkpoint is None else Path(checkpoint)
        if resume and folder is None:
            raise ValueError("resume=True needs checkpoint=, the folder to continue from")
        state = None if folder is None else self._read_checkpoint(folder, data, resume)
        before = self.__dict__.copy()
        try:
            units, train = self._begin(data, progress=progress)
            self._words = data.vocabulary.words
            self._view = None
            self.history = []
            run = _Run(self, data, units, train, folder, callbacks)
            if state is not None:
                run.restore(*state)
        except BaseException:
            self.__dict__.update(before)  # an earlier fit stays as it was
            raise
        with tqdm(
            total=units * self.epochs,
            initial=run.epoch * units + run.position,
            desc=type(self).__name__,
            unit=f" {self.unit}",
            unit_scale=True,
            disable=not progress,
        ) as bar:
            self._training = True
            try:
                run.finish(bar)
            except KeyboardInterrupt:
                run.write_checkpoint()
                raise
            finally:
                self._settle()
                for name in self.scratch:
                    self._tensors.pop(name, None)
                self._training = False
                self._view = None
        return self

    def _read_checkpoint(
        self, folder: Path, data: Corpus | Cooccurrences, resume: bool
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        path = folder / CHECKPOINT
        folder.mkdir(parents=True, exist_ok=True)
        # Whether it can be written to is found out now, not after the first epoch.
        with tempfile.TemporaryFile(dir=folder):
            pass
        if not path.exists():
            return None
        if not resume:
            raise ValueError(
                f"{path} holds the state of an earlier training: pass resume=True to continue, or remove it"
            )
        tensors, metadata = files.read_own(path, "checkpoint", mmap=True)
        if metadata.get("model") != type(self).__name__:
            raise ValueError(f"{path} is a checkpoint of a {metadata.get('model')}, not of a {type(self).__name__}")
        missing = {"options", "data", "history", "progress"} - metadata.keys()
        if missing:
            raise ValueError(f"{path} is a damaged checkpoint: it lacks {', '.join(sorted(missing))}")
        # How many threads is no part of what is learnt: a run may continue on another machine.
        other = [
            f"{name} was {metadata['options'].get(name)!r}, is {value!r}"
            for name, value in self.options.items()
            if name != "threads" and metadata["options"].get(name) != value
        ]
        if metadata["data"] != fingerprint(data):
            other.append("the data are other ones")
        if other:
            raise ValueError(f"{path} does not belong to this training: {'; '.join(other)}")
        return tensors, metadata


CHECKPOINT = "checkpoint.safetensors"  # the file in the folder that `fit` is given


def fingerprint(data: Corpus | Cooccurrences) -> list[int]:
    """Sizes and checksums of the words and of the arrays of numbers. Reads it all once."""
    arrays: list[NDArray[Any]] = (
        [data.ids, data.offsets] if isinstance(data, Corpus) else [data.csr.data, data.csr.indices, data.csr.indptr]
    )
    prints = [len(data.vocabulary), zlib.crc32("\n".join(data.vocabulary.words).encode())]
    for array in arrays:
        total = 0
        for start in range(0, len(array), 1 << 24):
            total = zlib.crc32(np.ascontiguousarray(array[start : start + (1 << 24)]).data, total)
        prints += [len(array), total]
    return prints


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Hold a Ctrl-C back until the end of the block.

    Python would raise KeyboardInterrupt the moment the kernel returns: between the training of a stretch and the note
    that it was trained, and the checkpoint would have it trained again.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pressed:
        previous(*pressed[0])


class _Run:
    """One call of `fit`: where it stands, and how it goes on."""

    def __init__(
        self,
        model: GradientModel,
        data: Corpus | Cooccurrences,
        units: int,
        train: Train,
        folder: Path | None,
        callbacks: list[Callback],
    ) -> None:
        self.model = model
        self.units = units
        self.train = train
        self.folder = folder
        self.callbacks = callbacks
        self.fingerprint = fingerprint(data) if folder is not None else []
        self.epoch = 0  # whole ones behind us
        self.position = 0  # units of this one behind us
        self.loss = 0.0
        self.examples = 0
        self.seconds = 0.0
        self.last_checkpoint = time.monotonic()

    def finish(self, bar: tqdm[Any]) -> None:
        model = self.model
        chunk = 50_000
        since = "at the start" if self.epoch == self.position == 0 else "when training was resumed"
        good = np.empty(model._tensors["vectors"].shape, np.float32)
        while self.epoch < model.epochs:
            np.copyto(good, model._tensors["vectors"])
            while self.position < self.units:
                end = min(self.units, self.position + chunk)
                advance = end - self.position
                seconds = self.train_to(end, good, since)
                bar.update(advance)
                # How the work is cut does not show in the result, so the clock may decide it.
                if seconds < _CHUNK_SECONDS / 2:
                    chunk = min(2 * chunk, 1 << 40)
                elif seconds > 2 * _CHUNK_SECONDS:
                    chunk = max(chunk // 2, 1000)
                if time.monotonic() - self.last_checkpoint > _CHECKPOINT_SECONDS:
                    self.write_checkpoint()
            self.check_finite(good, since)
            bar.set_postfix(loss=f"{self.finish_epoch():.4f}")
            since = f"after epoch {self.epoch}"
            self.write_checkpoint()
            answers = [callback(model) for callback in self.callbacks]  # all of them, also when one asks for the end
            if any(answer is True for answer in answers):
                break

    def train_to(self, end: int, good: NDArray[np.float32], since: str) -> float:
        """Train up to unit `end` of the epoch, and return the seconds that it took."""
        with _interrupt_deferred():
            start = time.perf_counter()
            tally = self.train(self.position, end, self.epoch)
            seconds = time.perf_counter() - start
            self.position = end
            self.loss += tally.loss
            self.examples += tally.examples
            self.seconds += seconds
        if tally.diverged:
            self.give_up(f", at {tally.diverged}: a product of two vectors is not finite", good, since)
        return seconds

    def check_finite(self, good: NDArray[np.float32], since: str) -> None:
        """See what the last steps of an epoch left: no later product has looked at it."""
        for name, tensor in self.model._tensors.items():
            # In float64 a sum of finite float32 numbers is finite.
            if not np.isfinite(np.add.reduce(tensor, axis=None, dtype=np.float64)):
                self.give_up(f": a number in {name} is not finite", good, since)

    def give_up(self, what: str, good: NDArray[np.float32], since: str) -> None:
        # The other matrices have no backup; without them nobody takes the model for one that can be trained on.
        self.model._tensors = {"vectors": self.model._tensors["vectors"]}
        self.model._tensors["vectors"][:] = good
        raise FloatingPointError(
            f"training diverged in epoch {self.epoch + 1}{what}. The vectors are kept as they were {since}. "
            "A lower learning rate helps."
        )

    def finish_epoch(self) -> float:
        record = Epoch(
            epoch=self.epoch + 1,
            loss=self.loss / self.examples if self.examples else math.nan,
            learning_rate=self.model._learning_rate((self.epoch + 1) / self.model.epochs),
            units_per_second=self.units / max(self.seconds, 1e-9),
            seconds=self.seconds,
        )
        with _interrupt_deferred():
            self.model._settle()
            self.model.history.append(record)
            self.epoch += 1
            self.position, self.loss, self.examples, self.seconds = 0, 0.0, 0, 0.0
        return record.loss

    def write_checkpoint(self) -> None:
        if self.folder is None:
            return
        files.write_own(
            self.folder / CHECKPOINT,
            "checkpoint",
            {**self.model._tensors, **files.pack_words(self.model._words)},
            {
                **self.model._description(),
                "data": self.fingerprint,
                "progress": [self.epoch, self.position, self.loss, self.examples, self.seconds],
            },
        )
        self.last_checkpoint = time.monotonic()

    def restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        try:
            for name, tensor in self.model._tensors.items():
                tensor[:] = tensors[name]
            self.model._settle()
            self.model.history = [Epoch(**epoch) for epoch in metadata["history"]]
            self.epoch, self.position, self.loss, self.examples, self.seconds = metadata["progress"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the checkpoint in {self.folder} is damaged: {error}") from None
