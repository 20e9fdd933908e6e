"""What a row of the log is made of: blocks of text that are wrapped to a width and folded to some rows."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from textual.content import Content

from ....plain import plain
from .markdown import Line, markdown_lines

UNFOLDED_ROWS = 5_000
"""Even unfolded, a screen gets no more of one block than this; the log as JSON has all of it."""
MARKDOWN_LENGTH = 10_000
"""Longer texts are shown as they are: reading their mark-up would hold up the screen."""
_SPARE = 512
"""Characters looked at beyond those that fit, because escape sequences take none of the room."""

DIM = "dim"
GOOD = "$success"
BAD = "$error"
CARE = "$warning"


@dataclass(frozen=True, slots=True)
class Block:
    """A text from outside, how it is shown and how much of it while the row is folded."""

    text: str
    """As it came; made harmless when it is shown."""
    label: str = ""
    """Ours, before the text; what its first line is about."""
    lead: str = ""
    """Before its first row; all others are indented as far."""
    rows: int | None = None
    """While folded; `None` is always all of it."""
    style: str = ""
    lead_style: str = ""
    line_style: Callable[[str], str] | None = None
    """The style of a line, where lines differ."""
    is_markdown: bool = False
    keeps_end: bool = False
    """Folded, its last rows are shown instead of its first."""

    def fold(self, width: int, *, is_unfolded: bool) -> "Folded":
        """The block in rows of at most `width` cells."""
        limit = UNFOLDED_ROWS if self.rows is None or is_unfolded else self.rows
        room = max(2, width - len(self.lead))
        text, is_cut = self._excerpt(limit * room + _SPARE)
        rows, unseen = _wrapped(self._lines(text, room), room, limit, keeps_end=self.keeps_end)
        hidden = self.text.strip("\n").count("\n") - text.strip("\n").count("\n") if is_cut else 0
        led = [self._led(number, row) for number, row in enumerate(rows)]
        return Folded(led, hidden + unseen, is_cut or unseen > 0)

    def _excerpt(self, most: int) -> tuple[str, bool]:
        """As much of the text as can be shown, made harmless; whether there is more."""
        is_cut = len(self.text) > most
        raw = (self.text[-most:] if self.keeps_end else self.text[:most]) if is_cut else self.text
        return plain(raw).strip("\n"), is_cut

    def _lines(self, text: str, room: int) -> list[Line]:
        if self.is_markdown and len(text) <= MARKDOWN_LENGTH:
            lines = markdown_lines(text, room)
        else:
            lines = [Line(Content(line)) for line in text.split("\n")] if text else []
        if self.line_style is not None:
            lines = [Line(line.content.stylize(self.line_style(line.content.plain)), line.lead) for line in lines]
        elif self.style:
            lines = [Line(line.content.stylize_before(self.style), line.lead, line.hang) for line in lines]
        return self._labelled(lines)

    def _labelled(self, lines: list[Line]) -> list[Line]:
        if not self.label:
            return lines
        label = Content.styled(self.label, f"bold {self.style}")
        begins_with_heading = self.is_markdown and self.text.startswith("#")
        if not lines or lines[0].lead or begins_with_heading:
            return [Line(label), *lines]
        return [Line(Content.assemble(label, "  ", lines[0].content)), *lines[1:]]

    def _led(self, number: int, row: Content) -> Content:
        if not self.lead:
            return row
        first = Content.styled(self.lead, self.lead_style) if number == 0 else Content(" " * len(self.lead))
        return Content.assemble(first, row)


@dataclass(frozen=True, slots=True)
class Folded:
    """A block as it is shown."""

    rows: list[Content]
    hidden: int
    """Lines left out, where that can be said."""
    has_more: bool


def fold_all(blocks: Iterable[Block], width: int, *, is_unfolded: bool) -> Iterator[tuple[Content, bool]]:
    """The rows of a log entry, each with whether it stands for something that is folded away."""
    for block in blocks:
        folded = block.fold(width, is_unfolded=is_unfolded)
        rows = [(row, False) for row in folded.rows]
        if folded.has_more:
            hint = _hint(folded, block, width)
            rows.insert(0, hint) if block.keeps_end else rows.append(hint)
        yield from rows


def _hint(folded: Folded, block: Block, width: int) -> tuple[Content, bool]:
    what = f"+{folded.hidden} more line{'' if folded.hidden == 1 else 's'}" if folded.hidden else "more"
    return Content.styled(" " * len(block.lead) + f"… {what}", DIM).truncate(width, ellipsis=True), True


def _wrapped(lines: list[Line], room: int, limit: int, *, keeps_end: bool) -> tuple[list[Content], int]:
    """At most `limit` rows (one more where the hint would take it), and how many lines are not or not wholly shown."""
    kept: list[list[Content]] = []
    count = 0
    for line in reversed(lines) if keeps_end else lines:
        if count > limit:
            break
        kept.append(line.wrap(room))
        count += len(kept[-1])
    unseen = len(lines) - len(kept)
    if count <= limit + 1 and not unseen:
        limit = count
    over = count - limit
    rows = [row for wrapped in (reversed(kept) if keeps_end else kept) for row in wrapped]
    while over > 0 and kept:
        unseen += 1
        over -= len(kept.pop())
    return (rows[-limit:] if keeps_end else rows[:limit]), unseen
