"""The world behind the screens: the jobs of a server, or the one in a file (`cli/tui/backend.py`)."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ..client.connection import rpc_failures
from ..client.follow import JobFollower
from ..client.history import Execution
from ..client.jobs import JobSummary, JobView
from ..core.failures import UsageError
from ..core.ids import cuid_from
from ..definitions.hosts import allowed_endpoints
from ..definitions.load import BUILTIN_EXPERT, LoadedConfig, builtin_config, load_config
from ..definitions.resolve import unknown_expert
from .commands.run import Past, PreparedRun, RunOptions, prepare
from .connection import Connection
from .continuing import continued, continued_as_recorded, past_job
from .diagnostics import ExitCode, say
from .job import new_job, require_job_id
from .live_job import LiveJob
from .read_job import ReadJob, stop_of
from .tui.backend import ExpertChoice, JobChoice
from .workers import Beginning, load_ahead

if TYPE_CHECKING:
    from ..client.exports import ExportedJob

BUILT_IN = "built-in"
_WITHOUT_DEFINITION = frozenset({"usage.unknown_expert", "usage.config_not_found"})


class LiveBackend:
    """The jobs of a server; those that screens start or open are worked on in this process, where nobody else does."""

    can_work = True

    def __init__(self, connection: Connection, options: RunOptions, prepared: PreparedRun | None = None) -> None:
        self._connection = connection
        self._options = options
        """What was typed; of it, `job_id` and `files` are for the first job."""
        self._prepared = prepared
        """What was typed, checked, until it is used."""
        self._jobs: list[LiveJob] = []
        """All that were started or opened."""

    @property
    def place(self) -> str:
        """The server."""
        return self._connection.info.address

    def experts(self) -> Sequence[ExpertChoice]:
        """Those of the definition in use, then the built-in ones; without those that only others call."""
        loaded = load_config(
            self._options.config, cwd=Path.cwd(), expert_key=BUILTIN_EXPERT, allowed=allowed_endpoints(os.environ)
        )
        return expert_choices(loaded)

    def expert(self, key: str) -> ExpertChoice:
        """One of them, or any other that the definition has.

        Raises:
            PerstackError: the definition has none such, or cannot be read.
        """
        loaded = load_config(
            self._options.config, cwd=Path.cwd(), expert_key=key, allowed=allowed_endpoints(os.environ)
        )
        if key not in loaded.toml.experts:
            raise unknown_expert(key, loaded)
        return _expert_choice(key, loaded)

    def built_in_experts(self) -> Sequence[ExpertChoice]:
        """Those that need no definition."""
        return expert_choices(builtin_config())

    async def jobs(self, take: int) -> Sequence[JobChoice]:
        """Open ones first, then those that ended last."""
        with rpc_failures(self._connection.info):
            return [_choice(summary) async for summary in self._connection.jobs.list(take=take)]

    async def start(self, expert_key: str, query: str) -> LiveJob:
        """Start a job, and work on it unless a pool does."""
        prepared = self._prepared
        typed = (prepared.options.expert_key, prepared.options.query) if prepared is not None else None
        if prepared is None or prepared.past is not None or typed != (expert_key, query):
            options = replace(self._options, expert_key=expert_key, query=query, is_latest=False, continue_job=None)
            prepared = await asyncio.to_thread(prepare, replace(options, resume_from=None, is_branch=False))
        self._use_up()
        if prepared.cassette is None:
            load_ahead(prepared.job.provider, prepared.job.experts.values())
        with rpc_failures(self._connection.info):
            beginning = await new_job(self._connection, prepared)
        return await self._begun(prepared.job_id, beginning, provider=prepared.job.provider)

    async def go_on(self, prepared: PreparedRun, past: Past) -> LiveJob:
        """What `--continue`, `--continue-job`, `--resume-from` and `--branch` say."""
        self._use_up()
        load_ahead(prepared.job.provider, prepared.job.experts.values())
        with rpc_failures(self._connection.info):
            view = await past_job(self._connection, prepared, past)
            beginning = await continued(self._connection, view, prepared, past)
        job_id = prepared.job_id if past.is_branch else view.start.job_id
        return await self._begun(
            job_id, beginning, provider=prepared.job.provider, past=None if past.is_branch else view
        )

    async def open(self, job_id: str) -> LiveJob:
        """An existing job, to work on where nobody does."""
        view = await self._view(job_id)
        job = self._job(job_id, provider=view.start.expert.model.provider)
        try:
            await job.attach(view)
        except BaseException:
            await job.close()
            raise
        self._jobs.append(job)
        return job

    async def latest(self) -> str:
        """The id of the job that was started last in this folder.

        Raises:
            UsageError: there is none.
        """
        with rpc_failures(self._connection.info):
            return await self._connection.jobs.latest_in(str(Path.cwd()))

    async def read(self, job_id: str) -> ReadJob:
        """An existing job, only to look at."""
        view = await self._view(job_id)

        @asynccontextmanager
        async def newest() -> AsyncGenerator[Execution]:
            with rpc_failures(self._connection.info):
                yield (await self._connection.jobs.view(job_id)).execution

        return ReadJob(
            self._connection.jobs.histories,
            job_id,
            newest=newest,
            provider=view.start.expert.model.provider,
            link=None if view.is_archived else self._connection.link(view.execution),
        )

    async def fork(self, job_id: str, checkpoint_id: str, query: str | None, *, is_branch: bool) -> LiveJob:
        """Go on from a checkpoint of any run."""
        view = await self._view(job_id)
        past = Past(
            job_id=job_id, checkpoint_id=checkpoint_id, is_branch=is_branch, is_answer=False, is_any_expert=True
        )
        prepared = await self._definition_of_today(view, query, past)
        branch_id = None
        if is_branch:
            branch_id = prepared.job_id if prepared is not None else cuid_from(os.urandom(16).hex())
        with rpc_failures(self._connection.info):
            if prepared is not None:
                beginning = await continued(self._connection, view, prepared, past)
            else:
                beginning = await continued_as_recorded(
                    self._connection, view, query, checkpoint_id=checkpoint_id, branch_id=branch_id
                )
        provider = view.start.expert.model.provider if prepared is None else prepared.job.provider
        return await self._begun(branch_id or job_id, beginning, provider=provider, past=None if is_branch else view)

    async def continued(self, view: JobView, query: str) -> Beginning:
        """The next execution of a job that screens show: with the definition in use, where that is the job's."""
        past = Past(job_id=view.start.job_id, checkpoint_id=None, is_branch=False, is_answer=False)
        prepared = await self._definition_of_today(view, query, past)
        if prepared is not None:
            return await continued(self._connection, view, prepared, past)
        return await continued_as_recorded(self._connection, view, query)

    async def close(self) -> ExitCode | None:
        """Leave every job, say on stderr what became of it, and with what exit code the last one stands.

        Nothing where there was none.
        """
        await asyncio.gather(*(job.close() for job in self._jobs))
        if not self._jobs:
            return None
        *before, last = self._jobs
        for job in {job.job_id: job for job in before if job.job_id != last.job_id}.values():
            if job.is_at_work:
                job.tell()
        return last.tell()

    def _use_up(self) -> None:
        self._prepared = None
        self._options = replace(self._options, job_id=None, files=())

    async def _begun(self, job_id: str, beginning: Beginning, *, provider: str, past: JobView | None = None) -> LiveJob:
        job = self._job(job_id, provider=provider)
        try:
            await job.begin(beginning, past)
        except asyncio.CancelledError:
            # Somebody left while the server was being asked.
            await job.close()
            say(f"job {job_id} may have begun; `perstack resume {job_id}` goes on with it then")
            raise
        except BaseException:
            await job.close()
            raise
        self._jobs.append(job)
        return job

    def _job(self, job_id: str, *, provider: str) -> LiveJob:
        return LiveJob(self._connection, job_id, provider=provider, address=self._options.address, definitions=self)

    async def _view(self, job_id: str) -> JobView:
        require_job_id(job_id)
        with rpc_failures(self._connection.info):
            return await self._connection.jobs.view(job_id)

    async def _definition_of_today(self, view: JobView, query: str | None, past: Past) -> PreparedRun | None:
        """What was typed for a job of this workspace; `None` where the job goes on with what it has."""
        if view.start.settings.workspace != str(Path.cwd()) or view.start.settings.cassette is not None:
            return None
        options = replace(
            self._options,
            expert_key=view.start.expert_key,
            query=query,
            is_latest=False,
            continue_job=past.job_id,
            resume_from=past.checkpoint_id,
            is_branch=past.is_branch,
            job_id=None,
            files=(),
            replay=None,
        )
        try:
            return await asyncio.to_thread(prepare, options)
        except UsageError as error:
            if error.code not in _WITHOUT_DEFINITION:
                raise
        say(f"{view.start.expert_key} is not defined here any more; it goes on as it was")
        return None


