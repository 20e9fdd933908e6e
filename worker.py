"""The composition root: storage, feed, sessions and activities become Temporal workers, embedded or in a pool."""

import asyncio
import os
import socket
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Interceptor, UnsandboxedWorkflowRunner, Worker, WorkerDeploymentConfig

from . import __version__
from .activities.archive import Archiver
from .activities.boundary import HEARTBEAT_SECONDS, Heartbeats
from .activities.call_tool import ToolCaller
from .activities.feed import Feed
from .activities.generate import Generator
from .activities.open_session import SessionOpener
from .activities.sessions import IDLE_SECONDS, SessionMaker, Sessions
from .activities.settling import Settler
from .client.archive import Archive
from .client.connection import data_converter
from .client.storage.base import Storage
from .client.storage.driver import PayloadDriver
from .settings import seconds_setting
from .workflows.expert_run import ExpertRun
from .workflows.foreign_queue import ForeignQueueWait

MAX_CONCURRENT_CALLS = 200
CACHED_RUNS = MAX_CONCURRENT_CALLS + 56
"""How many runs a worker keeps in memory between their workflow tasks, about 0.2 MiB each and more with long
conversations. Every run with a call under way must find room, and parents of some; one that is pushed out is replayed
from its history at its next task, which costs milliseconds to some tenths of a second."""
BUILD_ID = f"perstack-{__version__}"
"""Given, because the SDK would otherwise hash every loaded module at start (0.4 s)."""
QUIET_SECONDS = 2.0
"""How long nothing may have come before a pool's worker stops to answer on its own queue: a call it took and could not
even refuse any more would count as begun, and its run be told that it was lost."""
LONGEST_LEAVE_SECONDS = 15.0
_LOOK_SECONDS = 0.1
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
    version: WorkerDeploymentVersion | None = None
    """The version of a deployment that this worker is: a run stays with the version it began on."""
    cached_runs: int = CACHED_RUNS
    """0 replays every run at every task, which only a test wants."""


class Station:
    """What one worker process answers calls with: its sessions, the activities and, in a pool, a queue of its own."""

    def __init__(
        self,
        client: Client,
        task_queue: str,
        *,
        storage: Storage,
        has_own_queue: bool,
        feed: Feed | None = None,
        host_env: Mapping[str, str] | None = None,
    ) -> None:
        env = dict(os.environ if host_env is None else host_env)
        feed = feed or Feed()
        self._client = client
        self._maker = SessionMaker(storage=storage, host_env=env, feed=feed)
        idle_seconds = seconds_setting("PERSTACK_SESSION_IDLE", IDLE_SECONDS)
        self.sessions = Sessions(client, self._maker.make, idle_seconds=idle_seconds)
        self.queue = f"{task_queue}@{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        """Where this process alone takes calls, if it has a queue of its own."""
        heartbeats = Heartbeats(seconds_setting("PERSTACK_HEARTBEAT_INTERVAL", HEARTBEAT_SECONDS))
        self.heartbeat_throttle = min(HEARTBEAT_THROTTLE, timedelta(seconds=heartbeats.interval_seconds))
        """The SDK sends heartbeats no more often than this, and hears no sooner of a cancellation."""
        settler = Settler(storage)
        self._caller = ToolCaller(self.sessions, heartbeats, settler)
        self._generator = Generator(self.sessions, feed, heartbeats, settler)
        is_sandbox = env.get("PERSTACK_SANDBOX") == "1"
        own_queue = self.queue if has_own_queue else ""
        opener = SessionOpener(self.sessions, heartbeats, settler, queue=own_queue, is_sandbox=is_sandbox)
        archiver = Archiver(client, Archive(storage), heartbeats)
        # A local call runs where the workflow task runs, so the shared worker knows `call_tool` in either case.
        shared: list[Callable[..., Any]] = [opener.open_session, archiver.archive, self._caller.call_tool]
        self.activities: list[Callable[..., Any]] = shared if has_own_queue else [*shared, self._generator.generate]
        """For the worker of the shared queue."""
        self.interceptors: Sequence[Interceptor] = [ForeignQueueWait(self.queue)] if has_own_queue else []
        """For the same."""

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Keep sessions tidy while the block runs; afterwards close them all."""
        tidy = asyncio.create_task(self.sessions.keep_tidy())
        try:
            yield
        finally:
            tidy.cancel()
            await self.sessions.close()
            await self._maker.providers.close()

    @asynccontextmanager
    async def serving_own_queue(self, grace: timedelta) -> AsyncGenerator[None]:
        """Take calls on this process's own queue while the block runs, and a moment longer.

        When the block ends nobody may take new work of the shared queue any more: calls under way to our own queue
        still arrive and are refused, because one that met a closed queue would have to wait for a timeout.
        """
        # Never of a version: nobody but this process serves the queue, and a versioned queue would be one more of the
        # deployment's, with calls waiting until the server has heard of it.
        worker = Worker(
            self._client,
            task_queue=self.queue,
            activities=[self._generator.generate, self._caller.call_tool],
            max_concurrent_activities=MAX_CONCURRENT_CALLS,
            max_heartbeat_throttle_interval=self.heartbeat_throttle,
            default_heartbeat_throttle_interval=self.heartbeat_throttle,
            graceful_shutdown_timeout=grace,
            build_id=BUILD_ID,
        )
        async with worker:
            yield
            self.sessions.is_draining = True
            await self._quiet()

    async def _quiet(self) -> None:
        """Wait until no run asks this process for anything any more; each that still does is told to go elsewhere."""
        begun = time.monotonic()
        while len(self.sessions):
            now = time.monotonic()
            since = max(begun, self.sessions.called_at)
            if now - since >= QUIET_SECONDS or now - begun >= LONGEST_LEAVE_SECONDS:
                return
            await asyncio.sleep(_LOOK_SECONDS)


