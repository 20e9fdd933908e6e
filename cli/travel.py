"""Exports of jobs as files, and what is said of histories that nobody has any more."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.failures import UsageError
from .diagnostics import warn

if TYPE_CHECKING:
    from ..client.exports import ExportedJob


def read_export(file: str) -> "ExportedJob":
    """The job in a file; `-` is stdin.

    Raises:
        UsageError: the file cannot be read, or is no whole export that this release knows.
    """
    from ..client.exports import ExportedJob

    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"Cannot read {file}: {error.strerror}.") from error
    return ExportedJob.from_bytes(content)


def write_export(job: "ExportedJob", file: Path) -> None:
    """Write the file in one step: a file of that name is the whole job or what it was before.

    Raises:
        UsageError: it cannot be written.
    """
    from ..client.locations import write_private

    try:
        write_private(file, job.to_bytes())
    except OSError as error:
        raise UsageError(f"Cannot write {file}: {error.strerror}.", code="usage.output") from error


def say_lost(workflow_ids: Sequence[str]) -> None:
    """Say what of a job is missing, and why."""
    for workflow_id, _ in sorted(Counter(workflow_ids).items()):
        of = "the delegate" if "/" in workflow_id else "earlier executions of job"
        warn(f"the history of {of} {workflow_id} is lost: the server has forgotten it, and it was not archived")
