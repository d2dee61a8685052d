"""Tables for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def html_table(caption: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """An HTML table of rows of cells under the names of their columns. All text is escaped."""

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(cells, "td") for cells in rows)
    return f"<table><caption>{html.escape(caption)}</caption>{line(names, 'th')}{body}</table>"
