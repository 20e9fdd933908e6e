"""The storage of large payloads goes away under a run and comes back: a folder, a full disk, a bucket."""

import asyncio
import json
import os
import random
import re
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from chaos.claims import completed, effects_once
from chaos.harness import POINTS_OF_THREE, Drill, Report
from chaos.lab import LONGEST_SECONDS, JobLog, Lab, Moment, text_of
from chaos.teams import LARGE, LARGE_OUTPUT_BYTES, LIBRARY
from perstack.client.connection import connect
from perstack.client.embedded import running_server
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from support.cli import RunningCli
from temporalio.client import Client

MOST_SECONDS_AWAY = 3.0
"""Beyond the moment at which somebody has noticed."""
OUTAGE_SECONDS = 30.0
QUIET_SECONDS = 2.0
"""A job without an activity for so long has none that waits: a workflow task of it does."""
DISK_MB = 32
ROOM_BYTES = 16 * 1024
"""Left on a disk that counts as full: less than the smallest payload that is stored."""


class Place(Protocol):
    """A storage that can be away."""

    @property
    def env(self) -> dict[str, str]:
        """What makes commands use it."""
        ...

    @property
    def location(self) -> str:
        """As messages name it."""
        ...

    def leave(self) -> None:
        """Be away."""
        ...

    def come_back(self) -> None:
        """Be there again, with everything that was stored."""
        ...


class Folder:
    """A folder, in the place of which there is a file while it is away."""

    def __init__(self, lab: Lab) -> None:
        self._root = lab.folder / "payloads"
        self._aside = lab.folder / "aside"

    @property
    def env(self) -> dict[str, str]:
        return {"PERSTACK_STORAGE": self.location}

    @property
    def location(self) -> str:
        return str(self._root)

    def leave(self) -> None:
        self._root.rename(self._aside)
        self._root.write_text("a file in its place")

    def come_back(self) -> None:
        self._root.unlink()
        self._aside.rename(self._root)


class Disk:
    """A small disk that is full while it is away."""

    def __init__(self, mounted: Path) -> None:
        self._mounted = mounted
        self._filling = mounted / "filling"

    @property
    def env(self) -> dict[str, str]:
        return {"PERSTACK_STORAGE": self.location}

    @property
    def location(self) -> str:
        return str(self._mounted / "payloads")

    def leave(self) -> None:
        """Take all room; what jobs have taken meanwhile is theirs."""
        with self._filling.open("wb") as file:
            while (room := self._room()) > ROOM_BYTES:
                # A job that writes between the look and the taking has taken some of it first.
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, room - ROOM_BYTES)

    def _room(self) -> int:
        found = os.statvfs(self._mounted)
        return found.f_bavail * found.f_bsize

    def come_back(self) -> None:
        self._filling.unlink()


@contextmanager
def _folder(lab: Lab) -> Generator[Place]:
    yield Folder(lab)


class NoDisk(Exception):
    """Only who may mount can have a disk to fill."""


@contextmanager
def _disk(lab: Lab) -> Generator[Place]:
    folder = lab.folder / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        raise NoDisk(str(error)) from error
    if mounted.returncode != 0:
        raise NoDisk(mounted.stderr.strip())
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def _bucket(_: Lab) -> Generator[Place]:
    # A second or more that the other drills need not spend.
    from support.s3_server import S3Server

    class Bucket:
        """A bucket at whose address nobody listens while it is away."""

        def __init__(self, server: S3Server) -> None:
            self._server = server

        @property
        def env(self) -> dict[str, str]:
            return {**self._server.env, "PERSTACK_STORAGE": self.location}

        @property
        def location(self) -> str:
            return f"s3://{self._server.bucket}/jobs"

        def leave(self) -> None:
            self._server.stop()

        def come_back(self) -> None:
            self._server.start()

    with S3Server(f"bucket-{uuid.uuid4().hex}") as server:
        yield Bucket(server)


