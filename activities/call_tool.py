"""`call_tool`: one tool call of the last message, on the session that holds its arguments."""

import asyncio
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
from .boundary import Heartbeats, failures_translated, time_limit_seconds, within, worker_leaving
from .providers.base import INVALID_JSON_ARGUMENT
from .session import RunSession, calling_run
from .sessions import Sessions
from .settling import Settler

CALL_ID_META = "perstack/call"
"""In the `_meta` of an MCP call: the same for every try of one call, so that a server can tell a repeat."""


class ToolCaller:
    """The activity with the worker's resources."""

    def __init__(self, sessions: Sessions, heartbeats: Heartbeats, settler: Settler) -> None:
        self._sessions = sessions
        self._settler = settler
        self._heartbeats = heartbeats

    @activity.defn(name=CALL_TOOL.name)
    async def call_tool(self, request: CallRequest) -> CallAnswer:
        """Call one tool; what goes wrong in it is an answer for the model, not a failure."""
        key = calling_run()
        if activity.info().is_local:
            session = self._sessions.held(key, request.position)
            if session is None:
                return CallAnswer()
            answer = CallAnswer(outcome=await self._call(session, request))
            if not await self._settler.is_settled(answer):
                # A local call may not wait long and gives no signs of life: asked again as a remote one, it can.
                return CallAnswer()
            await self._drop_if_last(session, request, answer)
            return answer
        self._sessions.called_at = time.monotonic()
        if self._sessions.is_draining:
            raise worker_leaving()
        async with self._heartbeats.beating(), failures_translated():
            session = await self._sessions.at(key, request.position, Appendix())
            async with within(time_limit_seconds()):
                outcome = await self._call(session, request)
            answer = await self._settler.settle(
                lambda: CallAnswer(outcome=outcome.replaced(is_draining=self._sessions.is_draining))
            )
            await self._drop_if_last(session, request, answer)
            return answer

    async def _drop_if_last(self, session: RunSession, request: CallRequest, answer: CallAnswer) -> None:
        """Close the session of a run that ends with this answer."""
        name = session.calls[request.index].tool_name
        outcome = answer.outcome
        if name == ATTEMPT_COMPLETION and outcome and not outcome.is_error and not remaining_todos(outcome.result):
            await self._sessions.drop(calling_run())

    async def _call(self, session: RunSession, request: CallRequest) -> ToolOutcome:
        known = session.outcomes.get(request.index)
        if known is not None:
            return known  # a local call may be asked for twice; its effect on the todos must not double
        call = session.calls[request.index]
        spec = next(spec for spec in session.toolset.specs if spec.name == call.tool_name)
        session.in_use += 1
        try:
            outcome = session.redactor.outcome(await self._run(session, spec, call, step=request.step))
        except asyncio.CancelledError:
            self._sessions.stir()
            raise
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
