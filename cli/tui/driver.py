"""How Textual draws: on the terminal that it was given, whatever the process's own streams are."""

import os
from typing import TYPE_CHECKING, Any, TextIO

from textual.drivers.linux_driver import LinuxDriver

if TYPE_CHECKING:
    from textual.app import App


def driver_on(screen: TextIO) -> type[LinuxDriver]:
    """The driver of a terminal; Textual's own draws on stderr and asks stdout for the size."""

    class ScreenDriver(LinuxDriver):
        def __init__(
            self, app: "App[Any]", *, debug: bool = False, mouse: bool = True, size: tuple[int, int] | None = None
        ) -> None:
            super().__init__(app, debug=debug, mouse=mouse, size=size)  # pyright: ignore[reportUnknownMemberType]
            self._file = screen

        def _get_terminal_size(self) -> tuple[int, int]:
            try:
                columns, lines = os.get_terminal_size(screen.fileno())
            except OSError:
                return 80, 24
            # A pseudo-terminal that nobody gave a size has none.
            return columns or 80, lines or 24

    return ScreenDriver
