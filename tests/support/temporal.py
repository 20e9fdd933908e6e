"""Runs driven through the client on a real server, with a worker in the test's own process."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from perstack.activities.feed import Feed
from perstack.client.connection import connect, known_search_attributes
from perstack.client.embedded import lease_server
from perstack.client.follow import JobFollower
from perstack.client.histories import Histories
from perstack.client.history import Execution
from perstack.client.jobs import Jobs
from perstack.client.locations import DataFolder
from perstack.client.storage.base import Storage
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.core.events import Event
from perstack.core.expert import Expert, McpStdioSkill, ModelChoice
from perstack.core.run import JobSettings, Limits, RunInput
from perstack.worker import WorkerPlan, working
from support.model_server import ModelServer
from temporalio.client import Client


@dataclass(frozen=True)
class Bench:
    """A server, a client of it and a workspace."""

    client: Client
    storage: Storage
    workspace: Path
    model: ModelServer
    search_attributes: tuple[str, ...]

    def start(self, *experts: Expert, query: str = "go", limits: Limits | None = None) -> RunInput:
        """The input of a new job of the first expert."""
        job_id = uuid.uuid4().hex
        return RunInput(
            job_id=job_id,
            run_id=job_id,
            expert_key=experts[0].key,
            experts={expert.key: expert for expert in experts},
            query=query,
            settings=JobSettings(
                runtime_version="test",
                workspace=str(self.workspace),
                limits=limits or Limits(),
                search_attributes=self.search_attributes,
            ),
        )

    @asynccontextmanager
    async def worker(self, queue: str, feed: Feed | None = None) -> AsyncGenerator[None]:
        """A worker that talks to the scripted model."""
        env = {
            "ANTHROPIC_API_KEY": "sk-ant-test-key-0123456789",
            "ANTHROPIC_BASE_URL": self.model.url,
            "PATH": "/usr/bin:/bin",
        }
        async with working(self.client, WorkerPlan(queue), storage=self.storage, feed=feed, host_env=env):
            yield

    async def run(self, start: RunInput) -> tuple[JobFollower, list[Event]]:
        """Run a job to its end and read it whole."""
        async with self.worker(start.job_id):
            execution = await Jobs(self.client).start(start, task_queue=start.job_id)
            return await self.read(execution, wait=True)

    async def read(self, execution: Execution, *, wait: bool) -> tuple[JobFollower, list[Event]]:
        """Everything the history of a job tells."""
        follower = JobFollower(Histories.on(self.client), execution, wait=wait)
        return follower, [event async for event in follower.events()]


@asynccontextmanager
async def bench(data: DataFolder, workspace: Path, model: ModelServer) -> AsyncGenerator[Bench]:
    """A connection to the test server."""
    with await lease_server(address=None, progress=lambda _: None, data=data) as lease:
        storage = FolderStorage(data.storage)
        client = await connect(lease.info, storage=PayloadDriver(storage))
        yield Bench(client, storage, workspace, model, await known_search_attributes(client))


def solo(key: str = "solo", *, delegates: tuple[str, ...] = (), pick: tuple[str, ...] = ()) -> Expert:
    """A small expert with the base skill."""
    return Expert(
        key=key,
        name=key,
        instruction=f"You are {key.rpartition('/')[2]}.",
        description=f"Does what {key} does.",
        skills=(McpStdioSkill(name="@perstack/base", pick=pick),),
        delegates=delegates,
        model=ModelChoice(provider="anthropic", model="claude-haiku-4-5", reasoning_budget="none"),
    )
