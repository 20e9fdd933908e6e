from typing import Any

import pytest
from perstack.activities.providers.cassette import CassetteProvider, RecordedFailure, situation_of
from perstack.core.cassette import (
    AnsweredCall,
    Cassette,
    CassetteEntry,
    Situation,
    answered_calls,
    compare,
    normalized,
)
from perstack.core.failures import Attempt, Failure, PerstackError
from perstack.core.messages import ImageInlinePart, Message, TextPart, ThinkingPart
from perstack.core.run import Generation
from perstack.core.usage import Usage
from support.model_requests import Heard, call, instruction, request, result, results, said, tool, user

TOOLS = (tool("look"), tool("exec"))
REPLY = Generation(
    contents=(ThinkingPart(thinking="hm"), TextPart(text="I look."), call("c9")),
    usage=Usage(input_tokens=3, output_tokens=2, total_tokens=5),
    finish_reason="toolCalls",
    model="claude-sonnet-5-5",
)


def conversation(*, text: str = "content", is_error: bool | None = None, **args: Any) -> list[Message]:
    return [
        instruction(), user("Go."), said(call("c0")), results(result("c0", "old")), said("Next.", call("c1", **args)),
        results(result("c1", text, is_error=is_error)), user("Go on."),
    ]  # fmt: skip


def recorded(
    reply: Generation | Failure = REPLY, *, messages: list[Message] | None = None, workspace: str = ""
) -> Cassette:
    situation = situation_of(request(messages or conversation(path="a"), tools=TOOLS))
    entries = (CassetteEntry(path=("2.0",), ordinal=3, situation=situation, reply=reply),)
    return Cassette(query="Go.", expert_key="team", workspace=workspace, entries=entries)


async def replay(
    cassette: Cassette,
    messages: list[Message],
    *,
    heard: Heard | None = None,
    is_strict: bool = False,
    workspace: str = "",
    **fields: Any,
) -> Generation:
    provider = CassetteProvider(cassette, is_strict=is_strict, workspace=workspace)
    place: dict[str, Any] = {"tools": TOOLS, "path": ("2.0",), "ordinal": 3, **fields}
    return await provider.generate(request(messages, **place), heard or Heard())


async def difference(messages: list[Message], *, cassette: Cassette | None = None, **fields: Any) -> str:
    with pytest.raises(PerstackError) as caught:
        await replay(cassette or recorded(), messages, **fields)
    assert caught.value.code == "cassette.diverged"
    return caught.value.message


class TestReplay:
    async def test_the_recorded_answer_comes_back_and_streams(self) -> None:
        heard = Heard()
        seen: list[Usage] = []
        assert await replay(recorded(), conversation(path="a"), heard=heard, on_usage=seen.append) == REPLY
        assert heard.pieces == [("reasoning", "hm"), ("text", "I look.")]
        assert seen == [REPLY.usage]

    async def test_a_cassette_survives_its_file(self) -> None:
        cassette = recorded()
        again = Cassette.model_validate_json(cassette.wire_json())
        assert again == cassette
        assert await replay(again, conversation(path="a")) == REPLY

    async def test_attempts_of_the_recording_are_not_repeated(self) -> None:
        attempts = (Attempt(failure=Failure(name="provider.overloaded", message="busy")),)
        cassette = recorded(REPLY.model_copy(update={"attempts": attempts, "is_draining": True}))
        assert await replay(cassette, conversation(path="a")) == REPLY

    async def test_a_recorded_failure_is_final(self) -> None:
        failure = Failure(name="provider.rate_limited", message="too fast", status_code=429, is_retryable=True)
        with pytest.raises(RecordedFailure) as caught:
            await replay(recorded(failure), conversation(path="a"))
        assert caught.value.code == "provider.rate_limited"
        assert caught.value.failure == failure.model_copy(update={"is_retryable": False})

    async def test_behind_the_end_the_run_is_told_where_it_is(self) -> None:
        with pytest.raises(PerstackError, match=r"generation 4 of run 2\.0") as caught:
            await replay(recorded(), conversation(path="a"), ordinal=4)
        assert caught.value.code == "cassette.exhausted"
        assert "1 for this run, 1 in all" in caught.value.message
        with pytest.raises(PerstackError, match="generation 3 of the root run"):
            await replay(recorded(), conversation(path="a"), path=())

    async def test_entries_are_found_by_place_whatever_their_order(self) -> None:
        entries = tuple(
            CassetteEntry(
                path=path,
                ordinal=ordinal,
                situation=Situation(expert_key="team"),
                reply=Generation(contents=(TextPart(text=f"{path}{ordinal}"),), finish_reason="stop"),
            )
            for path in ((), ("1.0",), ("1.1",))
            for ordinal in (2, 1)
        )
        cassette = Cassette(expert_key="team", entries=entries)
        provider = CassetteProvider(cassette)
        for entry in entries:
            asked = request([instruction(), user("Go.")], path=entry.path, ordinal=entry.ordinal)
            assert await provider.generate(asked, Heard()) == entry.reply
            assert cassette.find(entry.path, entry.ordinal) is entry
        assert cassette.find(("9.9",), 1) is None


