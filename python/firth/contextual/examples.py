"""What fine-tuning reads: sentences as tokens, the units that have labels, and batches of them."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from firth.checks import column
from firth.contextual.encoding import pooled
from firth.contextual.transformer import Transformer

Pooling = Literal["mean", "max", "cls", "first", "last", "pooler"]
UNKNOWN = -1  # a label that is not in the training texts: every prediction for it is wrong


@dataclasses.dataclass(frozen=True)
class Example:
    """A sentence, the tokens of each of its units (the sentence itself, or its words), and the units' labels.

    A target is the number of a class or UNKNOWN, or a tuple of these where a text may have several labels.
    """

    ids: list[int]
    places: list[int]
    units: list[int]  # the unit to which each of the places belongs
    targets: list[Any]
    missed: int = 0  # words with a label that have no token
    types: list[int] = dataclasses.field(default_factory=list)  # of the tokens; empty: all 0
    weights: list[float] = dataclasses.field(default_factory=list)  # of the units; empty: all 1

    @property
    def labels(self) -> list[int]:
        """All classes of all units."""
        return names_of(self.targets)

    def weighted(self, factors: Sequence[float]) -> Example:
        """The example with each unit's weight multiplied by its factor."""
        own = self.weights or [1.0] * len(self.targets)
        return dataclasses.replace(self, weights=[a * b for a, b in zip(own, factors, strict=True)])


class Batch(NamedTuple):
    """Examples as tensors; places index the padded tokens of all sentences, units the units of all sentences."""

    ids: Tensor
    lengths: Tensor | None
    places: Tensor
    units: Tensor
    targets: Tensor
    types: Tensor | None
    weights: Tensor

    @classmethod
    def of(cls, examples: Sequence[Example], padding: int, classes: int | None = None) -> Batch:
        """The examples; `classes` is the number of classes where a text may have several of them."""
        time = max(1, *(len(one.ids) for one in examples))  # an empty text alone is padded
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
            targets_of(examples, classes),
            types if bool(types.any()) else None,
            weights_of(examples),
        )

    def features(self, transformer: Transformer, pooling: Pooling) -> Tensor:
        """One vector for each unit, (units, dim)."""
        states = transformer(self.ids, lengths=self.lengths, token_types=self.types).float().flatten(0, 1)[self.places]
        return pooled(states, self.units, len(self.targets), "first" if pooling == "pooler" else pooling)


@dataclasses.dataclass(eq=False)
class Batches:
    """Examples in a random order, another one in each epoch; each step's examples are divided over the processes."""

    examples: list[Example]
    padding: int
    seed: int
    processes: int = 1
    classes: int | None = None
    set_apart: Sequence[Example] = ()

    def __post_init__(self) -> None:
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    @property
    def fingerprint(self) -> list[int]:
        """What distinguishes these examples from others, the validation split included."""
        checksum = 0
        for one in (*self.examples, *self.set_apart):
            checksum = zlib.crc32(repr(dataclasses.astuple(one)).encode(), checksum)
        return [len(self.examples), len(self.set_apart), self.seed, checksum]

    def __call__(self, first: int, count: int) -> Batch:
        """A step's examples. An epoch ends with its last example: its last step has fewer."""
        n, together = len(self.examples), count * self.processes
        step, process = divmod(first // count, self.processes)
        epoch, step = divmod(step, -(-n // together))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(n)
        chosen = self._order[step * together : (step + 1) * together]
        # With fewer examples than processes, some processes get the same one: none may be without.
        own = chosen[process :: self.processes] if process < len(chosen) else chosen[:1]
        return Batch.of([self.examples[i] for i in own], self.padding, self.classes)

    def validation(self, first: int, count: int) -> None:
        """None: `FineTuned._measure` evaluates the validation split, and counts correct predictions too."""


def weights_of(examples: Iterable[Example]) -> Tensor:
    """The units' weights, (units,)."""
    return torch.tensor([weight for one in examples for weight in one.weights or [1.0] * len(one.targets)])


def targets_of(examples: Iterable[Example], classes: int | None) -> Tensor:
    """The units' classes, (units,); where a unit may have several, 1 for each that it has, (units, classes)."""
    flat = [target for one in examples for target in one.targets]
    if classes is None:
        return torch.tensor(flat, dtype=torch.int64)
    several = torch.zeros(len(flat), classes)
    for i, own in enumerate(flat):
        several[i, [label for label in own if label != UNKNOWN]] = 1
    return several


def labels_of_words(name: str, texts: Sequence[Sequence[str]], labels: Any) -> list[list[Any]]:
    """The labels of the words of texts; ValueError if there is not one for each word."""
    rows = [list(column(f"labels[{i}]", row)) for i, row in enumerate(column("labels", labels))]
    if len(rows) != len(texts):
        raise ValueError(f"{len(texts)} {name} and labels for {len(rows)}")
    for i, (words, row) in enumerate(zip(texts, rows, strict=True)):
        if len(words) != len(row):
            raise ValueError(f"{name}[{i}] has {len(words)} words and {len(row)} labels")
    return rows


def names_of(row: Iterable[Any]) -> list[Any]:
    """The labels of a sentence's units: of words, of the text, or the several that the text has."""
    return [name for one in row if one is not None for name in (one if isinstance(one, tuple) else (one,))]


def numbered(rows: Sequence[Sequence[Any]], classes: Sequence[Any]) -> list[list[Any]]:
    """Labels as numbers of the classes."""
    numbers: dict[Any, int | None] = {None: None, **{name: i for i, name in enumerate(classes)}}

    def number(name: Any) -> Any:
        return tuple(map(number, name)) if isinstance(name, tuple) else numbers.get(name, UNKNOWN)

    return [list(map(number, row)) for row in rows]
