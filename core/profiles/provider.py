"""The shape of a provider's entry; `providers` holds the entries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from ..expert import Tier
from .chat import ChatDialect

Api = Literal["messages", "responses", "chat", "gemini", "converse"]
"""The wire protocol: Anthropic Messages, OpenAI Responses, Chat Completions, Gemini REST, Bedrock Converse."""
Media = Literal[
    "image",
    "image-url",
    "pdf",
    "pdf-url",
    "text-file",
    "text-file-url",
    "result-image",
    "result-pdf",
]
"""What a conversation may carry beside text: data of its own, or a URL that the provider fetches."""
Caching = Literal["breakpoints", "cache points", "automatic", "none"]


class TierModel(NamedTuple):
    """One model of the tier table; `context_window` is `None` where only the server of the user knows it."""

    model: str
    context_window: int | None


@dataclass(frozen=True, kw_only=True)
class ProviderTool:
    """A tool that the provider runs itself (contract 2 §1.8)."""

    wire_name: str
    """What the model and the API call it."""
    options: tuple[str, ...] = ()
    """The keys of `providerToolOptions.<name>` that are sent."""
    required: tuple[str, ...] = ()
    """Options without which the API refuses the tool."""


@dataclass(frozen=True, kw_only=True)
class ProviderProfile:
    """One provider; what an entry leaves out, the provider does not have."""

    title: str
    """What it is called in messages to people."""
    api: Api
    module: str
    """The module of `activities.providers` that makes its client."""
    tiers: Mapping[Tier, TierModel]
    credentials: tuple[str, ...] = ()
    """Variables that hold secrets; no definition may require them."""
    required_env: tuple[str, ...] = ()
    """Variables without which no run starts."""
    optional_env: tuple[str, ...] = ()
    setting_keys: frozenset[str] = frozenset({"baseUrl", "headers"})
    """The keys of `[provider.setting]` it reads; each goes before its variable."""
    base_url: str = ""
    """The default address; empty where the client makes it from other settings."""
    base_url_env: str = ""
    takes_http: bool = False
    """Whether a definition may name a base URL without TLS."""
    price_id: str | None = None
    """Its name in `genai-prices`."""
    reasoning: str = ""
    """How `reasoningBudget` is sent, in a few words; empty where it is not."""
    caching: Caching = "none"
    media: frozenset[Media] = frozenset()
    parallel_tools: bool = True
    provider_tools: Mapping[str, ProviderTool] = field(default_factory=lambda: MappingProxyType({}))
    takes_provider_skills: bool = False
    chat: ChatDialect = field(default_factory=ChatDialect)
    """Of a provider whose `api` is `chat`."""
    limits: tuple[str, ...] = ()
    """What a user should know it does not do, a sentence each."""
