"""What every mapping of conversations needs: data of parts, refusals, names of tools, seals, JSON."""

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from ....core.messages import (
    ExpertPart,
    FileBinaryPart,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    ProviderToolPart,
    TextPart,
)
from ....core.profiles.provider import Media, ProviderProfile
from ....core.tools import ToolSpec
from ..base import INVALID_JSON_ARGUMENT, INVALID_JSON_LIMIT
from ..failures import ProviderError

Json = dict[str, Any]
BinaryPart = ImageInlinePart | ImageBinaryPart | FileInlinePart | FileBinaryPart
MediaPart = BinaryPart | ImageUrlPart | FileUrlPart

PDF = "application/pdf"
IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/yaml", "application/toml"})
_NOT_IN_TOOL_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_SEALED = re.compile(r"(messages|responses|chat|gemini|converse):(.*)", re.DOTALL)


def says_something(part: object) -> bool:
    """Texts without a visible character are refused by most APIs and say nothing."""
    return not isinstance(part, TextPart) or bool(part.text.strip())


def media_of(part: MediaPart, *, is_result: bool = False) -> Media | None:
    """What `part` is in the terms of a provider's profile; `None` for what no provider takes."""
    match part:
        case ImageUrlPart():
            return "image-url"
        case ImageInlinePart() | ImageBinaryPart():
            return "result-image" if is_result else "image"
        case FileUrlPart():
            return "pdf-url" if part.mime_type == PDF else "text-file-url" if is_text_type(part.mime_type) else None
        case FileInlinePart() | FileBinaryPart():
            if part.mime_type == PDF:
                return "result-pdf" if is_result else "pdf"
            return "text-file" if is_text_type(part.mime_type) else None


def is_text_type(mime_type: str) -> bool:
    """Whether a file of this type can be given as text."""
    return mime_type.startswith("text/") or mime_type in _TEXT_TYPES


def takes(profile: ProviderProfile, part: MediaPart, *, is_result: bool = False) -> bool:
    """Whether the provider takes a part of this kind and, of images, of this type."""
    if isinstance(part, ImageUrlPart | ImageInlinePart | ImageBinaryPart) and image_type(part) not in IMAGE_TYPES:
        return False
    return media_of(part, is_result=is_result) in profile.media


def image_type(part: ImageUrlPart | ImageInlinePart | ImageBinaryPart) -> str:
    """The type of an image as APIs spell it."""
    return "image/jpeg" if part.mime_type == "image/jpg" else part.mime_type


def encoded(profile: ProviderProfile, part: BinaryPart) -> str:
    """The data of a part in base64.

    Raises:
        ProviderError: a binary part holds characters that are no bytes.
    """
    if isinstance(part, ImageInlinePart | FileInlinePart):
        return part.encoded_data
    try:
        return base64.b64encode(part.data.encode("latin-1")).decode()
    except UnicodeEncodeError:
        raise refused(profile, part, "its data is not a string of bytes") from None


def file_text(profile: ProviderProfile, part: FileInlinePart | FileBinaryPart) -> str:
    """The text of a text file.

    Raises:
        ProviderError: it is not UTF-8.
    """
    try:
        return base64.b64decode(encoded(profile, part), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise refused(profile, part, "its text is not UTF-8") from None


def refused(profile: ProviderProfile, part: MediaPart, reason: str = "") -> ProviderError:
    """The refusal of a part by name; nothing is ever left out in silence."""
    reason = reason or f"it takes {_kinds(profile)}"
    return ProviderError(
        "unsupported", f"{profile.title} cannot take the {part.type} of type `{part.mime_type}`: {reason}."
    )


def left_out(profile: ProviderProfile, part: MediaPart) -> str:
    """What the model is told in place of a part of a tool result that its provider cannot take."""
    what = "an image" if isinstance(part, ImageInlinePart | ImageBinaryPart | ImageUrlPart) else "a file"
    return f"[This result holds {what} of type {part.mime_type}, which {profile.title} cannot show to the model.]"


_KINDS: tuple[tuple[Media, str], ...] = (
    ("image", "JPEG, PNG, GIF and WebP images"),
    ("image-url", "images by URL"),
    ("pdf", "PDF files"),
    ("pdf-url", "PDF files by URL"),
    ("text-file", "text files"),
)


def _kinds(profile: ProviderProfile) -> str:
    kinds = [words for medium, words in _KINDS if medium in profile.media]
    return ", ".join(kinds) if kinds else "text only"


def wire_name(name: str, limit: int) -> str:
    """`name` in the letters that every API allows for tools."""
    return _NOT_IN_TOOL_NAME.sub("_", name)[:limit]


def tool_names(profile: ProviderProfile, tools: Iterable[ToolSpec], limit: int) -> dict[str, str]:
    """The name each tool goes by on the wire → its own.

    Raises:
        ProviderError: two tools cannot be told apart.
    """
    names: dict[str, str] = {}
    for spec in tools:
        name = wire_name(spec.name, limit)
        other = names.setdefault(name, spec.name)
        if other != spec.name:
            message = f"The tools `{other}` and `{spec.name}` have the same name for {profile.title}: {name}."
            raise ProviderError("unsupported", message, hint="Leave one of them out with `omit`.")
    return names


def arguments(text: str) -> Json:
    """The arguments of a call as the model wrote them; what is no JSON object is kept for the tool layer to refuse."""
    if not text.strip():
        return {}
    try:
        found = from_json(text, allow_inf_nan=False)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return {INVALID_JSON_ARGUMENT: text[:INVALID_JSON_LIMIT]}
    return found  # pyright: ignore[reportUnknownVariableType]


def sealed(api: str, value: Mapping[str, Any]) -> str:
    """A signature, or the replay of a provider's tool, that remembers what our parts have no field for."""
    return f"{api}:{json_bytes(value).decode()}"


def unsealed(api: str, text: str | None) -> Json | None:
    """What `sealed` kept for `api`; `None` for another API's, whose words mean nothing here."""
    match = _SEALED.fullmatch(text or "")
    return from_json(match[2]) if match and match[1] == api else None


def is_foreign(api: str, text: str) -> bool:
    """Whether another API has sealed `text`."""
    match = _SEALED.fullmatch(text)
    return match is not None and match[1] != api


def retold(part: ProviderToolPart) -> str:
    """What a provider's tool did, for a model that cannot be given it in the provider's own form."""
    asked = json_bytes(part.args).decode()
    texts = [content.text for content in part.contents if isinstance(content, TextPart)]
    images = sum(not isinstance(content, TextPart) for content in part.contents)
    places = [source.url or source.title or "" for source in part.sources]
    came = [*texts, *(["(an image)"] * images), *filter(None, places)]
    outcome = "failed" if part.is_error else "answered"
    return "\n".join((f"[The tool {part.tool_name} was asked {asked} and {outcome}.]", *came))


def spoken(parts: Sequence[ExpertPart]) -> bool:
    """Whether an answer says anything that a later turn could refer to; thinking alone does not."""
    return any(part.type != "thinkingPart" and says_something(part) for part in parts)


def json_bytes(value: Sequence[Json] | Mapping[str, Any]) -> bytes:
    """`value` as JSON; half a surrogate pair, which no JSON can carry, becomes a question mark."""
    try:
        return to_json(value)
    except PydanticSerializationError:
        return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
