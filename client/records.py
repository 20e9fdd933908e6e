"""One execution as it is kept outside of Temporal: its history and how it ended (decision 0013)."""

import base64
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, cast

from google.protobuf.json_format import ParseError
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from ..workflows.contracts import Closing
from .history import CLOSING_EVENTS, Execution

_ENDS = frozenset(EventType.Name(kind) for kind in CLOSING_EVENTS)
_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EVENT_OF: dict[Closing, EventType.ValueType] = {
    "completed": EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    "failed": EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    "cancelled": EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED,
    "continuedAsNew": EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW,
}


class Records(Protocol):
    """Where records are found."""

    async def get(self, execution: Execution) -> "Record | None":
        """The record of one execution."""
        ...

    async def of(self, workflow_id: str) -> "Sequence[Record]":
        """The records of all executions of a workflow id, in no order."""
        ...


@dataclass(frozen=True, slots=True)
class Record:
    """The history of one execution; its events are kept in Temporal's JSON."""

    job_id: str
    workflow_id: str
    temporal_run_id: str
    events: tuple[dict[str, Any], ...]
    previous: str | None = None
    """Temporal's run id of the execution of the same workflow before this one."""
    closing: Closing | None = None
    """How it ended, where it wrote its history down itself and could not see its own end."""

    @classmethod
    def of(
        cls,
        execution: Execution,
        events: Iterable[HistoryEvent],
        *,
        job_id: str,
        previous: str | None,
        closing: Closing | None = None,
    ) -> Self:
        """The record of a history; slow for a long one, so made in a thread."""
        assert execution.temporal_run_id is not None, "a record is of one execution"
        history = WorkflowHistory(execution.workflow_id, tuple(events)).to_json_dict()
        return cls(
            job_id=job_id,
            workflow_id=execution.workflow_id,
            temporal_run_id=execution.temporal_run_id,
            events=tuple(history["events"]),
            previous=previous,
            closing=closing,
        )

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """A record from its JSON.

        Raises:
            ValueError: this is no record of an execution.
        """
        known = _object(data)
        events = _object(known.get("history")).get("events")
        names = (known.get("jobId"), known.get("workflowId"), known.get("temporalRunId"))
        previous, closing = known.get("previous"), known.get("closing")
        is_record = (
            isinstance(events, list)
            and all(isinstance(name, str) and name for name in names)
            and _RUN_ID.fullmatch(str(names[2])) is not None
            and (previous is None or isinstance(previous, str))
            and (closing is None or closing in _EVENT_OF)
        )
        if is_record:
            record = cls(
                job_id=str(names[0]),
                workflow_id=str(names[1]),
                temporal_run_id=str(names[2]),
                events=tuple(map(_object, cast(list[Any], events))),
                previous=previous,
                closing=closing,
            )
            if record.events and record.task_queue:
                return record
        raise ValueError("it holds no record of an execution")

    def to_json(self) -> dict[str, Any]:
        """This record as JSON."""
        data: dict[str, Any] = {
            "jobId": self.job_id,
            "workflowId": self.workflow_id,
            "temporalRunId": self.temporal_run_id,
            "previous": self.previous,
            "closing": self.closing,
            "history": {"events": list(self.events)},
        }
        return {name: value for name, value in data.items() if value is not None}

    @property
    def execution(self) -> Execution:
        """Whose history this is."""
        return Execution(self.workflow_id, self.temporal_run_id)

    @property
    def task_queue(self) -> str:
        """Where the execution was worked on; empty where the history does not begin at its beginning."""
        started = _object(self.events[0].get("workflowExecutionStartedEventAttributes"))
        name = _object(started.get("taskQueue")).get("name")
        return name if isinstance(name, str) else ""

    @property
    def shows_its_end(self) -> bool:
        """Whether the history goes on to the end of the execution."""
        return self.events[-1].get("eventType") in _ENDS

    @property
    def started_at(self) -> str:
        """When it began; later times sort later."""
        return str(self.events[0].get("eventTime", ""))

    def history(self, following: str | None = None) -> list[HistoryEvent]:
        """The events, closed as the execution was; `following` is the execution that it handed its run on to.

        Raises:
            ValueError: an event cannot be read.
        """
        try:
            events = list(WorkflowHistory.from_json(self.workflow_id, {"events": list(self.events)}).events)
        except (ParseError, TypeError, KeyError) as error:
            raise ValueError(f"an event of {self.workflow_id} cannot be read: {error}") from error
        if self.closing is None or events[-1].event_type in CLOSING_EVENTS:
            return events
        last = HistoryEvent(event_id=events[-1].event_id + 1, event_type=_EVENT_OF[self.closing])
        last.event_time.CopyFrom(events[-1].event_time)
        if self.closing == "continuedAsNew":
            last.workflow_execution_continued_as_new_event_attributes.new_execution_run_id = following or ""
        return [*events, last]

    def merged(self, other: "Record") -> "Record | None":
        """The record that tells more of the same execution; `None` where the two tell different things.

        What an execution wrote down itself is the beginning of what the server knew in the end.
        """
        shorter, longer = sorted((self, other), key=lambda record: len(record.events))
        same = shorter.events == longer.events[: len(shorter.events)]
        if not same or (self.job_id, self.execution, self.previous) != (other.job_id, other.execution, other.previous):
            return None
        if len(shorter.events) == len(longer.events) and shorter.closing != longer.closing:
            return replace(longer, closing=longer.closing or shorter.closing)
        return longer


def newest_of(records: Sequence[Record]) -> Record | None:
    """The last execution of a chain: the one that no other goes on from."""
    gone_on_from = {record.previous for record in records}
    ends = [record for record in records if record.temporal_run_id not in gone_on_from]
    return max(ends, key=lambda record: record.started_at, default=None)


def _object(data: Any) -> dict[str, Any]:
    return cast(dict[str, Any], data) if isinstance(data, dict) else {}


def canonical(data: Any) -> bytes:
    """JSON that is the same for the same data."""
    return json.dumps(data, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def references_in(node: Any) -> Iterator[str]:
    """What the payloads in Temporal's JSON that lie in a storage are called there: the hash of each.

    Raises:
        ValueError: a payload lies where we cannot read it, in the storage of a program that mounts Perstack.
    """
    if isinstance(node, dict):
        known = cast(dict[str, Any], node)
        if "externalPayloads" in known:
            yield _claimed(known)
        for value in known.values():
            yield from references_in(value)
    elif isinstance(node, list | tuple):
        for value in cast(list[Any], node):
            yield from references_in(value)


def _claimed(payload: dict[str, Any]) -> str:
    match json.loads(base64.b64decode(payload.get("data", ""))):
        case {"driverName": "perstack", "claimData": {"sha256": str(sha256)}}:
            return sha256
        case _:
            raise ValueError("a payload lies in a storage that is not Perstack's, or is encoded by another program")
