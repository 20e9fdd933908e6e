"""A whole job in memory: a second interpreter of the machine's effects, with scripted answers instead of a world."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from perstack.core.effects import AskPerson, CallTools, Delegate, Effect, Finish, Generate, OpenSession, PlannedCall
from perstack.core.events import Event
from perstack.core.failures import Failure
from perstack.core.fold import Fold
from perstack.core.ids import cuid_from
from perstack.core.machine import advance
from perstack.core.run import Generation, RunInput, RunResult
from perstack.core.state import RunState, State, begin
from perstack.core.tools import ToolOutcome, ToolSpec, text_outcome
from perstack.core.triggers import (
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
from perstack.core.turn import Transition

from .scenarios import base_tools, in_call_order, say, session_report, types_of


@dataclass(frozen=True, slots=True)
class Loss:
    """The worker is lost before the answer comes."""

    has_started: bool = True


ModelAnswer = Generation | GenerationFailed | GenerationLost | Failure
"""What a model call comes to; a bare failure means that the run's session cannot be opened."""
ToolAnswer = ToolOutcome | Failure | Loss
ToolScript = Callable[[PlannedCall], ToolAnswer]


def default_tools(planned: PlannedCall) -> ToolAnswer:
    """attemptCompletion finds nothing to do; every other tool answers with its own name."""
    name = planned.call.tool_name
    return text_outcome("{}" if name == "attemptCompletion" else f'{{"tool":"{name}"}}')


@dataclass
class PlayedRun:
    """One run of the job: the interpreter's own state, and a fold of the same triggers."""

    start: RunInput
    parent: "PlayedRun | None" = None
    state: RunState = field(init=False)
    fold: Fold = field(init=False)
    told: list[tuple[Trigger, int]] = field(default_factory=list[tuple[Trigger, int]])
    events: list[Event] = field(default_factory=list[Event])
    asked: list[Generate] = field(default_factory=list[Generate])
    """Every model call the machine asked for."""
    said: int = 0
    """How many answers of the script are used up."""
    has_cancel: bool = False

    def __post_init__(self) -> None:
        self.state = begin(self.start)
        self.fold = Fold(self.start)


@dataclass(frozen=True, slots=True)
class Pending:
    """Something that has happened to a run and will be told to it."""

    run: PlayedRun
    trigger: Trigger


def depth_first(pending: Sequence[Pending]) -> int:
    """Delegates run to their ends before anything else goes on, the first of siblings first."""
    return min(range(len(pending)), key=lambda at: (-len(pending[at].run.start.path), pending[at].run.start.path, at))


