"""Opening, generating, retrying, finishing steps: what one run does apart from its tool calls."""

import json

import pytest
from perstack.core.conversation import Position
from perstack.core.effects import CallTools, Finish, Generate, OpenSession
from perstack.core.events import (
    CompleteRun,
    ContinueToNextStep,
    InitializeRuntime,
    Retry,
    SkillConnected,
    SkillDisconnected,
    StartGeneration,
    StartRun,
    StopRunByError,
    StopRunByExceededMaxSteps,
)
from perstack.core.failures import Attempt, Failure
from perstack.core.ids import cuid_from
from perstack.core.messages import ExpertMessage, ToolMessage, UserMessage
from perstack.core.run import Limits, SessionReport
from perstack.core.skills import SkillStart
from perstack.core.state import State
from perstack.core.triggers import Generated, GenerationLost, SessionFailed, SessionOpened, Started, ToolLost
from perstack.core.usage import NO_USAGE, Usage
from support.scenarios import (
    OVERLOADED,
    USAGE,
    HandRun,
    base_tools,
    call,
    expert,
    opened,
    run_input,
    say,
    session_report,
    texts_of,
    words_of,
)

REFUSED_KEY = Failure(name="provider.credentials", message="invalid x-api-key", status_code=401)


def test_a_run_starts_by_asking_for_its_session() -> None:
    run = HandRun(run_input(expert("team"), query="hi"))
    assert run.take(Started()) == []
    runtime = run.last(InitializeRuntime)
    assert (runtime.expert_name, runtime.experts, runtime.model, runtime.query) == (
        "team",
        ("team",),
        "test-model",
        "hi",
    )
    assert (runtime.max_steps, runtime.max_retries, runtime.timeout) == (100, 5, 300_000)
    assert run.effects == (OpenSession(),)
    assert run.state.state == State.INIT


def test_an_opened_session_starts_the_run_and_asks_for_an_answer() -> None:
    run = HandRun(run_input(expert("team"), query="hi"))
    run.take(Started())
    assert run.take(SessionOpened(session_report(base_tools()))) == ["startRun", "startGeneration"]
    start = run.last(StartRun)
    assert (start.initial_checkpoint.status, start.initial_checkpoint.messages) == ("init", ())
    instruction, user = start.input_messages
    assert (instruction.type, instruction.cache, user.type) == ("instructionMessage", True, "userMessage")
    assert words_of(start.input_messages) == ["instruction", "hi"]
    assert run.last(StartGeneration).messages == start.input_messages
    assert run.state.checkpoint.status == "proceeding"
    generate = run.effect(Generate)
    assert (generate.step_number, generate.ordinal, generate.position) == (1, 1, run.state.position)
    assert run.state.position.count == 2


def test_the_report_of_a_session_becomes_skill_events_and_run_state() -> None:
    skills = (
        SkillStart(
            name="web",
            command="npx",
            args=("-y", "server"),
            server_name="web-server",
            server_version="2",
            spawn_ms=1.0,
            handshake_ms=2.0,
            discovery_ms=4.0,
        ),
    )
    run = HandRun(run_input(expert("team")))
    run.take(Started())
    report = SessionReport(queue="q", workspace_id="ws", instruction="i", skill_tools=base_tools("exec"), skills=skills)
    run.take(SessionOpened(report))
    assert [event.type for event in run.events[1:3]] == ["skillStarting", "skillConnected"]
    connected = run.last(SkillConnected)
    assert connected.server_info == {"name": "web-server", "version": "2"}
    assert (connected.connect_duration_ms, connected.total_duration_ms) == (3.0, 7.0)
    assert [spec.name for spec in run.state.toolset.specs] == ["exec"]
    assert run.state.start.settings.workspace_id == "ws"
    run.say("done")
    assert run.last(SkillDisconnected).skill_name == "web"
    assert isinstance(run.events[-2], CompleteRun)


def test_a_session_that_never_opens_still_shows_a_run_that_started_and_failed() -> None:
    run = HandRun(run_input(expert("team"), query="hi"))
    run.take(Started())
    failure = Failure(name="skill.broken", message="no such program")
    assert run.take(SessionFailed(failure)) == ["startRun", "stopRunByError"]
    assert words_of(run.last(StartRun).input_messages) == ["hi"]
    result = run.effect(Finish).result
    assert (result.status, result.failure) == ("stoppedByError", failure)


