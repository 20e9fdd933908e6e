"""A job that this process starts, takes over or follows, over all its executions: the screens' handle on it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from decimal import Decimal
from typing import Protocol

from temporalio.service import RPCError

from ..client.connection import rpc_failures
from ..client.filelock import is_free
from ..client.follow import JobFollower
from ..client.history import Execution
from ..client.jobs import JobView
from ..client.locks import JobLock
from ..client.tail import HeartbeatTails
from ..core.events import Event, RunBase
from ..core.failures import PerstackError, ServerError, UsageError
from ..core.usage import Usage
from .connection import Connection
from .continuing import resumed
from .detached import hand_over
from .diagnostics import ExitCode, exit_code_of, say, show_error
from .following import announce, tell_left, tell_stop
from .holding import Hold, MovingDeltas
from .read_job import cost, is_question, stop_of, told
from .tui.backend import Ended, Stop
from .workers import NO_WORKER, Beginning, attended, begun, job_queue

GUARD_SECONDS = 1.0
"""Between two looks whether somebody still works on a job that is watched."""
STANDING_SECONDS = 2.0
"""The same, whether somebody has gone on with a job that had ended."""
CANCEL_SECONDS = 10.0
"""How long a job that is left while it is being cancelled may take to end."""


class Definitions(Protocol):
    """With what a job goes on."""

    async def continued(self, view: JobView, query: str) -> Beginning:
        """The next execution of a closed job.

        Raises:
            PerstackError: the job cannot go on.
        """
        ...


class LiveJob:
    """A `JobHandle`; everything that changes who works on the job happens one after another."""

    def __init__(
        self, connection: Connection, job_id: str, *, provider: str, address: str | None, definitions: Definitions
    ) -> None:
        self.job_id = job_id
        self.provider = provider
        self.is_detached = False
        self._connection = connection
        self._address = address
        self._definitions = definitions
        self._hold: Hold | None = None
        self._turn = asyncio.Lock()
        self._tails = HeartbeatTails(connection.client)
        self._deltas = MovingDeltas(self._tails)
        self._executions: list[Execution] = []
        """Those that are followed, the newest last."""
        self._newest: Execution | None = None
        self._ended: Execution | None = None
        """The server's newest, when it was asked after the end last."""
        self._follower: JobFollower | None = None
        self._stop: Stop | None = None
        """How the job stands still, unless it is at work."""
        self._has_stopped = asyncio.Event()
        self._is_cancelling = False
        self._was_ours = False
        self._failure: PerstackError | None = None
        """Why it cannot be followed or worked on any more."""
        self._has_reader = False
        self._listen()
        self._guarding = asyncio.create_task(self._guard())

    def _listen(self) -> None:
        """Follow from nothing on: whatever `_follow` names."""
        self._executions.clear()
        self._failure = self._stop = None
        self._ahead: asyncio.Queue[tuple[Execution, ...]] = asyncio.Queue()
        self._out: asyncio.Queue[Event | Ended | Stop | Exception | None] = asyncio.Queue()
        self._following = asyncio.create_task(self._follow_all())

    @property
    def link(self) -> str | None:
        """Where the Temporal Web UI shows its newest execution."""
        return self._connection.link(self._newest) if self._newest else None

    @property
    def is_ours(self) -> bool:
        """Whether leaving parks it."""
        return self._hold is not None and not self._has_ended

    @property
    def is_at_work(self) -> bool:
        """Whether it has neither ended nor asks a person."""
        return self._stop is None

    @property
    def _has_ended(self) -> bool:
        return self._stop is not None and not self._waits

    @property
    def _waits(self) -> bool:
        return self._stop is not None and self._stop.kind == "stoppedByInteractiveTool"

    async def begin(self, beginning: Beginning, past: JobView | None = None) -> None:
        """Start an execution of the job and follow it, from the beginning of what it goes on from."""
        async with self._changing():
            chain = await self._chain(past) if past is not None else ()
            await self._begin(beginning, *chain)

    async def attach(self, view: JobView) -> None:
        """Follow a job that is there, from its beginning, and see to it that an open one is worked on."""
        async with self._changing():
            await self._attach(view)

    async def events(self) -> AsyncIterator[Event | Ended | Stop]:
        """Everything that happened and happens, until the job is left; asked for again, from the beginning."""
        if self._has_reader:
            async with self._changing():
                # First: while nobody can be asked, the job stands as it was seen last.
                view = await self._connection.jobs.view(self.job_id)
                await self._stop_following()
                self._listen()
                await self._attach(view)
        self._has_reader = True
        out = self._out
        while (item := await out.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def cost(self, model: str, usage: Usage) -> Decimal | None:
        """By the provider's list."""
        return cost(self.provider, model, usage)

    async def respond(self, call_id: str, text: str) -> None:
        """Answer a question; where nobody works on the job any more, we do."""
        async with self._changing():
            jobs = self._connection.jobs
            view = await jobs.view(self.job_id)
            await jobs.open_question(view, call_id)
            await self._attend(view)
            await jobs.respond(view, call_id, text)
            await self._catch_up(view)

    async def go_on(self, query: str) -> None:
        """Start the next execution with a new query."""
        async with self._changing():
            view = await self._connection.jobs.view(self.job_id)
            await self._catch_up(view)
            await self._begin(await self._definitions.continued(view, query))

    async def resume(self) -> None:
        """Go on with what stopped before its end, or take over what nobody works on."""
        async with self._changing():
            view = await self._connection.jobs.view(self.job_id)
            await self._catch_up(view)
            if view.is_open:
                await self._attend(view)
                return
            beginning = await resumed(self._connection, view)
            if beginning is None:
                raise UsageError(
                    f"Job {self.job_id} is done: there is nothing to resume.",
                    code="usage.completed",
                    hint="Give it another query.",
                )
            await self._begin(beginning)

    async def cancel(self) -> None:
        """Ask the job to end; its events tell when it has."""
        async with self._changing():
            view = await self._connection.jobs.view(self.job_id)
            if view.is_open:
                await self._attend(view, is_ending=True)
                await self._connection.jobs.cancel(view)
                self._is_cancelling = True

    async def detach(self) -> None:
        """Hand the work over to a background process; one that waits for a person needs none."""
        async with self._changing():
            if self._hold is None or self._has_ended:
                return
            await self._leave()
            self.is_detached = True
            if self._waits:
                return
            try:
                await hand_over(self._connection, JobLock(self._connection.data, self.job_id), address=self._address)
            except PerstackError:
                self.is_detached = False
                view = await self._connection.jobs.view(self.job_id)
                if view.is_open:
                    await self._attend(view)
                raise

    async def close(self) -> None:
        """Leave the job as it stands."""
        async with self._turn:
            if self._is_cancelling and self.is_ours:
                # Without a worker it would stay open.
                with suppress(TimeoutError):
                    async with asyncio.timeout(CANCEL_SECONDS):
                        await self._has_stopped.wait()
            self._was_ours = self._was_ours or self.is_ours
            self._guarding.cancel()
            await self._stop_following()
            await self._leave()

    def tell(self) -> ExitCode:
        """Say on stderr, once it is left, what became of it, and how to go on."""
        if self._newest is None:
            return ExitCode.FAILED
        if self._stop is not None and self._follower is not None:
            return tell_stop(self._connection, self._newest, self._follower, is_ours=self._was_ours)
        announce(self._connection, self._newest)
        if self.is_detached:
            say(f"job {self.job_id} goes on in the background; its log is {self._connection.data.job_log(self.job_id)}")
            say(f"follow it with: perstack resume {self.job_id}")
            return ExitCode.COMPLETED
        tell_left(self.job_id, is_ours=self._was_ours)
        if self._failure is not None:
            show_error(self._failure)
            return exit_code_of(self._failure)
        return ExitCode.INTERRUPTED

    @asynccontextmanager
    async def _changing(self) -> AsyncGenerator[None]:
        async with self._turn:
            with rpc_failures(self._connection.info):
                yield

    async def _attach(self, view: JobView) -> None:
        if view.is_open:
            try:
                await self._attend(view)
            except ServerError as error:
                if error.code != NO_WORKER:
                    raise
                say(f"{error.message} {error.hint}")
        await self._catch_up(view)

    async def _begin(self, beginning: Beginning, *past: Execution) -> None:
        await self._leave()
        hold = Hold(begun(self._connection, beginning), self._worker_failed)
        work = await hold.begun()
        if work.feed is None:
            await hold.leave()
        else:
            self._hold = hold
            self._deltas.use(work.feed)
        self._follow(*past, work.execution)

    async def _attend(self, view: JobView, *, is_ending: bool = False) -> None:
        if self._hold is not None:
            return
        hold = Hold(attended(self._connection, view, is_ending=is_ending), self._worker_failed)
        work = await hold.begun()
        if work.feed is None:
            await hold.leave()
            return
        self._hold, self.is_detached = hold, False
        self._deltas.use(work.feed)

    async def _guard(self) -> None:
        """See to a job that we only watch: take over from a process that is gone, hear of what others begin."""
        may_work = True
        while True:
            await asyncio.sleep(GUARD_SECONDS if self.is_at_work else STANDING_SECONDS)
            if self._newest is None or self._hold is not None:
                continue
            with suppress(PerstackError):  # the server, or the storage, may be back at the next look
                if self._has_ended:
                    async with self._changing():
                        await self._hear_of_others()
                elif may_work and self.is_at_work and is_free(self._connection.data.job_lock(self.job_id)):
                    may_work = await self._take_over()

    async def _hear_of_others(self) -> None:
        """Follow what somebody else has made of a job that had ended."""
        view = await self._connection.jobs.view(self.job_id)
        if view.execution != self._ended:
            await self._catch_up(view)
            self._ended = view.execution

    async def _take_over(self) -> bool:
        """Work on the job, where nobody does any more; false where we cannot, or a pool sees to that itself."""
        try:
            async with self._changing():
                view = await self._connection.jobs.view(self.job_id)
                if view.task_queue != job_queue(self.job_id):
                    return False
                if view.is_open and self.is_at_work:
                    await self._attend(view)
        except ServerError:
            raise
        except PerstackError as error:
            say(f"nobody works on job {self.job_id} any more, and it cannot go on here: {error.message}")
            return False
        if self.is_ours:
            say(f"the process that worked on job {self.job_id} is gone; this one goes on with it")
        return True

    async def _leave(self) -> None:
        if self._hold is not None:
            hold, self._hold = self._hold, None
            await hold.leave()
            self._deltas.use(self._tails)

    async def _catch_up(self, view: JobView) -> None:
        """Follow what others have started of the job, too."""
        known = set(self._executions)
        self._follow(*(execution for execution in await self._chain(view) if execution not in known))

    async def _chain(self, view: JobView) -> tuple[Execution, ...]:
        return await self._connection.jobs.histories.job_chain(view.execution)

    def _follow(self, *executions: Execution) -> None:
        if executions:
            self._stop, self._is_cancelling = None, False
            self._has_stopped.clear()
            self._executions.extend(executions)
            self._newest = executions[-1]
            self._ahead.put_nowait(executions)

    async def _stop_following(self) -> None:
        self._following.cancel()
        await asyncio.wait([self._following])
        self._out.put_nowait(None)

    async def _follow_all(self) -> None:
        """Follow one execution after another, whoever works on them."""
        try:
            while True:
                await self._follow_to_end(*await self._ahead.get())
        except (PerstackError, RPCError) as error:
            self._fail(self._in_words(error))
        except Exception as error:
            # A bug: whoever reads the events tells of it.
            self._out.put_nowait(error)

    async def _follow_to_end(self, *executions: Execution) -> None:
        follower = JobFollower(self._connection.jobs.histories, *executions, deltas=self._deltas)
        async with aclosing(follower.news()) as news:
            async for item in news:
                self._follower = follower
                if isinstance(item, RunBase):
                    self._stop = None
                self._out.put_nowait(told(item))
                if is_question(item, follower):
                    self._stand_still(follower)
        self._follower = follower
        self._stand_still(follower)
        # Who has begun to go on with it meanwhile has left already.
        async with self._turn:
            if self._executions[-1] == executions[-1]:
                await self._leave()

    def _stand_still(self, follower: JobFollower) -> None:
        self._stop = stop_of(follower)
        if self._stop is not None:
            self._out.put_nowait(self._stop)
            if self._has_ended:
                self._has_stopped.set()

    def _worker_failed(self, error: BaseException) -> None:
        self._hold = None
        self._was_ours = True
        self._deltas.use(self._tails)
        self._fail(self._in_words(error))

    def _fail(self, error: PerstackError) -> None:
        self._failure = error
        self._out.put_nowait(error)

    def _in_words(self, error: BaseException) -> PerstackError:
        try:
            with rpc_failures(self._connection.info):
                raise error
        except PerstackError as known:
            return known
        except BaseException as unknown:
            return ServerError(
                f"The worker of job {self.job_id} failed: {unknown or type(unknown).__name__}",
                code="temporal.failed",
                hint=f"Nothing is lost; `perstack resume {self.job_id}` goes on with the job.",
            )
