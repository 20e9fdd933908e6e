"""Temporal's history → triggers → the fold: the one decoder of what Temporal recorded of a run (DESIGN §1)."""

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeVar

from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter
from temporalio.exceptions import CancelledError, TerminatedError, TimeoutError

from ..core.cassette import CassetteEntry, Situation, answered_calls
from ..core.effects import Delegate
from ..core.events import Event
from ..core.failures import Failure
from ..core.fold import Fold
from ..core.lineage import Moment
from ..core.run import Generation, RunInput, RunResult, SessionReport, require_known_machine
from ..core.state import RunState, State
from ..core.tools import ToolOutcome
from ..core.triggers import (
    Answered,
    CancelRequested,
    DelegateFinished,
    Generated,
    GenerationFailed,
    SessionOpened,
    Started,
    ToolFinished,
    Trigger,
)
from ..workflows.contracts import (
    ARCHIVE,
    CALL_TOOL,
    GENERATE,
    OPEN_SESSION,
    RESPOND_UPDATE,
    CallAnswer,
    Cancelled,
    Response,
    read_activity_failure,
    read_child_failure,
)
from ..workflows.outcomes import Ending, not_called, not_generated, session_not_opened

T = TypeVar("T")
_LOCAL_ACTIVITY_MARKER = "core_local_activity"

_CHILD_NOT_STARTED = EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED

_CLOSED = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: "completed",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: "failed",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED: "cancelled",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: "terminated",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: "timedOut",
}
CLOSING_EVENTS = frozenset({*_CLOSED, EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW})
"""What no other event follows."""
_ACTIVITY_ENDS = {
    EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED: "activity_task_failed_event_attributes",
    EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: "activity_task_timed_out_event_attributes",
    EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED: "activity_task_canceled_event_attributes",
}
_CHILD_ENDS = {
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED: "child_workflow_execution_completed_event_attributes",
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED: "child_workflow_execution_failed_event_attributes",
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELED: "child_workflow_execution_canceled_event_attributes",
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TERMINATED: "child_workflow_execution_terminated_event_attributes",
    EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TIMED_OUT: "child_workflow_execution_timed_out_event_attributes",
    _CHILD_NOT_STARTED: "start_child_workflow_execution_failed_event_attributes",
}


_ENDS_OF_WORK = {EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED, *_ACTIVITY_ENDS, *_CHILD_ENDS}


class _On:
    """What is asked of every event; the names of the protocol are looked up anew each time they are used."""

    WORKFLOW_EXECUTION_STARTED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED
    WORKFLOW_EXECUTION_CONTINUED_AS_NEW = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
    ACTIVITY_TASK_SCHEDULED = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ACTIVITY_TASK_COMPLETED = EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
    MARKER_RECORDED = EventType.EVENT_TYPE_MARKER_RECORDED
    START_CHILD_WORKFLOW_EXECUTION_INITIATED = EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED
    CHILD_WORKFLOW_EXECUTION_STARTED = EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED
    WORKFLOW_EXECUTION_UPDATE_ACCEPTED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
    WORKFLOW_EXECUTION_CANCEL_REQUESTED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED
    WORKFLOW_EXECUTION_CANCELED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED
    WORKFLOW_TASK_STARTED = EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED


@dataclass(frozen=True, slots=True)
class Execution:
    """One Temporal execution: a workflow id and, once known, its run id."""

    workflow_id: str
    temporal_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Activity:
    kind: str
    activity_id: str

    @property
    def call_index(self) -> int:
        return int(self.activity_id.rpartition("-")[2])


