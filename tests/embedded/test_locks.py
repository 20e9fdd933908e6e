"""Locks end with their process, and a job has one worker process at a time."""

import subprocess
import sys
from pathlib import Path

import pytest
from perstack.client.filelock import FileLock, is_free, read_note
from perstack.client.locations import DataFolder, data_folder
from perstack.client.locks import JobLock
from perstack.core.failures import StorageError

HOLD = "import sys; sys.stdin.read()"
TAKE_AND_HOLD = """
import sys, threading
from pathlib import Path
from perstack.client.locations import DataFolder
from perstack.client.locks import JobLock
assert JobLock(DataFolder(Path(sys.argv[1])), sys.argv[2]).acquire()
print("held", flush=True)
threading.Event().wait()
"""


def test_a_job_belongs_to_one_process_until_that_dies(tmp_path: Path) -> None:
    data = DataFolder(tmp_path / "data")
    command = [sys.executable, "-c", TAKE_AND_HOLD, str(data.root), "a-job"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        mine = JobLock(data, "a-job")
        assert not mine.acquire()
        assert mine.holder_pid() == process.pid
        assert JobLock(data, "another-job").acquire()

        process.kill()
        process.wait()
        assert mine.acquire()
        assert mine.is_held


def test_a_lock_is_not_inherited_by_children(tmp_path: Path) -> None:
    lock, next_holder = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
    assert lock.acquire()
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        # The kernel wakes the parent just before it closes what the child must not have.
        assert next_holder.acquire(timeout_seconds=10)
        assert child.poll() is None


def test_shared_holders_keep_an_exclusive_one_out(tmp_path: Path) -> None:
    first, second, exclusive = (FileLock(tmp_path / "a.lock") for _ in range(3))
    assert first.acquire(is_shared=True)
    assert second.acquire(is_shared=True)
    assert not exclusive.acquire(timeout_seconds=0.05)
    first.release()
    second.release()
    assert exclusive.acquire(timeout_seconds=5)
    assert not is_free(exclusive.path)


def test_the_note_of_the_last_holder_stays(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "a.lock")
    assert read_note(lock.path) == ""
    assert lock.acquire()
    lock.write_note("a long note")
    lock.write_note("short")
    lock.release()
    assert read_note(lock.path) == "short"


@pytest.mark.parametrize("job_id", ["", "../escape", "a/b", "x" * 129])
def test_a_job_lock_never_leaves_its_folder(tmp_path: Path, job_id: str) -> None:
    with pytest.raises(ValueError, match="not a job id"):
        JobLock(DataFolder(tmp_path), job_id)


def test_a_folder_that_cannot_hold_locks_is_an_error_for_people(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot lock the job") as caught:
        JobLock(DataFolder(tmp_path / "file"), "a-job").acquire()
    assert "PERSTACK_DATA_DIR" in (caught.value.hint or "")


def test_the_data_folder_is_named_by_the_environment(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_folder().root == tmp_path / "data"
    clean_environment.delenv("PERSTACK_DATA_DIR")
    clean_environment.setenv("PERSTACK_SANDBOX", "1")
    assert data_folder().root == Path("/workspace/perstack")
    clean_environment.delenv("PERSTACK_SANDBOX")
    clean_environment.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert data_folder().root == tmp_path / "xdg" / "perstack"


def test_the_supervisor_loads_neither_pydantic_nor_the_sdk() -> None:
    code = "import sys, perstack.client.supervisor; print({'pydantic', 'temporalio', 'asyncio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set()\n"
