"""Messages and their parts (contract §4.5). Ids are given by the machine, never by the outside."""

from typing import Annotated, Any, Literal

from pydantic import Field

from .wire import Wire


class Source(Wire):
    """Where a statement comes from: a page or a file that the provider looked into for the model."""

    url: str | None = None
    title: str | None = None
    """Of the page, or the name of the file."""


class TextPart(Wire):
    """Plain text."""

    id: str = ""
    type: Literal["textPart"] = "textPart"
    text: str
    sources: tuple[Source, ...] | None = None
    """What this text cites, where the provider said so."""


class ImageUrlPart(Wire):
    """An image the provider fetches itself."""

    id: str = ""
    type: Literal["imageUrlPart"] = "imageUrlPart"
    url: str
    mime_type: str


class ImageInlinePart(Wire):
    """An image as base64."""

    id: str = ""
    type: Literal["imageInlinePart"] = "imageInlinePart"
    encoded_data: str
    mime_type: str


class ImageBinaryPart(Wire):
    """An image as a string of bytes."""

    id: str = ""
    type: Literal["imageBinaryPart"] = "imageBinaryPart"
    data: str
    mime_type: str


class FileUrlPart(Wire):
    """A file the provider fetches itself."""

    id: str = ""
    type: Literal["fileUrlPart"] = "fileUrlPart"
    url: str
    mime_type: str


class FileInlinePart(Wire):
    """A file as base64."""

    id: str = ""
    type: Literal["fileInlinePart"] = "fileInlinePart"
    encoded_data: str
    mime_type: str


class FileBinaryPart(Wire):
    """A file as a string of bytes."""

    id: str = ""
    type: Literal["fileBinaryPart"] = "fileBinaryPart"
    data: str
    mime_type: str


class ThinkingPart(Wire):
    """The model's reasoning; the signature is replayed to the provider that made it."""

    id: str = ""
    type: Literal["thinkingPart"] = "thinkingPart"
    thinking: str
    signature: str | None = None


class ToolCallPart(Wire):
    """A call the model asks for."""

    id: str = ""
    type: Literal["toolCallPart"] = "toolCallPart"
    tool_call_id: str
    tool_name: str
    args: dict[str, Any]


ResultPart = Annotated[TextPart | ImageInlinePart | FileInlinePart, Field(discriminator="type")]


class ToolResultPart(Wire):
    """The answer to one call."""

    id: str = ""
    type: Literal["toolResultPart"] = "toolResultPart"
    tool_call_id: str
    tool_name: str
    contents: tuple[ResultPart, ...]
    is_error: bool | None = None


class ProviderToolPart(Wire):
    """A tool that the provider ran itself while it answered: what it was asked and what came out."""

    id: str = ""
    type: Literal["providerToolPart"] = "providerToolPart"
    tool_name: str
    """As in `providerTools`."""
    args: dict[str, Any] = {}
    contents: tuple[ResultPart, ...] = ()
    """What came out, as far as the provider shows it: texts, generated images."""
    sources: tuple[Source, ...] = ()
    is_error: bool | None = None
    replay: str | None = None
    """The provider's own form, which later requests of the same API must repeat; means nothing to anybody else."""


UserPart = Annotated[
    TextPart | ImageUrlPart | ImageInlinePart | ImageBinaryPart | FileUrlPart | FileInlinePart | FileBinaryPart,
    Field(discriminator="type"),
]
ExpertPart = Annotated[TextPart | ToolCallPart | ThinkingPart | ProviderToolPart, Field(discriminator="type")]


class InstructionMessage(Wire):
    """The system prompt; always the first message of a run."""

    id: str = ""
    type: Literal["instructionMessage"] = "instructionMessage"
    contents: tuple[TextPart, ...]
    cache: bool | None = None


class UserMessage(Wire):
    """What a person, a parent expert or the machine itself says to the expert."""

    id: str = ""
    type: Literal["userMessage"] = "userMessage"
    contents: tuple[UserPart, ...]
    cache: bool | None = None


class ExpertMessage(Wire):
    """What the model answered: thinking, then tools of the provider, then text, then tool calls."""

    id: str = ""
    type: Literal["expertMessage"] = "expertMessage"
    contents: tuple[ExpertPart, ...]
    cache: bool | None = None

    @property
    def text(self) -> str:
        """All text parts joined."""
        return "".join(part.text for part in self.contents if isinstance(part, TextPart))

    @property
    def thinking(self) -> str:
        """All reasoning joined by blank lines."""
        thoughts = (part.thinking for part in self.contents if isinstance(part, ThinkingPart))
        # A part may hold a signature only.
        return "\n\n".join(thought for thought in thoughts if thought)

    @property
    def calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls in order."""
        return tuple(part for part in self.contents if isinstance(part, ToolCallPart))


class ToolMessage(Wire):
    """The results of all calls of the expert message before it, in call order."""

    id: str = ""
    type: Literal["toolMessage"] = "toolMessage"
    contents: tuple[ToolResultPart, ...]
    cache: bool | None = None


Message = Annotated[InstructionMessage | UserMessage | ExpertMessage | ToolMessage, Field(discriminator="type")]
InputMessage = Annotated[InstructionMessage | UserMessage | ToolMessage, Field(discriminator="type")]
