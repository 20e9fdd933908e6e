import asyncio
import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import google.genai._api_client as sdk
import pytest
from google.genai import Client, types
from perstack.activities.providers.base import INVALID_JSON_ARGUMENT, WireCache
from perstack.activities.providers.failures import ProviderError
from perstack.core.expert import ProviderTool
from perstack.core.messages import (
    ExpertMessage,
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
from perstack.core.run import FinishReason, Generation
from perstack.core.tools import ToolSpec
from perstack.core.usage import Usage
from support.google_requests import FLASH, FLASH_2_5, credentials, gemini, token_server, vertex
from support.model_requests import (
    API_KEY,
    Heard,
    call,
    instruction,
    request,
    result,
    results,
    said,
    steps,
    tool,
    user,
)
from support.model_server import Answer, Call, Json, ModelServer, Request, Script
from support.protocols.gemini import TOKEN

PNG = base64.b64encode(b"\x89PNG").decode()
SIGNATURE = "c2lnbmVk"
LOOK = ToolSpec(
    name="look",
    skill_name="skill",
    description="Does look.",
    input_schema={"type": "object", "properties": {"path": {"type": "string"}}, "additionalProperties": False},
)
SEARCH = ProviderTool(name="googleSearch")


def hello(_: Request) -> Answer:
    return Answer(text="hello")


def always(answer: Answer) -> Script:
    return lambda _: answer


async def ask(
    answer: Answer | Callable[[Request], Answer] = hello,
    *,
    heard: Heard | None = None,
    vertex_in: Path | None = None,
    **fields: Any,
) -> tuple[Generation, Request]:
    """One call to a server that gives `answer`, and what it was sent; `vertex_in` asks Vertex AI."""
    fields.setdefault("model", FLASH)
    fields["provider"] = "google-vertex" if vertex_in else "google"
    async with ModelServer(always(answer) if isinstance(answer, Answer) else answer) as server:
        provider = vertex(server, vertex_in) if vertex_in else gemini(server)
        try:
            generation = await provider.generate(request(**fields), heard or Heard())
        finally:
            await provider.close()
        return generation, server.requests[-1]


async def sent(*messages: Message, model: str = FLASH) -> list[Json]:
    """The contents on the wire."""
    _, sent_request = await ask(messages=[instruction(), *messages], model=model)
    return sent_request.messages


def alike(value: Any) -> Any:
    """A body as the API reads it: keys of either spelling; the typed call also moves functions behind other tools."""
    if isinstance(value, dict):
        items = cast("Json", value).items()
        return {re.sub("_(.)", lambda match: match[1].upper(), key): alike(item) for key, item in items}
    if isinstance(value, list):
        found = [alike(item) for item in cast("list[Any]", value)]
        return sorted(found, key=lambda item: "functionDeclarations" in item)
    return value


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class TestRequest:
    async def test_the_whole_request_to_the_gemini_api(self) -> None:
        _, sent_request = await ask(tools=(LOOK,), max_output_tokens=4000)
        assert sent_request.target == "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse"
        headers = {name: value for name, value in sent_request.headers.items() if name != "content-length"}
        assert headers.pop("host").startswith("127.0.0.1")
        assert headers.pop("user-agent") == headers.pop("x-goog-api-client")
        assert headers == {
            "accept": "*/*",
            "accept-encoding": headers["accept-encoding"],
            "connection": "keep-alive",
            "content-type": "application/json",
            "x-goog-api-key": API_KEY,
        }
        assert sent_request.json == {
            "contents": [{"role": "user", "parts": [{"text": "Go."}]}],
            "systemInstruction": {"parts": [{"text": "You are an expert."}]},
            "tools": [
                {
                    "functionDeclarations": [
                        {"name": "look", "description": "Does look.", "parametersJsonSchema": LOOK.input_schema}
                    ]
                }
            ],
            "generationConfig": {
                "maxOutputTokens": 4000,
                "thinkingConfig": {"includeThoughts": True, "thinkingLevel": "LOW"},
            },
        }

    async def test_the_request_to_vertex_differs_by_address_and_token_only(self, tmp_path: Path) -> None:
        _, ours = await ask(tools=(LOOK,), vertex_in=tmp_path)
        assert ours.target == (
            "/v1beta1/projects/test-project/locations/global/publishers/google/models/"
            "gemini-3.8-flash:streamGenerateContent?alt=sse"
        )
        assert ours.headers["authorization"] == f"Bearer {TOKEN}"
        assert "x-goog-api-key" not in ours.headers
        _, other = await ask(tools=(LOOK,))
        assert ours.json == other.json

    @pytest.mark.parametrize("is_vertex", [False, True])
    async def test_body_and_headers_equal_those_of_the_typed_call(self, tmp_path: Path, is_vertex: bool) -> None:
        picture = ImageInlinePart(encoded_data=PNG, mime_type="image/png")
        conversation = [*steps(2), user("Now with a picture:", picture)]
        tools = (ProviderTool(name="googleMaps", options={"retrievalConfig": {"languageCode": "de"}}),)
        name = "google-vertex" if is_vertex else "google"
        async with ModelServer(hello) as server:
            provider = vertex(server, tmp_path) if is_vertex else gemini(server)
            await provider.generate(
                request(
                    conversation, tools=(LOOK,), provider_tools=tools, provider=name, model=FLASH, max_output_tokens=9
                ),
                Heard(),
            )
            ours = server.requests[-1]
            client = await provider._connected()  # pyright: ignore[reportPrivateUsage]
            body = ours.json
            models: Any = client.aio.models
            stream = await models.generate_content_stream(
                model=FLASH,
                contents=body["contents"],
                config=types.GenerateContentConfig(
                    system_instruction=types.Content.model_validate(body["systemInstruction"]),
                    tools=[types.Tool.model_validate(entry) for entry in body["tools"]],
                    tool_config=types.ToolConfig.model_validate(body["toolConfig"]),
                    max_output_tokens=body["generationConfig"]["maxOutputTokens"],
                    thinking_config=types.ThinkingConfig.model_validate(body["generationConfig"]["thinkingConfig"]),
                ),
            )
            assert "".join([chunk.text or "" async for chunk in stream]) == "hello"
            theirs = server.requests[-1]
            await provider.close()
        assert isinstance(client, Client)
        assert alike(ours.json) == alike(theirs.json)
        assert ours.target == theirs.target
        assert {**ours.headers, "content-length": ""} == {**theirs.headers, "content-length": ""}

    @pytest.mark.parametrize(
        ("path", "target"),
        [("", "/v1beta/"), ("/", "/v1beta/"), ("/v1beta", "/v1beta/"), ("/g/v1alpha", "/g/v1alpha/")],
    )
    async def test_the_address_may_have_its_version(self, path: str, target: str) -> None:
        async with ModelServer(hello) as server:
            provider = gemini(None, setting={"baseUrl": server.url + path, "headers": {"x-team": "blue"}})
            await provider.generate(request(provider="google", model=FLASH), Heard())
            await provider.close()
        assert server.requests[-1].target.startswith(f"{target}models/")
        assert server.requests[-1].headers["x-team"] == "blue"

    @pytest.mark.parametrize(
        ("path", "setting", "start"),
        [
            ("", {"project": "p1", "location": "eu"}, "/v1beta1/projects/p1/locations/eu/publishers/google/models/"),
            ("/v1", {}, "/v1/projects/test-project/locations/asia-east1/publishers/google/models/"),
            (
                "/v1/projects/p2/locations/us/publishers/google",
                {},
                "/v1/projects/p2/locations/us/publishers/google/models/gemini",
            ),
        ],
    )
    async def test_vertex_may_be_addressed_with_project_and_location(
        self, tmp_path: Path, path: str, setting: Json, start: str
    ) -> None:
        async with ModelServer(hello) as server:
            env = {"GOOGLE_VERTEX_BASE_URL": server.url + path, "GOOGLE_VERTEX_LOCATION": "asia-east1"}
            provider = vertex(server, tmp_path, env=env, setting=setting)
            await provider.generate(request(provider="google-vertex", model=FLASH), Heard())
            await provider.close()
        assert server.requests[-1].path.startswith(start)
        assert server.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"

    @pytest.mark.parametrize(
        ("location", "host"),
        [
            ("", "aiplatform.googleapis.com:443"),
            ("eu", "aiplatform.eu.rep.googleapis.com:443"),
            ("europe-west4", "europe-west4-aiplatform.googleapis.com:443"),
        ],
    )
    async def test_without_an_address_vertex_is_where_its_location_says(
        self, tmp_path: Path, location: str, host: str
    ) -> None:
        async with token_server() as proxy:
            env = {"PERSTACK_PROXY_URL": proxy.url, "GOOGLE_VERTEX_LOCATION": location}
            provider = vertex(None, tmp_path, tokens="http://tokens.test", env=env)
            with pytest.raises(ProviderError, match="through the proxy"):
                await provider.generate(request(provider="google-vertex", model=FLASH), Heard())
            await provider.close()
        assert proxy.tunnels == [host]
        # The token came through the proxy as well.
        assert len(proxy.asked) == 1

    @pytest.mark.parametrize(
        ("model", "end"),
        [
            ("tunedModels/mine", "/v1beta/tunedModels/mine"),
            ("models/gemini-3.8-flash", "/v1beta/models/gemini-3.8-flash"),
            ("odd?name", "/v1beta/models/odd%3Fname"),
        ],
    )
    async def test_a_model_may_be_named_by_its_path(self, model: str, end: str) -> None:
        _, sent_request = await ask(model=model)
        assert sent_request.path == f"{end}:streamGenerateContent"

    @pytest.mark.parametrize("is_vertex", [False, True])
    async def test_variables_of_the_process_change_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_vertex: bool
    ) -> None:
        _, expected = await ask(vertex_in=tmp_path if is_vertex else None)
        for name, value in {
            "GOOGLE_API_KEY": "another-key",
            "GEMINI_API_KEY": "a-third-key",
            "GOOGLE_GENAI_USE_VERTEXAI": "false" if is_vertex else "true",
            "GOOGLE_GENAI_USE_ENTERPRISE": "false" if is_vertex else "true",
            "GOOGLE_CLOUD_PROJECT": "another-project",
            "GOOGLE_CLOUD_LOCATION": "mars",
            "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9",
            "GOOGLE_VERTEX_BASE_URL": "http://127.0.0.1:9",
            "GOOGLE_GENAI_API_VERSION": "v9",
            "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere",
        }.items():
            monkeypatch.setenv(name, value)
        # And a library that happens to be there is not taken instead of our client.
        monkeypatch.setattr(sdk, "has_aiohttp", True)
        _, found = await ask(vertex_in=tmp_path if is_vertex else None)
        assert found.target == expected.target
        assert {**found.headers, "host": ""} == {**expected.headers, "host": ""}

    async def test_one_connection_serves_many_calls(self) -> None:
        async with ModelServer(hello) as server:
            provider = gemini(server)
            for _ in range(3):
                await provider.generate(request(provider="google", model=FLASH), Heard())
            await provider.close()
        assert server.connections == 1


