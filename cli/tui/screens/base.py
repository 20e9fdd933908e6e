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

    def become(self, screen: Screen[Any]) -> None:
        """Go to another screen, in the place of this one."""
        self.app.switch_screen(screen)  # pyright: ignore[reportUnknownMemberType]

    def go_back(self) -> None:
        """To the screen below; from the first one out of the program."""
        # Below the first one is the empty screen that every application has.
        if len(self.app.screen_stack) > 2:
            self.dismiss(None)
        else:
            self.action_leave()

    def action_leave(self) -> None:
        """Leave the program; ctrl+c does it everywhere."""
        self.app.exit(0)


def problem_text(error: PerstackError) -> str:
    """What went wrong, and below it what to do."""
    return plain(f"✗ {error.message}\n  {error.hint}" if error.hint else f"✗ {error.message}")
