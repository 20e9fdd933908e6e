"""A job, read to its present end, on stdout."""

import shutil
import sys

from ..client.follow import JobFollower
from ..client.histories import Histories
from ..client.history import Execution
from .commands.export import write_job
from .connection import connected
from .log_json import log_json
from .log_options import LogOptions
from .log_text import WIDTH, log_text
from .log_view import NOTHING, LogView, Source
from .output import write_bytes, write_line
from .signs import fitting
from .travel import read_export, say_lost


async def print_log(options: LogOptions) -> None:
    """Print what was asked for of a job on the server, in the archive or in a file.

    Raises:
        PerstackError: there is no such job, run or checkpoint, or it cannot be read.
    """
    if options.file is not None:
        job = read_export(options.file)
        if options.is_export:
            write_bytes(job.to_bytes())
        else:
            await _print(options, job.histories(), job.newest, Source())
        return
    async with connected(options.address) as connection:
        jobs = connection.jobs
        job_id = options.job_id if options.job_id is not None else await jobs.latest()
        if job_id is None:
            write_line(NOTHING)
        elif options.is_export:
            await write_job(connection, job_id, output=None)
        else:
            source = Source(connection.storage.location, is_latest=options.job_id is None)
            await _print(options, jobs.histories, (await jobs.view(job_id)).execution, source)


async def _print(options: LogOptions, histories: Histories, newest: Execution, source: Source) -> None:
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
