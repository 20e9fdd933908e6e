"""What is asked before a job is ended or left, and what the command tells the shell then."""

from ....core.view_state import ViewState
from ...diagnostics import ExitCode, exit_code_of_run
from ..backend import Stop
from .dialog import Choice, Dialog

_STAY = Choice("stay", "s", "Stay")
_CANCEL = Choice("cancel", "c", "Cancel it")


def cancelling() -> Dialog:
    """Whether a job shall end."""
    return Dialog("Cancel this job?", Choice("cancel", "c", "Cancel it with all its delegates"), _STAY)


def detaching() -> Dialog:
    """Whether a job shall go on elsewhere."""
    leave = Choice("detach", "d", "Leave it to the background")
    return Dialog("Leave this job?", leave, _STAY, text="A background process works on, and the screen closes.")


def leaving(job_id: str) -> Dialog:
    """What shall become of a job that this process works on, when the process ends."""
    return Dialog(
        "The job still works",
        Choice("park", "p", "Park it"),
        Choice("detach", "d", "Leave it to the background"),
        _CANCEL,
        _STAY,
        text=f"A parked job goes on with: perstack resume {job_id}",
        again="park",
    )


def going_back() -> Dialog:
    """What shall become of a job that this process works on, when another screen is looked at."""
    return Dialog(
        "The job still works",
        Choice("park", "p", "Park it and go back"),
        Choice("detach", "d", "Leave it to the background and go back"),
        Choice("cancel", "c", "Cancel it and go back"),
        _STAY,
        text="It works only while it is on the screen. A parked job goes on when you open it again.",
    )


def exit_code(stop: Stop | None, view: ViewState) -> int:
    """What the command tells the shell when it is left while the job stands like that."""
    match stop:
        case None:
            return int(ExitCode.INTERRUPTED)
        case Stop(
            kind="completed"
            | "stoppedByError"
            | "stoppedByExceededMaxSteps"
            | "stoppedByInteractiveTool"
            | "stoppedByCancellation" as status
        ):
            failure = view.root.failure if view.root else None
            return int(exit_code_of_run(status, failure.name if failure else None))
        case _:
            return int(ExitCode.FAILED)
