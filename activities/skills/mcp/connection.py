"""One MCP connection and the task that owns it."""

import asyncio
import logging
from contextlib import AbstractAsyncContextManager

from mcp import Client

logger = logging.getLogger(__name__)

_CLOSE_SECONDS = 3.5
_CANCEL_SECONDS = 1.0


class Connection:
    """Keeps a client open in a task of its own, because its contexts have to be entered and left in one task.

    Calls may come from any task.
    """

    def __init__(self, context: AbstractAsyncContextManager[Client]) -> None:
        self._context = context
        self._client: Client | None = None
        self._owner: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def client(self) -> Client:
        """The client; there is one as soon as the connection was opened."""
        if self._client is None:
            raise RuntimeError("The connection was not opened.")
        return self._client

    @property
    def is_open(self) -> bool:
        """Whether it was opened and has not ended, by `close` or by itself."""
        return self._client is not None and self._owner is not None and not self._owner.done()

    @property
    def failure(self) -> BaseException | None:
        """What ended it, if not `close`."""
        if self._owner is None or not self._owner.done() or self._owner.cancelled():
            return None
        return self._owner.exception()

    async def ended(self, timeout_seconds: float) -> None:
        """Wait until it has ended by itself, but not longer."""
        if self._owner is not None:
            await asyncio.wait({self._owner}, timeout=timeout_seconds)

    async def open(self) -> None:
        """Connect; raises what the client raised."""
        if self._owner is not None:
            raise RuntimeError("The connection was opened before.")
        is_ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._owner = asyncio.create_task(self._own(is_ready))
        try:
            await asyncio.wait({self._owner, is_ready}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._owner.cancel()
            raise
        if self._owner.done():
            self._owner.result()

    async def close(self) -> None:
        """Disconnect within 4.5 seconds; a connection that was never opened or is closed already stays so."""
        self._closing.set()
        if self._owner is None:
            return
        await asyncio.wait({self._owner}, timeout=_CLOSE_SECONDS)
        if not self._owner.done():
            self._owner.cancel()
            await asyncio.wait({self._owner}, timeout=_CANCEL_SECONDS)
        if not self._owner.done():
            logger.warning("An MCP connection did not close in time")
        elif not self._owner.cancelled() and (error := self._owner.exception()) is not None:
            logger.debug("An MCP connection did not close cleanly: %s", error)

    async def _own(self, is_ready: asyncio.Future[None]) -> None:
        async with self._context as client:
            self._client = client
            is_ready.set_result(None)
            await self._closing.wait()
