"""Everything on stderr, and the exit codes (decisions, Interface)."""

import sys
from collections.abc import Iterable
from enum import IntEnum

from ..core.checkpoint import CheckpointStatus
from ..core.failures import (
    CredentialError,
    DefinitionError,
    PerstackError,
    ServerError,
    StorageError,
    UsageError,
    WorkspaceError,
)
from .tree import fitting


class ExitCode(IntEnum):
    """What a command tells the shell."""

    COMPLETED = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    PROVIDER = 4
    STEP_LIMIT = 5
    WAITING = 6
    CANCELLED = 7
    INTERRUPTED = 130


_BY_STATUS: dict[CheckpointStatus, ExitCode] = {
    "completed": ExitCode.COMPLETED,
    "stoppedByError": ExitCode.FAILED,
    "stoppedByExceededMaxSteps": ExitCode.STEP_LIMIT,
    "stoppedByInteractiveTool": ExitCode.WAITING,
    "stoppedByCancellation": ExitCode.CANCELLED,
}
_CREDENTIAL_FAILURES = frozenset({"provider.auth", "provider.quota", "provider.credentials", "provider.not_found"})


def exit_code_of(error: PerstackError) -> ExitCode:
    """The exit code of a failure before or beside a run."""
    match error:
        case CredentialError():
            return ExitCode.PROVIDER
        case UsageError() | DefinitionError() | WorkspaceError() | StorageError():
            return ExitCode.USAGE
        case ServerError():
            return ExitCode.UNREACHABLE
        case _:
            return ExitCode.FAILED


def exit_code_of_run(status: CheckpointStatus, failure_name: str | None) -> ExitCode:
    """The exit code of a run that ended or waits."""
    if status == "stoppedByError" and failure_name in _CREDENTIAL_FAILURES:
        return ExitCode.PROVIDER
    return _BY_STATUS.get(status, ExitCode.FAILED)


def _line(text: str) -> None:
    sys.stderr.write(fitting(text, sys.stderr.encoding) + "\n")
    sys.stderr.flush()


def say(text: str) -> None:
    """One line of talk."""
    _line(f"perstack: {text}")


def show(lines: Iterable[str]) -> None:
    """Lines as they are."""
    for line in lines:
        _line(line)


def warn(text: str) -> None:
    """Something the user should change one day."""
    say(f"warning: {text}")


def show_error(error: PerstackError) -> None:
    """What happened, where, and what to do next."""
    say(f"error: {error.message}")
    if error.hint:
        _line(f"hint: {error.hint}")


def progress(text: str) -> None:
    """What a longer wait is for."""
    say(text)
