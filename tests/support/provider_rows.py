"""The nine providers as test subjects, and the rows that each of them has to prove.

A row is one thing that every provider must do, or that a provider does by its profile. `for_providers(row)` runs a test
once for each provider that has the row; each case carries the requirement `provider.<name>.<row>`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from perstack.core.profiles.provider import Media, ProviderProfile
from perstack.core.profiles.providers import PROVIDERS

from .model_server import Json, Request

KEY = "sk-test-0123456789abcdef"
GOLDEN = Path(__file__).parents[1] / "golden" / "requests"


@dataclass(frozen=True)
class Subject:
    """One provider, and how a test makes it talk to a server on loopback."""

    name: str
    model: str
    env: Mapping[str, str]
    """Credentials and the like; `{credentials}` stands for a file with credentials for loopback."""
    address: str = "{url}"
    """What the variable of the base URL holds."""
    setting: Json = field(default_factory=dict[str, Any])

    @property
    def profile(self) -> ProviderProfile:
        """Its entry."""
        return PROVIDERS[self.name]

    def env_for(self, url: str, folder: Path) -> dict[str, str]:
        """The variables for a server at `url`."""
        filled = {name: value.format(credentials=folder / "credentials.json") for name, value in self.env.items()}
        if "GOOGLE_APPLICATION_CREDENTIALS" in filled:
            (folder / "credentials.json").write_text(service_account(url))
        return {**filled, self.profile.base_url_env: self.address.format(url=url)}


def service_account(url: str) -> str:
    """A Google service account whose tokens come from the server at `url`."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "test-project",
            "private_key_id": "1",
            "private_key": text,
            "client_email": "perstack@test-project.iam.gserviceaccount.com",
            "token_uri": f"{url}/token",
        }
    )


def _subject(name: str, env: Mapping[str, str], **more: Any) -> Subject:
    return Subject(name, PROVIDERS[name].tiers["low"].model, env, **more)


SUBJECTS: Mapping[str, Subject] = {
    subject.name: subject
    for subject in (
        _subject("anthropic", {"ANTHROPIC_API_KEY": KEY}),
        _subject("openai", {"OPENAI_API_KEY": KEY}, address="{url}/v1"),
        _subject("google", {"GOOGLE_GENERATIVE_AI_API_KEY": KEY}),
        _subject("fireworks", {"FIREWORKS_API_KEY": KEY}, address="{url}/inference/v1"),
        _subject("deepseek", {"DEEPSEEK_API_KEY": KEY}),
        _subject("ollama", {}),
        _subject("azure-openai", {"AZURE_API_KEY": KEY}, address="{url}/openai"),
        _subject(
            "amazon-bedrock",
            {"AWS_ACCESS_KEY_ID": "AKIATEST0123456789", "AWS_SECRET_ACCESS_KEY": KEY, "AWS_REGION": "eu-central-1"},
        ),
        _subject(
            "google-vertex",
            {
                "GOOGLE_APPLICATION_CREDENTIALS": "{credentials}",
                "GOOGLE_VERTEX_PROJECT": "test-project",
                "GOOGLE_VERTEX_LOCATION": "europe-west4",
            },
        ),
    )
}


@dataclass(frozen=True)
class Row:
    """One thing to prove."""

    id: str
    text: str
    applies: Callable[[ProviderProfile], bool] = lambda profile: True

    @property
    def providers(self) -> tuple[str, ...]:
        """Who has it."""
        return tuple(name for name, profile in PROVIDERS.items() if self.applies(profile))


def _has_key(profile: ProviderProfile) -> bool:
    return bool(profile.required_env)


def _has_tools(profile: ProviderProfile) -> bool:
    return bool(profile.provider_tools)


