"""The base skill of one run: an MCP server in this process and the client that calls it."""

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import mcp_types as mcp
from mcp import Client, MCPError
from mcp.server import Server, ServerRequestContext
from pydantic import TypeAdapter

from ....core.expert import BASE_SKILL
from ....core.skills import SkillStart
from ....core.tools import ATTEMPT_COMPLETION, StateChange, ToolOutcome, ToolSpec, text_outcome
from ..connection import Connection
from ..results import ToolFailure, json_text, parts_from_mcp
from . import dynamic, files, todo
from .catalog import BaseTool, argument_problem, offered, spec_of
from .dynamic import Changed, DynamicContext
from .exec import Commands
from .files import InlineFile
from .todo import TodoList
from .workspace import Workspace

logger = logging.getLogger(__name__)

# A call's todos and what it changed travel beside arguments and result, so that the server keeps no state.
_TODOS = "perstack/todos"
_CHANGE = "perstack/change"
_CHANGES: TypeAdapter[StateChange] = TypeAdapter(StateChange)
# Files up to this size are read at once: a thread costs more than the read.
_DIRECT_BYTES = 256 * 1024
_MAX_TODO_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class BaseOutcome:
    """What a call answers, and the todo list where the call changed it."""

    outcome: ToolOutcome
    todos: TodoList | None = None


