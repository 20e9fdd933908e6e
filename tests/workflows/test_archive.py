"""Every execution keeps its own history before it ends, whatever its end; no run hangs on that."""

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from perstack.activities import archive as archiving
from perstack.client.archive import Archive
from perstack.client.follow import JobFollower
from perstack.client.histories import Histories
from perstack.client.history import Execution
from perstack.client.jobs import Jobs
from perstack.client.records import Record, newest_of
from perstack.client.storage.folder import FolderStorage
from perstack.core.events import CompleteRun, Event, StopRunByCancellation
from perstack.core.failures import StorageError
from perstack.core.run import RunInput
from support.model_server import ModelServer
from support.recordings import play, short, studio, todos
from support.temporal import Bench, solo


class Gated(FolderStorage):
    """A storage that takes named objects only when the test lets it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.gate = threading.Event()
        self.is_broken = False

    def put_named(self, name: str, content: bytes) -> None:
        """Wait for the test, or fail."""
        if self.is_broken:
            raise StorageError("the test took it away", code="storage.unavailable", hint="none")
        assert self.gate.wait(60)
        super().put_named(name, content)


@pytest.fixture
async def tight(
    temporal_program: Path, cli_env: Mapping[str, str], tmp_path: Path, model: ModelServer
) -> AsyncIterator[Bench]:
    """A server that wants a new execution after a few steps, and a gated storage."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    async with studio(temporal_program, tmp_path, workspace, model, is_tight=True) as bench:
        storage = Gated(tmp_path / "gated")
        yield Bench(bench.client, storage, workspace, model, bench.search_attributes)


def gated(bench: Bench) -> Gated:
    assert isinstance(bench.storage, Gated)
    return bench.storage


def archiving_start(bench: Bench) -> RunInput:
    start = bench.start(solo())
    return start.replaced(settings=start.settings.replaced(is_archiving=True))


async def told(histories: Histories, execution: Execution) -> tuple[JobFollower, list[str]]:
    follower = JobFollower(histories, *await histories.job_chain(execution), wait=False)
    events: list[Event] = [event async for event in follower.events()]
    return follower, sorted(event.wire_json() for event in events)


async def archiving_begun(bench: Bench, job_id: str) -> None:
    """Wait until a run asks for its archive."""
    handle = bench.client.get_workflow_handle(job_id)
    async with asyncio.timeout(60):
        while True:
            pending = (await handle.describe()).raw_description.pending_activities
            if any(one.activity_type.name == "archive" for one in pending):
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "closing"),
    [
        ("tools", "completed"),
        ("nested-delegates", "completed"),
        ("step-limit", "completed"),
        ("failure", "failed"),
        ("cancelled-asking", "cancelled"),
        ("cancelled-generating", "cancelled"),
        ("follow-up", "completed"),
        ("terminated", None),
    ],
)
async def test_the_archive_tells_of_every_end_what_the_server_tells(
    temporal: Bench, name: str, closing: str | None
) -> None:
    job = await play(temporal, name, is_archiving=True)
    archive = Archive(temporal.storage)
    kept = newest_of(await archive.of(job.job_id))
    assert kept is not None
    assert (kept.execution, kept.closing) == (job.newest, closing)
    assert len(await archive.of(job.job_id)) == len([r for r in job.records if r.workflow_id == job.job_id])
    follower, from_server = await told(Histories.on(temporal.client), job.newest)
    alone = Histories(temporal.client.data_converter, records=archive)
    again, from_archive = await told(alone, job.newest)
    assert from_archive == from_server
    assert again.job() == follower.job()
    assert again.root.closed == follower.root.closed
    assert again.lost == ()


async def test_a_chain_is_read_from_its_archive_alone(tight: Bench) -> None:
    gated(tight).gate.set()
    tight.model.script = todos
    start = archiving_start(tight)
    await tight.run(start)
    archive = Archive(tight.storage)
    records = await archive.of(start.job_id)
    assert sorted(filter(None, (record.closing for record in records))) == [
        "completed",
        *["continuedAsNew"] * (len(records) - 1),
    ]
    newest = newest_of(records)
    assert newest is not None
    _, from_server = await told(Histories.on(tight.client), newest.execution)
    _, from_archive = await told(Histories(tight.client.data_converter, records=archive), newest.execution)
    assert from_archive == from_server
    # The first is in the archive alone, the rest on the server: the reader finds its way.
    oldest = min(records, key=lambda record: record.started_at)
    mixed = Histories.on(tight.client, tight.storage)
    assert await mixed.following(oldest) == next(r.execution for r in records if r.previous == oldest.temporal_run_id)


async def test_a_cancellation_that_meets_the_archive_between_two_executions_is_not_lost(tight: Bench) -> None:
    tight.model.script = todos
    start = archiving_start(tight)
    jobs = Jobs(tight.client)
    async with tight.worker(start.job_id):
        execution = await jobs.start(start, task_queue=start.job_id)
        await archiving_begun(tight, start.job_id)
        await jobs.cancel(await jobs.view(start.job_id))
        gated(tight).gate.set()
        follower, events = await tight.read(execution, wait=True)
    assert [event.type for event in events if isinstance(event, StopRunByCancellation)]
    assert follower.root.closed == "cancelled"
    (kept,) = await Archive(tight.storage).of(start.job_id)
    assert kept.closing == "cancelled"
    _, from_server = await told(Histories.on(tight.client), execution)
    _, from_archive = await told(Histories(tight.client.data_converter, records=Archive(tight.storage)), kept.execution)
    assert from_archive == from_server


async def test_a_cancellation_during_the_last_archive_takes_no_result_away(tight: Bench) -> None:
    tight.model.script = short
    start = archiving_start(tight)
    jobs = Jobs(tight.client)
    async with tight.worker(start.job_id):
        execution = await jobs.start(start, task_queue=start.job_id)
        await archiving_begun(tight, start.job_id)
        await jobs.cancel(await jobs.view(start.job_id))
        gated(tight).gate.set()
        follower, events = await tight.read(execution, wait=True)
    assert follower.root.closed == "completed"
    assert [event.type for event in events if isinstance(event, CompleteRun)]


async def test_a_storage_that_stays_away_lets_the_run_end_and_the_next_reader_archives_it(
    tight: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "ARCHIVE_WAIT", timedelta(seconds=0.2))
    gated(tight).is_broken = True
    gated(tight).gate.set()
    tight.model.script = short
    start = archiving_start(tight)
    follower, _ = await tight.run(start)
    assert follower.root.closed == "completed"
    assert not follower.root.is_archived
    archive = Archive(tight.storage)
    assert await archive.of(start.job_id) == []
    gated(tight).is_broken = False
    _, events = await told(Histories.on(tight.client, tight.storage), Execution(start.job_id))
    (kept,) = await archive.of(start.job_id)
    assert kept.closing is None
    _, again = await told(Histories(tight.client.data_converter, records=archive), kept.execution)
    assert again == events


async def test_a_name_of_a_program_that_mounts_perstack_finds_its_place(tmp_path: Path) -> None:
    archive = Archive(FolderStorage(tmp_path))
    started = {"workflowExecutionStartedEventAttributes": {"taskQueue": {"name": "q"}}}
    names = ("order 7/§", "../..", "a" * 500)
    for name in names:
        await archive.put(Record(name, name, "run-1", (started,)))
    for name in names:
        (found,) = await archive.of(name)
        assert found.workflow_id == name
