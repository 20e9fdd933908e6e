import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI, AsyncStream
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from perstack.activities.providers.base import INVALID_JSON_ARGUMENT, WireCache
from perstack.activities.providers.failures import ProviderError
from perstack.activities.providers.registry import ProviderRegistry
from perstack.core.expert import ProviderTool
from perstack.core.failures import CredentialError
from perstack.core.messages import (
    ExpertPart,
    FileBinaryPart,
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
from perstack.core.profiles.gpt import gpt_efforts
from perstack.core.run import FinishReason, Generation
from perstack.core.tools import ToolSpec
from perstack.core.usage import Usage
from pydantic import TypeAdapter
from support.model_requests import (
    API_KEY,
    Heard,
    azure,
    call,
    instruction,
    openai,
    request,
    result,
    results,
    said,
    steps,
    tool,
    user,
)
from support.model_server import Answer, Call, Json, ModelServer, Request, Script

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
MODEL = "gpt-6.1-sol"
PNG = base64.b64encode(b"\x89PNG").decode()
PDF = base64.b64encode(b"%PDF").decode()
TEXT = base64.b64encode("Grüße".encode()).decode()
SEARCH = ProviderTool(name="webSearch", options={"allowedDomains": ["docs.python.org"]})
FILES = ProviderTool(name="fileSearch", options={"vectorStoreIds": ["vs_1"], "maxNumResults": 3})
CODE = ProviderTool(name="codeInterpreter")
IMAGES = ProviderTool(name="imageGeneration")


def hello(_: Request) -> Answer:
    return Answer(text="hello")


def always(answer: Answer) -> Script:
    return lambda _: answer


async def ask(
    answer: Answer | Callable[[Request], Answer] = hello, *, heard: Heard | None = None, **fields: Any
) -> tuple[Generation, Request]:
    """One call to a server that gives `answer`, and what it was sent."""
    async with ModelServer(always(answer) if isinstance(answer, Answer) else answer) as server:
        provider = openai(server)
        try:
            given: Json = {"provider": "openai", "model": MODEL, **fields}
            generation = await provider.generate(request(**given), heard or Heard())
        finally:
            await provider.close()
        return generation, server.requests[-1]


async def sent(*messages: Message, **fields: Any) -> list[Json]:
    """The items on the wire."""
    _, sent_request = await ask(messages=[instruction(), *messages], **fields)
    return sent_request.messages


async def replayed(*parts: ExpertPart | str, **fields: Any) -> list[Json]:
    """What an answer of these parts becomes in the next request."""
    return (await sent(user("Go."), said(*parts), user("And?"), **fields))[1:-1]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@asynccontextmanager
async def connect_proxy() -> AsyncGenerator[tuple[str, list[str]]]:
    """A proxy that lets nobody through, and what it was asked for."""
    asked: list[str] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0])
        writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def message(text: str, *, item_id: str = "msg_1", annotations: tuple[Json, ...] = (), **more: Any) -> Json:
    content = [{"type": "output_text", "text": text, "annotations": list(annotations), "logprobs": []}]
    return {"type": "message", "id": item_id, "role": "assistant", "status": "completed", "content": content, **more}


def thought(item_id: str, *summaries: str, sealed: str = "gAAAA") -> Json:
    texts = [{"type": "summary_text", "text": text} for text in summaries]
    return {"type": "reasoning", "id": item_id, "summary": texts, "encrypted_content": sealed}


