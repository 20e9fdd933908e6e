"""The todo list of one run: a value, rebuilt from the conversation wherever the run goes on."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ....core.messages import Message, TextPart, ToolMessage, ToolResultPart
from ....core.wire import Wire

TODO_TOOLS = frozenset({"todo", "clearTodo"})


class Todo(Wire):
    """One thing to do; ids count from 0 in each list."""

    id: int
    title: str
    completed: bool = False


TodoList = tuple[Todo, ...]
_LIST: TypeAdapter[TodoList] = TypeAdapter(TodoList)


def add(todos: TodoList, titles: Sequence[str]) -> TodoList:
    """`todos` and one open entry for each title."""
    first = todos[-1].id + 1 if todos else 0
    return (*todos, *(Todo(id=first + index, title=title) for index, title in enumerate(titles)))


def complete(todos: TodoList, ids: Iterable[int]) -> TodoList:
    """`todos` with those of `ids` done; ids that are not there change nothing."""
    done = frozenset(ids)
    return tuple(todo.model_copy(update={"completed": True}) if todo.id in done else todo for todo in todos)


def clear(todos: TodoList) -> TodoList:
    """No todos; the next id is 0 again."""
    return todos[:0]


def remaining(todos: TodoList) -> TodoList:
    """Those still open."""
    return tuple(todo for todo in todos if not todo.completed)


def todos_json(todos: TodoList) -> list[dict[str, Any]]:
    """`todos` as tools show them."""
    return [todo.model_dump(mode="json") for todo in todos]


def todos_of(value: Any) -> TodoList:
    """The list that `todos_json` made.

    Raises:
        ValidationError: `value` is something else.
    """
    return _LIST.validate_python(value)


def todos_from(messages: Iterable[Message], *, start: TodoList = ()) -> TodoList:
    """The list as the last todo result of a conversation left it; `start` where there is none."""
    todos = start
    for message in messages:
        if isinstance(message, ToolMessage):
            for part in message.contents:
                if part.tool_name in TODO_TOOLS and not part.is_error:
                    todos = _shown_in(part, todos)
    return todos


def _shown_in(result: ToolResultPart, before: TodoList) -> TodoList:
    for part in result.contents:
        if isinstance(part, TextPart):
            try:
                value: Any = json.loads(part.text)
                return todos_of(value["todos"])
            except (ValueError, KeyError, TypeError, ValidationError):
                continue
    return before
