"""Commands die, come twice, share a workspace, and cancel."""

import asyncio
import json
import random
import sys
import uuid
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from chaos.claims import completed, same_story
from chaos.harness import POINTS_OF_THREE, Drill, Limit, Report
from chaos.lab import LONGEST_SECONDS, MAX_DELAY_MS, JobLog, Lab, Moment, until
from chaos.record import Record, read_record
from chaos.teams import FIVE, NESTED, SOLO, TEAM, Team, effect, who
from perstack.core.models import DEFAULT_PROVIDER
from support.cli import Result
from support.leftovers import processes_of
from support.model_server import Answer, Call, Request


async def follower_killed(lab: Lab, chance: random.Random) -> Report:
    """The command that follows a job of a pool dies; the worker does not notice, `resume` follows on."""
    team: Team = chance.choice((SOLO, TEAM))
    lab.use(team)
    name = f"follower-{uuid.uuid4().hex[:8]}"
    moment = Moment.chosen(chance, team)
    async with lab.worker(name):
        async with lab.command("run", team.root, "go", "--task-queue", name, "--job-id", name) as run:
            # Before this line the job may not exist; killing then is starting nothing.
            await run.seen(f"job {name}", seconds=LONGEST_SECONDS)
            await lab.reach(moment, run)
            await lab.kill(run)
            await asyncio.wait(run.readers)
            earlier = Result(-9, "".join(run.lines), "")
        last = await lab.run("resume", name)
        await completed(lab, name, team, last=last, earlier=[earlier])
    return Report(f"killed {moment}")


async def duplicates(lab: Lab, chance: random.Random) -> Report:
    """Three commands with one job id at the same moment are one job, which all of them see complete."""
    team: Team = chance.choice((SOLO, TEAM))
    lab.use(team)
    job_id = f"same-{uuid.uuid4().hex[:8]}"
    delays = sorted(chance.randint(0, MAX_DELAY_MS) for _ in range(3))

    async def one(delay: int) -> Result:
        await asyncio.sleep(delay / 1000)
        return await lab.run("run", team.root, "go", "--job-id", job_id)

    results = await asyncio.gather(*(one(delay) for delay in delays))
    for result in results:
        await _saw_all(result)
    log, _, _ = await completed(lab, job_id, team)
    for result in results:
        same_story(log, result)
    assert len({one.by for one in lab.asked}) == 1, "more than one command worked"
    return Report(f"started {', '.join(map(str, delays))} ms after the word", counts=Counter({"command": 3}))


async def _saw_all(result: Result) -> None:
    assert result.code == 0, f"exit code {result.code}: {result.stderr}"
    assert result.of_type("completeRun"), "a command did not see the end"


async def one_workspace(lab: Lab, chance: random.Random) -> Report:
    """Two commands with different jobs in one workspace; one of them dies and is resumed."""
    lab.use(SOLO, _by_query)
    ids = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("left", "right")]
    moment = Moment.chosen(chance, SOLO)
    outage: list[tuple[float, float]] = []
    async with AsyncExitStack() as stack:
        runs = [
            await stack.enter_async_context(lab.command("run", "solo", side, "--job-id", job_id))
            for side, job_id in zip(("left", "right"), ids, strict=True)
        ]
        await runs[0].seen(f"job {ids[0]}", seconds=LONGEST_SECONDS)
        if chance.random() < 0.7 and await lab.reach(moment, runs[0]):
            outage.append(await lab.kill(runs[0]))
            await asyncio.wait(runs[0].readers)
        right = await lab.finished(runs[1])
        left = await lab.run("resume", ids[0]) if outage else await lab.finished(runs[0])
    logs = [await _one_of_two(lab, job_id, result) for job_id, result in zip(ids, (left, right), strict=True)]
    counts = Counter((request.first_user_text, request.turn) for request in lab.model.requests)
    assert max(counts.values()) <= 1 + len(outage)
    assert all(count == 1 for (side, _), count in counts.items() if side == "right"), counts
    assert sum(counts.values()) - len(counts) <= len(outage), counts
    marks = lab.effects()
    assert all(count == 1 for count in marks.values()), marks
    lost = sum(bool(one.get("isError")) for log in logs for _, one in log.results("exec"))
    assert len(marks) >= 2 * 2 * (SOLO.requests - 1) - lost
    told = f"one killed {moment}" if outage else "none killed"
    return Report(told, counts=Counter({"job": 2}))


