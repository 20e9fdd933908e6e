"""`make bench`: what a step, a start and a crowd of jobs cost, beside a plain loop on the same server in the same run.

Everything is real: the `perstack` program, an embedded Temporal server in a data folder of its own, HTTP on loopback.
Figures from a shared machine are ratios, not promises; each row shows its median and its range.
"""

import argparse
import asyncio
import json
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from painted import seconds_until_drawn

HERE = Path(__file__).parent
ROOT = HERE.parent
PROGRAM = Path(sys.executable).with_name("perstack")
PAGE = "A line of the page that every step reads, long enough to be a line.\n" * 76
CONFIG = '[experts.bench]\ninstruction = "You are a bench."\n'
PARTS_OF_TEAM = 39
TEAM_STEPS = 21
LONGEST_SECONDS = 300


@dataclass
class Bench:
    """One run of the benchmarks: a folder, a model server, a table."""

    folder: Path
    repeats: int
    url: str = ""
    rows: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])

    @property
    def workspace(self) -> Path:
        """Where every job works."""
        return self.folder / "workspace"

    @property
    def data(self) -> Path:
        """The data folder of the embedded server."""
        return self.folder / "data"

    @property
    def ledger(self) -> Path:
        """What the model server was asked, and when."""
        return self.folder / "ledger.jsonl"

    @property
    def env(self) -> dict[str, str]:
        """The environment of every command."""
        return {
            **os.environ,
            "PERSTACK_DATA_DIR": str(self.data),
            "ANTHROPIC_API_KEY": "bench-key-0123456789",
            "ANTHROPIC_BASE_URL": self.url,
        }

    def row(self, what: str, values: list[float], unit: str, note: str = "") -> float:
        """Add a row of the table and show it; returns the median."""
        median = statistics.median(values)
        shown = f"{median:.3g} {unit}"
        if len(values) > 1:
            shown += f"  ({min(values):.3g}–{max(values):.3g})"
        self.rows.append((what, shown, note))
        print(f"{what:<58} {shown:<30} {note}", flush=True)
        return median

    def perstack(self, *args: str, data: Path | None = None) -> float:
        """Run a command to its end; seconds it took."""
        env = self.env if data is None else {**self.env, "PERSTACK_DATA_DIR": str(data)}
        begun = time.perf_counter()
        done = subprocess.run(
            [PROGRAM, *args], cwd=self.workspace, env=env, capture_output=True, text=True, timeout=LONGEST_SECONDS
        )
        if done.returncode != 0:
            raise SystemExit(f"perstack {' '.join(args)} failed:\n{done.stderr[-2000:]}")
        return time.perf_counter() - begun

    def asked_at(self, query: str) -> list[float]:
        """When the model was asked for each turn of a query."""
        lines = (json.loads(line) for line in self.ledger.read_text().splitlines())
        return [line["at"] for line in lines if line["event"] == "request" and line["user"].startswith(query)]

    def bytes_kept(self) -> int:
        """Database and payload storage, once the write-ahead log is folded in."""
        database = self.data / "server" / "temporal.db"
        with sqlite3.connect(database, timeout=10) as connection:
            connection.execute("pragma wal_checkpoint(full)")
            pages = connection.execute("pragma page_count").fetchone()[0]
            free = connection.execute("pragma freelist_count").fetchone()[0]
            size = connection.execute("pragma page_size").fetchone()[0]
        stored = sum(path.stat().st_size for path in (self.data / "storage").rglob("*") if path.is_file())
        return (pages - free) * size + stored


@contextmanager
def model_server(bench: Bench) -> Generator[None]:
    """The scripted Messages server in a process of its own."""
    port_file = bench.folder / "port"
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "-m", "support.model_server", "--script", f"{HERE / 'model.py'}:script"]
    process = subprocess.Popen([*command, "--port-file", port_file, "--ledger", bench.ledger], env=env)
    try:
        deadline = time.monotonic() + 20
        while not port_file.exists():
            if time.monotonic() > deadline or process.poll() is not None:
                raise SystemExit("the model server did not start")
            time.sleep(0.02)
        bench.url = f"http://127.0.0.1:{port_file.read_text()}"
        yield
    finally:
        process.terminate()
        process.wait(10)


