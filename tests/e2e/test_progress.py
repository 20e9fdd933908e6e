"""What is said while something takes long: a line that goes away on a terminal, plain lines elsewhere."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from perstack.cli.spinner import can_spin
from perstack.client.embedded import stop_server
from perstack.client.locations import DataFolder
from support.cli import PROGRAM, Cli, command_env
from support.mcp_servers import hostile
from support.model_server import Answer, ModelServer, Request
from support.pseudo_terminal import PseudoTerminal, on_terminal
from support.skill_runs import skill_table
from support.tmux import terminal as real_terminal

SOLO = '[experts.solo]\ninstruction = "You are solo."\n'
STARTING = "starting the Temporal server …"
WORKING = """
import os, sys, time
from perstack.cli.diagnostics import progressing, say, waiting
from perstack.cli.output import write_line
"""


@pytest.fixture
def slow_program(temporal_program: Path, tmp_path: Path) -> Path:
    """The real server, which takes its time."""
    return program(tmp_path / "slow-temporal", f'sleep 0.7\nexec {temporal_program} "$@"')


@pytest.fixture
async def fresh_env(slow_program: Path, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """An environment without a server; what was started ends with the test."""
    home, data = tmp_path / "fresh-home", DataFolder(tmp_path / "fresh-data")
    home.mkdir()
    yield {**command_env(data=data.root, temporal=slow_program, home=home), "TERM": "xterm-256color"}
    await stop_server(data)


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def done(request: Request) -> Answer:
    return Answer(text="done")


def refusing(request: Request) -> Answer:
    return Answer(status=400, message="no such thing")


def shown(terminal: PseudoTerminal) -> str:
    return "\n".join(terminal.screen).strip()


async def worked(script: str, tmp_path: Path, *, columns: int = 80, **env: str) -> PseudoTerminal:
    """A script that waits and talks, on a terminal, when it has ended."""
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm", **env}
    command = (sys.executable, "-P", "-c", WORKING + script)
    async with on_terminal(*command, cwd=tmp_path, env=environment, columns=columns) as terminal:
        assert await terminal.ended() == 0, terminal.drawn
    return terminal


async def test_on_a_terminal_a_line_turns_while_the_server_starts_and_then_is_gone(
    fresh_env: dict[str, str], tmp_path: Path
) -> None:
    async with on_terminal(PROGRAM, "jobs", cwd=tmp_path, env=fresh_env) as terminal:
        assert await terminal.ended() == 0, terminal.drawn
    assert f"⠙ {STARTING} 0 s" in terminal.drawn
    assert terminal.drawn.count(STARTING) > 2
    assert shown(terminal) == "perstack: there is no job"


@pytest.mark.parametrize("place", ["a pipe", "a dumb terminal", "a build server"])
async def test_elsewhere_the_same_is_one_plain_line(place: str, fresh_env: dict[str, str], tmp_path: Path) -> None:
    if place == "a pipe":
        result = await Cli(tmp_path, fresh_env).run("jobs")
        assert (result.code, result.stdout) == (0, "")
        drawn = result.stderr
    else:
        env = {**fresh_env, **({"CI": "true"} if place == "a build server" else {"TERM": "dumb"})}
        async with on_terminal(PROGRAM, "jobs", cwd=tmp_path, env=env) as terminal:
            assert await terminal.ended() == 0, terminal.drawn
        drawn = terminal.drawn.replace("\r\n", "\n")
    assert drawn == f"perstack: {STARTING}\nperstack: there is no job\n"


async def test_quiet_says_nothing_but_errors(fresh_env: dict[str, str], tmp_path: Path) -> None:
    async with on_terminal(PROGRAM, "jobs", "--quiet", cwd=tmp_path, env=fresh_env) as terminal:
        assert await terminal.ended() == 0
    assert terminal.drawn == ""
    failed = await Cli(tmp_path, fresh_env).run("cancel", "-q", "no-such-job")
    assert failed.code == 2
    assert failed.stderr.startswith("perstack: error: There is no job no-such-job on this server")
    assert "\nhint: " in failed.stderr


async def test_a_quiet_run_has_its_events_and_nothing_else_and_says_why_it_failed(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", SOLO)
    model.script = done
    ended = await cli.run("run", "-q", "solo", "Go.", env=model_env)
    assert (ended.code, ended.stderr, len(ended.of_type("completeRun"))) == (0, "", 1)
    model.script = refusing
    failed = await cli.run("run", "-q", "solo", "Go on.", env=model_env)
    assert (failed.code, len(failed.of_type("stopRunByError"))) == (1, 1)
    assert failed.stderr.startswith("perstack: error: the run failed (provider.bad_request): ")
    assert failed.stderr.count("\n") == 1
    refused = await cli.run("run", "-q", "solo", "Go.")
    assert (refused.code, refused.stdout) == (4, "")
    assert refused.stderr.startswith("perstack: error: ")


async def test_a_run_on_one_terminal_has_whole_events_after_the_line_that_turned(
    fresh_env: dict[str, str], model: ModelServer, model_env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "perstack.toml").write_text(SOLO)
    model.script = done
    command = (PROGRAM, "run", "solo", "Go.")
    async with on_terminal(*command, cwd=tmp_path, env={**fresh_env, **model_env}) as terminal:
        assert await terminal.ended() == 0, terminal.drawn
    assert f"{STARTING} 0 s" in terminal.drawn
    lines = shown(terminal).split("\n")
    events = [json.loads(line)["type"] for line in lines if not line.startswith("perstack: ")]
    assert (events[0], events.count("completeRun")) == ("initializeRuntime", 1)
    assert lines[0].startswith("perstack: job ")


@pytest.mark.requirement("interface.start")
async def test_screens_say_that_the_server_is_being_started(
    fresh_env: dict[str, str], model_env: dict[str, str], model: ModelServer, tmp_path: Path
) -> None:
    (tmp_path / "perstack.toml").write_text(SOLO)
    model.script = done
    env = {**fresh_env, **model_env, "TEXTUAL_ANIMATIONS": "none"}
    async with real_terminal(tmp_path, ["start", "solo", "Go."], workspace=tmp_path, env=env) as tmux:
        assert "Go." in await tmux.until(STARTING)
        await tmux.until("A follow-up query")
        await tmux.press("C-c")
        assert await tmux.left() == 0
        assert STARTING not in await tmux.said()


async def test_getting_the_server_and_starting_it_share_one_line(
    fresh_env: dict[str, str], slow_program: Path, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    program(programs / "go", f'sleep 0.6\ncp {slow_program} "$GOBIN/temporal"')
    env = {**fresh_env, "PATH": f"{programs}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del env["PERSTACK_TEMPORAL_CLI"]
    async with on_terminal(PROGRAM, "jobs", cwd=tmp_path, env=env) as terminal:
        assert await terminal.ended() == 0, terminal.drawn
    building = terminal.drawn.index("building the Temporal server with Go; this takes some minutes, once … 0 s")
    assert building < terminal.drawn.index(f"{STARTING} 0 s")
    assert shown(terminal) == "perstack: there is no job"


async def test_an_install_on_a_terminal_keeps_its_lines_beside_the_one_that_turns(
    cli: Cli, cli_env: dict[str, str]
) -> None:
    server = hostile()
    late = ("-c", 'sleep 0.6; exec "$0" "$@"', server.command or "", *server.args)
    skill = server.replaced(name="slow", command="sh", args=late)
    cli.write("perstack.toml", SOLO + skill_table("solo", skill))
    async with on_terminal(PROGRAM, "install", cwd=cli.workspace, env={**cli_env, "TERM": "xterm"}) as terminal:
        assert await terminal.ended() == 0, terminal.drawn
    assert "starting skill slow of solo … 0 s" in terminal.drawn
    lines = shown(terminal).split("\n")
    assert lines[:3] == ["Resolving experts...", "Found 1 expert(s)", "Collecting tool definitions for solo..."]
    assert all("starting skill" not in line for line in lines)
    assert lines[-1] == f"Generated {cli.workspace / 'perstack.lock'}"


async def test_events_and_talk_are_whole_lines_while_a_line_turns_on_the_same_terminal(tmp_path: Path) -> None:
    terminal = await worked(
        "with waiting('waiting for it …'):\n"
        "    for number in range(40):\n"
        "        time.sleep(0.03)\n"
        "        write_line('{\"event\": %d}' % number) if number % 2 else say('talk %d' % number)\n",
        tmp_path,
    )
    assert "waiting for it … 1 s" in terminal.drawn
    expected = [f'{{"event": {n}}}' if n % 2 else f"perstack: talk {n}" for n in range(40)]
    assert shown(terminal).split("\n") == expected


async def test_one_wait_follows_another_in_the_same_line_and_only_a_long_one_leaves_a_word(tmp_path: Path) -> None:
    terminal = await worked(
        "from perstack.cli import spinner\nspinner.KEPT_SECONDS = 0.5\n"
        "with progressing() as tell:\n"
        "    for text, seconds in (('first …', 0.3), ('second …', 0.7), ('third …', 0.3)):\n"
        "        tell(text)\n        time.sleep(seconds)\n",
        tmp_path,
    )
    assert all(f"{name} … 0 s" in terminal.drawn for name in ("first", "second", "third"))
    assert shown(terminal) == "perstack: second … 0 s"


async def test_a_wait_that_fails_leaves_the_line_to_the_error(tmp_path: Path) -> None:
    terminal = await worked(
        "from perstack.cli import spinner\nspinner.KEPT_SECONDS = 0.1\n"
        "from perstack.cli.diagnostics import complain\n"
        "try:\n    with waiting('fetching …'):\n        time.sleep(0.4)\n        raise OSError('no network')\n"
        "except OSError as error:\n    complain(str(error))\n",
        tmp_path,
    )
    assert "fetching … 0 s" in terminal.drawn
    assert shown(terminal) == "perstack: error: no network"


async def test_a_short_wait_draws_nothing(tmp_path: Path) -> None:
    terminal = await worked("with waiting('quick …'):\n    pass\nsay('done')\n", tmp_path)
    assert terminal.drawn == "perstack: done\r\n"


async def test_the_line_stays_within_a_narrow_terminal(tmp_path: Path) -> None:
    terminal = await worked("with waiting('x' * 100):\n    time.sleep(0.5)\n", tmp_path, columns=20)
    assert f"⠙ {'x' * 17}" in terminal.drawn
    assert "x" * 18 not in terminal.drawn
    assert shown(terminal) == ""


async def test_a_terminal_without_unicode_gets_signs_it_has(tmp_path: Path) -> None:
    terminal = await worked("with waiting('slow'):\n    time.sleep(0.5)\n", tmp_path, PYTHONIOENCODING="ascii")
    assert "/ slow 0 s" in terminal.drawn
    assert "⠙" not in terminal.drawn


async def test_no_line_turns_where_others_log_to_stderr(tmp_path: Path) -> None:
    terminal = await worked(
        "from perstack.cli.diagnostics import share_stderr\nshare_stderr()\n"
        "with progressing() as tell:\n    tell('slow …')\n    time.sleep(0.5)\n"
        "with waiting('slower …'):\n    time.sleep(0.5)\n",
        tmp_path,
    )
    assert terminal.drawn == "perstack: slow …\r\n"


async def test_ctrl_c_twice_leaves_a_clean_line(fresh_env: dict[str, str], tmp_path: Path) -> None:
    never = program(tmp_path / "never", "exec sleep 600")
    env = {**fresh_env, "PERSTACK_TEMPORAL_CLI": str(never)}
    async with on_terminal(PROGRAM, "jobs", cwd=tmp_path, env=env) as terminal:
        await terminal.seen(STARTING, count=3)
        terminal.press("\x03")
        async with asyncio.timeout(30):
            while terminal.process.poll() is None:
                terminal.press("\x03")
                await asyncio.sleep(0.2)
        assert await terminal.ended() in (130, 1)
    assert STARTING not in shown(terminal)


@pytest.mark.parametrize(
    ("env", "can"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, True),
        ({"TERM": "xterm", "CI": "false"}, True),
        ({"TERM": "xterm", "CI": "1"}, False),
        ({"TERM": "dumb"}, False),
        ({}, False),
    ],
)
def test_a_line_turns_only_where_it_can_be_taken_back(env: dict[str, str], can: bool) -> None:
    class Terminal:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

    assert can_spin(Terminal(), env) is can  # pyright: ignore[reportArgumentType]
