"""What every provider has to prove, through its real SDK against a server that speaks its protocol."""

import asyncio
import base64
import itertools
import socket
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, cast

import pytest
from perstack.activities.providers.base import INVALID_JSON_ARGUMENT, Provider, WireCache
from perstack.activities.providers.failures import ProviderError
from perstack.activities.providers.registry import ProviderRegistry, require_credentials
from perstack.core.expert import ProviderTool, ReasoningBudget
from perstack.core.failures import CredentialError
from perstack.core.messages import (
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    Message,
    ProviderToolPart,
    Source,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserPart,
)
from perstack.core.profiles.provider import Api, Media
from perstack.core.run import Generation
from perstack.core.usage import Usage
from support.certificates import untrusted
from support.model_requests import Heard, instruction, request, result, results, said, steps, tool, user
from support.model_server import Answer, Call, Json, ModelServer, Script
from support.provider_rows import KEY, Subject, as_sent, for_providers, require_golden

PNG = base64.b64encode(b"\x89PNG").decode()
PDF = base64.b64encode(b"%PDF-1.7").decode()
CSV = base64.b64encode(b"a,b\n").decode()
LOOK = tool("look").model_copy(
    update={"input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}}
)
DONE = tool("attemptCompletion")
HELLO = Answer(text="hello")


def always(answer: Answer) -> Script:
    return lambda _: answer


@asynccontextmanager
async def talking(
    subject: Subject,
    server: ModelServer,
    folder: Path,
    *,
    setting: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> AsyncGenerator[Provider]:
    """The provider as a worker makes it, talking to `server`."""
    registry = ProviderRegistry()
    variables = {**subject.env_for(server.url, folder), **(env or {})}
    try:
        yield registry.provider(subject.name, env=variables, setting=dict(setting or subject.setting))
    finally:
        await registry.close()


def ask(subject: Subject, messages: list[Message] | None = None, **fields: Any) -> Any:
    """A request to the provider under test."""
    fields.setdefault("model", subject.model)
    return request(messages, provider=subject.name, **fields)


async def answered(
    subject: Subject, folder: Path, answer: Answer | Script = HELLO, *, heard: Heard | None = None, **fields: Any
) -> tuple[Generation, ModelServer]:
    """One whole answer and the server that gave it."""
    async with ModelServer(always(answer) if isinstance(answer, Answer) else answer) as server:
        async with talking(subject, server, folder) as provider:
            generation = await provider.generate(ask(subject, **fields), heard or Heard())
        return generation, server


async def failed(
    subject: Subject, folder: Path, answer: Answer, *, heard: Heard | None = None, **fields: Any
) -> ProviderError:
    """What a call raises."""
    async with ModelServer(always(answer)) as server, talking(subject, server, folder) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.generate(ask(subject, **fields), heard or Heard())
        # An SDK that repeats on its own would do so within the call.
        assert len(server.requests) <= 1
    return caught.value


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# Configuration


@for_providers("config.env")
async def test_credentials_and_address_come_from_variables(subject: Subject, tmp_path: Path) -> None:
    require_credentials(subject.name, subject.env_for("http://127.0.0.1:1", tmp_path), {})
    generation, server = await answered(subject, tmp_path)
    assert generation.contents == (TextPart(text="hello"),)
    assert generation.finish_reason == "stop"
    if subject.profile.required_env:
        assert KEY in str(server.requests[-1].headers)


@for_providers("config.missing")
def test_what_is_missing_is_named_before_anything_starts(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    needed = (*subject.profile.required_env, *(("AZURE_RESOURCE_NAME",) if subject.name == "azure-openai" else ()))
    if subject.name == "amazon-bedrock":
        needed = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    if subject.name == "google-vertex":
        needed = ("GOOGLE_APPLICATION_CREDENTIALS",)
    assert needed
    full = {"HOME": str(tmp_path), **subject.env_for("http://127.0.0.1:1", tmp_path), "AZURE_RESOURCE_NAME": "mine"}
    full.pop("AZURE_BASE_URL", None)
    require_credentials(subject.name, full, {})
    for name in needed:
        for env in ({key: value for key, value in full.items() if key != name}, {**full, name: "  "}):
            with pytest.raises(CredentialError, match=name) as caught:
                require_credentials(subject.name, env, {})
            assert KEY not in f"{caught.value.message} {caught.value.hint}"


@for_providers("config.setting")
async def test_the_definition_goes_before_the_variable(subject: Subject, tmp_path: Path) -> None:
    async with ModelServer(always(HELLO)) as server:
        setting = {"baseUrl": subject.address.format(url=server.url)}
        elsewhere = {subject.profile.base_url_env: "http://127.0.0.1:9"}
        async with talking(subject, server, tmp_path, setting=setting, env=elsewhere) as provider:
            generation = await provider.generate(ask(subject), Heard())
    assert generation.contents == (TextPart(text="hello"),)


@for_providers("config.headers")
async def test_headers_of_the_definition_are_sent(subject: Subject, tmp_path: Path) -> None:
    setting = {**subject.setting, "headers": {"x-team": "blue"}}
    async with ModelServer(always(HELLO)) as server, talking(subject, server, tmp_path, setting=setting) as provider:
        await provider.generate(ask(subject), Heard())
    assert server.requests[-1].headers["x-team"] == "blue"


@for_providers("config.proxy")
async def test_everything_goes_through_the_proxy(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with ModelServer(always(HELLO)) as proxy:
        env = {
            subject.profile.base_url_env: subject.address.format(url="http://api.test"),
            "PERSTACK_PROXY_URL": proxy.url,
        }
        async with talking(subject, proxy, tmp_path, env=env) as provider:
            await provider.generate(ask(subject), Heard())
    assert proxy.requests[-1].target.startswith("http://api.test/")


@for_providers("config.client")
async def test_one_client_and_one_connection_serve_many_calls_until_they_are_closed(
    subject: Subject, tmp_path: Path
) -> None:
    async with ModelServer(always(HELLO)) as server:
        env = subject.env_for(server.url, tmp_path)
        registry = ProviderRegistry()
        provider = registry.provider(subject.name, env=env, setting=subject.setting)
        assert registry.provider(subject.name, env={**env, "UNRELATED": "1"}, setting=subject.setting) is provider
        assert (
            registry.provider(subject.name, env={**env, "PERSTACK_PROXY_URL": "http://p.test"}, setting={})
            is not provider
        )
        for _ in range(4):
            await provider.generate(ask(subject), Heard())
        # Vertex fetches its token over a connection of its own.
        assert server.connections <= (2 if subject.name == "google-vertex" else 1)
        await registry.close()
        await until(lambda: not server.open_connections)
    # The one SDK that blocks works in threads of its own.
    assert not [thread.name for thread in threading.enumerate() if "bedrock" in thread.name]


# Requests


@for_providers("request.bytes")
async def test_the_whole_request_is_as_recorded(subject: Subject, tmp_path: Path, is_updating_goldens: bool) -> None:
    _, server = await answered(subject, tmp_path, tools=(LOOK, DONE))
    require_golden(f"{subject.name}/request", as_sent(server.requests[-1]), is_updating=is_updating_goldens)


PARTS: Mapping[Media, UserPart] = {
    "image": ImageInlinePart(encoded_data=PNG, mime_type="image/png"),
    "image-url": ImageUrlPart(url="https://a.test/i.png", mime_type="image/png"),
    "pdf": FileInlinePart(encoded_data=PDF, mime_type="application/pdf"),
    "pdf-url": FileUrlPart(url="https://a.test/f.pdf", mime_type="application/pdf"),
    "text-file": FileInlinePart(encoded_data=CSV, mime_type="text/csv"),
    "text-file-url": FileUrlPart(url="https://a.test/f.csv", mime_type="text/csv"),
}


@for_providers("parts.media")
async def test_every_medium_is_sent_or_refused_by_name(
    subject: Subject, tmp_path: Path, is_updating_goldens: bool
) -> None:
    media = subject.profile.media
    taken: list[UserPart] = [part for medium, part in PARTS.items() if medium in media]
    if "image" in media:
        taken.append(ImageBinaryPart(data="\x89PNG", mime_type="image/jpg"))
    conversation: list[Message] = [instruction(), user("Look:", *taken, "What is it?")]
    _, server = await answered(subject, tmp_path, messages=conversation)
    require_golden(f"{subject.name}/media", server.requests[-1].json, is_updating=is_updating_goldens)
    refused = [part for medium, part in PARTS.items() if medium not in media]
    for part in (*refused, ImageInlinePart(encoded_data=PNG, mime_type="image/bmp")):
        error = await failed(subject, tmp_path, HELLO, messages=[instruction(), user(part)])
        assert (error.code, error.is_retryable) == ("provider.unsupported", False)
        assert f"{subject.profile.title} cannot take the {part.type}" in error.message


@for_providers("parts.results")
async def test_results_are_sent_with_text_images_files_and_errors(
    subject: Subject, tmp_path: Path, is_updating_goldens: bool
) -> None:
    calls = [ToolCallPart(tool_call_id=f"call_{n}", tool_name="look", args={"path": str(n)}) for n in range(5)]
    conversation: list[Message] = [
        instruction(),
        user("Go."),
        said("I look.", *calls),
        results(
            result("call_0", "plain"),
            result("call_1", "two", "texts"),
            result("call_2", "an image", ImageInlinePart(encoded_data=PNG, mime_type="image/png")),
            result("call_3", "not there", is_error=True),
            result("call_4", FileInlinePart(encoded_data=PDF, mime_type="application/pdf")),
        ),
    ]
    _, server = await answered(subject, tmp_path, messages=conversation, tools=(LOOK,))
    sent = server.requests[-1]
    require_golden(f"{subject.name}/results", sent.json, is_updating=is_updating_goldens)
    assert ("cannot show to the model" in sent.body.decode()) == (
        not {"result-image", "result-pdf"} <= subject.profile.media
    )


@for_providers("parts.replay")
async def test_an_answer_goes_back_as_it_came(subject: Subject, tmp_path: Path, is_updating_goldens: bool) -> None:
    answer = Answer(
        thinking="I think.",
        text="I look twice.",
        calls=(Call(name="look", args={"path": "a"}, id="call_a"), Call(name="look", args={"path": "b"}, id="call_b")),
    )
    first, _ = await answered(subject, tmp_path, answer, tools=(LOOK,))
    calls = [part for part in first.contents if isinstance(part, ToolCallPart)]
    conversation: list[Message] = [
        instruction(),
        user("Go."),
        said(*first.contents),
        results(*(result(call.tool_call_id, f"seen {call.args['path']}") for call in calls)),
    ]
    _, server = await answered(subject, tmp_path, messages=conversation, tools=(LOOK,))
    require_golden(f"{subject.name}/replay", server.requests[-1].json, is_updating=is_updating_goldens)


@for_providers("reasoning.budgets")
async def test_every_reasoning_budget_is_sent_in_the_provider_s_terms(
    subject: Subject, tmp_path: Path, is_updating_goldens: bool
) -> None:
    budgets: tuple[ReasoningBudget, ...] = ("none", "minimal", "low", "medium", "high", 0, 3000)
    sent: Json = {}
    async with ModelServer(always(HELLO)) as server, talking(subject, server, tmp_path) as provider:
        for tier, entry in subject.profile.tiers.items():
            for budget in budgets:
                await provider.generate(ask(subject, model=entry.model, reasoning=budget), Heard())
                body = server.requests[-1].json
                for told_elsewhere in ("messages", "input", "contents", "system", "systemInstruction", "instructions"):
                    body.pop(told_elsewhere, None)
                sent[f"{tier} {budget}"] = body
    require_golden(f"{subject.name}/reasoning", sent, is_updating=is_updating_goldens)
    for tier in subject.profile.tiers:
        assert sent[f"{tier} none"] == sent[f"{tier} 0"]
        assert sent[f"{tier} none"] != sent[f"{tier} high"]
    text = str(sent).lower()
    assert not any(word in text for word in ("temperature", "top_p", "topp", "top_k", "topk", "penalty", "seed"))


# Caching


@for_providers("caching.requests")
async def test_a_conversation_only_grows_at_its_end(
    subject: Subject, tmp_path: Path, is_updating_goldens: bool
) -> None:
    cache = WireCache()
    conversation = steps(3)
    async with ModelServer(always(HELLO)) as server, talking(subject, server, tmp_path) as provider:
        for length in (2, 4, 6, 8):
            await provider.generate(ask(subject, conversation[:length], tools=(LOOK,), cache=cache), Heard())
    bodies = [one.json for one in server.requests]
    require_golden(f"{subject.name}/caching", bodies[-1], is_updating=is_updating_goldens)
    key = next(name for name in ("messages", "input", "contents") if name in bodies[0])
    for shorter, longer in itertools.pairwise(bodies):
        plain_short, plain_long = _unmarked(shorter), _unmarked(longer)
        assert plain_long[key][: len(plain_short[key])] == plain_short[key]
        assert {k: v for k, v in plain_long.items() if k != key} == {k: v for k, v in plain_short.items() if k != key}
        assert _marks(longer) <= 4
    if subject.profile.caching in ("breakpoints", "cache points"):
        assert _marks(bodies[-1]) >= 3


def _marks(value: Any) -> int:
    if isinstance(value, dict):
        return sum(
            1 if key in ("cache_control", "cachePoint") else _marks(item) for key, item in cast("Json", value).items()
        )
    return sum(map(_marks, cast("list[Any]", value))) if isinstance(value, list) else 0


def _unmarked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmarked(item) for key, item in cast("Json", value).items() if key != "cache_control"}
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_unmarked(item) for item in items if not (isinstance(item, dict) and "cachePoint" in item)]
    return value


COUNTED: Mapping[Api, Json] = {
    "messages": {
        "input_tokens": 300,
        "cache_read_input_tokens": 600,
        "cache_creation_input_tokens": 100,
        "output_tokens": 200,
        "output_tokens_details": {"thinking_tokens": 50},
    },
    "responses": {
        "input_tokens": 1000,
        "input_tokens_details": {"cached_tokens": 600},
        "output_tokens": 200,
        "output_tokens_details": {"reasoning_tokens": 50},
        "total_tokens": 1200,
    },
    "chat": {
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "total_tokens": 1200,
        "prompt_tokens_details": {"cached_tokens": 600},
        "completion_tokens_details": {"reasoning_tokens": 50},
    },
    "gemini": {
        "promptTokenCount": 900,
        "toolUsePromptTokenCount": 100,
        "cachedContentTokenCount": 600,
        "candidatesTokenCount": 150,
        "thoughtsTokenCount": 50,
        "totalTokenCount": 1200,
    },
    "converse": {
        "inputTokens": 300,
        "cacheReadInputTokens": 600,
        "cacheWriteInputTokens": 100,
        "outputTokens": 200,
        "totalTokens": 1200,
    },
}
"""The same call as each API counts it."""


@for_providers("caching.hits")
async def test_cached_tokens_are_reported(subject: Subject, tmp_path: Path) -> None:
    generation, _ = await answered(subject, tmp_path, Answer(text="hello", usage=COUNTED[subject.profile.api]))
    usage = generation.usage
    assert usage.cached_input_tokens / usage.input_tokens == 0.6


@for_providers("usage")
async def test_tokens_mean_the_same_everywhere(subject: Subject, tmp_path: Path) -> None:
    told: list[Usage] = []
    answer = Answer(text="hello", usage=COUNTED[subject.profile.api])
    generation, _ = await answered(subject, tmp_path, answer, on_usage=told.append)
    reasoning = 0 if subject.profile.api == "converse" else 50
    assert generation.usage == Usage(
        input_tokens=1000, output_tokens=200, reasoning_tokens=reasoning, total_tokens=1200, cached_input_tokens=600
    )
    assert told[-1] == generation.usage


# Answers as they come in


@for_providers("stream.text")
async def test_text_comes_piece_by_piece(subject: Subject, tmp_path: Path) -> None:
    heard = Heard()
    generation, _ = await answered(
        subject, tmp_path, Answer(text="hello world, how are you", delta_size=5), heard=heard
    )
    assert generation.contents == (TextPart(text="hello world, how are you"),)
    assert len(heard.pieces) == 5
    assert heard.all("text") == "hello world, how are you"


@for_providers("stream.reasoning")
async def test_reasoning_comes_piece_by_piece_and_before_the_text(subject: Subject, tmp_path: Path) -> None:
    heard = Heard()
    answer = Answer(thinking="step by step", text="hello", delta_size=4)
    generation, _ = await answered(subject, tmp_path, answer, heard=heard)
    assert heard.all("reasoning") == "step by step"
    assert len([kind for kind, _ in heard.pieces if kind == "reasoning"]) == 3
    assert [kind for kind, _ in heard.pieces] == sorted((kind for kind, _ in heard.pieces))
    thoughts = [part.thinking for part in generation.contents if isinstance(part, ThinkingPart) and part.thinking]
    assert thoughts == ["step by step"]
    assert [part.text for part in generation.contents if isinstance(part, TextPart)] == ["hello"]


@for_providers("stream.calls")
async def test_calls_are_put_together_from_pieces_in_one_answer(subject: Subject, tmp_path: Path) -> None:
    calls = tuple(Call(name="look", args={"path": f"file {n}", "deep": {"list": [n, None, "ü"]}}) for n in range(3))
    generation, _ = await answered(subject, tmp_path, Answer(text="I look.", calls=calls, delta_size=7), tools=(LOOK,))
    found = [part for part in generation.contents if isinstance(part, ToolCallPart)]
    assert [(part.tool_name, part.args) for part in found] == [(call.name, call.args) for call in calls]
    assert len({part.tool_call_id for part in found}) == 3
    assert all(part.tool_call_id for part in found)
    assert generation.finish_reason == "toolCalls"


@for_providers("stream.bad-arguments")
async def test_arguments_that_are_no_json_object_are_kept_for_the_tool_layer(subject: Subject, tmp_path: Path) -> None:
    if subject.profile.api == "gemini":
        pytest.skip("Gemini sends arguments as objects; a malformed call is a finish reason of its own")
    generation, _ = await answered(
        subject, tmp_path, Answer(calls=(Call(name="look", args='{"path": "a'),)), tools=(LOOK,)
    )
    (call,) = [part for part in generation.contents if isinstance(part, ToolCallPart)]
    assert call.args == {INVALID_JSON_ARGUMENT: '{"path": "a'}


OVERLOADED: Mapping[Api, tuple[str, str]] = {
    "messages": ("overloaded_error", ""),
    "responses": ("server_error", "server_error"),
    "chat": ("server_error", "server_error"),
    "gemini": ("UNAVAILABLE", ""),
    "converse": ("serviceUnavailableException", ""),
}


@for_providers("stream.error")
async def test_an_error_inside_a_stream_is_the_provider_s_own(subject: Subject, tmp_path: Path) -> None:
    error_type, code = OVERLOADED[subject.profile.api]
    answer = Answer(
        text="half an answer that ends here",
        delta_size=3,
        after_events=5,
        then="error",
        status=200,
        error_type=error_type,
        error_code=code,
        message="too much going on",
    )
    error = await failed(subject, tmp_path, answer)
    assert (error.code, error.is_retryable) == ("provider.overloaded", True)
    assert "too much going on" in error.message


@for_providers("stream.broken")
@pytest.mark.parametrize("then", ["die", "end"])
async def test_a_stream_that_ends_half_way_is_never_half_an_answer(subject: Subject, tmp_path: Path, then: Any) -> None:
    answer = Answer(text="half an answer that ends here", delta_size=3, after_events=5, then=then)
    heard = Heard()
    error = await failed(subject, tmp_path, answer, heard=heard)
    assert (error.code, error.is_retryable) == ("provider.stream_broken", True)
    assert heard.pieces


@for_providers("stream.silent")
@pytest.mark.parametrize("after_events", [0, 5])
async def test_a_provider_that_falls_silent_is_given_up(subject: Subject, tmp_path: Path, after_events: int) -> None:
    answer = Answer(text="half an answer that ends here", delta_size=3, after_events=after_events, then="hang")
    started = time.monotonic()
    error = await failed(subject, tmp_path, answer, timeout_seconds=0.6)
    assert (error.code, error.is_retryable) == ("provider.overloaded", True)
    assert time.monotonic() - started < 8


@for_providers("stream.cancelled")
async def test_a_cancelled_call_closes_its_connection(subject: Subject, tmp_path: Path) -> None:
    answer = Answer(text="half an answer that ends here", delta_size=3, after_events=6, then="hang")
    async with ModelServer(always(answer)) as server, talking(subject, server, tmp_path) as provider:
        heard = Heard()
        task = asyncio.create_task(provider.generate(ask(subject), heard))
        await until(lambda: heard.pieces)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: server.abandoned)


STOPS: Mapping[Api, tuple[str, str]] = {
    "messages": ("max_tokens", "refusal"),
    "responses": ("max_output_tokens", "content_filter"),
    "chat": ("length", "content_filter"),
    "gemini": ("MAX_TOKENS", "SAFETY"),
    "converse": ("max_tokens", "content_filtered"),
}


@for_providers("stream.length")
async def test_an_answer_cut_by_its_length_says_so(subject: Subject, tmp_path: Path) -> None:
    stop, _ = STOPS[subject.profile.api]
    generation, _ = await answered(subject, tmp_path, Answer(text="and then", stop_reason=stop))
    assert (generation.finish_reason, generation.contents) == ("length", (TextPart(text="and then"),))


@for_providers("stream.refusal")
async def test_a_refused_answer_says_so(subject: Subject, tmp_path: Path) -> None:
    _, stop = STOPS[subject.profile.api]
    generation, _ = await answered(subject, tmp_path, Answer(text="I", stop_reason=stop))
    assert generation.finish_reason == "refusal"


# Tools of the provider

OPTIONS: Mapping[str, Json] = {
    "maxUses": 3,
    "allowedDomains": ["a.test"],
    "vectorStoreIds": ["store_1", "store_2"],
    "maxNumResults": 7,
    "retrievalConfig": {"latLng": {"latitude": 48.1, "longitude": 11.6}},
}  # pyright: ignore[reportAssignmentType]


@for_providers("tools.requests")
async def test_the_provider_s_tools_are_sent_with_their_options(
    subject: Subject, tmp_path: Path, is_updating_goldens: bool
) -> None:
    sent: Json = {}
    async with ModelServer(always(HELLO)) as server, talking(subject, server, tmp_path) as provider:
        for name, known in subject.profile.provider_tools.items():
            own = ProviderTool(name=name, options={option: OPTIONS[option] for option in known.options})
            await provider.generate(ask(subject, provider_tools=(own,), tools=(LOOK,)), Heard())
            sent[name] = as_sent(server.requests[-1])
            assert known.wire_name.replace("_", "") in server.requests[-1].body.decode().replace("_", "").lower()
    require_golden(f"{subject.name}/provider-tools", sent, is_updating=is_updating_goldens)


SEARCHED: Mapping[Api, tuple[Json, ...]] = {
    "messages": (
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "towers"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srvtoolu_1",
            "content": [
                {"type": "web_search_result", "url": "https://a.test/", "title": "A", "encrypted_content": "sealed"}
            ],
        },
        {
            "type": "text",
            "text": "It is tall.",
            "citations": [
                {
                    "type": "web_search_result_location",
                    "url": "https://a.test/",
                    "title": "A",
                    "encrypted_index": "sealed",
                    "cited_text": "tall",
                }
            ],
        },
    ),
    "responses": (
        {
            "type": "web_search_call",
            "id": "ws_1",
            "status": "completed",
            "action": {"type": "search", "query": "towers", "sources": [{"type": "url", "url": "https://a.test/"}]},
        },
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [
                {
                    "type": "output_text",
                    "text": "It is tall.",
                    "annotations": [
                        {
                            "type": "url_citation",
                            "url": "https://a.test/",
                            "title": "A",
                            "start_index": 0,
                            "end_index": 11,
                        }
                    ],
                }
            ],
        },
    ),
    "gemini": (
        {"text": "It is tall."},
        {
            "candidate": {
                "groundingMetadata": {
                    "webSearchQueries": ["towers"],
                    "groundingChunks": [{"web": {"uri": "https://a.test/", "title": "A"}}],
                    "groundingSupports": [{"segment": {"text": "It is tall."}, "groundingChunkIndices": [0]}],
                }
            }
        },
    ),
}
"""A web search and what was said of it, in the words of each API."""


