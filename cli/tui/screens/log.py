"""The activity log of a job that is only looked at."""

from typing import ClassVar

from textual.binding import Binding, BindingType

from .run import RunScreen

_DOING = frozenset({"write", "resume", "cancel", "detach"})
"""What can be done to a job that somebody works on."""


class LogScreen(RunScreen):
    """What happened in a job, one activity below the other; nothing is done to it."""

    DEFAULT_CSS = """
    LogScreen Prompt {
        display: none;
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "back", "Back"),
        Binding("q", "leave", "Quit"),
        Binding("t", "link", "Temporal", show=False),
    ]

    @property
    def takes_text(self) -> bool:
        return False

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "back":
            return True
        return False if action in _DOING else super().check_action(action, parameters)

    async def on_unmount(self) -> None:
        await self.handle.close()

    def action_back(self) -> None:
        self.go_back()

    def action_leave(self) -> None:
        """Looking at a job succeeds, however the job ended."""
        self.app.exit(0)
