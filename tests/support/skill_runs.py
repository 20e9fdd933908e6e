"""Definitions with skills for the real program, scripts of their model, and what a command leaves behind."""

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from perstack.core.expert import McpSseSkill, McpStdioSkill

from .leftovers import processes_of
from .model_server import Answer, Call, Request

LIVE_ONLY = frozenset(
    {"startStreamingReasoning", "streamReasoning", "startStreamingRunResult", "streamRunResult", "skillStderr"}
)
"""Events that a log cannot tell."""
Step = Answer | Sequence[Call]


def skill_table(expert: str, skill: McpStdioSkill | McpSseSkill) -> str:
    """A skill as a definition has it."""
    values = skill.model_dump(mode="json", by_alias=True, exclude={"name"}, exclude_defaults=True)
    lines = (f"{name} = {json.dumps(value)}" for name, value in {**values, "type": skill.type}.items())
    return "\n".join((f"[experts.{json.dumps(expert)}.skills.{json.dumps(skill.name)}]", *lines, ""))


def solo(*skills: McpStdioSkill | McpSseSkill) -> str:
    """A definition of one expert with these skills."""
    head = '[experts.solo]\ninstruction = "You are solo."\n'
    return "\n".join((head, *(skill_table("solo", skill) for skill in skills)))


def steps(*turns: Step) -> Callable[[Request], Answer]:
    """A script that makes these calls turn by turn, and ends with a text."""

    def script(request: Request) -> Answer:
        if request.turn > len(turns):
            return Answer(text="done")
        turn = turns[request.turn - 1]
        return turn if isinstance(turn, Answer) else Answer(calls=tuple(turn))

    return script


def offered(request: Request) -> list[str]:
    """The names of the tools that a request offers."""
    return [tool["name"] for tool in request.json["tools"]]


def text_of(result: dict[str, Any]) -> str:
    """What a tool result of a model request says."""
    content = result["content"]
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


async def all_gone(home: str, *, named: str, seconds: float = 20) -> None:
    """Wait until of the processes whose home folder is `home` those with `named` in their command have ended."""
    async with asyncio.timeout(seconds):
        for line in processes_of(home):
            if named in line:
                await _gone(int(line.removeprefix("process ").partition(":")[0]))


async def _gone(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
