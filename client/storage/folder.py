"""Large payloads in a folder: of this machine, or of a volume that a pool shares."""

import os
import uuid
from pathlib import Path

from ..filelock import FileLock
from ..locations import make_private, write_private
from .base import Storage

MARKER = "storage-id"
MARKER_SECONDS = 10.0


class FolderStorage(Storage):
    """Files below one folder; safe for any number of processes."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            str(root),
            hint="make room there or make it writable; new jobs may use another storage "
            "(PERSTACK_STORAGE, PERSTACK_DATA_DIR)",
        )
        self.root = root
        self._has_identity = False

    @property
    def storage_id(self) -> str:
        """The identity of this folder, made on first use; it moves with the folder."""
        marker = self.root / MARKER
        try:
            if not marker.exists():
                self._require_own_folder()
                self._write_marker(marker)
            found = marker.read_text().strip()
        except OSError as error:
            raise self._unavailable("used", _reason(error)) from error
        self._has_identity = True
        return found

    def _write(self, name: str, content: bytes) -> None:
        path = self.root / name
        try:
            self._require_own_folder()
            if not (path.is_file() and path.read_bytes() == content):
                make_private(path.parent)
                write_private(path, content, is_durable=True)
                # A volume that went away a moment ago leaves a folder of its name, where nothing is kept.
                self._require_own_folder()
        except OSError as error:
            raise self._unavailable("written", _reason(error)) from error

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._unavailable("read", _reason(error)) from error
        try:
            self._require_own_folder()
        except OSError as error:
            raise self._unavailable("read", _reason(error)) from error
        return None

    def _names(self, prefix: str) -> list[str]:
        top = self.root / "named"
        folder = top / prefix.rpartition("/")[0]
        found: list[str] = []
        try:
            self._require_own_folder()
            for place, _, files in os.walk(folder, onerror=_unless_absent):
                # A name never begins with a dot; what does is being written.
                found += [(Path(place) / file).relative_to(top).as_posix() for file in files if file[0] != "."]
        except OSError as error:
            raise self._unavailable("read", _reason(error)) from error
        return [name for name in found if name.startswith(prefix)]

    def _require_own_folder(self) -> None:
        """Once the folder was ours, one without its marker is another: a volume that is not mounted."""
        if self._has_identity and not (self.root / MARKER).is_file():
            raise FileNotFoundError(f"its file {MARKER} is gone; is the volume mounted?")

    def _write_marker(self, marker: Path) -> None:
        lock = FileLock(self.root / ".marker.lock")
        if not lock.acquire(timeout_seconds=MARKER_SECONDS):
            raise TimeoutError(f"{lock.path} is held by another process")
        try:
            if not marker.exists():
                write_private(marker, f"{uuid.uuid4().hex}\n".encode(), is_durable=True)
        finally:
            lock.release()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _unless_absent(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error
