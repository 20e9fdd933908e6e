"""Which server is used, how payloads look on the wire, and what a person reads when nothing answers."""

import logging
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from perstack.client.connection import (
    ServerInfo,
    check_version,
    connect,
    data_converter,
    known_search_attributes,
    shared_runtime,
)
from perstack.client.embedded import lease_server
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.core.failures import Failure, ServerError
from perstack.core.run import RunResult
from support.machines import Machine
from temporalio.api.common.v1 import Payload


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def elsewhere(address: str) -> ServerInfo:
    return ServerInfo(address=address, ui_url=None, namespace="default", is_embedded=False, version=None)


@pytest.fixture
def driver(tmp_path: Path) -> PayloadDriver:
    return PayloadDriver(FolderStorage(tmp_path / "storage"))


async def test_an_explicit_address_is_used_and_nothing_is_started(
    clean_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clean_environment.setenv("TEMPORAL_ADDRESS", "not-this.example:7233")
    with await lease_server(address="temporal.example:7233", progress=pytest.fail) as lease:
        assert lease.info == elsewhere("temporal.example:7233")
    assert not (tmp_path / "data").exists()


async def test_the_address_and_namespace_of_the_environment_are_used(clean_environment: pytest.MonkeyPatch) -> None:
    clean_environment.setenv("TEMPORAL_ADDRESS", "temporal.example:7233")
    clean_environment.setenv("TEMPORAL_NAMESPACE", "agents")
    with await lease_server(address=None, progress=pytest.fail) as lease:
        assert (lease.info.address, lease.info.namespace) == ("temporal.example:7233", "agents")


async def test_the_profile_of_the_temporal_command_line_is_used(
    clean_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    profile = tmp_path / "temporal.toml"
    profile.write_text('[profile.default]\naddress = "profile.example:7233"\nnamespace = "team"\n')
    clean_environment.setenv("TEMPORAL_CONFIG_FILE", str(profile))
    with await lease_server(address=None, progress=pytest.fail) as lease:
        assert (lease.info.address, lease.info.namespace) == ("profile.example:7233", "team")


async def test_a_broken_profile_is_an_error_that_says_so(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    profile = tmp_path / "temporal.toml"
    profile.write_text("address = [")
    clean_environment.setenv("TEMPORAL_CONFIG_FILE", str(profile))
    with pytest.raises(ServerError, match="profile cannot be read") as caught:
        await lease_server(address=None, progress=pytest.fail)
    assert caught.value.code == "temporal.profile"


async def test_an_address_where_nobody_listens_is_an_error_that_names_it_and_what_to_do(
    clean_environment: pytest.MonkeyPatch, driver: PayloadDriver
) -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ServerError, match=address) as caught:
        await connect(elsewhere(address), storage=driver)
    assert caught.value.code == "temporal.unreachable"
    assert "TEMPORAL_ADDRESS" in (caught.value.hint or "")


async def test_an_address_that_never_answers_is_given_up_in_bounded_time(
    clean_environment: pytest.MonkeyPatch, driver: PayloadDriver
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        with pytest.raises(ServerError, match=r"no answer within 0\.5 s"):
            await connect(elsewhere(address), storage=driver, timeout_seconds=0.5)
        assert time.monotonic() - started < 5


async def test_a_server_that_is_not_ours_is_used_without_a_lock(machine: Machine, driver: PayloadDriver) -> None:
    embedded = await machine.lease()
    with await lease_server(address=embedded.info.address, progress=pytest.fail) as lease:
        client = await connect(lease.info, storage=driver)
        assert not lease.info.is_embedded
        assert "PerstackJob" in await known_search_attributes(client)


def test_a_server_that_is_too_old_is_refused_with_both_versions() -> None:
    with pytest.raises(ServerError, match=r"1\.28\.4; 1\.29 or newer") as caught:
        check_version("1.28.4", "old.example:7233")
    assert caught.value.code == "temporal.version"
    for version in ("1.29.0", "1.32.1-rc.1", "v2.0", "a cloud"):
        check_version(version, "new.example:7233")


async def test_payloads_are_json_in_the_spelling_of_the_contract_without_absent_fields(driver: PayloadDriver) -> None:
    converter = data_converter(driver)
    value = RunResult(
        status="stoppedByError",
        expert_key="a",
        run_id="r",
        checkpoint_id="c",
        last_step=1,
        failure=Failure(name="provider.rate_limited", message="slow down"),
    )
    (payload,) = await converter.encode([value])
    assert b'"expertKey":"a"' in payload.data
    assert b"null" not in payload.data
    assert await converter.decode([payload], [RunResult]) == [value]


async def test_a_null_inside_data_is_kept(driver: PayloadDriver) -> None:
    converter = data_converter(driver)
    arguments: list[Any] = [{"path": None, "lines": [1, None]}, None]
    assert await converter.decode(await converter.encode(arguments)) == arguments


async def test_a_payload_of_three_megabytes_travels_through_the_storage(driver: PayloadDriver) -> None:
    converter = data_converter(driver)
    values = [{"text": "é" * 1_500_000}, {"text": "short"}]
    payloads = await converter.encode(values)
    assert payloads[0].ByteSize() < 1000
    assert payloads[1].data == b'{"text":"short"}'
    assert await converter.decode(payloads) == values


async def test_the_same_content_is_stored_once(driver: PayloadDriver, tmp_path: Path) -> None:
    converter = data_converter(driver)
    text = "x" * 100_000
    first, second = await converter.encode([text, text])
    assert first.data == second.data
    assert len([path for path in (tmp_path / "storage").rglob("*") if path.is_file()]) == 1


async def test_another_process_reads_what_this_one_stored(driver: PayloadDriver, tmp_path: Path) -> None:
    text = "x" * 100_000
    (payload,) = await data_converter(driver).encode([text])
    other = data_converter(PayloadDriver(FolderStorage(tmp_path / "storage")))
    assert await other.decode([Payload.FromString(payload.SerializeToString())]) == [text]


async def test_a_workflow_started_with_a_large_input_keeps_only_a_reference_in_its_history(machine: Machine) -> None:
    lease = await machine.lease()
    storage = FolderStorage(machine.data.storage)
    client = await connect(lease.info, storage=PayloadDriver(storage))
    handle = await client.start_workflow("Unworked", "x" * 3_000_000, id="large", task_queue="nobody")
    history = await handle.fetch_history()
    (payload,) = history.events[0].workflow_execution_started_event_attributes.input.payloads
    assert payload.ByteSize() < 1000
    assert await client.data_converter.decode([payload]) == ["x" * 3_000_000]


def test_the_log_of_the_sdk_never_reaches_the_terminal() -> None:
    code = f"""
import asyncio, os
from perstack.client.connection import ServerInfo, connect
from perstack.client.storage.driver import PayloadDriver
from perstack.client.storage.folder import FolderStorage
from perstack.core.failures import ServerError
async def main():
    info = ServerInfo("127.0.0.1:{free_port()}", None, "default", True, "1.29.1")
    try:
        await connect(info, storage=PayloadDriver(FolderStorage(__import__("pathlib").Path("/nowhere"))))
    except ServerError:
        import logging
        logging.getLogger("perstack.temporal").warning("a warning of the core")
asyncio.run(main())
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_there_is_one_runtime_per_process() -> None:
    assert shared_runtime() is shared_runtime()
    handlers = logging.getLogger("perstack.temporal").handlers
    assert any(isinstance(handler, logging.NullHandler) for handler in handlers)
