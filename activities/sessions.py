"""Which sessions this worker holds, how one is made, and how one that fell behind is rebuilt from history."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from ..client.histories import Histories
from ..client.history import Execution
from ..client.storage.base import Storage
from ..core.cassette import Cassette
from ..core.conversation import Appendix, Position
from ..core.deltas import SkillSaid
from ..core.expert import BASE_SKILL, InteractiveSkill, McpSseSkill, McpStdioSkill, Skill, mcp_skills
from ..core.failures import Failure, StorageError
from ..core.run import RUNTIME_LEVEL, RunInput
from ..core.state import begin
from ..core.tools import Toolset, ToolSpec, interactive_tools, with_unique_names
from ..definitions.checks import SECRET_VARIABLES, delegation_problem
from ..definitions.dynamic import RunningJob, experts_from_tables, experts_from_text
from ..definitions.environment import read_env
from ..definitions.experts import ModelSettings
from ..definitions.hosts import AllowedEndpoints
from .boundary import to_application_error
from .feed import Feed
from .memory import give_back
from .providers.base import Provider
from .providers.cassette import CassetteProvider
from .providers.registry import ProviderRegistry
from .redaction import Redactor, secrets_of_run
from .session import RunKey, RunSession
from .skills import mcp
from .skills.base.dynamic import DynamicContext
from .skills.base.skill import BaseSkill
from .skills.base.workspace import Workspace
from .skills.endpoints import EndpointPolicy
from .skills.manager import SkillManager
from .skills.results import ToolFailure

if TYPE_CHECKING:
    from .skills.mcp.skill import McpSkill

IDLE_SECONDS = 900.0
"""How long a session may be without use before it is closed, with all it started; `PERSTACK_SESSION_IDLE` sets another
time. The next call opens it again."""
WAITING_SECONDS = 10.0
"""The same for the session of a run that waits for a person or for delegates and has no program running: nothing is
lost with it, and its history brings it back in milliseconds."""
IDLE_SKILL_SECONDS = 300.0
"""How long a skill's process may wait for its next call before it is ended; the call starts it again."""
TIDY_SECONDS = 5.0
CLOSING_SECONDS = 1.0
"""From the cancellation of a call to the look whether its run, and those above it, have ended."""
ASK_TIMEOUT = timedelta(seconds=5)


