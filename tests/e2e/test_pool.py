"""Pools: `perstack worker` processes serve a queue; one that dies, leaves or lacks the workspace costs no work."""

import asyncio
import signal
import time

import pytest
from perstack.client.locations import DataFolder
from support.cli import Cli
from support.model_server import Answer, Call, ModelServer, Request, Script
from support.pools import session_pid, worker
from support.teams import PARALLEL_TEAM, who

SOLO = """
[experts.solo]
instruction = "You are solo."
"""


def exec_call(command: str, *args: str) -> Call:
    """A command whose output comes back."""
    return Call(
        name="exec",
        args={"command": command, "args": list(args), "env": {}, "cwd": ".", "stdout": True, "stderr": True},
    )


def writes_files(steps: int, *, stop_at: int, asked: asyncio.Event) -> Script:
    """Writes a file a step; the first time it is asked for step `stop_at` it never answers."""

    def script(request: Request) -> Answer:
        if request.turn == stop_at:
            asked.set()
            if request.attempt == 1:
                return Answer(text="wait", after_events=4, then="hang", gate="never")
        if request.turn > steps:
            return Answer(text=f"{steps} files")
        return Answer(calls=(Call(name="writeTextFile", args={"path": f"{request.turn}.txt", "text": "x"}),))

    return script


@pytest.mark.requirement("ours.pools")
async def test_a_worker_of_a_pool_serves_a_run_that_only_follows(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = writes_files(2, stop_at=0, asked=asyncio.Event())
    async with worker(cli, "one-worker", model_env) as serving:
        result = await cli.run("run", "solo", "go", "--task-queue", "one-worker", env=model_env)
        assert result.code == 0, result.stderr
        assert result.of_type("completeRun")[0]["text"] == "2 files"
        assert (cli.workspace / "2.txt").read_text() == "x"
        serving.process.terminate()
        left = await cli.finished(serving, seconds=10)
    assert left.code == 0, left.stderr
    assert left.stdout == ""
    assert "leaving" in left.stderr


@pytest.mark.requirement("ours.pools")
@pytest.mark.requirement("ours.survives-kill")
async def test_another_worker_takes_over_from_one_that_is_killed_in_a_model_call(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    asked = asyncio.Event()
    model.script = writes_files(5, stop_at=4, asked=asked)
    async with (
        worker(cli, "two-workers", model_env) as first,
        worker(cli, "two-workers", model_env) as second,
        cli.running("run", "solo", "go", "--task-queue", "two-workers", "--job-id", "taken", env=model_env) as run,
    ):
        async with asyncio.timeout(30):
            await asked.wait()
        asked.clear()
        pid = await session_pid(server_data, "taken")
        holder = next(one for one in (first, second) if one.process.pid == pid)
        holder.kill_group()
        begun = time.monotonic()
        async with asyncio.timeout(10):
            await asked.wait()
        seconds = time.monotonic() - begun
        print(f"\nkill -9 of a pool's worker to the next model request: {seconds:.1f} s (budget 6 s)")  # noqa: T201
        result = await cli.finished(run)
    assert result.code == 0, result.stderr
    assert result.of_type("completeRun")[0]["text"] == "5 files"
    counts = {turn: count for (_, turn), count in model.ledger.counts.items()}
    assert counts == {1: 1, 2: 1, 3: 1, 4: 2, 5: 1, 6: 1}
    assert not result.of_type("retry")
    assert await session_pid(server_data, "taken") != pid


@pytest.mark.requirement("ours.pools")
async def test_a_worker_that_is_asked_to_leave_under_load_loses_and_repeats_nothing(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    asked: set[str] = set()
    all_asked = asyncio.Event()

    def script(request: Request) -> Answer:
        name = who(request)
        if name == "team":
            if request.turn == 1:
                return Answer(calls=tuple(Call(name=n, args={"query": "go"}) for n in ("one", "two", "three")))
            return Answer(text=" | ".join(sorted(str(result["content"]) for result in request.results)))
        if request.turn > 20:  # long enough that the worker has left before
            return Answer(text=f"{name} done")
        if request.turn == 3:
            asked.add(name)
            if len(asked) == 3:
                all_asked.set()
        call = exec_call("sh", "-c", f"sleep 0.1; echo {name} >> {name}.txt")
        return Answer(calls=(call,), delay_ms=150)

    model.script = script
    queue = ("--task-queue", "drained")
    async with (
        worker(cli, "drained", model_env) as first,
        worker(cli, "drained", model_env) as second,
        cli.running("run", "team", "go", *queue, "--job-id", "drain", env=model_env) as run,
    ):
        async with asyncio.timeout(30):
            await all_asked.wait()
        pid = await session_pid(server_data, "drain")
        holder = next(one for one in (first, second) if one.process.pid == pid)
        holder.process.send_signal(signal.SIGTERM)
        left = await cli.finished(holder, seconds=20)
        assert run.process.returncode is None
        result = await cli.finished(run)
    assert left.code == 0, left.stderr
    assert "Traceback" not in left.stderr
    assert result.code == 0, result.stderr
    assert result.of_type("completeRun")[-1]["text"] == "one done | three done | two done"
    assert set(model.ledger.counts.values()) == {1}
    for name in ("one", "two", "three"):
        assert (cli.workspace / f"{name}.txt").read_text() == f"{name}\n" * 20
    outcomes = [one for event in result.of_type("resolveToolResults") for one in event["toolResults"]]
    assert not any(one.get("isError") for one in outcomes)


@pytest.mark.requirement("ours.pools")
async def test_a_worker_without_the_workspace_refuses_the_run_and_the_run_says_so(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    asked = asyncio.Event()
    model.script = writes_files(5, stop_at=2, asked=asked)
    marker = cli.workspace / "perstack" / "workspace-id"
    async with cli.running("run", "solo", "go", "--task-queue", "elsewhere", env=model_env) as run:
        async with worker(cli, "elsewhere", model_env):
            async with asyncio.timeout(30):
                await asked.wait()
            expected = marker.read_text().strip()
        # The same path on another machine: a folder with another mark.
        marker.write_text("0123456789abcdef\n")
        async with worker(cli, "elsewhere", model_env):
            result = await cli.finished(run)
    assert result.code == 1
    [stop] = result.of_type("stopRunByError")
    assert stop["error"]["name"] == "workspace.elsewhere"
    for text in (str(cli.workspace), expected):
        assert text in stop["error"]["message"]
        assert text in result.stderr
    assert marker.read_text() == "0123456789abcdef\n"
    assert set(model.ledger.counts.values()) == {1}
