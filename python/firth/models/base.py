"""The contract of every model: options, `fit`, `history`, `vectors`, `save` and `load`."""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
import typing
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from firth import files
from firth.checks import expect, finite, functions
from firth.corpus import Corpus, Vocabulary, as_corpus
from firth.counts import Cooccurrences
from firth.options import Options, option, seed_option, shown, threads_option
from firth.run import EpochRun, Epochs, History, NoExample, Train, fingerprint, records
from firth.runtime import Threaded, padded_rows
from firth.vectors import Vectors

if typing.TYPE_CHECKING:
    from typing_extensions import Self

Fit = TypeVar("Fit", bound=Callable[..., Any])
Tensors = dict[str, NDArray[Any]]  # matrices of float32, or vectors of any type
Layout = dict[str, tuple[Any, tuple[int | None, ...]]]


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class Learner(Options, abc.ABC):
    """A class that is trained on data under options, and can be saved.

    A subclass is a dataclass whose fields are its options: keyword-only, checked when set, and fixed from then on.
    ``dataclasses.replace(model, window=8)`` makes an unfitted model with other options.
    """

    registry: ClassVar[dict[str, type[Learner]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Learner.registry[cls.__name__] = cls

    def __post_init__(self) -> None:
        super().__post_init__()
        self.history = History()

    def __repr__(self) -> str:
        return shown(self, self._size())

    def _size(self) -> str:
        """The size of what was trained; empty before `fit`."""
        return ""

    @abc.abstractmethod
    def save(self, path: files.PathLike) -> None:
        """Write what was trained as one safetensors file, which `firth.load` reads; it appears whole or not at all."""

    def _description(self) -> dict[str, Any]:
        return {
            "model": type(self).__name__,
            "options": self.get_params(),
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
        }

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Learner:
        """An unfitted one, of the options in a `_description`."""
        return cls(**options)

    @abc.abstractmethod
    def _restore(self, tensors: Tensors, metadata: dict[str, Any]) -> None:
        """Set the trained state from a file."""


_training: dict[int, object] = {}  # the learners that are being trained, by id
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_training.clear)  # the child does not have the thread that trains


def one_at_a_time(fit: Fit) -> Fit:
    """Make a method that trains refuse to start while the same model is being trained."""

    @functools.wraps(fit)
    def alone(self: Learner, *arguments: Any, **options: Any) -> Any:
        mine = object()
        # A single operation: no other thread runs in between.
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


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class Model(Learner):
    """A way of training vectors."""

    learns_from: ClassVar[tuple[type, ...]] = (Corpus,)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tensors: Tensors = {}
        self._words: list[str] = []
        self._view: Vectors | None = None
        self._training = False

    @property
    def vectors(self) -> Vectors:
        """The words' vectors; AttributeError before `fit`.

        In a callback they are a copy. After an interruption they are those of the last update.
        """
        matrix = self._fitted_tensor("vectors")
        if self._training:
            # Training continues to change the rows, and `Vectors` computes their norms only once.
            return self._vectors_of(np.array(matrix))
        if self._view is None:
            self._view = self._vectors_of(matrix)
        return self._view

    def _size(self) -> str:
        if "vectors" not in self._tensors:
            return f"{len(self._words)} words" if self._tensors else ""
        return f"{len(self._words)} words, vector_size={self._tensors['vectors'].shape[1]}"

    def _fitted_tensor(self, name: str) -> NDArray[Any]:
        """The tensor of this name; AttributeError before `fit`."""
        if name not in self._tensors:
            raise AttributeError(f"this {type(self).__name__} has not been fitted: call fit(corpus) first")
        return self._tensors[name]

    def _vectors_of(self, matrix: NDArray[np.float32]) -> Vectors:
        return Vectors(self._words, matrix, self._tensors.get("counts"))

    @abc.abstractmethod
    def fit(self, data: Any, *, progress: bool = False) -> Self:
        """Train vectors on a corpus, or on other data of `learns_from`, and return self.

        `progress` shows a bar on stderr, if there is anything to wait for.
        """

    def _training_data(self, data: Any, *, progress: bool) -> Any:
        """The corpus or counts that `fit` trains on; a corpus is made of files and of texts."""
        if not isinstance(data, self.learns_from):
            if isinstance(data, Cooccurrences):
                raise TypeError(f"{type(self).__name__} trains on text, not on Cooccurrences: give fit the corpus")
            data = as_corpus(data, progress=progress)
        if isinstance(data, Corpus) and data.n_tokens == 0:
            raise ValueError(
                "the corpus has no token: all its words are rarer than min_count, or missing from the given "
                "vocabulary; min_count=1 keeps every word"
            )
        if isinstance(data, Cooccurrences) and data.csr.nnz == 0:
            raise ValueError("the counts have no pair of words")
        return data

    def save(self, path: files.PathLike) -> None:
        """Write the whole model (options, words, all matrices, history) as one safetensors file.

        The file appears whole or not at all. `firth.load` reads it; `firth.load_vectors` reads its vectors alone.
        AttributeError before `fit`; ValueError if a number is not finite.
        """
        self._fitted_tensor("vectors")
        self._write(path)

    def _write(self, path: files.PathLike) -> None:
        for name, tensor in self._tensors.items():
            if not finite(tensor):
                raise ValueError(f"cannot save this {type(self).__name__}: {name} contains a number that is not finite")
        files.write_own(path, "model", {**self._tensors, **files.pack_words(self._words)}, self._description())

    def _layout(self, n_words: int) -> Layout:
        """Type and shape of each tensor that a file may contain, None for a side of any length."""
        return {
            "vectors": (np.float32, (n_words, getattr(self, "vector_size", None))),
            "counts": (np.int64, (n_words,)),
        }

    def _restore(self, tensors: Tensors, metadata: dict[str, Any]) -> None:
        self._words = Vocabulary(files.unpack_words(tensors)).words
        layout = self._layout(len(self._words))
        if "vectors" in layout and "vectors" not in tensors:
            raise TypeError("it lacks vectors")
        for name in tensors.keys() - set(files.PACKED_WORDS):
            if name not in layout:
                raise TypeError(f"it contains {name!r}, which is not part of a {type(self).__name__}")
            stored = tensors[name]
            expect(name, stored, *layout[name])
            matrix = stored.ndim == 2 and stored.dtype == np.float32
            kept = padded_rows(*stored.shape) if matrix else np.empty(stored.shape, stored.dtype)
            kept[...] = stored
            self._tensors[name] = kept
        self.history = records(metadata["history"])
        self._view = self._vectors_of(self._tensors["vectors"])  # now, so that an error names the file


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class DirectModel(Model):
    """A model that is computed at once, without epochs. A subclass computes the tensors."""

    @abc.abstractmethod
    def _compute(self, data: Any, *, progress: bool) -> Tensors:
        """All tensors that `fit` keeps, "vectors" included."""

    @one_at_a_time
    def fit(self, data: Any, *, progress: bool = False) -> Self:
        """Compute the vectors and return self; see `Word2Vec.fit` for the data.

        ValueError if the data do not determine vectors: `vector_size` exceeds a side of the matrix, or the matrix is 0.
        At an error and at Ctrl-C the model stays as it was.
        """
        data = self._training_data(data, progress=progress)
        self._tensors = self._compute(data, progress=progress)
        self._words, self._view = data.vocabulary.words, None
        return self


@files.reader("model")
def _loaded(tensors: Tensors, metadata: dict[str, Any]) -> Learner:
    name = metadata["model"]
    if name not in Learner.registry:
        raise ValueError(f"it contains a {name}, which this version of firth does not know")
    model = Learner.registry[name]._from_options(metadata["options"])
    model._restore(tensors, metadata)
    return model


Callback = Callable[["GradientModel"], object]


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class GradientModel(Threaded, Model):
    """A model trained in epochs over units of data, tokens or pairs, by stochastic gradient descent.

    A subclass allocates its matrices and trains a range of units.
    """

    unit: ClassVar[str] = "words"
    scratch: ClassVar[tuple[str, ...]] = ()  # tensors that only training needs: part of checkpoints alone

    epochs: int = option(5, low=1, high=1_000_000, help="Passes over the text.")
    seed: int = seed_option()
    threads: int | None = threads_option()

    @abc.abstractmethod
    def _begin(self, data: Any, *, progress: bool) -> tuple[int, Train]:
        """Allocate and initialize `_tensors`; return the units of an epoch, and what trains on a range of them."""

    def _settle(self) -> None:
        """Bring `_tensors["vectors"]` up to date, after every epoch and when training stops."""

    @abc.abstractmethod
    def _learning_rate(self, progress: float) -> float:
        """The learning rate after this share of all epochs."""

    @abc.abstractmethod
    def _no_example(self, data: Any) -> str:
        """Why the data has no training example in an epoch, and the remedy."""

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
        """Train vectors.

        Parameters
        ----------
        data
            A `Corpus`, a file of text or texts (strings, or lists of words); for models of counts also `Cooccurrences`.
            Files and texts become a corpus with the default options of `Corpus.from_file`, such as min_count=5. Every
            unit, a token or a non-zero, is used once in each epoch.
        progress
            Show a progress bar on stderr.
        callbacks
            Functions called with the model after every epoch. One that returns True ends the training.
        checkpoint
            A folder for the saved training state, which is made if it does not exist. It is written after every epoch,
            every ten minutes, at Ctrl-C and at SIGTERM, which then ends the process with status 143.
        resume
            Continue from the checkpoint, if there is one. Wherever the same seed gives the same bytes, the result has
            the bytes of an uninterrupted run.

        Raises
        ------
        KeyboardInterrupt
            At Ctrl-C; `vectors` and `history` are those of the last update.
        FloatingPointError
            If a number stops being finite, naming epoch and place; `vectors` are those of the last whole epoch.
        RuntimeError
            If another `fit` of this model is running.
        ValueError
            If the checkpoint is damaged, belongs to other options or other data, or exists without `resume`; or if an
            epoch has no training example. Then nothing is changed.
        MemoryError
            If the matrices do not fit, naming the bytes.
        """
        data = self._training_data(data, progress=progress)
        called = [functools.partial(callback, self) for callback in functions("callbacks", callbacks)]
        # The number of threads does not decide what is trained: a run may continue on another machine.
        identity = {name: value for name, value in self.get_params().items() if name != "threads"}
        history = History()
        run = EpochRun(
            type(self).__name__, self.unit, identity, lambda: _fingerprint(data), history, checkpoint, resume
        )
        before = self.__dict__.copy()
        try:
            units, train = self._begin(data, progress=progress)
            self._words, self._view, self.history = data.vocabulary.words, None, history
            run.start(
                Epochs(
                    epochs=self.epochs,
                    units=units,
                    train=train,
                    tensors=self._tensors,
                    good=("vectors",),
                    learning_rate=self._learning_rate,
                    no_example=lambda: self._no_example(data),
                    settle=self._settle,
                )
            )
        except BaseException:
            self.__dict__.update(before)  # an earlier fit stays as it was
            raise
        self._training = True
        try:
            try:
                run.finish(called, progress=progress)
            except FloatingPointError:
                # The other matrices have no copy.
                self._tensors = {"vectors": self._tensors["vectors"]}
                raise
            finally:
                self._settle()
                for name in self.scratch:
                    self._tensors.pop(name, None)
                self._training = False
                self._view = None
        except NoExample:
            self.__dict__.update(before)
            raise
        return self


def _fingerprint(data: Corpus | Cooccurrences) -> list[int]:
    if isinstance(data, Corpus):
        return fingerprint([data.ids, data.offsets], data.vocabulary.words)
    return fingerprint([data.csr.data, data.csr.indices, data.csr.indptr], data.vocabulary.words)
