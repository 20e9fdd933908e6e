"""Names of tools where several skills meet, tools that ask a person, skills that come and go."""

import re

from hypothesis import given
from hypothesis import strategies as st
from perstack.core.expert import InteractiveSkill, InteractiveTool, McpStdioSkill
from perstack.core.tools import (
    MAX_TOOL_NAME,
    AddSkill,
    RemoveSkill,
    Toolset,
    ToolSpec,
    interactive_tools,
    with_unique_names,
)


def tool(name: str, skill: str = "s") -> ToolSpec:
    return ToolSpec(name=name, skill_name=skill, input_schema={"type": "object"})


def test_the_later_of_two_tools_with_one_name_gets_its_skill_in_front() -> None:
    named = with_unique_names([tool("read", "@perstack/base"), tool("read", "files"), tool("ls", "files")])
    assert [(one.name, one.source_name) for one in named] == [("read", None), ("files_read", "read"), ("ls", None)]


def test_names_that_providers_refuse_are_written_in_their_letters() -> None:
    (named,) = with_unique_names([tool("files/read now.v2")])
    assert (named.name, named.source_name) == ("files_read_now_v2", "files/read now.v2")


def test_names_already_taken_are_left_alone() -> None:
    assert with_unique_names([tool("read")], taken=["read"])[0].name == "s_read"


@given(st.lists(st.tuples(st.text(max_size=80), st.sampled_from(["a", "b/c", "ü" * 70])), max_size=12))
def test_all_names_differ_and_fit_every_provider(wanted: list[tuple[str, str]]) -> None:
    tools = [tool(name, skill) for name, skill in wanted]
    named = with_unique_names(tools)
    assert len({one.name for one in named}) == len(named)
    assert [one.name if one.source_name is None else one.source_name for one in named] == [name for name, _ in wanted]
    for one in named:
        assert len(one.name) <= MAX_TOOL_NAME
        assert re.fullmatch(r"[a-zA-Z0-9_-]+", one.name)


def test_an_interactive_skill_offers_its_tools_as_questions_to_a_person() -> None:
    ask = InteractiveTool(name="ask", description="Asks.", input_schema={"type": "object", "properties": {}})
    (found,) = interactive_tools([McpStdioSkill(name="x"), InteractiveSkill(name="people", tools=(ask,))])
    assert (found.name, found.skill_name, found.kind) == ("ask", "people", "interactive")


def test_an_attached_skill_is_remembered_until_it_is_taken_away() -> None:
    skill = McpStdioSkill(name="files", command="x")
    toolset = Toolset(skill_tools=(tool("todo", "@perstack/base"),))
    added = toolset.apply(AddSkill(skill=skill, tools=(tool("read", "files"),)))
    assert (added.added_skills, [spec.name for spec in added.specs]) == ((skill,), ["todo", "read"])
    assert added.apply(RemoveSkill(skill_name="files")) == toolset
