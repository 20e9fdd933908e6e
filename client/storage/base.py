"""What every storage of payloads does alike: names from content, checks, and a short memory of its own."""

import hashlib
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict

from ...core.failures import StorageError
from ...core.run import BlobRef
from .outages import Outages

PAYLOAD_BYTES = 64 * 1024 * 1024
UNAVAILABLE = "storage.unavailable"
"""Code of what may pass: a full disk, a folder that is not mounted, a bucket that is out of reach."""
RECENT_BYTES = 32 * 1024 * 1024
RECENT_SECONDS = 60.0
"""How long a storage trusts its own write: what an activity stored, the SDK stores again a moment later."""

_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
_NAME_LENGTH = 600


class Storage(ABC):
    """Content by its hash and a few objects by name; methods block, and may be called from any thread."""

    def __init__(self, location: str, *, hint: str) -> None:
        self.location = location
        """For people: where the storage is."""
        self.outages = Outages(location)
        self._hint = hint
        self._recent = _Recent()

    @property
    @abstractmethod
    def storage_id(self) -> str:
        """The identity of this storage, made on first use; it moves with the content.

        Raises:
            StorageError: it cannot be read or made.
        """

    def put(self, content: bytes) -> BlobRef:
        """Keep the content; on return it is durable.

        Raises:
            StorageError: it is too large, or cannot be written now.
        """
        require_size(len(content))
        ref = BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
        if not self._recent.was_written(ref.sha256):
            self._write(content_name(ref.sha256), content)
            self._recent.written(ref.sha256, content)
        return ref

    def get(self, ref: BlobRef | str) -> bytes:
        """The content of that hash, checked against it.

        Raises:
            StorageError: it is not there, is not what its name says, or cannot be read now.
        """
        sha256 = ref if isinstance(ref, str) else ref.sha256
        name = content_name(sha256)
        known = self._recent.content(sha256)
        if known is not None:
            return known
        content = self._read(name)
        if content is None:
            raise StorageError(
                f"payload {sha256} is not in {self.location}",
                code="storage.missing",
                hint="use the storage the job was started with (PERSTACK_STORAGE, PERSTACK_DATA_DIR)",
                details={"sha256": sha256, "storage": self.location},
            )
        if hashlib.sha256(content).hexdigest() != sha256:
            raise StorageError(
                f"{name} in {self.location} does not contain what its name says",
                code="storage.corrupt",
                hint="restore it from a backup",
                details={"sha256": sha256, "storage": self.location},
            )
        self._recent.remember(sha256, content)
        return content

    def put_named(self, name: str, content: bytes) -> None:
        """Keep the content under a relative path, in place of what was there.

        Raises:
            StorageError: it cannot be written now.
        """
        self._write(f"named/{checked_name(name)}", content)

    def get_named(self, name: str) -> bytes | None:
        """The content under that name, if there is any.

        Raises:
            StorageError: it cannot be read now.
        """
        return self._read(f"named/{checked_name(name)}")

    def names(self, prefix: str) -> list[str]:
        """The names that begin with `prefix`, in order.

        Raises:
            StorageError: they cannot be listed now.
        """
        folder, slash, rest = prefix.rpartition("/")
        if slash:
            checked_name(folder)
        if rest:
            checked_name(rest)
        return sorted(self._names(prefix))

    @abstractmethod
    def _write(self, name: str, content: bytes) -> None:
        """Write the object in one step."""

    @abstractmethod
    def _read(self, name: str) -> bytes | None:
        """The object, or `None` where there is none."""

    @abstractmethod
    def _names(self, prefix: str) -> list[str]:
        """The named objects whose names begin with `prefix`."""

    def _unavailable(self, action: str, reason: str, *, hint: str | None = None) -> StorageError:
        return StorageError(
            f"the payload storage {self.location} cannot be {action}: {reason}",
            code=UNAVAILABLE,
            hint=hint or self._hint,
            details={"storage": self.location},
        )


class _Recent:
    """What this process read or wrote lately: some content, and for a minute the names of all it wrote."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contents: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._written: OrderedDict[str, float] = OrderedDict()

    def was_written(self, sha256: str) -> bool:
        with self._lock:
            oldest = time.monotonic() - RECENT_SECONDS
            while self._written and next(iter(self._written.values())) < oldest:
                self._written.popitem(last=False)
            return sha256 in self._written

    def written(self, sha256: str, content: bytes) -> None:
        with self._lock:
            self._written[sha256] = time.monotonic()
            self._written.move_to_end(sha256)
        self.remember(sha256, content)

    def remember(self, sha256: str, content: bytes) -> None:
        with self._lock:
            if sha256 in self._contents or len(content) > RECENT_BYTES:
                return
            self._contents[sha256] = content
            self._bytes += len(content)
            while self._bytes > RECENT_BYTES:
                self._bytes -= len(self._contents.popitem(last=False)[1])

    def content(self, sha256: str) -> bytes | None:
        with self._lock:
            found = self._contents.get(sha256)
            if found is not None:
                self._contents.move_to_end(sha256)
            return found


def content_name(sha256: str) -> str:
    """Where content lies in every storage.

    Raises:
        ValueError: this is no SHA-256 in hexadecimal.
    """
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError(f"not a SHA-256 in hexadecimal: {sha256!r}")
    return f"{sha256[:2]}/{sha256[2:]}"


def checked_name(name: str) -> str:
    """`name`, if it is a relative path that cannot lead elsewhere.

    Raises:
        ValueError: it is not.
    """
    if len(name) > _NAME_LENGTH or not all(_SEGMENT.fullmatch(segment) for segment in name.split("/")):
        raise ValueError(f"not a name for a stored object: {name!r}")
    return name


def require_size(size: int) -> None:
    """Refuse what no storage of ours takes.

    Raises:
        StorageError: the payload is over 64 MiB.
    """
    if size > PAYLOAD_BYTES:
        mib = 1024 * 1024
        raise StorageError(
            f"a payload of {size / mib:.1f} MiB is over the limit of {PAYLOAD_BYTES // mib} MiB",
            code="storage.too_large",
            hint="split the content or keep it in a file of the workspace",
            details={"size": size, "limit": PAYLOAD_BYTES},
        )
