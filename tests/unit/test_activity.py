"""Activities of one step, from its checkpoint; and of one answered tool call."""

import base64
import json
from typing import Any, get_args

import pytest
from perstack.core.activity import Activity, GeneralToolActivity, activity_adapter
from perstack.core.activity_log import activities_of
from perstack.core.events import (
    CompleteRun,
    ContinueToNextStep,
    StopRunByCancellation,
    StopRunByDelegate,
    StopRunByError,
    StopRunByInteractiveTool,
)
from perstack.core.failures import Failure
from perstack.core.messages import FileInlinePart, ImageInlinePart, ResultPart, TextPart
from perstack.core.tool_activity import error_text, paired, tool_activity
from perstack.core.tools import ToolCall, ToolResult
from support.scenarios import HandRun, base_tools, call, complete, expert, interactive_tool, opened

TEAM = (expert("team", delegates=("@team/a", "@team/b")), expert("@team/a"), expert("@team/b"))
SPECS = (*base_tools(), interactive_tool())
TODO = {"id": 0, "title": "test", "completed": False}
PNG = base64.b64encode(b"12345").decode()
Stop = (
    type[CompleteRun]
    | type[ContinueToNextStep]
    | type[StopRunByCancellation]
    | type[StopRunByDelegate]
    | type[StopRunByError]
    | type[StopRunByInteractiveTool]
)


def shown(run: HandRun, stop: Stop) -> list[dict[str, Any]]:
    """The activities of the last event of a type, as they go over the wire."""
    event = run.last(stop)
    return [wire(activity) for activity in activities_of(event.checkpoint, event.step)]


def wire(activity: Activity) -> dict[str, Any]:
    fields = json.loads(activity.wire_json())
    return {key: value for key, value in fields.items() if key not in ("id", "expertKey", "runId")}


def test_a_completed_step_is_its_last_words() -> None:
    run = opened()
    run.say("so it is", complete("the result"), thinking="hm")
    run.finish(0, "{}")
    assert shown(run, CompleteRun) == [{"type": "complete", "text": "the result", "reasoning": "hm"}]


def test_a_failed_step_is_its_error() -> None:
    run = opened()
    run.fail(Failure(name="provider.credentials", message="invalid x-api-key"))
    assert shown(run, StopRunByError) == [
        {
            "type": "error",
            "error": "invalid x-api-key",
            "errorName": "provider.credentials",
            "isRetryable": False,
        }
    ]


def test_a_step_stopped_for_delegates_is_its_delegations() -> None:
    run = opened(*TEAM)
    run.say("", call("a", query="one"), call("b", query="two"), thinking="hm")
    assert shown(run, StopRunByDelegate) == [
        {"type": "delegate", "delegateExpertKey": "@team/a", "query": "one", "reasoning": "hm"},
        {"type": "delegate", "delegateExpertKey": "@team/b", "query": "two"},
    ]


def test_a_step_stopped_for_people_is_the_questions_still_open_and_no_other_call() -> None:
    run = opened(specs=SPECS)
    run.say("", call("askUser", "q1", question="a?"), call("askUser", "q2", question="b?"), call("exec"))
    run.finish(0)
    assert [one["args"] for one in shown(run, StopRunByInteractiveTool)] == [{"question": "a?"}, {"question": "b?"}]
    run.respond(1)
    assert shown(run, StopRunByInteractiveTool) == [
        {"type": "interactiveTool", "skillName": "user-input", "toolName": "askUser", "args": {"question": "b?"}}
    ]


def test_a_step_of_calls_is_one_activity_each() -> None:
    run = opened()
    run.say("", call("exec", "c", command="ls", args=["-l"], cwd="."), call("readTextFile", "c", path="a"))
    run.finish(1, '{"path":"a","content":"text","from":0,"to":1}')
    run.finish(0, '{"output":"a\\nb","exitCode":0}')
    assert shown(run, ContinueToNextStep) == [
        {"type": "exec", "command": "ls", "args": ["-l"], "cwd": ".", "output": "a\nb"},
        {"type": "readTextFile", "path": "a", "content": "text", "from": 0, "to": 1},
    ]


