"""Every state a run can rest in × everything it can be told: a transition, or `IllegalTransition` and nothing else."""

from collections.abc import Callable
from typing import get_args

import pytest
from perstack.core.expert import Expert
from perstack.core.failures import Failure, IllegalTransition
from perstack.core.machine import advance, is_legal
from perstack.core.state import RunState, State
from perstack.core.tools import text_outcome
from perstack.core.triggers import (
    Answered,
    CancelRequested,
    DelegateFinished,
    Generated,
    GenerationFailed,
    GenerationLost,
    SessionFailed,
    SessionOpened,
    Started,
    ToolFailed,
    ToolFinished,
    ToolLost,
    Trigger,
)
from perstack.core.turn import Transition
from support.scenarios import (
    HandRun,
    base_tools,
    call,
    child_result,
    complete,
    expert,
    interactive_tool,
    run_input,
    say,
    session_report,
)

SPECS = (*base_tools(), interactive_tool())
BROKEN = Failure(name="broken", message="broken")
TRIGGERS: tuple[Trigger, ...] = (
    Started(),
    SessionOpened(session_report(SPECS)),
    SessionFailed(BROKEN),
    Generated(say("done")),
    Generated(say("", call("exec"), call("a", query="go"), call("askUser"), complete())),
    Generated(say("")),
    Generated(say("cut", call("exec"), finish="length")),
    Generated(say("", finish="refusal")),
    Generated(say("", finish="cancelled")),
    GenerationFailed(BROKEN),
    GenerationLost(),
    *(ToolFinished(index, text_outcome("{}")) for index in range(-1, 4)),
    *(ToolFailed(index, BROKEN) for index in range(-1, 4)),
    *(ToolLost(index, has_started) for index in range(-1, 4) for has_started in (True, False)),
    *(DelegateFinished(index, child_result()) for index in range(-1, 4)),
    *(Answered(index, "yes") for index in range(-1, 4)),
    CancelRequested(),
)


def begun() -> HandRun:
    return HandRun(run_input(*team()), SPECS)


def team() -> tuple[Expert, Expert]:
    return (expert("team", delegates=("@team/a",)), expert("@team/a"))


def opening() -> HandRun:
    run = begun()
    run.take(Started())
    return run


def generating() -> HandRun:
    return begun().open()


def calling() -> HandRun:
    run = generating()
    run.say("", call("exec"), call("readTextFile"), call("a", query="go"), call("askUser"))
    run.finish(1)
    return run


def completing() -> HandRun:
    run = generating()
    run.say("", complete("r"))
    return run


def delegating() -> HandRun:
    run = calling()
    run.finish(0)
    return run


def asking() -> HandRun:
    run = delegating()
    run.back(2)
    return run


def resumed() -> HandRun:
    run = asking()
    run.respond(3)
    return run


def ended(by: Callable[[HandRun], object]) -> Callable[[], HandRun]:
    def build() -> HandRun:
        run = generating()
        by(run)
        return run

    return build


def cancelling(build: Callable[[], HandRun]) -> Callable[[], HandRun]:
    def cancelled() -> HandRun:
        run = build()
        run.cancel()
        return run

    return cancelled


WORK = {"Generated", "GenerationFailed", "GenerationLost", "SessionFailed", "CancelRequested"}
TOOLS = {"ToolFinished", "ToolFailed", "ToolLost", "SessionFailed", "CancelRequested"}
SITUATIONS: dict[str, tuple[Callable[[], HandRun], set[str]]] = {
    "begun": (begun, {"Started"}),
    "opening": (opening, {"SessionOpened", "SessionFailed", "CancelRequested"}),
    "generating": (generating, WORK),
    "calling": (calling, TOOLS),
    "completing": (completing, TOOLS),
    "delegating": (delegating, {"DelegateFinished", "CancelRequested"}),
    "asking": (asking, {"Answered", "CancelRequested"}),
    "resumed": (resumed, WORK),
    "opening, cancelling": (cancelling(opening), {"SessionOpened", "SessionFailed", "CancelRequested"}),
    "generating, cancelling": (cancelling(generating), WORK),
    "calling, cancelling": (cancelling(calling), TOOLS),
    "delegating, cancelling": (cancelling(delegating), {"DelegateFinished", "CancelRequested"}),
    "asking, cancelled": (cancelling(asking), set()),
    "completed": (ended(lambda run: run.say("done")), set()),
    "failed": (ended(lambda run: run.fail(BROKEN)), set()),
    "stopped by a cancel": (ended(lambda run: run.say("", finish="cancelled")), set()),
}
EVERY = pytest.mark.parametrize(("build", "legal"), SITUATIONS.values(), ids=SITUATIONS.keys())


def test_the_situations_rest_in_every_state_a_run_can_rest_in() -> None:
    resting = {build().state.state for build, _ in SITUATIONS.values()}
    passing = {
        State.PREPARING_FOR_STEP,
        State.RESUMING_FROM_STOP,
        State.RESOLVING_TOOL_RESULT,
        State.FINISHING_STEP,
    }
    assert resting | passing == set(State)
    assert not resting & passing


def test_the_triggers_are_of_every_kind() -> None:
    assert {type(trigger) for trigger in TRIGGERS} == set(get_args(Trigger))


@pytest.mark.requirement("runtime.states")
@EVERY
def test_a_trigger_makes_a_transition_or_is_illegal(build: Callable[[], HandRun], legal: set[str]) -> None:
    state = build().state
    for trigger in TRIGGERS:
        if is_legal(state, trigger):
            transition = advance(state, trigger)
            assert isinstance(transition, Transition)
            follow_up(transition.state)
        else:
            with pytest.raises(IllegalTransition):
                advance(state, trigger)


def follow_up(state: RunState) -> None:
    """What a legal trigger leads to is a state of the same kind: a second trigger behaves too."""
    for trigger in TRIGGERS:
        if is_legal(state, trigger):
            assert isinstance(advance(state, trigger), Transition)


@EVERY
def test_a_situation_takes_exactly_these_kinds_of_triggers(build: Callable[[], HandRun], legal: set[str]) -> None:
    state = build().state
    assert {type(trigger).__name__ for trigger in TRIGGERS if is_legal(state, trigger)} == legal


@EVERY
def test_an_answer_is_taken_only_for_what_is_open(build: Callable[[], HandRun], legal: set[str]) -> None:
    state = build().state
    taken = {
        trigger.index
        for trigger in TRIGGERS
        if isinstance(trigger, (ToolFinished, ToolFailed, ToolLost, DelegateFinished, Answered))
        and is_legal(state, trigger)
    }
    assert taken == set(state.running)


@EVERY
def test_advancing_leaves_the_state_it_came_from_as_it_was(build: Callable[[], HandRun], legal: set[str]) -> None:
    state = build().state
    before = state.model_dump_json()
    for trigger in TRIGGERS:
        if is_legal(state, trigger):
            assert advance(state, trigger) == advance(state, trigger)
    assert state.model_dump_json() == before


def test_an_illegal_transition_names_the_trigger_and_the_state() -> None:
    with pytest.raises(IllegalTransition, match="Answered in state GeneratingToolCall"):
        advance(generating().state, Answered(0, "yes"))
