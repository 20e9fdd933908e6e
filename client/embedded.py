"""The embedded server as a client sees it: found, started, recovered, leased, stopped.

Locks decide, never process ids: `supervisor.lock` says whether somebody looks after the server, `server.lock` whether
anybody may still have the database open. Ids are only used to end what a lock proves to be alive.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client, GrpcCompression
from temporalio.service import RPCError, RPCStatusCode

from ..core.failures import ServerError, StorageError
from ..settings import seconds_setting
from .binary import ensure_binary
from .connection import (
    DEFAULT_NAMESPACE,
    SEARCH_ATTRIBUTES,
    ServerInfo,
    check_version,
    known_search_attributes,
    load_profile,
    server_version,
    shared_runtime,
)
from .filelock import FileLock, is_free, pauses, read_note
from .locations import DataFolder, data_folder, make_private
from .record import ServerRecord, read_record
from .supervisor import START_SECONDS, STOP_SECONDS, is_listening

STOCK_RETENTION = timedelta(days=1)
RETENTION = timedelta(days=3650)
LOG_BYTES = 8 * 1024 * 1024

_INHERITED_SETTINGS = ("PERSTACK_SERVER_IDLE", "PERSTACK_SQLITE_SYNCHRONOUS")
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", *_INHERITED_SETTINGS)
_INHERITED_PREFIXES = ("LC_", "LD_", "DYLD_", "PYTHON")


class ServerLease:
    """The right to use a server; the embedded one stays up as long as a lease on it is open."""

    def __init__(self, info: ServerInfo, lock: FileLock | None = None) -> None:
        self.info = info
        self._lock = lock

    def close(self) -> None:
        """Give the server up; harmless when that was done already."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def lease_server(
    *, address: str | None, progress: Callable[[str], None], data: DataFolder | None = None
) -> ServerLease:
    """The server named by `address` or the environment, else the embedded one, started if need be."""
    profile = load_profile()
    target = address or profile.address
    if target:
        namespace = profile.namespace or DEFAULT_NAMESPACE
        return ServerLease(
            ServerInfo(address=target, ui_url=None, namespace=namespace, is_embedded=False, version=None)
        )
    folder = data or data_folder()
    with _storage_errors(folder):
        return await _lease_embedded(folder, progress)


def running_server(data: DataFolder) -> ServerInfo | None:
    """The embedded server of the data folder, if it is up and ready; starts nothing and makes no folder."""
    with _storage_errors(data):
        record = _ready_record(data)
    return _info_of(record) if record else None


async def stop_server(data: DataFolder) -> bool:
    """End the embedded server of the data folder, whoever uses it; tells whether there was one."""
    with _storage_errors(data):
        if not data.locks.exists():
            return False
        async with _starting(data):
            was_running = not (is_free(data.supervisor_lock) and is_free(data.server_lock))
            await _end_supervisor(data)
            await _end_orphan(data)
            return was_running


async def _lease_embedded(data: DataFolder, progress: Callable[[str], None]) -> ServerLease:
    make_private(data.server)
    clients = FileLock(data.clients_lock)
    # Only a supervisor that is about to leave keeps this from us.
    if not await _until(lambda: clients.acquire(is_shared=True), 2 * STOP_SECONDS + START_SECONDS):
        raise _stuck(data, "the embedded server does not finish stopping")
    try:
        os.utime(clients.descriptor)
        record = _ready_record(data) or await _start(data, progress)
    except BaseException:
        clients.release()
        raise
    return ServerLease(_info_of(record), clients)


def _info_of(record: ServerRecord) -> ServerInfo:
    return ServerInfo(
        address=record.address,
        ui_url=record.ui_address,
        namespace=DEFAULT_NAMESPACE,
        is_embedded=True,
        version=record.version,
    )


def _running_record(data: DataFolder) -> ServerRecord | None:
    """The record of a server that somebody looks after and that answers."""
    record = None if is_free(data.supervisor_lock) else read_record(data.record)
    return record if record and is_listening(record.port) else None


def _ready_record(data: DataFolder) -> ServerRecord | None:
    """The record of a server whose namespace is prepared, too."""
    record = _running_record(data)
    return record if record and record.version else None


async def _start(data: DataFolder, progress: Callable[[str], None]) -> ServerRecord:
    binary = await asyncio.to_thread(ensure_binary, progress)
    async with _starting(data):
        ready = _ready_record(data)
        if ready:
            return ready
        progress("starting the Temporal server …")
        record = await _run_supervisor(data, binary)
        try:
            return await _prepare(data, record)
        except ServerError:
            # A server of ours that cannot be used must not stay for the next client.
            await _end_supervisor(data)
            raise


@contextlib.asynccontextmanager
async def _starting(data: DataFolder) -> AsyncGenerator[None]:
    """Nobody else starts or stops the server meanwhile."""
    lock = FileLock(data.start_lock)
    if not await _until(lock.acquire, 2 * START_SECONDS):
        raise _stuck(data, "another process has been starting the embedded server for too long")
    try:
        yield
    finally:
        lock.release()


async def _run_supervisor(data: DataFolder, binary: Path) -> ServerRecord:
    """A running server: the one that is just coming up, or a new one."""
    is_spawned = False
    for pause in pauses(START_SECONDS, longest_seconds=0.05):
        record = _running_record(data)
        if record:
            return record
        if is_free(data.supervisor_lock):
            if is_spawned:
                raise _not_started(data)
            await _end_orphan(data)
            await asyncio.to_thread(_spawn, data, binary)
            is_spawned = True
        await asyncio.sleep(pause)
    raise _stuck(data, "the embedded server does not answer")


