"""`perstack run` from the outside: a real process, a real Temporal server, a real HTTP model."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from support.cli import PROGRAM, Cli
from support.model_server import Answer, Call, ModelServer, Request
from support.teams import PARALLEL_TEAM, parallel_team

SOLO = """
[experts.solo]
instruction = "You are solo."
"""
SECRET = "sk-ant-secret-from-a-file-0123456789"


def exec_call(command: str, *args: str) -> Call:
    """A command whose output comes back."""
    return Call(
        name="exec",
        args={"command": command, "args": list(args), "env": {}, "cwd": ".", "stdout": True, "stderr": True},
    )


def text_of(result: dict[str, Any]) -> str:
    """What a tool result of a model request says."""
    content = result["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


@pytest.mark.requirement("interface.run")
@pytest.mark.requirement("context.delegation")
@pytest.mark.requirement("context.usage")
@pytest.mark.requirement("definition.experts")
@pytest.mark.requirement("definition.provider.anthropic")
@pytest.mark.requirement("ours.workflows")
@pytest.mark.requirement("runtime.job")
async def test_three_delegates_with_tools_work_in_parallel_in_one_job(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    result = await cli.run("run", "team", "go", env=model_env)
    assert result.code == 0, result.stderr
    final = result.of_type("completeRun")[-1]
    assert (final["expertKey"], final["text"]) == ("team", "all: one done | two done | three done")
    assert {event["jobId"] for event in result.events} == {final["jobId"]}
    assert (cli.workspace / "two.txt").read_text() == "by two"
    stop = result.of_type("stopRunByDelegate")[0]
    children = [event for event in result.of_type("startRun") if event["expertKey"] != "team"]
    assert len(children) == 3
    for child in children:
        delegated_by = child["initialCheckpoint"]["delegatedBy"]
        assert (delegated_by["runId"], delegated_by["checkpointId"]) == (stop["runId"], stop["checkpoint"]["id"])
        assert child["stepNumber"] == stop["stepNumber"] + 1
        assert [message["type"] for message in child["inputMessages"]] == ["instructionMessage", "userMessage"]
    ends = [event for event in result.of_type("completeRun") if event["expertKey"] != "team"]
    own = 2 * 10
    assert final["checkpoint"]["usage"]["inputTokens"] == own + sum(
        event["checkpoint"]["usage"]["inputTokens"] for event in ends
    )
    resumed = result.of_type("resumeFromStop")[0]
    assert resumed["stepNumber"] == max(event["stepNumber"] for event in ends) + 1
    assert resumed["runId"] != stop["runId"]


@pytest.mark.requirement("runtime.events.streaming")
@pytest.mark.requirement("runtime.deltas")
@pytest.mark.requirement("context.thinking")
@pytest.mark.requirement("context.caching")
@pytest.mark.requirement("context.window")
async def test_thinking_and_text_stream_before_the_step_they_belong_to_is_over(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    def script(request: Request) -> Answer:
        usage = {"input_tokens": 20, "cache_read_input_tokens": 80, "output_tokens": 5}
        if request.turn == 1:
            return Answer(thinking="let me think", text="I look", calls=(exec_call("true"),), delta_size=4, usage=usage)
        return Answer(text="done", usage=usage)

    cli.write("perstack.toml", 'model = "claude-haiku-4-5"\nreasoningBudget = "medium"\n' + SOLO)
    model.script = script
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    first = [event for event in result.events if event.get("stepNumber") == 1]
    types = [event["type"] for event in first]
    order = ("startGeneration", "startStreamingReasoning", "completeStreamingReasoning", "callTools")
    assert sorted(order, key=types.index) == list(order)
    assert types.index("startStreamingRunResult") < types.index("completeStreamingRunResult") < types.index("callTools")
    assert "".join(e["delta"] for e in first if e["type"] == "streamReasoning") == "let me think"
    assert "".join(e["delta"] for e in first if e["type"] == "streamRunResult") == "I look"
    body = model.requests[0].json
    assert body["thinking"]["type"] == "enabled"
    assert body["system"][-1]["cache_control"]["type"] == "ephemeral"
    second = model.requests[1].json["messages"][1]["content"]
    assert second[0] == {"type": "thinking", "thinking": "let me think", "signature": "c2lnbmF0dXJl"}
    final = result.of_type("completeRun")[0]["checkpoint"]
    assert final["usage"]["inputTokens"] == 200
    assert final["usage"]["cachedInputTokens"] == 160
    assert final["contextWindowUsage"] == pytest.approx(105 / final["contextWindow"])


@pytest.mark.requirement("interface.json")
@pytest.mark.requirement("definition.global-defaults")
@pytest.mark.requirement("definition.skills.pick-omit")
@pytest.mark.requirement("context.meta-prompts")
async def test_defaults_of_the_file_options_of_the_call_and_the_filter_are_obeyed(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write(
        "perstack.toml",
        """
