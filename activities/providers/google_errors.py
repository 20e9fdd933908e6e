"""What errors of Google's APIs mean (https://google.aip.dev/193: a status, and details by type)."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from google.auth.exceptions import GoogleAuthError, TransportError
from google.genai.errors import APIError

from ...core.profiles.provider import ProviderProfile
from .failures import ProviderError, ProviderErrorKind, answered_error, kind_of_status, kind_of_text, scrubbed
from .transport import connection_error
from .wire.parts import Json

_BY_STATUS: Mapping[str, ProviderErrorKind] = MappingProxyType(
    {
        "ABORTED": "overloaded",
        "CANCELLED": "overloaded",
        "DEADLINE_EXCEEDED": "overloaded",
        "INTERNAL": "overloaded",
        "UNAVAILABLE": "overloaded",
        "UNKNOWN": "overloaded",
        "RESOURCE_EXHAUSTED": "rate_limited",
        "UNAUTHENTICATED": "auth",
        "PERMISSION_DENIED": "auth",
        "NOT_FOUND": "not_found",
        "INVALID_ARGUMENT": "bad_request",
        "FAILED_PRECONDITION": "bad_request",
        "OUT_OF_RANGE": "bad_request",
    }
)
_BY_REASON: Mapping[str, ProviderErrorKind] = MappingProxyType(
    {"API_KEY_INVALID": "auth", "BILLING_DISABLED": "quota", "ACCOUNT_STATE_INVALID": "auth"}
)
_BY_WORDS: tuple[tuple[str, ProviderErrorKind], ...] = (
    ("exceeds the maximum number of tokens", "context_overflow"),
    ("input token count", "context_overflow"),
    ("input context is too long", "context_overflow"),
    ("api key not valid", "auth"),
    ("api key expired", "auth"),
    ("enable billing", "quota"),
    ("prepayment credits", "quota"),
    ("spending cap", "quota"),
    ("spend cap", "quota"),
)
_HINTS: Mapping[str, str] = MappingProxyType(
    {
        "GOOGLE_GENERATIVE_AI_API_KEY": "Check GOOGLE_GENERATIVE_AI_API_KEY.",
        "GOOGLE_APPLICATION_CREDENTIALS": "Check GOOGLE_APPLICATION_CREDENTIALS, and what they may do in the project.",
    }
)


def status_error(profile: ProviderProfile, error: APIError, secrets: Sequence[str]) -> ProviderError:
    """What an answer with an error status means."""
    untyped: Any = error
    detail = _detail(untyped.details)
    headers: Mapping[str, str] = getattr(untyped.response, "headers", None) or {}
    text = str(detail.get("message") or "") or str(getattr(untyped.response, "reason_phrase", ""))
    return _answered(profile, detail, text, secrets, status_code=error.code, headers=headers)


def event_error(profile: ProviderProfile, detail: Json, secrets: Sequence[str]) -> ProviderError:
    """What an error inside a stream means; the status, sent long before, was 200."""
    return _answered(profile, detail, str(detail.get("message") or ""), secrets)


def auth_error(profile: ProviderProfile, error: GoogleAuthError, secrets: Sequence[str]) -> ProviderError:
    """What it means that there was no token to send."""
    if isinstance(error, TransportError):
        return connection_error(profile.title, error, secrets, was_connected=False)
    words = scrubbed(str(error.args[0]) if error.args else type(error).__name__, secrets)
    if cast("Any", error).retryable:
        return ProviderError("overloaded", f"{profile.title} gave no token: {words}")
    return ProviderError("auth", f"{profile.title} refused the credentials: {words}", hint=_hint(profile))


def _answered(
    profile: ProviderProfile,
    detail: Json,
    text: str,
    secrets: Sequence[str],
    *,
    status_code: int | None = None,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> ProviderError:
    kind = _kind(status_code, detail, text)
    return answered_error(
        profile.title,
        kind,
        text,
        status_code=status_code,
        headers=headers,
        secrets=secrets,
        hint=_hint(profile) if kind == "auth" else None,
        retry_after=_retry_after(detail),
    )


def _kind(status_code: int | None, detail: Json, text: str) -> ProviderErrorKind:
    for item in _details(detail):
        if known := _BY_REASON.get(str(item.get("reason", ""))):
            return known
        if any("perday" in _quota_name(violation) for violation in item.get("violations") or ()):
            return "quota"
    if status_code in (None, 400, 413, 429):
        lowered = text.lower()
        for words, kind in _BY_WORDS:
            if words in lowered:
                return kind
    status = str(detail.get("status") or "")
    if status_code is not None:
        # 499 and its like have no meaning of their own here.
        return _BY_STATUS.get(status, "bad_request") if 429 < status_code < 500 else kind_of_status(status_code)
    if known := _BY_STATUS.get(status):
        return known
    code = detail.get("code")
    if isinstance(code, int) and code >= 400:
        return kind_of_status(code)
    return kind_of_text(text) or "stream_broken"


def _quota_name(violation: Json) -> str:
    return f"{violation.get('quotaId', '')} {violation.get('subject', '')}".replace("_", "").lower()


def _retry_after(detail: Json) -> float | None:
    """The wish of a `google.rpc.RetryInfo`, such as `34s` or `34.07s`."""
    for item in _details(detail):
        try:
            return float(str(item["retryDelay"]).removesuffix("s"))
        except (KeyError, ValueError):
            continue
    return None


def _details(detail: Json) -> Iterator[Json]:
    for item in detail.get("details") or ():
        if isinstance(item, dict):
            yield cast("Json", item)


def _detail(body: object) -> Json:
    """The error in a body; an error page, which the SDK would quote, says nothing."""
    error = cast("Json", body).get("error") if isinstance(body, dict) else None
    return cast("Json", error) if isinstance(error, dict) else {}


def _hint(profile: ProviderProfile) -> str | None:
    return next((_HINTS[name] for name in profile.credentials if name in _HINTS), None)
