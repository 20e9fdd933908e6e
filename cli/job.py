"""One job from the command line's side: connect, work on it if nobody else does, follow it, leave."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic_core import to_json
from temporalio.client import Client
from temporalio.service import RPCError

from .. import __version__
from ..activities.feed import Feed
from ..activities.providers.registry import warm_up
from ..client.connection import ServerInfo, connect, known_search_attributes, rpc_failures
from ..client.embedded import ServerLease, lease_server
from ..client.follow import JobFollower
from ..client.history import Execution
from ..client.jobs import Jobs, JobView
from ..client.locations import DataFolder, data_folder
from ..client.locks import JobLock
from ..client.rescue import take_over
from ..client.storage.folder import FolderDriver, FolderStorage
from ..client.supervisor import is_listening
from ..core.events import StopRunByInteractiveTool
from ..core.expert import Expert
from ..core.failures import PerstackError, ServerError, StorageError, UsageError
from ..core.ids import is_job_id
from ..core.run import JobSettings, ModelRules, RunInput
from ..core.tools import ToolCall
from ..definitions.environment import read_env
from ..definitions.resolve import ResolvedJob
from ..settings import seconds_setting
from ..worker import WorkerPlan, working
from .commands.run import PreparedRun
from .diagnostics import ExitCode, exit_code_of_run, progress, say, show
from .lifecycle import Interruption
from .output import EventWriter
from .tree import job_tree, usage_text

LEAVE_SECONDS = 1.5
"""How long calls in flight may take to end when the command is interrupted."""
WORKER_WAIT_SECONDS = 10.0
"""How long a pool's queue may be without a worker; `PERSTACK_WORKER_WAIT` sets another time."""
KEEPER_SECONDS = 1.0


@dataclass(frozen=True)
class Connection:
    """An open connection with all a command needs beside it."""

    client: Client
    info: ServerInfo
    data: DataFolder
    storage: FolderStorage

    @property
    def jobs(self) -> Jobs:
        """The jobs of the server."""
        return Jobs(self.client)

    def link(self, execution: Execution) -> str | None:
        """Where the Temporal Web UI shows a run."""
        if self.info.ui_url is None:
            return None
        name = execution.workflow_id.replace("/", "%2F")
        return f"{self.info.ui_url}/namespaces/{self.info.namespace}/workflows/{name}/{execution.temporal_run_id}"


@asynccontextmanager
async def connected(address: str | None) -> AsyncGenerator[Connection]:
    """Connect to the server in use, starting the embedded one if there is none."""
    data = data_folder()
    lease = await lease_server(address=address, progress=progress, data=data)
    try:
        storage = FolderStorage(data.storage)
        client = await connect(lease.info, storage=FolderDriver(storage))
        keeper = asyncio.create_task(_keep_server(lease, data))
        try:
            with rpc_failures(lease.info):
                yield Connection(client, lease.info, data, storage)
        finally:
            keeper.cancel()
    finally:
        lease.close()


async def _keep_server(lease: ServerLease, data: DataFolder) -> None:
    """Start the embedded server again when it dies; it keeps its port, so open connections find it by themselves."""
    while lease.info.is_embedded:
        await asyncio.sleep(KEEPER_SECONDS)
        if not is_listening(int(lease.info.address.rpartition(":")[2])):
            with suppress(PerstackError):
                # The second lease only makes the server start; ours still holds the right to it.
                (await lease_server(address=None, progress=progress, data=data)).close()


def job_queue(job_id: str) -> str:
    """The queue of a job that has its own worker."""
    return f"perstack-{job_id}"


async def run_job(prepared: PreparedRun) -> ExitCode:
    """Start the job, work on it unless a pool does, follow it."""
    interruption = Interruption()
    interruption.install()
    if prepared.cassette is None:
        warm_up(prepared.job.provider)
    async with connected(prepared.options.address) as connection:
        start = await _run_input(prepared, connection)
        writer = EventWriter(prepared.types)
        queue = prepared.options.task_queue
        if queue is not None:
            await _require_worker(connection.jobs, queue)
            execution = await connection.jobs.start(start, task_queue=queue)
            _announce(connection, execution)
            return await _follow(connection, execution, writer, interruption, None)
        lock = JobLock(connection.data, prepared.job_id)
        if not lock.acquire():
            say(f"another process works on job {prepared.job_id}; following it")
            execution = await connection.jobs.start(start, task_queue=job_queue(prepared.job_id))
            return await _follow(connection, execution, writer, interruption, None)
        feed = Feed()
        async with _embedded_worker(connection, job_queue(prepared.job_id), feed):
            execution = await connection.jobs.start(start, task_queue=job_queue(prepared.job_id))
            _announce(connection, execution)
            return await _follow(connection, execution, writer, interruption, feed)


