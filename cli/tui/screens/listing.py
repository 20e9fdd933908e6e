"""What the screens with a list have in common: a title, a search, the rows, what the row of the cursor says."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, Static

from ....core.failures import PerstackError
from ...plain import one_line
from ..widgets.columns import Columns, Heading
from ..widgets.keys import KeyBar
from ..widgets.rows import Row, RowList
from ..widgets.search import SearchBox
from .base import Page, problem_text

_MARGIN = 6
"""Cells that a wrapped line may lose at its end, and the padding."""


class ListPage(Page[None]):
    """A screen with one list."""

    CSS_PATH = "listing.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "back", "Back"),
        Binding("escape", "back", "Back", show=False, key_display="Esc"),
        Binding("q", "leave", "Quit"),
        # First of all keys, so that what is typed or pasted behind it finds the line.
        Binding("slash", "search", "Search", key_display="/", priority=True),
    ]
    COLUMNS: ClassVar[Columns | None] = None
    EMPTY: ClassVar[str] = "Nothing here."
    """What is said where the list has no rows."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: Sequence[Row] = ()
        self._end: Row | None = None
        self._is_loading = False
        self._problem: PerstackError | None = None
        self._doing = ""
        self._found = 0
        """How many rows the search leaves."""

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield SearchBox()
        if self.COLUMNS is not None:
            yield Heading(self.COLUMNS)
        yield RowList()
        yield Static(id="notice", markup=False)
        yield Static(id="details", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.list.focus()

    @property
    def list(self) -> RowList:
        return self.query_one(RowList)

    @property
    def words(self) -> str:
        """What a person searches for."""
        return self.query_one(SearchBox).value

    def entitle(self, *lines: Content) -> None:
        """Set the lines above the list."""
        self.query_one("#title", Static).update(Content("\n").join(lines))

    def show_rows(
        self, rows: Sequence[Row], *, key: str | None = None, is_loading: bool = False, end: Row | None = None
    ) -> None:
        """Fill the list with those of the rows that the search leaves, and `end`; the cursor keeps its row."""
        self._rows, self._is_loading, self._end = rows, is_loading, end
        self._filter(key)

    def show_problem(self, problem: PerstackError | None) -> None:
        """Say why the list is not what it should be; `None` when it is again."""
        self._problem = problem
        self._note()

    def details(self, row: Row | None) -> Content:
        """What is said below the list of the row that the cursor stands on."""
        return Content()

    def detailed(self, facts: Sequence[str], text: str, others: Sequence[str]) -> Content:
        """What matters most, two lines of a text, and what may be cut where there is no room."""
        room = max(20, 2 * (self.size.width - _MARGIN))
        shown = Content(one_line(text)).truncate(room, ellipsis=True)
        return Content("\n").join([_told(facts), shown, _told(others)])

    def choose(self, row: Row) -> None:
        """A person wants this row."""

    def enter(self, doing: str, opening: Callable[[], Awaitable[Screen[Any]]]) -> None:
        """Go to a screen that takes a while to open, and say so; one at a time."""
        if not self._doing:
            self._enter(doing, opening)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "search":
            return not isinstance(self.focused, SearchBox)
        return super().check_action(action, parameters)

    def action_back(self) -> None:
        """Out of the search, else to the screen below."""
        if self.words or self.query_one(SearchBox).display:
            self.action_end_search()
        else:
            self.go_back()

    def action_search(self) -> None:
        box = self.query_one(SearchBox)
        box.display = True
        self.set_focus(box)

    def action_end_search(self) -> None:
        box = self.query_one(SearchBox)
        box.value, box.display = "", False
        self.list.focus()

    async def action_move(self, how: str) -> None:
        """Do with the list what a key says while the search has the focus."""
        if how == "choose":
            # Who comes back finds what was searched for, and keys that are keys again.
            self.list.focus()
        await self.list.run_action(how)

    @on(Input.Changed)
    def _searched(self) -> None:
        self._filter(None)

    @on(RowList.Moved)
    def _moved(self, event: RowList.Moved) -> None:
        self._detail(event.row)

    @on(RowList.Chosen)
    def _chosen(self, event: RowList.Chosen) -> None:
        self.choose(event.row)

    @work(group="enter")
    async def _enter(self, doing: str, opening: Callable[[], Awaitable[Screen[Any]]]) -> None:
        self._doing = doing
        self._note()
        try:
            screen = await opening()
        except PerstackError as error:
            self.app.tell(error)
        else:
            self.app.push_screen(screen)
        finally:
            self._doing = ""
            self._note()

    def _filter(self, key: str | None) -> None:
        words = self.words.casefold().split()
        rows = [row for row in self._rows if _holds(row, words)] if words else self._rows
        self._found = len(rows)
        self.list.fill([*rows, self._end] if self._end is not None else rows, key=key)
        self._detail(self.list.row)
        self._note()

    def _detail(self, row: Row | None) -> None:
        content = self.details(row)
        shown = self.query_one("#details", Static)
        shown.update(content)
        shown.display = bool(content)

    def _note(self) -> None:
        notice = self.query_one("#notice", Static)
        text = self._notice()
        notice.update(Content(text))
        notice.display = bool(text)
        notice.set_class(self._problem is not None, "-problem")

    def _notice(self) -> str:
        if self._doing:
            return self._doing
        if self._problem is not None:
            return problem_text(self._problem)
        if self._is_loading:
            return "reading…"
        if self._found:
            return ""
        return f"Nothing matches “{self.words}”." if self._rows else self.EMPTY


def _holds(row: Row, words: Sequence[str]) -> bool:
    held = row.words().casefold()
    return all(word in held for word in words)


def _told(facts: Sequence[str]) -> Content:
    return Content(" · ".join(map(one_line, facts)))
