from typing import Any, cast

import pytest
from anthropic import AsyncAnthropic, AsyncStream
from anthropic.types import RawMessageStreamEvent
from perstack.activities.providers.anthropic import MAX_PAUSES
from perstack.activities.providers.failures import ProviderError
from perstack.activities.providers.wire.messages_tools import MAX_SHOWN_TEXT
from perstack.core.expert import ProviderSkill, ProviderTool
from perstack.core.messages import (
    ExpertPart,
    Message,
    ProviderToolPart,
    Source,
    TextPart,
    ThinkingPart,
    ToolCallPart,
)
from perstack.core.run import Generation
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
    tool,
    user,
)
from support.model_server import Answer, Json, ModelServer, Request, Script

SEARCH = ProviderTool(name="webSearch", options={"maxUses": 3, "allowedDomains": ["a.test", "b.test"]})
FETCH = ProviderTool(name="webFetch", options={"maxUses": 2})
CODE = ProviderTool(name="codeExecution")
TOOLS = (SEARCH, FETCH, CODE)
CONTAINER = {"id": "container_1", "expires_at": "2099-01-01T00:00:00Z", "skills": None}

SEARCH_CALL: Json = {
    "type": "server_tool_use",
    "id": "srvtoolu_1",
    "name": "web_search",
    "input": {"query": "tallest tower"},
    "caller": {"type": "direct"},
}
SEARCH_RESULT: Json = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": [
        {
            "type": "web_search_result",
            "url": "https://a.test/towers",
            "title": "Towers",
            "encrypted_content": "ENCRYPTED",
            "page_age": "April 30, 2026",
        },
        {
            "type": "web_search_result",
            "url": "https://b.test/",
            "title": "More",
            "encrypted_content": "ALSO",
            "page_age": None,
        },
    ],
    "caller": {"type": "direct"},
}
CITATION: Json = {
    "type": "web_search_result_location",
    "url": "https://a.test/towers",
    "title": "Towers",
    "encrypted_index": "INDEX",
    "cited_text": "It is 828 m high.",
}
CITED: Json = {"type": "text", "text": "It is 828 m high", "citations": [CITATION]}
SEARCHED: tuple[Json, ...] = (
    {"type": "thinking", "thinking": "I should search.", "signature": "sig1"},
    {"type": "text", "text": "I'll look it up."},
    SEARCH_CALL,
    SEARCH_RESULT,
    {"type": "thinking", "thinking": "Found.", "signature": "sig2"},
    {"type": "text", "text": "The tower: "},
    CITED,
    {"type": "text", "text": ", says a page."},
)


def always(answer: Answer) -> Script:
    return lambda _: answer


async def ask(
    answer: Answer | Script | None = None, *, heard: Heard | None = None, **fields: Any
) -> tuple[Generation, Request]:
    """One call to a server that gives `answer`, and what it was sent."""
    script = answer if callable(answer) else always(answer or Answer(text="hello"))
    async with ModelServer(script) as server:
        provider = anthropic(server)
        try:
            generation = await provider.generate(request(**fields), heard or Heard())
        finally:
            await provider.close()
        return generation, server.requests[-1]


async def replayed(*parts: ExpertPart | str, **fields: Any) -> list[Json]:
    """The blocks of an answer of these parts, in the next request."""
    _, sent = await ask(messages=[instruction(), user("Go."), said(*parts), user("And?")], **fields)
    return sent.messages[1]["content"]


def tool_parts(generation: Generation) -> list[ProviderToolPart]:
    return [part for part in generation.contents if isinstance(part, ProviderToolPart)]


def marks(value: Any) -> int:
    """How many cache breakpoints a body has."""
    if isinstance(value, dict):
        return sum(1 if key == "cache_control" else marks(item) for key, item in cast("Json", value).items())
    return sum(map(marks, cast("list[Any]", value))) if isinstance(value, list) else 0


