"""Markdown as lines of text: what a model writes, calm and cheap enough for a log of thousands."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.token import Token
from textual.content import Content, Span

_MARKS = {"strong_open": "bold", "em_open": "italic", "s_open": "strike"}
_CODE = "$accent"
_QUIET = "dim"
_parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


@dataclass(frozen=True, slots=True)
class Line:
    """A line before it is wrapped."""

    content: Content
    lead: str = ""
    """Before its first row: a bullet, a quotation mark."""
    hang: str = ""
    """Before its other rows; as wide."""

    def wrap(self, width: int) -> list[Content]:
        """The line in rows of at most `width` cells."""
        if not self.lead:
            return self.content.wrap(width)
        most = width // 2  # however deep it stands
        rows = self.content.wrap(max(2, width - len(self.lead[:most])))
        leads = [self.lead[:most], *[self.hang[:most]] * (len(rows) - 1)]
        return [Content.assemble((lead, _QUIET), row) for lead, row in zip(leads, rows, strict=True)]


def markdown_lines(text: str, width: int) -> list[Line]:
    """The lines of a text in Markdown. Line breaks stay, and so does everything that is no clear mark-up.

    `width` is that of rules between its parts; lines are wrapped later.
    """
    writer = _Writer(width)
    tokens = iter(_parser.parse(text))
    for token in tokens:
        if token.type == "table_open":
            writer.table(tokens)
        else:
            writer.take(token)
    return writer.lines


@dataclass
class _Level:
    """A list item or a quotation that lines stand in."""

    first: str
    """Before its first line."""
    rest: str
    is_begun: bool = False


@dataclass
class _Writer:
    width: int
    lines: list[Line] = field(default_factory=list[Line])
    _levels: list[_Level] = field(default_factory=list[_Level])
    _numbers: list[int | None] = field(default_factory=list[int | None])
    """Of the lists that are open: the next number, `None` with bullets."""
    _heading: bool = False

    def take(self, token: Token) -> None:
        """Write what a token says."""
        match token.type:
            case "heading_open" | "paragraph_open" | "fence" | "code_block" | "hr" | "blockquote_open":
                self._part(token)
            case "bullet_list_open" | "ordered_list_open":
                self._space()
                self._numbers.append(int(token.attrGet("start") or 1) if token.type[0] == "o" else None)
            case "bullet_list_close" | "ordered_list_close":
                self._numbers.pop()
            case "list_item_open":
                mark = self._mark()
                self._levels.append(_Level(mark, " " * len(mark)))
            case "list_item_close" | "blockquote_close":
                self._levels.pop()
            case "inline":
                content = _inline(token.children or [])
                self._put(content.stylize("bold") if self._heading else content)
            case "heading_close":
                self._heading = False
            case _:
                pass

    def table(self, tokens: Iterator[Token]) -> None:
        """Write a table: its cells in columns, as wide as the widest of each."""
        self._space()
        rows: list[list[Content]] = []
        for token in tokens:
            if token.type == "table_close":
                break
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "inline":
                rows[-1].append(_inline(token.children or []))
        widths = [max(cell.cell_length for cell in column) for column in zip(*rows, strict=True)]
        for number, row in enumerate(rows):
            cells = [cell.pad_right(width - cell.cell_length) for cell, width in zip(row, widths, strict=True)]
            line = Content("  ").join(cells)
            self._put(line.stylize("bold") if number == 0 else line)
            if number == 0:
                self._put(Content.styled("  ".join("─" * width for width in widths), _QUIET))

    def _part(self, token: Token) -> None:
        self._space()
        match token.type:
            case "heading_open":
                self._heading = True
            case "blockquote_open":
                self._levels.append(_Level("▎ ", "▎ "))
            case "hr":
                self._put(Content.styled("─" * min(self.width, 20), _QUIET))
            case "fence" | "code_block":
                self._levels.append(_Level("  ", "  "))
                for line in token.content.rstrip("\n").split("\n"):
                    self._put(Content.styled(line, _CODE))
                self._levels.pop()
            case _:
                pass

    def _mark(self) -> str:
        number = self._numbers[-1]
        if number is None:
            return "• "
        self._numbers[-1] = number + 1
        return f"{number}. "

    def _space(self) -> None:
        """An empty line between two parts of the text itself; lists and quotations stay close."""
        if self.lines and not self._levels:
            self.lines.append(Line(Content()))

    def _put(self, content: Content) -> None:
        for line in content.split("\n", allow_blank=True) or [content]:
            lead = "".join(level.rest if level.is_begun else level.first for level in self._levels)
            for level in self._levels:
                level.is_begun = True
            self.lines.append(Line(line, lead, "".join(level.rest for level in self._levels)))


def _inline(tokens: list[Token]) -> Content:
    """The text of one paragraph with its marks."""
    texts: list[str] = []
    spans: list[Span] = []
    open_marks: list[tuple[int, str]] = []
    length = 0

    def put(text: str, style: str = "") -> None:
        nonlocal length
        if style and text:
            spans.append(Span(length, length + len(text), style))
        texts.append(text)
        length += len(text)

    for token in tokens:
        if token.nesting == 1:
            put(_kept(token))
            open_marks.append((length, _MARKS.get(token.type, "") or f"{token.attrGet('href') or ''}"))
        elif token.nesting == -1 and open_marks:
            start, mark = open_marks.pop()
            if token.type != "link_close":
                spans.append(Span(start, length, mark))
            elif mark not in ("".join(texts)[start:], f"mailto:{''.join(texts)[start:]}"):
                put(f" ({mark})", _QUIET)
            put(_kept(token))
        elif token.type in ("softbreak", "hardbreak"):
            put("\n")
        elif token.type == "code_inline":
            put(f"{token.markup}{token.content}{token.markup}", _CODE)
        elif token.type == "image":
            put(f"[image: {token.content}] ({token.attrGet('src')})")
        else:
            put(token.content)
    return Content("".join(texts), [span for span in spans if span.end > span.start])


def _kept(token: Token) -> str:
    """Marks that may as well be part of a name: `__init__` stays what it is."""
    return token.markup if token.markup in ("_", "__") else ""
