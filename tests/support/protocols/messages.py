"""Anthropic's Messages API."""

from collections.abc import Iterator

from pydantic_core import to_json

from .base import Answer, Json, Request, cut, sse


class Messages:
    """See `WireProtocol`."""

    name = "messages"
    content_type = "text/event-stream; charset=utf-8"

    def serves(self, path: str) -> bool:
        return path.endswith("/v1/messages")

    def plain(self, request: Request) -> Json | None:
        return None

    def messages(self, request: Request) -> list[Json]:
        return request.json.get("messages", [])

    def model(self, request: Request) -> str:
        return request.json.get("model", "")

    def system(self, request: Request) -> str:
        return _text_of(request.json.get("system", ""))

    def first_user_text(self, request: Request) -> str:
        return _text_of(request.messages[0]["content"]) if request.messages else ""

    def turn(self, request: Request) -> int:
        return 1 + sum(message["role"] == "assistant" for message in request.messages)

    def results(self, request: Request) -> list[Json]:
        content: str | list[Json] = request.messages[-1]["content"] if request.messages else ""
        return [] if isinstance(content, str) else [block for block in content if block["type"] == "tool_result"]

    def events(self, request: Request, answer: Answer) -> Iterator[bytes]:
        return _events(request, answer)

    def stream_error(self, answer: Answer) -> bytes:
        return _sse("error", _error(answer))

    def error_body(self, answer: Answer) -> bytes:
        return to_json(_error(answer))


def _text_of(content: str | list[Json]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


def _error(answer: Answer) -> Json:
    error: Json = {"type": answer.error_type or "invalid_request_error", "message": answer.message}
    if answer.error_code:
        error["details"] = {"error_code": answer.error_code}
    return {"type": "error", "error": error, "request_id": "req_scripted"}


def _events(request: Request, answer: Answer) -> Iterator[bytes]:
    """The server-sent events of one answer."""
    usage = answer.usage if answer.usage is not None else {"input_tokens": 10, "output_tokens": 5}
    input_usage = {**usage, "output_tokens": 1}
    message: Json = {
        "id": f"msg_{request.fingerprint}_{request.turn}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or request.json.get("model", ""),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": input_usage,
    }
    yield _sse("message_start", {"message": message})
    blocks = answer.blocks or tuple(_blocks(request, answer))
    for index, block in enumerate(blocks):
        start, deltas = _split(block, answer.delta_size)
        yield _sse("content_block_start", {"index": index, "content_block": start})
        if index == 0:
            yield _sse("ping", {})
        for delta in deltas:
            yield _sse("content_block_delta", {"index": index, "delta": delta})
        yield _sse("content_block_stop", {"index": index})
    has_calls = any(block["type"] == "tool_use" for block in blocks)
    stop_reason = answer.stop_reason or ("tool_use" if has_calls else "end_turn")
    delta = {"stop_reason": stop_reason, "stop_sequence": None, "container": answer.container}
    output_usage = {name: usage[name] for name in ("output_tokens", "output_tokens_details") if name in usage}
    yield _sse("message_delta", {"delta": delta, "usage": output_usage})
    yield _sse("message_stop", {})


def _blocks(request: Request, answer: Answer) -> Iterator[Json]:
    if answer.thinking:
        yield {"type": "thinking", "thinking": answer.thinking, "signature": answer.signature}
    if answer.redacted:
        yield {"type": "redacted_thinking", "data": answer.redacted}
    if answer.text:
        yield {"type": "text", "text": answer.text}
    for index, call in enumerate(answer.calls):
        call_id = call.id or f"toolu_{request.fingerprint}_{request.turn}_{index}"
        yield {"type": "tool_use", "id": call_id, "name": call.name, "input": call.args}


def _split(block: Json, size: int) -> tuple[Json, list[Json]]:
    """A block as it starts, and the deltas that fill it."""
    match block["type"]:
        case "text":
            # Citations come before the text they belong to.
            cited = [{"type": "citations_delta", "citation": citation} for citation in block.get("citations", ())]
            start: Json = {**block, "text": "", **({"citations": []} if cited else {})}
            return start, [*cited, *({"type": "text_delta", "text": piece} for piece in cut(block["text"], size))]
        case "thinking":
            pieces = cut(block["thinking"], size)
            deltas: list[Json] = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
            return {**block, "thinking": "", "signature": ""}, deltas
        case "tool_use" | "server_tool_use":
            text = block["input"] if isinstance(block["input"], str) else to_json(block["input"]).decode()
            # The real API opens every call with an empty piece.
            pieces = ["", *cut(text if text != "{}" else "", size)]
            return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        case _:
            return block, []


def _sse(name: str, data: Json) -> bytes:
    return sse(to_json({"type": name, **data}), name)