def function_call(call_id: str, name: str = "look", arguments: str = "{}") -> Json:
    return {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": arguments}


def without_id(item: Json) -> Json:
    return {key: value for key, value in item.items() if key not in ("id", "status")}


class TestRequest:
    async def test_the_whole_body_is_known(self) -> None:
        look = ToolSpec(
            name="skill/look",
            skill_name="skill",
            description="Looks.",
            input_schema={"type": "object", "properties": {"path": {"type": "string"}}, "anyOf": [{}]},
        )
        conversation = [*steps(1), user("More.")]
        _, sent_request = await ask(messages=conversation, tools=(look,), max_output_tokens=900, reasoning="medium")
        body = sent_request.json
        assert len(body.pop("prompt_cache_key")) == 32
        assert body == {
            "model": MODEL,
            "stream": True,
            "store": False,
            "reasoning": {"effort": "medium", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "max_output_tokens": 900,
            "instructions": "You are an expert.",
            "tools": [
                {
                    "type": "function",
                    "name": "skill_look",
                    "description": "Looks.",
                    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
                    "strict": False,
                }
            ],
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Go."}]},
                {"type": "function_call", "call_id": "c0", "name": "look", "arguments": '{"path":"file0"}'},
                {"type": "function_call_output", "call_id": "c0", "output": "content"},
                {"role": "user", "content": [{"type": "input_text", "text": "More."}]},
            ],
        }

    async def test_body_and_headers_equal_those_of_the_typed_call(self) -> None:
        conversation = [*steps(3), user("A picture:", ImageInlinePart(encoded_data=PNG, mime_type="image/png"))]
        async with ModelServer(hello) as server:
            provider = openai(server, setting={"organization": "org-1", "project": "proj-1"})
            fields: Json = {"tools": (tool("look"),), "provider": "openai", "model": MODEL}
            await provider.generate(request(conversation, **fields, provider_tools=(SEARCH,)), Heard())
            ours = server.requests[-1]
            async with AsyncOpenAI(
                api_key=API_KEY, base_url=f"{server.url}/v1", organization="org-1", project="proj-1", max_retries=0
            ) as client:
                create: Any = client.responses.create
                stream: AsyncStream[ResponseStreamEvent] = await create(**ours.json, timeout=20)
                assert [event.type async for event in stream][-1] == "response.completed"
            theirs = server.requests[-1]
            await provider.close()
        assert ours.target == theirs.target == "/v1/responses"
        assert ours.json == theirs.json
        differing = {"content-length", "x-stainless-read-timeout"}
        assert {k: v for k, v in ours.headers.items() if k not in differing} == {
            k: v for k, v in theirs.headers.items() if k not in differing
        }
        assert ours.headers["authorization"] == f"Bearer {API_KEY}"

    async def test_settings_go_before_the_environment(self) -> None:
        env = {"OPENAI_BASE_URL": "http://127.0.0.1:1", "OPENAI_ORGANIZATION": "org-e", "OPENAI_PROJECT": "proj-e"}
        async with ModelServer(hello) as server:
            setting = {"baseUrl": f"{server.url}/v1/", "organization": "org-s", "headers": {"x-team": "blue"}}
            provider = openai(None, setting=setting, env=env)
            await provider.generate(request(provider="openai", model=MODEL), Heard())
            await provider.close()
        headers = server.requests[-1].headers
        assert (headers["openai-organization"], headers["openai-project"]) == ("org-s", "proj-e")
        assert headers["x-team"] == "blue"

    async def test_variables_of_the_sdk_itself_send_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_ORG_ID", "org-ambient")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-ambient")
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "x-ambient: 1\nauthorization: Bearer ambient")
        monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin-ambient")
        _, sent_request = await ask()
        assert "ambient" not in str(sent_request.headers)
        assert "x-ambient" not in sent_request.headers

    async def test_the_key_of_the_prompt_cache_stays_with_its_run(self) -> None:
        async def key(**fields: Any) -> str:
            return (await ask(**fields))[1].json["prompt_cache_key"]

        assert await key(messages=steps(1)) == await key(messages=steps(2))
        assert await key(path=("1.0",)) != await key(path=("1.1",))
        assert await key(expert_key="a") != await key(expert_key="b")

    async def test_each_message_is_mapped_once_and_the_prefix_stays(self) -> None:
        cache = WireCache()
        conversation = steps(2)
        async with ModelServer(hello) as server:
            provider = openai(server)
            for _ in range(2):
                fields: Json = {"provider": "openai", "model": MODEL, "cache": cache, "tools": (tool("look"),)}
                await provider.generate(request(conversation, **fields), Heard())
                conversation += steps(3)[-2:]
            await provider.close()
        earlier, later = (one.body for one in server.requests)
        assert later.startswith(earlier[:-2])

    async def test_a_redirect_is_not_followed(self) -> None:
        async with ModelServer(hello) as other:
            answer = Answer(status=307, raw_body="{}", headers={"location": f"{other.url}/v1/responses"})
            with pytest.raises(ProviderError) as caught:
                await ask(answer)
            assert other.requests == []
        assert (caught.value.code, caught.value.is_retryable) == ("provider.bad_request", False)
        assert "redirect" in (caught.value.hint or "")

    async def test_one_connection_serves_many_calls(self) -> None:
        async with ModelServer(hello) as server:
            provider = openai(server)
            for _ in range(3):
                await provider.generate(request(provider="openai", model=MODEL), Heard())
            await provider.close()
        assert server.connections == 1


