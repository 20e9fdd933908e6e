"""The runs of a job as lines of text: who called whom, how it ended, what it cost."""

from collections.abc import Iterable, Iterator, Sequence

from ..core.graph import run_note
from ..core.run_view import Phase, RunView
from ..core.usage import Usage

_GLYPHS: dict[Phase, str] = {
    "completed": "✓",
    "failed": "✗",
    "stepLimit": "✗",
    "cancelled": "✗",
    "ended": "✗",
    "waitingForPerson": "⏸",
    "waitingForDelegates": "⏸",
}
_WORKING = "◦"
_DISPENSABLE = (4, 2, 1, 6)
"""Cells of a line that a narrow terminal does without, one after the other: cached tokens, steps, model, context."""


def job_tree(root: RunView, *, columns: int | None = None) -> list[str]:
    """One line per run of an execution, delegates below their caller; tokens are the run's own.

    Where a terminal has only so many columns, figures are left out; a note may go on in the next line.
    """
    rows = [
        (f"{lead}{_GLYPHS.get(run.phase, _WORKING)} {run.expert_key}", *_cells(run), run_note(run))
        for lead, run in _branches(root, "", "")
    ]
    return _aligned(rows if columns is None else _narrowed(rows, columns))


def usage_table(roots: Iterable[RunView]) -> list[str]:
    """One line per run of all executions, below the names of the columns."""
    rows = [["", "model", "steps", "in", "cached", "out", "context"]]
    for root in roots:
        for lead, run in _branches(root, "", ""):
            used, fullness = run.usage, run.context_window_usage
            tokens = [_count(used.input_tokens), _count(used.cached_input_tokens), _count(used.output_tokens)]
            full = "" if fullness is None else _share(fullness)
            rows.append([lead + run.expert_key, run.model, str(run.generations), *tokens, full])
    return _aligned([(*row, "") for row in rows])


def usage_text(usage: Usage) -> str:
    """Tokens for people."""
    cached = f" ({_count(usage.cached_input_tokens)} cached)" if usage.cached_input_tokens else ""
    return f"{_count(usage.input_tokens)} tokens in{cached}, {_count(usage.output_tokens)} out"


def _branches(run: RunView, lead: str, indent: str) -> Iterator[tuple[str, RunView]]:
    """A run and all below it, each with what is drawn before it."""
    yield lead, run
    for child in run.children:
        is_last = child is run.children[-1]
        below = indent + ("  " if is_last else "│ ")
        yield from _branches(child, indent + ("└ " if is_last else "├ "), below)


def _cells(run: RunView) -> tuple[str, ...]:
    used, fullness = run.usage, run.context_window_usage
    return (
        run.model,
        f"{run.generations} step{'' if run.generations == 1 else 's'}",
        f"{_count(used.input_tokens)} in",
        f"{_count(used.cached_input_tokens)} cached",
        f"{_count(used.output_tokens)} out",
        "" if fullness is None else f"context {_share(fullness)}",
    )


def _narrowed(rows: Sequence[tuple[str, ...]], columns: int) -> Sequence[tuple[str, ...]]:
    for place in _DISPENSABLE:
        if max(len(line) for line in _aligned([(*row[:-1], "") for row in rows])) <= columns:
            break
        rows = [(*row[:place], "", *row[place + 1 :]) for row in rows]
    return rows


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines: names to the left, numbers to the right, nothing for a column without any text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for head, model, *numbers, note in rows:
        cells = [head.ljust(widths[0]), model.ljust(widths[1])]
        cells += [number.rjust(width) for number, width in zip(numbers, widths[2:-1], strict=True)]
        lines.append("  ".join((*filter(len, cells), note)).rstrip())
    return lines


def _share(fraction: float) -> str:
    return "<1%" if 0 < fraction < 0.005 else f"{fraction:.0%}"


def _count(tokens: int) -> str:
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if tokens >= limit:
            return f"{tokens / limit:.1f}{unit}"
    return str(tokens)
