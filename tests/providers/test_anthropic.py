import asyncio
import base64
import re
from collections.abc import Callable
from typing import Any, cast

import pytest
from anthropic import AsyncAnthropic, AsyncStream
from anthropic.types import RawMessageStreamEvent
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
    TextPart,
    ThinkingPart,
    ToolCallPart,
    UserPart,
)
from perstack.core.run import FinishReason, Generation
from perstack.core.usage import Usage
from support.model_requests import (
    API_KEY,
    Heard,
    anthropic,
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

PNG = base64.b64encode(b"\x89PNG").decode()
MARK = {"type": "ephemeral"}


def hello(_: Request) -> Answer:
    return Answer(text="hello")


def always(answer: Answer) -> Script:
    return lambda _: answer


async def ask(
    answer: Answer | Callable[[Request], Answer] = hello, *, heard: Heard | None = None, **fields: Any
) -> tuple[Generation, Request]:
    """One call to a server that gives `answer`, and what it was sent."""
    async with ModelServer(always(answer) if isinstance(answer, Answer) else answer) as server:
        provider = anthropic(server)
        try:
            generation = await provider.generate(request(**fields), heard or Heard())
        finally:
            await provider.close()
        return generation, server.requests[-1]


async def sent(*messages: Message) -> list[Json]:
    """The turns on the wire, without cache marks."""
    _, sent_request = await ask(messages=[instruction(), *messages])
    for turn in sent_request.messages:
        for block in turn["content"]:
            block.pop("cache_control", None)
    return sent_request.messages


def marks(value: Any) -> int:
    """How many cache breakpoints a body has."""
    if isinstance(value, dict):
        return sum(1 if key == "cache_control" else marks(item) for key, item in cast("Json", value).items())
    return sum(map(marks, cast("list[Any]", value))) if isinstance(value, list) else 0


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class TestRequest:
    async def test_the_headers_are_those_of_the_sdk(self) -> None:
        _, sent_request = await ask()
        assert sent_request.path == "/v1/messages"
        assert sent_request.headers["authorization"] == f"Bearer {API_KEY}"
        assert sent_request.headers["anthropic-version"] == "2026-10-21"
        assert sent_request.headers["content-type"] == "application/json"
        assert "anthropic-beta" not in sent_request.headers

    async def test_no_sampling_parameter_is_sent(self) -> None:
        _, sent_request = await ask(tools=(tool("look"),))
        assert set(sent_request.json) == {
            "model",
            "max_tokens",
            "stream",
            "system",
            "tools",
            "thinking",
            "output_config",
            "messages",
        }
        assert (sent_request.json["model"], sent_request.json["max_tokens"]) == ("claude-sonnet-5-5", 128_000)

    async def test_body_and_headers_equal_those_of_the_typed_call(self) -> None:
        conversation = [
            *steps(3),
            user("Now with a picture:", ImageInlinePart(encoded_data=PNG, mime_type="image/png")),
        ]
        async with ModelServer(hello) as server:
            provider = anthropic(server)
            await provider.generate(request(conversation, tools=(tool("look"),)), Heard())
            ours = server.requests[-1]
            async with AsyncAnthropic(api_key=API_KEY, base_url=server.url, max_retries=0) as client:
                create: Any = client.messages.create
                stream: AsyncStream[RawMessageStreamEvent] = await create(**ours.json, timeout=20)
                assert [event.type async for event in stream][-1] == "message_stop"
            theirs = server.requests[-1]
            await provider.close()
        assert ours.json == theirs.json
        differing = {"content-length", "traceparent", "x-stainless-timeout", "x-stainless-read-timeout"}
        assert {k: v for k, v in ours.headers.items() if k not in differing} == {
            k: v for k, v in theirs.headers.items() if k not in differing
        }

    async def test_settings_go_before_the_environment(self) -> None:
        async with ModelServer(hello) as server:
            setting = {"baseUrl": f"{server.url}/v1/", "headers": {"x-team": "blue"}}
            provider = anthropic(None, setting=setting, env={"ANTHROPIC_BASE_URL": "http://127.0.0.1:1"})
            await provider.generate(request(), Heard())
            await provider.close()
        assert server.requests[-1].path == "/v1/messages"
        assert server.requests[-1].headers["x-team"] == "blue"

    async def test_everything_goes_through_the_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        async with ModelServer(hello) as proxy:
            provider = anthropic(None, env={"ANTHROPIC_BASE_URL": "http://api.test", "PERSTACK_PROXY_URL": proxy.url})
            await provider.generate(request(), Heard())
            await provider.close()
        assert proxy.requests[-1].target == "http://api.test/v1/messages"

    async def test_one_connection_serves_many_calls(self) -> None:
        async with ModelServer(hello) as server:
            provider = anthropic(server)
            for _ in range(3):
                await provider.generate(request(), Heard())
            await provider.close()
        assert server.connections == 1

    async def test_calls_run_side_by_side(self) -> None:
        def echo(asked: Request) -> Answer:
            return Answer(text=asked.first_user_text, delay_ms=20, event_delay_ms=1)

        async with ModelServer(echo) as server:
            provider = anthropic(server)
            calls = [request([instruction(), user(f"number {n}")]) for n in range(20)]
            answers = await asyncio.gather(*(provider.generate(one, Heard()) for one in calls))
            await provider.close()
        assert [generation.contents for generation in answers] == [(TextPart(text=f"number {n}"),) for n in range(20)]


class TestMessages:
    @pytest.mark.parametrize(
        ("part", "block"),
        [
            (TextPart(text="hi"), {"type": "text", "text": "hi"}),
            (
                ImageUrlPart(url="https://a.test/i.png", mime_type="image/png"),
                {"type": "image", "source": {"type": "url", "url": "https://a.test/i.png"}},
            ),
            (
                ImageInlinePart(encoded_data=PNG, mime_type="image/jpg"),
                {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": PNG}},
            ),
            (
                ImageBinaryPart(data="\x89PNG", mime_type="image/png"),
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
            ),
            (
                FileUrlPart(url="https://a.test/f.pdf", mime_type="application/pdf"),
                {"type": "document", "source": {"type": "url", "url": "https://a.test/f.pdf"}},
            ),
            (
                FileInlinePart(encoded_data="JVBERg==", mime_type="application/pdf"),
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                },
            ),
            (
                FileBinaryPart(data="%PDF", mime_type="application/pdf"),
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
                },
            ),
            (
                FileInlinePart(encoded_data=base64.b64encode("größe".encode()).decode(), mime_type="text/csv"),
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "größe"}},
            ),
        ],
    )
    async def test_every_part_a_user_can_send_is_mapped(self, part: UserPart, block: Json) -> None:
        assert await sent(user(part)) == [{"role": "user", "content": [block]}]

    @pytest.mark.parametrize(
        ("part", "words"),
        [
            (ImageInlinePart(encoded_data=PNG, mime_type="image/bmp"), "imageInlinePart of type `image/bmp`"),
            (ImageUrlPart(url="https://a.test/i", mime_type="image/svg+xml"), "imageUrlPart of type `image/svg+xml`"),
            (
                FileInlinePart(encoded_data="AA==", mime_type="application/zip"),
                "fileInlinePart of type `application/zip`",
            ),
            (FileUrlPart(url="https://a.test/f", mime_type="text/csv"), "fileUrlPart of type `text/csv`"),
            (FileInlinePart(encoded_data="/w==", mime_type="text/plain"), "not UTF-8"),
            (ImageBinaryPart(data="ł", mime_type="image/png"), "not a string of bytes"),
            (TextPart(text=" \n"), "empty user message"),
        ],
    )
    async def test_what_the_api_cannot_take_is_refused_by_name(self, part: UserPart, words: str) -> None:
        async with ModelServer(hello) as server:
            provider = anthropic(server)
            with pytest.raises(ProviderError, match=re.escape(words)) as caught:
                await provider.generate(request([instruction(), user(part)]), Heard())
            await provider.close()
        assert (caught.value.code, caught.value.is_retryable, server.requests) == ("provider.unsupported", False, [])

    async def test_results_come_first_in_the_turn_after_the_calls(self) -> None:
        turns = await sent(
            user("Go."), said("Let me look.", call("c1"), call("c2")), user("Hurry."), results(result("c1", "one")),
            results(result("c2", "two")), user("Please."),
        )  # fmt: skip
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert [block["type"] for block in turns[2]["content"]] == ["tool_result", "tool_result", "text", "text"]
        assert turns[1]["content"][1:] == [
            {"type": "tool_use", "id": "c1", "name": "look", "input": {}},
            {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
        ]

    async def test_results_keep_text_pictures_documents_and_errors(self) -> None:
        picture = ImageInlinePart(encoded_data=PNG, mime_type="image/png")
        document = FileInlinePart(encoded_data="JVBERg==", mime_type="application/pdf")
        turns = await sent(
            user("Go."),
            said(*(call(f"c{n}") for n in range(5))),
            results(
                result("c0", "alone"), result("c1", "with", picture, document), result("c2", "bad", is_error=True),
                result("c3", picture, is_error=True), result("c4", ""),
            ),
        )  # fmt: skip
        alone, mixed, failed, failed_picture, silent = turns[2]["content"]
        assert alone == {"type": "tool_result", "tool_use_id": "c0", "content": "alone"}
        assert [block["type"] for block in mixed["content"]] == ["text", "image", "document"]
        assert failed == {"type": "tool_result", "tool_use_id": "c2", "content": "bad", "is_error": True}
        assert [block["type"] for block in failed_picture["content"]] == ["text", "image"]
        assert "is_error" not in failed_picture
        assert silent == {"type": "tool_result", "tool_use_id": "c4"}

    async def test_an_answer_that_said_nothing_is_left_out(self) -> None:
        turns = await sent(user("Go."), said(ThinkingPart(thinking="hm", signature="s"), ""), user("Say something."))
        assert turns == [
            {"role": "user", "content": [{"type": "text", "text": "Go."}, {"type": "text", "text": "Say something."}]}
        ]

    async def test_thinking_of_another_provider_is_not_replayed(self) -> None:
        turns = await sent(user("Go."), said(ThinkingPart(thinking="hm"), "Yes."), user("And?"))
        assert turns[1]["content"] == [{"type": "text", "text": "Yes."}]

    async def test_half_a_surrogate_pair_does_not_break_the_request(self) -> None:
        assert await sent(user("a\ud83db")) == [{"role": "user", "content": [{"type": "text", "text": "a?b"}]}]

    async def test_a_conversation_that_ends_with_the_expert_is_refused(self) -> None:
        with pytest.raises(ProviderError, match="does not end with something"):
            await ask(messages=[instruction(), user("Go."), said("Done.")])


class TestTools:
    async def test_tools_are_described_with_an_object_schema(self) -> None:
        _, sent_request = await ask(tools=(tool("look"), tool("exec")))
        first, last = sent_request.json["tools"]
        assert first == {"name": "look", "description": "Does look.", "input_schema": {"type": "object"}}
        assert last["cache_control"] == MARK

    async def test_names_with_other_letters_are_spelt_for_the_api_and_back(self) -> None:
        answer = Answer(calls=(Call(name="docs_search_all", id="c2"),))
        conversation = [instruction(), user("Go."), said(call("c1", "docs.search/all")), results(result("c1", "x"))]
        generation, sent_request = await ask(answer, tools=(tool("docs.search/all"),), messages=conversation)
        assert sent_request.json["tools"][0]["name"] == "docs_search_all"
        assert sent_request.messages[1]["content"][0]["name"] == "docs_search_all"
        assert generation.contents == (ToolCallPart(tool_call_id="c2", tool_name="docs.search/all", args={}),)

    async def test_names_that_become_one_are_refused(self) -> None:
        with pytest.raises(ProviderError, match=re.escape("`a.b` and `a/b`")):
            await ask(tools=(tool("a.b"), tool("a/b")))


class TestReasoning:
    @pytest.mark.parametrize(
        ("model", "reasoning", "options"),
        [
            ("claude-sonnet-5-5", "low", {"thinking": "adaptive", "effort": "low"}),
            ("claude-sonnet-5-5", "minimal", {"thinking": "adaptive", "effort": "low"}),
            ("claude-opus-5-5", "high", {"thinking": "adaptive", "effort": "high"}),
            ("claude-opus-5-5", 5000, {"thinking": "adaptive", "effort": "medium"}),
            ("claude-opus-5-5", "none", {"effort": "low"}),
            ("claude-sonnet-5-5", "none", {"thinking": "between_tools"}),
            ("claude-haiku-5-5", 0, {"thinking": "disabled"}),
            ("claude-haiku-4-5", "medium", {"thinking": "enabled", "budget": 5000}),
            ("claude-haiku-4-5", 7, {"thinking": "enabled", "budget": 1024}),
            ("claude-haiku-4-5", 1_000_000, {"thinking": "enabled", "budget": 32_000}),
            ("claude-haiku-4-5", "none", {}),
            ("claude-next-9", "high", {}),
        ],
    )
    async def test_each_model_is_asked_in_its_own_way(self, model: str, reasoning: Any, options: Json) -> None:
        _, sent_request = await ask(model=model, reasoning=reasoning)
        body = sent_request.json
        thinking = body.get("thinking", {})
        found = {
            "thinking": thinking.get("type"),
            "budget": thinking.get("budget_tokens"),
            "effort": body.get("output_config", {}).get("effort"),
        }
        assert {name: value for name, value in found.items() if value is not None} == options
        assert thinking.get("display") == ("summarized" if thinking.get("type") == "adaptive" else None)

    async def test_the_output_limit_always_leaves_room_beside_the_budget(self) -> None:
        _, sent_request = await ask(model="claude-haiku-4-5", reasoning="high", max_output_tokens=2000)
        assert (sent_request.json["max_tokens"], sent_request.json["thinking"]["budget_tokens"]) == (2000, 1024)
        _, sent_request = await ask(model="claude-haiku-4-5", reasoning="high", max_output_tokens=900)
        assert "thinking" not in sent_request.json

    async def test_thinking_is_replayed_exactly_where_it_was(self) -> None:
        blocks: tuple[Json, ...] = (
            {"type": "thinking", "thinking": "first", "signature": "sig1"},
            {"type": "redacted_thinking", "data": "opaque"},
            {"type": "text", "text": "I look."},
            {"type": "thinking", "thinking": "second", "signature": "sig2"},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {"path": "a"}},
        )
        generation, _ = await ask(Answer(blocks=blocks), tools=(tool("look"),))
        kinds = [part.type for part in generation.contents]
        assert kinds == ["thinkingPart", "thinkingPart", "thinkingPart", "textPart", "toolCallPart"]
        assert generation.contents[0] == ThinkingPart(thinking="first", signature="sig1")
        turns = await sent(user("Go."), said(*generation.contents), results(result("c1", "x")))
        assert turns[1]["content"] == list(blocks)

    async def test_thinking_behind_calls_that_change_places_is_shown_but_not_replayed(self) -> None:
        blocks: tuple[Json, ...] = (
            {"type": "tool_use", "id": "c1", "name": "helper", "input": {}},
            {"type": "thinking", "thinking": "between", "signature": "sig"},
            {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
        )
        generation, _ = await ask(Answer(blocks=blocks), tools=(tool("look"), tool("helper", "delegate")))
        assert generation.contents[0] == ThinkingPart(thinking="between")
        turns = await sent(user("Go."), said(*generation.contents), results(result("c1", "x"), result("c2", "x")))
        assert [block["type"] for block in turns[1]["content"]] == ["tool_use", "tool_use"]

    async def test_thinking_without_text_is_kept_for_its_signature(self) -> None:
        block: Json = {"type": "thinking", "thinking": "", "signature": "sig"}
        heard = Heard()
        generation, _ = await ask(Answer(blocks=(block, {"type": "text", "text": "Yes."})), heard=heard)
        turns = await sent(user("Go."), said(*generation.contents), user("And?"))
        assert turns[1]["content"][0] == block
        assert heard.pieces == [("text", "Yes.")]


class TestStaleThinking:
    """Newer models refuse thinking blocks when tools or messages before them have changed since."""

    CONVERSATION = (
        instruction(), user("Go."), said(ThinkingPart(thinking="hm", signature="s"), call("c1")),
        results(result("c1", "x")),
    )  # fmt: skip

    @staticmethod
    def strict(asked: Request) -> Answer:
        has_thinking = any(b["type"] == "thinking" for m in asked.messages for b in m["content"])
        binding = asked.json.get("thinking", {}).get("block_binding", {})
        if has_thinking and not (binding and asked.headers.get("anthropic-beta")):
            return Answer(
                status=400,
                message="messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a "
                "different conversation. Remove the block, or set "
                '`thinking.block_binding.prefix_mismatch_behavior` to "drop_block".',
            )
        return Answer(text="hello")

    async def test_the_api_is_told_to_leave_them_out_from_then_on(self) -> None:
        cache = WireCache()
        async with ModelServer(self.strict) as server:
            provider = anthropic(server)
            await provider.generate(request(self.CONVERSATION, cache=cache), Heard())
            await provider.generate(request(self.CONVERSATION, cache=cache), Heard())
            await provider.close()
        assert [one.headers.get("anthropic-beta") for one in server.requests] == [
            None,
            "thinking-binding-controls-2026-08-01",
            "thinking-binding-controls-2026-08-01",
        ]
        assert server.requests[1].json["thinking"]["block_binding"] == {"prefix_mismatch_behavior": "drop_block"}

    async def test_without_thinking_they_are_left_out_by_us(self) -> None:
        generation, sent_request = await ask(
            self.strict, messages=self.CONVERSATION, model="claude-haiku-5-5", reasoning="none"
        )
        assert generation.contents == (TextPart(text="hello"),)
        assert [block["type"] for block in sent_request.messages[1]["content"]] == ["tool_use"]

    async def test_the_api_is_asked_twice_at_most(self) -> None:
        answer = Answer(status=400, message="The block is bound to a different conversation.")
        async with ModelServer(always(answer)) as server:
            provider = anthropic(server)
            with pytest.raises(ProviderError):
                await provider.generate(request(self.CONVERSATION), Heard())
            await provider.close()
        assert len(server.requests) == 2


class TestPromptCache:
    async def test_system_last_tool_and_the_ends_of_the_last_two_user_turns_are_marked(self) -> None:
        _, sent_request = await ask(messages=steps(3), tools=(tool("look"), tool("exec")))
        body = sent_request.json
        assert marks(body) == 4
        assert body["system"][-1]["cache_control"] == MARK
        assert body["tools"][-1]["cache_control"] == MARK
        assert [marks(turn) for turn in body["messages"]] == [0, 0, 0, 0, 1, 0, 1]
        assert body["messages"][-1]["content"][-1]["cache_control"] == MARK

    async def test_the_mark_of_one_call_is_kept_in_the_next(self) -> None:
        cache = WireCache()
        conversation = steps(2)
        async with ModelServer(hello) as server:
            provider = anthropic(server)
            await provider.generate(request(conversation, cache=cache), Heard())
            last = len(server.requests[-1].messages) - 1
            conversation += steps(3)[-2:]
            await provider.generate(request(conversation, cache=cache), Heard())
            await provider.close()
        earlier, later = server.requests
        assert later.messages[last] == earlier.messages[last]

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
            provider = anthropic(server)
            for number in range(10):
                await provider.generate(request(conversation, cache=cache), Heard())
                conversation += steps(number + 1)[-2:]
            await provider.close()
        assert rendered == list(range(len(conversation) - 2))
        assert len(server.requests[-1].messages) == 19

    async def test_tools_and_messages_that_change_are_mapped_again(self) -> None:
        cache = WireCache()
        conversation = steps(1)
        async with ModelServer(hello) as server:
            provider = anthropic(server)
            await provider.generate(request(conversation, cache=cache, tools=(tool("look"),)), Heard())
            conversation[1] = user("Something else.")
            await provider.generate(request(conversation, cache=cache, tools=(tool("look"), tool("exec"))), Heard())
            await provider.close()
        later = server.requests[-1]
        assert later.first_user_text == "Something else."
        assert [spec["name"] for spec in later.json["tools"]] == ["look", "exec"]
        assert marks(later.json["tools"]) == 1


class TestAnswer:
    async def test_thinking_text_and_calls_stream_and_are_kept_in_this_order(self) -> None:
        answer = Answer(thinking="Let me think.", text="I look.", calls=(Call(name="look", id="c1"),), delta_size=4)
        heard = Heard()
        generation, _ = await ask(answer, heard=heard, tools=(tool("look"),))
        assert generation.contents == (
            ThinkingPart(thinking="Let me think.", signature="c2lnbmF0dXJl"),
            TextPart(text="I look."),
            ToolCallPart(tool_call_id="c1", tool_name="look", args={}),
        )
        assert (heard.all("reasoning"), heard.all("text")) == ("Let me think.", "I look.")
        assert heard.pieces[:2] == [("reasoning", "Let "), ("reasoning", "me t")]
        assert (generation.model, generation.attempts) == ("claude-sonnet-5-5", ())

    async def test_parallel_calls_are_put_together_from_partial_json_and_sorted_by_class(self) -> None:
        calls = (
            Call(name="askPerson", id="c1", args={"question": "Größe? \U0001f600"}),
            Call(name="helper", id="c2", args={"query": "x" * 50}),
            Call(name="look", id="c3", args={"paths": ["a", "b"], "deep": {"n": 1.5}}),
            Call(name="unknown", id="c4", args={}),
        )
        tools = (tool("look"), tool("helper", "delegate"), tool("askPerson", "interactive"))
        generation, _ = await ask(Answer(calls=calls, delta_size=3), tools=tools)
        assert [(part.tool_call_id, part.args) for part in generation.contents if isinstance(part, ToolCallPart)] == [
            ("c3", calls[2].args),
            ("c4", {}),
            ("c2", calls[1].args),
            ("c1", calls[0].args),
        ]

    @pytest.mark.parametrize("raw", ['{"path": "a', "[1, 2]", '"text"', '{"n": NaN}', '{"s": "\\ud800"}'])
    async def test_arguments_that_are_no_json_object_are_handed_on_for_an_error(self, raw: str) -> None:
        generation, _ = await ask(Answer(calls=(Call(name="look", id="c1", args=raw),)), tools=(tool("look"),))
        assert generation.contents == (
            ToolCallPart(tool_call_id="c1", tool_name="look", args={INVALID_JSON_ARGUMENT: raw}),
        )

    @pytest.mark.parametrize(
        ("stop_reason", "finish_reason"),
        [
            ("end_turn", "stop"),
            ("stop_sequence", "stop"),
            ("tool_use", "toolCalls"),
            ("max_tokens", "length"),
            ("model_context_window_exceeded", "length"),
            ("refusal", "refusal"),
            ("something_new", "other"),
        ],
    )
    async def test_every_stop_reason_has_a_meaning(self, stop_reason: str, finish_reason: FinishReason) -> None:
        generation, _ = await ask(Answer(text="hello", stop_reason=stop_reason))
        assert generation.finish_reason == finish_reason

    async def test_an_empty_answer_is_an_answer(self) -> None:
        generation, _ = await ask(Answer())
        assert (generation.contents, generation.finish_reason) == ((), "stop")

    async def test_usage_counts_cached_tokens_as_input(self) -> None:
        usage = {
            "input_tokens": 7,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 20,
            "output_tokens": 30,
            "output_tokens_details": {"thinking_tokens": 12},
        }
        seen: list[Usage] = []
        generation, _ = await ask(Answer(text="hello", usage=usage), on_usage=seen.append)
        assert generation.usage == Usage(
            input_tokens=127, output_tokens=30, reasoning_tokens=12, total_tokens=157, cached_input_tokens=100
        )
        assert (seen[0].total_tokens, seen[-1]) == (128, generation.usage)

    async def test_events_of_a_later_release_are_passed_over(self) -> None:
        stream = (
            'event: message_start\ndata: {"type":"message_start","message":{"model":"m","usage":null}}\n\n'
            'event: brand_new\ndata: {"type":"brand_new","shiny":true}\n\n'
            ": comment\n\n"
            'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
            '"content_block":{"type":"text","text":"he"}}\n\n'
            'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            '"delta":{"type":"text_delta","text":"llo"}}\n\n'
            'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
            '"delta":{"type":"new_delta"}}\n\n'
            'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
            'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        )
        generation, _ = await ask(Answer(raw_body=stream, content_type="text/event-stream"))
        assert (generation.contents, generation.finish_reason) == ((TextPart(text="hello"),), "stop")

    async def test_a_block_nobody_asked_for_is_refused_by_name(self) -> None:
        block: Json = {"type": "mcp_tool_use", "id": "m1", "name": "look", "server_name": "docs", "input": {}}
        with pytest.raises(ProviderError, match="`mcp_tool_use`"):
            await ask(Answer(blocks=(block,)))


class TestCancellation:
    async def test_a_cancelled_call_lets_go_at_once_and_its_cost_is_known(self) -> None:
        seen: list[Usage] = []
        answer = Answer(text="hello", after_events=4, then="hang", usage={"input_tokens": 50, "output_tokens": 9})
        heard = Heard()
        async with ModelServer(always(answer)) as server:
            provider = anthropic(server)
            task = asyncio.create_task(provider.generate(request(on_usage=seen.append), heard))
            await until(lambda: bool(heard.pieces))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: bool(server.abandoned))
            assert seen == [Usage(input_tokens=50, output_tokens=1, total_tokens=51)]
            server.script = hello
            assert (await provider.generate(request(), Heard())).contents == (TextPart(text="hello"),)
            await provider.close()
