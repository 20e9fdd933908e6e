"""What `perstack log` shows of a job, before it is text or JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.checkpoint import Checkpoint
from ..core.event_query import EventSummary, Page
from ..core.events import Event
from ..core.failures import UsageError
from .log_options import LogOptions

if TYPE_CHECKING:
    from ..client.follow import JobFollower

NOTHING = "No data found"
"""What is printed where there is no job."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the job is read from."""

    storage: str | None = None
    """For people; absent for a file."""
    is_latest: bool = False
    """Whether nobody named the job."""


@dataclass(frozen=True)
class LogView:
    """A job and the page of its events that was asked for."""

    follower: "JobFollower"
    source: Source
    page: Page
    summary: EventSummary
    """Of everything that matches, on the page or not."""
    checkpoints: tuple[Checkpoint, ...]
    """Each once, as it was last, in the order in which they were made."""
    checkpoint: Checkpoint | None
    """The one that was asked for."""

    @classmethod
    def of(cls, follower: "JobFollower", events: Sequence[Event], options: LogOptions, source: Source) -> "LogView":
        """The view of a job that was read to its present end.

        Raises:
            UsageError: the job has no such run or checkpoint.
        """
        checkpoints = _checkpoints(events)
        checkpoint = checkpoints.get(options.checkpoint_id or "")
        if options.checkpoint_id is not None and checkpoint is None:
            raise _unknown("checkpoint", options.checkpoint_id, follower)
        runs = Segments(follower)
        if checkpoint is not None:
            events = [event for event in events if runs.first_of(event.run_id) == runs.first_of(checkpoint.run_id)]
        if options.run_id is not None:
            if not any(runs.holds(options.run_id, event) for event in events):
                raise _unknown("run", options.run_id, follower)
            events = [event for event in events if runs.holds(options.run_id, event)]
        query = options.query()
        matching = query.matching(events)
        return cls(
            follower=follower,
            source=source,
            page=query.page(events, matching),
            summary=EventSummary.of([events[place] for place in matching]),
            checkpoints=tuple(checkpoints.values()),
            checkpoint=checkpoint,
        )


class Segments:
    """Which run a run id belongs to: a run that goes on after a stop gets a new one."""

    def __init__(self, follower: "JobFollower") -> None:
        self._follower = follower

    def first_of(self, run_id: str) -> str:
        """The id that the run began with."""
        run = self._follower.view.run_of(run_id)
        return run.run_id if run is not None else run_id

    def holds(self, run_id: str, event: Event) -> bool:
        """Whether an event is of that run: the first id of a run stands for the whole, a later one for itself."""
        return run_id in (event.run_id, self.first_of(event.run_id))


def _checkpoints(events: Sequence[Event]) -> dict[str, Checkpoint]:
    found: dict[str, Checkpoint] = {}
    for event in events:
        checkpoint = getattr(event, "checkpoint", None)
        if isinstance(checkpoint, Checkpoint):
            found[checkpoint.id] = checkpoint
    return found


def _unknown(what: str, its_id: str, follower: "JobFollower") -> UsageError:
    job_id = follower.job().id
    return UsageError(
        f"{what.capitalize()} {its_id} not found in job {job_id}",
        code=f"usage.unknown_{what}",
        hint=f"`perstack log --job {job_id} --json` names its runs and checkpoints.",
    )
