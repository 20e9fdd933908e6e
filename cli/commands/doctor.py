"""`perstack doctor`: check all that a run needs, one line each; a failing check never stops the others."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NoReturn

from ...client.locations import data_folder
from ...core.failures import WorkspaceError
from ...definitions.resolve import parse_provider
from ..checks.definition import definition_checks, env_checks, lock_checks
from ..checks.machine import data_checks, setting_checks, version_checks, workspace_checks
from ..checks.provider import provider_checks
from ..checks.report import Check, Report, broken, failed, unneeded
from ..checks.subject import Subject, read_subject
from ..diagnostics import ExitCode
from ..lifecycle import Interruption, run_command


def doctor(
    config: str | None,
    *,
    env_paths: tuple[str, ...],
    provider: str | None,
    address: str | None,
    is_starting_skills: bool,
) -> NoReturn:
    """Make every check and leave with the code of the first failure."""

    async def command() -> ExitCode:
        interruption = Interruption()
        interruption.install()
        name = parse_provider(provider) if provider else None
        workspace = _workspace()
        subject = read_subject(config, env_paths=env_paths, provider=name, workspace=workspace or Path("/"))
        report = Report(subject.redactor().text)
        work = asyncio.create_task(
            _examine(
                report,
                subject,
                workspace=workspace,
                env_paths=env_paths,
                address=address,
                is_starting_skills=is_starting_skills,
            )
        )
        asked_to_leave = asyncio.create_task(interruption.requested.wait())
        await asyncio.wait({work, asked_to_leave}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            # What a skill has started must end first.
            work.cancel()
            await asyncio.wait({work})
            return ExitCode.INTERRUPTED
        asked_to_leave.cancel()
        work.result()
        report.close()
        return report.code

    run_command(command)


async def _examine(
    report: Report,
    subject: Subject,
    *,
    workspace: Path | None,
    env_paths: tuple[str, ...],
    address: str | None,
    is_starting_skills: bool,
) -> None:
    # Each brings a library that takes a while to load.
    from ..checks.skills import skill_checks
    from ..checks.storage import storage_checks
    from ..checks.temporal import temporal_checks

    data = data_folder()
    _make(report, "perstack", version_checks)
    _make(report, "settings", setting_checks)
    _make(report, "data folder", lambda: data_checks(data))
    await _await(report, "storage", lambda: storage_checks(data, report.add))
    _make(report, "workspace", lambda: workspace_checks(workspace) if workspace else [_gone()])
    await _await(report, "server", lambda: temporal_checks(address, data, report.add))
    if workspace is None:
        report.add(unneeded("definition", "cannot be looked for without a workspace"))
    else:
        _make(report, "definition", lambda: definition_checks(subject))
        _make(report, "lock", lambda: lock_checks(subject))
        _make(report, "env files", lambda: env_checks(subject, env_paths))
    _make(report, "provider", lambda: provider_checks(subject))
    if workspace is not None:
        await _await(report, "skills", lambda: skill_checks(subject, report.add, is_starting=is_starting_skills))


def _make(report: Report, label: str, checks: Callable[[], Iterable[Check]]) -> None:
    try:
        for check in checks():
            report.add(check)
    except Exception as error:
        report.add(broken(label, error))


async def _await(report: Report, label: str, checks: Callable[[], Awaitable[None]]) -> None:
    try:
        await checks()
    except Exception as error:
        report.add(broken(label, error))


def _workspace() -> Path | None:
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def _gone() -> Check:
    return failed("workspace", WorkspaceError("The current folder does not exist any more.", hint="Change to another."))