def test_a_resumed_step_is_what_came_back() -> None:
    run = opened(*TEAM, specs=SPECS)
    run.say("", call("exec", command="ls", cwd="."), call("a", query="1"), call("b", query="2"), call("askUser"))
    run.finish(0, '{"output":"x"}')
    run.back(1)
    run.back(2)
    run.respond(3, "yes")
    back = shown(run, ContinueToNextStep)
    assert [one["type"] for one in back] == ["exec", "generalTool", "delegationComplete"]
    assert back[0]["command"] == "ls"
    assert (back[1]["toolName"], back[1]["result"][0]["text"]) == ("askUser", "yes")
    assert back[2] == {"type": "delegationComplete", "count": 2}


def test_a_step_without_a_call_says_why_it_was_one() -> None:
    run = opened()
    run.say("")
    assert shown(run, ContinueToNextStep) == [
        {
            "type": "retry",
            "error": "No tool call or result found",
            "message": "The answer held neither text nor a tool call.",
        }
    ]


def test_a_cancelled_step_shows_the_calls_it_made_and_nothing_if_it_made_none() -> None:
    run = opened()
    run.cancel()
    run.say("")
    assert shown(run, StopRunByCancellation) == []
    run = opened()
    run.say("", call("exec", command="ls", cwd="."), call("readTextFile", path="a"))
    run.cancel()
    run.finish(0, '{"output":"x"}')
    run.finish(1, '{"content":"x"}')
    assert [one["type"] for one in shown(run, StopRunByCancellation)] == ["exec", "readTextFile"]


def result(*parts: ResultPart | str, is_error: bool | None = None, call_id: str = "tc1") -> ToolResult:
    contents = tuple(TextPart(text=part) if isinstance(part, str) else part for part in parts)
    return ToolResult(id=call_id, skill_name="s", tool_name="t", result=contents, is_error=is_error)


def made(name: str, args: dict[str, Any], answer: ToolResult, *, skill: str = "@perstack/base") -> dict[str, Any]:
    return wire(tool_activity(ToolCall(id="tc1", skill_name=skill, tool_name=name, args=args), answer))


INFO = {
    "exists": True,
    "name": "a.txt",
    "directory": "/w",
    "extension": ".txt",
    "type": "file",
    "mimeType": "text/plain",
    "size": 3,
    "sizeFormatted": "3 B",
    "created": "c",
    "modified": "m",
    "accessed": "a",
}
ITEM = {"name": "a.txt", "path": "a.txt", "type": "file", "size": 3, "modified": "m"}
BASE_TOOLS: dict[str, tuple[dict[str, Any], Any, dict[str, Any]]] = {
    "attemptCompletion": ({"result": "r"}, {"remainingTodos": [TODO]}, {"remainingTodos": [TODO]}),
    "todo": (
        {"newTodos": ["test"], "completedTodos": [1]},
        {"todos": [TODO]},
        {"newTodos": ["test"], "completedTodos": [1], "todos": [TODO]},
    ),
    "clearTodo": ({}, {"todos": []}, {}),
    "readImageFile": ({"path": "a.png"}, {"mimeType": "image/png", "size": 5}, {"mimeType": "image/png", "size": 5}),
    "readPdfFile": ({"path": "a.pdf"}, {}, {"path": "a.pdf"}),
    "readTextFile": (
        {"path": "a", "from": -3},
        {"path": "a", "content": "x", "from": 0, "to": 1},
        {"path": "a", "content": "x", "from": 0, "to": 1},
    ),
    "editTextFile": ({"path": "a", "newText": "n", "oldText": "o"}, {}, {"path": "a", "newText": "n", "oldText": "o"}),
    "appendTextFile": ({"path": "a", "text": "t"}, {}, {"path": "a", "text": "t"}),
    "writeTextFile": ({"path": "a", "text": "t"}, {}, {"path": "a", "text": "t"}),
    "deleteFile": ({"path": "a"}, {}, {"path": "a"}),
    "createDirectory": ({"path": "a"}, {}, {"path": "a"}),
    "deleteDirectory": ({"path": "a", "recursive": True}, {}, {"path": "a", "recursive": True}),
    "moveFile": ({"source": "a", "destination": "b"}, {}, {"source": "a", "destination": "b"}),
    "getFileInfo": ({"path": "a"}, {"info": INFO}, {"path": "a", "info": INFO}),
    "listDirectory": ({"path": "a"}, {"items": [ITEM]}, {"path": "a", "items": [ITEM]}),
    "exec": (
        {"command": "ls", "args": ["-l"], "env": {}, "cwd": ".", "stdout": True, "stderr": False},
        {"error": "The command ended with exit code 1.", "exitCode": 1, "stdout": "out", "stderr": "err"},
        {
            "command": "ls",
            "args": ["-l"],
            "cwd": ".",
            "stdout": "out",
            "stderr": "err",
            "error": "The command ended with exit code 1.",
        },
    ),
}


