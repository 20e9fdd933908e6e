"""Drills: what is done to a job at random points, how a point is repeated, and the table of what came of it."""

import asyncio
import random
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.lab import Lab, not_served
from perstack.client.embedded import stop_server
from perstack.client.locations import DataFolder
from support.model_server import ModelServer, Request

POINTS_OF_THREE = 7
"""Of a drill that is one of three of a kind: twenty-one in all."""


@dataclass
class Report:
    """What one point tells when all of it held."""

    where: str
    """What was done and when, for people."""
    seconds: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """Times that were measured, by name."""
    counts: Counter[str] = field(default_factory=Counter[str])
    """What happened how often, by name."""


@dataclass(frozen=True)
class Limit:
    """What a measured time must keep, over all points of a drill."""

    seconds: float
    percentile: int = 100


@dataclass(frozen=True)
class Drill:
    """One thing that is done to jobs."""

    name: str
    holds: str
    """What must hold, in the words of the table."""
    play: Callable[[Lab, random.Random], Awaitable[Report]]
    """Plays one point; raises `AssertionError` where something did not hold."""
    short: Callable[[Lab, random.Random], Awaitable[Report]] | None = None
    """Plays a point in less time, where that is another thing."""
    points: int = 20
    alone: int = 0
    """How many points are played at a time where times are measured, so that no other drill may be played beside it; 0
    where that does not matter."""
    limits: Mapping[str, Limit] = field(default_factory=dict[str, Limit])
    has_own_server: bool = False
    """Whether each point needs a server to itself."""
    is_long: bool = False
    """Left out of the short form."""
    is_idle: bool = False
    """Mostly waits, so it takes no turn from the others."""


class PointFailed(Exception):
    """A point did not hold; the message says how to repeat it."""


@dataclass(frozen=True)
class Ground:
    """Where drills are played."""

    folder: Path
    temporal: Path
    seed: int

    def chance(self, drill: Drill, point: int) -> random.Random:
        """The dice of one point: the same for the same seed, whatever else is played."""
        return random.Random(f"{self.seed}:{drill.name}:{point}")

    async def play(self, drill: Drill, point: int, data: DataFolder | None = None, *, is_short: bool = False) -> Report:
        """Play one point, on the server of `data` unless the drill wants its own.

        Raises:
            PointFailed: something did not hold, with what is needed to see it again.
        """
        folder = Path(tempfile.mkdtemp(prefix=f"{drill.name}-{point}-", dir=self.folder))
        own = None if data is not None and not drill.has_own_server else DataFolder(folder / "data")
        try:
            async with _model() as (model, listeners):
                lab = Lab(folder, own or data or DataFolder(folder / "data"), self.temporal, model)
                listeners.append(lab.note)
                try:
                    play = drill.short if is_short and drill.short is not None else drill.play
                    report = await play(lab, self.chance(drill, point))
                    await lab.settle()
                except Exception as error:
                    raise PointFailed(self._failure(drill, point, lab, error)) from error
        finally:
            if own is not None:
                await asyncio.shield(stop_server(own))
            shutil.rmtree(folder, ignore_errors=True)
        return report

    def _failure(self, drill: Drill, point: int, lab: Lab, error: Exception) -> str:
        shown = traceback.format_exception(error) if not str(error) else traceback.format_exception_only(error)
        what = "".join(shown).rstrip()
        again = f"make chaos SEED={self.seed} DRILL={drill.name} POINT={point}"
        return f"{drill.name}: {drill.holds}\n{what}\n{lab.story()}\nto see it again: {again}"


@asynccontextmanager
async def _model() -> AsyncGenerator[tuple[ModelServer, list[Callable[[Request], None]]]]:
    listeners: list[Callable[[Request], None]] = []

    def told(request: Request) -> None:
        for listener in listeners:
            listener(request)

    async with ModelServer(not_served, on_request=told) as model:
        yield model, listeners


@dataclass
class Outcome:
    """All points of one drill."""

    drill: Drill
    reports: dict[int, Report] = field(default_factory=dict[int, Report])
    failures: dict[int, str] = field(default_factory=dict[int, str])

    @property
    def times(self) -> dict[str, list[float]]:
        """Every measured time of all points, sorted."""
        names = {name: None for report in self.reports.values() for name in report.seconds}
        return {
            name: sorted(value for report in self.reports.values() for value in report.seconds.get(name, ()))
            for name in names
        }

    @property
    def counts(self) -> Counter[str]:
        """What happened how often, in all points."""
        return sum((report.counts for report in self.reports.values()), Counter[str]())

    @property
    def broken_limits(self) -> list[str]:
        """The limits that were not kept."""
        times = self.times
        return [
            f"{name}: {percentile(times[name], limit.percentile):.2f} s, allowed are {limit.seconds:g} s"
            for name, limit in self.drill.limits.items()
            if name in times and percentile(times[name], limit.percentile) > limit.seconds
        ]

    @property
    def holds(self) -> bool:
        """Whether everything held."""
        return not self.failures and not self.broken_limits

    def row(self) -> str:
        """The drill's line of the table."""
        shown = [f"{name} {_spread(values)}" for name, values in self.times.items() if values]
        shown.extend(f"{count} × {name}" for name, count in self.counts.items())
        held = f"{len(self.reports)} of {len(self.reports) + len(self.failures)}"
        return f"| {self.drill.name} | {self.drill.holds} | {held} | {'; '.join(shown) or '–'} |"


def percentile(values: list[float], percent: int) -> float:
    """The smallest of the sorted values that so many percent do not exceed."""
    return values[max(0, -(-len(values) * percent // 100) - 1)]


def _spread(values: list[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f} s"
    return f"p50 {percentile(values, 50):.2f} s, p95 {percentile(values, 95):.2f} s, max {values[-1]:.2f} s"


async def play_all(
    ground: Ground, drill: Drill, points: list[int], *, turn: asyncio.Semaphore, told: Callable[[str], None]
) -> Outcome:
    """Play points of a drill, each at its `turn`, on one server unless each wants its own."""
    outcome = Outcome(drill)
    data = DataFolder(ground.folder / f"{drill.name}-data")

    async def one(point: int) -> None:
        async with turn:
            begun = time.monotonic()
            try:
                report = await ground.play(drill, point, data)
            except PointFailed as failure:
                outcome.failures[point] = str(failure)
                told(f"FAILED {drill.name} {point} after {time.monotonic() - begun:.1f} s\n{failure}")
            else:
                outcome.reports[point] = report
                told(f"{drill.name} {point}: {report.where} ({time.monotonic() - begun:.1f} s)")

    try:
        await asyncio.gather(*(one(point) for point in points))
    finally:
        await asyncio.shield(stop_server(data))
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """What came of all drills, in Markdown."""
    head = ("| drill | must hold | points that held | seen |", "|---|---|---|---|")
    return "\n".join((*head, *(outcome.row() for outcome in outcomes)))
