"""Answers of Chat Completions: the chunks of one stream folded into a generation.

Usage as the providers define it: `prompt_tokens` includes the cached ones (`prompt_tokens_details.cached_tokens`; at
DeepSeek also `prompt_cache_hit_tokens`), `completion_tokens` the reasoning
(`completion_tokens_details.reasoning_tokens`). It comes once, after the finish reason, in a chunk without choices;
some servers repeat it with every chunk, as a total.
"""

import uuid
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from ....core.messages import ExpertPart, TextPart, ThinkingPart, ToolCallPart
from ....core.profiles.provider import ProviderProfile
from ....core.run import FinishReason, Generation
from ....core.tools import ToolSpec, sorted_calls
from ....core.usage import NO_USAGE, Usage
from ..base import INVALID_JSON_ARGUMENT
from ..failures import ProviderError
from .parts import Json, arguments, json_bytes

_FINISH_REASONS: Mapping[str, FinishReason] = MappingProxyType(
    {
        "stop": "stop",
        "tool_calls": "toolCalls",
        "function_call": "toolCalls",
        "length": "length",
        "content_filter": "refusal",
    }
)
_BROKEN = frozenset({"insufficient_system_resource", "error", "abort"})
"""Finish reasons of answers that the server gave up."""
_REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Where servers put reasoning; those that changed the name send both for a while, with the same text."""

Piece = tuple[Literal["text", "reasoning"], str]
"""What a chunk adds to the text or the reasoning."""


class _Call:
    """One call as far as it has come in."""

    __slots__ = ("id", "name", "pieces")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def is_another(self, delta: Json, name: str) -> bool:
        """Whether `delta`, sent for this place, begins another call: some servers have one place for all of them."""
        call_id = delta.get("id")
        if call_id and self.id:
            return call_id != self.id
        if not name or not self.name:
            return False
        return name != self.name or (bool(_arguments(delta)) and _is_whole(self.text))


class Answer:
    """One answer as it comes in; `usage` is right at every moment, also when the stream is cut off."""

    def __init__(self, profile: ProviderProfile, tools: tuple[ToolSpec, ...], tool_names: Mapping[str, str]) -> None:
        self._profile = profile
        self._tools = tools
        self._tool_names = tool_names
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._finish_reason = ""
        self._refused = False
        self._model: str | None = None
        self.usage = NO_USAGE

    @property
    def is_complete(self) -> bool:
        """Whether the model has finished; a last chunk may still tell the usage.

        Raises:
            ProviderError: the server gave the answer up.
        """
        if self._finish_reason in _BROKEN:
            message = f"{self._profile.title} gave up its answer: {self._finish_reason}."
            raise ProviderError("stream_broken", message)
        return bool(self._finish_reason)

    def take(self, chunk: Json) -> tuple[Piece, ...]:
        """Fold one chunk in; what is not known is passed over.

        Raises:
            TypeError, AttributeError, KeyError, ValueError: it breaks the protocol.
        """
        self._model = _string(chunk, "model") or self._model
        self._take_usage(chunk.get("usage"))
        pieces: list[Piece] = []
        for choice in chunk.get("choices") or ():
            # Some servers tell the usage with the last choice.
            self._take_usage(choice.get("usage"))
            pieces += self._take_delta(choice.get("delta") or {})
            self._finish_reason = _string(choice, "finish_reason") or self._finish_reason
        return tuple(pieces)

    def generation(self) -> Generation:
        """The finished answer."""
        text, reasoning, calls = "".join(self._text), "".join(self._reasoning), self._finished_calls()
        contents: list[ExpertPart] = []
        if reasoning.strip():
            contents.append(ThinkingPart(thinking=reasoning))
        if text.strip():
            contents.append(TextPart(text=text))
        contents += calls
        return Generation(
            contents=tuple(contents), usage=self.usage, finish_reason=self._reason(calls), model=self._model
        )

    def _reason(self, calls: tuple[ToolCallPart, ...]) -> FinishReason:
        reason = _FINISH_REASONS.get(self._finish_reason, "other")
        if self._refused and reason == "stop":
            return "refusal"
        # Some servers stop where others say that there are calls.
        return "toolCalls" if calls and reason == "stop" else reason

    def _take_delta(self, delta: Json) -> Iterator[Piece]:
        reasoning = next((delta[name] for name in _REASONING_FIELDS if delta.get(name)), "")
        if isinstance(reasoning, str) and reasoning:
            self._reasoning.append(reasoning)
            yield "reasoning", reasoning
        for name in ("content", "refusal"):
            if text := _string(delta, name):
                self._text.append(text)
                yield "text", text
        self._refused = self._refused or bool(delta.get("refusal"))
        for call in delta.get("tool_calls") or ():
            self._take_call(call)
        if delta.get("function_call"):
            self._take_call({"index": 0, "function": delta["function_call"]})

    def _take_call(self, delta: Json) -> None:
        function: Json = delta.get("function") or {}
        name = _string(function, "name")
        call = self._call(delta, name)
        call.id = call.id or _string(delta, "id")
        call.name = call.name or name
        call.pieces.append(_arguments(delta))

    def _call(self, delta: Json, name: str) -> _Call:
        """The call that `delta` belongs to."""
        index: int | None = delta.get("index")
        if index is None:
            call = self._calls[-1] if self._calls else None
            known = (one for one in self._calls if one.id and one.id == delta.get("id"))
            call = next(known, call)
        else:
            call = self._by_index.get(index)
        if call is None or call.is_another(delta, name):
            call = _Call()
            self._calls.append(call)
        if index is not None:
            self._by_index[index] = call
        return call

    def _finished_calls(self) -> tuple[ToolCallPart, ...]:
        calls: list[ToolCallPart] = []
        ids: set[str] = set()
        for call in self._calls:
            # Results are told apart by their ids.
            call_id = call.id if call.id and call.id not in ids else f"call_{uuid.uuid4().hex}"
            ids.add(call_id)
            name = self._tool_names.get(call.name, call.name)
            calls.append(ToolCallPart(tool_call_id=call_id, tool_name=name, args=arguments(call.text)))
        return sorted_calls(tuple(calls), self._tools)

    def _take_usage(self, reported: Json | None) -> None:
        if not reported:
            return
        cached = _count(reported.get("prompt_tokens_details"), "cached_tokens")
        input_tokens = _count(reported, "prompt_tokens")
        output_tokens = _count(reported, "completion_tokens")
        self.usage = Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            reasoning_tokens=_count(reported.get("completion_tokens_details"), "reasoning_tokens"),
            total_tokens=input_tokens + output_tokens,
            cached_input_tokens=cached or _count(reported, "prompt_cache_hit_tokens"),
        )


def _string(holder: Json, name: str) -> str:
    """A text that may be missing; what is no text cannot be kept."""
    found = holder.get(name) or ""
    if not isinstance(found, str):
        raise TypeError(name)
    return found


def _count(counts: Mapping[str, Any] | None, name: str) -> int:
    count = (counts or {}).get(name)
    return count if isinstance(count, int) else 0


def _arguments(delta: Json) -> str:
    """A piece of the arguments; some servers send them as an object, whole."""
    function: Json = delta.get("function") or {}
    piece: str | Json = function.get("arguments") or ""
    return piece if isinstance(piece, str) else json_bytes(piece).decode()


def _is_whole(text: str) -> bool:
    """Whether arguments need nothing more."""
    return bool(text.strip()) and INVALID_JSON_ARGUMENT not in arguments(text)
