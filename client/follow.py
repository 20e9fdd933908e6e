"""One job as one stream of events: every execution's fold, live deltas between, parents after their children."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from temporalio.client import Client

from ..core.cassette import Cassette
from ..core.checkpoint import Job, job_status
from ..core.deltas import Delta, FailedAttempts, LiveNews, SkillSaid
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
from ..core.machine import retries_so_far
from ..core.run import RunInput
from ..core.state import RunState, State
from ..core.tools import ToolCall
from .history import Execution, RunReader, ended_child_id, history_events


class DeltaSource(Protocol):
    """Where live deltas come from; the in-process feed is one."""

    def subscribe(self, subscriber: Callable[[LiveNews], None]) -> Callable[[], None]:
        """Hand every delta to `subscriber` until the returned function is called."""
        ...


class JobFollower:
    """Reads a job: the root's execution and every delegate's, each once, in causal order."""

    def __init__(
        self,
        client: Client,
        root: Execution,
        *,
        wait: bool = True,
        deltas: DeltaSource | None = None,
        is_recording: bool = False,
    ) -> None:
        self._client = client
        self._root = root
        self._wait = wait
        self._deltas = deltas
        self._is_recording = is_recording
        self._out: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._live: dict[str, _LiveText] = {}
        self.readers: dict[str, RunReader] = {}
        """By workflow id, the root's first; complete once `events` has ended."""

    @property
    def root(self) -> RunReader:
        """The fold of the root run."""
        return self.readers[self._root.workflow_id]

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

        Usage is the root's, which includes every delegate that reported, and that of every run nobody heard of again.
        """
        fold = self.root.fold
        assert fold is not None, "a job is read before it is described"
        checkpoint = fold.state.checkpoint
        usage = checkpoint.usage
        for workflow_id, reader in self.readers.items():
            if workflow_id != self._root.workflow_id and reader.fold and not reader.has_reported:
                usage = usage + reader.fold.state.checkpoint.usage
        status = job_status(checkpoint.status)
        return Job(
            id=fold.start.job_id,
            status=status,
            coordinator_expert_key=fold.start.expert_key,
            total_steps=checkpoint.step_number,
            max_steps=fold.start.settings.limits.max_steps,
            usage=usage,
            started_at=self.root.started_at,
            finished_at=None if status in ("running", "stoppedByInteractiveTool") else self.root.ended_at,
        )

    def cassette(self) -> Cassette:
        """Every model call of the job; read with `is_recording`."""
        fold = self.root.fold
        assert fold is not None, "a job is read before it is recorded"
        entries = [entry for reader in self.readers.values() for entry in reader.recorded]
        return Cassette(
            query=fold.start.query,
            expert_key=fold.start.expert_key,
            workspace=fold.start.settings.workspace,
            entries=tuple(sorted(entries, key=lambda entry: (len(entry.path), entry.path, entry.ordinal))),
        )

    async def events(self) -> AsyncIterator[Event]:
        """Every event of the job; ends when the root's execution is closed, or at its present end without `wait`."""
        unsubscribe = self._deltas.subscribe(self._take_news) if self._deltas else None
        self._follow(self._root)
        self._tasks[self._root.workflow_id].add_done_callback(self._root_ended)
        try:
            while (item := await self._out.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            if unsubscribe:
                unsubscribe()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _root_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        self._out.put_nowait(error)

    def _follow(self, execution: Execution) -> None:
        workflow_id = execution.workflow_id
        self.readers[workflow_id] = RunReader(self._client.data_converter, is_recording=self._is_recording)
        self._live.setdefault(workflow_id, _LiveText())
        self._tasks[workflow_id] = asyncio.create_task(self._read(execution))

    async def _read(self, execution: Execution) -> None:
        reader = self.readers[execution.workflow_id]
        children: list[str] = []
        async for history_event in history_events(self._client, execution, wait=self._wait):
            ended = ended_child_id(history_event)
            if ended in self._tasks:
                await asyncio.shield(self._tasks[ended])
            shown = self._live[execution.workflow_id].shown_retries
            for event in await reader.feed(history_event):
                if not (isinstance(event, Retry) and event.id in shown):
                    self._out.put_nowait(event)
            if reader.started_child is not None:
                children.append(reader.started_child.workflow_id)
                self._follow(reader.started_child)
            self._flush_deltas(execution.workflow_id)
        if not self._wait:
            await asyncio.gather(*(self._tasks[child] for child in children))

    def _take_news(self, news: LiveNews) -> None:
        self._live.setdefault(news.workflow_id, _LiveText()).held.append(news)
        self._flush_deltas(news.workflow_id)

    def _flush_deltas(self, workflow_id: str) -> None:
        """Pass on what belongs to the generation now open; drop what history has overtaken."""
        live = self._live[workflow_id]
        reader = self.readers.get(workflow_id)
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
        self._begun: set[tuple[int, int, str]] = set()

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
        name = ("live", state.checkpoint.run_id, delta.ordinal, delta.attempt)
        events: list[Event] = []
        key = (delta.ordinal, delta.attempt, delta.kind)
        is_reasoning = delta.kind == "reasoning"
        if key not in self._begun:
            self._begun.add(key)
            begin = StartStreamingReasoning if is_reasoning else StartStreamingRunResult
            events.append(begin(id=cuid_from(*name, delta.kind), **base))  # pyright: ignore[reportArgumentType]
        piece = StreamReasoning if is_reasoning else StreamRunResult
        events.append(piece(id=cuid_from(*name, delta.seq), delta=delta.text, **base))  # pyright: ignore[reportArgumentType]
        return events
