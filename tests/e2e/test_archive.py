"""Jobs outlive what Temporal keeps of them: they archive themselves, and can be taken along in a file."""

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import Cli, Result
from support.forgetting import FORGETTING_AT_ONCE, forget_all
from support.model_server import Answer, Call, Json, ModelServer, Request
from support.planted import found_in
from support.servers import own_server
from support.teams import PARALLEL_TEAM, parallel_team, who
from temporalio.client import Client

SOLO = """
[experts.solo]
instruction = "You are solo."
"""
ASKING = """
[experts.solo]
instruction = "You are solo."

[experts.solo.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'
"""
BIG = "line\n" * 40_000


@pytest.fixture
async def address(temporal_program: Path, tmp_path: Path) -> AsyncIterator[str]:
    """A server of somebody else, whose namespace keeps histories for a day."""
    async with own_server(temporal_program, tmp_path, *FORGETTING_AT_ONCE) as info:
        yield info.address


@pytest.fixture
def env(address: str, model_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """That server, the scripted model, and a data folder of the test's own."""
    return {**model_env, "TEMPORAL_ADDRESS": address, "PERSTACK_DATA_DIR": str(tmp_path / "own-data")}


def elsewhere(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The same on another machine, with its own storage and the embedded server of the tests."""
    return {**{k: v for k, v in env.items() if k != "TEMPORAL_ADDRESS"}, "PERSTACK_STORAGE": str(tmp_path / "theirs")}


def job_of(result: Result) -> str:
    return result.events[0]["jobId"]


async def logged(cli: Cli, job: str, env: dict[str, str]) -> dict[str, Any]:
    """The job as `log --json` tells it, the order between parallel runs left out."""
    result = await cli.run("log", "--job", job, "--json", "--take", "0", env=env)
    assert result.code == 0, result.stderr
    return by_run(result)


def by_run(result: Result) -> dict[str, Any]:
    told: Json = json.loads(result.stdout)
    # Where it was read from is another place each time.
    told.pop("storagePath", None)
    return {**told, **{name: sorted(told[name], key=_run_id) for name in ("events", "checkpoints", "runs")}}


def _run_id(event: Json) -> str:
    return event.get("runId", "")


def heard(request: Request) -> Answer:
    """Says how much it was told."""
    return Answer(text=f"{len(request.messages)} messages")


def refuses(_request: Request) -> Answer:
    """Lets nobody in."""
    return Answer(status=401, message="no", error_type="authentication_error")


def asks(_request: Request) -> Answer:
    """Only asks."""
    return Answer(calls=(Call(name="approve"),))


def reads(request: Request) -> Answer:
    """Reads a file that is too large for history."""
    if request.turn == 1:
        return Answer(calls=(Call(name="readTextFile", args={"path": "big.txt"}),))
    return heard(request)


@pytest.mark.requirement("ours.archive")
async def test_a_job_that_the_server_has_forgotten_is_logged_as_before(
    cli: Cli, model: ModelServer, env: dict[str, str], address: str
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    done = await cli.run("run", "team", "go", env=env)
    assert done.code == 0, done.stderr
    before = await logged(cli, job_of(done), env)
    text = await cli.run("log", "--job", job_of(done), env=env)
    await forget_all(address)
    assert await logged(cli, job_of(done), env) == before
    again = await cli.run("log", "--job", job_of(done), env=env)
    assert sorted(again.stdout.splitlines()) == sorted(text.stdout.splitlines())
    assert "lost" not in again.stderr
    shown = await cli.run("resume", job_of(done), env=env)
    assert shown.code == 0, shown.stderr
    assert shown.of_type("completeRun")[-1]["text"] == "all: one done | two done | three done"


@pytest.mark.requirement("ours.archive")
async def test_a_forgotten_job_goes_on_with_a_new_query_and_a_failed_one_where_it_failed(
    cli: Cli, model: ModelServer, env: dict[str, str], address: str
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = heard
    first = await cli.run("run", "solo", "one", env=env)
    job = job_of(first)
    await forget_all(address)
    model.script = refuses
    failed = await cli.run("run", "solo", "two", "--continue-job", job, env=env)
    assert failed.code == 4, failed.stderr
    await forget_all(address)
    model.script = heard
    resumed = await cli.run("resume", job, env=env)
    assert resumed.code == 0, resumed.stderr
    assert resumed.of_type("completeRun")[0]["text"] == "3 messages"
    await forget_all(address)
    told = await logged(cli, job, env)
    assert [event["type"] for event in told["events"]].count("startRun") == 2
    said = {event["text"] for event in told["events"] if event["type"] == "completeRun"}
    assert said == {"1 messages", "3 messages"}
    branch = await cli.run("run", "solo", "three", "--continue-job", job, "--branch", env=env)
    assert branch.code == 0, branch.stderr
    assert job_of(branch) != job
    assert branch.of_type("completeRun")[0]["text"] == "5 messages"
    # A job id that is in the archive is taken.
    other = await cli.run("run", "solo", "else", "--job-id", job, env=env)
    assert other.code == 2
    assert "exists already" in other.stderr


async def test_a_terminated_job_is_archived_by_who_reads_it_next(
    cli: Cli, model: ModelServer, env: dict[str, str], address: str
) -> None:
    cli.write("perstack.toml", ASKING)
    model.script = asks
    asked = await cli.run("run", "solo", "go", env=env)
    assert asked.code == 6, asked.stderr
    job = job_of(asked)
    client = await Client.connect(address)
    await client.get_workflow_handle(job).terminate()
    before = await logged(cli, job, env)
    await forget_all(address)
    assert await logged(cli, job, env) == before
    text = await cli.run("resume", job, env=env)
    assert text.code == 6, text.stderr


async def test_what_nobody_knows_any_more_is_called_lost(
    cli: Cli, model: ModelServer, env: dict[str, str], address: str
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    done = await cli.run("run", "team", "go", env=env)
    job = job_of(done)
    await forget_all(address)
    archive = Path(env["PERSTACK_DATA_DIR"]) / "storage" / "named" / "archive" / job / job
    (first,) = (path for path in archive.iterdir() if path.is_file())
    delegate = next(path for path in archive.iterdir() if path.is_dir())
    next(delegate.iterdir()).unlink()
    told = await cli.run("log", "--job", job, env=env)
    assert told.code == 0
    assert "all: one done | two done | three done" in told.stdout
    assert f"the history of the delegate {job}/{delegate.name} is lost" in told.stderr
    first.unlink()
    unknown = await cli.run("log", "--job", job, env=env)
    assert unknown.code == 2
    assert "on this server, nor in the archive" in unknown.stderr


async def test_a_damaged_record_is_named(cli: Cli, model: ModelServer, env: dict[str, str], address: str) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = heard
    job = job_of(await cli.run("run", "solo", "go", env=env))
    await forget_all(address)
    archive = Path(env["PERSTACK_DATA_DIR"]) / "storage" / "named" / "archive" / job / job
    (record,) = archive.iterdir()
    assert json.loads(gzip.decompress(record.read_bytes()))["closing"] == "completed"
    record.write_bytes(record.read_bytes()[:100])
    told = await cli.run("log", "--job", job, env=env)
    assert told.code == 2
    assert f"archive/{job}/{job}/{record.name} in" in told.stderr
    assert "is damaged" in told.stderr


def reads_much(request: Request) -> Answer:
    """A delegate reads a file that is too large for history."""
    if who(request) == "two" and request.turn == 1:
        return Answer(calls=(Call(name="readTextFile", args={"path": "big.txt"}),))
    return parallel_team(request)


@pytest.mark.requirement("ours.archive")
async def test_a_whole_job_is_exported_read_from_its_file_and_imported_elsewhere(
    cli: Cli, model: ModelServer, env: dict[str, str], address: str, tmp_path: Path
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    cli.write("big.txt", BIG)
    model.script = reads_much
    job = job_of(await cli.run("run", "team", "go", env=env))
    second = await cli.run("run", "team", "again", "--continue-job", job, env=env)
    assert second.code == 0, second.stderr
    before = await logged(cli, job, env)
    exported = await cli.run("export", job, "-o", "job.json", env=env)
    assert exported.code == 0, exported.stderr
    assert "5 executions" in exported.stderr
    content = (cli.workspace / "job.json").read_text()
    assert (await cli.run("export", job, env=env)).stdout == content
    assert (await cli.run("log", "--job", job, "--export", env=env)).stdout == content
    assert (await cli.run("log", "--file", "job.json", "--export", env=env)).stdout == content
    assert json.loads(content)["payloads"]
    nowhere = {"TEMPORAL_ADDRESS": "127.0.0.1:1", "PERSTACK_DATA_DIR": str(tmp_path / "nothing")}
    told = await cli.run("log", "--file", "job.json", "--json", "--take", "0", env=nowhere)
    assert told.code == 0, told.stderr
    assert by_run(told) == before
    assert not (tmp_path / "nothing").exists()
    theirs = elsewhere(env, tmp_path)
    assert (await cli.run("log", "--job", job, env=theirs)).code == 2
    imported = await cli.run("import", "job.json", env=theirs)
    assert imported.code == 0, imported.stderr
    assert await logged(cli, job, theirs) == before
    same = await cli.run("import", "job.json", env=theirs)
    assert same.code == 0
    assert "was in the archive already" in same.stderr
    assert (await cli.run("export", job, env=theirs)).stdout == content
    # Where the job archived itself, the file tells no other story, only more of it.
    here = await cli.run("import", "job.json", env=env)
    assert here.code == 0, here.stderr
    await forget_all(address)
    assert await logged(cli, job, env) == before
    assert list(found_in(tmp_path)) == []


@pytest.mark.requirement("ours.archive")
async def test_an_imported_job_goes_on_where_it_is_now(
    cli: Cli, model: ModelServer, env: dict[str, str], tmp_path: Path
) -> None:
    cli.write("perstack.toml", ASKING)

    def script(request: Request) -> Answer:
        return Answer(text="thanks") if request.results else Answer(calls=(Call(name="approve"),))

    model.script = script
    asked = await cli.run("run", "solo", "go", env=env)
    assert asked.code == 6, asked.stderr
    job = job_of(asked)
    exported = await cli.run("export", job, "-o", "job.json", env=env)
    assert "is still open: exported as it stands now" in exported.stderr
    theirs = elsewhere(env, tmp_path)
    assert (await cli.run("import", "job.json", env=theirs)).code == 0
    answered = await cli.run("run", "solo", "yes", "--continue-job", job, "-i", env=theirs)
    assert answered.code == 0, answered.stderr
    assert answered.of_type("completeRun")[0]["text"] == "thanks"
    told = await logged(cli, job, theirs)
    types = [event["type"] for event in told["events"]]
    assert types.count("stopRunByInteractiveTool") == 1
    assert types.count("completeRun") == 1


async def test_a_file_that_is_no_whole_export_is_refused_and_nothing_is_written(
    cli: Cli, model: ModelServer, env: dict[str, str], tmp_path: Path
) -> None:
    cli.write("perstack.toml", SOLO)
    cli.write("big.txt", BIG)
    model.script = reads
    job = job_of(await cli.run("run", "solo", "go", env=env))
    content = (await cli.run("export", job, env=env)).stdout
    whole = json.loads(content)
    (payload,) = whole["payloads"]
    broken = {
        "cut off": (content[: len(content) // 2], "it is not JSON"),
        "something else": ('{"format": "other"}', 'it does not say "format"'),
        "changed": (content.replace('"query"', '"qvery"').replace(job, "x" + job[1:], 1), "its digest says"),
        "newer": (json.dumps({**whole, "version": 2}), "version 2; this Perstack reads up to version 1"),
        "without its payload": (json.dumps({**whole, "payloads": {}}), "its digest says"),
    }
    theirs = elsewhere(env, tmp_path)
    for name, (text, reason) in broken.items():
        cli.write("broken.json", text)
        for command in (("import", "broken.json"), ("log", "--file", "broken.json")):
            refused = await cli.run(*command, env=theirs)
            assert refused.code == 2, name
            assert reason in refused.stderr, name
            assert "Traceback" not in refused.stderr
    assert payload
    assert not (tmp_path / "theirs").exists()
    missing = await cli.run("import", "nowhere.json", env=theirs)
    assert (missing.code, "Cannot read nowhere.json" in missing.stderr) == (2, True)
    both = await cli.run("log", "--job", "job", "--file", "job.json", env=theirs)
    assert (both.code, "--job and --file" in both.stderr) == (2, True)


async def test_another_job_of_the_same_id_is_not_mixed_in(
    cli: Cli, model: ModelServer, env: dict[str, str], tmp_path: Path
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = heard
    theirs = elsewhere(env, tmp_path)
    await cli.run("run", "solo", "one", "--job-id", "same-name", env=env)
    await cli.run("run", "solo", "two", "--job-id", "same-name", env=theirs)
    for place, name in ((env, "ours.json"), (theirs, "theirs.json")):
        assert (await cli.run("export", "same-name", "-o", name, env=place)).code == 0
    assert (await cli.run("import", "theirs.json", env=theirs)).code == 0
    refused = await cli.run("import", "ours.json", env=theirs)
    assert refused.code == 2
    assert "holds another job same-name than this file" in refused.stderr
    assert "Nothing was written" in refused.stderr
    names = {path.name for path in (tmp_path / "theirs" / "named").rglob("*") if path.is_file()}
    assert names == {json.loads((cli.workspace / "theirs.json").read_text())["executions"][0]["temporalRunId"]}
