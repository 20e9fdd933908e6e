"""What the machine asks for; the workflow turns each into activities, child workflows or waiting."""

from dataclasses import dataclass

from .conversation import Appendix, Position
from .run import RunInput, RunResult
from .tools import ToolCall, ToolSpec


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Render the instruction, list the tools, choose the worker."""


@dataclass(frozen=True, slots=True)
class Generate:
    """One model call over the conversation at `position`, after `appendix` was appended."""

    step_number: int
    ordinal: int
    """Own generation ordinal of the run, from 1."""
    position: Position
    appendix: Appendix


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """One call to execute, with the tool it names."""

    index: int
    call: ToolCall
    spec: ToolSpec


@dataclass(frozen=True, slots=True)
class CallTools:
    """Calls to run in parallel; their arguments stay in the session."""

    step_number: int
    position: Position
    calls: tuple[PlannedCall, ...]


@dataclass(frozen=True, slots=True)
class DelegateCall:
    """One delegate to start: the child's input still lacks its own run id."""

    index: int
    call: ToolCall
    child: RunInput


@dataclass(frozen=True, slots=True)
class Delegate:
    """Delegates to run in parallel."""

    calls: tuple[DelegateCall, ...]


@dataclass(frozen=True, slots=True)
class AskPerson:
    """Interactive calls that wait for a person: index and call of each."""

    calls: tuple[PlannedCall, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over."""

    result: RunResult


Effect = OpenSession | Generate | CallTools | Delegate | AskPerson | Finish
