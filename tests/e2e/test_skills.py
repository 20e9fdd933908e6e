"""Skills from the outside: the real program, real MCP servers as processes, a real Temporal server."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from perstack.client.locations import DataFolder
from perstack.core.expert import McpStdioSkill
from support.cli import Cli, RunningCli
from support.leftovers import left_by
from support.mcp_servers import (
    SCRIPTS,
    everything_over_http,
    hostile,
    modern_over_http,
    node_server,
    python_server,
)
from support.model_server import Answer, Call, ModelServer, Request
from support.skill_runs import LIVE_ONLY, all_gone, offered, skill_table, solo, steps, text_of
from support.skills import Signal

KEY = "sk-ant-planted-key-of-a-provider-0123456789"
FILE_VALUE = "planted-value-of-an-env-file-77"
HOST_VALUE = "planted-value-of-a-required-variable-88"


@pytest.fixture(autouse=True)
def nothing_left(cli: Cli) -> Iterator[None]:
    """A command that has ended has ended its skills before."""
    yield
    assert left_by(cli.env["HOME"], seconds=0) == []


@pytest.fixture
def signal(tmp_path: Path) -> Iterator[Signal]:
    fifo = Signal(tmp_path / "signal")
    yield fifo
    fifo.close()


def call(tool: str, /, **args: Any) -> Call:
    return Call(name=tool, args=args)


async def heard(signal: Signal, wanted: str) -> None:
    """Wait until a server wrote `wanted`."""
    text = ""
    while wanted not in text:
        text += await signal.wait()


def live(running: RunningCli, event_type: str) -> list[dict[str, Any]]:
    """The events of a type that a running command has printed."""
    events = (json.loads(line) for line in running.lines)
    return [event for event in events if event["type"] == event_type]


@pytest.mark.requirement("definition.skills.stdio")
@pytest.mark.requirement("definition.skills.pick-omit")
@pytest.mark.requirement("runtime.skill-manager")
@pytest.mark.requirement("runtime.events.runtime")
async def test_servers_in_two_languages_work_in_one_run_and_its_log_tells_the_same(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("note.txt", "written by hand")
    files = node_server(
        "server-filesystem",
        str(cli.workspace),
        rule="Read before you write.",
        pick=("read_text_file", "list_directory", "write_file"),
        omit=("write_file",),
    ).replaced(name="files")
    time = python_server("--local-timezone", "UTC")
    cli.write("perstack.toml", solo(files, time))
    model.script = steps(
        [
            call("read_text_file", path=str(cli.workspace / "note.txt")),
            call("convert_time", source_timezone="UTC", time="12:00", target_timezone="Asia/Tokyo"),
        ]
    )
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr

    first, second = model.requests
    assert "Read before you write." in first.system
    assert {"read_text_file", "list_directory", "get_current_time", "convert_time"} <= set(offered(first))
    assert "write_file" not in offered(first)
    read, converted = second.results
    assert "written by hand" in text_of(read)
    assert "21:00" in text_of(converted)

    types = [(event["type"], event.get("skillName")) for event in result.events if event["type"] not in LIVE_ONLY]
    assert types[:6] == [
        ("initializeRuntime", None),
        ("skillConnected", "@perstack/base"),
        ("skillStarting", "files"),
        ("skillConnected", "files"),
        ("skillStarting", "time"),
        ("skillConnected", "time"),
    ]
    assert [name for kind, name in types if kind == "skillDisconnected"] == ["@perstack/base", "files", "time"]
    assert [kind for kind, _ in types[-4:]] == ["completeRun"] + 3 * ["skillDisconnected"]
    starting = {event["skillName"]: event for event in result.of_type("skillStarting")}
    assert (starting["time"]["command"], starting["time"]["args"]) == (time.command, list(time.args))
    for event in result.of_type("skillConnected")[1:]:
        spawn, handshake = event["spawnDurationMs"], event["handshakeDurationMs"]
        assert event["serverInfo"]["name"]
        assert min(spawn, handshake, event["toolDiscoveryDurationMs"]) > 0
        assert event["connectDurationMs"] == pytest.approx(spawn + handshake)
        assert event["totalDurationMs"] == pytest.approx(spawn + handshake + event["toolDiscoveryDurationMs"])

    log = await cli.run("log", "--job", result.events[0]["jobId"], "--json", "--take", "0")
    assert json.loads(log.stdout)["events"] == [event for event in result.events if event["type"] not in LIVE_ONLY]


@pytest.mark.requirement("infrastructure.env")
@pytest.mark.requirement("definition.skills.stdio")
async def test_a_skill_gets_the_variables_it_requires_and_nothing_else(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", solo(hostile(required_env=("FROM_HOST", "FROM_FILE"))))
    cli.write(".env", "FROM_FILE=a-file-says-so\nFROM_HOST=the-file-loses\nNOT_ASKED_FOR=stays-in-the-file\n")
    model.script = steps([call("environment")])
    host = {"FROM_HOST": "short", "HOST_ONLY": "stays-with-the-worker", "PYTHONPATH": "/nowhere"}
    result = await cli.run("run", "solo", "go", env={**model_env, **host})
    assert result.code == 0, result.stderr
    environment = json.loads(text_of(model.requests[1].results[0]))
    assert environment["FROM_HOST"] == "short"
    assert environment["FROM_FILE"] == "***"
    own = {"FROM_HOST", "FROM_FILE"}
    safe = {"PATH", "HOME", "LANG", "TMPDIR"}
    # Python adds the encoding it found, Perstack the mark by which it finds what the skill starts.
    assert own <= set(environment) <= own | safe | {"LC_CTYPE", "PERSTACK_EXEC_ID"}


async def test_a_missing_variable_is_told_before_anything_starts(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", solo(hostile(required_env=("NOBODY_SETS_IT",))))
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 2
    assert "NOBODY_SETS_IT" in result.stderr
    assert not result.stdout
    assert not model.requests


@pytest.mark.requirement("runtime.events.runtime")
async def test_what_a_skill_writes_to_stderr_is_seen_while_the_run_goes_on(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", solo(hostile()))
    model.script = steps([call("stderr", text="halfway there\n")], Answer(text="done", after_events=0, then="hang"))
    async with cli.running("run", "solo", "go", env=model_env) as running:
        await running.seen('"type":"skillStderr"', count=2)
        await running.seen('"type":"startGeneration"', count=2)
        (event,) = (event for event in live(running, "skillStderr") if "halfway" in event["message"])
        assert (event["skillName"], event["message"]) == ("hostile", "halfway there")
        model.release()
        result = await cli.finished(running)
    assert result.code == 0, result.stderr
    ids = [event["id"] for event in result.events]
    assert len(ids) == len(set(ids))


@pytest.mark.requirement("definition.skills.sse")
async def test_remote_skills_work_where_the_operator_allows_their_endpoints(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    own = {"PATH": os.environ["PATH"], "HOME": cli.env["HOME"]}
    async with (
        everything_over_http("streamableHttp", own) as streamable,
        everything_over_http("sse", own) as sse,
        modern_over_http(own) as modern,
    ):
        skills = (
            streamable.skill("/mcp", pick=("echo",)).replaced(name="streamable"),
            sse.skill("/sse", pick=("get-sum",)).replaced(name="older"),
            modern.skill("/mcp", pick=("add",)).replaced(name="newest"),
        )
        cli.write("perstack.toml", solo(*skills))
        model.script = steps(
            [call("echo", message="over HTTP"), call("get-sum", a=20, b=22), call("add", a=40, b=60)],
        )
        allowed = ",".join(f"127.0.0.1:{server.port}" for server in (streamable, sse, modern))
        result = await cli.run("run", "solo", "go", env={**model_env, "PERSTACK_ALLOW_ENDPOINTS": allowed})
        assert result.code == 0, result.stderr
        texts = [text_of(one) for one in model.requests[1].results]
        assert "over HTTP" in texts[0]
        assert "42" in texts[1]
        assert texts[2] == "100"
        connected = [event["skillName"] for event in result.of_type("skillConnected")]
        assert connected == ["@perstack/base", "streamable", "older", "newest"]
        assert not result.of_type("skillStarting")

        refused = await cli.run("run", "solo", "go", env=model_env)
        assert refused.code == 2
        assert "SSE endpoint must use HTTPS" in refused.stderr
        for server in (streamable, sse, modern):
            await server.end()


@pytest.mark.requirement("definition.skills.domains")
async def test_a_domain_that_is_not_named_is_refused_even_where_the_endpoint_is_allowed(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    own = {"PATH": os.environ["PATH"], "HOME": cli.env["HOME"]}
    async with modern_over_http(own) as server:
        skill = server.skill("/mcp", allowed_domains=("example.com",))
        cli.write("perstack.toml", solo(skill))
        result = await cli.run(
            "run", "solo", "go", env={**model_env, "PERSTACK_ALLOW_ENDPOINTS": f"127.0.0.1:{server.port}"}
        )
        await server.end()
    assert result.code == 1
    assert "remote" in result.of_type("stopRunByError")[0]["error"]["message"]
    assert "allowedDomains" in result.of_type("stopRunByError")[0]["error"]["message"]
    assert not model.requests


async def test_two_skills_with_one_tool_name_are_both_callable(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    said = {name: cli.workspace / f"{name}.calls" for name in ("one", "two")}
    skills = [hostile(f"--tell={path}", pick=("echo",)).replaced(name=name) for name, path in said.items()]
    cli.write("perstack.toml", solo(*skills))
    model.script = steps([call("two_echo", text="for two")], [call("echo", text="for one")])
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    assert offered(model.requests[0])[-2:] == ["echo", "two_echo"]
    assert [text_of(one) for request in model.requests[1:] for one in request.results] == ["for two", "for one"]
    connected = {event["skillName"]: event for event in result.of_type("skillConnected")}
    assert connected["two"]["renamedTools"] == {"echo": "two_echo"}
    assert "renamedTools" not in connected["one"]
    calls = {name: path.read_text().count("call echo") for name, path in said.items()}
    assert calls == {"one": 1, "two": 1}
    (first, second) = (event["toolCalls"][0] for event in result.of_type("callTools"))
    assert (first["skillName"], first["toolName"]) == ("two", "two_echo")
    assert (second["skillName"], second["toolName"]) == ("one", "echo")


async def test_a_skill_that_does_not_start_ends_the_run_and_tells_what_it_said(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    healthy = hostile().replaced(name="healthy")
    cli.write("perstack.toml", solo(healthy, hostile("--die=4", "--greeting=no-license-found").replaced(name="sick")))
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 1
    (stop,) = result.of_type("stopRunByError")
    assert "Skill sick" in stop["error"]["message"]
    assert "no-license-found" in stop["error"]["message"]
    assert "no-license-found" in result.stderr
    assert not model.requests


async def test_a_skill_that_dies_in_a_call_is_told_to_the_model_and_starts_again(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", solo(hostile()))
    model.script = steps(
        [call("die", words="out of luck")], [call("echo", text="back again")], [call("no_such_tool", x=1)]
    )
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    died, echoed, unknown = (request.results[0] for request in model.requests[1:])
    assert died["is_error"]
    assert "hostile" in text_of(died)
    assert "out of luck" in text_of(died)
    assert not echoed.get("is_error")
    assert text_of(echoed) == "back again"
    assert unknown["is_error"]
    assert "no_such_tool" in text_of(unknown)
    assert "echo" in text_of(unknown)


@pytest.mark.requirement("runtime.parallel-tools")
async def test_twenty_calls_of_one_message_are_at_the_server_at_once(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    busy = McpStdioSkill(name="busy", command=sys.executable, args=("-P", str(SCRIPTS / "busy.py")))
    cli.write("perstack.toml", solo(busy))
    model.script = steps([call("work", milliseconds=200)] * 20, [call("most_at_once")])
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    assert [text_of(one) for one in model.requests[1].results] == ["worked"] * 20
    most = int(text_of(model.requests[2].results[0]))
    assert most >= 15


ASKING = """
[experts.team]
instruction = "You are team."
delegates = ["@team/helper"]

