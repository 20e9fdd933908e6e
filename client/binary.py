"""The `temporal` program: where it is, and how to get it. `python -m perstack.client.binary` prints its path."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ..core.failures import PerstackError, ServerError
from .filelock import FileLock
from .locations import binaries_folder, make_private
from .tether import tethered

PROGRAM = "temporal"
GO_MODULE = "github.com/temporalio/cli/cmd/temporal@v1.5.1"
STALL_SECONDS = 20.0
DOWNLOAD_SECONDS = 900.0
BUILD_SECONDS = 1800.0

HOW_TO_GET_IT = """get a Temporal server in one of these ways:
  install the Temporal CLI                https://docs.temporal.io/cli
  with Homebrew                           brew install temporal
  with Go                                 go install github.com/temporalio/cli/cmd/temporal@v1.5.1
  with Docker                             docker run -p 127.0.0.1:7233:7233 temporalio/temporal \\
                                            server start-dev --ip 0.0.0.0
                                          together with TEMPORAL_ADDRESS=127.0.0.1:7233
  name a program that is elsewhere        PERSTACK_TEMPORAL_CLI=/path/to/temporal
  use a server that runs already          TEMPORAL_ADDRESS=host:7233"""


def find_binary() -> Path | None:
    """The program named by `PERSTACK_TEMPORAL_CLI`, on `PATH`, or in our cache."""
    named = os.environ.get("PERSTACK_TEMPORAL_CLI")
    if named:
        path = Path(named).expanduser().absolute()
        if not _is_program(path):
            raise ServerError(
                f"PERSTACK_TEMPORAL_CLI names {path}, which is not a program",
                code="temporal.binary",
                hint="correct the variable, or unset it to use the one on PATH or fetch one",
            )
        return path
    on_path = shutil.which(PROGRAM)
    if on_path:
        return Path(on_path).absolute()
    cached = binaries_folder() / PROGRAM
    return cached if _is_program(cached) else None


def ensure_binary(progress: Callable[[str], None]) -> Path:
    """Find the program or fetch it; blocks for minutes when it has to be built."""
    found = find_binary()
    if found:
        return found
    try:
        folder = make_private(binaries_folder())
        lock = FileLock(folder / ".fetch.lock")
        if not lock.acquire():
            progress("waiting for another process that fetches the Temporal server …")
            if not lock.acquire(timeout_seconds=DOWNLOAD_SECONDS + BUILD_SECONDS):
                raise _unavailable(["another process has been fetching it for too long"])
        try:
            return find_binary() or _fetch(folder, progress)
        finally:
            lock.release()
    except OSError as error:
        raise _unavailable([f"{binaries_folder()}: {error.strerror or error}"]) from error


def _fetch(folder: Path, progress: Callable[[str], None]) -> Path:
    refusals: list[str] = []
    for source in (_download, _build):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            refusal = source(Path(scratch), progress)
            program = None if refusal else _newest_program(Path(scratch))
            if program:
                program.chmod(0o700)
                os.replace(program, folder / PROGRAM)
                return folder / PROGRAM
            refusals.append(refusal or "the download left no program")
    raise _unavailable(refusals)


def _download(scratch: Path, progress: Callable[[str], None]) -> str | None:
    """Fetch with the SDK's own downloader; answers why not."""
    if os.environ.get("PERSTACK_NO_DOWNLOAD") == "1":
        return "downloads are off (PERSTACK_NO_DOWNLOAD=1)"
    progress("downloading the Temporal server …")
    errors = scratch / "errors.log"
    with errors.open("wb") as log:
        process = subprocess.Popen(
            tethered(sys.executable, "-P", "-m", f"{__package__}.download", str(scratch)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        refusal = _wait_while_growing(process, scratch)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    if refusal or process.returncode == 0:
        return refusal
    return f"the download failed: {_last_line(errors.read_text(errors='replace'))}"


def _wait_while_growing(process: "subprocess.Popen[bytes]", scratch: Path) -> str | None:
    """Wait for the download as long as it gets on; answers why it was given up."""
    started = changed = time.monotonic()
    size = 0
    while process.poll() is None:
        now = time.monotonic()
        new_size = _size(scratch)
        if new_size != size:
            size, changed = new_size, now
        if now - changed > STALL_SECONDS:
            return f"the download stood still for {STALL_SECONDS:.0f} s"
        if now - started > DOWNLOAD_SECONDS:
            return f"the download took more than {DOWNLOAD_SECONDS / 60:.0f} minutes"
        time.sleep(0.1)
    return None


def _size(folder: Path) -> int:
    # The downloader renames its files while we look.
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _build(scratch: Path, progress: Callable[[str], None]) -> str | None:
    """Compile the program where Go is installed; answers why not."""
    go = shutil.which("go")
    if go is None:
        return "Go is not installed, so it cannot be built either"
    progress("building the Temporal server with Go; this takes some minutes, once …")
    try:
        done = subprocess.run(
            tethered(go, "install", "-ldflags=-s -w", GO_MODULE),
            cwd=scratch,
            env={**os.environ, "GOBIN": str(scratch)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the build took more than {BUILD_SECONDS / 60:.0f} minutes"
    if done.returncode == 0:
        return None
    return f"go install failed: {_last_line(done.stderr.decode(errors='replace'))}"


def _newest_program(folder: Path) -> Path | None:
    programs = [path for path in folder.glob(f"{PROGRAM}*") if _is_program(path) and path.suffix != ".downloading"]
    return max(programs, key=lambda path: path.stat().st_mtime, default=None)


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].strip()


def _unavailable(refusals: list[str]) -> ServerError:
    return ServerError(
        f"there is no Temporal server to start: no `temporal` program found; {'; '.join(refusals)}",
        code="temporal.binary",
        hint=HOW_TO_GET_IT,
    )


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def main() -> int:
    """Print the program's path, fetching it first if need be."""
    try:
        path = ensure_binary(_say)
    except PerstackError as error:
        _say(f"perstack: error: {error.message}\nhint: {error.hint}")
        return 1
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
