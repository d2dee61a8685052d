"""The contract that every model keeps: options fixed and checked, `fit`, `history`, `vectors`, `save` and `load`."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import numbers
import signal
import threading
import time
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from firth import _core, files
from firth.corpus import Corpus
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
    """What one pass over the data gave."""

    epoch: int  # from 1
    loss: float  # mean per example, in nats; the model says what an example is
    learning_rate: float  # at the end of the epoch
    words_per_second: float  # tokens read, those that subsampling drops included
    seconds: float


@dataclasses.dataclass(kw_only=True, eq=False)
class Model(abc.ABC):
    """A way of learning vectors.

    A subclass is a dataclass whose fields are its options: keyword-only, checked when set, fixed from then on;
    ``dataclasses.replace(model, window=8)`` makes an unfitted model with other ones.
    """

    registry: ClassVar[dict[str, type[Model]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Model.registry[cls.__name__] = cls

    def __post_init__(self) -> None:
        types = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _checked(f"{type(self).__name__}({field.name}=...)", getattr(self, field.name), types[field.name])
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
        self._tensors: dict[str, NDArray[np.float32]] = {}
        self._words: list[str] = []
        self._view: Vectors | None = None

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

    @property
    def vectors(self) -> Vectors:
        """The words' vectors; also while training, in a callback, and after an interruption.

        Raises
        ------
        AttributeError
            Before `fit`.
        """
        if "vectors" not in self._tensors:
            raise AttributeError(f"this {type(self).__name__} has not been fitted: call fit(corpus) first")
        if self._view is None:
            self._view = Vectors(self._words, self._tensors["vectors"])
        return self._view

    @abc.abstractmethod
    def fit(self, corpus: Corpus) -> Self:
        """Learn vectors from a corpus, and return self."""

    def save(self, path: files.PathLike) -> None:
        """Write the whole model (options, words, all matrices, history) as one safetensors file.

        The file appears whole or not at all. `firth.load` reads it; `firth.load_vectors` reads its vectors alone.
        """
        vectors = self.vectors
        files.write_tensors(
            path,
            {**self._tensors, **files.pack_words(vectors.words)},
            {"format": "firth model", **self._description()},
        )

    def _description(self) -> dict[str, Any]:
        return {
            "model": type(self).__name__,
            "options": self.options,
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
        }

    def _restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        self._words = files.unpack_words(tensors)
        for name, stored in tensors.items():
            if stored.dtype == np.float32:
                self._tensors[name] = padded_rows(*stored.shape)
                self._tensors[name][:] = stored
        self.history = [Epoch(**epoch) for epoch in metadata["history"]]
        self._view = None


def _checked(name: str, value: Any, expected: Any) -> Any:
    """`value` as the Python type that the field declares; NumPy's numbers are taken, booleans are not numbers."""
    if typing.get_args(expected):  # int | None
        if value is None:
            return None
        (expected,) = (kind for kind in typing.get_args(expected) if kind is not type(None))
    if expected is bool or isinstance(value, bool):
        if expected is bool and isinstance(value, bool):
            return value
    elif expected is int and isinstance(value, numbers.Integral):
        return int(value)
    elif expected is float and isinstance(value, numbers.Real):
        return float(value)
    elif expected is str and isinstance(value, str):
        return value
    raise TypeError(f"{name} must be {expected.__name__}, not {type(value).__name__}")


