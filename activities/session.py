"""A run's session on one worker: its conversation, its base skill, its todos; a cache that history can rebuild."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from temporalio import activity

from ..core.conversation import Appendix, KnownResult, Position, opening, tool_message
from ..core.expert import Skill
from ..core.messages import ExpertMessage, Message, ToolCallPart, ToolMessage, ToolResultPart
from ..core.run import RunInput
from ..core.state import RunState
from ..core.tools import RemoveSkill, ToolOutcome, Toolset
from .providers.base import Provider, WireCache
from .redaction import Redactor
from .skills.base.todo import TodoList, todos_from
from .skills.manager import SkillManager


class RunKey(NamedTuple):
    """One execution: sessions are never shared between executions."""

    workflow_id: str
    temporal_run_id: str


def calling_run() -> RunKey:
    """The run on whose behalf this activity works."""
    info = activity.info()
    assert info.workflow_id is not None
    assert info.workflow_run_id is not None
    return RunKey(info.workflow_id, info.workflow_run_id)


@dataclass
class RunSession:
    """What one run needs between two activities of the same worker."""

    start: RunInput
    provider: Callable[[], Awaitable[Provider]]
    """Made at the first model call: importing an SDK takes a second, which the opening need not wait for."""
    skills: SkillManager
    redactor: Redactor
    """Takes out what must not leave this worker."""
    toolset: Toolset
    """What the run may call now."""
    messages: list[Message] = field(default_factory=list[Message])
    position: Position = field(default_factory=Position)
    outcomes: dict[int, ToolOutcome] = field(default_factory=dict[int, ToolOutcome])
    """Answers this session gave to calls of the last expert message."""
    todos: TodoList = ()
    cache: WireCache = field(default_factory=WireCache)
    in_order: asyncio.Lock = field(default_factory=asyncio.Lock)
    used_at: float = field(default_factory=time.monotonic)
    in_use: int = 0

    @property
    def known_skills(self) -> tuple[Skill, ...]:
        """The skills attached while the run went on, then those of the definition: the later of a name counts."""
        return (*self.toolset.added_skills, *self.start.expert.skills)

    def append(self, message: Message) -> None:
        """Add one message to the conversation."""
        self.messages.append(message)
        self.position = self.position.after(message)

    def open_conversation(self, instruction: str) -> None:
        """The first two messages."""
        for message in opening(instruction, self.start.query, self.start.files):
            self.append(message)

    @property
    def calls(self) -> tuple[ToolCallPart, ...]:
        """The calls that wait for answers."""
        last = self.messages[-1] if self.messages else None
        return last.calls if isinstance(last, ExpertMessage) else ()

    @property
    def is_waiting(self) -> bool:
        """Whether the calls without an answer are all for persons or delegates: nothing to do for a worker."""
        kinds = {spec.name: spec.kind for spec in self.toolset.specs}
        left = [call for index, call in enumerate(self.calls) if index not in self.outcomes]
        return bool(left) and all(kinds.get(call.tool_name, "mcp") != "mcp" for call in left)

    def reach(self, position: Position, appendix: Appendix) -> bool:
        """Bring the conversation to `position`; false when this session missed something."""
        if self.position != position:
            self._append(appendix)
        return self.position == position

    def _append(self, appendix: Appendix) -> None:
        if self.calls:
            known = {i: KnownResult(index=i, contents=o.result, is_error=o.is_error) for i, o in self.outcomes.items()}
            known.update({result.index: result for result in appendix.results})
            if len(known) < len(self.calls):
                return
            for index in sorted(self.outcomes):
                change = self.outcomes[index].change
                if change is not None:
                    self.toolset = self.toolset.apply(change)
                if isinstance(change, RemoveSkill):
                    self.skills.detach_soon(change.skill_name)
            self.append(tool_message(self.calls, known))
        for message in appendix.messages:
            self.append(message)
        self.outcomes = {}

    def take_message(self) -> None:
        """Add what a run with a past is told before its first generation."""
        seed = self.start.seed
        if seed is not None and seed.message is not None:
            self._append(seed.settlement())

    def restore(self, state: RunState) -> None:
        """Take over what history says."""
        self.start = state.start
        self.toolset = state.toolset
        self.messages = list(state.checkpoint.messages)
        self.position = state.position
        self.outcomes = dict(state.results) if self.calls else {}
        self.todos = todos_from([*self.messages, self._answered()])
        self.cache = WireCache()

    def _answered(self) -> ToolMessage:
        """The calls answered so far of a message that still waits for others."""
        return ToolMessage(
            contents=tuple(
                ToolResultPart(
                    tool_call_id=self.calls[index].tool_call_id,
                    tool_name=self.calls[index].tool_name,
                    contents=self.outcomes[index].result,
                    is_error=self.outcomes[index].is_error,
                )
                for index in sorted(self.outcomes)
            )
        )
