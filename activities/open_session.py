"""`open_session`: find the workspace, list the tools, render the instruction; all of it is recorded."""

import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from temporalio import activity

from ..client.locations import HIDDEN_FOLDER, WORKSPACE_MARKER
from ..core.failures import Failure, WorkspaceError
from ..core.prompts import Environment, render_instruction
from ..core.run import RunInput, SessionReport
from ..core.skills import SkillStart
from ..core.tools import ToolSpec, interactive_tools, renamed_tools, with_unique_names
from ..workflows.contracts import OPEN_SESSION, OpenRequest
from .boundary import (
    Heartbeats,
    failures_translated,
    time_limit_seconds,
    to_application_error,
    within,
    worker_leaving,
)
from .session import RunSession, calling_run
from .sessions import Sessions
from .settling import Settler

LEAVING_RETRY_SECONDS = 0.1


class SessionOpener:
    """The activity with the worker's resources."""

    def __init__(
        self, sessions: Sessions, heartbeats: Heartbeats, settler: Settler, *, queue: str, is_sandbox: bool
    ) -> None:
        self._sessions = sessions
        self._settler = settler
        self._heartbeats = heartbeats
        self._queue = queue
        self._is_sandbox = is_sandbox

    @activity.defn(name=OPEN_SESSION.name)
    async def open_session(self, request: OpenRequest) -> SessionReport:
        """Open the session of the calling run on this worker."""
        async with self._heartbeats.beating(), failures_translated(retry_after_seconds=LEAVING_RETRY_SECONDS):
            session = await self._sessions.open(calling_run())
            expected = request.workspace_id or session.start.settings.workspace_id
            workspace_id = workspace_marker(session.start.settings.workspace, expected=expected)
            report = SessionReport(queue=self._queue, workspace_id=workspace_id)
            if request.is_first:
                # Skills may take longer to start than a session may be idle.
                session.in_use += 1
                try:
                    async with within(time_limit_seconds(), is_retryable=True):
                        report = await self._first(session, report)
                finally:
                    session.in_use -= 1
                    session.used_at = time.monotonic()
            if self._sessions.is_draining:
                # Nobody would answer on the queue of this worker: the next one opens the session.
                raise worker_leaving(retry_after_seconds=LEAVING_RETRY_SECONDS)
            return await self._settler.settle(lambda: report)

    async def _first(self, session: RunSession, report: SessionReport) -> SessionReport:
        starts, specs = await _skills_of(session)
        session.toolset = session.toolset.replaced(skill_tools=specs)
        instruction = render_instruction(session.start.expert, session.toolset.specs, self._facts(session.start))
        if not session.messages:
            session.open_conversation(instruction)
        return report.model_copy(update={"instruction": instruction, "skill_tools": specs, "skills": starts})

    def _facts(self, start: RunInput) -> Environment:
        return Environment(
            time=datetime.now(UTC).astimezone().isoformat(timespec="seconds"),
            working_directory=start.settings.workspace,
            is_sandbox=self._is_sandbox,
        )


async def _skills_of(session: RunSession) -> tuple[tuple[SkillStart, ...], tuple[ToolSpec, ...]]:
    """What came up and what the run is offered; with a lock nothing but the base skill is started."""
    start = session.start
    base = session.skills.base_tools
    starts: tuple[SkillStart, ...] = ()
    found = start.locked_tools.get(start.expert_key)
    if found is None:
        starts, found = await session.skills.start(start.expert.skills)
    # A person is asked by the root only.
    people = interactive_tools(start.expert.skills) if start.delegated_by is None else ()
    attached = {skill.name for skill in session.toolset.added_skills}
    added = (tool for tool in session.toolset.skill_tools if tool.skill_name in attached)
    tools = with_unique_names((*base, *found, *people, *added))
    named = (start.replaced(renamed_tools=renamed_tools(tools, start.name)) for start in starts)
    return (session.skills.base_start, *named), tools


def workspace_marker(workspace: str, *, expected: str | None) -> str:
    """The id of a workspace, written at its first use.

    Raises:
        ApplicationError: this worker does not have the workspace; another one may.
        WorkspaceError: the workspace cannot be written.
    """
    folder = Path(workspace)
    marker = folder / HIDDEN_FOLDER / WORKSPACE_MARKER
    found = marker.read_text().strip() if marker.is_file() else None
    if not folder.is_dir() or (expected is not None and found != expected):
        missing = f"This worker has no workspace {workspace}" + (f" with id {expected}." if expected else ".")
        error = WorkspaceError(missing, code="workspace.elsewhere")
        failure = Failure(name=error.code, message=error.message, is_retryable=True)
        raise to_application_error(error, failure=failure)
    if found is not None:
        return found
    try:
        marker.parent.mkdir(exist_ok=True)
        fresh = uuid.uuid4().hex
        temporary = marker.with_suffix(f".{fresh}")
        temporary.write_text(fresh + "\n")
        try:
            marker.hardlink_to(temporary)
        except FileExistsError:
            pass  # another run of this workspace was faster; its id holds
        finally:
            temporary.unlink()
        return marker.read_text().strip()
    except OSError as error:
        text = f"The workspace {workspace} cannot be written: {error.strerror or error}."
        raise WorkspaceError(text, code="workspace.unwritable") from error
