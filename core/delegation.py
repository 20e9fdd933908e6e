"""A delegate as its parent's call: what it starts from and what its end says to the parent's model."""

from .effects import DelegateCall
from .expert import reachable_experts
from .run import RunInput, RunResult
from .tools import ToolCall, ToolOutcome, text_outcome
from .turn import Turn

_UNFINISHED = {
    "stoppedByExceededMaxSteps": "it reached the step limit before it was done.",
    "stoppedByCancellation": "it was cancelled.",
    "stoppedByInteractiveTool": "it asked a person, which only the coordinator may do.",
}


def delegate_call(turn: Turn, index: int) -> DelegateCall:
    """What the delegate of call `index` starts from."""
    state = turn.state
    call = state.calls[index]
    delegated_by = turn.delegated_by(index)
    experts = reachable_experts(call.skill_name, state.toolset.experts)
    seed = state.start.seed
    locked = {
        key: tools
        for key, tools in state.start.locked_tools.items()
        # A definition that was replaced while the job runs is not the locked one.
        if key in experts and experts[key] == state.start.experts.get(key)
    }
    child = RunInput(
        job_id=state.start.job_id,
        run_id="",
        path=(*state.start.path, f"{state.generations}.{index}"),
        expert_key=call.skill_name,
        experts=experts,
        locked_tools=locked,
        query=str(call.args["query"]),
        first_step=state.checkpoint.step_number + 1,
        # Only the calls that were open when the run stopped have a past.
        seed=seed.delegates.get(index) if seed is not None and state.generations == seed.generations else None,
        delegated_by=delegated_by,
        settings=state.start.settings,
    )
    return DelegateCall(index, call, child)


def delegate_outcome(call: ToolCall, result: RunResult) -> ToolOutcome:
    """What a parent's model reads of its delegate; a failure is text like any other answer."""
    if result.status == "completed":
        return text_outcome(result.text)
    reason = result.failure.message if result.failure else _UNFINISHED.get(result.status, result.status)
    return text_outcome(f"Delegation to {call.skill_name} failed: {reason}", is_error=True)