class TestCredentials:
    async def test_a_service_account_gets_one_token_for_many_calls(self, tmp_path: Path) -> None:
        async with ModelServer(hello) as server, token_server() as tokens:
            provider = vertex(server, tmp_path, tokens=tokens.url)
            calls = [request(provider="google-vertex", model=FLASH) for _ in range(3)]
            await asyncio.gather(*(provider.generate(one, Heard()) for one in calls))
            await provider.close()
        (form,) = tokens.asked
        claims = json.loads(base64.urlsafe_b64decode(form["assertion"].split(".")[1] + "=="))
        assert claims["iss"] == "perstack@test-project.iam.gserviceaccount.com"
        assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        assert {one.headers["authorization"] for one in server.requests} == {"Bearer ya29.other"}

    async def test_an_expired_token_is_replaced(self, tmp_path: Path) -> None:
        async with (
            ModelServer(hello) as server,
            token_server(body={"access_token": "ya29.short", "expires_in": 1}) as tokens,
        ):
            provider = vertex(server, tmp_path, tokens=tokens.url)
            for _ in range(2):
                await provider.generate(request(provider="google-vertex", model=FLASH), Heard())
            await provider.close()
        assert len(tokens.asked) == 2

    async def test_the_credentials_gcloud_left_are_found(self, tmp_path: Path) -> None:
        folder = tmp_path / ".config" / "gcloud"
        folder.mkdir(parents=True)
        async with ModelServer(hello) as server:
            credentials(folder, server.url).rename(folder / "application_default_credentials.json")
            env = {"GOOGLE_APPLICATION_CREDENTIALS": "", "HOME": str(tmp_path)}
            provider = vertex(server, tmp_path, env=env)
            await provider.generate(request(provider="google-vertex", model=FLASH), Heard())
            await provider.close()
        assert server.requests[-1].headers["authorization"] == f"Bearer {TOKEN}"

    async def test_the_quota_project_of_a_user_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "user.json"
        user_info = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
        path.write_text(json.dumps({**user_info, "quota_project_id": "paying"}))
        async with token_server() as proxy:
            env = {"GOOGLE_APPLICATION_CREDENTIALS": str(path), "PERSTACK_PROXY_URL": proxy.url}
            provider = vertex(None, tmp_path, env=env)
            client = await provider._connected()  # pyright: ignore[reportPrivateUsage]
            with pytest.raises(ProviderError):
                await provider.generate(request(provider="google-vertex", model=FLASH), Heard())
            await provider.close()
        credentials_ = client._api_client._credentials  # pyright: ignore[reportPrivateUsage]
        assert credentials_ is not None
        assert credentials_.quota_project_id == "paying"
        assert client._api_client.project == "paying"  # pyright: ignore[reportPrivateUsage]
        # A user's tokens come from a fixed address, through the proxy.
        assert proxy.tunnels == ["oauth2.googleapis.com:443"]


