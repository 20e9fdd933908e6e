"""Keys that a person types for a line which is not there yet."""

import time

from textual import events

HOLD_SECONDS = 2.0
"""A line that has not come by then does not come: keys are commands again."""


class TypedAhead:
    """Keeps what is typed between the moment that somebody sees what to write for and the line that takes it.

    Without it, an answer typed at once would be commands: `c` cancels, `q` leaves.
    """

    def __init__(self) -> None:
        self._text = ""
        self._until = 0.0

    @property
    def is_expecting(self) -> bool:
        """Whether a line is about to come."""
        return time.monotonic() < self._until

    def expect(self) -> None:
        """A line is about to come."""
        self._until = time.monotonic() + HOLD_SECONDS

    def forget(self) -> None:
        """No line comes; what was typed for it was for nobody."""
        self._text, self._until = "", 0.0

    def take(self, event: events.Key) -> bool:
        """Keep a key that is text; whether it was taken."""
        if event.is_printable and event.character:
            self._text += event.character
        elif event.key == "backspace":
            self._text = self._text[:-1]
        else:
            # Nothing unread is sent.
            return event.key == "enter"
        return True

    def give(self) -> str:
        """The line is there: what was typed for it, once."""
        text = self._text
        self.forget()
        return text
