"""A list of rows of which only the visible ones are drawn, so that a thousand of them cost what forty do."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual

CURSOR = "› "
"""In front of the row that the cursor stands on; colours only repeat it."""


class Row:
    """One entry of a list."""

    def __init__(self, key: str, *, can_stand: bool = True) -> None:
        self.key = key
        """By which it is found again when the list is filled anew."""
        self.can_stand = can_stand
        """Whether the cursor may stand on it."""

    def height(self, width: int) -> int:
        """How many lines it takes."""
        return 1

    def line(self, width: int, at: int) -> Content | Strip:
        """One of its lines, the first is 0; what is longer than `width` cells is cut."""
        raise NotImplementedError

    def words(self) -> str:
        """What a search looks in."""
        return ""


class TextRow(Row):
    """A row of one line."""

    def __init__(
        self, key: str, draw: Callable[[int], Content], *, words: str | None = None, can_stand: bool = True
    ) -> None:
        super().__init__(key, can_stand=can_stand)
        self._draw = draw
        self._words = words or ""

    def line(self, width: int, at: int) -> Content:
        return self._draw(width)

    def words(self) -> str:
        return self._words


class RowList(ScrollView, can_focus=True):
    """Rows with a cursor that keeps its row when the list is filled anew."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"rows--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "down", "Down", show=False),
        Binding("up,k", "up", "Up", show=False),
        Binding("pagedown,space", "page(1)", "A page down", show=False),
        Binding("pageup", "page(-1)", "A page up", show=False),
        Binding("home,g", "first", "First", show=False),
        Binding("end,G", "last", "Last", show=False),
        Binding("enter", "choose", "Select", key_display="Enter"),
    ]
    DEFAULT_CSS = """
    RowList {
        height: 1fr;
        overflow-x: hidden;
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
        & > .rows--cursor {
            text-style: $block-cursor-blurred-text-style;
        }
        &:focus > .rows--cursor {
            text-style: $block-cursor-text-style;
        }
    }
    """

    class Moved(Message):
        """The cursor stands on another row."""

        def __init__(self, row_list: "RowList", row: Row | None) -> None:
            super().__init__()
            self.row_list = row_list
            self.row = row

        @property
        def control(self) -> "RowList":
            return self.row_list

    class Chosen(Message):
        """A person wants this row."""

        def __init__(self, row_list: "RowList", row: Row) -> None:
            super().__init__()
            self.row_list = row_list
            self.row = row

        @property
        def control(self) -> "RowList":
            return self.row_list

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: Sequence[Row] = ()
        self._cursor: int | None = None
        self._ends: list[int] = []
        """The line behind the last line of each row."""
        self._inner = 1
        """The width of the rows when they were measured."""

    @property
    def rows(self) -> Sequence[Row]:
        return self._rows

    @property
    def row(self) -> Row | None:
        """The row that the cursor stands on."""
        return None if self._cursor is None else self._rows[self._cursor]

    def fill(self, rows: Sequence[Row], *, key: str | None = None) -> None:
        """Show these rows; the cursor goes to the row `key`, else it stays on its row, else near its place."""
        before = self.row
        wanted = key or (before.key if before else None)
        near = self._cursor or 0
        shift = self.scroll_offset.y - self._top(near) if before else 0
        self._rows = rows
        self._measure()
        places = {row.key: at for at, row in enumerate(rows)} if wanted is not None else {}
        self._cursor = self._standing(places.get(wanted or "", min(near, len(rows) - 1)))
        if before is not None and self.row is not None and self.row.key == before.key:
            # What is above may have grown: the row stays where it is on the screen.
            self.scroll_to(y=max(0, self._top(self._cursor or 0) + shift), animate=False, force=True, immediate=True)
        else:
            self._show_cursor()
        self.refresh()
        if self.row is not before:
            self.post_message(self.Moved(self, self.row))

    def remeasure(self) -> None:
        """Some rows have another height than before."""
        self._measure()
        self._show_cursor()
        self.refresh()

    def move_to(self, key: str) -> None:
        """Put the cursor on the row of that key, if there is one."""
        at = next((at for at, row in enumerate(self._rows) if row.key == key), None)
        if at is not None:
            self._move(at)

    def render_line(self, y: int) -> Strip:
        width, line = self.scrollable_content_region.width, self.scroll_offset.y + y
        if not self.is_running:
            # Removed, it may be drawn once more before the next layout, when its styles are gone already.
            return Strip.blank(width)
        at = bisect_right(self._ends, line)
        if at >= len(self._rows) or width <= len(CURSOR):
            return Strip.blank(width, self.rich_style)
        row, is_cursor = self._rows[at], at == self._cursor
        style = self.visual_style
        first = line == self._top(at)
        # At the width that its height was asked for: the list may be drawn before it hears of its new size.
        drawn = row.line(self._inner, line - self._top(at))
        gutter = Content(CURSOR if is_cursor and first else " " * len(CURSOR))
        strip = Strip.join((self._strip(gutter, len(CURSOR), style), self._strip(drawn, width - len(CURSOR), style)))
        if is_cursor and row.height(self._inner) == 1:
            strip = self._under_cursor(strip)
        return strip.apply_meta({"row": at})

    def action_down(self) -> None:
        self._step(1)

    def action_up(self) -> None:
        self._step(-1)

    def action_page(self, direction: int) -> None:
        if self._cursor is None:
            return
        page = max(1, self.scrollable_content_region.height - 1)
        if self.row is not None and self._is_cut(direction):
            self.scroll_relative(y=direction * page, animate=False, force=True)
            return
        line = min(max(0, self._top(self._cursor) + direction * page), self._ends[-1] - 1)
        target = bisect_right(self._ends, line)
        self._move(self._standing(target if target != self._cursor else target + direction, direction))

    def action_first(self) -> None:
        self._move(self._standing(0, 1))
        self.scroll_home(animate=False, force=True, immediate=True)

    def action_last(self) -> None:
        self._move(self._standing(len(self._rows) - 1, -1))
        self.scroll_end(animate=False, force=True, immediate=True)

    def action_choose(self) -> None:
        if self.row is not None:
            self.post_message(self.Chosen(self, self.row))

    def on_resize(self) -> None:
        self._measure()
        self._show_cursor()

    def on_click(self, event: events.Click) -> None:
        at = event.style.meta.get("row")
        if isinstance(at, int) and at < len(self._rows) and self._rows[at].can_stand:
            self._move(at)
            self.action_choose()

    def _strip(self, drawn: Content | Strip, width: int, style: Style) -> Strip:
        if isinstance(drawn, Strip):
            background = RichStyle(bgcolor=style.rich_style.bgcolor)
            return drawn.adjust_cell_length(width).apply_style(background)
        strips = Visual.to_strips(self, drawn.truncate(width, ellipsis=True), width, 1, style, pad=True)
        return strips[0] if strips else Strip.blank(width, style.rich_style)

    def _under_cursor(self, strip: Strip) -> Strip:
        # `get_visual_style` forgets `reverse`, and the padding says that it is not reversed.
        look = self.get_component_styles("rows--cursor").text_style
        if look.reverse:
            look += RichStyle(color="default")  # one bar, not a bar of patches
        return Strip([Segment(part.text, (part.style or look) + look) for part in strip], strip.cell_length)

    def _measure(self) -> None:
        width = self.scrollable_content_region.width
        self._inner = max(1, width - len(CURSOR))
        self._ends = list(accumulate(row.height(self._inner) for row in self._rows))
        self.virtual_size = Size(width, self._ends[-1] if self._ends else 0)

    def _top(self, at: int) -> int:
        return self._ends[at - 1] if 0 < at <= len(self._ends) else 0

    def _standing(self, at: int, direction: int = 1) -> int | None:
        """The row nearest to `at` that the cursor may stand on, first looked for in the direction."""
        for places in (range(at, len(self._rows) if direction > 0 else -1, direction), range(at, -1, -1)):
            for place in places:
                if 0 <= place < len(self._rows) and self._rows[place].can_stand:
                    return place
        return None

    def _step(self, direction: int) -> None:
        """To the next row; within a row that is higher than the list, first through its lines."""
        if self._cursor is None:
            return
        if self._is_cut(direction):
            self.scroll_relative(y=direction, animate=False, force=True)
            return
        at = self._cursor + direction
        while 0 <= at < len(self._rows):
            if self._rows[at].can_stand:
                self._move(at)
                return
            at += direction
        # Lines that only belong to the picture may lie beyond the last row.
        self.scroll_relative(y=direction, animate=False, force=True)

    def _is_cut(self, direction: int) -> bool:
        """Whether the row of the cursor goes on outside of the list."""
        at, top = self._cursor or 0, self.scroll_offset.y
        if direction > 0:
            return self._ends[at] > top + self.scrollable_content_region.height
        return self._top(at) < top

    def _move(self, at: int | None) -> None:
        if at is None or at == self._cursor:
            return
        self._cursor = at
        self._show_cursor()
        self.refresh()
        self.post_message(self.Moved(self, self.row))

    def _show_cursor(self) -> None:
        if self._cursor is None or not self.is_mounted:
            return
        top, height = self._top(self._cursor), self.scrollable_content_region.height
        shown = min(self._ends[self._cursor] - top, max(1, height))
        region = Region(0, top, self.scrollable_content_region.width, shown)
        self.scroll_to_region(region, animate=False, force=True, immediate=True)
