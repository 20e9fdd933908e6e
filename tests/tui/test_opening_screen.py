"""The first picture: it says what is waited for, gives way to the first screen, and never hides why there is none."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from perstack.cli.diagnostics import ExitCode
from perstack.cli.tui.app import PerstackApp
from perstack.cli.tui.backend import Backend
from perstack.cli.tui.screens.jobs import JobsScreen
from perstack.cli.tui.screens.opening import OpeningScreen
from perstack.core.failures import ServerError
from support.screens import NOW, jobs, lines, said, settled
from support.scripted_backend import ScriptedBackend
from textual.pilot import Pilot
from textual.screen import Screen

pytestmark = pytest.mark.requirement("interface.tui")

STARTING = "starting the Temporal server …"
GONE = ServerError("localhost:7233 cannot be reached: connection refused.", hint="`perstack dev` starts a server.")


def app_opening(opened: "asyncio.Future[tuple[Backend, Screen[Any]]] | None") -> PerstackApp:
    async def opening() -> tuple[Backend, Screen[Any]]:
        return await (opened or asyncio.Future[tuple[Backend, Screen[Any]]]())

    return PerstackApp(None, OpeningScreen("Jobs", opening), clock=lambda: NOW)


async def test_it_says_what_is_waited_for_and_for_how_long_then_the_first_screen_is_there() -> None:
    opened = asyncio.Future[tuple[Backend, Screen[Any]]]()
    app = app_opening(opened)
    async with app.run_test() as pilot:
        await settled(pilot, lambda: said(app, "#wait") == "loading …")
        app.waits_for(STARTING)
        await settled(pilot, lambda: said(app, "#wait") == STARTING)
        await settled(pilot, lambda: said(app, "#wait") == f"{STARTING} 1 s")
        opened.set_result((ScriptedBackend(listed=jobs(3)), JobsScreen("log")))
        await settled(pilot, lambda: isinstance(app.screen, JobsScreen) and len(lines(app)) > 2)
        app.waits_for("something that the list does not show")
        await pilot.press("q")
    assert (app.return_value, app.refusal) == (0, None)


async def test_what_cannot_be_opened_is_told_by_whoever_runs_the_application() -> None:
    opened = asyncio.Future[tuple[Backend, Screen[Any]]]()
    app = app_opening(opened)
    async with app.run_test() as pilot:
        opened.set_exception(GONE)
        await settled(pilot, lambda: app.refusal is GONE)


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_somebody_who_does_not_want_to_wait_leaves(key: str) -> None:
    app = app_opening(None)
    async with app.run_test() as pilot:
        await settled(pilot, lambda: bool(said(app, "#wait")))
        await pilot.press(key)
    assert app.return_value == ExitCode.INTERRUPTED


@pytest.mark.parametrize("size", [pytest.param((40, 20), id="40x20"), pytest.param((80, 24), id="80x24")])
def test_the_first_picture_as_it_looks(size: tuple[int, int], snap_compare: Callable[..., bool]) -> None:
    app = app_opening(None)

    async def waiting(pilot: Pilot[int]) -> None:
        app.waits_for(STARTING)
        await settled(pilot, lambda: said(app, "#wait") == STARTING)

    assert snap_compare(app, terminal_size=size, run_before=waiting)


def test_nothing_large_is_loaded_before_the_first_picture() -> None:
    program = (
        "import sys\n"
        "import perstack.cli.app, perstack.cli.commands.log, perstack.cli.log_screens\n"
        "import perstack.cli.tui.app, perstack.cli.tui.driver\n"
        "print({'temporalio', 'perstack.core.events', 'perstack.client', 'perstack.definitions'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
