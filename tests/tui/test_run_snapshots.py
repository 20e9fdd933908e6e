"""How the run screen looks in each of its states; `--snapshot-update` takes new pictures."""

from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.backend import Stop
from perstack.core.failures import Failure, ServerError, UsageError
from perstack.core.triggers import GenerationFailed
from support.screens import settled
from support.scripted_backend import ScriptedJob, says, story_events, thinks
from support.shown_jobs import asking, ending_with, game, long_job
from support.watching import LARGE, SMALL, USUAL, Clock, picture, watching
from textual.pilot import Pilot

Compare = Callable[..., bool]
PRICES = {"claude-opus-5": Decimal(5), "claude-sonnet-5": Decimal(3), "claude-haiku-5": Decimal(1)}
WAITS = Stop("stoppedByInteractiveTool")
BUSY = Failure(name="provider.overloaded", message="The provider is overloaded.", status_code=529)
SIZES = pytest.mark.parametrize("size", [SMALL, USUAL, LARGE], ids=["40x20", "80x24", "200x50"])


def at_work() -> ScriptedJob:
    """A builder that reasons beside a tester that writes."""
    reasoning = thinks(
        game()[45],
        "The snake is a queue of cells. A deque grows at the head and shrinks at the tail, ",
        "so that a move costs the same at any length.\nCollisions are a look into a set.",
    )
    text = says(game()[49], "The tests pass on the first run. The edge of the field comes next, ", "column 80 is hard.")
    return ScriptedJob([*game()[:50], *reasoning, *text], prices=PRICES)


def until(
    *texts: str, press: tuple[str, ...] = (), then: tuple[str, ...] = ()
) -> Callable[[Pilot[int]], Awaitable[None]]:
    """Wait until the texts are shown, press keys, wait for more."""

    async def prepare(pilot: Pilot[int]) -> None:
        app = pilot.app
        assert isinstance(app, PerstackApp)
        await settled(pilot, lambda: all(text in picture(app) for text in texts))
        for key in press:
            await pilot.press(key)
        await settled(pilot, lambda: all(text in picture(app) for text in then))

    return prepare


@pytest.mark.requirement("interface.tui")
@SIZES
def test_at_work(size: tuple[int, int], snap_compare: Compare) -> None:
    words = ("Writing…", "hard.", "Reasoning…") if size == SMALL else ("Streaming text…", "about $3.80", "hard.")
    assert snap_compare(watching(at_work()), terminal_size=size, run_before=until(*words))


def test_at_work_without_colour(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(watching(at_work()), run_before=until("Streaming text…", "about $3.80", "hard."))


def test_one_run_only(snap_compare: Compare) -> None:
    choose = until("about $3.80", press=("f", "down", "down", "enter"), then=("Only @game-dev/build", "▸"))
    assert snap_compare(watching(at_work()), run_before=choose)


@pytest.mark.requirement("interface.tui")
@SIZES
def test_questions(size: tuple[int, int], snap_compare: Compare) -> None:
    job = ScriptedJob([*asking(), WAITS])
    assert snap_compare(watching(job), terminal_size=size, run_before=until("1 of 3", "Asks you", "Enter:Send"))


def test_a_refused_answer(snap_compare: Compare) -> None:
    job = ScriptedJob([*asking(), WAITS], refusals={"respond": UsageError("Somebody answered it already.")})
    send = until("1 of 3", press=("x", "enter"), then=("Somebody answered it already.", "Enter:Send"))
    assert snap_compare(watching(job), run_before=send)


@pytest.mark.requirement("interface.tui")
@SIZES
def test_completed(size: tuple[int, int], snap_compare: Compare) -> None:
    job = ScriptedJob([*game(), Stop("completed")], prices=PRICES)
    shown = ("✓ Completed", "Enter:Send", "A follow-up") + (() if size == SMALL else ("about $",))
    assert snap_compare(watching(job), terminal_size=size, run_before=until(*shown))


def test_failed(snap_compare: Compare) -> None:
    job = ScriptedJob([*ending_with(GenerationFailed(BUSY)), Stop("stoppedByError", BUSY.message)])
    assert snap_compare(watching(job), run_before=until("✗ Failed ·", "^r:Resume"))


def test_a_job_that_cannot_be_followed(snap_compare: Compare) -> None:
    lost = ServerError("The server at localhost:7233 is gone.", hint="Start it again with `perstack dev`.")
    job = ScriptedJob([*game()[:50], lost])
    assert snap_compare(watching(job), run_before=until("is gone.", "F5:Follow anew"))


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["40x20", "80x24"])
def test_leaving(size: tuple[int, int], snap_compare: Compare) -> None:
    assert snap_compare(
        watching(at_work()), terminal_size=size, run_before=until("hard.", press=("q",), then=("Enter chooses",))
    )


@pytest.mark.parametrize("size", [SMALL, USUAL], ids=["40x20", "80x24"])
def test_help(size: tuple[int, int], snap_compare: Compare) -> None:
    keys = until("hard.", press=("question_mark",), then=("Keys",))
    assert snap_compare(watching(at_work()), terminal_size=size, run_before=keys)


def test_reading_older_entries(snap_compare: Compare) -> None:
    page_up = until("Run results", "Completed", press=("pageup", "pageup"), then=("End follows",))
    assert snap_compare(watching(ScriptedJob(long_job(3))), run_before=page_up)


@pytest.mark.requirement("interface.tui")
@pytest.mark.parametrize("size", [USUAL, LARGE], ids=["80x24", "200x50"])
def test_the_deepest_job(size: tuple[int, int], snap_compare: Compare) -> None:
    events = story_events("deepest")
    clock = Clock(max(event.timestamp for event in events) / 1000)
    app = watching(ScriptedJob([*events, WAITS]), clock=clock)
    assert snap_compare(app, terminal_size=size, run_before=until("Asks you", "Enter:Send"))
