"""Chat Completions, as OpenAI, Fireworks and DeepSeek serve them, and Ollama; with Ollama's own `/api/show`.

Which of them a server is goes by the path of the request, as in their addresses: Ollama's is `/v1/chat/completions`.
"""

from collections.abc import Iterator

from pydantic_core import to_json

from .base import Answer, Json, Request, cut, sse

DONE = sse(b"[DONE]")


class Chat:
    """See `WireProtocol`."""

    name = "chat"
    content_type = "text/event-stream; charset=utf-8"

    def __init__(self) -> None:
        self.shown: dict[str, Json] = {}
        """What `/api/show` answers for a model."""

    def serves(self, path: str) -> bool:
        return path.endswith(("/chat/completions", "/api/show"))

    def plain(self, request: Request) -> Json | None:
        if not request.path.endswith("/api/show"):
            return None
        model = request.json["model"]
        return self.shown.get(model, {"error": f"model '{model}' not found"})

    def messages(self, request: Request) -> list[Json]:
        return [message for message in request.json.get("messages", []) if message["role"] != "system"]

    def model(self, request: Request) -> str:
        return request.json.get("model", "")

    def system(self, request: Request) -> str:
        messages: list[Json] = request.json.get("messages", [])
        return "\n".join(_text_of(message["content"]) for message in messages if message["role"] == "system")

    def first_user_text(self, request: Request) -> str:
        texts = (_text_of(message["content"]) for message in request.messages if message["role"] == "user")
        return next(texts, "")

    def turn(self, request: Request) -> int:
        return 1 + sum(message["role"] == "assistant" for message in request.messages)

    def results(self, request: Request) -> list[Json]:
        found: list[Json] = []
        for message in request.messages:
            if message["role"] == "assistant":
                found.clear()
            elif message["role"] == "tool":
                call_id, content = message["tool_call_id"], message["content"]
                found.append({"type": "tool_result", "tool_use_id": call_id, "content": content})
        return found

    def events(self, request: Request, answer: Answer) -> Iterator[bytes]:
        return _events(request, answer)

    def stream_error(self, answer: Answer) -> bytes:
        return sse(self.error_body(answer))

    def error_body(self, answer: Answer) -> bytes:
        error: Json = {
            "message": answer.message,
            "type": answer.error_type or "invalid_request_error",
            "param": None,
            "code": answer.error_code or None,
        }
        return to_json({"error": error})


CHAT = Chat()


def _text_of(content: str | list[Json]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


def _events(request: Request, answer: Answer) -> Iterator[bytes]:
    """The chunks of one answer, each an event; `blocks` are deltas, or whole chunks where they have `choices`."""
    head: Json = {
        "id": f"chatcmpl-{request.fingerprint}-{request.turn}",
        "object": "chat.completion.chunk",
        "created": 1_795_000_000,
        "model": answer.model or request.json.get("model", ""),
    }
    is_ollama = request.path == "/v1/chat/completions"
    deltas = answer.blocks or (*_deltas(request, answer, is_ollama=is_ollama),)
    for delta in deltas:
        yield sse(to_json(delta if "choices" in delta else {**head, "choices": [_choice(delta)]}))
    has_calls = any("tool_calls" in delta for delta in deltas)
    reason = answer.stop_reason or ("tool_calls" if has_calls else "stop")
    end: Json = {"role": "assistant", "content": ""} if is_ollama else {}
    yield sse(to_json({**head, "choices": [_choice(end, reason)]}))
    options: Json = request.json.get("stream_options") or {}
    if options.get("include_usage"):
        usage = answer.usage or {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        yield sse(to_json({**head, "choices": [], "usage": usage}))
    yield DONE


def _choice(delta: Json, reason: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _deltas(request: Request, answer: Answer, *, is_ollama: bool) -> Iterator[Json]:
    """What the model says, piece by piece; Ollama repeats the role in each, and sends a call in one."""
    lead: Json = {"role": "assistant", "content": ""} if is_ollama else {}
    if not is_ollama:
        yield {"role": "assistant", "content": ""}
    for piece in cut(answer.thinking, answer.delta_size):
        yield {**lead, "reasoning" if is_ollama else "reasoning_content": piece}
    for piece in cut(answer.text, answer.delta_size):
        yield {**lead, "content": piece}
    for index, call in enumerate(answer.calls):
        call_id = call.id or f"call_{request.fingerprint}_{request.turn}_{index}"
        args = call.args if isinstance(call.args, str) else to_json(call.args).decode()
        opening = {"name": call.name, "arguments": args if is_ollama else ""}
        yield {**lead, "tool_calls": [{"index": index, "id": call_id, "type": "function", "function": opening}]}
        for piece in () if is_ollama else cut(args, answer.delta_size):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
