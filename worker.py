"""The composition root: storage, feed, sessions and activities become Temporal workers, embedded or in a pool."""

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from . import __version__
from .activities.call_tool import ToolCaller
from .activities.feed import Feed
from .activities.generate import Generator
from .activities.open_session import SessionOpener
from .activities.sessions import SessionMaker, Sessions
from .client.storage.folder import FolderStorage
from .workflows.expert_run import ExpertRun

MAX_CONCURRENT_CALLS = 200
BUILD_ID = f"perstack-{__version__}"
"""Given, because the SDK would otherwise hash every loaded module at start (0.4 s)."""
LEAVING_SECONDS = 1.0
"""How long a pool's worker that has no call left still answers on its own queue."""
STICKY_WAIT = timedelta(seconds=1)
HEARTBEAT_THROTTLE = timedelta(milliseconds=500)


@dataclass(frozen=True)
class WorkerPlan:
    """Which queue a worker serves and how it leaves."""

    task_queue: str
    is_pool: bool = False
    """A pool worker has a queue of its own for calls; an embedded one is alone on its queue."""
    grace: timedelta = timedelta(0)
    """How long calls in flight may go on when the worker leaves."""


@asynccontextmanager
async def working(
    client: Client,
    plan: WorkerPlan,
    *,
    storage: FolderStorage,
    feed: Feed | None = None,
    host_env: Mapping[str, str] | None = None,
) -> AsyncGenerator[Sessions]:
    """Work on a queue while the block runs."""
    env = dict(os.environ if host_env is None else host_env)
    feed = feed or Feed()
    maker = SessionMaker(storage=storage, host_env=env, feed=feed)
    sessions = Sessions(client, maker.make)
    queue = f"{plan.task_queue}@{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}" if plan.is_pool else None
    caller, generator = ToolCaller(sessions), Generator(sessions, feed)
    opener = SessionOpener(sessions, queue=queue or plan.task_queue, is_sandbox=env.get("PERSTACK_SANDBOX") == "1")
    # A local call runs where the workflow task runs, so the shared worker knows `call_tool` in either case.
    shared = [opener.open_session, caller.call_tool]
    shared_worker = Worker(
        client,
        task_queue=plan.task_queue,
        workflows=[ExpertRun],
        activities=shared if plan.is_pool else [*shared, generator.generate],
        workflow_runner=UnsandboxedWorkflowRunner(),  # why: docs/decisions/0002-no-sandbox.md
        max_concurrent_activities=MAX_CONCURRENT_CALLS,
        max_concurrent_local_activities=MAX_CONCURRENT_CALLS,
        sticky_queue_schedule_to_start_timeout=STICKY_WAIT,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        graceful_shutdown_timeout=plan.grace,
        build_id=BUILD_ID,
    )
    tidy = asyncio.create_task(sessions.keep_tidy())
    try:
        async with shared_worker:
            if queue is None:
                yield sessions
                return
            async with _private_worker(client, queue, plan, generator, caller):
                yield sessions
                sessions.is_draining = True
                # First what others can take at once. Calls under way to our own queue still arrive and are refused:
                # one that met a closed queue would have to wait for a timeout.
                await shared_worker.shutdown()
                await asyncio.sleep(LEAVING_SECONDS)
    finally:
        tidy.cancel()
        await sessions.close()
        await maker.providers.close()


def _private_worker(client: Client, queue: str, plan: WorkerPlan, generator: Generator, caller: ToolCaller) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        activities=[generator.generate, caller.call_tool],
        max_concurrent_activities=MAX_CONCURRENT_CALLS,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        graceful_shutdown_timeout=plan.grace,
        build_id=BUILD_ID,
    )
