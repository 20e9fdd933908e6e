"""What the shell offers for experts and jobs: by the protocol of each shell, and in a real bash."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.cli import PROGRAM, Cli, Result
from support.model_server import Answer, Call, ModelServer, Request
from support.pseudo_terminal import on_terminal

TOML = """
[experts.team]
description = "Writes notes."
instruction = "You are team."
delegates = ["@team/one"]

[experts.team.skills.people]
type = "interactiveSkill"
tools.approve.inputJsonSchema = '{"type": "object"}'

[experts."@team/one"]
instruction = "You are one."

[experts.other]
instruction = "You are other."
"""
EVIL = """
[experts.team]
description = 'x"$(touch owned)`touch owned`\\$(touch owned)\\`touch owned\\`; touch owned; [red]y[/] )) (('
instruction = "x"

[experts."$(touch owned)"]
instruction = "x"

[experts."a'; touch owned; '"]
instruction = "x"
"""
SHELLS: dict[str, Callable[[str], dict[str, str]]] = {
    "bash": lambda line: {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)},
    "zsh": lambda line: {"_TYPER_COMPLETE_ARGS": line},
    "fish": lambda line: {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
}
LIBRARIES = {"anthropic", "boto3", "botocore", "google.genai", "httpx2", "mcp", "openai", "pydantic", "textual"}


async def answered(cli: Cli, line: str, shell: str = "bash", **env: str) -> Result:
    """What the program tells the shell about a line that ends where the cursor is."""
    result = await cli.run(env={"_PERSTACK_COMPLETE": f"complete_{shell}", **SHELLS[shell](line), **env})
    assert (result.code, result.stderr) == (0, "")
    return result


async def offered(cli: Cli, line: str, **env: str) -> set[str]:
    return set((await answered(cli, line, **env)).stdout.split())


async def offered_when_listed(cli: Cli, line: str, wanted: set[str]) -> set[str]:
    """What is offered once the server's list, which lags a moment behind, shows the jobs."""
    folder = Path(cli.env["PERSTACK_DATA_DIR"]) / "completion"
    async with asyncio.timeout(60):
        while True:
            for cache in folder.glob("*.json"):
                cache.unlink()
            if wanted <= (found := await offered(cli, line)):
                return found


def script(request: Request) -> Answer:
    """`other` says something; `team` asks a person."""
    if "You are other." in request.system:
        return Answer(text="done")
    return Answer(calls=(Call(name="approve", args={"what": "it"}),))


@pytest.fixture
async def jobs(cli: Cli, model: ModelServer, model_env: dict[str, str]) -> tuple[str, str]:
    """A job that has completed and one that waits for a person."""
    cli.write("perstack.toml", TOML)
    model.script = script
    done = await cli.run("run", "other", 'Say "$(touch owned)"', env=model_env)
    asks = await cli.run("run", "team", "Ask me.", env=model_env)
    assert (done.code, asks.code) == (0, 6), done.stderr + asks.stderr
    return done.events[0]["jobId"], asks.events[0]["jobId"]


async def test_experts_of_the_definition_above_come_with_the_built_in_ones(cli: Cli) -> None:
    cli.write("perstack.toml", TOML)
    below = cli.workspace / "a" / "b"
    below.mkdir(parents=True)
    for command in ("run", "start"):
        assert await offered(Cli(below, cli.env), f"perstack {command} ") == {"create-expert", "other", "team"}
    assert await offered(cli, "perstack run tea") == {"team"}
    assert await offered(cli, "perstack run nobody") == set()
    assert "@team/one" in await offered(cli, "perstack run @tea")


async def test_the_definition_that_was_named_is_the_one_that_counts(cli: Cli) -> None:
    cli.write("perstack.toml", TOML)
    cli.write("mine/perstack.toml", '[experts.mine]\ninstruction = "x"\n')
    assert await offered(cli, "perstack run --config mine/perstack.toml ") == {"create-expert", "mine"}
    assert await offered(cli, "perstack run --config nowhere.toml ") == {"create-expert"}


async def test_a_definition_that_is_not_finished_is_no_reason_to_say_anything(cli: Cli) -> None:
    cli.write("perstack.toml", "[experts.half]\ninstructio")
    assert await offered(cli, "perstack run ") == {"create-expert"}
    cli.write("perstack.toml", '[experts.half]\nunknown = 1\n[experts]\nnone = "x"\n')
    assert "create-expert" in await offered(cli, "perstack run ")
    cli.write("perstack.toml", "[experts.half]\nunknown = 1\n")
    assert await offered(cli, "perstack run ") == {"create-expert", "half"}
    (cli.workspace / "perstack.toml").write_bytes(b"\xff\xfe\x00")
    assert await offered(cli, "perstack run ") == {"create-expert"}


async def test_each_shell_is_answered_in_its_own_way(cli: Cli) -> None:
    cli.write("perstack.toml", TOML)
    assert (await answered(cli, "perstack run t", "bash")).stdout == "team\n"
    assert (await answered(cli, "perstack run t", "zsh")).stdout == '_arguments \'*: :(("team":"Writes notes."))\'\n'
    assert (await answered(cli, "perstack run t", "fish")).stdout == "team\tWrites notes.\n"
    asked = {"_TYPER_COMPLETE_FISH_ACTION": "is-args", "_PERSTACK_COMPLETE": "complete_fish"}
    there = await cli.run(env={**asked, "_TYPER_COMPLETE_ARGS": "perstack run t"})
    nothing = await cli.run(env={**asked, "_TYPER_COMPLETE_ARGS": "perstack run nobody"})
    assert (there.code, nothing.code) == (0, 1)


