"""Which remote endpoints a skill may reach, asked before a request, at each redirect, and at the connection itself."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import httpcore2
import httpx2

from ...core.failures import PerstackError
from ...definitions.hosts import (
    ALLOW_VARIABLE,
    AllowedEndpoints,
    allowed_endpoints,
    is_lookalike,
    is_public_address,
    literal_address,
    matches_domain,
    plain_host,
)

MAX_REDIRECTS = 5
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Of one response, as much as a payload may have at all (DESIGN §2)."""
# What the MCP client uses by itself: a server may be silent for long before it answers a call.
_TIMEOUT = httpx2.Timeout(30.0, read=300.0)
_MAX_CONNECTIONS = 100
_KEEPALIVE_SECONDS = 5.0
_MAX_ADDRESSES = 8
_PORTS = {"http": 80, "https": 443}
_FIRST = "perstack.first_url"

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host, as text; an `OSError` says that there are none."""
SocketOptions = Iterable[tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]]


class EndpointError(PerstackError):
    """A skill's endpoint, or what it redirects to, may not be reached."""

    code = "skill.endpoint"


async def resolved(host: str, port: int) -> Sequence[str]:
    """The addresses that the system's resolver has for `host`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, kw_only=True)
class EndpointPolicy:
    """Public HTTPS endpoints, and those that the operator of the worker allows beside them."""

    allowed: AllowedEndpoints = frozenset()
    resolve: Resolver = resolved
    ssl_context: ssl.SSLContext | None = None
    """Whom a connection trusts; the system's authorities, or `SSL_CERT_FILE`'s, if left out."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> "EndpointPolicy":
        """The policy of a worker with the process environment `env`.

        Raises:
            UsageError: an entry of `PERSTACK_ALLOW_ENDPOINTS` is no host and port.
        """
        return cls(allowed=allowed_endpoints(env))

    def describe(self) -> tuple[str, ...]:
        """The endpoints allowed beyond the public ones, each as `host:port`."""
        return tuple(sorted(_shown_endpoint(host, port) for host, port in self.allowed))

    def check(self, url: str, allowed_domains: Sequence[str] = ()) -> None:
        """Refuse an endpoint by what its URL says; its addresses are checked when connecting.

        Raises:
            EndpointError: the URL is not HTTPS, carries credentials, or names a host that is not public or not among
                `allowed_domains`, if there are any.
        """
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError):
            # Their text may quote a password.
            raise EndpointError("The endpoint is not a URL.") from None
        host = _host(parsed)
        if parsed.scheme not in _PORTS or not host:
            raise EndpointError("The endpoint is not an https URL with a host.")
        shown = _shown(parsed)
        if parsed.userinfo:
            raise EndpointError(f"The endpoint {shown} carries a user name or password, which a URL must not.")
        if allowed_domains and not matches_domain(host, allowed_domains):
            names = ", ".join(allowed_domains)
            raise EndpointError(f"The host of {shown} is not among the skill's allowedDomains ({names}).")
        if (host, _port(parsed)) in self.allowed:
            return
        if parsed.scheme != "https":
            raise EndpointError(f"The endpoint {shown} does not use HTTPS.", hint=_allow_hint(parsed))
        if not is_public_address(host):
            if is_lookalike(host):
                raise EndpointError(f"The endpoint {shown} has a punycode host, refused against look-alike names.")
            raise EndpointError(
                f"The endpoint {shown} is private or local: only public ones may be reached.", hint=_allow_hint(parsed)
            )

    def http_client(
        self, allowed_domains: Sequence[str] = (), *, headers: Mapping[str, str] | None = None
    ) -> httpx2.AsyncClient:
        """A client that reaches nothing but what `check` lets pass, and there only public addresses.

        A redirect keeps to HTTPS and to the host, or goes to one that `allowed_domains` names, where `headers` are not
        sent. Proxies of the environment are not used: behind one, the name would be resolved a second time where
        nobody checks the answer, and the connection would go to whatever came out.
        """
        return httpx2.AsyncClient(
            transport=_CheckedTransport(self, tuple(allowed_domains), tuple(headers or ())),
            headers=dict(headers or {}),
            timeout=_TIMEOUT,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            trust_env=False,
        )

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """Where a connection to `host` may go: all its addresses, if each of them is public.

        Raises:
            EndpointError: one of them is not, and the operator does not allow the endpoint.
            OSError: the host cannot be resolved.
        """
        literal = literal_address(host)
        found = [str(literal)] if literal is not None else await self.resolve(host, port)
        if (plain_host(host), port) not in self.allowed:
            for text in found:
                address = literal_address(text)
                if address is None or not is_public_address(address):
                    shown = _shown_endpoint(host, port)
                    raise EndpointError(f"The endpoint {shown} resolves to {text}, which is not a public address.")
        return found[:_MAX_ADDRESSES]


