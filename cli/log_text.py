"""A job and its events as text for people (contract §6.5)."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from pydantic_core import to_json

from ..core.checkpoint import Checkpoint
from ..core.event_query import EventSummary, Page
from ..core.events import (
    CallDelegate,
    CallInteractiveTool,
    CallTools,
    CompleteRun,
    CompleteStreamingReasoning,
    CompleteStreamingRunResult,
    Event,
    ResolveToolResults,
    Retry,
    RunBase,
    StartRun,
    StopRunByError,
    StreamReasoning,
    StreamRunResult,
)
from ..core.graph import graph as graph_of
from ..core.graph import graph_lines
from ..core.messages import Message, TextPart, ToolCallPart, ToolResultPart, UserMessage
from ..core.tools import ToolCall, ToolResult
from ..core.usage import Usage
from ..definitions.prices import price
from .log_view import LogView
from .tree import usage_table

if TYPE_CHECKING:
    from ..client.follow import JobFollower
    from ..core.expert import ModelChoice

RULE = "─" * 50
WIDTH = 80
"""What a line of the graph takes at most where there is no terminal."""
_DATE = "%Y-%m-%d %H:%M:%S"


def log_text(view: LogView, *, is_verbose: bool, is_summary: bool, has_messages: bool, width: int) -> list[str]:
    """The lines of the whole view; those of the graph take at most `width` characters."""
    lines = ["(showing latest job)"] if view.source.is_latest else []
    if view.source.storage is not None:
        lines.append(f"Storage: {view.source.storage}")
    lines.extend(_job(view.follower, width))
    if view.checkpoint is not None:
        lines.extend(_checkpoint_block(view.checkpoint, has_messages=has_messages))
    if is_summary:
        lines.extend(_summary(view.summary))
    lines.extend(("Events:", RULE))
    for event in view.page.events:
        lines.extend(event_lines(event, is_verbose=is_verbose))
    return [*lines, RULE, *_footer(view.page)]


def event_lines(event: Event, *, is_verbose: bool) -> list[str]:
    """One event with its details, and an empty line."""
    place = f"[Step {event.step_number}] " if isinstance(event, RunBase) else ""
    who = f"  {event.expert_key}" if isinstance(event, RunBase) else ""
    head = f"{place + event.type:<36} {_time(event.timestamp, '%H:%M:%S')}{who}"
    return [head, *(f"  {detail}" for detail in _details(event, is_verbose=is_verbose)), ""]


def _footer(page: Page) -> list[str]:
    if page.shown == page.matched:
        return [] if page.matched else ["(no event matches)"]
    if not page.shown:
        return [f"({page.matched} events available, use --offset to view)"]
    more = f" (+{page.neighbours} context)" if page.neighbours else ""
    return [
        f"(showing {page.shown} of {page.matched} matched events{more})",
        "Use --take and --offset to see the others; --take 0 shows all.",
    ]


def _job(follower: "JobFollower", width: int) -> list[str]:
    job = follower.job()
    lines = [
        f"Job: {job.id} ({job.status})",
        f"Expert: {job.coordinator_expert_key}",
        f"Started: {_time(job.started_at, _DATE)}",
        f"Steps: {job.total_steps}",
    ]
    if job.finished_at is not None:
        lines.append(f"Finished: {_time(job.finished_at, _DATE)}")
    usage = job.usage
    lines.append(f"Tokens: {usage.input_tokens} in ({usage.cached_input_tokens} cached), {usage.output_tokens} out")
    tokens_in = follower.view.usage.input_tokens - usage.input_tokens
    tokens_out = follower.view.usage.output_tokens - usage.output_tokens
    if tokens_in > 0 or tokens_out > 0:
        lines.append(f"Abandoned: {tokens_in} in, {tokens_out} out in branches nobody went on from")
    lines.append(f"Cost: {_cost(follower)}")
    graph = graph_lines(graph_of(follower.view), width)
    return [*lines, "Runs:", *graph, "Usage:", *usage_table(follower.view.roots)]


def _checkpoint_block(checkpoint: Checkpoint, *, has_messages: bool) -> list[str]:
    lines = [
        f"Checkpoint: {checkpoint.id}",
        f"  Status: {checkpoint.status}",
        f"  Step: {checkpoint.step_number}",
        f"  Expert: {checkpoint.expert.key}",
    ]
    if has_messages:
        lines.append("Messages:")
        lines.extend(f"  [{message.type}] {_short(_message_text(message), 100)}" for message in checkpoint.messages)
    return lines


def _message_text(message: Message) -> str:
    """What a message says, its parts that are no text by their types."""
    texts: list[str] = []
    for part in message.contents:
        if isinstance(part, ToolCallPart):
            texts.append(f"({part.tool_name})")
        elif isinstance(part, ToolResultPart):
            texts.extend(one.text for one in part.contents if isinstance(one, TextPart))
        else:
            texts.append(part.text if isinstance(part, TextPart) else f"({part.type})")
    return " ".join(texts)


def _summary(summary: EventSummary) -> list[str]:
    lines = [
        "Summary:",
        f"  Total Events: {summary.total_events}",
        f"  Errors: {summary.error_count}",
        f"  Tool Calls: {summary.tool_call_count}",
        f"  Delegations: {summary.delegation_count}",
    ]
    steps = summary.step_range
    return [*lines, f"  Step Range: {steps.min}-{steps.max}"] if steps is not None else lines


def _cost(follower: "JobFollower") -> str:
    """By the providers' price lists; a price that nobody knows is never taken for nothing."""
    total, unknown = Decimal(0), set[str]()
    for model, usage in _used(follower):
        if not usage.total_tokens and not usage.input_tokens:
            continue
        known = price(model.provider, model.model, usage)
        if known is None:
            unknown.add(model.model)
        else:
            total += known
    about = f"about ${total:.4f} by list prices"
    if not unknown:
        return about
    return f"{about if total else 'unknown'}; no price is known for {', '.join(sorted(unknown))}"


