"""Identifiers: expert keys, the cuid2-shaped ids derived from a run, and their place in Temporal's ids."""

import hashlib
import re
from typing import NamedTuple

_SEMVER = r"(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)(?:-[\w.-]+)?(?:\+[\w.-]+)?"
_EXPERT_KEY = re.compile(
    r"((?:@[a-z0-9][a-z0-9_.-]*/)?[a-z0-9][a-z0-9_.-]*)"
    rf"(?:@({_SEMVER})|@([a-z0-9][a-z0-9_.-]*))?",
    re.ASCII,
)
_JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = tuple(low + high for high in _ALPHABET for low in _ALPHABET)
"""Two digits at once: ids are what reading a long history spends much of its time on."""
MAX_EXPERT_KEY = 511


class ExpertKey(NamedTuple):
    """The parts of an expert key (contract §1.5)."""

    name: str
    version: str | None
    tag: str | None

    @property
    def scope(self) -> str | None:
        """The coordinator a delegate belongs to; `None` for a coordinator."""
        return self.name[1:].partition("/")[0] if self.name.startswith("@") and "/" in self.name else None

    @property
    def short_name(self) -> str:
        """The last path segment: the tool name a delegate gets."""
        return self.name.rpartition("/")[2]


def parse_expert_key(key: str) -> ExpertKey | None:
    """The parts of `key`, or `None` when it is malformed."""
    match = _EXPERT_KEY.fullmatch(key) if len(key) <= MAX_EXPERT_KEY else None
    return ExpertKey(match[1], match[2], match[3]) if match else None


def is_job_id(text: str) -> bool:
    """Whether `text` may name a job."""
    return bool(_JOB_ID.fullmatch(text))


def cuid_from(*parts: str | int) -> str:
    """A cuid2-shaped id (24 characters, a letter first) that is the same for the same parts."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    number = int.from_bytes(digest[:16], "big")
    number, letter = divmod(number, 26)
    text = _ALPHABET[10 + letter]
    for _ in range(11):
        number, index = divmod(number, 36 * 36)
        text += _PAIRS[index]
    return text + _ALPHABET[number % 36]


def segment_run_id(first_run_id: str, segment: int) -> str:
    """The run id of segment `segment`; segment 0 is the run itself and names its workflow."""
    return first_run_id if segment == 0 else cuid_from(first_run_id, "segment", segment)


def delegate_workflow_id(job_id: str, run_id: str) -> str:
    """The workflow id of a delegate's run; the root's is the job id itself."""
    return f"{job_id}/{run_id}"
