"""Screens over a backend, from the first to the last: the terminal, signals, talk, and how the process leaves."""

import asyncio
import importlib
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .backend import LiveBackend
from .commands.run import PreparedRun, RunOptions
from .connection import connected
from .diagnostics import ExitCode, say, telling
from .lifecycle import leave
from .terminal import Terminal, owned_terminal

if TYPE_CHECKING:
    from textual.screen import Screen

    from .tui.app import PerstackApp
    from .tui.backend import Backend

_SCREENS = ("app", "driver", "screens.run", "screens.picking")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def on_screens(
    options: RunOptions,
    opening: Callable[[LiveBackend], Awaitable["Screen[Any]"]],
    *,
    prepared: PreparedRun | None = None,
) -> ExitCode:
    """Show screens over the server in use, `opening` first; the exit code is that of the job that was shown last.

    Raises:
        PerstackError: there is nothing to show.
    """
    # Importing Textual takes half a second, about as long as connecting.
    loading = asyncio.create_task(asyncio.to_thread(load_screens))
    async with connected(options.address) as connection:
        backend = LiveBackend(connection, options, prepared)
        try:
            await loading
            left = await show(backend, await opening(backend))
        finally:
            code = await backend.close()
        return left if code is None else code


def load_screens() -> None:
    """Import what draws; may be done in a thread."""
    for name in _SCREENS:
        importlib.import_module(f".tui.{name}", __package__)


async def show(backend: "Backend", opening: "Screen[Any]") -> ExitCode:
    """Show screens until they are left or a signal ends them; a bug in one is raised when the terminal is whole.

    The exit code is that of the leaving itself, for where it was about no job.
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

    with owned_terminal() as terminal:
        app.driver_class = driver_on(terminal.screen)
        signals = _Signals(app, terminal)
        for number in _SIGNALS:
            loop.add_signal_handler(number, signals.heard)
        with telling(tell):
            await app.run_async()
        for number in _SIGNALS:
            # From here on a signal waits for nothing.
            loop.add_signal_handler(number, leave, ExitCode.INTERRUPTED)
    for text in late:
        say(text)
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
