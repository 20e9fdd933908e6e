import asyncio
import base64
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]
import pytest
from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]
from perstack.activities.providers.base import INVALID_JSON_ARGUMENT, WireCache
from perstack.activities.providers.failures import ProviderError
from perstack.core.messages import (
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
from perstack.core.usage import Usage
from support.certificates import untrusted
from support.model_requests import (
    API_KEY,
    Heard,
    bedrock,
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

CLAUDE = "global.anthropic.claude-sonnet-5-5"
HAIKU_4_5 = "us.anthropic.claude-haiku-4-5-20251001-v1:0"
NOVA = "us.amazon.nova-pro-v1:0"
NOVA_2 = "us.amazon.nova-2-lite-v1:0"
LLAMA = "us.meta.llama4-maverick-17b-instruct-v1:0"
PNG = base64.b64encode(b"\x89PNG").decode()
PDF = "JVBERg=="
ADAPTIVE = {"type": "adaptive", "display": "summarized"}
POINT = {"cachePoint": {"type": "default"}}


def hello(_: Request) -> Answer:
    return Answer(text="hello")


def always(answer: Answer) -> Script:
    return lambda _: answer


def asked(messages: list[Message] | None = None, **fields: Any) -> Any:
    """A request to Bedrock, of a Claude model if nothing else is said."""
    given: dict[str, Any] = {"provider": "amazon-bedrock", "model": CLAUDE, **fields}
    return request(messages, **given)


async def ask(
    answer: Answer | Callable[[Request], Answer] = hello, *, heard: Heard | None = None, **fields: Any
) -> tuple[Generation, Request]:
    """One call to a server that gives `answer`, and what it was sent."""
    async with ModelServer(always(answer) if isinstance(answer, Answer) else answer) as server:
        provider = bedrock(server)
        try:
            generation = await provider.generate(asked(**fields), heard or Heard())
        finally:
            await provider.close()
        return generation, server.requests[-1]


async def sent(*messages: Message, model: str = CLAUDE) -> list[Json]:
    """The turns on the wire, without cache points."""
    _, sent_request = await ask(messages=[instruction(), *messages], model=model)
    for turn in sent_request.messages:
        turn["content"] = [block for block in turn["content"] if "cachePoint" not in block]
    return sent_request.messages


def points(value: Any) -> int:
    """How many cache points a body has."""
    if isinstance(value, dict):
        return sum(1 if key == "cachePoint" else points(item) for key, item in cast("Json", value).items())
    return sum(map(points, cast("list[Any]", value))) if isinstance(value, list) else 0


def threads() -> int:
    return sum(thread.name.startswith("bedrock") for thread in threading.enumerate())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class TestRequest:
    async def test_the_whole_body_is_what_was_meant(self) -> None:
        conversation = [
            *steps(1),
            user("Now with a picture:", ImageInlinePart(encoded_data=PNG, mime_type="image/png")),
        ]
        _, sent_request = await ask(messages=conversation, tools=(tool("look"),))
        assert sent_request.json == {
            "system": [{"text": "You are an expert."}, POINT],
            "messages": [
                {"role": "user", "content": [{"text": "Go."}, POINT]},
                {
                    "role": "assistant",
                    "content": [{"toolUse": {"toolUseId": "c0", "name": "look", "input": {"path": "file0"}}}],
                },
                {
                    "role": "user",
                    "content": [
                        {"toolResult": {"toolUseId": "c0", "content": [{"text": "content"}]}},
                        {"text": "Now with a picture:"},
                        {"image": {"format": "png", "source": {"bytes": PNG}}},
                        POINT,
                    ],
                },
            ],
            "toolConfig": {
                "tools": [
                    {
                        "toolSpec": {
                            "name": "look",
                            "description": "Does look.",
                            "inputSchema": {"json": {"type": "object"}},
                        }
                    },
                    POINT,
                ]
            },
            "inferenceConfig": {"maxTokens": 128_000},
            "additionalModelRequestFields": {
                "thinking": {"type": "adaptive", "display": "summarized"},
                "output_config": {"effort": "low"},
            },
        }

    async def test_body_and_headers_equal_those_of_the_typed_call(self) -> None:
        conversation = [*steps(2), user("See:", FileInlinePart(encoded_data=PDF, mime_type="application/pdf"))]
        async with ModelServer(hello) as server:
            provider = bedrock(server)
            await provider.generate(asked(conversation, tools=(tool("look"),)), Heard())
            await provider.close()
            ours = server.requests[-1]
            typed: Json = ours.json
            document = typed["messages"][-1]["content"][-2]["document"]
            document["source"]["bytes"] = base64.b64decode(document["source"]["bytes"])
            await asyncio.to_thread(typed_call, server.url, typed)
            theirs = server.requests[-1]
        assert Request("", "", {}, ours.body, None).json == theirs.json
        assert ours.target == theirs.target
        # The user agent tells where the credentials come from.
        differing = {"content-length", "amz-sdk-invocation-id", "authorization", "x-amz-date", "user-agent"}
        assert {k: v for k, v in ours.headers.items() if k not in differing} == {
            k: v for k, v in theirs.headers.items() if k not in differing
        }

    async def test_the_request_is_signed_for_its_region_and_names_its_model(self) -> None:
        _, sent_request = await ask()
        assert sent_request.path == f"/model/{CLAUDE}/converse-stream"
        assert "/eu-test-1/bedrock/aws4_request" in sent_request.headers["authorization"]
        assert sent_request.headers["amz-sdk-request"] == "attempt=1; max=1"

    async def test_a_model_may_be_named_by_its_arn(self) -> None:
        arn = "arn:aws:bedrock:eu-test-1:123456789012:application-inference-profile/abc123"
        _, sent_request = await ask(model=arn)
        assert sent_request.model == arn
        assert set(sent_request.json) == {"messages", "system"}

    async def test_everything_goes_through_the_proxy(self) -> None:
        async with ModelServer(hello) as proxy:
            env = {"AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://bedrock.test", "PERSTACK_PROXY_URL": proxy.url}
            provider = bedrock(None, env=env)
            await provider.generate(asked(), Heard())
            await provider.close()
        assert proxy.requests[-1].target.startswith("http://bedrock.test/model/")

    async def test_one_connection_serves_many_calls(self) -> None:
        async with ModelServer(hello) as server:
            provider = bedrock(server)
            for _ in range(3):
                await provider.generate(asked(), Heard())
            await provider.close()
        assert server.connections == 1

    async def test_many_calls_run_side_by_side(self) -> None:
        def echo(one: Request) -> Answer:
            return Answer(text=one.first_user_text, delay_ms=100, event_delay_ms=1)

        async with ModelServer(echo) as server:
            provider = bedrock(server)
            calls = [asked([instruction(), user(f"number {n}")]) for n in range(60)]
            async with asyncio.timeout(10):
                answers = await asyncio.gather(*(provider.generate(one, Heard()) for one in calls))
            await provider.close()
        assert [generation.contents for generation in answers] == [(TextPart(text=f"number {n}"),) for n in range(60)]
        await until(lambda: not threads())


def typed_call(url: str, body: Json) -> None:
    """The same request through the typed call of the SDK."""
    session: Any = boto3.Session(aws_access_key_id="AKIATESTTESTTEST", aws_secret_access_key=API_KEY)
    config = Config(retries={"total_max_attempts": 1, "mode": "standard"})
    client = session.client("bedrock-runtime", region_name="eu-test-1", endpoint_url=url, config=config)
    assert [next(iter(event)) for event in client.converse_stream(modelId=CLAUDE, **body)["stream"]][-1] == "metadata"
    client.close()


class TestCredentials:
    async def authorization(self, env: dict[str, str], setting: Json | None = None) -> str:
        async with ModelServer(hello) as server:
            provider = bedrock(server, env=env, setting=setting)
            await provider.generate(asked(), Heard())
            await provider.close()
        return server.requests[-1].headers["authorization"]

    async def test_the_setting_goes_before_the_variables(self) -> None:
        assert "/eu-set-1/" in await self.authorization({}, {"region": "eu-set-1"})
        assert "/eu-two-2/" in await self.authorization({"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-two-2"})

    async def test_a_session_token_is_sent(self) -> None:
        async with ModelServer(hello) as server:
            provider = bedrock(server, env={"AWS_SESSION_TOKEN": "temporary"})
            await provider.generate(asked(), Heard())
            await provider.close()
        assert server.requests[-1].headers["x-amz-security-token"] == "temporary"

    async def test_a_bearer_token_goes_before_keys_and_travels_over_tls_only(self, tmp_path: Path) -> None:
        tls = untrusted(tmp_path)
        async with ModelServer(hello, tls=tls) as server:
            env = {"AWS_BEARER_TOKEN_BEDROCK": "bearer-token-1", "AWS_CA_BUNDLE": str(tmp_path / "both.pem")}
            provider = bedrock(server, env=env)
            await provider.generate(asked(), Heard())
            await provider.close()
            assert server.requests[-1].headers["authorization"] == "Bearer bearer-token-1"
        with pytest.raises(ProviderError, match="requires an HTTPS endpoint"):
            await self.authorization({"AWS_BEARER_TOKEN_BEDROCK": "bearer-token-1"})

    async def test_a_profile_brings_keys_and_region(self, tmp_path: Path) -> None:
        (tmp_path / "credentials").write_text("[team]\naws_access_key_id=AKIAPROFILE\naws_secret_access_key=s\n")
        (tmp_path / "config").write_text("[profile team]\nregion = eu-profile-1\n")
        env = {
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
            "AWS_REGION": "",
            "AWS_PROFILE": "team",
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
        }
        found = await self.authorization(env)
        assert "Credential=AKIAPROFILE/" in found
        assert "/eu-profile-1/bedrock/" in found

    async def test_the_environment_of_the_process_does_not_reach_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ambient = {
            "AWS_ACCESS_KEY_ID": "AKIAAMBIENT",
            "AWS_SECRET_ACCESS_KEY": "ambient",
            "AWS_SESSION_TOKEN": "ambient",
            "AWS_BEARER_TOKEN_BEDROCK": "ambient",
            "AWS_PROFILE": "ambient",
            "AWS_REGION": "ambient-1",
            "AWS_DEFAULT_REGION": "ambient-1",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": "http://127.0.0.1:1",
            "AWS_CONFIG_FILE": "/nonexistent",
        }
        for name, value in ambient.items():
            monkeypatch.setenv(name, value)
        before = dict(os.environ)
        assert "Credential=AKIATESTTESTTEST/" in await self.authorization({})
        assert dict(os.environ) == before

    async def test_a_web_identity_is_exchanged_at_the_token_service(self, tmp_path: Path) -> None:
        asked_for: list[bytes] = []

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked_for.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n")
            writer.close()

        (tmp_path / "token").write_text("web-identity")
        proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
        env = {
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
            "HOME": "/nonexistent",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/team",
            "PERSTACK_PROXY_URL": f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}",
        }
        with pytest.raises(ProviderError) as caught:
            await self.authorization(env)
        proxy.close()
        assert caught.value.code == "provider.proxy"
        assert asked_for[0].startswith(b"CONNECT sts.")

    async def test_keys_in_a_container_come_from_its_address(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            body = (
                b'{"AccessKeyId":"AKIACONTAINER","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}'
            )
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s" % (len(body), body))
            await writer.drain()
            writer.close()

        keys = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = keys.sockets[0].getsockname()[1]
        env = {
            "AWS_ACCESS_KEY_ID": "",
            "AWS_SECRET_ACCESS_KEY": "",
            "HOME": "/nonexistent",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{port}/keys",
        }
        found = await self.authorization(env)
        keys.close()
        assert "Credential=AKIACONTAINER/" in found


class TestMessages:
    @pytest.mark.parametrize(
        ("part", "block"),
        [
            (TextPart(text="hi"), {"text": "hi"}),
            (
                ImageInlinePart(encoded_data=PNG, mime_type="image/jpg"),
                {"image": {"format": "jpeg", "source": {"bytes": PNG}}},
            ),
            (
                ImageBinaryPart(data="\x89PNG", mime_type="image/webp"),
                {"image": {"format": "webp", "source": {"bytes": PNG}}},
            ),
        ],
    )
    async def test_texts_and_images_are_mapped(self, part: UserPart, block: Json) -> None:
        assert await sent(user(part)) == [{"role": "user", "content": [block]}]

    @pytest.mark.parametrize(
        ("part", "kind", "data"),
        [
            (FileInlinePart(encoded_data=PDF, mime_type="application/pdf"), "pdf", PDF),
            (FileBinaryPart(data="%PDF", mime_type="application/pdf"), "pdf", PDF),
            (FileInlinePart(encoded_data="YSxi", mime_type="text/csv"), "csv", "YSxi"),
            (FileInlinePart(encoded_data="e30=", mime_type="application/json"), "txt", "e30="),
        ],
    )
    async def test_documents_get_a_name_and_a_text_beside_them(self, part: UserPart, kind: str, data: str) -> None:
        turns = await sent(user(part))
        document, text = turns[0]["content"]
        assert (document["document"]["format"], document["document"]["source"]) == (kind, {"bytes": data})
        assert text == {"text": "See the attached document."}

    async def test_no_two_documents_have_the_same_name(self) -> None:
        part = FileInlinePart(encoded_data=PDF, mime_type="application/pdf")
        turns = await sent(user("See:", part, part), said(call("c1")), results(result("c1", part, part)))
        blocks = [*turns[0]["content"], *turns[2]["content"][0]["toolResult"]["content"]]
        names = [block["document"]["name"] for block in blocks if "document" in block]
        assert len(set(names)) == 4
        assert all(re.fullmatch(r"[A-Za-z0-9-]+", name) for name in names)

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            (ImageInlinePart(encoded_data=PNG, mime_type="image/bmp"), "imageInlinePart of type `image/bmp`"),
            (ImageUrlPart(url="https://a.test/i.png", mime_type="image/png"), "imageUrlPart of type `image/png`"),
            (FileUrlPart(url="https://a.test/f", mime_type="application/pdf"), "fileUrlPart of type `application/pdf`"),
            (FileInlinePart(encoded_data="/w==", mime_type="text/plain"), "not UTF-8"),
            (ImageBinaryPart(data="ł", mime_type="image/png"), "not a string of bytes"),
            (TextPart(text=" \n"), "empty user message"),
        ],
    )
    async def test_what_the_api_cannot_take_is_refused_by_name(self, part: UserPart, words: str) -> None:
        async with ModelServer(hello) as server:
            provider = bedrock(server)
            with pytest.raises(ProviderError, match=re.escape(words)) as caught:
                await provider.generate(asked([instruction(), user(part)]), Heard())
            await provider.close()
        assert (caught.value.code, caught.value.is_retryable, server.requests) == ("provider.unsupported", False, [])

    async def test_results_keep_text_pictures_documents_and_errors(self) -> None:
        picture = ImageInlinePart(encoded_data=PNG, mime_type="image/png")
        document = FileInlinePart(encoded_data=PDF, mime_type="application/pdf")
        odd = ImageInlinePart(encoded_data=PNG, mime_type="image/bmp")
        turns = await sent(
            user("Go."),
            said(*(call(f"c{n}") for n in range(4))),
            results(
                result("c0", "with", picture, document), result("c1", "bad", is_error=True), result("c2", ""),
                result("c3", odd),
            ),
        )  # fmt: skip
        mixed, failed, silent, strange = [block["toolResult"] for block in turns[2]["content"]]
        assert [next(iter(content)) for content in mixed["content"]] == ["text", "image", "document"]
        assert failed == {"toolUseId": "c1", "content": [{"text": "bad"}], "status": "error"}
        assert silent["content"] == [{"text": "(no output)"}]
        assert "image of type image/bmp" in strange["content"][0]["text"]

    async def test_models_that_know_only_text_results_are_told_what_is_left_out(self) -> None:
        picture = ImageInlinePart(encoded_data=PNG, mime_type="image/png")
        turns = await sent(
            user("Go."), said(call("c0")), results(result("c0", "bad", picture, is_error=True)), model=LLAMA
        )
        found = turns[2]["content"][0]["toolResult"]
        assert "status" not in found
        assert [next(iter(content)) for content in found["content"]] == ["text", "text", "text"]
        assert found["content"][0] == {"text": "The tool failed."}

    async def test_results_come_first_in_the_turn_after_the_calls(self) -> None:
        turns = await sent(
            user("Go."), said("Let me look.", call("c1"), call("c2")), user("Hurry."), results(result("c1", "one")),
            results(result("c2", "two")), user("Please."),
        )  # fmt: skip
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert [next(iter(block)) for block in turns[2]["content"]] == ["toolResult", "toolResult", "text", "text"]

    async def test_ids_of_another_api_are_made_to_fit(self) -> None:
        call_id = "call_1|" + "x" * 80
        turns = await sent(user("Go."), said(call(call_id)), results(result(call_id, "x")))
        used = turns[1]["content"][0]["toolUse"]["toolUseId"]
        assert re.fullmatch(r"[a-zA-Z0-9_.:-]{1,64}", used)
        assert turns[2]["content"][0]["toolResult"]["toolUseId"] == used

    async def test_what_another_provider_ran_is_retold(self) -> None:
        part = ProviderToolPart(tool_name="webSearch", args={"query": "x"}, sources=(Source(url="https://a.test"),))
        turns = await sent(user("Go."), said(part, "Yes."), user("And?"))
        assert "webSearch" in turns[1]["content"][0]["text"]
        assert "https://a.test" in turns[1]["content"][0]["text"]

    async def test_calls_without_tools_still_have_a_tool_configuration(self) -> None:
        _, sent_request = await ask(messages=steps(1))
        (spec, _) = sent_request.json["toolConfig"]["tools"]
        assert spec["toolSpec"] == {"name": "look", "inputSchema": {"json": {"type": "object"}}}

    async def test_a_conversation_that_ends_with_the_expert_is_refused(self) -> None:
        with pytest.raises(ProviderError, match="does not end with something"):
            await ask(messages=[instruction(), user("Go."), said("Done.")])


