"""One job at work, and what a person does with it."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import ClassVar

from textual import events, work
from textual.binding import Binding, BindingType
from textual.widget import Widget

from ....core.events import Event
from ....core.failures import PerstackError
from ...diagnostics import ExitCode
from ..backend import Ended, JobHandle, Stop
from ..typed_ahead import TypedAhead
from ..widgets.follow_up import FollowUp, can_resume
from ..widgets.log import LogScroll
from ..widgets.prompt import Prompt
from ..widgets.questions import QuestionsPane
from .leaving import cancelling, detaching, exit_code, going_back, leaving
from .watch import WatchScreen

SETTLING_SECONDS = 3.0
"""How long somebody who leaves waits for a job that has said its last word to be over."""


class RunScreen(WatchScreen):
    """Follows a job to its end and beyond: questions, follow-up queries, cancelling, leaving."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f5", "follow_anew", "Follow anew", key_display="F5"),
        Binding("b", "back", "Back"),
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
        super().__init__(handle)
        self._ahead = TypedAhead()
        self._is_leaving = False
        self._beginning = asyncio.Lock()
        """Held while the job is asked to go on."""

    @property
    def _is_open(self) -> bool:
        return self.stop is None or self.is_asking

    @property
    def _stands_still(self) -> bool:
        root = self.view.root
        return root is not None and (root.has_ended or root.phase == "waitingForPerson")

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
            case "back":
                return self.has_way_back
            case "link":
                return self.handle.link is not None
            case _:
                return True

    # What is typed before its line is there

    def take(self, item: Event | Ended | Stop) -> None:
        stood_still = self._stands_still
        super().take(item)
        if self._stands_still and (isinstance(item, Stop) or not stood_still):
            self._ahead.expect()
        elif self.view.root is not None and self.view.root.phase == "generating":
            self._ahead.forget()

    def on_key(self, event: events.Key) -> None:
        if isinstance(self.focused, Prompt):
            # The line got the focus while this key was on its way; what the line takes itself does not come here.
            if event.is_printable and event.character:
                event.stop()
                self.focused.insert(event.character)
        elif self._ahead.is_expecting and self.takes_text and self._ahead.take(event):
            event.stop()

    def set_focus(self, widget: Widget | None, scroll_visible: bool = True, from_app_focus: bool = False) -> None:
        super().set_focus(widget, scroll_visible, from_app_focus)
        if isinstance(self.focused, Prompt):
            self.focused.insert(self._ahead.give())

    # What a person does

    def action_leave_line(self) -> None:
        self.query_one(LogScroll).focus()

    def action_write(self) -> None:
        if self.is_asking:
            self.query_one(QuestionsPane).focus_next()
        else:
            self.query_one(FollowUp).prompt.focus()

    @work
    async def on_questions_pane_answered(self, event: QuestionsPane.Answered) -> None:
        question = event.question
        self._ahead.expect()
        if all(one.prompt.disabled for one in self.query_one(QuestionsPane).questions):
            self.query_one(LogScroll).focus()
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
        self._ahead.expect()
        self.query_one(LogScroll).focus()
        try:
            await self._begun(self.handle.go_on(event.text))
        except PerstackError as refusal:
            follow_up.refuse(_sentence(refusal))
            follow_up.prompt.focus()
        else:
            follow_up.clear()
            await self.show_run(None)

    @work(group="resume", exclusive=True)
    async def action_resume(self) -> None:
        try:
            await self._begun(self.handle.resume())
        except PerstackError as refusal:
            self.app.tell(refusal)
        else:
            self.query_one(LogScroll).focus()

    async def _begun(self, beginning: Awaitable[None]) -> None:
        """Wait until the job goes on; it works from then on, before its events say so."""
        before = self.stop
        async with self._beginning:
            await beginning
        if self.stop is before:
            self.stop = None
            self._has_changed = True

    @work(group="leave", exclusive=True)
    async def action_cancel(self) -> None:
        if await self.app.push_screen_wait(cancelling()) == "cancel":
            await self._cancel()

    async def _cancel(self) -> bool:
        try:
            await self.handle.cancel()
        except PerstackError as refusal:
            self.app.tell(refusal)
            return False
        self.app.say("The job is being cancelled.")
        return True

    @work(group="leave", exclusive=True)
    async def action_detach(self) -> None:
        if await self.app.push_screen_wait(detaching()) == "detach":
            await self._leave_by("detach", is_back=False)

    def action_back(self) -> None:
        """To the list; a job that this process works on, the way a person says."""
        if not self._is_leaving:
            self._leave(is_back=True)

    def action_leave(self) -> None:
        """Leave; a job that this process works on, the way a person says."""
        if self._is_leaving:
            self.app.exit(int(ExitCode.INTERRUPTED))
        else:
            self._leave(is_back=False)

    @work(group="leave", exclusive=True)
    async def _leave(self, *, is_back: bool) -> None:
        how: str | None = "park"
        await self._settled()
        if self.stop is None and self.handle.is_ours:
            how = await self.app.push_screen_wait(going_back() if is_back else leaving(self.handle.job_id))
        await self._leave_by(how, is_back=is_back)

    async def _settled(self) -> None:
        """Wait, not long, while the job is between work and rest: nobody could say what leaving does to it."""
        if self._beginning.locked():
            self.app.say("The job is being started; one moment.")
            async with self._beginning:
                return
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLING_SECONDS):
                while self.stop is None and self._stands_still:
                    await self.news.wait()

    async def _leave_by(self, how: str | None, *, is_back: bool) -> None:
        self._is_leaving = True
        match how:
            case "park":
                code = exit_code(self.stop, self.view)
            case "detach" if await self._hand_over():
                code = int(ExitCode.COMPLETED)
            case "cancel" if await self._cancel():
                code = int(ExitCode.CANCELLED)
            case _:
                self._is_leaving = False
                return
        await self.handle.close()
        if not is_back:
            self.app.exit(code)
            return
        while self.app.screen is not self:
            # Somebody looked something up while the job was closed.
            await self.app.pop_screen()
        self.go_back()

    async def _hand_over(self) -> bool:
        self.app.say("Handing the job to a background process…")
        try:
            await self.handle.detach()
        except PerstackError as refusal:
            self.app.tell(refusal)
            return False
        return True


def _sentence(error: PerstackError) -> str:
    return f"{error.message} {error.hint}" if error.hint else error.message
