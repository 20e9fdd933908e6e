"""Processes that a test has left behind."""

import os
import time
from pathlib import Path

SERVER_PROGRAMS = ("perstack.client.supervisor", "/temporal ", "temporal-")
"""The embedded server and its supervisor outlive the test that happened to start them."""


def processes_of(home: str) -> list[str]:
    """Processes whose home folder is `home`, each with its command."""
    marker = f"HOME={home}".encode()
    found: list[str] = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                environment = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
                command = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if marker in environment:
                found.append(f"process {name}: {command}")
    return found


def left_by(home: str, *, seconds: float = 10.0) -> list[str]:
    """What of a test's own is still running after `seconds`; the shared Temporal server does not count."""
    deadline = time.monotonic() + seconds
    while True:
        found = [one for one in processes_of(home) if not any(server in one for server in SERVER_PROGRAMS)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
