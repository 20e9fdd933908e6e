"""The place of one point of a drill: a workspace, a scripted model that writes down who asked when, and commands."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Any

from chaos.teams import Team, who
from perstack.client.locations import DataFolder
from support.cli import Cli, Result, RunningCli, command_env
from support.leftovers import left_by
from support.model_server import Answer, ModelServer, Request, Script
from support.planted import MODEL_KEY

LONGEST_SECONDS = 120.0
EVENTS = ("startGeneration", "callTools", "resolveToolResults", "continueToNextStep")
"""What a moment may follow, beside model requests: a step comes by each of them."""
LIGHT_PROVIDER = "fireworks"
"""Of the drills that are not about the provider. A command starts some three hundred times in them, and the SDK of the
default provider would take half of each start."""
MAX_DELAY_MS = 150
"""The longest random delay between the event that a point is chosen by and what happens there."""


@dataclass(frozen=True)
class Asked:
    """One request of a model call."""

    who: str
    """The expert, by the last part of its key."""
    turn: int
    by: str
    """Which process asked: every command gets a key of its own."""
    at: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class Moment:
    """A point in the life of a job: so long after the n-th model request, or the n-th event of a type on stdout."""

    kind: str
    """`request`, or the type of the event."""
    number: int
    delay_ms: int

    def __str__(self) -> str:
        return f"{self.delay_ms} ms after {self.kind} {self.number}"

    @classmethod
    def chosen(cls, chance: random.Random, team: Team, *, since_request: int = 0) -> "Moment":
        """Any moment of a job of `team`; with `since_request` one after so many model requests."""
        delay = chance.randint(0, MAX_DELAY_MS)
        kind = chance.choice(("request", "request", *EVENTS))
        if since_request or kind == "request":
            left = team.requests - since_request
            return cls("request", since_request + chance.randint(1, max(1, left)), delay)
        return cls(kind, chance.randint(1, team.steps), delay)


class Lab:
    """Everything of one point; `settled` is true of it afterwards."""

    def __init__(self, folder: Path, data: DataFolder, temporal: Path, model: ModelServer) -> None:
        home = folder / "home"
        workspace = folder / "workspace"
        for path in (home, workspace):
            path.mkdir(parents=True)
        self.folder = folder
        self.data = data
        self.model = model
        self.cli = Cli(workspace, command_env(data=data.root, temporal=temporal, home=home))
        self.asked: list[Asked] = []
        self.commands: list[tuple[str, RunningCli]] = []
        self.env: dict[str, str] = {}
        """What every command finds in its environment besides."""
        self._provider = LIGHT_PROVIDER
        self._starts = 0
        self._news = asyncio.Event()

    @property
    def workspace(self) -> Path:
        """Where the jobs work."""
        return self.cli.workspace

    def use(self, team: Team, script: Script | None = None, *, provider: str = LIGHT_PROVIDER) -> None:
        """Write the team's definition and let the model of a provider play its part."""
        self._provider = provider
        self.cli.write("perstack.toml", f'[provider]\nproviderName = "{provider}"\n\n{team.definition}')
        self.model.script = script or team.script

    def note(self, request: Request) -> None:
        """Write down a model call; called by the model server."""
        by = request.headers.get("authorization", "").rpartition("-")[2]
        self.asked.append(Asked(who(request), request.turn, by, time.time()))
        self._news.set()
        self._news = asyncio.Event()

    @asynccontextmanager
    async def command(self, *args: str, env: Mapping[str, str] | None = None) -> AsyncGenerator[RunningCli]:
        """A command that is running; its key tells its model calls from those of the others."""
        self._starts += 1
        own = {
            "ANTHROPIC_API_KEY": f"{MODEL_KEY}-{self._starts}",
            "ANTHROPIC_BASE_URL": self.model.url,
            "FIREWORKS_API_KEY": f"{MODEL_KEY}-{self._starts}",
            "FIREWORKS_BASE_URL": f"{self.model.url}/inference/v1",
            # Variables of this prefix are passed on to commands of tools.
            "LC_DRILL": str(self._starts),
            **self.env,
            **(env or {}),
        }
        async with self.cli.running(*args, env=own) as running:
            self.commands.append((" ".join(args), running))
            yield running

    def key_of(self, running: RunningCli) -> str:
        """What `Asked.by` says of the model calls of a command."""
        return str(1 + [one for _, one in self.commands].index(running))

    async def run(self, *args: str, env: Mapping[str, str] | None = None) -> Result:
        """Run a command to its end."""
        async with self.command(*args, env=env) as running:
            return await self.finished(running)

    async def finished(self, running: RunningCli) -> Result:
        """Wait for the end of a command."""
        return await self.cli.finished(running, seconds=LONGEST_SECONDS)

    @asynccontextmanager
    async def worker(self, queue: str, *args: str, env: Mapping[str, str] | None = None) -> AsyncGenerator[RunningCli]:
        """A worker that serves `queue`."""
        words = ("worker", "--task-queue", queue, "--provider", self._provider, *args)
        async with self.command(*words, env=env) as running:
            await running.seen(f"serving {queue}", seconds=LONGEST_SECONDS)
            yield running

    async def requests(self, count: int) -> None:
        """Wait until the model was asked `count` times."""
        while len(self.asked) < count:
            await self._news.wait()

    async def reach(self, moment: Moment, running: RunningCli) -> bool:
        """Wait for the moment; false when the command ended before."""
        if moment.kind == "request":
            event = self.requests(moment.number)
        else:
            event = running.seen(f'"type":"{moment.kind}"', count=moment.number, seconds=LONGEST_SECONDS)
        reached = asyncio.create_task(event)
        ended = asyncio.create_task(running.process.wait())
        async with asyncio.timeout(LONGEST_SECONDS):
            await asyncio.wait((reached, ended), return_when=asyncio.FIRST_COMPLETED)
        for task in (reached, ended):
            task.cancel()
        await asyncio.gather(reached, ended, return_exceptions=True)
        await asyncio.sleep(moment.delay_ms / 1000)
        return running.process.returncode is None

    async def kill(self, running: RunningCli) -> tuple[float, float]:
        """`kill -9` of a command with its group; when it began and when it was over, in seconds since the epoch."""
        begun = time.time()
        running.kill_group()
        await running.process.wait()
        return begun, time.time()

    async def log(self, job_id: str) -> "JobLog":
        """The job as `perstack log --json` tells it."""
        result = await self.run("log", "--job", job_id, "--json", "--take", "0")
        assert result.code == 0, result.stderr
        return JobLog(json.loads(result.stdout))

    def effects(self) -> Counter[str]:
        """The marks that tools left in the workspace, each with how often it was left."""
        path = self.workspace / EFFECTS
        return Counter(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else Counter()

    def effect_times(self) -> list[tuple[float, str]]:
        """When each mark was left, in seconds since the epoch, and by a call of which command."""
        path = self.workspace / EFFECTS
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(int(words[1]) / 1e9, words[2]) for words in lines]

    def last_requests(self) -> list[Request]:
        """The last request of each turn of each conversation."""
        return list({(request.fingerprint, request.turn): request for request in self.model.requests}.values())

    async def settle(self) -> None:
        """Nothing that the point started may outlive it.

        Raises:
            AssertionError: a process or a temporary file is left.
        """
        left = await asyncio.to_thread(left_by, self.cli.env["HOME"])
        assert left == [], left
        files = [path.name for path in Path(self.cli.env["TMPDIR"]).iterdir()]
        assert files == [], f"temporary files are left: {files}"

    def story(self) -> str:
        """What the commands said at last, for whoever has to find out why a point failed."""
        parts: list[str] = []
        for words, running in self.commands:
            code = running.process.returncode
            said = "".join(running.errors[-6:])
            last = running.lines[-1][:300] if running.lines else ""
            parts.append(f"$ perstack {words}  → {code}\n{said}{len(running.lines)} lines, the last: {last}")
        asked = " ".join(f"{one.who}.{one.turn}@{one.by}" for one in self.asked[-40:])
        return "\n".join((*parts, f"asked: {asked}", f"effects: {dict(self.effects())}"))


