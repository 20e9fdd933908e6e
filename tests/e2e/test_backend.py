"""What screens can do to jobs, without screens: the real backend on a real server, with a scripted model."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from perstack.cli.backend import ExportBackend, LiveBackend
from perstack.cli.commands.run import RunOptions
from perstack.cli.connection import Connection, connected
from perstack.cli.diagnostics import ExitCode, telling
from perstack.cli.travel import read_export
from perstack.core.events import Event
from perstack.core.failures import PerstackError, ServerError, UsageError
from support.cli import Cli
from support.live import watched
from support.model_server import Answer, Call, ModelServer, Request
from support.pools import worker
from support.servers import own_server
from support.teams import PARALLEL_TEAM, parallel_team

SOLO = """
[experts.solo]
description = "Works alone."
instruction = "You are solo."

[experts.solo.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'
"""
LIVE = ("startStreamingReasoning", "streamReasoning", "startStreamingRunResult", "streamRunResult")


@pytest.fixture
async def connection(cli: Cli, model_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    """A connection as a command has it, in the workspace of the test."""
    for name, value in {**cli.env, **model_env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(cli.workspace)
    cli.write("perstack.toml", SOLO)
    with telling(lambda _: None):
        async with connected(None) as connection:
            yield connection


@pytest.fixture
async def backend(connection: Connection) -> AsyncIterator[LiveBackend]:
    """The backend of `perstack start` without anything typed."""
    backend = LiveBackend(connection, RunOptions(expert_key=""))
    yield backend
    await backend.close()


def one_call(request: Request) -> Answer:
    """Writes a file, then is done."""
    if request.turn == 1:
        return Answer(calls=(Call(name="writeTextFile", args={"path": "a.txt", "text": "a"}),))
    return Answer(text="done")


def gated(request: Request) -> Answer:
    """Begins to answer and waits until the test lets it go."""
    return Answer(text="the whole answer", after_events=4, then="hang", gate="end")


def asks_two(request: Request) -> Answer:
    """Asks two things at once, then repeats what it was told."""
    if request.turn == 1:
        return Answer(calls=tuple(Call(name="approve", args={"what": id}, id=id) for id in ("first", "second")))
    return Answer(text=" and ".join(str(result["content"]) for result in request.results))


def ids(events: list[Event]) -> list[str]:
    """Of what history tells: live text comes in other pieces to every reader."""
    return [event.id for event in events if event.type not in LIVE]


@pytest.mark.requirement("interface.start")
async def test_a_started_job_tells_each_event_once_in_order_and_how_it_ended(
    cli: Cli, backend: LiveBackend, model: ModelServer
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    async with watched(await backend.start("team", "go")) as job:
        assert job.handle.is_ours
        assert (await job.stopped()).kind == "completed"
        assert not job.handle.is_ours
        assert len(set(ids(job.events))) == len(ids(job.events))
        assert [run.phase for run in job.view.runs] == ["completed"] * 4
        assert job.handle.provider == "anthropic"
        assert job.handle.link
        async with watched(await backend.read(job.handle.job_id)) as log:
            await log.until(lambda: log.has_ended)
        assert sorted(ids(log.events)) == sorted(ids(job.events))
        assert [stop.kind for stop in log.stops] == ["completed"]
    assert await backend.close() == ExitCode.COMPLETED


@pytest.mark.requirement("interface.start")
async def test_two_questions_are_answered_in_place(backend: LiveBackend, model: ModelServer) -> None:
    model.script = asks_two
    async with watched(await backend.start("solo", "go")) as job:
        assert (await job.stopped()).kind == "stoppedByInteractiveTool"
        assert {call.id for call in job.view.questions} == {"first", "second"}
        assert job.handle.is_ours
        with pytest.raises(UsageError, match="No open question"):
            await job.handle.respond("third", "x")
        await asyncio.gather(job.handle.respond("second", "two"), job.handle.respond("first", "one"))
        await job.until(lambda: job.stops[-1].kind == "completed")
        with pytest.raises(UsageError, match="asks nothing"):
            await job.handle.respond("first", "again")
    told = str([result["content"] for result in model.requests[-1].results])
    assert "one" in told
    assert "two" in told


@pytest.mark.requirement("interface.start")
async def test_events_go_on_with_the_next_query_of_the_same_job(
    cli: Cli, backend: LiveBackend, model: ModelServer
) -> None:
    model.script = one_call
    async with watched(await backend.start("solo", "first")) as job:
        await job.stopped()
        await job.handle.go_on("second")
        await job.stopped(2)
        # The definition of today is what goes on.
        cli.write("perstack.toml", 'model = "claude-haiku-4-5"\n' + SOLO)
        await job.handle.go_on("third")
        await job.stopped(3)
        assert [root.query for root in job.view.roots] == ["first", "second", "third"]
        assert len(set(ids(job.events))) == len(ids(job.events))
        # Without it, the job goes on as it was.
        cli.write("perstack.toml", SOLO.replace("experts.solo", "experts.other"))
        await job.handle.go_on("fourth")
        assert (await job.stopped(4)).kind == "completed"
        with pytest.raises(UsageError, match="nothing to resume"):
            await job.handle.resume()
    models = [request.model == "claude-haiku-4-5" for request in model.requests]
    assert models == [False, False, False, True, True]


async def test_a_query_for_a_job_at_work_is_refused(backend: LiveBackend, model: ModelServer) -> None:
    model.script = gated
    async with watched(await backend.start("solo", "go")) as job:
        await job.until(lambda: job.of_type("streamRunResult"))
        with pytest.raises(UsageError, match="still open"):
            await job.handle.go_on("more")
        model.release("end")
        await job.stopped()


@pytest.mark.requirement("interface.start")
async def test_a_cancelled_job_says_so_and_goes_on_from_there(backend: LiveBackend, model: ModelServer) -> None:
    model.script = gated
    async with watched(await backend.start("solo", "go")) as job:
        await job.until(lambda: job.of_type("streamRunResult"))
        await job.handle.cancel()
        assert (await job.stopped()).kind == "stoppedByCancellation"
        await job.handle.cancel()
        model.script = one_call
        await job.handle.resume()
        assert (await job.stopped(2)).kind == "completed"


@pytest.mark.requirement("interface.start")
@pytest.mark.requirement("interface.detach")
async def test_a_detached_job_goes_on_in_the_background_and_is_still_followed(
    backend: LiveBackend, model: ModelServer
) -> None:
    model.script = gated
    async with watched(await backend.start("solo", "go")) as job:
        await job.until(lambda: job.of_type("streamRunResult"))
        await job.handle.detach()
        assert not job.handle.is_ours
        shown = len(job.of_type("streamRunResult"))
        # Text that the other process writes is seen, too.
        await job.until(lambda: len(job.of_type("streamRunResult")) > shown)
        model.release("end")
        assert (await job.stopped()).kind == "completed"
    assert await backend.close() == ExitCode.COMPLETED


@pytest.mark.requirement("interface.start")
async def test_a_job_that_was_left_is_parked_and_taken_up_again(backend: LiveBackend, model: ModelServer) -> None:
    model.script = gated
    async with watched(await backend.start("solo", "go")) as job:
        await job.until(lambda: job.of_type("streamRunResult"))
    assert job.has_ended
    async with watched(await backend.read(job.handle.job_id)) as log:
        await log.until(lambda: log.has_ended)
        assert log.stops == []
        with pytest.raises(UsageError, match="only looked at"):
            await log.handle.go_on("no")
    async with watched(await backend.open(job.handle.job_id)) as again:
        assert again.handle.is_ours
        model.release("end")
        assert (await again.stopped()).kind == "completed"
    assert set(model.ledger.counts.values()) == {2}


async def test_leaving_a_job_that_works_parks_it_and_the_exit_code_says_so(
    backend: LiveBackend, model: ModelServer
) -> None:
    model.script = gated
    said: list[str] = []
    job = await backend.start("solo", "go")
    with telling(said.append):
        assert await backend.close() == ExitCode.INTERRUPTED
    assert f"job {job.job_id} is parked; go on with: perstack resume {job.job_id}" in said


@pytest.mark.requirement("interface.start")
async def test_who_watches_a_job_that_has_ended_sees_what_others_make_of_it(
    backend: LiveBackend, model: ModelServer
) -> None:
    model.script = one_call
    async with (
        watched(await backend.start("solo", "first")) as job,
        watched(await backend.open(job.handle.job_id)) as other,
    ):
        await job.stopped()
        await other.stopped()
        await other.handle.go_on("second")
        assert (await other.stopped(2)).kind == "completed"
        assert (await job.stopped(2)).kind == "completed"
        assert [root.query for root in job.view.roots] == ["first", "second"]
        assert len(set(ids(job.events))) == len(ids(job.events))
        # And the other way round, though the one who asks now has only watched the last time.
        await job.handle.go_on("third")
        assert (await other.stopped(3)).kind == "completed"
        assert (await job.stopped(3)).kind == "completed"
        assert not job.handle.is_ours


@pytest.mark.requirement("interface.start")
async def test_a_job_of_another_process_is_followed_and_can_be_answered_there(
    cli: Cli, connection: Connection, backend: LiveBackend, model: ModelServer, model_env: dict[str, str]
) -> None:
    def asks_then_waits(request: Request) -> Answer:
        if request.turn == 1:
            return Answer(calls=(Call(name="approve", args={}, id="ask"),))
        return gated(request)

    model.script = asks_then_waits
    async with worker(cli, "backend-pool", model_env):
        pooled = LiveBackend(connection, RunOptions(expert_key="", task_queue="backend-pool"))
        async with watched(await pooled.start("solo", "go")) as job:
            assert not job.handle.is_ours
            assert (await job.stopped()).kind == "stoppedByInteractiveTool"
            async with watched(await backend.open(job.handle.job_id)) as other:
                await other.stopped()
                await other.handle.respond("ask", "yes")
                await other.until(lambda: other.of_type("streamRunResult"))
                model.release("end")
                await other.stopped(2)
            assert (await job.stopped(2)).kind == "completed"


@pytest.mark.requirement("ours.survives-kill")
async def test_a_job_whose_process_dies_while_it_is_watched_goes_on_here(
    cli: Cli, backend: LiveBackend, model: ModelServer, model_env: dict[str, str]
) -> None:
    model.script = gated
    async with cli.running("run", "solo", "go", "--job-id", "watched-here", env=model_env) as running:
        await running.seen("startStreamingRunResult")
        async with watched(await backend.open("watched-here")) as job:
            await job.until(lambda: job.of_type("streamRunResult"))
            assert not job.handle.is_ours
            running.kill_group()
            await job.until(lambda: len(job.of_type("startStreamingRunResult")) == 2)
            assert job.handle.is_ours
            model.release("end")
            assert (await job.stopped()).kind == "completed"


async def test_a_job_of_an_empty_pool_is_shown_and_that_nobody_works_on_it_is_said(
    connection: Connection, backend: LiveBackend, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSTACK_WORKER_WAIT", "0.2")
    pooled = LiveBackend(connection, RunOptions(expert_key="", task_queue="empty-pool"))
    with pytest.raises(ServerError, match="No worker serves"):
        await pooled.start("solo", "go")
    model.script = one_call
    async with watched(await backend.start("solo", "go")) as job:
        await job.stopped()
    start = (await connection.jobs.view(job.handle.job_id)).start
    abandoned = start.replaced(job_id="abandoned", run_id="abandonedrun")
    execution = await connection.jobs.start(abandoned, task_queue="empty-pool")
    said: list[str] = []
    with telling(said.append):
        async with watched(await backend.open("abandoned")) as shown:
            await shown.until(lambda: shown.events)
            assert not shown.handle.is_ours
    assert any("No worker serves the task queue empty-pool" in line for line in said)
    await connection.client.get_workflow_handle(execution.workflow_id).terminate()


async def test_events_asked_for_again_begin_at_the_beginning(backend: LiveBackend, model: ModelServer) -> None:
    model.script = gated
    handle = await backend.start("solo", "go")
    async with watched(handle) as job:
        await job.until(lambda: job.of_type("streamRunResult"))
        async with watched(handle) as again:
            await again.until(lambda: again.of_type("startGeneration"))
            assert job.has_ended
            # Nobody is interrupted by it.
            assert handle.is_ours
            model.release("end")
            await again.stopped()
            assert again.events[0].id == job.events[0].id
    assert set(model.ledger.counts.values()) == {1}


async def test_a_job_that_is_left_while_it_is_cancelled_is_cancelled(
    connection: Connection, backend: LiveBackend, model: ModelServer
) -> None:
    model.script = gated
    async with watched(await backend.start("solo", "go")) as job:
        await job.until(lambda: job.of_type("streamRunResult"))
        await job.handle.cancel()
    assert not (await connection.jobs.view(job.handle.job_id)).is_open
    assert await backend.close() == ExitCode.CANCELLED


async def test_a_server_that_is_gone_for_good_is_told_in_words(
    cli: Cli,
    temporal_program: Path,
    tmp_path: Path,
    model: ModelServer,
    model_env: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**cli.env, **model_env}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(cli.workspace)
    cli.write("perstack.toml", SOLO)
    model.script = gated
    async with AsyncExitStack() as server:
        info = await server.enter_async_context(own_server(temporal_program, tmp_path))
        with telling(lambda _: None):
            async with connected(info.address) as connection:
                backend = LiveBackend(connection, RunOptions(expert_key="", address=info.address))
                async with watched(await backend.start("solo", "go")) as job:
                    await job.until(lambda: job.of_type("streamRunResult"))
                    await server.aclose()
                    with pytest.raises(ServerError, match="failed"):
                        await job.until(lambda: job.stops)
                    begun = time.monotonic()
                assert time.monotonic() - begun < 10
                assert await backend.close() == ExitCode.UNREACHABLE


async def test_what_was_ended_from_outside_is_told(
    connection: Connection, backend: LiveBackend, model: ModelServer
) -> None:
    model.script = gated
    async with watched(await backend.start("solo", "go")) as job:
        await job.until(lambda: job.of_type("streamRunResult"))
        await connection.client.get_workflow_handle(job.handle.job_id).terminate()
        stop = await job.stopped()
        assert (stop.kind, stop.message) == ("ended", "terminated from outside")
        [ended] = job.ended
        assert ended.closed == "terminated"
        assert job.view.root is not None
        assert job.view.root.phase == "ended"
        model.release("end")
    assert await backend.close() == ExitCode.FAILED


@pytest.mark.requirement("interface.start")
async def test_any_checkpoint_of_any_run_can_be_gone_on_from(
    cli: Cli, backend: LiveBackend, model: ModelServer
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    async with watched(await backend.start("team", "go")) as job:
        await job.stopped()
        delegate = next(run for run in job.view.runs if run.expert_key == "@team/two")
    checkpoint = delegate.steps[0].checkpoint.id
    branch = await backend.fork(job.handle.job_id, checkpoint, None, is_branch=True)
    async with watched(branch) as other:
        assert branch.job_id != job.handle.job_id
        assert (await other.stopped()).kind == "completed"
        # The results of its siblings are kept.
        assert {run.expert_key for run in other.view.runs} == {"team", "@team/two"}
    first = job.view.runs[0].steps[0].checkpoint.id
    async with watched(await backend.fork(job.handle.job_id, first, "anew", is_branch=False)) as again:
        assert again.handle.job_id == job.handle.job_id
        await again.stopped()
    with pytest.raises(UsageError, match="not found in job"):
        await backend.fork(job.handle.job_id, "nowhere", None, is_branch=False)


@pytest.mark.requirement("interface.tui")
async def test_an_export_is_read_like_a_job_and_nothing_else(
    cli: Cli, backend: LiveBackend, model: ModelServer, tmp_path: Path
) -> None:
    model.script = one_call
    async with watched(await backend.start("solo", "go")) as job:
        await job.stopped()
    file = tmp_path / "job.json"
    exported = await cli.run("export", job.handle.job_id, "-o", str(file))
    assert exported.code == 0, exported.stderr
    alone = ExportBackend(read_export(str(file)), str(file))
    [choice] = await alone.jobs(10)
    assert (choice.job_id, choice.status, choice.query) == (job.handle.job_id, "completed", "go")
    async with watched(await alone.read(choice.job_id)) as read:
        await read.until(lambda: read.has_ended)
        assert ids(read.events) == ids(job.events)
    for refused in (alone.start("solo", "x"), alone.open(choice.job_id)):
        with pytest.raises(UsageError, match="only looked at"):
            await refused


@pytest.mark.requirement("interface.start")
async def test_experts_and_jobs_are_listed(cli: Cli, backend: LiveBackend, model: ModelServer) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM + SOLO)
    assert [(expert.key, expert.source) for expert in backend.experts()] == [
        ("team", "perstack.toml"),
        ("solo", "perstack.toml"),
        ("create-expert", "built-in"),
    ]
    assert backend.expert("@team/one").description == "First."
    with pytest.raises(UsageError, match="not found"):
        backend.expert("nobody")
    model.script = asks_two
    async with watched(await backend.start("solo", "which is listed")) as job:
        await job.stopped()
        async with asyncio.timeout(20):
            # The server's list is a moment behind its jobs.
            while (
                listed := {one.job_id: one for one in await backend.jobs(20)}[job.handle.job_id]
            ).status != "waiting":
                assert listed.status == "running"
                await asyncio.sleep(0.05)
        assert listed.query == "which is listed"
        await job.handle.cancel()
        await job.stopped(2)
    cli.write("perstack.toml", "experts = 3")
    with pytest.raises(PerstackError):
        backend.experts()
    assert [expert.key for expert in backend.built_in_experts()] == ["create-expert"]
