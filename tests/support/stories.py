"""The jobs of the golden transcripts: each kind of story a job can tell, once (contract §5)."""

from collections.abc import Callable

from perstack.core.effects import PlannedCall
from perstack.core.expert import McpStdioSkill
from perstack.core.failures import Failure
from perstack.core.messages import ToolCallPart
from perstack.core.run import Limits, RunInput
from perstack.core.tools import AddSkill, ToolSpec, text_outcome
from perstack.core.triggers import GenerationFailed, GenerationLost

from .deepest import deepest
from .play import Loss, Play, ToolAnswer, default_tools
from .scenarios import (
    OBJECT,
    OVERLOADED,
    base_tools,
    call,
    complete,
    expert,
    interactive_tool,
    run_input,
    say,
)

SOLO = run_input(expert("solo"))
TEAM = run_input(expert("team", delegates=("@team/a", "@team/b")), expert("@team/a"), expert("@team/b"))
CHAIN = run_input(
    expert("top", delegates=("@top/mid",)), expert("@top/mid", delegates=("@top/low",)), expert("@top/low")
)
WITH_PEOPLE = (*base_tools(), interactive_tool())
OPEN_TODOS = '{"remainingTodos":[{"id":0,"title":"test","completed":false}]}'
BAD_KEY = Failure(name="provider.credentials", message="invalid x-api-key", status_code=401)
FLY = ToolSpec(name="fly", skill_name="wings", input_schema=OBJECT)


def command(name: str) -> ToolCallPart:
    """A call of exec as models make it."""
    return call("exec", command=name, args=[], env={}, cwd=".", stdout=True, stderr=True)


def played(start: RunInput, play: Play) -> Play:
    play.run(start)
    return play


def ended_by(event_type: str) -> Callable[[Play], bool]:
    """Whether the last event told is of this type."""
    return lambda play: play.types[-1:] == [event_type]


def chain() -> Play:
    """Three experts, each delegating to the next (§5.3)."""
    answers = {
        "top": [say("", call("mid", query="plan it")), say("T")],
        "@top/mid": [say("", call("low", query="do it")), say("", complete("M"))],
        "@top/low": [say("L", thinking="easy")],
    }
    return played(CHAIN, Play(answers))


def parallel() -> Play:
    """Two delegates at once beside a tool call; one of them takes longer."""
    answers = {
        "team": [say("", call("a", query="1"), call("b", query="2"), command("ls")), say("T")],
        "@team/a": [say("", command("pwd")), say("A")],
        "@team/b": [say("B")],
    }
    return played(TEAM, Play(answers))


def mixed() -> Play:
    """A tool, a delegate and two questions in one message (§5.4)."""
    calls = (call("askUser", "q1", question="ok?"), call("a", query="1"), command("ls"))
    answers = {"team": [say("", *calls, call("askUser", "q2", question="sure?")), say("T")], "@team/a": [say("A")]}
    return played(TEAM, Play(answers, people=("yes", "very"), specs=WITH_PEOPLE))


def parked() -> Play:
    """A question nobody answers."""
    return played(SOLO, Play({"solo": [say("", call("askUser", question="ok?"))]}, specs=WITH_PEOPLE))


def completion_with_result() -> Play:
    return played(SOLO, Play({"solo": [say("", complete("the result"))]}))


def completion_with_text_beside() -> Play:
    return played(SOLO, Play({"solo": [say("the text", complete())]}))


def completion_with_text_before() -> Play:
    return played(SOLO, Play({"solo": [say("the text", command("ls")), say("", complete())]}))


def completion_with_neighbours() -> Play:
    answers = [say("", call("todo"), command("ls"), call("unknown"), complete("r"))]
    return played(SOLO, Play({"solo": answers}))


def completion_with_open_todos() -> Play:
    found = iter((OPEN_TODOS, "{}"))
    answers = [say("", complete("too early")), say("", complete("r"))]
    return played(SOLO, Play({"solo": answers}, tools=lambda _planned: text_outcome(next(found))))


def completion_beside_delegate() -> Play:
    answers = {"team": [say("", complete("too early"), call("a", query="1")), say("", complete("T"))]}
    return played(TEAM, Play(answers))


