"""The graph of a job: one row for each segment of each run, lanes for delegates, as version control draws branches."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from .run_view import RunView, Segment
from .tools import ToolCall
from .view_state import ViewState

Mark = Literal["⎇", "✓", "✗", "⏸", "◦"]
_MAX_FAILURE = 160
_LEAST_COLUMN = 20
"""Where less is left for the texts, they do not begin below each other."""
_LEAST_TEXT = 4
"""Fewer characters say nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the graph; without a mark, lanes open or close in it."""

    lanes: tuple[str, ...]
    """One sign for each column: the mark, `|`, `\\` where a lane opens, `/` where it closes, or a space."""
    mark: Mark | None = None
    run: RunView | None = None
    segment: Segment | None = None
    """Absent in the line that says where an execution comes from."""
    is_resumed: bool = False
    """Whether the run goes on here after a stop."""
    flag: str = ""
    """How it goes on, in a word: resumed, continued, from step 3."""
    text: str = ""
    """What became of it where all is not well, and its query."""
    origin: str = ""
    """Where an execution comes from, where it does not just go on."""

    @property
    def head(self) -> str:
        """Whose row it is."""
        if self.origin:
            return self.origin
        name = self.run.expert_key if self.run is not None else ""
        return f"{name} ({self.flag})" if self.flag else name


def graph(view: ViewState) -> list[Row]:
    """All executions of a job from top to bottom; in each, segments in the order in which they began."""
    rows: list[Row] = []
    for root in view.roots:
        rows.extend((*_origin(root), *_Drawing(view, root).rows()))
    return rows


def graph_lines(rows: Sequence[Row], width: int) -> list[str]:
    """The graph as lines of at most `width` characters: lanes, whose, what."""
    lanes = lane_texts(rows, width // 3)
    heads = [row.head for row in rows]
    named = [head for row, head in zip(rows, heads, strict=True) if not row.origin]
    widest = max(map(len, named), default=0)
    if width - max(map(len, lanes), default=0) - widest - 3 < _LEAST_COLUMN:
        widest = 0
    lines: list[str] = []
    for row, lane, head in zip(rows, lanes, heads, strict=True):
        line = f"{lane} {head.ljust(widest)}  " if row.text and not row.origin else f"{lane} {head}"
        left = width - len(line)
        text = shortened(row.text, left) if left >= _LEAST_TEXT else ""
        lines.append(shortened((line + text).rstrip(), width))
    return lines


def lane_texts(rows: Sequence[Row], limit: int) -> list[str]:
    """The lanes of each row, all equally long: close together, then cut, where they would take more than `limit`."""
    columns = max((len(row.lanes) for row in rows), default=0)
    gap = " " if 2 * columns - 1 <= limit else ""
    shown = columns if gap else min(columns, max(limit, 1))
    return [gap.join(_cut(row, shown)).ljust(shown + (shown - 1) * len(gap)) for row in rows]


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` cells of a terminal."""
    if sum(map(_cells, text)) <= width:
        return text
    left, shown = width - 1, ""
    for sign in text:
        left -= _cells(sign)
        if left < 0:
            break
        shown += sign
    return f"{shown.rstrip()}…" if width > 0 else ""


def run_note(run: RunView) -> str:
    """Why a run has not completed; empty for one that has, or that works."""
    match run.phase:
        case "failed" if run.failure is not None:
            first = _one_line(run.failure.message.partition("\n")[0])
            return shortened(f"{run.failure.name}: {first}", _MAX_FAILURE)
        case "stepLimit":
            return f"reached its limit of {run.max_steps} steps"
        case "cancelled":
            return "cancelled"
        case "ended":
            return f"{run.closed} from outside"
        case "waitingForPerson":
            return "waits for a person"
        case "waitingForDelegates":
            return "waits for delegates"
        case _:
            return ""


def origin_text(root: RunView) -> str:
    """Where an execution comes from; empty where it begins at nothing, or goes on where the job had come to."""
    chain = [root]
    while len(below := [child for child in chain[-1].children if child.has_past]) == 1:
        chain += below
    last = chain[-1]
    if not root.has_past or all(run.past is not None and run.past.is_end for run in chain):
        return ""
    if last.past is None:
        return "from another job"
    job = f" of job {last.past.job_id}" if last.past.job_id is not None else ""
    expert = f" ({last.expert_key})" if last is not root else ""
    checkpoint = f", checkpoint {last.past.checkpoint_id}" if last.past.checkpoint_id is not None else ""
    return f"from step {last.past.step_number}{job}{expert}{checkpoint}"


def _origin(root: RunView) -> Iterator[Row]:
    text = origin_text(root)
    if text:
        yield Row(("⎇",), "⎇", root, origin=text)


