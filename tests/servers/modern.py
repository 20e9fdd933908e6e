"""A server of the protocol version 2026-07-28 over streamable HTTP, on the port given."""

import asyncio
import sys

from mcp.server import MCPServer

server = MCPServer("modern")
waiting: set[str] = set()


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def wait(token: str) -> str:
    """Wait until cancelled."""
    waiting.add(token)
    try:
        await asyncio.sleep(600)
    finally:
        waiting.discard(token)
    return "waited"


@server.tool()
def waiting_tokens() -> list[str]:
    """Who waits."""
    return sorted(waiting)


if __name__ == "__main__":
    server.run("streamable-http", port=int(sys.argv[1]))