class BaseSkill:
    """`@perstack/base` for one run; start it, call it from any task, close it."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        host_env: Mapping[str, str],
        dynamic: DynamicContext | None,
        pick: Iterable[str] = (),
        omit: Iterable[str] = (),
    ) -> None:
        tools = offered(pick, omit, with_dynamic=dynamic is not None)
        self._names = frozenset(tool.name for tool in tools)
        self._commands = Commands(workspace, host_env)
        server = _server(tools, _Handlers(workspace, self._commands, dynamic))
        self._connection = Connection(Client(server, cache=None))
        self._specs: tuple[ToolSpec, ...] | None = None

    @property
    def has_run_programs(self) -> bool:
        """Whether a command was run, which may have left something in the background."""
        return self._commands.has_run

    async def start(self) -> SkillStart:
        """Connect and list the tools."""
        begun = time.perf_counter()
        await self._connection.open()
        connected = time.perf_counter()
        listed = await self._connection.client.list_tools()
        self._specs = tuple(spec_of(tool) for tool in listed.tools)
        return SkillStart(
            name=BASE_SKILL,
            server_name=BASE_SKILL,
            server_version=_version(),
            spawn_ms=0,
            handshake_ms=(connected - begun) * 1000,
            discovery_ms=(time.perf_counter() - connected) * 1000,
        )

    async def tools(self) -> tuple[ToolSpec, ...]:
        """The tools this run is offered."""
        if self._specs is None:
            raise RuntimeError("The base skill was not started.")
        return self._specs

    async def call(self, name: str, args: dict[str, Any], *, todos: TodoList) -> BaseOutcome:
        """Call a tool; whatever goes wrong in it is an outcome for the model."""
        if name not in self._names:
            return _error_outcome(f"There is no tool {name}. Tools: {', '.join(sorted(self._names))}.")
        problem = argument_problem(name, args)
        if problem is not None:
            return _error_outcome(f"Invalid arguments for {name}: {problem}")
        meta: Any = {_TODOS: todo.todos_json(todos)}
        try:
            result = await self._connection.client.call_tool(name, args, meta=meta)
        except (MCPError, RuntimeError) as error:
            return _error_outcome(f"Calling {name} failed: {error}")
        outcome = ToolOutcome(
            result=parts_from_mcp(result, tool_name=name, args=args),
            is_error=True if result.is_error else None,
            change=_change_of(result.meta),
        )
        return BaseOutcome(outcome, _todos_of(result.meta))

    async def close(self) -> None:
        """End running commands and disconnect."""
        await self._commands.close()
        await self._connection.close()


class _Handlers:
    """What each tool does; the arguments are already checked."""

    def __init__(self, workspace: Workspace, commands: Commands, dynamic: DynamicContext | None) -> None:
        self._workspace = workspace
        self._commands = commands
        self._dynamic = dynamic

    async def call(self, name: str, args: dict[str, Any], todos: TodoList) -> mcp.CallToolResult:
        try:
            if self._dynamic is not None and name in _DYNAMIC:
                return _changed_result(await _DYNAMIC[name](self._dynamic, args))
            match name:
                case "attemptCompletion" | "todo" | "clearTodo":
                    return _todo_result(name, args, todos)
                case "exec":
                    return _result(await self._commands.run(args))
                case "addDelegateFromConfig" if self._dynamic is not None:
                    return _changed_result(await dynamic.add_delegate_from_config(self._dynamic, args, self._workspace))
                case _:
                    return await self._file_result(name, args)
        except ToolFailure as failure:
            return _result({"error": failure.message, **failure.details}, is_error=True)
        except Exception as error:
            logger.exception("The base tool %s broke", name)
            return _result({"error": f"{name} broke: {type(error).__name__}: {error}"}, is_error=True)

    async def _file_result(self, name: str, args: dict[str, Any]) -> mcp.CallToolResult:
        path: str = args["path"]
        match name:
            case "readTextFile":
                start, end = int(args.get("from", 0)), args.get("to")
                last = None if end is None else int(end)
                return _result(
                    await self._sized(path, lambda: files.read_text_file(self._workspace, path, start=start, end=last))
                )
            case "writeTextFile":
                return _result(files.write_text_file(self._workspace, path, args["text"]))
            case "editTextFile":
                new, old = str(args["newText"]), str(args["oldText"])
                return _result(
                    await self._sized(
                        path, lambda: files.edit_text_file(self._workspace, path, new_text=new, old_text=old)
                    )
                )
            case "readImageFile":
                return await asyncio.to_thread(_image_result, self._workspace, path)
            case "readPdfFile":
                return await asyncio.to_thread(_pdf_result, self._workspace, path)
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


def _server(tools: tuple[BaseTool, ...], handlers: _Handlers) -> Server[Any]:
    listed = [tool.as_mcp() for tool in tools]

    async def list_tools(
        context: ServerRequestContext[Any], params: mcp.PaginatedRequestParams | None
    ) -> mcp.ListToolsResult:
        return mcp.ListToolsResult(tools=listed)

    async def call_tool(context: ServerRequestContext[Any], params: mcp.CallToolRequestParams) -> mcp.CallToolResult:
        todos = _todos_of(context.meta) or ()
        return await handlers.call(params.name, params.arguments or {}, todos)

    return Server(BASE_SKILL, version=_version(), on_list_tools=list_tools, on_call_tool=call_tool)


def _todo_result(name: str, args: Mapping[str, Any], todos: TodoList) -> mcp.CallToolResult:
    if name == ATTEMPT_COMPLETION:
        left = todo.remaining(todos)
        return _result({"remainingTodos": todo.todos_json(left)} if left else {})
    if name == "clearTodo":
        changed = todo.clear(todos)
    else:
        changed = todo.add(todos, args.get("newTodos", ()))
        changed = todo.complete(changed, [int(number) for number in args.get("completedTodos", ())])
    shown = todo.todos_json(changed)
    payload = {"todos": shown}
    # A cut list would be lost: the conversation is where it is kept.
    if len(json_text(payload).encode()) > _MAX_TODO_BYTES:
        raise ToolFailure("The todo list is too long: use fewer or shorter todos, or clear it.")
    return _result(payload, meta={_TODOS: shown})


def _result(
    payload: Mapping[str, Any], *, is_error: bool = False, meta: dict[str, Any] | None = None
) -> mcp.CallToolResult:
    return mcp.CallToolResult(content=[mcp.TextContent(text=json_text(payload))], is_error=is_error, _meta=meta)


def _changed_result(changed: Changed) -> mcp.CallToolResult:
    return _result(changed.payload, meta={_CHANGE: changed.change.model_dump(mode="json")})


def _image_result(workspace: Workspace, path: str) -> mcp.CallToolResult:
    image = files.read_image_file(workspace, path)
    content = mcp.ImageContent(data=_encoded(image), mime_type=image.mime_type)
    return mcp.CallToolResult(content=[content])


def _pdf_result(workspace: Workspace, path: str) -> mcp.CallToolResult:
    document = files.read_pdf_file(workspace, path)
    blob = mcp.BlobResourceContents(uri=document.path, blob=_encoded(document), mime_type=document.mime_type)
    return mcp.CallToolResult(content=[mcp.EmbeddedResource(resource=blob)])


def _encoded(file: InlineFile) -> str:
    return base64.b64encode(file.content).decode()


def _error_outcome(message: str) -> BaseOutcome:
    return BaseOutcome(text_outcome(json_text({"error": message}), is_error=True))


def _change_of(meta: Mapping[str, Any] | None) -> StateChange | None:
    value = (meta or {}).get(_CHANGE)
    return None if value is None else _CHANGES.validate_python(value)


def _todos_of(meta: Mapping[str, Any] | None) -> TodoList | None:
    value = (meta or {}).get(_TODOS)
    return None if value is None else todo.todos_of(value)


def _version() -> str:
    try:
        return version("perstack")
    except PackageNotFoundError:
        return "0"
