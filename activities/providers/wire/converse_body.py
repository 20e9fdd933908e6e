"""Requests to Bedrock's Converse API as bytes: every message is mapped once, the body is joined from the pieces."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import assert_never

from ....core.expert import ModelChoice
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
from ....core.profiles.bedrock import ConverseCapabilities, can_stop_reasoning, converse_capabilities
from ....core.profiles.claude import claude_capabilities
from ....core.profiles.providers import PROVIDERS
from ....core.tools import ToolSpec
from ..base import ModelRequest
from ..failures import ProviderError
from .messages_body import reasoning_options
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
    sealed,
    takes,
    tool_names,
    unsealed,
    wire_name,
)
from .turns import system_of, turns_of

API = "converse"
PROFILE = PROVIDERS["amazon-bedrock"]
DROP_STALE_THINKING = "drop-stale-thinking"
"""Note in the wire cache: this conversation no longer is what its thinking blocks were signed for."""
CACHE_POINT = b'{"cachePoint":{"type":"default"}}'
_MAX_TOOL_NAME = 64
_MAX_CALL_ID = 64
_NOT_IN_CALL_ID = re.compile(r"[^a-zA-Z0-9_.:-]")
_DOCUMENT_FORMATS: Mapping[str, str] = MappingProxyType(
    {PDF: "pdf", "text/csv": "csv", "text/html": "html", "text/markdown": "md"}
)
_NO_OUTPUT: Json = {"text": "(no output)"}
_ATTACHED: Json = {"text": "See the attached document."}


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and what belongs to it."""

    content: bytes
    tool_names: Mapping[str, str]
    """The name a tool goes by on the wire → its own."""


def request_body(request: ModelRequest) -> Body:
    """The whole body of one streaming call; the model is part of the address.

    Raises:
        ProviderError: the conversation holds something this API cannot take.
    """
    model = request.expert.model.model
    capabilities = converse_capabilities(model)
    places = capabilities.cache_places
    family = "" if DROP_STALE_THINKING in request.cache.notes else capabilities.family
    render = partial(_blocks, capabilities=capabilities, family=family)
    pieces: list[bytes] = [b"{"]
    if system := system_of(request, render):
        pieces += (b'"system":[', _marked(system) if "system" in places else system, b"],")
    pieces.append(b'"messages":[')
    mark = _marked if "messages" in places else _unmarked
    for number, turn in enumerate(turns_of(request, render)):
        pieces += turn.pieces(b"," if number else b"", mark)
    pieces.append(b"]")
    tools = request.tools or _called_tools(request)
    if tools:
        rendered = request.cache.part("tools", tools, _tools)
        pieces += (b',"toolConfig":{"tools":[', _marked(rendered) if "tools" in places else rendered, b"]}")
    if options := _options(request.expert.model, capabilities):
        pieces += (b",", json_bytes(options)[1:-1])
    pieces.append(b"}")
    # One join: a long conversation is copied once.
    return Body(content=b"".join(pieces), tool_names=tool_names(PROFILE, tools, _MAX_TOOL_NAME))


def _marked(blocks: bytes) -> bytes:
    """`blocks` with a cache point behind them."""
    return blocks + b"," + CACHE_POINT


def _unmarked(blocks: bytes) -> bytes:
    return blocks


def _options(choice: ModelChoice, capabilities: ConverseCapabilities) -> Json:
    """Output limit and reasoning, each in the form this model takes.

    Without `maxTokens` a model may write as much as it can; only Claude's thinking has to be measured against it.
    """
    max_tokens = choice.max_output_tokens
    if capabilities.reasoning == "claude":
        claude = claude_capabilities(choice.model)
        max_tokens = max_tokens or claude.max_output_tokens
        fields = reasoning_options(choice, claude, max_tokens)
    else:
        fields = _reasoning(choice, capabilities)
        # Nova 2 refuses any limit beside its highest effort.
        if fields.get("reasoningConfig", {}).get("maxReasoningEffort") == "high":
            max_tokens = None
    options: Json = {}
    if max_tokens:
        options["inferenceConfig"] = {"maxTokens": max_tokens}
    if fields:
        options["additionalModelRequestFields"] = fields
    return options


