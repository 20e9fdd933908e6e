"""Every command explains itself: what it is for, how it is called, what it leaves with."""

import os
import re
import subprocess

import pytest
from perstack.cli.app import app
from perstack.cli.diagnostics import ExitCode
from support.cli import PROGRAM

COMMANDS = [found.name or getattr(found.callback, "__name__", "") for found in app.registered_commands]


def help_text(*command: str, **env: str) -> str:
    environment = {"PATH": os.environ["PATH"], "COLUMNS": "80", "LANG": "C.UTF-8", **env}
    done = subprocess.run([PROGRAM, *command, "--help"], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_list_of_commands_says_what_each_is_for_in_one_whole_line() -> None:
    listed = help_text().partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    for line in listed:
        assert line.endswith("."), line
        assert not line.endswith("..."), line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.requirement("interface.exit-codes")
def test_help_has_examples_and_exit_codes(command: str) -> None:
    text = help_text(command)
    examples = re.findall(rf"^  perstack {command}\b.*$", text, re.MULTILINE)
    assert examples
    options = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", text.partition("\nOptions:\n")[2]))
    for example in examples:
        unquoted = re.sub(r"(['\"]).*?\1", "", example)
        assert set(re.findall(r"(?<=\s)--?[a-z][\w-]*", unquoted)) <= options, example
    codes = " ".join(text.partition("Exit codes:")[2].split())
    assert codes.startswith("0 ")
    assert {int(code) for code in re.findall(r"\b\d+\b", codes)} <= set(ExitCode)


@pytest.mark.parametrize("command", ["run", "log"])
def test_help_in_a_pipe_is_plain_text_whatever_the_terminal_can_do(command: str) -> None:
    text = help_text(command, TERM="xterm-256color", COLORTERM="truecolor")
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    assert text == help_text(command, TERM="dumb", NO_COLOR="1")
