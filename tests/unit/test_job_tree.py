"""The tree of a job on stderr and in `perstack log`."""

import pytest
from perstack.cli.tree import fitting, job_tree, usage_text
from perstack.client.history import RunReader
from perstack.core.checkpoint import CheckpointStatus
from perstack.core.failures import Failure
from perstack.core.fold import Fold
from perstack.core.run import RunResult
from perstack.core.usage import Usage
from support.scenarios import expert, run_input
from temporalio.converter import DataConverter

MODEL = expert("solo").model.model


def usage(tokens_in: int, tokens_out: int, cached: int = 0) -> Usage:
    return Usage(input_tokens=tokens_in, output_tokens=tokens_out, cached_input_tokens=cached)


def reader(
    key: str,
    path: tuple[str, ...] = (),
    *,
    status: CheckpointStatus = "completed",
    used: Usage | None = None,
    failure: Failure | None = None,
    closed: str | None = "completed",
    has_result: bool = True,
    steps: int = 2,
    fullness: float | None = 0.25,
) -> RunReader:
    fold = Fold(run_input(expert(key)).model_copy(update={"path": path}))
    checkpoint = fold.state.checkpoint.model_copy(
        update={"status": status, "usage": used or usage(100, 10), "context_window_usage": fullness}
    )
    result = RunResult(status=status, expert_key=key, run_id="r", checkpoint_id="c", last_step=steps, failure=failure)
    changes = {"checkpoint": checkpoint, "generations": steps, "result": result if has_result else None}
    fold.state = fold.state.model_copy(update=changes)
    return RunReader(DataConverter.default, fold=fold, closed=closed)


def heads(readers: list[RunReader]) -> list[str]:
    """Each line up to the model."""
    return [line.partition(MODEL)[0].rstrip() for line in job_tree(readers)]


def test_delegates_hang_below_their_caller_in_the_order_of_its_calls() -> None:
    readers = [
        reader("team"),
        reader("@team/late", ("10.0",)),
        reader("@team/second", ("2.1",)),
        reader("@team/first", ("2.0",)),
        reader("@team/inner", ("2.0", "1.0")),
        reader("@team/innermost", ("2.0", "1.0", "3.0")),
    ]
    assert heads(readers) == [
        "✓ team",
        "├ ✓ @team/first",
        "│ └ ✓ @team/inner",
        "│   └ ✓ @team/innermost",
        "├ ✓ @team/second",
        "└ ✓ @team/late",
    ]


def test_a_line_shows_model_steps_tokens_and_how_full_the_context_is() -> None:
    (line,) = job_tree([reader("solo", used=usage(12_345, 678, 9_000), steps=1, fullness=0.25)])
    assert line.split("  ") == ["✓ solo", MODEL, "1 step", "12.3k in", "9.0k cached", "678 out", "context 25%"]


def test_columns_are_aligned() -> None:
    lines = job_tree([reader("team", used=usage(1_000_000, 1)), reader("@team/a", ("1.0",), used=usage(5, 5))])
    assert len({line.index(" in") for line in lines}) == 1
    assert len({line.index("context") for line in lines}) == 1


def test_tokens_of_a_run_leave_out_those_of_delegates_that_reported() -> None:
    readers = [
        reader("team", used=usage(1000, 100, 500)),
        reader("@team/a", ("1.0",), used=usage(300, 30, 200)),
        reader("@team/b", ("1.1",), used=usage(400, 40), closed="canceled"),
    ]
    assert " 700 in  300 cached  70 out" in job_tree(readers)[0]


@pytest.mark.parametrize(
    ("status", "glyph", "note"),
    [
        ("completed", "✓", ""),
        ("stoppedByError", "✗", "provider.auth: bad key"),
        ("stoppedByExceededMaxSteps", "✗", "reached its limit of 100 steps"),
        ("stoppedByCancellation", "✗", "cancelled"),
        ("stoppedByInteractiveTool", "⏸", "waits for a person"),
        ("stoppedByDelegate", "⏸", "waits for delegates"),
        ("proceeding", "◦", ""),
        ("init", "◦", ""),
    ],
)
def test_each_status_has_its_sign_and_says_why_the_run_did_not_complete(
    status: CheckpointStatus, glyph: str, note: str
) -> None:
    failure = Failure(name="provider.auth", message="bad key\n  second line") if status == "stoppedByError" else None
    has_result = status in ("completed", "stoppedByError", "stoppedByExceededMaxSteps", "stoppedByCancellation")
    closed = "completed" if has_result else None
    (line,) = job_tree([reader("solo", status=status, failure=failure, has_result=has_result, closed=closed)])
    assert line.startswith(f"{glyph} solo")
    assert line.rpartition("context 25%")[2].strip() == note


def test_a_run_that_was_ended_from_outside_is_shown_as_failed() -> None:
    (line,) = job_tree([reader("solo", status="proceeding", closed="terminated", has_result=False)])
    assert line.startswith("✗ solo")
    assert line.endswith("terminated from outside")


def test_a_long_error_is_cut() -> None:
    failure = Failure(name="x", message="y" * 1000)
    (line,) = job_tree([reader("solo", status="stoppedByError", failure=failure)])
    assert line.endswith("y…")
    assert len(line) < 300


def test_a_run_of_which_nothing_was_read_is_left_out() -> None:
    assert heads([reader("team"), RunReader(DataConverter.default)]) == ["✓ team"]
    assert job_tree([]) == []


def test_an_unknown_context_window_leaves_its_column_empty() -> None:
    (line,) = job_tree([reader("solo", fullness=None)])
    assert line.endswith("10 out")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", None, "no such encoding"])
def test_signs_become_ascii_where_the_stream_has_no_others(encoding: str | None) -> None:
    lines = job_tree(
        [reader("team"), reader("@team/a", ("1.0",)), reader("@team/b", ("1.1",), status="stoppedByError")]
    )
    shown = [fitting(line, encoding).partition(MODEL)[0].rstrip() for line in lines]
    assert shown == ["+ team", "| + @team/a", "` x @team/b"]


def test_signs_stay_where_the_stream_has_them() -> None:
    assert fitting("├ ✓ …", "utf-8") == "├ ✓ …"


def test_usage_is_told_in_thousands_and_without_a_cache_that_was_not_hit() -> None:
    assert usage_text(usage(267_712, 9_812, 168_400)) == "267.7k tokens in (168.4k cached), 9.8k out"
    assert usage_text(usage(999, 1)) == "999 tokens in, 1 out"
