"""Going on with a job that has a past: a new query, an answer, or simply on, from its end or any checkpoint."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ..client.connection import forgets_soon, known_search_attributes
from ..client.jobs import JobView
from ..client.locks import JobLock
from ..core.failures import UsageError
from ..core.ids import cuid_from
from ..core.lineage import Going, Lineage, Words, with_definition
from ..core.messages import TextPart, UserMessage
from ..core.run import RunInput
from .commands.run import Past, PreparedRun, RunOptions, prepare
from .connection import Connection
from .diagnostics import ExitCode, say
from .following import announce, watching
from .job import answer_open, carry_out, require_job_id, run_input
from .output import EventWriter
from .workers import (
    LEAVE_SECONDS,
    Beginning,
    Work,
    attended,
    job_queue,
    load_ahead,
    require_storage,
    require_worker,
    require_workspace,
)


async def continue_job(prepared: PreparedRun, past: Past) -> ExitCode:
    """Do what `run --continue`, `--continue-job`, `--resume-from`, `--branch` and `-i` say."""
    options = prepared.options
    if not options.is_detached:
        load_ahead(prepared.job.provider, prepared.job.experts.values())
    async with watching(options.address, EventWriter(prepared.types)) as watch:
        connection = watch.connection
        view = await past_job(connection, prepared, past)
        words = _words(prepared, past)
        if view.is_open and past.is_answer and not past.is_branch:
            call_id = words.call_id or await _first_question(connection, view)
            return await answer_open(watch, view, call_id, words.answer or "")
        return await carry_out(watch, await continued(connection, view, prepared, past), options)


async def past_job(connection: Connection, prepared: PreparedRun, past: Past) -> JobView:
    """The job to go on with: the one that was named, or the workspace's newest.

    Raises:
        UsageError: there is none such.
    """
    return await connection.jobs.view(past.job_id or await connection.jobs.latest_in(str(prepared.workspace)))


async def continued(connection: Connection, view: JobView, prepared: PreparedRun, past: Past) -> Beginning:
    """The next execution of a job, or the first one of a branch of it, with the definitions of today.

    Raises:
        PerstackError: the job is open, or cannot go on from there.
    """
    words = _words(prepared, past)

    async def next_input(lineage: Lineage, job_id: str) -> RunInput:
        going = lineage.at(past.checkpoint_id, words) if past.checkpoint_id else lineage.latest(words)
        team = prepared if past.is_any_expert else _matching(prepared, going)
        return await _next_input(connection, view, team, going, job_id=job_id)

    job_id = prepared.job_id if past.is_branch else view.start.job_id
    options = prepared.options
    return await _next(
        connection, view, next_input, job_id=job_id, queue=options.task_queue, has_query=options.query is not None
    )


async def continued_as_recorded(
    connection: Connection,
    view: JobView,
    query: str | None,
    *,
    checkpoint_id: str | None = None,
    branch_id: str | None = None,
    lineage: Lineage | None = None,
) -> Beginning:
    """The same with the definitions that the job has; `branch_id` is the id of a new job.

    Raises:
        PerstackError: the job is open, or cannot go on from there.
    """

    words = Words() if query is None else Words(message=UserMessage(contents=(TextPart(text=query),)))

    async def next_input(lineage: Lineage, job_id: str) -> RunInput:
        going = lineage.at(checkpoint_id, words) if checkpoint_id else lineage.latest(words)
        return await _recorded_input(connection, view, going, query, job_id=job_id)

    job_id = branch_id or view.start.job_id
    return await _next(connection, view, next_input, job_id=job_id, has_query=query is not None, lineage=lineage)


async def resume_job(job_id: str, *, address: str | None, writer: EventWriter) -> ExitCode:
    """Go on with a job that is open, working on it where nobody else does, or with one that stopped before its end."""
    require_job_id(job_id)
    async with watching(address, writer) as watch:
        connection = watch.connection
        view = await connection.jobs.view(job_id)
        if not view.is_open:
            beginning = await resumed(connection, view)
            if beginning is None:
                return await watch.follow(Work(view.execution))
            return await carry_out(watch, beginning, RunOptions(expert_key=view.start.expert_key))
        async with attended(connection, view) as work:
            if work.feed is not None:
                announce(connection, view.execution)
            elif view.task_queue == job_queue(job_id):
                say(f"process {JobLock(connection.data, job_id).holder_pid()} works on job {job_id}; following it")
            return await watch.follow(work)


async def resumed(connection: Connection, view: JobView) -> Beginning | None:
    """The next execution of a job that stopped before its end; `None` for one that is done.

    Raises:
        PerstackError: it cannot go on here.
    """
    lineage = await connection.jobs.lineage(view)
    return None if lineage.is_completed else await continued_as_recorded(connection, view, None, lineage=lineage)


async def _acquired(lock: JobLock) -> bool:
    """Take the lock of a job that is closed: who worked on it may still be about to leave."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + 2 * LEAVE_SECONDS
    while not lock.acquire():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(0.05)
    return True


