"""Triggers → the machine → events with their times: how every reader sees a run (DESIGN §1)."""

from dataclasses import dataclass, field

from .checkpoint import Step
from .effects import Effect
from .events import Event, ResumeFromStop, RunBase, StartGeneration, StartRun
from .machine import advance
from .run import RunInput
from .state import RunState, begin
from .triggers import Trigger


@dataclass
class Fold:
    """The state of one run as its history tells it; feed it triggers in history order."""

    start: RunInput
    state: RunState = field(init=False)
    effects: tuple[Effect, ...] = ()
    """What the last trigger asked for; a reader performs none of it."""
    _started_at: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])

    def __post_init__(self) -> None:
        self.state = begin(self.start)

    def carry_on(self, start: RunInput) -> None:
        """Go on with the next execution of the same run, whose input holds the state the last one left."""
        self.start = start
        self.state = begin(start)

    def feed(self, trigger: Trigger, at_ms: int) -> list[Event]:
        """The events of `trigger`, stamped with the time of the history event it came from.

        Raises:
            IllegalTransition: the history does not belong to this machine.
        """
        transition = advance(self.state, trigger)
        self.state = transition.state
        self.effects = transition.effects
        return [self._stamped(event, at_ms) for event in transition.events]

    def _stamped(self, event: Event, at_ms: int) -> Event:
        # A failed attempt brought its own time along.
        changes: dict[str, object] = {"timestamp": event.timestamp or at_ms}
        if isinstance(event, RunBase):
            key = (event.run_id, event.step_number)
            if isinstance(event, (StartRun, ResumeFromStop, StartGeneration)):
                self._started_at.setdefault(key, at_ms)
            step = getattr(event, "step", None)
            if isinstance(step, Step):
                started = self._started_at.get(key, at_ms)
                changes["step"] = step.replaced(started_at=started, finished_at=at_ms)
        return event.replaced(**changes)
