"""`perstack export`: a whole job as one file."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..diagnostics import ExitCode, say
from ..lifecycle import run_command
from ..output import write_bytes
from ..travel import say_lost, write_export

if TYPE_CHECKING:
    from ..connection import Connection


def export(job_id: str, *, output: str | None, address: str | None) -> NoReturn:
    """Read everything that server, archive and storage know of a job and write it down."""

    async def command() -> ExitCode:
        from ..connection import connected

        async with connected(address) as connection:
            await write_job(connection, job_id, output=output)
        return ExitCode.COMPLETED

    run_command(command)


async def write_job(connection: "Connection", job_id: str, *, output: str | None) -> None:
    """Write everything that is known of a job into a file, or to stdout without one."""
    from ...client.exports import export_job

    jobs = connection.jobs
    view = await jobs.view(job_id)
    exported = await export_job(jobs.histories, connection.storage, view.execution)
    if output is None or output == "-":
        write_bytes(exported.job.to_bytes())
    else:
        write_export(exported.job, Path(output))
        say(f"wrote job {job_id} with {len(exported.job.records)} executions to {output}")
    if not exported.job.is_closed:
        say(f"job {job_id} is still open: exported as it stands now")
    say_lost(exported.lost)
