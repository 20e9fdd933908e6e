"""Answers of the Converse API: the events of one stream folded into a generation."""

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from ....core.messages import ExpertPart, Source, TextPart, ThinkingPart, ToolCallPart
from ....core.profiles.bedrock import ConverseCapabilities
from ....core.run import FinishReason, Generation
from ....core.tools import ToolSpec, sorted_calls
from ....core.usage import NO_USAGE, Usage
from .converse_body import placed
from .parts import arguments

_FINISH_REASONS: Mapping[str, FinishReason] = MappingProxyType(
    {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "tool_use": "toolCalls",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "guardrail_intervened": "refusal",
        "content_filtered": "refusal",
        "refusal": "refusal",
    }
)
Piece = tuple[Literal["text", "reasoning", ""], str]
"""What an event adds to the text or the reasoning, if it adds anything."""
NOTHING: Piece = ("", "")


class _Block:
    """One content block as far as it has come in; its first event says what it is."""

    __slots__ = ("call", "pieces", "redacted", "signature", "sources", "type")

    def __init__(self) -> None:
        self.type: Literal["text", "call", "reasoning", ""] = ""
        self.pieces: list[str] = []
        self.signature = ""
        self.redacted = b""
        self.call: dict[str, Any] = {}
        self.sources: list[Source] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Answer:
    """One answer as it comes in.

    Bedrock counts what was read from and written to the prompt cache beside `inputTokens` (some models inside it, see
    `ConverseCapabilities`), reasoning inside `outputTokens` without saying how much, and reports both at the end.
    """

    def __init__(
        self, tools: tuple[ToolSpec, ...], tool_names: Mapping[str, str], capabilities: ConverseCapabilities
    ) -> None:
        self._tools = tools
        self._tool_names = tool_names
        self._capabilities = capabilities
        self._blocks: dict[int, _Block] = {}
        self._stop_reason: str | None = None
        self._model: str | None = None
        self.usage = NO_USAGE
        self.has_ended = False
        """Whether the model has; the usage may still come."""

    def take(self, event: Mapping[str, Any]) -> Piece:
        """Fold one event in; kinds of events that are not known are passed over."""
        if (delta := event.get("contentBlockDelta")) is not None:
            return _take_delta(self._block(delta["contentBlockIndex"]), delta["delta"])
        if (start := event.get("contentBlockStart")) is not None:
            if (call := start["start"].get("toolUse")) is not None:
                block = self._block(start["contentBlockIndex"])
                block.type, block.call = "call", call
        elif (stop := event.get("messageStop")) is not None:
            self._stop_reason = stop["stopReason"]
            self.has_ended = True
        elif (metadata := event.get("metadata")) is not None:
            self._take_usage(metadata.get("usage") or {})
            trace: Mapping[str, Any] = metadata.get("trace") or {}
            router: Mapping[str, Any] = trace.get("promptRouter") or {}
            self._model = router.get("invokedModelId")
        return NOTHING

    def generation(self) -> Generation:
        """The finished answer."""
        thoughts, texts, calls = self._parts()
        contents: tuple[ExpertPart, ...] = (*thoughts, *texts, *calls)
        return Generation(
            contents=contents,
            usage=self.usage,
            finish_reason=_FINISH_REASONS.get(self._stop_reason or "", "other"),
            model=self._model,
        )

    def _block(self, index: int) -> _Block:
        return self._blocks.setdefault(index, _Block())

    def _take_usage(self, reported: Mapping[str, Any]) -> None:
        read: int = reported.get("cacheReadInputTokens") or 0
        written: int = reported.get("cacheWriteInputTokens") or 0
        beside = 0 if self._capabilities.counts_cached_input else read + written
        input_tokens: int = (reported.get("inputTokens") or 0) + beside
        output_tokens: int = reported.get("outputTokens") or 0
        self.usage = Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            cached_input_tokens=read,
        )

    def _parts(self) -> tuple[list[ThinkingPart], list[TextPart], tuple[ToolCallPart, ...]]:
        thoughts: list[tuple[int, _Block]] = []
        texts: list[TextPart] = []
        calls: list[ToolCallPart] = []
        is_in_order = True
        for _, block in sorted(self._blocks.items()):
            match block.type:
                case "text" if block.text.strip():
                    is_in_order = is_in_order and not calls
                    texts.append(TextPart(text=block.text, sources=tuple(block.sources) or None))
                case "call":
                    calls.append(self._call(block))
                case "reasoning":
                    thoughts.append((len(texts) + len(calls), block))
                case _:
                    pass
        in_order = sorted_calls(tuple(calls), self._tools)
        is_in_order = is_in_order and in_order == tuple(calls)
        return [self._thought(block, at, is_in_order=is_in_order) for at, block in thoughts], texts, in_order

    def _thought(self, block: _Block, position: int, *, is_in_order: bool) -> ThinkingPart:
        family = self._capabilities.family
        # Behind blocks that our order moves, it can be shown but no longer be replayed.
        if not family or not (block.signature or block.redacted) or (position and not is_in_order):
            return ThinkingPart(thinking=block.text)
        redacted = base64.b64encode(block.redacted).decode()
        signature = placed(family=family, position=position, signature=block.signature, redacted=redacted)
        return ThinkingPart(thinking=block.text, signature=signature)

    def _call(self, block: _Block) -> ToolCallPart:
        name: str = block.call["name"]
        return ToolCallPart(
            tool_call_id=block.call["toolUseId"],
            tool_name=self._tool_names.get(name, name),
            args=arguments(block.text),
        )


def _take_delta(block: _Block, delta: Mapping[str, Any]) -> Piece:
    if (text := delta.get("text")) is not None:
        block.type = "text"
        return _said(block, "text", text)
    if (call := delta.get("toolUse")) is not None:
        block.pieces.append(call["input"])
    elif (reasoning := delta.get("reasoningContent")) is not None:
        block.type = "reasoning"
        block.signature += reasoning.get("signature") or ""
        block.redacted += reasoning.get("redactedContent") or b""
        return _said(block, "reasoning", reasoning.get("text") or "")
    elif (citation := delta.get("citation")) is not None:
        location: Mapping[str, Any] = citation.get("location") or {}
        web: Mapping[str, Any] = location.get("web") or {}
        source = Source(url=web.get("url") or citation.get("source"), title=citation.get("title"))
        if source not in block.sources:
            block.sources.append(source)
    return NOTHING


def _said(block: _Block, kind: Literal["text", "reasoning"], piece: str) -> Piece:
    block.pieces.append(piece)
    return (kind, piece) if piece else NOTHING
