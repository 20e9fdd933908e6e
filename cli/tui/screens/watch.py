"""One job as it is watched: its log, what the models say, its figures, its runs, its questions."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal

from textual import work
from textual.app import ComposeResult
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from ....core.events import Event, InitializeRuntime
from ....core.failures import PerstackError
from ....core.tools import ToolCall
from ....core.usage import Usage
from ....core.view_state import RunView, ViewState
from ...plain import plain
from ..backend import Ended, JobHandle, Stop
from ..widgets.activities import activity_widget
from ..widgets.follow_up import FollowUp
from ..widgets.keys import KeyBar
from ..widgets.live import LivePane
from ..widgets.log import LogPane, LogScroll
from ..widgets.prompt import Prompt
from ..widgets.questions import QuestionsPane
from ..widgets.rows import RowList
from ..widgets.status import StatusPane
from ..widgets.tree import RunTree
from .base import Page

DRAW_SECONDS = 0.08
"""Between two pictures: what happens meanwhile is drawn at once."""
TURN_SECONDS = 0.12
_READ_SECONDS = 0.02
"""Events that are there already are taken for so long before the screen gets its turn."""
_STOPS = "LogScroll, RunTree, Prompt"
"""Where Tab goes; the entries of the log have keys of their own."""


class WatchScreen(Page[None]):
    """Follows a job and shows what happens in it; what can be done to the job is for the screens of this kind."""

    CSS_PATH = "run.tcss"
    AUTO_FOCUS = "LogScroll"

    def __init__(self, handle: JobHandle) -> None:
        super().__init__()
        self.handle = handle
        self.view = ViewState()
        self.stop: Stop | None = None
        """How the job stands; `None` while it works."""
        self.shown: RunView | None = None
        """The run that the log is filtered by."""
        self._problem: PerstackError | None = None
        self.news = asyncio.Event()
        """Set for a moment when something happens."""
        self._has_changed = True
        self._is_drawing = False
        self._second = -1
        self._frame = 0
        self._cost: Decimal | None = None
        self._has_new_cost = False
        self._priced: Usage | None = None
        """What the cost is of."""

    def compose(self) -> ComposeResult:
        yield Static(id="problem", markup=False)
        yield LogPane(activity_widget)
        yield LivePane()
        yield StatusPane()
        yield RunTree()
        yield QuestionsPane()
        yield FollowUp()
        yield KeyBar()

    async def on_mount(self) -> None:
        await self.query_one(LogPane).show(self.view.log)
        self._follow()
        self.set_interval(DRAW_SECONDS, self._look)
        self.set_interval(TURN_SECONDS, self._turn)

    # What happens

    @work(group="follow", exclusive=True)
    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            async for item in self.handle.events():
                self.take(item)
                if loop.time() - since > _READ_SECONDS:
                    await asyncio.sleep(0)
                    since = loop.time()
        except PerstackError as problem:
            self._problem = problem
            self._has_changed = True

    def take(self, item: Event | Ended | Stop) -> None:
        """The next thing that happened."""
        match item:
            case Stop():
                self.stop = item
            case Ended(run_id=run_id, closed=closed, at=at):
                self.view.end_from_outside(run_id, closed, at)
            case _:
                if isinstance(item, InitializeRuntime):
                    self.stop = None
                self.view.feed(item)
        self._has_changed = True
        self.news.set()
        self.news.clear()

    # What is shown

    def _look(self) -> None:
        """Ask for a new picture where there is something new."""
        is_ticking = self.stop is None and int(self.app.clock()) != self._second
        if not self._is_drawing and (self._has_changed or is_ticking or self._has_new_cost):
            # Not here: a timer ends when the screen does, and would take the widgets with it that it waits for.
            self._is_drawing = True
            self.call_next(self._draw)

    async def _draw(self) -> None:
        self._is_drawing = False
        now = int(self.app.clock() * 1000)
        if self._has_changed:
            self._has_changed = False
            await self._draw_change()
        self._second, self._has_new_cost = now // 1000, False
        self.query_one(StatusPane).show(self.view, now, self.handle.provider, self._cost)

    async def _draw_change(self) -> None:
        await self.query_one(LogPane).grow()
        runs = [self.shown] if self.shown else self.view.runs
        self.query_one(LivePane).show([run for run in runs if run.is_working], max(2, self.size.height // 4))
        self.query_one(RunTree).show(self.view, self.shown)
        await self.query_one(QuestionsPane).show(self._open_questions(), takes_focus=self.takes_text)
        self.query_one(FollowUp).show(self.stop, takes_focus=self.takes_text)
        self._draw_problem()
        self._price()
        self.refresh_bindings()

    def _draw_problem(self) -> None:
        banner, problem = self.query_one("#problem", Static), self._problem
        banner.display = problem is not None
        if problem is not None:
            lines = [Content.assemble(("✗ ", "bold"), (plain(problem.message), "bold"))]
            lines += [Content(plain(problem.hint))] if problem.hint else []
            banner.update(Content("\n").join((*lines, Content.styled("F5 follows the job anew", "dim"))))

    def _turn(self) -> None:
        tree = self.query_one(RunTree)
        if tree.is_moving and self.app.animation_level != "none":
            self._frame += 1
            tree.turn(self._frame)

    def _price(self) -> None:
        usage = self.view.usage
        if usage != self._priced and not any(one.group == "price" and not one.is_finished for one in self.workers):
            self._priced = usage
            self._find_cost([(run.model, run.usage) for run in self.view.runs if run.usage.total_tokens])

    @work(group="price")
    async def _find_cost(self, used: list[tuple[str, Usage]]) -> None:
        """The price list takes its time to load, so it is asked beside the screen."""
        costs = [await asyncio.to_thread(self.handle.cost, model, usage) for model, usage in used]
        known = [cost for cost in costs if cost is not None]
        self._cost = sum(known, Decimal()) if known and len(known) == len(costs) else None
        self._has_new_cost = True
        self._has_changed = self._has_changed or self.view.usage != self._priced

    @property
    def takes_text(self) -> bool:
        """Whether a line that appears may take the focus.

        Somebody who reads older entries, or chooses a run, goes on with that.
        """
        return self.query_one(LogScroll).is_following and not self.query_one(RunTree).has_focus

    @property
    def is_asking(self) -> bool:
        """Whether the job waits for a person."""
        return self.stop is not None and self.stop.kind == "stoppedByInteractiveTool"

    def _open_questions(self) -> Sequence[ToolCall]:
        if self.is_asking:
            return self.view.questions
        root = self.view.root
        if self.stop is None and root is not None and root.phase in ("starting", "waitingForPerson"):
            # The job takes in an answer. It may ask the others again, and somebody writes there.
            return [question.call for question in self.query_one(QuestionsPane).questions]
        return ()

    # Which part of it

    def set_focus(self, widget: Widget | None, scroll_visible: bool = True, from_app_focus: bool = False) -> None:
        # To a line for an answer belongs its question: the pane brings both into view.
        super().set_focus(widget, scroll_visible and not isinstance(widget, Prompt), from_app_focus)

    def action_next_stop(self) -> None:
        self._from_log()
        self.focus_next(_STOPS)

    def action_previous_stop(self) -> None:
        self._from_log()
        self.focus_previous(_STOPS)

    def _from_log(self) -> None:
        """An entry with the focus counts as the log."""
        log = self.query_one(LogScroll)
        if self.focused is not None and log in self.focused.ancestors:
            self.set_focus(log, scroll_visible=False)

    def action_choose_run(self) -> None:
        self.query_one(RunTree).focus()

    async def action_show_all(self) -> None:
        await self.show_run(None)

    async def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        run = self.query_one(RunTree).run_at(event.row.key)
        if run is not None:
            await self.show_run(None if run is self.shown else run)

    async def show_run(self, run: RunView | None) -> None:
        """Show the activities of one run, or of all."""
        self.shown = run
        await self.query_one(LogPane).show(run.log if run else self.view.log, run)
        self._has_changed = True

    def action_link(self) -> None:
        if self.handle.link is not None:
            self.app.copy_to_clipboard(self.handle.link)
            self.app.say(f"{self.handle.link}\nCopied, where the terminal allows it.")

    async def action_follow_anew(self) -> None:
        self.view, self.stop, self.shown, self._problem = ViewState(), None, None, None
        await self.query_one(LogPane).show(self.view.log)
        self._has_changed = True
        self._follow()