model = "claude-haiku-4-5"
reasoningBudget = "none"
maxSteps = 7

[experts.solo]
instruction = "You are solo."
skills."@perstack/base" = { type = "mcpStdioSkill", command = "npx", pick = ["readTextFile", "exec"], omit = ["exec"] }
delegates = ["@solo/helper"]

[experts."@solo/helper"]
description = "Helps."
instruction = "You are helper."
""",
    )

    def script(request: Request) -> Answer:
        if "You are helper." in request.system:
            return Answer(text="helped")
        if request.turn == 1:
            return Answer(calls=(Call(name="helper", args={"query": "help me"}),))
        return Answer(text="done")

    model.script = script
    result = await cli.run("run", "solo", "go", "--filter", "initializeRuntime,completeRun", env=model_env)
    assert result.code == 0, result.stderr
    assert set(result.types) == {"initializeRuntime", "completeRun"}
    assert {event["maxSteps"] for event in result.of_type("initializeRuntime")} == {7}
    coordinator, helper = model.requests[0], model.requests[1]
    assert coordinator.json["model"] == "claude-haiku-4-5"
    assert "thinking" not in coordinator.json
    assert [tool["name"] for tool in coordinator.json["tools"]] == ["readTextFile", "helper"]
    for request in (coordinator, helper):
        assert str(cli.workspace) in request.system
        assert "The job started at 20" in request.system
    assert "You coordinate" in coordinator.system
    assert "You are a delegate" in helper.system
    assert helper.first_user_text == "help me"


@pytest.mark.requirement("infrastructure.env")
@pytest.mark.requirement("infrastructure.exec-env")
@pytest.mark.requirement("infrastructure.workspace")
@pytest.mark.requirement("ours.secrets")
async def test_the_key_of_an_env_file_reaches_the_provider_and_nothing_else(
    cli: Cli, model: ModelServer, cli_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    cli.write(".env", f"ANTHROPIC_API_KEY={SECRET}\n")
    (cli.workspace / "link").symlink_to(cli.workspace / ".env")
    (cli.workspace.parent / "outside.txt").write_text("outside")
    paths = (".env", "link", "../outside.txt", "perstack/workspace-id", "PERSTACK/workspace-id", "/etc/passwd")

    def script(request: Request) -> Answer:
        if request.turn == 1:
            reads = tuple(Call(name="readTextFile", args={"path": path}) for path in paths)
            return Answer(calls=(exec_call("env"), *reads))
        return Answer(text="done")

    model.script = script
    result = await cli.run("run", "solo", "go", env={"ANTHROPIC_BASE_URL": model.url, "MY_TOKEN": "host-secret-value"})
    assert result.code == 0, result.stderr
    sent = model.requests[0].headers
    assert SECRET in sent.get("authorization", "") + sent.get("x-api-key", "")
    environment, *reads = model.requests[1].results
    assert "PATH=" in text_of(environment)
    assert "host-secret-value" not in text_of(environment)
    assert SECRET not in text_of(environment)
    assert all(read.get("is_error") for read in reads), [text_of(read) for read in reads]
    files = [path for path in Path(cli_env["PERSTACK_DATA_DIR"]).rglob("*") if path.is_file()]
    stored = b"".join(path.read_bytes() for path in files)
    assert b"You are solo." in stored
    assert SECRET.encode() not in stored
    assert b"host-secret-value" not in stored


@pytest.mark.requirement("runtime.parallel-tools")
@pytest.mark.requirement("interface.log")
@pytest.mark.requirement("ours.history-is-the-record")
async def test_calls_of_one_message_overlap_and_the_log_tells_the_same_story_later(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    def script(request: Request) -> Answer:
        if request.turn == 1:
            # Each waits for the file the other one makes: only calls that overlap can both succeed.
            wait = 'touch "$1"; for i in $(seq 400); do [ -e "$2" ] && exit 0; sleep 0.02; done; exit 1'
            return Answer(
                calls=(exec_call("sh", "-c", wait, "x", "a", "b"), exec_call("sh", "-c", wait, "x", "b", "a"))
            )
        return Answer(text="done" if not any(r.get("is_error") for r in request.results) else "alone")

    cli.write("perstack.toml", SOLO)
    model.script = script
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    assert result.of_type("completeRun")[0]["text"] == "done"
    job = result.events[0]["jobId"]
    log = await cli.run("log", "--job", job, "--json", "--take", "0")
    told = json.loads(log.stdout)
    live_only = {"startStreamingReasoning", "streamReasoning", "startStreamingRunResult", "streamRunResult"}
    assert told["events"] == [event for event in result.events if event["type"] not in live_only]
    assert told["job"]["status"] == "completed"
    text = await cli.run("log", "--job", job)
    assert f"Job: {job} (completed)" in text.stdout


async def test_a_reader_that_does_not_read_holds_up_nothing_but_the_printing(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    cli.write("page.txt", "x" * 100_000)

    last_turn = asyncio.Event()

    def script(request: Request) -> Answer:
        if request.turn > 6:
            last_turn.set()
            return Answer(text="done")
        return Answer(calls=(Call(name="readTextFile", args={"path": "page.txt"}),), delay_ms=700)

    model.script = script
    process = await asyncio.create_subprocess_exec(
        str(PROGRAM), "run", "solo", "go",
        cwd=cli.workspace, env={**cli.env, **model_env}, stdout=asyncio.subprocess.PIPE, limit=4096,
    )  # fmt: skip
    try:
        await asyncio.wait_for(last_turn.wait(), 60)
        output, _ = await process.communicate()
        assert process.returncode == 0
        assert b'"type":"completeRun"' in output
        assert set(model.ledger.counts.values()) == {1}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.requirement("runtime.retries")
async def test_a_failed_attempt_is_shown_while_the_next_one_runs_and_only_once(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    def script(request: Request) -> Answer:
        if request.attempt == 1:
            return Answer(
                status=429, message="slow down", error_type="rate_limit_error", headers={"retry-after-ms": "1"}
            )
        return Answer(text="done", after_events=4, then="hang")

    cli.write("perstack.toml", SOLO)
    model.script = script
    async with cli.running("run", "solo", "go", env=model_env) as running:
        await running.seen('"type":"retry"')
        await running.seen("startStreamingRunResult")
        model.release()
        result = await cli.finished(running)
    assert result.code == 0, result.stderr
    (retry,) = result.of_type("retry")
    assert json.loads(retry["reason"])["error"] == "provider.rate_limited"
    assert retry["newMessages"] == []
    log = await cli.run("log", "--job", retry["jobId"], "--json", "--take", "0")
    assert [event for event in json.loads(log.stdout)["events"] if event["type"] == "retry"] == [retry]
