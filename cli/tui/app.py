"""The application around the screens: look, keys that hold everywhere, errors as notices."""

import time
from collections.abc import Callable
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen
from textual.theme import Theme
from textual.worker import WorkerFailed

from ...core.failures import PerstackError
from ..diagnostics import ExitCode
from .backend import Backend
from .screens.base import Page
from .screens.dialog import Dialog
from .screens.help import HelpScreen
from .screens.opening import OpeningScreen

THEME = Theme(
    name="perstack",
    # The terminal's own colours: legible on light and dark, and calm where a person chose calm ones.
    ansi=True,
    primary="ansi_cyan",
    secondary="ansi_blue",
    warning="ansi_yellow",
    error="ansi_red",
    success="ansi_green",
    accent="ansi_magenta",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    variables={
        "ansi-background": "ansi_default",
        "ansi-foreground": "ansi_default",
        "border": "ansi_cyan",
        "border-blurred": "ansi_bright_black",
        "block-cursor-foreground": "ansi_default",
        "block-cursor-background": "ansi_default",
        "block-cursor-text-style": "reverse",
        "block-cursor-blurred-text-style": "bold",
        "input-cursor-background": "ansi_default",
        "input-cursor-foreground": "ansi_default",
        "input-cursor-text-style": "reverse",
        "input-selection-background": "ansi_default",
        "input-selection-foreground": "ansi_default",
        "scrollbar": "ansi_bright_black",
        "scrollbar-hover": "ansi_bright_black",
        "scrollbar-active": "ansi_cyan",
        "scrollbar-background": "ansi_default",
        "scrollbar-background-hover": "ansi_default",
        "scrollbar-background-active": "ansi_default",
        "footer-key-foreground": "ansi_cyan",
        "markdown-h1-color": "ansi_default",
        "markdown-h2-color": "ansi_default",
        "markdown-h3-color": "ansi_default",
    },
)


class PerstackApp(App[int]):
    """The terminal application; it returns the exit code of the command."""

    CSS_PATH = "app.tcss"
    TITLE = "perstack"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,ctrl+q", "interrupt", "Leave", show=False, priority=True, system=True),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("f1", "help", "Help", key_display="F1"),
    ]

    def __init__(
        self, backend: Backend | None, opening: Screen[Any], *, clock: Callable[[], float] = time.time
    ) -> None:
        # Told here already, since the filter of NO_COLOR is chosen before there is a theme.
        super().__init__(ansi_color=True)
        self.register_theme(THEME)
        self.theme = THEME.name
        self.clock = clock
        """Seconds since the epoch."""
        self.refusal: PerstackError | None = None
        """Why there was nothing to show."""
        self._backend = backend
        self._opening = opening

    def on_mount(self) -> None:
        self.push_screen(self._opening)

    @property
    def backend(self) -> Backend:
        """The world behind the screens; there from the first of them on that needs it."""
        assert self._backend is not None, "only the opening screen has no world behind it"
        return self._backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        self._backend = backend

    def refuse(self, refusal: PerstackError) -> None:
        """Leave, with nothing shown; whoever runs the application says why, when the terminal is whole."""
        self.refusal = refusal
        self.exit()

    @property
    def bug(self) -> Exception | None:
        """What ended the application without anybody's wish."""
        bug = self._exception
        cause = bug.error if isinstance(bug, WorkerFailed) else bug
        return cause if isinstance(cause, Exception) else bug

    def _fatal_error(self) -> None:
        # Whoever runs the application raises it when the terminal is whole; Textual would print every local variable.
        self._close_messages_no_wait()

    def tell(self, error: PerstackError) -> None:
        """Show what went wrong, and what to do about it."""
        text = f"{error.message}\n{error.hint}" if error.hint else error.message
        self.notify(text, title="That did not work", severity="error", timeout=10, markup=False)

    def say(self, text: str) -> None:
        """Show a line for a few seconds."""
        self.notify(text, markup=False)

    def waits_for(self, text: str) -> None:
        """Show what the first screen waits for; later ones tell that themselves."""
        if isinstance(self.screen, OpeningScreen):
            self.screen.waits_for(text)

    def action_interrupt(self) -> None:
        """Copy what is selected, else leave a dialog, else the program the way its screen wants to be left."""
        screen = self.screen
        if selected := screen.get_selected_text():
            self.copy_to_clipboard(selected)
            screen.clear_selection()
        elif isinstance(screen, Page):
            screen.action_leave()
        elif isinstance(screen, Dialog):
            screen.interrupt()
        elif isinstance(screen, ModalScreen):
            screen.dismiss(None)
        else:
            self.exit(int(ExitCode.INTERRUPTED))

    def action_help(self) -> None:
        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.active_bindings.values(), self.get_key_display))
