"""`perstack.lock`: written whole, read back, compared with the definition of today."""

import os
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perstack.core.expert import BASE_SKILL, Expert, InteractiveSkill, McpSseSkill, McpStdioSkill, ModelChoice, Skill
from perstack.core.failures import DefinitionError
from perstack.core.tools import ToolSpec
from perstack.definitions.lockfile import (
    LOCK_NAME,
    Lockfile,
    definition_digest,
    drift,
    lock_text,
    locked_expert,
    locked_tools,
    new_lockfile,
    read_lockfile,
    write_lockfile,
)

STDIO = McpStdioSkill(name="files", command="npx", package_name="files", required_env=("TOKEN",))
SSE = McpSseSkill(name="far", endpoint="https://mcp.example.com")
ASK = InteractiveSkill(name="ask")


def expert(*skills: Skill, **fields: Any) -> Expert:
    choice = ModelChoice(provider="anthropic", model="claude-haiku-5-5")
    values: dict[str, Any] = {"key": "a", "name": "a", "instruction": "Be a.", "model": choice, **fields}
    return Expert(skills=(McpStdioSkill(name=BASE_SKILL), *skills), **values)


def tool(name: str, skill: str = "files", **schema: Any) -> ToolSpec:
    return ToolSpec(name=name, skill_name=skill, description=f"Does {name}.", input_schema={"type": "object", **schema})


def lock_of(one: Expert, *tools: ToolSpec) -> Lockfile:
    return new_lockfile("perstack.toml", [locked_expert(one, tools)])


def test_a_lock_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    lock = lock_of(
        expert(STDIO, SSE, ASK), tool("read", path={"enum": [1, None]}), tool("ls").replaced(is_repeatable=True)
    )
    write_lockfile(tmp_path / LOCK_NAME, lock)
    found = read_lockfile(tmp_path)
    assert found is not None
    assert locked_tools(found, {"a": expert(STDIO, SSE, ASK)}) == locked_tools(lock, {"a": expert(STDIO, SSE, ASK)})
    assert found.experts["a"].digest == lock.experts["a"].digest
    assert stat.S_IMODE((tmp_path / LOCK_NAME).stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == [LOCK_NAME]


def test_the_file_has_the_keys_of_the_contract() -> None:
    raw = tomllib.loads(lock_text(lock_of(expert(STDIO), tool("read"))))
    assert set(raw) == {"version", "generatedAt", "configPath", "experts"}
    assert raw["version"] == "1"
    entry = raw["experts"]["a"]
    assert {"key", "name", "version", "instruction", "skills", "delegates", "tags", "toolDefinitions"} <= set(entry)
    assert entry["skills"]["files"]["name"] == "files"
    assert entry["toolDefinitions"][0] == {
        "skillName": "files",
        "name": "read",
        "description": "Does read.",
        "inputSchema": {"type": "object"},
        "isRepeatable": False,
    }


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), _JSON, max_size=4), st.text())
def test_any_schema_and_any_text_survive(schema: dict[str, Any], text: str) -> None:
    described = ToolSpec(name="t", skill_name="files", description=text, input_schema=schema)
    lock = lock_of(expert(STDIO, instruction=text or "x"), described)
    raw = tomllib.loads(lock_text(lock))
    back = Lockfile.model_validate(raw).experts["a"]
    assert back.tool_definitions[0].spec == described
    assert back.instruction == (text or "x")


def test_no_lock_is_none_and_a_remote_definition_has_none(tmp_path: Path) -> None:
    assert read_lockfile(tmp_path) is None
    assert read_lockfile(None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("= 1", "Invalid"),
        ("version = '2'\ngeneratedAt = 1\nconfigPath = 'p'", "version"),
        ("version = '1'\nconfigPath = 'p'", "generatedAt"),
        (
            "version = '1'\ngeneratedAt = 1\nconfigPath = 'p'\n[experts.a]\nkey = 'a'\nname = 'a'\nversion = '1.0.0'\n"
            "instruction = 'x'\ntoolDefinitions = [{skillName = 's', name = 't', inputSchema = '{'}]",
            "EOF",
        ),
        (
            "version = '1'\ngeneratedAt = 1\nconfigPath = 'p'\n[experts.a]\nkey = 'a'\nname = 'a'\nversion = '1.0.0'\n"
            "instruction = 'x'\nskills.s = {type = 'odd', name = 's'}",
            "type",
        ),
    ],
)
def test_a_broken_lock_is_an_error_that_says_where_and_what_to_do(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / LOCK_NAME).write_text(text)
    with pytest.raises(DefinitionError, match=words) as caught:
        read_lockfile(tmp_path)
    assert caught.value.code == "definition.lock"
    assert LOCK_NAME in caught.value.message
    assert "perstack install" in (caught.value.hint or "")


def test_a_failed_write_leaves_the_old_lock_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lockfile(tmp_path / LOCK_NAME, lock_of(expert(STDIO)))
    before = (tmp_path / LOCK_NAME).read_text()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_lockfile(tmp_path / LOCK_NAME, lock_of(expert(SSE)))
    assert (tmp_path / LOCK_NAME).read_text() == before
    assert os.listdir(tmp_path) == [LOCK_NAME]


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (expert(STDIO), None),
        (expert(STDIO, model=ModelChoice(provider="openai", model="gpt")), None),
        (expert(STDIO, instruction="Be b."), "a has changed"),
        (expert(STDIO, SSE), "the skills of a have changed"),
        (expert(STDIO.replaced(args=("x",), package_name=None)), "the skills of a have changed"),
        (expert(STDIO, key="b"), "b is not in perstack.lock"),
    ],
)
def test_what_has_changed_since_is_told(now: Expert, words: str | None) -> None:
    told = list(drift(lock_of(expert(STDIO)), {now.key: now}))
    assert len(told) == (words is not None)
    assert words is None or words in told[0]


def test_pick_and_omit_of_today_choose_among_the_locked_tools() -> None:
    lock = lock_of(expert(STDIO), tool("read"), tool("write"), tool("readTextFile", BASE_SKILL))
    now = expert(STDIO.replaced(omit=("write",)))
    assert [spec.name for spec in locked_tools(lock, {"a": now})["a"]] == ["read"]
    assert list(drift(lock, {"a": now})) == ["a has changed since perstack.lock was written"]


@pytest.mark.parametrize(
    ("then", "now", "is_known"),
    [
        ({"pick": ("read",)}, {"pick": ("read",)}, True),
        ({"pick": ("read", "write")}, {"pick": ("read",)}, True),
        ({"pick": ("read",)}, {"pick": ("read", "write")}, False),
        ({"pick": ("read",)}, {}, False),
        ({"omit": ("write",)}, {"omit": ("write", "read")}, True),
        ({"omit": ("write",)}, {}, False),
    ],
)
def test_a_choice_that_asks_for_more_than_was_locked_must_ask_the_skill(
    then: dict[str, Any], now: dict[str, Any], is_known: bool
) -> None:
    lock = lock_of(expert(STDIO.replaced(**then)), tool("read"))
    assert ("a" in locked_tools(lock, {"a": expert(STDIO.replaced(**now))})) == is_known


def test_the_digest_covers_the_definition_and_not_the_model() -> None:
    same = definition_digest(expert(STDIO))
    assert definition_digest(expert(STDIO, model=ModelChoice(provider="openai", model="gpt"))) == same
    assert definition_digest(expert(STDIO, tags=("x",))) != same
