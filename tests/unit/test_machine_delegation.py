"""Delegates: starting them, waiting for all of them, and going on in a new segment."""

from typing import Any

import pytest
from perstack.core.checkpoint import DelegatedBy
from perstack.core.effects import Finish, Generate
from perstack.core.events import (
    CallDelegate,
    CompleteRun,
    FinishAllToolCalls,
    FinishMcpTools,
    InitializeRuntime,
    ResumeFromStop,
    RunBase,
    StartRun,
    StopRunByDelegate,
    StopRunByExceededMaxSteps,
)
from perstack.core.expert import ExpertRef
from perstack.core.failures import Failure
from perstack.core.ids import cuid_from, segment_run_id
from perstack.core.messages import ExpertMessage
from perstack.core.run import Limits, RunResult
from perstack.core.state import State
from perstack.core.usage import Usage
from support.play import Play, PlayedRun
from support.scenarios import (
    USAGE,
    HandRun,
    call,
    child_result,
    complete,
    expert,
    interactive_tool,
    opened,
    run_input,
    say,
    texts_of,
)

TEAM = (expert("team", delegates=("@team/a", "@team/b")), expert("@team/a"), expert("@team/b"))
CHAIN = (
    expert("top", delegates=("@top/mid",)),
    expert("@top/mid", delegates=("@top/low",)),
    expert("@top/low"),
)
CONTROL = {"startRun", "resumeFromStop", "callDelegate", "stopRunByDelegate", "completeRun"}
RESUMED = ["resumeFromStop", "finishAllToolCalls", "continueToNextStep", "startGeneration"]


def failed(status: str, message: str | None = None, *, last_step: int = 4) -> RunResult:
    failure = None if message is None else Failure(name="x", message=message)
    result = child_result(last_step=last_step, usage=USAGE)
    return RunResult.model_validate({**result.model_dump(), "status": status, "text": "", "failure": failure})


def control_flow(play: Play) -> list[tuple[str, str]]:
    events = [event for event in play.events if isinstance(event, RunBase)]
    return [(event.expert_key, event.type) for event in events if event.type in CONTROL]


def test_delegate_calls_stop_the_segment_and_start_the_delegates() -> None:
    run = opened(*TEAM, query="hi")
    assert run.say("", call("a", "c1", query="one"), call("b", "c2", query="two")) == [
        "callTools",
        "finishMcpTools",
        "callDelegate",
        "stopRunByDelegate",
    ]
    assert [one.id for one in run.last(FinishMcpTools).pending_tool_calls] == ["c1", "c2"]
    assert run.last(FinishMcpTools).tool_results == ()
    asked = run.last(CallDelegate)
    assert [(one.skill_name, one.tool_name) for one in asked.tool_calls] == [("@team/a", "a"), ("@team/b", "b")]
    assert asked.usage == USAGE
    checkpoint = run.last(StopRunByDelegate).checkpoint
    assert checkpoint.status == "stoppedByDelegate"
    assert [(one.expert.key, one.tool_call_id, one.tool_name, one.query) for one in checkpoint.delegate_to or ()] == [
        ("@team/a", "c1", "a", "one"),
        ("@team/b", "c2", "b", "two"),
    ]
    assert (checkpoint.pending_tool_calls, checkpoint.partial_tool_results) == (None, ())
    assert isinstance(checkpoint.messages[-1], ExpertMessage)


def test_a_delegate_gets_its_query_and_what_it_can_reach_and_nothing_of_the_parent() -> None:
    run = opened(*CHAIN, limits=Limits(max_steps=7))
    run.say("", call("mid", "c1", query="go"))
    (one,) = run.delegated()
    child = one.child
    assert (child.job_id, child.expert_key, child.query, child.first_step) == ("job", "@top/mid", "go", 2)
    assert (child.path, set(child.experts)) == (("1.0",), {"@top/mid", "@top/low"})
    assert grandchild_path(run) == ("1.0", "2.1")
    assert child.settings.limits.max_steps == 7
    stop = run.last(StopRunByDelegate)
    assert child.delegated_by == DelegatedBy(
        expert=ExpertRef(key="top", name="top", version="1.0.0"),
        tool_call_id="c1",
        tool_name="mid",
        checkpoint_id=stop.checkpoint.id,
        run_id=stop.run_id,
    )
    inside = HandRun(child.model_copy(update={"run_id": "child"})).open()
    initial = inside.last(StartRun).initial_checkpoint
    assert (initial.messages, initial.delegated_by, initial.step_number) == ((), child.delegated_by, 2)
    assert initial.usage == Usage()


