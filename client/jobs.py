"""Jobs as a client handles them: start one, find one, see who works on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic_core import to_json
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.common import TypedSearchAttributes, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ..core.failures import UsageError
from ..core.ids import is_job_id
from ..core.lineage import Lineage
from ..core.run import RunInput, RunResult
from ..core.state import State
from ..core.tools import ToolCall
from ..workflows.contracts import EXPERT_RUN, RESPOND_UPDATE, Response
from ..workflows.options import (
    EXPERT_ATTRIBUTE,
    QUERY_ATTRIBUTE,
    STATUS_ATTRIBUTE,
    STEPS_ATTRIBUTE,
    TOKENS_ATTRIBUTE,
    WORKFLOW_TASK_TIMEOUT,
    WORKSPACE_MEMO,
    job_priority,
    run_memo,
    run_summary,
    start_attributes,
)
from .follow import JobFollower
from .histories import Histories
from .history import Execution
from .storage.base import Storage


@dataclass(frozen=True)
class JobView:
    """A job as Temporal describes it, or as the archive has it."""

    execution: Execution
    task_queue: str
    is_open: bool
    start: RunInput
    is_archived: bool = False
    """Whether the server has forgotten it, or never had it."""


@dataclass(frozen=True)
class JobSummary:
    """A job as a list shows it; what the server does not know is empty."""

    job_id: str
    status: str
    """`running`, `waiting`, or how the job ended."""
    started_at: datetime
    closed_at: datetime | None
    expert_key: str = ""
    query: str = ""
    steps: int | None = None
    tokens: int | None = None


class Jobs:
    """The jobs of one Temporal namespace, and those of the archive of one storage."""

    def __init__(self, client: Client, storage: Storage | None = None) -> None:
        self._client = client
        self.histories = Histories.on(client, storage)
        """Where they are read from."""

    async def start(self, start: RunInput, *, task_queue: str) -> Execution:
        """Start the root run of a job; the same job id with the same task is the job that is there already.

        Raises:
            UsageError: the job id belongs to another task.
        """
        if await self.histories.newest_record(start.job_id) is None:
            with suppress(WorkflowAlreadyStartedError):
                return await self._start(start, task_queue, WorkflowIDReusePolicy.REJECT_DUPLICATE)
        existing = await self.view(start.job_id)
        if not await self._has_task(existing, start):
            raise UsageError(
                f"Job {start.job_id} exists already, with another expert or query.",
                code="usage.job_exists",
                hint=f"Choose another --job-id, or look at it with `perstack log --job {start.job_id}`.",
            )
        return existing.execution

    async def go_on(self, start: RunInput, *, task_queue: str) -> Execution:
        """Start the next execution of a job that is closed.

        Raises:
            UsageError: somebody else has done so meanwhile.
        """
        try:
            return await self._start(start, task_queue, WorkflowIDReusePolicy.ALLOW_DUPLICATE)
        except WorkflowAlreadyStartedError as error:
            raise UsageError(
                f"Somebody else went on with job {start.job_id} a moment ago.",
                code="usage.job_open",
                hint=f"`perstack resume {start.job_id}` follows it.",
            ) from error

    async def _start(self, start: RunInput, task_queue: str, reuse: WorkflowIDReusePolicy) -> Execution:
        handle = await self._client.start_workflow(
            EXPERT_RUN,
            start,
            id=start.job_id,
            task_queue=task_queue,
            result_type=RunResult,
            id_reuse_policy=reuse,
            id_conflict_policy=WorkflowIDConflictPolicy.FAIL,
            static_summary=run_summary(start),
            search_attributes=TypedSearchAttributes(start_attributes(start)),
            memo=run_memo(start),
            priority=job_priority(start.job_id),
            task_timeout=WORKFLOW_TASK_TIMEOUT,
            request_eager_start=True,
        )
        return Execution(start.job_id, handle.first_execution_run_id)

    async def _has_task(self, job: JobView, start: RunInput) -> bool:
        """Whether a job was begun with, or last asked, what `start` asks."""
        task = (start.expert_key, start.query)
        if (job.start.expert_key, job.start.query) == task:
            return True
        first = (await self.histories.job_chain(job.execution))[0]
        begun = await self.histories.read_input(first)
        return (begun.expert_key, begun.query) == task

    async def view(self, job_id: str) -> JobView:
        """The newest execution of a job.

        Raises:
            UsageError: there is no such job.
        """
        try:
            description = await self._client.get_workflow_handle(job_id).describe()
        except RPCError as error:
            # An id that is empty or too long is refused as such.
            if error.status not in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                raise
            archived = await self._archived(job_id)
            if archived is None:
                raise UsageError(
                    f"There is no job {job_id} on this server, nor in the archive.",
                    code="usage.unknown_job",
                    hint="Check the id, the server (--address, TEMPORAL_ADDRESS) and the storage (PERSTACK_STORAGE, "
                    "PERSTACK_DATA_DIR).",
                ) from error
            return archived
        execution = Execution(job_id, description.run_id)
        if description.workflow_type != EXPERT_RUN:
            raise UsageError(f"{job_id} is not a Perstack job but a workflow of type {description.workflow_type}.")
        return JobView(
            execution=execution,
            task_queue=description.task_queue,
            is_open=description.status == WorkflowExecutionStatus.RUNNING,
            start=await self.histories.read_input(execution),
        )

    async def _archived(self, job_id: str) -> JobView | None:
        record = await self.histories.newest_record(job_id) if is_job_id(job_id) else None
        if record is None:
            return None
        start = await self.histories.read_input(record.execution)
        return JobView(record.execution, record.task_queue, is_open=False, start=start, is_archived=True)

    async def list(self, *, take: int, status: str | None = None) -> AsyncIterator[JobSummary]:
        """Open jobs first, then those that ended last, at most `take`; of one `status` where it is given."""
        seen = set[str]()
        found = 0
        async for execution in self._client.list_workflows(_ROOTS):
            if execution.id in seen:
                continue  # an earlier execution of a job that went on
            seen.add(execution.id)
            summary = _summary(execution)
            if status is not None and summary.status != status:
                continue
            yield summary
            found += 1
            if found >= take:
                return

    async def latest_in(self, workspace: str) -> str:
        """The id of the job that was started last in a workspace.

        Raises:
            UsageError: there is none on this server.
        """

        async def is_here(execution: WorkflowExecution) -> bool:
            return await execution.memo_value(WORKSPACE_MEMO, "", type_hint=str) == workspace

        newest = await self._newest(is_here)
        if newest is not None:
            return newest.id
        raise UsageError(
            f"No job has run in {workspace} yet.",
            code="usage.unknown_job",
            hint="`perstack jobs` lists the jobs of the server; --continue-job names one.",
        )

    async def latest(self) -> str | None:
        """The id of the job that was started or went on last, anywhere on the server."""

        async def is_any(execution: WorkflowExecution) -> bool:
            return True

        newest = await self._newest(is_any)
        return newest.id if newest is not None else None

    async def _newest(self, matches: Callable[[WorkflowExecution], Awaitable[bool]]) -> WorkflowExecution | None:
        """The job started last of those that match.

        The server lists the open ones first, then by their ends: whatever is found, a later start may come after it.
        """
        newest: WorkflowExecution | None = None
        query = _ROOTS
        while True:
            found: WorkflowExecution | None = None
            async for execution in self._client.list_workflows(query):
                if await matches(execution):
                    found = execution
                    break
            if found is None or (newest is not None and found.start_time <= newest.start_time):
                return newest
            newest = found
            query = f"{_ROOTS} AND StartTime > '{found.start_time.isoformat()}'"

    async def lineage(self, view: JobView) -> Lineage:
        """All checkpoints that a job can go on from."""
        chain = await self.histories.job_chain(view.execution)
        follower = JobFollower(self.histories, *chain, wait=False, is_keeping=True)
        async for _ in follower.events():
            pass
        return follower.lineage()

    async def cancel(self, view: JobView) -> None:
        """Ask a job to end; a worker has to poll its queue."""
        execution = view.execution
        await self._client.get_workflow_handle(execution.workflow_id, run_id=execution.temporal_run_id).cancel()

    async def respond(self, view: JobView, call_id: str | None, text: str) -> ToolCall:
        """Answer an open question of a job, the only one where `call_id` is left out; the question that was answered.

        A worker has to poll the job's queue.

        Raises:
            UsageError: the job asks nothing, nothing of that id, or several things.
        """
        question = await self.open_question(view, call_id)
        handle = self._client.get_workflow_handle(view.execution.workflow_id, run_id=view.execution.temporal_run_id)
        response = Response(call_id=question.id, text=text)
        for pause in _ANSWER_PAUSES:
            try:
                await handle.execute_update(RESPOND_UPDATE, response)  # pyright: ignore[reportUnknownMemberType]
            except WorkflowUpdateFailedError:
                # Either somebody else was faster, which is said here, or the run has yet to see what its history
                # shows already: its worker left in between, and the new one takes both in one go, the answer first.
                await self.open_question(view, question.id)
                await asyncio.sleep(pause)
            else:
                return question
        raise UsageError(f"Job {view.execution.workflow_id} did not take the answer.", code="usage.no_question")

    async def open_question(self, view: JobView, call_id: str | None) -> ToolCall:
        """The open question that `call_id` names, or the only one.

        Raises:
            UsageError: there is none such.
        """
        return _question(await self.questions(view.execution), call_id, view.execution.workflow_id)

    async def questions(self, execution: Execution) -> tuple[ToolCall, ...]:
        """What a job asks a person now."""
        reader = await self.histories.read_run(execution)
        if reader.fold is None or reader.closed or reader.fold.state.state != State.CALLING_INTERACTIVE_TOOLS:
            return ()
        return tuple(reader.fold.state.checkpoint.pending_tool_calls or ())

    async def has_worker(self, task_queue: str) -> bool:
        """Whether anybody polls a queue for workflow tasks."""
        answer = await self._client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=self._client.namespace,
                task_queue=TaskQueue(name=task_queue),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
            ),
            timeout=timedelta(seconds=5),
        )
        return bool(answer.pollers)

    async def wait_for_worker(self, task_queue: str, *, seconds: float) -> bool:
        """Whether somebody polls the queue now or within `seconds`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not await self.has_worker(task_queue):
            if loop.time() > deadline:
                return False
            await asyncio.sleep(0.2)
        return True


