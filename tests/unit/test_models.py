"""Tiers, the choice of a model, and how Anthropic's models take reasoning."""

from datetime import date
from typing import Literal, get_args

import pytest
from anthropic.resources.messages.messages import DEPRECATED_MODELS, MODELS_TO_WARN_WITH_THINKING_ENABLED
from anthropic.types import model as anthropic_model
from perstack.core import models
from perstack.core.expert import ProviderName, ReasoningBudget, Tier
from perstack.core.models import (
    TIER_ORDER,
    TIERS,
    choose_model,
    reasoning_effort,
    thinking_tokens,
    tier_model,
)
from perstack.core.profiles.claude import claude_capabilities
from perstack.core.profiles.providers import CHECKED_ON, PROVIDERS
from perstack.core.usage import Usage
from perstack.definitions.prices import context_window, max_output_tokens, price, priced_model

TIER_MODELS = [
    pytest.param(provider, tier, entry, id=f"{provider}-{tier}")
    for provider, tiers in TIERS.items()
    for tier, entry in tiers.items()
]
SDK_MODELS: tuple[str, ...] = get_args(get_args(anthropic_model.Model)[0])


def test_every_provider_has_a_row_in_the_tier_table() -> None:
    assert set(TIERS) == set(PROVIDERS)
    assert date.fromisoformat(CHECKED_ON)


@pytest.mark.parametrize(("provider", "tier", "entry"), TIER_MODELS)
def test_a_tier_model_is_known_to_the_price_data_and_not_deprecated(
    provider: ProviderName, tier: Tier, entry: models.TierModel
) -> None:
    if provider == "ollama":
        assert priced_model(provider, entry.model) is None
        return
    priced = priced_model(provider, entry.model)
    assert priced is not None, f"{entry.model} ({tier}) is unknown to genai-prices"
    assert not priced.is_deprecated
    # Where the price data has none, the vendor's list of models says it.
    assert priced.context_window in (entry.context_window, None)
    assert entry.model not in DEPRECATED_MODELS


@pytest.mark.parametrize("tier", TIER_ORDER)
def test_an_anthropic_tier_model_is_in_the_sdk(tier: Tier) -> None:
    model = tier_model("anthropic", tier)
    assert model in SDK_MODELS
    assert model not in DEPRECATED_MODELS


def test_the_anthropic_tiers_are_haiku_sonnet_and_opus() -> None:
    found = [tier_model("anthropic", tier) for tier in TIER_ORDER]
    assert found == ["claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"]


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("tier", TIER_ORDER)
def test_every_provider_has_some_model_for_every_tier(provider: ProviderName, tier: Tier) -> None:
    assert tier_model(provider, tier)


@pytest.mark.parametrize(
    ("present", "wanted", "found"),
    [
        ({"low", "middle", "high"}, "middle", "middle"),
        ({"low", "high"}, "middle", "low"),
        ({"high"}, "middle", "high"),
        ({"middle", "high"}, "low", "middle"),
        ({"high"}, "low", "high"),
        ({"low", "middle"}, "high", "middle"),
        ({"low"}, "high", "low"),
        (set[str](), "middle", None),
    ],
)
@pytest.mark.requirement("definition.tiers")
def test_a_missing_tier_falls_to_the_next_lower_then_the_next_higher(
    monkeypatch: pytest.MonkeyPatch, present: set[Tier], wanted: Tier, found: str | None
) -> None:
    monkeypatch.setattr(models, "TIERS", {"ollama": {tier: models.TierModel(tier, None) for tier in present}})
    assert tier_model("ollama", wanted) == found


@pytest.mark.parametrize(
    ("override", "expert_tier", "model", "tier", "chosen"),
    [
        ("flag", "high", "top", "low", "flag"),
        (None, "high", "top", "low", "claude-opus-5-5"),
        (None, None, "top", "low", "top"),
        (None, None, None, "low", "claude-haiku-5-5"),
        (None, None, None, None, "claude-sonnet-5-5"),
        ("my-own-model", None, None, None, "my-own-model"),
        ("", None, None, None, "claude-sonnet-5-5"),
    ],
)
def test_the_model_comes_from_flag_expert_tier_top_model_top_tier_middle_tier_in_this_order(
    override: str | None, expert_tier: Tier | None, model: str | None, tier: Tier | None, chosen: str
) -> None:
    found = choose_model("anthropic", override=override, expert_tier=expert_tier, model=model, tier=tier)
    assert found == chosen


@pytest.mark.parametrize(
    ("budget", "tokens", "effort"),
    [
        ("none", 0, None),
        (0, 0, None),
        ("minimal", 1024, "low"),
        ("low", 2048, "low"),
        ("medium", 5000, "medium"),
        ("high", 10_000, "high"),
        (1, 1, "low"),
        (2049, 2049, "medium"),
        (5001, 5001, "high"),
        (32_000, 32_000, "high"),
    ],
)
def test_a_reasoning_budget_is_a_number_of_tokens_or_an_effort(
    budget: ReasoningBudget, tokens: int, effort: Literal["low", "medium", "high"] | None
) -> None:
    assert thinking_tokens(budget) == tokens
    assert reasoning_effort(budget) == effort


