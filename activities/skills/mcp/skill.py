"""One MCP skill of one run: started when it is needed, called from any task, started again when its server died."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePath
from typing import Any, Protocol, cast

import mcp_types as mcp
from mcp import Client, MCPError
from pydantic import TypeAdapter, ValidationError

from ....core.expert import McpSseSkill, McpStdioSkill
from ....core.failures import PerstackError, SkillError
from ....core.skills import SkillStart
from ....core.tools import ToolOutcome, ToolSpec, text_outcome
from ..endpoints import EndpointPolicy
from ..environment import skill_environment
from ..results import clip_text
from .catalog import Listing, list_tools, listing_of
from .connection import Connection
from .process import ServerProcess
from .remote import RemoteServer
from .results import parts_from_mcp
from .stderr import StderrLog

logger = logging.getLogger(__name__)

START_SECONDS = 30.0
"""For spawn, handshake and the list of tools together."""
MAX_RESTARTS = 3
"""In a row without an answered call between them."""
MAX_ERROR_BYTES = 16 * 1024
_NAME_CHARACTERS = 200
_SHOWN_NAMES = 50
_CLOSE_SECONDS = 4.8
_UNWIND_SECONDS = 0.5

_ANSWER: TypeAdapter[mcp.CallToolResult | mcp.InputRequiredResult] = TypeAdapter(
    mcp.CallToolResult | mcp.InputRequiredResult
)


class _Server(Protocol):
    """One start of the server, as a process or over the network."""

    on_unstopped: Callable[[], None]

    @property
    def spawn_ms(self) -> float | None: ...
    @property
    def is_lost(self) -> bool: ...
    @property
    def has_failed(self) -> bool: ...
    def connect(self, client_info: mcp.Implementation) -> AbstractAsyncContextManager[Client]: ...
    async def settled(self) -> None: ...
    async def ending(self) -> str: ...
    def evidence(self) -> str: ...


@dataclass(eq=False)
class _Live:
    """A connected server with what it offers."""

    server: _Server
    connection: Connection
    listing: Listing
    report: SkillStart
    calls: int = 0
    """In flight."""
    is_retired: bool = False
    """Whether it gets no further calls and ends after those it has."""

    @property
    def is_usable(self) -> bool:
        return self.connection.is_open and not self.server.is_lost


class McpSkill:
    """One MCP skill of one run.

    Concurrent first callers share one start. A server that died, or does not stop after a cancelled call, is started
    again by the next call, at most `MAX_RESTARTS` times without an answered call between.
    """

    def __init__(
        self,
        skill: McpStdioSkill | McpSseSkill,
        *,
        env: Mapping[str, str],
        cwd: Path,
        endpoints: EndpointPolicy,
        scrub: Callable[[str], str],
        on_stderr: Callable[[str, str], None],
        start_timeout_seconds: float = START_SECONDS,
    ) -> None:
        self.name = skill.name
        self._skill = skill
        self._env = env
        self._cwd = cwd
        self._endpoints = endpoints
        self._scrub = scrub
        self._on_stderr = on_stderr
        self._start_timeout_seconds = start_timeout_seconds
        self._live: _Live | None = None
        self._starting: asyncio.Task[_Live] | None = None
        self._retired: list[_Live] = []
        """Servers that end after their last call."""
        self._chores: set[asyncio.Task[None]] = set()
        """Servers on their way out."""
        self._mode = "auto"
        self._losses = 0
        self._last_loss = ""
        self._calls = 0
        self._used_at = time.monotonic()

    @property
    def is_open(self) -> bool:
        """Whether a server is running or starting for this skill."""
        return self._live is not None or self._starting is not None

    @property
    def used_at(self) -> float:
        """When it was last in use, by `time.monotonic`; now, while calls are in flight."""
        return time.monotonic() if self._calls or self._starting is not None else self._used_at

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the server's list of tools had to be left out or replaced."""
        return () if self._live is None else self._live.listing.notes

    async def start(self) -> SkillStart:
        """Start the server, unless it runs, and list its tools.

        Raises:
            SkillError: it cannot be started, with the reason and what it wrote to stderr.
        """
        return (await self._opened()).report

    async def tools(self) -> tuple[ToolSpec, ...]:
        """What the skill offers after `omit` and `pick`.

        Raises:
            SkillError: it cannot be started.
        """
        return (await self._opened()).listing.specs

    async def call(
        self, name: str, args: dict[str, Any], *, timeout_seconds: float, meta: Mapping[str, str]
    ) -> ToolOutcome:
        """Call a tool by the server's name for it; whatever goes wrong is an outcome for the model."""
        self._calls += 1
        try:
            return await self._call(name, args, timeout_seconds, meta)
        except PerstackError as error:
            return self._error(f"{error.message}{f' {error.hint}' if error.hint else ''}")
        except Exception as error:
            logger.exception("Calling a tool of the skill %s broke", self.name)
            return self._error(f"Calling {name} of the skill {self.name} failed: {_cause(error)}")
        finally:
            self._calls -= 1
            self._used_at = time.monotonic()

    async def close(self) -> None:
        """End the server and everything it started; a later call starts it again."""
        starting = self._starting
        connections = [live.connection for live in (self._live, *self._retired) if live is not None]
        self._starting = self._live = None
        self._retired.clear()
        if starting is not None:
            starting.cancel()
        for connection in connections:
            self._end_soon(connection)
        clock = asyncio.get_running_loop().time
        deadline = clock() + _CLOSE_SECONDS
        while (waiting := self._leaving(starting)) and (left := deadline - clock()) > 0:
            await asyncio.wait(waiting, timeout=left)

    def _leaving(self, starting: "asyncio.Task[_Live] | None") -> set[asyncio.Task[Any]]:
        return {*self._chores, *(() if starting is None or starting.done() else (starting,))}

    # Starting.

    async def _opened(self) -> _Live:
        """The running server; every caller waits for the same start."""
        if (live := self._live) is not None:
            # One that was told to stop a call may be about to be ended.
            await live.server.settled()
            if self._live is live and not live.is_usable:
                await self._lose(live)
        if self._live is not None:
            return self._live
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._note_start)
        try:
            return await asyncio.shield(self._starting)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise SkillError(f"Skill {self.name} was closed while it was starting.") from None

    def _note_start(self, task: "asyncio.Task[_Live]") -> None:
        live = None if task.cancelled() or task.exception() is not None else task.result()
        if self._starting is task:
            self._starting = None
            self._used_at = time.monotonic()
            self._live = live
        elif live is not None:
            self._end_soon(live.connection)  # closed in the moment it was ready

    async def _start(self) -> _Live:
        if self._losses > MAX_RESTARTS:
            raise SkillError(
                f"Skill {self.name} is not started again: it was lost {self._losses} times in a row. "
                f"The last time: {self._last_loss}",
                code="skill.gave_up",
                hint="Do without this skill, or correct what it says.",
            )
        begun = time.perf_counter()
        server = self._make_server()
        connection = Connection(server.connect(self._client_info()))
        try:
            async with asyncio.timeout(self._start_timeout_seconds):
                await connection.open()
                connected = time.perf_counter()
                listing = await self._list(connection.client)
        except asyncio.CancelledError:
            await connection.close()
            raise
        except Exception as error:
            await connection.close()
            ending = await server.ending() if server.has_failed else None
            if ending is not None and self._needs_older_handshake(server):
                self._mode = "legacy"
                return await self._start()
            raise self._not_started(server, error, ending) from None
        if isinstance(server, ServerProcess) and server.has_asked_to_initialize:
            self._mode = "legacy"  # so that a restart need not ask for the newer protocol again
        report = self._report(server, connection.client, begun, connected)
        live = _Live(server, connection, listing, report)
        server.on_unstopped = lambda: self._retire(live)
        for note in listing.notes:
            logger.warning("Skill %s: %s", self.name, note)
        return live

    def _make_server(self) -> _Server:
        skill = self._skill
        if isinstance(skill, McpSseSkill):
            return RemoteServer(skill.endpoint, endpoints=self._endpoints, allowed_domains=skill.allowed_domains)
        try:
            env = skill_environment(self._env, skill_name=self.name, required_env=skill.required_env)
        except PerstackError as error:
            raise SkillError(error.message, code=error.code, hint=error.hint) from None
        log = StderrLog(self._scrub, lambda text: self._on_stderr(self.name, text))
        return ServerProcess(command_of(skill), env=env, cwd=self._cwd, stderr=log, mode=self._mode)

    def _needs_older_handshake(self, server: _Server) -> bool:
        """Whether it ended at a question that only the newer protocol has; some older servers do."""
        return isinstance(server, ServerProcess) and self._mode == "auto" and not server.has_asked_to_initialize

    def _client_info(self) -> mcp.Implementation:
        return mcp.Implementation(name=f"{self.name}-mcp-client", version=_version())

    async def _list(self, client: Client) -> Listing:
        skill = self._skill
        tools = await list_tools(client, skill_name=self.name, pick=skill.pick, omit=skill.omit)
        return await asyncio.to_thread(listing_of, tools, skill_name=self.name)

    def _report(self, server: _Server, client: Client, begun: float, connected: float) -> SkillStart:
        skill = self._skill
        info = client.server_info
        spawn_ms = server.spawn_ms
        argv = command_of(skill) if isinstance(skill, McpStdioSkill) else ()
        return SkillStart(
            name=self.name,
            command=argv[0] if argv else None,
            args=tuple(self._scrub(argument) for argument in argv[1:]),
            server_name=self._shown(info.name) if info else None,
            server_version=self._shown(info.version) if info else None,
            spawn_ms=spawn_ms,
            handshake_ms=(connected - begun) * 1000 - (spawn_ms or 0),
            discovery_ms=(time.perf_counter() - connected) * 1000,
        )

    def _not_started(self, server: _Server, error: Exception, ending: str | None) -> SkillError:
        cause = _leaf(error)
        if isinstance(cause, PerstackError):
            known = self._scrubbed(cause.message)
            self._count_loss(known)
            text = known if self.name in known else f"Skill {self.name} did not start: {known}"
            return SkillError(text, code=cause.code, hint=cause.hint)
        if ending is not None:
            what = f"its server {ending}"
        elif isinstance(cause, TimeoutError):
            what = f"its server was not ready within {self._start_timeout_seconds:g} s.{server.evidence()}"
        else:
            what = f"{_cause(cause)}{server.evidence()}"
        self._count_loss(what)
        return SkillError(self._scrubbed(f"Skill {self.name} did not start: {what}"), hint=self._hint())

    def _hint(self) -> str:
        if isinstance(self._skill, McpSseSkill):
            return "Check the skill's endpoint."
        return "Check the skill's command and packageName or args, and what it wrote."

    # Calling.

    async def _call(
        self, name: str, args: dict[str, Any], timeout_seconds: float, meta: Mapping[str, str]
    ) -> ToolOutcome:
        live = await self._opened()
        real_name = live.listing.real_name(name)
        if real_name is None:
            names = ", ".join(spec.name for spec in live.listing.specs[:_SHOWN_NAMES])
            return self._error(f"The skill {self.name} has no tool {name}. Its tools: {names}.")
        if (problem := live.listing.problem(real_name, args)) is not None:
            return self._error(f"Invalid arguments for {name}: {problem}")
        for is_again in (False, True):
            live.calls += 1
            try:
                result = await self._ask(live.connection.client, real_name, args, timeout_seconds, meta)
            except TimeoutError:
                return await self._late(live, name, timeout_seconds)
            except MCPError as error:
                if not is_again and _has_forgotten_us(live, error):
                    # The protocol asks for a new session; the call itself was not looked at.
                    await self._lose(live)
                    live = await self._opened()
                    continue
                if live.is_usable and not _is_closing(error):
                    self._losses = 0
                    return self._error(f"Calling {name} of the skill {self.name} failed: {error.message}")
                return await self._broken(live, name)
            except ValidationError as error:
                return self._error(
                    f"The skill {self.name} answered the call of {name} with something that is no MCP result: "
                    f"{_cause(error)}"
                )
            except RuntimeError as error:
                if live.is_usable:
                    raise
                logger.debug("The connection of the skill %s is gone: %s", self.name, error)
                return await self._broken(live, name)
            finally:
                self._finish_call(live)
            self._losses = 0
            return self._outcome(name, args, result)
        raise AssertionError("the second round always answers")

    async def _ask(
        self, client: Client, name: str, args: dict[str, Any], timeout_seconds: float, meta: Mapping[str, str]
    ) -> mcp.CallToolResult | mcp.InputRequiredResult:
        # `Client.call_tool` would also match the result against the server's own schema and drop one that differs.
        params = mcp.CallToolRequestParams(name=name, arguments=args, _meta=cast("Any", dict(meta)) or None)
        async with asyncio.timeout(timeout_seconds):
            return await client.session.send_request(mcp.CallToolRequest(params=params), _ANSWER)

    def _outcome(
        self, name: str, args: Mapping[str, Any], result: mcp.CallToolResult | mcp.InputRequiredResult
    ) -> ToolOutcome:
        if isinstance(result, mcp.InputRequiredResult):
            return self._error(
                f"The tool {name} of the skill {self.name} asks for input from a person, which it cannot get here."
            )
        parts = parts_from_mcp(result, tool_name=name, args=args)
        return ToolOutcome(result=parts, is_error=True if result.is_error else None)

    async def _late(self, live: _Live, name: str, timeout_seconds: float) -> ToolOutcome:
        await live.server.settled()
        told = f"{name} of the skill {self.name} did not answer within {timeout_seconds:g} s and was told to stop."
        if self._live is not live and isinstance(live.server, ServerProcess):
            told += " It did not, so its process is ended; the next call starts the skill anew, without its state."
        return self._error(told + live.server.evidence())

    async def _broken(self, live: _Live, name: str) -> ToolOutcome:
        """Answer a call whose server is gone."""
        await self._lose(live)
        return self._error(
            f"The skill {self.name} was lost during the call of {name}, whose outcome is unknown: {self._last_loss}\n"
            "The next call starts the skill anew, without its state."
        )

    # Losing.

    async def _lose(self, live: _Live) -> None:
        """Put away a server that is gone."""
        if self._live is not live:
            await self._told(live)
            return
        self._live = None
        self._count_loss(await self._told(live))
        self._end_soon(live.connection)

    async def _told(self, live: _Live) -> str:
        if isinstance(live.server, RemoteServer) and not live.server.is_lost:
            await live.connection.ended(_UNWIND_SECONDS)
        failure = live.connection.failure
        if failure is not None:
            return f"its connection failed: {_cause(failure)}"
        return f"its server {await live.server.ending()}"

    def _retire(self, live: _Live) -> None:
        """Give no further call to a server that does not stop; it ends after the calls it still has."""
        if self._live is live:
            self._live = None
            self._retired.append(live)
            live.is_retired = True
            self._count_loss("a cancelled call did not stop")
        if live.calls == 0:
            self._end_retired(live)

    def _finish_call(self, live: _Live) -> None:
        live.calls -= 1
        if live.is_retired and live.calls == 0:
            self._end_retired(live)

    def _end_retired(self, live: _Live) -> None:
        if live in self._retired:
            self._retired.remove(live)
            self._end_soon(live.connection)

    def _count_loss(self, reason: str) -> None:
        self._losses += 1
        self._last_loss = self._scrubbed(reason)

    def _end_soon(self, connection: Connection) -> None:
        task = asyncio.create_task(connection.close())
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # Words.

    def _error(self, text: str) -> ToolOutcome:
        return text_outcome(self._scrubbed(text), is_error=True)

    def _scrubbed(self, text: str) -> str:
        return clip_text(self._scrub(text), MAX_ERROR_BYTES)

    def _shown(self, text: str) -> str:
        return self._scrub(text)[:_NAME_CHARACTERS]