async def _next(
    connection: Connection,
    view: JobView,
    next_input: Callable[[Lineage, str], Awaitable[RunInput]],
    *,
    job_id: str,
    queue: str | None = None,
    has_query: bool,
    lineage: Lineage | None = None,
) -> Beginning:
    """Go on with a job under its own or a new id: where the last execution was worked on, unless a queue is named."""
    lock = JobLock(connection.data, job_id)
    is_branch = job_id != view.start.job_id
    if (view.is_open and not is_branch) or not await _acquired(lock):
        raise _still_open(job_id, has_query=has_query)
    is_ours = False
    try:
        require_workspace(view)
        await require_storage(view, connection)
        start = await next_input(lineage or await connection.jobs.lineage(view), job_id)
        queue = queue or view.task_queue
        if queue != job_queue(view.start.job_id):
            await require_worker(connection.jobs, queue)
            return Beginning(partial(connection.jobs.go_on, start), queue)
        if start.settings.cassette is None:
            load_ahead(start.expert.model.provider, start.experts.values())
        is_ours = True
        return Beginning(partial(connection.jobs.go_on, start), job_queue(job_id), lock)
    finally:
        if not is_ours:
            lock.release()


def _matching(prepared: PreparedRun, going: Going) -> PreparedRun:
    """The definitions for what goes on: those of the team, where the checkpoint is one of its delegates'."""
    chosen, typed = going.chosen.expert.key, prepared.options.expert_key
    if chosen != typed:
        raise UsageError(f"Checkpoint expert key {chosen} does not match input expert key {typed}")
    if going.start.expert_key == typed:
        return prepared
    return prepare(replace(prepared.options, expert_key=going.start.expert_key))


async def _recorded_input(
    connection: Connection, view: JobView, going: Going, query: str | None, *, job_id: str
) -> RunInput:
    """The input of the next execution, with the definitions the job has.

    Server and storage may not be those the job began with.
    """
    old = going.start
    settings = old.settings.replaced(
        storage_id=await asyncio.to_thread(lambda: connection.storage.storage_id),
        search_attributes=await known_search_attributes(connection.client),
        is_archiving=await forgets_soon(connection.client),
    )
    return old.replaced(
        job_id=job_id,
        settings=settings,
        run_id=cuid_from(uuid.uuid4().hex),
        query=query if query is not None and _is_told(going) else old.query,
        seed=going.seed,
        carried=None,
        previous=view.execution.temporal_run_id if job_id == old.job_id else None,
    )


def _is_told(going: Going) -> bool:
    """Whether the words are the job's new query: one for a delegate is not, nor is an answer."""
    return going.seed is None or going.seed.message is not None


async def _next_input(
    connection: Connection, view: JobView, prepared: PreparedRun, going: Going, *, job_id: str
) -> RunInput:
    """The next execution with the definitions and settings of today, in the workspace the job always had."""
    fresh, old = await run_input(prepared, connection), going.start
    if fresh.settings.workspace != old.settings.workspace:
        say(f"job {old.job_id} goes on in its own workspace, {old.settings.workspace}")
    settings = fresh.settings.replaced(workspace=old.settings.workspace, workspace_id=old.settings.workspace_id)
    seed = going.seed
    if seed is not None:
        seed = with_definition(seed, old.expert, fresh.expert)
    return fresh.replaced(
        job_id=job_id,
        run_id=cuid_from(uuid.uuid4().hex),
        query=prepared.options.query if prepared.options.query is not None and _is_told(going) else old.query,
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
