"""A server that has forgotten executions, as after its retention."""

import asyncio
from contextlib import suppress

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

LONGEST_SECONDS = 30.0
FORGETTING_AT_ONCE = (
    "history.transferProcessorEnsureCloseBeforeDelete=false",
    "history.visibilityProcessorEnsureCloseBeforeDelete=false",
)
"""Settings for `own_server`: stock, a server makes sure for half a minute that what it deletes is closed."""


async def forget_all(address: str) -> None:
    """Make the server forget every execution it knows."""
    client = await Client.connect(address)
    for one in [one async for one in client.list_workflows()]:
        with suppress(RPCError):  # its list is behind
            await forget(client, one.id, one.run_id)


async def forget(client: Client, workflow_id: str, temporal_run_id: str) -> None:
    """Make the server forget one execution; it has when this returns."""
    execution = WorkflowExecution(workflow_id=workflow_id, run_id=temporal_run_id)
    await client.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(namespace=client.namespace, workflow_execution=execution)
    )
    handle = client.get_workflow_handle(workflow_id, run_id=temporal_run_id)
    async with asyncio.timeout(LONGEST_SECONDS):
        while True:
            try:
                await handle.describe()
            except RPCError as error:
                if error.status == RPCStatusCode.NOT_FOUND:
                    return
                raise
            await asyncio.sleep(0.05)