class TestReasoning:
    @pytest.mark.parametrize(
        ("model", "reasoning", "fields"),
        [
            (CLAUDE, "high", {"thinking": ADAPTIVE, "output_config": {"effort": "high"}}),
            (CLAUDE, "none", {"thinking": {"type": "between_tools"}}),
            (HAIKU_4_5, 5000, {"thinking": {"type": "enabled", "budget_tokens": 5000}}),
            ("anthropic.claude-next-9-v1:0", "high", None),
            (NOVA_2, "medium", {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}),
            (NOVA_2, "none", None),
            (NOVA, "high", None),
            ("openai.gpt-oss-120b-1:0", "high", {"reasoning_effort": "high"}),
            ("openai.gpt-oss-120b-1:0", "none", {"reasoning_effort": "low"}),
            ("global.openai.gpt-6.1-sol", "minimal", {"reasoning": {"effort": "low"}}),
            ("global.openai.gpt-6.1-sol", "none", {"reasoning": {"effort": "none"}}),
            ("us.openai.gpt-6-astra", "none", {"reasoning": {"effort": "low"}}),
            (LLAMA, "high", None),
        ],
    )  # fmt: skip
    async def test_each_family_is_asked_in_its_own_way(self, model: str, reasoning: Any, fields: Json | None) -> None:
        _, sent_request = await ask(model=model, reasoning=reasoning)
        assert sent_request.json.get("additionalModelRequestFields") == fields

    async def test_the_output_limit_is_sent_where_it_is_known_and_taken(self) -> None:
        _, sent_request = await ask(model=LLAMA)
        assert "inferenceConfig" not in sent_request.json
        _, sent_request = await ask(model=LLAMA, max_output_tokens=700)
        assert sent_request.json["inferenceConfig"] == {"maxTokens": 700}
        _, sent_request = await ask(model=NOVA_2, reasoning="high", max_output_tokens=700)
        assert "inferenceConfig" not in sent_request.json

    async def test_reasoning_is_replayed_exactly_where_it_was(self) -> None:
        blocks: tuple[Json, ...] = (
            {"reasoningContent": {"reasoningText": {"text": "first", "signature": "sig1"}}},
            {"reasoningContent": {"redactedContent": "b3BhcXVl"}},
            {"text": "I look."},
            {"reasoningContent": {"reasoningText": {"text": "second", "signature": "sig2"}}},
            {"toolUse": {"toolUseId": "c1", "name": "look", "input": {"path": "a"}}},
        )
        generation, _ = await ask(Answer(blocks=blocks), tools=(tool("look"),))
        kinds = [part.type for part in generation.contents]
        assert kinds == ["thinkingPart", "thinkingPart", "thinkingPart", "textPart", "toolCallPart"]
        turns = await sent(user("Go."), said(*generation.contents), results(result("c1", "x")))
        assert turns[1]["content"] == list(blocks)

    async def test_reasoning_goes_to_nobody_but_its_own_family(self) -> None:
        generation, _ = await ask(Answer(thinking="hm", text="Yes."))
        conversation = (user("Go."), said(*generation.contents), user("And?"))
        assert (await sent(*conversation, model=NOVA))[1]["content"] == [{"text": "Yes."}]
        foreign = said(ThinkingPart(thinking="hm", signature="signature of another API"), "Yes.")
        assert (await sent(user("Go."), foreign, user("And?")))[1]["content"] == [{"text": "Yes."}]

    async def test_reasoning_of_models_that_take_none_back_is_shown_only(self) -> None:
        generation, _ = await ask(Answer(thinking="hm", text="Yes."), model=LLAMA)
        assert generation.contents == (ThinkingPart(thinking="hm"), TextPart(text="Yes."))

    async def test_reasoning_that_no_longer_fits_is_left_out_from_then_on(self) -> None:
        def strict(one: Request) -> Answer:
            if any("reasoningContent" in block for turn in one.messages for block in turn["content"]):
                text = "messages.1.content.0: Invalid `signature`. The block is bound to a different conversation."
                return Answer(status=400, message=text)
            return Answer(text="hello")

        generation, _ = await ask(Answer(thinking="hm", calls=(Call(name="look", id="c1"),)), tools=(tool("look"),))
        cache = WireCache()
        conversation: list[Message] = [user("Go."), said(*generation.contents), results(result("c1", "x"))]
        async with ModelServer(strict) as server:
            provider = bedrock(server)
            for _ in range(2):
                await provider.generate(asked(conversation, cache=cache), Heard())
            await provider.close()
        assert len(server.requests) == 3


