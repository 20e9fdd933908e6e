"""Large payloads in a folder."""

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from perstack.client.storage.folder import FolderStorage
from perstack.core.failures import StorageError


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_the_same_content_is_one_file_that_only_its_owner_may_read(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "storage")
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(storage.put, [b"same"] * 32))) == 1
    storage.put_named("a/b", b"named")
    assert len(files(tmp_path)) == 2
    for file in files(tmp_path):
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700


def test_content_that_was_changed_is_refused_and_can_be_put_again(tmp_path: Path) -> None:
    ref = FolderStorage(tmp_path / "storage").put(b"original")
    (file,) = files(tmp_path)
    file.write_bytes(b"tampered")
    with pytest.raises(StorageError, match="does not contain what its name says") as caught:
        FolderStorage(tmp_path / "storage").get(ref)
    assert caught.value.code == "storage.corrupt"
    FolderStorage(tmp_path / "storage").put(b"original")
    assert FolderStorage(tmp_path / "storage").get(ref) == b"original"


def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = FolderStorage(tmp_path / "file" / "storage")
    with pytest.raises(StorageError, match=f"{storage.root} cannot be written: Not a directory") as caught:
        storage.put(b"content")
    assert caught.value.code == "storage.unavailable"
    assert "PERSTACK_DATA_DIR" in (caught.value.hint or "")
    for ask in (lambda: storage.storage_id, lambda: storage.names(""), lambda: storage.get("a" * 64)):
        with pytest.raises(StorageError, match=r"cannot be (used|read)") as caught:
            ask()
        assert caught.value.code == "storage.unavailable"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_leaves_no_scratch_file_and_takes_content_again_when_there_is_room(
    small_disk: Path,
) -> None:
    storage = FolderStorage(small_disk / "storage")
    storage.put(b"small")
    filling = small_disk / "other"
    filling.write_bytes(b"x" * 900_000)
    before = files(small_disk)
    for write in (lambda: storage.put(b"y" * 500_000), lambda: storage.put_named("a", b"y" * 500_000)):
        with pytest.raises(StorageError, match="No space left on device") as caught:
            write()
        assert caught.value.code == "storage.unavailable"
    assert files(small_disk) == before
    filling.unlink()
    assert FolderStorage(storage.root).get(storage.put(b"y" * 500_000)) == b"y" * 500_000


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


def test_a_volume_that_is_no_longer_mounted_is_an_outage_and_is_not_filled(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path / "volume")
    identity = storage.storage_id
    storage.put_named("job", b"archive")
    (tmp_path / "volume").rename(tmp_path / "elsewhere")
    (tmp_path / "volume").mkdir()
    asks = (
        lambda: storage.put(b"content"),
        lambda: storage.get("a" * 64),
        lambda: storage.get_named("job"),
        lambda: storage.names("job"),
        lambda: storage.storage_id,
    )
    for ask in asks:
        with pytest.raises(StorageError, match="is the volume mounted") as caught:
            ask()
        assert caught.value.code == "storage.unavailable"
    assert files(tmp_path / "volume") == []
    (tmp_path / "volume").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "volume")
    assert storage.storage_id == identity
    assert storage.get_named("job") == b"archive"


def test_a_name_that_is_still_being_written_is_not_listed(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    storage.put_named("a/b", b"content")
    (tmp_path / "named" / "a" / ".b.scratch").write_bytes(b"half")
    assert storage.names("") == ["a/b"]
