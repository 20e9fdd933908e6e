"""The graph of a job's runs as lines of a list."""

from collections.abc import Sequence

from textual.content import Content

from ....core.graph import Mark, Row, lane_texts
from ...plain import one_line

_MOST_LANES = 3
"""The lanes take no more than one part in so many of a line."""
_LEAST_TEXT = 16
"""Where less is left for what a run does, the texts do not begin below each other."""
_COLOURS: dict[Mark, str] = {"⎇": "$primary", "✓": "$success", "✗": "$error", "⏸": "$warning", "◦": "$primary"}


class GraphDrawing:
    """Rows of a graph at every width of the list."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self._heads = [Content(one_line(row.head)) for row in rows]
        named = (head.cell_length for row, head in zip(rows, self._heads, strict=True) if not row.origin)
        self._widest = max(named, default=0)
        self._lanes: dict[int, list[str]] = {}

    def line(self, at: int, width: int) -> Content:
        """One row: its lanes, whose it is, what became of it."""
        if width not in self._lanes:
            self._lanes = {width: lane_texts(self.rows, width // _MOST_LANES)}
        row, lanes = self.rows[at], self._lanes[width][at]
        if row.mark is None:
            return Content.styled(lanes, "dim")
        before, mark, behind = lanes.partition(row.mark)
        drawn = Content.assemble((before, "dim"), (mark, _COLOURS[row.mark]), (behind, "dim"), " ")
        if row.origin:
            return Content.assemble(drawn, (one_line(row.origin), "dim"))
        head = self._heads[at]
        if width - drawn.cell_length - self._widest - 2 >= _LEAST_TEXT:
            head = head.pad_right(self._widest - head.cell_length)
        return Content.assemble(drawn, head.stylize("bold"), "  ", (one_line(row.text), "dim"))
