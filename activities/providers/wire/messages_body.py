"""Requests to the Messages API as bytes: every message is mapped once, the body is joined from the pieces.

The typed call of the SDK walks the whole conversation on every call (DESIGN §9), so nothing here goes through it.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from ....core.expert import Expert, ModelChoice
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
from ....core.models import (
    reasoning_effort,
    thinking_tokens,
)
from ....core.profiles.claude import MIN_THINKING_TOKENS, ClaudeCapabilities, claude_capabilities
from ....core.tools import ToolSpec
from ..base import ModelRequest
from ..failures import ProviderError
from .messages_tools import (
    API,
    CODE_EXECUTION,
    PROFILE,
    Replay,
    container,
    provider_tools,
    used_container,
)
from .parts import (
    PDF,
    Json,
    encoded,
    file_text,
    image_type,
    is_foreign,
    json_bytes,
    left_out,
    refused,
    retold,
    says_something,
    takes,
    tool_names,
    unsealed,
    wire_name,
)
from .turns import system_of, turns_of

CACHE_MARK = b',"cache_control":{"type":"ephemeral"}}'
DROP_STALE_THINKING = "drop-stale-thinking"
"""Note in the wire cache: this conversation no longer is what its thinking blocks were signed for."""
BINDING_BETA = "thinking-binding-controls-2026-08-01"
_MAX_TOOL_NAME = 128
_PLACED = re.compile(r"(\d+)([rt]):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and what belongs to it."""

    head: Json
    """All but the system prompt, the tools and the messages."""
    pieces: Sequence[bytes]
    tool_names: Mapping[str, str]
    """The name a tool goes by on the wire → its own."""
    betas: tuple[str, ...] = ()

    def content(self, paused: Sequence[Json] = (), used: Json | None = None) -> bytes:
        """The bytes: of the first request, or of the one that goes on with a turn that the API has paused.

        `paused` is what the turn has said so far, `used` the container it has opened.
        """
        head = self.head
        if used:
            given: str | Json | None = head.get("container")
            head = {**head, "container": {**given, "id": used["id"]} if isinstance(given, dict) else used["id"]}
        said = (b',{"role":"assistant","content":', json_bytes(paused), b"}") if paused else ()
        # One join: a long conversation is copied once.
        return b"".join((json_bytes(head)[:-1], *self.pieces, *said, b"]}"))


def request_body(request: ModelRequest) -> Body:
    """The whole body of one streaming call.

    Raises:
        ProviderError: the conversation holds something this API cannot take.
    """
    choice = request.expert.model
    options = _options(choice, claude_capabilities(choice.model))
    betas: tuple[str, ...] = ()
    render = _blocks
    if DROP_STALE_THINKING in request.cache.notes:
        thinking = options.get("thinking", {"type": "adaptive"})
        if thinking["type"] in ("adaptive", "enabled"):
            options["thinking"] = {**thinking, "block_binding": {"prefix_mismatch_behavior": "drop_block"}}
            betas = (BINDING_BETA,)
        else:
            # Where thinking is off the API takes no such wish.
            render = _blocks_without_thinking
    head: Json = {"model": choice.model, "stream": True, **options}
    own = provider_tools(request.expert)
    if place := container(request.expert, _open_container(request)):
        head["container"] = place
    # A tool of the provider goes before one of ours with its name.
    tools = tuple(tool for tool in request.tools if tool.name not in {one["name"] for one in own})
    pieces: list[bytes] = []
    if system := system_of(request, render):
        pieces += (b',"system":[', _marked(system), b"]")
    if own or tools:
        rendered = request.cache.part("tools", (own, tools), _tools)
        pieces += (b',"tools":[', _marked(rendered), b"]")
    pieces.append(b',"messages":[')
    for number, turn in enumerate(turns_of(request, render)):
        pieces += turn.pieces(b"," if number else b"", _marked)
    return Body(head=head, pieces=pieces, tool_names=tool_names(PROFILE, tools, _MAX_TOOL_NAME), betas=betas)


