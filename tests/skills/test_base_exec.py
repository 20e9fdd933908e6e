"""Commands: what they see, what comes back, and that nothing of them stays behind."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from perstack.activities.skills.base.exec import OUTPUT_LIMIT, SUCCEEDED_SILENTLY, Commands, Output
from perstack.activities.skills.base.workspace import Workspace
from perstack.activities.skills.results import ToolFailure
from support.skills import HOST_ENV, WAIT_SECONDS, Signal, bounded, command, is_running, zombies

# Each process has a session of its own, ignores SIGTERM and outlives its parent.
BREED = """
trap "" TERM
echo $$ >> pids
if [ "$1" -gt 0 ]; then
    for i in 1 2 3; do setsid sh breed.sh $(($1 - 1)) & done
else
    exec sleep 1000
fi
"""
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "


@pytest.fixture
def commands(workspace: Workspace) -> Commands:
    return Commands(workspace, HOST_ENV)


def python(code: str, *args: str, **more: Any) -> dict[str, Any]:
    return command(sys.executable, "-c", code, *args, **more)


async def failure(commands: Commands, args: dict[str, Any]) -> ToolFailure:
    with pytest.raises(ToolFailure) as caught:
        async with bounded():
            await commands.run(args)
    return caught.value


async def test_output_and_exit_code_come_back(commands: Commands) -> None:
    result = await commands.run(python("import sys; print('out'); print('err', file=sys.stderr)"))
    assert result == {"output": "out\nerr\n", "exitCode": 0}


@pytest.mark.parametrize(("flags", "output"), [((True, False), "out\n"), ((False, True), "err\n")])
async def test_only_the_wanted_streams_come_back(commands: Commands, flags: tuple[bool, bool], output: str) -> None:
    args = python("import sys; print('out'); print('err', file=sys.stderr)", stdout=flags[0], stderr=flags[1])
    assert (await commands.run(args))["output"] == output


async def test_a_silent_success_says_so(commands: Commands) -> None:
    assert await commands.run(command("true")) == {"output": SUCCEEDED_SILENTLY, "exitCode": 0}
    assert (await commands.run(command("echo", "hidden", stdout=False, stderr=False)))["output"] == SUCCEEDED_SILENTLY


async def test_a_failing_command_is_an_error_with_its_exit_code(commands: Commands) -> None:
    caught = await failure(commands, python("import sys; print('so far'); sys.exit(3)"))
    assert "exit code 3" in caught.message
    assert caught.details == {"exitCode": 3, "stdout": "so far\n", "stderr": ""}


async def test_a_command_that_a_signal_ended_is_an_error_naming_it(commands: Commands) -> None:
    caught = await failure(commands, python("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", stdout=False))
    assert "SIGSEGV" in caught.message
    assert caught.details == {"exitCode": 139, "stderr": ""}


async def test_there_is_no_shell(commands: Commands) -> None:
    assert (await commands.run(command("echo", "$HOME", ";", "ls", "`id`")))["output"] == "$HOME ; ls `id`\n"


async def test_standard_input_is_empty(commands: Commands) -> None:
    assert (await commands.run(python("import sys; print(repr(sys.stdin.read()))")))["output"] == "''\n"


async def test_a_missing_program_is_named(commands: Commands, root: Path) -> None:
    assert "no program 'no-such-program'" in (await failure(commands, command("no-such-program"))).message
    (root / "plain.txt").write_text("no program")
    assert "may not be run" in (await failure(commands, command("./plain.txt"))).message
    (root / "broken").write_text("no format")
    (root / "broken").chmod(0o755)
    assert "could not be started" in (await failure(commands, command("./broken"))).message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (command(""), "empty"),
        (command("echo", "a\0b"), "NUL"),
        (command("echo", "\ud800"), "not valid text"),
        (command("echo", env={"A=B": "x"}), "contains '='"),
        (command("echo", env={"": "x"}), "empty"),
        (command("echo", env={"A": "x\0"}), "NUL"),
    ],
)
async def test_arguments_that_no_program_can_get_are_refused(
    commands: Commands, args: dict[str, Any], message: str
) -> None:
    assert message in (await failure(commands, args)).message


async def test_a_program_of_the_workspace_runs_relative_to_its_folder(commands: Commands, root: Path) -> None:
    (root / "bin").mkdir()
    (root / "bin/tool").write_text("#!/bin/sh\npwd\n")
    (root / "bin/tool").chmod(0o755)
    assert (await commands.run(command("./tool", cwd="bin")))["output"] == f"{root}/bin\n"
    assert (await commands.run(command("bin/tool")))["output"] == f"{root}\n"
    assert (await commands.run(command("pwd", cwd=f"{root}/bin")))["output"] == f"{root}/bin\n"


@pytest.mark.parametrize("cwd", ["..", "/", "out", "out/..", "perstack", "PERSTACK", "missing", "file.txt", "~"])
async def test_a_command_runs_nowhere_but_in_the_workspace(
    commands: Commands, root: Path, outside: Path, cwd: str
) -> None:
    (root / "perstack").mkdir()
    (root / "out").symlink_to(outside)
    (root / "file.txt").write_text("")
    assert await failure(commands, command("pwd", cwd=cwd))


async def test_secrets_of_the_worker_do_not_reach_a_command(workspace: Workspace) -> None:
    host = {**HOST_ENV, "ANTHROPIC_API_KEY": "secret", "AWS_SECRET_ACCESS_KEY": "secret", "LANG": "C.UTF-8"}
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    args = python(code, env={"MINE": "yes", "ANTHROPIC_BASE_URL": "x"})
    seen = json.loads((await Commands(workspace, host).run(args))["output"])
    assert "secret" not in seen.values()
    assert (seen["MINE"], seen["LANG"], seen["PATH"]) == ("yes", "C.UTF-8", HOST_ENV["PATH"])


async def test_protected_variables_are_left_out_and_named(commands: Commands) -> None:
    args = python(
        "import os; print(os.environ['PATH'], os.environ.get('LD_PRELOAD'))",
        env={"Path": "/evil", "PATH": "/evil", "ld_preload": "x.so", "BASH_ENV": "x"},
    )
    result = await commands.run(args)
    assert result["output"] == f"{HOST_ENV['PATH']} None\n"
    assert result["ignoredEnv"] == ["BASH_ENV", "PATH", "Path", "ld_preload"]


async def test_ten_megabytes_of_output_are_cut_and_never_kept(commands: Commands) -> None:
    code = "import sys; sys.stdout.write('BEGIN' + 'x' * 10_485_760 + 'END')"
    output = (await commands.run(python(code)))["output"]
    assert output.startswith("BEGINx")
    assert output.endswith("xEND")
    assert f"{10_485_768 - OUTPUT_LIMIT} bytes cut" in output
    assert len(output) < OUTPUT_LIMIT + 100


def test_a_stream_never_holds_more_than_its_limit() -> None:
    stream = Output(1000)
    for _ in range(1000):
        stream.add(b"0123456789" * 30)
    text = stream.text()
    assert text.startswith("0123456789" * 50)
    assert text.endswith("0123456789" * 50)
    assert f"{300_000 - 1000} bytes cut" in text


@pytest.mark.parametrize("sizes", [[1], [7], [999, 1], [1, 999], [400, 400, 400], [5000], [1000], [1001]])
def test_a_stream_counts_every_byte_it_cuts(sizes: list[int]) -> None:
    stream = Output(1000)
    data = bytes(ord("a") + i % 26 for i in range(sum(sizes)))
    position = 0
    for size in sizes:
        stream.add(data[position : position + size])
        position += size
    cut = max(0, len(data) - 1000)
    expected = data.decode() if not cut else f"{data[:500].decode()}\n… {cut} bytes cut …\n{data[-500:].decode()}"
    assert stream.text() == expected


def test_a_cut_inside_a_character_leaves_no_broken_one() -> None:
    stream = Output(10)
    stream.add("grün€€€€€€€€".encode())
    assert "\ufffd" not in stream.text()


async def test_binary_output_is_readable(commands: Commands) -> None:
    result = await commands.run(python(r"import sys; sys.stdout.buffer.write(b'a\xff\xfe\x00b')"))
    assert result["output"] == "a\ufffd\ufffd\x00b"


async def test_a_timeout_ends_the_command_and_gives_what_there_was(commands: Commands) -> None:
    code = "import time; print('so far', flush=True); time.sleep(1000)"
    caught = await failure(commands, python(code, timeout=1000))
    assert "1000 ms" in caught.message
    assert caught.details == {"timedOut": True, "stdout": "so far\n", "stderr": ""}
    assert zombies() == []


async def test_a_timeout_ends_the_whole_group_even_if_it_ignores_sigterm(commands: Commands, root: Path) -> None:
    script = 'trap "" TERM; for i in 1 2 3; do sleep 1000 & echo $! >> pids; done; wait'
    await failure(commands, command("sh", "-c", script, timeout=1500))
    pids = [int(line) for line in (root / "pids").read_text().split()]
    assert len(pids) == 3
    assert not any(is_running(pid) for pid in pids)
    assert zombies() == []


async def test_children_that_left_the_group_are_ended_as_well(commands: Commands, root: Path) -> None:
    (root / "breed.sh").write_text(BREED)
    await failure(commands, command("sh", "-c", "sh breed.sh 2; sleep 1000", timeout=2500))
    pids = [int(line) for line in (root / "pids").read_text().split()]
    assert len(pids) == 1 + 3 + 9
    assert not any(is_running(pid) for pid in pids)
    assert zombies() == []


async def test_cancelling_ends_the_group_at_once(commands: Commands, signal: Signal) -> None:
    code = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
stray = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
open({str(signal.path)!r}, "w").write(f"{{os.getpid()}} {{child.pid}} {{stray.pid}}")
time.sleep(1000)
"""
    call = asyncio.create_task(commands.run(python(code)))
    pids = [int(word) for word in (await signal.wait()).split()]
    call.cancel()
    async with bounded():
        with pytest.raises(asyncio.CancelledError):
            await call
    assert not any(is_running(pid) for pid in pids)
    assert zombies() == []


