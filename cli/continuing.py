"""Going on with a job that has a past: a new query, an answer, or simply on, from its end or any checkpoint."""

import asyncio
import json
import uuid
from dataclasses import replace
from functools import partial
from typing import Any

from ..activities.providers.registry import warm_up
from ..client.connection import forgets_soon, known_search_attributes
from ..client.history import Execution
from ..client.jobs import JobView
from ..client.locks import JobLock
from ..core.failures import UsageError
from ..core.ids import cuid_from
from ..core.lineage import Going, Words, with_definition
from ..core.messages import TextPart, UserMessage
from ..core.run import RunInput
from .commands.run import Past, PreparedRun, RunOptions, prepare
from .connection import Connection
from .diagnostics import ExitCode, say
from .following import Watch, announce, watching
from .job import answer_open, require_job_id, run_input, start_elsewhere, start_here
from .output import EventWriter
from .workers import job_queue, require_storage, require_worker, require_workspace, worker_in_place


async def continue_job(prepared: PreparedRun, past: Past) -> ExitCode:
    """Do what `run --continue`, `--continue-job`, `--resume-from`, `--branch` and `-i` say."""
    options = prepared.options
    if not options.is_detached:
        warm_up(prepared.job.provider)
    async with watching(options.address, EventWriter(prepared.types)) as watch:
        connection = watch.connection
        job_id = past.job_id or await connection.jobs.latest_in(str(prepared.workspace))
        view = await connection.jobs.view(job_id)
        words = _words(prepared, past)
        if view.is_open and past.is_answer and not past.is_branch:
            call_id = words.call_id or await _first_question(connection, view)
            return await answer_open(watch, view, call_id, words.answer or "")
        lock = JobLock(connection.data, prepared.job_id if past.is_branch else job_id)
        if (view.is_open and not past.is_branch) or not lock.acquire():
            raise _still_open(lock.job_id, has_query=options.query is not None)
        require_workspace(view)
        await require_storage(view, connection)
        lineage = await connection.jobs.lineage(view)
        going = lineage.at(past.checkpoint_id, words) if past.checkpoint_id else lineage.latest(words)
        start = await _next_input(connection, view, _matching(prepared, going), going, job_id=lock.job_id)
        return await _start(watch, view, lock, start, options)


async def resume_job(job_id: str, *, address: str | None, writer: EventWriter) -> ExitCode:
    """Go on with a job that is open, working on it where nobody else does, or with one that stopped before its end."""
    require_job_id(job_id)
    async with watching(address, writer) as watch:
        connection = watch.connection
        view = await connection.jobs.view(job_id)
        lock = JobLock(connection.data, job_id)
        if not lock.acquire():
            say(f"process {lock.holder_pid()} works on job {job_id}; following it")
            return await watch.follow(view.execution, None)
        if not view.is_open:
            return await _resume_closed(watch, view, lock)
        if view.task_queue != job_queue(job_id):
            await require_worker(connection.jobs, view.task_queue)
            lock.release()
            return await watch.follow(view.execution, None)
        async with worker_in_place(connection, view) as feed:
            announce(connection, view.execution)
            return await watch.follow(view.execution, feed)


async def _resume_closed(watch: Watch, view: JobView, lock: JobLock) -> ExitCode:
    """Go on from where the job stopped, with the definitions it has; one that is done is only shown."""
    lineage = await watch.connection.jobs.lineage(view)
    if lineage.is_completed:
        return await watch.follow(view.execution, None)
    require_workspace(view)
    await require_storage(view, watch.connection)
    going = lineage.latest(Words())
    if view.start.settings.cassette is None:
        warm_up(going.start.expert.model.provider)
    start = await _recorded_input(watch.connection, going, view.execution)
    return await _start(watch, view, lock, start, RunOptions(expert_key=start.expert_key))


