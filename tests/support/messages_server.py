"""A scripted server that speaks Anthropic's Messages API over real HTTP; answers by content, never by arrival order.

In a test: `async with MessagesServer(script) as server: … server.url …`.
As a process: `python tests/support/messages_server.py --script rules.json --port-file port [--ledger ledger.jsonl]`.
"""

import argparse
import asyncio
import hashlib
import importlib.util
import json
import os
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic_core import from_json, to_json

Json = dict[str, Any]
Script = Callable[["Request"], "Answer"]


@dataclass(frozen=True, kw_only=True)
class Call:
    """A `tool_use` block; `args` as text is sent as it is, valid or not."""

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
    """Content blocks exactly as they come, instead of the fields above."""
    stop_reason: str = ""
    """`tool_use` with calls, else `end_turn`, when empty."""
    model: str = ""
    usage: Json = field(default_factory=lambda: {"input_tokens": 10, "output_tokens": 5})
    delta_size: int = 0
    """Characters per delta; 0 sends each block in one."""
    delay_ms: float = 0
    """Before the first byte."""
    event_delay_ms: float = 0
    """Before each event."""
    status: int = 200
    error_type: str = "invalid_request_error"
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

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
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

    @cached_property
    def messages(self) -> list[Json]:
        """The turns."""
        return self.json.get("messages", [])

    @cached_property
    def system(self) -> str:
        """The system prompt's text."""
        return _text_of(self.json.get("system", ""))

    @cached_property
    def first_user_text(self) -> str:
        """Text of the first user turn: the query."""
        return _text_of(self.messages[0]["content"]) if self.messages else ""

    @cached_property
    def turn(self) -> int:
        """Which answer of this conversation is asked for, from 1."""
        return 1 + sum(message["role"] == "assistant" for message in self.messages)

    @cached_property
    def results(self) -> list[Json]:
        """The tool results of the last turn."""
        content: str | list[Json] = self.messages[-1]["content"] if self.messages else ""
        return [] if isinstance(content, str) else [block for block in content if block["type"] == "tool_result"]

    @cached_property
    def fingerprint(self) -> str:
        """Names the conversation: the same for every turn and every attempt of one run."""
        return hashlib.sha256(f"{self.system}\x1f{self.first_user_text}".encode()).hexdigest()[:16]


