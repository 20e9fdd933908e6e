"""How long a command takes to draw on a terminal."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

LINES, COLUMNS = 50, 120
LONGEST_SECONDS = 60


def seconds_until_drawn(command: list[str], *texts: str, env: dict[str, str], folder: Path) -> list[float]:
    """Seconds from the start of a command on a terminal until each text has been drawn; then `q` ends it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env={**env, "TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    drawn, times = b"", list[float]()
    wanted = [text.encode() for text in texts]
    try:
        while wanted:
            if not select.select([ours], [], [], LONGEST_SECONDS)[0]:
                raise SystemExit(f"{' '.join(command)} does not draw {wanted[0].decode()}")
            drawn += os.read(ours, 65_536)
            while wanted and wanted[0] in drawn:
                times.append(time.perf_counter() - begun)
                wanted.pop(0)
        os.write(ours, b"q")
        while _reads(ours):
            pass
        process.wait(LONGEST_SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return times


def _reads(terminal: int) -> bytes:
    """What is drawn until the program has left."""
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""
