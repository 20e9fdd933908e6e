"""A question with a few answers, over the screen it is about."""

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option


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

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False):
            yield Static(self._title, classes="dialog--title", markup=False)
            if self._text:
                yield Static(self._text, markup=False)
            yield OptionList(*(Option(_prompt(choice), id=choice.name) for choice in self._choices), compact=True)
            yield Static("Enter chooses · Esc goes back", classes="dialog--hint")

    def on_key(self, event: events.Key) -> None:
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
