"""How a command begins and ends: what Ctrl-C does before it has begun, and whose talk reaches the terminal."""

import signal
import subprocess
import sys

import pytest

WAIT = 30.0

INTERRUPTED_WHILE_IMPORTING = """
import os, signal, sys

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "perstack.cli.app":
            os.kill(os.getpid(), signal.SIGINT)
        return None

import perstack.__main__
sys.meta_path.insert(0, Slow())
sys.argv = ["perstack", "--version"]
perstack.__main__.main()
"""

WARNED = """
import sys, warnings
from perstack.cli.diagnostics import ExitCode
from perstack.cli.lifecycle import run_command

async def command():
    place = ("_activity.py", 227, "temporalio.worker._activity")
    warnings.warn_explicit("told by the library", UserWarning, *place)
    return ExitCode.COMPLETED

run_command(command, is_verbose="--verbose" in sys.argv)
"""

INTERRUPTED_AT_WORK = """
import asyncio, os, signal
import perstack.__main__
from perstack.cli import app
from perstack.cli.diagnostics import ExitCode
from perstack.cli.lifecycle import run_command

async def command():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
    finally:
        print("put away")
    return ExitCode.COMPLETED

app.app = lambda: run_command(command)
perstack.__main__.main()
"""


def ran(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=False)


def test_ctrl_c_while_the_program_is_loaded_leaves_without_a_stack_trace() -> None:
    ended = ran(INTERRUPTED_WHILE_IMPORTING)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_ctrl_c_while_a_command_works_lets_it_put_things_away() -> None:
    ended = ran(INTERRUPTED_AT_WORK)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "put away\n", "")


def test_a_command_that_was_told_to_ignore_ctrl_c_does_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ended = ran(INTERRUPTED_AT_WORK.replace("sleep(60)", "sleep(0)"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.returncode, ended.stdout) == (0, "put away\n")


@pytest.mark.parametrize(("arguments", "is_told"), [((), False), (("--verbose",), True)])
def test_what_the_temporal_library_warns_of_is_told_only_to_whoever_wants_more_talk(
    arguments: tuple[str, ...], is_told: bool
) -> None:
    ended = ran(WARNED, *arguments)
    assert ended.returncode == 0
    assert ("told by the library" in ended.stderr) is is_told
