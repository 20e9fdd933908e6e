"""What a skill offers, asked once outside of any run: for `perstack install` and `perstack doctor`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...core.expert import BASE_SKILL, Expert, McpSseSkill, McpStdioSkill
from ...core.failures import PerstackError
from ...core.skills import SkillStart
from ...core.tools import ToolSpec, interactive_tools
from ..redaction import Redactor
from .base.catalog import offered
from .endpoints import EndpointPolicy
from .mcp.skill import McpSkill


@dataclass(frozen=True, kw_only=True)
class SkillListing:
    """How a skill came up and what it offers, or why it did not."""

    skill: McpStdioSkill | McpSseSkill
    start: SkillStart | None = None
    tools: tuple[ToolSpec, ...] = ()
    notes: tuple[str, ...] = ()
    """What of the server's list had to be left out or replaced."""
    error: PerstackError | None = None


@dataclass(frozen=True)
class SkillLister:
    """Starts skills as a worker would, asks for their tools, ends them."""

    env: Mapping[str, str]
    """Of the run: env files and the process."""
    cwd: Path
    endpoints: EndpointPolicy
    redactor: Redactor

    async def ask(self, skill: McpStdioSkill | McpSseSkill) -> SkillListing:
        """One skill, `pick` and `omit` applied; whatever goes wrong is in the listing."""
        client = McpSkill(
            skill,
            env=self.env,
            cwd=self.cwd,
            endpoints=self.endpoints,
            scrub=self.redactor.text,
            on_stderr=lambda name, text: None,
        )
        try:
            start = await client.start()
            tools = await client.tools()
            return SkillListing(skill=skill, start=start, tools=tools, notes=client.notes)
        except PerstackError as error:
            return SkillListing(skill=skill, error=error)
        finally:
            await client.close()


def known_tools(expert: Expert) -> tuple[tuple[ToolSpec, ...], tuple[ToolSpec, ...]]:
    """The tools of the base skill and those that ask a person: nobody has to be asked for them."""
    base = next(skill for skill in expert.skills if skill.name == BASE_SKILL)
    assert isinstance(base, McpStdioSkill)
    specs = tuple(tool.spec for tool in offered(base.pick, base.omit, with_dynamic=True))
    return specs, tuple(interactive_tools(expert.skills))
