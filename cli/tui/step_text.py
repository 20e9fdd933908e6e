"""What a step did, in one line."""

from collections.abc import Iterator
from typing import Any, cast

from pydantic_core import from_json

from ...core.messages import ExpertMessage, TextPart, UserMessage
from ...core.run_view import StepView
from ...core.tools import ATTEMPT_COMPLETION, ToolCall, ToolResult
from ..plain import one_line

_TELLING = ("path", "question", "command", "query", "title", "url")
"""The argument that says the most about a call, the best first."""


def step_sign(view: StepView) -> str:
    """How the step ended, as one sign."""
    match view.checkpoint.status:
        case "completed":
            return "✓"
        case "stoppedByError" | "stoppedByExceededMaxSteps" | "stoppedByCancellation":
            return "✗"
        case "stoppedByInteractiveTool":
            return "⏸"
        case "stoppedByDelegate":
            return "⎇"
        case _:
            return "↻" if _retry(view) is not None else "·"


def step_text(view: StepView) -> str:
    """Which tools it called, whom it delegated to, whom it asked, why it was tried again, how it ended."""
    said = [*_tool_texts(view), *_ending(view)]
    return " · ".join(said) or "nothing"


def call_text(call: ToolCall) -> str:
    """A call with the argument that says the most about it."""
    args = call.args
    if call.tool_name == "exec" and isinstance(args.get("command"), str):
        rest = args.get("args")
        words = (args["command"], *cast("list[Any]", rest if isinstance(rest, list) else ()))
        return one_line(f"exec {' '.join(map(str, words))}")
    telling = next((args[name] for name in _TELLING if isinstance(args.get(name), str)), None)
    if telling is None:
        telling = next((value for value in args.values() if isinstance(value, str)), None)
    return one_line(f"{call.tool_name} {telling or ''}")


def _tool_texts(view: StepView) -> Iterator[str]:
    step, status = view.step, view.checkpoint.status
    results = {result.id: result for result in (*(step.tool_results or ()), *(step.partial_tool_results or ()))}
    calls = step.tool_calls or ()
    left = {call.id for call in step.pending_tool_calls or ()}
    for call in calls:
        if call.id in left or (call.tool_name == ATTEMPT_COMPLETION and status == "completed"):
            continue
        result = results.get(call.id)
        yield f"{call_text(call)}{' ✗' if result is not None and result.is_error else ''}"
    if not calls and step.tool_results:
        yield f"results of {', '.join(map(_result_name, step.tool_results))}"


def _result_name(result: ToolResult) -> str:
    return f"{one_line(result.tool_name)}{' ✗' if result.is_error else ''}"


def _ending(view: StepView) -> Iterator[str]:
    checkpoint = view.checkpoint
    match checkpoint.status:
        case "completed":
            yield one_line(_answer(view)) or "completed"
        case "stoppedByError":
            error = checkpoint.error
            yield f"{error.name}: {one_line(error.message)}" if error is not None else "failed"
        case "stoppedByExceededMaxSteps":
            yield "reached its step limit"
        case "stoppedByCancellation":
            yield "cancelled"
        case "stoppedByDelegate":
            yield f"delegated to {', '.join(target.expert.key for target in checkpoint.delegate_to or ())}"
        case "stoppedByInteractiveTool":
            yield f"asks: {'; '.join(call_text(call) for call in checkpoint.pending_tool_calls or ())}"
        case _:
            if (retry := _retry(view)) is not None:
                yield f"retry: {one_line(retry)}"


def _answer(view: StepView) -> str:
    """The run's text, where it completed in this step."""
    messages = (message for message in reversed(view.step.new_messages) if isinstance(message, ExpertMessage))
    said = next((message.text for message in messages if message.text.strip()), "")
    if said:
        return said
    last = (call for call in view.step.tool_calls or () if call.tool_name == ATTEMPT_COMPLETION)
    result = next((call.args.get("result") for call in last), None)
    return result if isinstance(result, str) else ""


def _retry(view: StepView) -> str | None:
    """What the model was told about an answer that could not be used; `None` where the answer could be."""
    if view.step.tool_calls or view.step.tool_results or view.checkpoint.status != "proceeding":
        return None
    told = (message for message in view.step.new_messages if isinstance(message, UserMessage))
    text = next((part.text for message in told for part in message.contents if isinstance(part, TextPart)), None)
    return None if text is None else _reason(text)


def _reason(text: str) -> str:
    """What a person has to know of what the model was told: `{"error": …, "message": …}`."""
    try:
        told = from_json(text)
    except ValueError:
        return text
    message = cast("dict[str, Any]", told).get("message") if isinstance(told, dict) else None
    return message if isinstance(message, str) else text
