"""Owns the embedded server of one data folder: starts it, watches it, stops it when nobody uses it.

Runs as `python -m perstack.client.supervisor <data-folder>` in a session of its own, so that neither Ctrl-C nor a
closed terminal reaches the server. It imports next to nothing, because it lives as long as the server.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from .filelock import FileLock, pauses, read_note
from .locations import DataFolder, make_private
from .record import ServerRecord
from .tether import tethered

LOOPBACK = "127.0.0.1"
DEFAULT_IDLE_SECONDS = 900.0
DEFAULT_SYNCHRONOUS = "2"
START_SECONDS = 45.0
STOP_SECONDS = 10.0
START_ATTEMPTS = 3

# The stock values let one shard read its queues twenty times a second: 50 ms for every hop of every activity.
DYNAMIC_CONFIG = (
    "history.transferProcessorMaxPollRPS=1000",
    "history.timerProcessorMaxPollRPS=1000",
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    "system.enableActivityEagerExecution=true",
)


def server_arguments(database: Path, *, port: int, ui_port: int, synchronous: str = DEFAULT_SYNCHRONOUS) -> list[str]:
    """The arguments of `temporal` for a fast and crash-proof local server."""
    arguments = ["server", "start-dev", "--ip", LOOPBACK, "--port", str(port), "--ui-port", str(ui_port)]
    arguments += ["--db-filename", str(database), "--log-level", "error", "--log-format", "json"]
    arguments += ["--sqlite-pragma", "journal_mode=wal", "--sqlite-pragma", f"synchronous={synchronous}"]
    for value in DYNAMIC_CONFIG:
        arguments += ["--dynamic-config-value", value]
    return arguments


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections on this port of the loopback interface."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
            # A connection to an unused port of the dynamic range can, rarely, be its own other end.
            return connection.getsockname() != connection.getpeername()
    except OSError:
        return False


class Signals:
    """Turns signals into a flag and an early end of a pause."""

    def __init__(self) -> None:
        self.is_stop_requested = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._request_stop)
        # A handler of our own makes the end of the server a wake-up.
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def pause(self, seconds: float) -> None:
        """Sleep until a signal arrives, `seconds` at most."""
        if select.select([self._reader], [], [], seconds)[0]:
            self._reader.recv(4096)

    def _request_stop(self, number: int, frame: object) -> None:
        self.is_stop_requested = True


class Supervisor:
    """One server and its locks."""

    def __init__(self, data: DataFolder, signals: Signals) -> None:
        self._data = data
        self._signals = signals
        self._server_lock = FileLock(data.server_lock)
        self._start_lock = FileLock(data.start_lock)
        self._clients_lock = FileLock(data.clients_lock)
        self._idle_seconds = float(os.environ.get("PERSTACK_SERVER_IDLE") or DEFAULT_IDLE_SECONDS)

    def run(self) -> int:
        """Serve until told to stop, unused for long enough, or left by the server."""
        if not self._server_lock.acquire(timeout_seconds=STOP_SECONDS):
            _log("the database is in use by another server")
            return 1
        self._data.record.unlink(missing_ok=True)
        started = self._start()
        if started is None:
            return 1
        process, record = started
        try:
            record.write(self._data.record)
            self._watch(process)
        finally:
            self._data.record.unlink(missing_ok=True)
            is_lost = process.poll() is not None
            _end(process)
        if is_lost:
            _log(f"the server ended by itself with code {process.returncode}")
        return int(is_lost)

    def _start(self) -> tuple["subprocess.Popen[bytes]", ServerRecord] | None:
        for _ in range(START_ATTEMPTS):
            port, ui_port = self._ports()
            process = self._spawn(port, ui_port)
            note = {"pid": process.pid, "port": port, "uiPort": ui_port}
            self._server_lock.write_note(json.dumps(note))
            if self._answers(process, port):
                return process, ServerRecord(
                    pid=process.pid,
                    supervisor_pid=os.getpid(),
                    address=f"{LOOPBACK}:{port}",
                    ui_address=f"http://{LOOPBACK}:{ui_port}",
                    port=port,
                    ui_port=ui_port,
                    started_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
                )
            code = process.poll()
            _end(process)
            _log("the server did not start" if code is None else f"the server ended at its start with code {code}")
            if self._signals.is_stop_requested:
                break
        return None

    def _ports(self) -> tuple[int, int]:
        # The ports of the last server are kept: its workers and browser tabs find the next one by themselves.
        try:
            last = json.loads(read_note(self._data.server_lock))
            wanted = (int(last["port"]), int(last["uiPort"]))
        except (ValueError, KeyError, TypeError):
            wanted = (0, 0)
        with _bound(wanted[0]) as port, _bound(wanted[1]) as ui_port:
            return port.getsockname()[1], ui_port.getsockname()[1]

    def _spawn(self, port: int, ui_port: int) -> "subprocess.Popen[bytes]":
        synchronous = os.environ.get("PERSTACK_SQLITE_SYNCHRONOUS") or DEFAULT_SYNCHRONOUS
        arguments = server_arguments(self._data.database, port=port, ui_port=ui_port, synchronous=synchronous)
        # The server inherits the lock: should this process die, the database stays locked until the server is gone.
        return subprocess.Popen(
            tethered(os.environ["PERSTACK_TEMPORAL_CLI"], *arguments),
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TEMPORAL_VERSION_CHECK_DISABLED": "1"},
            pass_fds=(self._server_lock.descriptor,),
        )

    def _answers(self, process: "subprocess.Popen[bytes]", port: int) -> bool:
        for pause in pauses(START_SECONDS, longest_seconds=0.05):
            if process.poll() is not None or self._signals.is_stop_requested:
                return False
            if is_listening(port):
                return True
            self._signals.pause(pause)
        return False

    def _watch(self, process: "subprocess.Popen[bytes]") -> None:
        interval = min(1.0, max(0.05, self._idle_seconds / 4))
        idle_since, last_use = time.monotonic(), self._last_use()
        while process.poll() is None and not self._signals.is_stop_requested:
            self._signals.pause(interval)
            seen_use = self._last_use()
            if self._is_used() or seen_use != last_use:
                idle_since, last_use = time.monotonic(), seen_use
            elif time.monotonic() - idle_since >= self._idle_seconds and self._close_door():
                _log("nobody used the server; stopping it")
                return

    def _is_used(self) -> bool:
        is_unused = self._clients_lock.acquire()
        self._clients_lock.release()
        return not is_unused

    def _last_use(self) -> float:
        # Clients touch the file, so one that came and went between two looks counts too.
        try:
            return self._data.clients_lock.stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _close_door(self) -> bool:
        """Keep starters and clients out until this process has ended; fails when one of them was quicker."""
        if not self._start_lock.acquire():
            return False
        if self._clients_lock.acquire():
            return True
        self._start_lock.release()
        return False


def _bound(port: int) -> socket.socket:
    """A socket on `port` if that is free, else on a free one; its number stays ours until it is closed."""
    for candidate in (port, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, candidate))
        except OSError:
            listener.close()
        else:
            return listener
    raise OSError(f"no free port on {LOOPBACK}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _log(message: str) -> None:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    sys.stdout.write(json.dumps({"time": now, "level": "INFO", "msg": message}) + "\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Become the supervisor of the data folder, unless there is one."""
    data = DataFolder(Path(arguments[0]))
    os.umask(0o077)
    make_private(data.server)
    lock = FileLock(data.supervisor_lock)
    # Others look at the lock for an instant, which is no reason to give up.
    if not lock.acquire(timeout_seconds=2.0):
        return 1
    # Whoever started us only waits for this exit, and never has to collect the real supervisor.
    if os.fork():
        os._exit(0)
    lock.write_note(str(os.getpid()))
    os.chdir(data.server)
    return Supervisor(data, Signals()).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
