"""Every MCP skill of every expert, started once as a run would start it, and ended."""

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from ...activities.redaction import Redactor
from ...activities.skills.endpoints import EndpointPolicy
from ...activities.skills.listing import SkillListing, known_tools
from ...core.expert import Expert, McpSseSkill, McpStdioSkill, mcp_skills
from ...core.failures import SkillError, UsageError
from ...core.skills import SkillStart
from ..advice import name_advice, pick_advice
from ..diagnostics import ExitCode, waiting
from ..skills import lister_of
from .report import Check, Tell, failed, passed, unneeded, warned
from .subject import Subject

AT_ONCE = 4
"""Skills that start side by side."""
_LABEL = "skills"


@dataclass(frozen=True)
class _Used:
    """A skill and the experts that have it."""

    skill: McpStdioSkill | McpSseSkill
    experts: list[str]

    @property
    def title(self) -> str:
        return f"{self.skill.name} ({', '.join(self.experts)})"


async def skill_checks(subject: Subject, tell: Tell, *, is_starting: bool) -> None:
    """Whether each skill comes up and what it offers; without `is_starting` only what it requires."""
    if subject.local is None:
        tell(unneeded(_LABEL, "not known while the definition is wrong"))
        return
    experts = subject.local.experts
    used: dict[str, _Used] = {}
    for key, expert in experts.items():
        for skill in mcp_skills(expert):
            used.setdefault(skill.model_dump_json(), _Used(skill, [])).experts.append(key)
    if not used:
        tell(unneeded(_LABEL, "no expert has one beside the base skill and questions to people"))
        return
    policy = EndpointPolicy(allowed=subject.allowed)
    lister = lister_of(experts.values(), env=subject.env, file_env=subject.file_env, endpoints=policy)
    places = asyncio.Semaphore(AT_ONCE)

    async def ask(skill: McpStdioSkill | McpSseSkill) -> SkillListing:
        async with places:
            return await lister.ask(skill)

    asked: dict[str, SkillListing] = {}
    async with asyncio.TaskGroup() as group:
        tasks = {
            content: group.create_task(ask(one.skill))
            for content, one in used.items()
            if is_starting and not _missing(one.skill, subject)
        }
        for content, one in used.items():
            if content in tasks:
                with waiting(f"starting skill {one.skill.name} …"):
                    asked[content] = await tasks[content]
            for check in _checks(one, asked.get(content), subject):
                tell(_scrubbed(check, lister.redactor))
    for key, expert in experts.items():
        for text in _renamed(expert, asked):
            tell(warned("tools", lister.redactor.text(f"{key}: {text}")))


def _missing(skill: McpStdioSkill | McpSseSkill, subject: Subject) -> list[str]:
    required = skill.required_env if isinstance(skill, McpStdioSkill) else ()
    return [name for name in required if not subject.env.get(name)]


def _checks(used: _Used, listing: SkillListing | None, subject: Subject) -> Iterator[Check]:
    missing = _missing(used.skill, subject)
    for name in missing:
        error = UsageError(
            f"{used.title} requires the environment variable {name}, which is not set",
            hint=f"Set it in the environment or in an env file: {name}=…",
        )
        yield failed(_LABEL, error)
    if listing is None:
        if not missing:
            yield unneeded(_LABEL, f"{used.title}: not started (--no-skills)")
        return
    if listing.error is not None or listing.start is None:
        error = listing.error or SkillError(f"Skill {used.skill.name} did not start")
        hint = "Correct the skill in the definition, or do without it."
        named = SkillError(f"{used.title}: {error.message}", hint=error.hint)
        yield failed(_LABEL, named, code=ExitCode.USAGE, hint=hint)
        return
    count = len(listing.tools)
    tools = f"{count} tool" if count == 1 else f"{count} tools"
    yield passed(_LABEL, f"{used.title}: {tools}, {_timing(listing.start)}{_server(listing.start)}")
    for text in pick_advice(used.skill, listing.tools):
        yield warned(_LABEL, f"{', '.join(used.experts)}: {text}")
    for text in listing.notes:
        yield warned(_LABEL, f"{used.title}: {text}")


def _timing(start: SkillStart) -> str:
    parts = {"spawn": start.spawn_ms, "handshake": start.handshake_ms, "discovery": start.discovery_ms}
    known = {name: milliseconds for name, milliseconds in parts.items() if milliseconds is not None}
    each = ", ".join(f"{name} {milliseconds:.0f}" for name, milliseconds in known.items())
    return f"{sum(known.values()):.0f} ms ({each})"


def _server(start: SkillStart) -> str:
    return f", {' '.join(filter(None, (start.server_name, start.server_version)))}" if start.server_name else ""


def _renamed(expert: Expert, asked: Mapping[str, SkillListing]) -> Iterator[str]:
    """What is offered under another name, as far as the skills of the expert have come up."""
    base, people = known_tools(expert)
    listings = [asked.get(skill.model_dump_json()) for skill in mcp_skills(expert)]
    tools = [tool for listing in listings if listing is not None for tool in listing.tools]
    return name_advice([*base, *tools, *people])


def _scrubbed(check: Check, redactor: Redactor) -> Check:
    hint = redactor.text(check.hint) if check.hint else check.hint
    return replace(check, text=redactor.text(check.text), hint=hint)
