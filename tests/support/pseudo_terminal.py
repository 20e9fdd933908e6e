"""A program on a real terminal: what it draws there, and the keys it is sent."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

LONGEST_SECONDS = 60.0
_STEP = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-Z\\-_=>]|\r|\n|\x07|\x08|[^\r\n\x07\x08\x1b]+")


class PseudoTerminal:
    """The other side of a terminal that a program runs on."""

    def __init__(self, master: int, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.drawn = ""
        """Everything the program sent, as it sent it."""
        self._master = master
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def screen(self) -> list[str]:
        """The lines that stand there now, as far as carriage returns and erased lines change them."""
        lines, column = [""], 0
        for step in _STEP.findall(self.drawn):
            if step == "\n":
                lines.append("")
                column = 0
            elif step == "\r":
                column = 0
            elif step == "\x08":
                column = max(0, column - 1)
            elif step == "\x1b[K":
                lines[-1] = lines[-1][:column]
            elif step[0] not in "\x1b\x07":
                lines[-1] = lines[-1][:column].ljust(column) + step + lines[-1][column + len(step) :]
                column += len(step)
        return [line.rstrip() for line in lines]

    def press(self, keys: str) -> None:
        """Type something."""
        os.write(self._master, keys.encode())

    async def seen(self, text: str, *, count: int = 1, seconds: float = LONGEST_SECONDS) -> None:
        """Wait until the program has drawn `text` so often."""
        async with asyncio.timeout(seconds):
            while self.drawn.count(text) < count:
                self._changed.clear()
                await self._changed.wait()

    async def ended(self, *, seconds: float = LONGEST_SECONDS) -> int:
        """Wait for the end of the program; its exit code."""
        async with asyncio.timeout(seconds):
            code = await asyncio.to_thread(self.process.wait)
        self._read()
        return code

    def close(self) -> None:
        """End what still runs."""
        asyncio.get_running_loop().remove_reader(self._master)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)

    def _read(self) -> None:
        # A terminal that nobody has open any more cannot be read (EIO).
        with suppress(OSError):
            while data := os.read(self._master, 65536):
                self.drawn += data.decode(errors="replace")
        self._changed.set()


@asynccontextmanager
async def on_terminal(
    *command: str | Path,
    cwd: Path,
    env: Mapping[str, str],
    columns: int = 80,
    stdout: int | None = None,
) -> AsyncGenerator[PseudoTerminal]:
    """Run a program on a terminal of its own; with `stdout`, that goes somewhere else."""
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    terminal = PseudoTerminal(master, _started(command, slave, cwd, env, stdout))
    try:
        yield terminal
    finally:
        terminal.close()


def _started(
    command: Sequence[str | Path], slave: int, cwd: Path, env: Mapping[str, str], stdout: int | None
) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env=dict(env),
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            start_new_session=True,
            # Keys like Ctrl-C become signals only on a terminal that is the program's own.
            preexec_fn=lambda: fcntl.ioctl(2, termios.TIOCSCTTY, 0),
        )
    finally:
        os.close(slave)
