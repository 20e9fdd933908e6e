"""A whole job in one file: taken out, put into another archive, or read by itself (decision 0013)."""

import base64
import binascii
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, cast

from ..core.failures import StorageError, UsageError
from ..core.ids import is_job_id
from .archive import Archive
from .connection import data_converter
from .histories import Histories, HistoryLost
from .history import Execution
from .records import Record, canonical, newest_of, references_in
from .storage.base import Storage
from .storage.driver import READER_SECONDS, PayloadDriver

FORMAT = "perstack.job"
VERSION = 1
DAMAGED = "export.damaged"
NEWER = "export.newer"
CONFLICT = "export.conflict"


@dataclass(frozen=True)
class ExportedJob:
    """The executions of a job, of its root and of every delegate, with the large payloads they name."""

    job_id: str
    records: tuple[Record, ...]
    """The root's, oldest first, then those of each delegate."""
    payloads: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """By the hash of their content."""

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """An export from its file, checked whole.

        Raises:
            UsageError: this is no export, a damaged one, or one of a newer Perstack.
        """
        try:
            data: Any = json.loads(content)
        except ValueError as error:
            raise _damaged(f"it is not JSON ({error})") from error
        if not isinstance(data, dict) or cast(dict[str, Any], data).get("format") != FORMAT:
            raise _damaged(f'it does not say "format": "{FORMAT}"')
        version = cast(dict[str, Any], data).get("version")
        if isinstance(version, int) and version > VERSION:
            raise UsageError(
                f"The export has version {version}; this Perstack reads up to version {VERSION}.",
                code=NEWER,
                hint="Upgrade Perstack here.",
            )
        return cls._checked(cast(dict[str, Any], data))

    @classmethod
    def _checked(cls, data: dict[str, Any]) -> Self:
        rest = {name: value for name, value in data.items() if name != "digest"}
        if data.get("digest") != hashlib.sha256(canonical(rest)).hexdigest():
            raise _damaged("its content is not what its digest says")
        match data:
            case {"jobId": str(job_id), "executions": [_, *_] as executions, "payloads": {**encoded}}:
                pass
            case _:
                raise _damaged("it lacks the job, its executions or its payloads")
        try:
            records = tuple(map(Record.from_json, cast(list[Any], executions)))
            payloads = {str(name): base64.b64decode(cast(str, text), validate=True) for name, text in encoded.items()}
            for record in records:
                record.history()
                _require_all(record, payloads)
        except (ValueError, TypeError, binascii.Error) as error:
            raise _damaged(str(error)) from error
        for name, content in payloads.items():
            if hashlib.sha256(content).hexdigest() != name:
                raise _damaged(f"payload {name} is not what its name says")
        job = cls(job_id, records, payloads)
        is_of_job = all(
            record.job_id == job_id and record.workflow_id.partition("/")[0] == job_id for record in records
        )
        if not is_job_id(job_id) or not is_of_job or newest_of(job._of(job_id)) is None:
            raise _damaged(f"it does not hold job {job_id}")
        return job

    def to_bytes(self) -> bytes:
        """The file; the same job gives the same file."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "jobId": self.job_id,
            "executions": [record.to_json() for record in self.records],
            "payloads": {name: base64.b64encode(self.payloads[name]).decode() for name in sorted(self.payloads)},
        }
        return canonical({**data, "digest": hashlib.sha256(canonical(data)).hexdigest()}) + b"\n"

    @property
    def newest(self) -> Execution:
        """The last execution of the root."""
        record = newest_of(self._of(self.job_id))
        assert record is not None, "an export holds its job"
        return record.execution

    @property
    def is_closed(self) -> bool:
        """Whether the job had ended when it was exported."""
        record = next(record for record in self.records if record.execution == self.newest)
        return record.closing is not None or record.shows_its_end

    def histories(self) -> Histories:
        """Its histories for a reader; needs neither server nor storage and writes nothing."""
        return Histories(data_converter(PayloadDriver(_ExportedPayloads(self.payloads))), records=self)

    async def get(self, execution: Execution) -> Record | None:
        """The record of one execution."""
        return next((record for record in self.records if record.execution == execution), None)

    async def of(self, workflow_id: str) -> Sequence[Record]:
        """The records of all executions of a workflow id."""
        return self._of(workflow_id)

    def _of(self, workflow_id: str) -> list[Record]:
        return [record for record in self.records if record.workflow_id == workflow_id]


@dataclass(frozen=True)
class Exported:
    """What came of an export."""

    job: ExportedJob
    lost: tuple[str, ...]
    """Workflow ids of executions that belong to the job and that nobody knows any more."""


async def export_job(histories: Histories, storage: Storage, newest: Execution) -> Exported:
    """Everything that server, archive and storage know of a job.

    Raises:
        StorageError: a payload of the job cannot be read.
        UsageError: a payload of the job lies where only another program can read it.
    """
    lost: list[str] = []
    roots = (await _chain(histories, newest, _before, lost))[::-1]
    delegates: list[Record] = []
    waiting = list(_children(roots))
    while waiting:
        execution = waiting.pop()
        below = await _chain(histories, execution, partial(_carried_on_by, histories), lost)
        delegates.extend(below)
        waiting.extend(_children(below))
    # Executions of one delegate stay in their order.
    records = (*roots, *sorted(delegates, key=lambda record: record.workflow_id))
    try:
        names = {name for record in records for name in references_in(record.events)}
    except ValueError as error:
        raise UsageError(f"Job {newest.workflow_id} cannot be exported: {error}.") from error
    for record in roots:
        cassette = (await histories.read_input(record.execution)).settings.cassette
        names |= {cassette.sha256} if cassette is not None else set()
    payloads = {name: await _payload(storage, name) for name in sorted(names)}
    return Exported(ExportedJob(newest.workflow_id, records, payloads), tuple(sorted(lost)))


async def import_job(job: ExportedJob, storage: Storage) -> int:
    """Put a job into the archive of a storage; returns how many executions were new or told more than was known.

    Raises:
        UsageError: the archive holds another job of this id; nothing was written.
        StorageError: the storage cannot be used.
    """
    archive = Archive(storage)
    changed: list[Record] = []
    for record in job.records:
        known = await archive.get(record.execution)
        merged = record if known is None else record.merged(known)
        if merged is None:
            raise _conflict(job, storage, f"of execution {record.temporal_run_id} it tells something else")
        if merged != known:
            changed.append(merged)
    await _require_same_job(job, archive, storage)
    for content in job.payloads.values():
        await storage.outages.through(partial(storage.put, content), gives_up=_gives_up)
    # The newest execution of the root last but for those before it: a job that is cut off here says what is missing.
    roots = [record for record in changed if record.workflow_id == job.job_id]
    delegates = [record for record in changed if record.workflow_id != job.job_id]
    for record in (*delegates, *reversed(roots)):
        await archive.put(record, gives_up=_gives_up)
    return len(changed)


async def _require_same_job(job: ExportedJob, archive: Archive, storage: Storage) -> None:
    """Two chains of one id that do not belong together would be one job that nobody ran."""
    known = await archive.of(job.job_id)
    ours = {record.temporal_run_id for record in job.records}
    theirs = {record.temporal_run_id for record in known}
    linked = {record.previous for record in known} & ours or {record.previous for record in job.records} & theirs
    if theirs and not ours & theirs and not linked:
        raise _conflict(job, storage, "it has no execution in common with that one")


def _conflict(job: ExportedJob, storage: Storage, why: str) -> UsageError:
    return UsageError(
        f"The archive in {storage.location} holds another job {job.job_id} than this file: {why}.",
        code=CONFLICT,
        hint="Nothing was written. `perstack log --file` shows the job in the file; PERSTACK_STORAGE names another "
        "archive for it.",
    )


async def _chain(
    histories: Histories,
    start: Execution,
    neighbour: Callable[[Record], Awaitable[Execution | None]],
    lost: list[str],
) -> list[Record]:
    """The executions from `start` on, each the neighbour of the one before, as far as somebody knows them."""
    records: list[Record] = []
    execution: Execution | None = start
    while execution is not None:
        try:
            record = await histories.record(execution)
        except HistoryLost:
            lost.append(execution.workflow_id)
            break
        records.append(record)
        execution = await neighbour(record)
    return records


async def _before(record: Record) -> Execution | None:
    return Execution(record.workflow_id, record.previous) if record.previous else None


async def _carried_on_by(histories: Histories, record: Record) -> Execution | None:
    if record.closing == "continuedAsNew":
        return await histories.following(record)
    attributes = record.events[-1].get("workflowExecutionContinuedAsNewEventAttributes")
    return Execution(record.workflow_id, attributes["newExecutionRunId"]) if attributes else None


def _children(records: Sequence[Record]) -> Iterator[Execution]:
    for record in records:
        for event in record.events:
            started = event.get("childWorkflowExecutionStartedEventAttributes")
            if started is not None:
                child = started["workflowExecution"]
                yield Execution(child["workflowId"], child["runId"])


async def _payload(storage: Storage, name: str) -> bytes:
    return await storage.outages.through(partial(storage.get, name), gives_up=_gives_up)


def _gives_up(waited_seconds: float) -> bool:
    return waited_seconds >= READER_SECONDS


def _require_all(record: Record, payloads: Mapping[str, bytes]) -> None:
    missing = next((name for name in references_in(record.events) if name not in payloads), None)
    if missing is not None:
        raise ValueError(f"payload {missing} is missing")


def _damaged(why: str) -> UsageError:
    return UsageError(
        f"This is no whole export of a job: {why}.",
        code=DAMAGED,
        hint="`perstack export JOB -o FILE` writes one.",
    )


class _ExportedPayloads(Storage):
    """The payloads of an export, for readers."""

    def __init__(self, payloads: Mapping[str, bytes]) -> None:
        super().__init__("the export", hint="export the job again")
        self._payloads = {f"{name[:2]}/{name[2:]}": content for name, content in payloads.items()}

    @property
    def storage_id(self) -> str:
        """It has no identity: nothing is ever put into it."""
        return ""

    def _write(self, name: str, content: bytes) -> None:
        raise StorageError("an export is only read", code="storage.missing")

    def _read(self, name: str) -> bytes | None:
        return self._payloads.get(name)

    def _names(self, prefix: str) -> list[str]:
        return []
