"""What `perstack log` shows of a job, before it is text or JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.checkpoint import Checkpoint
from ..core.event_query import DEFAULT_TAKE, EventQuery, EventSummary, Expression, Page, StepRange, parse_count
from ..core.events import Event
from ..core.failures import UsageError
from .terminal import has_terminal

if TYPE_CHECKING:
    from ..client.follow import JobFollower

NOTHING = "No data found"
"""What is printed where there is no job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What was said on the command line of `log`, word by word."""

    job_id: str | None = None
    file: str | None = None
    run_id: str | None = None
    checkpoint_id: str | None = None
    step: str | None = None
    type: str | None = None
    is_errors: bool = False
    is_tools: bool = False
    is_delegations: bool = False
    expression: str | None = None
    take: str | None = None
    offset: str | None = None
    context: str | None = None
    is_text: bool = False
    is_json: bool = False
    is_pretty: bool = False
    is_cassette: bool = False
    is_export: bool = False
    is_verbose: bool = False
    is_summary: bool = False
    has_messages: bool = False
    is_following: bool = False
    address: str | None = None

    def query(self) -> EventQuery:
        """The events that are asked for.

        Raises:
            UsageError: an option makes no sense.
        """
        return EventQuery(
            steps=StepRange.parse(self.step) if self.step is not None else None,
            type=self.type,
            is_errors=self.is_errors,
            is_tools=self.is_tools,
            is_delegations=self.is_delegations,
            expression=Expression.parse(self.expression) if self.expression is not None else None,
            take=parse_count("--take", self.take) if self.take is not None else DEFAULT_TAKE,
            offset=parse_count("--offset", self.offset) if self.offset is not None else 0,
            context=parse_count("--context", self.context) if self.context is not None else 0,
        )

    @property
    def is_for_eyes(self) -> bool:
        """Whether nothing was said but which job it is about: neither a form nor a part of it."""
        plain = LogOptions(job_id=self.job_id, file=self.file, address=self.address)
        return self == plain


def wants_screens(options: LogOptions) -> bool:
    """Whether a person sits before a terminal that can show screens, and asked for nothing else."""
    return has_terminal() and options.is_for_eyes


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
