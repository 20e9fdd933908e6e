"""`perstack respond`: answer what a job asks a person."""

import sys
from pathlib import Path
from typing import NoReturn

from ...core.failures import UsageError
from ..diagnostics import ExitCode
from ..lifecycle import run_command
from ..output import EventWriter, parse_filter


def respond(job_id: str, words: list[str], *, filter_types: str | None, address: str | None) -> NoReturn:
    """Answer a question; `words` are `[CALL_ID] TEXT`."""

    async def command() -> ExitCode:
        if len(words) > 2:
            raise UsageError("Give one answer, in quotes.", hint="perstack respond JOB [CALL_ID] TEXT|@file|-")
        *call_id, given = words
        text = _text(given)
        writer = EventWriter(parse_filter(filter_types))
        from ..job import respond_job

        return await respond_job(job_id, call_id[0] if call_id else None, text, address=address, writer=writer)

    run_command(command)


def _text(given: str) -> str:
    """The answer itself: as typed, from a file, or from stdin."""
    try:
        if given == "-":
            text = sys.stdin.buffer.read().decode()
        elif given.startswith("@"):
            text = Path(given[1:]).read_bytes().decode()
        else:
            text = given.encode().decode()
    except OSError as error:
        raise UsageError(f"Cannot read the answer from {given[1:]}: {error.strerror}.") from error
    except UnicodeError as error:
        raise UsageError("The answer is not UTF-8 text.") from error
    if not text.strip():
        raise UsageError("The answer is empty.")
    return text