@dataclass
class SessionMaker:
    """Makes sessions from what this worker process has: its environment, its storage, its providers."""

    storage: Storage
    host_env: Mapping[str, str]
    feed: Feed = field(default_factory=Feed)
    providers: ProviderRegistry = field(default_factory=ProviderRegistry)
    endpoints: EndpointPolicy = field(init=False)
    _making_provider: asyncio.Lock = field(default_factory=asyncio.Lock)
    _cassettes: dict[str, Cassette] = field(default_factory=dict[str, Cassette])

    def __post_init__(self) -> None:
        self.endpoints = EndpointPolicy.from_env(self.host_env)

    async def make(self, key: RunKey, start: RunInput) -> RunSession:
        """A session without conversation, its base skill started."""
        settings = start.settings
        if any(mcp_skills(expert) for expert in start.experts.values()):
            # This run or one below it will need it.
            mcp.warm_up()
        await self._require_storage(settings.storage_id)
        env_files = read_env(settings.env_paths, {})
        env = read_env(settings.env_paths, self.host_env)
        redactor = Redactor(
            secrets_of_run(env_files, self.host_env, required_env=_required_env(start), workspace=settings.workspace)
        )
        skill = next((s for s in start.expert.skills if s.name == BASE_SKILL), McpStdioSkill(name=BASE_SKILL))
        assert isinstance(skill, McpStdioSkill)
        begun = begin(start)
        toolset = begun.toolset
        dynamic = DynamicContext(
            expert_key=start.expert_key,
            toolset=lambda: session.toolset,
            load_experts=lambda text, source, root: experts_from_text(
                text, source=source, root=root, job=_running_job(start, session.toolset, self.endpoints.allowed)
            ),
            load_tables=lambda experts, source, root: experts_from_tables(
                experts, source=source, root=root, job=_running_job(start, session.toolset, self.endpoints.allowed)
            ),
            delegation_problem=delegation_problem,
            allowed_env=frozenset(settings.allowed_env),
            credential_names=SECRET_VARIABLES,
            attach_skill=lambda skill: _attached(session, skill),
        )
        base = BaseSkill(
            workspace=Workspace(Path(settings.workspace), tuple(Path(path) for path in settings.env_paths)),
            host_env=self.host_env,
            dynamic=dynamic,
            pick=skill.pick,
            omit=skill.omit,
        )
        told = self._stderr_of(key)
        skills = SkillManager(base, partial(self._skill, settings.workspace, env, redactor, told))
        session = RunSession(
            start=start,
            provider=partial(self._provider, start, env),
            skills=skills,
            redactor=redactor,
            toolset=toolset,
        )
        if begun.checkpoint.messages:
            session.restore(begun)
            session.take_message()
        return session

    def _skill(
        self,
        workspace: str,
        env: Mapping[str, str],
        redactor: Redactor,
        told: Callable[[str, str], None],
        definition: McpStdioSkill | McpSseSkill,
    ) -> "McpSkill":
        from .skills.mcp.skill import McpSkill

        return McpSkill(
            definition,
            env=env,
            cwd=Path(workspace),
            endpoints=self.endpoints,
            scrub=redactor.text,
            on_stderr=told,
        )

    def _stderr_of(self, key: RunKey) -> Callable[[str, str], None]:
        """Publishes what the skills of a run write; their pieces are counted together, so that no two are alike."""
        said = count()

        def told(skill_name: str, text: str) -> None:
            self.feed.publish(SkillSaid(key.workflow_id, key.temporal_run_id, skill_name, text, next(said)))

        return told

    async def _require_storage(self, expected: str) -> None:
        """A run's large payloads can only be read where they lie; another worker may have them."""
        if expected and expected != await self.storage.outages.through(lambda: self.storage.storage_id):
            text = f"This worker keeps payloads in another storage than the job: {self.storage.location}."
            error = StorageError(text, code="storage.other", hint="Give all workers of a pool the same storage.")
            failure = Failure(name=error.code, message=error.message, is_retryable=True)
            raise to_application_error(error, failure=failure)

    async def _provider(self, start: RunInput, env: Mapping[str, str]) -> Provider:
        settings = start.settings
        if settings.cassette is None:
            async with self._making_provider:
                return await asyncio.to_thread(
                    self.providers.provider,
                    start.expert.model.provider,
                    env=env,
                    setting=settings.provider_setting,
                )
        name = settings.cassette.sha256
        if name not in self._cassettes:
            cassette = settings.cassette
            content = await self.storage.outages.through(lambda: self.storage.get(cassette))
            self._cassettes[name] = Cassette.model_validate_json(content)
        return CassetteProvider(
            self._cassettes[name], is_strict=settings.is_replay_strict, workspace=settings.workspace
        )


def _required_env(start: RunInput) -> set[str]:
    """Every variable that a skill of the job may be given, now or from a definition made while it runs."""
    skills = (skill for expert in start.experts.values() for skill in expert.skills)
    named = {name for skill in skills if isinstance(skill, McpStdioSkill) for name in skill.required_env}
    return named | set(start.settings.allowed_env)


async def _attached(session: RunSession, skill: Skill) -> tuple[ToolSpec, ...]:
    """The tools of a skill that joins a run."""
    taken = [spec.name for spec in session.toolset.specs]
    if not isinstance(skill, InteractiveSkill):
        return await session.skills.attach(skill, taken)
    if session.start.delegated_by is not None:
        raise ToolFailure("Only the coordinator of a job may ask a person.")
    return with_unique_names(interactive_tools([skill]), taken)


def _running_job(start: RunInput, toolset: Toolset, allowed: AllowedEndpoints) -> RunningJob:
    rules = start.settings.models
    settings = ModelSettings(
        provider=rules.provider,
        model_override=rules.model_override,
        model=rules.model,
        default_tier=rules.default_tier,
        reasoning_budget=rules.reasoning_budget,
    )
    return RunningJob(
        settings=settings,
        runtime_version=RUNTIME_LEVEL,
        known=frozenset(toolset.experts),
        allowed_env=frozenset(start.settings.allowed_env),
        allowed_endpoints=allowed,
    )


_GOES_ON = (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW)
"""The next execution of a run takes over the session of the last one."""


