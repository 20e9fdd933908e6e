"""The connection a command works through: the server in use, kept up while it is ours, and the payload storage."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from temporalio.client import Client

from ..client.connection import ServerInfo, connect, rpc_failures
from ..client.embedded import ServerLease, lease_server
from ..client.history import Execution
from ..client.jobs import Jobs
from ..client.locations import DataFolder, data_folder
from ..client.storage.base import Storage
from ..client.storage.driver import PayloadDriver
from ..client.storage.setting import open_storage
from ..client.supervisor import is_listening
from ..core.failures import PerstackError
from .diagnostics import progress, progressing, say

KEEPER_SECONDS = 1.0


@dataclass(frozen=True)
class Connection:
    """An open connection with all a command needs beside it."""

    client: Client
    info: ServerInfo
    data: DataFolder
    storage: Storage

    @property
    def jobs(self) -> Jobs:
        """The jobs of the server."""
        return Jobs(self.client, self.storage)

    def link(self, execution: Execution) -> str | None:
        """Where the Temporal Web UI shows a run."""
        if self.info.ui_url is None:
            return None
        name = execution.workflow_id.replace("/", "%2F")
        return f"{self.info.ui_url}/namespaces/{self.info.namespace}/workflows/{name}/{execution.temporal_run_id}"


@asynccontextmanager
async def connected(address: str | None) -> AsyncGenerator[Connection]:
    """Connect to the server in use, starting the embedded one if there is none."""
    data = data_folder()
    with progressing() as waiting_for:
        lease = await lease_server(address=address, progress=waiting_for, data=data)
    try:
        storage = await asyncio.to_thread(open_storage, data)
        storage.outages.tell = say
        client = await connect(lease.info, storage=PayloadDriver(storage))
        keeper = asyncio.create_task(_keep_server(lease, data))
        try:
            with rpc_failures(lease.info):
                yield Connection(client, lease.info, data, storage)
        finally:
            keeper.cancel()
    finally:
        lease.close()


async def _keep_server(lease: ServerLease, data: DataFolder) -> None:
    """Start the embedded server again when it dies; it keeps its port, so open connections find it by themselves."""
    while lease.info.is_embedded:
        await asyncio.sleep(KEEPER_SECONDS)
        if not is_listening(int(lease.info.address.rpartition(":")[2])):
            with suppress(PerstackError):
                # The second lease only makes the server start; ours still holds the right to it.
                (await lease_server(address=None, progress=progress, data=data)).close()
