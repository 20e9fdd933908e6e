"""Waiting for a storage: for how long, who hears of it, and what is not waited for."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.client.storage.outages import Outages, listener
from perstack.core.failures import StorageError
from temporalio.api.common.v1 import Payload
from temporalio.converter import StorageDriverClaim, StorageDriverRetrieveContext, StorageDriverStoreContext


def failing(times: int, *, code: str = "storage.unavailable") -> Callable[[], str]:
    """Work that fails so often before it succeeds."""
    failures = iter(range(times))

    def work() -> str:
        if next(failures, None) is None:
            return "done"
        raise StorageError("it cannot be written", code=code, hint="mend it")

    return work


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def outages(told: list[str], monkeypatch: pytest.MonkeyPatch) -> Outages:
    monkeypatch.setattr("perstack.client.storage.outages.FIRST_DELAY_SECONDS", 0.01)
    outages = Outages("the-place")
    outages.tell = told.append
    return outages


async def test_work_is_repeated_until_it_succeeds_and_the_outage_is_told_once(
    outages: Outages, told: list[str]
) -> None:
    heard: list[str | None] = []
    token = listener.set(heard.append)
    try:
        assert await outages.through(failing(4)) == "done"
    finally:
        listener.reset(token)
    assert told == [
        "it cannot be written; what needs it waits and goes on by itself (mend it)",
        "the payload storage the-place is back after 0 s",
    ]
    assert heard == ["it cannot be written"] * 4 + [None]


async def test_many_waiting_calls_tell_of_one_outage(outages: Outages, told: list[str]) -> None:
    assert await asyncio.gather(*(outages.through(failing(2)) for _ in range(10))) == ["done"] * 10
    assert sum("cannot be written" in line for line in told) == 1
    await outages.through(failing(1))
    assert sum("cannot be written" in line for line in told) == 2


async def test_what_will_never_succeed_is_not_waited_for(outages: Outages, told: list[str]) -> None:
    with pytest.raises(StorageError) as caught:
        await outages.through(failing(1, code="storage.missing"))
    assert caught.value.code == "storage.missing"
    assert told == []


async def test_a_caller_who_gives_up_gets_the_failure(outages: Outages) -> None:
    waited: list[float] = []

    def gives_up(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) == 3

    with pytest.raises(StorageError, match="cannot be written"):
        await outages.through(failing(100), gives_up=gives_up)
    assert len(waited) == 3
    assert waited == sorted(waited)


async def test_a_cancelled_wait_ends_at_once(outages: Outages, told: list[str]) -> None:
    begun = asyncio.Event()

    def tell(line: str) -> None:
        told.append(line)
        begun.set()

    outages.tell = tell
    waiting = asyncio.create_task(outages.through(failing(10_000)))
    async with asyncio.timeout(10):
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    # Nothing of it is left: the next outage is told as a new one.
    await outages.through(failing(1))
    assert sum("cannot be written" in line for line in told) == 2


async def test_the_driver_needs_the_storage_no_more_for_what_it_has_just_stored(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "storage")
    driver = PayloadDriver(storage, gives_up=lambda _: True)
    payload = Payload(data=b"x" * 100_000)
    claims = await driver.store(StorageDriverStoreContext(), [payload])
    storage.root.rename(tmp_path / "away")
    storage.root.write_text("a file in its place")
    assert await driver.store(StorageDriverStoreContext(), [payload]) == claims
    assert await driver.retrieve(StorageDriverRetrieveContext(), claims) == [payload]
    with pytest.raises(StorageError, match="cannot be written"):
        await driver.store(StorageDriverStoreContext(), [Payload(data=b"y" * 100_000)])
    with pytest.raises(StorageError, match="cannot be read"):
        await driver.retrieve(StorageDriverRetrieveContext(), [StorageDriverClaim({"sha256": "a" * 64, "size": "1"})])


def test_who_keeps_payloads_in_a_folder_loads_no_aws_library(tmp_path: Path) -> None:
    code = (
        "import sys, perstack.cli.job\n"
        "from perstack.client.locations import DataFolder\n"
        "from perstack.client.storage.setting import open_storage\n"
        "from pathlib import Path\n"
        "open_storage(DataFolder(Path(sys.argv[1]))).put(b'content')\n"
        "print(sorted({'boto3', 'botocore'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-P", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
