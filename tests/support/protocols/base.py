"""What scripts see of a request and say in an answer, whatever protocol carries both."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic_core import from_json

Json = dict[str, Any]
Script = Callable[["Request"], "Answer"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A tool call; `args` as text is sent as it is, valid or not."""

    name: str
    args: Json | str = field(default_factory=dict[str, Any])
    id: str = ""
    """Made from the conversation, the turn and the place when empty."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model says, and how the connection behaves while it does."""

    text: str = ""
    thinking: str = ""
    signature: str = "c2lnbmF0dXJl"
    redacted: str = ""
    calls: tuple[Call, ...] = ()
    blocks: tuple[Json, ...] = ()
    """What the protocol calls blocks, items or parts, exactly as they come, instead of the fields above."""
    stop_reason: str = ""
    """In the words of the protocol; what fits the answer when empty."""
    model: str = ""
    usage: Json | None = None
    """In the words of the protocol; 10 tokens in and 5 out when not given."""
    container: Json | None = None
    """Where the provider ran code, in the words of the protocol."""
    delta_size: int = 0
    """Characters per delta; 0 sends each block in one."""
    delay_ms: float = 0
    """Before the first byte."""
    event_delay_ms: float = 0
    """Before each event."""
    status: int = 200
    error_type: str = ""
    """In the words of the protocol; of an invalid request when empty."""
    message: str = "scripted error"
    error_code: str = ""
    raw_body: str = ""
    """Of an error, or of a 200 that is no stream."""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    after_events: int | None = None
    """After how many events `then` happens; 0 is before the head of the response."""
    then: Literal["end", "die", "error", "hang"] = "end"
    """End the body properly, abort the connection, send an error event and end, or wait for `release(gate)`."""
    gate: str = ""

    @property
    def is_instant(self) -> bool:
        """Whether it can be written at once."""
        return not self.delay_ms and not self.event_delay_ms and self.after_events is None


class Request:
    """One request as it arrived, with what scripts choose by."""

    def __init__(
        self, method: str, target: str, headers: dict[str, str], body: bytes, protocol: "WireProtocol | None"
    ) -> None:
        self.protocol = protocol
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.attempt = 1
        """How often this turn of this conversation has been asked for, this time included."""

    @property
    def path(self) -> str:
        """Without host and query; a client behind a proxy sends both."""
        return urlsplit(self.target).path

    @cached_property
    def json(self) -> Json:
        """The body."""
        return from_json(self.body) if self.body else {}

    @property
    def wire(self) -> "WireProtocol":
        """The protocol it speaks."""
        assert self.protocol is not None, f"no protocol is served at {self.path}"
        return self.protocol

    @cached_property
    def messages(self) -> list[Json]:
        """The turns, as the protocol has them, without the system prompt."""
        return self.wire.messages(self)

    @cached_property
    def model(self) -> str:
        """The model asked for."""
        return self.wire.model(self)

    @cached_property
    def system(self) -> str:
        """The system prompt's text."""
        return self.wire.system(self)

    @cached_property
    def first_user_text(self) -> str:
        """Text of the first user turn: the query."""
        return self.wire.first_user_text(self)

    @cached_property
    def turn(self) -> int:
        """Which answer of this conversation is asked for, from 1."""
        return self.wire.turn(self)

    @cached_property
    def results(self) -> list[Json]:
        """The tool results of the last turn: `{"type": "tool_result", "tool_use_id", "content"}`.

        `content` is a text where the result is one text, else a list whose texts are `{"type": "text", "text"}`.
        """
        return self.wire.results(self)

    @cached_property
    def fingerprint(self) -> str:
        """Names the conversation: the same for every turn and every attempt of one run."""
        return hashlib.sha256(f"{self.system}\x1f{self.first_user_text}".encode()).hexdigest()[:16]


class WireProtocol(Protocol):
    """One API as the server speaks it."""

    name: str
    content_type: str
    """Of a streamed answer."""

    def serves(self, path: str) -> bool:
        """Whether requests to `path` are in this protocol."""
        ...

    def plain(self, request: Request) -> Json | None:
        """The answer to a request of this protocol that is no model call; `None` for a model call."""
        ...

    def messages(self, request: Request) -> list[Json]:
        """See `Request.messages`, and so on for all that follow."""
        ...

    def model(self, request: Request) -> str: ...

    def system(self, request: Request) -> str: ...

    def first_user_text(self, request: Request) -> str: ...

    def turn(self, request: Request) -> int: ...

    def results(self, request: Request) -> list[Json]: ...

    def events(self, request: Request, answer: Answer) -> Iterator[bytes]:
        """The pieces of a streamed answer, framed, in the order they are sent; each is one event."""
        ...

    def stream_error(self, answer: Answer) -> bytes:
        """The framed event that tells of an error inside a stream."""
        ...

    def error_body(self, answer: Answer) -> bytes:
        """The body of an answer whose status is not 200."""
        ...


def cut(text: str, size: int) -> list[str]:
    """`text` in pieces of `size` characters; in one when 0."""
    return [text[at : at + size] for at in range(0, len(text), size)] if size else [text] if text else []


def sse(data: bytes, name: str = "") -> bytes:
    """One server-sent event."""
    return (b"event: %s\n" % name.encode() if name else b"") + b"data: %s\n\n" % data