class TestMessages:
    @pytest.mark.parametrize(
        ("part", "wire"),
        [
            (TextPart(text="hi"), {"text": "hi"}),
            (
                ImageUrlPart(url="https://a.test/i.png", mime_type="image/png"),
                {"fileData": {"mimeType": "image/png", "fileUri": "https://a.test/i.png"}},
            ),
            (
                ImageInlinePart(encoded_data=PNG, mime_type="image/jpg"),
                {"inlineData": {"mimeType": "image/jpeg", "data": PNG}},
            ),
            (
                ImageBinaryPart(data="\x89PNG", mime_type="image/png"),
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
            ),
            (
                FileUrlPart(url="https://a.test/f.pdf", mime_type="application/pdf"),
                {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a.test/f.pdf"}},
            ),
            (
                FileBinaryPart(data="%PDF", mime_type="application/pdf"),
                {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}},
            ),
            (
                FileInlinePart(encoded_data=base64.b64encode("größe".encode()).decode(), mime_type="text/csv"),
                {"text": "größe"},
            ),
        ],
    )
    async def test_every_part_a_user_can_send_is_mapped(self, part: UserPart, wire: Json) -> None:
        assert await sent(user(part)) == [{"role": "user", "parts": [wire]}]

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            (ImageInlinePart(encoded_data=PNG, mime_type="image/gif"), "`image/gif`: it takes JPEG, PNG and WebP"),
            (ImageUrlPart(url="https://a.test/i", mime_type="image/svg+xml"), "imageUrlPart of type `image/svg+xml`"),
            (FileInlinePart(encoded_data="AA==", mime_type="application/zip"), "fileInlinePart of type"),
            (FileUrlPart(url="https://a.test/f", mime_type="text/csv"), "fileUrlPart of type `text/csv`"),
            (FileInlinePart(encoded_data="/w==", mime_type="text/plain"), "not UTF-8"),
            (ImageBinaryPart(data="ł", mime_type="image/png"), "not a string of bytes"),
            (TextPart(text=" \n"), "empty user message"),
        ],
    )
    async def test_what_the_api_cannot_take_is_refused_by_name(self, part: UserPart, words: str) -> None:
        with pytest.raises(ProviderError, match=re.escape(words)) as caught:
            await sent(user(part))
        assert (caught.value.code, caught.value.is_retryable) == ("provider.unsupported", False)

    async def test_turns_alternate_and_results_come_first(self) -> None:
        contents = await sent(
            user("Go."), said("Let me look.", call("c1"), call("c2", path="a")), user("Hurry."),
            results(result("c1", "one"), result("c2", "two")), user("Please."), model=FLASH_2_5,
        )  # fmt: skip
        assert [content["role"] for content in contents] == ["user", "model", "user"]
        assert contents[1]["parts"] == [
            {"text": "Let me look."},
            {"functionCall": {"name": "look", "args": {}, "id": "c1"}},
            {"functionCall": {"name": "look", "args": {"path": "a"}, "id": "c2"}},
        ]
        assert contents[2]["parts"] == [
            {"functionResponse": {"name": "look", "response": {"output": "one"}, "id": "c1"}},
            {"functionResponse": {"name": "look", "response": {"output": "two"}, "id": "c2"}},
            {"text": "Hurry."},
            {"text": "Please."},
        ]

    @pytest.mark.parametrize("model", [FLASH, FLASH_2_5])
    async def test_results_keep_text_pictures_documents_and_errors(self, model: str) -> None:
        picture = ImageInlinePart(encoded_data=PNG, mime_type="image/png")
        contents = await sent(
            user("Go."),
            said(*(call(f"c{n}") for n in range(5))),
            results(
                result("c0", "with", picture, FileInlinePart(encoded_data="JVBERg==", mime_type="application/pdf")),
                result("c1", "bad", is_error=True),
                result("c2", FileInlinePart(encoded_data="aGk=", mime_type="text/plain"), "two"),
                result("c3", ImageInlinePart(encoded_data=PNG, mime_type="image/gif")),
                result("c4", is_error=True),
            ),
            model=model,
        )
        media = [
            {"inlineData": {"mimeType": "image/png", "data": PNG}},
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg=="}},
        ]
        responses = [part["functionResponse"] for part in contents[2]["parts"][:5]]
        assert responses[0].get("parts") == (media if model == FLASH else None)
        assert contents[2]["parts"][5:] == ([] if model == FLASH else media)
        assert [response["response"] for response in responses[:3]] == [
            {"output": "with"},
            {"error": "bad"},
            {"output": "hi\ntwo"},
        ]
        assert "image of type image/gif" in responses[3]["response"]["output"]
        assert responses[4]["response"] == {"error": "The tool failed."}

    async def test_reasoning_of_other_providers_is_left_out_and_their_tools_are_told_in_words(self) -> None:
        contents = await sent(
            user("Go."),
            said(
                ThinkingPart(thinking="hm", signature="messages:{}"),
                ThinkingPart(thinking="hm"),
                ProviderToolPart(tool_name="webSearch", args={"query": "x"}, replay='messages:{"blocks": []}'),
                "Yes.",
            ),
            user("And?"),
        )
        told = '[The tool webSearch was asked {"query":"x"} and answered.]'
        assert contents[1] == {"role": "model", "parts": [{"text": told}, {"text": "Yes."}]}

    async def test_an_answer_that_said_nothing_is_left_out(self) -> None:
        contents = await sent(user("Go."), said(ThinkingPart(thinking="hm"), ""), user("Say something."))
        assert contents == [{"role": "user", "parts": [{"text": "Go."}, {"text": "Say something."}]}]

    async def test_half_a_surrogate_pair_does_not_break_the_request(self) -> None:
        assert await sent(user("a\ud83db")) == [{"role": "user", "parts": [{"text": "a?b"}]}]

    async def test_a_conversation_that_ends_with_the_expert_is_refused(self) -> None:
        with pytest.raises(ProviderError, match="does not end with something"):
            await sent(user("Go."), said("Done."))

    async def test_each_message_is_mapped_once_in_the_life_of_a_session(self) -> None:
        rendered: list[int] = []

        class Counting(WireCache):
            def message(self, index: int, message: Message, render: Callable[[Message], bytes]) -> bytes:
                def counted(one: Message) -> bytes:
                    rendered.append(index)
                    return render(one)

                return super().message(index, message, counted)

        cache = Counting()
        conversation = steps(0)
        async with ModelServer(hello) as server:
            provider = gemini(server)
            for number in range(5):
                await provider.generate(request(conversation, provider="google", model=FLASH, cache=cache), Heard())
                conversation += steps(number + 1)[-2:]
            await provider.close()
        assert sorted(rendered) == list(range(len(conversation) - 2))
        assert len(server.requests[-1].messages) == 9


