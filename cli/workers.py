"""Who works on a job: a worker of this process, one of a pool, or nobody yet; and what a worker here needs."""

import asyncio
import importlib
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..activities.feed import Feed
from ..activities.providers.registry import warm_up
from ..activities.skills import mcp
from ..client.history import Execution
from ..client.jobs import Jobs, JobView
from ..client.locks import JobLock
from ..client.rescue import take_over
from ..core.expert import Expert, ProviderName, mcp_skills
from ..core.failures import ServerError, StorageError, UsageError
from ..core.run import require_known_machine
from ..settings import seconds_setting
from .connection import Connection
from .diagnostics import waiting

LEAVE_SECONDS = 1.5
"""How long calls in flight may take to end when the command is interrupted."""
NO_WORKER = "temporal.no_worker"
WORKER_WAIT_SECONDS = 10.0
"""How long a pool's queue may be without a worker; `PERSTACK_WORKER_WAIT` sets another time."""


def job_queue(job_id: str) -> str:
    """The queue of a job that has its own worker."""
    return f"perstack-{job_id}"


@dataclass(frozen=True)
class Beginning:
    """An execution that can be started now, and who will work on it."""

    start: Callable[..., Awaitable[Execution]]
    """Starts it on the queue `task_queue`."""
    queue: str
    lock: JobLock | None = None
    """Held, where the work is ours; without one, others work on it."""


@dataclass(frozen=True)
class Work:
    """An execution, and what this process does about it."""

    execution: Execution
    feed: Feed | None = None
    """Of our worker; without one, others work on it, or nobody."""


@asynccontextmanager
async def begun(connection: Connection, beginning: Beginning) -> AsyncGenerator[Work]:
    """Start an execution and, where the work is ours, work on it while the block runs."""
    if beginning.lock is None:
        yield Work(await beginning.start(task_queue=beginning.queue))
        return
    try:
        feed = Feed()
        async with embedded_worker(connection, beginning.queue, feed):
            yield Work(await beginning.start(task_queue=beginning.queue), feed)
    finally:
        beginning.lock.release()


@asynccontextmanager
async def attended(connection: Connection, view: JobView, *, is_ending: bool = False) -> AsyncGenerator[Work]:
    """See to it that somebody works on an open job while the block runs: we, where nobody else does.

    Raises:
        ServerError: it waits for a pool that nobody is in.
        PerstackError: this machine does not have what the job needs.
    """
    lock = await right_to_work(connection, view)
    if lock is None:
        yield Work(view.execution)
        return
    try:
        async with worker_in_place(connection, view, is_ending=is_ending) as feed:
            yield Work(view.execution, feed)
    finally:
        lock.release()


async def right_to_work(connection: Connection, view: JobView) -> JobLock | None:
    """The lock of an open job, held; `None` where a pool or another process works on it.

    Raises:
        ServerError: the pool is empty.
    """
    if view.task_queue != job_queue(view.start.job_id):
        await require_worker(connection.jobs, view.task_queue)
        return None
    lock = JobLock(connection.data, view.start.job_id)
    return lock if lock.acquire() else None


@asynccontextmanager
async def worker_in_place(connection: Connection, view: JobView, *, is_ending: bool = False) -> AsyncGenerator[Feed]:
    """A worker of ours in place of a job's dead one, if this machine has what the job needs.

    One that only ends the job needs neither its payloads nor a model.
    """
    require_workspace(view)
    if not is_ending:
        require_known_machine(view.start.settings)
        await require_storage(view, connection)
        if view.start.settings.cassette is None:
            load_ahead(view.start.expert.model.provider, view.start.experts.values())
    await take_over(connection.client, view.execution)
    feed = Feed()
    async with embedded_worker(connection, view.task_queue, feed):
        yield feed


@asynccontextmanager
async def embedded_worker(connection: Connection, queue: str, feed: Feed) -> AsyncGenerator[None]:
    """A worker for this job in this process; it ends in bounded time, whatever its calls do."""
    # Half a second of imports that looking at jobs must not pay, nor a screen that is shown already.
    await asyncio.to_thread(_load_worker)
    from ..worker import WorkerPlan, working

    work = working(connection.client, WorkerPlan(queue), storage=connection.storage, feed=feed)
    await work.__aenter__()
    try:
        yield
    finally:
        # A worker that fails cancels this task; what it failed of is raised by its own exit.
        with suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await work.__aexit__(*sys.exc_info())


def load_ahead(provider: ProviderName, experts: Iterable[Expert]) -> None:
    """Start importing what these experts will need beside a worker, while something else is waited for."""
    warm_up(provider)
    if any(mcp_skills(expert) for expert in experts):
        mcp.warm_up()


def _load_worker() -> None:
    importlib.import_module("..worker", __package__)


async def require_worker(jobs: Jobs, queue: str) -> None:
    """Refuse to leave a job to a queue that nobody serves."""
    seconds = seconds_setting("PERSTACK_WORKER_WAIT", WORKER_WAIT_SECONDS)
    with waiting(f"looking for a worker of the task queue {queue} …"):
        has_worker = await jobs.wait_for_worker(queue, seconds=seconds)
    if not has_worker:
        raise ServerError(
            f"No worker serves the task queue {queue}.",
            code=NO_WORKER,
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
