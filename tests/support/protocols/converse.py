"""Amazon Bedrock's Converse API; the frames of its event stream are built here, not by the SDK that reads them."""

import struct
import zlib
from collections.abc import Iterator
from urllib.parse import unquote

from pydantic_core import to_json

from .base import Answer, Json, Request, cut

_STRING = 7


class Converse:
    """See `WireProtocol`."""

    name = "converse"
    content_type = "application/vnd.amazon.eventstream"

    def serves(self, path: str) -> bool:
        return path.endswith("/converse-stream")

    def plain(self, request: Request) -> Json | None:
        return None

    def messages(self, request: Request) -> list[Json]:
        return request.json.get("messages", [])

    def model(self, request: Request) -> str:
        return unquote(request.path.removesuffix("/converse-stream").rpartition("/model/")[2])

    def system(self, request: Request) -> str:
        return _text_of(request.json.get("system", []))

    def first_user_text(self, request: Request) -> str:
        return _text_of(request.messages[0]["content"]) if request.messages else ""

    def turn(self, request: Request) -> int:
        return 1 + sum(message["role"] == "assistant" for message in request.messages)

    def results(self, request: Request) -> list[Json]:
        content: list[Json] = request.messages[-1]["content"] if request.messages else []
        return [_result(block["toolResult"]) for block in content if "toolResult" in block]

    def events(self, request: Request, answer: Answer) -> Iterator[bytes]:
        yield event("messageStart", {"role": "assistant"})
        blocks = answer.blocks or tuple(_blocks(request, answer))
        for index, block in enumerate(blocks):
            start, deltas = _split(block, answer.delta_size)
            if start is not None:
                yield event("contentBlockStart", {"contentBlockIndex": index, "start": start})
            for delta in deltas:
                yield event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta})
            yield event("contentBlockStop", {"contentBlockIndex": index})
        has_calls = any("toolUse" in block for block in blocks)
        yield event("messageStop", {"stopReason": answer.stop_reason or ("tool_use" if has_calls else "end_turn")})
        default = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
        usage = answer.usage if answer.usage is not None else default
        routed = {"trace": {"promptRouter": {"invokedModelId": answer.model}}} if answer.model else {}
        yield event("metadata", {"usage": usage, "metrics": {"latencyMs": 12}, **routed})

    def stream_error(self, answer: Answer) -> bytes:
        kind = answer.error_type or "ValidationException"
        headers = {
            ":exception-type": kind[:1].lower() + kind[1:],
            ":content-type": "application/json",
            ":message-type": "exception",
        }
        return frame(headers, to_json({"message": answer.message}))

    def error_body(self, answer: Answer) -> bytes:
        return to_json({"__type": answer.error_type or "ValidationException", "message": answer.message})


def event(name: str, payload: Json) -> bytes:
    """One event; the real API pads each payload, so that its length does not tell what it says."""
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, to_json({**payload, "p": "abcdefghijk"}))


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of the binary event stream: lengths and their checksum, headers, payload, checksum of it all."""
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + encoded + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _header(name: str, value: str) -> bytes:
    encoded_name, encoded_value = name.encode(), value.encode()
    return (
        bytes([len(encoded_name)])
        + encoded_name
        + bytes([_STRING])
        + struct.pack(">H", len(encoded_value))
        + encoded_value
    )


def _text_of(blocks: list[Json]) -> str:
    return "\n".join(block["text"] for block in blocks if "text" in block)


def _result(result: Json) -> Json:
    contents = [{"type": "text", **block} if "text" in block else block for block in result["content"]]
    is_text = len(contents) == 1 and contents[0].get("type") == "text"
    content = contents[0]["text"] if is_text else contents
    return {"type": "tool_result", "tool_use_id": result["toolUseId"], "content": content}


def _blocks(request: Request, answer: Answer) -> Iterator[Json]:
    if answer.thinking:
        text = {"text": answer.thinking, "signature": answer.signature}
        yield {"reasoningContent": {"reasoningText": text}}
    if answer.redacted:
        yield {"reasoningContent": {"redactedContent": answer.redacted}}
    if answer.text:
        yield {"text": answer.text}
    for index, call in enumerate(answer.calls):
        call_id = call.id or f"tooluse_{request.fingerprint}_{request.turn}_{index}"
        yield {"toolUse": {"toolUseId": call_id, "name": call.name, "input": call.args}}


def _split(block: Json, size: int) -> tuple[Json | None, list[Json]]:
    """How a block starts, where its start is told, and the deltas that fill it."""
    if "text" in block:
        deltas = [{"text": piece} for piece in cut(block["text"], size)]
        return None, [*deltas, *({"citation": citation} for citation in block.get("citations", ()))]
    if (call := block.get("toolUse")) is not None:
        text = call["input"] if isinstance(call["input"], str) else to_json(call["input"]).decode()
        start = {"toolUse": {"toolUseId": call["toolUseId"], "name": call["name"]}}
        pieces = cut(text if text != "{}" else "", size)
        return start, [{"toolUse": {"input": piece}} for piece in pieces or [""]]
    reasoning: Json | None = block.get("reasoningContent")
    if reasoning is None:
        return None, [block]
    if "redactedContent" in reasoning:
        return None, [{"reasoningContent": reasoning}]
    told: Json = reasoning["reasoningText"]
    deltas = [{"reasoningContent": {"text": piece}} for piece in cut(told["text"], size)]
    if signature := told.get("signature"):
        deltas.append({"reasoningContent": {"signature": signature}})
    return None, deltas
