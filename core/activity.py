"""Activities: what an expert did, one line of a log each (contract §4.7)."""

# The models are frozen, so narrowing `type` in a subclass is sound; the base field keeps its place on the wire.
# pyright: reportIncompatibleVariableOverride=false

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from .messages import ResultPart
from .wire import Wire


class ActivityParent(Wire):
    """The run that delegated to this one."""

    expert_key: str
    run_id: str


class ActivityBase(Wire):
    """What every activity says of its place."""

    id: str = ""
    type: str
    expert_key: str = ""
    run_id: str = ""
    previous_activity_id: str | None = None
    """The one before in the same run, over all its segments."""
    delegated_by: ActivityParent | None = None
    reasoning: str | None = None


class TodoItem(Wire):
    """One thing to do, as the todo tool shows it."""

    id: int
    title: str
    completed: bool


class QueryActivity(ActivityBase):
    type: Literal["query"] = "query"
    text: str


class RetryActivity(ActivityBase):
    type: Literal["retry"] = "retry"
    error: str
    message: str


class CompleteActivity(ActivityBase):
    type: Literal["complete"] = "complete"
    text: str


class ErrorActivity(ActivityBase):
    type: Literal["error"] = "error"
    error: str | None = None
    error_name: str | None = None
    is_retryable: bool | None = None


class _ToolActivity(ActivityBase):
    error: str | None = None


class AttemptCompletionActivity(_ToolActivity):
    type: Literal["attemptCompletion"] = "attemptCompletion"
    remaining_todos: tuple[TodoItem, ...] | None = None


class TodoActivity(_ToolActivity):
    type: Literal["todo"] = "todo"
    new_todos: tuple[str, ...] | None = None
    completed_todos: tuple[int, ...] | None = None
    todos: tuple[TodoItem, ...] = ()


class ClearTodoActivity(_ToolActivity):
    type: Literal["clearTodo"] = "clearTodo"


class _ReadMediaActivity(_ToolActivity):
    path: str
    mime_type: str | None = None
    size: int | None = None


class ReadImageFileActivity(_ReadMediaActivity):
    type: Literal["readImageFile"] = "readImageFile"


class ReadPdfFileActivity(_ReadMediaActivity):
    type: Literal["readPdfFile"] = "readPdfFile"


class ReadTextFileActivity(_ToolActivity):
    type: Literal["readTextFile"] = "readTextFile"
    path: str
    content: str | None = None
    from_: int | None = Field(default=None, alias="from")
    to: int | None = None


class EditTextFileActivity(_ToolActivity):
    type: Literal["editTextFile"] = "editTextFile"
    path: str
    new_text: str
    old_text: str


class AppendTextFileActivity(_ToolActivity):
    type: Literal["appendTextFile"] = "appendTextFile"
    path: str
    text: str


class WriteTextFileActivity(_ToolActivity):
    type: Literal["writeTextFile"] = "writeTextFile"
    path: str
    text: str


class DeleteFileActivity(_ToolActivity):
    type: Literal["deleteFile"] = "deleteFile"
    path: str


class CreateDirectoryActivity(_ToolActivity):
    type: Literal["createDirectory"] = "createDirectory"
    path: str


class DeleteDirectoryActivity(_ToolActivity):
    type: Literal["deleteDirectory"] = "deleteDirectory"
    path: str
    recursive: bool | None = None


class MoveFileActivity(_ToolActivity):
    type: Literal["moveFile"] = "moveFile"
    source: str
    destination: str


class FileInfo(Wire):
    """What getFileInfo tells; times as the tool wrote them."""

    exists: bool
    name: str
    directory: str
    extension: str | None
    type: Literal["file", "directory"]
    mime_type: str | None
    size: int
    size_formatted: str
    created: str
    modified: str
    accessed: str


class GetFileInfoActivity(_ToolActivity):
    type: Literal["getFileInfo"] = "getFileInfo"
    path: str
    info: FileInfo | None = None


class DirectoryItem(Wire):
    """One entry of a listed folder."""

    name: str
    path: str
    type: Literal["file", "directory"]
    size: int
    modified: str


class ListDirectoryActivity(_ToolActivity):
    type: Literal["listDirectory"] = "listDirectory"
    path: str
    items: tuple[DirectoryItem, ...] | None = None


class ExecActivity(_ToolActivity):
    type: Literal["exec"] = "exec"
    command: str
    args: tuple[str, ...] = ()
    cwd: str
    output: str | None = None
    stdout: str | None = None
    stderr: str | None = None


class DelegateActivity(ActivityBase):
    type: Literal["delegate"] = "delegate"
    delegate_expert_key: str
    query: str


class DelegationCompleteActivity(ActivityBase):
    type: Literal["delegationComplete"] = "delegationComplete"
    count: int


class InteractiveToolActivity(ActivityBase):
    type: Literal["interactiveTool"] = "interactiveTool"
    skill_name: str
    tool_name: str
    args: dict[str, Any]


class GeneralToolActivity(_ToolActivity):
    type: Literal["generalTool"] = "generalTool"
    skill_name: str
    tool_name: str
    args: dict[str, Any]
    result: tuple[ResultPart, ...] | None = None


BaseToolActivity = (
    AttemptCompletionActivity
    | TodoActivity
    | ClearTodoActivity
    | ReadImageFileActivity
    | ReadPdfFileActivity
    | ReadTextFileActivity
    | EditTextFileActivity
    | AppendTextFileActivity
    | WriteTextFileActivity
    | DeleteFileActivity
    | CreateDirectoryActivity
    | DeleteDirectoryActivity
    | MoveFileActivity
    | GetFileInfoActivity
    | ListDirectoryActivity
    | ExecActivity
)
Activity = Annotated[
    QueryActivity
    | RetryActivity
    | CompleteActivity
    | ErrorActivity
    | BaseToolActivity
    | DelegateActivity
    | DelegationCompleteActivity
    | InteractiveToolActivity
    | GeneralToolActivity,
    Field(discriminator="type"),
]
activity_adapter: TypeAdapter[Activity] = TypeAdapter(Activity)