def test_the_run_goes_on_in_a_new_segment_after_the_last_delegate() -> None:
    run = opened(*TEAM)
    run.say("", call("a", "c1", query="one"), call("b", "c2", query="two"))
    assert run.back(1, child_result("@team/b", text="B", last_step=5)) == []
    assert run.back(0, child_result("@team/a", text="A", last_step=3)) == RESUMED
    segment = segment_run_id("job-run", 1)
    resumed = run.last(ResumeFromStop)
    assert (resumed.run_id, resumed.step_number) == (segment, 6)
    assert resumed.checkpoint.status == "stoppedByDelegate"
    assert (resumed.checkpoint.delegate_to, resumed.checkpoint.pending_tool_calls) == (None, None)
    assert [one.skill_name for one in resumed.checkpoint.partial_tool_results or ()] == [
        "delegate/@team/a",
        "delegate/@team/b",
    ]
    assert resumed.checkpoint.id == cuid_from(segment, "checkpoint", 1)
    (message,) = run.last(FinishAllToolCalls).new_messages
    assert texts_of(message.contents) == ["A", "B"]
    runtime = run.all(InitializeRuntime)
    assert [(event.run_id, event.query) for event in runtime] == [("job-run", "hello"), (segment, None)]
    assert run.effect(Generate).step_number == 7
    assert [known.index for known in run.effect(Generate).appendix.results] == [0, 1]
    assert (run.state.checkpoint.partial_tool_results, run.state.checkpoint.status) == (None, "proceeding")


def test_mcp_results_of_the_message_come_back_with_those_of_the_delegates() -> None:
    run = opened(*TEAM)
    run.say("", call("a", "c1", query="one"), call("exec", "c2"))
    assert run.finish(0, "E") == ["finishMcpTools", "callDelegate", "stopRunByDelegate"]
    assert [one.id for one in run.last(FinishMcpTools).tool_results] == ["c2"]
    assert run.last(StopRunByDelegate).checkpoint.partial_tool_results == run.last(FinishMcpTools).tool_results
    run.back(1, child_result(text="A"))
    assert texts_of(run.last_results()) == ["E", "A"]


def grandchild_path(run: HandRun) -> tuple[str, ...]:
    """The path of a delegate that the delegate of `run` starts in its second generation."""
    child = HandRun(run.delegated()[0].child.model_copy(update={"run_id": "child"})).open()
    child.say("")
    child.say("", call("todo"), call("low", query="go"))
    child.finish(0)
    return child.delegated()[0].child.path


@pytest.mark.parametrize("args", [{}, {"query": ""}, {"query": " \n"}, {"query": 3}])
def test_a_delegation_without_a_query_is_an_error_for_the_model(args: dict[str, Any]) -> None:
    run = opened(*TEAM)
    assert run.say("", call("a", **args))[1:] == [
        "resolveToolResults",
        "finishToolCall",
        "continueToNextStep",
        "startGeneration",
    ]
    (result,) = run.last_results()
    assert (result.is_error, texts_of([result])) == (
        True,
        ["Delegation to @team/a needs a non-empty string `query`."],
    )


def test_a_bad_delegation_does_not_keep_its_neighbour_from_starting() -> None:
    run = opened(*TEAM)
    run.say("", call("a"), call("b", query="go"))
    assert [one.index for one in run.delegated()] == [1]
    assert [one.tool_name for one in run.last(StopRunByDelegate).checkpoint.delegate_to or ()] == ["b"]
    run.back(1)
    assert [result.is_error for result in run.last_results()] == [True, None]


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (failed("stoppedByError", "invalid x-api-key"), "invalid x-api-key"),
        (failed("stoppedByExceededMaxSteps"), "it reached the step limit before it was done."),
        (failed("stoppedByCancellation"), "it was cancelled."),
    ],
)
def test_a_delegates_failure_is_text_for_its_parent(result: RunResult, reason: str) -> None:
    run = opened(*TEAM)
    run.say("", call("a", query="go"))
    assert run.back(0, result) == RESUMED
    (answer,) = run.last_results()
    assert (answer.is_error, texts_of([answer])) == (True, [f"Delegation to @team/a failed: {reason}"])
    assert run.last(ResumeFromStop).step_number == 5