def test_a_session_lost_while_the_model_answers_and_not_opened_again_fails_the_run() -> None:
    run = opened()
    assert run.take(SessionFailed(Failure(name="workspace.elsewhere", message="gone"))) == ["stopRunByError"]
    assert run.state.state == State.STOPPED


def test_a_text_answer_completes_the_run() -> None:
    run = opened()
    assert run.say("done") == ["completeStreamingRunResult", "completeRun"]
    event = run.last(CompleteRun)
    assert (event.text, event.usage, event.checkpoint.status) == ("done", USAGE, "completed")
    message = event.checkpoint.messages[-1]
    assert isinstance(message, ExpertMessage)
    assert message.text == "done"
    assert event.step.new_messages == (message,)
    result = run.effect(Finish).result
    assert (result.status, result.text, result.last_step, result.usage) == ("completed", "done", 1, USAGE)
    assert result.checkpoint_id == event.checkpoint.id


def test_reasoning_is_completed_before_the_text_and_both_before_what_they_lead_to() -> None:
    run = opened()
    assert run.say("working", call("exec"), thinking="hm") == [
        "completeStreamingReasoning",
        "completeStreamingRunResult",
        "callTools",
    ]


def test_an_empty_answer_is_told_to_the_model_and_consumes_a_step() -> None:
    run = opened()
    assert run.say("  \n") == ["completeStreamingRunResult", "retry", "continueToNextStep", "startGeneration"]
    event = run.last(Retry)
    reason = json.loads(event.reason)
    assert reason["error"] == "EmptyAnswer"
    assert (event.usage, event.tool_calls, event.tool_results) == (USAGE, None, None)
    (message,) = event.new_messages
    assert isinstance(message, UserMessage)
    assert words_of((message,)) == [event.reason]
    assert run.state.checkpoint.messages[-1] == message
    generate = run.effect(Generate)
    assert generate.appendix.messages == (message,)
    assert (generate.step_number, generate.ordinal) == (2, 2)


def test_mistakes_in_a_row_stop_the_run_once_the_retries_are_used_up() -> None:
    run = opened(limits=Limits(max_retries=2))
    assert run.say("")[0] == "retry"
    assert run.say("", call("exec"), finish="length")[0] == "retry"
    assert run.state.checkpoint.retry_count == 2
    assert run.say("") == ["stopRunByError"]
    error = run.last(StopRunByError).error
    assert error.name == "MaxRetriesExceeded"
    assert error.message.startswith("Max retries (2) exceeded: ")
    assert run.last(StopRunByError).checkpoint.error == error
    assert run.state.checkpoint.usage == USAGE + USAGE + USAGE


def test_without_retries_the_first_mistake_stops_the_run() -> None:
    assert opened(limits=Limits(max_retries=0)).say("") == ["stopRunByError"]


def test_a_good_answer_forgets_the_mistakes_before_it() -> None:
    run = opened(limits=Limits(max_retries=1))
    run.say("")
    run.say("", call("exec"))
    assert run.state.checkpoint.retry_count == 0
    run.finish(0)
    assert run.say("")[0] == "retry"


def test_a_text_cut_by_length_is_kept_and_the_model_told() -> None:
    run = opened()
    assert run.say("half a sen", finish="length") == [
        "completeStreamingRunResult",
        "retry",
        "continueToNextStep",
        "startGeneration",
    ]
    said, told = run.last(Retry).new_messages
    assert isinstance(said, ExpertMessage)
    assert said.text == "half a sen"
    assert isinstance(told, UserMessage)
    assert json.loads(run.last(Retry).reason)["error"] == "OutputCut"


def test_nothing_but_cut_reasoning_leaves_only_the_notice() -> None:
    run = opened()
    run.say("", thinking="a long thought", finish="length")
    assert [message.type for message in run.last(Retry).new_messages] == ["userMessage"]


