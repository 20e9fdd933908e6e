"""What was said on the command line of `log`; loads nothing that a screen, soon to be seen, would have to wait for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .terminal import has_terminal

if TYPE_CHECKING:
    from ..core.event_query import EventQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What was said on the command line of `log`, word by word."""

    job_id: str | None = None
    file: str | None = None
    run_id: str | None = None
    checkpoint_id: str | None = None
    step: str | None = None
    type: str | None = None
    is_errors: bool = False
    is_tools: bool = False
    is_delegations: bool = False
    expression: str | None = None
    take: str | None = None
    offset: str | None = None
    context: str | None = None
    is_text: bool = False
    is_json: bool = False
    is_pretty: bool = False
    is_cassette: bool = False
    is_export: bool = False
    is_verbose: bool = False
    is_summary: bool = False
    has_messages: bool = False
    is_following: bool = False
    address: str | None = None

    def query(self) -> "EventQuery":
        """The events that are asked for.

        Raises:
            UsageError: an option makes no sense.
        """
        from ..core.event_query import DEFAULT_TAKE, EventQuery, Expression, StepRange, parse_count

        return EventQuery(
            steps=StepRange.parse(self.step) if self.step is not None else None,
            type=self.type,
            is_errors=self.is_errors,
            is_tools=self.is_tools,
            is_delegations=self.is_delegations,
            expression=Expression.parse(self.expression) if self.expression is not None else None,
            take=parse_count("--take", self.take) if self.take is not None else DEFAULT_TAKE,
            offset=parse_count("--offset", self.offset) if self.offset is not None else 0,
            context=parse_count("--context", self.context) if self.context is not None else 0,
        )

    @property
    def is_for_eyes(self) -> bool:
        """Whether nothing was said but which job it is about: neither a form nor a part of it."""
        plain = LogOptions(job_id=self.job_id, file=self.file, address=self.address)
        return self == plain


def wants_screens(options: LogOptions) -> bool:
    """Whether a person sits before a terminal that can show screens, and asked for nothing else."""
    return has_terminal() and options.is_for_eyes