class _Drawing:
    """The rows of one execution."""

    def __init__(self, view: ViewState, root: RunView) -> None:
        self._below: dict[str, list[RunView]] = {}
        """By segment, the delegates that it called."""
        self._runs = [run for run, _ in view.tree(root)]
        for run in self._runs:
            if run.caller is not None:
                self._below.setdefault(run.caller, []).append(run)
        self._owners = {segment.run_id: (run, segment) for run in self._runs for segment in run.segments}
        self._began: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._columns: dict[str, int] = {}
        self._width = self._place(root, 0)
        self._open: set[int] = {0}

    def rows(self) -> Iterator[Row]:
        """From top to bottom."""
        for run, segment, is_end in self._moments():
            before = _before(run, segment)
            closing = segment if is_end else before
            if closing is not None and closing.run_id in self._below:
                yield self._joint(closing, "/")
            yield self._row(run, segment, is_end=is_end)
            if not is_end and segment.run_id in self._below:
                yield self._joint(segment, "\\")

    def _place(self, run: RunView, column: int) -> int:
        """Give a run its column and those below it theirs, right of it; the first column that is free behind them."""
        self._columns[run.run_id] = column
        widest = column + 1
        for segment in run.segments:
            following = column + 1
            for child in self._below.get(segment.run_id, ()):
                following = self._place(child, following)
            widest = max(widest, following)
        return widest

    def _moments(self) -> list[tuple[RunView, Segment, bool]]:
        """Beginnings of segments in their order, and ends of those that were ended while their delegates worked."""
        told = sorted(
            ((segment, run) for run in self._runs for segment in run.segments), key=lambda pair: pair[0].place
        )
        found: list[tuple[int, int, bool, RunView, Segment]] = []
        for segment, run in told:
            found.append((self._beginning(run, segment), segment.place, False, run, segment))
        for segment, run in told:
            if _is_cut_off(segment):
                found.append((self._last(run, segment), segment.place, True, run, segment))
        found.sort(key=lambda moment: moment[:2])
        return [(run, segment, is_end) for _, _, is_end, run, segment in found]

    def _beginning(self, run: RunView, segment: Segment) -> int:
        """When a segment began, in microseconds.

        The clocks of a cluster do not quite agree: it began after what it comes from, and delegates called at once in
        the order of their calls.
        """
        known = self._began.get(segment.run_id)
        if known is not None:
            return known
        before = _before(run, segment)
        siblings = self._below.get(run.caller or "", [run])
        place = siblings.index(run)
        if before is not None:
            cause = self._last(run, before)
        elif place:
            cause = self._beginning(siblings[place - 1], siblings[place - 1].segments[0])
        elif run.caller in self._owners:
            cause = self._beginning(*self._owners[run.caller])
        else:
            cause = 0
        at = self._began[segment.run_id] = max(segment.started_at * 1000, cause + 1)
        return at

    def _last(self, run: RunView, segment: Segment) -> int:
        """When the last of all in a segment and below it happened, as far as it has a row."""
        known = self._ended.get(segment.run_id)
        if known is None:
            below = ((child, one) for child in self._below.get(segment.run_id, ()) for one in child.segments)
            known = max((self._last(*one) for one in below), default=0)
            known = max(known, self._beginning(run, segment))
            if _is_cut_off(segment):
                known = max((segment.ended_at or 0) * 1000, known + 1)
            self._ended[segment.run_id] = known
        return known

    def _row(self, run: RunView, segment: Segment, *, is_end: bool) -> Row:
        mark = _mark(run, segment) if is_end or not _is_cut_off(segment) else "⎇"
        lanes = self._lanes({self._columns[run.run_id]: mark})
        is_first = segment is run.segments[0]
        flag = "" if is_end else _flag(run) if is_first else "resumed"
        note = "" if mark == "⎇" else _segment_note(run, segment)
        query = "" if is_end or (note and not is_first) else _one_line(run.query)
        text = " · ".join(filter(None, (note, query)))
        return Row(lanes, mark, run, segment, is_resumed=flag == "resumed", flag=flag, text=text)

    def _joint(self, segment: Segment, sign: str) -> Row:
        """The line in which the lanes of the delegates of a segment open or close."""
        columns = {self._columns[child.run_id] for child in self._below[segment.run_id]}
        lanes = self._lanes(dict.fromkeys(columns, sign))
        self._open = self._open | columns if sign == "\\" else self._open - columns
        return Row(lanes)

    def _lanes(self, signs: dict[int, str]) -> tuple[str, ...]:
        return tuple(signs.get(at, "|" if at in self._open else " ") for at in range(self._width))


def _before(run: RunView, segment: Segment) -> Segment | None:
    place = run.segments.index(segment)
    return run.segments[place - 1] if place else None


def _is_cut_off(segment: Segment) -> bool:
    """Whether it was ended while its delegates worked."""
    return bool(segment.delegations) and segment.phase != "waitingForDelegates"


def _mark(run: RunView, segment: Segment) -> Mark:
    match segment.phase:
        case "completed":
            return "✓"
        case "failed" | "stepLimit" | "cancelled" | "ended":
            return "✗"
        case "waitingForPerson":
            return "⏸"
        case "waitingForDelegates":
            return "⏸" if segment is run.segments[-1] else "⎇"
        case _:
            return "◦"


def _flag(run: RunView) -> str:
    """How the first segment of a run goes on from an earlier execution."""
    if run.past is None:
        return ""
    if run.past.is_end:
        return "continued" if run.has_query else "resumed"
    return f"from step {run.past.step_number}"


def _segment_note(run: RunView, segment: Segment) -> str:
    if segment is not run.segments[-1]:
        return "asked a person" if segment.phase == "waitingForPerson" else ""
    note = run_note(run)
    question = _question(run.questions)
    return f"{note}: {question}" if question else note


def _question(calls: Iterable[ToolCall]) -> str:
    """The first words of what a person is asked; of a question without words, the name of the tool."""
    for call in calls:
        texts = (_one_line(value) for value in call.args.values() if isinstance(value, str))
        return next(filter(None, texts), call.tool_name)
    return ""


def _cut(row: Row, shown: int) -> list[str]:
    """The first columns; what lies right of them is drawn in the last one."""
    if len(row.lanes) <= shown:
        return list(row.lanes)
    rest = row.lanes[shown - 1 :]
    marks = [sign for sign in rest if sign not in " |"]
    return [*row.lanes[: shown - 1], marks[0] if marks else "|" if "|" in rest else " "]


def _one_line(text: str) -> str:
    """`text` in one line, with nothing in it that steers a terminal."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _cells(sign: str) -> int:
    """How many cells of a terminal a character takes."""
    if unicodedata.combining(sign):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1
