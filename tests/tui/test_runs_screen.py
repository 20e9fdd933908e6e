"""A job as the graph of its runs: drawn while it is read, and the way to the steps and the log behind each."""

from collections.abc import Sequence
from decimal import Decimal

import pytest
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.backend import Ended, Stop
from perstack.cli.tui.screens.base import problem_text
from perstack.cli.tui.screens.jobs import JobsScreen
from perstack.cli.tui.screens.log import LogScreen
from perstack.cli.tui.screens.runs import RunsScreen
from perstack.cli.tui.screens.steps import StepsScreen
from perstack.core.failures import ServerError
from support.screens import app_of, cursor_line, jobs, lines, said, settled
from support.scripted_backend import Asked, Item, ScriptedBackend, ScriptedJob, held_before, story_events
from textual.pilot import Pilot

GONE = ServerError("localhost:7233 cannot be reached any more.")
PRICES = {model: Decimal(3) for model in ("claude-opus-5-5", "claude-sonnet-5-5")}


def reading(items: Sequence[Item] | None = None) -> tuple[PerstackApp, ScriptedJob]:
    """The runs of a job, and the job; without items the deepest one."""
    job = ScriptedJob(items=story_events("deepest") if items is None else items, job_id="deepest", is_live=False)
    job.prices = PRICES
    backend = ScriptedBackend(known={"deepest": job})
    return app_of(RunsScreen(job), backend=backend), job


async def read(pilot: Pilot[int]) -> PerstackApp:
    """The application, once all is read."""
    app = pilot.app
    assert isinstance(app, PerstackApp)
    await settled(pilot, lambda: bool(lines(app)[0]) and said(app, "#notice") != "reading…")
    return app


def names(app: PerstackApp) -> list[str]:
    return [line[2:] for line in lines(app) if line]


@pytest.mark.requirement("interface.tui")
async def test_the_runs_of_the_deepest_job_stand_in_their_lanes() -> None:
    app, _ = reading()
    async with app.run_test(size=(140, 45)) as pilot:
        await read(pilot)
        shown = names(app)
        assert shown[0].startswith("⎇                 ship")
        assert shown[1] == "| \\ \\       \\ \\ \\"
        assert [line.split("@ship/scan")[0] for line in shown if "@ship/scan" in line] == ["| | | |   | | | ✗ "]
        assert sum("(resumed)" in line for line in shown) >= 4
        assert shown[-1].startswith("⏸                 ship (resumed)")
        assert "All tests pass, the slow ones too." in shown[-1]


async def test_the_header_says_how_the_job_stands_and_what_it_cost_as_far_as_prices_are_known() -> None:
    app, _ = reading()
    async with app.run_test(size=(160, 45)) as pilot:
        await read(pilot)
        await settled(pilot, lambda: "$" in said(app, "#title"))
        first, second = said(app, "#title").splitlines()
        assert first == "ship  deepest  ⏸ Asks you"
        assert second == "13 runs · 598.5k in · 7.9k out · about $1.67 without claude-haiku-5-5 · 350.5k cached"


async def test_a_job_is_there_at_once_and_grows_while_it_is_read() -> None:
    app, job = reading(held_before("startRun", story_events("deepest"), count=4))
    async with app.run_test(size=(100, 45)) as pilot:
        assert said(app, "#title").startswith("deepest")
        assert said(app, "#notice") == "reading…"
        await settled(pilot, lambda: len(names(app)) >= 3)
        assert "@ship/docs" not in " ".join(names(app))
        assert said(app, "#notice") == "reading…"
        await pilot.press("down")
        assert "@ship/plan" in cursor_line(app)
        await job.release()
        await read(pilot)
        assert "@ship/docs" in " ".join(names(app))
        assert "@ship/plan" in cursor_line(app)


async def test_the_cursor_passes_the_lines_that_are_only_lanes() -> None:
    app, _ = reading()
    async with app.run_test(size=(100, 45)) as pilot:
        await read(pilot)
        seen: list[str] = []
        for _ in names(app):
            seen.append(cursor_line(app))
            await pilot.press("j")
        assert all("ship" in line for line in seen)
        assert len(set(seen)) == sum("ship" in line and "checkpoint" not in line for line in names(app))


async def test_enter_on_a_resumed_run_leads_to_the_step_that_it_went_on_with() -> None:
    app, _ = reading()
    async with app.run_test(size=(100, 45)) as pilot:
        await read(pilot)
        await pilot.press("slash", *"build resumed", "enter")
        await settled(pilot, lambda: isinstance(app.screen, StepsScreen))
        await settled(pilot, lambda: "results of compile, pack" in cursor_line(app))
        await pilot.press("b")
        await settled(pilot, lambda: isinstance(app.screen, RunsScreen))


