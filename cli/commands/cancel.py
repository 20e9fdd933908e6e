"""`perstack cancel`: end a job."""

from typing import NoReturn

from ..diagnostics import ExitCode
from ..lifecycle import run_command


def cancel(job_id: str, *, address: str | None) -> NoReturn:
    """Cancel a job and wait until it has ended."""

    async def command() -> ExitCode:
        from ..job import cancel_job

        return await cancel_job(job_id, address=address)

    run_command(command)
