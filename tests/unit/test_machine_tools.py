"""The MCP calls of a step: waves, results, completion, losses, and what tools change in the run."""

import pytest
from perstack.core.effects import CallTools, Generate
from perstack.core.events import (
    CallTools as CallToolsEvent,
)
from perstack.core.events import (
    CompleteRun,
    FinishToolCall,
    ResolveToolResults,
    StopRunByError,
)
from perstack.core.expert import McpStdioSkill
from perstack.core.failures import Failure
from perstack.core.messages import ExpertMessage, ToolCallPart, ToolMessage
from perstack.core.state import State
from perstack.core.tools import (
    AddDelegate,
    AddExperts,
    AddSkill,
    RemoveDelegate,
    RemoveSkill,
    StateChange,
    ToolOutcome,
    ToolResult,
    ToolSpec,
    text_outcome,
)
from perstack.core.triggers import SessionFailed, ToolFailed, ToolLost
from perstack.core.usage import NO_USAGE
from support.scenarios import (
    OBJECT,
    HandRun,
    base_tools,
    call,
    complete,
    expert,
    interactive_tool,
    opened,
    texts_of,
)

DONE = ["resolveToolResults", "finishToolCall", "continueToNextStep", "startGeneration"]
OPEN_TODOS = '{"remainingTodos":[{"id":0,"title":"test","completed":false}]}'
ERROR = text_outcome('{"error":"no such file"}', is_error=True)


def started(run: HandRun) -> list[str]:
    """Tools that the last trigger started, in call order."""
    planned = [one for effect in run.effects if isinstance(effect, CallTools) for one in effect.calls]
    return [one.call.tool_name for one in sorted(planned, key=lambda one: one.index)]


def tool_message(run: HandRun) -> ToolMessage:
    message = run.state.checkpoint.messages[-1]
    assert isinstance(message, ToolMessage)
    return message


def left_over(stop: StopRunByError) -> tuple[ToolResult, ...]:
    assert stop.checkpoint.partial_tool_results is not None
    return stop.checkpoint.partial_tool_results


def changing(change: StateChange, text: str = "{}") -> ToolOutcome:
    return text_outcome(text).model_copy(update={"change": change})


def test_calls_run_in_parallel_and_are_answered_in_call_order() -> None:
    run = opened()
    assert run.say("", call("readTextFile", "c1", path="a"), call("exec", "c2")) == ["callTools"]
    event = run.last(CallToolsEvent)
    assert [(one.id, one.skill_name, one.tool_name, one.args) for one in event.tool_calls] == [
        ("c1", "@perstack/base", "readTextFile", {"path": "a"}),
        ("c2", "@perstack/base", "exec", {}),
    ]
    assert event.new_message == run.state.checkpoint.messages[-1]
    assert started(run) == ["readTextFile", "exec"]
    assert run.effect(CallTools).position == run.state.position
    assert run.finish(1, "second") == []
    assert run.finish(0, "first") == DONE
    assert [result.id for result in run.last(ResolveToolResults).tool_results] == ["c1", "c2"]
    (message,) = run.last(FinishToolCall).new_messages
    assert message == tool_message(run)
    assert texts_of(tool_message(run).contents) == ["first", "second"]


def test_todo_and_completion_wait_for_the_others_and_run_one_after_another() -> None:
    run = opened(specs=base_tools("exec", "readTextFile", "todo", "clearTodo", "attemptCompletion"))
    run.say("", call("todo"), call("exec"), complete("r"), call("clearTodo"), call("readTextFile"))
    waves = [started(run)]
    for index in (1, 4, 0, 2):
        run.finish(index, OPEN_TODOS if index == 2 else "ok")
        waves.append(started(run))
    assert waves == [["exec", "readTextFile"], [], ["todo"], ["attemptCompletion"], ["clearTodo"]]
    assert run.finish(3) == DONE


def test_a_tool_of_another_skill_named_todo_does_not_wait() -> None:
    own = ToolSpec(name="todo", skill_name="notes", input_schema=OBJECT)
    run = opened(specs=(*base_tools("exec"), own))
    run.say("", call("todo"), call("exec"))
    assert started(run) == ["todo", "exec"]


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("", "yes", "yes"),
        ("I am done.", None, "I am done."),
        ("I am done.", "yes", "yes"),
        ("I am done.", "  ", "I am done."),
        ("", None, ""),
    ],
)
def test_a_completion_alone_completes_the_run(text: str, given: str | None, expected: str) -> None:
    run = opened()
    run.say(text, complete(given))
    assert run.finish(0, "{}") == ["completeRun"]
    event = run.last(CompleteRun)
    assert (event.text, event.usage) == (expected, NO_USAGE)
    messages = event.checkpoint.messages
    if expected:
        said = messages[-1]
        assert isinstance(said, ExpertMessage)
        assert said.text == expected
        messages = messages[:-1]
    assert isinstance(messages[-1], ToolMessage)
    assert event.step.new_messages == event.checkpoint.messages[2:]


def test_a_completion_without_words_takes_the_last_words_said_before() -> None:
    run = opened()
    run.say("The answer is 4.", call("exec"))
    run.finish(0)
    run.say(" ", complete())
    run.finish(0, "{}")
    assert run.last(CompleteRun).text == "The answer is 4."


