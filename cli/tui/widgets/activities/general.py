"""Calls of all tools that have no row of their own."""

import json
from collections.abc import Iterator

from .....core.activity import GeneralToolActivity
from .....core.messages import FileInlinePart, ImageInlinePart, ResultPart, TextPart
from ....plain import one_line
from ...moments import size
from .block import DIM, Block
from .marks import below, failure, tool_head


def general_tool(activity: GeneralToolActivity) -> Iterator[Block]:
    args = args_text(activity.args) if activity.args else ""
    yield tool_head(f"[{one_line(activity.skill_name)}] {one_line(activity.tool_name)}", args, activity.error)
    yield from failure(activity.error)
    texts = [_part_text(part) for part in activity.result or ()]
    # Of a failed call the text is mostly what went wrong, again.
    text = "\n".join(one for one in texts if one != activity.error)
    if text.strip():
        yield below(text, style=DIM)


def args_text(args: object) -> str:
    """Arguments as compact JSON."""
    try:
        return json.dumps(args, ensure_ascii=False, separators=(", ", ": "), default=str)
    except (ValueError, RecursionError):
        return str(type(args).__name__)


def _part_text(part: ResultPart) -> str:
    match part:
        case TextPart():
            return part.text
        case ImageInlinePart() | FileInlinePart():
            return f"({part.mime_type}, {size(len(part.encoded_data) * 3 // 4)})"
