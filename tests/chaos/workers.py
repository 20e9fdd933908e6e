"""Workers die or leave: the only one, one of two, all of three one after another."""

import asyncio
import random
import signal
import time
import uuid
from collections import Counter
from contextlib import AsyncExitStack, suppress

from chaos.claims import completed, effects_once
from chaos.harness import Drill, Limit, Report
from chaos.lab import LIGHT_PROVIDER, LONGEST_SECONDS, MAX_DELAY_MS, Lab, Moment
from chaos.record import read_record
from chaos.teams import SOLO, TEAM, Team, completion, effect, talk
from perstack.client.jobs import Jobs
from perstack.client.locations import DataFolder
from perstack.core.events import CompleteRun, ResolveToolResults, StopRunByError
from perstack.core.profiles.providers import PROVIDERS
from support.cli import Result, RunningCli
from support.model_server import Answer, Request
from support.temporal import Bench, bench, solo
from temporalio.client import WorkflowFailureError


async def _killed_alone(lab: Lab, chance: random.Random, team: Team) -> Report:
    """The command that works on a job dies once or twice; `resume` ends the job."""
    lab.use(team)
    job_id = f"killed-{uuid.uuid4().hex[:8]}"
    outages: list[tuple[float, float]] = []
    moments: list[str] = []
    earlier: list[Result] = []
    words = ["run", team.root, "go", "--job-id", job_id]
    for _ in range(chance.choice((1, 1, 2))):
        moment = Moment.chosen(chance, team, since_request=len(lab.asked))
        async with lab.command(*words) as running:
            if not await lab.reach(moment, running):
                break
            outages.append(await lab.kill(running))
            await asyncio.wait(running.readers)
            earlier.append(Result(-9, "".join(running.lines), ""))
        moments.append(str(moment))
        if f"job {job_id}" not in "".join(running.errors):
            continue  # it died before it had started the job: it is started again
        words = ["resume", job_id]
    last = await lab.run(*words)
    log, _, repeated = await completed(lab, job_id, team, outages=outages, last=last, earlier=earlier)
    counts = Counter({"model call repeated": repeated, "lost command reported": effects_once(lab, log)})
    return Report(f"killed {', '.join(moments) or 'never, it was faster'}", counts=counts)


async def only_worker(lab: Lab, chance: random.Random) -> Report:
    """One expert at work."""
    return await _killed_alone(lab, chance, SOLO)


async def in_delegates(lab: Lab, chance: random.Random) -> Report:
    """Five delegates at work, two of which have delegates of their own."""
    return await _killed_alone(lab, chance, TEAM)


async def one_of_two(lab: Lab, chance: random.Random) -> Report:
    """One of two workers of a pool dies, the one at work; sometimes an idle third one died before."""
    lab.use(SOLO)
    name = f"pool-{uuid.uuid4().hex[:8]}"
    moments = [Moment.chosen(chance, SOLO)]
    if chance.random() < 0.25:
        moments.insert(0, Moment.chosen(chance, SOLO, since_request=1))
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(lab.worker(name)) for _ in range(len(moments) + 1)]
        run = await stack.enter_async_context(lab.command("run", "solo", "go", "--task-queue", name, "--job-id", name))
        await lab.requests(1)
        alive = {lab.key_of(worker): worker for worker in workers}
        outages: list[tuple[float, float]] = []
        is_working = False
        for number, moment in enumerate(moments, 1):
            is_working = await lab.reach(moment, run)
            holder = lab.asked[-1].by
            is_last = number == len(moments)
            victim = next(key for key in alive if (key == holder) == is_last)
            outages.append(await lab.kill(alive.pop(victim)))
        last = await lab.finished(run)
        [survivor] = alive
        _, _, repeated = await completed(lab, name, SOLO, outages=outages, last=last)
        takeover = _next_sign(lab, survivor, outages[-1][0]) if is_working else None
    return Report(
        f"{'an idle one, then ' if len(moments) > 1 else ''}the one at work killed {', '.join(map(str, moments))}",
        seconds={"taken over after": [takeover]} if takeover is not None else {},
        counts=Counter({"model call repeated": repeated, "idle worker killed": len(moments) - 1}),
    )


def _next_sign(lab: Lab, survivor: str, since: float) -> float | None:
    """Seconds from `since` to the first model call or command of the surviving worker; none if nothing was left."""
    asked = [one.at for one in lab.asked if one.by == survivor]
    ran = [at for at, by in lab.effect_times() if by == survivor]
    return min((at - since for at in (*asked, *ran) if at > since), default=None)


JOBS = 50
JOB_STEPS = 2


def _a_job_of_many(request: Request) -> Answer:
    """Marks a command a step; the marks of each job are its own."""
    number = request.first_user_text
    if request.turn > JOB_STEPS:
        return completion(f"job {number} done")
    return talk(f"Step {request.turn} of job {number}, said slowly.", effect(f"{number}.{request.turn}"))


