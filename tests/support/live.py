"""A job handle that is watched: everything it tells, and waiting for a part of it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from perstack.cli.tui.backend import Ended, JobHandle, Stop
from perstack.core.events import Event
from perstack.core.view_state import ViewState

LONGEST_SECONDS = 60.0
Item = Event | Ended | Stop


@dataclass
class Watched:
    """What a handle told so far, folded as the screens fold it."""

    handle: JobHandle
    items: list[Item] = field(default_factory=list[Item])
    view: ViewState = field(default_factory=ViewState)
    failure: Exception | None = None
    has_ended: bool = False
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def stops(self) -> list[Stop]:
        """Every stop so far."""
        return [item for item in self.items if isinstance(item, Stop)]

    @property
    def ended(self) -> list[Ended]:
        """Every end from outside so far."""
        return [item for item in self.items if isinstance(item, Ended)]

    @property
    def events(self) -> list[Event]:
        """Every event so far."""
        return [item for item in self.items if not isinstance(item, Stop | Ended)]

    def of_type(self, type_: str) -> list[Event]:
        """The events of one type so far."""
        return [event for event in self.events if event.type == type_]

    async def read(self) -> None:
        """Take everything in until the handle has no more."""
        try:
            async for item in self.handle.events():
                self.items.append(item)
                if isinstance(item, Ended):
                    self.view.end_from_outside(item.run_id, item.closed, item.at)
                elif not isinstance(item, Stop):
                    self.view.feed(item)
                await self._tell()
        except Exception as error:
            self.failure = error
        self.has_ended = True
        await self._tell()

    async def until(self, is_there: Callable[[], object], *, seconds: float = LONGEST_SECONDS) -> None:
        """Wait until something is so."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(lambda: is_there() or self.failure is not None)
        except TimeoutError:
            told = [item.type if not isinstance(item, Stop | Ended) else item for item in self.items[-12:]]
            raise AssertionError(f"it did not come; the last that was told: {told}") from None
        if self.failure is not None and not is_there():
            raise self.failure

    async def stopped(self, count: int = 1) -> Stop:
        """The stop of that number."""
        await self.until(lambda: len(self.stops) >= count)
        return self.stops[count - 1]

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def watched(handle: JobHandle) -> AsyncGenerator[Watched]:
    """Watch a handle while the block runs; afterwards it is closed, and has told its last."""
    watched = Watched(handle)
    reading = asyncio.create_task(watched.read())
    try:
        yield watched
    finally:
        async with asyncio.timeout(LONGEST_SECONDS):
            await handle.close()
            await reading