def start_times(bench: Bench) -> None:
    """`--help`, and the way to the first model request with and without a running server."""
    bench.row("perstack --help", [bench.perstack("--help") for _ in range(bench.repeats)], "s", "aim ≤ 0.3")
    cold: list[float] = []
    for number in range(bench.repeats):
        data = bench.folder / f"cold-{number}"
        cold.append(first_request(bench, f"steps=1 delay=0 cold {number}", data))
        subprocess.run([PROGRAM, "dev", "--stop"], env={**bench.env, "PERSTACK_DATA_DIR": str(data)}, check=False)
    bench.row("cold start to first model request, server started too", cold, "s", "aim ≤ 2.5")
    warm = [first_request(bench, f"steps=1 delay=0 warm {number}", bench.data) for number in range(bench.repeats + 1)]
    bench.row("cold start to first model request, server running", warm[1:], "s", "aim ≤ 1.0")


def first_request(bench: Bench, query: str, data: Path) -> float:
    """Seconds from the start of the program to the first model request."""
    begun = time.time()
    bench.perstack("run", "bench", query, "--filter", "completeRun", data=data)
    return bench.asked_at(query)[0] - begun


def steps(bench: Bench) -> None:
    """Milliseconds per step and bytes kept, at 50 and at 200 steps, and the plain loop."""
    for count in (50, 200):
        ours: list[float] = []
        plain: list[float] = []
        full: list[float] = []
        kept: list[float] = []
        for number in range(bench.repeats):
            before = bench.bytes_kept()
            ours.append(step_time(bench, count, f"a{number}", "--filter", "completeRun"))
            kept.append((bench.bytes_kept() - before) / 1000)
            full.append(step_time(bench, count, f"b{number}"))
            plain.append(plain_loop(bench, f"steps={count} delay=0 plain {number}"))
        loop = bench.row(f"plain loop, {count} steps", plain, "ms/step")
        mine = bench.row(f"perstack run --filter, {count} steps", ours, "ms/step", "aim ≤ 25, 27 at 200 steps")
        bench.row(f"perstack run, every event printed, {count} steps", full, "ms/step")
        bench.row(f"  above the plain loop, {count} steps", [mine - loop], "ms/step")
        conversation = 6.2 * count
        note = f"{statistics.median(kept) / conversation:.2f} × the conversation of {conversation:.0f} kB"
        bench.row(f"bytes kept by {count} steps, database and storage", kept, "kB", note)


def step_time(bench: Bench, count: int, name: str, *args: str) -> float:
    """Milliseconds per step of one run, seen from the model server."""
    query = f"steps={count} delay=0 {name}"
    bench.perstack("run", "bench", query, "--max-steps", "300", *args)
    asked = bench.asked_at(query)
    assert len(asked) == count, f"{len(asked)} model calls for {count} steps"
    return (asked[-1] - asked[0]) * 1000 / (count - 1)


