"""Names and payloads that workflows, activities and readers share; the only module both sides import."""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    TimeoutError,
    TimeoutType,
)

from ..core.conversation import Appendix, Position
from ..core.failures import Attempt, Failure
from ..core.run import Generation, RunResult, SessionReport
from ..core.tools import ToolOutcome
from ..core.usage import NO_USAGE, Usage
from ..core.wire import Wire

EXPERT_RUN = "ExpertRun"
SNAPSHOT_QUERY = "snapshot"
RESPOND_UPDATE = "respond"
WORKER_LOST = "worker.lost"
"""Type of the failure by which somebody ends the activity of a worker he knows to be gone."""
WORKER_LEAVING = "worker.leaving"
"""Type of the failure by which a worker that is leaving refuses what it has not begun."""
WORKER_SHUTDOWN = "WorkerShutdown"
"""The SDK's name for an activity cut off by its worker's end."""
TOO_LONG = "activity.timeout"
TOOK_TOO_LONG = "The call took longer than its time limit and was ended."

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class ActivitySpec(Generic[In, Out]):
    """A registered activity name with the types of its one argument and its result."""

    name: str
    input_type: type[In]
    output_type: type[Out]


class OpenRequest(Wire):
    """Open the session of the run whose workflow calls; the run's input is read from its own history."""

    is_first: bool
    """The first opening renders the instruction; later ones only choose a worker."""
    workspace_id: str | None = None
    """The marker the worker's workspace must bear; unknown to the first opening of a root."""


class GenerateRequest(Wire):
    """One model call; the conversation is in the session, not here."""

    step: int
    ordinal: int
    position: Position
    appendix: Appendix = Appendix()


class CallRequest(Wire):
    """One tool call; its arguments are in the session."""

    step: int
    index: int
    position: Position


class CallAnswer(Wire):
    """The outcome of a call; absent when a local call found no session in its process."""

    outcome: ToolOutcome | None = None


class Response(Wire):
    """A person's answer to one interactive call."""

    call_id: str
    text: str


Closing = Literal["completed", "failed", "cancelled", "continuedAsNew"]
"""How an execution ends by itself."""


class ArchiveRequest(Wire):
    """Keep the calling execution's history; what it cannot show yet is said here."""

    job_id: str
    closing: Closing
    previous: str | None = None


class FailureDetails(Wire):
    """The first detail of every failure our activities raise."""

    failure: Failure
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = NO_USAGE


class Heartbeat(Wire):
    """What a running model call reports: failed attempts so far, and the tail of what it says (DESIGN §5)."""

    attempts: tuple[Attempt, ...] = ()
    begun_at: int = 0
    """When the attempt that says this began, in milliseconds since the epoch; details outlive their attempt."""
    seq: int = 0
    offset: int = 0
    """How many characters of text came before `tail`."""
    tail: str = ""
    reasoning_offset: int = 0
    reasoning_tail: str = ""
    waiting: str = ""
    """What keeps the call from going on, for people: a storage that is away."""


OPEN_SESSION = ActivitySpec("open_session", OpenRequest, SessionReport)
GENERATE = ActivitySpec("generate", GenerateRequest, Generation)
CALL_TOOL = ActivitySpec("call_tool", CallRequest, CallAnswer)
ARCHIVE = ActivitySpec("archive", ArchiveRequest, type(None))


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker of an activity is gone."""

    has_started: bool
    attempts: tuple[Attempt, ...] = ()
    is_refused: bool = False
    """It is about to leave and did not begin."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The activity ended because it was cancelled."""


def read_activity_failure(error: BaseException) -> Lost | Cancelled | FailureDetails:
    """What a failed activity means; the workflow and the readers of its history ask here.

    `error` is an `ActivityError` or its cause: a local activity's failure comes bare, like one from a history event.
    """
    if isinstance(error, ActivityError) and error.cause is not None:
        error = error.cause
    match error:
        case TimeoutError(type=TimeoutType.HEARTBEAT):
            return Lost(has_started=True, attempts=_attempts(error.last_heartbeat_details))
        case TimeoutError(type=TimeoutType.SCHEDULE_TO_START):
            return Lost(has_started=False)
        case TimeoutError():
            return FailureDetails(failure=Failure(name=TOO_LONG, message=TOOK_TOO_LONG))
        case CancelledError():
            return Cancelled()
        case ApplicationError(type=kind) if kind == WORKER_LEAVING:
            return Lost(has_started=False, attempts=_attempts(error.details), is_refused=True)
        case ApplicationError(type=kind) if kind in (WORKER_LOST, WORKER_SHUTDOWN):
            return Lost(has_started=True, attempts=_attempts(error.details))
        case ApplicationError():
            return _details(error)
        case _:
            return FailureDetails(failure=Failure(name=type(error).__name__, message=str(error)))


def read_child_failure(error: BaseException, *, expert_key: str, step: int) -> RunResult:
    """How a delegate ended that did not return a result; `step` stands for a child that never took one."""
    if isinstance(error, ChildWorkflowError) and error.cause is not None:
        error = error.cause
    if isinstance(error, ApplicationError) and error.details:
        return RunResult.model_validate(_plain(error.details[0]))
    is_cancelled = isinstance(error, CancelledError)
    return RunResult(
        status="stoppedByCancellation" if is_cancelled else "stoppedByError",
        expert_key=expert_key,
        run_id="",
        checkpoint_id="",
        last_step=step,
        failure=None if is_cancelled else Failure(name=type(error).__name__, message=str(error)),
    )


def _details(error: ApplicationError) -> FailureDetails:
    if error.details:
        return FailureDetails.model_validate(_plain(error.details[0]))
    return FailureDetails(failure=Failure(name=error.type or "activity.failed", message=error.message))


def _attempts(details: Any) -> tuple[Attempt, ...]:
    return Heartbeat.model_validate(_plain(details[0])).attempts if details else ()


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, Wire) else value