[experts.team.skills.people]
type = "interactiveSkill"
rule = "Ask before you pay."

[experts.team.skills.people.tools.approve]
description = "Asks a person to approve."
inputJsonSchema = '{"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}'

[experts."@team/helper"]
description = "Helps."
instruction = "You are helper."

[experts."@team/helper".skills.people]
type = "interactiveSkill"
rule = "Never shown to a delegate."

[experts."@team/helper".skills.people.tools.approve]
inputJsonSchema = '{"type": "object"}'
"""


@pytest.mark.requirement("definition.skills.interactive")
async def test_a_question_of_the_coordinator_stops_the_run_with_what_is_done_and_what_is_open(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    def script(request: Request) -> Answer:
        if "You are helper." in request.system:
            return Answer(calls=(call("approve", what="mine"),)) if request.turn == 1 else Answer(text="helped")
        if request.turn == 1:
            return Answer(calls=(call("helper", query="help"),))
        return Answer(calls=(call("approve", what="the invoice"), call("readTextFile", path="note.txt")))

    cli.write("perstack.toml", ASKING)
    cli.write("note.txt", "it costs a lot")
    model.script = script
    result = await cli.run("run", "team", "go", env=model_env)
    assert result.code == 6, result.stderr

    coordinator, helper = model.requests[0], model.requests[1]
    assert "approve" in offered(coordinator)
    assert "approve" not in offered(helper)
    assert "Ask before you pay." in coordinator.system
    assert "Never shown to a delegate." not in helper.system
    assert "no tool named 'approve'" in text_of(model.requests[2].results[0])

    (asked,) = result.of_type("callInteractiveTool")
    (stopped,) = result.of_type("stopRunByInteractiveTool")
    assert result.types[-1] == "stopRunByInteractiveTool"
    assert (asked["toolCall"]["skillName"], asked["toolCall"]["toolName"]) == ("people", "approve")
    checkpoint = stopped["checkpoint"]
    assert checkpoint["status"] == "stoppedByInteractiveTool"
    (question,) = checkpoint["pendingToolCalls"]
    assert question == asked["toolCall"]
    assert question["args"] == {"what": "the invoice"}
    (known,) = checkpoint["partialToolResults"]
    assert (known["skillName"], known["toolName"]) == ("@perstack/base", "readTextFile")
    assert "it costs a lot" in known["result"][0]["text"]
    assert "approve" in result.stderr
    assert "the invoice" in result.stderr


@pytest.mark.requirement("built-in.dynamic")
async def test_a_skill_joins_a_run_from_the_next_generation_and_ends_when_it_is_removed(
    cli: Cli, model: ModelServer, model_env: dict[str, str], signal: Signal
) -> None:
    added = hostile(f"--tell={signal.path}", "--greeting=joined")
    base = McpStdioSkill(name="@perstack/base", command="npx", pick=("addSkill", "removeSkill"))
    cli.write("perstack.toml", solo(base))
    definition = {"type": "mcpStdioSkill", "command": added.command, "args": list(added.args), "pick": ["echo"]}
    secret = {**definition, "requiredEnv": ["MY_SECRET"]}
    model.script = steps(
        [call("addSkill", name="thief", **secret), call("addSkill", name="helper", **definition)],
        [call("echo", text="hello")],
        [call("removeSkill", skillName="helper")],
        Answer(calls=(call("echo", text="gone"),), after_events=0, then="hang"),
    )
    env = {**model_env, "MY_SECRET": "nobody-named-this-one"}
    async with cli.running("run", "solo", "go", env=env) as running:
        await heard(signal, "stdin closed")
        await running.seen('"type":"startGeneration"', count=4)
        await all_gone(cli.env["HOME"], named="hostile.py")
        model.release()
        result = await cli.finished(running)
    assert result.code == 0, result.stderr
    tools = [offered(request) for request in model.requests]
    assert tools == [
        ["addSkill", "removeSkill"],
        ["addSkill", "removeSkill", "echo"],
        ["addSkill", "removeSkill", "echo"],
        ["addSkill", "removeSkill"],
        ["addSkill", "removeSkill"],
    ]
    refused, joined = model.requests[1].results
    assert refused["is_error"]
    assert "MY_SECRET" in text_of(refused)
    assert json.loads(text_of(joined)) == {"tools": ["echo"]}
    assert text_of(model.requests[2].results[0]) == "hello"
    assert model.requests[4].results[0]["is_error"]
    names = [(event["type"], event["skillName"]) for event in result.events if event.get("skillName") == "helper"]
    shown = [kind for kind, _ in names if kind in ("skillStarting", "skillConnected", "skillDisconnected")]
    assert shown == ["skillStarting", "skillConnected", "skillDisconnected"]


@pytest.mark.requirement("built-in.dynamic")
async def test_two_skills_that_join_in_one_message_with_one_tool_name_are_both_callable(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    base = McpStdioSkill(name="@perstack/base", command="npx", pick=("addSkill",))
    cli.write("perstack.toml", solo(base))
    said = {name: cli.workspace / f"{name}.calls" for name in ("one", "two")}

    def adding(name: str) -> Call:
        skill = hostile(f"--tell={said[name]}")
        definition = {"type": "mcpStdioSkill", "command": skill.command, "args": list(skill.args), "pick": ["echo"]}
        return call("addSkill", name=name, **definition)

    model.script = steps(
        [adding("one"), adding("two")], [call("echo", text="for one"), call("two_echo", text="for two")]
    )
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    assert offered(model.requests[1]) == ["addSkill", "echo", "two_echo"]
    assert [text_of(one) for one in model.requests[2].results] == ["for one", "for two"]
    assert {name: path.read_text().count("call echo") for name, path in said.items()} == {"one": 1, "two": 1}


@pytest.mark.requirement("built-in.dynamic")
@pytest.mark.requirement("definition.skills.sse")
async def test_a_remote_skill_joins_a_run_only_where_the_operator_allows_its_endpoint(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    own = {"PATH": os.environ["PATH"], "HOME": cli.env["HOME"]}
    base = McpStdioSkill(name="@perstack/base", command="npx", pick=("addSkill",))
    cli.write("perstack.toml", solo(base))
    async with modern_over_http(own) as server:
        endpoint = f"http://127.0.0.1:{server.port}/mcp"
        elsewhere = f"http://127.0.0.1:{server.port + 1}/mcp"
        model.script = steps(
            [
                call("addSkill", name="elsewhere", type="mcpSseSkill", endpoint=elsewhere),
                call("addSkill", name="sums", type="mcpSseSkill", endpoint=endpoint, pick=["add"]),
            ],
            [call("add", a=1, b=2)],
        )
        allowed = f"127.0.0.1:{server.port}"
        result = await cli.run("run", "solo", "go", env={**model_env, "PERSTACK_ALLOW_ENDPOINTS": allowed})
        await server.end()
    assert result.code == 0, result.stderr
    refused, joined = model.requests[1].results
    assert refused["is_error"]
    assert "must use HTTPS" in text_of(refused)
    assert not joined.get("is_error")
    assert text_of(model.requests[2].results[0]) == "3"
    assert [event["skillName"] for event in result.of_type("skillConnected")] == ["@perstack/base", "sums"]


@pytest.mark.requirement("runtime.skill-manager")
async def test_the_skill_of_a_delegate_is_its_own_and_ends_with_it(
    cli: Cli, model: ModelServer, model_env: dict[str, str], signal: Signal
) -> None:
    shared = hostile(pick=("echo",))
    of_helper = hostile(f"--tell={signal.path}", pick=("echo",))
    definition = """
