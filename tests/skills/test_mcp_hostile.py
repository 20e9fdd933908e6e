"""A server that lies, floods, hangs, dies and breeds: what the model is told, and that nothing stays behind."""

import asyncio
import base64
import json
import os
import resource
import signal
from pathlib import Path
from typing import Any, Protocol

import pytest
from perstack.activities.skills.mcp import process
from perstack.activities.skills.mcp.skill import MAX_RESTARTS
from perstack.activities.skills.mcp.stderr import BURST_BYTES, PIECE_BYTES, TAIL_BYTES
from perstack.core.failures import PerstackError
from perstack.core.messages import FileInlinePart, ImageInlinePart
from support.mcp_servers import Heard, OpenMcpSkill, call, hostile, leftovers, text_of
from support.skills import WAIT_SECONDS, Signal, bounded


async def failed_start(skill: Any) -> PerstackError:
    with pytest.raises(PerstackError) as caught:
        async with bounded():
            await skill.start()
    return caught.value


class Told:
    """What the server wrote to its fifo, line by line."""

    def __init__(self, fifo: Signal) -> None:
        self._fifo = fifo
        self._lines: list[str] = []

    async def until(self, wanted: str, times: int = 1) -> None:
        while self._lines.count(wanted) < times:
            self._lines += (await self._fifo.wait()).splitlines()


@pytest.fixture
def told(signal: Signal) -> Told:
    return Told(signal)


@pytest.fixture
def tell(signal: Signal) -> str:
    return f"--tell={signal.path}"


# Starting.


async def test_a_server_that_hangs_in_its_handshake_is_given_up(open_mcp: OpenMcpSkill, tell: str) -> None:
    skill = open_mcp(hostile("--hang", "--greeting=TOP-SECRET", tell), start_timeout_seconds=0.5)
    error = await failed_start(skill)
    assert error.code == "skill.not_started"
    assert "was not ready within 0.5 s" in error.message
    assert "hostile server [hidden]" in error.message
    assert not skill.is_open


async def test_a_server_that_never_reads_is_given_up(open_mcp: OpenMcpSkill) -> None:
    assert "not ready" in (await failed_start(open_mcp(hostile("--deaf"), start_timeout_seconds=0.5))).message


async def test_a_server_that_ends_at_once_is_told_with_exit_code_and_stderr(open_mcp: OpenMcpSkill) -> None:
    error = await failed_start(open_mcp(hostile("--die=7", "--greeting=TOP-SECRET")))
    assert "Skill hostile did not start: its server ended with exit code 7" in error.message
    assert "hostile server [hidden]" in error.message


async def test_a_missing_program_is_named(open_mcp: OpenMcpSkill) -> None:
    skill = hostile().replaced(command="no-such-program")
    error = await failed_start(open_mcp(skill))
    assert "no program 'no-such-program'" in error.message
    assert error.hint is not None


async def test_a_missing_variable_is_named_before_anything_starts(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile(required_env=("TOKEN",)), env={"TOKEN": ""})
    for _ in range(MAX_RESTARTS + 2):
        error = await failed_start(skill)
        assert error.code == "skill.missing_env"
        assert "TOKEN" in error.message
    assert "TOKEN" in text_of(await call(skill, "echo", text="x"))


async def test_a_server_that_leaves_at_a_question_of_the_newer_protocol_gets_the_older_handshake(
    open_mcp: OpenMcpSkill,
) -> None:
    skill = open_mcp(hostile("--leaves-at-discover"))
    assert text_of(await call(skill, "echo", text="still here")) == "still here"


async def test_a_server_of_the_newer_protocol_is_spoken_to_in_it(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile("--modern"))
    async with bounded():
        start = await skill.start()
    assert (start.server_name, start.server_version) == ("modern", "2")
    assert "io.modelcontextprotocol/protocolVersion" in text_of(await call(skill, "meta"))


async def test_a_protocol_version_that_nobody_knows_is_refused(open_mcp: OpenMcpSkill) -> None:
    error = await failed_start(open_mcp(hostile("--version=1999-01-01")))
    assert "1999-01-01" in error.message


async def test_what_a_server_says_of_itself_is_cut_and_scrubbed(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile("--name=TOP-SECRET" + "n" * 5000))
    async with bounded():
        name = (await skill.start()).server_name
    assert name is not None
    assert name.startswith("[hidden]nnn")
    assert len(name) <= 200