ROWS: Mapping[str, Row] = {
    row.id: row
    for row in (
        Row("config.env", "credentials and address from variables"),
        Row("config.missing", "a missing variable is named before anything starts", lambda p: p.title != "Ollama"),
        Row("config.setting", "`[provider.setting]` before the variable", lambda p: "baseUrl" in p.setting_keys),
        Row("config.headers", "headers of the definition are sent", lambda p: "headers" in p.setting_keys),
        Row("config.proxy", "everything goes through `PERSTACK_PROXY_URL`"),
        Row("config.client", "one client per configuration, one connection for many calls, closed at the end"),
        Row("request.bytes", "the whole request: headers, parameters, tools"),
        Row("parts.media", "every kind of image and file is sent, or refused by name"),
        Row("parts.results", "tool results with text, images, files and errors"),
        Row(
            "parts.replay", "an answer with reasoning, text and calls goes back as it came", lambda p: bool(p.reasoning)
        ),
        Row("reasoning.budgets", "none, minimal, low, medium, high and a number", lambda p: bool(p.reasoning)),
        Row("caching.requests", "cache marks, or a prefix that stays as it is", lambda p: p.caching != "none"),
        Row("caching.hits", "cached tokens are reported", lambda p: p.caching != "none"),
        Row("stream.text", "text comes piece by piece"),
        Row("stream.reasoning", "reasoning comes piece by piece", lambda p: bool(p.reasoning)),
        Row("stream.calls", "tool calls are put together from pieces of JSON, several in one answer"),
        Row("stream.bad-arguments", "arguments that are no JSON reach the tool layer"),
        Row("stream.error", "an error inside a stream"),
        Row("stream.broken", "a stream that dies or ends half-way is never half an answer"),
        Row("stream.silent", "an answer that does not come in time"),
        Row("stream.cancelled", "a cancelled call closes its connection"),
        Row("stream.length", "an answer cut by its length"),
        Row("stream.refusal", "an answer refused by a filter"),
        Row("usage", "tokens in, out, of reasoning, cached and in all, in one meaning"),
        Row("tools.requests", "the provider's own tools with their options", _has_tools),
        Row("tools.results", "what they gave is kept, and repeated in later requests", _has_tools),
        Row("errors.statuses", "each status has one meaning"),
        Row("errors.words", "context overflow, used-up quota and refused content are told apart"),
        Row("errors.retry-after", "the wished pause in seconds, in milliseconds and as a date"),
        Row("errors.connection", "refused, reset, not TLS, not trusted"),
        Row("errors.once", "the SDK repeats nothing"),
        Row("errors.secrets", "no message quotes a credential", _has_key),
    )
}


def for_providers(row: str) -> pytest.MarkDecorator:
    """Run a test that takes `subject` for each provider that has `row`."""
    return pytest.mark.parametrize(
        "subject",
        [
            pytest.param(SUBJECTS[name], id=name, marks=pytest.mark.requirement(f"provider.{name}.{row}"))
            for name in ROWS[row].providers
        ],
    )


_VOLATILE = (
    "host",
    "content-length",
    "user-agent",
    "accept-encoding",
    "connection",
    "traceparent",
    "x-stainless",
    "x-goog-api-client",
    "amz-sdk",
    "x-amz-date",
    "x-goog-user-project",
)


def as_sent(request: Request) -> Json:
    """A request without what changes from machine to machine: to compare with a golden file."""
    headers = {name: value for name, value in sorted(request.headers.items()) if not name.startswith(_VOLATILE)}
    if headers.get("authorization", "").startswith("AWS4-"):
        # The signature covers the time and the port.
        headers["authorization"] = headers["authorization"].partition(" ")[0]
    return {"method": request.method, "path": request.path, "headers": headers, "body": request.json}


def require_golden(name: str, value: object, *, is_updating: bool) -> None:
    """Compare with `tests/golden/requests/<name>.json`; `--update-goldens` writes it anew, to be read by a person."""
    path = GOLDEN / f"{name}.json"
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    if is_updating:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert json.loads(path.read_text()) == json.loads(text)


MEDIA: tuple[Media, ...] = ("image", "image-url", "pdf", "pdf-url", "text-file", "text-file-url")
