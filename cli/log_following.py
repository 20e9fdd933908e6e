"""`perstack log --follow`: the events of a job as they come, for somebody who only looks."""

import asyncio
import sys

from ..client.follow import JobFollower
from ..client.jobs import JobView
from ..client.tail import LIVE_TYPES, HeartbeatTails
from ..core.events import Event, StopRunByInteractiveTool
from ..core.failures import UsageError
from .diagnostics import ExitCode, say
from .following import Watch, watching
from .log_options import LogOptions
from .log_text import RULE, event_lines
from .log_view import NOTHING, Segments
from .output import EventWriter, write_line
from .signs import fitting
from .travel import say_lost


async def follow_log(options: LogOptions) -> ExitCode:
    """Print events until the job ends or waits for a person; nothing is started, answered or ended by it."""
    async with watching(options.address, EventWriter()) as watch:
        jobs = watch.connection.jobs
        job_id = options.job_id if options.job_id is not None else await jobs.latest()
        if job_id is None:
            write_line(NOTHING)
            return ExitCode.COMPLETED
        view = await jobs.view(job_id)
        follower = JobFollower(
            jobs.histories,
            *await jobs.histories.job_chain(view.execution),
            deltas=HeartbeatTails(watch.connection.client) if _wants_live(options) else None,
        )
        if view.is_open and not await jobs.has_worker(view.task_queue):
            say(f"nobody works on job {job_id} now; `perstack resume {job_id}` goes on with it")
        if not options.is_json:
            _print_head(view, is_latest=options.job_id is None)
        if not await watch.interruption.lets_finish(_print_events(options, watch, follower)):
            say(f"job {job_id} was only looked at; again with: perstack log --job {job_id} --follow")
            return ExitCode.INTERRUPTED
        _say_end(job_id, follower)
    return ExitCode.COMPLETED


def _wants_live(options: LogOptions) -> bool:
    """Whether text is shown while it is written; asking for it costs the server something."""
    return options.type in LIVE_TYPES if options.type is not None else options.is_json or options.is_verbose


def _print_head(view: JobView, *, is_latest: bool) -> None:
    if is_latest:
        write_line("(showing latest job)")
    write_line(f"Job: {view.start.job_id}")
    write_line(f"Expert: {view.start.expert_key}")
    write_line("Events:")
    write_line(fitting(RULE, sys.stdout.encoding))


async def _print_events(options: LogOptions, watch: Watch, follower: JobFollower) -> None:
    """Every event that matches, until the end, a question to a person, or a reader that went away."""
    query, runs, has_run = options.query(), Segments(follower), options.run_id is None
    async for event in follower.events():
        is_of_run = options.run_id is None or runs.holds(options.run_id, event)
        has_run = has_run or is_of_run
        if is_of_run and query.matches(event) and not await _print(event, options, watch):
            return
        if isinstance(event, StopRunByInteractiveTool) and follower.waits_at(event.checkpoint.id):
            break
    if not has_run:
        raise UsageError(
            f"Run {options.run_id} not found in job {follower.job().id}",
            code="usage.unknown_run",
            hint=f"`perstack log --job {follower.job().id} --json` names its runs.",
        )


async def _print(event: Event, options: LogOptions, watch: Watch) -> bool:
    """Whether there is still a reader."""
    if options.is_json:
        return await watch.writer.write(event)
    lines = event_lines(event, is_verbose=options.is_verbose)
    text = "\n".join(fitting(line, sys.stdout.encoding) for line in lines)
    # A slow reader must not keep Ctrl-C from being heard.
    return await asyncio.to_thread(write_line, text)


def _say_end(job_id: str, follower: JobFollower) -> None:
    say_lost(follower.lost)
    fold = follower.root.fold
    if follower.questions:
        say(f"job {job_id} waits for a person; answer with: perstack respond {job_id} TEXT")
    elif follower.root.closed is not None:
        has_result = fold is not None and fold.state.result is not None
        say(f"job {job_id} has ended: {follower.job().status if has_result else follower.root.closed}")
