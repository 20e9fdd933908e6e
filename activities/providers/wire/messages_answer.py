"""Answers of the Messages API: the events of one stream folded into a generation."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from ....core.messages import ExpertPart, ProviderToolPart, TextPart, ThinkingPart, ToolCallPart
from ....core.run import FinishReason, Generation
from ....core.tools import ToolSpec, sorted_calls
from ....core.usage import NO_USAGE, Usage
from ..failures import ProviderError
from .messages_body import placed
from .messages_tools import (
    CALL,
    RESULT_SUFFIX,
    Cited,
    Placed,
    cited_sources,
    is_own,
    replayable,
    tool_parts,
)
from .parts import Json, arguments

_FINISH_REASONS: Mapping[str, FinishReason] = MappingProxyType(
    {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "tool_use": "toolCalls",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "refusal": "refusal",
    }
)


class _Block:
    """One content block as far as it has come in."""

    __slots__ = ("citations", "pieces", "start", "type")

    def __init__(self, start: dict[str, Any]) -> None:
        self.type: str = start["type"]
        self.start = start
        self.pieces: list[str] = []
        self.citations: list[Json] = list(start.get("citations") or ())

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def is_kept(self) -> bool:
        """Whether a later request has a place for it."""
        return self.type != "text" or bool(self.text.strip())

    def whole(self) -> Json:
        """The block as the API wants it back."""
        match self.type:
            case "text":
                cited = {"citations": known} if (known := replayable(self.citations)) else {}
                return {"type": "text", "text": self.text, **cited}
            case "thinking":
                return {**self.start, "thinking": self.text}
            case "tool_use" | "server_tool_use":
                return {**self.start, "input": arguments(self.text) if self.pieces else self.start.get("input") or {}}
            case _:
                return self.start


Piece = tuple[Literal["text", "reasoning", ""], str]
"""What an event adds to the text or the reasoning, if it adds anything."""
NOTHING: Piece = ("", "")


class Answer:
    """One answer as it comes in; `usage` is right at every moment, also when the stream is cut off."""

    def __init__(self, tools: tuple[ToolSpec, ...], tool_names: Mapping[str, str]) -> None:
        self._tools = tools
        self._tool_names = tool_names
        self._blocks: dict[int, _Block] = {}
        self._tokens: dict[str, int] = {}
        self._stop_reason: str | None = None
        self._model: str | None = None
        self._first = 0
        """The number of the first block of the request that is being answered."""
        self._earlier = NO_USAGE
        """Of the requests before it."""
        self.container: Json | None = None
        """Where the provider ran code, if it did."""
        self.usage = NO_USAGE
        self.is_complete = False

    def take(self, event: dict[str, Any]) -> Piece:
        """Fold one event in; kinds of events that are not known are passed over, as the API asks.

        Raises:
            ProviderError: the answer holds a block that cannot be kept.
        """
        match event["type"]:
            case "content_block_delta":
                return _take_delta(self._blocks[self._first + event["index"]], event["delta"])
            case "content_block_start":
                return self._start(self._first + event["index"], event["content_block"])
            case "message_start":
                self._model = event["message"].get("model")
                self.container = event["message"].get("container") or self.container
                self._take_usage(event["message"].get("usage") or {})
            case "message_delta":
                self._stop_reason = event["delta"].get("stop_reason") or self._stop_reason
                self.container = event["delta"].get("container") or self.container
                self._take_usage(event.get("usage") or {})
            case "message_stop":
                self.is_complete = True
            case _:
                pass
        return NOTHING

    @property
    def is_paused(self) -> bool:
        """Whether the API wants to be asked to go on."""
        return self._stop_reason == "pause_turn"

    def go_on(self) -> list[Json]:
        """Get ready for the rest of a paused turn; what it has said so far, as the API wants it back."""
        self._first = max(self._blocks, default=-1) + 1
        self._earlier = self.usage
        self._tokens.clear()
        self._stop_reason = None
        self.is_complete = False
        return [block.whole() for _, block in sorted(self._blocks.items()) if block.is_kept]

    def generation(self) -> Generation:
        """The finished answer."""
        thoughts, tools, texts, calls = self._parts()
        contents: tuple[ExpertPart, ...] = (*thoughts, *tools, *texts, *calls)
        return Generation(
            contents=contents,
            usage=self.usage,
            finish_reason=_FINISH_REASONS.get(self._stop_reason or "", "other"),
            model=self._model,
        )

    def _start(self, index: int, content_block: dict[str, Any]) -> Piece:
        block = _Block(content_block)
        self._blocks[index] = block
        match block.type:
            case "text":
                return _said(block, "text", content_block.get("text") or "")
            case "thinking":
                return _said(block, "reasoning", content_block.get("thinking") or "")
            case "tool_use" | "redacted_thinking":
                return NOTHING
            case _ if is_own(block.type):
                return NOTHING
            case _:
                raise ProviderError("unsupported", f"Anthropic answered with a `{block.type}` block nobody asked for.")

    def _take_usage(self, reported: dict[str, Any]) -> None:
        # The counts are totals; what a later event leaves out keeps its value.
        self._tokens.update({name: count for name, count in reported.items() if isinstance(count, int)})
        details: dict[str, Any] = reported.get("output_tokens_details") or {}
        if (thinking := details.get("thinking_tokens")) is not None:
            self._tokens["thinking_tokens"] = thinking
        cached = self._tokens.get("cache_read_input_tokens", 0)
        written = self._tokens.get("cache_creation_input_tokens", 0)
        input_tokens = self._tokens.get("input_tokens", 0) + cached + written
        output_tokens = self._tokens.get("output_tokens", 0)
        self.usage = self._earlier + Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            reasoning_tokens=self._tokens.get("thinking_tokens", 0),
            total_tokens=input_tokens + output_tokens,
            cached_input_tokens=cached,
        )

    def _parts(
        self,
    ) -> tuple[list[ThinkingPart], list[ProviderToolPart], list[TextPart], tuple[ToolCallPart, ...]]:
        thoughts: list[tuple[int, _Block]] = []
        texts: list[TextPart] = []
        calls: list[ToolCallPart] = []
        ran: list[Placed] = []
        cited: list[Cited] = []
        abandoned = self._abandoned()
        is_in_order = True
        for _, block in sorted(self._blocks.items()):
            place = len(texts) + len(calls) + len(ran)
            match block.type:
                case "text" if block.is_kept:
                    is_in_order = is_in_order and not calls
                    if citations := replayable(block.citations):
                        cited.append(Cited(len(texts), citations))
                    texts.append(TextPart(text=block.text, sources=cited_sources(block.citations)))
                case "tool_use":
                    calls.append(self._call(block))
                case "thinking" | "redacted_thinking":
                    thoughts.append((place, block))
                case _ if is_own(block.type) and block not in abandoned:
                    ran.append(Placed(place, block.whole()))
                case _:
                    pass
        in_order = sorted_calls(tuple(calls), self._tools)
        is_in_order = is_in_order and in_order == tuple(calls)
        tools = tool_parts(ran, shown_only=[block.whole() for block in abandoned], cited=cited, used=self.container)
        return [_thought(block, at, is_in_order=is_in_order) for at, block in thoughts], tools, texts, in_order

    def _abandoned(self) -> list[_Block]:
        """Calls of provider tools that will never have a result; the API runs those beside calls of ours later."""
        blocks = list(self._blocks.values())
        if any(block.type == "tool_use" for block in blocks):
            return []
        answered = {block.start.get("tool_use_id") for block in blocks if block.type.endswith(RESULT_SUFFIX)}
        return [block for block in blocks if block.type == CALL and block.start["id"] not in answered]

    def _call(self, block: _Block) -> ToolCallPart:
        name: str = block.start["name"]
        return ToolCallPart(
            tool_call_id=block.start["id"],
            tool_name=self._tool_names.get(name, name),
            args=arguments(block.text) if block.pieces else block.start.get("input") or {},
        )


def _take_delta(block: _Block, delta: dict[str, Any]) -> Piece:
    match delta["type"]:
        case "text_delta":
            return _said(block, "text", delta["text"])
        case "thinking_delta":
            return _said(block, "reasoning", delta["thinking"])
        case "input_json_delta":
            block.pieces.append(delta["partial_json"])
        case "citations_delta":
            block.citations.append(delta["citation"])
        case "signature_delta":
            block.start["signature"] = delta["signature"]
        case _:
            pass
    return NOTHING


def _said(block: _Block, kind: Literal["text", "reasoning"], piece: str) -> Piece:
    block.pieces.append(piece)
    return (kind, piece) if piece else NOTHING


def _thought(block: _Block, position: int, *, is_in_order: bool) -> ThinkingPart:
    is_redacted = block.type == "redacted_thinking"
    signature: str | None = block.start.get("data" if is_redacted else "signature")
    # Behind blocks that our order moves, it can be shown but no longer be replayed.
    if not signature or (position and not is_in_order):
        return ThinkingPart(thinking=block.text)
    return ThinkingPart(thinking=block.text, signature=placed(signature, position=position, is_redacted=is_redacted))
