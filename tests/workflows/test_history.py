"""The history of a run is its only record: folded, replayed and measured."""

import json
import sys
from collections.abc import Callable

import pytest
from perstack.client.histories import Histories
from perstack.client.history import Execution
from perstack.core.run import Limits
from perstack.core.state import RunState
from perstack.workflows.contracts import SNAPSHOT_QUERY
from perstack.workflows.expert_run import ExpertRun
from support.model_server import Answer, Call, Request
from support.teams import parallel_team
from support.temporal import Bench, solo
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

Script = Callable[[Request], Answer]
TEAM = (
    solo("team", delegates=("@team/one", "@team/two", "@team/three")),
    solo("@team/one"),
    solo("@team/two"),
    solo("@team/three"),
)
SOLO = (solo(),)


def reads(request: Request) -> Answer:
    """Writes a file, reads it twice in parallel, finishes with a todo list that was open once."""
    path = {"path": "a.txt"}
    match request.turn:
        case 1:
            return Answer(
                calls=(
                    Call(name="writeTextFile", args={**path, "text": "a"}),
                    Call(name="todo", args={"newTodos": ["x"]}),
                )
            )
        case 2:
            return Answer(
                thinking="hm", calls=(Call(name="readTextFile", args=path), Call(name="readTextFile", args=path))
            )
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
    said = sum("EmptyAnswer" in str(m["content"]) for m in request.messages)
    if not said:
        return Answer()
    if "OutputCut" not in str(request.messages):
        return Answer(text="too lo", stop_reason="max_tokens")
    return Answer(text="done")


def refuses(_request: Request) -> Answer:
    """Never lets anybody in."""
    return Answer(status=401, message="no", error_type="authentication_error")


SCENARIOS: dict[str, tuple[tuple[object, ...], Script, Limits]] = {
    "tools": (SOLO, reads, Limits()),
    "delegates": (TEAM, parallel_team, Limits()),
    "mistakes": (SOLO, mistakes, Limits()),
    "failure": (SOLO, refuses, Limits()),
    "step limit": (SOLO, reads, Limits(max_steps=2)),
}


async def play(temporal: Bench, name: str) -> Execution:
    """Run one scenario to its end."""
    experts, script, limits = SCENARIOS[name]
    temporal.model.script = script
    start = temporal.start(*experts, limits=limits)  # pyright: ignore[reportArgumentType]
    await temporal.run(start)
    return Execution(start.job_id)


@pytest.mark.requirement("ours.history-is-the-record")
@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_fold_of_the_history_equals_the_state_the_workflow_reports(temporal: Bench, name: str) -> None:
    execution = await play(temporal, name)
    async with temporal.worker(execution.workflow_id):
        handle = temporal.client.get_workflow_handle(execution.workflow_id)
        reported = await handle.query(SNAPSHOT_QUERY, result_type=RunState)
    reader = await Histories.on(temporal.client).read_run(execution)
    assert reader.fold is not None
    assert reader.fold.state == reported


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_finished_run_replays_in_the_sandbox_without_a_difference(temporal: Bench, name: str) -> None:
    execution = await play(temporal, name)
    history = await temporal.client.get_workflow_handle(execution.workflow_id).fetch_history()
    pure = SandboxRestrictions.default.with_passthrough_modules("perstack.core")
    replayer = Replayer(
        workflows=[ExpertRun],
        data_converter=temporal.client.data_converter,
        workflow_runner=SandboxedWorkflowRunner(restrictions=pure),
    )
    result = await replayer.replay_workflow(WorkflowHistory(execution.workflow_id, history.events))
    assert result.replay_failure is None


async def test_a_local_activity_is_recorded_in_the_marker_format_we_decode(temporal: Bench) -> None:
    execution = await play(temporal, "tools")
    history = await temporal.client.get_workflow_handle(execution.workflow_id).fetch_history()
    markers = [
        e.marker_recorded_event_attributes
        for e in history.events
        if e.event_type == EventType.EVENT_TYPE_MARKER_RECORDED
    ]
    assert {marker.marker_name for marker in markers} == {"core_local_activity"}
    data = [json.loads(marker.details["data"].payloads[0].data) for marker in markers]
    assert {"activity_id", "activity_type"} <= set(data[0])
    assert {one["activity_type"] for one in data} == {"call_tool"}
    assert all("result" in marker.details for marker in markers)


@pytest.mark.requirement("ours.linear-history")
async def test_a_run_of_twice_the_steps_has_about_twice_the_history(temporal: Bench) -> None:
    (temporal.workspace / "page.txt").write_text("x" * 5_000)

    def script(request: Request) -> Answer:
        steps = int(request.first_user_text)
        if request.turn >= steps:
            return Answer(text="done")
        return Answer(text="y" * 1_000, calls=(Call(name="readTextFile", args={"path": "page.txt"}),))

    temporal.model.script = script
    sizes: list[tuple[int, int]] = []
    for steps in (50, 100):
        start = temporal.start(solo(), query=str(steps))
        follower, _ = await temporal.run(start)
        description = await temporal.client.get_workflow_handle(start.job_id).describe()
        fold = follower.root.fold
        assert fold is not None
        conversation = sum(len(m.wire_json()) for m in fold.state.checkpoint.messages)
        sizes.append((description.raw_description.workflow_execution_info.history_size_bytes, conversation))
    (short, _), (long, conversation) = sizes
    # Both figures belong to the report of the test run.
    figures = f"history: {short} bytes at 50 steps, {long} at 100, {long / conversation:.2f} x the conversation"
    sys.stdout.write(figures + "\n")
    assert long <= 2.2 * short
    assert long <= 1.5 * conversation


async def test_an_outcome_of_three_megabytes_leaves_the_history_small(temporal: Bench) -> None:
    noise = bytes(range(256)) * 12_000
    png = b"\x89PNG\r\n\x1a\n" + noise
    (temporal.workspace / "a.png").write_bytes(png)

    def script(request: Request) -> Answer:
        if request.turn == 1:
            return Answer(calls=(Call(name="readImageFile", args={"path": "a.png"}),))
        return Answer(text="seen")

    temporal.model.script = script
    start = temporal.start(solo())
    follower, _ = await temporal.run(start)
    assert follower.root.fold is not None
    assert follower.root.fold.state.checkpoint.status == "completed"
    description = await temporal.client.get_workflow_handle(start.job_id).describe()
    assert description.raw_description.workflow_execution_info.history_size_bytes < 60_000
    reader = await Histories.on(temporal.client).read_run(Execution(start.job_id))
    assert reader.fold is not None
    result = reader.fold.state.checkpoint.messages[3]
    assert len(result.wire_json()) > 4_000_000