@pytest.mark.parametrize("shell", SHELLS)
async def test_nothing_in_a_definition_becomes_a_command_of_the_shell(cli: Cli, shell: str) -> None:
    cli.write("perstack.toml", EVIL)
    answer = (await answered(cli, "perstack run ", shell)).stdout
    assert "team" in answer
    told = answer.replace("_arguments '*: :((", "").replace("))'", "")
    assert not set("$`;'\\()[]") & set(told)
    # A description is words on one line, whatever it was.
    assert "touch owned" in answer or shell == "bash"


async def test_jobs_are_offered_where_they_make_sense(cli: Cli, jobs: tuple[str, str]) -> None:
    done, asks = jobs
    assert await offered_when_listed(cli, "perstack log --job ", {done, asks}) >= {done, asks}
    for line, is_done, is_asking in (
        ("perstack export ", True, True),
        ("perstack run team --continue-job ", True, True),
        ("perstack start team --continue-job ", True, True),
        ("perstack resume ", False, True),
        ("perstack cancel ", False, True),
        ("perstack respond ", False, True),
        (f"perstack log --job {done[:20]}", True, False),
    ):
        found = await offered(cli, line)
        assert (done in found, asks in found) == (is_done, is_asking), line
    told = (await answered(cli, f"perstack log --job {done}", "fish")).stdout
    assert told == f"{done}\tcompleted other Say touch owned\n"
    assert not (cli.workspace / "owned").exists()


async def test_a_list_of_jobs_is_kept_for_a_moment(cli: Cli, jobs: tuple[str, str]) -> None:
    done, _ = jobs
    await offered_when_listed(cli, "perstack export ", {done})
    (cache,) = (Path(cli.env["PERSTACK_DATA_DIR"]) / "completion").glob("*.json")
    assert cache.stat().st_mode & 0o077 == 0
    cache.write_text(json.dumps([["kept", "completed", ""], ["no id", "completed", ""]]))
    assert await offered(cli, "perstack export ") == {"kept"}
    os.utime(cache, (0, 0))
    assert done in await offered(cli, "perstack export ")
    cache.write_text("no JSON at all")
    assert done in await offered(cli, "perstack export ")


async def test_no_server_is_started_for_an_answer(cli: Cli, tmp_path: Path) -> None:
    data = tmp_path / "nothing-here"
    assert await offered(cli, "perstack cancel ", PERSTACK_DATA_DIR=str(data)) == set()
    assert not data.exists()


async def test_a_server_that_does_not_answer_is_not_waited_for(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert await offered(cli, f"perstack cancel --address {address} ") == set()
        assert await offered(cli, "perstack cancel ", TEMPORAL_ADDRESS=address) == set()
    assert await offered(cli, "perstack cancel ", TEMPORAL_ADDRESS="127.0.0.1:1") == set()
    assert await offered(cli, "perstack cancel ", TEMPORAL_CONFIG_FILE=__file__) == set()


@pytest.mark.parametrize("asked", ["expert_keys(context, '')", "job_ids(context, '', 'any')"])
def test_an_answer_loads_no_library_of_a_provider(asked: str, tmp_path: Path) -> None:
    code = (
        "import sys, typer; from perstack.cli import completion; from perstack.cli.app import app\n"
        "context = typer.Context(typer.main.get_command(app))\n"
        f"completion.{asked}\n"
        "print(*sys.modules)"
    )
    env = {**os.environ, "PERSTACK_DATA_DIR": str(tmp_path / "none"), "TEMPORAL_ADDRESS": "127.0.0.1:1"}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=True)
    loaded = set(done.stdout.split()) & LIBRARIES
    # Temporal's library brings pydantic, and only a list of jobs needs that.
    assert loaded <= ({"pydantic"} if "job" in asked else set())


async def test_a_real_bash_completes_after_the_installation(cli: Cli) -> None:
    cli.write("perstack.toml", TOML)
    path = f"{PROGRAM.parent}:{cli.env['PATH']}"
    env = {**cli.env, "PATH": path, "TERM": "dumb", "PS1": "$ ", "HISTFILE": "/dev/null", "INPUTRC": "/dev/null"}
    async with on_terminal("bash", "--norc", "--noprofile", "-i", cwd=cli.workspace, env=env, columns=200) as terminal:
        terminal.press("perstack --install-completion; source ~/.bashrc; echo rea''dy\n")
        await terminal.seen("bash completion installed in")
        await terminal.seen("ready\r\n")
        terminal.press("perstack run tea\t")
        await terminal.seen("perstack run team ")
        terminal.press("\x15perstack can\t")
        await terminal.seen("perstack cancel ")
        terminal.press("\x15exit\n")
        assert await terminal.ended() == 0
    assert (Path(cli.env["HOME"]) / ".bash_completions" / "perstack.sh").exists()