def _spawn(data: DataFolder, binary: Path) -> None:
    """Start the supervisor in a session of its own; returns when it has taken its lock and left us."""
    command = [sys.executable, "-P", "-m", f"{__package__}.supervisor", str(data.root)]
    log = _open_log(data.log)
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=_supervisor_environment(binary),
        )
    finally:
        os.close(log)
    try:
        process.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise _not_started(data) from None


def _supervisor_environment(binary: Path) -> dict[str, str]:
    # The server outlives the command by far: it gets what it needs and none of the user's keys.
    kept = {
        name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }
    seconds_setting("PERSTACK_SERVER_IDLE", 0.0)  # the supervisor could tell nobody that it is no number
    return {**kept, "PERSTACK_TEMPORAL_CLI": str(binary)}


def _open_log(path: Path) -> int:
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


async def _end_supervisor(data: DataFolder) -> None:
    """Ask the supervisor to stop its server and leave; insist after a while."""
    for number, patience in ((signal.SIGTERM, 2 * STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        if is_free(data.supervisor_lock):
            return
        note = read_note(data.supervisor_lock)
        _signal_ours(int(note) if note.isdecimal() else 0, data.root, number)
        if await _until(lambda: is_free(data.supervisor_lock), patience):
            return
    raise _stuck(data, "the supervisor of the embedded server does not end")


async def _end_orphan(data: DataFolder) -> None:
    """End a server whose supervisor was killed, so that never two of them work on one database."""
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        if is_free(data.server_lock):
            return
        _signal_ours(_server_pid(data), data.database, number)
        if await _until(lambda: is_free(data.server_lock), patience):
            return
    raise _stuck(data, "the database is in use by a server that cannot be ended from here")


async def _until(attempt: Callable[[], bool], timeout_seconds: float) -> bool:
    for pause in pauses(timeout_seconds, longest_seconds=0.05):
        if attempt():
            return True
        await asyncio.sleep(pause)
    return attempt()


def _server_pid(data: DataFolder) -> int:
    # The lock's note is older than `server.json`, which a killed supervisor may never have written.
    try:
        return int(json.loads(read_note(data.server_lock))["pid"])
    except (ValueError, KeyError, TypeError):
        record = read_record(data.record)
        return record.pid if record else 0


def _signal_ours(pid: int, path: Path, number: signal.Signals) -> None:
    """Signal the process only if it was started with `path`: ids are used again."""
    if pid > 0 and str(path) in _command_line(pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _command_line(pid: int) -> str:
    if Path("/proc/self/cmdline").exists():
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    listing = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listing.stdout


async def _prepare(data: DataFolder, record: ServerRecord) -> ServerRecord:
    """Make the namespace fit for us and publish that it is; every part may be repeated."""
    info = ServerInfo(record.address, record.ui_address, DEFAULT_NAMESPACE, is_embedded=True, version=None)
    try:
        async with asyncio.timeout(START_SECONDS):
            client = await _first_connection(info)
            version = await server_version(client)
            check_version(version, record.address)
            await _raise_retention(client)
            await _register_search_attributes(client)
    except (RPCError, TimeoutError) as error:
        raise _stuck(data, f"the embedded server cannot be prepared: {error or 'no answer'}") from error
    ready = dataclasses.replace(record, version=version)
    ready.write(data.record)
    return ready


async def _first_connection(info: ServerInfo) -> Client:
    """Connect to a server that has only just opened its port."""
    request = DescribeNamespaceRequest(namespace=info.namespace)
    while True:
        try:
            client = await Client.connect(info.address, runtime=shared_runtime(), grpc_compression=GrpcCompression.NONE)
            await client.workflow_service.describe_namespace(request, timeout=timedelta(seconds=5))
        except (RPCError, RuntimeError):
            await asyncio.sleep(0.05)
        else:
            return client


async def _raise_retention(client: Client) -> None:
    """Keep histories for ten years instead of a day; another value was chosen by somebody and stays."""
    description = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    if description.config.workflow_execution_retention_ttl.ToTimedelta() <= STOCK_RETENTION:
        request = UpdateNamespaceRequest(namespace=client.namespace)
        request.config.workflow_execution_retention_ttl.FromTimedelta(RETENTION)
        await client.workflow_service.update_namespace(request)


async def _register_search_attributes(client: Client) -> None:
    known = await known_search_attributes(client)
    missing = {name: kind for name, kind in SEARCH_ATTRIBUTES.items() if name not in known}
    if not missing:
        return
    try:
        await client.operator_service.add_search_attributes(
            AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
        )
    except RPCError as error:
        # One that exists with another type is left alone; runs set only those the server knows.
        if error.status not in (RPCStatusCode.ALREADY_EXISTS, RPCStatusCode.INVALID_ARGUMENT):
            raise


@contextlib.contextmanager
def _storage_errors(data: DataFolder) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the data folder {data.root} cannot be used: {error}",
            hint="make it writable or name another one in PERSTACK_DATA_DIR",
        ) from error


def _stuck(data: DataFolder, what: str) -> ServerError:
    return ServerError(
        f"{what} (data folder {data.root})",
        hint=f"try `perstack dev --stop`; see {data.log}; two machines or containers cannot share a data folder, "
        "use TEMPORAL_ADDRESS there",
    )


def _not_started(data: DataFolder) -> ServerError:
    with contextlib.suppress(OSError):
        lines = data.log.read_text(errors="replace").strip().splitlines()[-3:]
        return ServerError(f"the embedded server did not start: {' | '.join(lines)}", hint=f"see {data.log}")
    return ServerError("the embedded server did not start", hint=f"see {data.log}")
