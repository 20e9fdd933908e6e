"""The drill of the waiting runs: many jobs ask a person, the worker lets go of them, and all are answered at once.

`make chaos DRILL=waiting` plays it; `python -m chaos.waiting --count 50`, `tests` being on the path, plays a small one.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Iterable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.harness import Drill, Report
from chaos.lab import Lab
from perstack.client.binary import find_binary
from perstack.client.embedded import stop_server
from perstack.client.history import Execution
from perstack.client.jobs import Jobs
from perstack.client.locations import DataFolder
from perstack.core.expert import Expert, InteractiveSkill, InteractiveTool
from perstack.core.run import RunInput, RunResult
from support.cli import Cli, RunningCli, command_env
from support.model_server import Answer, Call, ModelServer, Request
from support.temporal import Bench, bench, solo
from temporalio.client import Client

COUNT = 1000
MOST_MB = 50.0
"""What all the waiting runs together may cost their worker."""
AT_ONCE = 40
"""How many requests of the drill's own are under way at a time."""
IDLE_SECONDS = 5
"""After how long the drill's worker closes a session that nobody uses."""
SETTLING_SECONDS = 4.0
"""A worker whose memory has not fallen for so long has let go of what it will let go of."""
ASKS = InteractiveTool(
    name="approve",
    description="Asks a person to approve.",
    input_schema={"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
)


@dataclass(frozen=True)
class Figures:
    """What a worker weighed, in MB, and how long things took, in seconds."""

    count: int
    idle_mb: float
    """Before the first run, one run having warmed it up."""
    peak_mb: float
    """While the runs came to their questions."""
    evicted_mb: float
    """With all waiting, after eviction."""
    answered_mb: float
    """After the last one completed."""
    asking_seconds: float
    answering_seconds: float
    processes: int
    """Children of the worker while all waited."""
    connections: int
    """Open connections of the worker to the model while all waited."""

    @property
    def growth_mb(self) -> float:
        """What the waiting runs cost their worker."""
        return self.evicted_mb - self.idle_mb

    def __str__(self) -> str:
        return (
            f"{self.count} runs waiting for a person: worker {self.idle_mb:.0f} MB idle, {self.peak_mb:.0f} at its "
            f"peak, {self.evicted_mb:.0f} waiting ({self.growth_mb:+.0f}), {self.answered_mb:.0f} after all were "
            f"answered; {self.asking_seconds:.0f} s to ask, {self.answering_seconds:.0f} s to answer all; "
            f"{self.processes} processes, {self.connections} connections"
        )


def asker() -> Expert:
    """An expert with the usual tools that may ask a person."""
    skill = InteractiveSkill(name="people", tools=(ASKS,))
    one = solo("asker")
    return one.replaced(skills=(*one.skills, skill), instruction=one.instruction + "\n" + "Be careful. " * 150)


def asks_once(request: Request) -> Answer:
    """Makes a note, asks, then repeats what it was told."""
    if request.turn == 1:
        note = Call(name="todo", args={"newTodos": [f"Have step {number} approved." for number in range(10)]})
        return Answer(text="I begin. " * 50, calls=(note,))
    if request.turn == 2:
        return Answer(text="I ask.", calls=(Call(name="approve", args={"what": request.first_user_text}),))
    return Answer(text=" ".join(str(result["content"]) for result in request.results))


async def drill(bench: Bench, cli: Cli, *, count: int, idle_seconds: float = IDLE_SECONDS) -> Figures:
    """Let `count` runs of one pool worker ask, wait until it has let go of them, answer all.

    Raises:
        AssertionError: a run was lost, asked twice, or completed with another one's answer.
    """
    bench.model.script = asks_once
    queue = f"waiting-{uuid.uuid4().hex[:8]}"
    env = {
        "ANTHROPIC_API_KEY": "sk-ant-test-key-0123456789",
        "ANTHROPIC_BASE_URL": bench.model.url,
        "PERSTACK_SESSION_IDLE": f"{idle_seconds:g}",
    }
    async with cli.running("worker", "--task-queue", queue, env=env) as worker:
        await worker.seen(f"serving {queue}", seconds=60)
        pid = worker.process.pid
        warm = await _asked(bench, [bench.start(asker(), query="warm up")], queue)
        await _answered(bench.client, warm)
        await _settled(pid)
        idle = memory_mb(pid)

        begun = time.monotonic()
        starts = [bench.start(asker(), query=f"step {number}") for number in range(count)]
        peak = _Peak(worker)
        async with peak:
            executions = await _asked(bench, starts, queue)
        asking = time.monotonic() - begun

        await asyncio.sleep(idle_seconds)
        await _settled(pid)
        evicted, processes = memory_mb(pid), len(children(pid))
        connections = bench.model.open_connections

        begun = time.monotonic()
        await _answered(bench.client, executions)
        answering = time.monotonic() - begun
        return Figures(
            count=count,
            idle_mb=idle,
            peak_mb=peak.mb,
            evicted_mb=evicted,
            answered_mb=memory_mb(pid),
            asking_seconds=asking,
            answering_seconds=answering,
            processes=processes,
            connections=connections,
        )


async def _asked(bench: Bench, starts: list[RunInput], queue: str) -> list[Execution]:
    """Start the runs and wait until every one of them waits for a person."""
    jobs = Jobs(bench.client)

    async def asked(start: RunInput) -> Execution:
        execution = await jobs.start(start, task_queue=queue)
        while not await jobs.questions(execution):  # noqa: ASYNC110 one wait for all, whatever becomes of them
            await asyncio.sleep(0.5)
        return execution

    return await _bounded(asked(start) for start in starts)


async def _answered(client: Client, executions: list[Execution]) -> None:
    """Answer every run and see it complete with its own answer."""
    jobs = Jobs(client)

    async def answered(execution: Execution) -> None:
        answer = f"yes to {execution.workflow_id}"
        await jobs.respond(await jobs.view(execution.workflow_id), None, answer)
        handle = client.get_workflow_handle(execution.workflow_id, result_type=RunResult)
        result = await handle.result()
        assert (result.status, result.text) == ("completed", answer)

    await _bounded(answered(execution) for execution in executions)


async def _bounded(works: Iterable[Awaitable[Execution]] | Iterable[Awaitable[None]]) -> list[Execution]:
    """Do all, `AT_ONCE` at a time."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(work: Awaitable[Execution] | Awaitable[None]) -> Execution | None:
        async with turn:
            return await work

    done = await asyncio.gather(*(one(work) for work in works))
    return [execution for execution in done if execution is not None]


def memory_mb(pid: int) -> float:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1_000_000
    raise ProcessLookupError(pid)


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that ended a moment ago
            found.extend(int(child) for child in (task / "children").read_text().split())
    return found


async def _settled(pid: int) -> None:
    """Wait until the memory of a process falls no more."""
    least, since = memory_mb(pid), time.monotonic()
    while time.monotonic() - since < SETTLING_SECONDS:
        await asyncio.sleep(0.2)
        if (now := memory_mb(pid)) < least - 0.5:
            least, since = now, time.monotonic()


class _Peak:
    """The most memory a worker had while the block ran."""

    def __init__(self, worker: RunningCli) -> None:
        self._pid = worker.process.pid
        self._task: asyncio.Task[None] | None = None
        self.mb = 0.0

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            self.mb = max(self.mb, memory_mb(self._pid))
            await asyncio.sleep(0.2)


async def many(lab: Lab, _chance: random.Random) -> Report:
    """The drill as a point of `make chaos`."""
    async with bench(lab.data, lab.workspace, lab.model) as connection:
        figures = await drill(connection, lab.cli, count=COUNT)
    assert figures.processes == 0, figures
    assert figures.growth_mb < MOST_MB, figures
    seconds = {"to answer all": [figures.answering_seconds]}
    return Report(str(figures), seconds=seconds, counts=Counter({"answered": COUNT}))


DRILLS = (
    Drill(
        "waiting",
        f"{COUNT} runs wait for a person: less than {MOST_MB:g} MB of their worker, no process; all answered complete",
        many,
        points=1,
        has_own_server=True,
        is_long=True,
        is_idle=True,
    ),
)


async def main(count: int, idle_seconds: float) -> None:
    """Run the drill on a server of its own and print its figures."""
    program = find_binary()
    assert program is not None, "no `temporal` program: run `make temporal`"
    with tempfile.TemporaryDirectory(prefix="perstack-waiting-") as folder:
        root = Path(folder)
        data = DataFolder(root / "data")
        for name in ("home", "workspace"):
            (root / name).mkdir()
        os.environ.update(
            {name: value for name, value in command_env(data=data.root, temporal=program, home=root / "home").items()}
        )
        cli = Cli(root / "workspace", dict(os.environ))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(stop_server, data)
            model = await stack.enter_async_context(ModelServer(asks_once, keeps_requests=False))
            connection = await stack.enter_async_context(bench(data, root / "workspace", model))
            figures = await drill(connection, cli, count=count, idle_seconds=idle_seconds)
            sys.stdout.write(f"{figures}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Many runs wait for a person.")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--idle", type=float, default=IDLE_SECONDS)
    given = parser.parse_args()
    asyncio.run(main(given.count, given.idle))
    sys.stdout.flush()
    # As a command of ours leaves: the SDK's native threads may crash the interpreter's exit.
    os._exit(0)
