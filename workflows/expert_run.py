"""`ExpertRun`: one expert at work, from its task to its result; the interpreter of the machine's effects."""

import asyncio
from collections import deque
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ApplicationError
from temporalio.workflow import ActivityCancellationType

from ..core.effects import AskPerson, CallTools, Delegate, Effect, Finish, Generate, OpenSession
from ..core.failures import PerstackError
from ..core.machine import advance, open_generation
from ..core.run import RunInput, RunResult, require_known_machine
from ..core.state import RunState, State, begin, carried_on
from ..core.triggers import Answered, CancelRequested, Started, Trigger
from .contracts import ARCHIVE, EXPERT_RUN, RESPOND_UPDATE, SNAPSHOT_QUERY, ArchiveRequest, Closing, Response
from .details import describe
from .effects import Interpreter
from .options import (
    ARCHIVE_RETRY,
    ARCHIVE_TIMEOUT,
    HEARTBEAT_TIMEOUT,
    STATUS_ATTRIBUTE,
    STEPS_ATTRIBUTE,
    TOKENS_ATTRIBUTE,
    WORKFLOW_TASK_TIMEOUT,
    job_priority,
)


@workflow.defn(name=EXPERT_RUN)
class ExpertRun:
    """Advances the machine with what happened and performs what it asks for."""

    @workflow.init
    def __init__(self, start: RunInput) -> None:
        self._state: RunState = begin(start)
        self._inbox: deque[Trigger] = deque()
        self._bugs: list[BaseException] = []
        self._interpreter = Interpreter(self._state.start, post=self._inbox.append, report_bug=self._bugs.append)
        self._status = "running"
        self._is_full = False

    @workflow.run
    async def run(self, start: RunInput) -> RunResult:
        """Run to the end; an error fails the workflow, a cancellation cancels it."""
        try:
            require_known_machine(start.settings)
        except PerstackError as error:
            raise ApplicationError(error.message, type=error.code, non_retryable=True) from error
        if start.carried is None:
            self._take(Started())
        else:
            self._interpreter.take_over(start.carried.queue)
            self._interpreter.generate(open_generation(self._state))
            self._show()
        while not self._is_stopped:
            if self._is_full:
                if await self._archive("continuedAsNew"):
                    self._be_cancelled_here()
                    continue
                execution = workflow.info().run_id
                following = carried_on(self._state, queue=self._interpreter.queue, execution=execution)
                workflow.continue_as_new(following, task_timeout=WORKFLOW_TASK_TIMEOUT)
            try:
                await workflow.wait_condition(lambda: bool(self._inbox or self._bugs))
            except asyncio.CancelledError:
                self._take(CancelRequested())
                self._interpreter.cancel()
            if self._bugs:
                # Fails the workflow task, not the workflow: a fixed worker goes on from here.
                raise RuntimeError("the interpreter of effects broke") from self._bugs[0]
            while self._inbox and not self._is_stopped and not self._is_full:
                self._take(self._inbox.popleft())
        assert self._state.result is not None
        return await self._end(self._state.result)

    @workflow.query(name=SNAPSHOT_QUERY)
    def snapshot(self) -> RunState:
        """The state of the run as its worker sees it."""
        return self._state

    @workflow.update(name=RESPOND_UPDATE)
    def respond(self, response: Response) -> None:
        """Take a person's answer to one of the open questions."""
        self._inbox.append(Answered(self._open_questions[response.call_id], response.text))

    @respond.validator
    def _check_response(self, response: Response) -> None:
        """Refuse what answers no open question; nothing of it is recorded."""
        if response.call_id not in self._open_questions:
            open_ids = ", ".join(self._open_questions) or "none"
            raise ApplicationError(
                f"No open question has the id {response.call_id}. Open: {open_ids}.",
                type="usage.no_question",
                non_retryable=True,
            )

    @property
    def _open_questions(self) -> dict[str, int]:
        """The calls that wait for a person, by id; those answered a moment ago left out."""
        state = self._state
        if state.state != State.CALLING_INTERACTIVE_TOOLS:
            return {}
        answered = {trigger.index for trigger in self._inbox if isinstance(trigger, Answered)}
        return {state.calls[index].id: index for index in state.running if index not in answered}

    @property
    def _may_carry_on(self) -> bool:
        return (
            workflow.info().is_continue_as_new_suggested()
            and not self._inbox
            and not self._state.is_cancelling
            and workflow.all_handlers_finished()
        )

    @property
    def _is_stopped(self) -> bool:
        return self._state.state == State.STOPPED

    def _take(self, trigger: Trigger) -> None:
        transition = advance(self._state, trigger)
        self._state = transition.state
        step = self._state.checkpoint.step_number
        # The Temporal UI shows what belongs to one step together; servers before 1.32 ignore it.
        with workflow.create_event_group(f"step-{step}", label=f"step {step}").scope():
            for effect in transition.effects:
                self._perform(effect)
        self._show()

    def _perform(self, effect: Effect) -> None:
        match effect:
            case OpenSession():
                self._interpreter.open_first()
            case Generate() if self._may_carry_on:
                # The step is over and nothing of the run is open: the next execution makes this call.
                self._is_full = True
            case Generate():
                self._interpreter.generate(effect)
            case CallTools():
                self._interpreter.call_tools(effect)
            case Delegate():
                self._interpreter.delegate(effect)
            case AskPerson() | Finish():
                pass  # a person's answer comes from outside; the end is read from the state

    def _show(self) -> None:
        """Keep the Temporal UI true: current details always, the status attribute when it changed."""
        workflow.set_current_details(describe(self._state))
        waiting = {State.CALLING_INTERACTIVE_TOOLS: "waiting"}
        status = waiting.get(self._state.state, "running")
        if not self._is_stopped and status != self._status:
            self._status = status
            self._upsert(STATUS_ATTRIBUTE.value_set(status))

    def _upsert(self, *updates: SearchAttributeUpdate[Any]) -> None:
        known = self._state.start.settings.search_attributes
        kept = [update for update in updates if update.key.name in known]
        if kept:
            workflow.upsert_search_attributes(kept)  # pyright: ignore[reportUnknownMemberType]

    async def _archive(self, closing: Closing) -> bool:
        """Keep the history of this execution where the server will not; whether somebody cancelled the run meanwhile.

        Whatever becomes of it, the run ends as it would have ended; then the next reader keeps the history.
        """
        if not self._state.start.settings.is_archiving:
            return False
        job_id = self._state.start.job_id
        handle = workflow.start_activity(
            ARCHIVE.name,
            ArchiveRequest(job_id=job_id, closing=closing, previous=self._state.start.previous),
            start_to_close_timeout=ARCHIVE_TIMEOUT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=ARCHIVE_RETRY,
            cancellation_type=ActivityCancellationType.ABANDON,
            summary="archive",
            priority=job_priority(job_id),
        )
        is_cancelled = False
        while not handle.done():
            try:
                await workflow.wait([handle])
            except asyncio.CancelledError:
                is_cancelled = True
        if (error := handle.exception()) is not None:
            workflow.logger.warning("The history was not archived: %s", error)
        return is_cancelled

    def _be_cancelled_here(self) -> None:
        """A cancellation between two executions: this one asks for the next call after all, and ends with it."""
        self._is_full = False
        self._take(CancelRequested())
        self._interpreter.cancel()
        self._interpreter.generate(open_generation(self._state))

    async def _end(self, result: RunResult) -> RunResult:
        self._upsert(
            STATUS_ATTRIBUTE.value_set(result.status),
            TOKENS_ATTRIBUTE.value_set(result.usage.total_tokens),
            STEPS_ATTRIBUTE.value_set(result.last_step),
        )
        is_cancelled = result.status == "stoppedByCancellation"
        await self._archive("cancelled" if is_cancelled else "failed" if result.failure else "completed")
        if is_cancelled:
            raise asyncio.CancelledError
        if result.failure is not None:
            raise ApplicationError(result.failure.message, result, type=result.failure.name, non_retryable=True)
        return result