class TestRequest:
    async def test_each_tool_is_sent_in_its_newest_version_with_its_options(self) -> None:
        _, sent = await ask(provider_tools=TOOLS, tools=(tool("look"),))
        assert sent.json["tools"] == [
            {
                "type": "web_search_20260318",
                "allowed_callers": ["direct"],
                "name": "web_search",
                "max_uses": 3,
                "allowed_domains": ["a.test", "b.test"],
            },
            {"type": "web_fetch_20260318", "allowed_callers": ["direct"], "name": "web_fetch", "max_uses": 2},
            {"type": "code_execution_20260521", "name": "code_execution"},
            {
                "name": "look",
                "description": "Does look.",
                "input_schema": {"type": "object"},
                "cache_control": {"type": "ephemeral"},
            },
        ]
        assert "anthropic-beta" not in sent.headers
        assert "container" not in sent.json

    async def test_there_are_never_more_than_four_cache_marks(self) -> None:
        conversation: list[Message] = [instruction(), user("Go.")]
        for number in range(3):
            conversation += [said(call(f"c{number}")), results(result(f"c{number}", "x"))]
        _, sent = await ask(messages=conversation, provider_tools=TOOLS)
        assert marks(sent.json) == 4
        assert "cache_control" in sent.json["tools"][-1]

    async def test_a_tool_of_the_provider_goes_before_one_of_ours_with_its_name(self) -> None:
        _, sent = await ask(provider_tools=(SEARCH,), tools=(tool("web_search"), tool("look")))
        assert [one["name"] for one in sent.json["tools"]] == ["web_search", "look"]
        assert sent.json["tools"][0]["type"] == "web_search_20260318"

    async def test_a_tool_anthropic_does_not_have_is_refused_by_name(self) -> None:
        with pytest.raises(ProviderError, match="no tool `googleMaps`"):
            await ask(provider_tools=(ProviderTool(name="googleMaps"),))

    async def test_skills_are_sent_with_the_tool_they_need(self) -> None:
        skills = (
            ProviderSkill(type="builtin", skill_id="pptx"),
            ProviderSkill(type="custom", name="skill_by_name"),
            ProviderSkill(type="custom", name="ours", definition={"skillId": "skill_01", "version": 3}),
            ProviderSkill(type="custom", name="ours", definition={"skill_id": "skill_02"}),
        )
        _, sent = await ask(provider_skills=skills)
        assert sent.json["container"] == {
            "skills": [
                {"type": "anthropic", "skill_id": "pptx", "version": "latest"},
                {"type": "custom", "skill_id": "skill_by_name", "version": "latest"},
                {"type": "custom", "skill_id": "skill_01", "version": "3"},
                {"type": "custom", "skill_id": "skill_02", "version": "latest"},
            ]
        }
        assert [one["type"] for one in sent.json["tools"]] == ["code_execution_20260521"]
        _, sent = await ask(provider_skills=skills[:1], provider_tools=(CODE,))
        assert len(sent.json["tools"]) == 1

    async def test_body_and_headers_equal_those_of_the_typed_call(self) -> None:
        generation, _ = await ask(Answer(blocks=SEARCHED, container=CONTAINER), provider_tools=TOOLS)
        conversation = [instruction(), user("Go."), said(*generation.contents), user("And?")]
        skills = (ProviderSkill(type="builtin", skill_id="pdf"),)
        async with ModelServer(always(Answer(text="hello"))) as server:
            provider = anthropic(server)
            one = request(conversation, tools=(tool("look"),), provider_tools=TOOLS, provider_skills=skills)
            await provider.generate(one, Heard())
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


