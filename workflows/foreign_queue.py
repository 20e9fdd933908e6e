"""Calls to a worker's own queue that another worker makes: the one with the session may be gone.

A workflow task is done where the session is, as long as that worker lives. When another worker does one, its first call
to the session's queue is also the question whether anybody is there, and the answer comes sooner than for a call of the
session's own worker (docs/decisions/0018-foreign-queue.md).
"""

from typing import Any

from temporalio import workflow
from temporalio.worker import (
    Interceptor,
    StartActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from .contracts import EXPERT_RUN
from .options import FOREIGN_QUEUE_WAIT, PRIVATE_QUEUE_WAIT


class ForeignQueueWait(Interceptor):
    """For a worker that has a queue of its own: runs wait less for the queues of others."""

    def __init__(self, own_queue: str) -> None:
        self._own_queue = own_queue

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        """What the SDK makes one of for each run."""
        own_queue = self._own_queue

        class Inbound(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(_Outbound(outbound, own_queue))

        return Inbound


class _Outbound(WorkflowOutboundInterceptor):
    def __init__(self, following: WorkflowOutboundInterceptor, own_queue: str) -> None:
        super().__init__(following)
        self._own_queue = own_queue

    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:
        is_private = input.schedule_to_start_timeout == PRIVATE_QUEUE_WAIT
        if is_private and input.task_queue != self._own_queue and workflow.info().workflow_type == EXPERT_RUN:
            # Replay compares ids and types of calls, never their timeouts.
            input.schedule_to_start_timeout = FOREIGN_QUEUE_WAIT
        return super().start_activity(input)
