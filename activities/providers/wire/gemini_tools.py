"""What the tools that Google runs itself leave in an answer: parts of their own, and metadata about sources."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ....core.messages import (
    FileInlinePart,
    ImageInlinePart,
    ProviderToolPart,
    ResultPart,
    Source,
    TextPart,
)
from .gemini_layout import replay
from .parts import Json, json_bytes

_BY_TOOL_TYPE: Mapping[str, str] = MappingProxyType(
    {
        "GOOGLE_SEARCH_WEB": "googleSearch",
        "GOOGLE_SEARCH_IMAGE": "googleSearch",
        "URL_CONTEXT": "urlContext",
        "GOOGLE_MAPS": "googleMaps",
        "FILE_SEARCH": "fileSearch",
    }
)
_WEB = ("googleSearch", "enterpriseWebSearch", "urlContext")
_IMAGE = "imageGeneration"
_OWN = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse", "inlineData")
_MARKUP = frozenset({"searchSuggestions", "search_suggestions", "searchEntryPoint"})
"""What a search page would show; nothing for a model or a person to read."""


class _Use:
    """One use of a tool as far as it has come in."""

    def __init__(self, tool_name: str, args: Json, call_id: str = "") -> None:
        self.tool_name = tool_name
        self.args = args
        self.call_id = call_id
        self.own: list[Json] = []
        self.places: dict[int, int] = {}
        self.contents: list[ResultPart] = []
        self.sources: list[Source] = []
        self.is_answered = False
        self.is_error = False


class Tools:
    """The uses of provider tools in one answer, in the order they began."""

    def __init__(self, asked_for: Sequence[str]) -> None:
        self._asked_for = asked_for
        self._uses: list[_Use] = []

    def take(self, part: Json) -> str | None:
        """Keep a part if it is a tool's, and tell its name in the layout; `None` for all others."""
        kind = next((kind for kind in _OWN if kind in part), None)
        if kind is None or part.get("thought") is True:
            return None
        use = self._use_of(kind, part[kind])
        if kind == "inlineData":
            use.places[len(use.own)] = len(use.contents)
        use.own.append(part)
        _fill(use, kind, part[kind])
        return f"p{self._uses.index(use)}.{len(use.own) - 1}"

    def look_up(self, metadata: Json) -> None:
        """Add what the metadata of the whole answer says about searches and pages."""
        grounding: Json = metadata.get("groundingMetadata") or {}
        queries: list[str] = [
            query
            for name in ("webSearchQueries", "imageSearchQueries", "retrievalQueries")
            for query in grounding.get(name) or ()
        ]
        found: dict[str, list[Source]] = {}
        for kind, source in _chunks(grounding):
            found.setdefault(self._name_of(kind), []).append(source)
        if queries and not found:
            found[self._name_of("web")] = []
        for tool_name, sources in found.items():
            use = self._latest(tool_name, {"queries": queries} if queries else {})
            use.sources = list(dict.fromkeys((*use.sources, *sources)))
        url_context: Json = metadata.get("urlContextMetadata") or {}
        pages: list[Json] = url_context.get("urlMetadata") or []
        if pages:
            _read(self._latest("urlContext", {"urls": [page.get("retrievedUrl") for page in pages]}), pages)

    def parts(self) -> tuple[ProviderToolPart, ...]:
        """The uses as parts of our message."""
        return tuple(
            ProviderToolPart(
                tool_name=use.tool_name,
                args=use.args,
                contents=tuple(use.contents),
                sources=tuple(use.sources),
                is_error=True if use.is_error else None,
                replay=replay(use.own, use.places),
            )
            for use in self._uses
        )

    def _use_of(self, kind: str, value: Json) -> _Use:
        """The use a part belongs to: a result follows its call, a picture the code that drew it."""
        match kind:
            case "executableCode":
                args = {"code": value.get("code", ""), "language": str(value.get("language", "")).lower()}
                return self._begin("codeExecution", args, value.get("id") or "")
            case "toolCall":
                return self._begin(_tool_name(value), value.get("args") or {}, value.get("id") or "")
            case "inlineData":
                last = self._uses[-1] if self._uses else None
                is_drawn = last is not None and last.tool_name == "codeExecution"
                return last if last is not None and is_drawn else self._begin(_IMAGE, {})
            case _:
                tool_name = "codeExecution" if kind == "codeExecutionResult" else _tool_name(value)
                call_id = value.get("id") or ""
                for use in self._uses:
                    if use.tool_name == tool_name and not use.is_answered and use.call_id in ("", call_id):
                        return use
                return self._begin(tool_name, {}, call_id)

    def _begin(self, tool_name: str, args: Json, call_id: str = "") -> _Use:
        use = _Use(tool_name, args, call_id)
        self._uses.append(use)
        return use

    def _latest(self, tool_name: str, args: Json) -> _Use:
        for use in reversed(self._uses):
            if use.tool_name == tool_name:
                return use
        return self._begin(tool_name, args)

    def _name_of(self, kind: str) -> str:
        if kind != "web":
            return kind
        return next((name for name in _WEB if name in self._asked_for), _WEB[0])


