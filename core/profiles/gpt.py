"""What GPT and o models take, on every platform that serves them by their own names."""

import re
from typing import Literal

GptEffort = Literal["none", "minimal", "low", "medium", "high"]
_FROM_LOW: tuple[GptEffort, ...] = ("low", "medium", "high")
_NO_REASONING: tuple[GptEffort, ...] = ()

# https://developers.openai.com/api/docs/guides/reasoning and the pages of the models; what a model does not take it
# refuses with "Unsupported value". The first pattern that fits counts.
_FAMILIES: tuple[tuple[str, tuple[GptEffort, ...]], ...] = (
    (r"gpt-[3-9].*-chat(-latest)?|chatgpt-.*|gpt-3\.5.*|gpt-4.*|o1-(mini|preview)", _NO_REASONING),
    (r"gpt-5-pro", ("high",)),
    (r"gpt-5\.\d-pro|gpt-5\.1-codex-mini", ("medium", "high")),
    (r"gpt-5(\.\d)?-codex(-[a-z]+)*", _FROM_LOW),
    (r"gpt-5(-mini|-nano)?", ("minimal", *_FROM_LOW)),
    (r"gpt-5\.[1-6](-(mini|nano|sol|terra|luna))?|gpt-6-sol", ("none", *_FROM_LOW)),
    (r"gpt-[5-9](\.\d+)?(-[a-z]+)*", _FROM_LOW),
    (r"o\d(-mini)?-deep-research", ("medium",)),
    (r"o\d(-mini|-pro)?|codex-mini-latest", _FROM_LOW),
)
_COMPILED = tuple((re.compile(pattern), efforts) for pattern, efforts in _FAMILIES)
# Gateways put a vendor before the name, the API itself a date behind it.
_GPT_ID = re.compile(r"(?:.*/)?(.+?)(?:-\d{4}-\d{2}-\d{2})?")


def gpt_efforts(model: str) -> tuple[GptEffort, ...]:
    """The values of `reasoning.effort` that `model` takes, least first; empty where it takes none or is not known."""
    match = _GPT_ID.fullmatch(model)
    name = match[1] if match else model
    return next((efforts for pattern, efforts in _COMPILED if pattern.fullmatch(name)), ())
