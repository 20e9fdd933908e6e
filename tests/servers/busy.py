"""An MCP server over stdio that counts how many calls it has at once."""

import asyncio

from mcp.server import MCPServer

server = MCPServer("busy")
running = 0
most = 0


@server.tool()
async def work(milliseconds: int) -> str:
    """Take that long."""
    global running, most
    running += 1
    most = max(most, running)
    try:
        await asyncio.sleep(milliseconds / 1000)
    finally:
        running -= 1
    return "worked"


@server.tool()
async def most_at_once() -> int:
    """The most calls of `work` that there were at the same time."""
    return most


if __name__ == "__main__":
    server.run("stdio")
