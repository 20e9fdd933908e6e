"""The activity log: what the runs did, newest last, of which only a stretch is mounted at a time."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.layout import DockArrangeResult
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Static

from ....core.view_state import Entry, RunView
from ...plain import one_line

Draw = Callable[[Entry], Widget]
MOST_MOUNTED = 150
"""A layout takes time by the mounted rows, so that ten thousand activities must not cost more than these."""
STRETCH = 40
"""As many are mounted at the end, and as many more when a person comes near the edge of what is mounted."""


class LogScroll(VerticalScroll):
    """The mounted stretch of the log, which moves with the person who reads it, or follows the newest entry."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("home", "first", "First", show=False),
        Binding("end", "tail", "Newest", show=False),
        Binding("j", "row(1)", "Next entry that unfolds", show=False),
        Binding("k", "row(-1)", "Previous entry that unfolds", show=False),
    ]
    DEFAULT_CSS = """
    LogScroll {
        height: 1fr;
        scrollbar-size-vertical: 1;
        scrollbar-gutter: stable;
    }
    """

    class Moved(Message):
        """Another part of the log is shown."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self._draw = draw
        self._entries: Sequence[Entry] = ()
        self._rows: deque[Widget] = deque()
        self._first = 0
        """Which entry the first mounted row shows."""
        self._is_following = True
        self._kept: tuple[Widget, int] | None = None
        """The row at the upper edge and its line: it stays in place when what is above it gets another height."""
        self._moving = asyncio.Lock()

    @property
    def is_following(self) -> bool:
        """Whether the newest entry stays in view."""
        return self._is_following

    @property
    def unseen(self) -> int:
        """How many entries came behind the last mounted one."""
        return len(self._entries) - self._last

    @property
    def mounted_rows(self) -> Sequence[Widget]:
        return tuple(self._rows)

    def on_mount(self) -> None:
        self.anchor()

    async def show(self, entries: Sequence[Entry]) -> None:
        """Show the end of another list of entries, which may grow later."""
        async with self._moving:
            self._entries = entries
            await self._mount_end()

    async def grow(self) -> None:
        """Show what was added to the list, unless a person looks at something else."""
        async with self._moving:
            new = len(self._entries) - self._last
            if not new or not self._is_following:
                return
            if new > STRETCH:
                await self._mount_end()
                return
            with self.app.batch_update():  # pyright: ignore[reportUnknownMemberType]
                await self._add(self._entries[self._last :])
                await self._drop_first(len(self._rows) - MOST_MOUNTED)
            self.call_after_refresh(self._show_place)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_place)

    async def action_first(self) -> None:
        """To the very first entry."""
        async with self._moving:
            self.release_anchor()
            if self._first:
                await self._mount(0, min(STRETCH, len(self._entries)))
            self.scroll_home(animate=False, immediate=True)

    async def action_tail(self) -> None:
        """To the newest entry, and stay with it."""
        async with self._moving:
            if self.unseen:
                await self._mount_end()
            self._follow()

    def action_row(self, direction: int) -> None:
        """Put the focus on the next entry that can be unfolded, from the one that has it or from the upper edge."""
        rows = list(self._rows)
        at = next((number for number, row in enumerate(rows) if row.has_focus), None)
        if at is None:
            seen = [number for number, row in enumerate(rows) if row.virtual_region.bottom > self.scroll_offset.y]
            at = (seen[0] if seen else len(rows)) - (1 if direction > 0 else 0)
        at += direction
        while 0 <= at < len(rows):
            if rows[at].focusable:
                rows[at].focus()
                return
            at += direction
        self.focus()

    def action_page_up(self) -> None:
        self.scroll_page_up(animate=False)

    def action_page_down(self) -> None:
        if not self._is_following:
            self.scroll_page_down(animate=False)

    def action_scroll_down(self) -> None:
        # Beyond the end nothing moves, but the anchor would be let go.
        if not self._is_following:
            super().action_scroll_down()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        if self._is_following:
            event.prevent_default()

    def release_anchor(self) -> None:
        super().release_anchor()
        if self._is_following:
            self._is_following = False
            self.post_message(self.Moved())

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self._look()

    def arrange(self, size: Size, optimal: bool = False) -> DockArrangeResult:
        """Lay out the rows; the one at the upper edge keeps its place within the same picture."""
        arranged = super().arrange(size, optimal)
        if self._kept is not None and not optimal:
            row, line = self._kept
            place = next((place for place in arranged.placements if place.widget is row), None)
            if place is not None and place.region.y != line:
                self._kept = row, place.region.y
                moved = max(0, self.scroll_y + place.region.y - line)
                self.set_reactive(Widget.scroll_y, moved)
                self.scroll_target_y = moved
                self.vertical_scrollbar.position = moved
        return arranged

    @property
    def _last(self) -> int:
        return self._first + len(self._rows)

    def _look(self) -> None:
        """The view moved: by a person, who has let the anchor go then, or with the anchor."""
        if self._moving.locked():
            self._remember()
            return
        at_end = self.scroll_offset.y >= self.max_scroll_y
        was_following = self._is_following
        # Entries may have come since the last look; only a person, who lets the anchor go, stops following.
        self._is_following = was_following or (at_end and not self.unseen)
        self._remember()
        page = self.scrollable_content_region.height
        if self._first and self.scroll_offset.y < page and not self._is_following:
            self.call_next(self._more_above)
        elif self.unseen and not self._is_following and self.max_scroll_y - self.scroll_offset.y < page:
            self.call_next(self._more_below)
        if was_following != self._is_following:
            self.post_message(self.Moved())

    async def _more_above(self) -> None:
        async with self._moving:
            start = max(0, self._first - STRETCH)
            if start == self._first or self._is_following:
                return
            with self.app.batch_update():  # pyright: ignore[reportUnknownMemberType]
                rows = [self._draw(entry) for entry in self._entries[start : self._first]]
                await self.mount_all(rows, before=self._rows[0] if self._rows else None)
                self._rows.extendleft(reversed(rows))
                self._first = start
                await self._drop_last(len(self._rows) - MOST_MOUNTED)
        self.post_message(self.Moved())

    async def _more_below(self) -> None:
        async with self._moving:
            if not self.unseen:
                return
            self.release_anchor()
            with self.app.batch_update():  # pyright: ignore[reportUnknownMemberType]
                await self._add(self._entries[self._last : self._last + STRETCH])
                await self._drop_first(len(self._rows) - MOST_MOUNTED)
        self.post_message(self.Moved())

    async def _mount_end(self) -> None:
        await self._mount(max(0, len(self._entries) - STRETCH), len(self._entries))
        self._follow()

    async def _mount(self, start: int, end: int) -> None:
        with self.app.batch_update():  # pyright: ignore[reportUnknownMemberType]
            await self.remove_children()
            self._rows.clear()
            self._kept = None
            self._first = start
            await self._add(self._entries[start:end])

    async def _add(self, entries: Sequence[Entry]) -> None:
        rows = [self._draw(entry) for entry in entries]
        await self.mount_all(rows)
        self._rows.extend(rows)

    async def _drop_first(self, count: int) -> None:
        gone = [self._rows.popleft() for _ in range(count)]
        self._first += len(gone)
        await self.remove_children(gone)

    async def _drop_last(self, count: int) -> None:
        await self.remove_children([self._rows.pop() for _ in range(count)])

    def _follow(self) -> None:
        self._is_following, self._kept = True, None
        self.anchor()
        self.scroll_end(animate=False)
        self.call_after_refresh(self._show_place)
        self.post_message(self.Moved())

    def _show_place(self) -> None:
        """Draw the scroll bar anew: a layout with the anchor, or with a kept row, moves the view past it."""
        self.vertical_scrollbar.position = self.scroll_y
        self.vertical_scrollbar.refresh()

    def _remember(self) -> None:
        top = self.scroll_offset.y
        row = next((row for row in self._rows if row.virtual_region.bottom > top), None)
        self._kept = None if row is None or self._is_following else (row, row.virtual_region.y)


class LogPane(Vertical):
    """The log, what it is filtered by, and how much newer there is than what is shown."""

    DEFAULT_CSS = """
    LogPane {
        height: 1fr;
        & > .log--line { height: 1; padding: 0 1; display: none; }
        & > #filter { text-style: reverse; }
        & > #newer { text-style: dim; }
    }
    """

    def __init__(self, draw: Draw, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._draw = draw
        self._run: RunView | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="filter", classes="log--line", markup=False)
        yield LogScroll(self._draw)
        yield Static(id="newer", classes="log--line", markup=False)

    @property
    def scroll(self) -> LogScroll:
        return self.query_one(LogScroll)

    async def show(self, entries: Sequence[Entry], run: RunView | None = None) -> None:
        """Show the entries of all runs, or those of one."""
        line = self.query_one("#filter", Static)
        line.display = run is not None
        if run is not None:
            line.update(Content(f"Only {one_line(run.expert_key)} · Esc shows all"))
        await self.scroll.show(entries)

    async def grow(self) -> None:
        """Show what was added."""
        await self.scroll.grow()
        self._mark()

    def on_log_scroll_moved(self) -> None:
        self._mark()

    def _mark(self) -> None:
        scroll, line = self.scroll, self.query_one("#newer", Static)
        line.display = not scroll.is_following
        if not scroll.is_following:
            newer = f"{scroll.unseen} newer · " if scroll.unseen else ""
            line.update(Content(f"↓ {newer}End follows"))
