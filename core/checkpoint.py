"""Checkpoints, steps and jobs (contract §4.1, §4.2, §4.4)."""

from typing import Any, Literal

from .expert import ExpertRef
from .failures import Failure
from .messages import InputMessage, Message
from .tools import ToolCall, ToolResult
from .usage import NO_USAGE, Usage
from .wire import Wire

CheckpointStatus = Literal[
    "init",
    "proceeding",
    "completed",
    "stoppedByInteractiveTool",
    "stoppedByDelegate",
    "stoppedByExceededMaxSteps",
    "stoppedByError",
    "stoppedByCancellation",
]
JobStatus = Literal[
    "running",
    "completed",
    "stoppedByMaxSteps",
    "stoppedByInteractiveTool",
    "stoppedByError",
    "stoppedByCancellation",
]


class DelegationTarget(Wire):
    """A delegate this run waits for."""

    expert: ExpertRef
    tool_call_id: str
    tool_name: str
    query: str


class DelegatedBy(Wire):
    """Where a delegate comes from: its parent's call, checkpoint and run segment."""

    expert: ExpertRef
    tool_call_id: str
    tool_name: str
    checkpoint_id: str
    run_id: str


class Checkpoint(Wire):
    """A snapshot of a run after a step; everything needed to go on from there."""

    id: str
    job_id: str
    run_id: str
    status: CheckpointStatus
    step_number: int
    messages: tuple[Message, ...]
    expert: ExpertRef
    delegate_to: tuple[DelegationTarget, ...] | None = None
    delegated_by: DelegatedBy | None = None
    usage: Usage = NO_USAGE
    context_window: int | None = None
    context_window_usage: float | None = None
    pending_tool_calls: tuple[ToolCall, ...] | None = None
    partial_tool_results: tuple[ToolResult, ...] | None = None
    metadata: dict[str, Any] | None = None
    error: Failure | None = None
    retry_count: int | None = None


class Step(Wire):
    """One turn of the loop: one generation and the tool work it asked for."""

    step_number: int
    input_messages: tuple[InputMessage, ...] | None = None
    new_messages: tuple[Message, ...] = ()
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_results: tuple[ToolResult, ...] | None = None
    pending_tool_calls: tuple[ToolCall, ...] | None = None
    partial_tool_results: tuple[ToolResult, ...] | None = None
    usage: Usage = NO_USAGE
    started_at: int = 0
    """Milliseconds since the epoch; put on by the fold from Temporal's history."""
    finished_at: int | None = None


class Job(Wire):
    """All runs of one request."""

    id: str
    status: JobStatus
    coordinator_expert_key: str
    total_steps: int
    max_steps: int | None = None
    usage: Usage = NO_USAGE
    started_at: int
    finished_at: int | None = None


_JOB_STATUS: dict[CheckpointStatus, JobStatus] = {
    "completed": "completed",
    "stoppedByInteractiveTool": "stoppedByInteractiveTool",
    "stoppedByExceededMaxSteps": "stoppedByMaxSteps",
    "stoppedByError": "stoppedByError",
    "stoppedByCancellation": "stoppedByCancellation",
}


def job_status(root: CheckpointStatus) -> JobStatus:
    """The status of a job whose root run stands at `root`; a root that waits for delegates is running."""
    return _JOB_STATUS.get(root, "running")
