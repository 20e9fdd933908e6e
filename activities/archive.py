"""`archive`: an execution keeps its own history before it ends, for the time when the server has forgotten it."""

import asyncio

from temporalio import activity
from temporalio.client import Client

from ..client.archive import Archive
from ..client.histories import Histories
from ..client.history import Execution
from ..client.records import Record
from ..core.failures import Failure, StorageError
from ..workflows.contracts import ARCHIVE, ArchiveRequest
from ..workflows.options import ARCHIVE_WAIT
from .boundary import Heartbeats, to_application_error


class Archiver:
    """The activity with the worker's resources."""

    def __init__(self, client: Client, archive: Archive, heartbeats: Heartbeats) -> None:
        self._histories = Histories.on(client)
        self._archive = archive
        self._heartbeats = heartbeats

    @activity.defn(name=ARCHIVE.name)
    async def archive(self, request: ArchiveRequest) -> None:
        """Write the history of the calling execution, and how it will end, into the storage."""
        info = activity.info()
        assert info.workflow_id is not None, "only a run archives itself"
        execution = Execution(info.workflow_id, info.workflow_run_id)
        async with self._heartbeats.beating():
            events = [event async for event in self._histories.recorded(execution)]
            record = await asyncio.to_thread(
                Record.of,
                execution,
                events,
                job_id=request.job_id,
                previous=request.previous,
                closing=request.closing,
            )
            try:
                await self._archive.put(record, gives_up=lambda seconds: seconds >= ARCHIVE_WAIT.total_seconds())
            except StorageError as error:
                # The run has waited long enough: it ends without, and the next reader keeps its history.
                raise to_application_error(error, failure=Failure(name=error.code, message=error.message)) from error
