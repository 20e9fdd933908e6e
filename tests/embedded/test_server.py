"""The embedded server's life: started once, shared, recovered after every kind of death, stopped when unused."""

import asyncio
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
from perstack.client.connection import SEARCH_ATTRIBUTES, connect, known_search_attributes
from perstack.client.embedded import lease_server, stop_server
from perstack.client.record import read_record
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.client.supervisor import is_listening
from perstack.core.failures import ServerError
from support.machines import Machine, wait_until
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes


async def open_client(machine: Machine) -> Client:
    lease = await machine.lease()
    return await connect(lease.info, storage=PayloadDriver(FolderStorage(machine.data.storage)))


async def start_workflow(client: Client, workflow_id: str) -> None:
    """A workflow nobody works on: only its record matters."""
    await client.start_workflow("Unworked", id=workflow_id, task_queue="nobody")


async def never_two_servers(machine: Machine, done: asyncio.Event) -> None:
    while not done.is_set():
        assert len(machine.server_pids()) <= 1
        await asyncio.sleep(0.005)


async def test_the_first_use_starts_a_server_and_the_second_caller_gets_the_same(machine: Machine) -> None:
    messages: list[str] = []
    first = await lease_server(address=None, progress=messages.append)
    machine.leases.append(first)
    (pid,) = machine.server_pids()
    second = await lease_server(address=None, progress=messages.append)
    machine.leases.append(second)

    assert first.info == second.info
    assert first.info.is_embedded
    assert first.info.version
    assert machine.server_pids() == [pid]
    assert messages == ["starting the Temporal server …"]


async def test_the_record_names_the_server_and_only_its_owner_may_read_the_files(machine: Machine) -> None:
    lease = await machine.lease()
    record = read_record(machine.data.record)
    assert record
    assert [record.pid] == machine.server_pids()
    assert [record.supervisor_pid] == machine.supervisor_pids()
    assert record.address == lease.info.address == f"127.0.0.1:{record.port}"
    assert record.ui_address == lease.info.ui_url
    wait_until(lambda: is_listening(record.ui_port), "the Web UI answers")
    for path in machine.data.root.rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


async def test_processes_that_start_together_get_one_server(machine: Machine) -> None:
    holders = [machine.hold() for _ in range(4)]
    addresses = {await asyncio.to_thread(holder.address) for holder in holders}
    assert len(addresses) == 1
    assert len(machine.server_pids()) == len(machine.supervisor_pids()) == 1


async def test_a_killed_server_is_started_again_with_all_its_data(machine: Machine) -> None:
    client = await open_client(machine)
    await start_workflow(client, "survivor")
    machine.kill_server()

    again = await open_client(machine)
    assert (await again.get_workflow_handle("survivor").describe()).id == "survivor"
    assert len(machine.server_pids()) == 1


async def test_clients_of_a_killed_server_find_the_next_one_by_themselves(machine: Machine) -> None:
    client = await open_client(machine)
    await start_workflow(client, "survivor")
    machine.kill_server()
    await machine.lease()
    assert (await client.get_workflow_handle("survivor").describe()).id == "survivor"


async def test_a_supervisor_notices_the_death_of_its_server(machine: Machine) -> None:
    await machine.lease()
    machine.kill_server()
    wait_until(lambda: not machine.supervisor_pids(), "the supervisor leaves")
    assert not machine.data.record.exists()


async def test_a_killed_supervisor_is_replaced_without_ever_two_servers_on_one_database(machine: Machine) -> None:
    await start_workflow(await open_client(machine), "survivor")
    done = asyncio.Event()
    watch = asyncio.create_task(never_two_servers(machine, done))
    machine.kill_supervisor()

    client = await open_client(machine)
    done.set()
    await watch
    assert (await client.get_workflow_handle("survivor").describe()).id == "survivor"
    assert len(machine.supervisor_pids()) == len(machine.server_pids()) == 1


