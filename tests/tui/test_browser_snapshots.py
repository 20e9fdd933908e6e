"""The pickers and the log browser as they look: every screen and state, in terminals of all sizes."""

from collections.abc import Callable, Sequence

import pytest
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.screens.jobs import JobsScreen
from perstack.cli.tui.screens.picking import experts
from perstack.cli.tui.screens.runs import RunsScreen
from perstack.core.failures import DefinitionError, ServerError
from perstack.core.messages import ImageInlinePart, TextPart
from perstack.core.tools import ToolOutcome, text_outcome
from perstack.core.usage import Usage
from support.play import Play
from support.scenarios import base_tools, call, expert, run_input, say
from support.screens import app_of, jobs, lines, said, settled
from support.scripted_backend import Item, ScriptedBackend, ScriptedJob, held_before, story_events
from textual.pilot import Pilot

Snap = Callable[..., bool]
SIZES = [pytest.param((40, 20), id="40x20"), pytest.param((80, 24), id="80x24"), pytest.param((200, 50), id="200x50")]
GONE = ServerError("localhost:7233 cannot be reached: connection refused.", hint="`perstack dev` starts a server.")
BROKEN = DefinitionError(
    "perstack.toml, line 3: `experts.game-dev` has no instruction.", hint="Every expert needs `instruction`."
)
REPORT = """# Which tests fail

Two of **1 204** tests fail, both in `tests/test_order.py`:

1. `test_cancel` waits for an event that never comes
2. `test_refund`

```python
def test_cancel() -> None:
    assert order.state == "cancelled"
```

| test | since |
|---|---|
| test_cancel | 2.0 |

> Both are known.
"""
USED = Usage(
    input_tokens=12_000, cached_input_tokens=9_000, output_tokens=400, reasoning_tokens=100, total_tokens=12_400
)


def pressing(*keys: str) -> Callable[[Pilot[int]], object]:
    """Press keys, each when what came of the one before is there."""

    async def press(pilot: Pilot[int]) -> None:
        app = pilot.app
        assert isinstance(app, PerstackApp)
        await settled(pilot, lambda: is_read(app))
        for key in keys:
            await pilot.press(key)
            await settled(pilot, lambda: is_read(app))
        await settled(pilot, lambda: "price" in said(app, "#title") or "run" not in said(app, "#title"))

    return press


def is_read(app: PerstackApp) -> bool:
    return not app.screen.query("#notice") or "…" not in said(app, "#notice")


def deepest(items: Sequence[Item] | None = None) -> PerstackApp:
    job = ScriptedJob(items=items or story_events("deepest"), job_id="deepest", is_live=False)
    return app_of(RunsScreen(job), backend=ScriptedBackend(known={"deepest": job}))


def talk() -> PerstackApp:
    """A job with everything that a conversation can hold."""

    def tools(planned: object) -> ToolOutcome:
        if "readImageFile" in repr(planned):
            image = ImageInlinePart(encoded_data="A" * 40_000, mime_type="image/png")
            return ToolOutcome(result=(TextPart(text="a picture"), image))
        return text_outcome("\n".join(f"test {at} … ok" for at in range(30)), is_error=True)

    calls = call("exec", "c1", command="npm", args=["test"]), call("readImageFile", "c2", path="shots/a.png")
    thought = "The tests first.\nThen what they look like."
    answers = [say(REPORT, *calls, thinking=thought, usage=USED), say("All **done**.")]
    play = Play({"solo": answers}, tools=tools, specs=base_tools("exec", "readImageFile"))
    play.run(run_input(expert("solo"), query="Look at the tests and say which fail."))
    return deepest(list(play.events))


@pytest.mark.parametrize("size", SIZES)
def test_experts(size: tuple[int, int], snap_compare: Snap) -> None:
    assert snap_compare(app_of(experts()), terminal_size=size, run_before=pressing("down"))


