"""The scripted server is what other tests stand on, so its promises are tested, too."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import httpx2
import pytest
from perstack.activities.providers.failures import ProviderError
from perstack.core.messages import TextPart, ToolCallPart
from support.model_requests import Heard, anthropic, request, steps
from support.model_server import Answer, Json, ModelServer, Rules

RULES: list[Json] = [
    {"when": {"turn": 1, "attempt": 1}, "answer": {"status": 529, "error_type": "overloaded_error"}},
    {"when": {"user": "Go.", "turn": [1, 2]}, "answer": {"calls": [{"name": "look", "args": {"n": "{turn}"}}]}},
    {"when": {"system": "expert", "results": "content"}, "answer": {"text": "turn {turn}"}},
]


async def test_rules_choose_by_content_turn_and_attempt() -> None:
    async with ModelServer(Rules(RULES)) as server:
        provider = anthropic(server)
        with pytest.raises(ProviderError):
            await provider.generate(request(steps(0)), Heard())
        first = await provider.generate(request(steps(0)), Heard())
        third = await provider.generate(request(steps(2)), Heard())
        await provider.close()
    part = first.contents[0]
    assert isinstance(part, ToolCallPart)
    assert (part.args, third.contents) == ({"n": "1"}, (TextPart(text="turn 3"),))


async def test_a_script_without_an_answer_says_what_it_was_asked() -> None:
    async with ModelServer(Rules(RULES[:1])) as server:
        provider = anthropic(server)
        with pytest.raises(ProviderError, match="no rule for turn 3 of 'Go"):
            await provider.generate(request(steps(2)), Heard())
        await provider.close()


async def test_hanging_answers_go_on_when_released() -> None:
    async with ModelServer(lambda _: Answer(text="hello", after_events=4, then="hang", gate="g")) as server:
        provider = anthropic(server)
        task = asyncio.create_task(provider.generate(request(), Heard()))
        await asyncio.sleep(0.1)
        assert not task.done()
        server.release("g")
        assert (await task).contents == (TextPart(text="hello"),)
        await provider.close()


async def test_the_ledger_counts_per_conversation_and_turn(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    async with ModelServer(lambda _: Answer(text="hello"), ledger=path) as server:
        provider = anthropic(server)
        for count in (0, 1, 1):
            await provider.generate(request(steps(count)), Heard())
        await provider.close()
    async with ModelServer(lambda asked: Answer(text=f"attempt {asked.attempt}"), ledger=path) as server:
        provider = anthropic(server)
        again = await provider.generate(request(steps(1)), Heard())
        await provider.close()
    assert again.contents == (TextPart(text="attempt 3"),)
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(entry["event"], entry["turn"], entry["attempt"]) for entry in entries][-2:] == [
        ("request", 2, 3),
        ("answered", 2, 3),
    ]
    assert {entry["user"] for entry in entries} == {"Go."}


async def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text(json.dumps([{"answer": {"text": "hello", "after_events": 4, "then": "hang"}}]))
    port_file = tmp_path / "port"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "support.model_server", "--script", tmp_path / "rules.json", "--port-file", port_file,
        "--ledger", tmp_path / "ledger", env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    async with asyncio.timeout(20):
        while not port_file.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    url = f"http://127.0.0.1:{port_file.read_text()}"
    provider = anthropic(None, env={"ANTHROPIC_BASE_URL": url})
    async with httpx2.AsyncClient(trust_env=False) as client:
        task = asyncio.create_task(provider.generate(request(), Heard()))
        async with asyncio.timeout(10):
            while not (await client.get(f"{url}/ledger")).json()["requests"]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await client.post(f"{url}/release")
        assert (await task).contents == (TextPart(text="hello"),)
        assert (await client.get(f"{url}/nothing")).status_code == 404
    await provider.close()
    os.kill(process.pid, signal.SIGTERM)
    await process.wait()
    assert len((tmp_path / "ledger").read_text().splitlines()) == 2
