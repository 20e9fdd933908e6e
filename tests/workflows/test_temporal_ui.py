"""What an operator sees who knows only the Temporal UI: it is all in what Temporal stores of a run (DESIGN §7)."""

import asyncio
import hashlib

import pytest
from perstack.client.history import Execution
from perstack.client.jobs import Jobs
from support.model_server import Answer, Call, Request
from support.teams import parallel_team
from support.temporal import Bench, solo
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHandle
from temporalio.common import SearchAttributeKey

TEAM = (
    solo("team", delegates=("@team/one", "@team/two", "@team/three")),
    *map(solo, ("@team/one", "@team/two", "@team/three")),
)
KEYWORDS = ("PerstackJob", "PerstackExpert", "PerstackStatus", "PerstackModel", "PerstackQuery")


async def keywords(handle: WorkflowHandle[object, object]) -> dict[str, str | None]:
    attributes = (await handle.describe()).typed_search_attributes
    return {name: attributes.get(SearchAttributeKey.for_keyword(name)) for name in KEYWORDS}


async def summaries(temporal: Bench, workflow_id: str) -> list[str]:
    """The summary of every activity and child in the history of a run."""
    history = await temporal.client.get_workflow_handle(workflow_id).fetch_history()
    found: list[str] = []
    for event in history.events:
        if event.user_metadata.HasField("summary"):
            found.extend(await temporal.client.data_converter.decode([event.user_metadata.summary], [str]))
    return found


@pytest.mark.requirement("ours.ui")
async def test_the_list_shows_expert_status_and_query_and_the_run_shows_each_step_by_its_summary(
    temporal: Bench,
) -> None:
    temporal.model.script = parallel_team
    start = temporal.start(*TEAM, query="write three\nchapters")
    await temporal.run(start)
    handle = temporal.client.get_workflow_handle(start.job_id)
    assert await keywords(handle) == {
        "PerstackJob": start.job_id,
        "PerstackExpert": "team",
        "PerstackStatus": "completed",
        "PerstackModel": "claude-haiku-4-5",
        "PerstackQuery": "write three",
    }
    description = await handle.describe()
    assert await description.static_summary() == "team · write three"
    attributes = description.typed_search_attributes
    assert attributes.get(SearchAttributeKey.for_int("PerstackTokens")) == 2 * 15 + 3 * 3 * 15
    told = await summaries(temporal, start.job_id)
    assert told[0] == "team · write three"
    assert "open session" in told
    assert "step 1 · claude-haiku-4-5 · generate" in told
    assert {"@team/one · task one", "@team/two · task two", "@team/three · task three"} <= set(told)
    child = next(name for name in await workflows_of(temporal, start.job_id, count=4) if name != start.job_id)
    told = await summaries(temporal, child)
    assert any(summary.startswith("step 2 · exec · echo ") for summary in told)
    assert any(summary.startswith("step 2 · writeTextFile · ") for summary in told)


async def test_a_failed_run_is_red_and_says_why(temporal: Bench) -> None:
    def refuse(_request: Request) -> Answer:
        return Answer(status=401, message="no entry", error_type="authentication_error")

    temporal.model.script = refuse
    start = temporal.start(solo())
    await temporal.run(start)
    handle = temporal.client.get_workflow_handle(start.job_id)
    assert (await keywords(handle))["PerstackStatus"] == "stoppedByError"
    history = await handle.fetch_history()
    last = history.events[-1]
    assert last.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED
    failure = last.workflow_execution_failed_event_attributes.failure
    assert failure.application_failure_info.type == "provider.auth"
    assert "no entry" in failure.message


async def test_the_current_details_say_what_a_run_does_and_whom_it_waits_for(temporal: Bench) -> None:
    def hang(_request: Request) -> Answer:
        return Answer(text="slow", calls=(Call(name="todo"),), after_events=4, then="hang")

    temporal.model.script = hang
    start = temporal.start(solo(), query="slowly")
    async with temporal.worker(start.job_id):
        execution = await Jobs(temporal.client).start(start, task_queue=start.job_id)
        handle = temporal.client.get_workflow_handle(execution.workflow_id)
        details = await details_with(handle, "waiting for the model")
        assert "**solo** · step 1 · waiting for the model" in details
        assert "- model: claude-haiku-4-5" in details
        await handle.cancel()
        follower, _ = await temporal.read(Execution(start.job_id), wait=True)
    assert follower.root.fold is not None
    assert follower.root.fold.state.checkpoint.status == "stoppedByCancellation"
    assert (await keywords(handle))["PerstackStatus"] == "stoppedByCancellation"


async def workflows_of(temporal: Bench, job_id: str, *, count: int) -> list[str]:
    """The workflows of a job as the UI's list finds them; the list is a moment behind."""
    async with asyncio.timeout(20):
        while True:
            found = [w.id async for w in temporal.client.list_workflows(f"PerstackJob = '{job_id}'")]
            if len(found) == count:
                return found
            await asyncio.sleep(0.05)


async def details_with(handle: WorkflowHandle[object, object], text: str) -> str:
    """The current details, once they contain `text`."""
    async with asyncio.timeout(20):
        while True:
            metadata = await handle.query("__temporal_workflow_metadata")
            if text in str(metadata):
                return str(metadata)
            await asyncio.sleep(0.05)


async def test_every_run_of_a_job_shares_one_fairness_key(temporal: Bench) -> None:
    temporal.model.script = parallel_team
    start = temporal.start(*TEAM)
    await temporal.run(start)
    expected = hashlib.sha256(start.job_id.encode()).hexdigest()[:32]
    for name in await workflows_of(temporal, start.job_id, count=4):
        raw = (await temporal.client.get_workflow_handle(name).describe()).raw_description
        assert raw.workflow_execution_info.priority.fairness_key == expected
