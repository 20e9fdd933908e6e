"""Where attacks take place: a workspace, secrets around it, and the count of what an attack achieved."""

import base64
import os
import secrets
import shutil
import signal
import stat
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from perstack.activities.skills.base.dynamic import DynamicContext
from perstack.activities.skills.base.skill import BaseSkill
from perstack.activities.skills.base.workspace import Workspace
from perstack.core.expert import Expert, ModelChoice
from perstack.core.messages import TextPart
from perstack.core.tools import ToolOutcome, Toolset
from support.skills import bounded, command

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"
PLANTED = "planted by an attack"
_MODEL = ModelChoice(provider="anthropic", model="a-model")
MARK = "PERSTACK_ATTACK"
"""A variable that tells the processes of an attack from others."""


class Attack(Protocol):
    """One attempt; its name is what `str` says."""

    async def run(self, arena: "Arena") -> list[str]:
        """What it achieved, in words; nothing, as we hope."""
        ...


@dataclass(frozen=True)
class Tool:
    """One way to use a tool on a path."""

    name: str
    leaf: str
    """The file it is after; none for a tool that takes a folder."""
    args: Callable[[str], dict[str, Any]]
    title: str = ""

    def __str__(self) -> str:
        return self.title or self.name


def _exec(path: str) -> dict[str, Any]:
    return command("sh", "-c", f"cat canary.txt; echo '{PLANTED}' > planted.txt", cwd=path)


TOOLS = (
    Tool("readTextFile", "canary.txt", lambda path: {"path": path}),
    Tool("readImageFile", "canary.png", lambda path: {"path": path}),
    Tool("readPdfFile", "canary.pdf", lambda path: {"path": path}),
    Tool("writeTextFile", "canary.txt", lambda path: {"path": path, "text": PLANTED}),
    Tool("writeTextFile", "planted.txt", lambda path: {"path": path, "text": PLANTED}, "writeTextFile-new"),
    Tool("writeTextFile", "a/b/planted.txt", lambda path: {"path": path, "text": PLANTED}, "writeTextFile-deep"),
    Tool("editTextFile", "canary.txt", lambda path: {"path": path, "oldText": "original", "newText": PLANTED}),
    Tool("addDelegateFromConfig", "canary.txt", lambda path: {"configPath": path, "expertKey": "spy"}),
    Tool("exec", "", _exec),
)


