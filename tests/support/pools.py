"""Workers of a pool as processes of their own, and which of them holds the session of a run."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from perstack.client.locations import DataFolder
from support.cli import Cli, RunningCli
from temporalio.client import Client


@asynccontextmanager
async def worker(cli: Cli, queue: str, env: dict[str, str]) -> AsyncGenerator[RunningCli]:
    """A worker that serves `queue`."""
    async with cli.running("worker", "--task-queue", queue, env=env) as running:
        await running.seen(f"serving {queue}", seconds=30)
        yield running


async def session_pid(data: DataFolder, workflow_id: str) -> int:
    """The process that holds the session of a run: its queue, which every model call names, bears its id."""
    client = await Client.connect(json.loads(data.record.read_text())["address"])
    queues: list[str] = []
    async for event in client.get_workflow_handle(workflow_id).fetch_history_events():
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name == "generate":
            queues.append(scheduled.task_queue.name)
    found = re.search(r"-(\d+)-[0-9a-f]+$", queues[-1])
    assert found, queues
    return int(found[1])
