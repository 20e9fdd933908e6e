"""A job of the deepest kind: delegates of delegates, five at once, one failed, one resumed, one forked, a question."""

from collections.abc import Callable, Sequence
from typing import Any

from perstack.core.expert import Expert, McpStdioSkill, ModelChoice
from perstack.core.failures import Attempt, Failure
from perstack.core.lineage import Going, Lineage, Words
from perstack.core.run import Generation, RunInput
from perstack.core.tools import text_outcome
from perstack.core.triggers import GenerationFailed, ToolFinished
from perstack.core.usage import Usage

from .lineages import lineage_of, next_input, steps_of, user
from .play import ModelAnswer, Pending, Play, ToolAnswer
from .scenarios import BASE, OVERLOADED, base_tools, call, complete, interactive_tool, run_input, say

BEGUN_AT = 1_767_225_600_000
"""The first of January 2026, 00:00 UTC."""
MILLISECONDS_BETWEEN = 1_850
NO_KEY = Failure(name="provider.credentials", message="The API key of Anthropic was refused.", status_code=401)


def _expert(key: str, model: str, *delegates: str) -> Expert:
    return Expert(
        key=key,
        name=key,
        version="1.0.0",
        instruction=f"You are {key}.",
        skills=(McpStdioSkill(name=BASE),),
        delegates=delegates,
        model=ModelChoice(provider="anthropic", model=model, context_window=200_000),
    )


STRONG, PLAIN, SMALL = "claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5"
SHIP = run_input(
    _expert("ship", STRONG, "@ship/plan", "@ship/build", "@ship/docs", "@ship/test", "@ship/scan"),
    _expert("@ship/plan", PLAIN),
    _expert("@ship/build", PLAIN, "@ship/compile", "@ship/pack"),
    _expert("@ship/compile", PLAIN, "@ship/lint"),
    _expert("@ship/lint", SMALL),
    _expert("@ship/pack", SMALL),
    _expert("@ship/docs", PLAIN),
    _expert("@ship/test", PLAIN),
    _expert("@ship/scan", SMALL),
    query="Ship release 2.1: build it, test it, bring the manual up to date, and ask me before anything is published.",
    job_id="deepest",
)


def _used(read: int, cached: int, written: int, *, thought: int = 0) -> Usage:
    return Usage(
        input_tokens=read,
        cached_input_tokens=cached,
        output_tokens=written,
        reasoning_tokens=thought,
        total_tokens=read + written,
    )


def _exec(call_id: str, *words: str) -> Generation:
    asked: dict[str, Any] = {"command": words[0], "args": list(words[1:]), "env": {}, "cwd": ".", "stdout": True}
    return say("", call("exec", call_id, **asked, stderr=True), usage=_used(21_400, 18_200, 310))