def retry() -> Play:
    """Failed attempts, an empty answer, a cut text and a cut call."""
    answers = [
        say("", attempts=2),
        say("half a sen", finish="length"),
        say("", command("ls"), call("todo"), finish="length"),
        say("done"),
    ]
    return played(SOLO, Play({"solo": answers}))


def max_steps() -> Play:
    start = run_input(expert("solo"), limits=Limits(max_steps=2))
    return played(start, Play({"solo": [say("", command("ls"))] * 2}))


def error() -> Play:
    return played(SOLO, Play({"solo": [say("", call("todo")), GenerationFailed(BAD_KEY)]}))


def error_after_retries() -> Play:
    start = run_input(expert("solo"), limits=Limits(max_retries=1))
    attempts = say("", attempts=1).attempts
    return played(start, Play({"solo": [GenerationFailed(OVERLOADED, attempts)]}))


def error_at_opening() -> Play:
    return played(SOLO, _Closed())


class _Closed(Play):
    """A job whose session cannot be opened."""

    def opened(self) -> Failure | None:
        return Failure(name="workspace.unwritable", message="The workspace /w cannot be written.")


def error_of_delegate() -> Play:
    """One delegate fails, one runs into its limit, and the parent goes on."""
    start = TEAM.model_copy(
        update={"settings": TEAM.settings.model_copy(update={"limits": Limits(max_steps=2, max_retries=0)})}
    )
    answers = {
        "team": [say("", call("a", query="1"), call("b", query="2")), say("", complete("T"))],
        "@team/a": [GenerationFailed(BAD_KEY)],
        "@team/b": [say("", command("ls"))] * 2,
    }
    return played(start, Play(answers))


def losses() -> Play:
    """Workers lost in a model call, a call that may be repeated and one that may not."""
    lost = {"readTextFile": 2, "exec": 1}

    def tools(planned: PlannedCall) -> ToolAnswer:
        name = planned.call.tool_name
        lost[name] = lost.get(name, 0) - 1
        return Loss() if lost[name] >= 0 else default_tools(planned)

    answers = [GenerationLost(), say("", call("readTextFile", path="a"), command("rm")), say("done")]
    return played(SOLO, Play({"solo": answers}, tools=tools))


def dynamic() -> Play:
    """A tool that changes what the run may call."""
    change = AddSkill(skill=McpStdioSkill(name="wings"), tools=(FLY,))

    def tools(planned: PlannedCall) -> ToolAnswer:
        answer = text_outcome("{}")
        return answer.model_copy(update={"change": change}) if planned.call.tool_name == "addSkill" else answer

    answers = [say("", call("addSkill"), call("fly", "too-early")), say("", call("fly")), say("done")]
    return played(SOLO, Play({"solo": answers}, tools=tools, specs=base_tools("addSkill")))


def cancelled_generating() -> Play:
    return played(SOLO, Play(cancel_when=ended_by("startGeneration")))


def cancelled_calling() -> Play:
    answers = [say("", command("sleep"), call("todo"))]
    return played(SOLO, Play({"solo": answers}, cancel_when=ended_by("callTools")))


def cancelled_delegating() -> Play:
    """Cancelled while one delegate is done and the other calls a tool."""
    answers = {
        "team": [say("", call("a", query="1"), call("b", query="2"))],
        "@team/b": [say("", command("sleep"))],
    }
    return played(TEAM, Play(answers, cancel_when=ended_by("callTools")))


def cancelled_asking() -> Play:
    answers = [say("", call("askUser", question="ok?"), command("ls"))]
    play = Play({"solo": answers}, specs=WITH_PEOPLE, cancel_when=ended_by("stopRunByInteractiveTool"))
    return played(SOLO, play)


STORIES: dict[str, Callable[[], Play]] = {
    story.__name__.replace("_", "-"): story
    for story in (
        chain,
        parallel,
        mixed,
        parked,
        completion_with_result,
        completion_with_text_beside,
        completion_with_text_before,
        completion_with_neighbours,
        completion_with_open_todos,
        completion_beside_delegate,
        retry,
        max_steps,
        error,
        error_after_retries,
        error_at_opening,
        error_of_delegate,
        losses,
        dynamic,
        cancelled_generating,
        cancelled_calling,
        cancelled_delegating,
        cancelled_asking,
        deepest,
    )
}
"""By name of the golden file."""
