"""Anthropic's Messages API over the official SDK, below its typed layer; importing this module imports the SDK."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import anthropic
import httpx2
from anthropic import AsyncAnthropic, AsyncStream, DefaultAsyncHttpxClient
from pydantic_core import from_json

from ...core.profiles.providers import PROVIDERS
from ...core.run import Generation
from .base import Deltas, ModelRequest
from .failures import ProviderError, ProviderErrorKind, answered_error, kind_of_status, kind_of_text
from .transport import (
    DRAIN_SECONDS,
    TRANSPORT_ERRORS,
    base_url_of,
    call_timeout,
    connection_error,
    headers_of,
    http_client,
    one_call,
    secrets_of,
    unfinished,
    unreadable,
)
from .wire.messages_answer import NOTHING, Answer, Piece
from .wire.messages_body import DROP_STALE_THINKING, Body, request_body
from .wire.parts import Json

PROFILE = PROVIDERS["anthropic"]
NAME = PROFILE.title
MAX_PAUSES = 20
"""How often one answer may be paused by the API, about ten uses of its tools each time."""
_BY_TYPE: Mapping[str, ProviderErrorKind] = MappingProxyType(
    {
        "overloaded_error": "overloaded",
        "api_error": "overloaded",
        "timeout_error": "overloaded",
        "conflict_error": "overloaded",
        "rate_limit_error": "rate_limited",
        "authentication_error": "auth",
        "permission_error": "auth",
        "not_found_error": "not_found",
        "billing_error": "quota",
        "invalid_request_error": "bad_request",
        "request_too_large": "bad_request",
    }
)
_BY_WORDS: tuple[tuple[str, ProviderErrorKind], ...] = (
    ("prompt is too long", "context_overflow"),
    ("exceed context limit", "context_overflow"),
    ("context window", "context_overflow"),
    ("credit balance", "quota"),
    ("usage limits", "quota"),
    ("spend limit", "quota"),
    ("content filtering", "content_refused"),
)
_QUOTA_CODES = ("spend_limit", "billing")
_STALE_THINKING = "bound to a different conversation"


class AnthropicProvider:
    """One configured client; the SDK's own retries are off, Temporal repeats."""

    def __init__(self, client: AsyncAnthropic, *, secrets: Sequence[str]) -> None:
        self._client = client
        self._secrets = tuple(secrets)

    async def generate(self, request: ModelRequest, deltas: Deltas) -> Generation:
        """One streamed answer."""
        try:
            return await self._answer(request, deltas)
        except ProviderError as error:
            # Tools or messages before a thinking block have changed since the model wrote it: the API wants to be
            # told, in this and every later request, that it may leave such blocks out.
            if _STALE_THINKING not in error.message or DROP_STALE_THINKING in request.cache.notes:
                raise
            request.cache.note(DROP_STALE_THINKING)
        return await self._answer(request, deltas)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _answer(self, request: ModelRequest, deltas: Deltas) -> Generation:
        body = request_body(request)
        answer = Answer(request.tools, body.tool_names)
        async with one_call(
            NAME,
            request.timeout_seconds,
            usage=lambda: answer.usage,
            errors=(anthropic.APIError, *TRANSPORT_ERRORS),
            translate=lambda error: provider_error(error, secrets=self._secrets),
        ):
            paused: list[Json] = []
            for _ in range(MAX_PAUSES + 1):
                stream = await self._post(body, body.content(paused, answer.container), request.timeout_seconds)
                async with stream:
                    await self._read(stream.response, answer, request, deltas)
                if not answer.is_paused:
                    return answer.generation()
                paused = answer.go_on()
            message = f"{NAME} paused its answer more than {MAX_PAUSES} times."
            raise ProviderError("stream_broken", message, is_retryable=False)

    async def _post(self, body: Body, content: bytes, timeout_seconds: float) -> AsyncStream[object]:
        headers = {"anthropic-beta": ",".join(body.betas)} if body.betas else {}
        return await self._client.post(
            "/v1/messages",
            content=content,
            cast_to=object,
            stream=True,
            stream_cls=AsyncStream[object],
            options={"headers": headers, "timeout": call_timeout(timeout_seconds)},
        )

    async def _read(self, response: httpx2.Response, answer: Answer, request: ModelRequest, deltas: Deltas) -> None:
        # The SDK's own iteration builds a model per event and knows only the events of its release.
        events = AsyncStream.raw_events(response)
        reported = answer.usage
        async for event in events:
            if event.event == "error":
                raise _stream_error(event.data, self._secrets)
            kind, piece = _fold(answer, event.event, event.data)
            if kind == "text":
                deltas.text(piece)
            elif kind == "reasoning":
                deltas.reasoning(piece)
            if answer.usage is not reported and request.on_usage is not None:
                reported = answer.usage
                request.on_usage(reported)
            if answer.is_complete:
                break
        else:
            raise unfinished(NAME, response)
        with suppress(httpx2.HTTPError, TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in events:
                    pass


def _fold(answer: Answer, name: str | None, data: str) -> Piece:
    if not data or name in (None, "ping"):
        return NOTHING
    try:
        return answer.take(from_json(data))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise unreadable(NAME) from None


def create_provider(name: str, env: Mapping[str, str], setting: Mapping[str, Any]) -> AnthropicProvider:
    """The provider of one configuration; `[provider.setting]` goes before the environment."""
    base_url, headers = base_url_of(PROFILE, env, setting), headers_of(setting)
    secrets = secrets_of(PROFILE, env, base_url, headers=headers)
    client = AsyncAnthropic(
        api_key=env["ANTHROPIC_API_KEY"].strip(),
        # Other SDKs take the address with its version, this one without.
        base_url=base_url.removesuffix("/v1"),
        max_retries=0,
        default_headers=headers,
        http_client=http_client(env, DefaultAsyncHttpxClient),
        open_telemetry=False,
    )
    return AnthropicProvider(client, secrets=secrets)


def provider_error(error: Exception, *, secrets: Sequence[str] = ()) -> ProviderError:
    """What an exception of this SDK, or of the HTTP client below it, means."""
    if not isinstance(error, anthropic.APIStatusError):
        was_connected = not isinstance(error, anthropic.APIConnectionError)
        return connection_error(NAME, error, secrets, was_connected=was_connected)
    text = error.api_message or ""
    kind = _kind(error.status_code, error.type, error.error_code, text)
    return answered_error(
        NAME,
        kind,
        text or error.response.reason_phrase,
        status_code=error.status_code,
        headers=error.response.headers,
        secrets=secrets,
        hint="Check ANTHROPIC_API_KEY." if kind == "auth" else None,
    )


def _stream_error(data: str, secrets: Sequence[str]) -> ProviderError:
    """What an `error` event means; the status, sent long before, was 200."""
    try:
        detail: dict[str, Any] = from_json(data).get("error") or {}
    except (ValueError, AttributeError):
        detail = {}
    text = str(detail.get("message") or "")
    details: dict[str, Any] = detail.get("details") or {}
    return answered_error(NAME, _kind(None, detail.get("type"), details.get("error_code"), text), text, secrets=secrets)


def _kind(status: int | None, error_type: str | None, code: str | None, text: str) -> ProviderErrorKind:
    if error_type == "billing_error" or (code and any(word in code for word in _QUOTA_CODES)):
        return "quota"
    if status in (None, 400, 413):
        lowered = text.lower()
        for words, kind in _BY_WORDS:
            if words in lowered:
                return kind
    if status is not None:
        return kind_of_status(status)
    return _BY_TYPE.get(error_type or "") or kind_of_text(text) or "stream_broken"
