import asyncio
import base64
import re
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise
from types import MappingProxyType
from typing import Any, cast

import pytest
from openai import AsyncOpenAI
from perstack.activities.providers.base import INVALID_JSON_ARGUMENT, WireCache
from perstack.activities.providers.failures import ProviderError
from perstack.activities.providers.ollama_models import SECONDS, context_length
from perstack.core.messages import (
    FileBinaryPart,
    FileInlinePart,
    FileUrlPart,
    ImageBinaryPart,
    ImageInlinePart,
    ImageUrlPart,
    Message,
    ProviderToolPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserPart,
)
from perstack.core.profiles.provider import ProviderProfile, TierModel
from perstack.core.profiles.providers import PROVIDERS
from perstack.core.run import FinishReason, Generation
from perstack.core.usage import Usage
from support import model_requests
from support.model_requests import (
    API_KEY,
    Heard,
    call,
    compatible,
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
from support.protocols.chat import CHAT

PNG = base64.b64encode(b"\x89PNG").decode()
PICTURE = ImageInlinePart(encoded_data=PNG, mime_type="image/png")
PICTURE_BLOCK: Json = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
TENTH = ProviderProfile(
    title="Tenth",
    api="chat",
    module="compatible",
    tiers={"middle": TierModel("tenth-large", 128_000)},
    credentials=("TENTH_API_KEY",),
    required_env=("TENTH_API_KEY",),
    base_url="https://api.tenth.test/openai/v2",
    base_url_env="TENTH_BASE_URL",
)
"""A provider that has nothing but an entry."""
MODELS: Mapping[str, str] = MappingProxyType(
    {
        "fireworks": "accounts/fireworks/models/kimi-k3",
        "deepseek": "deepseek-flash",
        "ollama": "gpt-oss:20b",
        "tenth": "tenth-large",
    }
)
PATHS: Mapping[str, str] = MappingProxyType(
    {
        "fireworks": "/inference/v1/chat/completions",
        "deepseek": "/chat/completions",
        "ollama": "/v1/chat/completions",
        "tenth": "/openai/v2/chat/completions",
    }
)
OPTIONS: Mapping[str, Json] = MappingProxyType(
    {
        "fireworks": {"reasoning_effort": "low"},
        "deepseek": {"reasoning_effort": "low", "thinking": {"type": "enabled"}},
        "ollama": {"reasoning_effort": "low"},
        "tenth": {},
    }
)
"""What each is sent for little reasoning."""

NO_ARGS: Json = {}

everybody = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def a_tenth_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    providers = {**PROVIDERS, "tenth": TENTH}
    monkeypatch.setattr("perstack.activities.providers.compatible.PROVIDERS", providers)
    monkeypatch.setattr(model_requests, "PROVIDERS", providers)


def hello(_: Request) -> Answer:
    return Answer(text="hello")


def always(answer: Answer) -> Script:
    return lambda _: answer


async def ask(
    name: str, answer: Answer | Callable[[Request], Answer] = hello, *, heard: Heard | None = None, **fields: Any
) -> tuple[Generation, Request]:
    """One call to a server that gives `answer`, and what it was sent."""
    async with ModelServer(always(answer) if isinstance(answer, Answer) else answer) as server:
        provider = compatible(name, server)
        try:
            fields = {"model": MODELS[name], **fields}
            generation = await provider.generate(request(provider=name, **fields), heard or Heard())
        finally:
            await provider.close()
        return generation, server.requests[-1]


async def sent(name: str, *messages: Message, **fields: Any) -> list[Json]:
    """The messages on the wire, without the system's."""
    _, sent_request = await ask(name, messages=[instruction(), *messages], **fields)
    return sent_request.messages


async def refusal(name: str, *messages: Message) -> ProviderError:
    async with ModelServer(hello) as server:
        provider = compatible(name, server)
        with pytest.raises(ProviderError) as caught:
            await provider.generate(request([instruction(), *messages], model=MODELS[name]), Heard())
        await provider.close()
    assert server.requests == []
    return caught.value


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class TestRequest:
    @everybody
    async def test_the_whole_body(self, name: str) -> None:
        _, sent_request = await ask(name, messages=steps(1), tools=(tool("look"),), max_output_tokens=500)
        reasoning = {"reasoning_content": ""} if name == "deepseek" else {}
        function = {"name": "look", "arguments": '{"path":"file0"}'}
        assert sent_request.path == PATHS[name]
        assert sent_request.json == {
            "model": MODELS[name],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": 500,
            **OPTIONS[name],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "look",
                        "description": "Does look.",
                        "parameters": {"type": "object", "properties": {}},
                    },
                }
            ],
            "messages": [
                {"role": "system", "content": "You are an expert."},
                {"role": "user", "content": "Go."},
                {
                    "role": "assistant",
                    "content": "",
                    **reasoning,
                    "tool_calls": [{"id": "c0", "type": "function", "function": function}],
                },
                {"role": "tool", "tool_call_id": "c0", "content": "content"},
            ],
        }

    @everybody
    async def test_body_and_headers_equal_those_of_the_typed_call(self, name: str) -> None:
        conversation = [*steps(3), user("Now:")]
        async with ModelServer(hello) as server:
            provider = compatible(name, server)
            asked = request(conversation, tools=(tool("look"),), provider=name, model=MODELS[name])
            await provider.generate(asked, Heard())
            ours = server.requests[-1]
            base_url = f"{server.url}{PATHS[name].removesuffix('/chat/completions')}"
            async with AsyncOpenAI(api_key=API_KEY, base_url=base_url, max_retries=0) as client:
                typed: Json = {key: value for key, value in ours.json.items() if key != "thinking"}
                extra = {key: value for key, value in ours.json.items() if key == "thinking"}
                create: Any = client.chat.completions.create
                stream: Any = await create(**typed, extra_body=extra, timeout=20)
                assert "".join([c.choices[0].delta.content or "" async for c in stream if c.choices]) == "hello"
            theirs = server.requests[-1]
            await provider.close()
        assert ours.json == theirs.json
        differing = {"content-length", "x-stainless-read-timeout", "x-stainless-timeout", "x-session-affinity"}
        if name == "ollama":
            assert "authorization" not in ours.headers
            differing.add("authorization")
        assert {k: v for k, v in ours.headers.items() if k not in differing} == {
            k: v for k, v in theirs.headers.items() if k not in differing
        }

    @pytest.mark.parametrize("name", ["fireworks", "deepseek", "tenth"])
    async def test_the_key_is_that_of_the_provider(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-somebody-elses-0123")
        monkeypatch.setenv("OPENAI_ORG_ID", "org-somebody")
        _, sent_request = await ask(name)
        assert sent_request.headers["authorization"] == f"Bearer {API_KEY}"
        assert "openai-organization" not in sent_request.headers

    @everybody
    async def test_settings_go_before_the_environment(self, name: str) -> None:
        profile = {**PROVIDERS, "tenth": TENTH}[name]
        async with ModelServer(hello) as server:
            setting = {"baseUrl": f"{server.url}/v1/", "headers": {"x-team": "blue"}}
            provider = compatible(name, None, setting=setting, env={profile.base_url_env: "http://127.0.0.1:1"})
            await provider.generate(request(), Heard())
            await provider.close()
        assert server.requests[-1].path == "/v1/chat/completions"
        assert server.requests[-1].headers["x-team"] == "blue"

    @pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/api", "/api/"])
    async def test_every_way_to_write_the_address_of_ollama_is_understood(self, suffix: str) -> None:
        async with ModelServer(hello) as server:
            provider = compatible("ollama", None, env={"OLLAMA_BASE_URL": f"{server.url}{suffix}"})
            await provider.generate(request(), Heard())
            await provider.close()
        assert server.requests[-1].path == "/v1/chat/completions"

    async def test_the_default_addresses_are_those_of_the_vendors(self) -> None:
        providers = {name: compatible(name, None) for name in ("fireworks", "deepseek", "ollama")}
        found = {name: str(cast("Any", one)._client.base_url).rstrip("/") for name, one in providers.items()}
        for provider in providers.values():
            await provider.close()
        assert found == {
            "fireworks": "https://api.fireworks.ai/inference/v1",
            "deepseek": "https://api.deepseek.com",
            "ollama": "http://localhost:11434/v1",
        }

    @everybody
    async def test_everything_goes_through_the_proxy(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        profile = {**PROVIDERS, "tenth": TENTH}[name]
        async with ModelServer(hello) as proxy:
            env = {profile.base_url_env: "http://api.test", "PERSTACK_PROXY_URL": proxy.url}
            provider = compatible(name, None, env=env)
            await provider.generate(request(), Heard())
            await provider.close()
        assert proxy.requests[-1].target.startswith("http://api.test/")

    @everybody
    async def test_one_connection_serves_many_calls(self, name: str) -> None:
        async with ModelServer(hello) as server:
            provider = compatible(name, server)
            for _ in range(3):
                await provider.generate(request(), Heard())
            await provider.close()
        assert server.connections == 1

    async def test_calls_run_side_by_side(self) -> None:
        def echo(asked: Request) -> Answer:
            return Answer(text=asked.first_user_text, delay_ms=20, event_delay_ms=1)

        async with ModelServer(echo) as server:
            provider = compatible("deepseek", server)
            calls = [request([instruction(), user(f"number {n}")]) for n in range(20)]
            answers = await asyncio.gather(*(provider.generate(one, Heard()) for one in calls))
            await provider.close()
        assert [generation.contents for generation in answers] == [(TextPart(text=f"number {n}"),) for n in range(20)]

    async def test_a_cancelled_call_closes_its_connection(self) -> None:
        answer = Answer(text="hello", after_events=2, then="hang")
        heard = Heard()
        async with ModelServer(always(answer)) as server:
            provider = compatible("fireworks", server)
            task = asyncio.create_task(provider.generate(request(), heard))
            await until(lambda: heard.all("text") == "hello")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: len(server.abandoned) == 1 and server.open_connections == 0)
            await provider.close()


class TestMessages:
    @pytest.mark.parametrize(
        ("part", "content"),
        [
            (TextPart(text="hi"), "hi"),
            (
                ImageUrlPart(url="https://a.test/i.png", mime_type="image/png"),
                [{"type": "image_url", "image_url": {"url": "https://a.test/i.png"}}],
            ),
            (
                ImageInlinePart(encoded_data=PNG, mime_type="image/jpg"),
                [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{PNG}"}}],
            ),
            (ImageBinaryPart(data="\x89PNG", mime_type="image/png"), [PICTURE_BLOCK]),
            (
                FileInlinePart(encoded_data=base64.b64encode("größe".encode()).decode(), mime_type="text/csv"),
                "[File of type text/csv]\ngröße",
            ),
            (FileBinaryPart(data="{}", mime_type="application/json"), "[File of type application/json]\n{}"),
        ],
    )
    @pytest.mark.parametrize("name", ["fireworks", "deepseek"])
    async def test_every_part_a_user_can_send_is_mapped(self, name: str, part: UserPart, content: object) -> None:
        assert await sent(name, user(part)) == [{"role": "user", "content": content}]

    async def test_text_between_images_keeps_its_place(self) -> None:
        assert await sent("ollama", user("One:", PICTURE, "Two:", "three", PICTURE)) == [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "One:"},
                    PICTURE_BLOCK,
                    {"type": "text", "text": "Two:"},
                    {"type": "text", "text": "three"},
                    PICTURE_BLOCK,
                ],
            }
        ]

    async def test_text_alone_is_one_string(self) -> None:
        assert await sent("tenth", user("One.", " ", "Two.")) == [{"role": "user", "content": "One.\n\nTwo."}]

    @pytest.mark.parametrize(
        ("name", "part", "words"),
        [
            ("tenth", PICTURE, "Tenth cannot take the imageInlinePart of type `image/png`: it takes text only"),
            ("ollama", ImageUrlPart(url="https://a.test/i", mime_type="image/png"), "imageUrlPart"),
            ("fireworks", ImageInlinePart(encoded_data=PNG, mime_type="image/bmp"), "type `image/bmp`"),
            ("fireworks", ImageBinaryPart(data="ł", mime_type="image/png"), "not a string of bytes"),
            ("deepseek", FileInlinePart(encoded_data="JVBERg==", mime_type="application/pdf"), "`application/pdf`"),
            ("deepseek", FileUrlPart(url="https://a.test/f", mime_type="text/csv"), "fileUrlPart of type `text/csv`"),
            ("deepseek", FileInlinePart(encoded_data="/w==", mime_type="text/plain"), "not UTF-8"),
            ("ollama", TextPart(text=" \n"), "Ollama cannot take an empty user message"),
        ],
    )
    async def test_what_the_provider_cannot_take_is_refused_by_name(
        self, name: str, part: UserPart, words: str
    ) -> None:
        error = await refusal(name, user(part))
        assert (error.code, error.is_retryable) == ("provider.unsupported", False)
        assert words in error.message

    @everybody
    async def test_results_come_right_after_the_calls(self, name: str) -> None:
        messages = await sent(
            name, user("Go."), said("Let me look.", call("c1"), call("c2", path="ä")), user("Hurry."),
            results(result("c1", "one")), results(result("c2", "two")), user("Please."),
        )  # fmt: skip
        assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "user", "user"]
        assert messages[1]["content"] == "Let me look."
        assert [one["function"]["arguments"] for one in messages[1]["tool_calls"]] == ["{}", '{"path":"ä"}']
        assert [message["content"] for message in messages[2:]] == ["one", "two", "Hurry.", "Please."]

    @pytest.mark.parametrize("name", ["fireworks", "deepseek", "ollama"])
    async def test_images_of_results_are_shown_in_a_message_behind_them(self, name: str) -> None:
        document = FileInlinePart(encoded_data="JVBERg==", mime_type="application/pdf")
        notes = FileInlinePart(encoded_data=base64.b64encode(b"notes").decode(), mime_type="text/plain")
        messages = await sent(
            name,
            user("Go."),
            said(*(call(f"c{n}") for n in range(4))),
            user("Hurry."),
            results(
                result("c0", "alone"), result("c1", "with", PICTURE, document, PICTURE),
                result("c2", notes, is_error=True), result("c3", PICTURE),
            ),
        )  # fmt: skip
        title = PROVIDERS[name].title
        assert messages[2:] == [
            {"role": "tool", "tool_call_id": "c0", "content": "alone"},
            {
                "role": "tool",
                "tool_call_id": "c1",
                "content": "with\n\n[Image 1 of this result is in the next message of the user.]\n\n"
                f"[This result holds a file of type application/pdf, which {title} cannot show to the model.]\n\n"
                "[Image 2 of this result is in the next message of the user.]",
            },
            {"role": "tool", "tool_call_id": "c2", "content": "The tool failed.\n\n[File of type text/plain]\nnotes"},
            {
                "role": "tool",
                "tool_call_id": "c3",
                "content": "[Image 1 of this result is in the next message of the user.]",
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Image 1 of the result of look (call c1):"},
                    PICTURE_BLOCK,
                    {"type": "text", "text": "Image 2 of the result of look (call c1):"},
                    PICTURE_BLOCK,
                    {"type": "text", "text": "Image 1 of the result of look (call c3):"},
                    PICTURE_BLOCK,
                ],
            },
            {"role": "user", "content": "Hurry."},
        ]

    async def test_images_of_results_are_left_out_where_nobody_sees_them(self) -> None:
        messages = await sent(
            "tenth", user("Go."), said(call("c1"), call("c2")), results(result("c1", "see", PICTURE), result("c2", ""))
        )
        words = "see\n\n[This result holds an image of type image/png, which Tenth cannot show to the model.]"
        assert [message["content"] for message in messages[2:]] == [words, ""]

    @everybody
    async def test_an_answer_that_said_nothing_is_left_out(self, name: str) -> None:
        messages = await sent(name, user("Go."), said(ThinkingPart(thinking="hm"), ""), user("Say something."))
        assert messages == [{"role": "user", "content": "Go."}, {"role": "user", "content": "Say something."}]

    async def test_tools_of_another_provider_are_told_in_words(self) -> None:
        search = ProviderToolPart(
            tool_name="webSearch", contents=(TextPart(text="It rains."), PICTURE), replay='responses:{"id":"x"}'
        )
        messages = await sent("fireworks", user("Weather?"), said(search, "Take", " a coat."), user("Thanks."))
        assert messages[1] == {
            "role": "assistant",
            "content": "[The tool webSearch was asked {} and answered.]\nIt rains.\n(an image)\n\nTake a coat.",
        }

    async def test_half_a_surrogate_pair_does_not_break_the_request(self) -> None:
        assert await sent("deepseek", user("a\ud83db")) == [{"role": "user", "content": "a?b"}]

    async def test_a_conversation_that_ends_with_the_expert_is_refused(self) -> None:
        error = await refusal("deepseek", user("Go."), said("Done."))
        assert "does not end with something" in error.message

    async def test_each_message_is_mapped_once_in_the_life_of_a_session(self) -> None:
        rendered: list[int] = []

        class Counting(WireCache):
            def message(self, index: int, message: Message, render: Callable[[Message], bytes]) -> bytes:
                def counted(one: Message) -> bytes:
                    rendered.append(index)
                    return render(one)

                return super().message(index, message, counted)

        cache = Counting()
        conversation: list[Message] = [instruction(), user("Go.")]
        async with ModelServer(hello) as server:
            provider = compatible("fireworks", server)
            for number in range(10):
                await provider.generate(request(conversation, cache=cache), Heard())
                conversation += [said(call(f"c{number}")), results(result(f"c{number}", "see", PICTURE))]
            await provider.close()
        assert sorted(index for index in rendered if index >= 0) == list(range(len(conversation) - 2))
        assert sorted(index for index in rendered if index < 0) == [~index for index in range(19, 2, -2)]
        bodies = [asked.body for asked in server.requests]
        # The prefix that a prompt cache knows stays as it is.
        assert all(later.startswith(earlier[:-2]) for earlier, later in pairwise(bodies))

    async def test_a_conversation_stays_where_its_prompt_is_cached(self) -> None:
        async with ModelServer(hello) as server:
            provider = compatible("fireworks", server)
            for messages in (steps(1), steps(2), [instruction(), user("Another.")]):
                await provider.generate(request(messages), Heard())
            await provider.generate(request(steps(1), path=("1.0",)), Heard())
            await provider.close()
        names = [asked.headers["x-session-affinity"] for asked in server.requests]
        assert re.fullmatch(r"[0-9a-f]{32}", names[0])
        assert names[0] == names[1]
        assert len(set(names)) == 3


