"""What screens say of a run: its sign, its words, how full its context is. Colours only repeat them."""

from ...core.view_state import Phase, RunView
from ..plain import one_line

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
STILL = "◦"
"""For a run that works, where nothing shall move."""
WAITING = "⏸"
DONE = "✓"
OVER = "✗"
_DIALS = "○◔◑◕●"
_WORDS: dict[Phase, tuple[str, str]] = {
    "starting": ("Starting…", "Starting…"),
    "generating": ("Waiting for the model…", "Model…"),
    "reasoning": ("Streaming reasoning…", "Reasoning…"),
    "answering": ("Streaming text…", "Writing…"),
    "callingTools": ("Calling tools", "Calling"),
    "waitingForDelegates": ("Waiting for delegates", "Delegates"),
    "waitingForPerson": ("Asks you", "Asks you"),
    "completed": ("Completed", "Completed"),
    "failed": ("Failed", "Failed"),
    "stepLimit": ("Reached its step limit", "Step limit"),
    "cancelled": ("Cancelled", "Cancelled"),
    "ended": ("Ended from outside", "Ended"),
}
"""For a line with room, and for one without."""


def sign(run: RunView, frame: int | None = None) -> str:
    """One cell: what a run does; with a `frame` number the sign of a working one turns."""
    if run.is_working:
        return STILL if frame is None else SPINNER[frame % len(SPINNER)]
    if run.is_waiting:
        return WAITING
    return DONE if run.phase == "completed" else OVER


def colour(run: RunView) -> str:
    """The style that repeats the sign."""
    if run.is_working:
        return "$primary"
    if run.is_waiting:
        return "$warning"
    return "$success" if run.phase == "completed" else "$error"


def phase_words(phase: Phase) -> str:
    """What a phase is called."""
    return _WORDS[phase][0]


def words(run: RunView, room: int = 1000) -> str:
    """What a run does, or how it ended, in about as many cells as there are."""
    long, short = _WORDS[run.phase]
    text = long if len(long) <= room else short
    match run.phase:
        case "callingTools" if run.calls:
            return f"Calling {one_line(', '.join(dict.fromkeys(call.tool_name for call in run.calls)))}"
        case "failed" if run.failure is not None:
            return f"{text}: {one_line(run.failure.message)}"
        case "ended" if run.closed:
            return f"{text}: {run.closed}"
        case _:
            return text


def dial(fullness: float | None) -> str:
    """How full a context window is, `◔ 12%`; nothing where nobody knows its size."""
    if fullness is None:
        return ""
    quarter = min(4, max(0, round(fullness * 4)))
    share = "<1%" if 0 < fullness < 0.005 else f"{fullness:.0%}"
    return f"{_DIALS[quarter]} {share}"
