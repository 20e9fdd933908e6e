"""What a tool gives back, in the form and size the model can take: nothing too long, nothing dropped silently."""

import json
from collections.abc import Mapping
from typing import Any

TEXT_LIMIT = 256 * 1024
"""Bytes of text that one tool result may have, in UTF-8."""
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
    text = dumps(fields)
    while (excess := len(text.encode()) - limit) > 0:
        name = max(fields, key=lambda key: len(dumps(fields[key])) if isinstance(fields[key], str) else 0)
        if not isinstance(fields[name], str) or len(fields[name]) <= _SHORT:
            return clip_text(text, limit)
        size, escaped = len(fields[name].encode()), len(dumps(fields[name]).encode())
        # From the original, so that the cut is counted once; scaled and, if need be, repeated.
        fields[name] = clip_text(value[name], max(_SHORT // 2, size * (escaped - excess) // escaped - _SHORT))
        text = dumps(fields)
    return text


def dumps(value: Any) -> str:
    """`value` as JSON in the fewest characters; lone surrogates become `?`."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
