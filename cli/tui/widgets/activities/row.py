"""The widget of a log entry."""

from typing import ClassVar

from textual.app import RenderResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.css.styles import RulesMap
from textual.events import Click, Resize
from textual.reactive import reactive
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widget import Widget

from .....core.view_state import Entry
from .block import Block, fold_all
from .header import header


class ActivityRow(Widget):
    """One activity: its header and its blocks, folded until somebody wants to see all."""

    DEFAULT_CSS = """
    ActivityRow {
        width: 1fr;
        height: auto;
        margin-bottom: 1;
        padding-left: 1;
        text-wrap: nowrap;
        text-overflow: clip;
        &:focus { border-left: outer $primary; padding-left: 0; background: $boost; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "toggle_fold", "Unfold")]

    is_unfolded: reactive[bool] = reactive(False, layout=True)

    def __init__(self, entry: Entry, blocks: tuple[Block, ...]) -> None:
        super().__init__(classes=f"-{entry.activity.type}")
        self.entry = entry
        self._blocks = blocks
        self._shown: dict[tuple[int, bool], tuple[list[Content], bool]] = {}

    def rows(self, width: int) -> list[Content]:
        """What it shows in so many cells."""
        return self._laid_out(width)[0]

    def has_more(self, width: int) -> bool:
        """Whether something is folded away, or was and can be again."""
        return self.is_unfolded or self._laid_out(width)[1]

    def action_toggle_fold(self) -> None:
        """Show all of it, or fold it again."""
        if self.has_more(self.content_size.width):
            self.is_unfolded = not self.is_unfolded

    def on_click(self, event: Click) -> None:
        if self.text_selection is None and self.has_more(self.content_size.width):
            event.stop()
            self.action_toggle_fold()

    def on_resize(self, event: Resize) -> None:
        self.can_focus = self.has_more(self.content_size.width)

    def render(self) -> RenderResult:
        return _Rows(self)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text that somebody marked with the mouse."""
        text = "\n".join(row.plain for row in self.rows(self.content_size.width))
        return selection.extract(text), "\n"

    def _laid_out(self, width: int) -> tuple[list[Content], bool]:
        key = width, self.is_unfolded
        if key not in self._shown:
            found = list(fold_all(self._blocks, width, is_unfolded=self.is_unfolded))
            rows = [header(self.entry).truncate(width, ellipsis=True), *(row for row, _ in found)]
            self._shown = {key: (rows, any(is_hint for _, is_hint in found))}
        return self._shown[key]


class _Rows(Visual):
    """The rows of an entry; how many there are depends on the width."""

    def __init__(self, row: ActivityRow) -> None:
        self._row = row

    def render_strips(self, width: int, height: int | None, style: Style, options: RenderOptions) -> list[Strip]:
        return Content("\n").join(self._row.rows(width)).render_strips(width, height, style, options)

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        return len(self._row.rows(width))
