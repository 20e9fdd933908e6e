"""Jobs as a person would start them, for looking at screens: names, texts, amounts and times of a real day."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

from perstack.core.effects import PlannedCall
from perstack.core.events import Event, RunBase
from perstack.core.expert import Expert, ModelChoice
from perstack.core.failures import Failure
from perstack.core.messages import ToolCallPart
from perstack.core.run import Generation, Limits, RunInput
from perstack.core.tools import text_outcome
from perstack.core.triggers import GenerationFailed
from perstack.core.usage import Usage

from .play import Pending, Play, ToolAnswer
from .scenarios import base_tools, call, complete, expert, interactive_tool, run_input, say

NOON = 1_767_268_800_000
"""2026-01-01 12:00:00 UTC, in milliseconds since the epoch."""
PACE = 1_730
"""Milliseconds between two things that happen."""
SPECS = (
    *base_tools("readTextFile", "writeTextFile", "editTextFile", "exec", "todo", "attemptCompletion"),
    interactive_tool(),
)
GAME = "Make a small snake game for the terminal: arrow keys, a score, and it must be playable in 80 columns"
MANY = Usage(
    input_tokens=241_000, output_tokens=3_850, cached_input_tokens=175_200, reasoning_tokens=900, total_tokens=244_850
)


def coder(key: str, *delegates: str, model: str = "claude-sonnet-5") -> Expert:
    """An expert with a model of this name."""
    choice = ModelChoice(provider="anthropic", model=model, context_window=1_000_000)
    return expert(key, delegates=delegates).model_copy(update={"model": choice})


def answers(text: str = "", *calls: ToolCallPart, thinking: str = "", share: float = 1.0) -> Generation:
    """An answer that used a share of `MANY`."""
    used = {name: int(count * share) for name, count in MANY.model_dump(by_alias=False).items()}
    return say(text, *calls, thinking=thinking, usage=Usage(**used))


TEAM = run_input(
    coder("game-dev", "@game-dev/plan", "@game-dev/build", "@game-dev/test", model="claude-opus-5"),
    coder("@game-dev/plan", model="claude-opus-5"),
    coder("@game-dev/build", "@game-dev/art"),
    coder("@game-dev/test"),
    coder("@game-dev/art", model="claude-haiku-5"),
    query=GAME,
)
_SOURCE = "import curses\n\n\ndef main(screen):\n    snake = [(5, 5)]\n    while True:\n        draw(screen, snake)\n"


def tool_results(planned: PlannedCall) -> ToolAnswer:
    """What the tools of the shown jobs answer."""
    match planned.call.tool_name:
        case "exec":
            return text_outcome('{"output":"....\\n4 passed in 0.31s\\n"}')
        case "readTextFile":
            return text_outcome('{"path":"snake.py","content":"' + _SOURCE.replace("\n", "\\n") + '"}')
        case "writeTextFile" | "editTextFile":
            return text_outcome('{"path":"snake.py"}')
        case _:
            return text_outcome("{}")


def _shell(command: str, *args: str) -> ToolCallPart:
    return call("exec", f"x-{command}-{len(args)}", command=command, args=list(args), env={}, cwd=".")


_SCRIPT: dict[str, Sequence[Generation | GenerationFailed]] = {
    "game-dev": [
        answers("", call("plan", query="Plan the game: files, rules, tests"), thinking="A plan first.", share=0.2),
        answers(
            "The plan stands. Building and testing go side by side.",
            call("build", query="Write snake.py after the plan"),
            call("test", query="Write the tests after the plan, then run them"),
        ),
        answers("", complete("`snake.py` is there, with **4 tests** that pass.")),
    ],
    "@game-dev/plan": [
        answers("", call("todo", newTodos=["Rules", "Files", "Tests"]), share=0.3),
        answers("", complete("1. `snake.py`\n2. `test_snake.py`"), share=0.4),
    ],
    "@game-dev/build": [
        answers(
            "",
            call("writeTextFile", path="snake.py", text=_SOURCE),
            thinking="curses is there everywhere, so no dependency is needed.",
        ),
        answers("", call("art", query="A title screen in ASCII, 20 columns")),
        answers("", call("editTextFile", path="snake.py", oldText="while True:", newText="while not over:")),
        answers("", complete("It runs.")),
    ],
    "@game-dev/test": [
        answers("", _shell("python", "-m", "pytest", "-q")),
        GenerationFailed(Failure(name="provider.overloaded", message="Overloaded.", status_code=529)),
    ],
    "@game-dev/art": [
        answers("", call("readTextFile", path="snake.py"), share=0.1),
        answers("", complete("SNAKE"), share=0.1),
    ],
}


def in_turn(pending: Sequence[Pending]) -> int:
    """Siblings go on side by side."""
    return 0


def on_a_day(events: Iterable[Event]) -> list[Event]:
    """The events of a play with times of a day."""
    return [event.model_copy(update={"timestamp": NOON + (event.timestamp - 1000) * PACE}) for event in events]


@cache
def game() -> tuple[Event, ...]:
    """A team of five builds a game; its tester fails, the rest completes."""
    start = TEAM.model_copy(update={"settings": TEAM.settings.model_copy(update={"limits": Limits(max_retries=0)})})
    play = Play(_SCRIPT, tools=tool_results, specs=SPECS, choose=in_turn)
    play.run(start)
    return tuple(on_a_day(play.events))


def asking(*answered: str) -> list[Event]:
    """An expert that asks three things at once."""
    calls = (
        call("askUser", "q1", question="Which colours shall the snake have?", choices=["green", "amber", "white"]),
        call("askUser", "q2", question="How fast shall it start, in moves a second?"),
        call("askUser", "q3", question="May it use the whole terminal, or 80×24 only?"),
    )
    play = Play({"game-dev": [answers("Three things first.", *calls)]}, people=answered, specs=SPECS)
    play.run(run_input(coder("game-dev", model="claude-opus-5"), query=GAME))
    return on_a_day(play.events)


def ending_with(*script: Generation | GenerationFailed, query: str = GAME, limits: Limits | None = None) -> list[Event]:
    """One expert that comes to its end after these answers."""
    play = Play({"game-dev": script}, tools=tool_results, specs=SPECS)
    play.run(run_input(coder("game-dev", model="claude-opus-5"), query=query, limits=limits or Limits(max_retries=0)))
    return on_a_day(play.events)


def long_job(steps: int, calls_a_step: int = 10) -> list[Event]:
    """One expert with `steps` × `calls_a_step` activities, and two more."""

    def files(step: int) -> Iterable[ToolCallPart]:
        for number in range(calls_a_step):
            name = f"part{step}-{number}"
            text = "\n".join(f"{name} = {line}" for line in range(6))
            if number % 2:
                yield call("exec", f"c-{name}", command="wc", args=["-l", name], env={}, cwd=".")
            else:
                yield call("writeTextFile", f"c-{name}", path=f"{name}.py", text=text)

    script = [answers(f"Step {step}", *files(step), share=0.001) for step in range(steps)]
    play = Play({"game-dev": script}, tools=tool_results, specs=SPECS)
    start: RunInput = run_input(coder("game-dev"), query=GAME, limits=Limits(max_steps=steps + 10))
    play.run(start)
    return on_a_day(play.events)


def first(events: Sequence[Event], until: Callable[[Event], bool]) -> list[Event]:
    """The events up to and with the first that `until` holds for."""
    for at, event in enumerate(events):
        if until(event):
            return list(events[: at + 1])
    raise AssertionError("no such event")


def told_by(expert_key: str, event_type: str) -> Callable[[Any], bool]:
    """Whether an event is of this type and this expert's."""
    return lambda event: isinstance(event, RunBase) and event.expert_key == expert_key and event.type == event_type
