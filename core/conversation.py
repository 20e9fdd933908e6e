"""The conversation by position: how workflow and worker agree on it without sending it (DESIGN §2)."""

import hashlib
from typing import Any

from pydantic_core import to_json

from .messages import (
    ExpertMessage,
    InstructionMessage,
    Message,
    ResultPart,
    TextPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
    UserPart,
)
from .wire import Wire

EMPTY_DIGEST = ""
_IDS: dict[str, Any] = {"id": True, "contents": {"__all__": {"id"}}}
_TOOL_IDS: dict[str, Any] = {"id": True, "contents": {"__all__": {"id": True, "contents": {"__all__": {"id"}}}}}


class Position(Wire):
    """How many messages a conversation has and the digest over all of them."""

    count: int = 0
    digest: str = EMPTY_DIGEST

    def after(self, message: Message) -> "Position":
        """The position once `message` is appended; ids do not count, the worker has none."""
        exclude = _TOOL_IDS if isinstance(message, ToolMessage) else _IDS
        text = to_json(message.model_dump(exclude=exclude, exclude_none=True, mode="json"))
        digest = hashlib.sha256(self.digest.encode() + text).hexdigest()
        return Position.trusted(count=self.count + 1, digest=digest)


class KnownResult(Wire):
    """The result of one call that no activity of this session produced."""

    index: int
    """Position of the call in `callTools.toolCalls`."""
    contents: tuple[ResultPart, ...]
    is_error: bool | None = None


class Appendix(Wire):
    """What the machine added since the last generation and the worker cannot know."""

    results: tuple[KnownResult, ...] = ()
    messages: tuple[InstructionMessage | UserMessage | ExpertMessage | ToolMessage, ...] = ()


def tool_message(calls: tuple[ToolCallPart, ...], results: dict[int, KnownResult]) -> ToolMessage:
    """The one tool message that answers `calls`, in call order.

    Raises:
        KeyError: a call has no result.
    """
    return ToolMessage(
        contents=tuple(
            ToolResultPart(
                tool_call_id=call.tool_call_id,
                tool_name=call.tool_name,
                contents=results[index].contents,
                is_error=results[index].is_error,
            )
            for index, call in enumerate(calls)
        )
    )


def opening(instruction: str, query: str | None, files: tuple[UserPart, ...]) -> tuple[InstructionMessage, UserMessage]:
    """The first two messages of a run: its instruction and its task."""
    parts: tuple[UserPart, ...] = files
    if query is not None:
        parts = (TextPart(text=query), *files)
    return (
        InstructionMessage(contents=(TextPart(text=instruction),), cache=True),
        UserMessage(contents=parts),
    )
