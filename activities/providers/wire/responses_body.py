"""Requests to the Responses API as bytes: every message is mapped once, the body is joined from the pieces.

Nothing is stored by the provider: each request carries the whole conversation, the provider's own items included.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, assert_never

from ....core.expert import ModelChoice, ProviderTool
from ....core.messages import (
    ExpertMessage,
    FileBinaryPart,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    InstructionMessage,
    Message,
    ProviderToolPart,
    ResultPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
    UserPart,
)
from ....core.models import reasoning_effort
from ....core.profiles.gpt import GptEffort, gpt_efforts
from ....core.profiles.provider import ProviderProfile
from ....core.tools import ToolSpec
from ..base import ModelRequest
from ..failures import ProviderError
from .parts import (
    PDF,
    Json,
    encoded,
    file_text,
    image_type,
    json_bytes,
    left_out,
    refused,
    retold,
    says_something,
    spoken,
    takes,
    tool_names,
    unsealed,
    wire_name,
)
from .responses_items import API, SUMMARY_BREAK, filled

DROP_ITEMS = "drop-items"
"""Note in the wire cache: the API no longer takes its own items back; they are left out, its tools told as text."""
NO_SUMMARY = "no-reasoning-summary"
"""Note in the wire cache: this account or model gives no summaries of its reasoning."""
_MAX_TOOL_NAME = 64
_NOT_AT_TOP_LEVEL = frozenset({"oneOf", "anyOf", "allOf", "enum", "not"})
_INCLUDES: Mapping[str, str] = {
    "web_search": "web_search_call.action.sources",
    "file_search": "file_search_call.results",
    "code_interpreter": "code_interpreter_call.outputs",
}


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and what belongs to it."""

    content: bytes
    tool_names: Mapping[str, str]
    """The name a tool goes by on the wire → its own."""


def request_body(profile: ProviderProfile, request: ModelRequest) -> Body:
    """The whole body of one streaming call.

    Raises:
        ProviderError: the conversation holds something this API cannot take.
    """
    is_bare = DROP_ITEMS in request.cache.notes

    def render(message: Message) -> bytes:
        return b",".join(map(json_bytes, _items(profile, message, is_bare=is_bare)))

    messages = enumerate(request.messages)
    said = ((message, request.cache.message(index, message, render)) for index, message in messages)
    instructions: list[str] = []
    items: list[bytes] = []
    for message, piece in said:
        if isinstance(message, InstructionMessage):
            instructions += (part.text for part in message.contents if part.text.strip())
        elif piece:
            items.append(piece)
    head: Json = {"model": request.expert.model.model, "stream": True, "store": False, **_options(profile, request)}
    head["prompt_cache_key"] = _cache_key(request, items)
    if instructions:
        head["instructions"] = "\n\n".join(instructions)
    pieces = [json_bytes(head)[:-1]]
    own_tools = request.expert.provider_tools
    if request.tools or own_tools:
        tools = request.cache.part("tools", (request.tools, own_tools), lambda source: _tools(profile, *source))
        pieces += (b',"tools":[', tools, b"]")
    pieces.append(b',"input":[')
    for number, piece in enumerate(items):
        pieces += (b",", piece) if number else (piece,)
    pieces.append(b"]}")
    # One join: a long conversation is copied once.
    return Body(content=b"".join(pieces), tool_names=tool_names(profile, request.tools, _MAX_TOOL_NAME))


def _options(profile: ProviderProfile, request: ModelRequest) -> Json:
    """What goes with the conversation, each in the form this model takes."""
    choice = request.expert.model
    wire_names = [profile.provider_tools[tool.name].wire_name for tool in request.expert.provider_tools]
    include = [_INCLUDES[name] for name in wire_names if name in _INCLUDES]
    options: Json = {}
    if effort := _effort(choice, has_provider_tools=bool(wire_names)):
        options["reasoning"] = {"effort": effort}
        if effort != "none" and NO_SUMMARY not in request.cache.notes:
            options["reasoning"]["summary"] = "auto"
        if DROP_ITEMS not in request.cache.notes:
            # Models that do not reason refuse this.
            include.insert(0, "reasoning.encrypted_content")
    if include:
        options["include"] = include
    if choice.max_output_tokens is not None:
        options["max_output_tokens"] = choice.max_output_tokens
    return options


