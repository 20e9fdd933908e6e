"""One run of a job as screens show it; `view_state` folds it from the events."""

from dataclasses import dataclass, field
from typing import Literal

from .activity import Activity
from .ancestry import Past
from .checkpoint import Checkpoint, Step
from .events import RunBase
from .failures import Failure
from .tools import ToolCall
from .usage import NO_USAGE, Usage

Phase = Literal[
    "starting",
    "generating",
    "reasoning",
    "answering",
    "callingTools",
    "waitingForDelegates",
    "waitingForPerson",
    "completed",
    "failed",
    "stepLimit",
    "cancelled",
    "ended",
]
"""What a run does now, or how it ended; `ended` is from outside: terminated, or timed out."""
WORKING: frozenset[Phase] = frozenset({"starting", "generating", "reasoning", "answering", "callingTools"})
WAITING: frozenset[Phase] = frozenset({"waitingForDelegates", "waitingForPerson"})
"""The rest has ended."""
_GENERATING: frozenset[Phase] = frozenset({"generating", "reasoning", "answering"})


@dataclass
class LiveText:
    """What a generation has said so far (contract 2 §6.2)."""

    reasoning: str = ""
    is_reasoning_active: bool = False
    run_result: str = ""
    is_run_result_active: bool = False


@dataclass
class StepView:
    """One step of a run that has come to an end, or to a stop; a step that stopped twice is there twice."""

    run_id: str
    """Of its segment."""
    step: Step
    checkpoint: Checkpoint
    """What `--resume-from` takes."""


@dataclass
class Segment:
    """A run from its beginning, or from a stop, to the next stop; each has a run id of its own."""

    run_id: str
    started_at: int
    """Milliseconds since the epoch, as everywhere."""
    ended_at: int | None = None
    phase: Phase = "starting"
    """The run's, while this is its last segment; how the segment ended, otherwise."""
    place: int = 0
    """Among all segments of the job, in the order in which they were told."""
    delegations: tuple[ToolCall, ...] = ()
    """The calls that it ended with, one for each delegate."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One line of the log: an activity, when it was told, and whose it is."""

    activity: Activity
    at: int
    run: "RunView"


@dataclass(eq=False)
class RunView:
    """One run over all its segments."""

    run_id: str
    """Of its first segment."""
    expert_key: str
    model: str
    started_at: int
    parent: "RunView | None" = None
    caller: str | None = None
    """The parent's segment that called this run."""
    call_id: str | None = None
    """The call of the parent that this run answers."""
    query: str = ""
    """Its task; of a run that was only resumed, the one it still has."""
    has_query: bool = False
    """Whether it began with a task, or a new one; a run that was only resumed did not."""
    max_steps: int | None = None
    continues: "RunView | None" = None
    """The run of the same conversation that this one goes on from, in an earlier execution of the job."""
    past: Past | None = None
    """Where exactly; unknown for the first run of a branch unless somebody tells it."""
    first_step: int = 0
    has_past: bool = False
    children: "list[RunView]" = field(default_factory=list["RunView"])
    """In the order of the calls."""
    segments: list[Segment] = field(default_factory=list[Segment])
    steps: list[StepView] = field(default_factory=list[StepView])
    log: list[Entry] = field(default_factory=list[Entry])
    phase: Phase = "starting"
    step_number: int = 0
    generations: int = 0
    context_window: int | None = None
    context_window_usage: float | None = None
    ended_at: int | None = None
    closed: str | None = None
    """How it was ended from outside, in Temporal's terms."""
    failure: Failure | None = None
    questions: tuple[ToolCall, ...] = ()
    """What it asks a person now."""
    calls: tuple[ToolCall, ...] = ()
    """Of its last message, of all kinds; in the phase `callingTools` the ones that are under way."""
    live: LiveText = field(default_factory=LiveText)
    _settled: Usage = NO_USAGE
    """Of its steps, as each says itself."""
    _open: Usage = NO_USAGE
    """Of the step that is under way."""
    _shown: set[str] = field(default_factory=set[str])
    """The ids of the live events of the generation that is under way."""

    @property
    def usage(self) -> Usage:
        """What it used itself, without its delegates and its past."""
        return self._settled + self._open

    @property
    def is_working(self) -> bool:
        return self.phase in WORKING

    @property
    def is_waiting(self) -> bool:
        return self.phase in WAITING

    @property
    def has_ended(self) -> bool:
        return not (self.is_working or self.is_waiting)

    def count(self, usage: Usage) -> None:
        """Add what a generation used, or an attempt at one, to the step that is under way."""
        self._open = self._open + usage

    def settle(self, view: StepView) -> None:
        """Note a step; what it used is what it says itself, once, also where it stopped twice."""
        last = self.steps[-1] if self.steps else None
        is_again = last is not None and (last.run_id, last.step.step_number) == (view.run_id, view.step.step_number)
        if not is_again:
            self._settled = self._settled + view.step.usage
        self._open = NO_USAGE
        self.steps.append(view)

    def stand(self, phase: Phase, at: int) -> None:
        """Note what it does now, or how it ended."""
        segment = self.segments[-1]
        self.phase = segment.phase = phase
        if phase in WORKING:
            self.questions = ()
        else:
            segment.ended_at = at
        if self.has_ended:
            self.ended_at = at

    def is_news(self, event: RunBase) -> bool:
        """Whether a live event belongs to the generation that is under way and was not shown yet."""
        if self.phase not in _GENERATING or event.step_number != self.step_number or event.id in self._shown:
            return False
        self._shown.add(event.id)
        return True

    def generate(self) -> None:
        """A generation begins: nothing of it was said yet."""
        self.generations += 1
        self.live = LiveText()
        self._shown.clear()