class ExportBackend:
    """The one job in a file; nothing can be done to it."""

    can_work = False

    def __init__(self, job: "ExportedJob", file: str) -> None:
        self.place = file
        self.job_id = job.job_id
        self._job = job

    def experts(self) -> Sequence[ExpertChoice]:
        """None: nothing is started here."""
        return ()

    def built_in_experts(self) -> Sequence[ExpertChoice]:
        """None."""
        return ()

    async def jobs(self, take: int) -> Sequence[JobChoice]:
        """The job of the file."""
        histories, newest = self._job.histories(), self._job.newest
        follower = JobFollower(histories, *await histories.job_chain(newest), wait=False)
        async for _ in follower.events():
            pass
        start, job = await histories.read_input(newest), follower.job()
        return [
            JobChoice(
                job_id=job.id,
                status=_status(follower),
                expert_key=start.expert_key,
                query=start.query or "",
                started_at=_time(job.started_at),
                closed_at=_time(job.finished_at) if job.finished_at else None,
                steps=job.total_steps,
                tokens=job.usage.input_tokens + job.usage.output_tokens,
            )
        ][:take]

    async def start(self, expert_key: str, query: str) -> ReadJob:
        """Not here."""
        raise self._only_read()

    async def open(self, job_id: str) -> ReadJob:
        """Not here."""
        raise self._only_read()

    async def read(self, job_id: str) -> ReadJob:
        """The job of the file."""
        if job_id != self._job.job_id:
            raise UsageError(f"{self.place} holds job {self._job.job_id}, not {job_id}.", code="usage.unknown_job")
        histories, newest = self._job.histories(), self._job.newest
        start = await histories.read_input(newest)
        return ReadJob(histories, job_id, newest=lambda: nullcontext(newest), provider=start.expert.model.provider)

    async def fork(self, job_id: str, checkpoint_id: str, query: str | None, *, is_branch: bool) -> ReadJob:
        """Not here."""
        raise self._only_read()

    def _only_read(self) -> UsageError:
        return UsageError(
            f"{self.place} is only looked at.",
            hint="`perstack import` puts its job where it can go on.",
        )


