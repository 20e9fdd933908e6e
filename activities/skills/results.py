"""What a tool gives back, in the form and size the model can take: nothing too long, nothing dropped silently."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import mcp_types as mcp

from ...core.messages import FileInlinePart, ImageInlinePart, ResultPart, TextPart

TEXT_LIMIT = 256 * 1024
"""Bytes of text that one tool result may have, in UTF-8."""
_ARGUMENTS_LIMIT = 2 * 1024
_SHORT = 64


class ToolFailure(Exception):
    """What a tool could not do, in words for the model; `details` join the error in its JSON."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


def clip_text(text: str, limit: int = TEXT_LIMIT) -> str:
    """`text` within `limit` bytes: head and tail are kept and the cut is named; lone surrogates become `?`."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode()
    reserved = len(_cut_notice(len(data)).encode())
    if limit < reserved:
        return data[:limit].decode("utf-8", "ignore")
    kept = limit - reserved
    head = data[: kept - kept // 2].decode("utf-8", "ignore")
    tail = data[len(data) - kept // 2 :].decode("utf-8", "ignore")
    cut = len(data) - len(head.encode()) - len(tail.encode())
    return head + _cut_notice(cut) + tail


def _cut_notice(count: int) -> str:
    return f"\n… {count} bytes cut …\n"


def json_text(value: Mapping[str, Any], limit: int = TEXT_LIMIT) -> str:
    """`value` as one JSON object within `limit` bytes; its longest strings are clipped, so it stays JSON."""
    # Escapes only make a string longer: what is above the limit by itself is cut before it is written out.
    fields = {name: clip_text(item, limit) if isinstance(item, str) else item for name, item in value.items()}
    text = _dumps(fields)
    while (excess := len(text.encode()) - limit) > 0:
        name = max(fields, key=lambda key: len(_dumps(fields[key])) if isinstance(fields[key], str) else 0)
        if not isinstance(fields[name], str) or len(fields[name]) <= _SHORT:
            return clip_text(text, limit)
        size, escaped = len(fields[name].encode()), len(_dumps(fields[name]).encode())
        # From the original, so that the cut is counted once; scaled and, if need be, repeated.
        fields[name] = clip_text(value[name], max(_SHORT // 2, size * (escaped - excess) // escaped - _SHORT))
        text = _dumps(fields)
    return text


def _dumps(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def parts_from_mcp(
    result: mcp.CallToolResult, *, tool_name: str, args: Mapping[str, Any], limit: int = TEXT_LIMIT
) -> tuple[ResultPart, ...]:
    """The content of an MCP result as message parts, its text within `limit` bytes over all parts."""
    parts = [_part(block) for block in result.content]
    structured = result.structured_content
    if structured is not None and not _repeats(parts, structured):
        parts.append(TextPart(text=_dumps(structured)))
    if not parts:
        shown = clip_text(_dumps(dict(args)), _ARGUMENTS_LIMIT)
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
