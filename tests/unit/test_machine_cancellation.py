"""Cancelling: in every state, with answers that still come, and with all that can be resumed later kept."""

import pytest
from perstack.core.effects import CallTools, Delegate, Finish, Generate
from perstack.core.events import ContinueToNextStep, StopRunByCancellation, StopRunByDelegate, StopRunByInteractiveTool
from perstack.core.failures import Failure
from perstack.core.run import RunResult
from perstack.core.state import State
from perstack.core.triggers import (
    Generated,
    GenerationFailed,
    GenerationLost,
    SessionFailed,
    SessionOpened,
    Started,
    ToolFailed,
    ToolLost,
    Trigger,
)
from perstack.core.usage import NO_USAGE
from support.play import Play
from support.scenarios import (
    OVERLOADED,
    USAGE,
    HandRun,
    base_tools,
    call,
    child_result,
    complete,
    expert,
    interactive_tool,
    opened,
    run_input,
    say,
    session_report,
    texts_of,
)

TEAM = (expert("team", delegates=("@team/a", "@team/b")), expert("@team/a"), expert("@team/b"))
CANCELLED = ["stopRunByCancellation"]
CANCELLED_CHILD = RunResult(
    status="stoppedByCancellation", expert_key="@team/a", run_id="", checkpoint_id="", last_step=1
)


def opening() -> HandRun:
    run = HandRun(run_input(expert("team")))
    run.take(Started())
    return run


def test_a_run_cancelled_while_its_session_opens_starts_and_stops() -> None:
    run = opening()
    assert run.cancel() == []
    assert run.take(SessionOpened(session_report(base_tools()))) == ["startRun", *CANCELLED]
    assert run.effect(Finish).result.status == "stoppedByCancellation"


def test_a_run_whose_opening_was_cancelled_starts_and_stops() -> None:
    run = opening()
    run.cancel()
    assert run.take(SessionFailed(Failure(name="cancelled", message=""))) == ["startRun", *CANCELLED]
    assert run.state.checkpoint.error is None


@pytest.mark.parametrize(
    ("late", "used"),
    [
        (Generated(say("", finish="cancelled", usage=USAGE)), 1),
        (Generated(say("done")), 1),
        (Generated(say("", call("exec"))), 1),
        (Generated(say("")), 1),
        (GenerationFailed(OVERLOADED, usage=USAGE), 1),
        (GenerationLost(), 0),
        (SessionFailed(OVERLOADED), 0),
    ],
)
def test_a_cancelled_model_call_stops_the_run_whatever_still_comes_of_it(late: Trigger, used: int) -> None:
    run = opened()
    before = run.state.checkpoint.messages
    assert run.cancel() == []
    assert run.take(late) == CANCELLED
    event = run.last(StopRunByCancellation)
    assert (event.checkpoint.status, event.checkpoint.messages) == ("stoppedByCancellation", before)
    assert event.checkpoint.usage == (USAGE if used else NO_USAGE) == event.step.usage
    assert run.effect(Finish).result.status == "stoppedByCancellation"


def test_failed_attempts_before_a_cancelled_answer_are_still_shown_and_counted() -> None:
    run = opened()
    run.cancel()
    assert run.say("", finish="cancelled", usage=NO_USAGE, attempts=2) == ["retry", "retry", *CANCELLED]
    assert run.state.checkpoint.usage.input_tokens == 2


def test_an_answer_that_says_it_was_cancelled_ends_the_run_even_if_nobody_told_us() -> None:
    assert opened().say("", finish="cancelled") == CANCELLED


def test_a_run_cancelled_amid_its_calls_waits_for_each_and_keeps_their_results() -> None:
    run = opened(*TEAM, specs=(*base_tools(), interactive_tool()))
    run.say("", call("exec"), call("readTextFile"), call("todo"), call("a", query="x"), call("askUser"))
    assert run.finish(1, "read") == []
    assert run.cancel() == []
    assert run.take(ToolLost(0, has_started=False)) == CANCELLED
    checkpoint = run.last(StopRunByCancellation).checkpoint
    assert texts_of(checkpoint.partial_tool_results) == [
        "exec was cancelled.",
        "read",
        "The run was cancelled.",
        "The run was cancelled.",
        "The run was cancelled.",
    ]
    assert checkpoint.pending_tool_calls is None
    assert run.state.step.step_number == 1


