"""The steps of one run."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content

from ....core.run_view import RunView, StepView
from ...plain import one_line
from ..moments import duration, local, moment, tokens
from ..reading import Reading
from ..states import colour, dial, sign, words
from ..step_text import step_sign, step_text
from ..widgets.columns import Column, Columns
from ..widgets.rows import Row, TextRow
from .checkpoint import CheckpointScreen
from .fork import ForkScreen
from .listing import ListPage

_REFRESH_SECONDS = 0.25
_STYLES = {"✓": "$success", "✗": "$error", "⏸": "$warning", "⎇": "$primary", "↻": "$warning"}

_COLUMNS = Columns(
    Column("step", 4, is_right=True),
    Column("what it did"),
    Column("tokens", 6, is_right=True),
    Column("took", 7, is_right=True, from_width=60),
    Column("checkpoint", 24, from_width=100),
)


class StepsScreen(ListPage):
    """What a run did, step by step, with the checkpoint behind each."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f", "fork", "Fork"),
        Binding("y", "copy", "Copy id"),
    ]
    COLUMNS = _COLUMNS
    EMPTY = "It has finished no step yet."

    def __init__(self, reading: Reading, run: RunView, segment: str = "") -> None:
        super().__init__()
        self._reading, self._run = reading, run
        self._opening_segment = segment
        """Where the cursor stands first."""
        self._steps: dict[str, StepView] = {}
        self._shown = -1

    def on_mount(self) -> None:
        self._draw()
        first = (key for key, view in self._steps.items() if view.run_id == self._opening_segment)
        self.list.move_to(next(first, ""))
        self.set_interval(_REFRESH_SECONDS, self._draw)

    def details(self, row: Row | None) -> Content:
        view = self._steps.get(row.key) if row is not None else None
        if view is None:
            return Content()
        step = view.step
        used = [f"{tokens(step.usage.input_tokens)} in", f"{tokens(step.usage.output_tokens)} out"]
        if step.usage.cached_input_tokens:
            used.append(f"{tokens(step.usage.cached_input_tokens)} cached")
        if not step.usage.total_tokens:
            used = ["no model call"]
        began = moment(local(step.started_at / 1000), local(self.app.clock()))
        return self.detailed(used, step_text(view), (view.checkpoint.id, began))

    def choose(self, row: Row) -> None:
        self.app.push_screen(CheckpointScreen(self._reading, self._run, self._steps[row.key]))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self.backend.can_work if action == "fork" else super().check_action(action, parameters)

    def action_fork(self) -> None:
        if (view := self._view) is not None:
            job_id = self._reading.handle.job_id
            self.app.push_screen(ForkScreen(job_id, view.checkpoint, is_open=self._reading.is_open))

    def action_copy(self) -> None:
        if (view := self._view) is not None:
            self.app.copy_to_clipboard(view.checkpoint.id)
            self.app.say(f"copied {view.checkpoint.id}")

    @property
    def _view(self) -> StepView | None:
        row = self.list.row
        return self._steps.get(row.key) if row is not None else None

    def _draw(self) -> None:
        if self._shown == self._reading.revision:
            return
        self._shown = self._reading.revision
        run = self._run
        standing = Content.assemble((f"{sign(run)} {words(run)}", colour(run)))
        full = dial(run.context_window_usage)
        facts = [run.model, f"{tokens(run.usage.total_tokens)} tokens", *([f"context {full}"] if full else [])]
        self.entitle(
            Content.assemble((one_line(run.expert_key), "bold"), "  ", standing),
            Content.styled(" · ".join(facts), "dim"),
            Content.styled(one_line(run.query), "dim"),
        )
        self.show_rows(self._lines(), is_loading=not self._reading.is_done and not run.steps)

    def _lines(self) -> list[Row]:
        rows: list[Row] = []
        before: StepView | None = None
        for at, view in enumerate(self._run.steps):
            if before is not None and view.run_id != before.run_id:
                rows.append(_resumed(f"resumed-{at}"))
            key = f"{at}-{view.checkpoint.id}"
            self._steps[key] = view
            rows.append(self._row(key, view, before))
            before = view
        if self._run.is_working and not self._reading.stop:
            rows.append(self._open_row())
        return rows

    def _row(self, key: str, view: StepView, before: StepView | None) -> Row:
        text, mark, step = step_text(view), step_sign(view), view.step
        # A step that was stopped, and then cancelled, is told twice.
        is_same = before is not None and (before.run_id, before.step.step_number) == (view.run_id, step.step_number)
        used = "" if is_same or not step.usage.total_tokens else tokens(step.usage.total_tokens)
        since = step.started_at if before is None or not is_same else before.step.finished_at or step.started_at
        took = "" if step.finished_at is None else duration(step.finished_at - since)

        def line(width: int) -> Content:
            did = Content.assemble((mark, _STYLES.get(mark, "")), f" {text}")
            number = "" if is_same else str(step.step_number)
            return _COLUMNS.line(width, (number, did, used, took, Content.styled(view.checkpoint.id, "dim")))

        return TextRow(key, line, words=f"{step.step_number} {text} {view.checkpoint.id}")

    def _open_row(self) -> Row:
        run = self._run
        cells = (str(run.step_number), Content.assemble((f"{sign(run)} {words(run)}", colour(run))), "", "", "")
        return TextRow("open", lambda width: _COLUMNS.line(width, cells), words=words(run), can_stand=False)


def _resumed(key: str) -> Row:
    return TextRow(key, lambda width: Content.assemble(("      (resumed)", "dim")), can_stand=False)
