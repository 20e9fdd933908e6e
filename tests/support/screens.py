"""Screens as tests look at them: their lines, and waiting until they are what they become."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.backend import JobChoice
from perstack.cli.tui.widgets.rows import RowList
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import Static

from .deepest import BEGUN_AT
from .scripted_backend import ScriptedBackend, ScriptedJob, story_events

LONGEST_SECONDS = 20.0
NOW = BEGUN_AT / 1000 + 12 * 3600
"""Noon of the day on which the deepest job began."""
STATUSES = ("running", "waiting", "completed", "stoppedByError", "stoppedByMaxSteps", "stoppedByCancellation")
_EXPERTS = ("game-dev", "@ship/build", "researcher")
_QUERIES = (
    "Build a small game for the terminal, with levels, and test it until it runs without a mistake",
    "Which papers of this year measured how long agents go on without a person?",
    "Ship release 2.1",
)


def jobs(count: int) -> list[JobChoice]:
    """Jobs of all kinds, two of them open, the youngest first."""
    made: list[JobChoice] = []
    for at in range(count):
        began = datetime.fromtimestamp(NOW, UTC) - timedelta(minutes=7 + 97 * at)
        made.append(
            JobChoice(
                job_id=f"job-{at:04}",
                status=STATUSES[at if at < 2 else 2 + (at - 2) % 4],
                expert_key=_EXPERTS[at % 3],
                query=_QUERIES[at % 3],
                started_at=began,
                closed_at=None if at < 2 else began + timedelta(seconds=40 + at),
                steps=at % 40,
                tokens=at * 1_234,
            )
        )
    return made


def app_of(
    screen: Screen[Any],
    *,
    story: str = "deepest",
    listed: Sequence[JobChoice] = (),
    backend: ScriptedBackend | None = None,
) -> PerstackApp:
    """The application with a screen, at noon; every job that is listed plays a story."""
    if backend is None:
        job = ScriptedJob(items=story_events(story), job_id="deepest")
        backend = ScriptedBackend(listed=listed, known={job.job_id: job, **{one.job_id: job for one in listed}})
    return PerstackApp(backend, screen, clock=lambda: NOW)


def lines(app: PerstackApp) -> list[str]:
    """The lines of the list that is shown."""
    shown = app.screen.query_one(RowList)
    return [shown.render_line(at).text.rstrip() for at in range(shown.size.height)]


def cursor_line(app: PerstackApp) -> str:
    """The line that the cursor stands on."""
    return next((line for line in lines(app) if line.startswith("›")), "")


def said(app: PerstackApp, selector: str) -> str:
    """What a line of text says; nothing while it is not there."""
    shown = app.screen.query_one(selector, Static)
    return str(shown.content) if shown.display else ""


async def settled(pilot: Pilot[int], condition: Callable[[], bool]) -> None:
    """Wait until the screens are what a test waits for."""
    async with asyncio.timeout(LONGEST_SECONDS):
        await pilot.pause()
        while not condition():
            await pilot.pause(0.01)
