"""The Gemini API and Vertex AI over the official SDK; importing this module imports the SDK.

The SDK makes the request (address, credentials, headers) and sends it, through the client that we give it. Its typed
layer is passed by: it would walk the whole conversation on every call, and its iteration over a stream parses each
chunk twice, knows no other ends of a stream than a quiet one, and leaves the connection open when it is left early. So
the two steps below that layer are taken here: `_build_request`, whose body may be bytes, and `_async_request`, which
returns the open response. Tests compare the result with what the typed call sends.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, cast
from urllib.parse import quote

import httpx2
from google.auth.exceptions import GoogleAuthError
from google.genai import Client
from google.genai.errors import APIError
from google.genai.types import HttpOptions, HttpRetryOptions, ResourceScope
from pydantic_core import from_json

from ...core.failures import CredentialError
from ...core.profiles.provider import ProviderProfile
from ...core.profiles.providers import PROVIDERS
from ...core.run import Generation
from .base import Deltas, ModelRequest
from .chains import google_project
from .failures import ProviderError
from .google_auth import Chain, chain
from .google_errors import auth_error, event_error, status_error
from .transport import (
    DRAIN_SECONDS,
    LIMITS,
    TRANSPORT_ERRORS,
    base_url_of,
    call_timeout,
    connection_error,
    headers_of,
    http_client,
    one_call,
    proxy_of,
    secrets_of,
    unfinished,
    unreadable,
)
from .wire.gemini_answer import Answer, Piece
from .wire.gemini_body import request_body
from .wire.parts import Json

VERTEX = "google-vertex"
MAX_LOOSE_BYTES = 65_536
"""Of what stands in a stream outside of events, for there an error may stand."""
_VERSIONED = re.compile(r"(.*)/(v[0-9]+(?:(?:alpha|beta)[0-9]*)?)")
_MULTI_REGIONS = frozenset({"us", "eu"})
_SAFE_IN_MODEL = "/@:"


class GoogleProvider:
    """One configured client; the SDK's own retries are off, Temporal repeats."""

    def __init__(
        self,
        profile: ProviderProfile,
        connect: Callable[[], Client],
        http: httpx2.AsyncClient,
        tokens: httpx2.Client,
        *,
        secrets: Sequence[str],
    ) -> None:
        self._profile = profile
        self._connect = connect
        self._http = http
        self._tokens = tokens
        self._secrets = tuple(secrets)
        self._client: Client | None = None
        self._lock = asyncio.Lock()

    async def generate(self, request: ModelRequest, deltas: Deltas) -> Generation:
        """One streamed answer; should the API cut it into several requests, all of them."""
        body = request_body(request)
        answer = Answer(self._profile.title, request.tools, body.tool_names, request.expert.provider_tools)
        async with one_call(
            self._profile.title,
            request.timeout_seconds,
            usage=lambda: answer.usage,
            errors=(APIError, GoogleAuthError, *TRANSPORT_ERRORS),
            translate=self._error,
        ):
            content = body.content
            while True:
                response = await self._post(request.expert.model.model, content, request.timeout_seconds)
                try:
                    await self._read(response, answer, request, deltas)
                finally:
                    await response.aclose()
                token = answer.continuation()
                if not token:
                    return answer.generation()
                content = body.continued(token)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        self._tokens.close()

    async def _post(self, model: str, content: bytes, timeout_seconds: float) -> httpx2.Response:
        client = await self._connected()
        api = client._api_client  # pyright: ignore[reportPrivateUsage]
        name = f"{_model_path(model, is_vertex=bool(api.vertexai))}:streamGenerateContent?alt=sse"
        request = api._build_request("post", name, {})  # pyright: ignore[reportPrivateUsage]
        request.data = content
        # Handed on to the HTTP client, which takes more than a number.
        request.timeout = cast("float", call_timeout(timeout_seconds))
        try:
            answered = await api._async_request(request, stream=True)  # pyright: ignore[reportPrivateUsage]
        except UnicodeDecodeError:
            # The SDK reads the body of an error as JSON in UTF-8.
            raise ProviderError("stream_broken", f"{self._profile.title} sent an error that cannot be read.") from None
        return cast("httpx2.Response", answered.response_stream)

    async def _connected(self) -> Client:
        async with self._lock:
            if self._client is None:
                # Looks for credentials on disk and, on a machine of Google, asks its metadata server.
                self._client = await asyncio.to_thread(self._connect)
            return self._client

    async def _read(self, response: httpx2.Response, answer: Answer, request: ModelRequest, deltas: Deltas) -> None:
        async with aclosing(_events(response)) as events:
            async for data in events:
                self._take(answer, data, request, deltas)
                if answer.is_complete:
                    break
            else:
                raise unfinished(self._profile.title, response)
            with suppress(httpx2.HTTPError, TimeoutError, ProviderError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    # Sources and the final usage may come behind the reason of the end.
                    async for data in events:
                        self._take(answer, data, request, deltas)

    def _take(self, answer: Answer, data: bytes, request: ModelRequest, deltas: Deltas) -> None:
        reported = answer.usage
        pieces = self._fold(answer, data)
        if answer.usage != reported and request.on_usage is not None:
            request.on_usage(answer.usage)
        for kind, piece in pieces:
            if kind == "text":
                deltas.text(piece)
            else:
                deltas.reasoning(piece)

    def _fold(self, answer: Answer, data: bytes) -> list[Piece]:
        try:
            chunk: Json | list[Json] = from_json(data)
            if isinstance(chunk, list):
                chunk = chunk[0]
            if error := chunk.get("error"):
                raise event_error(self._profile, error, self._secrets)
            return answer.take(chunk)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            raise unreadable(self._profile.title) from None

    def _error(self, error: Exception) -> ProviderError:
        match error:
            case APIError():
                return status_error(self._profile, error, self._secrets)
            case GoogleAuthError():
                return auth_error(self._profile, error, self._secrets)
            case _:
                was_connected = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                return connection_error(self._profile.title, error, self._secrets, was_connected=was_connected)


async def _events(response: httpx2.Response) -> AsyncGenerator[bytes]:
    """The data of the server-sent events, and an error that the API has written behind them without being one."""
    data: list[bytes] = []
    loose = b""
    async for line in _lines(response):
        if not line:
            if data:
                yield b"\n".join(data)
                data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].lstrip(b" "))
        elif line[:1] in b'{}[] "' and len(loose) < MAX_LOOSE_BYTES:
            loose += line
    if data:
        yield b"\n".join(data)
    if loose.startswith((b"{", b"[")):
        yield loose


