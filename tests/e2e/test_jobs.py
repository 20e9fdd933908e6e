"""Listing and cancelling jobs."""

import asyncio
import json
from typing import Any

from support.cli import Cli, Result
from support.model_server import Answer, Call, ModelServer, Request

TOML = """
[experts.team]
instruction = "You are team."
tags = ["demo"]
delegates = ["@team/one"]

[experts."@team/one"]
instruction = "You are one."
"""


def hanging(request: Request) -> Answer:
    """The coordinator delegates; the delegate's model call never ends."""
    if "You are one." in request.system:
        return Answer(text="thinking for ever", delta_size=4, after_events=5, then="hang")
    return Answer(calls=(Call(name="one", args={"query": "go"}), Call(name="todo", args={"newTodos": ["a"]})))


async def listed(cli: Cli, env: dict[str, str], job_id: str, status: str) -> dict[str, Any]:
    """The job in the list, once the server's list, which lags a moment behind, shows it with this status."""
    async with asyncio.timeout(30):
        while True:
            result = await cli.run("jobs", "--json", "--take", "100", env=env)
            assert result.code == 0, result.stderr
            for summary in map(json.loads, result.stdout.splitlines()):
                if (summary["id"], summary["status"]) == (job_id, status):
                    return summary


def cancelled(result: Result) -> bool:
    return "the run was cancelled" in result.stderr


async def test_a_running_job_is_cancelled_with_its_delegate_from_another_process(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", TOML)
    model.script = hanging
    async with cli.running("run", "team", "Go on and on.", env=model_env) as run:
        await run.seen('"streamRunResult"')
        job_id = json.loads(run.lines[0])["jobId"]
        assert (await listed(cli, model_env, job_id, "running"))["query"] == "Go on and on."
        done = await cli.run("cancel", job_id, env=model_env)
        assert (done.code, done.stdout) == (0, "")
        assert cancelled(done)
        async with asyncio.timeout(20):
            assert await run.process.wait() == 7
        stops = [json.loads(line) for line in run.lines if "stopRunByCancellation" in line]
    assert {stop["expertKey"] for stop in stops} == {"team", "@team/one"}
    assert model.abandoned
    summary = await listed(cli, model_env, job_id, "stoppedByCancellation")
    assert summary["coordinatorExpertKey"] == "team"
    assert summary["finishedAt"] >= summary["startedAt"]
    again = await cli.run("cancel", job_id, env=model_env)
    assert again.code == 0
    assert "has ended already" in again.stderr


async def test_a_parked_job_is_cancelled_by_a_worker_of_the_command(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", TOML)
    model.script = hanging
    async with cli.running("run", "team", "Park me.", env=model_env) as run:
        await run.seen('"streamRunResult"')
        job_id = json.loads(run.lines[0])["jobId"]
        run.interrupt()
        assert await run.process.wait() == 130
    done = await cli.run("cancel", job_id, env=model_env)
    assert done.code == 0, done.stderr
    assert cancelled(done)
    await listed(cli, model_env, job_id, "stoppedByCancellation")
    shown = await cli.run("jobs", "--status", "stoppedByCancellation", env=model_env)
    assert job_id in shown.stdout
    assert shown.stdout.splitlines()[0].split() == ["job", "status", "started", "expert", "query"]


async def test_a_job_that_is_not_there_cannot_be_cancelled(cli: Cli) -> None:
    result = await cli.run("cancel", "nobody")
    assert (result.code, result.stdout) == (2, "")
    assert "no job nobody" in result.stderr