@for_providers("tools.results")
async def test_what_the_provider_s_tools_gave_is_kept_and_repeated(
    subject: Subject, tmp_path: Path, is_updating_goldens: bool
) -> None:
    searches = ("webSearch", "webSearchPreview", "googleSearch")
    own = ProviderTool(name=next(name for name in searches if name in subject.profile.provider_tools))
    answer = Answer(blocks=SEARCHED[subject.profile.api])
    first, _ = await answered(subject, tmp_path, answer, provider_tools=(own,))
    (part,) = [part for part in first.contents if isinstance(part, ProviderToolPart)]
    assert part.tool_name == own.name
    assert "towers" in str(part.args)
    assert "https://a.test/" in [source.url for source in part.sources]
    (text,) = [part for part in first.contents if isinstance(part, TextPart)]
    assert text.text == "It is tall."
    assert text.sources == (Source(url="https://a.test/", title="A"),)
    assert first.finish_reason == "stop"
    conversation: list[Message] = [instruction(), user("Go."), said(*first.contents), user("How tall?")]
    _, server = await answered(subject, tmp_path, messages=conversation, provider_tools=(own,))
    require_golden(f"{subject.name}/searched", server.requests[-1].json, is_updating=is_updating_goldens)


# Errors


@for_providers("errors.statuses")
async def test_each_status_has_one_meaning(subject: Subject, tmp_path: Path) -> None:
    meanings = {
        400: "bad_request",
        401: "auth",
        402: "quota",
        403: "auth",
        404: "not_found",
        408: "overloaded",
        409: "overloaded",
        413: "bad_request",
        422: "bad_request",
        429: "rate_limited",
        500: "overloaded",
        502: "overloaded",
        503: "overloaded",
        504: "overloaded",
        529: "overloaded",
    }
    found: dict[int, tuple[str, bool]] = {}
    for status in meanings:
        error = await failed(
            subject, tmp_path, Answer(status=status, error_type=_type_of(subject, status), message="no")
        )
        assert error.status_code == status
        assert error.message.startswith(subject.profile.title)
        found[status] = (error.kind, error.is_retryable)
    retryable = {"overloaded", "rate_limited"}
    assert found == {status: (kind, kind in retryable) for status, kind in meanings.items()}


