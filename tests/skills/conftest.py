"""A workspace, what lies beside it, and the base skill in it."""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from perstack.activities.skills.base.dynamic import DynamicContext
from perstack.activities.skills.base.skill import BaseSkill
from perstack.activities.skills.base.workspace import Workspace
from perstack.activities.skills.endpoints import EndpointPolicy
from perstack.activities.skills.mcp.skill import McpSkill
from perstack.core.expert import McpSseSkill, McpStdioSkill
from support.mcp_servers import Heard, OpenMcpSkill, leftovers
from support.skills import HOST_ENV, OpenSkill, Signal, bounded, zombies


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
        return skill

    yield start
    for skill in opened:
        async with bounded():
            await skill.close()


@pytest.fixture
def skill_env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a run whose home folder no other test has; nothing that has it may outlive the test."""
    home = str(tmp_path / "home of one test")
    yield {"PATH": os.environ["PATH"], "HOME": home}
    assert not leftovers(home)
    assert not zombies()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def open_mcp(skill_env: dict[str, str], root: Path, heard: Heard) -> AsyncIterator[OpenMcpSkill]:
    opened: list[McpSkill] = []

    def make(
        skill: McpStdioSkill | McpSseSkill,
        *,
        env: Mapping[str, str] | None = None,
        endpoints: EndpointPolicy | None = None,
        scrub: Callable[[str], str] = lambda text: text.replace("TOP-SECRET", "[hidden]"),
        **more: Any,
    ) -> McpSkill:
        made = McpSkill(
            skill,
            env={**skill_env, **(env or {})},
            cwd=root,
            endpoints=endpoints or EndpointPolicy(),
            scrub=scrub,
            on_stderr=heard,
            **more,
        )
        opened.append(made)
        return made

    yield make
    for skill in opened:
        async with bounded():
            await skill.close()
