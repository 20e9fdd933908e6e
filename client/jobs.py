"""Jobs as a client handles them: start one, find one, see who works on it."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from ..core.failures import UsageError
from ..core.run import RunInput, RunResult
from ..workflows.contracts import EXPERT_RUN
from ..workflows.options import WORKFLOW_TASK_TIMEOUT, job_priority, run_summary, start_attributes
from .history import Execution, read_input


@dataclass(frozen=True)
class JobView:
    """A job as Temporal describes it."""

    execution: Execution
    task_queue: str
    is_open: bool
    start: RunInput


class Jobs:
    """The jobs of one Temporal namespace."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self, start: RunInput, *, task_queue: str) -> Execution:
        """Start the root run of a job; the same job id with the same task is the job that is there already.

        Raises:
            UsageError: the job id belongs to another task.
        """
        try:
            handle = await self._client.start_workflow(
                EXPERT_RUN,
                start,
                id=start.job_id,
                task_queue=task_queue,
                result_type=RunResult,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                static_summary=run_summary(start),
                search_attributes=TypedSearchAttributes(start_attributes(start)),
                priority=job_priority(start.job_id),
                task_timeout=WORKFLOW_TASK_TIMEOUT,
                request_eager_start=True,
            )
        except WorkflowAlreadyStartedError as error:
            existing = await self.view(start.job_id)
            if (existing.start.expert_key, existing.start.query) != (start.expert_key, start.query):
                raise UsageError(
                    f"Job {start.job_id} exists already, with another expert or query.",
                    code="usage.job_exists",
                    hint=f"Choose another --job-id, or look at it with `perstack log --job {start.job_id}`.",
                ) from error
            return existing.execution
        return Execution(start.job_id, handle.first_execution_run_id)

    async def view(self, job_id: str) -> JobView:
        """The newest execution of a job.

        Raises:
            UsageError: there is no such job.
        """
        try:
            description = await self._client.get_workflow_handle(job_id).describe()
        except RPCError as error:
            # An id that is empty or too long is refused as such.
            if error.status in (RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT):
                raise UsageError(
                    f"There is no job {job_id} on this server.",
                    code="usage.unknown_job",
                    hint="Check the id and the server (--address, TEMPORAL_ADDRESS, PERSTACK_DATA_DIR).",
                ) from error
            raise
        execution = Execution(job_id, description.run_id)
        if description.workflow_type != EXPERT_RUN:
            raise UsageError(f"{job_id} is not a Perstack job but a workflow of type {description.workflow_type}.")
        return JobView(
            execution=execution,
            task_queue=description.task_queue,
            is_open=description.status == WorkflowExecutionStatus.RUNNING,
            start=await read_input(self._client, execution),
        )

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
