"""Where our failures become Temporal's: the only place that builds an `ApplicationError`, and the heartbeat."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ..client.storage.outages import is_outage, listener
from ..core.failures import Attempt, Failure, PerstackError, StorageError
from ..core.usage import NO_USAGE, Usage
from ..workflows.contracts import TOO_LONG, TOOK_TOO_LONG, WORKER_LEAVING, FailureDetails, Heartbeat
from ..workflows.options import STORAGE_WAIT

HEARTBEAT_SECONDS = 0.5
"""The default interval: short enough for a cancel to arrive at once and for a tail to look live."""
SHORTEST_SECONDS = 0.1
BEATS_PER_SECOND = 20
"""Of a whole worker: heartbeats are writes of the server, which does about 140 tasks a CPU second on SQLite."""
LOST_AFTER_BEATS = 3
"""How many heartbeats fit into the time after which a silent worker is lost; two may come late."""


def to_application_error(
    error: PerstackError,
    *,
    failure: Failure,
    attempts: tuple[Attempt, ...] = (),
    usage: Usage = NO_USAGE,
    retry_after_seconds: float | None = None,
) -> ApplicationError:
    """`error` as Temporal sees it: its code as the type, everything a reader needs as the detail."""
    return ApplicationError(
        error.message,
        FailureDetails(failure=failure, attempts=attempts, usage=usage),
        type=error.code,
        non_retryable=not failure.is_retryable,
        next_retry_delay=None if retry_after_seconds is None else timedelta(seconds=retry_after_seconds),
    )


def worker_leaving(*details: Any, retry_after_seconds: float | None = None) -> ApplicationError:
    """The refusal of a worker that is leaving; Temporal repeats it where another worker may take the repetition."""
    return ApplicationError(
        "This worker is leaving.",
        *details,
        type=WORKER_LEAVING,
        non_retryable=retry_after_seconds is None,
        next_retry_delay=None if retry_after_seconds is None else timedelta(seconds=retry_after_seconds),
    )


@asynccontextmanager
async def failures_translated(*, retry_after_seconds: float | None = None) -> AsyncGenerator[None]:
    """Failures of ours that are not worth repeating leave the activity typed; bugs keep their traceback.

    Only a worker that leaves stops waiting for its storage, and only before a call has begun: another one takes it.
    """
    try:
        yield
    except StorageError as error:
        if is_outage(error):
            raise worker_leaving(retry_after_seconds=retry_after_seconds) from error
        failure = Failure(name=error.code, message=error.message)
        raise to_application_error(error, failure=failure) from error
    except PerstackError as error:
        failure = Failure(name=error.code, message=error.message)
        raise to_application_error(error, failure=failure) from error


def time_limit_seconds() -> float:
    """How long the calling activity may work; it may take longer only to hand in its result."""
    limit = activity.info().start_to_close_timeout
    assert limit is not None, "everything a run starts has a limit"
    return (limit - STORAGE_WAIT).total_seconds()


@asynccontextmanager
async def within(seconds: float, *, is_retryable: bool = False) -> AsyncGenerator[None]:
    """End the work of the block when its time is over; what waits for the storage belongs outside."""
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            yield
    except TimeoutError as error:
        if not deadline.expired():
            raise
        failure = Failure(name=TOO_LONG, message=TOOK_TOO_LONG, is_retryable=is_retryable)
        raise to_application_error(PerstackError(TOOK_TOO_LONG, code=TOO_LONG), failure=failure) from error


class Heartbeats:
    """The heartbeats of one worker's calls: the more calls live, the more slowly each of them beats."""

    def __init__(self, interval_seconds: float = HEARTBEAT_SECONDS) -> None:
        self.interval_seconds = max(SHORTEST_SECONDS, interval_seconds)
        """Of a call that is not one of many."""
        self._live = 0

    @asynccontextmanager
    async def beating(self, details: Callable[[], Heartbeat] | None = None) -> AsyncGenerator[None]:
        """Report life, and `details()`, while the block runs; does nothing in a local activity."""
        if activity.info().is_local:
            yield
            return
        self._live += 1
        pulse = _Pulse(details)
        listening = listener.set(pulse.hear)
        task = asyncio.create_task(self._beat(pulse))
        try:
            yield
        finally:
            self._live -= 1
            listener.reset(listening)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def interval(self, *, live: int, timeout_seconds: float) -> float:
        """Seconds from one beat of a call to the next when `live` calls beat and silence means loss."""
        wanted = max(self.interval_seconds, live / BEATS_PER_SECOND)
        return min(wanted, timeout_seconds / LOST_AFTER_BEATS)

    async def _beat(self, pulse: "_Pulse") -> None:
        timeout = activity.info().heartbeat_timeout
        timeout_seconds = timeout.total_seconds() if timeout else math.inf
        while True:
            await asyncio.sleep(self.interval(live=self._live, timeout_seconds=timeout_seconds))
            activity.heartbeat(*pulse.details())


class _Pulse:
    """What one call reports: its own details, and what it waits for."""

    def __init__(self, details: Callable[[], Heartbeat] | None) -> None:
        self._details = details
        self._waiting = ""

    def hear(self, waiting: str | None) -> None:
        self._waiting = waiting or ""

    def details(self) -> tuple[Heartbeat, ...]:
        if not self._waiting:
            return (self._details(),) if self._details else ()
        known = self._details() if self._details else Heartbeat()
        return (known.replaced(waiting=self._waiting),)
