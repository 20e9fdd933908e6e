"""What can be done with a job that has come to its end: ask more, go on, leave."""

from textual.app import ComposeResult
from textual.containers import VerticalGroup
from textual.content import Content
from textual.widgets import Static

from ...plain import plain
from ..backend import Stop
from .prompt import Prompt

_ENDS = {
    "completed": ("✓ Completed", "$success"),
    "stoppedByError": ("✗ Failed", "$error"),
    "stoppedByExceededMaxSteps": ("✗ Reached its step limit", "$error"),
    "stoppedByCancellation": ("✗ Cancelled", "$error"),
    "ended": ("✗ Ended from outside", "$error"),
}


def can_resume(stop: Stop | None) -> bool:
    """Whether a job stopped before its end, so that it can go on from there."""
    return stop is not None and stop.kind in _ENDS and stop.kind != "completed"


class FollowUp(VerticalGroup):
    """How the job ended, and a line for the next query."""

    DEFAULT_CSS = """
    FollowUp {
        height: auto;
        max-height: 50%;
        padding: 0 1;
        border-top: solid $border-blurred;
        display: none;
        & > .follow-up--refused { color: $error; display: none; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._stop: Stop | None = None
        """What is shown."""

    def compose(self) -> ComposeResult:
        yield Static(classes="follow-up--end", markup=False)
        yield Static(classes="follow-up--refused", markup=False)
        yield Prompt(placeholder="A follow-up query · Enter sends it")

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    def show(self, stop: Stop | None, *, takes_focus: bool) -> None:
        """Show how the job ended; nothing while it works or waits."""
        has_ended = stop is not None and stop.kind in _ENDS
        # The job may have gone on and come to its next end since the last picture.
        is_new = stop is not self._stop
        self.display, self._stop = has_ended, stop
        if stop is None or not has_ended:
            return
        word, style = _ENDS[stop.kind]
        parts: list[str | tuple[str, str]] = [(word, f"bold {style}")]
        if stop.message:
            parts.append(f" · {plain(stop.message).strip()}")
        self.query_one(".follow-up--end", Static).update(Content.assemble(*parts))
        if is_new:
            self.refuse("")
            if takes_focus:
                self.prompt.focus()

    def send(self) -> None:
        """The query is on its way."""
        self.query_one(".follow-up--refused", Static).display = False
        self.prompt.disabled = True

    def refuse(self, reason: str) -> None:
        """Say why the query was not taken; its text stays."""
        line = self.query_one(".follow-up--refused", Static)
        line.update(Content(f"✗ {plain(reason)}"))
        line.display = bool(reason)
        self.prompt.disabled = False

    def clear(self) -> None:
        """The query was taken."""
        self.prompt.clear()
        self.prompt.disabled = False
