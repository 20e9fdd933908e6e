"""The base skill of one run: its tools, called in this process.

No MCP is spoken here: its library takes more than half a second to import, which a run without other skills need not
pay, and every call would be put into messages and taken out of them again.
"""

import asyncio
import base64
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ....core.expert import BASE_SKILL
from ....core.messages import FileInlinePart, ImageInlinePart, ResultPart
from ....core.skills import SkillStart
from ....core.tools import StateChange, ToolOutcome, ToolSpec, text_outcome
from ..results import ToolFailure, json_text
from . import dynamic, files, todo
from .catalog import argument_problem, offered
from .dynamic import Changed, DynamicContext
from .exec import Commands
from .files import InlineFile
from .todo import TodoList
from .workspace import Workspace

logger = logging.getLogger(__name__)

# Files up to this size are read at once: a thread costs more than the read.
_DIRECT_BYTES = 256 * 1024
_MAX_TODO_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class BaseOutcome:
    """What a call answers, and the todo list where the call changed it."""

    outcome: ToolOutcome
    todos: TodoList | None = None


class BaseSkill:
    """`@perstack/base` for one run; call it from any task, close it."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        host_env: Mapping[str, str],
        dynamic: DynamicContext | None,
        pick: Iterable[str] = (),
        omit: Iterable[str] = (),
    ) -> None:
        self.tools: tuple[ToolSpec, ...] = tuple(
            tool.spec for tool in offered(pick, omit, with_dynamic=dynamic is not None)
        )
        """What this run is offered."""
        self._names = frozenset(tool.name for tool in self.tools)
        self._workspace = workspace
        self._commands = Commands(workspace, host_env)
        self._dynamic = dynamic
        self._is_closed = False

    @property
    def has_run_programs(self) -> bool:
        """Whether a command was run, which may have left something in the background."""
        return self._commands.has_run

    @property
    def start(self) -> SkillStart:
        """How it came up: at once."""
        return SkillStart(
            name=BASE_SKILL,
            server_name=BASE_SKILL,
            server_version=_version(),
            spawn_ms=0,
            handshake_ms=0,
            discovery_ms=0,
        )

    async def call(self, name: str, args: dict[str, Any], *, todos: TodoList) -> BaseOutcome:
        """Call a tool; whatever goes wrong in it is an outcome for the model."""
        if name not in self._names:
            return _failed(f"There is no tool {name}. Tools: {', '.join(sorted(self._names))}.")
        problem = argument_problem(name, args)
        if problem is not None:
            return _failed(f"Invalid arguments for {name}: {problem}")
        if self._is_closed:
            return _failed(f"Calling {name} failed: the session was closed.")
        try:
            return await self._called(name, args, todos)
        except ToolFailure as failure:
            return _failed(failure.message, **failure.details)
        except Exception as error:
            logger.exception("The base tool %s broke", name)
            return _failed(f"{name} broke: {type(error).__name__}: {error}")

    async def close(self) -> None:
        """End running commands; later calls are refused."""
        self._is_closed = True
        await self._commands.close()

    async def _called(self, name: str, args: dict[str, Any], todos: TodoList) -> BaseOutcome:
        if self._dynamic is not None and name in _DYNAMIC:
            return _changed(await _DYNAMIC[name](self._dynamic, args))
        match name:
            case "attemptCompletion":
                left = todo.remaining(todos)
                return _answer({"remainingTodos": todo.todos_json(left)} if left else {})
            case "clearTodo":
                return _new_list(todo.clear(todos))
            case "todo":
                changed = todo.add(todos, args.get("newTodos", ()))
                return _new_list(todo.complete(changed, [int(number) for number in args.get("completedTodos", ())]))
            case "exec":
                return _answer(await self._commands.run(args))
            case "addDelegateFromConfig" if self._dynamic is not None:
                return _changed(await dynamic.add_delegate_from_config(self._dynamic, args, self._workspace))
            case _:
                return await self._file(name, args)

    async def _file(self, name: str, args: dict[str, Any]) -> BaseOutcome:
        path: str = args["path"]
        match name:
            case "readTextFile":
                start, end = int(args.get("from", 0)), args.get("to")
                last = None if end is None else int(end)
                return _answer(
                    await self._sized(path, lambda: files.read_text_file(self._workspace, path, start=start, end=last))
                )
            case "writeTextFile":
                return _answer(files.write_text_file(self._workspace, path, args["text"]))
            case "editTextFile":
                new, old = str(args["newText"]), str(args["oldText"])
                return _answer(
                    await self._sized(
                        path, lambda: files.edit_text_file(self._workspace, path, new_text=new, old_text=old)
                    )
                )
            case "readImageFile":
                return _shown(await asyncio.to_thread(_image, self._workspace, path))
            case "readPdfFile":
                return _shown(await asyncio.to_thread(_document, self._workspace, path))
            case _:
                raise ToolFailure(f"There is no tool {name}.")

    async def _sized(self, path: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if self._workspace.size(path) <= _DIRECT_BYTES:
            return work()
        return await asyncio.to_thread(work)


_DYNAMIC = {
    "addSkill": dynamic.add_skill,
    "removeSkill": dynamic.remove_skill,
    "addDelegate": dynamic.add_delegate,
    "removeDelegate": dynamic.remove_delegate,
    "createExpert": dynamic.create_expert,
}


def _answer(
    payload: Mapping[str, Any], *, todos: TodoList | None = None, change: StateChange | None = None
) -> BaseOutcome:
    return BaseOutcome(text_outcome(json_text(payload)).replaced(change=change), todos)


def _failed(message: str, **details: Any) -> BaseOutcome:
    return BaseOutcome(text_outcome(json_text({"error": message, **details}), is_error=True))


def _changed(changed: Changed) -> BaseOutcome:
    return _answer(changed.payload, change=changed.change)


def _new_list(todos: TodoList) -> BaseOutcome:
    payload = {"todos": todo.todos_json(todos)}
    # A cut list would be lost: the conversation is where it is kept.
    if len(json_text(payload).encode()) > _MAX_TODO_BYTES:
        raise ToolFailure("The todo list is too long: use fewer or shorter todos, or clear it.")
    return _answer(payload, todos=todos)


def _shown(part: ResultPart) -> BaseOutcome:
    return BaseOutcome(ToolOutcome(result=(part,)))


def _image(workspace: Workspace, path: str) -> ResultPart:
    image = files.read_image_file(workspace, path)
    return ImageInlinePart(encoded_data=_encoded(image), mime_type=image.mime_type)


def _document(workspace: Workspace, path: str) -> ResultPart:
    document = files.read_pdf_file(workspace, path)
    return FileInlinePart(encoded_data=_encoded(document), mime_type=document.mime_type)


def _encoded(file: InlineFile) -> str:
    return base64.b64encode(file.content).decode()


def _version() -> str:
    try:
        return version("perstack")
    except PackageNotFoundError:
        return "0"
