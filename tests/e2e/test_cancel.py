"""Cancelling a job: it ends as cancelled for everybody who looks, and what it used until then is counted."""

import json
from typing import Any

import pytest
from perstack.client.connection import connect
from perstack.client.embedded import running_server
from perstack.client.locations import DataFolder
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.core.messages import TextPart, ToolCallPart
from perstack.core.run import Generation
from support.cli import Cli
from support.model_server import Answer, ModelServer, Request

TOML = """
[experts.solo]
instruction = "You are solo."
"""
COMMAND: dict[str, Any] = {"command": "true", "args": [], "env": {}, "cwd": ".", "stdout": True, "stderr": True}
ANSWERS = {
    "text": Generation(contents=(TextPart(text="whole"),), finish_reason="stop"),
    "calls": Generation(
        contents=(ToolCallPart(tool_call_id="c1", tool_name="exec", args=COMMAND),), finish_reason="toolCalls"
    ),
}


def hangs(request: Request) -> Answer:
    """Begins to answer and never ends."""
    return Answer(text="wait", usage={"input_tokens": 70}, after_events=4, then="hang", gate="never")


@pytest.mark.requirement("ours.cancel")
@pytest.mark.parametrize("kind", ANSWERS)
async def test_a_cancellation_that_arrives_together_with_an_answer_is_told_by_the_log_as_by_temporal(
    cli: Cli, model: ModelServer, model_env: dict[str, str], server_data: DataFolder, kind: str
) -> None:
    cli.write("perstack.toml", TOML)
    model.script = hangs
    job = f"race-{kind}"
    async with cli.running("run", "solo", "go", "--job-id", job, env=model_env) as running:
        await running.seen("startStreamingRunResult")
        running.kill_group()
    info = running_server(server_data)
    assert info is not None
    client = await connect(info, storage=PayloadDriver(FolderStorage(server_data.storage)))
    # Nobody works on the job now, so its next worker is told of both in one go.
    handle = client.get_workflow_handle(job)
    generate = client.get_async_activity_handle(workflow_id=job, run_id=None, activity_id="generate-1")
    await generate.complete(ANSWERS[kind])
    await handle.cancel()
    resumed = await cli.run("resume", job, env=model_env)
    assert resumed.code == 7, resumed.stderr
    logged = json.loads((await cli.run("log", "--job", job, "--json", "--take", "0")).stdout)
    status = (await handle.describe()).status
    assert status is not None
    assert (status.name, logged["job"]["status"]) == ("CANCELED", "stoppedByCancellation")
    assert [event["id"] for event in logged["events"]] == [event["id"] for event in resumed.events]


@pytest.mark.requirement("ours.cancel")
async def test_what_a_cancelled_model_call_used_is_counted(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", TOML)
    model.script = hangs
    async with cli.running("run", "solo", "go", "--job-id", "half", env=model_env) as running:
        await running.seen("startStreamingRunResult")
        assert (await cli.run("cancel", "half", env=model_env)).code == 0
        cancelled = await cli.finished(running)
    assert cancelled.code == 7
    (stop,) = cancelled.of_type("stopRunByCancellation")
    assert stop["checkpoint"]["usage"]["inputTokens"] == 70
    assert stop["checkpoint"]["status"] == "stoppedByCancellation"