class TestDivergence:
    async def test_other_arguments(self) -> None:
        message = await difference(conversation(path="b"))
        assert message.startswith("The replay left the recording at generation 3 of run 2.0 (expert `team`): call 1")
        assert 'recorded: look {"path": "a"}' in message
        assert 'now:      look {"path": "b"}' in message

    async def test_another_outcome(self) -> None:
        message = await difference(conversation(path="a", text="no such file", is_error=True))
        assert "recorded: success: content" in message
        assert "now:      error: no such file" in message

    async def test_another_expert(self) -> None:
        assert "another expert" in await difference(conversation(path="a"), expert_key="other")

    async def test_other_tools(self) -> None:
        message = await difference(conversation(path="a"), tools=(tool("look"),))
        assert "recorded: look, exec\n  now:      look" in message

    async def test_other_calls(self) -> None:
        messages = conversation(path="a")
        messages[4] = said("Next.", call("c1", path="a"), call("c2"))
        messages[5] = results(result("c1", "content"), result("c2", "more"))
        message = await difference(messages)
        assert "recorded: `look`\n  now:      `look`, `look`" in message

    async def test_texts_matter_only_when_strict(self) -> None:
        old, new = ("x" * 500 + word + "y" * 500 for word in ("old", "new"))
        cassette = recorded(messages=conversation(path="a", text=old))
        assert await replay(cassette, conversation(path="a", text=new)) == REPLY
        message = await difference(conversation(path="a", text=new), cassette=cassette, is_strict=True)
        assert "call 1 (`look`) has another result" in message
        assert f"recorded: …{'x' * 40}old" in message
        assert f"now:      …{'x' * 40}new" in message
        assert len(message) < 1_000

    async def test_a_text_that_only_goes_on_is_shown_from_where_it_does(self) -> None:
        cassette = recorded(messages=conversation(path="a", text="one"))
        message = await difference(conversation(path="a", text="one two"), cassette=cassette, is_strict=True)
        assert "recorded: one\n  now:      one two" in message

    async def test_strict_overlooks_times_ids_and_the_workspace(self) -> None:
        def text(folder: str, time: str, epoch: str, cuid: str, uuid: str) -> str:
            return f'{{"path":"{folder}/a.txt","at":"{time}","ms":{epoch},"run":"{cuid}","id":"{uuid}"}}'

        theirs = text(
            "/home/a/work", "2026-11-22T10:00:00.123Z", "1795344000123", "ckl3v9x0p0000abcdefghij12",
            "0f8fad5b-d9cb-469f-a165-70867728950e",
        )  # fmt: skip
        ours = text(
            "/tmp/replay", "2027-01-02 03:04:05+01:00", "1798855445000", "dmz4w8y1q1111zyxwvutsrq9",
            "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        )  # fmt: skip
        cassette = recorded(messages=conversation(path="a", text=theirs), workspace="/home/a/work/")
        messages = conversation(path="a", text=ours)
        assert await replay(cassette, messages, is_strict=True, workspace="/tmp/replay") == REPLY
        await difference(messages, cassette=cassette, is_strict=True, workspace="/tmp/other")

    async def test_strict_sees_another_picture(self) -> None:
        def with_picture(data: str) -> list[Message]:
            messages = conversation(path="a")
            messages[5] = results(result("c1", ImageInlinePart(encoded_data=data, mime_type="image/png")))
            return messages

        cassette = recorded(messages=with_picture("AAAA"))
        assert await replay(cassette, with_picture("BBBB")) == REPLY
        assert "imageInlinePart image/png" in await difference(with_picture("BBBB"), cassette=cassette, is_strict=True)


class TestSituation:
    def test_the_first_call_answers_nothing(self) -> None:
        assert answered_calls([instruction(), user("Go.")]) == ()

    def test_only_the_last_expert_message_counts_in_the_order_of_its_calls(self) -> None:
        messages: list[Message] = [
            instruction(), user("Go."), said(call("c0")), results(result("c0", "old")),
            said(call("c1", n=1), call("c2", n=2), call("c3", n=3)),
            results(result("c2", "two", is_error=True)), results(result("c1", "one", "more")),
        ]  # fmt: skip
        assert answered_calls(messages) == (
            AnsweredCall(tool_name="look", args={"n": 1}, text="one\nmore"),
            AnsweredCall(tool_name="look", args={"n": 2}, is_error=True, text="two"),
        )

    def test_equal_situations_do_not_differ(self) -> None:
        situation = situation_of(request(conversation(path="a"), tools=TOOLS))
        assert compare(situation, situation, is_strict=True) is None

    @pytest.mark.parametrize(
        "text",
        ["an ordinary sentence", "internationalizationabcde", "version 1.2.3", "16 files", "port 1799999", "2026-11"],
    )
    def test_ordinary_text_is_left_alone(self, text: str) -> None:
        assert normalized(text) == text
