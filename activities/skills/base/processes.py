"""The end of a command: its process group, and the children that left it, are gone before we go on."""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARKER = "PERSTACK_EXEC_ID"
"""Variable that a command's descendants inherit, so that those in sessions of their own are found."""
GRACE_SECONDS = 0.5
_POLL_SECONDS = 0.01
_MAX_ROUNDS = 50
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    group: int
    started: str
    is_marked: bool


async def end_strays(token: str) -> None:
    """End what commands left in the background: all whose marker begins with `token`, and what they started."""
    if await asyncio.to_thread(_family, None, token):
        await end_processes(None, token, has_exited=lambda: True)


async def end_processes(leader: int | None, token: str, *, has_exited: Callable[[], bool]) -> None:
    """SIGTERM for the group of `leader` and its strays, SIGKILL after a grace, until none is left.

    `has_exited` says whether the leader itself was waited for, which is its owner's task. Without a leader, whose id
    may be another's by now, only the marker counts.
    """
    # Before anything dies: a stray loses its parent, and with it the way to find it without the marker.
    family = await asyncio.to_thread(_family, leader, token)
    _signal(leader, family, signal.SIGTERM)
    clock = asyncio.get_running_loop().time
    deadline = clock() + GRACE_SECONDS
    # Nothing tells of the end of processes that are not our children.
    while clock() < deadline and not (has_exited() and _are_gone(leader, family)):  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)
    for _ in range(_MAX_ROUNDS):
        family = {process for process in family if _is_running(process)}
        family |= await asyncio.to_thread(_family, leader, token)
        if has_exited() and _are_gone(leader, family):
            return
        _signal(leader, family, signal.SIGKILL)
        await asyncio.sleep(_POLL_SECONDS)


def kill_group(leader: int) -> None:
    """SIGKILL for the group at once, for a loop that is going down."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _family(leader: int | None, token: str) -> set[_Process]:
    """Who belongs to `leader`: by group, by marker, or by parent as long as that lives."""
    processes = _all_processes(token)
    pids = {p.pid for p in processes if p.is_marked or leader in (p.pid, p.group)}
    while grown := {p.pid for p in processes if p.pid not in pids and p.parent in pids}:
        pids |= grown
    return {process for process in processes if process.pid in pids}


def _all_processes(token: str) -> list[_Process]:
    try:
        names = os.listdir(_PROC)
    except OSError:
        return []
    own = os.getpid()
    found = (_process(int(name), token) for name in names if name.isdigit() and int(name) not in (1, own))
    return [process for process in found if process is not None]


def _process(pid: int, token: str) -> _Process | None:
    stat = _stat_fields(pid)
    if stat is None or stat[0] == "Z":
        return None
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        environment = b""
    mark = f"{MARKER}={token}".encode()
    is_marked = any(variable.startswith(mark) for variable in environment.split(b"\0"))
    return _Process(pid, int(stat[1]), int(stat[2]), stat[19], is_marked)


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of `/proc/<pid>/stat` from the state on; the name before it may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _is_running(process: _Process) -> bool:
    """Whether the process is there; the start time tells it from another that got its id."""
    stat = _stat_fields(process.pid)
    return stat is not None and stat[0] != "Z" and stat[19] == process.started


def _are_gone(leader: int | None, family: set[_Process]) -> bool:
    """Whether none of the family runs; only to be asked once the leader was waited for."""
    # Orphans come to us where the worker is the init of its container, and nobody else waits for them.
    targets = [process.pid for process in family]
    for target in targets if leader is None else (-leader, *targets):
        with suppress(ChildProcessError):
            os.waitpid(target, os.WNOHANG)
    if _PROC.is_dir():
        return not any(_is_running(process) for process in family)
    if leader is None:
        return True
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's process in the group still runs
    return False


def _signal(leader: int | None, family: set[_Process], number: signal.Signals) -> None:
    if leader is not None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, number)
    for process in family:
        if process.group != leader:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, number)
