"""`perstack jobs`: the jobs of the server, open ones first, then those that ended last."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from ..diagnostics import ExitCode, say
from ..lifecycle import run_command
from ..output import write_line
from ..signs import fitting

if TYPE_CHECKING:
    from ...client.jobs import JobSummary

_LONGEST_QUERY = 60


def jobs(*, take: int, status: str | None, is_json: bool, address: str | None) -> NoReturn:
    """List jobs, one to a line."""

    async def command() -> ExitCode:
        from ..connection import connected

        async with connected(address) as connection:
            found = [summary async for summary in connection.jobs.list(take=take, status=status)]
        if is_json:
            for summary in found:
                write_line(_json(summary))
        elif found:
            for line in _columns([("job", "status", "started", "expert", "query"), *map(_cells, found)]):
                write_line(fitting(line, sys.stdout.encoding))
        else:
            say("there is no job" + (f" with status {status}" if status else ""))
        return ExitCode.COMPLETED

    run_command(command)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(summary: "JobSummary") -> tuple[str, ...]:
    started = summary.started_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    query = summary.query if len(summary.query) <= _LONGEST_QUERY else f"{summary.query[: _LONGEST_QUERY - 1]}…"
    return summary.job_id, summary.status, started, summary.expert_key, query


def _json(summary: "JobSummary") -> str:
    return json.dumps(
        {
            "id": summary.job_id,
            "status": summary.status,
            "coordinatorExpertKey": summary.expert_key,
            "query": summary.query,
            "startedAt": int(summary.started_at.timestamp() * 1000),
            "finishedAt": int(summary.closed_at.timestamp() * 1000) if summary.closed_at else None,
            "totalSteps": summary.steps,
            "totalTokens": summary.tokens,
        },
        ensure_ascii=False,
    )
