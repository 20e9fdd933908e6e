"""The base skill as the session uses it, with readable answers to every call."""

import asyncio
import base64
import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from perstack.activities.skills.base import todo
from perstack.activities.skills.base.catalog import TOOLS
from perstack.activities.skills.base.skill import BaseOutcome, BaseSkill
from perstack.activities.skills.base.workspace import Workspace
from perstack.activities.skills.results import TEXT_LIMIT
from perstack.core.messages import FileInlinePart, ImageInlinePart, TextPart
from perstack.core.tools import BASE_TOOL_NAMES, remaining_todos, sorted_calls
from support.skills import HOST_ENV, OpenSkill, Signal, bounded, command, is_running, zombies

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
STATIC = [
    "attemptCompletion",
    "todo",
    "clearTodo",
    "exec",
    "readTextFile",
    "readImageFile",
    "readPdfFile",
    "writeTextFile",
    "editTextFile",
]


def payload(outcome: BaseOutcome) -> dict[str, Any]:
    """The JSON of the one text part."""
    (part,) = outcome.outcome.result
    assert isinstance(part, TextPart)
    return json.loads(part.text)


async def call(skill: BaseSkill, name: str, todos: todo.TodoList = (), **args: Any) -> BaseOutcome:
    async with bounded():
        return await skill.call(name, args, todos=todos)


async def ok(skill: BaseSkill, name: str, **args: Any) -> dict[str, Any]:
    outcome = await call(skill, name, **args)
    assert outcome.outcome.is_error is None
    return payload(outcome)


async def error(skill: BaseSkill, name: str, **args: Any) -> str:
    outcome = await call(skill, name, **args)
    assert outcome.outcome.is_error is True
    return payload(outcome)["error"]


async def test_it_is_there_at_once_and_says_who_it_is(root: Path) -> None:
    skill = BaseSkill(workspace=Workspace(root), host_env=HOST_ENV, dynamic=None)
    start = skill.start
    assert (start.name, start.server_name, start.command) == ("@perstack/base", "@perstack/base", None)
    assert start.server_version
    assert (start.spawn_ms, start.handshake_ms, start.discovery_ms) == (0, 0, 0)
    await skill.close()
    await skill.close()


async def test_the_tools_and_how_they_may_be_run(open_skill: OpenSkill) -> None:
    skill = await open_skill()
    specs = skill.tools
    assert [spec.name for spec in specs] == STATIC
    assert {spec.skill_name for spec in specs} == {"@perstack/base"}
    assert {spec.kind for spec in specs} == {"mcp"}
    reading = {"readTextFile", "readImageFile", "readPdfFile", "todo", "clearTodo", "attemptCompletion"}
    assert {spec.name for spec in specs if spec.is_repeatable} == reading
    assert {spec.name for spec in specs if spec.is_local} == reading
    assert sorted_calls((), specs) == ()


async def test_schemas_are_valid_closed_and_in_camel_case(open_skill: OpenSkill) -> None:
    skill = await open_skill()
    specs = {spec.name: spec for spec in skill.tools}
    for spec in specs.values():
        Draft202012Validator.check_schema(spec.input_schema)
        assert spec.input_schema["type"] == "object"
        assert spec.input_schema["additionalProperties"] is False
        assert spec.description
    assert list(specs["attemptCompletion"].input_schema["properties"]) == ["result"]
    assert list(specs["todo"].input_schema["properties"]) == ["newTodos", "completedTodos"]
    assert specs["exec"].input_schema["required"] == ["command", "args", "env", "cwd", "stdout", "stderr"]
    assert specs["readTextFile"].input_schema["required"] == ["path"]
    assert specs["editTextFile"].input_schema["required"] == ["path", "newText", "oldText"]


@pytest.mark.parametrize(
    ("pick", "omit", "names"),
    [
        (("todo", "exec"), (), ["todo", "exec"]),
        ((), ("exec",), [name for name in STATIC if name != "exec"]),
        (("todo", "exec"), ("exec",), ["todo"]),
        (("todo", "no-such-tool"), ("neither",), ["todo"]),
        (("todo", "addDelegate"), (), ["todo"]),
    ],
)
async def test_omit_goes_before_pick(
    open_skill: OpenSkill, pick: tuple[str, ...], omit: tuple[str, ...], names: list[str]
) -> None:
    skill = await open_skill(pick=pick, omit=omit)
    assert [spec.name for spec in skill.tools] == names


