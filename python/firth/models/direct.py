"""Models that are computed at once, without epochs: what their `fit` has in common."""

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


@dataclasses.dataclass(kw_only=True, eq=False)
class DirectModel(Model):
    """A model that is computed at once. A subclass computes the tensors; here they become those of the model."""

    @abc.abstractmethod
    def _compute(self, data: Any, *, progress: bool) -> Tensors:
        """All that `fit` keeps, "vectors" among it."""

    @one_at_a_time
    def fit(self, data: Any, *, progress: bool = False) -> Self:
        """Compute the vectors.

        Parameters
        ----------
        data
            A `Corpus`, a file of text or texts (strings, or lists of words); for models of counts also `Cooccurrences`.
            A corpus is made of files and texts with the default options of `Corpus.from_file`, min_count=5 among them.
        progress
            Show a progress bar on stderr, if there is anything to wait for.

        Returns
        -------
        Self
            The model, fitted.

        Raises
        ------
        KeyboardInterrupt
            At Ctrl-C; the model stays as it was.
        TypeError
            If the data are something else.
        ValueError
            If the data do not determine vectors: `vector_size` exceeds a side of the matrix, or the matrix is 0.
        MemoryError
            If the matrices do not fit, naming the bytes.
        """
        data = self._training_data(data, progress=progress)
        self._tensors = self._compute(data, progress=progress)
        self._words, self._view = data.vocabulary.words, None
        return self
