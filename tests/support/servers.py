"""A Temporal server of a test's own, with limits that the shared one must not have."""

import asyncio
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from perstack.client.connection import ServerInfo, shared_runtime
from perstack.client.supervisor import is_listening, server_arguments
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

START_SECONDS = 45.0
ATTEMPTS = 3


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
    process, port = await _started(program, folder, dynamic_config)
    try:
        yield ServerInfo(address=f"127.0.0.1:{port}", ui_url=None, namespace="default", is_embedded=False, version=None)
    finally:
        await _end(process)


async def _started(program: Path, folder: Path, dynamic_config: tuple[str, ...]) -> tuple[Process, int]:
    """A server that answers, and its port."""
    for attempt in range(ATTEMPTS):
        port, ui_port = free_ports(2)
        arguments = server_arguments(folder / f"own-{attempt}.db", port=port, ui_port=ui_port)
        for value in dynamic_config:
            arguments += ["--dynamic-config-value", value]
        process = await asyncio.create_subprocess_exec(
            str(program), *arguments, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                while process.returncode is None:
                    if is_listening(port) and await _answers(port):
                        return process, port
                    await asyncio.sleep(0.05)
        except BaseException:
            await _end(process)
            raise
        # It ended at once: somebody else took one of its ports in between.
    raise AssertionError("the server did not start")


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
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