def test_a_completion_with_neighbours_shows_all_results_first() -> None:
    run = opened()
    run.say("", call("exec"), complete("r"))
    run.finish(0)
    assert run.finish(1, "{}") == ["resolveToolResults", "completeRun"]
    assert len(run.last(ResolveToolResults).tool_results) == 2
    assert len(run.last(CompleteRun).step.tool_results or ()) == 2


def test_a_neighbours_error_does_not_stop_the_completion() -> None:
    run = opened()
    run.say("", call("exec"), call("unknown"), complete("r"))
    run.finish(0, ERROR)
    assert run.finish(2, "{}") == ["resolveToolResults", "completeRun"]


def test_open_todos_keep_the_run_going() -> None:
    run = opened()
    run.say("", complete("r"))
    assert run.finish(0, OPEN_TODOS) == DONE
    assert texts_of(tool_message(run).contents) == [OPEN_TODOS]


def test_a_completion_that_failed_keeps_the_run_going() -> None:
    run = opened()
    run.say("", complete("r"))
    assert run.finish(0, ERROR) == DONE


@pytest.mark.parametrize("neighbour", [call("a", query="go"), call("askUser")])
def test_a_completion_beside_a_delegate_or_a_question_is_not_tried(neighbour: ToolCallPart) -> None:
    run = opened(expert("team", delegates=("@team/a",)), expert("@team/a"), specs=(*base_tools(), interactive_tool()))
    run.say("", complete("r"), neighbour)
    assert started(run) == []
    assert "other calls are open" in texts_of([run.state.results[0]])[0]
    assert run.state.results[0].is_error


def test_a_completion_beside_a_delegation_that_cannot_start_is_tried() -> None:
    run = opened(expert("team", delegates=("@team/a",)), expert("@team/a"))
    run.say("", complete("r"), call("a", query=""))
    assert started(run) == ["attemptCompletion"]
    assert run.finish(0, "{}") == ["resolveToolResults", "completeRun"]


def test_an_unknown_tool_is_answered_with_the_names_of_the_known_ones() -> None:
    run = opened(specs=base_tools("exec", "todo"))
    assert run.say("", call("fly")) == ["callTools", *DONE]
    assert run.last(CallToolsEvent).tool_calls[0].skill_name == ""
    (part,) = tool_message(run).contents
    assert part.is_error
    assert texts_of([part]) == ["There is no tool named 'fly'. The tools are: exec, todo."]
    assert [known.index for known in run.effect(Generate).appendix.results] == [0]


def test_one_call_id_twice_in_a_message_is_two_calls() -> None:
    run = opened()
    run.say("", call("exec", "same", n=1), call("exec", "same", n=2))
    run.finish(1, "two")
    run.finish(0, "one")
    assert [part.tool_call_id for part in tool_message(run).contents] == ["same", "same"]
    assert texts_of(tool_message(run).contents) == ["one", "two"]


def test_a_tool_that_broke_is_data_for_the_model() -> None:
    run = opened()
    run.say("", call("exec"))
    assert run.take(ToolFailed(0, Failure(name="activity.timeout", message="too long"))) == DONE
    (part,) = tool_message(run).contents
    assert part.is_error
    assert texts_of([part]) == ["Error calling tool exec: too long"]
    assert [known.index for known in run.effect(Generate).appendix.results] == [0]


def test_results_the_session_gave_itself_are_not_sent_back_to_it() -> None:
    run = opened()
    run.say("", call("exec"), call("unknown"), call("readTextFile"))
    run.finish(0)
    run.take(ToolFailed(2, Failure(name="x", message="broke")))
    known = run.effect(Generate).appendix.results
    assert [one.index for one in known] == [1, 2]
    assert texts_of(known) == texts_of(tool_message(run).contents[1:])


def test_a_repeatable_call_is_made_again_after_its_worker_was_lost() -> None:
    run = opened()
    run.say("", call("readTextFile"))
    asked = run.effect(CallTools)
    assert run.take(ToolLost(0, has_started=True)) == []
    assert run.effect(CallTools) == asked
    assert run.state.running == (0,)
    assert run.finish(0) == DONE


def test_a_call_with_effects_is_not_repeated_and_the_model_told_why() -> None:
    run = opened()
    run.say("", call("exec"))
    assert run.take(ToolLost(0, has_started=True)) == DONE
    (part,) = tool_message(run).contents
    assert part.is_error
    assert "Whether the call had an effect is unknown" in texts_of([part])[0]
    assert [known.index for known in run.effect(Generate).appendix.results] == [0]


def test_a_call_that_never_started_is_made_again_whatever_it_does() -> None:
    run = opened()
    run.say("", call("exec"))
    run.take(ToolLost(0, has_started=False))
    assert started(run) == ["exec"]
    assert run.finish(0) == DONE


