"""A bug of ours blocks a run where Temporal shows it, and a fixed worker goes on; it never hangs silently."""

import asyncio
import threading

import pytest
from perstack.client.jobs import Jobs
from perstack.workflows.effects import Interpreter
from support.model_server import Answer, Call, Request
from support.temporal import Bench, solo


def writes_once(request: Request) -> Answer:
    """One file, then the end."""
    if request.turn == 1:
        return Answer(calls=(Call(name="writeTextFile", args={"path": "a.txt", "text": "a"}),))
    return Answer(text="written")


async def test_a_bug_in_an_effect_fails_the_workflow_task_and_a_fixed_worker_goes_on(
    temporal: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_broken = threading.Event()

    async def broken(*args: object) -> None:
        has_broken.set()
        raise ZeroDivisionError("a bug")

    temporal.model.script = writes_once
    start = temporal.start(solo())
    handle = temporal.client.get_workflow_handle(start.job_id)
    with monkeypatch.context() as patch:
        patch.setattr(Interpreter, "_call_remotely", broken)
        async with temporal.worker(start.job_id):
            execution = await Jobs(temporal.client).start(start, task_queue=start.job_id)
            assert await asyncio.to_thread(has_broken.wait, 20)
            failures: list[str] = []
            async for event in handle.fetch_history_events(wait_new_event=True):
                if event.HasField("workflow_task_failed_event_attributes"):
                    failures.append(event.workflow_task_failed_event_attributes.failure.message)
                    patch.undo()
            _, events = await temporal.read(execution, wait=True)
    assert failures == ["the interpreter of effects broke"]
    assert events[-2].type == "completeRun"
    assert (temporal.workspace / "a.txt").read_text() == "a"
    assert set(temporal.model.ledger.counts.values()) == {1}