def test_usage_of_a_run_is_its_own_and_that_of_every_finished_delegate() -> None:
    run = opened(*TEAM)
    run.say("", call("a", query="1"), call("b", query="2"))
    child = Usage(input_tokens=100, output_tokens=7, total_tokens=107, cached_input_tokens=50, reasoning_tokens=3)
    run.back(0, child_result(usage=child))
    run.back(1, failed("stoppedByError", "broke"))
    assert run.state.checkpoint.usage == USAGE + child + USAGE
    run.say("done")
    event = run.last(CompleteRun)
    assert event.checkpoint.usage == USAGE + child + USAGE + USAGE
    assert event.step.usage == USAGE


def test_the_step_after_delegates_that_never_ran_follows_the_parents() -> None:
    run = opened(*TEAM)
    run.say("")
    run.say("", call("a", query="1"))
    run.back(0, failed("stoppedByError", "could not start", last_step=2))
    assert run.last(ResumeFromStop).step_number == 3


def test_the_limit_holds_over_all_segments_of_a_run() -> None:
    run = opened(*TEAM, limits=Limits(max_steps=2))
    run.say("", call("a", query="1"))
    run.back(0, child_result(last_step=50))
    run.say("", call("a", query="2"))
    assert run.back(0, child_result(last_step=90)) == [
        "resumeFromStop",
        "finishAllToolCalls",
        "stopRunByExceededMaxSteps",
    ]
    assert run.last(StopRunByExceededMaxSteps).step_number == 91


def test_each_segment_has_a_run_id_derived_from_the_first() -> None:
    run = opened(*TEAM)
    for _ in range(2):
        run.say("", call("a", query="1"))
        run.back(0)
    run.say("done")
    ids = [event.run_id for event in run.all(ResumeFromStop)]
    assert ids == [segment_run_id("job-run", 1), segment_run_id("job-run", 2)]
    assert run.effect(Finish).result.run_id == ids[-1]
    assert len({event.id for event in run.events}) == len(run.events)


def test_a_delegate_cannot_ask_a_person() -> None:
    play = Play({"team": [say("", call("a", query="go")), say("T")], "@team/a": [say("", call("askUser"))]})
    play.specs = (*play.specs, interactive_tool())
    result = play.run(run_input(*TEAM))
    assert result is not None
    child = next(run for run in play.runs if run.parent)
    messages = child.state.checkpoint.messages
    assert texts_of(messages[3].contents) == ["askUser asks a person, which only the coordinator of a job may do."]
    assert (result.status, child.state.checkpoint.status) == ("completed", "completed")


def test_a_chain_of_three_goes_down_and_comes_back_one_by_one() -> None:
    play = Play(
        {
            "top": [say("", call("mid", query="q")), say("T")],
            "@top/mid": [say("", call("low", query="q")), say("", complete("M"))],
            "@top/low": [say("L")],
        }
    )
    result = play.run(run_input(*CHAIN))
    assert result is not None
    assert (result.text, result.last_step) == ("T", 7)
    top, mid, low = play.runs
    assert [steps(run) for run in (top, mid, low)] == [[1, 6, 7], [2, 4, 5], [3]]
    assert control_flow(play) == [
        ("top", "startRun"),
        ("top", "callDelegate"),
        ("top", "stopRunByDelegate"),
        ("@top/mid", "startRun"),
        ("@top/mid", "callDelegate"),
        ("@top/mid", "stopRunByDelegate"),
        ("@top/low", "startRun"),
        ("@top/low", "completeRun"),
        ("@top/mid", "resumeFromStop"),
        ("@top/mid", "completeRun"),
        ("top", "resumeFromStop"),
        ("top", "completeRun"),
    ]
    assert low.state.checkpoint.usage == USAGE
    assert mid.state.checkpoint.usage == USAGE + USAGE + USAGE
    assert result.usage == USAGE + USAGE + USAGE + USAGE + USAGE


def steps(run: PlayedRun) -> list[int]:
    return sorted({event.step_number for event in run.events if isinstance(event, RunBase)})


def test_parallel_delegates_overlap_in_their_steps() -> None:
    play = Play(
        {
            "team": [say("", call("a", query="1"), call("b", query="2")), say("T")],
            "@team/a": [say("", call("exec")), say("", call("exec")), say("A")],
            "@team/b": [say("B")],
        }
    )
    play.run(run_input(*TEAM))
    assert [steps(run) for run in play.runs] == [[1, 5, 6], [2, 3, 4], [2]]
    assert play.root.state.start.run_id not in {run.start.run_id for run in play.runs[1:]}


def test_a_delegate_that_waits_for_its_own_delegates_is_still_awaited() -> None:
    run = opened(*TEAM)
    run.say("", call("a", query="1"), call("b", query="2"))
    run.back(0)
    assert (run.state.state, run.state.running) == (State.CALLING_DELEGATES, (1,))