async def test_the_activity_log_of_the_job_is_a_key_away_and_nothing_is_done_to_the_job() -> None:
    app, job = reading()
    async with app.run_test(size=(100, 45)) as pilot:
        await read(pilot)
        await pilot.press("o")
        await settled(pilot, lambda: isinstance(app.screen, LogScreen) and len(app.screen.view.runs) == 13)
        await pilot.press("c", "d", "r", "a")
        await pilot.pause()
        assert isinstance(app.screen, LogScreen)
        await pilot.press("b")
        await settled(pilot, lambda: isinstance(app.screen, RunsScreen))
        assert set(job.calls) <= {"close"}


async def test_a_log_is_left_with_success_however_the_job_ended() -> None:
    app, _ = reading([*story_events("error"), Stop("stoppedByError", "invalid x-api-key")])
    async with app.run_test(size=(100, 45)) as pilot:
        await read(pilot)
        await pilot.press("o")
        await settled(pilot, lambda: isinstance(app.screen, LogScreen))
        await pilot.press("q")
        await pilot.pause()
    assert app.return_code == 0


async def test_what_could_not_be_read_is_said_below_what_could() -> None:
    app, _ = reading([*story_events("chain")[:12], GONE])
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot, lambda: said(app, "#notice") == problem_text(GONE))
        assert "top" in cursor_line(app)


async def test_r_reads_an_open_job_again_and_the_cursor_keeps_its_run() -> None:
    events = story_events("parallel")
    app, job = reading(events[:-3])
    async with app.run_test(size=(100, 30)) as pilot:
        await read(pilot)
        await pilot.press("down", "down")
        assert "@team/b" in cursor_line(app)
        before = len(names(app))
        backend = app.backend
        assert isinstance(backend, ScriptedBackend)
        fresh = ScriptedJob(items=held_before("resumeFromStop", events), job_id="deepest")
        backend.known = {"deepest": fresh}
        await pilot.press("r")
        await fresh.until_told()
        assert "@team/b" in cursor_line(app)
        assert said(app, "#notice") == "reading…"
        await fresh.release()
        await settled(pilot, lambda: said(app, "#notice") == "")
        assert len(names(app)) == before
        assert "✓ team (resumed)" in " ".join(" ".join(names(app)).split())
        assert "@team/b" in cursor_line(app)
        assert backend.asked[-1] == Asked("read", ("deepest",))
        assert job.calls == ["close"]


async def test_a_job_that_cannot_be_read_again_says_why_and_stays() -> None:
    app, job = reading(story_events("chain"))
    async with app.run_test(size=(100, 30)) as pilot:
        await read(pilot)
        backend = app.backend
        assert isinstance(backend, ScriptedBackend)
        backend.refusals["read"] = GONE
        await pilot.press("r")
        await settled(pilot, lambda: said(app, "#notice") == problem_text(GONE))
        assert "top" in cursor_line(app)
        assert job.calls == []


async def test_a_run_that_was_ended_from_outside_is_marked() -> None:
    events = story_events("chain")[:4]
    app, _ = reading([*events, Ended("job-run", "terminated", 99_000)])
    async with app.run_test(size=(100, 30)) as pilot:
        await read(pilot)
        assert "✗ top" in cursor_line(app)
        assert "terminated from outside" in cursor_line(app)


async def test_a_job_without_a_run_says_so() -> None:
    app, _ = reading([])
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot, lambda: said(app, "#notice") == "It has no run yet.")
        await pilot.press("enter", "y", "down")
        assert isinstance(app.screen, RunsScreen)


@pytest.mark.parametrize("size", [(40, 20), (80, 24), (200, 50)])
async def test_the_graph_fits_every_terminal_and_a_resize_keeps_the_cursor(size: tuple[int, int]) -> None:
    app, _ = reading()
    async with app.run_test(size=(120, 40)) as pilot:
        await read(pilot)
        await pilot.press(*["down"] * 6)
        at = said(app, "#details")
        await pilot.resize_terminal(*size)
        await pilot.pause()
        assert said(app, "#details") == at
        assert cursor_line(app)
        assert all(len(line) <= size[0] for line in lines(app))


async def test_leaving_the_runs_closes_the_job_and_returns_to_the_jobs() -> None:
    listed = jobs(2)
    job = ScriptedJob(items=story_events("chain"), job_id=listed[0].job_id)
    backend = ScriptedBackend(listed=listed, known={job.job_id: job})
    app = app_of(JobsScreen("log"), backend=backend)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot, lambda: bool(cursor_line(app)))
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.press("b")
        await settled(pilot, lambda: isinstance(app.screen, JobsScreen))
        await settled(pilot, lambda: job.calls == ["close"])