@pytest.mark.parametrize("late", [ToolLost(0, has_started=True), ToolFailed(0, OVERLOADED)])
def test_a_cancelled_call_is_never_made_again(late: Trigger) -> None:
    run = opened()
    run.say("", call("readTextFile"))
    run.cancel()
    assert run.take(late) == CANCELLED
    assert not [effect for effect in run.effects if isinstance(effect, CallTools)]


def test_a_completion_that_comes_after_the_cancel_does_not_complete_the_run() -> None:
    run = opened()
    run.say("", complete("r"))
    run.cancel()
    assert run.finish(0, "{}") == CANCELLED


def test_a_cancel_between_the_waves_starts_no_further_call() -> None:
    run = opened()
    run.say("", call("exec"), call("todo"))
    run.cancel()
    run.finish(0)
    assert [type(effect) for effect in run.effects] == [Finish]


def test_a_run_cancelled_while_delegates_work_waits_for_all_of_them() -> None:
    run = opened(*TEAM)
    run.say("", call("exec", "m"), call("a", "d1", query="1"), call("b", "d2", query="2"))
    run.finish(0, "M")
    stop = run.last(StopRunByDelegate)
    assert run.cancel() == []
    assert run.back(2, child_result("@team/b", text="B")) == []
    assert run.back(1, CANCELLED_CHILD) == CANCELLED
    event = run.last(StopRunByCancellation)
    assert (event.run_id, event.step_number) == (stop.run_id, stop.step_number)
    assert event.checkpoint.id != stop.checkpoint.id
    assert event.checkpoint.delegate_to == stop.checkpoint.delegate_to
    assert texts_of(event.checkpoint.partial_tool_results) == ["M", "B"]
    assert event.checkpoint.usage == USAGE + USAGE


def test_a_delegate_cancelled_by_itself_is_a_failure_and_the_parent_goes_on() -> None:
    run = opened(*TEAM)
    run.say("", call("a", query="1"))
    assert run.back(0, CANCELLED_CHILD)[-1] == "startGeneration"


def test_the_last_delegate_back_after_the_cancel_opens_no_segment() -> None:
    run = opened(*TEAM)
    run.say("", call("a", query="1"))
    run.cancel()
    assert run.back(0) == CANCELLED
    assert run.state.segment == 0
    assert texts_of(run.last(StopRunByCancellation).checkpoint.partial_tool_results) == ["child's text"]


def test_a_run_cancelled_while_a_person_is_asked_stops_at_once_and_keeps_the_question() -> None:
    run = opened(*TEAM, specs=(*base_tools(), interactive_tool()))
    run.say("", call("askUser", "q1"), call("askUser", "q2"), call("exec", "m"))
    run.finish(0, "M")
    run.respond(1, "one")
    stop = run.last(StopRunByInteractiveTool)
    assert run.cancel() == CANCELLED
    event = run.last(StopRunByCancellation)
    assert (event.run_id, event.step_number) == (stop.run_id, stop.step_number)
    assert event.checkpoint.id not in {stop.checkpoint.id, event.checkpoint.run_id}
    assert [one.id for one in event.checkpoint.pending_tool_calls or ()] == ["q2"]
    assert texts_of(event.checkpoint.partial_tool_results) == ["M", "one"]


def test_a_second_cancel_changes_nothing() -> None:
    run = opened()
    run.cancel()
    state = run.state
    assert run.cancel() == []
    assert run.state == state


def test_a_cancel_of_the_root_reaches_every_level_and_each_run_says_so_once() -> None:
    experts = (
        expert("team", delegates=("@team/a", "@team/b")),
        expert("@team/a", delegates=("@team/b",)),
        expert("@team/b"),
    )
    play = Play(
        {
            "team": [say("", call("a", query="1"), call("b", query="2"))],
            "@team/a": [say("", call("b", query="3"))],
            "@team/b": [say("", call("exec"))],
        },
        cancel_when=lambda play: play.types[-1:] == ["callTools"] and len(play.runs) == 4,
    )
    result = play.run(run_input(*experts))
    assert result is not None
    assert [run.state.checkpoint.status for run in play.runs] == ["stoppedByCancellation"] * 4
    assert play.types.count("stopRunByCancellation") == 4
    assert play.types.count("resumeFromStop") == 0
    assert {run.state.state for run in play.runs} == {State.STOPPED}


def test_no_effect_is_asked_for_after_a_cancel() -> None:
    run = opened(*TEAM)
    run.say("")
    assert run.last(ContinueToNextStep).step_number == 1
    run.cancel()
    run.say("", call("a", query="1"))
    assert not [effect for effect in run.effects if isinstance(effect, (Generate, Delegate, CallTools))]
