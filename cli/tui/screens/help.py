"""The keys of the screen below."""

from collections.abc import Callable, Iterable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

_UNTOLD = {
    "scroll_left",
    "scroll_right",
    "page_left",
    "page_right",
    "screen.copy_text",
    "app.focus_next",
    "app.focus_previous",
}
"""What the toolkit binds on any screen: nothing here is wide enough, and where Tab leads somewhere a screen says so."""


class HelpScreen(ModalScreen[None]):
    """What each key does, where the focus is now."""

    CSS_PATH = "dialog.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,f1,enter", "close", "Close", key_display="Esc"),
    ]

    def __init__(self, bindings: Iterable[ActiveBinding], display: Callable[[Binding], str]) -> None:
        super().__init__()
        keys: dict[str, list[str]] = {}
        for active in sorted(bindings, key=lambda active: not active.binding.show):
            if active.binding.description and active.enabled and active.binding.action not in _UNTOLD:
                shown = keys.setdefault(active.binding.description, [])
                if (key := display(active.binding)) not in shown:
                    shown.append(key)
        self._keys = [(" ".join(shown), description) for description, shown in keys.items()]

    def compose(self) -> ComposeResult:
        width = max((len(key) for key, _ in self._keys), default=0)
        lines = [Content.assemble((f"{key:<{width}}", "bold"), f"  {text}") for key, text in self._keys]
        with VerticalScroll(classes="dialog"):
            yield Static("Keys", classes="dialog--title")
            yield Static(Content("\n").join(lines))
            yield Static("Esc closes", classes="dialog--hint")

    def action_close(self) -> None:
        self.dismiss(None)
