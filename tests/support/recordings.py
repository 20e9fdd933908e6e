"""Jobs of every kind, played on a real server to be exported: what `tests/golden/histories` holds."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos.waiting import asker, asks_once
from perstack.client.connection import connect, known_search_attributes
from perstack.client.exports import ExportedJob, export_job
from perstack.client.follow import JobFollower
from perstack.client.history import Execution
from perstack.client.jobs import Jobs
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.core.events import ContinueToNextStep
from perstack.core.expert import Expert
from perstack.core.lineage import Words
from perstack.core.messages import TextPart, UserMessage
from perstack.core.run import Limits, RunInput
from perstack.workflows.contracts import WORKER_LOST
from temporalio.exceptions import ApplicationError

from . import deepest_recording
from .deepest import SHIP
from .model_server import Answer, Call, Json, ModelServer, Request
from .servers import own_server
from .teams import parallel_team, who
from .temporal import Bench, solo

Script = Callable[[Request], Answer]
LONGEST_SECONDS = 60.0
TEAM = (
    solo("team", delegates=("@team/one", "@team/two", "@team/three")),
    solo("@team/one"),
    solo("@team/two"),
    solo("@team/three"),
)
NESTED = (solo("top", delegates=("@top/mid",)), solo("@top/mid", delegates=("@top/low",)), solo("@top/low"))
EVENTS_BEFORE_NEXT = 40


@dataclass(frozen=True)
class Playing:
    """A job under way, for somebody who does something with it."""

    bench: Bench
    jobs: Jobs
    start: RunInput

    @property
    def root(self) -> Execution:
        """The newest execution of the root."""
        return Execution(self.start.job_id)

    async def until(self, event_type: str, *, count: int = 1) -> None:
        """Wait for the `count`-th event of a type."""
        seen = 0
        async with asyncio.timeout(LONGEST_SECONDS):
            async for event in JobFollower(self.jobs.histories, self.root).events():
                seen += event.type == event_type
                if seen == count:
                    return

    async def until_asked(self, count: int) -> None:
        """Wait until the model was asked for the `count`-th time."""
        async with asyncio.timeout(LONGEST_SECONDS):
            while len(self.bench.model.requests) < count:  # noqa: ASYNC110 - the server offers no event
                await asyncio.sleep(0.02)

    async def cancel(self) -> None:
        """Cancel the job."""
        await self.jobs.cancel(await self.jobs.view(self.start.job_id))

    async def lose(self, activity_id: str) -> None:
        """End a call as if its worker were gone."""
        handle = self.bench.client.get_async_activity_handle(
            workflow_id=self.start.job_id, run_id=None, activity_id=activity_id
        )
        await handle.fail(ApplicationError("The worker of this call is gone.", type=WORKER_LOST, non_retryable=True))


Act = Callable[[Playing], Awaitable[None]]
Next = Callable[[Playing], Awaitable[RunInput]]


@dataclass(frozen=True)
class Recording:
    """A job to be played."""

    experts: tuple[Expert, ...]
    script: Script
    act: Act | None = None
    """What somebody does while it runs."""
    goes_on: Next | None = None
    """The input of the execution that goes on with it; of another job where its id differs."""
    goes_on_again: Next | None = None
    """The same once more; then the job waits for a person."""
    query: str = "go"
    limits: Limits = field(default_factory=Limits)
    is_archiving: bool = False
    is_tight: bool = False
    """On a server that wants a new execution after a few steps."""


def reads(request: Request) -> Answer:
    """Writes a file, reads it twice in parallel, finishes with a todo list that was open once."""
    path = {"path": "a.txt"}
    match request.turn:
        case 1:
            note = Call(name="todo", args={"newTodos": ["x"]})
            return Answer(calls=(Call(name="writeTextFile", args={**path, "text": "a"}), note))
        case 2:
            twice = (Call(name="readTextFile", args=path), Call(name="readTextFile", args=path))
            return Answer(thinking="hm", calls=twice)
        case 3:
            return Answer(calls=(Call(name="attemptCompletion"),))
        case 4:
            return Answer(calls=(Call(name="todo", args={"completedTodos": [0]}), Call(name="nosuch")))
        case _:
            return Answer(text="read", calls=(Call(name="attemptCompletion"),))


def reads_much(request: Request) -> Answer:
    """A result that lies in the storage."""
    if request.turn == 1:
        return Answer(calls=(Call(name="readTextFile", args={"path": "big.txt"}),))
    return Answer(text="much")


def nested(request: Request) -> Answer:
    """Each asks the one below."""
    below = {"top": "mid", "mid": "low"}.get(who(request))
    if below is None or request.turn > 1:
        return Answer(text=f"{who(request)} done")
    return Answer(calls=(Call(name=below, args={"query": f"task {below}"}),))


def dynamic(request: Request) -> Answer:
    """Makes an expert, delegates to it, lets it go."""
    if who(request) == "helper":
        return Answer(text="helped")
    made = {"key": "@solo/helper", "instruction": "You are helper.", "description": "Helps."}
    calls = {
        1: Call(name="createExpert", args=made),
        2: Call(name="addDelegate", args={"expertKey": "@solo/helper"}),
        3: Call(name="helper", args={"query": "help"}),
        4: Call(name="removeDelegate", args={"expertKey": "@solo/helper"}),
    }
    return Answer(calls=(calls[request.turn],)) if request.turn in calls else Answer(text="done")


def mistakes(request: Request) -> Answer:
    """Two failing attempts, an empty answer, a cut answer, then an answer."""
    if request.turn == 1 and request.attempt < 3:
        return Answer(status=529, message="busy", headers={"retry-after-ms": "1"})
    if "EmptyAnswer" not in str(request.messages):
        return Answer()
    if "OutputCut" not in str(request.messages):
        return Answer(text="too lo", stop_reason="max_tokens")
    return Answer(text="done")


def refuses(request: Request) -> Answer:
    """Lets nobody in, after one step."""
    if request.turn == 1:
        return Answer(calls=(Call(name="todo", args={"newTodos": ["x"]}),))
    return Answer(status=401, message="no", error_type="authentication_error")


def hangs(request: Request) -> Answer:
    """Its first answer never ends; asked again, it is done."""
    return Answer(text="wait", after_events=4, then="hang", gate="never") if request.attempt == 1 else Answer(text="ok")


def delegate_hangs(request: Request) -> Answer:
    """One of three never answers."""
    return hangs(request) if who(request) == "two" else parallel_team(request)


def sleeps(request: Request) -> Answer:
    """A command that takes long."""
    if request.turn > 1:
        return Answer(text="done")
    asked: Json = {"command": "sleep", "args": ["60"], "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    return Answer(calls=(Call(name="exec", args=asked),))


def todos(request: Request) -> Answer:
    """Twelve steps, then how long the conversation is."""
    if request.turn > 12:
        return Answer(text=f"{len(request.messages)} messages")
    return Answer(calls=(Call(name="writeTextFile", args={"path": f"{request.turn}.txt", "text": "x"}),))


def short(request: Request) -> Answer:
    """A step and an answer."""
    if request.turn == 1:
        return Answer(calls=(Call(name="todo", args={"newTodos": ["x"]}),))
    return Answer(text=f"{len(request.messages)} messages")


async def answers(job: Playing) -> None:
    await job.until("stopRunByInteractiveTool")
    await job.jobs.respond(await job.jobs.view(job.start.job_id), None, "Do it.")


async def cancels_asking(job: Playing) -> None:
    await job.until("stopRunByInteractiveTool")
    await job.cancel()


async def cancels_generating(job: Playing) -> None:
    await job.until_asked(1)
    await job.cancel()


async def cancels_calling(job: Playing) -> None:
    await job.until("callTools")
    await job.cancel()


async def cancels_delegating(job: Playing) -> None:
    await job.until("completeRun", count=2)
    await job.cancel()


async def loses_generation(job: Playing) -> None:
    await job.until_asked(1)
    await job.lose("generate-1")


async def loses_call(job: Playing) -> None:
    await job.until("callTools")
    async with asyncio.timeout(LONGEST_SECONDS):
        handle = job.bench.client.get_workflow_handle(job.start.job_id)
        while not (await handle.describe()).raw_description.pending_activities:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await job.lose("call-1-0")


async def terminates(job: Playing) -> None:
    await job.until("stopRunByInteractiveTool")
    await job.bench.client.get_workflow_handle(job.start.job_id).terminate("by hand")


async def asks_more(job: Playing) -> RunInput:
    view = await job.jobs.view(job.start.job_id)
    words = Words(message=UserMessage(contents=(TextPart(text="and now?"),)))
    going = (await job.jobs.lineage(view)).latest(words)
    return going.start.replaced(
        run_id="second", query="and now?", seed=going.seed, carried=None, previous=view.execution.temporal_run_id
    )


async def goes_back(job: Playing) -> RunInput:
    view = await job.jobs.view(job.start.job_id)
    lineage = await job.jobs.lineage(view)
    moments = (moment for run in lineage.runs for moment in run.moments)
    steps = (event for moment in moments for event in moment.events if isinstance(event, ContinueToNextStep))
    going = lineage.at(next(steps).checkpoint.id, Words())
    return going.start.replaced(run_id="again", seed=going.seed, previous=view.execution.temporal_run_id)


async def branches(job: Playing) -> RunInput:
    back = await goes_back(job)
    return back.replaced(job_id=f"{back.job_id}-branch", previous=None)


SOLO = (solo(),)
RECORDINGS: dict[str, Recording] = {
    "tools": Recording(SOLO, reads),
    "large-payload": Recording(SOLO, reads_much),
    "delegates": Recording(TEAM, parallel_team),
    "nested-delegates": Recording(NESTED, nested),
    "dynamic": Recording((solo(pick=("createExpert", "addDelegate", "removeDelegate")),), dynamic),
    "question-answered": Recording((asker(),), asks_once, answers),
    "cancelled-generating": Recording(SOLO, hangs, cancels_generating),
    "cancelled-calling": Recording(SOLO, sleeps, cancels_calling),
    "cancelled-delegating": Recording(TEAM, delegate_hangs, cancels_delegating),
    "cancelled-asking": Recording((asker(),), asks_once, cancels_asking),
    "terminated": Recording((asker(),), asks_once, terminates),
    "failure": Recording(SOLO, refuses),
    "retries": Recording(SOLO, mistakes),
    "step-limit": Recording(SOLO, reads, limits=Limits(max_steps=2)),
    "lost-generation": Recording(SOLO, hangs, loses_generation),
    "lost-call": Recording(SOLO, sleeps, loses_call),
    "follow-up": Recording(SOLO, short, goes_on=asks_more),
    "resumed-from": Recording(SOLO, short, goes_on=goes_back),
    "branch": Recording(SOLO, short, goes_on=branches),
    "chain": Recording(SOLO, todos, is_tight=True),
    "deepest": Recording(
        deepest_recording.EXPERTS,
        deepest_recording.script,
        deepest_recording.cancels,
        goes_on=deepest_recording.resumes,
        goes_on_again=deepest_recording.goes_back,
        query=SHIP.query or "",
    ),
    "archived": Recording(SOLO, short, is_archiving=True),
    "archived-chain": Recording(SOLO, todos, is_archiving=True, is_tight=True),
    "archived-delegates": Recording(NESTED, nested, is_archiving=True),
}


async def play(bench: Bench, name: str, *, is_archiving: bool = False) -> ExportedJob:
    """Play one of `RECORDINGS` to its end and take it out of the server."""
    recording = RECORDINGS[name]
    bench.model.script = recording.script
    bench.model.requests.clear()
    bench.model.ledger.counts.clear()
    start = bench.start(*recording.experts, query=recording.query, limits=recording.limits)
    settings = start.settings.replaced(is_archiving=is_archiving or recording.is_archiving)
    start = start.replaced(job_id=f"golden-{name}", run_id="first", settings=settings)
    jobs = Jobs(bench.client, bench.storage)
    playing = Playing(bench, jobs, start)
    async with asyncio.timeout(3 * LONGEST_SECONDS), bench.worker(start.job_id):
        execution = await jobs.start(start, task_queue=start.job_id)
        if recording.act is not None:
            await recording.act(playing)
        await _end(jobs, execution)
        if recording.goes_on is not None:
            following = await recording.goes_on(playing)
            execution = await jobs.go_on(following, task_queue=start.job_id)
            await _end(jobs, execution)
        if recording.goes_on_again is not None:
            execution = await jobs.go_on(await recording.goes_on_again(playing), task_queue=start.job_id)
            await playing.until("stopRunByInteractiveTool")
    newest = await jobs.view(execution.workflow_id)
    return (await export_job(jobs.histories, bench.storage, newest.execution)).job


async def _end(jobs: Jobs, execution: Execution) -> None:
    async for _ in JobFollower(jobs.histories, execution).events():
        pass


@asynccontextmanager
async def studio(
    program: Path, folder: Path, workspace: Path, model: ModelServer, *, is_tight: bool
) -> AsyncGenerator[Bench]:
    """A server with a workspace whose path says nothing of this machine."""
    limits = (f"limit.historyCount.suggestContinueAsNew={EVENTS_BEFORE_NEXT}",) if is_tight else ()
    async with own_server(program, folder, *limits) as info:
        storage = FolderStorage(folder / "storage")
        client = await connect(info, storage=PayloadDriver(storage))
        yield Bench(client, storage, workspace, model, await known_search_attributes(client))
