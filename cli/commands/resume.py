"""`perstack resume`: go on with an open job, or show a closed one."""

from typing import NoReturn

from ..diagnostics import ExitCode
from ..lifecycle import run_command
from ..output import EventWriter, parse_filter


def resume(job_id: str, *, filter_types: str | None, address: str | None) -> NoReturn:
    """Follow a job to its end, working on it where nobody else does."""

    async def command() -> ExitCode:
        writer = EventWriter(parse_filter(filter_types))
        from ..continuing import resume_job

        return await resume_job(job_id, address=address, writer=writer)

    run_command(command)
