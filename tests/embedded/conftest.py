"""A data folder per test, the real `temporal` program, and the end of every process a test started."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from perstack.client.binary import find_binary
from perstack.client.embedded import stop_server
from perstack.client.locations import DataFolder
from perstack.core.failures import PerstackError
from support.machines import Machine


@pytest.fixture(scope="session")
def temporal_program() -> Path:
    """The real program; tests never fetch it."""
    program = find_binary()
    if program is None:
        pytest.skip("no `temporal` program; `python -m perstack.client.binary` gets one")
    return program


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Nothing of the developer's own Temporal settings, and no way to fetch a program."""
    for name in list(os.environ):
        if name.startswith(("TEMPORAL_", "PERSTACK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TEMPORAL_CONFIG_FILE", str(tmp_path / "no-profile.toml"))
    monkeypatch.setenv("PERSTACK_NO_DOWNLOAD", "1")
    monkeypatch.setenv("PERSTACK_DATA_DIR", str(tmp_path / "data"))
    return monkeypatch


@pytest.fixture
async def machine(
    temporal_program: Path, clean_environment: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Machine]:
    """A data folder without a server."""
    clean_environment.setenv("PERSTACK_TEMPORAL_CLI", str(temporal_program))
    machine = Machine(DataFolder(tmp_path / "data"))
    try:
        yield machine
    finally:
        for lease in machine.leases:
            lease.close()
        with contextlib.suppress(PerstackError):
            await stop_server(machine.data)
        machine.end_all()
