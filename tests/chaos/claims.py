"""What must hold of a job, whatever happened to it: asserted from outside."""

from collections.abc import Sequence

from chaos.lab import JobLog, Lab, durable, text_of
from chaos.record import Record, read_record, repeats
from chaos.teams import Team, mark_of
from support.cli import Result
from support.skill_runs import LIVE_ONLY

LOST = "was lost"
"""In what the model reads of a call whose worker died."""


async def completed(
    lab: Lab,
    job_id: str,
    team: Team,
    *,
    outages: Sequence[tuple[float, float]] = (),
    last: Result | None = None,
    earlier: Sequence[Result] = (),
) -> "tuple[JobLog, Record, int]":
    """The job completed with the right result; `last` followed it to its end, `earlier` saw a part.

    Also tells how many model calls were repeated.

    Raises:
        AssertionError: something was lost, repeated, or told differently.
    """
    if last is not None:
        assert last.code == 0, f"exit code {last.code}: {last.stderr}"
    # The log first: it starts the server again where one that died was needed by nobody any more.
    log = await lab.log(job_id)
    record = await read_record(lab.data, job_id)
    assert log.job["status"] == "completed", log.job
    assert record.root.closing == "completed", record.root.closing
    assert log.text == team.result, log.text
    same_story(log, last, earlier)
    effects_once(lab, log)
    return log, record, repeats(record, lab.asked, outages)


def same_story(log: JobLog, last: Result | None, earlier: Sequence[Result] = ()) -> None:
    """Who followed saw what the log says: all of it to the end, nothing else before."""
    told = durable(log.events, LIVE_ONLY)
    assert len(set(told)) == len(told), "an event is in the log twice"
    if last is not None:
        seen = durable(last.events, LIVE_ONLY)
        assert sorted(seen) == sorted(told), f"{len(seen)} events were shown, the log has {len(told)}"
        assert _per_run(seen) == _per_run(told), "shown in another order than the log tells"
    for result in earlier:
        complete_lines = [line for line in result.stdout.splitlines(keepends=True) if line.endswith("\n")]
        part = Result(result.code, "".join(complete_lines), result.stderr)
        # A retry shown live is provisional until history tells of it.
        seen = durable([event for event in part.events if event["type"] != "retry"], LIVE_ONLY)
        assert set(seen) <= set(told), f"shown, and not in the log: {set(seen) - set(told)}"


def _per_run(events: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    runs: dict[str, list[str]] = {}
    for run_id, event_id in events:
        runs.setdefault(run_id, []).append(event_id)
    return runs


def effects_once(lab: Lab, log: JobLog) -> int:
    """Every command ran at most once; one that was lost was reported to the model, every other ran. Tells the losses.

    Raises:
        AssertionError: an effect happened twice, or without or against its report.
    """
    marks = lab.effects()
    assert all(count == 1 for count in marks.values()), f"done twice: {[m for m, n in marks.items() if n > 1]}"
    reported: set[str] = set()
    losses = 0
    for call, result in log.results("exec"):
        mark = mark_of(call)
        reported.add(mark)
        if result.get("isError"):
            assert LOST in text_of(result), f"{mark}: {text_of(result)}"
            losses += 1
        else:
            assert marks[mark] == 1, f"{mark} was reported as done and was not"
    assert set(marks) <= reported, f"done and never reported: {set(marks) - reported}"
    seen = sum(LOST in str(result["content"]) for request in lab.last_requests() for result in request.results)
    assert seen >= losses, f"{losses} calls were lost, the model was told of {seen}"
    return losses
