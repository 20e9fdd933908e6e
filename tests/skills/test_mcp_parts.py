"""What needs no server: commands, schemas of strangers, stderr in pieces."""

import asyncio
import time
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perstack.activities.skills.mcp.arguments import MAX_NODES, ArgumentCheck, schema_problem
from perstack.activities.skills.mcp.skill import command_of
from perstack.activities.skills.mcp.stderr import BURST_BYTES, PIECE_BYTES, TAIL_BYTES, StderrLog
from perstack.core.expert import McpStdioSkill
from perstack.core.failures import PerstackError

DRAFT_7 = "http://json-schema.org/draft-07/schema#"


@pytest.mark.parametrize(
    ("definition", "argv"),
    [
        ({"command": "npx", "package_name": "@a/b"}, ("npx", "-y", "@a/b")),
        ({"command": "npx", "args": ("@a/b", "--port", "1")}, ("npx", "-y", "@a/b", "--port", "1")),
        ({"command": "/usr/bin/npx", "args": ("@a/b",)}, ("/usr/bin/npx", "-y", "@a/b")),
        ({"command": "npx", "args": ("-y", "@a/b")}, ("npx", "-y", "@a/b")),
        ({"command": "npx", "args": ("@a/b", "-y")}, ("npx", "@a/b", "-y")),
        ({"command": "uvx", "package_name": "mcp-server"}, ("uvx", "mcp-server")),
        ({"command": "python", "args": ("-m", "server")}, ("python", "-m", "server")),
    ],
)
def test_npx_never_asks_and_a_package_is_an_argument(definition: dict[str, Any], argv: tuple[str, ...]) -> None:
    assert command_of(McpStdioSkill(name="s", **definition)) == argv


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"command": " ", "args": ("x",)}, "Skill s has no command"),
        ({"command": "npx"}, "Skill s has no packageName or args. Please provide one of them."),
        (
            {"command": "npx", "package_name": "p", "args": ("x",)},
            "Skill s has both packageName and args. Please provide only one of them.",
        ),
    ],
)
def test_a_definition_that_names_no_program_is_refused(definition: dict[str, Any], message: str) -> None:
    with pytest.raises(PerstackError) as caught:
        command_of(McpStdioSkill(name="s", **definition))
    assert caught.value.message == message


@pytest.mark.parametrize("dialect", [DRAFT_7, "https://json-schema.org/draft/2020-12/schema", "urn:unknown", None])
def test_arguments_are_checked_in_whatever_dialect(dialect: str | None) -> None:
    item = {"type": "integer", "minimum": 1}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"type": "array", "items": item}},
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {"n": item},
    }
    if dialect is not None:
        schema["$schema"] = dialect
    assert schema_problem(schema) is None
    check = ArgumentCheck(schema)
    assert check.problem({"a": 1, "b": [1, 2]}) is None
    assert check.problem({"a": 0}) == "a: 0 is less than the minimum of 1"
    assert check.problem({"a": 1, "b": [1, "x"]}) == "b[1]: 'x' is not of type 'integer'"
    assert "'c' was unexpected" in str(check.problem({"a": 1, "c": 2}))
    assert "'a' is a required property" in str(check.problem({}))


def test_a_schema_that_contains_itself_is_fine() -> None:
    schema = {"type": "object", "properties": {"child": {"$ref": "#"}, "name": {"type": "string"}}}
    assert schema_problem(schema) is None
    assert (
        ArgumentCheck(schema).problem({"child": {"child": {"name": 1}}})
        == "child.child.name: 1 is not of type 'string'"
    )


def test_another_dialect_within_a_schema_does_not_lead_around_the_count_of_steps() -> None:
    twice = {"$schema": DRAFT_7, "allOf": [{"$ref": "#/definitions/t"}, {"$ref": "#/definitions/t"}]}
    schema = {
        "type": "object",
        "$schema": DRAFT_7,
        "properties": {"a": twice},
        "definitions": {"t": {"properties": {"a": twice}}},
    }
    args: dict[str, Any] = {}
    for _ in range(60):
        args = {"a": args}
    begun = time.process_time()
    assert ArgumentCheck(schema).problem(args) is None
    assert time.process_time() - begun < 5


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "properties", "$ref", "allOf", "items", "required", "pattern", "$schema", "a"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_no_schema_makes_a_check_fail(schema: Any) -> None:
    wrapped: dict[str, Any] = cast("dict[str, Any]", schema) if isinstance(schema, dict) else {"allOf": [schema]}
    problem = schema_problem(wrapped)
    assert problem is None or problem.startswith("it")
    if problem is None:
        ArgumentCheck(wrapped).problem({"a": {"a": ["x", 1]}})