_BUSY = Attempt(failure=OVERLOADED, usage=_used(60, 0, 0))
TASKS = {
    "plan": "Write down what has to happen for release 2.1, in order.",
    "build": "Build the packages of release 2.1 and check what is in them.",
    "docs": "Bring the manual up to date with the changes of 2.1.",
    "test": "Run all tests and say in one line whether they pass.",
    "scan": "Look for known vulnerabilities in what 2.1 depends on.",
}
_FIRST: dict[str, Sequence[ModelAnswer]] = {
    "ship": [
        say(
            "I split this five ways.",
            *(call(name, query=query) for name, query in TASKS.items()),
            thinking="Nothing here depends on the plan, so all of it can begin at once.",
            usage=_used(12_300, 0, 1_240, thought=420),
        )
    ],
    "@ship/plan": [
        say("", call("readTextFile", "read-changes", path="CHANGES.md"), usage=_used(9_800, 4_100, 120)),
        say("Build, test, document, scan, then publish.", usage=_used(14_900, 9_900, 480)),
    ],
    "@ship/build": [
        say(
            "",
            call("compile", query="Compile all three packages without warnings."),
            call("pack", query="Pack what was compiled into wheels."),
            usage=_used(11_200, 4_100, 260),
        ),
        say("", complete("Three wheels are in dist/."), usage=_used(13_800, 11_300, 90)),
    ],
    "@ship/compile": [
        say("", call("lint", query="Is there any warning left in src/?"), usage=_used(9_100, 4_100, 110)),
        say("", complete("Compiled, no warnings."), usage=_used(10_400, 9_100, 60)),
    ],
    "@ship/lint": [say("No warning is left.", thinking="The report is empty.", usage=_used(6_200, 0, 45))],
    "@ship/pack": [
        _exec("pack-wheels", "make", "wheels"),
        say("", complete("Packed three wheels."), usage=_used(22_000, 21_400, 70)),
    ],
    "@ship/docs": [
        say("", call("readTextFile", "read-manual", path="docs/manual.md"), usage=_used(18_600, 4_100, 140)),
        say("", complete("The manual describes 2.1."), usage=_used(61_000, 18_700, 2_900)).replaced(attempts=(_BUSY,)),
    ],
    "@ship/test": [
        say("", call("readTextFile", "read-tests", path="Makefile"), usage=_used(9_000, 4_100, 95)),
        _exec("run-tests", "make", "test"),
    ],
    "@ship/scan": [GenerationFailed(NO_KEY)],
}
_SECOND: dict[str, Sequence[ModelAnswer]] = {
    "ship": [say("", complete("2.1 is built and tested; nobody could scan it."), usage=_used(88_700, 12_300, 640))],
    "@ship/test": [
        _exec("run-tests-again", "make", "test"),
        say("", complete("All 1 204 tests pass."), usage=_used(64_000, 21_700, 80)),
    ],
}
_THIRD: dict[str, Sequence[ModelAnswer]] = {
    "ship": [
        say(
            "Everything is ready.",
            call("askUser", "publish", question="All tests pass, the slow ones too. Publish 2.1 now?"),
            usage=_used(91_300, 88_700, 210),
        )
    ],
    "@ship/test": [
        _exec("run-slow-tests", "make", "test-all"),
        say("", complete("All 1 204 tests and the 96 slow ones pass."), usage=_used(70_500, 64_100, 85)),
    ],
}


def _tools(planned: object) -> ToolAnswer:
    del planned
    return text_outcome('{"stdout":"ok"}')


def _is_held(pending: Pending) -> bool:
    """The command of `test` that takes so long that somebody cancels the job."""
    return isinstance(pending.trigger, ToolFinished) and pending.run.state.calls[0].id == "run-tests"


def _in_order(pending: Sequence[Pending]) -> int:
    """First come, first served, as with real workers: what works in parallel is told in turns."""
    return next((at for at, one in enumerate(pending) if not _is_held(one)), 0)


def deepest() -> Play:
    """Three executions of one job, told as one.

    `ship` delegates to five at once; `build` has delegates, and one of those has one. `scan` fails. While `test` runs
    a command, somebody cancels the job. Then it is resumed, `test` and `ship` go on and complete. Then somebody goes
    back to the step of `test` that ran the tests, and asks for the slow ones, too; now `ship` waits for an answer.
    """
    play = Play(
        tools=_tools,
        specs=(*base_tools(), interactive_tool()),
        choose=_in_order,
        cancel_when=lambda play: all(map(_is_held, play.pending)),
        clock=BEGUN_AT,
        tick=MILLISECONDS_BETWEEN,
    )
    _execute(play, SHIP, _FIRST)
    _go_on(play, _SECOND, "second", lambda lineage: lineage.latest(Words()))
    tested = steps_of(play, "@ship/test")[-1]
    _go_on(play, _THIRD, "third", lambda lineage: lineage.at(tested.id, Words(message=user("Run the slow ones, too."))))
    return play


def _go_on(
    play: Play, answers: dict[str, Sequence[ModelAnswer]], name: str, choose: Callable[[Lineage], Going]
) -> None:
    play.cancel_when = lambda _: False
    play.clock += 60_000
    _execute(play, next_input(choose(lineage_of(play)), f"deepest-{name}"), answers)


def _execute(play: Play, start: RunInput, answers: dict[str, Sequence[ModelAnswer]]) -> None:
    play.answers = answers
    play.run(start)
