"""Who works on a job: a worker of this process, one of a pool, or nobody yet; and what a worker here needs."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ..activities.feed import Feed
from ..activities.providers.registry import warm_up
from ..client.jobs import Jobs, JobView
from ..client.rescue import take_over
from ..core.failures import ServerError, StorageError, UsageError
from ..core.run import require_known_machine
from ..settings import seconds_setting
from ..worker import WorkerPlan, working
from .connection import Connection

LEAVE_SECONDS = 1.5
"""How long calls in flight may take to end when the command is interrupted."""
WORKER_WAIT_SECONDS = 10.0
"""How long a pool's queue may be without a worker; `PERSTACK_WORKER_WAIT` sets another time."""


def job_queue(job_id: str) -> str:
    """The queue of a job that has its own worker."""
    return f"perstack-{job_id}"


@asynccontextmanager
async def worker_in_place(connection: Connection, view: JobView) -> AsyncGenerator[Feed]:
    """A worker of ours in place of a job's dead one, if this machine has what the job needs."""
    require_known_machine(view.start.settings)
    require_workspace(view)
    await require_storage(view, connection)
    if view.start.settings.cassette is None:
        warm_up(view.start.expert.model.provider)
    await take_over(connection.client, view.execution)
    feed = Feed()
    async with embedded_worker(connection, view.task_queue, feed):
        yield feed


@asynccontextmanager
async def embedded_worker(connection: Connection, queue: str, feed: Feed) -> AsyncGenerator[None]:
    """A worker for this job in this process; it ends in bounded time, whatever its calls do."""
    work = working(connection.client, WorkerPlan(queue), storage=connection.storage, feed=feed)
    await work.__aenter__()
    try:
        yield
    finally:
        # A worker that fails cancels this task; what it failed of is raised by its own exit.
        with suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await work.__aexit__(*sys.exc_info())


async def require_worker(jobs: Jobs, queue: str) -> None:
    """Refuse to leave a job to a queue that nobody serves."""
    seconds = seconds_setting("PERSTACK_WORKER_WAIT", WORKER_WAIT_SECONDS)
    if not await jobs.wait_for_worker(queue, seconds=seconds):
        raise ServerError(
            f"No worker serves the task queue {queue}.",
            code="temporal.no_worker",
            hint=f"Start one with `perstack worker --task-queue {queue}`.",
        )


def require_workspace(view: JobView) -> None:
    """Refuse to work where the job's workspace is not."""
    workspace = view.start.settings.workspace
    if not Path(workspace).is_dir():
        raise UsageError(
            f"The workspace of job {view.start.job_id}, {workspace}, is not on this machine.",
            hint="Resume the job where its workspace is.",
        )


async def require_storage(view: JobView, connection: Connection) -> None:
    """Refuse to work with another payload storage than the job's; an archived one has all it needs in this one."""
    recorded = view.start.settings.storage_id
    if not recorded or view.is_archived:
        return
    if recorded != await asyncio.to_thread(lambda: connection.storage.storage_id):
        raise StorageError(
            f"Job {view.start.job_id} keeps its large payloads in another storage than {connection.storage.location}.",
            code="storage.other",
            hint="Resume it with the storage it was started with (PERSTACK_STORAGE, PERSTACK_DATA_DIR).",
        )
