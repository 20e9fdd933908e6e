"""Following a job on the terminal: its events on stdout, what to do next on stderr, its end as an exit code."""

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from pydantic_core import to_json
from temporalio.service import RPCError

from ..client.follow import JobFollower
from ..client.history import Execution
from ..client.tail import LIVE_TYPES, HeartbeatTails
from ..core.events import StopRunByInteractiveTool
from ..core.failures import PerstackError
from .connection import Connection, connected
from .diagnostics import ExitCode, complain, exit_code_of_run, say, show
from .lifecycle import Interruption
from .output import EventWriter
from .tree import job_tree, usage_text
from .workers import Work


def announce(connection: Connection, execution: Execution) -> None:
    """Say which job this is and where to look at it."""
    link = connection.link(execution)
    say(f"job {execution.workflow_id}" + (f" · {link}" if link else ""))


@dataclass(frozen=True)
class Watch:
    """What a command that follows a job has: a connection, a place for events, an ear for Ctrl-C."""

    connection: Connection
    writer: EventWriter
    interruption: Interruption

    async def follow(self, work: Work, *, since: int = 0) -> ExitCode:
        """Print events, those from `since` on, until the job ends, waits for a person, or somebody interrupts."""
        execution = work.execution
        deltas = work.feed or _live_elsewhere(self.connection, self.writer)
        follower = JobFollower(self.connection.jobs.histories, execution, deltas=deltas)

        async def print_events() -> None:
            async for event in follower.events():
                if event.timestamp >= since:
                    await self.writer.write(event)
                if isinstance(event, StopRunByInteractiveTool) and follower.waits_at(event.checkpoint.id):
                    return

        try:
            has_ended = await self.interruption.lets_finish(print_events())
        except (RPCError, PerstackError):
            tell_left(execution.workflow_id, is_ours=work.feed is not None)
            raise
        if not has_ended:
            tell_left(execution.workflow_id, is_ours=work.feed is not None)
            return ExitCode.INTERRUPTED
        return tell_stop(self.connection, execution, follower, is_ours=work.feed is not None)


@asynccontextmanager
async def watching(address: str | None, writer: EventWriter) -> AsyncGenerator[Watch]:
    """Connect, and listen for Ctrl-C from the first moment on."""
    interruption = Interruption()
    interruption.install()
    async with connected(address) as connection:
        yield Watch(connection, writer, interruption)


def _live_elsewhere(connection: Connection, writer: EventWriter) -> HeartbeatTails | None:
    """Live text of a job that other processes work on; asking for it costs the server something."""
    return HeartbeatTails(connection.client) if writer.wants(LIVE_TYPES) else None


def tell_left(job_id: str, *, is_ours: bool) -> None:
    """Say how to go on with a job that is left before it has stopped."""
    say(f"job {job_id} is {_left(is_ours=is_ours)}; go on with: perstack resume {job_id}")


def tell_stop(connection: Connection, execution: Execution, follower: JobFollower, *, is_ours: bool) -> ExitCode:
    """Tell how a job ended and where to look into it, or what it asks a person."""
    if not follower.questions:
        return _outcome(connection, execution, follower)
    for call in follower.questions:
        say(f"{call.tool_name} asks (call {call.id}): {to_json(call.args).decode()}")
    job_id = execution.workflow_id
    say(f"job {job_id} is {_left(is_ours=is_ours)}; answer with: perstack respond {job_id} TEXT")
    return ExitCode.WAITING


def _left(*, is_ours: bool) -> str:
    return "parked" if is_ours else "still running elsewhere"


def _columns() -> int | None:
    """Of the terminal that stderr is, if it is one."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or None
    return None


def _outcome(connection: Connection, execution: Execution, follower: JobFollower) -> ExitCode:
    fold = follower.root.fold
    if len(follower.readers) > 1:
        assert follower.view.root is not None, "a job that has ended was read"
        show(job_tree(follower.view.root, columns=_columns()))
    result = fold.state.result if fold else None
    if fold is None or result is None:
        complain(f"job {execution.workflow_id} was {follower.root.closed or 'lost'} from outside")
        return ExitCode.FAILED
    if result.failure is not None:
        complain(f"the run failed ({result.failure.name}): {result.failure.message}")
    elif result.status == "stoppedByCancellation":
        say("the run was cancelled")
    elif result.status == "stoppedByExceededMaxSteps":
        say(f"the run reached its limit of {fold.start.settings.limits.max_steps} steps")
    link = connection.link(execution)
    places = (f"perstack log --job {execution.workflow_id}", *([link] if link else ()))
    if result.status != "completed":
        say(f"go on from there with: perstack resume {execution.workflow_id}")
    say(" · ".join((usage_text(follower.job().usage), *places)))
    return exit_code_of_run(result.status, result.failure.name if result.failure else None)
