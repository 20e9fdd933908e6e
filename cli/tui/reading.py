"""A job as it is read for the screens that show it."""

import asyncio

from ...core.failures import PerstackError
from ...core.view_state import ViewState
from .backend import Ended, JobHandle, Stop

_AT_ONCE = 50
"""Events between two chances for the screen to be drawn and for keys to be heard."""


class Reading:
    """The events of a job folded into what screens show; they look at `revision` to see whether it changed."""

    def __init__(self, handle: JobHandle) -> None:
        self.handle = handle
        self.view = ViewState()
        self.stop: Stop | None = None
        """How the job stands still, if it does."""
        self.problem: PerstackError | None = None
        """Why it cannot be read to its end."""
        self.is_done = False
        """Whether nothing more will come."""
        self.revision = 0

    @property
    def is_open(self) -> bool:
        """Whether the job works or waits."""
        root = self.view.root
        return root is not None and not root.has_ended

    async def read(self) -> None:
        """Read all there is; returns when nothing more will come."""
        try:
            async for item in self.handle.events():
                match item:
                    case Stop():
                        self.stop = item
                    case Ended():
                        self.view.end_from_outside(item.run_id, item.closed, item.at)
                    case event:
                        self.stop = None
                        self.view.feed(event)
                self.revision += 1
                if self.revision % _AT_ONCE == 0:
                    await asyncio.sleep(0)
        except PerstackError as error:
            self.problem = error
        self.is_done = True
        self.revision += 1