class TestAzure:
    @pytest.mark.parametrize(
        ("path", "setting", "env", "target"),
        [
            ("/openai", {}, {}, "/openai/v1/responses"),
            ("/openai/v1/", {}, {}, "/openai/v1/responses"),
            ("/openai", {"apiVersion": "preview"}, {}, "/openai/v1/responses?api-version=preview"),
            ("/openai", {}, {"AZURE_API_VERSION": "2025-04-01-preview"},
             "/openai/responses?api-version=2025-04-01-preview"),
            ("/openai", {"apiVersion": "v1"}, {"AZURE_API_VERSION": "2025"}, "/openai/v1/responses?api-version=v1"),
            ("/openai", {"useDeploymentBasedUrls": True}, {},
             "/openai/deployments/my%20gpt/responses?api-version=v1"),
        ],
    )  # fmt: skip
    async def test_the_address_has_the_form_of_the_version(
        self, path: str, setting: Json, env: dict[str, str], target: str
    ) -> None:
        async with ModelServer(hello) as server:
            provider = azure(None, setting=setting, env={"AZURE_BASE_URL": server.url + path, **env})
            generation = await provider.generate(request(provider="azure-openai", model="my gpt"), Heard())
            await provider.close()
        sent_request = server.requests[-1]
        assert sent_request.target == target
        assert sent_request.headers["api-key"] == API_KEY
        assert "authorization" not in sent_request.headers
        assert generation.contents == (TextPart(text="hello"),)

    @pytest.mark.parametrize(
        ("setting", "env", "host"),
        [
            ({}, {"AZURE_RESOURCE_NAME": "mine"}, "mine.openai.azure.com"),
            ({"resourceName": "ours"}, {"AZURE_BASE_URL": "https://x.invalid"}, "ours.openai.azure.com"),
            ({"baseUrl": "https://a.invalid/openai", "resourceName": "ours"}, {}, "a.invalid"),
            ({}, {"AZURE_BASE_URL": "https://z.openai.azure.com", "AZURE_RESOURCE_NAME": "b"}, "z.openai.azure.com"),
        ],
    )
    async def test_a_resource_is_an_address(self, setting: Json, env: dict[str, str], host: str) -> None:
        async with connect_proxy() as (proxy, asked):
            provider = azure(None, setting=setting, env={**env, "PERSTACK_PROXY_URL": proxy})
            with pytest.raises(ProviderError, match="proxy"):
                await provider.generate(request(provider="azure-openai", model="gpt-6-luna"), Heard())
            await provider.close()
        assert asked == [f"CONNECT {host}:443 HTTP/1.1"]

    async def test_a_missing_deployment_is_explained(self) -> None:
        async with ModelServer(always(Answer(status=404, error_code="DeploymentNotFound"))) as server:
            provider = azure(server)
            with pytest.raises(ProviderError) as caught:
                await provider.generate(request(provider="azure-openai", model="gpt-6-luna"), Heard())
            await provider.close()
        assert caught.value.code == "provider.not_found"
        assert "deployment" in (caught.value.hint or "")
        assert "Azure OpenAI" in caught.value.message

    async def test_its_web_search_has_another_name(self) -> None:
        item = {"type": "web_search_call", "id": "ws_1", "status": "completed",
                "action": {"type": "search", "query": "x"}}  # fmt: skip
        async with ModelServer(always(Answer(blocks=(item, message("Found."))))) as server:
            provider = azure(server)
            preview = (ProviderTool(name="webSearchPreview"),)
            generation = await provider.generate(
                request(provider="azure-openai", model="gpt-6-luna", provider_tools=preview), Heard()
            )
            await provider.close()
        assert server.requests[-1].json["tools"] == [{"type": "web_search_preview"}]
        part = generation.contents[0]
        assert isinstance(part, ProviderToolPart)
        assert part.tool_name == "webSearchPreview"

    async def test_the_registry_makes_both(self) -> None:
        registry = ProviderRegistry()
        env = {"OPENAI_API_KEY": API_KEY, "AZURE_API_KEY": API_KEY, "AZURE_RESOURCE_NAME": "mine"}
        one = registry.provider("openai", env=env, setting={})
        assert registry.provider("openai", env=env, setting={}) is one
        assert registry.provider("openai", env=env, setting={"project": "p"}) is not one
        assert registry.provider("azure-openai", env=env, setting={}) is not one
        with pytest.raises(CredentialError, match="AZURE_RESOURCE_NAME"):
            registry.provider("azure-openai", env={"AZURE_API_KEY": API_KEY}, setting={})
        with pytest.raises(CredentialError, match="Not a URL"):
            registry.provider("openai", env=env, setting={"baseUrl": "ftp://x"})
        await registry.close()


