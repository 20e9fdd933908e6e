"""Going on from a checkpoint."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from ....core.checkpoint import Checkpoint
from ...plain import one_line
from ..backend import JobHandle
from ..widgets.prompt import Prompt
from .query import AskingScreen

_WHERE = ("in this job", "as a new job")


class OptionalPrompt(Prompt):
    """A prompt that may stay empty."""

    def action_send(self) -> None:
        self.post_message(self.Sent(self, self.text.strip()))


class ForkScreen(AskingScreen):
    """Asks where to go on from a checkpoint, and with which query."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab,shift+tab", "other", "Where", key_display="Tab", priority=True)
    ]
    PLACEHOLDER = "New query; empty: go on without one"

    def __init__(self, job_id: str, checkpoint: Checkpoint, *, is_open: bool) -> None:
        super().__init__()
        self._job_id, self._checkpoint = job_id, checkpoint
        self._is_branch = self._is_open = is_open
        """A job that is still open cannot go on from elsewhere; only a new one can."""

    def on_mount(self) -> None:
        self._draw()

    def prompt(self) -> Prompt:
        return OptionalPrompt(placeholder=self.PLACEHOLDER)

    def title_text(self) -> Content:
        checkpoint = self._checkpoint
        return Content.assemble(
            ("⎇ Fork", "bold"),
            f" from step {checkpoint.step_number} of {one_line(checkpoint.expert.key)}",
            (f"\ncheckpoint {checkpoint.id}", "dim"),
        )

    def starting(self) -> str:
        return "going on…"

    async def start(self, text: str) -> JobHandle:
        return await self.backend.fork(self._job_id, self._checkpoint.id, text or None, is_branch=self._is_branch)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return not self._is_open if action == "other" else super().check_action(action, parameters)

    def action_other(self) -> None:
        self._is_branch = not self._is_branch
        self._draw()

    def _draw(self) -> None:
        words = [
            Content.assemble(("(•) " if at == self._is_branch else "( ) ", "bold"), text)
            for at, text in enumerate(_WHERE)
        ]
        where = self.query_one("#where", Static)
        only = Content(f"{_WHERE[True]}: this one is still open")
        where.update(only if self._is_open else Content("   ").join(words))
        where.display = True
