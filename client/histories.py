"""Where every reader gets histories from: the server, and what was kept of those it has forgotten (DESIGN §1)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from ..core.failures import PerstackError, StorageError
from ..core.run import RunInput
from .archive import Archive
from .history import Execution, RunReader, is_end_of_work, is_told_to_workflow
from .records import Record, Records, newest_of
from .storage.base import Storage

POLL_SECONDS = 0.04
"""The shortest time between two questions for new events of one execution."""


class HistoryLost(PerstackError):
    """Neither the server nor the archive knows an execution."""

    code = "history.lost"


@dataclass
class Histories:
    """The server first, then the records."""

    converter: DataConverter
    client: Client | None = None
    records: Records | None = None
    _from_records: set[Execution] = field(default_factory=set[Execution])
    _following: dict[Execution, str] = field(default_factory=dict[Execution, str])

    @classmethod
    def on(cls, client: Client, storage: Storage | None = None) -> Self:
        """Those of a server, and of the archive in `storage`."""
        return cls(client.data_converter, client, Archive(storage) if storage else None)

    async def events(self, execution: Execution, *, wait: bool = False) -> AsyncIterator[HistoryEvent]:
        """The history of one execution as the run was told of it; with `wait`, new events as they come until it closes.

        Of what one workflow task brings, a run takes a cancellation before everything that ended: so do its readers.

        Raises:
            HistoryLost: nobody knows it.
        """
        held: list[HistoryEvent] = []
        async for event in self.recorded(execution, wait=wait):
            if is_end_of_work(event):
                held.append(event)
                continue
            if is_told_to_workflow(event):
                for one in held:
                    yield one
                held.clear()
            yield event
        for one in held:
            yield one

    async def recorded(self, execution: Execution, *, wait: bool = False) -> AsyncIterator[HistoryEvent]:
        """The history of one execution in its own order.

        Raises:
            HistoryLost: nobody knows it.
        """
        if self.client is not None:
            has_begun = False
            try:
                async for event in _of_server(self.client, execution, wait=wait):
                    has_begun = True
                    yield event
            except RPCError as error:
                if has_begun or error.status != RPCStatusCode.NOT_FOUND:
                    raise
            else:
                return
        record = await self._record(execution)
        self._from_records.add(execution)
        following = await self._next_of(record) if record.closing == "continuedAsNew" else None
        for event in await asyncio.to_thread(record.history, following):
            yield event

    async def read_run(self, execution: Execution) -> RunReader:
        """Fold all that is in the history of one execution now, delegates not included.

        Raises:
            HistoryLost: nobody knows it.
        """
        reader = RunReader(self.converter)
        async for event in self.events(execution):
            await reader.feed(event)
        return reader

    async def read_input(self, execution: Execution) -> RunInput:
        """The input of one execution, from its first history event.

        Raises:
            HistoryLost: nobody knows it.
        """
        first = await self._first_event(execution)
        payloads = first.workflow_execution_started_event_attributes.input.payloads
        return (await self.converter.decode(payloads, [RunInput]))[0]

    async def is_known(self, execution: Execution) -> bool:
        """Whether the server or the archive has this execution."""
        if self.client is not None:
            try:
                await self.client.get_workflow_handle(
                    execution.workflow_id, run_id=execution.temporal_run_id
                ).describe()
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
            else:
                return True
        return self.records is not None and await self.records.get(execution) is not None

    async def job_chain(self, newest: Execution) -> tuple[Execution, ...]:
        """The executions of a job's root, oldest first: one for each query and each time it was resumed.

        An execution that only carries on the one before it is left out: a reader comes to it from there. What is
        lost is left out as well; then the first that is there names an execution before it.
        """
        chain: list[Execution] = []
        execution = newest
        while True:
            start = await self.read_input(execution)
            before = Execution(execution.workflow_id, start.previous) if start.previous else None
            is_known = before is not None and await self.is_known(before)
            if start.carried is None or not is_known:
                chain.append(execution)
            if before is None or not is_known:
                return tuple(reversed(chain))
            execution = before

    async def newest_record(self, workflow_id: str) -> Record | None:
        """What is kept of the last execution of a workflow id."""
        return newest_of(await self.records.of(workflow_id)) if self.records is not None else None

    async def record(self, execution: Execution) -> Record:
        """One execution as a record: all the server knows of it, else as it was kept.

        Raises:
            HistoryLost: nobody knows it.
        """
        if self.client is not None:
            try:
                events = [event async for event in _of_server(self.client, execution, wait=False)]
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
            else:
                started = events[0].workflow_execution_started_event_attributes
                execution = Execution(execution.workflow_id, started.original_execution_run_id)
                start = await self.read_input(execution)
                return await asyncio.to_thread(
                    Record.of, execution, events, job_id=start.job_id, previous=start.previous
                )
        return await self._record(execution)

    async def keep(self, execution: Execution) -> None:
        """Archive an execution that ended without doing so itself; where that fails, the next reader may."""
        if self.client is None or not isinstance(self.records, Archive) or execution in self._from_records:
            return
        with suppress(StorageError, HistoryLost):
            known = await self.records.get(execution)
            if known is None or not known.shows_its_end:
                await self.records.put(await self.record(execution))

    async def following(self, record: Record) -> Execution | None:
        """The execution that a run was handed on to by the one of this record."""
        found = await self._next_of(record)
        return Execution(record.workflow_id, found) if found else None

    async def _record(self, execution: Execution) -> Record:
        record = await self.records.get(execution) if self.records is not None else None
        if record is None:
            raise HistoryLost(
                f"The history of {execution.workflow_id} ({execution.temporal_run_id}) is lost: the server has "
                "forgotten it, and it is not in the archive.",
                hint="It may be in the archive of another storage (PERSTACK_STORAGE, PERSTACK_DATA_DIR).",
            )
        return record

    async def _first_event(self, execution: Execution) -> HistoryEvent:
        if self.client is not None:
            handle = self.client.get_workflow_handle(execution.workflow_id, run_id=execution.temporal_run_id)
            try:
                async for event in handle.fetch_history_events(page_size=1):
                    return event
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
        return (await self._record(execution)).history()[0]

    async def _next_of(self, record: Record) -> str | None:
        """An execution cannot write down which one follows it; that one says which it goes on from."""
        execution = record.execution
        if execution not in self._following:
            await self._learn_order(execution)
        return self._following.get(execution)

    async def _learn_order(self, execution: Execution) -> None:
        workflow_id = execution.workflow_id
        records = await self.records.of(workflow_id) if self.records is not None else ()
        for record in records:
            if record.previous is not None:
                self._following[Execution(workflow_id, record.previous)] = record.temporal_run_id
        if self.client is None or execution in self._following:
            return
        try:
            newest = (await self.client.get_workflow_handle(workflow_id).describe()).run_id
            while execution not in self._following:
                before = (await self.read_input(Execution(workflow_id, newest))).previous
                if before is None:
                    return
                self._following[Execution(workflow_id, before)] = newest
                newest = before
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
        except HistoryLost:
            return


async def _of_server(client: Client, execution: Execution, *, wait: bool) -> AsyncIterator[HistoryEvent]:
    handle = client.get_workflow_handle(execution.workflow_id, run_id=execution.temporal_run_id)
    pages = handle.fetch_history_events(wait_new_event=wait)
    loop = asyncio.get_running_loop()
    while True:
        begun = loop.time()
        await pages.fetch_next_page()
        for event in pages.current_page or ():
            yield event
        if pages.next_page_token is None:
            return
        if wait:
            # A step writes its events one by one; asked for at once, each would be a round trip of its own.
            await asyncio.sleep(max(0.0, begun + POLL_SECONDS - loop.time()))