class TestPromptCache:
    async def test_claude_gets_points_at_the_system_the_tools_and_the_ends_of_the_last_two_user_turns(self) -> None:
        _, sent_request = await ask(messages=steps(3), tools=(tool("look"), tool("exec")))
        body = sent_request.json
        assert points(body) == 4
        assert (body["system"][-1], body["toolConfig"]["tools"][-1]) == (POINT, POINT)
        assert [points(turn) for turn in body["messages"]] == [0, 0, 0, 0, 1, 0, 1]

    @pytest.mark.parametrize(("model", "count"), [(NOVA, 1), (NOVA_2, 0), (LLAMA, 0), ("anthropic.claude-3-haiku", 0)])
    async def test_other_models_get_points_only_where_they_take_them(self, model: str, count: int) -> None:
        _, sent_request = await ask(messages=steps(3), tools=(tool("look"),), model=model)
        assert points(sent_request.json) == count
        assert points(sent_request.json["system"]) == count

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
            provider = bedrock(server)
            for number in range(5):
                await provider.generate(asked(conversation, cache=cache), Heard())
                conversation += steps(number + 1)[-2:]
            await provider.close()
        assert rendered == list(range(len(conversation) - 2))


class TestAnswer:
    async def test_reasoning_text_and_calls_stream_and_are_kept_in_this_order(self) -> None:
        answer = Answer(thinking="Let me think.", text="I look.", calls=(Call(name="look", id="c1"),), delta_size=4)
        heard = Heard()
        generation, _ = await ask(answer, heard=heard, tools=(tool("look"),))
        thought, *others = generation.contents
        assert isinstance(thought, ThinkingPart)
        assert thought.thinking == "Let me think."
        assert others == [TextPart(text="I look."), ToolCallPart(tool_call_id="c1", tool_name="look", args={})]
        assert (heard.all("reasoning"), heard.all("text")) == ("Let me think.", "I look.")
        assert heard.pieces[:2] == [("reasoning", "Let "), ("reasoning", "me t")]

    async def test_deltas_arrive_while_the_answer_is_still_coming(self) -> None:
        heard = Heard()
        async with ModelServer(always(Answer(text="hello", after_events=2, then="hang"))) as server:
            provider = bedrock(server)
            task = asyncio.create_task(provider.generate(asked(), heard))
            await until(lambda: heard.pieces == [("text", "hello")])
            assert not task.done()
            server.release()
            assert (await task).contents == (TextPart(text="hello"),)
            await provider.close()

    async def test_parallel_calls_are_put_together_from_partial_json_and_sorted_by_class(self) -> None:
        calls = (
            Call(name="askPerson", id="c1", args={"question": "Größe? \U0001f600"}),
            Call(name="helper", id="c2", args={"query": "x" * 50}),
            Call(name="docs_look", id="c3", args={"paths": ["a", "b"], "deep": {"n": 1.5}}),
        )
        tools = (tool("docs.look"), tool("helper", "delegate"), tool("askPerson", "interactive"))
        generation, _ = await ask(Answer(calls=calls, delta_size=3), tools=tools)
        assert [(part.tool_call_id, part.args) for part in generation.contents if isinstance(part, ToolCallPart)] == [
            ("c3", calls[2].args),
            ("c2", calls[1].args),
            ("c1", calls[0].args),
        ]
        assert isinstance(generation.contents[0], ToolCallPart)
        assert generation.contents[0].tool_name == "docs.look"

    @pytest.mark.parametrize("raw", ['{"path": "a', "[1, 2]", '"text"', '{"n": NaN}'])
    async def test_arguments_that_are_no_json_object_are_handed_on_for_an_error(self, raw: str) -> None:
        generation, _ = await ask(Answer(calls=(Call(name="look", args=raw),)), tools=(tool("look"),))
        (part,) = generation.contents
        assert isinstance(part, ToolCallPart)
        assert part.args == {INVALID_JSON_ARGUMENT: raw}

    @pytest.mark.parametrize(
        ("stop_reason", "finish_reason"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("tool_use", "toolCalls"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("guardrail_intervened", "refusal"),
            ("content_filtered", "refusal"),
            ("malformed_tool_use", "other"),
            ("brand_new", "other"),
        ],
    )
    async def test_every_stop_reason_has_a_meaning(self, stop_reason: str, finish_reason: FinishReason) -> None:
        generation, _ = await ask(Answer(text="x", stop_reason=stop_reason))
        assert generation.finish_reason == finish_reason

    async def test_usage_counts_cached_tokens_as_input(self) -> None:
        usage = {
            "inputTokens": 4,
            "outputTokens": 20,
            "totalTokens": 1524,
            "cacheReadInputTokens": 1000,
            "cacheWriteInputTokens": 500,
        }
        seen: list[Usage] = []
        generation, _ = await ask(Answer(text="x", usage=usage), on_usage=seen.append)
        wanted = Usage(input_tokens=1504, output_tokens=20, total_tokens=1524, cached_input_tokens=1000)
        assert generation.usage == wanted
        assert seen == [wanted]

    async def test_models_that_count_the_cache_as_input_are_not_counted_twice(self) -> None:
        usage = {"inputTokens": 4995, "outputTokens": 19, "totalTokens": 10_007, "cacheReadInputTokens": 4993}
        generation, _ = await ask(Answer(text="x", usage=usage), model="us.openai.gpt-6-astra")
        assert generation.usage == Usage(
            input_tokens=4995, output_tokens=19, total_tokens=5014, cached_input_tokens=4993
        )

    async def test_citations_become_sources(self) -> None:
        citation = {"title": "A page", "location": {"web": {"url": "https://a.test", "domain": "a.test"}}}
        generation, _ = await ask(Answer(blocks=({"text": "It is so.", "citations": [citation]},)))
        assert generation.contents == (
            TextPart(text="It is so.", sources=(Source(url="https://a.test", title="A page"),)),
        )

    async def test_the_model_a_router_chose_is_told(self) -> None:
        arn = "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0"
        generation, _ = await ask(Answer(text="x", model=arn))
        assert generation.model == arn

    async def test_blocks_of_a_later_release_are_passed_over(self) -> None:
        generation, _ = await ask(Answer(blocks=({"brandNew": {"x": 1}}, {"text": "hello"})))
        assert generation.contents == (TextPart(text="hello"),)

    async def test_an_empty_answer_is_an_answer(self) -> None:
        generation, _ = await ask(Answer())
        assert (generation.contents, generation.finish_reason) == ((), "stop")


class TestCancellation:
    @pytest.mark.parametrize("after_events", [2, 1])
    async def test_a_call_cancelled_in_mid_stream_ends_its_thread_at_once(self, after_events: int) -> None:
        answer = Answer(text="hello", after_events=after_events, then="hang")
        heard = Heard()
        async with ModelServer(always(answer)) as server:
            provider = bedrock(server)
            task = asyncio.create_task(provider.generate(asked(timeout_seconds=60), heard))
            await until(lambda: bool(server.requests) and (bool(heard.pieces) or after_events == 1))
            assert threads() == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: bool(server.abandoned))
            await until(lambda: not threads())
            server.script = hello
            assert (await provider.generate(asked(), Heard())).contents == (TextPart(text="hello"),)
            await provider.close()

    async def test_a_call_cancelled_before_the_first_byte_ends_its_thread_at_once(self) -> None:
        async with ModelServer(always(Answer(after_events=0, then="hang"))) as server:
            provider = bedrock(server)
            task = asyncio.create_task(provider.generate(asked(timeout_seconds=60), Heard()))
            await until(lambda: bool(server.requests))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: bool(server.abandoned))
            await until(lambda: not threads())
            await provider.close()
