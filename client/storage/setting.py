"""Which storage this environment uses: `PERSTACK_STORAGE`."""

import os
import re
from pathlib import Path

from ...core.failures import UsageError
from ..locations import DataFolder
from .base import Storage
from .folder import FolderStorage

VARIABLE = "PERSTACK_STORAGE"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


def open_storage(data: DataFolder) -> Storage:
    """The storage of `PERSTACK_STORAGE`: a folder, or `s3://bucket/prefix`; unset, a folder of the data folder.

    Nothing is read or written yet; `storage_id` is the first that does.

    Raises:
        UsageError: the setting names no storage.
    """
    value = os.environ.get(VARIABLE, "").strip()
    if not value:
        return FolderStorage(data.storage)
    found = _SCHEME.fullmatch(value)
    if found is None:
        return FolderStorage(_folder(value))
    if found[1].lower() != "s3":
        raise _wrong(f"knows no storage of the kind {found[1]}://")
    bucket, _, prefix = found[2].partition("/")
    prefix = prefix.rstrip("/")
    # What is wrong is not quoted: somebody may have put a password into it.
    if not _BUCKET.fullmatch(bucket):
        raise _wrong("holds no valid bucket name after s3://")
    if prefix and not (_PREFIX.fullmatch(prefix) and len(prefix) <= 300):
        raise _wrong("holds a prefix with other characters than letters, digits, `.`, `_`, `-` and `/` between them")
    # Half a second that users of a folder need not spend.
    from .s3 import S3Storage

    return S3Storage(bucket, prefix)


def _folder(value: str) -> Path:
    path = Path(value).expanduser()
    if not path.is_absolute():
        # Commands are started in many folders, and all of them mean the same storage.
        raise _wrong("is a relative path")
    return path


def _wrong(problem: str) -> UsageError:
    return UsageError(
        f"{VARIABLE} {problem}.",
        code="storage.setting",
        hint="name a folder by its absolute path, or s3://bucket/prefix; unset, the data folder is used",
    )