@pytest.mark.parametrize("has_started", [True, False])
def test_three_losses_in_a_row_of_one_call_stop_the_run_so_that_it_can_go_on_later(has_started: bool) -> None:
    run = opened()
    run.say("", call("exec"), call("readTextFile"))
    run.finish(0, "kept")
    assert run.take(ToolLost(1, has_started)) == run.take(ToolLost(1, has_started)) == []
    assert run.take(ToolLost(1, has_started)) == ["stopRunByError"]
    event = run.last(StopRunByError)
    assert event.error.name == "worker.lost"
    kept, unanswered = left_over(event)
    assert texts_of([kept]) == ["kept"]
    assert unanswered.is_error


def test_a_call_given_up_waits_for_its_neighbours_and_then_stops_the_run() -> None:
    run = opened()
    run.say("", call("readTextFile"), call("exec"), call("todo"))
    for _ in range(3):
        assert run.take(ToolLost(0, has_started=True)) == []
    assert run.effects == ()
    assert run.finish(1, "kept") == ["stopRunByError"]
    assert texts_of(left_over(run.last(StopRunByError)))[1] == "kept"


def test_losses_of_parallel_calls_are_not_losses_in_a_row() -> None:
    run = opened()
    run.say("", *(call("readTextFile", f"c{n}") for n in range(4)))
    for index in range(4):
        assert run.take(ToolLost(index, has_started=True)) == []
        assert started(run) == ["readTextFile"]


def test_losses_of_an_earlier_step_are_forgotten() -> None:
    run = opened()
    for _ in range(3):
        run.say("", call("readTextFile"))
        run.take(ToolLost(0, has_started=True))
        run.take(ToolLost(0, has_started=True))
        assert run.finish(0) == DONE


def test_a_session_that_cannot_be_opened_again_amid_calls_stops_the_run_so_that_it_can_go_on_later() -> None:
    run = opened()
    run.say("", call("exec"), call("readTextFile"))
    run.finish(1, "kept")
    assert run.take(SessionFailed(Failure(name="worker.lost", message="gone"))) == ["stopRunByError"]
    unanswered, kept = left_over(run.last(StopRunByError))
    assert (unanswered.is_error, texts_of([kept])) == (True, ["kept"])


def test_changes_are_applied_in_call_order_and_count_from_the_next_generation() -> None:
    run = opened(expert("team", delegates=("@team/a",)), expert("@team/a"), specs=base_tools("exec"))
    fly = ToolSpec(name="fly", skill_name="wings", input_schema=OBJECT)
    run.say("", call("exec", "c1"), call("exec", "c2"), call("exec", "c3"), call("fly", "c4"))
    skill = McpStdioSkill(name="wings")
    run.finish(2, changing(AddSkill(skill=skill, tools=(fly,))))
    run.finish(1, changing(RemoveSkill(skill_name="wings")))
    run.finish(0, changing(AddSkill(skill=skill, tools=(fly, fly))))
    assert tool_message(run).contents[3].is_error
    assert [spec.name for spec in run.state.toolset.specs] == ["exec", "fly", "a"]
    run.say("", call("fly"))
    assert started(run) == ["fly"]


def test_a_delegate_removed_beside_its_own_call_still_gets_that_call() -> None:
    run = opened(expert("team", delegates=("@team/a",)), expert("@team/a"), specs=base_tools("exec"))
    run.say("", call("exec"), call("a", query="go"))
    run.finish(0, changing(RemoveDelegate(expert_key="@team/a")))
    run.back(1)
    results = run.last_results()
    assert [result.skill_name for result in results] == ["@perstack/base", "delegate/@team/a"]
    assert [spec.name for spec in run.state.toolset.specs] == ["exec"]


def test_a_question_whose_skill_is_removed_beside_it_is_still_asked() -> None:
    run = opened(specs=(*base_tools("exec"), interactive_tool()))
    run.say("", call("exec"), call("askUser"))
    run.finish(0, changing(RemoveSkill(skill_name="user-input")))
    assert run.state.state == State.CALLING_INTERACTIVE_TOOLS
    assert run.respond(1)[-1] == "startGeneration"
    assert [spec.name for spec in run.state.toolset.specs] == ["exec"]


def test_an_expert_defined_anew_beside_a_call_of_it_is_called_as_it_was() -> None:
    team, old = expert("team", delegates=("@team/a",)), expert("@team/a")
    new = old.model_copy(update={"instruction": "new"})
    run = opened(team, old, specs=base_tools("exec"))
    run.say("", call("exec"), call("a", query="go"))
    run.finish(0, changing(AddExperts(experts=(new,))))
    assert run.delegated()[0].child.expert.instruction == old.instruction
    run.back(1)
    run.say("", call("a", query="go"))
    assert run.delegated()[0].child.expert.instruction == "new"


def test_an_added_delegate_takes_along_what_it_can_reach_and_no_more() -> None:
    writer, helper, other = expert("@team/w", delegates=("@team/h",)), expert("@team/h"), expert("@team/x")
    run = opened(expert("team"), other, specs=base_tools("exec"))
    run.say("", call("exec"))
    run.finish(0, changing(AddDelegate(expert_key="@team/w", experts=(writer, helper))))
    run.say("", call("w", query="go"))
    assert set(run.delegated()[0].child.experts) == {"@team/w", "@team/h"}