class TestTools:
    async def test_a_function_without_parameters_has_no_schema(self) -> None:
        _, sent_request = await ask(tools=(tool("look"), LOOK.model_copy(update={"name": "see"})))
        first, second = sent_request.json["tools"][0]["functionDeclarations"]
        assert first == {"name": "look", "description": "Does look."}
        assert second["parametersJsonSchema"] == LOOK.input_schema

    async def test_names_with_other_letters_are_spelt_for_the_api_and_back(self) -> None:
        answer = Answer(calls=(Call(name="docs_search_all", id="c2"),))
        conversation = [instruction(), user("Go."), said(call("c1", "docs.search/all")), results(result("c1", "x"))]
        generation, sent_request = await ask(answer, tools=(tool("docs.search/all"),), messages=conversation)
        assert sent_request.json["tools"][0]["functionDeclarations"][0]["name"] == "docs_search_all"
        assert sent_request.messages[1]["parts"][0]["functionCall"]["name"] == "docs_search_all"
        assert generation.contents == (ToolCallPart(tool_call_id="c2", tool_name="docs.search/all", args={}),)

    async def test_names_that_become_one_are_refused(self) -> None:
        with pytest.raises(ProviderError, match=re.escape("`a.b` and `a/b`")):
            await ask(tools=(tool("a.b"), tool("a/b")))