async def test_concurrent_first_callers_share_one_start(open_mcp: OpenMcpSkill, told: Told, tell: str) -> None:
    skill = open_mcp(hostile(tell))
    outcomes = await asyncio.gather(*(call(skill, "environment") for _ in range(10)))
    tokens = {json.loads(text_of(outcome))["PERSTACK_EXEC_ID"] for outcome in outcomes}
    assert len(tokens) == 1
    assert len({id(start) for start in await asyncio.gather(*(skill.start() for _ in range(5)))}) == 1


async def test_a_start_is_not_lost_with_the_caller_that_asked_for_it(
    open_mcp: OpenMcpSkill, told: Told, tell: str
) -> None:
    skill = open_mcp(hostile(tell))
    first = asyncio.create_task(skill.start())
    await told.until("initialize")
    first.cancel()
    assert text_of(await call(skill, "echo", text="x")) == "x"
    assert first.cancelled()


async def test_closing_during_a_start_ends_it(open_mcp: OpenMcpSkill, told: Told, tell: str) -> None:
    skill = open_mcp(hostile("--hang", tell))
    starting = asyncio.create_task(skill.start())
    await told.until("discover")
    assert skill.is_open
    async with bounded():
        await skill.close()
        with pytest.raises(PerstackError, match="was closed"):
            await starting
    assert not skill.is_open


# What the server sees.


async def test_a_server_sees_the_safe_variables_and_those_it_requires(
    open_mcp: OpenMcpSkill, skill_env: dict[str, str], root: Path
) -> None:
    env = {"ANTHROPIC_API_KEY": "k", "TOKEN": "t", "OTHER": "o", "LD_PRELOAD": "/x.so", "NODE_OPTIONS": "-r x"}
    skill = open_mcp(hostile(required_env=("TOKEN", "LD_PRELOAD", "NODE_OPTIONS")), env=env)
    seen = json.loads(text_of(await call(skill, "environment")))
    assert seen.pop("PERSTACK_EXEC_ID")
    seen.pop("LC_CTYPE", None)  # set by Python itself
    assert seen.pop("PWD", str(root)) == str(root)
    assert seen == {**skill_env, "TOKEN": "t"}


async def test_meta_travels_with_the_call(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile())
    async with bounded():
        outcome = await skill.call("meta", {}, timeout_seconds=5, meta={"perstack/call": "c-1"})
    assert json.loads(text_of(outcome))["perstack/call"] == "c-1"


# Lists of tools.


class Listing(Protocol):
    def __call__(self, *tools: dict[str, Any]) -> str: ...


@pytest.fixture
def listing(tmp_path: Path) -> Listing:
    """The option that makes the server list these tools."""

    def write(*tools: dict[str, Any]) -> str:
        (tmp_path / "tools.json").write_text(json.dumps(tools))
        return f"--tools={tmp_path / 'tools.json'}"

    return write


async def test_all_pages_are_read_and_omit_counts_before_pick(open_mcp: OpenMcpSkill) -> None:
    names = [f"tool-{number}" for number in (0, 7, 98, 99)]
    skill = open_mcp(hostile("--many=100", "--page=7", pick=(*names, "unknown"), omit=("tool-7",)))
    assert [tool.name for tool in await skill.tools()] == ["tool-0", "tool-98", "tool-99"]
    assert "has no tool tool-7." in text_of(await call(skill, "tool-7", text="x"))


async def test_ten_thousand_tools_are_too_many_unless_some_are_picked(open_mcp: OpenMcpSkill) -> None:
    error = await failed_start(open_mcp(hostile("--many=10000")))
    assert error.code == "skill.too_many_tools"
    picked = open_mcp(hostile("--many=10000", pick=("tool-9999",)))
    assert [tool.name for tool in await picked.tools()] == ["tool-9999"]


async def test_a_list_without_end_is_given_up(open_mcp: OpenMcpSkill) -> None:
    assert "does not come to an end" in (await failed_start(open_mcp(hostile("--endless", omit=("echo",))))).message


