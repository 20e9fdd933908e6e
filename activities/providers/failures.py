"""Failures of model calls: what went wrong, whether repeating helps, and what people are told."""

import math
import re
import time
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Any, Literal

from ...core.failures import Failure, PerstackError
from ...core.usage import NO_USAGE, Usage

ProviderErrorKind = Literal[
    "rate_limited",
    "overloaded",
    "stream_broken",
    "auth",
    "not_found",
    "bad_request",
    "context_overflow",
    "quota",
    "content_refused",
    "unsupported",
    "tls",
    "proxy",
]
MAX_RETRY_AFTER_SECONDS = 300.0
MAX_MESSAGE = 600
SHORTEST_SECRET = 8
_RETRYABLE = frozenset[ProviderErrorKind]({"rate_limited", "overloaded", "stream_broken"})
_BY_STATUS: Mapping[int, ProviderErrorKind] = MappingProxyType(
    {
        401: "auth",
        402: "quota",
        403: "auth",
        404: "not_found",
        408: "overloaded",
        409: "overloaded",
        429: "rate_limited",
    }
)
_SAYS: Mapping[ProviderErrorKind, str] = MappingProxyType(
    {
        "rate_limited": "limits the rate of requests",
        "overloaded": "is overloaded or out of order",
        "stream_broken": "broke off its answer",
        "auth": "refused the credentials",
        "not_found": "does not know the model or the address",
        "bad_request": "refused the request",
        "context_overflow": "refused the request: the conversation is larger than the model's context window",
        "quota": "refused the request: the account's credit or spending limit is used up",
        "content_refused": "refused the content",
        "unsupported": "cannot take this request",
        "tls": "could not be trusted",
        "proxy": "could not be reached through the proxy",
    }
)
_REQUEST_IDS = ("request-id", "x-request-id", "apim-request-id", "x-amzn-requestid", "x-goog-request-id")
_WORDS_OF_RATE = ("rate limit", "too many requests")
_WORDS_OF_LOAD = ("timeout", "timed out", "service unavailable", "overloaded")
_SECRET_SHAPES = re.compile(r"\b[sp]k-[A-Za-z0-9_-]{8,}|(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}|(?<=://)[^/@\s]+@")


class ProviderError(PerstackError):
    """A model call failed; `kind` decides what happens next."""

    def __init__(
        self,
        kind: ProviderErrorKind,
        message: str,
        *,
        is_retryable: bool | None = None,
        status_code: int | None = None,
        retry_after_seconds: float | None = None,
        usage: Usage = NO_USAGE,
        hint: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=f"provider.{kind}", hint=hint, details=details)
        self.kind: ProviderErrorKind = kind
        self.is_retryable = kind in _RETRYABLE if is_retryable is None else is_retryable
        self.status_code = status_code
        self.retry_after_seconds = retry_after_seconds
        self.usage = usage
        """What the failed call cost, as far as the provider had said."""

    @property
    def failure(self) -> Failure:
        """This error as data."""
        return Failure(
            name=self.code, message=self.message, status_code=self.status_code, is_retryable=self.is_retryable
        )


def kind_of_status(status_code: int) -> ProviderErrorKind:
    """What an HTTP status means where nothing more is known."""
    if known := _BY_STATUS.get(status_code):
        return known
    return "overloaded" if status_code >= 500 else "bad_request"


def kind_of_text(text: str) -> ProviderErrorKind | None:
    """What an error without a status means, judged by its words (contract 2 §1.9); `None` when they say nothing."""
    lowered = text.lower()
    if any(word in lowered for word in _WORDS_OF_RATE):
        return "rate_limited"
    return "overloaded" if any(word in lowered for word in _WORDS_OF_LOAD) else None


def answered_error(
    provider: str,
    kind: ProviderErrorKind,
    text: str,
    *,
    status_code: int | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
    secrets: Iterable[str] = (),
    hint: str | None = None,
    retry_after: float | None = None,
) -> ProviderError:
    """The error of a provider that answered with one: its own words, its wish about repeating, no secrets."""
    request_id = next((headers[name] for name in _REQUEST_IDS if name in headers), None)
    told = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    status = f" ({status_code})" if status_code is not None else ""
    words = scrubbed(text, secrets).strip()
    return ProviderError(
        kind,
        f"{provider} {_SAYS[kind]}{status}{': ' + words if words else ''}",
        is_retryable=told,
        status_code=status_code,
        retry_after_seconds=retry_after_seconds(headers) if retry_after is None else _bounded(retry_after),
        hint=hint,
        details={"requestId": request_id} if request_id else None,
    )


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """How long a provider wants to be left alone: `retry-after-ms`, then `retry-after` in seconds or as a date."""
    try:
        wanted = float(headers["retry-after-ms"]) / 1000
    except (KeyError, ValueError):
        wanted = _seconds(headers.get("retry-after", ""))
    return None if wanted is None else _bounded(wanted)


def _bounded(seconds: float) -> float | None:
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """`text` for people: without any of `secrets` or what looks like one, and not too long."""
    for secret in secrets:
        # A shorter one is no secret, and would tear words apart.
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "***")
    text = _SECRET_SHAPES.sub("***", text)
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"
