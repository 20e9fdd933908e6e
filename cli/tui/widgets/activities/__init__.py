"""One row of the log for each kind of activity."""

from collections.abc import Iterator
from typing import assert_never

from .....core.activity import (
    Activity,
    AppendTextFileActivity,
    AttemptCompletionActivity,
    ClearTodoActivity,
    CompleteActivity,
    CreateDirectoryActivity,
    DelegateActivity,
    DelegationCompleteActivity,
    DeleteDirectoryActivity,
    DeleteFileActivity,
    EditTextFileActivity,
    ErrorActivity,
    ExecActivity,
    GeneralToolActivity,
    GetFileInfoActivity,
    InteractiveToolActivity,
    ListDirectoryActivity,
    MoveFileActivity,
    QueryActivity,
    ReadImageFileActivity,
    ReadPdfFileActivity,
    ReadTextFileActivity,
    RetryActivity,
    TodoActivity,
    WriteTextFileActivity,
)
from .....core.view_state import Entry
from . import delegation, edits, errors, exec, files, general, questions, text, todos
from .block import Block
from .row import ActivityRow


def activity_widget(entry: Entry) -> ActivityRow:
    """The row of the log that shows an entry."""
    return ActivityRow(entry, tuple(activity_blocks(entry.activity)))


def activity_blocks(activity: Activity) -> Iterator[Block]:
    """What an activity shows below its header."""
    yield from text.reasoning(activity.reasoning or "")
    yield from _blocks(activity)


def _blocks(activity: Activity) -> Iterator[Block]:  # noqa: C901 - one case for each kind
    match activity:
        case QueryActivity():
            return text.query(activity)
        case CompleteActivity():
            return text.complete(activity)
        case AttemptCompletionActivity():
            return text.attempt_completion(activity)
        case RetryActivity():
            return errors.retry(activity)
        case ErrorActivity():
            return errors.error(activity)
        case TodoActivity():
            return todos.todo(activity)
        case ClearTodoActivity():
            return todos.clear_todo(activity)
        case ReadTextFileActivity():
            return files.read_text(activity)
        case ReadImageFileActivity() | ReadPdfFileActivity():
            return files.read_media(activity)
        case DeleteFileActivity() | CreateDirectoryActivity():
            return files.change_path(activity)
        case DeleteDirectoryActivity():
            return files.delete_folder(activity)
        case MoveFileActivity():
            return files.move(activity)
        case GetFileInfoActivity():
            return files.file_info(activity)
        case ListDirectoryActivity():
            return files.list_folder(activity)
        case EditTextFileActivity():
            return edits.edit(activity)
        case WriteTextFileActivity() | AppendTextFileActivity():
            return edits.write(activity)
        case ExecActivity():
            return exec.exec_(activity)
        case DelegateActivity():
            return delegation.delegate(activity)
        case DelegationCompleteActivity():
            return delegation.delegation_complete(activity)
        case InteractiveToolActivity():
            return questions.question(activity)
        case GeneralToolActivity():
            return general.general_tool(activity)
        case _:
            assert_never(activity)


__all__ = ["ActivityRow", "activity_blocks", "activity_widget"]