@dataclass
class RunReader:
    """Folds the history of one execution, event by event."""

    converter: DataConverter
    fold: Fold | None = None
    closed: str | None = None
    """How the execution ended, in Temporal's terms; `None` while it is open."""
    is_lost: bool = False
    """Whether nobody knows the history any more; set by who looked for it."""
    is_archived: bool = False
    """Whether the execution read last has written all of its history so far into the archive."""
    started_at: int = 0
    """Milliseconds since the epoch."""
    ended_at: int = 0
    """The time of the last event that changed anything: what comes after the run has stopped does not."""
    changed_at: int = 0
    """When the run itself last went on: who polls, leaves or is timed out changes nothing of it."""
    started_child: Execution | None = None
    """The delegate that the last event started."""
    next_execution: str | None = None
    """Temporal's run id of the execution that goes on with this run, once this one has handed it on."""
    first_start: RunInput | None = None
    """What the run began with, before any execution carried it on."""
    tree: "list[RunReader]" = field(default_factory=list["RunReader"])
    """All runs below the same execution of the root; kept by who reads them."""
    is_keeping: bool = False
    moments: list[Moment] = field(default_factory=list[Moment])
    """Every trigger with what became of the run; kept only when asked to, for `lineage`."""
    is_recording: bool = False
    recorded: list[CassetteEntry] = field(default_factory=list[CassetteEntry])
    """Every answer of the model with what it answered to; kept only when recording."""
    _cancelled_at: int = 0
    _activities: dict[int, _Activity] = field(default_factory=dict[int, _Activity])
    _waiting_calls: deque[int] = field(default_factory=deque[int])
    _children: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def has_reported(self) -> bool:
        """Whether the run's end told its parent what it used; a cancelled or terminated run tells nothing."""
        return self.closed in ("completed", "failed")

    @property
    def is_generating(self) -> bool:
        """Whether the run waits for its model, as far as it has been read."""
        return self.closed is None and self.fold is not None and self.fold.state.is_generating

    async def feed(self, event: HistoryEvent) -> list[Event]:
        """The events that one history event makes."""
        self.started_child = None
        self.closed = self.closed or _CLOSED.get(event.event_type)
        if self.fold is None or self.fold.state.state != State.STOPPED:
            self.ended_at = event.event_time.ToMilliseconds()
            self.started_at = self.started_at or self.ended_at
        trigger = await self._trigger(event)
        if trigger is not None:
            return self._advance(trigger)
        if event.event_type == _On.WORKFLOW_EXECUTION_CANCELED:
            return self._settle()
        return []

    def _settle(self) -> list[Event]:
        """End what a cancellation ended before it was on record: a call that was never made has no event."""
        events: list[Event] = []
        # It ended when it was cancelled; when the closing was written, server and archive tell differently.
        self.ended_at = self._cancelled_at or self.ended_at
        while self.fold is not None and (trigger := _unrecorded(self.fold.state)) is not None:
            events.extend(self._advance(trigger))
        return events

    def _advance(self, trigger: Trigger) -> list[Event]:
        if self.fold is None or self.fold.state.state == State.STOPPED:
            return []
        self.is_archived = False
        if self.is_recording:
            self._record(self.fold, trigger)
        self.changed_at = self.ended_at
        events = self.fold.feed(trigger, self.ended_at)
        if self.is_keeping:
            self.moments.append(Moment(trigger, self.fold.state, tuple(events)))
        for effect in self.fold.effects:
            if isinstance(effect, Delegate):
                self._waiting_calls.extend(call.index for call in effect.calls)
        return events

    def _record(self, fold: Fold, trigger: Trigger) -> None:
        match trigger:
            case Generated(generation) if generation.finish_reason != "cancelled":
                reply = generation.model_copy(update={"attempts": (), "is_draining": False})
            case GenerationFailed(failure):
                reply = failure
            case _:
                return
        state = fold.state
        situation = Situation(
            expert_key=fold.start.expert_key,
            tools=tuple(spec.name for spec in state.toolset.specs),
            answers=answered_calls(state.checkpoint.messages),
        )
        entry = CassetteEntry(path=fold.start.path, ordinal=state.generations, situation=situation, reply=reply)
        self.recorded.append(entry)

    async def _trigger(self, event: HistoryEvent) -> Trigger | None:
        match event.event_type:
            case _On.WORKFLOW_EXECUTION_STARTED:
                return self._started(await self._one(event.workflow_execution_started_event_attributes.input, RunInput))
            case _On.WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
                attributes = event.workflow_execution_continued_as_new_event_attributes
                self.next_execution = attributes.new_execution_run_id or None
                return None
            case _On.ACTIVITY_TASK_SCHEDULED:
                scheduled = event.activity_task_scheduled_event_attributes
                self._activities[event.event_id] = _Activity(scheduled.activity_type.name, scheduled.activity_id)
                return None
            case _On.ACTIVITY_TASK_COMPLETED:
                completed = event.activity_task_completed_event_attributes
                return await self._completed(self._activities.pop(completed.scheduled_event_id), completed.result)
            case kind if kind in _ACTIVITY_ENDS:
                return await self._ended(event, _ACTIVITY_ENDS[kind])
            case _On.MARKER_RECORDED:
                return await self._marker(event)
            case _On.START_CHILD_WORKFLOW_EXECUTION_INITIATED:
                self._children[event.event_id] = self._waiting_calls.popleft()
                return None
            case _On.CHILD_WORKFLOW_EXECUTION_STARTED:
                child = event.child_workflow_execution_started_event_attributes.workflow_execution
                self.started_child = Execution(child.workflow_id, child.run_id)
                return None
            case kind if kind in _CHILD_ENDS:
                return await self._child_ended(event, _CHILD_ENDS[kind])
            case _On.WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                return await self._answered(event)
            case _On.WORKFLOW_EXECUTION_CANCEL_REQUESTED:
                self._cancelled_at = self.ended_at
                return CancelRequested()
            case _:
                return None

    def _started(self, start: RunInput) -> Trigger | None:
        require_known_machine(start.settings)
        self.next_execution = None
        self.is_archived = False
        self.first_start = self.first_start or start
        if start.carried is None:
            self.fold = Fold(start)
            return Started()
        if self.fold is None:
            self.fold = Fold(start)
        else:
            self.fold.carry_on(start)
        return None

    async def _completed(self, activity: _Activity, result: Payloads) -> Trigger | None:
        if activity.kind == OPEN_SESSION.name:
            report = await self._one(result, SessionReport)
            return SessionOpened(report) if activity.activity_id == "open-0" else None
        if activity.kind == GENERATE.name:
            return Generated(await self._one(result, Generation))
        if activity.kind == CALL_TOOL.name:
            return _called(activity, await self._one(result, CallAnswer))
        self.is_archived = self.is_archived or activity.kind == ARCHIVE.name
        return None

    async def _ended(self, event: HistoryEvent, attributes_name: str) -> Trigger | None:
        attributes: Any = getattr(event, attributes_name)
        activity = self._activities.pop(attributes.scheduled_event_id)
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED:
            return self._failed(activity, Cancelled())
        error = await self.converter.decode_failure(attributes.failure)
        return self._failed(activity, read_activity_failure(error))

    def _failed(self, activity: _Activity, ending: Ending) -> Trigger | None:
        if activity.kind == GENERATE.name:
            return not_generated(ending)
        if activity.kind == CALL_TOOL.name:
            return not_called(activity.call_index, ending)
        return session_not_opened(ending) if activity.kind == OPEN_SESSION.name else None

    async def _marker(self, event: HistoryEvent) -> Trigger | None:
        """A local activity, in the SDK's own marker format (pinned by a test)."""
        marker = event.marker_recorded_event_attributes
        if marker.marker_name != _LOCAL_ACTIVITY_MARKER:
            return None
        data = json.loads(marker.details["data"].payloads[0].data)
        activity = _Activity(data["activity_type"], data["activity_id"])
        if marker.HasField("failure"):
            return self._failed(activity, read_activity_failure(await self.converter.decode_failure(marker.failure)))
        return _called(activity, await self._one(marker.details["result"], CallAnswer))

    async def _answered(self, event: HistoryEvent) -> Trigger | None:
        request = event.workflow_execution_update_accepted_event_attributes.accepted_request
        if request.input.name != RESPOND_UPDATE:
            return None
        assert self.fold is not None
        response = await self._one(request.input.args, Response)
        calls = self.fold.state.calls
        return Answered(next(index for index, call in enumerate(calls) if call.id == response.call_id), response.text)

    async def _child_ended(self, event: HistoryEvent, attributes_name: str) -> Trigger:
        assert self.fold is not None
        attributes: Any = getattr(event, attributes_name)
        index = self._children.pop(attributes.initiated_event_id)
        step = self.fold.state.checkpoint.step_number
        key = self.fold.state.calls[index].skill_name
        if event.event_type == _CHILD_NOT_STARTED:
            failure = Failure(name="ChildWorkflowError", message="The delegate's workflow could not be started.")
            return DelegateFinished(index, _failed_child(failure, key, step))
        if event.event_type == EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED:
            return DelegateFinished(index, await self._one(attributes.result, RunResult))
        error: BaseException
        if event.event_type == EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED:
            error = await self.converter.decode_failure(attributes.failure)
        else:
            error = _ended_without_failure(event)
        return DelegateFinished(index, read_child_failure(error, expert_key=key, step=step))

    async def _one(self, payloads: Payloads, kind: type[T]) -> T:
        return (await self.converter.decode(payloads.payloads, [kind]))[0]


