"""Committed histories: this release replays them without a difference and tells of them what was told before.

`pytest tests/workflows/test_golden_histories.py --update-goldens` plays every recording anew on real servers; do that
for a new recording (`-k NAME`), never to make an old one pass: a release reads and continues what older ones began.
"""

import base64
import copy
import gzip
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from perstack.client.exports import ExportedJob
from perstack.client.follow import JobFollower
from perstack.client.histories import Histories
from perstack.client.history import Execution, RunReader
from perstack.client.records import Record
from perstack.core.events import Event
from perstack.core.failures import PerstackError
from perstack.core.run import MACHINE_VERSION, RunInput, RunResult
from perstack.core.wire import Wire
from perstack.workflows.contracts import CALL_TOOL, GENERATE, OPEN_SESSION, CallAnswer
from perstack.workflows.expert_run import ExpertRun
from support.model_server import Json, ModelServer
from support.planted import found_in
from support.recordings import RECORDINGS, play, studio
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

FOLDER = Path(__file__).parent.parent / "golden" / "histories"
WORKSPACE = Path("/tmp/perstack-golden/workspace")
"""The same wherever it is recorded."""
MOST_BYTES = 1_000_000
HELD_MS = 100
"""A run hears of the end of a call when its next workflow task begins; so long after it an end may be told."""
NESTED = {"settings", "limits", "outcome", "usage", "seed", "checkpoint"}
"""Values of our own models, where a newer release may write more."""


