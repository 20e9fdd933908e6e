"""The log of the run screen with more than fits: what is mounted, where the reader stays, what ten thousand cost."""

from collections.abc import Sequence
from functools import cache

import pytest
from perstack.cli.tui.widgets.log import MOST_MOUNTED
from perstack.core.events import Event
from support.scripted_backend import ScriptedJob, held_before
from support.shown_jobs import long_job
from support.watching import SMALL, USUAL, Watch, watched


@cache
def two_hundred() -> Sequence[Event]:
    """Of 20 steps with ten calls each, and two more activities."""
    return long_job(20)


def top(watch: Watch) -> str:
    """The first line of the log that can be read."""
    area = watch.log.region
    return next(line for line in watch.lines[area.y : area.bottom] if line.strip(" ▁▂▃▄▅▆▇█"))


@pytest.mark.requirement("interface.tui")
async def test_of_ten_thousand_activities_only_a_stretch_is_mounted_and_the_newest_is_shown() -> None:
    async with watched(ScriptedJob(long_job(200, 50))) as watch:
        await watch.until(lambda: len(watch.screen.view.log) == 10_002)
        await watch.until_shown("Run results")
        assert len(watch.log.mounted_rows) <= MOST_MOUNTED
        await watch.press("home")
        await watch.until_shown("● Query", "part0-0.py")
        assert watch.log.unseen > 9_000
        await watch.press("end")
        await watch.until_shown("part199-49", "Run results")
        assert len(watch.log.mounted_rows) <= MOST_MOUNTED


async def test_paging_up_reaches_the_first_entry_and_paging_down_the_last() -> None:
    async with watched(ScriptedJob(two_hundred()), size=(80, 60)) as watch:
        await watch.until_shown("part19-9")
        for _ in range(200):
            if "● Query" in watch.picture:
                break
            await watch.press("pageup")
            assert len(watch.log.mounted_rows) <= MOST_MOUNTED
        await watch.until_shown("● Query")
        for _ in range(200):
            if "Run results" in watch.picture:
                break
            await watch.press("pagedown")
        await watch.until_shown("Run results")
        await watch.until(lambda: watch.log.is_following)


async def test_every_entry_is_passed_once_on_the_way_up() -> None:
    """What is mounted above the reader moves nothing that is being read."""
    async with watched(ScriptedJob(two_hundred()), size=(80, 60)) as watch:
        await watch.until_shown("part19-9")
        heads: list[str] = []
        while "● Query" not in watch.picture:
            area = watch.log.region
            heads += [line for line in reversed(watch.lines[area.y : area.bottom]) if "part" in line and "●" in line]
            before = watch.picture
            await watch.press("pageup")
            await watch.until(lambda: watch.picture != before)  # noqa: B023
        names = [line.split("part")[1].split(".")[0].split()[0] for line in heads]
        seen = list(dict.fromkeys(names))
        expected = [f"{step}-{number}" for step in reversed(range(20)) for number in reversed(range(10))]
        assert seen == expected[: len(seen)]
        assert len(seen) > 190


@pytest.mark.requirement("interface.tui")
async def test_what_arrives_does_not_move_somebody_who_reads_older_entries() -> None:
    job = ScriptedJob(held_before("startGeneration", two_hundred(), count=12))
    async with watched(job) as watch:
        await watch.until_shown("part10-9")
        await watch.press("pageup", "pageup")
        await watch.until_shown("End follows")
        await watch.until(lambda: not watch.log.is_following)
        reading = top(watch)
        await job.release()
        await watch.until_shown("newer · End follows")
        await watch.until(lambda: len(watch.screen.view.log) == 202)
        assert top(watch) == reading
        await watch.press("end")
        await watch.until_shown("Run results")
        await watch.until_gone("End follows")


async def test_a_reader_who_scrolls_to_the_end_follows_again() -> None:
    job = ScriptedJob(held_before("startGeneration", two_hundred(), count=4))
    async with watched(job) as watch:
        await watch.until_shown("part2-9")
        await watch.press("up", "up", "up")
        await watch.until_shown("End follows")
        await watch.press(*["down"] * 5)
        await watch.until_gone("End follows")
        await job.release()
        await watch.until_shown("Run results")


@pytest.mark.requirement("interface.tui")
async def test_a_resize_keeps_the_entry_that_is_being_read() -> None:
    async with watched(ScriptedJob(two_hundred()), size=(80, 40)) as watch:
        await watch.until_shown("part19-9")
        for _ in range(6):
            await watch.press("pageup")
        await watch.until(lambda: not watch.log.is_following)
        reading = first_entry(watch)
        await watch.pilot.resize_terminal(46, 30)
        await watch.until(lambda: first_entry(watch) == reading)
        await watch.pilot.resize_terminal(*USUAL)
        await watch.until(lambda: first_entry(watch) == reading)


async def test_a_resize_stays_at_the_end_where_it_was_at_the_end() -> None:
    async with watched(ScriptedJob(two_hundred())) as watch:
        await watch.until_shown("Run results")
        for size in (SMALL, (200, 50), (80, 15)):
            await watch.pilot.resize_terminal(*size)
            await watch.until_shown("Run results")
            assert watch.log.is_following


def first_entry(watch: Watch) -> str:
    """The first entry of which a head can be read."""
    area = watch.log.region
    return next(line.split()[-2] for line in watch.lines[area.y : area.bottom] if "●" in line)