@pytest.mark.parametrize("model", [name for name in SDK_MODELS if name not in DEPRECATED_MODELS])
def test_every_current_sdk_model_has_capabilities(model: str) -> None:
    found = claude_capabilities(model)
    assert found.thinking != "none"
    assert found.max_output_tokens >= 32_000
    assert found.context_window == context_window("anthropic", model)


@pytest.mark.parametrize("model", [name for name in SDK_MODELS if name not in DEPRECATED_MODELS])
def test_our_context_window_agrees_with_the_price_data(model: str) -> None:
    priced = priced_model("anthropic", model)
    if priced is not None and priced.context_window is not None:
        assert claude_capabilities(model).context_window == priced.context_window


def test_no_model_for_which_the_sdk_warns_gets_a_thinking_budget() -> None:
    for model in MODELS_TO_WARN_WITH_THINKING_ENABLED:
        assert claude_capabilities(model).thinking != "budget"


@pytest.mark.parametrize(
    ("model", "thinking", "off"),
    [
        ("claude-opus-5-5", "adaptive", "lowest_effort"),
        ("claude-fable-5-2", "adaptive", "lowest_effort"),
        ("claude-sonnet-5-5", "adaptive", "between_tools"),
        ("claude-haiku-5-5", "adaptive", "disabled"),
        ("claude-opus-5", "adaptive", "disabled"),
        ("claude-opus-4-8", "adaptive", "omit"),
        ("claude-opus-4-6", "adaptive", "omit"),
        ("claude-haiku-4-5", "budget", "omit"),
        ("claude-haiku-4-5-20251001", "budget", "omit"),
        ("claude-opus-4-5-20251101", "budget", "omit"),
        ("global.anthropic.claude-opus-5-5", "adaptive", "lowest_effort"),
        ("eu.anthropic.claude-opus-4-6-v1:0", "adaptive", "omit"),
        ("claude-haiku-4-5@20251001", "budget", "omit"),
    ],
)
def test_a_claude_model_says_how_it_takes_reasoning(model: str, thinking: str, off: str) -> None:
    found = claude_capabilities(model)
    assert (found.thinking, found.thinking_off) == (thinking, off)


@pytest.mark.parametrize("model", ["claude-opus-9", "claude-opus-4-20250514", "my-proxy-model", "", "claude"])
def test_an_unknown_model_gets_the_safest_settings(model: str) -> None:
    found = claude_capabilities(model)
    assert (found.thinking, found.thinking_off, found.takes_temperature) == ("none", "omit", False)
    assert found.max_output_tokens == 8192
    assert found.context_window is None


def test_newer_models_take_no_temperature() -> None:
    assert claude_capabilities("claude-sonnet-4-6").takes_temperature
    assert not claude_capabilities("claude-opus-4-7").takes_temperature


@pytest.mark.parametrize(
    ("provider", "model", "window", "output"),
    [
        ("anthropic", "claude-sonnet-5-5", 1_000_000, 128_000),
        ("anthropic", "claude-3-haiku", 200_000, None),
        ("anthropic", "nobody-knows", None, None),
        ("amazon-bedrock", "global.anthropic.claude-opus-4-5-v1:0", 200_000, 64_000),
        ("azure-openai", "gpt-5.4-mini", 400_000, None),
        ("google-vertex", "gemini-2.5-flash", 1_048_576, None),
        ("ollama", "gpt-oss:20b", None, None),
        ("ollama", "claude-opus-5-5", None, None),
    ],
)
def test_limits_come_from_our_tables_or_the_price_data(
    provider: ProviderName, model: str, window: int | None, output: int | None
) -> None:
    assert context_window(provider, model) == window
    assert max_output_tokens(provider, model) == output


def test_tokens_cost_what_the_price_list_says_and_cached_ones_less() -> None:
    plain = Usage(input_tokens=1_000_000, output_tokens=1000, total_tokens=1_001_000)
    cached = Usage(input_tokens=1_000_000, output_tokens=1000, total_tokens=1_001_000, cached_input_tokens=900_000)
    for provider in ("anthropic", "openai", "google", "deepseek"):
        model = tier_model(provider, "low")
        assert model is not None
        whole, less = price(provider, model, plain), price(provider, model, cached)
        assert whole is not None
        assert less is not None
        assert 0 < less < whole


@pytest.mark.parametrize(
    ("provider", "model"), [("ollama", "gpt-oss:20b"), ("anthropic", "claude-none"), ("nobody", "x")]
)
def test_a_price_that_nobody_knows_is_unknown_and_never_nothing(provider: str, model: str) -> None:
    assert price(provider, model, Usage(input_tokens=1000, total_tokens=1000)) is None
