"""The base skill under test, and a way to hear from its processes without sleeping."""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from perstack.activities.skills.base.dynamic import DynamicContext
from perstack.activities.skills.base.skill import BaseSkill

WAIT_SECONDS = 20
HOST_ENV = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}


class OpenSkill(Protocol):
    """Starts a base skill in the workspace and closes it at the end of the test."""

    async def __call__(
        self,
        *,
        dynamic: DynamicContext | None = None,
        pick: tuple[str, ...] = (),
        omit: tuple[str, ...] = (),
        host_env: Mapping[str, str] = HOST_ENV,
        protected: tuple[Path, ...] = (),
    ) -> BaseSkill: ...


class Signal:
    """A fifo that a process writes to when it got somewhere."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._handle = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    async def wait(self) -> str:
        """What was written first."""
        written = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(self._handle, written.set)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await written.wait()
        finally:
            loop.remove_reader(self._handle)
        return os.read(self._handle, 65536).decode()

    def close(self) -> None:
        """Let the fifo go."""
        os.close(self._handle)


@asynccontextmanager
async def bounded() -> AsyncGenerator[None]:
    """No wait of a test is longer."""
    async with asyncio.timeout(WAIT_SECONDS):
        yield


def command(program: str, *args: str, **more: Any) -> dict[str, Any]:
    """Arguments of `exec`."""
    return {"command": program, "args": list(args), "env": {}, "cwd": "", "stdout": True, "stderr": True, **more}


def is_running(pid: int) -> bool:
    """Whether a process is there and not merely a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def zombies() -> list[int]:
    """Our own children that nobody waited for."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] == "Z" and int(fields[1]) == os.getpid():
                found.append(int(name))
    return found
