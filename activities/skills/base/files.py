"""Reading, writing and editing files of the workspace."""

import bisect
from dataclasses import dataclass
from typing import Any

import puremagic

from ..results import ToolFailure
from .workspace import Workspace

MAX_TEXT_BYTES = 10 * 1024 * 1024
MAX_IMAGE_BYTES = 15 * 1024 * 1024
MAX_PDF_BYTES = 30 * 1024 * 1024
IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
PDF_TYPE = "application/pdf"
# Enough for every signature; the sniffer reads the whole content otherwise.
_SNIFFED_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class InlineFile:
    """A file that goes to the model as it is."""

    path: str
    mime_type: str
    content: bytes


def read_text_file(workspace: Workspace, path: str, *, start: int = 0, end: int | None = None) -> dict[str, Any]:
    """Lines `start` (from 0) up to but not including `end`, both clamped to the file."""
    with workspace.locate(path) as place:
        lines = _decoded(place.read(MAX_TEXT_BYTES), path).split("\n")
    first = min(max(start, 0), len(lines))
    last = min(max(len(lines) if end is None else end, first), len(lines))
    return {"path": path, "content": "\n".join(lines[first:last]), "from": first, "to": last}


def write_text_file(workspace: Workspace, path: str, text: str) -> dict[str, Any]:
    """Create or replace the file with `text`; missing folders are made."""
    content = _encoded(text, "text")
    with workspace.locate(path, make_parents=True) as place:
        place.replace(content)
    return {"path": path, "text": text}


def edit_text_file(workspace: Workspace, path: str, *, new_text: str, old_text: str) -> dict[str, Any]:
    """Replace the one occurrence of `old_text`, literally; the file keeps its line ends.

    Raises:
        ToolFailure: `old_text` is empty, missing, or there more than once.
    """
    _encoded(new_text, "newText")
    with workspace.locate(path) as place:
        content = _decoded(place.read(MAX_TEXT_BYTES), path)
        place.replace(_edited(content, path, new_text, old_text).encode())
    return {"path": path, "newText": new_text, "oldText": old_text}


def read_image_file(workspace: Workspace, path: str) -> InlineFile:
    """A PNG, JPEG, GIF or WebP image, told by its content."""
    with workspace.locate(path) as place:
        content = place.read(MAX_IMAGE_BYTES)
    found = sniffed(content)
    if found not in IMAGE_TYPES:
        raise ToolFailure(f"{path!r} is {_named(found)}, not a PNG, JPEG, GIF or WebP image.")
    return InlineFile(path, found, content)


def read_pdf_file(workspace: Workspace, path: str) -> InlineFile:
    """A PDF document, told by its content."""
    with workspace.locate(path) as place:
        content = place.read(MAX_PDF_BYTES)
    found = sniffed(content)
    if found != PDF_TYPE:
        raise ToolFailure(f"{path!r} is {_named(found)}, not a PDF document.")
    return InlineFile(path, PDF_TYPE, content)


def _edited(content: str, path: str, new_text: str, old_text: str) -> str:
    # Lines are compared without their CR, so that a text the model saw or wrote with LF fits a CRLF file.
    returns = _crlf_offsets(content)
    plain = content.replace("\r\n", "\n")
    old = old_text.replace("\r\n", "\n")
    start = _only_occurrence(plain, old, path)
    new = new_text.replace("\r\n", "\n")
    if 2 * len(returns) > plain.count("\n"):
        new = new.replace("\n", "\r\n")
    # Each CRLF before a position in `plain` is one character more in `content`.
    shrunk = [offset - index for index, offset in enumerate(returns)]
    first = start + bisect.bisect_left(shrunk, start)
    last = start + len(old)
    last += bisect.bisect_left(shrunk, last)
    return content[:first] + new + content[last:]


def _crlf_offsets(content: str) -> list[int]:
    offsets: list[int] = []
    position = content.find("\r\n")
    while position >= 0:
        offsets.append(position)
        position = content.find("\r\n", position + 2)
    return offsets


def _only_occurrence(text: str, wanted: str, path: str) -> int:
    if not wanted:
        raise ToolFailure("oldText is empty: name the text to replace.")
    first = text.find(wanted)
    if first < 0:
        raise ToolFailure(f"oldText does not occur in {path!r}.")
    if text.find(wanted, first + 1) >= 0:
        # `count` leaves out overlapping occurrences, but two are there for certain.
        count = max(2, text.count(wanted))
        raise ToolFailure(
            f"oldText occurs {count} times in {path!r}: add lines around it until it names one place.",
            occurrences=count,
        )
    return first


def _decoded(content: bytes, path: str) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ToolFailure(f"{path!r} is {_named(sniffed(content))}, not UTF-8 text.")
    return text


def _encoded(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ToolFailure(f"{name} is not valid text: it holds half a surrogate pair.") from error


def sniffed(content: bytes) -> str:
    """The media type that `content` shows, or nothing."""
    try:
        return puremagic.from_string(content[:_SNIFFED_BYTES], mime=True)  # pyright: ignore[reportUnknownMemberType]
    except (puremagic.PureError, ValueError):
        return ""


def _named(mime_type: str) -> str:
    return f"a file of type {mime_type}" if mime_type else "a file of unknown type"
