"""Requests to the Messages API as bytes: every message is mapped once, the body is joined from the pieces.

The typed call of the SDK walks the whole conversation on every call (DESIGN §9), so nothing here goes through it.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
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
from ....core.models import (
    reasoning_effort,
    thinking_tokens,
)
from ....core.profiles.claude import MIN_THINKING_TOKENS, ClaudeCapabilities, claude_capabilities
from ....core.profiles.providers import PROVIDERS
from ....core.tools import ToolSpec
from ..base import ModelRequest
from ..failures import ProviderError
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
    says_something,
    takes,
    tool_names,
    wire_name,
)

API = "messages"
PROFILE = PROVIDERS["anthropic"]
CACHE_MARK = b',"cache_control":{"type":"ephemeral"}}'
DROP_STALE_THINKING = "drop-stale-thinking"
"""Note in the wire cache: this conversation no longer is what its thinking blocks were signed for."""
BINDING_BETA = "thinking-binding-controls-2026-08-01"
_MAX_TOOL_NAME = 128
_PLACED = re.compile(r"(\d+)([rt]):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and what belongs to it."""

    content: bytes
    tool_names: Mapping[str, str]
    """The name a tool goes by on the wire → its own."""
    betas: tuple[str, ...] = ()


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
    pieces = [json_bytes({"model": choice.model, "stream": True, **options})[:-1]]
    if system := _system(request):
        pieces += (b',"system":[', _marked(system), b"]")
    if request.tools:
        pieces += (b',"tools":[', _marked(request.cache.part("tools", request.tools, _tools)), b"]")
    pieces.append(b',"messages":[')
    for number, turn in enumerate(_turns(request, render)):
        pieces += turn.pieces(b"," if number else b"")
    pieces.append(b"]}")
    # One join: a long conversation is copied once.
    return Body(content=b"".join(pieces), tool_names=tool_names(PROFILE, request.tools, _MAX_TOOL_NAME), betas=betas)


def _options(choice: ModelChoice, capabilities: ClaudeCapabilities) -> Json:
    """Output limit and reasoning, each in the form this model takes."""
    max_tokens = choice.max_output_tokens or capabilities.max_output_tokens
    return {"max_tokens": max_tokens, **_reasoning(choice, capabilities, max_tokens)}


def _reasoning(choice: ModelChoice, capabilities: ClaudeCapabilities, max_tokens: int) -> Json:
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


def _system(request: ModelRequest) -> bytes:
    pieces = (
        request.cache.message(index, message, _blocks)
        for index, message in enumerate(request.messages)
        if isinstance(message, InstructionMessage)
    )
    return b",".join(piece for piece in pieces if piece)


class _Turn:
    """Adjacent messages of one side."""

    __slots__ = ("blocks", "is_marked", "results", "role")

    def __init__(self, role: bytes) -> None:
        self.role = role
        self.blocks: list[bytes] = []
        self.results = 0
        self.is_marked = False

    def add(self, piece: bytes, *, is_result: bool) -> None:
        """Append the blocks of one message; results must be the first of the turn that follows the calls."""
        if is_result:
            self.blocks.insert(self.results, piece)
            self.results += 1
        else:
            self.blocks.append(piece)

    def pieces(self, lead: bytes) -> Iterator[bytes]:
        """The turn in JSON, for joining."""
        yield lead + b'{"role":"' + self.role + b'","content":['
        *others, last = self.blocks
        for block in others:
            yield block
            yield b","
        yield _marked(last) if self.is_marked else last
        yield b"]}"


def _turns(request: ModelRequest, render: Callable[[Message], bytes]) -> list[_Turn]:
    """The conversation as alternating turns; the ends of the last two user turns are marked for the prompt cache.

    The mark before the last one is where the previous call put its own, so that call's prefix is found again.
    """
    turns: list[_Turn] = []
    for index, message in enumerate(request.messages):
        if isinstance(message, InstructionMessage):
            continue
        piece = request.cache.message(index, message, render)
        if not piece:
            continue
        role = b"assistant" if isinstance(message, ExpertMessage) else b"user"
        if not turns or turns[-1].role != role:
            turns.append(_Turn(role))
        turns[-1].add(piece, is_result=isinstance(message, ToolMessage))
    if not turns or turns[-1].role == b"assistant":
        raise ProviderError("unsupported", "The conversation does not end with something for the model to answer.")
    for turn in [turn for turn in turns if turn.role == b"user"][-2:]:
        turn.is_marked = True
    return turns


def _marked(blocks: bytes) -> bytes:
    """`blocks` with a cache breakpoint on the last one; its closing brace is the last byte."""
    return blocks[:-1] + CACHE_MARK


def _tools(tools: tuple[ToolSpec, ...]) -> bytes:
    return b",".join(json_bytes(_tool(spec)) for spec in tools)


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
    """What the model said, thinking put back between the other blocks where it came from."""
    spoken: list[Json] = []
    thoughts: list[tuple[int, Json]] = []
    for part in message.contents:
        match part:
            case TextPart():
                if says_something(part):
                    spoken.append(_text(part))
            case ToolCallPart():
                name = wire_name(part.tool_name, _MAX_TOOL_NAME)
                spoken.append({"type": "tool_use", "id": part.tool_call_id, "name": name, "input": part.args})
            case ThinkingPart():
                # Without a signature of its own it is another provider's, which this API refuses.
                if part.signature and not is_foreign(API, part.signature):
                    thoughts.append(_thinking_block(part.thinking, part.signature))
            case ProviderToolPart():
                pass
            case _:
                assert_never(part)
    for offset, (position, block) in enumerate(thoughts):
        spoken.insert(position + offset, block)
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