def test_calls_cut_by_length_are_answered_with_the_error_and_not_run() -> None:
    run = opened()
    types = run.say("I read", call("readTextFile", "c1", path="a"), call("exec", "c2"), finish="length")
    assert types == ["completeStreamingRunResult", "retry", "continueToNextStep", "startGeneration"]
    event = run.last(Retry)
    said, answer = event.new_messages
    assert isinstance(said, ExpertMessage)
    assert [part.type for part in said.contents] == ["textPart", "toolCallPart"]
    assert [part.tool_call_id for part in said.calls] == ["c1"]
    assert isinstance(answer, ToolMessage)
    (part,) = answer.contents
    assert (part.tool_call_id, part.is_error) == ("c1", True)
    assert [call.id for call in event.tool_calls or ()] == ["c1"]
    assert [(result.id, result.is_error) for result in event.tool_results or ()] == [("c1", True)]
    assert texts_of(event.tool_results) == texts_of(answer.contents) == [event.reason]
    step = run.last(ContinueToNextStep).step
    assert (step.tool_calls, step.tool_results) == (event.tool_calls, event.tool_results)
    assert run.effect(Generate).appendix.messages == (said, answer)


@pytest.mark.parametrize(
    ("finish", "name"), [("refusal", "provider.content_refused"), ("other", "UnexpectedFinishReason")]
)
def test_an_answer_that_ended_in_another_way_stops_the_run(finish: str, name: str) -> None:
    run = opened()
    assert run.say("", call("exec"), finish=finish) == ["stopRunByError"]
    assert run.last(StopRunByError).error.name == name
    assert run.state.checkpoint.usage == USAGE


def test_failed_attempts_are_one_retry_event_each_and_no_step() -> None:
    run = opened()
    types = run.say("done", attempts=2)
    assert types == ["retry", "retry", "completeStreamingRunResult", "completeRun"]
    first, second = run.all(Retry)
    assert json.loads(first.reason) == {"error": "provider.overloaded", "message": "Overloaded."}
    assert first.new_messages == second.new_messages == ()
    assert first.step_number == second.step_number == run.last(CompleteRun).step_number == 1
    assert run.state.checkpoint.usage.input_tokens == 1 + 1 + USAGE.input_tokens
    assert run.last(CompleteRun).step.usage == run.state.checkpoint.usage
    assert run.state.checkpoint.retry_count == 0


def test_a_reason_is_readable_in_any_language() -> None:
    run = opened()
    overloaded = Attempt(failure=Failure(name="x", message="Überlastet …"))
    run.take(GenerationLost((overloaded,)))
    assert run.last(Retry).reason == '{"error": "x", "message": "Überlastet …"}'


def test_a_retryable_failure_that_used_up_its_attempts_says_so() -> None:
    run = opened(limits=Limits(max_retries=3))
    assert run.fail(OVERLOADED, attempts=3) == ["retry", "retry", "retry", "stopRunByError"]
    error = run.last(StopRunByError).error
    assert error.message == "Max retries (3) exceeded: Overloaded."
    assert (error.name, error.status_code, error.is_retryable) == ("provider.overloaded", 529, False)


def test_a_failure_that_is_not_retryable_is_reported_as_it_is() -> None:
    run = opened()
    assert run.fail(REFUSED_KEY, usage=USAGE) == ["stopRunByError"]
    event = run.last(StopRunByError)
    assert event.error == REFUSED_KEY == event.checkpoint.error
    assert event.checkpoint.status == "stoppedByError"
    result = run.effect(Finish).result
    assert (result.failure, result.usage) == (REFUSED_KEY, USAGE)


def test_a_lost_model_call_is_made_again_in_the_same_step() -> None:
    run = opened()
    asked = run.effect(Generate)
    assert run.take(GenerationLost((Attempt(failure=OVERLOADED, usage=USAGE),))) == ["retry"]
    assert run.effect(Generate) == asked
    assert run.state.checkpoint.usage == USAGE
    assert run.say("done")[-1] == "completeRun"
    assert run.last(CompleteRun).step_number == 1


def test_three_workers_lost_in_a_row_stop_the_run() -> None:
    run = opened()
    assert run.lose() == run.lose() == []
    assert run.lose() == ["stopRunByError"]
    assert run.last(StopRunByError).error.name == "worker.lost"


def test_losses_are_counted_for_one_call_only() -> None:
    run = opened()
    run.lose()
    run.lose()
    run.say("")
    assert run.lose() == run.lose() == []