def is_end_of_work(event: HistoryEvent) -> bool:
    """Whether an activity or a delegate ended: the run hears of it with its next workflow task."""
    return event.event_type in _ENDS_OF_WORK


def is_told_to_workflow(event: HistoryEvent) -> bool:
    """Whether the run has heard by now of everything that ended before."""
    return event.event_type == _On.WORKFLOW_TASK_STARTED or event.event_type in _CLOSED


def _unrecorded(state: RunState) -> Trigger | None:
    """What ended a part of a cancelled run that history knows nothing of; `None` when all is on record."""
    if not state.is_cancelling or state.state == State.STOPPED:
        return None
    if state.is_opening:
        return session_not_opened(Cancelled())
    if state.is_generating:
        return not_generated(Cancelled())
    if state.running and state.state == State.CALLING_MCP_TOOLS:
        return not_called(state.running[0], Cancelled())
    if state.running and state.state == State.CALLING_DELEGATES:
        index = state.running[0]
        key, step = state.calls[index].skill_name, state.checkpoint.step_number
        return DelegateFinished(index, read_child_failure(CancelledError("Cancelled"), expert_key=key, step=step))
    return None


def ended_child_id(event: HistoryEvent) -> str | None:
    """The workflow id of the delegate that `event` ends."""
    name = _CHILD_ENDS.get(event.event_type)
    if name is None or event.event_type == _CHILD_NOT_STARTED:
        return None
    return getattr(event, name).workflow_execution.workflow_id


def _called(activity: _Activity, answer: CallAnswer) -> Trigger | None:
    outcome: ToolOutcome | None = answer.outcome
    return None if outcome is None else ToolFinished(activity.call_index, outcome)


def _failed_child(failure: Failure, key: str, step: int) -> RunResult:
    return RunResult(
        status="stoppedByError", expert_key=key, run_id="", checkpoint_id="", last_step=step, failure=failure
    )


def _ended_without_failure(event: HistoryEvent) -> BaseException:
    """The exception the workflow saw of a child that ended without a failure of its own."""
    match event.event_type:
        case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELED:
            return CancelledError("Cancelled")
        case EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TERMINATED:
            return TerminatedError("Child workflow terminated")
        case _:
            return TimeoutError("Child workflow timed out", type=None, last_heartbeat_details=[])
