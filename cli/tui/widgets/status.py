"""The status block: what was asked, how many runs do what and for how long, what it used."""

from collections.abc import Sequence
from decimal import Decimal

from textual import events
from textual.content import Content
from textual.widgets import Static

from ....core.usage import Usage
from ....core.view_state import RunView, ViewState
from ...plain import one_line
from ..moments import duration, tokens
from ..states import phase_words


def worked_milliseconds(view: ViewState, now: int) -> int:
    """How long the job worked, all executions together; while it waits for a person its time stands still."""
    return sum(_worked(root, now if root is view.root else root.ended_at or view.last_at) for root in view.roots)


def _worked(root: RunView, now: int) -> int:
    if root.has_ended and root.ended_at is not None:
        end = root.ended_at
    elif root.phase == "waitingForPerson" and root.segments[-1].ended_at is not None:
        end = root.segments[-1].ended_at
    else:
        end = max(now, root.segments[-1].started_at)
    waited = sum(
        later.started_at - earlier.ended_at
        for earlier, later in zip(root.segments, root.segments[1:], strict=False)
        if earlier.phase == "waitingForPerson" and earlier.ended_at is not None
    )
    return max(0, end - root.started_at - waited)


def counts(view: ViewState) -> tuple[int, int]:
    """How many runs of the newest execution work, and how many wait."""
    runs = [run for run, _ in view.tree(view.root)] if view.root else []
    return sum(run.is_working for run in runs), sum(run.is_waiting for run in runs)


def state_line(view: ViewState, now: int, provider: str, width: int) -> str:
    """`1 running · 3 waiting · 4m 06s · anthropic`, or how the job ended."""
    running, waiting = counts(view)
    told = [f"{running} running"] if running else []
    told += [f"{waiting} waiting"] if waiting else []
    if not told:
        told = [phase_words(view.root.phase)] if view.root else ["Starting…"]
    seconds = worked_milliseconds(view, now) // 1000
    return _fitting([[*told, _elapsed(seconds), provider], [*told, _elapsed(seconds)]], width)


def token_line(usage: Usage, cost: Decimal | None, width: int) -> str:
    """`Tokens: In 2.9M (Cached 2.1M, Cache Hit 72.69%) · Out 46.2k`, with its price where that is known."""
    read, out = tokens(usage.input_tokens), f"Out {tokens(usage.output_tokens)}"
    price = [f"about ${cost:.2f}"] if cost is not None else []
    if not usage.cached_input_tokens:
        return _fitting([[f"Tokens: In {read}", out, *price], [f"In {read}", out, *price], [f"In {read}", out]], width)
    hit = f"{usage.cached_input_tokens / max(1, usage.input_tokens):.2%}"
    long = f"In {read} (Cached {tokens(usage.cached_input_tokens)}, Cache Hit {hit})"
    short = f"In {read} ({hit} cached)"
    return _fitting([[f"Tokens: {long}", out, *price], [long, out, *price], [short, out, *price], [short, out]], width)


def _elapsed(seconds: int) -> str:
    return f"{seconds}s" if seconds < 60 else duration(seconds * 1000)


def _fitting(variants: Sequence[Sequence[str]], width: int) -> str:
    """The first that fits, else the last, for the line to cut."""
    lines = [" · ".join(parts) for parts in variants]
    return next((line for line in lines if len(line) <= width), lines[-1])


class StatusPane(Static):
    """Three lines, whatever the width."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)
        self._view = ViewState()
        self._now = 0
        self._provider = ""
        self._cost: Decimal | None = None

    def show(self, view: ViewState, now: int, provider: str, cost: Decimal | None) -> None:
        """Show a job as it is at `now`, in milliseconds since the epoch."""
        self._view, self._now, self._provider, self._cost = view, now, provider, cost
        self._draw()

    def on_resize(self, _: events.Resize) -> None:
        self._draw()

    def _draw(self) -> None:
        width = self.content_size.width
        if not width:
            return
        query = one_line(self._view.root.query) if self._view.root else ""
        lines = (
            Content.assemble(("Query: ", "bold"), query),
            Content(state_line(self._view, self._now, self._provider, width)),
            Content(token_line(self._view.usage, self._cost, width)),
        )
        self.update(Content("\n").join(line.truncate(width, ellipsis=True) for line in lines), layout=False)
