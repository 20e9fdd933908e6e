"""The runs of a job on stderr and in `perstack log`: who called whom, how it ended, what it cost."""

import pytest
from perstack.cli.signs import fitting
from perstack.cli.tree import job_tree, usage_table, usage_text
from perstack.core.failures import Failure
from perstack.core.run_view import Phase, RunView, Segment
from perstack.core.usage import Usage
from support.stories import STORIES
from support.views import view_of

MODEL = "claude-sonnet-5-5"


def usage(tokens_in: int, tokens_out: int, cached: int = 0) -> Usage:
    return Usage(input_tokens=tokens_in, output_tokens=tokens_out, cached_input_tokens=cached)


def run(
    key: str,
    *children: RunView,
    phase: Phase = "completed",
    used: Usage | None = None,
    failure: Failure | None = None,
    steps: int = 2,
    fullness: float | None = 0.25,
) -> RunView:
    view = RunView(key, key, MODEL, 0, max_steps=100, segments=[Segment(key, 0)], children=list(children))
    view.stand(phase, 1)
    view.count(used or usage(100, 10))
    view.failure, view.generations, view.context_window_usage = failure, steps, fullness
    return view


def heads(root: RunView) -> list[str]:
    """Each line up to the model."""
    return [line.partition(MODEL)[0].rstrip() for line in job_tree(root)]


def test_delegates_hang_below_their_caller() -> None:
    inner = run("@team/inner", run("@team/innermost"))
    root = run("team", run("@team/first", inner), run("@team/second"), run("@team/late"))
    assert heads(root) == [
        "✓ team",
        "├ ✓ @team/first",
        "│ └ ✓ @team/inner",
        "│   └ ✓ @team/innermost",
        "├ ✓ @team/second",
        "└ ✓ @team/late",
    ]


def test_a_line_shows_model_steps_tokens_and_how_full_the_context_is() -> None:
    (line,) = job_tree(run("solo", used=usage(12_345, 678, 9_000), steps=1, fullness=0.25))
    assert line.split("  ") == ["✓ solo", MODEL, "1 step", "12.3k in", "9.0k cached", "678 out", "context 25%"]


def test_columns_are_aligned() -> None:
    lines = job_tree(run("team", run("@team/a", used=usage(5, 5)), used=usage(1_000_000, 1)))
    assert len({line.index(" in") for line in lines}) == 1
    assert len({line.index("context") for line in lines}) == 1


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (200, "✓ team             claude-sonnet-5-5  2 steps  100 in  0 cached  10 out  context 25%"),
        (84, "✓ team             claude-sonnet-5-5  2 steps  100 in  0 cached  10 out  context 25%"),
        (80, "✓ team             claude-sonnet-5-5  2 steps  100 in  10 out  context 25%"),
        (72, "✓ team             claude-sonnet-5-5  100 in  10 out  context 25%"),
        (60, "✓ team             100 in  10 out  context 25%"),
        (40, "✓ team             100 in  10 out"),
        (20, "✓ team             100 in  10 out"),
    ],
)
def test_a_narrow_terminal_gets_fewer_figures_instead_of_broken_lines(columns: int, line: str) -> None:
    failed = run("@team/checker", phase="failed", failure=Failure(name="provider.auth", message="bad key " * 20))
    lines = job_tree(run("team", failed), columns=columns)
    assert lines[0] == line
    assert lines[1].startswith("└ ✗ @team/checker  ")


def test_the_table_shows_every_run_of_every_execution_within_eighty_columns() -> None:
    lines = usage_table(view_of(STORIES["deepest"]().events).roots)
    assert lines[:4] == [
        "                   model              steps     in  cached   out  context",
        "ship               claude-opus-5-5        1  12.3k       0  1.2k       7%",
        "├ @ship/plan       claude-sonnet-5-5      2  24.7k   14.0k   600       8%",
        "├ @ship/build      claude-sonnet-5-5      2  25.0k   15.4k   350       7%",
    ]
    assert [line for line in lines if line.startswith("ship")] == [lines[1], lines[10], lines[12]]
    assert (len(lines), max(map(len, lines)) <= 80) == (14, True)


@pytest.mark.parametrize(
    ("phase", "glyph", "note"),
    [
        ("completed", "✓", ""),
        ("failed", "✗", "provider.auth: bad key"),
        ("stepLimit", "✗", "reached its limit of 100 steps"),
        ("cancelled", "✗", "cancelled"),
        ("waitingForPerson", "⏸", "waits for a person"),
        ("waitingForDelegates", "⏸", "waits for delegates"),
        ("callingTools", "◦", ""),
        ("generating", "◦", ""),
        ("starting", "◦", ""),
    ],
)
def test_each_phase_has_its_sign_and_says_why_the_run_did_not_complete(phase: Phase, glyph: str, note: str) -> None:
    failure = Failure(name="provider.auth", message="bad \x1b[1mkey\n  second line") if phase == "failed" else None
    (line,) = job_tree(run("solo", phase=phase, failure=failure))
    assert line.startswith(f"{glyph} solo")
    assert line.rpartition("context 25%")[2].strip() == note.replace("bad key", "bad [1mkey")


def test_a_run_that_was_ended_from_outside_is_shown_as_failed() -> None:
    view = view_of(STORIES["parked"]().events)
    view.end_from_outside(view.runs[0].run_id, "terminated", 9)
    (line,) = job_tree(view.runs[0])
    assert line.startswith("✗ solo")
    assert line.endswith("terminated from outside")


def test_a_long_error_is_cut() -> None:
    failure = Failure(name="x", message="y" * 1000)
    (line,) = job_tree(run("solo", phase="failed", failure=failure))
    assert line.endswith("y…")
    assert len(line) < 300


def test_an_unknown_context_window_leaves_its_column_empty() -> None:
    (line,) = job_tree(run("solo", fullness=None))
    assert line.endswith("10 out")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None, "no such encoding"])
def test_signs_become_ascii_where_the_stream_has_no_others(encoding: str | None) -> None:
    lines = job_tree(run("team", run("@team/a"), run("@team/b", phase="cancelled")))
    shown = [fitting(line, encoding).partition(MODEL)[0].rstrip() for line in lines]
    assert shown == ["+ team", "| + @team/a", "` x @team/b"]


def test_signs_stay_where_the_stream_has_them() -> None:
    assert fitting("├ ✓ …", "utf-8") == "├ ✓ …"


def test_usage_is_told_in_thousands_and_without_a_cache_that_was_not_hit() -> None:
    assert usage_text(usage(267_712, 9_812, 168_400)) == "267.7k tokens in (168.4k cached), 9.8k out"
    assert usage_text(usage(999, 1)) == "999 tokens in, 1 out"