async def test_names_that_providers_refuse_are_mapped_and_calls_go_out_under_the_real_ones(
    open_mcp: OpenMcpSkill, listing: Listing
) -> None:
    real = ["a.b", "a_b", "a b", "größe", "x" * 200, ""]
    skill = open_mcp(hostile(listing(*({"name": name, "inputSchema": {"type": "object"}} for name in real))))
    specs = await skill.tools()
    assert [spec.source_name or spec.name for spec in specs] == ["a.b", "a_b", "a b", "größe", "x" * 200, specs[5].name]
    names = [spec.name for spec in specs]
    assert names[1] == "a_b"
    assert len(set(names)) == len(names)
    assert all(0 < len(name) <= 64 and name.replace("_", "").replace("-", "").isascii() for name in names)
    for spec, name in zip(specs, real, strict=True):
        for said in (spec.name, name):
            assert text_of(await call(skill, said)) == f"{name} called"


async def test_of_two_tools_with_one_name_the_first_counts(open_mcp: OpenMcpSkill, listing: Listing) -> None:
    one = {"name": "echo", "description": "first", "inputSchema": {"type": "object"}}
    skill = open_mcp(hostile(listing(one, {**one, "description": "second"})))
    assert [tool.description for tool in await skill.tools()] == ["first"]
    assert any("'echo' is listed twice" in note for note in skill.notes)


