"""One training run: what word2vec, GloVe, fastText, the classifier and contextual models share of `fit`.

A run is a number of units (tokens, non-zeros, texts, steps), trained in order. This module decides the order of events:
chunks, progress bar, history, checkpoints, callbacks, Ctrl-C and SIGTERM, divergence. How units are cut into chunks
never affects a result.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import math
import signal
import tempfile
import threading
import time
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from firth import files
from firth.checks import expect, finite
from firth.options import checked
from firth.tables import html_table

if TYPE_CHECKING:
    from typing_extensions import Self

Tensors = dict[str, NDArray[Any]]

CHECKPOINT = "checkpoint.safetensors"  # the file in the folder that `fit` receives
LOSS_UNITS = 2**30  # units of loss in a nat
_CHUNK_SECONDS = 0.3  # of training between two checks for Ctrl-C
_CHECKPOINT_SECONDS = 600.0  # between two checkpoints where records are rare


# ------------------------------------------------------------------------------------------------------------ history


@dataclasses.dataclass(frozen=True)
class Record:
    """One entry of a history: the state of a training after `epoch` passes over the data, or after an evaluation.

    Attributes
    ----------
    loss
        Mean training loss per example since the last record, in nats; the model defines what an example is.
    units_per_second
        Tokens, non-zeros of a matrix, or texts since the last record.
    seconds
        Of training since its beginning, evaluations not included.
    step
        Updates of the weights so far, if the model counts them.
    validation_loss, score
        On the validation split, None without one: mean loss per example, in nats; accuracy, unless the model says
        otherwise.
    """

    epoch: float
    loss: float
    learning_rate: float
    units_per_second: float
    seconds: float
    step: int | None = None
    validation_loss: float | None = None
    score: float | None = None

    @property
    def perplexity(self) -> float | None:
        """The exponential of the validation loss; None without a validation split."""
        if self.validation_loss is None:
            return None
        return math.exp(self.validation_loss) if self.validation_loss <= 700 else math.inf


class History(list[Record]):
    """The records of a training, shown as a table in notebooks."""

    def _repr_html_(self) -> str:
        names = [field.name for field in dataclasses.fields(Record)]
        names = [name for name in names if any(getattr(record, name) is not None for record in self)]
        rows = [["" if getattr(one, name) is None else f"{getattr(one, name):,.5g}" for name in names] for one in self]
        return html_table(f"{len(self)} record{'' if len(self) == 1 else 's'}", names, rows)


def records(stored: Any) -> History:
    """Read a history from a file, a list of dicts; TypeError naming the entry and the field that are wrong."""
    if not isinstance(stored, list):
        raise TypeError(f"the history must be a list, not {type(stored).__name__}")
    declared = typing.get_type_hints(Record)
    for i, record in enumerate(stored):
        if not isinstance(record, dict) or record.keys() != declared.keys():
            raise TypeError(f"history[{i}] must have exactly the fields {', '.join(declared)}")
        for name, value in record.items():
            number = checked(f"{name} in history[{i}]", value, declared[name])
            if number is not None and not math.isfinite(number):
                raise TypeError(f"{name} in history[{i}] must be a finite number, not {value}")
        if record["step"] is None and record["epoch"] != i + 1:
            raise TypeError(f"history[{i}] must be epoch {i + 1}, not {record['epoch']}")
    return History(Record(**record) for record in stored)


# ---------------------------------------------------------------------------------------------------------- interrupts


class Interrupt:
    """Remembers a Ctrl-C or a SIGTERM until the run asks for it. A second one has its usual effect at once.

    Otherwise Python would raise KeyboardInterrupt the moment a kernel returns: after a chunk was trained and before
    the run has noted it, and a checkpoint would have it trained again.
    """

    def __init__(self) -> None:
        self.signal: tuple[int, FrameType | None] | None = None
        self.answered = False
        self.immediate = False
        self.hold = False  # even while functions of the caller run, because other processes must stop as well

    def __enter__(self) -> Self:
        self.previous: dict[int, Any] = {}
        # Only the main thread receives signals.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                previous = signal.getsignal(number)
                # Handlers that ignore the signal or were set in C stay.
                if callable(previous) or (number == signal.SIGTERM and previous is signal.SIG_DFL):
                    self.previous[number] = previous
                    signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again = self.signal is not None
        self.signal = (number, frame)
        if again or self.immediate:
            self.answer()

    def answer(self) -> None:
        """Do what the signal would have done here, or has done in another process of the same training.

        Returns only if a handler of the caller's own has returned: training then continues.
        """
        received, self.signal, self.answered = self.signal, None, True
        if received is not None:
            number, frame = received
            if callable(self.previous[number]):
                self.previous[number](number, frame)
                if not self.hold:
                    self.answered = False
                    return
            elif number == signal.SIGTERM:
                raise SystemExit(128 + number)
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def released(self) -> Iterator[None]:
        """Let signals have their effect at once, while functions of the caller run."""
        self.immediate = not self.hold
        try:
            yield
        finally:
            self.immediate = False

    def __exit__(self, kind: object, *_: object) -> None:
        for number, previous in self.previous.items():
            signal.signal(number, previous)
        if self.signal is not None and kind is None:
            self.answer()


# ----------------------------------------------------------------------------------------------------------------- run


class Run(abc.ABC):
    """One call of `fit`. A subclass trains units and knows its state; this class decides the order of events.

    `kind` is the class of what is trained, `unit` what is counted, in the plural: for errors and the progress bar. With
    the run that it continues, a run must share `identity`, JSON values by name, and `data`, see `fingerprint`, which is
    called only if there is a checkpoint folder. `history` takes the records.
    """

    grid = 1  # chunks begin at multiples of so many units, counted from the last record
    largest_chunk = 2**40
    first = True  # whether this is the process that writes checkpoints and shows the bar
    reverts = True  # whether a training that diverges goes back to an earlier record

    def __init__(
        self,
        kind: str,
        unit: str,
        identity: Mapping[str, Any],
        data: Callable[[], list[int]],
        history: History,
        checkpoint: files.PathLike | None,
        resume: bool,
    ) -> None:
        if resume and checkpoint is None:
            raise ValueError("resume=True needs checkpoint=, the folder to continue from")
        self.kind, self.unit, self.identity, self.history = kind, unit, dict(identity), history
        self.position = self.total = 0
        self.since = "at the start"
        self.last_checkpoint = time.monotonic()
        self.interrupt = Interrupt()
        self.path = None if checkpoint is None else Path(checkpoint) / CHECKPOINT
        self.data = [] if checkpoint is None else data()
        self.stored = None if self.path is None else self._read_checkpoint(self.path, resume)

    # ---- what a subclass does

    @abc.abstractmethod
    def next_record(self) -> int | None:
        """The position of the next record; None after the last one."""

    @abc.abstractmethod
    def advance(self, end: int) -> None:
        """Train the units from `position` to `end`; call `diverged` if a number stops being finite."""

    @abc.abstractmethod
    def record(self) -> Record:
        """Evaluate what was trained since the last record."""

    @abc.abstractmethod
    def not_finite(self) -> str | None:
        """The name of a trained tensor with a number that is not finite, if there is one."""

    @abc.abstractmethod
    def keep(self) -> None:
        """Copy what `revert` goes back to."""

    @abc.abstractmethod
    def revert(self) -> None:
        """Go back to what `keep` copied."""

    @abc.abstractmethod
    def where(self) -> str:
        """The place of training, for errors: "epoch 3"."""

    @abc.abstractmethod
    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Tensors and JSON metadata for `restore`."""

    @abc.abstractmethod
    def restore(self, tensors: Tensors, metadata: dict[str, Any], history: History) -> None:
        """Restore a saved state. KeyError, TypeError or ValueError, and nothing is changed, if it is damaged."""

    def remains(self) -> str:
        """What a training that diverged leaves, in a sentence."""
        return f"The vectors are those {self.since}."

    def interrupted(self) -> bool:
        """Whether to stop after this chunk, because of a signal to any process."""
        return self.interrupt.signal is not None

    def agreed(self, flag: bool) -> bool:
        """Whether the flag is set in any process of this training."""
        return flag

    def enough(self) -> bool:
        """Whether to end after this record, before the last unit."""
        return False

    # ---- the order of events

    def finish(self, callbacks: Sequence[Callable[[], object]], *, progress: bool) -> None:
        """Train to the end, until a callback returns True, or until a signal, which raises after a checkpoint."""
        with tqdm(
            total=self.total,
            initial=self.position,
            desc=self.kind,
            unit=f" {self.unit}",
            unit_scale=self.grid > 1,
            disable=not (progress and self.first),
        ) as bar:
            try:
                with self.interrupt:
                    self._train(callbacks, bar)
            except BaseException as error:
                # A handler of the caller's own may raise anything.
                if self.interrupt.answered or isinstance(error, KeyboardInterrupt | SystemExit):
                    self.check_finite()
                    self.write_checkpoint()
                raise

    def _train(self, callbacks: Sequence[Callable[[], object]], bar: tqdm[Any]) -> None:
        chunk = min(12 * self.grid, self.largest_chunk)
        # Whether a record is used before the end. Each check reads all tensors.
        used = self.reverts or self.path is not None or bool(callbacks)
        self.keep()
        while (due := self.next_record()) is not None:
            begin, start = self.position, time.perf_counter()
            self.advance(min(due, begin + chunk))
            seconds = time.perf_counter() - start
            bar.update(self.position - begin)
            # The cuts do not affect the result, so the clock may decide them.
            if seconds < _CHUNK_SECONDS / 2:
                chunk = min(2 * chunk, self.largest_chunk)
            elif seconds > 2 * _CHUNK_SECONDS:
                chunk = max(chunk // 2 // self.grid, 1) * self.grid
            if self.position < due:
                if self.interrupted():
                    self.interrupt.answer()
                if time.monotonic() - self.last_checkpoint > _CHECKPOINT_SECONDS:
                    self.write_checkpoint()
                continue
            if used:
                self.check_finite()
            record = self.record()
            self.history.append(record)
            shown = {"loss": record.loss, "validation_loss": record.validation_loss, "score": record.score}
            bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items() if value is not None})
            self.write_checkpoint()
            with self.interrupt.released():
                answers = [callback() for callback in callbacks]  # all of them, also when one asks for the end
            if self.agreed(self.interrupt.signal is not None):
                self.interrupt.answer()
            if self.agreed(any(answer is True for answer in answers) or self.enough()):
                break
            self.keep()
            self.since = f"after {self.where_record()}"
        if not used:
            self.check_finite()

    def where_record(self) -> str:
        """The place of the last record."""
        return f"epoch {self.history[-1].epoch:g}"

    def check_finite(self) -> None:
        """Check what the last updates left, before it is kept: no loss has been computed from it yet."""
        name = self.not_finite()
        if name is not None:
            self.diverged(f"a number in {name} is not finite")

    def diverged(self, what: str) -> NoReturn:
        """Go back to what was kept, and raise FloatingPointError."""
        where = self.where()
        self.revert()
        raise FloatingPointError(f"training diverged in {where}: {what}. {self.remains()} A lower learning_rate helps.")

    # ---- checkpoints

    def write_checkpoint(self) -> None:
        """Write the training state, if there is a folder for it."""
        self.last_checkpoint = time.monotonic()
        if self.path is None or not self.first:
            return
        self.check_finite()
        tensors, metadata = self.state()
        own = {"model": self.kind, "identity": self.identity, "data": self.data}
        history = {"history": [dataclasses.asdict(record) for record in self.history]}
        files.write_own(self.path, "checkpoint", tensors, {**own, **history, **metadata})

    def _read_checkpoint(self, path: Path, resume: bool) -> tuple[Tensors, dict[str, Any]] | None:
        folder = path.parent
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"checkpoint must be a folder: {folder} is a file")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # fails now, not after the first epoch, if it cannot be written to
            pass
        if not self.agreed(path.exists() and self.first):
            return None
        if not resume:
            raise ValueError(f"{path} is the state of an earlier training: pass resume=True to continue, or remove it")
        tensors, metadata = files.read_own(path, "checkpoint", mmap=True)
        if metadata.get("model") != self.kind:
            raise ValueError(f"{path} is a checkpoint of a {metadata.get('model')}, not of a {self.kind}")
        if missing := sorted({"identity", "data", "history", "progress"} - metadata.keys()):
            raise self.damaged(f"it lacks {', '.join(missing)}")
        if not isinstance(metadata["identity"], dict):
            raise self.damaged("its options have no names")
        before = metadata["identity"]
        changed = [name for name, value in self.identity.items() if before.get(name) != value]
        other = [f"{name} was {before.get(name)!r}, is {self.identity[name]!r}" for name in changed]
        if metadata["data"] != self.data:
            other.append("the data differ")
        if other:
            raise ValueError(f"{path} does not belong to this training: {'; '.join(other)}")
        return tensors, metadata

    def resume(self) -> None:
        """Continue from the state that was read, if there is one."""
        if self.stored is None:
            return
        tensors, metadata = self.stored
        try:
            history = records(metadata["history"])
            self.restore(tensors, metadata, history)
        except (KeyError, TypeError, ValueError) as error:
            raise self.damaged(error) from None
        self.history[:] = history
        if self.position:
            self.since = "when training was resumed"

    def damaged(self, what: object) -> ValueError:
        """The error for a checkpoint that cannot be read."""
        return ValueError(
            f"{self.path} is a damaged checkpoint, or one of another version of firth: {what}. Remove the file to "
            "start again."
        )


