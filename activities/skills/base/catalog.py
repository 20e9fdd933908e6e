"""The tools of the base skill as the model sees them: names, descriptions, schemas and how they may be run."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from ....core.expert import BASE_SKILL
from ....core.tools import ATTEMPT_COMPLETION, ToolSpec
from ..problems import shown_problem

_SHOWN_ERRORS = 5


@dataclass(frozen=True, slots=True)
class BaseTool:
    """One tool of the base skill."""

    name: str
    description: str
    properties: dict[str, Any] = field(default_factory=dict[str, Any])
    optional: tuple[str, ...] = ()
    is_read_only: bool = False
    is_idempotent: bool = False
    is_local: bool = False
    is_dynamic: bool = False

    @property
    def input_schema(self) -> dict[str, Any]:
        """The JSON Schema of the arguments; no others are taken."""
        schema: dict[str, Any] = {"type": "object", "properties": self.properties}
        required = [name for name in self.properties if name not in self.optional]
        if required:
            schema["required"] = required
        return {**schema, "additionalProperties": False}

    @property
    def spec(self) -> ToolSpec:
        """This tool as run state."""
        return ToolSpec(
            name=self.name,
            skill_name=BASE_SKILL,
            description=self.description,
            input_schema=self.input_schema,
            is_repeatable=self.is_read_only or self.is_idempotent,
            is_local=self.is_local,
        )


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "description": description}


_PATH = _text("Path of the file: relative to the workspace, or absolute inside it. `~` is the home folder.")
_EXPERT_KEY = _text("Key of the expert, for example `@team/writer`.")
_SKILL_PROPERTIES: dict[str, Any] = {
    "name": _text("Name of the skill, unique in this run."),
    "type": {"type": "string", "enum": ["mcpStdioSkill", "mcpSseSkill"]},
    "description": _text("What the skill is for."),
    "rule": _text("How to use it."),
    "command": _text("Program that starts the server, for mcpStdioSkill."),
    "packageName": _text("Package that the program runs; either this or args."),
    "args": _texts("Arguments of the program; either these or packageName."),
    "requiredEnv": _texts("Variables that the server needs."),
    "endpoint": _text("HTTPS address of the server, for mcpSseSkill."),
    "pick": _texts("Only these of its tools."),
    "omit": _texts("All but these of its tools."),
    "allowedDomains": _texts("Domains that the server may reach."),
}

STATIC_TOOLS: tuple[BaseTool, ...] = (
    BaseTool(
        ATTEMPT_COMPLETION,
        "Say that the task is done. Gives back the todos that are still open, if there are any; "
        "then go on working. With none left, the run ends.",
        {"result": _text("The answer to whoever gave the task.")},
        optional=("result",),
        is_idempotent=True,
        is_local=True,
    ),
    BaseTool(
        "todo",
        "Keep the list of things to do in this run: add new ones, mark finished ones. Gives back the whole list.",
        {
            "newTodos": _texts("Titles to add."),
            "completedTodos": {
                "type": "array",
                "items": {"type": "integer"},
                "description": "Ids of todos that are done.",
            },
        },
        optional=("newTodos", "completedTodos"),
        is_idempotent=True,
        is_local=True,
    ),
    BaseTool("clearTodo", "Empty the todo list.", is_idempotent=True, is_local=True),
    BaseTool(
        "exec",
        "Run a program and wait for it. There is no shell: to use pipes or redirection, run `sh` with `-c`. "
        "The exit code and the wanted output are given back; very long output is cut in the middle. "
        "After the timeout the program and everything it started are ended.",
        {
            "command": _text("The program."),
            "args": _texts("Its arguments, one item each."),
            "env": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Further variables. Those that decide which code runs cannot be set.",
            },
            "cwd": _text("Folder to run in: relative to the workspace, or absolute inside it."),
            "stdout": {"type": "boolean", "description": "Whether to give back the standard output."},
            "stderr": {"type": "boolean", "description": "Whether to give back the error output."},
            "timeout": {
                "type": "number",
                "minimum": 1,
                "maximum": 86_400_000,
                "description": "Milliseconds; 60000 if left out.",
            },
        },
        optional=("timeout",),
    ),
    BaseTool(
        "readTextFile",
        "Read a UTF-8 text file, or some of its lines. Very long text is cut in the middle: read a range instead.",
        {
            "path": _PATH,
            "from": {"type": "integer", "description": "First line, counted from 0; 0 if left out."},
            "to": {"type": "integer", "description": "The line to stop before; the end of the file if left out."},
        },
        optional=("from", "to"),
        is_read_only=True,
        is_local=True,
    ),
    BaseTool(
        "readImageFile",
        "Look at an image: PNG, JPEG, GIF or WebP, up to 15 MiB.",
        {"path": _PATH},
        is_read_only=True,
        is_local=True,
    ),
    BaseTool(
        "readPdfFile",
        "Read a PDF document, up to 30 MiB.",
        {"path": _PATH},
        is_read_only=True,
        is_local=True,
    ),
    BaseTool(
        "writeTextFile",
        "Create a text file, or replace the whole content of one. Missing folders are made.",
        {"path": _PATH, "text": _text("The whole new content; may be empty.")},
    ),
    BaseTool(
        "editTextFile",
        "Replace a piece of a text file. The old text must occur exactly once; give lines around it if needed.",
        {
            "path": _PATH,
            "newText": _text("What to put in its place, taken literally."),
            "oldText": _text("The text to replace, exactly as it is in the file."),
        },
    ),
)

DYNAMIC_TOOLS: tuple[BaseTool, ...] = (
    BaseTool(
        "addSkill",
        "Attach a skill to this run. Gives back the names of its tools, callable from your next turn on.",
        _SKILL_PROPERTIES,
        optional=tuple(name for name in _SKILL_PROPERTIES if name not in ("name", "type")),
        is_dynamic=True,
    ),
    BaseTool(
        "removeSkill",
        "Take a skill away from this run.",
        {"skillName": _text("Name of the skill.")},
        is_dynamic=True,
    ),
    BaseTool(
        "addDelegate",
        "Make a known expert callable. Gives back the name of its tool, callable from your next turn on.",
        {"expertKey": _EXPERT_KEY},
        is_dynamic=True,
    ),
    BaseTool(
        "removeDelegate",
        "Make a delegate not callable any more.",
        {"expertKey": _EXPERT_KEY},
        is_dynamic=True,
    ),
    BaseTool(
        "createExpert",
        "Define an expert for this run. Gives back its key, for addDelegate.",
        {
            "key": _EXPERT_KEY,
            "instruction": _text("How the expert works: its domain, rules and limits."),
            "description": _text("What the expert is for, as its callers see it."),
            "version": _text("Semantic version; 1.0.0 if left out."),
            "skills": {
                "type": "object",
                "additionalProperties": {"type": "object"},
                "description": "Skills by name, with the keys they have in perstack.toml.",
            },
            "delegates": _texts("Keys of experts it may call."),
            "tags": _texts("Tags."),
        },
        optional=("description", "version", "skills", "delegates", "tags"),
        is_dynamic=True,
    ),
    BaseTool(
        "addDelegateFromConfig",
        "Make an expert of a perstack.toml file callable. Gives back the name of its tool, "
        "callable from your next turn on.",
        {"configPath": _text("Path of the file, in the workspace."), "expertKey": _EXPERT_KEY},
        is_dynamic=True,
    ),
)

TOOLS = {tool.name: tool for tool in (*STATIC_TOOLS, *DYNAMIC_TOOLS)}


def offered(pick: Iterable[str], omit: Iterable[str], *, with_dynamic: bool) -> tuple[BaseTool, ...]:
    """The tools of one run: `omit` first, then `pick`; dynamic ones only where `pick` names them."""
    picked, omitted = frozenset(pick), frozenset(omit)
    return tuple(
        tool
        for tool in TOOLS.values()
        if tool.name not in omitted
        and (tool.name in picked if picked else not tool.is_dynamic)
        and (with_dynamic or not tool.is_dynamic)
    )


def argument_problem(name: str, args: dict[str, Any]) -> str | None:
    """What is wrong with the arguments of a call, or `None`."""
    found = cast("Iterable[ValidationError]", _validator(name).iter_errors(args))  # pyright: ignore[reportUnknownMemberType]
    errors = sorted(found, key=lambda error: error.json_path)
    return "; ".join(shown_problem(error) for error in errors[:_SHOWN_ERRORS]) if errors else None


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(TOOLS[name].input_schema)
