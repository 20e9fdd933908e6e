"""`perstack log` in a real terminal: from the runs of a real job down to a checkpoint, and on from there."""

import gzip
import os
import re
import signal
from pathlib import Path

import pytest
from support.cli import Cli
from support.model_server import ModelServer
from support.teams import PARALLEL_TEAM, parallel_team
from support.tmux import terminal

GOLDEN_HISTORIES = Path(__file__).parents[1] / "golden" / "histories"
SIZES = [(80, 24), (40, 20)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.requirement("interface.log")
@pytest.mark.requirement("interface.tui")
async def test_a_person_goes_from_the_runs_of_a_job_to_a_checkpoint_and_on_from_it_in_a_new_job(
    size: tuple[int, int], cli: Cli, model: ModelServer, model_env: dict[str, str], tmp_path: Path
) -> None:
    cli.write("perstack.toml", PARALLEL_TEAM)
    model.script = parallel_team
    ran = await cli.run("run", "team", "go", env=model_env)
    assert ran.code == 0
    job = ran.events[0]["jobId"]
    env = {**cli.env, **model_env, "TEXTUAL_ANIMATIONS": "none"}
    async with terminal(tmp_path, ["log", "--job", job], workspace=cli.workspace, env=env, size=size) as tmux:
        runs = await tmux.until(lambda text: "(resumed)" in text)
        assert [line.split()[0] for line in runs.splitlines() if "@team/" in line] == ["|", "|", "|"]
        await tmux.press("/")
        await tmux.write("@team/two")
        await tmux.until(lambda text: "›" in text and "team/one" not in text)
        await tmux.press("Enter")
        await tmux.until(lambda text: "what it did" in text and "writeTextFile two" in text)
        await tmux.press("Enter")
        await tmux.until("this step")
        await tmux.press("m")
        await tmux.until("two writes")
        await tmux.press("f")
        await tmux.until("Fork from step")
        await tmux.press("Tab")
        await tmux.until("(•) as a new job")
        await tmux.write("once more")
        await tmux.press("Enter")
        await tmux.until("A follow-up query")
        await tmux.press("C-c")
        assert await tmux.left() == 0
        forked = re.search(r"perstack log --job ([a-z0-9]{24})", await tmux.said())
    assert forked is not None
    assert forked[1] != job
    told = await cli.run("log", "--job", forked[1], "--text", "--take", "1")
    assert f"from step 2 of job {job} (@team/two)" in told.stdout, told.stdout
    assert "once more" in told.stdout


@pytest.mark.requirement("interface.log")
async def test_a_job_that_nobody_knows_is_told_on_the_plain_screen(cli: Cli, tmp_path: Path) -> None:
    env = {**cli.env, "TEXTUAL_ANIMATIONS": "none"}
    async with terminal(tmp_path, ["log", "--job", "nobody-knows"], workspace=cli.workspace, env=env) as tmux:
        assert await tmux.left() == 2
        said = await tmux.said()
    assert said.startswith("perstack: error: ")
    assert "nobody-knows" in said


async def test_a_browser_that_is_ended_by_a_signal_says_so_with_its_exit_code(cli: Cli, tmp_path: Path) -> None:
    export = tmp_path / "job.json"
    export.write_bytes(gzip.decompress((GOLDEN_HISTORIES / "deepest.json.gz").read_bytes()))
    for sent, code in ((signal.SIGTERM, 130), (None, 0)):
        async with terminal(tmp_path, ["log", "--file", str(export)], workspace=cli.workspace, env=cli.env) as tmux:
            await tmux.until("(resumed)")
            if sent is None:
                await tmux.press("q")
            else:
                os.kill(await tmux.program_pid(), sent)
            assert await tmux.left() == code
