"""What the end of an activity means to the machine; the workflow and the readers of its history ask alike."""

from ..core.failures import Failure
from ..core.run import Generation
from ..core.triggers import Generated, GenerationFailed, GenerationLost, SessionFailed, ToolFailed, ToolLost, Trigger
from .contracts import Cancelled, FailureDetails, Lost

Ending = Lost | Cancelled | FailureDetails


def session_not_opened(ending: Ending) -> Trigger:
    """`open_session` ended without a report."""
    match ending:
        case Lost():
            return SessionFailed(_failure("worker.lost", "The worker was lost while it opened the session."))
        case Cancelled():
            return SessionFailed(_failure("cancelled", "The session was cancelled while it opened."))
        case FailureDetails(failure=failure):
            return SessionFailed(failure)


def not_generated(ending: Ending) -> Trigger:
    """`generate` ended without an answer."""
    match ending:
        case Lost(attempts=attempts, is_refused=is_refused):
            return GenerationLost(attempts, is_refused)
        case Cancelled():
            return Generated(Generation(finish_reason="cancelled"))
        case FailureDetails():
            return GenerationFailed(ending.failure, ending.attempts, ending.usage)


def not_called(index: int, ending: Ending) -> Trigger:
    """`call_tool` ended without an outcome."""
    match ending:
        case Lost(has_started=has_started, is_refused=is_refused):
            return ToolLost(index, has_started, is_refused)
        case Cancelled():
            return ToolLost(index, has_started=False)
        case FailureDetails(failure=failure):
            return ToolFailed(index, failure)


def _failure(name: str, message: str) -> Failure:
    return Failure(name=name, message=message)
