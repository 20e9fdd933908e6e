"""A job that goes on without its command: a background process works on it until it is closed or waits for somebody."""

import asyncio
import os
import subprocess
import sys
import threading
from pathlib import Path

from ..client.locations import make_private
from ..client.locks import JobLock
from ..core.failures import ServerError
from .connection import Connection
from .diagnostics import ExitCode, say

TAKE_OVER_SECONDS = 30.0
"""How long a background process may take until it works: it imports what a worker needs."""
_LOOK_SECONDS = 0.05
_SHOWN_BYTES = 2000


async def hand_over(connection: Connection, lock: JobLock, *, address: str | None) -> None:
    """Leave a job whose lock we hold to a process of its own session; returns when that works on it.

    Raises:
        ServerError: the process ended before it worked; the job is there and can be resumed.
    """
    job_id = lock.job_id
    log = connection.data.job_log(job_id)
    make_private(log.parent)
    # What is worth keeping of a job stands in its history; the log is for what a worker has to say.
    command = [sys.executable, "-P", "-m", "perstack", "resume", job_id, "--filter", "completeRun,stopRunByError"]
    if address is not None:
        command += ["--address", address]
    lock.release()
    process = _spawn(command, log)
    # Where screens go on after this, somebody has to hear of its end.
    threading.Thread(target=process.wait, name="perstack-background", daemon=True).start()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + TAKE_OVER_SECONDS
    while lock.holder_pid() != process.pid:
        if process.returncode not in (None, ExitCode.COMPLETED):
            raise ServerError(
                f"The background process of job {job_id} ended at once: {_last_line(log.read_bytes())}",
                code="job.not_detached",
                hint=f"`perstack resume {job_id}` goes on with the job here; the whole log is {log}.",
            )
        if process.returncode is not None or loop.time() > deadline:
            break
        await asyncio.sleep(_LOOK_SECONDS)
    say(f"process {process.pid} works on it; its log is {log}")
    say(f"follow it with: perstack resume {job_id}")


def _spawn(command: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """A process that outlives this one and its terminal."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=descriptor, stderr=descriptor, start_new_session=True
        )
    finally:
        os.close(descriptor)


def _last_line(log: bytes) -> str:
    lines = log[-_SHOWN_BYTES:].decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("perstack: ") if lines else "it said nothing"
