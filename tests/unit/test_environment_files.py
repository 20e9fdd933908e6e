"""Env files, the host's variables, and what a skill misses."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from perstack.core.expert import BASE_SKILL, Expert, InteractiveSkill, McpSseSkill, McpStdioSkill, ModelChoice, Skill
from perstack.core.failures import UsageError
from perstack.definitions.environment import MissingVariable, check_required_env, missing_required_env, read_env


def written(folder: Path, name: str, text: str | bytes) -> str:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    ("host", "first", "second", "value"),
    [
        ({"KEY": "host"}, "KEY=one", "KEY=two", "host"),
        ({}, "KEY=one", "KEY=two", "one"),
        ({}, "OTHER=1", "KEY=two", "two"),
        ({"KEY": ""}, "KEY=one", "KEY=two", "one"),
        ({}, "KEY=", "KEY=two", "two"),
        ({}, "KEY", "KEY=two", "two"),
        ({}, "", "", None),
        ({"KEY": ""}, "KEY=", "", None),
    ],
)
def test_the_host_beats_files_and_an_earlier_file_beats_a_later_one(
    tmp_path: Path, host: Mapping[str, str], first: str, second: str, value: str | None
) -> None:
    paths = [written(tmp_path, ".env", first), written(tmp_path, ".env.local", second)]
    assert read_env(paths, host).get("KEY") == value


def test_a_missing_file_is_ignored(tmp_path: Path) -> None:
    written(tmp_path, "file", "")
    assert read_env([tmp_path / "nowhere", tmp_path / "file" / "below"], {"A": "1"}) == {"A": "1"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("KEY=pa$$word", "pa$$word"),
        ("KEY=${HOME}/x", "${HOME}/x"),
        ("KEY='a # b'", "a # b"),
        ('KEY="two\\nlines"', "two\nlines"),
        ("export KEY=exported", "exported"),
        ("KEY=value # comment", "value"),
        ("\ufeffKEY=marked", "marked"),
        ("A=1\r\nKEY=windows\r\n", "windows"),
    ],
)
def test_values_are_taken_as_they_stand(tmp_path: Path, text: str, value: str) -> None:
    assert read_env([written(tmp_path, ".env", text)], {"HOME": "/root"})["KEY"] == value


def test_reading_never_touches_the_process_environment(tmp_path: Path) -> None:
    before = dict(os.environ)
    read_env([written(tmp_path, ".env", "PERSTACK_TEST_ONLY=1")], {})
    assert dict(os.environ) == before


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, ".env", b"KEY=\xff")
    with pytest.raises(UsageError) as caught:
        read_env([path], {})
    assert caught.value.message == f"Env file {path} cannot be read: it is not UTF-8 text (byte 4)"


def test_a_folder_as_env_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: Is a directory"):
        read_env([tmp_path], {})


def test_an_impossible_path_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_env(["a\0b"], {})


def expert(*skills: Skill, key: str = "solo") -> Expert:
    model = ModelChoice(provider="anthropic", model="m")
    return Expert(key=key, name=key, instruction="x", skills=skills, model=model)


GITHUB = McpStdioSkill(name="github", command="npx", args=("g",), required_env=("GH_TOKEN", "GH_HOST"))


def test_a_missing_variable_names_skill_and_variable() -> None:
    missing = missing_required_env([expert(GITHUB)], {"GH_HOST": "github.com"})
    assert missing == (MissingVariable("solo", "github", "GH_TOKEN"),)
    assert missing[0].message == "Skill github requires environment variable GH_TOKEN"


def test_an_empty_variable_counts_as_missing() -> None:
    assert len(missing_required_env([expert(GITHUB)], {"GH_TOKEN": "", "GH_HOST": "h"})) == 1


def test_skills_without_variables_miss_none() -> None:
    skills = (
        McpStdioSkill(name=BASE_SKILL, required_env=("IGNORED",)),
        McpSseSkill(name="remote", endpoint="https://mcp.example.com"),
        InteractiveSkill(name="ask"),
    )
    assert missing_required_env([expert(*skills)], {}) == ()


def test_everything_missing_is_reported_once_before_the_start() -> None:
    with pytest.raises(UsageError) as caught:
        check_required_env([expert(GITHUB), expert(GITHUB, key="other")], {})
    assert caught.value.message.splitlines() == [
        "Skill github requires environment variable GH_TOKEN",
        "Skill github requires environment variable GH_HOST",
    ]
    assert caught.value.hint == "Set GH_TOKEN, GH_HOST in the environment or in an env file."
    check_required_env([expert(GITHUB)], {"GH_TOKEN": "t", "GH_HOST": "h"})