def _open_container(request: ModelRequest) -> Json | None:
    """The container that this conversation has used last, if code may run and it is still there."""
    if not _runs_code(request.expert):
        return None
    for message in reversed(request.messages):
        if not isinstance(message, ExpertMessage):
            continue
        for part in message.contents:
            if isinstance(part, ProviderToolPart) and (used := used_container(part)):
                return used if _is_open(used) else None
    return None


def _runs_code(expert: Expert) -> bool:
    return bool(expert.provider_skills) or any(tool.name == CODE_EXECUTION for tool in expert.provider_tools)


def _is_open(used: Json) -> bool:
    try:
        return datetime.fromisoformat(used["expires_at"]).timestamp() > time.time()
    except (KeyError, TypeError, ValueError):
        # Where the API does not say, it is asked.
        return True


def _options(choice: ModelChoice, capabilities: ClaudeCapabilities) -> Json:
    """Output limit and reasoning, each in the form this model takes."""
    max_tokens = choice.max_output_tokens or capabilities.max_output_tokens
    return {"max_tokens": max_tokens, **reasoning_options(choice, capabilities, max_tokens)}


def reasoning_options(choice: ModelChoice, capabilities: ClaudeCapabilities, max_tokens: int) -> Json:
    """How a Claude model is asked for the reasoning of `choice`, on every platform that serves it."""
    effort = reasoning_effort(choice.reasoning_budget)
    if capabilities.thinking == "none":
        return {}
    if effort is None:
        return _without_reasoning(capabilities)
    if capabilities.thinking == "adaptive":
        # Without `display` newer models return thinking blocks whose text is empty.
        return {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": effort}}
    budget = max(thinking_tokens(choice.reasoning_budget), MIN_THINKING_TOKENS)
    if budget >= max_tokens:
        budget = max(max_tokens // 2, MIN_THINKING_TOKENS)
    return {"thinking": {"type": "enabled", "budget_tokens": budget}} if budget < max_tokens else {}


def _without_reasoning(capabilities: ClaudeCapabilities) -> Json:
    match capabilities.thinking_off:
        case "omit":
            return {}
        case "disabled" | "between_tools":
            return {"thinking": {"type": capabilities.thinking_off}}
        case "lowest_effort":
            return {"output_config": {"effort": "low"}}
        case _:
            assert_never(capabilities.thinking_off)


def _marked(blocks: bytes) -> bytes:
    """`blocks` with a cache breakpoint on the last one; its closing brace is the last byte."""
    return blocks[:-1] + CACHE_MARK


def _tools(tools: tuple[list[Json], tuple[ToolSpec, ...]]) -> bytes:
    own, ours = tools
    return b",".join(map(json_bytes, (*own, *map(_tool, ours))))


def _tool(spec: ToolSpec) -> Json:
    description = {"description": spec.description} if spec.description else {}
    return {
        "name": wire_name(spec.name, _MAX_TOOL_NAME),
        **description,
        "input_schema": {"type": "object", **spec.input_schema},
    }


def _blocks(message: Message) -> bytes:
    """The content blocks of one message, joined by commas; empty when nothing of it can be said."""
    match message:
        case InstructionMessage():
            blocks = [_text(part) for part in message.contents if part.text.strip()]
        case UserMessage():
            blocks = [_user_block(part) for part in message.contents if says_something(part)]
            if not blocks:
                raise ProviderError("unsupported", "Anthropic cannot take an empty user message.")
        case ExpertMessage():
            blocks = _expert_blocks(message)
        case ToolMessage():
            blocks = [_result_block(part) for part in message.contents]
        case _:
            assert_never(message)
    return b",".join(map(json_bytes, blocks))


def _blocks_without_thinking(message: Message) -> bytes:
    if isinstance(message, ExpertMessage):
        spoken = tuple(part for part in message.contents if not isinstance(part, ThinkingPart))
        message = message.model_copy(update={"contents": spoken})
    return _blocks(message)


def _text(part: TextPart) -> Json:
    return {"type": "text", "text": part.text}


def _user_block(part: UserPart) -> Json:
    if isinstance(part, TextPart):
        return _text(part)
    if not takes(PROFILE, part):
        raise refused(PROFILE, part)
    match part:
        case ImageUrlPart():
            return {"type": "image", "source": {"type": "url", "url": part.url}}
        case FileUrlPart():
            return {"type": "document", "source": {"type": "url", "url": part.url}}
        case ImageInlinePart() | ImageBinaryPart():
            return _image(part)
        case FileInlinePart() | FileBinaryPart():
            return _document(part)
        case _:
            assert_never(part)


def _expert_blocks(message: ExpertMessage) -> list[Json]:
    """What the model said; thinking and what the provider ran are put back between it where they came from."""
    replay = Replay(part for part in message.contents if isinstance(part, ProviderToolPart))
    spoken: list[Json] = []
    thoughts: list[tuple[int, Json]] = []
    told: list[Json] = []
    texts = 0
    for part in message.contents:
        match part:
            case TextPart():
                if says_something(part):
                    citations = replay.citations.get(texts)
                    spoken.append({**_text(part), "citations": citations} if citations else _text(part))
                    texts += 1
            case ToolCallPart():
                name = wire_name(part.tool_name, _MAX_TOOL_NAME)
                spoken.append({"type": "tool_use", "id": part.tool_call_id, "name": name, "input": part.args})
            case ThinkingPart():
                # Without a signature of its own it is another provider's, which this API refuses.
                if part.signature and not is_foreign(API, part.signature):
                    thoughts.append(_thinking_block(part.thinking, part.signature))
            case ProviderToolPart():
                if unsealed(API, part.replay) is None:
                    told.append({"type": "text", "text": retold(part)})
            case _:
                assert_never(part)
    for placed_block in replay.blocks:
        spoken.insert(placed_block.at, placed_block.block)
    for offset, (position, block) in enumerate(thoughts):
        spoken.insert(position + offset, block)
    # What is put back must stand where it was.
    spoken = [*spoken, *told] if thoughts or replay.blocks else [*told, *spoken]
    # Thinking alone says nothing the next turn could answer.
    return spoken if len(spoken) > len(thoughts) else []


def placed(signature: str, *, position: int = 0, is_redacted: bool = False) -> str:
    """A signature that remembers what a thinking part has no field for.

    The API checks on replay that each thinking block stands where it was (`preserved thinking`), while our parts
    are ordered thinking → text → calls: `position` counts the other blocks before it.
    """
    return f"{position}{'r' if is_redacted else 't'}:{signature}" if position or is_redacted else signature


def _thinking_block(thinking: str, signature: str) -> tuple[int, Json]:
    match = _PLACED.fullmatch(signature)
    position, is_redacted, signature = (int(match[1]), match[2] == "r", match[3]) if match else (0, False, signature)
    if is_redacted:
        return position, {"type": "redacted_thinking", "data": signature}
    return position, {"type": "thinking", "thinking": thinking, "signature": signature}


def _result_block(part: ToolResultPart) -> Json:
    block: Json = {"type": "tool_result", "tool_use_id": part.tool_call_id}
    contents = [_result_content(content) for content in part.contents if says_something(content)]
    is_text = all(content["type"] == "text" for content in contents)
    if part.is_error and not is_text:
        # The API allows nothing but text beside `is_error`.
        contents.insert(0, {"type": "text", "text": "The tool failed."})
    if contents:
        block["content"] = contents[0]["text"] if is_text and len(contents) == 1 else contents
    if part.is_error and is_text:
        block["is_error"] = True
    return block


def _result_content(part: ResultPart) -> Json:
    if isinstance(part, TextPart):
        return _text(part)
    if not takes(PROFILE, part, is_result=True):
        return {"type": "text", "text": left_out(PROFILE, part)}
    return _image(part) if isinstance(part, ImageInlinePart) else _document(part)


def _image(part: ImageInlinePart | ImageBinaryPart) -> Json:
    source = {"type": "base64", "media_type": image_type(part), "data": encoded(PROFILE, part)}
    return {"type": "image", "source": source}


def _document(part: FileInlinePart | FileBinaryPart) -> Json:
    if part.mime_type == PDF:
        source = {"type": "base64", "media_type": part.mime_type, "data": encoded(PROFILE, part)}
    else:
        source = {"type": "text", "media_type": "text/plain", "data": file_text(PROFILE, part)}
    return {"type": "document", "source": source}