async def _start(watch: Watch, view: JobView, lock: JobLock, start: RunInput, options: RunOptions) -> ExitCode:
    """Start the next execution where the last one was worked on, unless a queue was named."""
    jobs = watch.connection.jobs
    queue = options.task_queue or view.task_queue
    if queue == job_queue(view.start.job_id):
        return await start_here(watch, lock, partial(jobs.go_on, start), options)
    await require_worker(jobs, queue)
    lock.release()
    return await start_elsewhere(watch, partial(jobs.go_on, start), queue, options)


def _matching(prepared: PreparedRun, going: Going) -> PreparedRun:
    """The definitions for what goes on: those of the team, where the checkpoint is one of its delegates'."""
    chosen, typed = going.chosen.expert.key, prepared.options.expert_key
    if chosen != typed:
        raise UsageError(f"Checkpoint expert key {chosen} does not match input expert key {typed}")
    if going.start.expert_key == typed:
        return prepared
    return prepare(replace(prepared.options, expert_key=going.start.expert_key))


async def _recorded_input(connection: Connection, going: Going, execution: Execution) -> RunInput:
    """The input of the execution after `execution`, with the definitions the job has.

    Server and storage may not be those the job began with.
    """
    settings = going.start.settings.replaced(
        storage_id=await asyncio.to_thread(lambda: connection.storage.storage_id),
        search_attributes=await known_search_attributes(connection.client),
        is_archiving=await forgets_soon(connection.client),
    )
    return going.start.replaced(
        settings=settings,
        run_id=cuid_from(uuid.uuid4().hex),
        seed=going.seed,
        carried=None,
        previous=execution.temporal_run_id,
    )


async def _next_input(
    connection: Connection, view: JobView, prepared: PreparedRun, going: Going, *, job_id: str
) -> RunInput:
    """The next execution with the definitions and settings of today, in the workspace the job always had."""
    fresh, old = await run_input(prepared, connection), going.start
    if fresh.settings.workspace != old.settings.workspace:
        say(f"job {old.job_id} goes on in its own workspace, {old.settings.workspace}")
    settings = fresh.settings.replaced(workspace=old.settings.workspace, workspace_id=old.settings.workspace_id)
    # A query for a delegate is not the job's; neither is an answer.
    is_told = going.seed is None or going.seed.message is not None
    seed = going.seed
    if seed is not None:
        seed = with_definition(seed, old.expert, fresh.expert)
    return fresh.replaced(
        job_id=job_id,
        run_id=cuid_from(uuid.uuid4().hex),
        query=prepared.options.query if is_told and prepared.options.query is not None else old.query,
        seed=seed,
        files=fresh.files if seed is None else (),
        previous=view.execution.temporal_run_id if job_id == old.job_id else None,
        settings=settings,
    )


def _words(prepared: PreparedRun, past: Past) -> Words:
    text = prepared.options.query
    if text is None:
        return Words()
    if not past.is_answer:
        return Words(message=UserMessage(contents=(TextPart(text=text), *prepared.files)))
    call_id, answer = _answer(text)
    return Words(answer=answer, call_id=call_id)


def _answer(text: str) -> tuple[str | None, str]:
    """A whole interactive result in JSON names its call; anything else is the answer itself (contract §5.4)."""
    try:
        given: Any = json.loads(text)
    except ValueError:
        return None, text
    match given:
        case {"toolCallId": str(call_id), "toolName": str(), "skillName": str(), "text": str(answer)}:
            return call_id, answer
        case _:
            return None, text


async def _first_question(connection: Connection, view: JobView) -> str | None:
    questions = await connection.jobs.questions(view.execution)
    return questions[0].id if questions else None


def _still_open(job_id: str, *, has_query: bool) -> UsageError:
    what = "a new query can follow when it has ended" if has_query else "there is nothing to start"
    return UsageError(
        f"Job {job_id} is still open: {what}.",
        code="usage.job_open",
        hint=f"`perstack resume {job_id}` goes on with it, `perstack cancel {job_id}` ends it, "
        "--branch makes a new job from one of its checkpoints.",
    )
