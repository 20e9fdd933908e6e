"""One job as one stream of events: every execution's fold, live deltas between, parents after their children."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from temporalio.api.history.v1 import HistoryEvent

from ..core.cassette import Cassette
from ..core.checkpoint import Job, job_status
from ..core.deltas import Delta, DeltaKind, FailedAttempts, LiveNews, SkillSaid
from ..core.events import (
    Event,
    Retry,
    SkillStderr,
    StartStreamingReasoning,
    StartStreamingRunResult,
    StreamReasoning,
    StreamRunResult,
)
from ..core.ids import cuid_from
from ..core.lineage import Lineage, ToldRun
from ..core.machine import retries_so_far
from ..core.run import RunInput
from ..core.state import RunState, State
from ..core.tools import ToolCall
from ..core.view_state import ViewState
from .chronology import AsTold, Chronology
from .histories import Histories, HistoryLost
from .history import Execution, RunReader, ended_child_id


class DeltaSource(Protocol):
    """Where live deltas come from; the in-process feed is one, the heartbeats of other processes are another."""

    def subscribe(
        self, subscriber: Callable[[LiveNews], None], generating: Callable[[], Iterable[Execution]]
    ) -> Callable[[], None]:
        """Hand every delta to `subscriber` until the returned function is called.

        `generating` names the executions that wait for their model now, for a source that has to ask about each.
        """
        ...


@dataclass(frozen=True, slots=True)
class EndedOutside:
    """A run that was ended from outside, which no event tells."""

    run_id: str
    """Of its segment."""
    closed: str
    """In Temporal's terms: terminated, timedOut; failed where it could not even tell why."""
    at: int
    """Milliseconds since the epoch."""


