"""The README's pictures: what the screens show of a recorded job.

`pytest tests/tui/test_pictures.py --update-goldens` draws them anew; look at them before you commit them.
"""

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

from perstack.cli.backend import ExportBackend
from perstack.cli.read_job import ReadJob
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.backend import Ended, Stop
from perstack.cli.tui.screens.run import RunScreen
from perstack.cli.tui.screens.runs import RunsScreen
from perstack.client.exports import ExportedJob
from perstack.core.events import Event
from perstack.core.view_state import ViewState
from support.screens import settled
from support.watching import picture

TESTS = Path(__file__).parents[1]
RECORDING = TESTS / "golden" / "histories" / "deepest.json.gz"
PICTURES = TESTS.parent / "docs" / "pictures"
SIZE = (110, 38)
_WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""A picture in a page may load no font from elsewhere."""


class AtWork:
    """A recorded job as it stood when most of its runs were open: whoever follows it hears no more."""

    def __init__(self, job: ReadJob, events: list[Event]) -> None:
        self._events = events
        self.job_id, self.link, self.provider, self.is_ours = job.job_id, job.link, job.provider, True
        self.cost = job.cost
        self.respond, self.go_on, self.resume = job.respond, job.go_on, job.resume
        self.cancel, self.detach, self.close = job.cancel, job.detach, job.close

    async def events(self) -> AsyncIterator[Event | Ended | Stop]:
        for event in self._events:
            yield event


async def test_the_first_picture_is_a_recorded_job_at_work(is_updating_goldens: bool) -> None:
    backend = ExportBackend(ExportedJob.from_bytes(gzip.decompress(RECORDING.read_bytes())), RECORDING.name)
    job = await backend.read(backend.job_id)
    told = [item async for item in job.events() if not isinstance(item, Ended | Stop)]
    # Runs that worked at once are read in any order; in the order of their times they are as they were watched.
    told.sort(key=lambda event: event.timestamp)
    open_runs, view = list[int](), ViewState()
    for event in told:
        view.feed(event)
        open_runs.append(sum(not run.has_ended for run in view.runs))
    busiest = len(open_runs) - open_runs[::-1].index(max(open_runs))
    handle = AtWork(job, told[:busiest])
    now = told[busiest - 1].timestamp / 1000
    app = PerstackApp(backend, RunScreen(handle), clock=lambda: now)
    await _require_picture(app, "start", is_updating_goldens, "running", "about $", "└")


async def test_the_second_picture_is_the_graph_of_a_recorded_job(is_updating_goldens: bool) -> None:
    backend = ExportBackend(ExportedJob.from_bytes(gzip.decompress(RECORDING.read_bytes())), RECORDING.name)
    job = await backend.read(backend.job_id)
    app = PerstackApp(backend, RunsScreen(job), clock=lambda: 0.0)
    await _require_picture(app, "log", is_updating_goldens, "about $", "(resumed)", "waits for a person")


async def _require_picture(app: PerstackApp, name: str, is_updating: bool, *signs: str) -> None:
    app.animation_level = "none"
    async with app.run_test(size=SIZE) as pilot:
        await settled(pilot, lambda: all(sign in picture(app) for sign in signs) and "reading" not in picture(app))
        drawn = _WEB_FONT.sub("", app.export_screenshot(title=f"perstack {name}"))
    path = PICTURES / f"{name}.svg"
    if is_updating:
        path.parent.mkdir(exist_ok=True)
        path.write_text(drawn)
    assert path.read_text() == drawn, "the picture is of an earlier screen: draw it anew with --update-goldens"
