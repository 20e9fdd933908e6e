"""The delegation tree: one line for each run, what it does, and whose log is shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from textual.content import Content

from ....core.view_state import RunView, ViewState
from ...plain import one_line
from ..states import colour, dial, sign, words
from .rows import RowList, TextRow

LEAST_ROOM = 12
"""Lines that a tree may have in any terminal; it scrolls where it gets fewer."""
_LEAST_FOLDED = 3
_SHOWN = "▸"
"""The run whose log is shown."""
_WITH_MODEL = 72
"""Cells from which on there is room for the models."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One line of the tree: a run, or several completed ones side by side."""

    lead: str
    runs: tuple[RunView, ...]
    key: str

    @property
    def run(self) -> RunView | None:
        """The run of a line for one."""
        return self.runs[0] if len(self.runs) == 1 else None


def branches(view: ViewState, room: int, unfolded: frozenset[str] = frozenset()) -> list[Branch]:
    """The runs of all executions, the newest last; with more than `room` lines, less of what is over and done with."""
    whole = [branch for root in view.roots for branch in _whole(root, None)]
    if len(whole) <= room or view.root is None:
        return whole
    earlier = list(_folded(view.roots[:-1], "earlier", unfolded))
    newest = list(_whole(view.root, None))
    if len(earlier) + len(newest) > room:
        newest = list(_whole(view.root, unfolded))
    return [*earlier, *newest]


def _whole(root: RunView, unfolded: frozenset[str] | None) -> Iterator[Branch]:
    yield Branch("", (root,), root.run_id)
    yield from _below(root, "", unfolded)


def _below(run: RunView, indent: str, unfolded: frozenset[str] | None) -> Iterator[Branch]:
    groups = [Branch("", (child,), child.run_id) for child in run.children]
    if unfolded is not None:
        groups = list(_folded(run.children, run.run_id, unfolded))
    for group in groups:
        is_last = group is groups[-1]
        yield Branch(f"{indent}{'└' if is_last else '├'} ", group.runs, group.key)
        if group.run is not None:
            yield from _below(group.run, indent + ("  " if is_last else "│ "), unfolded)


def _folded(runs: Sequence[RunView], place: str, unfolded: frozenset[str]) -> Iterator[Branch]:
    """The runs, with neighbours that completed in one line."""
    gathered: list[RunView] = []

    def told() -> Iterator[Branch]:
        key = f"{place}:{gathered[0].run_id}" if gathered else ""
        if len(gathered) >= _LEAST_FOLDED and key not in unfolded:
            yield Branch("", tuple(gathered), key)
        else:
            yield from (Branch("", (run,), run.run_id) for run in gathered)
        gathered.clear()

    for run in runs:
        if run.phase == "completed" and all(child.has_ended for child in run.children):
            gathered.append(run)
            continue
        yield from told()
        yield Branch("", (run,), run.run_id)
    yield from told()


@dataclass
class _Look:
    """What all lines of one picture have in common."""

    frame: int | None = None
    shown: RunView | None = None
    heads: int = 0
    models: int = 0
    dials: int = 0
    lines: list[Branch] = field(default_factory=list[Branch])


class RunTree(RowList):
    """The runs of a job; Enter or a click on a line chooses the run, or unfolds the line."""

    DEFAULT_CSS = """
    RunTree {
        height: 1;
        max-height: 33%;
    }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._look = _Look()
        self._unfolded: frozenset[str] = frozenset()
        self._view = ViewState()
        self._root: str | None = None
        """Of the newest execution: a new one gets the cursor, and so comes into view."""

    @property
    def is_moving(self) -> bool:
        """Whether something in it works, so that its sign turns."""
        return any(run.is_working for branch in self._look.lines for run in branch.runs)

    def show(self, view: ViewState, shown: RunView | None) -> None:
        """Show a job; `shown` is the run that the log is filtered by."""
        self._view = view
        lines = branches(view, max(LEAST_ROOM, self.screen.size.height // 3), self._unfolded)
        look = self._look
        look.lines, look.shown = lines, shown
        runs = [branch.run for branch in lines if branch.run is not None]
        look.heads = max((len(branch.lead) + 2 + len(_name(branch)) for branch in lines), default=0)
        look.models = max((len(one_line(run.model)) for run in runs), default=0)
        look.dials = max((len(dial(run.context_window_usage)) for run in runs), default=0)
        # A scrolling widget of automatic height would keep a line for a scroll bar.
        self.styles.height = max(1, len(lines))
        root = view.root.run_id if view.root else None
        is_new = root != self._root and not self.has_focus
        self._root = root
        rows = [TextRow(branch.key, partial(self._line, branch)) for branch in lines]
        self.fill(rows, key=root if is_new else None)

    def turn(self, frame: int | None) -> None:
        """Draw the signs of working runs anew."""
        self._look.frame = frame
        self.refresh()

    def run_at(self, key: str) -> RunView | None:
        """The run of a line; a line of several is unfolded instead, or folded again."""
        branch = next((branch for branch in self._look.lines if branch.key == key), None)
        if branch is None or branch.run is not None:
            return branch.run if branch else None
        self._unfolded = self._unfolded | {key}
        self.show(self._view, self._look.shown)
        return None

    def _line(self, branch: Branch, width: int) -> Content:
        look, run = self._look, branch.run
        heads = min(look.heads, max(16, width * 2 // 5))
        is_earlier = self._view.root is not None and branch.runs[0].started_at < self._view.root.started_at
        if run is None:
            mark = Content.assemble(branch.lead, ("✓", "$success"), f" {_name(branch)}")
            return mark.truncate(width, ellipsis=True)
        is_shown = run is look.shown
        name = _name(branch)
        room = heads - len(branch.lead) - 2
        if len(name) > room and "/" in name:
            name = name[name.rindex("/") :]  # a delegate is known by its place in the tree
        head = Content.assemble(
            branch.lead,
            (sign(run, look.frame), colour(run)),
            _SHOWN if is_shown else " ",
            (name, "bold reverse" if is_shown else "bold" if not branch.lead else ""),
        )
        parts = [head.truncate(heads, ellipsis=True, pad=True)]
        if width >= _WITH_MODEL:
            parts.append(Content.styled(one_line(run.model).ljust(look.models), "dim"))
        if look.dials:
            parts.append(Content(dial(run.context_window_usage).ljust(look.dials)))
        gap = "  " if width >= _WITH_MODEL else " "
        room = width - sum(part.cell_length + len(gap) for part in parts)
        parts.append(Content.styled(words(run, room), colour(run) if run.phase != "completed" else "dim"))
        line = Content(gap).join(parts).truncate(width, ellipsis=True)
        return line.stylize_before("dim") if is_earlier else line


def _name(branch: Branch) -> str:
    if branch.run is None:
        return f"{len(branch.runs)} completed"
    return one_line(branch.run.expert_key)