async def _lines(response: httpx2.Response) -> AsyncGenerator[bytes]:
    """Lines end at line feeds only: JSON may hold the other ends that `str.splitlines` knows."""
    pending: list[bytes] = []
    async for chunk in response.aiter_bytes():
        first, *rest = chunk.split(b"\n")
        pending.append(first)
        for line in rest:
            yield b"".join(pending).rstrip(b"\r")
            pending = [line]
    if last := b"".join(pending):
        yield last


def _model_path(model: str, *, is_vertex: bool) -> str:
    """Where the API has a model, as the SDK would say; a name with a slash may be a whole path already."""
    model = quote(model, safe=_SAFE_IN_MODEL)
    if not is_vertex:
        return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
    if model.startswith(("publishers/", "projects/", "models/")):
        return model
    publisher, _, name = model.rpartition("/")
    return f"publishers/{publisher or 'google'}/models/{name}"


def create_provider(name: str, env: Mapping[str, str], setting: Mapping[str, Any]) -> GoogleProvider:
    """The provider of one configuration; `[provider.setting]` goes before the environment."""
    profile = PROVIDERS[name]
    secrets = secrets_of(profile, env, base_url_of(profile, env, setting), headers=headers_of(setting))
    # A client of ours keeps the SDK from using aiohttp where that is installed.
    http = http_client(env, lambda: httpx2.AsyncClient(limits=LIMITS))
    # Without one for its blocking half the SDK would make it.
    tokens = httpx2.Client(proxy=proxy_of(env) or None)
    make = _vertex if name == VERTEX else _gemini

    def connect() -> Client:
        try:
            return make(profile, env, setting, http, tokens)
        except ImportError as error:
            # The SDK lets a variable of the process choose the HTTP client, also one that is not installed.
            raise CredentialError(f"The client of {profile.title} cannot be made: {error}") from None

    return GoogleProvider(profile, connect, http, tokens, secrets=secrets)


# What is given to the SDK here, empty or not, keeps it from looking for the same in the variables of the process.
def _gemini(
    profile: ProviderProfile,
    env: Mapping[str, str],
    setting: Mapping[str, Any],
    http: httpx2.AsyncClient,
    tokens: httpx2.Client,
) -> Client:
    base_url, version = _split(base_url_of(profile, env, setting), "v1beta")
    return Client(
        vertexai=False,
        api_key=env["GOOGLE_GENERATIVE_AI_API_KEY"].strip(),
        http_options=_options(base_url, version, setting, http, tokens),
    )


def _vertex(
    profile: ProviderProfile,
    env: Mapping[str, str],
    setting: Mapping[str, Any],
    http: httpx2.AsyncClient,
    tokens: httpx2.Client,
) -> Client:
    found: Chain = chain(env, tokens)
    location = str(setting.get("location") or env.get("GOOGLE_VERTEX_LOCATION", "").strip() or "global")
    base_url, version = _split(base_url_of(profile, env, setting) or _vertex_url(location), "v1beta1")
    options = _options(base_url, version, setting, http, tokens)
    if "/projects/" in base_url:
        # Other clients take the address with the project, the place and the publisher in it.
        options.base_url = base_url.removesuffix("/publishers/google")
        options.base_url_resource_scope = ResourceScope.COLLECTION
    return Client(
        vertexai=True,
        credentials=found.credentials,
        project=google_project(env, setting) or found.project,
        location=location,
        http_options=options,
    )


def _options(
    base_url: str, version: str, setting: Mapping[str, Any], http: httpx2.AsyncClient, tokens: httpx2.Client
) -> HttpOptions:
    return HttpOptions(
        base_url=base_url,
        api_version=version,
        headers=headers_of(setting),
        retry_options=HttpRetryOptions(attempts=1),
        httpx_async_client=http,
        httpx_client=tokens,
    )


def _split(url: str, default: str) -> tuple[str, str]:
    """An address without its version, and the version."""
    match = _VERSIONED.fullmatch(url)
    return (match[1], match[2]) if match else (url, default)


def _vertex_url(location: str) -> str:
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return f"https://{location}-aiplatform.googleapis.com"
