"""Models that are computed at once, without epochs."""

from __future__ import annotations

import abc
import dataclasses
import typing
from typing import Any

from numpy.typing import NDArray

from firth.models.base import Model, one_at_a_time

if typing.TYPE_CHECKING:
    from typing_extensions import Self

Tensors = dict[str, NDArray[Any]]


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class DirectModel(Model):
    """A model that is computed at once. A subclass computes the tensors."""

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
