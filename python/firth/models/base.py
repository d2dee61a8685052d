"""The contract that every model keeps: options fixed and checked, `fit`, `history`, `vectors`, `save` and `load`."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import math
import os
import signal
import tempfile
import threading
import time
import typing
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from firth import files
from firth.checks import finite, functions
from firth.corpus import Corpus, Vocabulary, as_corpus
from firth.counts import Cooccurrences
from firth.options import Options, checked, option
from firth.runtime import default_threads, padded_rows
from firth.vectors import Vectors

if typing.TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
R = TypeVar("R")
Fit = TypeVar("Fit", bound=Callable[..., Any])

_CHUNK_SECONDS = 0.3  # of training between two looks at Ctrl-C and the progress bar
# Stretches of training begin and end at multiples of so many units: the kernels round the loss of each cell of this
# grid by itself. A multiple of every kernel's own stretch.
GRID = 4096
LOSS_UNITS = 2**30  # units of loss in a nat
_CHECKPOINT_SECONDS = 600.0  # between two checkpoints within an epoch


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one pass over the data gave.

    Attributes
    ----------
    epoch
        Its number, from 1.
    loss
        Mean per example, in nats; the model says what an example is. The same bits wherever the same seed gives the
        same vectors, after a resumed training too.
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


def records(stored: Any, kind: type[R], *, may_be_nan: Collection[str] = ()) -> list[R]:
    """Read a history from a file: a list of the dicts that `dataclasses.asdict` made of records of this kind.

    Every number must be finite, but for the fields `may_be_nan`.

    Raises
    ------
    TypeError
        Naming the entry and the field, if it is anything else.
    """
    if not isinstance(stored, list):
        raise TypeError(f"the history must be a list, not {type(stored).__name__}")
    declared = typing.get_type_hints(kind)
    without_default: Any = dataclasses.MISSING
    needed = {field.name for field in dataclasses.fields(kind) if field.default is without_default}  # type: ignore[arg-type]
    for i, record in enumerate(stored):
        if not isinstance(record, dict) or not needed <= record.keys() <= declared.keys():
            raise TypeError(f"history[{i}] must have exactly the fields {', '.join(declared)}")
        for name, value in record.items():
            if checked(f"{name} in history[{i}]", value, declared[name]) is None or name in may_be_nan:
                continue
            if not math.isfinite(value):
                raise TypeError(f"{name} in history[{i}] must be a finite number, not {value}")
        if issubclass(kind, Epoch) and record["epoch"] != i + 1:
            raise TypeError(f"history[{i}] must be epoch {i + 1}, not {record['epoch']}")
    return [kind(**record) for record in stored]


def expect(name: str, tensor: NDArray[Any], dtype: Any, shape: tuple[int | None, ...]) -> None:
    """Refuse a tensor of a file that has another type or shape, None for a side of any length, or is not finite.

    Raises
    ------
    TypeError
        Naming the tensor.
    """
    fits = len(shape) == tensor.ndim and all(
        n is None or n == found for n, found in zip(shape, tensor.shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        sides = ", ".join("any" if n is None else str(n) for n in shape)
        raise TypeError(
            f"{name} must be {np.dtype(dtype)} of shape ({sides}), not {tensor.dtype} of shape {tensor.shape}"
        )
    if not finite(tensor):
        raise TypeError(f"{name} holds a number that is not finite")


@dataclasses.dataclass(kw_only=True, eq=False)
class Learner(Options, abc.ABC):
    """What is learnt from data under options, and can be saved.

    A subclass is a dataclass whose fields are its options: keyword-only, checked when set, fixed from then on;
    ``dataclasses.replace(model, window=8)`` makes an unfitted model with other ones.
    """

    registry: ClassVar[dict[str, type[Learner]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Learner.registry[cls.__name__] = cls

    def __post_init__(self) -> None:
        super().__post_init__()
        self.history: list[Epoch] = []

    @abc.abstractmethod
    def save(self, path: files.PathLike) -> None:
        """Write what was learnt as one safetensors file, which `firth.load` reads; it appears whole or not at all."""

    def _description(self) -> dict[str, Any]:
        return {
            "model": type(self).__name__,
            "options": self.get_params(),
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
        }

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Learner:
        """One that is not fitted, of options as `_description` gave them."""
        return cls(**options)

    @abc.abstractmethod
    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        """Take on what a file holds."""


_training: dict[int, object] = {}  # the learners that are being trained now, by their id
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_training.clear)  # the thread that trains is not there in the child


def one_at_a_time(fit: Fit) -> Fit:
    """Make a method that trains refuse to start while another call of it, or of its like, trains the same model."""

    @functools.wraps(fit)
    def alone(self: Learner, *arguments: Any, **options: Any) -> Any:
        mine = object()
        # One operation, which no other thread can come between.
        if _training.setdefault(id(self), mine) is not mine:
            raise RuntimeError(
                f"this {type(self).__name__} is being fitted already, by another thread or by the fit that called "
                "this callback: wait until it ends, or fit another model"
            )
        try:
            return fit(self, *arguments, **options)
        finally:
            _training.pop(id(self), None)

    return typing.cast(Fit, alone)


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
        return Vectors(self._words, matrix, self._tensors.get("counts"))

    @abc.abstractmethod
    def fit(self, data: Any, *, progress: bool = False) -> Self:
        """Learn vectors from a corpus, or from what else `learns_from` names, and return self.

        `progress` shows a bar on stderr, where there is anything to wait for.
        """

    def _training_data(self, data: Any, *, progress: bool) -> Any:
        """The corpus or counts that `fit` trains on: a corpus is made of files and of texts."""
        if not isinstance(data, self.learns_from):
            if isinstance(data, Cooccurrences):
                raise TypeError(f"{type(self).__name__} trains on text, not on Cooccurrences: give fit the corpus")
            data = as_corpus(data, progress=progress)
        if isinstance(data, Corpus) and data.n_tokens == 0:
            raise ValueError(
                "the corpus holds no token: all its words are rarer than min_count, or missing from the vocabulary "
                "that it was given; min_count=1 keeps every word"
            )
        if isinstance(data, Cooccurrences) and data.csr.nnz == 0:
            raise ValueError("the counts hold no pair of words")
        return data

    def save(self, path: files.PathLike) -> None:
        """Write the whole model (options, words, all matrices, history) as one safetensors file.

        The file appears whole or not at all. `firth.load` reads it; `firth.load_vectors` reads its vectors alone.

        Raises
        ------
        AttributeError
            Before `fit`.
        OSError
            If it cannot be written.
        ValueError
            If a number is not finite: such a model is never saved.
        """
        self._fitted_tensor("vectors")
        self._write(path)

    def _write(self, path: files.PathLike) -> None:
        for name, tensor in self._tensors.items():
            if not finite(tensor):
                raise ValueError(f"cannot save this {type(self).__name__}: {name} holds a number that is not finite")
        files.write_own(path, "model", {**self._tensors, **files.pack_words(self._words)}, self._description())

    def _layout(self, n_words: int) -> dict[str, tuple[Any, tuple[int | None, ...]]]:
        """Type and shape of each tensor that a file may hold, None for a side of any length."""
        return {
            "vectors": (np.float32, (n_words, getattr(self, "vector_size", None))),
            "counts": (np.int64, (n_words,)),
        }

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        self._words = Vocabulary(files.unpack_words(tensors)).words
        layout = self._layout(len(self._words))
        if "vectors" in layout and "vectors" not in tensors:
            raise TypeError("it holds no vectors")
        for name in tensors.keys() - set(files.PACKED_WORDS):
            if name not in layout:
                raise TypeError(f"it holds {name!r}, which is not part of a {type(self).__name__}")
            stored = tensors[name]
            expect(name, stored, *layout[name])
            matrix = stored.ndim == 2 and stored.dtype == np.float32
            kept = padded_rows(*stored.shape) if matrix else np.empty(stored.shape, stored.dtype)
            kept[...] = stored
            self._tensors[name] = kept
        self.history = records(metadata["history"], Epoch)
        self._view = self._vectors_of(self._tensors["vectors"])  # now, so that an error is one about the file


@files.reader("model")
def _loaded(tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> Learner:
    name = metadata["model"]
    if name not in Learner.registry:
        raise ValueError(f"it holds a {name}, which this version of firth does not know")
    model = Learner.registry[name]._from_options(metadata["options"])
    model._restore(tensors, metadata)
    return model


@dataclasses.dataclass(frozen=True)
class Tally:
    """What training on a stretch of the data gave."""

    loss: int  # summed over the examples, in `loss_units`
    examples: int
    diverged: str = ""  # where, if a number stopped being finite


def loss_units(nats: float) -> int:
    """A loss as a whole number of units, so that sums are exact and do not depend on how the work was cut."""
    return round(nats * LOSS_UNITS)


# Trains on the units [begin, end) of an epoch, counted from 0: train(begin, end, epoch). Both are multiples of GRID,
# but for the end of the epoch.
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
        """Allocate and initialize `_tensors`; return the units in an epoch and what trains on a stretch of them."""

    def _settle(self) -> None:
        """Bring `_tensors["vectors"]` up to date, where it is not what is trained itself.

        Called when somebody may look: after every epoch and when training stops.
        """

    @abc.abstractmethod
    def _learning_rate(self, progress: float) -> float:
        """The learning rate when this share of all epochs is done."""

    @abc.abstractmethod
    def _no_example(self, data: Any) -> str:
        """Why these data gave no example to learn from in an epoch, and what to do about it."""

    @one_at_a_time
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
            A `Corpus`, a file of text or texts (strings, or lists of words); for models of counts also `Cooccurrences`.
            A corpus is made of files and texts with the default options of `Corpus.from_file`, min_count=5 among them.
            Every unit, a token or a non-zero, is used once in each epoch.
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
        RuntimeError
            If another `fit` of this model is running.
        ValueError
            If the checkpoint is damaged, belongs to other options or other data, or is there and `resume` was not asked
            for; or if an epoch has no example to learn from. Then nothing is changed.
        MemoryError
            If the matrices do not fit, naming the bytes.
        """
        data = self._training_data(data, progress=progress)
        callbacks = functions("callbacks", callbacks)
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
        try:
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
                    run.check_finite()
                    run.write_checkpoint()
                    raise
                finally:
                    self._settle()
                    for name in self.scratch:
                        self._tensors.pop(name, None)
                    self._training = False
                    self._view = None
        except _NoExample:
            self.__dict__.update(before)
            raise
        return self

    def _read_checkpoint(
        self, folder: Path, data: Corpus | Cooccurrences, resume: bool
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        path = folder / CHECKPOINT
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"checkpoint must be a folder: {folder} is a file")
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
            raise _damaged(path, f"it lacks {', '.join(sorted(missing))}")
        if not isinstance(metadata["options"], dict):
            raise _damaged(path, "its options are not named")
        # How many threads is no part of what is learnt: a run may continue on another machine.
        other = [
            f"{name} was {metadata['options'].get(name)!r}, is {value!r}"
            for name, value in self.get_params().items()
            if name != "threads" and metadata["options"].get(name) != value
        ]
        if metadata["data"] != fingerprint(data):
            other.append("the data are other ones")
        if other:
            raise ValueError(f"{path} does not belong to this training: {'; '.join(other)}")
        return tensors, metadata


