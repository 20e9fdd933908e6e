"""Replaces itself by a program that is told to end when its parent dies, however the parent dies.

Runs as a script before `exec`, so no Python code has to run between `fork` and `exec` of the parent.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def tethered(*command: str, by: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command line that runs `command`, its path in full, tied to this process; only Linux can tie."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(by)), *command]


def main() -> None:
    """Ask the kernel for the signal, then become the program."""
    parent, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(number))
    # A parent that died before the request would never be reported.
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]} could not be started: {error.strerror}")


if __name__ == "__main__":
    main()
