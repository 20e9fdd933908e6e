"""`PerstackPlugin`: experts on clients and workers that other programs have made."""

import asyncio
import base64
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from perstack import PerstackPlugin
from perstack.client.converters import beside
from perstack.client.history import Execution
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.core.failures import UsageError
from perstack.core.run import RunResult
from support.books import Book, Order, bind
from support.model_server import Answer, Call, Request
from support.planted import MODEL_KEY
from support.temporal import Bench
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError, WorkflowHistory
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    ExternalStorage,
    PayloadCodec,
    StorageDriver,
    StorageDriverClaim,
    StorageDriverRetrieveContext,
    StorageDriverStoreContext,
)
from temporalio.exceptions import ApplicationError, ChildWorkflowError
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

PAGE = Path(__file__).parents[2] / "docs" / "plugin.md"
DEFINITION = """
[experts.writer]
instruction = "You are writer."
delegates = ["@writer/helper"]

[experts."@writer/helper"]
description = "Helps."
instruction = "You are helper."
"""


def writes(request: Request) -> Answer:
    """The writer keeps a file and asks its helper; then tells what it was asked."""
    if "You are helper." in request.system:
        return Answer(text="helped")
    if request.turn == 1:
        name = request.first_user_text.replace(" ", "-")
        return Answer(calls=(Call(name="writeTextFile", args={"path": f"{name}.txt", "text": "x"}),))
    if request.turn == 2:
        return Answer(calls=(Call(name="helper", args={"query": request.first_user_text}),))
    return Answer(text=f"[{request.first_user_text}]")


def refuses(_request: Request) -> Answer:
    """Never lets anybody in."""
    return Answer(status=401, message="no", error_type="authentication_error")


def praises(request: Request) -> Answer:
    """Finds everything good."""
    return Answer(text=f"Good: {request.first_user_text}")


def environment(temporal: Bench) -> dict[str, str]:
    """What skills and providers may read."""
    return {"ANTHROPIC_API_KEY": MODEL_KEY, "ANTHROPIC_BASE_URL": temporal.model.url, "PATH": "/usr/bin:/bin"}


@pytest.fixture
def plugin(temporal: Bench) -> PerstackPlugin:
    """The plugin with the storage of the test server."""
    return PerstackPlugin(storage=temporal.storage, env=environment(temporal))


async def client_with(temporal: Bench, plugin: PerstackPlugin, converter: DataConverter | None = None) -> Client:
    """A client as a program makes it."""
    address = temporal.client.service_client.config.target_host
    return await Client.connect(address, plugins=[plugin], data_converter=converter or DataConverter.default)


async def histories(client: Client, root: str) -> AsyncIterator[WorkflowHistory]:
    """The history of a workflow and of everything below it."""
    waiting = [root]
    while waiting:
        workflow_id = waiting.pop()
        history = await client.get_workflow_handle(workflow_id).fetch_history()
        for event in history.events:
            child = event.child_workflow_execution_started_event_attributes.workflow_execution.workflow_id
            if child:
                waiting.append(child)
        yield WorkflowHistory(workflow_id, history.events)


@pytest.mark.requirement("ours.workflows")
async def test_a_workflow_of_another_program_runs_experts_as_children_in_its_sandbox(
    temporal: Bench, plugin: PerstackPlugin
) -> None:
    temporal.model.script = writes
    client = await client_with(temporal, plugin)
    expert = await plugin.run_input(client, "writer", text=DEFINITION, workspace=temporal.workspace)
    order = Order("chapter", None)
    async with Worker(client, task_queue="books", workflows=[Book], activities=[bind]):
        book = await client.execute_workflow(Book.run, args=[expert, order], id="book", task_queue="books")
    assert book == Order("chapter: [chapter 1] and [chapter 2]", None)
    assert {path.name for path in temporal.workspace.glob("*.txt")} == {"chapter-1.txt", "chapter-2.txt"}
    found = [history async for history in histories(client, "book")]
    jobs = [history.workflow_id for history in found[1:] if "/" not in history.workflow_id]
    assert (len(found), len(set(jobs))) == (5, 2)
    # Any reader of ours can tell of such a job.
    follower, events = await temporal.read(Execution(jobs[0]), wait=False)
    assert len(follower.readers) == 2
    assert events[-1].type in ("completeRun", "skillDisconnected")

    fresh = PerstackPlugin(storage=temporal.storage, env={})
    replayer = Replayer(workflows=[Book], plugins=[fresh])
    for history in found:
        result = await replayer.replay_workflow(history)
        assert result.replay_failure is None


