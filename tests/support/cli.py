"""The real `perstack` program in a process of its own, with its own environment, and what it printed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("perstack")
LONGEST_SECONDS = 90.0


def temporary_folder(home: Path) -> Path:
    """Where commands with this home folder make their temporary files."""
    folder = home / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


def command_env(*, data: Path, temporal: Path, home: Path) -> dict[str, str]:
    """The whole environment of a command: nothing of the developer's own."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(temporary_folder(home)),
        "LANG": "C.UTF-8",
        "PERSTACK_DATA_DIR": str(data),
        "PERSTACK_TEMPORAL_CLI": str(temporal),
        "PERSTACK_NO_DOWNLOAD": "1",
        "TEMPORAL_CONFIG_FILE": str(home / "no-profile.toml"),
        "NO_COLOR": "1",
    }


@dataclass(frozen=True)
class Result:
    """A finished command."""

    code: int
    stdout: str
    stderr: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    def of_type(self, *types: str) -> list[dict[str, Any]]:
        """The events of these types, in order."""
        return [event for event in self.events if event["type"] in types]

    @property
    def types(self) -> list[str]:
        """The type of every event."""
        return [event["type"] for event in self.events]


@dataclass
class RunningCli:
    """A command that is still going; everything it prints is read as it comes."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list[str])
    errors: list[str] = field(default_factory=list[str])
    readers: "tuple[asyncio.Task[None], ...]" = ()
    """Collect stdout and stderr; done when both are closed."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read(self, stream: asyncio.StreamReader, into: list[str]) -> None:
        """Collect lines until the stream ends."""
        while line := await stream.readline():
            into.append(line.decode())
            async with self._changed:
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()

    async def seen(self, text: str, *, count: int = 1, seconds: float = LONGEST_SECONDS) -> None:
        """Wait until `count` lines of stdout or stderr contain `text`."""

        def is_there() -> bool:
            return sum(text in line for line in (*self.lines, *self.errors)) >= count

        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(is_there)

    def kill_group(self) -> None:
        """`kill -9` of the command and of everything in its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal signals the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)


@dataclass(frozen=True)
class Cli:
    """Runs the program in a workspace."""

    workspace: Path
    env: Mapping[str, str]

    def write(self, name: str, text: str) -> Path:
        """A file of the workspace."""
        path = self.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    @asynccontextmanager
    async def running(
        self, *args: str | bytes, env: Mapping[str, str] | None = None, program: str | Path = PROGRAM
    ) -> AsyncGenerator[RunningCli]:
        """A command in its own process group; it is dead when the block ends."""
        process = await asyncio.create_subprocess_exec(
            str(program),
            *args,
            cwd=self.workspace,
            env={**self.env, **(env or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=64 * 1024 * 1024,
        )
        running = RunningCli(process)
        assert process.stdout
        assert process.stderr
        running.readers = (
            asyncio.create_task(running.read(process.stdout, running.lines)),
            asyncio.create_task(running.read(process.stderr, running.errors)),
        )
        try:
            yield running
        finally:
            running.kill_group()
            await process.wait()
            await asyncio.gather(*running.readers)

    async def finished(self, running: RunningCli, *, seconds: float = LONGEST_SECONDS) -> Result:
        """Wait for the end of a command."""
        async with asyncio.timeout(seconds):
            code = await running.process.wait()
            await asyncio.wait(running.readers)
        return Result(code, "".join(running.lines), "".join(running.errors))

    async def run(
        self, *args: str | bytes, env: Mapping[str, str] | None = None, seconds: float = LONGEST_SECONDS
    ) -> Result:
        """Run a command to its end."""
        async with self.running(*args, env=env) as running:
            return await self.finished(running, seconds=seconds)

    async def shell(self, script: str, *, env: Mapping[str, str] | None = None) -> Result:
        """Run a bash script in which `perstack` is the program; ends with the code of the script."""
        path = f"{PROGRAM.parent}:{self.env['PATH']}"
        async with self.running("-c", script, env={**(env or {}), "PATH": path}, program="bash") as running:
            return await self.finished(running)
