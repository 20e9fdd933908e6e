"""A command that dies or is interrupted loses nothing: `perstack resume` goes on where Temporal says it stood."""

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import Cli, RunningCli
from support.model_server import Answer, Call, ModelServer, Request
from support.teams import PARALLEL_TEAM, parallel_team, who

SOLO = """
[experts.solo]
instruction = "You are solo."
"""


def job_of(running: RunningCli) -> str:
    found = re.search(r"job ([a-z0-9]+) ", "".join(running.errors))
    assert found, running.errors
    return found[1]


def six_steps(request: Request) -> Answer:
    """Writes five files, one a step; the fourth answer waits until the test lets it go."""
    turn = request.turn
    if turn > 5:
        return Answer(calls=(Call(name="attemptCompletion", args={"result": "five files"}),))
    call = Call(name="writeTextFile", args={"path": f"{turn}.txt", "text": str(turn)})
    if turn == 4:
        return Answer(text="four", calls=(call,), after_events=4, then="hang", gate="four")
    return Answer(calls=(call,))


@pytest.mark.requirement("context.resume")
@pytest.mark.requirement("ours.survives-kill")
async def test_a_run_killed_in_a_model_call_resumes_and_repeats_that_call_only(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = six_steps
    async with cli.running("run", "solo", "go", env=model_env) as running:
        await running.seen("startGeneration", count=4)
        await running.seen("startStreamingRunResult")
        job = job_of(running)
        running.kill_group()
    model.release("four")
    result = await cli.run("resume", job, env=model_env)
    assert result.code == 0, result.stderr
    assert result.of_type("completeRun")[-1]["text"] == "five files"
    counts = {turn: count for (_, turn), count in model.ledger.counts.items()}
    assert counts == {1: 1, 2: 1, 3: 1, 4: 2, 5: 1, 6: 1}
    assert sorted(path.name for path in cli.workspace.glob("*.txt")) == [f"{n}.txt" for n in range(1, 6)]


def slow_second_turns(request: Request) -> Answer:
    """Every delegate's second answer waits until the test lets it go."""
    answer = parallel_team(request)
    if who(request) != "team" and request.turn == 2:
        return Answer(text="wait", calls=answer.calls, after_events=4, then="hang", gate="second")
    return answer


@pytest.mark.requirement("ours.survives-kill")
async def test_a_job_killed_in_three_parallel_delegates_keeps_what_each_had_finished(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = slow_second_turns
    async with cli.running("run", "team", "go", env=model_env) as running:
        await running.seen('"delta":"wait"', count=3)
        job = job_of(running)
        running.kill_group()
    model.release("second")
    result = await cli.run("resume", job, env=model_env)
    assert result.code == 0, result.stderr
    assert result.of_type("completeRun")[-1]["text"] == "all: one done | two done | three done"
    repeated = [turn for (_, turn), count in model.ledger.counts.items() if count > 1]
    assert repeated == [2, 2, 2]
    assert max(model.ledger.counts.values()) == 2


@pytest.mark.requirement("context.resume")
async def test_ctrl_c_parks_the_run_and_says_how_to_go_on(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = six_steps
    async with cli.running("run", "solo", "go", env=model_env) as running:
        await running.seen("startStreamingRunResult")
        job = job_of(running)
        running.interrupt()
        parked = await cli.finished(running, seconds=10)
    assert parked.code == 130
    assert f"perstack resume {job}" in parked.stderr
    model.release("four")
    result = await cli.run("resume", job, env=model_env)
    assert result.code == 0, result.stderr
    assert result.of_type("completeRun")[-1]["text"] == "five files"


def long_command(request: Request) -> Answer:
    """Starts a command that would run for an hour."""
    if request.turn == 1:
        script = "echo $$ > shell.pid; sleep 3600 & echo $! > sleep.pid; wait"
        args: dict[str, Any] = {"command": "sh", "args": ["-c", script], "env": {}, "cwd": ".", "timeout": 3_600_000}
        return Answer(calls=(Call(name="exec", args={**args, "stdout": True, "stderr": True}),))
    return Answer(text="went on")


async def test_ctrl_c_ends_a_running_command_within_two_seconds(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = long_command
    async with cli.running("run", "solo", "go", env=model_env) as running:
        await running.seen("callTools")
        await until(lambda: bool(pid_in(cli.workspace / "sleep.pid")))
        job = job_of(running)
        running.interrupt()
        begun = time.monotonic()
        parked = await cli.finished(running, seconds=10)
    assert parked.code == 130
    assert time.monotonic() - begun < 2.5
    for name in ("shell.pid", "sleep.pid"):
        assert not is_alive(int((cli.workspace / name).read_text()))
    result = await cli.run("resume", job, env=model_env)
    assert result.code == 0, result.stderr
    assert "lost" in str(result.of_type("resolveToolResults")[0]["toolResults"])
    assert result.of_type("completeRun")[-1]["text"] == "went on"


def pid_in(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


async def until(is_true: Callable[[], bool], *, seconds: float = 20) -> None:
    """Wait for something that announces itself to nobody."""
    deadline = time.monotonic() + seconds
    for _ in range(round(seconds / 0.02)):
        if is_true():
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


async def test_a_run_killed_while_its_session_opens_goes_on(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.release("four")
    model.script = six_steps
    async with cli.running("run", "solo", "go", env=model_env) as running:
        await running.seen("initializeRuntime")
        job = job_of(running)
        running.kill_group()
    result = await cli.run("resume", job, env=model_env)
    assert result.code == 0, result.stderr
    assert result.of_type("completeRun")[-1]["text"] == "five files"
    assert set(model.ledger.counts.values()) <= {1, 2}
