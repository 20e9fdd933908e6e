"""A Temporal server of a test's own, with limits that the shared one must not have."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from perstack.client.connection import ServerInfo, shared_runtime
from perstack.client.supervisor import is_listening, server_arguments
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

START_SECONDS = 45.0


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@asynccontextmanager
async def own_server(program: Path, folder: Path, *dynamic_config: str) -> AsyncGenerator[ServerInfo]:
    """A server with `key=value` settings of its dynamic configuration; it has ended when the block is left."""
    port, ui_port = free_ports(2)
    arguments = server_arguments(folder / "own.db", port=port, ui_port=ui_port)
    for value in dynamic_config:
        arguments += ["--dynamic-config-value", value]
    process = await asyncio.create_subprocess_exec(
        str(program), *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            while not (is_listening(port) and await _answers(port)):
                assert process.returncode is None, "the server did not start"
                await asyncio.sleep(0.05)
        yield ServerInfo(address=f"127.0.0.1:{port}", ui_url=None, namespace="default", is_embedded=False, version=None)
    finally:
        process.kill()
        await process.wait()


async def _answers(port: int) -> bool:
    """Whether the namespace is there; the port is open a little earlier."""
    try:
        client = await Client.connect(f"127.0.0.1:{port}", runtime=shared_runtime())
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
    except (RuntimeError, RPCError):
        return False
    return True
