"""The line in which a person says what a list shall be reduced to."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widgets import Input


class SearchBox(Input):
    """Words, all of which a row has to hold; the keys that move the cursor of the list go on doing so."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "screen.move('down')", "Down", show=False),
        Binding("up", "screen.move('up')", "Up", show=False),
        Binding("pagedown", "screen.move('page(1)')", "A page down", show=False),
        Binding("pageup", "screen.move('page(-1)')", "A page up", show=False),
        Binding("enter", "screen.move('choose')", "Select", key_display="Enter"),
        Binding("escape", "screen.end_search", "All", key_display="Esc"),
    ]
    DEFAULT_CSS = """
    SearchBox, SearchBox:focus {
        height: 1;
        border: none;
        border-left: outer $border;
        padding: 0 1;
        background: ansi_default;
    }
    """

    def __init__(self) -> None:
        super().__init__(placeholder="search")
        self.cursor_blink = False
        self.display = False
