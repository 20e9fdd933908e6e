"""The list of jobs: what it says of each, how it is searched, that it stays up to date, where Enter leads."""

from datetime import UTC, datetime, timedelta

import pytest
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.backend import JobChoice
from perstack.cli.tui.moments import duration, moment, size, tokens
from perstack.cli.tui.screens import jobs as jobs_module
from perstack.cli.tui.screens.base import problem_text
from perstack.cli.tui.screens.jobs import JobsScreen
from perstack.cli.tui.screens.run import RunScreen
from perstack.cli.tui.screens.runs import RunsScreen
from perstack.core.failures import ServerError
from support.screens import NOW, app_of, cursor_line, jobs, lines, said, settled
from support.scripted_backend import Asked, ScriptedBackend, ScriptedJob, story_events
from textual.pilot import Pilot

GONE = ServerError("localhost:7233 cannot be reached.", hint="`perstack dev` starts a server.")


def backend_of(listed: list[JobChoice]) -> ScriptedBackend:
    known = {one.job_id: ScriptedJob(items=story_events("parallel"), job_id=one.job_id) for one in listed}
    return ScriptedBackend(listed=listed, known=known)


async def shown(pilot: Pilot[int]) -> PerstackApp:
    """The application, with its jobs on the screen."""
    app = pilot.app
    assert isinstance(app, PerstackApp)
    await settled(pilot, lambda: isinstance(app.screen, JobsScreen) and "reading" not in said(app, "#notice"))
    return app


@pytest.mark.requirement("interface.tui")
async def test_a_job_is_a_line_with_all_that_tells_it_from_others() -> None:
    async with app_of(JobsScreen("log"), listed=jobs(8)).run_test(size=(120, 30)) as pilot:
        app = await shown(pilot)
        standing = ["◦ running", "⏸ waiting", "✓ completed", "✗ failed", "✗ step limit", "✗ cancelled"]
        assert [line[2:16].strip() for line in lines(app)[:6]] == standing
        await pilot.press("down", "down", "down")
        line = cursor_line(app)
        assert line.startswith("› ✗ failed      game-dev        Build a small game for the terminal, with lev")
        assert line.endswith("…      3     3.7k  today 07:02")
        assert said(app, "#details").startswith("failed · 3 steps · 3.7k tokens · 43.0s\nBuild")
        assert said(app, "#details").endswith("\njob-0003 · today 07:02")


async def test_in_forty_columns_the_sign_the_expert_and_the_query_remain() -> None:
    async with app_of(JobsScreen("log"), listed=jobs(3)).run_test(size=(40, 20)) as pilot:
        app = await shown(pilot)
        assert cursor_line(app).split()[:3] == ["›", "◦", "game-dev"]
        assert "running" in said(app, "#details")
        assert all(len(line) <= 40 for line in lines(app))


async def test_jobs_are_found_by_expert_query_status_and_id_and_entered_at_once() -> None:
    backend = backend_of(jobs(30))
    async with app_of(JobsScreen("log"), backend=backend).run_test() as pilot:
        app = await shown(pilot)
        await pilot.press("slash", *"GAME failed")
        found = [line for line in lines(app) if line]
        assert found
        assert all("failed" in line and "game-dev" in line for line in found)
        await pilot.press(*["backspace"] * 11, *"0017", "enter")
        await settled(pilot, lambda: isinstance(app.screen, RunsScreen))
        assert backend.asked[-1] == Asked("read", ("job-0017",))
        await pilot.press("b")
        await shown(pilot)
        assert [line for line in lines(app) if line] == [cursor_line(app)]
        await pilot.press("b")
        assert len([line for line in lines(app) if line]) > 1
        assert "job-0017" in said(app, "#details")


async def test_of_start_enter_opens_the_job_to_work_on_it() -> None:
    backend = backend_of(jobs(3))
    async with app_of(JobsScreen("start"), backend=backend).run_test() as pilot:
        app = await shown(pilot)
        await pilot.press("down", "enter")
        await settled(pilot, lambda: isinstance(app.screen, RunScreen))
        assert backend.asked[-1] == Asked("open", ("job-0001",))


async def test_a_job_that_cannot_be_opened_says_why_and_the_list_stays() -> None:
    backend = backend_of(jobs(3))
    backend.refusals["open"] = GONE
    async with app_of(JobsScreen("start"), backend=backend).run_test() as pilot:
        app = await shown(pilot)
        await pilot.press("enter")
        await settled(pilot, lambda: any(GONE.message in notice.message for notice in app._notifications))  # pyright: ignore[reportPrivateUsage]
        assert isinstance(app.screen, JobsScreen)
        assert said(app, "#notice") == ""