async def resume_job(job_id: str, *, address: str | None, writer: EventWriter) -> ExitCode:
    """Go on with a job that is open: with a worker of our own where nobody else works on it."""
    _require_job_id(job_id)
    interruption = Interruption()
    interruption.install()
    async with connected(address) as connection:
        view = await connection.jobs.view(job_id)
        if not view.is_open:
            return await _follow(connection, view.execution, writer, interruption, None)
        lock = JobLock(connection.data, job_id)
        if not lock.acquire():
            say(f"process {lock.holder_pid()} works on job {job_id}; following it")
            return await _follow(connection, view.execution, writer, interruption, None)
        if view.task_queue != job_queue(job_id):
            await _require_worker(connection.jobs, view.task_queue)
            lock.release()
            return await _follow(connection, view.execution, writer, interruption, None)
        async with _worker_in_place(connection, view) as feed:
            _announce(connection, view.execution)
            return await _follow(connection, view.execution, writer, interruption, feed)


async def respond_job(
    job_id: str, call_id: str | None, text: str, *, address: str | None, writer: EventWriter
) -> ExitCode:
    """Answer a question of a job; where nobody works on it, work on it until it next stops."""
    _require_job_id(job_id)
    interruption = Interruption()
    interruption.install()
    async with connected(address) as connection:
        view = await connection.jobs.view(job_id)
        lock = JobLock(connection.data, job_id)
        is_ours = view.is_open and view.task_queue == job_queue(job_id) and lock.acquire()
        if not is_ours:
            if view.is_open:
                await _require_worker(connection.jobs, view.task_queue)
            question = await connection.jobs.respond(view, call_id, text)
            say(f"answered {question.tool_name} (call {question.id}); others work on job {job_id}")
            return ExitCode.COMPLETED
        # Before a worker of ours, and its imports, somebody has to want it.
        await connection.jobs.open_question(view, call_id)
        async with _worker_in_place(connection, view) as feed:
            since = time.time_ns() // 1_000_000
            question = await connection.jobs.respond(view, call_id, text)
            say(f"answered {question.tool_name} (call {question.id})")
            _announce(connection, view.execution)
            return await _follow(connection, view.execution, writer, interruption, feed, since=since)


async def cancel_job(job_id: str, *, address: str | None) -> ExitCode:
    """Cancel a job and wait for its end; where nobody works on it, a worker of ours ends it."""
    _require_job_id(job_id)
    interruption = Interruption()
    interruption.install()
    silent = EventWriter(frozenset())
    async with connected(address) as connection:
        view = await connection.jobs.view(job_id)
        if not view.is_open:
            say(f"job {job_id} has ended already")
            return ExitCode.COMPLETED
        lock = JobLock(connection.data, job_id)
        if view.task_queue != job_queue(job_id) or not lock.acquire():
            await _require_worker(connection.jobs, view.task_queue)
            await connection.jobs.cancel(view)
            code = await _follow(connection, view.execution, silent, interruption, None, since=sys.maxsize)
        else:
            _require_workspace(view)
            await take_over(connection.client, view.execution)
            feed = Feed()
            async with _embedded_worker(connection, view.task_queue, feed):
                await connection.jobs.cancel(view)
                code = await _follow(connection, view.execution, silent, interruption, feed, since=sys.maxsize)
    # That it was cancelled is what was wanted; that it ended otherwise was said.
    return ExitCode.COMPLETED if code != ExitCode.INTERRUPTED else code


def _require_job_id(text: str) -> None:
    if is_job_id(text):
        return
    job_id = text.partition("/")[0]
    raise UsageError(
        f"Invalid job id: {text}",
        hint=f"This names a delegate's run; its job goes on with `perstack resume {job_id}`."
        if is_job_id(job_id)
        else "Up to 128 letters, digits, `_` and `-`.",
    )


async def _follow(
    connection: Connection,
    execution: Execution,
    writer: EventWriter,
    interruption: Interruption,
    feed: Feed | None,
    *,
    since: int = 0,
) -> ExitCode:
    """Print events, those from `since` on, until the job ends, waits for a person, or somebody interrupts."""
    follower = JobFollower(connection.client, execution, deltas=feed)

    async def print_events() -> None:
        async for event in follower.events():
            if event.timestamp >= since:
                await writer.write(event)
            if isinstance(event, StopRunByInteractiveTool) and follower.waits_at(event.checkpoint.id):
                return

    what = "parked" if feed is not None else "still running elsewhere"
    how_to_go_on = f"job {execution.workflow_id} is {what}; go on with: perstack resume {execution.workflow_id}"
    printing = asyncio.create_task(print_events())
    interrupted = asyncio.create_task(interruption.requested.wait())
    await asyncio.wait((printing, interrupted), return_when=asyncio.FIRST_COMPLETED)
    interrupted.cancel()
    if not printing.done():
        printing.cancel()
        with suppress(asyncio.CancelledError):
            await printing
        say(how_to_go_on)
        return ExitCode.INTERRUPTED
    try:
        await printing
    except (RPCError, PerstackError):
        say(how_to_go_on)
        raise
    if follower.questions:
        _show_questions(follower.questions)
        say(f"job {execution.workflow_id} is {what}; answer with: perstack respond {execution.workflow_id} TEXT")
        return ExitCode.WAITING
    return _outcome(connection, execution, follower)