async def test_a_second_cancellation_does_not_leave_the_command_behind(commands: Commands, signal: Signal) -> None:
    code = f"import os; {STUBBORN}open({str(signal.path)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    call = asyncio.create_task(commands.run(python(code)))
    pid = int(await signal.wait())
    async with bounded():
        while not call.done():
            call.cancel()
            await asyncio.wait({call}, timeout=0.01)
    assert call.cancelled()
    assert not is_running(pid)


async def test_closing_ends_what_runs_with_an_error_for_its_caller(commands: Commands, signal: Signal) -> None:
    code = f"import os, time; open({str(signal.path)!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    call = asyncio.create_task(failure(commands, python(code)))
    pid = int(await signal.wait())
    async with bounded():
        await commands.close()
    assert "session was closed" in (await call).message
    assert not is_running(pid)


async def test_a_background_process_does_not_hold_the_call(commands: Commands, root: Path) -> None:
    args = command("sh", "-c", f"echo started; sleep {WAIT_SECONDS * 2} & echo $! > pid", timeout=WAIT_SECONDS * 1000)
    async with bounded():
        result = await commands.run(args)
    pid = int((root / "pid").read_text())
    assert result["output"].startswith("started\n\n(a process that the command left in the background")
    assert is_running(pid)
    async with bounded():
        await commands.close()
    assert not is_running(pid)


