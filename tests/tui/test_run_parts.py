"""The words and figures of the run screen, and how a tree that is too long is shortened."""

from decimal import Decimal

import pytest
from perstack.cli.tui.backend import Stop
from perstack.cli.tui.states import dial
from perstack.cli.tui.widgets.status import state_line, token_line, worked_milliseconds
from perstack.cli.tui.widgets.tree import Branch, branches
from perstack.core.events import Event
from perstack.core.run import Limits
from perstack.core.triggers import GenerationFailed
from perstack.core.usage import Usage
from perstack.core.view_state import ViewState
from support.play import Play
from support.scenarios import call, complete, expert, run_input, say
from support.scripted_backend import ScriptedJob, story_events
from support.shown_jobs import NOON, PACE, asking, game, on_a_day
from support.stories import BAD_KEY
from support.views import view_of
from support.watching import watched

USED = Usage(input_tokens=2_900_000, cached_input_tokens=2_108_010, output_tokens=46_200, total_tokens=2_946_200)


def wide_team() -> list[Event]:
    """Twenty delegates side by side: the fifth fails, the others complete."""
    keys = [f"@team/d{number:02}" for number in range(20)]
    calls = [call(key.removeprefix("@team/"), query="go") for key in keys]
    start = run_input(expert("team", delegates=tuple(keys)), *map(expert, keys), limits=Limits(max_retries=0))
    play = Play({"team": [say("", *calls), say("", complete("T"))], keys[4]: [GenerationFailed(BAD_KEY)]})
    play.run(start)
    return on_a_day(play.events)


def lines(view: ViewState, room: int, unfolded: frozenset[str] = frozenset()) -> list[str]:
    def name(branch: Branch) -> str:
        return branch.run.expert_key if branch.run else f"{len(branch.runs)} completed"

    return [f"{branch.lead}{name(branch)}" for branch in branches(view, room, unfolded)]


@pytest.mark.parametrize(
    ("fullness", "text"),
    [
        (None, ""),
        (0.0, "○ 0%"),
        (0.004, "○ <1%"),
        (0.12, "○ 12%"),
        (0.13, "◔ 13%"),
        (0.5, "◑ 50%"),
        (0.8, "◕ 80%"),
        (0.9, "● 90%"),
        (1.4, "● 140%"),
    ],
)
def test_the_dial_has_a_sign_for_each_quarter(fullness: float | None, text: str) -> None:
    assert dial(fullness) == text


@pytest.mark.requirement("interface.tui")
def test_tokens_are_told_with_cache_and_price_as_far_as_there_is_room() -> None:
    cost = Decimal("1.234")
    assert token_line(USED, cost, 100) == ("Tokens: In 2.9M (Cached 2.1M, Cache Hit 72.69%) · Out 46.2k · about $1.23")
    assert token_line(USED, None, 100) == "Tokens: In 2.9M (Cached 2.1M, Cache Hit 72.69%) · Out 46.2k"
    assert token_line(USED, cost, 70) == "In 2.9M (Cached 2.1M, Cache Hit 72.69%) · Out 46.2k · about $1.23"
    assert token_line(USED, cost, 50) == "In 2.9M (72.69% cached) · Out 46.2k · about $1.23"
    assert token_line(USED, cost, 40) == "In 2.9M (72.69% cached) · Out 46.2k"
    assert token_line(Usage(), None, 40) == "Tokens: In 0 · Out 0"


def test_the_state_line_counts_runs_and_leaves_out_the_provider_where_it_does_not_fit() -> None:
    view = view_of(game()[:50])
    now = NOON + 248_000
    assert state_line(view, now, "anthropic", 80) == "2 running · 1 waiting · 4m 06s · anthropic"
    assert state_line(view, now, "anthropic", 40) == "2 running · 1 waiting · 4m 06s"
    assert state_line(view_of(game()), now, "anthropic", 80) == "Completed · 1m 00s · anthropic"
    assert state_line(ViewState(), now, "anthropic", 80) == "Starting… · 0s · anthropic"


def test_the_time_of_a_job_is_without_what_it_waited_for_persons() -> None:
    begun, answered = asking(), asking("green", "5", "all")
    waiting = view_of(begun)
    assert worked_milliseconds(waiting, NOON + 10**9) == 2 * PACE
    hour = 3_600_000
    late = [event.model_copy(update={"timestamp": event.timestamp + hour}) for event in answered[len(begun) :]]
    whole = view_of([*begun, *late])
    assert whole.root is not None
    assert whole.root.phase == "completed"
    assert worked_milliseconds(whole, NOON + 10**9) == 3 * PACE


def test_a_tree_that_fits_is_shown_whole() -> None:
    view = view_of(wide_team())
    assert len(lines(view, 21)) == 21


def test_in_a_tree_that_is_too_long_neighbours_that_completed_are_one_line() -> None:
    view = view_of(wide_team())
    assert lines(view, 20) == ["team", "├ 4 completed", "├ @team/d04", "└ 15 completed"]
    key = branches(view, 20)[1].key
    assert lines(view, 20, frozenset({key}))[:6] == [
        "team",
        "├ @team/d00",
        "├ @team/d01",
        "├ @team/d02",
        "├ @team/d03",
        "├ @team/d04",
    ]


def test_of_earlier_executions_their_roots_remain_where_there_is_no_room_for_more() -> None:
    view = view_of(story_events("deepest"))
    assert lines(view, 12) == ["ship", "ship", "ship", "└ @ship/test"]
    assert len(lines(view, 16)) == 13


async def test_a_line_of_several_runs_is_unfolded_with_enter() -> None:
    async with watched(ScriptedJob([*wide_team(), Stop("completed")])) as watch:
        await watch.until_shown("├ ✓ 4 completed", "├ ✗ @team/d04", "└ ✓ 15 completed", "Enter:Send")
        await watch.press("escape", "f", "down", "enter")
        await watch.until_shown("@team/d00", "@team/d03")
        await watch.until_gone("4 completed")
        assert "Only" not in watch.picture
