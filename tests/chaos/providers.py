"""The provider is away, refuses, or stops in the middle of an answer; the clock of a worker jumps."""

import asyncio
import importlib.util
import random
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from chaos.claims import completed
from chaos.harness import POINTS_OF_THREE, Drill, Report
from chaos.lab import JobLog, Lab, Moment
from chaos.record import Record
from chaos.teams import SOLO, TEAM, Team, who
from perstack.core.models import DEFAULT_PROVIDER
from support.cli import Result, RunningCli
from support.model_server import Answer, Request, Script

OVERLOADED = Answer(status=529, error_type="overloaded_error", message="down", headers={"retry-after-ms": "30"})
OUTAGE_SECONDS = 120


def _retries(log: JobLog) -> Counter[str]:
    """How many `retry` events each expert has."""
    return Counter(event["expertKey"].rpartition("/")[2] for event in log.of_type("retry"))


def _every_attempt_is_told(log: JobLog, record: Record, failed: Counter[str]) -> None:
    """Each failed attempt is one `retry` event, and Temporal counted as many.

    Raises:
        AssertionError: one is missing, or too many.
    """
    assert _retries(log) == failed, f"retry events {_retries(log)}, failed attempts {failed}"
    counted = Counter[str]()
    for run in record.runs:
        counted[run.who] += sum(work.attempts - 1 for work in run.works if work.kind == "generate")
    assert +counted == +failed, f"Temporal counted {counted}, failed attempts {failed}"


@dataclass
class Away:
    """A provider that answers nothing but an error from some request on, for so many requests."""

    script: Script
    since: int
    length: int
    asked: int = 0
    failed: int = 0

    def __call__(self, request: Request) -> Answer:
        self.asked += 1
        if self.since <= self.asked < self.since + self.length:
            self.failed += 1
            return OVERLOADED
        return self.script(request)


async def away(lab: Lab, chance: random.Random) -> Report:
    """Away for up to ten requests, of which a run with ten retries survives each."""
    since, length = chance.randint(1, SOLO.requests), chance.randint(1, 10)
    provider = Away(SOLO.script, since, length)
    lab.use(SOLO, provider, provider=DEFAULT_PROVIDER)
    job_id = f"away-{uuid.uuid4().hex[:8]}"
    last = await lab.run("run", "solo", "go", "--job-id", job_id, "--max-retries", "10")
    assert provider.failed == length
    # Asked again because the attempt before failed: for `repeats` these are no outages of ours.
    lab.asked = [one for number, one in enumerate(lab.asked, 1) if not since <= number < since + length]
    log, record, _ = await completed(lab, job_id, SOLO, last=last)
    _every_attempt_is_told(log, record, Counter({"solo": length}))
    return Report(f"away from request {since} on, {length} times", counts=Counter({"retry": length}))


async def gone(lab: Lab, chance: random.Random) -> Report:
    """Away for good: a run with the usual five retries ends with an error, and says of what."""
    since = chance.randint(1, SOLO.requests)
    lab.use(SOLO, Away(SOLO.script, since, 1000), provider=DEFAULT_PROVIDER)
    job_id = f"gone-{uuid.uuid4().hex[:8]}"
    result = await lab.run("run", "solo", "go", "--job-id", job_id)
    assert result.code == 1, result.stderr
    log = await lab.log(job_id)
    assert log.job["status"] == "stoppedByError"
    [stop] = log.of_type("stopRunByError")
    assert "Max retries (5) exceeded" in stop["error"]["message"], stop["error"]
    assert len(lab.asked) == since - 1 + 6
    assert _retries(log) == Counter({"solo": 5})
    for run in (result.events, log.events):
        assert run[-1]["type"] in ("stopRunByError", "skillDisconnected"), run[-1]["type"]
    assert stop["error"]["message"] in "\n".join(result.stderr.splitlines()) or "529" in result.stderr
    return Report(f"away from request {since} on", counts=Counter({"retry": 5}))


async def real_outage(lab: Lab, chance: random.Random) -> Report:
    """Nobody listens at the provider's address for two minutes."""
    lab.use(SOLO, provider=DEFAULT_PROVIDER)
    job_id = f"outage-{uuid.uuid4().hex[:8]}"
    moment = Moment("request", chance.randint(1, SOLO.requests - 2), chance.randint(0, 30))
    async with lab.command("run", "solo", "go", "--job-id", job_id, "--max-retries", "10") as run:
        assert await lab.reach(moment, run)
        await lab.model.stop()
        await asyncio.sleep(OUTAGE_SECONDS)
        await lab.model.start()
        last = await lab.finished(run)
    assert last.code == 0, last.stderr
    log = await lab.log(job_id)
    assert (log.job["status"], log.text) == ("completed", SOLO.result)
    retries = log.of_type("retry")
    assert 6 <= len(retries) <= 10, f"{len(retries)} retries"
    spread = (retries[-1]["timestamp"] - retries[0]["timestamp"]) / 1000
    assert spread > OUTAGE_SECONDS / 3, f"the retries are {spread:.0f} s apart"
    assert [one["id"] for one in last.of_type("retry")] == [one["id"] for one in retries]
    return Report(f"nobody listened for {OUTAGE_SECONDS} s {moment}", counts=Counter({"retry": len(retries)}))


