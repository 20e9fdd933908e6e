"""Waiting for a storage that is away: the work is repeated, and people are told."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import TypeVar

from ...core.failures import StorageError

FIRST_DELAY_SECONDS = 0.25
LONGEST_DELAY_SECONDS = 5.0
TELL_AGAIN_SECONDS = 60.0
_THREADS = 16
"""Of their own: calls that wait for a dead network must not hold up everything else of the process."""

T = TypeVar("T")

Listener = Callable[[str | None], None]
listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
"""Hears what the calls of its context wait for, and `None` when they go on."""


class Outages:
    """What one storage's outages mean to the calls of this process."""

    def __init__(self, location: str) -> None:
        self.tell: Callable[[str], None] = lambda _: None
        """Takes one line when an outage begins, now and then while it lasts, and one when it is over."""
        self._location = location
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="perstack-storage")
        self._waiting = 0
        self._since = 0.0
        self._told: dict[str, float] = {}

    async def once(self, work: Callable[[], T]) -> T:
        """Do blocking work in a thread; an outage is the caller's to handle."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def through(self, work: Callable[[], T], *, gives_up: Callable[[float], bool] = lambda _: False) -> T:
        """Do blocking work in a thread, again and again while the storage is unavailable.

        Raises:
            StorageError: repeating would not help, or `gives_up` says so of the seconds waited so far.
        """
        begun = time.monotonic()
        delay = FIRST_DELAY_SECONDS
        hears = listener.get()
        is_waiting = False
        try:
            while True:
                try:
                    result = await self.once(work)
                except StorageError as error:
                    if not is_outage(error) or gives_up(time.monotonic() - begun):
                        raise
                    if not is_waiting:
                        is_waiting = True
                        self._begin()
                    self._say(error)
                    if hears is not None:
                        hears(error.message)
                else:
                    if is_waiting:
                        self._is_back()
                    return result
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY_SECONDS)
        finally:
            if is_waiting:
                self._waiting -= 1
                if hears is not None:
                    hears(None)

    def _begin(self) -> None:
        if not self._waiting:
            self._since = time.monotonic()
            self._told.clear()
        self._waiting += 1

    def _say(self, error: StorageError) -> None:
        now = time.monotonic()
        if now - self._told.get(error.message, -TELL_AGAIN_SECONDS) >= TELL_AGAIN_SECONDS:
            self._told[error.message] = now
            self.tell(f"{error.message}; what needs it waits and goes on by itself ({error.hint})")

    def _is_back(self) -> None:
        if self._told:
            self._told.clear()
            seconds = time.monotonic() - self._since
            self.tell(f"the payload storage {self._location} is back after {seconds:.0f} s")


def is_outage(error: StorageError) -> bool:
    """Whether the same call may succeed later."""
    return error.code == "storage.unavailable"
