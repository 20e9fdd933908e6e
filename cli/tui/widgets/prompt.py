"""A line to write in: Enter sends it, and it grows with what is written."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widgets import TextArea


class Prompt(TextArea):
    """Text for somebody; several lines come from pasting them, or with ctrl+j."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", key_display="Enter"),
        Binding("ctrl+j,shift+enter,alt+enter", "new_line", "New line", show=False, key_display="^j"),
    ]
    DEFAULT_CSS = """
    Prompt {
        height: auto;
        min-height: 1;
        max-height: 5;
        padding: 0;
        border: none;
        border-left: outer $border-blurred;
        background: ansi_default;
        scrollbar-size: 0 0;
        & .text-area--cursor-line { background: transparent; }
        & .text-area--placeholder { color: $foreground; text-style: dim; }
        &:focus { border: none; border-left: outer $border; }
    }
    """

    class Sent(Message):
        """A person wants this text to go; the prompt keeps it until somebody clears it."""

        def __init__(self, prompt: "Prompt", text: str) -> None:
            super().__init__()
            self.prompt = prompt
            self.text = text

        @property
        def control(self) -> "Prompt":
            return self.prompt

    def __init__(self, text: str = "", *, placeholder: str, id: str | None = None) -> None:
        super().__init__(text, placeholder=placeholder, highlight_cursor_line=False, id=id)
        self.cursor_blink = False

    def render_lines(self, crop: Region) -> list[Strip]:
        # A removed widget may be drawn once more before the next layout, when its styles are gone already.
        if not self.is_running:
            return [Strip.blank(crop.width)] * crop.height
        return super().render_lines(crop)

    async def _on_key(self, event: events.Key) -> None:
        # The text area would take Enter as text before its binding is looked at.
        if event.key == "enter":
            event.prevent_default()
            event.stop()
            self.action_send()

    def action_send(self) -> None:
        if text := self.text.strip():
            self.post_message(self.Sent(self, text))

    def action_new_line(self) -> None:
        self.insert("\n")