class TestSearch:
    async def test_a_search_its_sources_and_the_citations_are_kept(self) -> None:
        heard = Heard()
        generation, _ = await ask(Answer(blocks=SEARCHED, delta_size=5), provider_tools=TOOLS, heard=heard)
        first, second, search, *texts = generation.contents
        assert (first, second) == (
            ThinkingPart(thinking="I should search.", signature="sig1"),
            ThinkingPart(thinking="Found.", signature="3t:sig2"),
        )
        assert isinstance(search, ProviderToolPart)
        assert (search.tool_name, search.args, search.contents, search.is_error) == (
            "webSearch",
            {"query": "tallest tower"},
            (),
            None,
        )
        sources = (Source(url="https://a.test/towers", title="Towers"), Source(url="https://b.test/", title="More"))
        assert search.sources == sources
        assert texts == [
            TextPart(text="I'll look it up."),
            TextPart(text="The tower: "),
            TextPart(text="It is 828 m high", sources=sources[:1]),
            TextPart(text=", says a page."),
        ]
        assert heard.all("text") == "I'll look it up.The tower: It is 828 m high, says a page."

    async def test_every_block_is_repeated_where_it_was(self) -> None:
        generation, _ = await ask(Answer(blocks=SEARCHED, delta_size=5), provider_tools=TOOLS)
        assert await replayed(*generation.contents, provider_tools=TOOLS) == list(SEARCHED)

    async def test_blocks_are_repeated_among_calls_too(self) -> None:
        blocks = (*SEARCHED, {"type": "tool_use", "id": "c1", "name": "look", "input": {"path": "a"}})
        generation, _ = await ask(Answer(blocks=blocks), provider_tools=TOOLS, tools=(tool("look"),))
        conversation = [instruction(), user("Go."), said(*generation.contents), results(result("c1", "x"))]
        _, sent = await ask(messages=conversation, provider_tools=TOOLS, tools=(tool("look"),))
        assert sent.messages[1]["content"] == list(blocks)

    async def test_two_searches_are_two_parts(self) -> None:
        others: tuple[Json, Json] = (
            {**SEARCH_CALL, "id": "srvtoolu_2"},
            {**SEARCH_RESULT, "tool_use_id": "srvtoolu_2", "content": []},
        )
        blocks = (SEARCH_CALL, others[0], SEARCH_RESULT, others[1], CITED)
        generation, _ = await ask(Answer(blocks=blocks), provider_tools=TOOLS)
        assert [len(part.sources) for part in tool_parts(generation)] == [2, 0]
        assert await replayed(*generation.contents, provider_tools=TOOLS) == list(blocks)

    async def test_a_search_that_failed_is_told_and_repeated(self) -> None:
        error = {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}
        blocks = (SEARCH_CALL, {**SEARCH_RESULT, "content": error}, {"type": "text", "text": "I could not."})
        generation, _ = await ask(Answer(blocks=blocks), provider_tools=TOOLS)
        (part,) = tool_parts(generation)
        assert (part.is_error, part.contents) == (True, (TextPart(text="max_uses_exceeded"),))
        assert await replayed(*generation.contents, provider_tools=TOOLS) == list(blocks)

    async def test_a_search_beside_our_calls_is_answered_in_the_next_answer(self) -> None:
        blocks: tuple[Json, ...] = (SEARCH_CALL, {"type": "tool_use", "id": "c1", "name": "look", "input": {}})
        generation, _ = await ask(Answer(blocks=blocks), provider_tools=TOOLS, tools=(tool("look"),))
        conversation = [instruction(), user("Go."), said(*generation.contents), results(result("c1", "x"))]
        answer = Answer(blocks=(SEARCH_RESULT, CITED))
        later, sent = await ask(answer, messages=conversation, provider_tools=TOOLS, tools=(tool("look"),))
        assert sent.messages[1]["content"] == list(blocks)
        (part,) = tool_parts(later)
        assert (part.tool_name, part.args, len(part.sources)) == ("webSearch", {}, 2)
        assert await replayed(*later.contents, provider_tools=TOOLS) == [SEARCH_RESULT, CITED]

    async def test_a_search_that_never_ran_is_shown_but_not_repeated_as_one(self) -> None:
        blocks: tuple[Json, ...] = ({"type": "text", "text": "I look."}, SEARCH_CALL)
        generation, _ = await ask(Answer(blocks=blocks, stop_reason="max_tokens"), provider_tools=TOOLS)
        (part,) = tool_parts(generation)
        assert (part.is_error, part.replay) == (True, None)
        assert [block["type"] for block in await replayed(*generation.contents)] == ["text", "text"]

    async def test_a_page_that_was_fetched_is_shown_in_short_and_repeated_in_full(self) -> None:
        text = "word " * MAX_SHOWN_TEXT
        document = {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": text},
            "title": "A page",
            "citations": None,
        }
        found = {
            "type": "web_fetch_result",
            "url": "https://a.test/",
            "content": document,
            "retrieved_at": "2026-08-25T10:30:00Z",
        }
        blocks: tuple[Json, ...] = (
            {"type": "server_tool_use", "id": "s1", "name": "web_fetch", "input": {"url": "https://a.test/"}},
            {"type": "web_fetch_tool_result", "tool_use_id": "s1", "content": found},
            {"type": "text", "text": "It says word."},
        )
        generation, _ = await ask(Answer(blocks=blocks), provider_tools=TOOLS)
        (part,) = tool_parts(generation)
        assert part.sources == (Source(url="https://a.test/", title="A page"),)
        assert part.contents == (TextPart(text=text[:MAX_SHOWN_TEXT] + "…"),)
        assert await replayed(*generation.contents, provider_tools=TOOLS) == list(blocks)