async def test_a_server_that_outlives_its_supervisor_is_ended_first(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perstack.client.embedded.STOP_SECONDS", 0.3)
    await machine.lease()
    (orphan,) = machine.server_pids()
    os.kill(orphan, signal.SIGSTOP)  # deaf to the signal the kernel sends when its supervisor dies
    machine.kill_supervisor()

    await machine.lease()
    assert len(machine.server_pids()) == 1
    assert orphan not in machine.server_pids()


@pytest.mark.parametrize("is_server_visible", [False, True])
async def test_a_supervisor_killed_while_it_starts_leaves_nothing_half_dead(
    machine: Machine, is_server_visible: bool
) -> None:
    machine.hold()
    wait_until(lambda: bool(machine.server_pids() if is_server_visible else machine.supervisor_pids()), "a start")
    machine.kill_supervisor()
    client = await open_client(machine)
    await start_workflow(client, "afterwards")
    assert len(machine.supervisor_pids()) == len(machine.server_pids()) == 1


async def test_a_client_killed_while_it_starts_the_server_hands_the_start_over(machine: Machine) -> None:
    starter = machine.hold()
    wait_until(lambda: bool(machine.supervisor_pids()), "the supervisor")
    starter.end()
    client = await open_client(machine)
    assert len(await known_search_attributes(client)) == len(SEARCH_ATTRIBUTES)
    assert len(machine.server_pids()) == 1
    # Where the second was faster, the first finds the start taken, and goes.
    wait_until(lambda: len(machine.supervisor_pids()) == 1, "one supervisor is left")
    assert len(machine.server_pids()) == 1


async def test_an_unused_server_stops_and_a_used_one_stays(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSTACK_SERVER_IDLE", "0.5")
    lease = await machine.lease()
    held_since = time.monotonic()
    wait_until(lambda: not machine.server_pids() or time.monotonic() - held_since > 2.0, "time passes")
    assert machine.server_pids()

    lease.close()
    wait_until(lambda: not machine.server_pids() and not machine.supervisor_pids(), "the server stops")
    assert not machine.data.record.exists()

    await machine.lease()
    assert len(machine.server_pids()) == 1


async def test_a_killed_client_does_not_keep_the_server_up(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSTACK_SERVER_IDLE", "0.5")
    holder = machine.hold()
    assert await asyncio.to_thread(holder.address)
    holder.end()
    wait_until(lambda: not machine.server_pids(), "the server stops")


async def test_ctrl_c_ends_the_client_and_not_the_server(machine: Machine) -> None:
    holder = machine.hold()
    assert await asyncio.to_thread(holder.address)
    (server,), (supervisor,) = machine.server_pids(), machine.supervisor_pids()
    assert os.getsid(server) == os.getsid(supervisor) != os.getsid(holder.process.pid)

    os.killpg(holder.process.pid, signal.SIGINT)
    wait_until(lambda: holder.process.poll() is not None, "the client ends")
    await start_workflow(await open_client(machine), "afterwards")
    assert (machine.server_pids(), machine.supervisor_pids()) == ([server], [supervisor])


async def test_stopping_ends_the_server_and_says_whether_there_was_one(machine: Machine) -> None:
    assert not await stop_server(machine.data)
    await machine.lease()
    assert await stop_server(machine.data)
    assert not machine.server_pids()
    assert not machine.supervisor_pids()
    assert not machine.data.record.exists()
    assert not await stop_server(machine.data)


async def test_histories_are_kept_for_ten_years_and_a_choice_of_the_user_is_kept_too(machine: Machine) -> None:
    async def retention(client: Client) -> timedelta:
        answer = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace="default"))
        return answer.config.workflow_execution_retention_ttl.ToTimedelta()

    client = await open_client(machine)
    assert await retention(client) == timedelta(days=3650)

    process = await asyncio.create_subprocess_exec(
        os.environ["PERSTACK_TEMPORAL_CLI"],
        *("operator", "namespace", "update", "--namespace", "default", "--retention", "30d"),
        *("--address", client.service_client.config.target_host),
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    await stop_server(machine.data)
    assert await retention(await open_client(machine)) == timedelta(days=30)


async def test_runs_can_be_found_by_our_search_attributes_from_the_first_moment(machine: Machine) -> None:
    client = await open_client(machine)
    assert set(await known_search_attributes(client)) == set(SEARCH_ATTRIBUTES)
    await client.start_workflow(
        "Unworked",
        id="found",
        task_queue="nobody",
        search_attributes=TypedSearchAttributes(
            [
                SearchAttributePair(SearchAttributeKey.for_keyword("PerstackJob"), "a-job"),
                SearchAttributePair(SearchAttributeKey.for_keyword_list("PerstackTags"), ["a", "b"]),
                SearchAttributePair(SearchAttributeKey.for_int("PerstackTokens"), 12),
            ]
        ),
    )
    found: list[str] = []
    query = "PerstackJob = 'a-job' AND PerstackTags = 'b' AND PerstackTokens > 11"
    async with asyncio.timeout(30):
        while not found:
            found = [execution.id async for execution in client.list_workflows(query)]
    assert found == ["found"]


async def test_the_server_inherits_no_key_of_the_user(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-for-the-server")
    await machine.lease()
    for pid in machine.server_pids() + machine.supervisor_pids():
        assert b"not-for-the-server" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_a_program_that_cannot_serve_is_reported_with_what_it_said(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "temporal"
    program.write_text("#!/bin/sh\necho 'this is not a server' >&2\nexit 3\n")
    program.chmod(0o700)
    monkeypatch.setenv("PERSTACK_TEMPORAL_CLI", str(program))
    with pytest.raises(ServerError, match=r"did not start.*code 3") as caught:
        await machine.lease()
    assert str(machine.data.log) in (caught.value.hint or "")
    assert "this is not a server" in machine.data.log.read_text()
