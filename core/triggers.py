"""What the machine is told: each is one event of Temporal's history, decoded."""

from dataclasses import dataclass

from .failures import Attempt, Failure
from .run import Generation, RunResult, SessionReport
from .tools import ToolOutcome
from .usage import NO_USAGE, Usage


@dataclass(frozen=True, slots=True)
class Started:
    """The workflow began."""


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """`open_session` answered for the first time; a session opened again is no trigger."""

    report: SessionReport


@dataclass(frozen=True, slots=True)
class SessionFailed:
    """No worker could open the session."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Generated:
    """`generate` answered."""

    generation: Generation


@dataclass(frozen=True, slots=True)
class GenerationFailed:
    """`generate` failed for good: not retryable, or out of attempts."""

    failure: Failure
    attempts: tuple[Attempt, ...] = ()
    usage: Usage = NO_USAGE


@dataclass(frozen=True, slots=True)
class GenerationLost:
    """The worker of a model call is gone."""

    attempts: tuple[Attempt, ...] = ()
    is_refused: bool = False
    """It was leaving and did not begin: nothing is lost, and the next one may be leaving as well."""


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """`call_tool` answered; `index` is the call's position in `callTools.toolCalls`."""

    index: int
    outcome: ToolOutcome


@dataclass(frozen=True, slots=True)
class ToolFailed:
    """`call_tool` broke in a way that is no answer of the tool."""

    index: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class ToolLost:
    """The worker of a tool call is gone; `has_started` is false when it never took the call."""

    index: int
    has_started: bool
    is_refused: bool = False
    """As with a model call."""


@dataclass(frozen=True, slots=True)
class DelegateFinished:
    """A delegate's workflow ended, well or not."""

    index: int
    result: RunResult


@dataclass(frozen=True, slots=True)
class Answered:
    """A person answered an interactive call."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the run to end."""


Trigger = (
    Started
    | SessionOpened
    | SessionFailed
    | Generated
    | GenerationFailed
    | GenerationLost
    | ToolFinished
    | ToolFailed
    | ToolLost
    | DelegateFinished
    | Answered
    | CancelRequested
)
