"""A run goes over from one Temporal execution to the next, and nobody who reads it can tell."""

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
from perstack.client.connection import connect, known_search_attributes
from perstack.client.histories import Histories
from perstack.client.history import Execution
from perstack.client.jobs import Jobs
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.core.events import CompleteRun, ContinueToNextStep, Event, ResolveToolResults, RunBase, StartGeneration
from perstack.core.lineage import Words
from perstack.core.messages import TextPart, UserMessage
from perstack.core.run import Limits
from perstack.core.state import RunState
from perstack.workflows.contracts import SNAPSHOT_QUERY
from support.model_server import Answer, Call, ModelServer, Request
from support.servers import own_server
from support.temporal import Bench, solo
from temporalio.client import WorkflowExecutionStatus

EVENTS_BEFORE_NEXT = 60


@pytest.fixture
async def tight(
    temporal_program: Path, cli_env: Mapping[str, str], tmp_path: Path, model: ModelServer
) -> AsyncIterator[Bench]:
    """A server that wants a new execution after a few steps already."""
    workspace = tmp_path / "workspace"
    workspace.mkdir(exist_ok=True)
    limit = f"limit.historyCount.suggestContinueAsNew={EVENTS_BEFORE_NEXT}"
    async with own_server(temporal_program, tmp_path, limit) as info:
        storage = FolderStorage(tmp_path / "storage")
        client = await connect(info, storage=PayloadDriver(storage))
        yield Bench(client, storage, workspace, model, await known_search_attributes(client))


def worker_of(steps: int) -> Callable[[Request], Answer]:
    """Writes a todo or a file a step, then reports how many todos are open."""

    def script(request: Request) -> Answer:
        if request.turn > steps:
            return Answer(text=f"{len(request.messages)} messages")
        if request.turn == 1:
            return Answer(calls=(Call(name="todo", args={"newTodos": ["kept"]}),))
        if request.turn == steps:
            return Answer(calls=(Call(name="todo", args={"newTodos": ["late"]}),))
        return Answer(calls=(Call(name="writeTextFile", args={"path": f"{request.turn}.txt", "text": "x"}),))

    return script


def counts(request: Request) -> Answer:
    """Says how long the conversation is."""
    return Answer(text=f"{len(request.messages)} messages")


async def executions(temporal: Bench, job_id: str) -> list[Execution]:
    """Every Temporal execution of a root, oldest first."""
    found = [one async for one in temporal.client.list_workflows(f"WorkflowId = '{job_id}'")]
    return [Execution(one.id, one.run_id) for one in sorted(found, key=lambda one: one.start_time)]


def told(events: list[Event]) -> list[tuple[str, str, int]]:
    """What readers must agree on."""
    return [(e.type, e.id, e.step_number if isinstance(e, RunBase) else 0) for e in events if "tream" not in e.type]


@pytest.mark.requirement("ours.chains")
async def test_readers_cannot_tell_where_one_execution_ended_and_the_next_began(tight: Bench, temporal: Bench) -> None:
    steps = 14
    told_of: list[list[str]] = []
    for server in (tight, temporal):
        server.model.script = worker_of(steps)
        start = server.start(solo())
        start = start.replaced(job_id="same-job" + start.job_id[:4], run_id="same-run")
        follower, live = await server.run(start)
        chain = await executions(server, start.job_id)
        assert (len(chain) > 2) == (server is tight)
        assert follower.root.closed == "completed"
        _, later = await server.read(chain[0], wait=False)
        assert told(later) == told(live)
        told_of.append([kind for kind, _, _ in told(live)])
        assert [e.step_number for e in live if isinstance(e, StartGeneration)] == list(range(1, steps + 2))
        (end,) = [e for e in live if isinstance(e, CompleteRun)]
        assert end.text == f"{2 * steps + 1} messages"
        assert follower.job().usage == end.checkpoint.usage
        assert follower.job().total_steps == steps + 1
        todos = [str(e.tool_results[0].result) for e in live if isinstance(e, ResolveToolResults)][-1]
        assert '"kept"' in todos
        assert '"late"' in todos
        steps_started = [e.step.started_at for e in live if isinstance(e, ContinueToNextStep)]
        assert all(steps_started)
    assert told_of[0] == told_of[1]


