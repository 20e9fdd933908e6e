"""What a model provider is to the `generate` activity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ...core.expert import Expert
from ...core.messages import Message
from ...core.run import Generation
from ...core.tools import ToolSpec
from ...core.usage import Usage

T = TypeVar("T")

INVALID_JSON_ARGUMENT = "__invalid_json__"
"""The only argument of a call whose arguments were no JSON object: their raw text, clipped.

The call is kept, so that the tool layer answers the model with an error it can correct.
"""
INVALID_JSON_LIMIT = 2_000


class WireCache:
    """One conversation in a provider's wire form; the session keeps it, so that each message is mapped once."""

    __slots__ = ("_messages", "_parts", "notes")

    def __init__(self) -> None:
        self._messages: dict[int, tuple[Message, bytes]] = {}
        self._parts: dict[str, tuple[object, bytes]] = {}
        self.notes: set[str] = set()
        """What a provider has learnt about this conversation and heeds in every later request."""

    def message(self, index: int, message: Message, render: Callable[[Message], bytes]) -> bytes:
        """The wire form of the message at `index`; rendered again only if another message stands there now."""
        known = self._messages.get(index)
        if known is not None and known[0] is message:
            return known[1]
        rendered = render(message)
        self._messages[index] = (message, rendered)
        return rendered

    def note(self, fact: str) -> None:
        """Remember `fact` about this conversation; every message is mapped again, for it may change how."""
        self.notes.add(fact)
        self._messages.clear()

    def part(self, name: str, source: T, render: Callable[[T], bytes]) -> bytes:
        """The wire form of a part that seldom changes, such as the tools; rendered again when `source` differs."""
        known = self._parts.get(name)
        if known is not None and known[0] == source:
            return known[1]
        rendered = render(source)
        self._parts[name] = (source, rendered)
        return rendered


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One model call."""

    expert: Expert
    messages: Sequence[Message]
    """The whole conversation, instruction first."""
    tools: tuple[ToolSpec, ...]
    timeout_seconds: float
    path: tuple[str, ...]
    """Calls from the root down to this run."""
    ordinal: int
    """Own generation of the run, from 1."""
    cache: WireCache
    on_usage: Callable[[Usage], None] | None = None
    """Told the usage as it becomes known, so that a cancelled call can report what it cost."""


class Deltas(Protocol):
    """Takes an answer piece by piece while it comes in."""

    def reasoning(self, delta: str) -> None:
        """More reasoning."""
        ...

    def text(self, delta: str) -> None:
        """More text."""
        ...


class Provider(Protocol):
    """One configured connection to a model API; safe for concurrent calls."""

    async def generate(self, request: ModelRequest, deltas: Deltas) -> Generation:
        """One whole answer: thinking, then text, then calls in the order they run; its `attempts` are empty.

        Raises:
            ProviderError: the call failed; half an answer is never returned.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
