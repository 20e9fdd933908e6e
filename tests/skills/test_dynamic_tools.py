"""Tools that change the team: offered only where named, checked, and answered with a typed change."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from perstack.activities.skills.base.dynamic import DynamicContext
from perstack.activities.skills.base.skill import BaseSkill
from perstack.core.expert import Expert, McpStdioSkill, ModelChoice, Skill
from perstack.core.failures import DefinitionError
from perstack.core.messages import TextPart
from perstack.core.tools import (
    AddDelegate,
    AddExperts,
    AddSkill,
    RemoveDelegate,
    RemoveSkill,
    ToolOutcome,
    Toolset,
    ToolSpec,
)
from support.skills import OpenSkill, bounded

DYNAMIC = ("addSkill", "removeSkill", "addDelegate", "removeDelegate", "createExpert", "addDelegateFromConfig")
MODEL = ModelChoice(provider="anthropic", model="a-model")


def expert(key: str, *, delegates: tuple[str, ...] = (), skills: tuple[Skill, ...] = ()) -> Expert:
    return Expert(key=key, name=key, instruction=f"I am {key}.", delegates=delegates, skills=skills, model=MODEL)


def stdio(name: str, *required_env: str) -> McpStdioSkill:
    return McpStdioSkill(name=name, command="npx", package_name=name, required_env=required_env)


KNOWN = {e.key: e for e in (expert("lead", delegates=("@lead/a",)), expert("@lead/a"), expert("@lead/b"))}


def load_text(text: str, *, source: str, root: str | None) -> dict[str, Expert]:
    """Stands for the definitions layer: the text is JSON of experts here."""
    try:
        experts = [Expert.model_validate(item) for item in json.loads(text)]
    except ValueError as error:
        raise DefinitionError(f"{source}: not a definition", hint="Write one.") from error
    return {item.key: item for item in experts}


def load_tables(experts: Mapping[str, Any], *, source: str, root: str | None) -> dict[str, Expert]:
    loaded: dict[str, Expert] = {}
    for key, table in experts.items():
        if not key.islower():
            raise DefinitionError(f"{source}: Invalid expert key format: {key}")
        skills = tuple(
            McpStdioSkill(name=name, command=value.get("command", ""), required_env=value.get("requiredEnv", ()))
            for name, value in table.get("skills", {}).items()
        )
        loaded[key] = expert(key, delegates=tuple(table.get("delegates", ())), skills=skills).model_copy(
            update={"instruction": table["instruction"], "description": table.get("description")}
        )
    return loaded


def delegation_problem(parent: str, delegate: str) -> str | None:
    return f"{parent} cannot delegate to {delegate}" if delegate.startswith("@other/") or parent == delegate else None


def context(**changes: Any) -> DynamicContext:
    base = DynamicContext(
        expert_key="lead",
        toolset=lambda: Toolset(delegates=("@lead/a",), experts=KNOWN),
        load_experts=load_text,
        load_tables=load_tables,
        delegation_problem=delegation_problem,
        allowed_env=frozenset({"ALLOWED", "ANTHROPIC_API_KEY"}),
        credential_names=frozenset({"ANTHROPIC_API_KEY"}),
    )
    return replace(base, **changes)


async def open_all(open_skill: OpenSkill, **changes: Any) -> BaseSkill:
    return await open_skill(dynamic=context(**changes), pick=DYNAMIC)


async def call(skill: BaseSkill, tool: str, /, **args: Any) -> tuple[ToolOutcome, dict[str, Any]]:
    async with bounded():
        outcome = (await skill.call(tool, args, todos=())).outcome
    (part,) = outcome.result
    assert isinstance(part, TextPart)
    return outcome, json.loads(part.text)


async def error(skill: BaseSkill, tool: str, /, **args: Any) -> str:
    outcome, payload = await call(skill, tool, **args)
    assert outcome.is_error is True
    assert outcome.change is None
    return payload["error"]


async def test_dynamic_tools_are_offered_only_where_pick_names_them(open_skill: OpenSkill) -> None:
    without = await open_skill(dynamic=context())
    assert not {spec.name for spec in without.tools} & set(DYNAMIC)
    some = await open_skill(dynamic=context(), pick=("todo", "addDelegate", "createExpert"), omit=("createExpert",))
    assert [spec.name for spec in some.tools] == ["todo", "addDelegate"]
    every = await open_all(open_skill)
    specs = every.tools
    assert sorted(spec.name for spec in specs) == sorted(DYNAMIC)
    assert not any(spec.is_repeatable or spec.is_local for spec in specs)
    assert "no tool addDelegate" in await error(without, "addDelegate", expertKey="@lead/b")


async def test_a_known_expert_becomes_a_delegate(open_skill: OpenSkill) -> None:
    outcome, payload = await call(await open_all(open_skill), "addDelegate", expertKey="@lead/b")
    assert payload == {"delegateToolName": "b"}
    assert outcome.change == AddDelegate(expert_key="@lead/b")


async def test_the_tool_name_given_back_is_the_one_the_run_will_offer(open_skill: OpenSkill) -> None:
    taken = ToolSpec(name="b", skill_name="other", input_schema={})
    toolset = Toolset(skill_tools=(taken,), experts=KNOWN)
    skill = await open_all(open_skill, toolset=lambda: toolset)
    outcome, payload = await call(skill, "addDelegate", expertKey="@lead/b")
    assert payload == {"delegateToolName": "_lead_b"}
    assert outcome.change is not None
    assert payload["delegateToolName"] in [spec.name for spec in toolset.apply(outcome.change).specs]


async def test_changes_count_once_the_run_took_them(open_skill: OpenSkill) -> None:
    toolset = Toolset(experts=KNOWN)
    skill = await open_all(open_skill, toolset=lambda: toolset)
    outcome, _ = await call(skill, "createExpert", key="@lead/new", instruction="Work.")
    assert "knows no expert '@lead/new'" in await error(skill, "addDelegate", expertKey="@lead/new")
    assert outcome.change is not None
    toolset = toolset.apply(outcome.change)
    assert (await call(skill, "addDelegate", expertKey="@lead/new"))[1] == {"delegateToolName": "new"}


async def test_delegates_that_nobody_knows_or_the_rules_forbid_are_refused(open_skill: OpenSkill) -> None:
    experts = {**KNOWN, "@other/x": expert("@other/x")}
    skill = await open_all(open_skill, toolset=lambda: Toolset(experts=experts))
    assert "Known: @lead/a, @lead/b, @other/x, lead" in await error(skill, "addDelegate", expertKey="nobody")
    assert await error(skill, "addDelegate", expertKey="@other/x") == "lead cannot delegate to @other/x"
    assert await error(skill, "addDelegate", expertKey="lead") == "lead cannot delegate to lead"


async def test_a_delegate_is_removed(open_skill: OpenSkill) -> None:
    skill = await open_all(open_skill)
    outcome, payload = await call(skill, "removeDelegate", expertKey="@lead/a")
    assert (payload, outcome.change) == ({"removed": "@lead/a"}, RemoveDelegate(expert_key="@lead/a"))
    assert "no delegate of this run" in await error(skill, "removeDelegate", expertKey="@lead/b")


async def test_an_expert_is_created_through_the_checks_of_definitions(open_skill: OpenSkill) -> None:
    skill = await open_all(open_skill)
    outcome, payload = await call(
        skill,
        "createExpert",
        key="@lead/new",
        instruction='Say "hi".\nTwice.',
        description="New.",
        delegates=["@lead/a"],
        skills={"fetch": {"type": "mcpStdioSkill", "command": "uvx", "requiredEnv": ["ALLOWED"]}},
    )
    assert payload == {"expertKey": "@lead/new"}
    assert isinstance(outcome.change, AddExperts)
    (created,) = outcome.change.experts
    assert (created.instruction, created.description, created.delegates) == (
        'Say "hi".\nTwice.',
        "New.",
        ("@lead/a",),
    )
    assert "Invalid expert key" in await error(skill, "createExpert", key="BAD", instruction="x")


async def test_an_expert_cannot_be_created_with_what_is_not_there_or_not_allowed(open_skill: OpenSkill) -> None:
    skill = await open_all(open_skill)

    async def refused(**args: Any) -> str:
        return await error(skill, "createExpert", **{"key": "@lead/new", "instruction": "x", **args})

    def needing(name: str) -> dict[str, Any]:
        return {"s": {"type": "mcpStdioSkill", "command": "x", "requiredEnv": [name]}}

    assert "'nobody', which nobody defines" in await refused(delegates=["nobody"])
    assert "itself anew" in await refused(key="lead")
    assert "may not require OTHER" in await refused(skills=needing("OTHER"))
    # Even where the starting configuration named it.
    assert "provider's credential" in await refused(skills=needing("ANTHROPIC_API_KEY"))
    assert "provider's credential" in await refused(skills=needing("anthropic_api_key"))


async def test_the_same_key_again_replaces_a_definition(open_skill: OpenSkill) -> None:
    outcome, _ = await call(await open_all(open_skill), "createExpert", key="@lead/a", instruction="Better.")
    assert outcome.change is not None
    assert Toolset(experts=KNOWN).apply(outcome.change).experts["@lead/a"].instruction == "Better."


def config(root: Path, *experts: Expert) -> None:
    (root / "team.toml").write_text(json.dumps([item.model_dump(mode="json") for item in experts]))


async def test_a_delegate_comes_from_a_file_with_all_it_can_reach(open_skill: OpenSkill, root: Path) -> None:
    config(
        root,
        expert("coder", delegates=("@coder/x", "@lead/b")),
        expert("@coder/x"),
        expert("@coder/unused"),
        expert("unrelated", skills=(stdio("s", "OTHER"),)),
    )
    outcome, payload = await call(
        await open_all(open_skill), "addDelegateFromConfig", configPath="team.toml", expertKey="coder"
    )
    assert payload == {"delegateToolName": "coder"}
    assert isinstance(outcome.change, AddDelegate)
    assert outcome.change.expert_key == "coder"
    assert [item.key for item in outcome.change.experts] == ["coder", "@coder/x"]


async def test_a_file_that_does_not_fit_is_refused_in_words(open_skill: OpenSkill, root: Path, outside: Path) -> None:
    skill = await open_all(open_skill)
    (root / "bad.toml").write_text("nonsense")
    (root / "binary.toml").write_bytes(b"\xff\xfe")
    (root / "link.toml").symlink_to(outside / "secret.txt")
    (root / "perstack").mkdir()
    (root / "perstack/x.toml").write_text("[]")
    config(
        root, expert("@other/x"), expert("@lead/c", delegates=("gone",)), expert("@lead/d", skills=(stdio("s", "X"),))
    )

    async def refused(path: str, key: str) -> str:
        return await error(skill, "addDelegateFromConfig", configPath=path, expertKey=key)

    outcome, payload = await call(skill, "addDelegateFromConfig", configPath="bad.toml", expertKey="x")
    assert outcome.is_error is True
    assert payload == {"error": "bad.toml: not a definition", "hint": "Write one."}
    assert "not UTF-8" in await refused("binary.toml", "x")
    assert "outside" in await refused("link.toml", "x")
    assert "cannot reach" in await refused("perstack/x.toml", "x")
    assert "no file" in await refused("missing.toml", "x")
    assert "defines no expert 'nobody'" in await refused("team.toml", "nobody")
    assert "cannot delegate" in await refused("team.toml", "@other/x")
    assert "'gone', which nobody defines" in await refused("team.toml", "@lead/c")
    assert "may not require X" in await refused("team.toml", "@lead/d")


async def test_adding_a_skill_is_not_supported_without_somebody_to_attach_it(open_skill: OpenSkill) -> None:
    skill = await open_all(open_skill)
    message = await error(skill, "addSkill", name="fetch", type="mcpStdioSkill", command="uvx", packageName="fetch")
    assert "not supported" in message
    assert "already has" in await error(skill, "addSkill", name="@perstack/base", type="mcpStdioSkill")
    assert "Invalid arguments" in await error(skill, "addSkill", name="ask", type="interactiveSkill")


async def test_a_skill_is_added_with_its_tools(open_skill: OpenSkill) -> None:
    async def attach(skill: Skill) -> tuple[ToolSpec, ...]:
        return (ToolSpec(name="get", skill_name=skill.name, input_schema={}),)

    skill = await open_all(open_skill, attach_skill=attach)
    args = {"name": "fetch", "type": "mcpStdioSkill", "command": "uvx", "requiredEnv": ["ALLOWED"]}
    outcome, payload = await call(skill, "addSkill", **args)
    assert payload == {"tools": ["get"]}
    assert isinstance(outcome.change, AddSkill)
    assert outcome.change.skill.name == "fetch"
    assert [spec.name for spec in outcome.change.tools] == ["get"]
    assert "may not require" in await error(skill, "addSkill", **{**args, "requiredEnv": ["OTHER"]})


async def test_a_skill_is_removed_but_never_the_base(open_skill: OpenSkill) -> None:
    tools = (ToolSpec(name="get", skill_name="fetch", input_schema={}),)
    skill = await open_all(open_skill, toolset=lambda: Toolset(skill_tools=tools, experts=KNOWN))
    outcome, payload = await call(skill, "removeSkill", skillName="fetch")
    assert (payload, outcome.change) == ({"removed": "fetch"}, RemoveSkill(skill_name="fetch"))
    assert "cannot be removed" in await error(skill, "removeSkill", skillName="@perstack/base")
    assert "no skill 'gone'" in await error(skill, "removeSkill", skillName="gone")


@pytest.mark.parametrize("name", DYNAMIC)
async def test_unknown_arguments_are_refused(open_skill: OpenSkill, name: str) -> None:
    assert "was unexpected" in await error(await open_all(open_skill), name, madeUp=1)
