"""Model facts as data: the tier table, how a model is chosen, and how Anthropic's models take reasoning."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from .expert import ProviderName, ReasoningBudget, Tier

CHECKED_ON = "2026-11-22"
"""When the tables below were last compared with the SDK model lists, the price data and the vendors' pages."""

DEFAULT_PROVIDER: ProviderName = "anthropic"
TIER_ORDER: tuple[Tier, ...] = ("low", "middle", "high")
PROVIDERS: tuple[ProviderName, ...] = (
    "anthropic",
    "openai",
    "google",
    "fireworks",
    "deepseek",
    "ollama",
    "azure-openai",
    "amazon-bedrock",
    "google-vertex",
)


class TierModel(NamedTuple):
    """One model of the tier table; `context_window` is `None` where only the server of the user knows it."""

    model: str
    context_window: int | None


_GPT: Mapping[Tier, TierModel] = {
    "low": TierModel("gpt-6-luna", 1_050_000),
    "middle": TierModel("gpt-6.1-sol", 1_050_000),
    "high": TierModel("gpt-6-astra", 1_050_000),
}
_GEMINI: Mapping[Tier, TierModel] = {
    "low": TierModel("gemini-3.5-flash-lite", 1_000_000),
    "middle": TierModel("gemini-3.8-flash", 1_000_000),
    "high": TierModel("gemini-4-argon", 1_048_576),
}
TIERS: Mapping[ProviderName, Mapping[Tier, TierModel]] = MappingProxyType(
    {
        "anthropic": {
            "low": TierModel("claude-haiku-5-5", 1_000_000),
            "middle": TierModel("claude-sonnet-5-5", 1_000_000),
            "high": TierModel("claude-opus-5-5", 1_000_000),
        },
        "openai": _GPT,
        "google": _GEMINI,
        "fireworks": {
            "low": TierModel("accounts/fireworks/models/deepseek-v4-flash", 1_040_000),
            "middle": TierModel("accounts/fireworks/models/glm-5p2", 1_040_000),
            "high": TierModel("accounts/fireworks/models/kimi-k3", 1_040_000),
        },
        "deepseek": {
            "low": TierModel("deepseek-flash", 1_000_000),
            "high": TierModel("deepseek-v4-pro", 1_000_000),
        },
        "ollama": {
            "low": TierModel("gpt-oss:20b", None),
            "high": TierModel("gpt-oss:120b", None),
        },
        # Azure addresses deployments; these are the names a deployment gets unless its owner chooses another.
        "azure-openai": _GPT,
        "amazon-bedrock": {
            "low": TierModel("global.anthropic.claude-haiku-5-5", 1_000_000),
            "middle": TierModel("global.anthropic.claude-sonnet-5-5", 1_000_000),
            "high": TierModel("global.anthropic.claude-opus-5-5", 1_000_000),
        },
        "google-vertex": _GEMINI,
    }
)
"""Cheapest, balanced and strongest model per provider; a provider may lack a tier."""


def tier_model(provider: ProviderName, tier: Tier) -> str | None:
    """The provider's model for `tier`; where it lacks one, the next lower tier's, then the next higher's."""
    models = TIERS.get(provider, {})
    place = TIER_ORDER.index(tier)
    for candidate in (tier, *reversed(TIER_ORDER[:place]), *TIER_ORDER[place + 1 :]):
        if candidate in models:
            return models[candidate].model
    return None


def choose_model(
    provider: ProviderName,
    *,
    override: str | None = None,
    expert_tier: Tier | None = None,
    model: str | None = None,
    tier: Tier | None = None,
) -> str | None:
    """The model of one expert: `--model`, its own tier, top-level `model`, top-level tier, the middle tier."""
    if override:
        return override
    if expert_tier and (found := tier_model(provider, expert_tier)):
        return found
    return model or tier_model(provider, tier or "middle")


ReasoningEffort = Literal["low", "medium", "high"]
_THINKING_TOKENS = MappingProxyType({"none": 0, "minimal": 1024, "low": 2048, "medium": 5000, "high": 10_000})
MIN_THINKING_TOKENS = 1024
"""The least `budget_tokens` Anthropic accepts."""


def thinking_tokens(budget: ReasoningBudget) -> int:
    """The token budget for providers that take one; 0 switches reasoning off."""
    return budget if isinstance(budget, int) else _THINKING_TOKENS[budget]


def reasoning_effort(budget: ReasoningBudget) -> ReasoningEffort | None:
    """The effort level for providers that take one; `None` switches reasoning off."""
    tokens = thinking_tokens(budget)
    if tokens <= 0:
        return None
    if tokens <= _THINKING_TOKENS["low"]:
        return "low"
    return "medium" if tokens <= _THINKING_TOKENS["medium"] else "high"


