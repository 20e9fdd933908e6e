"""Where the parts of a Gemini answer stood, and what was signed.

A signature (https://ai.google.dev/gemini-api/docs/thought-signatures) must return on the very part it came with, and
parts come in any order, while our messages are ordered thinking → provider tools → text → calls. So one thinking part
of each answer holds its layout, sealed: `{"order": [...], "signatures": {...}}`. A part is named by its kind and its
number among those of its kind in our message: `k0` a thought, `t0` a text, `c0` a call, `p0.1` the second part of the
first provider tool; a part that our message has no place for stands in the order itself.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import assert_never

from ....core.messages import (
    ExpertPart,
    FileInlinePart,
    ImageInlinePart,
    ProviderToolPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from .parts import Json, is_foreign, retold, says_something, sealed, unsealed, wire_name

API = "gemini"
MADE_ID = "gemini-"
"""How the ids begin that we gave to calls without one; the API never sees them."""
MAX_TOOL_NAME = 64
_CONTENT = "$content"
"""In a sealed part: the place of its data among the contents of the `ProviderToolPart`."""


def layout(order: Sequence[str | Json], signatures: Mapping[str, str]) -> str:
    """The seal that `expert_parts` reads."""
    return sealed(API, {"order": list(order), "signatures": dict(signatures)})


def replay(parts: Sequence[Json], places: Mapping[int, int]) -> str | None:
    """The seal of a provider tool's own parts; `places` has the index among its contents of a part's data."""
    if not parts:
        return None
    kept = [
        {**part, "inlineData": {**part["inlineData"], "data": {_CONTENT: places[index]}}} if index in places else part
        for index, part in enumerate(parts)
    ]
    return sealed(API, {"parts": kept})


def id_of(call_id: str) -> Json:
    """The id of a call or a result for the API, unless we made it."""
    return {} if call_id.startswith(MADE_ID) else {"id": call_id}


def expert_parts(contents: Sequence[ExpertPart]) -> list[Json]:
    """What the model said, each part back in its place and with its signature.

    Thoughts without a layout, and what other APIs have sealed, are left out: they mean nothing to this one.
    """
    parts, known = _named(contents)
    order: list[str | Json] = [ref for ref in known.get("order", []) if not isinstance(ref, str) or ref in parts]
    order += [name for name in parts if name not in order and not name.startswith("k")]
    signatures: Mapping[str, str] = known.get("signatures", {})
    found: list[Json] = []
    for ref in order:
        if not isinstance(ref, str):
            found.append(ref)
        elif ref in signatures:
            found.append({**parts[ref], "thoughtSignature": signatures[ref]})
        else:
            found.append(parts[ref])
    return found


def _named(contents: Sequence[ExpertPart]) -> tuple[dict[str, Json], Json]:
    """The parts by name, and the layout."""
    parts: dict[str, Json] = {}
    known: Json = {}
    count = Counter[str]()

    def put(kind: str, part: Json) -> None:
        parts[f"{kind}{count[kind]}"] = part
        count[kind] += 1

    for part in contents:
        match part:
            case ThinkingPart():
                known = unsealed(API, part.signature) or known
                if part.thinking:
                    put("k", {"text": part.thinking, "thought": True})
            case ProviderToolPart():
                own = _own_parts(part)
                parts |= {f"p{count['p']}.{index}": one for index, one in enumerate(own)}
                count["p"] += 1
                if not own and part.replay is not None and is_foreign(API, part.replay):
                    put("t", {"text": retold(part)})
            case TextPart():
                if says_something(part):
                    put("t", {"text": part.text})
            case ToolCallPart():
                call = {"name": wire_name(part.tool_name, MAX_TOOL_NAME), "args": part.args}
                put("c", {"functionCall": {**call, **id_of(part.tool_call_id)}})
            case _:
                assert_never(part)
    return parts, known


def _own_parts(part: ProviderToolPart) -> list[Json]:
    """The parts of a provider tool as they came, data put back from its contents."""
    own: list[Json] = (unsealed(API, part.replay) or {}).get("parts", [])
    for raw in own:
        place: str | dict[str, int] = raw.get("inlineData", {}).get("data", "")
        if not isinstance(place, str):
            content = part.contents[place[_CONTENT]]
            assert isinstance(content, ImageInlinePart | FileInlinePart)
            raw["inlineData"] = {**raw["inlineData"], "data": content.encoded_data}
    return own