class Sessions:
    """All sessions of one worker process, by execution."""

    def __init__(
        self,
        client: Client,
        make: Callable[[RunKey, RunInput], Awaitable[RunSession]],
        *,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._client = client
        self._histories = Histories.on(client)
        self._make = make
        self._idle_seconds = idle_seconds
        self._sessions: dict[RunKey, RunSession] = {}
        self._locks: dict[RunKey, asyncio.Lock] = {}
        self.called_at = 0.0
        """When the last call came that only this process could take, on the monotonic clock."""
        self.is_draining = False
        """Set when the worker is leaving: results then ask the workflow to go elsewhere."""
        self.let_go: Callable[[str], None] = lambda temporal_run_id: None
        """Told of an execution whose session was closed because nobody used it."""
        self._has_let_go = False
        self._stirred = asyncio.Event()

    def __len__(self) -> int:
        return len(self._sessions)

    def held(self, key: RunKey, position: Position) -> RunSession | None:
        """The session of a run if this process has it at `position`."""
        session = self._sessions.get(key)
        return session if session is not None and session.position == position else None

    async def open(self, key: RunKey) -> RunSession:
        """The session of a run, made if need be; its conversation may be empty."""
        async with self._locks.setdefault(key, asyncio.Lock()):
            session = self._sessions.get(key)
            if session is None:
                await self._evict_idle()
                start = await self._histories.read_input(Execution(key.workflow_id, key.temporal_run_id))
                session = self._sessions[key] = self._adopted(key, start) or await self._make(key, start)
            session.used_at = time.monotonic()
            return session

    def _adopted(self, key: RunKey, start: RunInput) -> RunSession | None:
        """The session that the execution before this one left here: a run is more than one of its executions."""
        if start.carried is None or start.previous is None:
            return None
        left = RunKey(key.workflow_id, start.previous)
        self._locks.pop(left, None)
        session = self._sessions.pop(left, None)
        if session is not None:
            session.start = begin(start).start
        return session

    async def at(self, key: RunKey, position: Position, appendix: Appendix) -> RunSession:
        """The session of a run at `position`, rebuilt from the run's own history where it is behind.

        Raises:
            RuntimeError: even the history leads elsewhere.
        """
        session = await self.open(key)
        async with self._locks[key]:
            if not session.reach(position, appendix):
                reader = await self._histories.read_run(Execution(key.workflow_id, key.temporal_run_id))
                assert reader.fold is not None
                session.restore(reader.fold.state)
                if not session.reach(position, appendix):
                    raise RuntimeError(f"the history of {key.workflow_id} does not lead to {position}")
        return session

    async def drop(self, key: RunKey) -> None:
        """Close the session of a run that has very likely ended; one that goes on is rebuilt."""
        session = self._sessions.pop(key, None)
        self._locks.pop(key, None)
        if session is not None:
            await session.skills.close()

    async def keep_tidy(self) -> None:
        """End what nobody uses, until cancelled: whole sessions, and processes of skills."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TIDY_SECONDS):
                    await self._stirred.wait()
            if self._stirred.is_set():
                self._stirred.clear()
                await asyncio.sleep(CLOSING_SECONDS)
            await self._give_back()
            await self._evict_idle()
            await asyncio.gather(*(self._drop_if_ended(key) for key in tuple(self._sessions)))
            left = tuple(self._sessions.values())
            await asyncio.gather(*(session.skills.close_idle(IDLE_SKILL_SECONDS) for session in left))

    def stir(self) -> None:
        """A call was cancelled: runs may have ended whose programs are still there, so be tidy soon."""
        self._stirred.set()

    async def _drop_if_ended(self, key: RunKey) -> None:
        """A run that was cancelled, or reached its limit, tells its worker nothing: ask, where programs are running."""
        session = self._sessions.get(key)
        if session is None or session.in_use or not session.skills.has_programs:
            return
        handle = self._client.get_workflow_handle(key.workflow_id, run_id=key.temporal_run_id)
        with suppress(RPCError):
            description = await handle.describe(rpc_timeout=ASK_TIMEOUT)
            if description.status not in _GOES_ON and not session.in_use:
                await self.drop(key)

    async def close(self) -> None:
        """Close every session."""
        sessions = list(self._sessions.values())
        self._sessions.clear()
        await asyncio.gather(*(session.skills.close() for session in sessions), return_exceptions=True)

    async def _evict_idle(self) -> None:
        idle = [key for key in self._sessions if self._is_idle(key)]
        await asyncio.gather(*(self.drop(key) for key in idle), return_exceptions=True)
        for key in idle:
            self.let_go(key.temporal_run_id)
            self._has_let_go = True

    async def _give_back(self) -> None:
        """A round after sessions were closed, when the rest of their runs is gone, too, and nobody has to wait."""
        if self._has_let_go and not any(session.in_use for session in self._sessions.values()):
            self._has_let_go = False
            await asyncio.to_thread(give_back)

    def _is_idle(self, key: RunKey) -> bool:
        session = self._sessions[key]
        if session.in_use or self._locks[key].locked():
            return False
        idle = time.monotonic() - session.used_at
        if idle > self._idle_seconds:
            return True
        return idle > WAITING_SECONDS and session.is_waiting and not session.skills.has_programs