CHECKPOINT = "checkpoint.safetensors"  # the file in the folder that `fit` is given


class _NoExample(ValueError):
    """An epoch had nothing to learn from."""


def _damaged(path: Path, what: object) -> ValueError:
    return ValueError(
        f"{path} is a damaged checkpoint, or one of another version of firth: {what}. Remove the file to start again."
    )


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
        self.data = data
        self.units = units
        self.train = train
        self.folder = folder
        self.callbacks = callbacks
        self.fingerprint = fingerprint(data) if folder is not None else []
        self.epoch = 0  # whole ones behind us
        self.position = 0  # units of this one behind us
        self.loss = 0  # in `loss_units`
        self.examples = 0
        self.seconds = 0.0
        self.last_checkpoint = time.monotonic()
        self.good = np.empty(model._tensors["vectors"].shape, np.float32)  # the vectors that `give_up` goes back to
        self.since = "at the start"

    def finish(self, bar: tqdm[Any]) -> None:
        model = self.model
        chunk = 12 * GRID
        while self.epoch < model.epochs:
            np.copyto(self.good, model._tensors["vectors"])
            while self.position < self.units:
                end = min(self.units, self.position + chunk)
                advance = end - self.position
                seconds = self.train_to(end)
                bar.update(advance)
                # How the work is cut does not show in the result, so the clock may decide it.
                if seconds < _CHUNK_SECONDS / 2:
                    chunk = min(2 * chunk, GRID << 28)
                elif seconds > 2 * _CHUNK_SECONDS:
                    chunk = max(chunk // 2 // GRID, 1) * GRID
                if time.monotonic() - self.last_checkpoint > _CHECKPOINT_SECONDS:
                    self.check_finite()
                    self.write_checkpoint()
            self.check_finite()
            bar.set_postfix(loss=f"{self.finish_epoch():.4f}")
            self.since = f"after epoch {self.epoch}"
            self.write_checkpoint()
            answers = [callback(model) for callback in self.callbacks]  # all of them, also when one asks for the end
            if any(answer is True for answer in answers):
                break

    def train_to(self, end: int) -> float:
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
            self.give_up(f", at {tally.diverged}: a product of two vectors is not finite")
        return seconds

    def check_finite(self) -> None:
        """Check what the last steps of training left: no later product has looked at it."""
        for name, tensor in self.model._tensors.items():
            if not finite(tensor):
                self.give_up(f": a number in {name} is not finite")

    def give_up(self, what: str) -> None:
        # The other matrices have no backup; without them nobody takes the model for one that can be trained on.
        self.model._tensors = {"vectors": self.model._tensors["vectors"]}
        self.model._tensors["vectors"][:] = self.good
        raise FloatingPointError(
            f"training diverged in epoch {self.epoch + 1}{what}. The vectors are kept as they were {self.since}. "
            "A lower learning rate helps."
        )

    def finish_epoch(self) -> float:
        if self.examples == 0:
            raise _NoExample(
                f"epoch {self.epoch + 1} had no example to learn from: {self.model._no_example(self.data)}"
            )
        record = Epoch(
            epoch=self.epoch + 1,
            loss=self.loss / (LOSS_UNITS * self.examples),
            learning_rate=self.model._learning_rate((self.epoch + 1) / self.model.epochs),
            units_per_second=self.units / max(self.seconds, 1e-9),
            seconds=self.seconds,
        )
        with _interrupt_deferred():
            self.model._settle()
            self.model.history.append(record)
            self.epoch += 1
            self.position, self.loss, self.examples, self.seconds = 0, 0, 0, 0.0
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
        assert self.folder is not None
        try:
            for name, tensor in self.model._tensors.items():
                if name not in tensors:
                    raise TypeError(f"it holds no {name}")
                expect(name, tensors[name], tensor.dtype, tensor.shape)
            history = records(metadata["history"], Epoch)
            self.restore_progress(metadata["progress"])
            if len(history) != self.epoch:
                raise ValueError(f"its history has {len(history)} epochs and its progress {self.epoch}")
        except (TypeError, ValueError) as error:
            raise _damaged(self.folder / CHECKPOINT, error) from None
        for name, tensor in self.model._tensors.items():
            tensor[:] = tensors[name]
        self.model._settle()
        self.model.history = history
        if self.epoch or self.position:
            self.since = "when training was resumed"

    def restore_progress(self, stored: Any) -> None:
        """Take on where a training stood; TypeError or ValueError if none can have stood there."""
        if not isinstance(stored, list) or [type(one) for one in stored] != [int, int, int, int, float]:
            raise TypeError(f"its progress must be four whole numbers and the seconds, not {stored!r}")
        epoch, position, loss, examples, seconds = stored
        last = 0 if epoch == self.model.epochs else self.units
        if (
            not 0 <= epoch <= self.model.epochs
            or not 0 <= position <= last
            or (position % GRID and position != self.units)
            or examples < 0
            or not 0 <= seconds < math.inf
            or (position == 0 and (loss or examples or seconds))
            or (examples == 0 and loss)
        ):
            raise ValueError(
                f"its progress {stored} is not that of a training of {self.model.epochs} epochs of {self.units} "
                f"{self.model.unit}"
            )
        self.epoch, self.position, self.loss, self.examples, self.seconds = stored
