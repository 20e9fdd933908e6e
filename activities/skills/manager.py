"""The skill manager: the skills of one run on one worker, and who answers a call."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...core.expert import BASE_SKILL, InteractiveSkill, McpSseSkill, McpStdioSkill, Skill
from ...core.failures import PerstackError
from ...core.skills import SkillStart
from ...core.tools import AddSkill, ToolOutcome, ToolSpec, text_outcome, with_unique_names
from . import mcp
from .base.skill import BaseOutcome, BaseSkill
from .base.todo import TodoList

if TYPE_CHECKING:
    from .mcp.skill import McpSkill

McpDefinition = McpStdioSkill | McpSseSkill


class SkillManager:
    """Starts skills when they are needed, routes calls to them, ends them with the run.

    The base skill is always there. An MCP skill is started to be asked for its tools, or, where `perstack.lock` has
    told those, at its first call.
    """

    def __init__(self, base: BaseSkill, make: "Callable[[McpDefinition], McpSkill]") -> None:
        self._base = base
        self._make = make
        self._running: dict[str, McpSkill] = {}
        self._begun: set[str] = set()
        """Skills whose start was reported."""
        self._attached: dict[str, SkillStart] = {}
        """Skills that joined the run, until the call that attached them tells so."""
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def has_programs(self) -> bool:
        """Whether anything runs beside this process: a skill, or what `exec` left in the background."""
        return self._base.has_run_programs or any(skill.is_open for skill in self._running.values())

    @property
    def base_start(self) -> SkillStart:
        """How the base skill came up."""
        return self._base.start

    @property
    def base_tools(self) -> tuple[ToolSpec, ...]:
        """What the base skill offers."""
        return self._base.tools

    async def start(self, skills: Iterable[Skill]) -> tuple[tuple[SkillStart, ...], tuple[ToolSpec, ...]]:
        """Start all MCP skills side by side and ask them for their tools, in the order of the definition.

        Raises:
            PerstackError: one did not start; those that did are closed.
        """
        definitions = [skill for skill in skills if isinstance(skill, McpDefinition) and skill.name != BASE_SKILL]
        wanted = [await self._skill(definition) for definition in definitions]
        started = await asyncio.gather(*(_tools_of(skill) for skill in wanted), return_exceptions=True)
        failures = [result for result in started if isinstance(result, BaseException)]
        if failures:
            await self.close_skills()
            raise failures[0]
        results = [result for result in started if not isinstance(result, BaseException)]
        self._begun.update(skill.name for skill in wanted)
        tools = tuple(tool for _, tools in results for tool in tools)
        return tuple(start for start, _ in results), tools

    async def attach(self, skill: McpDefinition, taken: Iterable[str]) -> tuple[ToolSpec, ...]:
        """Start a skill while the run goes on; its tools, under names that are not `taken`.

        Raises:
            PerstackError: it did not start.
        """
        await self.detach(skill.name)
        self._attached[skill.name], tools = await _tools_of(await self._skill(skill))
        self._begun.add(skill.name)
        return with_unique_names(tools, taken)

    async def detach(self, name: str) -> None:
        """End a skill."""
        self._begun.discard(name)
        skill = self._running.pop(name, None)
        if skill is not None:
            await skill.close()

    def detach_soon(self, name: str) -> None:
        """End a skill without waiting for its end."""
        task = asyncio.create_task(self.detach(name))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def call_base(self, name: str, args: dict[str, Any], *, todos: TodoList) -> BaseOutcome:
        """Call a tool of the base skill."""
        answer = await self._base.call(name, args, todos=todos)
        change = answer.outcome.change
        started = self._attached.pop(change.skill.name, None) if isinstance(change, AddSkill) else None
        return answer if started is None else replace(answer, outcome=answer.outcome.replaced(started=started))

    async def call(
        self,
        spec: ToolSpec,
        args: dict[str, Any],
        *,
        known: Sequence[Skill],
        timeout_seconds: float,
        meta: Mapping[str, str],
    ) -> ToolOutcome:
        """Call a tool of an MCP skill, one of `known`; it is started if it is not running."""
        definition = next((skill for skill in known if skill.name == spec.skill_name), None)
        if definition is None or isinstance(definition, InteractiveSkill):
            return text_outcome(f"The skill {spec.skill_name} was removed.", is_error=True)
        skill = await self._skill(definition)
        started: SkillStart | None = None
        if spec.skill_name not in self._begun:
            try:
                report = await skill.start()
            except PerstackError as error:
                return text_outcome(f"{error.message}{f' {error.hint}' if error.hint else ''}", is_error=True)
            # Calls of one message share the start, and one of them tells of it.
            started = None if spec.skill_name in self._begun else report
            self._begun.add(spec.skill_name)
        name = spec.name if spec.source_name is None else spec.source_name
        outcome = await skill.call(name, args, timeout_seconds=timeout_seconds, meta=meta)
        return outcome if started is None else outcome.replaced(started=started)

    async def close_idle(self, seconds: float) -> None:
        """End skills that nobody has called for `seconds`; a later call starts them again."""
        now = time.monotonic()
        idle = [skill for skill in self._running.values() if skill.is_open and now - skill.used_at > seconds]
        await asyncio.gather(*(skill.close() for skill in idle))

    async def close_skills(self) -> None:
        """End every MCP skill; one that does not end well stops no other."""
        running = list(self._running.values())
        self._running.clear()
        await asyncio.gather(*(skill.close() for skill in running), return_exceptions=True)

    async def close(self) -> None:
        """End everything."""
        await asyncio.gather(self._base.close(), self.close_skills(), *self._closing)

    async def _skill(self, definition: McpDefinition) -> "McpSkill":
        name = definition.name
        if name not in self._running:
            # Once in a process, and only where there is a skill that needs it.
            await asyncio.to_thread(mcp.load)
        if name not in self._running:  # another call may have been faster
            self._running[name] = self._make(definition)
        return self._running[name]


async def _tools_of(skill: "McpSkill") -> tuple[SkillStart, tuple[ToolSpec, ...]]:
    start = await skill.start()
    return start, await skill.tools()
