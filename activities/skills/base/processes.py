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
    session: int
    started: str
    is_marked: bool


async def end_processes(leader: int, token: str, *, has_exited: Callable[[], bool]) -> None:
    """SIGTERM for the group of `leader` and its strays, SIGKILL after a grace, until none is left.

    `has_exited` says whether the leader itself was waited for, which is its owner's task.
    """
    # Before anything dies: a stray loses its parent, and with it the way to find it without the marker.
    strays = await asyncio.to_thread(_strays, leader, token)
    _signal(leader, strays, signal.SIGTERM)
    clock = asyncio.get_running_loop().time
    deadline = clock() + GRACE_SECONDS
    # Nothing tells of the end of processes that are not our children.
    while clock() < deadline and _is_any_alive(leader, strays, has_exited):  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)
    for _ in range(_MAX_ROUNDS):
        found = await asyncio.to_thread(_strays, leader, token)
        strays |= found
        _signal(leader, found | {stray for stray in strays if _is_same(stray)}, signal.SIGKILL)
        if not _is_any_alive(leader, strays, has_exited):
            return
        await asyncio.sleep(_POLL_SECONDS)


def kill_group(leader: int) -> None:
    """SIGKILL for the group at once, for a loop that is going down."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _strays(leader: int, token: str) -> frozenset[_Process]:
    """Descendants outside the leader's group: by marker, or by parent as long as that lives."""
    processes = _all_processes(token)
    family = {leader}
    while grown := {p.pid for p in processes if p.pid not in family and (p.parent in family or p.is_marked)}:
        family |= grown
    return frozenset(p for p in processes if p.pid in family and p.group != leader)


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
    is_marked = f"{MARKER}={token}".encode() in environment.split(b"\0")
    return _Process(pid, int(stat[1]), int(stat[2]), int(stat[3]), stat[19], is_marked)


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of `/proc/<pid>/stat` from the state on; the name before it may hold anything."""
    try:
        return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _is_same(process: _Process) -> bool:
    """Whether the process still runs; the start time tells it from another that got its id."""
    stat = _stat_fields(process.pid)
    return stat is not None and stat[0] != "Z" and stat[19] == process.started


def _is_any_alive(leader: int, strays: frozenset[_Process], has_exited: Callable[[], bool]) -> bool:
    if not has_exited():
        return True
    # Orphans come to us where the worker is the init of its container, and nobody else waits for them.
    for target in (-leader, *(stray.pid for stray in strays)):
        with suppress(ChildProcessError):
            os.waitpid(target, os.WNOHANG)
    return _is_group_alive(leader) or any(_is_same(stray) for stray in strays)


def _is_group_alive(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _signal(leader: int, strays: frozenset[_Process], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
    for stray in strays:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(stray.pid, number)