def test_experts_of_a_broken_definition(snap_compare: Snap) -> None:
    backend = ScriptedBackend(refusals={"experts": BROKEN})
    assert snap_compare(app_of(experts(), backend=backend), terminal_size=(60, 20), run_before=pressing())


def test_a_query_that_cannot_start(snap_compare: Snap) -> None:
    backend = ScriptedBackend(refusals={"start": GONE})
    keys = ("enter", *"A game", "ctrl+j", *"with levels", "enter")
    assert snap_compare(app_of(experts(), backend=backend), terminal_size=(60, 20), run_before=pressing(*keys))


@pytest.mark.parametrize("size", SIZES)
def test_jobs(size: tuple[int, int], snap_compare: Snap) -> None:
    app = app_of(JobsScreen("log"), listed=jobs(60))
    assert snap_compare(app, terminal_size=size, run_before=pressing("down", "down", "down"))


def test_jobs_while_a_person_searches(snap_compare: Snap) -> None:
    app = app_of(JobsScreen("start"), listed=jobs(60))
    assert snap_compare(app, terminal_size=(80, 24), run_before=pressing("slash", *"failed game", "down"))


def test_jobs_without_colours(snap_compare: Snap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = app_of(JobsScreen("log"), listed=jobs(60))
    assert snap_compare(app, terminal_size=(80, 24), run_before=pressing("down"))


def test_no_jobs(snap_compare: Snap) -> None:
    assert snap_compare(app_of(JobsScreen("log")), terminal_size=(60, 12), run_before=pressing())


def test_jobs_of_a_server_that_is_gone(snap_compare: Snap) -> None:
    backend = ScriptedBackend(refusals={"jobs": GONE})
    assert snap_compare(app_of(JobsScreen("log"), backend=backend), terminal_size=(60, 16), run_before=pressing())


@pytest.mark.requirement("interface.tui")
@pytest.mark.parametrize("size", [*SIZES, pytest.param((120, 40), id="120x40")])
def test_runs_of_the_deepest_job(size: tuple[int, int], snap_compare: Snap) -> None:
    assert snap_compare(deepest(), terminal_size=size, run_before=pressing("down", "down"))


def test_runs_of_a_job_that_is_still_read(snap_compare: Snap) -> None:
    async def until_held(pilot: Pilot[int]) -> None:
        app = pilot.app
        assert isinstance(app, PerstackApp)
        await settled(pilot, lambda: sum("@ship" in line for line in lines(app)) == 3)

    events = held_before("startRun", story_events("deepest"), count=5)
    assert snap_compare(deepest(events), terminal_size=(80, 24), run_before=until_held)


@pytest.mark.parametrize("size", SIZES)
def test_steps(size: tuple[int, int], snap_compare: Snap) -> None:
    keys = ("slash", *"build resumed", "enter")
    assert snap_compare(deepest(), terminal_size=size, run_before=pressing(*keys))


def test_steps_with_retries(snap_compare: Snap) -> None:
    assert snap_compare(deepest(story_events("retry")), terminal_size=(80, 24), run_before=pressing("enter"))


@pytest.mark.parametrize("size", [*SIZES, pytest.param((100, 60), id="100x60")])
def test_a_checkpoint_and_its_messages(size: tuple[int, int], snap_compare: Snap) -> None:
    assert snap_compare(talk(), terminal_size=size, run_before=pressing("enter", "enter", "m"))


def test_a_checkpoint_that_waits(snap_compare: Snap) -> None:
    app = deepest(story_events("mixed"))
    assert snap_compare(app, terminal_size=(80, 40), run_before=pressing("enter", "enter"))


@pytest.mark.parametrize("size", SIZES[:2])
@pytest.mark.parametrize("story", ["chain", "deepest"])
def test_going_on_from_a_checkpoint(story: str, size: tuple[int, int], snap_compare: Snap) -> None:
    """Of a job that has ended, in it; of one that is open, as a new one."""
    keys = ("enter", "f", *"The slow tests, too.")
    assert snap_compare(deepest(story_events(story)), terminal_size=size, run_before=pressing(*keys))
