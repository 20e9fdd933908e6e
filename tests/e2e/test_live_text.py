"""Text while it is written, in a process that does not call the model: `resume` beside `run`, `run` beside a pool."""

import asyncio
import json
from typing import Any

import pytest
from perstack.client.locations import DataFolder
from support.cli import Cli, Result, RunningCli
from support.model_server import Answer, ModelServer, Request
from support.pools import session_pid, worker
from support.teams import PARALLEL_TEAM, parallel_team, who

SOLO = """
[experts.solo]
instruction = "You are solo."
"""
TEXT = " ".join(f"word{number}" for number in range(100, 200))
PIECE = 8
EVENTS_BEFORE_TEXT = 3
"""Of a streamed answer."""
PIECES_BEFORE_GATE = 60
FIRST_PART = TEXT[: PIECES_BEFORE_GATE * PIECE]


def events_of(running: RunningCli, *types: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in running.lines]
    return [event for event in found if event["type"] in types]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events)


async def shown(running: RunningCli, text: str) -> None:
    """Wait until the pieces of text that a command has printed end with `text`."""
    async with asyncio.timeout(30):
        while not text_of(events_of(running, "streamRunResult")).endswith(text):
            await running.seen('"streamRunResult"', count=len(events_of(running, "streamRunResult")) + 1)


def writes_half(request: Request) -> Answer:
    """Writes slowly, and stops in the middle until the test lets it go."""
    events = EVENTS_BEFORE_TEXT + PIECES_BEFORE_GATE
    assert request.turn == 1
    return Answer(text=TEXT, delta_size=PIECE, event_delay_ms=25, after_events=events, then="hang", gate="rest")


def is_whole(result: Result) -> bool:
    """Whether the event that completes the text repeats all of it, whatever the pieces were."""
    [complete] = result.of_type("completeStreamingRunResult")
    return complete["text"] == TEXT and result.of_type("completeRun")[0]["text"] == TEXT


