"""`ExpertRun`: one expert at work, from its task to its result; the interpreter of the machine's effects."""

import asyncio
from collections import deque
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ApplicationError

from ..core.effects import AskPerson, CallTools, Delegate, Effect, Finish, Generate, OpenSession
from ..core.machine import advance
from ..core.run import MACHINE_VERSION, RunInput, RunResult
from ..core.state import RunState, State, begin
from ..core.triggers import Answered, CancelRequested, Started, Trigger
from .contracts import EXPERT_RUN, RESPOND_UPDATE, SNAPSHOT_QUERY, Response
from .details import describe
from .effects import Interpreter
from .options import STATUS_ATTRIBUTE, STEPS_ATTRIBUTE, TOKENS_ATTRIBUTE


@workflow.defn(name=EXPERT_RUN)
class ExpertRun:
    """Advances the machine with what happened and performs what it asks for."""

    @workflow.init
    def __init__(self, start: RunInput) -> None:
        self._state: RunState = begin(start)
        self._inbox: deque[Trigger] = deque()
        self._bugs: list[BaseException] = []
        self._interpreter = Interpreter(start, post=self._inbox.append, report_bug=self._bugs.append)
        self._status = "running"

    @workflow.run
    async def run(self, start: RunInput) -> RunResult:
        """Run to the end; an error fails the workflow, a cancellation cancels it."""
        if start.settings.machine_version > MACHINE_VERSION:
            raise ApplicationError(
                f"This run was started by a newer Perstack ({start.settings.runtime_version}, machine "
                f"{start.settings.machine_version}); this worker knows machine {MACHINE_VERSION}. Upgrade it.",
                type="machine.newer",
                non_retryable=True,
            )
        self._take(Started())
        while not self._is_stopped:
            try:
                await workflow.wait_condition(lambda: bool(self._inbox or self._bugs))
            except asyncio.CancelledError:
                self._take(CancelRequested())
                self._interpreter.cancel()
            if self._bugs:
                # Fails the workflow task, not the workflow: a fixed worker goes on from here.
                raise RuntimeError("the interpreter of effects broke") from self._bugs[0]
            while self._inbox and not self._is_stopped:
                self._take(self._inbox.popleft())
        assert self._state.result is not None
        return self._end(self._state.result)

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

    def _end(self, result: RunResult) -> RunResult:
        self._upsert(
            STATUS_ATTRIBUTE.value_set(result.status),
            TOKENS_ATTRIBUTE.value_set(result.usage.total_tokens),
            STEPS_ATTRIBUTE.value_set(result.last_step),
        )
        if result.status == "stoppedByCancellation":
            raise asyncio.CancelledError
        if result.failure is not None:
            raise ApplicationError(result.failure.message, result, type=result.failure.name, non_retryable=True)
        return result