def _by_query(request: Request) -> Answer:
    """The steps of `SOLO`, with marks and files of the job's own."""
    answer = SOLO.script(request)
    side = request.first_user_text
    text = json.dumps([(call.name, call.args) for call in answer.calls]).replace("solo", side)
    return Answer(
        text=answer.text,
        calls=tuple(Call(name=name, args=args) for name, args in json.loads(text)),
        delta_size=answer.delta_size,
        event_delay_ms=answer.event_delay_ms,
    )


async def _one_of_two(lab: Lab, job_id: str, result: Result) -> JobLog:
    await _saw_all(result)
    log = await lab.log(job_id)
    assert (log.job["status"], log.text) == ("completed", f"{job_id.partition('-')[0]} done")
    same_story(log, result)
    return log


SERVER = Path(__file__).parent.parent / "servers" / "hostile.py"
"""Of its tools, one takes for ever; it starts without a library, so that it takes no time from what is measured."""
FOREVER_MS = 600_000
BEGUN_SECONDS = 0.8
"""A stream that was asked for so long before has begun to arrive, even where ten runs share two processors."""
TIDY_SECONDS = 12.0
"""A worker of a pool looks after its sessions every five seconds, sooner after a cancellation."""


def _patient_definition() -> str:
    skill = f'type = "mcpStdioSkill"\ncommand = {json.dumps(sys.executable)}\nargs = [{json.dumps(str(SERVER))}]\n'
    return TEAM.definition + "".join(f'\n[experts."@team/{name}".skills.busy]\n{skill}' for name in ("one", "low"))


def patient(request: Request) -> Answer:
    """Delegates that are each in the middle of something else, and would be for ten minutes."""
    name = who(request)
    below = FIVE if name == "team" else NESTED.get(name, ())
    if below:
        return Answer(calls=tuple(Call(name=one, args={"query": f"task {one}"}) for one in below))
    if request.turn <= 2:
        return Answer(text=f"{name} begins.", calls=(effect(f"{name}.{request.turn}"),), delta_size=4, event_delay_ms=6)
    if name in ("one", "low"):
        return Answer(calls=(Call(name="obedient"),))
    if name in ("three", "deep"):
        return Answer(calls=(effect(f"{name}.3", seconds=FOREVER_MS / 1000),))
    return Answer(text="word " * 100_000, delta_size=5, event_delay_ms=50)


PATIENT = Team(definition=_patient_definition(), script=patient, root="team", result="", requests=3 + 3 * 7, steps=14)


async def cancelled(lab: Lab, chance: random.Random) -> Report:
    """`perstack cancel` at a random moment, of a job of a command or of a pool."""
    lab.use(PATIENT, provider=DEFAULT_PROVIDER)
    name = f"cancel-{uuid.uuid4().hex[:8]}"
    moment = Moment.chosen(chance, PATIENT)
    in_pool = chance.random() < 0.5
    words = ["run", "team", "go", "--job-id", name]
    gone: list[float] = []
    async with AsyncExitStack() as stack:
        if in_pool:
            await stack.enter_async_context(lab.worker(name))
            words += ["--task-queue", name]
        run = await stack.enter_async_context(lab.command(*words))
        await run.seen(f"job {name}", seconds=LONGEST_SECONDS)
        await lab.reach(moment, run)
        done = await lab.run("cancel", name)
        assert done.code == 0, done.stderr
        assert "the run was cancelled" in done.stderr, done.stderr
        last = await lab.finished(run)
        assert last.code == 7, f"{last.code}: {last.stderr}"
        gone.append(await _skills_gone(lab.cli.env["HOME"]))
    log, record = await lab.log(name), await read_record(lab.data, name)
    same_story(log, last)
    effects_of_cancelled(lab, log)
    after = _all_ended(log, record)
    counted = _partial_usage(lab, log, record)
    return Report(
        f"{'pool' if in_pool else 'command'}, {moment}, {len(record.runs)} runs",
        seconds={"an activity or run ended after": after, "last skill process gone after": gone},
        counts=Counter({"run cancelled": len(record.runs), "half an answer counted": counted}),
    )


