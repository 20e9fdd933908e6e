"""A tool call with its result → the activity that shows it; the tools of the base skill by name (contract §4.7)."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from .activity import (
    AppendTextFileActivity,
    AttemptCompletionActivity,
    BaseToolActivity,
    ClearTodoActivity,
    CreateDirectoryActivity,
    DeleteDirectoryActivity,
    DeleteFileActivity,
    EditTextFileActivity,
    ExecActivity,
    GeneralToolActivity,
    GetFileInfoActivity,
    ListDirectoryActivity,
    MoveFileActivity,
    ReadImageFileActivity,
    ReadPdfFileActivity,
    ReadTextFileActivity,
    TodoActivity,
    WriteTextFileActivity,
)
from .expert import BASE_SKILL
from .messages import FileInlinePart, ImageInlinePart, TextPart
from .tools import ToolCall, ToolResult

ToolActivity = BaseToolActivity | GeneralToolActivity


@dataclass(frozen=True, slots=True)
class _Shape:
    """Which arguments and which fields of its JSON result an activity shows."""

    activity: type[BaseToolActivity]
    args: tuple[str, ...] = ()
    result: tuple[str, ...] = ()


_MEDIA = ("mimeType", "size")
_SHAPES: dict[str, _Shape] = {
    "attemptCompletion": _Shape(AttemptCompletionActivity, result=("remainingTodos",)),
    "todo": _Shape(TodoActivity, args=("newTodos", "completedTodos"), result=("todos",)),
    "clearTodo": _Shape(ClearTodoActivity),
    "readImageFile": _Shape(ReadImageFileActivity, args=("path",), result=_MEDIA),
    "readPdfFile": _Shape(ReadPdfFileActivity, args=("path",), result=_MEDIA),
    "readTextFile": _Shape(ReadTextFileActivity, args=("path", "from", "to"), result=("content", "from", "to")),
    "editTextFile": _Shape(EditTextFileActivity, args=("path", "newText", "oldText")),
    "appendTextFile": _Shape(AppendTextFileActivity, args=("path", "text")),
    "writeTextFile": _Shape(WriteTextFileActivity, args=("path", "text")),
    "deleteFile": _Shape(DeleteFileActivity, args=("path",)),
    "createDirectory": _Shape(CreateDirectoryActivity, args=("path",)),
    "deleteDirectory": _Shape(DeleteDirectoryActivity, args=("path", "recursive")),
    "moveFile": _Shape(MoveFileActivity, args=("source", "destination")),
    "getFileInfo": _Shape(GetFileInfoActivity, args=("path",), result=("info",)),
    "listDirectory": _Shape(ListDirectoryActivity, args=("path",), result=("items",)),
    "exec": _Shape(ExecActivity, args=("command", "args", "cwd"), result=("output", "stdout", "stderr")),
}


def tool_activity(call: ToolCall, result: ToolResult) -> ToolActivity:
    """The activity of an answered call, without its place in a run."""
    error = error_text(result)
    shape = _SHAPES.get(call.tool_name) if call.skill_name.startswith(BASE_SKILL) else None
    if shape is not None:
        shown = {**_media(result), **_object(result)}
        fields = {name: call.args[name] for name in shape.args if name in call.args}
        fields |= {name: shown[name] for name in shape.result if name in shown}
        try:
            return shape.activity.model_validate({**fields, "error": error})
        except ValidationError:
            pass  # the model got the arguments wrong: they are shown as they are
    return GeneralToolActivity(
        skill_name=call.skill_name, tool_name=call.tool_name, args=call.args, result=result.result, error=error
    )


def error_text(result: ToolResult) -> str | None:
    """What a failed result says went wrong, in words for people; `None` when it did not fail."""
    text = _first_text(result)
    if text is None:
        return "The tool failed." if result.is_error else None
    value = _object(result)
    error, message = value.get("error"), value.get("message")
    if isinstance(error, str) and error:
        return f"{error}: {message}" if isinstance(message, str) and message else error
    looks_failed = not value and text.strip().lower().startswith(("error:", "error "))
    return text if result.is_error or looks_failed else None


def paired(calls: Iterable[ToolCall], results: Iterable[ToolResult]) -> Iterator[tuple[ToolCall, ToolResult]]:
    """Each result with its call; one id may stand for several calls, which are answered in their order."""
    waiting = list(calls)
    for result in results:
        call = next((call for call in waiting if call.id == result.id), None)
        if call is not None:
            waiting.remove(call)
            yield call, result


def _first_text(result: ToolResult) -> str | None:
    return next((part.text for part in result.result if isinstance(part, TextPart)), None)


def _object(result: ToolResult) -> dict[str, Any]:
    """The JSON object in the first text of a result; empty when there is none."""
    try:
        value: object = json.loads(_first_text(result) or "")
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _media(result: ToolResult) -> dict[str, Any]:
    """Type and size of a file that the result holds itself."""
    for part in result.result:
        if isinstance(part, (ImageInlinePart, FileInlinePart)):
            size = len(part.encoded_data) * 3 // 4 - part.encoded_data[-2:].count("=")
            return {"mimeType": part.mime_type, "size": size}
    return {}
