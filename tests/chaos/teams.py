"""The jobs of the drills: experts and the scripts of their model; every tool call leaves a mark of its own."""

from collections.abc import Callable
from dataclasses import dataclass

from support.model_server import Answer, Call, Request, Script

MARK = 'echo "$0 $(date +%s%N) ${LC_DRILL}" >> effects.txt; sleep "$1"'
"""Tells which call it is, when it began and whose: not to be repeated, as an order or a mail is not."""


@dataclass(frozen=True)
class Team:
    """A definition, the answers of its model, and what its root must say at the end."""

    definition: str
    script: Script
    root: str
    result: str
    requests: int
    """Model calls of an undisturbed job."""
    steps: int
    """How many steps with tools it has in all."""


def who(request: Request) -> str:
    """Which expert asks, by its own instruction."""
    for line in request.system.splitlines():
        if line.startswith("You are ") and line.endswith(".") and " " not in line[8:-1]:
            return line[8:-1]
    raise AssertionError(f"nobody known asks: {request.system[-200:]!r}")


def effect(mark: str, *, seconds: float = 0.03, output_bytes: int = 0) -> Call:
    """A command that leaves `mark`, takes a while and says much."""
    script = f'{MARK}; yes "$0" | head -c {output_bytes}' if output_bytes else MARK
    args = ["-c", script, mark, f"{seconds:g}"]
    return Call(
        name="exec", args={"command": "sh", "args": args, "env": {}, "cwd": ".", "stdout": True, "stderr": True}
    )


def mark_of(call: dict[str, object]) -> str:
    """The mark of a call made by `effect`, as events show it."""
    args = call["args"]
    assert isinstance(args, dict)
    words = args["args"]  # pyright: ignore[reportUnknownVariableType]
    assert isinstance(words, list)
    return str(words[2])  # pyright: ignore[reportUnknownArgumentType]


def completion(text: str) -> Answer:
    """The last answer of a run."""
    return Answer(calls=(Call(name="attemptCompletion", args={"result": text}),))


def talk(text: str, *calls: Call) -> Answer:
    """An answer that arrives word by word, so that a model call has a middle."""
    return Answer(text=text, calls=calls, delta_size=12, event_delay_ms=4)


def worker_steps(name: str, turns: int) -> Callable[[Request], Answer]:
    """Each step marks two commands and writes and reads a file; then the expert reports."""

    def script(request: Request) -> Answer:
        turn = request.turn
        if turn > turns:
            return completion(f"{name} done")
        path = f"{name}-{turn}.txt"
        read = Call(name="readTextFile", args={"path": f"{name}-{turn - 1}.txt"})
        calls = (
            effect(f"{name}.{turn}.a"),
            effect(f"{name}.{turn}.b", seconds=0.1),
            Call(name="writeTextFile", args={"path": path, "text": f"{name} {turn}"}),
            *([read] if turn > 1 else []),
        )
        return talk(f"{name} takes step {turn} and says so at some length.", *calls)

    return script


SOLO = Team(
    definition='[experts.solo]\ninstruction = "You are solo."\n',
    script=worker_steps("solo", 6),
    root="solo",
    result="solo done",
    requests=7,
    steps=6,
)

FIVE = ("one", "two", "three", "four", "five")
NESTED = {"two": ("low", "deep"), "four": ("far", "away")}
"""Delegates that delegate themselves."""


def _tables() -> str:
    delegates = ", ".join(f'"@team/{name}"' for name in FIVE)
    tables = [f'[experts.team]\ninstruction = "You are team."\ndelegates = [{delegates}]\n']
    for name in FIVE:
        own = ", ".join(f'"@team/{low}"' for low in NESTED.get(name, ()))
        tables.append(
            f'[experts."@team/{name}"]\ndescription = "Does {name}."\ninstruction = "You are {name}."\n'
            f"delegates = [{own}]\n"
        )
        tables.extend(
            f'[experts."@team/{low}"]\ndescription = "Does {low}."\ninstruction = "You are {low}."\n'
            for low in NESTED.get(name, ())
        )
    return "\n".join(tables)


def told(request: Request) -> str:
    """What the delegates answered, in the order they were asked."""
    return " | ".join(str(result["content"]) for result in request.results)


def five_at_once(request: Request) -> Answer:
    """The coordinator asks five delegates at once, two of which ask two others."""
    name = who(request)
    below = FIVE if name == "team" else NESTED.get(name, ())
    if not below:
        return worker_steps(name, 2)(request)
    if request.turn == 1:
        return talk(f"{name} splits the work.", *(Call(name=one, args={"query": f"task {one}"}) for one in below))
    return completion(f"{name}: {told(request)}")


TEAM = Team(
    definition=_tables(),
    script=five_at_once,
    root="team",
    result=("team: one done | two: low done | deep done | three done | four: far done | away done | five done"),
    requests=2 + 3 * 3 + 2 * 2 + 4 * 3,
    steps=14,
)

LARGE = 18_000 * "line\n" + "the end"
"""More than Temporal's history takes in one piece."""
LARGE_OUTPUT_BYTES = 90_000


def much(request: Request) -> Answer:
    """Whatever is said, written, read or handed over is large, to the last word."""
    name = who(request)
    if name == "library" and request.turn == 1:
        return talk(
            "The library asks both.", *(Call(name=one, args={"query": f"task {one}"}) for one in ("ant", "bee"))
        )
    if request.turn == 3:
        return completion(f"{name} has it.\n{LARGE}")
    path = f"{name}.txt"
    calls = (
        effect(f"{name}.{request.turn}", output_bytes=LARGE_OUTPUT_BYTES),
        Call(name="writeTextFile", args={"path": path, "text": f"{name} {request.turn}\n{LARGE}"}),
        *([Call(name="readTextFile", args={"path": path})] if name != "library" and request.turn == 2 else []),
    )
    # In large pieces: what is written word by word would take minutes.
    return Answer(text=f"{name} takes step {request.turn}.", calls=calls, delta_size=2000, event_delay_ms=4)


LIBRARY = Team(
    definition="""
[experts.library]
instruction = "You are library."
delegates = ["@library/ant", "@library/bee"]

[experts."@library/ant"]
description = "Knows much."
instruction = "You are ant."

[experts."@library/bee"]
description = "Knows as much."
instruction = "You are bee."
""",
    script=much,
    root="library",
    result=f"library has it.\n{LARGE}",
    requests=3 + 2 * 3,
    steps=1 + 2 * 2,
)
