"""What the model, its provider or a delegate does wrong: the run goes on, or ends as the contract says."""

import base64
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from perstack.client.locations import DataFolder
from support.cli import Cli, Result
from support.model_server import Answer, Call, ModelServer, Request, Script
from support.teams import who
from temporalio.client import Client

SOLO = """
[experts.solo]
instruction = "You are solo."
"""
PAIR = """
[experts.team]
instruction = "You are team."
delegates = ["@team/one"]

[experts."@team/one"]
instruction = "You are one."
"""
LIVE_ONLY = frozenset(
    {"startStreamingReasoning", "streamReasoning", "startStreamingRunResult", "streamRunResult", "skillStderr"}
)
MEBIBYTES_3 = 3 * 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * (MEBIBYTES_3 // 256)
SOON = {"retry-after-ms": "10"}


def exec_call(command: str, *args: str) -> Call:
    """A command whose output comes back."""
    return Call(
        name="exec",
        args={"command": command, "args": list(args), "env": {}, "cwd": ".", "stdout": True, "stderr": True},
    )


def completion(text: str) -> Answer:
    return Answer(calls=(Call(name="attemptCompletion", args={"result": text}),))


def in_turn(*answers: Answer | Callable[[Request], Answer]) -> Script:
    """One answer after another, by how far the conversation is."""

    def script(request: Request) -> Answer:
        answer = answers[min(request.turn, len(answers)) - 1]
        return answer if isinstance(answer, Answer) else answer(request)

    return script


def by_expert(**scripts: Script) -> Script:
    """A script for each expert of a team."""
    return lambda request: scripts[who(request)](request)


def result_texts(request: Request) -> list[str]:
    """The texts of the last tool results, as the model gets them."""
    return [
        content if isinstance(content, str) else "".join(block.get("text", "") for block in content)
        for content in (result["content"] for result in request.results)
    ]


async def logged(cli: Cli, result: Result) -> dict[str, Any]:
    """What `perstack log` tells of the job, with nobody at work."""
    log = await cli.run("log", "--job", result.events[0]["jobId"], "--json", "--take", "0")
    assert log.code == 0, log.stderr
    return json.loads(log.stdout)


async def assert_log_equals_live(cli: Cli, result: Result) -> None:
    """The history tells, run by run, what the live reader saw: the same events, ids and times."""
    assert by_run((await logged(cli, result))["events"]) == by_run(result.events)


def by_run(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    runs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["type"] not in LIVE_ONLY:
            runs[event["runId"]].append(event)
    return runs


async def history_size(data: DataFolder, job: str) -> int:
    """Bytes of the job's history, as the server counts them."""
    client = await Client.connect(json.loads(data.record.read_text())["address"])
    description = await client.get_workflow_handle(job).describe()
    return description.raw_description.workflow_execution_info.history_size_bytes


async def test_text_of_three_megabytes_is_cut_with_its_head_and_tail_kept(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    cli.write("big.txt", "head\n" + "x" * (MEBIBYTES_3 - 10) + "\ntail\n")
    model.script = in_turn(
        Answer(calls=(exec_call("cat", "big.txt"), Call(name="readTextFile", args={"path": "big.txt"}))),
        completion("read"),
    )
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    printed, read = (json.loads(text) for text in result_texts(model.requests[1]))
    for text, limit in ((printed["output"], 129 * 1024), (read["content"], 256 * 1024)):
        assert len(text) <= limit
        assert text.startswith("head\nxxx")
        assert text.endswith("xxx\ntail\n")
        assert "bytes cut" in text
    assert await history_size(server_data, result.events[0]["jobId"]) < 100_000


def images(request: Request) -> list[bytes]:
    """Every image in a model request."""
    found: list[bytes] = []
    waiting: list[Any] = [message["content"] for message in request.messages]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, dict):
            block = cast("dict[str, Any]", item)
            if block["type"] == "image":
                found.append(base64.b64decode(block["source"]["data"]))
            waiting.append(block.get("content", []))
    return found


@pytest.mark.requirement("context.messages")
@pytest.mark.requirement("ours.linear-history")
async def test_an_image_of_three_megabytes_reaches_the_model_and_not_the_history(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    (cli.workspace / "big.png").write_bytes(PNG)
    model.script = in_turn(Answer(calls=(Call(name="readImageFile", args={"path": "big.png"}),)), completion("seen"))
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    assert images(model.requests[1]) == [PNG]
    assert await history_size(server_data, result.events[0]["jobId"]) < 100_000
    await assert_log_equals_live(cli, result)
    [part] = result.of_type("resolveToolResults")[0]["toolResults"][0]["result"]
    assert (part["type"], part["mimeType"]) == ("imageInlinePart", "image/png")
    assert base64.b64decode(part["encodedData"]) == PNG


async def test_an_image_of_three_megabytes_given_with_the_query_reaches_the_model_and_not_the_history(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    cli.write("perstack.toml", SOLO)
    (cli.workspace / "big.png").write_bytes(PNG)
    model.script = in_turn(completion("seen"))
    result = await cli.run("run", "solo", "what is this?", "--file", "big.png", env=model_env)
    assert result.code == 0, result.stderr
    assert images(model.requests[0]) == [PNG]
    assert "what is this?" in model.requests[0].first_user_text
    assert await history_size(server_data, result.events[0]["jobId"]) < 100_000
    log = await logged(cli, result)
    start = next(event for event in log["events"] if event["type"] == "startRun")
    parts = start["inputMessages"][-1]["contents"]
    assert [part["type"] for part in parts] == ["textPart", "imageInlinePart"]


async def test_an_empty_answer_is_told_to_the_model_and_the_run_goes_on(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)

    def script(request: Request) -> Answer:
        return Answer() if len(model.requests) == 1 else completion("now")

    model.script = script
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    [retry] = result.of_type("retry")
    assert json.loads(retry["reason"])["error"] == "EmptyAnswer"
    assert retry["usage"]["outputTokens"] == 5
    [told] = retry["newMessages"]
    assert told["type"] == "userMessage"
    assert "neither text nor a tool call" in json.dumps(model.requests[1].messages[-1])
    end = result.of_type("completeRun")[0]
    assert (end["text"], end["stepNumber"]) == ("now", 2)
    assert end["checkpoint"]["usage"]["outputTokens"] == 10
    assert end["checkpoint"]["retryCount"] == 0
    await assert_log_equals_live(cli, result)


async def test_a_model_that_never_says_anything_ends_the_run_after_its_retries(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = in_turn(Answer())
    result = await cli.run("run", "solo", "go", "--max-retries", "2", env=model_env)
    assert result.code == 1
    assert [event["stepNumber"] for event in result.of_type("retry")] == [1, 2]
    [stop] = result.of_type("stopRunByError")
    assert stop["error"]["name"] == "MaxRetriesExceeded"
    assert stop["checkpoint"]["status"] == "stoppedByError"
    assert len(model.requests) == 3
    assert "MaxRetriesExceeded" in result.stderr
    await assert_log_equals_live(cli, result)


@pytest.mark.parametrize("has_calls", [False, True], ids=["text", "calls"])
async def test_an_answer_cut_by_length_is_told_to_the_model_and_none_of_its_calls_runs(
    has_calls: bool, cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    write = Call(name="writeTextFile", args={"path": "never.txt", "text": "x"})
    calls = (write, Call(name="writeTextFile", args='{"path": "never.txt", "te')) if has_calls else ()
    model.script = in_turn(Answer(text="half a", calls=calls, stop_reason="max_tokens"), completion("whole"))
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    [retry] = result.of_type("retry")
    assert json.loads(retry["reason"])["error"] == "OutputCut"
    kinds = [message["type"] for message in retry["newMessages"]]
    assert kinds == ["expertMessage", "toolMessage" if has_calls else "userMessage"]
    assert not result.of_type("finishToolCall")
    assert not (cli.workspace / "never.txt").exists()
    told = model.requests[1].messages
    assert [block["type"] for block in told[1]["content"]] == (["text", "tool_use"] if has_calls else ["text"])
    assert "Answer in smaller pieces" in json.dumps(told[2])
    assert result.of_type("completeRun")[0]["text"] == "whole"


async def test_calls_that_cannot_run_are_results_the_model_reads(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PAIR)
    wrong = (
        Call(name="noSuchTool", args={"a": 1}),
        Call(name="readTextFile", args={"file": "x"}),
        Call(name="readTextFile", args='{"path": "x"'),
        Call(name="readTextFile", args='["x"]'),
        Call(name="readTextFile", args='{"path": "\\ud800"}'),
        Call(name="readTextFile", args='{"path": "a\\u0000b"}'),
        Call(name="readTextFile", args='{"path": ' + "[" * 2000 + "]" * 2000 + "}"),
        Call(name="writeTextFile", args={"path": "/proc/self/x", "text": "x"}),
        Call(name="readTextFile", args={"path": "nowhere.txt"}),
        Call(name="readTextFile", args={"path": "/etc/passwd"}),
        Call(name="one", args={"question": "x"}),
        exec_call("no-such-program"),
        exec_call("false"),
        exec_call("echo", "fine"),
    )
    model.script = in_turn(Answer(calls=wrong), completion("understood"))
    result = await cli.run("run", "team", "go", env=model_env)
    assert result.code == 0, result.stderr
    [resolved] = result.of_type("resolveToolResults")
    texts = {one["id"]: one["result"][0]["text"] for one in resolved["toolResults"]}
    in_order = [texts[call["id"]] for call in result.of_type("callTools")[0]["toolCalls"]]
    assert sorted(result_texts(model.requests[1])) == sorted(in_order)
    by_text = "\n".join(in_order)
    for said in (
        "There is no tool named 'noSuchTool'. The tools are: ",
        "'path' is a required property",
        'were no JSON object: {"path": "x"',
        'were no JSON object: ["x"]',
        'were no JSON object: {"path": "\\ud800"}',
        "nowhere.txt",
        "/etc/passwd",
        "Delegation to @team/one needs a non-empty string `query`.",
        "no-such-program",
        "fine",
    ):
        assert said in by_text
    errors = [bool(one.get("isError")) for one in resolved["toolResults"]]
    assert errors.count(False) == 1
    assert len(model.requests) == 2
    await assert_log_equals_live(cli, result)


async def test_a_delegate_that_fails_is_a_text_to_its_caller(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PAIR)
    model.script = by_expert(
        team=in_turn(
            Answer(calls=(Call(name="one", args={"query": "try"}),)),
            lambda request: completion(result_texts(request)[0]),
        ),
        one=in_turn(Answer(status=400, message="no such thing")),
    )
    result = await cli.run("run", "team", "go", env=model_env)
    assert result.code == 0, result.stderr
    [stop] = result.of_type("stopRunByError")
    assert stop["expertKey"] == "@team/one"
    end = result.of_type("completeRun")[0]
    assert end["text"].startswith("Delegation to @team/one failed: ")
    assert "no such thing" in end["text"]
    assert result.of_type("finishAllToolCalls")[0]["newMessages"][0]["contents"][0]["isError"]
    await assert_log_equals_live(cli, result)


async def test_a_delegate_at_its_step_limit_is_a_text_to_its_caller(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PAIR)
    model.script = by_expert(
        team=in_turn(
            Answer(calls=(Call(name="one", args={"query": "try"}),)),
            lambda request: completion(result_texts(request)[0]),
        ),
        one=in_turn(Answer(calls=(exec_call("true"),))),
    )
    result = await cli.run("run", "team", "go", "--max-steps", "2", env=model_env)
    assert result.code == 0, result.stderr
    [stop] = result.of_type("stopRunByExceededMaxSteps")
    assert (stop["expertKey"], stop["stepNumber"]) == ("@team/one", 3)
    assert "reached the step limit" in result.of_type("completeRun")[0]["text"]


async def test_the_step_limit_ends_the_run_with_its_own_code(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = in_turn(Answer(calls=(exec_call("true"),)))
    result = await cli.run("run", "solo", "go", "--max-steps", "3", env=model_env)
    assert result.code == 5
    [stop] = result.of_type("stopRunByExceededMaxSteps")
    assert (stop["stepNumber"], stop["checkpoint"]["status"]) == (3, "stoppedByExceededMaxSteps")
    assert "limit of 3 steps" in result.stderr
    assert len(model.requests) == 3


async def test_a_refusal_ends_the_run(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = in_turn(Answer(text="I will not", stop_reason="refusal"))
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 1
    assert result.of_type("stopRunByError")[0]["error"]["name"] == "provider.content_refused"
    assert len(model.requests) == 1


@pytest.mark.requirement("runtime.retries")
async def test_a_provider_that_asks_for_patience_is_asked_again_in_the_same_step(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    times: list[float] = []

    def script(request: Request) -> Answer:
        times.append(time.monotonic())
        match request.attempt:
            case 1:
                return Answer(status=429, error_type="rate_limit_error", headers={"retry-after": "1.5"})
            case 2:
                return Answer(text="half", then="die", after_events=4)
            case 3:
                return Answer(status=529, error_type="overloaded_error", headers=SOON)
            case _:
                return completion("patience")

    model.script = script
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    retries = result.of_type("retry")
    assert [json.loads(retry["reason"])["error"] for retry in retries] == [
        "provider.rate_limited",
        "provider.stream_broken",
        "provider.overloaded",
    ]
    assert [retry["newMessages"] for retry in retries] == [[], [], []]
    assert {event["stepNumber"] for event in (*retries, *result.of_type("startGeneration"))} == {1}
    assert [retry["usage"]["inputTokens"] for retry in retries] == [0, 10, 0]
    assert times[1] - times[0] >= 1.5
    end = result.of_type("completeRun")[0]
    assert end["checkpoint"]["usage"]["inputTokens"] == 20
    await assert_log_equals_live(cli, result)


@pytest.mark.requirement("runtime.retries")
async def test_a_provider_that_stays_broken_ends_the_run_and_every_attempt_is_told(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = in_turn(Answer(status=500, error_type="api_error", message="out of order", headers=SOON))
    result = await cli.run("run", "solo", "go", "--max-retries", "3", env=model_env)
    assert result.code == 1
    assert len(model.requests) == 4
    assert len(result.of_type("retry")) == 3
    [stop] = result.of_type("stopRunByError")
    assert stop["error"]["name"] == "provider.overloaded"
    assert stop["error"]["message"].startswith("Max retries (3) exceeded: ")
    assert "out of order" in result.stderr
    await assert_log_equals_live(cli, result)


async def test_refused_credentials_end_the_run_at_once_with_their_own_code(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = in_turn(Answer(status=401, error_type="authentication_error", message="invalid x-api-key"))
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 4
    assert len(model.requests) == 1
    assert not result.of_type("retry")
    assert result.of_type("stopRunByError")[0]["error"]["name"] == "provider.auth"
    assert "invalid x-api-key" in result.stderr


async def test_two_delegates_of_one_name_are_both_offered_and_the_later_gets_its_full_key(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    keys = ("@team/one", "one", "exec")
    experts = "".join(
        f'[experts."{key}"]\ninstruction = "You are {key.strip("@").replace("/", "-")}."\n' for key in keys
    )
    cli.write("perstack.toml", PAIR.split('[experts."@team', 1)[0].replace('["@team/one"]', json.dumps(keys)) + experts)

    def team(request: Request) -> Answer:
        if request.turn > 1:
            return completion(" ".join(result_texts(request)))
        offered = [tool["name"] for tool in request.json["tools"]]
        assert len(offered) == len(set(offered))
        names = [name for name in offered if name.startswith(("one", "exec_", "_team"))]
        return Answer(calls=tuple(Call(name=name, args={"query": name}) for name in names))

    def delegate(request: Request) -> Answer:
        return completion(f"{who(request)}={request.first_user_text}")

    model.script = by_expert(team=team, one=delegate, exec=delegate, **{"team-one": delegate})
    result = await cli.run("run", "team", "go", env=model_env)
    assert result.code == 0, result.stderr
    told = result.of_type("completeRun")[-1]["text"].split()
    assert sorted(text.partition("=")[0] for text in told) == ["exec", "one", "team-one"]
    assert "team-one=one" in told
    assert "another tool is called `one`" in result.stderr


async def test_open_todos_keep_a_run_from_completing(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = in_turn(
        Answer(calls=(Call(name="todo", args={"newTodos": ["first", "second"]}),)),
        completion("too early"),
        Answer(calls=(Call(name="todo", args={"completedTodos": [0]}), *completion("still too early").calls)),
        Answer(calls=(Call(name="todo", args={"completedTodos": [1]}), *completion("done").calls)),
    )
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    assert "remainingTodos" in result_texts(model.requests[2])[0]
    todos, open_ones = result_texts(model.requests[3])
    assert '"completed":true' in todos
    assert "second" in open_ones
    assert "first" not in open_ones
    [end] = result.of_type("completeRun")
    assert (end["text"], end["stepNumber"]) == ("done", 4)
    await assert_log_equals_live(cli, result)


DYNAMIC = """
[experts.solo]
instruction = "You are solo."

[experts.solo.skills."@perstack/base"]
type = "mcpStdioSkill"
command = "npx"
pick = ["createExpert", "addDelegate", "removeDelegate", "attemptCompletion"]
"""


@pytest.mark.requirement("built-in.dynamic")
async def test_an_expert_made_while_the_job_runs_is_attached_and_delegated_to(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", DYNAMIC)

    def offered(request: Request) -> set[str]:
        return {tool["name"] for tool in request.json["tools"]}

    helper = {"key": "@solo/helper", "instruction": "You are helper.", "description": "Helps."}
    model.script = by_expert(
        solo=in_turn(
            Answer(calls=(Call(name="createExpert", args=helper),)),
            Answer(calls=(Call(name="addDelegate", args={"expertKey": "@solo/helper"}),)),
            Answer(calls=(Call(name="helper", args={"query": "help"}),)),
            lambda request: Answer(
                text=result_texts(request)[0],
                calls=(Call(name="removeDelegate", args={"expertKey": "@solo/helper"}),),
            ),
            Answer(calls=(Call(name="helper", args={"query": "again"}),)),
            lambda request: completion(result_texts(request)[0]),
        ),
        helper=in_turn(completion("helped")),
    )
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    requests = [request for request in model.requests if who(request) == "solo"]
    assert ["helper" in offered(request) for request in requests] == [False, False, True, True, False, False]
    assert len([event for event in result.of_type("completeRun") if event["expertKey"] == "@solo/helper"]) == 1
    assert "helped" in result_texts(requests[3])[0]
    assert result.of_type("completeRun")[-1]["text"].startswith("There is no tool named 'helper'")
    await assert_log_equals_live(cli, result)


async def test_a_reader_without_the_payload_folder_is_told_where_the_payloads_are(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder, tmp_path: Path
) -> None:
    cli.write("perstack.toml", SOLO)
    cli.write("big.txt", "line\n" * 40_000)
    model.script = in_turn(Answer(calls=(Call(name="readTextFile", args={"path": "big.txt"}),)), completion("read"))
    result = await cli.run("run", "solo", "go", "--job-id", "withpayload", env=model_env)
    assert result.code == 0, result.stderr
    address = json.loads(server_data.record.read_text())["address"]
    env = {"PERSTACK_DATA_DIR": str(tmp_path / "other")}
    log = await cli.run("log", "--job", "withpayload", "--address", address, env=env)
    assert log.code == 2
    assert log.stdout == ""
    assert "Traceback" not in log.stderr
    assert "PERSTACK_DATA_DIR" in log.stderr
