"""The steps of a run and the checkpoints behind them: what they say, how they fold, how one goes on from there."""

from collections.abc import Awaitable, Callable

import pytest
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.screens.base import problem_text
from perstack.cli.tui.screens.checkpoint import CheckpointScreen
from perstack.cli.tui.screens.fork import ForkScreen
from perstack.cli.tui.screens.run import RunScreen
from perstack.cli.tui.screens.runs import RunsScreen
from perstack.cli.tui.screens.steps import StepsScreen
from perstack.cli.tui.step_text import call_text, step_sign, step_text
from perstack.cli.tui.widgets.rows import RowList
from perstack.core.expert import Expert
from perstack.core.failures import UsageError
from perstack.core.messages import ImageInlinePart, TextPart
from perstack.core.run import Limits
from perstack.core.tools import ToolCall, ToolOutcome, text_outcome
from perstack.core.usage import Usage
from perstack.core.view_state import ViewState
from support.play import Play, ToolScript
from support.scenarios import base_tools, call, expert, run_input, say
from support.screens import app_of, cursor_line, lines, said, settled
from support.scripted_backend import Asked, Item, ScriptedBackend, ScriptedJob, held_before, story_events
from support.stories import STORIES
from textual.pilot import Pilot
from textual.strip import Strip

REFUSED = UsageError("Job deepest is open.", hint="Fork it as a new job.")
REPORT = """# Found

The file `a.py` has **three** problems:

- one
- two

```python
print(1)
```
"""
USED = Usage(
    input_tokens=12_000, cached_input_tokens=9_000, output_tokens=400, reasoning_tokens=100, total_tokens=12_400
)


def opened(items: list[Item], **options: object) -> tuple[PerstackApp, ScriptedBackend]:
    """The steps of the first run of a job."""
    job = ScriptedJob(items=items, job_id="deepest", is_live=False)
    backend = ScriptedBackend(known={"deepest": job})
    return app_of(RunsScreen(job), backend=backend), backend


def talk(*, tools: ToolScript | None = None, limits: Limits | None = None, who: Expert | None = None) -> list[Item]:
    """A step with reasoning, text and two calls, and one that completes."""
    calls = call("exec", "c1", command="npm", args=["test"]), call("readImageFile", "c2", path="shots/a.png")
    answers = [say(REPORT, *calls, thinking="I think so.", usage=USED), say("All **done**, at last.")]
    play = Play({"solo": answers}, tools=tools or _told, specs=base_tools("exec", "readImageFile"))
    play.run(run_input(who or expert("solo"), query="Which tests fail?", limits=limits))
    return list(play.events)


def _told(planned: object) -> ToolOutcome:
    if "readImageFile" in repr(planned):
        image = ImageInlinePart(encoded_data="A" * 40_000, mime_type="image/png")
        return ToolOutcome(result=(TextPart(text="a picture"), image))
    return text_outcome("\n".join(f"line {at} of the output" for at in range(30)))


async def steps(pilot: Pilot[int], *keys: str) -> PerstackApp:
    """The application, at the steps of the run that the keys go to."""
    app = pilot.app
    assert isinstance(app, PerstackApp)
    await settled(pilot, lambda: bool(cursor_line(app)) and said(app, "#notice") != "reading…")
    await pilot.press(*keys, "enter")
    await settled(pilot, lambda: isinstance(app.screen, StepsScreen) and bool(cursor_line(app)))
    return app


async def checkpoint(pilot: Pilot[int], *keys: str) -> PerstackApp:
    """The application, at the checkpoint of the step that the keys go to."""
    app = await steps(pilot)
    await pilot.press(*keys, "enter")
    await settled(pilot, lambda: isinstance(app.screen, CheckpointScreen) and bool(cursor_line(app)))
    return app


def whole(app: PerstackApp) -> str:
    """All lines of the list, seen or not."""
    shown = app.screen.query_one(RowList)
    width = shown.size.width
    drawn = [row.line(width, at) for row in shown.rows for at in range(row.height(width))]
    return "\n".join((one.text if isinstance(one, Strip) else str(one)).rstrip() for one in drawn)


