"""Questions to people: stopping for them, answering them one by one, and steps that mix all classes of calls."""

import pytest
from perstack.core.effects import AskPerson, CallTools, Generate
from perstack.core.events import (
    CallInteractiveTool,
    FinishAllToolCalls,
    InitializeRuntime,
    ProceedToInteractiveTools,
    ResumeFromStop,
    ResumeToolCalls,
    SkipDelegates,
    StopRunByDelegate,
    StopRunByExceededMaxSteps,
    StopRunByInteractiveTool,
)
from perstack.core.events import (
    CallTools as CallToolsEvent,
)
from perstack.core.ids import segment_run_id
from perstack.core.messages import ExpertMessage
from perstack.core.run import Limits
from perstack.core.state import State
from support.scenarios import (
    USAGE,
    base_tools,
    call,
    child_result,
    expert,
    interactive_tool,
    opened,
    texts_of,
)

SPECS = (*base_tools(), interactive_tool())
MIXED = (expert("team", delegates=("@team/a",)), expert("@team/a"))
ASKED_AGAIN = [
    "resumeFromStop",
    "resumeToolCalls",
    "proceedToInteractiveTools",
    "callInteractiveTool",
    "stopRunByInteractiveTool",
]
RESUMED = ["resumeFromStop", "finishAllToolCalls", "continueToNextStep", "startGeneration"]


def test_a_question_stops_the_run() -> None:
    run = opened(specs=SPECS)
    assert run.say("", call("askUser", "c1", question="ok?")) == [
        "callTools",
        "finishMcpTools",
        "skipDelegates",
        "callInteractiveTool",
        "stopRunByInteractiveTool",
    ]
    asked = run.last(CallInteractiveTool)
    assert (asked.tool_call.id, asked.tool_call.skill_name, asked.usage) == ("c1", "user-input", USAGE)
    assert run.last(SkipDelegates).pending_tool_calls == (asked.tool_call,)
    checkpoint = run.last(StopRunByInteractiveTool).checkpoint
    assert checkpoint.status == "stoppedByInteractiveTool"
    assert (checkpoint.pending_tool_calls, checkpoint.partial_tool_results) == ((asked.tool_call,), ())
    assert [one.index for one in run.effect(AskPerson).calls] == [0]


def test_an_answer_opens_the_next_segment_and_step() -> None:
    run = opened(specs=SPECS)
    run.say("", call("askUser", "c1"))
    assert run.respond(0, "yes") == RESUMED
    resumed = run.last(ResumeFromStop)
    assert (resumed.run_id, resumed.step_number) == (segment_run_id("job-run", 1), 2)
    assert resumed.checkpoint.status == "stoppedByInteractiveTool"
    answered = run.last(InitializeRuntime).interactive_tool_call
    assert answered is not None
    assert (answered.tool_call_id, answered.tool_name, answered.skill_name, answered.text) == (
        "c1",
        "askUser",
        "user-input",
        "yes",
    )
    (message,) = run.last(FinishAllToolCalls).new_messages
    assert texts_of(message.contents) == ["yes"]
    assert run.effect(Generate).step_number == 3
    assert texts_of(run.effect(Generate).appendix.results) == ["yes"]


def test_each_answer_resolves_one_question_and_the_rest_stop_the_run_again() -> None:
    run = opened(specs=SPECS)
    run.say("", *(call("askUser", f"c{n}") for n in range(3)))
    assert [one.index for one in run.effect(AskPerson).calls] == [0, 1, 2]
    assert run.respond(1, "second") == ASKED_AGAIN
    assert run.last(CallInteractiveTool).tool_call.id == "c0"
    assert [one.id for one in run.last(ResumeToolCalls).pending_tool_calls] == ["c0", "c2"]
    assert texts_of(run.last(ProceedToInteractiveTools).partial_tool_results) == ["second"]
    assert [one.index for one in run.effect(AskPerson).calls] == [0, 2]
    assert run.respond(2, "third") == ASKED_AGAIN
    assert run.respond(0, "first") == RESUMED
    (message,) = run.last(FinishAllToolCalls).new_messages
    assert texts_of(message.contents) == ["first", "second", "third"]
    assert [event.step_number for event in run.all(ResumeFromStop)] == [2, 3, 4]


@pytest.mark.requirement("runtime.priority")
def test_all_three_classes_in_one_message_are_served_by_priority() -> None:
    run = opened(*MIXED, specs=SPECS)
    run.say("", call("askUser", "q"), call("a", "d", query="go"), call("exec", "m"))
    calls = run.last(CallToolsEvent).tool_calls
    assert [one.id for one in calls] == ["m", "d", "q"]
    assert [part.tool_call_id for part in run.last(CallToolsEvent).new_message.calls] == ["m", "d", "q"]
    assert [one.index for one in run.effect(CallTools).calls] == [0]
    assert run.finish(0, "M") == ["finishMcpTools", "callDelegate", "stopRunByDelegate"]
    stop = run.last(StopRunByDelegate)
    assert [one.id for one in stop.checkpoint.pending_tool_calls or ()] == ["q"]
    assert [one.id for one in stop.step.pending_tool_calls or ()] == ["d", "q"]
    assert run.back(1, child_result(text="D", last_step=4)) == ASKED_AGAIN
    checkpoint = run.last(StopRunByInteractiveTool).checkpoint
    assert isinstance(checkpoint.messages[-1], ExpertMessage)
    assert len(checkpoint.messages[-1].calls) == 3
    assert texts_of(checkpoint.partial_tool_results) == ["M", "D"]
    assert [one.id for one in checkpoint.pending_tool_calls or ()] == ["q"]
    assert checkpoint.delegate_to is None
    assert run.respond(2, "Q") == RESUMED
    assert texts_of(run.last_results()) == ["M", "D", "Q"]
    assert [event.step_number for event in run.all(ResumeFromStop)] == [5, 6]


def test_nothing_is_generated_between_two_answers() -> None:
    run = opened(specs=SPECS)
    run.say("", call("askUser", "c1"), call("askUser", "c2"))
    run.respond(0)
    assert run.state.generations == 1
    assert run.state.state == State.CALLING_INTERACTIVE_TOOLS


def test_the_limit_is_looked_at_when_the_answers_are_there() -> None:
    run = opened(specs=SPECS, limits=Limits(max_steps=1))
    run.say("", call("askUser"))
    assert run.respond(0) == ["resumeFromStop", "finishAllToolCalls", "stopRunByExceededMaxSteps"]
    assert run.last(StopRunByExceededMaxSteps).checkpoint.pending_tool_calls is None