def _used(follower: "JobFollower") -> Iterator[tuple["ModelChoice", Usage]]:
    """What each run used itself, with its model."""
    for reader in follower.readers:
        run = follower.view.run_of(reader.fold.start.run_id) if reader.fold is not None else None
        if reader.fold is not None and run is not None:
            yield reader.fold.start.expert.model, run.usage


def _details(event: Event, *, is_verbose: bool) -> list[str]:
    match event:
        case StartRun():
            return [f'Query: "{_short(_query(event), 60)}"']
        case CallTools() | CallDelegate() if is_verbose:
            return _calls(event.tool_calls)
        case CallTools():
            return [f"Tools: {', '.join(call.tool_name for call in event.tool_calls)}"]
        case ResolveToolResults():
            return [
                f"{'✗' if one.is_error else '✓'} {one.tool_name}: {_result_text(one)}" for one in event.tool_results
            ]
        case CallDelegate():
            return [f"Delegate to: {', '.join(call.skill_name for call in event.tool_calls)}"]
        case CallInteractiveTool():
            return _calls((event.tool_call,)) if is_verbose else [f"Asks: {event.tool_call.tool_name}"]
        case StopRunByError():
            error = event.error
            said = [f"Error: {error.name}", f"Message: {error.message}", f"Retryable: {error.is_retryable}"]
            return [*said, *_checkpoint(event)]
        case Retry():
            return [f"Reason: {_short(event.reason, 200)}"]
        case CompleteRun():
            return [f"Result: {_short(event.text, 80)}", *_checkpoint(event)]
        case StreamRunResult() | StreamReasoning():
            return [f"Text: {_short(event.delta, 200)}"]
        case CompleteStreamingRunResult() | CompleteStreamingReasoning() if is_verbose:
            return [f"Text: {_short(event.text, 200)}"]
        case _:
            return _checkpoint(event)


def _calls(calls: Sequence[ToolCall]) -> list[str]:
    lines: list[str] = []
    for call in calls:
        lines.extend((f"[{call.skill_name}] {call.tool_name}", f"  Args: {to_json(call.args).decode()}"))
    return lines


def _checkpoint(event: Event) -> list[str]:
    """What `--resume-from` takes to go on from here."""
    checkpoint = getattr(event, "checkpoint", None)
    return [f"Checkpoint: {checkpoint.id}"] if isinstance(checkpoint, Checkpoint) else []


def _query(event: StartRun) -> str:
    for message in event.input_messages:
        if isinstance(message, UserMessage):
            return next((part.text for part in message.contents if isinstance(part, TextPart)), "")
    return ""


def _result_text(result: ToolResult) -> str:
    return _short(next((part.text for part in result.result if isinstance(part, TextPart)), "(no text)"), 40)


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 1] + "…"


def _time(milliseconds: int, form: str) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime(form)
