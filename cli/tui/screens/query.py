"""What an expert shall do."""

from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from ....core.failures import PerstackError
from ...plain import one_line, plain
from ..backend import ExpertChoice, JobHandle
from ..widgets.keys import KeyBar
from ..widgets.prompt import Prompt
from .base import Page, problem_text
from .run import RunScreen


class AskingScreen(Page[None]):
    """Asks for a text and goes on to the job that comes of it; what was written stays until the job is there."""

    CSS_PATH = "query.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "Back", key_display="Esc")]
    PLACEHOLDER: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._is_starting = False

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="where", markup=False)
        yield self.prompt()
        yield Static(id="notice", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one("#title", Static).update(self.title_text())
        self.query_one(Prompt).focus()
        self.note("")

    def prompt(self) -> Prompt:
        """Where a person writes."""
        return Prompt(placeholder=self.PLACEHOLDER)

    def title_text(self) -> Content:
        """What is asked for."""
        raise NotImplementedError

    def starting(self) -> str:
        """What is said while the job is not there yet."""
        raise NotImplementedError

    async def start(self, text: str) -> JobHandle:
        """Make a job of it.

        Raises:
            PerstackError: a sentence for the person.
        """
        raise NotImplementedError

    def note(self, text: str, *, is_problem: bool = False) -> None:
        """Say something below the text."""
        notice = self.query_one("#notice", Static)
        notice.update(Content(text))
        notice.display = bool(text)
        notice.set_class(is_problem, "-problem")

    def action_back(self) -> None:
        self.go_back()

    @on(Prompt.Sent)
    def _sent(self, event: Prompt.Sent) -> None:
        if not self._is_starting:
            self._start(event.text)

    @work
    async def _start(self, text: str) -> None:
        self._is_starting = True
        self.note(self.starting())
        try:
            handle = await self.start(text)
        except PerstackError as error:
            self.note(problem_text(error), is_problem=True)
        else:
            self.become(RunScreen(handle))
        finally:
            self._is_starting = False


class QueryScreen(AskingScreen):
    """What one expert shall do."""

    PLACEHOLDER = "What shall be done?"

    def __init__(self, expert: ExpertChoice) -> None:
        super().__init__()
        self._expert = expert

    def title_text(self) -> Content:
        return Content.assemble((one_line(self._expert.key), "bold"), (f"\n{plain(self._expert.description)}", "dim"))

    def starting(self) -> str:
        return f"starting {one_line(self._expert.key)}…"

    async def start(self, text: str) -> JobHandle:
        return await self.backend.start(self._expert.key, text)
