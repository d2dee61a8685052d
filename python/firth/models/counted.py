"""Models of co-occurrence counts."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from numpy.typing import NDArray

from firth.corpus import Corpus, Vocabulary
from firth.counts import Cooccurrences, Side, Weighting, count_cooccurrences
from firth.models.base import Model
from firth.options import option, threads_option


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class CountsModel(Model):
    """A model of counts, given to `fit` or counted in a corpus."""

    learns_from: ClassVar[tuple[type, ...]] = (Corpus, Cooccurrences)

    window: int = option(10, low=1, high=2**20, help="Context words on either side of a word, at most.")
    side: Side = option("both", help="Count context words on both sides, or only those before (left) or after (right).")
    weighting: Weighting = option(
        "harmonic", help="Weight of a context word at distance d: 1; or 1/d; or (window - d + 1) / window."
    )
    threads: int | None = threads_option()

    def _counted(self, data: Corpus | Cooccurrences, progress: bool) -> Cooccurrences:
        if isinstance(data, Cooccurrences):
            return data
        options = self._some("window", "side", "weighting", "threads")
        return count_cooccurrences(data, **options, progress=progress)


def known_counts(vocabulary: Vocabulary) -> dict[str, NDArray[Any]]:
    """The tensor of the words' counts, if they are known."""
    return {"counts": vocabulary.counts.copy()} if vocabulary.counts.any() else {}
