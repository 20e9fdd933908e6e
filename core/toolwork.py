"""The states between a generation and the end of its step: MCP calls, delegates, people (contract §5.4, decisions)."""

from dataclasses import dataclass
from typing import Literal

from .conversation import KnownResult, tool_message
from .delegation import delegate_call, delegate_outcome
from .effects import AskPerson, CallTools, Delegate, PlannedCall
from .events import (
    CallDelegate,
    CallInteractiveTool,
    FinishAllToolCalls,
    FinishMcpTools,
    FinishToolCall,
    InteractiveAnswer,
    ProceedToInteractiveTools,
    ResolveToolResults,
    ResumeFromStop,
    ResumeToolCalls,
    SkipDelegates,
    StopRunByDelegate,
    StopRunByInteractiveTool,
)
from .failures import Failure
from .messages import ExpertMessage, TextPart, ToolMessage
from .run import RunResult
from .seed import UNANSWERED, Seed
from .state import RunState, State
from .tools import (
    ATTEMPT_COMPLETION,
    RemoveSkill,
    ToolCall,
    ToolOutcome,
    ToolResult,
    ToolSpec,
    is_completion,
    remaining_todos,
    runs_in_order,
    text_outcome,
)
from .turn import Turn

MAX_LOSSES = 3
"""Workers lost in a row by one call before the run gives up."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is left to do after a call was answered."""

    kind: Literal["wait", "stepDone", "generate", "complete", "failed"]
    text: str = ""
    """Of the run, or why it failed."""


WAIT = Verdict("wait")
STEP_DONE = Verdict("stepDone")
GENERATE = Verdict("generate")


def call_tools(turn: Turn) -> Verdict:
    """Enter CallingMcpTools: refuse what cannot run, start the first wave."""
    for index, call in enumerate(turn.state.calls):
        refusal = _refusal(turn.state, call)
        if refusal is not None:
            _answer(turn, index, text_outcome(refusal, is_error=True), is_ours=True)
    wave = [i for i in _open_mcp(turn.state) if not runs_in_order(_spec(turn.state, i))]
    if wave:
        _start(turn, wave)
        return WAIT
    return _next_in_order(turn)


def answer_call(turn: Turn, index: int, outcome: ToolOutcome) -> Verdict:
    """An MCP call was answered."""
    if outcome.started is not None:
        turn.skill_started(outcome.started)
    _answer(turn, index, outcome)
    return _after_answer(turn)


def tool_failed(turn: Turn, index: int, failure: Failure) -> Verdict:
    """The activity of a call broke: the model is told, the run goes on."""
    name = turn.state.calls[index].tool_name
    _answer(turn, index, text_outcome(f"Error calling tool {name}: {failure.message}", is_error=True), is_ours=True)
    return _after_answer(turn)


def call_lost(turn: Turn, index: int, *, has_started: bool, is_refused: bool = False) -> Verdict:
    """The worker of a call is gone: repeat what may be repeated, tell the model about the rest."""
    state = turn.state
    losses = state.call_losses.get(index, 0) + (not is_refused)
    if losses:
        turn.set(call_losses=dict(sorted({**state.call_losses, index: losses}.items())))
    may_repeat = not has_started or _spec(state, index).is_repeatable
    if may_repeat and losses < MAX_LOSSES and not state.is_cancelling:
        _start(turn, [index], is_again=True)
        return WAIT
    name = state.calls[index].tool_name
    if state.is_cancelling:
        text = f"{name} was cancelled."
    elif has_started:
        text = (
            f"The worker that ran {name} was lost. Whether the call had an effect is unknown, "
            "and any state its skill kept was reset. Check before you repeat it."
        )
    else:
        text = f"No worker could run {name}; it did not run."
    _answer(turn, index, text_outcome(text, is_error=True), is_ours=True)
    return _after_answer(turn)


def delegate_finished(turn: Turn, index: int, result: RunResult) -> Verdict:
    """A delegate ended; after the last one the run goes on in a new segment."""
    state = turn.state
    turn.set_checkpoint(usage=state.checkpoint.usage + result.usage)
    turn.set(
        running=tuple(i for i in state.running if i != index),
        delegates_last_step=max(state.delegates_last_step, result.last_step),
    )
    was_cancelled = state.is_cancelling and result.status == "stoppedByCancellation"
    if not was_cancelled:
        _answer(turn, index, delegate_outcome(state.calls[index], result), is_ours=True)
    if turn.state.running or turn.state.is_cancelling:
        return WAIT
    last = max(turn.state.delegates_last_step, turn.state.checkpoint.step_number)
    return _resume(turn, step_number=last + 1)


