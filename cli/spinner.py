"""One line of a terminal that says what is waited for and for how long, and that goes away again."""

import os
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import TextIO

KEPT_SECONDS = 10.0
"""A wait that took longer leaves a line behind: somebody may wonder what it was."""
_DELAY_SECONDS = 0.2
_TURN_SECONDS = 0.1
_STUCK_SECONDS = 1.0
_SIGNS, _ASCII_SIGNS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"
_CLEAR = "\r\x1b[K"
_WIDTH = 80


def can_spin(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Whether a person looks at `stream`, on a terminal that can take a line back."""
    return stream.isatty() and env.get("TERM", "dumb") != "dumb" and env.get("CI", "").lower() in ("", "0", "false")


class Spinner:
    """Draws from a thread of its own, so that it turns while an import or a download holds everything else up."""

    def __init__(self, stream: TextIO, keep: Callable[[str], None]) -> None:
        self.lock = threading.RLock()
        self._stream = stream
        self._keep = keep
        self._text = ""
        self._since = 0.0
        self._is_drawn = False
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, text: str) -> None:
        """From now on `text` is waited for; what was before it has come to its end."""
        with self.lock:
            self._finish()
            self._text, self._since = text, time.monotonic()
        if self._thread is None:
            self._thread = threading.Thread(target=self._turn, name="spinner", daemon=True)
            self._thread.start()

    def clear(self) -> None:
        """Take the line away; it comes back with the next turn."""
        if self._is_drawn:
            self._is_drawn = False
            self._write(_CLEAR)

    def close(self, *, has_failed: bool = False) -> None:
        """The last wait is over."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self.lock:
            self.clear()
            if not has_failed:
                self._finish()

    def _finish(self) -> None:
        elapsed = time.monotonic() - self._since
        if self._text and elapsed >= KEPT_SECONDS:
            self.clear()
            self._keep(f"{self._text} {duration(elapsed)}")
        self._text = ""

    def _turn(self) -> None:
        for sign in cycle(_signs(self._stream.encoding)):
            if self._ended.wait(_TURN_SECONDS):
                return
            with self.lock:
                self._draw(sign)

    def _draw(self, sign: str) -> None:
        elapsed = time.monotonic() - self._since
        if elapsed < _DELAY_SECONDS or not self._text:
            return
        line = f"{sign} {self._text} {duration(elapsed)}"
        self._is_drawn = True
        self._write(_CLEAR + line[: self._width() - 1])

    def _width(self) -> int:
        with suppress(OSError, ValueError):
            return os.get_terminal_size(self._stream.fileno()).columns or _WIDTH
        return _WIDTH

    def _write(self, text: str) -> None:
        # The terminal may be gone, which is no reason to stop what is waited for.
        with suppress(OSError, ValueError):
            self._stream.write(text.encode(self._stream.encoding, "replace").decode(self._stream.encoding))
            self._stream.flush()


_turning: list[Spinner] = []
"""The last one has the terminal's line."""


@contextmanager
def spinning(stream: TextIO, keep: Callable[[str], None]) -> Generator[Callable[[str], None]]:
    """Show the texts that the block gives, one after the other; the line is gone when the block ends."""
    spinner = Spinner(stream, keep)
    _turning.append(spinner)
    has_failed = True
    try:
        yield spinner.show
        has_failed = False
    finally:
        # It stays known until it is gone: `keep` writes beside it.
        spinner.close(has_failed=has_failed)
        _turning.remove(spinner)


@contextmanager
def room() -> Generator[None]:
    """Nothing of ours stands in the line while the block writes to the terminal."""
    if not _turning:
        yield
        return
    spinner = _turning[-1]
    # A terminal that takes nothing (Ctrl-S) may hold it up; then there is nothing to make room for either.
    has_lock = spinner.lock.acquire(timeout=_STUCK_SECONDS)
    try:
        if has_lock:
            spinner.clear()
        yield
    finally:
        if has_lock:
            spinner.lock.release()


def _signs(encoding: str) -> str:
    try:
        _SIGNS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return _ASCII_SIGNS
    return _SIGNS


def duration(seconds: float) -> str:
    """How long a wait takes: `7 s`, `4m 06s`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m {rest:02}s" if minutes else f"{rest} s"
