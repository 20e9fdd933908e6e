"""Commands: run without a shell, bounded in time and output, and never left behind."""

import asyncio
import codecs
import os
import secrets
import signal
from collections.abc import Mapping
from typing import Any, Literal, cast

from ....definitions.protected import is_protected
from ..environment import exec_environment
from ..results import ToolFailure
from .processes import MARKER, end_processes, end_strays, kill_group
from .workspace import Workspace

DEFAULT_TIMEOUT_MS = 60_000
OUTPUT_LIMIT = 128 * 1024
"""Bytes kept of each stream: half from its head, half from its tail."""
SUCCEEDED_SILENTLY = "The command succeeded and wrote no output."
STILL_HELD = (
    "\n(a process that the command left in the background goes on until the session ends; "
    "its further output is not read)"
)
_DRAIN_SECONDS = 0.5
_STDOUT, _STDERR = 1, 2
_Ending = Literal["exited", "stopped", "timedOut"]


class Output:
    """One stream: what came first and what came last, the middle only counted."""

    def __init__(self, limit: int = OUTPUT_LIMIT) -> None:
        self._half = limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = 0

    def add(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        room = self._half - len(self._head)
        self._head += data[:room]
        rest = data[room:]
        self._tail += rest[-self._half :]
        excess = len(self._tail) - self._half
        self._cut += max(0, len(rest) - self._half) + max(0, excess)
        if excess > 0:
            del self._tail[:excess]

    def text(self) -> str:
        """Everything kept, undecodable bytes replaced, a cut named."""
        if not self._cut:
            return (self._head + self._tail).decode(errors="replace")
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # A character cut in two is no broken character of the command.
        start = next((i for i, byte in enumerate(self._tail[:4]) if byte & 0xC0 != 0x80), 0)
        head, tail = decoder.decode(bytes(self._head)), self._tail[start:].decode(errors="replace")
        return f"{head}\n… {self._cut + start} bytes cut …\n{tail}"


class _Child(asyncio.SubprocessProtocol):
    """Collects the output of one process and tells when it ends."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.streams = {_STDOUT: Output(), _STDERR: Output()}
        self.exited: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self._open = 0

    def expect(self, pipes: int) -> None:
        """How many pipes have to close before the output is complete; some may have closed already."""
        self._open += pipes
        self._settle()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.streams[fd].add(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd in self.streams:
            self._open -= 1
            self._settle()

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def _settle(self) -> None:
        if self._open == 0 and not self.drained.done():
            self.drained.set_result(None)


class Commands:
    """Runs the commands of one run."""

    def __init__(self, workspace: Workspace, host_env: Mapping[str, str]) -> None:
        self._workspace = workspace
        self._host_env = host_env
        self._token = secrets.token_hex(16)
        self._count = 0
        self._running: dict[asyncio.Task[dict[str, Any]], asyncio.Future[None]] = {}

    @property
    def has_run(self) -> bool:
        """Whether there was any command yet."""
        return self._count > 0

    async def run(self, args: Mapping[str, Any]) -> dict[str, Any]:
        """Run one command to its end, its timeout or our cancellation.

        Raises:
            ToolFailure: it did not start, did not end in time, or ended with another exit code than 0.
        """
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A task of its own: a cancellation ends the command first and then goes on.
        work = asyncio.create_task(self._supervise(args, stop))
        self._running[work] = stop
        work.add_done_callback(self._forget)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            _set(stop)
            await _outlast(work)
            raise

    async def close(self) -> None:
        """End the commands that still run, whose callers get an error, and what others left in the background."""
        for stop in self._running.values():
            _set(stop)
        if self._running:
            await asyncio.wait(list(self._running))
        if self._count:
            await end_strays(self._token)

    def _forget(self, work: asyncio.Task[dict[str, Any]]) -> None:
        self._running.pop(work, None)
        if not work.cancelled():
            work.exception()

    async def _supervise(self, args: Mapping[str, Any], stop: asyncio.Future[None]) -> dict[str, Any]:
        self._count += 1
        token = f"{self._token}.{self._count}."
        timeout_ms = float(args.get("timeout", DEFAULT_TIMEOUT_MS))
        transport, child = await self._spawn(args, token)
        try:
            ending = await _wait(child, stop, timeout_ms / 1000)
            if ending != "exited":
                await end_processes(transport.get_pid(), token, has_exited=child.exited.done)
        except asyncio.CancelledError:
            kill_group(transport.get_pid())
            raise
        finally:
            transport.close()
        return _report(args, child, ending, transport.get_returncode(), timeout_ms)

    async def _spawn(self, args: Mapping[str, Any], token: str) -> tuple[asyncio.SubprocessTransport, _Child]:
        command: str = args["command"]
        argv = [command, *cast("list[str]", args["args"])]
        environment = {**exec_environment(self._host_env, args["env"]), MARKER: token}
        _check_arguments(argv, args["env"])
        stdout, stderr = _pipe(args["stdout"]), _pipe(args["stderr"])
        loop = asyncio.get_running_loop()
        with self._workspace.directory(args["cwd"]) as directory:
            try:
                transport, child = await loop.subprocess_exec(
                    _Child,
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=environment,
                    start_new_session=True,
                    **_working_directory(directory),
                )
            except FileNotFoundError as error:
                raise ToolFailure(f"There is no program {command!r}.") from error
            except PermissionError as error:
                raise ToolFailure(f"{command!r} may not be run: {error.strerror}.") from error
            except OSError as error:
                raise ToolFailure(f"{command!r} could not be started: {error.strerror or error}.") from error
        child.expect((stdout, stderr).count(asyncio.subprocess.PIPE))
        return transport, child


async def _wait(child: _Child, stop: asyncio.Future[None], timeout_seconds: float) -> _Ending:
    await asyncio.wait({child.exited, stop}, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    if child.exited.done():
        # What the command left in the background may hold the pipes for ever.
        await asyncio.wait({child.drained, stop}, timeout=_DRAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    if stop.done():
        return "stopped"
    return "exited" if child.exited.done() else "timedOut"


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _outlast(work: asyncio.Task[dict[str, Any]]) -> None:
    """Wait for `work` however often we are cancelled meanwhile."""
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            continue


def _pipe(is_wanted: bool) -> int:
    return asyncio.subprocess.PIPE if is_wanted else asyncio.subprocess.DEVNULL


def _working_directory(directory: int) -> dict[str, Any]:
    """How the child gets into the folder behind a handle; by its path somebody could swap it."""
    if os.path.isdir("/proc/self/fd"):
        return {"cwd": f"/proc/self/fd/{directory}"}
    return {"preexec_fn": lambda: os.fchdir(directory)}


def _check_arguments(argv: list[str], env: Mapping[str, str]) -> None:
    if not argv[0]:
        raise ToolFailure("The command is empty.")
    try:
        encoded = [os.fsencode(text) for text in (*argv, *env, *env.values())]
    except UnicodeEncodeError as error:
        raise ToolFailure("The command, its arguments or variables are not valid text.") from error
    if any(b"\0" in text for text in encoded):
        raise ToolFailure("The command, its arguments and variables may not contain the character NUL.")
    if any(not name or "=" in name for name in env):
        raise ToolFailure("The name of a variable is empty or contains '='.")


def _report(
    args: Mapping[str, Any], child: _Child, ending: _Ending, returncode: int | None, timeout_ms: float
) -> dict[str, Any]:
    stdout, stderr = child.streams[_STDOUT].text(), child.streams[_STDERR].text()
    shown = {name: text for name, text in (("stdout", stdout), ("stderr", stderr)) if args[name]}
    ignored = sorted(name for name in args["env"] if is_protected(name))
    extra: dict[str, Any] = {"ignoredEnv": ignored} if ignored else {}
    if ending == "timedOut":
        message = f"The command did not end within {timeout_ms:g} ms and was stopped with all its processes."
        raise ToolFailure(message, timedOut=True, **shown, **extra)
    if ending == "stopped":
        raise ToolFailure("The command was stopped because the session was closed.", **shown, **extra)
    code = returncode if returncode is not None else 0
    if code < 0:
        message = f"The command was ended by {_signal_name(-code)}."
        raise ToolFailure(message, exitCode=128 - code, **shown, **extra)
    if code > 0:
        raise ToolFailure(f"The command ended with exit code {code}.", exitCode=code, **shown, **extra)
    output = stdout + stderr
    if not output.strip():
        output = SUCCEEDED_SILENTLY
    if not child.drained.done():
        output += STILL_HELD
    return {"output": output, "exitCode": 0, **extra}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
