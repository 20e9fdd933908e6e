"""The tools a server lists, as tools of a run: filtered, under names that providers take, with usable schemas."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mcp_types as mcp
from mcp import Client, MCPError

from ....core.failures import SkillError
from ....core.tools import ToolSpec, tool_name, with_unique_names
from ..results import clip_text
from .arguments import MAX_SCHEMA_BYTES, ArgumentCheck, node_count, schema_problem
from .lenient import marked_problem

MAX_TOOLS = 1000
"""Of one skill, after `omit` and `pick`; more than any provider takes."""
MAX_LISTED = 100_000
MAX_PAGES = 1000
MAX_SCHEMA_NODES = 20_000
"""Of all schemas of one skill together."""
MAX_DESCRIPTION_BYTES = 16 * 1024
_OPEN_SCHEMA: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True)
class Listing:
    """What a skill offers; a tool is found by the server's name for it or by ours."""

    specs: tuple[ToolSpec, ...]
    notes: tuple[str, ...] = ()
    """What had to be left out or replaced."""
    _real: dict[str, str] = field(default_factory=dict[str, str])
    _checks: dict[str, ArgumentCheck] = field(default_factory=dict[str, ArgumentCheck])

    def real_name(self, name: str) -> str | None:
        """What the server calls the tool; `None` if it is not offered."""
        return self._real.get(name)

    def problem(self, real_name: str, args: dict[str, Any]) -> str | None:
        """What is wrong with arguments, or `None`."""
        check = self._checks.get(real_name)
        return None if check is None else check.problem(args)


async def list_tools(client: Client, *, skill_name: str, pick: Sequence[str], omit: Sequence[str]) -> list[mcp.Tool]:
    """All pages of a server's list, without what `omit` names, then only what `pick` names.

    Raises:
        SkillError: the list is endless or has too many tools.
    """
    kept: list[mcp.Tool] = []
    listed = 0
    cursors: set[str] = set()
    cursor: str | None = None
    while True:
        try:
            page = await client.list_tools(cursor=cursor)
        except MCPError as error:
            if error.code == mcp.METHOD_NOT_FOUND and not listed:
                return []  # it has resources or prompts only
            raise
        listed += len(page.tools)
        kept.extend(tool for tool in page.tools if _is_wanted(tool.name, pick, omit))
        if len(kept) > MAX_TOOLS:
            raise SkillError(
                f"Skill {skill_name} offers more than {MAX_TOOLS} tools.",
                code="skill.too_many_tools",
                hint="Name the ones to use in its `pick`.",
            )
        cursor = page.next_cursor
        if not cursor:
            return kept
        if cursor in cursors or len(cursors) >= MAX_PAGES or listed > MAX_LISTED:
            raise SkillError(f"Skill {skill_name} does not come to an end of its list of tools.")
        cursors.add(cursor)


def _is_wanted(name: str, pick: Sequence[str], omit: Sequence[str]) -> bool:
    names = {name, tool_name(name)}
    return names.isdisjoint(omit) and (not pick or not names.isdisjoint(pick))


def listing_of(tools: Iterable[mcp.Tool], *, skill_name: str) -> Listing:
    """The tools of a server as tools of a run; checking the schemas may take a second, so call it in a thread."""
    notes: list[str] = []
    unique: dict[str, mcp.Tool] = {}
    for tool in tools:
        if tool.name in unique:
            notes.append(f"the tool {tool.name[:100]!r} is listed twice; the first one counts")
        unique.setdefault(tool.name, tool)
    specs: dict[str, ToolSpec] = {}
    checks: dict[str, ArgumentCheck] = {}
    nodes = 0
    for name, tool in unique.items():
        nodes += node_count(tool.input_schema)
        problem = "the skill's schemas are too many" if nodes > MAX_SCHEMA_NODES else _schema_fault(tool)
        if problem is None:
            checks[name] = ArgumentCheck(tool.input_schema)
        else:
            notes.append(f"the schema of the tool {name[:100]!r} is not used: {problem}")
        specs[name] = _spec_of(tool, skill_name, problem)
    # Names that are fine as they are come first, so that none of them is taken by a name that had to be changed.
    fine = sorted(specs, key=lambda name: tool_name(name) != name)
    named = dict(zip(fine, with_unique_names(specs[name] for name in fine), strict=True))
    real = {spec.name: name for name, spec in named.items()} | {name: name for name in specs}
    return Listing(tuple(named[name] for name in specs), tuple(notes), real, checks)


def _spec_of(tool: mcp.Tool, skill_name: str, problem: str | None) -> ToolSpec:
    hints = tool.annotations
    description = clip_text(tool.description, MAX_DESCRIPTION_BYTES) if tool.description else None
    if problem is not None:
        description = (
            f"{description or ''}\n(The arguments are not described: the server's schema is unusable.)".strip()
        )
    return ToolSpec(
        name=tool.name,
        skill_name=skill_name,
        description=description,
        input_schema=_OPEN_SCHEMA if problem is not None else {"type": "object", **tool.input_schema},
        is_repeatable=bool(hints and (hints.read_only_hint or hints.idempotent_hint)),
    )


def _schema_fault(tool: mcp.Tool) -> str | None:
    if (problem := marked_problem(tool.input_schema)) is not None:
        return problem
    try:
        size = len(json.dumps(tool.input_schema))
    except (ValueError, RecursionError) as error:
        return str(error)
    if size > MAX_SCHEMA_BYTES:
        return f"it has {size} bytes, more than {MAX_SCHEMA_BYTES}"
    return schema_problem(tool.input_schema)
