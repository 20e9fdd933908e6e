"""The running server's address, as its supervisor leaves it for clients."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .locations import write_private

_SPELLING = {
    "pid": "pid",
    "supervisor_pid": "supervisorPid",
    "address": "address",
    "ui_address": "uiAddress",
    "port": "port",
    "ui_port": "uiPort",
    "version": "version",
    "started_at": "startedAt",
}


@dataclass(frozen=True)
class ServerRecord:
    """One started server; `version` is written last, by the client that prepared the namespace."""

    pid: int
    supervisor_pid: int
    address: str
    ui_address: str
    port: int
    ui_port: int
    started_at: str
    version: str | None = None

    def write(self, path: Path) -> None:
        """Publish the record in one step."""
        values = asdict(self)
        document = {spelling: values[name] for name, spelling in _SPELLING.items()}
        write_private(path, (json.dumps(document, indent=2) + "\n").encode())


def read_record(path: Path) -> ServerRecord | None:
    """The record at `path`, or `None` when there is none that can be read."""
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
        return ServerRecord(**{name: document[spelling] for name, spelling in _SPELLING.items()})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
