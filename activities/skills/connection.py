"""One MCP connection and the task that owns it."""

import asyncio
import logging

from mcp import Client

logger = logging.getLogger(__name__)


class Connection:
    """Keeps `client` open in a task of its own, because its contexts have to be entered and left in one task.

    Calls may come from any task.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._owner: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

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
        """Disconnect; a connection that was never opened or is closed already stays so."""
        self._closing.set()
        if self._owner is None:
            return
        await asyncio.wait({self._owner})
        if not self._owner.cancelled() and (error := self._owner.exception()) is not None:
            logger.warning("An MCP connection did not close cleanly: %s", error)

    async def _own(self, is_ready: asyncio.Future[None]) -> None:
        async with self.client:
            is_ready.set_result(None)
            await self._closing.wait()
