"""Items of the Responses API that later requests repeat: what our parts keep of them, and how they are put together.

A thinking part seals `{"id", "encrypted_content", "summary": [length, …]}` of its reasoning item, a part of a
provider's tool `{"item"}`. The first of them may also seal `{"order": […]}`, where the items of an answer came in
another order than our parts, or carry a phase; its entries are `"reasoning"`, `"tool"`,
`["text", number of parts, phase]` and `["call", id]`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from ....core.messages import ImageInlinePart, ResultPart, TextPart
from .parts import Json

API = "responses"
SUMMARY_BREAK = "\n\n"
"""Between the summaries of one reasoning item, where they are joined to one text."""
TOOL_ITEMS = {
    "web_search_call": ("web_search", "web_search_preview"),
    "file_search_call": ("file_search",),
    "code_interpreter_call": ("code_interpreter",),
    "image_generation_call": ("image_generation",),
}
"""Items of tools that the provider runs itself → what the tools may be called on the wire."""
_LARGE = {"file_search_call": ("results", ("text",)), "code_interpreter_call": ("outputs", ("logs", "url"))}
_IMAGE_TYPES = {"jpeg": "image/jpeg", "webp": "image/webp", "gif": "image/gif", "svg": "image/svg+xml"}


def emptied(item: Json) -> tuple[Json, list[ResultPart]]:
    """An item of a provider's tool without what came out, and that as contents, so that it is kept only once.

    In the item the place of each content holds its index.
    """
    contents: list[ResultPart] = []

    def take(value: Any) -> Any:
        content = _content(item, value)
        if content is None:
            return value
        contents.append(content)
        return len(contents) - 1

    return _through(item, take), contents


def filled(item: Json, contents: Sequence[ResultPart]) -> Json:
    """The item that `emptied` was given."""

    def give(value: Any) -> Any:
        return _value(item, contents[value]) if isinstance(value, int) and value < len(contents) else value

    return _through(item, give)


def _content(item: Json, value: Any) -> ResultPart | None:
    if not isinstance(value, str) or not value:
        return None
    if item["type"] == "image_generation_call":
        kind = _IMAGE_TYPES.get(item.get("output_format") or "", "image/png")
        return ImageInlinePart(encoded_data=value, mime_type=kind)
    if value.startswith("data:image/"):
        kind, _, data = value.removeprefix("data:").partition(";base64,")
        return ImageInlinePart(encoded_data=data, mime_type=kind)
    # The address of an image in a container is no result to keep.
    return None if value.startswith("https://") and item["type"] == "code_interpreter_call" else TextPart(text=value)


def _value(item: Json, content: ResultPart) -> str:
    if isinstance(content, TextPart):
        return content.text
    is_data = item["type"] == "image_generation_call"
    return content.encoded_data if is_data else f"data:{content.mime_type};base64,{content.encoded_data}"


def _through(item: Json, change: Callable[[Any], Any]) -> Json:
    """`item` with each of its large values changed, in the order they stand."""
    if item["type"] == "image_generation_call":
        return {**item, "result": change(item.get("result"))}
    name, fields = _LARGE.get(item["type"], ("", ()))
    entries: list[Json] = item.get(name) or []
    if not entries:
        return item
    changed = [{key: change(value) if key in fields else value for key, value in entry.items()} for entry in entries]
    return {**item, name: changed}
