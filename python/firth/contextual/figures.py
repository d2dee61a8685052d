"""Attention weights with their tokens, and pictures of them."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from firth.checks import one_of, whole_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES_PER_TOKEN = 0.22
_FAINTEST = 0.01  # weights below are not drawn as lines


@dataclasses.dataclass(frozen=True, eq=False)
class AttentionMaps:
    """Attention weights of one sentence.

    `weights` has for each layer, counted from 0, float32 (heads, tokens, tokens): row i holds the weights that token i
    gives to all tokens; their sum is one. `heads` are the numbers of these heads.
    """

    tokens: list[str]
    weights: dict[int, NDArray[np.float32]]
    heads: list[int]

    def __getitem__(self, place: tuple[int, int]) -> NDArray[np.float32]:
        """Weights (tokens, tokens) of one head, ``maps[layer, head]``; KeyError if the maps do not hold it."""
        try:
            layer, head = (operator.index(one) for one in place)
        except (TypeError, ValueError):
            raise TypeError(
                f"maps[layer, head] takes two whole numbers, not {place!r}; weights[layer] has all heads"
            ) from None
        if layer not in self.weights:
            raise KeyError(f"layer {layer} is not among {sorted(self.weights)}")
        if head not in self.heads:
            raise KeyError(f"head {head} is not among {self.heads}")
        weights: NDArray[np.float32] = self.weights[layer][self.heads.index(head)]
        return weights

    def __repr__(self) -> str:
        return f"<AttentionMaps of {len(self.tokens)} tokens, layers {sorted(self.weights)}, heads {self.heads}>"

    def figure(
        self,
        layer: int | None = None,
        head: int | None = None,
        *,
        kind: Literal["grid", "lines"] = "grid",
        color: str = "Blues",
    ) -> Figure:
        """Draw the weights, with the tokens on both sides, as a figure for ``.savefig("map.png")`` or a notebook.

        Parameters
        ----------
        layer, head
            Which ones; None: a row of pictures for each layer, a column for each head.
        kind
            "grid": a square for each pair, darker for a greater weight, with queries on the left and keys at the top.
            "lines": queries on the left, joined to keys on the right.
        color
            A color map of matplotlib.

        Raises
        ------
        ImportError, KeyError
            Without matplotlib; if the maps do not hold the layer or head.
        """
        try:
            from matplotlib import colormaps
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("pictures need matplotlib: pip install 'firth[plots]'") from None
        one_of("kind", kind, ("grid", "lines"))
        one_of("color", color, list(colormaps))
        layers = sorted(self.weights) if layer is None else [whole_number("layer", layer)]
        heads = self.heads if head is None else [whole_number("head", head)]
        squares = [[self[one, other] for other in heads] for one in layers]
        side = max(1.6, _INCHES_PER_TOKEN * len(self.tokens))
        # Only the outer pictures have labels, which take room there.
        labels = 0.09 * max(map(len, self.tokens)) + 0.3
        figure = Figure(
            figsize=((side + 0.3) * len(heads) + 2 * labels, (side + 0.4) * len(layers) + labels), layout="constrained"
        )
        axes: NDArray[Any] = figure.subplots(len(layers), len(heads), squeeze=False)
        for i, row in enumerate(squares):
            for j, square in enumerate(row):
                one: Axes = axes[i, j]
                if kind == "grid":
                    _draw_grid(one, square, self.tokens, color, left=j == 0, above=i == 0)
                else:
                    _draw_lines(one, square, self.tokens, colormaps[color], left=j == 0, right=j == len(heads) - 1)
                one.set_xlabel(f"layer {layers[i]}, head {heads[j]}", fontsize=8)
        return figure


def _draw_grid(
    axes: Axes, weights: NDArray[np.float32], tokens: Sequence[str], color: str, *, left: bool, above: bool
) -> None:
    axes.imshow(weights, cmap=color, vmin=0, vmax=1, aspect="equal")
    places = range(len(tokens))
    axes.set_yticks(places, _escaped(tokens) if left else [""] * len(tokens), fontsize=7)
    axes.set_xticks(places, _escaped(tokens) if above else [""] * len(tokens), fontsize=7, rotation=90)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)


def _draw_lines(
    axes: Axes, weights: NDArray[np.float32], tokens: Sequence[str], color: Any, *, left: bool, right: bool
) -> None:
    from matplotlib.collections import LineCollection

    queries, keys = np.nonzero(weights >= _FAINTEST)
    shares = weights[queries, keys]
    ends = np.stack([np.stack([np.zeros(len(shares)), queries], 1), np.stack([np.ones(len(shares)), keys], 1)], 1)
    axes.add_collection(LineCollection(list(ends), colors=[(*color(0.9)[:3], float(share)) for share in shares]))
    axes.set_xlim(0, 1)
    axes.set_ylim(len(tokens) - 0.5, -0.5)
    axes.set_xticks([])
    places = range(len(tokens))
    axes.set_yticks(places, _escaped(tokens) if left else [""] * len(tokens), fontsize=7)
    axes.tick_params(length=0)
    if right:
        other = axes.twinx()
        other.set_ylim(len(tokens) - 0.5, -0.5)
        other.set_yticks(places, _escaped(tokens), fontsize=7)
        other.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _escaped(tokens: Sequence[str]) -> list[str]:
    """Tokens as matplotlib shows them unchanged: it takes text between dollar signs for formulas."""
    return [token.replace("$", r"\$") for token in tokens]