async def test_a_tool_that_is_not_offered_is_not_there(open_skill: OpenSkill, root: Path) -> None:
    skill = await open_skill(omit=("writeTextFile",))
    message = await error(skill, "writeTextFile", path="x", text="x")
    assert "no tool writeTextFile" in message
    assert "readTextFile" in message
    assert "no tool made-up" in await error(skill, "made-up")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "args", "complaint"),
    [
        ("readTextFile", {}, "'path' is a required property"),
        ("readTextFile", {"path": 7}, "path: 7 is not of type 'string'"),
        ("readTextFile", {"path": "x", "from": "1"}, "from: '1' is not of type 'integer'"),
        ("readTextFile", {"path": "x", "encoding": "utf-8"}, "'encoding' was unexpected"),
        ("attemptCompletion", {"result": "x", "note": "y"}, "'note' was unexpected"),
        ("todo", {"newTodos": ["ok", 3]}, "newTodos[1]: 3 is not of type 'string'"),
        ("exec", {**command("true"), "timeout": 0}, "timeout: 0 is less than the minimum of 1"),
        ("exec", {**command("true"), "env": {"A": 1}}, "env.A: 1 is not of type 'string'"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_with_the_reason(
    open_skill: OpenSkill, name: str, args: dict[str, Any], complaint: str
) -> None:
    message = await error(await open_skill(), name, **args)
    assert message.startswith(f"Invalid arguments for {name}: ")
    assert complaint in message


async def test_a_complaint_about_huge_arguments_stays_short(open_skill: OpenSkill) -> None:
    message = await error(await open_skill(), "todo", newTodos="x" * 1_000_000)
    assert len(message) < 1000


async def test_files_are_written_edited_and_read(open_skill: OpenSkill, root: Path) -> None:
    skill = await open_skill()
    assert await ok(skill, "writeTextFile", path="a/b.txt", text="one\ntwo\n") == {
        "path": "a/b.txt",
        "text": "one\ntwo\n",
    }
    await ok(skill, "editTextFile", path="a/b.txt", newText="$&", oldText="two")
    assert await ok(skill, "readTextFile", path="a/b.txt", to=2) == {
        "path": "a/b.txt",
        "content": "one\n$&",
        "from": 0,
        "to": 2,
    }


async def test_failures_are_marked_and_readable(open_skill: OpenSkill, root: Path) -> None:
    (root / "f.txt").write_text("ab ab")
    skill = await open_skill(protected=(root / ".env",))
    outcome = await call(skill, "editTextFile", path="f.txt", newText="x", oldText="ab")
    assert outcome.outcome.is_error is True
    assert payload(outcome)["occurrences"] == 2
    assert "no file" in await error(skill, "readTextFile", path="missing.txt")
    assert "outside" in await error(skill, "readTextFile", path="../outside.txt")
    assert "cannot reach" in await error(skill, "writeTextFile", path="perstack/x", text="x")
    assert "cannot reach" in await error(skill, "writeTextFile", path=".env", text="x")


async def test_an_error_never_names_host_paths(open_skill: OpenSkill, root: Path) -> None:
    skill = await open_skill()
    for path in ("missing.txt", "a/b", "../x", "perstack/x"):
        assert str(root) not in await error(skill, "readTextFile", path=path)


async def test_a_tool_that_breaks_is_an_error_result_and_no_crash(
    open_skill: OpenSkill, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **more: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("perstack.activities.skills.base.files.write_text_file", broken)
    skill = await open_skill()
    with caplog.at_level(logging.ERROR):
        assert "RuntimeError: a bug" in await error(skill, "writeTextFile", path="x", text="x")
    assert "Traceback" in caplog.text
    assert await ok(skill, "attemptCompletion") == {}


async def test_ordinary_failures_log_nothing(open_skill: OpenSkill, caplog: pytest.LogCaptureFixture) -> None:
    skill = await open_skill()
    await error(skill, "readTextFile", path="missing")
    await error(skill, "exec", **command("false"))
    await error(skill, "readTextFile")
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_images_and_pdfs_go_inline_and_nothing_else_with_them(open_skill: OpenSkill, root: Path) -> None:
    (root / "a.png").write_bytes(PNG)
    (root / "b.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    skill = await open_skill()
    image = (await call(skill, "readImageFile", path="a.png")).outcome
    assert image.result == (ImageInlinePart(encoded_data=base64.b64encode(PNG).decode(), mime_type="image/png"),)
    document = (await call(skill, "readPdfFile", path="b.pdf")).outcome
    encoded = base64.b64encode(b"%PDF-1.4\n%%EOF\n").decode()
    assert document.result == (FileInlinePart(encoded_data=encoded, mime_type="application/pdf"),)
    assert image.is_error is None
    assert document.is_error is None
    assert "not a PNG" in await error(skill, "readImageFile", path="b.pdf")


async def test_a_result_of_three_megabytes_is_cut_and_still_json(open_skill: OpenSkill, root: Path) -> None:
    (root / "big.txt").write_text("BEGIN\n" + "line of text\n" * 240_000 + "END\n")
    skill = await open_skill()
    outcome = await call(skill, "readTextFile", path="big.txt")
    (part,) = outcome.outcome.result
    assert isinstance(part, TextPart)
    assert len(part.text.encode()) <= TEXT_LIMIT
    content = json.loads(part.text)["content"]
    assert content.startswith("BEGIN\n")
    assert content.endswith("END\n")
    assert "bytes cut" in content
    part = (await ok(skill, "readTextFile", path="big.txt", **{"from": 200_000, "to": 200_002}))["content"]
    assert part == "line of text\nline of text"


async def test_exec_gives_exit_codes_and_output(open_skill: OpenSkill) -> None:
    skill = await open_skill()
    assert await ok(skill, "exec", **command("echo", "hi")) == {"output": "hi\n", "exitCode": 0}
    outcome = await call(skill, "exec", **command(sys.executable, "-c", "print('so far'); exit(2)"))
    assert outcome.outcome.is_error is True
    assert payload(outcome) == {
        "error": "The command ended with exit code 2.",
        "exitCode": 2,
        "stdout": "so far\n",
        "stderr": "",
    }


async def test_todos_are_a_value_that_the_caller_keeps(open_skill: OpenSkill) -> None:
    skill = await open_skill()
    first = await call(skill, "todo", newTodos=["plan", "work"])
    assert first.todos == todo.add((), ["plan", "work"])
    second = await call(skill, "todo", first.todos or (), completedTodos=[0])
    assert payload(second) == {
        "todos": [
            {"id": 0, "title": "plan", "completed": True},
            {"id": 1, "title": "work", "completed": False},
        ]
    }
    assert (await call(skill, "todo", second.todos or ())).todos == second.todos
    assert (await call(skill, "clearTodo", second.todos or ())).todos == ()
    assert (await call(skill, "readTextFile", second.todos or (), path="x")).todos is None


async def test_parallel_runs_do_not_share_todos(open_skill: OpenSkill) -> None:
    parent, child = await open_skill(), await open_skill()
    todos = (await call(parent, "todo", newTodos=["parent's"])).todos or ()
    assert payload(await call(child, "todo")) == {"todos": []}
    assert payload(await call(child, "attemptCompletion")) == {}
    assert remaining_todos((await call(parent, "attemptCompletion", todos)).outcome.result)


async def test_completion_says_which_todos_are_left(open_skill: OpenSkill) -> None:
    skill = await open_skill()
    todos = todo.complete(todo.add((), ["done", "open"]), [0])
    left = await call(skill, "attemptCompletion", todos, result="answer")
    assert payload(left) == {"remainingTodos": [{"id": 1, "title": "open", "completed": False}]}
    assert left.outcome.is_error is None
    assert left.todos is None
    assert payload(await call(skill, "attemptCompletion", todo.complete(todos, [1]), result="answer")) == {}


async def test_a_todo_list_that_would_be_cut_is_refused(open_skill: OpenSkill) -> None:
    skill = await open_skill()
    outcome = await call(skill, "todo", newTodos=["x" * 100_000])
    assert outcome.outcome.is_error is True
    assert outcome.todos is None


async def test_calls_run_side_by_side(open_skill: OpenSkill, root: Path, signal: Signal) -> None:
    skill = await open_skill()
    (root / "f.txt").write_text("here")
    waiting = asyncio.create_task(call(skill, "exec", **command("cat", str(signal.path))))
    assert (await ok(skill, "readTextFile", path="f.txt"))["content"] == "here"
    assert not waiting.done()
    signal.path.write_text("go")
    waiting.cancel()
    await asyncio.wait({waiting})


async def test_a_cancelled_call_ends_its_command_and_the_skill_stays(open_skill: OpenSkill, signal: Signal) -> None:
    skill = await open_skill()
    code = f"import os, time; open({str(signal.path)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    running = asyncio.create_task(skill.call("exec", command(sys.executable, "-c", code), todos=()))
    pid = int(await signal.wait())
    running.cancel()
    async with bounded():
        with pytest.raises(asyncio.CancelledError):
            await running
    assert not is_running(pid)
    assert zombies() == []
    assert await ok(skill, "exec", **command("echo", "still here")) == {"output": "still here\n", "exitCode": 0}


async def test_closing_ends_running_commands_and_later_calls_are_errors(open_skill: OpenSkill, signal: Signal) -> None:
    skill = await open_skill()
    code = f"import os, time; open({str(signal.path)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    running = asyncio.create_task(error(skill, "exec", **command(sys.executable, "-c", code)))
    pid = int(await signal.wait())
    async with bounded():
        await skill.close()
    assert "session was closed" in await running
    assert not is_running(pid)
    assert "failed" in await error(skill, "readTextFile", path="x")


async def test_a_skill_may_be_called_in_one_task_and_closed_in_another(root: Path) -> None:
    skill = BaseSkill(workspace=Workspace(root), host_env=HOST_ENV, dynamic=None)
    async with bounded():
        await asyncio.create_task(ok(skill, "attemptCompletion"))
        await asyncio.create_task(skill.close())


async def test_secrets_of_the_worker_do_not_reach_exec(open_skill: OpenSkill) -> None:
    skill = await open_skill(host_env={**HOST_ENV, "ANTHROPIC_API_KEY": "sk-secret", "MY_TOKEN": "sk-secret"})
    output = (await ok(skill, "exec", **command("env")))["output"]
    assert "PATH=" in output
    assert "sk-secret" not in output


def test_the_core_knows_the_names_of_what_the_base_skill_offers() -> None:
    assert {tool.name for tool in TOOLS.values() if not tool.is_dynamic} == BASE_TOOL_NAMES