EFFECTS = "effects.txt"


@dataclass
class JobLog:
    """What `perstack log --json` says of a job."""

    data: dict[str, Any]
    _calls: dict[tuple[str, str], dict[str, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self._calls = {
            (event["expertKey"], call["id"]): call for event in self.of_type("callTools") for call in event["toolCalls"]
        }

    @property
    def job(self) -> dict[str, Any]:
        """The job itself."""
        return self.data["job"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events."""
        return self.data["events"]

    def of_type(self, *types: str) -> list[dict[str, Any]]:
        """The events of these types."""
        return [event for event in self.events if event["type"] in types]

    @property
    def text(self) -> str:
        """The result of the job."""
        root = self.job["coordinatorExpertKey"]
        return next((one["text"] for one in reversed(self.of_type("completeRun")) if one["expertKey"] == root), "")

    def results(self, tool_name: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Every call of a tool that was answered, with its answer."""
        answered = self.of_type("resolveToolResults", "finishMcpTools")
        return [
            (self._calls[event["expertKey"], one["id"]], one)
            for event in answered
            for one in event["toolResults"]
            if one["toolName"] == tool_name
        ]


def text_of(result: dict[str, Any]) -> str:
    """The text of a tool's answer."""
    return "".join(part.get("text", "") for part in result["result"])


async def until(is_true: Callable[[], bool], seconds: float) -> None:
    """Wait for something that announces itself to nobody.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    for pause in repeat(0.02):
        if is_true():
            return
        assert time.monotonic() < deadline, f"it did not come true within {seconds:g} s"
        await asyncio.sleep(pause)


def durable(events: Sequence[dict[str, Any]], live_only: frozenset[str]) -> list[tuple[str, str]]:
    """Run and id of every event that a log tells, too."""
    return [(event["runId"], event["id"]) for event in events if event["type"] not in live_only]


def not_served(request: Request) -> Answer:
    """The script before a drill has given one."""
    raise AssertionError(f"no script for {request.first_user_text!r}")