@dataclass
class Play:
    """Runs one job: each expert's answers are scripted by its key; an expert without answers left says `done`."""

    answers: Mapping[str, Sequence[ModelAnswer]] = field(default_factory=dict[str, Sequence[ModelAnswer]])
    tools: ToolScript = default_tools
    people: Sequence[str] = ()
    """What persons answer, one question after another; then the job is parked."""
    specs: tuple[ToolSpec, ...] = field(default_factory=base_tools)
    choose: Callable[[Sequence[Pending]], int] = depth_first
    """Which of the things that happened at the same time is told next."""
    cancel_when: Callable[["Play"], bool] = lambda play: False
    """Asked before each trigger until the root is cancelled."""
    events: list[Event] = field(default_factory=list[Event])
    runs: list[PlayedRun] = field(default_factory=list[PlayedRun])
    pending: list[Pending] = field(default_factory=list[Pending])
    clock: int = 1000
    tick: int = 1
    """Milliseconds from one trigger to the next."""
    _answered: int = 0

    def run(self, start: RunInput) -> RunResult | None:
        """Play a job to its end; `None` when it waits for a person nobody speaks for. Again: its next execution."""
        root = self._begin(start, None)
        while True:
            if not root.has_cancel and root.events and self.cancel_when(self):
                self._cancel(root)
            if not self.pending:
                return root.state.result
            pending = self.pending.pop(self.choose(self.pending))
            self._tell(pending.run, pending.trigger)

    @property
    def root(self) -> PlayedRun:
        """The first run."""
        return self.runs[0]

    @property
    def types(self) -> list[str]:
        """Types of all run and streaming events so far."""
        return types_of(self.events)

    def observe(self, run: PlayedRun, trigger: Trigger, transition: Transition) -> None:
        """Told of every transition once the run has its new state."""

    def kept(self, state: RunState) -> RunState:
        """What remains of a state between two triggers."""
        return state

    def opened(self) -> Failure | None:
        """Why a session cannot be opened, if so."""
        return None

    def model_answer(self, run: PlayedRun) -> ModelAnswer:
        """What the model call in flight comes to; each is asked for once."""
        script = self.answers.get(run.start.expert_key, ())
        run.said += 1
        return script[run.said - 1] if run.said <= len(script) else say("done")

    def tool_answer(self, run: PlayedRun, planned: PlannedCall) -> ToolAnswer:
        """What the tool call comes to."""
        return self.tools(planned)

    @property
    def _earlier(self) -> tuple[str, ...]:
        """The root runs but the first: a delegate of each execution has an id of its own."""
        return tuple(run.start.run_id for run in self.runs if run.parent is None)[1:]

    def _begin(self, start: RunInput, parent: PlayedRun | None) -> PlayedRun:
        run = PlayedRun(start, parent)
        self.runs.append(run)
        self.pending.append(Pending(run, Started()))
        return run

    def _tell(self, run: PlayedRun, trigger: Trigger) -> None:
        if run.state.state == State.STOPPED:
            return
        self.clock += self.tick
        transition = advance(run.state, trigger)
        run.state = self.kept(transition.state)
        run.told.append((trigger, self.clock))
        run.asked.extend(effect for effect in transition.effects if isinstance(effect, Generate))
        events = run.fold.feed(trigger, self.clock)
        run.events.extend(events)
        self.events.extend(events)
        self.observe(run, trigger, transition)
        for effect in transition.effects:
            self._perform(run, effect)
        if isinstance(trigger, Started) and run.parent is not None and run.parent.has_cancel:
            self._cancel(run)

    def _perform(self, run: PlayedRun, effect: Effect) -> None:
        match effect:
            case Delegate(calls=delegated):
                for one in delegated:
                    run_id = cuid_from(one.child.job_id, "run", *self._earlier, *one.child.path)
                    self._begin(one.child.model_copy(update={"run_id": run_id}), run)
            case Finish(result=result):
                if run.parent is not None:
                    index = int(run.start.path[-1].rpartition(".")[2])
                    self.pending.append(Pending(run.parent, DelegateFinished(index, _reported(run, result))))
            case _:
                self.pending.extend(Pending(run, trigger) for trigger in self._answers(run, effect))

    def _answers(self, run: PlayedRun, effect: Effect) -> Iterator[Trigger]:
        match effect:
            case OpenSession():
                failure = self.opened()
                yield SessionFailed(failure) if failure else SessionOpened(session_report(self.specs))
            case Generate():
                yield self._generated(run)
            case CallTools(calls=planned):
                for one in reversed(planned):  # results need not arrive in call order
                    yield _called(one.index, self.tool_answer(run, one))
            case AskPerson(calls=asked):
                if self._answered < len(self.people):
                    self._answered += 1
                    yield Answered(asked[0].index, self.people[self._answered - 1])
            case _:
                raise AssertionError(effect)

    def _generated(self, run: PlayedRun) -> Trigger:
        match self.model_answer(run):
            case Generation() as generation:
                return Generated(in_call_order(generation, run.state.toolset.specs))
            case Failure() as failure:
                return SessionFailed(failure)
            case other:
                return other

    def _cancel(self, run: PlayedRun) -> None:
        """Cancel a run and all below it; what is in flight ends as cancelled unless `survives` says otherwise."""
        run.has_cancel = True
        self._tell(run, CancelRequested())
        for at, pending in enumerate(self.pending):
            if pending.run is run and not self.survives(pending):
                self.pending[at] = Pending(run, _cancelled(pending.trigger))
        for child in [child for child in self.runs if child.parent is run and child.events]:
            self._cancel(child)

    def survives(self, pending: Pending) -> bool:
        """Whether something in flight ends by itself although its run was cancelled."""
        return False


def _called(index: int, answer: ToolAnswer) -> Trigger:
    match answer:
        case ToolOutcome():
            return ToolFinished(index, answer)
        case Failure():
            return ToolFailed(index, answer)
        case Loss(has_started=has_started):
            return ToolLost(index, has_started)


def _cancelled(trigger: Trigger) -> Trigger:
    """What comes of an activity that is cancelled before it ends."""
    match trigger:
        case Generated() | GenerationFailed() | GenerationLost():
            return Generated(Generation(finish_reason="cancelled"))
        case ToolFinished(index=index) | ToolFailed(index=index) | ToolLost(index=index):
            return ToolLost(index, has_started=False)
        case SessionOpened() | SessionFailed():
            return SessionFailed(Failure(name="cancelled", message="The session was cancelled while it opened."))
        case _:
            return trigger


def _reported(run: PlayedRun, result: RunResult) -> RunResult:
    """What a parent hears of its delegate: of a cancelled workflow nothing but that."""
    if result.status != "stoppedByCancellation":
        return result
    return RunResult(
        status=result.status,
        expert_key=run.start.expert_key,
        run_id="",
        checkpoint_id="",
        last_step=run.start.first_step - 1,
    )
