"""What a worker keeps of runs between their tasks is a cache: without it, or let go of, every run ends as ever."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from chaos.waiting import asker, asks_once
from perstack.activities import sessions as held_sessions
from perstack.activities.sessions import Sessions
from perstack.client.history import Execution
from perstack.client.jobs import Jobs
from perstack.core.expert import Expert
from perstack.core.run import RunResult
from perstack.worker import WorkerPlan, working
from perstack.workflows import expert_run
from support.model_server import Answer, Call, Request
from support.planted import MODEL_KEY
from support.teams import parallel_team
from support.temporal import Bench, solo

Script = Callable[[Request], Answer]
TEAM = (
    solo("team", delegates=("@team/one", "@team/two", "@team/three")),
    solo("@team/one"),
    solo("@team/two"),
    solo("@team/three"),
)


@asynccontextmanager
async def worker(temporal: Bench, queue: str, *, cached_runs: int) -> AsyncGenerator[Sessions]:
    """A worker with so much room for runs."""
    env = {"ANTHROPIC_API_KEY": MODEL_KEY, "ANTHROPIC_BASE_URL": temporal.model.url, "PATH": "/usr/bin:/bin"}
    plan = WorkerPlan(queue, cached_runs=cached_runs)
    async with working(temporal.client, plan, storage=temporal.storage, host_env=env) as sessions:
        yield sessions


def reads(request: Request) -> Answer:
    """Tools beside the workflow task and in activities, parallel ones, and a todo list that was open once."""
    path = {"path": "a.txt"}
    match request.turn:
        case 1:
            note = Call(name="todo", args={"newTodos": ["x"]})
            return Answer(calls=(Call(name="writeTextFile", args={**path, "text": "a"}), note))
        case 2:
            return Answer(calls=(Call(name="readTextFile", args=path), Call(name="readTextFile", args=path)))
        case 3:
            return Answer(calls=(Call(name="attemptCompletion"),))
        case 4:
            return Answer(calls=(Call(name="todo", args={"completedTodos": [0]}), Call(name="nosuch")))
        case _:
            return Answer(text="read", calls=(Call(name="attemptCompletion"),))


def mistakes(request: Request) -> Answer:
    """Two failing attempts, an empty answer, a cut answer, then an answer."""
    if request.turn == 1 and request.attempt < 3:
        return Answer(status=529, message="busy", headers={"retry-after-ms": "1"})
    if "EmptyAnswer" not in str(request.messages):
        return Answer()
    if "OutputCut" not in str(request.messages):
        return Answer(text="too lo", stop_reason="max_tokens")
    return Answer(text="done")


@dataclass(frozen=True)
class Scenario:
    """A job, and what somebody does when it asks."""

    experts: tuple[Expert, ...]
    script: Script
    answer: str | None = None
    is_cancelled: bool = False


SCENARIOS = {
    "tools": Scenario((solo(),), reads),
    "delegates": Scenario(TEAM, parallel_team),
    "mistakes": Scenario((solo(),), mistakes),
    "a question answered": Scenario((asker(),), asks_once, answer="Do it."),
    "cancelled": Scenario((asker(),), asks_once, is_cancelled=True),
}


@dataclass(frozen=True)
class Ending:
    """How a job ended and what was told of it, as far as order and ids do not matter."""

    status: str
    words: list[str]
    last_step: int
    types: list[str]
    model_calls: list[int]
    """How often each turn of each conversation was asked for."""


async def ending(temporal: Bench, scenario: Scenario, *, cached_runs: int) -> Ending:
    """Play a scenario to its end."""
    temporal.model.ledger.counts.clear()
    start = temporal.start(*scenario.experts)
    jobs = Jobs(temporal.client)
    async with asyncio.timeout(80), worker(temporal, start.job_id, cached_runs=cached_runs):
        execution = await jobs.start(start, task_queue=start.job_id)
        if scenario.answer is not None or scenario.is_cancelled:
            await asked(temporal, execution)
        if scenario.answer is not None:
            await jobs.respond(await jobs.view(start.job_id), None, scenario.answer)
        if scenario.is_cancelled:
            await jobs.cancel(await jobs.view(start.job_id))
        follower, events = await temporal.read(execution, wait=True)
    fold = follower.root.fold
    assert fold is not None
    result = fold.state.result
    assert result is not None
    history = await temporal.client.get_workflow_handle(start.job_id).fetch_history()
    assert not [event for event in history.events if event.HasField("workflow_task_failed_event_attributes")]
    return Ending(
        status=result.status,
        words=sorted(result.text.split()),
        last_step=result.last_step,
        types=sorted(event.type for event in events),
        model_calls=sorted(temporal.model.ledger.counts.values()),
    )


# A run that is replayed at every task is pushed out with its local calls still counted, which the SDK finds odd.
@pytest.mark.filterwarnings("ignore:Cannot find activity to cancel:UserWarning")
@pytest.mark.requirement("ours.history-is-the-record")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_worker_that_replays_every_run_at_every_task_ends_it_as_ever(temporal: Bench, name: str) -> None:
    scenario = SCENARIOS[name]
    temporal.model.script = scenario.script
    usual = await ending(temporal, scenario, cached_runs=100)
    replayed = await ending(temporal, scenario, cached_runs=0)
    assert usual.status == ("stoppedByCancellation" if scenario.is_cancelled else "completed")
    assert replayed == usual


@pytest.mark.requirement("definition.skills.interactive")
async def test_runs_that_wait_for_a_person_leave_the_memory_of_their_worker_and_go_on_with_their_answers(
    temporal: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 8
    monkeypatch.setattr(held_sessions, "TIDY_SECONDS", 0.1)
    begun: list[str] = []
    begin = expert_run.begin

    def noted(start: object) -> object:
        """Called for every run that a worker takes into its memory, from the beginning or by a replay."""
        begun.append(getattr(start, "job_id"))  # noqa: B009 the wrapped function checks the type
        return begin(start)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(expert_run, "begin", noted)
    temporal.model.script = asks_once
    starts = [temporal.start(asker(), query=f"step {number}") for number in range(count)]
    queue = starts[0].job_id
    jobs = Jobs(temporal.client)
    all_gone = asyncio.Event()
    gone: list[str] = []
    async with asyncio.timeout(90), worker(temporal, queue, cached_runs=100) as sessions:
        forget = sessions.let_go

        def let_go(temporal_run_id: str) -> None:
            forget(temporal_run_id)
            gone.append(temporal_run_id)
            if len(gone) == count:
                all_gone.set()

        sessions.let_go = let_go
        executions = [await jobs.start(start, task_queue=queue) for start in starts]
        await asyncio.gather(*(shown_as_waiting(temporal, execution) for execution in executions))
        # Not before: a run that is let go of while a task of it is still to come is back with that task.
        monkeypatch.setattr(held_sessions, "WAITING_SECONDS", 0.1)
        await all_gone.wait()
        assert len(sessions) == 0
        assert sorted(gone) == sorted(str(execution.temporal_run_id) for execution in executions)
        assert sorted(begun) == sorted(start.job_id for start in starts)

        async def answered(number: int, execution: Execution) -> RunResult:
            await jobs.respond(await jobs.view(execution.workflow_id), None, f"yes {number}")
            handle = temporal.client.get_workflow_handle(execution.workflow_id, result_type=RunResult)
            return await handle.result()

        results = await asyncio.gather(*(answered(number, one) for number, one in enumerate(executions)))
    assert [(result.status, result.text) for result in results] == [("completed", f"yes {n}") for n in range(count)]
    # Nobody's memory was left: each run came back by a replay of its history, once.
    assert sorted(begun) == sorted([start.job_id for start in starts] * 2)
    assert set(temporal.model.ledger.counts.values()) == {1}


async def test_a_session_with_a_program_running_outlives_a_wait_that_ends_others(
    temporal: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_sessions, "TIDY_SECONDS", 0.1)
    monkeypatch.setattr(held_sessions, "WAITING_SECONDS", 0.3)

    def script(request: Request) -> Answer:
        if request.first_user_text == "serves" and request.turn == 1:
            output = {"stdout": True, "stderr": True}
            return Answer(
                calls=(Call(name="exec", args={"command": "true", "args": [], "env": {}, "cwd": ".", **output}),)
            )
        if not any("approve" in str(message) for message in request.messages):
            return Answer(calls=(Call(name="approve", args={"what": "x"}),))
        return Answer(text="done")

    temporal.model.script = script
    jobs = Jobs(temporal.client)
    serves, thinks = (temporal.start(asker(), query=query) for query in ("serves", "thinks"))
    gone: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(60), worker(temporal, serves.job_id, cached_runs=100) as sessions:
        sessions.let_go = gone.put_nowait
        await asked(temporal, await jobs.start(serves, task_queue=serves.job_id))
        other = await jobs.start(thinks, task_queue=serves.job_id)
        # The second to wait is the first to go: a server that the model has started may be what the person looks at.
        assert await gone.get() == other.temporal_run_id
        assert len(sessions) == 1


async def test_what_a_cancelled_run_had_running_is_gone_soon_without_waiting_for_the_next_round(
    temporal: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_sessions, "TIDY_SECONDS", 600.0)
    output = {"stdout": True, "stderr": True}
    forever = Call(name="exec", args={"command": "sleep", "args": ["600"], "env": {}, "cwd": ".", **output})

    def script(request: Request) -> Answer:
        return Answer(calls=(forever,))

    temporal.model.script = script
    start = temporal.start(solo())
    jobs = Jobs(temporal.client)
    async with asyncio.timeout(60), worker(temporal, start.job_id, cached_runs=100) as sessions:
        execution = await jobs.start(start, task_queue=start.job_id)
        handle = temporal.client.get_workflow_handle(execution.workflow_id)
        async for event in handle.fetch_history_events(wait_new_event=True):
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name == "call_tool":
                break
        await jobs.cancel(await jobs.view(execution.workflow_id))
        while len(sessions):  # noqa: ASYNC110 nobody is told of it
            await asyncio.sleep(0.05)


async def shown_as_waiting(temporal: Bench, execution: Execution) -> None:
    """Wait until a run has done all it does before its answer: it sets its status last."""
    handle = temporal.client.get_workflow_handle(execution.workflow_id)
    async for event in handle.fetch_history_events(wait_new_event=True):
        if event.HasField("upsert_workflow_search_attributes_event_attributes"):
            return


async def asked(temporal: Bench, execution: Execution) -> None:
    """Wait until a run asks a person."""
    handle = temporal.client.get_workflow_handle(execution.workflow_id)
    async for _ in handle.fetch_history_events(wait_new_event=True):
        if await Jobs(temporal.client).questions(execution):
            return
