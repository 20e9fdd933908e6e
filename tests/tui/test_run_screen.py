"""The run screen shows what a job does: its log, its live texts, its figures, its runs."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.backend import Ended, Stop
from perstack.core.failures import ServerError
from rich.segment import Segment
from support.scripted_backend import ScriptedJob, golden_events, held_before, says, story_events, thinks
from support.shown_jobs import GAME, NOON, asking, first, game, told_by
from support.watching import LARGE, SMALL, Watch, watched
from textual.color import Color
from textual.screen import Screen

PRICES = {"claude-opus-5": Decimal(5), "claude-sonnet-5": Decimal(3), "claude-haiku-5": Decimal(1)}
BUILD, TEST = game()[45], game()[49]
AT_WORK = game()[:50]
"""The planner is done; the builder and the tester wait for the model."""
WAITS = Stop("stoppedByInteractiveTool")


def job_at_work(*, prices: dict[str, Decimal] | None = None) -> ScriptedJob:
    """A builder that reasons beside a tester that writes."""
    assert BUILD.type == TEST.type == "startGeneration"
    live = (*thinks(BUILD, "A deque grows ", "at the head."), *says(TEST, "All four\ntests ", "pass."))
    return ScriptedJob([*AT_WORK, *live], prices=PRICES if prices is None else prices)


def tree_of(watch: Watch) -> list[str]:
    """The lines of the tree."""
    tree = watch.screen.query_one("RunTree")
    return [line.rstrip() for line in watch.lines[tree.region.y : tree.region.bottom]]


@pytest.mark.requirement("interface.tui")
async def test_the_log_shows_what_the_runs_did_with_time_expert_and_lineage() -> None:
    async with watched(job_at_work(), size=LARGE) as watch:
        await watch.until_shown(
            "12:00:31.140 @game-dev/build ⎇ game-dev",
            "Reasoning  curses is there everywhere, so no dependency is needed.",
            "Write  snake.py +7",
            "Exec  python -m pytest -q",
            "4 passed in 0.31s",
        )


@pytest.mark.requirement("interface.tui")
async def test_what_several_models_say_is_shown_while_they_say_it() -> None:
    job = job_at_work()
    async with watched(job) as watch:
        await watch.until_shown("◦ @game-dev/build · Reasoning…", "A deque grows at the head.")
        await watch.until_shown("◦ @game-dev/test · Writing…", "All four\n", "tests pass.")
        await job.play(*says(TEST, "And ", "again.", attempt=2))
        await watch.until_shown("And again.")
        assert "tests pass." not in watch.picture
        await job.play(*game()[50:56])
        await watch.until_gone("Reasoning…")
        await watch.until_gone("Writing…")


async def test_of_a_long_live_text_the_last_lines_are_shown() -> None:
    job = ScriptedJob([*AT_WORK, *thinks(BUILD, *(f"thought {number}\n" for number in range(200)))])
    async with watched(job) as watch:
        await watch.until_shown("thought 199", "thought 198", "thought 197", "thought 196")
        assert "thought 190" not in watch.picture


@pytest.mark.requirement("interface.tui")
async def test_the_status_block_has_query_counts_time_tokens_and_price() -> None:
    async with watched(job_at_work(), size=LARGE) as watch:
        await watch.until_shown("about $")
        block = watch.screen.query_one("StatusPane").region
        assert watch.lines[block.y + 1 : block.bottom] == [
            f" Query: {GAME}",
            " 2 running · 1 waiting · 4m 06s · anthropic",
            " Tokens: In 939.9k (Cached 683.3k, Cache Hit 72.70%) · Out 15.0k · about $3.80",
        ]


async def test_without_the_price_of_one_of_the_models_no_cost_is_told() -> None:
    async with watched(job_at_work(prices={"claude-opus-5": Decimal(5)}), size=LARGE) as watch:
        await watch.until_shown("Out 15.0k")
        await watch.until(lambda: all(one.is_finished for one in watch.screen.workers if one.group == "price"))
        assert "$" not in watch.picture


async def test_time_passes_while_the_job_works_and_stands_still_while_it_waits() -> None:
    job = job_at_work()
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("4m 06s")
        watch.clock.now += 61
        await watch.until_shown("5m 07s")
    job = ScriptedJob([*asking(), WAITS])
    async with watched(job) as watch:
        await watch.until_shown("1 waiting · 3s")
        watch.clock.now += 3_600
        await watch.press("escape", "f", "a")
        await watch.until_shown("1 waiting · 3s")
        job.items = (*job.items[:-1], WAITS)
        # The time that it waited does not count afterwards either.
        begun, answered = asking(), asking("green")
        gone_on = [event.model_copy(update={"timestamp": event.timestamp + 60_000}) for event in answered[len(begun) :]]
        await job.play(*gone_on[:1])
        watch.clock.now = gone_on[0].timestamp / 1000 + 2
        await watch.until_shown("1 running · 5s")


@pytest.mark.requirement("interface.tui")
async def test_the_tree_has_a_line_for_each_run_with_model_context_and_state() -> None:
    async with watched(job_at_work()) as watch:
        await watch.until_shown("Streaming text…")
        assert tree_of(watch) == [
            "› ⏸ game-dev           claude-opus-5    ◔ 24%  Waiting for delegates",
            "  ├ ✓ @game-dev/plan   claude-opus-5    ○ 10%  Completed",
            "  ├ ◦ @game-dev/build  claude-sonnet-5  ◔ 24%  Streaming reasoning…",
            "  └ ◦ @game-dev/test   claude-sonnet-5  ◔ 24%  Streaming text…",
        ]


@pytest.mark.requirement("interface.tui")
async def test_the_tree_says_which_tools_run_who_failed_and_who_asks() -> None:
    calling = first(game(), told_by("@game-dev/test", "callTools"))
    async with watched(ScriptedJob(calling)) as watch:
        await watch.until_shown("Calling exec")
    async with watched(ScriptedJob(game())) as watch:
        await watch.until_shown("✗ @game-dev/test", "Failed: Overloaded.", "└ ✓ @game-dev/art")
    async with watched(ScriptedJob([*asking(), WAITS])) as watch:
        await watch.until_shown("⏸ game-dev  claude-opus-5  ◔ 24%  Asks you")


async def test_a_run_that_was_ended_from_outside_is_not_shown_as_working() -> None:
    run_id = game()[0].run_id
    job = ScriptedJob([*game()[:4], Ended(run_id, "terminated", NOON + 9_000), Stop("ended", "terminated")])
    async with watched(job) as watch:
        await watch.until_shown("✗ game-dev", "Ended from outside: terminated")


async def test_signs_of_working_runs_turn_unless_nothing_shall_move() -> None:
    async with watched(job_at_work()) as watch:
        await watch.until_shown("├ ◦ @game-dev/build")
        watch.app.animation_level = "full"
        await watch.until(lambda: "├ ◦ @game-dev/build" not in watch.picture)
        assert "⏸ game-dev " in watch.picture


@pytest.mark.requirement("interface.tui")
async def test_choosing_a_run_shows_only_its_log_until_everything_is_wanted_again() -> None:
    async with watched(job_at_work(), size=LARGE) as watch:
        await watch.until_shown("Delegation complete (1)", "Write  snake.py")
        await watch.press("f", "down", "down", "enter")
        await watch.until_shown("Only @game-dev/build · Esc shows all", "Write  snake.py", "├ ◦▸@game-dev/build")
        assert "Exec  python" not in watch.picture
        assert "Delegation complete" not in watch.picture
        assert "· Writing…" not in watch.picture
        await watch.press("enter")
        await watch.until_shown("Exec  python")
        await watch.press("down", "enter")
        await watch.until_shown("Only @game-dev/test")
        await watch.press("escape")
        await watch.until_gone("Only @game-dev/test")
        await watch.until_shown("Write  snake.py", "Exec  python")


async def test_a_click_on_a_run_filters_as_enter_does() -> None:
    async with watched(job_at_work(), size=LARGE) as watch:
        await watch.until_shown("Streaming text…")
        tree = watch.screen.query_one("RunTree").region
        await watch.pilot.click(offset=(10, tree.y + 3))
        await watch.until_shown("Only @game-dev/test · Esc shows all")


async def test_what_a_filtered_run_does_next_appears_and_what_others_do_does_not() -> None:
    job = ScriptedJob(held_before("stopRunByError", game()))
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("@game-dev/test")
        await watch.press("f", "end", "enter")
        await watch.until_shown("Only @game-dev/test")
        await job.release()
        await watch.until_shown("✗ Error", "@game-dev/art")
        assert "Run results" not in watch.picture


@pytest.mark.requirement("interface.tui")
@pytest.mark.parametrize("story", ["parallel", "mixed", "error-of-delegate", "cancelled-delegating", "deepest"])
async def test_every_story_is_shown_to_its_end(story: str) -> None:
    events = golden_events(story) if story != "deepest" else story_events(story)
    async with watched(ScriptedJob(events), size=LARGE) as watch:
        await watch.until(lambda: watch.screen.view.last_at == max(event.timestamp for event in events))
        root = watch.screen.view.root
        assert root is not None
        await watch.until_shown(root.expert_key)
        assert len(tree_of(watch)) >= min(12, len(watch.screen.view.runs))


@pytest.mark.requirement("interface.tui")
async def test_forty_columns_are_enough_to_read_the_state_of_every_run() -> None:
    async with watched(job_at_work(), size=SMALL) as watch:
        await watch.until_shown("Writing…")
        assert tree_of(watch) == [
            "› ⏸ game-dev       ◔ 24% Delegates",
            "  ├ ✓ /plan        ○ 10% Completed",
            "  ├ ◦ /build       ◔ 24% Reasoning…",
            "  └ ◦ /test        ◔ 24% Writing…",
        ]
        await watch.until_shown(
            "2 running · 1 waiting · 4m 06s", "In 939.9k (72.70% cached) · Out 15.0k", "A deque grows", "?:Help"
        )


async def test_a_resize_lays_everything_out_anew() -> None:
    async with watched(job_at_work(), size=SMALL) as watch:
        await watch.until_shown("Delegates")
        await watch.pilot.resize_terminal(*LARGE)
        await watch.until_shown("Waiting for delegates", "claude-sonnet-5", "about $3.80", "t:Temporal")
        await watch.pilot.resize_terminal(*SMALL)
        await watch.until_shown("◔ 24% Delegates", "In 939.9k (72.70% cached)")


@pytest.mark.requirement("interface.tui")
async def test_without_colour_every_state_is_still_a_sign_and_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(job_at_work()) as watch:
        await watch.until_shown("Streaming text…", "about $3.80")
        coloured = watch.picture
    monkeypatch.setenv("NO_COLOR", "1")
    async with watched(job_at_work()) as watch:
        await watch.until_shown("Streaming text…", "about $3.80")
        assert watch.app.no_color
        styles = {segment.style for line in styled_lines(watch) for segment in line if segment.style}
        assert {colour.name for style in styles for colour in (style.color, style.bgcolor) if colour} == {"default"}
        await watch.until(lambda: watch.picture == coloured)


def styled_lines(watch: Watch) -> list[list[Segment]]:
    """What is written to the terminal."""
    screen = watch.app.screen
    strips = screen._compositor.render_strips()  # pyright: ignore[reportPrivateUsage]
    filters = watch.app._filters  # pyright: ignore[reportPrivateUsage]
    return [list(strip.apply_filter(filters[-1], Color(0, 0, 0))) for strip in strips]


@pytest.mark.requirement("interface.tui")
async def test_when_the_job_cannot_be_followed_the_screen_says_so_and_stays() -> None:
    lost = ServerError("The server at localhost:7233 is gone.", hint="Start it again with `perstack dev`.")
    job = ScriptedJob([*AT_WORK, lost])
    async with watched(job, size=LARGE) as watch:
        await watch.until_shown("✗ The server at localhost:7233 is gone.", "`perstack dev`", "F5 follows the job anew")
        await watch.until_shown("Write  snake.py", "2 running · 1 waiting")
        job.items = [*AT_WORK, *game()[50:]]
        await watch.press("f5")
        await watch.until_gone("is gone.")
        await watch.until_shown("✗ @game-dev/test", "Completed")
        assert len(watch.screen.view.roots) == 1


async def test_no_picture_is_thrown_away_while_the_log_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Textual draws nothing while widgets are changed together; what it would draw has to be drawn afterwards."""
    lost: list[object] = []
    display: Callable[..., None] = PerstackApp._display  # pyright: ignore

    def watched_display(app: PerstackApp, screen: Screen[Any], picture: Any) -> None:
        if picture is not None and app._batch_count and app.is_running:  # pyright: ignore[reportPrivateUsage]
            lost.append(picture)
        display(app, screen, picture)

    monkeypatch.setattr(PerstackApp, "_display", watched_display)
    async with watched(ScriptedJob(AT_WORK)) as watch:
        await watch.until_shown("4 passed")
        await watch.pilot.resize_terminal(*LARGE)
        await watch.until_shown("Tokens: In 939.9k (Cached")
        assert lost == []