# -------------------------------------------------------------------------------------------------------------- epochs


@dataclasses.dataclass(frozen=True)
class Tally:
    """What training on a chunk of an epoch returned."""

    loss: int  # summed over the examples, in `LOSS_UNITS`
    examples: int
    diverged: str = ""  # where, if a number stopped being finite


def loss_units(nats: float) -> int:
    """A loss as a whole number of units, so that sums are exact and do not depend on how the work was cut."""
    return round(nats * LOSS_UNITS)


# Trains the units [begin, end) of an epoch, counted from 0: train(begin, end, epoch). Both are multiples of the grid,
# except for the end of the epoch.
Train = Callable[[int, int, int], Tally]


class NoExample(ValueError):
    """An epoch had nothing to train on."""


@dataclasses.dataclass(kw_only=True)
class Epochs:
    """What an `EpochRun` trains: `tensors` in place, in some `epochs` of so many `units`."""

    epochs: int
    units: int
    train: Train
    tensors: Tensors
    good: Sequence[str]  # those of the tensors that a training that diverges reverts
    learning_rate: Callable[[float], float]  # as a function of the share of the training that is done
    no_example: Callable[[], str]  # why the data had no example to train on, and the remedy
    settle: Callable[[], None] = lambda: None  # called before others look at the tensors
    score: Callable[[], float | None] = lambda: None  # quality on the validation split
    # End after so many epochs in a row without a better score, and restore the best epoch; None: never.
    patience: int | None = None


