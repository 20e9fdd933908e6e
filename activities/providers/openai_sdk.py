"""What the providers over the `openai` SDK share, below its typed layer: client, streams, errors."""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAsyncHttpxClient
from pydantic_core import from_json

from ...core.profiles.provider import ProviderProfile
from .failures import ProviderError, ProviderErrorKind, answered_error, kind_of_status, kind_of_text
from .transport import DRAIN_SECONDS, TRANSPORT_ERRORS, call_timeout, connection_error, http_client, unreadable

SDK_ERRORS: tuple[type[Exception], ...] = (openai.OpenAIError, *TRANSPORT_ERRORS)
"""What may leave a call of this SDK; `provider_error` knows them all."""
DONE = "[DONE]"
"""The data of the event that ends a stream of Chat Completions."""
_BY_CODE: Mapping[str, ProviderErrorKind] = MappingProxyType(
    {
        "context_length_exceeded": "context_overflow",
        "insufficient_quota": "quota",
        "billing_not_active": "quota",
        "billing_hard_limit_reached": "quota",
        "credit_balance_exhausted": "quota",
        "organization_spend_limit_exceeded": "quota",
        "organization_usage_limit_exceeded": "quota",
        "project_spend_limit_exceeded": "quota",
        "content_filter": "content_refused",
        "content_policy_violation": "content_refused",
        "image_content_policy_violation": "content_refused",
        "moderation_blocked": "content_refused",
        "bio_policy": "content_refused",
        "cyber_policy": "content_refused",
        "misalignment_policy_violation": "content_refused",
        "rate_limit_exceeded": "rate_limited",
        "rate_limit_error": "rate_limited",
        "slow_down": "rate_limited",
        "too_many_requests": "rate_limited",
        "tokens": "rate_limited",
        "requests": "rate_limited",
        "invalid_api_key": "auth",
        "authentication_error": "auth",
        "permission_error": "auth",
        "permission_denied": "auth",
        "model_not_found": "not_found",
        "deploymentnotfound": "not_found",
        "not_found_error": "not_found",
        "server_error": "overloaded",
        "internal_server_error": "overloaded",
        "internal_error": "overloaded",
        "server_is_overloaded": "overloaded",
        "service_unavailable": "overloaded",
        "service_unavailable_error": "overloaded",
        "overloaded_error": "overloaded",
        "engine_overloaded": "overloaded",
        "vector_store_timeout": "overloaded",
        "timeout": "overloaded",
        "invalid_request_error": "bad_request",
        "invalid_prompt": "bad_request",
        "data_residency_mismatch": "bad_request",
        "invalid_image": "bad_request",
        "invalid_image_format": "bad_request",
        "invalid_base64_image": "bad_request",
        "invalid_image_url": "bad_request",
        "invalid_image_mode": "bad_request",
        "image_too_large": "bad_request",
        "image_too_small": "bad_request",
        "image_parse_error": "bad_request",
        "image_file_too_large": "bad_request",
        "image_file_not_found": "bad_request",
        "unsupported_image_media_type": "bad_request",
        "empty_image_file": "bad_request",
        "failed_to_download_image": "bad_request",
    }
)
"""Codes and types of errors, in lower case: the error guide of OpenAI, `ResponseError` of the SDK, Azure's own."""
_BY_WORDS: tuple[tuple[str, ProviderErrorKind], ...] = (
    ("context window", "context_overflow"),
    ("context length", "context_overflow"),
    ("context size", "context_overflow"),
    ("prompt is too long", "context_overflow"),
    ("usage policy", "content_refused"),
    ("content management policy", "content_refused"),
    ("content filter", "content_refused"),
    ("exceeded your current quota", "quota"),
    ("insufficient balance", "quota"),
    ("spending limit", "quota"),
)
_TRY_AGAIN = re.compile(r"(?:try again in|retry after) ((?:\d+(?:\.\d+)?\s*[a-z]+)+)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)", re.IGNORECASE)
_UNITS: Mapping[str, float] = MappingProxyType(
    {
        "ms": 0.001,
        "millisecond": 0.001,
        "s": 1,
        "sec": 1,
        "second": 1,
        "m": 60,
        "min": 60,
        "minute": 60,
        "h": 3600,
        "hour": 3600,
        "d": 86400,
    }
)
_LIMITED = ("requests", "tokens")