async def test_the_list_reads_itself_anew_and_the_cursor_keeps_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_REFRESH_SECONDS", 0.02)
    backend = backend_of(jobs(5))
    async with app_of(JobsScreen("log"), backend=backend).run_test() as pilot:
        app = await shown(pilot)
        await pilot.press("down", "down")
        assert "job-0002 " in said(app, "#details")
        backend.listed = [
            *jobs(1),
            *[JobChoice(f"new-{at}", "running", "x", "q", _ago(at), None) for at in range(3)],
            *jobs(5)[1:],
        ]
        await settled(pilot, lambda: any(" x " in line for line in lines(app)))
        assert "job-0002 " in said(app, "#details")
        assert cursor_line(app) == lines(app)[5]


async def test_a_list_that_nobody_sees_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "_REFRESH_SECONDS", 0.01)
    backend = backend_of(jobs(3))
    async with app_of(JobsScreen("log"), backend=backend).run_test() as pilot:
        app = await shown(pilot)
        await settled(pilot, lambda: backend.calls.count("jobs") > 3)
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, RunsScreen))
        before = backend.calls.count("jobs")
        await pilot.pause(0.1)
        assert backend.calls.count("jobs") == before
        await pilot.press("b")
        await settled(pilot, lambda: backend.calls.count("jobs") > before)


async def test_a_server_that_is_gone_is_said_below_the_jobs_that_were_there_and_r_tries_again() -> None:
    backend = backend_of(jobs(3))
    async with app_of(JobsScreen("log"), backend=backend).run_test() as pilot:
        app = await shown(pilot)
        backend.refusals["jobs"] = GONE
        await pilot.press("r")
        await settled(pilot, lambda: said(app, "#notice") == problem_text(GONE))
        assert "running" in cursor_line(app)
        del backend.refusals["jobs"]
        await pilot.press("r")
        await settled(pilot, lambda: said(app, "#notice") == "")


@pytest.mark.requirement("interface.tui")
@pytest.mark.parametrize("width", [80, 120])
async def test_of_very_many_jobs_the_first_are_listed_and_the_end_says_that_there_are_more(width: int) -> None:
    backend = backend_of(jobs(202))
    async with app_of(JobsScreen("log"), backend=backend).run_test(size=(width, 30)) as pilot:
        app = await shown(pilot)
        await pilot.press("end")
        more = "  … more than these 200: perstack jobs --take 1000 · / searches only these"
        await settled(pilot, lambda: lines(app)[-1] == more)
        assert "job-0199" in said(app, "#details")
        await pilot.press("slash", *"0200")
        assert [line for line in lines(app) if line] == [more]
        assert said(app, "#notice") == "Nothing matches “0200”."
        await pilot.press("enter", "escape")
        assert isinstance(app.screen, JobsScreen)
        assert backend.asked == [Asked("jobs", (201,))] * len(backend.asked)
        backend.listed = jobs(200)
        await pilot.press("r")
        await settled(pilot, lambda: more not in lines(app))
        await pilot.press("end")
        assert "job-0199" in said(app, "#details")
        assert lines(app)[-1] == cursor_line(app)


async def test_no_job_at_all_is_said() -> None:
    async with app_of(JobsScreen("log")).run_test() as pilot:
        app = await shown(pilot)
        assert said(app, "#notice") == "There is no job yet."
        await pilot.press("enter", "down", "n")
        assert isinstance(app.screen, JobsScreen)
        await pilot.press("b")
        assert app.return_code == 0


async def test_the_help_names_the_keys() -> None:
    async with app_of(JobsScreen("log"), listed=jobs(3)).run_test() as pilot:
        app = await shown(pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        assert not isinstance(app.screen, JobsScreen)
        await pilot.press("escape")
        assert isinstance(app.screen, JobsScreen)


def _ago(minutes: float) -> datetime:
    return datetime.fromtimestamp(NOW, UTC) - timedelta(minutes=minutes)


@pytest.mark.parametrize(
    ("minutes", "text"),
    [(0, "today 12:00"), (721, "2025 Dec 31"), (-1440, "Jan  2 12:00"), (60 * 24 * 40, "2025 Nov 22")],
)
def test_moments_are_as_short_as_they_can_be(minutes: float, text: str) -> None:
    assert moment(_ago(minutes), datetime.fromtimestamp(NOW, UTC)) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0ms"), (999, "999ms"), (3_140, "3.1s"), (59_999, "60.0s"), (246_000, "4m 06s"), (7_500_000, "2h 05m")],
)
def test_durations_are_as_short_as_they_can_be(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


def test_amounts_are_rounded_to_what_one_reads() -> None:
    assert [tokens(count) for count in (0, 999, 1_000, 46_249, 2_900_000)] == ["0", "999", "1.0k", "46.2k", "2.9M"]
    assert [size(count) for count in (1, 999, 30_000, 1_200_345)] == ["1 byte", "999 bytes", "30.0 kB", "1.2 MB"]