[experts.team]
instruction = "You are team."
delegates = ["@team/helper"]

[experts."@team/helper"]
description = "Helps."
instruction = "You are helper."
"""
    cli.write("perstack.toml", definition + skill_table("team", shared) + skill_table("@team/helper", of_helper))

    def script(request: Request) -> Answer:
        if "You are helper." in request.system:
            return Answer(calls=(call("echo", text="helped"),)) if request.turn == 1 else Answer(text="helped")
        if request.turn == 1:
            return Answer(calls=(call("helper", query="help"),))
        return Answer(text="done", after_events=0, then="hang")

    model.script = script
    async with cli.running("run", "team", "go", env=model_env) as running:
        await heard(signal, "call echo")
        await heard(signal, "stdin closed")
        await running.seen('"type":"resumeFromStop"')
        assert len(live(running, "skillDisconnected")) == 2
        model.release()
        result = await cli.finished(running)
    assert result.code == 0, result.stderr
    runs = [event["runId"] for event in result.of_type("skillStarting")]
    assert len(runs) == len(set(runs)) == 2


@pytest.mark.requirement("runtime.skill-manager")
@pytest.mark.parametrize("end", ["step limit", "cancelled"])
async def test_the_skills_of_a_run_that_ends_unheard_end_soon_after_while_the_worker_goes_on(
    cli: Cli, model: ModelServer, model_env: dict[str, str], signal: Signal, end: str
) -> None:
    cli.write("perstack.toml", solo(hostile(f"--tell={signal.path}")))
    model.script = steps([call("echo" if end == "step limit" else "hang", text="hello")])
    queue = f"skills-of-{end.partition(' ')[0]}"
    async with cli.running("worker", "--task-queue", queue, env=model_env) as worker:
        job = ("run", "solo", "go", "--task-queue", queue, "--max-steps", "1")
        async with cli.running(*job, env=model_env) as running:
            if end == "cancelled":
                await heard(signal, "call hang")
                job_id = live(running, "initializeRuntime")[0]["jobId"]
                assert (await cli.run("cancel", job_id, env=model_env)).code == 0
            result = await cli.finished(running)
        assert result.code == (5 if end == "step limit" else 7), result.stderr
        await heard(signal, "stdin closed")
        worker.interrupt()
        await cli.finished(worker, seconds=20)


@pytest.mark.requirement("runtime.skill-manager")
async def test_the_skills_of_a_run_that_failed_end_with_it_while_the_worker_goes_on(
    cli: Cli, model: ModelServer, model_env: dict[str, str], signal: Signal
) -> None:
    cli.write("perstack.toml", solo(hostile(f"--tell={signal.path}")))
    model.script = steps([call("echo", text="hello")], Answer(status=400, message="that was too much"))
    async with cli.running("worker", "--task-queue", "skills-of-failed", env=model_env) as worker:
        result = await cli.run("run", "solo", "go", "--task-queue", "skills-of-failed", env=model_env)
        assert result.code == 1, result.stderr
        assert result.of_type("stopRunByError")
        await heard(signal, "stdin closed")
        worker.interrupt()
        await cli.finished(worker, seconds=20)


@pytest.mark.parametrize("tool", ["hang", "freeze", "breed"])
async def test_ctrl_c_ends_a_skill_whatever_it_is_doing(
    cli: Cli, model: ModelServer, model_env: dict[str, str], signal: Signal, tool: str
) -> None:
    cli.write("perstack.toml", solo(hostile(f"--tell={signal.path}")))
    model.script = steps([call(tool)], Answer(text="done", after_events=0, then="hang"))
    async with cli.running("run", "solo", "go", env=model_env) as running:
        await heard(signal, f"call {tool}")
        if tool == "breed":
            await running.seen('"type":"startGeneration"', count=2)
        running.interrupt()
        result = await cli.finished(running, seconds=20)
    assert result.code == 130, result.stderr


@pytest.mark.requirement("ours.survives-kill")
@pytest.mark.parametrize("tool", ["hang", "freeze"])
async def test_a_skill_ends_with_a_killed_command_and_starts_again_when_the_job_is_resumed(
    cli: Cli, model: ModelServer, model_env: dict[str, str], signal: Signal, tool: str
) -> None:
    cli.write("perstack.toml", solo(hostile(f"--tell={signal.path}")))
    model.script = steps([call(tool)], [call("echo", text="again")])
    async with cli.running("run", "solo", "go", env=model_env) as running:
        await heard(signal, f"call {tool}")
        job = live(running, "initializeRuntime")[0]["jobId"]
        running.kill_group()
        await running.process.wait()
        await all_gone(cli.env["HOME"], named="hostile.py")
    resumed = await cli.run("resume", job, env=model_env)
    assert resumed.code == 0, resumed.stderr
    lost, echoed = (request.results[0] for request in model.requests[1:3])
    assert lost["is_error"]
    assert f"The worker that ran {tool} was lost" in text_of(lost)
    assert text_of(echoed) == "again"


@pytest.mark.requirement("ours.secrets")
async def test_planted_secrets_reach_neither_events_nor_model_nor_log_nor_database(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder
) -> None:
    planted = {"FILE_TOKEN": FILE_VALUE, "HOST_TOKEN": HOST_VALUE, "ANTHROPIC_API_KEY": KEY}
    cli.write(".env", f"FILE_TOKEN={FILE_VALUE}\n")
    cli.write("notes.txt", "\n".join(planted.values()) + "\n")
    # So much that it goes to the folder for large payloads.
    cli.write("large.txt", "".join(f"line {i} of many: {HOST_VALUE}\n" for i in range(6_000)))
    talker = f"cat notes.txt >&2; exec {sys.executable} {SCRIPTS / 'hostile.py'}"
    skill = McpStdioSkill(name="talker", command="sh", args=("-c", talker), required_env=tuple(planted))
    cli.write("perstack.toml", solo(skill))
    cat: dict[str, Any] = {"command": "cat", "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    model.script = steps(
        [
            call("environment"),
            call("exec", args=["notes.txt"], **cat),
            call("readTextFile", path="large.txt"),
            call("refusal", words=f"{KEY} is refused"),
            call("exec", args=[f"{FILE_VALUE}.txt"], **cat),
        ],
        [call("die", words=HOST_VALUE)],
        Answer(thinking=f"I know {FILE_VALUE}", text=f"The key is {KEY}.", delta_size=3),
    )
    env = {**model_env, "HOST_TOKEN": HOST_VALUE, "ANTHROPIC_API_KEY": KEY}
    async with cli.running("run", "solo", "go", env=env) as running:
        result = await cli.finished(running)
    assert result.code == 0, result.stderr
    first = model.requests[1].results
    environment = json.loads(text_of(first[0]))
    assert {name: environment[name] for name in planted} == dict.fromkeys(planted, "***")
    assert text_of(first[1]).count("***") >= 3
    assert "line 1 of many: ***" in text_of(first[2])
    assert "***" in text_of(model.requests[2].results[0])
    assert result.of_type("completeRun")[0]["text"] == "The key is ***."
    assert any("***" in event["message"] for event in result.of_type("skillStderr"))

    log = await cli.run("log", "--job", result.events[0]["jobId"], "--json", "--take", "0")
    bodies = b"".join(request.body for request in model.requests).decode()
    paths = [path for path in server_data.root.rglob("*") if path.is_file()]
    raw = {path: path.read_bytes() for path in paths}
    stored = b"".join(raw.values())
    assert b"You are solo." in stored
    assert any(b"of many: ***" in content for path, content in raw.items() if path.is_relative_to(server_data.storage))
    for value in planted.values():
        assert value not in result.stdout
        assert value not in result.stderr
        assert value not in log.stdout
        assert value not in bodies
        assert value.encode() not in stored
