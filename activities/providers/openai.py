"""OpenAI and Azure OpenAI over the Responses API; importing this module imports the SDK."""

import re
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import quote

from ...core.expert import ProviderName
from ...core.profiles.provider import ProviderProfile
from ...core.profiles.providers import PROVIDERS
from ...core.run import Generation
from .base import Deltas, ModelRequest
from .failures import ProviderError
from .openai_sdk import (
    SDK_ERRORS,
    EventStream,
    OpenAIClient,
    drain,
    event_data,
    post_stream,
    provider_error,
    stream_events,
)
from .transport import base_url_of, headers_of, one_call, secrets_of, unfinished, unreadable
from .wire.responses_answer import Answer, Piece
from .wire.responses_body import DROP_ITEMS, NO_SUMMARY, request_body

# The API may refuse what it has said itself: the key now belongs to another organization, a container is gone; or an
# account may not see summaries of reasoning. Then it is asked once more without.
_LESSONS: tuple[tuple[str, str], ...] = (
    ("encrypted content", DROP_ITEMS),
    ("encrypted_content", DROP_ITEMS),
    ("items are not persisted", DROP_ITEMS),
    ("required following item", DROP_ITEMS),
    ("container with id", DROP_ITEMS),
    ("reasoning summaries", NO_SUMMARY),
    ("reasoning.summary", NO_SUMMARY),
)
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError)
_BARE_ENDPOINT = re.compile(r"https://[^/]+\.azure\.com")
_VERSION_OF_V1 = ("v1", "preview", "latest")


class OpenAIProvider:
    """One configured client of OpenAI or Azure."""

    def __init__(self, client: OpenAIClient, profile: ProviderProfile, *, path: str, secrets: Sequence[str]) -> None:
        """`path` may name the model as `{model}`."""
        self._client = client
        self._profile = profile
        self._path = path
        self._secrets = tuple(secrets)

    async def generate(self, request: ModelRequest, deltas: Deltas) -> Generation:
        """One streamed answer."""
        while True:
            try:
                return await self._answer(request, deltas)
            except ProviderError as error:
                lesson = _lesson(error)
                if lesson is None or lesson in request.cache.notes:
                    raise
                request.cache.note(lesson)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _answer(self, request: ModelRequest, deltas: Deltas) -> Generation:
        body = request_body(self._profile, request)
        answer = Answer(self._profile, request, body.tool_names, secrets=self._secrets)
        async with one_call(
            self._profile.title,
            request.timeout_seconds,
            usage=lambda: answer.usage,
            errors=SDK_ERRORS,
            translate=self._error,
        ):
            path = self._path.replace("{model}", quote(request.expert.model.model, safe=""))
            stream = await post_stream(self._client, path, body.content, timeout_seconds=request.timeout_seconds)
            async with stream:
                await self._read(stream, answer, request, deltas)
            return self._made(answer)

    async def _read(self, stream: EventStream, answer: Answer, request: ModelRequest, deltas: Deltas) -> None:
        async with aclosing(stream_events(self._profile, stream, secrets=self._secrets)) as events:
            async for event in events:
                if not event.data:
                    continue
                try:
                    kind, piece = self._fold(answer, event.data)
                finally:
                    # A failed answer has its price too.
                    if answer.is_complete and request.on_usage is not None:
                        request.on_usage(answer.usage)
                if kind == "text":
                    deltas.text(piece)
                elif kind == "reasoning":
                    deltas.reasoning(piece)
                if answer.is_complete:
                    break
            else:
                raise unfinished(self._profile.title, stream.response)
            await drain(events)

    def _fold(self, answer: Answer, data: str) -> Piece:
        try:
            return answer.take(event_data(self._profile, data))
        except _UNREADABLE:
            raise unreadable(self._profile.title) from None

    def _made(self, answer: Answer) -> Generation:
        try:
            return answer.generation()
        except _UNREADABLE:
            raise unreadable(self._profile.title) from None

    def _error(self, error: Exception) -> ProviderError:
        told = provider_error(self._profile, error, secrets=self._secrets)
        if told.kind == "not_found" and self._profile is PROVIDERS["azure-openai"]:
            told.hint = "On Azure the model is the name of a deployment."
        return told


def create_provider(name: ProviderName, env: Mapping[str, str], setting: Mapping[str, Any]) -> OpenAIProvider:
    """The provider of one configuration; `[provider.setting]` goes before the environment."""
    profile = PROVIDERS[name]
    return _azure(profile, env, setting) if name == "azure-openai" else _openai(profile, env, setting)


def _openai(profile: ProviderProfile, env: Mapping[str, str], setting: Mapping[str, Any]) -> OpenAIProvider:
    base_url, headers = base_url_of(profile, env, setting), headers_of(setting)
    secrets = secrets_of(profile, env, base_url, headers=headers)
    client = OpenAIClient(
        base_url=base_url,
        auth={"Authorization": f"Bearer {env['OPENAI_API_KEY'].strip()}"},
        headers=headers,
        env=env,
        organization=_value(setting, "organization", env, "OPENAI_ORGANIZATION") or None,
        project=_value(setting, "project", env, "OPENAI_PROJECT") or None,
    )
    return OpenAIProvider(client, profile, path="/responses", secrets=secrets)


def _azure(profile: ProviderProfile, env: Mapping[str, str], setting: Mapping[str, Any]) -> OpenAIProvider:
    base_url, headers = _azure_url(profile, env, setting), headers_of(setting)
    secrets = secrets_of(profile, env, base_url, headers=headers)
    version = _value(setting, "apiVersion", env, "AZURE_API_VERSION")
    if setting.get("useDeploymentBasedUrls"):
        path, version = "/deployments/{model}/responses", version or "v1"
    elif version and version not in _VERSION_OF_V1:
        # A dated version names the API before v1, which has no version in its path.
        path = "/responses"
    else:
        path = "/v1/responses"
    client = OpenAIClient(
        base_url=base_url,
        auth={"api-key": env["AZURE_API_KEY"].strip()},
        headers=headers,
        env=env,
        query={"api-version": version} if version else {},
    )
    return OpenAIProvider(client, profile, path=path, secrets=secrets)


def _azure_url(profile: ProviderProfile, env: Mapping[str, str], setting: Mapping[str, Any]) -> str:
    """The address up to `/openai`, whether it was given so, as the bare endpoint, or with `/v1`."""
    resource = setting.get("resourceName")
    if not setting.get("baseUrl") and resource:
        return f"https://{resource}.openai.azure.com/openai"
    given = base_url_of(profile, env, setting)
    if not given:
        return f"https://{env['AZURE_RESOURCE_NAME'].strip()}.openai.azure.com/openai"
    return f"{given}/openai" if _BARE_ENDPOINT.fullmatch(given) else given.removesuffix("/v1")


def _value(setting: Mapping[str, Any], key: str, env: Mapping[str, str], variable: str) -> str:
    return str(setting.get(key) or env.get(variable, "")).strip()


def _lesson(error: ProviderError) -> str | None:
    """What to leave out from now on, where an error says that the API would rather not have it."""
    if error.status_code not in (400, 404):
        return None
    lowered = error.message.lower()
    return next((lesson for words, lesson in _LESSONS if words in lowered), None)