class _CheckedTransport(httpx2.AsyncHTTPTransport):
    """Sends a request only where the policy lets it go, and bounds what comes back."""

    def __init__(self, policy: EndpointPolicy, allowed_domains: Sequence[str], own_headers: Sequence[str]) -> None:
        context = policy.ssl_context or httpx2.create_ssl_context()
        super().__init__(verify=context)
        # The public constructor takes no network backend, and only there a name's address can be pinned while the
        # pool, SNI, the certificate's check and the Host header still see the name.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=context,
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_CONNECTIONS,
            keepalive_expiry=_KEEPALIVE_SECONDS,
            network_backend=_CheckedNetwork(policy),
        )
        self._policy = policy
        self._allowed_domains = allowed_domains
        self._own_headers = own_headers

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._policy.check(str(request.url), self._allowed_domains)
        self._check_redirect(request)
        # Compressed, a small response could become an unbounded one after it was counted.
        request.headers["Accept-Encoding"] = "identity"
        response = await super().handle_async_request(request)
        try:
            _check_encoding(response)
        except EndpointError:
            await response.aclose()
            raise
        if not _is_event_stream(response):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream, _shown(request.url))
        return response

    def _check_redirect(self, request: httpx2.Request) -> None:
        """Compare a request with the one it comes from; the client hands extensions on to redirected requests."""
        first = request.extensions.setdefault(_FIRST, request.url)
        if _host(first) == _host(request.url) and _port(first) == _port(request.url):
            return
        if first.scheme == "https" and request.url.scheme != "https":
            raise EndpointError(f"{_shown(first)} redirects to {_shown(request.url)}, which is not HTTPS.")
        # The operator's list does not count here: it names endpoints to be called, not to be sent to by others.
        if _host(first) != _host(request.url) and not matches_domain(_host(request.url), self._allowed_domains):
            raise EndpointError(
                f"{_shown(first)} redirects to {_shown(request.url)}, another host.",
                hint="If that is meant, name the host in the skill's allowedDomains, or correct the endpoint.",
            )
        for name in self._own_headers:
            request.headers.pop(name, None)


class _CheckedNetwork(httpcore2.AsyncNetworkBackend):
    """Resolves a name once for each connection and connects to exactly the addresses that were checked."""

    def __init__(self, policy: EndpointPolicy) -> None:
        self._policy = policy
        # It is typed as what stands in for it where anyio is missing.
        self._network = cast("httpcore2.AsyncNetworkBackend", httpcore2.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                try:
                    addresses = list(await self._policy.addresses(host, port))
                except OSError as error:
                    raise httpcore2.ConnectError(f"{host} cannot be resolved: {error.strerror or error}") from error
                return await self._first_that_answers(addresses, port, timeout, socket_options)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"{host} did not answer within {timeout:g} s") from error

    async def _first_that_answers(
        self, addresses: list[str], port: int, timeout: float | None, options: SocketOptions | None
    ) -> httpcore2.AsyncNetworkStream:
        failure: Exception = httpcore2.ConnectError("there is no address")
        # An equal share for each, so that one that swallows packets leaves time for the next.
        share = timeout / len(addresses) if timeout and addresses else None
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port, timeout=share, socket_options=options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Bounded(httpx2.AsyncByteStream):
    """A response's body, which ends in an error beyond the limit."""

    def __init__(self, body: httpx2.AsyncByteStream, shown: str) -> None:
        self._body = body
        self._shown = shown

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for piece in self._body:
            count += len(piece)
            if count > MAX_RESPONSE_BYTES:
                raise EndpointError(f"{self._shown} sent more than {MAX_RESPONSE_BYTES} bytes in one response.")
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()


def _check_encoding(response: httpx2.Response) -> None:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise EndpointError(f"The endpoint answers with the encoding {encoding!r}, although it was asked for none.")


def _is_event_stream(response: httpx2.Response) -> bool:
    """Whether the body is a stream of events, which may go on for days; its reader bounds each event."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return response.status_code == 200 and kind == "text/event-stream"


def _host(url: httpx2.URL) -> str:
    # `URL.host` would turn punycode into the letters it stands for.
    return plain_host(url.raw_host.decode("ascii"))


def _port(url: httpx2.URL) -> int:
    return url.port or _PORTS.get(url.scheme, 0)


def _shown(url: httpx2.URL) -> str:
    """A URL without what may be secret in it: user, path, query."""
    host = url.raw_host.decode("ascii")
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def _shown_endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _allow_hint(url: httpx2.URL) -> str:
    endpoint = _shown_endpoint(_host(url), _port(url))
    return f"If it is meant, the operator of the worker allows it with {ALLOW_VARIABLE}={endpoint}."
