"""Where our failures become Temporal's: the only place that builds an `ApplicationError`, and the heartbeat."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from ..core.failures import Attempt, Failure, PerstackError
from ..core.usage import NO_USAGE, Usage
from ..workflows.contracts import WORKER_LEAVING, FailureDetails

HEARTBEAT_SECONDS = 0.5
"""The default interval: short enough for a cancel to arrive at once and for a tail to look live."""


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
async def failures_translated() -> AsyncGenerator[None]:
    """Failures of ours that are not worth repeating leave the activity typed; bugs keep their traceback."""
    try:
        yield
    except PerstackError as error:
        failure = Failure(name=error.code, message=error.message)
        raise to_application_error(error, failure=failure) from error


@asynccontextmanager
async def heartbeating(
    details: Callable[[], Any] | None = None, *, interval_seconds: float = HEARTBEAT_SECONDS
) -> AsyncGenerator[None]:
    """Report life, and `details()`, every interval while the block runs; does nothing in a local activity."""
    if activity.info().is_local:
        yield
        return
    task = asyncio.create_task(_beat(details, interval_seconds))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _beat(details: Callable[[], Any] | None, interval_seconds: float) -> None:
    while True:
        await asyncio.sleep(interval_seconds)
        if details is None:
            activity.heartbeat()
        else:
            activity.heartbeat(details())
