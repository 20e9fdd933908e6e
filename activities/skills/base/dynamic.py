"""Tools that change the running team: each checks what it is asked for and says what the run should become."""

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from ....core.expert import BASE_SKILL, Expert, McpStdioSkill, Skill, reachable_experts
from ....core.failures import PerstackError
from ....core.tools import (
    AddDelegate,
    AddExperts,
    AddSkill,
    RemoveDelegate,
    RemoveSkill,
    StateChange,
    Toolset,
    ToolSpec,
)
from ..results import ToolFailure
from .workspace import Workspace

MAX_CONFIG_BYTES = 1024 * 1024
_PROBE_KEY = "probe"


class LoadText(Protocol):
    """Reads the experts of a definition text: `root` and what it reaches."""

    def __call__(self, text: str, *, source: str, root: str | None) -> dict[str, Expert]: ...


class LoadTables(Protocol):
    """Reads experts that come as data: what stands under `experts` of a definition, by key."""

    def __call__(self, experts: Mapping[str, Any], *, source: str, root: str | None) -> dict[str, Expert]: ...


@dataclass(frozen=True, kw_only=True)
class DynamicContext:
    """What the dynamic tools of one run may use.

    The loaders raise `PerstackError` for a definition that is wrong; its message goes to the model.
    """

    expert_key: str
    toolset: Callable[[], Toolset]
    """The run's toolset as it is now: changes of one message count from the next generation on."""
    load_experts: LoadText
    load_tables: LoadTables
    delegation_problem: Callable[[str, str], str | None]
    """Why the first expert may not delegate to the second."""
    allowed_env: frozenset[str] = frozenset()
    """Variables that a definition made while the job runs may require."""
    credential_names: frozenset[str] = frozenset()
    """Variables of providers, which no skill may require."""
    attach_skill: Callable[[Skill], Awaitable[tuple[ToolSpec, ...]]] | None = None
    """Connects a skill and lists its tools; without it `addSkill` says that it is not supported."""


@dataclass(frozen=True, slots=True)
class Changed:
    """What a dynamic tool answers and what it changed."""

    payload: dict[str, Any]
    change: StateChange


async def add_skill(context: DynamicContext, args: Mapping[str, Any]) -> Changed:
    """Attach another skill to this run."""
    name: str = args["name"]
    if name == BASE_SKILL or any(spec.skill_name == name for spec in context.toolset().skill_tools):
        raise ToolFailure(f"This run already has the skill {name!r}.")
    if context.attach_skill is None:
        raise ToolFailure(
            f"The skill {name!r} cannot be added: skills other than {BASE_SKILL} are not supported while a run goes on."
        )
    definition = {key: value for key, value in args.items() if key != "name"}
    tables = {_PROBE_KEY: {"instruction": f"Holds {name}.", "skills": {name: definition}}}
    with _readable():
        expert = context.load_tables(tables, source="addSkill", root=_PROBE_KEY)[_PROBE_KEY]
    skill = next(skill for skill in expert.skills if skill.name == name)
    _check_environment(context, [skill])
    tools = await context.attach_skill(skill)
    return Changed({"tools": [spec.name for spec in tools]}, AddSkill(skill=skill, tools=tools))


async def remove_skill(context: DynamicContext, args: Mapping[str, Any]) -> Changed:
    """Take a skill away from this run."""
    name: str = args["skillName"]
    if name == BASE_SKILL:
        raise ToolFailure(f"{BASE_SKILL} cannot be removed: the run ends through it.")
    if not any(spec.skill_name == name for spec in context.toolset().skill_tools):
        raise ToolFailure(f"This run has no skill {name!r}.")
    return Changed({"removed": name}, RemoveSkill(skill_name=name))


async def add_delegate(context: DynamicContext, args: Mapping[str, Any]) -> Changed:
    """Make an expert that the run knows callable."""
    key: str = args["expertKey"]
    if key not in context.toolset().experts:
        raise ToolFailure(f"This run knows no expert {key!r}. {_known(context.toolset().experts)}")
    _check_delegation(context, key)
    return _delegate_added(context, AddDelegate(expert_key=key))


