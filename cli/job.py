"""One job from the command line's side: start, answer, cancel; work on it if nobody else does, follow it, leave."""

import asyncio
import os
import sys
import time
from functools import partial

from ..client.connection import forgets_soon, known_search_attributes
from ..client.inputs import JobTask, job_input
from ..client.jobs import JobView
from ..client.locks import JobLock
from ..core.cassette import Cassette
from ..core.failures import UsageError
from ..core.ids import is_job_id
from ..core.messages import TextPart, UserMessage
from ..core.run import RunInput
from ..core.seed import Seed
from ..definitions.environment import read_env
from .commands.run import PreparedRun, RunOptions
from .connection import Connection
from .detached import hand_over
from .diagnostics import ExitCode, say
from .following import Watch, announce, watching
from .output import EventWriter, write_line
from .workers import Beginning, attended, begun, job_queue, load_ahead, require_worker


async def run_job(prepared: PreparedRun) -> ExitCode:
    """Start the job, work on it unless a pool does, follow it; or leave it to the background."""
    options = prepared.options
    if prepared.cassette is None and not options.is_detached:
        load_ahead(prepared.job.provider, prepared.job.experts.values())
    async with watching(options.address, EventWriter(prepared.types)) as watch:
        return await carry_out(watch, await new_job(watch.connection, prepared), options)


async def new_job(connection: Connection, prepared: PreparedRun) -> Beginning:
    """The first execution of a job, ours to work on unless a pool or another process does.

    Raises:
        PerstackError: what it needs is missing.
    """
    jobs, queue = connection.jobs, prepared.options.task_queue
    start = partial(jobs.start, await run_input(prepared, connection))
    if queue is not None:
        await require_worker(jobs, queue)
        return Beginning(start, queue)
    queue = job_queue(prepared.job_id)
    lock = JobLock(connection.data, prepared.job_id)
    if not lock.acquire():
        say(f"another process works on job {prepared.job_id}; following it")
        return Beginning(start, queue)
    return Beginning(start, queue, lock)


async def carry_out(watch: Watch, beginning: Beginning, options: RunOptions) -> ExitCode:
    """Start an execution and follow it, working on it where that is ours; or leave it to the background."""
    if not options.is_detached:
        async with begun(watch.connection, beginning) as work:
            announce(watch.connection, work.execution)
            return await watch.follow(work)
    execution = await beginning.start(task_queue=beginning.queue)
    announce(watch.connection, execution)
    if beginning.lock is not None:
        await hand_over(watch.connection, beginning.lock, address=options.address)
    write_line(execution.workflow_id)
    return ExitCode.COMPLETED


async def respond_job(
    job_id: str, call_id: str | None, text: str, *, address: str | None, writer: EventWriter
) -> ExitCode:
    """Answer a question of a job; where nobody works on it, work on it until it next stops."""
    require_job_id(job_id)
    async with watching(address, writer) as watch:
        jobs = watch.connection.jobs
        view = await jobs.view(job_id)
        # Before a worker of ours, and its imports, somebody has to want it.
        await jobs.open_question(view, call_id)
        async with attended(watch.connection, view) as work:
            since = time.time_ns() // 1_000_000
            question = await jobs.respond(view, call_id, text)
            answered = f"answered {question.tool_name} (call {question.id})"
            if work.feed is None:
                say(f"{answered}; others work on job {job_id}")
                return ExitCode.COMPLETED
            say(answered)
            announce(watch.connection, view.execution)
            return await watch.follow(work, since=since)


async def answer_open(watch: Watch, view: JobView, call_id: str | None, text: str) -> ExitCode:
    """Answer a question of an open job and follow it, working on it where nobody else does."""
    jobs = watch.connection.jobs
    await jobs.open_question(view, call_id)
    async with attended(watch.connection, view) as work:
        since = time.time_ns() // 1_000_000
        question = await jobs.respond(view, call_id, text)
        say(f"answered {question.tool_name} (call {question.id})")
        if work.feed is not None:
            announce(watch.connection, view.execution)
        return await watch.follow(work, since=since)


async def cancel_job(job_id: str, *, address: str | None) -> ExitCode:
    """Cancel a job and wait for its end; where nobody works on it, a worker of ours ends it."""
    require_job_id(job_id)
    async with watching(address, EventWriter(frozenset())) as watch:
        connection = watch.connection
        view = await connection.jobs.view(job_id)
        if not view.is_open:
            say(f"job {job_id} has ended already")
            return ExitCode.COMPLETED
        async with attended(connection, view, is_ending=True) as work:
            await connection.jobs.cancel(view)
            code = await watch.follow(work, since=sys.maxsize)
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