class EpochRun(Run):
    """A run over epochs of a kernel that trains in place. `start` and then `finish` train."""

    # The kernels round the loss of each cell of this grid by itself: sums do not depend on the cuts.
    grid = 4096

    def start(self, work: Epochs) -> None:
        """Say what to train, and continue from the checkpoint that was read."""
        self.work = work
        self.total = work.epochs * work.units
        self.loss, self.examples = 0, 0  # since the last record
        self.seconds = 0.0
        self.good = {name: np.empty_like(work.tensors[name]) for name in work.good}
        self.reverts = bool(work.good)
        self.best: tuple[int, Tensors] | None = None  # the record with the best score, and its tensors
        self.resume()

    def next_record(self) -> int | None:
        """The end of the epoch."""
        recorded = len(self.history)
        return None if recorded == self.work.epochs else (recorded + 1) * self.work.units

    def advance(self, end: int) -> None:
        """Train within an epoch."""
        if end == self.position:  # resumed after the last unit of an epoch
            return
        work, epoch = self.work, len(self.history)
        before = epoch * work.units
        start = time.perf_counter()
        tally = work.train(self.position - before, end - before, epoch)
        self.seconds += time.perf_counter() - start
        if tally.diverged:
            self.diverged(f"at {tally.diverged}, a product of two vectors is not finite")
        self.position = end
        self.loss += tally.loss
        self.examples += tally.examples

    def record(self) -> Record:
        """Evaluate after an epoch."""
        work, epoch = self.work, len(self.history) + 1
        if self.examples == 0:
            raise NoExample(f"epoch {epoch} had no example to learn from: {work.no_example()}")
        work.settle()
        record = Record(
            epoch=float(epoch),
            loss=self.loss / (LOSS_UNITS * self.examples),
            learning_rate=work.learning_rate(epoch / work.epochs),
            units_per_second=work.units / max(self.seconds, 1e-9),
            seconds=self.seconds + (self.history[-1].seconds if self.history else 0.0),
            score=work.score(),
        )
        self.loss, self.examples, self.seconds = 0, 0, 0.0
        return record

    def enough(self) -> bool:
        """Whether the score has not improved for `patience` epochs."""
        scores = [-math.inf if one.score is None else one.score for one in self.history]
        if self.work.patience is None or self.history[-1].score is None:
            return False
        best = scores.index(max(scores))
        if best == len(scores) - 1:
            self.best = best, {name: np.array(tensor) for name, tensor in self.work.tensors.items()}
        return len(scores) - 1 - best >= self.work.patience

    def restore_best(self) -> None:
        """Restore the epoch with the best score, if `patience` asks for it."""
        if self.best is not None and self.best[0] < len(self.history) - 1:
            for name, tensor in self.best[1].items():
                self.work.tensors[name][...] = tensor

    def not_finite(self) -> str | None:
        """The first tensor with such a number."""
        return next((name for name, tensor in self.work.tensors.items() if not finite(tensor)), None)

    def keep(self) -> None:
        """Copy the good tensors."""
        for name, copy in self.good.items():
            np.copyto(copy, self.work.tensors[name])

    def revert(self) -> None:
        """Copy them back."""
        for name, copy in self.good.items():
            self.work.tensors[name][...] = copy

    def where(self) -> str:
        """The epoch that is trained."""
        return f"epoch {min(len(self.history) + 1, self.work.epochs)}"

    def remains(self) -> str:
        """What a training that diverged leaves."""
        return super().remains() if self.good else "The model is as it was before."

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Tensors, and the progress: epochs, units of the epoch, loss, examples, seconds."""
        epoch = len(self.history)
        progress: list[Any] = [epoch, self.position - epoch * self.work.units, self.loss, self.examples, self.seconds]
        tensors = dict(self.work.tensors)
        metadata: dict[str, Any] = {"progress": progress}
        if self.best is not None:
            tensors |= {f"best.{name}": tensor for name, tensor in self.best[1].items()}
            metadata["best"] = self.best[0]
        return tensors, metadata

    def restore(self, tensors: Tensors, metadata: dict[str, Any], history: History) -> None:
        """Restore tensors and progress."""
        mine = self.work.tensors
        best = metadata.get("best")
        if best is not None and (type(best) is not int or not 0 <= best < len(history)):
            raise ValueError(f"its best epoch is {best!r} of {len(history)}")
        for name in mine if best is None else [*mine, *(f"best.{name}" for name in mine)]:
            like = mine[name.removeprefix("best.")]
            if name not in tensors:
                raise TypeError(f"it holds no {name}")
            expect(name, tensors[name], like.dtype, like.shape)
        self._restore_progress(metadata["progress"], len(history))
        for name, tensor in mine.items():
            tensor[...] = tensors[name]
        if best is not None:
            self.best = best, {name: np.array(tensors[f"best.{name}"]) for name in mine}
        self.work.settle()

    def _restore_progress(self, stored: Any, n_records: int) -> None:
        """Restore a progress; TypeError or ValueError if no training can have been there."""
        if not isinstance(stored, list) or [type(one) for one in stored] != [int, int, int, int, float]:
            raise TypeError(f"its progress must be four whole numbers and the seconds, not {stored!r}")
        epoch, position, loss, examples, seconds = stored
        epochs, units = self.work.epochs, self.work.units
        if (
            not 0 <= epoch <= epochs
            or not 0 <= position <= (0 if epoch == epochs else units)
            or (position % self.grid and position != units)
            or examples < 0
            or not 0 <= seconds < math.inf
            or (position == 0 and (loss or examples or seconds))
            or (examples == 0 and loss)
        ):
            raise ValueError(
                f"its progress {stored} is not that of a training of {epochs} epochs of {units} {self.unit}"
            )
        if n_records != epoch:
            raise ValueError(f"its history has {n_records} epochs and its progress {epoch}")
        self.position = epoch * units + position
        self.loss, self.examples, self.seconds = loss, examples, seconds


def fingerprint(arrays: Iterable[NDArray[Any]], words: Iterable[str] = ()) -> list[int]:
    """Sizes and checksums of words and arrays, by which data are compared. Reads them all once."""
    found = [zlib.crc32("\n".join(words).encode(errors="surrogatepass"))]
    for array in arrays:
        total = 0
        for start in range(0, len(array), 1 << 24):
            total = zlib.crc32(np.ascontiguousarray(array[start : start + (1 << 24)]).data, total)
        found += [len(array), total]
    return found