async def _skills_gone(home: str) -> float:
    """Seconds until no process of a skill or of a command is left, from now on."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await until(lambda: not any(SERVER.name in one or "sleep" in one for one in processes_of(home)), TIDY_SECONDS)
    return loop.time() - begun


def effects_of_cancelled(lab: Lab, log: JobLog) -> None:
    """No command ran twice, and none that was reported as done was not done.

    Raises:
        AssertionError: one was.
    """
    marks = lab.effects()
    assert all(count == 1 for count in marks.values()), marks
    for call, result in log.results("exec"):
        assert result.get("isError") or marks[call["args"]["args"][2]] == 1


def _all_ended(log: JobLog, record: Record) -> list[float]:
    """Seconds from the request to the end of every activity and run that was open then; all are cancelled.

    Raises:
        AssertionError: a run went on, or ended otherwise.
    """
    asked_at = record.root.cancel_requested_at
    assert asked_at is not None
    stopped = sorted(event["expertKey"].rpartition("/")[2] for event in log.of_type("stopRunByCancellation"))
    runs = sorted(run.who for run in record.runs)
    assert stopped == runs, f"{sorted(set(runs) - set(stopped))} do not say that they were cancelled"
    after: list[float] = []
    for run in record.runs:
        assert run.closing == "cancelled", f"{run.who} is {run.closing or 'open'}"
        assert run.closed_at is not None
        after.append(run.closed_at - asked_at)
        for work in run.works:
            assert work.ended_at is not None, f"{work.activity_id} of {run.who} never ended"
            if work.ended_at > asked_at:
                after.append(work.ended_at - asked_at)
    return after


def _partial_usage(lab: Lab, log: JobLog, record: Record) -> int:
    """What a cancelled model call had used is in the run's last checkpoint; tells how many there were.

    Raises:
        AssertionError: it is missing, or something was counted twice.
    """
    asked_at = record.root.cancel_requested_at or 0.0
    used = {
        event["expertKey"].rpartition("/")[2]: event["checkpoint"]["usage"]["inputTokens"]
        for event in log.of_type("stopRunByCancellation")
    }
    halves = 0
    for run in record.runs:
        generations = [work for work in run.works if work.kind == "generate"]
        whole = sum(work.ended_at is not None and work.ended_at <= asked_at for work in generations)
        begun = sum(one.who == run.who and one.at < asked_at - BEGUN_SECONDS for one in lab.asked)
        most = sum(one.who == run.who for one in lab.asked)
        ages = [f"{asked_at - one.at:.2f}" for one in lab.asked if one.who == run.who]
        told = f"{run.who} counts {used[run.who]} tokens; asked {', '.join(ages)} s before the cancellation"
        assert INPUT_TOKENS * max(whole, begun) <= used[run.who] <= INPUT_TOKENS * most, told
        halves += used[run.who] > INPUT_TOKENS * whole
    return halves


INPUT_TOKENS = 10
"""Of every answer of the scripted model."""

DRILLS = (
    Drill(
        "follower-killed",
        "kill -9 of the command while a pool works: the run is intact, `resume` goes on",
        follower_killed,
    ),
    Drill(
        "same-job-thrice",
        "three commands with one job id at once: one job, each sees it complete",
        duplicates,
        points=POINTS_OF_THREE,
    ),
    Drill(
        "one-workspace",
        "two jobs in one workspace, one command killed: both complete, nothing is mixed up",
        one_workspace,
        points=POINTS_OF_THREE,
    ),
    Drill(
        "cancel",
        "`perstack cancel` amid delegates, model calls and tools: all ended within 1 s, usage counted, no skill left",
        cancelled,
        alone=1,
        limits={"an activity or run ended after": Limit(1.0)},
    ),
)
