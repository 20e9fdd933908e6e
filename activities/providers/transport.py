"""What the SDKs over httpx2 share: the HTTP client, one bounded call, and what a lost connection means."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from ...core.failures import CredentialError
from ...core.profiles.provider import ProviderProfile
from ...core.usage import Usage
from .failures import ProviderError, scrubbed
from .registry import PROXY_VARIABLE

LIMITS = httpx2.Limits(max_connections=1000, max_keepalive_connections=100)
CONNECT_SECONDS = 10.0
DRAIN_SECONDS = 1.0
"""How long a finished stream may take to end, so that its connection can be used again."""
TRANSPORT_ERRORS = (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError)


def proxy_of(env: Mapping[str, str]) -> str:
    """The proxy for provider traffic, or nothing."""
    return env.get(PROXY_VARIABLE, "").strip()


def http_client(env: Mapping[str, str], default: Callable[[], httpx2.AsyncClient]) -> httpx2.AsyncClient:
    """A client through `PERSTACK_PROXY_URL`, or what the SDK would make itself."""
    proxy = proxy_of(env)
    # Below an explicit proxy the SDK's own client would still let HTTPS_PROXY win.
    return httpx2.AsyncClient(proxy=proxy, limits=LIMITS) if proxy else default()


def call_timeout(seconds: float) -> httpx2.Timeout:
    """The timeout of one call; connecting has a shorter one."""
    return httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))


def base_url_of(profile: ProviderProfile, env: Mapping[str, str], setting: Mapping[str, Any]) -> str:
    """The address: `[provider.setting]` before the variable before the default; empty where there is none."""
    given = setting.get("baseUrl") or env.get(profile.base_url_env, "").strip() or profile.base_url
    return str(given).strip().rstrip("/")


def headers_of(setting: Mapping[str, Any]) -> dict[str, str]:
    """The headers of `[provider.setting]`."""
    given: Mapping[str, Any] = setting.get("headers") or {}
    return {name: str(value) for name, value in given.items()}


def secrets_of(
    profile: ProviderProfile, env: Mapping[str, str], *urls: str, headers: Mapping[str, str]
) -> tuple[str, ...]:
    """What errors must never quote: credentials, passwords in addresses, the values of headers.

    Raises:
        CredentialError: one of `urls`, or the proxy, is no URL.
    """
    credentials = (env.get(name, "").strip() for name in profile.credentials)
    passwords = [_password(profile.title, url) for url in (*urls, proxy_of(env))]
    return tuple(filter(None, (*credentials, *passwords, *headers.values())))


def _password(title: str, url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise CredentialError(f"Not a URL for {title}: {error}") from None
    if url and parsed.scheme not in ("http", "https", "socks5", "socks5h"):
        raise CredentialError(f"Not a URL for {title}: `{parsed.scheme or url}` is no scheme of HTTP")
    return parsed.password


@asynccontextmanager
async def one_call(
    title: str,
    seconds: float,
    *,
    usage: Callable[[], Usage],
    errors: tuple[type[Exception], ...],
    translate: Callable[[Exception], ProviderError],
) -> AsyncGenerator[None]:
    """Bound one model call in time; whatever of `errors` happens leaves as a `ProviderError` that knows its cost."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        message = f"{title} did not finish its answer within the timeout of {seconds:g} s."
        raise ProviderError("overloaded", message, usage=usage()) from None
    except ProviderError as error:
        error.usage = usage()
        raise error from None
    except errors as error:
        translated = translate(error)
        translated.usage = usage()
        # `from None`: the messages of SDKs quote whole bodies.
        raise translated from None


def connection_error(
    title: str, error: Exception, secrets: Sequence[str], *, was_connected: bool, host: str = ""
) -> ProviderError:
    """What a connection that was never made, or broke, means; the deepest cause says why."""
    causes = list(_causes(error))
    place = f"{title} at {host or _host(error)}"
    reason = scrubbed(str(causes[-1]) or type(causes[-1]).__name__, secrets)
    for cause in causes:
        match cause:
            case ssl.SSLCertVerificationError():
                hint = "Trust its certificate authority with SSL_CERT_FILE, or correct the base URL."
                return ProviderError("tls", f"{place} could not be trusted: {reason}", hint=hint)
            case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
                return ProviderError("tls", f"{place} does not speak TLS.", hint="Correct the base URL.")
            case httpx2.ProxyError():
                message = f"{title} could not be reached through the proxy: {reason}"
                hint = f"Check {PROXY_VARIABLE}."
                return ProviderError("proxy", message, is_retryable=not reason.startswith("4"), hint=hint)
            case httpx2.LocalProtocolError():
                # Its text quotes the header.
                return ProviderError("bad_request", f"A header of the request to {title} cannot be sent.")
            case httpx2.TimeoutException():
                return ProviderError("overloaded", f"{place} did not answer in time.")
            case _:
                pass
    if was_connected:
        return ProviderError("stream_broken", f"The connection to {place} broke off: {reason}")
    return ProviderError("overloaded", f"{place} cannot be reached: {reason}")


def unfinished(title: str, response: httpx2.Response) -> ProviderError:
    """What a body that ended before its answer did means."""
    content_type = response.headers.get("content-type", "")
    if content_type.startswith("text/event-stream"):
        return ProviderError("stream_broken", f"{title} ended its answer in the middle.")
    message = f"{title} at {response.request.url.netloc.decode()} answered with `{content_type}`, not with a stream."
    return ProviderError("stream_broken", message, hint="Check the base URL.")


def unreadable(title: str) -> ProviderError:
    """What an event that breaks the protocol means."""
    return ProviderError("stream_broken", f"{title} sent an event that cannot be read.")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what caused it, outermost first."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _host(error: Exception) -> str:
    for cause in _causes(error):
        request = getattr(cause, "_request", None) or getattr(cause, "request", None)
        if isinstance(request, httpx2.Request):
            return request.url.netloc.decode()
    return "its address"
