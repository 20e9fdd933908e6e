"""Model facts: the tier table, how a model is chosen, and what a reasoning budget means."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from .expert import ProviderName, ReasoningBudget, Tier
from .profiles.claude import claude_capabilities
from .profiles.provider import TierModel
from .profiles.providers import PROVIDERS

DEFAULT_PROVIDER: ProviderName = "anthropic"
TIER_ORDER: tuple[Tier, ...] = ("low", "middle", "high")
TIERS: Mapping[ProviderName, Mapping[Tier, TierModel]] = MappingProxyType(
    {name: profile.tiers for name, profile in PROVIDERS.items()}
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


def known_context_window(provider: ProviderName, model: str) -> int | None:
    """The context window in tokens if these tables know it; saves loading the price data for common models."""
    for entry in TIERS.get(provider, {}).values():
        if entry.model == model:
            return entry.context_window
    return claude_capabilities(model).context_window if provider == "anthropic" else None
