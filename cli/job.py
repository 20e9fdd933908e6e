"""One job from the command line's side: start, answer, cancel; work on it if nobody else does, follow it, leave."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

from ..activities.feed import Feed
from ..activities.providers.registry import warm_up
from ..client.connection import forgets_soon, known_search_attributes
from ..client.history import Execution
from ..client.inputs import JobTask, job_input
from ..client.jobs import JobView
from ..client.locks import JobLock
from ..client.rescue import take_over
from ..core.cassette import Cassette
from ..core.failures import UsageError
from ..core.ids import is_job_id
from ..core.messages import TextPart, UserMessage
from ..core.run import RunInput
from ..core.seed import Seed
from ..definitions.environment import read_env
from .commands.run import PreparedRun, RunOptions
from .connection import Connection
from .detached import leave_in_background
from .diagnostics import ExitCode, say
from .following import Watch, announce, watching
from .output import EventWriter, write_line
from .workers import embedded_worker, job_queue, require_worker, require_workspace, worker_in_place

Start = Callable[..., Awaitable[Execution]]
"""Starts an execution on the queue `task_queue`."""


async def run_job(prepared: PreparedRun) -> ExitCode:
    """Start the job, work on it unless a pool does, follow it; or leave it to the background."""
    options = prepared.options
    if prepared.cassette is None and not options.is_detached:
        warm_up(prepared.job.provider)
    async with watching(options.address, EventWriter(prepared.types)) as watch:
        connection = watch.connection
        start = await run_input(prepared, connection)
        queue = options.task_queue or job_queue(prepared.job_id)
        lock = JobLock(connection.data, prepared.job_id)
        if options.task_queue is not None:
            await require_worker(connection.jobs, queue)
        elif lock.acquire():
            return await start_here(watch, lock, partial(connection.jobs.start, start), options)
        else:
            say(f"another process works on job {prepared.job_id}; following it")
        return await start_elsewhere(watch, partial(connection.jobs.start, start), queue, options)


async def start_here(watch: Watch, lock: JobLock, start: Start, options: RunOptions) -> ExitCode:
    """Start an execution that a worker of ours works on, in this process or in the background; we hold the lock."""
    queue = job_queue(lock.job_id)
    if options.is_detached:
        execution = await start(task_queue=queue)
        return await leave_in_background(watch.connection, execution, lock, address=options.address)
    feed = Feed()
    async with embedded_worker(watch.connection, queue, feed):
        execution = await start(task_queue=queue)
        announce(watch.connection, execution)
        return await watch.follow(execution, feed)


async def start_elsewhere(watch: Watch, start: Start, queue: str, options: RunOptions) -> ExitCode:
    """Start an execution that others work on."""
    execution = await start(task_queue=queue)
    announce(watch.connection, execution)
    if options.is_detached:
        write_line(execution.workflow_id)
        return ExitCode.COMPLETED
    return await watch.follow(execution, None)


async def respond_job(
    job_id: str, call_id: str | None, text: str, *, address: str | None, writer: EventWriter
) -> ExitCode:
    """Answer a question of a job; where nobody works on it, work on it until it next stops."""
    require_job_id(job_id)
    async with watching(address, writer) as watch:
        jobs = watch.connection.jobs
        view = await jobs.view(job_id)
        lock = JobLock(watch.connection.data, job_id)
        if view.is_open and view.task_queue == job_queue(job_id) and lock.acquire():
            return await _answer_here(watch, view, call_id, text)
        if view.is_open:
            await require_worker(jobs, view.task_queue)
        question = await jobs.respond(view, call_id, text)
        say(f"answered {question.tool_name} (call {question.id}); others work on job {job_id}")
        return ExitCode.COMPLETED


async def answer_open(watch: Watch, view: JobView, call_id: str | None, text: str) -> ExitCode:
    """Answer a question of an open job and follow it, working on it where nobody else does."""
    lock = JobLock(watch.connection.data, view.start.job_id)
    if view.task_queue == job_queue(view.start.job_id) and lock.acquire():
        return await _answer_here(watch, view, call_id, text)
    await require_worker(watch.connection.jobs, view.task_queue)
    since = time.time_ns() // 1_000_000
    question = await watch.connection.jobs.respond(view, call_id, text)
    say(f"answered {question.tool_name} (call {question.id})")
    return await watch.follow(view.execution, None, since=since)


async def _answer_here(watch: Watch, view: JobView, call_id: str | None, text: str) -> ExitCode:
    jobs = watch.connection.jobs
    # Before a worker of ours, and its imports, somebody has to want it.
    await jobs.open_question(view, call_id)
    async with worker_in_place(watch.connection, view) as feed:
        since = time.time_ns() // 1_000_000
        question = await jobs.respond(view, call_id, text)
        say(f"answered {question.tool_name} (call {question.id})")
        announce(watch.connection, view.execution)
        return await watch.follow(view.execution, feed, since=since)


async def cancel_job(job_id: str, *, address: str | None) -> ExitCode:
    """Cancel a job and wait for its end; where nobody works on it, a worker of ours ends it."""
    require_job_id(job_id)
    async with watching(address, EventWriter(frozenset())) as watch:
        connection = watch.connection
        view = await connection.jobs.view(job_id)
        if not view.is_open:
            say(f"job {job_id} has ended already")
            return ExitCode.COMPLETED
        lock = JobLock(connection.data, job_id)
        if view.task_queue != job_queue(job_id) or not lock.acquire():
            await require_worker(connection.jobs, view.task_queue)
            await connection.jobs.cancel(view)
            code = await watch.follow(view.execution, None, since=sys.maxsize)
        else:
            require_workspace(view)
            await take_over(connection.client, view.execution)
            feed = Feed()
            async with embedded_worker(connection, view.task_queue, feed):
                await connection.jobs.cancel(view)
                code = await watch.follow(view.execution, feed, since=sys.maxsize)
    # That it was cancelled is what was wanted; that it ended otherwise was said.
    return ExitCode.COMPLETED if code != ExitCode.INTERRUPTED else code


def require_job_id(text: str) -> None:
    """Refuse what cannot be the id of a job."""
    if is_job_id(text):
        return
    job_id = text.partition("/")[0]
    raise UsageError(
        f"Invalid job id: {text}",
        hint=f"This names a delegate's run; its job goes on with `perstack resume {job_id}`."
        if is_job_id(job_id)
        else "Up to 128 letters, digits, `_` and `-`.",
    )


async def run_input(prepared: PreparedRun, connection: Connection) -> RunInput:
    """The input of a new job from what was asked for."""
    job = prepared.job
    storage, recording = connection.storage, prepared.cassette
    task = JobTask(
        job_id=prepared.job_id,
        query=prepared.options.query or "",
        workspace=prepared.workspace,
        # The first use of the storage: what is wrong with it is said before anything is started.
        storage_id=await asyncio.to_thread(lambda: storage.storage_id),
        search_attributes=await known_search_attributes(connection.client),
        is_archiving=await forgets_soon(connection.client),
        files=prepared.files,
        locked_tools=prepared.locked_tools,
        cassette=None if recording is None else await asyncio.to_thread(storage.put, recording),
        is_replay_strict=prepared.options.is_replay_strict,
    )
    experts = job.experts
    if job.provider == "ollama" and prepared.cassette is None:
        from ..activities.providers.ollama_models import with_context_windows

        experts = await with_context_windows(experts, job.provider_setting, read_env(job.env_paths, os.environ))
    start = job_input(job, task, experts=experts)
    return start if recording is None else start.replaced(seed=_recorded_seed(recording, start))


def _recorded_seed(recording: bytes, start: RunInput) -> Seed | None:
    """What the recorded job went on from; it is told the query of today."""
    seed = Cassette.model_validate_json(recording).seed
    if seed is None or seed.message is None:
        return seed
    return seed.replaced(message=UserMessage(contents=(TextPart(text=start.query or ""), *start.files)))