@asynccontextmanager
async def working(
    client: Client,
    plan: WorkerPlan,
    *,
    storage: Storage,
    feed: Feed | None = None,
    host_env: Mapping[str, str] | None = None,
) -> AsyncGenerator[Sessions]:
    """Work on a queue while the block runs.

    Raises:
        StorageError: the storage cannot be used; that is said before anybody counts on this worker.
    """
    await asyncio.to_thread(lambda: storage.storage_id)
    leaving = asyncio.Event()
    # An outage of the storage holds up what needs it; a worker that leaves gives that to the next one.
    config = client.config()
    config["data_converter"] = data_converter(PayloadDriver(storage, gives_up=lambda _: leaving.is_set()))
    client = Client(**config)
    station = Station(
        client, plan.task_queue, storage=storage, has_own_queue=plan.is_pool, feed=feed, host_env=host_env
    )
    shared_worker = _shared_worker(client, plan, station)
    station.sessions.let_go = forgetting(shared_worker)
    async with station.open(), shared_worker:
        try:
            if not plan.is_pool:
                yield station.sessions
                return
            async with station.serving_own_queue(plan.grace):
                yield station.sessions
                station.sessions.is_draining = True
                leaving.set()
                await shared_worker.shutdown()
        finally:
            leaving.set()


def forgetting(worker: Worker) -> Callable[[str], None]:
    """How to take an execution out of a worker's cache of workflows: its next task replays it.

    The cache forgets nothing by itself but what newer runs push out, and the SDK offers no way to its core's own.
    """

    def forget(temporal_run_id: str) -> None:
        if worker.is_running:
            worker._bridge_worker.request_workflow_eviction(temporal_run_id)  # pyright: ignore[reportPrivateUsage]

    return forget


def _shared_worker(client: Client, plan: WorkerPlan, station: Station) -> Worker:
    deployment = plan.version and WorkerDeploymentConfig(
        version=plan.version, use_worker_versioning=True, default_versioning_behavior=VersioningBehavior.PINNED
    )
    throttle = station.heartbeat_throttle
    return Worker(
        client,
        task_queue=plan.task_queue,
        workflows=[ExpertRun],
        activities=station.activities,
        workflow_runner=UnsandboxedWorkflowRunner(),  # why: docs/decisions/0002-no-sandbox.md
        max_concurrent_activities=MAX_CONCURRENT_CALLS,
        max_concurrent_local_activities=MAX_CONCURRENT_CALLS,
        max_cached_workflows=plan.cached_runs,
        sticky_queue_schedule_to_start_timeout=STICKY_WAIT,
        max_heartbeat_throttle_interval=throttle,
        default_heartbeat_throttle_interval=throttle,
        graceful_shutdown_timeout=plan.grace,
        interceptors=station.interceptors,
        build_id=None if deployment else BUILD_ID,
        deployment_config=deployment,
    )
