"""`perstack worker`: one worker of a pool."""

from typing import NoReturn

from ...core.models import DEFAULT_PROVIDER
from ..diagnostics import ExitCode, say
from ..lifecycle import Interruption, run_command


def worker(task_queue: str, *, address: str | None, grace_seconds: int) -> NoReturn:
    """Serve `task_queue` until told to leave; calls in flight get `grace_seconds` to end."""

    async def command() -> ExitCode:
        from datetime import timedelta

        from ...activities.providers.registry import warm_up
        from ...worker import WorkerPlan, working
        from ..job import connected

        # The default; another one's SDK is imported at the first call that needs it.
        warm_up(DEFAULT_PROVIDER)
        interruption = Interruption()
        interruption.install()
        plan = WorkerPlan(task_queue, is_pool=True, grace=timedelta(seconds=grace_seconds))
        async with connected(address) as connection, working(connection.client, plan, storage=connection.storage):
            say(f"serving {task_queue} at {connection.info.address}")
            await interruption.requested.wait()
            say("leaving: no new work is taken, calls in flight may end; a second signal ends them at once")
        return ExitCode.COMPLETED

    run_command(command)
