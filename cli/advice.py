"""What is odd about skills without keeping them from working: for `install` and `doctor`."""

from collections.abc import Iterable, Iterator

from ..core.expert import BASE_SKILL, McpSseSkill, McpStdioSkill
from ..core.tools import ToolSpec, with_unique_names


def pick_advice(skill: McpStdioSkill | McpSseSkill, tools: Iterable[ToolSpec]) -> Iterator[str]:
    """Tools that `pick` names and the skill does not have."""
    names = {name for tool in tools for name in (tool.name, tool.source_name)}
    missing = [name for name in skill.pick if name not in names and name not in skill.omit]
    if missing:
        yield f"skill {skill.name} has no tool {', '.join(missing)}, which `pick` names"


def domains_advice(skill: McpStdioSkill | McpSseSkill) -> Iterator[str]:
    """A list of domains that nothing here holds a program to."""
    if skill.allowed_domains and isinstance(skill, McpStdioSkill) and skill.name != BASE_SKILL:
        yield f"skill {skill.name}: allowedDomains is declared, not enforced here; the container's proxy enforces it"


def name_advice(tools: Iterable[ToolSpec]) -> Iterator[str]:
    """Tools of one expert that are offered under another name than their skill gives them."""
    for tool in with_unique_names(tools):
        if tool.source_name is not None:
            yield f"tool {tool.source_name} of skill {tool.skill_name} is offered as {tool.name}"
