"""What this process holds of a job: a worker that may fail, and live text from wherever the work is done."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager

from ..client.follow import DeltaSource
from ..client.history import Execution
from ..core.deltas import LiveNews
from .workers import Work

Failed = Callable[[BaseException], None]


class Hold:
    """Work on an execution, from the moment it has begun until it is left.

    A worker that fails cancels the task that entered it: that is a task of ours, never one of a screen.
    """

    def __init__(self, entering: AbstractAsyncContextManager[Work], failed: Failed) -> None:
        self._entering = entering
        self._failed = failed
        self._leaving = asyncio.Event()
        self._begun: asyncio.Future[Work] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep())

    async def begun(self) -> Work:
        """The work, once it has begun.

        Raises:
            Exception: whatever kept it from beginning.
        """
        try:
            return await asyncio.shield(self._begun)
        except asyncio.CancelledError:
            # Whoever waited is gone, and nobody else would ever leave.
            self._leaving.set()
            raise

    async def leave(self) -> None:
        """End it; a worker of ours gives calls in flight a moment, and the job is parked."""
        self._leaving.set()
        await asyncio.wait([self._task])

    async def _keep(self) -> None:
        try:
            async with self._entering as work:
                if not self._begun.cancelled():
                    self._begun.set_result(work)
                await self._leaving.wait()
        except BaseException as error:
            if not self._begun.done():
                self._begun.set_exception(error)
            elif not self._leaving.is_set():
                self._failed(error)


class MovingDeltas:
    """Live text from the source of the moment: where a job is worked on changes while somebody follows it."""

    def __init__(self, source: DeltaSource) -> None:
        self._source = source
        self._subscriber: Callable[[LiveNews], None] | None = None
        self._generating: Callable[[], Iterable[Execution]] = tuple
        self._stop: Callable[[], None] = lambda: None

    def use(self, source: DeltaSource) -> None:
        """Take it from there from now on."""
        self._source = source
        if self._subscriber is not None:
            self._stop()
            self._stop = source.subscribe(self._subscriber, self._generating)

    def subscribe(
        self, subscriber: Callable[[LiveNews], None], generating: Callable[[], Iterable[Execution]]
    ) -> Callable[[], None]:
        """Hand every delta to `subscriber`, the only one at a time, until the returned function is called."""
        self._subscriber, self._generating = subscriber, generating
        self._stop = self._source.subscribe(subscriber, generating)
        return self._unsubscribe

    def _unsubscribe(self) -> None:
        self._stop()
        self._subscriber = None
