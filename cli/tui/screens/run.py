"""One job while it works: its log, what the models say, its runs, its questions."""

import asyncio
from decimal import Decimal
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from ....core.events import Event, InitializeRuntime
from ....core.failures import PerstackError
from ....core.usage import Usage
from ....core.view_state import RunView, ViewState
from ...diagnostics import ExitCode, exit_code_of_run
from ...plain import plain
from ..backend import Ended, JobHandle, Stop
from ..widgets.activities import activity_widget
from ..widgets.follow_up import FollowUp, can_resume
from ..widgets.keys import KeyBar
from ..widgets.live import LivePane
from ..widgets.log import LogPane, LogScroll
from ..widgets.prompt import Prompt
from ..widgets.questions import QuestionsPane
from ..widgets.rows import RowList
from ..widgets.status import StatusPane
from ..widgets.tree import RunTree
from .base import Page
from .dialog import Choice, Dialog

DRAW_SECONDS = 0.08
"""Between two pictures: what happens meanwhile is drawn at once."""
TURN_SECONDS = 0.12
_READ_SECONDS = 0.02
"""Events that are there already are taken for so long before the screen gets its turn."""
_STOPS = "LogScroll, RunTree, Prompt"
"""Where Tab goes; the entries of the log have keys of their own."""


class RunScreen(Page[None]):
    """Follows a job to its end and beyond: questions, follow-up queries, cancelling, leaving."""

    CSS_PATH = "run.tcss"
    AUTO_FOCUS = "LogScroll"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5", "follow_anew", "Follow anew", key_display="F5"),
        Binding("q", "leave", "Leave"),
        Binding("ctrl+c", "leave", "Leave", show=False),
        Binding("escape", "leave_line", "Keys", key_display="Esc"),
        Binding("escape", "show_all", "All runs", key_display="Esc"),
        Binding("ctrl+r,r", "resume", "Resume"),
        Binding("a", "write", "Write"),
        Binding("c", "cancel", "Cancel"),
        Binding("d", "detach", "Detach"),
        Binding("f", "choose_run", "Runs"),
        Binding("t", "link", "Temporal"),
        Binding("tab", "next_stop", "Next part", show=False),
        Binding("shift+tab", "previous_stop", "Part before", show=False),
    ]

    def __init__(self, handle: JobHandle) -> None:
        super().__init__()
        self.handle = handle
        self.view = ViewState()
        self.stop: Stop | None = None
        """How the job stands; `None` while it works."""
        self.shown: RunView | None = None
        """The run that the log is filtered by."""
        self._problem: PerstackError | None = None
        self._has_changed = True
        self._is_drawing = False
        self._second = -1
        self._frame = 0
        self._cost: Decimal | None = None
        self._has_new_cost = False
        self._priced: Usage | None = None
        """What the cost is of."""
        self._is_leaving = False

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
                self._take(item)
                if loop.time() - since > _READ_SECONDS:
                    await asyncio.sleep(0)
                    since = loop.time()
        except PerstackError as problem:
            self._problem = problem
            self._has_changed = True

    def _take(self, item: Event | Ended | Stop) -> None:
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
        # Somebody who reads older entries, or chooses a run, goes on with that.
        takes_focus = self.query_one(LogScroll).is_following and not self.query_one(RunTree).has_focus
        questions = self.view.questions if self._is_asking else ()
        await self.query_one(QuestionsPane).show(questions, takes_focus=takes_focus)
        self.query_one(FollowUp).show(self.stop, takes_focus=takes_focus)
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
    def _is_asking(self) -> bool:
        return self.stop is not None and self.stop.kind == "stoppedByInteractiveTool"

    @property
    def _is_open(self) -> bool:
        return self.stop is None or self._is_asking

    # What a person does

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        match action:
            case "leave_line":
                return isinstance(self.focused, Prompt)
            case "show_all":
                return self.shown is not None and not isinstance(self.focused, Prompt)
            case "follow_anew":
                return self._problem is not None
            case "resume":
                return can_resume(self.stop)
            case "write":
                return self.stop is not None and not isinstance(self.focused, Prompt)
            case "cancel":
                return self._is_open
            case "detach":
                return self._is_open and self.handle.is_ours
            case "link":
                return self.handle.link is not None
            case _:
                return True

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

    def action_leave_line(self) -> None:
        self.query_one(LogScroll).focus()

    def action_write(self) -> None:
        if self._is_asking:
            self.query_one(QuestionsPane).focus_next()
        else:
            self.query_one(FollowUp).prompt.focus()

    def action_choose_run(self) -> None:
        self.query_one(RunTree).focus()

    async def action_show_all(self) -> None:
        await self._filter(None)

    async def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        run = self.query_one(RunTree).run_at(event.row.key)
        if run is not None:
            await self._filter(None if run is self.shown else run)

    async def _filter(self, run: RunView | None) -> None:
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

    @work
    async def on_questions_pane_answered(self, event: QuestionsPane.Answered) -> None:
        question = event.question
        try:
            await self.handle.respond(question.call.id, event.text)
        except PerstackError as refusal:
            if question.is_attached:
                question.refuse(_sentence(refusal))
            else:
                # Somebody else answered it meanwhile.
                self.app.tell(refusal)

    @work
    async def on_prompt_sent(self, event: Prompt.Sent) -> None:
        follow_up = self.query_one(FollowUp)
        follow_up.send()
        try:
            await self.handle.go_on(event.text)
        except PerstackError as refusal:
            follow_up.refuse(_sentence(refusal))
            follow_up.prompt.focus()
        else:
            follow_up.clear()
            await self._filter(None)
            self.query_one(LogScroll).focus()

    @work(group="resume", exclusive=True)
    async def action_resume(self) -> None:
        try:
            await self.handle.resume()
        except PerstackError as refusal:
            self.app.tell(refusal)
        else:
            self.query_one(LogScroll).focus()

    @work
    async def action_cancel(self) -> None:
        choices = Choice("cancel", "c", "Cancel it with all its delegates"), Choice("stay", "s", "Stay")
        answer = await self.app.push_screen_wait(Dialog("Cancel this job?", *choices))
        if answer == "cancel":
            await self._cancel()

    async def _cancel(self) -> bool:
        try:
            await self.handle.cancel()
        except PerstackError as refusal:
            self.app.tell(refusal)
            return False
        self.app.say("The job is being cancelled.")
        return True

    @work
    async def action_detach(self) -> None:
        await self._hand_over()

    def action_leave(self) -> None:
        """Leave; a job that this process works on, the way a person says."""
        if self._is_leaving:
            self.app.exit(int(ExitCode.INTERRUPTED))
        else:
            self._leave()

    @work(group="leave", exclusive=True)
    async def _leave(self) -> None:
        how: str | None = "close"
        if self.stop is None and self.handle.is_ours:
            how = await self.app.push_screen_wait(_leaving(self.handle.job_id))
        match how:
            case "close" | "park":
                await self._end(self._code())
            case "detach":
                await self._hand_over()
            case "cancel":
                if await self._cancel():
                    await self._end(int(ExitCode.CANCELLED))
            case _:
                pass

    async def _hand_over(self) -> None:
        self.app.say("Handing the job to a background process…")
        try:
            await self.handle.detach()
        except PerstackError as refusal:
            self.app.tell(refusal)
        else:
            await self._end(int(ExitCode.COMPLETED))

    async def _end(self, code: int) -> None:
        self._is_leaving = True
        await self.handle.close()
        self.app.exit(code)

    def _code(self) -> int:
        """What the command tells the shell when it is left now."""
        match self.stop:
            case None:
                return int(ExitCode.INTERRUPTED)
            case Stop(
                kind="completed"
                | "stoppedByError"
                | "stoppedByExceededMaxSteps"
                | "stoppedByInteractiveTool"
                | "stoppedByCancellation" as status
            ):
                failure = self.view.root.failure if self.view.root else None
                return int(exit_code_of_run(status, failure.name if failure else None))
            case _:
                return int(ExitCode.FAILED)


def _leaving(job_id: str) -> Dialog:
    return Dialog(
        "The job still works",
        Choice("park", "p", "Park it"),
        Choice("detach", "d", "Leave it to the background"),
        Choice("cancel", "c", "Cancel it"),
        Choice("stay", "s", "Stay"),
        text=f"A parked job goes on with: perstack resume {job_id}",
        again="park",
    )


def _sentence(error: PerstackError) -> str:
    return f"{error.message} {error.hint}" if error.hint else error.message
