"""Where `start` begins: the experts, and the jobs there are already, each a key away from the other."""

from .experts import ExpertsScreen
from .jobs import JobsScreen


def experts() -> ExpertsScreen:
    """The experts, to start a job with."""
    return ExpertsScreen(jobs)


def jobs() -> JobsScreen:
    """The jobs of the server, to work on."""
    return JobsScreen("start", experts)
