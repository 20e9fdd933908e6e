"""The runs of a job: who delegated to whom, who came back when, how each ended."""

import asyncio
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen

from ....core.failures import PerstackError
from ....core.graph import graph
from ....core.run_view import RunView
from ....core.usage import NO_USAGE, Usage
from ....core.view_state import ViewState
from ...plain import one_line
from ..backend import JobHandle
from ..moments import duration, local, moment, tokens
from ..reading import Reading
from ..states import colour, dial, sign, words
from ..widgets.graph import GraphDrawing
from ..widgets.rows import Row, TextRow
from .listing import ListPage
from .log import LogScreen
from .steps import StepsScreen

_REFRESH_SECONDS = 0.1


class RunsScreen(ListPage):
    """The graph of a job's runs, drawn while its events are read."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("o", "log", "Activity log"),
        Binding("r", "refresh", "Read again"),
        Binding("y", "copy", "Copy id"),
    ]
    EMPTY = "It has no run yet."

    def __init__(self, handle: JobHandle) -> None:
        super().__init__()
        self._reading = Reading(handle)
        self._runs: dict[str, tuple[RunView, str]] = {}
        """Runs and their segments, by the keys of the rows."""
        self._shown = -1
        self._cost = ""

    def on_mount(self) -> None:
        self._draw()
        self._read()
        self.set_interval(_REFRESH_SECONDS, self._draw)

    async def on_unmount(self) -> None:
        await self._reading.handle.close()

    def details(self, row: Row | None) -> Content:
        if row is None or row.key not in self._runs:
            return Content()
        run, _ = self._runs[row.key]
        end = run.ended_at or self._reading.view.last_at
        facts = [words(run), f"{tokens(run.usage.total_tokens)} tokens", duration(end - run.started_at)]
        if full := dial(run.context_window_usage):
            facts.append(f"context {full}")
        began = moment(local(run.started_at / 1000), local(self.app.clock()))
        return self.detailed(facts, run.query, (run.run_id, one_line(run.model), began))

    def choose(self, row: Row) -> None:
        run, segment = self._runs[row.key]
        self.app.push_screen(StepsScreen(self._reading, run, segment))

    def action_log(self) -> None:
        job_id = self._reading.handle.job_id

        async def opening() -> Screen[Any]:
            return LogScreen(await self.backend.read(job_id))

        self.enter("opening the activity log…", opening)

    def action_refresh(self) -> None:
        if self._reading.is_done:
            self._read_again()

    def action_copy(self) -> None:
        row = self.list.row
        if row is not None:
            run, _ = self._runs[row.key]
            self.app.copy_to_clipboard(run.run_id)
            self.app.say(f"copied {run.run_id}")

    @work(exclusive=True, group="read")
    async def _read(self) -> None:
        await self._reading.read()
        await self._price()

    @work(exclusive=True, group="read")
    async def _read_again(self) -> None:
        """What was read stays until all is read anew."""
        try:
            handle = await self.backend.read(self._reading.handle.job_id)
        except PerstackError as error:
            self.show_problem(error)
            return
        self.show_rows(self._rows, is_loading=True)
        fresh = Reading(handle)
        await fresh.read()
        before, self._reading = self._reading, fresh
        await before.handle.close()
        await self._price()

    async def _price(self) -> None:
        # The price list takes its time to load.
        reading = self._reading
        self._cost = await asyncio.to_thread(_cost_text, reading.handle, _used_by_model(reading.view))
        self._shown = -1

    def _draw(self) -> None:
        reading = self._reading
        if self._shown == reading.revision:
            return
        self._shown = reading.revision
        self._entitle(reading.view)
        self.show_rows(self._lines(reading.view), is_loading=not reading.is_done)
        self.show_problem(reading.problem)

    def _lines(self, view: ViewState) -> list[Row]:
        drawing = GraphDrawing(graph(view))
        runs: dict[str, tuple[RunView, str]] = {}
        rows: list[Row] = []
        for at, row in enumerate(drawing.rows):
            draw = partial(drawing.line, at)
            if row.run is None or row.segment is None:
                rows.append(TextRow(f"lanes-{at}", draw, can_stand=False))
                continue
            segment = row.segment.run_id
            # One that was ended while its delegates worked has two rows.
            key = segment if segment not in runs else f"{segment}-end"
            runs[key] = (row.run, segment)
            words = f"{row.head} {row.text} {row.run.run_id} {segment} {row.run.model}"
            rows.append(TextRow(key, draw, words=words))
        self._runs = runs
        return rows

    def _entitle(self, view: ViewState) -> None:
        root = view.root
        if root is None:
            self.entitle(Content.styled(one_line(self._reading.handle.job_id), "bold"))
            return
        usage = view.usage
        facts = [
            f"{len(view.runs)} run{'' if len(view.runs) == 1 else 's'}",
            f"{tokens(usage.input_tokens)} in",
            f"{tokens(usage.output_tokens)} out",
            *([self._cost] if self._cost else []),
            *([f"{tokens(usage.cached_input_tokens)} cached"] if usage.cached_input_tokens else []),
        ]
        self.entitle(
            Content.assemble(
                (one_line(root.expert_key), "bold"),
                (f"  {one_line(self._reading.handle.job_id)}  ", "dim"),
                (f"{sign(root)} {words(root)}", colour(root)),
            ),
            Content.styled(" · ".join(facts), "dim"),
        )


def _used_by_model(view: ViewState) -> dict[str, Usage]:
    """What the runs of a job used, by model."""
    used: dict[str, Usage] = {}
    for run in view.runs:
        used[run.model] = used.get(run.model, NO_USAGE) + run.usage
    return used


def _cost_text(handle: JobHandle, used: dict[str, Usage]) -> str:
    """By the providers' price lists; a price that nobody knows is never taken for nothing."""
    costs = {model: handle.cost(model, usage) for model, usage in used.items() if usage.total_tokens}
    known = [cost for cost in costs.values() if cost is not None]
    unknown = [one_line(model) for model, cost in costs.items() if cost is None]
    if not known:
        return "price unknown" if unknown else ""
    without = f" without {', '.join(unknown)}" if unknown else ""
    return f"about ${sum(known, Decimal(0)):.2f}{without}"
