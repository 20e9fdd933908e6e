"""What most entries have: a first line with its mark, texts below it, and what went wrong."""

from collections.abc import Iterator

from ....plain import one_line
from .block import BAD, GOOD, Block

HEAD_ROWS = 3
TEXT_ROWS = 4
INDENT = "    "


def head(label: str, text: str = "", *, mark: str = "●", tone: str = "") -> Block:
    """The line that says what was done, and to what."""
    return Block(text, label=label, lead=f"{mark} ", lead_style=tone, rows=HEAD_ROWS)


def tool_head(label: str, text: str, error: str | None) -> Block:
    """The line of a tool call: done, or failed."""
    return head(label, one_line(text), mark="●" if error is None else "✗", tone=GOOD if error is None else BAD)


def below(text: str, *, rows: int = TEXT_ROWS, keeps_end: bool = False, style: str = "") -> Block:
    """A text that belongs to the line above it."""
    return Block(text, lead=INDENT, rows=rows, keeps_end=keeps_end, style=style)


def failure(error: str | None) -> Iterator[Block]:
    """What went wrong, if anything did."""
    if error is not None:
        yield below(error.strip() or "failed without a word", style=BAD)
