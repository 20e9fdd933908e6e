"""The nine-state machine: a pure, total function from state and trigger to the next state (contract §3, decisions)."""

import json
from typing import Any, assert_never

from .conversation import opening
from .effects import Generate, OpenSession
from .endings import complete, finish, stop_by_cancellation, stop_by_error, stop_by_loss
from .events import (
    CallTools as CallToolsEvent,
)
from .events import (
    CompleteStreamingReasoning,
    CompleteStreamingRunResult,
    Event,
    ResumeFromStop,
    Retry,
    StartGeneration,
    StartRun,
)
from .failures import Attempt, Failure, IllegalTransition
from .messages import (
    ExpertMessage,
    InstructionMessage,
    TextPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
)
from .run import Generation, SessionReport
from .seed import Seed
from .state import RunState, State
from .tools import ToolCall, ToolResult
from .toolwork import (
    MAX_LOSSES,
    Verdict,
    answer_call,
    call_lost,
    call_tools,
    delegate_finished,
    person_answered,
    resume_from,
    seeded_answer,
    settle,
    tool_failed,
)
from .triggers import (
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
from .turn import AnyMessage, Transition, Turn
from .usage import NO_USAGE, Usage


def advance(state: RunState, trigger: Trigger) -> Transition:
    """The next state, the events to show and the effects to perform.

    Raises:
        IllegalTransition: the state cannot take the trigger.
    """
    if not is_legal(state, trigger):
        raise IllegalTransition(f"{type(trigger).__name__} in state {state.state.value}")
    turn = Turn(state)
    _take(turn, trigger)
    if turn.state.is_cancelling and not turn.state.is_waiting and turn.state.state != State.STOPPED:
        stop_by_cancellation(turn)
    return turn.transition()


def is_legal(state: RunState, trigger: Trigger) -> bool:
    """Whether `advance` takes `trigger` in `state`."""
    if state.state == State.STOPPED:
        return False
    match trigger:
        case Started():
            return state.state == State.INIT and not state.is_opening and state.ordinals.event == 0
        case SessionOpened():
            return state.is_opening
        case SessionFailed():
            has_calls = state.state == State.CALLING_MCP_TOOLS and bool(state.running)
            return state.is_opening or state.is_generating or has_calls
        case Generated() | GenerationFailed() | GenerationLost():
            return state.is_generating
        case ToolFinished() | ToolFailed() | ToolLost():
            return state.state == State.CALLING_MCP_TOOLS and trigger.index in state.running
        case DelegateFinished():
            return state.state == State.CALLING_DELEGATES and trigger.index in state.running
        case Answered():
            return state.state == State.CALLING_INTERACTIVE_TOOLS and trigger.index in state.running
        case CancelRequested():
            return state.ordinals.event > 0
        case _:
            assert_never(trigger)


def _take(turn: Turn, trigger: Trigger) -> None:
    match trigger:
        case Started():
            turn.initialize_runtime(answered=seeded_answer(turn.state))
            turn.set(is_opening=True)
            turn.ask(OpenSession())
        case SessionOpened(report):
            _session_opened(turn, report)
        case SessionFailed(failure):
            _session_failed(turn, failure)
        case Generated(generation):
            _generated(turn, generation)
        case GenerationFailed(failure, attempts, usage):
            _generation_failed(turn, failure, attempts, usage)
        case GenerationLost(attempts, is_refused):
            _generation_lost(turn, attempts, is_refused=is_refused)
        case ToolFinished(index, outcome):
            _follow(turn, answer_call(turn, index, outcome))
        case ToolFailed(index, failure):
            _follow(turn, tool_failed(turn, index, failure))
        case ToolLost(index, has_started, is_refused):
            _follow(turn, call_lost(turn, index, has_started=has_started, is_refused=is_refused))
        case DelegateFinished(index, result):
            _follow(turn, delegate_finished(turn, index, result))
        case Answered(index, text):
            _follow(turn, person_answered(turn, index, text))
        case CancelRequested():
            turn.set(is_cancelling=True)
            if turn.state.state == State.CALLING_INTERACTIVE_TOOLS:
                turn.set(running=())
        case _:
            assert_never(trigger)


def _session_opened(turn: Turn, report: SessionReport) -> None:
    for skill in report.skills:
        turn.skill_started(skill)
    state = turn.state
    settings = state.start.settings.model_copy(update={"workspace_id": report.workspace_id})
    turn.set(
        is_opening=False,
        start=state.start.model_copy(update={"settings": settings}),
        toolset=state.toolset.model_copy(update={"skill_tools": report.skill_tools}),
    )
    if state.start.seed is not None:
        _go_on(turn, state.start.seed)
        return
    _start_run(turn, opening(report.instruction or "", state.start.query, state.start.files))
    if not turn.state.is_cancelling:
        _prepare_step(turn)


def _go_on(turn: Turn, seed: Seed) -> None:
    """The first event of a run with a past: a new task, or the resumption of the old one."""
    if seed.message is None:
        _follow(turn, resume_from(turn, seed))
        return
    initial = turn.state.checkpoint
    settled = settle(turn, seed)
    message = turn.with_ids(seed.message)
    turn.emit(StartRun, initial_checkpoint=initial, input_messages=(*settled, message))
    turn.set_checkpoint(status="proceeding", pending_tool_calls=None, partial_tool_results=None)
    turn.append(message, is_new=False)
    turn.set_step(input_messages=(*settled, message))
    if not turn.state.is_cancelling:
        _prepare_step(turn)


def _session_failed(turn: Turn, failure: Failure) -> None:
    if turn.state.is_opening:  # a run opens with its first event even if it ends at once
        _open_in_vain(turn)
    turn.set(is_opening=False, is_generating=False, running=())
    if not turn.state.is_cancelling:
        stop_by_error(turn, failure)


def _open_in_vain(turn: Turn) -> None:
    start = turn.state.start
    if start.begins_with_query:
        message = start.seed.message if start.seed is not None else None
        _start_run(turn, (message,) if message else opening("", start.query, start.files)[1:])
    else:
        turn.emit(ResumeFromStop, checkpoint=turn.state.checkpoint)


def _start_run(turn: Turn, first: tuple[InstructionMessage | UserMessage, ...]) -> None:
    messages = tuple(turn.with_ids(message) for message in first)
    turn.emit(StartRun, initial_checkpoint=turn.state.checkpoint, input_messages=messages)
    turn.set_checkpoint(status="proceeding")
    for message in messages:
        turn.append(message, is_new=False)
    turn.set_step(input_messages=messages)


def _prepare_step(turn: Turn) -> None:
    """PreparingForStep → GeneratingToolCall."""
    turn.emit(StartGeneration, messages=turn.state.checkpoint.messages)
    turn.set(
        state=State.GENERATING_TOOL_CALL,
        is_generating=True,
        generations=turn.state.generations + 1,
        losses=0,
        calls=(),
        results={},
    )
    _ask_generation(turn)


def _ask_generation(turn: Turn) -> None:
    turn.ask(open_generation(turn.state))


def open_generation(state: RunState) -> Generate:
    """The model call that a run in GeneratingToolCall waits for."""
    return Generate(
        step_number=state.checkpoint.step_number,
        ordinal=state.generations,
        position=state.position,
        appendix=state.appendix,
    )


def _failed_attempts(turn: Turn, attempts: tuple[Attempt, ...]) -> None:
    for attempt in attempts:
        turn.count(attempt.usage)
        turn.emit(Retry, reason=_reason(attempt.failure), new_messages=(), usage=attempt.usage, timestamp=attempt.at)


def retries_so_far(state: RunState, attempts: tuple[Attempt, ...]) -> tuple[Event, ...]:
    """The `retry` events that `attempts` of the generation now open will have become once it answers."""
    turn = Turn(state)
    _failed_attempts(turn, attempts)
    return turn.transition().events


def _reason(failure: Failure) -> str:
    return json.dumps({"error": failure.name, "message": failure.message}, ensure_ascii=False)


def _generated(turn: Turn, generation: Generation) -> None:
    turn.set(is_generating=False)
    _failed_attempts(turn, generation.attempts)
    turn.count(generation.usage)
    if generation.usage != NO_USAGE:
        turn.measure_context(generation.usage)
    if turn.state.is_cancelling or generation.finish_reason == "cancelled":
        turn.set(is_cancelling=True)
        return
    turn.set(appendix=turn.state.appendix.replaced(results=(), messages=()))
    message = ExpertMessage(contents=generation.contents)
    if message.thinking:
        turn.emit(CompleteStreamingReasoning, text=message.thinking)
    if message.text:
        turn.emit(CompleteStreamingRunResult, text=message.text)
    match generation.finish_reason:
        case "length":
            _cut_by_length(turn, message, generation.usage)
        case "stop" | "toolCalls" if message.calls:
            _call_tools(turn, message, generation.usage)
        case "stop" | "toolCalls" if message.text.strip():
            _complete_with_text(turn, message, generation.usage)
        case "stop" | "toolCalls":
            _retry_empty(turn, generation.usage)
        case _:
            _refused(turn, generation)


def _generation_failed(turn: Turn, failure: Failure, attempts: tuple[Attempt, ...], usage: Usage) -> None:
    turn.set(is_generating=False)
    _failed_attempts(turn, attempts)
    turn.count(usage)
    if turn.state.is_cancelling:
        return
    if failure.is_retryable:
        tried = turn.state.start.settings.limits.max_retries
        failure = failure.model_copy(update={"message": f"Max retries ({tried}) exceeded: {failure.message}"})
    stop_by_error(turn, failure)


def _generation_lost(turn: Turn, attempts: tuple[Attempt, ...], *, is_refused: bool) -> None:
    _failed_attempts(turn, attempts)
    losses = turn.state.losses + (not is_refused)
    turn.set(losses=losses)
    if turn.state.is_cancelling:
        turn.set(is_generating=False)
    elif losses < MAX_LOSSES:
        _ask_generation(turn)
    else:
        stop_by_loss(turn, f"The worker of the model call was lost {losses} times in a row")


def _call_tools(turn: Turn, message: ExpertMessage, usage: Usage) -> None:
    calls = _tool_calls(turn, message.calls)
    message = turn.with_ids(message)
    turn.append(message)
    turn.set_step(tool_calls=calls)
    turn.set_checkpoint(retry_count=0)
    turn.emit(CallToolsEvent, new_message=message, tool_calls=calls, usage=usage)
    turn.set(state=State.CALLING_MCP_TOOLS, calls=calls, results={}, running=(), call_losses={})
    _follow(turn, call_tools(turn))


def _tool_calls(turn: Turn, parts: tuple[ToolCallPart, ...]) -> tuple[ToolCall, ...]:
    skills = {spec.name: spec.skill_name for spec in turn.state.toolset.specs}
    return tuple(
        ToolCall(
            id=part.tool_call_id,
            skill_name=skills.get(part.tool_name, ""),
            tool_name=part.tool_name,
            args=part.args,
        )
        for part in parts
    )


def _follow(turn: Turn, verdict: Verdict) -> None:
    """What an answered call leads to."""
    if verdict.kind == "complete":
        complete(turn, verdict.text, NO_USAGE)
    elif verdict.kind == "failed":
        stop_by_loss(turn, verdict.text)
    elif verdict.kind == "stepDone":
        _finish_step(turn)
    elif verdict.kind == "generate":
        _prepare_step(turn)


def _finish_step(turn: Turn) -> None:
    if turn.state.is_cancelling:
        return
    if turn.finish_step():
        _prepare_step(turn)
    else:
        finish(turn)


def _retry(turn: Turn, failure: Failure, messages: tuple[AnyMessage, ...], usage: Usage, **payload: Any) -> None:
    """A mistake of the model: it is told, and the step is over; the last allowed one stops the run."""
    limit = turn.state.start.settings.limits.max_retries
    retries = (turn.state.checkpoint.retry_count or 0) + 1
    if retries > limit:
        name = "MaxRetriesExceeded"
        stop_by_error(turn, Failure(name=name, message=f"Max retries ({limit}) exceeded: {failure.message}"))
        return
    added = tuple(turn.with_ids(message) for message in messages)
    for message in added:
        turn.append(message)
        turn.tell_session(message=message)
    turn.set_checkpoint(retry_count=retries)
    turn.set_step(**payload)
    turn.emit(Retry, reason=_reason(failure), new_messages=added, usage=usage, **payload)
    turn.set(state=State.FINISHING_STEP)
    _finish_step(turn)


def _retry_empty(turn: Turn, usage: Usage) -> None:
    failure = Failure(name="EmptyAnswer", message="The answer held neither text nor a tool call.")
    _retry(turn, failure, (UserMessage(contents=(TextPart(text=_reason(failure)),)),), usage)


def _cut_by_length(turn: Turn, message: ExpertMessage, usage: Usage) -> None:
    failure = Failure(
        name="OutputCut",
        message="The answer was cut because it reached the model's output limit. Answer in smaller pieces.",
    )
    calls = message.calls
    if not calls:
        said = (ExpertMessage(contents=message.contents),) if message.text.strip() else ()
        _retry(turn, failure, (*said, UserMessage(contents=(TextPart(text=_reason(failure)),))), usage)
        return
    first: ToolCallPart = calls[0]
    contents = tuple(part for part in message.contents if not isinstance(part, ToolCallPart))
    answer = turn.parts_with_ids((TextPart(text=_reason(failure)),))
    part = ToolResultPart(tool_call_id=first.tool_call_id, tool_name=first.tool_name, contents=answer, is_error=True)
    (call,) = _tool_calls(turn, (first,))
    result = ToolResult(id=call.id, skill_name=call.skill_name, tool_name=call.tool_name, result=answer, is_error=True)
    messages = (ExpertMessage(contents=(*contents, first)), ToolMessage(contents=(part,)))
    _retry(turn, failure, messages, usage, tool_calls=(call,), tool_results=(result,))


def _refused(turn: Turn, generation: Generation) -> None:
    if generation.finish_reason == "refusal":
        failure = Failure(name="provider.content_refused", message="The model refused to answer this conversation.")
    else:
        failure = Failure(name="UnexpectedFinishReason", message="The model stopped for a reason we do not know.")
    stop_by_error(turn, failure)


def _complete_with_text(turn: Turn, message: ExpertMessage, usage: Usage) -> None:
    message = turn.with_ids(message)
    turn.append(message)
    turn.set_checkpoint(retry_count=0)
    complete(turn, message.text, usage)
