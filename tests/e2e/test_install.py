"""`perstack install` and runs with a lock: the real program, real MCP servers, a real Temporal server."""

import asyncio
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from perstack.core.expert import McpSseSkill, McpStdioSkill
from support.cli import Cli
from support.leftovers import left_by
from support.mcp_servers import hostile, node_server, python_server
from support.model_server import Answer, Call, ModelServer, Request
from support.skill_runs import all_gone, offered, skill_table, solo, steps, text_of
from support.skills import Signal, bounded

ASKS = """
[experts.solo.skills.people]
type = "interactiveSkill"

[experts.solo.skills.people.tools.approve]
description = "Asks a person."
inputJsonSchema = '{"type": "object", "properties": {"what": {"type": "string"}}}'
"""


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


def telling(cli: Cli, name: str, *options: str, **more: Any) -> McpStdioSkill:
    """The hostile server under a name; its file says what happened to it, and is there once it was started."""
    return hostile(f"--tell={cli.workspace / name}.told", *options, **more).replaced(name=name)


def told(cli: Cli, name: str) -> str:
    """What a `telling` server wrote down."""
    path = cli.workspace / f"{name}.told"
    return path.read_text() if path.exists() else ""


def forget(cli: Cli) -> None:
    """Let all `telling` servers be as if they had not been started."""
    for path in cli.workspace.glob("*.told"):
        path.unlink()


def lock_path(cli: Cli) -> Path:
    return cli.workspace / "perstack.lock"


def strays(cli: Cli) -> list[str]:
    """Files of a lock that is being written."""
    return [path.name for path in cli.workspace.iterdir() if "perstack.lock" in path.name and path != lock_path(cli)]


@pytest.mark.requirement("infrastructure.install")
@pytest.mark.requirement("definition.lockfile")
async def test_install_asks_every_skill_and_writes_the_lock_beside_the_definition(cli: Cli) -> None:
    files = node_server("server-filesystem", str(cli.workspace), pick=("read_text_file", "write_file")).replaced(
        name="files", omit=("write_file",)
    )
    time = python_server("--local-timezone", "UTC")
    one, two = (hostile(f"--name={name}", pick=("echo", "nowhere")).replaced(name=name) for name in ("one", "two"))
    definition = solo(files, time, one, two) + ASKS
    definition += '\n[experts.second]\ninstruction = "You are second."\nversion = "2.0.0"\n' + skill_table(
        "second", one
    )
    cli.write("teams/perstack.toml", definition)

    result = await cli.run("install", "--config", "teams/perstack.toml")
    assert result.code == 0, result.stderr
    assert not result.stderr.count("Traceback")
    raw = tomllib.loads((cli.workspace / "teams" / "perstack.lock").read_text())
    counts = {key: len(expert["toolDefinitions"]) for key, expert in raw["experts"].items()}
    assert result.stdout.splitlines() == [
        "Resolving experts...",
        "Found 2 expert(s)",
        "Collecting tool definitions for solo...",
        f"  Found {counts['solo']} tool(s)",
        "Collecting tool definitions for second...",
        f"  Found {counts['second']} tool(s)",
        f"Generated {cli.workspace / 'teams' / 'perstack.lock'}",
    ]
    assert "solo: skill one has no tool nowhere, which `pick` names" in result.stderr
    assert "solo: tool echo of skill two is offered as two_echo" in result.stderr

    assert (raw["version"], raw["configPath"]) == ("1", "perstack.toml")
    solo_entry = raw["experts"]["solo"]
    assert (solo_entry["key"], solo_entry["name"], solo_entry["version"]) == ("solo", "solo", "1.0.0")
    assert raw["experts"]["second"]["version"] == "2.0.0"
    tools = {(tool["skillName"], tool["name"]): tool for tool in solo_entry["toolDefinitions"]}
    by_skill = {skill for skill, _ in tools}
    assert by_skill == {"@perstack/base", "files", "time", "one", "two", "people"}
    assert [name for skill, name in tools if skill in ("files", "one", "two")] == ["read_text_file", "echo", "echo"]
    assert tools["time", "convert_time"]["inputSchema"]["required"]
    assert tools["people", "approve"]["inputSchema"]["properties"] == {"what": {"type": "string"}}
    assert not list((cli.workspace / "teams").glob(".perstack*"))