@pytest.mark.requirement("runtime.deltas")
async def test_resume_beside_run_prints_the_text_while_it_is_written(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = writes_half
    async with cli.running("run", "solo", "go", "--job-id", "watched", env=model_env) as run:
        await run.seen("startGeneration")
        async with cli.running("resume", "watched", env=model_env) as watcher:
            await watcher.seen("following it")
            await shown(watcher, FIRST_PART)
            pieces = events_of(watcher, "streamRunResult")
            assert text_of(pieces) == FIRST_PART
            assert not events_of(watcher, "completeStreamingRunResult")
            model.release("rest")
            watched, result = await cli.finished(watcher), await cli.finished(run)
    assert (watched.code, result.code) == (0, 0), watched.stderr
    assert is_whole(watched)
    assert TEXT.startswith(text_of(watched.of_type("streamRunResult")))
    assert len(watched.of_type("startStreamingRunResult")) == 1
    live_only = {"streamRunResult", "skillStderr"}
    ids = [[event["id"] for event in one.events if event["type"] not in live_only] for one in (watched, result)]
    assert ids[0] == ids[1]
    piece_ids = [event["id"] for event in watched.of_type("streamRunResult")]
    assert len(set(piece_ids)) == len(piece_ids)


def all_wait(request: Request) -> Answer:
    """Every delegate says who it is and waits in its second answer."""
    answer = parallel_team(request)
    if who(request) != "team" and request.turn == 2:
        return Answer(text=f"{who(request)} is thinking", calls=answer.calls, after_events=4, then="hang", gate="rest")
    return answer


@pytest.mark.requirement("runtime.deltas")
async def test_the_texts_of_parallel_delegates_are_told_apart(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = all_wait
    async with cli.running("run", "team", "go", "--job-id", "parallel", env=model_env) as run:
        await run.seen("startRun", count=4)
        async with cli.running("resume", "parallel", env=model_env) as watcher:
            await watcher.seen(" is thinking", count=3, seconds=30)
            said = {event["expertKey"]: event["delta"] for event in events_of(watcher, "streamRunResult")}
            assert said == {f"@team/{name}": f"{name} is thinking" for name in ("one", "two", "three")}
            model.release("rest")
            watched = await cli.finished(watcher)
            await cli.finished(run)
    assert watched.code == 0, watched.stderr
    assert watched.of_type("completeRun")[-1]["text"] == "all: one done | two done | three done"


def breaks_once(request: Request) -> Answer:
    """The connection breaks after the first words; the second attempt writes them again and waits."""
    if request.attempt == 1:
        return Answer(text="First try, and more", delta_size=9, after_events=4, then="die")
    return Answer(text="Second one, whole", delta_size=10, after_events=4, then="hang", gate="rest")


@pytest.mark.requirement("runtime.deltas")
@pytest.mark.requirement("runtime.retries")
async def test_a_follower_of_a_pool_sees_an_attempt_fail_and_the_next_one_begin_while_it_is_so(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = breaks_once
    async with (
        worker(cli, "breaking", model_env),
        cli.running("run", "solo", "go", "--task-queue", "breaking", "--job-id", "again", env=model_env) as run,
    ):
        await shown(run, "Second one")
        live = [event for event in map(json.loads, run.lines) if event["type"] in ("retry", "streamRunResult")]
        assert [event.get("delta", "retry") for event in live] == ["First try", "retry", "Second one"]
        starts = [event["id"] for event in events_of(run, "startStreamingRunResult")]
        assert len(set(starts)) == 2
        model.release("rest")
        result = await cli.finished(run)
        log = await cli.run("log", "--job", "again", "--json", "--take", "0", env=model_env)
    assert result.code == 0, result.stderr
    assert result.of_type("completeStreamingRunResult")[0]["text"] == "Second one, whole"
    [retry] = result.of_type("retry")
    assert [event["id"] for event in json.loads(log.stdout)["events"] if event["type"] == "retry"] == [retry["id"]]
    live_only = {"startStreamingRunResult", "streamRunResult"}
    told = [event["id"] for event in json.loads(log.stdout)["events"]]
    assert sorted(event["id"] for event in result.events if event["type"] not in live_only) == sorted(told)


@pytest.mark.requirement("runtime.deltas")
@pytest.mark.requirement("ours.survives-kill")
async def test_the_text_of_a_killed_worker_begins_anew_on_the_next_one(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = writes_half
    async with (
        worker(cli, "killed", model_env) as first,
        worker(cli, "killed", model_env) as second,
        cli.running("run", "solo", "go", "--task-queue", "killed", "--job-id", "anew", env=model_env) as run,
    ):
        await shown(run, FIRST_PART)
        pid = await session_pid(server_data, "anew")
        next(one for one in (first, second) if one.process.pid == pid).kill_group()
        await run.seen('"startStreamingRunResult"', count=2)
        await shown(run, FIRST_PART + FIRST_PART)
        model.release("rest")
        result = await cli.finished(run)
    assert result.code == 0, result.stderr
    assert is_whole(result)
    pieces = [event["id"] for event in result.of_type("startStreamingRunResult", "streamRunResult")]
    assert len(set(pieces)) == len(pieces)
    rest = text_of(result.of_type("streamRunResult")).removeprefix(FIRST_PART)
    assert TEXT.startswith(rest)


@pytest.mark.requirement("interface.json")
async def test_who_filters_live_text_out_gets_the_end_alone(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.release("rest")
    model.script = writes_half
    async with worker(cli, "filtered", model_env):
        queue = ("--task-queue", "filtered", "--filter", "completeRun")
        result = await cli.run("run", "solo", "go", *queue, env=model_env)
    assert result.types == ["completeRun"]


async def test_an_interval_of_heartbeats_that_is_no_number_is_refused_before_anything_starts(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    result = await cli.run(
        "run", "solo", "go", "--job-id", "nointerval", env={**model_env, "PERSTACK_HEARTBEAT_INTERVAL": "often"}
    )
    assert (result.code, result.stdout) == (2, "")
    assert "PERSTACK_HEARTBEAT_INTERVAL is 'often'" in result.stderr
    assert (await cli.run("log", "--job", "nointerval", env=model_env)).code == 2
    assert model.requests == []
