"""How long a call waits for the queue of a worker depends on whether that worker makes it itself."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from perstack.workflows.foreign_queue import ForeignQueueWait
from perstack.workflows.options import FOREIGN_QUEUE_WAIT, PRIVATE_QUEUE_WAIT
from support.temporal import Bench
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

OTHER_WAIT = timedelta(seconds=30)


class _Calling:
    async def run(self, queues: list[str]) -> None:
        """Begin calls that nobody takes, and end without them."""
        for queue in queues:
            for number, wait in enumerate((PRIVATE_QUEUE_WAIT, OTHER_WAIT)):
                workflow.start_activity(
                    "nobody",
                    activity_id=f"{queue}-{number}",
                    task_queue=queue,
                    schedule_to_start_timeout=wait,
                    start_to_close_timeout=OTHER_WAIT,
                )
        # Commands are sent with the task, so one more is needed.
        await asyncio.sleep(0.01)


@workflow.defn(name="ExpertRun")
class Expert(_Calling):
    """By its name a run of ours."""

    @workflow.run
    async def run(self, queues: list[str]) -> None:
        await super().run(queues)


@workflow.defn(name="TheirRun")
class Theirs(_Calling):
    """A workflow of somebody on whose worker we are mounted."""

    @workflow.run
    async def run(self, queues: list[str]) -> None:
        await super().run(queues)


@pytest.mark.requirement("ours.survives-kill")
@pytest.mark.parametrize(("kind", "foreign"), [(Expert, FOREIGN_QUEUE_WAIT), (Theirs, PRIVATE_QUEUE_WAIT)])
async def test_a_run_waits_less_for_the_queue_of_another_worker(
    temporal: Bench, kind: type[_Calling], foreign: timedelta
) -> None:
    name = f"foreign-{uuid.uuid4().hex[:8]}"
    worker = Worker(
        temporal.client,
        task_queue=name,
        workflows=[kind],
        workflow_runner=UnsandboxedWorkflowRunner(),
        interceptors=[ForeignQueueWait(f"{name}@own")],
    )
    async with asyncio.timeout(30), worker:
        handle = await temporal.client.start_workflow(
            kind.run, [f"{name}@own", f"{name}@other"], id=name, task_queue=name
        )
        await handle.result()
    scheduled = [
        event.activity_task_scheduled_event_attributes
        async for event in handle.fetch_history_events()
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    waits = {one.activity_id: one.schedule_to_start_timeout.ToTimedelta() for one in scheduled}
    assert waits == {
        f"{name}@own-0": PRIVATE_QUEUE_WAIT,
        f"{name}@own-1": OTHER_WAIT,
        f"{name}@other-0": foreign,
        f"{name}@other-1": OTHER_WAIT,
    }
