"""The same job as `deepest`, played by real workers on a real server; `recordings` keeps its histories."""

import asyncio
from typing import TYPE_CHECKING

from perstack.client.follow import JobFollower
from perstack.core.events import CallTools, CompleteRun, ContinueToNextStep, StopRunByError
from perstack.core.expert import Expert, InteractiveSkill, InteractiveTool
from perstack.core.lineage import Going, Words
from perstack.core.messages import TextPart, UserMessage
from perstack.core.run import RunInput

from .deepest import SHIP, TASKS
from .model_server import Answer, Call, Json, Request
from .teams import who

if TYPE_CHECKING:
    from .recordings import Playing

LONGEST_SECONDS = 60.0
DELEGATES_DONE_BEFORE = 6
"""How many of the first execution complete before somebody cancels it."""
_PEOPLE = InteractiveSkill(
    name="people",
    tools=(
        InteractiveTool(
            name="askUser",
            description="Asks a person.",
            input_schema={"type": "object", "properties": {"question": {"type": "string"}}},
        ),
    ),
)
EXPERTS: tuple[Expert, ...] = tuple(
    expert.replaced(skills=(*expert.skills, _PEOPLE)) if expert.key == "ship" else expert
    for expert in SHIP.experts.values()
)
_BUSY = Answer(status=529, message="Overloaded.", headers={"retry-after-ms": "1"})
_NO_KEY = Answer(status=401, message="invalid x-api-key", error_type="authentication_error")


def script(request: Request) -> Answer:
    """Everybody's next answer."""
    name = who(request).rpartition("/")[2]
    if name == "docs" and request.turn == 2 and request.attempt == 1:
        return _BUSY
    if name == "scan":
        return _NO_KEY
    if name in ("ship", "test"):
        return _ship(request) if name == "ship" else _test(request)
    return _ANSWERS[name][request.turn - 1]


def _used(read: int, cached: int, written: int) -> Json:
    return {"input_tokens": read - cached, "cache_read_input_tokens": cached, "output_tokens": written}


def _exec(*words: str) -> Call:
    asked: Json = {"command": words[0], "args": list(words[1:]), "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    return Call(name="exec", args=asked)


def _done(text: str, usage: Json) -> Answer:
    return Answer(calls=(Call(name="attemptCompletion", args={"result": text}),), usage=usage)


def _asks(name: str, query: str) -> Call:
    return Call(name=name, args={"query": query})


_ANSWERS: dict[str, tuple[Answer, ...]] = {
    "plan": (
        Answer(
            calls=(Call(name="writeTextFile", args={"path": "plan.md", "text": "1. build\n2. test\n3. publish\n"}),),
            usage=_used(9_800, 4_100, 120),
        ),
        Answer(text="Build, test, document, scan, then publish.", usage=_used(14_900, 9_900, 480)),
    ),
    "build": (
        Answer(
            calls=(
                _asks("compile", "Compile all three packages without warnings."),
                _asks("pack", "Pack what was compiled into wheels."),
            ),
            usage=_used(11_200, 4_100, 260),
        ),
        _done("Three wheels are in dist/.", _used(13_800, 11_300, 90)),
    ),
    "compile": (
        Answer(calls=(_asks("lint", "Is there any warning left in src/?"),), usage=_used(9_100, 4_100, 110)),
        _done("Compiled, no warnings.", _used(10_400, 9_100, 60)),
    ),
    "lint": (Answer(thinking="The report is empty.", text="No warning is left.", usage=_used(6_200, 0, 45)),),
    "pack": (
        Answer(calls=(_exec("echo", "three wheels"),), usage=_used(21_400, 18_200, 310)),
        _done("Packed three wheels.", _used(22_000, 21_400, 70)),
    ),
    "docs": (
        Answer(
            calls=(Call(name="writeTextFile", args={"path": "manual.md", "text": "# Manual of 2.1\n"}),),
            usage=_used(18_600, 4_100, 140),
        ),
        _done("The manual describes 2.1.", _used(61_000, 18_700, 2_900)),
    ),
}


def _ship(request: Request) -> Answer:
    """Delegates; says what it has; once the slow tests have run, asks."""
    if request.turn == 1:
        return Answer(
            thinking="Nothing here depends on the plan, so all of it can begin at once.",
            text="I split this five ways.",
            calls=tuple(_asks(name, query) for name, query in TASKS.items()),
            usage=_used(12_300, 0, 1_240),
        )
    if "slow" not in str(request.results):
        return _done("2.1 is built and tested; nobody could scan it.", _used(88_700, 12_300, 640))
    question = "All tests pass, the slow ones too. Publish 2.1 now?"
    return Answer(
        text="Everything is ready.",
        calls=(Call(name="askUser", args={"question": question}),),
        usage=_used(91_300, 88_700, 210),
    )


def _test(request: Request) -> Answer:
    """Looks around, runs a command that takes too long, runs it again; told to, runs the slow ones."""
    is_told = "slow" in str(request.messages[-1]) or "slow" in str(request.messages[-3:])
    match request.turn:
        case 1:
            return Answer(calls=(_exec("ls"),), usage=_used(9_000, 4_100, 95))
        case 2:
            return Answer(calls=(_exec("sleep", "60"),), usage=_used(21_400, 18_200, 310))
        case 3:
            return Answer(calls=(_exec("echo", "1204 passed"),), usage=_used(21_400, 18_200, 310))
        case 4 if is_told:
            return Answer(calls=(_exec("echo", "96 passed"),), usage=_used(64_100, 21_700, 90))
        case 4:
            return _done("All 1 204 tests pass.", _used(64_000, 21_700, 80))
        case _:
            return _done("All 1 204 tests and the 96 slow ones pass.", _used(70_500, 64_100, 85))


async def cancels(job: "Playing") -> None:
    """Cancel the job while `test` runs its command and all others are done."""
    done, has_failed, is_testing = 0, False, False
    async with asyncio.timeout(LONGEST_SECONDS):
        async for event in JobFollower(job.jobs.histories, job.root).events():
            done += isinstance(event, CompleteRun)
            has_failed = has_failed or isinstance(event, StopRunByError)
            is_testing = is_testing or (
                isinstance(event, CallTools)
                and event.expert_key == "@ship/test"
                and event.tool_calls[0].args.get("command") == "sleep"
            )
            if done == DELEGATES_DONE_BEFORE and has_failed and is_testing:
                break
    await job.cancel()


async def resumes(job: "Playing") -> RunInput:
    """Go on with it."""
    view = await job.jobs.view(job.start.job_id)
    return _next((await job.jobs.lineage(view)).latest(Words()), "second", view.execution.temporal_run_id)


async def goes_back(job: "Playing") -> RunInput:
    """Go back to the step of `test` that ran the tests, and ask for the slow ones, too."""
    view = await job.jobs.view(job.start.job_id)
    lineage = await job.jobs.lineage(view)
    moments = (moment for run in lineage.runs for moment in run.moments)
    tested = [
        event
        for moment in moments
        for event in moment.events
        if isinstance(event, ContinueToNextStep) and event.expert_key == "@ship/test"
    ]
    words = Words(message=UserMessage(contents=(TextPart(text="Run the slow ones, too."),)))
    return _next(lineage.at(tested[-1].checkpoint.id, words), "third", view.execution.temporal_run_id)


def _next(going: Going, name: str, previous: str | None) -> RunInput:
    return going.start.replaced(run_id=name, seed=going.seed, carried=None, previous=previous)
