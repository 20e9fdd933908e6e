"""`perstack worker`: one worker of a pool."""

from collections.abc import Sequence
from typing import NoReturn

from ...core.failures import UsageError
from ...core.models import DEFAULT_PROVIDER
from ..diagnostics import ExitCode, say
from ..lifecycle import Interruption, run_command


def worker(
    task_queue: str,
    *,
    address: str | None,
    grace_seconds: int,
    providers: Sequence[str] = (),
    deployment: str | None = None,
    build_id: str | None = None,
    is_current: bool = False,
) -> NoReturn:
    """Serve `task_queue` until told to leave; calls in flight get `grace_seconds` to end.

    The SDKs of `providers` are loaded at the start, those of others at the first call that needs them.
    """

    async def command() -> ExitCode:
        _require_both(deployment, build_id, is_current=is_current)
        from datetime import timedelta

        from ...activities.providers.registry import warm_up
        from ...client.deployments import deployment_version, make_current
        from ...definitions.resolve import parse_provider
        from ...worker import WorkerPlan, working
        from ..connection import connected

        version = deployment_version(deployment, build_id) if deployment is not None and build_id is not None else None
        for provider in [parse_provider(name) for name in providers] or [DEFAULT_PROVIDER]:
            warm_up(provider)
        interruption = Interruption()
        interruption.install()
        grace = timedelta(seconds=grace_seconds)
        plan = WorkerPlan(task_queue, is_pool=True, grace=grace, version=version)
        async with connected(address) as connection, working(connection.client, plan, storage=connection.storage):
            if version is not None and is_current:
                await make_current(connection.client, version)
            kind = f" as {build_id} of {deployment}{', its current version' if is_current else ''}" if version else ""
            say(f"serving {task_queue} at {connection.info.address}{kind}")
            if version and not is_current:
                say("new runs begin on the current version; --current makes this one current at its start")
            await interruption.requested.wait()
            say("leaving: no new work is taken, calls in flight may end; a second signal ends them at once")
        return ExitCode.COMPLETED

    run_command(command)


def _require_both(deployment: str | None, build_id: str | None, *, is_current: bool) -> None:
    if (deployment is None) != (build_id is None):
        given, missing = ("--deployment", "--build-id") if build_id is None else ("--build-id", "--deployment")
        raise UsageError(
            f"{given} requires {missing}.",
            hint="A version of a worker has both: --deployment NAME --build-id ID.",
        )
    if is_current and deployment is None:
        raise UsageError(
            "--current requires --deployment and --build-id.", hint="Only a version can be the current one."
        )