class TestReasoning:
    @pytest.mark.parametrize(
        ("model", "reasoning", "config"),
        [
            ("gemini-4-argon", "minimal", {"includeThoughts": True, "thinkingLevel": "LOW"}),
            ("gemini-4-argon", "high", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
            ("gemini-4-argon", "none", {"thinkingLevel": "LOW"}),
            ("gemini-3.8-flash", 5000, {"includeThoughts": True, "thinkingLevel": "MEDIUM"}),
            ("gemini-3.5-flash-lite", "minimal", {"includeThoughts": True, "thinkingLevel": "MINIMAL"}),
            ("gemini-3.5-flash-lite", 0, {"thinkingLevel": "MINIMAL"}),
            ("gemini-3-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "HIGH"}),
            ("gemini-3.1-flash-lite-preview-09-2026", "minimal", {"includeThoughts": True, "thinkingLevel": "MINIMAL"}),
            ("gemini-9-helium", "medium", {"includeThoughts": True, "thinkingLevel": "MEDIUM"}),
            ("gemini-2.5-pro", "none", {"thinkingBudget": 128}),
            ("gemini-2.5-pro", 1_000_000, {"includeThoughts": True, "thinkingBudget": 32_768}),
            ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
            ("gemini-2.5-flash", "medium", {"includeThoughts": True, "thinkingBudget": 5000}),
            ("gemini-2.5-flash-lite", 7, {"includeThoughts": True, "thinkingBudget": 512}),
            ("gemini-2.0-flash", "high", None),
            ("gemini-3.1-flash-image", "high", None),
            ("gemini-flash-latest", "high", None),
            ("gemma-4", "none", None),
        ],
    )
    async def test_each_model_is_asked_in_its_own_way(self, model: str, reasoning: Any, config: Json | None) -> None:
        _, sent_request = await ask(model=model, reasoning=reasoning)
        assert sent_request.json.get("generationConfig", {}).get("thinkingConfig") == config

    async def test_the_output_limit_leaves_room_beside_the_budget_and_stays_in_one_request(self) -> None:
        _, sent_request = await ask(model=FLASH_2_5, reasoning="high", max_output_tokens=2000)
        assert sent_request.json["generationConfig"]["thinkingConfig"]["thinkingBudget"] == 1000
        _, sent_request = await ask(model="gemini-4-argon", max_output_tokens=1_048_576)
        assert sent_request.json["generationConfig"]["maxOutputTokens"] == 65_536


async def again(*parts: Json, tools: tuple[ToolSpec, ...] = (LOOK,), **fields: Any) -> tuple[Generation, list[Json]]:
    """An answer of these parts, and how its calls and the rest go back in the next request."""
    generation, _ = await ask(Answer(blocks=parts), tools=tools, **fields)
    # As it comes back from the history.
    message = ExpertMessage.model_validate_json(said(*generation.contents).model_dump_json())
    answers = results(*(result(one.tool_call_id, "x") for one in message.calls)) if message.calls else user("And?")
    contents = await sent(user("Go."), message, answers, model=fields.get("model", FLASH))
    return generation, contents[1]["parts"]


class TestSignatures:
    async def test_parts_go_back_in_their_places_with_their_signatures(self) -> None:
        parts: tuple[Json, ...] = (
            {"text": "first", "thought": True},
            {"text": "I look.", "thoughtSignature": "c2ln"},
            {"text": "second", "thought": True, "thoughtSignature": "dGho"},
            {"functionCall": {"name": "look", "args": {"path": "a"}, "id": "c1"}, "thoughtSignature": SIGNATURE},
            {"functionCall": {"name": "look", "args": {"path": "b"}, "id": "c2"}},
            {"text": "Done."},
            {"text": "", "thoughtSignature": "ZW5k"},
        )
        generation, replayed = await again(*parts)
        assert [part.type for part in generation.contents] == [
            "thinkingPart", "thinkingPart", "textPart", "textPart", "toolCallPart", "toolCallPart",
        ]  # fmt: skip
        assert generation.finish_reason == "toolCalls"
        assert replayed == list(parts)

    async def test_calls_that_change_places_for_us_go_back_in_theirs(self) -> None:
        parts: tuple[Json, ...] = (
            {"functionCall": {"name": "helper", "args": {}, "id": "c1"}, "thoughtSignature": SIGNATURE},
            {"functionCall": {"name": "look", "args": {}, "id": "c2"}},
        )
        generation, replayed = await again(*parts, tools=(LOOK, tool("helper", "delegate")))
        calls = [part.tool_call_id for part in generation.contents if isinstance(part, ToolCallPart)]
        assert calls == ["c2", "c1"]
        assert generation.contents[0].type == "thinkingPart"
        assert replayed == list(parts)

    async def test_a_plain_answer_holds_nothing_else(self) -> None:
        generation, replayed = await again({"text": "I look."}, {"functionCall": {"name": "look", "id": "c1"}})
        assert [part.type for part in generation.contents] == ["textPart", "toolCallPart"]
        assert replayed[1]["thoughtSignature"] == "skip_thought_signature_validator"

    async def test_a_call_of_another_model_gets_the_signature_that_stands_for_none(self) -> None:
        conversation = (user("Go."), said("I look.", call("c1"), call("c2")), results(result("c1"), result("c2")))
        contents = await sent(*conversation)
        assert [part.get("thoughtSignature") for part in contents[1]["parts"]] == [
            None,
            "skip_thought_signature_validator",
            None,
        ]
        for model in (
            "gemini-flash-latest",
            "gemini-3.1-pro-preview-customtools",
            "publishers/google/models/gemini-4-x",
        ):
            contents = await sent(*conversation, model=model)
            assert "thoughtSignature" in contents[1]["parts"][1]
        contents = await sent(*conversation, model=FLASH_2_5)
        assert not any("thoughtSignature" in part for part in contents[1]["parts"])

    async def test_what_was_added_to_or_taken_from_an_answer_does_not_break_its_layout(self) -> None:
        generation, _ = await ask(
            Answer(
                blocks=(
                    {"text": "a", "thoughtSignature": "c2ln"},
                    {"functionCall": {"name": "look", "args": {}, "id": "c1"}, "thoughtSignature": SIGNATURE},
                )
            ),
            tools=(LOOK,),
        )
        kept = [part for part in generation.contents if not isinstance(part, ToolCallPart)]
        contents = await sent(user("Go."), said(*kept, TextPart(text="b")), user("And?"))
        assert contents[1]["parts"] == [{"text": "a", "thoughtSignature": "c2ln"}, {"text": "b"}]


class TestProviderTools:
    async def test_each_tool_is_asked_for_with_its_options(self, tmp_path: Path) -> None:
        tools = (
            SEARCH,
            ProviderTool(name="codeExecution"),
            ProviderTool(name="urlContext"),
            ProviderTool(name="fileSearch", options={"vectorStoreIds": ["fileSearchStores/a"], "maxNumResults": 3}),
            ProviderTool(name="googleMaps", options={"retrievalConfig": {"latLng": {"latitude": 1, "longitude": 2}}}),
        )
        _, sent_request = await ask(provider_tools=tools)
        assert sent_request.json["tools"] == [
            {"googleSearch": {}},
            {"codeExecution": {}},
            {"urlContext": {}},
            {"fileSearch": {"fileSearchStoreNames": ["fileSearchStores/a"], "topK": 3}},
            {"googleMaps": {}},
        ]
        assert sent_request.json["toolConfig"] == {"retrievalConfig": {"latLng": {"latitude": 1, "longitude": 2}}}
        _, sent_request = await ask(provider_tools=(ProviderTool(name="enterpriseWebSearch"),), vertex_in=tmp_path)
        assert sent_request.json["tools"] == [{"enterpriseWebSearch": {}}]

    async def test_beside_functions_the_gemini_api_is_told_to_show_its_own_calls(self, tmp_path: Path) -> None:
        _, sent_request = await ask(provider_tools=(SEARCH,), tools=(LOOK,))
        assert [list(entry) for entry in sent_request.json["tools"]] == [["functionDeclarations"], ["googleSearch"]]
        assert sent_request.json["toolConfig"] == {"includeServerSideToolInvocations": True}
        _, sent_request = await ask(provider_tools=(SEARCH,), tools=(LOOK,), vertex_in=tmp_path)
        assert len(sent_request.json["tools"]) == 2
        assert "toolConfig" not in sent_request.json

    async def test_a_search_is_kept_with_its_queries_and_sources_and_texts_cite_them(self) -> None:
        web = [{"web": {"uri": f"https://{n}.test", "title": f"{n}.test"}} for n in ("a", "b", "c")]
        metadata = {
            "webSearchQueries": ["height of towers"],
            "groundingChunks": web,
            "groundingSupports": [
                {"segment": {"text": "It is tall."}, "groundingChunkIndices": [0, 2]},
                {"segment": {"text": "It is tall."}, "groundingChunkIndices": [2, 9]},
            ],
        }
        blocks: tuple[Json, ...] = ({"text": "It is tall."}, {"candidate": {"groundingMetadata": metadata}})
        generation, _ = await ask(Answer(blocks=blocks), provider_tools=(SEARCH,))
        a, b, c = (Source(url=f"https://{n}.test", title=f"{n}.test") for n in ("a", "b", "c"))
        assert generation.contents == (
            ProviderToolPart(tool_name="googleSearch", args={"queries": ["height of towers"]}, sources=(a, b, c)),
            TextPart(text="It is tall.", sources=(a, c)),
        )

    @pytest.mark.parametrize(
        ("asked_for", "chunk", "tool_name"),
        [
            ("enterpriseWebSearch", {"web": {"uri": "https://a.test", "title": "A"}}, "enterpriseWebSearch"),
            ("googleMaps", {"maps": {"uri": "https://a.test", "title": "A", "placeId": "p"}}, "googleMaps"),
            ("fileSearch", {"retrievedContext": {"uri": "https://a.test", "title": "A", "text": "…"}}, "fileSearch"),
            ("urlContext", {"web": {"uri": "https://a.test", "title": "A"}}, "urlContext"),
        ],
    )
    async def test_a_source_tells_which_tool_found_it(self, asked_for: str, chunk: Json, tool_name: str) -> None:
        blocks: tuple[Json, ...] = (
            {"text": "Yes."},
            {"candidate": {"groundingMetadata": {"groundingChunks": [chunk]}}},
        )
        options = {"vectorStoreIds": ["s"]} if asked_for == "fileSearch" else {}
        generation, _ = await ask(
            Answer(blocks=blocks), provider_tools=(ProviderTool(name=asked_for, options=options),)
        )
        assert generation.contents[0] == ProviderToolPart(
            tool_name=tool_name, sources=(Source(url="https://a.test", title="A"),)
        )

    async def test_citations_of_the_model_become_sources(self) -> None:
        cited = {"citationSources": [{"startIndex": 0, "uri": "https://a.test"}, {"license": "mit"}]}
        blocks: tuple[Json, ...] = ({"text": "Yes."}, {"candidate": {"citationMetadata": cited}})
        generation, _ = await ask(Answer(blocks=blocks))
        assert generation.contents == (TextPart(text="Yes.", sources=(Source(url="https://a.test"),)),)

    async def test_code_and_what_it_drew_are_kept_and_go_back_as_they_came(self) -> None:
        parts: tuple[Json, ...] = (
            {"executableCode": {"language": "PYTHON", "code": "print(1)", "id": "e1"}, "thoughtSignature": SIGNATURE},
            {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1\n", "id": "e1"}},
            {"inlineData": {"mimeType": "image/png", "data": PNG}},
            {"text": "It is 1."},
            {"executableCode": {"language": "PYTHON", "code": "boom"}},
            {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "NameError"}},
        )
        generation, replayed = await again(*parts, provider_tools=(ProviderTool(name="codeExecution"),), tools=())
        tools = [part for part in generation.contents if isinstance(part, ProviderToolPart)]
        assert [(part.tool_name, part.args, part.contents, part.is_error) for part in tools] == [
            (
                "codeExecution",
                {"code": "print(1)", "language": "python"},
                (TextPart(text="1\n"), ImageInlinePart(encoded_data=PNG, mime_type="image/png")),
                None,
            ),
            ("codeExecution", {"code": "boom", "language": "python"}, (TextPart(text="NameError"),), True),
        ]
        # A picture is kept once.
        assert PNG not in (tools[0].replay or "")
        assert replayed == list(parts)

    async def test_calls_of_its_own_go_back_as_they_came(self) -> None:
        parts: tuple[Json, ...] = (
            {
                "toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "id": "s1", "args": {"queries": ["towers"]}},
                "thoughtSignature": "c2Vh",
            },
            {
                "toolResponse": {
                    "toolType": "GOOGLE_SEARCH_WEB",
                    "id": "s1",
                    "response": {"search_suggestions": "<div>", "hits": 3},
                },
                "thoughtSignature": "cmVz",
            },
            {"functionCall": {"name": "look", "args": {}, "id": "c1"}, "thoughtSignature": SIGNATURE},
        )
        found = {"webSearchQueries": ["towers"], "groundingChunks": [{"web": {"uri": "https://a.test"}}]}
        generation, replayed = await again(
            *parts, {"candidate": {"groundingMetadata": found}}, provider_tools=(SEARCH,)
        )
        (part,) = [part for part in generation.contents if isinstance(part, ProviderToolPart)]
        assert (part.tool_name, part.args, part.sources) == (
            "googleSearch",
            {"queries": ["towers"]},
            (Source(url="https://a.test"),),
        )
        assert part.contents == (TextPart(text='{"hits":3}'),)
        assert replayed == list(parts)

    async def test_pages_that_were_read_or_could_not_be_are_told(self) -> None:
        pages = [
            {"retrievedUrl": "https://a.test", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_SUCCESS"},
            {"retrievedUrl": "https://b.test", "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_PAYWALL"},
        ]
        blocks: tuple[Json, ...] = (
            {"text": "Read."},
            {"candidate": {"urlContextMetadata": {"urlMetadata": pages}}},
        )
        generation, _ = await ask(Answer(blocks=blocks), provider_tools=(ProviderTool(name="urlContext"),))
        assert generation.contents[0] == ProviderToolPart(
            tool_name="urlContext",
            args={"urls": ["https://a.test", "https://b.test"]},
            contents=(TextPart(text="https://b.test: paywall"),),
            sources=(Source(url="https://a.test"),),
        )

    async def test_a_picture_of_the_model_itself_is_kept(self) -> None:
        parts: tuple[Json, ...] = (
            {"text": "Here:"},
            {"inlineData": {"mimeType": "image/png", "data": PNG}, "thoughtSignature": SIGNATURE},
        )
        generation, replayed = await again(*parts, tools=())
        kinds: list[ExpertPart] = [part for part in generation.contents if part.type == "providerToolPart"]
        assert isinstance(kinds[0], ProviderToolPart)
        assert (kinds[0].tool_name, kinds[0].contents) == (
            "imageGeneration",
            (ImageInlinePart(encoded_data=PNG, mime_type="image/png"),),
        )
        assert replayed == list(parts)


class TestAnswer:
    async def test_thinking_text_and_calls_stream_and_are_kept_in_this_order(self) -> None:
        answer = Answer(thinking="Let me think.", text="I look.", calls=(Call(name="look", id="c1"),), delta_size=4)
        heard = Heard()
        generation, _ = await ask(answer, heard=heard, tools=(LOOK,))
        thought, text, made = generation.contents
        assert isinstance(thought, ThinkingPart)
        assert thought.thinking == "Let me think."
        assert (text, made) == (
            TextPart(text="I look."),
            ToolCallPart(tool_call_id="c1", tool_name="look", args={}),
        )
        assert (heard.all("reasoning"), heard.all("text")) == ("Let me think.", "I look.")
        assert heard.pieces[:2] == [("reasoning", "Let "), ("reasoning", "me t")]
        assert (generation.model, generation.attempts) == (FLASH, ())

    async def test_a_call_without_an_id_gets_one_that_stays_ours(self) -> None:
        part: Json = {"functionCall": {"name": "look", "args": {}}}
        generation, replayed = await again(part, part, model=FLASH_2_5)
        ids = [part.tool_call_id for part in generation.contents if isinstance(part, ToolCallPart)]
        assert len(set(ids)) == 2
        assert replayed == [part, part]

    @pytest.mark.parametrize(("args", "raw"), [("[1,2]", "[1,2]"), ('{"path": "a', '{"path": "a'), ("7", "7")])
    async def test_arguments_that_are_no_json_object_are_handed_on_for_an_error(self, args: str, raw: str) -> None:
        generation, _ = await ask(Answer(calls=(Call(name="look", id="c1", args=args),)), tools=(LOOK,))
        assert generation.contents == (
            ToolCallPart(tool_call_id="c1", tool_name="look", args={INVALID_JSON_ARGUMENT: raw}),
        )

    @pytest.mark.parametrize(
        ("stop_reason", "finish_reason"),
        [
            ("STOP", "stop"),
            ("MAX_TOKENS", "length"),
            ("SAFETY", "refusal"),
            ("RECITATION", "refusal"),
            ("BLOCKLIST", "refusal"),
            ("PROHIBITED_CONTENT", "refusal"),
            ("SPII", "refusal"),
            ("MODEL_ARMOR", "refusal"),
            ("IMAGE_SAFETY", "refusal"),
            ("OTHER", "other"),
            ("TOO_MANY_TOOL_CALLS", "other"),
            ("SOMETHING_NEW", "other"),
        ],
    )
    async def test_every_stop_reason_has_a_meaning(self, stop_reason: str, finish_reason: FinishReason) -> None:
        generation, _ = await ask(Answer(text="hello", stop_reason=stop_reason))
        assert generation.finish_reason == finish_reason

    async def test_an_empty_answer_is_an_answer(self) -> None:
        generation, _ = await ask(Answer())
        assert (generation.contents, generation.finish_reason) == ((), "stop")

    async def test_usage_adds_thoughts_and_what_tools_read(self) -> None:
        usage = {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 60,
            "toolUsePromptTokenCount": 20,
            "candidatesTokenCount": 7,
            "thoughtsTokenCount": 13,
            "totalTokenCount": 140,
            "trafficType": "ON_DEMAND",
        }
        seen: list[Usage] = []
        generation, _ = await ask(Answer(text="hello", usage=usage), on_usage=seen.append)
        assert generation.usage == Usage(
            input_tokens=120, output_tokens=20, reasoning_tokens=13, total_tokens=140, cached_input_tokens=60
        )
        assert [one.output_tokens for one in seen] == [13, 20]

    async def test_chunks_and_parts_of_a_later_release_are_passed_over(self) -> None:
        stream = (
            'data: {"brandNew": true}\r\n\r\n'
            ": a comment\r\n\r\n"
            'event: any\r\ndata: {"candidates": [{"content": {"parts": [{"hologram": {}}, {"text": "good"}]}}]}\r\n\r\n'
            'data: {"candidates": [{"content": {"parts": [{"text": "\u2028bye"}]}, "finishReason": "STOP"}]}\n\n'
            'data: {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4}}\n'
        )
        generation, _ = await ask(Answer(raw_body=stream, content_type="text/event-stream"))
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="good\u2028bye"),), "stop")
        # The last chunk came behind the reason of the end.
        assert generation.usage.total_tokens == 7

    async def test_an_answer_in_several_requests_is_one_answer(self) -> None:
        def script(asked: Request) -> Answer:
            token = asked.json.get("continuationToken")
            if token is None:
                cut = {"candidate": {"continuationToken": "dG9rZW4="}}
                return Answer(blocks=({"text": "first "}, cut), stop_reason="CONTINUATION")
            assert token == "dG9rZW4="
            return Answer(text="second")

        seen: list[Usage] = []
        async with ModelServer(script) as server:
            provider = gemini(server)
            generation = await provider.generate(
                request(provider="google", model="gemini-4-argon", on_usage=seen.append), Heard()
            )
            await provider.close()
        assert generation.contents == (TextPart(text="first second"),)
        assert (generation.usage.input_tokens, generation.usage.output_tokens) == (20, 10)
        assert seen[-1] == generation.usage
        assert len(server.requests) == 2

    async def test_an_answer_that_cannot_go_on_was_cut_by_its_length(self) -> None:
        generation, _ = await ask(Answer(text="hello", stop_reason="CONTINUATION"))
        assert generation.finish_reason == "length"


class TestCancellation:
    async def test_a_cancelled_call_lets_go_at_once_and_its_cost_is_known(self) -> None:
        seen: list[Usage] = []
        usage = {"promptTokenCount": 50, "candidatesTokenCount": 9}
        answer = Answer(text="hello there", delta_size=3, after_events=2, then="hang", usage=usage)
        heard = Heard()
        async with ModelServer(always(answer)) as server:
            provider = gemini(server)
            task = asyncio.create_task(
                provider.generate(request(provider="google", model=FLASH, on_usage=seen.append), heard)
            )
            await until(lambda: bool(heard.pieces))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: bool(server.abandoned))
            assert seen == [Usage(input_tokens=50, total_tokens=50)]
            server.script = hello
            generation = await provider.generate(request(provider="google", model=FLASH), Heard())
            assert generation.contents == (TextPart(text="hello"),)
            await provider.close()
