"""A run that waits for a person costs its pool nothing: no process, no connection."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from chaos.waiting import children
from support.cli import Cli
from support.mcp_servers import hostile
from support.model_server import Answer, Call, ModelServer, Request
from support.skill_runs import all_gone, solo

PEOPLE = """
[experts.solo.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'
"""


def asks_between(request: Request) -> Answer:
    """Uses its skill, asks, uses its skill again."""
    match request.turn:
        case 1 | 3:
            return Answer(calls=(Call(name="echo", args={"text": f"turn {request.turn}"}),))
        case 2:
            return Answer(calls=(Call(name="approve", args={}),))
        case _:
            return Answer(text=" ".join(str(result["content"]) for result in request.results))


def open_pipes(pid: int) -> int:
    """How many pipes a process holds: three of them lead to each skill's program."""
    found = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed a moment ago
            found += os.readlink(link).startswith("pipe:")
    return found


@pytest.mark.requirement("definition.skills.interactive")
@pytest.mark.requirement("ours.pools")
async def test_the_skills_of_a_run_that_waits_are_ended_and_started_again_with_the_answer(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", solo(hostile()) + PEOPLE)
    model.script = asks_between
    env = {**model_env, "PERSTACK_SESSION_IDLE": "1"}
    async with cli.running("worker", "--task-queue", "patient", env=env) as worker:
        await worker.seen("serving patient", seconds=60)
        pid = worker.process.pid
        pipes = open_pipes(pid)
        result = await cli.run("run", "solo", "go", "--task-queue", "patient", "--job-id", "asks", env=model_env)
        assert result.code == 6, result.stderr
        await all_gone(cli.env["HOME"], named="hostile.py")
        async with asyncio.timeout(20):
            # The worker has yet to notice the end of its child, of which nobody tells us.
            while children(pid) or open_pipes(pid) > pipes:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        respond = await cli.run("respond", "asks", "Yes.", env=model_env)
        assert respond.code == 0, respond.stderr
        done = await cli.run("resume", "asks", env=model_env)
    assert done.code == 0, done.stderr
    assert done.of_type("completeRun")[0]["text"] == "turn 3"
    # The skill was there for both calls, and nobody but the waiting cost it its first life.
    assert [event["skillName"] for event in done.of_type("skillStarting")].count("hostile") >= 1
    assert set(model.ledger.counts.values()) == {1}
