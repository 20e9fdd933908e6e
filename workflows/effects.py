"""Effects → activities and child workflows; every answer goes back as a trigger."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import TypedSearchAttributes
from temporalio.exceptions import CancelledError, FailureError
from temporalio.workflow import ActivityCancellationType, ChildWorkflowCancellationType, ParentClosePolicy

from ..core.conversation import Appendix
from ..core.effects import CallTools, Delegate, DelegateCall, Generate, PlannedCall
from ..core.ids import cuid_from, delegate_workflow_id
from ..core.run import RunInput, RunResult, SessionReport
from ..core.tools import ToolOutcome
from ..core.triggers import (
    DelegateFinished,
    Generated,
    SessionOpened,
    ToolFinished,
    Trigger,
)
from .contracts import (
    CALL_TOOL,
    EXPERT_RUN,
    GENERATE,
    OPEN_SESSION,
    ActivitySpec,
    CallRequest,
    GenerateRequest,
    Lost,
    OpenRequest,
    read_activity_failure,
    read_child_failure,
)
from .options import (
    HEARTBEAT_TIMEOUT,
    LONGEST_LOCAL_CALL,
    NO_RETRY,
    OPEN_RETRY,
    PRIVATE_QUEUE_WAIT,
    SKILL_START_TIMEOUT,
    STORAGE_WAIT,
    WORKFLOW_TASK_TIMEOUT,
    call_summary,
    call_timeout,
    generate_retry,
    generate_summary,
    generate_timeout,
    job_priority,
    run_memo,
    run_summary,
    start_attributes,
)
from .outcomes import Ending, not_called, not_generated, session_not_opened

In = TypeVar("In")
Out = TypeVar("Out")
WAIT = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED


APPENDIX_BYTES = 48 * 1024
"""The longest that goes with a call; safely below the size from which a payload lies in the storage."""


class _NoSession(Exception):
    """The session could not be opened again; the machine was told."""


class Interpreter:
    """Starts what the machine asks for, on the worker that holds the run's session."""

    def __init__(
        self, start: RunInput, *, post: Callable[[Trigger], None], report_bug: Callable[[BaseException], None]
    ) -> None:
        self._start = start
        self._post = post
        self._report_bug = report_bug
        self.queue: str | None = None
        """Where the worker that holds the session takes its calls, empty for the run's own queue; unknown at first."""
        self._workspace_id = start.settings.workspace_id
        self._opening: asyncio.Task[SessionReport] | None = None
        self._openings = 0
        self._handles: set[asyncio.Task[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cancelled = False

    def take_over(self, queue: str | None) -> None:
        """Go on with the session of the execution before this one, on the worker that has it."""
        self.queue = queue
        self._openings = 1  # the first opening of a run is an event; this is a later one

    def open_first(self) -> None:
        """Open the session and report it."""
        self._spawn(self._open_first())

    def generate(self, effect: Generate) -> None:
        """Call the model."""
        self._spawn(self._generate(effect))

    def call_tools(self, effect: CallTools) -> None:
        """Call tools in parallel, one activity each."""
        for planned in effect.calls:
            self._spawn(self._call(effect, planned))

    def delegate(self, effect: Delegate) -> None:
        """Start delegates in parallel; readers rely on the order of the starts."""
        for one in effect.calls:
            self._spawn(self._delegate(one))

    def cancel(self) -> None:
        """Cancel everything in flight; its answers still arrive."""
        self._is_cancelled = True
        for handle in list(self._handles):
            handle.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report_bug(error)

    async def _result(self, handle: asyncio.Task[Out]) -> Out:
        self._handles.add(handle)
        if self._is_cancelled:
            # Asked for before the cancellation, begun after it: `cancel` did not know of it.
            handle.cancel()
        try:
            return await handle
        except asyncio.CancelledError as error:
            if not self._is_cancelled:
                raise
            # Cancelled before its first step: the SDK never came to say so in its own way.
            raise CancelledError("Cancelled before it began") from error
        finally:
            self._handles.discard(handle)

    async def _open_first(self) -> None:
        with suppress(_NoSession):
            self._post(SessionOpened(await self._open()))

    async def _open(self) -> SessionReport:
        """Open the session once, however many calls ask for it."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_now())
        try:
            return await asyncio.shield(self._opening)
        finally:
            self._opening = None

    async def _open_now(self) -> SessionReport:
        ordinal = self._openings
        self._openings += 1
        handle = workflow.start_activity(
            OPEN_SESSION.name,
            OpenRequest(is_first=ordinal == 0, workspace_id=self._workspace_id),
            result_type=SessionReport,
            activity_id=f"open-{ordinal}",
            start_to_close_timeout=SKILL_START_TIMEOUT + STORAGE_WAIT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=OPEN_RETRY,
            cancellation_type=WAIT,
            summary="open session" if ordinal == 0 else "open session elsewhere",
            priority=job_priority(self._start.job_id),
        )
        try:
            report = await self._result(handle)
        except FailureError as error:
            self._post(session_not_opened(read_activity_failure(error)))
            raise _NoSession from error
        self.queue = report.queue
        self._workspace_id = report.workspace_id
        return report

    @property
    def _is_private(self) -> bool:
        return bool(self.queue)

    def _leave_worker(self) -> None:
        """The next effect looks for another worker; one shared queue has nobody else to ask."""
        if self._is_private:
            self.queue = None

    async def _remote(
        self,
        spec: ActivitySpec[In, Out],
        request: In,
        *,
        activity_id: str,
        timeout: timedelta,
        summary: str,
        is_retried: bool = False,
    ) -> Out:
        if self.queue is None:
            await self._open()
        handle = workflow.start_activity(
            spec.name,
            request,
            result_type=spec.output_type,
            activity_id=activity_id,
            task_queue=self.queue or None,
            start_to_close_timeout=timeout,
            schedule_to_start_timeout=PRIVATE_QUEUE_WAIT if self._is_private else None,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=generate_retry(self._start.settings.limits) if is_retried else NO_RETRY,
            cancellation_type=WAIT,
            summary=summary,
            priority=job_priority(self._start.job_id),
        )
        return await self._result(handle)

    async def _generate(self, effect: Generate) -> None:
        request = GenerateRequest(
            step=effect.step_number, ordinal=effect.ordinal, position=effect.position, appendix=_sent(effect.appendix)
        )
        try:
            generation = await self._remote(
                GENERATE,
                request,
                activity_id=f"generate-{effect.ordinal}",
                timeout=generate_timeout(self._start.settings.limits),
                summary=generate_summary(effect, self._start.expert),
                is_retried=True,
            )
        except _NoSession:
            return
        except FailureError as error:
            self._post(not_generated(self._ending(error)))
            return
        if generation.is_draining:
            self._leave_worker()
        self._post(Generated(generation))

    async def _call(self, effect: CallTools, planned: PlannedCall) -> None:
        request = CallRequest(step=effect.step_number, index=planned.index, position=effect.position)
        try:
            outcome = await self._call_locally(request, planned) if planned.spec.is_local else None
            if outcome is None:
                outcome = await self._call_remotely(request, planned)
        except _NoSession:
            return
        except FailureError as error:
            self._post(not_called(planned.index, self._ending(error)))
            return
        if outcome.is_draining:
            self._leave_worker()
        self._post(ToolFinished(planned.index, outcome))

    def _ending(self, error: FailureError) -> Ending:
        """How a call ended; after a loss the next effect looks for another worker."""
        ending = read_activity_failure(error)
        if isinstance(ending, Lost):
            self._leave_worker()
        return ending

    async def _call_locally(self, request: CallRequest, planned: PlannedCall) -> ToolOutcome | None:
        handle = workflow.start_local_activity(
            CALL_TOOL.name,
            request,
            result_type=CALL_TOOL.output_type,
            activity_id=f"call-{request.step}-{request.index}",
            schedule_to_close_timeout=LONGEST_LOCAL_CALL,
            retry_policy=NO_RETRY,
            cancellation_type=WAIT,
            summary=call_summary(planned, request.step),
        )
        return (await self._result(handle)).outcome

    async def _call_remotely(self, request: CallRequest, planned: PlannedCall) -> ToolOutcome:
        answer = await self._remote(
            CALL_TOOL,
            request,
            activity_id=f"call-{request.step}-{request.index}",
            timeout=call_timeout(planned, self._start.settings.limits),
            summary=call_summary(planned, request.step),
        )
        assert answer.outcome is not None, "a remote call rebuilds its session"
        return answer.outcome

    async def _delegate(self, one: DelegateCall) -> None:
        run_id = cuid_from(workflow.uuid4().hex)
        child = one.child.model_copy(update={"run_id": run_id})
        try:
            handle = await workflow.start_child_workflow(
                EXPERT_RUN,
                child,
                id=delegate_workflow_id(child.job_id, run_id),
                result_type=RunResult,
                parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
                cancellation_type=ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED,
                static_summary=run_summary(child),
                search_attributes=TypedSearchAttributes(start_attributes(child)),
                memo=run_memo(child),
                priority=job_priority(child.job_id),
                task_timeout=WORKFLOW_TASK_TIMEOUT,
            )
            result = await self._result(handle)
        except FailureError as error:
            parent_step = child.first_step - 1
            result = read_child_failure(error, expert_key=child.expert_key, step=parent_step)
        self._post(DelegateFinished(one.index, result))


def _sent(appendix: Appendix) -> Appendix:
    """What of it goes with a call. What is long is in history already, and the worker reads it there.

    An input that lies in the storage is fetched before the activity begins: an outage would be a failed attempt.
    """
    return appendix if len(appendix.model_dump_json().encode()) <= APPENDIX_BYTES else Appendix()
