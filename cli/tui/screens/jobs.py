"""The jobs of the server."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, ClassVar, Literal

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer

from ....core.failures import PerstackError
from ...plain import one_line
from ..backend import JobChoice
from ..moments import duration, local, moment, tokens
from ..statuses import status_standing
from ..widgets.columns import NARROW, Column, Columns
from ..widgets.rows import Row, TextRow
from .base import Page
from .listing import ListPage
from .run import RunScreen
from .runs import RunsScreen

_TAKE = 200
"""The list is read again all the time; who looks for an older job names it, or lists more."""
_REFRESH_SECONDS = 3.0
_PAUSES = 10
"""How many times as long as the list took to read it is left alone."""

_MORE = TextRow(
    "more",
    lambda _: Content.styled(f"… more than these {_TAKE}: perstack jobs --take 1000 · / searches only these", "dim"),
    can_stand=False,
)

_COLUMNS = Columns(
    Column("status", 12, narrow_width=1),
    Column("expert", 14, narrow_width=10),
    Column("query"),
    Column("steps", 5, from_width=100, is_right=True),
    Column("tokens", 7, from_width=100, is_right=True),
    Column("started", 12, from_width=60),
)


class JobsScreen(ListPage):
    """The jobs of the server, open ones first; of `start` to work on, of `log` to look into."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "experts", "New"),
        Binding("tab", "experts", "New", show=False, priority=True),
        Binding("r", "refresh", "Refresh"),
    ]
    COLUMNS = _COLUMNS
    EMPTY = "There is no job yet."

    def __init__(self, purpose: Literal["start", "log"], experts: Callable[[], Page[Any]] | None = None) -> None:
        super().__init__()
        self._purpose = purpose
        self._experts = experts
        self._jobs: dict[str, JobChoice] = {}
        self._timer: Timer | None = None

    def on_mount(self) -> None:
        self.entitle(Content.assemble(("Jobs", "bold"), (f"  {one_line(self.backend.place)}", "dim")))
        self.show_rows((), is_loading=True)
        self._load()

    def on_screen_resume(self) -> None:
        if self._timer is not None:
            self._load()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return self._experts is not None if action == "experts" else super().check_action(action, parameters)

    def action_experts(self) -> None:
        if self._experts is not None:
            self.become(self._experts())

    def action_refresh(self) -> None:
        self._load()

    def details(self, row: Row | None) -> Content:
        job = self._jobs.get(row.key) if row is not None else None
        if job is None:
            return Content()
        facts = [status_standing(job.status).word]
        if job.steps is not None:
            facts.append(f"{job.steps} step{'' if job.steps == 1 else 's'}")
        if job.tokens is not None:
            facts.append(f"{tokens(job.tokens)} tokens")
        if job.closed_at is not None:
            facts.append(duration(round((job.closed_at - job.started_at).total_seconds() * 1000)))
        return self.detailed(facts, job.query, (job.job_id, moment(job.started_at, self._present)))

    def choose(self, row: Row) -> None:
        job_id = row.key

        async def opening() -> Screen[Any]:
            if self._purpose == "start":
                return RunScreen(await self.backend.open(job_id))
            return RunsScreen(await self.backend.read(job_id))

        self.enter(f"opening {one_line(job_id)}…", opening)

    @property
    def _present(self) -> datetime:
        return local(self.app.clock())

    def _refresh_shown(self) -> None:
        # Otherwise the list is read when it is seen again.
        if self.is_active:
            self._load()

    @work(exclusive=True, group="load")
    async def _load(self) -> None:
        since = time.monotonic()
        try:
            jobs = await self.backend.jobs(_TAKE + 1)
        except PerstackError as error:
            self.show_rows(self._rows, end=self._end)
            self.show_problem(error)
        else:
            shown = jobs[:_TAKE]
            self._jobs = {job.job_id: job for job in shown}
            self.show_rows(self._lines(shown), end=_MORE if len(jobs) > _TAKE else None)
            self.show_problem(None)
        if self._timer is not None:
            self._timer.stop()
        # A server that needs long for the list is not asked all the time.
        pause = max(_REFRESH_SECONDS, _PAUSES * (time.monotonic() - since))
        self._timer = self.set_timer(pause, self._refresh_shown)

    def _lines(self, jobs: Sequence[JobChoice]) -> list[Row]:
        return [TextRow(job.job_id, lambda width, job=job: self._line(width, job), words=_words(job)) for job in jobs]

    def _line(self, width: int, job: JobChoice) -> Content:
        standing = status_standing(job.status)
        return _COLUMNS.line(
            width,
            (
                Content.styled(standing.sign if width < NARROW else f"{standing.sign} {standing.word}", standing.style),
                one_line(job.expert_key),
                one_line(job.query),
                "" if job.steps is None else str(job.steps),
                "" if job.tokens is None else tokens(job.tokens),
                moment(job.started_at, self._present),
            ),
        )


def _words(job: JobChoice) -> str:
    standing = status_standing(job.status)
    return f"{job.job_id} {job.expert_key} {standing.word} {job.status} {job.query}"
