"""The instruction message: meta-prompt of the expert's role, its own instruction, rules, delegates (contract §5.10)."""

from dataclasses import dataclass

from .expert import Expert, InteractiveSkill
from .ids import parse_expert_key
from .tools import ATTEMPT_COMPLETION, ToolSpec


@dataclass(frozen=True, slots=True)
class Environment:
    """Facts of the place a run works in, taken once when its session opens."""

    time: str
    """ISO 8601, with offset."""
    working_directory: str
    is_sandbox: bool


_IDENTITY = "You are an expert in a Perstack team. Solve the task you are given with the tools you are given."

_LOOP = """\
How you work:
- The first user message is your task. Nobody answers questions while you work unless a tool says so.
- Work in turns: look at the state of things, call the tools that move the task on, read their results, go on.
- Calls that do not depend on each other belong in one message; they run in parallel.
- A tool error is information. Read it, change something, try again; never repeat the same failing call unchanged.
- A message without a tool call ends your run. Until you are done, every message calls at least one tool."""

_COMPLETION = """\
How you finish:
- When the task is done and checked, call `attemptCompletion` with `result`: the complete answer to the task.
- Open todos keep you from finishing: complete them, or clear the list if it no longer applies.
- Finish at once if the task lies outside your expertise or cannot be understood, and say so in `result`.
- Call `attemptCompletion` alone, after the results of all other calls are there."""

_COMPLETION_BY_TEXT = """\
How you finish:
- When the task is done and you have checked it, answer with text only: that text is your result.
- Finish at once if the task lies outside your expertise or cannot be understood, and say so."""

_COORDINATOR = """\
You coordinate. Your delegates are tools: each call starts a fresh expert that sees nothing but the `query` you write.
- Split the task so that each delegate gets one clear piece, and put everything it needs into `query`: \
goal, inputs, file paths, constraints, and what a good answer contains.
- Delegates that do not depend on each other belong in one message; they run in parallel.
- Pass paths of files in the workspace rather than their contents; all experts of this job share the workspace.
- Check what comes back against what you asked for before you build on it. If it falls short, delegate again and \
say what was missing.
- A delegate that failed answers with the reason: change the task, choose another way, or report it."""

_DELEGATE = """\
You are a delegate: another expert gave you this task and reads only your result.
- Start by looking at the workspace as far as the task needs it.
- For work of several parts keep a todo list with `todo`, if you have it, and keep it true.
- Report what you did, where the results are, and what remains open. Do not report what you did not check."""


def render_instruction(expert: Expert, tools: tuple[ToolSpec, ...], environment: Environment) -> str:
    """The whole system prompt of a run."""
    key = parse_expert_key(expert.key)
    is_coordinator = key is None or key.scope is None
    delegates = [tool for tool in tools if tool.kind == "delegate"]
    names = {tool.name for tool in tools}
    blocks = [_IDENTITY, _LOOP, _COMPLETION if ATTEMPT_COMPLETION in names else _COMPLETION_BY_TEXT]
    if not is_coordinator:
        blocks.append(_DELEGATE)
    if delegates and is_coordinator:
        blocks.append(_COORDINATOR)
    blocks.append(_facts(environment))
    blocks.append(f"---\n\n{expert.instruction.strip()}")
    # A delegate is not offered what asks a person.
    with_tools = {tool.skill_name for tool in tools}
    rules = [
        f"## {skill.name}\n{skill.rule.strip()}"
        for skill in expert.skills
        if skill.rule and (not isinstance(skill, InteractiveSkill) or skill.name in with_tools)
    ]
    if rules:
        blocks.append("# Rules of your skills\n\n" + "\n\n".join(rules))
    if delegates:
        lines = [f"- `{tool.name}` ({tool.skill_name}): {tool.description}" for tool in delegates]
        blocks.append("# Your delegates, callable as tools\n\n" + "\n".join(lines))
    return "\n\n".join(blocks)


def _facts(environment: Environment) -> str:
    place = (
        "a sandbox container that holds nothing but this job" if environment.is_sandbox else "a machine people work on"
    )
    return (
        "Where you work:\n"
        f"- The job started at {environment.time}.\n"
        f"- The working directory, your workspace, is {environment.working_directory}. Relative paths start there.\n"
        "- The folder `perstack` in it belongs to the runtime; leave it alone.\n"
        f"- This is {place}."
    )
