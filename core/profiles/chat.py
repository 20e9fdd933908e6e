"""How providers of Chat Completions differ from one another; a plain one needs none of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal

ReasoningLevel = Literal["none", "low", "medium", "high"]


@dataclass(frozen=True, kw_only=True)
class ChatDialect:
    """What an entry leaves out, its provider does as most do, or does not have."""

    version: str = ""
    """What must follow the address that people give: they may write it, the `/api` of a native API, or neither."""
    reasoning: Mapping[ReasoningLevel, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    """The fields of the request that ask for each level; a level left out sends none."""
    always_reasoning: tuple[str, ...] = ()
    """Models that cannot go without reasoning, as patterns of whole names; they are asked for little instead."""
    replayed: Literal["", "reasoning", "reasoning_content"] = ""
    """The field of an assistant's message that takes the reasoning back; empty where none does."""
    replays_empty: bool = False
    """Whether that field must be there although there was no reasoning."""
    affinity_header: str = ""
    """The header that keeps a conversation where its prompt is cached."""

    def reasoning_fields(self, model: str, level: ReasoningLevel) -> Mapping[str, Any]:
        """The fields that ask `model` for `level`."""
        if level == "none" and any(fnmatchcase(model, pattern) for pattern in self.always_reasoning):
            level = "low"
        return self.reasoning.get(level, {})

    def address(self, url: str) -> str:
        """The base URL of the API, from what people give."""
        return f"{server_root(url)}{self.version}" if self.version else url


EFFORT: Mapping[ReasoningLevel, Mapping[str, Any]] = MappingProxyType(
    {
        "none": {"reasoning_effort": "none"},
        "low": {"reasoning_effort": "low"},
        "medium": {"reasoning_effort": "medium"},
        "high": {"reasoning_effort": "high"},
    }
)
"""The usual way to ask for reasoning."""


def server_root(url: str) -> str:
    """The address of a server without the version or the `/api` that may follow it."""
    return url.rstrip("/").removesuffix("/v1").removesuffix("/api").rstrip("/")
