"""Training of any torch module on texts: ids in a mapped file, batches, the loop, checkpoints.

**Nothing hangs on how a run was cut.** Examples are numbered from 0 in an endless sequence, and an example is a
function of (seed, number) alone; each step takes the next ``processes * accumulate * batch_size`` of them. Hence two
processes learn from the same examples as one with twice the batch, and a resumed run from the same ones as a run that
was never stopped. Torch's generator is set from (seed, number of a batch's first example) before each batch, so that
dropout is such a function, too.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import itertools
import json
import math
import os
import signal
import tempfile
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from firth import corpus, files
from firth.checks import one_of, real_number, whole_number
from firth.contextual.tokenizer import Text, Tokenizer
from firth.contextual.transformer import Architecture
from firth.models.base import CHECKPOINT, expect, records

if TYPE_CHECKING:
    from typing_extensions import Self

if dist.is_available():
    # Its functions have the process group as a default value, if there is one when they are imported, and DDP imports
    # them. They would keep the group beyond its end, and its threads, which abort the process if they still let go of a
    # tensor while Python ends.
    import torch.distributed.nn.functional

_CHECKPOINT_SECONDS = 600.0  # between two checkpoints where evaluations are rare
_KEEP_EVERY = 8  # steps from one copy of good weights to the next: a copy each step took 4 % of a small model's time
_TEXTS = 1024  # given to the tokenizer at once, or fewer if they are long
_CHARACTERS = 1 << 22

Source = str | os.PathLike[str] | Iterable[Text] | Sequence[os.PathLike[str]]


# ---------------------------------------------------------------------------------------------------------------- ids


def read_texts(
    source: Source, *, documents: Literal["lines", "blank_lines"] = "lines", progress: bool = False
) -> Iterator[Text]:
    """The texts of a source, one after another.

    Parameters
    ----------
    source
        A path, or a list of `Path` objects: text files in UTF-8, compressed or not. Or an iterable of texts or of lists
        of words, such as a `firth.Corpus`.
    documents
        Where a text of a file ends: at the end of each line, or at blank lines. Empty texts are left out.
    progress
        Show a bar on stderr while files are read.

    Warns
    -----
    UserWarning
        If a file holds invalid UTF-8, which is read as U+FFFD, with its name and line.

    Raises
    ------
    OSError
        If a file cannot be read.
    TypeError
        If something is neither a text nor a list of words.
    """
    one_of("documents", documents, ("lines", "blank_lines"))
    paths = paths_of(source)
    if paths is None:
        return iter(source)  # type: ignore[arg-type]
    # The reader of Corpus.from_file: it names file, line and byte of what is wrong.
    options = corpus._Options(1, None, None, "whitespace", "replace", None)
    sources = corpus._sources(paths)
    return _documents(sources, options, documents, progress)


def paths_of(source: Any) -> list[Any] | None:
    """The files that a source names: a path, or a list of `Path` objects; None if it is texts itself.

    A string in a list is a text. ValueError if all of them are names of files, which is hardly what was meant;
    FileNotFoundError if a string by itself is none.
    """
    if isinstance(source, str | os.PathLike):
        if isinstance(source, str) and source != "-" and not os.path.exists(source):
            raise FileNotFoundError(f"there is no file {source[:200]!r}; a text is given in a list: [text]")
        return [source]
    if not isinstance(source, list | tuple) or not source:
        return None
    if isinstance(source[0], os.PathLike):
        return list(source)
    if all(isinstance(one, str) and len(one) < 1024 and "\0" not in one and os.path.isfile(one) for one in source):
        raise ValueError(f"strings in a list are texts, and these name files: give [Path({source[0]!r}), ...]")
    return None


def _documents(sources: list[Any], options: corpus._Options, documents: str, progress: bool) -> Iterator[str]:
    with tqdm(desc="reading", unit="B", unit_scale=True, disable=not progress) as bar:
        reader = _Lines(sources, options, bar)
        lines = reader.lines()
        if documents == "lines":
            yield from (line for line in lines if line and not line.isspace())
        else:
            for blank, group in itertools.groupby(lines, key=lambda line: not line or line.isspace()):
                if not blank:
                    yield "\n".join(group)
    for name, n in reader.invalid.items():
        sequences = "1 invalid UTF-8 sequence was" if n == 1 else f"{n} invalid UTF-8 sequences were"
        where = f"{'' if n == 1 else 'the first '}in line {reader.first[name]}"
        warnings.warn(f"{name}: {sequences} read as U+FFFD, {where}", UserWarning, stacklevel=2)


@dataclasses.dataclass
class _Lines(corpus._Files):
    """Lines of files, and of each file the first line that held invalid text."""

    first: dict[str, int] = dataclasses.field(default_factory=dict)

    def _decoded(self, raw: bytes, name: str, line: int, byte: int) -> str:
        text = super()._decoded(raw, name, line, byte)
        if name in self.invalid:
            self.first.setdefault(name, line + 1)
        return text


class TokenIds:
    """The pieces of many texts as numbers in one mapped array; some texts are held out, the others to learn from.

    Made by `build` or `open`. Behind each text stands the tokenizer's `end`, if it has one.

    Attributes
    ----------
    ids
        (tokens,), uint16 or, for vocabularies above 65,536, int32; mapped from a file. First all texts to learn from,
        then the held-out ones.
    offsets
        (texts + 1,), int64: where each text begins.
    n_train
        How many of the texts are to learn from.
    n_bytes
        Bytes of UTF-8 of the texts to learn from, and of the held-out ones: for losses per byte.
    vocabulary_size
        Of the tokenizer.
    """

    def __init__(
        self,
        ids: NDArray[Any],
        offsets: NDArray[np.int64],
        n_train: int,
        vocabulary_size: int,
        n_bytes: tuple[int, int] = (0, 0),
    ) -> None:
        self.ids = ids
        self.offsets = offsets
        self.n_train = n_train
        self.vocabulary_size = vocabulary_size
        self.n_bytes = n_bytes
        self._fingerprint: list[int] | None = None

    @classmethod
    def build(
        cls,
        source: Source,
        tokenizer: Tokenizer,
        *,
        path: files.PathLike | None = None,
        held_out: float = 0.01,
        seed: int = 1,
        documents: Literal["lines", "blank_lines"] = "lines",
        progress: bool = False,
    ) -> Self:
        """Cut texts into pieces and keep their numbers in a file.

        Parameters
        ----------
        source, documents
            As in `read_texts`; read once.
        tokenizer
            What cuts them. What reads like a special piece in a text is text.
        path
            Where to keep the numbers, for `open`; without it, in a temporary file that ends with the object.
        held_out
            About this share of the texts is held out; a text is never split. Of two texts and more at least one.
        seed
            Decides which ones.
        progress
            Show a bar on stderr.

        Raises
        ------
        ValueError
            If there is no text, or `held_out` is not in [0, 1).
        """
        real_number("held_out", held_out, low=0.0)
        if held_out >= 1:
            raise ValueError(f"held_out must be below 1, not {held_out}")
        whole_number("seed", seed, high=2**63 - 1)
        dtype = np.dtype("<u2") if len(tokenizer) <= 1 << 16 else np.dtype("<i4")
        folder = None if path is None else Path(path).absolute().parent
        with contextlib.ExitStack() as stack:
            # Held-out texts go to a file of their own, which is added to the first one when all are read.
            spools = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(2)]
            lengths: list[list[NDArray[np.int64]]] = [[], []]
            sizes: list[list[int]] = [[], []]
            n = 0
            texts = read_texts(source, documents=documents, progress=progress)
            bar = stack.enter_context(tqdm(desc="tokenizing", unit=" texts", unit_scale=True, disable=not progress))
            for chunk in _chunks(texts):
                held = _uniform(seed, 0, np.arange(n, n + len(chunk))) < held_out
                n += len(chunk)
                pieces = tokenizer.encode_ids(chunk)
                if tokenizer.end is not None:
                    pieces = [np.append(ids, tokenizer.end) if len(ids) else ids for ids in pieces]
                for part in (0, 1):
                    chosen = [i for i in np.flatnonzero(held == part).tolist() if len(pieces[i])]
                    if chosen:
                        spools[part].write(np.concatenate([pieces[i] for i in chosen]).astype(dtype).tobytes())
                        lengths[part].append(np.array([len(pieces[i]) for i in chosen], np.int64))
                        sizes[part] += [_n_bytes(chunk[i]) for i in chosen]
                bar.update(len(chunk))
            counts = [np.concatenate(part) if part else np.zeros(0, np.int64) for part in lengths]
            n_train, total = len(counts[0]), len(counts[0]) + len(counts[1])
            if total == 0:
                raise ValueError("there is no text to learn from")
            spool, rest = spools
            rest.seek(0)
            while data := rest.read(1 << 24):
                spool.write(data)
            spool.flush()
            offsets = np.zeros(total + 1, np.int64)
            np.cumsum(np.concatenate(counts), out=offsets[1:])
            # Texts of a part lie in their order, so that chance's extremes are mended by moving the limit by one text.
            n_train = min(max(n_train, 1), total - 1) if total > 1 and held_out > 0 else total
            n_bytes = sizes[0] + sizes[1]
            ids: Any = np.memmap(spool, dtype, "r", shape=(int(offsets[-1]),))
            made = cls(ids, offsets, n_train, len(tokenizer), (sum(n_bytes[:n_train]), sum(n_bytes[n_train:])))
            if path is None:
                return made  # the map outlives the file's name and handle
            made.save(path)
        return cls.open(path)

    def save(self, path: files.PathLike) -> None:
        """Write one safetensors file, which `open` maps; it appears whole or not at all."""
        metadata = {
            "n_train": self.n_train,
            "vocabulary_size": self.vocabulary_size,
            "n_bytes": list(self.n_bytes),
        }
        files.write_own(path, "token ids", {"ids": self.ids, "offsets": self.offsets}, metadata)

    @classmethod
    def open(cls, path: files.PathLike) -> Self:
        """Map what `build` or `save` wrote.

        Raises
        ------
        OSError, ValueError
            If it is not there, or is not such a file.
        """
        tensors, metadata = files.read_own(path, "token ids", mmap=True)
        try:
            ids, offsets, n_train = tensors["ids"], np.array(tensors["offsets"]), metadata["n_train"]
            if offsets[-1] != len(ids) or not 0 < n_train < len(offsets):
                raise ValueError("the texts' offsets do not run through their ids")
            first, second = metadata["n_bytes"]
            return cls(ids, offsets, n_train, metadata["vocabulary_size"], (first, second))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ValueError(f"{path} is damaged: {error}") from None

    @property
    def train(self) -> NDArray[Any]:
        """The ids to learn from, (tokens,)."""
        return self.ids[: self.offsets[self.n_train]]

    @property
    def held_out(self) -> NDArray[Any]:
        """The held-out ids, (tokens,); there may be none."""
        return self.ids[self.offsets[self.n_train] :]

    @property
    def fingerprint(self) -> list[int]:
        """Sizes and a checksum of all; reads it once."""
        if self._fingerprint is None:
            total = 0
            for start in range(0, len(self.ids), 1 << 24):
                total = zlib.crc32(np.ascontiguousarray(self.ids[start : start + (1 << 24)]).data, total)
            self._fingerprint = [self.vocabulary_size, len(self), self.n_train, len(self.ids), total]
        return self._fingerprint

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"TokenIds({len(self.ids)} tokens of {len(self)} texts, {len(self) - self.n_train} of them held out)"


def _chunks(texts: Iterable[Text]) -> Iterator[list[Text]]:
    chunk: list[Text] = []
    size = 0
    for i, text in enumerate(texts):
        if not isinstance(text, str) and not isinstance(text, Sequence):
            raise TypeError(f"texts[{i}] is a {type(text).__name__}: neither a text nor a list of words")
        chunk.append(text)
        size += len(text)
        if len(chunk) == _TEXTS or size > _CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _n_bytes(text: Text) -> int:
    return len((text if isinstance(text, str) else " ".join(text)).encode(errors="replace"))


# ------------------------------------------------------------------------------------------------------------ batches


class Batches(Protocol):
    """What `train` learns from: an endless sequence of examples, each a function of its number."""

    @property
    def fingerprint(self) -> list[int]:
        """What tells these examples from others; a checkpoint belongs to examples of the same one."""

    def __call__(self, first: int, count: int) -> Any:
        """Examples `first` to `first + count - 1`, as a tensor or tuples, lists or dicts of tensors."""

    def held_out(self, first: int, count: int) -> Any | None:
        """At most `count` held-out examples from number `first` on; None if there are no more."""


class Batch(NamedTuple):
    """Inputs and targets, (examples, length) int64 each; a target of -100 is none."""

    inputs: Tensor
    targets: Tensor


class _Windows:
    """Examples that are windows of a stream of ids: each epoch other ones, in another order.

    An epoch covers each id once, but for the overlap of its first and last window: windows lie side by side from a
    place that the epoch decides, and run on from the stream's end at its beginning.
    """

    def __init__(self, ids: TokenIds, *, width: int, seed: int) -> None:
        whole_number("seed", seed, high=2**63 - 1)
        self.ids = ids
        self.width = width
        self.seed = seed
        self._orders: dict[int, NDArray[np.int64]] = {}

    def order(self, n: int, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            while len(self._orders) > 1:  # a batch may lie on the limit of two epochs
                self._orders.pop(next(iter(self._orders)))
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(n)
        return self._orders[epoch]

    def __call__(self, numbers: NDArray[np.int64], more: int) -> NDArray[np.int64]:
        """The windows of these numbers and `more` ids behind each, (examples, width + more)."""
        stream = self.ids.train
        if len(stream) < 2:
            raise ValueError(f"{len(stream)} tokens are too few to learn from")
        n = -(-len(stream) // self.width)
        epochs, places = np.divmod(numbers, n)
        starts = np.empty(len(numbers), np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            begin = int(_uniform(self.seed, 1, np.array([epoch]))[0] * len(stream))
            starts[here] = begin + self.order(n, epoch)[places[here]] * self.width
        found: NDArray[np.int64] = stream[(starts[:, None] + np.arange(self.width + more)) % len(stream)].astype(
            np.int64
        )
        return found

    def held_out(self, first: int, count: int, more: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Numbers and windows of held-out examples, which lie side by side and are visited in an order of chance."""
        stream = self.ids.held_out
        width = min(self.width, len(stream) - more)
        if width < 1:
            return None
        n = (len(stream) - more) // width
        numbers = np.arange(first, min(first + count, n))
        if len(numbers) == 0:
            return None
        starts = np.random.default_rng([self.seed, 2**32]).permutation(n)[numbers] * width
        return numbers, stream[starts[:, None] + np.arange(width + more)].astype(np.int64)


