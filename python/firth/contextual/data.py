"""Texts as token ids in a mapped file, and batches of examples cut from them.

**Nothing depends on how a run was cut.** Examples are numbered from 0 in an endless sequence, and an example is a
function of (seed, number) alone; each step takes the next ``processes * accumulate * batch_size`` of them. Hence two
processes learn from the same examples as one with twice the batch, and a resumed run from the same ones as a run that
was never stopped.
"""

from __future__ import annotations

import contextlib
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

_TEXTS = 1024  # given to the tokenizer at once, or fewer if they are long
_CHARACTERS = 1 << 22


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
        source: Texts,
        tokenizer: Tokenizer,
        *,
        path: files.PathLike | None = None,
        validation: float = 0.01,
        seed: int = 1,
        documents: Documents = "lines",
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
        validation
            About this share of the texts is held out; a text is never split. Of two texts and more at least one.
        seed
            Decides which ones.
        progress
            Show a bar on stderr.

        Raises
        ------
        ValueError
            If there is no text, or `validation` is not in [0, 1).
        """
        real_number("validation", validation, low=0.0)
        if validation >= 1:
            raise ValueError(f"validation must be below 1, not {validation}")
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
                held = uniform(seed, 0, np.arange(n, n + len(chunk))) < validation
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
            n_train = min(max(n_train, 1), total - 1) if total > 1 and validation > 0 else total
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
        with files.reading(path, "file of token ids"):
            ids, offsets, n_train = tensors["ids"], np.array(tensors["offsets"]), metadata["n_train"]
            if offsets[-1] != len(ids) or not 0 < n_train < len(offsets):
                raise ValueError("the texts' offsets do not run through their ids")
            first, second = metadata["n_bytes"]
            return cls(ids, offsets, n_train, metadata["vocabulary_size"], (first, second))

    @property
    def train(self) -> NDArray[Any]:
        """The ids to learn from, (tokens,)."""
        return self.ids[: self.offsets[self.n_train]]

    @property
    def validation(self) -> NDArray[Any]:
        """The held-out ids, (tokens,); there may be none."""
        return self.ids[self.offsets[self.n_train] :]

    def knows(self, special: NDArray[np.bool_]) -> bool:
        """Whether there is a token to learn from other than `special` ones, such as the unknown one."""
        stream = self.train
        return any(not special[stream[start : start + (1 << 20)]].all() for start in range(0, len(stream), 1 << 20))

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
    for i, given in enumerate(texts):
        text = text_or_words(f"texts[{i}]", given)
        chunk.append(text)
        size += len(text)
        if len(chunk) == _TEXTS or size > _CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _n_bytes(text: Text) -> int:
    return len((text if isinstance(text, str) else " ".join(text)).encode(errors="replace"))


class Batches(Protocol):
    """What `train` learns from: an endless sequence of examples, each a function of its number."""

    @property
    def fingerprint(self) -> list[int]:
        """What tells these examples from others; a checkpoint belongs to examples of the same one."""

    def __call__(self, first: int, count: int) -> Any:
        """Examples `first` to `first + count - 1`, as a tensor or tuples, lists or dicts of tensors."""

    def validation(self, first: int, count: int) -> Any | None:
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
            begin = int(uniform(self.seed, 1, np.array([epoch]))[0] * len(stream))
            starts[here] = begin + self.order(n, epoch)[places[here]] * self.width
        found: NDArray[np.int64] = stream[(starts[:, None] + np.arange(self.width + more)) % len(stream)].astype(
            np.int64
        )
        return found

    def validation(self, first: int, count: int, more: int) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """Numbers and windows of held-out examples, which lie side by side and are visited in an order of chance."""
        stream = self.ids.validation
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

    def validation(self, first: int, count: int) -> Batch | None:
        """Held-out examples."""
        found = self.windows.validation(first, count, 1)
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
        Of an id to be chosen; special ones never are. In each row at least one is, or one word.
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
            raise ValueError("the tokenizer has no mask: train a 'wordpiece' or 'wordlevel' one")
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

    def validation(self, first: int, count: int) -> Batch | None:
        """Held-out examples: the same ids hidden each time."""
        found = self.windows.validation(first, count, 0)
        return None if found is None else self._batch(found[1], found[0], 3)

    def _batch(self, rows: NDArray[np.int64], numbers: NDArray[np.int64], stream: int) -> Batch:
        places = np.arange(rows.shape[1])
        key = numbers[:, None] * self.length + places  # of each id, among all there will ever be
        chance, action, piece = (uniform(self.windows.seed, 8 * i + stream, key) for i in (1, 2, 3))
        special = self._special[rows]
        if self.whole_words:
            begins = ~self._continues[rows]
            begins[:, 0] = True
            # Every piece has the chance of its word's first one, or of the special one before it.
            chance = np.take_along_axis(chance, np.maximum.accumulate(np.where(begins, places, 0), axis=1), axis=1)
        # At least one of each row, as in BERT: in a few short rows chance may choose none at all for many steps.
        least = np.where(special, 2.0, chance).min(axis=1, keepdims=True)
        chosen = ((chance < self.probability) | (chance == least)) & ~special
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


# ----------------------------------------------------------------------------------------------------------- training
