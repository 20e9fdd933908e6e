"""Live pieces of a model's answer: shown while they come, never kept in history (DESIGN §5)."""

from dataclasses import dataclass
from typing import Literal

from .failures import Attempt

DeltaKind = Literal["reasoning", "text"]


@dataclass(frozen=True, slots=True)
class Delta:
    """One piece of reasoning or text, by its place in what its attempt says of that kind."""

    workflow_id: str
    temporal_run_id: str
    ordinal: int
    """The generation of the run it belongs to."""
    begun_at: int
    """When its attempt began, in milliseconds since the epoch: a count of attempts starts anew after a lost worker."""
    kind: DeltaKind
    offset: int
    """How many characters came before it; pieces that follow each other may leave a gap, never overlap."""
    text: str


@dataclass(frozen=True, slots=True)
class FailedAttempts:
    """The attempts of one model call that have failed so far; it is being tried again."""

    workflow_id: str
    temporal_run_id: str
    ordinal: int
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class SkillSaid:
    """What a skill's program wrote to its error output."""

    workflow_id: str
    temporal_run_id: str
    skill_name: str
    message: str
    seq: int
    """Numbered inside its session."""


LiveNews = Delta | FailedAttempts | SkillSaid
