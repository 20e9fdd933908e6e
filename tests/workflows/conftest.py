"""A server, a client and a worker in the test's own process."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from perstack.client.locations import DataFolder
from support.model_server import ModelServer
from support.temporal import Bench, bench


@pytest.fixture
async def temporal(
    server_data: DataFolder,
    cli_env: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    model: ModelServer,
) -> AsyncIterator[Bench]:
    """The test server with an empty workspace."""
    for name, value in cli_env.items():
        if name.startswith(("PERSTACK_", "TEMPORAL_")):
            monkeypatch.setenv(name, value)
    workspace = tmp_path / "workspace"
    workspace.mkdir(exist_ok=True)
    async with bench(server_data, workspace, model) as connection:
        yield connection
