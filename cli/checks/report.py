"""The lines of `perstack doctor`: one for each check on stdout, the remedy of a failure on the next line."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ...core.failures import PerstackError
from ..diagnostics import ExitCode, exit_code_of
from ..output import write_line
from ..signs import fitting

Status = Literal["ok", "warn", "fail", "–"]
"""The last one says that a check is not needed, or cannot be made while another one fails."""
_LABEL_WIDTH = 15
_INDENT = " " * (5 + _LABEL_WIDTH)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    status: Status
    label: str
    text: str
    """Further lines are shown below the first, indented."""
    hint: str | None = None
    code: ExitCode = ExitCode.COMPLETED
    """Of a failure: what the program leaves with when this is the first one."""


Tell = Callable[[Check], None]
"""Takes a check that was made."""


def passed(label: str, text: str) -> Check:
    """It is as a run needs it."""
    return Check(status="ok", label=label, text=text)


def unneeded(label: str, text: str) -> Check:
    """Nothing had to be looked at; `text` says why."""
    return Check(status="–", label=label, text=text)


def warned(label: str, text: str, hint: str | None = None) -> Check:
    """A run works, but somebody should know."""
    return Check(status="warn", label=label, text=text, hint=hint)


def failed(label: str, error: PerstackError, *, code: ExitCode | None = None, hint: str | None = None) -> Check:
    """A run would fail; `hint` stands in where the error has none."""
    return Check(
        status="fail",
        label=label,
        text=error.message,
        hint=error.hint or hint,
        code=exit_code_of(error) if code is None else code,
    )


def broken(label: str, error: Exception) -> Check:
    """The check itself did not work."""
    return Check(
        status="fail",
        label=label,
        text=f"this check broke: {type(error).__name__}: {error}",
        hint="This is a bug in Perstack; please report it with the version above.",
        code=ExitCode.FAILED,
    )


class Report:
    """Prints checks as they come and remembers how they went."""

    def __init__(self, scrub: Callable[[str], str]) -> None:
        self._scrub = scrub
        self._counts: Counter[Status] = Counter()
        self.code = ExitCode.COMPLETED
        """The one of the first failure."""

    def add(self, check: Check) -> None:
        """Print a check."""
        self._counts[check.status] += 1
        if check.status == "fail" and self.code is ExitCode.COMPLETED:
            self.code = check.code
        self._print(check)

    def close(self) -> None:
        """Print the summary."""
        done = f"{self._counts['ok']} ok, {_counted(self._counts['warn'], 'warning')}"
        if self._counts["fail"]:
            write_line(f"{_counted(self._counts['fail'], 'check')} failed, {done}: the hints above say what to do.")
        else:
            write_line(f"Nothing that a run needs is missing: {done}.")

    def _print(self, check: Check) -> None:
        first, *more = self._lines(check.text)
        _write(f"{check.status:<5}{check.label:<{_LABEL_WIDTH}}{first}")
        hints = self._lines(check.hint) if check.hint else []
        for line in (*more, *(f"{'      ' if number else 'hint: '}{line}" for number, line in enumerate(hints))):
            _write(_INDENT + line)

    def _lines(self, text: str) -> list[str]:
        # The whole is scrubbed before it is cut: a secret may have several lines.
        return [_plain(line) for line in self._scrub(text).split("\n")]


def _write(line: str) -> None:
    write_line(fitting(line, sys.stdout.encoding))


def _plain(line: str) -> str:
    """`line` without what a terminal would obey: much of it was written by programs that nobody has checked."""
    return "".join(sign if sign.isprintable() else " " if sign == "\t" else "�" for sign in line.rstrip())


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
