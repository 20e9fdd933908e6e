"""What all screens have in common."""

from typing import TYPE_CHECKING, Any, TypeVar, cast

from textual.screen import Screen

from ....core.failures import PerstackError
from ...plain import plain
from ..backend import Backend

if TYPE_CHECKING:
    from ..app import PerstackApp

ResultT = TypeVar("ResultT")


class Page(Screen[ResultT]):
    """A screen of `PerstackApp`, with the world behind it."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-normal"), (120, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-low"), (20, "-high")]

    @property
    def app(self) -> "PerstackApp":
        return cast("PerstackApp", super().app)  # pyright: ignore[reportUnknownMemberType]

    @property
    def backend(self) -> Backend:
        return self.app.backend

    def _compositor_refresh(self) -> None:
        if self.app._batch_count:  # pyright: ignore[reportPrivateUsage]
            # Textual would draw what has changed and throw it away: those cells would stay old until they change again.
            self.refresh()
        else:
            super()._compositor_refresh()

    def become(self, screen: Screen[Any]) -> None:
        """Go to another screen, in the place of this one."""
        self.app.switch_screen(screen)  # pyright: ignore[reportUnknownMemberType]

    @property
    def has_way_back(self) -> bool:
        """Whether it was opened from another screen."""
        # Below the first one is the empty screen that every application has.
        return self in self.app.screen_stack[2:]

    def go_back(self) -> None:
        """To the screen below; from the first one out of the program."""
        if self.has_way_back:
            self.dismiss(None)
        else:
            self.action_leave()

    def action_leave(self) -> None:
        """Leave the program; ctrl+c does it everywhere."""
        self.app.exit(0)


def problem_text(error: PerstackError) -> str:
    """What went wrong, and below it what to do."""
    return plain(f"✗ {error.message}\n  {error.hint}" if error.hint else f"✗ {error.message}")