class TestCode:
    BLOCKS: tuple[Json, ...] = (
        {
            "type": "server_tool_use",
            "id": "s1",
            "name": "text_editor_code_execution",
            "input": {"command": "create", "path": "a.py", "file_text": "print(1)"},
        },
        {
            "type": "text_editor_code_execution_tool_result",
            "tool_use_id": "s1",
            "content": {"type": "text_editor_code_execution_create_result", "is_file_update": False},
        },
        {"type": "server_tool_use", "id": "s2", "name": "bash_code_execution", "input": {"command": "python a.py"}},
        {
            "type": "bash_code_execution_tool_result",
            "tool_use_id": "s2",
            "content": {
                "type": "bash_code_execution_result",
                "stdout": "1\n",
                "stderr": "warned",
                "return_code": 0,
                "content": [{"type": "bash_code_execution_output", "file_id": "file_1"}],
            },
        },
        {"type": "server_tool_use", "id": "s3", "name": "code_execution", "input": {"code": "1/0"}},
        {
            "type": "code_execution_tool_result",
            "tool_use_id": "s3",
            "content": {
                "type": "code_execution_result",
                "stdout": "",
                "stderr": "ZeroDivisionError",
                "return_code": 1,
                "content": [],
            },
        },
        {"type": "container_upload", "file_id": "file_2"},
        {"type": "text", "text": "Done."},
    )

    async def test_what_ran_and_what_came_out_is_kept_and_repeated(self) -> None:
        generation, _ = await ask(Answer(blocks=self.BLOCKS), provider_tools=TOOLS)
        created, ran, failed, uploaded = tool_parts(generation)
        assert {part.tool_name for part in (created, ran, failed, uploaded)} == {"codeExecution"}
        assert (created.args["path"], created.contents, created.is_error) == ("a.py", (), None)
        assert ran.contents == (TextPart(text="1\n"), TextPart(text="warned"), TextPart(text="File file_1"))
        assert (failed.contents, failed.is_error) == ((TextPart(text="ZeroDivisionError"),), True)
        assert uploaded.contents == (TextPart(text="File file_2"),)
        assert await replayed(*generation.contents, provider_tools=TOOLS) == list(self.BLOCKS)

    async def test_an_error_of_the_tool_is_told(self) -> None:
        error = {"type": "bash_code_execution_tool_result_error", "error_code": "container_expired"}
        blocks = (self.BLOCKS[2], {**self.BLOCKS[3], "content": error})
        generation, _ = await ask(Answer(blocks=blocks), provider_tools=TOOLS)
        (part,) = tool_parts(generation)
        assert (part.contents, part.is_error) == ((TextPart(text="container_expired"),), True)

    async def test_the_next_request_goes_on_in_the_same_container(self) -> None:
        generation, _ = await ask(Answer(blocks=self.BLOCKS, container=CONTAINER), provider_tools=(CODE,))
        conversation = [instruction(), user("Go."), said(*generation.contents), user("And?"), said("Ok."), user("So?")]
        _, sent = await ask(messages=conversation, provider_tools=(CODE,))
        assert sent.json["container"] == "container_1"
        skills = (ProviderSkill(type="builtin", skill_id="pdf"),)
        _, sent = await ask(messages=conversation, provider_skills=skills)
        assert sent.json["container"]["id"] == "container_1"
        assert sent.json["container"]["skills"][0]["skill_id"] == "pdf"
        _, sent = await ask(messages=conversation, provider_tools=(SEARCH,))
        assert "container" not in sent.json

    async def test_a_container_that_is_gone_is_not_asked_for(self) -> None:
        gone = {**CONTAINER, "expires_at": "2026-01-01T00:00:00Z"}
        generation, _ = await ask(Answer(blocks=self.BLOCKS, container=gone), provider_tools=(CODE,))
        conversation = [instruction(), user("Go."), said(*generation.contents), user("And?")]
        _, sent = await ask(messages=conversation, provider_tools=(CODE,))
        assert "container" not in sent.json