def _tool_name(value: Json) -> str:
    kind: str = value.get("toolType") or ""
    return _BY_TOOL_TYPE.get(kind) or kind.lower() or "unknown"


def _fill(use: _Use, kind: str, value: Json) -> None:
    match kind:
        case "codeExecutionResult":
            use.is_answered = True
            use.is_error = value.get("outcome") not in ("OUTCOME_OK", None)
            if output := value.get("output"):
                use.contents.append(TextPart(text=output))
        case "toolResponse":
            use.is_answered = True
            response: Json = value.get("response") or {}
            if said := {name: item for name, item in response.items() if name not in _MARKUP}:
                use.contents.append(TextPart(text=json_bytes(said).decode()))
        case "inlineData":
            mime_type: str = value.get("mimeType") or "application/octet-stream"
            make = ImageInlinePart if mime_type.startswith("image/") else FileInlinePart
            use.contents.append(make(encoded_data=value.get("data") or "", mime_type=mime_type))
        case _:
            pass


def _read(use: _Use, pages: Sequence[Json]) -> None:
    """What became of the pages that the model looked into."""
    failed = 0
    for page in pages:
        url, status = page.get("retrievedUrl"), str(page.get("urlRetrievalStatus", ""))
        if status.endswith("SUCCESS"):
            if not any(source.url == url for source in use.sources):
                use.sources.append(Source(url=url))
        else:
            failed += 1
            use.contents.append(TextPart(text=f"{url}: {status.removeprefix('URL_RETRIEVAL_STATUS_').lower()}"))
    use.is_error = use.is_error or failed == len(pages)


def _chunks(grounding: Json) -> Iterator[tuple[str, Source]]:
    """Which tool found a source, for each chunk of the grounding."""
    for chunk in grounding.get("groundingChunks") or ():
        yield _chunk(chunk)


def _chunk(chunk: Json) -> tuple[str, Source]:
    for field, kind in (("web", "web"), ("image", "web"), ("maps", "googleMaps"), ("retrievedContext", "fileSearch")):
        if field in chunk:
            page: Json = chunk[field]
            url = page.get("uri") or page.get("sourceUri")
            return kind, Source(url=url, title=page.get("title") or page.get("documentName"))
    return "web", Source()


def merged_metadata(known: Json, candidate: Json) -> Json:
    """The metadata of an answer so far; a later chunk replaces what it says again."""
    merged = dict(known)
    for name in ("groundingMetadata", "urlContextMetadata", "citationMetadata"):
        if candidate.get(name):
            merged[name] = {**known.get(name, {}), **candidate[name]}
    return merged


def cited(texts: Sequence[TextPart], metadata: Json) -> list[TextPart]:
    """`texts`, each with the sources it rests on."""
    sources: list[list[Source]] = [[] for _ in texts]
    for said, found in _citations(metadata):
        if texts:
            place = next((index for index, text in enumerate(texts) if said and said in text.text), len(texts) - 1)
            sources[place] = list(dict.fromkeys((*sources[place], *found)))
    return [
        text.model_copy(update={"sources": tuple(found)}) if found else text
        for text, found in zip(texts, sources, strict=True)
    ]


def _citations(metadata: Json) -> Iterator[tuple[str, list[Source]]]:
    """What was said, and where it comes from."""
    grounding: Json = metadata.get("groundingMetadata") or {}
    chunks: list[Json] = grounding.get("groundingChunks") or []
    for support in grounding.get("groundingSupports") or ():
        indices: list[int] = support.get("groundingChunkIndices") or []
        found = [_chunk(chunks[index])[1] for index in indices if 0 <= index < len(chunks)]
        segment: Json = support.get("segment") or {}
        yield segment.get("text") or "", found
    citations: dict[str, Any] = metadata.get("citationMetadata") or {}
    # The Gemini API and Vertex AI call the same list differently.
    for citation in citations.get("citationSources") or citations.get("citations") or ():
        if citation.get("uri") or citation.get("title"):
            yield "", [Source(url=citation.get("uri"), title=citation.get("title"))]