def test_a_schema_of_too_many_parts_is_refused_at_once() -> None:
    begun = time.process_time()
    assert schema_problem({"type": "object", "allOf": [{}] * MAX_NODES}) == f"it has more than {MAX_NODES} parts"
    assert time.process_time() - begun < 1


def scrub(text: str) -> str:
    return text.replace("s3cr3t-line-1\ns3cr3t-line-2", "[hidden]").replace("TOP-SECRET", "[hidden]")


class Pieces:
    """What a log told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.log = StderrLog(scrub, self.told.append)

    @property
    def text(self) -> str:
        return "\n".join(self.told)


async def test_a_secret_in_two_writes_and_several_lines_is_found() -> None:
    pieces = Pieces()
    pieces.log.add(b"before TOP-")
    pieces.log.add(b"SECRET after\ns3cr3t-line-1\n")
    pieces.log.add(b"s3cr3t-line-2\n")
    pieces.log.flush()
    assert pieces.text == "before [hidden] after\n[hidden]"
    assert pieces.log.tail() == pieces.text


async def test_a_line_waits_for_its_end() -> None:
    pieces = Pieces()
    told = asyncio.Event()
    pieces.log = StderrLog(scrub, lambda text: (pieces.told.append(text), told.set())[1])
    pieces.log.add(b"whole\nTOP-SEC")
    async with asyncio.timeout(5):
        await told.wait()
    assert pieces.text == "whole"
    pieces.log.add(b"RET\n")
    pieces.log.flush()
    assert pieces.text == "whole\n[hidden]"


@pytest.mark.parametrize("line", [b"TOP-SECRET ", b"TOP-SECRET\n", b"x TOP-SECRET y\n"])
@pytest.mark.parametrize("shift", range(0, 11, 2))
async def test_no_cut_shows_a_piece_of_a_secret_that_stands_in_lines(line: bytes, shift: int) -> None:
    if not line.endswith(b"\n"):
        line = line.rstrip() * 10 + b"\n"
    pieces = Pieces()
    pieces.log.add(b"." * shift + b"\n" + line * 10_000)
    pieces.log.flush()
    shown = (pieces.text + pieces.log.tail()).replace("[hidden]", "")
    assert not any(piece in shown for piece in ("TOP", "OP-", "SEC", "CRET"))


async def test_the_cut_off_head_of_the_end_shows_no_piece_of_a_long_secret() -> None:
    secret = "0123456789" * 300
    log = StderrLog(lambda text: text.replace(secret, "[hidden]"), lambda text: None)
    log.add(f"{secret}\n".encode() * 10)
    log.finish()
    assert "0123" not in log.tail()
    assert "[hidden]" in log.tail()


async def test_what_is_told_and_kept_is_bounded_and_the_rest_counted() -> None:
    pieces = Pieces()
    for _ in range(1000):
        pieces.log.add(b"a line of noise\n" * 1000)
        pieces.log.flush()
    pieces.log.finish()
    assert all(len(text.encode()) <= PIECE_BYTES + 100 for text in pieces.told)
    assert len(pieces.text.encode()) <= BURST_BYTES + 10_000
    assert "more bytes of stderr left out" in pieces.text
    assert len(pieces.log.tail().encode()) <= TAIL_BYTES


async def test_bytes_that_are_no_text_are_told_as_such() -> None:
    pieces = Pieces()
    pieces.log.add(b"\xff\xfe ok\n")
    pieces.log.flush()
    assert pieces.text == "\ufffd\ufffd ok"


@pytest.mark.parametrize("place", [60, 67, 150, 198, 390])
def test_a_secret_that_lies_across_the_cut_of_a_quoted_line_is_not_shown_in_part(place: int) -> None:
    secret = "tok-planted-0123456789-abcdefghij"
    log = StderrLog(lambda text: text.replace(secret, "***"), lambda text: None)
    quoted = log.quoted(b"0" * place + secret.encode() + b"0" * 400, 200)
    assert len(quoted) <= 200
    assert "tok-" not in quoted
    assert "abcdefghij" not in quoted
