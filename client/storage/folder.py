"""Large payloads in a folder of this machine."""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from ...core.failures import StorageError
from ...core.run import BlobRef
from ..filelock import FileLock
from ..locations import make_private, write_private

PAYLOAD_BYTES = 64 * 1024 * 1024
MARKER_SECONDS = 10.0


class FolderStorage:
    """Content-addressed files below one folder; safe for any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def storage_id(self) -> str:
        """The identity of this folder, made on first use; it moves with the folder."""
        marker = self.root / "storage-id"
        try:
            if not marker.exists():
                self._write_marker(marker)
            return marker.read_text().strip()
        except OSError as error:
            raise self._unusable("used", error) from error

    def put(self, content: bytes) -> BlobRef:
        """Keep the content; on return it survives a power cut."""
        if len(content) > PAYLOAD_BYTES:
            raise _too_large(len(content))
        ref = BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        path = self._path(ref.sha256)
        try:
            if not (path.is_file() and path.read_bytes() == content):
                make_private(path.parent)
                write_private(path, content, is_durable=True)
        except OSError as error:
            raise self._unusable("written", error) from error
        return ref

    def get(self, ref: BlobRef | str) -> bytes:
        """The content of that name, checked against it."""
        sha256 = ref if isinstance(ref, str) else ref.sha256
        path = self._path(sha256)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise StorageError(
                f"payload {sha256} is not in {self.root}",
                code="storage.missing",
                hint="use the data folder the job was started with (PERSTACK_DATA_DIR)",
                details={"sha256": sha256, "root": str(self.root)},
            ) from error
        except OSError as error:
            raise self._unusable("read", error) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StorageError(
                f"{path} does not contain what its name says",
                code="storage.corrupt",
                hint="restore the file from a backup",
                details={"sha256": sha256, "root": str(self.root)},
            )
        return content

    def _path(self, sha256: str) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise ValueError(f"not a SHA-256 in hexadecimal: {sha256!r}")
        return self.root / sha256[:2] / sha256[2:]

    def _write_marker(self, marker: Path) -> None:
        lock = FileLock(self.root / ".marker.lock")
        if not lock.acquire(timeout_seconds=MARKER_SECONDS):
            raise TimeoutError(f"{lock.path} is held by another process")
        try:
            if not marker.exists():
                write_private(marker, f"{uuid.uuid4().hex}\n".encode(), is_durable=True)
        finally:
            lock.release()

    def _unusable(self, action: str, error: OSError) -> StorageError:
        return StorageError(
            f"the payload storage {self.root} cannot be {action}: {error.strerror or error}",
            hint="make room there, make it writable, or name another data folder in PERSTACK_DATA_DIR",
            details={"root": str(self.root)},
        )


class FolderDriver(StorageDriver):
    """Temporal's external storage over a folder."""

    def __init__(self, storage: FolderStorage) -> None:
        self._storage = storage

    def name(self) -> str:
        """What payload references say; never to be changed."""
        return "perstack"

    def type(self) -> str:
        """The kind of driver, the same in every language."""
        return "perstack.folder"

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        """Keep the payloads."""
        return await asyncio.to_thread(lambda: [self._store(payload) for payload in payloads])

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Bring the payloads back."""
        return await asyncio.to_thread(lambda: [self._retrieve(claim) for claim in claims])

    def _store(self, payload: Payload) -> StorageDriverClaim:
        size = payload.ByteSize()
        if size > PAYLOAD_BYTES:
            raise _too_large(size)
        ref = self._storage.put(payload.SerializeToString(deterministic=True))
        return StorageDriverClaim({"sha256": ref.sha256, "size": str(ref.size)})

    def _retrieve(self, claim: StorageDriverClaim) -> Payload:
        return Payload.FromString(self._storage.get(claim.claim_data["sha256"]))


def _too_large(size: int) -> StorageError:
    mib = 1024 * 1024
    return StorageError(
        f"a payload of {size / mib:.1f} MiB is over the limit of {PAYLOAD_BYTES // mib} MiB",
        code="storage.too_large",
        hint="split the content or keep it in a file of the workspace",
        details={"size": size, "limit": PAYLOAD_BYTES},
    )
