"""What all tests share: one real Temporal server a test process, workspaces, a scripted model."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from perstack.client.binary import find_binary
from perstack.client.embedded import stop_server
from perstack.client.locations import DataFolder
from support.cli import Cli, command_env
from support.leftovers import left_by
from support.model_server import Answer, ModelServer, Request
from support.planted import MODEL_KEY, found_in


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="write tests/golden anew instead of comparing")


@pytest.fixture
def is_updating_goldens(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written."""
    # Where no folder of tests is named on the command line, pytest reads this file too late to know the option.
    return bool(request.config.getoption("--update-goldens", default=False))


@pytest.fixture(scope="session")
def temporal_program() -> Path:
    """The real program; set-up got it, tests never fetch it."""
    program = find_binary()
    assert program is not None, "no `temporal` program: run `make temporal`, or `make test`, which does"
    return program


@pytest.fixture(scope="session")
def server_data(temporal_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataFolder]:
    """The data folder of this test process; the first command starts its server, which ends with the tests."""
    data = DataFolder(tmp_path_factory.mktemp("perstack-data"))
    yield data
    asyncio.run(stop_server(data))
    # The database, its journal, the large payloads, the logs: whatever the tests of this process did.
    assert list(found_in(data.root)) == []


@pytest.fixture
def cli_env(server_data: DataFolder, temporal_program: Path, tmp_path: Path) -> dict[str, str]:
    """The whole environment of a command: nothing of the developer's own."""
    home = tmp_path / "home"
    home.mkdir()
    return command_env(data=server_data.root, temporal=temporal_program, home=home)


@pytest.fixture
def cli(cli_env: dict[str, str], tmp_path: Path) -> Iterator[Cli]:
    """The `perstack` program in an empty workspace; nothing it started may outlive the test."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    yield Cli(workspace, cli_env)
    assert left_by(cli_env["HOME"]) == []
    assert list(Path(cli_env["TMPDIR"]).iterdir()) == []


@pytest.fixture
async def model() -> AsyncIterator[ModelServer]:
    """A Messages API server without a script; a test gives it one."""

    def no_script(request: Request) -> Answer:
        raise AssertionError(f"no script for {request.first_user_text!r}")

    async with ModelServer(no_script) as server:
        yield server


@pytest.fixture
def model_env(model: ModelServer) -> dict[str, str]:
    """What makes the program talk to the scripted model."""
    return {"ANTHROPIC_API_KEY": MODEL_KEY, "ANTHROPIC_BASE_URL": model.url}