def person_answered(turn: Turn, index: int, text: str) -> Verdict:
    """A person answered one call; the others stop the run again."""
    _answer(turn, index, text_outcome(text), is_ours=True)
    call = turn.state.calls[index]
    answered = InteractiveAnswer(tool_call_id=call.id, tool_name=call.tool_name, skill_name=call.skill_name, text=text)
    return _resume(turn, step_number=turn.state.checkpoint.step_number + 1, answered=answered)


def _refusal(state: RunState, call: ToolCall) -> str | None:
    """Why `call` cannot run at all, as the model should read it."""
    spec = _spec_named(state, call.tool_name)
    if spec is None:
        names = ", ".join(s.name for s in state.toolset.specs)
        return f"There is no tool named {call.tool_name!r}. The tools are: {names}."
    if spec.kind == "delegate":
        query = call.args.get("query")
        if not isinstance(query, str) or not query.strip():
            return f"Delegation to {spec.skill_name} needs a non-empty string `query`."
    if spec.kind == "interactive" and state.start.delegated_by is not None:
        return f"{spec.name} asks a person, which only the coordinator of a job may do."
    if is_completion(spec) and any(_waits_for_others(state, other) for other in state.calls):
        return f"{ATTEMPT_COMPLETION} was not tried because other calls are open: finish them first."
    return None


def _waits_for_others(state: RunState, call: ToolCall) -> bool:
    spec = _spec_named(state, call.tool_name)
    return spec is not None and spec.kind != "mcp" and _refusal(state, call) is None


def _spec_named(state: RunState, name: str) -> ToolSpec | None:
    return next((spec for spec in state.toolset.specs if spec.name == name), None)


def _spec(state: RunState, index: int) -> ToolSpec:
    spec = _spec_named(state, state.calls[index].tool_name)
    assert spec is not None, "only calls of known tools are started"
    return spec


def _of_kind(state: RunState, kind: str) -> list[int]:
    """Unanswered calls of one class."""
    return [
        index
        for index, call in enumerate(state.calls)
        if index not in state.results and (spec := _spec_named(state, call.tool_name)) is not None and spec.kind == kind
    ]


def _open_mcp(state: RunState) -> list[int]:
    return _of_kind(state, "mcp")


def _planned(state: RunState, indexes: list[int]) -> tuple[PlannedCall, ...]:
    return tuple(PlannedCall(index, state.calls[index], _spec(state, index)) for index in indexes)


def _start(turn: Turn, indexes: list[int], *, is_again: bool = False) -> None:
    if not is_again:
        turn.set(running=(*turn.state.running, *indexes))
    state = turn.state
    turn.ask(CallTools(state.checkpoint.step_number, state.position, _planned(state, indexes)))


def _answer(turn: Turn, index: int, outcome: ToolOutcome, *, is_ours: bool = False) -> None:
    """Keep the answer to call `index`; the session is told of answers it did not produce itself."""
    state = turn.state
    turn.set(
        results=dict(sorted({**state.results, index: outcome}.items())),
        running=tuple(i for i in state.running if i != index),
    )
    if is_ours:
        turn.tell_session(result=KnownResult(index=index, contents=outcome.result, is_error=outcome.is_error))


def _after_answer(turn: Turn) -> Verdict:
    state = turn.state
    if state.running or state.is_cancelling:
        return WAIT
    lost = [state.calls[index].tool_name for index, losses in state.call_losses.items() if losses >= MAX_LOSSES]
    if lost:
        return Verdict("failed", f"The worker of {lost[0]} was lost {MAX_LOSSES} times in a row")
    return _next_in_order(turn)


def _next_in_order(turn: Turn) -> Verdict:
    """Second wave: todo, clearTodo and attemptCompletion, one after another."""
    waiting = _open_mcp(turn.state)
    if waiting:
        _start(turn, waiting[:1])
        return WAIT
    return _after_mcp(turn)


