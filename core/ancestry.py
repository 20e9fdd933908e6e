"""Which run another one goes on from, found in the events: a conversation keeps the ids of its messages."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from .checkpoint import Checkpoint
from .messages import InputMessage, Message
from .seed import Origin

AnyMessage = Message | InputMessage


@dataclass(frozen=True, slots=True)
class Past:
    """The point of another run that a run goes on from."""

    run_id: str
    """That run's first id; of a run of another job, the id of its segment."""
    step_number: int
    checkpoint_id: str | None = None
    """Absent where that run was cut off amid a step."""
    is_end: bool = False
    """Whether that was as far as the conversation had come: it is continued or resumed, nobody goes back in it."""
    job_id: str | None = None
    """Of another job."""

    @classmethod
    def of(cls, origin: Origin) -> "Past":
        """A point of another job."""
        return cls(origin.run_id, origin.step_number, origin.checkpoint_id, job_id=origin.job_id)


@dataclass
class _Told:
    """What was told of one run."""

    run_id: str
    step_number: int
    last: str
    """The id of its last message."""
    points: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])
    """Its checkpoints: step, last message, id."""

    def past(self, step_number: int, last: str) -> Past | None:
        """The newest point at a step, or before it, where `last` was the last message."""
        is_end = self.last == last and self.step_number <= step_number
        for step, message, checkpoint_id in reversed(self.points):
            if message == last and step <= step_number:
                if is_end and step < self.step_number:
                    break  # it has begun the next step since, and was cut off in it
                return Past(self.run_id, step, checkpoint_id, is_end=is_end)
        return Past(self.run_id, self.step_number, is_end=True) if is_end else None


@dataclass
class Ancestry:
    """The runs of a job by their conversations."""

    _runs: dict[str, _Told] = field(default_factory=dict[str, _Told])
    _conversations: dict[str, list[_Told]] = field(default_factory=dict[str, list[_Told]])
    """By the id of the first message, oldest first."""

    def begin(self, run_id: str, checkpoint: Checkpoint, messages: Iterable[AnyMessage]) -> Past | None:
        """Note the beginning of a run; what it goes on from, if that is a run of this job."""
        ids = [message.id for message in checkpoint.messages]
        told = [*ids, *(message.id for message in messages)]
        if not told:
            return None
        others = self._conversations.setdefault(told[0], [])
        past = _found(others, checkpoint.step_number - 1, ids[-1]) if ids else None
        run = _Told(run_id, checkpoint.step_number, told[-1])
        self._runs[run_id] = run
        others.append(run)
        return past

    def say(self, run_id: str, step_number: int, messages: Iterable[AnyMessage]) -> None:
        """Note what a run has come to."""
        run = self._runs.get(run_id)
        if run is not None:
            run.step_number = step_number
            for message in messages:
                run.last = message.id

    def close(self, run_id: str, checkpoint: Checkpoint) -> None:
        """Note a checkpoint, from which somebody may go on."""
        run = self._runs.get(run_id)
        if run is not None and checkpoint.messages:
            run.points.append((checkpoint.step_number, checkpoint.messages[-1].id, checkpoint.id))


def _found(runs: list[_Told], step_number: int, last: str) -> Past | None:
    """A root goes on with the step after its past; a delegate with a later one, where its parent has come further."""
    for run in reversed(runs):
        past = run.past(step_number, last)
        if past is not None:
            return past if run is runs[-1] else replace(past, is_end=False)
    return None