def export_of(name: str) -> ExportedJob:
    return ExportedJob.from_bytes(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


async def transcript(job: ExportedJob) -> list[str]:
    """Every event of every run, run by run."""
    histories = job.histories()
    events = [event for root in await histories.job_chain(job.newest) for event in await told(histories, root)]
    return [event.wire_json() for event in events]


async def told(histories: Histories, execution: Execution) -> list[Event]:
    reader = RunReader(histories.converter)
    events: list[Event] = []
    children: list[Execution] = []
    while True:
        async for history_event in histories.events(execution):
            events += await reader.feed(history_event)
            if reader.started_child is not None:
                children.append(reader.started_child)
        if reader.next_execution is None:
            break
        execution = Execution(execution.workflow_id, reader.next_execution)
    return events + [event for child in children for event in await told(histories, child)]


def without_places(job: ExportedJob) -> ExportedJob:
    """The job without the paths that tracebacks of failed calls show: they are of the machine that recorded it."""

    def scrubbed(node: Any) -> Any:
        if isinstance(node, dict):
            known = cast(Json, node)
            return {key: scrubbed(value) for key, value in known.items() if key != "stackTrace"}
        if isinstance(node, list):
            return [scrubbed(value) for value in cast(list[Any], node)]
        return node

    return replace(job, records=tuple(replace(one, events=tuple(map(scrubbed, one.events))) for one in job.records))


async def record(name: str, program: Path, folder: Path, model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Play a job on a server of its own and write down its histories and what is told of them."""
    monkeypatch.setattr(socket, "gethostname", lambda: "golden")
    shutil.rmtree(WORKSPACE.parent, ignore_errors=True)
    WORKSPACE.mkdir(parents=True)
    (WORKSPACE / "big.txt").write_text("line\n" * 20_000)
    try:
        async with studio(program, folder, WORKSPACE, model, is_tight=RECORDINGS[name].is_tight) as bench:
            job = await play(bench, name)
    finally:
        shutil.rmtree(WORKSPACE.parent)
    job = without_places(job)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json.gz").write_bytes(gzip.compress(job.to_bytes(), 9, mtime=0))
    lines = "".join(f"{line}\n" for line in await transcript(job))
    (FOLDER / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 9, mtime=0))


@pytest.mark.parametrize("name", RECORDINGS)
async def test_a_committed_history_is_told_as_ever(
    name: str,
    is_updating_goldens: bool,
    temporal_program: Path,
    tmp_path: Path,
    model: ModelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if is_updating_goldens:
        await record(name, temporal_program, tmp_path, model, monkeypatch)
    lines = await transcript(export_of(name))
    expected = gzip.decompress((FOLDER / f"{name}.jsonl.gz").read_bytes()).decode().split("\n")[:-1]
    types = [json.loads(line)["type"] for line in lines]
    assert types == [json.loads(line)["type"] for line in expected]
    for line, known in zip(lines, expected, strict=True):
        assert json.loads(line) == json.loads(known)
        assert line == known, "the order of the fields is part of the wire"


@pytest.mark.parametrize("name", RECORDINGS)
async def test_a_committed_history_replays_in_the_sandbox_without_a_difference(name: str) -> None:
    job = export_of(name)
    pure = SandboxRestrictions.default.with_passthrough_modules("perstack.core")
    replayer = Replayer(
        workflows=[ExpertRun],
        data_converter=job.histories().converter,
        workflow_runner=SandboxedWorkflowRunner(restrictions=pure),
    )
    for record in job.records:
        result = await replayer.replay_workflow(WorkflowHistory(record.workflow_id, record.history()))
        assert result.replay_failure is None, record.workflow_id


Rewrite = Callable[[type[Wire], Json], Json]


def rewritten(job: ExportedJob, rewrite: Rewrite) -> ExportedJob:
    """The job as if another release had written every payload that readers decode."""
    records: list[Record] = []
    for record in job.records:
        events = copy.deepcopy(record.events)
        names: dict[str, str] = {}
        for event in events:
            _note_activity(event, names)
            for kind, payload in _payloads_of(event, names):
                if "externalPayloads" not in payload:
                    data = rewrite(kind, json.loads(base64.b64decode(payload["data"])))
                    payload["data"] = base64.b64encode(json.dumps(data).encode()).decode()
        records.append(replace(record, events=events))
    return replace(job, records=tuple(records))


def _note_activity(event: Json, names: dict[str, str]) -> None:
    scheduled = event.get("activityTaskScheduledEventAttributes")
    if scheduled is not None:
        names[event["eventId"]] = scheduled["activityType"]["name"]


def _payloads_of(event: Json, names: dict[str, str]) -> Iterator[tuple[type[Wire], Json]]:
    match event:
        case {"workflowExecutionStartedEventAttributes": {"input": {"payloads": [payload]}}}:
            yield RunInput, payload
        case {
            "activityTaskCompletedEventAttributes": {"scheduledEventId": scheduled, "result": {"payloads": [payload]}}
        }:
            kind = {spec.name: spec.output_type for spec in (OPEN_SESSION, GENERATE, CALL_TOOL)}.get(names[scheduled])
            if kind is not None:
                yield kind, payload
        case {"markerRecordedEventAttributes": {"details": {"result": {"payloads": [payload]}}}}:
            yield CallAnswer, payload
        case {"childWorkflowExecutionCompletedEventAttributes": {"result": {"payloads": [payload]}}}:
            yield RunResult, payload
        case _:
            pass


@pytest.mark.parametrize("name", RECORDINGS)
async def test_fields_of_a_newer_release_are_ignored(name: str) -> None:
    def with_more(kind: type[Wire], data: Json) -> Json:
        deeper = {key: with_more(kind, value) for key, value in data.items() if key in NESTED}
        return {**data, **deeper, "fromTheFuture": {"a": [1]}}

    job = export_of(name)
    assert await transcript(rewritten(job, with_more)) == await transcript(job)


def with_tags(bare: Any, full: Any) -> Any:
    """`bare` with what tells one kind of a value from another: that is in every payload of every release."""
    if isinstance(bare, dict) and isinstance(full, dict):
        known, whole = cast(Json, bare), cast(Json, full)
        tags = {"type": whole["type"]} if isinstance(whole.get("type"), str) else {}
        return {**tags, **{key: with_tags(value, whole.get(key)) for key, value in known.items()}}
    if isinstance(bare, list) and isinstance(full, list):
        pairs = zip(cast(list[Any], bare), cast(list[Any], full), strict=True)
        return [with_tags(one, other) for one, other in pairs]
    return cast(Any, bare)


@pytest.mark.parametrize("name", RECORDINGS)
async def test_fields_that_an_older_release_did_not_write_may_be_absent(name: str) -> None:
    def with_less(kind: type[Wire], data: Json) -> Json:
        bare = kind.model_validate(data).model_dump(
            mode="json", by_alias=True, exclude_defaults=True, exclude_none=True
        )
        return with_tags(bare, data)

    job = export_of(name)
    assert len(rewritten(job, with_less).to_bytes()) < len(job.to_bytes())
    assert await transcript(rewritten(job, with_less)) == await transcript(job)


async def test_a_reader_refuses_a_run_of_a_newer_machine_in_words() -> None:
    def from_the_future(kind: type[Wire], data: Json) -> Json:
        if kind is RunInput:
            data["settings"] |= {"machineVersion": MACHINE_VERSION + 1, "runtimeVersion": "9.9.9"}
        return data

    with pytest.raises(
        PerstackError, match=r"newer Perstack \(9\.9\.9, machine 2\); this one knows machine 1"
    ) as caught:
        await transcript(rewritten(export_of("tools"), from_the_future))
    assert caught.value.code == "machine.newer"
    assert "Upgrade" in (caught.value.hint or "")


def test_the_recordings_are_all_there_and_stay_small() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {f"{name}.{kind}.gz" for name in RECORDINGS for kind in ("json", "jsonl")}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST_BYTES
    assert list(found_in(FOLDER)) == []


def test_the_recordings_end_in_every_way_and_hold_every_shape() -> None:
    jobs = {name: export_of(name) for name in RECORDINGS}
    ends = {
        record.events[-1]["eventType"].rpartition("EXECUTION_")[2]
        for job in jobs.values()
        for record in job.records
        if record.closing is not None or record.shows_its_end
    }
    assert ends == {"COMPLETED", "FAILED", "CANCELED", "TERMINATED", "CONTINUED_AS_NEW"}
    assert jobs["large-payload"].payloads
    assert len(jobs["chain"].records) > 1
    assert len(jobs["follow-up"].records) == 2
    assert [record.job_id for record in jobs["branch"].records] == ["golden-branch-branch"]
    archived = [record for name, job in jobs.items() if name.startswith("archived") for record in job.records]
    assert all('"archive"' in json.dumps(record.events) for record in archived)


async def test_the_past_of_runs_that_worked_at_once_is_told_in_the_order_of_its_times() -> None:
    job = export_of("deepest")
    histories = job.histories()
    readings: list[list[Event]] = []
    for _ in range(2):
        follower = JobFollower(histories, *await histories.job_chain(job.newest), wait=False)
        readings.append([event async for event in follower.events()])
    first, second = readings
    assert [event.id for event in first] == [event.id for event in second]
    latest: dict[str, int] = {}
    for event in first:
        if event.type == "retry":
            continue  # it brings the time along that its worker's clock told
        others = max((at for run_id, at in latest.items() if run_id != event.run_id), default=0)
        assert event.timestamp >= others - HELD_MS, f"{event.type} of {event.run_id} comes late"
        latest[event.run_id] = event.timestamp
    assert len(latest) > 10
