"""Results reach the storage before their activity returns: afterwards nobody gives signs of life (decision 0011)."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from temporalio import activity

from ..client.storage.base import Storage, require_size
from ..client.storage.driver import PayloadDriver, wire_bytes
from ..client.storage.outages import is_outage
from ..core.failures import StorageError

T = TypeVar("T")


class Settler:
    """Stores what of a result is too large for history, so that the SDK finds it stored.

    Where a program that mounts Perstack has a codec or a storage of its own, its large results are its own affair.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def settle(self, result: Callable[[], T]) -> T:
        """The result, stored; waits while the storage is away, which only a cancellation ends.

        `result` is asked again afterwards: what it says of the worker may have changed.

        Raises:
            StorageError: the storage will never take it.
        """
        latest = result()
        while True:
            settled = latest
            content = _stored_form(settled)
            if content is None:
                return settled
            await self._storage.outages.through(partial(self._storage.put, content))
            latest = result()
            if latest == settled:
                return settled

    async def is_settled(self, result: object) -> bool:
        """Store the result if the storage is there now; for calls that may not wait.

        Raises:
            StorageError: the storage will never take it.
        """
        content = _stored_form(result)
        if content is None:
            return True
        try:
            await self._storage.outages.once(lambda: self._storage.put(content))
        except StorageError as error:
            if is_outage(error):
                return False
            raise
        return True


def _stored_form(result: object) -> bytes | None:
    """The result as the SDK stores it with our driver, if it is large enough for that."""
    converter = activity.client().data_converter
    external = converter.external_storage
    if converter.payload_codec is not None or external is None or not isinstance(external.drivers[0], PayloadDriver):
        return None
    [payload] = converter.payload_converter.to_payloads([result])
    size = payload.ByteSize()
    if size < external.payload_size_threshold:
        return None
    require_size(size)
    return wire_bytes(payload)
