"""Temporal's external storage over one of ours."""

import asyncio
from collections.abc import Callable, Sequence

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)

from .base import Storage, require_size

READER_SECONDS = 60.0
"""How long a command that only reads, or starts a job, waits for a storage that is away."""


def _reader_gives_up(waited_seconds: float) -> bool:
    return waited_seconds >= READER_SECONDS


class PayloadDriver(StorageDriver):
    """Large payloads of Temporal as content of a storage; waits while that is away, until `gives_up` says no."""

    def __init__(self, storage: Storage, *, gives_up: Callable[[float], bool] = _reader_gives_up) -> None:
        self._storage = storage
        self._gives_up = gives_up

    def name(self) -> str:
        """What payload references say; never to be changed."""
        return "perstack"

    def type(self) -> str:
        """The kind of driver, the same in every language and for every storage."""
        return "perstack"

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        """Keep the payloads."""
        return list(await asyncio.gather(*(self._store(payload) for payload in payloads)))

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Bring the payloads back."""
        return list(await asyncio.gather(*(self._retrieve(claim) for claim in claims)))

    async def _store(self, payload: Payload) -> StorageDriverClaim:
        require_size(payload.ByteSize())
        content = wire_bytes(payload)
        ref = await self._storage.outages.through(lambda: self._storage.put(content), gives_up=self._gives_up)
        return StorageDriverClaim({"sha256": ref.sha256, "size": str(ref.size)})

    async def _retrieve(self, claim: StorageDriverClaim) -> Payload:
        sha256 = claim.claim_data["sha256"]
        content = await self._storage.outages.through(lambda: self._storage.get(sha256), gives_up=self._gives_up)
        return Payload.FromString(content)


def wire_bytes(payload: Payload) -> bytes:
    """A payload as it is stored; the same payload gives the same content."""
    return payload.SerializeToString(deterministic=True)
