"""Following a job on the terminal: its events on stdout, what to do next on stderr, its end as an exit code."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic_core import to_json
from temporalio.service import RPCError

from ..activities.feed import Feed
from ..client.follow import JobFollower
from ..client.history import Execution
from ..client.tail import LIVE_TYPES, HeartbeatTails
from ..core.events import StopRunByInteractiveTool
from ..core.failures import PerstackError
from ..core.tools import ToolCall
from .connection import Connection, connected
from .diagnostics import ExitCode, exit_code_of_run, say, show
from .lifecycle import Interruption
from .output import EventWriter
from .tree import job_tree, usage_text


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

    async def follow(self, execution: Execution, feed: Feed | None, *, since: int = 0) -> ExitCode:
        """Print events, those from `since` on, until the job ends, waits for a person, or somebody interrupts."""
        follower = JobFollower(
            self.connection.jobs.histories, execution, deltas=feed or _live_elsewhere(self.connection, self.writer)
        )

        async def print_events() -> None:
            async for event in follower.events():
                if event.timestamp >= since:
                    await self.writer.write(event)
                if isinstance(event, StopRunByInteractiveTool) and follower.waits_at(event.checkpoint.id):
                    return

        what = "parked" if feed is not None else "still running elsewhere"
        how_to_go_on = f"job {execution.workflow_id} is {what}; go on with: perstack resume {execution.workflow_id}"
        try:
            has_ended = await self.interruption.lets_finish(print_events())
        except (RPCError, PerstackError):
            say(how_to_go_on)
            raise
        if not has_ended:
            say(how_to_go_on)
            return ExitCode.INTERRUPTED
        if follower.questions:
            _show_questions(follower.questions)
            say(f"job {execution.workflow_id} is {what}; answer with: perstack respond {execution.workflow_id} TEXT")
            return ExitCode.WAITING
        return _outcome(self.connection, execution, follower)


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


def _show_questions(questions: tuple[ToolCall, ...]) -> None:
    for call in questions:
        say(f"{call.tool_name} asks (call {call.id}): {to_json(call.args).decode()}")


def _outcome(connection: Connection, execution: Execution, follower: JobFollower) -> ExitCode:
    """Tell how the job ended and where to look into it."""
    fold = follower.root.fold
    if len(follower.readers) > 1:
        show(job_tree(follower.root.tree))
    result = fold.state.result if fold else None
    if fold is None or result is None:
        say(f"job {execution.workflow_id} was {follower.root.closed or 'lost'} from outside")
        return ExitCode.FAILED
    if result.failure is not None:
        say(f"error: the run failed ({result.failure.name}): {result.failure.message}")
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
