"""`perstack log`: a job from its history alone, as text, JSON, cassette or export."""

import shutil
import sys
from typing import TYPE_CHECKING, NoReturn

from ...core.failures import UsageError
from ..diagnostics import ExitCode
from ..lifecycle import run_command
from ..log_json import log_json
from ..log_text import WIDTH, log_text
from ..log_view import NOTHING, LogOptions, LogView, Source, wants_screens
from ..output import write_bytes, write_line
from ..signs import fitting
from ..travel import read_export, say_lost
from .export import write_job

if TYPE_CHECKING:
    from ...client.histories import Histories
    from ...client.history import Execution


def log(options: LogOptions) -> NoReturn:
    """Read a job, on the server, in the archive or in a file, and print what was asked for."""

    async def command() -> ExitCode:
        _require_sense(options)
        if wants_screens(options):
            from ..log_screens import log_on_screens

            return await log_on_screens(options)
        if options.is_following:
            from ..log_following import follow_log

            return await follow_log(options)
        if options.file is not None:
            job = read_export(options.file)
            if options.is_export:
                write_bytes(job.to_bytes())
                return ExitCode.COMPLETED
            await _show(options, job.histories(), job.newest, Source())
            return ExitCode.COMPLETED
        from ..connection import connected

        async with connected(options.address) as connection:
            jobs = connection.jobs
            job_id = options.job_id if options.job_id is not None else await jobs.latest()
            if job_id is None:
                write_line(NOTHING)
                return ExitCode.COMPLETED
            if options.is_export:
                await write_job(connection, job_id, output=None)
                return ExitCode.COMPLETED
            source = Source(connection.storage.location, is_latest=options.job_id is None)
            await _show(options, jobs.histories, (await jobs.view(job_id)).execution, source)
        return ExitCode.COMPLETED

    run_command(command)


async def _show(options: LogOptions, histories: "Histories", newest: "Execution", source: Source) -> None:
    from ...client.follow import JobFollower

    chain = await histories.job_chain(newest)
    follower = JobFollower(histories, *chain, wait=False, is_recording=options.is_cassette)
    events = [event async for event in follower.events()]
    if options.is_cassette:
        write_line(follower.cassette().model_dump_json(exclude_none=True, indent=1))
    else:
        view = LogView.of(follower, events, options, source)
        if options.is_json:
            write_bytes(*log_json(view, is_pretty=options.is_pretty))
        else:
            _print_text(options, view)
    say_lost(follower.lost)


def _print_text(options: LogOptions, view: LogView) -> None:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDTH
    lines = log_text(
        view,
        is_verbose=options.is_verbose,
        is_summary=options.is_summary,
        has_messages=options.has_messages,
        width=width,
    )
    for line in lines:
        write_line(fitting(line, sys.stdout.encoding))


def _require_sense(options: LogOptions) -> None:
    """Refuse, before anything is read, what does not go together."""
    options.query()
    if options.job_id is not None and options.file is not None:
        raise UsageError("--job and --file both name a job.", hint="Give one of them.")
    if options.has_messages and options.checkpoint_id is None:
        raise UsageError("--messages requires --checkpoint")
    wholes = [name for name, is_given in _wholes(options) if is_given]
    page = {"--take": options.take, "--offset": options.offset, "--context": options.context}
    given = [option for option, text in page.items() if text is not None]
    if wholes:
        conditions = (options.run_id, options.checkpoint_id, options.step, options.type, options.expression)
        if given or any(conditions) or options.is_errors or options.is_tools or options.is_delegations:
            raise UsageError(f"{wholes[0]} tells a whole job: it cannot be combined with a selection of events.")
        if options.is_json or len(wholes) > 1:
            raise UsageError(
                f"{wholes[0]} is another JSON than {wholes[1] if len(wholes) > 1 else '--json'}.",
                hint="Give one of them.",
            )
    if options.is_text and (options.is_json or wholes):
        raise UsageError("--text is no JSON.", hint="Give --text, --json, --cassette or --export.")
    if not options.is_following:
        return
    others = {
        "--file": options.file is not None,
        "--checkpoint": options.checkpoint_id is not None,
        "--summary": options.is_summary,
        "--pretty": options.is_pretty,
        **dict(_wholes(options)),
    }
    given += [option for option, is_given in others.items() if is_given]
    if given:
        raise UsageError(f"--follow cannot be combined with {', '.join(given)}.")


def _wholes(options: LogOptions) -> tuple[tuple[str, bool], ...]:
    """The forms that tell all of a job, and which of them are asked for."""
    return ("--cassette", options.is_cassette), ("--export", options.is_export)