def _effort(choice: ModelChoice, *, has_provider_tools: bool) -> GptEffort | None:
    """The effort nearest to the budget that the model takes; `None` where it takes none at all."""
    efforts = gpt_efforts(choice.model)
    if has_provider_tools:
        # The API refuses its own tools beside it.
        efforts = tuple[GptEffort, ...](effort for effort in efforts if effort != "minimal")
    if not efforts:
        return None
    wanted: GptEffort = reasoning_effort(choice.reasoning_budget) or "none"
    if choice.reasoning_budget == "minimal":
        wanted = "minimal"
    order: tuple[GptEffort, ...] = ("none", "minimal", "low", "medium", "high")
    at_least: list[GptEffort] = [effort for effort in efforts if order.index(effort) >= order.index(wanted)]
    return at_least[0] if at_least else efforts[-1]


def _cache_key(request: ModelRequest, items: Sequence[bytes]) -> str:
    """Sends the calls of one run to where the beginning of its conversation is cached."""
    run = (request.expert.key, *request.path)
    start = items[0][:4096] if items else b""
    return hashlib.sha256(b"\x1f".join((*(part.encode() for part in run), start))).hexdigest()[:32]


def _tools(profile: ProviderProfile, tools: tuple[ToolSpec, ...], own_tools: tuple[ProviderTool, ...]) -> bytes:
    functions = (_function(spec) for spec in tools)
    return b",".join(map(json_bytes, chain(functions, (_own_tool(profile, tool) for tool in own_tools))))


def _function(spec: ToolSpec) -> Json:
    # The API refuses alternatives at the top of a schema; the tool itself still checks its arguments.
    schema = {key: value for key, value in spec.input_schema.items() if key not in _NOT_AT_TOP_LEVEL}
    return {
        "type": "function",
        "name": wire_name(spec.name, _MAX_TOOL_NAME),
        **({"description": spec.description} if spec.description else {}),
        "parameters": {"type": "object", "properties": {}, **schema},
        "strict": False,
    }


def _own_tool(profile: ProviderProfile, tool: ProviderTool) -> Json:
    name = profile.provider_tools[tool.name].wire_name
    match name:
        case "web_search":
            domains = tool.options.get("allowedDomains")
            return {"type": name, **({"filters": {"allowed_domains": domains}} if domains else {})}
        case "file_search":
            limit = tool.options.get("maxNumResults")
            stores: Json = {"type": name, "vector_store_ids": tool.options.get("vectorStoreIds", [])}
            return {**stores, **({"max_num_results": limit} if limit else {})}
        case "code_interpreter":
            return {"type": name, "container": {"type": "auto"}}
        case _:
            return {"type": name}


def _items(profile: ProviderProfile, message: Message, *, is_bare: bool) -> list[Json]:
    """The input items of one message; empty when nothing of it can be said."""
    match message:
        case InstructionMessage():
            return []
        case UserMessage():
            contents = [_user_content(profile, part) for part in message.contents if says_something(part)]
            if not contents:
                raise ProviderError("unsupported", f"{profile.title} cannot take an empty user message.")
            return [{"role": "user", "content": contents}]
        case ExpertMessage():
            return _expert_items(message, is_bare=is_bare)
        case ToolMessage():
            return [_result_item(profile, part) for part in message.contents]
        case _:
            assert_never(message)


def _text(text: str) -> Json:
    return {"type": "input_text", "text": text}


def _user_content(profile: ProviderProfile, part: UserPart) -> Json:
    if isinstance(part, TextPart):
        return _text(part.text)
    if not takes(profile, part):
        raise refused(profile, part)
    match part:
        case ImageUrlPart():
            return {"type": "input_image", "image_url": part.url, "detail": "auto"}
        case FileUrlPart():
            return {"type": "input_file", "file_url": part.url}
        case ImageInlinePart() | ImageBinaryPart():
            return _image(profile, part)
        case FileInlinePart() | FileBinaryPart():
            return _file(profile, part)
        case _:
            assert_never(part)


def _image(profile: ProviderProfile, part: ImageInlinePart | ImageBinaryPart) -> Json:
    url = f"data:{image_type(part)};base64,{encoded(profile, part)}"
    return {"type": "input_image", "image_url": url, "detail": "auto"}


def _file(profile: ProviderProfile, part: FileInlinePart | FileBinaryPart) -> Json:
    if part.mime_type != PDF:
        return _text(file_text(profile, part))
    # A file that is sent along must have a name; ours have none.
    return {"type": "input_file", "filename": "file.pdf", "file_data": f"data:{PDF};base64,{encoded(profile, part)}"}


def _result_item(profile: ProviderProfile, part: ToolResultPart) -> Json:
    contents = [_result_content(profile, content) for content in part.contents if says_something(content)]
    if part.is_error:
        # There is no field that says so.
        contents.insert(0, _text("The tool failed."))
    is_text = all(content["type"] == "input_text" for content in contents)
    output = "\n".join(content["text"] for content in contents) if is_text else contents
    return {"type": "function_call_output", "call_id": part.tool_call_id, "output": output}


