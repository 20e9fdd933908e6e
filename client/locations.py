"""Where things lie on this machine. Folders are made with mode 0700, files with mode 0600."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

SANDBOX_ROOT = Path("/workspace/perstack")


HIDDEN_FOLDER = "perstack"
"""In a workspace: ours, out of reach of every tool."""
WORKSPACE_MARKER = "workspace-id"
"""In the hidden folder: the file by which a job knows its workspace again."""


@dataclass(frozen=True)
class DataFolder:
    """The folder that holds one user's embedded server, large payloads and locks."""

    root: Path

    @property
    def server(self) -> Path:
        """What belongs to the embedded server."""
        return self.root / "server"

    @property
    def database(self) -> Path:
        """The server's SQLite file."""
        return self.server / "temporal.db"

    @property
    def record(self) -> Path:
        """The address of the running server."""
        return self.server / "server.json"

    @property
    def log(self) -> Path:
        """What the server and its supervisor write."""
        return self.server / "server.log"

    @property
    def storage(self) -> Path:
        """Large payloads."""
        return self.root / "storage"

    @property
    def locks(self) -> Path:
        """Lock files; they are never removed, a lock on a removed file protects nothing."""
        return self.root / "locks"

    @property
    def start_lock(self) -> Path:
        """Held by whoever starts or stops the server."""
        return self.locks / "start.lock"

    @property
    def clients_lock(self) -> Path:
        """Shared by every process that uses the server."""
        return self.locks / "clients.lock"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor alone; its text is the supervisor's process id."""
        return self.locks / "supervisor.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the supervisor and by the server itself, so it is free only when nobody has the database open."""
        return self.locks / "server.lock"

    def job_log(self, job_id: str) -> Path:
        """What the background worker of a detached job says."""
        return self.root / "logs" / f"{job_id}.log"

    def job_lock(self, job_id: str) -> Path:
        """Held by the process that works on a job."""
        return self.locks / "jobs" / f"{job_id}.lock"


def data_folder() -> DataFolder:
    """The data folder of this environment: `PERSTACK_DATA_DIR`, the container's, or the user's."""
    named = os.environ.get("PERSTACK_DATA_DIR")
    if named:
        return DataFolder(Path(named).expanduser().absolute())
    if os.environ.get("PERSTACK_SANDBOX") == "1":
        return DataFolder(SANDBOX_ROOT)
    return DataFolder(Path(platformdirs.user_data_dir("perstack")))


def binaries_folder() -> Path:
    """Our cache of downloaded or built programs."""
    return Path(platformdirs.user_cache_dir("perstack")) / "bin"


def make_private(folder: Path) -> Path:
    """Make `folder` and its missing parents for this user alone; what exists keeps its mode."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    return folder


def write_private(path: Path, content: bytes, *, is_durable: bool = False) -> None:
    """Replace `path` in one step by a file of mode 0600; durable ones survive a power cut."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if is_durable:
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
    if is_durable:
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