@dataclass
class Storm:
    """A provider of which every other answer is a refusal or breaks off; the same for the same dice."""

    script: Script
    seed: str
    failed: Counter[str]
    kinds: Counter[str]

    def __call__(self, request: Request) -> Answer:
        answer = self.script(request)
        name = who(request)
        dice = random.Random(f"{self.seed}:{name}:{request.turn}:{request.attempt}")
        if request.attempt > 3 or dice.random() > 0.4:
            return answer
        self.failed[name] += 1
        kind = dice.choice(("refused", "refused", "refused", "overloaded", "cut", "broken"))
        self.kinds[kind] += 1
        wait = {"retry-after-ms": str(dice.randint(10, 200))}
        match kind:
            case "refused":
                return Answer(status=429, error_type="rate_limit_error", message="slow down", headers=wait)
            case "overloaded":
                return Answer(status=529, error_type="overloaded_error", message="busy", headers=wait)
            case "cut":
                return _until(answer, dice.randint(1, 6), is_error=False)
            case _:
                return _until(answer, dice.randint(1, 6), is_error=True)


def _until(answer: Answer, events: int, *, is_error: bool) -> Answer:
    """The beginning of an answer."""
    then = "error" if is_error else "die"
    return Answer(
        text=answer.text or "This answer does not come to its end.",
        calls=answer.calls,
        delta_size=6,
        event_delay_ms=4,
        after_events=events,
        then=then,
        error_type="overloaded_error" if is_error else "",
    )


async def storm(lab: Lab, chance: random.Random) -> Report:
    """A team of ten in a storm of refusals and broken answers."""
    team = TEAM
    provider = Storm(team.script, f"{chance.random()}", Counter(), Counter())
    lab.use(team, provider, provider=DEFAULT_PROVIDER)
    job_id = f"storm-{uuid.uuid4().hex[:8]}"
    last = await lab.run("run", team.root, "go", "--job-id", job_id)
    asked = Counter((one.who, one.turn) for one in lab.asked)
    assert sum(asked.values()) == team.requests + sum(provider.failed.values())
    lab.asked = list({(one.who, one.turn): one for one in lab.asked}.values())
    log, record, _ = await completed(lab, job_id, team, last=last)
    _every_attempt_is_told(log, record, provider.failed)
    return Report(f"{dict(provider.kinds)}", counts=Counter({"retry": sum(provider.failed.values())}))


HOUR = 3600


class Clock:
    """The clock of commands that were started with `env`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.jump(0)

    @property
    def env(self) -> dict[str, str]:
        """What makes a process see this clock; time that only passes stays what it is, as in a real jump."""
        return {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Else waits with a limit, of threads for each other, take many seconds now and then.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
        }

    def jump(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead of ours."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{seconds:+d}")
        fresh.replace(self._file)


def _library() -> Path:
    spec = importlib.util.find_spec("libfaketime")
    assert spec is not None, "the clock drill needs the package libfaketime: make dev"
    assert spec.submodule_search_locations is not None
    [package] = spec.submodule_search_locations
    return Path(package) / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"


async def _jumping(lab: Lab, clock: Clock, jumps: list[tuple[Moment, int]], run: RunningCli) -> Result:
    for moment, seconds in jumps:
        await lab.reach(moment, run)
        clock.jump(seconds)
    return await lab.finished(run)


async def clock_jump(lab: Lab, chance: random.Random) -> Report:
    """The clock of the working process jumps by an hour, and back again."""
    team: Team = chance.choice((SOLO, SOLO, TEAM))
    lab.use(team)
    name = f"clock-{uuid.uuid4().hex[:8]}"
    jumps = [(Moment.chosen(chance, team), chance.choice((-HOUR, HOUR)))]
    if chance.random() < 0.5:
        jumps.append((Moment.chosen(chance, team, since_request=1), 0))
    clock = Clock(lab.folder)
    # The server keeps its own clock: it is there before the process whose clock jumps.
    started = await lab.run("jobs")
    assert started.code == 0, started.stderr
    in_pool = chance.random() < 0.3
    words = ["run", team.root, "go", "--job-id", name]
    if in_pool:
        async with lab.worker(name, env=clock.env), lab.command(*words, "--task-queue", name) as run:
            last = await _jumping(lab, clock, jumps, run)
    else:
        async with lab.command(*words, env=clock.env) as run:
            last = await _jumping(lab, clock, jumps, run)
    await completed(lab, name, team, last=last)
    told = ", ".join(f"{seconds:+d} s {moment}" for moment, seconds in jumps)
    return Report(f"{'worker' if in_pool else 'command'}: {told}", counts=Counter({"jump": len(jumps)}))


DRILLS = (
    Drill(
        "provider-away",
        "provider away for some requests, ten retries: completes, every attempt is a `retry` event",
        away,
        points=POINTS_OF_THREE,
        is_idle=True,
    ),
    Drill(
        "provider-gone",
        "provider away for good, five retries: a clean `stopRunByError`",
        gone,
        points=POINTS_OF_THREE,
        is_idle=True,
    ),
    Drill(
        "provider-outage",
        "nobody listens at the provider's address for two minutes, ten retries: completes",
        real_outage,
        points=1,
        is_long=True,
        is_idle=True,
    ),
    Drill(
        "provider-storm",
        "429 storms, streams cut half-way: jobs complete, every attempt is a `retry` event",
        storm,
        points=POINTS_OF_THREE,
        is_idle=True,
    ),
    Drill(
        "clock-jump",
        "the clock of the working process jumps by an hour: one job, no corruption",
        clock_jump,
        points=POINTS_OF_THREE,
    ),
)
