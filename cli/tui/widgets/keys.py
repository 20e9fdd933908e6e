"""The last line of a screen: the keys that do something now, as many as there is room for."""

from textual import events
from textual.binding import ActiveBinding
from textual.content import Content
from textual.screen import Screen
from textual.style import Style
from textual.widgets import Static

_GAP = "  "
_LAST = "Help"
"""The key that names all others is shown in any width."""


class KeyBar(Static):
    """Names the keys that the screen shows, in their order while they fit; a click does what the key does."""

    DEFAULT_CSS = """
    KeyBar {
        dock: bottom;
        height: 1;
        padding: 0 1;
        link-style: none;
        link-style-hover: reverse;
        link-color: $foreground;
        link-color-hover: $foreground;
        link-background: transparent;
        link-background-hover: transparent;
    }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._changed)  # pyright: ignore[reportUnknownMemberType]
        self.call_after_refresh(self._draw)

    def on_resize(self, _: events.Resize) -> None:
        self._draw()

    def _changed(self, screen: "Screen[object]") -> None:
        if self.is_attached and screen is self.screen:
            self._draw()

    def _draw(self) -> None:
        shown: dict[str, Content] = {}
        for active in self.screen.active_bindings.values():
            if active.binding.show and active.enabled:
                shown.setdefault(active.binding.description, self._key(active))
        last = shown.pop(_LAST, Content())
        room = self.content_size.width - last.cell_length
        line = Content()
        for key in shown.values():
            if line.cell_length + key.cell_length + len(_GAP) <= room:
                line = line + key + _GAP
        self.update(line + last, layout=False)

    def _key(self, active: ActiveBinding) -> Content:
        key = self.screen.app.get_key_display(active.binding)  # pyright: ignore[reportUnknownMemberType]
        text = Content.assemble((key, "bold $primary"), f":{active.binding.description}")
        return text.stylize(Style.from_meta({"@click": f"app.simulate_key({active.binding.key!r})"}))
