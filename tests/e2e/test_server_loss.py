"""The Temporal server itself dies: the command starts it again and the run goes on."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from perstack.client.embedded import stop_server
from perstack.client.locations import DataFolder
from perstack.client.record import read_record
from support.cli import Cli
from support.model_server import Answer, Call, ModelServer, Request

SOLO = """
[experts.solo]
instruction = "You are solo."
"""


def eight_steps(request: Request) -> Answer:
    """Seven files, one a step; the third answer waits until the test lets it go."""
    turn = request.turn
    if turn > 7:
        return Answer(text="seven files")
    call = Call(name="writeTextFile", args={"path": f"{turn}.txt", "text": str(turn)})
    if turn == 3:
        return Answer(text="three", calls=(call,), after_events=4, then="hang", gate="three")
    return Answer(calls=(call,))


@pytest.mark.requirement("ours.survives-kill")
@pytest.mark.requirement("ours.embedded-server")
async def test_a_killed_server_comes_back_and_nothing_is_lost_or_repeated(
    cli_env: dict[str, str], tmp_path: Path, model: ModelServer, model_env: dict[str, str]
) -> None:
    data = DataFolder(tmp_path / "data")
    workspace = tmp_path / "alone"
    workspace.mkdir()
    cli = Cli(workspace, {**cli_env, "PERSTACK_DATA_DIR": str(data.root)})
    cli.write("perstack.toml", SOLO)
    model.script = eight_steps
    try:
        async with cli.running("run", "solo", "go", env=model_env) as running:
            await running.seen("startStreamingRunResult")
            record = read_record(data.record)
            assert record is not None
            os.kill(record.pid, signal.SIGKILL)
            model.release("three")
            result = await cli.finished(running)
        assert result.code == 0, result.stderr
        assert result.of_type("completeRun")[-1]["text"] == "seven files"
        assert set(model.ledger.counts.values()) == {1}
        assert sorted(path.name for path in workspace.glob("*.txt")) == [f"{n}.txt" for n in range(1, 8)]
    finally:
        await asyncio.shield(stop_server(data))
