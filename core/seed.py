"""What a run goes on from when it does not begin at nothing: continue, resume, fork (decisions, "Identity")."""

from typing import Any

from .checkpoint import Checkpoint
from .conversation import Appendix, KnownResult, Position
from .messages import ExpertMessage, UserMessage
from .tools import ToolCall, ToolOutcome, Toolset, text_outcome
from .wire import Wire

UNANSWERED = "The run stopped before this call was answered."


class Origin(Wire):
    """The point of a job that something goes on from."""

    job_id: str
    run_id: str
    """Of the segment."""
    checkpoint_id: str
    step_number: int


class SeedAnswer(Wire):
    """A person's answer to a question that was open when the run stopped."""

    index: int
    """Position of the call in `callTools.toolCalls`."""
    text: str


class Seed(Wire):
    """A run at one of its checkpoints, copied by value: nothing of the old execution is needed any more."""

    origin: Origin
    checkpoint: Checkpoint
    """As it was, with its own ids; the run that goes on gets new ones."""
    position: Position
    toolset: Toolset
    """`experts` holds only those that the run came to know while it worked."""
    generations: int = 0
    """How many the run had made; ordinals of generations run on."""
    calls: tuple[ToolCall, ...] = ()
    """Calls of the last message that still wait for their tool message."""
    results: dict[int, ToolOutcome] = {}
    """Their answers so far, by index."""
    delegates: "dict[int, Seed]" = {}
    """By call index, what a delegate goes on from; one that is not here starts anew."""
    message: UserMessage | None = None
    """What the expert is told; without it, and without an answer, the run goes on where it stopped."""
    answer: SeedAnswer | None = None

    def settlement(self) -> Appendix:
        """What a new message brings into the conversation: an end for every open call, then the message."""
        unanswered = (index for index in range(len(self.calls)) if index not in self.results)
        contents = text_outcome(UNANSWERED).result
        results = tuple(KnownResult(index=index, contents=contents, is_error=True) for index in unanswered)
        return Appendix(results=results, messages=(self.message,) if self.message else ())


class Carried(Wire):
    """What an execution leaves to the next one of the same run (Temporal's continue-as-new)."""

    state: dict[str, Any]
    """The run's state without its input, which the next execution has of its own."""
    queue: str | None = None
    """Where the worker that holds the session takes its calls, as in `SessionReport`; unknown without one."""


def has_open_calls(checkpoint: Checkpoint) -> bool:
    """Whether the last message's calls have no tool message yet."""
    last = checkpoint.messages[-1] if checkpoint.messages else None
    return isinstance(last, ExpertMessage) and bool(last.calls)
