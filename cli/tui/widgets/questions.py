"""Open questions of a job, each with a line for its answer."""

import json
from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import VerticalGroup, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from ....core.tools import ToolCall
from ...plain import one_line, plain
from .prompt import Prompt

_ASKING = ("question", "prompt", "message", "text", "query")
"""Names that tools give the argument which is the question itself."""


class Question(VerticalGroup):
    """What a tool asks a person, and the answer as far as it is written."""

    DEFAULT_CSS = """
    Question {
        height: auto;
        margin-bottom: 1;
        & > .question--refused { color: $error; display: none; }
    }
    """

    def __init__(self, call: ToolCall, place: str) -> None:
        super().__init__()
        self.call = call
        self._place = place

    def compose(self) -> ComposeResult:
        yield Static(asked(self.call, self._place), markup=False)
        yield Static(classes="question--refused", markup=False)
        yield Prompt(placeholder="Your answer · Enter sends it")

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    def refuse(self, reason: str) -> None:
        """Say why the answer was not taken; its text stays."""
        line = self.query_one(".question--refused", Static)
        line.update(Content(f"✗ {plain(reason)}"))
        line.display = bool(reason)
        self.prompt.disabled = False
        self.prompt.focus()

    def send(self) -> None:
        """The answer is on its way."""
        self.query_one(".question--refused", Static).display = False
        self.prompt.disabled = True


class QuestionsPane(VerticalScroll, can_focus=False):
    """All open questions of the job, in the order of the calls."""

    DEFAULT_CSS = """
    QuestionsPane {
        height: auto;
        max-height: 50%;
        padding: 0 1;
        scrollbar-size-vertical: 1;
        border-top: solid $warning;
        display: none;
    }
    """

    class Answered(Message):
        """A person answered a question."""

        def __init__(self, question: Question, text: str) -> None:
            super().__init__()
            self.question = question
            self.text = text

    @property
    def questions(self) -> Sequence[Question]:
        return tuple(self.query(Question))

    async def show(self, calls: Sequence[ToolCall], *, takes_focus: bool) -> None:
        """Show these questions; what is written to one that was there before stays."""
        known = {question.call.id: question for question in self.questions}
        wanted = {call.id for call in calls}
        had_focus = any(question.prompt.has_focus for question in known.values())
        gone = [question for question in known.values() if question.call.id not in wanted]
        new = [
            Question(call, f"{number} of {len(calls)}" if len(calls) > 1 else "")
            for number, call in enumerate(calls, 1)
            if call.id not in known
        ]
        await self.remove_children(gone)
        await self.mount_all(new)
        self.display = bool(calls)
        if calls and (had_focus or (takes_focus and len(new) == len(calls))):
            self.focus_next()

    def focus_next(self) -> None:
        """Put the focus on the first question without an answer under way."""
        for question in self.questions:
            if not question.prompt.disabled:
                question.prompt.focus()
                return

    def on_descendant_focus(self) -> None:
        self.call_after_refresh(self._show_question)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_question)

    def _show_question(self) -> None:
        """Bring the question into view whose line has the focus, or the line alone where there is no room for more."""
        for question in self.questions:
            if question.prompt.has_focus:
                fits = question.region.height <= self.scrollable_content_region.height
                self.scroll_to_widget(question if fits else question.prompt, animate=False, force=True)

    def on_prompt_sent(self, event: Prompt.Sent) -> None:
        event.stop()
        question = event.prompt.parent
        if isinstance(question, Question):
            question.send()
            self.post_message(self.Answered(question, event.text))
            self.focus_next()


def asked(call: ToolCall, place: str) -> Content:
    """Who asks, the question, and the other arguments one a line."""
    args = dict(call.args)
    name = next((name for name in _ASKING if isinstance(args.get(name), str)), None)
    head = Content.assemble(
        ("⏸ ", "$warning"), (one_line(call.tool_name), "bold"), (f" asks · {place}" if place else " asks", "dim")
    )
    lines = [head]
    if name is not None:
        lines.append(Content(plain(str(args.pop(name)))))
    lines += [Content.assemble((f"{one_line(key)}: ", "dim"), _readable(value)) for key, value in args.items()]
    return Content("\n").join(lines)


def _readable(value: object) -> str:
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
