"""Teams of experts for end-to-end tests, each a perstack.toml with the script of its model."""

from collections.abc import Callable

from support.model_server import Answer, Call, Request

PARALLEL_TEAM = """
[experts.team]
description = "Splits work three ways."
instruction = "You are team."
delegates = ["@team/one", "@team/two", "@team/three"]

[experts."@team/one"]
description = "First."
instruction = "You are one."

[experts."@team/two"]
description = "Second."
instruction = "You are two."

[experts."@team/three"]
description = "Third."
instruction = "You are three."
"""

Turn = Callable[[Request], Answer]


def who(request: Request) -> str:
    """Which expert asks: the last line of its own instruction."""
    for line in request.system.splitlines():
        if line.startswith("You are ") and line.endswith(".") and " " not in line[8:-1]:
            return line[8:-1]
    raise AssertionError(f"nobody known asks: {request.system[-200:]!r}")


def parallel_team(request: Request) -> Answer:
    """The coordinator delegates to all three at once; each writes a file, reads it back and reports."""
    name = who(request)
    if name == "team":
        if request.turn == 1:
            return Answer(
                text="Splitting.",
                calls=tuple(Call(name=n, args={"query": f"task {n}"}) for n in ("one", "two", "three")),
            )
        texts = [str(result["content"]) for result in request.results]
        return Answer(calls=(Call(name="attemptCompletion", args={"result": "all: " + " | ".join(texts)}),))
    if request.turn == 1:
        return Answer(
            thinking=f"{name} thinks",
            text=f"{name} writes",
            calls=(
                Call(name="writeTextFile", args={"path": f"{name}.txt", "text": f"by {name}"}),
                Call(
                    name="exec",
                    args={"command": "echo", "args": [name], "env": {}, "cwd": ".", "stdout": True, "stderr": True},
                ),
            ),
        )
    if request.turn == 2:
        return Answer(calls=(Call(name="readTextFile", args={"path": f"{name}.txt"}),))
    return Answer(calls=(Call(name="attemptCompletion", args={"result": f"{name} done"}),))
