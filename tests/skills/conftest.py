"""A workspace, what lies beside it, and the base skill in it."""

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest
from perstack.activities.skills.base.dynamic import DynamicContext
from perstack.activities.skills.base.server import BaseSkill
from perstack.activities.skills.base.workspace import Workspace
from support.skills import HOST_ENV, OpenSkill, Signal, bounded


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
