"""Advisory locks on files. Only light imports here: the supervisor uses this module and lives for hours."""

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from .locations import make_private


def pauses(timeout_seconds: float, *, longest_seconds: float = 0.25) -> Iterator[float]:
    """Growing pauses between attempts, until the time is up."""
    deadline = time.monotonic() + timeout_seconds
    pause = 0.01
    while (left := deadline - time.monotonic()) > 0:
        yield min(pause, left)
        pause = min(pause * 1.5, longest_seconds)


class FileLock:
    """An `flock` on one file; the kernel frees it when the last process that has the descriptor ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    @property
    def descriptor(self) -> int:
        """The open file behind the lock; a child that inherits it shares the lock."""
        if self._descriptor is None:
            raise RuntimeError(f"{self.path} is not locked")
        return self._descriptor

    def acquire(self, *, is_shared: bool = False, timeout_seconds: float = 0.0) -> bool:
        """Take the lock, blocking this thread no longer than `timeout_seconds`."""
        for pause in pauses(timeout_seconds):
            if self._try(is_shared):
                return True
            time.sleep(pause)
        return self._try(is_shared)

    def write_note(self, text: str) -> None:
        """Say in the file who holds the lock."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, text.encode(), 0)

    def release(self) -> None:
        """Give the lock up; harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _try(self, is_shared: bool) -> bool:
        if self._descriptor is not None:
            raise RuntimeError(f"{self.path} is locked already")
        make_private(self.path.parent)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True


def is_free(path: Path) -> bool:
    """Whether nobody holds the lock exclusively at this moment."""
    if not path.exists():
        return True
    probe = FileLock(path)
    is_acquired = probe.acquire(is_shared=True)
    probe.release()
    return is_acquired


def read_note(path: Path) -> str:
    """What the last holder of the lock wrote, or nothing."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
