"""Everything that can go wrong, by who has to act on it; codes are stable dotted strings."""

from typing import Any

from .usage import NO_USAGE, Usage
from .wire import Wire


class PerstackError(Exception):
    """A failure with a stable code, a sentence for people and, where there is one, the next step."""

    code = "perstack.error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.hint = hint
        self.details = details or {}


class DefinitionError(PerstackError):
    """The author of a definition has to change it; the message names file, line and key."""

    code = "definition.invalid"


class UsageError(PerstackError):
    """The caller has to change the call."""

    code = "usage.invalid"


class CredentialError(PerstackError):
    """A provider credential or setting is missing or refused."""

    code = "provider.credentials"


class ServerError(PerstackError):
    """Temporal cannot be reached, or nobody works on the queue."""

    code = "temporal.unreachable"


class WorkspaceError(PerstackError):
    """The workspace is missing, is another one, or may not be written."""

    code = "workspace.invalid"


class SkillError(PerstackError):
    """A skill did not start, or can no longer be used; the author or the maker of its server has to act."""

    code = "skill.not_started"


class StorageError(PerstackError):
    """The folder or bucket of large payloads cannot be read or written."""

    code = "storage.unavailable"


class IllegalTransition(RuntimeError):
    """A trigger reached the machine in a state that cannot take it: a bug, so it blocks a run and does not fail it."""


class Failure(Wire):
    """A failure as data: what events, checkpoints and Temporal failures carry."""

    name: str
    """The error's stable code, for example `provider.rate_limited`."""
    message: str
    status_code: int | None = None
    is_retryable: bool = False


class Attempt(Wire):
    """One failed attempt of a model call that was repeated by Temporal."""

    failure: Failure
    usage: Usage = NO_USAGE
    at: int = 0
    """When it failed, in milliseconds since the epoch."""
