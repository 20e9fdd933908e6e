"""Finding the `temporal` program, fetching it, and saying how to get it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from perstack.client import binary
from perstack.client.embedded import lease_server
from perstack.core.failures import ServerError


@pytest.fixture
def bare(clean_environment: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No program anywhere, no cache, no way to fetch one."""
    empty = tmp_path / "empty"
    empty.mkdir()
    clean_environment.setenv("PATH", str(empty))
    clean_environment.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    clean_environment.setenv("HOME", str(tmp_path / "home"))
    return clean_environment


def program(path: Path, script: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def quiet(message: str) -> None:
    """Progress nobody reads."""


async def test_without_any_program_the_error_lists_the_ways_to_get_one(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match="no `temporal` program found; downloads are off") as caught:
        await lease_server(address=None, progress=quiet)
    assert caught.value.code == "temporal.binary"
    hint = caught.value.hint or ""
    for way in ("PERSTACK_TEMPORAL_CLI", "brew install", "go install", "docker run", "TEMPORAL_ADDRESS"):
        assert way in hint


def test_a_wrong_name_in_the_environment_is_an_error_and_nothing_else_is_tried(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path / "empty" / "temporal")
    bare.setenv("PERSTACK_TEMPORAL_CLI", str(tmp_path / "missing"))
    with pytest.raises(ServerError, match=r"PERSTACK_TEMPORAL_CLI names .*missing, which is not a program"):
        binary.find_binary()


def test_the_named_program_comes_before_path_and_path_before_the_cache(
    bare: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cached = program(binary.binaries_folder() / "temporal")
    assert binary.find_binary() == cached
    on_path = program(tmp_path / "empty" / "temporal")
    assert binary.find_binary() == on_path
    named = program(tmp_path / "named")
    bare.setenv("PERSTACK_TEMPORAL_CLI", str(named))
    assert binary.find_binary() == named


def test_a_program_is_built_with_go_once_for_all_processes(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "builds"
    program(tmp_path / "empty" / "go", f'echo "$@" >> {log}; : > "$GOBIN/temporal"; /bin/chmod 755 "$GOBIN/temporal"')
    command = [sys.executable, "-m", "perstack.client.binary"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]

    cached = binary.binaries_folder() / "temporal"
    assert [out for out, _ in outputs] == [f"{cached}\n"] * 3
    assert len(log.read_text().splitlines()) == 1
    assert "temporalio/cli/cmd/temporal@v1.5.1" in log.read_text()
    assert os.access(cached, os.X_OK)
    assert sorted(path.name for path in cached.parent.iterdir()) == [".fetch.lock", "temporal"]


def test_a_build_that_fails_leaves_nothing_and_says_why(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "empty" / "go", 'echo "go: no such module" >&2; exit 1')
    with pytest.raises(ServerError, match="go install failed: go: no such module"):
        binary.ensure_binary(quiet)
    assert [path.name for path in binary.binaries_folder().iterdir()] == [".fetch.lock"]


def test_a_download_that_stands_still_is_given_up(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.delenv("PERSTACK_NO_DOWNLOAD")
    bare.setattr(sys, "executable", str(program(tmp_path / "python", "exec /bin/sleep 60")))
    bare.setattr(binary, "STALL_SECONDS", 0.3)
    with pytest.raises(ServerError, match="the download stood still"):
        binary.ensure_binary(quiet)


def test_a_download_that_works_is_kept_under_the_name_we_look_for(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bare.delenv("PERSTACK_NO_DOWNLOAD")
    script = 'for folder; do :; done; cd "$folder"; : > temporal-sdk-python-9; /bin/chmod 755 temporal-sdk-python-9'
    bare.setattr(sys, "executable", str(program(tmp_path / "python", script)))
    assert binary.ensure_binary(quiet) == binary.binaries_folder() / "temporal"
    assert binary.find_binary() == binary.binaries_folder() / "temporal"


def test_the_module_prints_the_path_alone(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named = program(tmp_path / "named")
    bare.setenv("PERSTACK_TEMPORAL_CLI", str(named))
    command = [sys.executable, "-m", "perstack.client.binary"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{named}\n", "")
