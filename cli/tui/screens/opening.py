"""What is seen while the first screen cannot be there yet: the program behind it loads, the server starts."""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from ....core.failures import PerstackError
from ...diagnostics import ExitCode
from ...plain import one_line
from ...spinner import duration
from ..backend import Backend
from ..widgets.keys import KeyBar
from .base import Page

Opening = Callable[[], Awaitable[tuple[Backend, Screen[Any]]]]
"""Makes the world behind the screens, and the first of them.

Raises:
    PerstackError: there is nothing to show.
"""
_SECOND = 1.0


class OpeningScreen(Page[None]):
    """Says what is waited for and for how long, then gives way to the screen that was opened."""

    DEFAULT_CSS = """
    OpeningScreen {
        & > #title { height: auto; padding: 0 1 0 2; margin-bottom: 1; }
        & > #wait { height: auto; padding: 0 1 0 2; color: $foreground; text-style: dim; }
        &.-low > #title { margin-bottom: 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "leave", "Quit")]

    def __init__(self, title: str, opening: Opening) -> None:
        super().__init__()
        self._title = title
        self._opening = opening
        self._wait = "loading …"
        self._seconds = 0

    def compose(self) -> ComposeResult:
        yield Static(Content.styled(one_line(self._title), "bold"), id="title", markup=False)
        yield Static(self._wait, id="wait", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.set_interval(_SECOND, self._tick)
        # What is loaded would hold up the first picture.
        self.call_after_refresh(self._open)

    def waits_for(self, text: str) -> None:
        """From now on `text` is waited for."""
        self._wait, self._seconds = one_line(text), 0
        self._draw()

    def action_leave(self) -> None:
        self.app.exit(int(ExitCode.INTERRUPTED))

    @work
    async def _open(self) -> None:
        try:
            self.app.backend, screen = await self._opening()
        except PerstackError as refusal:
            self.app.refuse(refusal)
        else:
            self.become(screen)

    def _tick(self) -> None:
        self._seconds += 1
        self._draw()

    def _draw(self) -> None:
        elapsed = f" {duration(self._seconds)}" if self._seconds else ""
        self.query_one("#wait", Static).update(Content(self._wait + elapsed))
