"""Checkpoints and events → activities, for logs, terminals and browsers (contract §4.7)."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

from .activity import (
    Activity,
    ActivityParent,
    CompleteActivity,
    DelegateActivity,
    DelegationCompleteActivity,
    ErrorActivity,
    InteractiveToolActivity,
    QueryActivity,
    RetryActivity,
)
from .checkpoint import Checkpoint, Step
from .events import (
    CallDelegate,
    CallTools,
    CompleteRun,
    CompleteStreamingReasoning,
    Event,
    FinishAllToolCalls,
    FinishMcpTools,
    ResolveToolResults,
    ResumeFromStop,
    Retry,
    RunBase,
    StartRun,
    StopRunByError,
    StopRunByInteractiveTool,
)
from .failures import Failure
from .messages import ExpertMessage, Message, TextPart, UserMessage
from .tool_activity import paired, tool_activity
from .tools import ToolCall, ToolResult
from .wire import Wire

NOTHING_FOUND = "No tool call or result found"
_DELEGATE_RESULT = "delegate/"


class RunActivities(Wire):
    """The activities of one segment of a run."""

    run_id: str
    expert_key: str
    activities: tuple[Activity, ...]
    delegated_by: ActivityParent | None = None


def activities_of(checkpoint: Checkpoint, step: Step) -> tuple[Activity, ...]:
    """What one step did, as its checkpoint tells it; these activities have no ids and no run."""
    found = _of_status(checkpoint, step)
    reasoning = "\n\n".join(
        message.thinking for message in step.new_messages if isinstance(message, ExpertMessage) and message.thinking
    )
    if not found or not reasoning:
        return found
    return (found[0].model_copy(update={"reasoning": reasoning}), *found[1:])


def group_by_run(activities: Iterable[Activity]) -> tuple[RunActivities, ...]:
    """The activities by run segment, in order of first appearance."""
    groups: dict[str, list[Activity]] = {}
    for activity in activities:
        groups.setdefault(activity.run_id, []).append(activity)
    return tuple(
        RunActivities(
            run_id=run_id,
            expert_key=group[0].expert_key,
            activities=tuple(group),
            delegated_by=group[0].delegated_by,
        )
        for run_id, group in groups.items()
    )


def _of_status(checkpoint: Checkpoint, step: Step) -> tuple[Activity, ...]:
    match checkpoint.status:
        case "completed":
            texts = [message.text for message in step.new_messages if isinstance(message, ExpertMessage)]
            return (CompleteActivity(text=texts[-1] if texts else ""),)
        case "stoppedByError":
            return (_error(checkpoint.error),)
        case "stoppedByDelegate":
            delegated = checkpoint.delegate_to or ()
            return tuple(
                DelegateActivity(delegate_expert_key=one.expert.key, query=one.query) for one in delegated
            ) or (_nothing(step),)
        case "stoppedByInteractiveTool":
            return tuple(_question(call) for call in checkpoint.pending_tool_calls or ()) or (_nothing(step),)
        case _:
            return _of_results(checkpoint, step)


def _of_results(checkpoint: Checkpoint, step: Step) -> tuple[Activity, ...]:
    results = step.tool_results or checkpoint.partial_tool_results or ()
    calls = step.tool_calls or _called(checkpoint.messages, results)
    is_resumed = step.tool_calls is None
    own = [one for one in results if not (is_resumed and one.skill_name.startswith(_DELEGATE_RESULT))]
    found: tuple[Activity, ...] = tuple(tool_activity(call, result) for call, result in paired(calls, own))
    if len(own) < len(results):
        found = (*found, DelegationCompleteActivity(count=len(results) - len(own)))
    if found or checkpoint.status == "stoppedByCancellation":
        return found
    return (_nothing(step),)


def _called(messages: Iterable[Message], results: Iterable[ToolResult]) -> tuple[ToolCall, ...]:
    """The calls that a resumed step answers: its own generation was in an earlier step."""
    skills = {result.id: result.skill_name for result in results}
    made = [message.calls for message in messages if isinstance(message, ExpertMessage) and message.calls]
    return tuple(
        ToolCall(
            id=part.tool_call_id,
            skill_name=skills.get(part.tool_call_id, ""),
            tool_name=part.tool_name,
            args=part.args,
        )
        for part in (made[-1] if made else ())
    )


def _nothing(step: Step) -> RetryActivity:
    told = _user_text(step.new_messages[-1:])
    return RetryActivity(error=NOTHING_FOUND, message=_reason_text(told) if told else "")


def _error(failure: Failure | None) -> ErrorActivity:
    if failure is None:
        return ErrorActivity()
    return ErrorActivity(error=failure.message, error_name=failure.name, is_retryable=failure.is_retryable)


def _question(call: ToolCall) -> InteractiveToolActivity:
    return InteractiveToolActivity(skill_name=call.skill_name, tool_name=call.tool_name, args=call.args)


def _user_text(messages: Iterable[Message]) -> str | None:
    for message in messages:
        if isinstance(message, UserMessage):
            return next((part.text for part in message.contents if isinstance(part, TextPart)), None)
    return None


def _reason_text(reason: str) -> str:
    """The sentence in the JSON text of a retry."""
    try:
        value: object = json.loads(reason)
    except ValueError:
        return reason
    fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return str(fields.get("message") or fields.get("error") or reason)


@dataclass
class _Run:
    """One run over all its segments, as far as the events told of it."""

    delegated_by: ActivityParent | None = None
    reasoning: str | None = None
    last_id: str | None = None
    calls: tuple[ToolCall, ...] = ()
    """Of its last message, like the next two."""
    asked: tuple[ToolCall, ...] = ()
    delegated: tuple[ToolCall, ...] = ()


@dataclass
class ActivityFold:
    """Folds the events of a job, of all its runs mixed, into activities; an event fed twice counts once."""

    activities: list[Activity] = field(default_factory=list[Activity])
    _runs: dict[str, _Run] = field(default_factory=dict[str, _Run])
    """By segment; the segments of one run share the entry."""
    _conversations: dict[str, _Run] = field(default_factory=dict[str, _Run])
    """By the id of the first message, which all segments of a run have in common."""
    _seen_events: set[str] = field(default_factory=set[str])
    _seen_ids: set[str] = field(default_factory=set[str])

    def feed(self, event: Event) -> list[Activity]:
        """The activities that `event` adds."""
        if not isinstance(event, RunBase) or event.id in self._seen_events:
            return []
        self._seen_events.add(event.id)
        run = self._run(event)
        added = [self._placed(event, run, activity) for activity in (*_acts(event, run), *_tells(event))]
        self.activities.extend(added)
        return added

    def _run(self, event: RunBase) -> _Run:
        match event:
            case StartRun(initial_checkpoint=checkpoint, input_messages=messages):
                run = self._runs[event.run_id] = _Run(_parent(checkpoint))
                for first in (*checkpoint.messages, *messages)[:1]:
                    self._conversations[first.id] = run
            case ResumeFromStop(checkpoint=checkpoint) if checkpoint.messages:
                run = self._conversations.setdefault(checkpoint.messages[0].id, _Run())
                # In another execution of the job, another run has called this one.
                run.delegated_by = _parent(checkpoint)
                self._runs[event.run_id] = run
            case _:
                pass
        return self._runs.setdefault(event.run_id, _Run())

    def _placed(self, event: RunBase, run: _Run, activity: Activity) -> Activity:
        """`activity` with its run, its predecessor and what was thought before it."""
        # Some providers number their calls anew in each answer, so a call's id alone does not tell two actions apart.
        name = activity.id if activity.id not in self._seen_ids else f"{activity.id}-{len(self._seen_ids)}"
        self._seen_ids.add(name)
        placed = activity.replaced(
            id=name,
            expert_key=event.expert_key,
            run_id=event.run_id,
            previous_activity_id=run.last_id,
            delegated_by=run.delegated_by,
            reasoning=run.reasoning,
        )
        run.last_id, run.reasoning = name, None
        return placed


def _acts(event: RunBase, run: _Run) -> list[Activity]:
    """What an event shows of calls; the run remembers them until they are answered."""
    match event:
        case CompleteStreamingReasoning():
            run.reasoning = event.text
        case CallTools():
            run.calls, run.asked, run.delegated = event.tool_calls, (), ()
        case CallDelegate():
            # Those that were cut off are called again when the job goes on.
            run.delegated = (*run.delegated, *_without(event.tool_calls, run.delegated))
            return [_delegation(call) for call in event.tool_calls]
        case ResolveToolResults() | FinishMcpTools():
            return [
                tool_activity(call, result).replaced(id=f"action-{call.id}")
                for call, result in paired(run.calls, event.tool_results)
            ]
        case StopRunByInteractiveTool():
            return _questions(event.checkpoint, run)
        case FinishAllToolCalls() if run.delegated:
            count, run.delegated = len(run.delegated), ()
            return [DelegationCompleteActivity(id=f"delegation-complete-{event.id}", count=count)]
        case _:
            pass
    return []


def _tells(event: RunBase) -> list[Activity]:
    """What an event shows of the run itself."""
    match event:
        case StartRun():
            text = _user_text(event.input_messages)
            return [] if text is None else [QueryActivity(id=f"query-{event.run_id}", text=text)]
        case Retry():
            message = _reason_text(event.reason)
            return [RetryActivity(id=f"retry-{event.id}", error=event.reason, message=message)]
        case CompleteRun():
            return [CompleteActivity(id=f"completion-{event.run_id}", text=event.text)]
        case StopRunByError():
            return [_error(event.error).model_copy(update={"id": f"error-{event.id}"})]
        case _:
            return []


def _questions(checkpoint: Checkpoint, run: _Run) -> list[Activity]:
    """The questions of a stop that were not there at the one before."""
    new = _without(checkpoint.pending_tool_calls or (), run.asked)
    run.asked = (*run.asked, *new)
    return [_question(call).model_copy(update={"id": f"interactive-{call.id}"}) for call in new]


def _without(calls: Iterable[ToolCall], known: Iterable[ToolCall]) -> list[ToolCall]:
    """The calls that are not known, each known one taking away one."""
    left = list(known)
    new: list[ToolCall] = []
    for call in calls:
        if call in left:
            left.remove(call)
        else:
            new.append(call)
    return new


def _parent(checkpoint: Checkpoint) -> ActivityParent | None:
    by = checkpoint.delegated_by
    return by and ActivityParent(expert_key=by.expert.key, run_id=by.run_id)


def _delegation(call: ToolCall) -> DelegateActivity:
    query = call.args.get("query")
    return DelegateActivity(
        id=f"delegate-{call.id}",
        delegate_expert_key=call.skill_name,
        query=query if isinstance(query, str) else "",
    )