@pytest.mark.requirement("definition.lockfile")
@pytest.mark.requirement("runtime.skill-manager")
async def test_a_run_with_a_lock_starts_a_skill_at_its_first_call_and_never_one_that_is_not_called(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    called, ignored = telling(cli, "called", pick=("echo", "meta")), telling(cli, "ignored")
    cli.write("perstack.toml", solo(called, ignored))
    installed = await cli.run("install")
    assert installed.code == 0, installed.stderr
    assert "initialize" in told(cli, "ignored")
    forget(cli)
    started_before_the_call: list[str] = []

    def script(request: Request) -> Answer:
        if request.turn == 1:
            started_before_the_call.extend((told(cli, "called"), told(cli, "ignored")))
            # Both at once: they share one start.
            return Answer(calls=(call("echo", text="first"), call("echo", text="second")))
        return Answer(calls=(call("meta"),)) if request.turn == 2 else Answer(text="done")

    model.script = script
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    assert "warning" not in result.stderr
    assert started_before_the_call == ["", ""]
    assert told(cli, "ignored") == ""
    assert told(cli, "called").count("initialize") == 1
    assert told(cli, "called").count("call echo") == 2
    names = offered(model.requests[0])
    assert {"echo", "meta", "ignored_echo", "huge"} <= set(names)
    assert [text_of(one) for one in model.requests[1].results] == ["first", "second"]
    assert result.types.index("callTools") < result.types.index("skillStarting")
    assert [e["skillName"] for e in result.of_type("skillConnected")] == ["@perstack/base", "called"]
    assert [e["skillName"] for e in result.of_type("skillDisconnected")] == ["@perstack/base", "called"]


async def test_a_locked_skill_that_cannot_start_is_an_error_for_the_model(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", solo(hostile(required_env=("LICENSE",))))
    installed = await cli.run("install", env={"LICENSE": "a-license-for-the-skill"})
    assert installed.code == 0, installed.stderr
    server = cli.write("broken.py", "import sys; sys.exit('no license')")
    lock = lock_path(cli).read_text()
    broken = hostile().replaced(args=(str(server),), required_env=("LICENSE",))
    cli.write("perstack.toml", solo(broken))
    original = json.dumps(list(hostile().args))
    changed = json.dumps(list(broken.args))
    assert original in lock
    # As if the program behind the same command line were another one now.
    lock_path(cli).write_text(lock.replace(original, changed))
    model.script = steps([call("echo", text="hello")])
    result = await cli.run("run", "solo", "go", env={**model_env, "LICENSE": "a-license-for-the-skill"})
    assert result.code == 0, result.stderr
    answer = model.requests[1].results[0]
    assert answer["is_error"]
    assert "no license" in text_of(answer)


@pytest.mark.requirement("definition.lockfile")
async def test_what_changed_since_the_lock_is_told_and_refused_where_it_must_not_change(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    skill = telling(cli, "helper", pick=("echo", "meta"))
    cli.write("perstack.toml", solo(skill))
    model.script = steps()
    missing = await cli.run("run", "solo", "go", "--frozen", env=model_env)
    assert missing.code == 2
    assert "There is no perstack.lock" in missing.stderr

    assert (await cli.run("install")).code == 0
    forget(cli)
    same = await cli.run("run", "solo", "go", "--frozen", env=model_env)
    assert same.code == 0, same.stderr
    assert told(cli, "helper") == ""

    # Less of a skill is in the lock: it need not be asked, but the definition is not what was locked.
    cli.write("perstack.toml", solo(skill.replaced(pick=("echo",))))
    less = await cli.run("run", "solo", "go", env=model_env)
    assert less.code == 0, less.stderr
    assert "solo has changed since perstack.lock was written" in less.stderr
    assert "meta" not in offered(model.requests[-1])
    assert told(cli, "helper") == ""

    # More of it is not: it is asked.
    cli.write("perstack.toml", solo(skill.replaced(pick=("echo", "meta", "empty"))))
    more = await cli.run("run", "solo", "go", env=model_env)
    assert more.code == 0, more.stderr
    assert "the skills of solo have changed since perstack.lock was written" in more.stderr
    assert "empty" in offered(model.requests[-1])
    assert "initialize" in told(cli, "helper")

    requests = len(model.requests)
    frozen = await cli.run("run", "solo", "go", "--frozen", env=model_env)
    assert frozen.code == 2
    assert "the skills of solo have changed" in frozen.stderr
    assert "perstack install" in frozen.stderr
    assert not frozen.stdout
    assert len(model.requests) == requests


async def test_a_lock_that_cannot_be_read_is_told_and_ignored_but_never_when_it_must_hold(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    cli.write("perstack.toml", solo(hostile(pick=("echo",))))
    cli.write("perstack.lock", "version = 7\n")
    model.script = steps([call("echo", text="asked anew")])
    result = await cli.run("run", "solo", "go", env=model_env)
    assert result.code == 0, result.stderr
    assert "perstack.lock" in result.stderr
    assert text_of(model.requests[1].results[0]) == "asked anew"
    frozen = await cli.run("run", "solo", "go", "--frozen", env=model_env)
    assert frozen.code == 2


async def test_a_tool_whose_name_no_provider_takes_is_picked_and_called_through_the_lock(
    cli: Cli, model: ModelServer, model_env: dict[str, str]
) -> None:
    schema = {"type": "object"}
    tools = cli.write("tools.json", json.dumps([{"name": name, "inputSchema": schema} for name in ("get.sum", "x")]))
    cli.write("perstack.toml", solo(hostile(f"--tools={tools}", pick=("get.sum",))))
    installed = await cli.run("install")
    assert installed.code == 0, installed.stderr
    model.script = steps([call("get_sum")])
    result = await cli.run("run", "solo", "go", "--frozen", env=model_env)
    assert result.code == 0, result.stderr
    assert offered(model.requests[0])[-1] == "get_sum"
    assert text_of(model.requests[1].results[0]) == "get.sum called"


@pytest.mark.requirement("infrastructure.install")
async def test_a_skill_that_does_not_start_leaves_the_old_lock_as_it_is(cli: Cli) -> None:
    cli.write("perstack.toml", solo(hostile()))
    assert (await cli.run("install")).code == 0
    before = lock_path(cli).read_bytes()
    cli.write("perstack.toml", solo(hostile(), hostile("--die=4", "--greeting=no-license").replaced(name="sick")))
    result = await cli.run("install")
    assert result.code == 1
    assert "Skill sick of solo" in result.stderr
    assert "no-license" in result.stderr
    assert "Nothing was written" in result.stderr
    assert "Generated" not in result.stdout
    assert lock_path(cli).read_bytes() == before
    assert not strays(cli)

    cli.write("perstack.toml", solo(hostile(required_env=("NOBODY_SETS_IT",))))
    missing = await cli.run("install")
    assert missing.code == 2
    assert "NOBODY_SETS_IT" in missing.stderr
    assert lock_path(cli).read_bytes() == before


@pytest.mark.requirement("infrastructure.install")
async def test_a_killed_install_leaves_the_old_lock_whole_and_its_servers_end(cli: Cli, signal: Signal) -> None:
    cli.write("perstack.toml", solo(hostile()))
    assert (await cli.run("install")).code == 0
    before = lock_path(cli).read_bytes()
    waits = hostile(f"--tell={signal.path}", "--hang").replaced(name="waits")
    cli.write("perstack.toml", solo(hostile(), waits))
    async with cli.running("install") as running:
        await signal.wait()
        running.process.kill()
        async with bounded():
            await running.process.wait()
        await all_gone(cli.env["HOME"], named="hostile.py")
    assert lock_path(cli).read_bytes() == before
    assert not strays(cli)


async def test_an_install_killed_at_the_moment_it_writes_leaves_one_lock_or_the_other(cli: Cli) -> None:
    small, large = solo(hostile(pick=("echo",))), solo(hostile("--many=800"))
    cli.write("perstack.toml", small)
    assert (await cli.run("install")).code == 0
    old = lock_path(cli).read_bytes()
    cli.write("perstack.toml", large)
    for tenths in range(6):
        async with cli.running("install") as running:
            await running.seen("  Found ")
            # The moment is drawn out over the tries; nothing waits for this.
            await asyncio.wait((asyncio.ensure_future(running.process.wait()),), timeout=tenths / 10)
            running.kill_group()
        await all_gone(cli.env["HOME"], named="hostile.py")
        found = lock_path(cli).read_bytes()
        lock = tomllib.loads(found.decode())
        assert found == old or len(lock["experts"]["solo"]["toolDefinitions"]) > 800


def remote(port: int) -> McpSseSkill:
    return McpSseSkill(name="remote", endpoint=f"http://127.0.0.1:{port}/mcp")


async def test_install_refuses_an_endpoint_that_the_operator_does_not_allow(cli: Cli) -> None:
    cli.write("perstack.toml", solo(remote(9)))
    result = await cli.run("install")
    assert result.code == 2
    assert "SSE endpoint must use HTTPS" in result.stderr
    allowed = await cli.run("install", env={"PERSTACK_ALLOW_ENDPOINTS": "127.0.0.1:9"})
    assert allowed.code == 1
    assert "Skill remote of solo" in allowed.stderr
    assert not lock_path(cli).exists()
