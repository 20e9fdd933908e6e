"""One checkpoint: how the run stood, what it used, what was open, and the conversation up to there."""

from collections.abc import Iterator
from typing import ClassVar

from pydantic_core import to_json
from textual.binding import Binding, BindingType
from textual.content import Content

from ....core.checkpoint import Checkpoint
from ....core.messages import ExpertMessage, Message, ToolCallPart
from ....core.run_view import RunView, StepView
from ....core.tools import ToolCall, ToolResult
from ....core.usage import Usage
from ...plain import one_line
from ..conversation import message_blocks, message_head, part_blocks
from ..moments import duration, tokens
from ..reading import Reading
from ..states import dial
from ..statuses import status_standing
from ..step_text import call_text
from ..widgets.folds import Block, FoldRow
from ..widgets.rows import Row, TextRow
from .fork import ForkScreen
from .listing import ListPage


class CheckpointScreen(ListPage):
    """A checkpoint with the conversation it holds, and the way to go on from it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "fork", "Fork"),
        Binding("y", "copy", "Copy id"),
        Binding("m", "messages", "Messages"),
    ]

    def __init__(self, reading: Reading, run: RunView, step: StepView) -> None:
        super().__init__()
        self._reading, self._run, self._step = reading, run, step

    def on_mount(self) -> None:
        checkpoint = self._step.checkpoint
        standing = status_standing(checkpoint.status)
        self.entitle(
            Content.assemble(
                (f"{one_line(checkpoint.expert.key)} · step {checkpoint.step_number}", "bold"),
                "  ",
                (f"{standing.sign} {standing.word}", standing.style),
            ),
            Content.assemble((f"checkpoint {checkpoint.id}", "dim")),
        )
        self.show_rows([*self._facts(), *self._calls(), *self._results(), *self._messages()])

    def choose(self, row: Row) -> None:
        if isinstance(row, FoldRow):
            row.toggle()
            self.list.remeasure()

    def action_messages(self) -> None:
        """To the first message that this step added, or the last one there is."""
        messages = self._step.checkpoint.messages
        new = {message.id for message in self._step.step.new_messages}
        first = next((message for message in messages if message.id in new), messages[-1] if messages else None)
        if first is not None:
            self.list.move_to(f"message-{first.id}")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.backend.can_work if action == "fork" else super().check_action(action, parameters)

    def action_fork(self) -> None:
        job_id = self._reading.handle.job_id
        self.app.push_screen(ForkScreen(job_id, self._step.checkpoint, is_open=self._reading.is_open))

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._step.checkpoint.id)
        self.app.say(f"copied {self._step.checkpoint.id}")

    def _facts(self) -> Iterator[Row]:
        checkpoint, step = self._step.checkpoint, self._step.step
        yield _fact("this step", _usage_text(step.usage))
        yield _fact("up to here", _usage_text(checkpoint.usage))
        if step.finished_at is not None:
            yield _fact("took", duration(step.finished_at - step.started_at))
        if full := dial(checkpoint.context_window_usage):
            window = f" of {tokens(checkpoint.context_window)}" if checkpoint.context_window else ""
            yield _fact("context", f"{full}{window}")
        yield _fact("model", self._run.model)
        if checkpoint.error is not None:
            yield _fact("error", one_line(f"{checkpoint.error.name}: {checkpoint.error.message}"))
        for target in checkpoint.delegate_to or ():
            yield _fact("waits for", one_line(f"{target.expert.key}: {target.query}"))
        yield _blank("facts")

    def _calls(self) -> Iterator[Row]:
        pending = self._step.step.pending_tool_calls or self._step.checkpoint.pending_tool_calls or ()
        if pending:
            yield _section("Pending calls", len(pending))
        for call in pending:
            yield self._fold(f"call-{call.id}", _call_head(call), [Block(_json(call))])

    def _results(self) -> Iterator[Row]:
        step, checkpoint = self._step.step, self._step.checkpoint
        results = step.tool_results or step.partial_tool_results or checkpoint.partial_tool_results or ()
        if results:
            yield _section("Results so far" if not step.tool_results else "Results", len(results))
        calls = {call.id: call for call in step.tool_calls or ()}
        for result in results:
            head = _result_head(result, calls.get(result.id))
            yield self._fold(f"result-{result.id}", head, part_blocks(result.result, _path_of(calls.get(result.id))))

    def _messages(self) -> Iterator[Row]:
        messages = self._step.checkpoint.messages
        yield _section("Messages", len(messages))
        paths = _paths(self._step.checkpoint)
        new = {message.id for message in self._step.step.new_messages}
        for at, message in enumerate(messages, 1):
            is_open = message.id in new and isinstance(message, ExpertMessage)
            head = message_head(message, at, is_new=message.id in new)
            yield self._fold(f"message-{message.id}", head, message_blocks(message, paths), is_open=is_open)

    def _fold(self, key: str, head: Content, blocks: list[Block], *, is_open: bool = False) -> FoldRow:
        return FoldRow(key, head, blocks, console=self.app.console, is_open=is_open)


def _usage_text(usage: Usage) -> str:
    facts = [f"{tokens(usage.input_tokens)} in"]
    if usage.cached_input_tokens:
        facts.append(f"{tokens(usage.cached_input_tokens)} cached")
    facts.append(f"{tokens(usage.output_tokens)} out")
    if usage.reasoning_tokens:
        facts.append(f"{tokens(usage.reasoning_tokens)} of them reasoning")
    return " · ".join(facts)


def _call_head(call: ToolCall) -> Content:
    return Content.assemble(("⏸ ", "$warning"), (call_text(call), "bold"))


def _result_head(result: ToolResult, call: ToolCall | None) -> Content:
    sign, style = ("✗ ", "$error") if result.is_error else ("✓ ", "$success")
    return Content.assemble((sign, style), (call_text(call) if call else one_line(result.tool_name), "bold"))


def _json(call: ToolCall) -> str:
    return to_json(call.args, indent=2).decode()


def _path_of(call: ToolCall | None) -> str:
    path = call.args.get("path") if call is not None else None
    return path if isinstance(path, str) else ""


def _paths(checkpoint: Checkpoint) -> dict[str, str]:
    """The files that tools were called with, by call."""

    def calls(message: Message) -> Iterator[ToolCallPart]:
        if isinstance(message, ExpertMessage):
            yield from message.calls

    found = ((call.tool_call_id, call.args.get("path")) for one in checkpoint.messages for call in calls(one))
    return {call_id: path for call_id, path in found if isinstance(path, str)}


def _fact(name: str, text: str) -> Row:
    return TextRow(
        f"fact-{name}-{text}", lambda _: Content.assemble((f"{name:<11}", "dim"), text), words=f"{name} {text}"
    )


def _section(title: str, count: int) -> Row:
    return TextRow(
        f"section-{title}",
        lambda _: Content.assemble((title, "bold underline"), (f"  {count}", "dim")),
        can_stand=False,
    )


def _blank(key: str) -> Row:
    return TextRow(f"blank-{key}", lambda _: Content(), can_stand=False)
