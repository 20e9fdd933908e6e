"""Everything on stdout: events as JSON Lines, each message encoded once."""

import asyncio
import os
import select
import stat
import sys
from collections.abc import Iterable
from typing import Any

from ..core.checkpoint import Checkpoint
from ..core.events import EVENT_TYPES, ContinueToNextStep, Event, StartGeneration
from ..core.failures import UsageError
from ..core.messages import Message
from ..core.wire import Wire
from .spinner import room

_HOLE = "\u241fmessages\u241f"
"""Stands for a list of messages while the rest of an event is encoded; should a text contain it, the pieces do not
add up and the event is encoded the slow way."""


class EventEncoder:
    """Events → JSON. A run's messages stand in three events of each step; they are encoded only once."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}
        self._joined: dict[str, tuple[tuple[Message, ...], bytes]] = {}
        """By the first message, the conversation encoded last: the next events mostly hold the same."""

    def encode(self, event: Event) -> bytes:
        """One line, with its newline."""
        return b"".join((*self.pieces(event), b"\n"))

    def pieces(self, event: Event) -> list[bytes]:
        """The same without the newline, not yet put together: conversations are large, and copying takes its time."""
        lists: list[tuple[Message, ...]] = []
        changes: dict[str, Any] = {}
        for name in ("checkpoint", "initial_checkpoint"):
            checkpoint = getattr(event, name, None)
            if isinstance(checkpoint, Checkpoint):
                changes[name] = _hollow(checkpoint, lists)
        if isinstance(event, ContinueToNextStep):
            changes["next_checkpoint"] = _hollow(event.next_checkpoint, lists)
        elif isinstance(event, StartGeneration):
            lists.append(event.messages)
            changes["messages"] = (_HOLE,)
        return self._filled(event.replaced(**changes) if changes else event, lists) or [event.wire_json().encode()]

    def checkpoint_pieces(self, checkpoint: Checkpoint) -> list[bytes]:
        """A checkpoint by itself."""
        lists: list[tuple[Message, ...]] = []
        return self._filled(_hollow(checkpoint, lists), lists) or [checkpoint.wire_json().encode()]

    def _filled(self, hollow: Wire, lists: list[tuple[Message, ...]]) -> list[bytes]:
        """The pieces of a value with its conversations; none where a text of it looks like a hole."""
        first, *rest = hollow.model_dump_json(exclude_none=True, warnings=False).encode().split(_ENCODED_HOLE)
        if len(rest) != len(lists):
            return []
        pieces = [first]
        for messages, piece in zip(lists, rest, strict=True):
            pieces += (self._conversation(messages), piece)
        return pieces

    def _conversation(self, messages: tuple[Message, ...]) -> bytes:
        if not messages:
            return b""
        known, line = self._joined.get(messages[0].id, ((), b""))
        if known is not messages:
            line = b",".join(map(self._message, messages))
            self._joined[messages[0].id] = messages, line
        return line

    def _message(self, message: Message) -> bytes:
        known = self._known.get(message.id)
        if known is None:
            known = self._known[message.id] = message.wire_json().encode()
        return known


_ENCODED_HOLE = f'"{_HOLE}"'.encode()


def _hollow(checkpoint: Checkpoint, lists: list[tuple[Message, ...]]) -> Checkpoint:
    lists.append(checkpoint.messages)
    return checkpoint.replaced(messages=(_HOLE,))


class EventWriter:
    """Writes chosen events to stdout as they come."""

    def __init__(self, types: frozenset[str] | None = None) -> None:
        self._types = types
        self._encoder = EventEncoder()

    def wants(self, types: Iterable[str]) -> bool:
        """Whether it would print any event of these types."""
        return self._types is None or not self._types.isdisjoint(types)

    async def write(self, event: Event) -> bool:
        """Print one event unless it is filtered out; a reader that went away ends the writing quietly.

        Whether there is a reader, as far as this event showed. One that is slow holds up the printing only, never the
        worker in the same process.
        """
        if self._types is not None and event.type not in self._types:
            return True
        line = self._encoder.encode(event)
        return write_bytes(line) if _would_not_block(len(line)) else await asyncio.to_thread(write_bytes, line)


def _would_not_block(size: int) -> bool:
    """Whether stdout takes `size` bytes at once: a file always does, a pipe that is ready takes `PIPE_BUF`."""
    descriptor = sys.stdout.fileno()
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return True
    return size <= select.PIPE_BUF and bool(select.select([], [descriptor], [], 0)[1])


def write_bytes(*pieces: bytes) -> bool:
    """Put bytes on stdout now; a closed pipe swallows everything from then on.

    False when it has just turned out that nobody reads any more.

    Raises:
        UsageError: stdout takes no more, a full disk for example.
    """
    try:
        with room():
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
    except OSError as error:
        # What is left in the buffer would fail again at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise UsageError(f"stdout cannot be written: {error.strerror}.", code="usage.output") from error
        return False
    return True


def write_line(text: str) -> bool:
    """One line of text on stdout; whether somebody reads."""
    return write_bytes(text.encode() + b"\n")


def parse_filter(text: str | None) -> frozenset[str] | None:
    """The event types of `--filter a,b`.

    Raises:
        UsageError: a name is no event type.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in EVENT_TYPES]
    if unknown or not names:
        what = ", ".join(unknown) or "no name at all"
        hint = "Event types: " + ", ".join(EVENT_TYPES)
        raise UsageError(f"Unknown event type in --filter: {what}.", hint=hint)
    return frozenset(names)