def _after_mcp(turn: Turn) -> Verdict:
    state = turn.state
    delegates, people = _of_kind(state, "delegate"), _of_kind(state, "interactive")
    if not delegates and not people:
        return _finish_mcp_only(turn)
    results, pending = results_of(turn), _calls(state, [*delegates, *people])
    turn.set_step(partial_tool_results=results, pending_tool_calls=pending)
    turn.emit(FinishMcpTools, tool_results=results, pending_tool_calls=pending)
    turn.set(state=State.CALLING_DELEGATES)
    if delegates:
        _delegate(turn, delegates, people)
        return WAIT
    turn.emit(SkipDelegates, pending_tool_calls=_calls(state, people))
    _ask_person(turn, people)
    return WAIT


def _finish_mcp_only(turn: Turn) -> Verdict:
    """Every call of the step was an MCP call and is answered."""
    state = turn.state
    completion = _successful_completion(state)
    results = results_of(turn)
    turn.set_step(tool_results=results)
    if completion is None or len(state.calls) > 1:
        turn.emit(ResolveToolResults, tool_results=results)
    turn.set(state=State.RESOLVING_TOOL_RESULT)
    if completion is not None:
        _append_results(turn)
        return Verdict("complete", _completion_text(turn, state.calls[completion]))
    message = _append_results(turn)
    turn.emit(FinishToolCall, new_messages=(message,))
    turn.set(state=State.FINISHING_STEP)
    return STEP_DONE


def _append_results(turn: Turn) -> ToolMessage:
    """Answer all calls of the expert message with one tool message; what they changed counts from here on."""
    state = turn.state
    for outcome in state.results.values():
        if outcome.change is not None:
            turn.set(toolset=turn.state.toolset.apply(outcome.change))
        if isinstance(outcome.change, RemoveSkill):
            turn.skill_ended(outcome.change.skill_name)
    message = _last_expert_message(state)
    known = {
        index: KnownResult(index=index, contents=outcome.result, is_error=outcome.is_error)
        for index, outcome in state.results.items()
    }
    answer = turn.with_ids(tool_message(message.calls, known))
    turn.append(answer)
    return answer


def _last_expert_message(state: RunState) -> ExpertMessage:
    message = state.checkpoint.messages[-1]
    assert isinstance(message, ExpertMessage), "calls are open only directly after an expert message"
    return message


def _successful_completion(state: RunState) -> int | None:
    for index, call in enumerate(state.calls):
        outcome = state.results[index]
        is_accepted = not outcome.is_error and not remaining_todos(outcome.result)
        if is_accepted and is_completion(_spec_named(state, call.tool_name)):
            return index
    return None


def _completion_text(turn: Turn, call: ToolCall) -> str:
    """The run's text: `result`, else the text beside the call, else the last text the expert said."""
    given = call.args.get("result")
    if isinstance(given, str) and given.strip():
        text = given
    else:
        said = (m.text for m in reversed(turn.state.checkpoint.messages) if isinstance(m, ExpertMessage))
        text = next((candidate for candidate in said if candidate.strip()), "")
    if text:
        turn.append(turn.with_ids(ExpertMessage(contents=(TextPart(text=text),))))
    return text


def results_of(turn: Turn) -> tuple[ToolResult, ...]:
    """All answers so far in call order; their parts get their ids here, whatever order they arrived in."""
    named = {
        index: outcome.replaced(result=turn.parts_with_ids(outcome.result))
        for index, outcome in turn.state.results.items()
    }
    turn.set(results=named)
    return tuple(turn.result_of(index) for index in named)


def _calls(state: RunState, indexes: list[int]) -> tuple[ToolCall, ...]:
    return tuple(state.calls[index] for index in indexes)


def _delegate(turn: Turn, delegates: list[int], people: list[int]) -> None:
    state = turn.state
    calls = _calls(state, delegates)
    turn.emit(CallDelegate, new_message=_last_expert_message(state), tool_calls=calls, usage=state.step.usage)
    turn.set_checkpoint(
        status="stoppedByDelegate",
        delegate_to=tuple(turn.target(index) for index in delegates),
        pending_tool_calls=_calls(state, people) or None,
        partial_tool_results=results_of(turn),
    )
    turn.emit(StopRunByDelegate, checkpoint=turn.state.checkpoint, step=turn.state.step)
    turn.set(running=tuple(delegates), delegates_last_step=0)
    turn.ask(Delegate(tuple(delegate_call(turn, index) for index in delegates)))


