"""Tool names, the order of calls, and what dynamic changes do to a toolset."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from perstack.core.expert import McpStdioSkill
from perstack.core.tools import (
    AddDelegate,
    AddExperts,
    AddSkill,
    RemoveDelegate,
    RemoveSkill,
    StateChange,
    Toolset,
    ToolSpec,
    delegate_tools,
    remaining_todos,
    sorted_calls,
    text_outcome,
)
from support.scenarios import OBJECT, base_tools, call, expert, interactive_tool

VALID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
LONG = "x" * 80


def names_of(*keys: str, taken: set[str] | None = None) -> list[str]:
    """The tool names of delegates, in order."""
    experts = {key: expert(key) for key in keys}
    return [spec.name for spec in delegate_tools(keys, experts, taken or set())]


def test_a_delegate_is_called_by_the_last_part_of_its_name() -> None:
    (spec,) = delegate_tools(("@team/plan",), {"@team/plan": expert("@team/plan")}, set())
    assert (spec.name, spec.skill_name, spec.kind) == ("plan", "@team/plan", "delegate")
    assert spec.description == "Delegate a task to @team/plan."
    assert spec.input_schema["required"] == ["query"]


def test_a_delegate_is_described_by_its_own_words() -> None:
    planner = expert("@team/plan").model_copy(update={"description": "Plans."})
    assert delegate_tools(("@team/plan",), {"@team/plan": planner}, set())[0].description == "Plans."


def test_a_delegate_nobody_knows_is_not_offered() -> None:
    assert delegate_tools(("@team/gone",), {}, set()) == []


def test_the_later_of_two_delegates_of_one_name_gets_its_full_key() -> None:
    assert names_of("@a/plan", "@b/plan") == ["plan", "_b_plan"]


def test_a_version_is_no_part_of_the_short_name() -> None:
    key = "@a/plan@1.0.0"
    pinned = expert(key).model_copy(update={"name": "@a/plan"})
    specs = delegate_tools((key,), {key: pinned}, set())
    beside = delegate_tools((key,), {key: pinned}, {"plan"})
    assert [spec.name for spec in (*specs, *beside)] == ["plan", "_a_plan_1_0_0"]


def test_a_delegate_gives_way_to_a_tool_of_its_name() -> None:
    assert names_of("@a/exec", taken={"exec"}) == ["_a_exec"]


def test_a_key_that_is_its_own_short_name_gets_another_if_that_is_taken() -> None:
    first, second = names_of("@a/plan", "plan")
    assert first == "plan"
    assert re.fullmatch(r"plan_[0-9a-f]{8}", second)


def test_a_full_key_that_is_taken_as_well_gets_another() -> None:
    name = names_of("@a/plan", taken={"plan", "_a_plan"})[0]
    assert re.fullmatch(r"_a_plan_[0-9a-f]{8}", name)


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        (("my.expert",), ["my_expert"]),
        (("my.expert", "my_expert"), ["my_expert", None]),
        (("@a/v1.2", "@b/v1.2"), ["v1_2", "_b_v1_2"]),
    ],
)
def test_what_providers_do_not_take_in_a_name_becomes_an_underscore(
    keys: tuple[str, ...], names: list[str | None]
) -> None:
    found = names_of(*keys)
    assert [name if expected else None for name, expected in zip(found, names, strict=True)] == names
    assert len(set(found)) == len(found)
    assert all(VALID.fullmatch(name) for name in found)


def test_a_name_too_long_is_cut_and_told_apart_by_a_hash() -> None:
    first, second = names_of(LONG + "a", LONG + "b")
    assert len(first) == len(second) == 64
    assert first != second
    assert first.startswith("x" * 55 + "_")


def test_a_tool_that_is_spelt_alike_for_providers_counts_as_taken() -> None:
    assert names_of("a_b", taken={"a.b"})[0] != "a_b"


def test_a_delegate_named_twice_is_offered_once() -> None:
    assert names_of("@a/plan", "@a/plan") == ["plan"]


KEYS = st.from_regex(r"(@[a-z]{1,2}/)?[a-z][a-z._-]{0,2}", fullmatch=True) | st.just("@a/" + LONG) | st.just(LONG)


@given(st.lists(KEYS, unique=True, max_size=8), st.sets(KEYS, max_size=3))
def test_names_are_always_unique_valid_and_the_same_again(keys: list[str], taken: set[str]) -> None:
    names = names_of(*keys, taken=taken)
    assert names == names_of(*keys, taken=taken)
    assert len({*names, *taken}) == len(keys) + len(taken)
    assert all(VALID.fullmatch(name) for name in names)


def test_calls_are_sorted_by_class_and_stay_in_order_inside_one() -> None:
    specs = (
        *base_tools("exec", "todo"),
        interactive_tool(),
        *delegate_tools(("@t/a",), {"@t/a": expert("@t/a")}, set()),
    )
    calls = (call("askUser"), call("a"), call("todo"), call("unknown"), call("exec"))
    assert [one.tool_name for one in sorted_calls(calls, specs)] == ["todo", "unknown", "exec", "a", "askUser"]


def test_open_todos_are_found_in_a_result() -> None:
    assert remaining_todos(text_outcome('{"remainingTodos":[{"id":0}]}').result)
    assert not remaining_todos(text_outcome("{}").result)


FLY = ToolSpec(name="fly", skill_name="wings", input_schema=OBJECT)
GLIDE = ToolSpec(name="glide", skill_name="wings", input_schema=OBJECT)
START = Toolset(skill_tools=base_tools("exec"), delegates=("@t/a",), experts={"@t/a": expert("@t/a")})
WINGS = McpStdioSkill(name="wings")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ([AddSkill(skill=WINGS, tools=(FLY,))], ["exec", "fly", "a"]),
        ([AddSkill(skill=WINGS, tools=(FLY,)), AddSkill(skill=WINGS, tools=(GLIDE,))], ["exec", "glide", "a"]),
        ([AddSkill(skill=WINGS, tools=(FLY,)), RemoveSkill(skill_name="wings")], ["exec", "a"]),
        ([RemoveSkill(skill_name="unknown")], ["exec", "a"]),
        ([RemoveDelegate(expert_key="@t/a")], ["exec"]),
        ([RemoveDelegate(expert_key="@t/a"), AddDelegate(expert_key="@t/a")], ["exec", "a"]),
        ([AddDelegate(expert_key="@t/a")], ["exec", "a"]),
        ([AddDelegate(expert_key="@t/b")], ["exec", "a"]),
        ([AddExperts(experts=(expert("@t/b"),))], ["exec", "a"]),
        ([AddExperts(experts=(expert("@t/b"),)), AddDelegate(expert_key="@t/b")], ["exec", "a", "b"]),
        ([AddDelegate(expert_key="@t/b", experts=(expert("@t/b"),))], ["exec", "a", "b"]),
        ([AddSkill(skill=WINGS, tools=(FLY.model_copy(update={"name": "a"}),))], ["exec", "a", "_t_a"]),
    ],
)
def test_a_change_shows_in_what_is_offered(changes: list[StateChange], names: list[str]) -> None:
    toolset = START
    for change in changes:
        toolset = toolset.apply(change)
    assert [spec.name for spec in toolset.specs] == names


def test_an_expert_defined_again_replaces_the_one_before() -> None:
    anew = expert("@t/a", version="2.0.0")
    assert START.apply(AddExperts(experts=(anew,))).experts == {"@t/a": anew}