def expert_choices(loaded: LoadedConfig) -> list[ExpertChoice]:
    """The experts somebody may want to start: own ones first, without those that only others call."""
    called = {key for expert in loaded.toml.experts.values() for key in expert.delegates}
    keys = (key for key in loaded.toml.experts if not (key.startswith("@") and key in called))
    return sorted((_expert_choice(key, loaded) for key in keys), key=lambda choice: choice.source == BUILT_IN)


def _expert_choice(key: str, loaded: LoadedConfig) -> ExpertChoice:
    is_builtin = loaded.documents[key] is builtin_config().document
    source = BUILT_IN if is_builtin else loaded.source.rpartition("/")[2]
    return ExpertChoice(key=key, description=loaded.toml.experts[key].description or "", source=source)


def _choice(summary: JobSummary) -> JobChoice:
    return JobChoice(
        job_id=summary.job_id,
        status=summary.status,
        expert_key=summary.expert_key,
        query=summary.query,
        started_at=summary.started_at,
        closed_at=summary.closed_at,
        steps=summary.steps,
        tokens=summary.tokens,
    )


def _status(follower: JobFollower) -> str:
    """As a list of the server says it."""
    stop = stop_of(follower)
    if stop is None:
        return "running"
    if stop.kind == "stoppedByInteractiveTool":
        return "waiting"
    return follower.root.closed or stop.kind if stop.kind == "ended" else stop.kind


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
