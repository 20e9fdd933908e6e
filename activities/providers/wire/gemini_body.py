"""Requests to the Gemini API as bytes: every message is mapped once, the body is joined from the pieces.

The fields are those of the REST reference (https://ai.google.dev/api/generate-content) and of the SDK's converters.
The typed call of the SDK walks the whole conversation on every call (DESIGN §9) and writes signatures anew in base64,
so nothing here goes through it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

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
    TextPart,
    ToolMessage,
    ToolResultPart,
    UserMessage,
    UserPart,
)
from ....core.models import reasoning_effort, thinking_tokens
from ....core.profiles.gemini import GeminiCapabilities, ThinkingLevel, gemini_capabilities
from ....core.profiles.provider import ProviderProfile
from ....core.profiles.providers import PROVIDERS
from ....core.tools import ToolSpec
from ..base import ModelRequest
from ..failures import ProviderError
from .gemini_layout import MAX_TOOL_NAME, expert_parts, id_of
from .parts import (
    PDF,
    Json,
    MediaPart,
    encoded,
    file_text,
    image_type,
    json_bytes,
    left_out,
    refused,
    says_something,
    spoken,
    takes,
    tool_names,
    wire_name,
)
from .turns import Turn, system_of, turns_of

UNSIGNED = "skip_thought_signature_validator"
"""The signature for a call that another model made; the one of the documented two that Vertex AI takes as well."""
_MINIMAL_TOKENS = thinking_tokens("minimal")


@dataclass(frozen=True, slots=True)
class Body:
    """A request body and what belongs to it."""

    content: bytes
    tool_names: Mapping[str, str]
    """The name a tool goes by on the wire → its own."""

    def continued(self, token: str) -> bytes:
        """The same request, going on where an earlier answer to it stopped."""
        return self.content[:-1] + b"," + json_bytes({"continuationToken": token})[1:]


def request_body(request: ModelRequest) -> Body:
    """The whole body of one call.

    Raises:
        ProviderError: the conversation holds something this API cannot take.
    """
    choice, provider_tools = request.expert.model, request.expert.provider_tools
    mapping = _Mapping(PROVIDERS[choice.provider], gemini_capabilities(choice.model))
    names = tool_names(mapping.profile, request.tools, MAX_TOOL_NAME)
    pieces = [b'{"contents":[']
    for number, turn in enumerate(turns_of(request, mapping)):
        pieces += _turn_pieces(turn, b"," if number else b"")
    pieces.append(b"]")
    if system := system_of(request, mapping):
        pieces += (b',"systemInstruction":{"parts":[', system, b"]}")
    if request.tools or provider_tools:
        tools = request.cache.part("tools", (request.tools, provider_tools), _tools)
        pieces += (b',"tools":', tools)
    has_both = bool(request.tools and provider_tools)
    options = _options(choice, mapping.capabilities)
    if tool_config := _tool_config(provider_tools, is_mixed=has_both and choice.provider == "google"):
        options["toolConfig"] = tool_config
    # One join: a long conversation is copied once.
    pieces.append(b"," + json_bytes(options)[1:] if options else b"}")
    return Body(content=b"".join(pieces), tool_names=names)


def _options(choice: ModelChoice, capabilities: GeminiCapabilities) -> Json:
    """Output limit and reasoning, each in the form this model takes."""
    config: Json = {}
    limit = choice.max_output_tokens
    if limit is not None:
        limit = min(limit, capabilities.max_output_tokens or limit)
        config["maxOutputTokens"] = limit
    if thinking := _thinking(choice, capabilities, limit):
        config["thinkingConfig"] = thinking
    return {"generationConfig": config} if config else {}


def _thinking(choice: ModelChoice, capabilities: GeminiCapabilities, limit: int | None) -> Json:
    tokens = thinking_tokens(choice.reasoning_budget)
    match capabilities.thinking:
        case "none":
            return {}
        case "level":
            level = _level(choice, capabilities).upper()
            return {"includeThoughts": True, "thinkingLevel": level} if tokens else {"thinkingLevel": level}
        case "budget":
            if not tokens:
                return {"thinkingBudget": capabilities.off_budget}
            most = min(capabilities.most_budget, limit // 2 if limit else capabilities.most_budget)
            budget = max(min(tokens, most), capabilities.least_budget)
            return {"includeThoughts": True, "thinkingBudget": budget}
        case _:
            assert_never(capabilities.thinking)


def _level(choice: ModelChoice, capabilities: GeminiCapabilities) -> ThinkingLevel:
    """The wanted level, or the next one up that the model has."""
    if thinking_tokens(choice.reasoning_budget) <= _MINIMAL_TOKENS:
        return capabilities.levels[0]
    wanted = reasoning_effort(choice.reasoning_budget) or "low"
    return wanted if wanted in capabilities.levels else capabilities.levels[-1]


def _tools(tools: tuple[tuple[ToolSpec, ...], tuple[ProviderTool, ...]]) -> bytes:
    specs, provider_tools = tools
    entries: list[Json] = []
    if specs:
        entries.append({"functionDeclarations": [_declaration(spec) for spec in specs]})
    entries += [{tool.name: _tool_options(tool)} for tool in provider_tools]
    return json_bytes(entries)


def _declaration(spec: ToolSpec) -> Json:
    declaration: Json = {"name": wire_name(spec.name, MAX_TOOL_NAME)}
    if spec.description:
        declaration["description"] = spec.description
    schema = {"type": "object", **spec.input_schema}
    # A function without parameters has no schema: the API refuses an object without properties.
    if schema.get("properties") or schema.keys() - {"type", "properties", "$schema", "additionalProperties", "title"}:
        declaration["parametersJsonSchema"] = schema
    return declaration


def _tool_options(tool: ProviderTool) -> Json:
    if tool.name != "fileSearch":
        return {}
    names = {"vectorStoreIds": "fileSearchStoreNames", "maxNumResults": "topK"}
    return {names[name]: value for name, value in tool.options.items()}


def _tool_config(provider_tools: Sequence[ProviderTool], *, is_mixed: bool) -> Json:
    config: Json = {}
    for tool in provider_tools:
        if tool.name == "googleMaps" and (retrieval := tool.options.get("retrievalConfig")):
            config["retrievalConfig"] = retrieval
    if is_mixed:
        # The Gemini API runs its own tools beside functions only if the client takes its calls down and repeats them
        # (https://ai.google.dev/gemini-api/docs/tool-combination); Vertex AI has no such field.
        config["includeServerSideToolInvocations"] = True
    return config


def _turn_pieces(turn: Turn, lead: bytes) -> Iterator[bytes]:
    """The turn in JSON, for joining."""
    role = b"model" if turn.role == b"assistant" else b"user"
    yield lead + b'{"role":"' + role + b'","parts":['
    for number, block in enumerate(turn.blocks):
        yield b"," + block if number else block
    yield b"]}"


@dataclass(frozen=True, slots=True)
class _Mapping:
    """How one provider and one model want messages."""

    profile: ProviderProfile
    capabilities: GeminiCapabilities

    def __call__(self, message: Message) -> bytes:
        """The parts of one message, joined by commas; empty when nothing of it can be said."""
        match message:
            case InstructionMessage():
                parts = [_text(part.text) for part in message.contents if part.text.strip()]
            case UserMessage():
                parts = [self._user_part(part) for part in message.contents if says_something(part)]
                if not parts:
                    raise ProviderError("unsupported", f"{self.profile.title} cannot take an empty user message.")
            case ExpertMessage():
                parts = self._signed(expert_parts(message.contents)) if spoken(message.contents) else []
            case ToolMessage():
                parts = self._result_parts(message.contents)
            case _:
                assert_never(message)
        return b",".join(map(json_bytes, parts))

    def _user_part(self, part: UserPart) -> Json:
        if isinstance(part, TextPart):
            return _text(part.text)
        if not self._takes(part):
            raise refused(self.profile, part, _REASON if _is_gif(part) else "")
        match part:
            case ImageUrlPart():
                return {"fileData": {"mimeType": image_type(part), "fileUri": part.url}}
            case FileUrlPart():
                return {"fileData": {"mimeType": part.mime_type, "fileUri": part.url}}
            case ImageInlinePart() | ImageBinaryPart():
                return _inline(image_type(part), encoded(self.profile, part))
            case FileInlinePart() | FileBinaryPart():
                if part.mime_type == PDF:
                    return _inline(PDF, encoded(self.profile, part))
                return _text(file_text(self.profile, part))
            case _:
                assert_never(part)

    def _takes(self, part: MediaPart, *, is_result: bool = False) -> bool:
        return takes(self.profile, part, is_result=is_result) and not _is_gif(part)

    def _signed(self, parts: list[Json]) -> list[Json]:
        """`parts` with the signature that the first call must have, should it have none."""
        first = next((part for part in parts if "functionCall" in part), None)
        if self.capabilities.wants_signatures and first is not None:
            first.setdefault("thoughtSignature", UNSIGNED)
        return parts

    def _result_parts(self, results: Sequence[ToolResultPart]) -> list[Json]:
        responses: list[Json] = []
        beside: list[Json] = []
        for result in results:
            texts, media = self._result_contents(result)
            text = "\n".join(texts)
            response: Json = {
                "name": wire_name(result.tool_name, MAX_TOOL_NAME),
                "response": {"error": text or "The tool failed."} if result.is_error else {"output": text},
                **id_of(result.tool_call_id),
            }
            if media and self.capabilities.takes_result_media:
                response["parts"] = media
            else:
                # Older models see them as what the user shows beside the results.
                beside += media
            responses.append({"functionResponse": response})
        return responses + beside

    def _result_contents(self, result: ToolResultPart) -> tuple[list[str], list[Json]]:
        texts: list[str] = []
        media: list[Json] = []
        for part in result.contents:
            if isinstance(part, TextPart):
                texts.append(part.text)
            elif not self._takes(part, is_result=True):
                texts.append(left_out(self.profile, part))
            elif isinstance(part, ImageInlinePart):
                media.append(_inline(image_type(part), part.encoded_data))
            elif part.mime_type == PDF:
                media.append(_inline(PDF, part.encoded_data))
            else:
                texts.append(self._result_file(part))
        return texts, media

    def _result_file(self, part: FileInlinePart) -> str:
        try:
            return file_text(self.profile, part)
        except ProviderError:
            return left_out(self.profile, part)


_REASON = "it takes JPEG, PNG and WebP images"


def _is_gif(part: MediaPart) -> bool:
    return part.mime_type == "image/gif"


def _text(text: str) -> Json:
    return {"text": text}


def _inline(mime_type: str, data: str) -> Json:
    return {"inlineData": {"mimeType": mime_type, "data": data}}
