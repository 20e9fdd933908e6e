"""Jobs of real servers, read from their committed histories, as screens and logs show them."""

import gzip
from pathlib import Path

import pytest
from perstack.client.exports import ExportedJob
from perstack.client.follow import EndedOutside, JobFollower
from perstack.core.events import Event
from perstack.core.graph import graph, graph_lines
from perstack.core.triggers import DelegateFinished
from perstack.core.usage import NO_USAGE
from perstack.core.view_state import ViewState
from support.recordings import RECORDINGS
from support.stories import STORIES
from support.views import Expected, shown, view_of

FOLDER = Path(__file__).parent.parent / "golden" / "histories"


async def read(name: str) -> tuple[JobFollower, list[Event | EndedOutside]]:
    """A recorded job, to its present end."""
    job = ExportedJob.from_bytes(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))
    histories = job.histories()
    follower = JobFollower(histories, *await histories.job_chain(job.newest), wait=False, is_keeping=True)
    return follower, [item async for item in follower.news()]


@pytest.mark.parametrize("name", RECORDINGS)
async def test_each_run_is_shown_as_its_history_has_it(name: str) -> None:
    follower, items = await read(name)
    view = follower.view
    assert len(view.runs) == len(follower.readers)
    assert [root.run_id for root in view.roots] == [
        tree[0].first_start.run_id for tree in follower.trees if tree[0].first_start
    ]
    for reader in follower.readers:
        assert reader.first_start is not None
        assert reader.fold is not None
        run = view.run_of(reader.first_start.run_id)
        assert run is not None
        if reader.fold.state.result is None and reader.closed is not None:
            assert (run.phase, run.closed, run.questions) == ("ended", reader.closed, ())
            continue
        reported = (m.trigger.result.usage for m in reader.moments if isinstance(m.trigger, DelegateFinished))
        expected = Expected(reader.first_start, reader.fold.state, sum(reported, NO_USAGE))
        assert expected.differences(run) == [], run.expert_key
        assert (run.started_at, run.max_steps) == (reader.started_at, reader.fold.start.settings.limits.max_steps)
        assert (run.ended_at is not None) == (reader.closed is not None)
    assert view.events == sum(not isinstance(item, EndedOutside) for item in items)


@pytest.mark.parametrize("name", RECORDINGS)
async def test_where_an_execution_comes_from_is_what_its_input_says(name: str) -> None:
    follower, _ = await read(name)
    for reader in follower.readers:
        assert reader.first_start is not None
        run, seed = follower.view.run_of(reader.first_start.run_id), reader.first_start.seed
        assert run is not None
        if seed is None:
            assert run.past is None
            continue
        assert run.past is not None
        assert (run.past.step_number, run.past.checkpoint_id) == (seed.origin.step_number, seed.origin.checkpoint_id)
        assert run.past.job_id == (None if seed.origin.job_id == run_job(follower) else seed.origin.job_id)


def run_job(follower: JobFollower) -> str:
    return follower.view.job_id


@pytest.mark.parametrize("name", RECORDINGS)
async def test_what_is_told_twice_or_by_another_reader_shows_the_same(name: str) -> None:
    follower, items = await read(name)
    again = ViewState()
    for reader in follower.readers:
        start = reader.first_start
        if start is not None and start.seed is not None and start.seed.origin.job_id != start.job_id:
            again.tell_origin(start.run_id, start.seed.origin)
    for item in [*items, *items]:
        if isinstance(item, EndedOutside):
            again.end_from_outside(item.run_id, item.closed, item.at)
        else:
            again.feed(item)
    assert shown(again) == shown(follower.view)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("terminated", ["✗ asker  terminated from outside · go"]),
        ("chain", ["✓ solo  go"]),
        ("follow-up", ["✓ solo              go", "✓ solo (continued)  and now?"]),
        ("question-answered", ["⏸ asker            asked a person · go", "✓ asker (resumed)  go"]),
        (
            "nested-delegates",
            [
                "⎇     top                 go",
                "| \\",
                "| ⎇   @top/mid            task mid",
                "| | \\",
                "| | ✓ @top/low            task low",
                "| | /",
                "| ✓   @top/mid (resumed)  task mid",
                "| /",
                "✓     top (resumed)       go",
            ],
        ),
    ],
)
async def test_recorded_jobs_are_drawn(name: str, lines: list[str]) -> None:
    follower, _ = await read(name)
    assert graph_lines(graph(follower.view), 80) == lines


async def test_a_job_that_went_back_and_a_branch_say_from_where() -> None:
    heads: dict[str, list[str]] = {}
    for name in ("resumed-from", "branch"):
        follower, _ = await read(name)
        origin = next(reader.first_start.seed.origin for reader in follower.readers
                      if reader.first_start and reader.first_start.seed)  # fmt: skip
        heads[name] = [line.replace(origin.checkpoint_id, "ID") for line in graph_lines(graph(follower.view), 80)]
    assert heads["resumed-from"][1:] == ["⎇ from step 1, checkpoint ID", "✓ solo (from step 1)  go"]
    assert heads["branch"] == ["⎇ from step 1 of job golden-branch, checkpoint ID", "✓ solo (from step 1)"]


async def test_the_deepest_job_is_drawn_from_a_real_history_as_it_was_thought_up() -> None:
    follower, _ = await read("deepest")
    thought_up = graph(view_of(STORIES["deepest"]().events))
    recorded = graph(follower.view)
    assert [row.lanes for row in recorded] == [row.lanes for row in thought_up]
    assert [row.head for row in recorded if not row.origin] == [row.head for row in thought_up if not row.origin]
    (origin,) = [row.origin for row in recorded if row.origin]
    assert origin.startswith("from step 5 (@ship/test), checkpoint ")
    assert recorded[-1].text == "waits for a person: All tests pass, the slow ones too. Publish 2.1 now?"
