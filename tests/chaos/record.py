"""What Temporal's history says of a job: every activity of every run, with its times."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from chaos.lab import Asked
from perstack.client.connection import connect
from perstack.client.embedded import running_server
from perstack.client.history import Execution
from perstack.client.locations import DataFolder
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.core.run import RunInput
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

_ENDS = {
    EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: ("completed", "activity_task_completed_event_attributes"),
    EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED: ("failed", "activity_task_failed_event_attributes"),
    EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: ("timedOut", "activity_task_timed_out_event_attributes"),
    EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED: ("cancelled", "activity_task_canceled_event_attributes"),
}
_CLOSED = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: "completed",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: "failed",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED: "cancelled",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: "terminated",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: "timedOut",
}
SLACK_SECONDS = 0.005
"""Temporal's times and ours are of one clock, cut to milliseconds."""


@dataclass
class Work:
    """One activity; times are seconds since the epoch."""

    kind: str
    activity_id: str
    queue: str
    scheduled_at: float
    attempts: int = 0
    """Which attempt it was when it ended, from 1."""
    started_at: float | None = None
    worker: str = ""
    """Who began it: process id and host."""
    ended_at: float | None = None
    ending: str = ""


@dataclass
class RunRecord:
    """One run."""

    workflow_id: str
    who: str = ""
    works: list[Work] = field(default_factory=list[Work])
    cancel_requested_at: float | None = None
    closed_at: float | None = None
    closing: str = ""


@dataclass(frozen=True)
class Record:
    """One job: its root first."""

    runs: tuple[RunRecord, ...]

    @property
    def unfinished(self) -> list[Work]:
        """The activities that ended in another way than with a result."""
        return [work for run in self.runs for work in run.works if work.ending not in ("", "completed")]

    @property
    def root(self) -> RunRecord:
        """The coordinator's run."""
        return self.runs[0]

    def window(self, who: str, turn: int) -> tuple[float, float] | None:
        """From when to when the answer `turn` of an expert was being made, lost tries included."""
        works = [
            work
            for run in self.runs
            if run.who == who
            for work in run.works
            if work.kind == "generate" and work.activity_id == f"generate-{turn}"
        ]
        if not works:
            return None
        ended = [work.ended_at for work in works]
        last = max((at for at in ended if at is not None), default=0.0)
        return min(work.scheduled_at for work in works), float("inf") if None in ended else last


async def read_record(data: DataFolder, job_id: str) -> Record:
    """Read a job and all its delegates."""
    info = running_server(data)
    assert info is not None, "the server is gone"
    client = await connect(info, storage=PayloadDriver(FolderStorage(data.storage)))
    runs: list[RunRecord] = []
    waiting = [Execution(job_id)]
    while waiting:
        run, children = await _read_run(client, waiting.pop(0))
        runs.append(run)
        waiting.extend(children)
    return Record(tuple(runs))


async def _read_run(client: Client, execution: Execution) -> tuple[RunRecord, list[Execution]]:
    run = RunRecord(execution.workflow_id)
    children: list[Execution] = []
    works: dict[int, Work] = {}
    handle = client.get_workflow_handle(execution.workflow_id, run_id=execution.temporal_run_id)
    async for event in handle.fetch_history_events():
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
            payloads = event.workflow_execution_started_event_attributes.input.payloads
            [start] = await client.data_converter.decode(payloads, [RunInput])
            run.who = start.expert_key.rpartition("/")[2]
        _take(run, works, event)
        if event.event_type == EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
            child = event.child_workflow_execution_started_event_attributes.workflow_execution
            children.append(Execution(child.workflow_id, child.run_id))
    return run, children


def _take(run: RunRecord, works: dict[int, Work], event: HistoryEvent) -> None:
    at = event.event_time.ToNanoseconds() / 1e9
    if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
        scheduled = event.activity_task_scheduled_event_attributes
        work = Work(scheduled.activity_type.name, scheduled.activity_id, scheduled.task_queue.name, at)
        works[event.event_id] = work
        run.works.append(work)
    elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
        started = event.activity_task_started_event_attributes
        work = works[started.scheduled_event_id]
        work.attempts, work.worker, work.started_at = started.attempt, started.identity, at
    elif event.event_type in _ENDS:
        ending, attributes = _ENDS[event.event_type]
        work = works[getattr(event, attributes).scheduled_event_id]
        work.ended_at, work.ending = at, ending
    elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED:
        run.cancel_requested_at = run.cancel_requested_at or at
    elif event.event_type in _CLOSED:
        run.closed_at, run.closing = at, _CLOSED[event.event_type]


def repeats(record: Record, asked: Sequence[Asked], outages: Sequence[tuple[float, float]]) -> int:
    """How many model calls were made again.

    Raises:
        AssertionError: one was repeated that was not under way in an outage, or more often than there were outages.
    """
    counts: dict[tuple[str, int], int] = {}
    for one in asked:
        counts[one.who, one.turn] = counts.get((one.who, one.turn), 0) + 1
    for (who, turn), count in counts.items():
        window = record.window(who, turn)
        assert window is not None, f"history knows no model call {turn} of {who}"
        begun, ended = window[0] - SLACK_SECONDS, window[1] + SLACK_SECONDS
        hit = sum(begun <= over and outage <= ended for outage, over in outages)
        assert count <= 1 + hit, f"the model was asked {count} times for turn {turn} of {who}, hit by {hit} outages"
    return sum(counts.values()) - len(counts)
