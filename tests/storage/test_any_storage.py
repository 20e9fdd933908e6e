"""What every storage does, whatever it keeps its content in."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from perstack.client.storage import base
from perstack.client.storage.base import Storage
from perstack.client.storage.driver import PayloadDriver
from perstack.core.failures import StorageError
from perstack.core.run import BlobRef
from temporalio.api.common.v1 import Payload
from temporalio.converter import StorageDriverRetrieveContext, StorageDriverStoreContext

Reopen = Callable[[], Storage]
BAD_NAMES = ["", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a/.hidden", "a\\b", "a b", "a\0b", "ä", "x" * 700]


def test_content_comes_back_by_its_reference_and_by_its_hash(storage: Storage, reopen: Reopen) -> None:
    content = bytes(range(256)) * 12_000
    ref = storage.put(content)
    assert ref == BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    for one in (storage, reopen()):
        assert one.get(ref) == one.get(ref.sha256) == content


def test_empty_content_is_content(storage: Storage, reopen: Reopen) -> None:
    assert reopen().get(storage.put(b"")) == b""


def test_many_at_once_put_and_get_the_same_content(storage: Storage, reopen: Reopen) -> None:
    with ThreadPoolExecutor(8) as pool:
        several = [reopen() for _ in range(3)]
        puts = [pool.submit(one.put, b"same") for one in several * 4]
        (ref, *others) = [one.result() for one in puts]
        assert all(other == ref for other in others)
        gets = [pool.submit(one.get, ref) for one in (*several, reopen())]
        assert {one.result() for one in gets} == {b"same"}


def test_content_that_is_missing_is_named_with_the_place_and_the_remedy(storage: Storage) -> None:
    with pytest.raises(StorageError, match=f"{'a' * 64} is not in {storage.location}") as caught:
        storage.get("a" * 64)
    assert caught.value.code == "storage.missing"
    assert "PERSTACK_STORAGE" in (caught.value.hint or "")


def test_only_a_hash_names_content(storage: Storage) -> None:
    for name in ("", "../../etc/passwd", "A" * 64, "a" * 63):
        with pytest.raises(ValueError, match="not a SHA-256"):
            storage.get(name)


def test_the_identity_is_made_once_for_all_who_ask(storage: Storage, reopen: Reopen) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = [pool.submit(lambda: reopen().storage_id) for _ in range(4)]
    assert {one.result() for one in ids} == {storage.storage_id}
    assert len(storage.storage_id) == 32


async def test_a_payload_over_the_limit_is_refused_with_size_and_limit(
    storage: Storage, reopen: Reopen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "PAYLOAD_BYTES", 2 * 1024 * 1024)
    payload = Payload(data=b"x" * 3 * 1024 * 1024)
    with pytest.raises(StorageError, match=r"3\.0 MiB is over the limit of 2 MiB") as caught:
        await PayloadDriver(storage).store(StorageDriverStoreContext(), [payload])
    assert caught.value.code == "storage.too_large"
    with pytest.raises(StorageError, match="over the limit"):
        storage.put(payload.data)
    with pytest.raises(StorageError, match="is not in"):
        reopen().get(hashlib.sha256(payload.data).hexdigest())


async def test_the_driver_brings_back_the_very_payloads_it_took(storage: Storage, reopen: Reopen) -> None:
    payloads = [Payload(metadata={"encoding": b"json/plain", "a": b"b"}, data=b"x" * size) for size in (70_000, 80_000)]
    claims = await PayloadDriver(storage).store(StorageDriverStoreContext(), payloads)
    assert [claim.claim_data["size"] for claim in claims] == [str(payload.ByteSize()) for payload in payloads]
    assert await PayloadDriver(reopen()).retrieve(StorageDriverRetrieveContext(), claims) == payloads


def test_references_name_the_same_driver_for_every_storage(storage: Storage) -> None:
    assert PayloadDriver(storage).name() == "perstack"


def test_a_named_object_is_what_was_put_last(storage: Storage, reopen: Reopen) -> None:
    name = "archive/job_1-a/0b1c.d-e/history.json"
    assert storage.get_named(name) is None
    storage.put_named(name, b"first")
    storage.put_named(name, b"second")
    assert reopen().get_named(name) == b"second"


def test_names_are_listed_by_how_they_begin_and_in_order(storage: Storage, reopen: Reopen) -> None:
    names = ["archive/a/1", "archive/a/2", "archive/ab/1", "archive/b/deep/er/1", "other"]
    assert storage.names("") == []
    for name in reversed(names):
        storage.put_named(name, name.encode())
    storage.put(b"content is no name")
    _ = storage.storage_id
    again = reopen()
    assert again.names("") == names
    assert again.names("archive/") == names[:4]
    assert again.names("archive/a") == names[:3]
    assert again.names("archive/a/") == names[:2]
    assert again.names("archive/nothing/") == []


def test_more_names_than_one_answer_holds_are_all_listed(storage: Storage, reopen: Reopen) -> None:
    names = [f"many/{number:04}" for number in range(1_100)]
    with ThreadPoolExecutor(8) as pool:
        writes = [pool.submit(storage.put_named, name, b"") for name in names]
    assert [write.result() for write in writes] == [None] * len(names)
    assert reopen().names("many/") == names


def test_a_name_that_could_lead_elsewhere_is_refused(storage: Storage) -> None:
    for name in BAD_NAMES:
        with pytest.raises(ValueError, match="not a name"):
            storage.put_named(name, b"content")
        with pytest.raises(ValueError, match="not a name"):
            storage.get_named(name)


def test_a_prefix_that_could_lead_elsewhere_is_refused(storage: Storage) -> None:
    for prefix in ("../", "a/../", "/etc/", "a/.", "a//"):
        with pytest.raises(ValueError, match="not a name"):
            storage.names(prefix)