class TestPause:
    FIRST = (
        {"type": "thinking", "thinking": "Long.", "signature": "sig1"},
        {"type": "text", "text": "I look."},
        SEARCH_CALL,
        SEARCH_RESULT,
    )
    THEN: tuple[Json, ...] = (
        {"type": "thinking", "thinking": "Enough.", "signature": "sig2"},
        CITED,
        {"type": "tool_use", "id": "c1", "name": "look", "input": {"path": "a"}},
    )

    def script(self, sent: Request) -> Answer:
        if sent.messages[-1]["role"] == "user":
            usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 7}
            return Answer(blocks=self.FIRST, stop_reason="pause_turn", usage=usage, container=CONTAINER)
        return Answer(blocks=self.THEN, usage={"input_tokens": 150, "output_tokens": 5})

    async def test_a_paused_turn_is_gone_on_with_and_comes_out_as_one_answer(self) -> None:
        seen: list[Usage] = []
        heard = Heard()
        async with ModelServer(self.script) as server:
            provider = anthropic(server)
            one = request(provider_tools=TOOLS, tools=(tool("look"),), on_usage=seen.append)
            generation = await provider.generate(one, heard)
            await provider.close()
        first, second = server.requests
        assert second.json == {
            **first.json,
            "container": "container_1",
            "messages": [*first.messages, {"role": "assistant", "content": list(self.FIRST)}],
        }
        kinds = [part.type for part in generation.contents]
        assert kinds == [
            "thinkingPart", "thinkingPart", "providerToolPart", "textPart", "textPart", "toolCallPart"
        ]  # fmt: skip
        assert generation.finish_reason == "toolCalls"
        assert heard.all("text") == "I look.It is 828 m high"
        wanted = Usage(input_tokens=250, output_tokens=12, total_tokens=262, cached_input_tokens=90)
        assert generation.usage == wanted
        assert seen[-1] == wanted
        conversation = [instruction(), user("Go."), said(*generation.contents), results(result("c1", "x"))]
        _, sent = await ask(messages=conversation, provider_tools=TOOLS, tools=(tool("look"),))
        assert sent.messages[1]["content"] == [*self.FIRST, *self.THEN]
        assert sent.json["container"] == "container_1"

    async def test_a_turn_may_be_paused_more_than_once(self) -> None:
        def script(sent: Request) -> Answer:
            if sent.messages[-1]["role"] == "user" or len(sent.messages[-1]["content"]) < 3:
                return Answer(text="More. ", stop_reason="pause_turn")
            return Answer(text="Done.")

        generation, sent = await ask(script, provider_tools=TOOLS)
        assert [part.text for part in generation.contents if isinstance(part, TextPart)] == ["More. "] * 3 + ["Done."]
        assert [message["role"] for message in sent.messages] == ["user", "assistant"]

    async def test_a_turn_that_is_paused_for_ever_is_given_up(self) -> None:
        async with ModelServer(always(Answer(text="More.", stop_reason="pause_turn"))) as server:
            provider = anthropic(server)
            with pytest.raises(ProviderError, match="paused its answer") as caught:
                await provider.generate(request(), Heard())
            await provider.close()
        assert len(server.requests) == MAX_PAUSES + 1
        assert (caught.value.is_retryable, caught.value.usage.output_tokens) == (False, 5 * (MAX_PAUSES + 1))

    async def test_a_turn_that_fails_after_a_pause_is_no_answer_but_has_its_cost(self) -> None:
        def script(sent: Request) -> Answer:
            if sent.messages[-1]["role"] == "user":
                return Answer(text="Half. ", stop_reason="pause_turn")
            return Answer(status=529, error_type="overloaded_error")

        with pytest.raises(ProviderError) as caught:
            await ask(script)
        assert (caught.value.code, caught.value.usage.total_tokens) == ("provider.overloaded", 15)

    async def test_the_time_limit_holds_for_all_of_it(self) -> None:
        answer = Answer(text="More.", stop_reason="pause_turn", delay_ms=150)
        with pytest.raises(ProviderError, match=r"0\.4 s"):
            await ask(answer, timeout_seconds=0.4)


class TestChangeOfProvider:
    async def test_what_another_provider_ran_is_retold(self) -> None:
        part = ProviderToolPart(
            tool_name="googleSearch",
            args={"query": "x"},
            contents=(TextPart(text="found"),),
            replay='gemini:{"parts":[]}',
        )
        told, text = await replayed(part, "Yes.")
        assert text == {"type": "text", "text": "Yes."}
        assert told["type"] == "text"
        assert "googleSearch" in told["text"]
        assert "found" in told["text"]

    async def test_calls_of_ours_stay_what_they_are(self) -> None:
        generation, _ = await ask(Answer(blocks=SEARCHED), provider_tools=TOOLS)
        assert not any(isinstance(part, ToolCallPart) for part in generation.contents)
        assert generation.finish_reason == "stop"
