"""A job that is only looked at: what happened in it, from the server, the archive or a file."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from decimal import Decimal

from ..client.follow import EndedOutside, JobFollower
from ..client.histories import Histories
from ..client.history import Execution
from ..core.events import Event, StopRunByInteractiveTool
from ..core.failures import UsageError
from ..core.usage import Usage
from ..definitions.prices import price
from .tui.backend import Ended, Stop

Newest = Callable[[], AbstractAsyncContextManager[Execution]]
"""Finds a job's newest execution; while it is read, what fails is told in words."""


class ReadJob:
    """The past of a job up to now; a `JobHandle` that does nothing to it."""

    def __init__(
        self, histories: Histories, job_id: str, *, newest: Newest, provider: str, link: str | None = None
    ) -> None:
        self.job_id = job_id
        self.provider = provider
        self.link = link
        self.is_ours = False
        self._histories = histories
        self._newest = newest

    async def events(self) -> AsyncIterator[Event | Ended | Stop]:
        """Everything that has happened by now; a `Stop` at the end, unless the job is at work."""
        async with self._newest() as newest:
            follower = JobFollower(self._histories, *await self._histories.job_chain(newest), wait=False)
            async with aclosing(follower.news()) as news:
                async for item in news:
                    yield told(item)
        stop = stop_of(follower)
        if stop is not None:
            yield stop

    def cost(self, model: str, usage: Usage) -> Decimal | None:
        """By the provider's list."""
        return cost(self.provider, model, usage)

    async def respond(self, call_id: str, text: str) -> None:
        """Not here."""
        raise self._only_read()

    async def go_on(self, query: str) -> None:
        """Not here."""
        raise self._only_read()

    async def resume(self) -> None:
        """Not here."""
        raise self._only_read()

    async def cancel(self) -> None:
        """Not here."""
        raise self._only_read()

    async def detach(self) -> None:
        """Not here."""
        raise self._only_read()

    async def close(self) -> None:
        """Nothing is held of it."""

    def _only_read(self) -> UsageError:
        return UsageError(
            f"Job {self.job_id} is only looked at here.", hint=f"`perstack resume {self.job_id}` goes on with it."
        )


def told(item: Event | EndedOutside) -> Event | Ended:
    """News of a follower in the words of the screens."""
    return Ended(item.run_id, item.closed, item.at) if isinstance(item, EndedOutside) else item


def is_question(item: Event | EndedOutside, follower: JobFollower) -> bool:
    """Whether with this the job has come to wait for a person."""
    return isinstance(item, StopRunByInteractiveTool) and follower.waits_at(item.checkpoint.id)


def stop_of(follower: JobFollower) -> Stop | None:
    """How a job that was read has stopped; `None` while it is at work."""
    root = follower.root
    result = root.fold.state.result if root.fold else None
    if result is not None:
        if result.failure is not None:
            return Stop(result.status, f"{result.failure.name}: {result.failure.message}")
        return Stop(result.status)
    if root.closed is not None:
        return Stop("ended", f"{root.closed} from outside")
    return Stop("stoppedByInteractiveTool") if follower.questions else None


def cost(provider: str, model: str, usage: Usage) -> Decimal | None:
    """By the list of a provider."""
    return price(provider, model, usage)