def command_of(skill: McpStdioSkill) -> tuple[str, ...]:
    """Program and arguments of a skill; `npx` never stops to ask whether it may install (contract 2 §4.6).

    Raises:
        SkillError: the definition names no command, or neither or both of package and arguments.
    """
    if not skill.command.strip():
        raise SkillError(f"Skill {skill.name} has no command", code="skill.no_command")
    if skill.package_name and skill.args:
        text = f"Skill {skill.name} has both packageName and args. Please provide only one of them."
        raise SkillError(text, code="skill.arguments")
    args = (skill.package_name,) if skill.package_name else skill.args
    if not args:
        text = f"Skill {skill.name} has no packageName or args. Please provide one of them."
        raise SkillError(text, code="skill.arguments")
    if PurePath(skill.command).name == "npx" and "-y" not in args:
        args = ("-y", *args)
    return (skill.command, *args)


def _has_forgotten_us(live: _Live, error: MCPError) -> bool:
    """Whether an HTTP server has dropped the session, as the client words it (HTTP status 404)."""
    return (
        isinstance(live.server, RemoteServer)
        and error.code == mcp.INVALID_REQUEST
        and error.message == "Session terminated"
    )


def _is_closing(error: MCPError) -> bool:
    """Whether this is what the client tells everybody who waits when its connection ends."""
    return error.code == mcp.CONNECTION_CLOSED and error.message == "Connection closed"


def _leaf(error: BaseException) -> BaseException:
    """The first failure in groups of failures, as task groups of the client raise them."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _cause(error: BaseException) -> str:
    error = _leaf(error)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    text = str(error)
    return text if text and isinstance(error, PerstackError | MCPError) else f"{type(error).__name__}: {text}"


def _version() -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version("perstack")
    return "0"
