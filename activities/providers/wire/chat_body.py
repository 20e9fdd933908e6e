"""Requests to Chat Completions as bytes: every message is mapped once, the body is joined from the pieces.

The same for every provider that serves this API; where they differ, `profile.chat` says how.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

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
from ....core.profiles.provider import ProviderProfile
from ....core.tools import ToolSpec
from ..base import ModelRequest
from ..failures import ProviderError
from .parts import (
    Json,
    MediaPart,
    encoded,
    file_text,
    image_type,
    json_bytes,
    left_out,
    refused,
    retold,
    says_something,
    takes,
    tool_names,
    wire_name,
)

WITHOUT_REASONING = "without-reasoning"
"""Note in the wire cache: the model refuses to be asked how much it should reason."""
WITHOUT_IMAGES = "without-images"
"""Note in the wire cache: the model refuses the images of tool results."""
_MAX_TOOL_NAME = 64


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and what belongs to it."""

    content: bytes
    tool_names: Mapping[str, str]
    """The name a tool goes by on the wire → its own."""
    headers: Mapping[str, str]


def request_body(profile: ProviderProfile, request: ModelRequest) -> Body:
    """The whole body of one streaming call.

    Raises:
        ProviderError: the conversation holds something this API cannot take.
    """
    choice = request.expert.model
    options: Json = {"model": choice.model, "stream": True, "stream_options": {"include_usage": True}}
    if choice.max_output_tokens:
        options["max_tokens"] = choice.max_output_tokens
    options.update(reasoning_options(profile, request))
    pieces = [json_bytes(options)[:-1]]
    if request.tools:
        pieces += (b',"tools":[', request.cache.part("tools", request.tools, _tools), b"]")
    messages = list(_messages(profile, request))
    # One join: a long conversation is copied once.
    pieces += (b',"messages":[', b",".join(messages), b"]}")
    header = profile.chat.affinity_header
    return Body(
        content=b"".join(pieces),
        tool_names=tool_names(profile, request.tools, _MAX_TOOL_NAME),
        headers={header: _conversation(request, messages[:2])} if header else {},
    )


def reasoning_options(profile: ProviderProfile, request: ModelRequest) -> Mapping[str, object]:
    """The fields that ask for reasoning; none where the model has refused them."""
    if WITHOUT_REASONING in request.cache.notes:
        return {}
    choice = request.expert.model
    return profile.chat.reasoning_fields(choice.model, reasoning_effort(choice.reasoning_budget) or "none")


def shows_images_of_results(profile: ProviderProfile, request: ModelRequest) -> bool:
    """Whether the request holds images that a tool returned."""
    mapping = _Mapping(profile, request)
    return any(mapping.shown(message) for message in request.messages if isinstance(message, ToolMessage))


def _conversation(request: ModelRequest, beginning: Sequence[bytes]) -> str:
    """Names the conversation, the same in each of its calls."""
    return hashlib.sha256(b"\0".join((*(part.encode() for part in request.path), *beginning))).hexdigest()[:32]


class _Turn:
    """What was said between two answers: results must come first, then what they show, then everything else."""

    __slots__ = ("results", "said", "shown")

    def __init__(self) -> None:
        self.results: list[bytes] = []
        self.shown: list[bytes] = []
        self.said: list[bytes] = []

    def pieces(self) -> Iterator[bytes]:
        yield from self.results
        yield from self.shown
        yield from self.said


def _messages(profile: ProviderProfile, request: ModelRequest) -> Iterator[bytes]:
    """The conversation, each piece one message or more."""
    mapping = _Mapping(profile, request)
    turn = _Turn()
    for index, message in enumerate(request.messages):
        piece = request.cache.message(index, message, mapping.message)
        match message:
            case InstructionMessage():
                if piece:
                    yield piece
            case UserMessage():
                turn.said.append(piece)
            case ToolMessage():
                turn.results.append(piece)
                if mapping.shown(message):
                    # The cache has one place for each message; the images have theirs on the other side of zero.
                    turn.shown.append(request.cache.message(~index, message, mapping.images))
            case ExpertMessage():
                if piece:
                    yield from turn.pieces()
                    yield piece
                    turn = _Turn()
            case _:
                assert_never(message)
    last = list(turn.pieces())
    if not last:
        raise ProviderError("unsupported", "The conversation does not end with something for the model to answer.")
    yield from last


def _tools(tools: tuple[ToolSpec, ...]) -> bytes:
    return b",".join(json_bytes(_tool(spec)) for spec in tools)


def _tool(spec: ToolSpec) -> Json:
    description = {"description": spec.description} if spec.description else {}
    function: Json = {
        "name": wire_name(spec.name, _MAX_TOOL_NAME),
        **description,
        # Some servers do not take an object that does not list its properties.
        "parameters": {"type": "object", "properties": {}, **spec.input_schema},
    }
    return {"type": "function", "function": function}


