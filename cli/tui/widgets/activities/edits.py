"""Files that were written: what came and what went."""

from collections.abc import Iterator
from difflib import unified_diff

from .....core.activity import AppendTextFileActivity, EditTextFileActivity, WriteTextFileActivity
from ....plain import one_line
from .block import BAD, DIM, GOOD, Block
from .marks import INDENT, TEXT_ROWS, failure, tool_head

DIFF_ROWS = 12
_CONTEXT_LINES = 2
_COMPARED_LINES = 2_000
"""Comparing takes time with the square of them; more are shown as all gone and all new."""


def edit(activity: EditTextFileActivity) -> Iterator[Block]:
    lines = diff_lines(activity.old_text, activity.new_text)
    gone = sum(line.startswith("−") for line in lines)
    come = sum(line.startswith("+") for line in lines)
    yield tool_head("Edit", f"{one_line(activity.path)} −{gone} +{come}", activity.error)
    yield from failure(activity.error)
    yield _changes("\n".join(lines), DIFF_ROWS)


def write(activity: WriteTextFileActivity | AppendTextFileActivity) -> Iterator[Block]:
    lines = _lines(activity.text)
    label = "Write" if activity.type == "writeTextFile" else "Append"
    yield tool_head(label, f"{one_line(activity.path)} +{len(lines)}", activity.error)
    yield from failure(activity.error)
    yield _changes("\n".join(f"+ {line}" for line in lines), TEXT_ROWS)


def diff_lines(old: str, new: str) -> list[str]:
    """What makes `new` of `old`: lines with `− `, `+ ` or, where they stayed, two spaces before them."""
    before, after = _lines(old), _lines(new)
    if len(before) + len(after) > _COMPARED_LINES:
        return [*(f"− {line}" for line in before), *(f"+ {line}" for line in after)]
    # Its first two lines name files.
    found = list(unified_diff(before, after, n=_CONTEXT_LINES, lineterm=""))[2:]
    return [_line(line) for number, line in enumerate(found) if number > 0 or not line.startswith("@@")]


def _line(line: str) -> str:
    if line.startswith("@@"):
        return "⋯"
    return f"{'−' if line[0] == '-' else line[0]} {line[1:]}"


def _lines(text: str) -> list[str]:
    """Its lines; a line that only ends is none of its own."""
    return text.removesuffix("\n").split("\n") if text else []


def _changes(text: str, rows: int) -> Block:
    return Block(text, lead=INDENT, rows=rows, line_style=_style)


def _style(line: str) -> str:
    return {"+": GOOD, "−": BAD}.get(line[:1], DIM)
