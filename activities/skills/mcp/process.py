"""A skill's process: in a session of its own, spoken to over its pipes, and gone with everything it started.

`mcp.client.stdio` ends the group only where the server does not exit by itself, merges variables of its own choice,
and leaves the size of lines and the amount of stderr to the server; hence a transport of our own for the same client.
"""

import asyncio
import errno
import logging
import os
import secrets
import shutil
import signal
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import anyio
import mcp_types as mcp
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import Client
from mcp.shared.message import SessionMessage

from ....client.tether import tethered
from ....core.failures import SkillError
from ..base.processes import MARKER, end_processes, kill_group
from .lenient import with_readable_schemas
from .stderr import StderrLog

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Of one message from the server."""
MAX_NOISE_BYTES = 16 * 1024 * 1024
"""Of lines on stdout that are no messages."""
MAX_UNASKED = 50_000
"""Notifications without an answer between them."""
MAX_OPEN_REQUESTS = 64
"""Requests of the server that we have not answered yet; with more we stop listening."""
STOP_GRACE_SECONDS = 1.0
"""What a server gets to answer a call that was cancelled, and to exit after its stdin was closed."""
_DRAIN_SECONDS = 0.25
_EXIT_SECONDS = 1.0
_CHUNK = 256 * 1024
_NOISE_SHOWN = 200
_STDIN, _STDOUT, _STDERR = 0, 1, 2

_Item = SessionMessage | Exception
_Streams = tuple[MemoryObjectReceiveStream[_Item], "_Outgoing"]


class ServerProcess(asyncio.SubprocessProtocol):
    """One process that is an MCP server, from spawn to end; `connect` may be entered once."""

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, stderr: StderrLog, mode: str = "auto"
    ) -> None:
        self._argv = tuple(argv)
        self._token = secrets.token_hex(16)
        self._env = {**env, MARKER: self._token}
        self._cwd = cwd
        self._stderr = stderr
        self._mode = mode
        self.spawn_ms: float | None = None
        self.has_asked_to_initialize = False
        """Whether the older handshake was reached."""
        self.on_unstopped: Callable[[], None] = lambda: None
        """Called when a cancelled call was not answered within the grace: it may go on for ever."""
        loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdout = asyncio.StreamReader(limit=_CHUNK)
        self._has_stdout_ended = False
        self._exited: asyncio.Future[None] = loop.create_future()
        self._stderr_ended: asyncio.Future[None] = loop.create_future()
        self._writable = asyncio.Event()
        self._writable.set()
        self._reader: asyncio.Task[None] | None = None
        self._is_deaf = False
        self._fault: str | None = None
        self._is_failure: bool | None = None
        """Whether it was lost before we ended it; `None` until then."""
        self._own_code: int | None = None
        self._noise = ""
        self._noise_bytes = 0
        self._unasked = 0
        self._unanswered: set[str] = set()
        """Our requests, by id."""
        self._stopping: dict[str, asyncio.TimerHandle] = {}
        """Cancelled ones whose grace runs."""
        self._calm = asyncio.Event()
        self._calm.set()
        self._asked: set[str] = set()
        """The server's requests."""
        self._may_listen = asyncio.Event()
        self._may_listen.set()

    def connect(self, client_info: mcp.Implementation) -> AbstractAsyncContextManager[Client]:
        """The client of this process."""
        return Client(self._streams(), mode=self._mode, cache=None, client_info=client_info)

    @property
    def is_lost(self) -> bool:
        """Whether nothing can come from the process any more."""
        return self._exited.done() or self._is_deaf

    @property
    def has_failed(self) -> bool:
        """Whether that was so before we ended it."""
        return self.is_lost if self._is_failure is None else self._is_failure

    async def settled(self) -> None:
        """Wait until no cancelled call has a grace running."""
        await self._calm.wait()

    async def ending(self) -> str:
        """How the process ended, or what else was wrong with it, in words that follow its name."""
        if self._transport is None:
            return "was not started"
        if self._fault is None and self._is_failure is None:
            await asyncio.wait({self._exited}, timeout=_EXIT_SECONDS)
            await asyncio.wait({self._stderr_ended}, timeout=_DRAIN_SECONDS)
        code = self._transport.get_returncode() if self._is_failure is None else self._own_code
        return (self._fault or _exit_text(code)) + self.evidence()

    def evidence(self) -> str:
        """What the process wrote beside its messages."""
        told = ""
        if self._noise:
            told += f"\nIt wrote to stdout what is no MCP message, first: {self._noise}"
        if tail := self._stderr.tail():
            told += f"\nThe end of its stderr:\n{tail}"
        return told

    # What the event loop tells of the process.

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Bytes of stdout or stderr."""
        if fd == _STDERR:
            self._stderr.add(data)
        elif not self._has_stdout_ended:
            self._stdout.feed_data(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """A pipe was closed."""
        if fd == _STDOUT:
            self._end_stdout()
        elif fd == _STDIN:
            self._writable.set()
        else:
            self._stderr.flush()
            self._stderr_ended.set_result(None)

    def process_exited(self) -> None:
        """The process itself ended; children of it may hold the pipes for ever."""
        if not self._exited.done():
            self._exited.set_result(None)
        self._writable.set()
        asyncio.get_running_loop().call_later(_DRAIN_SECONDS, self._end_stdout)

    def pause_writing(self) -> None:
        """The server reads slower than we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The server caught up."""
        self._writable.set()

    def _end_stdout(self) -> None:
        self._has_stdout_ended = True
        self._stdout.feed_eof()

    # The transport of the client.

    @asynccontextmanager
    async def _streams(self) -> AsyncGenerator[_Streams]:
        transport = await self._spawn()
        incoming, received = anyio.create_memory_object_stream[_Item](0)
        try:
            self._reader = asyncio.create_task(self._read(incoming))
            yield received, _Outgoing(self)
        finally:
            with anyio.CancelScope(shield=True):
                await self._stop(transport)
            incoming.close()
            received.close()

    async def _spawn(self) -> asyncio.SubprocessTransport:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        program = self._argv[0]
        if not self._cwd.is_dir():
            raise SkillError(f"There is no folder {self._cwd} to start {program} in.")
        try:
            # A server that heeds neither a closed stdin nor SIGTERM must not outlive a worker that is killed.
            argv = tethered(self._program(), *self._argv[1:], by=signal.SIGKILL)
            transport, _ = await loop.subprocess_exec(
                lambda: self, *argv, env=self._env, cwd=self._cwd, start_new_session=True
            )
        except FileNotFoundError:
            raise SkillError(f"There is no program {program!r}.", hint=f"Install {program}, or correct it.") from None
        except PermissionError as error:
            raise SkillError(f"{program!r} may not be run: {error.strerror}.") from None
        except (OSError, ValueError) as error:
            raise SkillError(f"{program!r} could not be started: {error}.") from None
        self._transport = transport
        stdout = transport.get_pipe_transport(_STDOUT)
        assert isinstance(stdout, asyncio.ReadTransport)
        self._stdout.set_transport(stdout)
        self.spawn_ms = (loop.time() - begun) * 1000
        return transport

    def _program(self) -> str:
        """The path of the program, found as the system would find it.

        Raises:
            FileNotFoundError, PermissionError: as the system would.
        """
        name = self._argv[0]
        if "/" not in name:
            found = shutil.which(name, path=self._env.get("PATH", os.defpath))
            if found is None:
                raise FileNotFoundError(name)
            return os.path.abspath(found)
        path = os.path.join(self._cwd, name)
        if not os.path.exists(path):
            raise FileNotFoundError(name)
        if os.path.isdir(path) or not os.access(path, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return path

    async def _stop(self, transport: asyncio.SubprocessTransport) -> None:
        """Close stdin, wait, then end whatever is left of the process and its descendants."""
        self._is_failure = self.is_lost
        for timer in self._stopping.values():
            timer.cancel()
        self._stopping.clear()
        self._calm.set()
        self._is_deaf = True
        self._may_listen.set()
        try:
            if (stdin := transport.get_pipe_transport(_STDIN)) is not None:
                stdin.close()
            await asyncio.wait({self._exited}, timeout=STOP_GRACE_SECONDS)
            self._own_code = transport.get_returncode()
            await end_processes(transport.get_pid(), self._token, has_exited=self._exited.done)
        except asyncio.CancelledError:
            kill_group(transport.get_pid())
            raise
        finally:
            with suppress(PermissionError):
                transport.close()
            self._end_stdout()
            self._stderr.finish()
            if self._reader is not None:
                self._reader.cancel()
                await asyncio.wait({self._reader})
                if not self._reader.cancelled() and (error := self._reader.exception()) is not None:
                    logger.error("Reading from a skill's process failed", exc_info=error)

    async def write(self, message: mcp.JSONRPCMessage) -> None:
        """Send one message; waits while the server does not read.

        Raises:
            anyio.BrokenResourceError: the process is gone.
        """
        transport = self._transport
        stdin = None if transport is None else cast("asyncio.WriteTransport", transport.get_pipe_transport(_STDIN))
        if stdin is None or stdin.is_closing() or self._exited.done():
            raise anyio.BrokenResourceError
        stdin.write(message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
        match message:
            case mcp.JSONRPCRequest():
                self._unanswered.add(str(message.id))
                self.has_asked_to_initialize |= message.method == "initialize"
            case mcp.JSONRPCNotification():
                if message.method == "notifications/cancelled":
                    self._expect_stop(str((message.params or {}).get("requestId")))
                    # Whoever cancels does not wait for a server that may not even read.
                    return
            case _:
                self._forget(str(message.id))
        await self._writable.wait()
        if self._exited.done():
            raise anyio.BrokenResourceError

    def _expect_stop(self, request_id: str) -> None:
        if request_id in self._unanswered:
            self._calm.clear()
            loop = asyncio.get_running_loop()
            self._stopping[request_id] = loop.call_later(STOP_GRACE_SECONDS, self._give_up_on, request_id)

    def _give_up_on(self, request_id: str) -> None:
        self._settle(request_id)
        self.on_unstopped()

    def _settle(self, request_id: str) -> None:
        self._unanswered.discard(request_id)
        if (timer := self._stopping.pop(request_id, None)) is not None:
            timer.cancel()
        if not self._stopping:
            self._calm.set()

    def _forget(self, request_id: str) -> None:
        self._asked.discard(request_id)
        if len(self._asked) < MAX_OPEN_REQUESTS:
            self._may_listen.set()

    async def _read(self, incoming: MemoryObjectSendStream[_Item]) -> None:
        """Turn stdout into messages until it ends."""
        line = bytearray()
        try:
            while self._fault is None and (data := await self._stdout.read(_CHUNK)):
                first, *others = data.split(b"\n")
                line += first
                for other in others:
                    self._check_size(line)
                    await self._take(bytes(line), incoming)
                    line[:] = other
                self._check_size(line)
        finally:
            self._is_deaf = True
            incoming.close()
        # A server that is stuck in writing would not notice the end of its stdin.
        while await self._stdout.read(_CHUNK):
            pass

    def _check_size(self, line: bytearray) -> None:
        if len(line) > MAX_MESSAGE_BYTES:
            self._fault = f"sent a message of more than {MAX_MESSAGE_BYTES // 1024**2} MiB"

    async def _take(self, line: bytes, incoming: MemoryObjectSendStream[_Item]) -> None:
        line = line.strip()
        if not line or self._is_deaf or self._fault is not None:
            return
        try:
            message = mcp.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            self._note_noise(line)
            return
        match message:
            case mcp.JSONRPCRequest():
                if str(message.id) in self._asked:
                    return  # the same question again while it is open
                self._asked.add(str(message.id))
                if len(self._asked) >= MAX_OPEN_REQUESTS:
                    self._may_listen.clear()
            case mcp.JSONRPCNotification():
                self._unasked += 1
                if self._unasked > MAX_UNASKED:
                    self._fault = f"sent more than {MAX_UNASKED} notifications without an answer between them"
                    return
                if message.method == "notifications/cancelled":
                    self._forget(str((message.params or {}).get("requestId")))
            case _:
                self._unasked = 0
                self._settle(str(message.id))
                with_readable_schemas(message)
        with suppress(anyio.BrokenResourceError):
            await incoming.send(SessionMessage(message))
        await self._may_listen.wait()

    def _note_noise(self, line: bytes) -> None:
        if not self._noise:
            self._noise = self._stderr.quoted(line, _NOISE_SHOWN)
        self._noise_bytes += len(line) + 1
        if self._noise_bytes > MAX_NOISE_BYTES:
            size = MAX_NOISE_BYTES // 1024**2
            self._fault = f"wrote more than {size} MiB to stdout that are no MCP messages"


class _Outgoing:
    """The write side of the transport."""

    def __init__(self, process: ServerProcess) -> None:
        self._process = process

    async def send(self, item: SessionMessage, /) -> None:
        await self._process.write(item.message)

    async def aclose(self) -> None:
        """Nothing to do: the process is ended as a whole."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        return None


def _exit_text(code: int | None) -> str:
    if code is None:
        return "closed its connection"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
