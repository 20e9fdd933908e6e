"""Live text of model calls in other processes, from their heartbeats: no infrastructure, no history (DESIGN §5)."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from temporalio.api.common.v1 import Payloads, WorkflowExecution
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from ..core.deltas import Delta, DeltaKind, FailedAttempts, LiveNews
from ..core.failures import Attempt, PerstackError
from ..workflows.contracts import GENERATE, Heartbeat
from .history import Execution

POLL_SECONDS = 0.4
"""Between two looks at one model call. Not the pace of its heartbeats: an unlucky phase would last a whole call."""
LOOKS_PER_SECOND = 20
"""At all calls of a job together: the more calls at a time, the later each piece comes."""
LOOK_TIMEOUT = timedelta(seconds=2)
LIVE_TYPES = ("retry", "startStreamingReasoning", "streamReasoning", "startStreamingRunResult", "streamRunResult")
"""The events that come of it; all but `retry` come of nothing else."""


class HeartbeatTails:
    """News of model calls, wherever their workers are; what the follower of a job in another process subscribes to.

    A heartbeat carries the last 4 096 characters, so the tails of a call overlap and nothing is missed until a model
    writes more than that between two looks. What is missed stays missed: `completeStreaming…` repeats the whole.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def subscribe(
        self, subscriber: Callable[[LiveNews], None], generating: Callable[[], Iterable[Execution]]
    ) -> Callable[[], None]:
        """Hand news of the executions that `generating` names to `subscriber` until the returned function is called."""
        task = asyncio.create_task(_Watch(self._client, subscriber, generating).run())

        def stop() -> None:
            task.cancel()

        return stop


@dataclass
class CallReading:
    """What has been read of one model call, and what each further heartbeat adds to it."""

    execution: Execution
    ordinal: int
    _begun_at: int = 0
    _ends: dict[DeltaKind, int] = field(default_factory=dict[DeltaKind, int])
    """How many characters of each kind the attempt had said at the last look."""
    _failures: tuple[Attempt, ...] = ()

    def news(self, beat: Heartbeat) -> list[LiveNews]:
        """What `beat` tells that was not known, in the order in which it happened."""
        if beat.begun_at != self._begun_at:
            self._begun_at, self._ends = beat.begun_at, {}
        before = tuple(attempt for attempt in beat.attempts if attempt.at < beat.begun_at)
        return [
            *self._failed(before),
            *self._piece("reasoning", beat.reasoning_offset, beat.reasoning_tail),
            *self._piece("text", beat.offset, beat.tail),
            *self._failed(beat.attempts),
        ]

    def _failed(self, attempts: tuple[Attempt, ...]) -> list[LiveNews]:
        if attempts == self._failures[: len(attempts)]:
            return []
        # They need not begin with those known: a call repeated after a loss counts its own.
        self._failures = attempts
        workflow_id, temporal_run_id = self.execution.workflow_id, self.execution.temporal_run_id or ""
        return [FailedAttempts(workflow_id, temporal_run_id, self.ordinal, attempts)]

    def _piece(self, kind: DeltaKind, offset: int, tail: str) -> list[LiveNews]:
        begin = max(offset, self._ends.get(kind, 0))
        text = tail[begin - offset :]
        if not text:
            return []
        self._ends[kind] = begin + len(text)
        return [
            Delta(
                workflow_id=self.execution.workflow_id,
                temporal_run_id=self.execution.temporal_run_id or "",
                ordinal=self.ordinal,
                begun_at=self._begun_at,
                kind=kind,
                offset=begin,
                text=text,
            )
        ]


class _Watch:
    """One subscription."""

    def __init__(
        self, client: Client, tell: Callable[[LiveNews], None], generating: Callable[[], Iterable[Execution]]
    ) -> None:
        self._client = client
        self._tell = tell
        self._generating = generating
        self._readings: dict[Execution, CallReading] = {}
        self._closed: set[Execution] = set()

    async def run(self) -> None:
        """Look until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            open_calls = [execution for execution in self._generating() if execution not in self._closed]
            await asyncio.gather(*(self._look(execution) for execution in open_calls))
            next_look = begun + max(POLL_SECONDS, len(open_calls) / LOOKS_PER_SECOND)
            await asyncio.sleep(max(0.0, next_look - loop.time()))

    async def _look(self, execution: Execution) -> None:
        for ordinal, beat in await self._beats(execution):
            reading = self._readings.get(execution)
            if reading is None or reading.ordinal != ordinal:
                reading = self._readings[execution] = CallReading(execution, ordinal)
            for news in reading.news(beat):
                self._tell(news)

    async def _beats(self, execution: Execution) -> list[tuple[int, Heartbeat]]:
        """The last heartbeat of the open model call, with the call's ordinal; nothing where it cannot be had."""
        try:
            answer = await self._describe(execution)
            return [
                (int(call.activity_id.rpartition("-")[2]), await self._decoded(call.heartbeat_details))
                for call in answer.pending_activities
                if call.activity_type.name == GENERATE.name and call.heartbeat_details.payloads
            ]
        except RPCError as error:
            # Of a server that is away the follower hears by itself, and what it misses here comes again as a whole.
            if error.status == RPCStatusCode.NOT_FOUND:
                self._closed.add(execution)
        except (PerstackError, ValueError, LookupError, RuntimeError):
            pass  # written by a worker of another release, or encoded or stored as this process cannot read it
        return []

    async def _describe(self, execution: Execution) -> DescribeWorkflowExecutionResponse:
        wire = WorkflowExecution(workflow_id=execution.workflow_id, run_id=execution.temporal_run_id or "")
        request = DescribeWorkflowExecutionRequest(namespace=self._client.namespace, execution=wire)
        answer = await self._client.workflow_service.describe_workflow_execution(request, timeout=LOOK_TIMEOUT)
        if answer.workflow_execution_info.status != WorkflowExecutionStatus.RUNNING:
            self._closed.add(execution)
        return answer

    async def _decoded(self, details: Payloads) -> Heartbeat:
        [beat] = await self._client.data_converter.decode(details.payloads, [Heartbeat])
        return beat
