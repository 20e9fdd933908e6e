"""What Anthropic runs itself: its tools and skills in a request, what they did in an answer, and its replay."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ....core.expert import Expert, ProviderSkill, ProviderTool
from ....core.messages import ProviderToolPart, ResultPart, Source, TextPart
from ....core.profiles.providers import PROVIDERS
from ..failures import ProviderError
from .parts import Json, sealed, unsealed

API = "messages"
PROFILE = PROVIDERS["anthropic"]
CODE_EXECUTION = "codeExecution"
CALL = "server_tool_use"
RESULT_SUFFIX = "_tool_result"
UPLOAD = "container_upload"
MAX_SHOWN_TEXT = 10_000
"""Characters of one result that are kept to be shown; the replay has all."""
# The newest versions that are out of beta. Every model takes them: those that cannot call tools from code want the
# search tools to be called directly, which also keeps searches from running code that nobody asked for.
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/tool-reference
_DIRECT = {"allowed_callers": ["direct"]}
_VERSIONS: Mapping[str, Json] = MappingProxyType(
    {
        "webSearch": {"type": "web_search_20260318", **_DIRECT},
        "webFetch": {"type": "web_fetch_20260318", **_DIRECT},
        CODE_EXECUTION: {"type": "code_execution_20260521"},
    }
)
_OPTIONS: Mapping[str, str] = MappingProxyType({"maxUses": "max_uses", "allowedDomains": "allowed_domains"})
_TOOLS: Mapping[str, str] = MappingProxyType(
    {
        "web_search": "webSearch",
        "web_fetch": "webFetch",
        "code_execution": CODE_EXECUTION,
        # What the code execution tool offers to the model under names of their own.
        "bash_code_execution": CODE_EXECUTION,
        "text_editor_code_execution": CODE_EXECUTION,
    }
)

_RESULTS = frozenset(f"{name}{RESULT_SUFFIX}" for name in _TOOLS)


def is_own(block_type: str) -> bool:
    """Whether a block tells of a tool that Anthropic ran."""
    return block_type in (CALL, UPLOAD) or block_type in _RESULTS


def provider_tools(expert: Expert) -> list[Json]:
    """The tools as the API wants them; skills need the one that runs code.

    Raises:
        ProviderError: Anthropic has no such tool.
    """
    wanted = list(expert.provider_tools)
    if expert.provider_skills and not any(tool.name == CODE_EXECUTION for tool in wanted):
        wanted.append(ProviderTool(name=CODE_EXECUTION))
    return [_tool(tool) for tool in wanted]


def _tool(tool: ProviderTool) -> Json:
    known = PROFILE.provider_tools.get(tool.name)
    if known is None:
        raise ProviderError("unsupported", f"{PROFILE.title} has no tool `{tool.name}`.")
    options = {
        _OPTIONS[name]: value for name, value in tool.options.items() if name in known.options and value is not None
    }
    return {**_VERSIONS[tool.name], "name": known.wire_name, **options}


def container(expert: Expert, used: Json | None) -> str | Json | None:
    """Where code runs: with the skills of the expert, and in the same place as before."""
    skills = [_skill(skill) for skill in expert.provider_skills]
    container_id: str | None = used["id"] if used else None
    if not skills:
        return container_id
    return {"id": container_id, "skills": skills} if container_id else {"skills": skills}


def _skill(skill: ProviderSkill) -> Json:
    if skill.type == "builtin":
        return {"type": "anthropic", "skill_id": skill.skill_id, "version": "latest"}
    definition = skill.definition
    skill_id = definition.get("skill_id") or definition.get("skillId") or skill.name
    return {"type": "custom", "skill_id": skill_id, "version": str(definition.get("version") or "latest")}


class Placed(NamedTuple):
    """A block and how many blocks other than thinking stand before it."""

    at: int
    block: Json


class Cited(NamedTuple):
    """The citations of a text, by its place among the texts of the answer."""

    text: int
    citations: list[Json]


def tool_parts(
    blocks: Sequence[Placed], *, shown_only: Iterable[Json], cited: Sequence[Cited], used: Json | None
) -> list[ProviderToolPart]:
    """What Anthropic's tools did: a call and its result are one part.

    The first part keeps for all of them what a later request repeats beside the blocks: the citations of the texts,
    and the container. `shown_only` are calls that will never have a result, which the API refuses in a later turn.
    """
    shared: Json = {}
    if cited:
        shared["citations"] = [list(one) for one in cited]
    if used:
        shared["container"] = used
    parts: list[ProviderToolPart] = []
    for group in _grouped(blocks):
        replay = sealed(API, {"blocks": [list(one) for one in group], **({} if parts else shared)})
        parts.append(_part([one.block for one in group], replay))
    return [*parts, *(_part([block], None) for block in shown_only)]


def _grouped(blocks: Sequence[Placed]) -> Iterable[list[Placed]]:
    groups: dict[str, list[Placed]] = {}
    for number, placed in enumerate(blocks):
        block = placed.block
        key = block.get("id") or block.get("tool_use_id") or f"{block['type']} {number}"
        groups.setdefault(key, []).append(placed)
    return groups.values()


def _part(blocks: Sequence[Json], replay: str | None) -> ProviderToolPart:
    name = ""
    args: Json = {}
    contents: list[ResultPart] = []
    sources: list[Source] = []
    # Without a result it never ran.
    is_failed = replay is None
    for block in blocks:
        if block["type"] == CALL:
            name, args = block["name"], block["input"]
        elif block["type"] == UPLOAD:
            name = name or "code_execution"
            contents.append(_file(block))
        else:
            name = name or block["type"].removesuffix(RESULT_SUFFIX)
            found = _Result(block["content"])
            contents += found.contents
            sources += found.sources
            is_failed = is_failed or found.is_failed
    return ProviderToolPart(
        tool_name=_TOOLS.get(name, name),
        args=args,
        contents=tuple(contents),
        sources=tuple(sources),
        is_error=True if is_failed else None,
        replay=replay,
    )


def _file(block: Json) -> TextPart:
    return TextPart(text=f"File {block.get('file_id')}")


class _Result:
    """What one result block says, as far as people can read it."""

    def __init__(self, content: Json | list[Json]) -> None:
        self.contents: list[ResultPart] = []
        self.sources: list[Source] = []
        self.is_failed = False
        if isinstance(content, list):
            self.sources = [_source(one) for one in content]
        else:
            self._read(content)

    def _read(self, content: Json) -> None:
        kind: str = content.get("type", "")
        if kind.endswith("_error"):
            self.is_failed = True
            self._say(content.get("error_message") or content.get("error_code"))
        elif kind == "web_fetch_result":
            document: Json = content.get("content") or {}
            self.sources.append(Source(url=content.get("url"), title=document.get("title")))
            source: Json = document.get("source") or {}
            if source.get("type") == "text":
                self._say(source.get("data"))
        elif kind == "text_editor_code_execution_view_result":
            self._say(content.get("content"))
        elif kind == "text_editor_code_execution_str_replace_result":
            self._say("\n".join(content.get("lines") or ()))
        else:
            self._say(content.get("stdout"))
            self._say(content.get("stderr"))
            self.is_failed = bool(content.get("return_code"))
            outputs: list[Json] = content.get("content") or []
            self.contents += [_file(output) for output in outputs]

    def _say(self, text: str | None) -> None:
        if text and text.strip():
            shown = text if len(text) <= MAX_SHOWN_TEXT else f"{text[:MAX_SHOWN_TEXT]}…"
            self.contents.append(TextPart(text=shown))


def _source(found: Json) -> Source:
    return Source(url=found.get("url"), title=found.get("title"))


def cited_sources(citations: Iterable[Json]) -> tuple[Source, ...] | None:
    """The sources of a text, each once."""
    found = dict.fromkeys(
        (citation.get("url") or citation.get("source"), citation.get("title") or citation.get("document_title"))
        for citation in citations
    )
    return tuple(Source(url=url, title=title) for url, title in found) or None


def replayable(citations: Iterable[Json]) -> list[Json]:
    """The citations that a request may repeat: those that are keyed to a search; others point into documents."""
    return [citation for citation in citations if citation.get("type") == "web_search_result_location"]


class Replay:
    """The blocks of one answer that its parts have kept."""

    def __init__(self, parts: Iterable[ProviderToolPart]) -> None:
        self.blocks: list[Placed] = []
        self.citations: dict[int, list[Json]] = {}
        for part in parts:
            kept: Mapping[str, Any] = unsealed(API, part.replay) or {}
            self.blocks += [Placed(at, block) for at, block in kept.get("blocks", ())]
            self.citations.update({text: citations for text, citations in kept.get("citations", ())})
        self.blocks.sort(key=lambda placed: placed.at)


def used_container(part: ProviderToolPart) -> Json | None:
    """The container a part has kept."""
    # Replays are long; most have none.
    if not part.replay or '"container":' not in part.replay:
        return None
    return (unsealed(API, part.replay) or {}).get("container")