def _reasoning(choice: ModelChoice, capabilities: ConverseCapabilities) -> Json:
    effort = reasoning_effort(choice.reasoning_budget)
    match capabilities.reasoning:
        case "nova":
            return {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": effort}} if effort else {}
        case "effort":
            return {"reasoning": {"effort": effort or ("none" if can_stop_reasoning(choice.model) else "low")}}
        case "flat-effort":
            # These models always reason.
            return {"reasoning_effort": effort or "low"}
        case "claude" | "none":
            return {}
        case _:
            assert_never(capabilities.reasoning)


def _called_tools(request: ModelRequest) -> tuple[ToolSpec, ...]:
    """Stand-ins for tools that are no longer offered: the API refuses calls and results where it knows no tool."""
    names = {
        call.tool_name for message in request.messages if isinstance(message, ExpertMessage) for call in message.calls
    }
    return tuple(ToolSpec(name=name, skill_name="", input_schema={}) for name in sorted(names))


def _tools(tools: tuple[ToolSpec, ...]) -> bytes:
    return b",".join(json_bytes(_tool(spec)) for spec in tools)


def _tool(spec: ToolSpec) -> Json:
    description = {"description": spec.description} if spec.description else {}
    schema = {"json": {"type": "object", **spec.input_schema}}
    return {"toolSpec": {"name": wire_name(spec.name, _MAX_TOOL_NAME), **description, "inputSchema": schema}}


def _blocks(message: Message, *, capabilities: ConverseCapabilities, family: str) -> bytes:
    """The content blocks of one message, joined by commas; empty when nothing of it can be said."""
    match message:
        case InstructionMessage():
            blocks = [_text(part) for part in message.contents if says_something(part)]
        case UserMessage():
            blocks = _user_blocks(message)
        case ExpertMessage():
            blocks = _expert_blocks(message, family)
        case ToolMessage():
            blocks = [_result_block(part, capabilities) for part in message.contents]
        case _:
            assert_never(message)
    return b",".join(map(json_bytes, blocks))


def _text(part: TextPart) -> Json:
    return {"text": part.text}


def _user_blocks(message: UserMessage) -> list[Json]:
    blocks = [
        _user_block(part, f"{message.id}/{part.id}/{number}")
        for number, part in enumerate(message.contents)
        if says_something(part)
    ]
    if not blocks:
        raise ProviderError("unsupported", f"{PROFILE.title} cannot take an empty user message.")
    # The API refuses a document without a text beside it.
    if any("document" in block for block in blocks) and not any("text" in block for block in blocks):
        blocks.append(_ATTACHED)
    return blocks


def _user_block(part: UserPart, place: str) -> Json:
    if isinstance(part, TextPart):
        return _text(part)
    if not takes(PROFILE, part):
        raise refused(PROFILE, part)
    match part:
        case ImageInlinePart() | ImageBinaryPart():
            return _image(part)
        case FileInlinePart() | FileBinaryPart():
            return _document(part, place)
        case ImageUrlPart() | FileUrlPart():
            raise refused(PROFILE, part)
        case _:
            assert_never(part)


def _expert_blocks(message: ExpertMessage, family: str) -> list[Json]:
    """What the model said, reasoning put back between the other blocks where it came from."""
    spoken: list[Json] = []
    thoughts: list[tuple[int, Json]] = []
    for part in message.contents:
        match part:
            case TextPart():
                if says_something(part):
                    spoken.append(_text(part))
            case ToolCallPart():
                name = wire_name(part.tool_name, _MAX_TOOL_NAME)
                call = {"toolUseId": _call_id(part.tool_call_id), "name": name, "input": part.args}
                spoken.append({"toolUse": call})
            case ThinkingPart():
                if (seal := unsealed(API, part.signature)) and family and seal["family"] == family:
                    thoughts.append((seal["at"], _reasoning_block(part.thinking, seal)))
            case ProviderToolPart():
                # Only another provider can have run it.
                spoken.append({"text": retold(part)})
            case _:
                assert_never(part)
    for offset, (position, block) in enumerate(thoughts):
        spoken.insert(position + offset, block)
    # Reasoning alone says nothing the next turn could answer.
    return spoken if len(spoken) > len(thoughts) else []


def placed(*, family: str, position: int, signature: str = "", redacted: str = "") -> str:
    """What a reasoning block needs to be replayed: who wrote it, the other blocks before it, signature or content."""
    kept = {"redacted": redacted} if redacted else {"signature": signature}
    return sealed(API, {"family": family, "at": position, **kept})


def _reasoning_block(thinking: str, seal: Json) -> Json:
    if "redacted" in seal:
        return {"reasoningContent": {"redactedContent": seal["redacted"]}}
    return {"reasoningContent": {"reasoningText": {"text": thinking, "signature": seal["signature"]}}}


def _call_id(call_id: str) -> str:
    """`call_id` in the letters and the length the API allows; one of another API may have others."""
    if len(call_id) <= _MAX_CALL_ID and call_id and not _NOT_IN_CALL_ID.search(call_id):
        return call_id
    return f"call_{_digest(call_id)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:24]


def _result_block(part: ToolResultPart, capabilities: ConverseCapabilities) -> Json:
    contents = [
        _result_content(content, f"{part.tool_call_id}/{number}", capabilities)
        for number, content in enumerate(part.contents)
        if says_something(content)
    ]
    result: Json = {"toolUseId": _call_id(part.tool_call_id), "content": contents or [_NO_OUTPUT]}
    if part.is_error and capabilities.takes_error_status:
        result["status"] = "error"
    elif part.is_error:
        result["content"] = [{"text": "The tool failed."}, *contents]
    return {"toolResult": result}


def _result_content(part: ResultPart, place: str, capabilities: ConverseCapabilities) -> Json:
    if isinstance(part, TextPart):
        return _text(part)
    if not (capabilities.takes_media_in_results and takes(PROFILE, part, is_result=True)):
        return {"text": left_out(PROFILE, part)}
    return _image(part) if isinstance(part, ImageInlinePart) else _document(part, place)


def _image(part: ImageInlinePart | ImageBinaryPart) -> Json:
    kind = image_type(part).removeprefix("image/")
    return {"image": {"format": kind, "source": {"bytes": encoded(PROFILE, part)}}}


def _document(part: FileInlinePart | FileBinaryPart, place: str) -> Json:
    """A document; its name must be its own within the request, and tells the model nothing."""
    if part.mime_type != PDF:
        file_text(PROFILE, part)
    return {
        "document": {
            "format": _DOCUMENT_FORMATS.get(part.mime_type, "txt"),
            "name": f"document-{_digest(place)}",
            "source": {"bytes": encoded(PROFILE, part)},
        }
    }