def load(path: files.PathLike) -> Model:
    """Read a model that `Model.save` wrote.

    Raises
    ------
    ValueError
        If the file is not a model of firth's, or one of a newer version.
    """
    tensors, metadata = files.read_tensors(path, mmap=True)
    if metadata.get("format") != "firth model":
        raise ValueError(f"{path} is not a model that firth saved; for vectors alone use firth.load_vectors")
    kind = Model.registry.get(metadata["model"])
    if kind is None:
        raise ValueError(f"{path} holds a {metadata['model']}, which this version of firth does not know")
    model = kind(**metadata["options"])
    model._restore(tensors, metadata)
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

    epochs: int = option(5, low=1, high=1_000_000)  # passes over the data
    seed: int = option(1, low=0, high=2**63 - 1)
    threads: int | None = option(None, low=1, high=4096)  # None: all processors this process may use

    @property
    def n_threads(self) -> int:
        """The threads `fit` runs on."""
        return self.threads or default_threads()

    @abc.abstractmethod
    def _begin(self, corpus: Corpus) -> tuple[int, Train]:
        """Allocate and initialise `_tensors`; return the units in an epoch and what trains on a stretch of them."""

    @abc.abstractmethod
    def _learning_rate(self, progress: float) -> float:
        """The learning rate when this share of all epochs is done."""

    def fit(
        self,
        corpus: Corpus,
        *,
        progress: bool = False,
        callbacks: Iterable[Callback] = (),
        checkpoint: files.PathLike | None = None,
        resume: bool = False,
    ) -> Self:
        """Learn vectors from a corpus.

        Parameters
        ----------
        corpus
            What to train on. Every token is used once in each epoch.
        progress
            Show a progress bar on stderr.
        callbacks
            Functions called with the model after every epoch; one that returns True ends the training there.
        checkpoint
            A folder for the state of the training, made if it is not there. Written after every epoch, every ten
            minutes, and at Ctrl-C.
        resume
            Continue from the checkpoint where there is one. At one thread the result is the same, to the byte, as
            that of an uninterrupted run.

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
            If the checkpoint belongs to other options or another corpus, or is there and `resume` was not asked for.
        MemoryError
            If the matrices do not fit, naming the bytes.
        """
        if not isinstance(corpus, Corpus):
            raise TypeError(
                f"fit takes a firth.Corpus, not {type(corpus).__name__}; "
                "make one with Corpus.from_file(path) or Corpus.from_iterable(sentences)"
            )
        folder = None if checkpoint is None else Path(checkpoint)
        if resume and folder is None:
            raise ValueError("resume=True needs checkpoint=, the folder to continue from")
        state = None if folder is None else self._read_checkpoint(folder, corpus, resume)
        _core.check_corpus(corpus.ids, corpus.offsets, len(corpus.vocabulary))
        units, train = self._begin(corpus)
        self._words = corpus.vocabulary.words
        self._view = None
        self.history = []
        run = _Run(self, corpus, units, train, folder, list(callbacks))
        if state is not None:
            run.restore(*state)
        with tqdm(
            total=units * self.epochs,
            initial=run.epoch * units + run.position,
            desc=type(self).__name__,
            unit="w",
            unit_scale=True,
            disable=not progress,
        ) as bar:
            try:
                run.finish(bar)
            except KeyboardInterrupt:
                run.write_checkpoint()
                raise
        return self

    def _read_checkpoint(
        self, folder: Path, corpus: Corpus, resume: bool
    ) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        path = folder / CHECKPOINT
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            return None
        if not resume:
            raise ValueError(
                f"{path} holds the state of an earlier training: pass resume=True to continue, or remove it"
            )
        tensors, metadata = files.read_tensors(path, mmap=True)
        if metadata.get("format") != "firth checkpoint" or metadata.get("model") != type(self).__name__:
            raise ValueError(f"{path} is not a checkpoint of a {type(self).__name__}")
        # The number of threads is no part of what is learnt: a run may continue on another machine.
        other = [
            f"{name} was {metadata['options'].get(name)!r}, is {value!r}"
            for name, value in self.options.items()
            if name != "threads" and metadata["options"].get(name) != value
        ]
        if metadata["corpus"] != _fingerprint(corpus):
            other.append("the corpus is another one")
        if other:
            raise ValueError(f"{path} does not belong to this training: {'; '.join(other)}")
        return tensors, metadata


CHECKPOINT = "checkpoint.safetensors"  # the file in the folder that `fit` is given


