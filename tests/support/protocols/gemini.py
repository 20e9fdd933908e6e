"""Gemini over REST, at the addresses of the Gemini API and of Vertex AI, and the tokens of a service account.

The chunks are those of `GenerateContentResponse` (https://ai.google.dev/api/generate-content): parts as they are
made, the usage so far in every chunk; the reason of the end and what was found out about sources in the last one. A
thinking model signs its first call, or else adds a part that is nothing but a signature.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from pydantic_core import to_json

from .base import Answer, Json, Request, cut, sse

TOKEN = "ya29.scripted-token"
_MODEL = re.compile(r"(?:.*/)?models/([^/:]+):streamGenerateContent")
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Gemini:
    """See `WireProtocol`."""

    name = "gemini"
    content_type = "text/event-stream"

    def serves(self, path: str) -> bool:
        return path.endswith((":streamGenerateContent", "/token"))

    def plain(self, request: Request) -> Json | None:
        if not request.path.endswith("/token"):
            return None
        return {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}

    def messages(self, request: Request) -> list[Json]:
        return request.json.get("contents", [])

    def model(self, request: Request) -> str:
        match = _MODEL.fullmatch(request.path)
        return match[1] if match else ""

    def system(self, request: Request) -> str:
        return _text_of(request.json.get("systemInstruction", {}))

    def first_user_text(self, request: Request) -> str:
        return _text_of(request.messages[0]) if request.messages else ""

    def turn(self, request: Request) -> int:
        return 1 + sum(content["role"] == "model" for content in request.messages)

    def results(self, request: Request) -> list[Json]:
        parts: list[Json] = request.messages[-1]["parts"] if request.messages else []
        return [_result(part["functionResponse"]) for part in parts if "functionResponse" in part]

    def events(self, request: Request, answer: Answer) -> Iterator[bytes]:
        return _events(request, answer)

    def stream_error(self, answer: Answer) -> bytes:
        return _sse(_error(answer))

    def error_body(self, answer: Answer) -> bytes:
        return json.dumps(_error(answer), indent=2).encode()


def _text_of(content: Json) -> str:
    return "\n".join(part["text"] for part in content.get("parts", ()) if "text" in part)


def _result(response: Json) -> Json:
    said: Json = response["response"]
    text = said.get("output", said.get("error", ""))
    media: list[Json] = response.get("parts", [])
    content = [{"type": "text", "text": text}, *media] if media else text
    return {"type": "tool_result", "tool_use_id": response.get("id", ""), "content": content}


def _error(answer: Answer) -> Json:
    # Inside a stream the status of the response says nothing any more.
    status = 500 if answer.status == 200 else answer.status
    error: Json = {
        "code": status,
        "message": answer.message,
        "status": answer.error_type or _STATUSES.get(status, "UNKNOWN"),
    }
    if answer.error_code:
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": answer.error_code}
        error["details"] = [{**info, "domain": "googleapis.com", "metadata": {"service": "example.googleapis.com"}}]
    return {"error": error}


def _events(request: Request, answer: Answer) -> Iterator[bytes]:
    """The server-sent events of one answer; a block `{"candidate": {...}}` is told beside the end."""
    usage = answer.usage if answer.usage is not None else {"promptTokenCount": 10, "candidatesTokenCount": 5}
    so_far = {name: count for name, count in usage.items() if name not in ("candidatesTokenCount", "totalTokenCount")}
    made = {"modelVersion": answer.model or request.model, "responseId": f"{request.fingerprint}-{request.turn}"}
    beside: Json = {}
    for block in answer.blocks or _blocks(request, answer):
        if "candidate" in block:
            beside |= block["candidate"]
            continue
        for part in _cut(block, answer.delta_size):
            candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
            yield _sse({"candidates": [candidate], "usageMetadata": so_far, **made})
    last: list[Json] = [{"text": ""}]
    if answer.thinking and not answer.calls and not answer.blocks:
        last = [{"text": "", "thoughtSignature": answer.signature}]
    end = {"content": {"parts": last, "role": "model"}, "finishReason": answer.stop_reason or "STOP", "index": 0}
    total = sum(usage.get(name, 0) for name in ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"))
    yield _sse({"candidates": [{**end, **beside}], "usageMetadata": {"totalTokenCount": total, **usage}, **made})


def _blocks(request: Request, answer: Answer) -> Iterator[Json]:
    if answer.thinking:
        yield {"text": answer.thinking, "thought": True}
    if answer.text:
        yield {"text": answer.text}
    for index, call in enumerate(answer.calls):
        call_id = call.id or f"{request.fingerprint[:4]}{request.turn}{index}"
        part: Json = {"functionCall": {"name": call.name, "args": _arguments(call.args), "id": call_id}}
        if answer.thinking and index == 0:
            part["thoughtSignature"] = answer.signature
        yield part


def _arguments(args: Json | str) -> Any:
    """Arguments are a value here, not its text; a text that is none stays one."""
    if not isinstance(args, str):
        return args
    try:
        return json.loads(args)
    except ValueError:
        return args


def _cut(part: Json, size: int) -> Iterator[Json]:
    if part.get("text") and "thoughtSignature" not in part:
        for piece in cut(part["text"], size):
            yield {**part, "text": piece}
    else:
        yield part


def _sse(data: Json) -> bytes:
    # The API ends its lines with both characters.
    return sse(to_json(data)).replace(b"\n", b"\r\n")