def test_the_limit_counts_generations_whatever_they_came_to() -> None:
    run = opened(limits=Limits(max_steps=2))
    run.say("")
    run.say("", call("exec"))
    assert run.finish(0) == ["resolveToolResults", "finishToolCall", "stopRunByExceededMaxSteps"]
    event = run.last(StopRunByExceededMaxSteps)
    assert (event.checkpoint.status, event.step_number) == ("stoppedByExceededMaxSteps", 2)
    assert isinstance(event.checkpoint.messages[-1], ToolMessage)
    assert run.effect(Finish).result.failure is None


def test_completing_in_the_last_allowed_step_is_completing() -> None:
    assert opened(limits=Limits(max_steps=1)).say("done")[-1] == "completeRun"


@pytest.mark.requirement("runtime.checkpoints")
def test_each_step_has_a_checkpoint_of_its_own_fixed_when_the_step_begins() -> None:
    run = opened()
    run.say("")
    event = run.last(ContinueToNextStep)
    assert (event.checkpoint.step_number, event.next_checkpoint.step_number) == (1, 2)
    assert event.checkpoint.id == cuid_from("job-run", "checkpoint", 0)
    assert event.next_checkpoint.id == cuid_from("job-run", "checkpoint", 1)
    assert event.next_checkpoint.messages == event.checkpoint.messages
    run.say("done")
    assert run.last(CompleteRun).checkpoint.id == event.next_checkpoint.id


def test_a_step_holds_only_what_is_its_own() -> None:
    run = opened()
    run.say("", call("exec"))
    run.finish(0)
    first = run.last(ContinueToNextStep).step
    run.say("done")
    second = run.last(CompleteRun).step
    assert first.input_messages == run.last(StartRun).input_messages
    assert [message.type for message in first.new_messages] == ["expertMessage", "toolMessage"]
    assert (second.input_messages, second.tool_calls) == (None, None)
    assert [message.type for message in second.new_messages] == ["expertMessage"]
    assert (first.usage, second.usage) == (USAGE, USAGE)
    assert run.state.checkpoint.usage == USAGE + USAGE


def test_event_ids_count_through_the_run() -> None:
    run = opened()
    run.say("", call("exec"))
    run.finish(0)
    assert [event.id for event in run.events] == [cuid_from("job-run", "event", at) for at in range(len(run.events))]


def test_context_usage_is_that_of_the_last_prompt() -> None:
    run = opened()
    assert run.last(StartRun).initial_checkpoint.context_window_usage == 0.0
    run.say("", usage=Usage(input_tokens=300, cached_input_tokens=200, output_tokens=100, total_tokens=400))
    assert run.state.checkpoint.context_window_usage == 0.4
    run.answer(say("", usage=NO_USAGE))
    assert run.state.checkpoint.context_window_usage == 0.4


def test_an_unknown_context_window_is_left_out() -> None:
    model = expert("team").model.model_copy(update={"context_window": None})
    run = opened(expert("team").model_copy(update={"model": model}))
    run.say("done")
    assert run.state.checkpoint.context_window_usage is None


def test_the_position_counts_every_message_and_no_id() -> None:
    run = opened()
    run.say("", call("exec"))
    run.finish(0)
    position = Position()
    for message in run.state.checkpoint.messages:
        position = position.after(message.model_copy(update={"id": "another"}))
    assert run.state.position == position


def test_the_answer_clears_what_was_noted_for_the_session() -> None:
    run = opened()
    run.say("")
    assert run.effect(Generate).appendix.messages
    run.take(Generated(say("", call("exec"))))
    run.finish(0)
    assert run.effect(Generate).appendix.messages == ()


def test_refusals_of_workers_that_leave_are_no_losses() -> None:
    run = opened(specs=base_tools("exec"))
    for _ in range(5):
        run.take(GenerationLost(is_refused=True))
        assert run.effect(Generate).ordinal == 1
    run.say("", call("exec"))
    for _ in range(5):
        run.take(ToolLost(0, has_started=False, is_refused=True))
        assert [planned.index for planned in run.effect(CallTools).calls] == [0]
    run.finish(0)
    assert run.say("done")[-1] == "completeRun"