@pytest.mark.parametrize(
    ("story", "told"),
    [
        ("parallel", ["⎇ exec ls · delegated to @team/a, @team/b", "· results of exec, a, b", "✓ T"]),
        ("parked", ["⏸ asks: askUser ok?"]),
        ("completion-with-neighbours", ["✓ todo · exec ls · unknown ✗ · r"]),
        ("max-steps", ["· exec ls", "✗ exec ls · reached its step limit"]),
        ("error", ["· todo", "✗ provider.credentials: invalid x-api-key"]),
        ("error-of-delegate", ["⎇ delegated to @team/a, @team/b", "· results of a ✗, b ✗", "✓ T"]),
        ("losses", ["· readTextFile a · exec rm ✗", "✓ done"]),
        ("cancelled-delegating", ["⎇ delegated to @team/a, @team/b", "✗ cancelled"]),
        (
            "retry",
            [
                "↻ retry: The answer held neither text nor a tool call.",
                "↻ retry: The answer was cut because it reached the model's output limit. Answer in smaller pieces.",
                "· exec ls ✗",
                "✓ done",
            ],
        ),
    ],
)
def test_a_step_is_one_line(story: str, told: list[str]) -> None:
    view = ViewState()
    for event in STORIES[story]().events:
        view.feed(event)
    assert [f"{step_sign(step)} {step_text(step)}" for step in view.runs[0].steps] == told


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"command": "rm", "args": ["-r", "a\nb"]}, "exec rm -r a b"),
        ({"command": "ls", "args": "-l"}, "exec ls"),
        ({"command": 7, "path": "a.txt"}, "exec a.txt"),
        ({"number": 3, "note": "x\x1b[2Jy"}, "exec xy"),
        ({}, "exec"),
    ],
)
def test_a_call_says_what_it_is_about_whatever_the_model_wrote(args: dict[str, object], text: str) -> None:
    assert call_text(ToolCall(id="1", skill_name="s", tool_name="exec", args=args)) == text


@pytest.mark.requirement("interface.tui")
async def test_steps_stand_in_their_segments_with_tokens_time_and_checkpoint() -> None:
    app, _ = opened(list(story_events("deepest")))
    async with app.run_test(size=(120, 45)) as pilot:
        await steps(pilot, "slash", *"build", "down")
        first, resumed, second, third = (line for line in lines(app) if line)
        assert first.startswith("›    2  ⎇ delegated to @ship/compile, @ship/pack")
        assert first.endswith("11.5k     9.2s  odciqvqzad87fm9qbqz76ycw")
        assert resumed.strip() == "(resumed)"
        assert second.split()[:4] == ["7", "·", "results", "of"]
        assert third.startswith("     8  ✓ Three wheels are in dist/.")
        assert said(app, "#title").splitlines()[0] == "@ship/build  ✓ Completed"
        await pilot.press("down")
        assert "results of compile, pack" in cursor_line(app)
        told = "no model call\nresults of compile, pack\ne8jsc9pmcw0ga6ort0tm8g5l · today 00:01"
        assert said(app, "#details") == told


async def test_a_step_that_was_stopped_and_then_cancelled_counts_once() -> None:
    app, _ = opened(list(story_events("cancelled-delegating")))
    async with app.run_test(size=(120, 45)) as pilot:
        await steps(pilot)
        first, second = (line.split() for line in lines(app) if line)
        assert first[1:3] == ["1", "⎇"]
        assert "15" in first
        assert second[:2] == ["✗", "cancelled"]
        assert "15" not in second


async def test_steps_come_while_the_job_is_read_and_the_open_one_says_what_it_does() -> None:
    events = held_before("finishToolCall", story_events("max-steps"))
    app, backend = opened(events)
    async with app.run_test(size=(100, 30)) as pilot:
        await settled(pilot, lambda: bool(cursor_line(app)))
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, StepsScreen))
        await settled(pilot, lambda: "Calling exec" in " ".join(lines(app)))
        await pilot.press("enter")
        assert isinstance(app.screen, StepsScreen)
        await backend.known["deepest"].release()
        await settled(pilot, lambda: "reached its step limit" in " ".join(lines(app)))
        assert "Calling" not in " ".join(lines(app))


async def test_a_checkpoint_shows_how_the_run_stood_and_what_it_used() -> None:
    app, _ = opened(talk())
    async with app.run_test(size=(100, 60)) as pilot:
        await checkpoint(pilot)
        assert said(app, "#title").startswith("solo · step 1  ◦ proceeding\ncheckpoint ")
        text = whole(app)
        assert "this step  12.0k in · 9.0k cached · 400 out · 100 of them reasoning" in text
        assert "context    ● 1240% of 1.0k" in text
        assert "model      test-model" in text
        assert "✓ exec npm test  +27 lines" in text
        assert "image shots/a.png · image/png · 30.0 kB" in text
        assert "A" * 20 not in text


async def test_the_new_answer_is_set_in_type_and_older_messages_unfold_with_enter() -> None:
    app, _ = opened(talk())
    async with app.run_test(size=(100, 60)) as pilot:
        await checkpoint(pilot, "down")
        text = whole(app)
        assert "\n  All done, at last." in text
        assert "has **three** problems:" in text
        assert "• two" not in text
        await pilot.press("m", "up", "up")
        assert "3 expert · reasoning, 2 calls" in cursor_line(app)
        before = len(whole(app).splitlines())
        await pilot.press("enter")
        assert "The file a.py has three problems:" in whole(app)
        assert "• two" in whole(app)
        assert '→ exec {"command":"npm","args":["test"]}' in whole(app)
        await pilot.press("enter")
        assert len(whole(app).splitlines()) == before


async def test_a_long_result_is_three_lines_until_it_is_wanted() -> None:
    app, _ = opened(talk())
    async with app.run_test(size=(100, 60)) as pilot:
        await checkpoint(pilot)
        assert "line 2 of the output" in whole(app)
        assert "line 3 of the output" not in whole(app)
        while "exec npm test" not in cursor_line(app):
            await pilot.press("down")
        await pilot.press("enter")
        assert "line 29 of the output" in whole(app)


