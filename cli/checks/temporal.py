"""Temporal: the server that a run would use, or the program that would be started. Starts no server."""

import asyncio
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from temporalio.client import Client

from ...client.binary import HOW_TO_GET_IT, PROGRAM, find_binary
from ...client.connection import (
    CONNECT_SECONDS,
    SEARCH_ATTRIBUTES,
    ServerInfo,
    check_version,
    connect,
    known_search_attributes,
    load_profile,
    rpc_failures,
    server_version,
)
from ...client.embedded import lease_server, running_server
from ...client.filelock import is_free
from ...client.locations import DataFolder
from ...client.storage.driver import PayloadDriver
from ...client.storage.folder import FolderStorage
from ...core.failures import PerstackError, ServerError
from ..diagnostics import progress
from .report import Check, Tell, failed, passed, unneeded, warned

_VERSION_SECONDS = 10.0
_OPTIONAL_ATTRIBUTES = {"PerstackQuery"}
"""Who runs a server may have left them out on purpose (docs/operations.md)."""
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


async def temporal_checks(address: str | None, data: DataFolder, tell: Tell) -> None:
    """The server of `--address` or of the environment, else the embedded one and its program."""
    try:
        target = address or load_profile().address
        if target:
            # A server that is named is only described by this, not started.
            with await lease_server(address=target, progress=progress, data=data) as lease:
                await _look_at(lease.info, data, f" ({_origin(address)})", tell)
            return
        info = await asyncio.to_thread(running_server, data)
        tell(await _program_check(is_running=info is not None))
        if info is None:
            tell(_stopped_check(data))
        else:
            await _look_at(info, data, "", tell)
    except PerstackError as error:
        tell(failed("server", error))


def _origin(address: str | None) -> str:
    if address:
        return "--address"
    return "TEMPORAL_ADDRESS" if os.environ.get("TEMPORAL_ADDRESS") else "Temporal profile"


async def _look_at(info: ServerInfo, data: DataFolder, origin: str, tell: Tell) -> None:
    client = await connect(info, storage=PayloadDriver(FolderStorage(data.storage)))
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            with rpc_failures(info):
                version = await server_version(client)
            missing = await _missing_attributes(client)
    except TimeoutError:
        raise ServerError(f"Temporal at {info.address} answered, and then no more") from None
    kind = "embedded server at " if info.is_embedded else ""
    ui = f", Web UI {info.ui_url}" if info.ui_url else ""
    tell(passed("server", f"{kind}{info.address}{origin}, version {version}, namespace {info.namespace}{ui}"))
    if missing:
        names = ", ".join(missing)
        hint = "Register them (docs/operations.md); runs work without, but cannot be searched by them."
        tell(warned("server", f"the server lacks the search attributes {names}", hint))


async def _missing_attributes(client: Client) -> list[str]:
    known = await known_search_attributes(client)
    return [name for name in SEARCH_ATTRIBUTES if name not in known and name not in _OPTIONAL_ATTRIBUTES]


def _stopped_check(data: DataFolder) -> Check:
    if not is_free(data.supervisor_lock):
        hint = f"Run the check again; if it stays so, end it with `perstack dev --stop` and see {data.log}."
        return warned("server", "the embedded server is starting, stopping, or does not answer", hint)
    if not is_free(data.server_lock):
        return warned("server", "an embedded server was left behind; the next command ends it and starts another")
    return unneeded("server", "the embedded server is not running; the next command that needs it starts it")


async def _program_check(*, is_running: bool) -> Check:
    try:
        path = find_binary()
        if path is None:
            return _no_program(is_running=is_running)
        version = await _program_version(path)
    except PerstackError as error:
        return failed("temporal", error)
    return passed("temporal", f"{path}, {version}")


def _no_program(*, is_running: bool) -> Check:
    text = "no `temporal` program found (PERSTACK_TEMPORAL_CLI, PATH, the user's cache folder)"
    if is_running:
        return warned("temporal", f"{text}; the embedded server runs, but could not be started again", HOW_TO_GET_IT)
    if os.environ.get("PERSTACK_NO_DOWNLOAD") != "1":
        return warned("temporal", f"{text}; the first run tries to download it", HOW_TO_GET_IT)
    if shutil.which("go") is not None:
        return warned("temporal", f"{text}; the first run tries to build it with Go", HOW_TO_GET_IT)
    error = ServerError(f"{text}, and downloads are off (PERSTACK_NO_DOWNLOAD=1)", code="temporal.binary")
    return failed("temporal", error, hint=HOW_TO_GET_IT)


async def _program_version(path: Path) -> str:
    """What the program says of itself.

    Raises:
        ServerError: it cannot be run, or starts a server that is too old.
    """
    hint = f"Correct {'PERSTACK_TEMPORAL_CLI' if os.environ.get('PERSTACK_TEMPORAL_CLI') else 'that program'}.\n"
    hint += HOW_TO_GET_IT
    code, text = await _ask_version(path, hint)
    if code != 0 or PROGRAM not in text:
        what = f"ended with {code}" if code else "is not Temporal's program"
        raise ServerError(f"{path} --version {what}: {text[:200]}", code="temporal.binary", hint=hint)
    match = re.search(r"Server v?([0-9]+\.[0-9]+[^ ,)]*)", text)
    if match:
        check_version(match[1], str(path))
    return f"server {match[1]}" if match else text.splitlines()[0]


async def _ask_version(path: Path, hint: str) -> tuple[int | None, str]:
    # It gets none of the user's keys.
    env = {name: os.environ[name] for name in _KEPT if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "--version",
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        text = f"{path} cannot be run: {error.strerror or error}"
        raise ServerError(text, code="temporal.binary", hint=hint) from error
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_VERSION_SECONDS):
            output = await process.stdout.read(4096)
            return await process.wait(), output.decode(errors="replace").strip()
    except TimeoutError:
        text = f"{path} --version did not end within {_VERSION_SECONDS:g} s"
        raise ServerError(text, code="temporal.binary", hint=hint) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
