"""What Claude models take, on every platform that serves them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

MIN_THINKING_TOKENS = 1024
"""The least `budget_tokens` that is accepted."""
ThinkingMode = Literal["adaptive", "budget", "none"]
ThinkingOff = Literal["omit", "disabled", "between_tools", "lowest_effort"]


@dataclass(frozen=True, kw_only=True)
class ClaudeCapabilities:
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


def _adaptive(off: ThinkingOff, *, output: int = 128_000, temperature: bool = False) -> ClaudeCapabilities:
    return ClaudeCapabilities(
        thinking="adaptive",
        thinking_off=off,
        takes_temperature=temperature,
        max_output_tokens=output,
        context_window=1_000_000,
    )


def _budget(*, output: int) -> ClaudeCapabilities:
    return ClaudeCapabilities(
        thinking="budget",
        thinking_off="omit",
        takes_temperature=True,
        max_output_tokens=output,
        context_window=200_000,
    )


# https://platform.claude.com/docs/en/build-with-claude/thinking-troubleshooting lists what each model rejects.
_CLAUDE: Mapping[str, ClaudeCapabilities] = MappingProxyType(
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
_UNKNOWN_CLAUDE = ClaudeCapabilities(
    thinking="none", thinking_off="omit", takes_temperature=False, max_output_tokens=8192, context_window=None
)
# Bedrock puts a region and vendor before the name and a revision behind it, Vertex a date after "@".
_CLAUDE_ID = re.compile(
    r"(?:.*[./])?(claude-[a-z]+-[0-9]{1,2}(?:-[0-9]{1,2})?)(?:[-@][0-9]{8})?(?:-v[0-9]+(?::[0-9]+)?)?"
)


def claude_family(model: str) -> str | None:
    """The table's name for a Claude model id of any platform, or `None` when it is not known."""
    match = _CLAUDE_ID.fullmatch(model)
    return match[1] if match and match[1] in _CLAUDE else None


def claude_capabilities(model: str) -> ClaudeCapabilities:
    """What `model` takes; an unknown model gets settings that every Claude model accepts."""
    family = claude_family(model)
    return _CLAUDE[family] if family else _UNKNOWN_CLAUDE


def claude_output_limit(model: str) -> int | None:
    """The most tokens a known Claude model may write in one answer."""
    family = claude_family(model)
    return _CLAUDE[family].max_output_tokens if family else None
