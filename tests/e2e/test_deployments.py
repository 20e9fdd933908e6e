"""Versions of a worker deployment: a run stays on the version it began on, whatever becomes current meanwhile."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from perstack.client.locations import DataFolder
from support.cli import Cli, RunningCli
from support.history import histories_of
from support.model_server import Answer, Call, ModelServer, Request
from support.teams import who

TEAM = """
[experts.team]
instruction = "You are team."
delegates = ["@team/one"]

[experts."@team/one"]
description = "First."
instruction = "You are one."
"""


TODO = Call(name="todo", args={"newTodos": ["a"]})


def says_done(_request: Request) -> Answer:
    """One answer for everybody."""
    return Answer(text="done")


@asynccontextmanager
async def worker(cli: Cli, queue: str, build_id: str, env: dict[str, str], *more: str) -> AsyncGenerator[RunningCli]:
    """A worker of one version of the deployment `queue`."""
    version = ("--deployment", queue, "--build-id", build_id)
    async with cli.running("worker", "--task-queue", queue, *version, *more, env=env) as running:
        await running.seen(f"serving {queue}", seconds=60)
        yield running


async def versions(data: DataFolder, job_id: str) -> dict[str, set[str]]:
    """By workflow of a job, the build ids of the workers that completed its workflow tasks."""
    found: dict[str, set[str]] = {}
    async for workflow_id, event in histories_of(data, job_id):
        completed = event.workflow_task_completed_event_attributes
        if completed.deployment_version.build_id:
            found.setdefault(workflow_id, set()).add(completed.deployment_version.build_id)
    return found


@pytest.mark.requirement("ours.pools")
async def test_a_run_and_its_delegates_stay_on_their_version_and_new_runs_begin_on_the_current_one(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", TEAM)
    asked = asyncio.Event()

    def script(request: Request) -> Answer:
        if who(request) == "one":
            return Answer(text="one done")
        if request.turn == 1:
            if request.first_user_text == "old":
                asked.set()
                return Answer(text="wait", calls=(TODO,), after_events=4, then="hang", gate="old")
            return Answer(calls=(TODO,))
        if request.turn == 2:
            return Answer(calls=(Call(name="one", args={"query": f"go, {request.first_user_text}"}),))
        return Answer(text="done")

    model.script = script
    queue = "versions"
    job = ("--task-queue", queue, "--job-id")
    async with (
        worker(cli, queue, "a.1", model_env, "--current"),
        cli.running("run", "team", "old", *job, "began-on-a", env=model_env) as old,
    ):
        async with asyncio.timeout(60):
            await asked.wait()
        async with worker(cli, queue, "b.2", model_env, "--current") as second:
            assert any("b.2 of versions, its current version" in line for line in second.errors)
            new = await cli.run("run", "team", "new", *job, "began-on-b", env=model_env)
            assert new.code == 0, new.stderr
            model.release("old")
            result = await cli.finished(old)
            assert result.code == 0, result.stderr
    assert set(model.ledger.counts.values()) == {1}
    began_on_a, began_on_b = await versions(server_data, "began-on-a"), await versions(server_data, "began-on-b")
    # The root and its delegate.
    assert (len(began_on_a), len(began_on_b)) == (2, 2)
    assert all(found == {"a.1"} for found in began_on_a.values())
    assert all(found == {"b.2"} for found in began_on_b.values())


async def test_a_worker_of_a_version_that_is_not_current_gets_no_new_runs(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", TEAM)
    model.script = says_done
    queue = "later"
    async with worker(cli, queue, "one", model_env, "--current"), worker(cli, queue, "two", model_env) as second:
        await second.seen("--current makes this one current", seconds=30)
        result = await cli.run("run", "team", "go", "--task-queue", queue, "--job-id", "on-one", env=model_env)
    assert result.code == 0, result.stderr
    assert await versions(server_data, "on-one") == {"on-one": {"one"}}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--deployment", "team"), "--deployment requires --build-id"),
        (("--build-id", "1"), "--build-id requires --deployment"),
        (("--current",), "--current requires --deployment"),
        (("--deployment", "my.team", "--build-id", "1"), "'my.team' is no name of a deployment"),
        (("--deployment", "team", "--build-id", "a b"), "'a b' is no name of a build id"),
        (("--deployment", "", "--build-id", "1"), "'' is no name of a deployment"),
    ],
)
async def test_a_version_that_makes_no_sense_is_refused_before_anything_starts(
    cli: Cli, options: tuple[str, ...], says: str
) -> None:
    result = await cli.run("worker", "--task-queue", "refused", *options)
    assert result.code == 2
    assert says in result.stderr
    assert "hint:" in result.stderr
