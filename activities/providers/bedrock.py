"""Amazon Bedrock's Converse API over boto3; importing this module imports the SDK.

boto3 blocks, so each call has a thread of its own that ends with it: a pool would bound how many models can be
asked at once, and a call waits for most of its life. Events cross to the loop one by one.
"""

# pyright: reportMissingTypeStubs=false
import asyncio
import re
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from botocore.eventstream import ParserError as FrameError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    EventStreamError,
    InvalidRegionError,
    LoginError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ProxyConnectionError,
    ReadTimeoutError,
    SSOError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError as Urllib3Error
from urllib3.exceptions import ReadTimeoutError as Urllib3ReadTimeoutError

from ...core.failures import CredentialError
from ...core.profiles.bedrock import converse_capabilities
from ...core.profiles.providers import PROVIDERS
from ...core.run import Generation
from ...core.usage import NO_USAGE
from .aws_sdk import Bedrock, CutError, Line
from .base import Deltas, ModelRequest
from .chains import aws_problem, aws_region
from .failures import (
    ProviderError,
    ProviderErrorKind,
    answered_error,
    kind_of_status,
    kind_of_text,
    scrubbed,
)
from .registry import PROXY_VARIABLE
from .transport import (
    CONNECT_SECONDS,
    DRAIN_SECONDS,
    connection_error,
    one_call,
    proxy_of,
    secrets_of,
    unreadable,
)
from .wire.converse_answer import NOTHING, Answer, Piece
from .wire.converse_body import DROP_STALE_THINKING, request_body

PROFILE = PROVIDERS["amazon-bedrock"]
NAME = PROFILE.title
SETTLE_SECONDS = 5.0
"""How long the count of tokens may take to come behind a finished answer."""
_EVENT_STREAM = "application/vnd.amazon.eventstream"
_SDK_ERRORS: tuple[type[Exception], ...] = (
    BotoCoreError,
    ClientError,
    FrameError,
    ResponseParserError,
    Urllib3Error,
    CutError,
    OSError,
)
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    NoAuthTokenError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
    SSOError,
    LoginError,
    ProfileNotFound,
)
_BY_CODE: Mapping[str, ProviderErrorKind] = MappingProxyType(
    {
        "ThrottlingException": "rate_limited",
        "TooManyRequestsException": "rate_limited",
        "ModelNotReadyException": "overloaded",
        "ModelTimeoutException": "overloaded",
        "ModelErrorException": "overloaded",
        "InternalServerException": "overloaded",
        "InternalFailure": "overloaded",
        "ServiceUnavailableException": "overloaded",
        "ServiceUnavailable": "overloaded",
        "ModelStreamErrorException": "stream_broken",
        "AccessDeniedException": "auth",
        "UnrecognizedClientException": "auth",
        "ExpiredTokenException": "auth",
        "ExpiredToken": "auth",
        "InvalidClientTokenId": "auth",
        "InvalidSignatureException": "auth",
        "IncompleteSignature": "auth",
        "MissingAuthenticationToken": "auth",
        "MissingAuthenticationTokenException": "auth",
        "SignatureDoesNotMatch": "auth",
        "ValidationException": "bad_request",
        "ResourceNotFoundException": "not_found",
        "ServiceQuotaExceededException": "quota",
    }
)
_BY_WORDS: tuple[tuple[str, ProviderErrorKind], ...] = (
    ("prompt is too long", "context_overflow"),
    ("input is too long", "context_overflow"),
    ("too many input tokens", "context_overflow"),
    ("exceed context limit", "context_overflow"),
    ("context window", "context_overflow"),
    ("context length", "context_overflow"),
    ("content filter", "content_refused"),
    ("blocked by guardrail", "content_refused"),
)
_STALE_THINKING = "bound to a different conversation"
_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})")
_AUTH_HINT = "Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_BEARER_TOKEN_BEDROCK, or AWS_PROFILE."


