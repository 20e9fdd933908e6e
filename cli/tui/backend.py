"""What the screens ask of the rest of the program: experts, jobs, and one job that works or has ended."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    # Screens that only say what they wait for are up before the models of events are loaded.
    from ...core.events import Event
    from ...core.usage import Usage


@dataclass(frozen=True, slots=True)
class ExpertChoice:
    """An expert that a job can be started with."""

    key: str
    description: str
    source: str
    """Where it is defined: `perstack.toml`, or `built-in`."""


@dataclass(frozen=True, slots=True)
class JobChoice:
    """A job of the server, as a list shows it."""

    job_id: str
    status: str
    """`running`, `waiting`, or how it ended: `completed`, `stoppedByError`, …"""
    expert_key: str
    query: str
    started_at: datetime
    closed_at: datetime | None
    steps: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """How the events of a job came to a stop."""

    kind: str
    """`completed`, `stoppedByError`, `stoppedByExceededMaxSteps`, `stoppedByCancellation`, `stoppedByInteractiveTool`
    (it waits for a person), or `ended` from outside."""
    message: str = ""
    """What a person has to know of it; empty when all went well."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that was ended from outside, which no event tells."""

    run_id: str
    closed: str
    """In Temporal's terms: terminated, timedOut."""
    at: int
    """Milliseconds since the epoch."""


class JobHandle(Protocol):
    """One job: what happens in it, and what a person can do to it."""

    @property
    def job_id(self) -> str: ...

    @property
    def link(self) -> str | None:
        """Where the Temporal Web UI shows it."""
        ...

    @property
    def provider(self) -> str: ...

    @property
    def is_ours(self) -> bool:
        """Whether this process works on it, so that leaving interrupts it."""
        ...

    def events(self) -> "AsyncIterator[Event | Ended | Stop]":
        """Everything that happened and happens, each event once, in causal order.

        A `Stop` is told whenever the job ends or waits for a person; what follows an answer or a new query comes
        after it. Without `wait` of the backend (a log) the events end after the last `Stop`, or where they stand now.

        Raises:
            PerstackError: the job cannot be followed any more.
        """
        ...

    def cost(self, model: str, usage: "Usage") -> Decimal | None:
        """What tokens of a model cost by the provider's list, in US dollars; `None` when nobody knows its price.

        May take a second the first time: not for the event loop.
        """
        ...

    async def respond(self, call_id: str, text: str) -> None:
        """Answer an open question.

        Raises:
            PerstackError: it is not open any more, or nobody can take the answer.
        """
        ...

    async def go_on(self, query: str) -> None:
        """Continue a job that has ended with a new query.

        Raises:
            PerstackError: the job is still open, or cannot go on.
        """
        ...

    async def resume(self) -> None:
        """Go on with a job that stopped before its end, from where it stopped.

        Raises:
            PerstackError: it is completed, or cannot go on.
        """
        ...

    async def cancel(self) -> None:
        """End the job with all its delegates."""
        ...

    async def detach(self) -> None:
        """Leave the job to a background process; afterwards this process does not work on it any more.

        Raises:
            PerstackError: it could not be left.
        """
        ...

    async def close(self) -> None:
        """Leave the job as it stands: parked where this process works on it, else untouched."""
        ...


class Backend(Protocol):
    """Everything behind the screens."""

    @property
    def place(self) -> str:
        """For people: the server or the file that jobs are read from."""
        ...

    @property
    def can_work(self) -> bool:
        """Whether jobs can go on here; where they cannot, nothing of the kind is offered."""
        ...

    def experts(self) -> Sequence[ExpertChoice]:
        """The experts of the definition in use, then the built-in ones.

        Raises:
            PerstackError: the definition cannot be read.
        """
        ...

    def built_in_experts(self) -> Sequence[ExpertChoice]:
        """Those that need no definition: what is left where it cannot be read."""
        ...

    async def jobs(self, take: int) -> Sequence[JobChoice]:
        """Jobs of the server, open ones first, then those that ended last."""
        ...

    async def start(self, expert_key: str, query: str) -> JobHandle:
        """Start a job, and work on it unless a pool does.

        Raises:
            PerstackError: a sentence for the person who asked for it.
        """
        ...

    async def open(self, job_id: str) -> JobHandle:
        """An existing job, to work on (`start`): an open one is taken over where nobody works on it."""
        ...

    async def read(self, job_id: str) -> JobHandle:
        """An existing job, only to look at (`log`): its events end at its present end, nobody works on it."""
        ...

    async def fork(self, job_id: str, checkpoint_id: str, query: str | None, *, is_branch: bool) -> JobHandle:
        """Go on from a checkpoint of any run: in the job itself, or as a new job with `is_branch`.

        Raises:
            PerstackError: a sentence for the person who asked for it.
        """
        ...
