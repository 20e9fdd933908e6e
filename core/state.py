"""The state of one run: everything the machine remembers between two triggers."""

from enum import StrEnum

from .checkpoint import Checkpoint, Step
from .conversation import Appendix, Position
from .ids import cuid_from
from .run import RunInput, RunResult
from .seed import Carried, Seed
from .tools import ToolCall, ToolOutcome, Toolset
from .usage import NO_USAGE
from .wire import Wire


class State(StrEnum):
    """The nine states, and the end."""

    INIT = "Init"
    RESUMING_FROM_STOP = "ResumingFromStop"
    PREPARING_FOR_STEP = "PreparingForStep"
    GENERATING_TOOL_CALL = "GeneratingToolCall"
    CALLING_MCP_TOOLS = "CallingMcpTools"
    CALLING_DELEGATES = "CallingDelegates"
    CALLING_INTERACTIVE_TOOLS = "CallingInteractiveTools"
    RESOLVING_TOOL_RESULT = "ResolvingToolResult"
    FINISHING_STEP = "FinishingStep"
    STOPPED = "Stopped"


class Ordinals(Wire):
    """How many ids of each kind the run has made."""

    event: int = 0
    checkpoint: int = 0
    message: int = 0
    part: int = 0


class RunState(Wire):
    """An immutable snapshot; `machine.advance` makes the next one."""

    state: State = State.INIT
    start: RunInput
    segment: int = 0
    checkpoint: Checkpoint
    step: Step
    toolset: Toolset = Toolset()
    position: Position = Position()
    appendix: Appendix = Appendix()
    calls: tuple[ToolCall, ...] = ()
    """Calls of the current expert message, by index."""
    results: dict[int, ToolOutcome] = {}
    """Their answers so far."""
    running: tuple[int, ...] = ()
    """Indexes of calls that an activity, a child or a person has."""
    is_generating: bool = False
    is_opening: bool = False
    is_cancelling: bool = False
    generations: int = 0
    earlier_generations: int = 0
    """Those of the run this one goes on from; they count for ordinals, not for the limit of steps."""
    losses: int = 0
    """Workers lost in a row by the model call in flight."""
    call_losses: dict[int, int] = {}
    """The same by tool call, as far as one was lost."""
    delegates_last_step: int = 0
    skill_names: tuple[str, ...] = ()
    ordinals: Ordinals = Ordinals()
    result: RunResult | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether anything the machine asked for is still open."""
        return self.is_opening or self.is_generating or bool(self.running)


def begin(start: RunInput) -> RunState:
    """The state before the first trigger; of a run carried on, the state its last execution left."""
    if start.carried is not None:
        bare = start.replaced(carried=None)
        return RunState.model_validate({**start.carried.state, "start": bare})
    if start.seed is not None:
        return _begin_from(start.seed, start)
    expert = start.expert
    checkpoint = Checkpoint(
        id=cuid_from(start.run_id, "checkpoint", 0),
        job_id=start.job_id,
        run_id=start.run_id,
        status="init",
        step_number=start.first_step,
        messages=(),
        expert=expert.ref,
        delegated_by=start.delegated_by,
        usage=NO_USAGE,
        context_window=expert.model.context_window,
        context_window_usage=0.0 if expert.model.context_window else None,
    )
    return RunState(
        start=start,
        checkpoint=checkpoint,
        step=Step(step_number=start.first_step),
        toolset=Toolset(delegates=expert.delegates, experts=start.experts),
        ordinals=Ordinals(checkpoint=1),
    )


def carried_on(state: RunState, *, queue: str | None, execution: str) -> RunInput:
    """The input of the next execution of a run: its state by value, nothing twice.

    `execution` is Temporal's id of the one that ends.
    """
    carried = Carried(state=state.model_dump(mode="json", exclude={"start"}, exclude_none=True), queue=queue)
    return state.start.replaced(seed=None, files=(), carried=carried, previous=execution)


def _begin_from(seed: Seed, start: RunInput) -> RunState:
    """A new run with the conversation, the usage and the open calls of another."""
    expert = start.expert
    step_number = max(start.first_step, seed.checkpoint.step_number + 1)
    experts = {**start.experts, **seed.toolset.experts}
    checkpoint = seed.checkpoint.replaced(
        id=cuid_from(start.run_id, "checkpoint", 0),
        job_id=start.job_id,
        run_id=start.run_id,
        status="init",
        step_number=step_number,
        expert=expert.ref,
        delegate_to=None,
        delegated_by=start.delegated_by,
        context_window=expert.model.context_window,
        error=None,
        retry_count=None,
    )
    return RunState(
        start=start,
        checkpoint=checkpoint,
        step=Step(step_number=step_number),
        toolset=seed.toolset.replaced(experts=experts),
        position=seed.position,
        calls=seed.calls,
        results=seed.results,
        generations=seed.generations,
        earlier_generations=seed.generations,
        ordinals=Ordinals(checkpoint=1),
    )
