"""`perstack run --detach`: the command leaves at once, a background process works on the job until it stops."""

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest
from support.cli import Cli, Result
from support.model_server import Answer, Call, ModelServer, Request

TOML = """
[experts.solo]
instruction = "You are solo."

[experts.solo.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'
"""


def gated(request: Request) -> Answer:
    """Writes a file, then waits with its answer until the test lets it go."""
    if request.turn == 1:
        return Answer(calls=(Call(name="writeTextFile", args={"path": "a.txt", "text": "a"}),))
    return Answer(text="done in the background", after_events=3, then="hang", gate="end")


def worker_of(result: Result) -> int:
    """The background process."""
    found = re.search(r"process (\d+) works on it", result.stderr)
    assert found, result.stderr
    return int(found[1])


async def ended(pid: int) -> None:
    """Wait until a process that is not our child is gone; it has become nobody's."""
    async with asyncio.timeout(30):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110 - another process tells nobody of its end
            await asyncio.sleep(0.05)


@pytest.mark.requirement("interface.detach")
async def test_a_detached_job_is_worked_on_until_its_end_without_its_command(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", TOML)
    model.script = gated
    started = await cli.run("run", "solo", "go", "--detach", env=model_env)
    assert started.code == 0, started.stderr
    job = started.stdout.strip()
    assert re.fullmatch(r"[a-z0-9]{24}", job)
    pid = worker_of(started)
    assert os.getsid(pid) == pid
    model.release("end")
    followed = await cli.run("resume", job, env=model_env)
    assert followed.code == 0, followed.stderr
    assert followed.of_type("completeRun")[0]["text"] == "done in the background"
    await ended(pid)
    assert set(model.ledger.counts.values()) == {1}
    log = Path(cli.env["PERSTACK_DATA_DIR"]) / "logs" / f"{job}.log"
    assert "done in the background" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


async def test_a_detached_job_that_asks_a_person_leaves_no_process(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", TOML)

    def asks(request: Request) -> Answer:
        if request.turn == 1:
            return Answer(calls=(Call(name="approve", args={}, id="ask"),))
        return Answer(text=f"told {request.results[0]['content']}")

    model.script = asks
    started = await cli.run("run", "solo", "go", "--detach", env=model_env)
    await ended(worker_of(started))
    answered = await cli.run("respond", started.stdout.strip(), "yes", env=model_env)
    assert answered.code == 0, answered.stderr
    assert answered.of_type("completeRun")[0]["text"] == "told yes"


@pytest.mark.requirement("ours.survives-kill")
async def test_a_killed_background_process_loses_nothing(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", TOML)
    model.script = gated
    started = await cli.run("run", "solo", "go", "--detach", env=model_env)
    pid = worker_of(started)
    async with cli.running("resume", started.stdout.strip(), env=model_env) as watching:
        await watching.seen('"type":"startGeneration"', count=2)
        os.kill(pid, signal.SIGKILL)
    model.release("end")
    resumed = await cli.run("resume", started.stdout.strip(), env=model_env)
    assert resumed.code == 0, resumed.stderr
    counts = {turn: count for (_, turn), count in model.ledger.counts.items()}
    assert counts[1] == 1
    assert counts[2] <= 2


async def test_a_job_can_go_on_in_the_background(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> None:
    cli.write("perstack.toml", TOML)
    model.script = gated
    model.release("end")
    first = await cli.run("run", "solo", "one", env=model_env)
    second = await cli.run("run", "solo", "two", "--continue", "--detach", env=model_env)
    assert second.code == 0, second.stderr
    assert second.stdout.strip() == first.events[0]["jobId"]
    await ended(worker_of(second))
    logged = await cli.run("log", "--job", second.stdout.strip())
    assert logged.stdout.count("completeRun") == 2


async def test_the_same_job_detached_twice_is_one_job(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> None:
    cli.write("perstack.toml", TOML)
    model.script = gated
    first = await cli.run("run", "solo", "go", "--detach", "--job-id", "detached-twice", env=model_env)
    second = await cli.run("run", "solo", "go", "--detach", "--job-id", "detached-twice", env=model_env)
    assert (first.code, second.code) == (0, 0), second.stderr
    assert first.stdout == second.stdout == "detached-twice\n"
    assert "another process works on job detached-twice" in second.stderr
    model.release("end")
    await ended(worker_of(first))
    assert set(model.ledger.counts.values()) == {1}


async def test_what_a_run_needs_is_asked_for_before_it_is_detached(cli: Cli, model: ModelServer) -> None:
    cli.write("perstack.toml", TOML)
    refused = await cli.run("run", "solo", "go", "--detach", env={"ANTHROPIC_BASE_URL": model.url})
    assert refused.code == 4
    assert refused.stdout == ""
    assert "ANTHROPIC_API_KEY" in refused.stderr
