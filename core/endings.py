"""How a run ends: each closing event with its checkpoint, and what is left in order for a later resume."""

from .effects import Finish
from .events import CompleteRun, SkillDisconnected, StopRunByCancellation, StopRunByError
from .failures import Failure
from .seed import UNANSWERED
from .state import State
from .tools import text_outcome
from .toolwork import results_of
from .turn import Turn
from .usage import Usage


def complete(turn: Turn, text: str, usage: Usage) -> None:
    """The run has its result; `usage` is that of the generation that gave it."""
    turn.set_checkpoint(status="completed")
    turn.emit(CompleteRun, checkpoint=turn.state.checkpoint, step=turn.state.step, text=text, usage=usage)
    finish(turn, text=text)


def stop_by_error(turn: Turn, failure: Failure) -> None:
    """The run failed; nobody repeats it by itself."""
    failure = failure.model_copy(update={"is_retryable": False})
    turn.set_checkpoint(status="stoppedByError", error=failure)
    _settle_calls(turn, UNANSWERED)
    turn.emit(StopRunByError, checkpoint=turn.state.checkpoint, step=turn.state.step, error=failure)
    finish(turn)


def stop_by_loss(turn: Turn, text: str) -> None:
    """Worker after worker was lost in one call."""
    stop_by_error(turn, Failure(name="worker.lost", message=f"{text}; resume the job to try again."))


def stop_by_cancellation(turn: Turn) -> None:
    """Somebody ended the run; what it waited for is over, one way or another."""
    state = turn.state.state
    turn.set_checkpoint(status="stoppedByCancellation")
    _settle_calls(turn, "The run was cancelled.")
    if state == State.CALLING_DELEGATES:
        turn.set_checkpoint(partial_tool_results=results_of(turn))
    if state in (State.CALLING_DELEGATES, State.CALLING_INTERACTIVE_TOOLS):
        turn.set_checkpoint(id=turn.next_id("checkpoint"))
    turn.emit(StopRunByCancellation, checkpoint=turn.state.checkpoint, step=turn.state.step)
    finish(turn)


def _settle_calls(turn: Turn, text: str) -> None:
    """A run that ends amid its MCP calls can go on later only if each of them has an answer."""
    state = turn.state
    if state.state == State.CALLING_MCP_TOOLS:
        unanswered = text_outcome(text, is_error=True)
        turn.set(results={index: state.results.get(index, unanswered) for index in range(len(state.calls))})
        turn.set_checkpoint(partial_tool_results=results_of(turn))


def finish(turn: Turn, *, text: str = "") -> None:
    """Nothing comes after the closing event but the end of the skills."""
    result = turn.run_result(text=text)
    turn.set(state=State.STOPPED, result=result, running=(), is_generating=False, is_opening=False)
    for name in turn.state.skill_names:
        turn.emit_runtime(SkillDisconnected, skill_name=name)
    turn.ask(Finish(result))