def plain_loop(bench: Bench, query: str) -> float:
    """Milliseconds per step of the loop by hand."""
    command = [sys.executable, HERE / "plain_loop.py", bench.url, query, bench.workspace / "page.txt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST_SECONDS)
    return float(done.stdout)


def crowd(bench: Bench, jobs: int = 50) -> None:
    """Many jobs on one pool worker: jobs per second, and what worker and server take in memory."""
    command = [PROGRAM, "worker", "--task-queue", "bench", "--grace", "1"]
    worker = subprocess.Popen(command, cwd=bench.workspace, env=bench.env, stderr=subprocess.DEVNULL)
    try:
        seconds = asyncio.run(run_crowd(bench, jobs))
        bench.row(f"{jobs} jobs × 10 steps, 50 ms model", [jobs / seconds], "jobs/s", "aim ≥ 5")
        bench.row("  peak memory of the worker", [peak_memory(worker.pid)], "MB", "aim ≤ 200")
        record = json.loads((bench.data / "server" / "server.json").read_text())
        bench.row("  peak memory of the Temporal server", [peak_memory(record["pid"])], "MB", "aim ≤ 250")
    finally:
        worker.terminate()
        worker.wait(20)


async def run_crowd(bench: Bench, jobs: int) -> float:
    """Start all jobs at once and wait for all; seconds it took."""
    from perstack.client.connection import connect
    from perstack.client.embedded import lease_server
    from perstack.client.jobs import Jobs
    from perstack.client.locations import DataFolder
    from perstack.client.storage.driver import PayloadDriver
    from perstack.client.storage.folder import FolderStorage
    from perstack.core.expert import Expert, ModelChoice
    from perstack.core.run import JobSettings, RunInput

    data = DataFolder(bench.data)
    with await lease_server(address=None, progress=print, data=data) as lease:
        client = await connect(lease.info, storage=PayloadDriver(FolderStorage(data.storage)))
        api = Jobs(client)
        assert await api.wait_for_worker("bench", seconds=30)
        choice = ModelChoice(provider="anthropic", model="claude-haiku-4-5", reasoning_budget="none")
        expert = Expert(key="bench", name="bench", instruction="You are a bench.", model=choice)

        async def one(number: int) -> None:
            start = RunInput(
                job_id=f"crowd-{number}",
                run_id=f"crowd-{number}",
                expert_key="bench",
                experts={"bench": expert},
                query=f"steps=10 delay=50 crowd {number}",
                settings=JobSettings(runtime_version="bench", workspace=str(bench.workspace)),
            )
            execution = await api.start(start, task_queue="bench")
            await client.get_workflow_handle(execution.workflow_id).result()

        begun = time.perf_counter()
        await asyncio.gather(*(one(number) for number in range(jobs)))
        return time.perf_counter() - begun


def team() -> str:
    """A coordinator and its delegates, as a part of the definition."""
    names = [f"@team/part-{number}" for number in range(PARTS_OF_TEAM)]
    coordinator = f'[experts.team]\ninstruction = "You split."\ndelegates = {json.dumps(names)}\n'
    return coordinator + "".join(f'[experts."{name}"]\ninstruction = "You do a part."\n' for name in names)


def log(bench: Bench) -> None:
    """Reading a job of 5 000 events over 40 runs."""
    job = ("--job-id", "big")
    bench.perstack(
        "run", "team", f"delegates={PARTS_OF_TEAM} steps={TEAM_STEPS} delay=0", "--filter", "completeRun", *job
    )
    for what, args, aim in (
        ("as JSON, all of it", ("--json", "--take", "0"), "aim ≤ 3"),
        ("as JSON, one page", ("--json",), ""),
        ("as text, one page", ("--text",), ""),
    ):
        measured = [read_time(bench, "log", "--job", "big", *args) for _ in range(bench.repeats)]
        seconds, computed = zip(*measured, strict=True)
        note = ", ".join(filter(None, (aim, f"{statistics.median(computed):.2g} s of CPU")))
        bench.row(f"log of 5 000 events over {PARTS_OF_TEAM + 1} runs, {what}", list(seconds), "s", note)
    paint = (
        seconds_until_drawn(
            [str(PROGRAM), "log", "--job", "big"],
            "loading",
            "reading",
            f"{PARTS_OF_TEAM + 1} runs",
            env=bench.env,
            folder=bench.workspace,
        )
        for _ in range(bench.repeats)
    )
    first, begun, whole = zip(*paint, strict=True)
    bench.row("the same on a terminal, first paint", list(first), "s", "aim ≤ 1")
    bench.row("the same on a terminal, the screen of the runs", list(begun), "s")
    bench.row("the same on a terminal, all runs drawn", list(whole), "s")


def read_time(bench: Bench, *args: str) -> tuple[float, float]:
    """Seconds that a command took which writes into a file, and seconds of them that it computed."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (bench.folder / "output").open("wb") as output:
        subprocess.run(
            [PROGRAM, *args], cwd=bench.workspace, env=bench.env, stdout=output, check=True, timeout=LONGEST_SECONDS
        )
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_memory(pid: int) -> float:
    """Peak resident memory of a process in megabytes (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1000


PARTS: dict[str, Callable[[Bench], None]] = {"start": start_times, "steps": steps, "crowd": crowd, "log": log}


def main() -> None:
    """Measure the chosen parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"which of {', '.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="perstack-bench-") as folder:
        bench = Bench(Path(folder), options.repeats)
        bench.workspace.mkdir()
        (bench.workspace / "page.txt").write_text(PAGE)
        (bench.workspace / "perstack.toml").write_text(CONFIG + team())
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {options.repeats} repeats", flush=True)
        with model_server(bench):
            bench.perstack("run", "bench", "steps=2 delay=0 warm-up", "--filter", "completeRun")
            try:
                for part in options.parts:
                    PARTS[part](bench)
            finally:
                subprocess.run([PROGRAM, "dev", "--stop"], env=bench.env, check=False)
        print(f"load {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
