"""`perstack log`: a job from its history alone, as text, JSON or cassette."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

from ...core.checkpoint import Checkpoint, Job
from ...core.events import (
    CallDelegate,
    CallTools,
    CompleteRun,
    Event,
    ResolveToolResults,
    Retry,
    RunBase,
    StartRun,
    StopRunByError,
)
from ...core.failures import UsageError
from ...core.messages import TextPart, UserMessage
from ...core.tools import ToolResult
from ...core.usage import NO_USAGE, Usage
from ...definitions.prices import price
from ..diagnostics import ExitCode
from ..lifecycle import run_command
from ..output import EventEncoder, write_bytes, write_line
from ..travel import read_export, say_lost
from ..tree import fitting, job_tree, less, origin_line, own_usages

if TYPE_CHECKING:
    from ...client.follow import JobFollower
    from ...client.histories import Histories
    from ...client.history import Execution

RULE = "─" * 50


def log(job_id: str | None, *, file: str | None, is_json: bool, is_cassette: bool, address: str | None) -> NoReturn:
    """Read a job, on the server, in the archive or in a file, and print it."""

    async def command() -> ExitCode:
        if (job_id is None) == (file is None):
            raise UsageError("Give the id of the job with --job, or an export with --file.")
        if file is not None:
            job = read_export(file)
            follower, events = await _read(job.histories(), job.newest, is_recording=is_cassette)
        else:
            assert job_id is not None, "one of them is given"
            from ..connection import connected

            async with connected(address) as connection:
                jobs = connection.jobs
                view = await jobs.view(job_id)
                follower, events = await _read(jobs.histories, view.execution, is_recording=is_cassette)
        _print(follower, events, is_json=is_json, is_cassette=is_cassette)
        say_lost(follower.lost)
        return ExitCode.COMPLETED

    run_command(command)


async def _read(
    histories: "Histories", newest: "Execution", *, is_recording: bool
) -> tuple["JobFollower", list[Event]]:
    from ...client.follow import JobFollower

    chain = await histories.job_chain(newest)
    follower = JobFollower(histories, *chain, wait=False, is_recording=is_recording)
    return follower, [event async for event in follower.events()]


def _print(follower: "JobFollower", events: list[Event], *, is_json: bool, is_cassette: bool) -> None:
    if is_cassette:
        write_line(follower.cassette().model_dump_json(exclude_none=True, indent=1))
    elif is_json:
        write_bytes(_json(follower.job(), events))
    else:
        for line in _text(follower, events):
            write_line(fitting(line, sys.stdout.encoding))


def _json(job: Job, events: Sequence[Event]) -> bytes:
    """`{job, events, summary}` in one line (contract §6.5)."""
    encoder = EventEncoder()
    lines = b",".join(encoder.encode(event).rstrip(b"\n") for event in events)
    summary = json.dumps(_summary(events)).encode()
    return b'{"job":' + job.wire_json().encode() + b',"events":[' + lines + b'],"summary":' + summary + b"}\n"


def _summary(events: Sequence[Event]) -> dict[str, Any]:
    steps = [event.step_number for event in events if isinstance(event, RunBase)]
    summary: dict[str, Any] = {
        "totalEvents": len(events),
        "errorCount": sum(isinstance(event, StopRunByError | Retry) for event in events),
        "toolCallCount": sum(len(event.tool_calls) for event in events if isinstance(event, CallTools)),
        "delegationCount": sum(len(event.tool_calls) for event in events if isinstance(event, CallDelegate)),
    }
    if steps:
        summary["stepRange"] = {"min": min(steps), "max": max(steps)}
    return summary


def _text(follower: "JobFollower", events: Sequence[Event]) -> list[str]:
    job = follower.job()
    lines = [
        f"Job: {job.id} ({job.status})",
        f"Expert: {job.coordinator_expert_key}",
        f"Started: {_time(job.started_at, '%Y-%m-%d %H:%M:%S')}",
        f"Steps: {job.total_steps}",
    ]
    if job.finished_at is not None:
        lines.append(f"Finished: {_time(job.finished_at, '%Y-%m-%d %H:%M:%S')}")
    usage = job.usage
    lines.append(f"Tokens: {usage.input_tokens} in ({usage.cached_input_tokens} cached), {usage.output_tokens} out")
    abandoned = less(_total(own for _, own in own_usages(follower.trees)), usage)
    if abandoned != NO_USAGE:
        given_up = f"{abandoned.input_tokens} in, {abandoned.output_tokens} out"
        lines.append(f"Abandoned: {given_up} in branches nobody went on from")
    lines.append(f"Cost: {_cost(follower)}")
    lines.append("Runs:")
    for tree in follower.trees:
        origin = origin_line(tree)
        lines.extend((*((origin,) if origin else ()), *job_tree(tree)))
    lines.extend(("Events:", RULE))
    for event in events:
        place = f"[Step {event.step_number}] " if isinstance(event, RunBase) else ""
        who = f"  {event.expert_key}" if isinstance(event, RunBase) else ""
        lines.append(f"{place + event.type:<36} {_time(event.timestamp, '%H:%M:%S')}{who}")
        lines.extend(f"  {detail}" for detail in _details(event))
    lines.append(RULE)
    return lines


def _total(usages: Iterable[Usage]) -> Usage:
    return sum(usages, NO_USAGE)


def _cost(follower: "JobFollower") -> str:
    """By the providers' price lists; a price that nobody knows is never taken for nothing."""
    total, unknown = Decimal(0), set[str]()
    for model, usage in own_usages(follower.trees):
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


def _details(event: Event) -> list[str]:
    match event:
        case StartRun():
            return [f'Query: "{_short(_query(event), 60)}"']
        case CallTools():
            return [f"Tools: {', '.join(call.tool_name for call in event.tool_calls)}"]
        case ResolveToolResults():
            return [
                f"{'✗' if one.is_error else '✓'} {one.tool_name}: {_result_text(one)}" for one in event.tool_results
            ]
        case CallDelegate():
            return [f"Delegate to: {', '.join(call.skill_name for call in event.tool_calls)}"]
        case StopRunByError():
            error = event.error
            said = [f"Error: {error.name}", f"Message: {error.message}", f"Retryable: {error.is_retryable}"]
            return [*said, *_checkpoint(event)]
        case Retry():
            return [f"Reason: {_short(event.reason, 200)}"]
        case CompleteRun():
            return [f"Result: {_short(event.text, 80)}", *_checkpoint(event)]
        case _:
            return _checkpoint(event)


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