class TestTools:
    @everybody
    async def test_names_with_other_letters_are_spelt_for_the_api_and_back(self, name: str) -> None:
        answer = Answer(calls=(Call(name="docs_search_all", id="c2"),))
        conversation = [instruction(), user("Go."), said(call("c1", "docs.search/all")), results(result("c1", "x"))]
        generation, sent_request = await ask(name, answer, tools=(tool("docs.search/all"),), messages=conversation)
        assert sent_request.json["tools"][0]["function"]["name"] == "docs_search_all"
        assert sent_request.messages[1]["tool_calls"][0]["function"]["name"] == "docs_search_all"
        assert generation.contents == (ToolCallPart(tool_call_id="c2", tool_name="docs.search/all", args={}),)

    async def test_names_that_become_one_are_refused(self) -> None:
        with pytest.raises(ProviderError, match=re.escape("`a.b` and `a/b`")):
            await ask("deepseek", tools=(tool("a.b"), tool("a/b")))


class TestReasoning:
    @pytest.mark.parametrize(
        ("name", "model", "reasoning", "options"),
        [
            ("fireworks", "accounts/fireworks/models/kimi-k3", "none", {"reasoning_effort": "none"}),
            ("fireworks", "accounts/fireworks/models/kimi-k3", "minimal", {"reasoning_effort": "low"}),
            ("fireworks", "accounts/fireworks/models/kimi-k3", 5000, {"reasoning_effort": "medium"}),
            ("fireworks", "accounts/fireworks/models/glm-5p3", "none", {"reasoning_effort": "low"}),
            ("fireworks", "accounts/me/models/mine", "high", {"reasoning_effort": "high"}),
            ("deepseek", "deepseek-flash", "none", {"thinking": {"type": "disabled"}}),
            ("deepseek", "deepseek-flash", 0, {"thinking": {"type": "disabled"}}),
            ("deepseek", "deepseek-v4-pro", "low", {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
            ("deepseek", "deepseek-v4-pro", 90_000, {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
            ("ollama", "qwen3.5:9b", "none", {"reasoning_effort": "none"}),
            ("ollama", "gpt-oss:20b", "none", {"reasoning_effort": "low"}),
            ("ollama", "gpt-oss:120b", "medium", {"reasoning_effort": "medium"}),
            ("tenth", "tenth-large", "high", {}),
            ("tenth", "tenth-large", "none", {}),
        ],
    )
    async def test_each_provider_is_asked_in_its_own_way(
        self, name: str, model: str, reasoning: Any, options: Json
    ) -> None:
        _, sent_request = await ask(name, model=model, reasoning=reasoning)
        common = {"model", "stream", "stream_options", "messages"}
        assert {key: value for key, value in sent_request.json.items() if key not in common} == options

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("ollama", '"gemma3:4b" does not support thinking'),
            ("ollama", 'think value "low" is not supported for this model'),
            ("fireworks", "non-reasoning model does not support reasoning_effort"),
        ],
    )
    async def test_a_model_that_refuses_to_be_asked_is_not_asked_again(self, name: str, message: str) -> None:
        def strict(asked: Request) -> Answer:
            if "reasoning_effort" in asked.json:
                return Answer(status=400, message=message)
            return Answer(text="hello")

        cache = WireCache()
        async with ModelServer(strict) as server:
            provider = compatible(name, server)
            for _ in range(2):
                generation = await provider.generate(request(cache=cache, provider=name), Heard())
                assert generation.contents == (TextPart(text="hello"),)
            await provider.close()
        assert ["reasoning_effort" in asked.json for asked in server.requests] == [True, False, False]

    async def test_a_model_that_sees_no_images_is_told_of_those_in_results(self) -> None:
        def blind(asked: Request) -> Answer:
            if b"image_url" in asked.body:
                return Answer(status=500, message="this model is missing data required for image input")
            return Answer(text="hello")

        conversation = [instruction(), user("Go."), said(call("c1")), results(result("c1", PICTURE))]
        generation, sent_request = await ask("ollama", blind, messages=conversation)
        assert generation.contents == (TextPart(text="hello"),)
        assert "which Ollama cannot show to the model" in sent_request.messages[-1]["content"]

    @pytest.mark.parametrize("message", ["does not support thinking, reasoning_effort", "no image for you"])
    async def test_the_provider_is_asked_twice_at_most(self, message: str) -> None:
        conversation = [instruction(), user("Go."), said(call("c1")), results(result("c1", PICTURE))]
        async with ModelServer(always(Answer(status=400, message=message))) as server:
            provider = compatible("ollama", server)
            with pytest.raises(ProviderError):
                await provider.generate(request(conversation), Heard())
            await provider.close()
        assert len(server.requests) == 2

    async def test_an_image_of_the_user_is_not_dropped(self) -> None:
        async with ModelServer(always(Answer(status=400, message="no image for you"))) as server:
            provider = compatible("ollama", server)
            with pytest.raises(ProviderError, match="no image for you"):
                await provider.generate(request([instruction(), user(PICTURE)]), Heard())
            await provider.close()
        assert len(server.requests) == 1

    @pytest.mark.parametrize(
        ("name", "replayed"),
        [
            ("fireworks", {"reasoning_content": "Let me think."}),
            ("deepseek", {"reasoning_content": "Let me think."}),
            ("ollama", {"reasoning": "Let me think."}),
            ("tenth", {}),
        ],
    )
    async def test_reasoning_goes_back_where_the_provider_wants_it(self, name: str, replayed: Json) -> None:
        answer = Answer(thinking="Let me think.", text="I look.", calls=(Call(name="look", id="c1"),))
        generation, _ = await ask(name, answer, tools=(tool("look"),))
        assert generation.contents[0] == ThinkingPart(thinking="Let me think.")
        messages = await sent(name, user("Go."), said(*generation.contents), results(result("c1", "x")))
        function = {"name": "look", "arguments": "{}"}
        assert messages[1] == {
            "role": "assistant",
            "content": "I look.",
            **replayed,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        }

    @pytest.mark.parametrize(("name", "replayed"), [("fireworks", {}), ("deepseek", {"reasoning_content": ""})])
    async def test_thinking_of_another_api_is_not_replayed(self, name: str, replayed: Json) -> None:
        messages = await sent(name, user("Go."), said(ThinkingPart(thinking="hm", signature="s"), "Yes."), user("And?"))
        assert messages[1] == {"role": "assistant", "content": "Yes.", **replayed}


class TestAnswer:
    @everybody
    async def test_thinking_text_and_calls_stream_and_are_kept_in_this_order(self, name: str) -> None:
        calls = (Call(name="look", id="c1", args={"path": "a" * 20}), Call(name="look"))
        answer = Answer(thinking="Let me think.", text="I look.", calls=calls, delta_size=4)
        heard = Heard()
        generation, sent_request = await ask(name, answer, heard=heard, tools=(tool("look"),))
        assert generation == Generation(
            contents=(
                ThinkingPart(thinking="Let me think."),
                TextPart(text="I look."),
                ToolCallPart(tool_call_id="c1", tool_name="look", args={"path": "a" * 20}),
                ToolCallPart(tool_call_id=f"call_{sent_request.fingerprint}_1_1", tool_name="look", args={}),
            ),
            usage=Usage(input_tokens=10, output_tokens=5, total_tokens=15),
            finish_reason="toolCalls",
            model=MODELS[name],
        )
        assert (heard.all("reasoning"), heard.all("text")) == ("Let me think.", "I look.")
        assert heard.pieces[:2] == [("reasoning", "Let "), ("reasoning", "me t")]

    @everybody
    async def test_parallel_calls_are_put_together_from_partial_json_and_sorted_by_class(self, name: str) -> None:
        calls = (
            Call(name="askPerson", id="c1", args={"question": "Größe? \U0001f600"}),
            Call(name="helper", id="c2", args={"query": "x" * 50}),
            Call(name="look", id="c3", args={"paths": ["a", "b"], "deep": {"n": 1.5}}),
            Call(name="unknown", id="c4", args={}),
        )
        tools = (tool("look"), tool("helper", "delegate"), tool("askPerson", "interactive"))
        generation, _ = await ask(name, Answer(calls=calls, delta_size=3), tools=tools)
        assert [(part.tool_call_id, part.args) for part in generation.contents if isinstance(part, ToolCallPart)] == [
            ("c3", calls[2].args),
            ("c4", {}),
            ("c2", calls[1].args),
            ("c1", calls[0].args),
        ]

    @pytest.mark.parametrize(
        ("deltas", "args"),
        [
            pytest.param(
                [
                    {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"n":1}'}},
                    {"index": 0, "id": "b", "function": {"name": "look", "arguments": '{"n":'}},
                    {"index": 0, "id": "b", "function": {"arguments": "2}"}},
                ],
                [("a", {"n": 1}), ("b", {"n": 2})],
                id="one place, two ids",
            ),
            pytest.param(
                [
                    {"index": 0, "function": {"name": "look", "arguments": '{"n":1}'}},
                    {"index": 0, "function": {"name": "look", "arguments": '{"n":2}'}},
                    {"index": 0, "function": {"name": "seek", "arguments": '{"n":3}'}},
                ],
                [("", {"n": 1}), ("", {"n": 2}), ("", {"n": 3})],
                id="one place, no ids",
            ),
            pytest.param(
                [
                    {"id": "a", "function": {"name": "look", "arguments": '{"n"'}},
                    {"function": {"arguments": ":1}"}},
                    {"id": "b", "function": {"name": "look", "arguments": '{"n"'}},
                    {"id": "a", "function": {"arguments": " "}},
                    {"id": "b", "function": {"arguments": ":2}"}},
                ],
                [("a", {"n": 1}), ("b", {"n": 2})],
                id="no places",
            ),
            pytest.param(
                [
                    {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"n":'}},
                    {"index": 0, "id": "a", "function": {"name": "look", "arguments": "1}"}},
                    {"index": 0, "id": "", "function": {"name": "look", "arguments": ""}},
                ],
                [("a", {"n": 1})],
                id="name and id in every piece",
            ),
            pytest.param(
                [{"index": 0, "id": "a", "function": {"name": "look", "arguments": {"n": 1}}}],
                [("a", {"n": 1})],
                id="arguments as an object",
            ),
            pytest.param(
                [
                    {"index": 0, "id": "a", "function": {"name": "look", "arguments": None}},
                    {"index": 1, "id": "a", "function": {"name": "look"}},
                ],
                [("a", NO_ARGS), ("", NO_ARGS)],
                id="one id twice, no arguments",
            ),
        ],
    )
    async def test_calls_are_told_apart_however_a_server_sends_them(
        self, deltas: list[Json], args: list[tuple[str, Json]]
    ) -> None:
        generation, _ = await ask("tenth", Answer(blocks=tuple({"tool_calls": [delta]} for delta in deltas)))
        calls = [part for part in generation.contents if isinstance(part, ToolCallPart)]
        assert [part.args for part in calls] == [one for _, one in args]
        assert all(not wanted or part.tool_call_id == wanted for part, (wanted, _) in zip(calls, args, strict=True))
        assert len({part.tool_call_id for part in calls}) == len(calls)
        assert all(part.tool_call_id for part in calls)

    async def test_the_old_form_of_a_call_is_understood(self) -> None:
        deltas = (
            {"function_call": {"name": "look", "arguments": '{"n"'}},
            {"function_call": {"arguments": ":1}"}},
        )
        generation, _ = await ask("tenth", Answer(blocks=deltas, stop_reason="function_call"))
        (part,) = generation.contents
        assert isinstance(part, ToolCallPart)
        assert (part.tool_name, part.args, generation.finish_reason) == ("look", {"n": 1}, "toolCalls")

    async def test_both_names_of_reasoning_with_one_text_are_read_once(self) -> None:
        block = {"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": [{"text": "hm"}]}
        generation, _ = await ask("tenth", Answer(blocks=(block, {"content": "Yes."})))
        assert generation.contents == (ThinkingPart(thinking="hm"), TextPart(text="Yes."))

    async def test_what_adds_nothing_is_passed_over(self) -> None:
        blocks: tuple[Json, ...] = (
            {"choices": [], "prompt_filter_results": []},
            {"choices": None, "object": "something.new"},
            {"choices": [{"index": 0, "delta": None}]},
            {"role": "assistant", "content": None, "tool_calls": None, "audio": {}},
            {"content": "Yes."},
        )
        generation, _ = await ask("fireworks", Answer(blocks=blocks))
        assert generation.contents == (TextPart(text="Yes."),)

    @pytest.mark.parametrize("raw", ['{"path": "a', "[1, 2]", '"text"', '{"n": NaN}', '{"s": "\\ud800"}'])
    @everybody
    async def test_arguments_that_are_no_json_object_are_handed_on_for_an_error(self, name: str, raw: str) -> None:
        generation, _ = await ask(name, Answer(calls=(Call(name="look", id="c1", args=raw),)), tools=(tool("look"),))
        assert generation.contents == (
            ToolCallPart(tool_call_id="c1", tool_name="look", args={INVALID_JSON_ARGUMENT: raw}),
        )

    @pytest.mark.parametrize(
        ("stop_reason", "finish_reason"),
        [
            ("stop", "stop"),
            ("tool_calls", "toolCalls"),
            ("function_call", "toolCalls"),
            ("length", "length"),
            ("content_filter", "refusal"),
            ("something_new", "other"),
        ],
    )
    async def test_every_finish_reason_has_a_meaning(self, stop_reason: str, finish_reason: FinishReason) -> None:
        generation, _ = await ask("deepseek", Answer(text="hello", stop_reason=stop_reason))
        assert generation.finish_reason == finish_reason

    async def test_calls_are_calls_although_the_server_calls_it_a_stop(self) -> None:
        generation, _ = await ask("ollama", Answer(calls=(Call(name="look"),), stop_reason="stop"))
        assert generation.finish_reason == "toolCalls"

    async def test_a_refusal_in_words_is_text(self) -> None:
        heard = Heard()
        generation, _ = await ask("tenth", Answer(blocks=({"refusal": "I will not."},)), heard=heard)
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="I will not."),), "refusal")
        assert heard.all("text") == "I will not."

    async def test_an_empty_answer_is_an_answer(self) -> None:
        generation, _ = await ask("deepseek", Answer())
        assert (generation.contents, generation.finish_reason) == ((), "stop")

    @pytest.mark.parametrize(
        ("name", "usage", "counted"),
        [
            (
                "fireworks",
                {
                    "prompt_tokens": 127,
                    "completion_tokens": 30,
                    "total_tokens": 157,
                    "prompt_tokens_details": {"cached_tokens": 100},
                    "completion_tokens_details": None,
                },
                (127, 30, 0, 157, 100),
            ),
            (
                "deepseek",
                {
                    "prompt_tokens": 127,
                    "completion_tokens": 30,
                    "total_tokens": 157,
                    "prompt_cache_hit_tokens": 100,
                    "prompt_cache_miss_tokens": 27,
                    "completion_tokens_details": {"reasoning_tokens": 12},
                },
                (127, 30, 12, 157, 100),
            ),
            ("ollama", {"prompt_tokens": 127, "completion_tokens": 30, "total_tokens": 157}, (127, 30, 0, 157, 0)),
            ("tenth", {"prompt_tokens": 7}, (7, 0, 0, 7, 0)),
        ],
    )
    async def test_usage_has_one_meaning(self, name: str, usage: Json, counted: tuple[int, ...]) -> None:
        seen: list[Usage] = []
        generation, _ = await ask(name, Answer(text="hello", usage=usage), on_usage=seen.append)
        fields = ("input_tokens", "output_tokens", "reasoning_tokens", "total_tokens", "cached_input_tokens")
        assert generation.usage == Usage(**dict(zip(fields, counted, strict=True)))
        assert seen == [generation.usage]

    async def test_usage_told_with_every_chunk_is_a_total(self) -> None:
        blocks = tuple(
            {
                "choices": [{"index": 0, "delta": {"content": "x"}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": n},
            }
            for n in (1, 2)
        )
        last: Json = {"choices": [{"index": 0, "delta": {}, "usage": {"prompt_tokens": 9, "completion_tokens": 3}}]}
        seen: list[Usage] = []
        usage = {"prompt_tokens": 9, "completion_tokens": 4}
        generation, _ = await ask("tenth", Answer(blocks=(*blocks, last), usage=usage), on_usage=seen.append)
        assert [one.output_tokens for one in seen] == [1, 2, 3, 4]
        assert generation.usage == Usage(input_tokens=9, output_tokens=4, total_tokens=13)


TENTH_PROVIDER = """
import asyncio, sys
from types import MappingProxyType
from perstack.core.profiles import providers
from perstack.core.profiles.provider import ProviderProfile, TierModel
providers.PROVIDERS = MappingProxyType({
    **providers.PROVIDERS,
    "tenth": ProviderProfile(
        title="Tenth",
        api="chat",
        module="compatible",
        tiers={"middle": TierModel("tenth-large", 128_000)},
        credentials=("TENTH_API_KEY",),
        required_env=("TENTH_API_KEY",),
        base_url="https://api.tenth.test/v1",
        base_url_env="TENTH_BASE_URL",
    ),
})
from perstack.activities.providers.registry import ProviderRegistry
from perstack.core.failures import CredentialError
from perstack.core.models import choose_model
from perstack.definitions.prices import context_window
from perstack.definitions.schema import PerstackToml
from support.model_requests import Heard, request

async def main(url):
    toml = PerstackToml.model_validate({"provider": {"providerName": "tenth", "setting": {"headers": {"x-team": "a"}}}})
    assert toml.provider.provider_name == "tenth"
    model = choose_model("tenth", tier="high")
    assert (model, context_window("tenth", model)) == ("tenth-large", 128_000)
    registry = ProviderRegistry()
    try:
        registry.provider("tenth", env={}, setting={})
    except CredentialError as error:
        assert str(error) == "TENTH_API_KEY is not set", error
    else:
        raise AssertionError("no key, but no error")
    env = {"TENTH_API_KEY": "key-of-the-tenth", "TENTH_BASE_URL": url}
    provider = registry.provider("tenth", env=env, setting={"headers": {"x-team": "a"}})
    generation = await provider.generate(request(provider="tenth", model=model), Heard())
    print([part.type for part in generation.contents], generation.finish_reason)
    await registry.close()

asyncio.run(main(sys.argv[1]))
"""


class TestTenthProvider:
    async def test_a_provider_is_one_entry_and_nothing_else(self) -> None:
        answer = Answer(thinking="hm", text="I look.", calls=(Call(name="look"),))
        async with ModelServer(always(answer)) as server:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", TENTH_PROVIDER, f"{server.url}/v1"),
                env={"PYTHONPATH": ":".join(sys.path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            output, errors = await asyncio.wait_for(process.communicate(), 30)
        assert errors.decode() == ""
        assert output.decode().strip() == "['thinkingPart', 'textPart', 'toolCallPart'] toolCalls"
        assert server.requests[-1].headers["authorization"] == "Bearer key-of-the-tenth"
        assert server.requests[-1].headers["x-team"] == "a"


@asynccontextmanager
async def plain_server(body: bytes | None) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """A server that answers one request with `body`, or not at all; its address, and the heads of what it got."""
    heads: list[bytes] = []
    is_gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        if body is not None:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await reader.read()
        writer.close()
        await writer.wait_closed()
        is_gone.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", heads
    server.close()
    async with asyncio.timeout(5):
        await is_gone.wait()


@pytest.fixture
def shown() -> Iterator[dict[str, Json]]:
    """What the server says about models."""
    yield CHAT.shown
    CHAT.shown.clear()


class TestOllamaModels:
    @pytest.mark.parametrize(
        ("model_info", "parameters", "length"),
        [
            ({"general.architecture": "gptoss", "gptoss.context_length": 131_072}, "", 131_072),
            (
                {"general.architecture": "gemma3", "gemma3.context_length": 131_072, "gemma3.vision.context_length": 4},
                'stop                           "<end_of_turn>"\nnum_ctx                        8192\ntemperature 1',
                8192,
            ),
            ({"general.architecture": "gemma3", "gemma3.context_length": 4096}, "num_ctx 8192", 4096),
            ({}, "num_ctx    8192", 8192),
            ({"general.architecture": "gptoss", "gptoss.context_length": "many"}, "num_ctx many", None),
            (None, None, None),
        ],
    )
    @pytest.mark.parametrize("suffix", ["", "/api", "/v1/"])
    async def test_the_context_length_is_the_smaller_of_trained_and_given(
        self, shown: dict[str, Json], model_info: Json | None, parameters: str | None, length: int | None, suffix: str
    ) -> None:
        shown["mine:1b"] = {"model_info": model_info, "parameters": parameters, "capabilities": ["completion"]}
        async with ModelServer(hello) as server:
            assert await context_length({"OLLAMA_BASE_URL": f"{server.url}{suffix}"}, {}, "mine:1b") == length
            assert await context_length({}, {"baseUrl": f"{server.url}{suffix}"}, "mine:1b") == length
            assert await context_length({"OLLAMA_BASE_URL": server.url}, {}, "other") is None

    @pytest.mark.parametrize("url", ["http://127.0.0.1:1", "not a url", "ftp://a.test", "http://[", ""])
    async def test_a_server_that_is_not_there_says_nothing(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        assert (
            await context_length({"OLLAMA_BASE_URL": url, "PERSTACK_PROXY_URL": "http://127.0.0.1:1"}, {}, "m") is None
        )

    @pytest.mark.parametrize(
        "body", [b"not json", b"[]", b'{"model_info": 7}', b'{"parameters": 7}', b'{"model_info": [1]}']
    )
    async def test_an_answer_that_cannot_be_read_says_nothing(self, body: bytes) -> None:
        async with plain_server(body) as (url, _):
            assert await context_length({"OLLAMA_BASE_URL": url}, {}, "m") is None

    async def test_nobody_waits_long_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert SECONDS <= 2
        monkeypatch.setattr("perstack.activities.providers.ollama_models.SECONDS", 0.1)
        async with asyncio.timeout(5), plain_server(None) as (url, _):
            assert await context_length({"OLLAMA_BASE_URL": url}, {}, "m") is None

    async def test_the_headers_of_the_definition_are_sent(self) -> None:
        async with plain_server(b'{"parameters": "num_ctx 7"}') as (url, heads):
            assert await context_length({}, {"baseUrl": url, "headers": {"x-team": "blue"}}, "m") == 7
        assert b"x-team: blue" in heads[0].lower()
