"""Everything on stderr, and the exit codes (decisions, Interface)."""

import os
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from ..core.failures import (
    CredentialError,
    DefinitionError,
    PerstackError,
    ServerError,
    StorageError,
    UsageError,
    WorkspaceError,
)
from .signs import fitting
from .spinner import can_spin, room, spinning

if TYPE_CHECKING:
    from ..core.checkpoint import CheckpointStatus


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


_BY_STATUS: "dict[CheckpointStatus, ExitCode]" = {
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


def exit_code_of_run(status: "CheckpointStatus", failure_name: str | None) -> ExitCode:
    """The exit code of a run that ended or waits."""
    if status == "stoppedByError" and failure_name in _CREDENTIAL_FAILURES:
        return ExitCode.PROVIDER
    return _BY_STATUS.get(status, ExitCode.FAILED)


@dataclass(frozen=True, slots=True)
class _Listener:
    hears: Callable[[str], None]
    sees_wait: Callable[[str], None] | None


_listeners: list[_Listener] = []
"""Who hears talk instead of stderr; the last one does."""
_is_quiet = False
_has_loggers = False


def be_quiet() -> None:
    """From now on only errors are told on stderr (`--quiet`); a screen goes on saying what it says."""
    global _is_quiet
    _is_quiet = True


def share_stderr() -> None:
    """From now on others write to stderr, too (`--verbose`): no line of ours is taken back."""
    global _has_loggers
    _has_loggers = True


@contextmanager
def telling(listener: Callable[[str], None], waits: Callable[[str], None] | None = None) -> Generator[None]:
    """Hand every line of talk to `listener` while the block runs, from whatever thread it comes; stderr gets none.

    `waits` is told what is waited for.
    """
    heard = _Listener(listener, waits)
    _listeners.append(heard)
    try:
        yield
    finally:
        _listeners.remove(heard)


def _line(text: str, lead: str = "") -> None:
    if _listeners:
        _listeners[-1].hears(text)
        return
    with room():
        sys.stderr.write(fitting(lead + text, sys.stderr.encoding) + "\n")
        sys.stderr.flush()


def say(text: str) -> None:
    """One line of talk."""
    if _is_heard():
        _line(text, "perstack: ")


def show(lines: Iterable[str]) -> None:
    """Lines as they are."""
    for line in lines if _is_heard() else ():
        _line(line)


def _is_heard() -> bool:
    return bool(_listeners) or not _is_quiet


def warn(text: str) -> None:
    """Something the user should change one day."""
    say(f"warning: {text}")


def complain(text: str) -> None:
    """What went wrong; this is told with `--quiet`, too."""
    _line(f"error: {text}", "perstack: ")


def show_error(error: PerstackError) -> None:
    """What happened, where, and what to do next."""
    complain(error.message)
    if error.hint:
        _line(f"hint: {error.hint}")


def progress(text: str) -> None:
    """What a longer wait is for, where more than the wait is shown."""
    say(text)


@contextmanager
def progressing() -> Generator[Callable[[str], None]]:
    """What the waits of a block are for: told line by line, or to a person at a terminal in one line that goes away."""
    if not _can_spin():
        yield _waits() or progress
    else:
        with spinning(sys.stderr, say) as tell:
            yield tell


@contextmanager
def waiting(text: str) -> Generator[None]:
    """Show a person at a terminal what the block waits for; nobody else is told of it."""
    if not _can_spin():
        if tell := _waits():
            tell(text)
        yield
    else:
        with spinning(sys.stderr, say) as tell:
            tell(text)
            yield


def _waits() -> Callable[[str], None] | None:
    return _listeners[-1].sees_wait if _listeners else None


def _can_spin() -> bool:
    return not (_listeners or _is_quiet or _has_loggers) and can_spin(sys.stderr, os.environ)
