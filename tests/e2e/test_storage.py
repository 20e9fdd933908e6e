"""The payload storage goes away while jobs run: they wait, say so, and go on; nothing is asked of the model twice."""

import asyncio
import base64
import json
import os
import re
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from perstack.client.embedded import stop_server
from perstack.client.locations import DataFolder
from support.cli import Cli, Result, RunningCli
from support.model_server import Answer, Call, ModelServer, Request
from support.s3_server import SECRET, S3Server
from temporalio.client import Client
from temporalio.service import RPCError

SOLO = """
[experts.solo]
instruction = "You are solo."
"""
TEAM = """
[experts.team]
description = "Asks one."
instruction = "You are team."
delegates = ["@team/one"]

[experts."@team/one"]
description = "Tells much."
instruction = "You are one."
"""
BIG = "line\n" * 40_000


@pytest.fixture
def s3() -> Iterator[S3Server]:
    """A server with an empty bucket."""
    with S3Server(f"bucket-{uuid.uuid4().hex}") as server:
        yield server


@pytest.fixture
def s3_env(s3: S3Server, model_env: dict[str, str]) -> dict[str, str]:
    """The scripted model, and payloads in the bucket."""
    return {**model_env, **s3.env, "PERSTACK_STORAGE": f"s3://{s3.bucket}/jobs"}


@pytest.fixture
async def own_data(tmp_path: Path) -> AsyncIterator[DataFolder]:
    """A data folder of this test alone; what runs in it ends with the test."""
    data = DataFolder(tmp_path / "own-data")
    yield data
    await stop_server(data)


def reads_a_big_file(request: Request) -> Answer:
    """Waits in its first answer until the test has broken something, then needs the payload storage."""
    if request.turn == 1:
        call = Call(name="readTextFile", args={"path": "big.txt"})
        return Answer(text="reading", calls=(call,), after_events=4, then="hang", gate="broken")
    return Answer(calls=(Call(name="attemptCompletion", args={"result": "read"}),))


def says_much(request: Request) -> Answer:
    """Its first answer is itself too large for history."""
    if request.turn == 1:
        call = Call(name="writeTextFile", args={"path": "out.txt", "text": BIG})
        return Answer(text="writing", calls=(call,), after_events=4, then="hang", gate="broken")
    return Answer(calls=(Call(name="attemptCompletion", args={"result": "read"}),))


async def waits_in_heartbeat(data: DataFolder, job_id: str, text: str) -> None:
    """Wait until the Temporal UI would show on the pending call that it waits for the storage."""
    client = await Client.connect(json.loads(data.record.read_text())["address"])
    handle = client.get_workflow_handle(job_id)
    async with asyncio.timeout(30):
        while True:
            for pending in (await handle.describe()).raw_description.pending_activities:
                told = b"".join(one.data for one in pending.heartbeat_details.payloads).decode()
                if f'"waiting":"the payload storage {text}' in told:
                    return
            await asyncio.sleep(0.2)


def completed_once(result: Result, model: ModelServer) -> None:
    assert result.code == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert result.of_type("completeRun")[-1]["text"] == "read"
    assert not result.of_type("retry")
    assert set(model.ledger.counts.values()) == {1}


