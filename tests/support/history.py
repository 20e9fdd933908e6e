"""The raw histories of a job: of its root and of every delegate."""

from collections.abc import AsyncIterator

from perstack.client.locations import DataFolder
from perstack.client.record import read_record
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client


async def histories_of(data: DataFolder, job_id: str) -> AsyncIterator[tuple[str, HistoryEvent]]:
    """Every event of every run of a job, with the id of its workflow; the server of `data` runs."""
    record = read_record(data.record)
    assert record is not None, "the server has stopped"
    client = await Client.connect(f"127.0.0.1:{record.port}")
    waiting = [job_id]
    while waiting:
        workflow_id = waiting.pop()
        async for event in client.get_workflow_handle(workflow_id).fetch_history_events():
            child = event.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id
            if child:
                waiting.append(child)
            yield workflow_id, event
