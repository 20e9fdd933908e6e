"""Providers of Chat Completions over the official OpenAI SDK, each described by its entry in `core.profiles.providers`.

Importing this module imports the SDK.
"""

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from openai import AsyncOpenAI

from ...core.profiles.provider import ProviderProfile
from ...core.profiles.providers import PROVIDERS
from ...core.run import Generation
from .base import Deltas, ModelRequest
from .failures import ProviderError
from .openai_sdk import (
    DONE,
    SDK_ERRORS,
    Event,
    EventStream,
    OpenAIClient,
    drain,
    event_data,
    post_stream,
    provider_error,
    stream_error,
    stream_events,
)
from .transport import base_url_of, headers_of, one_call, secrets_of, unfinished, unreadable
from .wire.chat_answer import Answer, Piece
from .wire.chat_body import (
    WITHOUT_IMAGES,
    WITHOUT_REASONING,
    reasoning_options,
    request_body,
    shows_images_of_results,
)
from .wire.parts import Json

_NO_REASONING = re.compile(
    r"reasoning[ _.]effort|think value|supports? thinking|thinking[. ]type|cannot be disabled", re.IGNORECASE
)
"""How servers say that a model cannot be asked for reasoning, or for that much of it."""
_NO_IMAGES = re.compile(r"image|vision|multimodal", re.IGNORECASE)
"""How servers say that a model sees no images; Ollama does so with a 500."""


class CompatibleProvider:
    """One configured client; the SDK's own retries are off, Temporal repeats."""

    def __init__(self, profile: ProviderProfile, client: AsyncOpenAI, *, secrets: Sequence[str]) -> None:
        self._profile = profile
        self._client = client
        self._secrets = tuple(secrets)

    async def generate(self, request: ModelRequest, deltas: Deltas) -> Generation:
        """One streamed answer.

        A provider serves many models, and a user's own server any: what one of them refuses of what we wish, but do
        not need, is left out in this and every later request of the conversation.
        """
        while True:
            try:
                return await self._answer(request, deltas)
            except ProviderError as error:
                wish = self._refused_wish(request, error)
                if wish is None or wish in request.cache.notes:
                    raise
                request.cache.note(wish)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _refused_wish(self, request: ModelRequest, error: ProviderError) -> str | None:
        if error.status_code not in (400, 422, 500):
            return None
        if _NO_REASONING.search(error.message) and reasoning_options(self._profile, request):
            return WITHOUT_REASONING
        if _NO_IMAGES.search(error.message) and shows_images_of_results(self._profile, request):
            return WITHOUT_IMAGES
        return None

    async def _answer(self, request: ModelRequest, deltas: Deltas) -> Generation:
        body = request_body(self._profile, request)
        answer = Answer(self._profile, request.tools, body.tool_names)
        async with one_call(
            self._profile.title,
            request.timeout_seconds,
            usage=lambda: answer.usage,
            errors=SDK_ERRORS,
            translate=lambda error: provider_error(self._profile, error, secrets=self._secrets),
        ):
            stream = await post_stream(
                self._client,
                "/chat/completions",
                body.content,
                timeout_seconds=request.timeout_seconds,
                headers=body.headers,
            )
            async with stream:
                await self._read(stream, answer, request, deltas)
        return answer.generation()

    async def _read(self, stream: EventStream, answer: Answer, request: ModelRequest, deltas: Deltas) -> None:
        async with aclosing(stream_events(self._profile, stream, secrets=self._secrets)) as events:
            await self._take(events, answer, request, deltas)
            if not answer.is_complete:
                raise unfinished(self._profile.title, stream.response)
            await drain(events)

    async def _take(self, events: AsyncGenerator[Event], answer: Answer, request: ModelRequest, deltas: Deltas) -> None:
        """Everything up to `[DONE]`, or up to the end of a body that goes without."""
        reported = answer.usage
        async for event in events:
            if event.data.startswith(DONE):
                return
            if not event.data:
                continue
            chunk = event_data(self._profile, event.data)
            if detail := _error_of(event, chunk):
                raise stream_error(self._profile, detail, secrets=self._secrets)
            for kind, piece in self._fold(answer, chunk):
                if kind == "text":
                    deltas.text(piece)
                else:
                    deltas.reasoning(piece)
            if answer.usage is not reported and request.on_usage is not None:
                reported = answer.usage
                request.on_usage(reported)

    def _fold(self, answer: Answer, chunk: Json) -> tuple[Piece, ...]:
        try:
            return answer.take(chunk)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise unreadable(self._profile.title) from None


def _error_of(event: Event, chunk: Json) -> Json | None:
    """The error that a chunk tells of, in whichever form servers do so."""
    if detail := chunk.get("error"):
        return detail if isinstance(detail, dict) else {"message": str(detail)}  # pyright: ignore[reportUnknownVariableType]
    return chunk if event.name == "error" or chunk.get("object") == "error" else None


def create_provider(name: str, env: Mapping[str, str], setting: Mapping[str, Any]) -> CompatibleProvider:
    """The provider of one configuration; `[provider.setting]` goes before the environment."""
    profile = PROVIDERS[name]
    base_url, headers = profile.chat.address(base_url_of(profile, env, setting)), headers_of(setting)
    secrets = secrets_of(profile, env, base_url, headers=headers)
    key = env[profile.required_env[0]].strip() if profile.required_env else ""
    client = OpenAIClient(
        base_url=base_url, auth={"Authorization": f"Bearer {key}"} if key else {}, headers=headers, env=env
    )
    return CompatibleProvider(profile, client, secrets=secrets)