class NextTokenBatches:
    """Examples for causal models: `length` ids, and as targets those one further on.

    Parameters
    ----------
    ids
        The texts. One row may hold the end of a text and the beginning of another.
    length
        Ids in a row.
    seed
        Decides which rows, and in which order.
    """

    def __init__(self, ids: TokenIds, *, length: int, seed: int = 1) -> None:
        self.length = whole_number("length", length, low=1)
        self.windows = _Windows(ids, width=length, seed=seed)

    @property
    def fingerprint(self) -> list[int]:
        """See `Batches`."""
        return [1, self.length, self.windows.seed, *self.windows.ids.fingerprint]

    def __call__(self, first: int, count: int) -> Batch:
        """Examples `first` to `first + count - 1`."""
        return self._batch(self.windows(np.arange(first, first + count), 1))

    def held_out(self, first: int, count: int) -> Batch | None:
        """Held-out examples."""
        found = self.windows.held_out(first, count, 1)
        return None if found is None else self._batch(found[1])

    @staticmethod
    def _batch(rows: NDArray[np.int64]) -> Batch:
        tensor = torch.from_numpy(rows)
        return Batch(tensor[:, :-1], tensor[:, 1:])


class MaskedBatches:
    """Examples for models that see both sides: some ids are hidden, and these are the targets (Devlin et al. 2019).

    Of the chosen ids, 80 % become [MASK], 10 % any other piece, and 10 % stay. A row is [CLS], ids, [SEP].

    Parameters
    ----------
    ids
        The texts. One row may hold the end of a text and the beginning of another.
    tokenizer
        The one the ids are of, with a mask.
    length
        Ids in a row, [CLS] and [SEP] included.
    probability
        Of an id to be chosen; special ones never are.
    whole_words
        Whether all pieces of a word are chosen, or none.
    seed
        Decides on everything.
    """

    def __init__(
        self,
        ids: TokenIds,
        tokenizer: Tokenizer,
        *,
        length: int,
        probability: float = 0.15,
        whole_words: bool = False,
        seed: int = 1,
    ) -> None:
        mask = tokenizer.mask
        if mask is None:
            raise ValueError("the tokenizer has no mask: train one of kind 'wordpiece' or 'words'")
        if len(tokenizer) != ids.vocabulary_size:
            raise ValueError(
                f"the ids are of a vocabulary of {ids.vocabulary_size} pieces, the tokenizer has {len(tokenizer)}"
            )
        self.around = [one for one in (tokenizer.start, tokenizer.end) if one is not None]
        self.length = whole_number("length", length, low=len(self.around) + 1)
        self.probability = real_number("probability", probability, above=0.0)
        if probability > 1:
            raise ValueError(f"probability must be at most 1, not {probability}")
        self.whole_words = bool(whole_words)
        self.windows = _Windows(ids, width=length - len(self.around), seed=seed)
        self.tokenizer = tokenizer
        self._mask = mask
        self._special = tokenizer.special
        self._continues = tokenizer.continues
        self._ordinary = np.flatnonzero(~tokenizer.special)

    @property
    def fingerprint(self) -> list[int]:
        """See `Batches`."""
        chance = zlib.crc32(np.float64(self.probability).tobytes())
        return [2, self.length, chance, int(self.whole_words), self.windows.seed, *self.windows.ids.fingerprint]

    def __call__(self, first: int, count: int) -> Batch:
        """Examples `first` to `first + count - 1`."""
        numbers = np.arange(first, first + count)
        return self._batch(self.windows(numbers, 0), numbers, 2)

    def held_out(self, first: int, count: int) -> Batch | None:
        """Held-out examples: the same ids hidden each time."""
        found = self.windows.held_out(first, count, 0)
        return None if found is None else self._batch(found[1], found[0], 3)

    def _batch(self, rows: NDArray[np.int64], numbers: NDArray[np.int64], stream: int) -> Batch:
        places = np.arange(rows.shape[1])
        key = numbers[:, None] * self.length + places  # of each id, among all there will ever be
        chance, action, piece = (_uniform(self.windows.seed, 8 * i + stream, key) for i in (1, 2, 3))
        special = self._special[rows]
        if self.whole_words:
            begins = ~self._continues[rows]
            begins[:, 0] = True
            # Every piece has the chance of its word's first one, or of the special one before it.
            chance = np.take_along_axis(chance, np.maximum.accumulate(np.where(begins, places, 0), axis=1), axis=1)
        chosen = (chance < self.probability) & ~special
        others = self._ordinary[(piece * len(self._ordinary)).astype(np.int64)]
        inputs = np.where(chosen & (action < 0.8), self._mask, rows)
        inputs = np.where(chosen & (action >= 0.8) & (action < 0.9), others, inputs)
        targets = np.where(chosen, rows, -100)
        return Batch(self._framed(inputs, None), self._framed(targets, -100))

    def _framed(self, rows: NDArray[np.int64], fill: int | None) -> Tensor:
        """The rows with [CLS] before them and [SEP] behind, or with `fill` there."""
        parts = [rows]
        if self.tokenizer.start is not None:
            parts.insert(0, np.full((len(rows), 1), self.tokenizer.start if fill is None else fill))
        if self.tokenizer.end is not None:
            parts.append(np.full((len(rows), 1), self.tokenizer.end if fill is None else fill))
        return torch.from_numpy(np.concatenate(parts, axis=1))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _random_bits(seed: int, stream: int, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    key = _mixed(np.array([seed, stream], np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    start = _mixed(key[:1] ^ (key[1:] << np.uint64(1)))
    return _mixed(start + numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def _uniform(seed: int, stream: int, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Random numbers in [0, 1), each a function of the seed, the stream, and its own number."""
    return (_random_bits(seed, stream, numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53


# ----------------------------------------------------------------------------------------------------------- training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train, on how much at a time, and how fast.

    Attributes
    ----------
    steps
        Updates of the weights.
    batch_size
        Examples that a process holds at a time.
    length
        Tokens in an example; only for counting them.
    accumulate
        Batches whose gradients are added up for a step.
    learning_rate
        At the end of the warm-up.
    min_learning_rate
        At the last step, reached along half a cosine (Loshchilov and Hutter 2017); None: a tenth of `learning_rate`.
    warmup
        Steps in which the rate rises in a straight line from 0; None: a twentieth of the steps.
    weight_decay
        AdamW's (Loshchilov and Hutter 2019), on matrices alone: not on embeddings, biases and norms.
    betas
        AdamW's means forget by these.
    clip
        The longest gradient; None: any.
    bf16
        Whether products are of bf16 under autocast; None: where there are units for it, on a GPU that has it and on a
        processor with AMX or AVX512-BF16. A step then takes about half the time; weights and sums stay float32.
    evaluate_every
        Steps between two evaluations; None: a twentieth of the steps. The last step is always followed by one.
    evaluate_batches
        Held-out batches for an evaluation, at most; 0 for none.
    seed
        Of dropout.
    """

    steps: int
    batch_size: int = 16
    length: int = 256
    accumulate: int = 1
    learning_rate: float = 1e-3
    min_learning_rate: float | None = None
    warmup: int | None = None
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = 1.0
    bf16: bool | None = None
    evaluate_every: int | None = None
    evaluate_batches: int = 16
    seed: int = 1

    def __post_init__(self) -> None:
        kept: dict[str, Any] = {}  # as Python's own numbers, which JSON can hold
        for name, low in (("steps", 1), ("batch_size", 1), ("length", 1), ("accumulate", 1), ("evaluate_batches", 0)):
            kept[name] = whole_number(name, getattr(self, name), low=low)
        kept["seed"] = whole_number("seed", self.seed, high=2**63 - 1)
        kept["learning_rate"] = real_number("learning_rate", self.learning_rate, above=0.0)
        kept["weight_decay"] = real_number("weight_decay", self.weight_decay, low=0.0)
        if self.min_learning_rate is not None:
            kept["min_learning_rate"] = real_number("min_learning_rate", self.min_learning_rate, low=0.0)
            if self.min_learning_rate > self.learning_rate:
                raise ValueError(
                    f"min_learning_rate, {self.min_learning_rate}, is above learning_rate, {self.learning_rate}"
                )
        if self.warmup is not None:
            kept["warmup"] = whole_number("warmup", self.warmup, high=self.steps)
        if self.clip is not None:
            kept["clip"] = real_number("clip", self.clip, above=0.0)
        if self.evaluate_every is not None:
            kept["evaluate_every"] = whole_number("evaluate_every", self.evaluate_every, low=1)
        first, second = (real_number(f"betas[{i}]", beta, low=0.0) for i, beta in enumerate(self.betas))
        if max(first, second) >= 1:
            raise ValueError(f"betas must be below 1, not {self.betas}")
        kept["betas"] = (first, second)
        for name, value in kept.items():
            object.__setattr__(self, name, value)

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = self.steps // 20 if self.warmup is None else self.warmup
        low = self.learning_rate / 10 if self.min_learning_rate is None else self.min_learning_rate
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        done = (step - warmup + 1) / max(1, self.steps - warmup)
        return low + (self.learning_rate - low) * (1 + math.cos(math.pi * min(1.0, done))) / 2


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Where a training stands.

    Attributes
    ----------
    step
        Steps done.
    tokens
        Tokens seen, by all processes.
    loss
        Mean in nats for a target since the last evaluation, dropout included.
    held_out
        Mean in nats for a target of the held-out examples; NaN if there are none.
    perplexity
        Its exponential.
    learning_rate
        Of the last step.
    tokens_per_second
        Since the last evaluation, by all processes, evaluations left out.
    seconds
        Of training since its beginning, evaluations left out.
    """

    step: int
    tokens: int
    loss: float
    held_out: float
    perplexity: float
    learning_rate: float
    tokens_per_second: float
    seconds: float


# The sum of the targets' losses in nats, and how many targets there are.
Loss = Callable[[Any, Any], tuple[Tensor, Tensor | int]]


def train(
    module: nn.Module,
    batches: Batches,
    loss: Loss,
    schedule: Schedule,
    *,
    device: str | torch.device = "cpu",
    progress: bool = False,
    callbacks: Iterable[Callable[[Evaluation], object]] = (),
    before_step: Callable[[int], object] | None = None,
    checkpoint: files.PathLike | None = None,
    resume: bool = False,
    history: list[Evaluation] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[Evaluation]:
    """Train a module by AdamW.

    Under ``torchrun``, or in a process group that the caller has begun, each process takes its share of each step's
    examples, and all have the same weights (`torch.nn.parallel.DistributedDataParallel`). The first process writes
    checkpoints and shows the bar; evaluations are the same everywhere, but for seconds. A process group that is begun
    here stays until the process ends, for the next training.

    Parameters
    ----------
    module
        What to train; it is moved to `device` and stays there. Parameters that want no gradient stay as they are.
    batches
        What to learn from, see `Batches`.
    loss
        Called with the module and a batch; gives the *sum* of the targets' losses in nats, and their number. A step
        divides by the number of all its targets, however they are spread over batches and processes.
    schedule
        How long, and how.
    device
        "cpu", or a GPU of torch's; "cuda" under ``torchrun`` is the one of the process's LOCAL_RANK.
    progress
        Show a bar on stderr.
    callbacks
        Functions called with each `Evaluation`; one that returns True ends the training there. Under ``torchrun`` they
        are called in all processes.
    before_step
        Called with the number of each step before it, from 0: a place to freeze parameters, or set them free.
    checkpoint
        A folder for the state of the training, made if it is not there. Written after each evaluation, every ten
        minutes, and at Ctrl-C.
    resume
        Continue from the checkpoint where there is one.
    history
        A list that is emptied and takes the evaluations as they are made, so that they are at hand after an error.
    options
        What else a run that is resumed must share with the one it continues, such as JSON can hold.

    Returns
    -------
    list of Evaluation
        `history`, or a list of its own; with those of the run that is continued.

    Raises
    ------
    KeyboardInterrupt
        At Ctrl-C, after the step at hand, when the checkpoint is written. A second Ctrl-C does not wait for that.
    FloatingPointError
        If the loss or its gradient stops being finite, naming the step; the weights are put back to ones that gave
        a finite loss, at most eight steps before, and the checkpoint stays as it was.
    ValueError
        If the checkpoint is of another training, or is there and `resume` was not asked for; if nothing wants a
        gradient.
    """
    callbacks = list(callbacks)
    for i, callback in enumerate(callbacks):
        if not callable(callback):
            raise TypeError(f"callbacks[{i}] must be a function of an Evaluation, not a {type(callback).__name__}")
    if resume and checkpoint is None:
        raise ValueError("resume=True needs checkpoint=, the folder to continue from")
    place = device_of(device)
    if str(place) == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
    processes = _processes(place)
    with contextlib.ExitStack() as stack:
        was_training = module.training
        stack.callback(module.train, was_training)
        stack.enter_context(torch.random.fork_rng([place.index] if place.type == "cuda" else []))
        run = _Run(
            module,
            batches,
            loss,
            schedule,
            place,
            processes,
            None if checkpoint is None else Path(checkpoint),
            resume,
            {} if options is None else json.loads(json.dumps(dict(options))),
        )
        if history is not None:
            history[:] = run.history
            run.history = history
        bar = stack.enter_context(
            tqdm(
                total=schedule.steps,
                initial=run.step,
                desc=type(module).__name__,
                unit=" steps",
                disable=not progress or processes.rank > 0,
            )
        )
        interrupt = stack.enter_context(_Interrupt())
        run.finish(bar, interrupt, callbacks, before_step)
        processes.total([0.0], place)  # none leaves before all are here: the first one may be host to the others
    return run.history


@dataclasses.dataclass(frozen=True)
class _Processes:
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1

    def total(self, values: list[float], device: torch.device) -> list[float]:
        """The sums over all processes."""
        if self.count == 1:
            return values
        # NCCL adds up what lies on the GPU only.
        where = device if dist.get_backend() == "nccl" else torch.device("cpu")
        tensor = torch.tensor(values, dtype=torch.float64, device=where)
        dist.all_reduce(tensor)
        found: list[float] = tensor.tolist()
        return found

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the first one's tensors."""
        if self.count > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)


def device_of(name: str | torch.device) -> torch.device:
    """A device of torch's; ValueError if there is none of this name, or none that torch sees here."""
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be one of torch's, such as 'cpu' or 'cuda', not {str(name)!r}") from None
    there = device.type == "cpu"
    if device.type == "cuda":
        there = torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    elif device.type == "mps":
        there = torch.backends.mps.is_available()
    elif not there and device.type != "meta":
        with contextlib.suppress(Exception):  # torch without the device's part raises this or that
            torch.empty(0, device=device)
            there = True
    if not there:
        raise ValueError(f"device={str(name)!r}, and torch sees no such device here")
    return device


def is_first_process() -> bool:
    """Whether this process is the one that writes and shows something, of those that train together."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes train together."""
    if not dist.is_available():
        return 1
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def _processes(device: torch.device) -> _Processes:
    """The processes that train together: those of the caller's group, or those that torchrun has begun, or this one."""
    if not dist.is_available() or (not dist.is_initialized() and process_count() < 2):
        return _Processes()
    if not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # It stays: another one would find its forerunner's addresses in the store of torchrun, and wait for them.
        atexit.register(_leave)
    return _Processes(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


class _Interrupt:
    """Remembers a Ctrl-C until somebody asks; the second one goes through at once."""

    def __init__(self) -> None:
        self.pressed: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> Self:
        self.previous = signal.getsignal(signal.SIGINT)
        # Python's signals come to the main thread; a handler that is not callable ignores them, or was set in C.
        self.active = threading.current_thread() is threading.main_thread() and callable(self.previous)
        if self.active:
            signal.signal(signal.SIGINT, self._press)
        return self

    def _press(self, number: int, frame: FrameType | None) -> None:
        if self.pressed is not None:
            self.answer()
        self.pressed = (number, frame)

    def answer(self) -> None:
        """Do what the Ctrl-C would have done, here or in another process."""
        pressed, self.pressed = self.pressed, None
        if pressed is not None and callable(self.previous):
            self.previous(*pressed)
        raise KeyboardInterrupt

    def __exit__(self, kind: object, *_: object) -> None:
        if self.active:
            signal.signal(signal.SIGINT, self.previous)
        if self.pressed is not None and kind is None:
            self.answer()


class _WithLoss(nn.Module):
    """A module whose output is its loss, so that DDP sees all that happens between parameters and gradient."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self.loss = loss

    def forward(self, batch: Any) -> tuple[Tensor, Tensor | int]:
        return self.loss(self.module, batch)


class _Run:
    """One call of `train`: where it stands, and how it goes on."""

    def __init__(
        self,
        module: nn.Module,
        batches: Batches,
        loss: Loss,
        schedule: Schedule,
        device: torch.device,
        processes: _Processes,
        folder: Path | None,
        resume: bool,
        options: dict[str, Any],
    ) -> None:
        self.options = options
        self.module = module
        self.batches = batches
        self.loss = loss
        self.schedule = schedule
        self.device = device
        self.processes = processes
        self.folder = folder
        self.step = 0
        self.seconds = 0.0
        # Since the last evaluation: the losses' sum, targets, seconds, steps.
        self.since = [0.0, 0.0, 0.0, 0.0]
        self.history: list[Evaluation] = []
        self.bf16 = pays_bf16(device) if schedule.bf16 is None else schedule.bf16
        state = None if folder is None else self.read_checkpoint(folder, resume)
        module.to(device)
        self.names = {id(parameter): name for name, parameter in module.named_parameters()}
        self.parameters = list(module.parameters())
        if not any(parameter.requires_grad for parameter in self.parameters):
            raise ValueError("the module has no parameter that wants a gradient: there is nothing to train")
        self.optimizer = torch.optim.AdamW(
            _groups(module, schedule.weight_decay),
            lr=schedule.rate(0),
            betas=schedule.betas,
            fused=all(parameter.is_floating_point() for parameter in self.parameters),
        )
        if state is not None:
            self.restore(*state)
        with torch.no_grad():
            processes.share(_state(module).values())
        self.good = [parameter.detach().clone() for parameter in self.parameters]
        self.good_step = self.step
        self.wrapped: nn.Module = _WithLoss(module, loss)
        self.free: list[bool] | None = None  # which parameters want a gradient, when `wrapped` was made
        self.last_checkpoint = time.monotonic()

    def finish(
        self,
        bar: tqdm[Any],
        interrupt: _Interrupt,
        callbacks: list[Callable[[Evaluation], object]],
        before_step: Callable[[int], object] | None,
    ) -> None:
        every = self.schedule.evaluate_every or max(1, self.schedule.steps // 20)
        self.module.train()
        while self.step < self.schedule.steps:
            if before_step is not None:
                before_step(self.step)
            stop = self.train_step(interrupt)
            bar.update(1)
            if stop:
                self.write_checkpoint()
                interrupt.answer()
            if self.step % every == 0 or self.step == self.schedule.steps:
                evaluation = self.evaluate()
                bar.set_postfix(loss=f"{evaluation.loss:.4f}", held_out=f"{evaluation.held_out:.4f}")
                self.write_checkpoint()
                answers = [
                    callback(evaluation) for callback in callbacks
                ]  # all of them, also when one asks for the end
                self.module.train()  # who looked at states may have turned dropout off
                wanted = float(any(answer is True for answer in answers))
                # One process alone must not leave the others waiting for it.
                end, pressed = self.processes.total([wanted, float(interrupt.pressed is not None)], self.device)
                if pressed:
                    interrupt.answer()
                if end:
                    return
            elif time.monotonic() - self.last_checkpoint > _CHECKPOINT_SECONDS:
                self.write_checkpoint()

    def train_step(self, interrupt: _Interrupt) -> bool:
        """One update of the weights; whether somebody wants to stop after it."""
        start = time.perf_counter()
        schedule, processes = self.schedule, self.processes
        rate = schedule.rate(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        wrapped = self.synchronized()
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        for i in range(schedule.accumulate):
            number = (self.step * schedule.accumulate + i) * processes.count + processes.rank
            batch = _moved(self.batches(number * schedule.batch_size, schedule.batch_size), self.device)
            bits = _random_bits(schedule.seed, 4, np.array([number * schedule.batch_size]))
            torch.manual_seed(int(bits[0] >> np.uint64(1)))
            with contextlib.ExitStack() as stack:
                if processes.count > 1 and i < schedule.accumulate - 1:
                    stack.enter_context(wrapped.no_sync())  # type: ignore[operator]
                if processes.count > 1 and self.since[3] == 0:
                    # Parameters that a loss leaves out are allowed; DDP complains where there are none.
                    stack.enter_context(warnings.catch_warnings())
                    warnings.filterwarnings("ignore", message=".*find_unused_parameters")
                with self.autocast():
                    total, count = wrapped(batch)
                total.backward()
            totals[0] += total.detach()
            totals[1] += count
        loss, targets, pressed = processes.total([*totals.tolist(), float(interrupt.pressed is not None)], self.device)
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        scale = processes.count / max(targets, 1.0)  # DDP has divided by the number of processes
        norm = float(nn.utils.get_total_norm(gradients)) * scale
        if not math.isfinite(loss) or not math.isfinite(norm):
            self.give_up(f"{'gradient' if math.isfinite(loss) else 'loss'} of step {self.step + 1}")
        if schedule.clip is not None and norm > schedule.clip:
            scale *= schedule.clip / norm
        if self.step - self.good_step >= _KEEP_EVERY:
            # These gave a finite loss; what the update makes of them, nobody knows yet.
            self.keep()
        for gradient in gradients:
            gradient.mul_(scale)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        seconds = time.perf_counter() - start
        self.seconds += seconds
        for i, value in enumerate((loss, targets, seconds, 1.0)):
            self.since[i] += value
        return pressed > 0

    def synchronized(self) -> nn.Module:
        """The module with its loss, in DDP where there are several processes."""
        if self.processes.count == 1:
            return self.wrapped
        free = [parameter.requires_grad for parameter in self.parameters]
        if free != self.free:  # DDP sees to those parameters that want a gradient when it is made
            inner = _WithLoss(self.module, self.loss)
            self.wrapped = nn.parallel.DistributedDataParallel(inner, find_unused_parameters=True)
            self.free = free
        return self.wrapped

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @torch.no_grad()
    def keep(self) -> None:
        for good, parameter in zip(self.good, self.parameters, strict=True):
            good.copy_(parameter)
        self.good_step = self.step

    @torch.no_grad()
    def give_up(self, what: str) -> None:
        for good, parameter in zip(self.good, self.parameters, strict=True):
            parameter.copy_(good)
        self.optimizer.zero_grad(set_to_none=True)
        raise FloatingPointError(
            f"training diverged: the {what} is not finite. The weights are those after step {self.good_step}, when all "
            "was well. A lower learning rate or a longer warm-up helps."
        )

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """See how it stands, and note it in the history."""
        schedule, processes = self.schedule, self.processes
        totals = [0.0, 0.0]
        self.module.eval()
        for i in range(processes.rank, schedule.evaluate_batches, processes.count):
            batch = self.batches.held_out(i * schedule.batch_size, schedule.batch_size)
            if batch is None:
                break
            with self.autocast():
                total, count = self.loss(self.module, _moved(batch, self.device))
            totals[0] += float(total)
            totals[1] += float(count)
        self.module.train()
        total_loss, targets = processes.total(totals, self.device)
        held_out = total_loss / targets if targets else math.nan
        if targets and not math.isfinite(held_out):
            self.give_up(f"held-out loss after step {self.step}")
        train_loss, seen, seconds, steps = self.since
        tokens = self.examples_per_step * schedule.length
        evaluation = Evaluation(
            step=self.step,
            tokens=self.step * tokens,
            loss=train_loss / seen if seen else math.nan,
            held_out=held_out,
            perplexity=math.exp(held_out) if not held_out > 700 else math.inf,
            learning_rate=schedule.rate(self.step - 1),
            tokens_per_second=steps * tokens / max(seconds, 1e-9),
            seconds=self.seconds,
        )
        self.history.append(evaluation)
        self.since = [0.0, 0.0, 0.0, 0.0]
        return evaluation

    @property
    def examples_per_step(self) -> int:
        return self.processes.count * self.schedule.accumulate * self.schedule.batch_size

    # ------------------------------------------------------------------------------------------------- checkpoints

    def description(self) -> dict[str, Any]:
        """What a run must share with the one it continues: however its examples are spread over processes."""
        schedule = dataclasses.asdict(self.schedule)
        for name in ("batch_size", "accumulate", "bf16"):
            del schedule[name]
        schedule["betas"] = list(self.schedule.betas)
        # Weights of the same shapes may be used otherwise: by other heads, with other dropout.
        architecture = getattr(self.module, "architecture", None)
        own = dataclasses.asdict(architecture) if isinstance(architecture, Architecture) else {}
        return {**schedule, **own, **self.options, "examples of a step": self.examples_per_step}

    def write_checkpoint(self) -> None:
        self.last_checkpoint = time.monotonic()
        if self.folder is None or self.processes.rank > 0:
            return
        tensors = {f"module.{name}": tensor for name, tensor in _state(self.module).items()}
        steps = {}
        for parameter, state in self.optimizer.state.items():
            name = self.names[id(parameter)]
            steps[name] = float(state["step"])
            tensors[f"mean.{name}"] = state["exp_avg"]
            tensors[f"square.{name}"] = state["exp_avg_sq"]
        files.write_own(
            self.folder / CHECKPOINT,
            "checkpoint",
            {name: _array(tensor) for name, tensor in tensors.items()},
            {
                "model": type(self.module).__name__,
                "schedule": self.description(),
                "data": self.batches.fingerprint,
                "bf16": self.bf16,
                "history": [dataclasses.asdict(evaluation) for evaluation in self.history],
                "progress": [self.step, self.seconds, self.since],
                "steps": steps,
            },
        )

    def read_checkpoint(self, folder: Path, resume: bool) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
        path = folder / CHECKPOINT
        folder.mkdir(parents=True, exist_ok=True)
        # Whether it can be written to is found out now, not after the first evaluation.
        with tempfile.TemporaryFile(dir=folder):
            pass
        # The first process decides; all know before it writes.
        exists = path.exists() and self.processes.rank == 0
        if not self.processes.total([float(exists)], self.device)[0]:
            return None
        if not resume:
            raise ValueError(
                f"{path} holds the state of an earlier training: pass resume=True to continue, or remove it"
            )
        tensors, metadata = files.read_own(path, "checkpoint", mmap=True)
        name = type(self.module).__name__
        if metadata.get("model") != name:
            raise ValueError(f"{path} is a checkpoint of a {metadata.get('model')}, not of a {name}")
        missing = {"schedule", "data", "history", "progress", "steps", "bf16"} - metadata.keys()
        if missing:
            raise ValueError(f"{path} is a damaged checkpoint: it lacks {', '.join(sorted(missing))}")
        for key in ("schedule", "steps"):
            if not isinstance(metadata[key], dict):
                raise ValueError(f"{path} is a damaged checkpoint: its {key} are not named")
        other = [
            f"{key} was {metadata['schedule'].get(key)!r}, is {value!r}"
            for key, value in self.description().items()
            if metadata["schedule"].get(key) != value
        ]
        if self.schedule.bf16 is None:
            self.bf16 = metadata["bf16"]
        elif self.schedule.bf16 != metadata["bf16"]:
            other.append(f"bf16 was {metadata['bf16']}, is {self.schedule.bf16}")
        if metadata["data"] != self.batches.fingerprint:
            other.append("the data are other ones")
        wanted = {f"module.{key}": list(tensor.shape) or [1] for key, tensor in _state(self.module).items()}
        for key, shape in wanted.items():
            if key not in tensors:
                other.append(f"it has no {key.removeprefix('module.')}")
            elif tensors[key].dtype != np.uint8 and list(tensors[key].shape) != shape:
                other.append(f"{key.removeprefix('module.')} was {list(tensors[key].shape)}, is {shape}")
        if other:
            raise ValueError(f"{path} does not belong to this training: {'; '.join(other)}")
        return tensors, metadata

    def restore(self, tensors: dict[str, NDArray[Any]], metadata: dict[str, Any]) -> None:
        try:
            # All is checked before anything is taken on.
            history = records(metadata["history"], Evaluation, may_be_nan=("held_out", "perplexity", "score"))
            self.restore_progress(metadata["progress"], history)
            state_of_module = _state(self.module)
            for name, tensor in state_of_module.items():
                wanted = _array(tensor)
                expect(name, tensors[f"module.{name}"], wanted.dtype, wanted.shape)
            with torch.no_grad():
                for name, tensor in state_of_module.items():
                    tensor.copy_(_tensor(tensors[f"module.{name}"], tensor))
                state = {}
                order = [one for group in self.optimizer.param_groups for one in group["params"]]
                for i, parameter in enumerate(order):
                    name = self.names[id(parameter)]
                    if name in metadata["steps"]:
                        for moment in (f"mean.{name}", f"square.{name}"):
                            wanted = _array(parameter)
                            expect(moment, tensors[moment], wanted.dtype, wanted.shape)
                        state[i] = {
                            "step": torch.tensor(metadata["steps"][name], dtype=torch.float32),
                            "exp_avg": _tensor(tensors[f"mean.{name}"], parameter),
                            "exp_avg_sq": _tensor(tensors[f"square.{name}"], parameter),
                        }
            self.optimizer.load_state_dict(
                {"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]}
            )
            self.history = history
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"the checkpoint in {self.folder} is damaged: {error}") from None

    def restore_progress(self, stored: Any, history: list[Evaluation]) -> None:
        """Take on where a training stood; TypeError if none can have stood there."""
        steps = [one.step for one in history]
        match stored:
            case [int(step), float(seconds), [float(), float(), float(), float()] as since] if (
                0 <= step <= self.schedule.steps
                and all(0 <= one < math.inf for one in [seconds, *since[1:]])
                and math.isfinite(since[0])
                and all(a < b for a, b in itertools.pairwise([0, *steps, step + 1]))
            ):
                self.step, self.seconds, self.since = step, seconds, since
            case _:
                raise TypeError(
                    f"its progress {stored!r} with evaluations after steps {steps} is not that of a training of "
                    f"{self.schedule.steps} steps"
                )


def pays_bf16(device: torch.device) -> bool:
    """Whether bf16 is taken where nobody has asked: on hardware with units for its products, see `Schedule`."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with weight decay and without."""
    embeddings = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag)
        for parameter in part.parameters(recurse=False)
    }
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in module.parameters():
        groups[parameter.ndim < 2 or id(parameter) in embeddings].append(parameter)
    decayed, free = groups
    found = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in found if group["params"]]


def _moved(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {key: _moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(value, device) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(_moved(value, device) for value in batch)
    return batch


def _state(module: nn.Module) -> dict[str, Tensor]:
    """All that a module's state dictionary holds, what has two names under the first one only."""
    seen: set[int] = set()
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


_PLAIN = {torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.uint8}


def _array(tensor: Tensor) -> NDArray[Any]:
    """A tensor for firth's container; of types that it does not know, such as bf16, the bytes."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.ndim == 0:
        tensor = tensor.reshape(1)
    found: NDArray[Any] = (tensor if tensor.dtype in _PLAIN else tensor.view(torch.uint8)).numpy()
    return found


def _tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    """The tensor that `_array` made an array of."""
    tensor = torch.from_numpy(np.array(array))
    if tensor.dtype == torch.uint8:
        tensor = tensor.view(like.dtype)
    return tensor.reshape(like.shape)
