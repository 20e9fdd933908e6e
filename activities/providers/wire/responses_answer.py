"""Answers of the Responses API: the events of one stream folded into a generation."""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from ....core.messages import ExpertPart, ProviderToolPart, Source, TextPart, ThinkingPart, ToolCallPart
from ....core.profiles.provider import ProviderProfile
from ....core.run import FinishReason, Generation
from ....core.tools import sorted_calls
from ....core.usage import NO_USAGE, Usage
from ..base import ModelRequest
from ..failures import ProviderError
from ..openai_sdk import stream_error
from .parts import Json, arguments, sealed
from .responses_items import API, SUMMARY_BREAK, TOOL_ITEMS, emptied

_INCOMPLETE: Mapping[str, FinishReason] = MappingProxyType({"max_output_tokens": "length", "content_filter": "refusal"})
_ASKS_FOR_WORK = ("_call", "_approval_request")
Piece = tuple[Literal["text", "reasoning", ""], str]
"""What an event adds to the text or the reasoning, if it adds anything."""
NOTHING: Piece = ("", "")


class Answer:
    """One answer as it comes in.

    `usage` is known only when the answer is complete, or has failed: the API counts it then, `input_tokens` with the
    cached ones and `output_tokens` with the reasoning.
    """

    def __init__(
        self,
        profile: ProviderProfile,
        request: ModelRequest,
        tool_names: Mapping[str, str],
        *,
        secrets: Sequence[str] = (),
    ) -> None:
        self._profile = profile
        self._tools = request.tools
        self._own_tools = {
            profile.provider_tools[tool.name].wire_name: tool.name for tool in request.expert.provider_tools
        }
        self._tool_names = tool_names
        self._secrets = secrets
        self._items: dict[int, Json] = {}
        self._is_done: set[int] = set()
        self._response: Json = {}
        self.usage = NO_USAGE
        self.is_complete = False

    def take(self, event: Json) -> Piece:
        """Fold one event in; kinds of events that are not known are passed over.

        Raises:
            ProviderError: the provider tells of a failure, or the answer holds an item that cannot be kept.
        """
        match event["type"]:
            case "response.output_text.delta" | "response.refusal.delta":
                return "text", event["delta"]
            case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                return "reasoning", event["delta"]
            case "response.reasoning_summary_part.added" if event["summary_index"]:
                return "reasoning", SUMMARY_BREAK
            case "response.output_item.added":
                self._keep(event["output_index"], event["item"])
            case "response.output_item.done":
                self._keep(event["output_index"], event["item"])
                self._is_done.add(event["output_index"])
            case "response.created" | "response.in_progress":
                self._response = event["response"]
            case "response.completed" | "response.incomplete":
                self._finish(event["response"])
            case "response.failed":
                self._finish(event["response"])
                raise stream_error(self._profile, event["response"].get("error") or {}, secrets=self._secrets)
            case "error":
                # The reference has the fields in the event itself, gateways send them as an object of their own.
                raise stream_error(self._profile, event.get("error") or event, secrets=self._secrets)
            case _:
                pass
        return NOTHING

    def generation(self) -> Generation:
        """The finished answer."""
        parts = _Parts(self._own_tools, self._tool_names)
        for _, item in sorted(self._items.items()):
            parts.add(item)
        calls = sorted_calls(tuple(parts.calls), self._tools)
        contents: tuple[ExpertPart, ...] = (*parts.with_order(calls), *parts.texts, *calls)
        return Generation(
            contents=contents,
            usage=self.usage,
            finish_reason=self._finish_reason(parts),
            model=self._response.get("model"),
        )

    def _keep(self, index: int, item: Json) -> None:
        kind: str = item["type"]
        if kind not in TOOL_ITEMS and kind != "function_call" and kind.endswith(_ASKS_FOR_WORK):
            message = f"{self._profile.title} answered with a `{kind}` item nobody asked for."
            raise ProviderError("unsupported", message)
        self._items[index] = item

    def _finish(self, response: Json) -> None:
        self._response = response
        self._take_usage(response.get("usage") or {})
        output: list[Json] = response.get("output") or []
        for index, item in enumerate(output):
            # What broke off has no event that says it is done.
            if index not in self._is_done:
                self._keep(index, item)
        self.is_complete = True

    def _take_usage(self, reported: Json) -> None:
        input_tokens, output_tokens = reported.get("input_tokens") or 0, reported.get("output_tokens") or 0
        input_details: Json = reported.get("input_tokens_details") or {}
        output_details: Json = reported.get("output_tokens_details") or {}
        self.usage = Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            reasoning_tokens=output_details.get("reasoning_tokens") or 0,
            total_tokens=input_tokens + output_tokens,
            cached_input_tokens=input_details.get("cached_tokens") or 0,
        )

    def _finish_reason(self, parts: "_Parts") -> FinishReason:
        if self._response.get("status") == "incomplete":
            details: Json = self._response.get("incomplete_details") or {}
            return _INCOMPLETE.get(details.get("reason") or "", "other")
        if parts.is_refused:
            return "refusal"
        return "toolCalls" if parts.calls else "stop"


