"""`perstack import`: an exported job into the archive of this environment's storage."""

import asyncio
from typing import NoReturn

from ..diagnostics import ExitCode, say
from ..lifecycle import run_command
from ..travel import read_export


def import_job(file: str) -> NoReturn:
    """Check a file, then put its job into the archive; needs no server."""

    async def command() -> ExitCode:
        job = read_export(file)
        from ...client.exports import import_job
        from ...client.locations import data_folder
        from ...client.storage.setting import open_storage

        storage = await asyncio.to_thread(open_storage, data_folder())
        storage.outages.tell = say
        await asyncio.to_thread(lambda: storage.storage_id)
        if await import_job(job, storage):
            say(f"imported job {job.job_id}; look at it with: perstack log --job {job.job_id}")
        else:
            say(f"job {job.job_id} was in the archive already")
        return ExitCode.COMPLETED

    run_command(command)
