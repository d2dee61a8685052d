"""Shared by all classifiers: scikit-learn's contract, scores, weights, the validation split, likely labels."""

from __future__ import annotations

import abc
import collections
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from firth.checks import real_number, refuse_masked, whole_number
from firth.models.base import Learner
from firth.options import option

if TYPE_CHECKING:
    from typing_extensions import Self

    from firth.models.labeled_texts import Labels

Weights = str | Mapping[Any, float] | None

_MOST_WEIGHT = 1_000_000


@dataclasses.dataclass(frozen=True)
class LabelScore:
    """Predictions of one label: for `predicted` texts, of which `right` have it; `texts` have it in all."""

    label: Any
    texts: int
    predicted: int
    right: int

    @property
    def precision(self) -> float:
        """The share of predictions that are right; NaN without predictions."""
        return ratio(self.right, self.predicted)

    @property
    def recall(self) -> float:
        """The share of the texts with this label for which it was predicted; NaN without such texts."""
        return ratio(self.right, self.texts)

    @property
    def f1(self) -> float:
        """Harmonic mean of both: 2 right / (predicted + texts)."""
        return ratio(2 * self.right, self.predicted + self.texts)


@dataclasses.dataclass(frozen=True)
class ClassifierTest:
    """Precision and recall at k, of the `texts` that have a label.

    `precision` is the share of predicted labels that are right, `recall` the share of the texts' labels that were
    predicted, labels that the classifier does not know included. `labels` has scores in the order of `classes_`.
    """

    texts: int
    precision: float
    recall: float
    labels: list[LabelScore]

    @classmethod
    def of(cls, found: Iterable[NDArray[np.int64]], gold: Labels, names: list[Any], order: list[int]) -> ClassifierTest:
        """From the predicted labels of each text, numbers of `names`, and its own labels; `order` sorts the names."""
        known, n_gold = gold.known(names), np.diff(gold.begins)
        predicted, right = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
        for text, labels in enumerate(found):
            if n_gold[text]:
                predicted[labels] += 1
                own = known.numbers[known.begins[text] : known.begins[text + 1]]
                right[np.intersect1d(labels, own)] += 1
        have = np.bincount(known.numbers, minlength=len(names))
        return cls(
            texts=int((n_gold > 0).sum()),
            precision=ratio(int(right.sum()), int(predicted.sum())),
            recall=ratio(int(right.sum()), len(gold.numbers)),
            labels=[LabelScore(names[i], int(have[i]), int(predicted[i]), int(right[i])) for i in order],
        )


