"""`perstack start`: jobs on screens."""

from typing import TYPE_CHECKING, Any, NoReturn

from ...core.failures import UsageError
from ..diagnostics import ExitCode
from ..lifecycle import run_command
from ..terminal import require_terminal
from .run import Past, PreparedRun, RunOptions, prepare

if TYPE_CHECKING:
    from textual.screen import Screen

    from ..backend import LiveBackend


def start(options: RunOptions) -> NoReturn:
    """Show screens until somebody leaves them; leave with the exit code of the job that was shown last."""

    async def command() -> ExitCode:
        require_terminal('perstack run EXPERT "the task"')
        prepared = _prepared(options)
        from ..screens import on_screens

        async def opening(backend: "LiveBackend") -> "Screen[Any]":
            from ..tui.screens import picking
            from ..tui.screens.query import QueryScreen
            from ..tui.screens.run import RunScreen

            if prepared is not None:
                return RunScreen(await _job(backend, prepared))
            if _is_going_on(options):
                return RunScreen(await backend.open(options.continue_job or await backend.latest()))
            if options.expert_key:
                return QueryScreen(backend.expert(options.expert_key))
            return picking.experts()

        return await on_screens(_title(options), lambda: options, opening, prepared=prepared)

    run_command(command, is_verbose=options.is_verbose)


def _title(options: RunOptions) -> str:
    return options.query or options.continue_job or options.expert_key or "perstack"


def _prepared(options: RunOptions) -> PreparedRun | None:
    """A job that was asked for outright, checked before anything is shown; `None` where a person is to choose."""
    if options.resume_from is None and not options.is_branch:
        is_choosing = options.query is None and not _is_going_on(options)
        is_opening = not options.expert_key and _is_going_on(options)
        if is_choosing or is_opening:
            return None
    elif not options.expert_key:
        raise UsageError("There is no expert.", hint='`perstack start EXPERT "the task"`, or nothing at all to choose.')
    return prepare(options)


def _is_going_on(options: RunOptions) -> bool:
    return options.is_latest or options.continue_job is not None


async def _job(backend: "LiveBackend", prepared: PreparedRun) -> Any:
    past: Past | None = prepared.past
    if past is not None:
        return await backend.go_on(prepared, past)
    return await backend.start(prepared.options.expert_key, prepared.options.query or "")