async def test_a_client_starts_an_expert_on_such_a_worker_without_a_workflow_of_its_own(
    temporal: Bench, plugin: PerstackPlugin
) -> None:
    temporal.model.script = writes
    client = await client_with(temporal, plugin)
    expert = await plugin.run_input(client, "writer", "alone", text=DEFINITION, workspace=temporal.workspace)
    async with Worker(client, task_queue="alone", workflow_runner=UnsandboxedWorkflowRunner()):
        result = await client.execute_workflow(
            "ExpertRun", expert, id=expert.job_id, task_queue="alone", result_type=RunResult
        )
    assert (result.status, result.text) == ("completed", "[alone]")


async def test_a_run_that_fails_raises_in_the_workflow_that_called_it(temporal: Bench, plugin: PerstackPlugin) -> None:
    temporal.model.script = refuses
    client = await client_with(temporal, plugin)
    expert = await plugin.run_input(client, "writer", text=DEFINITION, workspace=temporal.workspace)
    async with Worker(client, task_queue="failing", workflows=[Book], activities=[bind]):
        with pytest.raises(WorkflowFailureError) as failed:
            await client.execute_workflow(
                Book.run, args=[expert, Order("a", None)], id="failing-book", task_queue="failing"
            )
    child = failed.value.cause
    assert isinstance(child, ChildWorkflowError)
    assert isinstance(child.cause, ApplicationError)
    assert child.cause.type == "provider.auth"


