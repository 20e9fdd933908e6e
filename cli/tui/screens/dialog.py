"""A question with a few answers, over the screen it is about."""

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

QUIET_SECONDS = 0.4
"""Without a key, before a dialog takes an answer: somebody who was typing when it appeared chooses nothing."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer."""

    name: str
    """What the dialog gives back."""
    key: str
    """The letter that chooses it at once."""
    text: str


class Dialog(ModalScreen[str | None]):
    """Asks for one of some choices, the first under the cursor; gives its name, `None` when nothing shall be done."""

    CSS_PATH = "dialog.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "stay", "Back", key_display="Esc")]

    def __init__(self, title: str, *choices: Choice, text: str = "", again: str | None = None) -> None:
        super().__init__()
        self._title, self._text, self._choices = title, text, choices
        self._again = again
        self._waiting: Timer | None = None

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False):
            yield Static(self._title, classes="dialog--title", markup=False)
            if self._text:
                yield Static(self._text, markup=False)
            yield OptionList(*(Option(_prompt(choice), id=choice.name) for choice in self._choices), compact=True)
            yield Static("Enter chooses · Esc goes back", classes="dialog--hint")

    @property
    def _hint(self) -> Static:
        return self.query_one(".dialog--hint", Static)

    def _wait(self) -> None:
        """Take no answer yet, and say so by saying nothing: who types on has not seen the question."""
        if self._waiting is not None:
            self._waiting.stop()
        self._hint.visible = False
        self._waiting = self.set_timer(QUIET_SECONDS, self._go_on)

    def _go_on(self) -> None:
        self._hint.visible = True

    def on_mount(self) -> None:
        self._wait()

    def on_key(self, event: events.Key) -> None:
        is_typing = event.is_printable or event.key == "enter"
        if is_typing and not self._hint.visible:
            event.stop()
            self._wait()
            return
        for choice in self._choices:
            if event.character == choice.key:
                event.stop()
                self.dismiss(choice.name)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    def interrupt(self) -> None:
        """What ctrl+c does: chooses `again`, since the dialog may be there because of an earlier one."""
        self.dismiss(self._again)

    def action_stay(self) -> None:
        self.dismiss(None)


def _prompt(choice: Choice) -> Content:
    return Content.assemble((choice.key, "bold"), f"  {choice.text}")
