"""Tools, calls and results; which class a call belongs to and in which order calls run."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from .expert import BASE_SKILL, Expert, InteractiveSkill, Skill
from .messages import ResultPart, TextPart, ToolCallPart
from .skills import SkillStart
from .wire import Wire

ToolKind = Literal["mcp", "delegate", "interactive"]
_PRIORITY: dict[ToolKind, int] = {"mcp": 0, "delegate": 1, "interactive": 2}

ATTEMPT_COMPLETION = "attemptCompletion"
BASE_TOOL_NAMES = frozenset(
    {
        *(ATTEMPT_COMPLETION, "todo", "clearTodo", "exec"),
        *("readTextFile", "readImageFile", "readPdfFile", "writeTextFile", "editTextFile"),
    }
)
"""What the base skill offers without being asked by name; a delegate cannot have one of these names."""
IN_ORDER_TOOLS = frozenset({"todo", "clearTodo", ATTEMPT_COMPLETION})
"""Base tools that run after all others of the same message, one after another."""
MAX_TOOL_NAME = 64
_NOT_IN_TOOL_NAME = re.compile(r"[^a-zA-Z0-9_-]")


class ToolSpec(Wire):
    """One callable as it is offered to the model; run state, never a process cache."""

    name: str
    skill_name: str
    kind: ToolKind = "mcp"
    description: str | None = None
    input_schema: dict[str, Any]
    is_repeatable: bool = False
    """Read-only or idempotent: may be called again after its worker was lost."""
    is_local: bool = False
    """Read-only and in-process: may run beside the workflow task (DESIGN §9)."""
    source_name: str | None = None
    """What the skill itself calls it, where that could not be its name here."""


class ToolCall(Wire):
    """A call the model made (contract §4.6)."""

    id: str
    skill_name: str
    tool_name: str
    args: dict[str, Any]


class ToolResult(Wire):
    """The answer to a call; `id` equals the call's."""

    id: str
    skill_name: str
    tool_name: str
    result: tuple[ResultPart, ...]
    is_error: bool | None = None


class AddSkill(Wire):
    """A skill with its tools, attached while the run goes on."""

    type: Literal["addSkill"] = "addSkill"
    skill: Skill
    tools: tuple[ToolSpec, ...]


class RemoveSkill(Wire):
    """A skill taken away."""

    type: Literal["removeSkill"] = "removeSkill"
    skill_name: str


class AddExperts(Wire):
    """Definitions made known to this run and its children; the same key again replaces the definition."""

    type: Literal["addExperts"] = "addExperts"
    experts: tuple[Expert, ...]


class AddDelegate(Wire):
    """A known expert made callable, with the definitions it needs."""

    type: Literal["addDelegate"] = "addDelegate"
    expert_key: str
    experts: tuple[Expert, ...] = ()


class RemoveDelegate(Wire):
    """A delegate no longer callable."""

    type: Literal["removeDelegate"] = "removeDelegate"
    expert_key: str


StateChange = AddSkill | RemoveSkill | AddExperts | AddDelegate | RemoveDelegate


class ToolOutcome(Wire):
    """What `call_tool` answers: parts for the model and, from a dynamic tool, what it changed."""

    result: tuple[ResultPart, ...]
    is_error: bool | None = None
    change: StateChange | None = None
    is_draining: bool = False
    """The worker is leaving: the next session belongs elsewhere."""
    started: SkillStart | None = None
    """The skill that this call was the first to need."""


def text_outcome(text: str, *, is_error: bool = False) -> ToolOutcome:
    """An outcome of one text part."""
    return ToolOutcome(result=(TextPart(text=text),), is_error=True if is_error else None)


def interactive_tools(skills: Iterable[Skill]) -> Iterator[ToolSpec]:
    """The tools by which a coordinator asks a person."""
    for skill in skills:
        if isinstance(skill, InteractiveSkill):
            for tool in skill.tools:
                yield ToolSpec(
                    name=tool.name,
                    skill_name=skill.name,
                    kind="interactive",
                    description=tool.description,
                    input_schema=tool.input_schema,
                )


def with_unique_names(tools: Iterable[ToolSpec], taken: Iterable[str] = ()) -> tuple[ToolSpec, ...]:
    """Tools of several skills under names that every provider allows, no two alike and none of `taken`.

    Of two with one name the later gets its skill's name in front; `source_name` keeps what its skill calls it.
    """
    used = set(taken)
    named: list[ToolSpec] = []
    for tool in tools:
        name = next(name for name in _tool_names_of(tool) if name and name not in used)
        used.add(name)
        named.append(tool if name == tool.name else _renamed(tool, name))
    return tuple(named)


def renamed_tools(tools: Iterable[ToolSpec], skill_name: str) -> dict[str, str] | None:
    """The tools of a skill that are offered under another name than its own, or `None`."""
    renamed = {
        tool.source_name: tool.name for tool in tools if tool.skill_name == skill_name and tool.source_name is not None
    }
    return renamed or None


def _renamed(tool: ToolSpec, name: str) -> ToolSpec:
    return tool.replaced(name=name, source_name=tool.name if tool.source_name is None else tool.source_name)


def _tool_names_of(tool: ToolSpec) -> Iterator[str]:
    """What a skill's tool may be called, the best name first."""
    yield tool_name(tool.name)
    full = tool_name(f"{tool.skill_name}_{tool.name}")
    yield full
    attempt = 0
    while True:
        yield _hashed(full, f"{tool.skill_name}/{tool.name}#{attempt}")
        attempt += 1