class TestParts:
    @pytest.mark.parametrize(
        ("part", "content"),
        [
            (TextPart(text="hi"), {"type": "input_text", "text": "hi"}),
            (
                ImageUrlPart(url="https://x.test/a.png", mime_type="image/png"),
                {"type": "input_image", "image_url": "https://x.test/a.png", "detail": "auto"},
            ),
            (
                ImageInlinePart(encoded_data=PNG, mime_type="image/jpg"),
                {"type": "input_image", "image_url": f"data:image/jpeg;base64,{PNG}", "detail": "auto"},
            ),
            (
                ImageBinaryPart(data="\x89PNG", mime_type="image/webp"),
                {"type": "input_image", "image_url": f"data:image/webp;base64,{PNG}", "detail": "auto"},
            ),
            (
                FileUrlPart(url="https://x.test/a.pdf", mime_type="application/pdf"),
                {"type": "input_file", "file_url": "https://x.test/a.pdf"},
            ),
            (
                FileInlinePart(encoded_data=PDF, mime_type="application/pdf"),
                {"type": "input_file", "filename": "file.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
            ),
            (
                FileBinaryPart(data="%PDF", mime_type="application/pdf"),
                {"type": "input_file", "filename": "file.pdf", "file_data": f"data:application/pdf;base64,{PDF}"},
            ),
            (FileInlinePart(encoded_data=TEXT, mime_type="text/csv"), {"type": "input_text", "text": "Grüße"}),
        ],
    )
    async def test_every_part_of_a_user_has_its_form(self, part: UserPart, content: Json) -> None:
        assert await sent(user(part)) == [{"role": "user", "content": [content]}]

    @pytest.mark.parametrize(
        "part",
        [
            ImageInlinePart(encoded_data=PNG, mime_type="image/tiff"),
            FileInlinePart(encoded_data=PNG, mime_type="application/zip"),
            FileUrlPart(url="https://x.test/a.txt", mime_type="text/plain"),
            FileInlinePart(encoded_data=PNG, mime_type="text/plain"),
            ImageBinaryPart(data="\u20ac", mime_type="image/png"),
        ],
    )
    async def test_a_part_it_cannot_take_is_refused_by_name(self, part: UserPart) -> None:
        with pytest.raises(ProviderError, match=f"OpenAI cannot take the {part.type}") as caught:
            await sent(user(part))
        assert (caught.value.code, caught.value.is_retryable) == ("provider.unsupported", False)

    async def test_an_empty_user_message_is_refused(self) -> None:
        with pytest.raises(ProviderError, match="empty user message"):
            await sent(user(" "))

    async def test_results_carry_text_images_files_and_errors(self) -> None:
        image, pdf = (
            ImageInlinePart(encoded_data=PNG, mime_type="image/png"),
            FileInlinePart(encoded_data=PDF, mime_type="application/pdf"),
        )
        items = await sent(
            user("Go."),
            said(*(call(f"c{number}") for number in range(7))),
            results(
                result("c0", "one", "two"),
                result("c1", "see:", image, pdf),
                result("c2", "no such file", is_error=True),
                result("c3", image, is_error=True),
                result("c4"),
                result("c5", FileInlinePart(encoded_data=PNG, mime_type="application/zip")),
                result("c6", FileInlinePart(encoded_data=PNG, mime_type="text/plain")),
            ),
        )
        picture = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}", "detail": "auto"}
        document = {"type": "input_file", "filename": "file.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}
        cannot = "[This result holds a file of type {}, which OpenAI cannot show to the model.]"
        assert [item["output"] for item in items[8:]] == [
            "one\ntwo",
            [{"type": "input_text", "text": "see:"}, picture, document],
            "The tool failed.\nno such file",
            [{"type": "input_text", "text": "The tool failed."}, picture],
            "",
            cannot.format("application/zip"),
            cannot.format("text/plain"),
        ]
        assert {item["type"] for item in items[8:]} == {"function_call_output"}

    async def test_half_a_surrogate_pair_becomes_a_question_mark(self) -> None:
        assert await sent(user("a\ud800b")) == [{"role": "user", "content": [{"type": "input_text", "text": "a?b"}]}]


class TestReasoning:
    @pytest.mark.parametrize(
        ("model", "budget", "effort"),
        [
            ("gpt-6-astra", "none", "low"),
            ("gpt-6-astra", "high", "high"),
            ("gpt-6.1-sol", "minimal", "low"),
            ("gpt-6-luna", "medium", "medium"),
            ("gpt-6-sol", "none", "none"),
            ("gpt-5.6-luna", "none", "none"),
            ("gpt-5.6-sol", "minimal", "low"),
            ("gpt-5.4-mini-2026-03-17", "low", "low"),
            ("openai/gpt-5-mini", "minimal", "minimal"),
            ("gpt-5", "none", "minimal"),
            ("gpt-5-2025-08-07", 3000, "medium"),
            ("gpt-5", 20_000, "high"),
            ("gpt-5", 2048, "low"),
            ("gpt-5.6-luna", 0, "none"),
            ("gpt-5-pro", "low", "high"),
            ("gpt-5.5-pro", "none", "medium"),
            ("gpt-5.3-codex", "none", "low"),
            ("o4-mini", "minimal", "low"),
            ("o3-deep-research", "high", "medium"),
            ("gpt-4.1", "high", None),
            ("gpt-4o-mini", "low", None),
            ("gpt-5-chat-latest", "high", None),
            ("my-deployment", "high", None),
        ],
    )
    async def test_each_model_gets_an_effort_it_takes(self, model: str, budget: Any, effort: str | None) -> None:
        _, sent_request = await ask(model=model, reasoning=budget)
        body = sent_request.json
        if effort is None:
            assert not {"reasoning", "include"} & set(body)
        else:
            summary = {} if effort == "none" else {"summary": "auto"}
            assert body["reasoning"] == {"effort": effort, **summary}
            assert body["include"] == ["reasoning.encrypted_content"]

    async def test_minimal_effort_is_not_asked_for_beside_tools_of_the_provider(self) -> None:
        _, sent_request = await ask(model="gpt-5", reasoning="minimal", provider_tools=(SEARCH,))
        assert sent_request.json["reasoning"]["effort"] == "low"

    def test_a_model_of_a_later_year_gets_what_all_take(self) -> None:
        assert gpt_efforts("gpt-7.2-nova") == ("low", "medium", "high")

    async def test_summaries_stream_and_the_item_is_replayed_as_it_was(self) -> None:
        items = (thought("rs_1", "First.", "Second."), function_call("c1", arguments='{"path":"a"}'))
        heard = Heard()
        generation, _ = await ask(Answer(blocks=items, delta_size=3), heard=heard, tools=(tool("look"),))
        first = generation.contents[0]
        assert isinstance(first, ThinkingPart)
        assert first.thinking == heard.all("reasoning") == "First.\n\nSecond."
        again = await sent(user("Go."), said(*generation.contents), results(result("c1", "x")))
        assert again[1:3] == [items[0], without_id(items[1])]

    async def test_items_go_back_to_their_places(self) -> None:
        items = (
            thought("rs_1", "Plan."),
            message("I look around.", phase="commentary"),
            thought("rs_2", sealed="gBBBB"),
            function_call("c1", "helper"),
            thought("rs_3", "More."),
            function_call("c2", "look"),
        )
        generation, _ = await ask(Answer(blocks=items), tools=(tool("look"), tool("helper", "delegate")))
        kinds = [part.type for part in generation.contents]
        assert kinds == [*["thinkingPart"] * 3, "textPart", "toolCallPart", "toolCallPart"]
        # Calls run in another order than the model made them.
        assert [part.tool_call_id for part in generation.contents if isinstance(part, ToolCallPart)] == ["c2", "c1"]
        assert await replayed(*generation.contents) == [
            items[0],
            {"role": "assistant", "type": "message", "content": "I look around.", "phase": "commentary"},
            items[2],
            without_id(items[3]),
            items[4],
            without_id(items[5]),
        ]

    async def test_a_phase_is_kept_without_reasoning_too(self) -> None:
        items = (message("First this.", phase="commentary"), message("Done.", phase="final_answer"))
        generation, _ = await ask(Answer(blocks=items))
        assert [part.text for part in generation.contents if isinstance(part, TextPart)] == ["First this.", "Done."]
        assert [(item["content"], item["phase"]) for item in await replayed(*generation.contents)] == [
            ("First this.", "commentary"),
            ("Done.", "final_answer"),
        ]

    async def test_an_answer_in_plain_order_seals_no_order(self) -> None:
        generation, _ = await ask(Answer(thinking="hm", text="Yes."))
        thinking = generation.contents[0]
        assert isinstance(thinking, ThinkingPart)
        assert thinking.signature is not None
        assert "order" not in thinking.signature

    async def test_reasoning_that_cannot_be_repeated_is_left_out(self) -> None:
        readable: Json = {"type": "reasoning", "id": "rs_1", "summary": [],
                          "content": [{"type": "reasoning_text", "text": "open thoughts"}]}  # fmt: skip
        heard = Heard()
        generation, _ = await ask(Answer(blocks=(readable, message("Yes."))), heard=heard)
        assert generation.contents[0] == ThinkingPart(thinking="open thoughts")
        assert heard.all("reasoning") == "open thoughts"
        text = {"role": "assistant", "type": "message", "content": "Yes."}
        assert await replayed(*generation.contents) == [text]
        assert await replayed(ThinkingPart(thinking="hm", signature="claude's"), "Yes.") == [text]
        assert await replayed(ThinkingPart(thinking="hm", signature='gemini:{"a":1}'), "Yes.") == [text]

    async def test_reasoning_without_what_it_led_to_says_nothing(self) -> None:
        generation, _ = await ask(Answer(blocks=(thought("rs_1", "hm"),), stop_reason="max_output_tokens"))
        assert await replayed(*generation.contents) == []
        items = (message("Text.", phase="commentary"), thought("rs_2", "cut"))
        generation, _ = await ask(Answer(blocks=items, stop_reason="max_output_tokens"))
        assert [item["type"] for item in await replayed(*generation.contents)] == ["message"]

    async def test_calls_the_machine_has_dropped_are_not_missed(self) -> None:
        items = (thought("rs_1", "hm"), function_call("c1"), thought("rs_2", "on"), function_call("c2"))
        generation, _ = await ask(Answer(blocks=items), tools=(tool("look"),))
        kept = [part for part in generation.contents if part.type != "toolCallPart" or part.tool_call_id == "c1"]
        assert await replayed(*kept, "More.") == [
            items[0],
            without_id(items[1]),
            items[2],
            {"role": "assistant", "type": "message", "content": "More."},
        ]


class TestLessons:
    CONVERSATION = (
        instruction(),
        user("Go."),
        said(
            ThinkingPart(thinking="hm", signature='responses:{"id":"rs_1","encrypted_content":"g","summary":[2]}'),
            call("c1"),
        ),
        results(result("c1", "x")),
    )

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (400, "The encrypted content gAAA could not be verified."),
            (404, "Item with id 'rs_1' not found. Items are not persisted when `store` is set to false."),
            (400, "Item 'rs_1' of type 'reasoning' was provided without its required following item."),
        ],
    )
    async def test_items_the_api_no_longer_takes_are_left_out_from_then_on(self, status: int, words: str) -> None:
        def strict(asked: Request) -> Answer:
            has_item = any(item.get("type") == "reasoning" for item in asked.messages)
            return Answer(status=status, message=words) if has_item else Answer(text="hello")

        cache = WireCache()
        async with ModelServer(strict) as server:
            provider = openai(server)
            fields: Json = {"provider": "openai", "model": MODEL, "cache": cache}
            for _ in range(2):
                generation = await provider.generate(request(self.CONVERSATION, **fields), Heard())
                assert generation.contents == (TextPart(text="hello"),)
            await provider.close()
        kinds = [[item.get("type", "user") for item in one.messages] for one in server.requests]
        bare = ["user", "function_call", "function_call_output"]
        assert kinds == [["user", "reasoning", *bare[1:]], bare, bare]
        assert "include" not in server.requests[1].json

    async def test_an_account_without_summaries_is_asked_for_none(self) -> None:
        def strict(asked: Request) -> Answer:
            if "summary" in asked.json["reasoning"]:
                words = "Your organization must be verified to generate reasoning summaries."
                return Answer(status=400, message=words, error_code="unsupported_value")
            return Answer(text="hello")

        generation, sent_request = await ask(strict)
        assert generation.contents == (TextPart(text="hello"),)
        assert sent_request.json["reasoning"] == {"effort": "low"}

    async def test_each_lesson_is_learnt_once(self) -> None:
        async with ModelServer(always(Answer(status=400, message="bad encrypted content"))) as server:
            provider = openai(server)
            with pytest.raises(ProviderError, match="bad encrypted content"):
                await provider.generate(request(self.CONVERSATION, provider="openai", model=MODEL), Heard())
            await provider.close()
        assert len(server.requests) == 2


