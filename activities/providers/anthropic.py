"""Anthropic's Messages API over the official SDK, below its typed layer; importing this module imports the SDK."""

import asyncio
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import anthropic
import httpx2
from anthropic import AsyncAnthropic, AsyncStream, DefaultAsyncHttpxClient
from pydantic_core import from_json

from ...core.failures import CredentialError
from ...core.run import Generation
from .anthropic_answer import NOTHING, Answer, Piece
from .anthropic_body import DROP_STALE_THINKING, Body, request_body
from .base import Deltas, ModelRequest
from .failures import ProviderError, ProviderErrorKind, answered_error, kind_of_status, kind_of_text, scrubbed
from .registry import PROXY_VARIABLE

NAME = "Anthropic"
DEFAULT_BASE_URL = "https://api.anthropic.com"
LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
CONNECT_SECONDS = 10.0
DRAIN_SECONDS = 1.0
"""How long a finished stream may take to end, so that its connection can be used again."""
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
        try:
            async with asyncio.timeout(request.timeout_seconds):
                stream = await self._post(body, request.timeout_seconds)
                async with stream:
                    await self._read(stream.response, answer, request, deltas)
        except TimeoutError:
            message = f"{NAME} did not finish its answer within the timeout of {request.timeout_seconds:g} s."
            raise ProviderError("overloaded", message, usage=answer.usage) from None
        except (anthropic.APIError, httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
            # `from None`: the SDK's messages quote whole bodies.
            raise _with_usage(provider_error(error, secrets=self._secrets), answer) from None
        except ProviderError as error:
            raise _with_usage(error, answer) from None
        return answer.generation()

    async def _post(self, body: Body, timeout_seconds: float) -> AsyncStream[object]:
        headers = {"anthropic-beta": ",".join(body.betas)} if body.betas else {}
        timeout = httpx2.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds))
        return await self._client.post(
            "/v1/messages",
            content=body.content,
            cast_to=object,
            stream=True,
            stream_cls=AsyncStream[object],
            options={"headers": headers, "timeout": timeout},
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
            raise _unfinished(response)
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
        raise ProviderError("stream_broken", f"{NAME} sent an event that cannot be read.") from None


def create_provider(env: Mapping[str, str], setting: Mapping[str, Any]) -> AnthropicProvider:
    """The provider of one configuration; `[provider.setting]` goes before the environment."""
    api_key = env["ANTHROPIC_API_KEY"].strip()
    base_url = str(setting.get("baseUrl") or env.get("ANTHROPIC_BASE_URL") or DEFAULT_BASE_URL).strip()
    given: Mapping[str, Any] = setting.get("headers") or {}
    headers = {name: str(value) for name, value in given.items()}
    proxy = env.get(PROXY_VARIABLE, "").strip()
    secrets = [api_key, _password(base_url), _password(proxy), *(text for text in headers.values() if len(text) >= 8)]
    client = AsyncAnthropic(
        api_key=api_key,
        # Other SDKs take the address with its version, this one without.
        base_url=base_url.rstrip("/").removesuffix("/v1"),
        max_retries=0,
        default_headers=headers,
        # Below an explicit proxy the SDK's own client would still let HTTPS_PROXY win.
        http_client=httpx2.AsyncClient(proxy=proxy, limits=LIMITS) if proxy else DefaultAsyncHttpxClient(),
        open_telemetry=False,
    )
    return AnthropicProvider(client, secrets=secrets)


def _password(url: str) -> str:
    """The password in `url`, which errors may quote.

    Raises:
        CredentialError: `url` is none.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise CredentialError(f"Not a URL for {NAME}: {error}") from None
    if url and parsed.scheme not in ("http", "https", "socks5", "socks5h"):
        raise CredentialError(f"Not a URL for {NAME}: `{parsed.scheme or url}` is no scheme of HTTP")
    return parsed.password


def provider_error(error: Exception, *, secrets: Sequence[str] = ()) -> ProviderError:
    """What an exception of this SDK, or of the HTTP client below it, means."""
    if not isinstance(error, anthropic.APIStatusError):
        return _connection_error(error, secrets)
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


def _connection_error(error: Exception, secrets: Sequence[str]) -> ProviderError:
    """What a connection that was never made, or broke, means; the deepest cause says why."""
    causes = list(_causes(error))
    place = f"{NAME} at {_host(error)}"
    reason = scrubbed(str(causes[-1]) or type(causes[-1]).__name__, secrets)
    for cause in causes:
        match cause:
            case ssl.SSLCertVerificationError():
                hint = "Trust its certificate authority with SSL_CERT_FILE, or correct the base URL."
                return ProviderError("tls", f"{place} could not be trusted: {reason}", hint=hint)
            case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
                return ProviderError("tls", f"{place} does not speak TLS.", hint="Correct the base URL.")
            case httpx2.ProxyError():
                message = f"{NAME} could not be reached through the proxy: {reason}"
                hint = f"Check {PROXY_VARIABLE}."
                return ProviderError("proxy", message, is_retryable=not reason.startswith("4"), hint=hint)
            case httpx2.LocalProtocolError():
                # Its text quotes the header.
                return ProviderError("bad_request", f"A header of the request to {NAME} cannot be sent.")
            case httpx2.TimeoutException():
                return ProviderError("overloaded", f"{place} did not answer in time.")
            case _:
                pass
    if isinstance(error, anthropic.APIConnectionError):
        return ProviderError("overloaded", f"{place} cannot be reached: {reason}")
    return ProviderError("stream_broken", f"The connection to {place} broke off: {reason}")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what caused it, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _host(error: Exception) -> str:
    request = getattr(error, "request", None) if isinstance(error, anthropic.APIError | httpx2.HTTPError) else None
    return request.url.netloc.decode() if isinstance(request, httpx2.Request) else "its address"


def _unfinished(response: httpx2.Response) -> ProviderError:
    content_type = response.headers.get("content-type", "")
    if content_type.startswith("text/event-stream"):
        return ProviderError("stream_broken", f"{NAME} ended its answer in the middle.")
    message = f"{NAME} at {response.request.url.netloc.decode()} answered with `{content_type}`, not with a stream."
    return ProviderError("stream_broken", message, hint="Check the base URL.")


def _with_usage(error: ProviderError, answer: Answer) -> ProviderError:
    error.usage = answer.usage
    return error
