"""Long texts in a list: a few lines of each, all of it when a person wants it."""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.syntax import Syntax
from rich.theme import Theme
from textual.content import Content
from textual.strip import Strip

from ...plain import plain
from .rows import Row

_PREVIEW_LINES = 3
_LOOKED_AT = 20
_LONGEST_LINE = 1_000
_INDENT = 2
_MARKS = frozenset("*_`#[|>-+~")
"""Without one of these a text reads the same as Markdown."""
_CALM = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold",
        "markdown.h3": "bold",
        "markdown.h4": "italic",
        "markdown.code": "bold",
        "markdown.code_block": "none",
        "markdown.item.bullet": "none",
        "markdown.item.number": "none",
        "markdown.hr": "dim",
        "markdown.block_quote": "dim",
        "markdown.link": "underline",
        "markdown.link_url": "underline",
    }
)


class Block(NamedTuple):
    """A part of a long text."""

    text: str
    is_markdown: bool = False
    style: str = ""


class _PlainHeading(Heading):
    """A heading that begins where all lines begin."""

    LEVEL_ALIGN: ClassVar[dict[str, JustifyMethod]] = {}


class _Code(CodeBlock):
    """Code without empty lines around it: there are some between all blocks."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Syntax(str(self.text).rstrip(), self.lexer_name, theme=self.theme, word_wrap=True, padding=(0, 2))


class _Markdown(Markdown):
    elements = {**Markdown.elements, "heading_open": _PlainHeading, "fence": _Code, "code_block": _Code}


class FoldRow(Row):
    """A head, and below it texts: their first lines, or all of them."""

    def __init__(
        self, key: str, head: Content, blocks: Sequence[Block], *, console: Console, is_open: bool = False
    ) -> None:
        super().__init__(key)
        self._head = head
        self._blocks = [block for block in blocks if block.text.strip()]
        self._console = console
        self._is_open = is_open
        self._drawn: tuple[tuple[int, bool], list[Content | Strip]] | None = None

    def toggle(self) -> None:
        """Fold, or unfold."""
        self._is_open = not self._is_open

    def height(self, width: int) -> int:
        return len(self._lines(width))

    def line(self, width: int, at: int) -> Content | Strip:
        return self._lines(width)[at]

    def words(self) -> str:
        return " ".join((self._head.plain, *(block.text for block in self._blocks)))

    def _lines(self, width: int) -> list[Content | Strip]:
        if self._drawn is None or self._drawn[0] != (width, self._is_open):
            self._drawn = ((width, self._is_open), self._draw(width))
        return self._drawn[1]

    def _draw(self, width: int) -> list[Content | Strip]:
        inner = max(10, width - _INDENT)
        preview = self._preview()
        hidden = self._line_count() - len(preview)
        is_whole = (
            hidden <= 0
            and all(line.cell_length <= inner for line in preview)
            and not any(block.is_markdown and _MARKS.intersection(block.text) for block in self._blocks)
        )
        if is_whole:
            return [Content.assemble("  ", self._head), *map(_indented, preview), Content()]
        if self._is_open:
            lines: list[Content | Strip] = []
            for at, block in enumerate(self._blocks):
                if at and (block.is_markdown or self._blocks[at - 1].is_markdown):
                    lines.append(Content())
                lines.extend(self._typeset(block, inner))
            return [Content.assemble("▾ ", self._head), *lines, Content()]
        more = (f"  +{hidden} line{'' if hidden == 1 else 's'}", "dim") if hidden > 0 else ""
        cut = (_indented(line.truncate(inner, ellipsis=True)) for line in preview)
        return [Content.assemble("▸ ", self._head, more), *cut, Content()]

    def _preview(self) -> list[Content]:
        """The first lines that are not empty; of a long text no more than those is looked at."""
        found: list[Content] = []
        for block in self._blocks:
            for line in block.text.lstrip().split("\n", _LOOKED_AT)[:_LOOKED_AT]:
                if line.strip() and len(found) < _PREVIEW_LINES:
                    found.append(Content.styled(plain(line[:_LONGEST_LINE]).replace("\n", " "), block.style))
        return found

    def _line_count(self) -> int:
        return sum(block.text.strip("\n").count("\n") + 1 for block in self._blocks)

    def _typeset(self, block: Block, width: int) -> list[Content | Strip]:
        text = plain(block.text).strip("\n")
        if not block.is_markdown:
            lines = (Content.styled(line, block.style) for line in text.split("\n"))
            return [_indented(part) for line in lines for part in (line.fold(width) if line else (line,))]
        with self._console.use_theme(_CALM):
            options = self._console.options.update(width=width, height=None)
            drawn = self._console.render_lines(_Markdown(text, code_theme="ansi_dark"), options, pad=False)
        return [Strip.join((Strip.blank(_INDENT), Strip(line))) for line in drawn]


def _indented(line: Content) -> Content:
    return Content.assemble(" " * _INDENT, line)
