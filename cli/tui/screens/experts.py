"""The experts that a job can be started with."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content

from ....core.failures import PerstackError
from ...plain import one_line
from ..backend import ExpertChoice
from ..widgets.columns import Column, Columns
from ..widgets.rows import Row, TextRow
from .base import Page
from .listing import ListPage
from .query import QueryScreen


class ExpertsScreen(ListPage):
    """The experts of the definition, and the built-in ones."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("h", "jobs", "Jobs"),
        Binding("tab", "jobs", "Jobs", show=False, priority=True),
    ]
    EMPTY = "There is no expert here."

    def __init__(self, jobs: Callable[[], Page[Any]]) -> None:
        super().__init__()
        self._jobs = jobs
        self._experts: dict[str, ExpertChoice] = {}
        self._columns = _columns(())

    def on_mount(self) -> None:
        self.entitle(Content.assemble(("Experts", "bold"), ("  Who shall do it?", "dim")))
        self.show_rows((), is_loading=True)
        self._load()

    @work
    async def _load(self) -> None:
        problem: PerstackError | None = None
        try:
            # A definition may lie behind an address.
            experts = await asyncio.to_thread(self.backend.experts)
        except PerstackError as error:
            problem, experts = error, self.backend.built_in_experts()
        self._experts = {expert.key: expert for expert in experts}
        self._columns = _columns(experts)
        self.show_rows([TextRow(key, self._drawing(one), words=_words(one)) for key, one in self._experts.items()])
        self.show_problem(problem)

    def details(self, row: Row | None) -> Content:
        expert = self._experts.get(row.key) if row is not None else None
        if expert is None:
            return Content()
        return Content(f"{one_line(expert.key)} · {one_line(expert.source)}\n{one_line(expert.description)}")

    def choose(self, row: Row) -> None:
        self.app.push_screen(QueryScreen(self._experts[row.key]))

    def action_jobs(self) -> None:
        self.become(self._jobs())

    def _drawing(self, expert: ExpertChoice) -> Callable[[int], Content]:
        cells = (one_line(expert.key), one_line(expert.description), one_line(expert.source))
        return lambda width: self._columns.line(width, cells)


def _columns(experts: Sequence[ExpertChoice]) -> Columns:
    longest = max((Content(one_line(expert.key)).cell_length for expert in experts), default=8)
    source = max((len(expert.source) for expert in experts), default=8)
    return Columns(
        Column("expert", min(longest, 24), narrow_width=min(longest, 14)),
        Column("description"),
        Column("from", min(source, 20), from_width=60),
    )


def _words(expert: ExpertChoice) -> str:
    return f"{expert.key} {expert.description} {expert.source}"