async def remove_delegate(context: DynamicContext, args: Mapping[str, Any]) -> Changed:
    """Make a delegate not callable any more."""
    key: str = args["expertKey"]
    if key not in context.toolset().delegates:
        raise ToolFailure(f"{key!r} is no delegate of this run. {_known(context.toolset().delegates)}")
    return Changed({"removed": key}, RemoveDelegate(expert_key=key))


async def create_expert(context: DynamicContext, args: Mapping[str, Any]) -> Changed:
    """Define an expert, or define a known one anew."""
    key: str = args["key"]
    if key == context.expert_key:
        raise ToolFailure(f"{key!r} is the expert that is running; it cannot define itself anew.")
    definition = {name: value for name, value in args.items() if name != "key"}
    with _readable():
        loaded = context.load_tables({key: definition}, source="createExpert", root=key)
    experts = _checked(context, key, loaded)
    return Changed({"expertKey": key}, AddExperts(experts=experts))


async def add_delegate_from_config(context: DynamicContext, args: Mapping[str, Any], workspace: Workspace) -> Changed:
    """Make an expert of a definition file callable; of the file only experts count."""
    path, key = str(args["configPath"]), str(args["expertKey"])
    with workspace.locate(path) as place:
        content = place.read(MAX_CONFIG_BYTES)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ToolFailure(f"{path!r} is not UTF-8 text.") from error
    with _readable():
        loaded = context.load_experts(text, source=path, root=key)
    if key not in loaded:
        raise ToolFailure(f"{path!r} defines no expert {key!r}. {_known(loaded)}")
    _check_delegation(context, key)
    experts = _checked(context, key, loaded)
    return _delegate_added(context, AddDelegate(expert_key=key, experts=experts))


@contextmanager
def _readable() -> Generator[None]:
    try:
        yield
    except PerstackError as error:
        details = {"hint": error.hint} if error.hint else {}
        raise ToolFailure(error.message, **details) from error


def _checked(context: DynamicContext, key: str, loaded: dict[str, Expert]) -> tuple[Expert, ...]:
    """Of the loaded experts those that `key` can reach; what they need has to be there and allowed."""
    known = {**context.toolset().experts, **loaded}
    reachable = reachable_experts(key, known)
    for expert in reachable.values():
        missing = next((delegate for delegate in expert.delegates if delegate not in known), None)
        if missing is not None:
            raise ToolFailure(f"{expert.key!r} names the delegate {missing!r}, which nobody defines.")
    experts = tuple(expert for expert in reachable.values() if expert.key in loaded)
    for expert in experts:
        _check_environment(context, expert.skills)
    return experts


def _delegate_added(context: DynamicContext, change: AddDelegate) -> Changed:
    specs = context.toolset().apply(change).specs
    name = next(spec.name for spec in specs if spec.kind == "delegate" and spec.skill_name == change.expert_key)
    return Changed({"delegateToolName": name}, change)


def _check_delegation(context: DynamicContext, key: str) -> None:
    problem = context.delegation_problem(context.expert_key, key)
    if problem is not None:
        raise ToolFailure(problem)


def _check_environment(context: DynamicContext, skills: Iterable[Skill]) -> None:
    credentials = {name.upper() for name in context.credential_names}
    for skill in skills:
        if not isinstance(skill, McpStdioSkill) or skill.name == BASE_SKILL:
            continue
        for name in skill.required_env:
            if name.upper() in credentials:
                raise ToolFailure(f"Skill {skill.name!r} may not require {name}: it is a provider's credential.")
            if name not in context.allowed_env:
                raise ToolFailure(
                    f"Skill {skill.name!r} may not require {name}: "
                    "only variables named when the job started can be required."
                )


def _known(keys: Iterable[str]) -> str:
    names = ", ".join(sorted(keys))
    return f"Known: {names}." if names else "None is known."
