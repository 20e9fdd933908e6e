"""`perstack log` on a terminal: jobs, their runs, steps and checkpoints on screens, and forks from there."""

import asyncio
from typing import TYPE_CHECKING, Any

from .diagnostics import ExitCode
from .log_options import LogOptions
from .screens import on_screens, show

if TYPE_CHECKING:
    from textual.screen import Screen

    from .backend import LiveBackend
    from .commands.run import RunOptions


async def log_on_screens(options: LogOptions) -> ExitCode:
    """Show the jobs of the server, or the runs of the job that was named, or of the one in a file."""
    if options.file is not None:
        return await _show_export(options.file)

    def of_no_run() -> "RunOptions":
        from .commands.run import RunOptions

        return RunOptions(expert_key="", address=options.address)

    async def opening(backend: "LiveBackend") -> "Screen[Any]":
        from .tui.screens.jobs import JobsScreen
        from .tui.screens.runs import RunsScreen

        if options.job_id is None:
            return JobsScreen("log")
        return RunsScreen(await backend.read(options.job_id))

    return await on_screens(options.job_id or "Jobs", of_no_run, opening)


async def _show_export(file: str) -> ExitCode:
    from .backend import ExportBackend
    from .travel import read_export
    from .tui.screens.runs import RunsScreen

    backend = ExportBackend(await asyncio.to_thread(read_export, file), file)
    return await show(backend, RunsScreen(await backend.read(backend.job_id)))