class BedrockProvider:
    """One configured client; the SDK's own retries are off, Temporal repeats."""

    def __init__(self, client: Bedrock, *, secrets: Sequence[str]) -> None:
        self._client = client
        self._secrets = tuple(secrets)

    async def generate(self, request: ModelRequest, deltas: Deltas) -> Generation:
        """One streamed answer."""
        try:
            return await self._answer(request, deltas)
        except ProviderError as error:
            # Tools or messages before a reasoning block have changed since the model wrote it.
            if _STALE_THINKING not in error.message or DROP_STALE_THINKING in request.cache.notes:
                raise
            request.cache.note(DROP_STALE_THINKING)
        return await self._answer(request, deltas)

    async def close(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _answer(self, request: ModelRequest, deltas: Deltas) -> Generation:
        body = request_body(request)
        model = request.expert.model.model
        answer = Answer(request.tools, body.tool_names, converse_capabilities(model))
        line = Line(body.content, request.timeout_seconds)
        async with (
            one_call(
                NAME,
                request.timeout_seconds,
                usage=lambda: answer.usage,
                errors=_SDK_ERRORS,
                translate=lambda error: provider_error(
                    error, secrets=self._secrets, host=urlsplit(self._client.endpoint).netloc, line=line
                ),
            ),
            aclosing(_events(self._client, model, line)) as events,
        ):
            await self._read(events, answer, request, deltas)
        return answer.generation()

    async def _read(
        self,
        events: AsyncGenerator[Mapping[str, Any]],
        answer: Answer,
        request: ModelRequest,
        deltas: Deltas,
    ) -> None:
        async for event in events:
            kind, piece = _fold(answer, event)
            if kind == "text":
                deltas.text(piece)
            elif kind == "reasoning":
                deltas.reasoning(piece)
            if answer.has_ended:
                break
        else:
            raise ProviderError("stream_broken", f"{NAME} ended its answer in the middle.")
        # The model has said all; were the stream to break now, only the count of its tokens would be lost.
        with suppress(TimeoutError, *_SDK_ERRORS):
            async with asyncio.timeout(SETTLE_SECONDS):
                async for event in events:
                    _fold(answer, event)
                    if answer.usage is not NO_USAGE:
                        break
            if request.on_usage is not None:
                request.on_usage(answer.usage)
            async with asyncio.timeout(DRAIN_SECONDS):
                async for _ in events:
                    pass


async def _events(client: Bedrock, model: str, line: Line) -> AsyncGenerator[Mapping[str, Any]]:
    """The events of one call, made in a thread that ends with it: when it is over, fails, or nobody listens."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Mapping[str, Any] | Exception | None] = asyncio.Queue()

    def hand_over(item: Mapping[str, Any] | Exception | None) -> None:
        # The loop may be gone before the thread has noticed.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(arrived.put_nowait, item)

    def call() -> None:
        try:
            for event in client.events(model, line):
                hand_over(event)
            hand_over(None)
        except Exception as error:
            hand_over(error)
        finally:
            line.hang_up()

    threading.Thread(target=call, name=f"bedrock {model}", daemon=True).start()
    is_over = False
    try:
        while (item := await arrived.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
        is_over = True
    finally:
        if not is_over:
            line.cut()


def _fold(answer: Answer, event: Mapping[str, Any]) -> Piece:
    if not event:
        return NOTHING
    try:
        return answer.take(event)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise unreadable(NAME) from None


def create_provider(name: str, env: Mapping[str, str], setting: Mapping[str, Any]) -> BedrockProvider:
    """The provider of one configuration; `[provider.setting]` goes before the environment.

    Raises:
        CredentialError: no credentials, no region, or an address that is none.
    """
    if problem := aws_problem(env, setting):
        raise problem
    endpoint = env.get(PROFILE.base_url_env, "").strip().rstrip("/")
    secrets = secrets_of(PROFILE, env, endpoint, headers={})
    if endpoint and not urlsplit(endpoint).hostname:
        raise CredentialError(f"Not a URL for {NAME}: `{scrubbed(endpoint, secrets)}` has no host")
    client = Bedrock(
        dict(env),
        region=aws_region(env, setting),
        endpoint=endpoint,
        proxy=proxy_of(env),
        connect_seconds=CONNECT_SECONDS,
    )
    return BedrockProvider(client, secrets=secrets)


def provider_error(error: Exception, *, secrets: Sequence[str], host: str, line: Line) -> ProviderError:
    """What an exception of boto3, or of the HTTP client below it, means."""
    place = f"{NAME} at {host or 'its address'}"
    match error:
        case ClientError():
            return _answered(error, secrets)
        case _ if isinstance(error, _NO_CREDENTIALS):
            message = f"{NAME} cannot be asked: {scrubbed(str(error), secrets)}"
            return ProviderError("auth", message, hint=_AUTH_HINT)
        case InvalidRegionError():
            return ProviderError("bad_request", f"{NAME}: {error}", hint="Check AWS_REGION.")
        case ProxyConnectionError():
            return _proxy_error(error, secrets)
        case ConnectTimeoutError() | ReadTimeoutError() | Urllib3ReadTimeoutError():
            return ProviderError("overloaded", f"{place} did not answer in time.")
        case FrameError() | ResponseParserError():
            if line.has_head and not line.content_type.startswith(_EVENT_STREAM):
                message = f"{place} answered with `{line.content_type}`, not with a stream."
                return ProviderError("stream_broken", message, hint="Check the address.")
            return unreadable(NAME)
        case EndpointConnectionError():
            return connection_error(NAME, error, secrets, was_connected=False, host=host)
        case _:
            return connection_error(NAME, error, secrets, was_connected=line.has_head, host=host)


def _proxy_error(error: Exception, secrets: Sequence[str]) -> ProviderError:
    # Its own words name the proxy only; the cause says what the proxy did.
    text = str(error.__context__ or error)
    status = _TUNNEL_STATUS.search(text)
    message = f"{NAME} could not be reached through the proxy: {scrubbed(text, secrets)}"
    is_retryable = not (status and status[1].startswith("4"))
    return ProviderError("proxy", message, is_retryable=is_retryable, hint=f"Check {PROXY_VARIABLE}.")


def _answered(error: ClientError, secrets: Sequence[str]) -> ProviderError:
    """What an error that Bedrock answered with means: before the stream by status, inside it without one."""
    response: Mapping[str, Any] = error.response
    told: Mapping[str, Any] = response.get("Error") or {}
    metadata: Mapping[str, Any] = response.get("ResponseMetadata") or {}
    status: int | None = None if isinstance(error, EventStreamError) else metadata.get("HTTPStatusCode")
    text = str(told.get("Message") or "")
    code = str(told.get("Code") or "")
    kind = _kind(status, code, text)
    return answered_error(
        NAME,
        kind,
        text or code,
        status_code=status,
        headers=metadata.get("HTTPHeaders") or {},
        secrets=secrets,
        hint=_AUTH_HINT if kind == "auth" else None,
    )


def _kind(status: int | None, code: str, text: str) -> ProviderErrorKind:
    # Inside a stream the names begin with a small letter.
    kind = _BY_CODE.get(code[:1].upper() + code[1:])
    if kind == "bad_request" or (kind is None and status in (400, 413)):
        lowered = text.lower()
        for words, meaning in _BY_WORDS:
            if words in lowered:
                return meaning
    if kind is not None:
        return kind
    if status is not None:
        return kind_of_status(status)
    return kind_of_text(text) or "stream_broken"
