"""Recorded model calls: what a cassette holds, and whether a run still is the recorded one."""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from .failures import Failure
from .messages import ExpertMessage, Message, ResultPart, TextPart, ToolMessage, ToolResultPart
from .run import Generation
from .seed import Seed
from .wire import Wire

CASSETTE_VERSION = 1
_MAX_SHOWN = 300
_CONTEXT = 40
_CHANGING = (
    (re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:Z|\s?[+-]\d{2}:?\d{2})?"), "<time>"),
    (re.compile(r"(?<![\w.-])1[4-9]\d{8}(?:\d{3})?(?:\.\d+)?(?![\w-])"), "<time>"),
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "<id>"),
    (re.compile(r"\b(?=[a-z0-9]*\d)[a-z][a-z0-9]{23,24}\b"), "<id>"),
)


class AnsweredCall(Wire):
    """A call of the last expert message with what came back."""

    tool_name: str
    args: dict[str, Any]
    is_error: bool = False
    text: str = ""
    """The text of the result; other parts by type and hash."""


class Situation(Wire):
    """What a model call answers to, as far as a replay compares it."""

    expert_key: str
    tools: tuple[str, ...] = ()
    """Names offered, in order."""
    answers: tuple[AnsweredCall, ...] = ()


class CassetteEntry(Wire):
    """One model call of the recorded job and what the model said."""

    path: tuple[str, ...] = ()
    """Calls from the root down to the run."""
    ordinal: int
    """Own generation of the run, from 1."""
    situation: Situation
    reply: Generation | Failure
    """A failure is the final one, after all attempts."""

    @property
    def place(self) -> str:
        """Where in the job this is, for people."""
        return place_of(self.path, self.ordinal)


class Cassette(Wire):
    """The model calls of one job that answered one query."""

    version: Literal[1] = CASSETTE_VERSION
    query: str | None = None
    expert_key: str
    workspace: str = ""
    """The folder it was recorded in; strict comparison treats the replay's own as the same."""
    seed: Seed | None = None
    """What the recorded job went on from, if it had a past."""
    entries: tuple[CassetteEntry, ...] = ()

    def find(self, path: tuple[str, ...], ordinal: int) -> CassetteEntry | None:
        """The entry for one model call."""
        return next((entry for entry in self.entries if (entry.path, entry.ordinal) == (path, ordinal)), None)


def place_of(path: tuple[str, ...], ordinal: int) -> str:
    """Where in a job a model call is, for people."""
    return f"generation {ordinal} of {'run ' + '/'.join(path) if path else 'the root run'}"


def answered_calls(messages: Sequence[Message]) -> tuple[AnsweredCall, ...]:
    """The calls of the last expert message with their results, in call order; calls without a result are left out."""
    last = next((at for at in range(len(messages) - 1, -1, -1) if isinstance(messages[at], ExpertMessage)), None)
    if last is None:
        return ()
    expert_message = messages[last]
    assert isinstance(expert_message, ExpertMessage)
    results: dict[str, ToolResultPart] = {}
    for message in messages[last + 1 :]:
        if isinstance(message, ToolMessage):
            results.update({part.tool_call_id: part for part in message.contents})
    return tuple(
        AnsweredCall(
            tool_name=call.tool_name,
            args=call.args,
            is_error=bool(result.is_error),
            text="\n".join(map(_shown_part, result.contents)),
        )
        for call in expert_message.calls
        if (result := results.get(call.tool_call_id)) is not None
    )


def _shown_part(part: ResultPart) -> str:
    if isinstance(part, TextPart):
        return part.text
    digest = hashlib.sha256(part.encoded_data.encode()).hexdigest()[:16]
    return f"<{part.type} {part.mime_type} {digest}>"


def compare(
    recorded: Situation,
    actual: Situation,
    *,
    is_strict: bool = False,
    recorded_workspace: str = "",
    workspace: str = "",
) -> str | None:
    """The first difference that matters, both sides shown; `None` when the run still is the recorded one.

    Strict also compares the texts of tool results, after taking out times, ids and the path of the workspace.
    """
    if recorded.expert_key != actual.expert_key:
        return _sides("another expert", recorded.expert_key, actual.expert_key)
    if recorded.tools != actual.tools:
        return _sides("other tools are offered", ", ".join(recorded.tools), ", ".join(actual.tools))
    pairs = zip(recorded.answers, actual.answers, strict=False)
    for number, (theirs, ours) in enumerate(pairs, 1):
        name = f"call {number}"
        if (theirs.tool_name, theirs.args) != (ours.tool_name, ours.args):
            return _sides(f"{name} is another", _shown_call(theirs), _shown_call(ours))
        if theirs.is_error != ours.is_error:
            return _sides(f"{name} (`{ours.tool_name}`) ended differently", _shown_result(theirs), _shown_result(ours))
        if is_strict:
            left, right = normalized(theirs.text, recorded_workspace), normalized(ours.text, workspace)
            if left != right:
                return _sides(f"{name} (`{ours.tool_name}`) has another result", *_around_difference(left, right))
    if len(recorded.answers) != len(actual.answers):
        left, right = (", ".join(f"`{call.tool_name}`" for call in side.answers) for side in (recorded, actual))
        return _sides("other calls were made", left or "none", right or "none")
    return None


def normalized(text: str, workspace: str = "") -> str:
    """`text` without what differs from run to run: the workspace's path, times and ids."""
    if workspace:
        text = text.replace(workspace.rstrip("/"), "<workspace>")
    for pattern, stand_in in _CHANGING:
        text = pattern.sub(stand_in, text)
    return text


def _shown_call(call: AnsweredCall) -> str:
    return f"{call.tool_name} {json.dumps(call.args, ensure_ascii=False, sort_keys=True)}"


def _shown_result(call: AnsweredCall) -> str:
    return f"{'error' if call.is_error else 'success'}: {call.text}"


def _around_difference(left: str, right: str) -> tuple[str, str]:
    """Both texts from a little before the first character that differs."""
    shorter = min(len(left), len(right))
    first = next((at for at in range(shorter) if left[at] != right[at]), shorter)
    start = max(0, first - _CONTEXT)
    lead = "…" if start else ""
    return lead + left[start:], lead + right[start:]


def _sides(what: str, recorded: str, actual: str) -> str:
    left, right = (side if len(side) <= _MAX_SHOWN else f"{side[:_MAX_SHOWN]}…" for side in (recorded, actual))
    return f"{what}\n  recorded: {left}\n  now:      {right}"
