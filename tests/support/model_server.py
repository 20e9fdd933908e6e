"""A scripted server that speaks the providers' APIs over real HTTP; answers by content, never by arrival order.

In a test: `async with ModelServer(script) as server: … server.url …`.
As a process, `tests` being on the path: `python -m support.model_server --script rules.json --port-file port`.
"""

import argparse
import asyncio
import importlib.util
import json
import os
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic_core import to_json
from support.protocols import protocol_at
from support.protocols.base import Answer, Call, Json, Request, Script

__all__ = ["Answer", "Call", "Json", "Ledger", "ModelServer", "Request", "Rules", "Script", "answer_from"]


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
            if wanted != request.model:
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


class ModelServer:
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

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._open)

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
            return Answer(status=400, message=f"model_server: {error}")

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

    def __init__(self, server: ModelServer) -> None:
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
        said = request.protocol.plain(request) if request.protocol is not None else self._server.control(request)
        if request.protocol is None or said is not None:
            self._write_plain(404 if said is None else 200, to_json(said or {}))
            return
        self._current = request
        answer = self._server.answer(request)
        if answer.status != 200 or answer.raw_body or not answer.is_instant:
            self._task = asyncio.create_task(self._play(request, answer))
            return
        events = b"".join(request.wire.events(request, answer))
        self._transport.write(b"%s%x\r\n%s\r\n0\r\n\r\n" % (_head(request, answer), len(events), events))
        self._finished(request)

    async def _play(self, request: Request, answer: Answer) -> None:
        if answer.delay_ms:
            await asyncio.sleep(answer.delay_ms / 1000)
        if answer.status != 200 or answer.raw_body:
            self._write_plain(answer.status, _error_body(request, answer), answer)
        elif not await self._stream(request, answer):
            return
        self._task = None
        self._finished(request)
        self._advance()

    async def _stream(self, request: Request, answer: Answer) -> bool:
        """Whether the connection lives on."""
        has_head = False
        for number, event in enumerate((*request.wire.events(request, answer), b"")):
            if number == answer.after_events and not await self._happens(request, answer, has_head=has_head):
                return answer.then != "die"
            if not has_head:
                self._transport.write(_head(request, answer))
                has_head = True
            if answer.event_delay_ms:
                await asyncio.sleep(answer.event_delay_ms / 1000)
            # The empty one stands for the end of the body.
            self._write_chunk(event)
        return True

    async def _happens(self, request: Request, answer: Answer, *, has_head: bool) -> bool:
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
            self._transport.write(_head(request, answer))
        if answer.then == "error":
            self._write_chunk(request.wire.stream_error(answer))
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
    request = Request(method, target, headers, b"", protocol_at(urlsplit(target).path))
    return request, int(headers.get("content-length", "0"))


def _error_body(request: Request, answer: Answer) -> bytes:
    return answer.raw_body.encode() if answer.raw_body else request.wire.error_body(answer)


def _head(request: Request, answer: Answer) -> bytes:
    kind = answer.content_type or request.wire.content_type
    extra = _header_lines({"request-id": "req_scripted", **answer.headers})
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n{extra}transfer-encoding: chunked\r\n\r\n".encode()


def _header_lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def load_script(name: str) -> Script:
    """A script from a JSON file of rules, or from a function written `path/to/file.py:function`."""
    path, _, function = name.partition(":")
    if not function:
        return Rules(json.loads(Path(path).read_text()))
    spec = importlib.util.spec_from_file_location("model_server_script", path)
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
    server = ModelServer(load_script(options.script), ledger=options.ledger, port=options.port, keeps_requests=False)
    await server.start()
    temporary = options.port_file.with_suffix(".tmp")
    temporary.write_text(str(server.port))
    temporary.rename(options.port_file)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main())
