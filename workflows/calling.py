"""How a workflow of somebody else runs an expert: as a child, with everything a job of ours has."""

from datetime import timedelta

from temporalio import workflow
from temporalio.common import TypedSearchAttributes
from temporalio.workflow import ChildWorkflowCancellationType, ParentClosePolicy

from ..core.ids import cuid_from
from ..core.run import RunInput, RunResult
from .contracts import EXPERT_RUN
from .options import WORKFLOW_TASK_TIMEOUT, job_priority, run_summary, start_attributes


async def run_expert(
    start: RunInput,
    *,
    query: str | None = None,
    job_id: str | None = None,
    task_queue: str | None = None,
    execution_timeout: timedelta | None = None,
) -> RunResult:
    """Run an expert as a child of the calling workflow, as a job of its own; to be called in workflow code.

    Args:
        start: From `PerstackPlugin.run_input`; one input may serve many jobs.
        query: The task, in place of the input's.
        job_id: Id of the job and of the child workflow; made from the workflow's own random numbers by default, so
            that two calls never collide.
        task_queue: Where Perstack is mounted, if not on the queue of the calling workflow.
        execution_timeout: How long the job may take, waiting for a person included; no limit by default.

    Raises:
        ChildWorkflowError: The run failed or was cancelled; the type of the cause is an error code of Perstack.
    """
    name = job_id or cuid_from(workflow.uuid4().hex)
    task = start.query if query is None else query
    job = start.replaced(job_id=name, run_id=name, query=task)
    return await workflow.execute_child_workflow(
        EXPERT_RUN,
        job,
        id=name,
        task_queue=task_queue,
        result_type=RunResult,
        parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
        cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
        execution_timeout=execution_timeout,
        static_summary=run_summary(job),
        search_attributes=TypedSearchAttributes(start_attributes(job)),
        priority=job_priority(name),
        task_timeout=WORKFLOW_TASK_TIMEOUT,
    )
