"""Versions of a worker deployment: which one new runs begin on is the server's to know and ours to set."""

import asyncio
import re

from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode

from ..core.failures import ServerError, UsageError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_BUILD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")
REGISTERED_SECONDS = 30.0
"""How long the server may take to hear of a worker that has just begun to poll."""
_PAUSE_SECONDS = 0.25
_NOT_YET = {RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.ABORTED}
"""What the server says of a version whose workers it has not seen, or while another change is under way."""


def deployment_version(deployment: str, build_id: str) -> WorkerDeploymentVersion:
    """The version of a deployment by its two names.

    Raises:
        UsageError: one of them is none that Temporal takes.
    """
    for what, text, form, rule in (
        ("deployment", deployment, _NAME, "letters, digits, `-` and `_`"),
        ("build id", build_id, _BUILD_ID, "letters, digits, `.`, `+`, `-` and `_`"),
    ):
        if not form.fullmatch(text):
            raise UsageError(
                f"{text!r} is no name of a {what}.",
                hint=f"Up to 100 {rule}, the first a letter or a digit.",
            )
    return WorkerDeploymentVersion(deployment_name=deployment, build_id=build_id)


async def make_current(
    client: Client, version: WorkerDeploymentVersion, *, seconds: float = REGISTERED_SECONDS
) -> None:
    """Let new runs begin on this version; waits until the server has heard of its worker.

    Raises:
        ServerError: the server refuses, and says why.
    """
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace,
        deployment_name=version.deployment_name,
        build_id=version.build_id,
        version=version.to_canonical_string(),
        identity=client.identity,
    )
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        try:
            await client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError as error:
            if error.status not in _NOT_YET or loop.time() > deadline:
                raise _refused(version, error) from error
        else:
            return
        await asyncio.sleep(_PAUSE_SECONDS)


def _refused(version: WorkerDeploymentVersion, error: RPCError) -> ServerError:
    return ServerError(
        f"Temporal did not make {version.build_id} the current version of {version.deployment_name}: {error.message}",
        code="temporal.deployment",
        hint="A version becomes current when its workers serve every queue that the version before it serves; "
        "`temporal worker deployment set-current-version --help` tells how to force it.",
    )