class Backwards(PayloadCodec):
    """Scrambles everything."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Each payload as base64, backwards."""
        return [
            Payload(metadata={"encoding": b"test/backwards"}, data=base64.b64encode(one.SerializeToString())[::-1])
            for one in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """What was scrambled."""
        return [
            Payload.FromString(base64.b64decode(one.data[::-1]))
            if one.metadata["encoding"] == b"test/backwards"
            else one
            for one in payloads
        ]


async def test_the_codec_of_the_program_scrambles_our_payloads_too_and_its_failures_stay_encoded(
    temporal: Bench, plugin: PerstackPlugin
) -> None:
    temporal.model.script = writes
    converter = replace(
        DataConverter.default,
        payload_codec=Backwards(),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )
    client = await client_with(temporal, plugin, converter)
    assert client.data_converter.payload_codec is converter.payload_codec
    assert client.data_converter.failure_converter_class is DefaultFailureConverterWithEncodedAttributes
    expert = await plugin.run_input(client, "writer", text=DEFINITION, workspace=temporal.workspace)
    async with Worker(client, task_queue="scrambled", workflows=[Book], activities=[bind]):
        book = await client.execute_workflow(
            Book.run, args=[expert, Order("chapter", "n")], id="scrambled-book", task_queue="scrambled"
        )
    assert book == Order("chapter: [chapter 1] and [chapter 2]", "n")
    raw = b"".join([str(one.events).encode() async for one in histories(client, "scrambled-book")])
    assert b"test/backwards" in raw
    for text in (b"You are writer.", b"[chapter 1]"):
        assert text not in raw


class OwnStorage(StorageDriver):
    """A driver of the program's own."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []

    def name(self) -> str:
        """Its name."""
        return "own"

    async def store(self, context: StorageDriverStoreContext, payloads: Sequence[Payload]) -> list[StorageDriverClaim]:
        """Keep payloads."""
        self.kept.extend(one.SerializeToString() for one in payloads)
        first = len(self.kept) - len(payloads)
        return [StorageDriverClaim({"at": str(first + number)}) for number in range(len(payloads))]

    async def retrieve(
        self, context: StorageDriverRetrieveContext, claims: Sequence[StorageDriverClaim]
    ) -> list[Payload]:
        """Give them back."""
        return [Payload.FromString(self.kept[int(claim.claim_data["at"])]) for claim in claims]


async def test_the_external_storage_of_the_program_stays_and_reads_what_others_stored_with_us(tmp_path: Path) -> None:
    own = OwnStorage()
    theirs = replace(DataConverter.default, external_storage=ExternalStorage(drivers=[own], payload_size_threshold=10))
    driver = PayloadDriver(FolderStorage(tmp_path))
    both = beside(theirs, driver)
    assert await both.decode(await both.encode(["a" * 100])) == ["a" * 100]
    assert len(own.kept) == 1
    ours = beside(None, driver)
    result = RunResult(
        status="completed", text="b" * 100_000, expert_key="a", run_id="b", checkpoint_id="c", last_step=1
    )
    stored = await ours.encode([result])
    assert await both.decode(stored, [RunResult]) == [result]
    again = beside(both, driver)
    assert again.external_storage == both.external_storage
    assert again.payload_converter_class is both.payload_converter_class


async def test_values_of_the_program_are_written_as_without_us_and_ours_as_ours(tmp_path: Path) -> None:
    converter = beside(DataConverter.default, PayloadDriver(FolderStorage(tmp_path)))
    order = Order("a", None)
    [plain] = await DataConverter.default.encode([order])
    result = RunResult(status="completed", expert_key="a", run_id="b", checkpoint_id="c", last_step=1)
    written = await converter.encode([order, result])
    assert written[0] == plain
    assert b'"lastStep":1' in written[1].data
    assert b"failure" not in written[1].data
    hints: list[Any] = [Order, RunResult | None]
    assert await converter.decode(written, hints) == [order, result]


async def test_a_plugin_that_is_on_the_worker_only_is_refused_with_what_to_do(
    temporal: Bench, plugin: PerstackPlugin
) -> None:
    client = await Client.connect(temporal.client.service_client.config.target_host)
    with pytest.raises(UsageError) as refused:
        Worker(client, task_queue="wrong", workflows=[Book], activities=[bind], plugins=[plugin])
    assert "Client.connect" in str(refused.value.hint)


async def test_two_workers_of_one_client_have_each_a_queue_and_sessions_of_their_own(
    temporal: Bench, plugin: PerstackPlugin
) -> None:
    temporal.model.script = writes
    client = await client_with(temporal, plugin)
    expert = await plugin.run_input(client, "writer", text=DEFINITION, workspace=temporal.workspace)

    async def run(queue: str) -> set[str]:
        job = expert.replaced(job_id=f"job-{queue}", run_id=f"job-{queue}", query=queue)
        await client.execute_workflow("ExpertRun", job, id=job.job_id, task_queue=queue, result_type=RunResult)
        history = await client.get_workflow_handle(job.job_id).fetch_history()
        scheduled = [event.activity_task_scheduled_event_attributes for event in history.events]
        return {one.task_queue.name for one in scheduled if one.activity_type.name == "generate"}

    async with Worker(client, task_queue="first"), Worker(client, task_queue="second"):
        [first], [second] = await asyncio.gather(run("first"), run("second"))
    assert first.startswith("first@")
    assert second.startswith("second@")


async def test_a_run_goes_on_on_another_worker_when_its_own_leaves_in_a_model_call(
    temporal: Bench, plugin: PerstackPlugin
) -> None:
    asked = asyncio.Event()

    def script(request: Request) -> Answer:
        if request.turn == 2 and request.attempt == 1:
            asked.set()
            return Answer(text="wait", after_events=4, then="hang", gate="never")
        if request.turn <= 2:
            return Answer(calls=(Call(name="writeTextFile", args={"path": f"{request.turn}.txt", "text": "x"}),))
        return Answer(text="done")

    temporal.model.script = script
    client = await client_with(temporal, plugin)
    expert = await plugin.run_input(client, "writer", "go on", text=DEFINITION, workspace=temporal.workspace)
    async with asyncio.timeout(60):
        async with Worker(client, task_queue="left"):
            handle = await client.start_workflow(
                "ExpertRun", expert, id=expert.job_id, task_queue="left", result_type=RunResult
            )
            await asked.wait()
        async with Worker(client, task_queue="left"):
            result = await handle.result()
    assert (result.status, result.text) == ("completed", "done")
    assert {path.name for path in temporal.workspace.glob("*.txt")} == {"1.txt", "2.txt"}
    # Only the call in flight was made again.
    assert sorted(temporal.model.ledger.counts.values()) == [1, 1, 2]


@pytest.mark.parametrize(
    ("expert_key", "job_id", "says"), [("nobody", None, "nobody"), ("writer", "a/b", "Invalid job id")]
)
async def test_an_input_that_cannot_be_made_is_refused_in_words(
    temporal: Bench, plugin: PerstackPlugin, expert_key: str, job_id: str | None, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        await plugin.run_input(
            temporal.client, expert_key, text=DEFINITION, workspace=temporal.workspace, job_id=job_id
        )


async def test_the_program_in_the_documentation_runs(temporal: Bench, tmp_path: Path) -> None:
    found = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    program = tmp_path / "reviews.py"
    program.write_text(found[0])
    temporal.model.script = praises
    env = {
        **os.environ,
        **environment(temporal),
        "TEMPORAL_ADDRESS": temporal.client.service_client.config.target_host,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(program)),
        cwd=temporal.workspace,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            said, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    # Not the exit code: the SDK's native threads may crash an interpreter that leaves by itself.
    assert said.decode() == "published: Good: Review this: All is well that ends.\n", complaints.decode()
    assert b"Traceback" not in complaints
