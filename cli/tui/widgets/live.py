"""What the models say right now: reasoning and text of every run that streams."""

from collections.abc import Sequence

from textual import events
from textual.content import Content
from textual.widgets import Static

from ....core.view_state import RunView
from ...plain import one_line, plain
from ..states import sign

_MOST_RUNS = 4
_LINES = (4, 3, 2, 1)
"""Of text, by the number of runs that stream."""


def is_streaming(run: RunView) -> bool:
    """Whether there is live text of a run."""
    return bool((run.live.is_reasoning_active and run.live.reasoning) or run.live.run_result)


class LivePane(Static):
    """The last lines of every live text, with whose it is; not there while nobody says anything."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._runs: Sequence[RunView] = ()
        self._most_lines = 10
        self.display = False

    def show(self, runs: Sequence[RunView], most_lines: int) -> None:
        """Show the live texts of these runs, in no more lines than `most_lines`."""
        self._runs, self._most_lines = runs, most_lines
        self._draw()

    def on_resize(self, _: events.Resize) -> None:
        self._draw()

    def _draw(self) -> None:
        streaming = [run for run in self._runs if is_streaming(run)]
        self.display = bool(streaming)
        width = self.screen.size.width - self.gutter.width
        if not streaming or width <= 4:
            return
        most_runs = max(1, min(_MOST_RUNS, self._most_lines // 2))
        shown = streaming[-most_runs:]
        lines = min(_LINES[len(shown) - 1], max(1, self._most_lines // len(shown) - 1))
        blocks = [block for run in shown for block in _block(run, lines, width)]
        if len(streaming) > len(shown):
            blocks.append(Content.styled(f"  and {len(streaming) - len(shown)} more", "dim"))
        self.update(Content("\n").join(blocks))


def _block(run: RunView, lines: int, width: int) -> list[Content]:
    is_reasoning = run.live.is_reasoning_active and bool(run.live.reasoning)
    text, label = (run.live.reasoning, "Reasoning…") if is_reasoning else (run.live.run_result, "Writing…")
    head = Content.assemble((f"{sign(run)} {one_line(run.expert_key)}", "bold"), (f" · {label}", "dim"))
    said = [Content.styled(f"  {line}", "dim") for line in _tail(text, lines, width - 2)]
    return [head.truncate(width, ellipsis=True), *said]


def _tail(text: str, lines: int, width: int) -> list[str]:
    """The last lines of a text, wrapped to the width."""
    # Of a long text only the end is wrapped: this happens many times a second.
    end = Content(plain(text[-width * (lines + 2) :]).strip())
    wrapped = [line.plain.rstrip() for line in end.wrap(width)]
    return [line for line in wrapped if line][-lines:]
