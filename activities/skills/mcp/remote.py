"""A skill on the network: streamable HTTP first, and where the endpoint does not speak it, HTTP with SSE."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Protocol, Self, cast

import httpx2
import mcp_types as mcp
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from ..endpoints import EndpointPolicy
from .lenient import with_readable_schemas
from .process import MAX_MESSAGE_BYTES

SSE_STATUSES = frozenset({400, 404, 405})
"""Answers to the POST of `initialize` after which a client looks for the older transport.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#backwards-compatibility
"""
_HTTP_SECONDS = 30.0
_ANY_SECONDS = 7 * 24 * 3600.0
"""A stream may be silent for as long as its calls may take, and those have their own limit."""

_Item = SessionMessage | Exception


class _Incoming(Protocol):
    """What the client reads from."""

    async def receive(self) -> _Item: ...
    async def aclose(self) -> None: ...


class RemoteServer:
    """One connection to an MCP server of the network; `connect` may be entered once."""

    spawn_ms: float | None = None

    def __init__(self, endpoint: str, *, endpoints: EndpointPolicy, allowed_domains: tuple[str, ...]) -> None:
        self._endpoint = endpoint
        self._endpoints = endpoints
        self._allowed_domains = allowed_domains
        self._status: int | None = None
        self._is_connected = False
        self._has_ended = False
        self.on_unstopped: Callable[[], None] = lambda: None

    @property
    def is_lost(self) -> bool:
        """Whether the server ended the connection."""
        return self._has_ended

    @property
    def has_failed(self) -> bool:
        """Never known here: what failed is in the exception."""
        return False

    @property
    def status(self) -> int | None:
        """The HTTP status of the last answer while connecting."""
        return self._status

    async def settled(self) -> None:
        """Nothing to wait for: what runs elsewhere was told to stop."""

    async def ending(self) -> str:
        """What happened to the connection, in words that follow the server's name."""
        return "ended the connection"

    def evidence(self) -> str:
        """What else is known: the HTTP status, if it was an error."""
        if self._status is None or self._status < httpx2.codes.BAD_REQUEST:
            return ""
        return f"\nThe endpoint answered with HTTP status {self._status}."

    @asynccontextmanager
    async def connect(self, client_info: mcp.Implementation) -> AsyncGenerator[Client]:
        """The client of this endpoint, over the transport that it speaks."""
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(self._http_client())
            http.timeout = httpx2.Timeout(_HTTP_SECONDS, read=_ANY_SECONDS)
            streamable = streamable_http_client(self._endpoint, http_client=http, max_sse_event_size=MAX_MESSAGE_BYTES)
            try:
                client = await stack.enter_async_context(self._client(streamable, "auto", client_info))
            except Exception:
                if self._status not in SSE_STATUSES:
                    raise
                self._has_ended = False
                client = await stack.enter_async_context(self._client(self._sse(), "legacy", client_info))
            self._is_connected = True
            yield client

    def _client(self, transport: AbstractAsyncContextManager[Any], mode: str, info: mcp.Implementation) -> Client:
        return Client(self._watched(transport), mode=mode, cache=None, client_info=info)

    def _sse(self) -> AbstractAsyncContextManager[Any]:
        def factory(
            headers: dict[str, str] | None = None,
            timeout: httpx2.Timeout | None = None,
            auth: httpx2.Auth | None = None,
        ) -> httpx2.AsyncClient:
            client = self._http_client(headers)
            client.timeout = timeout
            return client

        return sse_client(
            self._endpoint, timeout=_HTTP_SECONDS, sse_read_timeout=_ANY_SECONDS, httpx_client_factory=factory
        )

    def _http_client(self, headers: dict[str, str] | None = None) -> httpx2.AsyncClient:
        client = self._endpoints.http_client(self._allowed_domains, headers=headers or {})
        hooks = client.event_hooks
        client.event_hooks = {**hooks, "response": [*hooks.get("response", []), self._see]}
        return client

    async def _see(self, response: httpx2.Response) -> None:
        """Note how the handshake is answered."""
        if not self._is_connected and _is_handshake(response.request):
            self._status = response.status_code

    @asynccontextmanager
    async def _watched(self, transport: AbstractAsyncContextManager[Any]) -> AsyncGenerator[tuple[Any, Any]]:
        async with transport as (read, write):
            yield _Watched(read, self._note_end), write

    def _note_end(self) -> None:
        self._has_ended = True


class _Watched:
    """A read side that tells when it ends."""

    def __init__(self, inner: _Incoming, on_end: Callable[[], None]) -> None:
        self._inner = inner
        self._on_end = on_end

    @property
    def last_context(self) -> Any:
        """Where the last item came from, for tracing."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> _Item:
        return await self._inner.receive()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _Item:
        try:
            item = await cast("AsyncIterator[_Item]", self._inner).__anext__()
        except StopAsyncIteration:
            self._on_end()
            raise
        if isinstance(item, SessionMessage):
            with_readable_schemas(item.message)
        return item

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool | None:
        await self.aclose()
        return None


def _is_handshake(request: httpx2.Request) -> bool:
    if request.method != "POST":
        return False
    try:
        message: object = json.loads(request.content)
    except (httpx2.RequestNotRead, ValueError):
        return False
    return isinstance(message, dict) and cast("dict[str, object]", message).get("method") in (
        "initialize",
        "server/discover",
    )
