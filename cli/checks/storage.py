"""The payload storage in use, where it is not a part of the data folder."""

import asyncio
import os
import shutil

from ...client.locations import DataFolder
from ...client.storage.base import Storage
from ...client.storage.folder import FolderStorage
from ...client.storage.setting import VARIABLE, open_storage
from ...core.failures import PerstackError, StorageError
from .machine import nearest, space_check, write_probe
from .report import Tell, failed, passed, unneeded

_LABEL = "storage"


async def storage_checks(data: DataFolder, tell: Tell) -> None:
    """Whether the storage of `PERSTACK_STORAGE` can be used; a bucket gets its identity, as at its first use."""
    if not os.environ.get(VARIABLE):
        tell(unneeded(_LABEL, f"payloads over 64 KiB go into {data.storage} ({VARIABLE} is not set)"))
        return
    try:
        storage = await asyncio.to_thread(open_storage, data)
        if isinstance(storage, FolderStorage):
            _look_at_folder(storage, tell)
        else:
            await _look_at_bucket(storage, tell)
    except PerstackError as error:
        tell(failed(_LABEL, error))


def _look_at_folder(storage: FolderStorage, tell: Tell) -> None:
    found = nearest(storage.root)
    try:
        write_probe(found)
        space = shutil.disk_usage(found).free
    except OSError as error:
        text = f"{storage.location} cannot be used: {error.strerror or error}."
        hint = f"Make it writable, or name another folder in {VARIABLE}."
        tell(failed(_LABEL, StorageError(text, hint=hint)))
        return
    tell(space_check(_LABEL, f"{storage.location}{'' if found == storage.root else ', made at its first use'}", space))


async def _look_at_bucket(storage: Storage, tell: Tell) -> None:
    identity = await storage.outages.once(lambda: storage.storage_id)
    tell(passed(_LABEL, f"{storage.location} can be read and written, id {identity[:8]}"))