async def folder_away(lab: Lab, chance: random.Random) -> Report:
    """The folder is not there for a while."""
    with _folder(lab) as place:
        return await _survives(lab, chance, place, seconds=chance.uniform(0, MOST_SECONDS_AWAY))


async def disk_full(lab: Lab, chance: random.Random) -> Report:
    """The disk has no room for a while."""
    try:
        with _disk(lab) as place:
            return await _survives(lab, chance, place, seconds=chance.uniform(0, MOST_SECONDS_AWAY))
    except NoDisk as error:
        return Report(f"not played, no disk can be mounted here: {error}", counts=Counter({"not played": 1}))


async def bucket_away(lab: Lab, chance: random.Random) -> Report:
    """Nobody listens at the bucket's address for a while."""
    with _bucket(lab) as place:
        return await _survives(lab, chance, place, seconds=chance.uniform(0, MOST_SECONDS_AWAY))


async def long_outage(lab: Lab, chance: random.Random) -> Report:
    """Nobody listens at the bucket's address for half a minute."""
    with _bucket(lab) as place:
        return await _survives(lab, chance, place, seconds=OUTAGE_SECONDS, last_request=LIBRARY.requests // 2)


async def _survives(
    lab: Lab, chance: random.Random, place: Place, *, seconds: float, last_request: int | None = None
) -> Report:
    """The storage leaves at a random moment and is back so long after somebody noticed; nobody else notices."""
    lab.use(LIBRARY)
    lab.env.update(place.env)
    name = f"storage-{uuid.uuid4().hex[:8]}"
    moment = Moment.chosen(chance, LIBRARY)
    if last_request is not None:
        moment = Moment("request", chance.randint(1, last_request), moment.delay_ms)
    in_pool = chance.random() < 0.4
    words = ["run", LIBRARY.root, "go", "--job-id", name]
    async with AsyncExitStack() as stack:
        if in_pool:
            words += ["--task-queue", name]
            worker = await stack.enter_async_context(lab.worker(name))
            run = await stack.enter_async_context(lab.command(*words))
        else:
            worker = run = await stack.enter_async_context(lab.command(*words))
        # A job is not even begun without its storage, which other tests say.
        await run.seen(f"job {name}", seconds=LONGEST_SECONDS)
        await lab.reach(moment, run)
        begun = time.time()
        await asyncio.to_thread(place.leave)
        try:
            await _noticed_or_over(worker, run)
            is_told = _is_told(worker)
            in_ui = is_told and await _in_heartbeat(lab, name, place.location)
            if is_told:
                await asyncio.sleep(seconds)
        finally:
            await asyncio.to_thread(place.come_back)
        away = time.time() - begun
        last = await lab.finished(run)
        if is_told:
            await worker.seen(f"the payload storage {place.location} is back after", seconds=LONGEST_SECONDS)
        log, _, repeated = await completed(lab, name, LIBRARY, last=last)
    assert repeated == 0
    _nobody_noticed(lab, log)
    for process in (worker, run):
        _says_what_to_do(process, place)
    return Report(
        f"{'pool' if in_pool else 'command'}, {moment}, away for {away:.1f} s" + ("" if is_told else ", not noticed"),
        counts=Counter({"outage noticed": int(is_told), "outage told in heartbeats": int(in_ui)}),
    )


AWAY = "the payload storage"


def _is_told(process: RunningCli) -> bool:
    return any(AWAY in line for line in process.errors)


async def _noticed_or_over(worker: RunningCli, run: RunningCli) -> None:
    """Wait until the worker or who follows says that the storage is away, or the job is over without it."""
    waits = [
        asyncio.create_task(wait)
        for wait in (
            worker.seen(AWAY, seconds=LONGEST_SECONDS),
            run.seen(AWAY, seconds=LONGEST_SECONDS),
            asyncio.wait_for(run.process.wait(), LONGEST_SECONDS),
        )
    ]
    done, late = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in late:
        wait.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for wait in done:
        wait.result()


async def _in_heartbeat(lab: Lab, job_id: str, location: str) -> bool:
    """Wait until the Temporal UI would show why a call waits; false when no call does, only a workflow task.

    Raises:
        AssertionError: calls are under way, and none of them says what it waits for.
    """
    info = running_server(lab.data)
    assert info is not None
    client = await connect(info, storage=PayloadDriver(FolderStorage(lab.data.storage)))
    deadline = quiet_since = time.monotonic()
    deadline += LONGEST_SECONDS
    while time.monotonic() < deadline:
        pending = await _pending(client, job_id)
        if any(f'"waiting":"{AWAY} {location} cannot be' in one for one in pending):
            return True
        if pending:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > QUIET_SECONDS:
            return False
        await asyncio.sleep(0.2)
    raise AssertionError(f"no heartbeat says that {location} is waited for")


async def _pending(client: Client, workflow_id: str) -> list[str]:
    """What the calls of a run, and of those below it, said at last."""
    described = (await client.get_workflow_handle(workflow_id).describe()).raw_description
    below = [await _pending(client, child.workflow_id) for child in described.pending_children]
    own = [
        b"".join(payload.data for payload in one.heartbeat_details.payloads).decode()
        for one in described.pending_activities
    ]
    return [*own, *(one for some in below for one in some)]


def _nobody_noticed(lab: Lab, log: JobLog) -> None:
    """Neither the model nor the events know of the outage, and every large result is whole.

    Raises:
        AssertionError: one does, or is not.
    """
    asked = Counter((one.who, one.turn) for one in lab.asked)
    assert len(asked) == LIBRARY.requests, asked
    assert set(asked.values()) == {1}, f"asked again: {[key for key, count in asked.items() if count > 1]}"
    assert set(lab.model.ledger.counts.values()) == {1}, lab.model.ledger.counts
    assert effects_once(lab, log) == 0, "a call was lost though no worker died"
    assert log.of_type("retry", "stopRunByError") == []
    assert all(len(text_of(result)) >= LARGE_OUTPUT_BYTES for _, result in log.results("exec"))
    read = log.results("readTextFile")
    assert len(read) == 2
    # A write of the same step may come before or after it.
    assert all(LARGE in json.loads(text_of(result))["content"] for _, result in read), "a file was not read whole"


def _says_what_to_do(process: RunningCli, place: Place) -> None:
    """Whoever tells of the outage says what is away, where, why, and what to do.

    Raises:
        AssertionError: not so, or there is a traceback.
    """
    said = "".join(process.errors)
    assert "Traceback" not in said, said
    variable = "AWS_ENDPOINT_URL_S3" if place.location.startswith("s3://") else "PERSTACK_STORAGE"
    away = re.compile(
        rf"{AWAY} {re.escape(place.location)} cannot be (written|read|used): \S.*; "
        rf"what needs it waits and goes on by itself \(.*{variable}.*\)"
    )
    back = f"{AWAY} {place.location} is back after"
    for line in process.errors:
        assert AWAY not in line or back in line or away.search(line), line


DRILLS = (
    Drill(
        "storage-folder",
        "the folder of large payloads is replaced, and comes back: completes, nothing is repeated, all are told",
        folder_away,
        points=POINTS_OF_THREE,
    ),
    Drill(
        "storage-full",
        "the disk of large payloads is full for a while: completes, nothing is repeated, all are told",
        disk_full,
        points=POINTS_OF_THREE,
    ),
    Drill(
        "storage-bucket",
        "nobody listens at the bucket's address for a while: completes, nothing is repeated, all are told",
        bucket_away,
        points=POINTS_OF_THREE,
    ),
    Drill(
        "storage-outage",
        "nobody listens at the bucket's address for 30 s: completes, nothing is repeated, all are told",
        long_outage,
        points=1,
        is_long=True,
        is_idle=True,
    ),
)
