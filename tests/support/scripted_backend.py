"""The world behind the screens, scripted: jobs that play lists of events, hold, fail, and remember what was asked."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from perstack.cli.tui.backend import Ended, ExpertChoice, JobChoice, Stop
from perstack.core.events import (
    Event,
    RunBase,
    StartStreamingReasoning,
    StartStreamingRunResult,
    StreamReasoning,
    StreamRunResult,
    event_adapter,
)
from perstack.core.failures import PerstackError, UsageError
from perstack.core.usage import Usage

from .stories import STORIES

GOLDEN = Path(__file__).parents[1] / "golden"
LONGEST_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Hold:
    """The events go on only when `ScriptedJob.release` was called with this name, or the method of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One thing that a screen asked for."""

    method: str
    arguments: tuple[Any, ...] = ()


Item = Event | Ended | Stop | Hold | Exception
"""What a job plays; an exception is raised in the place of an event, and ends the events."""


def golden_events(name: str) -> list[Event]:
    """The events of a golden transcript."""
    lines = (GOLDEN / f"{name}.jsonl").read_text("utf-8").splitlines()
    return [event_adapter.validate_json(line) for line in lines]


def story_events(name: str) -> list[Event]:
    """The events of a story, played now."""
    return list(STORIES[name]().events)


def held_before(event_type: str, events: Iterable[Event], *, count: int = 1, name: str = "here") -> list[Item]:
    """The events with a hold before the `count`-th of a type."""
    items: list[Item] = []
    for event in events:
        count -= event.type == event_type
        if event.type == event_type and count == 0:
            items.append(Hold(name))
        items.append(event)
    assert count <= 0, f"there are not that many {event_type}"
    return items


def held_after(event_type: str, events: Iterable[Event], *, count: int = 1, name: str = "here") -> list[Item]:
    """The events with a hold behind the `count`-th of a type."""
    items: list[Item] = []
    for event in events:
        items.append(event)
        count -= event.type == event_type
        if event.type == event_type and count == 0:
            items.append(Hold(name))
    assert count <= 0, f"there are not that many {event_type}"
    return items


def thinks(place: Event, *deltas: str, attempt: int = 1) -> list[Event]:
    """Live reasoning of the run that `place` is an event of."""
    start = StartStreamingReasoning(**_live(place, "reasoning", attempt, 0))
    fields = (_live(place, "reasoning", attempt, number) for number in range(1, len(deltas) + 1))
    return [start, *(StreamReasoning(**own, delta=text) for own, text in zip(fields, deltas, strict=True))]


def says(place: Event, *deltas: str, attempt: int = 1) -> list[Event]:
    """Live text of the run that `place` is an event of."""
    start = StartStreamingRunResult(**_live(place, "text", attempt, 0))
    fields = (_live(place, "text", attempt, number) for number in range(1, len(deltas) + 1))
    return [start, *(StreamRunResult(**own, delta=text) for own, text in zip(fields, deltas, strict=True))]


def _live(place: Event, kind: str, attempt: int, number: int) -> dict[str, Any]:
    assert isinstance(place, RunBase)
    return {
        "id": f"{place.id}-{kind}-{attempt}-{number}",
        "expert_key": place.expert_key,
        "timestamp": place.timestamp,
        "job_id": place.job_id,
        "run_id": place.run_id,
        "step_number": place.step_number,
    }


@dataclass
class ScriptedJob:
    """A job that plays its items; a follower that comes later sees all of them again up to the hold in force."""

    items: Sequence[Item] = ()
    job_id: str = "job"
    link: str | None = "http://localhost:8233/namespaces/default/workflows/job"
    provider: str = "anthropic"
    is_ours: bool = True
    is_live: bool = True
    """Whether the events stay open behind the last item, until somebody closes the job."""
    refusals: dict[str, PerstackError] = field(default_factory=dict[str, PerstackError])
    """By method; a refusal counts for every call until it is taken out."""
    prices: Mapping[str, Decimal] = field(default_factory=dict[str, Decimal])
    """Of a million tokens of any kind, by model."""
    slow: Mapping[str, str] = field(default_factory=dict[str, str])
    """By method, the name of a hold that a call waits for."""
    asked: list[Asked] = field(default_factory=list[Asked])
    told: int = 0
    """How many items the newest follower was told."""
    _released: set[str] = field(default_factory=set[str])
    _is_closed: bool = False
    _change: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def calls(self) -> list[str]:
        """The methods asked for, in order; `events` and `cost` are not among them."""
        return [one.method for one in self.asked]

    async def release(self, name: str = "here") -> None:
        """Let the events pass a hold, for good."""
        self._released.add(name)
        await self._changed()

    async def play(self, *items: Item) -> None:
        """More happens."""
        self.items = (*self.items, *items)
        await self._changed()

    async def until_told(self, count: int | None = None) -> None:
        """Wait until a follower was told `count` items, or all up to the hold in force."""
        wanted = self._limit() if count is None else count
        async with asyncio.timeout(LONGEST_SECONDS), self._change:
            await self._change.wait_for(lambda: self.told >= wanted)

    async def events(self) -> AsyncIterator[Event | Ended | Stop]:
        at = self.told = 0
        while not self._is_closed:
            while at < len(self.items) and self._is_open(item := self.items[at]):
                at = self.told = at + 1
                if isinstance(item, Exception):
                    await self._changed()
                    raise item
                if not isinstance(item, Hold):
                    yield item
            await self._changed()
            if at >= len(self.items) and not self.is_live:
                return
            async with self._change:
                await self._change.wait_for(partial(self._goes_on, at))

    def cost(self, model: str, usage: Usage) -> Decimal | None:
        price = self.prices.get(model)
        return None if price is None else price * usage.total_tokens / 1_000_000

    async def respond(self, call_id: str, text: str) -> None:
        await self._did("respond", call_id, text)

    async def go_on(self, query: str) -> None:
        await self._did("go_on", query)

    async def resume(self) -> None:
        await self._did("resume")

    async def cancel(self) -> None:
        await self._did("cancel")

    async def detach(self) -> None:
        await self._did("detach")
        self.is_ours = False

    async def close(self) -> None:
        await self._did("close")
        self._is_closed = True
        await self._changed()

    async def _did(self, method: str, *arguments: Any) -> None:
        self.asked.append(Asked(method, arguments))
        await self._changed()
        if hold := self.slow.get(method):
            async with self._change:
                await self._change.wait_for(lambda: hold in self._released)
        if refusal := self.refusals.get(method):
            raise refusal
        await self.release(method)

    async def _changed(self) -> None:
        async with self._change:
            self._change.notify_all()

    def _goes_on(self, at: int) -> bool:
        return self._is_closed or self._limit() > at

    def _is_open(self, item: Item) -> bool:
        return not isinstance(item, Hold) or item.name in self._released

    def _limit(self) -> int:
        """How many items can be told now."""
        return next((at for at, item in enumerate(self.items) if not self._is_open(item)), len(self.items))


EXPERTS = (
    ExpertChoice("game-dev", "Builds small games for the terminal", "perstack.toml"),
    ExpertChoice("researcher", "Reads papers and says what is in them", "perstack.toml"),
    ExpertChoice("create-expert", "Plans, writes and verifies teams of experts", "built-in"),
)


@dataclass
class ScriptedBackend:
    """A backend of given experts and jobs."""

    choices: Sequence[ExpertChoice] = EXPERTS
    listed: Sequence[JobChoice] = ()
    known: Mapping[str, ScriptedJob] = field(default_factory=dict[str, ScriptedJob])
    """What `open` and `read` give, by job id."""
    next_job: ScriptedJob = field(default_factory=ScriptedJob)
    """What `start` and `fork` give."""
    place: str = "localhost:7233"
    can_work: bool = True
    refusals: dict[str, PerstackError] = field(default_factory=dict[str, PerstackError])
    """By method; a refusal counts for every call until it is taken out."""
    asked: list[Asked] = field(default_factory=list[Asked])

    @property
    def calls(self) -> list[str]:
        """The methods asked for, in order."""
        return [one.method for one in self.asked]

    def experts(self) -> Sequence[ExpertChoice]:
        self._did("experts")
        return self.choices

    def built_in_experts(self) -> Sequence[ExpertChoice]:
        return [choice for choice in self.choices if choice.source == "built-in"]

    async def jobs(self, take: int) -> Sequence[JobChoice]:
        self._did("jobs", take)
        return self.listed[:take]

    async def start(self, expert_key: str, query: str) -> ScriptedJob:
        self._did("start", expert_key, query)
        return self.next_job

    async def open(self, job_id: str) -> ScriptedJob:
        self._did("open", job_id)
        return self._job(job_id)

    async def read(self, job_id: str) -> ScriptedJob:
        self._did("read", job_id)
        job = self._job(job_id)
        job.is_live = False
        return job

    async def fork(self, job_id: str, checkpoint_id: str, query: str | None, *, is_branch: bool) -> ScriptedJob:
        self._did("fork", job_id, checkpoint_id, query, is_branch)
        return self.next_job

    def _did(self, method: str, *arguments: Any) -> None:
        self.asked.append(Asked(method, arguments))
        if refusal := self.refusals.get(method):
            raise refusal

    def _job(self, job_id: str) -> ScriptedJob:
        with suppress(KeyError):
            return self.known[job_id]
        raise UsageError(f"There is no job {job_id}.")
