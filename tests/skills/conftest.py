"""A workspace, the base skill in it, and a way to hear from processes without sleeping."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

from perstack.activities.skills.base.dynamic import DynamicContext
from perstack.activities.skills.base.server import BaseSkill
from perstack.activities.skills.base.workspace import Workspace

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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "ws"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the workspace with a file that nobody may see."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def workspace(root: Path) -> Workspace:
    return Workspace(root)


@pytest.fixture
def signal(tmp_path: Path) -> Iterator[Signal]:
    fifo = Signal(tmp_path / "signal")
    yield fifo
    fifo.close()


@pytest.fixture
async def open_skill(root: Path) -> AsyncIterator[OpenSkill]:
    opened: list[BaseSkill] = []

    async def start(
        *,
        dynamic: DynamicContext | None = None,
        pick: tuple[str, ...] = (),
        omit: tuple[str, ...] = (),
        host_env: Mapping[str, str] = HOST_ENV,
        protected: tuple[Path, ...] = (),
    ) -> BaseSkill:
        skill = BaseSkill(
            workspace=Workspace(root, protected), host_env=host_env, dynamic=dynamic, pick=pick, omit=omit
        )
        opened.append(skill)
        await skill.start()
        return skill

    yield start
    for skill in opened:
        async with bounded():
            await skill.close()


@asynccontextmanager
async def bounded() -> AsyncIterator[None]:
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
