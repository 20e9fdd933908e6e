"""Lists of things to do."""

from collections.abc import Iterable, Iterator

from .....core.activity import ClearTodoActivity, TodoActivity, TodoItem
from ....plain import one_line
from .block import DIM, Block
from .marks import INDENT, failure, tool_head

TODO_ROWS = 10


def todo(activity: TodoActivity) -> Iterator[Block]:
    added, completed = len(activity.new_todos or ()), len(activity.completed_todos or ())
    changes = [f"added {added}"] * bool(added) + [f"completed {completed}"] * bool(completed)
    yield tool_head("Todo", ", ".join(changes) or "no changes", activity.error)
    yield from failure(activity.error)
    if activity.todos:
        yield todo_list(activity.todos)


def clear_todo(activity: ClearTodoActivity) -> Iterator[Block]:
    yield tool_head("Todo cleared", "", activity.error)
    yield from failure(activity.error)


def todo_list(todos: Iterable[TodoItem]) -> Block:
    """All of a list, done or not."""
    lines = (f"{'☑' if item.completed else '☐'} {one_line(item.title)}" for item in todos)
    return Block("\n".join(lines), lead=INDENT, rows=TODO_ROWS, line_style=lambda line: DIM if line[0] == "☑" else "")