class TestProviderTools:
    async def test_they_are_sent_with_their_options_behind_ours(self) -> None:
        _, sent_request = await ask(tools=(tool("look"),), provider_tools=(SEARCH, FILES, CODE, IMAGES))
        assert sent_request.json["tools"][1:] == [
            {"type": "web_search", "filters": {"allowed_domains": ["docs.python.org"]}},
            {"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 3},
            {"type": "code_interpreter", "container": {"type": "auto"}},
            {"type": "image_generation"},
        ]
        assert sent_request.json["include"] == [
            "reasoning.encrypted_content",
            "web_search_call.action.sources",
            "file_search_call.results",
            "code_interpreter_call.outputs",
        ]

    async def test_options_nobody_set_are_not_sent(self) -> None:
        files = ProviderTool(name="fileSearch", options={"vectorStoreIds": ["vs_1"]})
        _, sent_request = await ask(provider_tools=(ProviderTool(name="webSearch"), files))
        assert sent_request.json["tools"] == [
            {"type": "web_search"},
            {"type": "file_search", "vector_store_ids": ["vs_1"]},
        ]

    ITEMS: tuple[Json, ...] = (
        {
            "type": "web_search_call", "id": "ws_1", "status": "completed",
            "action": {"type": "search", "query": "python", "queries": ["python"],
                       "sources": [{"type": "url", "url": "https://a.test"}, {"type": "url", "url": "https://a.test"}]},
        },
        {
            "type": "web_search_call", "id": "ws_2", "status": "completed",
            "action": {"type": "open_page", "url": "https://b.test"},
        },
        {
            "type": "file_search_call", "id": "fs_1", "status": "completed", "queries": ["rules"],
            "results": [{"file_id": "f1", "filename": "rules.md", "score": 0.9, "text": "Be kind."},
                        {"file_id": "f2", "filename": "rules.md", "score": 0.5, "text": ""}],
        },
        {
            "type": "code_interpreter_call", "id": "ci_1", "status": "completed", "code": "print(1)",
            "container_id": "cntr_1",
            "outputs": [{"type": "logs", "logs": "1\n"},
                        {"type": "image", "url": f"data:image/png;base64,{PNG}"},
                        {"type": "image", "url": "https://c.test/plot.png"}],
        },
        {
            "type": "image_generation_call", "id": "ig_1", "status": "completed", "result": PNG,
            "output_format": "webp", "revised_prompt": "a cat",
        },
    )  # fmt: skip

    async def test_what_they_did_is_kept(self) -> None:
        generation, _ = await ask(
            Answer(blocks=(*self.ITEMS, message("Done."))), provider_tools=(SEARCH, FILES, CODE, IMAGES)
        )
        found = [part for part in generation.contents if isinstance(part, ProviderToolPart)]
        assert [part.model_copy(update={"replay": None}) for part in found] == [
            ProviderToolPart(
                tool_name="webSearch",
                args={"type": "search", "query": "python", "queries": ["python"]},
                sources=(Source(url="https://a.test"),),
            ),
            ProviderToolPart(
                tool_name="webSearch",
                args={"type": "open_page", "url": "https://b.test"},
                sources=(Source(url="https://b.test"),),
            ),
            ProviderToolPart(
                tool_name="fileSearch",
                args={"queries": ["rules"]},
                contents=(TextPart(text="Be kind."),),
                sources=(Source(title="rules.md"),),
            ),
            ProviderToolPart(
                tool_name="codeInterpreter",
                args={"code": "print(1)"},
                contents=(TextPart(text="1\n"), ImageInlinePart(encoded_data=PNG, mime_type="image/png")),
            ),
            ProviderToolPart(
                tool_name="imageGeneration",
                args={"prompt": "a cat"},
                contents=(ImageInlinePart(encoded_data=PNG, mime_type="image/webp"),),
            ),
        ]
        assert generation.contents[-1] == TextPart(text="Done.")
        assert not any(PNG in (part.replay or "") or "Be kind" in (part.replay or "") for part in found)

    async def test_later_requests_repeat_them_in_their_places(self) -> None:
        items = (thought("rs_1", "hm"), self.ITEMS[0], thought("rs_2", "on"), *self.ITEMS[2:], message("Done."))
        generation, _ = await ask(Answer(blocks=items), provider_tools=(SEARCH, FILES, CODE, IMAGES))
        again = await replayed(*generation.contents, provider_tools=(SEARCH, FILES, CODE, IMAGES))
        assert again == [*items[:-1], {"role": "assistant", "type": "message", "content": "Done."}]

    async def test_a_tool_that_failed_says_so(self) -> None:
        item = {
            "type": "image_generation_call", "id": "ig_1", "status": "failed", "result": None,
            "error": {"code": "moderation_blocked", "message": "Not this.", "type": "image_generation_user_error"},
        }  # fmt: skip
        generation, _ = await ask(Answer(blocks=(item, message("Sorry."))), provider_tools=(IMAGES,))
        part = generation.contents[0]
        assert isinstance(part, ProviderToolPart)
        assert (part.is_error, part.contents) == (True, (TextPart(text="Not this."),))
        assert (await replayed(*generation.contents))[0] == item

    async def test_the_tools_of_another_provider_are_told_as_text(self) -> None:
        part = ProviderToolPart(
            tool_name="webSearch",
            args={"query": "x"},
            contents=(TextPart(text="found"),),
            sources=(Source(url="https://a.test"),),
            replay='messages:{"block":1}',
        )
        first, second = await replayed(part, "So.")
        assert first["content"] == '[The tool webSearch was asked {"query":"x"} and answered.]\nfound\nhttps://a.test'
        assert second["content"] == "So."

    async def test_citations_are_sources_of_the_text(self) -> None:
        annotations: tuple[Json, ...] = (
            {"type": "url_citation", "url": "https://a.test", "title": "A", "start_index": 0, "end_index": 1},
            {"type": "url_citation", "url": "https://a.test", "title": "A", "start_index": 2, "end_index": 3},
            {"type": "file_citation", "file_id": "f1", "filename": "rules.md", "index": 4},
            {"type": "container_file_citation", "container_id": "c", "file_id": "f2", "filename": "out.csv",
             "start_index": 0, "end_index": 1},
            {"type": "file_path", "file_id": "f3", "index": 0},
        )  # fmt: skip
        generation, _ = await ask(Answer(blocks=(message("As A says.", annotations=annotations),)))
        assert generation.contents == (
            TextPart(
                text="As A says.",
                sources=(Source(url="https://a.test", title="A"), Source(title="rules.md"), Source(title="out.csv")),
            ),
        )


class TestTypes:
    """The scripted server and our bodies against the SDK's own types."""

    async def test_a_body_with_everything_has_the_sdk_s_form(self) -> None:
        items = (
            thought("rs_1", "hm"),
            *TestProviderTools.ITEMS,
            message("So.", phase="commentary"),
            function_call("c"),
        )
        tools: Json = {"tools": (tool("look"),), "provider_tools": (SEARCH, FILES, CODE, IMAGES)}
        generation, _ = await ask(Answer(blocks=items), **tools)
        image = ImageInlinePart(encoded_data=PNG, mime_type="image/png")
        conversation = [
            instruction(),
            user("Go.", image, FileUrlPart(url="https://x.test/a.pdf", mime_type="application/pdf")),
            said(*generation.contents),
            results(result("c", "x", image)),
        ]
        _, sent_request = await ask(messages=conversation, max_output_tokens=99, **tools)
        TypeAdapter(ResponseCreateParamsStreaming).validate_python(sent_request.json)

    @pytest.mark.parametrize(
        "answer",
        [
            Answer(thinking="a b", text="hi there", calls=(Call(name="look"),), delta_size=3),
            Answer(blocks=TestProviderTools.ITEMS),
            Answer(stop_reason="failed"),
            Answer(text="half", stop_reason="max_output_tokens"),
        ],
    )
    async def test_every_scripted_event_has_the_sdk_s_form(self, answer: Answer) -> None:
        _, sent_request = await ask()
        events = [*sent_request.wire.events(sent_request, answer), sent_request.wire.stream_error(answer)]
        for event in events:
            EVENT.validate_json(event.decode().split("data: ", 1)[1])


class TestAnswer:
    async def test_thinking_text_and_calls_stream_and_are_kept_in_this_order(self) -> None:
        answer = Answer(thinking="Let me think.", text="I look.", calls=(Call(name="look", id="c1"),), delta_size=4)
        heard = Heard()
        generation, _ = await ask(answer, heard=heard, tools=(tool("look"),))
        assert [part.type for part in generation.contents] == ["thinkingPart", "textPart", "toolCallPart"]
        assert generation.contents[1:] == (
            TextPart(text="I look."),
            ToolCallPart(tool_call_id="c1", tool_name="look", args={}),
        )
        assert (heard.all("reasoning"), heard.all("text")) == ("Let me think.", "I look.")
        assert heard.pieces[:2] == [("reasoning", "Let "), ("reasoning", "me t")]
        assert (generation.model, generation.finish_reason, generation.attempts) == (MODEL, "toolCalls", ())

    async def test_parallel_calls_are_sorted_by_class(self) -> None:
        calls = (
            Call(name="askPerson", id="c1", args={"question": "Größe? \U0001f600"}),
            Call(name="helper", id="c2", args={"query": "x" * 50}),
            Call(name="skill_look", id="c3", args={"paths": ["a", "b"], "deep": {"n": 1.5}}),
        )
        tools = (tool("skill/look"), tool("helper", "delegate"), tool("askPerson", "interactive"))
        generation, _ = await ask(Answer(calls=calls, delta_size=3), tools=tools)
        found = [(part.tool_call_id, part.tool_name, part.args) for part in generation.contents
                 if isinstance(part, ToolCallPart)]  # fmt: skip
        assert found == [
            ("c3", "skill/look", calls[2].args),
            ("c2", "helper", calls[1].args),
            ("c1", "askPerson", calls[0].args),
        ]

    @pytest.mark.parametrize("raw", ['{"path": "a', "[1, 2]", '"text"', '{"n": NaN}'])
    async def test_arguments_that_are_no_json_object_are_handed_on_for_an_error(self, raw: str) -> None:
        generation, _ = await ask(Answer(calls=(Call(name="look", id="c1", args=raw),)), tools=(tool("look"),))
        assert generation.contents == (
            ToolCallPart(tool_call_id="c1", tool_name="look", args={INVALID_JSON_ARGUMENT: raw}),
        )

    @pytest.mark.parametrize(
        ("reason", "finish_reason"),
        [("max_output_tokens", "length"), ("content_filter", "refusal"), ("something_new", "other")],
    )
    async def test_every_reason_to_stop_early_has_a_meaning(self, reason: str, finish_reason: FinishReason) -> None:
        generation, _ = await ask(Answer(text="hello", stop_reason=reason))
        assert (generation.finish_reason, generation.contents) == (finish_reason, (TextPart(text="hello"),))

    async def test_a_refusal_is_said_and_marked(self) -> None:
        item = {**message(""), "content": [{"type": "refusal", "refusal": "I cannot help."}]}
        heard = Heard()
        generation, _ = await ask(Answer(blocks=(item,)), heard=heard)
        assert (generation.finish_reason, heard.all("text")) == ("refusal", "I cannot help.")
        assert generation.contents == (TextPart(text="I cannot help."),)

    async def test_an_empty_answer_is_an_answer(self) -> None:
        generation, _ = await ask(Answer())
        assert (generation.contents, generation.finish_reason) == ((), "stop")

    async def test_usage_includes_cached_and_reasoning_tokens(self) -> None:
        usage = {
            "input_tokens": 120,
            "input_tokens_details": {"cached_tokens": 100},
            "output_tokens": 30,
            "output_tokens_details": {"reasoning_tokens": 12},
        }
        seen: list[Usage] = []
        generation, _ = await ask(Answer(text="hello", usage=usage), on_usage=seen.append)
        assert generation.usage == Usage(
            input_tokens=120, output_tokens=30, reasoning_tokens=12, total_tokens=150, cached_input_tokens=100
        )
        assert seen == [generation.usage]

    async def test_an_item_that_broke_off_is_taken_from_the_end(self) -> None:
        stream = (
            'data: {"type":"response.created","response":{"model":"m"}}\n\n'
            'data: {"type":"response.output_item.added","output_index":0,'
            '"item":{"type":"message","content":[]}}\n\n'
            'data: {"type":"response.incomplete","response":{"status":"incomplete",'
            '"incomplete_details":{"reason":"max_output_tokens"},"output":[{"type":"message",'
            '"content":[{"type":"output_text","text":"he"}]}]}}\n\n'
        )
        generation, _ = await ask(Answer(raw_body=stream, content_type="text/event-stream"))
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="he"),), "length")

    async def test_events_and_items_of_a_later_release_are_passed_over(self) -> None:
        stream = (
            'event: brand_new\ndata: {"type":"brand_new","shiny":true}\n\n'
            ": comment\n\n"
            "event: empty\n\n"
            'data: {"type":"response.output_item.done","output_index":0,"item":{"type":"dream","id":"d"}}\n\n'
            'data: {"type":"response.output_item.done","output_index":1,"item":{"type":"message",'
            '"content":[{"type":"output_text","text":"hello"},{"type":"output_scent"}]}}\n\n'
            'data: {"type":"response.completed","response":{"status":"completed","output":[],"usage":null}}\n\n'
        )
        generation, _ = await ask(Answer(raw_body=stream, content_type="text/event-stream"))
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="hello"),), "stop")

    @pytest.mark.parametrize("kind", ["computer_call", "custom_tool_call", "mcp_approval_request"])
    async def test_work_nobody_offered_to_do_is_refused_by_name(self, kind: str) -> None:
        with pytest.raises(ProviderError, match=f"`{kind}`"):
            await ask(Answer(blocks=({"type": kind, "id": "x"},)))


class TestCancellation:
    async def test_a_cancelled_call_lets_go_at_once(self) -> None:
        heard = Heard()
        answer = Answer(text="hello there", after_events=6, then="hang", delta_size=4)
        async with ModelServer(always(answer)) as server:
            provider = openai(server)
            task = asyncio.create_task(provider.generate(request(provider="openai", model=MODEL), heard))
            await until(lambda: bool(heard.pieces))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: bool(server.abandoned))
            server.script = hello
            generation = await provider.generate(request(provider="openai", model=MODEL), Heard())
            assert generation.contents == (TextPart(text="hello"),)
            await provider.close()
