"""How jobs and checkpoints stand, as a sign and a word; the word says all that the sign says."""

from typing import NamedTuple


class Standing(NamedTuple):
    """A sign, a word, and the colour that repeats them."""

    sign: str
    word: str
    style: str = ""


_DONE = "$success"
_FAILED = "$error"
_WAITING = "$warning"
_WORKING = "$primary"

_JOBS = {
    "running": Standing("◦", "running", _WORKING),
    "waiting": Standing("⏸", "waiting", _WAITING),
    "completed": Standing("✓", "completed", _DONE),
    "stoppedByInteractiveTool": Standing("⏸", "waiting", _WAITING),
    "stoppedByDelegate": Standing("⏸", "delegating", _WAITING),
    "stoppedByError": Standing("✗", "failed", _FAILED),
    "stoppedByMaxSteps": Standing("✗", "step limit", _FAILED),
    "stoppedByExceededMaxSteps": Standing("✗", "step limit", _FAILED),
    "stoppedByCancellation": Standing("✗", "cancelled", _FAILED),
    "terminated": Standing("✗", "terminated", _FAILED),
    "timedOut": Standing("✗", "timed out", _FAILED),
    "init": Standing("◦", "starting", _WORKING),
    "proceeding": Standing("◦", "proceeding", _WORKING),
}


def status_standing(status: str) -> Standing:
    """Of a job or a checkpoint, by the word of its status."""
    return _JOBS.get(status, Standing("·", status))