def _resume(turn: Turn, *, step_number: int, answered: InteractiveAnswer | None = None) -> Verdict:
    """Open the next segment and go on with what is still pending (ResumingFromStop)."""
    turn.new_segment(step_number=step_number, answered=answered)
    return _resume_here(turn)


def resume_from(turn: Turn, seed: Seed) -> Verdict:
    """Go on where another run stopped: with what still waits there, or with the next generation."""
    if not turn.state.calls:
        turn.emit(ResumeFromStop, checkpoint=turn.state.checkpoint)
        turn.set_checkpoint(status="proceeding")
        turn.set(state=State.RESUMING_FROM_STOP)
        return WAIT if turn.state.is_cancelling else GENERATE
    waiting = {*_of_kind(turn.state, "delegate"), *_of_kind(turn.state, "interactive")}
    for index in range(len(turn.state.calls)):
        # A tool that is not offered any more cannot answer either.
        if index not in turn.state.results and index not in waiting:
            _answer(turn, index, text_outcome(UNANSWERED, is_error=True), is_ours=True)
    if seed.answer is not None:
        _answer(turn, seed.answer.index, text_outcome(seed.answer.text), is_ours=True)
    return WAIT if turn.state.is_cancelling else _resume_here(turn)


def settle(turn: Turn, seed: Seed) -> tuple[ToolMessage, ...]:
    """Answer the calls that were open when the run stopped, so that it can be told something new."""
    if not turn.state.calls:
        return ()
    for known in seed.settlement().results:
        _answer(turn, known.index, ToolOutcome(result=known.contents, is_error=known.is_error))
    message = _append_results(turn)
    turn.set(calls=(), results={})
    return (message,)


def seeded_answer(state: RunState) -> InteractiveAnswer | None:
    """The person's answer that a run goes on with, as the event that opens it shows it."""
    seed = state.start.seed
    if seed is None or seed.answer is None:
        return None
    call = seed.calls[seed.answer.index]
    return InteractiveAnswer(
        tool_call_id=call.id, tool_name=call.tool_name, skill_name=call.skill_name, text=seed.answer.text
    )


def _resume_here(turn: Turn) -> Verdict:
    """ResumingFromStop: delegates that have no result yet, then people, then the tool message."""
    state = turn.state
    delegates, people = _of_kind(state, "delegate"), _of_kind(state, "interactive")
    pending = _calls(state, [*delegates, *people])
    turn.set_checkpoint(
        delegate_to=None,
        pending_tool_calls=pending or None,
        partial_tool_results=results_of(turn),
    )
    turn.emit(ResumeFromStop, checkpoint=turn.state.checkpoint)
    turn.set_checkpoint(status="proceeding")
    turn.set(state=State.RESUMING_FROM_STOP)
    results = results_of(turn)
    if pending:
        turn.emit(ResumeToolCalls, pending_tool_calls=pending, partial_tool_results=results)
        turn.set_step(pending_tool_calls=pending, partial_tool_results=results)
    if delegates:
        turn.set(state=State.CALLING_DELEGATES)
        _delegate(turn, delegates, people)
        return WAIT
    if people:
        turn.emit(ProceedToInteractiveTools, pending_tool_calls=pending, partial_tool_results=results)
        _ask_person(turn, people)
        return WAIT
    message = _append_results(turn)
    turn.set_step(tool_results=results)
    turn.set_checkpoint(pending_tool_calls=None, partial_tool_results=None)
    turn.emit(FinishAllToolCalls, new_messages=(message,))
    turn.set(state=State.FINISHING_STEP)
    return STEP_DONE


def _ask_person(turn: Turn, people: list[int]) -> None:
    state = turn.state
    calls = _calls(state, people)
    turn.set(state=State.CALLING_INTERACTIVE_TOOLS)
    turn.emit(
        CallInteractiveTool,
        new_message=_last_expert_message(state),
        tool_call=calls[0],
        usage=state.step.usage,
    )
    turn.set_checkpoint(
        status="stoppedByInteractiveTool", pending_tool_calls=calls, partial_tool_results=results_of(turn)
    )
    turn.emit(StopRunByInteractiveTool, checkpoint=turn.state.checkpoint, step=turn.state.step)
    turn.set(running=tuple(people))
    turn.ask(AskPerson(_planned(state, people)))