ThinkingMode = Literal["adaptive", "budget", "none"]
ThinkingOff = Literal["omit", "disabled", "between_tools", "lowest_effort"]


@dataclass(frozen=True, kw_only=True)
class AnthropicCapabilities:
    """What a request to one Claude model may carry.

    `adaptive` is `thinking={"type": "adaptive"}` with `output_config.effort`; `budget` is
    `thinking={"type": "enabled", "budget_tokens": n}`; `none` sends neither.
    """

    thinking: ThinkingMode
    thinking_off: ThinkingOff
    """How a request says no reasoning: leave `thinking` out, send `{"type": <value>}`, or, where the model
    always thinks, leave it out and send effort `low`."""
    takes_temperature: bool
    max_output_tokens: int
    context_window: int | None


def _adaptive(off: ThinkingOff, *, output: int = 128_000, temperature: bool = False) -> AnthropicCapabilities:
    return AnthropicCapabilities(
        thinking="adaptive",
        thinking_off=off,
        takes_temperature=temperature,
        max_output_tokens=output,
        context_window=1_000_000,
    )


def _budget(*, output: int) -> AnthropicCapabilities:
    return AnthropicCapabilities(
        thinking="budget",
        thinking_off="omit",
        takes_temperature=True,
        max_output_tokens=output,
        context_window=200_000,
    )


# https://platform.claude.com/docs/en/build-with-claude/thinking-troubleshooting lists what each model rejects.
_CLAUDE: Mapping[str, AnthropicCapabilities] = MappingProxyType(
    {
        "claude-fable-5-2": _adaptive("lowest_effort"),
        "claude-fable-5-1": _adaptive("lowest_effort"),
        "claude-fable-5": _adaptive("lowest_effort"),
        "claude-mythos-5-2": _adaptive("lowest_effort"),
        "claude-mythos-5-1": _adaptive("lowest_effort"),
        "claude-mythos-5": _adaptive("lowest_effort"),
        "claude-opus-5-5": _adaptive("lowest_effort"),
        "claude-opus-5": _adaptive("disabled"),
        "claude-opus-4-8": _adaptive("omit"),
        "claude-opus-4-7": _adaptive("omit"),
        "claude-opus-4-6": _adaptive("omit", temperature=True),
        "claude-opus-4-5": _budget(output=64_000),
        "claude-opus-4-1": _budget(output=32_000),
        "claude-sonnet-5-5": _adaptive("between_tools"),
        "claude-sonnet-5": _adaptive("disabled"),
        "claude-sonnet-4-6": _adaptive("omit", output=64_000, temperature=True),
        "claude-sonnet-4-5": _budget(output=64_000),
        "claude-haiku-5-5": _adaptive("disabled"),
        "claude-haiku-4-5": _budget(output=64_000),
    }
)
_UNKNOWN_CLAUDE = AnthropicCapabilities(
    thinking="none", thinking_off="omit", takes_temperature=False, max_output_tokens=8192, context_window=None
)
# Bedrock puts a region and vendor before the name and a revision behind it, Vertex a date after "@".
_CLAUDE_ID = re.compile(
    r"(?:.*[./])?(claude-[a-z]+-[0-9]{1,2}(?:-[0-9]{1,2})?)(?:[-@][0-9]{8})?(?:-v[0-9]+(?::[0-9]+)?)?"
)


def anthropic_family(model: str) -> str | None:
    """The table's name for a Claude model id of any platform, or `None` when it is not known."""
    match = _CLAUDE_ID.fullmatch(model)
    return match[1] if match and match[1] in _CLAUDE else None


def anthropic_capabilities(model: str) -> AnthropicCapabilities:
    """What `model` takes; an unknown model gets settings that every Claude model accepts."""
    family = anthropic_family(model)
    return _CLAUDE[family] if family else _UNKNOWN_CLAUDE


def known_context_window(provider: ProviderName, model: str) -> int | None:
    """The context window in tokens if these tables know it; saves loading the price data for common models."""
    for entry in TIERS.get(provider, {}).values():
        if entry.model == model:
            return entry.context_window
    return anthropic_capabilities(model).context_window if provider == "anthropic" else None


def known_max_output_tokens(model: str) -> int | None:
    """The most tokens a Claude model may write in one answer; `None` for any other model."""
    family = anthropic_family(model)
    return _CLAUDE[family].max_output_tokens if family else None