class _Parts:
    """The items of an answer as parts, and the order they came in."""

    def __init__(self, own_tools: Mapping[str, str], tool_names: Mapping[str, str]) -> None:
        self._own_tools = own_tools
        self._tool_names = tool_names
        self._order: list[Any] = []
        self._thoughts: list[tuple[str, Json | None]] = []
        self._tool_parts: list[tuple[ProviderToolPart, Json]] = []
        self.texts: list[TextPart] = []
        self.calls: list[ToolCallPart] = []
        self.is_refused = False

    def add(self, item: Json) -> None:
        """Take one item; kinds that are not known say nothing."""
        match item["type"]:
            case "reasoning":
                self._add_reasoning(item)
            case "message":
                texts = list(self._message(item))
                if texts:
                    self.texts += texts
                    self._order.append(["text", len(texts), item.get("phase")])
            case "function_call":
                name: str = item["name"]
                call = ToolCallPart(
                    tool_call_id=item["call_id"],
                    tool_name=self._tool_names.get(name, name),
                    args=arguments(item.get("arguments") or ""),
                )
                self.calls.append(call)
                self._order.append(["call", call.tool_call_id])
            case kind if kind in TOOL_ITEMS:
                self._order.append("tool")
                self._tool_parts.append(_tool_part(item, self._own_tools))
            case _:
                pass

    def with_order(self, calls: Sequence[ToolCallPart]) -> list[ThinkingPart | ProviderToolPart]:
        """Thinking and the provider's tools, sealed; the first one remembers the order if no one could guess it."""
        seals = [seal for _, seal in self._thoughts]
        replays: list[Json] = [{"item": item} for _, item in self._tool_parts]
        thoughts = list(self._thoughts)
        if not self._is_plain(calls):
            if seals:
                seals[0] = {**(seals[0] or {}), "order": self._order}
            elif replays:
                replays[0]["order"] = self._order
            elif any(entry[0] == "text" and entry[2] for entry in self._order):
                thoughts, seals = [("", None)], [{"order": self._order}]
        return [
            *(
                ThinkingPart(thinking=text, signature=sealed(API, seal) if seal else None)
                for (text, _), seal in zip(thoughts, seals, strict=True)
            ),
            *(
                part.model_copy(update={"replay": sealed(API, replay)})
                for (part, _), replay in zip(self._tool_parts, replays, strict=True)
            ),
        ]

    def _is_plain(self, calls: Sequence[ToolCallPart]) -> bool:
        """Whether the items came as our parts are ordered, so that nothing has to be remembered."""
        plain: list[Any] = [*("reasoning" for _ in self._thoughts), *("tool" for _ in self._tool_parts)]
        if self.texts:
            plain.append(["text", len(self.texts), None])
        return self._order == [*plain, *(["call", call.tool_call_id] for call in calls)]

    def _add_reasoning(self, item: Json) -> None:
        summaries = [entry["text"] for entry in item.get("summary") or ()]
        thinking = SUMMARY_BREAK.join(summaries) or "".join(entry["text"] for entry in item.get("content") or ())
        seal = None
        if encrypted := item.get("encrypted_content"):
            seal = {"id": item["id"], "encrypted_content": encrypted, "summary": [len(text) for text in summaries]}
        if thinking or seal:
            self._thoughts.append((thinking, seal))
            self._order.append("reasoning")

    def _message(self, item: Json) -> Iterator[TextPart]:
        for content in item.get("content") or ():
            match content["type"]:
                case "output_text" if content["text"].strip():
                    yield TextPart(text=content["text"], sources=_cited(content.get("annotations") or ()) or None)
                case "refusal":
                    self.is_refused = True
                    if content["refusal"].strip():
                        yield TextPart(text=content["refusal"])
                case _:
                    pass


def _cited(annotations: Sequence[Json]) -> tuple[Source, ...]:
    """What a text cites, each page or file once."""
    sources: list[Source] = []
    for annotation in annotations:
        match annotation["type"]:
            case "url_citation":
                sources.append(Source(url=annotation["url"], title=annotation.get("title") or None))
            case "file_citation" | "container_file_citation":
                sources.append(Source(title=annotation.get("filename") or annotation["file_id"]))
            case _:
                pass
    return tuple(dict.fromkeys(sources))


def _tool_part(item: Json, own_tools: Mapping[str, str]) -> tuple[ProviderToolPart, Json]:
    """A tool that the provider ran, and its item as it is to be repeated."""
    wire_names = TOOL_ITEMS[item["type"]]
    left, contents = emptied(item)
    error: Json = item.get("error") or {}
    part = ProviderToolPart(
        tool_name=next((own_tools[name] for name in wire_names if name in own_tools), wire_names[0]),
        args=_asked(item),
        contents=(*contents, *([TextPart(text=error["message"])] if error.get("message") else [])),
        sources=_looked_into(item),
        is_error=True if item.get("status") == "failed" or error else None,
    )
    return part, left


def _asked(item: Json) -> Json:
    match item["type"]:
        case "web_search_call":
            action: Json = item.get("action") or {}
            return {key: value for key, value in action.items() if key != "sources" and value is not None}
        case "file_search_call":
            return {"queries": item.get("queries") or []}
        case "code_interpreter_call":
            return {"code": item.get("code") or ""}
        case _:
            prompt = item.get("revised_prompt")
            return {"prompt": prompt} if prompt else {}


def _looked_into(item: Json) -> tuple[Source, ...]:
    """The pages and files that a tool looked into, each once."""
    action: Json = item.get("action") or {}
    urls = [entry.get("url") for entry in action.get("sources") or ()] or [action.get("url")]
    files = [entry.get("filename") for entry in item.get("results") or ()]
    sources = [*(Source(url=url) for url in urls if url), *(Source(title=name) for name in files if name)]
    return tuple(dict.fromkeys(sources))
