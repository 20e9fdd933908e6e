"""Every kind of storage, each opened as a command opens it: by its setting."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from perstack.client.locations import DataFolder
from perstack.client.storage.base import Storage
from perstack.client.storage.setting import open_storage
from support.s3_server import S3Server

Reopen = Callable[[], Storage]


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    """A server with an empty bucket, which the environment points to."""
    with S3Server(f"bucket-{uuid.uuid4().hex}") as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        # Nothing of the developer's own.
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        yield server


@pytest.fixture(params=["folder", "s3", "s3 with prefix"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reopen:
    """Opens the same storage again, as another process would: with no memory of what was put."""
    kind: str = request.param
    if kind == "folder":
        monkeypatch.setenv("PERSTACK_STORAGE", str(tmp_path / "storage"))
    else:
        server: S3Server = request.getfixturevalue("s3")
        prefix = "/teams/one" if "prefix" in kind else ""
        monkeypatch.setenv("PERSTACK_STORAGE", f"s3://{server.bucket}{prefix}")
    return lambda: open_storage(DataFolder(tmp_path / "data"))


@pytest.fixture
def storage(reopen: Reopen) -> Storage:
    """One storage."""
    return reopen()
