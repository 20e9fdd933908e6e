"""`call_tool`: one tool call of the last message, on the session that holds its arguments."""

import time

from temporalio import activity

from ..core.conversation import Appendix
from ..core.expert import BASE_SKILL
from ..core.messages import ToolCallPart
from ..core.tools import (
    ATTEMPT_COMPLETION,
    IN_ORDER_TOOLS,
    ToolOutcome,
    ToolSpec,
    remaining_todos,
    renamed_tools,
    text_outcome,
)
from ..workflows.contracts import CALL_TOOL, CallAnswer, CallRequest
from .boundary import failures_translated, heartbeating, worker_leaving
from .providers.base import INVALID_JSON_ARGUMENT
from .session import RunSession, calling_run
from .sessions import Sessions

CALL_ID_META = "perstack/call"
"""In the `_meta` of an MCP call: the same for every try of one call, so that a server can tell a repeat."""


class ToolCaller:
    """The activity with the worker's resources."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    @activity.defn(name=CALL_TOOL.name)
    async def call_tool(self, request: CallRequest) -> CallAnswer:
        """Call one tool; what goes wrong in it is an answer for the model, not a failure."""
        key = calling_run()
        if activity.info().is_local:
            session = self._sessions.held(key, request.position)
            if session is None:
                return CallAnswer()
            outcome = await self._call(session, request)
            if _is_last(session, request, outcome):
                await self._sessions.drop(key)
            return CallAnswer(outcome=outcome)
        if self._sessions.is_draining:
            raise worker_leaving()
        async with heartbeating(), failures_translated():
            session = await self._sessions.at(key, request.position, Appendix())
            outcome = await self._call(session, request)
            if _is_last(session, request, outcome):
                await self._sessions.drop(key)
            if self._sessions.is_draining:
                outcome = outcome.model_copy(update={"is_draining": True})
            return CallAnswer(outcome=outcome)

    async def _call(self, session: RunSession, request: CallRequest) -> ToolOutcome:
        known = session.outcomes.get(request.index)
        if known is not None:
            return known  # a local call may be asked for twice; its effect on the todos must not double
        call = session.calls[request.index]
        spec = next(spec for spec in session.toolset.specs if spec.name == call.tool_name)
        session.in_use += 1
        try:
            outcome = session.redactor.outcome(await self._run(session, spec, call, step=request.step))
        finally:
            session.in_use -= 1
            session.used_at = time.monotonic()
        if outcome.started is not None:
            renamed = renamed_tools(session.toolset.specs, outcome.started.name)
            outcome = outcome.replaced(started=outcome.started.replaced(renamed_tools=renamed))
        session.outcomes[request.index] = outcome
        return outcome

    async def _run(self, session: RunSession, spec: ToolSpec, call: ToolCallPart, *, step: int) -> ToolOutcome:
        args = call.args
        if INVALID_JSON_ARGUMENT in args:
            text = f"The arguments of {spec.name} were no JSON object: {args[INVALID_JSON_ARGUMENT]}"
            return text_outcome(text, is_error=True)
        if spec.skill_name != BASE_SKILL:
            return await session.skills.call(
                spec,
                args,
                known=session.known_skills,
                timeout_seconds=session.start.settings.limits.timeout_ms / 1000,
                meta={CALL_ID_META: f"{session.start.job_id}:{step}:{call.tool_call_id}"},
            )
        if spec.name not in IN_ORDER_TOOLS:
            answer = await session.skills.call_base(spec.name, args, todos=session.todos)
            return answer.outcome
        async with session.in_order:
            answer = await session.skills.call_base(spec.name, args, todos=session.todos)
            if answer.todos is not None:
                session.todos = answer.todos
            return answer.outcome


def _is_last(session: RunSession, request: CallRequest, outcome: ToolOutcome) -> bool:
    """Whether the run ends with this outcome."""
    name = session.calls[request.index].tool_name
    return name == ATTEMPT_COMPLETION and not outcome.is_error and not remaining_todos(outcome.result)
