"""What a view of a job shows, as text to compare; and what it has to show, from the states of the machine."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from perstack.core.events import Event
from perstack.core.fold import Fold
from perstack.core.run import RunInput
from perstack.core.state import RunState, State
from perstack.core.triggers import DelegateFinished, Trigger
from perstack.core.usage import NO_USAGE, Usage
from perstack.core.view_state import Phase, RunView, ViewState

from .play import Play, PlayedRun

_OPEN: dict[State, Phase] = {
    State.INIT: "starting",
    State.GENERATING_TOOL_CALL: "generating",
    State.CALLING_MCP_TOOLS: "callingTools",
    State.CALLING_DELEGATES: "waitingForDelegates",
    State.CALLING_INTERACTIVE_TOOLS: "waitingForPerson",
}
_ENDED: dict[str, Phase] = {
    "completed": "completed",
    "stoppedByError": "failed",
    "stoppedByExceededMaxSteps": "stepLimit",
    "stoppedByCancellation": "cancelled",
}


def view_of(events: Iterable[Event]) -> ViewState:
    """The view after these events."""
    view = ViewState()
    for event in events:
        view.feed(event)
    return view


@dataclass
class Expected:
    """A run as the machine has it, trigger by trigger."""

    start: RunInput
    state: RunState
    reported: Usage = NO_USAGE
    """What its delegates reported."""

    @property
    def phase(self) -> Phase:
        """What it does."""
        return _ENDED[self.state.result.status] if self.state.result is not None else _OPEN[self.state.state]

    @property
    def usage(self) -> Usage:
        """Its own: all it accounts for, less what its delegates and its past used."""
        past = self.start.seed.checkpoint.usage if self.start.seed is not None else NO_USAGE
        whole, others = self.state.checkpoint.usage, self.reported + past
        return Usage(**{name: getattr(whole, name) - getattr(others, name) for name in Usage.model_fields})

    def take(self, trigger: Trigger, state: RunState) -> None:
        """Note what became of the run by a trigger."""
        self.state = state
        if isinstance(trigger, DelegateFinished):
            self.reported = self.reported + trigger.result.usage

    def differences(self, run: RunView) -> list[str]:
        """What a view shows otherwise."""
        state, checkpoint = self.state, self.state.checkpoint
        asked = (checkpoint.pending_tool_calls or ()) if self.phase == "waitingForPerson" else ()
        pairs = {
            "phase": (run.phase, self.phase),
            "usage": (run.usage, self.usage),
            "generations": (run.generations, state.generations - state.earlier_generations),
            "questions": (run.questions, tuple(asked)),
            "segments": (len(run.segments), state.segment + 1),
            "segment": (run.segments[-1].run_id, checkpoint.run_id),
            "failure": (run.failure, checkpoint.error),
        }
        if state.state != State.INIT:
            pairs |= {
                "expert": (run.expert_key, self.start.expert_key),
                "context": (run.context_window_usage, checkpoint.context_window_usage),
                "step": (run.step_number, checkpoint.step_number),
            }
        return [f"{name}: {shown} is not {due}" for name, (shown, due) in pairs.items() if shown != due]


@dataclass
class Replay:
    """A played job once more, one trigger of one run after the other."""

    play: Play
    expected: dict[str, Expected] = field(default_factory=dict[str, Expected])
    """By the first id of the run."""

    def turns(self) -> Iterator[list[Event]]:
        """The events of each trigger, in the order in which they were told; `expected` stands as it then did."""
        folds = {run.start.run_id: Fold(run.start) for run in self.play.runs}
        for run, trigger, at in self._order():
            name = run.start.run_id
            fold = folds[name]
            events = fold.feed(trigger, at)
            self.expected.setdefault(name, Expected(run.start, fold.state)).take(trigger, fold.state)
            yield events

    def _order(self) -> list[tuple[PlayedRun, Trigger, int]]:
        told = ((run, trigger, at) for run in self.play.runs for trigger, at in run.told)
        return sorted(told, key=lambda one: one[2])


def shown(view: ViewState) -> list[str]:
    """All that a view says of its runs, a few lines for each."""
    lines = [f"job {view.job_id}: {len(view.runs)} runs, {view.events} events, {_tokens(view.usage)}"]
    for number, root in enumerate(view.roots, start=1):
        lines.append(f"execution {number}")
        for run, depth in view.tree(root):
            lines.extend("  " * (depth + 1) + line for line in _run(run, view))
    lines.extend(f"asks {call.tool_name} {call.args}" for call in view.questions)
    return lines


def _run(run: RunView, view: ViewState) -> list[str]:
    failure = f" ({run.failure.name})" if run.failure else f" ({run.closed})" if run.closed else ""
    ended = f"–{run.ended_at - view.started_at}" if run.ended_at is not None else ""
    lines = [
        f"{run.expert_key} {run.phase}{failure}, at {run.started_at - view.started_at}{ended}: {run.query[:40]!r}",
        f"  {run.generations} generations, {_tokens(run.usage)}, context {run.context_window_usage}",
        "  " + " · ".join(_segments(run)),
        "  steps " + " ".join(f"{one.step.step_number}:{one.checkpoint.status}" for one in run.steps),
        "  log " + " ".join(entry.activity.type for entry in run.log),
    ]
    if run.past is not None:
        where = "the end" if run.past.is_end else f"step {run.past.step_number}"
        lines.append(f"  goes on from {where} of run {view.runs.index(run.continues) if run.continues else '?'}")
    return lines


def _segments(run: RunView) -> Iterator[str]:
    for segment in run.segments:
        called = ",".join(call.tool_name for call in segment.delegations)
        yield f"{segment.phase}{f' of {called}' if called else ''}"


def _tokens(usage: Usage) -> str:
    return f"{usage.input_tokens}+{usage.output_tokens} tokens"