_DELEGATE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "The whole task: the expert sees nothing else."}},
    "required": ["query"],
    "additionalProperties": False,
}


def delegate_tools(delegates: tuple[str, ...], experts: dict[str, Expert], taken: set[str]) -> list[ToolSpec]:
    """One tool per delegate, named by its last path segment; a name already taken gets the full key instead.

    The names are unique beside `taken` and hold only what every provider allows.
    """
    specs: list[ToolSpec] = []
    used = {tool_name(name) for name in taken}
    for key in dict.fromkeys(delegates):
        expert = experts.get(key)
        if expert is None:
            continue
        name = next(name for name in _names_of(expert) if name not in used)
        used.add(name)
        specs.append(
            ToolSpec(
                name=name,
                skill_name=expert.key,
                kind="delegate",
                description=expert.description or f"Delegate a task to {expert.key}.",
                input_schema=_DELEGATE_SCHEMA,
            )
        )
    return specs


def tool_name(text: str) -> str:
    """`text` in the letters and the length every provider allows; what had to be cut off is told by a hash."""
    name = _NOT_IN_TOOL_NAME.sub("_", text)
    return name if len(name) <= MAX_TOOL_NAME else _hashed(name, text)


def _names_of(expert: Expert) -> Iterator[str]:
    """What a delegate's tool may be called, the best name first."""
    yield tool_name(expert.name.rpartition("/")[2])
    full = tool_name(expert.key)
    yield full
    attempt = 0
    while True:
        yield _hashed(full, f"{expert.key}#{attempt}")
        attempt += 1


def _hashed(name: str, source: str) -> str:
    suffix = "_" + hashlib.sha256(source.encode()).hexdigest()[:8]
    return name[: MAX_TOOL_NAME - len(suffix)] + suffix


class Toolset(Wire):
    """What one run may call: tools of its skills, its delegates, and the experts it knows."""

    skill_tools: tuple[ToolSpec, ...] = ()
    delegates: tuple[str, ...] = ()
    experts: dict[str, Expert] = {}
    added_skills: tuple[Skill, ...] = ()
    """Skills attached while the run goes on; those of the definition stand in the expert."""

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        """Every tool offered to the model, in offering order."""
        if not self.delegates:
            return self.skill_tools
        return (
            *self.skill_tools,
            *delegate_tools(self.delegates, self.experts, {spec.name for spec in self.skill_tools}),
        )

    def apply(self, change: StateChange) -> "Toolset":
        """This toolset after one dynamic change."""
        match change:
            case AddSkill():
                kept = tuple(t for t in self.skill_tools if t.skill_name != change.skill.name)
                added = (*_without(self.added_skills, change.skill.name), change.skill)
                # Skills attached by one message did not know of each other when their tools were named.
                tools = with_unique_names(change.tools, (tool.name for tool in kept))
                return self.model_copy(update={"skill_tools": (*kept, *tools), "added_skills": added})
            case RemoveSkill():
                kept = tuple(t for t in self.skill_tools if t.skill_name != change.skill_name)
                added = _without(self.added_skills, change.skill_name)
                return self.model_copy(update={"skill_tools": kept, "added_skills": added})
            case AddExperts():
                return self.model_copy(update={"experts": _merged(self.experts, change.experts)})
            case AddDelegate():
                delegates = self.delegates
                if change.expert_key not in delegates:
                    delegates = (*delegates, change.expert_key)
                return self.model_copy(
                    update={"delegates": delegates, "experts": _merged(self.experts, change.experts)}
                )
            case RemoveDelegate():
                kept_keys = tuple(key for key in self.delegates if key != change.expert_key)
                return self.model_copy(update={"delegates": kept_keys})


def _without(skills: tuple[Skill, ...], name: str) -> tuple[Skill, ...]:
    return tuple(skill for skill in skills if skill.name != name)


def _merged(known: dict[str, Expert], added: tuple[Expert, ...]) -> dict[str, Expert]:
    return {**known, **{expert.key: expert for expert in added}}


def sorted_calls(calls: tuple[ToolCallPart, ...], specs: tuple[ToolSpec, ...]) -> tuple[ToolCallPart, ...]:
    """Calls in the order MCP → delegate → interactive, stable inside a class; unknown tools count as MCP."""
    kinds: dict[str, ToolKind] = {spec.name: spec.kind for spec in specs}

    def priority(call: ToolCallPart) -> int:
        return _PRIORITY[kinds.get(call.tool_name, "mcp")]

    return tuple(sorted(calls, key=priority))


def remaining_todos(outcome: tuple[ResultPart, ...]) -> bool:
    """Whether an `attemptCompletion` result says that todos are open."""
    return any(isinstance(part, TextPart) and '"remainingTodos"' in part.text for part in outcome)


def is_completion(spec: ToolSpec | None) -> bool:
    """Whether `spec` is the base skill's `attemptCompletion`."""
    return spec is not None and spec.name == ATTEMPT_COMPLETION and spec.skill_name == BASE_SKILL


def runs_in_order(spec: ToolSpec) -> bool:
    """Whether `spec` is a base tool that waits for its neighbours."""
    return spec.skill_name == BASE_SKILL and spec.name in IN_ORDER_TOOLS