async def rolling_restart(lab: Lab, chance: random.Random, *, jobs: int = JOBS) -> Report:
    """Three workers leave one after another at random moments while new ones come, under a load of many jobs."""
    lab.model.script = _a_job_of_many
    name = f"rolling-{uuid.uuid4().hex[:8]}"
    total = jobs * (JOB_STEPS + 1)
    moments = sorted(chance.randint(1, total * 3 // 4) for _ in range(3))
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(lab.worker(name)) for _ in moments]
        bed = await stack.enter_async_context(bench(lab.data, lab.workspace, lab.model))
        begun = time.monotonic()
        playing = [asyncio.create_task(_to_its_end(lab.data, bed, name, str(number))) for number in range(jobs)]
        leaving: list[asyncio.Task[float]] = []
        told_to_leave: dict[int, float] = {}
        for worker, number in zip(workers, moments, strict=True):
            async with asyncio.timeout(LONGEST_SECONDS):
                await lab.requests(number)
            await asyncio.sleep(chance.uniform(0, MAX_DELAY_MS / 1000))
            worker.process.send_signal(signal.SIGTERM)
            told_to_leave[worker.process.pid] = time.time()
            leaving.append(asyncio.create_task(_left(lab, worker)))
            await stack.enter_async_context(lab.worker(name))
        async with asyncio.timeout(LONGEST_SECONDS):
            try:
                await asyncio.gather(*playing)
            except AssertionError as error:
                error.add_note(f"told to leave: {told_to_leave}")
                raise
        seconds = time.monotonic() - begun
        drained = await asyncio.gather(*leaving)
    asked = Counter((request.first_user_text, request.turn) for request in lab.model.requests)
    assert len(asked) == total, f"{len(asked)} different model calls of {total}"
    assert set(asked.values()) == {1}, f"asked again: {[key for key, count in asked.items() if count > 1]}"
    marks = lab.effects()
    assert len(marks) == jobs * JOB_STEPS
    assert set(marks.values()) == {1}, f"done twice: {[mark for mark, count in marks.items() if count > 1]}"
    return Report(
        f"SIGTERM after model requests {', '.join(map(str, moments))} of {total}",
        seconds={"a worker drained in": drained, f"{jobs} jobs in": [seconds]},
        counts=Counter({"worker restarted": len(drained), "job": jobs}),
    )


async def _to_its_end(data: DataFolder, bed: Bench, queue: str, number: str) -> None:
    """Start a job and see it complete; no call of it was lost or failed."""
    expert = solo()
    model = expert.model.replaced(provider=LIGHT_PROVIDER, model=PROVIDERS[LIGHT_PROVIDER].tiers["low"].model)
    start = bed.start(expert.replaced(model=model), query=number)
    execution = await Jobs(bed.client).start(start, task_queue=queue)
    with suppress(WorkflowFailureError):  # its events say more of why
        await bed.client.get_workflow_handle(execution.workflow_id).result()
    _, events = await bed.read(execution, wait=False)
    results = [one for event in events if isinstance(event, ResolveToolResults) for one in event.tool_results]
    wrong = [str(one.result) for one in results if one.is_error]
    wrong.extend(str(event.error) for event in events if isinstance(event, StopRunByError))
    if wrong:
        record = await read_record(data, execution.workflow_id)
        raise AssertionError(f"job {number}: {wrong}; what did not complete: {record.unfinished}")
    assert [event.text for event in events if isinstance(event, CompleteRun)] == [f"job {number} done"]


async def _left(lab: Lab, worker: RunningCli) -> float:
    """Seconds until a worker that was asked to leave has left, without complaint."""
    begun = time.monotonic()
    result = await lab.finished(worker)
    assert result.code == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return time.monotonic() - begun


async def few_restarts(lab: Lab, chance: random.Random) -> Report:
    """The short form of `rolling_restart`."""
    return await rolling_restart(lab, chance, jobs=8)


DRILLS = (
    Drill(
        "worker-killed",
        "kill -9 of the only worker, restart: completes, only the call in flight repeated or reported lost",
        only_worker,
    ),
    Drill(
        "delegates-killed",
        "kill -9 amid five parallel delegates, nested ones too: all finished work is kept, all results arrive",
        in_delegates,
    ),
    Drill(
        "pool-worker-killed",
        "kill -9 of one of two workers: goes on elsewhere within 6 s (p95)",
        one_of_two,
        # A kill after the last call leaves nothing to take over: of these, twenty do.
        points=24,
        alone=3,
        limits={"taken over after": Limit(6.0, 95)},
    ),
    Drill(
        "rolling-restart",
        "SIGTERM of three workers under 50 jobs: every job completes, nothing is repeated",
        rolling_restart,
        short=few_restarts,
        points=7,
        alone=1,
    ),
)
