"""When `perstack log` shows screens: a person before a terminal, who said nothing but which job."""

from dataclasses import fields
from io import StringIO

import pytest
from perstack.cli.log_options import LogOptions, wants_screens

WHICH_JOB = {"job_id": "j", "file": "job.json", "address": "127.0.0.1:7233"}
"""Options that say where the job is."""


class Terminal(StringIO):
    """A stream to a person."""

    def isatty(self) -> bool:
        return True


def sit_before_a_terminal(patch: pytest.MonkeyPatch) -> None:
    """Both streams lead to a terminal that can show screens; no fixture, for pytest sets the streams anew after it."""
    patch.setattr("sys.stdin", Terminal())
    patch.setattr("sys.stdout", Terminal())
    patch.setenv("TERM", "xterm-256color")


def test_a_person_who_names_a_job_or_none_gets_screens(monkeypatch: pytest.MonkeyPatch) -> None:
    sit_before_a_terminal(monkeypatch)
    assert wants_screens(LogOptions())
    for name, value in WHICH_JOB.items():
        assert wants_screens(LogOptions(**{name: value})), name  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", [one.name for one in fields(LogOptions) if one.name not in WHICH_JOB])
def test_whoever_asks_for_a_part_or_a_form_gets_text(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    sit_before_a_terminal(monkeypatch)
    default = next(one.default for one in fields(LogOptions) if one.name == name)
    value = True if default is False else "1"
    assert not wants_screens(LogOptions(job_id="j", **{name: value}))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("stream", ["sys.stdin", "sys.stdout"])
def test_a_pipe_gets_text(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    sit_before_a_terminal(monkeypatch)
    assert wants_screens(LogOptions())
    monkeypatch.setattr(stream, StringIO())
    assert not wants_screens(LogOptions())


@pytest.mark.parametrize("term", ["dumb", None])
def test_a_terminal_that_can_show_no_screens_gets_text(monkeypatch: pytest.MonkeyPatch, term: str | None) -> None:
    sit_before_a_terminal(monkeypatch)
    if term is None:
        monkeypatch.delenv("TERM")
    else:
        monkeypatch.setenv("TERM", term)
    assert not wants_screens(LogOptions())
