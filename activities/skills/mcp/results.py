"""What an MCP server answers as parts of a message: nothing too long, nothing dropped silently."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import mcp_types as mcp

from ....core.messages import FileInlinePart, ImageInlinePart, ResultPart, TextPart
from ..results import TEXT_LIMIT, clip_text, dumps

_ARGUMENTS_LIMIT = 2 * 1024


def parts_from_mcp(
    result: mcp.CallToolResult, *, tool_name: str, args: Mapping[str, Any], limit: int = TEXT_LIMIT
) -> tuple[ResultPart, ...]:
    """The content of an MCP result as message parts, its text within `limit` bytes over all parts."""
    parts = [_part(block) for block in result.content]
    structured = result.structured_content
    if structured is not None and not _repeats(parts, structured):
        parts.append(TextPart(text=dumps(structured)))
    if not parts:
        shown = clip_text(dumps(dict(args)), _ARGUMENTS_LIMIT)
        parts.append(TextPart(text=f"The tool {tool_name} returned nothing for the arguments {shown}."))
    return _clipped(parts, limit)


def _part(block: mcp.ContentBlock) -> ResultPart:
    match block:
        case mcp.TextContent():
            return TextPart(text=block.text or "(empty text)")
        case mcp.ImageContent():
            if block.data and block.mime_type:
                return ImageInlinePart(encoded_data=block.data, mime_type=block.mime_type)
            return TextPart(text="(an image without data or type)")
        case mcp.AudioContent():
            size = _decoded_size(block.data)
            return TextPart(text=f"(audio of type {block.mime_type}, {size} bytes, which cannot be shown)")
        case mcp.ResourceLink():
            return TextPart(text=_link_text(block))
        case mcp.EmbeddedResource():
            return _resource_part(block.resource)


def _resource_part(resource: mcp.TextResourceContents | mcp.BlobResourceContents) -> ResultPart:
    if isinstance(resource, mcp.TextResourceContents):
        return TextPart(text=resource.text or f"(empty resource {resource.uri})")
    if not resource.mime_type:
        size = _decoded_size(resource.blob)
        return TextPart(text=f"(resource {resource.uri}, {size} bytes of unknown type, which cannot be shown)")
    return FileInlinePart(encoded_data=resource.blob, mime_type=resource.mime_type)


def _link_text(link: mcp.ResourceLink) -> str:
    facts = [fact for fact in (link.mime_type, f"{link.size} bytes" if link.size is not None else None) if fact]
    text = f"Resource {link.name}: {link.uri}"
    if facts:
        text += f" ({', '.join(facts)})"
    return f"{text}\n{link.description}" if link.description else text


def _decoded_size(data: str) -> int:
    try:
        return len(base64.b64decode(data))
    except (binascii.Error, ValueError):
        return len(data)


def _repeats(parts: Sequence[ResultPart], structured: Any) -> bool:
    """Whether a text part says what `structured` says, as servers are asked to send for older clients.

    That is its JSON, or, where it is one wrapped value such as `{"content": "…"}`, that value.
    """
    said: list[Any] = [structured]
    if isinstance(structured, dict) and len(cast("dict[str, Any]", structured)) == 1:
        said.extend(cast("dict[str, Any]", structured).values())
    return any(isinstance(part, TextPart) and _says(part.text, said) for part in parts)


def _says(text: str, values: list[Any]) -> bool:
    if any(isinstance(value, str) and value == text for value in values):
        return True
    try:
        return json.loads(text) in values
    except (ValueError, RecursionError):
        return False


def _clipped(parts: list[ResultPart], limit: int) -> tuple[ResultPart, ...]:
    sizes = {i: len(p.text.encode("utf-8", "replace")) for i, p in enumerate(parts) if isinstance(p, TextPart)}
    if sum(sizes.values()) <= limit:
        return tuple(_clean(part) for part in parts)
    merged = _merged(parts)
    texts = [(len(p.text.encode("utf-8", "replace")), i) for i, p in enumerate(merged) if isinstance(p, TextPart)]
    remaining, left = limit, len(texts)
    for size, index in sorted(texts):
        share = min(size, remaining // left)
        part = merged[index]
        if isinstance(part, TextPart):
            merged[index] = TextPart(text=clip_text(part.text, share))
        remaining -= share
        left -= 1
    return tuple(merged)


def _merged(parts: list[ResultPart]) -> list[ResultPart]:
    """Neighbouring texts as one, so that a great many small ones are clipped as a whole."""
    merged: list[ResultPart] = []
    run: list[str] = []
    for part in (*parts, None):
        if isinstance(part, TextPart):
            run.append(part.text)
            continue
        if run:
            merged.append(TextPart(text="\n".join(run)))
            run = []
        if part is not None:
            merged.append(part)
    return merged


def _clean(part: ResultPart) -> ResultPart:
    return TextPart(text=clip_text(part.text)) if isinstance(part, TextPart) and not part.text.isascii() else part