async def test_what_runs_in_the_background_ends_with_its_session_and_no_earlier(
    workspace: Workspace, root: Path
) -> None:
    mine, other = Commands(workspace, HOST_ENV), Commands(workspace, HOST_ENV)
    script = (
        'setsid sh -c \'trap "" TERM; echo $$ >> "$0"; sleep 1000 & echo $! >> "$0"; wait\' "$1" > /dev/null 2>&1 &'
    )
    wait = 'until [ -f "$1" ] && [ "$(wc -l < "$1")" -eq 2 ]; do sleep 0.01; done'
    async with bounded():
        for commands, name in ((mine, "mine"), (other, "other")):
            await commands.run(command("sh", "-c", f"{script} {wait}", "sh", name))
        # Another command of the session neither ends it nor is taken for it.
        await mine.run(command("true"))
        pids = {name: [int(pid) for pid in (root / name).read_text().split()] for name in ("mine", "other")}
        assert all(is_running(pid) for pid in pids["mine"])
        await mine.close()
        assert not any(is_running(pid) for pid in pids["mine"])
        assert all(is_running(pid) for pid in pids["other"])
        await other.close()
    assert not any(is_running(pid) for pid in pids["other"])
    assert zombies() == []


async def test_many_commands_at_once_do_not_mix(commands: Commands) -> None:
    calls = [commands.run(command("echo", str(number))) for number in range(20)]
    async with bounded():
        results = await asyncio.gather(*calls)
    assert [result["output"] for result in results] == [f"{number}\n" for number in range(20)]
    assert zombies() == []


async def test_no_handle_stays_open(commands: Commands) -> None:
    await commands.run(command("true"))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await commands.run(command("echo", "x"))
        await failure(commands, command("false"))
        await failure(commands, command("no-such-program"))
    await asyncio.sleep(0)
    assert len(os.listdir("/proc/self/fd")) <= before
