"""The folder of large payloads."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from perstack.client.storage import folder
from perstack.client.storage.folder import FolderDriver, FolderStorage
from perstack.core.failures import StorageError
from perstack.core.run import BlobRef
from temporalio.api.common.v1 import Payload
from temporalio.converter import StorageDriverStoreContext


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_content_comes_back_by_its_reference_and_by_its_hash(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "storage")
    content = bytes(range(256)) * 12_000
    ref = storage.put(content)
    assert ref == BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    assert storage.get(ref) == storage.get(ref.sha256) == content


def test_the_same_content_is_one_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "storage")
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(storage.put, [b"same"] * 32))) == 1
    (file,) = files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_content_that_was_changed_is_refused_and_can_be_put_again(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "storage")
    ref = storage.put(b"original")
    (file,) = files(tmp_path)
    file.write_bytes(b"tampered")
    with pytest.raises(StorageError, match="does not contain what its name says") as caught:
        storage.get(ref)
    assert caught.value.code == "storage.corrupt"
    storage.put(b"original")
    assert storage.get(ref) == b"original"


def test_content_that_is_missing_is_named_with_the_folder(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "storage")
    with pytest.raises(StorageError, match=f"{'a' * 64} is not in {storage.root}") as caught:
        storage.get("a" * 64)
    assert caught.value.code == "storage.missing"


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63])
def test_only_a_hash_names_content(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a SHA-256"):
        FolderStorage(tmp_path).get(name)


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = FolderStorage(tmp_path / "file" / "storage")
    with pytest.raises(StorageError, match=f"{storage.root} cannot be written: Not a directory") as caught:
        storage.put(b"content")
    assert caught.value.code == "storage.unavailable"
    assert "PERSTACK_DATA_DIR" in (caught.value.hint or "")
    with pytest.raises(StorageError, match="cannot be used"):
        _ = storage.storage_id


def test_a_write_that_fails_leaves_no_scratch_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    storage = FolderStorage(tmp_path / "storage")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        storage.put(b"content")
    assert files(tmp_path) == []


def test_the_identity_is_made_once_and_moves_with_the_folder(tmp_path: Path) -> None:
    def identity(root: Path) -> str:
        return FolderStorage(root).storage_id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(identity, [tmp_path / "a"] * 16))
    (tmp_path / "a").rename(tmp_path / "b")
    assert ids == {FolderStorage(tmp_path / "b").storage_id}
    assert FolderStorage(tmp_path / "c").storage_id not in ids


async def test_a_payload_over_the_limit_is_refused_with_size_and_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "PAYLOAD_BYTES", 2 * 1024 * 1024)
    storage = FolderStorage(tmp_path / "storage")
    payload = Payload(data=b"x" * 3 * 1024 * 1024)
    with pytest.raises(StorageError, match=r"3\.0 MiB is over the limit of 2 MiB") as caught:
        await FolderDriver(storage).store(StorageDriverStoreContext(), [payload])
    assert caught.value.code == "storage.too_large"
    with pytest.raises(StorageError, match="over the limit"):
        storage.put(payload.data)
    assert files(tmp_path) == []
