"""Answers of the Gemini API: the chunks of one stream folded into a generation."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeGuard
from uuid import uuid4

from ....core.expert import ProviderTool
from ....core.messages import ProviderToolPart, TextPart, ThinkingPart, ToolCallPart
from ....core.run import FinishReason, Generation
from ....core.tools import ToolSpec, sorted_calls
from ....core.usage import NO_USAGE, Usage
from ..base import INVALID_JSON_ARGUMENT, INVALID_JSON_LIMIT
from ..failures import ProviderError, ProviderErrorKind
from .gemini_layout import MADE_ID, layout
from .gemini_tools import Tools, cited, merged_metadata
from .parts import Json, json_bytes

_FINISH_REASONS: Mapping[str, FinishReason] = MappingProxyType(
    {
        "STOP": "stop",
        "MAX_TOKENS": "length",
        "CONTINUATION": "length",
        **dict.fromkeys(
            (
                *("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR"),
                *("IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "ESCALATION"),
            ),
            "refusal",
        ),
    }
)
_FAILED: Mapping[str, tuple[ProviderErrorKind, str]] = MappingProxyType(
    {
        # The next attempt mostly gets it right.
        "MALFORMED_FUNCTION_CALL": ("stream_broken", "wrote a call that cannot be read"),
        "MALFORMED_RESPONSE": ("stream_broken", "wrote an answer that cannot be read"),
        "UNEXPECTED_TOOL_CALL": ("stream_broken", "called a tool that it was not given"),
        "MISSING_THOUGHT_SIGNATURE": ("bad_request", "misses a thought signature in the conversation"),
        "PUP_LIMITED_DISABLED": ("auth", "has limited or disabled the account for violations of its policy"),
    }
)
Piece = tuple[Literal["text", "reasoning"], str]
"""What a chunk adds to the text or the reasoning."""


class _Said:
    """Adjacent texts, or adjacent thoughts; a signed one stands alone."""

    __slots__ = ("is_thought", "pieces", "signature")

    def __init__(self, *, is_thought: bool, signature: str) -> None:
        self.is_thought = is_thought
        self.signature = signature
        self.pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class _Called:
    __slots__ = ("call", "signature")

    def __init__(self, call: ToolCallPart, signature: str) -> None:
        self.call = call
        self.signature = signature


class Answer:
    """One answer as it comes in; `usage` is right at every moment, also when the stream is cut off.

    `promptTokenCount` includes the cached tokens, `toolUsePromptTokenCount` comes on top of it;
    `candidatesTokenCount` leaves the thoughts out, which `thoughtsTokenCount` has. All are totals of one request.
    """

    def __init__(
        self,
        title: str,
        tools: tuple[ToolSpec, ...],
        tool_names: Mapping[str, str],
        provider_tools: Sequence[ProviderTool],
    ) -> None:
        self._title = title
        self._specs = tools
        self._tool_names = tool_names
        self._blocks: list[_Said | _Called | str] = []
        self._provider_tools = Tools([tool.name for tool in provider_tools])
        self._call_ids: set[str] = set()
        self._metadata: Json = {}
        self._tokens: dict[str, int] = {}
        self._earlier = NO_USAGE
        self._finish_reason = ""
        self._finish_message = ""
        self._model: str | None = None
        self._token = ""
        self.usage = NO_USAGE

    @property
    def is_complete(self) -> bool:
        """Whether the model has said why it stopped; a chunk with metadata may still follow."""
        return bool(self._finish_reason)

    def take(self, chunk: Json) -> list[Piece]:
        """Fold one chunk in; parts and fields that are not known are passed over.

        Raises:
            ProviderError: the request was refused for its content.
        """
        self._model = chunk.get("modelVersion") or self._model
        if usage := chunk.get("usageMetadata"):
            self._take_usage(usage)
        feedback: Json = chunk.get("promptFeedback") or {}
        if reason := feedback.get("blockReason"):
            words = feedback.get("blockReasonMessage")
            message = f"{self._title} refused the content: {reason}{f', {words}' if words else ''}"
            raise ProviderError("content_refused", message)
        pieces: list[Piece] = []
        for candidate in (chunk.get("candidates") or ())[:1]:
            content: Json = candidate.get("content") or {}
            for part in content.get("parts") or ():
                pieces += self._part(part)
            self._finish_reason = candidate.get("finishReason") or self._finish_reason
            self._finish_message = candidate.get("finishMessage") or self._finish_message
            self._token = candidate.get("continuationToken") or self._token
            self._metadata = merged_metadata(self._metadata, candidate)
        return pieces

    def continuation(self) -> str:
        """What the next request goes on with, should this one have ended before the answer; empty otherwise."""
        token, self._token = self._token, ""
        if self._finish_reason != "CONTINUATION" or not token:
            return ""
        self._finish_reason = ""
        self._earlier, self._tokens = self.usage, {}
        return token

    def generation(self) -> Generation:
        """The finished answer.

        Raises:
            ProviderError: the model stopped for a reason that makes the answer useless.
        """
        if failed := _FAILED.get(self._finish_reason):
            kind, what = failed
            words = f": {self._finish_message}" if self._finish_message else ""
            raise ProviderError(kind, f"{self._title} {what} ({self._finish_reason}){words}")
        self._provider_tools.look_up(self._metadata)
        texts = [TextPart(text=block.text) for block in self._blocks if _is_text(block)]
        calls = sorted_calls(tuple(block.call for block in self._blocks if isinstance(block, _Called)), self._specs)
        provider_tools = self._provider_tools.parts()
        contents = (*self._thoughts(calls, provider_tools), *provider_tools, *cited(texts, self._metadata), *calls)
        finish_reason = _FINISH_REASONS.get(self._finish_reason, "other")
        if finish_reason == "stop" and calls:
            finish_reason = "toolCalls"
        return Generation(contents=contents, usage=self.usage, finish_reason=finish_reason, model=self._model)

    def _part(self, part: Json) -> list[Piece]:
        signature: str = part.get("thoughtSignature") or ""
        if "functionCall" in part:
            self._blocks.append(_Called(self._call(part["functionCall"]), signature))
        elif (name := self._provider_tools.take(part)) is not None:
            self._blocks.append(name)
        elif signature or part.get("text"):
            return self._say(part.get("text") or "", is_thought=part.get("thought") is True, signature=signature)
        return []

    def _say(self, text: str, *, is_thought: bool, signature: str) -> list[Piece]:
        last = self._blocks[-1] if self._blocks else None
        if signature or not (isinstance(last, _Said) and last.is_thought == is_thought and not last.signature):
            last = _Said(is_thought=is_thought, signature=signature)
            self._blocks.append(last)
        last.pieces.append(text)
        return [("reasoning" if is_thought else "text", text)] if text else []

    def _call(self, call: Json) -> ToolCallPart:
        name: str = call["name"]
        call_id: str = call.get("id") or ""
        if not call_id or call_id in self._call_ids:
            call_id = f"{MADE_ID}{uuid4().hex}"
        self._call_ids.add(call_id)
        return ToolCallPart(
            tool_call_id=call_id, tool_name=self._tool_names.get(name, name), args=_arguments(call.get("args"))
        )

    def _take_usage(self, reported: Json) -> None:
        # What a later chunk leaves out keeps its value.
        self._tokens.update({name: count for name, count in reported.items() if isinstance(count, int)})
        count = self._tokens.get
        input_tokens = count("promptTokenCount", 0) + count("toolUsePromptTokenCount", 0)
        thoughts = count("thoughtsTokenCount", 0)
        output_tokens = count("candidatesTokenCount", 0) + thoughts
        self.usage = self._earlier + Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            reasoning_tokens=thoughts,
            total_tokens=input_tokens + output_tokens,
            cached_input_tokens=count("cachedContentTokenCount", 0),
        )

    def _thoughts(
        self, calls: tuple[ToolCallPart, ...], provider_tools: Sequence[ProviderToolPart]
    ) -> list[ThinkingPart]:
        """The thoughts; the last of them, or one made for it, holds the layout where there is something to hold."""
        thoughts: list[ThinkingPart] = []
        order: list[str | Json] = []
        signatures: dict[str, str] = {}
        places = {id(call): index for index, call in enumerate(calls)}
        texts = 0
        for block in self._blocks:
            if isinstance(block, str):
                order.append(block)
                continue
            if isinstance(block, _Called):
                name = f"c{places[id(block.call)]}"
            elif block.is_thought and block.text:
                name = f"k{len(thoughts)}"
                thoughts.append(ThinkingPart(thinking=block.text))
            elif _is_text(block):
                name, texts = f"t{texts}", texts + 1
            else:
                if block.signature:
                    thought = {"thought": True} if block.is_thought else {}
                    order.append({"text": block.text, **thought, "thoughtSignature": block.signature})
                continue
            order.append(name)
            if block.signature:
                signatures[name] = block.signature
        if order == _default_order(order, texts, len(calls)) and not signatures:
            return thoughts
        seal = layout(order, signatures)
        return [*thoughts[:-1], ThinkingPart(thinking=thoughts[-1].thinking if thoughts else "", signature=seal)]


def _default_order(order: Sequence[str | Json], texts: int, calls: int) -> list[str]:
    """How our message would be ordered by itself: provider tools, texts, calls."""
    own = sorted(name for name in order if isinstance(name, str) and name.startswith("p"))
    return [*own, *(f"t{index}" for index in range(texts)), *(f"c{index}" for index in range(calls))]


def _is_text(block: _Said | _Called | str) -> TypeGuard[_Said]:
    return isinstance(block, _Said) and not block.is_thought and bool(block.text.strip())


def _arguments(args: Any) -> dict[str, Any]:
    """The arguments of a call; what is no JSON object is kept for the tool layer to refuse."""
    if args is None:
        return {}
    if isinstance(args, dict):
        return args  # pyright: ignore[reportUnknownVariableType]
    text = args if isinstance(args, str) else json_bytes([args]).decode()[1:-1]
    return {INVALID_JSON_ARGUMENT: text[:INVALID_JSON_LIMIT]}
