"""Where `start` begins: finding an expert, saying what it shall do, the job that comes of it."""

import pytest
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.backend import ExpertChoice
from perstack.cli.tui.screens.base import problem_text
from perstack.cli.tui.screens.experts import ExpertsScreen
from perstack.cli.tui.screens.jobs import JobsScreen
from perstack.cli.tui.screens.picking import experts
from perstack.cli.tui.screens.query import QueryScreen
from perstack.cli.tui.screens.run import RunScreen
from perstack.cli.tui.widgets.prompt import Prompt
from perstack.core.failures import CredentialError, DefinitionError
from support.screens import app_of, cursor_line, jobs, lines, said, settled
from support.scripted_backend import Asked, ScriptedBackend
from textual.pilot import Pilot

BROKEN = DefinitionError("perstack.toml, line 3: `experts.a` has no instruction.", hint="Write one.")
NO_KEY = CredentialError("ANTHROPIC_API_KEY is not set.", hint="export ANTHROPIC_API_KEY=…")


def started(backend: ScriptedBackend | None = None) -> PerstackApp:
    return app_of(experts(), backend=backend or ScriptedBackend())


async def shown(pilot: Pilot[int]) -> PerstackApp:
    """The application, with its experts on the screen."""
    app = pilot.app
    assert isinstance(app, PerstackApp)
    await settled(pilot, lambda: bool(lines(app)) and "reading" not in said(app, "#notice"))
    return app


@pytest.mark.requirement("interface.start")
async def test_an_expert_is_found_by_typing_and_asked_with_enter() -> None:
    backend = ScriptedBackend()
    async with started(backend).run_test() as pilot:
        app = await shown(pilot)
        assert "game-dev" in cursor_line(app)
        await pilot.press("slash", *"papers says")
        assert [line for line in lines(app) if line] == [cursor_line(app)]
        assert "researcher" in cursor_line(app)
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, QueryScreen))
        await pilot.press(*"sum up", "ctrl+j", *"two", "enter")
        await settled(pilot, lambda: isinstance(app.screen, RunScreen))
        assert backend.asked[-1] == Asked("start", ("researcher", "sum up\ntwo"))


async def test_arrows_move_while_one_types_and_escape_brings_all_back() -> None:
    async with started().run_test() as pilot:
        app = await shown(pilot)
        await pilot.press("slash", "e", "r", "down")
        assert "researcher" not in lines(app)[0]
        assert cursor_line(app) == lines(app)[1]
        await pilot.press("escape")
        assert len([line for line in lines(app) if line]) == len(ScriptedBackend().choices)
        await pilot.press("q")
        assert app.return_code == 0


async def test_a_search_that_finds_nothing_says_so() -> None:
    async with started().run_test() as pilot:
        app = await shown(pilot)
        await pilot.press("slash", *"zebra", "enter")
        assert said(app, "#notice") == "Nothing matches “zebra”."
        assert isinstance(app.screen, ExpertsScreen)


async def test_an_empty_query_starts_nothing() -> None:
    backend = ScriptedBackend()
    async with started(backend).run_test() as pilot:
        app = await shown(pilot)
        await pilot.press("enter", "enter", "space", "ctrl+j", "enter")
        await pilot.pause()
        assert isinstance(app.screen, QueryScreen)
        assert "start" not in backend.calls
        await pilot.press("escape")
        await settled(pilot, lambda: isinstance(app.screen, ExpertsScreen))


async def test_what_was_written_stays_when_the_job_cannot_start() -> None:
    backend = ScriptedBackend(refusals={"start": NO_KEY})
    async with started(backend).run_test() as pilot:
        app = await shown(pilot)
        await pilot.press("enter", *"build it", "enter")
        await settled(pilot, lambda: NO_KEY.message in said(app, "#notice"))
        assert NO_KEY.hint is not None
        assert NO_KEY.hint in said(app, "#notice")
        assert app.screen.query_one(Prompt).text == "build it"
        del backend.refusals["start"]
        await pilot.press("enter")
        await settled(pilot, lambda: isinstance(app.screen, RunScreen))


async def test_a_definition_that_cannot_be_read_says_why_and_leaves_the_built_in_experts() -> None:
    backend = ScriptedBackend(refusals={"experts": BROKEN})
    async with started(backend).run_test() as pilot:
        app = await shown(pilot)
        assert said(app, "#notice") == problem_text(BROKEN)
        assert "create-expert" in cursor_line(app)
        assert [line for line in lines(app) if line] == [cursor_line(app)]


async def test_no_expert_at_all_is_said() -> None:
    async with started(ScriptedBackend(choices=())).run_test() as pilot:
        app = await shown(pilot)
        assert said(app, "#notice") == "There is no expert here."


@pytest.mark.parametrize(("there", "back"), [("h", "n"), ("tab", "tab")])
async def test_jobs_and_experts_are_a_key_away_from_each_other(there: str, back: str) -> None:
    async with started(ScriptedBackend(listed=jobs(3))).run_test() as pilot:
        app = await shown(pilot)
        await pilot.press(there)
        await settled(pilot, lambda: isinstance(app.screen, JobsScreen))
        await pilot.press(back)
        await settled(pilot, lambda: isinstance(app.screen, ExpertsScreen))
        await shown(pilot)
        await pilot.press("b")
        assert app.return_code == 0


async def test_nothing_that_a_definition_says_steers_the_terminal() -> None:
    evil = ExpertChoice("a\x1b[2Jb", "c\x1b]0;title\x07d\ne", "perstack.toml")
    async with started(ScriptedBackend(choices=(evil,))).run_test() as pilot:
        app = await shown(pilot)
        assert cursor_line(app).split() == ["›", "ab", "cd", "e", "perstack.toml"]
