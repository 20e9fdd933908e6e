"""The same job with each of the nine providers, through the program, on a real Temporal server."""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, cast

import pytest
from support.cli import Cli, Result
from support.model_server import Answer, Call, ModelServer, Request
from support.protocols.chat import CHAT
from support.provider_rows import KEY, SUBJECTS, Subject
from support.teams import who

GOLDEN = Path(__file__).parents[1] / "golden" / "providers" / "two-delegates.json"
TEAM = """
[experts.team]
description = "Splits work two ways."
instruction = "You are team."
delegates = ["@team/one", "@team/two"]

[experts."@team/one"]
description = "First."
instruction = "You are one."

[experts."@team/two"]
description = "Second."
instruction = "You are two."
"""


def script(request: Request) -> Answer:
    """The coordinator delegates to both at once; each writes a file, reads it back and reports."""
    name = who(request)
    if name == "team":
        if request.turn == 1:
            calls = tuple(Call(name=one, args={"query": f"task {one}"}) for one in ("one", "two"))
            return Answer(thinking="I split.", text="Splitting.", calls=calls, delta_size=4)
        texts = sorted(str(result["content"]) for result in request.results)
        return Answer(calls=(Call(name="attemptCompletion", args={"result": "all: " + " | ".join(texts)}),))
    if request.turn == 1:
        calls = (
            Call(name="writeTextFile", args={"path": f"{name}.txt", "text": f"by {name}"}),
            Call(name="readTextFile", args={"path": "missing.txt"}),
        )
        return Answer(thinking=f"{name} thinks", text=f"{name} writes", calls=calls)
    if request.turn == 2:
        return Answer(calls=(Call(name="readTextFile", args={"path": f"{name}.txt"}),))
    return Answer(text=f"{name} done")


_DIFFERS = frozenset(
    {
        "id", "runId", "jobId", "timestamp", "startedAt", "finishedAt", "toolCallId", "signature", "model", "usage",
        "contextWindow", "contextWindowUsage", "checkpointId", "version",
    }
)  # fmt: skip
"""Ids, times, and what the issue names: models and usage."""


def told(result: Result, workspace: Path) -> dict[str, list[Any]]:
    """The events of each run in order, pieces of streams joined, without what may differ."""
    runs: dict[str, list[Any]] = defaultdict(list)
    for event in result.events:
        name = event.get("expertKey") or event.get("expertName", "")
        plain = _plain(event)
        told_before = runs[name]
        if told_before and event["type"].startswith("stream") and told_before[-1]["type"] == event["type"]:
            told_before[-1]["delta"] += event["delta"]
        else:
            told_before.append(plain)
    # Events of skills name no run.
    runs[""].sort(key=json.dumps)
    text = json.dumps(runs).replace(str(workspace), "<workspace>")
    # The instruction names the time and the folder of the session.
    return json.loads(re.sub(r"\d{4}-\d{2}-\d{2}T[\d:.]+(?:Z|[+-]\d{2}:\d{2})", "<time>", text))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _plain(item)
            for key, item in cast("dict[str, Any]", value).items()
            if key not in _DIFFERS and not key.endswith("DurationMs")
        }
    if isinstance(value, list):
        items = [_plain(item) for item in cast("list[Any]", value)]
        # Where a signature has no thought of its own, the part that carries it is empty.
        return [item for item in items if item != {"type": "thinkingPart", "thinking": ""}]
    return value


