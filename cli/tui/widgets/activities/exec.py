"""Commands and what they wrote."""

import shlex
from collections.abc import Iterator

from .....core.activity import ExecActivity
from ....plain import one_line
from .block import CARE, DIM, Block
from .marks import TEXT_ROWS, below, failure, tool_head

_STDERR = "  ! "


def exec_(activity: ExecActivity) -> Iterator[Block]:
    command = " ".join(shlex.quote(word) for word in (activity.command, *activity.args))
    where = f" (in {one_line(activity.cwd)})" if activity.cwd not in ("", ".") else ""
    yield tool_head("Exec", one_line(command) + where, activity.error)
    yield from failure(activity.error)
    # What a command that succeeded wrote comes as one text.
    outputs = [text for text in (activity.output, activity.stdout) if text is not None and text.strip()]
    for text in dict.fromkeys(outputs):
        yield below(text, keeps_end=True, style=DIM)
    if activity.stderr is not None and activity.stderr.strip():
        yield Block(activity.stderr, lead=_STDERR, rows=TEXT_ROWS, keeps_end=True, style=CARE)
