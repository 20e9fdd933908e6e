"""The page about the terminal names the keys that the screens have."""

import re
from pathlib import Path
from typing import Any

import pytest
from perstack.cli.tui.screens.checkpoint import CheckpointScreen
from perstack.cli.tui.screens.experts import ExpertsScreen
from perstack.cli.tui.screens.jobs import JobsScreen
from perstack.cli.tui.screens.listing import ListPage
from perstack.cli.tui.screens.run import RunScreen
from perstack.cli.tui.screens.runs import RunsScreen
from perstack.cli.tui.screens.steps import StepsScreen
from perstack.cli.tui.widgets.rows import RowList
from textual.binding import Binding

PAGE = (Path(__file__).parents[2] / "docs" / "terminal.md").read_text("utf-8")
SPELT = {
    "down": "↓",
    "up": "↑",
    "pagedown": "PgDn",
    "pageup": "PgUp",
    "home": "Home",
    "end": "End",
    "space": "Space",
    "enter": "Enter",
    "escape": "Esc",
    "slash": "/",
    "tab": "Tab",
    "ctrl+c": "Ctrl-C",
    "f5": "F5",
}
NOT_NAMED = {"shift+tab", "ctrl+r"}
"""Other ways to what has a simpler key."""


@pytest.mark.parametrize(
    ("section", "parts"),
    [
        ("Lists", (RowList, ListPage, ExpertsScreen, JobsScreen)),
        ("A job at work", (RunScreen,)),
        ("Looking into a job", (RunsScreen, StepsScreen, CheckpointScreen)),
    ],
)
def test_every_key_of_a_screen_is_in_its_section(section: str, parts: tuple[Any, ...]) -> None:
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    named = set(re.split(r"[\s,`]+", " ".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE))))
    bindings = [binding for part in parts for binding in part.BINDINGS if isinstance(binding, Binding)]
    keys = {key for binding in bindings for key in binding.key.split(",")} - NOT_NAMED
    assert {SPELT.get(key, key) for key in keys} <= named