@pytest.mark.parametrize("name", BASE_TOOLS)
def test_a_tool_of_the_base_skill_has_an_activity_of_its_name(name: str) -> None:
    args, answer, fields = BASE_TOOLS[name]
    activity = made(name, args, result(json.dumps(answer)))
    assert activity["type"] == name
    assert {key: activity.get(key) for key in fields} == fields
    failed = made(name, args, result('{"error":"it broke"}', is_error=True))
    assert (failed["type"], failed["error"]) == (name, "it broke")


def test_a_stdout_asked_for_and_not_given_is_not_shown() -> None:
    args = BASE_TOOLS["exec"][0]
    assert not {"stdout", "stderr"} & set(made("exec", args, result('{"output":"x"}')))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("readImageFile", ImageInlinePart(encoded_data=PNG, mime_type="image/png")),
        ("readPdfFile", FileInlinePart(encoded_data=PNG, mime_type="application/pdf")),
    ],
)
def test_a_file_in_a_result_is_shown_by_its_type_and_size(name: str, part: ImageInlinePart | FileInlinePart) -> None:
    assert made(name, {"path": "a"}, result(part)) == {
        "type": name,
        "path": "a",
        "mimeType": part.mime_type,
        "size": 5,
    }


def test_every_other_tool_is_a_general_one() -> None:
    answer = result("text", ImageInlinePart(encoded_data=PNG, mime_type="image/png"))
    for name, skill in (("exec", "other"), ("addSkill", "@perstack/base")):
        activity = made(name, {"x": 1}, answer, skill=skill)
        assert (activity["type"], activity["skillName"], activity["toolName"]) == ("generalTool", skill, name)
        assert [part["type"] for part in activity["result"]] == ["textPart", "imageInlinePart"]
        assert activity["args"] == {"x": 1}


def test_a_base_call_with_wrong_arguments_is_shown_as_it_was_made() -> None:
    activity = made("writeTextFile", {"file": 3}, result('{"error":"path is missing"}', is_error=True))
    assert (activity["type"], activity["args"], activity["error"]) == ("generalTool", {"file": 3}, "path is missing")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (result('{"error":"no such file"}', is_error=True), "no such file"),
        (result('{"error":"no such file"}'), "no such file"),
        (result('{"error":"ENOENT","message":"no such file"}'), "ENOENT: no such file"),
        (result('{"error":""}'), None),
        (result('{"error":404}'), None),
        (result("Error: boom"), "Error: boom"),
        (result("  error calling tool x"), "  error calling tool x"),
        (result("errors are rare"), None),
        (result("all is well"), None),
        (result("There is no tool named 'x'.", is_error=True), "There is no tool named 'x'."),
        (result('["error"]', is_error=True), '["error"]'),
        (result(is_error=True), "The tool failed."),
        (result(), None),
        (result("fine", '{"error":"second part"}'), None),
    ],
)
def test_an_error_is_told_in_words(answer: ToolResult, text: str | None) -> None:
    assert error_text(answer) == text


def test_results_find_their_calls_even_where_ids_repeat() -> None:
    calls = [ToolCall(id="x", skill_name="s", tool_name=name, args={}) for name in ("one", "two")]
    found = [(call.tool_name, answer.result) for call, answer in paired(calls, [result("1", call_id="x")] * 3)]
    assert [name for name, _ in found] == ["one", "two"]


@pytest.mark.requirement("interface.activities")
def test_every_type_of_the_contract_is_there_and_reads_back_as_itself() -> None:
    types = {member.model_fields["type"].default for member in get_args(get_args(Activity)[0])}
    assert types == {
        *BASE_TOOLS,
        "query",
        "retry",
        "complete",
        "error",
        "delegate",
        "delegationComplete",
        "interactiveTool",
        "generalTool",
    }
    activity = GeneralToolActivity(skill_name="s", tool_name="t", args={"a": None}, error="e")
    line = activity.wire_json()
    assert activity_adapter.validate_json(line) == activity
    assert list(json.loads(line)) == ["id", "type", "expertKey", "runId", "error", "skillName", "toolName", "args"]