class JobFollower:
    """Reads a job: its root's executions one after another and every delegate's, each once, in causal order."""

    def __init__(
        self,
        histories: Histories,
        *roots: Execution,
        wait: bool = True,
        deltas: DeltaSource | None = None,
        is_recording: bool = False,
        is_keeping: bool = False,
    ) -> None:
        self._histories = histories
        self._roots = roots
        self._wait = wait
        self._deltas = deltas
        self._is_recording = is_recording
        self._is_keeping = is_keeping
        self._out: asyncio.Queue[Event | EndedOutside | BaseException | None] = asyncio.Queue()
        order = AsTold[Event | EndedOutside] if wait else Chronology[Event | EndedOutside]
        self._told = order(self._out.put_nowait)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._live: dict[str, _LiveText] = {}
        self._open: dict[str, RunReader] = {}
        """By workflow id, the run read last."""
        self._read_now: dict[str, Execution] = {}
        """By workflow id, the execution of it that is read."""
        self._lost: list[Execution] = []
        """Delegates whose history nobody knows any more."""
        self.trees: list[list[RunReader]] = []
        """One for each execution of the root: the root's run, then its delegates; complete once `events` has ended."""
        self.view = ViewState()
        """All that was handed out so far, as screens and logs show it."""

    @property
    def root(self) -> RunReader:
        """The run of the root's newest execution."""
        return self.trees[-1][0]

    @property
    def readers(self) -> list[RunReader]:
        """Every run of the job, oldest first."""
        return [reader for tree in self.trees for reader in tree]

    @property
    def lost(self) -> tuple[str, ...]:
        """The workflow ids of what nobody knows any more; the job's own where executions before the first are missing.

        That holds where a job was read from its beginning.
        """
        first = self.trees[0][0].first_start
        root = (first.job_id,) if first is not None and first.previous is not None else ()
        return (*root, *(execution.workflow_id for execution in self._lost))

    def waits_at(self, checkpoint_id: str) -> bool:
        """Whether the job waits for a person since the stop with this checkpoint."""
        fold = self.root.fold
        return bool(self.questions) and fold is not None and fold.state.checkpoint.id == checkpoint_id

    @property
    def questions(self) -> tuple[ToolCall, ...]:
        """What the job asks a person, if that is all it waits for."""
        fold = self.root.fold
        if fold is None or fold.state.state != State.CALLING_INTERACTIVE_TOOLS:
            return ()
        return tuple(fold.state.checkpoint.pending_tool_calls or ())

    def job(self) -> Job:
        """The job as its runs tell it.

        Usage is the root's, which includes every delegate that reported and all it goes on from, and that of every
        run nobody heard of again.
        """
        fold = self.root.fold
        assert fold is not None, "a job is read before it is described"
        checkpoint = fold.state.checkpoint
        usage = checkpoint.usage
        for reader in self.trees[-1][1:]:
            if reader.fold and not reader.has_reported:
                usage = usage + reader.fold.state.checkpoint.usage
        status = job_status(checkpoint.status)
        return Job(
            id=fold.start.job_id,
            status=status,
            coordinator_expert_key=fold.start.expert_key,
            total_steps=checkpoint.step_number,
            max_steps=fold.start.settings.limits.max_steps,
            usage=usage,
            started_at=self.trees[0][0].started_at,
            finished_at=None if status in ("running", "stoppedByInteractiveTool") else self.root.ended_at,
        )

    def cassette(self) -> Cassette:
        """Every model call of the job's last query, with what it goes on from; read with `is_recording`."""
        fold = self.root.fold
        assert fold is not None, "a job is read before it is recorded"
        entries = [entry for reader in self.trees[-1] for entry in reader.recorded]
        return Cassette(
            query=fold.start.query,
            expert_key=fold.start.expert_key,
            workspace=fold.start.settings.workspace,
            seed=self.root.first_start.seed if self.root.first_start else None,
            entries=tuple(sorted(entries, key=lambda entry: (len(entry.path), entry.path, entry.ordinal))),
        )

    def lineage(self) -> Lineage:
        """Everything the job can go on from; read with `is_keeping`."""
        told = (ToldRun(reader.fold.state, reader.moments) for reader in self.readers if reader.fold is not None)
        return Lineage(self.job().id, tuple(told))

    async def events(self) -> AsyncIterator[Event]:
        """Every event of the job, until the last execution given is closed, or to its present end without `wait`."""
        async with aclosing(self.news()) as news:
            async for item in news:
                if not isinstance(item, EndedOutside):
                    yield item

    async def news(self) -> AsyncGenerator[Event | EndedOutside]:
        """The same with what no event tells, each run's end from outside after its events."""
        unsubscribe = self._deltas.subscribe(self._take_news, self._generating) if self._deltas else None
        reading = asyncio.create_task(self._read_roots())
        reading.add_done_callback(self._roots_ended)
        try:
            while (item := await self._out.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, EndedOutside):
                    self.view.end_from_outside(item.run_id, item.closed, item.at)
                else:
                    self.view.feed(item)
                yield item
        finally:
            if unsubscribe:
                unsubscribe()
            tasks = (reading, *self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read_roots(self) -> None:
        for root in self._roots:
            self.trees.append([])
            reader = self._reader(root, self.trees[-1])
            await self._read(root, reader)
            if reader.closed is not None:
                # Where the root was ended from outside, what becomes of its delegates is not waited for.
                for below in self.trees[-1][1:]:
                    if below.closed is None:
                        for item in _end(below, reader.closed, reader.ended_at):
                            self._out.put_nowait(item)

    def _roots_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._out.put_nowait(error)

    def _reader(self, execution: Execution, tree: list[RunReader]) -> RunReader:
        workflow_id = execution.workflow_id
        reader = RunReader(
            self._histories.converter, is_recording=self._is_recording, is_keeping=self._is_keeping, tree=tree
        )
        tree.append(reader)
        self._open[workflow_id] = reader
        self._live.setdefault(workflow_id, _LiveText())
        return reader

    async def _read(self, execution: Execution, reader: RunReader) -> None:
        """One run to its end, through all executions that carry it on."""
        children: list[str] = []
        try:
            await self._read_chain(execution, reader, children)
        finally:
            self._told.end(execution.workflow_id)
        if not self._wait:
            await asyncio.gather(*(self._tasks[child] for child in children))

    async def _read_chain(self, execution: Execution, reader: RunReader, children: list[str]) -> None:
        while True:
            self._read_now[execution.workflow_id] = execution
            try:
                async for history_event in self._histories.events(execution, wait=self._wait):
                    await self._read_event(execution.workflow_id, reader, history_event)
                    if reader.started_child is not None:
                        children.append(reader.started_child.workflow_id)
            except HistoryLost:
                if execution in self._roots:
                    raise
                reader.is_lost = True
                self._lost.append(execution)
                return
            await self._keep(execution, reader)
            if reader.next_execution is None:
                break
            execution = Execution(execution.workflow_id, reader.next_execution)
        if reader.closed is not None:
            for item in _end(reader, reader.closed, reader.ended_at):
                self._told.put(execution.workflow_id, item)

    async def _keep(self, execution: Execution, reader: RunReader) -> None:
        """What was ended from outside could not archive itself; whoever reads it does that."""
        start = reader.first_start
        has_ended = reader.closed is not None or reader.next_execution is not None
        if start is not None and start.settings.is_archiving and has_ended and not reader.is_archived:
            await self._histories.keep(execution)

    async def _read_event(self, workflow_id: str, reader: RunReader, history_event: HistoryEvent) -> None:
        ended = ended_child_id(history_event)
        if ended in self._tasks:
            await asyncio.shield(self._tasks[ended])
        at = history_event.event_time.ToMilliseconds()
        self._told.reach(workflow_id, at)
        shown = self._live[workflow_id].shown_retries
        is_first = reader.first_start is None
        events = await reader.feed(history_event)
        if is_first:
            self._tell_origin(reader)
        for event in events:
            if not (isinstance(event, Retry) and event.id in shown):
                self._told.put(workflow_id, event)
        child = reader.started_child
        if child is not None:
            below = self._reader(child, reader.tree)
            self._told.reach(child.workflow_id, at)
            self._tasks[child.workflow_id] = asyncio.create_task(self._read(child, below))
        self._flush_deltas(workflow_id)

    def _tell_origin(self, reader: RunReader) -> None:
        """A branch goes on from another job, which no event tells."""
        start = reader.first_start
        if start is not None and start.seed is not None and start.seed.origin.job_id != start.job_id:
            self.view.tell_origin(start.run_id, start.seed.origin)

    def _generating(self) -> list[Execution]:
        return [execution for name, execution in self._read_now.items() if self._open[name].is_generating]

    def _take_news(self, news: LiveNews) -> None:
        self._live.setdefault(news.workflow_id, _LiveText()).held.append(news)
        self._flush_deltas(news.workflow_id)

    def _flush_deltas(self, workflow_id: str) -> None:
        """Pass on what belongs to the generation now open; drop what history has overtaken."""
        live = self._live[workflow_id]
        reader = self._open.get(workflow_id)
        if not live.held or reader is None or reader.fold is None:
            return
        state = reader.fold.state
        later: list[LiveNews] = []
        for news in live.held:
            if isinstance(news, SkillSaid):
                self._out.put_nowait(_stderr_event(news, state))
            elif news.ordinal > state.generations:
                later.append(news)
            elif state.is_generating and news.ordinal == state.generations:
                for event in live.events(news, reader.fold.start, state):
                    self._out.put_nowait(event)
        live.held = later


def _end(reader: RunReader, closed: str, at: int) -> list[EndedOutside]:
    """The end of a run, where no event tells of it."""
    if reader.fold is None or reader.fold.state.result is not None:
        return []
    return [EndedOutside(reader.fold.state.checkpoint.run_id, closed, at)]


def _stderr_event(said: SkillSaid, state: RunState) -> SkillStderr:
    run_id = state.checkpoint.run_id
    return SkillStderr(
        id=cuid_from("live", run_id, said.skill_name, said.seq),
        job_id=state.checkpoint.job_id,
        run_id=run_id,
        timestamp=time.time_ns() // 1_000_000,
        skill_name=said.skill_name,
        message=said.message,
    )


class _LiveText:
    """Turns the deltas of one run into streaming events; the completing ones come from history."""

    def __init__(self) -> None:
        self.held: list[LiveNews] = []
        self.shown_retries: set[str] = set()
        """Ids of `retry` events shown before history told of them; provisional until it does."""
        self._begun: set[tuple[int, int, DeltaKind]] = set()

    def events(self, news: Delta | FailedAttempts, start: RunInput, state: RunState) -> list[Event]:
        """What is shown of a piece of news, at most once."""
        if isinstance(news, Delta):
            return self._text(news, start, state)
        return self._retries(news, state)

    def _retries(self, failed: FailedAttempts, state: RunState) -> list[Event]:
        fresh = [event for event in retries_so_far(state, failed.attempts) if event.id not in self.shown_retries]
        self.shown_retries.update(event.id for event in fresh)
        return fresh

    def _text(self, delta: Delta, start: RunInput, state: RunState) -> list[Event]:
        base = {
            "expert_key": start.expert_key,
            "job_id": start.job_id,
            "run_id": state.checkpoint.run_id,
            "step_number": state.checkpoint.step_number,
            "timestamp": time.time_ns() // 1_000_000,
        }
        name = ("live", state.checkpoint.run_id, delta.ordinal, delta.begun_at, delta.kind)
        events: list[Event] = []
        key = (delta.ordinal, delta.begun_at, delta.kind)
        is_reasoning = delta.kind == "reasoning"
        if key not in self._begun:
            self._begun.add(key)
            begin = StartStreamingReasoning if is_reasoning else StartStreamingRunResult
            events.append(begin(id=cuid_from(*name), **base))  # pyright: ignore[reportArgumentType]
        piece = StreamReasoning if is_reasoning else StreamRunResult
        # By place and length: pieces that another reader cut elsewhere have other ids, the same piece has the same.
        event_id = cuid_from(*name, delta.offset, len(delta.text))
        events.append(piece(id=event_id, delta=delta.text, **base))  # pyright: ignore[reportArgumentType]
        return events
