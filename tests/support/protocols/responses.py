"""The Responses API of OpenAI and Azure: events, order and fields as `openai.types.responses` has them."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from pydantic_core import to_json

from .base import Answer, Json, Request, cut, sse

_NO_CONTENT: Json = {"content": []}
_FROM_THE_MODEL = ("reasoning", "function_call")


class Responses:
    """See `WireProtocol`. A step is what the model said before somebody else spoke."""

    name = "responses"
    content_type = "text/event-stream; charset=utf-8"

    def serves(self, path: str) -> bool:
        return path.endswith("/responses")

    def plain(self, request: Request) -> Json | None:
        return None

    def messages(self, request: Request) -> list[Json]:
        return request.json.get("input", [])

    def model(self, request: Request) -> str:
        return request.json.get("model", "")

    def system(self, request: Request) -> str:
        return request.json.get("instructions", "")

    def first_user_text(self, request: Request) -> str:
        return next((_text_of(item["content"]) for item in request.messages if item.get("role") == "user"), "")

    def turn(self, request: Request) -> int:
        said = [_is_the_models(item) for item in request.messages]
        return 1 + sum(is_its and not before for is_its, before in zip(said, [False, *said], strict=False))

    def results(self, request: Request) -> list[Json]:
        found: list[Json] = []
        for item in reversed(request.messages):
            if _is_the_models(item):
                break
            if item.get("type") == "function_call_output":
                content = item["output"] if isinstance(item["output"], str) else list(map(_block, item["output"]))
                found.insert(0, {"type": "tool_result", "tool_use_id": item["call_id"], "content": content})
        return found

    def events(self, request: Request, answer: Answer) -> Iterator[bytes]:
        numbers = count()
        for event in _events(request, answer):
            name: str = event["type"]
            yield sse(to_json({**event, "sequence_number": next(numbers)}), name)

    def stream_error(self, answer: Answer) -> bytes:
        event: Json = {"type": "error", "code": answer.error_code or answer.error_type or None, "param": None}
        return sse(to_json({**event, "message": answer.message, "sequence_number": 99}), "error")

    def error_body(self, answer: Answer) -> bytes:
        error = {
            "message": answer.message,
            "type": answer.error_type or "invalid_request_error",
            "param": None,
            "code": answer.error_code or None,
        }
        return to_json({"error": error})


def _is_the_models(item: Json) -> bool:
    kind: str = item.get("type", "message")
    return item.get("role") == "assistant" or kind in _FROM_THE_MODEL or kind.endswith("_call")


def _text_of(content: str | list[Json]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "input_text")


def _block(content: Json) -> Json:
    return {"type": "text", "text": content["text"]} if content["type"] == "input_text" else content


def _events(request: Request, answer: Answer) -> Iterator[Json]:
    """The events of one answer, without their numbers."""
    response: Json = {
        "id": f"resp_{request.fingerprint}_{request.turn}",
        "object": "response",
        "created_at": 1795000000,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "model": answer.model or request.model,
        "output": [],
        "parallel_tool_calls": True,
        "store": False,
        "tool_choice": "auto",
        "tools": request.json.get("tools", []),
        "usage": None,
    }
    yield {"type": "response.created", "response": response}
    yield {"type": "response.in_progress", "response": response}
    items = answer.blocks or tuple(_items(request, answer))
    for index, item in enumerate(items):
        yield from _item_events(index, item, answer.delta_size)
    yield _end({**response, "output": items, "usage": _usage(answer)}, answer)


def _end(response: Json, answer: Answer) -> Json:
    """The last event; `stop_reason` is the reason of an incomplete answer, or `failed`."""
    if answer.stop_reason == "failed":
        error = {"code": answer.error_code or "server_error", "message": answer.message}
        return {"type": "response.failed", "response": {**response, "status": "failed", "output": [], "error": error}}
    if answer.stop_reason:
        details = {"reason": answer.stop_reason}
        ended = {**response, "status": "incomplete", "incomplete_details": details}
        return {"type": "response.incomplete", "response": ended}
    return {"type": "response.completed", "response": {**response, "status": "completed"}}


def _usage(answer: Answer) -> Json:
    usage: Json = answer.usage if answer.usage is not None else {"input_tokens": 10, "output_tokens": 5}
    return {
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.get("input_tokens", 0) + usage.get("output_tokens", 0),
        **usage,
    }


def _items(request: Request, answer: Answer) -> Iterator[Json]:
    name = f"{request.fingerprint}_{request.turn}"
    if answer.thinking or answer.redacted:
        summary = [{"type": "summary_text", "text": answer.thinking}] if answer.thinking else []
        sealed = answer.redacted or answer.signature
        yield {"type": "reasoning", "id": f"rs_{name}", "summary": summary, "encrypted_content": sealed}
    if answer.text:
        content: list[Json] = [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}]
        message = {"type": "message", "id": f"msg_{name}", "role": "assistant", "status": "completed"}
        yield {**message, "content": content}
    for index, call in enumerate(answer.calls):
        arguments = call.args if isinstance(call.args, str) else to_json(call.args).decode()
        yield {
            "type": "function_call",
            "id": f"fc_{name}_{index}",
            "call_id": call.id or f"call_{name}_{index}",
            "name": call.name,
            "arguments": arguments,
            "status": "completed",
        }


def _item_events(index: int, item: Json, size: int) -> Iterator[Json]:
    place: Json = {"output_index": index, "item_id": item.get("id", "")}
    unfinished: Json = {**item, "status": "in_progress"}
    kind: str = item["type"]
    match kind:
        case "reasoning":
            empty: Json = {"summary": [], "encrypted_content": item.get("encrypted_content", "")[:3]}
            start: Json = {**item, **empty, **({"content": None} if "content" in item else {})}
            deltas = _reasoning_events(place, item, size)
        case "message":
            start, deltas = {**unfinished, **_NO_CONTENT}, _message_events(place, item, size)
        case "function_call":
            start, deltas = {**unfinished, "arguments": ""}, _argument_events(place, item, size)
        case _:
            start, deltas = unfinished, _tool_events(place, kind)
    yield {"type": "response.output_item.added", "output_index": index, "item": start}
    yield from deltas
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _reasoning_events(place: Json, item: Json, size: int) -> Iterator[Json]:
    for number, summary in enumerate(item["summary"]):
        here = {**place, "summary_index": number}
        empty = {"type": "summary_text", "text": ""}
        yield {"type": "response.reasoning_summary_part.added", **here, "part": empty}
        for piece in cut(summary["text"], size):
            yield {"type": "response.reasoning_summary_text.delta", **here, "delta": piece}
        yield {"type": "response.reasoning_summary_text.done", **here, "text": summary["text"]}
        yield {"type": "response.reasoning_summary_part.done", **here, "part": summary}
    for number, content in enumerate(item.get("content", ())):
        here = {**place, "content_index": number}
        for piece in cut(content["text"], size):
            yield {"type": "response.reasoning_text.delta", **here, "delta": piece}
        yield {"type": "response.reasoning_text.done", **here, "text": content["text"]}


def _message_events(place: Json, item: Json, size: int) -> Iterator[Json]:
    for number, part in enumerate(item["content"]):
        here = {**place, "content_index": number}
        is_refusal = part["type"] == "refusal"
        field, name = ("refusal", "refusal") if is_refusal else ("text", "output_text")
        empty: Json = {"type": part["type"], field: "", **({} if is_refusal else {"annotations": []})}
        yield {"type": "response.content_part.added", **here, "part": empty}
        extra: dict[str, Any] = {} if is_refusal else {"logprobs": []}
        for piece in cut(part[field], size):
            yield {"type": f"response.{name}.delta", **here, "delta": piece, **extra}
        for at, annotation in enumerate(part.get("annotations", ())):
            added = {"annotation_index": at, "annotation": annotation}
            yield {"type": "response.output_text.annotation.added", **here, **added}
        yield {"type": f"response.{name}.done", **here, field: part[field], **extra}
        yield {"type": "response.content_part.done", **here, "part": part}


def _argument_events(place: Json, item: Json, size: int) -> Iterator[Json]:
    for piece in cut(item["arguments"], size):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
    done = {"arguments": item["arguments"], "name": item["name"]}
    yield {"type": "response.function_call_arguments.done", **place, **done}


_STAGES = {
    "web_search_call": ("in_progress", "searching", "completed"),
    "file_search_call": ("in_progress", "searching", "completed"),
    "code_interpreter_call": ("in_progress", "interpreting", "completed"),
    "image_generation_call": ("in_progress", "generating", "completed"),
}


def _tool_events(place: Json, kind: str) -> Iterator[Json]:
    for stage in _STAGES.get(kind, ()):
        yield {"type": f"response.{kind}.{stage}", **place}
