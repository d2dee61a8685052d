"""Texts as token ids in a mapped file, and batches of examples cut from them.

Examples are numbered from 0 in an endless sequence, and an example is a function of (seed, number) alone. Each step
takes the next ``processes * accumulate * batch_size`` of them. Hence two processes train on the same examples as one
with twice the batch, and a resumed run on the same ones as an uninterrupted run.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import functools
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from firth import files
from firth.checks import real_number, text_or_words, whole_number
from firth.contextual.tokenizer import Tokenizer
from firth.text import Documents, Text, Texts, read_texts

if TYPE_CHECKING:
    from typing_extensions import Self

_TEXTS = 1024  # for one call of the tokenizer, or fewer if they are long
_CHARACTERS = 1 << 22


@dataclasses.dataclass(eq=False, repr=False)
class TokenIds:
    """The token ids of many texts in one mapped array, with a validation split, made by `build` or `open`.

    After each text stands the tokenizer's `end`, if it has one.

    Attributes
    ----------
    ids
        (tokens,), uint16 or, for vocabularies above 65,536, int32; mapped from a file. First the training texts, then
        those of the validation split.
    offsets
        (texts + 1,), int64: where each text begins.
    n_train
        How many of the texts are training texts.
    n_bytes
        Bytes in UTF-8 of the training texts, and of the validation split: for losses per byte.
    vocabulary_size
        Of the tokenizer.
    """

    ids: NDArray[Any]
    offsets: NDArray[np.int64]
    n_train: int
    vocabulary_size: int
    n_bytes: tuple[int, int] = (0, 0)

    @classmethod
    def build(
        cls,
        source: Texts,
        tokenizer: Tokenizer,
        *,
        path: files.PathLike | None = None,
        validation: float = 0.01,
        seed: int = 1,
        documents: Documents = "lines",
        progress: bool = False,
    ) -> Self:
        """Tokenize texts and keep the ids in a file; ValueError if there is no text.

        Parameters
        ----------
        source, documents
            As in `read_texts`; read once.
        tokenizer
            Its special tokens are not looked for in texts.
        path
            A file for the ids, which `open` reads; None: a temporary file, deleted with the object.
        validation
            About this share, below 1, of whole texts is the validation split: of two or more texts at least one.
        seed
            Of the random split.
        progress
            Show a bar on stderr.

        """
        real_number("validation", validation, low=0.0)
        if validation >= 1:
            raise ValueError(f"validation must be below 1, not {validation}")
        whole_number("seed", seed, high=2**63 - 1)
        dtype = np.dtype("<u2") if len(tokenizer) <= 1 << 16 else np.dtype("<i4")
        folder = None if path is None else Path(path).absolute().parent
        with contextlib.ExitStack() as stack:
            # The validation split has a file of its own, which is appended to the first one when all texts are read.
            spools = [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(2)]
            lengths: list[list[NDArray[np.int64]]] = [[], []]
            sizes: list[list[int]] = [[], []]
            n = 0
            texts = read_texts(source, documents=documents, progress=progress)
            bar = stack.enter_context(tqdm(desc="tokenizing", unit=" texts", unit_scale=True, disable=not progress))
            for chunk in _chunks(texts):
                apart = uniform(seed, 0, np.arange(n, n + len(chunk))) < validation
                n += len(chunk)
                tokens = tokenizer.encode_ids(chunk)
                if tokenizer.end is not None:
                    tokens = [np.append(ids, tokenizer.end) if len(ids) else ids for ids in tokens]
                for part in (0, 1):
                    chosen = [i for i in np.flatnonzero(apart == part).tolist() if len(tokens[i])]
                    if chosen:
                        spools[part].write(np.concatenate([tokens[i] for i in chosen]).astype(dtype).tobytes())
                        lengths[part].append(np.array([len(tokens[i]) for i in chosen], np.int64))
                        sizes[part] += [n_bytes(chunk[i]) for i in chosen]
                bar.update(len(chunk))
            counts = [np.concatenate(part) if part else np.zeros(0, np.int64) for part in lengths]
            n_train, total = len(counts[0]), len(counts[0]) + len(counts[1])
            if total == 0:
                raise ValueError("there is no text to train on")
            spool, rest = spools
            rest.seek(0)
            shutil.copyfileobj(rest, spool, 1 << 24)
            spool.flush()
            offsets = np.zeros(total + 1, np.int64)
            np.cumsum(np.concatenate(counts), out=offsets[1:])
            # If chance leaves a split empty, the limit moves by one text.
            n_train = min(max(n_train, 1), total - 1) if total > 1 and validation > 0 else total
            each = sizes[0] + sizes[1]
            ids: Any = np.memmap(spool, dtype, "r", shape=(int(offsets[-1]),))
            made = cls(ids, offsets, n_train, len(tokenizer), (sum(each[:n_train]), sum(each[n_train:])))
            if path is None:
                return made  # the map outlives the file's name and handle
            made.save(path)
        return cls.open(path)

    def save(self, path: files.PathLike) -> None:
        """Write one safetensors file, which `open` maps; it appears whole or not at all."""
        metadata = {"n_train": self.n_train, "vocabulary_size": self.vocabulary_size, "n_bytes": list(self.n_bytes)}
        files.write_own(path, "token ids", {"ids": self.ids, "offsets": self.offsets}, metadata)

    @classmethod
    def open(cls, path: files.PathLike) -> Self:
        """Map a file that `build` or `save` wrote; OSError or ValueError if it is missing, or another kind of file."""
        tensors, metadata = files.read_own(path, "token ids", mmap=True)
        with files.reading(path, "file of token ids"):
            ids, offsets, n_train = tensors["ids"], np.array(tensors["offsets"]), metadata["n_train"]
            if offsets[-1] != len(ids) or not 0 < n_train < len(offsets):
                raise ValueError("the texts' offsets do not run through their ids")
            first, second = metadata["n_bytes"]
            return cls(ids, offsets, n_train, metadata["vocabulary_size"], (first, second))

    @property
    def train(self) -> NDArray[Any]:
        """The training ids, (tokens,)."""
        return self.ids[: self.offsets[self.n_train]]

    @property
    def validation(self) -> NDArray[Any]:
        """The ids of the validation split, (tokens,); there may be none."""
        return self.ids[self.offsets[self.n_train] :]

    def knows(self, special: NDArray[np.bool_]) -> bool:
        """Whether the training texts hold a token other than `special` ones, such as the unknown one."""
        stream = self.train
        return any(not special[stream[start : start + (1 << 20)]].all() for start in range(0, len(stream), 1 << 20))

    @functools.cached_property
    def fingerprint(self) -> list[int]:
        """Sizes and a checksum of all ids, which are read once."""
        total = 0
        for start in range(0, len(self.ids), 1 << 24):
            total = zlib.crc32(np.ascontiguousarray(self.ids[start : start + (1 << 24)]).data, total)
        return [self.vocabulary_size, len(self), self.n_train, len(self.ids), total]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        apart = len(self) - self.n_train
        return f"TokenIds({len(self.ids)} tokens of {len(self)} texts, {apart} of them for validation)"


def _chunks(texts: Iterable[Text]) -> Iterator[list[Text]]:
    chunk: list[Text] = []
    size = 0
    for i, given in enumerate(texts):
        text = text_or_words(f"texts[{i}]", given)
        chunk.append(text)
        size += len(text)
        if len(chunk) == _TEXTS or size > _CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def n_bytes(text: Text) -> int:
    """Bytes of a text in UTF-8; words are joined by spaces."""
    return len((text if isinstance(text, str) else " ".join(text)).encode(errors="replace"))


class Batches(Protocol):
    """What `train` needs of its examples: an endless sequence, each example a function of its number."""

    @property
    def fingerprint(self) -> list[int]:
        """Identifies the examples: a checkpoint belongs to examples with the same one."""

    def __call__(self, first: int, count: int) -> Any:
        """Examples `first` to `first + count - 1`, as a tensor or tuples, lists or dicts of tensors."""

    def validation(self, first: int, count: int) -> Any | None:
        """At most `count` examples of the validation split from number `first` on; None if there are no more."""


class Batch(NamedTuple):
    """Inputs and targets, (examples, length) int64 each; a target of -100 is ignored."""

    inputs: Tensor
    targets: Tensor


class _Windows(abc.ABC):
    """Windows of a stream of ids as examples: in each epoch at other places, in another order.

    An epoch covers each id once, but for the overlap of its first and last window: windows lie side by side from a
    random place of the epoch, and wrap around at the stream's end. Each window has `width` ids, and `more` after them.
    """

    def __init__(self, ids: TokenIds, *, width: int, more: int, seed: int) -> None:
        self.seed = whole_number("seed", seed, high=2**63 - 1)
        self.ids = ids
        self.width = width
        self.more = more
        self._orders: dict[int, NDArray[np.int64]] = {}

    @abc.abstractmethod
    def _batch(self, rows: NDArray[np.int64], numbers: NDArray[np.int64], stream: int) -> Batch:
        """The examples with these numbers, made of their windows, with random numbers of a stream."""

    def _order(self, n: int, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            while len(self._orders) > 1:  # a batch may hold examples of two epochs
                self._orders.pop(next(iter(self._orders)))
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(n)
        return self._orders[epoch]

    def __call__(self, first: int, count: int) -> Batch:
        """Examples `first` to `first + count - 1`."""
        stream = self.ids.train
        if len(stream) < 2:
            raise ValueError(f"{len(stream)} tokens are too few to train on")
        numbers = np.arange(first, first + count)
        n = -(-len(stream) // self.width)
        epochs, places = np.divmod(numbers, n)
        starts = np.empty(len(numbers), np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            begin = int(uniform(self.seed, 1, np.array([epoch]))[0] * len(stream))
            starts[here] = begin + self._order(n, epoch)[places[here]] * self.width
        rows = stream[(starts[:, None] + np.arange(self.width + self.more)) % len(stream)].astype(np.int64)
        return self._batch(rows, numbers, 2)

    def validation(self, first: int, count: int) -> Batch | None:
        """Examples of the validation split, where windows lie side by side and come in a random order."""
        stream = self.ids.validation
        width = min(self.width, len(stream) - self.more)
        if width < 1:
            return None
        n = (len(stream) - self.more) // width
        numbers = np.arange(first, min(first + count, n))
        if len(numbers) == 0:
            return None
        starts = np.random.default_rng([self.seed, 2**32]).permutation(n)[numbers] * width
        return self._batch(stream[starts[:, None] + np.arange(width + self.more)].astype(np.int64), numbers, 3)


class NextTokenBatches(_Windows):
    """Examples for causal models: `length` ids, and as targets the ids one place later.

    A row may hold the end of a text and the beginning of another. The seed decides the rows and their order.
    """

    def __init__(self, ids: TokenIds, *, length: int, seed: int = 1) -> None:
        super().__init__(ids, width=whole_number("length", length, low=1), more=1, seed=seed)

    @property
    def fingerprint(self) -> list[int]:
        """See `Batches`."""
        return [1, self.width, self.seed, *self.ids.fingerprint]

    def _batch(self, rows: NDArray[np.int64], numbers: NDArray[np.int64], stream: int) -> Batch:
        tensor = torch.from_numpy(rows)
        return Batch(tensor[:, :-1], tensor[:, 1:])


class MaskedBatches(_Windows):
    """Examples for masked language models: selected ids are hidden, and are the targets (Devlin et al. 2019).

    Of the selected ids, 80 % are replaced by the mask token, 10 % by a random token, and 10 % are left unchanged. A row
    is [CLS], ids, [SEP], `length` in all. Special ids are never selected, others with `probability`, in each row at
    least one; with `whole_words` all tokens of a word or none.
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
            raise ValueError("the tokenizer has no mask token: train a 'wordpiece' or 'wordlevel' one")
        if len(tokenizer) != ids.vocabulary_size:
            raise ValueError(
                f"the ids are of a vocabulary of {ids.vocabulary_size} tokens, the tokenizer has {len(tokenizer)}"
            )
        around = (tokenizer.start is not None) + (tokenizer.end is not None)
        self.length = whole_number("length", length, low=around + 1)
        super().__init__(ids, width=length - around, more=0, seed=seed)
        self.probability = real_number("probability", probability, above=0.0)
        if probability > 1:
            raise ValueError(f"probability must be at most 1, not {probability}")
        self.whole_words = bool(whole_words)
        self.tokenizer = tokenizer
        self._mask = mask
        self._special = tokenizer.special
        self._continues = tokenizer.continues
        self._ordinary = np.flatnonzero(~tokenizer.special)

    @property
    def fingerprint(self) -> list[int]:
        """See `Batches`."""
        chance = zlib.crc32(np.float64(self.probability).tobytes())
        return [2, self.length, chance, int(self.whole_words), self.seed, *self.ids.fingerprint]

    def _batch(self, rows: NDArray[np.int64], numbers: NDArray[np.int64], stream: int) -> Batch:
        places = np.arange(rows.shape[1])
        key = numbers[:, None] * self.length + places  # unique for each id of each row
        chance, action, random = (uniform(self.seed, 8 * i + stream, key) for i in (1, 2, 3))
        special = self._special[rows]
        if self.whole_words:
            begins = ~self._continues[rows]
            begins[:, 0] = True
            # Every token has the random number of its word's first token, or of the special token before it.
            chance = np.take_along_axis(chance, np.maximum.accumulate(np.where(begins, places, 0), axis=1), axis=1)
        # At least one in each row, as in BERT: otherwise a few short rows might have no target for many steps.
        least = np.where(special, 2.0, chance).min(axis=1, keepdims=True)
        chosen = ((chance < self.probability) | (chance == least)) & ~special
        others = self._ordinary[(random * len(self._ordinary)).astype(np.int64)]
        inputs = np.where(chosen & (action < 0.8), self._mask, rows)
        inputs = np.where(chosen & (action >= 0.8) & (action < 0.9), others, inputs)
        targets = np.where(chosen, rows, -100)
        return Batch(self._framed(inputs, None), self._framed(targets, -100))

    def _framed(self, rows: NDArray[np.int64], fill: int | None) -> Tensor:
        """The rows with [CLS] before them and [SEP] after them, or with `fill` there."""
        parts = [rows]
        if self.tokenizer.start is not None:
            parts.insert(0, np.full((len(rows), 1), self.tokenizer.start if fill is None else fill))
        if self.tokenizer.end is not None:
            parts.append(np.full((len(rows), 1), self.tokenizer.end if fill is None else fill))
        return torch.from_numpy(np.concatenate(parts, axis=1))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def random_bits(seed: int, stream: int, numbers: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits for each number, a function of the seed, the stream, and the number."""
    key = _mixed(np.array([seed, stream], np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    start = _mixed(key[:1] ^ (key[1:] << np.uint64(1)))
    return _mixed(start + numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def uniform(seed: int, stream: int, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Random numbers in [0, 1), each a function of the seed, the stream, and its own number."""
    return (random_bits(seed, stream, numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53
