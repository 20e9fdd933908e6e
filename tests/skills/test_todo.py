"""The todo list is a value that the conversation holds."""

import json

from hypothesis import given
from hypothesis import strategies as st
from perstack.activities.skills.base import todo
from perstack.activities.skills.base.todo import Todo, TodoList
from perstack.core.messages import Message, TextPart, ToolMessage, ToolResultPart, UserMessage


def answer(name: str, text: str, *, is_error: bool | None = None) -> Message:
    part = ToolResultPart(tool_call_id="c", tool_name=name, contents=(TextPart(text=text),), is_error=is_error)
    return ToolMessage(contents=(part,))


def shown(todos: TodoList) -> str:
    return json.dumps({"todos": todo.todos_json(todos)})


def test_ids_count_from_zero_and_go_on() -> None:
    todos = todo.add(todo.add((), ["a", "b"]), ["c"])
    assert [(item.id, item.title, item.completed) for item in todos] == [
        (0, "a", False),
        (1, "b", False),
        (2, "c", False),
    ]


def test_completing_marks_known_ids_only() -> None:
    todos = todo.complete(todo.add((), ["a", "b"]), [1, 7, -1])
    assert [item.completed for item in todos] == [False, True]
    assert todo.remaining(todos) == (Todo(id=0, title="a"),)


def test_clearing_starts_the_ids_anew() -> None:
    assert todo.add(todo.clear(todo.add((), ["a", "b"])), ["c"]) == (Todo(id=0, title="c"),)


def test_a_list_is_never_changed_in_place() -> None:
    before = todo.add((), ["a"])
    todo.complete(todo.add(before, ["b"]), [0])
    assert before == (Todo(id=0, title="a"),)


def test_the_last_todo_result_of_a_conversation_counts() -> None:
    first, second = todo.add((), ["a"]), todo.complete(todo.add((), ["a", "b"]), [0])
    messages = [answer("todo", shown(first)), UserMessage(contents=()), answer("todo", shown(second))]
    assert todo.todos_from(messages) == second
    assert todo.todos_from([*messages, answer("clearTodo", '{"todos":[]}')]) == ()


def test_other_results_and_failed_ones_do_not_count() -> None:
    kept = todo.add((), ["a"])
    messages = [
        answer("todo", shown(kept)),
        answer("exec", '{"todos":[]}'),
        answer("todo", '{"error":"too long"}', is_error=True),
        answer("todo", "no json"),
        answer("todo", '{"todos":[{"id":"x"}]}'),
        answer("attemptCompletion", '{"remainingTodos":[]}'),
    ]
    assert todo.todos_from(messages) == kept


def test_a_conversation_without_todos_leaves_the_given_list() -> None:
    kept = todo.add((), ["a"])
    assert todo.todos_from([], start=kept) == kept
    assert todo.todos_from([]) == ()


@given(
    st.lists(st.tuples(st.lists(st.text(max_size=5), max_size=3), st.lists(st.integers(-1, 9), max_size=3)), max_size=6)
)
def test_a_list_rebuilt_from_the_conversation_is_the_same(calls: list[tuple[list[str], list[int]]]) -> None:
    todos: TodoList = ()
    messages: list[Message] = []
    for titles, done in calls:
        todos = todo.complete(todo.add(todos, titles), done)
        messages.append(answer("todo", shown(todos)))
    assert todo.todos_from(messages) == todos
    assert [item.id for item in todos] == list(range(len(todos)))
