"""From a job back to the list that it was opened from, and what becomes of the job."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.backend import Stop
from perstack.cli.tui.screens.experts import ExpertsScreen
from perstack.cli.tui.screens.jobs import JobsScreen
from perstack.cli.tui.screens.picking import experts
from perstack.cli.tui.screens.run import RunScreen
from perstack.core.failures import PerstackError
from support.screens import jobs, settled
from support.scripted_backend import Asked, ScriptedBackend, ScriptedJob
from support.shown_jobs import asking, game
from support.watching import Clock, picture, watched
from textual.pilot import Pilot

AT_WORK = game()[:50]
WAITS = Stop("stoppedByInteractiveTool")


@asynccontextmanager
async def opened(job: ScriptedJob) -> AsyncGenerator[tuple[Pilot[int], PerstackApp, ScriptedBackend]]:
    """A job that a person has opened from the list of jobs."""
    listed = jobs(3)
    backend = ScriptedBackend(listed=listed, known={listed[0].job_id: job})
    app = PerstackApp(backend, JobsScreen("start"), clock=Clock())
    app.animation_level = "none"
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await settled(pilot, lambda: "running" in picture(app))
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, RunScreen) and "Query:" in picture(app))
        yield pilot, app, backend


async def until_back(pilot: Pilot[int], app: PerstackApp) -> None:
    await settled(pilot, lambda: isinstance(app.screen, JobsScreen))
    assert app.return_value is None


@pytest.mark.requirement("interface.tui")
@pytest.mark.parametrize(
    ("choice", "calls"),
    [("enter", ["close"]), ("p", ["close"]), ("d", ["detach", "close"]), ("c", ["cancel", "close"])],
)
async def test_one_goes_back_from_a_job_that_works_here_the_way_one_says(choice: str, calls: list[str]) -> None:
    job = ScriptedJob(AT_WORK)
    async with opened(job) as (pilot, app, backend):
        assert "b:Back" in picture(app)
        await pilot.press("b")
        await settled(pilot, lambda: "Park it and go back" in picture(app) and "Enter chooses" in picture(app))
        assert "when you open it again" in picture(app)
        listed = backend.calls.count("jobs")
        await pilot.press(choice)
        await until_back(pilot, app)
        assert job.calls == calls
        # The list is read anew: the job may stand otherwise now.
        await settled(pilot, lambda: backend.calls.count("jobs") > listed)
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, RunScreen))
        assert backend.calls.count("open") == 2


@pytest.mark.parametrize("key", ["escape", "s"])
async def test_one_can_stay_with_the_job_after_all(key: str) -> None:
    job = ScriptedJob(AT_WORK)
    async with opened(job) as (pilot, app, _):
        await pilot.press("b")
        await settled(pilot, lambda: "Enter chooses" in picture(app))
        await pilot.press(key)
        await settled(pilot, lambda: isinstance(app.screen, RunScreen))
        assert job.asked == []
        await pilot.press("b")
        await settled(pilot, lambda: "Park it and go back" in picture(app))


@pytest.mark.parametrize(
    "job",
    [
        ScriptedJob(AT_WORK, is_ours=False),
        ScriptedJob([*asking(), WAITS]),
        ScriptedJob([*game(), Stop("completed")]),
    ],
    ids=["works elsewhere", "asks", "completed"],
)
async def test_from_a_job_that_loses_nothing_one_goes_back_at_once(job: ScriptedJob) -> None:
    async with opened(job) as (pilot, app, _):
        screen = app.screen
        assert isinstance(screen, RunScreen)
        await settled(pilot, lambda: not job.is_ours or "Enter:Send" in picture(app))
        await pilot.press("escape", "b")
        await until_back(pilot, app)
        assert job.calls == ["close"]


async def test_a_job_that_cannot_be_detached_is_not_left() -> None:
    job = ScriptedJob(AT_WORK, refusals={"detach": PerstackError("No server outlives this process.")})
    async with opened(job) as (pilot, app, _):
        await pilot.press("b")
        await settled(pilot, lambda: "Enter chooses" in picture(app))
        await pilot.press("d")
        await settled(pilot, lambda: "No server outlives this process." in picture(app))
        assert isinstance(app.screen, RunScreen)
        del job.refusals["detach"]
        await pilot.press("b")
        await settled(pilot, lambda: "Enter chooses" in picture(app))
        await pilot.press("d")
        await until_back(pilot, app)


async def test_help_that_is_open_when_the_job_is_closed_is_closed_too() -> None:
    job = ScriptedJob(AT_WORK, is_ours=False, slow={"close": "closed"})
    async with opened(job) as (pilot, app, _):
        await pilot.press("b")
        await settled(pilot, lambda: job.calls == ["close"])
        await pilot.press("b", "question_mark")
        await settled(pilot, lambda: not isinstance(app.screen, RunScreen))
        await job.release("closed")
        await until_back(pilot, app)
        assert job.calls == ["close"]


async def test_a_job_that_was_begun_from_the_experts_leads_back_to_them() -> None:
    backend = ScriptedBackend(next_job=ScriptedJob(AT_WORK, is_ours=False))
    app = PerstackApp(backend, experts(), clock=Clock())
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot, lambda: "game-dev" in picture(app))
        await pilot.press("enter")
        await settled(pilot, lambda: "What shall be done?" in picture(app))
        await pilot.press("g", "o", "enter")
        await settled(pilot, lambda: isinstance(app.screen, RunScreen))
        assert backend.asked[-1] == Asked("start", ("game-dev", "go"))
        await settled(pilot, lambda: "b:Back" in picture(app))
        await pilot.press("b")
        await settled(pilot, lambda: isinstance(app.screen, ExpertsScreen))


async def test_the_first_screen_has_no_way_back() -> None:
    job = ScriptedJob(AT_WORK)
    async with watched(job) as watch:
        await watch.until_shown("q:Leave")
        assert "b:Back" not in watch.picture
        await watch.press("b", "f")
        await watch.until(lambda: watch.screen.query_one("RunTree").has_focus)
        assert (job.asked, watch.app.screen) == ([], watch.screen)