def _text_of(content: str | list[Json]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


class Rules:
    """A script as data: the first rule whose `when` fits answers.

    `when` takes `system`, `user` (of the first user turn) and `results` (of the last tool results) as substrings,
    `turn` and `attempt` as a number or a `[first, last]` pair, `model` in full. `{turn}` in an answer is its number.
    """

    def __init__(self, rules: Sequence[Json]) -> None:
        self._rules = [(rule.get("when", {}), json.dumps(rule["answer"])) for rule in rules]
        self._fixed = [None if "{turn}" in text else answer_from(json.loads(text)) for _, text in self._rules]

    def __call__(self, request: Request) -> Answer:
        for (when, text), fixed in zip(self._rules, self._fixed, strict=True):
            if _fits(when, request):
                return fixed or answer_from(json.loads(text.replace("{turn}", str(request.turn))))
        raise AssertionError(f"no rule for turn {request.turn} of {request.first_user_text[:80]!r}")


def _fits(when: Json, request: Request) -> bool:
    numbers = {"turn": request.turn, "attempt": request.attempt}
    texts = {"system": request.system, "user": request.first_user_text}
    for name, wanted in when.items():
        if name in numbers:
            span: Sequence[int] = (wanted, wanted) if isinstance(wanted, int) else wanted
            if not span[0] <= numbers[name] <= span[1]:
                return False
        elif name == "results":
            if wanted not in json.dumps(request.results, ensure_ascii=False):
                return False
        elif name == "model":
            if wanted != request.json.get("model"):
                return False
        elif wanted not in texts[name]:
            return False
    return True


def answer_from(data: Json) -> Answer:
    """An answer written as JSON; the names are those of the fields."""
    calls = tuple(Call(**call) for call in data.get("calls", ()))
    fields: Json = {**data, "calls": calls, "blocks": tuple(data.get("blocks", ()))}
    return Answer(**fields)


class Ledger:
    """Counts requests per conversation and turn; with a file the counts survive this process."""

    def __init__(self, path: Path | None = None) -> None:
        self.counts: Counter[tuple[str, int]] = Counter()
        self._file: int | None = None
        if path is not None:
            for line in path.read_text().splitlines() if path.exists() else ():
                entry = json.loads(line)
                if entry["event"] == "request":
                    self.counts[entry["conversation"], entry["turn"]] += 1
            # Unbuffered, so that a killed server has lost nothing.
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def asked(self, request: Request) -> int:
        """Count a request and tell which one of its turn it is."""
        key = (request.fingerprint, request.turn)
        self.counts[key] += 1
        self.note(request, "request")
        return self.counts[key]

    def note(self, request: Request, event: Literal["request", "answered", "abandoned"]) -> None:
        """Write down what became of a request."""
        if self._file is None:
            return
        line = {
            "event": event,
            "conversation": request.fingerprint,
            "turn": request.turn,
            "attempt": self.counts[request.fingerprint, request.turn],
            "user": request.first_user_text[:80],
            "at": round(time.time(), 3),
        }
        os.write(self._file, to_json(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class MessagesServer:
    """The server; `requests` and `on_request` are for assertions on what was sent."""

    def __init__(
        self,
        script: Script,
        *,
        ledger: Path | None = None,
        on_request: Callable[[Request], None] | None = None,
        keeps_requests: bool = True,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.abandoned: list[Request] = []
        """Requests whose client went away before the answer was complete."""
        self.ledger = Ledger(ledger)
        self.connections = 0
        self._on_request = on_request
        self._keeps_requests = keeps_requests
        self._port = port
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._gates: dict[str, asyncio.Event] = {}

    @property
    def url(self) -> str:
        """Base URL for the client."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    async def start(self) -> None:
        """Listen on loopback."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Drop all connections and stop listening."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self._open):
            connection.abort()
        await asyncio.sleep(0)
        self.ledger.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def gate(self, name: str = "") -> asyncio.Event:
        """What answers with `then="hang"` wait for."""
        return self._gates.setdefault(name, asyncio.Event())

    def release(self, name: str = "") -> None:
        """Let hanging answers go on, those to come included."""
        self.gate(name).set()

    def joined(self, connection: "_Connection") -> None:
        """A client has connected."""
        self.connections += 1
        self._open.add(connection)

    def left(self, connection: "_Connection") -> None:
        """A client has gone."""
        self._open.discard(connection)

    def answer(self, request: Request) -> Answer:
        """What the script says; a script that has no answer is answered for with an error that tells so."""
        if self._keeps_requests:
            self.requests.append(request)
        request.attempt = self.ledger.asked(request)
        if self._on_request is not None:
            self._on_request(request)
        try:
            return self.script(request)
        except AssertionError as error:
            return Answer(status=400, message=f"messages_server: {error}")

    def control(self, request: Request) -> Json | None:
        """Requests about the server itself, for those who run it as a process."""
        if request.path == "/release":
            self.release("".join(parse_qs(urlsplit(request.target).query).get("gate", [])))
            return {}
        if request.path == "/ledger":
            counts = self.ledger.counts.items()
            return {"requests": [{"conversation": key[0], "turn": key[1], "count": count} for key, count in counts]}
        return {"connections": self.connections} if request.path == "/health" else None


class _Connection(asyncio.Protocol):
    """One keep-alive connection; requests are answered one after another."""

    def __init__(self, server: MessagesServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._head: tuple[Request, int, int] | None = None
        self._task: asyncio.Task[None] | None = None
        self._current: Request | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.left(self)
        if self._task is not None:
            self._task.cancel()
        if self._current is not None:
            self._server.abandoned.append(self._current)
            self._server.ledger.note(self._current, "abandoned")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._buffer[:1].isalpha():
            self._advance()
        else:
            # A TLS handshake, most likely.
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection without a goodbye."""
        self._transport.abort()

    def _advance(self) -> None:
        while self._task is None and (request := self._next_request()) is not None:
            self._serve(request)

    def _next_request(self) -> Request | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return None
            self._head = (*_parsed(bytes(self._buffer[:end])), end + 4)
        request, length, start = self._head
        if len(self._buffer) < start + length:
            return None
        request.body = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        self._head = None
        return request

    def _serve(self, request: Request) -> None:
        if request.path != "/v1/messages":
            said = self._server.control(request)
            self._write_plain(404 if said is None else 200, to_json(said or {}))
            return
        self._current = request
        answer = self._server.answer(request)
        if answer.status != 200 or answer.raw_body or not answer.is_instant:
            self._task = asyncio.create_task(self._play(request, answer))
            return
        events = b"".join(_events(request, answer))
        self._transport.write(b"%s%x\r\n%s\r\n0\r\n\r\n" % (_head(answer), len(events), events))
        self._finished(request)

    async def _play(self, request: Request, answer: Answer) -> None:
        if answer.delay_ms:
            await asyncio.sleep(answer.delay_ms / 1000)
        if answer.status != 200 or answer.raw_body:
            self._write_plain(answer.status, _error_body(answer), answer)
        elif not await self._stream(request, answer):
            return
        self._task = None
        self._finished(request)
        self._advance()

    async def _stream(self, request: Request, answer: Answer) -> bool:
        """Whether the connection lives on."""
        has_head = False
        for number, event in enumerate((*_events(request, answer), b"")):
            if number == answer.after_events and not await self._happens(answer, has_head=has_head):
                return answer.then != "die"
            if not has_head:
                self._transport.write(_head(answer))
                has_head = True
            if answer.event_delay_ms:
                await asyncio.sleep(answer.event_delay_ms / 1000)
            # The empty one stands for the end of the body.
            self._write_chunk(event)
        return True

    async def _happens(self, answer: Answer, *, has_head: bool) -> bool:
        """Do what the answer says happens here; whether it goes on afterwards."""
        if answer.then == "hang":
            await self._server.gate(answer.gate).wait()
            return True
        if answer.then == "die":
            # What was written must arrive before the connection breaks.
            await asyncio.sleep(0.01)
            self._transport.abort()
            return False
        if not has_head:
            self._transport.write(_head(answer))
        if answer.then == "error":
            self._write_chunk(_sse("error", _error(answer)))
        self._transport.write(b"0\r\n\r\n")
        return False

    def _write_chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _write_plain(self, status: int, body: bytes, answer: Answer | None = None) -> None:
        kind = (answer.content_type if answer else "") or "application/json"
        extra = _header_lines(answer.headers if answer else {})
        head = f"HTTP/1.1 {status} Scripted\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{extra}\r\n"
        self._transport.write(head.encode() + body)

    def _finished(self, request: Request) -> None:
        self._current = None
        self._server.ledger.note(request, "answered")


def _parsed(head: bytes) -> tuple[Request, int]:
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, target, headers, b""), int(headers.get("content-length", "0"))


def _head(answer: Answer) -> bytes:
    kind = answer.content_type or "text/event-stream; charset=utf-8"
    extra = _header_lines({"request-id": "req_scripted", **answer.headers})
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{extra}transfer-encoding: chunked\r\n\r\n".encode()


def _header_lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _error_body(answer: Answer) -> bytes:
    return answer.raw_body.encode() if answer.raw_body else to_json(_error(answer))


def _error(answer: Answer) -> Json:
    error: Json = {"type": answer.error_type, "message": answer.message}
    if answer.error_code:
        error["details"] = {"error_code": answer.error_code}
    return {"type": "error", "error": error, "request_id": "req_scripted"}


def _events(request: Request, answer: Answer) -> Iterator[bytes]:
    """The server-sent events of one answer."""
    input_usage = {**answer.usage, "output_tokens": 1}
    message: Json = {
        "id": f"msg_{request.fingerprint}_{request.turn}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or request.json.get("model", ""),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": input_usage,
    }
    yield _sse("message_start", {"message": message})
    blocks = answer.blocks or tuple(_blocks(request, answer))
    for index, block in enumerate(blocks):
        start, deltas = _split(block, answer.delta_size)
        yield _sse("content_block_start", {"index": index, "content_block": start})
        if index == 0:
            yield _sse("ping", {})
        for delta in deltas:
            yield _sse("content_block_delta", {"index": index, "delta": delta})
        yield _sse("content_block_stop", {"index": index})
    has_calls = any(block["type"] == "tool_use" for block in blocks)
    stop_reason = answer.stop_reason or ("tool_use" if has_calls else "end_turn")
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    output_usage = {
        name: answer.usage[name] for name in ("output_tokens", "output_tokens_details") if name in answer.usage
    }
    yield _sse("message_delta", {"delta": delta, "usage": output_usage})
    yield _sse("message_stop", {})


def _blocks(request: Request, answer: Answer) -> Iterator[Json]:
    if answer.thinking:
        yield {"type": "thinking", "thinking": answer.thinking, "signature": answer.signature}
    if answer.redacted:
        yield {"type": "redacted_thinking", "data": answer.redacted}
    if answer.text:
        yield {"type": "text", "text": answer.text}
    for index, call in enumerate(answer.calls):
        call_id = call.id or f"toolu_{request.fingerprint}_{request.turn}_{index}"
        yield {"type": "tool_use", "id": call_id, "name": call.name, "input": call.args}


def _split(block: Json, size: int) -> tuple[Json, list[Json]]:
    """A block as it starts, and the deltas that fill it."""
    match block["type"]:
        case "text":
            return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in _cut(block["text"], size)]
        case "thinking":
            pieces = _cut(block["thinking"], size)
            deltas: list[Json] = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return {**block, "thinking": "", "signature": ""}, deltas
        case "tool_use":
            text = block["input"] if isinstance(block["input"], str) else to_json(block["input"]).decode()
            # The real API opens every call with an empty piece.
            pieces = ["", *_cut(text if text != "{}" else "", size)]
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        case _:
            return block, []


def _cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)] if size else [text] if text else []


def _sse(name: str, data: Json) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), to_json({"type": name, **data}))


def load_script(name: str) -> Script:
    """A script from a JSON file of rules, or from a function written `path/to/file.py:function`."""
    path, _, function = name.partition(":")
    if not function:
        return Rules(json.loads(Path(path).read_text()))
    spec = importlib.util.spec_from_file_location("messages_server_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function)


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--script", required=True, help="rules.json or file.py:function")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--ledger", type=Path)
    options = parser.parse_args()
    server = MessagesServer(load_script(options.script), ledger=options.ledger, port=options.port, keeps_requests=False)
    await server.start()
    temporary = options.port_file.with_suffix(".tmp")
    temporary.write_text(str(server.port))
    temporary.rename(options.port_file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main())
