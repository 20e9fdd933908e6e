"""What the models behind Amazon Bedrock's Converse API take; the API is one, the models are many."""

import re
from dataclasses import dataclass
from typing import Literal

from .claude import claude_family

ConverseReasoning = Literal["claude", "nova", "effort", "flat-effort", "none"]
"""How `additionalModelRequestFields` asks for reasoning.

`claude`: as the Messages API does, see `claude`. `nova`: `reasoningConfig.maxReasoningEffort`. `effort`:
`reasoning.effort`. `flat-effort`: `reasoning_effort`. `none`: the model is not known to take anything.
"""
CachePlace = Literal["system", "tools", "messages"]


@dataclass(frozen=True, kw_only=True)
class ConverseCapabilities:
    """What a request to one family of models may carry; the defaults are what every model accepts."""

    family: str = ""
    """Reasoning is replayed only to the family that wrote it; empty where a family takes none back."""
    reasoning: ConverseReasoning = "none"
    cache_places: frozenset[CachePlace] = frozenset()
    """Where a `cachePoint` is accepted; elsewhere it fails the whole request."""
    takes_media_in_results: bool = False
    takes_error_status: bool = False
    """Whether a tool result may say `status: error`."""
    counts_cached_input: bool = False
    """Whether `inputTokens` of a stream includes what was read from and written to the cache."""


# https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html and claude-messages-adaptive-thinking.html
_CLAUDE = ConverseCapabilities(
    family="claude",
    reasoning="claude",
    cache_places=frozenset({"system", "tools", "messages"}),
    takes_media_in_results=True,
    takes_error_status=True,
)
_UNKNOWN_CLAUDE = ConverseCapabilities(takes_media_in_results=True, takes_error_status=True)
# Nova refuses a cache point among the tools, and one among messages that carry tool results; Nova 2, which caches
# by itself, has been seen to refuse it anywhere.
# https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
_NOVA = ConverseCapabilities(cache_places=frozenset({"system"}), takes_media_in_results=True, takes_error_status=True)
_NOVA_2 = ConverseCapabilities(reasoning="nova", takes_media_in_results=True, takes_error_status=True)
_GPT = ConverseCapabilities(family="gpt", reasoning="effort", counts_cached_input=True)
_GPT_OSS = ConverseCapabilities(reasoning="flat-effort")
_UNKNOWN = ConverseCapabilities()
_NOVA_2_ID = re.compile(r"(?:.*[./])?amazon\.nova-2-")
_NOVA_ID = re.compile(r"(?:.*[./])?amazon\.nova-(?:micro|lite|pro|premier)-")
_GPT_OSS_ID = re.compile(r"(?:.*[./])?openai\.gpt-oss-")
_GPT_ID = re.compile(r"(?:.*[./])?openai\.gpt-[0-9]")
_ALWAYS_THINKING_GPT_ID = re.compile(r"(?:.*[./])?openai\.gpt-6-astra")


def converse_capabilities(model: str) -> ConverseCapabilities:
    """What `model` takes: a model id or inference profile; an ARN that does not name a model is unknown."""
    if "anthropic.claude" in model:
        return _CLAUDE if claude_family(model) else _UNKNOWN_CLAUDE
    for pattern, capabilities in (
        (_NOVA_2_ID, _NOVA_2),
        (_NOVA_ID, _NOVA),
        (_GPT_OSS_ID, _GPT_OSS),
        (_GPT_ID, _GPT),
    ):
        if pattern.match(model):
            return capabilities
    return _UNKNOWN


def can_stop_reasoning(model: str) -> bool:
    """Whether a GPT model takes the effort `none`."""
    return not _ALWAYS_THINKING_GPT_ID.match(model)