def _fingerprint(corpus: Corpus) -> list[int]:
    """Numbers that differ between corpora that differ: sizes, and sums of ids and counts that depend on the order."""
    ids = corpus.ids[:: max(1, len(corpus.ids) // 100_000)].astype(np.int64)
    counts = corpus.vocabulary.counts
    return [
        corpus.n_tokens,
        len(corpus),
        len(counts),
        int((ids * np.arange(1, len(ids) + 1)).sum()),
        int((counts % 1_000_003 * np.arange(1, len(counts) + 1)).sum()),
    ]


@contextlib.contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Hold a Ctrl-C back until the end of the block.

    Python would raise KeyboardInterrupt the moment the kernel returns: between the training of a stretch and the note
    that it was trained, and the checkpoint would have it trained again.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield
        return
    pressed = []
    signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


class _Run:
    """One call of `fit`: where it stands, and how it goes on."""

    def __init__(
        self,
        model: GradientModel,
        corpus: Corpus,
        units: int,
        train: Train,
        folder: Path | None,
        callbacks: list[Callback],
    ) -> None:
        self.model = model
        self.corpus = corpus
        self.units = units
        self.train_stretch = train
        self.folder = folder
        self.callbacks = callbacks
        self.epoch = 0  # whole ones behind us
        self.position = 0  # units of this one behind us
        self.loss = 0.0
        self.examples = 0
        self.seconds = 0.0
        self.last_checkpoint = time.monotonic()

    def finish(self, bar: tqdm[Any]) -> None:
        model = self.model
        chunk = 50_000
        while self.epoch < model.epochs:
            good = np.array(model._tensors["vectors"])
            while self.position < self.units:
                end = min(self.units, self.position + chunk)
                with _interrupt_deferred():
                    start = time.perf_counter()
                    tally = self.train_stretch(self.position, end, self.epoch)
                    seconds = time.perf_counter() - start
                    advance = end - self.position
                    self.position = end
                    self.loss += tally.loss
                    self.examples += tally.examples
                    self.seconds += seconds
                    model._view = None  # what it may have cached of the vectors is stale
                if tally.diverged:
                    model._tensors["vectors"][:] = good
                    raise FloatingPointError(
                        f"training diverged in epoch {self.epoch + 1}, at {tally.diverged}: a product of two vectors "
                        f"is not finite. The vectors are kept as they were after epoch {self.epoch}. "
                        "A lower learning rate helps."
                    )
                bar.update(advance)
                # How the work is cut does not show in the result, so the clock may decide it.
                if seconds < _CHUNK_SECONDS / 2:
                    chunk = min(2 * chunk, 1 << 40)
                elif seconds > 2 * _CHUNK_SECONDS:
                    chunk = max(chunk // 2, 1000)
                if time.monotonic() - self.last_checkpoint > _CHECKPOINT_SECONDS:
                    self.write_checkpoint()
            bar.set_postfix(loss=f"{self.finish_epoch():.4f}")
            self.write_checkpoint()
            answers = [callback(model) for callback in self.callbacks]  # all of them, also when one asks for the end
            if any(answer is True for answer in answers):
                break

    def finish_epoch(self) -> float:
        self.epoch += 1
        record = Epoch(
            epoch=self.epoch,
            loss=self.loss / max(1, self.examples),
            learning_rate=self.model._learning_rate(self.epoch / self.model.epochs),
            words_per_second=self.units / max(self.seconds, 1e-9),
            seconds=self.seconds,
        )
        self.model.history.append(record)
        self.position, self.loss, self.examples, self.seconds = 0, 0.0, 0, 0.0
        return record.loss

    def write_checkpoint(self) -> None:
        if self.folder is None:
            return
        files.write_tensors(
            self.folder / CHECKPOINT,
            {**self.model._tensors, **files.pack_words(self.model._words)},
            {
                "format": "firth checkpoint",
                **self.model._description(),
                "corpus": _fingerprint(self.corpus),
                "progress": [self.epoch, self.position, self.loss, self.examples, self.seconds],
            },
        )
        self.last_checkpoint = time.monotonic()

    def restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        for name, tensor in self.model._tensors.items():
            tensor[:] = tensors[name]
        self.model.history = [Epoch(**epoch) for epoch in metadata["history"]]
        self.epoch, self.position, self.loss, self.examples, self.seconds = metadata["progress"]