async def test_messages_are_found_by_what_they_say_however_deep_in_them() -> None:
    app, _ = opened(talk())
    async with app.run_test(size=(100, 60)) as pilot:
        await checkpoint(pilot, "down")
        await pilot.press("slash", *"line 17")
        assert "4 results" in cursor_line(app)
        assert "user" not in " ".join(lines(app))


async def test_a_checkpoint_that_waits_shows_whom_for_and_with_which_calls() -> None:
    app, _ = opened(list(story_events("mixed")))
    async with app.run_test(size=(100, 60)) as pilot:
        await checkpoint(pilot)
        text = whole(app)
        assert "⏸ delegating" in said(app, "#title")
        assert "waits for  @team/a: 1" in text
        assert "Pending calls  3" in text
        assert "⏸ askUser sure?" in text
        assert '"question": "sure?"' in text
        assert "Results so far  1" in text


async def test_a_failed_checkpoint_says_why() -> None:
    app, _ = opened(list(story_events("error")))
    async with app.run_test(size=(100, 60)) as pilot:
        await checkpoint(pilot, "down")
        assert "error      provider.credentials: invalid x-api-key" in whole(app)


async def test_ids_are_copied() -> None:
    app, _ = opened(list(story_events("chain")))
    async with app.run_test(size=(100, 40)) as pilot:
        await steps(pilot)
        await pilot.press("y")
        assert app.clipboard in said(app, "#details")
        of_step = app.clipboard
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, CheckpointScreen))
        app.copy_to_clipboard("")
        await pilot.press("y")
        assert app.clipboard == of_step


@pytest.mark.parametrize(
    ("keys", "query", "is_branch"),
    [((), None, False), (("tab",), None, True), (("tab", "tab", *"again", "ctrl+j", *"b?"), "again\nb?", False)],
)
async def test_a_person_goes_on_from_a_checkpoint(keys: tuple[str, ...], query: str | None, is_branch: bool) -> None:
    app, backend = opened(list(story_events("chain")))
    async with app.run_test(size=(80, 24)) as pilot:
        await checkpoint(pilot)
        checkpoint_id = said(app, "#title").split()[-1]
        await pilot.press("f")
        await settled(pilot, lambda: isinstance(app.screen, ForkScreen))
        assert checkpoint_id in said(app, "#title")
        await pilot.press(*keys, "enter")
        await settled(pilot, lambda: isinstance(app.screen, RunScreen))
        assert backend.asked[-1] == Asked("fork", ("deepest", checkpoint_id, query, is_branch))


async def test_from_an_open_job_only_a_new_one_is_offered() -> None:
    app, backend = opened(list(story_events("parked")))
    async with app.run_test(size=(80, 24)) as pilot:
        await steps(pilot)
        await pilot.press("f")
        await settled(pilot, lambda: isinstance(app.screen, ForkScreen))
        assert said(app, "#where") == "as a new job: this one is still open"
        await pilot.press("tab", "enter")
        await settled(pilot, lambda: isinstance(app.screen, RunScreen))
        *_, is_branch = backend.asked[-1].arguments
        assert is_branch is True


@pytest.mark.parametrize("looked_at", [steps, checkpoint])
async def test_where_jobs_are_only_looked_at_no_fork_is_offered(
    looked_at: Callable[[Pilot[int]], Awaitable[PerstackApp]],
) -> None:
    app, backend = opened(list(story_events("deepest")))
    backend.can_work = False
    async with app.run_test(size=(80, 24)) as pilot:
        await looked_at(pilot)
        offered = {one.binding.description for one in app.active_bindings.values()}
        assert ("Copy id" in offered, "Fork" in offered) == (True, False)
        screen = app.screen
        await pilot.press("f")
        await pilot.pause()
        assert app.screen is screen


async def test_a_fork_that_is_refused_says_why_and_keeps_the_query() -> None:
    app, backend = opened(list(story_events("parked")))
    backend.refusals["fork"] = REFUSED
    async with app.run_test(size=(40, 20)) as pilot:
        await steps(pilot)
        await pilot.press("f", *"go", "enter")
        await settled(pilot, lambda: said(app, "#notice") == problem_text(REFUSED))
        assert isinstance(app.screen, ForkScreen)
        await pilot.press("escape")
        await settled(pilot, lambda: isinstance(app.screen, StepsScreen))


async def test_of_a_long_conversation_only_what_is_seen_is_set_in_type() -> None:
    answers = [say(REPORT, call("exec", f"c{at}", command="ls")) for at in range(199)]
    play = Play({"solo": answers}, specs=base_tools("exec"))
    play.run(run_input(expert("solo"), limits=Limits(max_steps=300)))
    app, _ = opened(list(play.events))
    async with app.run_test(size=(100, 40)) as pilot:
        await checkpoint(pilot, "end")
        assert "Messages  401" in whole(app)
        assert whole(app).count("▾") == 0
        await pilot.press("end", "pageup", "enter")
        assert whole(app).count("▾") == 1
