"""Times: the machine has none, so the fold puts them on from the history events it reads."""

import pytest
from perstack.core.events import (
    CompleteRun,
    ContinueToNextStep,
    Retry,
    RunBase,
    StopRunByCancellation,
    StopRunByInteractiveTool,
)
from perstack.core.failures import IllegalTransition
from perstack.core.fold import Fold
from perstack.core.machine import retries_so_far
from perstack.core.tools import text_outcome
from perstack.core.triggers import (
    Answered,
    CancelRequested,
    Generated,
    SessionOpened,
    Started,
    ToolFinished,
    Trigger,
)
from support.scenarios import base_tools, call, expert, interactive_tool, run_input, say, session_report

SPECS = (*base_tools(), interactive_tool())


def folded(*triggers: Trigger) -> tuple[Fold, list[RunBase]]:
    """The run and streaming events of triggers that came at 10, 20, 30 …"""
    fold = Fold(run_input(expert("team")))
    events = [event for at, trigger in enumerate(triggers, 1) for event in fold.feed(trigger, at * 10)]
    return fold, [event for event in events if isinstance(event, RunBase)]


OPENED = (Started(), SessionOpened(session_report(SPECS)))


def test_an_event_has_the_time_of_what_made_it() -> None:
    _, events = folded(*OPENED, Generated(say("done")))
    assert [(event.type, event.timestamp) for event in events] == [
        ("startRun", 20),
        ("startGeneration", 20),
        ("completeStreamingRunResult", 30),
        ("completeRun", 30),
    ]


def test_a_step_has_the_times_of_its_first_and_its_last_event() -> None:
    exec_done = ToolFinished(0, text_outcome("{}"))
    _, events = folded(*OPENED, Generated(say("", call("exec"))), exec_done, Generated(say("done")))
    steps = [event.step for event in events if isinstance(event, (ContinueToNextStep, CompleteRun))]
    assert [(step.started_at, step.finished_at) for step in steps] == [(20, 40), (40, 50)]


def test_a_resumed_segment_starts_its_step_when_it_resumes() -> None:
    _, events = folded(*OPENED, Generated(say("", call("askUser"))), Answered(0, "yes"), CancelRequested())
    steps = [event.step for event in events if isinstance(event, (StopRunByInteractiveTool, ContinueToNextStep))]
    assert [(step.started_at, step.finished_at) for step in steps] == [(20, 30), (40, 40)]


def test_a_stop_that_is_cancelled_later_is_still_the_step_that_began_then() -> None:
    _, events = folded(*OPENED, Generated(say("", call("askUser"))), CancelRequested())
    (stop,) = [event for event in events if isinstance(event, StopRunByCancellation)]
    assert (stop.step.started_at, stop.step.finished_at, stop.timestamp) == (20, 40, 40)


def test_a_failed_attempt_has_the_time_it_failed() -> None:
    _, events = folded(*OPENED, Generated(say("done", attempts=2)))
    assert [event.timestamp for event in events if isinstance(event, Retry)] == [900, 901]


def test_a_failed_attempt_is_the_same_event_before_and_after_the_answer() -> None:
    fold, _ = folded(*OPENED)
    answer = say("done", attempts=2)
    before = [retries_so_far(fold.state, answer.attempts[:count]) for count in (1, 2)]
    after = [event for event in fold.feed(Generated(answer), 30) if isinstance(event, Retry)]
    assert before == [tuple(after[:1]), tuple(after)]


def test_a_history_of_another_machine_is_refused() -> None:
    with pytest.raises(IllegalTransition):
        folded(Started(), Answered(0, "yes"))
