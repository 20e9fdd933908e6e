"""The terminal while screens are on it: theirs alone, and as it was before once they are gone."""

import io
import os
import sys
import tempfile
import termios
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import BinaryIO, TextIO

from ..core.failures import UsageError

_OFF = (1000, 1002, 1003, 1006, 1015, 1016, 2004, 2048, 1004)
LEAVE_SCREENS = "".join(f"\x1b[?{mode}l" for mode in _OFF) + "\x1b[?7h\x1b[<u\x1b[?1049l\x1b[?25h"
"""Mouse, paste, focus, keys, wrapping, the other screen, the cursor: all that screens ask of a terminal, undone."""


def has_terminal() -> bool:
    """Whether screens can be shown and used: a terminal on both ends that knows more than to print."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def require_terminal(instead: str) -> None:
    """Refuse to show screens where there is no terminal.

    Raises:
        UsageError: with `instead`, the command to use.
    """
    if not has_terminal():
        raise UsageError(
            "This command needs a terminal: stdin or stdout is none, or TERM is not set or `dumb`.",
            code="usage.no_terminal",
            hint=f"Without one, use `{instead}`.",
        )


class Terminal:
    """The terminal that screens own; whatever else writes to stdout or stderr meanwhile is kept aside."""

    def __init__(self, screen: TextIO, restore: "_Restore") -> None:
        self.screen = screen
        """Where screens are drawn."""
        self._restore = restore

    def restore(self) -> None:
        """Give it back at once, from whatever screen; for an end that waits for nothing."""
        self.screen.write(LEAVE_SCREENS)
        self.screen.flush()
        self._restore.now()


class _Screen(io.TextIOWrapper):
    """The terminal as a file; one that has gone away takes everything, or the thread that draws would be stuck."""

    def write(self, text: str, /) -> int:
        with suppress(OSError, ValueError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            super().flush()


class _Restore:
    """What the terminal and the descriptors were, and what was written meanwhile."""

    def __init__(self, aside: BinaryIO) -> None:
        self._aside = aside
        self._attributes = termios.tcgetattr(0)
        # Both may be the terminal; a stderr that goes into a file disturbs nobody.
        self._kept = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
        sys.stdout.flush()
        sys.stderr.flush()
        for number in self._kept:
            os.dup2(aside.fileno(), number)

    def now(self) -> None:
        """Put everything back and say what was kept aside; the second time does nothing."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        if not self._kept:
            return
        for number, kept in self._kept.items():
            os.dup2(kept, number)
            os.close(kept)
        self._kept.clear()
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, self._attributes)
        self._aside.seek(0)
        with suppress(OSError):
            for piece in iter(lambda: self._aside.read(64 * 1024), b""):
                os.write(2, piece)


@contextmanager
def owned_terminal() -> Generator[Terminal]:
    """Own the terminal while the block runs; what others wrote meanwhile appears on stderr afterwards."""
    with tempfile.TemporaryFile() as aside:
        screen = _Screen(os.fdopen(os.dup(1), "wb"), encoding=sys.stdout.encoding, errors="replace")
        restore = _Restore(aside)
        try:
            yield Terminal(screen, restore)
        finally:
            restore.now()
            with suppress(OSError):
                screen.close()
