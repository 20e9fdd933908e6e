"""Context windows and output limits of models: our own tables first, then the bundled price data."""

from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from ..core.expert import ProviderName
from ..core.models import known_context_window
from ..core.profiles.claude import claude_output_limit
from ..core.profiles.providers import PROVIDERS
from ..core.usage import Usage


class PricedModel(NamedTuple):
    """What the price data says of a model."""

    model: str
    context_window: int | None
    is_deprecated: bool


@lru_cache(maxsize=256)
def priced_model(provider: ProviderName, model: str) -> PricedModel | None:
    """The entry of the bundled price data, or `None` when it does not know the model."""
    profile = PROVIDERS.get(provider)
    if profile is None or profile.price_id is None:
        return None
    # Importing the data takes 0.6 s, which a run with a common model must not pay.
    from genai_prices.data_snapshot import get_snapshot

    try:
        _, found = get_snapshot().find_provider_model(model, None, profile.price_id, None)
    except LookupError:
        return None
    return PricedModel(found.id, found.context_window, bool(found.deprecated))


def context_window(provider: ProviderName, model: str) -> int | None:
    """The model's context window in tokens, or `None` when nobody knows it."""
    known = known_context_window(provider, model)
    if known is not None:
        return known
    entry = priced_model(provider, model)
    return entry.context_window if entry else None


def price(provider: ProviderName, model: str, usage: Usage) -> Decimal | None:
    """What the tokens cost by the provider's list, in US dollars; `None` when nobody knows the model's price.

    Tokens that were newly cached are counted as plain input: no API's usage keeps them apart in ours.
    """
    entry = priced_model(provider, model)
    if entry is None:
        return None
    import genai_prices

    counted = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
    )
    try:
        found = genai_prices.calc_price(counted, entry.model, provider_id=PROVIDERS[provider].price_id)
    except LookupError:
        return None
    return found.total_price


def max_output_tokens(provider: ProviderName, model: str) -> int | None:
    """The most tokens of one answer; `None` but for Claude models, the price data does not have it."""
    return None if provider == "ollama" else claude_output_limit(model)
