"""One data folder with its embedded server, as tests start, watch and kill it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from perstack.client.embedded import ServerLease, lease_server
from perstack.client.filelock import is_free
from perstack.client.locations import DataFolder
from perstack.client.record import read_record
from perstack.client.supervisor import is_listening

HOLDER = Path(__file__).parent / "lease_holder.py"
PATIENCE_SECONDS = 30.0


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float = PATIENCE_SECONDS) -> None:
    """Poll until the condition holds; a test never sleeps for luck."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(0.01)


@dataclass
class Holder:
    """Another process that leases the server and keeps the lease until it is told to end."""

    process: "subprocess.Popen[str]"

    def address(self) -> str:
        """The address it leased; waits for it."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """Let it give the lease up and end."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout
        self.process.stdout.close()


@dataclass
class Machine:
    """What a test sees of one data folder."""

    data: DataFolder
    holders: list[Holder] = field(default_factory=list[Holder])
    leases: list[ServerLease] = field(default_factory=list[ServerLease])

    async def lease(self) -> ServerLease:
        """Lease the embedded server in this process."""
        lease = await lease_server(address=None, progress=lambda message: None)
        self.leases.append(lease)
        return lease

    def hold(self) -> Holder:
        """Lease the embedded server in a new process with a process group of its own."""
        command = [sys.executable, str(HOLDER)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0)
        self.holders.append(Holder(process))
        return self.holders[-1]

    def server_pids(self) -> list[int]:
        """Every process that has, or is about to have, our database open."""
        return self._pids("start-dev", str(self.data.database))

    def supervisor_pids(self) -> list[int]:
        """Every supervisor of our data folder."""
        return self._pids("perstack.client.supervisor", str(self.data.root))

    def kill_server(self) -> None:
        """`kill -9` of the server; a dying process keeps its port for an instant."""
        record = read_record(self.data.record)
        assert record
        os.kill(record.pid, signal.SIGKILL)
        wait_until(lambda: not is_listening(record.port), "the killed server is gone")

    def kill_supervisor(self) -> None:
        """`kill -9` of the supervisor; a dying process keeps its locks for an instant."""
        for pid in self.supervisor_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_free(self.data.supervisor_lock), "the killed supervisor is gone")

    def _pids(self, *words: str) -> list[int]:
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                arguments = (folder / "cmdline").read_bytes().decode().split("\0")
                if all(word in arguments for word in words):
                    found.append(int(folder.name))
        return found

    def end_all(self) -> None:
        """End by its id whatever is left."""
        for holder in self.holders:
            holder.end()
        for pid in self.supervisor_pids() + self.server_pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.server_pids(), "the servers of the test end")