class _Mapping:
    """Maps the messages of one conversation for one provider."""

    def __init__(self, profile: ProviderProfile, request: ModelRequest) -> None:
        self._profile = profile
        self._shows_results = WITHOUT_IMAGES not in request.cache.notes

    def message(self, message: Message) -> bytes:
        """One message, or one for each result; empty when nothing of it can be said."""
        match message:
            case InstructionMessage():
                text = _paragraphs(message.contents)
                return json_bytes({"role": "system", "content": text}) if text else b""
            case UserMessage():
                return self._user(message)
            case ExpertMessage():
                return self._expert(message)
            case ToolMessage():
                return b",".join(json_bytes(self._result(part)) for part in message.contents)
            case _:
                assert_never(message)

    def images(self, message: Message) -> bytes:
        """The images of results, which the results themselves cannot hold."""
        assert isinstance(message, ToolMessage)
        blocks: list[Json] = []
        for result in message.contents:
            images = [part for part in result.contents if self._is_shown(part)]
            for number, image in enumerate(images, start=1):
                title = f"Image {number} of the result of {result.tool_name} (call {result.tool_call_id}):"
                blocks += ({"type": "text", "text": title}, self._image(image))
        return json_bytes({"role": "user", "content": blocks})

    def shown(self, message: ToolMessage) -> bool:
        """Whether `images` has something to show."""
        return any(self._is_shown(part) for result in message.contents for part in result.contents)

    def _is_shown(self, part: ResultPart) -> bool:
        return isinstance(part, ImageInlinePart) and self._shows_results and takes(self._profile, part, is_result=True)

    def _user(self, message: UserMessage) -> bytes:
        blocks = [self._user_block(part) for part in message.contents if says_something(part)]
        if not blocks:
            raise ProviderError("unsupported", f"{self._profile.title} cannot take an empty user message.")
        # Text alone goes as a string: servers without images know no other form.
        is_text = all(block["type"] == "text" for block in blocks)
        return json_bytes(
            {"role": "user", "content": "\n\n".join(block["text"] for block in blocks) if is_text else blocks}
        )

    def _user_block(self, part: UserPart) -> Json:
        if isinstance(part, TextPart):
            return {"type": "text", "text": part.text}
        if not takes(self._profile, part):
            raise refused(self._profile, part)
        match part:
            case ImageUrlPart() | ImageInlinePart() | ImageBinaryPart():
                return self._image(part)
            case FileInlinePart() | FileBinaryPart():
                return {"type": "text", "text": self._file(part)}
            case FileUrlPart():
                raise refused(self._profile, part, "it fetches no files")
            case _:
                assert_never(part)

    def _expert(self, message: ExpertMessage) -> bytes:
        told: list[str] = []
        text: list[str] = []
        thoughts: list[str] = []
        calls: list[Json] = []
        for part in message.contents:
            match part:
                case TextPart():
                    text.append(part.text)
                case ToolCallPart():
                    calls.append(_call(part))
                case ThinkingPart():
                    # With a signature it is the thinking of an API that signs it: nobody else's business.
                    if not part.signature:
                        thoughts.append(part.thinking)
                case ProviderToolPart():
                    told.append(retold(part))
                case _:
                    assert_never(part)
        content = "\n\n".join(filter(str.strip, (*told, "".join(text))))
        if not (content or calls):
            # Thinking alone says nothing the next turn could answer.
            return b""
        dialect = self._profile.chat
        body: Json = {"role": "assistant", "content": content}
        if dialect.replayed and (thoughts or dialect.replays_empty):
            body[dialect.replayed] = "\n\n".join(thoughts)
        if calls:
            body["tool_calls"] = calls
        return json_bytes(body)

    def _result(self, result: ToolResultPart) -> Json:
        """The text of a result: nothing else can stand in one."""
        texts = ["The tool failed."] if result.is_error else []
        images = 0
        for part in result.contents:
            if self._is_shown(part):
                images += 1
                texts.append(f"[Image {images} of this result is in the next message of the user.]")
            elif says_something(part):
                texts.append(self._result_text(part))
        return {"role": "tool", "tool_call_id": result.tool_call_id, "content": "\n\n".join(texts)}

    def _result_text(self, part: ResultPart) -> str:
        if isinstance(part, TextPart):
            return part.text
        if isinstance(part, FileInlinePart) and takes(self._profile, part, is_result=True):
            return self._file(part)
        return left_out(self._profile, part)

    def _image(self, part: MediaPart | ResultPart) -> Json:
        assert isinstance(part, ImageUrlPart | ImageInlinePart | ImageBinaryPart)
        if isinstance(part, ImageUrlPart):
            url = part.url
        else:
            url = f"data:{image_type(part)};base64,{encoded(self._profile, part)}"
        return {"type": "image_url", "image_url": {"url": url}}

    def _file(self, part: FileInlinePart | FileBinaryPart) -> str:
        return f"[File of type {part.mime_type}]\n{file_text(self._profile, part)}"


def _paragraphs(parts: Sequence[TextPart]) -> str:
    return "\n\n".join(part.text for part in parts if says_something(part))


def _call(part: ToolCallPart) -> Json:
    function = {"name": wire_name(part.tool_name, _MAX_TOOL_NAME), "arguments": json_bytes(part.args).decode()}
    return {"id": part.tool_call_id, "type": "function", "function": function}