_ROOTS = f"WorkflowType = '{EXPERT_RUN}' AND ParentWorkflowId IS NULL AND ExecutionStatus != 'ContinuedAsNew'"
_ANSWER_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds between tries of an answer."""
_OPEN = {"running", "waiting"}
_ENDED = {
    WorkflowExecutionStatus.COMPLETED: "completed",
    WorkflowExecutionStatus.FAILED: "stoppedByError",
    WorkflowExecutionStatus.CANCELED: "stoppedByCancellation",
    WorkflowExecutionStatus.TERMINATED: "terminated",
    WorkflowExecutionStatus.TIMED_OUT: "timedOut",
}


def _summary(execution: WorkflowExecution) -> JobSummary:
    attributes = execution.typed_search_attributes
    status = attributes.get(STATUS_ATTRIBUTE, "")
    ended = _ENDED.get(execution.status) if execution.status else None
    if ended is not None and (not status or status in _OPEN):
        # Terminated, or closed by a server that knows none of our attributes.
        status = ended
    return JobSummary(
        job_id=execution.id,
        status=status or "running",
        started_at=execution.start_time,
        closed_at=execution.close_time,
        expert_key=attributes.get(EXPERT_ATTRIBUTE, ""),
        query=attributes.get(QUERY_ATTRIBUTE, ""),
        steps=attributes.get(STEPS_ATTRIBUTE),
        tokens=attributes.get(TOKENS_ATTRIBUTE),
    )


def _question(questions: tuple[ToolCall, ...], call_id: str | None, job_id: str) -> ToolCall:
    shown = "; ".join(f"{call.id}: {call.tool_name} {to_json(call.args).decode()}" for call in questions)
    if not questions:
        raise UsageError(
            f"Job {job_id} asks nothing.",
            code="usage.no_question",
            hint=f"`perstack log --job {job_id}` shows where it stands.",
        )
    if call_id is None and len(questions) > 1:
        raise UsageError(
            f"Job {job_id} asks several things: give the id of the one you answer.",
            code="usage.no_question",
            hint=f"Open: {shown}.",
        )
    found = next((call for call in questions if call_id in (None, call.id)), None)
    if found is None:
        raise UsageError(
            f"No open question of job {job_id} has the id {call_id}.",
            code="usage.no_question",
            hint=f"Open: {shown}.",
        )
    return found