async def test_every_execution_of_a_chain_stands_for_itself(tight: Bench) -> None:
    tight.model.script = worker_of(12)
    start = tight.start(solo())
    await tight.run(start)
    chain = await executions(tight, start.job_id)
    assert len(chain) > 2
    last = await Histories.on(tight.client).read_run(chain[-1])
    assert last.fold is not None
    async with tight.worker(start.job_id):
        handle = tight.client.get_workflow_handle(start.job_id, run_id=chain[-1].temporal_run_id)
        reported = await handle.query(SNAPSHOT_QUERY, result_type=RunState)
    assert last.fold.state == reported
    assert len(last.fold.state.checkpoint.messages) == 2 + 2 * 12 + 1
    statuses = [
        (await tight.client.get_workflow_handle(one.workflow_id, run_id=one.temporal_run_id).describe()).status
        for one in chain
    ]
    assert statuses == [
        *[WorkflowExecutionStatus.CONTINUED_AS_NEW] * (len(chain) - 1),
        WorkflowExecutionStatus.COMPLETED,
    ]
    (listed,) = [one async for one in Jobs(tight.client).list(take=100)]
    assert (listed.job_id, listed.status) == (start.job_id, "completed")


async def test_the_session_and_its_skills_go_along_to_the_next_execution(tight: Bench) -> None:
    tight.model.script = worker_of(12)
    follower, events = await tight.run(tight.start(solo()))
    kinds = [event.type for event in events]
    assert kinds.count("skillConnected") == 1
    assert kinds.count("initializeRuntime") == 1
    assert follower.root.fold is not None
    assert follower.root.fold.state.generations == 13
    # A session made anew would have read the history of its run.
    assert all(request.attempt == 1 for request in tight.model.requests)


async def test_delegates_are_carried_on_as_well_and_their_parents_hear_of_their_end_only(tight: Bench) -> None:
    inner = worker_of(12)

    def script(request: Request) -> Answer:
        if "You are team." not in request.system:
            return inner(request)
        if request.turn == 1:
            return Answer(calls=(Call(name="long", args={"query": "go"}),))
        return Answer(text=str(request.results[0]["content"]))

    tight.model.script = script
    start = tight.start(solo("team", delegates=("@team/long",)), solo("@team/long"))
    follower, events = await tight.run(start)
    assert [e.text for e in events if isinstance(e, CompleteRun)] == ["25 messages", "25 messages"]
    assert len(follower.readers) == 2
    assert follower.job().total_steps == 1 + 13 + 1 + 1
    query = f"WorkflowId STARTS_WITH '{start.job_id}/'"
    children = [one async for one in tight.client.list_workflows(query)]
    assert len(children) > 2
    assert len({child.id for child in children}) == 1


async def test_a_chain_goes_on_with_a_new_query_and_is_read_whole(tight: Bench) -> None:
    tight.model.script = worker_of(12)
    start = tight.start(solo())
    await tight.run(start)
    jobs = Jobs(tight.client)
    view = await jobs.view(start.job_id)
    message = UserMessage(contents=(TextPart(text="and now?"),))
    going = (await jobs.lineage(view)).latest(Words(message=message))
    tight.model.script = counts
    following = going.start.replaced(
        run_id="follow-up", query="and now?", seed=going.seed, previous=view.execution.temporal_run_id
    )
    async with tight.worker(start.job_id):
        execution = await jobs.go_on(following, task_queue=start.job_id)
        _, events = await tight.read(execution, wait=True)
    (end,) = [e for e in events if isinstance(e, CompleteRun)]
    assert end.text == "27 messages"
    memo = await (await tight.client.get_workflow_handle(start.job_id).describe()).memo()
    assert going.seed is not None
    assert memo["PerstackOrigin"]["checkpointId"] == going.seed.origin.checkpoint_id
    assert memo["PerstackWorkspace"] == str(tight.workspace)
    lineage = await jobs.lineage(await jobs.view(start.job_id))
    assert [run.start.query for run in lineage.runs] == ["go", "and now?"]


@pytest.mark.timeout(600)
@pytest.mark.requirement("ours.chains")
async def test_a_run_of_four_hundred_steps_becomes_a_chain_by_itself(temporal: Bench) -> None:
    def script(request: Request) -> Answer:
        if request.turn > 400:
            return Answer(text="done")
        page = {"path": "page.txt", "text": "x" * 1_000}
        return Answer(text="y" * 1_000, calls=(Call(name="writeTextFile", args=page),))

    temporal.model.script = script
    start = temporal.start(solo(), limits=Limits(max_steps=1000))
    follower, events = await temporal.run(start)
    fold = follower.root.fold
    assert fold is not None
    assert fold.state.checkpoint.status == "completed"
    assert [e.step_number for e in events if isinstance(e, StartGeneration)] == list(range(1, 402))
    chain = await executions(temporal, start.job_id)
    sizes: list[int] = []
    for one in chain:
        handle = temporal.client.get_workflow_handle(one.workflow_id, run_id=one.temporal_run_id)
        sizes.append((await handle.describe()).raw_description.workflow_execution_info.history_length)
    sys.stdout.write(f"400 steps: {len(chain)} executions of {sizes} events\n")
    assert len(chain) >= 2
    assert set(temporal.model.ledger.counts.values()) == {1}