@pytest.mark.requirement(
    "definition.provider.anthropic",
    "definition.provider.openai",
    "definition.provider.google",
    "definition.provider.fireworks",
    "definition.provider.deepseek",
    "definition.provider.ollama",
    "definition.provider.azure-openai",
    "definition.provider.amazon-bedrock",
    "definition.provider.google-vertex",
    "context.thinking",
)
@pytest.mark.parametrize("subject", SUBJECTS.values(), ids=list(SUBJECTS))
async def test_a_job_with_two_delegates_is_told_in_the_same_events(
    cli: Cli, subject: Subject, tmp_path: Path, is_updating_goldens: bool
) -> None:
    cli.write("perstack.toml", TEAM)
    async with ModelServer(script) as server:
        env = subject.env_for(server.url, tmp_path)
        result = await cli.run("run", "team", "Go.", "--provider", subject.name, env=env)
    assert result.code == 0, result.stderr
    assert {path.name: path.read_text() for path in cli.workspace.glob("*.txt")} == {
        "one.txt": "by one",
        "two.txt": "by two",
    }
    events = told(result, cli.workspace)
    if is_updating_goldens and subject.name == "anthropic":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(events, indent=1, ensure_ascii=False) + "\n")
    assert events == json.loads(GOLDEN.read_text())
    assert KEY not in result.stdout + result.stderr
    done = result.of_type("completeRun")[-1]
    assert done["checkpoint"]["usage"]["totalTokens"] == 15 * len(server.requests)


@pytest.mark.requirement("definition.provider-tools")
async def test_a_tool_of_the_provider_is_sent_with_its_options_and_what_it_gave_stays_in_the_conversation(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    toml = """
[experts.solo]
instruction = "You are solo."
providerTools = ["webSearch"]
providerToolOptions.webSearch = { maxUses = 3, allowedDomains = ["a.test"] }
"""
    cli.write("perstack.toml", toml)
    found = {"type": "web_search_result", "url": "https://a.test/", "title": "A", "encrypted_content": "sealed"}

    def search(request: Request) -> Answer:
        if request.turn > 1:
            return Answer(calls=(Call(name="attemptCompletion", args={"result": "tall"}),))
        return Answer(
            blocks=(
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "towers"}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]},
                {"type": "tool_use", "id": "toolu_1", "name": "readTextFile", "input": {"path": "missing"}},
            )
        )

    model.script = search
    result = await cli.run("run", "solo", "Go.", env=model_env)
    assert result.code == 0, result.stderr
    sent = next(tool for tool in model.requests[0].json["tools"] if tool["name"] == "web_search")
    assert (sent["max_uses"], sent["allowed_domains"]) == (3, ["a.test"])
    blocks = [block["type"] for block in model.requests[1].messages[1]["content"]]
    assert blocks == ["server_tool_use", "web_search_tool_result", "tool_use"]
    (part,) = [
        part
        for message in result.of_type("completeRun")[-1]["checkpoint"]["messages"]
        for part in message["contents"]
        if part["type"] == "providerToolPart"
    ]
    assert (part["toolName"], part["args"]) == ("webSearch", {"query": "towers"})
    assert part["sources"] == [{"url": "https://a.test/", "title": "A"}]
    assert (await cli.run("log", "--job", result.events[0]["jobId"], "--json")).stdout.count("providerToolPart") > 0


@pytest.mark.requirement("context.window")
async def test_an_ollama_server_is_asked_how_large_the_context_of_its_model_is(cli: Cli, tmp_path: Path) -> None:
    cli.write("perstack.toml", '[experts.solo]\ninstruction = "You are solo."\n')
    subject = SUBJECTS["ollama"]
    CHAT.shown["gpt-oss:20b"] = {
        "model_info": {"general.architecture": "gptoss", "gptoss.context_length": 131072},
        "parameters": "num_ctx 30",
    }
    try:
        async with ModelServer(lambda _: Answer(text="done")) as server:
            env = subject.env_for(server.url, tmp_path)
            result = await cli.run("run", "solo", "Go.", "--provider", "ollama", "--model", "gpt-oss:20b", env=env)
    finally:
        CHAT.shown.clear()
    assert result.code == 0, result.stderr
    checkpoint = result.of_type("completeRun")[-1]["checkpoint"]
    assert (checkpoint["contextWindow"], checkpoint["contextWindowUsage"]) == (30, 0.5)