def _type_of(subject: Subject, status: int) -> str:
    """Where the API names an error beside its status, the name that goes with it."""
    match subject.profile.api:
        case "messages":
            return {
                401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
                429: "rate_limit_error", 529: "overloaded_error",
            }.get(status, "api_error" if status >= 500 else "invalid_request_error")  # fmt: skip
        case "gemini":
            return {
                401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED",
                429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
            }.get(status, "INVALID_ARGUMENT" if status < 500 else "UNKNOWN")  # fmt: skip
        case "converse":
            return {
                400: "ValidationException", 401: "UnrecognizedClientException", 403: "AccessDeniedException",
                404: "ResourceNotFoundException", 408: "ModelTimeoutException", 429: "ThrottlingException",
                500: "InternalServerException", 503: "ServiceUnavailableException",
            }.get(status, "UnknownException")  # fmt: skip
        case _:
            return ""


WORDS: Mapping[Api, Mapping[str, Answer]] = {
    "messages": {
        "context_overflow": Answer(status=400, message="prompt is too long: 9 tokens > 1 maximum"),
        "quota": Answer(status=400, message="Your credit balance is too low to access the API."),
        "content_refused": Answer(status=400, message="Output blocked by content filtering policy"),
    },
    "responses": {
        "context_overflow": Answer(status=400, error_code="context_length_exceeded", message="Too many tokens."),
        "quota": Answer(status=429, error_type="insufficient_quota", error_code="insufficient_quota", message="No."),
        "content_refused": Answer(status=400, error_code="content_filter", message="The prompt was filtered."),
    },
    "chat": {
        "context_overflow": Answer(status=400, error_code="context_length_exceeded", message="Too many tokens."),
        "quota": Answer(status=402, message="Insufficient Balance"),
        "content_refused": Answer(status=400, error_code="content_filter", message="The prompt was filtered."),
    },
    "gemini": {
        "context_overflow": Answer(
            status=400,
            error_type="INVALID_ARGUMENT",
            message="The input token count (9) exceeds the maximum number of tokens allowed (1).",
        ),
        "quota": Answer(
            status=429,
            error_type="RESOURCE_EXHAUSTED",
            raw_body='{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You exceeded your quota.",'
            ' "details": [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId":'
            ' "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}}',
        ),
        "content_refused": Answer(
            raw_body='data: {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}}\r\n\r\n',
            content_type="text/event-stream",
        ),
    },
    "converse": {
        "context_overflow": Answer(
            status=400, error_type="ValidationException", message="Input is too long for requested model."
        ),
        "quota": Answer(status=400, error_type="ServiceQuotaExceededException", message="You exceeded your quota."),
    },
}
"""Errors that only their words or codes tell apart; Bedrock refuses content by a stop reason only."""