def _result_content(profile: ProviderProfile, part: ResultPart) -> Json:
    if isinstance(part, TextPart):
        return _text(part.text)
    if not takes(profile, part, is_result=True):
        return _text(left_out(profile, part))
    try:
        return _image(profile, part) if isinstance(part, ImageInlinePart) else _file(profile, part)
    except ProviderError:
        return _text(left_out(profile, part))


def _expert_items(message: ExpertMessage, *, is_bare: bool) -> list[Json]:
    """What the model said, each item in its place."""
    # Reasoning alone says nothing the next turn could answer.
    if not spoken(message.contents):
        return []
    said = _Said(message, is_bare=is_bare)
    items = list(chain.from_iterable(map(said.take, _order(message))))
    items += said.rest()
    while items and items[-1]["type"] == "reasoning":
        # What it led to is gone.
        items.pop()
    return items


def _order(message: ExpertMessage) -> list[Any]:
    """The order an answer remembers; that of our parts where it remembers none."""
    for part in message.contents:
        seal = _seal(part)
        if seal and "order" in seal:
            return seal["order"]
    thoughts = ["reasoning" for part in message.contents if isinstance(part, ThinkingPart)]
    return [*thoughts, *("tool" for part in message.contents if isinstance(part, ProviderToolPart))]


def _seal(part: object) -> Json | None:
    match part:
        case ThinkingPart(signature=seal) | ProviderToolPart(replay=seal):
            return unsealed(API, seal)
        case _:
            return None


class _Said:
    """The parts of an answer, taken one after another."""

    def __init__(self, message: ExpertMessage, *, is_bare: bool) -> None:
        parts = message.contents
        self._is_bare = is_bare
        self._thoughts = [part for part in parts if isinstance(part, ThinkingPart)]
        self._tools = [part for part in parts if isinstance(part, ProviderToolPart)]
        self._texts = [part for part in parts if isinstance(part, TextPart)]
        self._calls = {part.tool_call_id: part for part in parts if isinstance(part, ToolCallPart)}

    def take(self, entry: Any) -> Iterator[Json]:
        """The items of one entry of an order; nothing where its part is gone."""
        match entry:
            case "reasoning" if self._thoughts:
                yield from self._reasoning(self._thoughts.pop(0))
            case "tool" if self._tools:
                yield self._tool(self._tools.pop(0))
            case ["text", int(count), phase]:
                taken, self._texts = self._texts[:count], self._texts[count:]
                yield from _message(taken, phase)
            case ["call", str(call_id)] if call_id in self._calls:
                yield _call(self._calls.pop(call_id))
            case _:
                pass

    def rest(self) -> Iterator[Json]:
        """Whatever no order has named, in the order of our parts."""
        for tool in self._tools:
            yield self._tool(tool)
        yield from _message(self._texts, None)
        yield from map(_call, self._calls.values())

    def _reasoning(self, part: ThinkingPart) -> Iterator[Json]:
        seal = unsealed(API, part.signature)
        # Without what only the provider can read it is another provider's, or nothing this one takes back.
        if seal and "encrypted_content" in seal and not self._is_bare:
            yield {
                "type": "reasoning",
                "id": seal["id"],
                "summary": [{"type": "summary_text", "text": text} for text in _summaries(part, seal)],
                "encrypted_content": seal["encrypted_content"],
            }

    def _tool(self, part: ProviderToolPart) -> Json:
        seal = unsealed(API, part.replay)
        if not seal or self._is_bare:
            return {"role": "assistant", "type": "message", "content": retold(part)}
        return filled(seal["item"], part.contents)


def _summaries(part: ThinkingPart, seal: Json) -> Iterator[str]:
    """The summaries that `thinking` was joined from; the seal has their lengths."""
    start = 0
    for length in seal["summary"]:
        yield part.thinking[start : start + length]
        start += length + len(SUMMARY_BREAK)


def _message(texts: Sequence[TextPart], phase: str | None) -> Iterator[Json]:
    if text := "".join(part.text for part in texts if says_something(part)):
        yield {"role": "assistant", "type": "message", "content": text, **({"phase": phase} if phase else {})}


def _call(part: ToolCallPart) -> Json:
    return {
        "type": "function_call",
        "call_id": part.tool_call_id,
        "name": wire_name(part.tool_name, _MAX_TOOL_NAME),
        "arguments": json_bytes(part.args).decode(),
    }