def ratio(part: int, whole: int) -> float:
    """`part` / `whole`; NaN if `whole` is 0."""
    return part / whole if whole else math.nan


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class Classifier(Learner):
    """A learner of labels, and an estimator of scikit-learn, which need not be installed."""

    # The type for scikit-learn. A "classifier" has one label or a set of labels for each text.
    estimator_type: ClassVar[str | None] = "classifier"

    class_weight: Weights = option(
        None, checked=False, help='Weights of labels: "balanced" gives all labels the same weight.'
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        weight: Any = self.class_weight
        if isinstance(weight, Mapping):
            for label, value in weight.items():
                if real_number(f"class_weight[{label!r}]", value, low=0) > _MOST_WEIGHT:
                    raise ValueError(f"class_weight[{label!r}] must be at most {_MOST_WEIGHT:,}, not {value}")
        elif weight is not None and weight != "balanced":
            kind = ValueError if isinstance(weight, str) else TypeError
            raise kind(f"class_weight must be None, 'balanced' or a dict from labels to numbers, not {weight!r}")

    @property
    @abc.abstractmethod
    def classes_(self) -> NDArray[Any]:
        """The labels, sorted; AttributeError before `fit`."""

    def _size(self) -> str:
        return f"{len(self.classes_)} labels" if self._is_fitted() else ""

    def _is_fitted(self) -> bool:
        raise NotImplementedError

    def __sklearn_is_fitted__(self) -> bool:
        return self._is_fitted()

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type=self.estimator_type,
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags() if self.estimator_type == "classifier" else None,
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )

    def _label_weights(self, labels: Sequence[Any], counts: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """The weight of each label under `class_weight`, given the counts of labels; None if all are 1."""
        if self.class_weight is None:
            return None
        if isinstance(self.class_weight, Mapping):
            known = set(labels)
            if unknown := [label for label in self.class_weight if label not in known]:
                raise ValueError(f"class_weight names {unknown[0]!r}, which is not a label of the texts")
            return np.array([self.class_weight.get(label, 1.0) for label in labels], np.float32)
        balanced: NDArray[np.float32] = (counts.sum() / (len(counts) * np.maximum(counts, 1))).astype(np.float32)
        return balanced

    def _description(self) -> dict[str, Any]:
        described = super()._description()
        if isinstance(self.class_weight, Mapping):  # keys of JSON are strings
            weight = {"labels": list(self.class_weight), "weights": list(self.class_weight.values())}
            described["options"] = {**described["options"], "class_weight": weight}
        return described

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Self:
        weight = options.get("class_weight")
        if isinstance(weight, dict):
            options = {**options, "class_weight": dict(zip(weight["labels"], weight["weights"], strict=True))}
        return cls(**options)


def text_weights(name: str, values: Any, n: int) -> NDArray[np.float32] | None:
    """`values` as one weight for each of `n` texts; None if no values are given."""
    if values is None:
        return None
    refuse_masked(name, values)
    given = np.asarray(values)
    if given.dtype.kind not in "iufb" or given.shape != (n,):
        raise ValueError(f"{name} must be {n} numbers, one a text, not {given.dtype} of shape {given.shape}")
    weights = given.astype(np.float32)
    wrong = np.flatnonzero(~((weights >= 0) & (weights <= _MOST_WEIGHT)))
    if len(wrong):
        raise ValueError(f"{name}[{wrong[0]}] is {given[wrong[0]]}: weights must lie in 0 .. {_MOST_WEIGHT:,}")
    if not weights.any():
        raise ValueError(f"{name} are all 0")
    return weights


def split(
    n: int,
    share: Any,
    seed: int | Sequence[int],
    labels: Sequence[Iterable[Any]] | None = None,
    *,
    required: bool = False,
    both: bool = False,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split `n` texts at random into a training and a validation split: their numbers, ascending.

    With `labels`, those of each text, the only text with a label is never part of the validation split. With `both`,
    each split of two or more texts has at least one. TypeError or ValueError if the share is not in [0, 1), or if it
    is `required` and one of the splits is empty.
    """
    share = real_number("validation", share, low=0)
    if share >= 1:
        raise ValueError(f"validation must be below 1, a share of the texts, not {share}")
    order = np.random.default_rng(seed).permutation(n)
    wanted = round(share * n)
    if both and share and n > 1:
        wanted = min(max(wanted, 1), n - 1)
    apart = np.zeros(n, bool)
    if labels is None:
        apart[order[:wanted]] = True
    else:
        own = [set(one) for one in labels]
        left = collections.Counter(label for one in own for label in one)
        for i in order.tolist():
            if wanted and all(left[label] > 1 for label in own[i]):
                apart[i], wanted = True, wanted - 1
                left.subtract(own[i])
    training, validation = np.flatnonzero(~apart), np.flatnonzero(apart)
    if share and required and not (len(training) and len(validation)):
        raise ValueError(
            f"validation={share} of {n} texts leaves {len(training)} for training and {len(validation)} for "
            "validation: give another share, texts with their labels, or 0"
        )
    return training, validation


def label_limit(k: object) -> int:
    """`k`, how many labels to predict at most, as an int; -1 stands for all."""
    return -1 if isinstance(k, int | np.integer) and k == -1 else whole_number("k", k, low=1)


def likeliest(
    chances: NDArray[Any], k: int, threshold: float
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]:
    """For each row the columns of its up to `k` highest values of at least `threshold`, and these, the highest first.

    Among equal values the earlier column comes first; a `k` of -1 stands for all columns.
    """
    columns = chances.shape[1]
    most = columns if k == -1 else min(k, columns)
    if most < columns:
        some = np.argpartition(-chances, most - 1, axis=1)[:, :most]
        some.sort(axis=1)
    else:
        some = np.broadcast_to(np.arange(columns), chances.shape)
    values = np.take_along_axis(chances, some, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    some, values = np.take_along_axis(some, order, axis=1), np.take_along_axis(values, order, axis=1)
    for row, best, n in zip(some, values, (values >= threshold).sum(axis=1).tolist(), strict=True):
        yield row[:n], best[:n]


def top_labels(
    names: NDArray[Any], found: Iterable[tuple[NDArray[np.int64], NDArray[np.floating[Any]]]]
) -> tuple[list[list[Any]], list[list[float]]]:
    """The labels of each text and their probabilities, from what `likeliest` returns."""
    labels, probabilities = [], []
    for columns, values in found:
        labels.append(names[columns].tolist())
        probabilities.append(values.tolist())
    return labels, probabilities
