"""What Gemini models take, on the Gemini API and on Vertex AI alike."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

ThinkingLevel = Literal["minimal", "low", "medium", "high"]
ThinkingControl = Literal["level", "budget", "none"]

_LOW_TO_HIGH: tuple[ThinkingLevel, ...] = ("low", "medium", "high")
_EVERY_LEVEL: tuple[ThinkingLevel, ...] = ("minimal", *_LOW_TO_HIGH)


@dataclass(frozen=True, kw_only=True)
class GeminiCapabilities:
    """What a request to one Gemini model may carry.

    `level` is `thinkingConfig.thinkingLevel`, `budget` is `thinkingConfig.thinkingBudget` in tokens; `none` sends
    no `thinkingConfig`. A model refuses a request with the control of another generation.
    """

    thinking: ThinkingControl
    levels: tuple[ThinkingLevel, ...] = ()
    """From the least to the most; none of these models can be told not to think at all."""
    least_budget: int = 0
    """The least budget that means thinking."""
    most_budget: int = 0
    off_budget: int = 0
    """The budget closest to no thinking; 0 switches it off."""
    wants_signatures: bool = False
    """Whether the first call of every step must carry a thought signature."""
    takes_result_media: bool = False
    """Whether a `functionResponse` may hold images and PDF files of its own."""
    max_output_tokens: int | None = None
    """What one request may ask for; beyond it Gemini 4 goes over to answers in many hops, each billed."""


def _level(*levels: ThinkingLevel) -> GeminiCapabilities:
    return GeminiCapabilities(
        thinking="level", levels=levels, wants_signatures=True, takes_result_media=True, max_output_tokens=65_536
    )


def _budget(least: int, most: int, *, off: int = 0) -> GeminiCapabilities:
    return GeminiCapabilities(
        thinking="budget", least_budget=least, most_budget=most, off_budget=off, max_output_tokens=65_536
    )


# https://ai.google.dev/gemini-api/docs/generate-content/thinking has the levels and the budgets of each model.
_GEMINI: Mapping[str, GeminiCapabilities] = MappingProxyType(
    {
        "gemini-4-argon": _level(*_LOW_TO_HIGH),
        "gemini-3.8-flash": _level(*_LOW_TO_HIGH),
        "gemini-3.7-flash": _level(*_LOW_TO_HIGH),
        "gemini-3.5-flash": _level(*_EVERY_LEVEL),
        "gemini-3.5-flash-lite": _level(*_EVERY_LEVEL),
        "gemini-3.1-flash-lite": _level(*_EVERY_LEVEL),
        "gemini-3.1-pro": _level(*_LOW_TO_HIGH),
        "gemini-3-flash": _level(*_EVERY_LEVEL),
        "gemini-3-pro": _level("low", "high"),
        "gemini-2.5-pro": _budget(128, 32_768, off=128),
        "gemini-2.5-flash": _budget(1, 24_576),
        "gemini-2.5-flash-lite": _budget(512, 24_576),
    }
)
_LATER_GEMINI = _level(*_LOW_TO_HIGH)
_UNKNOWN = GeminiCapabilities(thinking="none")
_UNKNOWN_LATER = GeminiCapabilities(thinking="none", wants_signatures=True, takes_result_media=True)
# A publisher or a collection before the name, a date, a revision or a stage behind it.
_GEMINI_ID = re.compile(r"(?:.*/)?(gemini-([0-9]+)(?:\.[0-9]+)?-[a-z]+(?:-lite)?)(?:-preview)?(?:-[0-9]{2,}[0-9-]*)?")
# Models for images and the like, and the names that always mean the latest model.
_LATER_ID = re.compile(r"(?:.*/)?gemini-(?:(?:[3-9]|[1-9][0-9])[.-].*|[a-z-]+-latest)")


def gemini_capabilities(model: str) -> GeminiCapabilities:
    """What `model` takes; a text model of Gemini 3 or later that is not known gets what all of them accept."""
    match = _GEMINI_ID.fullmatch(model)
    if match is not None and match[1] in _GEMINI:
        return _GEMINI[match[1]]
    if _LATER_ID.fullmatch(model) is None:
        return _UNKNOWN
    return _LATER_GEMINI if match is not None else _UNKNOWN_LATER
