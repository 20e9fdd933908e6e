"""Records in the payload storage: what is left of a job when Temporal has forgotten it (decision 0013)."""

import asyncio
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Sequence

from ..core.failures import StorageError
from .history import Execution
from .records import Record, canonical
from .storage.base import Storage
from .storage.driver import READER_SECONDS

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LEVEL = 6


class Archive:
    """Named objects `archive/<job id>/<workflow id>/<temporal run id>` of one storage."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    async def put(self, record: Record, *, gives_up: Callable[[float], bool] = lambda _: True) -> None:
        """Keep a record, in place of what was there.

        Raises:
            StorageError: it cannot be written, and `gives_up` says so of the seconds waited so far.
        """
        name, content = await asyncio.to_thread(_encoded, record)
        await self.storage.outages.through(lambda: self.storage.put_named(name, content), gives_up=gives_up)

    async def get(self, execution: Execution) -> Record | None:
        """The record of one execution.

        Raises:
            StorageError: it cannot be read, or is damaged.
        """
        if execution.temporal_run_id is None:
            return None
        return await self._get(f"{_folder(execution.workflow_id)}{execution.temporal_run_id}")

    async def of(self, workflow_id: str) -> Sequence[Record]:
        """The records of all executions of a workflow id.

        Raises:
            StorageError: they cannot be listed or read, or one is damaged.
        """
        folder = _folder(workflow_id)
        names = await self.storage.outages.through(lambda: self.storage.names(folder), gives_up=_reader_gives_up)
        # A root's folder holds those of its delegates as well.
        own = [name for name in names if "/" not in name[len(folder) :]]
        return [record for record in [await self._get(name) for name in own] if record is not None]

    async def _get(self, name: str) -> Record | None:
        content = await self.storage.outages.through(lambda: self.storage.get_named(name), gives_up=_reader_gives_up)
        if content is None:
            return None
        try:
            return await asyncio.to_thread(_decoded, content)
        except (ValueError, OSError, EOFError, zlib.error) as error:
            raise StorageError(
                f"{name} in {self.storage.location} is damaged: {error}",
                code="storage.corrupt",
                hint="restore it from a backup, or import the job again",
                details={"storage": self.storage.location},
            ) from error


def _reader_gives_up(waited_seconds: float) -> bool:
    return waited_seconds >= READER_SECONDS


def _folder(workflow_id: str) -> str:
    """Where the records of a workflow id lie; ends with a slash."""
    job_id = workflow_id.partition("/")[0]
    return "/".join(("archive", *map(_segment, (job_id, *workflow_id.split("/"))), ""))


def _segment(text: str) -> str:
    """Part of a name; programs that mount Perstack choose ids that no name can hold."""
    return text if _PLAIN.fullmatch(text) else f"x-{hashlib.sha256(text.encode()).hexdigest()}"


def _encoded(record: Record) -> tuple[str, bytes]:
    name = f"{_folder(record.workflow_id)}{record.temporal_run_id}"
    return name, gzip.compress(canonical(record.to_json()), _LEVEL, mtime=0)


def _decoded(content: bytes) -> Record:
    return Record.from_json(json.loads(gzip.decompress(content)))