async def test_a_payload_folder_that_goes_away_is_waited_for(
    cli: Cli, model: ModelServer, model_env: dict[str, str], own_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    cli.write("big.txt", BIG)
    model.script = reads_a_big_file
    env = {**model_env, "PERSTACK_DATA_DIR": str(own_data.root)}
    aside = own_data.root / "aside"
    async with cli.running("run", "solo", "go", "--job-id", "first", env=env) as running:
        await running.seen('"delta":"reading"')
        own_data.storage.rename(aside)
        own_data.storage.write_text("a file in its place")
        refused = await cli.run("run", "solo", "go", "--job-id", "second", env=env)
        assert refused.code == 2
        assert f"the payload storage {own_data.storage} cannot be used" in refused.stderr
        assert "PERSTACK_DATA_DIR" in refused.stderr
        model.release("broken")
        await running.seen(f"the payload storage {own_data.storage} cannot be written")
        await waits_in_heartbeat(own_data, "first", str(own_data.storage))
        own_data.storage.unlink()
        aside.rename(own_data.storage)
        await running.seen(f"the payload storage {own_data.storage} is back")
        result = await cli.finished(running)
    completed_once(result, model)
    [resolved] = result.of_type("resolveToolResults")
    assert "line" in json.dumps(resolved)
    assert "cannot be" not in json.dumps(resolved)
    assert (await cli.run("log", "--job", "second", env=env)).code == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_is_waited_for_and_the_finished_model_call_is_not_repeated(
    cli: Cli, model: ModelServer, model_env: dict[str, str], small_disk: Path, server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = says_much
    env = {**model_env, "PERSTACK_STORAGE": str(small_disk / "storage")}
    job_id = f"full-{uuid.uuid4().hex}"
    async with cli.running("run", "solo", "go", "--job-id", job_id, env=env) as running:
        await running.seen('"delta":"writing"')
        filling = small_disk / "filling"
        filling.write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096 - 65_536))
        model.release("broken")
        await running.seen("No space left on device")
        await waits_in_heartbeat(server_data, job_id, str(small_disk))
        filling.unlink()
        result = await cli.finished(running)
    completed_once(result, model)
    assert (cli.workspace / "out.txt").read_text() == BIG


def sees_an_image(request: Request) -> Answer:
    if request.turn == 1:
        return Answer(calls=(Call(name="readImageFile", args={"path": "image.png"}),))
    return Answer(calls=(Call(name="attemptCompletion", args={"result": "read"}),))


def png(size: int) -> bytes:
    """What looks like a PNG, with noise that nothing compresses."""
    return base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ") + os.urandom(size)


