"""Screens over a backend, from the first to the last: the terminal, signals, talk, and how the process leaves."""

import asyncio
import importlib
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from .diagnostics import ExitCode, say, telling
from .lifecycle import leave
from .terminal import Terminal, owned_terminal

if TYPE_CHECKING:
    from textual.screen import Screen

    from .backend import LiveBackend
    from .commands.run import PreparedRun, RunOptions
    from .tui.app import PerstackApp
    from .tui.backend import Backend

_WORLD = ("backend", "connection", "tui.screens.run", "tui.screens.runs", "tui.screens.picking")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def on_screens(
    title: str,
    options: Callable[[], "RunOptions"],
    opening: Callable[["LiveBackend"], Awaitable["Screen[Any]"]],
    *,
    prepared: "PreparedRun | None" = None,
) -> ExitCode:
    """Show screens over the server in use, `opening` first; the exit code is that of the job that was shown last.

    The terminal shows `title` before the program that works with a server is loaded, which takes longer than Textual.

    Raises:
        PerstackError: there is nothing to show.
    """
    from .tui.screens.opening import OpeningScreen

    backends: list[LiveBackend] = []
    tasks: list[asyncio.Task[tuple[Backend, Screen[Any]]]] = []
    async with AsyncExitStack() as stack:

        async def open_world() -> "tuple[Backend, Screen[Any]]":
            await asyncio.to_thread(_load, *_WORLD)
            from .backend import LiveBackend
            from .connection import connected

            given = options()
            connection = await stack.enter_async_context(connected(given.address))
            backends.append(LiveBackend(connection, given, prepared))
            return backends[0], await opening(backends[0])

        def begin() -> "Awaitable[tuple[Backend, Screen[Any]]]":
            # A task of ours: somebody who leaves meanwhile waits until nothing is half open.
            tasks.append(asyncio.create_task(open_world()))
            return tasks[0]

        try:
            left = await show(None, OpeningScreen(title, begin))
        finally:
            for task in tasks:
                task.cancel()
                await asyncio.wait([task])
            codes = [await backend.close() for backend in backends]
    return next((code for code in codes if code is not None), left)


def _load(*names: str) -> None:
    for name in names:
        importlib.import_module(f".{name}", __package__)


async def show(backend: "Backend | None", opening: "Screen[Any]") -> ExitCode:
    """Show screens until they are left or a signal ends them; a bug in one is raised when the terminal is whole.

    The exit code is that of the leaving itself, for where it was about no job.

    Raises:
        PerstackError: there was nothing to show.
    """
    from .tui.app import PerstackApp
    from .tui.driver import driver_on

    if os.environ.get("NO_COLOR") == "":
        # Empty it means nothing (no-color.org); Textual asks only whether it is there.
        del os.environ["NO_COLOR"]
    app = PerstackApp(backend, opening)
    loop = asyncio.get_running_loop()
    late: list[str] = []

    def tell(text: str) -> None:
        if app.is_running:
            loop.call_soon_threadsafe(app.call_later, app.say, text)
        else:
            late.append(text)

    def wait_for(text: str) -> None:
        if app.is_running:
            loop.call_soon_threadsafe(app.call_later, app.waits_for, text)

    with owned_terminal() as terminal:
        app.driver_class = driver_on(terminal.screen)
        signals = _Signals(app, terminal)
        for number in _SIGNALS:
            loop.add_signal_handler(number, signals.heard)
        with telling(tell, waits=wait_for):
            await app.run_async()
        for number in _SIGNALS:
            # From here on a signal waits for nothing.
            loop.add_signal_handler(number, leave, ExitCode.INTERRUPTED)
    for text in late:
        say(text)
    if app.refusal is not None:
        raise app.refusal
    if app.bug is not None:
        raise app.bug
    return ExitCode(app.return_value or 0)


class _Signals:
    """The first signal leaves the screens, the second the process."""

    def __init__(self, app: "PerstackApp", terminal: Terminal) -> None:
        self._app = app
        self._terminal = terminal
        self._is_leaving = False

    def heard(self) -> None:
        """Take one."""
        if self._is_leaving:
            self._terminal.restore()
            leave(ExitCode.INTERRUPTED)
        self._is_leaving = True
        self._app.exit(int(ExitCode.INTERRUPTED))
