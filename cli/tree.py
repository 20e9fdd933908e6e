"""The runs of a job as lines of text: who called whom, how it ended, what it cost."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..core.checkpoint import CheckpointStatus
from ..core.usage import NO_USAGE, Usage

if TYPE_CHECKING:
    from ..client.history import RunReader
    from ..core.expert import ModelChoice
    from ..core.fold import Fold
    from ..core.seed import Seed

_GLYPHS: dict[CheckpointStatus, str] = {
    "completed": "✓",
    "stoppedByError": "✗",
    "stoppedByExceededMaxSteps": "✗",
    "stoppedByCancellation": "✗",
    "stoppedByInteractiveTool": "⏸",
    "stoppedByDelegate": "⏸",
}
_RUNNING = "◦"
_ASCII = str.maketrans(
    {
        "✓": "+",
        "✗": "x",
        "⏸": "=",
        "◦": "o",
        "⎇": "<",
        "├": "|",
        "└": "`",
        "│": "|",
        "─": "-",
        "·": "-",
        "–": "-",
        "…": "~",
    }
)
_MAX_ERROR = 160

Path = tuple[str, ...]
Runs = dict[Path, tuple["RunReader", "Fold"]]
"""By the calls from the root down."""


def job_tree(readers: "Iterable[RunReader]") -> list[str]:
    """One line per run, delegates below their caller in the order of its calls; tokens are the run's own."""
    runs = _by_path(readers)
    children: dict[Path, list[Path]] = {path: [] for path in runs}
    for path in sorted(runs, key=_place):
        if path and path[:-1] in children:
            children[path[:-1]].append(path)
    own = _own_usages(runs)
    rows: list[tuple[str, ...]] = []

    def visit(path: Path, lead: str, indent: str) -> None:
        reader, fold = runs[path]
        rows.append((f"{lead}{_glyph(reader, fold)} {fold.start.expert_key}", *_cells(reader, fold, own[path])))
        for child in children[path]:
            is_last = child == children[path][-1]
            visit(child, indent + ("└ " if is_last else "├ "), indent + ("  " if is_last else "│ "))

    for root in (path for path in runs if path[:-1] not in children or not path):
        visit(root, "", "")
    return _aligned(rows)


def origin_line(tree: "Iterable[RunReader]") -> str | None:
    """Where an execution of a job comes from; nothing for one that began at nothing."""
    root = next(iter(tree))
    seed = root.first_start.seed if root.first_start else None
    if seed is None or root.first_start is None:
        return None
    origin = seed.origin
    other = f" of job {origin.job_id}" if origin.job_id != root.first_start.job_id else ""
    below = _deepest(seed)
    expert = f" ({below.checkpoint.expert.key})" if below is not seed else ""
    return f"⎇ from step {below.origin.step_number}{other}{expert}, checkpoint {below.origin.checkpoint_id}"


def own_usages(trees: "Iterable[Iterable[RunReader]]") -> Iterator[tuple["ModelChoice", Usage]]:
    """What each run of all executions used itself, with its model."""
    for tree in trees:
        runs = _by_path(tree)
        for path, own in _own_usages(runs).items():
            yield runs[path][1].start.expert.model, own


def _deepest(seed: "Seed") -> "Seed":
    """The checkpoint that was chosen, where it was a delegate's."""
    while len(seed.delegates) == 1:
        (seed,) = seed.delegates.values()
    return seed


def usage_text(usage: Usage) -> str:
    """Tokens for people."""
    cached = f" ({_count(usage.cached_input_tokens)} cached)" if usage.cached_input_tokens else ""
    return f"{_count(usage.input_tokens)} tokens in{cached}, {_count(usage.output_tokens)} out"


def fitting(text: str, encoding: str | None) -> str:
    """`text` as it is, or its signs in ASCII where `encoding` does not have them."""
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return text.translate(_ASCII)
    return text


def _place(path: Path) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, re.findall(r"\d+", part))) for part in path)


def _glyph(reader: "RunReader", fold: "Fold") -> str:
    if fold.state.result is None and reader.closed is not None:
        return "✗"
    return _GLYPHS.get(fold.state.checkpoint.status, _RUNNING)


def _cells(reader: "RunReader", fold: "Fold", own: Usage) -> tuple[str, ...]:
    state = fold.state
    made = state.generations - state.earlier_generations
    fullness = state.checkpoint.context_window_usage
    return (
        fold.start.expert.model.model,
        f"{made} step{'' if made == 1 else 's'}",
        f"{_count(own.input_tokens)} in",
        f"{_count(own.cached_input_tokens)} cached",
        f"{_count(own.output_tokens)} out",
        "" if fullness is None else f"context {_share(fullness)}",
        _note(reader, fold),
    )


def _by_path(readers: "Iterable[RunReader]") -> Runs:
    return {reader.fold.start.path: (reader, reader.fold) for reader in readers if reader.fold is not None}


def _own_usages(runs: Runs) -> dict[Path, Usage]:
    """What each run used itself: its checkpoint counts the delegates that reported and what it goes on from."""
    delegates = dict.fromkeys(runs, NO_USAGE)
    for path, (reader, fold) in runs.items():
        if path and path[:-1] in delegates and reader.has_reported:
            delegates[path[:-1]] += fold.state.checkpoint.usage
    for path, (reader, _) in runs.items():
        if reader.first_start is not None and reader.first_start.seed is not None:
            delegates[path] += reader.first_start.seed.checkpoint.usage
    return {path: less(fold.state.checkpoint.usage, delegates[path]) for path, (_, fold) in runs.items()}


def less(total: Usage, part: Usage) -> Usage:
    """The tokens of `total` without those of `part`."""
    return Usage(
        input_tokens=max(0, total.input_tokens - part.input_tokens),
        output_tokens=max(0, total.output_tokens - part.output_tokens),
        cached_input_tokens=max(0, total.cached_input_tokens - part.cached_input_tokens),
    )


def _note(reader: "RunReader", fold: "Fold") -> str:
    """Why a run did not complete; empty for one that did or still works."""
    result = fold.state.result
    if result is None and reader.closed is not None:
        return f"{reader.closed} from outside"
    if result is not None and result.failure is not None:
        first = result.failure.message.partition("\n")[0]
        text = f"{result.failure.name}: {first}"
        return text if len(text) <= _MAX_ERROR else f"{text[:_MAX_ERROR]}…"
    match fold.state.checkpoint.status:
        case "stoppedByExceededMaxSteps":
            return f"reached its limit of {fold.start.settings.limits.max_steps} steps"
        case "stoppedByCancellation":
            return "cancelled"
        case "stoppedByInteractiveTool":
            return "waits for a person"
        case "stoppedByDelegate":
            return "waits for delegates"
        case _:
            return ""


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines: list[str] = []
    for head, model, *numbers, note in rows:
        cells = [head.ljust(widths[0]), model.ljust(widths[1])]
        cells += [number.rjust(width) for number, width in zip(numbers, widths[2:-1], strict=True)]
        lines.append("  ".join((*cells, note)).rstrip())
    return lines


def _share(fraction: float) -> str:
    return "<1%" if 0 < fraction < 0.005 else f"{fraction:.0%}"


def _count(tokens: int) -> str:
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if tokens >= limit:
            return f"{tokens / limit:.1f}{unit}"
    return str(tokens)
