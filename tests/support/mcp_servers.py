"""MCP servers for tests: our hostile one, the reference ones of `make servers`, and what they leave behind."""

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from perstack.activities.skills.endpoints import ALLOW_VARIABLE, EndpointPolicy
from perstack.activities.skills.mcp.skill import McpSkill
from perstack.core.expert import McpSseSkill, McpStdioSkill
from perstack.core.messages import TextPart
from perstack.core.tools import ToolOutcome

from .leftovers import processes_of
from .skills import WAIT_SECONDS

_TESTS = Path(__file__).parent.parent
_INSTALLED = _TESTS.parent / ".servers"
_NODE_SERVERS = _INSTALLED / "node_modules" / "@modelcontextprotocol"
SCRIPTS = _TESTS / "servers"
CALL_SECONDS = 15.0
_LISTENING = re.compile(rb"LISTENING (\d+)|running on http://127\.0\.0\.1:(\d+)")


def hostile(*options: str, name: str = "hostile", **more: Any) -> McpStdioSkill:
    """The hostile server with `options`."""
    args = (str(SCRIPTS / "hostile.py"), *options)
    return McpStdioSkill(name=name, command=sys.executable, args=args, **more)


def node_server(package: str, *args: str, **more: Any) -> McpStdioSkill:
    """A reference server of the npm registry, as `npx` would run it, without asking the registry."""
    return McpStdioSkill(name=package, command=_node(), args=(str(_entry(package)), *args), **more)


def npx_server(program: str, *args: str) -> McpStdioSkill:
    """An installed reference server started by the real `npx`, which has to make do without the registry."""
    _entry(program.removeprefix("mcp-"))
    options = ("--offline", "--prefix", str(_INSTALLED))
    return McpStdioSkill(name="npx", command="npx", args=(*options, program, *args))


def python_server(*args: str) -> McpStdioSkill:
    """The reference server that tells the time, as `uvx` would run it, from an environment of its own."""
    program = _INSTALLED / "python" / "bin" / "mcp-server-time"
    assert program.is_file(), "the reference servers are missing: run `make servers`"
    return McpStdioSkill(name="time", command=str(program), args=args)


def _entry(package: str) -> Path:
    entry = _NODE_SERVERS / package / "dist" / "index.js"
    assert entry.is_file(), "the reference servers are missing: run `make servers`"
    return entry


def _node() -> str:
    node = shutil.which("node")
    assert node is not None, "the reference servers need Node.js"
    return node


class OpenMcpSkill(Protocol):
    """Makes a skill that is closed at the end of the test."""

    def __call__(
        self, skill: McpStdioSkill | McpSseSkill, *, env: Mapping[str, str] = ..., **more: Any
    ) -> McpSkill: ...


@dataclass
class Heard:
    """What skills told of their stderr."""

    pieces: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, name: str, text: str) -> None:
        self.pieces.append((name, text))
        self.news.set()

    @property
    def text(self) -> str:
        return "\n".join(text for _, text in self.pieces)

    async def until(self, wanted: str) -> str:
        """Everything told, once `wanted` is in it."""
        async with asyncio.timeout(WAIT_SECONDS):
            while wanted not in self.text:
                self.news.clear()
                await self.news.wait()
        return self.text


def text_of(outcome: ToolOutcome) -> str:
    """The text parts of an outcome."""
    return "\n".join(part.text for part in outcome.result if isinstance(part, TextPart))


async def call(skill: McpSkill, tool: str, timeout_seconds: float = CALL_SECONDS, **args: Any) -> ToolOutcome:
    """Call a tool; no test waits longer than it may."""
    async with asyncio.timeout(WAIT_SECONDS + timeout_seconds):
        return await skill.call(tool, args, timeout_seconds=timeout_seconds, meta={})


def leftovers(home: str) -> list[str]:
    """Processes whose home folder is `home`, and TCP connections that this process still holds."""
    return [*processes_of(home), *_own_connections()]


def _own_connections() -> list[str]:
    own: set[str] = set()
    for handle in os.listdir("/proc/self/fd"):
        try:
            own.add(os.readlink(f"/proc/self/fd/{handle}"))
        except OSError:
            continue
    found: list[str] = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in own:
                found.append(f"connection {fields[1]} -> {fields[2]} in state {fields[3]}")
    return found


@dataclass(frozen=True)
class HttpServer:
    """A server that listens on loopback."""

    port: int
    process: asyncio.subprocess.Process

    def skill(self, path: str, **more: Any) -> McpSseSkill:
        """The skill at one of its paths."""
        return McpSseSkill(name="remote", endpoint=f"http://127.0.0.1:{self.port}{path}", **more)

    @property
    def policy(self) -> EndpointPolicy:
        """Allows this endpoint, as the operator of a worker can."""
        return allowing(self.port)

    async def end(self) -> None:
        """Kill it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def allowing(port: int) -> EndpointPolicy:
    """A policy that lets a test reach one port of loopback."""
    return EndpointPolicy.from_env({ALLOW_VARIABLE: f"127.0.0.1:{port}"})


@asynccontextmanager
async def everything_over_http(mode: str, env: Mapping[str, str]) -> AsyncGenerator[HttpServer]:
    """The reference server that has everything, in the mode `streamableHttp` or `sse`."""
    argv = (_node(), "--require", str(SCRIPTS / "loopback.cjs"), str(_entry("server-everything")), mode)
    async with _listening(argv, {**env, "PORT": "0"}) as server:
        yield server


@asynccontextmanager
async def modern_over_http(env: Mapping[str, str], *, port: int = 0) -> AsyncGenerator[HttpServer]:
    """A server of the newest protocol version."""
    async with _listening((sys.executable, "-P", str(SCRIPTS / "modern.py"), str(port)), env) as server:
        yield server


@asynccontextmanager
async def _listening(argv: tuple[str, ...], env: Mapping[str, str]) -> AsyncGenerator[HttpServer]:
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    drain: asyncio.Task[bytes] | None = None
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while (match := _LISTENING.search(line := await process.stderr.readline())) is None:
                assert line, "the server ended before it listened"
        drain = asyncio.create_task(process.stderr.read())
        yield HttpServer(int(match[1] or match[2]), process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if drain is not None:
            await drain
