"""Cells of rows under each other, as many as fit."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.content import Content
from textual.widget import Widget

NARROW = 60
"""Lists of fewer cells have to do with less."""
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """One column; exactly one of a table has no width and takes what is left."""

    title: str
    width: int | None = None
    """In cells."""
    narrow_width: int | None = None
    """In lists of fewer than 60 cells, if it is another one there."""
    from_width: int = 0
    """It is left out of lists that are narrower than this."""
    is_right: bool = False


class Columns:
    """The columns of a list at every width of it."""

    def __init__(self, *columns: Column) -> None:
        self._columns = columns
        self._fitted: dict[int, list[tuple[int, Column, int]]] = {}

    def heading(self, width: int) -> Content:
        """The titles."""
        titles = [column.title if (_width(column, width) or 9) > 1 else "" for column in self._columns]
        return self.line(width, titles)

    def line(self, width: int, cells: Sequence[Content | str]) -> Content:
        """A row: one cell for each column, those that do not fit included."""
        return Content(_GAP).join(
            _fitting(cells[at], cell_width, is_right=column.is_right) for at, column, cell_width in self._fit(width)
        )

    def _fit(self, width: int) -> list[tuple[int, Column, int]]:
        """The columns that are shown, with their place among all and their width."""
        if width not in self._fitted:
            shown = [(at, column) for at, column in enumerate(self._columns) if width >= column.from_width]
            widths = [_width(column, width) for _, column in shown]
            rest = max(1, width - sum(filter(None, widths)) - len(_GAP) * (len(shown) - 1))
            fitted = zip(shown, widths, strict=True)
            self._fitted[width] = [(at, column, rest if own is None else own) for (at, column), own in fitted]
        return self._fitted[width]


class Heading(Widget):
    """The titles of the columns of the list below it."""

    DEFAULT_CSS = """
    Heading {
        height: 1;
        padding: 0 1 0 2;
        text-style: dim;
    }
    """

    def __init__(self, columns: Columns) -> None:
        super().__init__()
        self.columns = columns

    def render(self) -> Content:
        return self.columns.heading(self.content_size.width)


def _width(column: Column, width: int) -> int | None:
    return column.width if width >= NARROW or column.narrow_width is None else column.narrow_width


def _fitting(cell: Content | str, width: int, *, is_right: bool) -> Content:
    content = Content(cell) if isinstance(cell, str) else cell
    missing = width - content.cell_length
    if is_right and missing > 0:
        return content.pad_left(missing)
    return content.truncate(width, ellipsis=True, pad=True)