@for_providers("errors.words")
async def test_overflow_quota_and_refusal_are_told_apart(subject: Subject, tmp_path: Path) -> None:
    for kind, answer in WORDS[subject.profile.api].items():
        error = await failed(subject, tmp_path, answer)
        assert (error.kind, error.is_retryable) == (kind, False)


@for_providers("errors.retry-after")
async def test_the_wished_pause_is_read_in_every_form(subject: Subject, tmp_path: Path) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    wishes: tuple[tuple[dict[str, str], float], ...] = (
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": date}, 40),
        ({"retry-after": "86400"}, 300),
    )
    error_type = _type_of(subject, 429)
    for headers, seconds in wishes:
        answer = Answer(status=429, headers=headers, error_type=error_type, message="slow down")
        error = await failed(subject, tmp_path, answer)
        assert error.retry_after_seconds == pytest.approx(seconds, abs=5 if seconds == 40 else 0.01)
    error = await failed(subject, tmp_path, Answer(status=429, error_type=error_type, message="slow down"))
    assert error.retry_after_seconds is None


@for_providers("errors.connection")
async def test_a_connection_that_fails_says_how(subject: Subject, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = await _failed_at(subject, tmp_path, closed)
    assert (error.kind, error.is_retryable) == ("overloaded", True)
    assert "127.0.0.1" in error.message
    reset = await failed(subject, tmp_path, Answer(text="x", after_events=0, then="die"))
    assert reset.is_retryable
    async with ModelServer(always(HELLO), tls=untrusted(tmp_path)) as server:
        error = await _failed_at(subject, tmp_path, server.url)
    assert (error.kind, error.is_retryable) == ("tls", False)


async def _failed_at(subject: Subject, folder: Path, url: str) -> ProviderError:
    async with ModelServer(always(HELLO)) as tokens:
        env = {**subject.env_for(tokens.url, folder), subject.profile.base_url_env: subject.address.format(url=url)}
        registry = ProviderRegistry()
        provider = registry.provider(subject.name, env=env, setting=subject.setting)
        with pytest.raises(ProviderError) as caught:
            await provider.generate(ask(subject), Heard())
        await registry.close()
    return caught.value


@for_providers("errors.once")
async def test_the_sdk_repeats_nothing(subject: Subject, tmp_path: Path) -> None:
    async with ModelServer(always(Answer(status=503, error_type=_type_of(subject, 503)))) as server:
        async with talking(subject, server, tmp_path) as provider:
            with pytest.raises(ProviderError):
                await provider.generate(ask(subject), Heard())
        assert len(server.requests) == 1


@for_providers("errors.secrets")
async def test_no_message_quotes_a_credential(subject: Subject, tmp_path: Path) -> None:
    error = await failed(
        subject, tmp_path, Answer(status=401, error_type=_type_of(subject, 401), message=f"bad key {KEY} given")
    )
    assert error.kind == "auth"
    assert KEY not in f"{error.message} {error.hint} {error.details} {error.failure}"
    assert subject.profile.required_env[0] in (error.hint or "")
