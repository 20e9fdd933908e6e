"""This machine: versions, the folders that a run writes to, and settings of the environment."""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ... import __version__
from ...client.locations import HIDDEN_FOLDER, WORKSPACE_MARKER, DataFolder
from ...core.failures import PerstackError, StorageError, WorkspaceError
from ...definitions.hosts import ALLOW_VARIABLE, allowed_endpoints
from ...settings import seconds_setting
from .report import Check, failed, passed, warned

LOW_BYTES = 1024**3
"""Free space below which a warning is due."""
LEAST_BYTES = 64 * 1024**2
"""Free space below which a single payload may not fit."""
_SECONDS = {
    "PERSTACK_HEARTBEAT_INTERVAL": 0.5,
    "PERSTACK_SERVER_IDLE": 900.0,
    "PERSTACK_SESSION_IDLE": 900.0,
    "PERSTACK_WORKER_WAIT": 10.0,
}


def version_checks() -> Iterator[Check]:
    """What runs here."""
    sandbox = ", in a sandbox (PERSTACK_SANDBOX=1)" if os.environ.get("PERSTACK_SANDBOX") == "1" else ""
    python = f"Python {platform.python_version()}"
    yield passed("perstack", f"{__version__}, {python}, {platform.platform(terse=True)} {platform.machine()}{sandbox}")


def data_checks(data: DataFolder) -> Iterator[Check]:
    """Whether the data folder can be used; it is not made."""
    label = "data folder"
    hint = "Make it writable, or name another one in PERSTACK_DATA_DIR."
    try:
        found = nearest(data.root)
        for folder in {found, *(one for one in (data.server, data.storage, data.locks) if os.path.lexists(one))}:
            write_probe(folder)
        space = shutil.disk_usage(found).free
    except OSError as error:
        yield failed(label, StorageError(f"{data.root} cannot be used: {_reason(error)}", hint=hint))
        return
    yield space_check(label, f"{data.root}{'' if found == data.root else ', made at its first use'}", space)


def workspace_checks(folder: Path) -> Iterator[Check]:
    """Whether the folder may be written, and the one in it that is ours."""
    label = "workspace"
    try:
        write_probe(folder)
        space = shutil.disk_usage(folder).free
    except OSError as error:
        text = f"The workspace {folder} cannot be written: {_reason(error)}"
        yield failed(label, WorkspaceError(text, hint="Run the command in a folder you may write."))
        return
    yield space_check(label, str(folder), space)
    hidden = folder / HIDDEN_FOLDER
    try:
        if (hidden / WORKSPACE_MARKER).is_file():
            (hidden / WORKSPACE_MARKER).read_text()
        elif os.path.lexists(hidden):
            write_probe(hidden)
    except (OSError, UnicodeDecodeError) as error:
        text = f"{hidden}, where the workspace's id is kept, cannot be used: {_reason(error)}"
        yield failed(label, WorkspaceError(text, hint="Move it away or correct its permissions; a run makes it anew."))


def setting_checks() -> Iterator[Check]:
    """Settings that only the process environment has."""
    label = "settings"
    faults: list[PerstackError] = []
    for name, usual in _SECONDS.items():
        try:
            seconds_setting(name, usual)
        except PerstackError as error:
            faults.append(error)
    try:
        allowed = allowed_endpoints(os.environ)
        shown = sorted(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in allowed)
        if shown:
            yield passed(label, f"skills may reach public endpoints and, by {ALLOW_VARIABLE}, {', '.join(shown)}")
        else:
            yield passed(label, f"skills may reach public endpoints only ({ALLOW_VARIABLE} is not set)")
    except PerstackError as error:
        faults.append(error)
    yield from (failed(label, error) for error in faults)


def space_check(label: str, text: str, free_bytes: int) -> Check:
    """A folder that can be used, unless its disk is full."""
    free = f"{free_bytes / 1024**3:.1f} GiB free" if free_bytes >= LOW_BYTES else f"{free_bytes // 1024**2} MiB free"
    if free_bytes < LEAST_BYTES:
        return failed(label, StorageError(f"{text}: {free}", hint="Make room on this disk, or use another one."))
    if free_bytes < LOW_BYTES:
        return warned(label, f"{text}: {free}", "Make room on this disk before a long run.")
    return passed(label, f"{text}, {free}")


def nearest(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def write_probe(folder: Path) -> None:
    """Write to a file without a name in `folder`, which leaves nothing behind.

    Raises:
        OSError: that is not possible.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"0")


def _reason(error: Exception) -> str:
    return f"{(error.strerror if isinstance(error, OSError) else None) or error}."