def _show_questions(questions: tuple[ToolCall, ...]) -> None:
    for call in questions:
        say(f"{call.tool_name} asks (call {call.id}): {to_json(call.args).decode()}")


def _outcome(connection: Connection, execution: Execution, follower: JobFollower) -> ExitCode:
    """Tell how the job ended and where to look into it."""
    fold = follower.root.fold
    if len(follower.readers) > 1:
        show(job_tree(follower.readers.values()))
    result = fold.state.result if fold else None
    if fold is None or result is None:
        say(f"job {execution.workflow_id} was {follower.root.closed or 'lost'} from outside")
        return ExitCode.FAILED
    if result.failure is not None:
        say(f"error: the run failed ({result.failure.name}): {result.failure.message}")
    elif result.status == "stoppedByCancellation":
        say("the run was cancelled")
    elif result.status == "stoppedByExceededMaxSteps":
        say(f"the run reached its limit of {fold.start.settings.limits.max_steps} steps")
    link = connection.link(execution)
    places = (f"perstack log --job {execution.workflow_id}", *([link] if link else ()))
    say(" · ".join((usage_text(follower.job().usage), *places)))
    return exit_code_of_run(result.status, result.failure.name if result.failure else None)


@asynccontextmanager
async def _worker_in_place(connection: Connection, view: JobView) -> AsyncGenerator[Feed]:
    """A worker of ours in place of a job's dead one, if this machine has what the job needs."""
    _require_workspace(view)
    _require_storage(view, connection)
    if view.start.settings.cassette is None:
        warm_up(view.start.expert.model.provider)
    await take_over(connection.client, view.execution)
    feed = Feed()
    async with _embedded_worker(connection, view.task_queue, feed):
        yield feed


@asynccontextmanager
async def _embedded_worker(connection: Connection, queue: str, feed: Feed) -> AsyncGenerator[None]:
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


async def _run_input(prepared: PreparedRun, connection: Connection) -> RunInput:
    job = prepared.job
    attributes = await known_search_attributes(connection.client)
    cassette = connection.storage.put(prepared.cassette) if prepared.cassette is not None else None
    settings = JobSettings(
        runtime_version=__version__,
        limits=job.limits,
        models=ModelRules(
            provider=job.provider,
            model_override=job.model_settings.model_override,
            model=job.model_settings.model,
            default_tier=job.model_settings.default_tier,
            reasoning_budget=job.model_settings.reasoning_budget,
        ),
        workspace=str(prepared.workspace),
        env_paths=job.env_paths,
        provider_setting=job.provider_setting,
        allowed_env=job.allowed_env,
        storage_id=connection.storage.storage_id,
        search_attributes=attributes,
        cassette=cassette,
        is_replay_strict=prepared.options.is_replay_strict,
    )
    return RunInput(
        job_id=prepared.job_id,
        run_id=prepared.job_id,
        expert_key=job.expert_key,
        experts=job.experts if cassette is not None else await _with_context_windows(job),
        query=prepared.options.query,
        files=prepared.files,
        locked_tools=prepared.locked_tools,
        settings=settings,
    )


async def _with_context_windows(job: ResolvedJob) -> dict[str, Expert]:
    """The experts, with what an Ollama server of the user says of its models; no table can know."""
    unknown = {expert.model.model for expert in job.experts.values() if expert.model.context_window is None}
    if job.provider != "ollama" or not unknown:
        return job.experts
    from ..activities.providers.ollama_models import context_length

    env = read_env(job.env_paths, os.environ)
    lengths = await asyncio.gather(*(context_length(env, job.provider_setting, model) for model in unknown))
    windows = dict(zip(unknown, lengths, strict=True))
    return {
        key: expert.replaced(
            model=expert.model.replaced(context_window=windows.get(expert.model.model, expert.model.context_window))
        )
        for key, expert in job.experts.items()
    }


async def _require_worker(jobs: Jobs, queue: str) -> None:
    seconds = seconds_setting("PERSTACK_WORKER_WAIT", WORKER_WAIT_SECONDS)
    if not await jobs.wait_for_worker(queue, seconds=seconds):
        raise ServerError(
            f"No worker serves the task queue {queue}.",
            code="temporal.no_worker",
            hint=f"Start one with `perstack worker --task-queue {queue}`.",
        )


def _require_workspace(view: JobView) -> None:
    workspace = view.start.settings.workspace
    if not Path(workspace).is_dir():
        raise UsageError(
            f"The workspace of job {view.start.job_id}, {workspace}, is not on this machine.",
            hint="Resume the job where its workspace is.",
        )


def _require_storage(view: JobView, connection: Connection) -> None:
    recorded = view.start.settings.storage_id
    if recorded and recorded != connection.storage.storage_id:
        raise StorageError(
            f"Job {view.start.job_id} keeps its large payloads in another storage than {connection.storage.root}.",
            code="storage.other",
            hint="Resume it with the data folder it was started with (PERSTACK_DATA_DIR).",
        )


def _announce(connection: Connection, execution: Execution) -> None:
    link = connection.link(execution)
    say(f"job {execution.workflow_id}" + (f" · {link}" if link else ""))