BOMB = {
    "type": "object",
    "$ref": "#/$defs/s0",
    "$defs": {f"s{n}": {"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 2} for n in range(60)} | {"s60": {}},
}
NESTED_BOMB = {
    "type": "object",
    "properties": {"a": {"$ref": "#/$defs/t"}},
    "$defs": {"t": {"properties": {"a": {"allOf": [{"$ref": "#/$defs/t"}, {"$ref": "#/$defs/t"}]}}}},
}


UNUSABLE: list[object] = [
    "object",
    {"type": "string"},
    {"type": "object", "properties": 3},
    {"type": "object", "required": "name"},
    {"type": "object", "properties": {"a": {"$ref": "https://example.com/schema.json"}}},
    {"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}},
    {"type": "object", "description": "x" * 200_000},
    {"type": "object", "allOf": [{}] * 5000},
    BOMB,
]


@pytest.mark.parametrize("schema", UNUSABLE)
async def test_a_schema_that_nobody_can_use_is_replaced_and_not_checked(
    open_mcp: OpenMcpSkill, listing: Listing, schema: object
) -> None:
    skill = open_mcp(hostile(listing({"name": "liar", "description": "Lies.", "inputSchema": schema})))
    async with bounded():
        (spec,) = await skill.tools()
    assert spec.input_schema == {"type": "object"}
    assert spec.description is not None
    assert spec.description.startswith("Lies.\n")
    assert any("'liar'" in note for note in skill.notes)
    assert text_of(await call(skill, "liar", anything=1)) == "liar called"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "$ref": "#"},
        {"type": "object", "properties": {"a": {"pattern": "(a+)+$"}}},
        {"type": "object", "patternProperties": {"(a+)+$": {}}, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
        NESTED_BOMB,
    ],
)
async def test_a_check_that_would_not_come_to_an_end_is_left_out(
    open_mcp: OpenMcpSkill, listing: Listing, schema: dict[str, Any]
) -> None:
    args: dict[str, Any] = {"a": "a" * 60 + "b", "b": "x"}
    if schema is NESTED_BOMB:
        args = {}
        for _ in range(60):
            args = {"a": args}
    skill = open_mcp(hostile(listing({"name": "liar", "inputSchema": schema})))
    assert text_of(await call(skill, "liar", **args)) == "liar called"


async def test_arguments_that_do_not_fit_the_schema_never_reach_the_server(
    open_mcp: OpenMcpSkill, told: Told, tell: str
) -> None:
    skill = open_mcp(hostile(tell))
    wrong = await call(skill, "echo", text=3)
    missing = await call(skill, "echo")
    assert (wrong.is_error, missing.is_error) == (True, True)
    assert "text: 3 is not of type 'string'" in text_of(wrong)
    assert "'text' is a required property" in text_of(missing)
    assert text_of(await call(skill, "echo", text="right")) == "right"


# Results.


async def test_every_part_of_a_result_is_mapped(open_mcp: OpenMcpSkill) -> None:
    data = base64.b64encode(b"data").decode()
    content = [
        {"type": "text", "text": ""},
        {"type": "image", "data": data, "mimeType": "image/png"},
        {"type": "audio", "data": data, "mimeType": "audio/wav"},
        {"type": "resource", "resource": {"uri": "x://t", "text": "inline"}},
        {"type": "resource", "resource": {"uri": "x://b", "blob": data, "mimeType": "application/pdf"}},
        {"type": "resource_link", "uri": "x://l", "name": "link"},
    ]
    outcome = await call(open_mcp(hostile()), "parts", content=content)
    kinds = [type(part) for part in outcome.result]
    assert kinds.count(ImageInlinePart) == 1
    assert kinds.count(FileInlinePart) == 1
    said = text_of(outcome)
    assert all(piece in said for piece in ("audio/wav, 4 bytes", "inline", "Resource link: x://l", "(empty text)"))


async def test_failures_emptiness_and_structure_are_told(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile())
    failed = await call(skill, "failure")
    assert (failed.is_error, text_of(failed)) == (True, "it failed")
    assert "returned nothing for the arguments" in text_of(await call(skill, "empty", x=1))
    assert json.loads(text_of(await call(skill, "structured"))) == {"answer": 42}
    refused = await call(skill, "refusal", words="TOP-SECRET")
    assert refused.is_error
    assert "not with me [hidden]" in text_of(refused)
    nonsense = await call(skill, "nonsense")
    assert nonsense.is_error
    assert "no MCP result" in text_of(nonsense)
    assert "has no tool nothing. Its tools: echo," in text_of(await call(skill, "nothing"))
    assert text_of(await call(skill, "echo", text="unharmed")) == "unharmed"


async def test_a_huge_result_is_cut(open_mcp: OpenMcpSkill) -> None:
    said = text_of(await call(open_mcp(hostile()), "huge", bytes=5_000_000))
    assert "bytes cut" in said
    assert len(said) < 300_000


async def test_a_message_beyond_the_limit_ends_the_server(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile())
    said = text_of(await call(skill, "huge", bytes=process.MAX_MESSAGE_BYTES + 1))
    assert "sent a message of more than 32 MiB" in said
    assert text_of(await call(skill, "echo", text="back")) == "back"


# Garbage and floods.


async def test_garbage_on_stdout_harms_nobody_and_is_shown_when_something_fails(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile("--garbage"))
    assert text_of(await call(skill, "garbage")) == "after garbage"
    assert text_of(await call(skill, "wrong_id")) == "for you"
    assert "first: Welcome to the server!" in text_of(await call(skill, "die"))


async def test_a_flood_on_stdout_ends_the_server_and_fills_no_memory(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile())
    await skill.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = text_of(await call(skill, "flood", megabytes=60))
    assert "wrote more than 16 MiB to stdout" in said
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
    error = await failed_start(open_mcp(hostile("--flood")))
    assert "MiB" in error.message


async def test_notifications_without_end_end_the_server(
    open_mcp: OpenMcpSkill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MAX_UNASKED", 500)
    skill = open_mcp(hostile())
    assert text_of(await call(skill, "chatter", times=400)) == "said"
    assert text_of(await call(skill, "chatter", times=400)) == "said"
    assert "more than 500 notifications" in text_of(await call(skill, "chatter", times=2000))


async def test_a_server_that_asks_without_end_gets_its_answers_and_no_more_attention(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile())
    assert text_of(await call(skill, "asking", times=40)) == "asked"
    assert text_of(await call(skill, "asking", times=1000, timeout_seconds=10)) == "asked"


async def test_stderr_is_told_and_its_end_is_kept(open_mcp: OpenMcpSkill, heard: Heard) -> None:
    skill = open_mcp(hostile("--greeting=TOP-SECRET"))
    await call(skill, "stderr", text="key: TOP-\n")
    said = await heard.until("key: TOP-")
    assert "hostile server [hidden]" in said
    assert {name for name, _ in heard.pieces} == {"hostile"}
    lost = text_of(await call(skill, "die", words="TOP-SECRET"))
    assert "ended with exit code 3" in lost
    assert "last words [hidden]" in lost


async def test_a_flood_on_stderr_is_told_in_part(open_mcp: OpenMcpSkill, heard: Heard) -> None:
    skill = open_mcp(hostile())
    for _ in range(3):
        await call(skill, "stderr", text="noise TOP-SECRET\n", times=600_000)
    lost = text_of(await call(skill, "die"))
    async with bounded():
        await skill.close()
    assert all(len(text.encode()) <= PIECE_BYTES + 100 for _, text in heard.pieces)
    assert len(heard.text.encode()) < BURST_BYTES + 16 * 1024
    assert "more bytes of stderr left out" in heard.text
    assert "TOP-" not in heard.text + lost
    assert len(lost.encode()) < TAIL_BYTES + 1000


# Dying, hanging, breeding.


async def test_a_server_that_dies_in_a_call_is_told_and_started_again(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile())
    died = await call(skill, "die", code=9)
    assert died.is_error
    assert "The skill hostile was lost during the call of die" in text_of(died)
    assert "ended with exit code 9" in text_of(died)
    assert "was ended by SIGKILL" in text_of(await call(skill, "kill"))
    assert text_of(await call(skill, "echo", text="back")) == "back"


async def test_all_calls_in_flight_learn_of_the_death(open_mcp: OpenMcpSkill, told: Told, tell: str) -> None:
    skill = open_mcp(hostile(tell))
    hanging = [asyncio.create_task(call(skill, "hang")) for _ in range(3)]
    await told.until("call hang", times=3)
    died = await call(skill, "die")
    outcomes = await asyncio.gather(*hanging)
    assert all("exit code 3" in text_of(outcome) for outcome in (died, *outcomes))
    assert text_of(await call(skill, "echo", text="back")) == "back"


async def test_a_server_that_keeps_dying_is_not_started_for_ever(open_mcp: OpenMcpSkill, told: Told, tell: str) -> None:
    skill = open_mcp(hostile(tell))
    for _ in range(MAX_RESTARTS + 1):
        assert "exit code 3" in text_of(await call(skill, "die"))
    given_up = await call(skill, "echo", text="x")
    assert given_up.is_error
    assert "not started again: it was lost 4 times in a row" in text_of(given_up)
    assert "exit code 3" in text_of(given_up)
    assert not skill.is_open
    with pytest.raises(PerstackError) as caught:
        await skill.start()
    assert caught.value.code == "skill.gave_up"


async def test_an_answered_call_makes_the_count_of_restarts_start_anew(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile())
    for _ in range(MAX_RESTARTS + 2):
        assert "exit code" in text_of(await call(skill, "die"))
        assert text_of(await call(skill, "echo", text="back")) == "back"


async def test_a_server_that_closes_its_stdout_is_ended(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile())
    assert "closed its connection" in text_of(await call(skill, "mute"))
    assert text_of(await call(skill, "echo", text="back")) == "back"


async def test_a_call_that_takes_too_long_is_cancelled_and_its_server_stays_if_it_stops(
    open_mcp: OpenMcpSkill, told: Told, tell: str
) -> None:
    skill = open_mcp(hostile(tell))
    before = json.loads(text_of(await call(skill, "environment")))["PERSTACK_EXEC_ID"]
    late = await call(skill, "obedient", timeout_seconds=0.3)
    await told.until("cancelled")
    assert late.is_error
    assert "obedient of the skill hostile did not answer within 0.3 s and was told to stop." in text_of(late)
    assert "its process is ended" not in text_of(late)
    assert json.loads(text_of(await call(skill, "environment")))["PERSTACK_EXEC_ID"] == before


@pytest.mark.parametrize("tool", ["hang", "freeze"])
async def test_a_server_that_does_not_stop_is_ended_and_started_again(
    open_mcp: OpenMcpSkill, told: Told, tell: str, tool: str
) -> None:
    skill = open_mcp(hostile(tell))
    before = json.loads(text_of(await call(skill, "environment")))["PERSTACK_EXEC_ID"]
    late = await call(skill, tool, timeout_seconds=0.3)
    assert "its process is ended" in text_of(late)
    assert json.loads(text_of(await call(skill, "environment")))["PERSTACK_EXEC_ID"] != before


async def test_cancelling_the_caller_cancels_the_call_and_ends_a_server_that_goes_on(
    open_mcp: OpenMcpSkill, told: Told, tell: str
) -> None:
    skill = open_mcp(hostile(tell))
    before = json.loads(text_of(await call(skill, "environment")))["PERSTACK_EXEC_ID"]
    hanging = asyncio.create_task(call(skill, "hang"))
    await told.until("call hang")
    hanging.cancel()
    async with asyncio.timeout(1):
        await asyncio.wait({hanging})
    assert hanging.cancelled()
    await told.until("cancelled")
    # Waits for the grace, and does not go to the server that is about to be ended.
    assert json.loads(text_of(await call(skill, "environment")))["PERSTACK_EXEC_ID"] != before


async def test_calls_in_flight_go_on_while_a_cancelled_one_makes_their_server_leave(
    open_mcp: OpenMcpSkill, told: Told, tell: str
) -> None:
    skill = open_mcp(hostile(tell))
    other = asyncio.create_task(call(skill, "obedient", timeout_seconds=3))
    await told.until("call obedient")
    assert "its process is ended" in text_of(await call(skill, "hang", timeout_seconds=0.2))
    assert text_of(await call(skill, "echo", text="a new one")) == "a new one"
    assert not other.done()
    assert "was told to stop" in text_of(await other)
    await told.until("stdin closed")


async def test_everything_a_server_started_ends_with_it(open_mcp: OpenMcpSkill, skill_env: dict[str, str]) -> None:
    skill = open_mcp(hostile("--breed", "--stays"))
    await call(skill, "breed")
    async with asyncio.timeout(WAIT_SECONDS):
        # A process that is just becoming another program shows no environment, so it is not seen for an instant.
        while len(leftovers(skill_env["HOME"])) < 7:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    async with asyncio.timeout(5):
        await skill.close()
    assert not leftovers(skill_env["HOME"])


async def test_children_that_keep_the_pipes_open_do_not_hide_the_death_of_their_server(
    open_mcp: OpenMcpSkill, skill_env: dict[str, str]
) -> None:
    skill = open_mcp(hostile())
    await call(skill, "breed")
    assert "exit code 3" in text_of(await call(skill, "die", timeout_seconds=10))
    async with asyncio.timeout(5):
        await skill.close()
    assert not leftovers(skill_env["HOME"])


async def test_closing_is_bounded_whatever_the_server_does(open_mcp: OpenMcpSkill, told: Told, tell: str) -> None:
    skill = open_mcp(hostile(tell))
    frozen = asyncio.create_task(call(skill, "freeze"))
    await told.until("call freeze")
    async with asyncio.timeout(5):
        await asyncio.gather(skill.close(), skill.close())
        assert (await frozen).is_error
        await skill.close()
    assert not skill.is_open


async def test_a_well_behaved_server_gets_to_see_the_end_of_its_stdin(
    open_mcp: OpenMcpSkill, told: Told, tell: str
) -> None:
    skill = open_mcp(hostile(tell))
    await skill.start()
    async with bounded():
        await skill.close()
    await told.until("stdin closed")


async def test_a_closed_skill_starts_again_at_the_next_call(open_mcp: OpenMcpSkill) -> None:
    skill = open_mcp(hostile())
    assert not skill.is_open
    assert text_of(await call(skill, "echo", text="one")) == "one"
    assert skill.is_open
    used_at = skill.used_at
    async with bounded():
        await skill.close()
    assert not skill.is_open
    assert text_of(await call(skill, "echo", text="two")) == "two"
    assert skill.used_at > used_at


async def test_a_server_that_died_while_nobody_called_is_started_again(
    open_mcp: OpenMcpSkill, skill_env: dict[str, str], told: Told, tell: str
) -> None:
    skill = open_mcp(hostile(tell))
    await skill.start()
    marker = f"HOME={skill_env['HOME']}".encode()
    (pid,) = (int(n) for n in os.listdir("/proc") if n.isdigit() and _has_marker(int(n), marker))
    os.kill(pid, signal.SIGKILL)
    # Whether the loop hears of the death before the call goes out is chance.
    said = text_of(await call(skill, "echo", text="back"))
    if "was ended by SIGKILL" in said:
        said = text_of(await call(skill, "echo", text="back"))
    assert said == "back"


def _has_marker(pid: int, marker: bytes) -> bool:
    try:
        return pid != os.getpid() and marker in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


async def test_the_loop_that_goes_down_takes_the_server_with_it(
    open_mcp: OpenMcpSkill, skill_env: dict[str, str]
) -> None:
    skill = open_mcp(hostile("--stays"))
    await skill.start()
    owners = [task for task in asyncio.all_tasks() if "_own" in repr(task.get_coro())]
    assert len(owners) == 1
    owners[0].cancel()
    async with asyncio.timeout(WAIT_SECONDS):
        await asyncio.wait(owners)
    assert not leftovers(skill_env["HOME"])


async def test_input_that_only_a_person_could_give_is_an_error(open_mcp: OpenMcpSkill) -> None:
    outcome = await call(open_mcp(hostile("--modern")), "input")
    assert outcome.is_error
    assert "asks for input from a person" in text_of(outcome)