async def test_images_travel_through_a_bucket_and_are_read_from_it_by_others(
    cli: Cli, model: ModelServer, s3: S3Server, s3_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    (cli.workspace / "image.png").write_bytes(png(200_000))
    model.script = sees_an_image
    job_id = f"image-{uuid.uuid4().hex}"
    folders = set(server_data.storage.glob("*/*"))
    completed_once(await cli.run("run", "solo", "go", "--job-id", job_id, env=s3_env), model)
    keys = s3.keys()
    assert "jobs/storage-id" in keys
    assert [key for key in keys if re.fullmatch("jobs/[0-9a-f]{2}/[0-9a-f]{62}", key)]
    assert all(key.startswith("jobs/") for key in keys)
    assert set(server_data.storage.glob("*/*")) == folders
    logged = await cli.run("log", "--job", job_id, "--json", "--take", "0", env=s3_env)
    assert logged.code == 0, logged.stderr
    assert base64.b64encode((cli.workspace / "image.png").read_bytes()).decode() in logged.stdout
    for body in (s3.client().get_object(Bucket=s3.bucket, Key=key)["Body"].read() for key in keys):
        assert SECRET.encode() not in body


async def test_a_bucket_that_is_out_of_reach_is_waited_for(
    cli: Cli, model: ModelServer, s3: S3Server, s3_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = says_much
    job_id = f"away-{uuid.uuid4().hex}"
    async with cli.running("run", "solo", "go", "--job-id", job_id, env=s3_env) as running:
        await running.seen('"delta":"writing"')
        s3.stop()
        model.release("broken")
        await running.seen(f"the payload storage s3://{s3.bucket}/jobs cannot be written: no connection to {s3.url}")
        await waits_in_heartbeat(server_data, job_id, f"s3://{s3.bucket}/jobs")
        s3.start()
        await running.seen("is back after")
        result = await cli.finished(running)
    completed_once(result, model)
    assert (cli.workspace / "out.txt").read_text() == BIG


def delegates_and_gets_much(request: Request) -> Answer:
    """The delegate's result is too large for history, and so is what the coordinator's next call is given."""
    if "You are one." in request.system:
        return Answer(text=BIG)
    if request.turn == 1:
        return Answer(calls=(Call(name="one", args={"query": "tell"}),))
    assert BIG.strip() in str(request.results[0]["content"])
    return done()


def done() -> Answer:
    return Answer(calls=(Call(name="attemptCompletion", args={"result": "read"}),))


async def test_a_large_result_of_a_delegate_reaches_its_parent_through_history(
    cli: Cli, model: ModelServer, s3_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", TEAM)
    model.script = delegates_and_gets_much
    job_id = f"team-{uuid.uuid4().hex}"
    completed_once(await cli.run("run", "team", "go", "--job-id", job_id, env=s3_env), model)
    client = await Client.connect(json.loads(server_data.record.read_text())["address"])
    inputs: list[int] = []
    async for event in client.get_workflow_handle(job_id).fetch_history_events():
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name == "generate":
            assert [bool(payload.external_payloads) for payload in scheduled.input.payloads] == [False]
            inputs.append(scheduled.input.ByteSize())
    assert len(inputs) == 2
    assert max(inputs) < 48 * 1024


async def test_a_worker_that_starts_while_the_bucket_is_away_waits_and_takes_the_run_over(
    cli: Cli, model: ModelServer, s3: S3Server, s3_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    cli.write("big.txt", BIG)
    asked = asyncio.Event()

    def script(request: Request) -> Answer:
        if request.turn == 1:
            return Answer(calls=(Call(name="readTextFile", args={"path": "big.txt"}),))
        if request.attempt == 1:
            asked.set()
            return Answer(text="wait", after_events=4, then="hang", gate="never")
        return done()

    model.script = script
    job_id = f"taken-{uuid.uuid4().hex}"
    queue = f"queue-{uuid.uuid4().hex}"

    async def serving(worker: RunningCli) -> None:
        await worker.seen(f"serving {queue}", seconds=60)

    async with (
        cli.running("worker", "--task-queue", queue, env=s3_env) as first,
        cli.running("worker", "--task-queue", queue, env=s3_env) as second,
    ):
        await asyncio.gather(serving(first), serving(second))
        async with cli.running("run", "solo", "go", "--task-queue", queue, "--job-id", job_id, env=s3_env) as run:
            async with asyncio.timeout(60):
                await asked.wait()
            holder = first if await _holds(first, cli, job_id) else second
            other = second if holder is first else first
            s3.stop()
            holder.kill_group()
            # It has never read the payloads of this run: its workflow task and its session need them.
            await other.seen(f"s3://{s3.bucket}/jobs cannot be read", seconds=60)
            s3.start()
            result = await cli.finished(run)
    assert result.code == 0, result.stderr
    assert result.of_type("completeRun")[-1]["text"] == "read"
    assert {turn: count for (_, turn), count in model.ledger.counts.items()} == {1: 1, 2: 2}
    assert not result.of_type("retry")


async def _holds(worker: RunningCli, cli: Cli, job_id: str) -> bool:
    """Whether the calls of a job go to the own queue of this worker."""
    data = DataFolder(Path(cli.env["PERSTACK_DATA_DIR"]))
    client = await Client.connect(json.loads(data.record.read_text())["address"])
    queues: list[str] = []
    async for event in client.get_workflow_handle(job_id).fetch_history_events():
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name == "generate":
            queues.append(scheduled.task_queue.name)
    return f"-{worker.process.pid}-" in queues[-1]


async def test_a_wrong_setting_or_bucket_is_said_before_anything_starts(
    cli: Cli, model: ModelServer, s3: S3Server, s3_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    for value, complaint in (("ftp://x", "knows no storage"), ("s3://no-such-bucket-here", "there is no bucket")):
        env = {**s3_env, "PERSTACK_STORAGE": value}
        for command in (("run", "solo", "go", "--job-id", "never"), ("worker", "--task-queue", "never")):
            refused = await cli.run(*command, env=env)
            assert refused.code == 2, refused.stderr
            assert complaint in refused.stderr
            assert "hint: " in refused.stderr
            assert "Traceback" not in refused.stderr
    assert model.requests == []
    client = await Client.connect(json.loads(server_data.record.read_text())["address"])
    with pytest.raises(RPCError, match="not found"):
        await client.get_workflow_handle("never").describe()


async def test_doctor_tells_whether_the_bucket_can_be_used(cli: Cli, s3: S3Server, s3_env: dict[str, str]) -> None:
    cli.write("perstack.toml", SOLO)
    well = await cli.run("doctor", env=s3_env)
    assert re.search(rf"ok +storage +s3://{s3.bucket}/jobs can be read and written", well.stdout), well.stdout
    s3.stop()
    away = await cli.run("doctor", env=s3_env)
    assert away.code == 2
    assert re.search(rf"fail +storage +the payload storage s3://{s3.bucket}/jobs cannot be", away.stdout), away.stdout
    assert "AWS_ENDPOINT_URL_S3" in away.stdout
