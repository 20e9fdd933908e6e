"""Which process works on which job."""

import os

from ..core.failures import StorageError
from ..core.ids import is_job_id
from .filelock import FileLock, read_note
from .locations import DataFolder


class JobLock:
    """The right to work on one job; it ends with `release` or with the process."""

    def __init__(self, data: DataFolder, job_id: str) -> None:
        if not is_job_id(job_id):
            raise ValueError(f"not a job id: {job_id!r}")
        self.job_id = job_id
        self._lock = FileLock(data.job_lock(job_id))

    @property
    def is_held(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock.is_held

    def acquire(self) -> bool:
        """Take the lock if no other process has it; never waits."""
        try:
            if not self._lock.acquire():
                return False
            self._lock.write_note(str(os.getpid()))
        except OSError as error:
            raise StorageError(
                f"cannot lock the job in {self._lock.path.parent}: {error.strerror or error}",
                hint="make the folder writable or name another one in PERSTACK_DATA_DIR",
            ) from error
        return True

    def holder_pid(self) -> int | None:
        """The process that took the lock last, for messages only."""
        note = read_note(self._lock.path)
        return int(note) if note.isdecimal() else None

    def release(self) -> None:
        """Let another process work on the job."""
        self._lock.release()
