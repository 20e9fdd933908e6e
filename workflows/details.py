"""What the Temporal UI shows of a run while it works, in Markdown (DESIGN §7)."""

from ..core.state import RunState, State

_DOING = {
    State.INIT: "opening its session",
    State.RESUMING_FROM_STOP: "resuming",
    State.PREPARING_FOR_STEP: "preparing the next step",
    State.GENERATING_TOOL_CALL: "waiting for the model",
    State.CALLING_MCP_TOOLS: "calling tools",
    State.CALLING_DELEGATES: "waiting for delegates",
    State.CALLING_INTERACTIVE_TOOLS: "waiting for a person",
    State.RESOLVING_TOOL_RESULT: "reading results",
    State.FINISHING_STEP: "finishing the step",
    State.STOPPED: "stopped",
}


def describe(state: RunState) -> str:
    """Expert, step, tokens and whom the run waits for."""
    checkpoint = state.checkpoint
    usage = checkpoint.usage
    doing = checkpoint.status if state.state == State.STOPPED else _DOING[state.state]
    lines = [
        f"**{checkpoint.expert.key}** · step {checkpoint.step_number} · {doing}",
        "",
        f"- model: {state.start.expert.model.model}",
        f"- tokens: {usage.input_tokens} in ({usage.cached_input_tokens} cached) · {usage.output_tokens} out",
    ]
    origin = state.start.seed.origin if state.start.seed else None
    if origin is not None:
        lines.append(
            f"- goes on from step {origin.step_number} of `{origin.job_id}`, checkpoint `{origin.checkpoint_id}`"
        )
    if checkpoint.context_window_usage is not None:
        lines.append(f"- context: {checkpoint.context_window_usage:.0%}")
    lines.extend(
        f"- `{state.calls[index].tool_name}` → {state.calls[index].skill_name or 'unknown'}" for index in state.running
    )
    if checkpoint.error is not None:
        lines.append(f"- **{checkpoint.error.name}**: {checkpoint.error.message}")
    return "\n".join(lines)
