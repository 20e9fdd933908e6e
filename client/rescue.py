"""Taking over from a dead worker at once instead of waiting for its timeouts (DESIGN §3)."""

from collections.abc import AsyncIterator

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest, ResetStickyTaskQueueRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from ..workflows.contracts import ARCHIVE, OPEN_SESSION, WORKER_LOST, Heartbeat
from .history import Execution


async def take_over(client: Client, root: Execution) -> int:
    """Fail what a dead worker had in flight, in the job's root and every open delegate; returns how many calls.

    Only the holder of the job's lock may call this, before its own worker starts: whatever is started then has
    nobody who could finish it.
    """
    ended = 0
    async for execution, pending in _open_executions(client, root):
        await client.workflow_service.reset_sticky_task_queue(
            ResetStickyTaskQueueRequest(namespace=client.namespace, execution=_wire(execution))
        )
        for activity in pending:
            if activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED:
                ended += await _fail(client, execution, activity)
    return ended


async def _open_executions(
    client: Client, root: Execution
) -> AsyncIterator[tuple[Execution, list[PendingActivityInfo]]]:
    waiting = [root]
    while waiting:
        execution = waiting.pop()
        answer = await client.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=_wire(execution))
        )
        if answer.workflow_execution_info.status != WorkflowExecutionStatus.RUNNING:
            continue
        waiting.extend(Execution(child.workflow_id, child.run_id or None) for child in answer.pending_children)
        yield execution, list(answer.pending_activities)


async def _fail(client: Client, execution: Execution, activity: PendingActivityInfo) -> int:
    """End one activity as lost, with the attempts its last heartbeat told of."""
    payloads = activity.heartbeat_details.payloads
    details = (await client.data_converter.decode(payloads, [Heartbeat])) if payloads else []
    handle = client.get_async_activity_handle(
        workflow_id=execution.workflow_id, run_id=execution.temporal_run_id, activity_id=activity.activity_id
    )
    # Some may simply be tried again; what became of a call is for the machine to decide.
    is_call = activity.activity_type.name not in (OPEN_SESSION.name, ARCHIVE.name)
    lost = ApplicationError("The worker of this call is gone.", *details, type=WORKER_LOST, non_retryable=is_call)
    try:
        await handle.fail(lost)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        return 0  # it ended by itself meanwhile
    return 1


def _wire(execution: Execution) -> WorkflowExecution:
    return WorkflowExecution(workflow_id=execution.workflow_id, run_id=execution.temporal_run_id or "")
