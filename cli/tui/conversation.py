"""Messages of a conversation as texts to read."""

from collections.abc import Iterable, Mapping

from pydantic_core import to_json
from textual.content import Content

from ...core.messages import (
    ExpertMessage,
    ExpertPart,
    FileBinaryPart,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    InstructionMessage,
    Message,
    ProviderToolPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
    UserPart,
)
from ..plain import one_line
from .moments import size
from .widgets.folds import Block

_NAMES = {
    "instructionMessage": "instruction",
    "userMessage": "user",
    "expertMessage": "expert",
    "toolMessage": "results",
}
_Part = UserPart | ExpertPart | ToolResultPart


def message_head(message: Message, number: int, *, is_new: bool) -> Content:
    """Whose message it is, and what it is made of."""
    parts = [word for part in message.contents if (word := _part_word(part))]
    counted = [f"{parts.count(word)} {word}s" if parts.count(word) > 1 else word for word in dict.fromkeys(parts)]
    return Content.assemble(
        (f"{number} ", "dim"),
        (_NAMES[message.type], "bold"),
        (f" · {', '.join(counted)}" if counted else "", "dim"),
        (" · new in this step" if is_new else "", "dim"),
    )


def message_blocks(message: Message, paths: Mapping[str, str]) -> list[Block]:
    """What it says; `paths` are the files that calls were about, by call."""
    match message:
        case InstructionMessage():
            return [Block(part.text, is_markdown=True) for part in message.contents]
        case UserMessage():
            return part_blocks(message.contents, is_markdown=True)
        case ExpertMessage():
            return [block for part in message.contents for block in _expert_blocks(part)]
        case ToolMessage():
            return [block for part in message.contents for block in _result_blocks(part, paths)]


def part_blocks(parts: Iterable[UserPart], path: str = "", *, is_markdown: bool = False) -> list[Block]:
    """Texts, and of everything else what it is and how large."""
    return [
        Block(part.text, is_markdown=is_markdown) if isinstance(part, TextPart) else Block(media_text(part, path))
        for part in parts
    ]


def media_text(part: UserPart, path: str = "") -> str:
    """An image or a file by its name, its type and its size."""
    match part:
        case ImageUrlPart() | FileUrlPart():
            return f"{_word(part)} {one_line(part.url)} · {one_line(part.mime_type)}"
        case ImageInlinePart() | FileInlinePart():
            count = len(part.encoded_data.rstrip("=")) * 3 // 4
        case ImageBinaryPart() | FileBinaryPart():
            count = len(part.data)
        case TextPart():
            return one_line(part.text)
    name = f" {one_line(path)}" if path else ""
    return f"{_word(part)}{name} · {one_line(part.mime_type)} · {size(count)}"


def _expert_blocks(part: ExpertPart) -> list[Block]:
    match part:
        case TextPart():
            return [Block(part.text, is_markdown=True)]
        case ThinkingPart():
            return [Block(part.thinking, style="dim italic")]
        case ToolCallPart():
            return [Block(f"→ {one_line(part.tool_name)} {to_json(part.args).decode()}")]
        case ProviderToolPart():
            sources = "\n".join(filter(None, (source.url or source.title for source in part.sources)))
            head = Block(f"→ {one_line(part.tool_name)} {to_json(part.args).decode()}")
            return [head, *part_blocks(part.contents), Block(sources, style="dim")]


def _result_blocks(part: ToolResultPart, paths: Mapping[str, str]) -> list[Block]:
    sign = "✗" if part.is_error else "✓"
    path = paths.get(part.tool_call_id, "")
    head = Block(one_line(f"{sign} {part.tool_name} {path}"), style="bold")
    return [head, *part_blocks(part.contents, path)]


def _part_word(part: _Part) -> str:
    match part:
        case TextPart() | ToolResultPart():
            return ""
        case ThinkingPart():
            return "reasoning" if part.thinking else ""
        case ToolCallPart():
            return "call"
        case ProviderToolPart():
            return "provider tool"
        case _:
            return _word(part)


def _word(part: UserPart) -> str:
    if isinstance(part, (ImageUrlPart, ImageInlinePart, ImageBinaryPart)):
        return "image"
    return "PDF" if not isinstance(part, TextPart) and part.mime_type == "application/pdf" else "file"