class Event(NamedTuple):
    """One server-sent event as it came."""

    name: str | None
    data: str


class EventStream(AsyncStream[object]):
    """A stream whose events are taken as they come: the SDK's own iteration builds a model of each."""

    async def events(self) -> AsyncGenerator[Event]:
        """Every event, `DONE` included.

        Raises:
            openai.APIConnectionError: the connection broke; the cause says how.
            UnicodeDecodeError: a line is not UTF-8.
        """
        async for event in self._iter_events():
            yield Event(event.event, event.data)


class OpenAIClient(AsyncOpenAI):
    """The SDK's client, its retries off (Temporal repeats), configured by nothing but its arguments.

    The SDK would also take credentials, headers and an organization from the variables of the process, and send them
    to whichever provider the base URL names.
    """

    def __init__(
        self,
        *,
        base_url: str,
        auth: Mapping[str, str],
        headers: Mapping[str, str],
        env: Mapping[str, str],
        organization: str | None = None,
        project: str | None = None,
        query: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """`auth` holds the headers that carry the credentials; `headers` go before them. `env` names the proxy."""
        super().__init__(
            api_key="",
            base_url=base_url,
            max_retries=0,
            default_query=query,
            http_client=http_client(env, DefaultAsyncHttpxClient),
            _enforce_credentials=False,
        )
        self.admin_api_key = None
        self.organization = organization
        self.project = project
        self._auth = dict(auth)
        self._custom_headers = dict(headers)

    @property
    def user_agent(self) -> str:
        """The SDK's own: it would put the name of this class there."""
        return f"AsyncOpenAI/Python {openai.__version__}"

    def _auth_headers(self, security: object) -> dict[str, str]:
        return self._auth

    def _validate_headers(self, headers: object, custom_headers: object) -> None:
        """A server of the user may want no credentials."""


async def post_stream(
    client: AsyncOpenAI,
    path: str,
    content: bytes,
    *,
    timeout_seconds: float,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> EventStream:
    """Send the body of a streaming call; use the stream in `async with`, so that it is closed whatever happens."""
    return await client.post(
        path,
        content=content,
        cast_to=object,
        stream=True,
        stream_cls=EventStream,
        # A redirect would carry the conversation, and keys in headers of their own, to an address nobody configured.
        options={"headers": dict(headers), "timeout": call_timeout(timeout_seconds), "follow_redirects": False},
    )


async def stream_events(
    profile: ProviderProfile, stream: EventStream, *, secrets: Sequence[str]
) -> AsyncGenerator[Event]:
    """The events of an answer; a connection that breaks is an error of the provider.

    Raises:
        ProviderError: the connection broke, or what came is no text.
    """
    async with aclosing(stream.events()) as events:
        try:
            async for event in events:
                yield event
        except openai.APIConnectionError as error:
            raise connection_error(profile.title, error, secrets, was_connected=True) from None
        except UnicodeDecodeError:
            raise unreadable(profile.title) from None


async def drain(events: AsyncGenerator[Event]) -> None:
    """Read a finished answer to the end of its body, for a moment, so that its connection can be used again."""
    with suppress(ProviderError, httpx2.HTTPError, TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in events:
                pass


def event_data(profile: ProviderProfile, data: str) -> dict[str, Any]:
    """The JSON object an event carries.

    Raises:
        ProviderError: it carries something else.
    """
    try:
        found = from_json(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise unreadable(profile.title)
    return found  # pyright: ignore[reportUnknownVariableType]


def provider_error(profile: ProviderProfile, error: Exception, *, secrets: Sequence[str] = ()) -> ProviderError:
    """What an exception of this SDK, or of the HTTP client below it, means."""
    if not isinstance(error, openai.APIStatusError):
        was_connected = not isinstance(error, openai.APIConnectionError)
        return connection_error(profile.title, error, secrets, was_connected=was_connected)
    text = _words(error.body)
    kind = error_kind(error.status_code, error.code, error.type, text)
    headers = error.response.headers
    return answered_error(
        profile.title,
        kind,
        text or error.response.reason_phrase,
        status_code=error.status_code,
        headers=headers,
        secrets=secrets,
        hint=_hint(profile, kind, error.status_code),
        retry_after=_retry_after(headers, text) if kind in ("rate_limited", "overloaded") else None,
    )


def stream_error(profile: ProviderProfile, detail: Mapping[str, Any], *, secrets: Sequence[str] = ()) -> ProviderError:
    """What an error inside a stream means; the status, sent long before, was 200."""
    text = _words(detail)
    kind = error_kind(None, detail.get("code"), detail.get("type"), text)
    return answered_error(
        profile.title,
        kind,
        text,
        secrets=secrets,
        hint=_hint(profile, kind, None),
        retry_after=_asked_to_wait(text) if kind in ("rate_limited", "overloaded") else None,
    )


def error_kind(status: int | None, code: object, error_type: object, text: str) -> ProviderErrorKind:
    """What an error means: its code says most, then its words where the status is of the general sort, then that."""
    by_code = _BY_CODE.get(str(code).lower())
    if by_code not in (None, "bad_request"):
        return by_code
    by_type = _BY_CODE.get(str(error_type).lower())
    if by_type == "quota":
        return by_type
    if status in (None, 400, 412, 413, 422, 429):
        lowered = text.lower()
        for words, kind in _BY_WORDS:
            if words in lowered:
                return kind
    if status is not None:
        return kind_of_status(status)
    return by_code or by_type or kind_of_text(text) or "stream_broken"


def _words(body: object) -> str:
    """The message of an error, in whichever of the common forms it comes."""
    match body:
        case {"message": str(text)} | {"detail": str(text)} | {"error": str(text)}:
            return text
        case str(text) if not text.lstrip().startswith("<"):
            return text
        case _:
            # Whatever else it is, a page of a gateway or an unknown object, people could not read it.
            return ""


def _hint(profile: ProviderProfile, kind: ProviderErrorKind, status: int | None) -> str | None:
    if status is not None and 300 <= status < 400:
        return "Correct the base URL: the address answers with a redirect, which is not followed."
    return f"Check {profile.credentials[0]}." if kind == "auth" and profile.credentials else None


def _retry_after(headers: Mapping[str, str], text: str) -> float | None:
    """Seconds to wait, where `retry-after` does not say: the words of the error, then when the limits are full again.

    `x-ratelimit-reset-*` are durations such as `6m0s` or `12ms` (OpenAI) or seconds (Azure).
    """
    if "retry-after" in headers or "retry-after-ms" in headers:
        return None
    if (asked := _asked_to_wait(text)) is not None:
        return asked
    is_used_up = [limit for limit in _LIMITED if headers.get(f"x-ratelimit-remaining-{limit}") == "0"]
    resets = (_seconds(headers.get(f"x-ratelimit-reset-{limit}", "")) for limit in is_used_up or _LIMITED)
    return max((seconds for seconds in resets if seconds), default=None)


def _asked_to_wait(text: str) -> float | None:
    match = _TRY_AGAIN.search(text)
    return _seconds(match[1]) if match else None


def _seconds(duration: str) -> float | None:
    try:
        seconds = float(duration)
        return seconds if math.isfinite(seconds) and seconds > 0 else None
    except ValueError:
        pass
    total = 0.0
    for number, unit in _DURATION.findall(duration):
        unit = unit.lower()
        size = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s"))
        if size is None:
            return None
        total += float(number) * size
    return total or None