@dataclass
class Arena:
    """A workspace `root`, and beside it what nobody may read or change."""

    base: Path
    _opened: BaseSkill | None = field(default=None, init=False)
    canary: str = field(default_factory=lambda: f"canary-{secrets.token_hex(12)}")

    def __post_init__(self) -> None:
        self.root, self.outside, self.home = (self.base / name for name in ("ws", "outside", "home"))
        (self.root / "a/deep/folder").mkdir(parents=True)
        self.fill(self.root, is_bait=True)
        for folder in (self.outside, self.home, self.base / "ws-2", self.root / "perstack", self.base / "a"):
            folder.mkdir()
            self.fill(folder, is_bait=False)
        (self.root / ".env").write_text(f"KEY={self.canary}\noriginal\n")
        self.env_files = (self.root / ".env", self.root / ".env.local")
        self.host_env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "ANTHROPIC_API_KEY": self.canary,
            "MY_PRIVATE_THING": self.canary,
        }
        self._whole = self.guarded()
        self._inside = {path for path in self.root.rglob("*") if self.root / "perstack" not in path.parents}

    def reset(self) -> None:
        """Take away what an attack put into the workspace; all else has to be as it was."""
        hidden = self.root / "perstack"
        if hidden.is_symlink():
            hidden.unlink()
            os.rename(self.root / "store", hidden)
        for path in (*self.root.iterdir(), *(self.root / "a").iterdir(), *(self.root / "a/deep").iterdir()):
            if path not in self._inside:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        self.fill(self.root, is_bait=True)
        assert self.guarded() == self._whole

    def fill(self, folder: Path, *, is_bait: bool) -> None:
        """Put one file of each kind there; the innocent ones of the workspace have no canary."""
        word = "innocent" if is_bait else self.canary
        contents = {"txt": f"original {word}\n".encode(), "png": PNG + word.encode(), "pdf": PDF + word.encode()}
        for kind, content in contents.items():
            path = folder / f"canary.{kind}"
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)

    def skill(self) -> BaseSkill:
        """A base skill with every tool that takes a path."""
        context = DynamicContext(
            expert_key="lead",
            toolset=Toolset,
            load_experts=lambda text, source, root: {
                "spy": Expert(key="spy", name="spy", instruction=text, model=_MODEL)
            },
            load_tables=lambda experts, source, root: {},
            delegation_problem=lambda parent, delegate: None,
        )
        names = {tool.name for tool in TOOLS}
        workspace = Workspace(self.root, self.env_files)
        return BaseSkill(workspace=workspace, host_env=self.host_env, dynamic=context, pick=names)

    def guarded(self) -> dict[str, tuple[int, bytes]]:
        """Mode and content of everything that no tool may change."""
        found: dict[str, tuple[int, bytes]] = {}
        for folder in (self.outside, self.home, self.base / "ws-2", self.base / "a", self.root / "perstack"):
            found.update(_content_of(folder))
        for path in self.env_files:
            if path.exists():
                found[str(path)] = (path.stat().st_mode, path.read_bytes())
        return {**found, "around": (0, " ".join(sorted(os.listdir(self.base))).encode())}

    async def attack(self, tool: Tool, path: str, *, is_refused: bool = False) -> list[str]:
        """Call `tool` on `path`; what went wrong, in words.

        `is_refused` demands an error as well, for a path that must not be taken even where it leads nowhere.
        """
        before = self.guarded()
        outcome = await self.call(tool.name, tool.args(path))
        found = self.damage(before, outcome)
        if tool.name == "exec":
            found += [f"left process {pid}" for pid in self.processes()]
        if is_refused and not outcome.is_error:
            found.append("accepted")
        return found

    async def call(self, name: str, args: Mapping[str, Any]) -> ToolOutcome:
        """Call a tool of a base skill that is opened for it; its processes can be told."""
        if self._opened is None:
            async with self.open():
                return await self.call(name, args)
        if name == "exec":
            args = {**args, "env": {MARK: self.canary[-8:], **args["env"]}}
        async with bounded():
            return (await self._opened.call(name, dict(args), todos=())).outcome

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Keep one base skill open for many calls."""
        self._opened = skill = self.skill()
        try:
            yield
        finally:
            self._opened = None
            async with bounded():
                await skill.close()

    def damage(self, before: Mapping[str, tuple[int, bytes]], outcome: ToolOutcome) -> list[str]:
        """What leaked and what changed."""
        found = ["leaked"] if self.canary in said(outcome) else []
        after = self.guarded()
        found += [
            f"changed {name}" for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)
        ]
        return found

    def processes(self) -> list[int]:
        """Processes of an attack that run still."""
        return [pid for pid in _pids() if f"{MARK}={self.canary[-8:]}".encode() in _environ(pid).split(b"\0")]

    def end_processes(self) -> None:
        """End what an attack that succeeded has left."""
        pids = self.root / "pids"
        written = [int(pid) for pid in pids.read_text().split()] if pids.exists() else []
        for pid in {*self.processes(), *written}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def said(outcome: ToolOutcome) -> str:
    """All that an outcome tells, with its files as text."""
    files = [base64.b64decode(part.encoded_data) for part in outcome.result if not isinstance(part, TextPart)]
    return outcome.model_dump_json() + "".join(content.decode("latin-1") for content in files)


def text_of(outcome: ToolOutcome) -> str:
    """The text of an outcome."""
    return "".join(part.text for part in outcome.result if isinstance(part, TextPart))


def _content_of(folder: Path) -> Iterator[tuple[str, tuple[int, bytes]]]:
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            mode = path.lstat().st_mode
            yield str(path), (mode, path.read_bytes() if stat.S_ISREG(mode) else b"")


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""
